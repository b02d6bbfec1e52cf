/* api.h: the HTTPS API without its transport: one request in, one answer or one event stream out.
 *
 *   HTTP connection --(api_http.c)--> api_handle: route, who may, decode --> handler
 *                                                                            |  reads: own store
 *   answer, stream <----------------- problem+json or message <--------------+  writes: the core
 *
 * All in the thread of `loop`. What the API says to the core goes through `struct api_backend`,
 * so that tests stand in for it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "lib/buf.h"
#include "witnessd/core.h"
#include "witnessd/host.h"
#include "witnessd/metrics.h"
#include "witnessd/tls.h"

struct api;
struct api_call;

enum { API_STREAMS_MAX = 128 };

/* The functions of core.h and host.h that the API uses. */
struct api_backend {
	const struct core_view *(*view)(const struct core *c);
	const char *(*model_path)(const struct core *c);
	void (*propose)(struct core *c, struct mailbox *home, Tb__Command **commands, size_t count,
			core_proposed done, void *arg);
	void (*query)(struct core *c, struct mailbox *home, const Tb__PeerQuery *query,
		      core_answered done, void *arg);
	void (*init_cluster)(struct core *c, struct mailbox *home,
			     const Tb__ClusterInitRequest *request, core_controlled done,
			     void *arg);
	void (*join_cluster)(struct core *c, struct mailbox *home,
			     const Tb__ClusterJoinRequest *request, core_controlled done,
			     void *arg);
	void (*restore_cluster)(struct core *c, struct mailbox *home,
				const Tb__ClusterInitRequest *request, const uint8_t *backup,
				size_t len, core_controlled done, void *arg);
	void (*recover_cluster)(struct core *c, struct mailbox *home,
				const Tb__ClusterRecoverRequest *request, core_recovered done,
				void *arg);
	Tb__LocalStatus *(*local_status)(struct core *c);
	/* Of host.h. */
	void (*upload)(struct host *h, struct mailbox *home, const char *sha256, uint64_t size,
		       uint64_t offset, const void *bytes, size_t len, host_uploaded done,
		       void *arg);
	struct host_console *(*console_open)(struct host *h, struct mailbox *home, uint64_t vm,
					     uint32_t replay, bool follow, host_console_bytes bytes,
					     void *arg);
	void (*console_next)(struct host_console *c);
	void (*console_write)(struct host_console *c, const void *bytes, size_t len);
	void (*console_close)(struct host_console *c);
};
extern const struct api_backend api_backend_core;

/* One request. Everything is valid during api_handle only. Header fields: NULL if absent. */
struct api_request {
	const char *method;
	const char *path; /* percent-encoded, without the query */
	const char *query; /* percent-encoded, behind the '?'; "" if none */
	const char *authorization;
	const char *content_type;
	const char *accept;
	const char *if_match;
	const char *idempotency_key;
	const char *last_event_id;
	const uint8_t *body;
	size_t body_len;
	const char *peer_address; /* "10.0.0.1:34346" */
	bool local; /* came by the Unix socket */
	unsigned uid; /* of the peer, if local */
	const struct tls_peer *certificate; /* verified by the cluster CA; NULL: none */
};

/* NULL: not sent. All valid during the call only. */
struct api_answer {
	int status;
	const char *content_type;
	const char *etag;
	const char *location;
	const char *allow;
	const char *retry_after;
	const char *www_authenticate;
	bool no_store; /* holds a secret, or what may change at any time */
	bool head; /* the length counts, the body stays here */
	const uint8_t *body;
	size_t body_len;
};

/* Where answers go. `conn` is what api_handle was given. */
struct api_sink {
	/* The whole answer; the call is over. */
	void (*answer)(void *conn, const struct api_answer *answer);
	/* The head of a stream (status 200); the call lives on until stream_end. */
	void (*stream_begin)(void *conn, const char *content_type);
	/* Returns the bytes that are still queued; api_drained tells when they have gone. */
	size_t (*stream_write)(void *conn, const void *data, size_t len);
	void (*stream_end)(void *conn);
};

struct api_config {
	uv_loop_t *loop;
	struct mailbox *home; /* on that loop */
	struct core *core;
	const struct api_backend *backend;
	const struct api_sink *sink;
	struct metrics *metrics;
	/* The CAs that are believed at this moment (tls_peer.issuer); NULL: every one. */
	const struct tls_cas *believed;
};

struct api *api_new(const struct api_config *config);
/* Where this board's VMs and images are; once, from any thread. Without it they are answered 503.
 */
void api_host_set(struct api *a, struct host *h);
/* Ends streams, answers every open call (503) and stops timers. What the core still answers is
 * dropped; it may come until the mailbox is closed. `closed` is called from the loop. No api_handle
 * after it. */
void api_close(struct api *a, void (*closed)(void *arg), void *arg);
/* After `closed`, and after the mailbox was closed. */
void api_free(struct api *a);

/* Serves one request. *slot is the call while it is alive and NULL once it is over (it may be over
 * when this returns). */
void api_handle(struct api *a, const struct api_request *request, void *conn, void **slot);
/* The client has gone. A stream is ended; another call goes on and is answered as ever. */
void api_gone(struct api_call *call);
/* Would this request's credentials let it in anywhere? Nothing is answered or counted; asked at the
 * head of a request, before its body is taken in. */
bool api_knows(struct api *a, const struct api_request *request);
/* How much body this request may have, asked at its head; 0: as the server decides. */
size_t api_body_max(struct api *a, const struct api_request *request);
/* What stream_write had queued has gone. */
void api_drained(struct api_call *call);

/* The model has changed; drives the watches. */
void api_model_changed(struct api *a);
/* The board entered a cluster, or its model database is another one. */
void api_identity_changed(struct api *a);

/* May the board with this verified certificate link to us? 0; -EACCES and a sentence. */
int api_board_holds(struct api *a, uint64_t node, const char *serial, uint64_t issuer,
		    const char **ret_why);

/* The OpenAPI 3.1 description, made from the route table. */
void api_openapi(struct buf *out);
/* The same as a page for people (Markdown, docs/API.md). */
void api_manual(struct buf *out);
