/* probe_facts.h: what `witness-vm probe` found out, before anybody judges it. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "board/tree.h"

/* From files below a root. */
struct probe_board {
	struct board_tree tree;
	char kernel[64]; /* release; empty: unknown */
	char huge_anonymous[16]; /* always, madvise, never; empty: the kernel has none */
	char huge_memfd[16]; /* always, within_size, advise, never, ... */
	bool cgroup2; /* mounted at /sys/fs/cgroup */
	bool cgroup_memory;
	bool cgroup_memory_disabled; /* by the kernel's command line */
	bool user_namespaces;
	bool vhost_vsock; /* there is a /dev/vhost-vsock */
	bool tap; /* there is a /dev/net/tun */
	unsigned core_kinds; /* different MIDR_EL1 among the cores; 0: unknown */
};

/* `path` "" or a folder: <path>/proc and so on. */
void probe_board_read(const char *path, struct probe_board *ret);

/* From KVM. Errors are positive errnos, 0: it works. */
struct probe_kvm {
	int open_error;
	int version; /* of the API; 0: not asked */
	int vm_error; /* of a scratch VM with a vCPU */
	int gicv2_error, gicv3_error; /* of a virtual GIC in it, really made */
	bool its;
	unsigned ipa_bits, max_vcpus;
	bool pmu, steal_time, counter_offset;
	bool io_uring;
	uint32_t page_size;
};
