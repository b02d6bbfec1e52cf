/* The pump between TLS and a local socket: all bytes, both ways, and no more memory than promised.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test_certs.h"
#include "witnessd/link.h"

enum { DAY = 86400, PIECE = 64 * 1024, STALLED_TURNS = 300 };
#define TOTAL ((size_t)64 << 20)
/* What kernel buffers and the pump may swallow while nobody reads at the far end. */
#define SWALLOWED ((size_t)24 << 20)

struct fixture {
	uv_loop_t loop;
	struct stream_group *group;
	struct test_cert ca, board;
	struct tls_context *server, *client;
	struct stream_listener *listener;
	struct stream *far; /* the other board's end */
	bool far_ready, far_closed;
	bool far_in_order; /* closed with a TLS close */
	size_t far_got;
	struct list links;
	int fd; /* the core's end; -1 until the link stands */
	bool freed;
};

static uint8_t pattern(size_t at)
{
	return (uint8_t)(at ^ at >> 8 ^ at >> 16);
}

static void pattern_fill(uint8_t *bytes, size_t at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = pattern(at + i);
}

static void pattern_check(const uint8_t *bytes, size_t at, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (bytes[i] != pattern(at + i))
			fail_msg("byte %zu is wrong", at + i);
	}
}

static void far_ready(struct stream *s)
{
	((struct fixture *)stream_arg(s))->far_ready = true;
}

static void far_data(struct stream *s, const uint8_t *bytes, size_t len)
{
	struct fixture *f = stream_arg(s);

	pattern_check(bytes, f->far_got, len);
	f->far_got += len;
}

static void far_closed(struct stream *s, enum stream_end end, const char *detail)
{
	struct fixture *f = stream_arg(s);

	f->far_in_order = end == STREAM_END_PEER && detail[0] == '\0';
	f->far = NULL;
	f->far_closed = true;
}

static const struct stream_events far_events = {
	.ready = far_ready, .data = far_data, .closed = far_closed};

static void near_ready(struct stream *s)
{
	struct fixture *f = stream_arg(s);

	const struct tls_peer peer = {.serial = "abc", .issuer = 99};

	assert_int_equal(link_pump(s, &f->links, 7, &peer, &f->fd), 0);
}

static const struct stream_events near_events = {.ready = near_ready};

static struct tls_context *context(const struct fixture *f, bool server)
{
	const struct tls_options o = {.certificate = f->board.pem,
				      .key = f->board.key,
				      .ca = f->ca.pem,
				      .server = server,
				      .ask_client_certificate = server};
	struct tls_context *c;
	const char *message;

	assert_int_equal(tls_context_new(&o, &c, &message), 0);
	return c;
}

static int setup(void **state)
{
	struct fixture *f = mem_zalloc(sizeof(*f));
	char address[64];
	const char *message;

	f->fd = -1;
	list_init(&f->links);
	f->ca = test_cert_new("CA", NULL, NULL, -DAY, DAY, 0);
	f->board = test_cert_new("board", &f->ca, NULL, -DAY, DAY, 0);
	f->server = context(f, true);
	f->client = context(f, false);
	uv_loop_init(&f->loop);
	f->group = stream_group_new(&f->loop, 2000);
	const struct stream_listen how = {
		.address = "127.0.0.1:0", .tls = f->server, .events = &near_events, .arg = f};
	assert_int_equal(stream_listen(f->group, &how, &f->listener, &message), 0);
	snprintf(address, sizeof(address), "127.0.0.1:%u", stream_listener_port(f->listener));
	f->far = stream_connect(f->group, address, f->client, 5000, &far_events, f);
	while (f->fd < 0 || !f->far_ready)
		uv_run(&f->loop, UV_RUN_ONCE);
	*state = f;
	return 0;
}

static void on_freed(void *arg)
{
	((struct fixture *)arg)->freed = true;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	stream_group_free(f->group, on_freed, f);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_true(f->freed);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	if (f->fd >= 0)
		close(f->fd);
	tls_context_free(f->server);
	tls_context_free(f->client);
	test_cert_free(&f->ca);
	test_cert_free(&f->board);
	free(f);
	return 0;
}

/* From the other board to the core. Nobody reads at first: the sender's own queue must grow, which
 * shows that everything between is full and bounded. */
static void test_inwards(void **state)
{
	struct fixture *f = *state;
	uint8_t *bytes = mem_alloc(PIECE);
	size_t sent = 0, got = 0, queued = 0;

	while (sent < TOTAL) {
		pattern_fill(bytes, sent, PIECE);
		queued = stream_write(f->far, bytes, PIECE);
		sent += PIECE;
	}
	for (int stalled = 0; stalled < STALLED_TURNS; stalled++) {
		uv_run(&f->loop, UV_RUN_NOWAIT);
		size_t now = stream_write(f->far, NULL, 0);
		if (now != queued)
			stalled = 0;
		queued = now;
	}
	assert_true(sent - queued < SWALLOWED);
	while (got < TOTAL) {
		uv_run(&f->loop, UV_RUN_NOWAIT);
		ssize_t len = read(f->fd, bytes, PIECE);
		if (len < 0) {
			assert_int_equal(errno, EAGAIN);
			continue;
		}
		assert_true(len > 0);
		pattern_check(bytes, got, (size_t)len);
		got += (size_t)len;
	}
	free(bytes);
}

/* From the core to the other board, which does not read at first. */
static void test_outwards(void **state)
{
	struct fixture *f = *state;
	uint8_t *bytes = mem_alloc(PIECE);
	size_t sent = 0;

	stream_pause(f->far);
	for (int stalled = 0; sent < TOTAL || f->far_got < TOTAL;) {
		size_t room = TOTAL - sent < PIECE ? TOTAL - sent : PIECE;
		pattern_fill(bytes, sent, room);
		ssize_t len = room ? write(f->fd, bytes, room) : 0;
		if (len > 0)
			sent += (size_t)len;
		else if (stalled <= STALLED_TURNS)
			stalled++;
		if (stalled == STALLED_TURNS) {
			assert_true(sent < SWALLOWED);
			assert_int_equal(f->far_got, 0);
			stream_resume(f->far);
		}
		uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	free(bytes);
}

/* The core closes right behind its last words, of which the far end has not read any: they all
 * arrive, then the end. */
static void test_core_ends(void **state)
{
	struct fixture *f = *state;
	uint8_t *bytes = mem_alloc(PIECE);
	size_t sent = 0;

	stream_pause(f->far);
	for (int stalled = 0; stalled < STALLED_TURNS;) {
		pattern_fill(bytes, sent, PIECE);
		ssize_t len = write(f->fd, bytes, PIECE);
		if (len > 0)
			sent += (size_t)len;
		else
			stalled++;
		uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	close(f->fd);
	f->fd = -1;
	for (int i = 0; i < STALLED_TURNS; i++)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	stream_resume(f->far);
	while (!f->far_closed)
		uv_run(&f->loop, UV_RUN_ONCE);
	assert_int_equal(f->far_got, sent);
	assert_true(f->far_in_order);
	free(bytes);
}

static void check_far_ends(struct fixture *f, void (*end)(struct stream *s), size_t expected)
{
	uint8_t bytes[1000];
	size_t got = 0;
	ssize_t len;

	pattern_fill(bytes, 0, sizeof(bytes));
	stream_write(f->far, bytes, sizeof(bytes));
	end(f->far);
	do {
		uv_run(&f->loop, UV_RUN_NOWAIT);
		len = read(f->fd, bytes, sizeof(bytes));
		if (len > 0)
			got += (size_t)len;
	} while (len > 0 || (len < 0 && errno == EAGAIN));
	assert_true(expected == SIZE_MAX || got == expected);
}

static void test_far_closes(void **state)
{
	check_far_ends(*state, stream_close, 1000);
}

static void test_far_resets(void **state)
{
	check_far_ends(*state, stream_abort, SIZE_MAX);
}

static bool holds(void *arg, uint64_t node, const char *serial, uint64_t issuer)
{
	assert_int_equal(node, 7);
	assert_string_equal(serial, "abc");
	assert_int_equal(issuer, 99);
	return *(bool *)arg;
}

/* A certificate was revoked: the link ends, for both. */
static void test_no_longer_holds(void **state)
{
	struct fixture *f = *state;
	bool answer = true;
	char byte;

	links_check(&f->links, holds, &answer);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_false(f->far_closed);
	answer = false;
	links_check(&f->links, holds, &answer);
	while (!f->far_closed)
		uv_run(&f->loop, UV_RUN_ONCE);
	assert_int_equal(read(f->fd, &byte, 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_no_longer_holds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_inwards, setup, teardown),
		cmocka_unit_test_setup_teardown(test_outwards, setup, teardown),
		cmocka_unit_test_setup_teardown(test_core_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_far_closes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_far_resets, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
