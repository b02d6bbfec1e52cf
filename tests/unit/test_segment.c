/* Segment files: whatever one flipped bit or a torn write does to one, no acknowledged entry is
 * dropped without a word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/segment.h"
#include "lib/buf.h"
#include "lib/crc.h"
#include "lib/mem.h"
#include "lib/rng.h"

enum { SECTOR = 512, SEED = 20260101 };

static void put_le(struct buf *b, uint64_t value, size_t bytes)
{
	uint64_t le = htole64(value);

	buf_append(b, &le, bytes);
}

static void segment_begin(struct buf *b)
{
	put_le(b, 1, 8);
}

/* A batch of commands of `size` bytes of payload each, none of them zero. */
static void batch_put(struct buf *b, uint64_t first, unsigned count, size_t size, uint64_t term,
		      uint8_t type)
{
	size_t start = b->len, head, data;
	size_t padded = (sizeof(struct entry_head) + size + 7) & ~(size_t)7;
	uint32_t crc;

	put_le(b, 0, 8);
	head = b->len;
	put_le(b, count, 8);
	for (unsigned i = 0; i < count; i++) {
		put_le(b, term, 8);
		put_le(b, type, 1);
		put_le(b, 0, 3);
		put_le(b, padded, 4);
	}
	data = b->len;
	for (unsigned i = 0; i < count; i++) {
		put_le(b, ENTRY_MAGIC, 4);
		put_le(b, size, 4);
		put_le(b, first + i, 8);
		for (size_t j = sizeof(struct entry_head); j < padded; j++)
			put_le(b, 1 + (j * 7 + i) % 250, 1);
	}
	crc = htole32(crc_add(0, b->data + head, data - head));
	memcpy(b->data + start, &crc, 4);
	crc = htole32(crc_add(0, b->data + data, b->len - data));
	memcpy(b->data + start + 4, &crc, 4);
}

static void zeros_put(struct buf *b, size_t count)
{
	memset(buf_reserve(b, count), 0, count);
	b->len += count;
}

/* Five batches as they might stand in an open segment; *ret_last: where the last begins. */
static void sample(struct buf *b, size_t *ret_last)
{
	segment_begin(b);
	batch_put(b, 10, 1, 20, 2, SEGMENT_COMMAND);
	batch_put(b, 11, 3, 300, 2, SEGMENT_COMMAND);
	batch_put(b, 14, 1, 3000, 3, SEGMENT_COMMAND);
	batch_put(b, 15, 40, 60, 3, SEGMENT_COMMAND);
	*ret_last = b->len;
	batch_put(b, 55, 5, 700, 3, SEGMENT_COMMAND);
}

enum { SAMPLE_ENTRIES = 50, SAMPLE_BEFORE_LAST = 45 };

static void test_sound(void **state)
{
	struct buf b = {0};
	struct segment s;
	size_t last, used;

	(void)state;
	sample(&b, &last);
	used = b.len;
	segment_scan(b.data, b.len, 10, 14, &s);
	assert_int_equal(s.end, SEGMENT_CLEAN);
	assert_int_equal(s.entries, SAMPLE_ENTRIES);
	assert_int_equal(s.used, used);
	assert_int_equal(s.first_type, SEGMENT_COMMAND);
	assert_int_equal(s.last_term, 3);
	assert_int_equal(s.wanted_term, 3);
	zeros_put(&b, 100000);
	segment_scan(b.data, b.len, 10, 11, &s);
	assert_int_equal(s.end, SEGMENT_CLEAN);
	assert_int_equal(s.entries, SAMPLE_ENTRIES);
	assert_int_equal(s.used, used);
	assert_int_equal(s.wanted_term, 2);
	/* The same bytes where they do not belong. */
	segment_scan(b.data, b.len, 9, 0, &s);
	assert_int_equal(s.end, SEGMENT_DAMAGED);
	segment_scan(b.data, 0, 9, 0, &s);
	assert_int_equal(s.end, SEGMENT_CLEAN);
	assert_int_equal(s.entries, 0);
	buf_free(&b);
}

/* Full to the last bytes: less room behind the last batch than a batch's beginning takes. */
static void test_full(void **state)
{
	(void)state;
	for (size_t room = 0; room <= 24; room += 8) {
		struct buf b = {0};
		struct segment s;
		size_t last, used;

		sample(&b, &last);
		used = b.len;
		zeros_put(&b, room);
		segment_scan(b.data, b.len, 10, 0, &s);
		assert_int_equal(s.end, SEGMENT_CLEAN);
		assert_int_equal(s.used, used);
		buf_free(&b);
	}
}

static void test_flipped_bit(void **state)
{
	struct buf b = {0};
	struct segment s;
	size_t last, used;

	(void)state;
	sample(&b, &last);
	used = b.len;
	zeros_put(&b, 5000);
	for (size_t at = 0; at < b.len; at++) {
		uint8_t bit = (uint8_t)(1U << (at * 5 % 8));

		b.data[at] ^= bit;
		segment_scan(b.data, b.len, 10, 0, &s);
		if (at < used) {
			if (s.end != SEGMENT_DAMAGED)
				print_message("byte %zu: %d\n", at, s.end);
			assert_int_equal(s.end, SEGMENT_DAMAGED);
		} else {
			/* Where the next batch would begin it looks like the trace of one. */
			assert_true(s.end != SEGMENT_DAMAGED || at < used + 16);
			assert_int_equal(s.entries, SAMPLE_ENTRIES);
			assert_int_equal(s.used, used);
		}
		b.data[at] ^= bit;
	}
	buf_free(&b);
}

/* An entry that has whole sectors of zeros itself, flipped, with others behind it. */
static void test_zeros_inside(void **state)
{
	struct buf b = {0};
	struct segment s;
	uint32_t crc;
	size_t at;

	(void)state;
	segment_begin(&b);
	batch_put(&b, 1, 1, 20, 1, SEGMENT_COMMAND);
	at = b.len;
	batch_put(&b, 2, 1, 3000, 1, SEGMENT_COMMAND);
	memset(b.data + at + 200, 0, 2000);
	crc = htole32(crc_add(0, b.data + at + 32, b.len - at - 32));
	memcpy(b.data + at + 4, &crc, 4);
	batch_put(&b, 3, 1, 20, 1, SEGMENT_COMMAND);
	segment_scan(b.data, b.len, 1, 0, &s);
	assert_int_equal(s.entries, 3);
	b.data[at + 100] ^= 1;
	segment_scan(b.data, b.len, 1, 0, &s);
	assert_int_equal(s.end, SEGMENT_DAMAGED);
	assert_int_equal(s.entries, 1);
	assert_string_equal(s.fault, "a sound batch lies behind a bad one");
	buf_free(&b);
}

/* A write that never ended lacks one or more of its sectors, in any order. */
static void test_torn(void **state)
{
	struct prng rng = {SEED};
	struct buf b = {0};
	size_t last, used;

	(void)state;
	print_message("seed %d\n", SEED);
	sample(&b, &last);
	used = b.len;
	zeros_put(&b, 5000);
	for (unsigned round = 0; round < 2000; round++) {
		uint8_t *torn = mem_dup(b.data, b.len);
		unsigned lost = 0;
		struct segment s;

		for (size_t at = last / SECTOR * SECTOR; at < used; at += SECTOR) {
			size_t from = at < last ? last : at;

			if (prng_chance(&rng, 30)) {
				memset(torn + from, 0, at + SECTOR - from);
				lost++;
			}
		}
		segment_scan(torn, b.len, 10, 0, &s);
		if (lost == 0) {
			assert_int_equal(s.entries, SAMPLE_ENTRIES);
		} else {
			assert_true(s.end == SEGMENT_TORN || s.end == SEGMENT_CLEAN);
			assert_int_equal(s.entries, SAMPLE_BEFORE_LAST);
			assert_int_equal(s.used, last);
		}
		free(torn);
	}
	buf_free(&b);
}

static void test_torn_first(void **state)
{
	struct buf b = {0};
	struct segment s;

	(void)state;
	segment_begin(&b);
	batch_put(&b, 1, 5, 700, 1, SEGMENT_CHANGE);
	memset(b.data, 0, SECTOR);
	zeros_put(&b, 5000);
	segment_scan(b.data, b.len, 1, 0, &s);
	assert_int_equal(s.end, SEGMENT_TORN);
	assert_int_equal(s.entries, 0);
	assert_int_equal(s.used, 0);
	buf_free(&b);
}

/* No length of any prefix makes the scan read beyond it (the sanitizer watches). */
static void test_prefixes(void **state)
{
	struct buf b = {0};
	size_t last;

	(void)state;
	sample(&b, &last);
	for (size_t len = 0; len <= b.len; len++) {
		uint8_t *copy = mem_dup(b.data, len);
		struct segment s;

		segment_scan(copy, len, 10, 0, &s);
		assert_true(s.entries < SAMPLE_ENTRIES || len == b.len);
		free(copy);
	}
	buf_free(&b);
}

static void test_foreign_entries(void **state)
{
	struct buf b = {0};
	struct segment s;

	(void)state;
	segment_begin(&b);
	batch_put(&b, 1, 1, 20, 4, SEGMENT_CHANGE);
	batch_put(&b, 2, 1, 20, 3, SEGMENT_COMMAND);
	segment_scan(b.data, b.len, 1, 0, &s);
	assert_int_equal(s.end, SEGMENT_DAMAGED);
	assert_string_equal(s.fault, "terms go backwards");
	buf_clear(&b);
	segment_begin(&b);
	batch_put(&b, 1, 1, 20, 4, SEGMENT_CHANGE);
	batch_put(&b, 3, 1, 20, 4, SEGMENT_COMMAND);
	segment_scan(b.data, b.len, 1, 0, &s);
	assert_int_equal(s.end, SEGMENT_DAMAGED);
	assert_string_equal(s.fault, "entries before these are missing");
	buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sound),		cmocka_unit_test(test_full),
		cmocka_unit_test(test_flipped_bit),	cmocka_unit_test(test_torn),
		cmocka_unit_test(test_torn_first),	cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_foreign_entries), cmocka_unit_test(test_zeros_inside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
