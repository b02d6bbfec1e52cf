/* How long a restored cluster gives no vote, and no lease. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cluster/arbiter.h"
#include "cluster/candidate.h"
#include "cluster/hold.h"
#include "cluster/limits.h"
#include "tests/unit/commands.h"

static void put(struct store *s, uint32_t handover_ms)
{
	Tb__Site site = TB__SITE__INIT;
	Tb__Grant grant = TB__GRANT__INIT;

	assert_int_equal(store_begin(s), 0);
	site.id = 1;
	site.name = TEXT("s");
	assert_int_equal(store_site_put(s, &site), 0);
	grant.site_id = 1;
	grant.handover_ms = handover_ms;
	assert_int_equal(store_grant_put(s, &grant), 0);
	assert_int_equal(store_commit(s, 1), 0);
}

static void test_hold(void **state)
{
	const uint32_t qdevice = arbiter_own_timeout_ms(10000, TB__HANDOVER__HANDOVER_SAFE);
	const uint32_t lease = candidate_own_timeout_ms(LEASE_MAX_MS);
	/* Of leases the model knows nothing: an agent may have been enrolled since, with the token
	 * or the certificate of an operator. */
	const struct {
		uint32_t handover_ms, votes, leases;
	} cases[] = {
		{0, qdevice, lease},
		{qdevice - 1, qdevice, lease},
		{qdevice + 1, qdevice + 1, lease},
		{lease + 1, lease + 1, lease + 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct store *s;
		uint32_t ms;

		assert_int_equal(store_open(":memory:", &s), 0);
		put(s, cases[i].handover_ms);
		assert_int_equal(hold_votes_ms(s, &ms), 0);
		if (ms != cases[i].votes || hold_leases_ms(ms) != cases[i].leases)
			fail_msg("case %zu: %u and %u", i, ms, hold_leases_ms(ms));
		store_close(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_hold)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
