/* blk_disk.c: is what we were given a disk, and what are its units? Before anything runs. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/virtio/blk_host.h"

enum { SECTOR = 512, FILE_BLOCK = 4096 };

static int check_access(const struct blk_config *c, const char *name, struct fault *f)
{
	int flags = fcntl(c->fd, F_GETFL), mode = flags & O_ACCMODE;

	if (flags < 0) {
		return fault_set(f, -errno, "%s: the disk's descriptor is not open", name);
	}
	if (mode == O_WRONLY) {
		return fault_set(f, -EACCES, "%s: the disk is not open for reading", name);
	}
	if (mode == O_RDONLY && !c->read_only) {
		return fault_set(f, -EACCES,
				 "%s: the disk is not open for writing: open it so, or make it "
				 "readOnly",
				 name);
	}
	return 0;
}

static int measure(int fd, const char *name, struct blk_disk *disk, struct fault *f)
{
	struct stat st;
	int sector = SECTOR;

	if (fstat(fd, &st) < 0) {
		return fault_set(f, -errno, "%s: cannot look at the disk: %s", name,
				 strerror(errno));
	}
	disk->file = S_ISREG(st.st_mode);
	disk->size = (uint64_t)st.st_size;
	if (!disk->file && !S_ISBLK(st.st_mode)) {
		return fault_set(f, -EINVAL, "%s: the disk is neither a file nor a block device",
				 name);
	}
	if (!disk->file &&
	    (ioctl(fd, BLKGETSIZE64, &disk->size) < 0 || ioctl(fd, BLKSSZGET, &sector) < 0)) {
		return fault_set(f, -errno, "%s: cannot learn the device's size: %s", name,
				 strerror(errno));
	}
	disk->sector = (uint32_t)sector;
	disk->block = disk->file ? FILE_BLOCK : disk->sector;
	return 0;
}

static int check_size(const struct blk_disk *disk, const char *name, struct fault *f)
{
	if (disk->size == 0) {
		return fault_set(f, -EINVAL, "%s: the disk is empty (0 bytes): give it a size",
				 name);
	}
	if (disk->size % SECTOR != 0) {
		return fault_set(f, -EINVAL,
				 "%s: the disk has %llu bytes, no multiple of 512: enlarge it, "
				 "e.g. by truncate -s %%512 FILE",
				 name, (unsigned long long)disk->size);
	}
	return 0;
}

/* O_DIRECT in the units that we promise the guest: some file systems want larger ones. */
static int go_direct(int fd, const struct blk_disk *disk, const char *name, struct fault *f)
{
	int flags = fcntl(fd, F_GETFL);
	void *buffer;
	ssize_t got;

	if (fcntl(fd, F_SETFL, flags | O_DIRECT) < 0) {
		return fault_set(f, -EINVAL,
				 "%s: no direct access to this disk (%s): leave out \"direct\"",
				 name, strerror(errno));
	}
	buffer = aligned_alloc(FILE_BLOCK, FILE_BLOCK);
	got = buffer == NULL ? -1
			     : pread(fd, buffer, disk->sector, (off_t)(disk->size - disk->sector));
	free(buffer);
	if (got != (ssize_t)disk->sector) {
		return fault_set(
			f, -EINVAL,
			"%s: no direct access to this disk in units of %u bytes: leave out "
			"\"direct\"",
			name, (unsigned)disk->sector);
	}
	return 0;
}

int blk_disk_examine(const struct blk_config *c, const char *name, struct blk_disk *ret,
		     struct fault *f)
{
	struct blk_disk disk = {0};
	int rv = check_access(c, name, f);

	rv = rv < 0 ? rv : measure(c->fd, name, &disk, f);
	rv = rv < 0 ? rv : check_size(&disk, name, f);
	if (rv == 0 && c->direct) {
		rv = go_direct(c->fd, &disk, name, f);
	}
	if (rv == 0) {
		*ret = disk;
	}
	return rv;
}
