/* arbiter.h: who should have a site's vote. Pure: values in, a decision out; no time, no memory
 * of its own. What has to happen before the decision may take effect (who must give the vote
 * back first) is fleet.h's business.
 *
 * The rules are those of corosync-qnetd's algorithms, with the corrections that
 * docs/decisions/0004-arbiter.md lists. A decision is for the whole site at once: one partition
 * wins, everybody else is refused. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/limits.h"
#include "proto/model.pb-c.h"

struct arbiter_ring {
	uint32_t node; /* representative */
	uint64_t seq; /* 0: no ring yet */
};

/* An attached node. The lists are sorted, without repetition, and the caller's. */
struct arbiter_node {
	uint32_t id;
	struct arbiter_ring ring;
	const uint32_t *configured; /* NULL: not told yet */
	unsigned configured_count;
	const uint32_t *members; /* NULL: not told yet */
	unsigned member_count;
	Tb__Heuristics heuristics;
	bool keep_active;
	bool starting; /* just attached: lists that it has not sent yet are worth waiting for */
	bool judged; /* had an ACK or NACK since it connected, other than by the newcomer rule */
	bool holds; /* an ACK for its present ring is its last word from us */
};

struct arbiter_site {
	Tb__Algorithm algorithm;
	Tb__TieBreaker tie_breaker;
	uint32_t tie_breaker_node;
	Tb__Switch keep_active; /* the site's policy */
	const struct arbiter_node *nodes; /* by rising id, each once */
	unsigned count;
	const uint32_t *last; /* who won last time, sorted; NULL: nobody ever */
	unsigned last_count;
};

enum arbiter_verdict {
	ARBITER_UNSTABLE, /* the reports do not fit together yet: nothing changes */
	ARBITER_NOBODY, /* every node that has reported is refused */
	ARBITER_WINNER, /* the ring of nodes[winner], with its members */
};

struct arbiter_decision {
	enum arbiter_verdict verdict;
	unsigned winner;
	bool newcomers; /* the newcomer rule kept somebody from the vote */
	char reason[LIMIT_MESSAGE + 1]; /* one sentence for a person, without a full stop */
};

void arbiter_decide(const struct arbiter_site *site, struct arbiter_decision *ret);

bool arbiter_ring_equal(const struct arbiter_ring *a, const struct arbiter_ring *b);
bool arbiter_list_has(const uint32_t *ids, unsigned count, uint32_t id);
bool arbiter_list_equal(const uint32_t *a, unsigned a_count, const uint32_t *b, unsigned b_count);
/* "node 1", "nodes 1, 2 and 3", "nodes 1, 2, 3 and 29 more"; `text` is always terminated. */
void arbiter_list_text(const uint32_t *ids, unsigned count, char *text, size_t size);

/* How long a node that hears nothing from us may go on with its vote: the arithmetic of S1 (c),
 * stated once.
 *
 * A client sends a heartbeat every interval and gives the witness up when the reply to the last
 * one is not there at the next: at most two intervals after it sent the last one that was
 * answered, which is before we heard it. Its clock may be 1 % slow. ARBITER_REACTION_MS is for
 * its own event loop: from the timer being due to the vote being withdrawn.
 *
 * HANDOVER_FAST counts 1.5 intervals as corosync-qnetd does, which leaves up to half an interval
 * of overlap, by the site's own choice. */
enum { ARBITER_REACTION_MS = 250 };
uint32_t arbiter_own_timeout_ms(uint32_t heartbeat_ms, Tb__Handover handover);
