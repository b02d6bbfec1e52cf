/* stats.h: how parts of a VM tell their counters. Names are "part.what" ("blk0.read-bytes"). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct stats_sink {
	/* A gauge may fall; a counter only grows. */
	void (*add)(void *arg, const char *part, const char *what, uint64_t value, bool gauge);
	void *arg;
};
