/* disk_lock.h: the lock that keeps a second VM (or QEMU, which locks too) off a disk.
 *
 * An open file description lock (fcntl(2)): it belongs to the descriptor, not to the process, so a
 * parent can take it and hand it over, and it ends with the last descriptor, however the process
 * ended. Writable disks are locked for themselves, read-only ones share. Who hands one open file
 * description to two VMs has one lock for both, which keeps neither off: each VM needs an open(2)
 * of its own (proto/hv.proto, VmStart). */
#pragma once
#include <stdbool.h>

/* 0 (also if this descriptor has the lock already); -EBUSY: somebody else has it, then `holder`
 * says who ("process 812 (witness-vm)") or "another program"; -EAGAIN: so does its name, but it is
 * only what is left of a VM that was killed (virtio/blk_sync.h) and ends by itself, which takes as
 * long as its disk does: disk_lock_try. Or what fcntl said. */
int disk_lock(int fd, bool read_only, char holder[64]);
/* The same at once, or -EAGAIN: somebody has it. */
int disk_lock_try(int fd, bool read_only);
