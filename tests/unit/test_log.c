/* Lines of the log, and that nobody waits for who reads them. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/log.h"

/* All that was written. */
static void heard(int fd, char *text, size_t size)
{
	size_t len = 0;
	ssize_t got;

	while (len < size - 1 && (got = read(fd, text + len, size - 1 - len)) > 0) {
		len += (size_t)got;
	}
	text[len] = '\0';
}

/* The other end does not read: until lines are dropped. Then it does. */
static void lines_dropped(int in, int out)
{
	static char text[1 << 20];
	char expected[96];
	unsigned lines = 0, n;
	const char *at;

	log_set_output(out);
	for (n = 0; n < 20000; n++) {
		log_notice("full", "%1000u", n);
	}
	heard(in, text, sizeof(text));
	for (at = text; (at = strchr(at, '\n')) != NULL; at++) {
		lines++;
	}
	assert_true(lines > 10 && lines < 20000);
	snprintf(expected, sizeof(expected),
		 "<4>log-dropped: %u lines before this one were not taken\n<5>after: all is well\n",
		 20000 - lines);
	log_notice("after", "all is well");
	heard(in, text, sizeof(text));
	assert_string_equal(text, expected);
	log_notice("after", "said once");
	heard(in, text, sizeof(text));
	assert_string_equal(text, "<5>after: said once\n");
	log_set_output(STDERR_FILENO);
}

static void test_pipe(void **state)
{
	int ends[2];

	(void)state;
	assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
	lines_dropped(ends[0], ends[1]);
	close(ends[0]);
	close(ends[1]);
}

/* journald's: the descriptor is shared and blocks. */
static void test_socket(void **state)
{
	int ends[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	lines_dropped(ends[0], ends[1]);
	close(ends[0]);
	close(ends[1]);
}

static void test_line(void **state)
{
	char text[8192];
	int ends[2];

	(void)state;
	assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
	log_set_output(ends[1]);
	log_warning("forged", "a\n<3>b");
	log_error("long", "%3000u", 7U);
	log_debug("quiet", "not said");
	heard(ends[0], text, sizeof(text));
	assert_memory_equal(text, "<4>forged: a?<3>b\n<3>long:", 26);
	assert_int_equal(text[strlen(text) - 1], '\n');
	assert_true(strlen(text) < 2100);
	log_set_output(STDERR_FILENO);
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pipe),
		cmocka_unit_test(test_socket),
		cmocka_unit_test(test_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
