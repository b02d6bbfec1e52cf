/* affinity.h: which of the board's cores a VM runs on: those of one kind (big.LITTLE).
 *
 * KVM takes a virtual processor for the kind of core that KVM_ARM_VCPU_INIT runs on, and kernels up
 * to 6.1 refuse with EINVAL to make it, or to reset it, on a core that KVM names otherwise
 * (KVM_ARM_PREFERRED_TARGET; Cortex-A53 and A57 have names of their own). Later kernels let it
 * wander between cores whose features and errata differ, for which its guest has patched itself.
 * So a VM's process is kept to the kind of which it is allowed most cores; who wants another one
 * allows only those (taskset, a cpuset). */
#pragma once
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hv/fault.h"

enum { AFFINITY_CORES_MAX = 256, AFFINITY_TEXT = 64 };

/* MIDR_EL1 of the board's cores by their numbers; 0: not known. Zeroed: nothing is known. */
struct affinity {
	uint32_t midr[AFFINITY_CORES_MAX];
	size_t count;
};

struct affinity_choice {
	uint32_t midr;
	cpu_set_t cores;
	int count, allowed; /* of the kind; of all kinds */
};

/* From sysfs below `root` ("" for this board). Needs paths: before the sandbox. */
void affinity_read(const char *root, struct affinity *ret);
/* The kind with most of the allowed cores; of two with as many the one with the higher number,
 * which is the larger core or the newer one. False: nothing is to be changed, the cores that are
 * allowed are of one kind, or one of them is not known. Pure. */
bool affinity_choose(const struct affinity *board, const cpu_set_t *allowed,
		     struct affinity_choice *ret);
/* Keeps this thread, and those that it makes, to the cores of one kind. Where it is allowed no
 * others nothing is changed, and `text` is empty; else it says so: "4 of 6, Cortex-A53". Before the
 * first vCPU; after the process has entered its cgroup, which may allow others. 0, or negative
 * errno and a sentence. */
int affinity_keep(const struct affinity *board, char text[AFFINITY_TEXT], struct fault *fault);
