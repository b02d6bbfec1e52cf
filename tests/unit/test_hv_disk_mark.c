/* Is a disk as its snapshot left it? One that was written since is refused, and so is whatever
 * nobody can tell of; the copy that kept its time is taken, and so is the word of the spec. */
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
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hv/disk_mark.h"
#include "hv_snapshot_sample.h"

/* A VM with two disks, both files: the sample has as many devices. */
struct bench {
	Tb__DiskSpec disk[2];
	Tb__DiskSpec *disks[2];
	Tb__VmSpec spec;
	struct resources resources;
	Tb__VmSnapshot *snapshot;
};

static void bench_open(struct bench *b)
{
	*b = (struct bench){.spec = TB__VM_SPEC__INIT};
	for (unsigned i = 0; i < 2; i++) {
		b->disk[i] = (Tb__DiskSpec)TB__DISK_SPEC__INIT;
		b->disks[i] = &b->disk[i];
	}
	b->disk[0].path = (char *)(uintptr_t) "root.img";
	b->spec.n_disks = 2;
	b->spec.disks = b->disks;
	assert_int_equal(resource_add(&b->resources, "disk0", memfd_create("0", MFD_CLOEXEC)), 0);
	assert_int_equal(resource_add(&b->resources, "disk1", memfd_create("1", MFD_CLOEXEC)), 0);
	b->snapshot = snapshot_sample();
}

static void bench_close(struct bench *b)
{
	tb__vm_snapshot__free_unpacked(b->snapshot, NULL);
	resources_close(&b->resources);
}

/* Another file in the place of a disk. */
static void disk_replace(struct bench *b, unsigned number, int fd)
{
	assert_true(fd >= 0);
	close(b->resources.item[number].fd);
	b->resources.item[number].fd = fd;
}

static void disk_write(const struct bench *b, unsigned number)
{
	assert_int_equal(pwrite(b->resources.item[number].fd, "x", 1, 0), 1);
}

static void marks_forget(struct bench *b)
{
	for (unsigned i = 0; i < 2; i++) {
		if (b->snapshot->devices[i]->disk != NULL) {
			tb__disk_mark__free_unpacked(b->snapshot->devices[i]->disk, NULL);
			b->snapshot->devices[i]->disk = NULL;
		}
	}
}

static void take(struct bench *b)
{
	struct fault fault = {0};

	marks_forget(b);
	assert_int_equal(disk_marks_take(&b->spec, &b->resources, b->snapshot, &fault), 0);
}

static int check(const struct bench *b, struct fault *fault)
{
	*fault = (struct fault){0};
	return disk_marks_check(&b->spec, &b->resources, b->snapshot, fault);
}

static void check_taken(const struct bench *b)
{
	struct fault fault;

	if (check(b, &fault) != 0) {
		fail_msg("%s", fault.text);
	}
}

static void check_refused(const struct bench *b, const char *begin, const char *words)
{
	struct fault fault;

	assert_int_equal(check(b, &fault), -EXDEV);
	if (strncmp(fault.text, begin, strlen(begin)) != 0 || strstr(fault.text, words) == NULL) {
		fail_msg("%s", fault.text);
	}
}

static void test_written_since(void **state)
{
	struct bench b;

	(void)state;
	bench_open(&b);
	disk_write(&b, 0);
	take(&b);
	check_taken(&b);
	disk_write(&b, 0);
	check_refused(&b, "disks[0]: root.img was written after the snapshot was saved",
		      "disks[0].asSaved=true");
	b.disk[0].as_saved = 1;
	check_taken(&b);
	/* Nobody's word for another disk. */
	disk_write(&b, 1);
	check_refused(&b, "disks[1]: it was written", "disks[1].asSaved=true");
	b.disk[1].read_only = 1;
	check_taken(&b);
	bench_close(&b);
}

static void test_copy(void **state)
{
	struct bench b;
	struct timespec times[2];
	struct stat st;

	(void)state;
	bench_open(&b);
	take(&b);
	assert_int_equal(fstat(b.resources.item[0].fd, &st), 0);
	times[0] = times[1] = st.st_mtim;
	disk_replace(&b, 0, memfd_create("copy", MFD_CLOEXEC));
	check_refused(&b, "disks[0]: root.img was written", "a copy without the time");
	assert_int_equal(futimens(b.resources.item[0].fd, times), 0);
	check_taken(&b);
	/* Earlier is no more the same than later is, nor is nearly. */
	times[1].tv_sec--;
	assert_int_equal(futimens(b.resources.item[0].fd, times), 0);
	check_refused(&b, "disks[0]: root.img was written", "cp -a");
	times[1] = (struct timespec){st.st_mtim.tv_sec, (st.st_mtim.tv_nsec + 1) % 1000000000};
	assert_int_equal(futimens(b.resources.item[0].fd, times), 0);
	check_refused(&b, "disks[0]: root.img was written", "cp -a");
	bench_close(&b);
}

/* A folder can be flushed and is no file, as a block device. */
static int folder_open(void)
{
	char path[] = "/tmp/disk-mark-XXXXXX";
	int fd;

	assert_non_null(mkdtemp(path));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(rmdir(path), 0);
	return fd;
}

static void test_nobody_can_tell(void **state)
{
	struct bench b;
	Tb__DiskMark *mark;

	(void)state;
	bench_open(&b);
	take(&b);
	mark = b.snapshot->devices[1]->disk;
	b.snapshot->devices[1]->disk = NULL;
	check_refused(&b, "disks[1]: it was no file or readOnly when", "older witness-vm");
	b.snapshot->devices[1]->disk = mark;
	check_taken(&b);
	disk_replace(&b, 1, folder_open());
	check_refused(&b, "disks[1]: it is no file", "disks[1].asSaved=true");
	bench_close(&b);
}

static void test_marks(void **state)
{
	struct bench b;
	struct fault fault = {0};
	int ends[2];

	(void)state;
	bench_open(&b);
	b.disk[0].read_only = 1;
	take(&b);
	assert_null(b.snapshot->devices[0]->disk);
	assert_non_null(b.snapshot->devices[1]->disk);
	bench_close(&b);

	bench_open(&b);
	disk_replace(&b, 0, folder_open());
	take(&b);
	assert_null(b.snapshot->devices[0]->disk);
	assert_non_null(b.snapshot->devices[1]->disk);
	/* What cannot be flushed is not where a restored guest believes it. */
	assert_int_equal(pipe(ends), 0);
	close(ends[1]);
	disk_replace(&b, 0, ends[0]);
	assert_int_equal(disk_marks_take(&b.spec, &b.resources, b.snapshot, &fault), -EINVAL);
	assert_non_null(strstr(fault.text, "cannot flush blk0"));
	bench_close(&b);
}

static int64_t age_ms(int fd)
{
	struct timespec now;
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(clock_gettime(CLOCK_REALTIME, &now), 0);
	return (now.tv_sec - st.st_mtim.tv_sec) * 1000 +
	       (now.tv_nsec - st.st_mtim.tv_nsec) / 1000000;
}

/* A write that follows at once is a later one, whatever the ticks of the clock and the units of the
 * file system. */
static void test_next_write(void **state)
{
	struct timespec times[2];
	struct bench b;

	(void)state;
	bench_open(&b);
	disk_write(&b, 0);
	take(&b);
	assert_true(age_ms(b.resources.item[0].fd) >= 20);
	assert_int_equal(clock_gettime(CLOCK_REALTIME, &times[0]), 0);
	times[0].tv_sec--;
	times[0].tv_nsec = 0;
	times[1] = times[0];
	assert_int_equal(futimens(b.resources.item[0].fd, times), 0);
	take(&b);
	assert_true(age_ms(b.resources.item[0].fd) >= 2000);
	/* A time to come is none to wait for. */
	times[1].tv_sec += 1000000;
	assert_int_equal(futimens(b.resources.item[0].fd, times), 0);
	take(&b);
	disk_write(&b, 0);
	check_refused(&b, "disks[0]: root.img was written", "");
	bench_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_written_since),	cmocka_unit_test(test_copy),
		cmocka_unit_test(test_nobody_can_tell), cmocka_unit_test(test_marks),
		cmocka_unit_test(test_next_write),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
