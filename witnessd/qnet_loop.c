/* qnet_loop.c: sockets and time of the site door; the protocol is in qnet_session.c.
 *
 * A connection begins as a `guest`, a bare socket in the lobby (lobby.h), and is let in while fewer
 * than a window of others are on their way and the handshakes keep up. Then it is one `conn`: the
 * session, its stream, its place in the tables. What a session gives out goes three ways in
 * conn_apply: bytes to the stream, events to the queue that is handed to the core once per turn of
 * the loop, a verdict to the connection's end.
 *
 * The lease is looked at before anything a client says is taken and before every order is
 * carried out, by a clock read each: whatever the timers do, nothing leaves without a lease. */
#include "witnessd/qnet_loop.h"

#include <assert.h>
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "cluster/alarm.h"
#include "cluster/limits.h"
#include "cluster/store.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/pool.h"
#include "lib/rng.h"
#include "lib/address.h"
#include "witnessd/core.h"
#include "witnessd/deadlines.h"
#include "witnessd/door_joint.h"
#include "witnessd/lobby.h"
#include "witnessd/mailbox.h"
#include "witnessd/stream.h"

enum {
	TICK_MS = LOBBY_TICK_MS,
	LISTEN_RETRY_MS = 1000,
	HANDSHAKE_BUDGET_US = 4000,
	QUEUE_BYTES_MAX = 64 << 10, /* of a client that does not take its replies */
	QUEUE_REPLIES_MAX = 32,
	EVENT_BATCH = 256,
	SWEEP_BUDGET_US = 30000, /* of each tick, to look sessions up after a change of the model */
	LETTERS_MAX = 100000,
	DOOR_NICE = 5,
	RTT_STEP = 20, /* sessions measured per tick */
	WINDOW_DEFAULT = 256, /* also bounds the handshakes that wait for a turn */
	/* One that takes longer waits for its own network and does not count. When more are lost in
	 * the handshake than attach, they are too many for their side, and it counts for longer. */
	ON_THE_WAY_MS = 500,
	ON_THE_WAY_MAX_MS = 4000,
	TRIM_CLOSED = 256, /* so many sessions have gone, and */
	TRIM_QUIET_MS = 2000, /* nobody has come or gone for so long: give memory back */
	EVENT_COST_MS = 60, /* what each event of a client costs of its time, and */
	EVENT_CREDIT_MS = 4000, /* how far it may get ahead before it is read no more */
	TLS_AGAIN_MS = 1000,
	READ_AGAIN_MS = 1000,
	LOG_BURST = 20, /* lines about clients at once, and */
	LOG_LINE_MS = 200, /* one more after each of these */
};

/* A connection in the lobby. */
struct guest {
	struct lobby_guest lobby;
	struct place *place;
	int fd;
};

struct conn {
	struct qnet_session session;
	struct qnet_loop *loop;
	struct stream *stream;
	struct place *place;
	struct lobby_origin *origin; /* while entering */
	struct list entering; /* in loop->entering until attached, or on_the_way_ms have passed */
	uint64_t entered_ms;
	struct deadline deadline;
	struct hash_node by_id;
	struct list link; /* in loop->conns */
	uint64_t issuer; /* of its certificate (tls_peer) */
	struct list corked; /* in loop->corked while a batch of orders runs */
	struct list paused; /* in loop->paused while nothing is read from it */
	uint64_t paced_ms; /* its events so far are paid for at this time */
	unsigned queued_replies; /* since the stream could not send all */
};

struct counters {
	_Atomic uint64_t sessions[QNET_STATES];
	_Atomic uint64_t accepted;
	_Atomic uint64_t refused_limit;
	_Atomic uint64_t echoes;
	_Atomic uint64_t silent;
	_Atomic uint64_t resumed;
	_Atomic uint64_t certificate_refused;
	_Atomic uint64_t leases_lost;
	_Atomic uint64_t waiting;
	_Atomic uint64_t sent_away;
};

struct qnet_loop {
	struct qnet_loop_options options;
	struct qnet_door_config config;
	struct qnet_door_upcalls up;
	char *listen; /* NULL: another loop listens */
	bool running; /* the thread; and `joined` once it has ended */
	bool joined;
	bool stopping;
	bool serving; /* there was a lease when last looked */
	bool shut; /* the board is drained: no new sessions */
	uv_thread_t thread;
	uv_loop_t loop;
	uv_timer_t tick;
	uv_prepare_t flush;
	struct mailbox mailbox;
	struct stream_group *streams;
	struct stream_listener
		*listener; /* NULL while not serving, shut, or if another loop listens */
	uint64_t over_limit; /* of the listener, as counted so far */
	struct lobby lobby;
	struct list entering; /* conns let in lately, oldest first */
	unsigned entering_count;
	unsigned on_the_way_ms; /* a conn stays in `entering` so long at most */
	unsigned attached_count, lost_count; /* in this tick; lost: in the handshake */
	uint64_t stirred_ms; /* somebody came or went */
	unsigned closed_count; /* since memory was given back */
	_Atomic unsigned port;
	char *tls_chain; /* what they were made of */
	struct tls_cas believed; /* CAs of clients' certificates */
	uint64_t tls_again_ms; /* the keys could not be taken: once more at this time; 0: they were
				*/
	struct tls_context *tls[2]; /* [1] asks for a client certificate; NULL: no keys yet */
	bool held; /* the core said: do not serve */
	uint64_t listen_again_ms;
	uint64_t seen_ms; /* the loop turned last */
	uint64_t next_id;
	struct list conns;
	struct pool conn_pool; /* of their memory */
	struct pool guest_pool;
	struct list corked;
	struct list paused;
	struct list *rtt; /* next of conns whose round trip is looked at; NULL: the first */
	struct list *sweep; /* of conns: where looking them up goes on; the head: at the first */
	size_t sweep_left; /* to be looked up */
	bool news; /* of the model, that are not followed up yet */
	uint64_t read_again_ms; /* the model could not be read: not tried before this time */
	struct hash by_id;
	struct deadlines deadlines;
	struct qnet_out out; /* events collected for the core; its wire is reused */
	struct counters counters;
	_Atomic bool model_letter; /* one is under way */
	unsigned log_credit;
	uint64_t log_credit_ms;
	unsigned log_dropped;
};

static uint64_t now_ms(const struct qnet_loop *d)
{
	return d->config.clock_ms != NULL ? d->config.clock_ms(d->config.clock_arg)
					  : clock_boottime_ms();
}

/* A line about a client. Clients can cause as many as they like, so they share a ration. */
static bool log_credit_take(struct qnet_loop *d)
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
		return false;
	}
	d->log_credit--;
	if (d->log_dropped != 0)
		log_notice("client-lines-dropped", "%u lines about site nodes were left out",
			   d->log_dropped);
	d->log_dropped = 0;
	return true;
}

static void log_client(struct qnet_loop *d, const struct conn *c, const char *event,
		       const char *why)
{
	if (!log_credit_take(d))
		return;
	log_notice(event, "site %s, client %s: %s",
		   c->session.site != NULL ? c->session.site : "(not said)", c->session.address,
		   why);
}

static void log_refused(struct qnet_loop *d, const struct sockaddr *peer, const char *why)
{
	char address[ADDRESS_TEXT];

	if (!log_credit_take(d))
		return;
	address_format(peer, address);
	log_notice("client-refused", "client %s: %s", address, why);
}

/* --- events to the core --- */

static void events_flush(struct qnet_loop *d)
{
	Tb__DoorEvent **events;
	size_t count;

	if (d->out.events.count == 0)
		return;
	events = door_events_take(&d->out.events, &count);
	joint_events(d->options.joint, d->options.index, events, count);
}

static void lobby_open(struct qnet_loop *d);

static void flush_turn(uv_prepare_t *prepare)
{
	lobby_open(prepare->data);
	events_flush(prepare->data);
}

/* --- one connection --- */

static struct qnet_world world_now(struct qnet_loop *d);

/* No longer on its way in. */
static void conn_arrived(struct conn *c)
{
	if (list_empty(&c->entering))
		return;
	list_remove(&c->entering);
	c->loop->entering_count--;
	lobby_arrived(&c->loop->lobby, c->origin);
}

static void conn_moved(struct conn *c, enum qnet_state before)
{
	struct qnet_loop *d = c->loop;
	enum qnet_state after = c->session.state;

	if (before == after)
		return;
	d->counters.sessions[before]--;
	d->counters.sessions[after]++;
	if (after >= QNET_OPEN)
		conn_arrived(c);
	if (after == QNET_OPEN) {
		d->attached_count++;
		admission_attached(c->place);
	}
}

static void conn_close_session(struct conn *c, Tb__DoorClosed__Reason reason)
{
	enum qnet_state before = c->session.state;

	if (before == QNET_CLOSED)
		return;
	qnet_session_close(&c->session, reason, now_ms(c->loop), &c->loop->out);
	conn_moved(c, before);
	deadlines_remove(&c->deadline);
}

static void conn_abort(struct conn *c, Tb__DoorClosed__Reason reason)
{
	conn_close_session(c, reason);
	stream_abort(c->stream);
}

static void conn_write(struct conn *c)
{
	struct qnet_out *out = &c->loop->out;
	size_t left = stream_write(c->stream, out->wire.data, out->wire.len);

	c->queued_replies = left != 0 ? c->queued_replies + out->replies : 0;
	if (left > QUEUE_BYTES_MAX || c->queued_replies > QUEUE_REPLIES_MAX) {
		log_client(c->loop, c, "client-stuck",
			   "it does not take its replies (at most 64 KiB or 32 wait); closed");
		conn_abort(c, TB__DOOR_CLOSED__REASON__BY_DOOR);
	}
}

/* Carries out what the session gave out (in loop->out). */
static void conn_apply(struct conn *c, enum qnet_state before, enum qnet_verdict verdict)
{
	struct qnet_loop *d = c->loop;
	struct qnet_out *out = &d->out;

	conn_moved(c, before);
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
	if (out->events.count >= EVENT_BATCH)
		events_flush(d);
}

static uint64_t conn_overdue(struct deadline *item, void *arg)
{
	struct conn *c = list_entry(item, struct conn, deadline);
	struct qnet_loop *d = arg;
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
	struct qnet_loop *d = arg;
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

static struct qnet_world world_now(struct qnet_loop *d)
{
	return (struct qnet_world){.arg = d,
				   .site = site_policy,
				   .board = atomic_load(&d->up.view->node_id),
				   .now_ms = now_ms(d),
				   .real_ms = clock_realtime_ms()};
}

static void certificate_refused(struct conn *c, const char *why)
{
	c->loop->counters.certificate_refused++;
	c->loop->out.why = why;
}

/* Not revoked, and of a CA that is still believed; negative: cannot be read. */
static int certificate_revoked(struct qnet_loop *d, const char *serial, uint64_t issuer)
{
	return tls_cas_hold(&d->believed, issuer) ? d->up.revoked(d->up.arg, serial) : 1;
}

/* By the site's policy of now; NULL: all is well. */
static const char *session_outdated(struct qnet_session *s, const struct qnet_site *policy)
{
	/* A client that was told so when it said who it is may be about to start TLS. */
	if (policy->tls == QNET_TLS_REQUIRED && !s->tls &&
	    (s->state >= QNET_SECURED || s->policy.tls != QNET_TLS_REQUIRED))
		return "the site's policy demands TLS now";
	if (policy->certificate && s->tls && s->serial == NULL)
		return "the site's policy demands a client certificate now";
	s->policy.fast = policy->fast;
	s->policy.heartbeat_min_ms = policy->heartbeat_min_ms;
	s->policy.heartbeat_max_ms = policy->heartbeat_max_ms;
	return NULL;
}

/* What has become of an open session's grounds since it was let in. 0: *ret_why is NULL if all is
 * well; negative: cannot be read at the moment, and what was right remains right. */
static int session_look(struct qnet_loop *d, struct conn *c, const char **ret_why)
{
	struct qnet_session *s = &c->session;
	struct qnet_site policy;
	int rv = s->serial != NULL ? certificate_revoked(d, s->serial, c->issuer) : 0;

	if (rv < 0)
		return rv;
	*ret_why = NULL;
	if (rv > 0) {
		*ret_why = "its certificate was revoked, or is of a CA that is believed no more";
		return 0;
	}
	rv = s->site != NULL ? site_policy(d, s->site, &policy) : -ENOENT;
	if (rv != 0)
		return rv != -ENOENT ? rv : 0; /* a site that is gone is the leader's to end */
	*ret_why = session_outdated(s, &policy);
	return 0;
}

/* Connections that are there keep the context that they were made with. What cannot be done now is
 * tried again: the news that asked for it does not come twice. */
static void load_tls(struct qnet_loop *d)
{
	Tb__Secrets *secrets = NULL;
	struct tls_context *made[2] = {NULL, NULL};
	const char *message = "";
	char *chain, *believed;
	int rv = d->up.secrets(d->up.arg, &secrets);

	d->tls_again_ms = rv == 0 || rv == -ENOENT ? 0 : now_ms(d) + TLS_AGAIN_MS;
	if (rv != 0) {
		if (rv != -ENOENT)
			log_error("sites-tls",
				  "the keys of TLS for site nodes cannot be read: %s; "
				  "tried again",
				  strerror(-rv));
		return;
	}
	/* The bridge leads who believes only the CA of before to the new one (CaRotation). */
	chain = mem_printf("%s%s", secrets->qnet_cert, secrets->qnet_bridge_cert);
	believed = mem_printf("%s%s", secrets->qnet_ca_cert, secrets->old_qnet_ca_cert);
	if (d->tls[0] != NULL && strcmp(chain, d->tls_chain) == 0)
		goto out;
	for (unsigned ask = 0; rv == 0 && ask < 2; ask++) {
		const struct tls_options options = {.certificate = chain,
						    .key = secrets->qnet_key,
						    .ca = believed,
						    .server = true,
						    .tickets = true,
						    .ask_client_certificate = ask != 0};

		rv = tls_context_new(&options, &made[ask], &message);
	}
	if (rv != 0) {
		log_error("sites-tls", "no new TLS for site nodes: %s; tried again", message);
		d->tls_again_ms = now_ms(d) + TLS_AGAIN_MS;
		tls_context_free(made[0]);
		goto out;
	}
	free(d->tls_chain);
	d->tls_chain = chain;
	chain = NULL;
	tls_cas_read(believed, &d->believed);
	for (unsigned ask = 0; ask < 2; ask++) {
		tls_context_free(d->tls[ask]);
		d->tls[ask] = made[ask];
	}
out:
	free(chain);
	free(believed);
	store_secrets_free(secrets);
}

static void tls_retry(struct qnet_loop *d)
{
	if (d->tls_again_ms == 0 || now_ms(d) < d->tls_again_ms)
		return;
	load_tls(d);
	if (d->tls_again_ms == 0)
		d->sweep_left = d->by_id.count;
}

/* Nothing of the news is lost if the model cannot be read now. */
static void read_later(struct qnet_loop *d)
{
	d->read_again_ms = now_ms(d) + READ_AGAIN_MS;
}

static void news_step(struct qnet_loop *d)
{
	int concerns;

	if (!d->news || now_ms(d) < d->read_again_ms)
		return;
	concerns = d->up.concerns(d->up.arg);
	if (concerns < 0) {
		read_later(d);
		return;
	}
	d->news = false;
	if (concerns == 0)
		return;
	load_tls(d);
	/* Once round from where it is, not from the start: changes may come faster than it. */
	d->sweep_left = d->by_id.count;
}

/* A change that may concern open sessions is followed up some sessions per tick, since each costs
 * look-ups in the model and there may be ten thousand. */
static void sweep_step(struct qnet_loop *d)
{
	uint64_t end = uv_hrtime() + SWEEP_BUDGET_US * UINT64_C(1000);

	while (d->sweep_left != 0 && now_ms(d) >= d->read_again_ms && uv_hrtime() < end) {
		const char *why = NULL;
		struct conn *c;

		if (d->sweep == &d->conns)
			d->sweep = d->conns.next;
		if (d->sweep == &d->conns)
			return; /* nobody is left */
		c = list_entry(d->sweep, struct conn, link);
		d->sweep = d->sweep->next;
		d->sweep_left--;
		if (c->session.state == QNET_CLOSED || c->session.state == QNET_NEW)
			continue;
		if (session_look(d, c, &why) < 0) {
			/* Round once more, to this one again: the others do not wait for it. */
			d->sweep_left = d->by_id.count;
			read_later(d);
		}
		if (why == NULL)
			continue;
		log_client(d, c, "client-closed", why);
		conn_abort(c, TB__DOOR_CLOSED__REASON__BY_DOOR);
	}
}

/* --- round trips --- */

static void rtt_tell(struct conn *c, uint32_t rtt_ms)
{
	struct qnet_out *out = &c->loop->out;

	c->session.rtt_ms = rtt_ms;
	door_events_rtt(&out->events, c->session.id, rtt_ms);
	if (out->events.count >= EVENT_BATCH)
		events_flush(c->loop);
}

/* Some sessions per tick: is the round trip near the interval in which an answer must come? Said
 * when that begins and when it is over. */
static void rtt_step(struct qnet_loop *d)
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
		late = alarm_late(rtt_ms, c->session.heartbeat_ms, c->session.rtt_ms != 0);
		if (late != (c->session.rtt_ms != 0))
			rtt_tell(c, late ? rtt_ms : 0);
		if (d->rtt == NULL)
			break;
	}
}

/* --- the lease --- */

static void abort_all(struct qnet_loop *d)
{
	list_for_each_safe (at, &d->conns) {
		struct conn *c = list_entry(at, struct conn, link);

		if (c->session.state != QNET_CLOSED)
			conn_abort(c, TB__DOOR_CLOSED__REASON__BY_DOOR);
	}
}

static void guests_clear(struct qnet_loop *d);

static void close_listener(struct qnet_loop *d)
{
	if (d->listener == NULL)
		return;
	stream_listener_close(d->listener);
	d->listener = NULL;
	d->over_limit = 0;
	d->port = 0;
}

static void stop_serving(struct qnet_loop *d)
{
	if (!d->serving)
		return;
	d->serving = false;
	if (d->listen != NULL) {
		close_listener(d);
		d->counters.leases_lost++;
		log_notice("sites-closed",
			   "no lease: site sessions are closed, connects are refused");
	}
	guests_clear(d);
	abort_all(d);
}

/* May anything be said to clients at this moment? If not, it is over with all of them. */
static bool may_act(struct qnet_loop *d)
{
	uint64_t now = now_ms(d);
	bool frozen = now - d->seen_ms > LEASE_LENGTH_MS;

	if (frozen)
		log_warning("door-frozen", "the site door stood still for %llu ms",
			    (unsigned long long)(now - d->seen_ms));
	d->seen_ms = now;
	if (!frozen && !d->held && !d->stopping && now < atomic_load(&d->up.view->lease_until_ms))
		return true;
	stop_serving(d);
	return false;
}

static void resume_paced(struct qnet_loop *d);

static int door_listen(struct qnet_loop *d, struct stream_listener **ret, const char **ret_message);

static bool tls_needed(const struct qnet_loop *d)
{
	return d->config.tls != QNET_TLS_UNSUPPORTED;
}

static void start_serving(struct qnet_loop *d)
{
	const char *message = NULL;

	if (tls_needed(d) && d->tls[0] == NULL)
		return;
	if (d->listen == NULL || d->shut)
		d->serving = true; /* while shut: for those who are still here */
	if (d->listen == NULL || d->shut || d->listener != NULL || now_ms(d) < d->listen_again_ms)
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

static void count_over_limit(struct qnet_loop *d)
{
	uint64_t over = d->listener != NULL ? stream_listener_over_limit(d->listener) : 0;

	d->counters.refused_limit += over - d->over_limit;
	d->over_limit = over;
}

static void lobby_look(struct qnet_loop *d);

/* After a storm most of the heap is holes between the sessions that stayed. Done while nothing
 * else happens, as it takes some milliseconds for ten thousand. */
static void memory_trim(struct qnet_loop *d)
{
	if (d->closed_count < TRIM_CLOSED || now_ms(d) - d->stirred_ms < TRIM_QUIET_MS)
		return;
	d->closed_count = 0;
	malloc_trim(0);
}

static void door_tick(uv_timer_t *timer)
{
	struct qnet_loop *d = timer->data;

	if (!may_act(d))
		return;
	start_serving(d);
	count_over_limit(d);
	deadlines_pass(&d->deadlines, now_ms(d), conn_overdue, d);
	resume_paced(d);
	tls_retry(d);
	news_step(d);
	sweep_step(d);
	rtt_step(d);
	lobby_look(d);
	memory_trim(d);
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
	c->issuer = peer->issuer;
	revoked = certificate_revoked(c->loop, peer->serial, peer->issuer);
	if (revoked == 0)
		return true;
	certificate_refused(
		c, revoked > 0 ? "its certificate is revoked, or of a CA that is believed no more"
			       : "the model cannot be read");
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
	c->loop->counters.resumed += tls_session_resumed(tls);
	tls_session_peer(tls, &peer);
	if (certificate_good(c, &peer)) {
		verdict = qnet_session_secured(&c->session, peer.present ? peer.serial : NULL,
					       names_site(tls, &peer, c->session.site),
					       &c->loop->out);
		if (verdict != QNET_GO_ON)
			certificate_refused(c, c->loop->out.why);
	}
	tls_session_forget_peer(tls);
	conn_apply(c, QNET_SECURING, verdict);
}

/* Every event is work for the arbiter and a copy in the core's queue. A node causes some dozens at
 * most when it attaches; one that goes on like that is read at the rate that it may have. */
static void conn_pace(struct conn *c, size_t events)
{
	struct qnet_loop *d = c->loop;
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

static void resume_paced(struct qnet_loop *d)
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
	struct qnet_loop *d = c->loop;
	enum qnet_state before = c->session.state;
	enum qnet_verdict verdict;
	struct qnet_world w;
	size_t events;
	size_t used;

	if (before == QNET_CLOSED || !may_act(d))
		return;
	w = world_now(d);
	events = d->out.events.count;
	verdict = qnet_session_receive(&c->session, &w, bytes, len, &used, &d->out);
	conn_pace(c, d->out.events.count - events);
	conn_apply(c, before, verdict);
	if (verdict == QNET_START_TLS && c->session.state == QNET_SECURING)
		stream_start_tls(s, d->tls[c->session.policy.certificate], bytes + used,
				 len - used);
}

static void on_drained(struct stream *s)
{
	conn_of(s)->queued_replies = 0;
}

static void on_closed(struct stream *s, enum stream_end how, const char *detail)
{
	struct conn *c = conn_of(s);
	struct qnet_loop *d = c->loop;

	if (c->session.state == QNET_SECURING) {
		d->lost_count++;
		log_client(d, c, "client-tls", detail);
	}
	/* A FIN or reset came from the client's own kernel: that side knows. */
	conn_close_session(c, how == STREAM_END_PEER || how == STREAM_END_RESET
				      ? TB__DOOR_CLOSED__REASON__BY_CLIENT
				      : TB__DOOR_CLOSED__REASON__BY_DOOR);
	if (d->rtt == &c->link)
		d->rtt = c->link.next != &d->conns ? c->link.next : NULL;
	if (d->sweep == &c->link)
		d->sweep = c->link.next;
	d->counters.sessions[QNET_CLOSED]--;
	hash_remove(&d->by_id, &c->by_id);
	list_remove(&c->link);
	list_remove(&c->corked);
	list_remove(&c->paused);
	conn_arrived(c);
	admission_leave(c->place);
	d->stirred_ms = now_ms(d);
	d->closed_count++;
	qnet_session_free(&c->session);
	pool_put(&d->conn_pool, c);
}

static const struct stream_events site_events = {
	.ready = on_ready,
	.data = on_data,
	.drained = on_drained,
	.closed = on_closed,
};

/* --- the lobby --- */

static void conn_new(struct qnet_loop *d, int fd, struct place *place, struct lobby_origin *origin)
{
	struct conn *c = pool_get(&d->conn_pool);
	char local[ADDRESS_TEXT];

	c->loop = d;
	c->place = place;
	c->origin = origin;
	c->stream = stream_adopt(d->streams, fd, &site_events, c);
	qnet_session_init(&c->session, d->next_id, stream_peer_address(c->stream), now_ms(d));
	stream_local_address(c->stream, local);
	c->session.local = mem_strdup(local);
	d->next_id += QNET_LOOPS_MAX;
	hash_insert(&d->by_id, &c->by_id, hash_u64(c->session.id));
	list_append(&d->conns, &c->link);
	list_init(&c->corked);
	list_init(&c->paused);
	list_init(&c->entering);
	list_append(&d->entering, &c->entering);
	d->entering_count++;
	c->entered_ms = c->session.heard_ms;
	d->stirred_ms = c->entered_ms;
	d->counters.accepted++;
	d->counters.sessions[QNET_NEW]++;
	deadlines_set(&d->deadlines, &c->deadline, c->session.deadline_ms);
}

static void guest_free(struct qnet_loop *d, struct guest *g)
{
	if (g->fd >= 0) {
		stream_socket_reset(g->fd);
		admission_leave(g->place);
	}
	pool_put(&d->guest_pool, g);
}

/* It has hung up while it waited. */
static bool guest_gone(const struct guest *g)
{
	struct pollfd at = {.fd = g->fd, .events = POLLRDHUP};

	return poll(&at, 1, 0) == 1 && (at.revents & (POLLRDHUP | POLLERR | POLLHUP)) != 0;
}

static void slow_ones_pass(struct qnet_loop *d)
{
	uint64_t now = now_ms(d);

	while (!list_empty(&d->entering)) {
		struct conn *c = list_entry(d->entering.next, struct conn, entering);

		if (now - c->entered_ms < d->on_the_way_ms)
			return;
		conn_arrived(c);
	}
}

/* Lets in as many as can be seen to now. */
static void lobby_open(struct qnet_loop *d)
{
	struct lobby_guest *first;

	if (d->lobby.count == 0)
		return;
	slow_ones_pass(d);
	while (d->entering_count < d->config.window &&
	       stream_group_handshakes(d->streams) < d->config.window &&
	       (first = lobby_next(&d->lobby)) != NULL) {
		struct guest *g = list_entry(first, struct guest, lobby);

		if (!guest_gone(g)) {
			conn_new(d, g->fd, g->place, first->origin);
			g->fd = -1;
		} else {
			lobby_arrived(&d->lobby, first->origin);
		}
		guest_free(d, g);
	}
}

static void pace_look(struct qnet_loop *d)
{
	if (d->lost_count > d->attached_count)
		d->on_the_way_ms = d->on_the_way_ms < ON_THE_WAY_MAX_MS / 2 ? 2 * d->on_the_way_ms
									    : ON_THE_WAY_MAX_MS;
	else if (d->attached_count > 4 * d->lost_count)
		d->on_the_way_ms -= (d->on_the_way_ms - ON_THE_WAY_MS) / 8;
	d->attached_count = 0;
	d->lost_count = 0;
}

static void lobby_look(struct qnet_loop *d)
{
	struct list leaving;

	pace_look(d);
	list_init(&leaving);
	lobby_tick(&d->lobby, now_ms(d), &leaving);
	list_for_each_safe (at, &leaving) {
		d->counters.sent_away++;
		guest_free(d, list_entry(at, struct guest, lobby.link));
	}
	d->counters.waiting = d->lobby.count;
}

static void guests_clear(struct qnet_loop *d)
{
	struct list leaving;

	list_init(&leaving);
	lobby_clear(&d->lobby, &leaving);
	list_for_each_safe (at, &leaving)
		guest_free(d, list_entry(at, struct guest, lobby.link));
}

static void load_tls(struct qnet_loop *d);

static void do_take(struct qnet_loop *d, int fd, struct place *place)
{
	struct guest *g = pool_get(&d->guest_pool);

	g->fd = fd;
	g->place = place;
	/* The loop that listens may have heard of its lease or its keys before this one. */
	if (tls_needed(d) && d->tls[0] == NULL)
		load_tls(d);
	if (may_act(d))
		start_serving(d);
	if (!d->serving || d->shut) {
		guest_free(d, g);
		return;
	}
	lobby_enter(&d->lobby, &g->lobby, admission_origin(place), now_ms(d));
	lobby_open(d);
}

/* A connection that our listener took, for one of the loops. */
static void client_taken(int fd, const struct sockaddr *peer, void *arg)
{
	struct qnet_loop *d = arg;
	struct place *place;
	char why[ADMISSION_WHY];

	if (admission_enter(d->options.admission, peer, &place, why) != 0) {
		d->counters.refused_limit++;
		log_refused(d, peer, why);
		stream_socket_reset(fd);
		return;
	}
	d->options.taken(d->options.arg, fd, place);
}

static int door_listen(struct qnet_loop *d, struct stream_listener **ret, const char **ret_message)
{
	const struct stream_listen how = {
		.address = d->listen, .backlog = QNET_BACKLOG, .taken = client_taken, .arg = d};

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
	LETTER_LEAVE,
	LETTER_TAKE,
	LETTER_STOP
};

struct door_letter {
	struct letter letter;
	struct qnet_loop *loop;
	enum letter_kind kind;
	bool on;
	Tb__DoorOrder **orders;
	size_t count;
	int fd;
	struct place *place;
	struct ip ip;
};

static int id_match(const struct hash_node *node, const void *key)
{
	return list_entry(node, struct conn, by_id)->session.id == *(const uint64_t *)key;
}

static struct conn *conn_find(const struct qnet_loop *d, uint64_t id)
{
	struct hash_node *found = hash_find(&d->by_id, hash_u64(id), id_match, &id);

	return found != NULL ? list_entry(found, struct conn, by_id) : NULL;
}

static void order_apply(struct qnet_loop *d, const Tb__DoorOrder *order)
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

static void do_orders(struct qnet_loop *d, struct door_letter *l)
{
	for (size_t i = 0; i < l->count; i++)
		order_apply(d, l->orders[i]);
	while (!list_empty(&d->corked)) {
		struct conn *c = list_entry(d->corked.next, struct conn, corked);

		list_remove(&c->corked);
		stream_uncork(c->stream);
	}
}

static void do_report(struct qnet_loop *d)
{
	struct qnet_world w = world_now(d);
	Tb__DoorEvent **events;
	size_t count;

	events_flush(d);
	list_for_each (at, &d->conns)
		qnet_session_report(&list_entry(at, struct conn, link)->session, &w, &d->out);
	events = door_events_take(&d->out.events, &count);
	joint_report(d->options.joint, d->options.index, (uint32_t)d->counters.sessions[QNET_OPEN],
		     events, count);
}

static void do_model(struct qnet_loop *d)
{
	d->model_letter = false;
	d->news = true;
	news_step(d);
	if (d->tls[0] == NULL && d->tls_again_ms == 0)
		load_tls(d);
	/* This board may have no battery clock, and a certificate be newer than its last start. */
	for (unsigned ask = 0; d->tls[0] != NULL && ask < 2; ask++)
		tls_context_set_clock_floor(d->tls[ask], atomic_load(&d->up.view->clock_floor_ms));
}

/* Its clients are told by a reset that the address goes. Those in the lobby have said nothing yet.
 */
static void do_leave(struct qnet_loop *d, const struct ip *ip)
{
	list_for_each_safe (at, &d->conns) {
		struct conn *c = list_entry(at, struct conn, link);
		struct ip local;
		uint16_t port;

		if (c->session.state != QNET_CLOSED &&
		    ip_of_text(c->session.local, &local, &port) == 0 && ip_equal(&local, ip))
			conn_abort(c, TB__DOOR_CLOSED__REASON__BY_DOOR);
	}
}

static void do_serve(struct qnet_loop *d, bool on)
{
	d->held = !on;
	if (may_act(d))
		start_serving(d);
}

static void do_admit(struct qnet_loop *d, bool on)
{
	d->shut = !on;
	if (d->shut) {
		close_listener(d);
		guests_clear(d);
	} else if (may_act(d)) {
		start_serving(d);
	}
}

static void handle_closed(uv_handle_t *handle)
{
	(void)handle;
}

static void streams_freed(void *arg)
{
	struct qnet_loop *d = arg;

	events_flush(d);
	mailbox_close(&d->mailbox, NULL);
}

static void do_stop(struct qnet_loop *d)
{
	if (d->listener != NULL)
		stream_listener_close(d->listener);
	d->listener = NULL;
	d->stopping = true;
	d->serving = false;
	guests_clear(d);
	abort_all(d);
	uv_close((uv_handle_t *)&d->tick, handle_closed);
	uv_close((uv_handle_t *)&d->flush, handle_closed);
	stream_group_free(d->streams, streams_freed, d);
}

static void letter_free(struct door_letter *l)
{
	door_orders_free(l->orders, l->count);
	free(l);
}

static void letter_open(struct letter *letter)
{
	struct door_letter *l = list_entry(letter, struct door_letter, letter);
	struct qnet_loop *d = l->loop;

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
	case LETTER_LEAVE:
		do_leave(d, &l->ip);
		break;
	case LETTER_TAKE:
		do_take(d, l->fd, l->place);
		break;
	case LETTER_STOP:
		do_stop(d);
		break;
	}
	letter_free(l);
}

/* Nothing of the core's may be lost while the door lives, so there is no limit to refuse it: what
 * can come is bounded by the sessions. */
static int post(struct qnet_loop *d, struct door_letter what)
{
	struct door_letter *l = mem_dup(&what, sizeof(what));
	int rv;

	l->letter.open = letter_open;
	l->loop = d;
	rv = mailbox_answer(&d->mailbox, &l->letter);
	if (rv != 0)
		letter_free(l);
	return rv;
}

void qnet_loop_orders(struct qnet_loop *loop, Tb__DoorOrder **orders, size_t count)
{
	post(loop, (struct door_letter){.kind = LETTER_ORDERS, .orders = orders, .count = count});
}

void qnet_loop_report(struct qnet_loop *loop)
{
	post(loop, (struct door_letter){.kind = LETTER_REPORT});
}

void qnet_loop_serve(struct qnet_loop *loop, bool on)
{
	post(loop, (struct door_letter){.kind = LETTER_SERVE, .on = on});
}

void qnet_loop_admit(struct qnet_loop *loop, bool on)
{
	post(loop, (struct door_letter){.kind = LETTER_ADMIT, .on = on});
}

void qnet_loop_leave(struct qnet_loop *loop, const struct ip *ip)
{
	post(loop, (struct door_letter){.kind = LETTER_LEAVE, .ip = *ip});
}

void qnet_loop_identity(struct qnet_loop *loop)
{
	post(loop, (struct door_letter){.kind = LETTER_IDENTITY});
}

void qnet_loop_model_changed(struct qnet_loop *loop)
{
	if (!atomic_exchange(&loop->model_letter, true))
		post(loop, (struct door_letter){.kind = LETTER_MODEL});
}

void qnet_loop_take(struct qnet_loop *loop, int fd, struct place *place)
{
	if (post(loop, (struct door_letter){.kind = LETTER_TAKE, .fd = fd, .place = place}) == 0)
		return;
	close(fd);
	admission_leave(place);
}

void qnet_loop_stats(const struct qnet_loop *loop, struct qnet_door_stats *sum)
{
	const struct counters *c = &loop->counters;

	for (unsigned i = 0; i < QNET_STATES; i++)
		sum->sessions[i] += atomic_load(&c->sessions[i]);
	sum->waiting += atomic_load(&c->waiting);
	sum->sent_away += atomic_load(&c->sent_away);
	sum->accepted += atomic_load(&c->accepted);
	sum->refused_limit += atomic_load(&c->refused_limit);
	sum->echoes += atomic_load(&c->echoes);
	sum->silent += atomic_load(&c->silent);
	sum->resumed += atomic_load(&c->resumed);
	sum->certificate_refused += atomic_load(&c->certificate_refused);
	sum->leases_lost += atomic_load(&c->leases_lost);
}

unsigned qnet_loop_port(const struct qnet_loop *loop)
{
	return atomic_load(&loop->port);
}

/* --- start and stop --- */

static void loop_thread(void *arg)
{
	struct qnet_loop *d = arg;

	/* On a board with few cores the core and the front come before the doors: a handshake can
	 * wait, the lease that all sessions hang on cannot. On Linux this is a thread's own. */
	errno = 0;
	(void)!nice(DOOR_NICE);
	uv_run(&d->loop, UV_RUN_DEFAULT);
}

void qnet_loop_join(struct qnet_loop *d)
{
	if (d->running)
		uv_thread_join(&d->thread);
	d->joined |= d->running;
	d->running = false;
}

void qnet_loop_free(struct qnet_loop *d)
{
	int rv;

	if (d == NULL)
		return;
	if (!d->running && !d->joined) {
		do_stop(d);
		uv_run(&d->loop, UV_RUN_DEFAULT);
	}
	qnet_loop_join(d);
	rv = uv_loop_close(&d->loop);
	assert(rv == 0);
	tls_context_free(d->tls[0]);
	tls_context_free(d->tls[1]);
	free(d->tls_chain);
	hash_free(&d->by_id);
	lobby_free(&d->lobby);
	qnet_out_free(&d->out);
	pool_free(&d->conn_pool);
	pool_free(&d->guest_pool);
	free(d->listen);
	if (d->up.stopped != NULL)
		d->up.stopped(d->up.arg);
	free(d);
}

int qnet_loop_probe(struct qnet_loop *loop, const char **ret_message)
{
	struct stream_listener *probe;
	int rv = door_listen(loop, &probe, ret_message);

	if (rv == 0)
		stream_listener_close(probe);
	return rv;
}

struct qnet_loop *qnet_loop_new(const struct qnet_loop_options *options)
{
	struct qnet_loop *d = mem_zalloc(sizeof(*d));
	uint64_t boot = rng_u64();
	int rv;

	d->options = *options;
	d->config = *options->config;
	if (d->config.window == 0)
		d->config.window = WINDOW_DEFAULT;
	d->up = *options->upcalls;
	d->listen = options->taken != NULL ? mem_strdup(d->config.listen) : NULL;
	d->seen_ms = now_ms(d);
	d->log_credit = LOG_BURST;
	d->log_credit_ms = d->seen_ms;
	/* The top bit is for agents (proto/door.proto). */
	d->next_id = ((boot >> 1) & ~(uint64_t)UINT32_MAX) + QNET_LOOPS_MAX + options->index;
	list_init(&d->conns);
	pool_init(&d->conn_pool, sizeof(struct conn));
	pool_init(&d->guest_pool, sizeof(struct guest));
	d->sweep = &d->conns;
	list_init(&d->corked);
	list_init(&d->paused);
	list_init(&d->entering);
	d->on_the_way_ms = ON_THE_WAY_MS;
	lobby_init(&d->lobby, boot, d->config.window);
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
	return d;
}

void qnet_loop_start(struct qnet_loop *d)
{
	int rv;

	uv_timer_start(&d->tick, door_tick, TICK_MS, TICK_MS);
	uv_prepare_start(&d->flush, flush_turn);
	rv = uv_thread_create(&d->thread, loop_thread, d);
	assert(rv == 0);
	d->running = true;
}

void qnet_loop_stop(struct qnet_loop *loop)
{
	if (loop->running)
		post(loop, (struct door_letter){.kind = LETTER_STOP});
}
