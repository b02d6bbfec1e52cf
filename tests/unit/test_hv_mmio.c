/* virtio over mmio, spoken as Linux 6.1 does and as nobody should: what a register reads after each
 * write, which writes are ignored, which fail the device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "hv/layout.h"
#include "tests/unit/hv_driver.h"

/* A device that gives every chain back and remembers what was done to it. */
struct echo {
	struct virtio v; /* first */
	unsigned activated, resets, kicks[2];
	unsigned written_offset, written_len;
};

static struct echo *echo_of(struct virtio *v)
{
	return (struct echo *)(void *)v;
}

static void echo_activate(struct virtio *v)
{
	echo_of(v)->activated++;
}

static void echo_reset(struct virtio *v)
{
	echo_of(v)->resets++;
}

static void echo_kick(struct virtio *v, unsigned index)
{
	struct chain c;

	echo_of(v)->kicks[index]++;
	while (virtio_pop(v, index, &c) == 1) {
		queue_push(&v->queue[index], c.head, c.in_len);
	}
	virtio_signal(v, index);
}

static void echo_config_written(struct virtio *v, unsigned offset, unsigned len)
{
	echo_of(v)->written_offset = offset;
	echo_of(v)->written_len = len;
}

static const struct virtio_class echo_class = {
	.id = 42,
	.name = "echo",
	.queues = 2,
	.queue_size = 64,
	.activate = echo_activate,
	.kick = echo_kick,
	.reset = echo_reset,
	.config_written = echo_config_written,
};

struct world {
	struct hv_driver d;
	struct echo e;
};

static int setup(void **state)
{
	static struct world w;

	w = (struct world){0};
	hv_driver_open(&w.d, 1 << 20);
	w.e.v.features = 0x5;
	w.e.v.config_len = 12;
	memcpy(w.e.v.config, "abcdefghijkl", 12);
	assert_int_equal(virtio_init(&w.e.v, &echo_class, &w.d.ram, &w.d.loop, "echo0"), 0);
	hv_driver_attach(&w.d, &w.e.v);
	*state = &w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	virtio_close(&w->e.v);
	hv_driver_close(&w->d);
	return 0;
}

static void test_driver_starts_and_is_served(void **state)
{
	struct world *w = *state;
	struct hv_buffer b = {.len = 100, .flags = HV_WRITE};
	uint32_t head, len;

	hv_driver_start(&w->d, ~UINT64_C(0));
	assert_int_equal(w->e.activated, 1);
	b.addr = hv_driver_alloc(&w->d, 100);
	assert_int_equal(hv_driver_add(&w->d, 1, &b, 1), 0);
	hv_driver_kick(&w->d, 1);
	assert_true(hv_driver_used(&w->d, 1, &head, &len));
	assert_int_equal(head, 0);
	assert_int_equal(len, 100);
	assert_false(hv_driver_used(&w->d, 1, NULL, NULL));
	assert_int_equal(hv_driver_interrupts(&w->d), 1);
	/* The same by the trapped notify register and the loop. */
	hv_driver_add_indirect(&w->d, 1, &b, 1);
	hv_driver_write(&w->d, 0x50, 1);
	hv_driver_wait(&w->d, 1);
	assert_true(hv_driver_used(&w->d, 1, &head, &len));
	assert_int_equal(head, 1);
}

enum {
	REG_FEATURES = 0x10,
	REG_FEATURES_SEL = 0x14,
	REG_DRIVER_FEATURES = 0x20,
	REG_DRIVER_FEATURES_SEL = 0x24,
	REG_QUEUE_SEL = 0x30,
	REG_QUEUE_SIZE_MAX = 0x34,
	REG_QUEUE_SIZE = 0x38,
	REG_QUEUE_READY = 0x44,
	REG_NOTIFY = 0x50,
	REG_INTERRUPT_STATUS = 0x60,
	REG_INTERRUPT_ACK = 0x64,
	REG_STATUS = 0x70,
	REG_GENERATION = 0xfc,
};

/* What Linux 6.1 does (virtio_mmio.c, virtio.c), with what it must read. */
static void test_transcript_of_a_start(void **state)
{
	static const struct {
		bool write;
		uint32_t offset, value;
	} steps[] = {
		{false, 0x00, 0x74726976},
		{false, 0x04, 2},
		{false, 0x08, 42},
		{false, 0x0c, 0x4b524254},
		{true, REG_STATUS, 0},
		{false, REG_STATUS, 0},
		{true, REG_STATUS, 1},
		{true, REG_STATUS, 3},
		{true, REG_FEATURES_SEL, 1},
		{false, REG_FEATURES, 1},
		{true, REG_FEATURES_SEL, 0},
		{false, REG_FEATURES, 0x30000005},
		{true, REG_FEATURES_SEL, 2},
		{false, REG_FEATURES, 0},
		{true, REG_DRIVER_FEATURES_SEL, 1},
		{true, REG_DRIVER_FEATURES, 1},
		{true, REG_DRIVER_FEATURES_SEL, 0},
		{true, REG_DRIVER_FEATURES, 0x30000001},
		{true, REG_STATUS, 11},
		{false, REG_STATUS, 11},
		{true, REG_QUEUE_SEL, 1},
		{false, REG_QUEUE_READY, 0},
		{false, REG_QUEUE_SIZE_MAX, 64},
		{true, REG_QUEUE_SIZE, 32},
		{true, 0x80, 0x40000000},
		{true, 0x84, 0},
		{true, 0x90, 0x40001000},
		{true, 0x94, 0},
		{true, 0xa0, 0x40002000},
		{true, 0xa4, 0},
		{true, REG_QUEUE_READY, 1},
		{false, REG_QUEUE_READY, 1},
		{true, REG_QUEUE_SEL, 0},
		{false, REG_QUEUE_READY, 0},
		{true, REG_QUEUE_SEL, 2},
		{false, REG_QUEUE_SIZE_MAX, 0},
		{false, REG_QUEUE_READY, 0},
		{true, REG_STATUS, 15},
		{false, REG_STATUS, 15},
		{false, REG_INTERRUPT_STATUS, 1},
		{true, REG_INTERRUPT_ACK, 1},
		{false, REG_INTERRUPT_STATUS, 1},
		{false, 0xb0, 0xffffffff},
		{false, 0xb4, 0xffffffff},
		{false, 0xb8, 0xffffffff},
		{false, 0xbc, 0xffffffff},
		/* Registers that are only written read as nothing. */
		{false, REG_FEATURES_SEL, 0},
		{false, REG_QUEUE_SEL, 0},
		{false, REG_NOTIFY, 0},
		{false, 0x80, 0},
	};
	struct world *w = *state;
	size_t i;

	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		if (steps[i].write) {
			hv_driver_write(&w->d, steps[i].offset, steps[i].value);
		} else if (hv_driver_read(&w->d, steps[i].offset) != steps[i].value) {
			fail_msg("step %zu: 0x%02x reads 0x%x, not 0x%x", i, steps[i].offset,
				 hv_driver_read(&w->d, steps[i].offset), steps[i].value);
		}
	}
	assert_int_equal(w->e.v.acked, UINT64_C(0x130000001));
	assert_true(w->e.v.active);
	assert_int_equal(w->e.activated, 1);
	assert_true(w->e.v.queue[1].ready);
	assert_true(w->e.v.queue[1].event_idx);
	assert_true(w->e.v.queue[1].indirect);
	assert_int_equal(w->e.v.queue[1].size, 32);
	assert_false(w->e.v.queue[0].ready);
	/* A queue that was not set up is not kicked. */
	hv_driver_kick(&w->d, 0);
	assert_int_equal(w->e.kicks[0], 0);
	/* And back. */
	hv_driver_write(&w->d, REG_STATUS, 0);
	assert_int_equal(hv_driver_read(&w->d, REG_STATUS), 0);
	assert_false(w->e.v.active);
	assert_int_equal(w->e.v.acked, 0);
	assert_int_equal(w->e.v.queue[1].size, 0);
	assert_int_equal(w->e.resets, 2);
}

/* From `before`, writing `write` gives `after`: steps in order, none back, none unknown. */
static void test_steps_of_the_status(void **state)
{
	static const struct {
		uint32_t before[5], write, after;
	} cases[] = {
		{{0}, 1, 1},	  {{0}, 2, 0}, /* DRIVER without ACKNOWLEDGE */
		{{0}, 3, 3},	  {{0}, 4, 0}, {{1}, 9, 1}, /* FEATURES_OK without DRIVER */
		{{3}, 11, 3}, /* FEATURES_OK without VERSION_1 */
		{{3}, 7, 3}, /* DRIVER_OK without FEATURES_OK */
		{{3}, 1, 3}, /* back */
		{{3}, 3 | 16, 3}, /* unknown bits */
		{{3}, 3 | 64, 3}, /* the device's own */
		{{3}, 131, 131}, /* FAILED */
		{{131}, 3, 131},  {{3}, 0, 0},
	};
	struct world *w = *state;
	size_t i;
	unsigned j;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		hv_driver_write(&w->d, REG_STATUS, 0);
		for (j = 0; cases[i].before[j] != 0; j++) {
			hv_driver_write(&w->d, REG_STATUS, cases[i].before[j]);
		}
		hv_driver_write(&w->d, REG_STATUS, cases[i].write);
		if (hv_driver_read(&w->d, REG_STATUS) != cases[i].after) {
			fail_msg("case %zu: %u, not %u", i, hv_driver_read(&w->d, REG_STATUS),
				 cases[i].after);
		}
	}
	assert_int_equal(w->e.activated, 0);
}

static void test_features_that_were_not_offered(void **state)
{
	struct world *w = *state;

	hv_driver_write(&w->d, REG_STATUS, 3);
	hv_driver_write(&w->d, REG_DRIVER_FEATURES_SEL, 1);
	hv_driver_write(&w->d, REG_DRIVER_FEATURES, 1);
	hv_driver_write(&w->d, REG_DRIVER_FEATURES_SEL, 0);
	hv_driver_write(&w->d, REG_DRIVER_FEATURES, 2); /* is not there */
	hv_driver_write(&w->d, REG_STATUS, 11);
	assert_int_equal(hv_driver_read(&w->d, REG_STATUS), 3);
	assert_int_equal(w->e.v.acked, VIRTIO_F_VERSION_1_BIT);
	/* It may think again. */
	hv_driver_write(&w->d, REG_DRIVER_FEATURES, 4);
	hv_driver_write(&w->d, REG_STATUS, 11);
	assert_int_equal(hv_driver_read(&w->d, REG_STATUS), 11);
	/* But not after it was said. */
	hv_driver_write(&w->d, REG_DRIVER_FEATURES, 1);
	assert_int_equal(w->e.v.acked, VIRTIO_F_VERSION_1_BIT | 4);
	/* A reset forgets what was wrong, and all selectors. */
	hv_driver_reset(&w->d);
	hv_driver_write(&w->d, REG_STATUS, 3);
	hv_driver_write(&w->d, REG_DRIVER_FEATURES, 2);
	hv_driver_write(&w->d, REG_FEATURES_SEL, 1);
	hv_driver_write(&w->d, REG_DRIVER_FEATURES_SEL, 1);
	hv_driver_write(&w->d, REG_QUEUE_SEL, 9);
	hv_driver_reset(&w->d);
	assert_int_equal(hv_driver_read(&w->d, REG_FEATURES), 0x30000005);
	assert_int_equal(hv_driver_read(&w->d, REG_QUEUE_SIZE_MAX), 64);
	hv_driver_write(&w->d, REG_STATUS, 3);
	hv_driver_write(&w->d, REG_DRIVER_FEATURES, 1);
	assert_int_equal(w->e.v.acked, 1);
	hv_driver_write(&w->d, REG_DRIVER_FEATURES_SEL, 1);
	hv_driver_write(&w->d, REG_DRIVER_FEATURES, 1);
	hv_driver_write(&w->d, REG_STATUS, 11);
	assert_int_equal(hv_driver_read(&w->d, REG_STATUS), 11);
	/* A bank that does not exist is nobody's. */
	hv_driver_reset(&w->d);
	hv_driver_write(&w->d, REG_STATUS, 3);
	hv_driver_write(&w->d, REG_DRIVER_FEATURES_SEL, 2);
	hv_driver_write(&w->d, REG_DRIVER_FEATURES, 1);
	hv_driver_write(&w->d, REG_DRIVER_FEATURES_SEL, 0xffffffff);
	hv_driver_write(&w->d, REG_DRIVER_FEATURES, 1);
	assert_int_equal(w->e.v.acked, 0);
}

static void test_features_before_a_driver(void **state)
{
	struct world *w = *state;

	hv_driver_write(&w->d, REG_DRIVER_FEATURES_SEL, 1);
	hv_driver_write(&w->d, REG_DRIVER_FEATURES, 1);
	assert_int_equal(w->e.v.acked, 0);
}

static void test_queues_are_set_between_features_and_start(void **state)
{
	struct world *w = *state;

	hv_driver_write(&w->d, REG_STATUS, 3);
	hv_driver_write(&w->d, REG_QUEUE_SIZE, 8);
	hv_driver_write(&w->d, 0x80, 0x40000000);
	hv_driver_write(&w->d, REG_QUEUE_READY, 1);
	assert_int_equal(hv_driver_read(&w->d, REG_QUEUE_READY), 0);
	assert_int_equal(w->e.v.queue[0].size, 0);
	hv_driver_start(&w->d, 0);
	hv_driver_write(&w->d, REG_QUEUE_SEL, 0);
	hv_driver_write(&w->d, REG_QUEUE_SIZE, 8);
	hv_driver_write(&w->d, 0x80, 0x40000000);
	assert_int_equal(w->e.v.queue[0].size, 64);
	assert_int_equal(w->e.v.queue[0].desc, w->d.ring[0].desc);
	hv_driver_write(&w->d, REG_QUEUE_READY, 1); /* it is already */
	hv_driver_write(&w->d, REG_STATUS, 15); /* likewise */
	assert_int_equal(w->e.activated, 1);
	hv_driver_write(&w->d, REG_QUEUE_READY, 7); /* is no word */
	assert_false(hv_driver_failed(&w->d));
}

static void test_sizes_and_places_that_cannot_be(void **state)
{
	static const struct {
		uint32_t size, desc_low, desc_high;
		bool good;
	} cases[] = {
		{64, 0x40000000, 0, true},	     {1, 0x40000000, 0, true},
		{0, 0x40000000, 0, false},	     {65, 0x40000000, 0, false},
		{128, 0x40000000, 0, false},	     {0x10040, 0x40000000, 0, false},
		{48, 0x40000000, 0, false},	     {64, 0x40000008, 0, false},
		{64, 0x3ffffff0, 0, false},	     {64, 0x400ffff0, 0, false},
		{64, 0x40000000, 1, false},	     {64, 0, 0, false},
		{64, 0xfffffff0, UINT32_MAX, false},
	};
	struct world *w = *state;
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		hv_driver_negotiate(&w->d, 0);
		hv_driver_write(&w->d, REG_QUEUE_SIZE, cases[i].size);
		assert_true(w->e.v.queue[0].size == cases[i].size ||
			    (!cases[i].good && w->e.v.queue[0].size == 0));
		assert_true(w->e.v.queue[0].size <= 64 && w->e.v.queue[0].size != 48);
		hv_driver_write(&w->d, 0x80, cases[i].desc_low);
		hv_driver_write(&w->d, 0x84, cases[i].desc_high);
		hv_driver_write(&w->d, 0x90, 0x40001000);
		hv_driver_write(&w->d, 0xa0, 0x40002000);
		hv_driver_write(&w->d, REG_QUEUE_READY, 1);
		if (hv_driver_read(&w->d, REG_QUEUE_READY) != cases[i].good ||
		    hv_driver_failed(&w->d) == cases[i].good) {
			fail_msg("case %zu", i);
		}
		/* A failed device starts no more, until it is reset. */
		hv_driver_write(&w->d, REG_STATUS, 15);
		assert_int_equal(w->e.v.active, cases[i].good);
	}
}

static void test_a_queue_may_be_taken_back_before_the_start(void **state)
{
	struct world *w = *state;

	hv_driver_negotiate(&w->d, 0);
	hv_driver_write(&w->d, REG_QUEUE_READY, 7); /* is no word */
	assert_int_equal(hv_driver_read(&w->d, REG_QUEUE_READY), 0);
	hv_driver_queue(&w->d, 0, 8);
	hv_driver_write(&w->d, REG_QUEUE_SIZE, 16); /* too late */
	assert_int_equal(w->e.v.queue[0].size, 8);
	hv_driver_write(&w->d, REG_QUEUE_READY, 0);
	assert_int_equal(hv_driver_read(&w->d, REG_QUEUE_READY), 0);
	hv_driver_queue(&w->d, 0, 16);
	assert_false(hv_driver_failed(&w->d));
	hv_driver_write(&w->d, REG_STATUS, 15);
	hv_driver_write(&w->d, REG_QUEUE_READY, 0);
	assert_true(hv_driver_failed(&w->d));
}

static void test_a_broken_ring_fails_the_device(void **state)
{
	struct world *w = *state;
	struct hv_buffer bad = {.addr = 0, .len = 4};

	hv_driver_start(&w->d, ~UINT64_C(0));
	hv_driver_add(&w->d, 0, &bad, 1);
	hv_driver_kick(&w->d, 0);
	assert_true(hv_driver_failed(&w->d));
	assert_int_equal(hv_driver_read(&w->d, REG_INTERRUPT_STATUS), 3);
	assert_int_equal(hv_driver_interrupts(&w->d), 1);
	assert_int_equal(w->e.v.counters.failures, 1);
	/* Dead: kicks of any queue are not heard, and nothing can be set. */
	hv_driver_kick(&w->d, 1);
	assert_int_equal(w->e.kicks[1], 0);
	hv_driver_write(&w->d, REG_STATUS, 15);
	assert_true(hv_driver_failed(&w->d));
	hv_driver_write(&w->d, REG_QUEUE_READY, 1);
	assert_int_equal(hv_driver_read(&w->d, REG_QUEUE_READY), 0);
	/* A reset brings it back. */
	hv_driver_start(&w->d, ~UINT64_C(0));
	assert_int_equal(hv_driver_read(&w->d, REG_INTERRUPT_STATUS), 1);
	bad = (struct hv_buffer){.addr = hv_driver_alloc(&w->d, 4), .len = 4};
	hv_driver_add(&w->d, 0, &bad, 1);
	hv_driver_kick(&w->d, 0);
	assert_true(hv_driver_used(&w->d, 0, NULL, NULL));
}

static void test_a_change_of_the_config_is_told_and_acknowledged(void **state)
{
	struct world *w = *state;
	uint32_t generation = hv_driver_read(&w->d, REG_GENERATION);

	/* Before the driver runs it is shown, not told. */
	w->e.v.config[0] = 'A';
	virtio_config_changed(&w->e.v);
	assert_int_equal(hv_driver_config(&w->d, 0, 4), 0x64636241);
	assert_int_equal(hv_driver_read(&w->d, REG_GENERATION), generation + 1);
	assert_int_equal(hv_driver_interrupts(&w->d), 0);
	assert_int_equal(hv_driver_read(&w->d, REG_INTERRUPT_STATUS), 1);
	hv_driver_start(&w->d, 0);
	virtio_config_changed(&w->e.v);
	assert_int_equal(hv_driver_interrupts(&w->d), 1);
	assert_int_equal(hv_driver_read(&w->d, REG_INTERRUPT_STATUS), 3);
	/* An acknowledge of the rings alone leaves it (where no ioeventfd swallows it). */
	hv_driver_write(&w->d, REG_INTERRUPT_ACK, 1);
	assert_int_equal(hv_driver_read(&w->d, REG_INTERRUPT_STATUS), 3);
	hv_driver_write(&w->d, REG_INTERRUPT_ACK, 3);
	assert_int_equal(hv_driver_read(&w->d, REG_INTERRUPT_STATUS), 1);
}

static void test_config_of_all_widths(void **state)
{
	struct world *w = *state;

	assert_int_equal(hv_driver_config(&w->d, 0, 1), 'a');
	assert_int_equal(hv_driver_config(&w->d, 1, 2), 'b' | 'c' << 8);
	assert_int_equal(hv_driver_config(&w->d, 8, 4), 0x6c6b6a69);
	assert_true(hv_driver_config(&w->d, 4, 8) == UINT64_C(0x6c6b6a6968676665));
	assert_int_equal(hv_driver_config(&w->d, 12, 8), 0);
	hv_driver_config_write(&w->d, 3, 0x1258, 1);
	assert_int_equal(hv_driver_config(&w->d, 0, 8), UINT64_C(0x6867666558636261));
	assert_int_equal(w->e.written_offset, 3);
	assert_int_equal(w->e.written_len, 1);
	hv_driver_config_write(&w->d, 4, 0, 8);
	assert_int_equal(w->e.written_len, 8);
	assert_int_equal(hv_driver_config(&w->d, 8, 4), 0);
	/* Past the end nothing is written, not even the part that is inside. */
	w->e.written_len = 0;
	hv_driver_config_write(&w->d, 8, UINT64_MAX, 8);
	hv_driver_config_write(&w->d, 12, UINT64_MAX, 1);
	hv_driver_config_write(&w->d, 0xe00, UINT64_MAX, 8);
	assert_int_equal(w->e.written_len, 0);
	assert_int_equal(hv_driver_config(&w->d, 8, 8), 0);
}

static void test_config_that_cannot_be_written(void **state)
{
	static struct virtio_class class;
	struct world *w = *state;

	class = echo_class;
	class.config_written = NULL;
	w->e.v.class = &class;
	hv_driver_config_write(&w->d, 0, 'x', 1);
	assert_int_equal(hv_driver_config(&w->d, 0, 1), 'a');
}

static void test_accesses_of_odd_places_and_widths(void **state)
{
	struct world *w = *state;

	hv_driver_start(&w->d, 0);
	mmio_write(&w->d.mmio, REG_STATUS, 0, 1);
	mmio_write(&w->d.mmio, REG_STATUS, 0, 2);
	mmio_write(&w->d.mmio, REG_STATUS, 0, 8);
	mmio_write(&w->d.mmio, REG_STATUS + 1, 0, 4);
	hv_driver_write(&w->d, 0x00, 0);
	hv_driver_write(&w->d, 0x60, 0);
	hv_driver_write(&w->d, 0xfc, 0);
	hv_driver_write(&w->d, REG_NOTIFY, 2);
	hv_driver_write(&w->d, REG_NOTIFY, 0xffffffff);
	hv_driver_write(&w->d, REG_QUEUE_SEL, 0xffffffff);
	hv_driver_write(&w->d, REG_QUEUE_READY, 1);
	hv_driver_write(&w->d, REG_QUEUE_SIZE, 8);
	assert_int_equal(hv_driver_read(&w->d, REG_STATUS), 15);
	assert_int_equal(hv_driver_read(&w->d, 0), 0x74726976);
	assert_int_equal(mmio_read(&w->d.mmio, MMIO_PAGE_SIZE - 4, 8), 0);
	assert_int_equal(mmio_read(&w->d.mmio, MMIO_PAGE_SIZE, 4), 0);
	assert_int_equal(mmio_read(&w->d.mmio, 0xffff, 1), 0);
	assert_int_equal(mmio_read(&w->d.mmio, 0, 8), UINT64_C(0x274726976));
}

static void test_kicks_before_the_start_are_not_lost(void **state)
{
	struct world *w = *state;
	struct hv_buffer b = {.len = 8, .flags = HV_WRITE};

	hv_driver_negotiate(&w->d, 0);
	hv_driver_queue(&w->d, 0, 8);
	b.addr = hv_driver_alloc(&w->d, 8);
	hv_driver_add(&w->d, 0, &b, 1);
	hv_driver_kick(&w->d, 0);
	assert_int_equal(w->e.kicks[0], 0);
	hv_driver_write(&w->d, REG_STATUS, 15);
	hv_driver_wait(&w->d, 0);
	assert_int_equal(w->e.kicks[0], 1);
}

static void test_a_paused_device_keeps_its_kicks(void **state)
{
	struct world *w = *state;
	struct hv_buffer b = {.len = 8, .flags = HV_WRITE};

	hv_driver_start(&w->d, 0);
	b.addr = hv_driver_alloc(&w->d, 8);
	virtio_pause(&w->e.v);
	virtio_pause(&w->e.v);
	hv_driver_add(&w->d, 1, &b, 1);
	hv_driver_kick(&w->d, 1);
	assert_int_equal(w->e.kicks[1], 0);
	virtio_resume(&w->e.v);
	hv_driver_wait(&w->d, 1);
	assert_int_equal(w->e.kicks[1], 1);
	virtio_resume(&w->e.v);
}

static void test_a_driver_that_gave_up_is_not_served(void **state)
{
	struct world *w = *state;

	hv_driver_start(&w->d, 0);
	hv_driver_write(&w->d, REG_STATUS, 15 | VIRTIO_STATUS_FAILED);
	hv_driver_kick(&w->d, 0);
	assert_int_equal(w->e.kicks[0], 0);
	/* Then it may take its queues away. */
	hv_driver_write(&w->d, REG_QUEUE_SEL, 1);
	hv_driver_write(&w->d, REG_QUEUE_READY, 0);
	assert_int_equal(hv_driver_read(&w->d, REG_QUEUE_READY), 0);
	assert_false(hv_driver_failed(&w->d));
}

static void test_saved_and_loaded(void **state)
{
	struct world *w = *state;
	struct hv_buffer b = {.len = 8, .flags = HV_WRITE};
	struct virtio_state saved, again;
	uint32_t head;

	memset(&saved, 0, sizeof(saved));
	memset(&again, 0, sizeof(again));
	hv_driver_start_sized(&w->d, ~UINT64_C(0), 16);
	b.addr = hv_driver_alloc(&w->d, 8);
	hv_driver_add(&w->d, 1, &b, 1);
	hv_driver_kick(&w->d, 1);
	assert_true(hv_driver_used(&w->d, 1, &head, NULL));
	hv_driver_add(&w->d, 1, &b, 1);
	virtio_pause(&w->e.v);
	virtio_save(&w->e.v, &saved);
	virtio_set_status(&w->e.v, 0);
	assert_int_equal(virtio_load(&w->e.v, &saved), 0);
	mmio_refresh(&w->d.mmio);
	virtio_save(&w->e.v, &again);
	assert_memory_equal(&saved, &again, sizeof(saved));
	assert_true(w->e.v.queue[1].event_idx && w->e.v.queue[1].indirect);
	assert_int_equal(w->e.activated, 2);
	assert_int_equal(hv_driver_read(&w->d, REG_STATUS), 15);
	virtio_resume(&w->e.v);
	hv_driver_wait(&w->d, 1);
	assert_true(hv_driver_used(&w->d, 1, &head, NULL));
	assert_int_equal(head, 1);
}

static void load_refuses(struct world *w, const struct virtio_state *s, const char *why)
{
	if (virtio_load(&w->e.v, s) != -EINVAL) {
		fail_msg("loaded: %s", why);
	}
	assert_int_equal(w->e.v.status, 0);
	assert_int_equal(w->e.v.acked, 0);
	assert_int_equal(w->e.v.queue[0].size, 0);
	assert_false(w->e.v.active || w->e.v.queue[0].ready);
	assert_true(w->e.v.paused);
}

static void test_states_that_cannot_be(void **state)
{
	struct world *w = *state;
	struct virtio_state good, s;

	hv_driver_start_sized(&w->d, ~UINT64_C(0), 16);
	virtio_pause(&w->e.v);
	virtio_save(&w->e.v, &good);
	virtio_set_status(&w->e.v, 0);
#define refused(change, why)                                                                       \
	do {                                                                                       \
		s = good;                                                                          \
		change;                                                                            \
		load_refuses(w, &s, why);                                                          \
	} while (0)
	refused(s.acked |= 2, "a feature that is not offered");
	refused(s.acked &= ~VIRTIO_F_VERSION_1_BIT, "not modern");
	refused(s.status = 7; s.queue[0].ready = s.queue[1].ready = false, "a step left out");
	refused(s.status |= 32, "an unknown status");
	refused(s.status = 3, "a ready queue before FEATURES_OK");
	refused(s.status |= VIRTIO_STATUS_NEEDS_RESET, "a ready queue of a failed device");
	refused(s.queue[0].size = 128, "a queue too large");
	refused(s.queue[1].size = 12, "no power of two");
	refused(s.queue[1].size = 0, "a queue without size");
	refused(s.queue[1].desc = 8, "descriptors outside");
	refused(s.queue[1].used += 2, "unaligned");
	refused(s.word_count = 1, "a word too many");
	refused(s.word_count = UINT32_MAX, "many words");
#undef refused
	s = good;
	s.queue[0].next_avail = 0x8000;
	s.queue[0].next_used = 0xffff;
	assert_int_equal(virtio_load(&w->e.v, &s), 0);
	virtio_resume(&w->e.v);
	/* Indices that do not fit the ring fail the device, as if the driver had done it. */
	hv_driver_kick(&w->d, 0);
	assert_true(hv_driver_failed(&w->d));
}

static int words_load(struct virtio *v, const uint64_t *words, unsigned count)
{
	(void)words;
	assert_true(count <= VIRTIO_STATE_WORDS);
	return v->paused ? 0 : -EINVAL;
}

static void test_more_words_than_there_are(void **state)
{
	static struct virtio_class class;
	struct world *w = *state;
	struct virtio_state s = {.word_count = VIRTIO_STATE_WORDS};

	class = echo_class;
	class.load = words_load;
	w->e.v.class = &class;
	virtio_pause(&w->e.v);
	assert_int_equal(virtio_load(&w->e.v, &s), 0);
	s.word_count++;
	assert_int_equal(virtio_load(&w->e.v, &s), -EINVAL);
}

static void test_page_is_made_anew(void **state)
{
	struct world *w = *state;
	uint8_t before[MMIO_PAGE_SIZE];

	hv_driver_start(&w->d, ~UINT64_C(0));
	virtio_config_changed(&w->e.v);
	hv_driver_write(&w->d, REG_QUEUE_SEL, 1);
	memcpy(before, w->d.page, sizeof(before));
	memset(w->d.page, 0xff, MMIO_PAGE_SIZE);
	mmio_refresh(&w->d.mmio);
	assert_memory_equal(before, w->d.page, sizeof(before));
}

static void test_reset_of_the_machine(void **state)
{
	struct world *w = *state;

	hv_driver_start(&w->d, ~UINT64_C(0));
	virtio_config_changed(&w->e.v);
	hv_driver_write(&w->d, REG_QUEUE_SEL, 5);
	hv_driver_write(&w->d, REG_FEATURES_SEL, 1);
	mmio_reset(&w->d.mmio);
	assert_int_equal(hv_driver_read(&w->d, REG_STATUS), 0);
	assert_int_equal(hv_driver_read(&w->d, REG_INTERRUPT_STATUS), 1);
	assert_int_equal(hv_driver_read(&w->d, REG_QUEUE_SIZE_MAX), 64);
	assert_int_equal(hv_driver_read(&w->d, REG_FEATURES), 0x30000005);
	assert_false(w->e.v.active);
}

static void test_failures_are_logged_once_a_second(void **state)
{
	const uint64_t later = UINT64_MAX / 2;
	struct world *w = *state;

	virtio_fail(&w->e.v, "something");
	assert_true(w->e.v.fail_logged_ms > 0);
	w->e.v.fail_logged_ms = later; /* less than a second ago at any rate */
	virtio_fail(&w->e.v, "something");
	assert_true(w->e.v.fail_logged_ms == later);
	w->e.v.fail_logged_ms = 1;
	virtio_fail(&w->e.v, "something");
	assert_true(w->e.v.fail_logged_ms > 1);
	assert_int_equal(w->e.v.counters.failures, 3);
}

#define case_of(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		case_of(test_driver_starts_and_is_served),
		case_of(test_transcript_of_a_start),
		case_of(test_steps_of_the_status),
		case_of(test_features_that_were_not_offered),
		case_of(test_features_before_a_driver),
		case_of(test_queues_are_set_between_features_and_start),
		case_of(test_sizes_and_places_that_cannot_be),
		case_of(test_a_queue_may_be_taken_back_before_the_start),
		case_of(test_a_broken_ring_fails_the_device),
		case_of(test_a_change_of_the_config_is_told_and_acknowledged),
		case_of(test_config_of_all_widths),
		case_of(test_config_that_cannot_be_written),
		case_of(test_accesses_of_odd_places_and_widths),
		case_of(test_kicks_before_the_start_are_not_lost),
		case_of(test_a_paused_device_keeps_its_kicks),
		case_of(test_a_driver_that_gave_up_is_not_served),
		case_of(test_saved_and_loaded),
		case_of(test_states_that_cannot_be),
		case_of(test_more_words_than_there_are),
		case_of(test_reset_of_the_machine),
		case_of(test_page_is_made_anew),
		case_of(test_failures_are_logged_once_a_second),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
