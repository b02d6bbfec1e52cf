/* blk_uring.c: the disk's host side by io_uring; the only file that names liburing. What would make
 * a thread of the kernel wait goes to blk_sync.h, and the ring reads the answer.
 *
 * A ring could do what the process's system call filter forbids, so it is confined on its own:
 * before it is enabled it is restricted to reads and writes of two registered files, the disk and
 * the flusher's channel, and to no registration but the end of theirs (io_uring_register(2),
 * IORING_REGISTER_RESTRICTIONS). */
#include "hv/virtio/blk_host.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "hv/virtio/blk_sync.h"
#include "lib/mem.h"

/* A kernel without memory for a request says EAGAIN: asked again each millisecond, so many times.
 */
enum { PUSH_TRIES = 1000 };

struct blk_uring {
	struct blk_host host;
	struct io_uring ring;
	struct blk_io *first, **last; /* queued, not yet with the kernel, in order */
	struct blk_io *refused; /* done, but not by the kernel */
	bool broken; /* the kernel takes nothing from this ring any more */
	struct blk_sync sync; /* channel -1: the disk is read-only */
	struct blk_io *syncing; /* `sync` is at it */
	struct blk_io *waiting, **waiting_last; /* for sync, in order */
	int64_t answer; /* of sync */
};

/* Registered files. */
enum { FILE_DISK, FILE_SYNC };

static struct blk_uring *uring_of(struct blk_host *h)
{
	return (struct blk_uring *)h;
}

static void refuse(struct blk_uring *u, struct blk_io *io)
{
	io->result = -EIO;
	io->next = u->refused;
	u->refused = io;
}

static bool is_sync(const struct blk_io *io)
{
	return io->op == BLK_FLUSH || io->op == BLK_ALLOCATE;
}

static void prepare(struct blk_uring *u, struct io_uring_sqe *sqe, const struct blk_io *io)
{
	const struct iovec *iov = io->iov;

	if (is_sync(io)) {
		io_uring_prep_read(sqe, FILE_SYNC, &u->answer, sizeof(u->answer), 0);
	} else if (io->op == BLK_READ && io->count == 1) {
		io_uring_prep_read(sqe, FILE_DISK, iov->iov_base, (unsigned)iov->iov_len,
				   io->offset);
	} else if (io->op == BLK_READ) {
		io_uring_prep_readv(sqe, FILE_DISK, iov, io->count, io->offset);
	} else if (io->count == 1) {
		io_uring_prep_write(sqe, FILE_DISK, iov->iov_base, (unsigned)iov->iov_len,
				    io->offset);
	} else {
		io_uring_prep_writev(sqe, FILE_DISK, iov, io->count, io->offset);
	}
	if (io->op == BLK_WRITE && io->stable) {
		sqe->rw_flags = RWF_DSYNC;
	}
	sqe->flags = IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, (void *)(uintptr_t)io);
}

static void enqueue(struct blk_uring *u, struct blk_io *io)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

	assert(sqe != NULL);
	prepare(u, sqe, io);
	io->next = NULL;
	*u->last = io;
	u->last = &io->next;
}

/* The next one that waits for sync, if it is free. */
static void sync_next(struct blk_uring *u)
{
	while (u->syncing == NULL && u->waiting != NULL) {
		struct blk_io *io = u->waiting;

		u->waiting = io->next;
		if (u->waiting == NULL) {
			u->waiting_last = &u->waiting;
		}
		if (u->broken || u->sync.channel < 0 || blk_sync_ask(&u->sync, io) < 0) {
			refuse(u, io);
		} else {
			u->syncing = io;
			enqueue(u, io);
		}
	}
}

static void uring_queue(struct blk_host *h, struct blk_io *io)
{
	struct blk_uring *u = uring_of(h);

	if (u->broken) {
		refuse(u, io);
	} else if (is_sync(io)) {
		io->next = NULL;
		*u->waiting_last = io;
		u->waiting_last = &io->next;
		sync_next(u);
	} else {
		enqueue(u, io);
	}
}

static void forget(struct blk_uring *u, int count)
{
	while (count-- > 0) {
		u->first = u->first->next;
	}
	if (u->first == NULL) {
		u->last = &u->first;
	}
}

/* Their entries stay in the ring with pointers of this life: it is never entered again. */
static void give_up(struct blk_uring *u)
{
	u->broken = true;
	while (u->first != NULL) {
		struct blk_io *io = u->first;

		u->first = io->next;
		if (io == u->syncing) {
			u->syncing = NULL;
		}
		refuse(u, io);
	}
	u->last = &u->first;
	sync_next(u);
}

static bool passes(int error)
{
	return error == -EAGAIN || error == -EBUSY || error == -ENOMEM || error == -EINTR;
}

static void uring_push(struct blk_host *h)
{
	static const struct timespec pause = {.tv_nsec = 1000000};
	struct blk_uring *u = uring_of(h);
	int tries = 0;

	while (u->first != NULL) {
		int taken = io_uring_submit(&u->ring);

		if (taken > 0) {
			forget(u, taken);
		} else if (taken < 0 && !passes(taken)) {
			give_up(u);
		} else if (++tries == PUSH_TRIES) {
			give_up(u);
		} else {
			(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
		}
	}
}

/* What sync said; it is free for the next. */
static void sync_done(struct blk_uring *u, struct blk_io *io)
{
	bool whole = io->result == (int64_t)sizeof(u->answer);

	io->result = whole ? u->answer : -EIO;
	u->sync.lost = u->sync.lost || !whole;
	u->syncing = NULL;
	sync_next(u);
	uring_push(&u->host);
}

static struct blk_io *uring_take(struct blk_host *h)
{
	struct blk_uring *u = uring_of(h);
	struct io_uring_cqe *cqe;
	struct blk_io *io = u->refused;

	if (io != NULL) {
		u->refused = io->next;
		return io;
	}
	if (io_uring_peek_cqe(&u->ring, &cqe) != 0) {
		return NULL;
	}
	io = io_uring_cqe_get_data(cqe);
	io->result = cqe->res;
	io_uring_cqe_seen(&u->ring, cqe);
	if (io == u->syncing) {
		sync_done(u, io);
	}
	return io;
}

/* By poll and not by io_uring_enter: any thread may wait, and its system calls stay few. */
static void uring_wait(struct blk_host *h, int timeout_ms)
{
	struct blk_uring *u = uring_of(h);
	struct pollfd fd = {.fd = h->fd, .events = POLLIN};

	if (u->refused == NULL) {
		(void)poll(&fd, 1, timeout_ms);
	}
}

static void sync_close(struct blk_uring *u)
{
	if (u->sync.channel >= 0) {
		blk_sync_close(&u->sync);
	}
}

static void uring_close(struct blk_host *h)
{
	struct blk_uring *u = uring_of(h);

	/* The kernel takes a ring apart in its own time, tens of milliseconds after its process has
	 * ended (io_ring_exit_work); until then whatever is registered stays open, and the disk's
	 * file system busy. This lets go of it now. */
	(void)io_uring_unregister_files(&u->ring);
	io_uring_queue_exit(&u->ring);
	sync_close(u);
	free(u);
}

static const struct blk_host_class uring_class = {
	.name = "io_uring",
	.queue = uring_queue,
	.push = uring_push,
	.take = uring_take,
	.wait = uring_wait,
	.close = uring_close,
};

static int confine(struct io_uring *ring, const int *files, bool read_only)
{
	static const uint8_t ops[] = {
		IORING_OP_READ,
		IORING_OP_READV,
		IORING_OP_WRITE,
		IORING_OP_WRITEV,
	};
	unsigned count = read_only ? 2 : sizeof(ops), n = 0, i;
	struct io_uring_restriction r[sizeof(ops) + 3] = {0};
	int rv;

	for (i = 0; i < count; i++) {
		r[n].opcode = IORING_RESTRICTION_SQE_OP;
		r[n++].sqe_op = ops[i];
	}
	r[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	r[n++].sqe_flags = IOSQE_FIXED_FILE;
	r[n].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
	r[n++].sqe_flags = IOSQE_FIXED_FILE;
	r[n].opcode = IORING_RESTRICTION_REGISTER_OP;
	r[n++].register_op = IORING_UNREGISTER_FILES;
	rv = io_uring_register_files(ring, files, files[FILE_SYNC] < 0 ? 1 : 2);
	rv = rv < 0 ? rv : io_uring_register_restrictions(ring, r, n);
	return rv < 0 ? rv : io_uring_enable_rings(ring);
}

/* Without an interrupt of this thread for each completion, where the kernel (5.19) can. */
static int set_up(struct io_uring *ring)
{
	struct io_uring_params p = {.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN};
	int rv = io_uring_queue_init_params(BLK_HOST_DEPTH, ring, &p);

	if (rv == -EINVAL) {
		p = (struct io_uring_params){.flags = IORING_SETUP_R_DISABLED};
		rv = io_uring_queue_init_params(BLK_HOST_DEPTH, ring, &p);
	}
	/* The flusher of another disk would keep this one's lock with it. */
	return rv < 0 ? rv : io_uring_ring_dontfork(ring);
}

/* The copy of this process is made before there is a ring that it could have part in. */
static int make(struct blk_uring *u, int disk, bool read_only)
{
	int files[] = {[FILE_DISK] = disk, [FILE_SYNC] = -1};
	int rv = read_only ? 0 : blk_sync_create(disk, &u->sync);

	if (rv < 0) {
		return rv;
	}
	rv = set_up(&u->ring);
	if (rv < 0) {
		return rv;
	}
	files[FILE_SYNC] = u->sync.channel;
	rv = confine(&u->ring, files, read_only);
	if (rv < 0) {
		io_uring_queue_exit(&u->ring);
	}
	return rv;
}

int blk_uring_create(int disk, bool read_only, struct blk_host **ret)
{
	struct blk_uring *u = mem_zalloc(sizeof(*u));
	int rv;

	u->sync.channel = -1;
	u->last = &u->first;
	u->waiting_last = &u->waiting;
	rv = make(u, disk, read_only);
	if (rv < 0) {
		sync_close(u);
		free(u);
		return rv;
	}
	u->host = (struct blk_host){.class = &uring_class, .fd = u->ring.ring_fd};
	*ret = &u->host;
	return 0;
}
