#include "witnessd/door_joint.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/list.h"
#include "lib/mem.h"

enum { BATCH = 256 };

struct batch {
	struct list link;
	bool report;
	uint32_t open;
	Tb__DoorEvent **events;
	size_t count;
};

struct joint {
	pthread_mutex_t lock;
	void (*deliver)(void *arg, Tb__DoorEvent **events, size_t count);
	void *arg;
	unsigned loops;
	struct list waiting[]; /* of each loop: empty, or its first batch is a report */
};

struct joint *joint_new(unsigned loops,
			void (*deliver)(void *arg, Tb__DoorEvent **events, size_t count), void *arg)
{
	struct joint *j = mem_zalloc(sizeof(*j) + loops * sizeof(j->waiting[0]));

	pthread_mutex_init(&j->lock, NULL);
	j->deliver = deliver;
	j->arg = arg;
	j->loops = loops;
	for (unsigned i = 0; i < loops; i++)
		list_init(&j->waiting[i]);
	return j;
}

static struct batch *batch_first(struct list *waiting)
{
	return list_entry(waiting->next, struct batch, link);
}

static void batch_drop(struct batch *b)
{
	for (size_t i = 0; i < b->count; i++)
		tb__door_event__free_unpacked(b->events[i], NULL);
	free(b->events);
	free(b);
}

void joint_free(struct joint *j)
{
	if (j == NULL)
		return;
	for (unsigned i = 0; i < j->loops; i++) {
		while (!list_empty(&j->waiting[i])) {
			struct batch *b = batch_first(&j->waiting[i]);

			list_remove(&b->link);
			batch_drop(b);
		}
	}
	pthread_mutex_destroy(&j->lock);
	free(j);
}

/* In pieces, so that the core's loop gets to its other work in between. */
static void batch_deliver(struct joint *j, struct batch *b)
{
	if (b->count <= BATCH) {
		if (b->count != 0)
			j->deliver(j->arg, b->events, b->count);
		else
			free(b->events);
		free(b);
		return;
	}
	for (size_t at = 0; at < b->count; at += BATCH) {
		size_t count = b->count - at < BATCH ? b->count - at : BATCH;

		j->deliver(j->arg, mem_dup(b->events + at, count * sizeof(*b->events)), count);
	}
	free(b->events);
	free(b);
}

static void reset_deliver(struct joint *j, uint32_t open)
{
	Tb__DoorEvent **events = mem_alloc(sizeof(*events));
	Tb__DoorEvent *event = mem_alloc(sizeof(*event));

	tb__door_event__init(event);
	event->what_case = TB__DOOR_EVENT__WHAT_RESET;
	event->reset = mem_alloc(sizeof(*event->reset));
	tb__door_reset__init(event->reset);
	event->reset->sessions = open;
	events[0] = event;
	j->deliver(j->arg, events, 1);
}

static void batch_take_and_deliver(struct joint *j, struct list *waiting)
{
	struct batch *b = batch_first(waiting);

	list_remove(&b->link);
	batch_deliver(j, b);
}

/* A report that every loop has given its part of goes out, and what waited behind it. */
static void reports_deliver(struct joint *j)
{
	for (;;) {
		uint32_t open = 0;

		for (unsigned i = 0; i < j->loops; i++) {
			if (list_empty(&j->waiting[i]))
				return;
			open += batch_first(&j->waiting[i])->open;
		}
		reset_deliver(j, open);
		for (unsigned i = 0; i < j->loops; i++)
			batch_take_and_deliver(j, &j->waiting[i]);
		for (unsigned i = 0; i < j->loops; i++)
			while (!list_empty(&j->waiting[i]) && !batch_first(&j->waiting[i])->report)
				batch_take_and_deliver(j, &j->waiting[i]);
	}
}

static void batch_put(struct joint *j, unsigned loop, const struct batch *what)
{
	struct batch *b = mem_dup(what, sizeof(*what));

	pthread_mutex_lock(&j->lock);
	if (!b->report && list_empty(&j->waiting[loop])) {
		batch_deliver(j, b);
	} else {
		list_append(&j->waiting[loop], &b->link);
		reports_deliver(j);
	}
	pthread_mutex_unlock(&j->lock);
}

void joint_events(struct joint *j, unsigned loop, Tb__DoorEvent **events, size_t count)
{
	batch_put(j, loop, &(struct batch){.events = events, .count = count});
}

void joint_report(struct joint *j, unsigned loop, uint32_t open, Tb__DoorEvent **events,
		  size_t count)
{
	batch_put(j, loop,
		  &(struct batch){.report = true, .open = open, .events = events, .count = count});
}
