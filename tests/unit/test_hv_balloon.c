/* The balloon: which pages come free, which requests it refuses, and the three numbers that Linux's
 * reporting queue may have. Seen by what the guest's memory holds afterwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hv/layout.h"
#include "hv/virtio/balloon.h"
#include "tests/unit/hv_driver.h"

enum { INFLATE = 0, DEFLATE = 1, STATS = 2, RAM_PAGES = 4096, FIRST = 1024 };
#define F_STATS (UINT64_C(1) << 1)
#define F_REPORTING (UINT64_C(1) << 5)

struct world {
	struct hv_driver d;
	struct balloon *b;
	uint32_t step; /* 4 KiB pages in a page of the host */
};

static int setup(void **state)
{
	static struct world w;
	struct fault fault = {0};

	w = (struct world){.step = (uint32_t)(sysconf(_SC_PAGESIZE) / BALLOON_PAGE)};
	hv_driver_open(&w.d, RAM_PAGES * BALLOON_PAGE);
	assert_int_equal(balloon_create(NULL, &w.d.ram, &w.d.loop, "balloon", &w.b, &fault), 0);
	hv_driver_attach(&w.d, balloon_virtio(w.b));
	hv_driver_start(&w.d, ~UINT64_C(0));
	*state = &w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	hv_driver_reset(&w->d);
	balloon_destroy(w->b);
	hv_driver_close(&w->d);
	return 0;
}

/* Page number as the guest counts: from its address 0. */
static uint32_t number(uint32_t page)
{
	return (uint32_t)(LAYOUT_RAM / BALLOON_PAGE) + page;
}

static uint8_t *page_at(struct world *w, uint32_t page)
{
	return (uint8_t *)hv_driver_at(&w->d, LAYOUT_RAM + (uint64_t)page * BALLOON_PAGE);
}

/* Writes something into pages [FIRST, FIRST + count) and the ones next to them. */
static void use(struct world *w, uint32_t count)
{
	uint32_t i;

	for (i = FIRST - w->step; i < FIRST + count + w->step; i++) {
		memset(page_at(w, i), 0x5a, BALLOON_PAGE);
	}
}

static bool is_free(struct world *w, uint32_t page)
{
	return page_at(w, page)[0] == 0 && page_at(w, page)[BALLOON_PAGE - 1] == 0;
}

static void request(struct world *w, unsigned queue, const uint32_t *pages, unsigned count)
{
	struct hv_buffer b = {.len = count * 4};

	b.addr = hv_driver_put(&w->d, pages, count * sizeof(pages[0]));
	hv_driver_add(&w->d, queue, &b, 1);
	hv_driver_kick(&w->d, queue);
}

static void must_be_free(struct world *w, uint32_t count)
{
	uint32_t i;

	assert_false(is_free(w, FIRST - 1));
	for (i = FIRST; i < FIRST + count; i++) {
		if (!is_free(w, i)) {
			fail_msg("page %u is still there", i - FIRST);
		}
	}
	assert_false(is_free(w, FIRST + count));
}

static void test_inflate_gives_pages_back(void **state)
{
	struct world *w = *state;
	uint32_t pages[300];
	uint32_t i, len;

	assert_int_equal(hv_driver_read(&w->d, 0x08), 5);
	use(w, 256);
	for (i = 0; i < 256; i++) {
		pages[i] = number(FIRST + i);
	}
	request(w, INFLATE, pages, 256);
	assert_true(hv_driver_used(&w->d, INFLATE, NULL, &len));
	assert_int_equal(len, 0);
	must_be_free(w, 256);
	/* Downwards, as Linux often does, and across what is read at once. */
	use(w, 300 / w->step * w->step);
	for (i = 0; i < 300 / w->step * w->step; i++) {
		pages[i] = number(FIRST + 300 / w->step * w->step - 1 - i);
	}
	request(w, INFLATE, pages, 300 / w->step * w->step);
	must_be_free(w, 300 / w->step * w->step);
	/* Scattered: each host page by itself, its parts together. */
	use(w, 8 * w->step);
	for (i = 0; i < 4 * w->step; i++) {
		pages[i] = number(FIRST + i / w->step * 2 * w->step + i % w->step);
	}
	request(w, INFLATE, pages, 4 * w->step);
	for (i = 0; i < 8 * w->step; i++) {
		assert_int_equal(is_free(w, FIRST + i), i / w->step % 2 == 0);
	}
	/* A page twice, and neighbours of itself. */
	use(w, w->step);
	for (i = 0; i < w->step; i++) {
		pages[2 * i] = pages[2 * i + 1] = number(FIRST + i);
	}
	request(w, INFLATE, pages, 2 * w->step);
	assert_false(hv_driver_failed(&w->d));
}

static void test_deflate_is_only_counted(void **state)
{
	struct world *w = *state;
	uint32_t page = number(FIRST);

	use(w, 1);
	request(w, DEFLATE, &page, 1);
	assert_true(hv_driver_used(&w->d, DEFLATE, NULL, NULL));
	assert_false(is_free(w, FIRST));
}

static void fails(struct world *w, uint32_t page, uint32_t len, unsigned queue)
{
	struct hv_buffer b = {.len = len};
	uint32_t i;

	hv_driver_start(&w->d, 0);
	b.addr = hv_driver_alloc(&w->d, len);
	for (i = 0; i + 4 <= len; i += 4) {
		memcpy(hv_driver_at(&w->d, b.addr + i), &page, sizeof(page));
	}
	hv_driver_add(&w->d, queue, &b, 1);
	hv_driver_kick(&w->d, queue);
	if (!hv_driver_failed(&w->d)) {
		fail_msg("page 0x%x, %u bytes", page, len);
	}
}

static void test_requests_that_cannot_be(void **state)
{
	struct world *w = *state;
	uint32_t page = number(FIRST);
	uint32_t many[4096];
	unsigned i;

	fails(w, 0, 4, INFLATE);
	fails(w, number(0) - 1, 4, INFLATE);
	fails(w, number(RAM_PAGES), 4, INFLATE);
	fails(w, UINT32_MAX, 4, INFLATE);
	fails(w, page, 5, INFLATE);
	fails(w, page, 3, INFLATE);
	fails(w, page, 4 * 4097, INFLATE);
	fails(w, page, 4 * 4097, DEFLATE);
	fails(w, page, 2, DEFLATE);
	hv_driver_start(&w->d, 0);
	for (i = 0; i < 4096; i++) {
		many[i] = page;
	}
	request(w, INFLATE, many, 4096);
	page = number(RAM_PAGES - 1);
	request(w, INFLATE, &page, 1);
	assert_false(hv_driver_failed(&w->d));
}

/* Linux before 6.11 counts only the queues it uses: without free page hints, reporting has number
 * 3, and without statistics 2. By the specification it has number 4. */
static void test_reporting_by_any_number(void **state)
{
	static const struct {
		uint64_t features;
		unsigned queue;
		bool good;
	} cases[] = {
		{F_STATS | F_REPORTING, 4, true},
		{F_STATS | F_REPORTING, 3, true},
		{F_REPORTING, 2, true},
		{F_STATS, 3, false},
		{F_STATS, 4, false},
		{0, 2, false},
	};
	struct world *w = *state;
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct hv_buffer b[2] = {
			{.addr = LAYOUT_RAM + FIRST * BALLOON_PAGE,
			 .len = 64 * BALLOON_PAGE,
			 .flags = HV_WRITE},
			{.addr = LAYOUT_RAM + (FIRST + 64) * BALLOON_PAGE,
			 .len = 64 * BALLOON_PAGE,
			 .flags = HV_WRITE},
		};

		hv_driver_start(&w->d, cases[i].features | VIRTIO_F_EVENT_IDX_BIT);
		use(w, 128);
		hv_driver_add(&w->d, cases[i].queue, b, 2);
		hv_driver_kick(&w->d, cases[i].queue);
		if (hv_driver_failed(&w->d) == cases[i].good ||
		    is_free(w, FIRST) != cases[i].good) {
			fail_msg("case %zu", i);
		}
		if (cases[i].good) {
			assert_true(hv_driver_used(&w->d, cases[i].queue, NULL, NULL));
			must_be_free(w, 128);
		}
	}
}

static void test_target_and_actual(void **state)
{
	struct world *w = *state;

	assert_int_equal(hv_driver_config(&w->d, 0, 8), 0);
	balloon_set_target(w->b, 100);
	assert_int_equal(hv_driver_config(&w->d, 0, 4), 100);
	assert_int_equal(hv_driver_interrupts(&w->d), 1);
	assert_int_equal(hv_driver_read(&w->d, 0x60), 3);
	balloon_set_target(w->b, 100);
	assert_int_equal(hv_driver_interrupts(&w->d), 0);
	hv_driver_config_write(&w->d, 4, 64, 4);
	assert_int_equal(balloon_actual(w->b), 64);
	assert_int_equal(hv_driver_config(&w->d, 4, 4), 64);
	/* The target is not the guest's to write. */
	hv_driver_config_write(&w->d, 0, 7, 4);
	assert_int_equal(hv_driver_config(&w->d, 0, 4), 100);
	hv_driver_config_write(&w->d, 0, UINT64_C(0x5000000007), 8);
	assert_int_equal(hv_driver_config(&w->d, 0, 4), 100);
	assert_int_equal(balloon_actual(w->b), 0x50);
	balloon_set_target(w->b, UINT32_MAX);
	assert_int_equal(hv_driver_config(&w->d, 0, 4), RAM_PAGES);
	hv_driver_reset(&w->d);
	assert_int_equal(balloon_actual(w->b), 0);
	assert_int_equal(hv_driver_config(&w->d, 0, 8), RAM_PAGES);
}

static void test_target_from_the_start(void **state)
{
	const struct balloon_config config = {.target = 77};
	struct world *w = *state;
	struct fault fault = {0};
	struct balloon *b;

	assert_int_equal(balloon_create(&config, &w->d.ram, &w->d.loop, "balloon", &b, &fault), 0);
	assert_int_equal(balloon_virtio(b)->config[0], 77);
	balloon_destroy(b);
}

struct found {
	const char *what;
	uint64_t value;
	bool there;
};

static void found_add(void *arg, const char *part, const char *what, uint64_t value, bool gauge)
{
	struct found *f = arg;

	(void)gauge;
	assert_string_equal(part, "balloon");
	if (strcmp(what, f->what) == 0) {
		f->value = value;
		f->there = true;
	}
}

static struct found find(const struct world *w, const char *what)
{
	struct found f = {.what = what};
	const struct stats_sink sink = {.add = found_add, .arg = &f};

	balloon_stats(w->b, &sink);
	return f;
}

static void tell(struct world *w, const void *stats, uint32_t len)
{
	struct hv_buffer b = {.addr = hv_driver_put(&w->d, stats, len), .len = len};

	hv_driver_add(&w->d, STATS, &b, 1);
	hv_driver_kick(&w->d, STATS);
}

static void test_the_guest_tells_of_its_memory(void **state)
{
	struct {
		uint16_t tag;
		uint64_t value;
	} __attribute__((packed)) stats[] = {{4, 1000}, {99, 5}, {5, 9000}, {6, 1}};
	struct world *w = *state;

	assert_false(find(w, "guest-free").there);
	balloon_poll(w->b); /* it told nothing yet */
	tell(w, stats, sizeof(stats) - 5); /* the last is cut off */
	assert_int_equal(find(w, "guest-free").value, 1000);
	assert_int_equal(find(w, "guest-total").value, 9000);
	assert_false(find(w, "guest-available").there);
	/* The buffer stays with the device until it wants news. */
	assert_false(hv_driver_used(&w->d, STATS, NULL, NULL));
	assert_int_equal(hv_driver_interrupts(&w->d), 0);
	balloon_poll(w->b);
	assert_true(hv_driver_used(&w->d, STATS, NULL, NULL));
	assert_int_equal(hv_driver_interrupts(&w->d), 1);
	assert_int_equal(hv_driver_avail_event(&w->d, STATS), 1);
	balloon_poll(w->b); /* it is on its way */
	assert_false(hv_driver_used(&w->d, STATS, NULL, NULL));
	stats[0].value = 2000;
	tell(w, stats, sizeof(stats));
	assert_int_equal(find(w, "guest-free").value, 2000);
	assert_int_equal(find(w, "guest-available").value, 1);
	/* A new guest has said nothing. */
	hv_driver_start(&w->d, F_STATS);
	assert_false(find(w, "guest-free").there);
}

static void test_no_poll_without_statistics(void **state)
{
	struct world *w = *state;
	struct hv_buffer b = {
		.addr = LAYOUT_RAM + FIRST * BALLOON_PAGE, .len = BALLOON_PAGE, .flags = HV_WRITE};

	hv_driver_start(&w->d, F_REPORTING);
	hv_driver_add(&w->d, 2, &b, 1);
	balloon_poll(w->b);
	assert_false(hv_driver_used(&w->d, 2, NULL, NULL));
}

static void test_one_kick_does_not_serve_all(void **state)
{
	struct world *w = *state;
	uint32_t page = number(FIRST);
	struct hv_buffer b = {.addr = hv_driver_put(&w->d, &page, 4), .len = 4};
	unsigned i, count;

	for (i = 0; i < 40; i++) {
		hv_driver_add(&w->d, INFLATE, &b, 1);
	}
	hv_driver_kick(&w->d, INFLATE);
	for (count = 0; hv_driver_used(&w->d, INFLATE, NULL, NULL); count++) {
	}
	assert_int_equal(count, 16);
	/* It goes on by itself. */
	while (count < 40) {
		hv_driver_wait(&w->d, INFLATE);
		for (; hv_driver_used(&w->d, INFLATE, NULL, NULL); count++) {
		}
	}
	assert_int_equal(hv_driver_avail_event(&w->d, INFLATE), 40);
}

static void test_saved_and_loaded(void **state)
{
	struct world *w = *state;
	struct virtio *v = balloon_virtio(w->b);
	struct virtio_state good, s;

	balloon_set_target(w->b, 12);
	hv_driver_config_write(&w->d, 4, 34, 4);
	tell(w, "0123456789", 10);
	virtio_pause(v);
	balloon_poll(w->b);
	assert_false(hv_driver_used(&w->d, STATS, NULL, NULL));
	virtio_save(v, &good);
	virtio_set_status(v, 0);
	balloon_set_target(w->b, 0);
	s = good;
	s.words[0] = RAM_PAGES + 1;
	assert_int_equal(virtio_load(v, &s), -EINVAL);
	s = good;
	s.words[1] = UINT64_C(1) << 32;
	assert_int_equal(virtio_load(v, &s), -EINVAL);
	s = good;
	s.word_count = 1;
	assert_int_equal(virtio_load(v, &s), -EINVAL);
	assert_int_equal(virtio_load(v, &good), 0);
	mmio_refresh(&w->d.mmio);
	assert_true(hv_driver_config(&w->d, 0, 8) == (UINT64_C(34) << 32 | 12));
	assert_int_equal(balloon_actual(w->b), 34);
}

#define case_of(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		case_of(test_inflate_gives_pages_back),
		case_of(test_deflate_is_only_counted),
		case_of(test_requests_that_cannot_be),
		case_of(test_reporting_by_any_number),
		case_of(test_target_and_actual),
		case_of(test_target_from_the_start),
		case_of(test_the_guest_tells_of_its_memory),
		case_of(test_no_poll_without_statistics),
		case_of(test_one_kick_does_not_serve_all),
		case_of(test_saved_and_loaded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
