/* Who should have a site's lease, by tables. A node is "id[+-]seen...": + wants it, - does not; "!"
 * holds it, "gN" generation, "aN" attached for so many ms (else for long), "sN,N" nodes seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/candidate.h"

#define ANY TB__LEASE_POLICY__LEASE_POLICY_ANY
#define PREFERRED TB__LEASE_POLICY__LEASE_POLICY_PREFERRED
#define GENERATION TB__LEASE_POLICY__LEASE_POLICY_GENERATION
#define MANUAL TB__LEASE_POLICY__LEASE_POLICY_MANUAL

enum { NOBODY = 0 };

struct row {
	const char *nodes;
	Tb__LeasePolicy policy;
	uint32_t policy_node;
	uint32_t last;
	uint64_t generation;
	unsigned configured; /* nodes 1..n are known to all */
	uint32_t winner; /* node id */
	uint64_t again_ms;
};

static const struct row rows[] = {
	/* who asks gets it; who has it keeps it */
	{"", ANY, 0, 0, 0, 2, NOBODY, 0},
	{"1-", ANY, 0, 0, 0, 2, NOBODY, 0},
	{"1+", ANY, 0, 0, 0, 2, 1, 0},
	{"1+a1", ANY, 0, 0, 0, 2, 1, 0}, /* does not wait: node 2 could not be better */
	{"1+ 2+", ANY, 0, 0, 0, 2, 1, 0},
	{"1+ 2+", ANY, 0, 2, 0, 2, 2, 0},
	{"1- 2+", ANY, 0, 1, 0, 2, 2, 0},
	{"1+ 2+!", ANY, 0, 2, 0, 2, 2, 0},
	{"1+g9 2+!g1", GENERATION, 0, 2, 0, 2, 2, 0},
	{"1+ 2-!", ANY, 0, 2, 0, 2, 1, 0},
	/* who sees most */
	{"1+ 2+s3 3+", ANY, 0, 1, 0, 3, 2, 0},
	{"1+s2 2+s1,3 3+s2", ANY, 0, 1, 0, 3, 2, 0},
	/* an isolated holder, of three and more */
	{"1+! 2+s3 3+s2", ANY, 0, 1, 0, 3, 2, 0},
	{"1+! 2+s1,3 3+s2", ANY, 0, 1, 0, 3, 3, 0}, /* 2 sees the holder: the fault is not there */
	{"1+!s2 2+s3 3+s2", ANY, 0, 1, 0, 3, 1, 0},
	{"1+! 2+ 3+", ANY, 0, 1, 0, 3, 1, 0},
	{"1+! 2-s3 3-s2", ANY, 0, 1, 0, 3, 1, 0},
	{"1+! 2+", ANY, 0, 1, 0, 2, 1, 0},
	{"1+! 2+s3 3+s2", ANY, 0, 1, 0, 5, 1, 0}, /* two of five are no majority */
	/* preferred: at once if it is free, after a while if somebody has it */
	{"1+ 2+a1", PREFERRED, 2, 1, 0, 2, 2, 0},
	{"1+! 2+a1000", PREFERRED, 2, 1, 0, 2, 1, CANDIDATE_STEADY_MS - 1000},
	{"1+! 2+a3000", PREFERRED, 2, 1, 0, 2, 2, 0},
	{"1+! 2-", PREFERRED, 2, 1, 0, 2, 1, 0},
	{"1+a4000", PREFERRED, 2, 1, 0, 2, NOBODY, CANDIDATE_WAIT_MS - 4000},
	{"1+a10000", PREFERRED, 2, 1, 0, 2, 1, 0},
	{"1+a4000 3+a9000", PREFERRED, 2, 1, 0, 3, NOBODY, CANDIDATE_WAIT_MS - 9000},
	{"1+a1 2-", PREFERRED, 2, 0, 0, 2, 1, 0}, /* it is here and does not want it */
	{"1+a1", PREFERRED, 1, 0, 0, 2, 1, 0},
	{"1+ 2+! 3+", PREFERRED, 7, 1, 0, 3, 2, 0},
	/* generation */
	{"1+g3 2+g4", GENERATION, 0, 1, 3, 2, 2, 0},
	{"1+g4 2+g4", GENERATION, 0, 2, 3, 2, 2, 0},
	{"1+g3 2-g4", GENERATION, 0, 1, 3, 2, 1, 0},
	{"1+g3", GENERATION, 0, 2, 4, 2, NOBODY, 0},
	{"1+g4", GENERATION, 0, 2, 4, 2, 1, 0},
	{"1+g9a2000", GENERATION, 0, 2, 4, 2, NOBODY, CANDIDATE_WAIT_MS - 2000},
	{"1+g2 2+g3 3+g1", GENERATION, 0, 0, 5, 3, NOBODY, 0},
	{"1+g2s3 2+g3 3+g1", GENERATION, 0, 0, 0, 3, 2, 0}, /* before who sees most */
	{"1+g3", ANY, 0, 2, 4, 2, 1, 0},
	/* manual */
	{"1+ 2+", MANUAL, 2, 1, 0, 2, 2, 0},
	{"1+! 2+", MANUAL, 2, 1, 0, 2, 2, 0},
	{"1+! 2-", MANUAL, 2, 1, 0, 2, 1, 0},
	{"1+", MANUAL, 2, 1, 0, 2, NOBODY, 0},
	{"1+!", MANUAL, 0, 1, 0, 2, NOBODY, 0},
};

struct made {
	struct candidate nodes[8];
	uint32_t seen[8][8];
	unsigned count;
};

static void node_make(struct made *m, const char *text, const uint32_t *all, unsigned all_count)
{
	struct candidate *n = &m->nodes[m->count];
	uint32_t *seen = m->seen[m->count++];
	char *at;

	*n = (struct candidate){.id = (uint32_t)strtoul(text, &at, 10),
				.attached_ms = 100000,
				.seen = seen,
				.configured = all,
				.configured_count = all_count};
	n->wanted = *at++ == '+';
	while (*at != '\0') {
		char what = *at++;

		if (what == '!')
			n->holds = true;
		else if (what == 'g')
			n->generation = strtoul(at, &at, 10);
		else if (what == 'a')
			n->attached_ms = strtoul(at, &at, 10);
		else
			seen[n->seen_count++] = (uint32_t)strtoul(at, &at, 10);
	}
}

static void test_table(void **state)
{
	static const uint32_t all[] = {1, 2, 3, 4, 5};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *r = &rows[i];
		struct candidate_decision d;
		struct made m = {0};
		char text[128];
		char *rest = text;
		char *word;
		uint32_t winner;

		snprintf(text, sizeof(text), "%s", r->nodes);
		while ((word = strsep(&rest, " ")) != NULL)
			if (*word != '\0')
				node_make(&m, word, all, r->configured);
		candidate_decide(&(struct candidates){.nodes = m.nodes,
						      .count = m.count,
						      .policy = r->policy,
						      .policy_node = r->policy_node,
						      .last = r->last,
						      .generation = r->generation},
				 &d);
		winner = d.given ? m.nodes[d.winner].id : NOBODY;
		if (winner != r->winner || d.again_ms != r->again_ms || d.reason[0] == '\0')
			fail_msg("row %zu \"%s\": node %u, again in %llu ms: %s", i, r->nodes,
				 winner, (unsigned long long)d.again_ms, d.reason);
	}
}

static void test_own_timeout(void **state)
{
	(void)state;
	/* One per cent and the loop's lateness above the lease. */
	assert_int_equal(candidate_own_timeout_ms(10000), 10000 + 100 + 1 + ARBITER_REACTION_MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_own_timeout),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
