/* fleet_lease.c: what is different about sites whose nodes run witness-agent: one of them holds a
 * lease. Who may hold it, who must give it back first and what is committed before an answer is
 * the same as for votes (fleet_site.c); see fleet_site.h for what a ring is here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/fleet_site.h"
#include "lib/mem.h"

static const struct session *site_first(const struct site *s)
{
	for (unsigned i = 0; i < s->member_count; i++)
		if (s->members[i].session != NULL)
			return s->members[i].session;
	return NULL;
}

bool site_of_agents(const struct site *s)
{
	const struct session *first = site_first(s);

	return first != NULL ? first->agent : s->grant_lease;
}

const char *lease_open_problem(const struct site *s, const Tb__SiteNode *n)
{
	if (s->policy.algorithm != TB__ALGORITHM__ALGORITHM_ANY &&
	    s->policy.algorithm != TB__ALGORITHM__ALGORITHM_LEASE)
		return "the site is for corosync-qdevice by its policy; for witness-agent set its "
		       "algorithm to lease or any";
	if (n->lease_ms < LEASE_MIN_MS || n->lease_ms > LEASE_MAX_MS)
		return "the lease must be 3000 to 120000 ms long";
	return NULL;
}

bool lease_supersedes(const struct session *s, const Tb__SiteNode *n)
{
	return s->agent && n->algorithm == TB__ALGORITHM__ALGORITHM_LEASE && n->instance != 0 &&
	       s->instance == n->instance && n->attempt > s->attempt;
}

/* A claim that no grant has been for. */
static void claim_begin(struct session *s)
{
	s->ring = (struct arbiter_ring){s->node_id, s->wanted ? s->site->epoch + 1 : 0};
}

static bool grant_is_for(const struct site *s, uint32_t node_id)
{
	return s->grant_lease && s->grant_nodes.count == 1 && s->grant_nodes.ids[0] == node_id;
}

bool lease_granted_to(const struct site *s, const struct session *x)
{
	return s->epoch != 0 && grant_is_for(s, x->node_id) &&
	       arbiter_ring_equal(&x->ring, &s->grant_ring);
}

/* What the holder has written since it got the lease. A new leader learns it from the holder, or
 * knows what the grant says. */
static void generation_note(const struct session *s)
{
	if (lease_granted_to(s->site, s) && s->generation > s->site->grant_generation)
		s->site->grant_generation = s->generation;
}

void lease_describe(struct session *s, const Tb__SiteNode *n)
{
	s->wanted = n->wanted;
	s->lease_ms = n->lease_ms;
	s->claim = n->claim;
	s->generation = n->generation;
	s->held_epoch = n->held_epoch;
	s->instance = n->instance;
	s->attempt = n->attempt;
	s->name = mem_strdup(n->name);
	node_ids_set(&s->seen, n->seen, n->n_seen);
	node_ids_set(&s->configured, n->configured, n->n_configured);
	node_ids_set(&s->members, &n->node_id, 1);
	/* It goes on with what it holds, wherever it got it. */
	if (s->held_epoch != 0)
		s->may_hold = true;
	if (s->wanted && s->ring.seq != 0)
		return; /* as its board was told */
	if (s->wanted && s->held_epoch != 0 && s->held_epoch == s->site->epoch &&
	    grant_is_for(s->site, s->node_id))
		s->ring = s->site->grant_ring;
	else
		claim_begin(s);
	generation_note(s);
}

bool lease_claimed(struct fleet *f, struct session *s, const Tb__DoorClaim *claim)
{
	bool anew;

	if (!s->agent)
		return false;
	anew = claim->number != s->claim || claim->wanted != s->wanted;
	s->claim = claim->number;
	s->wanted = claim->wanted;
	s->generation = claim->generation;
	s->held_epoch = claim->held_epoch;
	if (s->held_epoch != 0)
		s->may_hold = true;
	node_ids_set(&s->seen, claim->seen, claim->n_seen);
	if (anew)
		claim_begin(s);
	generation_note(s);
	site_settle(f, s->site);
	return true;
}

void lease_released(struct fleet *f, const struct session *s)
{
	Tb__Command *command = mem_alloc(sizeof(*command));
	Tb__EventAdd *add = mem_alloc(sizeof(*add));
	Tb__Event *event = mem_alloc(sizeof(*event));

	tb__event__init(event);
	event->type = mem_strdup("lease.released");
	event->severity = TB__SEVERITY__SEVERITY_INFO;
	event->site = mem_strdup(s->site->name);
	event->message =
		mem_printf("node %u has given the lease of %s back", s->node_id, s->site->name);
	tb__event_add__init(add);
	add->event = event;
	tb__command__init(command);
	command->actor = mem_strdup("arbiter");
	command->op_case = TB__COMMAND__OP_EVENT_ADD;
	command->event_add = add;
	fleet_command(f, command);
}

void lease_note(struct fleet *f, struct site *s)
{
	Tb__Command *command;
	Tb__LeaseNote *note;

	if (s->policy.lease != TB__LEASE_POLICY__LEASE_POLICY_GENERATION || s->noting != 0 ||
	    s->pending_epoch != 0 || s->grant_generation <= s->noted_generation ||
	    f->now_ms < s->note_ms)
		return;
	note = mem_alloc(sizeof(*note));
	tb__lease_note__init(note);
	note->site_id = s->id;
	note->epoch = s->epoch;
	note->generation = s->grant_generation;
	command = mem_alloc(sizeof(*command));
	tb__command__init(command);
	command->actor = mem_strdup("arbiter");
	command->op_case = TB__COMMAND__OP_LEASE_NOTE;
	command->lease_note = note;
	s->noting = note->generation;
	s->note_ms = f->now_ms + FLEET_NOTE_MS;
	fleet_command(f, command);
}

void lease_noted(struct fleet *f, struct site *s, uint64_t generation)
{
	s->noting = 0;
	if (generation <= s->noted_generation)
		return;
	s->noted_generation = generation;
	if (generation > s->grant_generation)
		s->grant_generation = generation;
	for (unsigned i = 0; i < s->member_count; i++) {
		const struct session *x = s->members[i].session;
		Tb__DoorOrder *order;

		if (x == NULL || !x->agent)
			continue;
		order = fleet_order(f, x);
		order->what_case = TB__DOOR_ORDER__WHAT_NOTED;
		order->noted = mem_alloc(sizeof(*order->noted));
		tb__door_noted__init(order->noted);
		order->noted->generation = generation;
	}
}

unsigned lease_decide(const struct fleet *f, const struct site *s, struct session **sessions,
		      struct candidate_decision *ret)
{
	struct candidate nodes[LIMIT_SITE_NODES];
	struct candidates c = {.nodes = nodes,
			       .policy = s->policy.lease,
			       .policy_node = s->policy.lease_node,
			       .generation = s->grant_generation};

	if (s->grant_lease && s->grant_nodes.count == 1)
		c.last = s->grant_nodes.ids[0];
	for (unsigned i = 0; i < s->member_count; i++) {
		struct session *x = s->members[i].session;

		if (x == NULL)
			continue;
		nodes[c.count] = (struct candidate){
			.id = x->node_id,
			.wanted = x->wanted,
			.holds = lease_granted_to(s, x),
			.generation = x->generation,
			.attached_ms = f->now_ms - x->attached_at_ms,
			.seen = x->seen.ids,
			.seen_count = x->seen.count,
			.configured = x->configured.ids,
			.configured_count = x->configured.count,
		};
		sessions[c.count++] = x;
	}
	candidate_decide(&c, ret);
	return c.count;
}

void lease_vote(const struct session *s, Tb__DoorVote *vote)
{
	vote->claim = s->claim;
	vote->generation = s->site->noted_generation;
	if (vote->vote == TB__VOTE__VOTE_ACK)
		vote->epoch = s->site->epoch;
	vote->why = mem_strdup(s->site->why != NULL ? s->site->why : "");
}

/* --- for people --- */

/* Whoever may hold it, with the longest time left. */
Tb__SiteLease *lease_status(const struct fleet *f, const struct site *s)
{
	Tb__SiteLease *lease;
	uint64_t longest = 0;

	if (!site_of_agents(s))
		return NULL;
	lease = mem_alloc(sizeof(*lease));
	tb__site_lease__init(lease);
	lease->epoch = s->epoch;
	for (unsigned i = 0; i < s->member_count; i++) {
		const struct member *m = &s->members[i];
		uint64_t left = m->hold_until_ms > f->now_ms ? m->hold_until_ms - f->now_ms : 0;

		if (m->session != NULL && m->session->may_hold &&
		    session_own_timeout_ms(m->session) > left)
			left = session_own_timeout_ms(m->session);
		if (left <= longest)
			continue;
		longest = left;
		lease->holder = m->node_id;
		lease->left_ms = (uint32_t)left;
	}
	return lease;
}

void lease_node_message(const struct session *s, Tb__SiteNode *n)
{
	n->lease_ms = s->lease_ms;
	n->wanted = s->wanted;
	n->generation = s->generation;
	n->held_epoch = s->held_epoch;
	n->instance = s->instance;
	n->attempt = s->attempt;
	n->claim = s->claim;
	n->name = mem_strdup(s->name);
	n->n_seen = s->seen.count;
	if (s->seen.count > 0)
		n->seen = mem_dup(s->seen.ids, s->seen.count * sizeof(*s->seen.ids));
}
