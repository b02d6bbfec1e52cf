/* segment.h: reads a segment file of the raft library, and tells a torn end from damage. Pure.
 *
 *   file   u64 format 1, then batches; an open segment is allocated in full, zeros behind
 *   batch  u32 CRC of the head, u32 CRC of the data
 *          head: u64 count, then per entry u64 term, u8 type, 3 unused, u32 size
 *          data: the entries, each a multiple of 8 bytes
 *
 * The library takes everything behind a bad checksum in an open segment for a torn write and
 * drops it, entries that were acknowledged included. Here the rule is: a write is one batch, one
 * at a time (membrane.c), and a sector of 512 bytes is written as a whole or not at all. So a torn
 * batch is the last one, and it lacks a whole sector: that one still reads as zeros. Anything else
 * is damage. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* An entry of type SEGMENT_COMMAND is one of ours: this head, `length` bytes, zeros up to a
 * multiple of 8. The index makes a log whose entries have moved recognisable. Length 0: nothing
 * to apply. All little endian. */
struct entry_head {
	uint32_t magic;
	uint32_t length;
	uint64_t index;
};
#define ENTRY_MAGIC 0x31454254U /* "TBE1" */

/* What an open segment is allocated to. Only a batch that is larger makes it grow. */
enum { SEGMENT_SIZE = 8 << 20 };

enum { SEGMENT_COMMAND = 1, SEGMENT_BARRIER = 2, SEGMENT_CHANGE = 3 };

enum segment_end {
	SEGMENT_CLEAN, /* nothing but zeros behind the last batch */
	SEGMENT_TORN, /* a write that never ended */
	SEGMENT_DAMAGED,
};

struct segment {
	uint64_t entries; /* in sound batches */
	size_t used; /* bytes up to the end of the last sound batch; 0: none */
	enum segment_end end;
	const char *fault; /* what is wrong at `used`, NULL unless damaged; static */
	uint8_t first_type; /* of the first entry; 0: none */
	uint64_t last_term;
	uint64_t wanted_term; /* of the entry that was asked for; 0: not here */
};

/* `first`: index of the first entry; `wanted`: an index whose term to note, 0 for none. */
void segment_scan(const uint8_t *data, size_t len, uint64_t first, uint64_t wanted,
		  struct segment *ret);

/* The index of the first entry, as the first of our own entries in it tells. 0: there is none. */
uint64_t segment_first(const uint8_t *data, size_t len);
