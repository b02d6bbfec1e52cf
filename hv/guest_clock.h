/* guest_clock.h: which count a restored guest's counter goes on from. Pure.
 *
 * arm64 guests have no other clock than the counter. It can stand still over a snapshot (the
 * guest's monotonic clock does not see the pause, its time of day is late by it until NTP or PTP
 * mends it), or advance by the time away (both jump; timers that came due fire at once). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "hv/fault.h"
#include "proto/hv_state.pb-c.h"

/* A host's time of day that went back counts as no time away. -ERANGE and a sentence if the counter
 * would leave its range: more than ten years away. */
int guest_clock_count(const Tb__VmClock *saved, bool advance, int64_t realtime_ns,
		      uint64_t *ret_count, struct fault *fault);
