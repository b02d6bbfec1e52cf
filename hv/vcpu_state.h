/* vcpu_state.h: what a virtual processor is, out of KVM and into it: power state, pending error,
 * and every register of KVM_GET_REG_LIST. The list is the contract: none is named here by hand, but
 * for those that need care:
 *
 *  - the counters go last, all vCPUs from one count (vcpus_clock_set): read at different times,
 *    they would come back apart;
 *  - breakpoints, watchpoints and event counters that the processor does not have, of which KVM
 *    lists the most that could be, are left alone: no guest reaches them;
 *  - registers of the class (class.h) were compared with the host's before: they are not set;
 *  - MPIDR_EL1 must be the machine's own: the interrupt controller knows vCPUs by it.
 *
 * The counters are set by their registers on every kernel: the write is for the whole VM on all of
 * them, and unlike KVM_ARM_SET_COUNTER_OFFSET (6.4) it keeps the physical counter, where there is
 * one to be saved, at its own count. Read back, since a kernel may ignore it.
 *
 * All vCPUs are parked or not started. Source: KVM API; devices/vcpu.rst. */
#pragma once
#include "hv/class.h"
#include "hv/fault.h"
#include "hv/guest_clock.h"
#include "hv/vcpu.h"
#include "proto/hv_state.pb-c.h"

/* *ret was initialised by the caller; what is put into it is freed with it. */
int vcpu_state_save(const struct vcpu *c, Tb__VcpuState *ret, struct fault *fault);
/* Do the registers that each vCPU of the snapshot has exist here, and no others? `ids`: the
 * machine's, as of kvm_reg_list. -EXDEV and the name of one that does not. */
int vcpu_state_check(const Tb__VcpuState *saved, const uint64_t *ids, size_t count,
		     struct fault *fault);
/* `class`: the snapshot's, found equal to the host's. -EBADMSG and names if KVM refuses. */
int vcpu_state_load(const struct vcpu *c, const Tb__VcpuState *saved,
		    const struct host_class *class, struct fault *fault);

/* The guest's counters as they are now. */
int vcpus_clock_read(const struct vcpus *v, struct guest_clock *ret, struct fault *fault);
/* CNTVCT of all vCPUs goes on from `count`, CNTPCT at its distance from it. */
int vcpus_clock_set(const struct vcpus *v, const struct guest_clock *clock, uint64_t count,
		    struct fault *fault);
