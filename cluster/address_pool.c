#include "cluster/address_pool.h"

#include <stddef.h>
#include <string.h>

static address_set bit(unsigned address)
{
	return (address_set)1 << address;
}

/* Nothing of it is left, whatever it had. */
static bool board_is_over(const struct pool_view *v, const struct pool_board *b)
{
	return !b->live && v->now_ms >= b->end_ms;
}

static bool board_may_have(const struct pool_view *v, const struct pool_board *b, unsigned address)
{
	return (b->has & bit(address)) != 0 && !board_is_over(v, b);
}

/* Could somebody have an address of whom that is not known? */
static bool anybody_unknown(const struct pool_view *v)
{
	if (v->now_ms < v->gone_end_ms)
		return true;
	for (unsigned i = 0; i < v->board_count; i++)
		if (!v->boards[i].known && !board_is_over(v, &v->boards[i]))
			return true;
	return false;
}

static bool board_takes(const struct pool_board *b, unsigned address)
{
	return b->live && !b->drained && (b->able & bit(address)) != 0;
}

static unsigned board_load(const struct pool_view *v, const struct pool_plan *plan, uint64_t node)
{
	unsigned load = 0;

	for (unsigned a = 0; a < v->address_count; a++)
		load += plan->holder[a] == node;
	return load;
}

/* The board with the fewest that takes it; NULL none. */
static const struct pool_board *heir_find(const struct pool_view *v, const struct pool_plan *plan,
					  unsigned address)
{
	const struct pool_board *heir = NULL;
	unsigned least = 0;

	for (unsigned i = 0; i < v->board_count; i++) {
		const struct pool_board *b = &v->boards[i];
		unsigned load;

		if (!board_takes(b, address))
			continue;
		load = board_load(v, plan, b->node);
		if (heir == NULL || load < least) {
			heir = b;
			least = load;
		}
	}
	return heir;
}

/* The board that may have the address; of several a live one. NULL none. */
static const struct pool_board *owner_find(const struct pool_view *v, unsigned address,
					   bool *ret_double)
{
	const struct pool_board *owner = NULL;

	*ret_double = false;
	for (unsigned i = 0; i < v->board_count; i++) {
		const struct pool_board *b = &v->boards[i];

		if (!board_may_have(v, b, address))
			continue;
		*ret_double |= owner != NULL;
		if (owner == NULL || (!owner->live && b->live))
			owner = b;
	}
	return owner;
}

static void plan_owned(const struct pool_view *v, struct pool_plan *plan, unsigned address,
		       const struct pool_board *owner, bool doubled)
{
	bool heirs = heir_find(v, plan, address) != NULL;

	plan->holder[address] = 0;
	if (!owner->live)
		plan->why[address] = POOL_WAITS;
	/* With nobody to take it, a drained board is better than none. */
	else if (owner->drained && heirs && (v->busy & bit(address)) == 0)
		plan->why[address] = POOL_DRAINED;
	else if ((owner->able & bit(address)) == 0)
		plan->why[address] = POOL_UNABLE;
	else {
		plan->holder[address] = owner->node;
		plan->why[address] = doubled ? POOL_DOUBLE : POOL_STAYS;
	}
}

static void plan_free(const struct pool_view *v, struct pool_plan *plan, unsigned address,
		      bool unknown)
{
	const struct pool_board *heir = heir_find(v, plan, address);

	if (unknown) {
		plan->why[address] = POOL_WAITS;
	} else if (heir == NULL) {
		plan->why[address] = POOL_NOBODY;
	} else {
		plan->holder[address] = heir->node;
		plan->why[address] = POOL_GIVEN;
	}
}

/* One address from a board that has at least two more than another that could have it. */
static void plan_balance(const struct pool_view *v, struct pool_plan *plan)
{
	unsigned best = LIMIT_ADDRESSES;
	unsigned best_gain = 1;

	for (unsigned a = 0; a < v->address_count; a++) {
		const struct pool_board *heir = heir_find(v, plan, a);
		unsigned gain;

		/* One thing at a time. */
		if (plan->why[a] != POOL_STAYS && plan->why[a] != POOL_NOBODY)
			return;
		if (plan->holder[a] == 0 || heir == NULL || (v->busy & bit(a)) != 0)
			continue;
		gain = board_load(v, plan, plan->holder[a]) - board_load(v, plan, heir->node);
		if (board_load(v, plan, plan->holder[a]) > board_load(v, plan, heir->node) &&
		    gain > best_gain) {
			best = a;
			best_gain = gain;
		}
	}
	if (best == LIMIT_ADDRESSES)
		return;
	plan->holder[best] = 0;
	plan->why[best] = POOL_BALANCE;
}

void address_pool_plan(const struct pool_view *view, struct pool_plan *ret)
{
	const struct pool_board *owners[LIMIT_ADDRESSES] = {0};
	bool doubled[LIMIT_ADDRESSES] = {0};
	bool unknown = anybody_unknown(view);

	memset(ret, 0, sizeof(*ret));
	/* What stays counts before anything is given. */
	for (unsigned a = 0; a < view->address_count; a++) {
		owners[a] = owner_find(view, a, &doubled[a]);
		if (owners[a] != NULL)
			plan_owned(view, ret, a, owners[a], doubled[a]);
	}
	for (unsigned a = 0; a < view->address_count; a++)
		if (owners[a] == NULL)
			plan_free(view, ret, a, unknown);
	if (view->calm)
		plan_balance(view, ret);
}

address_set address_pool_share(const struct pool_view *view, const struct pool_plan *plan,
			       uint64_t node)
{
	address_set share = 0;

	for (unsigned a = 0; a < view->address_count; a++)
		if (plan->holder[a] == node)
			share |= bit(a);
	return share;
}
