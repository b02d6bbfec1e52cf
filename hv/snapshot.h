/* snapshot.h: a whole VM as two files, and back.
 *
 * The state file (state_file.h) holds everything but the memory: a few KiB. The memory file is the
 * guest's memory at its offsets, pages of zeros left out (sparse), so that it can be mapped; one
 * page behind it names the state file it belongs to. The memory file must never change while a
 * clone lives on it (spec: backing "shared").
 *
 * Order of a restore (KVM API; notes in gic_state.h and vcpu_state.h): memory, registers but the
 * counters, power states, pending errors, interrupt controller, devices, generation id, and the
 * counters last. What differs between file and machine is refused by name before anything is set,
 * and so are writable disks that are newer than the guest's memory (disk_mark.h).
 *
 * Where it runs: both files come from outside, so snapshot_load is made to run INSIDE the sandbox,
 * after vcpus_start and before the guest runs: a file that takes the process over gains no more
 * than a guest would. It opens nothing and makes no thread. It needs, and snapshot_save with it,
 * beyond what a running VM calls anyway: fstat, lseek, ftruncate, pread64, pwrite64   the two files
 *   fsync, fstat, clock_nanosleep                the disks (disk_mark.h)
 *   mmap of anonymous memory, munmap, brk        malloc
 *   getrandom                                    id of the memory file
 *   clock_gettime                                where the vdso has none
 *   ioctl on a vCPU: KVM_GET_REG_LIST, KVM_GET_ONE_REG, KVM_SET_ONE_REG, KVM_GET_MP_STATE,
 *     KVM_SET_MP_STATE, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS
 *   ioctl on the VM: KVM_CHECK_EXTENSION, KVM_IRQ_LINE
 *   ioctl on the vGIC: KVM_GET_DEVICE_ATTR, KVM_SET_DEVICE_ATTR
 *   and what the devices' own pause, resume and activate call (vhost-vsock: its ioctls). */
#pragma once
#include "hv/fault.h"
#include "hv/machine.h"

/* Writes both files from their beginning; what they held is lost. The machine is
 * MACHINE_PAUSED, and stays so. Its disks are synced, the two files not: who needs them durable
 * calls fdatasync on both. -EINVAL if one of them is the file the machine itself lives on; else the
 * errno of the write. Without the device lock. */
int snapshot_save(struct machine *m, int state_fd, int memory_fd, struct fault *fault);

/* Into a machine just created (MACHINE_STARTING) from a spec of the same shape, vCPU threads at the
 * gate or not made yet. It is MACHINE_PAUSED after: machine_start. Memory is copied, unless the
 * machine's memory is a mapping of memory_fd already (RAM_SHARED_FILE). The clock goes on as
 * spec->restore says. The descriptors stay the caller's. On any error the machine is only good for
 * machine_destroy. -EBADMSG: not a sound file; -EXDEV: made by a host or a spec that differs
 * (*fault names the part); -ECANCELED and no sentence: a turn ended it; or what KVM said. */
int snapshot_load(struct machine *m, int state_fd, int memory_fd, struct fault *fault);
