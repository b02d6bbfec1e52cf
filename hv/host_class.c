#include "hv/host_class.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hv/kvm.h"
#include "hv/register_name.h"

#define PMCR_EL0 REGISTER_SYSTEM(3, 3, 9, 12, 0)
enum { GICD_IIDR = 0x008 };

/* Values wider than 64 bits are no part of a class. */
static int add_register(struct host_class *c, int vcpu, uint64_t id)
{
	uint64_t value = 0;
	int rv = kvm_reg_size(id) <= sizeof(value) ? kvm_reg_get(vcpu, id, &value) : -EINVAL;

	if (rv < 0) {
		return rv;
	}
	if (id == PMCR_EL0) {
		return class_add(c, CLASS_PMU_COUNTERS, value >> 11 & 31) ? 0 : -E2BIG;
	}
	return class_add(c, id, value) ? 0 : -E2BIG;
}

static int add_registers(struct host_class *c, int vcpu, const uint64_t *ids, size_t count)
{
	size_t i;
	int rv = 0;

	for (i = 0; i < count && rv == 0; i++) {
		if (class_has_register(ids[i]) || ids[i] == PMCR_EL0) {
			rv = add_register(c, vcpu, ids[i]);
		}
	}
	class_add(c, CLASS_REGISTERS, count);
	class_add(c, CLASS_REGISTER_LIST, class_list_mix(ids, count));
	return rv;
}

int host_class_read(int vm, int vcpu, const struct gic *gic, const uint64_t *ids, size_t count,
		    struct host_class *ret)
{
	uint64_t frequency;
	uint32_t iidr = 0;
	int rv = kvm_attr_get(gic->fd, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD_IIDR, &iidr);

	__asm__("mrs %0, cntfrq_el0" : "=r"(frequency));
	ret->count = 0;
	class_add(ret, CLASS_PAGE_SIZE, (uint64_t)sysconf(_SC_PAGESIZE));
	class_add(ret, CLASS_IPA_BITS, (uint64_t)kvm_capability(vm, KVM_CAP_ARM_VM_IPA_SIZE));
	class_add(ret, CLASS_COUNTER_HZ, frequency);
	class_add(ret, CLASS_GIC_VERSION, gic->version);
	class_add(ret, CLASS_GIC_IIDR, iidr);
	return rv < 0 ? rv : add_registers(ret, vcpu, ids, count);
}

/* A VM of which only the class is asked. */
struct scratch {
	int vm, vcpu;
	struct gic gic;
};

static int scratch_vcpu(struct scratch *s)
{
	struct kvm_vcpu_init init;
	int rv = kvm_vcpu_create(s->vm, 0, &s->vcpu);

	rv = rv < 0 ? rv : kvm_vcpu_target(s->vm, &init);
	if (rv < 0) {
		return rv;
	}
	init.features[0] |= 1U << KVM_ARM_VCPU_PSCI_0_2;
	if (kvm_capability(s->vm, KVM_CAP_ARM_PMU_V3) > 0) {
		init.features[0] |= 1U << KVM_ARM_VCPU_PMU_V3;
	}
	return kvm_vcpu_init(s->vcpu, &init);
}

static int scratch_read(int kvm, struct scratch *s, struct host_class *ret, struct fault *fault)
{
	uint64_t *ids = NULL;
	size_t count;
	int rv = kvm_vm_create(kvm, 32, &s->vm);

	rv = rv < 0 ? rv : scratch_vcpu(s);
	if (rv < 0) {
		return fault_set(fault, rv, "cannot make a scratch VM: %s", strerror(-rv));
	}
	rv = gic_create(s->vm, 0, 1, &s->gic, fault);
	rv = rv < 0 ? rv : gic_init(&s->gic, fault);
	if (rv < 0) {
		return rv;
	}
	rv = kvm_reg_list(s->vcpu, &ids, &count);
	rv = rv < 0 ? rv : host_class_read(s->vm, s->vcpu, &s->gic, ids, count, ret);
	free(ids);
	return rv < 0 ? fault_set(fault, rv, "cannot read a scratch VM's registers: %s",
				  strerror(-rv))
		      : 0;
}

int host_class_probe(int kvm, struct host_class *ret, struct fault *fault)
{
	struct scratch s = {.vm = -1, .vcpu = -1, .gic.fd = -1};
	int rv = scratch_read(kvm, &s, ret, fault);

	gic_close(&s.gic);
	if (s.vcpu >= 0) {
		close(s.vcpu);
	}
	if (s.vm >= 0) {
		close(s.vm);
	}
	return rv;
}
