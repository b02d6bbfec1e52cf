/* The virtio network card between a driver and a tap: every frame whole, once and in order; nobody
 * spins while the other side has no room; links that go and come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hv/layout.h"
#include "hv/virtio/net.h"
#include "lib/log.h"
#include "lib/rng.h"
#include "tests/unit/hv_driver.h"
#include "tests/unit/tap_double.h"

#define ALL (~UINT64_C(0))
#define BIT(n) (UINT64_C(1) << (n))

enum { RX, TX, CONTROL, HEADER = 12, FRAME_MAX = HEADER + 65553, BUFFERS_MAX = 4096 };

struct world {
	struct hv_driver d;
	struct tap_double tap;
	struct net *n;
	/* Receive buffers by head, and what came in. */
	uint64_t at[256];
	uint32_t len[256];
	uint8_t frame[FRAME_MAX], made[FRAME_MAX];
};

static struct world *world_open(uint64_t features, uint16_t queue_size)
{
	static struct world w;
	struct net_config config = {.mac = {0x52, 0x54, 0, 1, 2, 3}};
	struct fault fault = {0};

	memset(&w, 0, sizeof(w));
	hv_driver_open(&w.d, 8 << 20);
	tap_double_open(&w.tap);
	config.fd = w.tap.tap;
	assert_int_equal(net_create(&config, &w.d.ram, &w.d.loop, "net0", &w.n, &fault), 0);
	hv_driver_attach(&w.d, net_virtio(w.n));
	hv_driver_start_sized(&w.d, features, queue_size);
	return &w;
}

static void world_close(struct world *w)
{
	hv_driver_reset(&w->d);
	net_destroy(w->n);
	tap_double_close(&w->tap);
	hv_driver_close(&w->d);
}

/* Nothing is ready: the loop sleeps. */
static void settle(struct world *w)
{
	unsigned turns = 0;

	while (hv_driver_turn(&w->d)) {
		assert_true(++turns < 1000);
	}
}

static void buffer_add(struct world *w, uint32_t len)
{
	struct hv_buffer b = {.addr = hv_driver_alloc(&w->d, len), .len = len, .flags = HV_WRITE};
	uint16_t head;

	memset(hv_driver_at(&w->d, b.addr), 0xee, len);
	head = hv_driver_add(&w->d, RX, &b, 1);
	w->at[head] = b.addr;
	w->len[head] = len;
}

static void buffers_add(struct world *w, unsigned count, uint32_t len)
{
	while (count-- > 0) {
		buffer_add(w, len);
	}
	hv_driver_kick(&w->d, RX);
}

/* The next frame as a driver puts it together, with its header; 0 if there is none. */
static size_t frame_take(struct world *w)
{
	uint32_t head, len;
	uint16_t buffers, i;
	size_t size = 0;

	if (!hv_driver_used(&w->d, RX, &head, &len)) {
		return 0;
	}
	assert_true(len >= HEADER && len <= w->len[head]);
	memcpy(w->frame, hv_driver_at(&w->d, w->at[head]), len);
	size = len;
	memcpy(&buffers, w->frame + 10, 2);
	assert_true(buffers >= 1);
	for (i = 1; i < buffers; i++) {
		assert_int_equal(len, w->len[head]);
		w->len[head] = 0;
		/* All of them are there as soon as the first is. */
		assert_true(hv_driver_used(&w->d, RX, &head, &len));
		assert_true(len > 0 && len <= w->len[head] && size + len <= FRAME_MAX);
		memcpy(w->frame + size, hv_driver_at(&w->d, w->at[head]), len);
		size += len;
	}
	w->len[head] = 0; /* the driver has it back */
	return size;
}

/* A frame of `len` bytes, header included, with its number in it. */
static void frame_make(struct world *w, uint32_t number, size_t len)
{
	size_t i;

	memset(w->made, 0, HEADER);
	memcpy(w->made + HEADER, &number, len - HEADER < 4 ? len - HEADER : 4);
	for (i = HEADER + 4; i < len; i++) {
		w->made[i] = (uint8_t)(i + i / 251 + number);
	}
}

static void frame_send(struct world *w, uint32_t number, size_t len)
{
	frame_make(w, number, len);
	assert_true(tap_double_send(&w->tap, w->made, len));
}

static void frame_expect(struct world *w, uint32_t number, size_t len)
{
	assert_int_equal(frame_take(w), len);
	frame_make(w, number, len);
	assert_memory_equal(w->frame + HEADER, w->made + HEADER, len - HEADER);
}

static void frame_transmit(struct world *w, uint32_t number, size_t len)
{
	struct hv_buffer b[2];

	frame_make(w, number, len);
	b[0] = (struct hv_buffer){.addr = hv_driver_put(&w->d, w->made, HEADER), .len = HEADER};
	b[1] = (struct hv_buffer){
		.addr = hv_driver_put(&w->d, w->made + HEADER, len - HEADER),
		.len = (uint32_t)len - HEADER,
	};
	hv_driver_add(&w->d, TX, b, 2);
}

static void wire_expect(struct world *w, uint32_t number, size_t len)
{
	assert_int_equal(tap_double_receive(&w->tap, w->frame, sizeof(w->frame)), len);
	frame_make(w, number, len);
	assert_memory_equal(w->frame, w->made, len);
}

static uint16_t status(struct world *w)
{
	return (uint16_t)hv_driver_config(&w->d, 6, 2);
}

static void test_create(void **state)
{
	static const struct {
		int flags;
		const char *says;
	} cases[] = {
		{IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, "IFF_VNET_HDR"},
		{IFF_TAP | IFF_VNET_HDR, "tap7"},
		{IFF_TAP | IFF_NO_PI, "IFF_VNET_HDR"},
	};
	struct net_config config = {.fd = -1};
	struct fault fault = {0};
	struct hv_driver d;
	struct tap_double tap;
	struct net *n = NULL;
	unsigned i;

	(void)state;
	hv_driver_open(&d, 1 << 20);
	tap_double_open(&tap);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		tap.flags = cases[i].flags;
		config.fd = tap.tap;
		fault.text[0] = '\0';
		assert_int_equal(net_create(&config, &d.ram, &d.loop, "net3", &n, &fault), -EINVAL);
		print_message("%s\n", fault.text);
		assert_non_null(strstr(fault.text, cases[i].says));
	}
	config.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	fault.text[0] = '\0';
	assert_int_equal(net_create(&config, &d.ram, &d.loop, "net3", &n, &fault), -EINVAL);
	assert_non_null(strstr(fault.text, "not a tap"));
	assert_null(n);
	close(config.fd);
	tap_double_close(&tap);
	hv_driver_close(&d);
}

static void test_configuration(void **state)
{
	static const uint8_t mac[6] = {0x52, 0x54, 0, 1, 2, 3};
	struct world *w = world_open(ALL, 0);

	(void)state;
	assert_memory_equal(w->d.page + 0x100, mac, 6);
	assert_int_equal(status(w), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(w->tap.header, HEADER);
	assert_int_equal(fcntl(w->tap.tap, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	world_close(w);
}

/* What the driver can do decides what the kernel leaves to it. */
static void test_offload(void **state)
{
	static const struct {
		uint64_t without;
		unsigned long offload;
	} cases[] = {
		{0, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN},
		{BIT(VIRTIO_NET_F_GUEST_CSUM), 0},
		{BIT(VIRTIO_NET_F_GUEST_TSO4), TUN_F_CSUM | TUN_F_TSO6 | TUN_F_TSO_ECN},
		{BIT(VIRTIO_NET_F_GUEST_ECN), TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6},
		{BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6), TUN_F_CSUM},
	};
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct world *w = world_open(~cases[i].without, 0);

		assert_int_equal(w->tap.offload, cases[i].offload);
		hv_driver_write(&w->d, 0x70, 0);
		assert_int_equal(w->tap.offload, 0);
		world_close(w);
	}
}

static void test_transmits(void **state)
{
	static const size_t sizes[] = {HEADER + 14, HEADER + 60, HEADER + 1514, FRAME_MAX};
	struct world *w = world_open(ALL, 0);
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint32_t len;

		frame_transmit(w, i, sizes[i]);
		hv_driver_kick(&w->d, TX);
		wire_expect(w, i, sizes[i]);
		assert_int_equal(hv_driver_interrupts(&w->d), 1);
		assert_true(hv_driver_used(&w->d, TX, NULL, &len));
		assert_int_equal(len, 0);
	}
	world_close(w);
}

static void test_receives(void **state)
{
	static const size_t sizes[] = {HEADER + 14,   HEADER + 60,   HEADER + 1514, HEADER + 1518,
				       HEADER + 1525, HEADER + 1524, HEADER + 3060, 20000,
				       65000,	      FRAME_MAX,     HEADER + 60,   FRAME_MAX};
	struct world *w = world_open(ALL, 0);
	unsigned i;
	uint16_t seen = 0;

	(void)state;
	buffers_add(w, 200, 1536);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		frame_send(w, i, sizes[i]);
		settle(w);
		frame_expect(w, i, sizes[i]);
		assert_int_equal(frame_take(w), 0);
		assert_int_equal(hv_driver_interrupts(&w->d), 1);
		/* As many new ones as were used. */
		buffers_add(w, (uint16_t)(w->d.ring[RX].used_seen - seen), 1536);
		seen = w->d.ring[RX].used_seen;
	}
	world_close(w);
}

/* Buffers of any size, given at any time; frames of any size, coming at any time. */
static void receive_at_random(uint64_t seed)
{
	struct world *w = world_open(ALL, 0);
	struct prng p = {seed};
	size_t sent_len[600];
	unsigned sent = 0, got = 0, given = 0, taken, round;
	uint32_t smallest = prng_chance(&p, 50) ? 700 : 1536;

	for (round = 0; got < 600; round++) {
		size_t len = HEADER + 14 + prng_below(&p, prng_chance(&p, 20) ? 40000 : 1500);

		assert_true(round < 60000);
		if (sent < 600 && prng_chance(&p, 60)) {
			frame_make(w, sent, len);
			if (tap_double_send(&w->tap, w->made, len)) {
				sent_len[sent++] = len;
			}
		}
		/* Never more than the ring has room for. */
		taken = w->d.ring[RX].used_seen;
		given = w->d.ring[RX].avail_idx;
		if ((uint16_t)(given - taken) < 200 && prng_chance(&p, 50)) {
			if (w->d.heap > LAYOUT_RAM + (6 << 20)) {
				w->d.heap = LAYOUT_RAM + (1 << 20);
			}
			buffers_add(w, (unsigned)prng_below(&p, 40),
				    smallest + (uint32_t)prng_below(&p, 3000));
		}
		if (prng_chance(&p, 70)) {
			(void)hv_driver_turn(&w->d);
		}
		if (prng_chance(&p, 2)) {
			virtio_pause(net_virtio(w->n));
			assert_false(hv_driver_turn(&w->d) && hv_driver_turn(&w->d));
			virtio_resume(net_virtio(w->n));
		}
		while (got < sent && prng_chance(&p, 60)) {
			size_t size = frame_take(w);
			uint32_t number;

			if (size == 0) {
				break;
			}
			/* A frame that waited for buffers is lost at a pause; the order is kept. */
			memcpy(&number, w->frame + HEADER, 4);
			assert_true(number >= got && number < sent);
			assert_int_equal(size, sent_len[number]);
			frame_make(w, number, size);
			assert_memory_equal(w->frame + HEADER, w->made + HEADER, size - HEADER);
			got = number + 1;
		}
		if (sent == 600 && got < 600 && round > 30000) {
			break; /* the last were lost in a pause */
		}
	}
	assert_true(got > 590);
	assert_false(hv_driver_failed(&w->d));
	world_close(w);
}

static void test_receives_at_random(void **state)
{
	uint64_t seed;

	(void)state;
	for (seed = 1; seed <= 6; seed++) {
		print_message("seed %u\n", (unsigned)seed);
		receive_at_random(seed);
	}
}

static void test_starved_of_buffers(void **state)
{
	struct world *w = world_open(ALL, 0);
	unsigned i;

	(void)state;
	for (i = 0; i < 5; i++) {
		frame_send(w, i, HEADER + 100);
	}
	/* Nothing to give them to: asleep, and the frames stay in the tap. */
	settle(w);
	assert_int_equal(frame_take(w), 0);
	assert_int_equal(hv_driver_avail_event(&w->d, RX), 0);
	buffers_add(w, 3, 1536);
	settle(w);
	assert_int_equal(hv_driver_avail_event(&w->d, RX), 3);
	for (i = 0; i < 3; i++) {
		frame_expect(w, i, HEADER + 100);
	}
	assert_int_equal(frame_take(w), 0);
	/* A large one waits for the rest of its buffers. */
	frame_send(w, 5, 20000);
	buffers_add(w, 2, 1536);
	settle(w);
	frame_expect(w, 3, HEADER + 100);
	frame_expect(w, 4, HEADER + 100);
	buffers_add(w, 10, 1536);
	settle(w);
	assert_int_equal(frame_take(w), 0);
	buffers_add(w, 10, 1536);
	settle(w);
	frame_expect(w, 5, 20000);
	/* Small ones do not wait for stock for another large one. */
	while (w->d.ring[RX].avail_idx - w->d.ring[RX].used_seen < 3) {
		buffers_add(w, 1, 1536);
	}
	frame_send(w, 6, HEADER + 60);
	settle(w);
	frame_expect(w, 6, HEADER + 60);
	world_close(w);
}

/* A ring that can never hold such a frame: it is dropped, those behind it are not. */
static void test_frame_larger_than_the_ring(void **state)
{
	struct world *w = world_open(ALL, 4);

	(void)state;
	buffers_add(w, 4, 1536);
	frame_send(w, 0, 20000);
	frame_send(w, 1, HEADER + 60);
	settle(w);
	frame_expect(w, 1, HEADER + 60);
	assert_int_equal(frame_take(w), 0);
	world_close(w);
}

/* Without VIRTIO_NET_F_MRG_RXBUF each frame has one chain. */
static void test_without_merging(void **state)
{
	struct world *w = world_open(~BIT(VIRTIO_NET_F_MRG_RXBUF), 0);
	struct hv_buffer b[3];
	uint32_t len;
	uint16_t one;

	(void)state;
	buffers_add(w, 2, 1536);
	frame_send(w, 0, HEADER + 1600);
	frame_send(w, 1, HEADER + 1000);
	settle(w);
	frame_expect(w, 1, HEADER + 1000);
	assert_int_equal(frame_take(w), 0);
	/* One in three parts, header cut. */
	frame_send(w, 2, HEADER + 1524);
	settle(w);
	frame_expect(w, 2, HEADER + 1524);
	b[0] = (struct hv_buffer){hv_driver_alloc(&w->d, 11), 11, HV_WRITE};
	b[1] = (struct hv_buffer){hv_driver_alloc(&w->d, 100), 100, HV_WRITE};
	b[2] = (struct hv_buffer){hv_driver_alloc(&w->d, 900), 900, HV_WRITE};
	hv_driver_add_indirect(&w->d, RX, b, 3);
	hv_driver_kick(&w->d, RX);
	frame_send(w, 3, HEADER + 600);
	settle(w);
	assert_true(hv_driver_used(&w->d, RX, NULL, &len));
	assert_int_equal(len, HEADER + 600);
	memcpy(w->frame, hv_driver_at(&w->d, b[0].addr), 11);
	memcpy(w->frame + 11, hv_driver_at(&w->d, b[1].addr), 100);
	memcpy(w->frame + 111, hv_driver_at(&w->d, b[2].addr), 501);
	memcpy(&one, w->frame + 10, 2);
	assert_int_equal(one, 1);
	frame_make(w, 3, HEADER + 600);
	assert_memory_equal(w->frame + HEADER, w->made + HEADER, 600);
	world_close(w);
}

static void test_full_tap(void **state)
{
	struct world *w = world_open(ALL, 0);
	unsigned sent, i, got = 0;
	int small = 8192;

	(void)state;
	assert_int_equal(setsockopt(w->tap.tap, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	for (i = 0; i < 100; i++) {
		frame_transmit(w, i, HEADER + 1000);
	}
	hv_driver_kick(&w->d, TX);
	for (sent = 0; hv_driver_used(&w->d, TX, NULL, NULL); sent++) {
	}
	assert_true(sent > 0 && sent < 100);
	/* Asleep until the tap has room; kicks change nothing. */
	settle(w);
	hv_driver_kick(&w->d, TX);
	assert_false(hv_driver_used(&w->d, TX, NULL, NULL));
	while (got < 100) {
		wire_expect(w, got++, HEADER + 1000);
		settle(w);
	}
	for (; hv_driver_used(&w->d, TX, NULL, NULL); sent++) {
	}
	assert_int_equal(sent, 100);
	world_close(w);
}

static void test_malformed(void **state)
{
	static const struct {
		unsigned queue;
		uint32_t len;
		uint16_t flags;
	} cases[] = {
		{RX, 11, HV_WRITE}, {RX, 100, 0}, {TX, 11, 0}, {TX, 100, HV_WRITE}, {CONTROL, 2, 0},
	};
	struct world *w = world_open(ALL, 0);
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct hv_buffer b = {
			.addr = hv_driver_alloc(&w->d, 100),
			.len = cases[i].len,
			.flags = cases[i].flags,
		};

		frame_send(w, 0, HEADER + 60);
		hv_driver_add(&w->d, cases[i].queue, &b, 1);
		hv_driver_kick(&w->d, cases[i].queue);
		settle(w);
		assert_true(hv_driver_failed(&w->d));
		hv_driver_reset(&w->d);
		hv_driver_start(&w->d, ALL);
		buffers_add(w, 1, 1536);
		frame_send(w, i, HEADER + 60);
		settle(w);
		frame_expect(w, i, HEADER + 60);
	}
	world_close(w);
}

/* Frames that are too long, or that the kernel does not like, are gone and nothing else. */
static void test_frames_nobody_wants(void **state)
{
	struct world *w = world_open(ALL, 0);
	struct hv_buffer b[2] = {
		{.addr = hv_driver_alloc(&w->d, 60000), .len = 60000},
	};

	(void)state;
	b[1] = b[0];
	hv_driver_add(&w->d, TX, b, 2);
	hv_driver_kick(&w->d, TX);
	assert_true(hv_driver_used(&w->d, TX, NULL, NULL));
	w->tap.write_error = EINVAL;
	frame_transmit(w, 1, HEADER + 60);
	hv_driver_kick(&w->d, TX);
	assert_true(hv_driver_used(&w->d, TX, NULL, NULL));
	w->tap.write_error = 0;
	frame_transmit(w, 2, HEADER + 60);
	hv_driver_kick(&w->d, TX);
	wire_expect(w, 2, HEADER + 60);
	assert_int_equal(status(w), VIRTIO_NET_S_LINK_UP);
	world_close(w);
}

/* The interface is taken down and up again. */
static void test_interface_down(void **state)
{
	struct world *w = world_open(ALL, 0);

	(void)state;
	w->tap.write_error = EIO;
	frame_transmit(w, 1, HEADER + 60);
	hv_driver_kick(&w->d, TX);
	assert_true(hv_driver_used(&w->d, TX, NULL, NULL));
	assert_int_equal(status(w), 0);
	assert_true(hv_driver_read(&w->d, 0x60) & 2);
	w->tap.write_error = 0;
	/* A frame gets through, */
	frame_transmit(w, 1, HEADER + 60);
	hv_driver_kick(&w->d, TX);
	assert_int_equal(status(w), VIRTIO_NET_S_LINK_UP);
	wire_expect(w, 1, HEADER + 60);
	/* or the driver keeps quiet, since its link is down. */
	w->tap.write_error = EIO;
	frame_transmit(w, 1, HEADER + 60);
	hv_driver_kick(&w->d, TX);
	assert_int_equal(status(w), 0);
	w->tap.write_error = 0;
	/* A socket has room at once, an interface when it is up. */
	settle(w);
	assert_int_equal(status(w), VIRTIO_NET_S_LINK_UP);
	frame_transmit(w, 2, HEADER + 60);
	hv_driver_kick(&w->d, TX);
	wire_expect(w, 2, HEADER + 60);
	world_close(w);
}

static void test_interface_gone(void **state)
{
	struct world *w = world_open(ALL, 0);
	unsigned i;

	(void)state;
	buffers_add(w, 10, 1536);
	frame_send(w, 1, HEADER + 60);
	w->tap.read_error = w->tap.write_error = EBADFD;
	settle(w);
	assert_int_equal(status(w), 0);
	for (i = 0; i < 3; i++) {
		frame_transmit(w, i, HEADER + 60);
		hv_driver_kick(&w->d, TX);
		assert_true(hv_driver_used(&w->d, TX, NULL, NULL));
	}
	assert_int_equal(frame_take(w), 0);
	/* It stays so, also for a new driver. */
	hv_driver_reset(&w->d);
	hv_driver_start(&w->d, ALL);
	settle(w);
	assert_int_equal(status(w), 0);
	net_set_link(w->n, false);
	net_set_link(w->n, true);
	assert_int_equal(status(w), 0);
	world_close(w);
}

static void test_cable(void **state)
{
	struct world *w = world_open(ALL, 0);

	(void)state;
	buffers_add(w, 10, 1536);
	(void)hv_driver_interrupts(&w->d);
	net_set_link(w->n, false);
	assert_int_equal(status(w), 0);
	assert_int_equal(hv_driver_interrupts(&w->d), 1);
	frame_send(w, 1, HEADER + 60);
	settle(w);
	assert_int_equal(frame_take(w), 0);
	frame_transmit(w, 2, HEADER + 60);
	hv_driver_kick(&w->d, TX);
	assert_true(hv_driver_used(&w->d, TX, NULL, NULL));
	assert_int_equal(tap_double_receive(&w->tap, w->frame, 100), -EAGAIN);
	/* What was sent while it was out does not come in late. */
	net_set_link(w->n, true);
	assert_int_equal(status(w), VIRTIO_NET_S_LINK_UP);
	frame_send(w, 3, HEADER + 60);
	settle(w);
	frame_expect(w, 3, HEADER + 60);
	world_close(w);
}

static uint8_t command(struct world *w, uint8_t class, uint8_t cmd, uint32_t len)
{
	const uint8_t words[2] = {class, cmd};
	struct hv_buffer b[2] = {
		{.addr = hv_driver_put(&w->d, words, 2), .len = len},
		{.addr = hv_driver_alloc(&w->d, 1), .len = 1, .flags = HV_WRITE},
	};

	*(uint8_t *)hv_driver_at(&w->d, b[1].addr) = 0xaa;
	hv_driver_add(&w->d, CONTROL, b, 2);
	hv_driver_kick(&w->d, CONTROL);
	assert_true(hv_driver_used(&w->d, CONTROL, NULL, NULL));
	return *(uint8_t *)hv_driver_at(&w->d, b[1].addr);
}

static void test_announce(void **state)
{
	const uint16_t both = VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE;
	struct world *w = world_open(ALL, 0);

	(void)state;
	net_announce(w->n);
	assert_int_equal(status(w), both);
	assert_true(hv_driver_read(&w->d, 0x60) & 2);
	assert_int_equal(command(w, VIRTIO_NET_CTRL_RX, 0, 2), VIRTIO_NET_ERR);
	assert_int_equal(command(w, VIRTIO_NET_CTRL_ANNOUNCE, 1, 2), VIRTIO_NET_ERR);
	assert_int_equal(command(w, VIRTIO_NET_CTRL_ANNOUNCE, 0, 1), VIRTIO_NET_ERR);
	assert_int_equal(status(w), both);
	assert_int_equal(command(w, VIRTIO_NET_CTRL_ANNOUNCE, 0, 2), VIRTIO_NET_OK);
	assert_int_equal(status(w), VIRTIO_NET_S_LINK_UP);
	/* One that is not answered ends with its driver. */
	net_announce(w->n);
	hv_driver_reset(&w->d);
	assert_int_equal(status(w), VIRTIO_NET_S_LINK_UP);
	world_close(w);
	w = world_open(~BIT(VIRTIO_NET_F_GUEST_ANNOUNCE), 0);
	net_announce(w->n);
	assert_int_equal(status(w), VIRTIO_NET_S_LINK_UP);
	world_close(w);
}

/* Buffers that wait in the device are the driver's again while it is paused. */
static void test_pause(void **state)
{
	struct world *w = world_open(ALL, 0);
	struct virtio *v = net_virtio(w->n);

	(void)state;
	buffers_add(w, 50, 1536);
	frame_send(w, 0, 30000);
	settle(w);
	frame_expect(w, 0, 30000);
	frame_send(w, 1, HEADER + 60);
	settle(w);
	virtio_pause(v);
	assert_int_equal(v->queue[RX].next_avail, 21);
	frame_send(w, 2, HEADER + 60);
	frame_transmit(w, 3, HEADER + 60);
	hv_driver_kick(&w->d, TX);
	settle(w);
	frame_expect(w, 1, HEADER + 60);
	assert_int_equal(frame_take(w), 0);
	assert_int_equal(tap_double_receive(&w->tap, w->frame, 100), -EAGAIN);
	virtio_resume(v);
	settle(w);
	frame_expect(w, 2, HEADER + 60);
	wire_expect(w, 3, HEADER + 60);
	world_close(w);
}

static void test_new_driver_gets_nothing_old(void **state)
{
	struct world *w = world_open(ALL, 0);

	(void)state;
	buffers_add(w, 50, 1536);
	frame_send(w, 0, 30000);
	settle(w);
	frame_send(w, 1, HEADER + 60);
	hv_driver_reset(&w->d);
	memset(w->len, 0, sizeof(w->len));
	frame_send(w, 2, HEADER + 60);
	settle(w);
	hv_driver_start(&w->d, ALL);
	buffers_add(w, 5, 1536);
	settle(w);
	assert_int_equal(frame_take(w), 0);
	frame_send(w, 3, HEADER + 60);
	settle(w);
	frame_expect(w, 3, HEADER + 60);
	world_close(w);
}

/* One interrupt for what came at once. */
static void test_batch(void **state)
{
	struct world *w = world_open(ALL, 0);
	unsigned i;

	(void)state;
	buffers_add(w, 20, 1536);
	for (i = 0; i < 8; i++) {
		frame_send(w, i, HEADER + 60);
	}
	(void)hv_driver_interrupts(&w->d);
	assert_true(hv_driver_turn(&w->d));
	for (i = 0; i < 8; i++) {
		frame_expect(w, i, HEADER + 60);
	}
	assert_int_equal(hv_driver_interrupts(&w->d), 1);
	world_close(w);
}

/* Large frames go straight into the driver's buffers from the second on; small ones cost no long
 * list of buffers. */
static void test_stock_follows_the_frames(void **state)
{
	struct world *w = world_open(ALL, 0);
	unsigned i;

	(void)state;
	buffers_add(w, 250, 1536);
	frame_send(w, 0, HEADER + 60);
	settle(w);
	assert_int_equal(w->tap.read_buffers, 2);
	assert_int_equal(w->tap.reads, 2);
	frame_send(w, 1, 20000);
	settle(w);
	assert_int_equal(w->tap.read_buffers, 43);
	for (i = 2; i < 150; i++) {
		frame_send(w, i, HEADER + 60);
		settle(w);
	}
	assert_int_equal(w->tap.read_buffers, 2);
	frame_expect(w, 0, HEADER + 60);
	frame_expect(w, 1, 20000);
	for (i = 2; i < 150; i++) {
		frame_expect(w, i, HEADER + 60);
	}
	world_close(w);
}

/* Chains of so many buffers that few of them fit into the stock. */
static void test_chains_of_many_buffers(void **state)
{
	struct world *w = world_open(ALL, 0);
	struct hv_buffer b[120];
	unsigned i, k;

	(void)state;
	frame_make(w, 1, 60000);
	for (i = 0; i < 40; i++) {
		uint64_t at = hv_driver_alloc(&w->d, sizeof(b) / sizeof(b[0]) * 20);
		uint16_t head;

		for (k = 0; k < 120; k++) {
			b[k] = (struct hv_buffer){
				.addr = at + k * 20, .len = 20, .flags = HV_WRITE};
		}
		head = hv_driver_add_indirect(&w->d, RX, b, 120);
		w->at[head] = at;
		w->len[head] = 2400;
	}
	hv_driver_kick(&w->d, RX);
	for (i = 0; i < 4; i++) {
		frame_send(w, 2 * i, 60000); /* 25 of them: dropped */
		frame_send(w, 2 * i + 1, 4000);
		settle(w);
		frame_expect(w, 2 * i + 1, 4000);
	}
	world_close(w);
}

/* No tap makes these. */
static void test_frames_shorter_than_the_header(void **state)
{
	struct world *w = world_open(ALL, 0);

	(void)state;
	buffers_add(w, 5, 1536);
	frame_make(w, 1, HEADER + 60);
	assert_true(tap_double_send(&w->tap, w->made, 5));
	frame_send(w, 1, HEADER + 60);
	settle(w);
	frame_expect(w, 1, HEADER + 60);
	assert_int_equal(frame_take(w), 0);
	world_close(w);
}

/* More at once than one device may do while others wait: it goes on by itself. */
static void test_long_batches(void **state)
{
	struct world *w = world_open(ALL, 0);
	unsigned i, got = 0;

	(void)state;
	w->tap.write_error = EINVAL;
	for (i = 0; i < 128; i++) {
		frame_transmit(w, i, HEADER + 60);
	}
	hv_driver_kick(&w->d, TX);
	while (hv_driver_used(&w->d, TX, NULL, NULL)) {
		got++;
	}
	assert_true(got > 0 && got < 128);
	settle(w);
	while (hv_driver_used(&w->d, TX, NULL, NULL)) {
		got++;
	}
	assert_int_equal(got, 128);
	world_close(w);
}

/* Entries put aside are not seen before the push (queue.h). */
static void test_used_entries_together(void **state)
{
	struct world *w = world_open(ALL, 0);
	struct queue *q = &net_virtio(w->n)->queue[RX];

	(void)state;
	queue_put(q, 3, 100);
	queue_put(q, 4, 100);
	assert_int_equal(queue_used_idx(q), 0);
	queue_push(q, 5, 50);
	assert_int_equal(queue_used_idx(q), 3);
	world_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_configuration),
		cmocka_unit_test(test_offload),
		cmocka_unit_test(test_transmits),
		cmocka_unit_test(test_receives),
		cmocka_unit_test(test_receives_at_random),
		cmocka_unit_test(test_starved_of_buffers),
		cmocka_unit_test(test_frame_larger_than_the_ring),
		cmocka_unit_test(test_without_merging),
		cmocka_unit_test(test_full_tap),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_frames_nobody_wants),
		cmocka_unit_test(test_interface_down),
		cmocka_unit_test(test_interface_gone),
		cmocka_unit_test(test_cable),
		cmocka_unit_test(test_announce),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_new_driver_gets_nothing_old),
		cmocka_unit_test(test_batch),
		cmocka_unit_test(test_stock_follows_the_frames),
		cmocka_unit_test(test_chains_of_many_buffers),
		cmocka_unit_test(test_frames_shorter_than_the_header),
		cmocka_unit_test(test_long_batches),
		cmocka_unit_test(test_used_entries_together),
	};

	log_set_level(0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
