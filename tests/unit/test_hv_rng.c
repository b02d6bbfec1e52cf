/* Random numbers for the guest: what is filled, how much at once, what waits, and the bucket that
 * says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "hv/virtio/bucket.h"
#include "hv/virtio/rng.h"
#include "tests/unit/hv_driver.h"

struct world {
	struct hv_driver d;
	struct vrng *r;
	struct fault fault;
};

static void start(struct world *w, uint32_t rate)
{
	const struct vrng_config config = {.bytes_per_second = rate};

	*w = (struct world){0};
	hv_driver_open(&w->d, 1 << 20);
	assert_int_equal(vrng_create(rate != 0 ? &config : NULL, &w->d.ram, &w->d.loop, "rng",
				     &w->r, &w->fault),
			 0);
	hv_driver_attach(&w->d, vrng_virtio(w->r));
	hv_driver_start(&w->d, ~UINT64_C(0));
}

static void end(struct world *w)
{
	hv_driver_reset(&w->d);
	vrng_destroy(w->r);
	hv_driver_close(&w->d);
}

static bool all_zero(const uint8_t *data, size_t len)
{
	size_t i;

	for (i = 0; i < len && data[i] == 0; i++) {
	}
	return i == len;
}

static void test_a_request_is_filled(void **state)
{
	struct world w;
	struct hv_buffer b[2];
	uint32_t head, len;

	(void)state;
	start(&w, 0);
	assert_int_equal(hv_driver_read(&w.d, 0x08), 4);
	b[0] = (struct hv_buffer){.addr = hv_driver_alloc(&w.d, 64), .len = 64, .flags = HV_WRITE};
	b[1] = (struct hv_buffer){.addr = hv_driver_alloc(&w.d, 64), .len = 64, .flags = HV_WRITE};
	hv_driver_add(&w.d, 0, b, 2);
	hv_driver_kick(&w.d, 0);
	assert_true(hv_driver_used(&w.d, 0, &head, &len));
	assert_int_equal(len, 128);
	assert_false(all_zero(hv_driver_at(&w.d, b[0].addr), 64));
	assert_false(all_zero(hv_driver_at(&w.d, b[1].addr), 64));
	assert_memory_not_equal(hv_driver_at(&w.d, b[0].addr), hv_driver_at(&w.d, b[1].addr), 64);
	assert_int_equal(hv_driver_interrupts(&w.d), 1);
	/* The next kick is asked for. */
	assert_int_equal(hv_driver_avail_event(&w.d, 0), 1);
	end(&w);
}

static void test_a_request_without_room(void **state)
{
	struct world w;
	struct hv_buffer b;

	(void)state;
	start(&w, 0);
	b = (struct hv_buffer){.addr = hv_driver_alloc(&w.d, 64), .len = 64};
	hv_driver_add(&w.d, 0, &b, 1);
	hv_driver_kick(&w.d, 0);
	assert_true(hv_driver_failed(&w.d));
	end(&w);
}

static void ask_often(struct world *w, unsigned times, uint32_t bytes)
{
	struct hv_buffer b = {.len = bytes, .flags = HV_WRITE};
	unsigned i;

	b.addr = hv_driver_alloc(&w->d, b.len);
	for (i = 0; i < times; i++) {
		hv_driver_add(&w->d, 0, &b, 1);
	}
	hv_driver_kick(&w->d, 0);
}

static unsigned answers(struct world *w, uint64_t *ret_bytes)
{
	unsigned count = 0;
	uint32_t len;

	*ret_bytes = 0;
	while (hv_driver_used(&w->d, 0, NULL, &len)) {
		*ret_bytes += len;
		count++;
	}
	return count;
}

/* At one byte a second nothing to speak of comes while this runs. */
static void test_no_more_than_the_burst_at_once(void **state)
{
	struct world w;
	uint64_t bytes;

	(void)state;
	start(&w, 1);
	ask_often(&w, 4, 40000);
	assert_int_equal(answers(&w, &bytes), 2);
	assert_in_range(bytes, VRNG_BURST, VRNG_BURST + 63);
	hv_driver_kick(&w.d, 0);
	assert_int_equal(answers(&w, &bytes), 0);
	/* A new driver gets its answers, when there is something again; the old one's wait is over.
	 */
	hv_driver_start(&w.d, 0);
	ask_often(&w, 1, 100);
	assert_int_equal(answers(&w, &bytes), 0);
	end(&w);
	/* A few bytes are left: too few to make an answer of. */
	start(&w, 1);
	ask_often(&w, 2, VRNG_BURST - 10);
	assert_int_equal(answers(&w, &bytes), 1);
	assert_int_equal(bytes, VRNG_BURST - 10);
	end(&w);
}

static void test_what_waits_comes_by_itself(void **state)
{
	struct world w;
	uint64_t bytes;
	unsigned count = 0;

	(void)state;
	start(&w, 1000 * 1000);
	for (ask_often(&w, 4, 40000); count < 4; count += answers(&w, &bytes)) {
		hv_driver_wait(&w.d, 0);
	}
	assert_int_equal(hv_driver_avail_event(&w.d, 0), 4);
	end(&w);
}

static void test_small_requests_count_more_than_their_bytes(void **state)
{
	struct world w;
	struct hv_buffer b;
	uint64_t bytes;
	unsigned i;
	unsigned count = 0;

	(void)state;
	start(&w, 1);
	b = (struct hv_buffer){.addr = hv_driver_alloc(&w.d, 1), .len = 1, .flags = HV_WRITE};
	for (i = 0; i < VRNG_BURST / 64 + 8; i++) {
		hv_driver_add(&w.d, 0, &b, 1);
		hv_driver_kick(&w.d, 0);
		count += answers(&w, &bytes);
	}
	assert_int_equal(count, VRNG_BURST / 64);
	end(&w);
}

static void test_bucket(void **state)
{
	struct bucket b = bucket_make(1000, 500, 7000);

	(void)state;
	assert_int_equal(bucket_level(&b, 7000), 500);
	bucket_spend(&b, 500);
	assert_int_equal(bucket_level(&b, 7000), 0);
	assert_int_equal(bucket_wait_ms(&b, 64), 64);
	assert_int_equal(bucket_wait_ms(&b, 0), 0);
	assert_int_equal(bucket_level(&b, 7001), 1);
	assert_int_equal(bucket_level(&b, 6000), 1); /* time went back */
	assert_int_equal(bucket_level(&b, 7064), 64);
	assert_int_equal(bucket_wait_ms(&b, 64), 0);
	bucket_spend(&b, 4);
	assert_int_equal(bucket_level(&b, 7564), 500); /* full, not more */
	bucket_spend(&b, 500);
	assert_int_equal(bucket_level(&b, UINT64_MAX), 500);
	b = bucket_make(UINT64_C(1) << 62, 500, 0);
	bucket_spend(&b, 500);
	assert_int_equal(bucket_level(&b, 4), 500);
}

static void test_a_slow_bucket_keeps_parts(void **state)
{
	struct bucket b = bucket_make(3, 10, 0);
	uint64_t total = 0;
	uint64_t now;

	(void)state;
	bucket_spend(&b, 10);
	/* Looked at every 7 ms for 100 seconds: 300 tokens, none lost by rounding but the last. */
	for (now = 0; now <= 100000; now += 7) {
		uint64_t level = bucket_level(&b, now);

		bucket_spend(&b, level);
		total += level;
	}
	assert_in_range(total, 299, 300);
	assert_int_equal(bucket_wait_ms(&b, 1), 334);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_request_is_filled),
		cmocka_unit_test(test_a_request_without_room),
		cmocka_unit_test(test_no_more_than_the_burst_at_once),
		cmocka_unit_test(test_what_waits_comes_by_itself),
		cmocka_unit_test(test_small_requests_count_more_than_their_bytes),
		cmocka_unit_test(test_bucket),
		cmocka_unit_test(test_a_slow_bucket_keeps_parts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
