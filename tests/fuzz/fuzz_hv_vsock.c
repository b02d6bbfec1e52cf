/* The socket device of a guest whose driver does what the bytes say (hv_device.h), with a kernel
 * that is played here and does as they say.
 *
 *   event  0 the connections are of a former life     2 the kernel took and used so many chains
 *          1 the kernel complains of a ring           3 the next command fails */
#include <errno.h>
#include <linux/vhost.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hv/virtio/vsock.h"
#include "tests/fuzz/hv_device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int fd = -1;
static struct vsock *vsock;
static struct loop *loop;
static bool running, fails;
static unsigned base[2];
static int error_fd = -1;

static int command(unsigned long request, void *arg)
{
	struct vhost_vring_state *state = arg;

	switch (request) {
	case VHOST_GET_FEATURES:
		*(uint64_t *)arg = UINT64_MAX;
		return 0;
	case VHOST_SET_VRING_BASE:
		hv_fuzz_must(state->index < 2 && !running);
		base[state->index] = state->num;
		return 0;
	case VHOST_GET_VRING_BASE:
		hv_fuzz_must(state->index < 2 && !running);
		state->num = base[state->index];
		return 0;
	case VHOST_SET_VRING_ERR:
		error_fd = ((struct vhost_vring_file *)arg)->fd;
		return 0;
	case VHOST_VSOCK_SET_RUNNING:
		hv_fuzz_must(running != (*(int *)arg != 0));
		running = *(int *)arg;
		return 0;
	default:
		return 0;
	}
}

int ioctl(int on, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (on != fd) {
		return (int)syscall(SYS_ioctl, on, request, arg);
	}
	if (fails) {
		fails = false;
		if (request != VHOST_VSOCK_SET_RUNNING || *(int *)arg != 0) {
			errno = EFAULT;
			return -1;
		}
	}
	return command(request, arg);
}

static struct virtio *make(const struct ram *ram, struct loop *with)
{
	struct vsock_config config = {.cid = 3};
	struct fault fault = {0};

	loop = with;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	config.fd = fd;
	return vsock_create(&config, ram, loop, "vsock", &vsock, &fault) == 0 ? vsock_virtio(vsock)
									      : NULL;
}

static void event(uint8_t what, const uint8_t *data, size_t len)
{
	uint64_t one = 1;

	switch (what % 4) {
	case 0:
		vsock_reset_event(vsock);
		break;
	case 1:
		if (error_fd >= 0) {
			(void)!write(error_fd, &one, sizeof(one));
		}
		break;
	case 2:
		base[what / 4 % 2] += len > 0 ? data[0] : 1;
		break;
	default:
		fails = true;
		break;
	}
	hv_fuzz_turn(loop);
}

static void check(void)
{
	hv_fuzz_turn(loop);
	/* The kernel has the rings while a driver runs and at no other time. */
	hv_fuzz_must(running || !vsock_virtio(vsock)->active);
}

static const struct hv_fuzz_device device = {.make = make, .event = event, .check = check};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fails = false;
	return hv_fuzz_run(&device, data, size);
}
