#include "hv/resources.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hv/disk_lock.h"
#include "hv/spec.h"
#include "hv/tap.h"
#include "hv/virtio/blk_sync.h"
#include "lib/log.h"

enum { BUSY_TRIES = 50 }; /* 10 ms apart */

static const char *const names[] = {
	"kvm",	      "kernel",	     "initrd", "vsock",	 "console",
	"console-in", "console-out", "state",  "memory", "control",
};

/* "disk3" of kind "disk" with 8: true. */
static bool is_nth(const char *name, const char *kind, int count)
{
	size_t len = strlen(kind);

	return strncmp(name, kind, len) == 0 && name[len] >= '0' && name[len] < '0' + count &&
	       name[len + 1] == '\0';
}

static bool is_name(const char *name)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(names[i], name) == 0) {
			return true;
		}
	}
	return is_nth(name, "disk", SPEC_DISKS_MAX) || is_nth(name, "nic", SPEC_NICS_MAX);
}

int resource_find(const struct resources *r, const char *name)
{
	for (size_t i = 0; i < r->count; i++) {
		if (strcmp(r->item[i].name, name) == 0) {
			return r->item[i].fd;
		}
	}
	return -1;
}

int resource_find_nth(const struct resources *r, const char *kind, unsigned number)
{
	char name[24];

	snprintf(name, sizeof(name), "%.10s%u", kind, number);
	return resource_find(r, name);
}

int resource_add(struct resources *r, const char *name, int fd)
{
	struct resource *item;

	if (fd < 0 || !is_name(name)) {
		return -EINVAL;
	}
	if (resource_find(r, name) >= 0) {
		return -EEXIST;
	}
	if (r->count == RESOURCES_MAX) {
		return -E2BIG;
	}
	item = &r->item[r->count++];
	snprintf(item->name, sizeof(item->name), "%s", name);
	item->fd = fd;
	return 0;
}

void resources_close(struct resources *r)
{
	for (size_t i = 0; i < r->count; i++) {
		close(r->item[i].fd);
	}
	r->count = 0;
}

/* Opening */

static const char *open_remedy(int error, bool writable)
{
	switch (error) {
	case EROFS:
		return writable ? "; make it readOnly" : "";
	case EACCES:
	case EPERM:
		return writable ? "; give this user the right to write it, or make it readOnly"
				: "; give this user the right to read it";
	case EBUSY:
		return "; it is mounted, or another program has it for itself";
	default:
		return "";
	}
}

/* A device that a VM had for itself is free a moment after its end, as its lock is (disk_lock.h).
 */
static int open_soon(const char *path, int flags)
{
	static const struct timespec pause = {.tv_nsec = 10000000};
	int fd = open(path, flags);

	for (int tries = 1; fd < 0 && errno == EBUSY && tries < BUSY_TRIES; tries++) {
		(void)nanosleep(&pause, NULL);
		fd = open(path, flags);
	}
	return fd;
}

/* `field` is the place in the spec. O_NONBLOCK: a pipe or a tape must not make us wait. */
static int path_open(struct resources *r, const char *name, const char *field, const char *path,
		     int flags, struct fault *fault)
{
	int fd = open_soon(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0) {
		int error = errno;

		return fault_set(fault, -error, "%s: cannot open %.256s: %s%s", field, path,
				 strerror(error), open_remedy(error, (flags & O_RDWR) != 0));
	}
	(void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	return resource_add(r, name, fd);
}

/* A device that somebody mounted or has for itself must not be written behind his back. */
static int disk_flags(const Tb__DiskSpec *disk)
{
	struct stat st;

	if (disk->read_only) {
		return O_RDONLY;
	}
	if (!disk->no_lock && stat(disk->path, &st) == 0 && S_ISBLK(st.st_mode)) {
		return O_RDWR | O_EXCL;
	}
	return O_RDWR;
}

static int disks_open(const Tb__VmSpec *spec, struct resources *r, struct fault *fault)
{
	char name[24];
	char field[32];
	int rv = 0;

	for (unsigned i = 0; i < spec->n_disks && rv == 0; i++) {
		const Tb__DiskSpec *disk = spec->disks[i];

		snprintf(name, sizeof(name), "disk%u", i);
		snprintf(field, sizeof(field), "disks[%u]", i);
		rv = path_open(r, name, field, disk->path, disk_flags(disk), fault);
	}
	return rv;
}

static int nics_open(const Tb__VmSpec *spec, struct resources *r, struct fault *fault)
{
	char name[24];
	char field[32];
	int fd, rv = 0;

	for (unsigned i = 0; i < spec->n_nics && rv == 0; i++) {
		snprintf(name, sizeof(name), "nic%u", i);
		snprintf(field, sizeof(field), "nics[%u]", i);
		rv = tap_open(spec->nics[i]->tap, field, &fd, fault);
		rv = rv < 0 ? rv : resource_add(r, name, fd);
	}
	return rv;
}

static int vsock_open(struct resources *r, struct fault *fault)
{
	int fd = open("/dev/vhost-vsock", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		return fault_set(fault, -errno,
				 "vsockCid: cannot open /dev/vhost-vsock: %s; load the kernel "
				 "module vhost_vsock, or give the user the right to it",
				 strerror(errno));
	}
	return resource_add(r, "vsock", fd);
}

int resources_open(const Tb__VmSpec *spec, struct resources *r, struct fault *fault)
{
	const Tb__RestoreSpec *restore = spec->restore;
	int rv = 0;

	if (restore != NULL) {
		rv = path_open(r, "state", "restore.state", restore->state, O_RDONLY, fault);
		rv = rv < 0 ? rv
			    : path_open(r, "memory", "restore.memory", restore->memory, O_RDONLY,
					fault);
	} else {
		rv = path_open(r, "kernel", "kernel", spec->kernel, O_RDONLY, fault);
	}
	if (rv == 0 && spec->initrd[0] != '\0') {
		rv = path_open(r, "initrd", "initrd", spec->initrd, O_RDONLY, fault);
	}
	rv = rv < 0 ? rv : disks_open(spec, r, fault);
	rv = rv < 0 ? rv : nics_open(spec, r, fault);
	if (rv == 0 && spec->vsock_cid != 0) {
		rv = vsock_open(r, fault);
	}
	return rv;
}

/* Checking */

static int check_there(const struct resources *r, const char *name, struct fault *fault)
{
	if (resource_find(r, name) < 0) {
		return fault_set(fault, -ENOENT, "the descriptor \"%s\" did not come along", name);
	}
	return 0;
}

static bool is_wanted(const Tb__VmSpec *spec, const char *name)
{
	if (strcmp(name, "kernel") == 0 || strcmp(name, "initrd") == 0) {
		return spec->restore == NULL;
	}
	if (strcmp(name, "state") == 0 || strcmp(name, "memory") == 0) {
		return spec->restore != NULL;
	}
	if (strcmp(name, "vsock") == 0) {
		return spec->vsock_cid != 0;
	}
	return (strncmp(name, "disk", 4) != 0 || is_nth(name, "disk", (int)spec->n_disks)) &&
	       (strncmp(name, "nic", 3) != 0 || is_nth(name, "nic", (int)spec->n_nics));
}

static int check_file(const struct resources *r, const char *name, struct fault *fault)
{
	int fd = resource_find(r, name);
	struct stat st;

	if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))) {
		return fault_set(fault, -EINVAL, "%s: is not a file", name);
	}
	return 0;
}

static int check_same(const struct resources *r, unsigned number, struct fault *fault)
{
	struct stat st, other;

	if (fstat(resource_find_nth(r, "disk", number), &st) < 0) {
		return fault_set(fault, -errno, "disks[%u]: cannot look at it: %s", number,
				 strerror(errno));
	}
	for (unsigned i = 0; i < number; i++) {
		if (fstat(resource_find_nth(r, "disk", i), &other) == 0 &&
		    st.st_dev == other.st_dev && st.st_ino == other.st_ino) {
			return fault_set(fault, -EINVAL, "disks[%u]: is the file of disks[%u] too",
					 number, i);
		}
	}
	return 0;
}

static const char *disk_path(const Tb__DiskSpec *disk)
{
	return disk->path[0] != '\0' ? disk->path : "it";
}

static int check_disk(const Tb__VmSpec *spec, const struct resources *r, unsigned number,
		      struct fault *fault)
{
	const Tb__DiskSpec *disk = spec->disks[number];
	const char *path = disk_path(disk);
	char holder[64];
	char name[24];
	int rv;

	snprintf(name, sizeof(name), "disk%u", number);
	rv = check_there(r, name, fault);
	rv = rv < 0 ? rv : check_same(r, number, fault);
	if (rv < 0 || disk->no_lock) {
		return rv;
	}
	rv = disk_lock(resource_find(r, name), disk->read_only, holder);
	if (rv == -EAGAIN) {
		log_notice("disk",
			   "%s: disks[%u]: %.256s is waited for: %s, which is left of a VM that "
			   "was killed, has it until the disk has done what that VM began",
			   spec->name, number, path, holder);
		return 0;
	}
	if (rv == -EBUSY) {
		return fault_set(fault, rv, "disks[%u]: %.256s is in use by %s", number, path,
				 holder);
	}
	if (rv < 0) {
		return fault_set(fault, rv,
				 "disks[%u]: cannot lock %.256s: %s; if its file system has no "
				 "locks, set noLock and make sure that one VM uses it",
				 number, path, strerror(-rv));
	}
	return 0;
}

static int check_nics(const struct resources *r, size_t count, struct fault *fault)
{
	char name[24];
	int rv = 0;

	for (unsigned i = 0; i < count && rv == 0; i++) {
		snprintf(name, sizeof(name), "nic%u", i);
		rv = check_there(r, name, fault);
	}
	return rv;
}

int resources_check(const Tb__VmSpec *spec, const struct resources *r, struct fault *fault)
{
	int rv;

	for (size_t i = 0; i < r->count; i++) {
		if (!is_wanted(spec, r->item[i].name)) {
			return fault_set(fault, -EINVAL,
					 "the descriptor \"%s\" belongs to nothing in the spec",
					 r->item[i].name);
		}
	}
	if (spec->restore != NULL) {
		rv = check_there(r, "state", fault);
		rv = rv < 0 ? rv : check_there(r, "memory", fault);
	} else {
		rv = check_there(r, "kernel", fault);
	}
	rv = rv < 0 ? rv : check_file(r, "kernel", fault);
	rv = rv < 0 ? rv : check_file(r, "initrd", fault);
	rv = rv < 0 ? rv : check_nics(r, spec->n_nics, fault);
	if (rv == 0 && spec->vsock_cid != 0) {
		rv = check_there(r, "vsock", fault);
	}
	for (unsigned i = 0; i < spec->n_disks && rv == 0; i++) {
		rv = check_disk(spec, r, i, fault);
	}
	return rv;
}

int resources_lock(const Tb__VmSpec *spec, const struct resources *r, bool (*turn)(void *arg),
		   void *arg, struct fault *fault)
{
	int turns = 0;
	int rv = 0;

	for (unsigned i = 0; i < spec->n_disks && rv == 0; i++) {
		const Tb__DiskSpec *disk = spec->disks[i];

		if (disk->no_lock) {
			continue;
		}
		while ((rv = disk_lock_try(resource_find_nth(r, "disk", i), disk->read_only)) ==
			       -EAGAIN &&
		       turns++ < RESOURCES_TURNS) {
			if (!turn(arg)) {
				return -ECANCELED;
			}
		}
		if (rv < 0) {
			rv = fault_set(fault, rv,
				       "disks[%u]: %.256s is still in use by a " BLK_SYNC_NAME
				       ", left of a VM that was killed: the disk does not answer",
				       i, disk_path(disk));
		}
	}
	return rv;
}
