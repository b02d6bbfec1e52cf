/* Disks of VMs as files: what a crash leaves, which incarnation may write, what a full card says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/mem.h"
#include "witnessd/vm_disk.h"

enum { IMAGE_BYTES = 3 << 20 };

struct sample {
	char root[64], folder[80], name[4];
	Tb__Vm vm;
	Tb__VmConfig config;
	Tb__VmPlacement placement;
	Tb__VmDisk disks[3], *list[3];
	char *known[3]; /* of its data disks, by the model */
	int images[VM_DISKS_MAX];
	struct vm_disk_copying copying;
	struct problem problem;
};

static atomic_bool *cancels; /* set when the first piece of a copy goes to the disk */

/* In place of libc's: what is copied goes to the disk piece by piece. */
int sync_file_range(int fd, off64_t offset, off64_t count, unsigned flags)
{
	(void)fd, (void)offset, (void)count, (void)flags;
	if (cancels != NULL)
		*cancels = true;
	return 0;
}

/* An image of 3 MiB and a bit: data, a hole's worth of zeroes, data. */
static int image_make(const struct sample *s)
{
	char path[128];
	uint8_t piece[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/image", s->root);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	memset(piece, 0x5a, sizeof(piece));
	assert_int_equal(pwrite(fd, piece, sizeof(piece), 0), sizeof(piece));
	assert_int_equal(pwrite(fd, piece, sizeof(piece), 2 << 20), sizeof(piece));
	assert_int_equal(ftruncate(fd, IMAGE_BYTES + 100), 0);
	return fd;
}

static void sample_disk(struct sample *s, unsigned number, Tb__DiskKind kind, uint32_t size_mib)
{
	tb__vm_disk__init(&s->disks[number]);
	s->disks[number].kind = kind;
	s->disks[number].size_mib = size_mib;
	s->list[number] = &s->disks[number];
	s->config.n_disks = number + 1;
}

/* Disk 0: an image, 1: its overlay, 2: data. */
static int setup(void **state)
{
	struct sample *s = mem_zalloc(sizeof(*s));

	snprintf(s->root, sizeof(s->root), "%s/vm-disk-XXXXXX",
		 getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(s->root));
	snprintf(s->folder, sizeof(s->folder), "%s/vms", s->root);
	snprintf(s->name, sizeof(s->name), "db");
	tb__vm__init(&s->vm);
	tb__vm_config__init(&s->config);
	tb__vm_placement__init(&s->placement);
	s->vm.id = 12;
	s->vm.name = s->name;
	s->vm.config = &s->config;
	s->vm.placement = &s->placement;
	s->placement.incarnation = 7;
	s->placement.home_disks = s->known;
	s->config.disks = s->list;
	sample_disk(s, 0, TB__DISK_KIND__DISK_KIND_IMAGE, 0);
	sample_disk(s, 1, TB__DISK_KIND__DISK_KIND_OVERLAY, 0);
	sample_disk(s, 2, TB__DISK_KIND__DISK_KIND_DATA, 2);
	for (unsigned i = 0; i < VM_DISKS_MAX; i++)
		s->images[i] = -1;
	s->images[1] = image_make(s);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct sample *s = *state;
	char path[160];

	vm_disk_delete(s->folder, 12);
	assert_int_equal(rmdir(s->folder) == 0 || errno == ENOENT, 1);
	snprintf(path, sizeof(path), "%s/image", s->root);
	unlink(path);
	close(s->images[1]);
	assert_int_equal(rmdir(s->root), 0); /* nothing is left */
	free(s);
	return 0;
}

static int prepare(struct sample *s, uint64_t incarnation)
{
	s->copying.bytes = 0;
	s->copying.cancelled = false;
	s->placement.incarnation = incarnation;
	return vm_disk_prepare(s->folder, &s->vm, s->images, &s->copying, &s->problem);
}

static int disk_open(struct sample *s, unsigned number)
{
	int fd = -1;
	int rv = vm_disk_open(s->folder, &s->vm, number, &fd, &s->problem);

	return rv < 0 ? rv : fd;
}

static uint8_t byte_at(int fd, off_t at)
{
	uint8_t byte = 0xff;

	assert_int_equal(pread(fd, &byte, 1, at), 1);
	return byte;
}

static bool exists(const struct sample *s, const char *name)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/12/%s", s->folder, name);
	return access(path, F_OK) == 0;
}

static void file_put(const struct sample *s, const char *name, const char *text)
{
	char path[160];
	int fd;

	snprintf(path, sizeof(path), "%s/12/%s", s->folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void test_made(void **state)
{
	struct sample *s = *state;
	struct stat st;
	int fd;

	assert_int_equal(prepare(s, 7), 0);
	fd = disk_open(s, 1);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, IMAGE_BYTES + 512); /* whole sectors */
	assert_int_equal(byte_at(fd, 0), 0x5a);
	assert_int_equal(byte_at(fd, 1 << 20), 0);
	assert_int_equal(byte_at(fd, (2 << 20) + 4095), 0x5a);
	assert_int_equal(byte_at(fd, IMAGE_BYTES + 511), 0);
	close(fd);
	fd = disk_open(s, 2);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 2 << 20);
	close(fd);
}

/* The piece in hand is the last one, and nothing is left; the next time all of it is made. */
static void test_cancelled(void **state)
{
	struct sample *s = *state;
	int rv;

	cancels = &s->copying.cancelled;
	rv = prepare(s, 7);
	cancels = NULL;
	if (rv == 0 && s->copying.bytes == 0)
		skip(); /* the file system clones */
	assert_int_equal(rv, -ECANCELED);
	assert_int_equal(s->copying.bytes, 1 << 20);
	assert_false(exists(s, "overlay1.7"));
	assert_false(exists(s, "overlay1.7.new"));
	assert_false(exists(s, "data-disk2"));
	assert_int_equal(prepare(s, 7), 0);
	assert_int_equal(s->copying.bytes, IMAGE_BYTES + 100);
}

/* The guest's writes stay for a restart here, and are gone with the incarnation. */
static void test_overlay_life(void **state)
{
	struct sample *s = *state;
	int fd;

	assert_int_equal(prepare(s, 7), 0);
	assert_true(vm_disk_made(s->folder, &s->vm, 1));
	fd = disk_open(s, 1);
	assert_int_equal(pwrite(fd, "x", 1, 0), 1);
	close(fd);
	assert_int_equal(prepare(s, 7), 0);
	fd = disk_open(s, 1);
	assert_int_equal(byte_at(fd, 0), 'x');
	close(fd);
	assert_int_equal(prepare(s, 8), 0);
	assert_false(exists(s, "overlay1.7"));
	fd = disk_open(s, 1);
	assert_int_equal(byte_at(fd, 0), 0x5a);
	close(fd);
	assert_int_equal(byte_at(s->images[1], 0), 0x5a); /* the image itself never changes */
}

static void test_overlay_grows(void **state)
{
	struct sample *s = *state;
	struct stat st;
	int fd;

	s->disks[1].size_mib = 5;
	assert_int_equal(prepare(s, 7), 0);
	fd = disk_open(s, 1);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 5 << 20);
	close(fd);
}

/* What a power cut left is not taken for a disk. */
static void test_half_made(void **state)
{
	struct sample *s = *state;
	int fd;

	assert_int_equal(prepare(s, 7), 0);
	vm_disk_discard(s->folder, 12);
	file_put(s, "overlay1.7.new", "half");
	file_put(s, "data-disk2.new", "half");
	assert_int_equal(prepare(s, 7), 0);
	assert_false(exists(s, "overlay1.7.new"));
	assert_false(exists(s, "data-disk2.new"));
	fd = disk_open(s, 1);
	assert_int_equal(byte_at(fd, 0), 0x5a);
	close(fd);
}

static void data_write(struct sample *s, const char *byte)
{
	int fd = disk_open(s, 2);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, byte, 1, 0), 1);
	close(fd);
}

static void test_data_stays(void **state)
{
	struct sample *s = *state;
	struct stat st;
	int fd;

	assert_int_equal(prepare(s, 7), 0);
	data_write(s, "d");
	vm_disk_discard(s->folder, 12);
	assert_false(exists(s, "overlay1.7"));
	s->disks[2].size_mib = 4; /* larger in the model now */
	assert_int_equal(prepare(s, 9), 0);
	fd = disk_open(s, 2);
	assert_int_equal(byte_at(fd, 0), 'd');
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 4 << 20);
	close(fd);
	s->disks[2].size_mib = 1; /* never cut */
	assert_int_equal(prepare(s, 9), 0);
	fd = disk_open(s, 2);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 4 << 20);
	close(fd);
}

/* S3: who comes late with an old placement gets nothing. */
static void test_incarnation(void **state)
{
	struct sample *s = *state;

	assert_int_equal(prepare(s, 9), 0);
	data_write(s, "n");
	assert_int_equal(prepare(s, 8), -ESTALE);
	assert_non_null(strstr(s->problem.text, "incarnation 9, and this is the older one 8"));
	assert_int_equal(disk_open(s, 2), -ESTALE);
	/* One that was never written down is not let in either. */
	s->placement.incarnation = 10;
	assert_int_equal(disk_open(s, 2), -ESTALE);
	assert_int_equal(prepare(s, 10), 0);
	data_write(s, "m");
}

/* Stays of the VM on this board, one after the other. */
static int stay(struct sample *s, uint64_t home, uint64_t incarnation, bool known)
{
	static char id[] = "books";

	s->disks[2].id = s->known[0] = id;
	s->placement.n_home_disks = known;
	s->placement.home_incarnation = home;
	return prepare(s, incarnation);
}

/* It went elsewhere by force and is back, by force: what it left here is not its disk. */
static void test_stale(void **state)
{
	struct sample *s = *state;
	int fd;

	assert_int_equal(stay(s, 7, 7, false), 0);
	assert_true(exists(s, "data-books.7"));
	data_write(s, "o");
	vm_disk_discard(s->folder, 12);
	assert_int_equal(stay(s, 9, 9, false), 0);
	fd = disk_open(s, 2);
	assert_true(fd >= 0);
	assert_int_equal(byte_at(fd, 0), 0);
	close(fd);
	data_write(s, "n");
	assert_true(exists(s, "data-books.7")); /* a person may want it */
	/* Later starts of the same stay find what they wrote. */
	vm_disk_discard(s->folder, 12);
	assert_int_equal(stay(s, 9, 14, true), 0);
	fd = disk_open(s, 2);
	assert_int_equal(byte_at(fd, 0), 'n');
	close(fd);
}

/* Once the model knows of it none is made in its place. */
static void test_missing(void **state)
{
	struct sample *s = *state;
	char path[160];

	assert_int_equal(stay(s, 7, 7, false), 0);
	assert_int_equal(stay(s, 7, 7, false), 0); /* a crash before the model knew */
	snprintf(path, sizeof(path), "%s/12/data-books.7", s->folder);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(stay(s, 7, 7, false), 0); /* the guest never had it */
	assert_int_equal(unlink(path), 0);
	assert_int_equal(stay(s, 7, 7, true), -ENODATA);
	assert_string_equal(s->problem.text,
			    "data disk books is missing on this board (vms/12/data-books.7): put "
			    "it back, or give it up with witnessctl vm move db --force");
	assert_false(exists(s, "data-books.7"));
	assert_int_equal(stay(s, 7, 8, true), -ENODATA);
	/* A whole new card. */
	vm_disk_delete(s->folder, 12);
	assert_int_equal(stay(s, 7, 8, true), -ENODATA);
	/* Nor does an old one stand in for it. */
	file_put(s, "data-books.3", "old");
	file_put(s, "data-books", "older");
	assert_int_equal(stay(s, 7, 8, true), -ENODATA);
	/* Another disk of it is new, and is made. */
	s->placement.n_home_disks = 0;
	assert_int_equal(prepare(s, 8), 0);
}

/* A home of before its incarnation was kept: the file has the name that it had. */
static void test_home_of_before(void **state)
{
	struct sample *s = *state;

	assert_int_equal(stay(s, 0, 7, false), 0);
	assert_true(exists(s, "data-books"));
	assert_int_equal(stay(s, 0, 8, true), 0);
}

static void test_incarnation_damaged(void **state)
{
	struct sample *s = *state;

	assert_int_equal(prepare(s, 9), 0);
	file_put(s, "incarnation", "\x01\x02");
	assert_int_equal(prepare(s, 10), -EBADMSG);
	assert_non_null(strstr(s->problem.text, "vms/12/incarnation"));
	assert_int_equal(disk_open(s, 2), -EBADMSG);
}

static void test_too_large(void **state)
{
	struct sample *s = *state;

	s->disks[2].size_mib = 1 << 30;
	assert_int_equal(prepare(s, 7), -ENOSPC);
	assert_non_null(strstr(s->problem.text, "disk 2 needs 1073741824 MiB"));
	assert_non_null(strstr(s->problem.text, "of which 256 stay free"));
	assert_false(exists(s, "data-disk2"));
	assert_false(exists(s, "data-disk2.new"));
}

/* What was made beside one that cannot be goes again, so that another board can have the VM; what
 * was there stays. */
static void test_all_or_none(void **state)
{
	struct sample *s = *state;

	sample_disk(s, 1, TB__DISK_KIND__DISK_KIND_DATA, 2);
	sample_disk(s, 2, TB__DISK_KIND__DISK_KIND_DATA, 1 << 30);
	assert_int_equal(prepare(s, 7), -ENOSPC);
	assert_false(exists(s, "data-disk1"));
	s->config.n_disks = 2;
	assert_int_equal(prepare(s, 7), 0);
	assert_true(exists(s, "data-disk1"));
	s->config.n_disks = 3;
	assert_int_equal(prepare(s, 7), -ENOSPC);
	assert_true(exists(s, "data-disk1"));
}

static void test_no_image(void **state)
{
	struct sample *s = *state;
	int image = s->images[1];

	s->images[1] = -1;
	assert_int_equal(prepare(s, 7), -ENOENT);
	assert_false(exists(s, "overlay1.7"));
	s->images[1] = image;
}

/* A disk keeps its content when others come before it. */
static void test_named_by_id(void **state)
{
	struct sample *s = *state;
	char id[] = "books", odd[] = "../../x";
	int fd;

	s->disks[2].id = id;
	assert_int_equal(prepare(s, 7), 0);
	assert_true(exists(s, "data-books"));
	data_write(s, "b");
	s->disks[1] = s->disks[2];
	s->config.n_disks = 2;
	fd = disk_open(s, 1);
	assert_int_equal(byte_at(fd, 0), 'b');
	close(fd);
	s->disks[1].id = odd; /* a name that leads elsewhere names nothing */
	assert_int_equal(prepare(s, 7), 0);
	assert_true(exists(s, "data-disk1"));
}

static void test_list_and_delete(void **state)
{
	struct sample *s = *state;
	uint64_t ids[4];

	assert_int_equal(vm_disk_list(s->folder, ids, 4), 0);
	assert_int_equal(prepare(s, 7), 0);
	assert_int_equal(vm_disk_list(s->folder, ids, 4), 1);
	assert_int_equal(ids[0], 12);
	vm_disk_discard(s->folder, 12);
	assert_int_equal(vm_disk_list(s->folder, ids, 4), 1); /* its data is there */
	vm_disk_delete(s->folder, 12);
	assert_int_equal(vm_disk_list(s->folder, ids, 4), 0);
}

/* A VM without disks to make leaves no trace, nor does one whose overlays are all it has. */
static void test_nothing_to_keep(void **state)
{
	struct sample *s = *state;
	uint64_t ids[4];

	s->config.n_disks = 1;
	assert_int_equal(prepare(s, 7), 0);
	assert_int_equal(vm_disk_list(s->folder, ids, 4), 0);
	s->config.n_disks = 2;
	assert_int_equal(prepare(s, 7), 0);
	assert_false(exists(s, "incarnation")); /* no data: nothing is written for it */
	vm_disk_discard(s->folder, 12);
	assert_int_equal(vm_disk_list(s->folder, ids, 4), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_made),
		CASE(test_cancelled),
		CASE(test_overlay_life),
		CASE(test_overlay_grows),
		CASE(test_half_made),
		CASE(test_data_stays),
		CASE(test_incarnation),
		CASE(test_stale),
		CASE(test_missing),
		CASE(test_home_of_before),
		CASE(test_incarnation_damaged),
		CASE(test_too_large),
		CASE(test_all_or_none),
		CASE(test_no_image),
		CASE(test_named_by_id),
		CASE(test_list_and_delete),
		CASE(test_nothing_to_keep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
