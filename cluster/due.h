/* due.h: a heap of things that are due at some time. The owner embeds `struct due`; zero means
 * "not in a heap". The heap owns only its array. All in O(log n). */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct due {
	uint64_t at_ms;
	size_t place; /* 1..count while in the heap, 0 outside */
};

struct due_heap {
	struct due **items; /* items[0] is not used */
	size_t count;
	size_t room;
};

/* Puts it in or moves it; UINT64_MAX takes it out. */
void due_set(struct due_heap *h, struct due *d, uint64_t at_ms);
/* The earliest, or NULL. */
struct due *due_first(const struct due_heap *h);
void due_heap_free(struct due_heap *h);
