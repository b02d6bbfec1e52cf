/* The end of a link between two boards' hosts: what is queued still goes, and a board that takes
 * nothing does not keep the other one's loop alive. The loop's clock is this program's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "proto/frame.h"
#include "witnessd/host_link.h"

static unsigned ahead_ms;

/* In place of libc's, for libuv. */
int clock_gettime(clockid_t clock, struct timespec *at)
{
	int rv = (int)syscall(SYS_clock_gettime, clock, at);

	at->tv_sec += ahead_ms / 1000;
	return rv;
}

struct lab {
	uv_loop_t loop;
	struct host_link *link;
	int far;
};

static void on_frame(void *arg, struct host_link *l, const Tb__HostFrame *frame)
{
	(void)arg, (void)l, (void)frame;
	fail();
}

static void on_closed(void *arg, struct host_link *l, const char *why)
{
	(void)arg, (void)l;
	fail_msg("%s", why);
}

static const struct host_link_events events = {.frame = on_frame, .closed = on_closed};

static int setup(void **state)
{
	static struct lab lab;
	int pair[2];

	signal(SIGPIPE, SIG_IGN);
	ahead_ms = 0;
	uv_loop_init(&lab.loop);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	lab.far = pair[1];
	lab.link = host_link_new(&lab.loop, 2, pair[0], &events, NULL);
	assert_non_null(lab.link);
	*state = &lab;
	return 0;
}

static int teardown(void **state)
{
	struct lab *lab = *state;

	close(lab->far);
	return uv_loop_close(&lab->loop);
}

static void send_pieces(struct lab *lab, unsigned count)
{
	static uint8_t bytes[HOST_PIECE_MAX];
	Tb__HostFrame frame = TB__HOST_FRAME__INIT;

	frame.what_case = TB__HOST_FRAME__WHAT_IMAGE_PIECE;
	frame.image_piece.data = bytes;
	frame.image_piece.len = sizeof(bytes);
	while (count-- > 0)
		host_link_send(lab->link, &frame);
}

/* Bytes that come until nothing more does; true: and then the end. */
static bool far_reads(struct lab *lab, size_t *ret_bytes)
{
	static uint8_t bytes[HOST_PIECE_MAX];
	ssize_t got;

	*ret_bytes = 0;
	for (unsigned idle = 0; idle < 3; idle++) {
		while ((got = recv(lab->far, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
			*ret_bytes += (size_t)got;
			idle = 0;
		}
		if (got == 0)
			return true;
		uv_run(&lab->loop, UV_RUN_NOWAIT);
	}
	return false;
}

static void test_close_sends_all(void **state)
{
	struct lab *lab = *state;
	size_t bytes;

	send_pieces(lab, 30);
	host_link_close(lab->link, "enough");
	assert_true(far_reads(lab, &bytes));
	assert_true(bytes > 30 * HOST_PIECE_MAX);
	uv_run(&lab->loop, UV_RUN_NOWAIT);
	assert_int_equal(uv_loop_alive(&lab->loop), 0);
}

static void test_close_is_not_for_ever(void **state)
{
	struct lab *lab = *state;
	size_t bytes;

	send_pieces(lab, 30);
	host_link_close(lab->link, "enough");
	ahead_ms = HOST_LINK_CLOSE_MS - 1000;
	for (unsigned i = 0; i < 10; i++)
		uv_run(&lab->loop, UV_RUN_NOWAIT);
	assert_int_not_equal(uv_loop_alive(&lab->loop), 0);
	ahead_ms = HOST_LINK_CLOSE_MS + 1000;
	for (unsigned i = 0; i < 10; i++)
		uv_run(&lab->loop, UV_RUN_NOWAIT);
	assert_int_equal(uv_loop_alive(&lab->loop), 0);
	assert_true(far_reads(lab, &bytes));
	assert_in_range(bytes, 1, 30 * HOST_PIECE_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_close_sends_all, setup, teardown),
		cmocka_unit_test_setup_teardown(test_close_is_not_for_ever, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
