#include "witnessd/deadlines.h"

static uint64_t slot_of(uint64_t at_ms)
{
	return at_ms / DEADLINE_SLOT_MS + 1; /* the slot whose passing proves that at_ms is over */
}

void deadlines_init(struct deadlines *d, uint64_t now_ms)
{
	for (unsigned i = 0; i < DEADLINE_SLOTS; i++)
		list_init(&d->slots[i]);
	d->next = slot_of(now_ms);
}

void deadlines_remove(struct deadline *item)
{
	if (item->slot != 0)
		list_remove(&item->link);
	item->slot = 0;
}

void deadlines_set(struct deadlines *d, struct deadline *item, uint64_t at_ms)
{
	uint64_t slot = slot_of(at_ms);

	if (slot < d->next)
		slot = d->next;
	if (slot > d->next + DEADLINE_SLOTS - 2)
		slot = d->next + DEADLINE_SLOTS - 2;
	if (item->slot != 0 && item->slot <= slot)
		return;
	deadlines_remove(item);
	item->slot = slot;
	list_append(&d->slots[slot % DEADLINE_SLOTS], &item->link);
}

static void slot_pass(struct deadlines *d, struct list *slot,
		      uint64_t (*look)(struct deadline *item, void *arg), void *arg)
{
	/* One at a time: `look` may remove others, also of this slot. None comes back into it,
	 * since d->next is beyond it already. */
	while (!list_empty(slot)) {
		struct deadline *item = list_entry(slot->next, struct deadline, link);
		uint64_t at_ms;

		deadlines_remove(item);
		at_ms = look(item, arg);
		if (at_ms != 0)
			deadlines_set(d, item, at_ms);
	}
}

void deadlines_pass(struct deadlines *d, uint64_t now_ms,
		    uint64_t (*look)(struct deadline *item, void *arg), void *arg)
{
	uint64_t now_slot = now_ms / DEADLINE_SLOT_MS;

	/* After a long sleep every slot is passed once, not once per time round. */
	if (now_slot > d->next + DEADLINE_SLOTS)
		d->next = now_slot - DEADLINE_SLOTS;
	while (d->next <= now_slot) {
		struct list *slot = &d->slots[d->next % DEADLINE_SLOTS];

		d->next++;
		slot_pass(d, slot, look, arg);
	}
}
