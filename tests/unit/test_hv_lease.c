/* The deadline of a VM's process: the kernel ends it, whatever the process does or cannot do. Each
 * case is a child; what it must not do is outlive its deadline (the test then hangs) or end before
 * it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/lease.h"
#include "hv/spec.h"
#include "lib/clock.h"

enum { LENGTH_MS = 150 };

struct child {
	pid_t pid;
	uint64_t begun_ms;
};

static struct child child_start(void (*life)(struct lease *l))
{
	struct child c = {.begun_ms = clock_boottime_ms()};

	c.pid = fork();
	assert_true(c.pid >= 0);
	if (c.pid == 0) {
		struct lease l;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (lease_init(&l) != 0) {
			_exit(100);
		}
		life(&l);
		_exit(101);
	}
	return c;
}

/* Killed by its deadline, and not before. */
static void child_must_end(const struct child *c, uint64_t not_before_ms)
{
	int status;

	assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGKILL);
	assert_true(clock_boottime_ms() - c->begun_ms >= not_before_ms);
}

static void life_sleep(struct lease *l)
{
	lease_for(l, LENGTH_MS);
	for (;;) {
		pause();
	}
}

static void test_sleeping(void **state)
{
	struct child c = child_start(life_sleep);

	(void)state;
	child_must_end(&c, LENGTH_MS);
}

static void *spin(void *arg)
{
	(void)arg;
	for (volatile uint64_t i = 0;; i++) {
	}
	return NULL;
}

/* Nothing that could be told, in any thread. */
static void life_spin(struct lease *l)
{
	pthread_t thread;
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	pthread_create(&thread, NULL, spin, NULL);
	lease_for(l, LENGTH_MS);
	spin(NULL);
}

static void test_spinning(void **state)
{
	struct child c = child_start(life_spin);

	(void)state;
	child_must_end(&c, LENGTH_MS);
}

static void life_stop(struct lease *l)
{
	lease_for(l, LENGTH_MS);
	raise(SIGSTOP);
}

static void test_stopped(void **state)
{
	struct child c = child_start(life_stop);
	int status;

	(void)state;
	assert_int_equal(waitpid(c.pid, &status, WUNTRACED), c.pid);
	assert_true(WIFSTOPPED(status));
	child_must_end(&c, LENGTH_MS);
}

static void life_traced(struct lease *l)
{
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0) {
		raise(SIGKILL); /* user-mode emulation has no ptrace */
	}
	life_stop(l);
}

static void test_stopped_by_a_tracer(void **state)
{
	struct child c = child_start(life_traced);
	int status;

	(void)state;
	assert_int_equal(waitpid(c.pid, &status, WUNTRACED), c.pid);
	if (WIFSTOPPED(status)) {
		child_must_end(&c, LENGTH_MS);
	}
}

static void life_renew(struct lease *l)
{
	lease_for(l, LENGTH_MS);
	for (unsigned i = 0; i < 4; i++) {
		usleep(LENGTH_MS * 1000 / 3);
		lease_until(l, clock_boottime_ms() + LENGTH_MS);
	}
	for (;;) {
		pause();
	}
}

static void test_renewed(void **state)
{
	struct child c = child_start(life_renew);

	(void)state;
	child_must_end(&c, 4 * LENGTH_MS / 3 + LENGTH_MS);
}

/* Frozen until after its deadline, with the next renewal waiting: it never gets to read it. */
static void life_late(struct lease *l)
{
	uint64_t until = clock_boottime_ms() + LENGTH_MS;

	lease_until(l, until);
	raise(SIGSTOP);
	lease_for(l, SPEC_LEASE_MAX_MS);
	_exit(0);
}

static void test_no_renewal_after_the_deadline(void **state)
{
	struct child c = child_start(life_late);
	int status;

	(void)state;
	assert_int_equal(waitpid(c.pid, &status, WUNTRACED), c.pid);
	while (clock_boottime_ms() < c.begun_ms + 2 * LENGTH_MS) {
		usleep(10000);
	}
	kill(c.pid, SIGCONT);
	child_must_end(&c, LENGTH_MS);
}

static void life_zero(struct lease *l)
{
	lease_for(l, SPEC_LEASE_MAX_MS);
	lease_for(l, 0);
	_exit(0);
}

static void life_past(struct lease *l)
{
	lease_until(l, clock_boottime_ms() - 1);
	_exit(0);
}

static void life_zero_time(struct lease *l)
{
	lease_for(l, SPEC_LEASE_MAX_MS);
	lease_until(l, 0); /* what would disarm a timer */
	_exit(0);
}

static void test_at_once(void **state)
{
	void (*const lives[])(struct lease *) = {life_zero, life_past, life_zero_time};

	(void)state;
	for (size_t i = 0; i < sizeof(lives) / sizeof(lives[0]); i++) {
		struct child c = child_start(lives[i]);

		child_must_end(&c, 0);
	}
}

static void life_earlier(struct lease *l)
{
	lease_for(l, SPEC_LEASE_MAX_MS);
	life_sleep(l);
}

static void life_shorten(struct lease *l)
{
	lease_for(l, SPEC_LEASE_MAX_MS);
	lease_shorten(l, LENGTH_MS);
	lease_shorten(l, SPEC_LEASE_MAX_MS); /* changes nothing */
	for (;;) {
		pause();
	}
}

static void life_shorten_none(struct lease *l)
{
	lease_shorten(l, LENGTH_MS);
	for (;;) {
		pause();
	}
}

static void test_taken_back(void **state)
{
	void (*const lives[])(struct lease *) = {life_earlier, life_shorten, life_shorten_none};

	(void)state;
	for (size_t i = 0; i < sizeof(lives) / sizeof(lives[0]); i++) {
		struct child c = child_start(lives[i]);

		child_must_end(&c, LENGTH_MS);
	}
}

static void life_too_long(struct lease *l)
{
	lease_for(l, LENGTH_MS);
	if (lease_for(l, SPEC_LEASE_MAX_MS + 1) != -ERANGE ||
	    lease_until(l, clock_boottime_ms() + 2 * SPEC_LEASE_MAX_MS) != -ERANGE ||
	    lease_until(l, UINT64_MAX) != -ERANGE) {
		_exit(1);
	}
	for (;;) {
		pause();
	}
}

static void test_too_long_changes_nothing(void **state)
{
	struct child c = child_start(life_too_long);

	(void)state;
	child_must_end(&c, LENGTH_MS);
}

static void test_left(void **state)
{
	struct lease l;

	(void)state;
	assert_int_equal(lease_init(&l), 0);
	assert_int_equal(lease_left_ms(&l, 5), -1);
	l.armed = true;
	l.until_ms = 1000;
	assert_int_equal(lease_left_ms(&l, 400), 600);
	assert_int_equal(lease_left_ms(&l, 1000), 0);
	assert_int_equal(lease_left_ms(&l, 2000), 0);
	timer_delete(l.timer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sleeping),
		cmocka_unit_test(test_spinning),
		cmocka_unit_test(test_stopped),
		cmocka_unit_test(test_stopped_by_a_tracer),
		cmocka_unit_test(test_renewed),
		cmocka_unit_test(test_no_renewal_after_the_deadline),
		cmocka_unit_test(test_at_once),
		cmocka_unit_test(test_taken_back),
		cmocka_unit_test(test_too_long_changes_nothing),
		cmocka_unit_test(test_left),
	};

	alarm(100);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
