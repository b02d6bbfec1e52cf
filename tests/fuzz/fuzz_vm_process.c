/* What a witness-vm says to the daemon that started it, any bytes: a guest may have taken it over.
 * It never makes the daemon believe that it runs twice, that it powered off when it was killed, or
 * that it has ended before it was waited for; who talks nonsense is killed. There is no process:
 * the calls that start one, watch it and wait for it are this program's.
 *
 * Byte 0: how it ends (status, signal), and whether it is heard out before that.
 * Byte 1: what is asked of it before and between the pieces. Byte 2: the size of a piece.
 * The rest: what it says. */
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/frame.h"
#include "witnessd/vm_process.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* NOBODY: above every number that a process may have. */
enum { INPUT_MAX = 16 << 10, CONTROL_FD = 3, NOBODY = 0x7ffffff0, LATER_MS = 1000 };
enum { ASK_RENEW = 1, ASK_BUTTON = 2, ASK_STOP = 4, ASK_BETWEEN = 8 };
enum { END_STATUS = 3, END_BY_SIGNAL = 4, END_IN_THE_MIDDLE = 8 };

static struct {
	uv_loop_t loop;
	bool ready;
	int theirs; /* its end of the control connection */
	int gone; /* readable when it is over */
	int status;
	bool killed, waited;
	unsigned started;
	bool ended;
} f;

/* --- the process --- */

int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *files, int fd, int at)
{
	(void)files;
	if (at == CONTROL_FD)
		f.theirs = dup(fd);
	return 0;
}

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *files,
		const posix_spawnattr_t *attributes, char *const args[], char *const environment[])
{
	(void)path, (void)files, (void)attributes, (void)args, (void)environment;
	*pid = NOBODY;
	return 0;
}

int pidfd_open(pid_t pid, unsigned flags)
{
	(void)pid, (void)flags;
	f.gone = eventfd(0, EFD_CLOEXEC);
	return f.gone < 0 ? -1 : dup(f.gone);
}

static void process_end(int status)
{
	uint64_t one = 1;

	f.status = status;
	if (write(f.gone, &one, sizeof(one)) != sizeof(one))
		abort();
}

int pidfd_send_signal(int pidfd, int number, siginfo_t *info, unsigned flags)
{
	(void)pidfd, (void)info, (void)flags;
	if (number != SIGKILL || f.waited)
		abort();
	f.killed = true;
	return 0;
}

pid_t waitpid(pid_t pid, int *status, int flags)
{
	(void)flags;
	if (pid != NOBODY || f.waited)
		abort();
	f.waited = true;
	*status = f.status;
	return pid;
}

/* --- the daemon --- */

static void on_started(void *arg)
{
	(void)arg;
	if (f.ended || f.started++ > 0)
		abort();
}

static void on_no_button(void *arg, const char *why)
{
	(void)arg;
	if (f.ended || why[0] == '\0')
		abort();
}

static void on_late(void *arg, uint64_t ms)
{
	(void)arg;
	if (f.ended || ms < VM_PROCESS_LATE_MS)
		abort();
}

static void on_ended(void *arg, enum vm_process_end end, const char *why)
{
	(void)arg;
	if (f.ended || !f.waited || strlen(why) > LIMIT_MESSAGE)
		abort();
	if ((end == VM_PROCESS_REFUSED) != (f.started == 0) ||
	    (end == VM_PROCESS_OFF && (f.status != 0 || f.killed)))
		abort();
	f.ended = true;
}

static const struct vm_process_events events = {
	.started = on_started, .no_button = on_no_button, .late = on_late, .ended = on_ended};

static struct vm_process *start(void)
{
	Tb__VmSpec spec = TB__VM_SPEC__INIT;
	struct vm_process_start how = {.loop = &f.loop,
				       .program = "witness-vm",
				       .spec = &spec,
				       .deadline_ms = 1,
				       .events = &events};
	struct problem problem;
	struct vm_process *p;

	f.killed = f.waited = f.ended = false;
	f.started = 0;
	if (vm_process_start(&how, &p, &problem) != 0)
		abort();
	return p;
}

static void ask(struct vm_process *p, uint8_t what)
{
	static uint64_t until_ms;

	if (what & ASK_RENEW)
		vm_process_renew(p, until_ms += LATER_MS);
	if (what & ASK_BUTTON)
		vm_process_button(p);
	if (what & ASK_STOP)
		vm_process_stop(p);
}

/* Until the socket has taken it, or nobody listens any more. */
static void say(const uint8_t *bytes, size_t len)
{
	while (len > 0 && !f.killed) {
		ssize_t put = send(f.theirs, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (put > 0) {
			bytes += put;
			len -= (size_t)put;
		} else if (errno != EAGAIN) {
			return;
		}
		uv_run(&f.loop, UV_RUN_NOWAIT);
	}
}

/* Is there something in it that is no reply? */
static bool is_nonsense(const uint8_t *bytes, size_t len)
{
	ProtobufCMessage *message;
	const uint8_t *payload;
	size_t payload_len;
	size_t frame_len;
	int rv;

	while ((rv = frame_next(bytes, len, VM_PROCESS_REPLY_MAX, &payload, &payload_len,
				&frame_len)) > 0) {
		rv = frame_unpack(&tb__vm_reply__descriptor, payload, payload_len,
				  FRAME_MEMORY(payload_len), &message);
		if (rv < 0)
			break;
		protobuf_c_message_free_unpacked(message, NULL);
		bytes += frame_len;
		len -= frame_len;
	}
	return rv < 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vm_process *p;
	size_t piece;

	if (size < 3 || size > INPUT_MAX)
		return 0;
	if (!f.ready)
		f.ready = uv_loop_init(&f.loop) == 0;
	p = start();
	ask(p, data[1]);
	piece = data[2] == 0 ? size : data[2];
	for (size_t at = 3; at < size; at += piece) {
		say(data + at, size - at < piece ? size - at : piece);
		if ((data[1] & ASK_BETWEEN) != 0 && !f.killed)
			ask(p, data[1]);
	}
	/* Its last words are read also when its end is known already. */
	if ((data[0] & END_IN_THE_MIDDLE) == 0)
		uv_run(&f.loop, UV_RUN_NOWAIT);
	close(f.theirs);
	process_end(f.killed || (data[0] & END_BY_SIGNAL) != 0 ? SIGKILL
							       : (data[0] & END_STATUS) << 8);
	uv_run(&f.loop, UV_RUN_DEFAULT);
	if (!f.ended || f.killed != is_nonsense(data + 3, size - 3))
		abort();
	close(f.gone);
	return 0;
}
