/* The image store: only what has the right digest is ever whole, whatever the disk, a power cut or
 * a name does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lib/hex.h"
#include "lib/mem.h"
#include "witnessd/image_store.h"

enum { SMALL = 100000, BIG = 5 << 20 /* more than one step */ };

struct lab {
	char dir[64];
	struct image_store *store;
	uint8_t *bytes;
	char name[65]; /* of `bytes` */
	size_t size;
	char message[IMAGE_PROBLEM];
};

static void lab_bytes(struct lab *l, size_t size)
{
	uint8_t digest[32];

	free(l->bytes);
	l->bytes = mem_alloc(size);
	l->size = size;
	for (size_t i = 0; i < size; i++)
		l->bytes[i] = (uint8_t)(i * 31 + i / 251);
	SHA256(l->bytes, size, digest);
	hex_encode(digest, sizeof(digest), l->name);
}

static void lab_open(struct lab *l, uint64_t space)
{
	const char *message = NULL;

	image_store_close(l->store);
	assert_int_equal(image_store_open(l->dir, space, &l->store, &message), 0);
}

static int setup(void **state)
{
	struct lab *l = mem_zalloc(sizeof(*l));
	const char *base = getenv("TMPDIR");

	snprintf(l->dir, sizeof(l->dir), "%s/imagesXXXXXX", base != NULL ? base : "/tmp");
	assert_non_null(mkdtemp(l->dir));
	lab_open(l, 0);
	lab_bytes(l, SMALL);
	*state = l;
	return 0;
}

static int teardown(void **state)
{
	struct lab *l = *state;
	char *command = mem_printf("rm -r '%s'", l->dir);

	image_store_close(l->store);
	assert_int_equal(system(command), 0);
	free(command);
	free(l->bytes);
	free(l);
	return 0;
}

static char *path_of(const struct lab *l, const char *folder, const char *suffix)
{
	return mem_printf("%s/%s/%s%s", l->dir, folder, l->name, suffix);
}

/* Of the part of an image of l->size bytes. */
static char *part_path(const struct lab *l)
{
	char suffix[40];

	snprintf(suffix, sizeof(suffix), ".%zu.part", l->size);
	return path_of(l, "incoming", suffix);
}

static struct image_part *part(struct lab *l)
{
	struct image_part *p = NULL;

	assert_int_equal(image_part_open(l->store, l->name, l->size, &p, l->message), 0);
	return p;
}

/* Writes what is missing, in steps. */
static int fill(struct lab *l, struct image_part *p)
{
	while (image_part_have(p) < l->size) {
		uint64_t at = image_part_have(p);
		size_t len = l->size - at < 70000 ? l->size - at : 70000;
		int rv = image_part_write(p, at, l->bytes + at, len);

		if (rv != 0)
			return rv;
	}
	return 0;
}

static int finish(struct lab *l, struct image_part *p, bool *ret_again)
{
	int rv;

	do
		rv = image_part_catch_up(p);
	while (rv == 1);
	assert_int_equal(rv, 0);
	rv = image_part_finish(p, ret_again, l->message);
	image_part_close(p);
	return rv;
}

static void put(struct lab *l)
{
	struct image_part *p = part(l);
	bool again;

	assert_int_equal(fill(l, p), 0);
	assert_int_equal(finish(l, p, &again), 0);
}

static int check(struct lab *l)
{
	struct image_check *c;
	int rv = image_check_begin(l->store, l->name, &c);

	if (rv != 0)
		return rv;
	do
		rv = image_check_step(c);
	while (rv == 1);
	image_check_end(c);
	return rv;
}

static void count_one(void *arg, const struct image_found *found)
{
	unsigned *counts = arg;

	counts[found->whole]++;
}

static void assert_counts(struct lab *l, unsigned parts, unsigned whole)
{
	unsigned counts[2] = {0};

	assert_int_equal(image_store_list(l->store, count_one, counts), 0);
	assert_int_equal(counts[0], parts);
	assert_int_equal(counts[1], whole);
}

/* --- what is there to be seen --- */

static void test_whole(void **state)
{
	struct lab *l = *state;
	struct image_identity identity;
	int fd;

	lab_bytes(l, BIG);
	assert_int_equal(check(l), -ENOENT);
	put(l);
	assert_counts(l, 0, 1);
	assert_int_equal(check(l), 0);
	assert_int_equal(image_file_open(l->store, l->name, &fd, &identity), 0);
	assert_int_equal(identity.size, BIG);
	assert_int_equal(write(fd, "x", 1), -1);
	close(fd);
	assert_int_equal(image_store_drop(l->store, l->name), 0);
	assert_int_equal(image_store_drop(l->store, l->name), -ENOENT);
	assert_counts(l, 0, 0);
}

static void test_order(void **state)
{
	struct lab *l = *state;
	struct image_part *p = part(l);

	assert_int_equal(image_part_write(p, 1, l->bytes, 10), -ERANGE);
	assert_int_equal(image_part_write(p, 0, l->bytes, 10), 0);
	assert_int_equal(image_part_write(p, 0, l->bytes, 10), -ERANGE);
	assert_int_equal(image_part_write(p, 10, l->bytes, l->size - 9), -ERANGE);
	assert_int_equal(image_part_have(p), 10);
	image_part_close(p);
}

static void test_wrong_digest(void **state)
{
	struct lab *l = *state;
	struct image_part *p = part(l);
	bool again = true;

	l->bytes[777] ^= 1;
	assert_int_equal(fill(l, p), 0);
	assert_int_equal(finish(l, p, &again), -EBADMSG);
	assert_false(again);
	assert_non_null(strstr(l->message, "SHA-256"));
	assert_counts(l, 0, 0);
}

/* --- power cuts and the like --- */

static void test_resumed(void **state)
{
	struct lab *l = *state;
	struct image_part *p;
	bool again;

	lab_bytes(l, 2 * BIG);
	p = part(l);
	for (uint64_t at = 0; at < BIG; at += 1 << 20)
		assert_int_equal(image_part_write(p, at, l->bytes + at, 1 << 20), 0);
	image_part_close(p);
	lab_open(l, 0);
	assert_counts(l, 1, 0);
	p = part(l);
	assert_int_equal(image_part_have(p), BIG);
	assert_int_equal(fill(l, p), 0);
	assert_int_equal(finish(l, p, &again), 0);
	assert_int_equal(check(l), 0);
}

/* A power cut leaves the length, but not the bytes: that is no fault of who sends the rest. */
static void test_resumed_damaged(void **state)
{
	struct lab *l = *state;
	struct image_part *p = part(l);
	char *path = part_path(l);
	bool again;
	int fd;

	assert_int_equal(image_part_write(p, 0, l->bytes, 50000), 0);
	image_part_close(p);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "\0\0\0\0", 4, 40000), 4);
	close(fd);
	free(path);
	p = part(l);
	assert_int_equal(fill(l, p), 0);
	assert_int_equal(finish(l, p, &again), -EBADMSG);
	assert_true(again);
	assert_counts(l, 0, 0);
	put(l);
	assert_int_equal(check(l), 0);
}

/* Whoever names another size does not touch what is there, be it more or less. */
static void test_part_of_another_size(void **state)
{
	static const int others[] = {-60000, -1, 1, 100};
	struct lab *l = *state;
	struct image_part *p = part(l);
	struct image_part *q;
	bool again;

	assert_int_equal(image_part_write(p, 0, l->bytes, 50000), 0);
	image_part_close(p);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		char sizes[80];

		assert_int_equal(
			image_part_open(l->store, l->name, (uint64_t)((int)l->size + others[i]), &q,
					l->message),
			-EEXIST);
		snprintf(sizes, sizeof(sizes), "with size=%zu, and not %d", l->size,
			 (int)l->size + others[i]);
		assert_non_null(strstr(l->message, sizes));
		assert_counts(l, 1, 0);
	}
	lab_open(l, 0);
	p = part(l);
	assert_int_equal(image_part_have(p), 50000);
	assert_int_equal(fill(l, p), 0);
	assert_int_equal(finish(l, p, &again), 0);
	assert_int_equal(check(l), 0);
	assert_counts(l, 0, 1);
}

/* One that was opened and got no byte binds nobody. */
static void test_part_without_bytes(void **state)
{
	struct lab *l = *state;

	l->size++;
	image_part_close(part(l));
	assert_counts(l, 1, 0);
	l->size--;
	put(l);
	assert_counts(l, 0, 1);
}

static void test_every_byte_counts(void **state)
{
	static const off_t places[] = {0, 1, 65535, 65536, SMALL - 1};
	struct lab *l = *state;
	char *path = path_of(l, "images", "");

	put(l);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		int fd = open(path, O_RDWR);
		uint8_t byte = l->bytes[places[i]] ^ (uint8_t)(1 << (i % 8));

		assert_int_equal(pwrite(fd, &byte, 1, places[i]), 1);
		assert_int_equal(check(l), -EBADMSG);
		assert_int_equal(pwrite(fd, &l->bytes[places[i]], 1, places[i]), 1);
		assert_int_equal(check(l), 0);
		close(fd);
	}
	assert_int_equal(truncate(path, SMALL - 1), 0);
	assert_int_equal(check(l), -EBADMSG);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(check(l), -EBADMSG);
	/* A good copy takes the place of the damaged one. */
	put(l);
	assert_int_equal(check(l), 0);
	free(path);
}

static void test_cut_during_check(void **state)
{
	struct lab *l = *state;
	struct image_check *c;
	char *path;

	lab_bytes(l, BIG);
	put(l);
	path = path_of(l, "images", "");
	assert_int_equal(image_check_begin(l->store, l->name, &c), 0);
	assert_int_equal(image_check_step(c), 1);
	assert_int_equal(truncate(path, BIG - 5), 0);
	assert_int_equal(image_check_step(c), -EBADMSG);
	image_check_end(c);
	free(path);
}

static void test_identity_fields(void **state)
{
	const struct image_identity one = {1, 2, 3, {4, 5}};
	const struct image_identity others[] = {{9, 2, 3, {4, 5}},
						{1, 9, 3, {4, 5}},
						{1, 2, 9, {4, 5}},
						{1, 2, 3, {9, 5}},
						{1, 2, 3, {4, 9}}};

	(void)state;
	assert_true(image_identity_same(&one, &one));
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		assert_false(image_identity_same(&one, &others[i]));
}

static void test_identity(void **state)
{
	struct lab *l = *state;
	struct image_identity before;
	struct image_identity after;
	int fd;

	put(l);
	assert_int_equal(image_file_open(l->store, l->name, &fd, &before), 0);
	close(fd);
	assert_int_equal(image_file_open(l->store, l->name, &fd, &after), 0);
	close(fd);
	assert_true(image_identity_same(&before, &after));
	put(l);
	assert_int_equal(image_file_open(l->store, l->name, &fd, &after), 0);
	close(fd);
	assert_false(image_identity_same(&before, &after));
}

/* --- full --- */

static void test_budget(void **state)
{
	struct lab *l = *state;
	struct image_part *p;

	lab_open(l, 8 << 20);
	lab_bytes(l, 6 << 20);
	put(l);
	lab_bytes(l, 3 << 20);
	assert_int_equal(image_part_open(l->store, l->name, l->size, &p, l->message), -ENOSPC);
	assert_string_equal(
		l->message,
		"the image store of this board is full: of 8 MiB (vms.image-space-mib) 6 "
		"MiB are taken, and 3 MiB more are needed; remove images or raise it");
	assert_counts(l, 0, 1);
	lab_bytes(l, 2 << 20);
	put(l);
	assert_counts(l, 0, 2);
}

/* Two that begin at the same time do not both get the last room. */
static void test_budget_taken_at_once(void **state)
{
	struct lab *l = *state;
	struct image_part *first;
	struct image_part *second;

	lab_open(l, 8 << 20);
	lab_bytes(l, 6 << 20);
	first = part(l);
	lab_bytes(l, 3 << 20);
	assert_int_equal(image_part_open(l->store, l->name, l->size, &second, l->message), -ENOSPC);
	image_part_close(first);
}

static void test_reserve(void **state)
{
	struct lab *l = *state;
	char message[IMAGE_PROBLEM];
	struct statvfs fs;
	uint64_t reserve;

	assert_int_equal(image_store_room(l->store, UINT64_C(1) << 60, message), -ENOSPC);
	assert_non_null(strstr(message, "are kept for the board itself"));
	assert_int_equal(image_store_room(l->store, 1, message), 0);
	/* All but a piece of the reserve. */
	assert_int_equal(statvfs(l->dir, &fs), 0);
	reserve = (uint64_t)fs.f_blocks * fs.f_frsize / 10;
	reserve = reserve < (512 << 20) ? reserve : 512 << 20;
	assert_int_equal(
		image_store_room(l->store, (uint64_t)fs.f_bavail * fs.f_frsize - reserve / 2,
				 message),
		-ENOSPC);
}

/* A disk that takes no more in the middle: what was acknowledged is still there. */
static void test_disk_full(void **state)
{
	struct lab *l = *state;
	struct rlimit old;
	struct rlimit small;
	struct image_part *p = part(l);
	bool again;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = (struct rlimit){.rlim_cur = 80000, .rlim_max = old.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(fill(l, p), -EFBIG);
	assert_int_equal(image_part_have(p), 70000);
	image_part_close(p);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	p = part(l);
	assert_true(image_part_have(p) >= 70000);
	assert_int_equal(fill(l, p), 0);
	assert_int_equal(finish(l, p, &again), 0);
	assert_int_equal(check(l), 0);
}

/* --- names --- */

static void test_hostile_names(void **state)
{
	struct lab *l = *state;
	char upper[65];
	const char *const names[] = {
		"",
		".",
		"..",
		"../images",
		"/etc/passwd",
		"abc",
		upper,
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	};

	memset(upper, 'A', 64);
	upper[64] = '\0';
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct image_identity identity;
		struct image_part *p;
		struct image_check *c;
		int fd;

		assert_int_equal(image_part_open(l->store, names[i], 5, &p, l->message), -EINVAL);
		assert_int_equal(image_file_open(l->store, names[i], &fd, &identity), -EINVAL);
		assert_int_equal(image_check_begin(l->store, names[i], &c), -EINVAL);
		assert_int_equal(image_store_drop(l->store, names[i]), -EINVAL);
	}
}

/* What somebody else has put there is neither followed, nor counted, nor taken away. */
static void test_strangers(void **state)
{
	struct lab *l = *state;
	struct image_identity identity;
	struct image_part *p;
	char *link = path_of(l, "images", "");
	char *part_link = path_of(l, "incoming", ".5.part");
	char *other = mem_printf("%s/images/README", l->dir);
	static const char *const suffixes[] = {".part",	 ".0.part", ".x.part",
					       "..part", ".5.park", ".5"};
	char *victim = mem_printf("%s/victim", l->dir); /* of our own: the code may be broken */
	int fd;

	assert_int_equal(close(open(victim, O_CREAT | O_WRONLY, 0600)), 0);
	assert_int_equal(symlink(victim, link), 0);
	assert_int_equal(symlink(victim, part_link), 0);
	assert_int_equal(close(open(other, O_CREAT | O_WRONLY, 0600)), 0);
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		char *path = path_of(l, "incoming", suffixes[i]);

		assert_int_equal(close(open(path, O_CREAT | O_WRONLY, 0600)), 0);
		free(path);
	}
	assert_counts(l, 0, 0);
	assert_int_equal(image_file_open(l->store, l->name, &fd, &identity), -ELOOP);
	assert_int_equal(image_part_open(l->store, l->name, 5, &p, l->message), -ELOOP);
	assert_int_equal(access(other, F_OK), 0);
	free(link);
	free(part_link);
	free(other);
	free(victim);
}

static void test_folder_refused(void **state)
{
	struct lab *l = *state;
	struct image_store *s;
	const char *message = NULL;
	char *path = mem_printf("%s/file", l->dir);

	assert_int_equal(close(open(path, O_CREAT | O_WRONLY, 0600)), 0);
	assert_int_equal(image_store_open(path, 0, &s, &message), -ENOTDIR);
	assert_non_null(strstr(message, path));
	free(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(test_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_digest, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resumed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resumed_damaged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_part_of_another_size, setup, teardown),
		cmocka_unit_test_setup_teardown(test_part_without_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_byte_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cut_during_check, setup, teardown),
		cmocka_unit_test(test_identity_fields),
		cmocka_unit_test_setup_teardown(test_identity, setup, teardown),
		cmocka_unit_test_setup_teardown(test_budget, setup, teardown),
		cmocka_unit_test_setup_teardown(test_budget_taken_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reserve, setup, teardown),
		cmocka_unit_test_setup_teardown(test_disk_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_strangers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_folder_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
