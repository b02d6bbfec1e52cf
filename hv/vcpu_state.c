#include "hv/vcpu_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/kvm.h"
#include "hv/refusals.h"
#include "hv/register_name.h"
#include "lib/clock.h"
#include "lib/mem.h"

#define MPIDR_EL1 ARM64_SYS_REG(3, 0, 0, 0, 5)
#define ID_AA64DFR0_EL1 ARM64_SYS_REG(3, 0, 0, 5, 0)

static int fault_vcpu(struct fault *fault, int error, const struct vcpu *c, const char *what)
{
	return fault_set(fault, error, "cannot %s vCPU %u: %s", what, c->index, strerror(-error));
}

static int registers_save(const struct vcpu *c, Tb__VcpuState *ret, struct fault *fault)
{
	size_t len = 0, i;
	uint8_t *at;

	for (i = 0; i < ret->n_register_ids; i++) {
		len += kvm_reg_size(ret->register_ids[i]);
	}
	at = mem_alloc(len);
	ret->register_values = (ProtobufCBinaryData){.len = len, .data = at};
	for (i = 0; i < ret->n_register_ids; i++) {
		int rv = kvm_reg_get(c->fd, ret->register_ids[i], at);

		if (rv < 0) {
			char name[REGISTER_NAME];

			register_name(ret->register_ids[i], name);
			return fault_set(fault, rv, "cannot read %s of vCPU %u: %s", name, c->index,
					 strerror(-rv));
		}
		at += kvm_reg_size(ret->register_ids[i]);
	}
	return 0;
}

int vcpu_state_save(const struct vcpu *c, Tb__VcpuState *ret, struct fault *fault)
{
	struct kvm_vcpu_events events;
	int rv = kvm_vcpu_state_get(c->fd, &ret->mp_state);

	rv = rv < 0 ? rv : kvm_vcpu_events_get(c->fd, &events);
	rv = rv < 0 ? rv : kvm_reg_list(c->fd, &ret->register_ids, &ret->n_register_ids);
	if (rv < 0) {
		return fault_vcpu(fault, rv, c, "read the state of");
	}
	ret->serror_pending = events.exception.serror_pending;
	ret->serror_has_esr = events.exception.serror_has_esr;
	ret->serror_esr = events.exception.serror_esr;
	return registers_save(c, ret, fault);
}

static bool list_has(const uint64_t *ids, size_t count, uint64_t id)
{
	size_t i;

	for (i = 0; i < count; i++) {
		if (ids[i] == id) {
			return true;
		}
	}
	return false;
}

/* Names a register that is in one list and not in the other. */
static int list_fault(const Tb__VcpuState *saved, const uint64_t *ids, size_t count,
		      struct fault *fault)
{
	char name[REGISTER_NAME];
	size_t i;

	for (i = 0; i < saved->n_register_ids; i++) {
		if (!list_has(ids, count, saved->register_ids[i])) {
			register_name(saved->register_ids[i], name);
			return fault_set(fault, -EXDEV,
					 "this host's kernel does not know the snapshot's "
					 "register %s",
					 name);
		}
	}
	for (i = 0; i < count; i++) {
		if (!list_has(saved->register_ids, saved->n_register_ids, ids[i])) {
			register_name(ids[i], name);
			return fault_set(fault, -EXDEV,
					 "this host's kernel has a register %s that the snapshot "
					 "knows nothing of",
					 name);
		}
	}
	return fault_set(fault, -EXDEV, "the snapshot has a register twice");
}

int vcpu_state_check(const Tb__VcpuState *saved, const uint64_t *ids, size_t count,
		     struct fault *fault)
{
	if (saved->n_register_ids == count &&
	    memcmp(saved->register_ids, ids, count * sizeof(ids[0])) == 0) {
		return 0;
	}
	return list_fault(saved, ids, count, fault);
}

static bool is_counter(uint64_t id)
{
	return id == KVM_REG_ARM_TIMER_CNT || id == KVM_REG_ARM_PTIMER_CNT;
}

/* How many of something the processor has. */
struct limits {
	unsigned breakpoints, watchpoints, event_counters;
};

static struct limits limits_of(const struct host_class *class)
{
	const uint64_t *debug = class_find(class, ID_AA64DFR0_EL1);
	const uint64_t *counters = class_find(class, CLASS_PMU_COUNTERS);

	return (struct limits){
		.breakpoints = debug != NULL ? (unsigned)(*debug >> 12 & 15) + 1 : 16,
		.watchpoints = debug != NULL ? (unsigned)(*debug >> 20 & 15) + 1 : 16,
		.event_counters = counters != NULL ? (unsigned)*counters : 31,
	};
}

/* Is the register one of those the processor does not have? DBGBVR, DBGBCR, DBGWVR and DBGWCR are
 * (2, 0, 0, n, 4..7), PMEVCNTR and PMEVTYPER (3, 3, 14, 8 or 12 + n / 8, n % 8). */
static bool is_beyond(uint64_t id, const struct limits *l)
{
	unsigned crm = id >> 3 & 15, op2 = id & 7, counter = (crm & 3) << 3 | op2;

	if ((id & ~UINT64_C(0x7f)) == REGISTER_SYSTEM(2, 0, 0, 0, 0)) {
		return op2 >= 4 && crm >= (op2 < 6 ? l->breakpoints : l->watchpoints);
	}
	/* Number 31 is PMCCFILTR_EL0. */
	return (id & ~UINT64_C(0x7f)) == REGISTER_SYSTEM(3, 3, 14, 0, 0) && crm >= 8 &&
	       counter < 31 && counter >= l->event_counters;
}

/* What must be as it is: true for a value that is, or for a register that may be set. */
static bool is_as_here(const struct vcpu *c, uint64_t id, const uint8_t *value,
		       const struct host_class *class)
{
	uint64_t saved = 0, here = 0;
	const uint64_t *part;

	if (id == MPIDR_EL1) {
		memcpy(&saved, value, sizeof(saved));
		return kvm_reg_get(c->fd, id, &here) == 0 && here == saved;
	}
	part = class_find(class, id);
	memcpy(&saved, value, kvm_reg_size(id) <= sizeof(saved) ? kvm_reg_size(id) : 0);
	return part != NULL && *part == saved;
}

/* A register that KVM_ARM_VCPU_INIT has left zero, and the value is zero: X0-X30, SP_EL0 and the
 * vector registers (KVM API, KVM_ARM_VCPU_INIT). */
static bool is_as_new(uint64_t id, const uint8_t *value)
{
	static const uint8_t zero[16];
	const uint64_t space = KVM_REG_ARM64 | KVM_REG_ARM_CORE;
	uint64_t word = id & UINT16_MAX;

	if ((id & ~(KVM_REG_SIZE_MASK | UINT16_MAX)) != space ||
	    memcmp(value, zero, kvm_reg_size(id)) != 0) {
		return false;
	}
	return word < KVM_REG_ARM_CORE_REG(regs.pc) ||
	       (word >= KVM_REG_ARM_CORE_REG(fp_regs.vregs[0]) &&
		word < KVM_REG_ARM_CORE_REG(fp_regs.fpsr));
}

static void register_load(const struct vcpu *c, uint64_t id, const uint8_t *value,
			  const struct host_class *class, const struct limits *limits,
			  struct refusals *refused)
{
	char name[REGISTER_NAME];
	int rv;

	if (is_counter(id) || is_beyond(id, limits) || is_as_new(id, value)) {
		return;
	}
	if (id == MPIDR_EL1 || class_has_register(id)) {
		rv = is_as_here(c, id, value, class) ? 0 : -EINVAL;
	} else {
		rv = kvm_reg_set(c->fd, id, value);
	}
	if (rv < 0) {
		register_name(id, name);
		refusals_add(refused, name, rv);
	}
}

int vcpu_state_load(const struct vcpu *c, const Tb__VcpuState *saved,
		    const struct host_class *class, struct fault *fault)
{
	struct kvm_vcpu_events events = {
		.exception.serror_pending = saved->serror_pending,
		.exception.serror_has_esr = saved->serror_has_esr,
		.exception.serror_esr = saved->serror_esr,
	};
	const uint8_t *at = saved->register_values.data;
	const struct limits limits = limits_of(class);
	struct refusals refused = {0};
	size_t i;
	int rv;

	for (i = 0; i < saved->n_register_ids; i++) {
		register_load(c, saved->register_ids[i], at, class, &limits, &refused);
		at += kvm_reg_size(saved->register_ids[i]);
	}
	if (refused.count > 0) {
		return fault_set(fault, -EBADMSG, "%u registers of vCPU %u are refused: %s",
				 refused.count, c->index, refused.text);
	}
	rv = kvm_vcpu_state_set(c->fd, saved->mp_state);
	rv = rv < 0 ? rv : kvm_vcpu_events_set(c->fd, &events);
	if (rv < 0) {
		return fault_set(fault, -EBADMSG,
				 "power state or pending error of vCPU %u is refused: %s", c->index,
				 strerror(-rv));
	}
	return 0;
}

/* --- counters --------------------------------------------------------------------------------- */

/* The host's own count: KVM gives user space no offset. */
static uint64_t host_count(void)
{
	uint64_t count;

	__asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(count) : : "memory");
	return count;
}

static uint64_t host_frequency(void)
{
	uint64_t frequency;

	__asm__("mrs %0, cntfrq_el0" : "=r"(frequency));
	return frequency;
}

int vcpus_clock_read(const struct vcpus *v, struct guest_clock *ret, struct fault *fault)
{
	const struct vcpu *first = &v->vcpu[0];
	uint64_t physical = 0;
	int rv = kvm_reg_get(first->fd, KVM_REG_ARM_TIMER_CNT, &ret->counter);

	if (rv < 0) {
		return fault_vcpu(fault, rv, first, "read the counter of");
	}
	ret->has_physical = kvm_reg_get(first->fd, KVM_REG_ARM_PTIMER_CNT, &physical) == 0;
	ret->physical = ret->has_physical ? physical - ret->counter : 0;
	ret->frequency = host_frequency();
	ret->realtime_ns = clock_realtime_ms() * 1000000;
	return 0;
}

/* Set, and seen to be set: within the second that nobody needs for these few calls. */
static int counter_set(const struct vcpu *c, uint64_t id, uint64_t count, struct fault *fault)
{
	uint64_t now = 0;
	int rv = kvm_reg_set(c->fd, id, &count);

	rv = rv < 0 ? rv : kvm_reg_get(c->fd, id, &now);
	if (rv == 0 && now - count > host_frequency()) {
		rv = -EIO;
	}
	return rv < 0 ? fault_vcpu(fault, rv, c, "set the counter of") : 0;
}

int vcpus_clock_set(const struct vcpus *v, const struct guest_clock *clock, uint64_t count,
		    struct fault *fault)
{
	uint64_t begin = host_count();
	unsigned i;
	int rv = 0;

	for (i = 0; i < v->count && rv == 0; i++) {
		const struct vcpu *c = &v->vcpu[i];

		if (clock->has_physical) {
			rv = counter_set(c, KVM_REG_ARM_PTIMER_CNT,
					 count + clock->physical + (host_count() - begin), fault);
		}
		rv = rv < 0 ? rv
			    : counter_set(c, KVM_REG_ARM_TIMER_CNT, count + (host_count() - begin),
					  fault);
	}
	return rv;
}
