/* front_internal.h: what the files of the front share: front.c (thread, listeners, TLS), and
 * front_link.c (incoming and outgoing links, admission), front_members.c (where the other boards
 * are). All of it runs in the front's thread. */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "cluster/limits.h"
#include "lib/ip.h"
#include "lib/list.h"
#include "witnessd/admission.h"
#include "witnessd/agent_door.h"
#include "witnessd/trail.h"
#include "witnessd/api_http.h"
#include "witnessd/config.h"
#include "witnessd/front.h"
#include "witnessd/identity.h"
#include "witnessd/stream.h"

#define ALPN_HTTP "http/1.1"
#define ALPN_PEER "tiebreak-peer/1"
#define ALPN_RAFT "tiebreak-raft/1"
#define ALPN_JOIN "tiebreak-join/1"
#define ALPN_AGENT "tiebreak-agent/1"
#define ALPN_HOST "tiebreak-host/1"

enum {
	FRONT_DIAL_MS = 5000,
	FRONT_JOIN_MS = 30000, /* for a whole admission */
	FRONT_JOINERS_MAX = 16,
	FRONT_JOIN_BYTES = 64 << 10, /* of a JoinRequest or JoinReply */
	FRONT_RENEW_MS = 3000, /* from one board's turn to the next; a link is back within it */
};

struct front {
	pthread_t thread;
	uv_loop_t loop;
	struct mailbox mailbox;
	uv_timer_t ticker;
	struct core *core;
	_Atomic(struct host *) host; /* NULL: none */
	char *data_dir;
	char *listen_address;
	char *socket_path;
	unsigned connections_max;
	unsigned agents_max;
	struct agent_door *agents;
	struct trail agents_trail; /* for them */
	struct metrics *metrics;
	struct metric *handshake_failures;
	struct metric *connections_refused;
	uint64_t refused_seen; /* of them, of the listener */

	struct stream_group *group;
	struct http_server *http;
	struct api *api;
	struct api_http api_http;
	struct api_limiter *join_limiter;

	struct admission *places; /* at the TLS port */
	struct board_seen {
		uint64_t node; /* 0: a free row */
		struct ip at;
	} seen[LIMIT_NODES]; /* where boards were when they proved who they are; the last first */
	bool members_stale; /* `places` does not know the newest of the model and of `seen` */

	struct stream_listener *unix_listener;
	struct stream_listener *tls_listener; /* NULL: no identity yet, or the port is taken */
	_Atomic unsigned port;
	struct identity identity; /* node_id 0: none yet */
	struct tls_cas believed; /* of its CAs */
	int64_t floor_ms; /* of the contexts: certificates are checked at this time or later */
	struct tls_context *server_context; /* NULL: none yet */
	struct tls_context *peer_context; /* outgoing, by ALPN */
	struct tls_context *raft_context;
	struct tls_context *host_context;
	struct tls_context *join_context;

	struct stream_listener
		*join_listener; /* while this board asks to join: front_join_listen */
	struct list links; /* struct link_end: streams on their way to be links */
	struct list pumps; /* links that are made (link.h) */
	uint64_t renew_slot; /* in which links were last looked at for a rotation of the CA */
	unsigned joiners; /* of them, boards that want in */

	struct letter model_letter;
	struct letter identity_letter;
	struct letter stop_letter;
	atomic_flag model_posted;
	atomic_flag identity_posted;
	bool stopping;
};

/* A board that asks to join shows that others reach its port, where nothing is served yet. */
int front_join_listen(struct front *f);
void front_join_unlisten(struct front *f);

/* --- front_link.c --- */

extern const struct stream_events front_entrant_events;
/* A new connection at the TLS port. */
void front_accepted(struct stream *s, void *arg);
/* Ends admissions that take too long. */
void front_links_expire(struct front *f, uint64_t now_ms);
/* Ends links of boards that were removed, or whose certificate was revoked. */
void front_links_check(struct front *f);
/* In a rotation of the CA: makes links anew that are of the one that will end. */
void front_links_renew(struct front *f);
/* Frees what is left; the streams are gone by then. */
void front_links_free(struct front *f);

/* --- front_members.c --- */

/* If there is news: tells `places` where the other boards are. */
void front_members_look(struct front *f);
/* `node` has proven by its certificate that it is at `address` (stream_peer_address). */
void front_member_seen(struct front *f, uint64_t node, const char *address);
