#include "witnessd/lobby.h"

void lobby_init(struct lobby *l, uint64_t seed)
{
	*l = (struct lobby){.jitter = {seed}};
	list_init(&l->guests);
}

void lobby_enter(struct lobby *l, struct lobby_guest *guest, uint64_t now_ms)
{
	guest->until_ms = now_ms + LOBBY_PATIENCE_MS;
	guest->surplus = false;
	list_append(&l->guests, &guest->link);
	l->count++;
}

static void lobby_take(struct lobby *l, struct lobby_guest *guest)
{
	list_remove(&guest->link);
	l->count--;
}

struct lobby_guest *lobby_next(struct lobby *l)
{
	struct lobby_guest *first;

	if (list_empty(&l->guests))
		return NULL;
	first = list_entry(l->guests.next, struct lobby_guest, link);
	lobby_take(l, first);
	l->admitted++;
	return first;
}

/* An empty lobby says that the door keeps up, not how fast it could be. */
static void lobby_measure(struct lobby *l)
{
	uint64_t now_x256 = (uint64_t)l->admitted << 8;

	l->pace_x256 = l->ticks == 0 ? now_x256 : (7 * l->pace_x256 + now_x256) / 8;
	l->ticks = l->count != 0 ? l->ticks + 1 : 0;
	l->admitted = 0;
}

void lobby_tick(struct lobby *l, uint64_t now_ms, struct list *ret_leaving)
{
	uint64_t ahead = 0;

	lobby_measure(l);
	list_for_each_safe (at, &l->guests) {
		struct lobby_guest *guest = list_entry(at, struct lobby_guest, link);
		uint64_t left = guest->until_ms > now_ms ? guest->until_ms - now_ms : 0;

		if (left == 0) {
			lobby_take(l, guest);
			list_append(ret_leaving, &guest->link);
			continue;
		}
		if (!guest->surplus && l->ticks >= LOBBY_MEASURE_TICKS &&
		    (ahead << 8) > l->pace_x256 * (left / LOBBY_TICK_MS)) {
			guest->surplus = true;
			guest->until_ms = now_ms + 1 + prng_below(&l->jitter, left);
		}
		ahead += !guest->surplus;
	}
}
