/* Kernels, initrds and the device tree: what is taken, where it is put, what is said of the rest.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <libfdt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include "hv/image.h"
#include "hv/layout.h"
#include "hv/pl011.h"
#include "hv/tree.h"

#define MIB (UINT64_C(1) << 20)
enum { KERNEL = 8192 };

static void put(uint8_t *at, uint64_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++) {
		at[i] = (uint8_t)(value >> (8 * i));
	}
}

static int file_of(const void *data, size_t len)
{
	int fd = memfd_create("image", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), (ssize_t)len);
	return fd;
}

/* An Image of KERNEL bytes that wants image_size bytes. */
static void image_make(uint8_t image[KERNEL], uint64_t image_size)
{
	memset(image, 0xee, KERNEL);
	memset(image, 0, 64);
	put(image + 16, image_size, 8);
	put(image + 24, 0xa, 8);
	memcpy(image + 56, "ARM\x64", 4);
}

static size_t gzip_make(const uint8_t *data, size_t len, uint8_t *out, size_t room)
{
	z_stream z = {0};

	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (Bytef *)(uintptr_t)data;
	z.avail_in = (uInt)len;
	z.next_out = out;
	z.avail_out = (uInt)room;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return room - z.avail_out;
}

struct loaded {
	int rv;
	struct image_place place;
	struct fault fault;
};

/* Who is asked between the pieces, for how long it wants to go on. */
static unsigned turns, turns_most = UINT_MAX;

static bool turn_take(void *arg)
{
	(void)arg;
	return ++turns <= turns_most;
}

static struct loaded load(const void *kernel, size_t len, const void *initrd, size_t initrd_len,
			  struct ram *r)
{
	struct loaded l = {0};
	int kernel_fd = file_of(kernel, len);
	int initrd_fd = initrd != NULL ? file_of(initrd, initrd_len) : -1;
	const struct image_turn turn = {.take = turn_take};

	turns = 0;
	l.rv = image_load(kernel_fd, initrd_fd, r, &turn, &l.place, &l.fault);
	close(kernel_fd);
	if (initrd_fd >= 0) {
		close(initrd_fd);
	}
	return l;
}

static struct ram ram_of(uint64_t mib)
{
	struct fault fault = {0};
	struct ram r;

	assert_int_equal(ram_create(mib * MIB, RAM_ANONYMOUS, &r, &fault), 0);
	return r;
}

static void test_plain(void **state)
{
	uint8_t image[KERNEL], initrd[1000];
	struct ram r = ram_of(16);
	struct loaded l;

	(void)state;
	image_make(image, 3 * MIB);
	memset(initrd, 0x77, sizeof(initrd));
	l = load(image, sizeof(image), initrd, sizeof(initrd), &r);
	assert_int_equal(l.rv, 0);
	assert_int_equal(l.place.entry, LAYOUT_RAM);
	assert_int_equal(l.place.kernel_end, LAYOUT_RAM + 3 * MIB);
	/* The tree has a 2 MiB block of its own, the initrd is behind it. */
	assert_int_equal(l.place.tree, LAYOUT_RAM + 4 * MIB);
	assert_int_equal(l.place.initrd, LAYOUT_RAM + 6 * MIB);
	assert_int_equal(l.place.initrd_size, sizeof(initrd));
	assert_memory_equal(r.host, image, sizeof(image));
	assert_memory_equal(r.host + 6 * MIB, initrd, sizeof(initrd));
	ram_destroy(&r);
}

/* Others have a turn before each MiB, and may end it: why, they say. */
static void test_turns(void **state)
{
	enum { LEN = 3 * 1024 * 1024 + 5 };
	uint8_t *image = calloc(1, LEN), *initrd = calloc(1, LEN);
	uint8_t *packed = malloc(2 * LEN);
	struct ram r = ram_of(32);
	struct loaded l;
	size_t len;

	(void)state;
	for (size_t i = 0; i < LEN; i++) { /* what hardly gets smaller */
		image[i] = initrd[i] = (uint8_t)((i * 2654435761u) >> 13 ^ i >> 3);
	}
	image_make(image, LEN);
	l = load(image, LEN, initrd, LEN, &r);
	assert_int_equal(l.rv, 0);
	assert_int_equal(turns, 1 + 4 + 4); /* the kernel's front, kernel, initrd */
	assert_memory_equal(r.host, image, LEN);
	assert_memory_equal(r.host + (l.place.initrd - LAYOUT_RAM), initrd, LEN);
	for (turns_most = 0; turns_most < 9; turns_most++) {
		l = load(image, LEN, initrd, LEN, &r);
		assert_int_equal(l.rv, -ECANCELED);
		assert_int_equal(turns, turns_most + 1);
		assert_string_equal(l.fault.text, "");
	}
	turns_most = UINT_MAX;
	len = gzip_make(image, LEN, packed, 2 * LEN);
	l = load(packed, len, NULL, 0, &r);
	assert_int_equal(l.rv, 0);
	assert_int_equal(turns, 2 + (len + MIB - 1) / MIB);
	turns_most = turns - 1;
	l = load(packed, len, NULL, 0, &r);
	assert_int_equal(l.rv, -ECANCELED);
	assert_string_equal(l.fault.text, "");
	turns_most = UINT_MAX;
	ram_destroy(&r);
	free(image);
	free(initrd);
	free(packed);
}

static void test_gzip(void **state)
{
	uint8_t image[KERNEL], packed[KERNEL + 1024];
	struct ram r = ram_of(16);
	struct loaded l;
	size_t len;

	(void)state;
	image_make(image, 3 * MIB);
	len = gzip_make(image, sizeof(image), packed, sizeof(packed));
	l = load(packed, len, NULL, 0, &r);
	assert_int_equal(l.rv, 0);
	assert_int_equal(l.place.initrd_size, 0);
	assert_memory_equal(r.host, image, sizeof(image));
	l = load(packed, len - 9, NULL, 0, &r);
	assert_int_equal(l.rv, -ENOEXEC);
	assert_non_null(strstr(l.fault.text, "cut off"));
	memset(packed + len / 2, 0xff, len / 4);
	l = load(packed, len, NULL, 0, &r);
	assert_int_equal(l.rv, -ENOEXEC);
	assert_non_null(strstr(l.fault.text, "gzip data is"));
	ram_destroy(&r);
}

/* A few KiB that unpack to more than the guest has. */
static void test_gzip_bomb(void **state)
{
	const size_t size = 20 * MIB;
	uint8_t *image = calloc(1, size), *packed = malloc(size);
	struct ram r = ram_of(16);
	struct loaded l;
	size_t len;

	(void)state;
	image_make(image, 0x1000);
	len = gzip_make(image, size, packed, size);
	l = load(packed, len, NULL, 0, &r);
	assert_int_equal(l.rv, -ENOSPC);
	assert_non_null(strstr(l.fault.text, "more than"));
	ram_destroy(&r);
	free(image);
	free(packed);
}

/* A PE header says where the last section ends: a kernel that was cut off is known. */
static void test_cut_off(void **state)
{
	uint8_t image[KERNEL];
	struct ram r = ram_of(16);
	struct loaded l;

	(void)state;
	image_make(image, 3 * MIB);
	memcpy(image, "MZ", 2);
	put(image + 60, 64, 4);
	memcpy(image + 64, "PE\0\0", 4);
	put(image + 64 + 6, 2, 2);
	put(image + 64 + 20, 0xa0, 2);
	put(image + 64 + 24 + 0xa0 + 16, 4096, 4);
	put(image + 64 + 24 + 0xa0 + 20, 1024, 4);
	put(image + 64 + 24 + 0xa0 + 40 + 16, 2048, 4);
	put(image + 64 + 24 + 0xa0 + 40 + 20, 6144, 4);
	l = load(image, KERNEL, NULL, 0, &r);
	assert_int_equal(l.rv, 0);
	l = load(image, KERNEL - 1, NULL, 0, &r);
	assert_int_equal(l.rv, -ENOEXEC);
	assert_non_null(strstr(l.fault.text, "cut off: it has 8191 bytes, its header says 8192"));
	ram_destroy(&r);
}

static void test_refused(void **state)
{
	static const struct {
		unsigned at, bytes;
		uint64_t value;
		const char *words;
	} cases[] = {
		{56, 4, 0x12345678, "no arm64 Linux kernel"},
		{24, 8, 0xb, "big-endian"},
		{8, 8, 0x201000, "text offset"},
		{8, 8, 0x123, "text offset"},
		{16, 8, 64 * MIB, "more than 64 MiB"},
		{16, 8, UINT64_MAX, "more than"},
		{16, 8, 15 * MIB, "device tree"},
	};
	struct ram r = ram_of(16);

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t image[KERNEL];
		struct loaded l;

		image_make(image, 3 * MIB);
		put(image + cases[i].at, cases[i].value, cases[i].bytes);
		/* With an offset, the largest size would wrap around. */
		if (cases[i].value == UINT64_MAX) {
			put(image + 8, 0x1000, 8);
		}
		l = load(image, sizeof(image), NULL, 0, &r);
		assert_true(l.rv < 0);
		if (strstr(l.fault.text, cases[i].words) == NULL) {
			fail_msg("case %zu: %s", i, l.fault.text);
		}
	}
	ram_destroy(&r);
}

static void test_other_kinds(void **state)
{
	static const struct {
		unsigned at;
		const char *bytes;
		size_t len;
		const char *words;
	} cases[] = {
		{0,
		 "\x7f"
		 "ELF\2\1\1",
		 7, "ELF file for another architecture"},
		{0,
		 "\xfd"
		 "7zXZ",
		 5, "not with gzip"},
		{0, "\x28\xb5\x2f\xfd", 4, "not with gzip"},
		{0x202, "HdrS", 4, "another architecture"},
		{4, "zimg", 4, "EFI kernel"},
		{0, "root:x:0", 8, "no arm64 Linux kernel"},
	};
	struct ram r = ram_of(16);
	struct loaded l;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t file[2048] = {0};

		memcpy(file + cases[i].at, cases[i].bytes, cases[i].len);
		l = load(file, sizeof(file), NULL, 0, &r);
		assert_int_equal(l.rv, -ENOEXEC);
		if (strstr(l.fault.text, cases[i].words) == NULL) {
			fail_msg("case %zu: %s", i, l.fault.text);
		}
	}
	l = load("short", 5, NULL, 0, &r);
	assert_int_equal(l.rv, -ENOEXEC);
	assert_non_null(strstr(l.fault.text, "cut off"));
	l = load("", 0, NULL, 0, &r);
	assert_int_equal(l.rv, -ENOEXEC);
	ram_destroy(&r);
}

static void test_initrd(void **state)
{
	uint8_t image[KERNEL];
	size_t large = 12 * MIB;
	uint8_t *initrd = calloc(1, large);
	struct ram r = ram_of(16);
	struct loaded l;

	(void)state;
	image_make(image, 3 * MIB);
	l = load(image, sizeof(image), initrd, large, &r);
	assert_int_equal(l.rv, -ENOSPC);
	assert_string_equal(
		l.fault.text,
		"the initrd does not fit into the guest's memory: give the VM more than 18 MiB");
	l = load(image, sizeof(image), initrd, 10 * MIB, &r);
	assert_int_equal(l.rv, 0);
	l = load(image, sizeof(image), initrd, 0, &r);
	assert_int_equal(l.rv, -EINVAL);
	assert_non_null(strstr(l.fault.text, "initrd is empty"));
	ram_destroy(&r);
	free(initrd);
}

static void none_output(void *arg, uint8_t data)
{
	(void)arg;
	(void)data;
}

static void none_irq(void *arg, int level)
{
	*(int *)arg = level;
}

static void test_tree(void **state)
{
	uint8_t blob[4096];
	struct pl011 uart;
	struct tree t;
	size_t size = 0;
	int level = 0, node, len;
	const fdt32_t *cells;

	(void)state;
	pl011_init(&uart, none_output, none_irq, &level);
	tree_begin(&t, blob, sizeof(blob));
	tree_u32(&t, "#address-cells", 2);
	pl011_tree(&uart, &t);
	assert_int_equal(tree_finish(&t, &size), 0);
	assert_int_equal(fdt_check_full(blob, size), 0);
	node = fdt_path_offset(blob, "/pl011@9000000");
	assert_true(node >= 0);
	cells = fdt_getprop(blob, node, "interrupts", &len);
	assert_int_equal(len, 12);
	assert_int_equal(fdt32_to_cpu(cells[1]), LAYOUT_SPI_PL011);
	assert_int_equal(fdt32_to_cpu(cells[2]), TREE_LEVEL);
	/* Too small a place is told at the end, whatever was written. */
	tree_begin(&t, blob, 256);
	pl011_tree(&uart, &t);
	assert_int_equal(tree_finish(&t, &size), -ENOSPC);
}

/* Typed characters raise the line until they were read; a full FIFO takes no more. */
static void test_uart(void **state)
{
	enum { DR = 0, FR = 0x18, IMSC = 0x38, ICR = 0x44, RX = 1 << 4, TX = 1 << 5 };
	uint8_t typed[PL011_FIFO + 4];
	struct pl011 uart;
	struct bus_device d;
	int level = 0;

	(void)state;
	pl011_init(&uart, none_output, none_irq, &level);
	d = pl011_device(&uart);
	memset(typed, 'x', sizeof(typed));
	typed[0] = 'a';
	assert_int_equal(d.read(d.device, FR, 4) & 0x50, 0x10);
	assert_int_equal(pl011_input(&uart, typed, sizeof(typed)), PL011_FIFO);
	assert_int_equal(pl011_input(&uart, typed, 1), 0);
	assert_int_equal(level, 0);
	d.write(d.device, IMSC, RX, 4);
	assert_int_equal(level, 1);
	assert_int_equal(d.read(d.device, FR, 4) & 0x50, 0x40);
	assert_int_equal(d.read(d.device, DR, 4), 'a');
	for (int i = 1; i < PL011_FIFO; i++) {
		assert_int_equal(level, 1);
		assert_int_equal(d.read(d.device, DR, 4), 'x');
	}
	assert_int_equal(level, 0);
	assert_int_equal(d.read(d.device, DR, 4), 0);
	/* The transmitter is always empty, so its interrupt comes as soon as it is wanted. */
	d.write(d.device, IMSC, TX, 4);
	assert_int_equal(level, 1);
	d.write(d.device, ICR, TX, 4);
	assert_int_equal(level, 0);
	/* Linux knows the part by its identification registers. */
	assert_int_equal(d.read(d.device, 0xfe0, 4), 0x11);
	assert_int_equal(d.read(d.device, 0xffc, 4), 0xb1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_turns),	    cmocka_unit_test(test_plain),
		cmocka_unit_test(test_gzip),	    cmocka_unit_test(test_gzip_bomb),
		cmocka_unit_test(test_cut_off),	    cmocka_unit_test(test_refused),
		cmocka_unit_test(test_other_kinds), cmocka_unit_test(test_initrd),
		cmocka_unit_test(test_tree),	    cmocka_unit_test(test_uart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
