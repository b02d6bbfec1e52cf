#include "tests/unit/tap_double.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static struct tap_double *present;

void tap_double_open(struct tap_double *t)
{
	int pair[2], size = 1 << 20;

	assert(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
	(void)setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	(void)setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	*t = (struct tap_double){
		.tap = pair[0],
		.wire = pair[1],
		.flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
	};
	present = t;
}

void tap_double_close(struct tap_double *t)
{
	close(t->tap);
	close(t->wire);
	present = NULL;
}

int tap_double_send(struct tap_double *t, const void *frame, size_t len)
{
	return send(t->wire, frame, len, 0) == (ssize_t)len;
}

ssize_t tap_double_receive(struct tap_double *t, void *frame, size_t size)
{
	ssize_t got = recv(t->wire, frame, size, 0);

	return got < 0 ? -errno : got;
}

static int tap_ioctl(unsigned long request, void *arg)
{
	struct ifreq *r = arg;

	switch (request) {
	case TUNGETIFF:
		*r = (struct ifreq){.ifr_name = "tap7", .ifr_flags = (short)present->flags};
		return 0;
	case TUNSETVNETHDRSZ:
		present->header = *(int *)arg;
		return 0;
	case TUNSETOFFLOAD:
		present->offload = (unsigned long)(uintptr_t)arg;
		return 0;
	default:
		errno = ENOTTY;
		return -1;
	}
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (present != NULL && fd == present->tap) {
		return tap_ioctl(request, arg);
	}
	return (int)syscall(SYS_ioctl, fd, request, arg);
}

static int fails(int fd, int error)
{
	if (present == NULL || fd != present->tap || error == 0) {
		return 0;
	}
	errno = error;
	return 1;
}

ssize_t readv(int fd, const struct iovec *iov, int count)
{
	if (present != NULL && fd == present->tap) {
		present->reads++;
		present->read_buffers = count;
	}
	return fails(fd, present != NULL ? present->read_error : 0)
		       ? -1
		       : syscall(SYS_readv, fd, iov, count);
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
	return fails(fd, present != NULL ? present->write_error : 0)
		       ? -1
		       : syscall(SYS_writev, fd, iov, count);
}
