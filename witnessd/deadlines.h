/* deadlines.h: many deadlines that are almost always moved before they come: a wheel of slots, each
 * item in the slot of a deadline that it had once. Moving one forward costs nothing; when the
 * slot comes, the item says its real deadline and goes to that one's slot. So an item is touched
 * about once per deadline, however often it is moved. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/list.h"

enum { DEADLINE_SLOT_MS = 100, DEADLINE_SLOTS = 4096 };

struct deadline {
	struct list link;
	uint64_t slot; /* number since boot; 0: in no wheel */
};

struct deadlines {
	struct list slots[DEADLINE_SLOTS];
	uint64_t next; /* the next slot to come */
};

void deadlines_init(struct deadlines *d, uint64_t now_ms);
/* To be called when a deadline was set or came nearer; needless, but harmless, when it moved away.
 * Deadlines beyond the wheel (409 s) are looked at once in between. */
void deadlines_set(struct deadlines *d, struct deadline *item, uint64_t at_ms);
void deadlines_remove(struct deadline *item);
/* For each item whose slot has wholly passed (so never early, up to one slot late): out of the
 * wheel, then `look`. It returns the item's deadline if that is still to come, or 0 if it has dealt
 * with the item, which may be gone then. It may remove other items. */
void deadlines_pass(struct deadlines *d, uint64_t now_ms,
		    uint64_t (*look)(struct deadline *item, void *arg), void *arg);
