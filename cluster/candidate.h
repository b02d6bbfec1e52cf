/* candidate.h: which node should have the lease of a site whose nodes run witness-agent. Pure:
 * values in, a decision out. What has to happen before the decision may take effect (who must
 * give the lease back first) is fleet.h's business, as for votes (arbiter.h).
 *
 * The rules, in this order:
 *   1. Only a node that wants the lease gets it.
 *   2. MANUAL: the node of the policy or nobody; who holds it keeps it until that node asks.
 *   3. PREFERRED: the node of the policy, once it has been there long enough to be believed.
 *   4. Who holds it keeps it. Except: of three and more nodes, one that sees none of the others
 *      loses it to one that sees, with itself, more than half of them: its users are there.
 *   5. A free lease waits for nodes that have just been missed (CANDIDATE_WAIT_MS), if the policy
 *      is one for which they could be the better choice.
 *   6. GENERATION: the highest generation, and nobody below that of the last grant: its data is
 *      older than what was written under that lease.
 *   7. The node that sees most others, then the last holder, then the lowest id. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "cluster/arbiter.h"

enum {
	/* How long the preferred node must be attached before the lease is moved to it. */
	CANDIDATE_STEADY_MS = 3000,
	/* How long a free lease waits for a node that may be the better choice. */
	CANDIDATE_WAIT_MS = 10000,
};

/* An attached node. */
struct candidate {
	uint32_t id;
	bool wanted;
	bool holds; /* the committed grant is for this very claim of it */
	uint64_t generation;
	uint64_t attached_ms; /* duration: how long it has been attached */
	const uint32_t *seen; /* other nodes, sorted; the caller's */
	unsigned seen_count;
	const uint32_t *configured; /* all nodes of the site as it knows them, sorted, itself too */
	unsigned configured_count;
};

struct candidates {
	const struct candidate *nodes; /* by rising id, each once */
	unsigned count;
	Tb__LeasePolicy policy;
	uint32_t policy_node;
	uint32_t last; /* node of the committed grant; 0: nobody ever */
	uint64_t generation; /* of the committed grant */
};

struct candidate_decision {
	bool given;
	unsigned winner; /* index of nodes, if given */
	/* How long from now the answer may change without news (a wait that ends); 0: never. */
	uint64_t again_ms;
	char reason[LIMIT_MESSAGE + 1]; /* one sentence for a person, without a full stop */
};

void candidate_decide(const struct candidates *c, struct candidate_decision *ret);

/* How long after the last renewal that we answered a node may go on with its lease: S1 (c). It
 * counts from the sending of that renewal, which is earlier; its clock may be 1 % slow. */
uint32_t candidate_own_timeout_ms(uint32_t lease_ms);
