#include "cluster/fleet_site.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

#ifdef TIEBREAK_SIM_FAULTS
enum fleet_fault fleet_fault;
#endif

/* --- lists of node ids --- */

void node_ids_free(struct node_ids *ids)
{
	free(ids->ids);
	*ids = (struct node_ids){0};
}

static int node_id_order(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

bool node_ids_set(struct node_ids *ret, const uint32_t *ids, size_t count)
{
	uint32_t sorted[LIMIT_SITE_NODES];
	unsigned kept = 0;

	if (count > LIMIT_SITE_NODES)
		return false;
	if (count > 0)
		memcpy(sorted, ids, count * sizeof(*ids));
	qsort(sorted, count, sizeof(*sorted), node_id_order);
	for (size_t i = 0; i < count; i++) {
		if (sorted[i] == 0)
			return false;
		if (kept == 0 || sorted[kept - 1] != sorted[i])
			sorted[kept++] = sorted[i];
	}
	free(ret->ids);
	ret->ids = kept ? mem_dup(sorted, kept * sizeof(*sorted)) : mem_alloc(1);
	ret->count = kept;
	return true;
}

static bool node_ids_has(const struct node_ids *ids, uint32_t id)
{
	return arbiter_list_has(ids->ids, ids->count, id);
}

bool node_ids_equal(const struct node_ids *a, const struct node_ids *b)
{
	return arbiter_list_equal(a->ids, a->count, b->ids, b->count);
}

/* --- sites --- */

static int site_match_name(const struct hash_node *node, const void *key)
{
	return strcmp(list_entry(node, struct site, by_name)->name, key) == 0;
}

static int site_match_id(const struct hash_node *node, const void *key)
{
	return list_entry(node, struct site, by_site_id)->id == *(const uint64_t *)key;
}

struct site *site_find(const struct fleet *f, const char *name)
{
	struct hash_node *n = hash_find(&f->sites, hash_string(name), site_match_name, name);

	return n ? list_entry(n, struct site, by_name) : NULL;
}

struct site *site_find_id(const struct fleet *f, uint64_t id)
{
	struct hash_node *n = hash_find(&f->site_ids, hash_u64(id), site_match_id, &id);

	return n ? list_entry(n, struct site, by_site_id) : NULL;
}

static void site_forget(struct fleet *f, struct site *s)
{
	if (s->known)
		hash_remove(&f->site_ids, &s->by_site_id);
	s->known = false;
	s->pending_epoch = 0;
	s->epoch = 0;
	s->grant_lease = false;
	node_ids_free(&s->grant_nodes);
}

static void site_set_grant(struct site *s, const Tb__Grant *g)
{
	struct node_ids nodes = {0};

	/* The model holds only what this file once proposed; anything else grants nobody. */
	if (!node_ids_set(&nodes, g->nodes, g->n_nodes))
		node_ids_set(&nodes, NULL, 0);
	node_ids_free(&s->grant_nodes);
	s->grant_nodes = nodes;
	s->epoch = g->epoch;
	s->grant_ring = g->ring ? (struct arbiter_ring){g->ring->node, g->ring->seq}
				: (struct arbiter_ring){0};
	s->handover_ms = g->handover_ms;
	s->grant_lease = g->lease;
	s->grant_instance = g->instance;
	s->grant_generation = g->generation;
	s->noted_generation = g->generation;
	s->noting = 0;
}

/* A grant of an earlier leader: who else may hold the vote by it is not known yet. */
static void site_fear_unknown(struct fleet *f, struct site *s)
{
	uint64_t until = f->unknown_until_ms + s->handover_ms;

	if (until <= f->now_ms)
		return;
	s->proof_ms = f->unknown_until_ms + s->id % FLEET_PROOF_SPREAD_MS;
	for (unsigned i = 0; i < s->grant_nodes.count; i++) {
		struct member *m = site_member_add(f, s, s->grant_nodes.ids[i]);

		if (m != NULL && m->hold_until_ms < until) {
			m->hold_until_ms = until;
			m->hold_ring = s->grant_ring;
			m->hold_instance = s->grant_instance;
		}
	}
}

bool site_load(struct fleet *f, struct site *s)
{
	Tb__Site *row = NULL;
	Tb__Grant *grant = NULL;

	if (f->model.site(f->model.arg, s->name, &row, &grant) != 0) {
		site_forget(f, s);
		return false;
	}
	if (s->known && s->id != row->id)
		site_forget(f, s);
	if (!s->known) {
		s->known = true;
		s->id = row->id;
		hash_insert(&f->site_ids, &s->by_site_id, hash_u64(s->id));
	}
	if (row->policy != NULL) {
		s->policy = *row->policy;
		s->policy.base.n_unknown_fields = 0;
		s->policy.base.unknown_fields = NULL;
	} else {
		tb__site_policy__init(&s->policy);
	}
	if (grant != NULL)
		site_granted(f, s, grant);
	tb__site__free_unpacked(row, NULL);
	tb__grant__free_unpacked(grant, NULL);
	return true;
}

struct site *site_open(struct fleet *f, const char *name)
{
	struct site *s = site_find(f, name);

	if (s == NULL) {
		s = mem_zalloc(sizeof(*s));
		s->name = mem_strdup(name);
		list_init(&s->held);
		s->whole_ms = f->now_ms;
		tb__site_policy__init(&s->policy);
		hash_insert(&f->sites, &s->by_name, hash_string(name));
	}
	if (!s->known)
		site_load(f, s);
	return s;
}

void site_free(struct fleet *f, struct site *s)
{
	assert(s->attached == 0 && list_empty(&s->held));
	if (s->known)
		hash_remove(&f->site_ids, &s->by_site_id);
	hash_remove(&f->sites, &s->by_name);
	due_set(&f->due, &s->due, UINT64_MAX);
	if (s->counted)
		f->states[s->state]--;
	node_ids_free(&s->grant_nodes);
	free(s->members);
	free(s->name);
	free(s);
}

/* --- members --- */

static unsigned site_member_place(const struct site *s, uint32_t node_id)
{
	unsigned low = 0;
	unsigned high = s->member_count;

	while (low < high) {
		unsigned middle = low + (high - low) / 2;

		if (s->members[middle].node_id < node_id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct member *site_member(struct site *s, uint32_t node_id)
{
	unsigned at = site_member_place(s, node_id);

	if (at == s->member_count || s->members[at].node_id != node_id)
		return NULL;
	return &s->members[at];
}

static bool member_feared(const struct fleet *f, const struct member *m)
{
	return m->hold_until_ms > f->now_ms;
}

static bool fleet_settled(const struct fleet *f)
{
	return f->now_ms >= f->unknown_until_ms;
}

/* Forgets who is neither attached nor a holder. */
static void site_purge(const struct fleet *f, struct site *s)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < s->member_count; i++) {
		struct member *m = &s->members[i];

		if (m->session != NULL || member_feared(f, m))
			s->members[kept++] = *m;
	}
	s->member_count = kept;
}

struct member *site_member_add(struct fleet *f, struct site *s, uint32_t node_id)
{
	struct member *m = site_member(s, node_id);
	unsigned at;

	if (m != NULL)
		return m;
	/* A grant's nodes and as many attached ones. */
	if (s->member_count >= 2 * LIMIT_SITE_NODES)
		site_purge(f, s);
	if (s->member_count >= 2 * LIMIT_SITE_NODES)
		return NULL;
	at = site_member_place(s, node_id);
	s->members = mem_realloc(s->members, (s->member_count + 1) * sizeof(*s->members));
	memmove(&s->members[at + 1], &s->members[at], (s->member_count - at) * sizeof(*s->members));
	s->member_count++;
	s->members[at] = (struct member){.node_id = node_id};
	return &s->members[at];
}

/* --- sessions --- */

uint32_t session_own_timeout_ms(const struct session *s)
{
	uint32_t ms = s->agent ? candidate_own_timeout_ms(s->lease_ms)
			       : arbiter_own_timeout_ms(s->heartbeat_ms, s->site->policy.handover);

	return FLEET_FAULTY(FLEET_FAULT_SHORT_HANDOVER) ? ms / 2 : ms;
}

void session_vote(struct fleet *f, struct session *s, Tb__Vote vote)
{
	Tb__DoorOrder *order = fleet_order(f, s);
	Tb__DoorVote *v = mem_alloc(sizeof(*v));

	tb__door_vote__init(v);
	v->ring = mem_alloc(sizeof(*v->ring));
	tb__ring_id__init(v->ring);
	v->ring->node = s->ring.node;
	v->ring->seq = s->ring.seq;
	v->vote = vote;
	v->ticket = ++f->ticket;
	if (s->agent)
		lease_vote(s, v);
	order->what_case = TB__DOOR_ORDER__WHAT_VOTE;
	order->vote = v;
	s->vote = (uint8_t)vote;
	s->last_result = (uint8_t)vote;
	s->result_ring = s->ring;
	s->stands = true;
	s->ticket = v->ticket;
	s->proving = fleet_settled(f);
	if (vote == TB__VOTE__VOTE_ACK)
		s->may_hold = true;
}

/* What is feared of the node is held by another process than the one that is attached. */
static bool hold_foreign(const struct fleet *f, const struct member *m)
{
	return member_feared(f, m) && m->session != NULL && m->session->agent &&
	       m->hold_instance != 0 && m->hold_instance != m->session->instance &&
	       !FLEET_FAULTY(FLEET_FAULT_ANY_INSTANCE);
}

void session_proven(const struct fleet *f, struct session *s, bool answered)
{
	struct member *m = site_member(s->site, s->node_id);

	if (hold_foreign(f, m))
		return;
	if (answered ? s->proving : s->settled)
		m->hold_until_ms = 0;
}

/* The session may hold what its member is feared for from now on. */
static void hold_note(const struct fleet *f, struct member *m, const struct session *s)
{
	bool other =
		member_feared(f, m) && m->hold_instance != 0 && m->hold_instance != s->instance;

	m->hold_instance = other ? HOLD_OF_SEVERAL : s->instance;
}

void session_end(struct fleet *f, struct session *s, uint64_t hold_until_ms, enum member_gone gone)
{
	struct site *site = s->site;

	if (s->held != NULL) {
		list_remove(&s->of_site);
		tb__door_event__free_unpacked(s->held, NULL);
	} else {
		struct member *m = site_member(site, s->node_id);

		assert(m != NULL && m->session == s);
		m->session = NULL;
		if (s->may_hold && hold_until_ms > f->now_ms)
			hold_note(f, m, s);
		if (s->may_hold && hold_until_ms > m->hold_until_ms) {
			m->hold_until_ms = hold_until_ms;
			m->hold_ring = s->ring.seq > s->result_ring.seq ? s->ring : s->result_ring;
			m->gone = gone;
		}
		site->attached--;
		f->session_count--;
	}
	list_remove(&s->of_door);
	hash_remove(&f->sessions, &s->by_id);
	node_ids_free(&s->configured);
	node_ids_free(&s->members);
	node_ids_free(&s->seen);
	free(s->address);
	free(s->name);
	free(s);
}

/* Is `vote` for its present ring what the client acts on already? */
static bool session_acts_on(const struct session *s, Tb__Vote vote)
{
	return s->stands && s->last_result == vote && arbiter_ring_equal(&s->result_ring, &s->ring);
}

static void session_tell(struct fleet *f, struct session *s, Tb__Vote vote)
{
	if (!session_acts_on(s, vote))
		session_vote(f, s, vote);
}

/* --- the decision --- */

/* Where the decision stands; see the top of fleet_site.h. */
struct outcome {
	struct arbiter_decision decision;
	struct arbiter_ring ring; /* of the winner */
	struct node_ids nodes; /* of the winner; borrowed */
	unsigned absent; /* absent holders outside the winning ring */
	unsigned unconfirmed; /* attached holders outside the winning ring */
	const struct member *blocker; /* one of them: absent, with the latest end, goes first */
	bool lease; /* of agents */
	uint64_t generation; /* of the winner's data */
	uint64_t instance; /* of the winner's agent */
	uint64_t again_ms; /* duration: the decision may change then without news; 0: never */
};

static bool session_starting(const struct fleet *f, const struct session *s)
{
	return f->now_ms < s->attached_at_ms + FLEET_STARTING_MS;
}

/* The nodes as the arbiter sees them; returns how many. */
static unsigned site_nodes(const struct fleet *f, const struct site *s, struct arbiter_node *nodes,
			   struct session **sessions)
{
	unsigned count = 0;

	for (unsigned i = 0; i < s->member_count; i++) {
		struct session *x = s->members[i].session;

		if (x == NULL)
			continue;
		nodes[count] = (struct arbiter_node){
			.id = x->node_id,
			.ring = x->ring,
			.configured = x->configured.ids,
			.configured_count = x->configured.count,
			.members = x->members.ids,
			.member_count = x->members.count,
			.heuristics = x->heuristics,
			.keep_active = x->keep_active,
			.starting = session_starting(f, x),
			.judged = x->judged,
			.holds = x->last_result == TB__VOTE__VOTE_ACK,
		};
		sessions[count++] = x;
	}
	return count;
}

static bool ring_outdated(const struct arbiter_ring *ring, const struct arbiter_ring *seen)
{
	return ring->seq <= seen->seq && !arbiter_ring_equal(ring, seen);
}

/* Whatever it holds does no harm to the winner. */
static bool member_harmless(const struct fleet *f, const struct outcome *o, const struct member *m)
{
	return node_ids_has(&o->nodes, m->node_id) && !hold_foreign(f, m) &&
	       !(member_feared(f, m) && ring_outdated(&o->ring, &m->hold_ring));
}

static void site_find_blockers(const struct fleet *f, const struct site *s, struct outcome *o)
{
	o->absent = 0;
	o->unconfirmed = 0;
	o->blocker = NULL;
	for (unsigned i = 0; i < s->member_count; i++) {
		const struct member *m = &s->members[i];

		if (member_harmless(f, o, m))
			continue;
		if (member_feared(f, m) &&
		    (m->session == NULL || !fleet_settled(f) || hold_foreign(f, m))) {
			if (o->absent++ == 0 || m->hold_until_ms > o->blocker->hold_until_ms)
				o->blocker = m;
		} else if (m->session != NULL && (m->session->may_hold || member_feared(f, m))) {
			o->unconfirmed++;
			if (o->blocker == NULL)
				o->blocker = m;
		}
	}
	if (FLEET_FAULTY(FLEET_FAULT_NO_REFUSAL_WAIT))
		o->unconfirmed = 0;
}

static void site_decide_lease(const struct fleet *f, const struct site *s, struct outcome *o)
{
	struct session *sessions[LIMIT_SITE_NODES];
	struct candidate_decision d;
	const struct session *winner;

	lease_decide(f, s, sessions, &d);
	o->lease = true;
	o->again_ms = d.again_ms;
	o->decision.verdict = d.given ? ARBITER_WINNER : ARBITER_NOBODY;
	memcpy(o->decision.reason, d.reason, sizeof(d.reason));
	if (!d.given)
		return;
	winner = sessions[d.winner];
	o->ring = winner->ring;
	o->nodes = winner->members;
	o->generation = winner->generation;
	o->instance = winner->instance;
	site_find_blockers(f, s, o);
}

static void site_decide(const struct fleet *f, const struct site *s, struct outcome *o)
{
	struct arbiter_node nodes[LIMIT_SITE_NODES];
	struct session *sessions[LIMIT_SITE_NODES];
	struct arbiter_site a = {
		.nodes = nodes,
		.keep_active = s->policy.keep_active_partition,
		.last = s->grant_nodes.ids,
		.last_count = s->grant_nodes.count,
	};
	struct session *winner;

	*o = (struct outcome){0};
	if (s->attached > 0 && site_of_agents(s)) {
		site_decide_lease(f, s, o);
		return;
	}
	a.count = site_nodes(f, s, nodes, sessions);
	if (a.count > 0) {
		a.algorithm = sessions[0]->algorithm;
		a.tie_breaker = sessions[0]->tie_breaker;
		a.tie_breaker_node = sessions[0]->tie_breaker_node;
	}
	arbiter_decide(&a, &o->decision);
	if (o->decision.verdict != ARBITER_WINNER)
		return;
	winner = sessions[o->decision.winner];
	o->ring = winner->ring;
	o->nodes = winner->members;
	site_find_blockers(f, s, o);
}

static bool session_wins(const struct outcome *o, const struct session *x)
{
	return x->members.ids != NULL && arbiter_ring_equal(&x->ring, &o->ring) &&
	       node_ids_has(&o->nodes, x->node_id);
}

static void session_refuse(struct fleet *f, const struct outcome *o, const struct member *m)
{
	struct session *x = m->session;
	bool feared = member_feared(f, m) && fleet_settled(f) && !hold_foreign(f, m);

	/* It has not asked yet, and a client ends for good if it is told before that. */
	if (x->members.ids == NULL)
		return;
	/* A refusal that was confirmed too early to prove anything is sent again. */
	if (feared && session_acts_on(x, TB__VOTE__VOTE_NACK) && (x->ticket == 0 || !x->proving))
		session_vote(f, x, TB__VOTE__VOTE_NACK);
	session_tell(f, x, TB__VOTE__VOTE_NACK);
	if (!o->decision.newcomers)
		x->judged = true;
}

/* It holds the vote by the committed grant. */
static bool session_standing(const struct site *s, const struct session *x)
{
	return s->epoch != 0 && arbiter_ring_equal(&x->ring, &s->grant_ring) &&
	       node_ids_has(&s->grant_nodes, x->node_id) && session_acts_on(x, TB__VOTE__VOTE_ACK);
}

static void site_refuse_losers(struct fleet *f, struct site *s, const struct outcome *o)
{
	for (unsigned i = 0; i < s->member_count; i++) {
		struct session *x = s->members[i].session;

		if (x == NULL)
			continue;
		if (o->decision.verdict == ARBITER_WINNER) {
			if (session_wins(o, x))
				continue;
			/* The vote cannot move before the absent holders' time is over. Taking it
			 * from those who have it would only leave the site without. */
			if (o->absent > 0 && session_standing(s, x))
				continue;
		}
		session_refuse(f, o, &s->members[i]);
	}
}

static void site_ack(struct fleet *f, struct site *s, const struct outcome *o)
{
	for (unsigned i = 0; i < s->member_count; i++) {
		struct session *x = s->members[i].session;

		if (x == NULL || !session_wins(o, x))
			continue;
		session_tell(f, x, TB__VOTE__VOTE_ACK);
		x->judged = true;
	}
}

/* The longest own timeout of those who are about to get the vote. */
static uint32_t site_handover_ms(const struct site *s, const struct outcome *o)
{
	uint32_t longest = 0;

	for (unsigned i = 0; i < s->member_count; i++) {
		const struct session *x = s->members[i].session;

		if (x != NULL && session_wins(o, x) && session_own_timeout_ms(x) > longest)
			longest = session_own_timeout_ms(x);
	}
	return longest;
}

static bool site_grant_fits(const struct site *s, const struct outcome *o)
{
	return s->epoch != 0 && arbiter_ring_equal(&s->grant_ring, &o->ring) &&
	       node_ids_equal(&s->grant_nodes, &o->nodes) &&
	       s->handover_ms >= site_handover_ms(s, o);
}

static void site_propose(struct fleet *f, struct site *s, const struct outcome *o)
{
	Tb__Command *command = mem_alloc(sizeof(*command));
	Tb__GrantSet *set = mem_alloc(sizeof(*set));
	Tb__Grant *g = mem_alloc(sizeof(*g));

	tb__grant__init(g);
	g->site_id = s->id;
	g->epoch = s->epoch + 1;
	g->ring = mem_alloc(sizeof(*g->ring));
	tb__ring_id__init(g->ring);
	g->ring->node = o->ring.node;
	g->ring->seq = o->ring.seq;
	g->n_nodes = o->nodes.count;
	g->nodes = mem_dup(o->nodes.ids, o->nodes.count * sizeof(*o->nodes.ids));
	g->reason = mem_strdup(o->decision.reason);
	g->handover_ms = site_handover_ms(s, o);
	g->lease = o->lease;
	g->generation = o->generation;
	g->instance = o->instance;
	tb__grant_set__init(set);
	set->grant = g;
	set->after_epoch = s->epoch;
	tb__command__init(command);
	command->actor = mem_strdup("arbiter");
	command->op_case = TB__COMMAND__OP_GRANT_SET;
	command->grant_set = set;
	s->pending_epoch = g->epoch;
	s->pending_ring = o->ring;
	fleet_command(f, command);
}

/* The committed grant goes on while no new decision is possible: who comes back to it in time,
 * with the same ring, finds its vote. */
static void site_serve_standing(struct fleet *f, struct site *s)
{
	struct outcome o = {.ring = s->grant_ring, .nodes = s->grant_nodes};

	if (s->epoch == 0)
		return;
	site_find_blockers(f, s, &o);
	if (o.absent > 0 || o.unconfirmed > 0 || !site_grant_fits(s, &o))
		return;
	for (unsigned i = 0; i < s->member_count; i++) {
		struct session *x = s->members[i].session;

		/* One that was refused stays so until there is a decision. */
		if (x == NULL || !session_wins(&o, x) || session_acts_on(x, TB__VOTE__VOTE_NACK))
			continue;
		session_tell(f, x, TB__VOTE__VOTE_ACK);
		x->judged = true;
	}
}

static void site_act(struct fleet *f, struct site *s, const struct outcome *o)
{
	switch (o->decision.verdict) {
	case ARBITER_UNSTABLE:
		site_serve_standing(f, s);
		return;
	case ARBITER_NOBODY:
		site_refuse_losers(f, s, o);
		return;
	case ARBITER_WINNER:
		site_refuse_losers(f, s, o);
		break;
	}
	if (o->absent > 0 || o->unconfirmed > 0 || f->now_ms < s->retry_ms)
		return;
	if (site_grant_fits(s, o)) {
		site_ack(f, s, o);
		return;
	}
	site_propose(f, s, o);
	if (FLEET_FAULTY(FLEET_FAULT_ACK_BEFORE_COMMIT))
		site_ack(f, s, o);
}

/* A new leader repeats the vote, once, to have proof of who is where: else the nodes of a former
 * leader's grant would be feared for as long as if they were silent. */
static void site_seek_proof(struct fleet *f, struct site *s)
{
	if (s->proof_ms == 0 || f->now_ms < s->proof_ms)
		return;
	s->proof_ms = 0;
	for (unsigned i = 0; i < s->member_count; i++) {
		struct session *x = s->members[i].session;

		if (x != NULL && member_feared(f, &s->members[i]) && session_standing(s, x))
			session_vote(f, x, TB__VOTE__VOTE_ACK);
	}
}

/* After a restore. A site that had a lease when the backup was taken may have one still. */
static uint64_t site_held_until(const struct fleet *f, const struct site *s)
{
	return site_of_agents(s) || s->grant_lease ? f->hold_leases_until_ms
						   : f->hold_votes_until_ms;
}

/* The next time at which something may change without an event. */
static uint64_t site_due(const struct fleet *f, const struct site *s)
{
	uint64_t due = UINT64_MAX;

	if (f->now_ms < site_held_until(f, s))
		return site_held_until(f, s);
	if (s->retry_ms > f->now_ms)
		due = s->retry_ms;
	if (s->again_ms > f->now_ms && s->again_ms < due)
		due = s->again_ms;
	if (s->note_ms > f->now_ms && s->note_ms < due)
		due = s->note_ms;
	/* A site whose grant is on its way is settled again when that is known. */
	if (s->proof_ms != 0 && s->known && s->pending_epoch == 0 && s->proof_ms < due)
		due = s->proof_ms;
	for (unsigned i = 0; i < s->member_count; i++) {
		const struct member *m = &s->members[i];
		const struct session *x = m->session;
		uint64_t starting = x ? x->attached_at_ms + FLEET_STARTING_MS : 0;

		if (member_feared(f, m) && m->hold_until_ms < due)
			due = m->hold_until_ms;
		if (member_feared(f, m) && !fleet_settled(f) && f->unknown_until_ms < due)
			due = f->unknown_until_ms;
		if (x != NULL && (x->members.ids == NULL || x->configured.ids == NULL) &&
		    starting > f->now_ms && starting < due)
			due = starting;
	}
	return due;
}

/* The longest list that an attached node has told. */
static unsigned site_configured(const struct site *s)
{
	unsigned configured = 0;

	for (unsigned i = 0; i < s->member_count; i++) {
		const struct session *x = s->members[i].session;

		if (x != NULL && x->configured.count > configured)
			configured = x->configured.count;
	}
	return configured;
}

static Tb__SiteState site_state(const struct site *s)
{
	const struct session *first = NULL;
	unsigned configured = site_configured(s);
	bool given = false;
	bool split = false;

	if (s->attached == 0)
		return TB__SITE_STATE__SITE_STATE_OFFLINE;
	for (unsigned i = 0; i < s->member_count; i++) {
		const struct session *x = s->members[i].session;

		if (x == NULL)
			continue;
		given |= session_acts_on(x, TB__VOTE__VOTE_ACK);
		if (x->members.ids == NULL || x->agent)
			continue;
		if (first == NULL)
			first = x;
		split |= !arbiter_ring_equal(&first->ring, &x->ring);
	}
	if (split)
		return TB__SITE_STATE__SITE_STATE_SPLIT;
	if (!given)
		return TB__SITE_STATE__SITE_STATE_UNDECIDED;
	return s->attached < configured ? TB__SITE_STATE__SITE_STATE_DEGRADED
					: TB__SITE_STATE__SITE_STATE_WHOLE;
}

static void site_count(struct fleet *f, struct site *s)
{
	bool whole = s->attached > 0 && s->attached >= site_configured(s);

	if (whole || s->whole)
		s->whole_ms = f->now_ms;
	s->whole = whole;
	if (s->counted)
		f->states[s->state]--;
	s->counted = s->attached > 0;
	s->state = (uint8_t)site_state(s);
	if (s->counted)
		f->states[s->state]++;
}

void site_settle(struct fleet *f, struct site *s)
{
	struct outcome o;
	uint64_t due;

	site_purge(f, s);
	if (f->now_ms < site_held_until(f, s)) {
		s->unstable = true;
	} else if (s->known && s->pending_epoch == 0) {
		site_seek_proof(f, s);
		site_decide(f, s, &o);
		s->unstable = o.decision.verdict == ARBITER_UNSTABLE;
		s->again_ms = o.again_ms != 0 ? f->now_ms + o.again_ms : 0;
		s->why = o.decision.reason;
		site_act(f, s, &o);
		s->why = NULL;
		lease_note(f, s);
	}
	site_count(f, s);
	if (s->member_count == 0 && list_empty(&s->held) && s->pending_epoch == 0 &&
	    !s->registering) {
		site_free(f, s);
		return;
	}
	due = site_due(f, s);
	assert(due > f->now_ms);
	due_set(&f->due, &s->due, due);
}

void site_granted(struct fleet *f, struct site *s, const Tb__Grant *grant)
{
	bool ours = s->pending_epoch != 0 && grant->epoch == s->pending_epoch &&
		    grant->ring != NULL && grant->ring->node == s->pending_ring.node &&
		    grant->ring->seq == s->pending_ring.seq;

	if (grant->epoch == s->epoch && grant->lease)
		lease_noted(f, s, grant->generation);
	if (grant->epoch <= s->epoch)
		return;
	site_set_grant(s, grant);
	if (grant->epoch >= s->pending_epoch)
		s->pending_epoch = 0;
	if (!ours)
		site_fear_unknown(f, s);
}

/* --- for people --- */

static void blocker_text(const struct fleet *f, const struct member *m, const char *what,
			 char *text, size_t size)
{
	uint64_t left = m->hold_until_ms > f->now_ms ? m->hold_until_ms - f->now_ms : 0;
	unsigned long long seconds = (left + 999) / 1000;

	if (hold_foreign(f, m)) {
		snprintf(text, size,
			 "an earlier start of the agent of node %u, or another machine with its "
			 "id, may have the %s, which ends in %llu s",
			 m->node_id, what, seconds);
		return;
	}
	if (m->session != NULL) {
		snprintf(text, size, "waiting for node %u to confirm that it lost the %s",
			 m->node_id, what);
		return;
	}
	switch (m->gone) {
	case GONE_UNKNOWN:
		snprintf(text, size,
			 "node %u had the %s under an earlier leader and is not back; "
			 "its %s ends in %llu s",
			 m->node_id, what, what, seconds);
		return;
	case GONE_CLOSED:
		snprintf(text, size, "node %u was cut off with the %s, which ends in %llu s",
			 m->node_id, what, seconds);
		return;
	case GONE_BOARD:
		snprintf(text, size,
			 "the board of node %u was lost; the %s of this node ends in %llu s",
			 m->node_id, what, seconds);
		return;
	}
}

static void site_reason(const struct fleet *f, const struct site *s, char *text, size_t size)
{
	struct outcome o;

	if (s->attached == 0) {
		snprintf(text, size, "no node is attached");
		return;
	}
	if (f->now_ms < site_held_until(f, s)) {
		snprintf(text, size,
			 "the cluster was restored: a %s of before may be held for %llu s more",
			 site_of_agents(s) ? "lease" : "vote",
			 (unsigned long long)(site_held_until(f, s) - f->now_ms + 999) / 1000);
		return;
	}
	site_decide(f, s, &o);
	if (s->pending_epoch != 0)
		snprintf(text, size, "the decision is being committed: %s", o.decision.reason);
	else if (o.blocker != NULL && (o.absent > 0 || o.unconfirmed > 0))
		blocker_text(f, o.blocker, o.lease ? "lease" : "vote", text, size);
	else
		snprintf(text, size, "%s", o.decision.reason);
}

static Tb__RingId *ring_message(const struct arbiter_ring *ring)
{
	Tb__RingId *m = mem_alloc(sizeof(*m));

	tb__ring_id__init(m);
	m->node = ring->node;
	m->seq = ring->seq;
	return m;
}

static Tb__SiteNode *session_message(const struct session *x)
{
	Tb__SiteNode *n = mem_alloc(sizeof(*n));

	tb__site_node__init(n);
	n->node_id = x->node_id;
	n->address = mem_strdup(x->address);
	if (x->local.len != 0) {
		n->local = mem_alloc(IP_TEXT);
		ip_format(&x->local, n->local);
	}
	n->board = x->door;
	n->tls = x->tls;
	n->certificate = x->certificate;
	n->heartbeat_ms = x->heartbeat_ms;
	n->algorithm = x->algorithm;
	n->tie_breaker = x->tie_breaker;
	n->tie_breaker_node = x->tie_breaker_node;
	n->keep_active_partition = x->keep_active;
	n->config_version = x->config_version;
	n->config_version_set = x->config_version_set;
	n->n_configured = x->configured.count;
	if (x->configured.count > 0)
		n->configured = mem_dup(x->configured.ids,
					x->configured.count * sizeof(*x->configured.ids));
	n->ring = ring_message(&x->ring);
	n->n_members = x->members.count;
	if (x->members.count > 0)
		n->members = mem_dup(x->members.ids, x->members.count * sizeof(*x->members.ids));
	n->heuristics = x->heuristics;
	n->membership_heuristics = x->membership_heuristics;
	n->regular_heuristics = x->regular_heuristics;
	n->vote = x->vote;
	n->last_result = x->last_result;
	n->attached_ms = x->attached_ms;
	if (x->agent)
		lease_node_message(x, n);
	n->rtt_ms = x->rtt_ms;
	return n;
}

Tb__SiteStatus *fleet_site_status(const struct fleet *f, const char *name, const Tb__Grant *grant)
{
	const struct site *s = site_find(f, name);
	Tb__SiteStatus *status = mem_alloc(sizeof(*status));
	char reason[LIMIT_MESSAGE + 64];
	unsigned count = 0;

	tb__site_status__init(status);
	if (grant != NULL) {
		size_t size = tb__grant__get_packed_size(grant);
		uint8_t *packed = mem_alloc(size);

		tb__grant__pack(grant, packed);
		status->grant = tb__grant__unpack(NULL, size, packed);
		free(packed);
	}
	if (s == NULL) {
		bool early = f->now_ms < f->unknown_until_ms;

		status->state = early ? TB__SITE_STATE__SITE_STATE_UNKNOWN
				      : TB__SITE_STATE__SITE_STATE_OFFLINE;
		status->reason = mem_strdup(early ? "the leader is new and has not heard of it yet"
						  : "no node is attached");
		return status;
	}
	site_reason(f, s, reason, sizeof(reason));
	status->reason = mem_strdup(reason);
	status->state = site_state(s);
	status->nodes = mem_array(s->attached, sizeof(*status->nodes));
	for (unsigned i = 0; i < s->member_count; i++) {
		if (s->members[i].session != NULL)
			status->nodes[count++] = session_message(s->members[i].session);
	}
	status->n_nodes = count;
	status->lease = lease_status(f, s);
	return status;
}

bool fleet_site_watch(const struct fleet *f, const char *name, struct fleet_watch *ret,
		      uint64_t now_ms)
{
	const struct site *s = site_find(f, name);

	ret->count = 0;
	if (s == NULL || s->attached == 0)
		return false;
	ret->configured = site_configured(s);
	ret->agents = site_of_agents(s);
	ret->missing_ms =
		s->attached < ret->configured && now_ms > s->whole_ms ? now_ms - s->whole_ms : 0;
	for (unsigned i = 0; i < s->member_count && ret->count < LIMIT_SITE_NODES; i++) {
		const struct session *x = s->members[i].session;

		if (x != NULL)
			ret->nodes[ret->count++] = (struct alarm_site_node){
				.node_id = x->node_id,
				.address = x->address,
				.board = x->door,
				.board_zone = "",
				.rtt_ms = x->rtt_ms,
				.within_ms = x->agent ? x->lease_ms / LEASE_ANSWER_PARTS
						      : x->heartbeat_ms,
			};
	}
	return true;
}
