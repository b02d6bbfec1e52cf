/* device_state.h: a virtio device and its registers, into a snapshot's record and back. Built
 * everywhere: what a hostile record does to a device is tested without KVM.
 *
 * The config space is the machine's own (spec, device's words); of the saved one that is compared
 * which a driver has read and relies on: the size of a disk, the address of a NIC. */
#pragma once
#include "hv/fault.h"
#include "hv/virtio/mmio.h"
#include "hv/virtio/virtio.h"
#include "proto/hv_state.pb-c.h"

/* A new record of a paused device, owned by the caller (free_unpacked with NULL). */
Tb__VirtioState *device_state_save(const struct mmio *m);
/* Is it the record of such a device, as number `slot` of the VM? -EXDEV and what differs. */
int device_state_check(const Tb__VirtioState *saved, const struct virtio *v, unsigned slot,
		       struct fault *fault);
/* Into a new device that passed the check, with the guest's memory in place; paused by this, and
 * stays so. -EBADMSG for a state that cannot be; then the device is as new. */
int device_state_load(const Tb__VirtioState *saved, struct mmio *m, struct fault *fault);
