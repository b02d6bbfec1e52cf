#include "witnessd/vm_process.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/mem.h"
#include "proto/frame.h"

/* TURN: reads in one turn of the loop, which is that of the other VMs' renewals too. */
enum { CONTROL_FD = 3, QUEUE_MAX = 64 << 10, TURN = 16, WARM_PIECE = 64 << 10 };

struct vm_process {
	const struct vm_process_events *events;
	void *arg;
	pid_t pid;
	int pidfd; /* readable when it is gone */
	int control; /* our end of its descriptor 3; -1: closed */
	uv_poll_t exit, talk;
	unsigned open_handles;
	bool started; /* it has said that it runs */
	bool nonsense; /* it has said what is no reply: not listened to any more */
	struct problem last; /* what it said last of its own accord */
	struct buf in, out;
	uint64_t next_id;
	uint64_t renew_ms; /* waits for the queue to be empty; 0: none */
	uint64_t lease_id, button_id; /* requests whose answers are awaited; 0: none */
	uint64_t lease_sent_ms;
	uint64_t lease_until_ms; /* what that request says */
};

pid_t vm_process_pid(const struct vm_process *p)
{
	return p->pid;
}

/* --- starting a program --- */

struct spawn {
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
};

/* Every signal as a new program has it: the daemon's threads block some and ignore SIGPIPE. A
 * session of its own, so that Ctrl-C at a daemon's terminal is not its end. */
static void spawn_init(struct spawn *s)
{
	sigset_t none, all;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_init(&s->attributes);
	posix_spawnattr_setsigmask(&s->attributes, &none);
	posix_spawnattr_setsigdefault(&s->attributes, &all);
	posix_spawnattr_setflags(&s->attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
							 POSIX_SPAWN_SETSID);
	posix_spawn_file_actions_init(&s->files);
	posix_spawn_file_actions_addopen(&s->files, 0, "/dev/null", O_RDONLY, 0);
}

/* Memory is shared with the child until exec, nothing of ours runs there: safe among threads. */
static int spawn_run(struct spawn *s, const char *program, char *const args[], pid_t *ret)
{
	const char *journal = getenv("JOURNAL_STREAM");
	char *line = mem_printf("JOURNAL_STREAM=%s", journal != NULL ? journal : "");
	char *environment[] = {journal != NULL ? line : NULL, NULL};
	int rv = -posix_spawn(ret, program, &s->files, &s->attributes, args, environment);

	posix_spawn_file_actions_destroy(&s->files);
	posix_spawnattr_destroy(&s->attributes);
	free(line);
	return rv;
}

static int vm_spawn(const char *program, int control, pid_t *ret)
{
	static char name[] = "witness-vm", form[] = "supervised";
	char *const args[] = {name, form, NULL};
	struct spawn s;

	spawn_init(&s);
	posix_spawn_file_actions_adddup2(&s.files, 2, 1);
	posix_spawn_file_actions_adddup2(&s.files, control, CONTROL_FD);
	posix_spawn_file_actions_addclosefrom_np(&s.files, CONTROL_FD + 1);
	return spawn_run(&s, program, args, ret);
}

static int wait_for(pid_t pid, int flags)
{
	int status = 0;
	pid_t got;

	do
		got = waitpid(pid, &status, flags);
	while (got < 0 && errno == EINTR);
	return got == pid ? status : -1;
}

int64_t vm_process_warm(const char *program)
{
	char *piece = mem_alloc(WARM_PIECE);
	int fd = open(program, O_RDONLY | O_CLOEXEC);
	int64_t all = fd < 0 ? -errno : 0;
	ssize_t got = 1;

	while (all >= 0 && got > 0) {
		got = read(fd, piece, WARM_PIECE);
		all = got >= 0 ? all + got : -errno;
	}
	if (fd >= 0)
		close(fd);
	free(piece);
	return all;
}

static int text_collect(int fd, unsigned timeout_ms, size_t max, struct buf *text)
{
	uint64_t end = clock_boottime_ms() + timeout_ms;

	for (;;) {
		uint64_t now = clock_boottime_ms();
		struct pollfd at = {.fd = fd, .events = POLLIN};
		ssize_t got;

		if (now >= end || poll(&at, 1, (int)(end - now)) == 0)
			return -ETIMEDOUT;
		got = read(fd, buf_reserve(text, 4096), 4096);
		if (got == 0)
			return 0;
		if (got < 0 && errno != EINTR)
			return -errno;
		text->len += got > 0 ? (size_t)got : 0;
		if (text->len > max)
			return -EMSGSIZE;
	}
}

int vm_process_ask(const char *program, char *const args[], unsigned timeout_ms, size_t max,
		   struct buf *ret_text, int *ret_status)
{
	struct spawn s;
	pid_t pid;
	int ends[2];
	int rv;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	spawn_init(&s);
	posix_spawn_file_actions_adddup2(&s.files, ends[1], 1);
	posix_spawn_file_actions_addclosefrom_np(&s.files, 3);
	rv = spawn_run(&s, program, args, &pid);
	close(ends[1]);
	if (rv == 0) {
		rv = text_collect(ends[0], timeout_ms, max, ret_text);
		if (rv < 0)
			kill(pid, SIGKILL);
		*ret_status = wait_for(pid, 0);
	}
	close(ends[0]);
	return rv;
}

/* --- the end --- */

static void handle_closed(uv_handle_t *handle)
{
	struct vm_process *p = handle->data;

	if (--p->open_handles > 0)
		return;
	close(p->pidfd);
	if (p->control >= 0)
		close(p->control);
	buf_free(&p->in);
	buf_free(&p->out);
	free(p);
}

static void why_of_signal(struct problem *why, int number)
{
	if (number == SIGKILL)
		problem_set(why, 0, "it was killed: its lease was over, or somebody ended it");
	else if (number == SIGSYS)
		problem_set(why, 0,
			    "it made a system call that its sandbox does not allow, and was ended");
	else
		problem_set(why, 0, "it was ended by signal %d (%s)", number, strsignal(number));
}

static enum vm_process_end end_of(const struct vm_process *p, int status, struct problem *why)
{
	*why = p->last;
	if (WIFSIGNALED(status) && !p->nonsense)
		why_of_signal(why, WTERMSIG(status));
	else if (why->text[0] == '\0' && WIFEXITED(status))
		problem_set(why, 0, "its process ended with status %d", WEXITSTATUS(status));
	if (!p->started)
		return VM_PROCESS_REFUSED;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 && !p->nonsense ? VM_PROCESS_OFF
									     : VM_PROCESS_FAILED;
}

static void replies_read(struct vm_process *p);

static void exit_ready(uv_poll_t *handle, int status, int events)
{
	struct vm_process *p = handle->data;
	struct problem why;
	enum vm_process_end end;

	(void)status;
	(void)events;
	replies_read(p); /* its last words */
	end = end_of(p, wait_for(p->pid, 0), &why);
	uv_close((uv_handle_t *)&p->exit, handle_closed);
	uv_close((uv_handle_t *)&p->talk, handle_closed);
	p->events->ended(p->arg, end, why.text);
}

/* --- what is said to it --- */

static void talk_poll(struct vm_process *p);

static void requests_write(struct vm_process *p)
{
	while (p->out.len > 0) {
		ssize_t put =
			send(p->control, p->out.data, p->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			break; /* full, or it is on its way out: its exit tells */
		buf_consume(&p->out, (size_t)put);
	}
}

static uint64_t request_send(struct vm_process *p, Tb__VmRequest *request)
{
	if (p->control < 0 || p->nonsense || p->out.len > QUEUE_MAX)
		return 0;
	request->id = ++p->next_id;
	frame_append(&p->out, &request->base);
	requests_write(p);
	talk_poll(p);
	return request->id;
}

/* One renewal is on its way at most: a process that does not read gets only the newest when it
 * does, and its own timer ends it if it does not. */
static void renewal_send(struct vm_process *p)
{
	Tb__VmRequest request = TB__VM_REQUEST__INIT;
	Tb__VmLease lease = TB__VM_LEASE__INIT;

	if (p->renew_ms == 0 || p->lease_id != 0 || p->out.len > 0)
		return;
	lease.until_ms = p->renew_ms;
	p->lease_until_ms = p->renew_ms;
	request.what_case = TB__VM_REQUEST__WHAT_LEASE;
	request.lease = &lease;
	p->renew_ms = 0;
	p->lease_sent_ms = clock_boottime_ms();
	p->lease_id = request_send(p, &request);
}

void vm_process_renew(struct vm_process *p, uint64_t until_ms)
{
	p->renew_ms = until_ms;
	renewal_send(p);
}

void vm_process_button(struct vm_process *p)
{
	Tb__VmRequest request = TB__VM_REQUEST__INIT;

	request.what_case = TB__VM_REQUEST__WHAT_POWER_BUTTON;
	request.power_button = true;
	p->button_id = request_send(p, &request);
}

void vm_process_stop(struct vm_process *p)
{
	Tb__VmRequest request = TB__VM_REQUEST__INIT;

	request.what_case = TB__VM_REQUEST__WHAT_STOP;
	request.stop = true;
	(void)request_send(p, &request);
}

void vm_process_kill(struct vm_process *p)
{
	(void)pidfd_send_signal(p->pidfd, SIGKILL, NULL, 0);
}

/* --- what it says --- */

static void last_words(struct vm_process *p, const Tb__VmReply *reply)
{
	problem_set(&p->last, 0, "%s", reply->error);
	if (p->started || reply->error[0] != '\0')
		return;
	p->last.text[0] = '\0';
	p->started = true;
	p->events->started(p->arg);
}

static void lease_answered(struct vm_process *p, const char *error)
{
	uint64_t took = clock_boottime_ms() - p->lease_sent_ms;

	p->lease_id = 0;
	if (error[0] == '\0' && p->events->renewed != NULL)
		p->events->renewed(p->arg, p->lease_until_ms);
	/* One that starts answers between the pieces of its kernel. */
	if (took > VM_PROCESS_LATE_MS && p->started)
		p->events->late(p->arg, took);
	renewal_send(p);
}

static void reply_take(struct vm_process *p, const Tb__VmReply *reply)
{
	if (reply->id == 0) {
		last_words(p, reply);
	} else if (reply->id == p->lease_id) {
		lease_answered(p, reply->error);
	} else if (reply->id == p->button_id) {
		p->button_id = 0;
		if (reply->error[0] != '\0')
			p->events->no_button(p->arg, reply->error);
	}
}

static void nonsense(struct vm_process *p)
{
	p->nonsense = true;
	problem_set(&p->last, 0, "its process said what is no reply, and was ended");
	vm_process_kill(p);
}

static void replies_take(struct vm_process *p)
{
	size_t used = 0;

	while (!p->nonsense) {
		const uint8_t *payload;
		size_t payload_len;
		size_t frame_len;
		ProtobufCMessage *message;
		int rv = frame_next(p->in.data + used, p->in.len - used, VM_PROCESS_REPLY_MAX,
				    &payload, &payload_len, &frame_len);

		if (rv == 0)
			break;
		if (rv > 0)
			rv = frame_unpack(&tb__vm_reply__descriptor, payload, payload_len,
					  FRAME_MEMORY(payload_len), &message);
		if (rv < 0) {
			nonsense(p);
			break;
		}
		reply_take(p, (const Tb__VmReply *)message);
		protobuf_c_message_free_unpacked(message, NULL);
		used += frame_len;
	}
	buf_consume(&p->in, used);
}

static void replies_read(struct vm_process *p)
{
	for (unsigned i = 0; i < TURN && p->control >= 0 && !p->nonsense; i++) {
		ssize_t got = recv(p->control, buf_reserve(&p->in, 4096), 4096, MSG_DONTWAIT);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (got <= 0) {
			uv_poll_stop(&p->talk);
			return;
		}
		p->in.len += (size_t)got;
		replies_take(p);
	}
}

static void talk_ready(uv_poll_t *handle, int status, int events)
{
	struct vm_process *p = handle->data;

	if (status < 0 || (events & (UV_READABLE | UV_DISCONNECT)) != 0)
		replies_read(p);
	if (uv_is_active((uv_handle_t *)&p->talk) && !p->nonsense) {
		requests_write(p);
		renewal_send(p);
		talk_poll(p);
	} else {
		uv_poll_stop(&p->talk);
	}
}

static void talk_poll(struct vm_process *p)
{
	if (!uv_is_active((uv_handle_t *)&p->talk))
		return;
	uv_poll_start(&p->talk, UV_READABLE | (p->out.len > 0 ? UV_WRITABLE : 0), talk_ready);
}

/* --- the start --- */

static int start_send(int control, const struct vm_process_start *how)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(VM_PROCESS_FDS_MAX * sizeof(int))];
	} space = {0};
	Tb__VmStart start = TB__VM_START__INIT;
	struct buf out = {0};
	struct iovec iov;
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t put;

	start.spec = (Tb__VmSpec *)(uintptr_t)how->spec;
	start.descriptors = (char **)(uintptr_t)how->names;
	start.n_descriptors = how->count;
	start.lease_until_ms = how->deadline_ms;
	start.with_parent = true;
	frame_append(&out, &start.base);
	iov = (struct iovec){.iov_base = out.data, .iov_len = out.len};
	if (how->count > 0) {
		struct cmsghdr *c;

		m.msg_control = space.bytes;
		m.msg_controllen = CMSG_SPACE(how->count * sizeof(int));
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(how->count * sizeof(int));
		memcpy(CMSG_DATA(c), how->fds, how->count * sizeof(int));
	}
	put = sendmsg(control, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	put = put < 0 ? -errno : put;
	buf_free(&out);
	/* A new socket takes a whole VmStart: one that does not is broken. */
	return put < 0 ? (int)put : (size_t)put == iov.iov_len ? 0 : -EMSGSIZE;
}

static int process_watch(struct vm_process *p, uv_loop_t *loop)
{
	int rv = uv_poll_init(loop, &p->exit, p->pidfd);

	if (rv < 0)
		return rv;
	p->exit.data = p;
	p->open_handles = 1;
	rv = uv_poll_init(loop, &p->talk, p->control);
	if (rv < 0)
		return rv;
	p->talk.data = p;
	p->open_handles = 2;
	uv_poll_start(&p->exit, UV_READABLE, exit_ready);
	uv_poll_start(&p->talk, UV_READABLE, talk_ready);
	return 0;
}

/* A process that is there but cannot be watched is ended at once. */
static int process_discard(struct vm_process *p, int error)
{
	(void)kill(p->pid, SIGKILL);
	(void)wait_for(p->pid, 0);
	if (p->open_handles > 0) {
		uv_close((uv_handle_t *)&p->exit, handle_closed);
		return error;
	}
	if (p->pidfd >= 0)
		close(p->pidfd);
	close(p->control);
	free(p);
	return error;
}

static int process_new(const struct vm_process_start *how, int control, int theirs,
		       struct vm_process **ret, struct problem *problem)
{
	struct vm_process *p = mem_zalloc(sizeof(*p));
	int rv;

	p->events = how->events;
	p->arg = how->arg;
	p->control = control;
	rv = vm_spawn(how->program, theirs, &p->pid);
	if (rv < 0) {
		close(control);
		free(p);
		return problem_set(problem, rv, "cannot start %.100s: %s", how->program,
				   strerror(-rv));
	}
	p->pidfd = pidfd_open(p->pid, 0);
	rv = p->pidfd < 0 ? -errno : process_watch(p, how->loop);
	rv = rv < 0 ? rv : start_send(control, how);
	if (rv < 0) {
		problem_set(problem, rv, "cannot watch over its process: %s", strerror(-rv));
		if (p->open_handles == 2) {
			uv_close((uv_handle_t *)&p->talk, handle_closed);
		}
		return process_discard(p, rv);
	}
	*ret = p;
	return 0;
}

int vm_process_start(const struct vm_process_start *how, struct vm_process **ret,
		     struct problem *problem)
{
	int pair[2];
	int rv;

	assert(how->count <= VM_PROCESS_FDS_MAX);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return problem_set(problem, -errno, "no socket for its process: %s",
				   strerror(errno));
	rv = process_new(how, pair[0], pair[1], ret, problem);
	close(pair[1]);
	return rv;
}
