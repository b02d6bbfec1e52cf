/* qnet_door.c: sockets, time and threads of the site door; the protocol is in qnet_session.c.
 *
 * One connection is one `conn`: the session, its stream, its place in the tables. What a session
 * gives out goes three ways in conn_apply: bytes to the stream, events to the queue that is
 * handed to the core once per turn of the loop, a verdict to the connection's end.
 *
 * The lease is looked at before anything a client says is taken and before every order is
 * carried out, by a clock read each: whatever the timers do, nothing leaves without a lease. */
#include "witnessd/qnet_door.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "cluster/alarm.h"
#include "cluster/limits.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/rng.h"
#include "witnessd/core.h"
#include "witnessd/deadlines.h"
#include "witnessd/mailbox.h"
#include "witnessd/stream.h"

enum {
	TICK_MS = 100,
	LISTEN_RETRY_MS = 1000,
	BACKLOG = 4096, /* clients come back all at the same moment */
	HANDSHAKE_BUDGET_US = 4000,
	QUEUE_BYTES_MAX = 64 << 10, /* of a client that does not take its replies */
	QUEUE_REPLIES_MAX = 32,
	EVENT_BATCH = 1024,
	SWEEP_STEP = 500, /* sessions looked up per tick after a change: 20,000 within 5 s */
	RTT_STEP = 20, /* sessions measured per tick */
	LETTERS_MAX = 100000,
	EVENT_COST_MS = 60, /* what each event of a client costs of its time, and */
	EVENT_CREDIT_MS = 4000, /* how far it may get ahead before it is read no more */
	LOG_BURST = 20, /* lines about clients at once, and */
	LOG_LINE_MS = 200, /* one more after each of these */
};

/* Connections of one client address. */
struct origin {
	struct hash_node node;
	unsigned count;
	char *address;
};

struct conn {
	struct qnet_session session;
	struct qnet_door *door;
	struct stream *stream;
	struct origin *origin;
	struct deadline deadline;
	struct hash_node by_id;
	struct list link; /* in door->conns */
	struct list corked; /* in door->corked while a batch of orders runs */
	struct list paused; /* in door->paused while nothing is read from it */
	uint64_t paced_ms; /* its events so far are paid for at this time */
	unsigned queued_replies; /* since the stream could not send all */
};

struct counters {
	_Atomic uint64_t sessions[QNET_STATES];
	_Atomic uint64_t accepted;
	_Atomic uint64_t refused_limit;
	_Atomic uint64_t echoes;
	_Atomic uint64_t silent;
	_Atomic uint64_t certificate_refused;
	_Atomic uint64_t leases_lost;
};

struct qnet_door {
	struct qnet_door_config config;
	struct qnet_door_upcalls up;
	char *listen;
	uv_thread_t thread;
	uv_loop_t loop;
	uv_timer_t tick;
	uv_prepare_t flush;
	struct mailbox mailbox;
	struct stream_group *streams;
	bool serving;
	bool shut; /* the board is drained: no new sessions */
	struct stream_listener *listener; /* NULL while not serving, or shut */
	uint64_t over_limit; /* of the listener, as counted so far */
	_Atomic unsigned port;
	struct tls_context *tls[2]; /* [1] asks for a client certificate; NULL: no keys yet */
	bool held; /* the core said: do not serve */
	uint64_t listen_again_ms;
	uint64_t seen_ms; /* the loop turned last */
	uint64_t next_id;
	struct list conns;
	struct list corked;
	struct list paused;
	struct list *rtt; /* next of conns whose round trip is looked at; NULL: the first */
	struct list *sweep; /* next of conns to look up; NULL: no sweep */
	struct hash by_id;
	struct hash origins;
	struct deadlines deadlines;
	struct qnet_out out; /* events collected for the core; its wire is reused */
	struct counters counters;
	_Atomic bool model_letter; /* one is under way */
	unsigned log_credit;
	uint64_t log_credit_ms;
	unsigned log_dropped;
};

static uint64_t now_ms(const struct qnet_door *d)
{
	return d->config.clock_ms != NULL ? d->config.clock_ms(d->config.clock_arg)
					  : clock_boottime_ms();
}

/* A line about a client. Clients can cause as many as they like, so they share a ration. */
static void log_client(struct qnet_door *d, const struct conn *c, const char *event,
		       const char *why)
{
	uint64_t now = now_ms(d);
	uint64_t earned = (now - d->log_credit_ms) / LOG_LINE_MS;

	if (earned != 0) {
		d->log_credit = earned < LOG_BURST - d->log_credit
					? d->log_credit + (unsigned)earned
					: LOG_BURST;
		d->log_credit_ms = now;
	}
	if (d->log_credit == 0) {
		d->log_dropped++;
		return;
	}
	d->log_credit--;
	if (d->log_dropped != 0)
		log_notice("client-lines-dropped", "%u lines about site nodes were left out",
			   d->log_dropped);
	d->log_dropped = 0;
	log_notice(event, "site %s, client %s: %s",
		   c->session.site != NULL ? c->session.site : "(not said)", c->session.address,
		   why);
}

/* --- events to the core --- */

static void events_flush(struct qnet_door *d)
{
	if (d->out.event_count == 0)
		return;
	d->up.events(d->up.arg, d->out.events, d->out.event_count);
	d->out.events = NULL;
	d->out.event_count = 0;
	d->out.event_cap = 0;
}

static void flush_turn(uv_prepare_t *prepare)
{
	events_flush(prepare->data);
}

/* --- one connection --- */

static struct qnet_world world_now(struct qnet_door *d);

static void count_state(struct qnet_door *d, enum qnet_state before, enum qnet_state after)
{
	if (before == after)
		return;
	d->counters.sessions[before]--;
	d->counters.sessions[after]++;
}

static void conn_close_session(struct conn *c, Tb__DoorClosed__Reason reason)
{
	enum qnet_state before = c->session.state;

	if (before == QNET_CLOSED)
		return;
	qnet_session_close(&c->session, reason, now_ms(c->door), &c->door->out);
	count_state(c->door, before, QNET_CLOSED);
	deadlines_remove(&c->deadline);
}

static void conn_abort(struct conn *c, Tb__DoorClosed__Reason reason)
{
	conn_close_session(c, reason);
	stream_abort(c->stream);
}

static void conn_write(struct conn *c)
{
	struct qnet_out *out = &c->door->out;
	size_t left = stream_write(c->stream, out->wire.data, out->wire.len);

	c->queued_replies = left != 0 ? c->queued_replies + out->replies : 0;
	if (left > QUEUE_BYTES_MAX || c->queued_replies > QUEUE_REPLIES_MAX) {
		log_client(c->door, c, "client-stuck", "it does not take its replies; closed");
		conn_abort(c, TB__DOOR_CLOSED__REASON__BY_DOOR);
	}
}

/* Carries out what the session gave out (in door->out). */
static void conn_apply(struct conn *c, enum qnet_state before, enum qnet_verdict verdict)
{
	struct qnet_door *d = c->door;
	struct qnet_out *out = &d->out;

	count_state(d, before, c->session.state);
	if (out->why != NULL)
		log_client(d, c, "client-refused", out->why);
	if (verdict != QNET_ABORT && out->wire.len != 0)
		conn_write(c);
	if (c->session.state != QNET_CLOSED) {
		if (verdict == QNET_ABORT) {
			conn_abort(c, TB__DOOR_CLOSED__REASON__BY_DOOR);
		} else if (verdict == QNET_CLOSE) {
			conn_close_session(c, TB__DOOR_CLOSED__REASON__BY_DOOR);
			stream_close(c->stream);
		} else {
			deadlines_set(&d->deadlines, &c->deadline, c->session.deadline_ms);
		}
	}
	d->counters.echoes += out->echoes;
	buf_clear(&out->wire);
	out->replies = 0;
	out->echoes = 0;
	out->why = NULL;
	if (out->event_count >= EVENT_BATCH)
		events_flush(d);
}

static uint64_t conn_overdue(struct deadline *item, void *arg)
{
	struct conn *c = list_entry(item, struct conn, deadline);
	struct qnet_door *d = arg;
	enum qnet_verdict verdict;

	if (c->session.deadline_ms > now_ms(d))
		return c->session.deadline_ms;
	verdict = qnet_session_overdue(&c->session, &d->out);
	if (verdict == QNET_ABORT) {
		d->counters.silent++;
		log_client(d, c, "client-silent", d->out.why);
		d->out.why = NULL;
		conn_abort(c, TB__DOOR_CLOSED__REASON__SILENT);
	} else {
		conn_apply(c, c->session.state, verdict);
	}
	return 0;
}

/* --- policies and certificates --- */

static int site_policy(void *arg, const char *name, struct qnet_site *ret)
{
	struct qnet_door *d = arg;
	Tb__SitePolicy *policy = NULL;
	int rv = d->up.site(d->up.arg, name, &policy);

	if (rv != 0 && rv != -ENOENT)
		return rv;
	*ret = (struct qnet_site){.tls = d->config.tls,
				  .certificate = d->config.client_certificate,
				  .heartbeat_min_ms = HEARTBEAT_MIN_MS,
				  .heartbeat_max_ms = HEARTBEAT_MAX_MS};
	if (policy == NULL)
		return 0;
	ret->fast = policy->handover == TB__HANDOVER__HANDOVER_FAST;
	if (policy->heartbeat_min_ms != 0)
		ret->heartbeat_min_ms = policy->heartbeat_min_ms;
	if (policy->heartbeat_max_ms != 0)
		ret->heartbeat_max_ms = policy->heartbeat_max_ms;
	if (policy->tls == TB__TLS__TLS_OFF)
		ret->tls = QNET_TLS_UNSUPPORTED;
	else if (policy->tls == TB__TLS__TLS_ON)
		ret->tls = QNET_TLS_SUPPORTED;
	else if (policy->tls == TB__TLS__TLS_REQUIRED)
		*ret = (struct qnet_site){.tls = QNET_TLS_REQUIRED,
					  .certificate = true,
					  .fast = ret->fast,
					  .heartbeat_min_ms = ret->heartbeat_min_ms,
					  .heartbeat_max_ms = ret->heartbeat_max_ms};
	tb__site_policy__free_unpacked(policy, NULL);
	return 0;
}

static struct qnet_world world_now(struct qnet_door *d)
{
	return (struct qnet_world){.arg = d,
				   .site = site_policy,
				   .board = atomic_load(&d->up.view->node_id),
				   .now_ms = now_ms(d),
				   .real_ms = clock_realtime_ms()};
}

static void certificate_refused(struct conn *c, const char *why)
{
	c->door->counters.certificate_refused++;
	c->door->out.why = why;
}

/* What has become of an open session's grounds since it was let in; NULL: all is well. */
static const char *session_outdated(struct qnet_door *d, struct qnet_session *s)
{
	struct qnet_site policy;

	if (s->serial != NULL && d->up.revoked(d->up.arg, s->serial) != 0)
		return "its certificate was revoked";
	if (s->site == NULL || site_policy(d, s->site, &policy) != 0)
		return NULL; /* cannot be read at the moment: what was right remains right */
	/* A client that was told so when it said who it is may be about to start TLS. */
	if (policy.tls == QNET_TLS_REQUIRED && !s->tls &&
	    (s->state >= QNET_SECURED || s->policy.tls != QNET_TLS_REQUIRED))
		return "the site's policy demands TLS now";
	if (policy.certificate && s->tls && s->serial == NULL)
		return "the site's policy demands a client certificate now";
	s->policy.fast = policy.fast;
	s->policy.heartbeat_min_ms = policy.heartbeat_min_ms;
	s->policy.heartbeat_max_ms = policy.heartbeat_max_ms;
	return NULL;
}

/* A change that may concern open sessions is followed up some sessions per tick, since each costs
 * look-ups in the model and there may be twenty thousand. */
static void sweep_step(struct qnet_door *d)
{
	for (unsigned i = 0; i < SWEEP_STEP && d->sweep != NULL; i++) {
		struct conn *c = list_entry(d->sweep, struct conn, link);
		const char *why;

		d->sweep = d->sweep->next != &d->conns ? d->sweep->next : NULL;
		if (c->session.state == QNET_CLOSED || c->session.state == QNET_NEW)
			continue;
		why = session_outdated(d, &c->session);
		if (why == NULL)
			continue;
		log_client(d, c, "client-closed", why);
		conn_abort(c, TB__DOOR_CLOSED__REASON__BY_DOOR);
	}
}

/* --- round trips --- */

static void rtt_tell(struct conn *c, uint32_t rtt_ms)
{
	struct qnet_out *out = &c->door->out;

	c->session.rtt_ms = rtt_ms;
	qnet_session_rtt(&c->session, out);
	if (out->event_count >= EVENT_BATCH)
		events_flush(c->door);
}

/* Some sessions per tick: is the round trip near the interval in which an answer must come? Said
 * when that begins and when it is over. */
static void rtt_step(struct qnet_door *d)
{
	for (unsigned i = 0; i < RTT_STEP && !list_empty(&d->conns); i++) {
		struct conn *c;
		unsigned rtt_ms;
		bool late;

		if (d->rtt == NULL)
			d->rtt = d->conns.next;
		c = list_entry(d->rtt, struct conn, link);
		d->rtt = d->rtt->next != &d->conns ? d->rtt->next : NULL;
		if (c->session.state != QNET_OPEN)
			continue;
		rtt_ms = stream_rtt_ms(c->stream);
		/* It is over when it is clearly better, not when it wavers. */
		late = (uint64_t)rtt_ms * (ALARM_LATE_PART + (c->session.rtt_ms != 0)) >=
		       c->session.heartbeat_ms;
		if (late != (c->session.rtt_ms != 0))
			rtt_tell(c, late ? rtt_ms : 0);
		if (d->rtt == NULL)
			break;
	}
}

/* --- the lease --- */

static void abort_all(struct qnet_door *d)
{
	list_for_each_safe (at, &d->conns) {
		struct conn *c = list_entry(at, struct conn, link);

		if (c->session.state != QNET_CLOSED)
			conn_abort(c, TB__DOOR_CLOSED__REASON__BY_DOOR);
	}
}

static void close_listener(struct qnet_door *d)
{
	if (d->listener == NULL)
		return;
	stream_listener_close(d->listener);
	d->listener = NULL;
	d->over_limit = 0;
	d->port = 0;
}

static void stop_serving(struct qnet_door *d)
{
	if (!d->serving)
		return;
	d->serving = false;
	close_listener(d);
	d->counters.leases_lost++;
	log_notice("sites-closed", "no lease: site sessions are closed, connects are refused");
	abort_all(d);
}

/* May anything be said to clients at this moment? If not, it is over with all of them. */
static bool may_act(struct qnet_door *d)
{
	uint64_t now = now_ms(d);
	bool frozen = now - d->seen_ms > LEASE_LENGTH_MS;

	if (frozen)
		log_warning("door-frozen", "the site door stood still for %llu ms",
			    (unsigned long long)(now - d->seen_ms));
	d->seen_ms = now;
	if (!frozen && !d->held && now < atomic_load(&d->up.view->lease_until_ms))
		return true;
	stop_serving(d);
	return false;
}

static void conn_accepted(struct stream *s, void *arg);
static void resume_paced(struct qnet_door *d);

static int door_listen(struct qnet_door *d, struct stream_listener **ret, const char **ret_message);

static bool tls_needed(const struct qnet_door *d)
{
	return d->config.tls != QNET_TLS_UNSUPPORTED;
}

static void start_serving(struct qnet_door *d)
{
	const char *message = NULL;

	if (d->shut) {
		d->serving = true; /* for those who are still here */
		return;
	}
	if (d->listener != NULL || (tls_needed(d) && d->tls[0] == NULL) ||
	    now_ms(d) < d->listen_again_ms)
		return;
	if (door_listen(d, &d->listener, &message) != 0) {
		log_error("sites-listen", "%s", message);
		d->listen_again_ms = now_ms(d) + LISTEN_RETRY_MS;
		return;
	}
	d->serving = true;
	d->port = stream_listener_port(d->listener);
	log_notice("sites-open", "serving site nodes on %s", d->listen);
}

static void count_over_limit(struct qnet_door *d)
{
	uint64_t over = d->listener != NULL ? stream_listener_over_limit(d->listener) : 0;

	d->counters.refused_limit += over - d->over_limit;
	d->over_limit = over;
}

static void door_tick(uv_timer_t *timer)
{
	struct qnet_door *d = timer->data;

	if (!may_act(d))
		return;
	start_serving(d);
	count_over_limit(d);
	deadlines_pass(&d->deadlines, now_ms(d), conn_overdue, d);
	resume_paced(d);
	sweep_step(d);
	rtt_step(d);
}

/* --- the stream's side --- */

static struct conn *conn_of(struct stream *s)
{
	return stream_arg(s);
}

static bool certificate_good(struct conn *c, const struct tls_peer *peer)
{
	int revoked;

	if (!peer->present)
		return true; /* whether one is needed is the session's to say */
	revoked = c->door->up.revoked(c->door->up.arg, peer->serial);
	if (revoked == 0)
		return true;
	certificate_refused(
		c, revoked > 0 ? "its certificate is revoked" : "the model cannot be read");
	return false;
}

/* As corosync-qnetd compares names, and also to the letter: sites are told apart by case, and one
 * must not pass for the other. */
static bool names_site(const struct tls_session *tls, const struct tls_peer *peer, const char *site)
{
	return tls_session_peer_matches(tls, site) && strcmp(peer->common_name, site) == 0;
}

/* The TLS handshake is over (before it, a site connection is usable from the start). */
static void on_ready(struct stream *s)
{
	struct conn *c = conn_of(s);
	struct tls_session *tls = stream_tls(s);
	enum qnet_verdict verdict = QNET_CLOSE;
	struct tls_peer peer;

	if (tls == NULL || c->session.state != QNET_SECURING)
		return;
	tls_session_peer(tls, &peer);
	if (certificate_good(c, &peer)) {
		verdict = qnet_session_secured(&c->session, peer.present ? peer.serial : NULL,
					       names_site(tls, &peer, c->session.site),
					       &c->door->out);
		if (verdict != QNET_GO_ON)
			certificate_refused(c, c->door->out.why);
	}
	conn_apply(c, QNET_SECURING, verdict);
}

/* Every event is work for the arbiter and a copy in the core's queue. A node causes some dozens at
 * most when it attaches; one that goes on like that is read at the rate that it may have. */
static void conn_pace(struct conn *c, size_t events)
{
	struct qnet_door *d = c->door;
	uint64_t now = now_ms(d);

	if (events == 0)
		return;
	c->paced_ms = (c->paced_ms > now ? c->paced_ms : now) + events * EVENT_COST_MS;
	if (c->paced_ms <= now + EVENT_CREDIT_MS || !list_empty(&c->paused))
		return;
	log_client(d, c, "client-paced", "it reports faster than any node needs to");
	stream_pause(c->stream);
	list_append(&d->paused, &c->paused);
}

static void resume_paced(struct qnet_door *d)
{
	uint64_t now = now_ms(d);

	list_for_each_safe (at, &d->paused) {
		struct conn *c = list_entry(at, struct conn, paused);

		if (c->paced_ms > now + EVENT_CREDIT_MS)
			continue;
		list_remove(&c->paused);
		stream_resume(c->stream);
	}
}

static void on_data(struct stream *s, const uint8_t *bytes, size_t len)
{
	struct conn *c = conn_of(s);
	struct qnet_door *d = c->door;
	enum qnet_state before = c->session.state;
	enum qnet_verdict verdict;
	struct qnet_world w;
	size_t events;
	size_t used;

	if (before == QNET_CLOSED || !may_act(d))
		return;
	w = world_now(d);
	events = d->out.event_count;
	verdict = qnet_session_receive(&c->session, &w, bytes, len, &used, &d->out);
	conn_pace(c, d->out.event_count - events);
	conn_apply(c, before, verdict);
	if (verdict == QNET_START_TLS && c->session.state == QNET_SECURING)
		stream_start_tls(s, d->tls[c->session.policy.certificate], bytes + used,
				 len - used);
}

static void on_drained(struct stream *s)
{
	conn_of(s)->queued_replies = 0;
}

static void origin_leave(struct qnet_door *d, struct origin *o)
{
	if (--o->count != 0)
		return;
	hash_remove(&d->origins, &o->node);
	free(o->address);
	free(o);
}

static void on_closed(struct stream *s, enum stream_end how, const char *detail)
{
	struct conn *c = conn_of(s);
	struct qnet_door *d = c->door;

	if (c->session.state == QNET_SECURING)
		log_client(d, c, "client-tls", detail);
	/* A FIN or reset came from the client's own kernel: that side knows. */
	conn_close_session(c, how == STREAM_END_PEER || how == STREAM_END_RESET
				      ? TB__DOOR_CLOSED__REASON__BY_CLIENT
				      : TB__DOOR_CLOSED__REASON__BY_DOOR);
	if (d->rtt == &c->link)
		d->rtt = c->link.next != &d->conns ? c->link.next : NULL;
	if (d->sweep == &c->link)
		d->sweep = c->link.next != &d->conns ? c->link.next : NULL;
	d->counters.sessions[QNET_CLOSED]--;
	hash_remove(&d->by_id, &c->by_id);
	list_remove(&c->link);
	list_remove(&c->corked);
	list_remove(&c->paused);
	origin_leave(d, c->origin);
	qnet_session_free(&c->session);
	free(c);
}

static const struct stream_events site_events = {
	.ready = on_ready,
	.data = on_data,
	.drained = on_drained,
	.closed = on_closed,
};

static int origin_match(const struct hash_node *node, const void *key)
{
	return strcmp(list_entry(node, struct origin, node)->address, key) == 0;
}

/* "[::1]:5" and "10.0.0.1:34346" without the port. */
static struct origin *origin_enter(struct qnet_door *d, const char *peer)
{
	const char *colon = strrchr(peer, ':');
	char *address = mem_strndup(peer, colon != NULL ? (size_t)(colon - peer) : strlen(peer));
	uint64_t hash = hash_string(address);
	struct hash_node *found = hash_find(&d->origins, hash, origin_match, address);
	struct origin *o;

	if (found != NULL) {
		free(address);
		o = list_entry(found, struct origin, node);
	} else {
		o = mem_zalloc(sizeof(*o));
		o->address = address;
		hash_insert(&d->origins, &o->node, hash);
	}
	o->count++;
	return o;
}

static void conn_accepted(struct stream *s, void *arg)
{
	struct qnet_door *d = arg;
	struct conn *c = mem_zalloc(sizeof(*c));
	unsigned limit = d->config.sessions_per_address_max;

	c->door = d;
	c->stream = s;
	stream_set_arg(s, c);
	qnet_session_init(&c->session, d->next_id++, stream_peer_address(s), now_ms(d));
	c->origin = origin_enter(d, stream_peer_address(s));
	hash_insert(&d->by_id, &c->by_id, hash_u64(c->session.id));
	list_append(&d->conns, &c->link);
	list_init(&c->corked);
	list_init(&c->paused);
	d->counters.accepted++;
	d->counters.sessions[QNET_NEW]++;
	deadlines_set(&d->deadlines, &c->deadline, c->session.deadline_ms);
	if (limit != 0 && c->origin->count > limit) {
		d->counters.refused_limit++;
		log_client(d, c, "client-refused", "too many connections from its address");
		conn_abort(c, TB__DOOR_CLOSED__REASON__BY_DOOR);
	}
}

static int door_listen(struct qnet_door *d, struct stream_listener **ret, const char **ret_message)
{
	const struct stream_listen how = {.address = d->listen,
					  .limit = d->config.sessions_max,
					  .backlog = BACKLOG,
					  .events = &site_events,
					  .accepted = conn_accepted,
					  .arg = d};

	return stream_listen(d->streams, &how, ret, ret_message);
}

/* --- letters --- */

enum letter_kind {
	LETTER_ORDERS,
	LETTER_REPORT,
	LETTER_SERVE,
	LETTER_ADMIT,
	LETTER_IDENTITY,
	LETTER_MODEL,
	LETTER_STOP
};

struct door_letter {
	struct letter letter;
	struct qnet_door *door;
	enum letter_kind kind;
	bool on;
	Tb__DoorOrder **orders;
	size_t count;
};

static int id_match(const struct hash_node *node, const void *key)
{
	return list_entry(node, struct conn, by_id)->session.id == *(const uint64_t *)key;
}

static struct conn *conn_find(const struct qnet_door *d, uint64_t id)
{
	struct hash_node *found = hash_find(&d->by_id, hash_u64(id), id_match, &id);

	return found != NULL ? list_entry(found, struct conn, by_id) : NULL;
}

static void order_apply(struct qnet_door *d, const Tb__DoorOrder *order)
{
	struct conn *c = conn_find(d, order->session);
	enum qnet_state before;
	enum qnet_verdict verdict;
	struct qnet_world w;

	if (c == NULL || c->session.state == QNET_CLOSED || !may_act(d))
		return;
	/* Several orders for one session (a reply and its vote) leave in one segment. */
	if (list_empty(&c->corked)) {
		stream_cork(c->stream);
		list_append(&d->corked, &c->corked);
	}
	w = world_now(d);
	before = c->session.state;
	verdict = qnet_session_order(&c->session, &w, order, &d->out);
	if (before == QNET_ASKED && c->session.state == QNET_REFUSED)
		d->out.why = order->init_reply->why[0] != '\0' ? order->init_reply->why
							       : "the arbiter refused it";
	if (order->what_case == TB__DOOR_ORDER__WHAT_CLOSE && order->close->why[0] != '\0')
		d->out.why = order->close->why;
	conn_apply(c, before, verdict);
}

static void do_orders(struct qnet_door *d, struct door_letter *l)
{
	for (size_t i = 0; i < l->count; i++)
		order_apply(d, l->orders[i]);
	while (!list_empty(&d->corked)) {
		struct conn *c = list_entry(d->corked.next, struct conn, corked);

		list_remove(&c->corked);
		stream_uncork(c->stream);
	}
}

static void do_report(struct qnet_door *d)
{
	struct qnet_world w = world_now(d);

	qnet_out_reset(&d->out, (uint32_t)d->counters.sessions[QNET_OPEN]);
	list_for_each (at, &d->conns) {
		qnet_session_report(&list_entry(at, struct conn, link)->session, &w, &d->out);
		if (d->out.event_count >= EVENT_BATCH)
			events_flush(d);
	}
	events_flush(d);
}

static void secrets_free(Tb__Secrets *secrets)
{
	mem_wipe(secrets->qnet_key, strlen(secrets->qnet_key));
	mem_wipe(secrets->qnet_ca_key, strlen(secrets->qnet_ca_key));
	mem_wipe(secrets->ca_key, strlen(secrets->ca_key));
	tb__secrets__free_unpacked(secrets, NULL);
}

/* Connections that are there keep the context that they were made with. */
static void load_tls(struct qnet_door *d)
{
	Tb__Secrets *secrets = NULL;
	struct tls_context *made[2] = {NULL, NULL};
	const char *message = "the model holds no keys";
	int rv = d->up.secrets(d->up.arg, &secrets);

	if (rv == -ENOENT)
		return;
	for (unsigned ask = 0; rv == 0 && ask < 2; ask++) {
		const struct tls_options options = {.certificate = secrets->qnet_cert,
						    .key = secrets->qnet_key,
						    .ca = secrets->qnet_ca_cert,
						    .server = true,
						    .ask_client_certificate = ask != 0};

		rv = tls_context_new(&options, &made[ask], &message);
	}
	if (secrets != NULL)
		secrets_free(secrets);
	if (rv != 0) {
		log_error("sites-tls", "no TLS for site nodes: %s", message);
		tls_context_free(made[0]);
		return;
	}
	for (unsigned ask = 0; ask < 2; ask++) {
		tls_context_free(d->tls[ask]);
		d->tls[ask] = made[ask];
	}
}

static void do_model(struct qnet_door *d)
{
	d->model_letter = false;
	if (d->tls[0] == NULL)
		load_tls(d);
	/* This board may have no battery clock, and a certificate be newer than its last start. */
	for (unsigned ask = 0; d->tls[0] != NULL && ask < 2; ask++)
		tls_context_set_clock_floor(d->tls[ask], atomic_load(&d->up.view->clock_floor_ms));
	/* A sweep under way starts anew: it may have passed what has changed. */
	if (d->up.concerns(d->up.arg) && !list_empty(&d->conns))
		d->sweep = d->conns.next;
}

static void do_serve(struct qnet_door *d, bool on)
{
	d->held = !on;
	if (may_act(d))
		start_serving(d);
}

static void do_admit(struct qnet_door *d, bool on)
{
	d->shut = !on;
	if (d->shut)
		close_listener(d);
	else if (may_act(d))
		start_serving(d);
}

static void handle_closed(uv_handle_t *handle)
{
	(void)handle;
}

static void streams_freed(void *arg)
{
	struct qnet_door *d = arg;

	events_flush(d);
	mailbox_close(&d->mailbox, NULL);
}

static void do_stop(struct qnet_door *d)
{
	if (d->listener != NULL)
		stream_listener_close(d->listener);
	d->listener = NULL;
	abort_all(d);
	uv_close((uv_handle_t *)&d->tick, handle_closed);
	uv_close((uv_handle_t *)&d->flush, handle_closed);
	stream_group_free(d->streams, streams_freed, d);
}

static void letter_free(struct door_letter *l)
{
	for (size_t i = 0; i < l->count; i++)
		tb__door_order__free_unpacked(l->orders[i], NULL);
	free(l->orders);
	free(l);
}

static void letter_open(struct letter *letter)
{
	struct door_letter *l = list_entry(letter, struct door_letter, letter);
	struct qnet_door *d = l->door;

	switch (l->kind) {
	case LETTER_ORDERS:
		do_orders(d, l);
		break;
	case LETTER_REPORT:
		do_report(d);
		break;
	case LETTER_SERVE:
		do_serve(d, l->on);
		break;
	case LETTER_ADMIT:
		do_admit(d, l->on);
		break;
	case LETTER_IDENTITY:
		load_tls(d);
		break;
	case LETTER_MODEL:
		do_model(d);
		break;
	case LETTER_STOP:
		do_stop(d);
		break;
	}
	letter_free(l);
}

/* Nothing of the core's may be lost while the door lives, so there is no limit to refuse it: what
 * can come is bounded by the sessions. */
static void post(struct qnet_door *d, struct door_letter what)
{
	struct door_letter *l = mem_dup(&what, sizeof(what));

	l->letter.open = letter_open;
	l->door = d;
	if (mailbox_answer(&d->mailbox, &l->letter) != 0)
		letter_free(l);
}

void qnet_door_orders(struct qnet_door *door, Tb__DoorOrder **orders, size_t count)
{
	post(door, (struct door_letter){.kind = LETTER_ORDERS, .orders = orders, .count = count});
}

void qnet_door_report(struct qnet_door *door)
{
	post(door, (struct door_letter){.kind = LETTER_REPORT});
}

void qnet_door_serve(struct qnet_door *door, bool on)
{
	post(door, (struct door_letter){.kind = LETTER_SERVE, .on = on});
}

void qnet_door_admit(struct qnet_door *door, bool on)
{
	post(door, (struct door_letter){.kind = LETTER_ADMIT, .on = on});
}

void qnet_door_identity(struct qnet_door *door)
{
	post(door, (struct door_letter){.kind = LETTER_IDENTITY});
}

void qnet_door_model_changed(struct qnet_door *door, uint64_t applied_index)
{
	(void)applied_index; /* the model itself says what is new */
	if (!atomic_exchange(&door->model_letter, true))
		post(door, (struct door_letter){.kind = LETTER_MODEL});
}

void qnet_door_stats(const struct qnet_door *door, struct qnet_door_stats *ret)
{
	for (unsigned i = 0; i < QNET_STATES; i++)
		ret->sessions[i] = atomic_load(&door->counters.sessions[i]);
	ret->accepted = atomic_load(&door->counters.accepted);
	ret->refused_limit = atomic_load(&door->counters.refused_limit);
	ret->echoes = atomic_load(&door->counters.echoes);
	ret->silent = atomic_load(&door->counters.silent);
	ret->certificate_refused = atomic_load(&door->counters.certificate_refused);
	ret->leases_lost = atomic_load(&door->counters.leases_lost);
}

unsigned qnet_door_port(const struct qnet_door *door)
{
	return atomic_load(&door->port);
}

/* --- start and stop --- */

static void door_thread(void *arg)
{
	struct qnet_door *d = arg;

	uv_run(&d->loop, UV_RUN_DEFAULT);
}

static void door_free(struct qnet_door *d)
{
	int rv = uv_loop_close(&d->loop);

	assert(rv == 0);
	tls_context_free(d->tls[0]);
	tls_context_free(d->tls[1]);
	hash_free(&d->by_id);
	hash_free(&d->origins);
	qnet_out_free(&d->out);
	free(d->listen);
	if (d->up.stopped != NULL)
		d->up.stopped(d->up.arg);
	free(d);
}

/* A port that is in use is a mistake of the installation: found at start, before there is a lease
 * and while somebody is looking. */
static int probe_port(struct qnet_door *d, const char **ret_message)
{
	struct stream_listener *probe;
	int rv = door_listen(d, &probe, ret_message);

	if (rv == 0)
		stream_listener_close(probe);
	return rv;
}

int qnet_door_start_in(const struct qnet_door_config *config,
		       const struct qnet_door_upcalls *upcalls, struct qnet_door **ret,
		       const char **ret_message)
{
	struct qnet_door *d = mem_zalloc(sizeof(*d));
	uint32_t boot;
	int rv;

	d->config = *config;
	d->up = *upcalls;
	d->listen = mem_strdup(config->listen);
	d->seen_ms = now_ms(d);
	d->log_credit = LOG_BURST;
	d->log_credit_ms = d->seen_ms;
	rng_fill(&boot, sizeof(boot));
	d->next_id = (uint64_t)boot << 32 | 1;
	list_init(&d->conns);
	list_init(&d->corked);
	list_init(&d->paused);
	deadlines_init(&d->deadlines, d->seen_ms);
	rv = uv_loop_init(&d->loop);
	assert(rv == 0);
	rv = mailbox_init(&d->mailbox, &d->loop, LETTERS_MAX);
	assert(rv == 0);
	d->streams = stream_group_new(&d->loop, HANDSHAKE_BUDGET_US);
	uv_timer_init(&d->loop, &d->tick);
	uv_prepare_init(&d->loop, &d->flush);
	d->tick.data = d;
	d->flush.data = d;
	rv = probe_port(d, ret_message);
	if (rv != 0) {
		do_stop(d);
		uv_run(&d->loop, UV_RUN_DEFAULT);
		door_free(d);
		return rv;
	}
	uv_timer_start(&d->tick, door_tick, TICK_MS, TICK_MS);
	uv_prepare_start(&d->flush, flush_turn);
	rv = uv_thread_create(&d->thread, door_thread, d);
	assert(rv == 0);
	*ret = d;
	return 0;
}

void qnet_door_stop(struct qnet_door *door)
{
	post(door, (struct door_letter){.kind = LETTER_STOP});
	uv_thread_join(&door->thread);
	door_free(door);
}
