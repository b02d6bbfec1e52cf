/* blk_sync.h: flushes and discards of a disk, done by a process of its own.
 *
 * A thread that waits for a disk which does not answer cannot be killed, and with it its whole
 * process stays: its guest's memory, its tap, its number. Reads and writes need no waiting thread,
 * but a flush and a fallocate do. So they are waited for by a process that has nothing but the
 * disk, and does with it only what a disk's driver may ask for: the VM's end does not wait for it
 * (S2). It dies with the VM's process, as soon as the disk lets it; until then it keeps the disk's
 * lock, since what it waits for may still change the disk.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct blk_io;

/* By which others know the process (hv/disk_lock.c). */
#define BLK_SYNC_NAME "vm-disk-sync"

struct blk_sync {
	int channel; /* answers can be read here: an int64_t each, as blk_io.result; owned */
	/* An answer was not read in full. It may still come, and must not be taken for that to the
	 * next order: nothing is asked any more. */
	bool lost;
};

/* While there is one thread, and before a guest runs: the process is a copy of this one that lets
 * go of everything but the disk. What must not be in the copy is mapped with MADV_DONTFORK. 0 or
 * negative errno. */
int blk_sync_create(int disk, struct blk_sync *ret);
/* A FLUSH or an ALLOCATE; one at a time. -EPIPE: the process is gone; -EIO: lost. */
int blk_sync_ask(const struct blk_sync *s, const struct blk_io *io);
/* The answer, for a thread that can wait. */
int64_t blk_sync_answer(struct blk_sync *s);
/* Leaves a process that hangs behind. One that has ended is a zombie until this process ends, too:
 * the sandbox has no wait(2). */
void blk_sync_close(struct blk_sync *s);
