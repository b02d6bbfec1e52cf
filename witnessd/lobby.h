/* lobby.h: site nodes that are connected and wait to be let in, in order of arrival.
 *
 * All corosync-qdevice clients of a fleet come back in the same milliseconds (they sleep the same
 * "random" time), far more than a board can give a TLS handshake before they lose patience. So a
 * connection waits here as a bare socket, and as many are let in as the door can finish. One that
 * will not have its turn in time is sent away at a random moment of the time that it has: it comes
 * back by its own delay, and the crowd that comes back is no longer one.
 *
 * Pure: no socket, no clock. The owner embeds the guests. One thread. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "lib/list.h"
#include "lib/rng.h"

enum {
	LOBBY_TICK_MS = 100,
	/* corosync-qdevice gives a connect up after 8 s; the handshake needs some of them. */
	LOBBY_PATIENCE_MS = 6000,
	LOBBY_MEASURE_TICKS = 5, /* before the pace is believed */
};

struct lobby_guest {
	struct list link;
	uint64_t until_ms; /* sent away then */
	bool surplus; /* its time was cut: it would not have had its turn */
};

struct lobby {
	struct list guests;
	unsigned count;
	unsigned admitted; /* in this tick */
	unsigned ticks; /* in a row in which somebody always waited */
	uint64_t pace_x256; /* let in per tick, averaged */
	struct prng jitter;
};

void lobby_init(struct lobby *l, uint64_t seed);
void lobby_enter(struct lobby *l, struct lobby_guest *guest, uint64_t now_ms);
/* The first in line, out of the lobby, or NULL. */
struct lobby_guest *lobby_next(struct lobby *l);
/* Every LOBBY_TICK_MS: measures the pace and finds who will not have a turn. Moves those whose time
 * is over to `ret_leaving` (an empty list). */
void lobby_tick(struct lobby *l, uint64_t now_ms, struct list *ret_leaving);
