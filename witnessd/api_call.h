/* api_call.h: what the files of the API share: the route table, a call on its way, answers.
 *
 * A handler ends its call exactly once, by an api_answer_..., api_problem... or stream function,
 * at once or in a callback of the core; `call` is gone then. */
#pragma once
#include <protobuf-c/protobuf-c.h>

#include "cluster/apply.h"
#include "cluster/limits.h"
#include "cluster/store.h"
#include "lib/list.h"
#include "proto/api.pb-c.h"
#include "proto/json.h"
#include "witnessd/api.h"

/* --- the route table --- */

enum api_role {
	API_OPEN, /* anyone */
	API_VIEWER,
	API_OPERATOR,
	API_ADMIN,
	API_SOCKET, /* the Unix socket only */
};

enum api_param_type { API_TEXT, API_NUMBER, API_FLAG, API_WORD };

struct api_param {
	const char *name; /* NULL ends a list */
	enum api_param_type type;
	uint64_t min, max; /* of a number; max: bytes of a text */
	bool repeated; /* texts only: joined with commas */
	const ProtobufCEnumDescriptor *words;
	const char *summary;
};

enum { API_PARAMS_MAX = 8 };

struct api_route {
	const char *method;
	const char *path; /* "/v1/sites/{name}:enroll": at most one argument, in the last segment */
	enum api_role role;
	bool tenant; /* also for a tenant's token; the handler shows it its own sites only */
	bool own_site; /* also for ROLE_SITE, if the argument is its site */
	bool own_agent; /* the same for ROLE_AGENT */
	bool before_init; /* needs no model */
	size_t raw_max; /* 0, or: the body is not JSON but up to so many bytes for the handler */
	bool merge; /* the body is a merge patch of `request`, read by the handler */
	const ProtobufCMessageDescriptor *request; /* NULL: no body */
	const ProtobufCMessageDescriptor *answer; /* NULL: text */
	const char *content_type; /* of a text; NULL: JSON of `answer` */
	int status; /* of success */
	const struct api_param *params; /* NULL: none */
	void (*handle)(struct api_call *call);
	const char *summary;
};
extern const struct api_route api_routes[];
extern const size_t api_route_count;

/* --- who asks --- */

struct api_principal {
	Tb__Role role; /* NONE: nobody that we know */
	char actor[160]; /* "root@name", "token:ID", "cert:CN" */
	char site[LIMIT_NAME + 1]; /* ROLE_SITE, ROLE_AGENT */
	char tenant[LIMIT_NAME + 1]; /* "", or: that tenant's sites are all it sees */
	uint32_t agent_node; /* of an agent's certificate; else 0 */
	char token[17]; /* "" or the token's id */
	char token_ca_sha256[65]; /* the CA that this token names */
	char serial[64]; /* "" or the certificate's serial */
	uint64_t issuer; /* of that certificate (tls_peer) */
};

/* --- a call --- */

struct api_value {
	bool set;
	char *text; /* API_TEXT, API_WORD */
	uint64_t number; /* API_NUMBER, API_FLAG, API_WORD */
};

struct api_stream;
struct api_held;
struct api_console;

struct api_call {
	struct list link; /* api.calls */
	struct api *api;
	void *conn; /* NULL: answered, but the core still has it */
	void **slot;
	const struct api_route *route;
	struct api_principal who;
	bool head;
	char *arg; /* of the path, decoded; "" if the route has none */
	struct api_value params[API_PARAMS_MAX];
	ProtobufCMessage *request; /* decoded body, NULL if the route has none */
	struct buf body; /* as it came (merge patches) */
	uint64_t if_revision; /* If-Match; 0: none */
	char *idempotency_key; /* NULL: none */
	uint8_t request_sha256[32]; /* of method, path, query and body, with a key */
	char *last_event_id;
	bool accept_open_metrics;
	uint64_t started_us;
	struct api_stream *stream; /* NULL: not a watch */
	struct api_console *console; /* NULL: nobody looks at a console by it */
	struct api_held *held; /* NULL: was never held back */
	void *state; /* the handler's, between its steps */
	void (*state_free)(void *state);
	/* What goes on when the core has answered. */
	void (*applied)(struct api_call *call, const Tb__CommandResult *result);
	void (*answered)(struct api_call *call, int error, const Tb__PeerAnswer *answer);
	void (*controlled)(struct api_call *call);
	void (*recovered)(struct api_call *call, const Tb__ClusterRecovery *recovery);
	void (*uploaded)(struct api_call *call, int error, const char *message, uint64_t have,
			 bool done);
	bool refusal_wanted;
};

struct api {
	struct api_config config;
	_Atomic(struct host *) host; /* NULL: none yet */
	struct list consoles; /* struct api_console */
	struct store *store; /* NULL: not open */
	bool model_filled; /* something was applied to it */
	struct list calls;
	struct api_limiter *limiter;
	struct api_memory *memory; /* answers by idempotency key */
	struct api_watch *watch;
	struct buf openapi; /* made at first use */
	struct metric_histogram *duration;
	struct list held; /* requests whose credentials are not known yet */
	unsigned held_count;
	uv_timer_t hold_timer;
	bool closing;
	unsigned open_handles; /* while closing */
	void (*closed)(void *arg);
	void *closed_arg;
};

/* Parameter by name; the route must have it. */
const struct api_value *api_param(const struct api_call *call, const char *name);

/* A text field of a message that is freed by protobuf-c. */
void api_field_set(char **field, const char *text);

/* --- the model --- */

/* The reader, opened when it is first needed; NULL: not in a cluster yet, or it failed. */
struct store *api_store(struct api *a);
/* Ends the call with what a store function returned (-ENOENT is the handler's own). */
void api_store_failed(struct api_call *call);
/* Real time, never behind what the log has seen (DESIGN S6). */
int64_t api_now_ms(const struct api *a);
/* Name of this board, "" if not known; owned by the caller. */
char *api_node_name(struct api *a);

/* --- answers; each ends the call --- */

void api_answer_message(struct api_call *call, const ProtobufCMessage *message);
/* With ETag of `revision` and, if not NULL, Location. */
void api_answer_revision(struct api_call *call, const ProtobufCMessage *message, uint64_t revision,
			 const char *location);
/* JSON or text that is already there, with the route's status and content type. */
void api_answer_text(struct api_call *call, const struct buf *text);
void api_answer_typed(struct api_call *call, const char *type, const struct buf *text);
void api_answer_plain(struct api_call *call, int status, const char *text);
/* The head of a stream; the call lives on. */
void api_answer_stream(struct api_call *call, const char *content_type);
/* Ends a call before its handler: 204 or 405 with the methods, 401, 429. */
void api_answer_methods(struct api_call *call, const char *allow, bool refused);
void api_answer_unauthorized(struct api_call *call, const char *why);
void api_answer_too_many(struct api_call *call, unsigned retry_s);
/* Repeats what was answered before. */
struct api_remembered;
void api_answer_again(struct api_call *call, const struct api_remembered *answer);

void api_problem(struct api_call *call, int status, const char *remedy, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* 422 that names a field. */
void api_problem_field(struct api_call *call, int status, const char *field, const char *message);
/* A body that json_decode or json_merge did not take. */
void api_problem_json(struct api_call *call, const struct json_error *error);
/* An error of core_propose or core_query; `message` may be NULL or empty. */
void api_problem_error(struct api_call *call, int error, const char *message);
/* A refusal of a command. */
void api_problem_refusal(struct api_call *call, const Tb__CommandResult *result);

/* --- the core --- */

/* A command with id (from the idempotency key if there is one; `ordinal` tells several of one call
 * apart), time and actor filled in; the op is the caller's to set. */
Tb__Command *api_command(struct api_call *call, unsigned ordinal);
/* Proposes one command. `done` is called with its result if it was applied and not refused;
 * otherwise the call is ended. */
typedef void (*api_applied)(struct api_call *call, const Tb__CommandResult *result);
void api_propose(struct api_call *call, Tb__Command *command, api_applied done);
/* The same, but the refusal is the handler's too. */
void api_propose_raw(struct api_call *call, Tb__Command *command, api_applied done);
/* Soft state. At once with -EAGAIN if no leader is known. */
typedef void (*api_answered)(struct api_call *call, int error, const Tb__PeerAnswer *answer);
void api_query(struct api_call *call, const Tb__PeerQuery *query, api_answered done);
/* Life of the board: an error ends the call. */
void api_init_cluster(struct api_call *call, const Tb__ClusterInitRequest *request,
		      void (*done)(struct api_call *call));
void api_join_cluster(struct api_call *call, const Tb__ClusterJoinRequest *request,
		      void (*done)(struct api_call *call));
/* The backup is the call's body. */
void api_restore_cluster(struct api_call *call, const Tb__ClusterInitRequest *request,
			 void (*done)(struct api_call *call));
void api_recover_cluster(struct api_call *call, const Tb__ClusterRecoverRequest *request,
			 void (*done)(struct api_call *call, const Tb__ClusterRecovery *recovery));

/* The body is the bytes at `offset` of an image, for this board's store (host_upload); without a
 * body: how it stands. */
typedef void (*api_uploaded)(struct api_call *call, int error, const char *message, uint64_t have,
			     bool done);
void api_upload(struct api_call *call, const char *sha256, uint64_t size, uint64_t offset,
		api_uploaded done);

/* --- what a command would do (api_rehearse.c) --- */

/* Applies a command (taken over) to a copy of what the model says of boards, images and VMs. 0: it
 * would be done, and *ret_store has the rows then (store_close). Otherwise the call is over: the
 * refusal, or that the model cannot be read. */
int api_rehearse(struct api_call *call, Tb__Command *command, struct store **ret_store);

/* --- lists in pages (api_page.c) --- */

/* An opaque text that leads to the rows behind `last`; bound to the cluster and to `query`
 * (whatever else must be the same). Owned by the caller. */
char *api_page_make(const char *cluster_key, const char *query, const char *last);
/* 0 and the last row's key (owned by the caller), or -EINVAL: not a token of ours for this query.
 */
int api_page_open(const char *cluster_key, const char *query, const char *page, char **ret_last);
/* The same with the key of this cluster; on failure the call is over and -EINVAL is returned. */
int api_page_of_call(struct api_call *call, const char *query, char **ret_last);
char *api_page_for_call(struct api_call *call, const char *query, const char *last);

/* {"items":[...],"nextPage":"...","total":n}, written as it comes. */
struct api_list {
	struct buf text;
	size_t count;
};
void api_list_begin(struct api_list *l);
void api_list_item(struct api_list *l, const ProtobufCMessage *item);
/* `next_page` may be NULL; total 0 is left out. Ends the call. */
void api_list_answer(struct api_list *l, struct api_call *call, const char *next_page,
		     uint64_t total);

/* --- queries, as they stand behind the '?' (api_query.c) --- */

/* Values by the route's list. -EINVAL and a problem. */
struct api_query_problem {
	char name[64];
	char message[256];
};
int api_query_parse(const char *query, const struct api_param *params, struct api_value *values,
		    struct api_query_problem *ret);
void api_values_free(struct api_value *values, size_t count);

/* --- who asks (api_auth.c) --- */

struct api_limiter *api_limiter_new(void);
void api_limiter_free(struct api_limiter *l);
/* Failed attempts from an address: fixed table, oldest forgotten. */
bool api_limiter_blocked(struct api_limiter *l, const char *address, uint64_t now_ms,
			 unsigned *ret_retry_s);
void api_limiter_failed(struct api_limiter *l, const char *address, uint64_t now_ms);

/* 0 and who it is (role NONE: no credentials at all); -EACCES and a sentence: credentials that do
 * not hold; -ENOENT and a sentence: ones that this board's model does not know (yet). */
int api_identify(struct api *a, const struct api_request *request, struct api_principal *ret,
		 const char **ret_why);
/* Does what made this principal still hold? */
bool api_principal_holds(struct api *a, const struct api_principal *who);
/* May it use the route? */
bool api_allowed(const struct api_principal *who, const struct api_route *route, const char *arg);

/* --- credentials not known yet (api_hold.c) --- */

/* Holds the call back; goes on by api_serve when its credentials are known or time is up. -EBUSY:
 * it was held already, or too many are. */
int api_hold(struct api_call *call, const struct api_request *request);
/* The model has changed, or time has passed: `now_ms` of uv_now (its own timer calls it, and tests
 * do). */
void api_hold_retry(struct api *a, uint64_t now_ms);
/* Ends them all. */
void api_hold_end(struct api *a);
void api_held_free(struct api_held *h);
/* From who asks to the handler (api.c). */
void api_serve(struct api_call *call, const struct api_request *request);

/* --- answers by idempotency key (api_memory.c) --- */

struct api_memory *api_memory_new(void);
void api_memory_free(struct api_memory *m);
struct api_remembered {
	int status;
	char *content_type, *etag, *location;
	struct buf body;
	bool no_store;
};
/* 0: nothing; 1: *ret is the first answer; -EEXIST: the key was used for another request. */
int api_memory_find(struct api_memory *m, const char *actor, const char *key,
		    const uint8_t request_sha256[32], const struct api_remembered **ret);
void api_memory_keep(struct api_memory *m, const char *actor, const char *key,
		     const uint8_t request_sha256[32], const struct api_answer *answer);

/* --- sites (api_sites.c, api_status.c) --- */

/* Sites of an answer that still lack their soft state. */
struct api_site_set {
	Tb__Site **sites; /* owned */
	size_t count;
	size_t room;
};
/* A visitor of store_sites; `arg` is the set. Copies the site, its grant in `status`. */
int api_site_set_add(void *arg, const Tb__Site *site, const Tb__Grant *grant);
void api_site_set_clear(struct api_site_set *set);
/* Asks the leader for at most the first LIMIT_PAGE. */
void api_site_set_query(const struct api_site_set *set, Tb__PeerQuery *query,
			Tb__SiteStatusQuery *sites);
/* Fills in what the leader said; without an answer the state is unknown and the reason says so. */
void api_site_set_fill(struct api_site_set *set, int error, const Tb__PeerAnswer *answer);
/* May the caller see it? A tenant sees its own sites. */
bool api_site_visible(const struct api_call *call, const Tb__Site *site);
/* One site with its grant, in `status`. As store_site_find. */
int api_site_read(struct store *s, const char *name, Tb__Site **ret);

/* A board by name or id (api_cluster.c). -ENOENT: the call is over. */
int api_node_find(struct api_call *call, const char *name_or_id, Tb__Node **ret);

/* --- certificates (api_tokens.c) --- */

struct pki_signed;
/* The row of a certificate just signed; owned by the caller. */
Tb__Certificate *api_certificate_row(const struct api_call *call, const struct pki_signed *cert,
				     const char *subject, const char *kind);
/* Says in the row which CA of boards and clients has signed it. */
void api_certificate_signed_by(Tb__Certificate *row, const char *ca_cert);
/* Records it (the row is taken over), so that nothing leaves that could not be revoked. */
void api_certificate_propose(struct api_call *call, Tb__Certificate *row, api_applied done);

/* What a list of sites or a watch is narrowed to. */
struct api_site_filter {
	const char *label; /* NULL: any; and so on */
	const char *prefix;
	int state; /* -1: any */
};
struct api_site_filter api_site_filter_of(const struct api_call *call);

/* --- watches (api_watch.c) --- */

struct api_watch *api_watch_new(struct api *a);
void api_watch_close(struct api_watch *w, void (*closed)(struct api *a));
void api_watch_free(struct api_watch *w);
/* Makes the call a stream of events behind `after` or Last-Event-ID, or from now on. The data of an
 * event is the event, or with `sites` the site as it is now ({"name":...} alone: deleted), for
 * those events that name a site that passes the route's filters. */
void api_watch_start(struct api_call *call, bool sites);
void api_watch_changed(struct api_watch *w);
void api_watch_drained(struct api_call *call);
void api_watch_gone(struct api_call *call);
/* Keeps connections alive through whatever is between, and ends those whose token or certificate no
 * longer holds; the watch's own timer calls it, and tests do. */
void api_watch_beat(struct api_watch *w);
/* The second half of that alone, more often. */
void api_watch_check(struct api_watch *w);
size_t api_watch_count(const struct api_watch *w);

/* --- consoles of VMs (api_console.c) --- */

enum { API_CONSOLE_KEYS_MAX = 16 << 10 }; /* bytes of one POST */
void api_console_drained(struct api_call *call);
void api_console_gone(struct api_call *call);
/* Ends those whose token or certificate no longer holds; or all. */
void api_consoles_check(struct api *a);
void api_consoles_end(struct api *a);

/* --- the end of a call (api.c) --- */

/* Counts it, forgets it, frees it. */
void api_call_end(struct api_call *call, int status);

/* --- handlers --- */

void api_health(struct api_call *call);
void api_ready(struct api_call *call);
void api_metrics(struct api_call *call);
void api_openapi_json(struct api_call *call);
void api_local(struct api_call *call);
void api_cluster_init(struct api_call *call);
void api_cluster_join(struct api_call *call);
void api_cluster_get(struct api_call *call);
void api_cluster_backup(struct api_call *call);
void api_cluster_restore(struct api_call *call);
void api_cluster_recover(struct api_call *call);
void api_cluster_set(struct api_call *call);
void api_cluster_transfer(struct api_call *call);
void api_cluster_rotate_ca(struct api_call *call);
void api_certificate_renew(struct api_call *call);
void api_nodes_list(struct api_call *call);
void api_node_get(struct api_call *call);
void api_node_delete(struct api_call *call);
void api_node_set(struct api_call *call);
void api_node_drain(struct api_call *call);
void api_node_undrain(struct api_call *call);
void api_node_replace(struct api_call *call);
void api_tokens_list(struct api_call *call);
void api_token_create(struct api_call *call);
void api_token_revoke(struct api_call *call);
void api_sites_list(struct api_call *call);
void api_site_create(struct api_call *call);
void api_site_get(struct api_call *call);
void api_site_replace(struct api_call *call);
void api_site_patch(struct api_call *call);
void api_site_delete(struct api_call *call);
void api_sites_bulk(struct api_call *call);
void api_site_enroll(struct api_call *call);
void api_site_enroll_agent(struct api_call *call);
void api_images_list(struct api_call *call);
void api_image_get(struct api_call *call);
void api_image_put(struct api_call *call);
void api_image_upload(struct api_call *call);
void api_image_delete(struct api_call *call);
void api_vms_list(struct api_call *call);
void api_vm_create(struct api_call *call);
void api_vm_get(struct api_call *call);
void api_vm_replace(struct api_call *call);
void api_vm_patch(struct api_call *call);
void api_vm_delete(struct api_call *call);
void api_vm_start(struct api_call *call);
void api_vm_stop(struct api_call *call);
void api_vm_restart(struct api_call *call);
void api_vm_move(struct api_call *call);
void api_tenants_list(struct api_call *call);
void api_tenant_set(struct api_call *call);
void api_addresses_list(struct api_call *call);
void api_address_get(struct api_call *call);
void api_address_put(struct api_call *call);
void api_address_delete(struct api_call *call);
void api_events_list(struct api_call *call);
void api_certificates_list(struct api_call *call);
void api_certificate_create(struct api_call *call);
void api_certificate_revoke(struct api_call *call);
void api_qnet_ca(struct api_call *call);
void api_console_get(struct api_call *call);
void api_console_post(struct api_call *call);
