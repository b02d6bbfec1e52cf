/* host_class.h: the compatibility class (class.h) of this host, asked of KVM itself: /proc and
 * device trees do not say what a guest sees. */
#pragma once
#include "hv/class.h"
#include "hv/fault.h"
#include "hv/gic.h"

/* As the first vCPU of this VM sees it; initialised, parked or not started. `ids`: its registers,
 * as of kvm_reg_list. 0 or negative errno. */
int host_class_read(int vm, int vcpu, const struct gic *gic, const uint64_t *ids, size_t count,
		    struct host_class *ret);
/* In a scratch VM made like ours: one vCPU with PMU if there is one, the GIC we would choose.
 * -errno and a sentence where such a VM cannot be made. */
int host_class_probe(int kvm, struct host_class *ret, struct fault *fault);
