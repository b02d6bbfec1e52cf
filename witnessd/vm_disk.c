#include "witnessd/vm_disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lib/mem.h"
#include "lib/text.h"

enum { COPY_PIECE = 1 << 20 };

#define MIB UINT64_C(1048576)

/* --- folders --- */

static void folder_name(const char *folder_path, uint64_t vm, char path[512])
{
	snprintf(path, 512, "%s/%" PRIu64, folder_path, vm);
}

/* The VM's folder, made with what is above it if it is not there. */
static int folder_open(const char *folder_path, uint64_t vm, bool make, int *ret)
{
	char path[512];

	folder_name(folder_path, vm, path);
	if (make && mkdir(folder_path, 0700) < 0 && errno != EEXIST)
		return -errno;
	if (make && mkdir(path, 0700) < 0 && errno != EEXIST)
		return -errno;
	*ret = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return *ret < 0 ? -errno : 0;
}

/* Removes what `wanted` says of the names in there. */
static void folder_sweep(int folder, bool (*wanted)(const char *name, uint64_t incarnation),
			 uint64_t incarnation)
{
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;

	if (dir == NULL) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.' && wanted(entry->d_name, incarnation))
			(void)unlinkat(folder, entry->d_name, 0);
	closedir(dir);
}

static bool is_overlay(const char *name)
{
	return strncmp(name, "overlay", 7) == 0;
}

static bool is_stale(const char *name, uint64_t incarnation)
{
	const char *dot = strrchr(name, '.');
	uint64_t number;

	if (dot != NULL && strcmp(dot, ".new") == 0)
		return true;
	return is_overlay(name) &&
	       (dot == NULL || text_to_u64(dot + 1, 0, UINT64_MAX, &number) != 0 ||
		number != incarnation);
}

static bool is_of_overlay(const char *name, uint64_t incarnation)
{
	(void)incarnation;
	return is_overlay(name);
}

static bool is_any(const char *name, uint64_t incarnation)
{
	(void)name;
	(void)incarnation;
	return true;
}

/* By its serial number, which goes with it when disks change their order. A dot would make it one
 * of the names that are swept. */
static void data_name(const Tb__VmDisk *disk, unsigned number, char name[64])
{
	static const char words[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";

	if (disk->id[0] == '\0' || disk->id[strspn(disk->id, words)] != '\0') {
		snprintf(name, 64, "data-disk%u", number);
		return;
	}
	snprintf(name, 64, "data-%.32s", disk->id);
	for (char *at = name; *at != '\0'; at++)
		if (*at == '.')
			*at = '=';
}

/* A data disk of an earlier stay on this board has another name. */
static void disk_name(const Tb__Vm *vm, unsigned number, char name[64])
{
	uint64_t home = vm->placement->home_incarnation;

	if (vm->config->disks[number]->kind == TB__DISK_KIND__DISK_KIND_DATA) {
		data_name(vm->config->disks[number], number, name);
		if (home != 0)
			snprintf(name + strlen(name), 64 - strlen(name), ".%" PRIu64, home);
	} else {
		snprintf(name, 64, "overlay%u.%" PRIu64, number, vm->placement->incarnation);
	}
}

/* --- the incarnation --- */

static int incarnation_read(int folder, uint64_t *ret)
{
	char text[32];
	int fd = openat(folder, "incarnation", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t len;

	if (fd < 0)
		return -errno;
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (len < 0)
		return -errno;
	text[len] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return text_to_u64(text, 0, UINT64_MAX, ret) == 0 ? 0 : -EBADMSG;
}

static int file_sync(int folder, int fd, const char *from, const char *to)
{
	if (fsync(fd) < 0 || renameat(folder, from, folder, to) < 0 || fsync(folder) < 0)
		return -errno;
	return 0;
}

static int incarnation_write(int folder, uint64_t incarnation)
{
	char text[32];
	int len = snprintf(text, sizeof(text), "%" PRIu64 "\n", incarnation);
	int fd = openat(folder, "incarnation.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int rv;

	if (fd < 0)
		return -errno;
	rv = write(fd, text, (size_t)len) == len ? 0 : -EIO;
	rv = rv < 0 ? rv : file_sync(folder, fd, "incarnation.new", "incarnation");
	close(fd);
	return rv;
}

/* A file that cannot be read stands for any number: nothing is guessed. */
static int incarnation_check(int folder, const Tb__Vm *vm, uint64_t *ret_stored,
			     struct problem *problem)
{
	int rv = incarnation_read(folder, ret_stored);

	if (rv == -ENOENT) {
		*ret_stored = 0;
		return 0;
	}
	if (rv < 0)
		return problem_set(problem, rv,
				   "the incarnation of its data disks cannot be read (vms/%" PRIu64
				   "/incarnation): %s",
				   vm->id, rv == -EBADMSG ? "it is no number" : strerror(-rv));
	if (*ret_stored > vm->placement->incarnation)
		return problem_set(problem, -ESTALE,
				   "its data disks belong to incarnation %" PRIu64
				   ", and this is the older one %" PRIu64,
				   *ret_stored, vm->placement->incarnation);
	return 0;
}

static int incarnation_take(int folder, const Tb__Vm *vm, struct problem *problem)
{
	uint64_t stored;
	int rv = incarnation_check(folder, vm, &stored, problem);

	if (rv < 0 || stored == vm->placement->incarnation)
		return rv;
	rv = incarnation_write(folder, vm->placement->incarnation);
	return rv < 0 ? problem_set(problem, rv,
				    "cannot write the incarnation of its data disks: %s",
				    strerror(-rv))
		      : 0;
}

/* --- making files --- */

static int room_check(int folder, unsigned number, uint64_t size, struct problem *problem)
{
	struct statvfs fs;
	uint64_t free_mib;

	if (fstatvfs(folder, &fs) < 0)
		return problem_set(problem, -errno, "disk %u: cannot ask for free room: %s", number,
				   strerror(errno));
	free_mib = (uint64_t)fs.f_bavail * fs.f_frsize / MIB;
	if (free_mib < (size + MIB - 1) / MIB + VM_DISK_KEEP_MIB)
		return problem_set(problem, -ENOSPC,
				   "disk %u needs %" PRIu64 " MiB, the board's card has %" PRIu64
				   " MiB free, of which %d stay free",
				   number, (size + MIB - 1) / MIB, free_mib, VM_DISK_KEEP_MIB);
	return 0;
}

/* Blocks are taken now where the file system can: a full card is found here and not by the guest.
 */
static int file_allocate(int fd, uint64_t size)
{
	if (size == 0 || fallocate(fd, 0, 0, (off_t)size) == 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		return -errno;
	return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
	return len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

static int write_all(int fd, const uint8_t *bytes, size_t len, off_t at)
{
	while (len > 0) {
		ssize_t put = pwrite(fd, bytes, len, at);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		bytes += put;
		len -= (size_t)put;
		at += put;
	}
	return 0;
}

/* The room is there already and reads as zeroes, so zeroes are not written. */
static int file_copy(int from, int to, uint64_t size, struct vm_disk_copying *copying)
{
	uint8_t *piece = mem_alloc(COPY_PIECE);
	uint64_t at = 0;
	int rv = 0;

	while (rv == 0 && at < size) {
		ssize_t got;

		if (copying->cancelled) {
			rv = -ECANCELED;
			break;
		}
		got = pread(from, piece, COPY_PIECE, (off_t)at);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			rv = got < 0 ? -errno : -EIO;
		else if (!is_zero(piece, (size_t)got))
			rv = write_all(to, piece, (size_t)got, (off_t)at);
		if (rv < 0)
			break;
		at += (uint64_t)got;
		copying->bytes += (uint64_t)got;
		/* To the card piece by piece, as in image_store.c: the cluster's log is not to
		 * wait. */
		sync_file_range(to, (off_t)(at - (uint64_t)got), (off_t)got,
				SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
					SYNC_FILE_RANGE_WAIT_AFTER);
	}
	free(piece);
	return rv;
}

/* Disks are whole sectors for the guest (hv.proto, DiskSpec). */
static uint64_t sectors(uint64_t size)
{
	return (size + 511) & ~UINT64_C(511);
}

static int overlay_make(int folder, int image, int fd, unsigned number, uint64_t grown,
			struct vm_disk_copying *copying, struct problem *problem)
{
	struct stat st;
	uint64_t size;
	bool cloned;
	int rv;

	if (image < 0)
		return problem_set(problem, -ENOENT, "disk %u: its image is not on this board",
				   number);
	if (fstat(image, &st) < 0)
		return problem_set(problem, -errno, "disk %u: %s", number, strerror(errno));
	size = sectors((uint64_t)st.st_size);
	size = size < grown ? grown : size;
	/* A clone takes blocks only as the guest writes: the room is asked for all the same. */
	rv = room_check(folder, number, size, problem);
	if (rv < 0)
		return rv;
	cloned = ioctl(fd, FICLONE, image) == 0;
	if (cloned)
		rv = ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
	else
		rv = file_allocate(fd, size);
	if (rv == 0 && !cloned)
		rv = file_copy(image, fd, (uint64_t)st.st_size, copying);
	return rv < 0 ? problem_set(problem, rv, "disk %u: cannot copy its image: %s", number,
				    strerror(-rv))
		      : 0;
}

static int data_make(int folder, const Tb__VmDisk *disk, unsigned number, int fd,
		     struct problem *problem)
{
	uint64_t size = disk->size_mib * MIB;
	int rv = room_check(folder, number, size, problem);

	if (rv < 0)
		return rv;
	rv = file_allocate(fd, size);
	return rv < 0 ? problem_set(problem, rv, "disk %u: cannot make a file of %u MiB: %s",
				    number, disk->size_mib, strerror(-rv))
		      : 0;
}

/* A data disk that was made larger in the model grows; what is there is never cut. */
static int data_grow(int folder, const Tb__VmDisk *disk, unsigned number, const char *name,
		     struct problem *problem)
{
	uint64_t size = disk->size_mib * MIB;
	struct stat st;
	int fd;
	int rv = 0;

	if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || (uint64_t)st.st_size >= size)
		return 0;
	rv = room_check(folder, number, size - (uint64_t)st.st_size, problem);
	if (rv < 0)
		return rv;
	fd = openat(folder, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	rv = fd < 0 ? -errno : file_allocate(fd, size);
	if (fd >= 0)
		close(fd);
	return rv < 0 ? problem_set(problem, rv, "disk %u: cannot grow it to %u MiB: %s", number,
				    disk->size_mib, strerror(-rv))
		      : 0;
}

static int disk_make(int folder, const Tb__Vm *vm, unsigned number, const char *name, int image,
		     struct vm_disk_copying *copying, struct problem *problem)
{
	const Tb__VmDisk *disk = vm->config->disks[number];
	char fresh[72];
	int fd;
	int rv;

	snprintf(fresh, sizeof(fresh), "%s.new", name);
	fd = openat(folder, fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return problem_set(problem, -errno, "disk %u: cannot make its file: %s", number,
				   strerror(errno));
	if (disk->kind == TB__DISK_KIND__DISK_KIND_DATA)
		rv = data_make(folder, disk, number, fd, problem);
	else
		rv = overlay_make(folder, image, fd, number, disk->size_mib * MIB, copying,
				  problem);
	if (rv == 0) {
		rv = file_sync(folder, fd, fresh, name);
		if (rv < 0)
			problem_set(problem, rv, "disk %u: cannot keep its file: %s", number,
				    strerror(-rv));
	}
	close(fd);
	if (rv < 0)
		(void)unlinkat(folder, fresh, 0);
	return rv;
}

/* A guest may have written to it: an empty one in its place would be a loss that nobody hears of.
 */
static bool is_to_be_there(const Tb__Vm *vm, const Tb__VmDisk *disk)
{
	const Tb__VmPlacement *p = vm->placement;

	return disk->kind == TB__DISK_KIND__DISK_KIND_DATA &&
	       text_among(disk->id, p->home_disks, p->n_home_disks);
}

static int missing(const Tb__Vm *vm, const Tb__VmDisk *disk, const char *name,
		   struct problem *problem)
{
	return problem_set(problem, -ENODATA,
			   "data disk %s is missing on this board (vms/%" PRIu64
			   "/%s): put it back, or give it up with witnessctl vm move %s --force",
			   disk->id, vm->id, name, vm->name);
}

/* `ret_made`: its file was not there before. */
static int disk_prepare(int folder, const Tb__Vm *vm, unsigned number, int image, bool *ret_made,
			struct vm_disk_copying *copying, struct problem *problem)
{
	const Tb__VmDisk *disk = vm->config->disks[number];
	char name[64];
	int rv;

	disk_name(vm, number, name);
	if (faccessat(folder, name, F_OK, AT_SYMLINK_NOFOLLOW) != 0) {
		if (errno != ENOENT)
			return problem_set(problem, -errno, "disk %u: cannot look for its file: %s",
					   number, strerror(errno));
		if (is_to_be_there(vm, disk))
			return missing(vm, disk, name, problem);
		rv = disk_make(folder, vm, number, name, image, copying, problem);
		*ret_made = rv == 0;
		return rv;
	}
	if (disk->kind == TB__DISK_KIND__DISK_KIND_DATA)
		return data_grow(folder, disk, number, name, problem);
	return 0;
}

static bool has_kind(const Tb__Vm *vm, Tb__DiskKind kind)
{
	for (size_t i = 0; i < vm->config->n_disks; i++)
		if (vm->config->disks[i]->kind == kind)
			return true;
	return false;
}

/* Data disks that were made just now, beside one that could not be: no guest has had them, and the
 * VM may go to another board, which makes its own. */
static void data_unmake(int folder, const Tb__Vm *vm, const bool made[VM_DISKS_MAX])
{
	char name[64];

	for (unsigned i = 0; i < vm->config->n_disks; i++) {
		if (!made[i] || vm->config->disks[i]->kind != TB__DISK_KIND__DISK_KIND_DATA)
			continue;
		disk_name(vm, i, name);
		(void)unlinkat(folder, name, 0);
	}
}

static int disks_prepare(int folder, const Tb__Vm *vm, const int *images,
			 struct vm_disk_copying *copying, struct problem *problem)
{
	bool made[VM_DISKS_MAX] = {false};
	int rv = 0;

	folder_sweep(folder, is_stale, vm->placement->incarnation);
	if (has_kind(vm, TB__DISK_KIND__DISK_KIND_DATA))
		rv = incarnation_take(folder, vm, problem);
	for (unsigned i = 0; i < vm->config->n_disks && rv == 0; i++)
		if (vm->config->disks[i]->kind != TB__DISK_KIND__DISK_KIND_IMAGE)
			rv = disk_prepare(folder, vm, i, images[i], &made[i], copying, problem);
	if (rv < 0)
		data_unmake(folder, vm, made);
	return rv;
}

int vm_disk_prepare(const char *folder_path, const Tb__Vm *vm, const int *images,
		    struct vm_disk_copying *copying, struct problem *problem)
{
	int folder;
	int rv;

	if (!has_kind(vm, TB__DISK_KIND__DISK_KIND_OVERLAY) &&
	    !has_kind(vm, TB__DISK_KIND__DISK_KIND_DATA))
		return 0;
	rv = folder_open(folder_path, vm->id, true, &folder);
	if (rv < 0)
		return problem_set(problem, rv, "cannot make the folder of its disks in %.100s: %s",
				   folder_path, strerror(-rv));
	rv = disks_prepare(folder, vm, images, copying, problem);
	close(folder);
	return rv;
}

/* --- opening --- */

static int data_check(int folder, const Tb__Vm *vm, unsigned number, struct problem *problem)
{
	uint64_t stored;
	int rv = incarnation_check(folder, vm, &stored, problem);

	if (rv == 0 && stored != vm->placement->incarnation)
		rv = problem_set(problem, -ESTALE,
				 "disk %u: incarnation %" PRIu64 " was never let to it", number,
				 vm->placement->incarnation);
	return rv;
}

int vm_disk_open(const char *folder_path, const Tb__Vm *vm, unsigned number, int *ret_fd,
		 struct problem *problem)
{
	char name[64];
	int folder;
	int fd;
	int rv = folder_open(folder_path, vm->id, false, &folder);

	if (rv < 0)
		return problem_set(problem, rv, "disk %u: its folder is gone: %s", number,
				   strerror(-rv));
	disk_name(vm, number, name);
	if (vm->config->disks[number]->kind == TB__DISK_KIND__DISK_KIND_DATA)
		rv = data_check(folder, vm, number, problem);
	if (rv == 0) {
		fd = openat(folder, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0)
			rv = problem_set(problem, -errno, "disk %u: cannot open its file: %s",
					 number, strerror(errno));
		else
			*ret_fd = fd;
	}
	close(folder);
	return rv;
}

bool vm_disk_made(const char *folder_path, const Tb__Vm *vm, unsigned number)
{
	char name[64];
	int folder;
	bool made;

	if (folder_open(folder_path, vm->id, false, &folder) < 0)
		return false;
	disk_name(vm, number, name);
	made = faccessat(folder, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
	close(folder);
	return made;
}

/* --- the end --- */

static void folder_remove(const char *folder_path, uint64_t vm)
{
	char path[512];

	folder_name(folder_path, vm, path);
	(void)rmdir(path); /* stays while a data disk is in it */
}

void vm_disk_discard(const char *folder_path, uint64_t vm)
{
	int folder;

	if (folder_open(folder_path, vm, false, &folder) < 0)
		return;
	folder_sweep(folder, is_of_overlay, 0);
	close(folder);
	folder_remove(folder_path, vm);
}

void vm_disk_delete(const char *folder_path, uint64_t vm)
{
	int folder;

	if (folder_open(folder_path, vm, false, &folder) < 0)
		return;
	folder_sweep(folder, is_any, 0);
	close(folder);
	folder_remove(folder_path, vm);
}

unsigned vm_disk_list(const char *folder_path, uint64_t *ids, unsigned max)
{
	DIR *dir = opendir(folder_path);
	const struct dirent *entry;
	unsigned count = 0;

	if (dir == NULL)
		return 0;
	while (count < max && (entry = readdir(dir)) != NULL)
		if (text_to_u64(entry->d_name, 1, UINT64_MAX, &ids[count]) == 0)
			count++;
	closedir(dir);
	return count;
}
