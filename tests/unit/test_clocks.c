/* What time it is for the cluster. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cluster/clocks.h"

#define NOW INT64_C(1795000000000)
#define MINUTE INT64_C(60000)
#define DAY (24 * 60 * MINUTE)
#define YEARS (3 * 365 * DAY)

static void test_now(void **state)
{
	/* The first clock is the leader's own; the log's newest event is a day old if not said
	 * otherwise, and what has passed since is known. */
	static const struct {
		const char *what;
		int64_t newest, reckoned;
		unsigned voters, count;
		int64_t heard[5];
		int64_t majority, now;
	} cases[] = {
		{"all agree", NOW - DAY, NOW, 3, 3, {NOW, NOW, NOW}, NOW, NOW},
		{"the leader leaps", NOW - DAY, NOW, 3, 3, {NOW + YEARS, NOW, NOW}, NOW, NOW},
		{"one of the others does", NOW - DAY, NOW, 3, 3, {NOW, NOW + YEARS, NOW}, NOW, NOW},
		{"the leader is behind", NOW - DAY, NOW, 3, 3, {NOW - DAY, NOW, NOW}, NOW, NOW},
		{"one is away", NOW - DAY, NOW, 3, 2, {NOW + YEARS, NOW}, NOW, NOW},
		{"of five, two leap",
		 NOW - DAY,
		 NOW,
		 5,
		 5,
		 {NOW + YEARS, NOW + YEARS, NOW, NOW, NOW},
		 NOW,
		 NOW},
		{"of five, two are away and one leaps",
		 NOW - DAY,
		 NOW,
		 5,
		 3,
		 {NOW + YEARS, NOW, NOW + MINUTE},
		 NOW,
		 NOW},
		{"of four, half leap",
		 NOW - DAY,
		 NOW,
		 4,
		 4,
		 {NOW + YEARS, NOW + YEARS, NOW, NOW},
		 NOW,
		 NOW},
		{"of two, the leader leaps", NOW - DAY, NOW, 2, 2, {NOW + YEARS, NOW}, NOW, NOW},
		{"of two, the other leaps", NOW - DAY, NOW, 2, 2, {NOW, NOW + YEARS}, NOW, NOW},
		/* An hour, as of a clock that keeps local time. */
		{"the leader is an hour ahead",
		 NOW - DAY,
		 NOW,
		 3,
		 3,
		 {NOW + 60 * MINUTE, NOW, NOW},
		 NOW,
		 NOW},
		/* Nobody knows better. */
		{"alone", NOW - DAY, NOW - DAY, 1, 1, {NOW}, NOW, NOW},
		{"a first start", 0, 0, 1, 1, {NOW}, NOW, NOW},
		{"off for months, and all clocks went on",
		 NOW - YEARS,
		 NOW - YEARS,
		 3,
		 3,
		 {NOW, NOW, NOW},
		 NOW,
		 NOW},
		{"off for months, two clocks went on",
		 NOW - YEARS,
		 NOW - YEARS,
		 3,
		 3,
		 {NOW, NOW - YEARS, NOW},
		 NOW,
		 NOW},
		{"off for months, one clock went on, or leaps",
		 NOW - YEARS,
		 NOW - YEARS,
		 3,
		 3,
		 {NOW, NOW - YEARS, NOW - YEARS},
		 NOW - YEARS,
		 NOW - YEARS},
		/* No batteries. */
		{"none can be", NOW - DAY, NOW, 3, 3, {0, 0, 0}, 0, NOW - DAY},
		{"all stand behind",
		 NOW,
		 NOW,
		 3,
		 3,
		 {NOW - DAY, NOW - DAY, NOW - DAY},
		 NOW - DAY,
		 NOW},
		{"only the leader's is right, which what has passed confirms",
		 NOW - DAY,
		 NOW - MINUTE,
		 3,
		 3,
		 {NOW, 0, 0},
		 0,
		 NOW},
		{"only the leader's is right, the others stand behind",
		 NOW - DAY,
		 NOW - MINUTE,
		 3,
		 3,
		 {NOW, NOW - 9 * DAY, NOW - 9 * DAY},
		 NOW - 9 * DAY,
		 NOW},
		{"only the leader's could be, and leaps",
		 NOW - DAY,
		 NOW,
		 3,
		 3,
		 {NOW + YEARS, 0, 0},
		 0,
		 NOW - DAY},
		/* Not heard yet: just elected. */
		{"just elected", NOW - DAY, NOW, 3, 1, {NOW + MINUTE}, 0, NOW + MINUTE},
		{"just elected, and leaps", NOW - DAY, NOW, 3, 1, {NOW + YEARS}, 0, NOW - DAY},
		/* It never goes back. */
		{"the log is ahead", NOW + DAY, NOW + DAY, 3, 3, {NOW, NOW, NOW}, NOW, NOW + DAY},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct clocks c = {.newest_ms = cases[i].newest,
				   .reckoned_ms = cases[i].reckoned,
				   .own_ms = cases[i].heard[0],
				   .voters = cases[i].voters,
				   .count = cases[i].count};

		for (unsigned j = 0; j < c.count; j++)
			c.heard_ms[j] = cases[i].heard[j];
		if (clocks_majority_ms(&c) != cases[i].majority)
			fail_msg("%s: the majority is at %lld", cases[i].what,
				 (long long)clocks_majority_ms(&c));
		if (clocks_now_ms(&c) != cases[i].now)
			fail_msg("%s: %lld, not %lld", cases[i].what, (long long)clocks_now_ms(&c),
				 (long long)cases[i].now);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_now)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
