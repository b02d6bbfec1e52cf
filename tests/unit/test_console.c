/* The console of a VM: who reads along sees every byte in order, or is told what it missed; nobody
 * holds anybody up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "witnessd/console.h"

struct reader {
	struct console_watcher watcher;
	struct buf got;
	unsigned pieces, ended;
	char why[64];
	int greedy; /* asks for more at once */
};

struct sample {
	uv_loop_t loop;
	struct console *console;
	int guest; /* the VM's end */
};

static void reader_bytes(struct console_watcher *w, const void *bytes, size_t len)
{
	struct reader *r = list_entry(w, struct reader, watcher);

	assert_true(len > 0 && len <= CONSOLE_PIECE);
	buf_append(&r->got, bytes, len);
	r->pieces++;
	if (r->greedy)
		console_next(w);
}

static void reader_ended(struct console_watcher *w, const char *why)
{
	struct reader *r = list_entry(w, struct reader, watcher);

	r->ended++;
	snprintf(r->why, sizeof(r->why), "%s", why);
}

static struct reader *reader_new(struct sample *s, size_t replay, bool follow, int greedy)
{
	struct reader *r = mem_zalloc(sizeof(*r));

	r->greedy = greedy;
	r->watcher.bytes = reader_bytes;
	r->watcher.ended = reader_ended;
	assert_int_equal(console_watch(s->console, &r->watcher, replay, follow), 0);
	console_next(&r->watcher);
	return r;
}

static void reader_free(struct reader *r)
{
	console_unwatch(&r->watcher);
	buf_free(&r->got);
	free(r);
}

static void attach(struct sample *s)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(console_attach(s->console, pair[0]), 0);
	s->guest = pair[1];
}

static void turn(struct sample *s)
{
	for (int i = 0; i < 50; i++)
		uv_run(&s->loop, UV_RUN_NOWAIT);
}

static void say(struct sample *s, const char *text)
{
	assert_int_equal(write(s->guest, text, strlen(text)), strlen(text));
	turn(s);
}

static int setup(void **state)
{
	struct sample *s = mem_zalloc(sizeof(*s));

	uv_loop_init(&s->loop);
	s->console = console_new(&s->loop);
	attach(s);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct sample *s = *state;

	console_free(s->console, "over");
	if (s->guest >= 0)
		close(s->guest);
	uv_run(&s->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&s->loop), 0);
	free(s);
	return 0;
}

static void test_replay(void **state)
{
	struct sample *s = *state;
	struct reader *all, *some;

	say(s, "one two ");
	all = reader_new(s, CONSOLE_KEEP, true, 1);
	some = reader_new(s, 4, true, 1);
	say(s, "three");
	assert_string_equal(buf_string(&all->got), "one two three");
	assert_string_equal(buf_string(&some->got), "two three");
	reader_free(all);
	reader_free(some);
}

static void test_once(void **state)
{
	struct sample *s = *state;
	struct reader *r, *nothing = reader_new(s, CONSOLE_KEEP, false, 1);

	assert_int_equal(nothing->ended, 1); /* nothing was printed yet: over at once */
	say(s, "before");
	r = reader_new(s, CONSOLE_KEEP, false, 0);
	say(s, "behind");
	assert_int_equal(r->ended, 0);
	console_next(&r->watcher);
	assert_string_equal(buf_string(&r->got), "before");
	assert_int_equal(r->ended, 1);
	assert_string_equal(r->why, "");
	reader_free(r);
	reader_free(nothing);
}

/* Who asks for nothing is given nothing, and the others do not wait. */
static void test_slow_reader(void **state)
{
	struct sample *s = *state;
	struct reader *slow = reader_new(s, 0, true, 0), *quick = reader_new(s, 0, true, 1);
	char line[1001];
	const char *missed;

	memset(line, 'x', 1000);
	line[1000] = '\0';
	say(s, "first");
	for (int i = 0; i < 100; i++)
		say(s, line);
	assert_int_equal(slow->pieces, 1);
	assert_int_equal(quick->got.len, 5 + 100000);
	slow->greedy = 1;
	console_next(&slow->watcher);
	missed = strstr(buf_string(&slow->got), "[34464 bytes were missed]");
	assert_non_null(missed);
	assert_int_equal(slow->got.len,
			 5 + strlen("\r\n[34464 bytes were missed]\r\n") + CONSOLE_KEEP);
	reader_free(slow);
	reader_free(quick);
}

static void test_keys(void **state)
{
	struct sample *s = *state;
	char heard[16] = "";
	uint8_t *many = mem_zalloc(CONSOLE_KEYS_MAX);
	int rv = 0;

	assert_int_equal(console_write(s->console, "ls\r", 3), 0);
	assert_int_equal(read(s->guest, heard, sizeof(heard)), 3);
	assert_string_equal(heard, "ls\r");
	/* A guest that takes nothing: what it is typed is bounded. */
	for (int i = 0; i < 100 && rv == 0; i++)
		rv = console_write(s->console, many, CONSOLE_KEYS_MAX);
	assert_int_equal(rv, -ENOBUFS);
	console_detach(s->console);
	assert_int_equal(console_write(s->console, "x", 1), -EAGAIN);
	free(many);
}

/* The last words before its end are there, and the next start goes on behind them. */
static void test_restart(void **state)
{
	struct sample *s = *state;
	struct reader *r = reader_new(s, 0, true, 1);

	assert_int_equal(write(s->guest, "panic!", 6), 6);
	close(s->guest);
	console_detach(s->console);
	assert_string_equal(buf_string(&r->got), "panic!");
	attach(s);
	say(s, " again");
	assert_string_equal(buf_string(&r->got), "panic! again");
	assert_int_equal(r->ended, 0);
	reader_free(r);
}

static void test_too_many(void **state)
{
	struct sample *s = *state;
	struct reader *all[CONSOLE_WATCHERS_MAX];
	struct console_watcher more = {.bytes = reader_bytes, .ended = reader_ended};

	for (unsigned i = 0; i < CONSOLE_WATCHERS_MAX; i++)
		all[i] = reader_new(s, 0, true, 1);
	assert_int_equal(console_watch(s->console, &more, 0, true), -EBUSY);
	reader_free(all[0]);
	assert_int_equal(console_watch(s->console, &more, 0, true), 0);
	console_unwatch(&more);
	for (unsigned i = 1; i < CONSOLE_WATCHERS_MAX; i++)
		reader_free(all[i]);
}

static void leaver_bytes(struct console_watcher *w, const void *bytes, size_t len)
{
	(void)bytes;
	(void)len;
	console_unwatch(w);
}

/* A reader may leave while it is told. */
static void test_leaves(void **state)
{
	struct sample *s = *state;
	struct console_watcher leaver = {.bytes = leaver_bytes, .ended = reader_ended};
	struct reader *r = reader_new(s, 0, true, 1);

	assert_int_equal(console_watch(s->console, &leaver, 0, true), 0);
	console_next(&leaver);
	say(s, "word");
	assert_null(leaver.console);
	assert_string_equal(buf_string(&r->got), "word");
	console_free(s->console, "the VM has left this board");
	assert_int_equal(r->ended, 1);
	assert_string_equal(r->why, "the VM has left this board");
	reader_free(r);
	s->console = console_new(&s->loop);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_replay),  CASE(test_once),	 CASE(test_slow_reader), CASE(test_keys),
		CASE(test_restart), CASE(test_too_many), CASE(test_leaves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
