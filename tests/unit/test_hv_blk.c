/* The virtio disk: what is asked is what is done, in whatever pieces; what may not be is refused
 * with a status; what the host fails in is an error of that request and of no other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/virtio_blk.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/disk_lock.h"
#include "hv/virtio/blk.h"
#include "hv/virtio/blk_host.h"
#include "hv/virtio/blk_sync.h"
#include "lib/log.h"
#include "tests/unit/blk_double.h"
#include "tests/unit/hv_driver.h"

#define DISK_SIZE (UINT64_C(1) << 20)
#define ALL (~UINT64_C(0))
#define BIT(n) (UINT64_C(1) << (n))

/* Which host the disk has. */
enum engine { URING, THREADS, DOUBLE };

struct world {
	struct hv_driver d;
	struct blk *b;
	struct blk_double host; /* of DOUBLE */
	int disk;
};

static int pattern_disk(void)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);
	uint32_t i, word;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, DISK_SIZE), 0);
	for (i = 0; i < DISK_SIZE / 512; i++) {
		word = 0xd15c0000 + i;
		assert_int_equal(pwrite(fd, &word, sizeof(word), (off_t)i * 512), sizeof(word));
	}
	return fd;
}

static struct world *world_open(enum engine engine, struct blk_config config, uint64_t features)
{
	static struct world w;
	struct fault fault = {0};

	w = (struct world){.disk = config.fd >= 0 ? config.fd : pattern_disk()};
	config.fd = w.disk;
	config.force_threads = engine == THREADS;
	hv_driver_open(&w.d, 4 << 20);
	blk_double_init(&w.host, w.disk);
	assert_int_equal(blk_create_on(engine == DOUBLE ? &w.host.host : NULL, &config, &w.d.ram,
				       &w.d.loop, "blk0", &w.b, &fault),
			 0);
	hv_driver_attach(&w.d, blk_virtio(w.b));
	hv_driver_start(&w.d, features);
	return &w;
}

static struct world *world_plain(enum engine engine)
{
	return world_open(engine, (struct blk_config){.fd = -1}, ALL);
}

static void world_close(struct world *w)
{
	hv_driver_reset(&w->d);
	blk_destroy(w->b);
	if (!w->host.closed) {
		close(w->host.host.fd);
	}
	hv_driver_close(&w->d);
	close(w->disk);
}

/* A request in guest memory. */
struct ask {
	uint64_t header, data, status;
	uint32_t len;
};

static struct ask ask_make(struct world *w, uint32_t type, uint64_t sector, const void *data,
			   uint32_t len)
{
	struct virtio_blk_outhdr header = {.type = type, .sector = sector};
	uint8_t none = 0xaa;

	return (struct ask){
		.header = hv_driver_put(&w->d, &header, sizeof(header)),
		.data = len == 0       ? 0
			: data == NULL ? hv_driver_alloc(&w->d, len)
				       : hv_driver_put(&w->d, data, len),
		.status = hv_driver_put(&w->d, &none, 1),
		.len = len,
	};
}

static bool device_writes(uint32_t type)
{
	return type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
}

/* As Linux: three buffers. */
static void ask_add(struct world *w, uint32_t type, const struct ask *a)
{
	struct hv_buffer b[3] = {{.addr = a->header, .len = 16}};
	unsigned n = 1;

	if (a->len > 0) {
		b[n++] = (struct hv_buffer){.addr = a->data,
					    .len = a->len,
					    .flags = device_writes(type) ? HV_WRITE : 0};
	}
	b[n++] = (struct hv_buffer){.addr = a->status, .len = 1, .flags = HV_WRITE};
	hv_driver_add(&w->d, 0, b, n);
}

static uint8_t status_of(struct world *w, const struct ask *a)
{
	return *(uint8_t *)hv_driver_at(&w->d, a->status);
}

static uint8_t answer(struct world *w, const struct ask *a)
{
	hv_driver_kick(&w->d, 0);
	hv_driver_wait(&w->d, 0);
	assert_true(hv_driver_used(&w->d, 0, NULL, NULL));
	assert_false(hv_driver_used(&w->d, 0, NULL, NULL));
	return status_of(w, a);
}

static uint8_t request(struct world *w, uint32_t type, uint64_t sector, const void *data,
		       uint32_t len, void *ret_data)
{
	struct ask a = ask_make(w, type, sector, data, len);
	uint8_t status;

	ask_add(w, type, &a);
	status = answer(w, &a);
	if (ret_data != NULL) {
		memcpy(ret_data, hv_driver_at(&w->d, a.data), len);
	}
	return status;
}

static void check_disk(struct world *w, uint64_t offset, const void *expected, size_t len)
{
	uint8_t *got = malloc(len);

	assert_int_equal(pread(w->disk, got, len, (off_t)offset), len);
	assert_memory_equal(got, expected, len);
	free(got);
}

static void fill(uint8_t *data, size_t len, uint8_t salt)
{
	size_t i;

	for (i = 0; i < len; i++) {
		data[i] = (uint8_t)(i * 7 + i / 256 + salt);
	}
}

static void writes_and_reads(enum engine engine)
{
	struct world *w = world_plain(engine);
	uint8_t data[8192], back[8192];

	fill(data, sizeof(data), 1);
	assert_int_equal(request(w, VIRTIO_BLK_T_OUT, 8, data, sizeof(data), NULL), 0);
	check_disk(w, 8 * 512, data, sizeof(data));
	assert_int_equal(request(w, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, NULL), 0);
	assert_int_equal(request(w, VIRTIO_BLK_T_IN, 8, NULL, sizeof(back), back), 0);
	assert_memory_equal(back, data, sizeof(data));
	/* The last sector, and one sector alone. */
	assert_int_equal(request(w, VIRTIO_BLK_T_IN, DISK_SIZE / 512 - 1, NULL, 512, back), 0);
	assert_int_equal(*(uint32_t *)(void *)back, 0xd15c0000 + DISK_SIZE / 512 - 1);
	world_close(w);
}

static void test_writes_and_reads(void **state)
{
	(void)state;
	writes_and_reads(URING);
	writes_and_reads(THREADS);
	writes_and_reads(DOUBLE);
}

/* A driver may cut header, data and status as it likes (2.7.4). */
static void test_any_framing(void **state)
{
	static const struct {
		unsigned out[4], in[4]; /* sizes of buffers: header + data; data + status */
	} cuts[] = {
		{{1, 15}, {1024, 1}},	  {{16}, {1025}},	{{5, 11}, {1, 511, 512, 1}},
		{{16}, {512, 512, 1}},	  {{16}, {1000, 25}},	{{16 + 1024}, {1}},
		{{10, 6 + 1023, 1}, {1}}, {{16, 1, 1023}, {1}}, {{17, 1022, 1}, {1}},
	};
	struct world *w = world_plain(URING);
	uint8_t data[1024], all[16 + 1024], back[1024];
	unsigned i, k;

	(void)state;
	for (i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
		bool write = i >= 5;
		struct virtio_blk_outhdr header = {
			.type = write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, .sector = 20 + i};
		struct hv_buffer b[8];
		unsigned n = 0;
		uint64_t out, in, at;

		fill(data, sizeof(data), (uint8_t)i);
		memcpy(all, &header, 16);
		memcpy(all + 16, data, sizeof(data));
		if (!write) {
			assert_int_equal(pwrite(w->disk, data, sizeof(data), (20 + i) * 512),
					 sizeof(data));
		}
		at = out = hv_driver_put(&w->d, all, sizeof(all));
		for (k = 0; k < 4 && cuts[i].out[k] > 0; at += cuts[i].out[k++]) {
			b[n++] = (struct hv_buffer){.addr = at, .len = cuts[i].out[k]};
		}
		at = in = hv_driver_alloc(&w->d, 1025);
		memset(hv_driver_at(&w->d, in), 0xaa, 1025);
		for (k = 0; k < 4 && cuts[i].in[k] > 0; at += cuts[i].in[k++]) {
			b[n++] = (struct hv_buffer){
				.addr = at, .len = cuts[i].in[k], .flags = HV_WRITE};
		}
		hv_driver_add_indirect(&w->d, 0, b, n);
		hv_driver_kick(&w->d, 0);
		hv_driver_wait(&w->d, 0);
		assert_true(hv_driver_used(&w->d, 0, NULL, NULL));
		assert_int_equal(*(uint8_t *)hv_driver_at(&w->d, at - 1), VIRTIO_BLK_S_OK);
		assert_int_equal(pread(w->disk, back, sizeof(back), (20 + i) * 512), sizeof(back));
		assert_memory_equal(back, data, sizeof(data));
		if (!write) {
			assert_memory_equal(hv_driver_at(&w->d, in), data, sizeof(data));
		}
	}
	world_close(w);
}

static void test_refusals(void **state)
{
	static const uint8_t data[8192];
	static const struct {
		uint32_t type;
		uint64_t sector;
		uint32_t len;
		uint8_t status;
	} cases[] = {
		{VIRTIO_BLK_T_IN, 0, 0, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_OUT, 0, 0, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, 0, 511, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_OUT, 0, 513, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, DISK_SIZE / 512, 512, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, DISK_SIZE / 512 - 1, 1024, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_OUT, DISK_SIZE / 512 - 1, 1024, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, UINT64_MAX, 512, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_OUT, UINT64_MAX / 512, 4096, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_OUT, UINT64_MAX / 512 + 1, 512, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_OUT, UINT64_C(1) << 55, 512, VIRTIO_BLK_S_IOERR},
		{2, 0, 512, VIRTIO_BLK_S_UNSUPP},
		{VIRTIO_BLK_T_SECURE_ERASE, 0, 16, VIRTIO_BLK_S_UNSUPP},
		{0x80000000, 0, 512, VIRTIO_BLK_S_UNSUPP},
		{VIRTIO_BLK_T_DISCARD, 0, 0, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_DISCARD, 0, 15, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_WRITE_ZEROES, 0, 17, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_DISCARD, 0, 17 * 16, VIRTIO_BLK_S_IOERR},
	};
	struct world *w = world_plain(DOUBLE);
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		print_message("case %u\n", i);
		assert_int_equal(
			request(w, cases[i].type, cases[i].sector, data, cases[i].len, NULL),
			cases[i].status);
	}
	/* The host was never asked. */
	assert_int_equal(w->host.logged, 0);
	assert_false(hv_driver_failed(&w->d));
	world_close(w);
}

static void test_read_only(void **state)
{
	static const uint8_t data[512];
	struct virtio_blk_discard_write_zeroes range = {.sector = 0, .num_sectors = 8};
	struct world *w = world_open(DOUBLE, (struct blk_config){.fd = -1, .read_only = true}, ALL);
	uint32_t back[128];

	(void)state;
	assert_true(w->d.features & BIT(VIRTIO_BLK_F_RO));
	assert_int_equal(request(w, VIRTIO_BLK_T_OUT, 3, data, 512, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(w, VIRTIO_BLK_T_DISCARD, 0, &range, 16, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(w, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range, 16, NULL),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(w->host.logged, 0);
	assert_int_equal(request(w, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(w->host.logged, 0);
	assert_int_equal(request(w, VIRTIO_BLK_T_IN, 3, NULL, 512, back), VIRTIO_BLK_S_OK);
	assert_int_equal(back[0], 0xd15c0003);
	world_close(w);
}

/* Chains that cannot be answered: the device is dead until its driver resets it. */
static void test_malformed(void **state)
{
	static const struct {
		uint32_t out, in;
	} cases[] = {{16, 0}, {0, 513}, {15, 513}, {528, 0}};
	struct world *w = world_plain(URING);
	unsigned i;

	(void)state;
	/* More often than the disk has requests: none is lost. */
	for (i = 0; i < 4 * BLK_HOST_DEPTH; i++) {
		uint32_t out = cases[i % 4].out, in = cases[i % 4].in;
		struct hv_buffer b[2];
		unsigned n = 0;

		if (out > 0) {
			b[n++] =
				(struct hv_buffer){.addr = hv_driver_alloc(&w->d, out), .len = out};
		}
		if (in > 0) {
			b[n++] = (struct hv_buffer){
				.addr = hv_driver_alloc(&w->d, in), .len = in, .flags = HV_WRITE};
		}
		hv_driver_add(&w->d, 0, b, n);
		hv_driver_kick(&w->d, 0);
		assert_true(hv_driver_failed(&w->d));
		hv_driver_reset(&w->d);
		hv_driver_start(&w->d, ALL);
		assert_int_equal(request(w, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, NULL), 0);
	}
	world_close(w);
}

static void test_id(void **state)
{
	static const struct {
		const char *id, *shown;
	} cases[] = {
		{NULL, "blk0"},
		{"", "blk0"},
		{"data-1", "data-1"},
		{"0123456789abcdefghijXYZ", "0123456789abcdefghij"},
	};
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct world *w =
			world_open(DOUBLE, (struct blk_config){.fd = -1, .id = cases[i].id}, ALL);
		char id[21] = {0}, few[4];

		assert_int_equal(request(w, VIRTIO_BLK_T_GET_ID, 0, NULL, 20, id), 0);
		assert_string_equal(id, cases[i].shown);
		assert_int_equal(request(w, VIRTIO_BLK_T_GET_ID, 0, NULL, 4, few), 0);
		assert_memory_equal(few, cases[i].shown, 4);
		world_close(w);
	}
}

static void test_configuration(void **state)
{
	struct world *w = world_plain(URING);
	struct virtio_blk_config c;

	(void)state;
	memcpy(&c, w->d.page + 0x100, sizeof(c));
	assert_int_equal(c.capacity, DISK_SIZE / 512);
	assert_int_equal(c.blk_size, 512);
	assert_int_equal(c.seg_max, 126);
	assert_true(c.max_discard_sectors > 0 && c.max_discard_seg > 0);
	assert_int_equal(w->d.features & (BIT(VIRTIO_BLK_F_RO) | BIT(VIRTIO_BLK_F_CONFIG_WCE)), 0);
	assert_true(w->d.features & BIT(VIRTIO_BLK_F_FLUSH));
	world_close(w);
}

/* Ranges of a discard or of zeros. */
static void test_ranges(void **state)
{
	static const struct {
		struct virtio_blk_discard_write_zeroes range;
		uint32_t type;
		uint8_t status;
	} cases[] = {
		{{8, 16, 0}, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_S_OK},
		{{8, 16, 0}, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_S_OK},
		{{8, 16, 1}, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_S_OK},
		{{0, DISK_SIZE / 512, 0}, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_S_OK},
		{{8, 16, 1}, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_S_UNSUPP},
		{{8, 16, 2}, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_S_UNSUPP},
		{{8, 0, 0}, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_S_IOERR},
		{{0, DISK_SIZE / 512 + 1, 0}, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_S_IOERR},
		{{DISK_SIZE / 512, 1, 0}, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_S_IOERR},
		{{UINT64_MAX, 2, 0}, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_S_IOERR},
		{{0, UINT32_MAX, 0}, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_S_IOERR},
	};
	static const uint8_t zeros[DISK_SIZE];
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		/* The second range is always good: not begun if the first is not. */
		struct virtio_blk_discard_write_zeroes ranges[2] = {cases[i].range, {64, 8, 0}};
		struct world *w = world_plain(i % 2 == 0 ? URING : THREADS);
		uint32_t word;

		print_message("case %u\n", i);
		assert_int_equal(request(w, cases[i].type, 0, ranges, sizeof(ranges), NULL),
				 cases[i].status);
		if (cases[i].status == VIRTIO_BLK_S_OK) {
			check_disk(w, cases[i].range.sector * 512, zeros,
				   cases[i].range.num_sectors * 512);
			check_disk(w, UINT64_C(64) * 512, zeros, 8 * 512);
		} else {
			assert_int_equal(pread(w->disk, &word, 4, 64 * 512), 4);
			assert_int_equal(word, 0xd15c0040);
		}
		if (cases[i].range.num_sectors == 16) {
			/* Neighbours. */
			assert_int_equal(pread(w->disk, &word, 4, 7 * 512), 4);
			assert_int_equal(word, 0xd15c0007);
			assert_int_equal(pread(w->disk, &word, 4, 24 * 512), 4);
			assert_int_equal(word, 0xd15c0018);
		}
		world_close(w);
	}
}

/* More ranges than were offered, and a larger one. */
static void test_range_limits(void **state)
{
	struct virtio_blk_discard_write_zeroes range[17];
	struct world *w = world_plain(DOUBLE);
	unsigned i;
	int large;

	(void)state;
	for (i = 0; i < 17; i++) {
		range[i] =
			(struct virtio_blk_discard_write_zeroes){.sector = 8 * i, .num_sectors = 8};
	}
	assert_int_equal(request(w, VIRTIO_BLK_T_DISCARD, 0, range, 17 * 16, NULL),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(w, VIRTIO_BLK_T_DISCARD, 0, range, 16 * 16, NULL),
			 VIRTIO_BLK_S_OK);
	assert_int_equal(w->host.logged, 16);
	world_close(w);
	large = memfd_create("large", MFD_CLOEXEC);
	assert_int_equal(ftruncate(large, UINT64_C(8) << 30), 0);
	w = world_open(DOUBLE, (struct blk_config){.fd = large}, ALL);
	range[0].num_sectors = (1 << 22) + 1;
	assert_int_equal(request(w, VIRTIO_BLK_T_DISCARD, 0, range, 16, NULL), VIRTIO_BLK_S_IOERR);
	range[0].num_sectors--;
	assert_int_equal(request(w, VIRTIO_BLK_T_DISCARD, 0, range, 16, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(w->host.log[0].len, UINT64_C(2) << 30);
	world_close(w);
}

/* Requests of features that were not accepted. */
static void test_not_negotiated(void **state)
{
	struct virtio_blk_discard_write_zeroes range = {.sector = 0, .num_sectors = 8};
	struct world *w = world_open(DOUBLE, (struct blk_config){.fd = -1},
				     ~(BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES)));

	(void)state;
	assert_int_equal(request(w, VIRTIO_BLK_T_DISCARD, 0, &range, 16, NULL),
			 VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(request(w, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range, 16, NULL),
			 VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(w->host.logged, 0);
	world_close(w);
}

static void test_flush_is_told_when_done(void **state)
{
	struct world *w = world_plain(DOUBLE);
	struct ask a = ask_make(w, VIRTIO_BLK_T_FLUSH, 0, NULL, 0);

	(void)state;
	w->host.hold = true;
	ask_add(w, VIRTIO_BLK_T_FLUSH, &a);
	hv_driver_kick(&w->d, 0);
	assert_int_equal(w->host.logged, 1);
	assert_int_equal(w->host.log[0].op, BLK_FLUSH);
	assert_false(hv_driver_used(&w->d, 0, NULL, NULL));
	assert_int_equal(status_of(w, &a), 0xaa);
	blk_double_release(&w->host);
	hv_driver_wait(&w->d, 0);
	assert_true(hv_driver_used(&w->d, 0, NULL, NULL));
	assert_int_equal(status_of(w, &a), VIRTIO_BLK_S_OK);
	/* One that fails is not told to be done. */
	blk_double_rule(&w->host, -EIO);
	assert_int_equal(request(w, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, NULL), VIRTIO_BLK_S_IOERR);
	world_close(w);
}

/* A driver that knows no flush relies on every write. */
static void test_without_flush_all_is_stable(void **state)
{
	static const uint8_t data[512];
	struct virtio_blk_discard_write_zeroes range = {.sector = 0, .num_sectors = 8, .flags = 1};
	struct world *w =
		world_open(DOUBLE, (struct blk_config){.fd = -1}, ~BIT(VIRTIO_BLK_F_FLUSH));

	(void)state;
	assert_int_equal(request(w, VIRTIO_BLK_T_OUT, 0, data, 512, NULL), 0);
	assert_true(w->host.log[0].op == BLK_WRITE && w->host.log[0].stable);
	assert_int_equal(request(w, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range, 16, NULL), 0);
	assert_int_equal(w->host.log[1].op, BLK_ALLOCATE);
	assert_int_equal(w->host.log[2].op, BLK_FLUSH);
	assert_int_equal(w->host.logged, 3);
	world_close(w);
}

static void test_with_flush_writes_are_plain(void **state)
{
	static const uint8_t data[512];
	struct world *w = world_plain(DOUBLE);

	(void)state;
	assert_int_equal(request(w, VIRTIO_BLK_T_OUT, 0, data, 512, NULL), 0);
	assert_false(w->host.log[0].stable);
	world_close(w);
}

/* Pieces of any length add up. */
static void test_short_ios_go_on(void **state)
{
	static const int64_t pieces[] = {1, 511, 512, 513, 2000, 1, 3};
	uint8_t data[8192], back[8192];
	struct world *w = world_plain(DOUBLE);
	unsigned i, round;

	(void)state;
	fill(data, sizeof(data), 9);
	for (round = 0; round < 2; round++) {
		for (i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
			blk_double_rule(&w->host, pieces[i]);
		}
		if (round == 0) {
			assert_int_equal(request(w, VIRTIO_BLK_T_OUT, 40, data, sizeof(data), NULL),
					 0);
			check_disk(w, 40 * 512, data, sizeof(data));
		} else {
			assert_int_equal(request(w, VIRTIO_BLK_T_IN, 40, NULL, sizeof(back), back),
					 0);
			assert_memory_equal(back, data, sizeof(data));
		}
		assert_int_equal(w->host.logged, (round + 1) * 8);
	}
	world_close(w);
}

/* The host's errors are of the request that met them. */
static void test_host_errors(void **state)
{
	static const int errors[] = {EIO,   ENOSPC, EROFS,  EDQUOT, ENXIO,
				     EFBIG, EBADF,  ENOMEM, EINVAL};
	uint8_t data[1024];
	unsigned i;

	(void)state;
	fill(data, sizeof(data), 3);
	for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		struct world *w = world_plain(DOUBLE);
		struct ask a[3];
		unsigned k;

		/* Of three writes at once the second fails, after half of it. */
		blk_double_whole(&w->host);
		blk_double_rule(&w->host, 512);
		blk_double_whole(&w->host);
		blk_double_rule(&w->host, -errors[i]);
		for (k = 0; k < 3; k++) {
			a[k] = ask_make(w, VIRTIO_BLK_T_OUT, 4 * k, data, sizeof(data));
			ask_add(w, VIRTIO_BLK_T_OUT, &a[k]);
		}
		hv_driver_kick(&w->d, 0);
		for (k = 0; k < 3; k++) {
			assert_true(hv_driver_used(&w->d, 0, NULL, NULL));
			assert_int_equal(status_of(w, &a[k]),
					 k == 1 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
		}
		assert_false(hv_driver_failed(&w->d));
		assert_int_equal(request(w, VIRTIO_BLK_T_OUT, 4, data, sizeof(data), NULL), 0);
		world_close(w);
	}
}

static void test_end_of_a_shrunken_file(void **state)
{
	enum engine engine;
	uint8_t back[4096];

	(void)state;
	for (engine = URING; engine <= DOUBLE; engine++) {
		struct world *w = world_plain(engine);

		assert_int_equal(ftruncate(w->disk, 3 * 512), 0);
		assert_int_equal(request(w, VIRTIO_BLK_T_IN, 0, NULL, sizeof(back), back),
				 VIRTIO_BLK_S_IOERR);
		assert_int_equal(request(w, VIRTIO_BLK_T_IN, 0, NULL, 512, back), VIRTIO_BLK_S_OK);
		world_close(w);
	}
}

static void test_try_again(void **state)
{
	struct world *w = world_plain(DOUBLE);
	uint8_t back[512];
	unsigned i;

	(void)state;
	for (i = 0; i < 16; i++) {
		blk_double_rule(&w->host, i % 2 == 0 ? -EAGAIN : -EINTR);
	}
	assert_int_equal(request(w, VIRTIO_BLK_T_IN, 0, NULL, 512, back), VIRTIO_BLK_S_OK);
	assert_int_equal(w->host.logged, 17);
	/* Each piece anew. */
	for (i = 0; i < 20; i++) {
		blk_double_rule(&w->host, i % 10 == 9 ? 100 : -EAGAIN);
	}
	assert_int_equal(request(w, VIRTIO_BLK_T_IN, 0, NULL, 512, back), VIRTIO_BLK_S_OK);
	/* Not for ever. */
	for (i = 0; i < 17; i++) {
		blk_double_rule(&w->host, -EAGAIN);
	}
	assert_int_equal(request(w, VIRTIO_BLK_T_IN, 0, NULL, 512, back), VIRTIO_BLK_S_IOERR);
	world_close(w);
}

/* What a host cannot do is found out once. */
static void test_ways_of_discard_and_zeros(void **state)
{
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	const int zero = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
	struct virtio_blk_discard_write_zeroes range = {.sector = 9, .num_sectors = 1100};
	static const uint8_t zeros[1100 * 512];
	struct world *w = world_plain(DOUBLE);

	(void)state;
	blk_double_rule(&w->host, -EOPNOTSUPP);
	assert_int_equal(request(w, VIRTIO_BLK_T_DISCARD, 0, &range, 16, NULL), 0);
	assert_int_equal(w->host.log[0].mode, punch);
	assert_int_equal(w->host.logged, 1);
	assert_int_equal(request(w, VIRTIO_BLK_T_DISCARD, 0, &range, 16, NULL), 0);
	assert_int_equal(w->host.logged, 1);
	/* Zeros with leave to free: no hole, no zero range, so they are written, in pieces. */
	range.flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	blk_double_rule(&w->host, -EOPNOTSUPP);
	blk_double_rule(&w->host, 700);
	assert_int_equal(request(w, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range, 16, NULL), 0);
	assert_int_equal(w->host.log[1].mode, zero);
	assert_int_equal(w->host.log[2].op, BLK_WRITE);
	check_disk(w, 9 * 512, zeros, sizeof(zeros));
	world_close(w);
}

/* Without leave to free space no hole is punched. */
static void test_zeros_keep_the_space(void **state)
{
	struct virtio_blk_discard_write_zeroes range = {.sector = 0, .num_sectors = 8};
	struct world *w = world_plain(DOUBLE);

	(void)state;
	blk_double_whole(&w->host);
	assert_int_equal(request(w, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range, 16, NULL), 0);
	assert_int_equal(w->host.log[0].mode, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
	world_close(w);
}

/* More than the host takes at once: all are done, the ring is taken in order, few interrupts. */
static void depth(enum engine engine)
{
	struct world *w = world_open(engine, (struct blk_config){.fd = -1}, ALL);
	struct ask a[40];
	unsigned i, round, done;
	uint32_t word;

	for (round = 0; round < 6; round++) {
		for (i = 0; i < 40; i++) {
			a[i] = ask_make(w, VIRTIO_BLK_T_IN, round * 40 + i, NULL, 512);
			ask_add(w, VIRTIO_BLK_T_IN, &a[i]);
		}
		hv_driver_kick(&w->d, 0);
		for (done = 0; done < 40; done++) {
			hv_driver_wait(&w->d, 0);
			assert_true(hv_driver_used(&w->d, 0, NULL, NULL));
		}
		for (i = 0; i < 40; i++) {
			assert_int_equal(status_of(w, &a[i]), VIRTIO_BLK_S_OK);
			memcpy(&word, hv_driver_at(&w->d, a[i].data), 4);
			assert_int_equal(word, 0xd15c0000 + round * 40 + i);
		}
	}
	world_close(w);
}

static void test_depth(void **state)
{
	(void)state;
	depth(URING);
	depth(THREADS);
	depth(DOUBLE);
}

/* 128 requests of one buffer (the status inside it would be too small a chain: indirect tables). */
static void test_deeper_than_the_host(void **state)
{
	struct world *w = world_plain(DOUBLE);
	struct ask a[128];
	unsigned i;

	(void)state;
	w->host.hold = true;
	for (i = 0; i < 128; i++) {
		struct hv_buffer b[3];

		a[i] = ask_make(w, VIRTIO_BLK_T_IN, i, NULL, 512);
		b[0] = (struct hv_buffer){.addr = a[i].header, .len = 16};
		b[1] = (struct hv_buffer){.addr = a[i].data, .len = 512, .flags = HV_WRITE};
		b[2] = (struct hv_buffer){.addr = a[i].status, .len = 1, .flags = HV_WRITE};
		hv_driver_add_indirect(&w->d, 0, b, 3);
	}
	hv_driver_kick(&w->d, 0);
	assert_int_equal(w->host.logged, BLK_HOST_DEPTH);
	(void)hv_driver_interrupts(&w->d);
	blk_double_release(&w->host);
	hv_driver_wait(&w->d, 0);
	for (i = 0; i < 128; i++) {
		assert_true(hv_driver_used(&w->d, 0, NULL, NULL));
		assert_int_equal(status_of(w, &a[i]), VIRTIO_BLK_S_OK);
	}
	world_close(w);
}

static void test_one_interrupt_for_many(void **state)
{
	struct world *w = world_plain(DOUBLE);
	struct ask a[8];
	unsigned i;

	(void)state;
	for (i = 0; i < 8; i++) {
		a[i] = ask_make(w, VIRTIO_BLK_T_IN, i, NULL, 512);
		ask_add(w, VIRTIO_BLK_T_IN, &a[i]);
	}
	hv_driver_kick(&w->d, 0);
	for (i = 0; i < 8; i++) {
		assert_true(hv_driver_used(&w->d, 0, NULL, NULL));
	}
	assert_int_equal(hv_driver_interrupts(&w->d), 1);
	assert_int_equal(w->host.pushes, 1);
	/* Asked for the next kick: at the entry after those taken. */
	assert_int_equal(hv_driver_avail_event(&w->d, 0), 8);
	world_close(w);
}

static void pause_drains(enum engine engine)
{
	struct world *w = world_plain(engine);
	struct ask a[10];
	unsigned i;

	w->host.hold = engine == DOUBLE;
	for (i = 0; i < 9; i++) {
		a[i] = ask_make(w, i % 2 ? VIRTIO_BLK_T_FLUSH : VIRTIO_BLK_T_IN, i, NULL,
				i % 2 ? 0 : 512);
		ask_add(w, i % 2 ? VIRTIO_BLK_T_FLUSH : VIRTIO_BLK_T_IN, &a[i]);
	}
	hv_driver_kick(&w->d, 0);
	loop_lock(&w->d.loop);
	(void)hv_driver_interrupts(&w->d);
	hv_driver_set_used_event(&w->d, 0, 8);
	virtio_pause(blk_virtio(w->b));
	loop_unlock(&w->d.loop);
	assert_true(engine != DOUBLE || hv_driver_interrupts(&w->d) == 1);
	for (i = 0; i < 9; i++) {
		assert_true(hv_driver_used(&w->d, 0, NULL, NULL));
		assert_int_equal(status_of(w, &a[i]), VIRTIO_BLK_S_OK);
	}
	/* Nothing is begun now; what came is begun after. */
	a[9] = ask_make(w, VIRTIO_BLK_T_IN, 1, NULL, 512);
	ask_add(w, VIRTIO_BLK_T_IN, &a[9]);
	hv_driver_kick(&w->d, 0);
	assert_int_equal(status_of(w, &a[9]), 0xaa);
	virtio_resume(blk_virtio(w->b));
	hv_driver_wait(&w->d, 0);
	assert_int_equal(status_of(w, &a[9]), VIRTIO_BLK_S_OK);
	world_close(w);
}

static void test_pause_drains(void **state)
{
	(void)state;
	pause_drains(DOUBLE);
	pause_drains(URING);
	pause_drains(THREADS);
}

static void count_up(void *arg)
{
	++*(unsigned *)arg;
}

/* A disk that hangs holds nobody: the rest is begun, and told when it is there. */
static void test_rest_waits_for_nobody(void **state)
{
	struct world *w = world_plain(DOUBLE);
	struct virtio *v = blk_virtio(w->b);
	struct ask a[2];
	unsigned rested = 0, i;

	(void)state;
	v->rested = count_up;
	v->rested_arg = &rested;
	w->host.hold = true;
	/* What was begun goes on to its end. */
	blk_double_rule(&w->host, 100);
	for (i = 0; i < 2; i++) {
		a[i] = ask_make(w, VIRTIO_BLK_T_IN, i, NULL, 512);
		ask_add(w, VIRTIO_BLK_T_IN, &a[i]);
	}
	hv_driver_kick(&w->d, 0);
	assert_false(virtio_rest(v));
	assert_false(virtio_rest(v));
	assert_true(v->paused);
	assert_int_equal(w->host.waits, 0);
	blk_double_release(&w->host);
	assert_true(hv_driver_turn(&w->d));
	assert_int_equal(rested, 1);
	assert_true(virtio_rest(v));
	assert_int_equal(w->host.logged, 3);
	for (i = 0; i < 2; i++) {
		assert_true(hv_driver_used(&w->d, 0, NULL, NULL));
		assert_int_equal(status_of(w, &a[i]), VIRTIO_BLK_S_OK);
	}
	virtio_resume(v);
	world_close(w);
}

/* Restored and not begun: the state of the interrupt controller has what the driver was told. */
static void test_rest_tells_nothing_new(void **state)
{
	struct world *w = world_plain(DOUBLE);
	struct virtio *v = blk_virtio(w->b);
	struct virtio_state s;

	(void)state;
	assert_int_equal(request(w, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, NULL), 0);
	virtio_pause(v);
	virtio_save(v, &s);
	virtio_set_status(v, 0);
	assert_int_equal(virtio_load(v, &s), 0);
	(void)hv_driver_interrupts(&w->d);
	assert_true(virtio_rest(v));
	assert_int_equal(hv_driver_interrupts(&w->d), 0);
	virtio_resume(v);
	mmio_refresh(&w->d.mmio);
	world_close(w);
}

/* Held with three reads at the host, the first two of which would be asked for again. */
static struct world *world_reset_in_flight(struct ask a[3])
{
	struct world *w = world_plain(DOUBLE);
	unsigned i;

	w->host.hold = true;
	blk_double_rule(&w->host, -EAGAIN);
	blk_double_rule(&w->host, 100);
	for (i = 0; i < 3; i++) {
		a[i] = ask_make(w, VIRTIO_BLK_T_IN, i, NULL, 512);
		ask_add(w, VIRTIO_BLK_T_IN, &a[i]);
	}
	hv_driver_kick(&w->d, 0);
	hv_driver_write(&w->d, 0x70, 0);
	assert_true(mmio_busy(&w->d.mmio));
	return w;
}

/* The old driver's requests came back and changed nothing, and a new one can come. */
static void expect_reset(struct world *w, const struct ask a[3])
{
	unsigned i;

	assert_false(mmio_busy(&w->d.mmio));
	assert_int_equal(hv_driver_read(&w->d, 0x70), 0);
	assert_null(w->host.first);
	assert_int_equal(w->host.logged, 3);
	for (i = 0; i < 3; i++) {
		assert_int_equal(status_of(w, &a[i]), 0xaa);
	}
	assert_false(hv_driver_used(&w->d, 0, NULL, NULL));
	hv_driver_reset(&w->d);
	hv_driver_start(&w->d, ALL);
	assert_int_equal(request(w, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, NULL), 0);
}

static void test_reset_waits(void **state)
{
	struct ask a[3];
	struct world *w = world_reset_in_flight(a);

	(void)state;
	/* Whatever the driver does now, the device is as it was. */
	assert_int_equal(hv_driver_read(&w->d, 0x70), 15);
	hv_driver_write(&w->d, 0x70, 0);
	hv_driver_write(&w->d, 0x70, VIRTIO_STATUS_ACKNOWLEDGE);
	hv_driver_write(&w->d, 0x30, 0);
	hv_driver_write(&w->d, 0x44, 1);
	hv_driver_kick(&w->d, 0);
	assert_int_equal(hv_driver_read(&w->d, 0x70), 15);
	assert_int_equal(w->host.waits, 0);
	blk_double_release(&w->host);
	assert_true(hv_driver_turn(&w->d));
	expect_reset(w, a);
	world_close(w);
}

/* And the VM is paused meanwhile: the reset is done before it rests. */
static void test_rest_ends_a_reset(void **state)
{
	struct ask a[3];
	struct world *w = world_reset_in_flight(a);
	struct virtio *v = blk_virtio(w->b);
	unsigned rested = 0;

	(void)state;
	v->rested = count_up;
	v->rested_arg = &rested;
	assert_false(virtio_rest(v));
	blk_double_release(&w->host);
	/* Who asks may be first. */
	assert_true(virtio_rest(v));
	assert_int_equal(rested, 0);
	virtio_resume(v);
	expect_reset(w, a);
	world_close(w);
}

/* A driver that breaks the rules while its requests are with the host. */
static void test_failure_in_flight(void **state)
{
	struct world *w = world_plain(DOUBLE);
	struct ask a = ask_make(w, VIRTIO_BLK_T_IN, 1, NULL, 512);
	uint16_t seen;

	(void)state;
	w->host.hold = true;
	ask_add(w, VIRTIO_BLK_T_IN, &a);
	hv_driver_kick(&w->d, 0);
	hv_driver_desc(&w->d, 0, 100, 1, 16, 0, 0);
	hv_driver_avail(&w->d, 0, 100);
	hv_driver_kick(&w->d, 0);
	assert_true(hv_driver_failed(&w->d));
	blk_double_release(&w->host);
	loop_lock(&w->d.loop);
	virtio_pause(blk_virtio(w->b));
	loop_unlock(&w->d.loop);
	/* It came back; the ring is not touched. */
	assert_null(w->host.first);
	memcpy(&seen, hv_driver_at(&w->d, w->d.ring[0].used + 2), 2);
	assert_int_equal(seen, 0);
	virtio_resume(blk_virtio(w->b));
	world_close(w);
}

/* The process that flushes: our only child that is not a zombie. 0 where it cannot be found. */
static int flusher_find(void)
{
	char path[64], line[256];
	FILE *file;
	int pid, last = 0;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	file = fopen(path, "r");
	if (file == NULL) {
		return 0;
	}
	while (fscanf(file, "%d", &pid) == 1) {
		last = pid;
	}
	fclose(file);
	snprintf(path, sizeof(path), "/proc/%d/stat", last);
	file = last > 0 ? fopen(path, "r") : NULL;
	if (file == NULL || fgets(line, sizeof(line), file) == NULL ||
	    strstr(line, ") Z") != NULL) {
		line[0] = '\0';
	}
	if (file != NULL) {
		fclose(file);
	}
	return strstr(line, BLK_SYNC_NAME) != NULL ? last : 0;
}

static bool flusher_kill(void)
{
	int flusher = flusher_find();

	return flusher > 0 && kill(flusher, SIGKILL) == 0;
}

/* Nobody flushes any more: each flush is an error, never a success, and all else works. */
static void test_flusher_gone(void **state)
{
	enum engine engine;
	uint8_t data[512];

	(void)state;
	for (engine = URING; engine <= THREADS; engine++) {
		struct world *w = world_plain(engine);
		unsigned i;

		assert_int_equal(request(w, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, NULL), VIRTIO_BLK_S_OK);
		if (!flusher_kill()) {
			world_close(w);
			skip();
		}
		for (i = 0; i < 3; i++) {
			assert_int_equal(request(w, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, NULL),
					 VIRTIO_BLK_S_IOERR);
		}
		assert_int_equal(request(w, VIRTIO_BLK_T_IN, 0, NULL, 512, data), VIRTIO_BLK_S_OK);
		world_close(w);
	}
}

/* What a taken-over process could ask of the one that flushes: only a disk's orders are done. */
static void test_flusher_does_a_disks_work_only(void **state)
{
	static const struct {
		int mode;
		uint64_t offset, len;
		int64_t result;
	} cases[] = {
		{BLK_MODE_PUNCH, 0, 65536, 0},
		{BLK_MODE_PUNCH, 61440, 4096, 0},
		{BLK_MODE_PUNCH, 61440, 4097, -EPERM},
		{BLK_MODE_PUNCH, 65537, 1, -EPERM},
		{BLK_MODE_ZERO, 65536, 1 << 20, -EPERM},
		{BLK_MODE_ZERO, 4096, UINT64_MAX - 4095, -EPERM},
		{BLK_MODE_ZERO, UINT64_MAX - 4095, 8192, -EPERM},
		{BLK_MODE_DISCARD, 0, 65537, -EPERM},
		{0, 0, 4096, -EPERM},
		{0, 0, 1 << 20, -EPERM},
		{FALLOC_FL_KEEP_SIZE, 0, 4096, -EPERM},
		{FALLOC_FL_ZERO_RANGE, 0, 4096, -EPERM},
		{FALLOC_FL_COLLAPSE_RANGE, 0, 4096, -EPERM},
		{BLK_MODE_ZERO | FALLOC_FL_UNSHARE_RANGE, 0, 4096, -EPERM},
	};
	int disk = memfd_create("disk", MFD_CLOEXEC);
	struct blk_sync sync = {.channel = -1};
	struct blk_io io = {.op = BLK_FLUSH};
	struct stat st;

	(void)state;
	assert_int_equal(ftruncate(disk, 65536), 0);
	assert_int_equal(blk_sync_create(disk, &sync), 0);
	assert_int_equal(blk_sync_ask(&sync, &io), 0);
	assert_int_equal(blk_sync_answer(&sync), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		io = (struct blk_io){.op = BLK_ALLOCATE,
				     .mode = cases[i].mode,
				     .offset = cases[i].offset,
				     .len = cases[i].len};
		assert_int_equal(blk_sync_ask(&sync, &io), 0);
		if (blk_sync_answer(&sync) != cases[i].result) {
			fail_msg("case %zu", i);
		}
	}
	assert_int_equal(fstat(disk, &st), 0);
	assert_int_equal(st.st_size, 65536);
	assert_int_equal(st.st_blocks, 0);
	blk_sync_close(&sync);
	close(disk);
}

/* Its limits are those of the VM's process, and nobody of the same user reads its memory. */
static void test_flusher_is_limited(void **state)
{
	char path[64], line[256];
	int disk = memfd_create("disk", MFD_CLOEXEC);
	struct blk_sync sync;
	unsigned long long soft, hard;
	bool sized = false, no_core = false;
	struct blk_io io = {.op = BLK_FLUSH};
	struct stat st;
	FILE *file;
	int pid;

	(void)state;
	assert_int_equal(ftruncate(disk, 65536), 0);
	assert_int_equal(blk_sync_create(disk, &sync), 0);
	assert_int_equal(blk_sync_ask(&sync, &io), 0);
	assert_int_equal(blk_sync_answer(&sync), 0);
	pid = flusher_find();
	if (pid == 0) {
		blk_sync_close(&sync);
		close(disk);
		skip();
	}
	snprintf(path, sizeof(path), "/proc/%d/limits", pid);
	file = fopen(path, "r");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file) != NULL) {
		sized = sized || (sscanf(line, "Max file size %llu %llu", &soft, &hard) == 2 &&
				  soft == 65536 && hard == 65536);
		no_core = no_core ||
			  (sscanf(line, "Max core file size %llu %llu", &soft, &hard) == 2 &&
			   soft == 0 && hard == 0);
	}
	fclose(file);
	assert_true(sized && no_core);
	/* Files in proc of who cannot be dumped are root's. */
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_uid, 0);
	blk_sync_close(&sync);
	close(disk);
}

/* The process that flushes has the disk's open file too, and the ring: the end waits until both
 * have let go of it, and a new VM gets the lock, or another the file system, at once. */
static void test_lock_is_free_at_the_end(void **state)
{
	enum engine engine;

	(void)state;
	for (engine = URING; engine <= THREADS; engine++) {
		struct world *w = world_plain(engine);
		struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
		char path[64], holder[64];
		int other;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", w->disk);
		other = open(path, O_RDWR | O_CLOEXEC);
		assert_true(other >= 0);
		assert_int_equal(disk_lock(w->disk, false, holder), 0);
		assert_int_equal(disk_lock(other, false, holder), -EBUSY);
		world_close(w);
		assert_int_equal(fcntl(other, F_OFD_SETLK, &lock), 0);
		close(other);
	}
}

/* Flushes and discards that come together are all done. */
static void test_flushes_at_once(void **state)
{
	struct virtio_blk_discard_write_zeroes range = {.sector = 8, .num_sectors = 8};
	enum engine engine;

	(void)state;
	for (engine = URING; engine <= THREADS; engine++) {
		struct world *w = world_plain(engine);
		struct ask a[30];
		unsigned i;

		for (i = 0; i < 30; i++) {
			uint32_t type = i % 3 == 0   ? VIRTIO_BLK_T_FLUSH
					: i % 3 == 1 ? VIRTIO_BLK_T_IN
						     : VIRTIO_BLK_T_DISCARD;
			uint32_t len = i % 3 == 0 ? 0 : i % 3 == 1 ? 512 : sizeof(range);

			a[i] = ask_make(w, type, i % 3 == 1 ? i : 0, i % 3 == 2 ? &range : NULL,
					len);
			ask_add(w, type, &a[i]);
		}
		hv_driver_kick(&w->d, 0);
		for (i = 0; i < 30; i++) {
			hv_driver_wait(&w->d, 0);
			assert_true(hv_driver_used(&w->d, 0, NULL, NULL));
		}
		for (i = 0; i < 30; i++) {
			assert_int_equal(status_of(w, &a[i]), VIRTIO_BLK_S_OK);
		}
		world_close(w);
	}
}

/* A file on a file system with O_DIRECT, or -1. */
static int direct_file(void)
{
	char path[] = "./direct-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);
	int flags;

	assert_true(fd >= 0);
	unlink(path);
	assert_int_equal(ftruncate(fd, DISK_SIZE), 0);
	flags = fcntl(fd, F_GETFL);
	if (fcntl(fd, F_SETFL, flags | O_DIRECT) < 0) {
		close(fd);
		return -1;
	}
	assert_int_equal(fcntl(fd, F_SETFL, flags), 0);
	return fd;
}

/* Header and data in one buffer, or the header in two: the data begins where the header ends, also
 * when it has to be copied to be aligned (virtio 1.2, 2.7.4.3: no framing is assumed). */
static void test_direct_framing(void **state)
{
	enum { LEN = 4096 };
	static const unsigned cuts[] = {16 + LEN, 10, 16};
	uint8_t data[LEN];
	int fd = direct_file();
	struct world *w;

	(void)state;
	if (fd < 0) {
		skip();
	}
	w = world_open(URING, (struct blk_config){.fd = fd, .direct = true}, ALL);
	fill(data, sizeof(data), 9);
	for (unsigned i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
		struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_OUT, .sector = 8 * i};
		uint64_t at = hv_driver_alloc(&w->d, 16 + LEN);
		unsigned cut = cuts[i];
		struct hv_buffer b[3] = {{.addr = at, .len = cut}};
		unsigned n = 1;

		if (cut < 16 + LEN) {
			b[n++] = (struct hv_buffer){.addr = at + cut, .len = 16 + LEN - cut};
		}
		b[n++] = (struct hv_buffer){
			.addr = hv_driver_alloc(&w->d, 1), .len = 1, .flags = HV_WRITE};
		memcpy(hv_driver_at(&w->d, at), &header, 16);
		memcpy(hv_driver_at(&w->d, at + 16), data, LEN);
		hv_driver_add(&w->d, 0, b, n);
		hv_driver_kick(&w->d, 0);
		hv_driver_wait(&w->d, 0);
		assert_true(hv_driver_used(&w->d, 0, NULL, NULL));
		assert_int_equal(*(uint8_t *)hv_driver_at(&w->d, b[n - 1].addr), VIRTIO_BLK_S_OK);
	}
	assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_DIRECT), 0);
	for (unsigned i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
		uint8_t got[LEN];

		assert_int_equal(pread(fd, got, LEN, LEN * i), LEN);
		assert_memory_equal(got, data, LEN);
	}
	world_close(w);
}

/* With O_DIRECT, buffers anywhere; those on sectors go straight, the others through a bounce
 * buffer. */
static void test_direct(void **state)
{
	enum { LEN = 40 * 1024 };
	static uint8_t data[LEN];
	int fd = direct_file();
	struct world *w;
	unsigned shift;

	(void)state;
	if (fd < 0) {
		skip();
	}
	w = world_open(URING, (struct blk_config){.fd = fd, .direct = true}, ALL);
	fill(data, sizeof(data), 5);
	for (shift = 0; shift < 2; shift++) {
		struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_OUT, .sector = 16 + shift};
		uint64_t place = hv_driver_alloc(&w->d, LEN + 4096);
		uint64_t at = (place + 511) / 512 * 512 + shift * 52;
		struct hv_buffer b[4] = {
			{.addr = hv_driver_put(&w->d, &header, 16), .len = 16},
			{.addr = at, .len = 1024},
			{.addr = at + 1024, .len = LEN - 1024},
			{.addr = hv_driver_alloc(&w->d, 1), .len = 1, .flags = HV_WRITE},
		};
		uint8_t *status = hv_driver_at(&w->d, b[3].addr);

		*status = 0xaa;
		memcpy(hv_driver_at(&w->d, at), data, LEN);
		hv_driver_add(&w->d, 0, b, 4);
		hv_driver_kick(&w->d, 0);
		hv_driver_wait(&w->d, 0);
		assert_true(hv_driver_used(&w->d, 0, NULL, NULL));
		assert_int_equal(*status, VIRTIO_BLK_S_OK);
		/* And back. */
		header.type = VIRTIO_BLK_T_IN;
		memcpy(hv_driver_at(&w->d, b[0].addr), &header, 16);
		memset(hv_driver_at(&w->d, at), 0, LEN);
		b[1].flags = b[2].flags = HV_WRITE;
		*status = 0xaa;
		hv_driver_add(&w->d, 0, b, 4);
		hv_driver_kick(&w->d, 0);
		hv_driver_wait(&w->d, 0);
		assert_true(hv_driver_used(&w->d, 0, NULL, NULL));
		assert_int_equal(*status, VIRTIO_BLK_S_OK);
		assert_memory_equal(hv_driver_at(&w->d, at), data, LEN);
	}
	world_close(w);
}

/* A host that lets files grow to 64 KiB: beyond, each write fails and nothing else does. */
static void test_no_space(void **state)
{
	static const uint8_t data[4096] = {1};
	struct rlimit old, small;
	enum engine engine;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	signal(SIGXFSZ, SIG_IGN);
	for (engine = URING; engine <= THREADS; engine++) {
		struct world *w = world_plain(engine);

		small = (struct rlimit){.rlim_cur = 64 << 10, .rlim_max = old.rlim_max};
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
		assert_int_equal(request(w, VIRTIO_BLK_T_OUT, 0, data, 4096, NULL),
				 VIRTIO_BLK_S_OK);
		assert_int_equal(request(w, VIRTIO_BLK_T_OUT, 256, data, 4096, NULL),
				 VIRTIO_BLK_S_IOERR);
		assert_int_equal(request(w, VIRTIO_BLK_T_OUT, 8, data, 4096, NULL),
				 VIRTIO_BLK_S_OK);
		assert_int_equal(request(w, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, NULL), VIRTIO_BLK_S_OK);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
		world_close(w);
	}
	signal(SIGXFSZ, SIG_DFL);
}

static void test_create_refusals(void **state)
{
	static const struct {
		const char *path;
		off_t size; /* -1: as it is */
		int flags;
		bool read_only, direct;
		int error;
		const char *says;
	} cases[] = {
		{NULL, 0, O_RDWR, false, false, -EINVAL, "is empty"},
		{NULL, 1000, O_RDWR, false, false, -EINVAL, "no multiple of 512"},
		{NULL, 4096, O_RDONLY, false, false, -EACCES, "readOnly"},
		{NULL, 4096, O_WRONLY, true, false, -EACCES, "not open for reading"},
		{"/dev/null", -1, O_RDWR, false, false, -EINVAL, "neither a file nor"},
		{"/", -1, O_RDONLY, true, false, -EINVAL, "neither a file nor"},
		{"/proc/self/status", -1, O_RDONLY, true, false, -EINVAL, "is empty"},
	};
	struct hv_driver d;
	struct fault fault = {0};
	struct blk *b = NULL;
	unsigned i;

	(void)state;
	hv_driver_open(&d, 1 << 20);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct blk_config config = {.read_only = cases[i].read_only};
		char path[] = "./disk-XXXXXX";

		if (cases[i].path == NULL) {
			int fd = mkostemp(path, O_CLOEXEC);

			assert_int_equal(ftruncate(fd, cases[i].size), 0);
			close(fd);
		}
		config.fd = open(cases[i].path != NULL ? cases[i].path : path,
				 cases[i].flags | O_CLOEXEC);
		assert_true(config.fd >= 0);
		unlink(path);
		fault.text[0] = '\0';
		assert_int_equal(blk_create(&config, &d.ram, &d.loop, "disk3", &b, &fault),
				 cases[i].error);
		print_message("%s\n", fault.text);
		assert_non_null(strstr(fault.text, cases[i].says));
		assert_non_null(strstr(fault.text, "disk3"));
		assert_null(b);
		close(config.fd);
	}
	fault.text[0] = '\0';
	assert_int_equal(
		blk_create(&(struct blk_config){.fd = -1}, &d.ram, &d.loop, "disk3", &b, &fault),
		-EBADF);
	assert_true(fault.text[0] != '\0');
	hv_driver_close(&d);
}

static void test_engine_by_choice(void **state)
{
	struct world *w = world_plain(THREADS);

	(void)state;
	assert_string_equal(blk_engine(w->b), "threads");
	world_close(w);
}

/* As in a container whose filter knows no io_uring. */
static void forbid_io_uring(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = 4, .filter = code};

	/* Where there are no filters (qemu-user) there is no io_uring either. */
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	(void)prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static void test_without_io_uring(void **state)
{
	pid_t child = fork();
	int status;

	(void)state;
	if (child == 0) {
		struct world *w;

		forbid_io_uring();
		w = world_plain(URING);
		_exit(strcmp(blk_engine(w->b), "threads") == 0 &&
				      request(w, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, NULL) == 0
			      ? 0
			      : 1);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* The ring of a read-only disk refuses by itself what blk.c would never ask. */
static void test_ring_is_confined(void **state)
{
	uint8_t data[512] = {0};
	struct iovec iov = {.iov_base = data, .iov_len = sizeof(data)};
	struct blk_io write = {.op = BLK_WRITE, .iov = &iov, .count = 1, .len = sizeof(data)};
	struct blk_io read = {.op = BLK_READ, .iov = &iov, .count = 1, .len = sizeof(data)};
	struct blk_host *host;
	int disk = pattern_disk();
	unsigned done = 0;

	(void)state;
	if (blk_uring_create(disk, true, &host) < 0) {
		close(disk);
		skip();
	}
	host->class->queue(host, &write);
	host->class->push(host);
	host->class->queue(host, &read);
	host->class->push(host);
	while (done < 2) {
		done += host->class->take(host) != NULL;
	}
	assert_int_equal(write.result, -EACCES);
	assert_int_equal(read.result, 512);
	host->class->close(host);
	close(disk);
}

static void count_stat(void *arg, const char *part, const char *what, uint64_t value, bool gauge)
{
	uint64_t *sum = arg;

	(void)gauge;
	assert_string_equal(part, "blk0");
	if (strcmp(what, "reads") == 0 || strcmp(what, "write-bytes") == 0 ||
	    strcmp(what, "errors") == 0 || strcmp(what, "in-flight") == 0) {
		*sum = *sum * 10000 + value;
	}
}

static void test_stats(void **state)
{
	uint8_t data[1024] = {0};
	struct world *w = world_plain(DOUBLE);
	uint64_t sum = 0;

	(void)state;
	assert_int_equal(request(w, VIRTIO_BLK_T_IN, 0, NULL, 512, data), 0);
	assert_int_equal(request(w, VIRTIO_BLK_T_OUT, 0, data, 1024, NULL), 0);
	blk_double_rule(&w->host, -EIO);
	assert_int_equal(request(w, VIRTIO_BLK_T_IN, 0, NULL, 512, data), 1);
	blk_stats(w->b, &(struct stats_sink){.add = count_stat, .arg = &sum});
	assert_int_equal(sum, UINT64_C(2102400010000));
	world_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_writes_and_reads),
		cmocka_unit_test(test_any_framing),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_id),
		cmocka_unit_test(test_configuration),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_range_limits),
		cmocka_unit_test(test_not_negotiated),
		cmocka_unit_test(test_flush_is_told_when_done),
		cmocka_unit_test(test_without_flush_all_is_stable),
		cmocka_unit_test(test_with_flush_writes_are_plain),
		cmocka_unit_test(test_short_ios_go_on),
		cmocka_unit_test(test_host_errors),
		cmocka_unit_test(test_end_of_a_shrunken_file),
		cmocka_unit_test(test_try_again),
		cmocka_unit_test(test_ways_of_discard_and_zeros),
		cmocka_unit_test(test_zeros_keep_the_space),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_deeper_than_the_host),
		cmocka_unit_test(test_one_interrupt_for_many),
		cmocka_unit_test(test_pause_drains),
		cmocka_unit_test(test_rest_waits_for_nobody),
		cmocka_unit_test(test_rest_tells_nothing_new),
		cmocka_unit_test(test_reset_waits),
		cmocka_unit_test(test_rest_ends_a_reset),
		cmocka_unit_test(test_failure_in_flight),
		cmocka_unit_test(test_flusher_gone),
		cmocka_unit_test(test_flusher_does_a_disks_work_only),
		cmocka_unit_test(test_flusher_is_limited),
		cmocka_unit_test(test_lock_is_free_at_the_end),
		cmocka_unit_test(test_flushes_at_once),
		cmocka_unit_test(test_direct),
		cmocka_unit_test(test_direct_framing),
		cmocka_unit_test(test_no_space),
		cmocka_unit_test(test_create_refusals),
		cmocka_unit_test(test_engine_by_choice),
		cmocka_unit_test(test_without_io_uring),
		cmocka_unit_test(test_ring_is_confined),
		cmocka_unit_test(test_stats),
	};

	log_set_level(0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
