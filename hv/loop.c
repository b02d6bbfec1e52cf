#include "hv/loop.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { BATCH = 16 };

int loop_init(struct loop *loop)
{
	struct epoll_event event = {.events = EPOLLIN};
	int rv;

	*loop = (struct loop){.epoll = -1, .wake = -1};
	pthread_mutex_init(&loop->lock, NULL);
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	loop->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->epoll < 0 || loop->wake < 0 ||
	    epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->wake, &event) < 0) {
		rv = -errno;
		loop_close(loop);
		return rv;
	}
	return 0;
}

void loop_close(struct loop *loop)
{
	if (loop->epoll >= 0) {
		close(loop->epoll);
	}
	if (loop->wake >= 0) {
		close(loop->wake);
	}
	loop->epoll = -1;
	loop->wake = -1;
	pthread_mutex_destroy(&loop->lock);
}

int loop_add(struct loop *loop, struct watch *watch, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};

	assert(watch->loop == NULL && watch->ready != NULL);
	if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
		return -errno;
	}
	watch->fd = fd;
	watch->loop = loop;
	return 0;
}

int loop_modify(struct watch *watch, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};

	assert(watch->loop != NULL);
	return epoll_ctl(watch->loop->epoll, EPOLL_CTL_MOD, watch->fd, &event) < 0 ? -errno : 0;
}

void loop_remove(struct watch *watch)
{
	struct loop *loop = watch->loop;
	int i;

	if (loop == NULL) {
		return;
	}
	(void)epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
	for (i = 0; i < loop->pending_count; i++) {
		if (loop->pending[i] == watch) {
			loop->pending[i] = NULL;
		}
	}
	watch->loop = NULL;
}

static void call_first(struct loop *loop)
{
	void (*first)(void *arg) = loop->first;

	if (first != NULL) {
		loop->first = NULL;
		first(loop->first_arg);
	}
}

/* One batch; whom a watcher, or the first, removes is not called any more. */
static void dispatch(struct loop *loop, const struct epoll_event *events, int count)
{
	struct watch *watches[BATCH];
	int i;

	for (i = 0; i < count; i++) {
		watches[i] = events[i].data.ptr;
	}
	loop->pending = watches;
	loop->pending_count = count;
	call_first(loop);
	for (i = 0; i < count && !__atomic_load_n(&loop->stop, __ATOMIC_ACQUIRE); i++) {
		if (watches[i] != NULL) {
			watches[i]->ready(watches[i], events[i].events);
		}
	}
	loop->pending = NULL;
	loop->pending_count = 0;
}

void loop_first(struct loop *loop, void (*first)(void *arg), void *arg)
{
	assert(loop->first == NULL);
	loop->first = first;
	loop->first_arg = arg;
}

void loop_when_quiet(struct loop *loop, void (*quiet)(void))
{
	loop->quiet = quiet;
}

/* Without the lock. How many events there are; 0: a moment has passed, or a signal came. */
static int await(struct loop *loop, struct epoll_event *events)
{
	int wait_ms = loop->first != NULL   ? LOOP_FIRST_MS
		      : loop->quiet != NULL ? LOOP_QUIET_MS
					    : -1;
	int count = epoll_wait(loop->epoll, events, BATCH, wait_ms);

	if (count == 0 && loop->first == NULL) {
		loop->quiet();
		loop->quiet = NULL;
	}
	return count < 0 && errno == EINTR ? 0 : count;
}

void loop_run(struct loop *loop)
{
	struct epoll_event events[BATCH];

	loop_lock(loop);
	while (!__atomic_load_n(&loop->stop, __ATOMIC_ACQUIRE)) {
		int count;

		loop_unlock(loop);
		count = await(loop, events);
		assert(count >= 0);
		loop_lock(loop);
		dispatch(loop, events, count);
	}
	loop_unlock(loop);
}

void loop_stop(struct loop *loop)
{
	uint64_t one = 1;
	ssize_t rv;

	__atomic_store_n(&loop->stop, true, __ATOMIC_RELEASE);
	rv = write(loop->wake, &one, sizeof(one));
	(void)rv; /* full means that it is awake already */
}

void loop_lock(struct loop *loop)
{
	pthread_mutex_lock(&loop->lock);
}

void loop_unlock(struct loop *loop)
{
	pthread_mutex_unlock(&loop->lock);
}
