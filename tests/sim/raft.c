/* raft.c: a small model of the replicated log (Ongaro and Ousterhout 2014): terms, elections,
 * replication, commit by majority. Messages are datagrams: late, lost, out of order. */
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "tests/sim/world.h"

enum { BEAT_US = 250000, ELECTION_US = 1000000 };

void raft_message_free(struct raft_message *m)
{
	free(m->entries);
	free(m);
}

static unsigned majority(const struct world *w)
{
	return w->boards / 2 + 1;
}

static void raft_wait(struct world *w, struct raft *r)
{
	r->election_us = w->now_us + ELECTION_US + world_below(w, ELECTION_US);
}

static void raft_send(struct world *w, struct board *b, unsigned to, struct raft_message m)
{
	struct raft_message *copy;

	if (w->board_cut[b->id][to] || world_chance(w, w->loss))
		return;
	copy = mem_dup(&m, sizeof(m));
	if (m.count > 0)
		copy->entries = mem_dup(m.entries, m.count * sizeof(*m.entries));
	world_at(w, w->now_us + world_delay_us(w),
		 (struct moment){.kind = MOMENT_RAFT, .a = b->id, .b = to, .data = copy});
}

static uint64_t raft_term_at(const struct raft *r, uint64_t index)
{
	return index > 0 && index <= r->length ? r->log[index - 1].term : 0;
}

static void raft_follow(struct world *w, struct board *b, uint64_t term, unsigned leader)
{
	struct raft *r = &b->raft;
	bool led = r->role == RAFT_LEADER;

	if (term > r->term) {
		r->term = term;
		r->voted_for = 0;
		r->leader = 0;
	}
	r->role = RAFT_FOLLOWER;
	if (leader != 0)
		r->leader = leader;
	if (led)
		board_deposed(w, b);
}

void raft_start(struct world *w, struct board *b)
{
	struct raft *r = &b->raft;

	r->role = RAFT_FOLLOWER;
	r->leader = 0;
	r->commit = 0;
	r->applied = 0;
	raft_wait(w, r);
}

static void raft_apply(struct world *w, struct board *b)
{
	struct raft *r = &b->raft;

	while (r->applied < r->commit) {
		const struct log_entry *e = &r->log[r->applied++];

		if (r->applied > w->committed_count) {
			w->committed =
				mem_realloc(w->committed, r->applied * sizeof(*w->committed));
			w->committed[w->committed_count++] = *e;
		}
		if (e->proposal != 0)
			board_applied(w, b, e);
		else if (r->role == RAFT_LEADER && e->term == r->term)
			board_led(w, b);
	}
}

static void raft_append_to(struct world *w, struct board *b, unsigned to)
{
	struct raft *r = &b->raft;
	uint64_t from = r->match[to];
	struct raft_message m = {.what = RAFT_APPEND,
				 .term = r->term,
				 .index = from,
				 .index_term = raft_term_at(r, from),
				 .commit = r->commit,
				 .entries = r->length > from ? &r->log[from] : NULL,
				 .count = r->length - from};

	raft_send(w, b, to, m);
}

static void raft_append_all(struct world *w, struct board *b)
{
	b->raft.beat_us = w->now_us + BEAT_US;
	for (unsigned i = 1; i <= w->boards; i++) {
		if (i != b->id)
			raft_append_to(w, b, i);
	}
}

static void raft_commit(struct world *w, struct board *b)
{
	struct raft *r = &b->raft;

	for (uint64_t index = r->length; index > r->commit; index--) {
		unsigned have = 1;

		if (raft_term_at(r, index) != r->term)
			break;
		for (unsigned i = 1; i <= w->boards; i++)
			have += i != b->id && r->match[i] >= index;
		if (have < majority(w))
			continue;
		r->commit = index;
		break;
	}
	raft_apply(w, b);
}

static void raft_push(struct raft *r, struct log_entry e)
{
	r->log = mem_realloc(r->log, (r->length + 1) * sizeof(*r->log));
	r->log[r->length++] = e;
}

static void raft_lead(struct world *w, struct board *b)
{
	struct raft *r = &b->raft;

	r->role = RAFT_LEADER;
	r->leader = b->id;
	/* Where each follower's log agrees is found by going back to the start. */
	memset(r->match, 0, sizeof(r->match));
	raft_push(r, (struct log_entry){.term = r->term});
	world_note(w, "board %u: elected, term %llu", b->id, (unsigned long long)r->term);
	raft_append_all(w, b);
	raft_commit(w, b);
}

static void raft_elect(struct world *w, struct board *b)
{
	struct raft *r = &b->raft;
	struct raft_message m = {.what = RAFT_ASK};

	raft_follow(w, b, r->term + 1, 0);
	r->role = RAFT_CANDIDATE;
	r->voted_for = b->id;
	r->votes = 1u << b->id;
	raft_wait(w, r);
	m.term = r->term;
	m.index = r->length;
	m.index_term = raft_term_at(r, r->length);
	for (unsigned i = 1; i <= w->boards; i++) {
		if (i != b->id)
			raft_send(w, b, i, m);
	}
	if (majority(w) == 1)
		raft_lead(w, b);
}

void raft_tick(struct world *w, struct board *b)
{
	struct raft *r = &b->raft;

	if (r->role == RAFT_LEADER) {
		if (w->now_us >= r->beat_us)
			raft_append_all(w, b);
	} else if (w->now_us >= r->election_us && (b->removed >> b->id & 1) == 0) {
		raft_elect(w, b);
	}
}

static void raft_asked(struct world *w, struct board *b, unsigned from,
		       const struct raft_message *m)
{
	struct raft *r = &b->raft;
	uint64_t last_term = raft_term_at(r, r->length);
	bool newer =
		m->index_term > last_term || (m->index_term == last_term && m->index >= r->length);
	bool granted = m->term == r->term && newer && r->role == RAFT_FOLLOWER &&
		       (r->voted_for == 0 || r->voted_for == from);

	if (granted) {
		r->voted_for = from;
		raft_wait(w, r);
	}
	raft_send(w, b, from,
		  (struct raft_message){.what = RAFT_VOTE, .term = r->term, .granted = granted});
}

static void raft_appended(struct world *w, struct board *b, unsigned from,
			  const struct raft_message *m)
{
	struct raft *r = &b->raft;
	bool good;

	if (m->term < r->term)
		return;
	raft_follow(w, b, m->term, from);
	raft_wait(w, r);
	good = m->index <= r->length && raft_term_at(r, m->index) == m->index_term;
	for (uint64_t i = 0; good && i < m->count; i++) {
		uint64_t index = m->index + i + 1;

		if (index <= r->length && raft_term_at(r, index) == m->entries[i].term)
			continue;
		if (index <= r->length)
			r->length = index - 1;
		raft_push(r, m->entries[i]);
	}
	if (good) {
		uint64_t known = m->index + m->count;
		uint64_t commit = m->commit < known ? m->commit : known;

		if (commit > r->commit)
			r->commit = commit;
		raft_apply(w, b);
	}
	raft_send(w, b, from,
		  (struct raft_message){.what = RAFT_APPENDED,
					.term = r->term,
					.granted = good,
					.index = good ? m->index + m->count : 0});
}

void raft_receive(struct world *w, struct board *b, unsigned from, const struct raft_message *m)
{
	struct raft *r = &b->raft;

	if (m->term > r->term)
		raft_follow(w, b, m->term, 0);
	switch (m->what) {
	case RAFT_ASK:
		raft_asked(w, b, from, m);
		break;
	case RAFT_VOTE:
		if (m->term != r->term || r->role != RAFT_CANDIDATE || !m->granted)
			break;
		r->votes |= 1u << from;
		if ((unsigned)__builtin_popcount(r->votes) >= majority(w))
			raft_lead(w, b);
		break;
	case RAFT_APPEND:
		raft_appended(w, b, from, m);
		break;
	case RAFT_APPENDED:
		if (m->term != r->term || r->role != RAFT_LEADER)
			break;
		if (!m->granted)
			r->match[from] = 0;
		else if (m->index > r->match[from])
			r->match[from] = m->index;
		raft_commit(w, b);
		break;
	}
}

void raft_propose(struct world *w, struct board *b, struct log_entry entry)
{
	entry.term = b->raft.term;
	raft_push(&b->raft, entry);
	raft_append_all(w, b);
	raft_commit(w, b);
}

void raft_step_down(struct world *w, struct board *b)
{
	raft_follow(w, b, b->raft.term, 0);
	b->raft.leader = 0;
	/* The others notice at different times, as after a transfer or a crash. */
	raft_wait(w, &b->raft);
}
