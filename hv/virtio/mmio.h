/* mmio.h: virtio over memory-mapped registers (virtio 1.2, 4.2), the modern interface only.
 *
 * The register page can be real memory that the guest reads without an exit (a read-only memory slot,
 * arm64-kvm fact: 2 exits per interrupt become none): `page` always holds what a read would give, and
 * every change to it goes through this file, which cleans the data cache lines after (cores without
 * FEAT_S2FWB read it uncached). InterruptStatus is constantly 1, bit 1 is added for a configuration
 * change and taken back with the driver's next acknowledge; interrupts are edges and not shared, so a
 * stale bit 0 only means "look at the rings". */
#pragma once
#include <stdint.h>

#include "hv/tree.h"
#include "hv/virtio/virtio.h"

enum { MMIO_PAGE_SIZE = 0x1000, MMIO_NOTIFY = 0x50, MMIO_ACK = 0x64 };

struct mmio {
	struct virtio *virtio;
	uint8_t *page; /* MMIO_PAGE_SIZE bytes, the caller's (a host page); what reads give */
	uint32_t features_select, driver_features_select, queue_select;
	uint64_t base;
	uint32_t spi;
};

/* Binds device and page; the page is filled. */
void mmio_init(struct mmio *m, struct virtio *v, uint8_t *page, uint64_t base, uint32_t spi);
/* Trapped accesses; the shapes that bus.h asks for. */
uint64_t mmio_read(void *m, uint64_t offset, unsigned len);
void mmio_write(void *m, uint64_t offset, uint64_t value, unsigned len);
/* Its device-tree node: "virtio,mmio", dma-coherent, edge. */
void mmio_tree(const struct mmio *m, struct tree *t);
/* Makes the page anew from the state (after restore). */
void mmio_refresh(struct mmio *m);
