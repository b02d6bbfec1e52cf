#include "cluster/fleet.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/fleet_site.h"
#include "lib/mem.h"

/* Error codes of QNet that the arbiter gives (the door passes them on as they are). */
enum {
	QNET_TLS_REQUIRED = 3,
	QNET_DECODE = 9,
	QNET_INTERNAL = 10,
	QNET_ALGORITHM_UNSUPPORTED = 12,
	QNET_HEARTBEAT = 13,
	QNET_UNSUPPORTED_BY_ALGORITHM = 14,
	QNET_TIE_BREAKER_DIFFERS = 15,
	QNET_ALGORITHM_DIFFERS = 16,
	QNET_DUPLICATE_NODE = 17,
	QNET_INVALID_CONFIG = 18,
	QNET_INVALID_MEMBERSHIP = 19,
};

struct order {
	struct list link;
	uint64_t door;
	Tb__DoorOrder *order;
};

struct command {
	struct list link;
	Tb__Command *command;
};

/* --- life --- */

struct fleet *fleet_new(const struct fleet_model *model, uint64_t term, uint64_t lease_ms,
			uint64_t now_ms)
{
	struct fleet *f = mem_zalloc(sizeof(*f));

	f->model = *model;
	f->term = term;
	f->lease_ms = lease_ms;
	f->unknown_until_ms = now_ms + lease_ms;
	f->now_ms = now_ms;
	/* Tickets of different leaders differ, so that a late answer cannot confirm the wrong one.
	 */
	f->ticket = term << 40;
	list_init(&f->doors);
	list_init(&f->orders);
	list_init(&f->commands);
	if (FLEET_FAULTY(FLEET_FAULT_IGNORE_LEASE))
		f->unknown_until_ms = now_ms;
	return f;
}

void fleet_hold(struct fleet *f, uint64_t votes_until_ms, uint64_t leases_until_ms)
{
	f->hold_votes_until_ms = votes_until_ms;
	f->hold_leases_until_ms = leases_until_ms;
}

static void door_drop(struct fleet *f, struct door *d)
{
	while (!list_empty(&d->sessions))
		session_end(f, list_entry(d->sessions.next, struct session, of_door), 0,
			    GONE_CLOSED);
	list_remove(&d->link);
	free(d);
}

static void fleet_free_site(struct hash_node *node, void *arg)
{
	site_free(arg, list_entry(node, struct site, by_name));
}

void fleet_free(struct fleet *f)
{
	Tb__DoorOrder *order;
	Tb__Command *command;
	uint64_t door;

	if (f == NULL)
		return;
	while (!list_empty(&f->doors))
		door_drop(f, list_entry(f->doors.next, struct door, link));
	hash_each(&f->sites, fleet_free_site, f);
	while ((order = fleet_next_order(f, &door)) != NULL)
		tb__door_order__free_unpacked(order, NULL);
	while ((command = fleet_next_command(f)) != NULL)
		tb__command__free_unpacked(command, NULL);
	hash_free(&f->sites);
	hash_free(&f->site_ids);
	hash_free(&f->sessions);
	due_heap_free(&f->due);
	free(f);
}

static void fleet_now(struct fleet *f, uint64_t now_ms)
{
	if (now_ms > f->now_ms)
		f->now_ms = now_ms;
}

/* --- what goes out --- */

Tb__DoorOrder *fleet_order(struct fleet *f, const struct session *s)
{
	struct order *o = mem_zalloc(sizeof(*o));

	o->door = s->door;
	o->order = mem_alloc(sizeof(*o->order));
	tb__door_order__init(o->order);
	o->order->session = s->id;
	list_append(&f->orders, &o->link);
	return o->order;
}

Tb__DoorOrder *fleet_next_order(struct fleet *f, uint64_t *ret_door)
{
	struct order *o;
	Tb__DoorOrder *order;

	if (list_empty(&f->orders))
		return NULL;
	o = list_entry(f->orders.next, struct order, link);
	list_remove(&o->link);
	order = o->order;
	*ret_door = o->door;
	free(o);
	return order;
}

void fleet_command(struct fleet *f, Tb__Command *command)
{
	struct command *c = mem_zalloc(sizeof(*c));

	c->command = command;
	list_append(&f->commands, &c->link);
}

Tb__Command *fleet_next_command(struct fleet *f)
{
	struct command *c;
	Tb__Command *command;

	if (list_empty(&f->commands))
		return NULL;
	c = list_entry(f->commands.next, struct command, link);
	list_remove(&c->link);
	command = c->command;
	free(c);
	return command;
}

static void order_init_reply(struct fleet *f, const struct session *s, uint32_t seq, uint32_t error,
			     const char *why)
{
	Tb__DoorOrder *order = fleet_order(f, s);

	order->what_case = TB__DOOR_ORDER__WHAT_INIT_REPLY;
	order->init_reply = mem_alloc(sizeof(*order->init_reply));
	tb__door_init_reply__init(order->init_reply);
	order->init_reply->seq = seq;
	order->init_reply->error = error;
	order->init_reply->why = mem_strdup(why);
}

static void order_refuse(struct fleet *f, const struct session *s, uint32_t seq, uint32_t error)
{
	Tb__DoorOrder *order = fleet_order(f, s);

	order->what_case = TB__DOOR_ORDER__WHAT_REFUSE;
	order->refuse = mem_alloc(sizeof(*order->refuse));
	tb__door_refuse__init(order->refuse);
	order->refuse->seq = seq;
	order->refuse->error = error;
}

static void order_close(struct fleet *f, const struct session *s, const char *why)
{
	Tb__DoorOrder *order = fleet_order(f, s);

	order->what_case = TB__DOOR_ORDER__WHAT_CLOSE;
	order->close = mem_alloc(sizeof(*order->close));
	tb__door_close__init(order->close);
	order->close->why = mem_strdup(why);
}

static Tb__RingId *ring_message(const struct arbiter_ring *ring)
{
	Tb__RingId *m = mem_alloc(sizeof(*m));

	tb__ring_id__init(m);
	m->node = ring->node;
	m->seq = ring->seq;
	return m;
}

/* Answers that make the client stop voting until it hears more. */
static void session_answered(struct session *s, Tb__Vote vote)
{
	s->vote = (uint8_t)vote;
	if (vote == TB__VOTE__VOTE_ASK_LATER || vote == TB__VOTE__VOTE_WAIT_FOR_REPLY)
		s->stands = false;
}

static Tb__DoorListReply *order_list_reply(struct fleet *f, struct session *s,
					   const Tb__DoorList *list, Tb__Vote vote)
{
	Tb__DoorOrder *order = fleet_order(f, s);

	order->what_case = TB__DOOR_ORDER__WHAT_LIST_REPLY;
	order->list_reply = mem_alloc(sizeof(*order->list_reply));
	tb__door_list_reply__init(order->list_reply);
	order->list_reply->seq = list->seq;
	order->list_reply->kind = list->kind;
	order->list_reply->ring = ring_message(&s->ring);
	order->list_reply->vote = vote;
	session_answered(s, vote);
	return order->list_reply;
}

static void order_ask_reply(struct fleet *f, struct session *s, uint32_t seq, Tb__Vote vote)
{
	Tb__DoorOrder *order = fleet_order(f, s);

	order->what_case = TB__DOOR_ORDER__WHAT_ASK_REPLY;
	order->ask_reply = mem_alloc(sizeof(*order->ask_reply));
	tb__door_ask_reply__init(order->ask_reply);
	order->ask_reply->seq = seq;
	order->ask_reply->ring = ring_message(&s->ring);
	order->ask_reply->vote = vote;
	session_answered(s, vote);
}

static void order_heuristics_reply(struct fleet *f, struct session *s,
				   const Tb__DoorHeuristics *change, Tb__Vote vote)
{
	Tb__DoorOrder *order = fleet_order(f, s);
	Tb__DoorHeuristicsReply *reply = mem_alloc(sizeof(*reply));

	tb__door_heuristics_reply__init(reply);
	reply->seq = change->seq;
	reply->ring = ring_message(&s->ring);
	reply->vote = vote;
	reply->heuristics = change->heuristics;
	order->what_case = TB__DOOR_ORDER__WHAT_HEURISTICS_REPLY;
	order->heuristics_reply = reply;
	session_answered(s, vote);
}

/* --- doors and sessions --- */

static struct door *door_find(const struct fleet *f, uint64_t id)
{
	list_for_each (at, &f->doors) {
		struct door *d = list_entry(at, struct door, link);

		if (d->id == id)
			return d;
	}
	return NULL;
}

static struct door *door_open(struct fleet *f, uint64_t id)
{
	struct door *d = door_find(f, id);

	if (d != NULL)
		return d;
	d = mem_zalloc(sizeof(*d));
	d->id = id;
	list_init(&d->sessions);
	list_append(&f->doors, &d->link);
	return d;
}

struct session_key {
	uint64_t door;
	uint64_t id;
};

static uint64_t session_hash(const struct session_key *key)
{
	return hash_bytes(key, sizeof(*key));
}

static int session_match(const struct hash_node *node, const void *key)
{
	const struct session *s = list_entry(node, struct session, by_id);
	const struct session_key *k = key;

	return s->door == k->door && s->id == k->id;
}

static struct session *session_find(const struct fleet *f, uint64_t door, uint64_t id)
{
	struct session_key key = {door, id};
	struct hash_node *n = hash_find(&f->sessions, session_hash(&key), session_match, &key);

	return n ? list_entry(n, struct session, by_id) : NULL;
}

/* In the index, of the door and of the site; neither attached nor held yet. */
static struct session *session_new(struct fleet *f, uint64_t door, uint64_t id, struct site *site)
{
	struct session *s = mem_zalloc(sizeof(*s));
	struct session_key key = {door, id};

	s->door = door;
	s->id = id;
	s->site = site;
	list_init(&s->of_site);
	list_append(&door_open(f, door)->sessions, &s->of_door);
	hash_insert(&f->sessions, &s->by_id, session_hash(&key));
	return s;
}

/* What INIT or a report says of the node. The lists of a report that are out of bounds count as
 * not told. */
static void session_describe(struct session *s, const Tb__SiteNode *n, const struct fleet *f)
{
	uint16_t port;

	s->attached_at_ms = f->now_ms;
	s->attached_ms = n->attached_ms;
	s->address = mem_strdup(n->address);
	if (ip_of_text(n->local, &s->local, &port) != 0)
		s->local = (struct ip){0};
	s->node_id = n->node_id;
	s->heartbeat_ms = n->heartbeat_ms;
	s->rtt_ms = n->rtt_ms;
	s->algorithm = (uint8_t)n->algorithm;
	s->tie_breaker = (uint8_t)n->tie_breaker;
	s->tie_breaker_node = n->tie_breaker_node;
	s->tls = n->tls;
	s->certificate = n->certificate;
	s->keep_active = n->keep_active_partition;
	s->agent = n->algorithm == TB__ALGORITHM__ALGORITHM_LEASE;
	if (n->ring != NULL)
		s->ring = (struct arbiter_ring){n->ring->node, n->ring->seq};
}

static void session_attach(struct fleet *f, struct session *s, struct member *m)
{
	m->session = s;
	s->site->attached++;
	f->session_count++;
}

/* --- INIT --- */

/* One attached node of the site, to compare with. */
static const struct session *site_other(const struct site *s)
{
	for (unsigned i = 0; i < s->member_count; i++) {
		if (s->members[i].session != NULL)
			return s->members[i].session;
	}
	return NULL;
}

static bool tie_breaker_differs(const Tb__SiteNode *n, unsigned mode, uint32_t node)
{
	return n->tie_breaker != mode ||
	       (mode == TB__TIE_BREAKER__TIE_BREAKER_NODE && n->tie_breaker_node != node);
}

static uint32_t open_policy(const Tb__SitePolicy *p, const Tb__SiteNode *n, const char **ret_why)
{
	uint32_t min = p->heartbeat_min_ms ? p->heartbeat_min_ms : HEARTBEAT_MIN_MS;
	uint32_t max = p->heartbeat_max_ms ? p->heartbeat_max_ms : HEARTBEAT_MAX_MS;

	if (p->tls == TB__TLS__TLS_REQUIRED && !(n->tls && n->certificate)) {
		*ret_why = "the site requires TLS with a client certificate";
		return QNET_TLS_REQUIRED;
	}
	if (n->heartbeat_ms < min || n->heartbeat_ms > max) {
		*ret_why = "the heartbeat interval is outside the site's policy";
		return QNET_HEARTBEAT;
	}
	if (n->algorithm == TB__ALGORITHM__ALGORITHM_ANY ||
	    n->algorithm > TB__ALGORITHM__ALGORITHM_2NODELMS) {
		*ret_why = "the algorithm is not offered (ffsplit, lms and 2nodelms are)";
		return QNET_ALGORITHM_UNSUPPORTED;
	}
	if (p->tie_breaker != TB__TIE_BREAKER__TIE_BREAKER_ANY &&
	    tie_breaker_differs(n, p->tie_breaker, p->tie_breaker_node)) {
		*ret_why = "the tie-breaker differs from the site's policy";
		return QNET_TIE_BREAKER_DIFFERS;
	}
	if (p->algorithm != TB__ALGORITHM__ALGORITHM_ANY && n->algorithm != p->algorithm) {
		*ret_why = "the algorithm differs from the site's policy";
		return QNET_ALGORITHM_DIFFERS;
	}
	return 0;
}

/* May the node join the attached ones? 0 or a QNet error with the reason. */
static uint32_t open_check(struct site *site, const Tb__SiteNode *n, const char **ret_why)
{
	const struct session *other = site_other(site);
	const struct member *m = site_member(site, n->node_id);
	uint32_t error;

	if (n->node_id == 0) {
		*ret_why = "node id 0 is not valid";
		return QNET_DECODE;
	}
	if (n->algorithm == TB__ALGORITHM__ALGORITHM_LEASE) {
		const char *problem = lease_open_problem(site, n);

		error = problem != NULL ? QNET_ALGORITHM_DIFFERS : 0;
		*ret_why = problem != NULL ? problem : "";
	} else {
		error = open_policy(&site->policy, n, ret_why);
	}
	if (error != 0)
		return error;
	if (other != NULL && other->agent != (n->algorithm == TB__ALGORITHM__ALGORITHM_LEASE)) {
		*ret_why = other->agent ? "the nodes of this site run witness-agent, not corosync"
					: "the nodes of this site run corosync, not witness-agent";
		return QNET_ALGORITHM_DIFFERS;
	}
	if (other != NULL && tie_breaker_differs(n, other->tie_breaker, other->tie_breaker_node)) {
		*ret_why = "the tie-breaker differs from that of the attached nodes";
		return QNET_TIE_BREAKER_DIFFERS;
	}
	if (other != NULL && n->algorithm != other->algorithm) {
		*ret_why = "the algorithm differs from that of the attached nodes";
		return QNET_ALGORITHM_DIFFERS;
	}
	if (m != NULL && m->session != NULL) {
		*ret_why = "a node with this id is attached already";
		return QNET_DUPLICATE_NODE;
	}
	if (site->attached >= LIMIT_SITE_NODES) {
		*ret_why = "the site has too many nodes";
		return QNET_INTERNAL;
	}
	return 0;
}

/* Attaches the node, or refuses it and forgets the session. `s` is new or was held. */
static void session_open(struct fleet *f, struct session *s, const Tb__DoorOpen *open)
{
	const char *why = "";
	struct member *m = site_member(s->site, open->node->node_id);
	uint32_t error;

	/* An agent that has moved on knows it sooner than the board that it left. */
	if (m != NULL && m->session != NULL && lease_supersedes(m->session, open->node))
		session_dismiss(f, m->session, "the agent has connected anew");
	error = open_check(s->site, open->node, &why);

	if (error == 0) {
		/* A client withdraws its vote when it loses its connection, so what this node
		 * held before is over as soon as it is seen to use the new one. */
		m = site_member_add(f, s->site, open->node->node_id);
		if (m == NULL) {
			error = QNET_INTERNAL;
			why = "too many nodes of the site may still hold the vote";
		}
	}
	order_init_reply(f, s, open->seq, error, why);
	if (error == 0) {
		session_describe(s, open->node, f);
		if (s->agent)
			lease_describe(s, open->node);
		s->settled = f->now_ms >= f->unknown_until_ms;
		session_attach(f, s, m);
		return;
	}
	list_remove(&s->of_door);
	hash_remove(&f->sessions, &s->by_id);
	free(s);
}

static Tb__DoorEvent *event_copy(const Tb__DoorEvent *event)
{
	size_t size = tb__door_event__get_packed_size(event);
	uint8_t *packed = mem_alloc(size);
	Tb__DoorEvent *copy;

	tb__door_event__pack(event, packed);
	copy = tb__door_event__unpack(NULL, size, packed);
	free(packed);
	assert(copy != NULL);
	return copy;
}

static void site_register(struct fleet *f, struct site *site)
{
	Tb__Command *command = mem_alloc(sizeof(*command));
	Tb__SitePut *put = mem_alloc(sizeof(*put));
	Tb__Site *row = mem_alloc(sizeof(*row));

	tb__site__init(row);
	row->name = mem_strdup(site->name);
	tb__site_put__init(put);
	put->mode = TB__SITE_PUT__MODE__MODE_UPSERT;
	put->n_sites = 1;
	put->sites = mem_array(1, sizeof(*put->sites));
	put->sites[0] = row;
	tb__command__init(command);
	command->actor = mem_strdup("arbiter");
	command->op_case = TB__COMMAND__OP_SITE_PUT;
	command->site_put = put;
	site->registering = true;
	fleet_command(f, command);
}

static unsigned list_length(const struct list *head)
{
	unsigned count = 0;

	list_for_each (at, head)
		count++;
	return count;
}

static void event_open(struct fleet *f, uint64_t door, const Tb__DoorEvent *event)
{
	const Tb__DoorOpen *open = event->open;
	struct session *s;
	struct site *site;

	if (open->node == NULL || session_find(f, door, event->session) != NULL) {
		f->nonsense++;
		return;
	}
	site = site_open(f, open->site);
	s = session_new(f, door, event->session, site);
	if (site->known) {
		session_open(f, s, open);
		site_settle(f, site);
		return;
	}
	/* An agent's certificate names a site that there was: it comes back by an operator only. */
	if (open->node->algorithm != TB__ALGORITHM__ALGORITHM_LEASE &&
	    f->model.auto_register(f->model.arg) && list_length(&site->held) < LIMIT_SITE_NODES) {
		s->held = event_copy(event);
		list_append(&site->held, &s->of_site);
		if (!site->registering)
			site_register(f, site);
		site_settle(f, site);
		return;
	}
	order_init_reply(f, s, open->seq, QNET_INTERNAL,
			 "no site of this name; create it with \"witnessctl site create\"");
	list_remove(&s->of_door);
	hash_remove(&f->sessions, &s->by_id);
	free(s);
	site_settle(f, site);
}

/* The site is there now, or will not be: answers those who wait. */
static void site_answer_held(struct fleet *f, struct site *site, const char *why)
{
	while (!list_empty(&site->held)) {
		struct session *s = list_entry(site->held.next, struct session, of_site);
		Tb__DoorEvent *event = s->held;

		list_remove(&s->of_site);
		if (site->known) {
			s->held = NULL;
			session_open(f, s, event->open);
			tb__door_event__free_unpacked(event, NULL);
			continue;
		}
		order_init_reply(f, s, event->open->seq, QNET_INTERNAL, why);
		session_end(f, s, 0, GONE_CLOSED);
	}
}

/* --- reports --- */

static void report_votes(struct session *s, const Tb__DoorReport *r)
{
	const Tb__SiteNode *n = r->node;

	s->vote = (uint8_t)n->vote;
	s->last_result = (uint8_t)n->last_result;
	if (r->vote_ring != NULL)
		s->result_ring = (struct arbiter_ring){r->vote_ring->node, r->vote_ring->seq};
	s->may_hold = n->last_result == TB__VOTE__VOTE_ACK ||
		      (n->last_result == TB__VOTE__VOTE_NACK && !r->confirmed);
	/* Only an ACK is proof that it was no newcomer: what an earlier refusal was for is not
	 * known any more, and a doubt is to favour those who have the vote. */
	s->judged = n->last_result == TB__VOTE__VOTE_ACK;
	s->stands = n->vote != TB__VOTE__VOTE_ASK_LATER &&
		    n->vote != TB__VOTE__VOTE_WAIT_FOR_REPLY &&
		    (n->last_result == TB__VOTE__VOTE_ACK || r->confirmed);
}

/* We tell the door to close it and forget it at once. Should the order be lost with the link, the
 * board may serve it for the rest of its lease. */
void session_dismiss(struct fleet *f, struct session *s, const char *why)
{
	order_close(f, s, why);
	session_end(f, s, f->now_ms + f->lease_ms + session_own_timeout_ms(s), GONE_CLOSED);
}

/* Two doors report the same node. The client has only one connection, so one is a corpse, but
 * which one only the client knows: it finds out by coming anew. */
static void report_twice(struct fleet *f, struct session *s, struct member *m)
{
	struct session *old = m->session;
	uint32_t node_id = s->node_id;
	struct site *site = s->site;

	s->may_hold |= old->may_hold;
	session_dismiss(f, old, "the node is attached twice");
	session_attach(f, s, site_member(site, node_id));
	session_dismiss(f, s, "the node is attached twice");
}

static void event_report(struct fleet *f, uint64_t door, const Tb__DoorEvent *event)
{
	const Tb__DoorReport *r = event->report;
	struct session *s;
	struct site *site;
	struct member *m;

	if (r->node == NULL || r->node->node_id == 0 ||
	    session_find(f, door, event->session) != NULL) {
		f->nonsense++;
		return;
	}
	site = site_open(f, r->site);
	m = site->known ? site_member_add(f, site, r->node->node_id) : NULL;
	if (m != NULL && m->session == NULL && site->attached >= LIMIT_SITE_NODES)
		m = NULL;
	s = session_new(f, door, event->session, site);
	if (m == NULL) {
		/* The site was deleted meanwhile. */
		order_close(f, s, "no site of this name");
		list_remove(&s->of_door);
		hash_remove(&f->sessions, &s->by_id);
		free(s);
		site_settle(f, site);
		return;
	}
	session_describe(s, r->node, f);
	report_votes(s, r);
	s->config_version_set = r->node->config_version_set;
	s->config_version = r->node->config_version;
	s->heuristics = (uint8_t)r->node->heuristics;
	s->membership_heuristics = (uint8_t)r->node->membership_heuristics;
	s->regular_heuristics = (uint8_t)r->node->regular_heuristics;
	if (r->has_config)
		node_ids_set(&s->configured, r->node->configured, r->node->n_configured);
	if (r->has_membership)
		node_ids_set(&s->members, r->node->members, r->node->n_members);
	if (s->agent)
		lease_describe(s, r->node);
	if (m->session != NULL && lease_supersedes(m->session, r->node)) {
		session_dismiss(f, m->session, "the agent has connected anew");
		m = site_member(site, s->node_id);
	}
	if (m->session != NULL) {
		report_twice(f, s, m);
		site_settle(f, site);
		return;
	}
	session_attach(f, s, m);
	site_settle(f, site);
}

/* --- lists, heuristics, options --- */

static Tb__Vote list_vote(const struct session *s, const Tb__DoorList *list)
{
	bool ffsplit = s->algorithm == TB__ALGORITHM__ALGORITHM_FFSPLIT;

	switch (list->kind) {
	case TB__DOOR_LIST__KIND__INITIAL_CONFIG:
		return ffsplit ? TB__VOTE__VOTE_ASK_LATER : TB__VOTE__VOTE_NO_CHANGE;
	case TB__DOOR_LIST__KIND__CHANGED_CONFIG:
		return ffsplit && s->members.ids == NULL ? TB__VOTE__VOTE_ASK_LATER
							 : TB__VOTE__VOTE_NO_CHANGE;
	case TB__DOOR_LIST__KIND__MEMBERSHIP:
		return ffsplit && s->configured.ids == NULL ? TB__VOTE__VOTE_ASK_LATER
							    : TB__VOTE__VOTE_WAIT_FOR_REPLY;
	default:
		return TB__VOTE__VOTE_NO_CHANGE;
	}
}

/* 0, or the QNet error to refuse it with. */
static uint32_t list_check(const struct session *s, const Tb__DoorList *list)
{
	bool ffsplit = s->algorithm == TB__ALGORITHM__ALGORITHM_FFSPLIT;
	struct node_ids ids = {0};
	bool sound = node_ids_set(&ids, list->nodes, list->n_nodes);
	bool own = sound && arbiter_list_has(ids.ids, ids.count, s->node_id);
	unsigned count = ids.count;

	node_ids_free(&ids);
	switch (list->kind) {
	case TB__DOOR_LIST__KIND__INITIAL_CONFIG:
	case TB__DOOR_LIST__KIND__CHANGED_CONFIG:
		if (s->algorithm == TB__ALGORITHM__ALGORITHM_2NODELMS && count != 2)
			return QNET_ALGORITHM_UNSUPPORTED;
		return sound && (own || !ffsplit) ? 0 : QNET_INVALID_CONFIG;
	case TB__DOOR_LIST__KIND__MEMBERSHIP:
		return own ? 0 : QNET_INVALID_MEMBERSHIP;
	default:
		return 0;
	}
}

static void list_membership(struct session *s, const Tb__DoorList *list)
{
	node_ids_set(&s->members, list->nodes, list->n_nodes);
	s->ring = list->ring ? (struct arbiter_ring){list->ring->node, list->ring->seq}
			     : (struct arbiter_ring){0};
	s->membership_heuristics = (uint8_t)list->heuristics;
	s->heuristics = (uint8_t)list->heuristics;
	/* With this list the client has stopped voting and waits for an answer to it. What was
	 * said before, and a confirmation of it, no longer counts. */
	s->stands = false;
	s->ticket = 0;
}

static void event_list(struct fleet *f, struct session *s, const Tb__DoorList *list)
{
	struct site *site = s->site;
	uint32_t error = list_check(s, list);
	Tb__DoorListReply *reply;
	Tb__Vote vote;

	if (error != 0) {
		order_refuse(f, s, list->seq, error);
		return;
	}
	vote = list_vote(s, list);
	switch (list->kind) {
	case TB__DOOR_LIST__KIND__INITIAL_CONFIG:
	case TB__DOOR_LIST__KIND__CHANGED_CONFIG:
		node_ids_set(&s->configured, list->nodes, list->n_nodes);
		s->config_version = list->config_version;
		s->config_version_set = list->config_version_set;
		break;
	case TB__DOOR_LIST__KIND__MEMBERSHIP:
		list_membership(s, list);
		break;
	default:
		break;
	}
	reply = order_list_reply(f, s, list, vote);
	/* The site outlives this: `s` is attached. */
	site_settle(f, site);
	if (vote == TB__VOTE__VOTE_WAIT_FOR_REPLY && !site->unstable) {
		/* The decision is made, the vote follows: maybe after others have confirmed. */
		reply->vote = TB__VOTE__VOTE_NO_CHANGE;
		if (s->vote == TB__VOTE__VOTE_WAIT_FOR_REPLY)
			s->vote = TB__VOTE__VOTE_NO_CHANGE;
	}
}

static void event_heuristics(struct fleet *f, struct session *s, const Tb__DoorHeuristics *change)
{
	bool ffsplit = s->algorithm == TB__ALGORITHM__ALGORITHM_FFSPLIT;
	bool early = ffsplit && (s->configured.ids == NULL || s->members.ids == NULL);

	s->regular_heuristics = (uint8_t)change->heuristics;
	s->heuristics = (uint8_t)change->heuristics;
	order_heuristics_reply(f, s, change,
			       early ? TB__VOTE__VOTE_ASK_LATER : TB__VOTE__VOTE_NO_CHANGE);
	/* The other algorithms look at it when they run next. */
	if (ffsplit)
		site_settle(f, s->site);
}

static void event_option(struct fleet *f, struct session *s, const Tb__DoorOption *option)
{
	s->keep_active = option->keep_active_partition;
	if (option->heartbeat_ms == 0 || option->heartbeat_ms == s->heartbeat_ms)
		return;
	s->heartbeat_ms = option->heartbeat_ms;
	/* The grant says how long its nodes may hold the vote; this one may now need longer. */
	site_settle(f, s->site);
}

static void event_ask(struct fleet *f, struct session *s, const Tb__DoorAsk *ask)
{
	bool answered = s->stands && s->last_result != TB__VOTE__VOTE_NONE;

	if (s->algorithm == TB__ALGORITHM__ALGORITHM_FFSPLIT) {
		order_refuse(f, s, ask->seq, QNET_UNSUPPORTED_BY_ALGORITHM);
		return;
	}
	order_ask_reply(f, s, ask->seq,
			answered ? TB__VOTE__VOTE_NO_CHANGE : TB__VOTE__VOTE_ASK_LATER);
	/* Says it again. */
	s->stands = false;
	site_settle(f, s->site);
}

static void event_vote_reply(struct fleet *f, struct session *s, const Tb__DoorVoteReply *reply)
{
	if (s->ticket == 0 || reply->ticket != s->ticket)
		return;
	s->ticket = 0;
	session_proven(f, s, true);
	if (s->last_result == TB__VOTE__VOTE_NACK) {
		if (s->agent && s->may_hold)
			lease_released(f, s);
		s->may_hold = false;
		site_settle(f, s->site);
	}
}

static void event_closed(struct fleet *f, struct session *s, const Tb__DoorClosed *closed)
{
	struct site *site = s->site;
	uint64_t until = 0;

	bool told = closed->reason == TB__DOOR_CLOSED__REASON__BY_CLIENT &&
		    (!s->agent || FLEET_FAULTY(FLEET_FAULT_CLOSED_IS_RELEASED));

	if (!told && closed->reason != TB__DOOR_CLOSED__REASON__SILENT && s->held == NULL) {
		uint64_t age = closed->heard_age_ms;
		uint64_t heard = age < f->now_ms ? f->now_ms - age : 0;

		until = heard + session_own_timeout_ms(s);
	}
	session_end(f, s, until, GONE_CLOSED);
	site_settle(f, site);
}

/* Nothing is known of the door's sessions any more, except that it may have answered their
 * heartbeats until `served_until_ms`. */
static void door_forget(struct fleet *f, struct door *d, unsigned which, uint64_t served_until_ms,
			enum member_gone gone)
{
	struct list *at = d->sessions.next;

	while (at != &d->sessions) {
		struct session *s = list_entry(at, struct session, of_door);
		struct site *site = s->site;
		uint64_t own = s->held == NULL ? session_own_timeout_ms(s) : 0;

		at = at->next;
		if ((which >> (s->id >> 63) & 1) == 0)
			continue;
		session_end(f, s, served_until_ms + own, gone);
		site_settle(f, site);
	}
}

/* A board has two doors, one for agents. */
static void event_reset(struct fleet *f, uint64_t id, uint64_t which)
{
	struct door *d = door_find(f, id);

	if (d != NULL)
		door_forget(f, d, 1u << (which >> 63), f->now_ms, GONE_CLOSED);
}

static void event_of_session(struct fleet *f, struct session *s, const Tb__DoorEvent *event)
{
	if (event->what_case == TB__DOOR_EVENT__WHAT_CLOSED) {
		event_closed(f, s, event->closed);
		return;
	}
	if (s->held != NULL) {
		f->nonsense++;
		return;
	}
	session_proven(f, s, false);
	switch (event->what_case) {
	case TB__DOOR_EVENT__WHAT_LIST:
		event_list(f, s, event->list);
		return;
	case TB__DOOR_EVENT__WHAT_HEURISTICS:
		event_heuristics(f, s, event->heuristics);
		return;
	case TB__DOOR_EVENT__WHAT_OPTION:
		event_option(f, s, event->option);
		return;
	case TB__DOOR_EVENT__WHAT_ASK:
		event_ask(f, s, event->ask);
		return;
	case TB__DOOR_EVENT__WHAT_VOTE_REPLY:
		event_vote_reply(f, s, event->vote_reply);
		return;
	case TB__DOOR_EVENT__WHAT_CLAIM:
		if (!lease_claimed(f, s, event->claim))
			f->nonsense++;
		return;
	default:
		f->nonsense++;
		return;
	}
}

void fleet_door_event(struct fleet *f, uint64_t door, const Tb__DoorEvent *event, uint64_t now_ms)
{
	struct session *s;

	fleet_now(f, now_ms);
	switch (event->what_case) {
	case TB__DOOR_EVENT__WHAT_RESET:
		event_reset(f, door, event->session);
		return;
	case TB__DOOR_EVENT__WHAT_OPEN:
		event_open(f, door, event);
		return;
	case TB__DOOR_EVENT__WHAT_REPORT:
		event_report(f, door, event);
		return;
	default:
		break;
	}
	s = session_find(f, door, event->session);
	/* Refused or ended by us meanwhile: the door does not know yet. */
	if (s == NULL)
		f->nonsense++;
	else if (event->what_case == TB__DOOR_EVENT__WHAT_RTT)
		s->rtt_ms = event->rtt->rtt_ms; /* the client has not said a word */
	else
		event_of_session(f, s, event);
}

void fleet_door_lost(struct fleet *f, uint64_t door, uint64_t lease_end_ms, uint64_t now_ms)
{
	struct door *d = door_find(f, door);

	fleet_now(f, now_ms);
	if (d == NULL)
		return;
	if (FLEET_FAULTY(FLEET_FAULT_IGNORE_LEASE))
		lease_end_ms = now_ms;
	door_forget(f, d, 3, lease_end_ms, GONE_BOARD);
	door_drop(f, d);
}

/* --- the model moves --- */

void fleet_grant_applied(struct fleet *f, const Tb__Grant *grant, uint64_t now_ms)
{
	struct site *s = site_find_id(f, grant->site_id);

	fleet_now(f, now_ms);
	if (s == NULL)
		return;
	site_granted(f, s, grant);
	site_settle(f, s);
}

void fleet_command_failed(struct fleet *f, const Tb__Command *command, uint64_t now_ms)
{
	struct site *s = NULL;

	fleet_now(f, now_ms);
	if (command->op_case == TB__COMMAND__OP_GRANT_SET) {
		s = site_find_id(f, command->grant_set->grant->site_id);
		if (s == NULL || s->pending_epoch != command->grant_set->grant->epoch)
			return;
		s->pending_epoch = 0;
		s->retry_ms = f->now_ms + FLEET_RETRY_MS;
		site_load(f, s);
	} else if (command->op_case == TB__COMMAND__OP_LEASE_NOTE) {
		s = site_find_id(f, command->lease_note->site_id);
		if (s == NULL || s->epoch != command->lease_note->epoch)
			return;
		s->noting = 0;
		s->note_ms = f->now_ms + FLEET_NOTE_MS;
	} else if (command->op_case == TB__COMMAND__OP_SITE_PUT &&
		   command->site_put->n_sites == 1) {
		s = site_find(f, command->site_put->sites[0]->name);
		if (s == NULL || !s->registering)
			return;
		s->registering = false;
		if (!s->known)
			site_load(f, s);
		site_answer_held(f, s, "the site could not be registered");
	}
	if (s != NULL)
		site_settle(f, s);
}

void fleet_site_changed(struct fleet *f, const char *name, uint64_t now_ms)
{
	struct site *s = site_find(f, name);

	fleet_now(f, now_ms);
	if (s == NULL)
		return;
	s->registering = false;
	if (!site_load(f, s)) {
		for (unsigned i = 0; i < s->member_count; i++) {
			struct session *x = s->members[i].session;

			if (x != NULL)
				session_dismiss(f, x, "the site was deleted");
		}
	}
	site_answer_held(f, s, "the site was deleted");
	site_settle(f, s);
}

/* --- drained boards --- */

/* Do all nodes of the site see each other? Then they have the quorum by themselves. */
static bool session_can_spare_vote(const struct session *s)
{
	/* An agent keeps its lease while it changes its board. */
	if (s->agent)
		return true;
	for (unsigned i = 0; i < s->configured.count; i++)
		if (!arbiter_list_has(s->members.ids, s->members.count, s->configured.ids[i]))
			return false;
	return s->configured.count > 0;
}

/* Is a node of the site on its way to another board? One that does not come back is not waited for
 * for ever. */
static bool site_is_moving(const struct fleet *f, const struct site *site, unsigned configured)
{
	if (site->moved_ms == 0 || f->now_ms >= site->moved_ms + FLEET_MOVE_MS)
		return false;
	for (unsigned i = 0; i < site->member_count; i++)
		if (site->members[i].session != NULL && site->members[i].session->leaving)
			return true;
	return site->attached < configured;
}

static bool session_may_leave(const struct fleet *f, const struct session *s, bool now)
{
	if (s->leaving)
		return false;
	return now || (session_can_spare_vote(s) && s->site->pending_epoch == 0 &&
		       !site_is_moving(f, s->site, s->configured.count));
}

/* The service address of a session, as a set; empty: it came by another one. */
static uint64_t fleet_address_of(const struct fleet *f, const struct session *s)
{
	for (unsigned i = 0; i < f->address_count && s->local.len != 0; i++)
		if (ip_equal(&f->addresses[i], &s->local))
			return (uint64_t)1 << i;
	return 0;
}

void fleet_addresses(struct fleet *f, const struct ip *addresses, unsigned count)
{
	f->address_count = count < LIMIT_ADDRESSES ? count : LIMIT_ADDRESSES;
	memcpy(f->addresses, addresses, f->address_count * sizeof(f->addresses[0]));
}

struct busy {
	const struct fleet *f;
	uint64_t set;
};

static void busy_visit(struct hash_node *at, void *arg)
{
	const struct session *s = list_entry(at, struct session, by_id);
	struct busy *busy = arg;

	if (s->held == NULL && !session_can_spare_vote(s))
		busy->set |= fleet_address_of(busy->f, s);
}

uint64_t fleet_address_busy(struct fleet *f, uint64_t now_ms)
{
	struct busy busy = {.f = f};

	fleet_now(f, now_ms);
	/* A new leader does not yet know who is where. */
	if (f->now_ms < f->unknown_until_ms)
		return UINT64_MAX;
	hash_each(&f->sessions, busy_visit, &busy);
	return busy.set;
}

unsigned fleet_drain(struct fleet *f, uint64_t door, bool now, unsigned max, uint64_t now_ms)
{
	struct door *d = door_find(f, door);
	unsigned sent = 0;

	fleet_now(f, now_ms);
	/* A new leader does not yet know who else may have the vote. */
	if (d == NULL || f->now_ms < f->unknown_until_ms)
		return 0;
	list_for_each_safe (at, &d->sessions) {
		struct session *s = list_entry(at, struct session, of_door);

		if (sent == max)
			break;
		/* It leaves with its address, and would only come back to it now. */
		if (s->held != NULL || fleet_address_of(f, s) != 0 || !session_may_leave(f, s, now))
			continue;
		/* It stays a session, and a holder, until the door says that it is closed. */
		order_close(f, s, "the board is drained");
		s->leaving = true;
		s->site->moved_ms = f->now_ms;
		sent++;
		if (FLEET_FAULTY(FLEET_FAULT_DRAIN_FORGETS))
			session_end(f, s, 0, GONE_CLOSED);
	}
	return sent;
}

uint64_t fleet_tick(struct fleet *f, uint64_t now_ms)
{
	struct due *first;

	fleet_now(f, now_ms);
	while ((first = due_first(&f->due)) != NULL && first->at_ms <= f->now_ms)
		site_settle(f, list_entry(first, struct site, due));
	return first ? first->at_ms : UINT64_MAX;
}

void fleet_counts(const struct fleet *f, Tb__ClusterStatus *counts)
{
	const unsigned *states = f->states;

	counts->sites_whole = states[TB__SITE_STATE__SITE_STATE_WHOLE];
	counts->sites_degraded = states[TB__SITE_STATE__SITE_STATE_DEGRADED];
	counts->sites_split = states[TB__SITE_STATE__SITE_STATE_SPLIT];
	counts->sites_undecided = states[TB__SITE_STATE__SITE_STATE_UNDECIDED];
	counts->sites_offline = 0;
	counts->sessions = f->session_count;
	counts->sites = counts->sites_whole + counts->sites_degraded + counts->sites_split +
			counts->sites_undecided;
}
