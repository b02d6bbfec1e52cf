/* hv_device.h: the fuzzers' guest: one virtio device of hv behind its registers, driven by the
 * bytes of an input: writes to registers, memory and rings, kicks, pauses, states put back, and
 * what happens to the device from outside. The device is reset between inputs.
 *
 * An input is one byte of how to begin, then steps. A step is one byte (modulo the number of steps)
 * and its arguments, little-endian; what is missing at the end counts as 0.
 *
 *   begin    bit 0: the driver initialised it already, with queues of 8 at HV_FUZZ_RING(queue);
 *            bits 1, 2: with EVENT_IDX, with INDIRECT_DESC; bit 3: with the device's own features
 *   0 register  u8 offset / 4, u32 value        5 kick    u8 queue
 *   1 config    u8 offset, u8 log2 len, u64     6 event   u8 what, u8 len, bytes: device's `event`
 *   2 memory    u16 offset, u8 len, bytes       7 pause or resume
 *   3 desc      u8 queue, u8 index, u16 addr,   8 save, reset, load: must be the same
 *               u16 len, u8 flags, u8 next      9 load    u8 len, bytes: a hostile state
 *   4 avail     u8 queue, u8 head              10 used_event  u8 queue, u16 value
 *
 * After the last step every queue is kicked, the register page is compared with a fresh one, and
 * the device is reset. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hv/layout.h"
#include "hv/loop.h"
#include "hv/ram.h"
#include "hv/virtio/mmio.h"
#include "hv/virtio/virtio.h"

enum { HV_FUZZ_RAM = 64 << 10, HV_FUZZ_QUEUE = 8, HV_FUZZ_RING_STEP = 0x400 };
/* Guest address of the descriptors; the available ring is 0x100 behind them, the used ring 0x200.
 */
#define HV_FUZZ_RING(queue) (LAYOUT_RAM + (uint64_t)(queue)*HV_FUZZ_RING_STEP)

struct hv_fuzz_device {
	/* Makes the device; once in the life of the process. */
	struct virtio *(*make)(const struct ram *ram, struct loop *loop);
	/* Something from outside: a packet, a key, room for output. May be NULL. */
	void (*event)(uint8_t what, const uint8_t *data, size_t len);
	/* After the steps, before the reset: ends the process if something cannot be. May be NULL.
	 */
	void (*check)(void);
	/* Does the device remember more of an input than the next one should meet? Then it is
	 * destroyed here, and made anew. May be NULL. */
	bool (*worn)(void);
};

/* For LLVMFuzzerTestOneInput to return. */
int hv_fuzz_run(const struct hv_fuzz_device *device, const uint8_t *data, size_t size);
/* Calls what is ready in the device's loop now, for an `event`. */
void hv_fuzz_turn(struct loop *loop);
/* Ends the process unless `ok`. */
void hv_fuzz_must(int ok);
