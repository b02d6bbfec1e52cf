/* Leases: what a board believes, what the leader knows of it, and two leaders at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "cluster/lease.h"
#include "lib/rng.h"

enum { LENGTH = LEASE_LENGTH_MS, STRETCHED = LENGTH + LENGTH / 100 + 2 };

static const uint64_t three[] = {1, 2, 3};
static const bool all_vote[] = {true, true, true, true, true, true, true};

static void test_board(void **state)
{
	struct lease l = {0};

	(void)state;
	assert_false(lease_valid(&l, 0));
	lease_granted(&l, 5, 5, 1000, 77, LENGTH);
	assert_true(lease_valid(&l, 1000 + LENGTH - 1));
	assert_false(lease_valid(&l, 1000 + LENGTH));
	assert_int_equal(l.leader_ms, 77);
	/* A shorter or older grant takes nothing away. */
	lease_granted(&l, 5, 5, 900, 70, LENGTH);
	lease_granted(&l, 5, 5, 1100, 80, 10);
	assert_int_equal(l.until_ms, 1000 + LENGTH);
	assert_int_equal(l.leader_ms, 80);
	/* Older than the lease's term, or than the newest known one. */
	lease_granted(&l, 4, 4, 5000, 90, LENGTH);
	lease_granted(&l, 6, 5, 5000, 90, LENGTH);
	assert_int_equal(l.until_ms, 1000 + LENGTH);
	/* A new leader without a lease of its own: only its clock is to be echoed. */
	lease_granted(&l, 6, 6, 2000, 3, 0);
	assert_int_equal(l.term, 6);
	assert_int_equal(l.leader_ms, 3);
	assert_int_equal(l.until_ms, 1000 + LENGTH);
}

static void test_alone(void **state)
{
	struct lease_table t;

	(void)state;
	lease_table_start(&t, 1, 1, 500);
	assert_int_equal(lease_table_self_until(&t, 600), 0);
	lease_table_members(&t, three, all_vote, 1, 500);
	assert_int_equal(lease_table_self_until(&t, 600), 600 + LENGTH);
}

static void test_majority(void **state)
{
	static const uint64_t five[] = {1, 2, 3, 4, 5};
	static const bool four_vote[] = {true, true, true, true, false};
	struct lease_table t;

	(void)state;
	lease_table_start(&t, 1, 9, 1000);
	lease_table_members(&t, five, four_vote, 5, 1000);
	/* Nobody has echoed anything yet: no lease for the leader, so none to give. */
	assert_int_equal(lease_table_self_until(&t, 1000), 0);
	assert_int_equal(lease_table_renew(&t, 2, 9, 0, 1010), 0);
	assert_int_equal(lease_table_renew(&t, 2, 9, 1005, 1020), 0);
	/* Node 5 has no vote and does not count. */
	assert_int_equal(lease_table_renew(&t, 5, 9, 1015, 1020), 0);
	assert_int_equal(lease_table_self_until(&t, 1020), 0);
	/* 3 of 4 voters: until the older of the two echoes + length; not more is given. */
	assert_int_equal(lease_table_renew(&t, 3, 9, 1012, 1030), LENGTH - 25);
	assert_int_equal(lease_table_self_until(&t, 1030), 1005 + LENGTH);
	assert_int_equal(lease_table_end(&t, 3), 1030 + (LENGTH - 25) + (LENGTH - 25) / 100 + 2);
	assert_int_equal(lease_table_renew(&t, 4, 9, 1025, 1040), LENGTH - 28);
	/* Echoes from the future, of before the election, or of another term prove nothing. */
	assert_int_equal(lease_table_renew(&t, 2, 9, 5000, 1050), LENGTH - 38);
	assert_int_equal(lease_table_renew(&t, 2, 8, 1049, 1050), 0);
	assert_int_equal(lease_table_renew(&t, 2, 10, 1049, 1050), 0);
	assert_int_equal(lease_table_renew(&t, 6, 9, 1049, 1050), 0);
	assert_int_equal(lease_table_renew(&t, 0, 9, 1049, 1050), 0);
	/* And when the echoes are old, it is over. */
	assert_int_equal(lease_table_renew(&t, 2, 9, 0, 1012 + LENGTH), 0);
}

static void test_end(void **state)
{
	static const uint64_t two[] = {1, 2};
	struct lease_table t;
	uint64_t end;

	(void)state;
	lease_table_start(&t, 1, 2, 1000);
	lease_table_members(&t, three, all_vote, 3, 1000);
	/* S4: whoever is not known yet. */
	assert_int_equal(lease_table_end(&t, 2), 1000 + STRETCHED);
	assert_int_equal(lease_table_end(&t, 42), 1000 + STRETCHED);
	lease_table_renew(&t, 3, 2, 5000, 5000);
	assert_int_equal(lease_table_renew(&t, 3, 2, 5400, 5500), LENGTH - 100);
	end = lease_table_end(&t, 3);
	assert_true(end >= 5500 + LENGTH - 100);
	/* Membership changes forget nobody's lease, also not that of one who is removed. */
	lease_table_members(&t, three, all_vote, 3, 5600);
	assert_int_equal(lease_table_end(&t, 3), end);
	lease_table_members(&t, two, all_vote, 2, 5600);
	assert_int_equal(lease_table_end(&t, 3), end);
	lease_table_members(&t, three, all_vote, 3, 5700);
	assert_int_equal(lease_table_end(&t, 3), end);
}

/* Not every grant is for the VMs of a board: their end stays where it was. */
static void test_vms(void **state)
{
	struct lease_table t;
	uint64_t end;

	(void)state;
	lease_table_start(&t, 1, 2, 1000);
	lease_table_members(&t, three, all_vote, 3, 1000);
	assert_int_equal(lease_table_vms_end(&t, 2), 1000 + STRETCHED);
	lease_table_renew(&t, 2, 2, 5000, 5000);
	lease_table_renew_vms(&t, 2);
	end = lease_table_vms_end(&t, 2);
	assert_int_equal(end, lease_table_end(&t, 2));
	assert_int_not_equal(lease_table_renew(&t, 2, 2, 5500, 5500), 0);
	assert_int_equal(lease_table_vms_end(&t, 2), end);
	assert_true(lease_table_end(&t, 2) > end);
	lease_table_members(&t, three, all_vote, 3, 5600);
	assert_int_equal(lease_table_vms_end(&t, 2), end);
	lease_table_renew_vms(&t, 2);
	assert_int_equal(lease_table_vms_end(&t, 2), lease_table_end(&t, 2));
	/* Who is removed is counted on to its last, and so is who comes back. */
	assert_int_not_equal(lease_table_renew(&t, 2, 2, 6000, 6000), 0);
	end = lease_table_end(&t, 2);
	lease_table_members(&t, three, all_vote, 1, 6100);
	assert_int_equal(lease_table_vms_end(&t, 2), end);
	assert_int_equal(lease_table_vms_end(&t, 0), end);
	lease_table_members(&t, three, all_vote, 3, 6200);
	assert_int_equal(lease_table_vms_end(&t, 2), end);
}

static void test_stands(void **state)
{
	static const struct {
		uint64_t told_ms, asked_ms, now_ms;
		bool stands;
	} cases[] = {
		{0, 9750, 10000, false}, /* it has taken all */
		{10000, 9750, 10000, false},
		{10001 - LENGTH, 9750, 10000, false},
		{10000 - LENGTH, 9750, 10000, true},
		{1, 9750, 10000, true},
		{1, 10001 - LENGTH, 10000, true},
		{1, 10000 - LENGTH, 10000, false}, /* all was frozen */
		{1, 0, 10000, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(lease_stands(cases[i].told_ms, cases[i].asked_ms, cases[i].now_ms),
				 cases[i].stands);
}

/* Two leaders of three boards, each with a clock of its own, by chance: the old one, cut off from
 * the majority at some moment, and the one that this majority elects. At no instant does the old
 * leader, or a board that it has granted to, act later than the new leader waits for it. */
static void test_two_leaders(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 2000; seed++) {
		struct prng p = {seed};
		struct lease_table old;
		struct lease_table new;
		struct lease board[4] = {0};
		uint64_t echo[4] = {0};
		/* Clock of board i at the true time x: x * (1000 + rate) / 1000 + offset. */
		uint64_t offset[4];
		uint64_t rate[4];
		uint64_t elected = 0;
		uint64_t cut = 5000 + prng_below(&p, 3000);
		uint64_t latest = 0;

		for (unsigned i = 1; i <= 3; i++) {
			offset[i] = prng_below(&p, 100000);
			rate[i] = 990 + prng_below(&p, 21);
		}
#define CLOCK(i, x) ((x)*rate[i] / 1000 + offset[i])
		lease_table_start(&old, 1, 1, CLOCK(1, 1));
		lease_table_members(&old, three, all_vote, 3, CLOCK(1, 1));
		for (uint64_t now = 1; now < 20000; now += 1 + prng_below(&p, 300)) {
			unsigned i = 2 + (unsigned)prng_below(&p, 2);
			uint64_t sent = now;
			uint64_t length;
			uint64_t end;

			/* The majority turns away from the old leader: it elects, and answers the
			 * old one no more. A board granted to by the old one keeps its lease. */
			if (now > cut && elected == 0 && prng_chance(&p, 30)) {
				elected = now;
				lease_table_start(&new, 2, 2, CLOCK(2, now));
				lease_table_members(&new, three, all_vote, 3, CLOCK(2, now));
			}
			if (elected == 0) {
				uint64_t at = now + prng_below(&p, 200);

				length = lease_table_renew(&old, i, 1, echo[i], CLOCK(1, at));
				lease_granted(&board[i], 1, 1, CLOCK(i, sent), CLOCK(1, at),
					      length);
				echo[i] = board[i].leader_ms;
				now = at;
			}
			/* True time at which each of the old world stops. */
			for (i = 1; i <= 3; i++) {
				uint64_t until =
					i == 1 ? lease_table_self_until(&old, CLOCK(1, now))
					       : board[i].until_ms;

				if (until <= offset[i])
					continue;
				end = (until - offset[i]) * 1000 / rate[i];
				if (end > latest)
					latest = end;
			}
		}
		if (elected == 0)
			continue;
		if (CLOCK(2, latest) > lease_table_end(&new, 1))
			fail_msg("seed %llu: the old world acts until %llu, the new leader waits "
				 "until %llu of its clock",
				 (unsigned long long)seed, (unsigned long long)CLOCK(2, latest),
				 (unsigned long long)lease_table_end(&new, 1));
#undef CLOCK
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_board),	    cmocka_unit_test(test_alone),
		cmocka_unit_test(test_majority),    cmocka_unit_test(test_end),
		cmocka_unit_test(test_vms),	    cmocka_unit_test(test_stands),
		cmocka_unit_test(test_two_leaders),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
