/* door_events.h: what a site door has to say to the arbiter and has not said yet, in order; and the
 * end of orders that came back. One thread. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "proto/door.pb-c.h"

struct door_events {
	Tb__DoorEvent **items; /* owned */
	size_t count;
	size_t cap;
};

/* A new event at the end, without content yet; it belongs to the queue. */
Tb__DoorEvent *door_events_add(struct door_events *q, uint64_t session,
			       Tb__DoorEvent__WhatCase what);
/* The door has measured this round trip; 0: it is no longer near what it must fit in. */
void door_events_rtt(struct door_events *q, uint64_t session, uint32_t rtt_ms);
/* All of them (*ret_count may be 0), the caller's; the queue is empty then. */
Tb__DoorEvent **door_events_take(struct door_events *q, size_t *ret_count);
void door_events_free(struct door_events *q);

/* Frees orders and their array. */
void door_orders_free(Tb__DoorOrder **orders, size_t count);
