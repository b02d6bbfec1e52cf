#include "witnessd/door_events.h"

#include <stdlib.h>

#include "lib/mem.h"

Tb__DoorEvent *door_events_add(struct door_events *q, uint64_t session,
			       Tb__DoorEvent__WhatCase what)
{
	Tb__DoorEvent *event = mem_alloc(sizeof(*event));

	tb__door_event__init(event);
	event->session = session;
	event->what_case = what;
	if (q->count == q->cap) {
		q->cap = q->cap != 0 ? 2 * q->cap : 4;
		q->items = mem_realloc(q->items, q->cap * sizeof(Tb__DoorEvent *));
	}
	q->items[q->count++] = event;
	return event;
}

void door_events_rtt(struct door_events *q, uint64_t session, uint32_t rtt_ms)
{
	Tb__DoorRtt *rtt = mem_alloc(sizeof(*rtt));

	tb__door_rtt__init(rtt);
	rtt->rtt_ms = rtt_ms;
	door_events_add(q, session, TB__DOOR_EVENT__WHAT_RTT)->rtt = rtt;
}

Tb__DoorEvent **door_events_take(struct door_events *q, size_t *ret_count)
{
	Tb__DoorEvent **items = q->items;

	*ret_count = q->count;
	*q = (struct door_events){0};
	return items;
}

void door_events_free(struct door_events *q)
{
	for (size_t i = 0; i < q->count; i++)
		tb__door_event__free_unpacked(q->items[i], NULL);
	free(q->items);
	*q = (struct door_events){0};
}

void door_orders_free(Tb__DoorOrder **orders, size_t count)
{
	for (size_t i = 0; i < count; i++)
		tb__door_order__free_unpacked(orders[i], NULL);
	free(orders);
}
