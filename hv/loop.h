/* loop.h: the event loop of a VM process: epoll, one thread, one lock.
 *
 * The lock is the device lock: the loop holds it while it calls watchers, vCPU threads take it for
 * a trapped register access. A device's code therefore never runs twice at once and needs no lock
 * of its own. libuv would bring a thread pool, signal pipes and timers that this process has no use
 * for (docs/decisions/0006-hv.md). */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { LOOP_FIRST_MS = 1, LOOP_QUIET_MS = 20 };

struct loop;

/* Embedded by its owner. Zeroed means not watched. */
struct watch {
	int fd;
	/* `events` as epoll(7). Called with the lock held. The owner may remove any watch here. */
	void (*ready)(struct watch *watch, uint32_t events);
	struct loop *loop; /* NULL while not watched */
};

struct loop {
	int epoll;
	int wake; /* eventfd */
	pthread_mutex_t lock;
	bool stop; /* atomic: loop_stop comes from any thread */
	void (*first)(void *arg); /* not called yet; NULL: none, or done */
	void *first_arg;
	void (*quiet)(void); /* likewise */
	struct watch **pending; /* of the batch being dispatched */
	int pending_count;
};

/* 0 or negative errno. Needs epoll and eventfd: before the sandbox. */
int loop_init(struct loop *loop);
void loop_close(struct loop *loop);
/* Level-triggered unless `events` says EPOLLET. Under the lock or before the loop runs. The
 * descriptor stays the caller's. */
int loop_add(struct loop *loop, struct watch *watch, int fd, uint32_t events);
/* Changes what is waited for; 0 pauses the watch. */
int loop_modify(struct watch *watch, uint32_t events);
/* Harmless on a watch that is not watched. Not called again after this, also in the same batch. */
void loop_remove(struct watch *watch);
/* `first` is called once, with the lock: before the watchers of the next batch, and at the latest
 * LOOP_FIRST_MS after the loop began to wait for it. On the loop's thread, with the lock, or before
 * the loop runs; one at a time. */
void loop_first(struct loop *loop, void (*first)(void *arg), void *arg);
/* `quiet` is called once, without the lock, when nothing has happened for LOOP_QUIET_MS: for what
 * can wait until a start is over. Before the loop runs. */
void loop_when_quiet(struct loop *loop, void (*quiet)(void));
/* Runs until loop_stop. */
void loop_run(struct loop *loop);
/* From any thread, lock not needed. */
void loop_stop(struct loop *loop);
void loop_lock(struct loop *loop);
void loop_unlock(struct loop *loop);
