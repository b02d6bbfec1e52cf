#include "cluster/arbiter.h"

#include <stdio.h>
#include <string.h>

bool arbiter_ring_equal(const struct arbiter_ring *a, const struct arbiter_ring *b)
{
	return a->node == b->node && a->seq == b->seq;
}

bool arbiter_list_has(const uint32_t *ids, unsigned count, uint32_t id)
{
	unsigned low = 0;

	while (low < count) {
		unsigned middle = low + (count - low) / 2;

		if (ids[middle] == id)
			return true;
		if (ids[middle] < id)
			low = middle + 1;
		else
			count = middle;
	}
	return false;
}

bool arbiter_list_equal(const uint32_t *a, unsigned a_count, const uint32_t *b, unsigned b_count)
{
	return a_count == b_count && (a_count == 0 || memcmp(a, b, a_count * sizeof(*a)) == 0);
}

void arbiter_list_text(const uint32_t *ids, unsigned count, char *text, size_t size)
{
	enum { NAMED = 6 };
	unsigned named = count > NAMED + 1 ? NAMED : count;
	size_t used = 0;

	snprintf(text, size, "%s", count == 0 ? "no node" : count == 1 ? "node " : "nodes ");
	for (unsigned i = 0; i < named; i++) {
		const char *before = i == 0 ? "" : i + 1 == count ? " and " : ", ";

		used = strlen(text);
		snprintf(text + used, size - used, "%s%u", before, ids[i]);
	}
	used = strlen(text);
	if (named < count)
		snprintf(text + used, size - used, " and %u more", count - named);
}

uint32_t arbiter_own_timeout_ms(uint32_t heartbeat_ms, Tb__Handover handover)
{
	uint64_t ms = handover == TB__HANDOVER__HANDOVER_FAST ? (uint64_t)heartbeat_ms * 3 / 2
							      : (uint64_t)heartbeat_ms * 2;

	ms += ms / 100 + ARBITER_REACTION_MS;
	return ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
}

/* --- what the algorithms share --- */

static bool node_has_ring(const struct arbiter_node *n)
{
	return n->members != NULL && n->ring.seq != 0;
}

/* Has told all that the algorithm needs. */
static bool node_listed(const struct arbiter_site *s, const struct arbiter_node *n)
{
	if (!node_has_ring(n) || !arbiter_list_has(n->members, n->member_count, n->id))
		return false;
	return s->algorithm != TB__ALGORITHM__ALGORITHM_FFSPLIT || n->configured_count > 0;
}

static bool node_sees(const struct arbiter_node *n, uint32_t id)
{
	return arbiter_list_has(n->members, n->member_count, id);
}

static bool nodes_together(const struct arbiter_node *a, const struct arbiter_node *b)
{
	return arbiter_ring_equal(&a->ring, &b->ring);
}

static void reason_set(struct arbiter_decision *d, const char *text)
{
	snprintf(d->reason, sizeof(d->reason), "%s", text);
}

/* Do two reports contradict each other? Then one of them is about to be replaced. */
static bool nodes_disagree(const struct arbiter_site *s, const struct arbiter_node *a,
			   const struct arbiter_node *b, struct arbiter_decision *d)
{
	if (s->algorithm == TB__ALGORITHM__ALGORITHM_FFSPLIT &&
	    !arbiter_list_equal(a->configured, a->configured_count, b->configured,
				b->configured_count)) {
		snprintf(d->reason, sizeof(d->reason),
			 "nodes %u and %u have different node lists in corosync.conf", a->id,
			 b->id);
		return true;
	}
	if (nodes_together(a, b)) {
		if (arbiter_list_equal(a->members, a->member_count, b->members, b->member_count))
			return false;
		snprintf(d->reason, sizeof(d->reason),
			 "nodes %u and %u report different members of the same ring", a->id, b->id);
		return true;
	}
	if (!node_sees(a, b->id) && !node_sees(b, a->id))
		return false;
	snprintf(d->reason, sizeof(d->reason),
		 "nodes %u and %u report different rings, and one still counts the other in", a->id,
		 b->id);
	return true;
}

static bool site_stable(const struct arbiter_site *s, struct arbiter_decision *d)
{
	bool any = false;

	for (unsigned i = 0; i < s->count; i++) {
		if (!node_listed(s, &s->nodes[i]))
			continue;
		any = true;
		for (unsigned j = i + 1; j < s->count; j++) {
			if (node_listed(s, &s->nodes[j]) &&
			    nodes_disagree(s, &s->nodes[i], &s->nodes[j], d))
				return false;
		}
	}
	if (!any)
		reason_set(d, "no attached node has reported its membership yet");
	return any;
}

/* A node that has just attached and belongs to no partition yet may change who wins. */
static bool winner_awaits(const struct arbiter_site *s, struct arbiter_decision *d)
{
	const struct arbiter_node *winner = &s->nodes[d->winner];

	for (unsigned i = 0; i < s->count; i++) {
		const struct arbiter_node *n = &s->nodes[i];

		if (node_listed(s, n) || !n->starting)
			continue;
		if (node_sees(winner, n->id) && nodes_together(winner, n))
			continue;
		snprintf(d->reason, sizeof(d->reason),
			 "node %u has just attached and has not reported its membership yet",
			 n->id);
		return true;
	}
	return false;
}

struct partition {
	unsigned first; /* the node of lowest id that stands for it */
	unsigned connected; /* of its members */
	int score;
	bool judged; /* one of them at least is not a newcomer */
	bool holds; /* one of them at least holds the vote */
};

static int heuristics_score(Tb__Heuristics h)
{
	if (h == TB__HEURISTICS__HEURISTICS_PASS)
		return 1;
	return h == TB__HEURISTICS__HEURISTICS_FAIL ? -1 : 0;
}

static void partition_measure(const struct arbiter_site *s, unsigned first, struct partition *p)
{
	*p = (struct partition){.first = first};
	for (unsigned i = 0; i < s->count; i++) {
		const struct arbiter_node *n = &s->nodes[i];

		if (!node_listed(s, n) || !nodes_together(n, &s->nodes[first]))
			continue;
		p->connected++;
		p->score += 1 + heuristics_score(n->heuristics);
		p->judged |= n->judged;
		p->holds |= n->holds;
	}
}

/* The first node of each ring. */
static unsigned site_partitions(const struct arbiter_site *s, struct partition *parts)
{
	unsigned count = 0;

	for (unsigned i = 0; i < s->count; i++) {
		bool seen = false;

		if (!node_listed(s, &s->nodes[i]))
			continue;
		for (unsigned k = 0; k < count && !seen; k++)
			seen = nodes_together(&s->nodes[parts[k].first], &s->nodes[i]);
		if (!seen)
			partition_measure(s, i, &parts[count++]);
	}
	return count;
}

/* Which node breaks a tie, of `ids` (sorted, not empty). */
static uint32_t site_tie_breaker(const struct arbiter_site *s, const uint32_t *ids, unsigned count)
{
	if (s->tie_breaker == TB__TIE_BREAKER__TIE_BREAKER_NODE)
		return s->tie_breaker_node;
	return s->tie_breaker == TB__TIE_BREAKER__TIE_BREAKER_HIGHEST ? ids[count - 1] : ids[0];
}

static void tie_breaker_text(const struct arbiter_site *s, char *text, size_t size)
{
	if (s->tie_breaker == TB__TIE_BREAKER__TIE_BREAKER_NODE)
		snprintf(text, size, "the tie-breaker node %u", s->tie_breaker_node);
	else if (s->tie_breaker == TB__TIE_BREAKER__TIE_BREAKER_HIGHEST)
		snprintf(text, size, "the highest node id, the tie-breaker");
	else
		snprintf(text, size, "the lowest node id, the tie-breaker");
}

/* "nodes 1 and 2: <why>" */
static void winner_reason(const struct arbiter_site *s, struct arbiter_decision *d, const char *why)
{
	const struct arbiter_node *n = &s->nodes[d->winner];
	size_t used;

	arbiter_list_text(n->members, n->member_count, d->reason, sizeof(d->reason));
	used = strlen(d->reason);
	snprintf(d->reason + used, sizeof(d->reason) - used, ": %s", why);
}

/* --- ffsplit --- */

enum better { BETTER_NO, BETTER_ALONE, BETTER_SCORE, BETTER_CONNECTED, BETTER_ACTIVE, BETTER_TIE };

static bool ffsplit_keep_active(const struct arbiter_site *s)
{
	if (s->keep_active != TB__SWITCH__SWITCH_ANY)
		return s->keep_active == TB__SWITCH__SWITCH_ON;
	for (unsigned i = 0; i < s->count; i++) {
		if (node_listed(s, &s->nodes[i]) && !s->nodes[i].keep_active)
			return false;
	}
	return true;
}

static bool ffsplit_was_active(const struct arbiter_site *s, const struct partition *p)
{
	return arbiter_list_has(s->last, s->last_count, s->nodes[p->first].id);
}

/* Is the half `a` to be preferred to the half `b`, which was found before it? */
static enum better ffsplit_compare(const struct arbiter_site *s, const struct partition *a,
				   const struct partition *b)
{
	const struct arbiter_node *node = &s->nodes[a->first];
	uint32_t tie;

	if (a->score != b->score)
		return a->score > b->score ? BETTER_SCORE : BETTER_NO;
	if (a->connected != b->connected)
		return a->connected > b->connected ? BETTER_CONNECTED : BETTER_NO;
	if (ffsplit_keep_active(s) && ffsplit_was_active(s, a) != ffsplit_was_active(s, b))
		return ffsplit_was_active(s, a) ? BETTER_ACTIVE : BETTER_NO;
	tie = site_tie_breaker(s, node->configured, node->configured_count);
	return node_sees(node, tie) ? BETTER_TIE : BETTER_NO;
}

static void ffsplit_reason(const struct arbiter_site *s, struct arbiter_decision *d,
			   const struct partition *best, const struct partition *other)
{
	enum better why = other == NULL ? BETTER_ALONE : ffsplit_compare(s, best, other);
	char text[64];

	switch (why) {
	case BETTER_SCORE:
		winner_reason(s, d, "more attached nodes, heuristics counted");
		break;
	case BETTER_CONNECTED:
		winner_reason(s, d, "more attached nodes");
		break;
	case BETTER_ACTIVE:
		winner_reason(s, d, "the partition that was active before");
		break;
	case BETTER_TIE:
		tie_breaker_text(s, text, sizeof(text));
		winner_reason(s, d, text);
		break;
	case BETTER_NO:
		winner_reason(s, d, "the lowest node id, the tie-breaker being in neither half");
		break;
	case BETTER_ALONE:
		winner_reason(s, d, "half of the nodes, and the other half is not attached");
		break;
	}
}

static void ffsplit_decide(const struct arbiter_site *s, struct arbiter_decision *d)
{
	struct partition parts[LIMIT_SITE_NODES];
	unsigned count = site_partitions(s, parts);
	unsigned configured = s->nodes[parts[0].first].configured_count;
	const struct partition *best = NULL;
	const struct partition *other = NULL; /* the best half beside it, for the reason */

	for (unsigned i = 0; i < count; i++) {
		const struct arbiter_node *n = &s->nodes[parts[i].first];

		if (n->member_count * 2 > configured) {
			d->verdict = ARBITER_WINNER;
			d->winner = parts[i].first;
			winner_reason(s, d, "more than half of the nodes");
			return;
		}
		if (n->member_count * 2 < configured)
			continue;
		if (best == NULL || ffsplit_compare(s, &parts[i], best) != BETTER_NO) {
			other = best;
			best = &parts[i];
		} else {
			other = &parts[i];
		}
	}
	if (best == NULL) {
		d->verdict = ARBITER_NOBODY;
		reason_set(d, "no partition has half of the nodes");
		return;
	}
	d->verdict = ARBITER_WINNER;
	d->winner = best->first;
	ffsplit_reason(s, d, best, other);
	if (winner_awaits(s, d))
		d->verdict = ARBITER_UNSTABLE;
}

/* --- lms --- */

/* Drops the partitions of newcomers if another one holds the vote: quorum is not to move from
 * nodes at work to nodes that have just come. Returns how many are left. */
static unsigned lms_drop_newcomers(struct partition *parts, unsigned count,
				   struct arbiter_decision *d)
{
	bool held = false;
	unsigned left = 0;

	for (unsigned i = 0; i < count; i++)
		held |= parts[i].holds;
	for (unsigned i = 0; i < count; i++) {
		if (!held || parts[i].judged || parts[i].holds)
			parts[left++] = parts[i];
		else
			d->newcomers = true;
	}
	return left;
}

/* Keeps those with the highest value of `what`. */
static unsigned partitions_keep_best(struct partition *parts, unsigned count,
				     int (*what)(const struct partition *))
{
	int best = what(&parts[0]);
	unsigned left = 0;

	for (unsigned i = 1; i < count; i++) {
		if (what(&parts[i]) > best)
			best = what(&parts[i]);
	}
	for (unsigned i = 0; i < count; i++) {
		if (what(&parts[i]) == best)
			parts[left++] = parts[i];
	}
	return left;
}

static int partition_score(const struct partition *p)
{
	return p->score;
}

static int partition_connected(const struct partition *p)
{
	return (int)p->connected;
}

static bool parts_hold(const struct arbiter_site *s, const struct partition *parts, unsigned count,
		       const struct arbiter_node *n)
{
	for (unsigned i = 0; i < count; i++) {
		if (nodes_together(&s->nodes[parts[i].first], n))
			return true;
	}
	return false;
}

/* The tie-breaker among the attached ids of the partitions that are left. */
static void lms_break_tie(const struct arbiter_site *s, const struct partition *parts,
			  unsigned count, struct arbiter_decision *d)
{
	uint32_t ids[LIMIT_SITE_NODES];
	unsigned id_count = 0;
	uint32_t tie;
	char text[64];

	for (unsigned i = 0; i < s->count; i++) {
		if (node_listed(s, &s->nodes[i]) && parts_hold(s, parts, count, &s->nodes[i]))
			ids[id_count++] = s->nodes[i].id;
	}
	tie = site_tie_breaker(s, ids, id_count);
	for (unsigned i = 0; i < count; i++) {
		if (!node_sees(&s->nodes[parts[i].first], tie))
			continue;
		d->verdict = ARBITER_WINNER;
		d->winner = parts[i].first;
		tie_breaker_text(s, text, sizeof(text));
		winner_reason(s, d, text);
		return;
	}
	d->verdict = ARBITER_NOBODY;
	snprintf(d->reason, sizeof(d->reason),
		 "a tie, and the tie-breaker node %u is in no partition that could win", tie);
}

static void lms_decide(const struct arbiter_site *s, struct arbiter_decision *d)
{
	struct partition parts[LIMIT_SITE_NODES];
	unsigned all = site_partitions(s, parts);
	unsigned count = lms_drop_newcomers(parts, all, d);
	unsigned best = partitions_keep_best(parts, count, partition_score);
	unsigned most = partitions_keep_best(parts, best, partition_connected);

	d->verdict = ARBITER_WINNER;
	d->winner = parts[0].first;
	if (all == 1)
		winner_reason(s, d, "the only partition that is attached");
	else if (count == 1)
		winner_reason(s, d, "active before the nodes that have just attached");
	else if (best == 1)
		winner_reason(s, d, "more attached nodes, heuristics counted");
	else if (most == 1)
		winner_reason(s, d, "more attached nodes");
	else
		lms_break_tie(s, parts, most, d);
	if (d->verdict == ARBITER_WINNER && winner_awaits(s, d))
		d->verdict = ARBITER_UNSTABLE;
}

/* --- 2nodelms: lms for two nodes, without counting attached nodes --- */

static void two_node_decide(const struct arbiter_site *s, struct arbiter_decision *d)
{
	struct partition parts[LIMIT_SITE_NODES];
	unsigned all = site_partitions(s, parts);
	unsigned count = lms_drop_newcomers(parts, all, d);
	unsigned best = partitions_keep_best(parts, count, partition_score);

	d->verdict = ARBITER_WINNER;
	d->winner = parts[0].first;
	if (s->nodes[d->winner].member_count > 1)
		winner_reason(s, d, "both nodes see each other");
	else if (all == 1)
		winner_reason(s, d, "the only node that is attached");
	else if (count == 1)
		winner_reason(s, d, "active before the node that has just attached");
	else if (best == 1)
		winner_reason(s, d, "better heuristics");
	else
		lms_break_tie(s, parts, best, d);
	if (d->verdict == ARBITER_WINNER && winner_awaits(s, d))
		d->verdict = ARBITER_UNSTABLE;
}

void arbiter_decide(const struct arbiter_site *site, struct arbiter_decision *ret)
{
	*ret = (struct arbiter_decision){.verdict = ARBITER_UNSTABLE};
	if (site->count == 0) {
		reason_set(ret, "no node is attached");
		return;
	}
	if (!site_stable(site, ret))
		return;
	switch (site->algorithm) {
	case TB__ALGORITHM__ALGORITHM_LMS:
		lms_decide(site, ret);
		return;
	case TB__ALGORITHM__ALGORITHM_2NODELMS:
		two_node_decide(site, ret);
		return;
	default:
		ffsplit_decide(site, ret);
		return;
	}
}
