/* The ground: text, hex, hash, buffers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/hex.h"
#include "lib/pool.h"
#include "lib/rng.h"
#include "lib/text.h"

static void test_numbers(void **state)
{
	static const struct {
		const char *text;
		int rv;
		uint64_t value;
	} cases[] = {
		{"0", 0, 0},
		{"18446744073709551615", 0, UINT64_MAX},
		{"18446744073709551616", -ERANGE, 0},
		{"", -EINVAL, 0},
		{" 1", -EINVAL, 0},
		{"1x", -EINVAL, 0},
		{"-1", -EINVAL, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t value = 0;

		assert_int_equal(text_to_u64(cases[i].text, 0, UINT64_MAX, &value), cases[i].rv);
		assert_int_equal(value, cases[i].value);
	}
}

static void test_durations(void **state)
{
	static const struct {
		const char *text;
		int rv;
		uint64_t ms;
	} cases[] = {
		{"250ms", 0, 250},	   {"3s", 0, 3000},    {"90d", 0, 7776000000ULL},
		{"5", -EINVAL, 0},	   {"s", -EINVAL, 0},  {"3 s", -EINVAL, 0},
		{"99999999d", -ERANGE, 0}, {"1w", -EINVAL, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t ms = 0;

		assert_int_equal(text_to_duration_ms(cases[i].text, &ms), cases[i].rv);
		assert_int_equal(ms, cases[i].ms);
	}
}

static void test_utf8(void **state)
{
	(void)state;
	assert_true(text_is_utf8("Z\xc3\xbcrich", 7));
	assert_false(text_is_utf8("\xc0\xaf", 2)); /* overlong */
	assert_false(text_is_utf8("\xed\xa0\x80", 3)); /* surrogate */
	assert_false(text_is_utf8("\xf4\x90\x80\x80", 4)); /* above U+10FFFF */
	assert_false(text_is_utf8("\xe2\x82", 2)); /* cut off */
	assert_false(text_is_utf8("a\0b", 3));
}

static void test_tame(void **state)
{
	static const struct {
		const char *text;
		size_t max;
		const char *tame;
	} cases[] = {
		{"as it is", 8, "as it is"},
		{"as it is", 5, "as it"},
		{"Z\xc3\xbcrich", 7, "Z\xc3\xbcrich"},
		{"Z\xc3\xbcrich", 2, "Z"}, /* no half of a character */
		{"Z\xc3\xbcrich", 3, "Z\xc3\xbc"},
		{"a\nb\x7f", 9, "a b "},
		{"a\xff\x01", 9, "a? "},
		{"", 0, ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[32];

		snprintf(text, sizeof(text), "%s", cases[i].text);
		text_tame(text, cases[i].max);
		assert_string_equal(text, cases[i].tame);
	}
}

static void test_nearest(void **state)
{
	static const char *const words[] = {"create", "list", "show", "delete", NULL};

	(void)state;
	assert_string_equal(text_nearest("crate", words), "create");
	assert_string_equal(text_nearest("sohw", words), "show");
	assert_null(text_nearest("import", words));
}

static void test_hex(void **state)
{
	uint8_t bytes[3];
	char text[7];

	(void)state;
	assert_int_equal(hex_decode("00aBff", bytes, 3), 0);
	hex_encode(bytes, 3, text);
	assert_string_equal(text, "00abff");
	assert_int_equal(hex_decode("00ab", bytes, 3), -EINVAL);
	assert_int_equal(hex_decode("00abfg", bytes, 3), -EINVAL);
}

struct item {
	struct hash_node node;
	uint64_t key;
};

static int item_match(const struct hash_node *node, const void *key)
{
	const struct item *item = (const void *)node;

	return item->key == *(const uint64_t *)key;
}

static void test_hash(void **state)
{
	enum { COUNT = 1000 };
	static struct item items[COUNT];
	struct hash h = {0};

	(void)state;
	for (uint64_t i = 0; i < COUNT; i++) {
		items[i].key = i;
		hash_insert(&h, &items[i].node, hash_u64(i));
	}
	for (uint64_t i = 0; i < COUNT; i += 2)
		hash_remove(&h, &items[i].node);
	assert_int_equal(h.count, COUNT / 2);
	for (uint64_t i = 0; i < COUNT; i++)
		assert_int_equal(hash_find(&h, hash_u64(i), item_match, &i) != NULL, i % 2);
	hash_free(&h);
}

static void test_buffer(void **state)
{
	struct buf b = {0};

	(void)state;
	buf_put_u32(&b, 0x01020304);
	buf_printf(&b, "%s-%d", "x", 7);
	assert_int_equal(b.len, 7);
	assert_memory_equal(b.data, "\1\2\3\4x-7", 7);
	buf_consume(&b, 4);
	assert_string_equal(buf_string(&b), "x-7");
	buf_free(&b);
}

static void test_clock_text(void **state)
{
	char text[32];

	(void)state;
	clock_format_utc(0, text);
	assert_string_equal(text, "1970-01-01T00:00:00.000Z");
	clock_format_utc(-1, text);
	assert_string_equal(text, "1969-12-31T23:59:59.999Z");
}

static void test_prng_repeats(void **state)
{
	struct prng a = {42};
	struct prng b = {42};

	(void)state;
	for (int i = 0; i < 100; i++) {
		assert_int_equal(prng_u64(&a), prng_u64(&b));
		assert_true(prng_below(&a, 7) < 7);
		prng_below(&b, 7);
	}
}

static void test_pool(void **state)
{
	enum { ITEMS = 1000, SIZE = 600 };
	uint8_t *items[ITEMS];
	struct pool p;
	size_t most;

	(void)state;
	pool_init(&p, SIZE);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < ITEMS; i++) {
			items[i] = pool_get(&p);
			assert_int_equal((uintptr_t)items[i] % _Alignof(max_align_t), 0);
			for (int k = 0; k < SIZE; k++)
				assert_int_equal(items[i][k], 0);
			memset(items[i], i, SIZE);
		}
		most = p.slabs;
		for (int i = 0; i < ITEMS; i++) {
			assert_int_equal(items[i][0], (uint8_t)i);
			assert_int_equal(items[i][SIZE - 1], (uint8_t)i);
		}
		/* Every second one goes: their places are used again, no slab is added. */
		for (int i = 0; i < ITEMS; i += 2)
			pool_put(&p, items[i]);
		assert_int_equal(p.count, ITEMS / 2);
		for (int i = 0; i < ITEMS; i += 2)
			items[i] = pool_get(&p);
		assert_true(p.slabs <= most);
		for (int i = 0; i < ITEMS; i++)
			pool_put(&p, items[(i * 7) % ITEMS]);
		assert_int_equal(p.slabs, 0);
	}
	pool_put(&p, NULL);
	pool_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),	   cmocka_unit_test(test_durations),
		cmocka_unit_test(test_utf8),	   cmocka_unit_test(test_tame),
		cmocka_unit_test(test_nearest),	   cmocka_unit_test(test_hex),
		cmocka_unit_test(test_hash),	   cmocka_unit_test(test_buffer),
		cmocka_unit_test(test_clock_text), cmocka_unit_test(test_prng_repeats),
		cmocka_unit_test(test_pool),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
