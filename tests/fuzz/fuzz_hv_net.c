/* The network card of a guest whose driver does what the bytes say (hv_device.h), on a tap whose
 * calls are answered here.
 *
 *   event  0 a frame of these bytes, what / 8 * 4096 times longer      3 the cable, out or in
 *          1 errno of the next writes, one byte each                   4 announce
 *          2 errno of the next reads                                   others: the tap is ready */
#include <errno.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "hv/virtio/net.h"
#include "tests/fuzz/hv_device.h"

enum { FRAMES_MAX = 16, SCRIPT_MAX = 16, HEADER = 12, FRAME_MAX = HEADER + 65553 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct script {
	uint8_t error[SCRIPT_MAX];
	size_t len, next;
};

/* A frame is a byte, so often. */
struct frame {
	uint8_t byte;
	size_t len;
};

static int tap = -1;
static struct net *net;
static struct loop *loop;
static struct script reads, writes;
static struct frame frames[FRAMES_MAX];
static size_t frame_count;
static bool gone; /* the device was told that its tap is */

static int script_take(struct script *s)
{
	static const int errors[] = {0, EAGAIN, EIO, EBADFD, EINVAL, ENOBUFS};

	int error = s->next < s->len ? errors[s->error[s->next++] % 6] : 0;

	gone = gone || error == EBADFD;
	return error;
}

static void script_set(struct script *s, const uint8_t *data, size_t len)
{
	s->len = len < SCRIPT_MAX ? len : SCRIPT_MAX;
	s->next = 0;
	memcpy(s->error, data, s->len);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (fd != tap) {
		return (int)syscall(SYS_ioctl, fd, request, arg);
	}
	if (request == TUNGETIFF) {
		((struct ifreq *)arg)->ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
	}
	return 0;
}

static ssize_t frame_read(const struct iovec *iov, int count)
{
	struct frame f = frames[0];
	size_t done = 0;
	int i;

	for (i = 0; i < count && done < f.len; i++) {
		size_t part = iov[i].iov_len < f.len - done ? iov[i].iov_len : f.len - done;

		memset(iov[i].iov_base, f.byte, part);
		done += part;
	}
	/* Room for every frame, or the rest of it would be lost. */
	hv_fuzz_must(done == f.len);
	memmove(frames, frames + 1, --frame_count * sizeof(frames[0]));
	return (ssize_t)done;
}

ssize_t readv(int fd, const struct iovec *iov, int count)
{
	int error;

	if (fd != tap) {
		return syscall(SYS_readv, fd, iov, count);
	}
	error = frame_count == 0 ? EAGAIN : script_take(&reads);
	if (error != 0) {
		errno = error;
		return -1;
	}
	return frame_read(iov, count);
}

static ssize_t frame_write(const struct iovec *iov, int count)
{
	static uint8_t frame[FRAME_MAX];
	size_t len = 0;
	int i;

	for (i = 0; i < count; i++) {
		hv_fuzz_must(iov[i].iov_len <= FRAME_MAX - len);
		memcpy(frame + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	hv_fuzz_must(len >= HEADER);
	return (ssize_t)len;
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
	int error;

	if (fd != tap) {
		return syscall(SYS_writev, fd, iov, count);
	}
	error = script_take(&writes);
	if (error != 0) {
		errno = error;
		return -1;
	}
	return frame_write(iov, count);
}

static struct virtio *make(const struct ram *ram, struct loop *with)
{
	struct net_config config = {.mac = {2, 0, 0, 0, 0, 1}};
	struct fault fault = {0};

	loop = with;
	gone = false;
	tap = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	config.fd = tap;
	return net_create(&config, ram, loop, "net0", &net, &fault) == 0 ? net_virtio(net) : NULL;
}

/* Readable if there are frames, always writable. */
static void turn(void)
{
	uint64_t one = 1;

	if (frame_count > 0) {
		(void)!write(tap, &one, sizeof(one));
	}
	hv_fuzz_turn(loop);
	(void)!read(tap, &one, sizeof(one));
}

static void frame_add(uint8_t what, const uint8_t *data, size_t len)
{
	size_t whole = len + (size_t)(what / 8) * 4096;

	if (frame_count < FRAMES_MAX && whole <= FRAME_MAX) {
		frames[frame_count++] = (struct frame){.byte = len > 0 ? data[0] : 0, .len = whole};
	}
}

static void event(uint8_t what, const uint8_t *data, size_t len)
{
	switch (what % 8) {
	case 0:
		frame_add(what, data, len);
		break;
	case 1:
		script_set(&writes, data, len);
		break;
	case 2:
		script_set(&reads, data, len);
		break;
	case 3:
		net_set_link(net, len > 0);
		break;
	case 4:
		net_announce(net);
		break;
	default:
		turn();
		break;
	}
}

static void check(void)
{
	turn();
	net_set_link(net, true);
}

/* It never looks at that tap again. */
static bool worn(void)
{
	if (gone) {
		net_destroy(net);
		close(tap);
	}
	return gone;
}

static const struct hv_fuzz_device device = {
	.make = make, .event = event, .check = check, .worn = worn};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	frame_count = 0;
	reads.len = writes.len = 0;
	return hv_fuzz_run(&device, data, size);
}
