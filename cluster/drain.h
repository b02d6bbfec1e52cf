/* drain.h: who leads instead of a board that is drained. Pure. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct drain_board {
	uint64_t node;
	bool voter;
	bool reachable; /* it holds a lease, as the leader sees it */
	bool drained;
	uint64_t applied; /* last log entry in its model, as it last said */
};

/* The reachable voter that is not drained and has applied most; 0: `self` is not drained, or there
 * is none, and self goes on. */
uint64_t drain_heir(const struct drain_board *boards, unsigned count, uint64_t self);
