/* What a crash or a bad card may leave in the directory of a log, made by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cluster/ballot.h"
#include "cluster/logcheck.h"
#include "cluster/parcel.h"
#include "cluster/segment.h"
#include "lib/buf.h"
#include "lib/crc.h"
#include "lib/mem.h"

enum { ENTRY_SIZE = 64 };

static char dir[64];
static int dir_fd;

static void put_le(struct buf *b, uint64_t value, size_t bytes)
{
	uint64_t le = htole64(value);

	buf_append(b, &le, bytes);
}

static void file_write(const char *name, const void *data, size_t len)
{
	int fd = openat(dir_fd, name, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	close(fd);
}

static bool file_exists(const char *name)
{
	return faccessat(dir_fd, name, F_OK, 0) == 0;
}

/* Entries first..last, each a batch; the entry with index 1 is a list of members. */
static void segment_put(struct buf *b, uint64_t first, uint64_t last, uint64_t term)
{
	put_le(b, 1, 8);
	for (uint64_t i = first; i <= last; i++) {
		size_t start = b->len;
		uint32_t crc;

		put_le(b, 0, 8);
		put_le(b, 1, 8);
		put_le(b, term, 8);
		put_le(b, i == 1 ? SEGMENT_CHANGE : SEGMENT_COMMAND, 4);
		put_le(b, ENTRY_SIZE, 4);
		put_le(b, ENTRY_MAGIC, 4);
		put_le(b, ENTRY_SIZE - sizeof(struct entry_head), 4);
		put_le(b, i, 8);
		for (unsigned j = 0; j < ENTRY_SIZE - sizeof(struct entry_head); j++)
			put_le(b, 'a' + j % 20, 1);
		crc = htole32(crc_add(0, b->data + start + 8, 24));
		memcpy(b->data + start, &crc, 4);
		crc = htole32(crc_add(0, b->data + start + 32, ENTRY_SIZE));
		memcpy(b->data + start + 4, &crc, 4);
	}
}

static void closed_make(uint64_t first, uint64_t last, uint64_t term)
{
	struct buf b = {0};
	char name[64];

	segment_put(&b, first, last, term);
	(void)snprintf(name, sizeof(name), "%016llu-%016llu", (unsigned long long)first,
		       (unsigned long long)last);
	file_write(name, b.data, b.len);
	buf_free(&b);
}

static void open_make(unsigned counter, uint64_t first, uint64_t last, uint64_t term)
{
	struct buf b = {0};
	char name[64];

	if (last >= first)
		segment_put(&b, first, last, term);
	memset(buf_reserve(&b, SEGMENT_SIZE), 0, SEGMENT_SIZE - b.len);
	b.len = SEGMENT_SIZE;
	(void)snprintf(name, sizeof(name), "open-%u", counter);
	file_write(name, b.data, b.len);
	buf_free(&b);
}

static void snapshot_make(uint64_t term, uint64_t index)
{
	struct buf model = {0}, meta = {0};
	uint8_t *data;
	size_t len;
	char name[64];
	uint32_t crc;

	buf_puts(&model, "the model");
	len = parcel_pack(index, &model, &data);
	(void)snprintf(name, sizeof(name), "snapshot-%llu-%llu-1", (unsigned long long)term,
		       (unsigned long long)index);
	file_write(name, data, len);
	put_le(&meta, 1, 8);
	put_le(&meta, 0, 8);
	put_le(&meta, 1, 8);
	put_le(&meta, 8, 8);
	buf_puts(&meta, "members!");
	crc = htole32(crc_add(0, meta.data + 16, meta.len - 16));
	memcpy(meta.data + 8, &crc, 4);
	(void)snprintf(name, sizeof(name), "snapshot-%llu-%llu-1.meta", (unsigned long long)term,
		       (unsigned long long)index);
	file_write(name, meta.data, meta.len);
	free(data);
	buf_free(&model);
	buf_free(&meta);
}

static int check(uint64_t cut, uint64_t install)
{
	struct logcheck c = {.dir = dir, .dir_fd = dir_fd, .cut = cut, .install = install};
	int rv = logcheck_run(&c);

	if (rv == -EBADMSG) {
		assert_non_null(strstr(c.message, dir));
		assert_true(strstr(c.message, "join it anew") != NULL ||
			    strstr(c.message, "remove it") != NULL);
	}
	return rv;
}

static int setup(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/logcheck-XXXXXX");
	assert_non_null(mkdtemp(dir));
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY);
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	close(dir_fd);
	(void)snprintf(command, sizeof(command), "rm -r '%s'", dir);
	return system(command);
}

#define CLOSED(a, b) "00000000000000" a "-00000000000000" b

static void test_sound(void **state)
{
	(void)state;
	assert_int_equal(check(0, 0), 0);
	closed_make(1, 10, 1);
	closed_make(11, 20, 2);
	open_make(1, 21, 25, 2);
	open_make(2, 26, 30, 3);
	open_make(3, 1, 0, 0);
	assert_int_equal(check(0, 0), 0);
	assert_false(file_exists("open-3"));
	assert_true(file_exists("open-2"));
	/* A second time: the ends are cut off now. */
	assert_int_equal(check(0, 0), 0);
	snapshot_make(2, 20);
	assert_int_equal(check(0, 0), 0);
	/* Behind a snapshot an old stretch may be missing. */
	assert_int_equal(unlinkat(dir_fd, CLOSED("01", "10"), 0), 0);
	assert_int_equal(check(0, 0), 0);
}

static void test_missing(void **state)
{
	(void)state;
	closed_make(1, 10, 1);
	closed_make(16, 20, 1);
	assert_int_equal(check(0, 0), -EBADMSG);
	closed_make(11, 15, 1);
	assert_int_equal(check(0, 0), 0);
	/* An open segment of entries that do not follow. */
	open_make(1, 22, 25, 1);
	assert_int_equal(check(0, 0), -EBADMSG);
	open_make(1, 21, 25, 1);
	assert_int_equal(check(0, 0), 0);
	/* The beginning. */
	assert_int_equal(unlinkat(dir_fd, CLOSED("01", "10"), 0), 0);
	assert_int_equal(check(0, 0), -EBADMSG);
	/* A snapshot that does not reach as far. */
	snapshot_make(1, 9);
	assert_int_equal(check(0, 0), -EBADMSG);
	snapshot_make(1, 10);
	assert_int_equal(check(0, 0), 0);
	/* One of another history. */
	snapshot_make(3, 12);
	assert_int_equal(check(0, 0), -EBADMSG);
}

/* A full segment that could not be closed while later ones were. */
static void test_not_closed(void **state)
{
	(void)state;
	closed_make(1, 10, 1);
	open_make(1, 11, 20, 1);
	closed_make(21, 30, 1);
	open_make(2, 31, 33, 1);
	assert_int_equal(check(0, 0), 0);
	assert_true(file_exists(CLOSED("11", "20")));
	assert_false(file_exists("open-1"));
	assert_true(file_exists("open-2"));
	assert_int_equal(check(0, 0), 0);
	/* Not where it would fit. */
	open_make(1, 12, 20, 1);
	assert_int_equal(check(0, 0), -EBADMSG);
	assert_true(file_exists("open-1"));
	assert_int_equal(unlinkat(dir_fd, "open-1", 0), 0);
	/* All of it is in the snapshot. */
	assert_int_equal(unlinkat(dir_fd, CLOSED("21", "30"), 0), 0);
	open_make(1, 21, 30, 1);
	snapshot_make(1, 30);
	assert_int_equal(check(0, 0), 0);
	assert_true(file_exists(CLOSED("21", "30")));
}

static void test_overlap(void **state)
{
	(void)state;
	closed_make(1, 10, 1);
	closed_make(5, 12, 1);
	assert_int_equal(check(0, 0), -EBADMSG);
}

static void test_other_files(void **state)
{
	char name[121];

	(void)state;
	closed_make(1, 10, 1);
	file_write("ballot", "x", 1);
	file_write("tmp-snapshot-1-2-3", "x", 1);
	file_write("0000000000000001-0000000000000010.bak", "x", 1);
	assert_int_equal(check(0, 0), 0);
	memset(name, 'n', 120);
	name[120] = '\0';
	file_write(name, "x", 1);
	assert_int_equal(check(0, 0), -EBADMSG);
}

/* A cut at 15 of 1-10, 11-20, 21-30, interrupted after each of its steps. */
static void test_cut_inside(void **state)
{
	(void)state;
	for (unsigned step = 0; step <= 3; step++) {
		closed_make(1, 10, 1);
		closed_make(11, 20, 1);
		closed_make(21, 30, 1);
		if (step >= 1)
			closed_make(11, 14, 1);
		if (step >= 2)
			assert_int_equal(unlinkat(dir_fd, CLOSED("11", "20"), 0), 0);
		if (step >= 3)
			assert_int_equal(unlinkat(dir_fd, CLOSED("21", "30"), 0), 0);
		/* Without the note it is damage. */
		assert_int_equal(check(0, 0), step == 0 || step == 3 ? 0 : -EBADMSG);
		assert_int_equal(check(15, 0), 0);
		assert_int_equal(file_exists(CLOSED("11", "14")), step >= 1);
		assert_int_equal(file_exists(CLOSED("11", "20")), step == 0);
		assert_int_equal(file_exists(CLOSED("21", "30")), step == 0);
		assert_true(file_exists(CLOSED("01", "10")));
		(void)unlinkat(dir_fd, CLOSED("11", "14"), 0);
	}
}

static void test_cut_between(void **state)
{
	(void)state;
	for (unsigned step = 0; step <= 2; step++) {
		closed_make(1, 10, 1);
		closed_make(11, 20, 1);
		closed_make(21, 30, 1);
		if (step >= 1)
			assert_int_equal(unlinkat(dir_fd, CLOSED("11", "20"), 0), 0);
		if (step >= 2)
			assert_int_equal(unlinkat(dir_fd, CLOSED("21", "30"), 0), 0);
		assert_int_equal(check(11, 0), 0);
		assert_int_equal(file_exists(CLOSED("11", "20")), step == 0);
		assert_int_equal(file_exists(CLOSED("21", "30")), step == 0);
	}
	/* New entries are there already. */
	closed_make(1, 10, 1);
	closed_make(11, 12, 2);
	assert_int_equal(check(11, 0), 0);
	assert_true(file_exists(CLOSED("11", "12")));
	(void)unlinkat(dir_fd, CLOSED("11", "12"), 0);
	open_make(1, 11, 13, 2);
	assert_int_equal(check(11, 0), 0);
	assert_true(file_exists("open-1"));
}

/* A snapshot at 50 takes the place of a log of another history. */
static void test_install(void **state)
{
	(void)state;
	closed_make(1, 10, 1);
	closed_make(11, 60, 2);
	/* Not written yet: all as before. */
	assert_int_equal(check(0, 50), 0);
	assert_true(file_exists(CLOSED("01", "10")));
	snapshot_make(4, 50);
	assert_int_equal(check(0, 0), -EBADMSG);
	assert_int_equal(unlinkat(dir_fd, CLOSED("01", "10"), 0), 0);
	open_make(1, 1, 0, 0);
	assert_int_equal(check(0, 50), 0);
	assert_false(file_exists(CLOSED("11", "60")));
	assert_false(file_exists("open-1"));
	open_make(1, 51, 53, 4);
	assert_int_equal(check(0, 0), 0);
}

static void test_snapshot_files(void **state)
{
	(void)state;
	snapshot_make(1, 10);
	snapshot_make(1, 20);
	assert_int_equal(check(0, 0), 0);
	/* Half made: the library removes it, the one before counts. */
	file_write("snapshot-1-30-1.meta", "x", 1);
	assert_int_equal(check(0, 0), 0);
	file_write("snapshot-1-30-1", "x", 1);
	assert_int_equal(check(0, 0), -EBADMSG);
}

static void test_bootstrap_remains(void **state)
{
	(void)state;
	assert_int_equal(logcheck_empty(dir_fd), 0);
	file_write("lock", "", 0);
	file_write("ballot.new", "x", 1);
	assert_int_equal(logcheck_empty(dir_fd), 0);
	file_write("metadata1", "x", 1);
	assert_int_equal(logcheck_empty(dir_fd), -EEXIST);
	closed_make(1, 1, 1);
	assert_int_equal(logcheck_discard_bootstrap(dir_fd), 0);
	assert_int_equal(logcheck_empty(dir_fd), 0);
	closed_make(1, 1, 1);
	closed_make(2, 5, 1);
	assert_int_equal(logcheck_discard_bootstrap(dir_fd), -EEXIST);
	assert_true(file_exists(CLOSED("01", "01")));
}

/* Every flipped bit of the ballot is found, or is in a part that is not used. */
static void test_ballot(void **state)
{
	struct ballot b = {.node = 7, .term = 1}, again;
	uint8_t file[8192], old[8192];
	int fd;

	(void)state;
	assert_int_equal(ballot_load(&again, dir_fd), -ENOENT);
	assert_int_equal(ballot_create(&b, dir_fd), 0);
	assert_int_equal(ballot_create(&again, dir_fd), -EEXIST);
	for (unsigned i = 0; i < 5; i++) {
		b.term += i;
		b.vote = i * 3;
		b.cut = i;
		b.install = i * 2;
		assert_int_equal(ballot_save(&b), 0);
		assert_int_equal(ballot_load(&again, dir_fd), 0);
		assert_int_equal(again.term, b.term);
		assert_int_equal(again.vote, b.vote);
		assert_int_equal(again.cut, b.cut);
		assert_int_equal(again.install, b.install);
		assert_int_equal(again.node, 7);
		ballot_close(&again);
	}
	fd = openat(dir_fd, "ballot", O_RDWR);
	assert_int_equal(pread(fd, file, sizeof(file), 0), sizeof(file));
	for (size_t at = 0; at < sizeof(file) * 8; at += at % 4096 / 8 < 128 ? 1 : 997) {
		uint8_t byte = file[at / 8] ^ (uint8_t)(1U << at % 8);
		int rv;

		assert_int_equal(pwrite(fd, &byte, 1, (off_t)at / 8), 1);
		rv = ballot_load(&again, dir_fd);
		if (rv == 0) {
			assert_int_equal(again.term, b.term);
			assert_int_equal(again.vote, b.vote);
			assert_int_equal(again.sequence, b.sequence);
			ballot_close(&again);
		} else {
			assert_int_equal(rv, -EBADMSG);
		}
		assert_int_equal(pwrite(fd, &file[at / 8], 1, (off_t)at / 8), 1);
	}
	/* A save that the card has forgotten. */
	(void)memcpy(old, file, sizeof(old));
	assert_int_equal(ballot_save(&b), 0);
	assert_int_equal(ballot_save(&b), 0);
	assert_int_equal(pread(fd, file, sizeof(file), 0), sizeof(file));
	assert_int_equal(pwrite(fd, old + (b.sequence % 2) * 4096, 4096, b.sequence % 2 * 4096),
			 4096);
	assert_int_equal(ballot_load(&again, dir_fd), 0);
	ballot_close(&again);
	assert_int_equal(pwrite(fd, file, sizeof(file), 0), sizeof(file));
	assert_int_equal(ballot_save(&b), 0);
	assert_int_equal(pwrite(fd, old + (b.sequence % 2) * 4096, 4096, b.sequence % 2 * 4096),
			 4096);
	assert_int_equal(ballot_load(&again, dir_fd), -EBADMSG);
	/* An older slot in the newer one's place, and a file that was cut off. */
	assert_int_equal(pwrite(fd, file, 4096, 4096), 4096);
	assert_int_equal(ballot_load(&again, dir_fd), -EBADMSG);
	assert_int_equal(ftruncate(fd, 5000), 0);
	assert_int_equal(ballot_load(&again, dir_fd), -EBADMSG);
	close(fd);
	ballot_close(&b);
}

static void test_parcel(void **state)
{
	struct buf model = {0}, back = {0};
	uint8_t *data;
	size_t len;

	(void)state;
	len = parcel_pack(3, &model, &data);
	assert_true(parcel_sound(data, len));
	assert_int_equal(parcel_unpack(data, len, &back), 0);
	assert_int_equal(back.len, 0);
	free(data);
	for (unsigned i = 0; i < 5000; i++)
		buf_printf(&model, "site-%u ", i);
	len = parcel_pack(3, &model, &data);
	assert_true(len < model.len);
	assert_int_equal(parcel_unpack(data, len, &back), 0);
	assert_int_equal(back.len, model.len);
	assert_memory_equal(back.data, model.data, model.len);
	for (size_t at = 0; at < len; at += 7) {
		data[at] ^= 4;
		assert_false(parcel_sound(data, len));
		data[at] ^= 4;
		assert_false(parcel_sound(data, at));
	}
	free(data);
	/* What does not get smaller is stored as it is. */
	buf_clear(&model);
	buf_clear(&back);
	buf_puts(&model, "short");
	len = parcel_pack(3, &model, &data);
	assert_int_equal(len, sizeof(struct parcel_head) + 5);
	assert_int_equal(parcel_unpack(data, len, &back), 0);
	assert_int_equal(back.len, 5);
	free(data);
	buf_free(&model);
	buf_free(&back);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_sound),	   TEST(test_missing),
		TEST(test_not_closed),	   TEST(test_overlap),
		TEST(test_other_files),	   TEST(test_cut_inside),
		TEST(test_cut_between),	   TEST(test_install),
		TEST(test_snapshot_files), TEST(test_bootstrap_remains),
		TEST(test_ballot),	   TEST(test_parcel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
