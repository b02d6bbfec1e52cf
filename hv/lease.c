#include "hv/lease.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "hv/spec.h"
#include "lib/clock.h"

int lease_init(struct lease *l)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};

	*l = (struct lease){0};
	/* The first process of a PID namespace gets no SIGKILL from inside it. */
	if (getpid() == 1) {
		return -EPERM;
	}
	return timer_create(CLOCK_BOOTTIME, &event, &l->timer) < 0 ? -errno : 0;
}

static void arm(struct lease *l, uint64_t now_ms, uint64_t until_ms)
{
	struct itimerspec at = {.it_value = {.tv_sec = (time_t)(until_ms / 1000),
					     .tv_nsec = (long)(until_ms % 1000) * 1000000}};

	/* A timer of the past would fire too, but only with the next interrupt. */
	if (until_ms <= now_ms || timer_settime(l->timer, TIMER_ABSTIME, &at, NULL) < 0) {
		raise(SIGKILL);
	}
	l->armed = true;
	l->until_ms = until_ms;
}

int lease_until(struct lease *l, uint64_t until_ms)
{
	uint64_t now = clock_boottime_ms();

	if (until_ms > now + SPEC_LEASE_MAX_MS) {
		return -ERANGE;
	}
	arm(l, now, until_ms);
	return 0;
}

int lease_for(struct lease *l, uint64_t length_ms)
{
	uint64_t now = clock_boottime_ms();

	if (length_ms > SPEC_LEASE_MAX_MS) {
		return -ERANGE;
	}
	arm(l, now, now + length_ms);
	return 0;
}

void lease_shorten(struct lease *l, uint64_t length_ms)
{
	uint64_t now = clock_boottime_ms();

	assert(length_ms <= SPEC_LEASE_MAX_MS);
	if (!l->armed || l->until_ms > now + length_ms) {
		arm(l, now, now + length_ms);
	}
}

int64_t lease_left_ms(const struct lease *l, uint64_t now_ms)
{
	if (!l->armed) {
		return -1;
	}
	return l->until_ms > now_ms ? (int64_t)(l->until_ms - now_ms) : 0;
}
