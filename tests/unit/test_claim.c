/* The agent's side of a lease, step by step on a clock of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/boards.h"
#include "agent/claim.h"

enum { LEASE = 6000, STOP = 1000, FIRST = 100 };

struct stage {
	struct claim c;
	struct claim_out out; /* of the last call */
	uint64_t now;
};

static void begin(struct stage *s)
{
	*s = (struct stage){.now = 50000};
	claim_init(&s->c, LEASE, STOP, FIRST);
}

#define CALL(s, ...)                                                                               \
	do {                                                                                       \
		(s)->out = (struct claim_out){0};                                                  \
		__VA_ARGS__;                                                                       \
	} while (0)

static void want(struct stage *s, bool on)
{
	CALL(s, claim_want(&s->c, on, s->now, &s->out));
}

static void connect_(struct stage *s)
{
	CALL(s, claim_connected(&s->c, s->now, &s->out));
}

static void renewed(struct stage *s, uint64_t number)
{
	CALL(s, claim_renewed(&s->c, number, s->now, &s->out));
}

static void given(struct stage *s, bool yours, uint64_t ticket, uint64_t epoch)
{
	CALL(s, claim_lease(&s->c, ticket, yours, epoch, s->c.number, s->now, &s->out));
}

static void tick(struct stage *s, uint64_t ms)
{
	s->now += ms;
	CALL(s, claim_tick(&s->c, s->now, &s->out));
}

static void stopped(struct stage *s)
{
	CALL(s, claim_stopped(&s->c, s->now, &s->out));
}

/* Connected, wanted, held by epoch 3; the renewal that it counts from was sent at 50000. */
static void hold(struct stage *s)
{
	begin(s);
	want(s, true);
	assert_int_equal(s->c.state, CLAIM_WAITING);
	connect_(s);
	assert_int_equal(s->out.renew, 1);
	s->now += 40;
	renewed(s, 1);
	assert_false(s->out.gained);
	given(s, true, 77, 3);
	assert_true(s->out.gained);
	assert_int_equal(s->out.confirm, 77);
	assert_int_equal(s->c.epoch, 3);
	assert_int_equal(s->c.until_ms, 50000 + LEASE);
}

static void test_gain(void **state)
{
	struct stage s;

	(void)state;
	hold(&s);
	/* The answer may come after the lease as well as before. */
	begin(&s);
	want(&s, true);
	connect_(&s);
	given(&s, true, 1, 3);
	assert_false(s.out.gained);
	renewed(&s, 1);
	assert_true(s.out.gained);
}

static void test_not_wanted_is_not_taken(void **state)
{
	struct stage s;

	(void)state;
	begin(&s);
	connect_(&s);
	renewed(&s, 1);
	given(&s, true, 1, 3);
	assert_int_equal(s.c.state, CLAIM_IDLE);
	assert_false(s.out.gained);
}

static void test_lease_counts_from_sending(void **state)
{
	struct stage s;

	(void)state;
	hold(&s);
	tick(&s, 960); /* 51000 */
	assert_int_equal(s.out.renew, 2);
	s.now += 900;
	renewed(&s, 2);
	assert_int_equal(s.c.until_ms, 51000 + LEASE);
	/* An answer to what was never asked, or to what was answered. */
	renewed(&s, 1);
	renewed(&s, 9);
	assert_int_equal(s.c.until_ms, 51000 + LEASE);
}

static void test_late_lease_is_not_used(void **state)
{
	struct stage s;

	(void)state;
	begin(&s);
	want(&s, true);
	connect_(&s);
	renewed(&s, 1);
	s.now += LEASE - STOP; /* what is left is not enough to stop in */
	given(&s, true, 1, 3);
	assert_false(s.out.gained);
	assert_int_equal(s.c.state, CLAIM_WAITING);
}

static void test_loss_in_time(void **state)
{
	struct stage s;

	(void)state;
	hold(&s);
	claim_disconnected(&s.c);
	assert_int_equal(s.c.state, CLAIM_HELD);
	assert_int_equal(claim_due(&s.c), 50000 + LEASE - STOP);
	s.now = 50000 + LEASE - STOP - 1;
	tick(&s, 0);
	assert_false(s.out.lost);
	tick(&s, 1);
	assert_true(s.out.lost);
	assert_int_equal(s.c.state, CLAIM_STOPPING);
	assert_int_equal(s.c.until_ms, 50000 + LEASE);
	stopped(&s);
	assert_int_equal(s.c.state, CLAIM_WAITING);
	assert_int_equal(s.c.number, FIRST + 2);
	assert_int_equal(s.c.epoch, 0);
	assert_false(s.out.claim); /* nobody is there to hear it */
}

static void test_frozen(void **state)
{
	struct stage s;

	(void)state;
	hold(&s);
	s.now = 90000;
	/* Answers that were on their way revive nothing. */
	s.c.renewal = 2;
	s.c.sent_ms[2] = 89990;
	renewed(&s, 2);
	assert_true(s.out.lost);
	assert_true(s.c.until_ms < s.now);
}

static void test_next_connection(void **state)
{
	struct stage s;

	(void)state;
	hold(&s);
	claim_disconnected(&s.c);
	s.now = 52000;
	connect_(&s);
	renewed(&s, 1);
	assert_int_equal(s.c.until_ms, 50000 + LEASE); /* not given on this connection yet */
	given(&s, true, 5, 3);
	assert_int_equal(s.c.until_ms, 52000 + LEASE);
	assert_false(s.out.gained || s.out.lost);
	assert_int_equal(s.out.confirm, 5);
	/* Another epoch than the one that it holds: that is another lease. */
	given(&s, true, 6, 4);
	assert_true(s.out.lost);
}

static void test_refused(void **state)
{
	struct stage s;

	(void)state;
	hold(&s);
	given(&s, false, 9, 0);
	assert_true(s.out.lost);
	assert_int_equal(s.out.confirm, 0); /* only when all has stopped */
	renewed(&s, 2);
	assert_int_equal(s.c.until_ms, 50000 + LEASE);
	given(&s, false, 10, 0);
	assert_false(s.out.lost);
	stopped(&s);
	assert_int_equal(s.out.confirm, 10); /* the newest */
	assert_true(s.out.claim);
	assert_int_equal(s.c.state, CLAIM_WAITING);
	/* Whoever holds nothing confirms at once. */
	given(&s, false, 11, 0);
	assert_int_equal(s.out.confirm, 11);
	assert_false(s.out.lost);
}

static void test_release(void **state)
{
	struct stage s;

	(void)state;
	hold(&s);
	want(&s, false);
	assert_true(s.out.lost);
	want(&s, true); /* another thought: it stops all the same */
	assert_int_equal(s.c.state, CLAIM_STOPPING);
	stopped(&s);
	assert_int_equal(s.c.state, CLAIM_WAITING);
	want(&s, false);
	assert_true(s.out.claim);
	assert_int_equal(s.c.state, CLAIM_IDLE);
	stopped(&s); /* once too often */
	assert_int_equal(s.c.state, CLAIM_IDLE);
}

static void test_answer_to_an_old_claim(void **state)
{
	struct stage s;

	(void)state;
	begin(&s);
	want(&s, true);
	connect_(&s);
	renewed(&s, 1);
	want(&s, false);
	want(&s, true);
	CALL(&s, claim_lease(&s.c, 1, true, 3, FIRST + 1, s.now, &s.out));
	assert_false(s.out.gained);
	assert_int_equal(s.out.confirm, 0);
	given(&s, true, 2, 4);
	assert_true(s.out.gained);
}

static void test_silent_board(void **state)
{
	struct stage s;

	(void)state;
	hold(&s);
	tick(&s, 960);
	assert_int_equal(s.out.renew, 2);
	tick(&s, LEASE / CLAIM_SILENT_PARTS - 1);
	assert_false(s.out.dead);
	tick(&s, 1);
	assert_true(s.out.dead);
	/* Long before the lease is over: there is time for other boards. */
	assert_true(s.now + STOP < s.c.until_ms);
}

static void test_boards(void **state)
{
	struct boards b;
	unsigned seen = 0;
	uint64_t last = 0;

	(void)state;
	boards_init(&b, 3, 1, 1000);
	assert_int_equal(b.due_ms, 1000);
	for (unsigned i = 0; i < 3; i++)
		seen |= 1u << boards_next(&b);
	assert_int_equal(seen, 7);
	/* Every wait is random and bounded; they grow by rounds. */
	for (unsigned i = 0; i < 60; i++) {
		boards_failed(&b, false, 1000);
		assert_true(b.due_ms > 1000 && b.due_ms <= 1000 + BOARDS_WAIT_MAX_MS);
		if (i < 3)
			assert_true(b.due_ms <= 1200);
		last = b.due_ms > last ? b.due_ms : last;
	}
	assert_true(last > 1000 + BOARDS_WAIT_MAX_MS / 2);
	boards_welcome(&b);
	boards_failed(&b, true, 1000);
	assert_true(b.due_ms <= 1050);
	/* Other seeds, other orders. */
	seen = 0;
	for (uint64_t seed = 1; seed <= 50; seed++) {
		boards_init(&b, 3, seed, 0);
		seen |= 1u << boards_next(&b);
	}
	assert_int_equal(seen, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gain),
		cmocka_unit_test(test_not_wanted_is_not_taken),
		cmocka_unit_test(test_lease_counts_from_sending),
		cmocka_unit_test(test_late_lease_is_not_used),
		cmocka_unit_test(test_loss_in_time),
		cmocka_unit_test(test_frozen),
		cmocka_unit_test(test_next_connection),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_release),
		cmocka_unit_test(test_answer_to_an_old_claim),
		cmocka_unit_test(test_silent_board),
		cmocka_unit_test(test_boards),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
