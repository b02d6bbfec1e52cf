#include "witnessd/agent_door.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/alarm.h"
#include "cluster/limits.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/list.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/rng.h"
#include "witnessd/core.h"
#include "witnessd/deadlines.h"
#include "witnessd/metrics.h"

enum {
	TICK_MS = 100,
	QUEUE_BYTES_MAX = 64 << 10, /* of an agent that does not take its answers */
	SWEEP_STEP = 400, /* sessions looked up per tick after a change of the model */
	RTT_STEP = 20, /* sessions measured per tick */
	EVENT_BATCH = 1024,
	/* The one that serves, one that its restarted agent makes, and as many that died on a bad
	 * way: otherwise one certificate could take every place. */
	NODE_SESSIONS_MAX = 4,
	WHY_TEXT = 256,
};

/* A node of a site, whoever shows a certificate of it. */
struct agent_node {
	struct hash_node link;
	struct list conns; /* not closed, oldest first; never empty */
	unsigned count;
};

struct conn {
	struct agent_session session;
	struct agent_door *door;
	struct stream *stream;
	struct deadline deadline;
	struct hash_node by_id;
	struct list link; /* in door->conns */
	struct list of_node; /* in node->conns */
	struct agent_node *node; /* NULL once closed */
	uint64_t issuer; /* of its certificate (tls_peer) */
};

struct counters {
	_Atomic uint64_t sessions;
	_Atomic uint64_t accepted;
	_Atomic uint64_t refused;
	_Atomic uint64_t renewals;
	_Atomic uint64_t silent;
};

struct agent_door {
	struct agent_door_upcalls up;
	struct mailbox *home;
	unsigned sessions_max;
	uv_timer_t tick;
	uv_prepare_t flush;
	unsigned open_handles;
	void (*closed)(void *arg);
	void *closed_arg;
	bool closing;
	bool held; /* the core said: do not serve */
	uint64_t seen_ms; /* the loop turned last */
	uint64_t next_id;
	struct list conns;
	unsigned conn_count;
	bool model_changed; /* and was not looked at yet */
	struct list *sweep; /* of conns: where looking them up goes on; the head: at the first */
	unsigned sweep_left; /* to be looked up */
	struct list *rtt; /* of conns: whose round trip is looked at next; the head: the first */
	struct hash by_id;
	struct hash nodes; /* struct agent_node */
	struct deadlines deadlines;
	struct agent_out out; /* events for the core are collected here; its wire is reused */
	struct counters counters;
};

static uint64_t now_ms(const struct agent_door *d)
{
	return d->up.clock_ms != NULL ? d->up.clock_ms(d->up.arg) : clock_boottime_ms();
}

static struct agent_world world_now(struct agent_door *d)
{
	return (struct agent_world){.board = atomic_load(&d->up.view->node_id),
				    .board_name = d->up.board_name(d->up.arg),
				    .now_ms = now_ms(d),
				    .real_ms = clock_realtime_ms()};
}

static void log_agent(const struct conn *c, const char *event, const char *why)
{
	log_notice(event, "site %s, agent of node %u at %s: %s", c->session.site, c->session.node,
		   c->session.address, why);
}

/* --- events to the core --- */

static void events_flush(struct agent_door *d)
{
	Tb__DoorEvent **events;
	size_t count;

	if (d->out.events.count == 0)
		return;
	events = door_events_take(&d->out.events, &count);
	d->up.events(d->up.arg, events, count);
}

static void flush_turn(uv_prepare_t *prepare)
{
	events_flush(prepare->data);
}

/* --- the connections of a node --- */

struct node_key {
	const char *site;
	uint32_t node;
};

static int node_match(const struct hash_node *link, const void *key)
{
	const struct agent_node *n = list_entry(link, struct agent_node, link);
	const struct conn *c = list_entry(n->conns.next, struct conn, of_node);
	const struct node_key *k = key;

	return c->session.node == k->node && strcmp(c->session.site, k->site) == 0;
}

static uint64_t node_hash(const struct node_key *k)
{
	return hash_string(k->site) ^ hash_u64(k->node);
}

static struct agent_node *node_find(const struct agent_door *d, const struct node_key *k)
{
	struct hash_node *found = hash_find(&d->nodes, node_hash(k), node_match, k);

	return found != NULL ? list_entry(found, struct agent_node, link) : NULL;
}

static void node_enter(struct agent_door *d, struct conn *c)
{
	const struct node_key key = {c->session.site, c->session.node};
	struct agent_node *n = node_find(d, &key);

	if (n == NULL) {
		n = mem_zalloc(sizeof(*n));
		list_init(&n->conns);
		hash_insert(&d->nodes, &n->link, node_hash(&key));
	}
	list_append(&n->conns, &c->of_node);
	n->count++;
	c->node = n;
}

static void node_leave(struct agent_door *d, struct conn *c)
{
	struct agent_node *n = c->node;

	if (n == NULL)
		return;
	c->node = NULL;
	list_remove(&c->of_node);
	if (--n->count != 0)
		return;
	hash_remove(&d->nodes, &n->link);
	free(n);
}

/* --- one connection --- */

static void conn_close_session(struct conn *c, Tb__DoorClosed__Reason reason)
{
	struct agent_door *d = c->door;

	if (c->session.state == AGENT_OPEN)
		d->counters.sessions--;
	agent_session_close(&c->session, reason, now_ms(d), &d->out);
	deadlines_remove(&c->deadline);
	node_leave(d, c);
}

static void conn_abort(struct conn *c, Tb__DoorClosed__Reason reason)
{
	conn_close_session(c, reason);
	stream_abort(c->stream);
}

/* Carries out what the session gave out (in door->out). */
static void conn_apply(struct conn *c, enum agent_state before, enum agent_verdict verdict)
{
	struct agent_door *d = c->door;
	struct agent_out *out = &d->out;

	if (before != AGENT_OPEN && c->session.state == AGENT_OPEN)
		d->counters.sessions++;
	if (out->why != NULL)
		log_agent(c, "agent-closed", out->why);
	if (verdict != AGENT_ABORT && out->wire.len != 0 &&
	    stream_write(c->stream, out->wire.data, out->wire.len) > QUEUE_BYTES_MAX)
		verdict = AGENT_ABORT;
	if (verdict == AGENT_ABORT) {
		conn_abort(c, TB__DOOR_CLOSED__REASON__BY_DOOR);
	} else if (verdict == AGENT_CLOSE) {
		conn_close_session(c, TB__DOOR_CLOSED__REASON__BY_DOOR);
		stream_close(c->stream);
	} else {
		deadlines_set(&d->deadlines, &c->deadline, c->session.deadline_ms);
	}
	d->counters.renewals += out->renewals;
	out->renewals = 0;
	out->why = NULL;
	buf_clear(&out->wire);
	if (out->events.count >= EVENT_BATCH)
		events_flush(d);
}

static uint64_t conn_overdue(struct deadline *item, void *arg)
{
	struct conn *c = list_entry(item, struct conn, deadline);
	struct agent_door *d = arg;
	bool open = c->session.state == AGENT_OPEN;

	if (c->session.deadline_ms > now_ms(d))
		return c->session.deadline_ms;
	d->counters.silent += open;
	log_agent(c, "agent-silent",
		  open ? "nothing heard for a whole lease" : "it never said who it is");
	conn_abort(c, open ? TB__DOOR_CLOSED__REASON__SILENT : TB__DOOR_CLOSED__REASON__BY_DOOR);
	return 0;
}

/* --- the lease --- */

/* May anything be said to agents at this moment? If not, it is over with all of them. */
static bool may_act(struct agent_door *d)
{
	uint64_t now = now_ms(d);
	bool frozen = now - d->seen_ms > LEASE_LENGTH_MS;

	d->seen_ms = now;
	if (!frozen && !d->held && now < atomic_load(&d->up.view->lease_until_ms))
		return true;
	list_for_each_safe (at, &d->conns) {
		struct conn *c = list_entry(at, struct conn, link);

		if (c->session.state != AGENT_CLOSED)
			conn_abort(c, TB__DOOR_CLOSED__REASON__BY_DOOR);
	}
	return false;
}

/* The next one round the ring of conns, NULL: there are none. *at is where to go on. */
static struct conn *conn_next(struct agent_door *d, struct list **at)
{
	struct list *found = *at != &d->conns ? *at : d->conns.next;

	if (found == &d->conns)
		return NULL;
	*at = found->next;
	return list_entry(found, struct conn, link);
}

/* A change that concerns open sessions is followed up some sessions per tick, since each costs a
 * look into the model. It goes once round from where it is, not from the start: changes may come
 * faster than it. */
static void sweep_step(struct agent_door *d)
{
	if (d->model_changed) {
		int rv = d->up.concerns(d->up.arg);

		d->model_changed = rv < 0;
		if (rv > 0)
			d->sweep_left = d->conn_count;
	}
	for (unsigned i = 0; i < SWEEP_STEP && d->sweep_left != 0; i++) {
		struct list *here = d->sweep;
		struct conn *c = conn_next(d, &d->sweep);
		int rv = 0;

		if (c != NULL && c->session.state != AGENT_CLOSED)
			rv = d->up.revoked(d->up.arg, c->session.serial, c->issuer);
		if (rv < 0) { /* it is looked up at the next tick */
			d->sweep = here;
			return;
		}
		d->sweep_left--;
		if (rv == 0)
			continue;
		log_agent(c, "agent-closed",
			  "its certificate was revoked, or is of a CA that is believed no more");
		conn_abort(c, TB__DOOR_CLOSED__REASON__BY_DOOR);
	}
}

void agent_door_model_changed(struct agent_door *d)
{
	d->model_changed = true;
}

/* Some sessions per tick: is the round trip near the time in which an answer must come? Said when
 * that begins and when it is over. */
static void rtt_step(struct agent_door *d)
{
	for (unsigned i = 0; i < RTT_STEP && i < d->conn_count; i++) {
		struct conn *c = conn_next(d, &d->rtt);
		struct agent_session *s;
		unsigned rtt_ms;
		bool late;

		if (c == NULL || c->session.state != AGENT_OPEN)
			continue;
		s = &c->session;
		rtt_ms = stream_rtt_ms(c->stream);
		late = alarm_late(rtt_ms, s->lease_ms / LEASE_ANSWER_PARTS, s->rtt_ms != 0);
		if (late == (s->rtt_ms != 0))
			continue;
		s->rtt_ms = late ? rtt_ms : 0;
		door_events_rtt(&d->out.events, s->id, s->rtt_ms);
	}
}

static void door_tick(uv_timer_t *timer)
{
	struct agent_door *d = timer->data;

	if (!may_act(d))
		return;
	deadlines_pass(&d->deadlines, now_ms(d), conn_overdue, d);
	sweep_step(d);
	rtt_step(d);
}

/* --- the stream's side --- */

static void on_data(struct stream *s, const uint8_t *bytes, size_t len)
{
	struct conn *c = stream_arg(s);
	struct agent_door *d = c->door;
	enum agent_state before = c->session.state;
	struct agent_world w;

	if (before == AGENT_CLOSED || !may_act(d))
		return;
	w = world_now(d);
	conn_apply(c, before, agent_session_receive(&c->session, &w, bytes, len, &d->out));
}

static void on_closed(struct stream *s, enum stream_end how, const char *detail)
{
	struct conn *c = stream_arg(s);
	struct agent_door *d = c->door;

	(void)detail;
	if (c->session.state != AGENT_CLOSED)
		conn_close_session(c, how == STREAM_END_PEER || how == STREAM_END_RESET
					      ? TB__DOOR_CLOSED__REASON__BY_CLIENT
					      : TB__DOOR_CLOSED__REASON__BY_DOOR);
	if (d->sweep == &c->link)
		d->sweep = c->link.next;
	if (d->rtt == &c->link)
		d->rtt = c->link.next;
	hash_remove(&d->by_id, &c->by_id);
	list_remove(&c->link);
	d->conn_count--;
	agent_session_free(&c->session);
	free(c);
}

static const struct stream_events agent_events = {.data = on_data, .closed = on_closed};

static void nobody_data(struct stream *s, const uint8_t *bytes, size_t len)
{
	(void)s;
	(void)bytes;
	(void)len;
}

static void nobody_closed(struct stream *s, enum stream_end end, const char *detail)
{
	(void)s;
	(void)end;
	(void)detail;
}

static const struct stream_events nobody_events = {.data = nobody_data, .closed = nobody_closed};

/* Why no more agents are taken. */
static const char *limit_text(const struct agent_door *d, char text[WHY_TEXT])
{
	snprintf(text, WHY_TEXT,
		 "%u agents are attached already: no more are taken (sites.sessions-max, and the "
		 "limit of open files)",
		 d->sessions_max);
	return text;
}

/* One more of this node? The oldest that never said who it is makes room. Those that did are the
 * arbiter's to close: it knows which of them the agent has left. */
static bool node_has_room(struct agent_door *d, const char *site, uint32_t node)
{
	const struct node_key key = {site, node};
	struct agent_node *n = node_find(d, &key);

	if (n == NULL || n->count < NODE_SESSIONS_MAX)
		return true;
	list_for_each (at, &n->conns) {
		struct conn *c = list_entry(at, struct conn, of_node);

		if (c->session.state != AGENT_NEW)
			continue;
		log_agent(c, "agent-closed", "it never said who it is, and others came after it");
		conn_abort(c, TB__DOOR_CLOSED__REASON__BY_DOOR);
		return true;
	}
	return false;
}

static const char *node_limit_text(const char *site, uint32_t node, char text[WHY_TEXT])
{
	snprintf(text, WHY_TEXT,
		 "node %u of site %s has %u connections already; is its certificate "
		 "on two machines?",
		 node, site, NODE_SESSIONS_MAX);
	return text;
}

static void turn_away(struct agent_door *d, struct stream *s, const char *why)
{
	d->counters.refused++;
	log_notice("agent-refused", "%s: %s", stream_peer_address(s), why);
	stream_set_events(s, &nobody_events, NULL);
	stream_abort(s);
}

static const char *certificate_problem(struct agent_door *d, const struct tls_peer *peer,
				       char **ret_site, uint32_t *ret_node)
{
	int revoked;

	if (!peer->present || agent_uri_parse(peer->uri, ret_site, ret_node) != 0)
		return "it has no certificate of an agent";
	revoked = d->up.revoked(d->up.arg, peer->serial, peer->issuer);
	if (revoked != 0)
		return revoked > 0 ? "its certificate was revoked, or is of a CA that is believed "
				     "no more"
				   : "the model cannot be read";
	return NULL;
}

void agent_door_adopt(struct agent_door *d, struct stream *s)
{
	struct tls_peer peer;
	const char *why;
	char *site = NULL;
	uint32_t node = 0;
	char local[ADDRESS_TEXT];
	char limit[WHY_TEXT];
	struct conn *c;

	tls_session_peer(stream_tls(s), &peer);
	why = certificate_problem(d, &peer, &site, &node);
	if (why == NULL && d->conn_count >= d->sessions_max)
		why = limit_text(d, limit);
	if (why == NULL && atomic_load(&d->up.view->drained))
		why = "this board is drained";
	if (why == NULL && (d->closing || !may_act(d)))
		why = "this board has no lease";
	if (why == NULL && !node_has_room(d, site, node))
		why = node_limit_text(site, node, limit);
	if (why != NULL) {
		turn_away(d, s, why);
		free(site);
		return;
	}
	c = mem_zalloc(sizeof(*c));
	c->door = d;
	c->stream = s;
	c->issuer = peer.issuer;
	agent_session_init(&c->session, d->next_id++, site, node, peer.serial,
			   stream_peer_address(s), now_ms(d));
	stream_local_address(s, local);
	c->session.local = mem_strdup(local);
	free(site);
	hash_insert(&d->by_id, &c->by_id, hash_u64(c->session.id));
	list_append(&d->conns, &c->link);
	node_enter(d, c);
	d->conn_count++;
	d->counters.accepted++;
	deadlines_set(&d->deadlines, &c->deadline, c->session.deadline_ms);
	stream_set_events(s, &agent_events, c);
}

/* --- letters --- */

enum letter_kind { LETTER_ORDERS, LETTER_REPORT, LETTER_SERVE, LETTER_LEAVE };

struct door_letter {
	struct letter letter;
	struct agent_door *door;
	enum letter_kind kind;
	bool on;
	Tb__DoorOrder **orders;
	size_t count;
	struct ip ip;
};

static int id_match(const struct hash_node *node, const void *key)
{
	return list_entry(node, struct conn, by_id)->session.id == *(const uint64_t *)key;
}

static void order_apply(struct agent_door *d, const Tb__DoorOrder *order)
{
	struct hash_node *found =
		hash_find(&d->by_id, hash_u64(order->session), id_match, &order->session);
	struct conn *c = found != NULL ? list_entry(found, struct conn, by_id) : NULL;
	enum agent_state before;
	struct agent_world w;

	if (c == NULL || c->session.state == AGENT_CLOSED || !may_act(d))
		return;
	before = c->session.state;
	w = world_now(d);
	conn_apply(c, before, agent_session_order(&c->session, &w, order, &d->out));
}

static void do_report(struct agent_door *d)
{
	struct agent_world w = world_now(d);

	agent_out_reset(&d->out, (uint32_t)d->counters.sessions);
	list_for_each (at, &d->conns) {
		agent_session_report(&list_entry(at, struct conn, link)->session, &w, &d->out);
		if (d->out.events.count >= EVENT_BATCH)
			events_flush(d);
	}
	events_flush(d);
}

static void do_leave(struct agent_door *d, const struct ip *ip)
{
	list_for_each_safe (at, &d->conns) {
		struct conn *c = list_entry(at, struct conn, link);
		struct ip local;
		uint16_t port;

		if (ip_of_text(c->session.local, &local, &port) == 0 && ip_equal(&local, ip))
			conn_abort(c, TB__DOOR_CLOSED__REASON__BY_DOOR);
	}
}

static void letter_free(struct door_letter *l)
{
	door_orders_free(l->orders, l->count);
	free(l);
}

static void letter_open(struct letter *letter)
{
	struct door_letter *l = list_entry(letter, struct door_letter, letter);
	struct agent_door *d = l->door;

	switch (l->kind) {
	case LETTER_ORDERS:
		for (size_t i = 0; i < l->count; i++)
			order_apply(d, l->orders[i]);
		break;
	case LETTER_REPORT:
		do_report(d);
		break;
	case LETTER_LEAVE:
		do_leave(d, &l->ip);
		break;
	case LETTER_SERVE:
		d->held = !l->on;
		may_act(d);
		break;
	}
	letter_free(l);
}

/* Nothing of the core's may be lost while the door lives, so there is no limit to refuse it: what
 * can come is bounded by the sessions. */
static void post(struct agent_door *d, struct door_letter what)
{
	struct door_letter *l = mem_dup(&what, sizeof(what));

	l->letter.open = letter_open;
	l->door = d;
	if (mailbox_answer(d->home, &l->letter) != 0)
		letter_free(l);
}

void agent_door_orders(struct agent_door *d, Tb__DoorOrder **orders, size_t count)
{
	post(d, (struct door_letter){.kind = LETTER_ORDERS, .orders = orders, .count = count});
}

void agent_door_leave(struct agent_door *d, const struct ip *ip)
{
	post(d, (struct door_letter){.kind = LETTER_LEAVE, .ip = *ip});
}

void agent_door_report(struct agent_door *d)
{
	post(d, (struct door_letter){.kind = LETTER_REPORT});
}

void agent_door_serve(struct agent_door *d, bool on)
{
	post(d, (struct door_letter){.kind = LETTER_SERVE, .on = on});
}

/* --- numbers --- */

void agent_door_stats(const struct agent_door *d, struct agent_door_stats *ret)
{
	ret->sessions = atomic_load(&d->counters.sessions);
	ret->accepted = atomic_load(&d->counters.accepted);
	ret->refused = atomic_load(&d->counters.refused);
	ret->renewals = atomic_load(&d->counters.renewals);
	ret->silent = atomic_load(&d->counters.silent);
}

static void counter(struct buf *out, bool open, const char *name, const char *help, uint64_t value)
{
	metrics_head(out, open, METRIC_COUNTER, name, help);
	metrics_sample(out, open, METRIC_COUNTER, name, "", (double)value);
}

void agent_door_metrics(void *door, bool open, struct buf *out)
{
	struct agent_door_stats s;

	agent_door_stats(door, &s);
	metrics_head(out, open, METRIC_GAUGE, "tiebreak_agents", "Agents attached to this board.");
	metrics_sample(out, open, METRIC_GAUGE, "tiebreak_agents", "", (double)s.sessions);
	counter(out, open, "tiebreak_agents_accepted", "Connections of agents accepted.",
		s.accepted);
	counter(out, open, "tiebreak_agents_refused",
		"Connections of agents sent away for their certificate or their number.",
		s.refused);
	counter(out, open, "tiebreak_agents_renewals", "Renewals answered.", s.renewals);
	counter(out, open, "tiebreak_agents_silent", "Agents given up for their silence.",
		s.silent);
}

/* --- life --- */

struct agent_door *agent_door_new(uv_loop_t *loop, struct mailbox *home, unsigned sessions_max,
				  const struct agent_door_upcalls *upcalls)
{
	struct agent_door *d = mem_zalloc(sizeof(*d));
	uint32_t boot;

	d->up = *upcalls;
	d->home = home;
	d->sessions_max = sessions_max;
	d->seen_ms = now_ms(d);
	rng_fill(&boot, sizeof(boot));
	d->next_id = (uint64_t)(boot >> 1) << 32 | 1;
	list_init(&d->conns);
	d->sweep = &d->conns;
	d->rtt = &d->conns;
	deadlines_init(&d->deadlines, d->seen_ms);
	uv_timer_init(loop, &d->tick);
	uv_prepare_init(loop, &d->flush);
	d->tick.data = d;
	d->flush.data = d;
	d->open_handles = 2;
	uv_timer_start(&d->tick, door_tick, TICK_MS, TICK_MS);
	uv_prepare_start(&d->flush, flush_turn);
	return d;
}

static void handle_closed(uv_handle_t *handle)
{
	struct agent_door *d = handle->data;

	if (--d->open_handles == 0)
		d->closed(d->closed_arg);
}

void agent_door_close(struct agent_door *d, void (*closed)(void *arg), void *arg)
{
	d->closing = true;
	d->held = true;
	d->closed = closed;
	d->closed_arg = arg;
	may_act(d);
	events_flush(d);
	uv_close((uv_handle_t *)&d->tick, handle_closed);
	uv_close((uv_handle_t *)&d->flush, handle_closed);
}

void agent_door_free(struct agent_door *d)
{
	if (d == NULL)
		return;
	assert(list_empty(&d->conns));
	hash_free(&d->by_id);
	hash_free(&d->nodes);
	agent_out_free(&d->out);
	free(d);
}
