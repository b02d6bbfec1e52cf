/* slow.c: preloaded into an emulator, it makes its monotonic clock go BOARD_SLOW times slower, and
 * with it all clocks of the board but the one that it is set by at boot. Boards that share two
 * processors with others then have, by their own clocks, as many times more of them, and all of
 * them equally. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

static int64_t slow;
static int (*real_clock)(clockid_t, struct timespec *);
static int (*real_ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
static int (*real_poll)(struct pollfd *, nfds_t, int);
static int (*real_epoll)(int, struct epoll_event *, int, int);

__attribute__((constructor)) static void begin(void)
{
	const char *text = getenv("BOARD_SLOW");
	slow = text && atoi(text) > 0 ? atoi(text) : 1;
	real_clock = (__typeof__(real_clock))dlsym(RTLD_NEXT, "clock_gettime");
	real_ppoll = (__typeof__(real_ppoll))dlsym(RTLD_NEXT, "ppoll");
	real_poll = (__typeof__(real_poll))dlsym(RTLD_NEXT, "poll");
	real_epoll = (__typeof__(real_epoll))dlsym(RTLD_NEXT, "epoll_wait");
}

static struct timespec timespec_of(int64_t ns)
{
	return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

int clock_gettime(clockid_t id, struct timespec *ret)
{
	if (!real_clock)
		begin();
	int rv = real_clock(id, ret);
	if (rv == 0 && id == CLOCK_MONOTONIC)
		*ret = timespec_of(((int64_t)ret->tv_sec * 1000000000 + ret->tv_nsec) / slow);
	return rv;
}

/* What waits for a moment of that clock waits as many times longer. */
int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
	struct timespec longer;
	if (timeout && timeout->tv_sec < 1000000) {
		int64_t ns = (int64_t)timeout->tv_sec * 1000000000 + timeout->tv_nsec;
		longer = timespec_of(ns * slow);
		timeout = &longer;
	}
	return real_ppoll(fds, count, timeout, mask);
}

int poll(struct pollfd *fds, nfds_t count, int ms)
{
	return real_poll(fds, count, ms > 0 && ms < 1000000 ? ms * (int)slow : ms);
}

int epoll_wait(int epoll, struct epoll_event *events, int max, int ms)
{
	return real_epoll(epoll, events, max, ms > 0 && ms < 1000000 ? ms * (int)slow : ms);
}
