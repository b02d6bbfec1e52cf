/* Who leads instead of a drained board. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cluster/drain.h"

enum { V = 1, R = 2, D = 4 }; /* voter, reachable, drained */

static uint64_t heir(const unsigned flags[3], const uint64_t applied[3], uint64_t self)
{
	struct drain_board boards[3];

	for (unsigned i = 0; i < 3; i++)
		boards[i] = (struct drain_board){.node = i + 1,
						 .voter = flags[i] & V,
						 .reachable = flags[i] & R,
						 .drained = flags[i] & D,
						 .applied = applied[i]};
	return drain_heir(boards, 3, self);
}

static void test_heir(void **state)
{
	static const struct {
		unsigned flags[3];
		uint64_t applied[3];
		uint64_t self, heir;
	} cases[] = {
		{{V | R, V | R, V | R}, {9, 9, 9}, 1, 0}, /* not drained */
		{{V | R | D, V | R, V | R}, {9, 9, 9}, 1, 2},
		{{V | R | D, V | R, V | R}, {9, 8, 9}, 1, 3}, /* the newest */
		{{V | R | D, V | R, V}, {9, 8, 9}, 1, 2}, /* away */
		{{V | R | D, V | R | D, V | R}, {9, 9, 8}, 1, 3}, /* drained as well */
		{{V | R | D, R, V | R}, {9, 9, 8}, 1, 3}, /* not a voter yet */
		{{V | R | D, V | R | D, V | D}, {9, 9, 9}, 1, 0}, /* nobody */
		{{V | R | D, V | R, V | R}, {9, 9, 9}, 2, 0}, /* another one is drained */
		{{V | R | D, V | R, V | R}, {9, 9, 9}, 7, 0}, /* removed from the model */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(heir(cases[i].flags, cases[i].applied, cases[i].self),
				 cases[i].heir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_heir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
