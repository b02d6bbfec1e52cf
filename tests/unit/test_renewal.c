/* When certificates are renewed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lib/renewal.h"

static void test_due(void **state)
{
	static const struct {
		int64_t issued, not_after, now;
		bool due;
	} cases[] = {
		{1000, 4000, 1000, false}, {1000, 4000, 2999, false},
		{1000, 4000, 3000, true}, /* two thirds */
		{1000, 4000, 9000, true}, /* over */
		{1000, 4000, 999, true}, /* of a clock that was ahead */
		{1000, 1000, 1000, true}, /* of no life at all */
		{1000, 500, 600, true},	   {1000, INT64_MAX, 1700000000000, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(renewal_is_due(cases[i].issued, cases[i].not_after, cases[i].now),
				 cases[i].due);
	assert_int_equal(renewal_due_ms(0, 90), 60);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_due),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
