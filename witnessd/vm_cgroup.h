/* vm_cgroup.h: a cgroup (v2) for each VM, below this daemon's own: what a VM's process can take of
 * the board's memory and processes, whatever its guest does to it. Needs a cgroup that was
 * delegated to this daemon (systemd: Delegate=yes); without one VMs run without these limits. */
#pragma once
#include <stdint.h>

#include "witnessd/problem.h"

enum {
	VM_CGROUP_PATH = 512,
	VM_CGROUP_MEMORY_MIB = 128, /* beyond the guest's: its process, the kernel's own for it */
	VM_CGROUP_PIDS = 128, /* threads of vCPUs and io_uring */
};

/* Once, before the first VM: moves this process into a leaf, and makes the folder of VMs. 0 and its
 * path, and in `problem` why their memory is not limited ("": it is); or negative errno and why VMs
 * run without any limit. */
int vm_cgroup_begin(char ret_base[VM_CGROUP_PATH], struct problem *problem);
/* 0 and the path of the VM's, empty; or negative errno and a sentence. */
int vm_cgroup_make(const char *base, const char *name, uint32_t memory_mib,
		   char ret_path[VM_CGROUP_PATH], struct problem *problem);
/* After its process is gone. */
void vm_cgroup_remove(const char *path);
