#include "lib/pool.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

#if defined(__SANITIZE_ADDRESS__)
#define POOL_PER_SLAB 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_PER_SLAB 1
#endif
#endif

struct head {
	_Alignas(max_align_t) struct slab *slab;
	struct head *next; /* while free */
};

struct slab {
	struct list link; /* in pool->open or ->full */
	struct head *free; /* put back */
	unsigned used;
	unsigned fresh; /* how many were ever given out: the rest was never touched */
	_Alignas(max_align_t) uint8_t items[];
};

void pool_init(struct pool *p, size_t item_size)
{
	size_t size = sizeof(struct head) + item_size;

	assert(item_size <= POOL_ITEM_MAX);
	size = (size + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
	*p = (struct pool){.item_size = size};
#ifdef POOL_PER_SLAB
	p->per_slab = POOL_PER_SLAB;
#else
	p->per_slab = (unsigned)((POOL_SLAB - sizeof(struct slab)) / size);
#endif
	list_init(&p->open);
	list_init(&p->full);
}

static struct slab *slab_new(struct pool *p)
{
	struct slab *s = mem_alloc(sizeof(*s) + p->per_slab * p->item_size);

	*s = (struct slab){0};
	list_append(&p->open, &s->link);
	p->slabs++;
	return s;
}

static void slab_drop(struct pool *p, struct slab *s)
{
	list_remove(&s->link);
	p->slabs--;
	free(s);
}

static struct slab *slab_first(const struct pool *p)
{
	return list_entry(p->open.next, struct slab, link);
}

void pool_free(struct pool *p)
{
	assert(p->count == 0);
	while (!list_empty(&p->open))
		slab_drop(p, slab_first(p));
}

void *pool_get(struct pool *p)
{
	struct slab *s = list_empty(&p->open) ? slab_new(p) : slab_first(p);
	struct head *h = s->free;

	if (h != NULL)
		s->free = h->next;
	else
		h = (struct head *)(void *)(s->items + p->item_size * s->fresh++);
	memset(h, 0, p->item_size);
	h->slab = s;
	p->count++;
	if (++s->used == p->per_slab) {
		list_remove(&s->link);
		list_append(&p->full, &s->link);
	}
	return h + 1;
}

void pool_put(struct pool *p, void *item)
{
	struct head *h;
	struct slab *s;

	if (item == NULL)
		return;
	h = (struct head *)item - 1;
	s = h->slab;
	if (s->used == p->per_slab) {
		list_remove(&s->link);
		list_append(&p->open, &s->link);
	}
	h->next = s->free;
	s->free = h;
	s->used--;
	p->count--;
	if (s->used == 0)
		slab_drop(p, s);
}
