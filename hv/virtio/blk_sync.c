#include "hv/virtio/blk_sync.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hv/virtio/blk_host.h"

enum { END_WAIT_MS = 100 };

/* What is asked. */
struct order {
	enum { ORDER_FLUSH, ORDER_ALLOCATE, ORDER_END } what;
	int mode;
	uint64_t offset, len;
};

/* The process */

/* Nothing but what serve() calls; the wrong architecture has none of these numbers. */
static void confine(void)
{
	static struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_read, 6, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 5, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fdatasync, 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fallocate, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_close, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	static const struct sock_fprog program = {
		.len = sizeof(code) / sizeof(code[0]),
		.filter = code,
	};

	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	/* A kernel without filters has none for the VM either, whose sandbox then says so. */
	(void)prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* The orders come from a process that a guest may have taken over: what is not a disk's is not
 * done, above all no block behind its end, which would fill the host's file system. */
static bool is_allowed(const struct order *o, uint64_t size)
{
	return o->what == ORDER_FLUSH ||
	       (o->what == ORDER_ALLOCATE && o->offset <= size && o->len <= size - o->offset &&
		(o->mode == BLK_MODE_DISCARD || o->mode == BLK_MODE_PUNCH ||
		 o->mode == BLK_MODE_ZERO));
}

static int64_t obey(int disk, uint64_t size, const struct order *o)
{
	int rv;

	if (!is_allowed(o, size)) {
		return -EPERM;
	}
	rv = o->what == ORDER_FLUSH ? fdatasync(disk)
				    : fallocate(disk, o->mode, (off_t)o->offset, (off_t)o->len);

	return rv < 0 ? -errno : 0;
}

/* A device has an end of its own. */
static uint64_t disk_size(int disk)
{
	struct stat st;

	if (fstat(disk, &st) < 0) {
		return 0;
	}
	return S_ISREG(st.st_mode) ? (uint64_t)st.st_size : UINT64_MAX;
}

/* As sandbox_seal does for the VM's process, which comes too late for this one. A limit that is
 * lower already is as good. */
static void limit(uint64_t size)
{
	const struct rlimit files = {.rlim_cur = size, .rlim_max = size}, none = {0};

	(void)setrlimit(RLIMIT_FSIZE, &files);
	(void)setrlimit(RLIMIT_CORE, &none);
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* All descriptors but these two. */
static void keep(int a, int b)
{
	unsigned low = (unsigned)(a < b ? a : b), high = (unsigned)(a < b ? b : a);

	if (low > 0) {
		(void)close_range(0, low - 1, 0);
	}
	if (high > low + 1) {
		(void)close_range(low + 1, high - 1, 0);
	}
	(void)close_range(high + 1, ~0U, 0);
}

static _Noreturn void serve(int disk, int channel)
{
	uint64_t size = disk_size(disk);
	struct order order;
	int64_t result;

	(void)prctl(PR_SET_NAME, BLK_SYNC_NAME, 0, 0, 0);
	keep(disk, channel);
	limit(size);
	confine();
	/* The VM's end is the channel's. */
	while (read(channel, &order, sizeof(order)) == (ssize_t)sizeof(order) &&
	       order.what != ORDER_END) {
		result = obey(disk, size, &order);
		if (write(channel, &result, sizeof(result)) != (ssize_t)sizeof(result)) {
			break;
		}
	}
	/* First: who sees the channel closed may take the disk away (blk_sync_close). */
	close(disk);
	_exit(0);
}

/* The VM's side */

/* The signals of the VM, a terminal's among them, are not the copy's. */
static pid_t fork_silent(void)
{
	sigset_t all, old;
	pid_t process;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	process = fork();
	if (process != 0) {
		sigprocmask(SIG_SETMASK, &old, NULL);
	}
	return process;
}

int blk_sync_create(int disk, struct blk_sync *ret)
{
	int pair[2];
	pid_t process;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		return -errno;
	}
	process = fork_silent();
	if (process < 0) {
		int error = -errno;

		close(pair[0]);
		close(pair[1]);
		return error;
	}
	if (process == 0) {
		serve(disk, pair[1]);
	}
	close(pair[1]);
	ret->channel = pair[0];
	return 0;
}

static int order_send(const struct blk_sync *s, const struct order *order)
{
	ssize_t sent = send(s->channel, order, sizeof(*order), MSG_NOSIGNAL | MSG_DONTWAIT);

	return sent < 0 ? -errno : 0;
}

int blk_sync_ask(const struct blk_sync *s, const struct blk_io *io)
{
	const struct order order = {
		.what = io->op == BLK_FLUSH ? ORDER_FLUSH : ORDER_ALLOCATE,
		.mode = io->mode,
		.offset = io->offset,
		.len = io->len,
	};

	return s->lost ? -EIO : order_send(s, &order);
}

int64_t blk_sync_answer(struct blk_sync *s)
{
	int64_t result;

	if (read(s->channel, &result, sizeof(result)) != (ssize_t)sizeof(result)) {
		s->lost = true;
		return -EIO;
	}
	return result;
}

void blk_sync_close(struct blk_sync *s)
{
	const struct order order = {.what = ORDER_END};
	struct pollfd fd = {.fd = s->channel};

	(void)order_send(s, &order);
	/* POLLHUP: it has let go of the disk and its lock. */
	(void)poll(&fd, 1, END_WAIT_MS);
	close(s->channel);
}
