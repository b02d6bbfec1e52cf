/* net.h: virtio network device (virtio 1.2, 5.1) over a tap interface of the host.
 *
 * Frames go straight between the tap and the guest's buffers, with the checksum and segmentation
 * offloads of both sides, so that one read can carry 64 KiB. Nothing is queued here: without
 * buffers of the guest the tap is not read, with a full tap the transmit queue is not popped. If
 * the interface goes down or away, the guest sees its link go down. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "hv/fault.h"
#include "hv/loop.h"
#include "hv/ram.h"
#include "hv/stats.h"
#include "hv/virtio/virtio.h"

struct net;

struct net_config {
	int fd; /* tap with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR; the caller's; made non-blocking here
		 */
	uint8_t mac[6];
};

/* 0; or a negative errno and one sentence: -EINVAL if the descriptor is no such tap. */
int net_create(const struct net_config *c, const struct ram *ram, struct loop *loop,
	       const char *name, struct net **ret, struct fault *f);
void net_destroy(struct net *n);
struct virtio *net_virtio(struct net *n);
/* The cable: out, frames are dropped both ways and the guest is told. With the device lock. */
void net_set_link(struct net *n, bool up);
/* The guest has a new place in the network (after restore): it is asked to announce itself, if its
 * driver can. With the device lock. */
void net_announce(struct net *n);
void net_stats(const struct net *n, const struct stats_sink *s);
