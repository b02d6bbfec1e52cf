#include "hv/virtio/rng.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "hv/virtio/bucket.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "lib/rng.h"

enum {
	QUEUE_SIZE = 8,
	REQUEST_COST = 64, /* bytes that a request counts at least: a request is work too */
	WAIT_MIN_MS = 10,
};

struct vrng {
	struct virtio v; /* first */
	struct bucket bucket;
	int timer_fd;
	struct watch timer;
	bool waiting; /* for the timer: requests are in the ring and the bucket is empty */
	uint64_t bytes;
};

static struct vrng *rng_of(struct virtio *v)
{
	return (struct vrng *)(void *)v;
}

/* `len` random bytes to the front of what the device writes. */
static void fill(const struct chain *c, uint32_t len)
{
	unsigned i;

	for (i = c->out_count; len > 0; i++) {
		uint32_t part = len < c->iov[i].iov_len ? len : (uint32_t)c->iov[i].iov_len;

		rng_fill(c->iov[i].iov_base, part);
		len -= part;
	}
}

/* Look again in `ms`; 0: not any more. */
static void timer_set(struct vrng *r, uint64_t ms)
{
	struct itimerspec when = {
		.it_value = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000},
	};

	(void)timerfd_settime(r->timer_fd, 0, &when, NULL);
}

/* True if the chain was answered; false if it has to wait for its turn. */
static bool answer(struct vrng *r, const struct chain *c)
{
	uint64_t level = bucket_level(&r->bucket, clock_boottime_ms());
	uint32_t len = c->in_len < level ? c->in_len : (uint32_t)level;

	if (level < REQUEST_COST) {
		return false;
	}
	fill(c, len);
	bucket_spend(&r->bucket, len > REQUEST_COST ? len : REQUEST_COST);
	r->bytes += len;
	queue_push(&r->v.queue[0], c->head, len);
	return true;
}

static void wait_for_more(struct vrng *r)
{
	uint64_t ms = bucket_wait_ms(&r->bucket, REQUEST_COST);

	r->waiting = true;
	timer_set(r, ms > WAIT_MIN_MS ? ms : WAIT_MIN_MS);
}

/* All chains that are there, unless the bucket is empty before. */
static void serve(struct vrng *r)
{
	struct chain c;

	while (virtio_pop(&r->v, 0, &c) == 1) {
		if (c.in_len == 0) {
			virtio_fail(&r->v, "a request without room for random bytes");
			return;
		}
		if (!answer(r, &c)) {
			queue_unpop(&r->v.queue[0]);
			wait_for_more(r);
			return;
		}
	}
}

static void kick(struct virtio *v, unsigned index)
{
	struct vrng *r = rng_of(v);

	r->waiting = false;
	do {
		serve(r);
	} while (!r->waiting && queue_want_kick(&v->queue[index]));
	virtio_signal(v, index);
}

static void timer_ready(struct watch *watch, uint32_t events)
{
	struct vrng *r = (struct vrng *)(void *)((char *)watch - offsetof(struct vrng, timer));

	(void)events;
	virtio_kicked(&r->v, 0);
}

static void reset(struct virtio *v)
{
	if (rng_of(v)->waiting) {
		rng_of(v)->waiting = false;
		timer_set(rng_of(v), 0);
	}
}

static const struct virtio_class class = {
	.id = VIRTIO_ID_RNG,
	.name = "rng",
	.queues = 1,
	.queue_size = QUEUE_SIZE,
	.rare_kicks = 1, /* the bucket allows no more */
	.kick = kick,
	.reset = reset,
};

static int open_all(struct vrng *r, const struct ram *ram, struct loop *loop, const char *name)
{
	int rv;

	r->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (r->timer_fd < 0) {
		return -errno;
	}
	r->timer.ready = timer_ready;
	rv = loop_add(loop, &r->timer, r->timer_fd, EPOLLIN | EPOLLET);
	return rv < 0 ? rv : virtio_init(&r->v, &class, ram, loop, name);
}

int vrng_create(const struct vrng_config *config, const struct ram *ram, struct loop *loop,
		const char *name, struct vrng **ret, struct fault *fault)
{
	struct vrng *r = mem_zalloc(sizeof(*r));
	uint32_t rate = config != NULL && config->bytes_per_second > 0 ? config->bytes_per_second
								       : VRNG_RATE;
	int rv;

	r->bucket = bucket_make(rate, VRNG_BURST, clock_boottime_ms());
	rv = open_all(r, ram, loop, name);
	if (rv < 0) {
		vrng_destroy(r);
		return fault_set(fault, rv, "%s: cannot make its descriptors: %s", name,
				 strerror(-rv));
	}
	*ret = r;
	return 0;
}

struct virtio *vrng_virtio(struct vrng *r)
{
	return &r->v;
}

void vrng_destroy(struct vrng *r)
{
	if (r == NULL) {
		return;
	}
	virtio_close(&r->v);
	loop_remove(&r->timer);
	if (r->timer_fd >= 0) {
		close(r->timer_fd);
	}
	free(r);
}

void vrng_stats(const struct vrng *r, const struct stats_sink *sink)
{
	virtio_stats(&r->v, sink);
	sink->add(sink->arg, r->v.name, "bytes", r->bytes, false);
}
