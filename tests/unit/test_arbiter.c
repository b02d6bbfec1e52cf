/* The decision, one line per rule of the three algorithms.
 *
 * A case is written as text. Site: algorithm, tie-breaker (lowest, highest or a node id), policy
 * of keep-active-partition (any, on, off), who won last time. Nodes, one a word:
 *
 *   1@8{1,2}      node 1 on a ring of sequence 8 (representative: its lowest member) with these
 *                 members; the configured nodes are the site's unless !{...} follows
 *   1@2.8         attached, no lists yet, ring by INIT; +start: they are worth waiting for
 *   +pass +fail   heuristics; +kap keep active partition; +judged +holds see arbiter.h
 *
 * Verdict: "wait", "nobody" or the members that win. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/arbiter.h"

struct rule {
	const char *rule;
	const char *algorithm;
	const char *tie;
	const char *kap;
	const char *last;
	const char *configured;
	const char *nodes;
	const char *verdict;
};

#define FF(tie, kap, last, configured, nodes, verdict, rule)                                       \
	{                                                                                          \
		rule, "ffsplit", tie, kap, last, configured, nodes, verdict                        \
	}
#define LMS(tie, nodes, verdict, rule)                                                             \
	{                                                                                          \
		rule, "lms", tie, "any", "", "1,2,3,4", nodes, verdict                             \
	}
#define TWO(tie, nodes, verdict, rule)                                                             \
	{                                                                                          \
		rule, "2nodelms", tie, "any", "", "1,2", nodes, verdict                            \
	}

static const struct rule rules[] = {
	/* ffsplit 1: not yet possible */
	FF("lowest", "any", "", "1,2", "", "wait", "nobody attached"),
	FF("lowest", "any", "", "1,2", "1@8+start", "wait", "no lists yet"),
	FF("lowest", "any", "", "1,2", "1@8{1,2}!{}", "wait", "membership before configuration"),
	FF("lowest", "any", "", "1,2", "1@0{1}", "wait", "sequence 0 is no ring"),
	FF("lowest", "any", "", "1,2", "1@8{2}", "wait", "a list without its sender is no report"),
	/* ffsplit 2: stable */
	FF("lowest", "any", "", "1,2", "1@8{1,2} 2@8{1,2}!{1,2,3}", "wait",
	   "different configured nodes"),
	FF("lowest", "any", "", "1,2", "1@8{1,2} 2@12{2}", "wait",
	   "1 still names 2, on another ring"),
	FF("lowest", "any", "", "1,2", "1@12{1} 2@8{1,2}", "wait",
	   "2 still names 1, on another ring"),
	FF("lowest", "any", "", "1,2,3,4", "1@8{1,2} 2@8{1,2,3}", "wait",
	   "the same ring with different members"),
	FF("lowest", "any", "", "1,2,3,4", "1@8{1,2} 3@12{3,4}", "1,2",
	   "names only unattached: stable"),
	/* ffsplit 3: more than half, odd, less than half */
	FF("lowest", "any", "", "1,2", "1@8{1,2} 2@8{1,2}", "1,2", "both"),
	FF("highest", "any", "", "1,2,3", "1@8{1,2} 3@12{3}", "1,2",
	   "more than half of an odd number"),
	FF("3", "any", "", "1,2,3", "3@12{3}", "nobody", "less than half never wins"),
	FF("lowest", "any", "", "1,2,3,4,5", "1@8{1,2} 4@12{3,4}", "nobody", "odd: no ties"),
	FF("4", "any", "4", "1,2,3,4", "1@8{1,2,3} 4@12{4}+pass+kap", "1,2,3",
	   "more than half wins at once"),
	FF("lowest", "any", "", "1,2,3,4", "1@8{1} 4@12{4}", "nobody", "none has half"),
	FF("lowest", "any", "", "1", "1@8{1}", "1", "a single node"),
	/* ffsplit 3: half, by score */
	FF("lowest", "any", "", "1,2", "2@12{2}", "2", "half, the other half is not attached"),
	FF("lowest", "any", "", "1,2", "1@8{1} 2@12{2}+pass", "2", "score: pass counts one more"),
	FF("lowest", "any", "", "1,2", "1@8{1}+fail 2@12{2}", "2", "score: fail counts one less"),
	FF("highest", "any", "", "1,2", "1@8{1} 2@12{2}+fail", "1", "score before tie-breaker"),
	FF("4", "any", "3,4", "1,2,3,4", "1@8{1,2} 2@8{1,2} 3@12{3,4}+kap", "1,2",
	   "score: attached nodes, before keep-active and tie-breaker"),
	FF("lowest", "any", "", "1,2,3,4", "1@8{1,2}+fail 2@8{1,2}+fail 3@12{3,4}", "3,4",
	   "score: 2 attached nodes that fail are 0"),
	FF("lowest", "any", "", "1,2,3,4", "1@8{1,2}+pass 3@12{3,4} 4@12{3,4}", "3,4",
	   "equal score: more attached nodes"),
	/* ffsplit 3: keep active partition */
	FF("lowest", "any", "2", "1,2", "1@8{1}+kap 2@12{2}+kap", "2",
	   "keep active before tie-breaker"),
	FF("lowest", "any", "2", "1,2", "1@8{1}+kap 2@12{2}", "1",
	   "keep active: all must have it on"),
	FF("lowest", "on", "2", "1,2", "1@8{1} 2@12{2}", "2", "keep active by policy"),
	FF("lowest", "off", "2", "1,2", "1@8{1}+kap 2@12{2}+kap", "1", "no keep active by policy"),
	FF("lowest", "on", "1,2", "1,2", "1@8{1} 2@12{2}", "1", "both were active: tie-breaker"),
	FF("highest", "on", "", "1,2", "1@8{1} 2@12{2}", "2", "nobody was active: tie-breaker"),
	/* ffsplit 3: tie-breaker */
	FF("lowest", "any", "", "1,2", "1@8{1} 2@12{2}", "1", "lowest"),
	FF("highest", "any", "", "1,2", "1@8{1} 2@12{2}", "2", "highest"),
	FF("2", "any", "", "1,2", "1@8{1} 2@12{2}", "2", "node id"),
	FF("lowest", "any", "", "1,2,3,4", "2@8{2,3} 4@12{1,4}", "1,4",
	   "lowest of the configured ids, attached or not"),
	FF("9", "any", "", "1,2", "1@8{1} 2@12{2}", "1", "tie-breaker in neither: lowest id stays"),
	FF("highest", "any", "", "2147483647,4294967295",
	   "2147483647@8{2147483647} 4294967295@12{4294967295}", "4294967295", "large ids"),
	FF("lowest", "any", "", "2147483648,4294967295",
	   "2147483648@8{2147483648} 4294967295@12{4294967295}", "2147483648", "large ids"),
	/* ours: nodes that have just attached */
	FF("lowest", "any", "", "1,2", "1@8{1,2} 2@12+start", "1,2",
	   "more than half waits for nobody's lists"),
	FF("lowest", "any", "", "1,2", "1@8{1} 2@12+start", "wait", "half waits for a new node"),
	FF("lowest", "any", "", "1,2", "1@8{1} 2@12", "1", "but not for ever"),
	FF("lowest", "any", "", "1,2,3,4", "1@8{1,2} 2@1.8+start", "1,2",
	   "nor for one of its own ring"),
	FF("lowest", "any", "", "1,2,3,4", "1@8{1,2} 2@12+start", "wait",
	   "its own, on another ring"),

	/* lms 1: stable, the list being handled counts */
	LMS("lowest", "1@8{1,2} 2@12{2}", "wait", "1 names 2, on another ring"),
	LMS("lowest", "1@12{1} 2@8{1,2}", "wait",
	    "2 names 1: by its stored list, not the one before"),
	/* lms 2: partitions */
	LMS("lowest", "1@8", "wait", "no ring"),
	LMS("highest", "1@8{1}", "1", "one partition"),
	LMS("highest", "1@8{1,2,3,4} 4@8{1,2,3,4}", "1,2,3,4", "one partition, two attached"),
	/* lms 3: newcomers */
	LMS("lowest", "1@8{1} 2@12{2}+judged+holds", "2", "a newcomer does not take the vote"),
	LMS("lowest", "1@8{1}+judged 2@12{2}+judged+holds", "1", "who was judged before is none"),
	LMS("highest", "1@8{1} 2@12{2}", "2", "all are newcomers: no rule"),
	LMS("lowest", "1@8{1,2}+pass 2@8{1,2}+pass 3@12{3}+judged+holds", "3",
	    "newcomers have no score"),
	LMS("lowest", "1@8{1,2} 2@8{1,2}+judged 3@12{3}+judged+holds", "1,2",
	    "one who was judged speaks for its partition"),
	/* lms 4, 5: score, attached nodes */
	LMS("lowest", "1@8{1} 2@12{2,3} 3@12{2,3}", "2,3", "score"),
	LMS("lowest", "1@8{1}+fail 2@12{2}", "2", "score: heuristics"),
	LMS("lowest", "1@8{1}+pass 2@12{2,3} 3@12{2,3}", "2,3", "equal score: more attached nodes"),
	LMS("lowest", "1@8{1,4}+fail 4@8{1,4}+fail 2@12{2} 3@16{3}", "2",
	    "ours: attached nodes count only among the best scores"),
	/* lms 6: tie-breaker */
	LMS("lowest", "1@8{1} 2@12{2}", "1", "lowest"),
	LMS("highest", "1@8{1} 2@12{2}", "2", "highest"),
	LMS("2", "1@8{1} 2@12{2}", "2", "node id: its partition, not only itself"),
	LMS("3", "1@8{1,4} 4@8{1,4} 2@12{2,3} 3@12{2,3}", "2,3", "node id: all of its partition"),
	LMS("4", "1@8{1} 2@12{2,4}", "2,4", "node id: a member that is not attached"),
	LMS("4", "1@8{1} 2@12{2}", "nobody", "node id: in no partition"),
	LMS("lowest", "2147483648@8{2147483648} 4294967295@12{4294967295}", "2147483648",
	    "lowest sees ids from 2^31-1 on"),
	LMS("lowest", "1@8{1}+fail 2@12{2} 3@16{3}", "2",
	    "ours: only who may still win breaks a tie"),
	LMS("lowest", "1@8{1} 2@12+start", "wait", "a new node's lists are waited for"),
	LMS("lowest", "1@8{1} 2@12", "1", "but not for ever"),

	/* 2nodelms */
	TWO("highest", "1@8{1,2}", "1,2", "two members"),
	TWO("highest", "1@8{1}", "1", "one member, nobody else attached"),
	TWO("highest", "1@8{1} 2@12{2}", "2", "both alone: tie-breaker highest"),
	TWO("lowest", "1@8{1} 2@12{2}", "1", "both alone: tie-breaker lowest"),
	TWO("2", "1@8{1} 2@12{2}", "2", "both alone: tie-breaker node id"),
	TWO("3", "1@8{1} 2@12{2}", "nobody", "both alone: tie-breaker not there"),
	TWO("lowest", "1@8{1} 2@12{2}+pass", "2", "both alone: pass before undefined"),
	TWO("lowest", "1@8{1}+fail 2@12{2}", "2", "both alone: undefined before fail"),
	TWO("lowest", "1@8{1} 2@12{2}+judged+holds", "2", "a newcomer does not take the vote"),
	TWO("lowest", "1@8{1,2} 2@12{2}", "wait", "ours: the other's old list is no refusal"),
};

enum { MAX_NODES = 8, MAX_IDS = 8 };

struct lists {
	uint32_t ids[2 * MAX_NODES][MAX_IDS];
	unsigned count[2 * MAX_NODES];
};

/* "{1,2}" or "1,2"; returns what is behind it. */
static char *ids_parse(char *text, uint32_t *ids, unsigned *count)
{
	*count = 0;
	text += *text == '{';
	while (*text != '\0' && *text != '}' && *text != ' ') {
		ids[(*count)++] = (uint32_t)strtoul(text, &text, 10);
		text += *text == ',';
	}
	return text + (*text == '}');
}

static void flags_parse(struct arbiter_node *n, char *text)
{
	n->heuristics = strstr(text, "+pass")	? TB__HEURISTICS__HEURISTICS_PASS
			: strstr(text, "+fail") ? TB__HEURISTICS__HEURISTICS_FAIL
						: TB__HEURISTICS__HEURISTICS_UNDEFINED;
	n->keep_active = strstr(text, "+kap") != NULL;
	n->starting = strstr(text, "+start") != NULL;
	n->judged = strstr(text, "+judged") != NULL;
	n->holds = strstr(text, "+holds") != NULL;
}

static void node_parse(char *text, struct arbiter_node *n, struct lists *lists, unsigned at,
		       const uint32_t *configured, unsigned configured_count)
{
	n->id = (uint32_t)strtoul(text, &text, 10);
	n->ring.node = n->id;
	n->ring.seq = strtoull(text + 1, &text, 10);
	if (*text == '.') {
		n->ring.node = (uint32_t)n->ring.seq;
		n->ring.seq = strtoull(text + 1, &text, 10);
	}
	if (*text == '{') {
		text = ids_parse(text, lists->ids[at], &lists->count[at]);
		n->members = lists->ids[at];
		n->member_count = lists->count[at];
		if (n->member_count > 0)
			n->ring.node = n->members[0];
		n->configured = configured;
		n->configured_count = configured_count;
	}
	if (*text == '!') {
		text = ids_parse(text + 1, lists->ids[at + 1], &lists->count[at + 1]);
		n->configured = lists->count[at + 1] ? lists->ids[at + 1] : NULL;
		n->configured_count = lists->count[at + 1];
	}
	flags_parse(n, text);
}

static void verdict_text(const struct arbiter_site *s, const struct arbiter_decision *d, char *text,
			 size_t size)
{
	const struct arbiter_node *n = &s->nodes[d->winner];

	snprintf(text, size, "%s",
		 d->verdict == ARBITER_UNSTABLE ? "wait"
		 : d->verdict == ARBITER_NOBODY ? "nobody"
						: "");
	for (unsigned i = 0; d->verdict == ARBITER_WINNER && i < n->member_count; i++)
		snprintf(text + strlen(text), size - strlen(text), "%s%u", i ? "," : "",
			 n->members[i]);
}

static void test_rules(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		const struct rule *r = &rules[i];
		struct arbiter_node nodes[MAX_NODES] = {0};
		struct lists lists = {0};
		struct arbiter_site s = {.nodes = nodes};
		struct arbiter_decision d;
		uint32_t configured[MAX_IDS];
		uint32_t last[MAX_IDS];
		unsigned configured_count;
		char text[256];
		char *save = NULL;

		s.algorithm = strcmp(r->algorithm, "lms") == 0 ? TB__ALGORITHM__ALGORITHM_LMS
			      : strcmp(r->algorithm, "2nodelms") == 0
				      ? TB__ALGORITHM__ALGORITHM_2NODELMS
				      : TB__ALGORITHM__ALGORITHM_FFSPLIT;
		s.tie_breaker = strcmp(r->tie, "lowest") == 0 ? TB__TIE_BREAKER__TIE_BREAKER_LOWEST
				: strcmp(r->tie, "highest") == 0
					? TB__TIE_BREAKER__TIE_BREAKER_HIGHEST
					: TB__TIE_BREAKER__TIE_BREAKER_NODE;
		s.tie_breaker_node = (uint32_t)strtoul(r->tie, NULL, 10);
		s.keep_active = strcmp(r->kap, "on") == 0    ? TB__SWITCH__SWITCH_ON
				: strcmp(r->kap, "off") == 0 ? TB__SWITCH__SWITCH_OFF
							     : TB__SWITCH__SWITCH_ANY;
		snprintf(text, sizeof(text), "%s", r->last);
		ids_parse(text, last, &s.last_count);
		s.last = last;
		snprintf(text, sizeof(text), "%s", r->configured);
		ids_parse(text, configured, &configured_count);
		snprintf(text, sizeof(text), "%s", r->nodes);
		for (char *at = strtok_r(text, " ", &save); at != NULL;
		     at = strtok_r(NULL, " ", &save)) {
			node_parse(at, &nodes[s.count], &lists, 2 * s.count, configured,
				   configured_count);
			s.count++;
		}
		/* The arbiter is given them by rising id. */
		for (unsigned a = 1; a < s.count; a++) {
			for (unsigned b = a; b > 0 && nodes[b].id < nodes[b - 1].id; b--) {
				struct arbiter_node swap = nodes[b];

				nodes[b] = nodes[b - 1];
				nodes[b - 1] = swap;
			}
		}
		arbiter_decide(&s, &d);
		verdict_text(&s, &d, text, sizeof(text));
		if (strcmp(text, r->verdict) != 0)
			fail_msg("%s, \"%s\" (%s): %s instead of %s (%s)", r->algorithm, r->rule,
				 r->nodes, text, r->verdict, d.reason);
		assert_true(d.reason[0] != '\0');
	}
}

static void test_lists(void **state)
{
	static const uint32_t ids[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
	char text[64];

	(void)state;
	arbiter_list_text(ids, 0, text, sizeof(text));
	assert_string_equal(text, "no node");
	arbiter_list_text(ids, 1, text, sizeof(text));
	assert_string_equal(text, "node 1");
	arbiter_list_text(ids, 7, text, sizeof(text));
	assert_string_equal(text, "nodes 1, 2, 3, 4, 5, 6 and 7");
	arbiter_list_text(ids, 9, text, sizeof(text));
	assert_string_equal(text, "nodes 1, 2, 3, 4, 5, 6 and 3 more");
	assert_true(arbiter_list_has(ids, 9, 9));
	assert_true(arbiter_list_has(ids, 9, 1));
	assert_false(arbiter_list_has(ids, 9, 10));
	assert_false(arbiter_list_has(ids, 0, 1));
}

static void test_own_timeout(void **state)
{
	(void)state;
	assert_int_equal(arbiter_own_timeout_ms(8000, TB__HANDOVER__HANDOVER_SAFE), 16410);
	assert_int_equal(arbiter_own_timeout_ms(8000, TB__HANDOVER__HANDOVER_FAST), 12370);
	assert_int_equal(arbiter_own_timeout_ms(UINT32_MAX, TB__HANDOVER__HANDOVER_SAFE),
			 UINT32_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_own_timeout),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
