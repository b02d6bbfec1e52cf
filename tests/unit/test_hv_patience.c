/* When a device looks out for the next request, and when it sleeps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "hv/virtio/patience.h"

/* Kicks `gap` after each other, until looking out pays or `most` have come; how many it took. */
static unsigned earn(struct patience *p, uint64_t *now, uint64_t gap, unsigned most)
{
	unsigned kicks = 0;

	while (kicks < most && !patience_pays(p)) {
		patience_left(p, *now);
		*now += gap;
		patience_kicked(p, *now);
		kicks++;
	}
	return kicks;
}

static void test_earned(void **state)
{
	struct patience p = {0};
	uint64_t now = 1000;

	(void)state;
	assert_false(patience_pays(&p));
	patience_kicked(&p, now); /* the first kick of all follows nothing */
	assert_int_equal(p.soon, 0);
	assert_int_equal(earn(&p, &now, PATIENCE_WINDOW_US, 1000), PATIENCE_PRICE_MIN);
	/* Slow ones never earn it, and one slow one among them takes it away. */
	p = (struct patience){0};
	assert_int_equal(earn(&p, &now, PATIENCE_WINDOW_US + 1, 1000), 1000);
	assert_false(patience_pays(&p));
	earn(&p, &now, 1, PATIENCE_PRICE_MIN - 1);
	patience_left(&p, now);
	now += 1000000;
	patience_kicked(&p, now);
	assert_int_equal(earn(&p, &now, 1, 1000), PATIENCE_PRICE_MIN);
}

/* Each time nothing came it is twice as dear, up to a bound; one success and it is cheap again. */
static void test_lost(void **state)
{
	struct patience p = {0};
	uint64_t now = 1000;
	unsigned price = PATIENCE_PRICE_MIN;

	(void)state;
	for (int i = 0; i < 20; i++) {
		assert_int_equal(earn(&p, &now, 1, 10000), price);
		patience_looked(&p, false);
		assert_false(patience_pays(&p));
		price = price * 2 < PATIENCE_PRICE_MAX ? price * 2 : PATIENCE_PRICE_MAX;
	}
	assert_int_equal(earn(&p, &now, 1, 10000), PATIENCE_PRICE_MAX);
	patience_looked(&p, true);
	assert_true(patience_pays(&p));
	patience_looked(&p, false);
	assert_int_equal(earn(&p, &now, 1, 10000), 2 * PATIENCE_PRICE_MIN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_earned),
		cmocka_unit_test(test_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
