/* vm_net.h: a VM's network cards at the board's end: a tap for each, joined to its bridge. A tap
 * lives as long as a descriptor of it is open, here or in the VM's process: nothing is left behind,
 * whoever dies. */
#pragma once
#include <stdint.h>

#include "witnessd/problem.h"

enum { VM_BRIDGES_MAX = 64 };

/* Makes "vm<vm>n<number>", joins it to `bridge`, brings it up. `mac` is the guest's. 0 and *ret_fd
 * (for witness-vm: with the header of virtio), owned by the caller; or negative errno and a
 * sentence with the remedy. */
int vm_net_open(uint64_t vm, unsigned number, const char *bridge, const char *mac, int *ret_fd,
		struct problem *problem);
/* Is there a bridge of this name? 0; or negative errno and a sentence with the remedy. */
int vm_net_check(unsigned number, const char *bridge, struct problem *problem);
/* The bridges of this board, sorted; each owned by the caller. Returns how many. */
unsigned vm_net_bridges(char *names[VM_BRIDGES_MAX]);
