/* vsock.h: virtio socket device (virtio 1.2, 5.10): the kernel's vhost-vsock carries the data,
 * kicks and interrupts go straight between it and KVM. Ours: configuration, features, the event
 * queue, and taking the rings back from the kernel while paused. The only file with vhost ioctls.
 */
#pragma once
#include <stdint.h>

#include "hv/fault.h"
#include "hv/loop.h"
#include "hv/ram.h"
#include "hv/stats.h"
#include "hv/virtio/virtio.h"

struct vsock;

struct vsock_config {
	int fd; /* /dev/vhost-vsock, the caller's; the kernel's worker thread is made here */
	uint32_t cid; /* of the guest, 3..0xfffffffe */
};

/* 0; or a negative errno and one sentence: -EADDRINUSE if another VM of the board has the cid. */
int vsock_create(const struct vsock_config *c, const struct ram *ram, struct loop *loop,
		 const char *name, struct vsock **ret, struct fault *f);
void vsock_destroy(struct vsock *s);
struct virtio *vsock_virtio(struct vsock *s);
/* Connections of the guest's former life are gone (after restore): its driver is told to reset
 * them. Kept until the driver has given a buffer for events. With the device lock; the device may
 * be paused. */
void vsock_reset_event(struct vsock *s);
void vsock_stats(const struct vsock *s, const struct stats_sink *sink);
