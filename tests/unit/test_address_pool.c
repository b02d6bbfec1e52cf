/* Which board is to have which service address. Every table row is a situation; behind the tables a
 * random walk of boards that die, freeze, come back and are drained checks the one rule: no
 * address is given to a board while another one can have it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/address_pool.h"

enum { NOW = 100000, PAST = NOW - 1, LATER = NOW + 1 };

/* A board that is well, can have addresses 0 and 1, and has `has`. */
static struct pool_board well(uint64_t node, address_set has)
{
	return (struct pool_board){
		.node = node, .live = true, .known = true, .end_ms = LATER, .able = 3, .has = has};
}

static struct pool_board with(struct pool_board b, bool live, bool known, uint64_t end_ms)
{
	b.live = live;
	b.known = known;
	b.end_ms = end_ms;
	return b;
}

static struct pool_board drained(struct pool_board b)
{
	b.drained = true;
	return b;
}

static struct pool_board able(struct pool_board b, address_set set)
{
	b.able = set;
	return b;
}

static struct pool_board told(struct pool_board b)
{
	b.told = b.has;
	return b;
}

static void test_one_address(void **state)
{
	const struct {
		struct pool_board boards[3];
		uint64_t gone_end_ms;
		bool busy;
		uint64_t holder;
		enum pool_why why;
	} cases[] = {
		/* Nobody has it: the first of those with the fewest. */
		{{well(1, 0), well(2, 0), well(3, 0)}, 0, false, 1, POOL_GIVEN},
		{{drained(well(1, 0)), well(2, 0), well(3, 0)}, 0, false, 2, POOL_GIVEN},
		{{able(well(1, 0), 2), able(well(2, 0), 2), well(3, 0)}, 0, false, 3, POOL_GIVEN},
		{{able(well(1, 0), 0), able(well(2, 0), 0), drained(well(3, 0))},
		 0,
		 false,
		 0,
		 POOL_NOBODY},
		/* Somebody has it: it stays. */
		{{well(1, 0), well(2, 1), well(3, 0)}, 0, false, 2, POOL_STAYS},
		/* What is not known may be. */
		{{well(1, 0), with(well(2, 0), false, false, LATER), well(3, 0)},
		 0,
		 false,
		 0,
		 POOL_WAITS},
		{{well(1, 0), with(well(2, 0), false, false, NOW), well(3, 0)},
		 0,
		 false,
		 1,
		 POOL_GIVEN},
		{{well(1, 0), well(2, 0), well(3, 0)}, LATER, false, 0, POOL_WAITS},
		{{well(1, 0), well(2, 0), well(3, 0)}, NOW, false, 1, POOL_GIVEN},
		/* Who says that he may have it has it only if nobody else can; or if he was told
		   to. */
		{{well(1, 1), with(well(2, 0), false, false, LATER), well(3, 0)},
		 0,
		 false,
		 0,
		 POOL_UNPROVEN},
		{{well(1, 1), well(2, 0), well(3, 0)}, LATER, false, 0, POOL_UNPROVEN},
		{{told(well(1, 1)), with(well(2, 0), false, false, LATER), well(3, 0)},
		 LATER,
		 false,
		 1,
		 POOL_STAYS},
		/* Its board is away: until its lease is over. */
		{{well(1, 0), with(well(2, 1), false, true, LATER), well(3, 0)},
		 0,
		 false,
		 0,
		 POOL_WAITS},
		{{well(1, 0), with(well(2, 1), false, true, NOW), well(3, 0)},
		 0,
		 false,
		 1,
		 POOL_GIVEN},
		/* One that is back has what it has, though its old lease would be over. */
		{{well(1, 0), with(well(2, 1), true, true, PAST), well(3, 0)},
		 0,
		 false,
		 2,
		 POOL_STAYS},
		/* Drained: first it lets go; not while a site needs it, nor for nobody. */
		{{well(1, 0), drained(well(2, 1)), well(3, 0)}, 0, false, 0, POOL_DRAINED},
		{{well(1, 0), drained(well(2, 1)), well(3, 0)}, 0, true, 2, POOL_STAYS},
		{{drained(well(1, 0)), drained(well(2, 1)), able(well(3, 0), 0)},
		 0,
		 false,
		 2,
		 POOL_STAYS},
		/* Its interface is gone. */
		{{well(1, 0), able(well(2, 1), 2), well(3, 0)}, 0, true, 0, POOL_UNABLE},
		/* Two say so: it stays where this leadership gave it to, else nobody keeps it. */
		{{well(1, 1), with(well(2, 1), false, true, LATER), told(well(3, 1))},
		 0,
		 false,
		 3,
		 POOL_STAYS},
		{{well(1, 1), well(2, 0), with(told(well(3, 1)), false, true, LATER)},
		 0,
		 false,
		 0,
		 POOL_WAITS},
		{{well(1, 1), well(2, 0), well(3, 1)}, 0, false, 0, POOL_DOUBLE},
		{{well(1, 1), with(well(2, 1), false, true, NOW), well(3, 0)},
		 0,
		 false,
		 1,
		 POOL_STAYS},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct pool_view view = {.boards = cases[i].boards,
					       .board_count = 3,
					       .address_count = 1,
					       .gone_end_ms = cases[i].gone_end_ms,
					       .now_ms = NOW,
					       .busy = cases[i].busy};
		struct pool_plan plan;

		address_pool_plan(&view, &plan);
		if (plan.holder[0] != cases[i].holder || plan.why[0] != cases[i].why)
			fail_msg("case %zu: board %llu, why %d", i,
				 (unsigned long long)plan.holder[0], plan.why[0]);
	}
}

static void plan_of(const struct pool_board *boards, unsigned count, unsigned addresses, bool calm,
		    address_set busy, struct pool_plan *ret)
{
	const struct pool_view view = {.boards = boards,
				       .board_count = count,
				       .address_count = addresses,
				       .now_ms = NOW,
				       .busy = busy,
				       .calm = calm};

	address_pool_plan(&view, ret);
}

static void test_spread(void **state)
{
	struct pool_board boards[3];
	struct pool_plan plan;
	unsigned load[4] = {0};

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		boards[i] = able(well(i + 1, 0), UINT64_MAX);
	plan_of(boards, 3, 8, false, 0, &plan);
	for (unsigned a = 0; a < 8; a++)
		load[plan.holder[a]]++;
	assert_int_equal(load[0], 0);
	assert_int_equal(load[1], 3);
	assert_int_equal(load[2], 3);
	assert_int_equal(load[3], 2);
	/* What stays counts: the third has none, and gets what is free. */
	boards[0].has = 7;
	boards[1].has = 8 + 16;
	plan_of(boards, 3, 7, false, 0, &plan);
	assert_int_equal(plan.holder[5], 3);
	assert_int_equal(plan.holder[6], 3);
	assert_int_equal(plan.holder[0], 1);
}

static void test_balance(void **state)
{
	struct pool_board boards[3];
	struct pool_plan plan;
	unsigned moved = 0;

	(void)state;
	boards[0] = able(well(1, 7), UINT64_MAX);
	boards[1] = able(well(2, 8 + 16), UINT64_MAX);
	boards[2] = able(well(3, 0), UINT64_MAX);
	/* A board that has just come back is left alone. */
	plan_of(boards, 3, 5, false, 0, &plan);
	for (unsigned a = 0; a < 5; a++)
		assert_int_equal(plan.why[a], POOL_STAYS);
	/* When all is calm one address moves, from the board with most. */
	plan_of(boards, 3, 5, true, 0, &plan);
	for (unsigned a = 0; a < 5; a++)
		moved += plan.why[a] == POOL_BALANCE;
	assert_int_equal(moved, 1);
	assert_int_equal(plan.why[0], POOL_BALANCE);
	assert_int_equal(plan.holder[0], 0);
	/* Never one by which a site needs the vote. */
	plan_of(boards, 3, 5, true, 1, &plan);
	assert_int_equal(plan.why[0], POOL_STAYS);
	assert_int_equal(plan.why[1], POOL_BALANCE);
	plan_of(boards, 3, 5, true, 31, &plan);
	for (unsigned a = 0; a < 5; a++)
		assert_int_equal(plan.why[a], POOL_STAYS);
	/* Nor for a difference of one, nor to a board that could not have it. */
	boards[0].has = 3;
	boards[1].has = 4;
	boards[2].has = 8;
	plan_of(boards, 3, 4, true, 0, &plan);
	for (unsigned a = 0; a < 4; a++)
		assert_int_equal(plan.why[a], POOL_STAYS);
	boards[0].has = 15;
	boards[1] = able(well(2, 0), 0);
	boards[2] = able(well(3, 0), 0);
	plan_of(boards, 3, 4, true, 0, &plan);
	for (unsigned a = 0; a < 4; a++)
		assert_int_equal(plan.why[a], POOL_STAYS);
	/* One thing at a time: not while another is on its way. */
	boards[1] = able(well(2, 0), UINT64_MAX);
	boards[2] = drained(able(well(3, 16), UINT64_MAX));
	plan_of(boards, 3, 5, true, 0, &plan);
	assert_int_equal(plan.why[4], POOL_DRAINED);
	for (unsigned a = 0; a < 4; a++)
		assert_int_equal(plan.why[a], POOL_STAYS);
}

/* --- a random walk --- */

enum { BOARDS = 4, ADDRESSES = 6, STEPS = 20000, LEASE = 30 };

/* What is really so at a board; the leader hears of it late. */
struct truth {
	address_set has;
	uint64_t end; /* of its lease */
	bool cut; /* the leader does not hear of it */
	address_set ordered; /* on its way, with the next news */
};

struct walk {
	struct truth truth[BOARDS];
	struct pool_board boards[BOARDS];
	uint64_t now;
	uint64_t elected; /* of the leader */
	unsigned given;
};

static void walk_check(const struct walk *w)
{
	for (unsigned a = 0; a < ADDRESSES; a++) {
		unsigned holders = 0;

		for (unsigned i = 0; i < BOARDS; i++)
			holders += (w->truth[i].has >> a & 1) != 0 && w->now < w->truth[i].end;
		if (holders > 1)
			fail_msg("address %u is at %u boards at time %llu", a, holders,
				 (unsigned long long)w->now);
	}
}

static void walk_board(struct walk *w, unsigned i)
{
	struct truth *t = &w->truth[i];
	struct pool_board *b = &w->boards[i];

	if (rand() % 60 == 0)
		t->cut = !t->cut;
	if (rand() % 200 == 0)
		b->drained = !b->drained;
	if (t->cut) {
		/* Without a lease it has nothing, and forgets its orders. */
		if (w->now >= t->end)
			t->has = t->ordered = 0;
		b->live = b->known && w->now < b->end_ms - LEASE / 2;
		return;
	}
	if (w->now >= t->end)
		t->has = t->ordered = 0;
	t->end = w->now + LEASE;
	b->end_ms = w->now + LEASE + 1;
	/* Its news: the first of a link says all that it has or was told to have. */
	t->has = t->ordered;
	b->has = t->has;
	b->known = true;
	b->live = true;
}

/* Another leader, which knows nothing but that old leases end. */
static void walk_elect(struct walk *w)
{
	w->elected = w->now;
	for (unsigned i = 0; i < BOARDS; i++) {
		w->boards[i].known = w->boards[i].live = false;
		w->boards[i].has = w->boards[i].told = 0;
		w->boards[i].end_ms = w->now + LEASE + 1;
	}
}

static void walk_decide(struct walk *w)
{
	const struct pool_view view = {.boards = w->boards,
				       .board_count = BOARDS,
				       .address_count = ADDRESSES,
				       .gone_end_ms = w->elected + LEASE + 1,
				       .now_ms = w->now,
				       .busy = rand() % 10 == 0 ? 5 : 0,
				       .calm = rand() % 20 == 0};
	struct pool_plan plan;

	address_pool_plan(&view, &plan);
	for (unsigned i = 0; i < BOARDS; i++) {
		address_set share = address_pool_share(&view, &plan, w->boards[i].node);

		if (!w->boards[i].live)
			continue;
		w->given += (share & ~w->boards[i].has) != 0;
		w->boards[i].has |= share;
		w->boards[i].told = share;
		/* An order to a board that is cut off may arrive or not. */
		if (!w->truth[i].cut || rand() % 2 == 0)
			w->truth[i].ordered = share;
		if (w->now < w->truth[i].end && rand() % 2 == 0)
			w->truth[i].has = w->truth[i].ordered;
	}
}

static void test_walk(void **state)
{
	struct walk w = {.now = NOW};

	(void)state;
	srand(7);
	for (unsigned i = 0; i < BOARDS; i++)
		w.boards[i] = (struct pool_board){.node = i + 1, .able = UINT64_MAX};
	for (unsigned step = 0; step < STEPS; step++, w.now++) {
		for (unsigned i = 0; i < BOARDS; i++)
			walk_board(&w, i);
		if (rand() % 400 == 0)
			walk_elect(&w);
		walk_check(&w);
		walk_decide(&w);
		walk_check(&w);
	}
	assert_true(w.given > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_address),
		cmocka_unit_test(test_spread),
		cmocka_unit_test(test_balance),
		cmocka_unit_test(test_walk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
