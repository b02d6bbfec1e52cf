/* How long a restored cluster gives no vote. */
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

enum what { NOTHING, SITE_CERTIFICATE, AGENT_CERTIFICATE, AGENT_TOKEN, VIEWER_TOKEN };

static void put(struct store *s, enum what what, uint32_t handover_ms)
{
	Tb__Site site = TB__SITE__INIT;
	Tb__Grant grant = TB__GRANT__INIT;
	Tb__Certificate certificate = TB__CERTIFICATE__INIT;
	Tb__Token token = TB__TOKEN__INIT;

	assert_int_equal(store_begin(s), 0);
	site.id = 1;
	site.name = TEXT("s");
	assert_int_equal(store_site_put(s, &site), 0);
	grant.site_id = 1;
	grant.handover_ms = handover_ms;
	assert_int_equal(store_grant_put(s, &grant), 0);
	certificate.serial = TEXT("0123456789abcdef0123456789abcdef");
	certificate.subject = TEXT("s");
	certificate.kind = what == AGENT_CERTIFICATE ? TEXT("agent") : TEXT("site");
	certificate.revoked = true;
	if (what == SITE_CERTIFICATE || what == AGENT_CERTIFICATE)
		assert_int_equal(store_certificate_put(s, &certificate), 0);
	token.id = TEXT("00112233");
	token.role = what == AGENT_TOKEN ? TB__ROLE__ROLE_AGENT : TB__ROLE__ROLE_VIEWER;
	if (what == AGENT_TOKEN || what == VIEWER_TOKEN)
		assert_int_equal(store_token_put(s, &token), 0);
	assert_int_equal(store_commit(s, 1), 0);
}

static void test_hold(void **state)
{
	const uint32_t qdevice = arbiter_own_timeout_ms(10000, TB__HANDOVER__HANDOVER_SAFE);
	const uint32_t lease = candidate_own_timeout_ms(LEASE_MAX_MS);
	const struct {
		enum what what;
		uint32_t handover_ms;
		uint32_t expected;
	} cases[] = {
		{NOTHING, 0, qdevice},
		{NOTHING, qdevice - 1, qdevice},
		{NOTHING, qdevice + 1, qdevice + 1},
		{SITE_CERTIFICATE, 0, qdevice},
		{VIEWER_TOKEN, 0, qdevice},
		/* Its lease may be longer than any that the backup has seen. */
		{AGENT_CERTIFICATE, 0, lease},
		{AGENT_TOKEN, 0, lease},
		{AGENT_CERTIFICATE, lease + 1, lease + 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct store *s;
		uint32_t ms;

		assert_int_equal(store_open(":memory:", &s), 0);
		put(s, cases[i].what, cases[i].handover_ms);
		assert_int_equal(hold_ms(s, &ms), 0);
		if (ms != cases[i].expected)
			fail_msg("case %zu: %u, not %u", i, ms, cases[i].expected);
		store_close(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_hold)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
