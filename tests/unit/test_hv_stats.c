/* Counters of a VM: the list, what the kernel keeps of it, its memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv/stats.h"

static const Tb__VmCounter *counter(const struct stats_list *l, const char *name)
{
	for (size_t i = 0; i < l->message.n_counters; i++) {
		if (strcmp(l->message.counters[i]->name, name) == 0) {
			return l->message.counters[i];
		}
	}
	return NULL;
}

static void test_list(void **state)
{
	struct stats_list l;
	struct stats_sink sink;
	char what[16];

	(void)state;
	stats_list_init(&l);
	sink = stats_list_sink(&l);
	for (unsigned i = 0; i < 200; i++) {
		snprintf(what, sizeof(what), "c%u", i);
		sink.add(sink.arg, "blk0", what, i, i % 2 == 1);
	}
	assert_int_equal(l.message.n_counters, 200);
	assert_int_equal(counter(&l, "blk0.c7")->value, 7);
	assert_true(counter(&l, "blk0.c7")->gauge);
	assert_false(counter(&l, "blk0.c8")->gauge);
	/* Sums begin where they are asked for. */
	sink.add(sink.arg, "kvm", "exits", 1, false);
	l.sum_from = l.message.n_counters;
	sink.add(sink.arg, "kvm", "exits", 10, false);
	sink.add(sink.arg, "kvm", "exits", 20, false);
	assert_int_equal(l.message.n_counters, 202);
	assert_int_equal(l.message.counters[200]->value, 1);
	assert_int_equal(l.message.counters[201]->value, 30);
	stats_list_free(&l);
	assert_int_equal(l.message.n_counters, 0);
	stats_list_free(&l);
}

struct one {
	uint32_t flags;
	uint16_t size;
	uint64_t value;
	const char *name;
};

/* What a statistics descriptor of the kernel reads as. */
static int kvm_file(const struct one *list, uint32_t count, uint32_t name_size)
{
	struct kvm_stats_header head = {
		.name_size = name_size,
		.num_desc = count,
		.id_offset = sizeof(head),
		.desc_offset = sizeof(head) + name_size,
	};
	size_t size = sizeof(struct kvm_stats_desc) + name_size;
	int fd = memfd_create("stats", 0);

	head.data_offset = head.desc_offset + count * (uint32_t)size;
	assert_int_equal(pwrite(fd, &head, sizeof(head), 0), sizeof(head));
	for (uint32_t i = 0; i < count; i++) {
		struct kvm_stats_desc *d = calloc(1, size);

		d->flags = list[i].flags;
		d->size = list[i].size;
		d->offset = i * 8;
		/* As the kernel has it: what fills the field needs no end. */
		memcpy(d->name, list[i].name, strnlen(list[i].name, name_size));
		assert_int_equal(pwrite(fd, d, size, head.desc_offset + i * size), size);
		assert_int_equal(pwrite(fd, &list[i].value, 8, head.data_offset + i * 8), 8);
		free(d);
	}
	return fd;
}

static void test_kvm(void **state)
{
	static const struct one list[] = {
		{KVM_STATS_TYPE_CUMULATIVE, 1, 812, "exits"},
		{KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_SECONDS, 32, 1, "halt_hist"},
		{KVM_STATS_TYPE_INSTANT, 1, 1, "blocking"},
	};
	struct stats_list l;
	struct stats_sink sink;
	int fd = kvm_file(list, 3, 48);

	(void)state;
	stats_list_init(&l);
	sink = stats_list_sink(&l);
	l.sum_from = 0;
	assert_int_equal(stats_kvm(fd, "kvm", &sink), 0);
	assert_int_equal(stats_kvm(fd, "kvm", &sink), 0);
	assert_int_equal(l.message.n_counters, 2);
	assert_int_equal(counter(&l, "kvm.exits")->value, 1624);
	assert_false(counter(&l, "kvm.exits")->gauge);
	assert_true(counter(&l, "kvm.blocking")->gauge);
	close(fd);
	/* Names of other sizes, and what is no such thing. */
	fd = kvm_file(list, 1, 128);
	assert_int_equal(stats_kvm(fd, "kvm", &sink), 0);
	close(fd);
	fd = kvm_file(list, 1, 129);
	assert_int_equal(stats_kvm(fd, "kvm", &sink), -EBADMSG);
	close(fd);
	fd = kvm_file(list, 3, 48);
	assert_int_equal(ftruncate(fd, 284), 0);
	assert_int_equal(stats_kvm(fd, "kvm", &sink), -EBADMSG);
	close(fd);
	fd = memfd_create("empty", 0);
	assert_int_equal(stats_kvm(fd, "kvm", &sink), -EBADMSG);
	close(fd);
	assert_int_equal(stats_kvm(-1, "kvm", &sink), -EBADF);
	stats_list_free(&l);
}

static void test_memory(void **state)
{
	int statm = open("/proc/self/statm", O_RDONLY);
	struct stats_list before, after;
	struct stats_sink sink;
	enum { SIZE = 32 << 20 };
	uint8_t *some;

	(void)state;
	stats_list_init(&before);
	stats_list_init(&after);
	sink = stats_list_sink(&before);
	assert_int_equal(stats_memory(statm, &sink), 0);
	some = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(some, 1, SIZE);
	sink = stats_list_sink(&after);
	assert_int_equal(stats_memory(statm, &sink), 0);
	assert_true(counter(&after, "memory.resident-bytes")->gauge);
	assert_in_range(counter(&after, "memory.resident-bytes")->value -
				counter(&before, "memory.resident-bytes")->value,
			SIZE / 10 * 9, SIZE / 10 * 12);
	munmap(some, SIZE);
	assert_int_equal(stats_memory(-1, &sink), -EBADF);
	stats_list_free(&before);
	stats_list_free(&after);
	close(statm);
}

static void test_run_delay(void **state)
{
	static const struct {
		const char *text;
		int error;
		uint64_t ns;
	} cases[] = {
		{"1200 345 6\n", 0, 345},
		{"0 0 0\n", 0, 0},
		{"18446744073709551615 18446744073709551615 1\n", 0, UINT64_MAX},
		{"1200\n", -EBADMSG, 0},
		{"", -EBADMSG, 0},
	};
	uint64_t ns;
	int fd = open("/proc/self/schedstat", O_RDONLY);

	(void)state;
	assert_true(fd < 0 || stats_run_delay(fd, &ns) == 0);
	close(fd);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		fd = memfd_create("schedstat", 0);
		ns = 0;
		assert_int_equal(write(fd, cases[i].text, strlen(cases[i].text)),
				 strlen(cases[i].text));
		assert_int_equal(stats_run_delay(fd, &ns), cases[i].error);
		assert_int_equal(ns, cases[i].ns);
		close(fd);
	}
	assert_int_equal(stats_run_delay(-1, &ns), -EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_kvm),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_run_delay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
