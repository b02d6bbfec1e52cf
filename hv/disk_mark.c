#include "hv/disk_mark.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/mem.h"

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)

/* How long two writes may have one time: the kernel's clock for it moves with its ticks, of 10 ms
 * at most; and where files have whole seconds (or two of them, FAT) until the next one. */
#define UNIT_TICKS (20 * MS)
#define UNIT_SECONDS (2 * SECOND)

/* Until a write gets another time than this one. */
static void time_pass(const struct timespec *written)
{
	const int64_t unit = written->tv_nsec == 0 ? UNIT_SECONDS : UNIT_TICKS;
	struct timespec now, rest;
	int64_t age;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	if (written->tv_sec > now.tv_sec || written->tv_sec < now.tv_sec - 3) {
		return;
	}
	age = (now.tv_sec - written->tv_sec) * SECOND + now.tv_nsec - written->tv_nsec;
	if (age < 0 || age >= unit) {
		return;
	}
	rest = (struct timespec){(unit - age) / SECOND, (unit - age) % SECOND};
	/* A vCPU's thread is kicked at times. */
	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &rest, &rest) == EINTR) {
	}
}

static int mark_take(int fd, Tb__DiskMark **ret)
{
	struct stat st;

	/* Not fdatasync: the time belongs to it. */
	if (fsync(fd) < 0 || fstat(fd, &st) < 0) {
		return -errno;
	}
	if (S_ISREG(st.st_mode)) {
		Tb__DiskMark *mark = mem_alloc(sizeof(*mark));

		tb__disk_mark__init(mark);
		mark->seconds = st.st_mtim.tv_sec;
		mark->nanoseconds = (uint32_t)st.st_mtim.tv_nsec;
		*ret = mark;
		time_pass(&st.st_mtim);
	}
	return 0;
}

int disk_marks_take(const Tb__VmSpec *spec, const struct resources *r, Tb__VmSnapshot *s,
		    struct fault *fault)
{
	unsigned i;
	int rv = 0;

	for (i = 0; i < spec->n_disks && rv == 0; i++) {
		if (!spec->disks[i]->read_only) {
			rv = mark_take(resource_find_nth(r, "disk", i), &s->devices[i]->disk);
		}
	}
	return rv < 0 ? fault_set(fault, rv, "cannot flush %s: %s", s->devices[i - 1]->name,
				  strerror(-rv))
		      : 0;
}

/* What speaks against the disk, or NULL. */
static const char *mark_compare(const Tb__DiskMark *saved, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		return "is no file, so that nobody can tell whether it was written since the "
		       "snapshot was saved";
	}
	if (saved == NULL) {
		return "was no file or readOnly when the snapshot was saved, or an older "
		       "witness-vm saved it, so that nobody can tell whether it was written since";
	}
	if (st.st_mtim.tv_sec != saved->seconds || st.st_mtim.tv_nsec != saved->nanoseconds) {
		return "was written after the snapshot was saved, or is a copy without the time of "
		       "its last write: give one made by `cp -a` while the VM was still paused";
	}
	return NULL;
}

int disk_marks_check(const Tb__VmSpec *spec, const struct resources *r, const Tb__VmSnapshot *s,
		     struct fault *fault)
{
	for (unsigned i = 0; i < spec->n_disks; i++) {
		const Tb__DiskSpec *disk = spec->disks[i];
		const char *problem;

		if (disk->read_only || disk->as_saved) {
			continue;
		}
		problem = mark_compare(s->devices[i]->disk, resource_find_nth(r, "disk", i));
		if (problem != NULL) {
			return fault_set(fault, -EXDEV,
					 "disks[%u]: %.128s %s; if it does hold what it held then, "
					 "say so: disks[%u].asSaved=true",
					 i, disk->path[0] != '\0' ? disk->path : "it", problem, i);
		}
	}
	return 0;
}
