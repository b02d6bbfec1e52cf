#include "cluster/lease.h"

#include <string.h>

/* A length as another board's clock may stretch it: 1 % of clock rate, and two milliseconds for
 * the rounding of both clocks. */
static uint64_t lease_stretched(uint64_t length_ms)
{
	return length_ms + length_ms / 100 + 2;
}

void lease_granted(struct lease *l, uint64_t known_term, uint64_t term, uint64_t sent_ms,
		   uint64_t leader_ms, uint64_t length_ms)
{
	if (term < l->term || term < known_term)
		return;
	if (term > l->term) {
		l->term = term;
		l->leader_ms = 0;
	}
	if (leader_ms > l->leader_ms)
		l->leader_ms = leader_ms;
	/* A lease of an earlier leader stays good to its end: every leader waits for it. */
	if (length_ms != 0 && sent_ms + length_ms > l->until_ms)
		l->until_ms = sent_ms + length_ms;
}

bool lease_valid(const struct lease *l, uint64_t now_ms)
{
	return now_ms < l->until_ms;
}

bool lease_stands(uint64_t told_ms, uint64_t asked_ms, uint64_t now_ms)
{
	return told_ms != 0 && now_ms - told_ms >= LEASE_LENGTH_MS &&
	       now_ms - asked_ms < LEASE_LENGTH_MS;
}

static struct lease_member *lease_table_find(struct lease_table *t, uint64_t node)
{
	for (unsigned i = 0; i < LIMIT_NODES; i++) {
		if (t->members[i].node == node)
			return &t->members[i];
	}
	return NULL;
}

static uint64_t lease_table_unknown_end(const struct lease_table *t)
{
	return t->elected_ms + lease_stretched(LEASE_LENGTH_MS);
}

void lease_table_start(struct lease_table *t, uint64_t self, uint64_t term, uint64_t now_ms)
{
	memset(t, 0, sizeof(*t));
	t->self = self;
	t->term = term;
	t->elected_ms = now_ms;
}

void lease_table_members(struct lease_table *t, const uint64_t *nodes, const bool *voters,
			 unsigned count, uint64_t now_ms)
{
	struct lease_table old = *t;

	(void)now_ms;
	memset(t->members, 0, sizeof(t->members));
	for (unsigned i = 0; i < count && i < LIMIT_NODES; i++) {
		struct lease_member *known = nodes[i] ? lease_table_find(&old, nodes[i]) : NULL;

		if (known != NULL) {
			t->members[i] = *known;
			known->node = 0;
		} else {
			t->members[i].node = nodes[i];
			t->members[i].end_ms = lease_table_end(&old, nodes[i]);
			t->members[i].vms_end_ms = t->members[i].end_ms;
		}
		t->members[i].voter = voters[i];
	}
	for (unsigned i = 0; i < LIMIT_NODES; i++) {
		if (old.members[i].node != 0 && old.members[i].end_ms > t->gone_end_ms)
			t->gone_end_ms = old.members[i].end_ms;
	}
}

uint64_t lease_table_renew(struct lease_table *t, uint64_t node, uint64_t term,
			   uint64_t leader_ms_echo, uint64_t now_ms)
{
	struct lease_member *m = node ? lease_table_find(t, node) : NULL;
	uint64_t self_until;
	uint64_t length;

	if (m == NULL || term != t->term)
		return 0;
	m->renewed_ms = now_ms;
	/* An echo from before this leadership or from the future was not ours. */
	if (leader_ms_echo >= t->elected_ms && leader_ms_echo <= now_ms &&
	    leader_ms_echo > m->contact_ms)
		m->contact_ms = leader_ms_echo;
	self_until = lease_table_self_until(t, now_ms);
	if (self_until <= now_ms)
		return 0;
	length = self_until - now_ms;
	if (length > LEASE_LENGTH_MS)
		length = LEASE_LENGTH_MS;
	/* The board counts from when it sent the renewal, which was before now. */
	if (now_ms + lease_stretched(length) > m->end_ms)
		m->end_ms = now_ms + lease_stretched(length);
	return length;
}

void lease_table_renew_vms(struct lease_table *t, uint64_t node)
{
	struct lease_member *m = lease_table_find(t, node);

	if (m != NULL)
		m->vms_end_ms = m->end_ms;
}

uint64_t lease_table_self_until(const struct lease_table *t, uint64_t now_ms)
{
	uint64_t contacts[LIMIT_NODES];
	unsigned others = 0;
	unsigned voters = 0;
	unsigned needed;

	for (unsigned i = 0; i < LIMIT_NODES; i++) {
		const struct lease_member *m = &t->members[i];
		unsigned at;

		if (m->node == 0 || !m->voter)
			continue;
		voters++;
		if (m->node == t->self)
			continue;
		/* Newest contact first. */
		for (at = others++; at > 0 && contacts[at - 1] < m->contact_ms; at--)
			contacts[at] = contacts[at - 1];
		contacts[at] = m->contact_ms;
	}
	if (voters == 0)
		return 0;
	needed = voters / 2 + 1;
	if (others < voters)
		needed--;
	if (needed == 0)
		return now_ms + LEASE_LENGTH_MS;
	/* needed <= others: with only this board as voter it is 0, with more at most half of them.
	 */
	if (contacts[needed - 1] == 0)
		return 0;
	return contacts[needed - 1] + LEASE_LENGTH_MS;
}

/* NULL: it is not in the table. */
static const struct lease_member *lease_table_member(const struct lease_table *t, uint64_t node)
{
	for (unsigned i = 0; node != 0 && i < LIMIT_NODES; i++)
		if (t->members[i].node == node)
			return &t->members[i];
	return NULL;
}

static uint64_t later(uint64_t one_ms, uint64_t two_ms)
{
	return one_ms > two_ms ? one_ms : two_ms;
}

uint64_t lease_table_end(const struct lease_table *t, uint64_t node)
{
	const struct lease_member *m = lease_table_member(t, node);

	return later(m != NULL ? m->end_ms : t->gone_end_ms, lease_table_unknown_end(t));
}

uint64_t lease_table_vms_end(const struct lease_table *t, uint64_t node)
{
	const struct lease_member *m = lease_table_member(t, node);

	return later(m != NULL ? m->vms_end_ms : t->gone_end_ms, lease_table_unknown_end(t));
}
