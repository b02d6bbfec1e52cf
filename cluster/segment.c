#include "cluster/segment.h"

#include <endian.h>
#include <stdbool.h>
#include <string.h>

#include "lib/crc.h"

enum { SECTOR = 512, FORMAT_SIZE = 8, BATCH_HEAD = 16, ENTRY_HEAD = 16, ENTRIES_MAX = 1 << 18 };

struct batch {
	uint64_t count;
	const uint8_t *heads;
	const uint8_t *data;
	size_t head_end; /* offsets in the file */
	size_t end;
	bool head_sound; /* head_end and end are to be believed */
};

static uint32_t get_u32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

static uint64_t get_u64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}

static bool all_zero(const uint8_t *data, size_t from, size_t to)
{
	for (; from < to && from % 8 != 0; from++)
		if (data[from] != 0)
			return false;
	for (; from + 8 <= to; from += 8)
		if (get_u64(data + from) != 0)
			return false;
	for (; from < to; from++)
		if (data[from] != 0)
			return false;
	return true;
}

static bool entry_plausible(const uint8_t *head)
{
	return head[8] >= SEGMENT_COMMAND && head[8] <= SEGMENT_CHANGE &&
	       get_u32(head + 12) % 8 == 0;
}

/* True if the batch at `at` is whole and sound. Else as much of *b as can be known. */
static bool batch_read(const uint8_t *data, size_t len, size_t at, struct batch *b)
{
	size_t size = 0;

	*b = (struct batch){.head_end = at + BATCH_HEAD};
	if (len - at < BATCH_HEAD)
		return false;
	b->count = get_u64(data + at + 8);
	if (b->count == 0 || b->count > ENTRIES_MAX)
		return false;
	b->heads = data + at + BATCH_HEAD;
	b->head_end = at + BATCH_HEAD + (size_t)b->count * ENTRY_HEAD;
	if (b->head_end > len)
		return false;
	for (uint64_t i = 0; i < b->count; i++) {
		const uint8_t *head = b->heads + i * ENTRY_HEAD;

		if (!entry_plausible(head))
			return false;
		size += get_u32(head + 12);
	}
	if (crc_add(0, data + at + 8, b->head_end - at - 8) != get_u32(data + at))
		return false;
	b->head_sound = true;
	b->data = data + b->head_end;
	b->end = b->head_end + size;
	return b->end <= len && crc_add(0, b->data, size) == get_u32(data + at + 4);
}

/* The first sector behind the one of `from` that reads as zeros up to `to`; `to` if all are there.
 */
static size_t missing_sector(const uint8_t *data, size_t from, size_t to)
{
	for (size_t at = (from / SECTOR + 1) * SECTOR; at < to; at += SECTOR)
		if (all_zero(data, at, at + SECTOR < to ? at + SECTOR : to))
			return at;
	return to;
}

/* The head's checksum is wrong: because a sector of it is missing? Then the count is right (its
 * sector is there), and so is every entry's head in front of the hole. A count that a flipped bit
 * has raised takes data for heads. */
static bool head_torn(const uint8_t *data, size_t len, size_t at, const struct batch *b)
{
	size_t end = b->head_end < len ? b->head_end : len;
	size_t hole = missing_sector(data, at, end);

	if (hole == end)
		return false;
	for (size_t head = at + BATCH_HEAD; head + ENTRY_HEAD <= hole; head += ENTRY_HEAD)
		if (!entry_plausible(data + head))
			return false;
	return true;
}

static bool sound_batch_behind(const uint8_t *data, size_t len, size_t at)
{
	struct batch b;

	for (; at + BATCH_HEAD <= len; at += 8)
		if (batch_read(data, len, at, &b))
			return true;
	return false;
}

/* There is no sound batch at `at`. */
static enum segment_end judge(const uint8_t *data, size_t len, size_t at, const char **ret_fault)
{
	size_t used = len;
	struct batch b;
	bool torn;

	while (used > at && data[used - 1] == 0)
		used--;
	if (used == at)
		return SEGMENT_CLEAN;
	*ret_fault = "a sound batch lies behind a bad one";
	if (sound_batch_behind(data, used + 7 < len ? (used + 7) & ~(size_t)7 : len, at + 8))
		return SEGMENT_DAMAGED;
	(void)batch_read(data, len, at, &b);
	if (len - at >= BATCH_HEAD && all_zero(data, at, at + BATCH_HEAD))
		torn = true;
	else if (b.head_sound)
		torn = b.end > len ? at == FORMAT_SIZE : missing_sector(data, at, b.end) < b.end;
	else
		torn = head_torn(data, len, at, &b);
	*ret_fault = torn ? NULL : "wrong checksum, and not that of a torn write";
	return torn ? SEGMENT_TORN : SEGMENT_DAMAGED;
}

/* What the checksums cannot see: entries that are sound, but not here. */
static const char *entries_check(const struct batch *b, uint64_t index, uint64_t wanted,
				 struct segment *s)
{
	const uint8_t *data = b->data;

	for (uint64_t i = 0; i < b->count; i++) {
		const uint8_t *head = b->heads + i * ENTRY_HEAD;
		uint64_t term = get_u64(head);
		uint32_t size = get_u32(head + 12);
		struct entry_head own;

		if (term < s->last_term || term == 0)
			return "terms go backwards";
		s->last_term = term;
		if (s->first_type == 0)
			s->first_type = head[8];
		if (index + i == wanted)
			s->wanted_term = term;
		if (head[8] == SEGMENT_COMMAND) {
			if (size < sizeof(own))
				return "an entry that is none of ours";
			memcpy(&own, data, sizeof(own));
			if (le32toh(own.magic) != ENTRY_MAGIC ||
			    le32toh(own.length) > size - sizeof(own))
				return "an entry that is none of ours";
			if (le64toh(own.index) != index + i)
				return "entries before these are missing";
		}
		data += size;
	}
	return NULL;
}

void segment_scan(const uint8_t *data, size_t len, uint64_t first, uint64_t wanted,
		  struct segment *ret)
{
	size_t at = FORMAT_SIZE;
	struct batch b;

	*ret = (struct segment){.end = SEGMENT_CLEAN};
	if (all_zero(data, 0, len))
		return;
	if (len < FORMAT_SIZE || get_u64(data) != 1) {
		/* The first write lacks its first sector, unless something sound is there. */
		bool torn = len >= SECTOR && all_zero(data, 0, SECTOR) &&
			    !sound_batch_behind(data, len, FORMAT_SIZE);

		ret->end = torn ? SEGMENT_TORN : SEGMENT_DAMAGED;
		ret->fault = torn ? NULL : "it does not begin as a segment does";
		return;
	}
	while (at < len && batch_read(data, len, at, &b)) {
		ret->fault = entries_check(&b, first + ret->entries, wanted, ret);
		if (ret->fault != NULL) {
			ret->end = SEGMENT_DAMAGED;
			return;
		}
		ret->entries += b.count;
		at = b.end;
		ret->used = at;
	}
	if (at < len)
		ret->end = judge(data, len, at, &ret->fault);
}

uint64_t segment_first(const uint8_t *data, size_t len)
{
	size_t at = FORMAT_SIZE;
	uint64_t before = 0;
	struct batch b;

	while (at < len && batch_read(data, len, at, &b)) {
		const uint8_t *entry = b.data;

		for (uint64_t i = 0; i < b.count; i++) {
			const uint8_t *head = b.heads + i * ENTRY_HEAD;
			struct entry_head own;

			if (head[8] == SEGMENT_COMMAND && get_u32(head + 12) >= sizeof(own)) {
				memcpy(&own, entry, sizeof(own));
				if (le32toh(own.magic) != ENTRY_MAGIC ||
				    le64toh(own.index) <= before + i)
					return 0;
				return le64toh(own.index) - before - i;
			}
			entry += get_u32(head + 12);
		}
		before += b.count;
		at = b.end;
	}
	return 0;
}
