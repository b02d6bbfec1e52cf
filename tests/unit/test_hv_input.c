/* The power button: what Linux's virtio_input asks it at its start, what a press tells, and what
 * happens when the driver has too few buffers or too small ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "hv/virtio/input.h"
#include "tests/unit/hv_driver.h"

struct world {
	struct hv_driver d;
	struct vinput *i;
	uint64_t events; /* 16 buffers of 8 bytes */
};

static int setup(void **state)
{
	static struct world w;
	struct fault fault = {0};

	w = (struct world){0};
	hv_driver_open(&w.d, 1 << 20);
	assert_int_equal(vinput_create(NULL, &w.d.ram, &w.d.loop, "button", &w.i, &fault), 0);
	hv_driver_attach(&w.d, vinput_virtio(w.i));
	hv_driver_start(&w.d, ~UINT64_C(0));
	w.events = hv_driver_alloc(&w.d, 8 * 16);
	*state = &w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	hv_driver_reset(&w->d);
	vinput_destroy(w->i);
	hv_driver_close(&w->d);
	return 0;
}

static unsigned ask(struct world *w, uint8_t select, uint8_t subsel)
{
	hv_driver_config_write(&w->d, 0, select, 1);
	hv_driver_config_write(&w->d, 1, subsel, 1);
	return (unsigned)hv_driver_config(&w->d, 2, 1);
}

static void test_what_it_says_of_itself(void **state)
{
	struct world *w = *state;
	char name[32] = "";
	unsigned i, subsel;

	assert_int_equal(hv_driver_read(&w->d, 0x08), 18);
	assert_int_equal(ask(w, 0, 0), 0);
	assert_int_equal(ask(w, 1, 0), 21); /* name */
	for (i = 0; i < 21; i++) {
		name[i] = (char)hv_driver_config(&w->d, 8 + i, 1);
	}
	assert_string_equal(name, "Tiebreak power button");
	assert_int_equal(ask(w, 1, 1), 0);
	assert_int_equal(hv_driver_config(&w->d, 8, 8), 0);
	assert_int_equal(ask(w, 2, 0), 0); /* serial */
	assert_int_equal(ask(w, 3, 0), 8); /* bus, vendor, product, version */
	assert_int_equal(hv_driver_config(&w->d, 8, 8), UINT64_C(0x0001000100000006));
	assert_int_equal(ask(w, 3, 1), 0);
	assert_int_equal(ask(w, 0x10, 0), 0); /* properties */
	for (subsel = 0; subsel < 256; subsel++) {
		assert_int_equal(ask(w, 0x11, (uint8_t)subsel), subsel == 1 ? 15 : 0);
		assert_int_equal(hv_driver_config(&w->d, 8 + 14, 1), subsel == 1 ? 0x10 : 0);
	}
	assert_int_equal(ask(w, 0x12, 0), 0);
	/* What it says cannot be written. */
	assert_int_equal(ask(w, 1, 0), 21);
	hv_driver_config_write(&w->d, 8, 'X', 1);
	hv_driver_config_write(&w->d, 2, 99, 1);
	assert_int_equal(hv_driver_config(&w->d, 8, 1), 'T');
	assert_int_equal(hv_driver_config(&w->d, 2, 1), 21);
	hv_driver_reset(&w->d);
	assert_int_equal(hv_driver_config(&w->d, 0, 8), 0);
}

static void give(struct world *w, unsigned first, unsigned count, uint32_t len)
{
	unsigned i;

	for (i = first; i < first + count; i++) {
		struct hv_buffer b = {.addr = w->events + 8ull * i, .len = len, .flags = HV_WRITE};

		hv_driver_add(&w->d, 0, &b, 1);
	}
	hv_driver_kick(&w->d, 0);
}

static const uint16_t told[4][4] = {{1, 116, 1, 0}, {0, 0, 0, 0}, {1, 116, 0, 0}, {0, 0, 0, 0}};

static unsigned used_events(struct world *w)
{
	uint32_t len;
	unsigned count = 0;

	while (hv_driver_used(&w->d, 0, NULL, &len)) {
		assert_int_equal(len, 8);
		count++;
	}
	return count;
}

static void test_a_press(void **state)
{
	struct world *w = *state;

	give(w, 0, 16, 8);
	assert_int_equal(used_events(w), 0);
	assert_int_equal(vinput_press(w->i), 0);
	assert_int_equal(used_events(w), 4);
	assert_memory_equal(hv_driver_at(&w->d, w->events), told, sizeof(told));
	assert_int_equal(hv_driver_interrupts(&w->d), 1);
	assert_int_equal(vinput_press(w->i), 0);
	assert_int_equal(used_events(w), 4);
	assert_memory_equal(hv_driver_at(&w->d, w->events + sizeof(told)), told, sizeof(told));
}

static void test_a_press_with_too_few_buffers(void **state)
{
	struct world *w = *state;

	assert_int_equal(vinput_press(w->i), 0);
	assert_int_equal(used_events(w), 0);
	give(w, 0, 1, 8);
	assert_int_equal(used_events(w), 1);
	/* Another press meanwhile is the same press. */
	assert_int_equal(vinput_press(w->i), 0);
	give(w, 1, 2, 8);
	assert_int_equal(used_events(w), 2);
	/* The device asked for the kick that told it. */
	assert_int_equal(hv_driver_avail_event(&w->d, 0), 3);
	give(w, 3, 5, 8);
	assert_int_equal(used_events(w), 1);
	assert_memory_equal(hv_driver_at(&w->d, w->events), told, sizeof(told));
}

static void test_a_small_buffer_fails_it(void **state)
{
	struct world *w = *state;

	give(w, 0, 4, 7);
	assert_int_equal(vinput_press(w->i), 0);
	assert_true(hv_driver_failed(&w->d));
	assert_int_equal(vinput_press(w->i), -ENOTCONN);
}

static void test_a_press_without_a_driver(void **state)
{
	struct world *w = *state;

	/* A press that was not told before the driver went is gone with it. */
	assert_int_equal(vinput_press(w->i), 0);
	hv_driver_reset(&w->d);
	assert_int_equal(vinput_press(w->i), -ENOTCONN);
	hv_driver_start(&w->d, 0);
	give(w, 0, 4, 8);
	assert_int_equal(used_events(w), 0);
}

static void test_a_press_while_paused(void **state)
{
	struct world *w = *state;
	struct virtio *v = vinput_virtio(w->i);
	struct virtio_state s;

	give(w, 0, 4, 8);
	virtio_pause(v);
	assert_int_equal(vinput_press(w->i), 0);
	assert_int_equal(used_events(w), 0);
	/* It is in what is saved. */
	virtio_save(v, &s);
	virtio_set_status(v, 0);
	assert_int_equal(virtio_load(v, &s), 0);
	virtio_resume(v);
	hv_driver_wait(&w->d, 0);
	assert_int_equal(used_events(w), 4);
}

static void test_states_that_cannot_be(void **state)
{
	struct world *w = *state;
	struct virtio *v = vinput_virtio(w->i);
	struct virtio_state s, good;

	assert_int_equal(ask(w, 1, 0), 21);
	virtio_pause(v);
	virtio_save(v, &good);
	virtio_set_status(v, 0);
	s = good;
	s.words[0] = 5;
	assert_int_equal(virtio_load(v, &s), -EINVAL);
	s = good;
	s.words[1] = 256;
	assert_int_equal(virtio_load(v, &s), -EINVAL);
	s = good;
	s.words[2] = 256;
	assert_int_equal(virtio_load(v, &s), -EINVAL);
	s = good;
	s.word_count = 2;
	assert_int_equal(virtio_load(v, &s), -EINVAL);
	assert_int_equal(virtio_load(v, &good), 0);
	mmio_refresh(&w->d.mmio);
	assert_int_equal(hv_driver_config(&w->d, 2, 1), 21);
}

static void test_lamps_are_forgotten(void **state)
{
	struct world *w = *state;
	struct hv_buffer b = {.addr = w->events, .len = 8};

	hv_driver_add(&w->d, 1, &b, 1);
	hv_driver_kick(&w->d, 1);
	assert_true(hv_driver_used(&w->d, 1, NULL, NULL));
	assert_int_equal(hv_driver_avail_event(&w->d, 1), 1);
}

#define case_of(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		case_of(test_what_it_says_of_itself),	    case_of(test_a_press),
		case_of(test_a_press_with_too_few_buffers), case_of(test_a_small_buffer_fails_it),
		case_of(test_a_press_without_a_driver),	    case_of(test_a_press_while_paused),
		case_of(test_states_that_cannot_be),	    case_of(test_lamps_are_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
