/* blk_double.h: a disk's host side for tests: does its ios on a file at once or when it is told to,
 * and fails as it is told. */
#pragma once
#include <stdbool.h>

#include "hv/virtio/blk_host.h"

enum { DOUBLE_SCRIPT_MAX = 64, DOUBLE_LOG_MAX = 256 };

/* What an io comes back with instead of being done: a negative errno, or so many bytes at most. */
struct blk_double_rule {
	int64_t result;
	bool whole; /* done as asked, `result` is not looked at */
};

struct blk_double {
	struct blk_host host;
	int disk;
	/* Rules for the next ios, one after the other; behind them all are whole. */
	struct blk_double_rule script[DOUBLE_SCRIPT_MAX];
	unsigned rules, next_rule;
	bool hold; /* none comes back until wait or blk_double_release */
	unsigned waits, pushes;
	/* All ios that were queued, oldest first, as they were. */
	struct blk_io log[DOUBLE_LOG_MAX];
	unsigned logged;
	struct blk_io *first, **last;
	bool closed; /* by the device; the double itself stays the test's */
};

void blk_double_init(struct blk_double *d, int disk);
void blk_double_rule(struct blk_double *d, int64_t result);
void blk_double_whole(struct blk_double *d);
/* What was held may come back. */
void blk_double_release(struct blk_double *d);
