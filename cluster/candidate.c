#include "cluster/candidate.h"

#include <stdarg.h>
#include <stdio.h>

enum { NOBODY = -1 };

__attribute__((format(printf, 2, 3))) static void say(struct candidate_decision *d,
						      const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(d->reason, sizeof(d->reason), format, args);
	va_end(args);
}

static void give(struct candidate_decision *d, int winner)
{
	d->given = true;
	d->winner = (unsigned)winner;
}

static int wanting(const struct candidates *c, uint32_t id)
{
	for (unsigned i = 0; i < c->count; i++)
		if (c->nodes[i].id == id && c->nodes[i].wanted)
			return (int)i;
	return NOBODY;
}

static int holder(const struct candidates *c)
{
	for (unsigned i = 0; i < c->count; i++)
		if (c->nodes[i].holds && c->nodes[i].wanted)
			return (int)i;
	return NOBODY;
}

static bool attached(const struct candidates *c, uint32_t id)
{
	for (unsigned i = 0; i < c->count; i++)
		if (c->nodes[i].id == id)
			return true;
	return false;
}

/* With itself, more than half of the nodes that it knows of. Of two that is both, and whoever knows
 * of nobody else cannot say. */
static bool sees_majority(const struct candidate *n)
{
	return n->configured_count >= 3 && (n->seen_count + 1) * 2 > n->configured_count;
}

/* Rule 4's exception: somebody who should have it instead of an isolated holder. */
static int rescuer(const struct candidates *c, const struct candidate *held)
{
	if (held->seen_count > 0)
		return NOBODY;
	for (unsigned i = 0; i < c->count; i++) {
		const struct candidate *n = &c->nodes[i];

		if (n != held && n->wanted && sees_majority(n) &&
		    !arbiter_list_has(n->seen, n->seen_count, held->id))
			return (int)i;
	}
	return NOBODY;
}

/* The longest that the nodes here have been alone without `id`; all of them know of it. */
static uint64_t missed_for(const struct candidates *c, uint32_t id)
{
	uint64_t longest = UINT64_MAX;

	for (unsigned i = 0; i < c->count; i++) {
		const struct candidate *n = &c->nodes[i];

		if (!n->wanted || !arbiter_list_has(n->configured, n->configured_count, id))
			continue;
		if (longest == UINT64_MAX || n->attached_ms > longest)
			longest = n->attached_ms;
	}
	return longest;
}

/* A node that is not here and may be worth waiting for; 0: none. */
static uint32_t missing(const struct candidates *c, uint64_t *ret_left_ms)
{
	for (unsigned i = 0; i < c->count; i++) {
		const struct candidate *n = &c->nodes[i];

		for (unsigned k = 0; n->wanted && k < n->configured_count; k++) {
			uint32_t id = n->configured[k];
			uint64_t missed;

			if (attached(c, id) ||
			    (c->policy == TB__LEASE_POLICY__LEASE_POLICY_PREFERRED &&
			     id != c->policy_node))
				continue;
			missed = missed_for(c, id);
			if (missed >= CANDIDATE_WAIT_MS)
				continue;
			*ret_left_ms = CANDIDATE_WAIT_MS - missed;
			return id;
		}
	}
	return 0;
}

static bool waits(const struct candidates *c, struct candidate_decision *ret)
{
	uint32_t id;

	if (c->policy != TB__LEASE_POLICY__LEASE_POLICY_PREFERRED &&
	    c->policy != TB__LEASE_POLICY__LEASE_POLICY_GENERATION)
		return false;
	id = missing(c, &ret->again_ms);
	if (id == 0)
		return false;
	say(ret, "waiting for node %u, which may be the better choice", id);
	return true;
}

static bool better(const struct candidates *c, const struct candidate *a, const struct candidate *b)
{
	if (c->policy == TB__LEASE_POLICY__LEASE_POLICY_GENERATION &&
	    a->generation != b->generation)
		return a->generation > b->generation;
	if (a->seen_count != b->seen_count)
		return a->seen_count > b->seen_count;
	return a->id == c->last && b->id != c->last;
}

static bool outdated(const struct candidates *c, const struct candidate *n)
{
	return c->policy == TB__LEASE_POLICY__LEASE_POLICY_GENERATION &&
	       n->generation < c->generation;
}

static void free_decide(const struct candidates *c, struct candidate_decision *ret)
{
	unsigned wanted = 0;
	int best = NOBODY;

	if (waits(c, ret))
		return;
	for (unsigned i = 0; i < c->count; i++) {
		const struct candidate *n = &c->nodes[i];

		wanted += n->wanted;
		if (n->wanted && !outdated(c, n) &&
		    (best == NOBODY || better(c, n, &c->nodes[best])))
			best = (int)i;
	}
	if (wanted == 0) {
		say(ret, "no node wants the lease");
	} else if (best == NOBODY) {
		say(ret,
		    "the data of every node here is older than generation %llu of the last "
		    "holder, node %u",
		    (unsigned long long)c->generation, c->last);
	} else {
		give(ret, best);
		say(ret,
		    wanted == 1 ? "only node %u wants the lease" : "node %u is the best choice",
		    c->nodes[best].id);
	}
}

static void manual_decide(const struct candidates *c, int held, struct candidate_decision *ret)
{
	int named = wanting(c, c->policy_node);

	if (c->policy_node == 0) {
		say(ret, "the site's policy gives the lease to nobody");
		return;
	}
	if (named == NOBODY && held != NOBODY) {
		give(ret, held);
		say(ret, "node %u has it until node %u, whom the site's policy names, asks for it",
		    c->nodes[held].id, c->policy_node);
		return;
	}
	if (named == NOBODY) {
		say(ret, "by the site's policy the lease is for node %u, which does not ask for it",
		    c->policy_node);
		return;
	}
	give(ret, named);
	say(ret, "node %u has it by the site's policy", c->policy_node);
}

/* False: the preferred node is not to have it now. */
static bool preferred_decide(const struct candidates *c, int held, struct candidate_decision *ret)
{
	int named = wanting(c, c->policy_node);

	if (named == NOBODY)
		return false;
	if (held != NOBODY && held != named && c->nodes[named].attached_ms < CANDIDATE_STEADY_MS) {
		ret->again_ms = CANDIDATE_STEADY_MS - c->nodes[named].attached_ms;
		return false;
	}
	give(ret, named);
	say(ret, "node %u is preferred", c->policy_node);
	return true;
}

void candidate_decide(const struct candidates *c, struct candidate_decision *ret)
{
	int held = holder(c);
	int other;

	*ret = (struct candidate_decision){0};
	if (c->policy == TB__LEASE_POLICY__LEASE_POLICY_MANUAL) {
		manual_decide(c, held, ret);
		return;
	}
	if (c->policy == TB__LEASE_POLICY__LEASE_POLICY_PREFERRED && preferred_decide(c, held, ret))
		return;
	if (held == NOBODY) {
		free_decide(c, ret);
		return;
	}
	other = rescuer(c, &c->nodes[held]);
	give(ret, other != NOBODY ? other : held);
	if (other != NOBODY)
		say(ret, "node %u sees most nodes, the holder node %u sees none",
		    c->nodes[other].id, c->nodes[held].id);
	else
		say(ret, "node %u has it", c->nodes[held].id);
}

uint32_t candidate_own_timeout_ms(uint32_t lease_ms)
{
	/* As for votes: a clock that is 1 % slow, and a loop that is late. */
	return lease_ms + lease_ms / 100 + 1 + ARBITER_REACTION_MS;
}
