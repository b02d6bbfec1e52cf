/* The guest's console with an owner that takes little, nothing, or everything, and types too fast.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/layout.h"
#include "hv/virtio/console.h"
#include "tests/unit/hv_driver.h"

enum { RX = 0, TX = 1, SEEN_MAX = 300 << 10 };

struct world {
	struct hv_driver d;
	struct vconsole *c;
	uint8_t *seen; /* what the owner took */
	size_t seen_len;
	size_t room; /* what it still takes */
	unsigned calls, readies;
	const struct hv_buffer *more; /* what the guest prints whenever something was taken */
};

static size_t output(void *arg, const uint8_t *data, size_t len)
{
	struct world *w = arg;
	size_t taken = len < w->room ? len : w->room;

	w->calls++;
	assert_true(taken <= SEEN_MAX - w->seen_len);
	memcpy(w->seen + w->seen_len, data, taken);
	w->seen_len += taken;
	w->room -= taken;
	if (w->more != NULL) {
		hv_driver_add(&w->d, TX, w->more, 1);
	}
	return taken;
}

static void input_ready(void *arg)
{
	((struct world *)arg)->readies++;
}

static void make(struct world *w, const struct vconsole_config *config)
{
	struct fault fault = {0};

	hv_driver_open(&w->d, 1 << 20);
	assert_int_equal(vconsole_create(config, &w->d.ram, &w->d.loop, "console", &w->c, &fault),
			 0);
	hv_driver_attach(&w->d, vconsole_virtio(w->c));
	hv_driver_start(&w->d, ~UINT64_C(0));
	/* The size, if there is one. */
	assert_int_equal(hv_driver_interrupts(&w->d), config->columns != 0);
	assert_int_equal(hv_driver_read(&w->d, 0x60), config->columns != 0 ? 3 : 1);
	hv_driver_write(&w->d, 0x64, 2);
}

static int setup(void **state)
{
	static struct world w;
	const struct vconsole_config config = {
		.output = output, .input_ready = input_ready, .arg = &w, .columns = 80, .rows = 25};

	w = (struct world){.room = SIZE_MAX};
	w.seen = malloc(SEEN_MAX);
	make(&w, &config);
	*state = &w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	hv_driver_reset(&w->d);
	vconsole_destroy(w->c);
	hv_driver_close(&w->d);
	free(w->seen);
	return 0;
}

/* Bytes that differ with their place. */
static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 7 + i / 251);
}

/* `len` bytes of the pattern from `from` on, in a chain of two buffers. */
static void print(struct world *w, size_t from, uint32_t len)
{
	uint64_t at = hv_driver_alloc(&w->d, len);
	struct hv_buffer b[2] = {{.addr = at, .len = len / 3},
				 {.addr = at + len / 3, .len = len - len / 3}};
	size_t i;

	for (i = 0; i < len; i++) {
		((uint8_t *)hv_driver_at(&w->d, at))[i] = pattern(from + i);
	}
	hv_driver_add(&w->d, TX, len < 3 ? b + 1 : b, len < 3 ? 1 : 2);
}

static void must_have_seen(const struct world *w, size_t len)
{
	size_t i;

	assert_int_equal(w->seen_len, len);
	for (i = 0; i < len; i++) {
		if (w->seen[i] != pattern(i)) {
			fail_msg("byte %zu of %zu", i, len);
		}
	}
}

static unsigned used(struct world *w, unsigned queue)
{
	unsigned count = 0;

	while (hv_driver_used(&w->d, queue, NULL, NULL)) {
		count++;
	}
	return count;
}

static void test_the_guest_prints(void **state)
{
	struct world *w = *state;

	assert_int_equal(hv_driver_read(&w->d, 0x08), 3);
	print(w, 0, 1);
	print(w, 1, 5000);
	hv_driver_kick(&w->d, TX);
	assert_int_equal(used(w, TX), 2);
	must_have_seen(w, 5001);
	assert_int_equal(hv_driver_interrupts(&w->d), 1);
	assert_int_equal(hv_driver_avail_event(&w->d, TX), 2);
}

static void test_a_slow_owner_gets_it_later(void **state)
{
	struct world *w = *state;

	w->room = 10;
	print(w, 0, 100);
	hv_driver_kick(&w->d, TX);
	/* The guest does not wait: there is a backlog. */
	assert_int_equal(used(w, TX), 1);
	must_have_seen(w, 10);
	print(w, 100, 100);
	hv_driver_kick(&w->d, TX);
	assert_int_equal(used(w, TX), 1);
	must_have_seen(w, 10);
	w->room = 50;
	vconsole_output_ready(w->c);
	must_have_seen(w, 60);
	w->room = SIZE_MAX;
	vconsole_output_ready(w->c);
	must_have_seen(w, 200);
	/* Nothing is left: the next goes straight through. */
	w->calls = 0;
	vconsole_output_ready(w->c);
	assert_int_equal(w->calls, 0);
	print(w, 200, 3);
	hv_driver_kick(&w->d, TX);
	must_have_seen(w, 203);
	assert_int_equal(w->calls, 1);
}

static void test_a_full_backlog_leaves_chains_in_the_ring(void **state)
{
	struct world *w = *state;
	size_t at = 0;
	unsigned round;

	w->room = 0;
	print(w, 0, VCONSOLE_BACKLOG - 1000);
	print(w, VCONSOLE_BACKLOG - 1000, 4000);
	print(w, VCONSOLE_BACKLOG + 3000, 4000);
	hv_driver_kick(&w->d, TX);
	assert_int_equal(used(w, TX), 1);
	/* A kick changes nothing while nobody takes. */
	hv_driver_kick(&w->d, TX);
	assert_int_equal(used(w, TX), 0);
	/* In small bites, across the wrap of the backlog, all of it in order. */
	for (round = 0; w->seen_len < VCONSOLE_BACKLOG + 7000 && round < 100; round++) {
		w->room = 777;
		vconsole_output_ready(w->c);
		assert_true(w->seen_len > at);
		at = w->seen_len;
	}
	must_have_seen(w, VCONSOLE_BACKLOG + 7000);
	assert_int_equal(used(w, TX), 2);
}

static void test_the_backlog_wraps(void **state)
{
	struct world *w = *state;

	w->room = 0;
	print(w, 0, 12000);
	hv_driver_kick(&w->d, TX);
	w->room = 8000;
	vconsole_output_ready(w->c);
	print(w, 12000, 10000);
	hv_driver_kick(&w->d, TX);
	assert_int_equal(used(w, TX), 2);
	w->room = 10000;
	vconsole_output_ready(w->c);
	w->room = SIZE_MAX;
	vconsole_output_ready(w->c);
	must_have_seen(w, 22000);
}

static void test_nothing_overtakes_the_backlog(void **state)
{
	struct world *w = *state;

	w->room = 0;
	print(w, 0, 10);
	hv_driver_kick(&w->d, TX);
	/* There is room again, but the owner did not say so yet. */
	w->room = SIZE_MAX;
	print(w, 10, 10);
	hv_driver_kick(&w->d, TX);
	vconsole_output_ready(w->c);
	must_have_seen(w, 20);
}

static void test_one_kick_does_not_take_all_there_is(void **state)
{
	struct world *w = *state;
	struct hv_buffer b[4];
	unsigned i;

	print(w, 0, 100);
	/* 200 KiB in one chain of one buffer repeated, as a hostile driver may do with gigabytes.
	 */
	for (i = 0; i < 4; i++) {
		b[i] = (struct hv_buffer){.addr = LAYOUT_RAM, .len = 50 << 10};
	}
	hv_driver_add(&w->d, TX, b, 4);
	hv_driver_kick(&w->d, TX);
	assert_int_equal(w->seen_len, (64 << 10) - 2 * 64); /* each chain counts a little, too */
	assert_int_equal(used(w, TX), 1);
	/* It goes on by itself. */
	hv_driver_wait(&w->d, TX);
	assert_int_equal(w->seen_len, 100 + (200 << 10));
	assert_int_equal(used(w, TX), 1);
}

/* A driver on another processor that prints a byte whenever one was taken. */
static void test_a_guest_that_prints_without_end(void **state)
{
	struct world *w = *state;
	struct hv_buffer b = {.addr = hv_driver_alloc(&w->d, 1), .len = 1};

	w->more = &b;
	hv_driver_add(&w->d, TX, &b, 1);
	hv_driver_kick(&w->d, TX);
	assert_in_range(w->seen_len, 1, (64 << 10) / 64);
	/* It would go on. */
	w->more = NULL;
	hv_driver_wait(&w->d, TX);
	assert_true(used(w, TX) > 0);
}

static void test_an_owner_without_output(void **state)
{
	const struct vconsole_config config = {0};
	struct world w = {0};

	(void)state;
	make(&w, &config);
	/* No terminal, no size; but there may be one after a restore. */
	assert_int_equal(hv_driver_read(&w.d, 0x10) & 1, 1);
	assert_int_equal(hv_driver_config(&w.d, 0, 4), 0);
	assert_int_equal(hv_driver_config(&w.d, 4, 4), 1);
	print(&w, 0, 100);
	hv_driver_kick(&w.d, TX);
	assert_int_equal(used(&w, TX), 1);
	/* Nobody to tell that there is room again. */
	assert_int_equal(vconsole_input(w.c, (const uint8_t *)"x", 1), 0);
	hv_driver_kick(&w.d, RX);
	hv_driver_reset(&w.d);
	vconsole_destroy(w.c);
	hv_driver_close(&w.d);
}

static uint64_t listen(struct world *w, uint32_t len)
{
	struct hv_buffer b = {.len = len, .flags = HV_WRITE};

	b.addr = hv_driver_alloc(&w->d, len);
	hv_driver_add(&w->d, RX, &b, 1);
	return b.addr;
}

static void test_the_owner_types(void **state)
{
	struct world *w = *state;
	uint64_t a = listen(w, 4);
	uint64_t b = listen(w, 4);
	uint32_t len;

	hv_driver_kick(&w->d, RX);
	assert_int_equal(w->readies, 0);
	assert_int_equal(vconsole_input(w->c, (const uint8_t *)"abcdef", 6), 6);
	assert_true(hv_driver_used(&w->d, RX, NULL, &len));
	assert_int_equal(len, 4);
	assert_true(hv_driver_used(&w->d, RX, NULL, &len));
	assert_int_equal(len, 2);
	assert_memory_equal(hv_driver_at(&w->d, a), "abcd", 4);
	assert_memory_equal(hv_driver_at(&w->d, b), "ef", 2);
	assert_int_equal(hv_driver_interrupts(&w->d), 1);
	/* Everything was taken: nobody waits. */
	listen(w, 4);
	hv_driver_kick(&w->d, RX);
	assert_int_equal(w->readies, 0);
}

static void test_input_waits_for_buffers(void **state)
{
	struct world *w = *state;

	listen(w, 4);
	assert_int_equal(vconsole_input(w->c, (const uint8_t *)"abcdef", 6), 4);
	/* The device wants to know of the next buffer. */
	assert_int_equal(hv_driver_avail_event(&w->d, RX), 1);
	listen(w, 4);
	hv_driver_kick(&w->d, RX);
	assert_int_equal(w->readies, 1);
	assert_int_equal(vconsole_input(w->c, (const uint8_t *)"ef", 2), 2);
	listen(w, 4);
	hv_driver_kick(&w->d, RX);
	assert_int_equal(w->readies, 1);
}

static void test_input_before_the_driver_and_while_paused(void **state)
{
	struct world *w = *state;

	hv_driver_reset(&w->d);
	assert_int_equal(vconsole_input(w->c, (const uint8_t *)"a", 1), 0);
	hv_driver_start(&w->d, 0);
	listen(w, 4);
	hv_driver_kick(&w->d, RX);
	assert_int_equal(w->readies, 1);
	hv_driver_kick(&w->d, RX); /* it was told */
	assert_int_equal(w->readies, 1);
	virtio_pause(vconsole_virtio(w->c));
	assert_int_equal(vconsole_input(w->c, (const uint8_t *)"a", 1), 0);
	hv_driver_kick(&w->d, RX);
	assert_int_equal(w->readies, 1);
	virtio_resume(vconsole_virtio(w->c));
	hv_driver_kick(&w->d, RX); /* as the loop does after a resume */
	assert_int_equal(w->readies, 2);
	assert_int_equal(vconsole_input(w->c, (const uint8_t *)"a", 1), 1);
}

static void test_a_receive_buffer_without_room(void **state)
{
	struct world *w = *state;
	struct hv_buffer b = {.addr = hv_driver_alloc(&w->d, 4), .len = 4};

	hv_driver_add(&w->d, RX, &b, 1);
	assert_int_equal(vconsole_input(w->c, (const uint8_t *)"a", 1), 0);
	assert_true(hv_driver_failed(&w->d));
}

static void test_size_of_the_terminal(void **state)
{
	struct world *w = *state;

	assert_int_equal(hv_driver_read(&w->d, 0x10) & 1, 1);
	assert_int_equal(hv_driver_config(&w->d, 0, 2), 80);
	assert_int_equal(hv_driver_config(&w->d, 2, 2), 25);
	vconsole_resize(w->c, 132, 50);
	assert_int_equal(hv_driver_config(&w->d, 0, 4), 132 | 50 << 16);
	assert_int_equal(hv_driver_interrupts(&w->d), 1);
	assert_int_equal(hv_driver_read(&w->d, 0x60), 3);
}

static void test_saved_in_the_middle_of_a_chain(void **state)
{
	struct world *w = *state;
	struct virtio *v = vconsole_virtio(w->c);
	struct virtio_state s, bad;

	w->room = 5000;
	print(w, 0, 5000 + VCONSOLE_BACKLOG + 500);
	hv_driver_kick(&w->d, TX);
	assert_int_equal(used(w, TX), 0);
	virtio_pause(v);
	/* While paused nothing more is taken from the guest. */
	w->room = 1000;
	vconsole_output_ready(w->c);
	assert_int_equal(used(w, TX), 0);
	virtio_save(v, &s);
	assert_int_equal(s.words[0], 5000 + VCONSOLE_BACKLOG);
	virtio_set_status(v, 0);
	bad = s;
	bad.words[0] = UINT64_C(1) << 32;
	assert_int_equal(virtio_load(v, &bad), -EINVAL);
	bad = s;
	bad.word_count = 0;
	assert_int_equal(virtio_load(v, &bad), -EINVAL);
	assert_int_equal(virtio_load(v, &s), 0);
	w->room = SIZE_MAX;
	vconsole_output_ready(w->c);
	virtio_resume(v);
	hv_driver_wait(&w->d, TX);
	must_have_seen(w, 5000 + VCONSOLE_BACKLOG + 500);
}

static void test_a_new_driver_begins_at_the_front(void **state)
{
	struct world *w = *state;

	w->room = 0;
	print(w, 0, VCONSOLE_BACKLOG + 500);
	hv_driver_kick(&w->d, TX);
	hv_driver_start(&w->d, 0);
	/* What the old one printed still comes, then the new one's from its beginning. */
	print(w, VCONSOLE_BACKLOG, 700);
	hv_driver_kick(&w->d, TX);
	assert_int_equal(used(w, TX), 0);
	w->room = SIZE_MAX;
	vconsole_output_ready(w->c);
	assert_int_equal(used(w, TX), 1);
	must_have_seen(w, VCONSOLE_BACKLOG + 700);
}

static void test_a_guest_that_shortens_a_chain_under_way(void **state)
{
	struct world *w = *state;
	uint64_t desc = w->d.ring[TX].desc;
	uint32_t shorter = 10;

	w->room = 0;
	print(w, 0, VCONSOLE_BACKLOG + 500);
	hv_driver_kick(&w->d, TX);
	memcpy(hv_driver_at(&w->d, desc + 8), &shorter, 4);
	memcpy(hv_driver_at(&w->d, desc + 24), &shorter, 4);
	w->room = SIZE_MAX;
	vconsole_output_ready(w->c);
	assert_int_equal(used(w, TX), 1);
	must_have_seen(w, VCONSOLE_BACKLOG);
	assert_false(hv_driver_failed(&w->d));
}

#define case_of(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		case_of(test_the_guest_prints),
		case_of(test_a_slow_owner_gets_it_later),
		case_of(test_a_full_backlog_leaves_chains_in_the_ring),
		case_of(test_the_backlog_wraps),
		case_of(test_nothing_overtakes_the_backlog),
		case_of(test_one_kick_does_not_take_all_there_is),
		case_of(test_a_guest_that_prints_without_end),
		cmocka_unit_test(test_an_owner_without_output),
		case_of(test_the_owner_types),
		case_of(test_input_waits_for_buffers),
		case_of(test_input_before_the_driver_and_while_paused),
		case_of(test_a_receive_buffer_without_room),
		case_of(test_size_of_the_terminal),
		case_of(test_saved_in_the_middle_of_a_chain),
		case_of(test_a_new_driver_begins_at_the_front),
		case_of(test_a_guest_that_shortens_a_chain_under_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
