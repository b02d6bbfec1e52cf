/* Virtio devices in snapshots: a driver goes on with a device made anew from its record; a record
 * of another device, or one that cannot be, is refused by name and leaves the device as new. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv/device_state.h"
#include "hv/virtio/blk.h"
#include "hv/virtio/rng.h"
#include "hv_driver.h"
#include "lib/mem.h"

enum { RAM_SIZE = 1 << 20, DISK_SIZE = 1 << 20 };

/* A random-number device with a driver. */
struct bench {
	struct hv_driver d;
	struct vrng *rng;
};

static void bench_open(struct bench *b)
{
	struct fault fault = {0};

	hv_driver_open(&b->d, RAM_SIZE);
	assert_int_equal(vrng_create(NULL, &b->d.ram, &b->d.loop, "rng", &b->rng, &fault), 0);
	hv_driver_attach(&b->d, vrng_virtio(b->rng));
}

/* The device anew, as another process would make it; the guest's memory stays. */
static void bench_renew(struct bench *b)
{
	struct fault fault = {0};
	struct vrng *old = b->rng;

	virtio_set_status(vrng_virtio(old), 0);
	vrng_destroy(old);
	assert_int_equal(vrng_create(NULL, &b->d.ram, &b->d.loop, "rng", &b->rng, &fault), 0);
	hv_driver_attach(&b->d, vrng_virtio(b->rng));
}

static void bench_close(struct bench *b)
{
	virtio_resume(vrng_virtio(b->rng));
	hv_driver_reset(&b->d);
	vrng_destroy(b->rng);
	hv_driver_close(&b->d);
}

static Tb__VirtioState *record_of(struct bench *b)
{
	Tb__VirtioState *s;

	virtio_pause(vrng_virtio(b->rng));
	s = device_state_save(&b->d.mmio);
	virtio_resume(vrng_virtio(b->rng));
	return s;
}

/* One request for random bytes is answered. */
static void exercise(struct bench *b)
{
	uint64_t at = hv_driver_alloc(&b->d, 64);
	const struct hv_buffer buffer = {at, 64, HV_WRITE};
	uint32_t head, len;
	uint16_t added = hv_driver_add(&b->d, 0, &buffer, 1);

	hv_driver_kick(&b->d, 0);
	assert_true(hv_driver_used(&b->d, 0, &head, &len));
	assert_int_equal(head, added);
	assert_int_equal(len, 64);
	assert_memory_not_equal(hv_driver_at(&b->d, at), (uint8_t[64]){0}, 64);
}

static void test_goes_on(void **state)
{
	struct bench b;
	struct fault fault = {0};
	Tb__VirtioState *s, *again;
	size_t len;
	uint8_t *once, *twice;

	(void)state;
	bench_open(&b);
	hv_driver_start(&b.d, ~UINT64_C(0));
	exercise(&b);
	exercise(&b);
	b.d.mmio.config_pending = true;
	s = record_of(&b);
	assert_int_equal(s->queues[0]->next_used, 2);
	bench_renew(&b);
	assert_int_equal(device_state_check(s, b.d.v, 0, &fault), 0);
	assert_int_equal(device_state_load(s, &b.d.mmio, &fault), 0);
	assert_true(b.d.v->paused);
	/* The register page tells what the driver knew. */
	assert_int_equal(hv_driver_read(&b.d, 0x70), 15);
	assert_int_equal(hv_driver_read(&b.d, 0x60), 3);
	again = device_state_save(&b.d.mmio);
	len = tb__virtio_state__get_packed_size(s);
	assert_int_equal(tb__virtio_state__get_packed_size(again), len);
	once = mem_alloc(len);
	twice = mem_alloc(len);
	tb__virtio_state__pack(s, once);
	tb__virtio_state__pack(again, twice);
	assert_memory_equal(once, twice, len);
	free(once);
	free(twice);
	virtio_resume(b.d.v);
	exercise(&b);
	exercise(&b);
	tb__virtio_state__free_unpacked(s, NULL);
	tb__virtio_state__free_unpacked(again, NULL);
	bench_close(&b);
}

/* A chain that was made available while the device stood still is seen after the resume. */
static void test_kick_while_away(void **state)
{
	struct bench b;
	struct fault fault = {0};
	struct hv_buffer buffer = {.len = 32, .flags = HV_WRITE};
	Tb__VirtioState *s;

	(void)state;
	bench_open(&b);
	hv_driver_start(&b.d, ~UINT64_C(0));
	s = record_of(&b);
	bench_renew(&b);
	buffer.addr = hv_driver_alloc(&b.d, 32);
	hv_driver_add(&b.d, 0, &buffer, 1);
	assert_int_equal(device_state_load(s, &b.d.mmio, &fault), 0);
	virtio_resume(b.d.v);
	hv_driver_wait(&b.d, 0);
	tb__virtio_state__free_unpacked(s, NULL);
	bench_close(&b);
}

static bool was_kicked(struct bench *b)
{
	uint64_t count;

	return read(b->d.v->kick_fd[0], &count, sizeof(count)) == (ssize_t)sizeof(count);
}

/* What is written into a clone's memory costs it a page: a ring at rest is left alone. But a driver
 * that was told to spare its notifications would wait for ever. */
static void test_ring_at_rest(void **state)
{
	struct bench b;
	uint16_t *wish;
	uint64_t features[] = {~UINT64_C(0), ~VIRTIO_F_EVENT_IDX_BIT};
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		bench_open(&b);
		hv_driver_start(&b.d, features[i]);
		exercise(&b);
		(void)was_kicked(&b);
		virtio_pause(b.d.v);
		virtio_resume(b.d.v);
		assert_false(was_kicked(&b));
		/* avail_event behind the used ring, or the flags at its beginning. */
		wish = hv_driver_at(
			&b.d, b.d.ring[0].used + (i == 0 ? 4 + 8 * (uint64_t)b.d.ring[0].size : 0));
		*wish ^= 1;
		virtio_pause(b.d.v);
		virtio_resume(b.d.v);
		assert_true(was_kicked(&b));
		bench_close(&b);
	}
}

/* --- refusals --------------------------------------------------------------------------------- */

static void other_name(Tb__VirtioState *s)
{
	s->name[0] = 'x';
}

static void other_kind(Tb__VirtioState *s)
{
	s->id = 3;
}

static void more_queues(Tb__VirtioState *s)
{
	s->queues = mem_realloc(s->queues, 2 * sizeof(s->queues[0]));
	s->queues[1] = mem_alloc(sizeof(*s->queues[1]));
	tb__queue_state__init(s->queues[1]);
	s->n_queues = 2;
}

static void more_features(Tb__VirtioState *s)
{
	s->acked |= UINT64_C(1) << 40;
}

static void more_config(Tb__VirtioState *s)
{
	free(s->config.data);
	s->config.data = mem_zalloc(8);
	s->config.len = 8;
}

static void test_other_device(void **state)
{
	static const struct {
		void (*spoil)(Tb__VirtioState *s);
		const char *words;
	} cases[] = {
		{other_name, "device 5 of the snapshot is xng, of this VM it is rng"},
		{other_kind, "device 5 of the snapshot"},
		{more_queues, "rng has 2 queues in the snapshot, here 1"},
		{more_features, "feature bit 40"},
		{more_config, "another config space"},
	};
	struct bench b;
	size_t i;

	(void)state;
	bench_open(&b);
	hv_driver_start(&b.d, ~UINT64_C(0));
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		Tb__VirtioState *s = record_of(&b);
		struct fault fault = {0};

		cases[i].spoil(s);
		assert_int_equal(device_state_check(s, b.d.v, 5, &fault), -EXDEV);
		if (strstr(fault.text, cases[i].words) == NULL) {
			fail_msg("case %zu: %s", i, fault.text);
		}
		tb__virtio_state__free_unpacked(s, NULL);
	}
	bench_close(&b);
}

static void impossible_status(Tb__VirtioState *s)
{
	s->status = 4;
}

static void ring_outside(Tb__VirtioState *s)
{
	s->queues[0]->desc = UINT64_C(1) << 60;
}

static void ring_unaligned(Tb__VirtioState *s)
{
	s->queues[0]->used += 1;
}

static void ring_of_nothing(Tb__VirtioState *s)
{
	s->queues[0]->size = 0;
}

static void queue_before_features(Tb__VirtioState *s)
{
	s->status = 3;
}

static void too_many_words(Tb__VirtioState *s)
{
	free(s->words);
	s->n_words = VIRTIO_STATE_WORDS;
	s->words = mem_zalloc(VIRTIO_STATE_WORDS * sizeof(s->words[0]));
	memset(s->words, 0xff, VIRTIO_STATE_WORDS * sizeof(s->words[0]));
}

static void test_impossible(void **state)
{
	static void (*const cases[])(Tb__VirtioState * s) = {
		impossible_status, ring_outside,	  ring_unaligned,
		ring_of_nothing,   queue_before_features, too_many_words,
	};
	struct bench b;
	size_t i;

	(void)state;
	bench_open(&b);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		Tb__VirtioState *s;
		struct fault fault = {0};

		hv_driver_start(&b.d, ~UINT64_C(0));
		s = record_of(&b);
		bench_renew(&b);
		cases[i](s);
		if (device_state_load(s, &b.d.mmio, &fault) != -EBADMSG) {
			fail_msg("case %zu was taken", i);
		}
		assert_non_null(strstr(fault.text, "rng"));
		/* As new: a driver can come. */
		assert_int_equal(b.d.v->status, 0);
		assert_false(b.d.v->active);
		virtio_resume(b.d.v);
		hv_driver_start(&b.d, ~UINT64_C(0));
		exercise(&b);
		hv_driver_reset(&b.d);
		tb__virtio_state__free_unpacked(s, NULL);
	}
	bench_close(&b);
}

/* A disk that is not the one of the snapshot. */
static void test_other_disk(void **state)
{
	const struct blk_config config = {.fd = memfd_create("disk", MFD_CLOEXEC),
					  .force_threads = true};
	struct hv_driver d;
	struct fault fault = {0};
	Tb__VirtioState *s;
	struct blk *blk;

	(void)state;
	assert_int_equal(ftruncate(config.fd, DISK_SIZE), 0);
	hv_driver_open(&d, RAM_SIZE);
	assert_int_equal(blk_create(&config, &d.ram, &d.loop, "blk0", &blk, &fault), 0);
	hv_driver_attach(&d, blk_virtio(blk));
	virtio_pause(blk_virtio(blk));
	s = device_state_save(&d.mmio);
	virtio_resume(blk_virtio(blk));
	assert_int_equal(device_state_check(s, d.v, 0, &fault), 0);
	s->config.data[0] ^= 1;
	assert_int_equal(device_state_check(s, d.v, 0, &fault), -EXDEV);
	assert_non_null(strstr(fault.text, "another size"));
	tb__virtio_state__free_unpacked(s, NULL);
	blk_destroy(blk);
	hv_driver_close(&d);
	close(config.fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_goes_on),	     cmocka_unit_test(test_kick_while_away),
		cmocka_unit_test(test_ring_at_rest), cmocka_unit_test(test_other_device),
		cmocka_unit_test(test_impossible),   cmocka_unit_test(test_other_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
