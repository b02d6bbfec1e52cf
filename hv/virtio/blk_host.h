/* blk_host.h: the host's side of a disk: reads and writes that are asked for now and done later, in
 * any order. Two makers, one class: io_uring, and a thread with plain system calls.
 *
 * System calls after creation (for the sandbox): io_uring_enter, sendto, ppoll, at the end
 * io_uring_register; or in the thread preadv, pwritev2, sendto, read, write, futex, and read,
 * futex, ppoll in the loop. */
#pragma once
#include <linux/falloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "hv/virtio/blk.h"

enum { BLK_HOST_DEPTH = 64 }; /* most ios with the host at once */

/* How blocks are freed or made zeros: the modes of ALLOCATE, and there are no others. None makes a
 * file longer. */
#define BLK_MODE_PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define BLK_MODE_DISCARD (BLK_MODE_PUNCH | FALLOC_FL_NO_HIDE_STALE)
#define BLK_MODE_ZERO (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_ALLOCATE };

struct blk_io {
	enum blk_op op;
	/* Bytes of the disk; nothing for a flush. */
	uint64_t offset, len;
	/* READ, WRITE: where the bytes are in memory, `len` in all. Valid until the io is taken
	 * back. */
	const struct iovec *iov;
	unsigned count;
	bool stable; /* WRITE: done means on the disk */
	int mode; /* ALLOCATE: BLK_MODE_ */
	int64_t result; /* set when taken back: bytes moved, 0, or a negative errno */
	struct blk_io *next; /* the host's while it has the io */
};

struct blk_host;

struct blk_host_class {
	const char *name;
	/* Accepts one more io, at most BLK_HOST_DEPTH at once. Nothing needs to happen before push.
	 */
	void (*queue)(struct blk_host *h, struct blk_io *io);
	void (*push)(struct blk_host *h);
	/* One that is done, or NULL. Never waits. */
	struct blk_io *(*take)(struct blk_host *h);
	/* Until take has one or the time is over (negative: never), or without cause. Any thread.
	 */
	void (*wait)(struct blk_host *h, int timeout_ms);
	/* None is with the host any more. */
	void (*close)(struct blk_host *h);
};

struct blk_host {
	const struct blk_host_class *class;
	int fd; /* readable while take has one; owned */
};

/* What the host's file or device is. */
struct blk_disk {
	uint64_t size; /* bytes, a multiple of 512, not 0 */
	uint32_t sector; /* smallest unit that can be read or written: 512, or more on some devices
			  */
	uint32_t block; /* unit in which it is worth giving space back */
	bool file; /* else a block device */
};

/* Sets O_DIRECT if it is asked for. 0 and *ret; or as blk_create (blk.h). */
int blk_disk_examine(const struct blk_config *c, const char *name, struct blk_disk *ret,
		     struct fault *f);

/* The descriptor `disk` stays the caller's and open. -ENOSYS, -EPERM or whatever the kernel says
 * when it lets us have no ring, or none that is confined to reads and writes of this one file. On a
 * read-only disk a flush or an allocate is an error. */
int blk_uring_create(int disk, bool read_only, struct blk_host **ret);
int blk_threads_create(int disk, bool read_only, struct blk_host **ret);

/* blk_create (blk.h) on this host, which is taken over, also on failure; NULL: the best there is.
 * For tests, whose hosts fail on purpose. */
int blk_create_on(struct blk_host *host, const struct blk_config *c, const struct ram *ram,
		  struct loop *loop, const char *name, struct blk **ret, struct fault *f);
