/* guest_clock.h: which count a restored guest's counter goes on from. Pure.
 *
 * arm64 guests have no other clock than the counter. It can stand still over a snapshot (the
 * guest's monotonic clock does not see the pause, its time of day is late by it until NTP or PTP
 * mends it), or advance by the time away (both jump; timers that came due fire at once). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "hv/fault.h"

struct guest_clock {
	uint64_t counter; /* CNTVCT when the guest stood still */
	uint64_t frequency; /* CNTFRQ, Hz */
	int64_t realtime_ns; /* the host's time of day at that moment */
	bool has_physical; /* KVM lets CNTPCT be set too */
	uint64_t physical; /* CNTPCT minus CNTVCT, modulo 2^64 */
};

/* The count for `now_ns` of the host's time of day, which counts as no time away if it is before
 * the other. -ERANGE and a sentence if the counter would leave its range: more than ten years away.
 */
int guest_clock_count(const struct guest_clock *clock, bool advance, int64_t now_ns,
		      uint64_t *ret_count, struct fault *fault);
