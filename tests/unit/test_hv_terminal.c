/* The host's end of a guest's console: keys, and readers and writers of every kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hv/terminal.h"

static void test_keys(void **state)
{
	static const struct {
		const char *typed;
		const char *left;
		enum terminal_key key;
		size_t used;
	} cases[] = {
		{"hello", "hello", TERMINAL_KEY_NONE, 5},
		{"a\001ab", "a\001b", TERMINAL_KEY_NONE, 4},
		{"a\001\001b", "a\001b", TERMINAL_KEY_NONE, 4},
		{"ab\001xcd", "ab", TERMINAL_KEY_LEAVE, 4},
		{"\001p", "", TERMINAL_KEY_POWER, 2},
		{"\001h", "", TERMINAL_KEY_HELP, 2},
		{"\001?", "", TERMINAL_KEY_HELP, 2},
		{"ab\001", "ab", TERMINAL_KEY_NONE, 3},
		{"", "", TERMINAL_KEY_NONE, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct terminal_keys k = {0};
		uint8_t data[16];
		size_t len = strlen(cases[i].typed), used;

		memcpy(data, cases[i].typed, len);
		assert_int_equal(terminal_filter(&k, data, &len, &used), cases[i].key);
		assert_int_equal(len, strlen(cases[i].left));
		assert_memory_equal(data, cases[i].left, len);
		assert_int_equal(used, cases[i].used);
	}
}

/* The two keys may come one by one. */
static void test_keys_apart(void **state)
{
	struct terminal_keys k = {0};
	uint8_t first[] = {1}, second[] = {'x'};
	size_t len = 1, used;

	(void)state;
	assert_int_equal(terminal_filter(&k, first, &len, &used), TERMINAL_KEY_NONE);
	assert_int_equal(len, 0);
	len = 1;
	assert_int_equal(terminal_filter(&k, second, &len, &used), TERMINAL_KEY_LEAVE);
}

/* A guest that takes `takes` bytes at a time. */
struct fixture {
	struct loop loop;
	struct terminal *terminal;
	char got[1 << 16];
	size_t len, takes;
	unsigned ready;
	unsigned keys[4];
};

static size_t take(void *arg, const uint8_t *data, size_t len)
{
	struct fixture *f = arg;
	size_t some = len < f->takes ? len : f->takes;

	memcpy(f->got + f->len, data, some);
	f->len += some;
	return some;
}

static void ready(void *arg)
{
	((struct fixture *)arg)->ready++;
}

static void key(void *arg, enum terminal_key which)
{
	((struct fixture *)arg)->keys[which]++;
}

static void begin(struct fixture *f, int in, int out, bool keys)
{
	struct terminal_config config = {
		.loop = &f->loop,
		.in = in,
		.out = terminal_reopen(out),
		.keys = keys,
		.input = take,
		.output_ready = ready,
		.key = key,
		.arg = f,
	};

	*f = (struct fixture){.takes = sizeof(f->got)};
	assert_int_equal(loop_init(&f->loop), 0);
	assert_int_equal(terminal_create(&config, &f->terminal), 0);
}

static void end(struct fixture *f)
{
	terminal_destroy(f->terminal);
	loop_close(&f->loop);
}

/* One turn of the loop, if anything is ready. */
static unsigned turn(struct fixture *f)
{
	struct epoll_event events[8];
	int count = epoll_wait(f->loop.epoll, events, 8, 0);

	for (int i = 0; i < count; i++) {
		struct watch *watch = events[i].data.ptr;

		watch->ready(watch, events[i].events);
	}
	return (unsigned)count;
}

static void test_typed(void **state)
{
	static struct fixture f;
	int in[2];

	(void)state;
	assert_int_equal(pipe(in), 0);
	begin(&f, in[0], -1, true);
	assert_int_equal(write(in[1], "one\001atwo\001p\001xthree", 17), 17);
	turn(&f);
	assert_int_equal(f.len, 12);
	assert_memory_equal(f.got, "one\001twothree", 12);
	assert_int_equal(f.keys[TERMINAL_KEY_LEAVE], 1);
	assert_int_equal(f.keys[TERMINAL_KEY_POWER], 1);
	close(in[1]);
	end(&f);
	close(in[0]);
}

static void test_bytes_of_a_pipe_are_no_keys(void **state)
{
	static struct fixture f;
	int in[2];

	(void)state;
	assert_int_equal(pipe(in), 0);
	begin(&f, in[0], -1, false);
	assert_int_equal(write(in[1], "\001x\001", 3), 3);
	turn(&f);
	assert_memory_equal(f.got, "\001x\001", 3);
	assert_int_equal(f.keys[TERMINAL_KEY_LEAVE], 0);
	/* The end of the input is not the end of the VM, and nothing spins. */
	close(in[1]);
	turn(&f);
	assert_int_equal(turn(&f), 0);
	end(&f);
	close(in[0]);
}

/* A guest that is not there yet loses nothing, and nobody is read faster than it takes. */
static void test_slow_guest(void **state)
{
	static struct fixture f;
	int in[2];
	char text[20000];
	unsigned tries = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(text); i++) {
		text[i] = (char)('a' + i % 23);
	}
	assert_int_equal(pipe(in), 0);
	assert_int_equal(write(in[1], text, sizeof(text)), sizeof(text));
	close(in[1]);
	begin(&f, in[0], -1, false);
	f.takes = 0;
	turn(&f);
	turn(&f);
	assert_int_equal(f.len, 0);
	f.takes = 700;
	while (f.len < sizeof(text) && tries++ < 1000) {
		terminal_retry(f.terminal);
		turn(&f);
	}
	assert_int_equal(f.len, sizeof(text));
	assert_memory_equal(f.got, text, sizeof(text));
	end(&f);
	close(in[0]);
}

static void test_input_from_a_file(void **state)
{
	static struct fixture f;
	char name[] = "/tmp/test_hv_terminal_XXXXXX";
	int in = mkstemp(name);

	(void)state;
	assert_int_equal(write(in, "from a file", 11), 11);
	lseek(in, 0, SEEK_SET);
	begin(&f, in, -1, false);
	terminal_retry(f.terminal);
	assert_int_equal(f.len, 11);
	assert_memory_equal(f.got, "from a file", 11);
	terminal_retry(f.terminal);
	/* It had an end. */
	assert_int_equal(pwrite(in, "more", 4, 11), 4);
	terminal_retry(f.terminal);
	assert_int_equal(f.len, 11);
	end(&f);
	close(in);
	unlink(name);
}

static void test_slow_reader(void **state)
{
	static struct fixture f;
	static uint8_t text[1 << 20];
	static uint8_t back[sizeof(text)];
	size_t sent = 0, got = 0;
	int out[2];

	(void)state;
	for (size_t i = 0; i < sizeof(text); i++) {
		text[i] = (uint8_t)(i * 7 + i / 256);
	}
	assert_int_equal(pipe(out), 0);
	begin(&f, -1, out[1], false);
	/* It never waits, and our own description alone is non-blocking. */
	sent = terminal_output(f.terminal, text, sizeof(text));
	assert_true(sent > 0 && sent < sizeof(text));
	assert_int_equal(fcntl(out[1], F_GETFL) & O_NONBLOCK, 0);
	assert_int_equal(terminal_output(f.terminal, text + sent, 1), 0);
	while (got < sizeof(text)) {
		unsigned before = f.ready;
		ssize_t part = read(out[0], back + got, 5000);

		assert_true(part > 0);
		got += (size_t)part;
		if (got % 3 == 0) { /* what was kept goes first */
			sent += terminal_output(f.terminal, text + sent, sizeof(text) - sent);
		}
		turn(&f);
		if (f.ready > before) {
			sent += terminal_output(f.terminal, text + sent, sizeof(text) - sent);
		}
	}
	assert_memory_equal(text, back, sizeof(text));
	end(&f);
	close(out[0]);
	close(out[1]);
}

static void test_reader_goes_away(void **state)
{
	static struct fixture f;
	static uint8_t text[1 << 18];
	int out[2];

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(pipe(out), 0);
	begin(&f, -1, out[1], false);
	assert_true(terminal_output(f.terminal, text, sizeof(text)) < sizeof(text));
	close(out[0]);
	turn(&f);
	assert_int_equal(turn(&f), 0);
	assert_int_equal(f.ready, 1);
	assert_int_equal(terminal_output(f.terminal, text, sizeof(text)), sizeof(text));
	end(&f);
	close(out[1]);
}

/* The console of a supervised VM: one socket both ways. */
static void test_socket(void **state)
{
	static struct fixture f;
	char back[8];
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	begin(&f, pair[0], pair[0], false);
	assert_int_equal(terminal_output(f.terminal, (const uint8_t *)"out", 3), 3);
	assert_int_equal(read(pair[1], back, sizeof(back)), 3);
	assert_memory_equal(back, "out", 3);
	assert_int_equal(write(pair[1], "in", 2), 2);
	turn(&f);
	assert_memory_equal(f.got, "in", 2);
	close(pair[1]);
	turn(&f);
	turn(&f);
	assert_int_equal(turn(&f), 0);
	end(&f);
	close(pair[0]);
}

static void test_nowhere(void **state)
{
	static struct fixture f;
	int null = open("/dev/null", O_RDWR);

	(void)state;
	begin(&f, -1, -1, false);
	assert_int_equal(terminal_output(f.terminal, (const uint8_t *)"x", 1), 1);
	end(&f);
	begin(&f, null, null, false);
	assert_int_equal(terminal_output(f.terminal, (const uint8_t *)"x", 1), 1);
	terminal_retry(f.terminal);
	assert_int_equal(turn(&f), 0);
	end(&f);
	close(null);
}

static void test_raw_and_back(void **state)
{
	struct termios old, now;
	int pair[2];

	(void)state;
	assert_int_equal(pipe(pair), 0);
	assert_int_equal(terminal_raw(pair[0], &old), -ENOTTY);
	close(pair[0]);
	close(pair[1]);
	/* A terminal whose foreground we are not. */
	pair[0] = posix_openpt(O_RDWR | O_NOCTTY);
	if (pair[0] >= 0 && grantpt(pair[0]) == 0 && unlockpt(pair[0]) == 0) {
		pair[1] = open(ptsname(pair[0]), O_RDWR | O_NOCTTY);
		assert_true(pair[1] >= 0);
		assert_int_equal(terminal_raw(pair[1], &old), -ENOTTY);
		assert_int_equal(tcgetattr(pair[1], &now), 0);
		assert_int_equal(now.c_lflag, old.c_lflag);
		close(pair[1]);
	}
	close(pair[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_keys_apart),
		cmocka_unit_test(test_typed),
		cmocka_unit_test(test_bytes_of_a_pipe_are_no_keys),
		cmocka_unit_test(test_slow_guest),
		cmocka_unit_test(test_input_from_a_file),
		cmocka_unit_test(test_slow_reader),
		cmocka_unit_test(test_reader_goes_away),
		cmocka_unit_test(test_socket),
		cmocka_unit_test(test_nowhere),
		cmocka_unit_test(test_raw_and_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
