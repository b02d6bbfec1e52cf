/* The socket device between a driver and a kernel that is played here: what the kernel is told and
 * in which order, that it has the rings exactly while the driver runs, and the event of a new life.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/vhost.h>
#include <linux/virtio_vsock.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hv/layout.h"
#include "hv/virtio/vsock.h"
#include "lib/log.h"
#include "tests/unit/hv_driver.h"

#define ALL (~UINT64_C(0))

enum { FD = 1000, EVENT = 2 };

/* vhost-vsock as the device sees it. */
struct kernel {
	bool owned, running;
	uint64_t features, cid;
	unsigned long fails; /* this request, with `error` */
	int error;
	struct vhost_memory_region memory;
	struct vhost_vring_addr addr[2];
	unsigned num[2], base[2];
	int kick[2], call[2], err[2];
	unsigned starts, stops;
};

static struct kernel kernel;

static int answer(int error)
{
	errno = error;
	return error == 0 ? 0 : -1;
}

static int kernel_start(int on)
{
	unsigned i;

	if (on) {
		for (i = 0; i < 2; i++) {
			if (kernel.num[i] == 0 || kernel.addr[i].desc_user_addr == 0) {
				return answer(EFAULT);
			}
		}
		kernel.starts++;
	} else {
		kernel.stops++;
	}
	kernel.running = on;
	return 0;
}

static int kernel_ioctl(unsigned long request, void *arg)
{
	const struct vhost_vring_state *state = arg;
	const struct vhost_vring_file *file = arg;

	if (request == kernel.fails) {
		return answer(kernel.error);
	}
	/* The real one refuses these while it runs, and everything but the first two to strangers.
	 */
	switch (request) {
	case VHOST_GET_FEATURES:
		*(uint64_t *)arg =
			UINT64_C(0x130000000) | 1u << VIRTIO_VSOCK_F_SEQPACKET | 1u << 26;
		return 0;
	case VHOST_SET_OWNER:
		kernel.owned = true;
		return 0;
	case VHOST_VSOCK_SET_GUEST_CID:
		kernel.cid = *(uint64_t *)arg;
		return 0;
	default:
		break;
	}
	if (!kernel.owned) {
		return answer(EPERM);
	}
	switch (request) {
	case VHOST_SET_FEATURES:
		kernel.features = *(uint64_t *)arg;
		return 0;
	case VHOST_SET_MEM_TABLE:
		assert_int_equal(((struct vhost_memory *)arg)->nregions, 1);
		kernel.memory = ((struct vhost_memory *)arg)->regions[0];
		return 0;
	case VHOST_SET_VRING_NUM:
		kernel.num[state->index] = state->num;
		return answer(kernel.running ? EBUSY : 0);
	case VHOST_SET_VRING_BASE:
		kernel.base[state->index] = state->num;
		return answer(kernel.running ? EBUSY : 0);
	case VHOST_GET_VRING_BASE:
		((struct vhost_vring_state *)arg)->num = kernel.base[state->index];
		return 0;
	case VHOST_SET_VRING_ADDR:
		kernel.addr[((struct vhost_vring_addr *)arg)->index] =
			*(struct vhost_vring_addr *)arg;
		return 0;
	case VHOST_SET_VRING_KICK:
		kernel.kick[file->index] = file->fd;
		return 0;
	case VHOST_SET_VRING_CALL:
		kernel.call[file->index] = file->fd;
		return 0;
	case VHOST_SET_VRING_ERR:
		kernel.err[file->index] = file->fd;
		return 0;
	case VHOST_VSOCK_SET_RUNNING:
		return kernel_start(*(int *)arg);
	default:
		return answer(ENOTTY);
	}
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	return fd == FD ? kernel_ioctl(request, arg) : (int)syscall(SYS_ioctl, fd, request, arg);
}

struct world {
	struct hv_driver d;
	struct vsock *s;
	struct virtio *v;
};

static struct world *world_open(void)
{
	static struct world w;
	struct vsock_config config = {.fd = FD, .cid = 42};
	struct fault fault = {0};

	memset(&w, 0, sizeof(w));
	memset(&kernel, 0, sizeof(kernel));
	hv_driver_open(&w.d, 1 << 20);
	assert_int_equal(vsock_create(&config, &w.d.ram, &w.d.loop, "vsock", &w.s, &fault), 0);
	w.v = vsock_virtio(w.s);
	hv_driver_attach(&w.d, w.v);
	return &w;
}

static void world_close(struct world *w)
{
	hv_driver_reset(&w->d);
	assert_false(kernel.running);
	vsock_destroy(w->s);
	hv_driver_close(&w->d);
}

/* What is ready now is called. */
static void loop_turn(struct world *w)
{
	struct epoll_event events[16];
	int count = epoll_wait(w->d.loop.epoll, events, 16, 0), i;

	for (i = 0; i < count; i++) {
		struct watch *watch = events[i].data.ptr;

		if (watch != NULL) {
			watch->ready(watch, events[i].events);
		}
	}
}

static void test_create(void **state)
{
	static const struct {
		unsigned long fails;
		int error;
		const char *says;
	} cases[] = {
		{VHOST_SET_OWNER, EBUSY, "in use by another VM"},
		{VHOST_SET_OWNER, ENOTTY, "not /dev/vhost-vsock"},
		{VHOST_VSOCK_SET_GUEST_CID, EADDRINUSE, "another VM of this board has cid 42"},
		{VHOST_VSOCK_SET_GUEST_CID, EINVAL, "refuses cid 42"},
		{VHOST_SET_MEM_TABLE, ENOMEM, "42"},
	};
	struct vsock_config config = {.fd = FD, .cid = 42};
	struct fault fault;
	struct hv_driver d;
	struct vsock *s = NULL;
	unsigned i;

	(void)state;
	hv_driver_open(&d, 1 << 20);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		memset(&kernel, 0, sizeof(kernel));
		kernel.fails = cases[i].fails;
		kernel.error = cases[i].error;
		fault.text[0] = '\0';
		assert_int_equal(vsock_create(&config, &d.ram, &d.loop, "vsock", &s, &fault),
				 -cases[i].error);
		print_message("%s\n", fault.text);
		assert_non_null(strstr(fault.text, cases[i].says));
		assert_null(s);
	}
	hv_driver_close(&d);
}

static void test_kernel_gets_the_rings(void **state)
{
	struct world *w = world_open();
	unsigned i;

	(void)state;
	assert_int_equal(hv_driver_config(&w->d, 0, 8), 42);
	assert_int_equal(kernel.cid, 42);
	assert_int_equal(kernel.memory.guest_phys_addr, LAYOUT_RAM);
	assert_int_equal(kernel.memory.memory_size, w->d.ram.size);
	assert_true(kernel.memory.userspace_addr == (uintptr_t)w->d.ram.host);
	assert_false(kernel.running);
	hv_driver_start(&w->d, ALL);
	assert_true(kernel.running);
	assert_int_equal(kernel.features, w->d.features);
	assert_int_equal(kernel.features & (UINT64_C(1) << 26), 0);
	assert_true(kernel.features & 1u << VIRTIO_VSOCK_F_SEQPACKET);
	for (i = 0; i < 2; i++) {
		assert_int_equal(kernel.num[i], 128);
		assert_int_equal(kernel.base[i], 0);
		assert_int_equal(kernel.kick[i], w->v->kick_fd[i]);
		assert_int_equal(kernel.call[i], w->v->irq_fd);
		assert_true(kernel.addr[i].desc_user_addr ==
			    (uintptr_t)hv_driver_at(&w->d, w->d.ring[i].desc));
		assert_true(kernel.addr[i].avail_user_addr ==
			    (uintptr_t)hv_driver_at(&w->d, w->d.ring[i].avail));
		assert_true(kernel.addr[i].used_user_addr ==
			    (uintptr_t)hv_driver_at(&w->d, w->d.ring[i].used));
	}
	hv_driver_write(&w->d, 0x70, 0);
	assert_false(kernel.running);
	hv_driver_reset(&w->d);
	hv_driver_start(&w->d, ALL);
	assert_int_equal(kernel.starts, 2);
	world_close(w);
}

static void test_pause_takes_the_rings_back(void **state)
{
	struct world *w = world_open();
	uint16_t used = 7;

	(void)state;
	hv_driver_start(&w->d, ALL);
	/* The kernel worked. */
	kernel.base[0] = 9;
	kernel.base[1] = 65535;
	memcpy(hv_driver_at(&w->d, w->d.ring[0].used + 2), &used, 2);
	virtio_pause(w->v);
	assert_false(kernel.running);
	assert_int_equal(w->v->queue[0].next_avail, 9);
	assert_int_equal(w->v->queue[0].next_used, 7);
	assert_int_equal(w->v->queue[1].next_avail, 65535);
	kernel.base[0] = kernel.base[1] = 0;
	virtio_resume(w->v);
	assert_true(kernel.running);
	assert_int_equal(kernel.base[0], 9);
	assert_int_equal(kernel.base[1], 65535);
	world_close(w);
}

/* From a snapshot: the rings go to the kernel when the VM runs, not before. */
static void test_restore(void **state)
{
	struct world *w = world_open();
	struct virtio_state s;

	(void)state;
	hv_driver_start(&w->d, ALL);
	kernel.base[0] = 5;
	virtio_pause(w->v);
	virtio_save(w->v, &s);
	hv_driver_write(&w->d, 0x70, 0);
	kernel.base[0] = 0;
	assert_int_equal(virtio_load(w->v, &s), 0);
	assert_false(kernel.running);
	virtio_resume(w->v);
	assert_true(kernel.running);
	assert_int_equal(kernel.base[0], 5);
	world_close(w);
}

/* A paused device that no driver runs stays with us. */
static void test_pause_without_driver(void **state)
{
	struct world *w = world_open();

	(void)state;
	virtio_pause(w->v);
	virtio_resume(w->v);
	assert_int_equal(kernel.starts, 0);
	assert_int_equal(kernel.stops, 0);
	assert_false(hv_driver_failed(&w->d));
	world_close(w);
}

/* A driver that leaves a ring out, a kernel that does not take them. */
static void test_rings_not_taken(void **state)
{
	static const unsigned long requests[] = {
		VHOST_SET_FEATURES,	 VHOST_SET_VRING_NUM,  VHOST_SET_VRING_BASE,
		VHOST_SET_VRING_ADDR,	 VHOST_SET_VRING_KICK, VHOST_SET_VRING_CALL,
		VHOST_VSOCK_SET_RUNNING,
	};
	unsigned i;

	(void)state;
	for (i = 0; i <= sizeof(requests) / sizeof(requests[0]); i++) {
		struct world *w = world_open();

		hv_driver_negotiate(&w->d, ALL);
		hv_driver_queue(&w->d, 0, 16);
		if (i > 0) {
			hv_driver_queue(&w->d, 1, 16);
			kernel.fails = requests[i - 1];
			kernel.error = EFAULT;
		}
		hv_driver_write(&w->d, 0x70, 15);
		assert_true(hv_driver_failed(&w->d));
		assert_false(kernel.running);
		kernel.fails = 0;
		hv_driver_reset(&w->d);
		hv_driver_start(&w->d, ALL);
		assert_true(kernel.running);
		world_close(w);
	}
}

/* The kernel met a ring or a packet that cannot be. */
static void test_kernel_complains(void **state)
{
	static const uint64_t one = 1;
	struct world *w = world_open();

	(void)state;
	hv_driver_start(&w->d, ALL);
	assert_int_equal(kernel.err[0], kernel.err[1]);
	assert_int_equal(write(kernel.err[0], &one, 8), 8);
	loop_turn(w);
	assert_true(hv_driver_failed(&w->d));
	assert_false(kernel.running);
	hv_driver_reset(&w->d);
	hv_driver_start(&w->d, ALL);
	/* Told late, of a life that is over. */
	virtio_pause(w->v);
	assert_int_equal(write(kernel.err[0], &one, 8), 8);
	loop_turn(w);
	virtio_resume(w->v);
	assert_false(hv_driver_failed(&w->d));
	world_close(w);
}

static void event_buffer(struct world *w, uint32_t len)
{
	struct hv_buffer b = {.addr = hv_driver_alloc(&w->d, 16), .len = len, .flags = HV_WRITE};

	memset(hv_driver_at(&w->d, b.addr), 0xee, 16);
	hv_driver_add(&w->d, EVENT, &b, 1);
}

static void event_expect(struct world *w, bool there)
{
	uint32_t len;

	assert_int_equal(hv_driver_used(&w->d, EVENT, NULL, &len), there);
	if (there) {
		assert_int_equal(len, 4);
		assert_int_equal(hv_driver_interrupts(&w->d), 1);
	}
}

static void test_reset_event(void **state)
{
	struct world *w = world_open();

	(void)state;
	hv_driver_start(&w->d, ALL);
	event_buffer(w, 4);
	event_expect(w, false);
	vsock_reset_event(w->s);
	event_expect(w, true);
	assert_int_equal(*(uint32_t *)hv_driver_at(&w->d, w->d.heap - 64), 0);
	/* Once. */
	event_buffer(w, 4);
	hv_driver_write(&w->d, 0x50, EVENT);
	loop_turn(w);
	event_expect(w, false);
	/* While paused: when it goes on. */
	virtio_pause(w->v);
	vsock_reset_event(w->s);
	event_expect(w, false);
	virtio_resume(w->v);
	event_expect(w, true);
	/* No buffer: when there is one. */
	vsock_reset_event(w->s);
	event_expect(w, false);
	assert_int_equal(hv_driver_avail_event(&w->d, EVENT), 2);
	event_buffer(w, 4);
	hv_driver_write(&w->d, 0x50, EVENT);
	loop_turn(w);
	event_expect(w, true);
	/* Not for the next driver. */
	vsock_reset_event(w->s);
	hv_driver_reset(&w->d);
	hv_driver_start(&w->d, ALL);
	event_buffer(w, 4);
	hv_driver_write(&w->d, 0x50, EVENT);
	loop_turn(w);
	event_expect(w, false);
	world_close(w);
}

static void test_event_buffer_too_small(void **state)
{
	struct world *w = world_open();

	(void)state;
	hv_driver_start(&w->d, ALL);
	event_buffer(w, 3);
	vsock_reset_event(w->s);
	assert_true(hv_driver_failed(&w->d));
	assert_false(kernel.running);
	world_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_kernel_gets_the_rings),
		cmocka_unit_test(test_pause_takes_the_rings_back),
		cmocka_unit_test(test_restore),
		cmocka_unit_test(test_pause_without_driver),
		cmocka_unit_test(test_rings_not_taken),
		cmocka_unit_test(test_kernel_complains),
		cmocka_unit_test(test_reset_event),
		cmocka_unit_test(test_event_buffer_too_small),
	};

	log_set_level(0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
