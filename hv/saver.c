#include "hv/saver.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "hv/snapshot.h"
#include "lib/mem.h"

enum { STACK_SIZE = 128 * 1024 };

/* idle --begin--> resting --the machine is paused--> wanted --the thread--> done --the loop--> idle
 */
enum saver_state { SAVER_IDLE, SAVER_RESTING, SAVER_WANTED, SAVER_DONE, SAVER_ENDING };

struct saver {
	struct machine *machine;
	saver_done done;
	void *arg;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum saver_state state; /* under the lock */
	struct saver_job job; /* the loop's while idle or done, else the thread's */
	struct fault fault; /* likewise */
	struct watch watch; /* of an eventfd, owned */
};

static void save(struct saver *s)
{
	static const uint64_t one = 1;

	s->fault = (struct fault){0};
	(void)snapshot_save(s->machine, s->job.state, s->job.memory, &s->fault);
	pthread_mutex_lock(&s->lock);
	s->state = SAVER_DONE;
	pthread_mutex_unlock(&s->lock);
	(void)!write(s->watch.fd, &one, sizeof(one));
}

static void *saver_main(void *arg)
{
	struct saver *s = arg;

	pthread_mutex_lock(&s->lock);
	while (s->state != SAVER_ENDING) {
		if (s->state != SAVER_WANTED) {
			pthread_cond_wait(&s->changed, &s->lock);
			continue;
		}
		pthread_mutex_unlock(&s->lock);
		save(s);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static void state_set(struct saver *s, enum saver_state state)
{
	pthread_mutex_lock(&s->lock);
	s->state = state;
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

static void saver_ready(struct watch *watch, uint32_t events)
{
	struct saver *s = (struct saver *)((char *)watch - offsetof(struct saver, watch));
	uint64_t count;

	(void)events;
	(void)!read(watch->fd, &count, sizeof(count));
	close(s->job.state);
	close(s->job.memory);
	state_set(s, SAVER_IDLE);
	(void)loop_add(&s->machine->loop, &s->machine->event_watch, s->machine->vcpus.event_fd,
		       EPOLLIN);
	s->done(s->arg, &s->job, &s->fault);
}

bool saver_is_busy(const struct saver *s)
{
	/* The loop alone moves it out of idle and back. */
	return __atomic_load_n(&s->state, __ATOMIC_RELAXED) != SAVER_IDLE;
}

static void rested(void *arg)
{
	state_set(arg, SAVER_WANTED);
}

void saver_begin(struct saver *s, const struct saver_job *job)
{
	struct machine *m = s->machine;

	assert(!saver_is_busy(s));
	s->job = *job;
	state_set(s, SAVER_RESTING);
	/* A reboot that the guest had asked for must not happen while its memory is read. */
	loop_remove(&m->event_watch);
	loop_unlock(&m->loop);
	machine_rest(m, rested, s);
	loop_lock(&m->loop);
}

static int thread_make(struct saver *s)
{
	pthread_attr_t attr;
	int rv;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	rv = pthread_create(&s->thread, &attr, saver_main, s);
	pthread_attr_destroy(&attr);
	return -rv;
}

static void saver_free(struct saver *s)
{
	int fd = s->watch.fd;

	loop_remove(&s->watch);
	if (fd >= 0) {
		close(fd);
	}
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
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
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	rv = rv < 0 ? rv : loop_add(&m->loop, &s->watch, fd, EPOLLIN);
	rv = rv < 0 ? rv : thread_make(s);
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
	assert(!saver_is_busy(s));
	state_set(s, SAVER_ENDING);
	pthread_join(s->thread, NULL);
	saver_free(s);
}
