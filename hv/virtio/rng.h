/* rng.h: random numbers for the guest (virtio 1.2, 5.4): the host kernel's, never blocking, at a
 * bounded rate.
 *
 * A board without an instruction for random numbers starves a fresh guest. A guest that reads
 * without end gets what a token bucket allows and no more of our processor; the rest waits in its
 * ring. */
#pragma once
#include <stdint.h>

#include "hv/fault.h"
#include "hv/loop.h"
#include "hv/ram.h"
#include "hv/stats.h"
#include "hv/virtio/virtio.h"

struct vrng_config {
	uint32_t bytes_per_second; /* 0: VRNG_RATE */
};

enum {
	VRNG_RATE = 1 << 20, /* bytes a second */
	VRNG_BURST = 64 << 10, /* bytes that may be taken at once after a rest */
};

struct vrng;

/* 0 and *ret owned by the caller; or a negative errno and *fault. Needs eventfd and timerfd: before
 * the sandbox. */
int vrng_create(const struct vrng_config *config, const struct ram *ram, struct loop *loop,
		const char *name, struct vrng **ret, struct fault *fault);
struct virtio *vrng_virtio(struct vrng *r);
/* NULL is harmless. The loop must not run any more. */
void vrng_destroy(struct vrng *r);
void vrng_stats(const struct vrng *r, const struct stats_sink *sink);
