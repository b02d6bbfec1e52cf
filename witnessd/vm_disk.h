/* vm_disk.h: the disks of the VMs on this board, as files.
 *
 *   DATA-DIR/vms/ID/overlay0.7    writable copy of an image, of disk 0 in incarnation 7
 *                  /data-disk1.5  data disk of this serial number: made once, stays; 5 is
 *                                 VmPlacement.home_incarnation (not in the name if it is 0)
 *                  /incarnation   the newest one that was let to the data disks
 *
 * Images are opened read-only where they are. A crash leaves names with ".new", which the next
 * vm_disk_prepare removes; whatever has its name is whole.
 *
 * The incarnation is written and synced before the first VM of it opens a data disk, and an older
 * one is refused from then on: a stale placement cannot write what a newer one uses (DESIGN S3).
 * A data disk is made only as long as the model does not know of it (VmPlacement.home_disks); later
 * its absence is refused (-ENODATA). When one of its disks cannot be made, the data disks that were
 * made beside it go again: the VM is not bound to this board, and may be sent to another. One of an
 * earlier stay of the VM on this board is not it: it lies there by its own name until somebody
 * removes it or the VM is deleted.
 *
 * Blocks for long: not in a loop. Sizes are refused with their arithmetic, and VM_DISK_KEEP_MIB
 * stay free for the log of the cluster, which is on the same card. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/model.pb-c.h"
#include "witnessd/problem.h"

enum { VM_DISKS_MAX = 8, VM_DISK_KEEP_MIB = 256 };

/* For who waits for vm_disk_prepare in another thread. Zero: nothing copied yet. */
struct vm_disk_copying {
	_Atomic uint64_t bytes; /* copied */
	atomic_bool cancelled; /* set it: no further piece is copied, and what was begun goes */
};

/* Makes in DATA-DIR/vms what is missing for this VM in the incarnation of its placement: overlays,
 * data disks; drops overlays of other incarnations. `images`: for each disk of the config an open
 * file of its image, or -1 where it has none or needs no copy. 0; or negative errno and a sentence,
 * -ECANCELED when it was cancelled. Any thread. */
int vm_disk_prepare(const char *folder, const Tb__Vm *vm, const int *images,
		    struct vm_disk_copying *copying, struct problem *problem);
/* Opens overlay or data disk `number` of a VM that is prepared. 0 and *ret_fd, owned by the caller;
 * or negative errno and a sentence. */
int vm_disk_open(const char *folder, const Tb__Vm *vm, unsigned number, int *ret_fd,
		 struct problem *problem);
/* Is there an overlay of this incarnation? Then no image is needed for it. */
bool vm_disk_made(const char *folder, const Tb__Vm *vm, unsigned number);
/* The VM has left this board: its overlays go, data disks stay. */
void vm_disk_discard(const char *folder, uint64_t vm);
/* The VM is deleted: nothing of it stays. */
void vm_disk_delete(const char *folder, uint64_t vm);
/* The VMs that have something here: up to `max` ids, their number. */
unsigned vm_disk_list(const char *folder, uint64_t *ids, unsigned max);
