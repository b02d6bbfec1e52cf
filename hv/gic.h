/* gic.h: the interrupt controller that KVM emulates: GICv2 (Raspberry Pi 4 and 5 and most small
 * boards) or GICv3, chosen by what the host has. Source: devices/arm-vgic.rst, arm-vgic-v3.rst;
 * Arm GIC architecture specifications IHI 0048, IHI 0069. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hv/fault.h"
#include "hv/tree.h"

struct gic {
	int fd; /* vGIC device, owned */
	unsigned version; /* 2 or 3 */
	unsigned vcpus;
};

/* The version the host offers: 2, 3, or 0 for none; both: 3. */
unsigned gic_probe(int vm, bool *ret_v2, bool *ret_v3);
/* `version` 0: choose. After all vCPUs were created, before they run. */
int gic_create(int vm, unsigned version, unsigned vcpus, struct gic *ret, struct fault *fault);
/* CTRL_INIT: after the vCPUs were initialised; irqfds only after this. */
int gic_init(struct gic *g, struct fault *fault);
void gic_close(struct gic *g);
/* Nothing enabled, pending or active (the guest reboots); vCPUs parked. */
void gic_reset(const struct gic *g);
void gic_tree(const struct gic *g, struct tree *t);
