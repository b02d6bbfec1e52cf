#include "witnessd/lobby.h"

#include <assert.h>

/*   no guests <--> in lobby->turns <--on_way_max are on their way--> in lobby->full
 *       |
 *     freed when none is on its way either */
struct lobby_origin {
	struct hash_node node;
	struct ip address;
	struct list guests; /* in order of arrival */
	struct list turn; /* in lobby->turns or ->full */
	struct list walk; /* of lobby_tick, */
	struct list *next; /* where it is among the guests */
	unsigned on_way;
};

void lobby_init(struct lobby *l, uint64_t seed, unsigned window)
{
	*l = (struct lobby){.on_way_max = window - window / 4, .jitter = {seed}};
	pool_init(&l->origin_pool, sizeof(struct lobby_origin));
	list_init(&l->turns);
	list_init(&l->full);
}

void lobby_free(struct lobby *l)
{
	assert(l->origins.count == 0);
	hash_free(&l->origins);
	pool_free(&l->origin_pool);
}

static int origin_match(const struct hash_node *node, const void *key)
{
	return ip_equal(&list_entry(node, struct lobby_origin, node)->address, key);
}

static struct lobby_origin *origin_get(struct lobby *l, const struct ip *address)
{
	uint64_t hash = hash_bytes(address, sizeof(*address));
	struct hash_node *found = hash_find(&l->origins, hash, origin_match, address);
	struct lobby_origin *o;

	if (found != NULL)
		return list_entry(found, struct lobby_origin, node);
	o = pool_get(&l->origin_pool);
	o->address = *address;
	list_init(&o->guests);
	list_init(&o->turn);
	hash_insert(&l->origins, &o->node, hash);
	return o;
}

/* After a change: behind the others, or where it waits for its own, or away. */
static void origin_settle(struct lobby *l, struct lobby_origin *o)
{
	list_remove(&o->turn);
	if (!list_empty(&o->guests)) {
		list_append(o->on_way < l->on_way_max ? &l->turns : &l->full, &o->turn);
	} else if (o->on_way == 0) {
		hash_remove(&l->origins, &o->node);
		pool_put(&l->origin_pool, o);
	}
}

void lobby_enter(struct lobby *l, struct lobby_guest *guest, const struct ip *address,
		 uint64_t now_ms)
{
	struct lobby_origin *o = origin_get(l, address);
	bool first = list_empty(&o->guests);

	guest->origin = o;
	guest->until_ms = now_ms + LOBBY_PATIENCE_MS;
	guest->surplus = false;
	list_append(&o->guests, &guest->link);
	l->count++;
	if (first)
		origin_settle(l, o);
}

static void guest_take(struct lobby *l, struct lobby_guest *guest)
{
	list_remove(&guest->link);
	l->count--;
}

/* Not by its turn. */
static void guest_leave(struct lobby *l, struct lobby_guest *guest, struct list *ret_leaving)
{
	guest_take(l, guest);
	list_append(ret_leaving, &guest->link);
	if (list_empty(&guest->origin->guests))
		origin_settle(l, guest->origin);
}

struct lobby_guest *lobby_next(struct lobby *l)
{
	struct lobby_origin *o;
	struct lobby_guest *guest;

	if (list_empty(&l->turns))
		return NULL;
	o = list_entry(l->turns.next, struct lobby_origin, turn);
	guest = list_entry(o->guests.next, struct lobby_guest, link);
	guest_take(l, guest);
	o->on_way++;
	origin_settle(l, o);
	l->admitted++;
	return guest;
}

void lobby_arrived(struct lobby *l, struct lobby_origin *o)
{
	/* One that may have turns already keeps its place in the line. */
	if (o->on_way-- == l->on_way_max || list_empty(&o->guests))
		origin_settle(l, o);
}

/* An empty lobby says that the door keeps up, not how fast it could be. */
static void lobby_measure(struct lobby *l)
{
	uint64_t now_x256 = (uint64_t)l->admitted << 8;

	l->pace_x256 = l->ticks == 0 ? now_x256 : (7 * l->pace_x256 + now_x256) / 8;
	l->ticks = l->count != 0 ? l->ticks + 1 : 0;
	l->admitted = 0;
}

/* True if it will have its turn with `ahead` others before it. */
static bool guest_look(struct lobby *l, struct lobby_guest *guest, uint64_t now_ms, uint64_t ahead,
		       struct list *ret_leaving)
{
	uint64_t left = guest->until_ms > now_ms ? guest->until_ms - now_ms : 0;

	if (left == 0) {
		guest_leave(l, guest, ret_leaving);
		return false;
	}
	if (!guest->surplus && l->ticks >= LOBBY_MEASURE_TICKS &&
	    (ahead << 8) > l->pace_x256 * (left / LOBBY_TICK_MS)) {
		guest->surplus = true;
		guest->until_ms = now_ms + 1 + prng_below(&l->jitter, left);
	}
	return !guest->surplus;
}

static void walk_begin(struct list *walk, struct list *origins)
{
	list_for_each (at, origins) {
		struct lobby_origin *o = list_entry(at, struct lobby_origin, turn);

		o->next = o->guests.next;
		list_append(walk, &o->walk);
	}
}

/* The next guest of the origin; it has gone from the walk, and maybe at all, after its last. */
static struct lobby_guest *walk_step(struct lobby_origin *o)
{
	struct lobby_guest *guest = list_entry(o->next, struct lobby_guest, link);

	o->next = o->next->next;
	if (o->next == &o->guests)
		list_remove(&o->walk);
	return guest;
}

/* In the order in which they will have their turns. */
void lobby_tick(struct lobby *l, uint64_t now_ms, struct list *ret_leaving)
{
	uint64_t ahead = 0;
	struct list walk;

	lobby_measure(l);
	list_init(&walk);
	walk_begin(&walk, &l->turns);
	walk_begin(&walk, &l->full);
	while (!list_empty(&walk)) {
		list_for_each_safe (at, &walk) {
			struct lobby_origin *o = list_entry(at, struct lobby_origin, walk);

			ahead += guest_look(l, walk_step(o), now_ms, ahead, ret_leaving);
		}
	}
}

void lobby_clear(struct lobby *l, struct list *ret_leaving)
{
	lobby_tick(l, UINT64_MAX, ret_leaving);
}
