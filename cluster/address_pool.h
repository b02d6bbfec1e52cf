/* address_pool.h: which board is to have which service address (docs/decisions/0012). Pure, and
 * without a state of its own: from what the boards may have now, to what each is to have.
 *
 * The rule that must never break: an address is given to a board only when no other board can have
 * it: each other board has said that it has let it go, or its lease has ended, with the margins of
 * cluster/lease.h and ADDRESS_MARGIN_MS, within which a board's kernel removes the address even if
 * nothing else of that board works (S2). What a board has not told since this leadership began, it
 * may have (S4).
 *
 * Beyond that: the addresses are spread evenly over the boards that can have them, and stay where
 * they are. One that a board loses goes to the board with the fewest. To a board that has come back
 * they move one at a time, when all is calm, and never while a site needs the vote that it would
 * lose for a moment: a move ends the sessions at the address. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "cluster/limits.h"

enum {
	/* Kernels count an address's life in seconds, and may end it one late. */
	ADDRESS_LATE_MS = 1000,
	/* Lives end so long before the lease, as far as the kernel is punctual; */
	ADDRESS_SPARE_MS = 250,
	/* and an address is given away so long after it. */
	ADDRESS_MARGIN_MS = ADDRESS_LATE_MS - ADDRESS_SPARE_MS,
	/* Nothing is moved for the balance before all boards and addresses have stayed as they are
	 * for so long. */
	ADDRESS_CALM_MS = 30000,
};

/* A set of addresses: bit n is address n of the pool. */
typedef uint64_t address_set;

struct pool_board {
	uint64_t node;
	bool live; /* it has a lease, and has said what it has */
	bool known; /* it has said in this leadership what it has */
	bool drained;
	uint64_t end_ms; /* past it, it has nothing, unless it is live again; with all margins */
	address_set able; /* it could have these: interface, rights, Tb__ServiceAddress.boards */
	address_set has; /* it has these or may have them: said so, or was told to, and has not said
			  * that it let them go */
	address_set told; /* of these: this leadership has told it to have them */
};

struct pool_view {
	const struct pool_board *boards; /* of the model */
	unsigned board_count;
	unsigned address_count;
	uint64_t gone_end_ms; /* the same for those that are no boards any more */
	uint64_t now_ms;
	address_set busy; /* a site needs the vote that comes by way of these: they do not move
			   * without need */
	bool calm; /* for ADDRESS_CALM_MS nothing has changed */
};

enum pool_why {
	POOL_STAYS, /* the board has it, or is taking it */
	POOL_GIVEN, /* nobody had it: the board is to take it */
	POOL_UNPROVEN, /* a board says that it may have it, but so may one that has said nothing
			* yet: those who may have it go on as they do, and are told nothing */
	POOL_WAITS, /* a board that is away may still have it */
	POOL_DRAINED, /* to be let go: its board is drained */
	POOL_UNABLE, /* to be let go: its board cannot have it any more */
	POOL_BALANCE, /* to be let go: another board has too few */
	POOL_DOUBLE, /* several say that they may have it: to be let go by all that this leadership
		      * has not given it to */
	POOL_NOBODY, /* no live board can have it */
};

struct pool_plan {
	uint64_t holder[LIMIT_ADDRESSES]; /* is to have it; 0: nobody for now */
	enum pool_why why[LIMIT_ADDRESSES];
};

/* Is the lease of the board over, so that it has none of the addresses any more? */
bool address_pool_over(const struct pool_view *view, const struct pool_board *board);
void address_pool_plan(const struct pool_view *view, struct pool_plan *ret);
/* Is the board to be told nothing for now, so that it goes on as it does? */
bool address_pool_silent(const struct pool_view *view, const struct pool_plan *plan,
			 const struct pool_board *board);
/* What the plan gives to a board. */
address_set address_pool_share(const struct pool_view *view, const struct pool_plan *plan,
			       uint64_t node);
