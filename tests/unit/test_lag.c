/* Whether a board keeps up with the log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cluster/lag.h"

/* What it says one after the other, and for how long it lags behind then. */
static void test_lag_story(void **state)
{
	static const struct {
		uint64_t now_ms, applied, leader, lag_ms;
	} story[] = {
		{1000, 10, 10, 0},	{1250, 10, 11, 0}, /* it had what there was; this is new,
							      and asked for from here */
		{1500, 10, 11, 250},	{1750, 11, 12, 0}, /* it has it, and there is more */
		{2000, 12, 12, 0},	{4000, 12, 12, 0}, /* nothing to take */
		{4250, 12, 13, 0},	{6000, 12, 50, 1750}, /* it stands still */
		{8250, 12, 99, 4000},	{8500, 13, 99, 0}, /* it moves again: what came meanwhile is
							      given time */
		{8750, 50, 99, 250},	{9000, 99, 99, 0},    {9250, 99, 120, 0},
		{9500, 99, 120, 250},	{60000, 99, 500, 0}, /* it was away */
		{60250, 200, 500, 250}, {60500, 500, 500, 0},
	};
	struct lag l = {0};

	(void)state;
	assert_int_equal(lag_ms(&l), 0);
	for (size_t i = 0; i < sizeof(story) / sizeof(story[0]); i++) {
		lag_note(&l, story[i].applied, story[i].leader, story[i].now_ms);
		assert_int_equal(lag_ms(&l), story[i].lag_ms);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lag_story),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
