#include "hv/virtio/virtio.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"

enum { FAIL_LOG_PERIOD_MS = 1000 };

/* What the driver may set; NEEDS_RESET is ours. */
#define STATUS_KNOWN                                                                               \
	((uint32_t)(VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK | \
		    VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_FAILED))

static void signal_fd(int fd)
{
	uint64_t one = 1;
	ssize_t rv = write(fd, &one, sizeof(one));

	(void)rv; /* full is as good as signalled */
}

static void kick_ready(struct watch *watch, uint32_t events)
{
	struct virtio_kick_watch *k = (struct virtio_kick_watch *)(void *)watch;

	(void)events;
	virtio_kicked(k->virtio, (unsigned)(k - k->virtio->kick_watch));
}

/* The eventfds of a device: one for each queue and one for interrupts. */
static int lines_open(struct virtio *v)
{
	unsigned i;

	v->irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (v->irq_fd < 0) {
		return -errno;
	}
	for (i = 0; i < v->class->queues; i++) {
		v->kick_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (v->kick_fd[i] < 0) {
			return -errno;
		}
	}
	return 0;
}

static int kicks_watch(struct virtio *v)
{
	unsigned i;

	for (i = 0; i < v->class->queues && v->class->kick != NULL; i++) {
		struct virtio_kick_watch *k = &v->kick_watch[i];
		int rv;

		*k = (struct virtio_kick_watch){.watch.ready = kick_ready, .virtio = v};
		rv = loop_add(v->loop, &k->watch, v->kick_fd[i], EPOLLIN | EPOLLET);
		if (rv < 0) {
			return rv;
		}
	}
	return 0;
}

int virtio_init(struct virtio *v, const struct virtio_class *class, const struct ram *ram,
		struct loop *loop, const char *name)
{
	unsigned i;
	int rv;

	assert(class->queues <= VIRTIO_QUEUES_MAX && class->queue_size <= QUEUE_SIZE_MAX);
	assert(v->config_len <= VIRTIO_CONFIG_MAX);
	v->class = class;
	v->ram = ram;
	v->loop = loop;
	v->features |= VIRTIO_F_INDIRECT_DESC_BIT | VIRTIO_F_EVENT_IDX_BIT | VIRTIO_F_VERSION_1_BIT;
	snprintf(v->name, sizeof(v->name), "%s", name);
	v->irq_fd = -1;
	for (i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		v->kick_fd[i] = -1;
	}
	rv = lines_open(v);
	if (rv == 0) {
		rv = kicks_watch(v);
	}
	if (rv < 0) {
		virtio_close(v);
	}
	return rv;
}

void virtio_close(struct virtio *v)
{
	unsigned i;

	if (v->class == NULL) {
		return;
	}
	for (i = 0; i < v->class->queues; i++) {
		loop_remove(&v->kick_watch[i].watch);
		if (v->kick_fd[i] >= 0) {
			close(v->kick_fd[i]);
		}
	}
	if (v->irq_fd >= 0) {
		close(v->irq_fd);
	}
	v->class = NULL;
}

static void interrupt(struct virtio *v)
{
	v->counters.interrupts++;
	signal_fd(v->irq_fd);
}

/* The transport shows the new state first, then the driver is told to look. */
static void changed(struct virtio *v)
{
	if (v->changed != NULL) {
		v->changed(v, v->changed_arg);
	}
	if ((v->status & VIRTIO_STATUS_DRIVER_OK) != 0) {
		interrupt(v);
	}
}

int virtio_pop(struct virtio *v, unsigned index, struct chain *ret)
{
	int rv = queue_pop(&v->queue[index], ret);

	if (rv < 0) {
		virtio_fail(v, "a descriptor chain or ring index that cannot be");
		return 0;
	}
	v->counters.chains += (unsigned)rv;
	return rv;
}

void virtio_signal(struct virtio *v, unsigned index)
{
	if (queue_must_signal(&v->queue[index])) {
		interrupt(v);
	}
}

void virtio_config_changed(struct virtio *v)
{
	v->config_generation++;
	changed(v);
}

void virtio_fail(struct virtio *v, const char *why)
{
	uint64_t now = clock_boottime_ms();
	unsigned i;

	v->counters.failures++;
	if (v->fail_logged_ms == 0 || now >= v->fail_logged_ms + FAIL_LOG_PERIOD_MS) {
		log_warning("device-failed", "%s: the guest's driver gave it %s; dead until reset",
			    v->name, why);
		v->fail_logged_ms = now;
	}
	v->active = false;
	for (i = 0; i < v->class->queues; i++) {
		v->queue[i].ready = false;
	}
	v->status |= VIRTIO_STATUS_NEEDS_RESET;
	changed(v);
}

bool virtio_has(const struct virtio *v, uint64_t bit)
{
	return (v->acked & bit) != 0;
}

static bool drain(struct virtio *v, int wait_ms)
{
	return v->class->drain == NULL || v->class->drain(v, wait_ms);
}

static void reset_end(struct virtio *v)
{
	unsigned i;

	for (i = 0; i < v->class->queues; i++) {
		queue_reset(&v->queue[i]);
	}
	v->acked = 0;
	v->status = 0;
	v->resetting = false;
	if (v->changed != NULL) {
		v->changed(v, v->changed_arg);
	}
}

static void reset(struct virtio *v)
{
	unsigned i;

	/* Nothing of the old life may start, end or be told any more. */
	v->active = false;
	for (i = 0; i < v->class->queues; i++) {
		v->queue[i].ready = false;
	}
	if (v->class->reset != NULL) {
		v->class->reset(v);
	}
	v->resetting = true;
	if (drain(v, 0)) {
		reset_end(v);
	}
}

void virtio_drained(struct virtio *v)
{
	if (v->resetting) {
		reset_end(v);
	}
	if (v->paused && v->rested != NULL) {
		v->rested(v->rested_arg);
	}
}

static bool is_running(uint32_t status)
{
	return (status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_FAILED |
			  VIRTIO_STATUS_NEEDS_RESET)) == VIRTIO_STATUS_DRIVER_OK;
}

static void activate(struct virtio *v)
{
	unsigned i;

	v->active = true;
	if (v->class->activate != NULL) {
		v->class->activate(v);
	}
	/* Some drivers kick before they say DRIVER_OK; such a kick found nobody. */
	for (i = 0; i < v->class->queues; i++) {
		if (queue_has_work(&v->queue[i])) {
			virtio_kick(v, i);
		}
	}
}

/* Each step needs the one before it (3.1.1), and none is taken back but by a reset. */
static bool status_follows(uint32_t old, uint32_t new)
{
	static const uint32_t steps[] = {VIRTIO_STATUS_ACKNOWLEDGE, VIRTIO_STATUS_DRIVER,
					 VIRTIO_STATUS_FEATURES_OK, VIRTIO_STATUS_DRIVER_OK};
	unsigned i;

	if ((old & ~new) != 0) {
		return false;
	}
	for (i = 1; i < sizeof(steps) / sizeof(steps[0]); i++) {
		if ((new &steps[i]) != 0 && (new &steps[i - 1]) == 0) {
			return false;
		}
	}
	return true;
}

void virtio_set_status(struct virtio *v, uint32_t status)
{
	uint32_t own = VIRTIO_STATUS_NEEDS_RESET;
	uint32_t old = v->status & ~own;

	if (v->resetting) {
		return;
	}
	if (status == 0) {
		reset(v);
		return;
	}
	status &= STATUS_KNOWN;
	if ((status & VIRTIO_STATUS_FEATURES_OK) != 0 && !virtio_has(v, VIRTIO_F_VERSION_1_BIT)) {
		status &= ~(uint32_t)VIRTIO_STATUS_FEATURES_OK;
	}
	if (!status_follows(old, status)) {
		return;
	}
	v->status = status | (v->status & own);
	if (is_running(v->status) && (old & VIRTIO_STATUS_DRIVER_OK) == 0) {
		activate(v);
	} else if (!is_running(v->status)) {
		v->active = false;
	}
}

void virtio_enable_queue(struct virtio *v, unsigned index)
{
	struct queue *q = &v->queue[index];

	q->event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX_BIT);
	q->indirect = virtio_has(v, VIRTIO_F_INDIRECT_DESC_BIT);
	assert(q->size <= v->class->queue_size); /* the transport saw to it */
	if (!queue_enable(q, v->ram)) {
		virtio_fail(v, "a queue of an impossible size or place");
	}
}

void virtio_kick(struct virtio *v, unsigned index)
{
	signal_fd(v->kick_fd[index]);
}

void virtio_kicked(struct virtio *v, unsigned index)
{
	if (!v->active || v->paused || !v->queue[index].ready) {
		return;
	}
	v->counters.kicks++;
	v->class->kick(v, index);
}

/* Began to rest; true if it does. */
static bool rest(struct virtio *v, int wait_ms)
{
	if (!v->paused) {
		v->paused = true;
		if (v->class->pause != NULL) {
			v->class->pause(v);
		}
	}
	if (!drain(v, wait_ms)) {
		return false;
	}
	if (v->resetting) {
		reset_end(v);
	}
	return true;
}

bool virtio_rest(struct virtio *v)
{
	return rest(v, 0);
}

void virtio_pause(struct virtio *v)
{
	(void)rest(v, -1);
}

void virtio_resume(struct virtio *v)
{
	unsigned i;

	if (!v->paused) {
		return;
	}
	v->paused = false;
	if (v->class->resume != NULL) {
		v->class->resume(v);
	}
	for (i = 0; i < v->class->queues; i++) {
		const struct queue *q = &v->queue[i];

		/* One that is at rest stays so: nothing came, and the driver will tell. */
		if (q->ready &&
		    (v->class->kick == NULL || queue_has_work(q) || !queue_kick_wanted(q))) {
			virtio_kick(v, i);
		}
	}
}

void virtio_save(const struct virtio *v, struct virtio_state *ret)
{
	unsigned i;

	assert(v->paused && !v->resetting);
	*ret = (struct virtio_state){
		.acked = v->acked,
		.status = v->status,
		.config_generation = v->config_generation,
	};
	for (i = 0; i < v->class->queues; i++) {
		const struct queue *q = &v->queue[i];

		ret->queue[i] = (struct virtio_queue_state){
			.desc = q->desc,
			.avail = q->avail,
			.used = q->used,
			.size = q->size,
			.next_avail = q->next_avail,
			.next_used = q->next_used,
			.ready = q->ready,
		};
	}
	if (v->class->save != NULL) {
		ret->word_count = v->class->save(v, ret->words);
	}
}

/* Could a driver have brought the device there? */
static bool state_possible(const struct virtio *v, const struct virtio_state *s)
{
	uint32_t own = VIRTIO_STATUS_NEEDS_RESET;

	return (s->acked & ~v->features) == 0 && (s->status & ~(STATUS_KNOWN | own)) == 0 &&
	       status_follows(0, s->status & ~own) && s->word_count <= VIRTIO_STATE_WORDS &&
	       ((s->status & VIRTIO_STATUS_FEATURES_OK) == 0 ||
		(s->acked & VIRTIO_F_VERSION_1_BIT) != 0);
}

/* Queues are ready from FEATURES_OK on, until the device fails. */
static int queue_load(struct virtio *v, struct queue *q, const struct virtio_queue_state *s)
{
	if (s->size > v->class->queue_size) {
		return -EINVAL;
	}
	*q = (struct queue){
		.size = s->size,
		.desc = s->desc,
		.avail = s->avail,
		.used = s->used,
		.event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX_BIT),
		.indirect = virtio_has(v, VIRTIO_F_INDIRECT_DESC_BIT),
		.next_avail = s->next_avail,
		.next_used = s->next_used,
	};
	if (!s->ready) {
		return 0;
	}
	if ((v->status & VIRTIO_STATUS_FEATURES_OK) == 0 ||
	    (v->status & VIRTIO_STATUS_NEEDS_RESET) != 0) {
		return -EINVAL;
	}
	return queue_enable(q, v->ram) ? 0 : -EINVAL;
}

static int state_put(struct virtio *v, const struct virtio_state *s)
{
	unsigned i;
	int rv;

	v->acked = s->acked;
	v->status = s->status;
	v->config_generation = s->config_generation;
	for (i = 0; i < v->class->queues; i++) {
		rv = queue_load(v, &v->queue[i], &s->queue[i]);
		if (rv < 0) {
			return rv;
		}
	}
	return v->class->load != NULL ? v->class->load(v, s->words, s->word_count)
				      : (s->word_count == 0 ? 0 : -EINVAL);
}

int virtio_load(struct virtio *v, const struct virtio_state *state)
{
	assert(v->paused && v->status == 0);
	if (!state_possible(v, state)) {
		return -EINVAL;
	}
	if (state_put(v, state) < 0) {
		reset(v);
		return -EINVAL;
	}
	v->active = is_running(v->status);
	if (v->active && v->class->activate != NULL) {
		v->class->activate(v);
	}
	return 0;
}

void virtio_stats(const struct virtio *v, const struct stats_sink *sink)
{
	sink->add(sink->arg, v->name, "kicks", v->counters.kicks, false);
	sink->add(sink->arg, v->name, "interrupts", v->counters.interrupts, false);
	sink->add(sink->arg, v->name, "chains", v->counters.chains, false);
	sink->add(sink->arg, v->name, "failures", v->counters.failures, false);
}
