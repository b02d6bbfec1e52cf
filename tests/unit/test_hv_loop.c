/* The event loop: who is called, who is not called any more, and that it ends from any thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "hv/loop.h"

struct probe {
	struct watch watch; /* first */
	unsigned calls;
	struct probe *removes; /* taken off the loop when called */
	bool ends; /* the loop */
};

static void probe_ready(struct watch *watch, uint32_t events)
{
	struct probe *p = (struct probe *)watch;
	uint64_t count;

	assert_true(events & EPOLLIN);
	assert_int_equal(read(watch->fd, &count, sizeof(count)), sizeof(count));
	p->calls++;
	if (p->removes != NULL) {
		loop_remove(&p->removes->watch);
	}
	if (p->ends) {
		loop_stop(watch->loop != NULL ? watch->loop : p->removes->watch.loop);
	}
}

static void probe_add(struct loop *loop, struct probe *p)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	assert_true(fd >= 0);
	p->watch.ready = probe_ready;
	assert_int_equal(loop_add(loop, &p->watch, fd, EPOLLIN), 0);
}

static void probe_signal(const struct probe *p)
{
	uint64_t one = 1;

	assert_int_equal(write(p->watch.fd, &one, sizeof(one)), sizeof(one));
}

/* Of two that are ready together, the first takes the other off: that one is not called. */
static void test_removed_in_batch(void **state)
{
	struct probe a = {0}, b = {0}, end = {.ends = true};
	struct loop loop;

	(void)state;
	assert_int_equal(loop_init(&loop), 0);
	probe_add(&loop, &a);
	probe_add(&loop, &b);
	a.removes = &b;
	b.removes = &a;
	probe_signal(&a);
	probe_signal(&b);
	probe_add(&loop, &end);
	probe_signal(&end);
	loop_run(&loop);
	assert_int_equal(a.calls + b.calls, 1);
	assert_int_equal(end.calls, 1);
	loop_remove(&a.watch);
	loop_remove(&a.watch);
	loop_remove(&b.watch);
	loop_remove(&end.watch);
	close(a.watch.fd);
	close(b.watch.fd);
	close(end.watch.fd);
	loop_close(&loop);
}

/* A watch with no events rests; it is called when it is asked for again. */
static void test_paused(void **state)
{
	struct probe a = {.ends = true}, end = {.ends = true};
	struct loop loop;

	(void)state;
	assert_int_equal(loop_init(&loop), 0);
	probe_add(&loop, &a);
	probe_add(&loop, &end);
	assert_int_equal(loop_modify(&a.watch, 0), 0);
	probe_signal(&a);
	probe_signal(&end);
	loop_run(&loop);
	assert_int_equal(a.calls, 0);
	assert_int_equal(end.calls, 1);
	loop.stop = false;
	assert_int_equal(loop_modify(&a.watch, EPOLLIN), 0);
	loop_run(&loop);
	assert_int_equal(a.calls, 1);
	loop_remove(&a.watch);
	loop_remove(&end.watch);
	close(a.watch.fd);
	close(end.watch.fd);
	loop_close(&loop);
}

static void *stopper(void *arg)
{
	loop_stop(arg);
	return NULL;
}

static void test_stop_from_another_thread(void **state)
{
	struct loop loop;
	pthread_t thread;

	(void)state;
	assert_int_equal(loop_init(&loop), 0);
	assert_int_equal(pthread_create(&thread, NULL, stopper, &loop), 0);
	loop_run(&loop);
	pthread_join(thread, NULL);
	loop_close(&loop);
}

struct sum {
	struct loop *loop;
	unsigned value;
};

static void *adder(void *arg)
{
	struct sum *sum = arg;

	for (int i = 0; i < 10000; i++) {
		loop_lock(sum->loop);
		sum->value++;
		loop_unlock(sum->loop);
	}
	return NULL;
}

struct ticker {
	struct probe probe; /* first */
	struct sum *sum;
};

static void tick(struct watch *watch, uint32_t events)
{
	struct ticker *t = (struct ticker *)watch;

	(void)events;
	if (t->sum->value++ > 20000) {
		loop_stop(watch->loop);
	}
}

/* The lock that vCPUs take is the one watchers run under. */
static void test_lock(void **state)
{
	struct loop loop;
	struct sum sum = {.loop = &loop};
	struct ticker t = {.sum = &sum};
	pthread_t thread;

	(void)state;
	assert_int_equal(loop_init(&loop), 0);
	probe_add(&loop, &t.probe);
	t.probe.watch.ready = tick;
	probe_signal(&t.probe);
	assert_int_equal(pthread_create(&thread, NULL, adder, &sum), 0);
	loop_run(&loop);
	pthread_join(thread, NULL);
	assert_true(sum.value > 20000);
	loop_remove(&t.probe.watch);
	close(t.probe.watch.fd);
	loop_close(&loop);
}

/* What is called out of turn: how often, and after how many calls of the watcher. */
static struct {
	struct loop *loop;
	const struct probe *probe;
	unsigned firsts, quiets, probe_calls;
	bool ends;
} turn;

static void first(void *arg)
{
	assert_ptr_equal(arg, &turn);
	assert_int_not_equal(pthread_mutex_trylock(&turn.loop->lock), 0);
	turn.firsts++;
	turn.probe_calls = turn.probe != NULL ? turn.probe->calls : 0;
	if (turn.ends) {
		loop_stop(turn.loop);
	}
}

/* Of a batch that is there already: who is taken off is not called. */
static void first_removes(void *arg)
{
	struct probe *p = arg;

	loop_remove(&p->watch);
}

static void test_first_removes(void **state)
{
	struct probe a = {0}, end = {.ends = true};
	struct loop loop;

	(void)state;
	assert_int_equal(loop_init(&loop), 0);
	turn.loop = &loop;
	probe_add(&loop, &a);
	probe_add(&loop, &end);
	probe_signal(&a);
	probe_signal(&end);
	loop_first(&loop, first_removes, &a);
	loop_run(&loop);
	assert_int_equal(a.calls, 0);
	assert_int_equal(end.calls, 1);
	loop_remove(&end.watch);
	close(a.watch.fd);
	close(end.watch.fd);
	loop_close(&loop);
}

/* From within the loop: in its next turn, though nothing else happens. */
static void asks_first(struct watch *watch, uint32_t events)
{
	probe_ready(watch, events);
	assert_int_equal(turn.firsts, 0);
	loop_first(turn.loop, first, &turn);
	assert_int_equal(turn.firsts, 0);
}

static void test_first_from_within(void **state)
{
	struct probe a = {0};
	struct loop loop;

	(void)state;
	assert_int_equal(loop_init(&loop), 0);
	memset(&turn, 0, sizeof(turn));
	turn.loop = &loop;
	turn.probe = &a;
	turn.ends = true;
	probe_add(&loop, &a);
	a.watch.ready = asks_first;
	probe_signal(&a);
	loop_run(&loop);
	assert_int_equal(turn.firsts, 1);
	assert_int_equal(turn.probe_calls, 1);
	loop_remove(&a.watch);
	close(a.watch.fd);
	loop_close(&loop);
}

static void quiet(void)
{
	assert_int_equal(pthread_mutex_trylock(&turn.loop->lock), 0);
	pthread_mutex_unlock(&turn.loop->lock);
	assert_int_equal(turn.firsts, 1);
	turn.quiets++;
	loop_stop(turn.loop);
}

/* Before the first watcher, under the lock, once. */
static void test_first(void **state)
{
	struct probe a = {.ends = true};
	struct loop loop;

	(void)state;
	assert_int_equal(loop_init(&loop), 0);
	memset(&turn, 0, sizeof(turn));
	turn.loop = &loop;
	turn.probe = &a;
	probe_add(&loop, &a);
	probe_signal(&a);
	loop_first(&loop, first, &turn);
	loop_run(&loop);
	assert_int_equal(turn.firsts, 1);
	assert_int_equal(turn.probe_calls, 0);
	assert_int_equal(a.calls, 1);
	loop.stop = false;
	probe_signal(&a);
	loop_run(&loop);
	assert_int_equal(turn.firsts, 1);
	assert_int_equal(a.calls, 2);
	loop_remove(&a.watch);
	close(a.watch.fd);
	loop_close(&loop);
}

/* And if nothing comes; what waits for a quiet moment comes later, once, without the lock. */
static void test_first_and_quiet_without_events(void **state)
{
	struct loop loop;

	(void)state;
	assert_int_equal(loop_init(&loop), 0);
	memset(&turn, 0, sizeof(turn));
	turn.loop = &loop;
	turn.ends = true;
	loop_first(&loop, first, &turn);
	loop_when_quiet(&loop, quiet);
	loop_run(&loop);
	assert_int_equal(turn.firsts, 1);
	assert_int_equal(turn.quiets, 0);
	loop_close(&loop);
	assert_int_equal(loop_init(&loop), 0);
	loop_first(&loop, first, &turn);
	loop_when_quiet(&loop, quiet);
	turn.ends = false;
	turn.firsts = 0;
	loop_run(&loop);
	assert_int_equal(turn.firsts, 1);
	assert_int_equal(turn.quiets, 1);
	assert_null(loop.quiet);
	loop_close(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_removed_in_batch),
		cmocka_unit_test(test_paused),
		cmocka_unit_test(test_stop_from_another_thread),
		cmocka_unit_test(test_lock),
		cmocka_unit_test(test_first),
		cmocka_unit_test(test_first_removes),
		cmocka_unit_test(test_first_from_within),
		cmocka_unit_test(test_first_and_quiet_without_events),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
