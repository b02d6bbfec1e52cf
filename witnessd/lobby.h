/* lobby.h: site nodes that are connected and wait to be let in, by turns of their addresses and in
 * order of arrival for each.
 *
 * All corosync-qdevice clients of a fleet come back in the same milliseconds (they sleep the same
 * "random" time), far more than a board can give a TLS handshake before they lose patience. So a
 * connection waits here as a bare socket, and as many are let in as the door can finish. One that
 * will not have its turn in time is sent away at a random moment of the time that it has: it comes
 * back by its own delay, and the crowd that comes back is no longer one.
 *
 * One address (of IPv6 a /64) can fill the lobby with connections that never say a word, and those
 * that were let in count as on their way for seconds. So it has no more turns than another, and a
 * quarter of the window is always for others.
 *
 * Pure: no socket, no clock. The owner embeds the guests. One thread. Each step is O(1), a tick
 * O(guests). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "lib/hash.h"
#include "lib/ip.h"
#include "lib/list.h"
#include "lib/pool.h"
#include "lib/rng.h"

enum {
	LOBBY_TICK_MS = 100,
	/* corosync-qdevice gives a connect up after 8 s; the handshake needs some of them. */
	LOBBY_PATIENCE_MS = 6000,
	LOBBY_MEASURE_TICKS = 5, /* before the pace is believed */
};

struct lobby_origin; /* an address with guests, or with some on their way */

struct lobby_guest {
	struct list link;
	struct lobby_origin *origin;
	uint64_t until_ms; /* sent away then */
	bool surplus; /* its time was cut: it would not have had its turn */
};

struct lobby {
	struct hash origins;
	struct pool origin_pool;
	struct list turns; /* origins with guests, who is next first */
	struct list full; /* origins with guests that must wait for their own on the way */
	unsigned on_way_max; /* of an origin */
	unsigned count;
	unsigned admitted; /* in this tick */
	unsigned ticks; /* in a row in which somebody always waited */
	uint64_t pace_x256; /* let in per tick, averaged */
	struct prng jitter;
};

/* `window`: as many are on their way at once at most, which is the owner's to see to. */
void lobby_init(struct lobby *l, uint64_t seed, unsigned window);
/* Nobody waits or is on its way. */
void lobby_free(struct lobby *l);
/* `address` as ip_origin gives it. */
void lobby_enter(struct lobby *l, struct lobby_guest *guest, const struct ip *address,
		 uint64_t now_ms);
/* Whose turn it is, out of the lobby and on its way until lobby_arrived; NULL: nobody's. */
struct lobby_guest *lobby_next(struct lobby *l);
/* One of this origin is not on its way any more, attached or not. */
void lobby_arrived(struct lobby *l, struct lobby_origin *origin);
/* Every LOBBY_TICK_MS: measures the pace and finds who will not have a turn. Moves those whose time
 * is over to `ret_leaving` (an empty list). */
void lobby_tick(struct lobby *l, uint64_t now_ms, struct list *ret_leaving);
/* Moves all guests there. */
void lobby_clear(struct lobby *l, struct list *ret_leaving);
