/* boards.h: which board to try next, and when. Pure; random numbers come from the caller's seed.
 *
 * The list is walked in an order of its own per agent, so that the agents of a lost board spread
 * over the others, and each agent waits a random while, so that they do not come at once. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "lib/rng.h"

enum { BOARDS_MAX = 16, BOARDS_WAIT_MAX_MS = 5000 };

struct boards {
	struct prng random;
	unsigned count;
	unsigned order[BOARDS_MAX];
	unsigned next; /* index of order */
	unsigned failed; /* in a row */
	uint64_t due_ms; /* connect at this time */
};

/* 1 <= count <= BOARDS_MAX. */
void boards_init(struct boards *b, unsigned count, uint64_t seed, uint64_t now_ms);
/* The board to try now. */
unsigned boards_next(struct boards *b);
/* A board has said welcome. */
void boards_welcome(struct boards *b);
/* The try failed, or the connection is gone: when to try the next. `hurry`: a lease is held, so the
 * first round over all boards has only the shortest waits. */
void boards_failed(struct boards *b, bool hurry, uint64_t now_ms);
