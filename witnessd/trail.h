/* trail.h: has the model changed in a way that concerns open sessions? Its audit trail says so:
 * reading the few new lines of it is cheap, looking up every session after every grant would not
 * be. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct store;

/* Zero-initialised: nothing was read yet. */
struct trail {
	uint64_t seen_seq; /* newest event that was looked at */
};

/* Reads on. 1: there are events of types (NULL-terminated) that concern, or the trail was not read
 * before, has moved on past us or begins anew (a restored model); 0: there are none; negative
 * errno: it cannot be read, and is read from the same place next time. */
int trail_read(struct trail *t, struct store *model, const char *const *types);
