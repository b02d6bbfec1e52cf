/* Split virtqueues against drivers that break the rules: each rule a case, each case seen by
 * queue_pop or queue_enable; and when the other side has to be told, around the wrap of the
 * indices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "hv/layout.h"
#include "tests/unit/hv_driver.h"

enum { SIZE = 8, RAM_BYTES = 64 << 20 };

struct world {
	struct hv_driver d;
	struct queue q;
	uint64_t buffer; /* 4 KiB to point at */
	struct chain c;
};

static void queue_make(struct world *w, uint16_t size)
{
	struct hv_ring *r = &w->d.ring[0];

	*r = (struct hv_ring){.size = size};
	r->desc = hv_driver_alloc(&w->d, 16 * (size_t)size);
	r->avail = hv_driver_alloc(&w->d, 6 + 2 * (size_t)size);
	r->used = hv_driver_alloc(&w->d, 6 + 8 * (size_t)size);
	w->q = (struct queue){.size = size,
			      .desc = r->desc,
			      .avail = r->avail,
			      .used = r->used,
			      .indirect = true};
	assert_true(queue_enable(&w->q, &w->d.ram));
}

static int setup(void **state)
{
	static struct world w;

	w = (struct world){0};
	hv_driver_open(&w.d, RAM_BYTES);
	w.buffer = hv_driver_alloc(&w.d, 4096);
	queue_make(&w, SIZE);
	*state = &w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	hv_driver_close(&w->d);
	return 0;
}

/* Chains of all kinds: what the driver puts, and how many buffers come of it, or -EBADMSG. */

static void put(struct world *w, uint16_t index, uint16_t flags, uint16_t next)
{
	hv_driver_desc(&w->d, 0, index, w->buffer, 16, flags, next);
}

static void one_buffer(struct world *w)
{
	put(w, 0, HV_WRITE, 0);
	hv_driver_avail(&w->d, 0, 0);
}

static void whole_table(struct world *w)
{
	uint16_t i;

	for (i = 0; i < SIZE; i++) {
		put(w, i, i + 1 < SIZE ? HV_NEXT : 0, (uint16_t)(i + 1));
	}
	hv_driver_avail(&w->d, 0, 0);
}

static void head_outside(struct world *w)
{
	one_buffer(w);
	hv_driver_avail_idx(&w->d, 0, 0);
	hv_driver_avail(&w->d, 0, SIZE);
}

static void next_outside(struct world *w)
{
	put(w, 0, HV_NEXT, SIZE);
	hv_driver_avail(&w->d, 0, 0);
}

/* Behind the table lies something that looks like a descriptor. */
static void next_far_outside(struct world *w)
{
	(void)hv_driver_alloc(&w->d, 16 * 1000);
	put(w, 0, HV_NEXT, 900);
	put(w, 900, 0, 0);
	hv_driver_avail(&w->d, 0, 0);
}

static void head_far_outside(struct world *w)
{
	(void)hv_driver_alloc(&w->d, 16 * 1000);
	put(w, 900, 0, 0);
	hv_driver_avail(&w->d, 0, 900);
}

static void loop_of_one(struct world *w)
{
	put(w, 0, HV_NEXT, 0);
	hv_driver_avail(&w->d, 0, 0);
}

static void loop_of_two(struct world *w)
{
	put(w, 3, HV_NEXT, 5);
	put(w, 5, HV_NEXT, 3);
	hv_driver_avail(&w->d, 0, 3);
}

static void zero_length(struct world *w)
{
	hv_driver_desc(&w->d, 0, 0, w->buffer, 0, HV_WRITE, 0);
	hv_driver_avail(&w->d, 0, 0);
}

static void below_ram(struct world *w)
{
	hv_driver_desc(&w->d, 0, 0, LAYOUT_RAM - 1, 16, HV_WRITE, 0);
	hv_driver_avail(&w->d, 0, 0);
}

static void to_the_end(struct world *w)
{
	hv_driver_desc(&w->d, 0, 0, LAYOUT_RAM + RAM_BYTES - 16, 16, HV_WRITE, 0);
	hv_driver_avail(&w->d, 0, 0);
}

static void past_the_end(struct world *w)
{
	hv_driver_desc(&w->d, 0, 0, LAYOUT_RAM + RAM_BYTES - 16, 17, HV_WRITE, 0);
	hv_driver_avail(&w->d, 0, 0);
}

static void address_overflows(struct world *w)
{
	hv_driver_desc(&w->d, 0, 0, UINT64_MAX - 7, 16, HV_WRITE, 0);
	hv_driver_avail(&w->d, 0, 0);
}

static void length_overflows(struct world *w)
{
	hv_driver_desc(&w->d, 0, 0, w->buffer, UINT32_MAX, HV_WRITE, 0);
	hv_driver_avail(&w->d, 0, 0);
}

static void read_after_write(struct world *w)
{
	put(w, 0, HV_WRITE | HV_NEXT, 1);
	put(w, 1, 0, 0);
	hv_driver_avail(&w->d, 0, 0);
}

/* A table of `count` buffers of `len` bytes in another place, all read by the device. */
static void indirect_of(struct world *w, unsigned count, uint32_t len)
{
	struct hv_buffer buffers[QUEUE_CHAIN_MAX + 1];
	unsigned i;

	for (i = 0; i < count; i++) {
		buffers[i] = (struct hv_buffer){.addr = LAYOUT_RAM, .len = len};
	}
	hv_driver_add_indirect(&w->d, 0, buffers, count);
}

static void indirect_longest(struct world *w)
{
	indirect_of(w, QUEUE_CHAIN_MAX, 1);
}

static void indirect_too_long(struct world *w)
{
	indirect_of(w, QUEUE_CHAIN_MAX + 1, 1);
}

/* 64 times 64 MiB are 4 GiB: one byte too many for 32 bits. */
static void sum_overflows(struct world *w)
{
	indirect_of(w, 64, RAM_BYTES);
}

static void sum_fits(struct world *w)
{
	indirect_of(w, 63, RAM_BYTES);
}

static void indirect_not_negotiated(struct world *w)
{
	w->q.indirect = false;
	indirect_of(w, 1, 16);
}

static void indirect_and_next(struct world *w)
{
	indirect_of(w, 1, 16);
	hv_driver_desc(&w->d, 0, 0, w->d.heap - 64, 16, HV_INDIRECT | HV_NEXT, 1);
	put(w, 1, 0, 0);
}

static void indirect_write_ignored(struct world *w)
{
	indirect_of(w, 2, 16);
	hv_driver_desc(&w->d, 0, 0, w->d.heap - 64, 32, HV_INDIRECT | HV_WRITE, 0);
}

static void direct_then_indirect(struct world *w)
{
	indirect_of(w, 2, 16);
	put(w, 4, HV_NEXT, 0);
	hv_driver_avail_idx(&w->d, 0, 0);
	hv_driver_avail(&w->d, 0, 4);
}

static void indirect_in_indirect(struct world *w)
{
	struct hv_buffer inner = {.addr = w->buffer, .len = 16, .flags = HV_INDIRECT};

	hv_driver_add_indirect(&w->d, 0, &inner, 1);
}

static void indirect_empty(struct world *w)
{
	hv_driver_desc(&w->d, 0, 0, w->buffer, 0, HV_INDIRECT, 0);
	hv_driver_avail(&w->d, 0, 0);
}

static void indirect_odd_length(struct world *w)
{
	indirect_of(w, 1, 16);
	hv_driver_desc(&w->d, 0, 0, w->d.heap - 64, 17, HV_INDIRECT, 0);
}

static void indirect_outside(struct world *w)
{
	hv_driver_desc(&w->d, 0, 0, LAYOUT_RAM + RAM_BYTES - 16, 32, HV_INDIRECT, 0);
	hv_driver_avail(&w->d, 0, 0);
}

/* The table has two entries, the first goes on with the third: what lies behind is not looked at.
 */
static void indirect_next_outside(struct world *w)
{
	const uint16_t third = 2;

	indirect_of(w, 3, 16);
	memcpy(hv_driver_at(&w->d, w->d.heap - 64 + 14), &third, sizeof(third));
	hv_driver_desc(&w->d, 0, 0, w->d.heap - 64, 32, HV_INDIRECT, 0);
}

static void indirect_loop(struct world *w)
{
	uint64_t table = hv_driver_alloc(&w->d, 64);
	const uint16_t next_0[] = {HV_NEXT, 0};

	memcpy(hv_driver_at(&w->d, table), (const uint64_t[]){w->buffer, 16}, 16);
	memcpy(hv_driver_at(&w->d, table + 12), next_0, sizeof(next_0));
	hv_driver_desc(&w->d, 0, 0, table, 64, HV_INDIRECT, 0);
	hv_driver_avail(&w->d, 0, 0);
}

static void indirect_unaligned(struct world *w)
{
	uint64_t table = hv_driver_alloc(&w->d, 64) + 3;

	memcpy(hv_driver_at(&w->d, table), (const uint64_t[]){w->buffer, 16}, 16);
	hv_driver_desc(&w->d, 0, 0, table, 16, HV_INDIRECT, 0);
	hv_driver_avail(&w->d, 0, 0);
}

static void index_ahead(struct world *w)
{
	one_buffer(w);
	hv_driver_avail_idx(&w->d, 0, SIZE + 1);
}

static void index_back(struct world *w)
{
	one_buffer(w);
	hv_driver_avail_idx(&w->d, 0, 0xffff);
}

static void index_full(struct world *w)
{
	one_buffer(w);
	hv_driver_avail_idx(&w->d, 0, SIZE);
}

static void nothing(struct world *w)
{
	(void)w;
}

static const struct pop_case {
	const char *name;
	void (*make)(struct world *w);
	int rv;
	unsigned buffers;
} pop_cases[] = {
	{"nothing there", nothing, 0, 0},
	{"one buffer", one_buffer, 1, 1},
	{"as long as the queue", whole_table, 1, SIZE},
	{"index a whole queue ahead", index_full, 1, 1},
	{"index more than a queue ahead", index_ahead, -EBADMSG, 0},
	{"index that went back", index_back, -EBADMSG, 0},
	{"head outside", head_outside, -EBADMSG, 0},
	{"head far outside", head_far_outside, -EBADMSG, 0},
	{"next outside", next_outside, -EBADMSG, 0},
	{"next far outside", next_far_outside, -EBADMSG, 0},
	{"loop of one", loop_of_one, -EBADMSG, 0},
	{"loop of two", loop_of_two, -EBADMSG, 0},
	{"zero length", zero_length, -EBADMSG, 0},
	{"below RAM", below_ram, -EBADMSG, 0},
	{"up to the end of RAM", to_the_end, 1, 1},
	{"past the end of RAM", past_the_end, -EBADMSG, 0},
	{"address and length overflow", address_overflows, -EBADMSG, 0},
	{"length of 4 GiB", length_overflows, -EBADMSG, 0},
	{"readable after writable", read_after_write, -EBADMSG, 0},
	{"indirect, longest", indirect_longest, 1, QUEUE_CHAIN_MAX},
	{"indirect, too long", indirect_too_long, -EBADMSG, 0},
	{"lengths add up to 4 GiB", sum_overflows, -EBADMSG, 0},
	{"lengths add up to less", sum_fits, 1, 63},
	{"indirect not negotiated", indirect_not_negotiated, -EBADMSG, 0},
	{"indirect and next", indirect_and_next, -EBADMSG, 0},
	{"write flag of a table is ignored", indirect_write_ignored, 1, 2},
	{"direct, then indirect", direct_then_indirect, 1, 3},
	{"indirect in indirect", indirect_in_indirect, -EBADMSG, 0},
	{"indirect, empty", indirect_empty, -EBADMSG, 0},
	{"indirect, part of an entry", indirect_odd_length, -EBADMSG, 0},
	{"indirect, table outside", indirect_outside, -EBADMSG, 0},
	{"indirect, next outside", indirect_next_outside, -EBADMSG, 0},
	{"indirect, loop", indirect_loop, -EBADMSG, 0},
	{"indirect, unaligned", indirect_unaligned, 1, 1},
};

static void test_pop_takes_sound_chains_only(void **state)
{
	struct world *w;
	size_t i;

	for (i = 0; i < sizeof(pop_cases) / sizeof(pop_cases[0]); i++) {
		const struct pop_case *t = &pop_cases[i];
		int rv;

		setup(state);
		w = *state;
		t->make(w);
		rv = queue_pop(&w->q, &w->c);
		if (rv != t->rv ||
		    (rv == 1 && (unsigned)(w->c.out_count + w->c.in_count) != t->buffers)) {
			fail_msg("%s: %d, %u buffers", t->name, rv, w->c.out_count + w->c.in_count);
		}
		/* What was refused is still the next: nothing was half taken. */
		assert_int_equal(w->q.next_avail, rv == 1);
		teardown(state);
	}
}

static void test_place_and_size_of_a_queue(void **state)
{
	static const struct {
		const char *name;
		uint32_t size;
		uint64_t desc, avail, used; /* offsets into RAM */
		bool good;
	} cases[] = {
		{"usual", 256, 0, 0x1000, 0x2000, true},
		{"of one", 1, 0, 0x1000, 0x2000, true},
		{"no size", 0, 0, 0x1000, 0x2000, false},
		{"no power of two", 3, 0, 0x1000, 0x2000, false},
		{"too large", 512, 0, 0x1000, 0x2000, false},
		{"descriptors not at 16", 8, 8, 0x1000, 0x2000, false},
		{"available ring odd", 8, 0, 0x1001, 0x2000, false},
		{"available ring at 2", 8, 0, 0x1002, 0x2000, true},
		{"used ring not at 4", 8, 0, 0x1000, 0x2002, false},
		{"descriptors to the end", 8, RAM_BYTES - 128, 0x1000, 0x2000, true},
		{"descriptors past the end", 8, RAM_BYTES - 112, 0x1000, 0x2000, false},
		{"available ring to the end", 8, 0, RAM_BYTES - 22, 0x2000, true},
		{"its event index past the end", 8, 0, RAM_BYTES - 20, 0x2000, false},
		{"used ring to the end", 8, 0, 0x1000, RAM_BYTES - 72, true},
		{"its event index past the end", 8, 0, 0x1000, RAM_BYTES - 68, false},
		{"descriptors before RAM", 8, -(uint64_t)16, 0x1000, 0x2000, false},
		{"used ring at the end of all", 8, 0, 0x1000, UINT64_MAX - LAYOUT_RAM - 3, false},
	};
	struct world *w = *state;
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct queue q = {
			.size = (uint16_t)cases[i].size,
			.desc = LAYOUT_RAM + cases[i].desc,
			.avail = LAYOUT_RAM + cases[i].avail,
			.used = LAYOUT_RAM + cases[i].used,
		};

		if (queue_enable(&q, &w->d.ram) != cases[i].good || q.ready != cases[i].good) {
			fail_msg("%s", cases[i].name);
		}
	}
}

static void test_pointers_and_lengths_of_a_chain(void **state)
{
	struct world *w = *state;
	const struct hv_buffer buffers[] = {
		{.addr = w->buffer, .len = 10},
		{.addr = w->buffer + 100, .len = 20},
		{.addr = w->buffer + 200, .len = 30, .flags = HV_WRITE},
	};
	uint16_t head = hv_driver_add(&w->d, 0, buffers, 3);

	assert_int_equal(queue_pop(&w->q, &w->c), 1);
	assert_int_equal(w->c.head, head);
	assert_int_equal(w->c.out_count, 2);
	assert_int_equal(w->c.in_count, 1);
	assert_int_equal(w->c.out_len, 30);
	assert_int_equal(w->c.in_len, 30);
	assert_ptr_equal(w->c.iov[1].iov_base, hv_driver_at(&w->d, w->buffer + 100));
	assert_int_equal(w->c.iov[2].iov_len, 30);
}

static void test_bytes_across_buffers(void **state)
{
	struct world *w = *state;
	struct hv_buffer buffers[] = {
		{.addr = hv_driver_put(&w->d, "abc", 3), .len = 3},
		{.addr = hv_driver_put(&w->d, "d", 1), .len = 1},
		{.addr = hv_driver_put(&w->d, "efgh", 4), .len = 4},
		{.addr = w->buffer, .len = 2, .flags = HV_WRITE},
		{.addr = w->buffer + 8, .len = 5, .flags = HV_WRITE},
	};
	char text[16] = "";

	hv_driver_add(&w->d, 0, buffers, 5);
	assert_int_equal(queue_pop(&w->q, &w->c), 1);
	assert_int_equal(chain_read(&w->c, 0, text, sizeof(text)), 8);
	assert_string_equal(text, "abcdefgh");
	assert_int_equal(chain_read(&w->c, 2, text, 3), 3);
	assert_memory_equal(text, "cde", 3);
	assert_int_equal(chain_read(&w->c, 3, text, 1), 1);
	assert_memory_equal(text, "d", 1);
	assert_int_equal(chain_read(&w->c, 8, text, 1), 0);
	assert_int_equal(chain_read(&w->c, SIZE_MAX, text, 1), 0);
	assert_int_equal(chain_write(&w->c, 1, "XYZ", 3), 3);
	assert_memory_equal(hv_driver_at(&w->d, w->buffer), "\0X\0\0\0\0\0\0YZ", 10);
	assert_int_equal(chain_write(&w->c, 6, "123", 3), 1);
	assert_int_equal(chain_write(&w->c, 7, "1", 1), 0);
	assert_memory_equal(hv_driver_at(&w->d, w->buffer + 8), "YZ\0\0001\0", 6);
}

static void test_unpop_and_push(void **state)
{
	struct world *w = *state;
	struct hv_buffer b = {.addr = w->buffer, .len = 16, .flags = HV_WRITE};
	uint32_t head, len;

	hv_driver_add(&w->d, 0, &b, 1);
	hv_driver_add(&w->d, 0, &b, 1);
	assert_int_equal(queue_pop(&w->q, &w->c), 1);
	queue_unpop(&w->q);
	assert_true(queue_has_work(&w->q));
	assert_int_equal(queue_pop(&w->q, &w->c), 1);
	assert_int_equal(w->c.head, 0);
	assert_int_equal(queue_pop(&w->q, &w->c), 1);
	assert_int_equal(w->c.head, 1);
	assert_int_equal(queue_pop(&w->q, &w->c), 0);
	assert_false(queue_has_work(&w->q));
	queue_push(&w->q, 1, 7);
	queue_push(&w->q, 0, 0);
	assert_true(hv_driver_used(&w->d, 0, &head, &len));
	assert_int_equal(head, 1);
	assert_int_equal(len, 7);
	assert_true(hv_driver_used(&w->d, 0, &head, &len));
	assert_int_equal(head, 0);
	assert_false(hv_driver_used(&w->d, 0, &head, &len));
}

static void test_indices_wrap(void **state)
{
	struct world *w = *state;
	struct hv_buffer b = {.addr = w->buffer, .len = 16, .flags = HV_WRITE};
	unsigned i;

	w->q.next_avail = w->q.next_used = 0xfffe;
	w->d.ring[0].used_seen = 0xfffe;
	hv_driver_avail_idx(&w->d, 0, 0xfffe);
	*(uint16_t *)hv_driver_at(&w->d, w->d.ring[0].used + 2) = 0xfffe;
	for (i = 0; i < 5; i++) {
		uint32_t head;
		uint16_t added = hv_driver_add(&w->d, 0, &b, 1);

		assert_int_equal(queue_pop(&w->q, &w->c), 1);
		assert_int_equal(w->c.head, added);
		queue_push(&w->q, w->c.head, 16);
		assert_true(hv_driver_used(&w->d, 0, &head, NULL));
		assert_int_equal(head, added);
	}
	assert_int_equal(w->q.next_used, 3);
	assert_int_equal(w->q.next_avail, 3);
}

/* virtio 1.2, 2.7.7.2: interrupt if the entry the driver waits for is among those added since. */
static void test_must_signal_around_the_wrap(void **state)
{
	static const struct {
		uint16_t signalled, next_used, event;
		bool must;
	} cases[] = {
		{0, 1, 0, true},       {0, 1, 1, false},	   {0, 2, 1, true},
		{0, 2, 2, false},      {5, 8, 4, false},	   {5, 8, 5, true},
		{5, 8, 7, true},       {5, 8, 8, false},	   {0xffff, 0, 0xffff, true},
		{0xffff, 0, 0, false}, {0xfffe, 2, 0xffff, true},  {0xfffe, 2, 1, true},
		{0xfffe, 2, 2, false}, {0xfffe, 2, 0xfffd, false}, {3, 3, 2, false},
		{3, 3, 3, false},
	};
	struct world *w = *state;
	size_t i;

	w->q.event_idx = true;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		w->q.signalled = cases[i].signalled;
		w->q.signalled_valid = true;
		w->q.next_used = cases[i].next_used;
		hv_driver_set_used_event(&w->d, 0, cases[i].event);
		if (queue_must_signal(&w->q) != cases[i].must) {
			fail_msg("%u..%u, waits for %u", cases[i].signalled, cases[i].next_used,
				 cases[i].event);
		}
		/* Asked again without anything new: no. */
		assert_false(queue_must_signal(&w->q));
	}
}

static void test_must_signal_when_nothing_is_known(void **state)
{
	struct world *w = *state;

	/* After a restore: better one interrupt too many. */
	w->q.event_idx = true;
	w->q.next_used = 100;
	hv_driver_set_used_event(&w->d, 0, 200);
	assert_true(queue_must_signal(&w->q));
	assert_false(queue_must_signal(&w->q));
}

static void test_must_signal_by_flags(void **state)
{
	struct world *w = *state;
	uint16_t *flags = hv_driver_at(&w->d, w->d.ring[0].avail);

	assert_false(queue_must_signal(&w->q));
	queue_push(&w->q, 0, 0);
	assert_true(queue_must_signal(&w->q));
	assert_false(queue_must_signal(&w->q));
	*flags = 1; /* VIRTQ_AVAIL_F_NO_INTERRUPT */
	queue_push(&w->q, 0, 0);
	assert_false(queue_must_signal(&w->q));
	*flags = 0;
	queue_push(&w->q, 0, 0);
	assert_true(queue_must_signal(&w->q));
}

static void test_kicks_wanted(void **state)
{
	struct world *w = *state;
	struct hv_buffer b = {.addr = w->buffer, .len = 16, .flags = HV_WRITE};
	uint16_t *flags = hv_driver_at(&w->d, w->d.ring[0].used);

	queue_spare_kick(&w->q);
	assert_int_equal(*flags, 1); /* VIRTQ_USED_F_NO_NOTIFY */
	assert_false(queue_want_kick(&w->q));
	assert_int_equal(*flags, 0);
	/* What came while the wish was written is told at once. */
	hv_driver_add(&w->d, 0, &b, 1);
	assert_true(queue_want_kick(&w->q));
	w->q.event_idx = true;
	assert_int_equal(queue_pop(&w->q, &w->c), 1);
	assert_false(queue_want_kick(&w->q));
	assert_int_equal(hv_driver_avail_event(&w->d, 0), 1);
	queue_spare_kick(&w->q);
	assert_int_equal(*flags, 0);
	hv_driver_add(&w->d, 0, &b, 1);
	assert_true(queue_want_kick(&w->q));
}

static void test_a_dead_queue_is_left_alone(void **state)
{
	struct world *w = *state;
	uint8_t before[6 + 8 * SIZE];

	one_buffer(w);
	w->q.ready = false;
	memcpy(before, hv_driver_at(&w->d, w->d.ring[0].used), sizeof(before));
	assert_int_equal(queue_pop(&w->q, &w->c), 0);
	queue_unpop(&w->q);
	queue_push(&w->q, 0, 5);
	queue_spare_kick(&w->q);
	assert_false(queue_must_signal(&w->q));
	assert_false(queue_want_kick(&w->q));
	assert_false(queue_has_work(&w->q));
	assert_int_equal(w->q.next_avail, 0);
	assert_memory_equal(before, hv_driver_at(&w->d, w->d.ring[0].used), sizeof(before));
	queue_reset(&w->q);
	assert_int_equal(queue_pop(&w->q, &w->c), 0);
}

struct fickle {
	volatile uint64_t *desc;
	uint64_t good, bad; /* addresses: with room for 4096 bytes, and for 16 */
	bool stop;
};

/* A driver on another processor that changes a descriptor all the time. Its races are the point. */
__attribute__((no_sanitize("thread"))) static void *change_all_the_time(void *arg)
{
	struct fickle *f = arg;

	while (!__atomic_load_n(&f->stop, __ATOMIC_RELAXED)) {
		f->desc[1] = 16;
		f->desc[0] = f->bad;
		f->desc[0] = f->good;
		f->desc[1] = 4096;
	}
	return NULL;
}

static void test_what_was_checked_is_what_is_used(void **state)
{
	struct world *w = *state;
	struct fickle f = {
		.desc = hv_driver_at(&w->d, w->d.ring[0].desc),
		.good = w->buffer,
		.bad = LAYOUT_RAM + RAM_BYTES - 16,
	};
	const uint8_t *end = w->d.ram.host + w->d.ram.size;
	pthread_t thread;
	unsigned round;

	one_buffer(w);
	assert_int_equal(pthread_create(&thread, NULL, change_all_the_time, &f), 0);
	for (round = 0; round < 200000; round++) {
		w->q.next_avail = 0;
		if (queue_pop(&w->q, &w->c) == 1) {
			const struct iovec *iov = &w->c.iov[0];

			assert_true((const uint8_t *)iov->iov_base + iov->iov_len <= end);
			assert_true(iov->iov_len == w->c.out_len + w->c.in_len);
		}
	}
	__atomic_store_n(&f.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

#define case_of(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pop_takes_sound_chains_only),
		case_of(test_place_and_size_of_a_queue),
		case_of(test_pointers_and_lengths_of_a_chain),
		case_of(test_bytes_across_buffers),
		case_of(test_unpop_and_push),
		case_of(test_indices_wrap),
		case_of(test_must_signal_around_the_wrap),
		case_of(test_must_signal_when_nothing_is_known),
		case_of(test_must_signal_by_flags),
		case_of(test_kicks_wanted),
		case_of(test_a_dead_queue_is_left_alone),
		case_of(test_what_was_checked_is_what_is_used),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
