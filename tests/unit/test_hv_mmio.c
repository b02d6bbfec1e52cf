/* virtio over mmio, spoken as Linux 6.1 does and as nobody should: what a register reads after each
 * write, which writes are ignored, which fail the device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_driver_starts_and_is_served, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
