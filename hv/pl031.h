/* pl031.h: the clock of the day (Arm PrimeCell RTC PL031, DDI 0224): read at the guest's boot. The
 * host's CLOCK_REALTIME plus what the guest set; no alarm interrupt is ever raised. */
#pragma once
#include <stdint.h>

#include "hv/bus.h"
#include "hv/tree.h"

struct pl031 {
	int64_t offset_s; /* guest's time minus the host's */
	uint32_t match, mask;
};

struct bus_device pl031_device(struct pl031 *p);
void pl031_tree(const struct pl031 *p, struct tree *t);
