/* hv_driver.h: a virtio driver in memory, for tests of hv's devices: it initialises a device
 * through its mmio registers as Linux does, builds chains in its own guest memory, kicks and looks
 * at what was used. No processor, no KVM, no threads. Any step that fails ends the test (abort with
 * a line).
 *
 *   struct hv_driver d;
 *   hv_driver_open(&d, 1 << 20);
 *   blk_create(&config, &d.ram, &d.loop, "blk0", &blk, &fault);
 *   hv_driver_attach(&d, blk_virtio(blk));
 *   hv_driver_start(&d, ~UINT64_C(0));
 *   ... hv_driver_add, hv_driver_kick, hv_driver_used ...
 *   hv_driver_reset(&d); blk_destroy(blk); hv_driver_close(&d); */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hv/fault.h"
#include "hv/loop.h"
#include "hv/ram.h"
#include "hv/virtio/mmio.h"
#include "hv/virtio/virtio.h"

/* Descriptor flags (virtio 1.2, 2.7.5). */
enum { HV_NEXT = 1, HV_WRITE = 2, HV_INDIRECT = 4 };

/* One buffer of a chain: guest address, bytes, HV_WRITE if the device writes it. */
struct hv_buffer {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
};

/* The driver's side of a queue. Rings lie in guest memory at these addresses. */
struct hv_ring {
	uint16_t size;
	uint64_t desc, avail, used;
	uint16_t next_desc; /* descriptors are taken in turn, never checked for being free */
	uint16_t avail_idx, used_seen;
};

struct hv_driver {
	struct ram ram; /* at LAYOUT_RAM, a guard page behind it */
	struct loop loop;
	uint8_t *page; /* register page */
	struct virtio *v;
	struct mmio mmio;
	uint64_t features; /* negotiated */
	struct hv_ring ring[VIRTIO_QUEUES_MAX];
	uint64_t heap; /* next free guest address */
	void *map; /* of the ram with its guards */
	size_t map_size;
};

/* Guest memory of `size` bytes (rounded up to whole pages of the host) and a loop. */
void hv_driver_open(struct hv_driver *d, uint64_t size);
/* The device was destroyed before. */
void hv_driver_close(struct hv_driver *d);
/* Binds the device to registers. */
void hv_driver_attach(struct hv_driver *d, struct virtio *v);

/* Registers, as a guest accesses them. */
uint32_t hv_driver_read(struct hv_driver *d, uint32_t offset);
void hv_driver_write(struct hv_driver *d, uint32_t offset, uint32_t value);
uint64_t hv_driver_config(struct hv_driver *d, uint32_t offset, unsigned len);
void hv_driver_config_write(struct hv_driver *d, uint32_t offset, uint64_t value, unsigned len);

/* Reset, ACKNOWLEDGE, DRIVER, features (`wanted` & offered), FEATURES_OK, all queues at their
 * largest size (or `size`), DRIVER_OK. Returns with the device active; rings are empty. */
void hv_driver_start(struct hv_driver *d, uint64_t wanted);
void hv_driver_start_sized(struct hv_driver *d, uint64_t wanted, uint16_t size);
/* The same without the last step, and one queue by hand. */
void hv_driver_negotiate(struct hv_driver *d, uint64_t wanted);
void hv_driver_queue(struct hv_driver *d, unsigned queue, uint16_t size);
/* Writes 0 to the status; the heap is empty again. */
void hv_driver_reset(struct hv_driver *d);
bool hv_driver_failed(struct hv_driver *d); /* DEVICE_NEEDS_RESET */

/* Guest memory. `len` bytes of zeros, 64-byte aligned; the host's place of a guest address. */
uint64_t hv_driver_alloc(struct hv_driver *d, size_t len);
uint64_t hv_driver_put(struct hv_driver *d, const void *data, size_t len);
void *hv_driver_at(struct hv_driver *d, uint64_t guest);

/* Makes a chain of the buffers available; returns its head. */
uint16_t hv_driver_add(struct hv_driver *d, unsigned queue, const struct hv_buffer *buffers,
		       unsigned count);
/* The same through an indirect table. */
uint16_t hv_driver_add_indirect(struct hv_driver *d, unsigned queue,
				const struct hv_buffer *buffers, unsigned count);
/* For malformed rings: one descriptor, one entry of the available ring with idx + 1, idx alone. */
void hv_driver_desc(struct hv_driver *d, unsigned queue, uint16_t index, uint64_t addr,
		    uint32_t len, uint16_t flags, uint16_t next);
void hv_driver_avail(struct hv_driver *d, unsigned queue, uint16_t head);
void hv_driver_avail_idx(struct hv_driver *d, unsigned queue, uint16_t idx);
/* used_event, the driver's wish for an interrupt, and avail_event, the device's wish for a kick. */
void hv_driver_set_used_event(struct hv_driver *d, unsigned queue, uint16_t event);
uint16_t hv_driver_avail_event(struct hv_driver *d, unsigned queue);

/* The device looks at the queue now, in this thread. */
void hv_driver_kick(struct hv_driver *d, unsigned queue);
/* The next used entry, if there is one. With EVENT_IDX the one after it is asked an interrupt for.
 */
bool hv_driver_used(struct hv_driver *d, unsigned queue, uint32_t *ret_head, uint32_t *ret_len);
/* What is ready in the loop now is called. True if something was. */
bool hv_driver_turn(struct hv_driver *d);
/* Runs the loop until the queue has a used entry; for devices that answer later. Ends the test
 * after ten seconds. */
void hv_driver_wait(struct hv_driver *d, unsigned queue);
/* Takes what was written to the interrupt's eventfd: how many interrupts since the last time. */
uint64_t hv_driver_interrupts(struct hv_driver *d);
