#include "tests/unit/blk_double.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct blk_double *double_of(struct blk_host *h)
{
	return (struct blk_double *)(void *)h;
}

static void tell(struct blk_double *d)
{
	static const uint64_t one = 1;

	assert(write(d->host.fd, &one, sizeof(one)) == (ssize_t)sizeof(one));
}

static void queue(struct blk_host *h, struct blk_io *io)
{
	struct blk_double *d = double_of(h);

	if (d->logged < DOUBLE_LOG_MAX) {
		d->log[d->logged++] = *io;
	}
	io->next = NULL;
	*d->last = io;
	d->last = &io->next;
}

static void push(struct blk_host *h)
{
	double_of(h)->pushes++;
}

static ssize_t transfer(struct blk_double *d, const struct blk_io *io, size_t limit)
{
	ssize_t done = 0;
	unsigned i;

	for (i = 0; i < io->count && (size_t)done < limit; i++) {
		size_t left = limit - (size_t)done;
		size_t len = io->iov[i].iov_len < left ? io->iov[i].iov_len : left;
		off_t at = (off_t)io->offset + done;
		ssize_t part = io->op == BLK_READ ? pread(d->disk, io->iov[i].iov_base, len, at)
						  : pwrite(d->disk, io->iov[i].iov_base, len, at);

		if (part < 0) {
			return -errno;
		}
		done += part;
	}
	return done;
}

static int64_t perform(struct blk_double *d, const struct blk_io *io, size_t limit)
{
	switch (io->op) {
	case BLK_READ:
	case BLK_WRITE:
		return transfer(d, io, limit);
	case BLK_FLUSH:
		return fdatasync(d->disk) < 0 ? -errno : 0;
	case BLK_ALLOCATE:
		return fallocate(d->disk, io->mode, (off_t)io->offset, (off_t)io->len) < 0 ? -errno
											   : 0;
	}
	return -EINVAL;
}

static struct blk_io *take(struct blk_host *h)
{
	struct blk_double *d = double_of(h);
	struct blk_double_rule rule = {.whole = true};
	struct blk_io *io = d->hold ? NULL : d->first;

	if (io == NULL) {
		return NULL;
	}
	d->first = io->next;
	if (d->first == NULL) {
		uint64_t count;

		d->last = &d->first;
		(void)!read(d->host.fd, &count, sizeof(count));
	}
	if (d->next_rule < d->rules) {
		rule = d->script[d->next_rule++];
	}
	if (rule.whole || rule.result > 0) {
		io->result = perform(d, io, rule.whole ? SIZE_MAX : (size_t)rule.result);
	} else {
		io->result = rule.result;
	}
	return io;
}

/* Somebody waits: then it is time. */
static void wait_for(struct blk_host *h, int timeout_ms)
{
	(void)timeout_ms;
	double_of(h)->waits++;
	blk_double_release(double_of(h));
}

static void close_host(struct blk_host *h)
{
	assert(double_of(h)->first == NULL);
	double_of(h)->closed = true;
	close(h->fd);
}

static const struct blk_host_class double_class = {
	.name = "double",
	.queue = queue,
	.push = push,
	.take = take,
	.wait = wait_for,
	.close = close_host,
};

void blk_double_init(struct blk_double *d, int disk)
{
	*d = (struct blk_double){
		.host = {.class = &double_class, .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)},
		.disk = disk,
	};
	d->last = &d->first;
	assert(d->host.fd >= 0);
}

void blk_double_rule(struct blk_double *d, int64_t result)
{
	assert(d->rules < DOUBLE_SCRIPT_MAX);
	d->script[d->rules++] = (struct blk_double_rule){.result = result};
}

void blk_double_whole(struct blk_double *d)
{
	assert(d->rules < DOUBLE_SCRIPT_MAX);
	d->script[d->rules++] = (struct blk_double_rule){.whole = true};
}

void blk_double_release(struct blk_double *d)
{
	d->hold = false;
	tell(d);
}
