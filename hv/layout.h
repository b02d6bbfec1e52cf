/* layout.h: where everything is in the guest's physical memory, drawn once.
 *
 *   0x0800_0000  GIC distributor            64 KiB
 *   0x0801_0000  GICv2 CPU interface         8 KiB
 *   0x0802_0000  GICv3 redistributors      128 KiB for each vCPU, 1 MiB in all
 *   0x0900_0000  PL011 UART                  4 KiB   (console until virtio-console is up)
 *   0x0901_0000  PL031 real-time clock       4 KiB
 *   0x0902_0000  VM generation id           64 KiB   a memory slot of its own, one host page used
 *   0x0903_0000  stolen time                64 KiB   likewise; 64 bytes for each vCPU
 *   0x0a00_0000  virtio-mmio devices        64 KiB each, 24 of them
 *   0x4000_0000  RAM, up to the end of the memory of the spec
 *
 * Steps of 64 KiB: a device's register page can be a memory slot of its own whatever the host's
 * page size is (4, 16 or 64 KiB). RAM begins at 1 GiB, so that the kernel's and the host's 2 MiB
 * blocks coincide (docs/decisions/0006-hv.md).
 *
 * Interrupts (SPI n is INTID 32 + n; the device tree and irqfd count SPIs from 0):
 *   SPI 0 PL011, SPI 1 PL031, SPI 2 VM generation id, SPI 8 + i virtio device i.
 * No more than 64 in all: each 32 are twenty words that a guest's boot sets and a snapshot holds.
 */
#pragma once
#include <stdint.h>

#define LAYOUT_GICD UINT64_C(0x08000000)
#define LAYOUT_GICD_SIZE UINT64_C(0x10000)
#define LAYOUT_GICC UINT64_C(0x08010000)
#define LAYOUT_GICC_SIZE UINT64_C(0x2000)
#define LAYOUT_GICR UINT64_C(0x08020000)
#define LAYOUT_GICR_SIZE UINT64_C(0x20000) /* of each vCPU */
#define LAYOUT_PL011 UINT64_C(0x09000000)
#define LAYOUT_PL031 UINT64_C(0x09010000)
#define LAYOUT_VMGENID UINT64_C(0x09020000)
#define LAYOUT_STOLEN UINT64_C(0x09030000)
#define LAYOUT_VIRTIO UINT64_C(0x0a000000)
#define LAYOUT_VIRTIO_STEP UINT64_C(0x10000)
#define LAYOUT_RAM UINT64_C(0x40000000)

enum {
	LAYOUT_SPI_PL011 = 0,
	LAYOUT_SPI_PL031 = 1,
	LAYOUT_SPI_VMGENID = 2,
	LAYOUT_SPI_VIRTIO = 8,
	LAYOUT_INTERRUPTS = 64, /* SGIs, PPIs and SPIs of the GIC; a multiple of 32 */

	LAYOUT_VCPUS_MAX = 8, /* what GICv2 can; kept for GICv3 too */
	LAYOUT_VIRTIO_MAX = 24, /* SPIs 8..31 */
};
/* MiB of memory that a spec may ask for. */
#define LAYOUT_MEMORY_MIN_MIB 16
#define LAYOUT_MEMORY_MAX_MIB (64 * 1024)
