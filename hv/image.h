/* image.h: putting a kernel, an initrd and a device tree into guest memory.
 * Source: Documentation/arm64/booting.rst. The only file that names zlib. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "hv/fault.h"
#include "hv/ram.h"

struct image_place {
	uint64_t entry; /* guest address of the first instruction */
	uint64_t kernel_end; /* end of what the kernel reserves (image_size) */
	uint64_t initrd, initrd_size; /* 0, 0: none */
	uint64_t tree; /* where the device tree goes */
	uint64_t tree_room; /* bytes for it */
};

/* Largest device tree (booting.rst: 2 MiB). */
#define IMAGE_TREE_MAX (UINT64_C(2) << 20)

/* Whoever reads a large file from a slow card gives others a turn: called before each piece of at
 * most IMAGE_PIECE bytes. False: nobody wants it any more. Zeroed: nobody is asked. */
struct image_turn {
	bool (*take)(void *arg);
	void *arg;
};
enum { IMAGE_PIECE = 1 << 20 };

static inline bool image_turn_take(const struct image_turn *turn)
{
	return turn->take == NULL || turn->take(turn->arg);
}

/* Reads an arm64 Linux Image (plain, or gzip) from kernel_fd and the initrd (initrd_fd -1: none) by
 * pread into r. Anything else is refused with a sentence; -ECANCELED and none when a turn ended it.
 * The descriptors stay the caller's. */
int image_load(int kernel_fd, int initrd_fd, const struct ram *r, const struct image_turn *turn,
	       struct image_place *ret, struct fault *fault);
