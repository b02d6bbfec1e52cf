#include "cluster/due.h"

#include <stdlib.h>

#include "lib/mem.h"

static void due_place(struct due_heap *h, size_t place, struct due *d)
{
	h->items[place] = d;
	d->place = place;
}

static void due_rise(struct due_heap *h, struct due *d)
{
	size_t at = d->place;

	for (; at > 1 && h->items[at / 2]->at_ms > d->at_ms; at /= 2)
		due_place(h, at, h->items[at / 2]);
	due_place(h, at, d);
}

static void due_sink(struct due_heap *h, struct due *d)
{
	size_t at = d->place;

	for (;;) {
		size_t child = at * 2;

		if (child > h->count)
			break;
		if (child < h->count && h->items[child + 1]->at_ms < h->items[child]->at_ms)
			child++;
		if (h->items[child]->at_ms >= d->at_ms)
			break;
		due_place(h, at, h->items[child]);
		at = child;
	}
	due_place(h, at, d);
}

static void due_remove(struct due_heap *h, struct due *d)
{
	struct due *last = h->items[h->count--];
	size_t place = d->place;

	d->place = 0;
	if (last == d)
		return;
	due_place(h, place, last);
	due_rise(h, last);
	due_sink(h, last);
}

void due_set(struct due_heap *h, struct due *d, uint64_t at_ms)
{
	d->at_ms = at_ms;
	if (at_ms == UINT64_MAX) {
		if (d->place != 0)
			due_remove(h, d);
		return;
	}
	if (d->place == 0) {
		if (h->count + 1 >= h->room) {
			h->room = h->room ? h->room * 2 : 16;
			h->items = mem_realloc(h->items, h->room * sizeof(struct due *));
		}
		due_place(h, ++h->count, d);
	}
	due_rise(h, d);
	due_sink(h, d);
}

struct due *due_first(const struct due_heap *h)
{
	return h->count ? h->items[1] : NULL;
}

void due_heap_free(struct due_heap *h)
{
	free(h->items);
	*h = (struct due_heap){0};
}
