/* Guest memory and the addresses of devices: what is inside and what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv/bus.h"
#include "hv/layout.h"
#include "hv/ram.h"

#define MIB (UINT64_C(1) << 20)

static void test_inside(void **state)
{
	const uint64_t size = 4 * MIB;
	const uint64_t end = LAYOUT_RAM + size;
	const struct {
		uint64_t guest, len;
		bool inside;
	} cases[] = {
		{LAYOUT_RAM, 1, true},
		{LAYOUT_RAM, size, true},
		{LAYOUT_RAM, size + 1, false},
		{LAYOUT_RAM, 0, false},
		{LAYOUT_RAM - 1, 1, false},
		{LAYOUT_RAM - 1, 2, false},
		{end - 1, 1, true},
		{end - 1, 2, false},
		{end, 1, false},
		{0, 1, false},
		{UINT64_MAX, 1, false},
		{LAYOUT_RAM + 8, UINT64_MAX - 4, false},
		{UINT64_MAX - 7, 16, false},
	};
	struct ram r;
	struct fault fault = {0};

	(void)state;
	assert_int_equal(ram_create(size, RAM_ANONYMOUS, &r, &fault), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t *at = ram_at(&r, cases[i].guest, cases[i].len);

		assert_int_equal(at != NULL, cases[i].inside);
		if (at != NULL) {
			assert_ptr_equal(at, r.host + (cases[i].guest - LAYOUT_RAM));
		}
	}
	assert_int_equal(ram_left(&r, LAYOUT_RAM + 5), size - 5);
	assert_int_equal(ram_left(&r, end), 0);
	assert_int_equal(ram_left(&r, 0), 0);
	ram_destroy(&r);
}

static void test_blocks(void **state)
{
	static const enum ram_backing backings[] = {RAM_ANONYMOUS, RAM_MEMFD, RAM_AUTO};

	(void)state;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		struct fault fault = {0};
		struct ram r;

		assert_int_equal(ram_create(6 * MIB, backings[i], &r, &fault), 0);
		assert_int_equal((uintptr_t)r.host % (2 * MIB), 0);
		assert_int_not_equal(r.backing, RAM_AUTO);
		/* The size of a memfd is sealed: a mapping cannot lose its pages. */
		if (r.backing == RAM_MEMFD) {
			assert_int_equal(ftruncate(r.fd, 0), -1);
		}
		ram_destroy(&r);
		ram_destroy(&r);
	}
}

/* Pages given back read as zeros; what lies beside them in the same page stays. */
static void test_release(void **state)
{
	static const enum ram_backing backings[] = {RAM_ANONYMOUS, RAM_MEMFD};
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	(void)state;
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		struct fault fault = {0};
		struct ram r;

		assert_int_equal(ram_create(2 * MIB, backings[i], &r, &fault), 0);
		memset(r.host, 0x5a, r.size);
		assert_int_equal(ram_release(&r, LAYOUT_RAM + 1, 3 * page), 0);
		assert_int_equal(r.host[0], 0x5a);
		assert_int_equal(r.host[page], 0);
		assert_int_equal(r.host[3 * page - 1], 0);
		assert_int_equal(r.host[3 * page], 0x5a);
		assert_int_equal(ram_release(&r, LAYOUT_RAM + page, 1), 0);
		assert_int_equal(ram_release(&r, LAYOUT_RAM, 2 * MIB + 1), -ERANGE);
		assert_int_equal(ram_release(&r, 0, page), -ERANGE);
		assert_int_equal(ram_clear(&r), 0);
		assert_int_equal(r.host[0], 0);
		assert_int_equal(r.host[2 * MIB - 1], 0);
		ram_destroy(&r);
	}
}

/* A clone sees the snapshot, keeps its own changes to itself, and is empty after a reset. */
static void test_clone(void **state)
{
	struct fault fault = {0};
	struct ram a, b;
	uint8_t byte = 7;
	int fd = memfd_create("memory", MFD_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 2 * MIB), 0);
	assert_int_equal(pwrite(fd, &byte, 1, 100), 1);
	assert_int_equal(ram_map_file(fd, 4 * MIB, &a, &fault), -EINVAL);
	assert_non_null(strstr(fault.text, "4194304 bytes"));
	assert_int_equal(ram_map_file(fd, 2 * MIB, &a, &fault), 0);
	assert_int_equal(ram_map_file(fd, 2 * MIB, &b, &fault), 0);
	assert_int_equal(a.host[100], 7);
	a.host[100] = 8;
	assert_int_equal(b.host[100], 7);
	assert_int_equal(pread(fd, &byte, 1, 100), 1);
	assert_int_equal(byte, 7);
	assert_int_equal(ram_release(&a, LAYOUT_RAM, 2 * MIB), 0);
	assert_int_equal(a.host[100], 7);
	assert_int_equal(ram_clear(&a), 0);
	assert_int_equal(a.host[100], 0);
	assert_int_equal(a.backing, RAM_ANONYMOUS);
	ram_destroy(&a);
	ram_destroy(&b);
	close(fd);
}

static void test_bus(void **state)
{
	struct bus bus = {.count = 0};
	const struct bus_slot *slot;

	(void)state;
	bus_add(&bus, 0x1000, 0x100, (struct bus_device){.name = "a"});
	bus_add(&bus, 0x1100, 0x1000, (struct bus_device){.name = "b"});
	assert_null(bus_find(&bus, 0xfff, 1));
	slot = bus_find(&bus, 0x1000, 8);
	assert_non_null(slot);
	assert_string_equal(slot->device.name, "a");
	slot = bus_find(&bus, 0x10ff, 1);
	assert_non_null(slot);
	/* An access across the end of a device belongs to nobody. */
	assert_null(bus_find(&bus, 0x10ff, 2));
	assert_null(bus_find(&bus, 0x10fc, 8));
	slot = bus_find(&bus, 0x1100, 4);
	assert_non_null(slot);
	assert_string_equal(slot->device.name, "b");
	assert_null(bus_find(&bus, 0x2100, 1));
	assert_null(bus_find(&bus, UINT64_MAX, 8));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inside),	cmocka_unit_test(test_blocks),
		cmocka_unit_test(test_release), cmocka_unit_test(test_clone),
		cmocka_unit_test(test_bus),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
