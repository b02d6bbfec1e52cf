/* pool.h: memory for many items of one size, in slabs: what lives long is not scattered among what
 * comes and goes, and an empty slab is given back whole. One thread.
 *
 * With the address sanitizer every item is an allocation of its own, so that it sees what is used
 * after its end. */
#pragma once
#include <stddef.h>

#include "lib/list.h"

struct pool {
	size_t item_size; /* with its head */
	unsigned per_slab;
	struct list open; /* slabs with a free item */
	struct list full;
	size_t count; /* items in use */
	size_t slabs;
};

enum { POOL_SLAB = 32768, POOL_ITEM_MAX = 4096 };

/* `item_size` is at most POOL_ITEM_MAX. */
void pool_init(struct pool *p, size_t item_size);
/* All items were put back. */
void pool_free(struct pool *p);
/* Zeroed; never NULL. */
void *pool_get(struct pool *p);
/* NULL allowed. */
void pool_put(struct pool *p, void *item);
