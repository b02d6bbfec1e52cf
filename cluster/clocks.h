/* clocks.h: what time it is for the cluster, by the clocks of its boards (DESIGN S6). Pure.
 *
 * One time stamps the log, and what is signed and what ends is measured by it. It never goes back,
 * so a clock that is ahead for a moment must not carry it along: a time is believed when the clocks
 * of a majority of the boards have reached it. Where they have not (some are not heard yet, or
 * start in the past for want of a battery) the leader's own clock is followed no further than the
 * time that has passed since the last known one explains. Times are in ms since 1970. */
#pragma once
#include <stdint.h>

#include "cluster/limits.h"

enum { CLOCKS_STEP_MS = 120000 }; /* a clock that is further ahead than this has been set */

struct clocks {
	int64_t newest_ms; /* that the log has seen; 0: none */
	/* The last time that was known, and what has passed on the boot clock since. */
	int64_t reckoned_ms;
	int64_t own_ms; /* of the leader; 0: it cannot be */
	unsigned voters; /* of the cluster, with the leader */
	/* The clocks of the voters that are heard, with the leader; 0: it cannot be. */
	unsigned count;
	int64_t heard_ms[LIMIT_NODES];
};

/* The latest time that the clocks of a majority of the voters have reached; 0: none is known. */
int64_t clocks_majority_ms(const struct clocks *c);
/* The time of the cluster: at least newest_ms. */
int64_t clocks_now_ms(const struct clocks *c);
