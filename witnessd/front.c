/* front.c: the thread, its listeners and its certificates. */
#include "witnessd/front.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "witnessd/api_call.h"
#include "witnessd/core.h"
#include "witnessd/front_internal.h"
#include "witnessd/host.h"
#include "witnessd/pki.h"

enum {
	TICK_MS = 1000,
	FLOOR_STEP_MS = 60000,
	MAILBOX_LIMIT = 10000,
	HANDSHAKE_BUDGET_US = 2000,
	LOCAL_BACKLOG = 128,
	/* Handshakes at once from each other board: links of three kinds, one of each that the
	 * other end has given up, and some operator there. */
	PENDING_PER_MEMBER_MAX = 8
};

static _Thread_local char message[512];

/* --- certificates --- */

static const char *const server_alpn[] = {ALPN_HTTP,  ALPN_PEER, ALPN_RAFT, ALPN_JOIN,
					  ALPN_AGENT, ALPN_HOST, NULL};
static const char *const peer_alpn[] = {ALPN_PEER, NULL};
static const char *const raft_alpn[] = {ALPN_RAFT, NULL};
static const char *const host_alpn[] = {ALPN_HOST, NULL};
static const char *const join_alpn[] = {ALPN_JOIN, NULL};

static int context_make(const struct tls_options *options, struct tls_context **slot)
{
	struct tls_context *made;
	const char *why = "";
	int rv = tls_context_new(options, &made, &why);

	if (rv != 0) {
		log_error("tls", "the board's certificate cannot be used: %s", why);
		return rv;
	}
	tls_context_free(*slot);
	*slot = made;
	return 0;
}

/* When the newest file in there was written, by the clock of then; later than `end_ms` does not
 * count. */
static int64_t newest_file_ms(const char *path, int64_t end_ms)
{
	DIR *dir = opendir(path);
	const struct dirent *entry;
	struct stat file;
	int64_t newest = 0;

	if (dir == NULL)
		return 0;
	while ((entry = readdir(dir)) != NULL)
		if (fstatat(dirfd(dir), entry->d_name, &file, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(file.st_mode) && file.st_mtime * INT64_C(1000) > newest &&
		    file.st_mtime * INT64_C(1000) < end_ms)
			newest = file.st_mtime * INT64_C(1000);
	closedir(dir);
	return newest;
}

/* A board without a clock battery starts in the past, when no certificate is valid yet, and hears
 * the time of the log only from boards whose certificates it accepts. It was last running when it
 * last wrote to its data directory, and has a certificate that was valid then. (A clock that was
 * far ahead then would make everything look expired, so a time behind the end of the own
 * certificate is not believed.) */
static int64_t clock_floor(const struct front *f)
{
	char *raft = mem_printf("%s/raft", f->data_dir);
	int64_t floor_ms = core_view(f->core)->clock_floor_ms;
	int64_t begin_ms = 0, end_ms = 0;
	int64_t file_ms;

	pki_not_before_ms(f->identity.cert, &begin_ms);
	floor_ms = begin_ms > floor_ms ? begin_ms : floor_ms;
	pki_not_after_ms(f->identity.cert, &end_ms);
	file_ms = newest_file_ms(f->data_dir, end_ms);
	floor_ms = file_ms > floor_ms ? file_ms : floor_ms;
	file_ms = newest_file_ms(raft, end_ms);
	floor_ms = file_ms > floor_ms ? file_ms : floor_ms;
	free(raft);
	return floor_ms;
}

/* The CA goes with the board's certificate, so that a board that joins can compare it with its
 * token. */
static int contexts_make(struct front *f)
{
	const struct identity *id = &f->identity;
	char *chain =
		mem_printf("%s%s%.*s", id->cert, id->cert[strlen(id->cert) - 1] == '\n' ? "" : "\n",
			   (int)identity_pem_first(id->ca_cert), id->ca_cert);
	struct tls_options options = {.certificate = chain,
				      .key = id->key,
				      .ca = id->ca_cert,
				      .clock_floor_ms = clock_floor(f)};
	int rv;

	f->floor_ms = options.clock_floor_ms;

	options.alpn = peer_alpn;
	rv = context_make(&options, &f->peer_context);
	options.alpn = raft_alpn;
	if (rv == 0)
		rv = context_make(&options, &f->raft_context);
	options.alpn = host_alpn;
	if (rv == 0)
		rv = context_make(&options, &f->host_context);
	options.server = true;
	options.ask_client_certificate = true;
	options.alpn = server_alpn;
	if (rv == 0)
		rv = context_make(&options, &f->server_context);
	free(chain);
	return rv;
}

/* --- listeners --- */

/* Who may come at all, before anything is known of him; http.h and agent_door.h have limits for
 * what he turns out to be. */
static struct admission *places_new(const struct front *f, const struct config *config)
{
	return admission_new(&(struct admission_limits){
		.sessions_max = f->connections_max + f->agents_max + FRONT_JOINERS_MAX,
		.pending_per_address_max = (unsigned)config->api_pending_per_address_max,
		.pending_per_member_max = PENDING_PER_MEMBER_MAX,
		.sessions_setting = "api.connections-max and sites.sessions-max",
		.pending_setting = "api.pending-per-address-max"});
}

/* Counted by the listener, told by the metrics. */
static void count_refused(struct front *f)
{
	uint64_t refused =
		f->tls_listener != NULL ? stream_listener_over_limit(f->tls_listener) : 0;

	metric_add(f->connections_refused, (double)(refused - f->refused_seen));
	f->refused_seen = refused;
}

static void tls_open(struct front *f)
{
	const struct stream_listen how = {.address = f->listen_address,
					  .tls = f->server_context,
					  .admission = f->places,
					  .events = &front_entrant_events,
					  .accepted = front_accepted,
					  .arg = f};
	const char *why = "";

	if (f->tls_listener != NULL || f->server_context == NULL || f->stopping)
		return;
	if (stream_listen(f->group, &how, &f->tls_listener, &why) != 0) {
		log_error("listen", "%s", why);
		f->tls_listener = NULL;
		return;
	}
	f->port = stream_listener_port(f->tls_listener);
	log_notice("listening", "API and boards on %s (port %u)", f->listen_address, f->port);
}

static void contexts_take(struct front *f)
{
	if (contexts_make(f) != 0)
		return;
	if (f->tls_listener != NULL)
		stream_listener_set_tls(f->tls_listener, f->server_context);
	else
		tls_open(f);
}

/* While our own clock is behind, boards that joined since have certificates that are not valid yet
 * by the time that the contexts hold. */
static void floor_raise(struct front *f)
{
	int64_t floor_ms = core_view(f->core)->clock_floor_ms;

	if (f->server_context != NULL && floor_ms > f->floor_ms + FLOOR_STEP_MS &&
	    clock_realtime_ms() < floor_ms)
		contexts_take(f);
}

static void identity_take(struct front *f)
{
	struct identity fresh = {0};
	const char *why = "";

	if (identity_load(f->data_dir, &fresh, &why) != 0)
		return; /* no identity yet; the core has told what is wrong with it */
	identity_free(&f->identity);
	f->identity = fresh;
	tls_cas_read(f->identity.ca_cert, &f->believed);
	f->members_stale = true;
	front_members_look(f); /* before the port opens */
	contexts_take(f);
}

/* An accepted connection of the probe: nothing is served there. In order, for a reset could look
 * like a port that is closed. */
static void probe_accepted(struct stream *s, void *arg)
{
	(void)arg;
	stream_close(s);
}

static void probe_closed(struct stream *s, enum stream_end end, const char *detail)
{
	(void)s;
	(void)end;
	(void)detail;
}

static int probe_open(struct front *f, struct stream_listener **ret, const char **ret_message)
{
	static const struct stream_events events = {.closed = probe_closed};
	const struct stream_listen how = {.address = f->listen_address,
					  .limit = 1,
					  .backlog = 1,
					  .events = &events,
					  .accepted = probe_accepted};

	return stream_listen(f->group, &how, ret, ret_message);
}

/* The port is opened much later, when nobody watches any more; whether it is free is found now. */
static int port_probe(struct front *f, const char **ret_message)
{
	struct stream_listener *probe;
	int rv = probe_open(f, &probe, ret_message);

	if (rv == 0)
		stream_listener_close(probe);
	return rv;
}

int front_join_listen(struct front *f)
{
	const char *why;

	return f->join_listener != NULL ? 0 : probe_open(f, &f->join_listener, &why);
}

void front_join_unlisten(struct front *f)
{
	if (f->join_listener != NULL)
		stream_listener_close(f->join_listener);
	f->join_listener = NULL;
}

static int socket_open(struct front *f, const char **ret_message)
{
	char *address = mem_printf("unix:%s", f->socket_path);
	const struct stream_listen how = {.address = address,
					  .limit = f->connections_max,
					  .backlog = LOCAL_BACKLOG,
					  .mode = 0600};
	int rv = http_server_listen(f->http, &how, &f->unix_listener, ret_message);

	free(address);
	return rv;
}

/* --- letters --- */

static void model_open(struct letter *letter)
{
	struct front *f = list_entry(letter, struct front, model_letter);

	atomic_flag_clear(&f->model_posted);
	if (f->stopping)
		return;
	f->members_stale = true;
	api_model_changed(f->api);
	agent_door_model_changed(f->agents);
}

void front_model_changed(struct front *f, uint64_t applied_index)
{
	(void)applied_index;
	if (!atomic_flag_test_and_set(&f->model_posted))
		mailbox_answer(&f->mailbox, &f->model_letter);
}

static void identity_open(struct letter *letter)
{
	struct front *f = list_entry(letter, struct front, identity_letter);

	atomic_flag_clear(&f->identity_posted);
	if (f->stopping)
		return;
	identity_take(f);
	api_identity_changed(f->api);
	f->agents_trail = (struct trail){0}; /* another CA may be believed: that concerns all */
	agent_door_model_changed(f->agents);
	front_links_check(f);
}

void front_identity_changed(struct front *f)
{
	if (!atomic_flag_test_and_set(&f->identity_posted))
		mailbox_answer(&f->mailbox, &f->identity_letter);
}

static void tick(uv_timer_t *timer)
{
	struct front *f = timer->data;

	tls_open(f);
	count_refused(f);
	front_members_look(f);
	floor_raise(f);
	front_links_expire(f, uv_now(&f->loop));
	front_links_check(f);
	front_links_renew(f);
}

/* --- life --- */

/* Down the list of what was opened, each step when the one before is over. */

static void mailbox_gone(struct mailbox *m)
{
	struct front *f = list_entry(m, struct front, mailbox);

	uv_close((uv_handle_t *)&f->ticker, NULL);
}

static void group_gone(void *arg)
{
	struct front *f = arg;

	mailbox_close(&f->mailbox, mailbox_gone);
}

static void http_gone(void *arg)
{
	struct front *f = arg;

	stream_group_free(f->group, group_gone, f);
}

static void agents_gone(void *arg)
{
	struct front *f = arg;

	http_server_free(f->http, http_gone, f);
}

static void api_gone_by(void *arg)
{
	struct front *f = arg;

	agent_door_close(f->agents, agents_gone, f);
}

static void stop_open(struct letter *letter)
{
	struct front *f = list_entry(letter, struct front, stop_letter);

	f->stopping = true;
	uv_timer_stop(&f->ticker);
	stream_listener_close(f->unix_listener);
	if (f->tls_listener != NULL)
		stream_listener_close(f->tls_listener);
	front_join_unlisten(f);
	f->port = 0;
	api_close(f->api, api_gone_by, f);
}

static void *front_run(void *arg)
{
	struct front *f = arg;

	uv_run(&f->loop, UV_RUN_DEFAULT);
	return NULL;
}

static void front_free(struct front *f)
{
	int rv = uv_loop_close(&f->loop);

	assert(rv == 0);
	agent_door_free(f->agents);
	api_free(f->api);
	api_http_free(&f->api_http);
	api_limiter_free(f->join_limiter);
	front_links_free(f);
	admission_free(f->places);
	tls_context_free(f->server_context);
	tls_context_free(f->peer_context);
	tls_context_free(f->raft_context);
	tls_context_free(f->host_context);
	tls_context_free(f->join_context);
	identity_free(&f->identity);
	metrics_free(f->metrics);
	free(f->data_dir);
	free(f->listen_address);
	free(f->socket_path);
	free(f);
}

/* --- the door of agents: the core, and the API's reader of the model --- */

static void agents_events(void *arg, Tb__DoorEvent **events, size_t count)
{
	core_door_events(((struct front *)arg)->core, events, count);
}

static int agents_revoked(void *arg, const char *serial, uint64_t issuer)
{
	struct front *f = arg;
	struct store *s = api_store(f->api);
	Tb__Certificate *certificate;
	int rv = s != NULL ? store_certificate_get(s, serial, &certificate) : -ENOTCONN;

	if (!tls_cas_hold(&f->believed, issuer))
		return 1;
	if (rv == -ENOENT)
		return 0; /* newer than this board's model, or dropped from it by age */
	if (rv != 0)
		return rv;
	rv = certificate->revoked;
	tb__certificate__free_unpacked(certificate, NULL);
	return rv;
}

static int agents_concerns(void *arg)
{
	static const char *const types[] = {"site.deleted", "certificate.revoked", "ca.rotation",
					    "ca.rotated", NULL};
	struct front *f = arg;
	struct store *s = api_store(f->api);

	return s != NULL ? trail_read(&f->agents_trail, s, types) : -ENOTCONN;
}

static const char *agents_board_name(void *arg)
{
	return ((struct front *)arg)->identity.node_name;
}

static struct agent_door *agents_new(struct front *f)
{
	const struct agent_door_upcalls upcalls = {
		.arg = f,
		.events = agents_events,
		.view = core_view(f->core),
		.revoked = agents_revoked,
		.concerns = agents_concerns,
		.board_name = agents_board_name,
	};

	return agent_door_new(&f->loop, &f->mailbox, f->agents_max, &upcalls);
}

static struct front *front_new(const struct config *config, struct core *core)
{
	struct front *f = mem_zalloc(sizeof(*f));
	const struct http_limits limits = {.connections = (unsigned)config->connections_max};
	const struct tls_options join_options = {.alpn = join_alpn};
	int rv = uv_loop_init(&f->loop);

	assert(rv == 0);
	f->core = core;
	f->data_dir = mem_strdup(config->data_dir);
	f->listen_address = mem_strdup(config->listen);
	f->socket_path = mem_printf("%s/witnessd.sock", config->run_dir);
	f->connections_max = (unsigned)config->connections_max;
	f->agents_max = (unsigned)config->agents_max;
	f->model_letter.open = model_open;
	f->identity_letter.open = identity_open;
	f->stop_letter.open = stop_open;
	atomic_flag_clear(&f->model_posted);
	atomic_flag_clear(&f->identity_posted);
	list_init(&f->links);
	list_init(&f->pumps);
	mailbox_init(&f->mailbox, &f->loop, MAILBOX_LIMIT);
	uv_timer_init(&f->loop, &f->ticker);
	f->ticker.data = f;
	f->metrics = metrics_new();
	f->handshake_failures =
		metrics_series(f->metrics, METRIC_COUNTER, "tiebreak_tls_handshake_failures",
			       "TLS handshakes that failed at the API port.", "");
	f->connections_refused = metrics_series(
		f->metrics, METRIC_COUNTER, "tiebreak_connections_refused",
		"Connections to the API port closed at once: too many, in all or of one address.",
		"");
	f->places = places_new(f, config);
	f->members_stale = true;
	f->group = stream_group_new(&f->loop, HANDSHAKE_BUDGET_US);
	f->join_limiter = api_limiter_new();
	context_make(&join_options, &f->join_context);
	f->api = api_new(&(struct api_config){.loop = &f->loop,
					      .home = &f->mailbox,
					      .core = core,
					      .backend = &api_backend_core,
					      .sink = &api_http_sink,
					      .metrics = f->metrics,
					      .believed = &f->believed});
	api_http_init(&f->api_http, f->api);
	f->http = http_server_new(f->group, &f->api_http.handler, &limits);
	f->agents = agents_new(f);
	metrics_collect(f->metrics, agent_door_metrics, f->agents);
	return f;
}

/* Nothing runs yet: the same way down, on the caller's thread. */
static void front_discard(struct front *f)
{
	f->stopping = true;
	if (f->unix_listener != NULL)
		stream_listener_close(f->unix_listener);
	api_close(f->api, api_gone_by, f);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	front_free(f);
}

int front_start(const struct config *config, struct core *core, struct front **ret,
		const char **ret_message)
{
	struct front *f = front_new(config, core);
	const char *why = "";
	int rv = port_probe(f, &why);

	if (rv == 0)
		rv = socket_open(f, &why);
	if (rv == 0) {
		uv_timer_start(&f->ticker, tick, TICK_MS, TICK_MS);
		rv = -pthread_create(&f->thread, NULL, front_run, f);
		why = "no thread could be made";
	}
	if (rv != 0) {
		snprintf(message, sizeof(message), "%s", why);
		*ret_message = message;
		front_discard(f);
		return rv;
	}
	*ret = f;
	return 0;
}

void front_stop(struct front *f)
{
	if (f == NULL)
		return;
	mailbox_answer(&f->mailbox, &f->stop_letter);
	pthread_join(f->thread, NULL);
	front_free(f);
}

struct metrics *front_metrics(struct front *f)
{
	return f->metrics;
}

struct agent_door *front_agents(struct front *f)
{
	return f->agents;
}

void front_host_set(struct front *f, struct host *h)
{
	atomic_store(&f->host, h);
	api_host_set(f->api, h);
}

unsigned front_port(const struct front *f)
{
	return f->port;
}
