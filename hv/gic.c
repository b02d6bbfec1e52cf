#include "hv/gic.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "hv/kvm.h"
#include "hv/layout.h"

unsigned gic_probe(int vm, bool *ret_v2, bool *ret_v3)
{
	*ret_v2 = kvm_device_create(vm, KVM_DEV_TYPE_ARM_VGIC_V2, true, NULL) == 0;
	*ret_v3 = kvm_device_create(vm, KVM_DEV_TYPE_ARM_VGIC_V3, true, NULL) == 0;
	return *ret_v3 ? 3 : *ret_v2 ? 2 : 0;
}

static int choose(int vm, unsigned wanted, unsigned *ret, struct fault *fault)
{
	bool v2, v3;
	unsigned best = gic_probe(vm, &v2, &v3);

	if (best == 0) {
		return fault_set(fault, -ENODEV,
				 "this board's KVM has no virtual interrupt controller, so it can "
				 "witness but not "
				 "host virtual machines; `witness-vm probe` says why");
	}
	if (wanted != 0 && !(wanted == 2 ? v2 : v3)) {
		return fault_set(fault, -ENODEV,
				 "this host has no virtual GICv%u, only GICv%u: leave \"gic\" out "
				 "of the spec",
				 wanted, best);
	}
	*ret = wanted != 0 ? wanted : best;
	return 0;
}

static int place(int fd, uint64_t type, uint64_t address)
{
	return kvm_attr_set(fd, KVM_DEV_ARM_VGIC_GRP_ADDR, type, &address);
}

static int places(const struct gic *g)
{
	int rv;

	if (g->version == 2) {
		rv = place(g->fd, KVM_VGIC_V2_ADDR_TYPE_DIST, LAYOUT_GICD);
		return rv < 0 ? rv : place(g->fd, KVM_VGIC_V2_ADDR_TYPE_CPU, LAYOUT_GICC);
	}
	rv = place(g->fd, KVM_VGIC_V3_ADDR_TYPE_DIST, LAYOUT_GICD);
	return rv < 0 ? rv : place(g->fd, KVM_VGIC_V3_ADDR_TYPE_REDIST, LAYOUT_GICR);
}

int gic_create(int vm, unsigned version, unsigned vcpus, struct gic *ret, struct fault *fault)
{
	struct gic g = {.fd = -1, .vcpus = vcpus};
	uint32_t interrupts = LAYOUT_INTERRUPTS;
	int rv = choose(vm, version, &g.version, fault);

	if (rv < 0) {
		return rv;
	}
	rv = kvm_device_create(vm,
			       g.version == 2 ? KVM_DEV_TYPE_ARM_VGIC_V2 : KVM_DEV_TYPE_ARM_VGIC_V3,
			       false, &g.fd);
	if (rv == 0) {
		rv = places(&g);
	}
	if (rv == 0) {
		rv = kvm_attr_set(g.fd, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &interrupts);
	}
	if (rv < 0) {
		gic_close(&g);
		return fault_set(fault, rv,
				 "cannot make the virtual GICv%u: %s; see `witness-vm probe`",
				 g.version, strerror(-rv));
	}
	*ret = g;
	return 0;
}

int gic_init(struct gic *g, struct fault *fault)
{
	int rv = kvm_attr_set(g->fd, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL);

	if (rv < 0) {
		return fault_set(fault, rv,
				 "cannot start the virtual GICv%u: %s; see `witness-vm probe`",
				 g->version, strerror(-rv));
	}
	return 0;
}

void gic_close(struct gic *g)
{
	if (g->fd >= 0) {
		close(g->fd);
	}
	g->fd = -1;
}

/* Distributor (or redistributor SGI frame) offsets of the registers that clear a state, word 0. */
static const uint64_t clearing[] = {
	0x180, /* ICENABLER: disable */
	0x380, /* ICACTIVER */
};
enum { ICPENDR = 0x280, ISPENDR = 0x200 };

static void clear_words(const struct gic *g, uint32_t group, uint64_t base, unsigned from,
			unsigned to)
{
	uint32_t all = UINT32_MAX, zero = 0;
	unsigned i, word;

	for (i = 0; i < sizeof(clearing) / sizeof(clearing[0]); i++) {
		for (word = from; word < to; word++) {
			(void)kvm_attr_set(g->fd, group, base | (clearing[i] + 4 * word), &all);
		}
	}
	/* GICv3 takes no ICPENDR from user space; there ISPENDR is the whole truth
	 * (devices/arm-vgic-v3.rst). */
	for (word = from; word < to; word++) {
		if (g->version == 2) {
			(void)kvm_attr_set(g->fd, group, base | (ICPENDR + 4 * word), &all);
		} else {
			(void)kvm_attr_set(g->fd, group, base | (ISPENDR + 4 * word), &zero);
		}
	}
}

void gic_reset(const struct gic *g)
{
	uint32_t group = KVM_DEV_ARM_VGIC_GRP_DIST_REGS;
	uint32_t zero = 0;
	unsigned cpu;

	clear_words(g, group, 0, 1, LAYOUT_INTERRUPTS / 32);
	for (cpu = 0; cpu < g->vcpus; cpu++) {
		/* GICv2 banks word 0 by vCPU index; GICv3 has it in the SGI frame of each
		 * redistributor, by MPIDR, whose Aff0 is the index here. */
		if (g->version == 2) {
			clear_words(g, group, (uint64_t)cpu << 32, 0, 1);
		} else {
			clear_words(g, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
				    (uint64_t)cpu << 32 | 0x10000, 0, 1);
		}
	}
	(void)kvm_attr_set(g->fd, group, 0, &zero);
}

void gic_tree(const struct gic *g, struct tree *t)
{
	const uint64_t v2[2][2] = {{LAYOUT_GICD, LAYOUT_GICD_SIZE},
				   {LAYOUT_GICC, LAYOUT_GICC_SIZE}};
	const uint64_t v3[2][2] = {{LAYOUT_GICD, LAYOUT_GICD_SIZE},
				   {LAYOUT_GICR, LAYOUT_GICR_SIZE * g->vcpus}};

	tree_open(t, "interrupt-controller@%llx", (unsigned long long)LAYOUT_GICD);
	tree_text(t, "compatible", g->version == 2 ? "arm,cortex-a15-gic" : "arm,gic-v3");
	tree_empty(t, "interrupt-controller");
	tree_u32(t, "#interrupt-cells", 3);
	tree_u32(t, "phandle", t->phandle_gic);
	tree_regs(t, g->version == 2 ? v2 : v3, 2);
	tree_close(t);
}
