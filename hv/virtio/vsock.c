#include "hv/virtio/vsock.h"

#include <errno.h>
#include <linux/vhost.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_vsock.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "hv/layout.h"
#include "lib/mem.h"

/* Receive and transmit are the kernel's. */
enum { EVENT = 2, QUEUES = 3, KERNEL_QUEUES = 2, QUEUE_SIZE = 128 };

struct vsock {
	struct virtio virtio; /* first */
	int fd; /* the caller's */
	struct watch event_watch; /* kicks of the event queue */
	struct watch error_watch; /* of error_fd */
	int error_fd; /* the kernel met a malformed ring */
	bool running; /* the kernel has the rings */
	bool event_wanted; /* a reset event waits for a buffer of the driver */
	uint64_t events;
};

static struct vsock *vsock_of(struct virtio *v)
{
	return (struct vsock *)v;
}

static int command(const struct vsock *s, unsigned long request, const void *arg)
{
	return ioctl(s->fd, request, arg) < 0 ? -errno : 0;
}

static int set_memory(const struct vsock *s)
{
	union {
		struct vhost_memory table;
		uint8_t bytes[sizeof(struct vhost_memory) + sizeof(struct vhost_memory_region)];
	} m = {.table.nregions = 1};

	m.table.regions[0] = (struct vhost_memory_region){
		.guest_phys_addr = LAYOUT_RAM,
		.memory_size = s->virtio.ram->size,
		.userspace_addr = (uintptr_t)s->virtio.ram->host,
	};
	return command(s, VHOST_SET_MEM_TABLE, &m);
}

/* Queue `index`, checked and ready, to the kernel: from where we stand. */
static int ring_give(const struct vsock *s, unsigned index)
{
	const struct queue *q = &s->virtio.queue[index];
	const struct vhost_vring_state size = {.index = index, .num = q->size};
	const struct vhost_vring_state base = {.index = index, .num = q->next_avail};
	const struct vhost_vring_addr addr = {
		.index = index,
		.desc_user_addr = (uintptr_t)q->desc_at,
		.avail_user_addr = (uintptr_t)q->avail_at,
		.used_user_addr = (uintptr_t)q->used_at,
	};
	const struct vhost_vring_file call = {.index = index, .fd = s->virtio.irq_fd};
	const struct vhost_vring_file kick = {.index = index, .fd = s->virtio.kick_fd[index]};
	const struct vhost_vring_file error = {.index = index, .fd = s->error_fd};
	int rv = command(s, VHOST_SET_VRING_NUM, &size);

	rv = rv < 0 ? rv : command(s, VHOST_SET_VRING_BASE, &base);
	rv = rv < 0 ? rv : command(s, VHOST_SET_VRING_ADDR, &addr);
	rv = rv < 0 ? rv : command(s, VHOST_SET_VRING_CALL, &call);
	rv = rv < 0 ? rv : command(s, VHOST_SET_VRING_ERR, &error);
	return rv < 0 ? rv : command(s, VHOST_SET_VRING_KICK, &kick);
}

/* The kernel takes no more from the rings, and we know where it stopped. */
static void rings_take(struct vsock *s)
{
	const int stop = 0;
	unsigned i;

	if (!s->running) {
		return;
	}
	(void)command(s, VHOST_VSOCK_SET_RUNNING, &stop);
	s->running = false;
	for (i = 0; i < KERNEL_QUEUES; i++) {
		struct queue *q = &s->virtio.queue[i];
		struct vhost_vring_state base = {.index = i};

		if (q->ready && command(s, VHOST_GET_VRING_BASE, &base) == 0) {
			q->next_avail = (uint16_t)base.num;
			q->next_used = queue_used_idx(q);
		}
	}
}

static void broken(struct vsock *s, const char *why)
{
	rings_take(s);
	virtio_fail(&s->virtio, why);
}

static void rings_give(struct vsock *s)
{
	const uint64_t features = s->virtio.acked;
	const int start = 1;
	unsigned i;
	int rv = command(s, VHOST_SET_FEATURES, &features);

	for (i = 0; i < KERNEL_QUEUES && rv == 0; i++) {
		rv = s->virtio.queue[i].ready ? ring_give(s, i) : -EINVAL;
	}
	rv = rv < 0 ? rv : command(s, VHOST_VSOCK_SET_RUNNING, &start);
	s->running = rv == 0;
	if (rv < 0) {
		broken(s, "rings that the kernel does not take");
	}
}

/* The event that waits, as soon as the driver has a buffer for it. */
static void event_send(struct vsock *s)
{
	const struct virtio_vsock_event event = {.id = VIRTIO_VSOCK_EVENT_TRANSPORT_RESET};
	struct virtio *v = &s->virtio;
	struct chain c;

	if (!s->event_wanted || !v->active || v->paused) {
		return;
	}
	if (virtio_pop(v, EVENT, &c) == 0 &&
	    (!queue_want_kick(&v->queue[EVENT]) || virtio_pop(v, EVENT, &c) == 0)) {
		return;
	}
	if (c.in_len < sizeof(event)) {
		broken(s, "an event buffer that is too small");
		return;
	}
	queue_push(&v->queue[EVENT], c.head, (uint32_t)chain_write(&c, 0, &event, sizeof(event)));
	s->event_wanted = false;
	s->events++;
	virtio_signal(v, EVENT);
}

static void event_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	event_send((struct vsock *)(void *)((char *)watch - offsetof(struct vsock, event_watch)));
}

static void error_ready(struct watch *watch, uint32_t events)
{
	struct vsock *s =
		(struct vsock *)(void *)((char *)watch - offsetof(struct vsock, error_watch));

	(void)events;
	if (s->running) {
		broken(s, "a ring or packet that the kernel does not take");
	}
}

static void vsock_activate(struct virtio *v)
{
	if (!v->paused) {
		rings_give(vsock_of(v));
	}
}

static void vsock_reset(struct virtio *v)
{
	struct vsock *s = vsock_of(v);

	rings_take(s);
	s->event_wanted = false;
}

static void vsock_pause(struct virtio *v)
{
	rings_take(vsock_of(v));
}

static void vsock_resume(struct virtio *v)
{
	struct vsock *s = vsock_of(v);

	if (v->active) {
		rings_give(s);
		event_send(s);
	}
}

static const struct virtio_class vsock_class = {
	.id = VIRTIO_ID_VSOCK,
	.name = "vsock",
	.queues = QUEUES,
	.queue_size = QUEUE_SIZE,
	.activate = vsock_activate,
	.reset = vsock_reset,
	.pause = vsock_pause,
	.resume = vsock_resume,
};

/* Owner, memory and cid: all that needs no driver. */
static int kernel_prepare(struct vsock *s, const char *name, struct fault *f)
{
	const struct virtio_vsock_config *config = (const void *)s->virtio.config;
	const uint64_t cid = config->guest_cid;
	uint64_t features = 0;
	int rv = command(s, VHOST_SET_OWNER, NULL);

	if (rv == -EBUSY) {
		return fault_set(f, rv, "%s: the vhost-vsock descriptor is in use by another VM",
				 name);
	}
	rv = rv < 0 ? rv : command(s, VHOST_GET_FEATURES, &features);
	if (rv < 0) {
		return fault_set(f, rv, "%s: the descriptor is not /dev/vhost-vsock: %s", name,
				 strerror(-rv));
	}
	s->virtio.features = features & UINT64_C(1) << VIRTIO_VSOCK_F_SEQPACKET;
	rv = command(s, VHOST_VSOCK_SET_GUEST_CID, &cid);
	if (rv == -EADDRINUSE) {
		return fault_set(f, rv, "%s: another VM of this board has cid %llu: choose another",
				 name, (unsigned long long)cid);
	}
	rv = rv < 0 ? rv : set_memory(s);
	return rv < 0 ? fault_set(f, rv, "%s: the kernel refuses cid %llu: %s", name,
				  (unsigned long long)cid, strerror(-rv))
		      : 0;
}

static int watches_add(struct vsock *s, struct loop *loop)
{
	int rv;

	s->event_watch.ready = event_ready;
	s->error_watch.ready = error_ready;
	s->error_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->error_fd < 0) {
		return -errno;
	}
	rv = loop_add(loop, &s->error_watch, s->error_fd, EPOLLIN | EPOLLET);
	return rv < 0 ? rv
		      : loop_add(loop, &s->event_watch, s->virtio.kick_fd[EVENT],
				 EPOLLIN | EPOLLET);
}

int vsock_create(const struct vsock_config *c, const struct ram *ram, struct loop *loop,
		 const char *name, struct vsock **ret, struct fault *f)
{
	struct vsock *s = mem_zalloc(sizeof(*s));
	struct virtio_vsock_config *config = (void *)s->virtio.config;
	int rv;

	s->fd = c->fd;
	s->error_fd = -1;
	s->virtio.ram = ram;
	config->guest_cid = c->cid;
	s->virtio.config_len = sizeof(*config);
	rv = kernel_prepare(s, name, f);
	if (rv == 0) {
		rv = virtio_init(&s->virtio, &vsock_class, ram, loop, name);
		rv = rv < 0 ? rv : watches_add(s, loop);
		if (rv < 0) {
			(void)fault_set(f, rv, "%s: cannot watch the socket device: %s", name,
					strerror(-rv));
		}
	}
	if (rv < 0) {
		vsock_destroy(s);
		return rv;
	}
	*ret = s;
	return 0;
}

void vsock_destroy(struct vsock *s)
{
	if (s == NULL) {
		return;
	}
	rings_take(s);
	loop_remove(&s->event_watch);
	loop_remove(&s->error_watch);
	if (s->error_fd >= 0) {
		close(s->error_fd);
	}
	virtio_close(&s->virtio);
	free(s);
}

struct virtio *vsock_virtio(struct vsock *s)
{
	return &s->virtio;
}

void vsock_reset_event(struct vsock *s)
{
	s->event_wanted = true;
	event_send(s);
}

void vsock_stats(const struct vsock *s, const struct stats_sink *sink)
{
	virtio_stats(&s->virtio, sink);
	sink->add(sink->arg, s->virtio.name, "events", s->events, false);
}
