/* roll.h: who is connected to the cluster by which service address, and where: the ends of the
 * sessions of every board, as it has told. Soft state that every board keeps of all, so that the
 * heir of an address can reset the connections of a board that died. Pure.
 *
 * It may be behind by what was on its way when the board died: a session that is missing is one
 * whose client finds out by itself, one too many gets a packet that it answers with a reset. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/hash.h"
#include "lib/ip.h"

enum {
	ROLL_MAX = 50000, /* entries of all boards; more are not remembered */
	ROLL_BYTES_MAX = 36, /* of an entry between boards */
};

struct roll_ends {
	struct ip local, remote; /* of the same family */
	uint16_t local_port, remote_port;
};

struct roll {
	struct hash entries; /* by board and ends */
	uint64_t left_out; /* since the start: there was no room for */
};

void roll_free(struct roll *r);
/* Once; of more than ROLL_MAX it is counted as left out. */
void roll_add(struct roll *r, uint64_t node, const struct roll_ends *ends);
void roll_remove(struct roll *r, uint64_t node, const struct roll_ends *ends);
/* All of a board. */
void roll_forget(struct roll *r, uint64_t node);
/* Takes out those at the address that are of any board but `except`, at most `max`. Returns how
 * many. */
size_t roll_take(struct roll *r, const struct ip *local, uint64_t except, struct roll_ends *ret,
		 size_t max);
/* Every entry of a board. */
void roll_each(struct roll *r, uint64_t node,
	       void (*visit)(void *arg, const struct roll_ends *ends), void *arg);

/* As between boards; the length, 12 or 36. */
size_t roll_pack(const struct roll_ends *ends, uint8_t bytes[ROLL_BYTES_MAX]);
/* -EINVAL: of another length, or of port 0. */
int roll_unpack(const uint8_t *bytes, size_t len, struct roll_ends *ret);
