/* balloon.h: memory that the guest gives back (virtio 1.2, 5.5): on request (inflate) and of its
 * own accord (free page reporting).
 *
 * A page in the balloon is released at once and reads as zeros, or in a clone as the snapshot had
 * it; a guest that uses one it gave away harms itself only. Pages are of 4 KiB whatever the host's
 * are; neighbours in one request are joined, so that larger host pages come free too. */
#pragma once
#include <stdint.h>

#include "hv/fault.h"
#include "hv/loop.h"
#include "hv/ram.h"
#include "hv/stats.h"
#include "hv/virtio/virtio.h"

enum { BALLOON_PAGE = 4096 };

struct balloon_config {
	uint32_t target; /* pages asked for from the start */
};

struct balloon;

int balloon_create(const struct balloon_config *config, const struct ram *ram, struct loop *loop,
		   const char *name, struct balloon **ret, struct fault *fault);
struct virtio *balloon_virtio(struct balloon *b);
void balloon_destroy(struct balloon *b);
/* What was released, and what the guest last told of its memory (balloon_poll). */
void balloon_stats(const struct balloon *b, const struct stats_sink *sink);

/* Asks the guest to have `pages` pages in the balloon; more than its RAM is as much as its RAM. It
 * may take its time, or not do it. With the device lock held. */
void balloon_set_target(struct balloon *b, uint32_t pages);
/* Pages in the balloon as the guest says. */
uint32_t balloon_actual(const struct balloon *b);
/* Asks the guest for fresh numbers of its memory: they come later, if it has such a driver. */
void balloon_poll(struct balloon *b);
