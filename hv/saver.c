#include "hv/saver.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "hv/snapshot.h"
#include "lib/mem.h"

struct saver {
	struct machine *machine;
	saver_done done;
	void *arg;
	bool busy; /* the loop's */
	struct saver_job job; /* the loop's, and while the vCPU's thread works that thread's */
	struct fault fault; /* likewise */
	struct watch watch; /* of an eventfd, owned: the work is done */
};

static void work(void *arg)
{
	static const uint64_t one = 1;
	struct saver *s = arg;

	s->fault = (struct fault){0};
	(void)snapshot_save(s->machine, s->job.state, s->job.memory, &s->fault);
	(void)!write(s->watch.fd, &one, sizeof(one));
}

static void saver_ready(struct watch *watch, uint32_t events)
{
	struct saver *s = (struct saver *)((char *)watch - offsetof(struct saver, watch));
	uint64_t count;

	(void)events;
	(void)!read(watch->fd, &count, sizeof(count));
	close(s->job.state);
	close(s->job.memory);
	s->busy = false;
	(void)loop_add(&s->machine->loop, &s->machine->event_watch, s->machine->vcpus.event_fd,
		       EPOLLIN);
	s->done(s->arg, &s->job, &s->fault);
}

bool saver_is_busy(const struct saver *s)
{
	return s->busy;
}

static void rested(void *arg)
{
	struct saver *s = arg;

	vcpus_work(&s->machine->vcpus, work, s);
}

void saver_begin(struct saver *s, const struct saver_job *job)
{
	struct machine *m = s->machine;

	assert(!s->busy);
	s->job = *job;
	s->busy = true;
	/* A reboot that the guest had asked for must not happen while its memory is read. */
	loop_remove(&m->event_watch);
	loop_unlock(&m->loop);
	machine_rest(m, rested, s);
	loop_lock(&m->loop);
}

static void saver_free(struct saver *s)
{
	int fd = s->watch.fd;

	loop_remove(&s->watch);
	if (fd >= 0) {
		close(fd);
	}
	free(s);
}

int saver_create(struct machine *m, saver_done done, void *arg, struct saver **ret)
{
	struct saver *s = mem_zalloc(sizeof(*s));
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int rv = fd < 0 ? -errno : 0;

	s->machine = m;
	s->done = done;
	s->arg = arg;
	s->watch = (struct watch){.fd = fd, .ready = saver_ready};
	rv = rv < 0 ? rv : loop_add(&m->loop, &s->watch, fd, EPOLLIN);
	if (rv < 0) {
		saver_free(s);
		return rv;
	}
	*ret = s;
	return 0;
}

void saver_destroy(struct saver *s)
{
	if (s == NULL) {
		return;
	}
	assert(!s->busy);
	saver_free(s);
}
