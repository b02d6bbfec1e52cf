/* input.h: the power button (virtio 1.2, 5.8): a keyboard with the one key KEY_POWER, which a
 * guest's init takes as "shut down". */
#pragma once
#include <stdint.h>

#include "hv/fault.h"
#include "hv/loop.h"
#include "hv/ram.h"
#include "hv/stats.h"
#include "hv/virtio/virtio.h"

/* Nothing to choose yet; it exists so that all devices are created alike. */
struct vinput_config {
	uint32_t reserved; /* 0 */
};

struct vinput;

/* config may be NULL: there is nothing to choose. */
int vinput_create(const struct vinput_config *config, const struct ram *ram, struct loop *loop,
		  const char *name, struct vinput **ret, struct fault *fault);
struct virtio *vinput_virtio(struct vinput *i);
void vinput_destroy(struct vinput *i);
void vinput_stats(const struct vinput *i, const struct stats_sink *sink);

/* Press, SYN, release, SYN. What the driver has no buffers for follows when it brings some; a press
 * while another is still being told is part of that one. -ENOTCONN: the guest has no driver for it
 * (yet), nothing was done. With the device lock held. */
int vinput_press(struct vinput *i);
