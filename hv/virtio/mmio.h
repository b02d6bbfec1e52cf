/* mmio.h: virtio over memory-mapped registers (virtio 1.2, 4.2), the modern interface only.
 *
 * The register page can be real memory that the guest reads without an exit (a read-only memory
 * slot, arm64-kvm fact: 2 exits per interrupt become none): `page` always holds what a read would
 * give, and every change to it goes through this file, which cleans the data cache lines after
 * (cores without FEAT_S2FWB read it uncached). InterruptStatus is constantly 1, bit 1 is added for
 * a configuration change and taken back with the driver's next acknowledge; interrupts are edges
 * and not shared, so a stale bit 0 only means "look at the rings". */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "hv/tree.h"
#include "hv/virtio/virtio.h"

enum { MMIO_PAGE_SIZE = 0x1000, MMIO_NOTIFY = 0x50, MMIO_ACK = 0x64 };

/* What machine.c does so that a running guest does not exit to us:
 *  - `page` is a read-only memory slot at `base`: a host page, zero behind MMIO_PAGE_SIZE;
 *  - each queue that is not of the class's rare_kicks has an ioeventfd at base + MMIO_NOTIFY,
 *    4 bytes, datamatch = the queue's number, on virtio->kick_fd[number]; other kicks trap;
 *  - a device with such a queue has an ioeventfd at base + MMIO_ACK, 4 bytes, datamatch =
 *    MMIO_ACK_RINGS, on an eventfd that nobody reads; one is enough for all devices. Any other
 *    acknowledge, that is one that takes back the configuration bit, must trap: without the
 *    datamatch an acknowledge of the rings would look like one of the change, and the change
 *    could get lost;
 *  - virtio->irq_fd is the irqfd of SPI `spi`. */
enum { MMIO_ACK_RINGS = 1, MMIO_ACK_CONFIG = 2 };

struct mmio {
	struct virtio *virtio;
	uint8_t *page; /* MMIO_PAGE_SIZE bytes, the caller's (a host page); what reads give */
	uint32_t features_select, driver_features_select, queue_select;
	uint64_t driver_features; /* as written, also bits that were never offered */
	bool config_pending; /* InterruptStatus has bit 1 */
	uint64_t base;
	uint32_t spi;
};

/* Binds device and page; the page is filled. `virtio` was initialised. */
void mmio_init(struct mmio *m, struct virtio *v, uint8_t *page, uint64_t base, uint32_t spi);
/* Trapped accesses; the shapes that bus.h asks for. */
uint64_t mmio_read(void *m, uint64_t offset, unsigned len);
void mmio_write(void *m, uint64_t offset, uint64_t value, unsigned len);
/* A reset waits for requests in flight. Drivers (Linux's virtio_mmio) do not look at the status for
 * the end of a reset, as 4.2.3.1 would have it, and free what they had lent to the device: so the
 * write takes as long as the reset. */
bool mmio_busy(void *m);
/* Its device-tree node: "virtio,mmio", dma-coherent, edge. */
void mmio_tree(const struct mmio *m, struct tree *t);
/* As if the driver had written 0 to the status: device, selectors and page (reset of the machine).
 * The device rests (virtio_rest). */
void mmio_reset(struct mmio *m);
/* Makes the page anew from the state (after restore: the virtio's and the fields above). */
void mmio_refresh(struct mmio *m);
