#include "cluster/address_pool.h"

#include <stddef.h>
#include <string.h>

static address_set bit(unsigned address)
{
	return (address_set)1 << address;
}

bool address_pool_over(const struct pool_view *v, const struct pool_board *b)
{
	return !b->live && v->now_ms >= b->end_ms;
}

static bool board_may_have(const struct pool_view *v, const struct pool_board *b, unsigned address)
{
	return (b->has & bit(address)) != 0 && !address_pool_over(v, b);
}

/* Could somebody have an address of whom that is not known? */
static bool anybody_unknown(const struct pool_view *v)
{
	if (v->now_ms < v->gone_end_ms)
		return true;
	for (unsigned i = 0; i < v->board_count; i++)
		if (!v->boards[i].known && !address_pool_over(v, &v->boards[i]))
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

enum proof {
	PROOF_TOLD, /* this leadership gave it to this board, when nobody could have it */
	PROOF_ONLY, /* of all boards it is the only one that may have it */
	PROOF_NONE, /* several say that they may, or some have said nothing yet */
};

/* The board that may have the address; NULL none. What boards say is cautious: one may have lost it
 * and not know, while another has it already. */
static const struct pool_board *owner_find(const struct pool_view *v, unsigned address,
					   bool unknown, enum proof *ret_proof)
{
	const struct pool_board *owner = NULL;
	unsigned count = 0;

	for (unsigned i = 0; i < v->board_count; i++) {
		const struct pool_board *b = &v->boards[i];

		if (!board_may_have(v, b, address))
			continue;
		if ((b->told & bit(address)) != 0) {
			*ret_proof = PROOF_TOLD;
			return b;
		}
		owner = b;
		count++;
	}
	*ret_proof = count == 1 && !unknown ? PROOF_ONLY : PROOF_NONE;
	return owner;
}

static void plan_owned(const struct pool_view *v, struct pool_plan *plan, unsigned address,
		       const struct pool_board *owner)
{
	bool heirs = heir_find(v, plan, address) != NULL;

	if (!owner->live)
		plan->why[address] = POOL_WAITS;
	/* With nobody to take it, a drained board is better than none. */
	else if (owner->drained && heirs && (v->busy & bit(address)) == 0)
		plan->why[address] = POOL_DRAINED;
	else if ((owner->able & bit(address)) == 0)
		plan->why[address] = POOL_UNABLE;
	else {
		plan->holder[address] = owner->node;
		plan->why[address] = POOL_STAYS;
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

/* True: nobody has it. */
static bool plan_first(const struct pool_view *v, struct pool_plan *plan, unsigned address,
		       bool unknown)
{
	enum proof proof;
	const struct pool_board *owner = owner_find(v, address, unknown, &proof);

	if (owner == NULL)
		return true;
	if (proof != PROOF_NONE)
		plan_owned(v, plan, address, owner);
	else
		plan->why[address] = unknown ? POOL_UNPROVEN : POOL_DOUBLE;
	return false;
}

void address_pool_plan(const struct pool_view *view, struct pool_plan *ret)
{
	bool free_now[LIMIT_ADDRESSES] = {0};
	bool unknown = anybody_unknown(view);

	memset(ret, 0, sizeof(*ret));
	/* What stays counts before anything is given. */
	for (unsigned a = 0; a < view->address_count; a++)
		free_now[a] = plan_first(view, ret, a, unknown);
	for (unsigned a = 0; a < view->address_count; a++)
		if (free_now[a])
			plan_free(view, ret, a, unknown);
	if (view->calm)
		plan_balance(view, ret);
}

bool address_pool_silent(const struct pool_view *view, const struct pool_plan *plan,
			 const struct pool_board *board)
{
	for (unsigned a = 0; a < view->address_count; a++)
		if (plan->why[a] == POOL_UNPROVEN && (board->has & bit(a)) != 0)
			return true;
	return false;
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
