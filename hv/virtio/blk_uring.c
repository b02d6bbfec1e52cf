/* blk_uring.c: the disk's host side by io_uring; the only file that names liburing.
 *
 * A ring could do what the process's system call filter forbids, so it is confined on its own:
 * before it is enabled it is restricted to the operations below on one registered file and to no
 * further registration (io_uring_register(2), IORING_REGISTER_RESTRICTIONS). */
#include "hv/virtio/blk_host.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

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
};

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

static void prepare(struct io_uring_sqe *sqe, const struct blk_io *io)
{
	switch (io->op) {
	case BLK_READ:
		if (io->count == 1) {
			io_uring_prep_read(sqe, 0, io->iov->iov_base, (unsigned)io->iov->iov_len,
					   io->offset);
		} else {
			io_uring_prep_readv(sqe, 0, io->iov, io->count, io->offset);
		}
		break;
	case BLK_WRITE:
		if (io->count == 1) {
			io_uring_prep_write(sqe, 0, io->iov->iov_base, (unsigned)io->iov->iov_len,
					    io->offset);
		} else {
			io_uring_prep_writev(sqe, 0, io->iov, io->count, io->offset);
		}
		sqe->rw_flags = io->stable ? RWF_DSYNC : 0;
		break;
	case BLK_FLUSH:
		io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
		break;
	case BLK_ALLOCATE:
		io_uring_prep_fallocate(sqe, 0, io->mode, (off_t)io->offset, (off_t)io->len);
		break;
	}
	sqe->flags = IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, (void *)(uintptr_t)io);
}

static void uring_queue(struct blk_host *h, struct blk_io *io)
{
	struct blk_uring *u = uring_of(h);
	struct io_uring_sqe *sqe;

	if (u->broken) {
		refuse(u, io);
		return;
	}
	sqe = io_uring_get_sqe(&u->ring);
	assert(sqe != NULL);
	prepare(sqe, io);
	io->next = NULL;
	*u->last = io;
	u->last = &io->next;
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
		refuse(u, io);
	}
	u->last = &u->first;
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

static void uring_close(struct blk_host *h)
{
	struct blk_uring *u = uring_of(h);

	io_uring_queue_exit(&u->ring);
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

static int confine(struct io_uring *ring, int disk, bool read_only)
{
	static const uint8_t ops[] = {
		IORING_OP_READ,	 IORING_OP_READV,  IORING_OP_FSYNC,
		IORING_OP_WRITE, IORING_OP_WRITEV, IORING_OP_FALLOCATE,
	};
	unsigned count = read_only ? 3 : sizeof(ops), n = 0, i;
	struct io_uring_restriction r[sizeof(ops) + 2] = {0};
	int rv;

	for (i = 0; i < count; i++) {
		r[n].opcode = IORING_RESTRICTION_SQE_OP;
		r[n++].sqe_op = ops[i];
	}
	r[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	r[n++].sqe_flags = IOSQE_FIXED_FILE;
	r[n].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
	r[n++].sqe_flags = IOSQE_FIXED_FILE;
	rv = io_uring_register_files(ring, &disk, 1);
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
	return rv;
}

int blk_uring_create(int disk, bool read_only, struct blk_host **ret)
{
	struct blk_uring *u = mem_zalloc(sizeof(*u));
	int rv;

	rv = set_up(&u->ring);
	if (rv < 0) {
		free(u);
		return rv;
	}
	rv = confine(&u->ring, disk, read_only);
	if (rv < 0) {
		io_uring_queue_exit(&u->ring);
		free(u);
		return rv;
	}
	u->host = (struct blk_host){.class = &uring_class, .fd = u->ring.ring_fd};
	u->last = &u->first;
	*ret = &u->host;
	return 0;
}
