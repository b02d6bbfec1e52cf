/* board.c: a board: its door, its lease, and the fleet while it leads. The glue between them is
 * a model of the daemon's: what it promises to fleet.h and lease.h, no more. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/arbiter.h"
#include "lib/mem.h"
#include "tests/sim/world.h"

enum {
	LINK_SILENCE_MS = 2000,
	DIAL_MS = 200,
	LEASE_WITH_MARGIN_MS = LEASE_LENGTH_MS + LEASE_LENGTH_MS / 10,
};

static void board_flush(struct world *w, struct board *b);
static void door_order(struct world *w, struct board *b, const Tb__DoorOrder *o);

/* --- sets of nodes, lists of nodes --- */

static unsigned ids_of(unsigned set, uint32_t *ids)
{
	unsigned count = 0;

	for (unsigned i = 1; i <= SIM_NODES; i++) {
		if (set >> i & 1)
			ids[count++] = i;
	}
	return count;
}

static unsigned set_of(const uint32_t *ids, size_t count)
{
	unsigned set = 0;

	for (size_t i = 0; i < count; i++)
		set |= 1u << ids[i];
	return set;
}

/* --- the model, for the fleet --- */

static Tb__RingId *ring_message(struct ring ring)
{
	Tb__RingId *m = mem_alloc(sizeof(*m));

	tb__ring_id__init(m);
	m->node = ring.node;
	m->seq = ring.seq;
	return m;
}

static Tb__Grant *grant_message(const struct log_entry *e)
{
	Tb__Grant *g = mem_alloc(sizeof(*g));

	tb__grant__init(g);
	g->site_id = 1;
	g->epoch = e->epoch;
	g->ring = ring_message(e->ring);
	g->nodes = mem_array(SIM_NODES, sizeof(*g->nodes));
	g->n_nodes = ids_of(e->nodes, g->nodes);
	g->handover_ms = e->handover_ms;
	g->lease = e->lease;
	g->generation = e->generation;
	g->instance = e->instance;
	return g;
}

static int model_site(void *arg, const char *name, Tb__Site **ret_site, Tb__Grant **ret_grant)
{
	struct board *b = arg;
	Tb__Site *site;

	if (strcmp(name, "a") != 0)
		return -ENOENT;
	site = mem_alloc(sizeof(*site));
	tb__site__init(site);
	site->id = 1;
	site->name = mem_strdup(name);
	if (b->policy != NULL) {
		site->policy = mem_alloc(sizeof(*site->policy));
		*site->policy = *b->policy;
	}
	*ret_site = site;
	*ret_grant = b->epoch ? grant_message(&b->grant) : NULL;
	return 0;
}

static bool model_auto(void *arg)
{
	(void)arg;
	return false;
}

/* --- leading --- */

static void proposals_drop(struct board *b)
{
	for (unsigned i = 0; i < 8; i++) {
		if (b->proposals[i].command != NULL)
			tb__command__free_unpacked(b->proposals[i].command, NULL);
		b->proposals[i] = (struct proposal){0};
	}
}

static void door_report(struct world *w, struct board *b);

void board_members(struct world *w, struct board *b)
{
	uint64_t ids[SIM_BOARDS];
	bool voters[SIM_BOARDS];
	unsigned count = 0;

	for (unsigned i = 1; i <= w->boards; i++) {
		if ((b->removed >> i & 1) != 0)
			continue;
		ids[count] = i;
		voters[count++] = true;
	}
	lease_table_members(&b->leases, ids, voters, count, clock_of_board(w, b));
}

void board_led(struct world *w, struct board *b)
{
	struct fleet_model model = {b, model_site, model_auto};
	uint64_t now = clock_of_board(w, b);

	world_note(w, "board %u: leads, term %llu", b->id, (unsigned long long)b->raft.term);
	if (b->link != 0)
		pipe_close(w, b->link, true, true);
	b->link = 0;
	b->fleet_term = b->raft.term;
	lease_table_start(&b->leases, b->id, b->fleet_term, now);
	board_members(w, b);
	b->members_us = 0;
	b->fleet = fleet_new(&model, b->fleet_term, LEASE_WITH_MARGIN_MS, now);
	b->fleet_due_ms = UINT64_MAX;
	door_report(w, b);
	if (w->vms)
		vm_led(w, b);
	board_flush(w, b);
}

void board_deposed(struct world *w, struct board *b)
{
	uint64_t own;

	proposals_drop(b);
	if (b->fleet == NULL)
		return;
	world_note(w, "board %u: no longer leads term %llu", b->id,
		   (unsigned long long)b->fleet_term);
	own = lease_table_self_until(&b->leases, clock_of_board(w, b));
	if (own > b->lease.until_ms)
		b->lease = (struct lease){.term = b->fleet_term, .until_ms = own};
	fleet_free(b->fleet);
	b->fleet = NULL;
	vm_deposed(b);
	for (unsigned i = 1; i <= w->pipe_count; i++) {
		struct pipe *p = &w->pipes[i];

		if (!p->tcp && p->far == b->id && p->far_open)
			pipe_close(w, i, false, true);
	}
}

static void link_lost_by_leader(struct world *w, struct board *b, unsigned link)
{
	unsigned follower = w->pipes[link].near;

	pipe_close(w, link, false, true);
	vm_forget(b, follower);
	if (b->fleet == NULL)
		return;
	fleet_door_lost(b->fleet, follower, lease_table_end(&b->leases, follower),
			clock_of_board(w, b));
	board_flush(w, b);
}

static void grant_propose(struct world *w, struct board *b, Tb__Command *c)
{
	const Tb__Grant *g = c->grant_set->grant;
	struct log_entry e = {
		.proposal = ++w->proposal,
		.after_epoch = c->grant_set->after_epoch,
		.epoch = g->epoch,
		.ring = {g->ring->node, g->ring->seq},
		.nodes = set_of(g->nodes, g->n_nodes),
		.handover_ms = g->handover_ms,
		.lease = g->lease,
		.generation = g->generation,
		.instance = g->instance,
	};

	world_note(w, "board %u: propose epoch %llu ring %u.%llu: %s", b->id,
		   (unsigned long long)e.epoch, e.ring.node, (unsigned long long)e.ring.seq,
		   g->reason);
	for (unsigned i = 0; i < 8; i++) {
		if (b->proposals[i].command != NULL)
			continue;
		b->proposals[i].id = e.proposal;
		b->proposals[i].command = c;
		raft_propose(w, b, e);
		return;
	}
	world_problem(w, "more than one grant of a site under way at a time");
	tb__command__free_unpacked(c, NULL);
}

static void board_propose(struct world *w, struct board *b, Tb__Command *c)
{
	if (c->op_case == TB__COMMAND__OP_GRANT_SET)
		grant_propose(w, b, c);
	else
		tb__command__free_unpacked(c, NULL); /* a line of the event log */
}

static struct parcel *order_parcel(Tb__DoorOrder *order, uint64_t term)
{
	struct parcel *p = parcel_new(LINK_ORDER);

	p->order = order;
	p->term = term;
	return p;
}

static unsigned link_of(const struct world *w, const struct board *leader, uint64_t follower)
{
	for (unsigned i = w->pipe_count; i > 0; i--) {
		const struct pipe *p = &w->pipes[i];

		if (!p->tcp && p->far == leader->id && p->near == follower && p->far_open &&
		    p->term == leader->fleet_term)
			return i;
	}
	return 0;
}

static void board_send_order(struct world *w, struct board *b, uint64_t door, Tb__DoorOrder *order)
{
	unsigned link;

	if (door == b->id) {
		door_order(w, b, order);
		tb__door_order__free_unpacked(order, NULL);
		return;
	}
	link = link_of(w, b, door);
	if (link != 0)
		pipe_send(w, link, false, order_parcel(order, b->fleet_term));
	else
		tb__door_order__free_unpacked(order, NULL);
}

static void board_flush(struct world *w, struct board *b)
{
	Tb__Command *command;
	Tb__DoorOrder *order;
	uint64_t door;

	if (b->fleet == NULL)
		return;
	for (unsigned i = 1; i <= w->boards; i++)
		if (w->board[i].drained)
			fleet_drain(b->fleet, i, w->board[i].drained_now, 9, clock_of_board(w, b));
	b->fleet_due_ms = fleet_tick(b->fleet, clock_of_board(w, b));
	while (b->fleet != NULL && (command = fleet_next_command(b->fleet)) != NULL)
		board_propose(w, b, command);
	while (b->fleet != NULL && (order = fleet_next_order(b->fleet, &door)) != NULL)
		board_send_order(w, b, door, order);
}

void board_applied(struct world *w, struct board *b, const struct log_entry *e)
{
	bool good = e->after_epoch == b->epoch && e->epoch > b->epoch;
	uint64_t now = clock_of_board(w, b);
	Tb__Command *command = NULL;

	if (e->vm.verb != VM_NONE) {
		vm_applied(w, b, e);
		return;
	}
	if (good) {
		b->epoch = e->epoch;
		b->grant = *e;
	}
	for (unsigned i = 0; i < 8; i++) {
		if (b->proposals[i].command == NULL || b->proposals[i].id != e->proposal)
			continue;
		command = b->proposals[i].command;
		b->proposals[i].command = NULL;
	}
	if (b->fleet != NULL && good) {
		Tb__Grant *g = grant_message(e);

		fleet_grant_applied(b->fleet, g, now);
		tb__grant__free_unpacked(g, NULL);
	} else if (b->fleet != NULL && command != NULL) {
		fleet_command_failed(b->fleet, command, now);
	}
	if (command != NULL)
		tb__command__free_unpacked(command, NULL);
	board_flush(w, b);
}

/* --- the lease --- */

static uint64_t board_lease_until(struct world *w, struct board *b)
{
	uint64_t until = b->lease.until_ms;
	uint64_t own = b->fleet ? lease_table_self_until(&b->leases, clock_of_board(w, b)) : 0;

	return own > until ? own : until;
}

uint64_t board_lease(struct world *w, struct board *b)
{
	return board_lease_until(w, b);
}

unsigned vm_links_up(const struct world *w, const struct board *b)
{
	unsigned set = 1u << b->id;

	for (unsigned i = 1; i <= w->boards; i++)
		if (link_of(w, b, i) != 0)
			set |= 1u << i;
	return set;
}

/* --- the door --- */

/* An event for whoever leads; lost while there is no link, the reports of the next make up. */
void board_emit(struct world *w, struct board *b, Tb__DoorEvent *e)
{
	struct parcel *p;

	if (b->fleet != NULL) {
		fleet_door_event(b->fleet, b->id, e, clock_of_board(w, b));
		tb__door_event__free_unpacked(e, NULL);
		board_flush(w, b);
		return;
	}
	if (b->link == 0) {
		tb__door_event__free_unpacked(e, NULL);
		return;
	}
	p = parcel_new(LINK_EVENT);
	p->event = e;
	pipe_send(w, b->link, true, p);
}

static Tb__DoorEvent *event_new(uint64_t session, Tb__DoorEvent__WhatCase what)
{
	Tb__DoorEvent *e = mem_alloc(sizeof(*e));

	tb__door_event__init(e);
	e->session = session;
	e->what_case = what;
	return e;
}

static Tb__SiteNode *session_node(const struct world *w, const struct board *b,
				  const struct door_session *s)
{
	Tb__SiteNode *n = mem_alloc(sizeof(*n));

	tb__site_node__init(n);
	n->node_id = s->node;
	n->board = b->id;
	n->heartbeat_ms = s->heartbeat_ms;
	n->algorithm = s->algorithm;
	n->tie_breaker = TB__TIE_BREAKER__TIE_BREAKER_LOWEST;
	n->keep_active_partition = s->keep_active;
	n->ring = ring_message(s->ring);
	n->configured = mem_array(SIM_NODES, sizeof(uint32_t));
	n->n_configured = ids_of(s->configured, n->configured);
	n->members = mem_array(SIM_NODES, sizeof(uint32_t));
	n->n_members = ids_of(s->members, n->members);
	n->heuristics = s->heuristics;
	n->vote = s->vote;
	n->last_result = s->last_result;
	/* Real time, of clocks that nobody has set. */
	n->attached_ms = (int64_t)clock_of_board(w, b);
	return n;
}

static void door_tell_open(struct world *w, struct board *b, const struct door_session *s)
{
	Tb__DoorEvent *e = event_new(s->id, TB__DOOR_EVENT__WHAT_OPEN);

	e->open = mem_alloc(sizeof(*e->open));
	tb__door_open__init(e->open);
	e->open->site = mem_strdup("a");
	e->open->node = session_node(w, b, s);
	board_emit(w, b, e);
}

static void door_tell_report(struct world *w, struct board *b, const struct door_session *s)
{
	Tb__DoorEvent *e = event_new(s->id, TB__DOOR_EVENT__WHAT_REPORT);
	Tb__DoorReport *r = mem_alloc(sizeof(*r));

	tb__door_report__init(r);
	r->site = mem_strdup("a");
	r->node = session_node(w, b, s);
	r->has_config = s->has_config;
	r->has_membership = s->has_membership;
	r->confirmed = s->confirmed;
	if (s->vote_number > 0)
		r->vote_ring = ring_message(s->vote_ring);
	e->report = r;
	board_emit(w, b, e);
}

static void door_report(struct world *w, struct board *b)
{
	Tb__DoorEvent *e = event_new(0, TB__DOOR_EVENT__WHAT_RESET);
	uint64_t ids[64];
	unsigned count = 0;

	e->reset = mem_alloc(sizeof(*e->reset));
	tb__door_reset__init(e->reset);
	board_emit(w, b, e);
	/* By id: an answer to one may change the list. */
	for (const struct door_session *s = b->sessions; s != NULL && count < 64; s = s->next)
		ids[count++] = s->id;
	while (count > 0) {
		struct door_session *s = b->sessions;

		count--;
		while (s != NULL && s->id != ids[count])
			s = s->next;
		if (s != NULL && s->open)
			door_tell_report(w, b, s);
		else if (s != NULL)
			door_tell_open(w, b, s);
	}
	if (w->leases)
		agents_report(w, b);
}

static struct door_session *door_find(struct board *b, uint64_t id)
{
	struct door_session *s = b->sessions;

	while (s != NULL && s->id != id)
		s = s->next;
	return s;
}

static struct door_session *door_of_pipe(struct board *b, unsigned pipe)
{
	struct door_session *s = b->sessions;

	while (s != NULL && s->pipe != pipe)
		s = s->next;
	return s;
}

static void door_end(struct world *w, struct board *b, struct door_session *s,
		     Tb__DoorClosed__Reason reason)
{
	Tb__DoorEvent *e = event_new(s->id, TB__DOOR_EVENT__WHAT_CLOSED);
	struct door_session **at = &b->sessions;

	e->closed = mem_alloc(sizeof(*e->closed));
	tb__door_closed__init(e->closed);
	e->closed->reason = reason;
	e->closed->heard_age_ms = (uint32_t)(clock_of_board(w, b) - s->heard_ms);
	pipe_close(w, s->pipe, false, true);
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	world_note(w, "board %u: session of node %u ends (%u)", b->id, s->node, reason);
	free(s);
	board_emit(w, b, e);
}

static uint64_t door_patience_ms(const struct door_session *s)
{
	return arbiter_own_timeout_ms(s->heartbeat_ms, TB__HANDOVER__HANDOVER_SAFE);
}

/* S2: without a lease there are no sessions. Looked at before anything else that the door does. */
bool board_may_act(struct world *w, struct board *b)
{
	b->serving = clock_of_board(w, b) < board_lease_until(w, b);
	while (!b->serving && b->sessions != NULL)
		door_end(w, b, b->sessions, TB__DOOR_CLOSED__REASON__BY_DOOR);
	if (!b->serving)
		agents_end(w, b);
	return b->serving;
}

bool board_accepts(struct world *w, struct board *b)
{
	return b->alive && !b->drained && b->frozen_until_us <= w->now_us &&
	       clock_of_board(w, b) < board_lease_until(w, b);
}

static void door_silence(struct world *w, struct board *b)
{
	struct door_session *s = b->sessions;

	while (s != NULL) {
		struct door_session *next = s->next;

		if (clock_of_board(w, b) >= s->heard_ms + door_patience_ms(s)) {
			door_end(w, b, s, TB__DOOR_CLOSED__REASON__SILENT);
			/* What was decided upon it may have changed the list. */
			s = b->sessions;
			continue;
		}
		s = next;
	}
}

static void door_init_reply(struct world *w, struct board *b, struct door_session *s,
			    uint32_t error)
{
	struct parcel *p = parcel_new(TCP_INIT_REPLY);

	p->code = error;
	pipe_send(w, s->pipe, false, p);
	if (error == 0) {
		s->open = true;
		s->heard_ms = clock_of_board(w, b);
	}
}

static void door_vote(struct world *w, struct door_session *s, const Tb__DoorVote *v)
{
	struct parcel *p = parcel_new(TCP_VOTE);

	p->number = ++s->vote_number;
	p->code = v->vote;
	p->ring = (struct ring){v->ring->node, v->ring->seq};
	s->ticket = v->ticket;
	s->confirmed = false;
	s->vote = v->vote;
	s->last_result = v->vote;
	s->vote_ring = p->ring;
	pipe_send(w, s->pipe, false, p);
}

static void door_order(struct world *w, struct board *b, const Tb__DoorOrder *o)
{
	struct door_session *s = door_find(b, o->session);
	struct parcel *p;

	if ((o->session & AGENT_SESSION) != 0) {
		agents_order(w, b, o);
		return;
	}
	if (s == NULL || !board_may_act(w, b))
		return;
	switch (o->what_case) {
	case TB__DOOR_ORDER__WHAT_INIT_REPLY:
		if (!s->open)
			door_init_reply(w, b, s, o->init_reply->error);
		break;
	case TB__DOOR_ORDER__WHAT_LIST_REPLY:
		s->vote = o->list_reply->vote;
		p = parcel_new(TCP_LIST_REPLY);
		p->code = o->list_reply->vote;
		pipe_send(w, s->pipe, false, p);
		break;
	case TB__DOOR_ORDER__WHAT_VOTE:
		if (s->open)
			door_vote(w, s, o->vote);
		break;
	case TB__DOOR_ORDER__WHAT_CLOSE:
		door_end(w, b, s, TB__DOOR_CLOSED__REASON__BY_DOOR);
		break;
	default:
		break;
	}
}

static void door_list(struct world *w, struct board *b, struct door_session *s,
		      const struct parcel *p)
{
	Tb__DoorEvent *e = event_new(s->id, TB__DOOR_EVENT__WHAT_LIST);
	Tb__DoorList *l = mem_alloc(sizeof(*l));

	tb__door_list__init(l);
	l->kind = p->list_kind;
	l->nodes = mem_array(SIM_NODES, sizeof(*l->nodes));
	l->n_nodes = ids_of(p->nodes, l->nodes);
	if (p->list_kind == TB__DOOR_LIST__KIND__MEMBERSHIP) {
		l->ring = ring_message(p->ring);
		l->heuristics = p->heuristics;
		s->ring = p->ring;
		s->members = p->nodes;
		s->heuristics = p->heuristics;
		s->has_membership = true;
	} else if (p->list_kind != TB__DOOR_LIST__KIND__QUORUM) {
		s->configured = p->nodes;
		s->has_config = true;
	}
	e->list = l;
	board_emit(w, b, e);
}

static void door_init(struct world *w, struct board *b, unsigned pipe, const struct parcel *p)
{
	struct door_session *s = mem_zalloc(sizeof(*s));

	s->id = ++b->next_session;
	s->pipe = pipe;
	s->node = w->pipes[pipe].near;
	s->heartbeat_ms = w->heartbeat_ms;
	s->algorithm = w->algorithm;
	s->keep_active = w->keep_active;
	s->ring = p->ring;
	s->confirmed = true;
	s->heard_ms = clock_of_board(w, b);
	s->next = b->sessions;
	b->sessions = s;
	door_tell_open(w, b, s);
}

static void door_parcel(struct world *w, struct board *b, unsigned pipe, struct parcel *p)
{
	struct door_session *s;
	Tb__DoorEvent *e;
	struct parcel *reply;

	if (!board_may_act(w, b)) {
		pipe_close(w, pipe, false, true);
		return;
	}
	if (w->leases) {
		agents_parcel(w, b, pipe, p);
		return;
	}
	if (p->kind == TCP_INIT) {
		door_init(w, b, pipe, p);
		return;
	}
	s = door_of_pipe(b, pipe);
	if (s == NULL) {
		pipe_close(w, pipe, false, true);
		return;
	}
	if (p->kind == TCP_END) {
		door_end(w, b, s, TB__DOOR_CLOSED__REASON__BY_CLIENT);
		return;
	}
	if (!s->open)
		return;
	s->heard_ms = clock_of_board(w, b);
	switch (p->kind) {
	case TCP_ECHO:
		reply = parcel_new(TCP_ECHO_REPLY);
		reply->number = p->number;
		pipe_send(w, pipe, false, reply);
		break;
	case TCP_LIST:
		door_list(w, b, s, p);
		break;
	case TCP_HEURISTICS:
		s->heuristics = p->heuristics;
		e = event_new(s->id, TB__DOOR_EVENT__WHAT_HEURISTICS);
		e->heuristics = mem_alloc(sizeof(*e->heuristics));
		tb__door_heuristics__init(e->heuristics);
		e->heuristics->heuristics = p->heuristics;
		board_emit(w, b, e);
		break;
	case TCP_VOTE_REPLY:
		if (p->number != s->vote_number)
			break;
		s->confirmed = true;
		e = event_new(s->id, TB__DOOR_EVENT__WHAT_VOTE_REPLY);
		e->vote_reply = mem_alloc(sizeof(*e->vote_reply));
		tb__door_vote_reply__init(e->vote_reply);
		e->vote_reply->ticket = s->ticket;
		board_emit(w, b, e);
		break;
	default:
		break;
	}
}

/* --- links --- */

static void link_close_by_follower(struct world *w, struct board *b)
{
	if (b->link != 0)
		pipe_close(w, b->link, true, true);
	b->link = 0;
	vm_link_lost(b);
	b->dial_ms = clock_of_board(w, b) + DIAL_MS;
}

static void link_renew(struct world *w, struct board *b)
{
	struct parcel *p = parcel_new(LINK_RENEW);

	p->term = b->raft.term;
	p->number = clock_of_board(w, b);
	p->leader_ms = b->lease.term == b->raft.term ? b->lease.leader_ms : 0;
	p->vms = !b->host_stands;
	b->renew_ms = p->number + LEASE_RENEW_MS;
	pipe_send(w, b->link, true, p);
}

/* The dial itself takes no time; what it carries does. */
static void link_dial(struct world *w, struct board *b)
{
	struct board *leader = &w->board[b->raft.leader];
	unsigned old;

	b->dial_ms = clock_of_board(w, b) + DIAL_MS;
	if (leader->id == 0 || !leader->alive || leader->frozen_until_us > w->now_us ||
	    leader->fleet == NULL || leader->fleet_term != b->raft.term ||
	    w->board_cut[b->id][leader->id] || w->board_cut[leader->id][b->id])
		return;
	old = link_of(w, leader, b->id);
	if (old != 0)
		link_lost_by_leader(w, leader, old);
	if (leader->fleet == NULL)
		return;
	b->link = pipe_open(w, false, b->id, leader->id, b->raft.term);
	world_note(w, "board %u: linked to leader %u", b->id, leader->id);
	door_report(w, b);
	if (w->vms)
		vm_linked(w, b);
	link_renew(w, b);
}

static void link_parcel(struct world *w, struct board *b, unsigned link, struct parcel *p)
{
	uint64_t now = clock_of_board(w, b);
	struct parcel *reply;

	switch (p->kind) {
	case LINK_EVENT:
		if (b->fleet == NULL || w->pipes[link].term != b->fleet_term)
			break;
		fleet_door_event(b->fleet, w->pipes[link].near, p->event, now);
		board_flush(w, b);
		break;
	case LINK_RENEW:
		if (b->fleet == NULL)
			break;
		reply = parcel_new(LINK_GRANT);
		reply->term = b->fleet_term;
		reply->number = p->number;
		reply->leader_ms = now;
		reply->length_ms = lease_table_renew(&b->leases, w->pipes[link].near, p->term,
						     p->leader_ms, now);
		if (vm_removed(b, w->pipes[link].near))
			reply->length_ms = 0;
		reply->vms = vm_renewed(b, w->pipes[link].near, p->vms);
		if (reply->length_ms != 0 && reply->vms)
			lease_table_renew_vms(&b->leases, w->pipes[link].near);
		reply->applied = b->raft.applied;
		pipe_send(w, link, false, reply);
		break;
	case LINK_ORDER:
		if (link == b->link && p->term >= b->raft.term)
			door_order(w, b, p->order);
		break;
	case LINK_REPORT:
		if (b->fleet != NULL && w->pipes[link].term == b->fleet_term)
			vm_reported(w, b, w->pipes[link].near, p);
		break;
	case LINK_GRANT:
		lease_granted(&b->lease, b->raft.term, p->term, p->number, p->leader_ms,
			      p->length_ms);
		if (link == b->link && p->length_ms != 0)
			vm_granted(b, p->number + p->length_ms, p->vms, now, p->applied);
		break;
	case LINK_END:
		if (w->pipes[link].near == b->id)
			link_close_by_follower(w, b);
		else
			link_lost_by_leader(w, b, link);
		break;
	default:
		break;
	}
}

static void links_silence(struct world *w, struct board *b)
{
	uint64_t now = clock_of_board(w, b);

	if (b->link != 0 && now >= w->pipes[b->link].near_heard_ms + LINK_SILENCE_MS)
		link_close_by_follower(w, b);
	for (unsigned i = 1; i <= w->pipe_count && b->fleet != NULL; i++) {
		struct pipe *p = &w->pipes[i];

		if (!p->tcp && p->far == b->id && p->far_open &&
		    now >= p->far_heard_ms + LINK_SILENCE_MS)
			link_lost_by_leader(w, b, i);
	}
}

/* --- the whole board --- */

static void board_sleep(struct world *w, struct board *b)
{
	uint64_t due = b->raft.role == RAFT_LEADER ? b->raft.beat_us : b->raft.election_us;
	uint64_t ms = b->serving ? board_lease_until(w, b) : UINT64_MAX;

	for (const struct door_session *s = b->sessions; s != NULL; s = s->next) {
		if (s->heard_ms + door_patience_ms(s) < ms)
			ms = s->heard_ms + door_patience_ms(s);
	}
	if (agents_due_ms(b) < ms)
		ms = agents_due_ms(b);
	if (b->link != 0 && b->renew_ms < ms)
		ms = b->renew_ms;
	if (b->link != 0 && w->pipes[b->link].near_heard_ms + LINK_SILENCE_MS < ms)
		ms = w->pipes[b->link].near_heard_ms + LINK_SILENCE_MS;
	if (b->link == 0 && b->fleet == NULL && b->raft.leader != 0 && b->dial_ms < ms)
		ms = b->dial_ms;
	if (b->fleet != NULL && b->fleet_due_ms < ms)
		ms = b->fleet_due_ms;
	if (w->vms && vm_due_ms(b) < ms)
		ms = vm_due_ms(b);
	/* The silence of followers is looked at with every heartbeat of the log. */
	if (ms != UINT64_MAX && board_when_us(b, ms) < due)
		due = board_when_us(b, ms);
	if (due <= w->now_us)
		due = w->now_us + 500;
	world_at(w, due, (struct moment){.kind = MOMENT_BOARD, .a = b->id, .number = ++b->wake});
}

void board_tick(struct world *w, struct board *b)
{
	if (!b->alive)
		return;
	if (b->link != 0 && w->pipes[b->link].term < b->raft.term)
		link_close_by_follower(w, b);
	raft_tick(w, b);
	board_may_act(w, b);
	door_silence(w, b);
	agents_silence(w, b);
	links_silence(w, b);
	if (b->fleet == NULL && b->link == 0 && b->raft.leader != 0 && b->raft.leader != b->id &&
	    clock_of_board(w, b) >= b->dial_ms)
		link_dial(w, b);
	if (b->link != 0 && clock_of_board(w, b) >= b->renew_ms)
		link_renew(w, b);
	board_flush(w, b);
	if (w->vms)
		vm_tick(w, b);
	board_sleep(w, b);
}

void board_parcel(struct world *w, struct board *b, unsigned pipe, struct parcel *p)
{
	if (w->pipes[pipe].tcp)
		door_parcel(w, b, pipe, p);
	else
		link_parcel(w, b, pipe, p);
	board_tick(w, b);
}

void board_boot(struct world *w, struct board *b)
{
	b->alive = true;
	b->frozen_until_us = 0;
	b->epoch = 0;
	b->grant = (struct log_entry){0};
	b->lease = (struct lease){0};
	b->link = 0;
	b->dial_ms = 0;
	b->renew_ms = 0;
	b->serving = false;
	b->fleet_due_ms = UINT64_MAX;
	b->next_session = ++b->boot * 1000;
	raft_start(w, b);
	if (w->vms)
		vm_boot(w, b);
	board_tick(w, b);
}

/* resets: the kernel lives on and resets the connections (kill -9); else the power is gone. */
void board_crash(struct world *w, struct board *b, bool resets)
{
	if (!b->alive)
		return;
	b->alive = false;
	if (w->vms)
		vm_crash(w, b, resets);
	proposals_drop(b);
	fleet_free(b->fleet);
	b->fleet = NULL;
	b->wake++;
	while (b->sessions != NULL) {
		struct door_session *s = b->sessions;

		b->sessions = s->next;
		free(s);
	}
	agents_free(b);
	for (unsigned i = 1; i <= w->pipe_count; i++) {
		struct pipe *p = &w->pipes[i];

		if (p->far == b->id && p->far_open)
			pipe_close(w, i, false, resets);
		if (!p->tcp && p->near == b->id && p->near_open)
			pipe_close(w, i, true, resets);
	}
}
