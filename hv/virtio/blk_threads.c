/* blk_threads.c: the disk's host side by one thread and plain system calls, where there is no
 * io_uring. One io at a time; what it gives up is speed at depth. */
#include "hv/virtio/blk_host.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "hv/virtio/blk_sync.h"
#include "lib/mem.h"

enum { STACK_SIZE = 128 * 1024 };

struct list {
	struct blk_io *first, **last;
};

struct blk_threads {
	struct blk_host host;
	int disk;
	struct blk_sync sync; /* channel -1: the disk is read-only */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t asked;
	/* Under the lock. */
	struct list wanted, done;
	bool told; /* the eventfd is readable */
	bool ending;
};

static void list_init(struct list *l)
{
	l->first = NULL;
	l->last = &l->first;
}

static void list_add(struct list *l, struct blk_io *io)
{
	io->next = NULL;
	*l->last = io;
	l->last = &io->next;
}

static struct blk_io *list_take(struct list *l)
{
	struct blk_io *io = l->first;

	if (io != NULL) {
		l->first = io->next;
		if (l->first == NULL) {
			l->last = &l->first;
		}
	}
	return io;
}

static struct blk_threads *threads_of(struct blk_host *h)
{
	return (struct blk_threads *)h;
}

static int64_t perform_sync(struct blk_threads *t, const struct blk_io *io)
{
	int rv = t->sync.channel < 0 ? -EBADF : blk_sync_ask(&t->sync, io);

	return rv < 0 ? rv : blk_sync_answer(&t->sync);
}

static int64_t perform(struct blk_threads *t, const struct blk_io *io)
{
	ssize_t result = -1;

	switch (io->op) {
	case BLK_READ:
		result = preadv(t->disk, io->iov, (int)io->count, (off_t)io->offset);
		break;
	case BLK_WRITE:
		result = pwritev2(t->disk, io->iov, (int)io->count, (off_t)io->offset,
				  io->stable ? RWF_DSYNC : 0);
		break;
	case BLK_FLUSH:
	case BLK_ALLOCATE:
		return perform_sync(t, io);
	}
	return result < 0 ? -errno : result;
}

static void tell(struct blk_threads *t)
{
	static const uint64_t one = 1;

	if (!t->told) {
		t->told = true;
		(void)!write(t->host.fd, &one, sizeof(one));
	}
}

static void *worker(void *arg)
{
	struct blk_threads *t = arg;

	pthread_mutex_lock(&t->lock);
	while (!t->ending) {
		struct blk_io *io = list_take(&t->wanted);

		if (io == NULL) {
			pthread_cond_wait(&t->asked, &t->lock);
			continue;
		}
		pthread_mutex_unlock(&t->lock);
		io->result = perform(t, io);
		pthread_mutex_lock(&t->lock);
		list_add(&t->done, io);
		tell(t);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

static void threads_queue(struct blk_host *h, struct blk_io *io)
{
	struct blk_threads *t = threads_of(h);

	pthread_mutex_lock(&t->lock);
	list_add(&t->wanted, io);
	pthread_mutex_unlock(&t->lock);
}

static void threads_push(struct blk_host *h)
{
	pthread_cond_signal(&threads_of(h)->asked);
}

static struct blk_io *threads_take(struct blk_host *h)
{
	struct blk_threads *t = threads_of(h);
	struct blk_io *io;
	uint64_t count;

	pthread_mutex_lock(&t->lock);
	io = list_take(&t->done);
	if (t->told && t->done.first == NULL) {
		t->told = false;
		(void)!read(h->fd, &count, sizeof(count));
	}
	pthread_mutex_unlock(&t->lock);
	return io;
}

static void threads_wait(struct blk_host *h, int timeout_ms)
{
	struct pollfd fd = {.fd = h->fd, .events = POLLIN};

	(void)poll(&fd, 1, timeout_ms);
}

static void threads_free(struct blk_threads *t)
{
	if (t->sync.channel >= 0) {
		blk_sync_close(&t->sync);
	}
	pthread_cond_destroy(&t->asked);
	pthread_mutex_destroy(&t->lock);
	if (t->host.fd >= 0) {
		close(t->host.fd);
	}
	free(t);
}

static void threads_close(struct blk_host *h)
{
	struct blk_threads *t = threads_of(h);

	pthread_mutex_lock(&t->lock);
	t->ending = true;
	pthread_cond_signal(&t->asked);
	pthread_mutex_unlock(&t->lock);
	pthread_join(t->thread, NULL);
	threads_free(t);
}

static const struct blk_host_class threads_class = {
	.name = "threads",
	.queue = threads_queue,
	.push = threads_push,
	.take = threads_take,
	.wait = threads_wait,
	.close = threads_close,
};

/* Signals are for other threads. */
static int start(struct blk_threads *t)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int rv;

	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rv = pthread_create(&t->thread, &attr, worker, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -rv;
}

int blk_threads_create(int disk, bool read_only, struct blk_host **ret)
{
	struct blk_threads *t = mem_zalloc(sizeof(*t));
	int rv;

	t->disk = disk;
	t->sync.channel = -1;
	t->host = (struct blk_host){
		.class = &threads_class,
		.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
	};
	list_init(&t->wanted);
	list_init(&t->done);
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->asked, NULL);
	rv = t->host.fd < 0 ? -errno : 0;
	rv = rv < 0 || read_only ? rv : blk_sync_create(disk, &t->sync);
	rv = rv < 0 ? rv : start(t);
	if (rv < 0) {
		threads_free(t);
		return rv;
	}
	*ret = &t->host;
	return 0;
}
