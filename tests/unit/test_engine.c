/* The engine: boards in one process on one loop, their links socketpairs. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <endian.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/engine.h"
#include "cluster/segment.h"
#include "lib/buf.h"
#include "lib/crc.h"
#include "lib/mem.h"

enum { BOARDS = 4, WAIT_MS = 20000 };

/* A board's model is the text of all its entries. */
struct board {
	struct fixture *f;
	uint64_t id;
	char dir[256];
	char address[64];
	struct engine *engine; /* NULL: not running */
	struct buf model;
	unsigned entries;
	uint64_t last_index;
	enum engine_state state;
	uint64_t leader;
	int failed;
	char message[600];
	bool cut; /* no link to or from it */
	bool deaf; /* dials are not answered */
	bool closing;
	struct engine_dial *dials[64];
	unsigned dial_count;
	bool refuse_apply;
	bool restored;
};

struct fixture {
	uv_loop_t loop;
	char root[128];
	struct board boards[BOARDS];
	unsigned ok, again, canceled, other;
	int member_status;
	bool member_done;
};

static int on_apply(void *arg, uint64_t index, const uint8_t *data, size_t len, void **ret_result)
{
	struct board *b = arg;

	assert_true(index > b->last_index);
	b->last_index = index;
	if (b->refuse_apply)
		return -EIO;
	buf_append(&b->model, data, len);
	b->entries++;
	*ret_result = mem_strdup("done");
	return 0;
}

static void on_drop(void *arg, void *result)
{
	(void)arg;
	free(result);
}

static int on_snapshot(void *arg, struct buf *out)
{
	struct board *b = arg;

	buf_append(out, b->model.data, b->model.len);
	return 0;
}

static int on_restore(void *arg, const uint8_t *data, size_t len)
{
	struct board *b = arg;

	buf_clear(&b->model);
	buf_append(&b->model, data, len);
	b->restored = true;
	return 0;
}

static void on_changed(void *arg, enum engine_state state, uint64_t term, uint64_t leader)
{
	struct board *b = arg;

	(void)term;
	b->state = state;
	b->leader = leader;
}

static struct board *board_by_address(struct fixture *f, const char *address)
{
	for (unsigned i = 0; i < BOARDS; i++)
		if (f->boards[i].engine != NULL && !f->boards[i].closing &&
		    strcmp(f->boards[i].address, address) == 0)
			return &f->boards[i];
	return NULL;
}

static void on_dial(void *arg, struct engine_dial *dial, uint64_t id, const char *address)
{
	struct board *b = arg;
	struct board *to = board_by_address(b->f, address);
	int pair[2];

	if (b->deaf) {
		assert_true(b->dial_count < 64);
		b->dials[b->dial_count++] = dial;
		return;
	}
	if (to == NULL || to->id != id || to->cut || b->cut) {
		engine_dialed(dial, -ECONNREFUSED);
		return;
	}
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
			 0);
	engine_accept(to->engine, b->id, b->address, pair[1]);
	engine_dialed(dial, pair[0]);
}

static void on_dial_cancel(void *arg, struct engine_dial *dial)
{
	struct board *b = arg;

	for (unsigned i = 0; i < b->dial_count; i++)
		if (b->dials[i] == dial)
			b->dials[i] = b->dials[--b->dial_count];
	engine_dialed(dial, -ECANCELED);
}

static void on_failed(void *arg, int error, const char *message)
{
	struct board *b = arg;

	b->failed = error;
	(void)snprintf(b->message, sizeof(b->message), "%s", message);
}

static int board_start(struct board *b)
{
	const struct engine_events events = {
		.arg = b,
		.apply = on_apply,
		.drop = on_drop,
		.snapshot = on_snapshot,
		.restore = on_restore,
		.changed = on_changed,
		.dial = on_dial,
		.dial_cancel = on_dial_cancel,
		.failed = on_failed,
	};
	const char *message;
	int rv;

	buf_clear(&b->model);
	b->entries = 0;
	b->last_index = 0;
	b->failed = 0;
	b->state = ENGINE_STOPPED;
	b->leader = 0;
	b->restored = false;
	rv = engine_start(&b->f->loop, b->dir, b->id, b->address, &events, &b->engine, &message);
	if (rv < 0) {
		b->engine = NULL;
		(void)snprintf(b->message, sizeof(b->message), "%s", message);
	}
	return rv;
}

static void on_board_closed(void *arg)
{
	struct board *b = arg;

	b->engine = NULL;
	b->closing = false;
}

static void board_close_begin(struct board *b)
{
	b->closing = true;
	engine_close(b->engine, on_board_closed, b);
}

static void on_timer(uv_timer_t *timer)
{
	(void)timer;
}

/* Runs the loop until `done` or WAIT_MS. */
static bool run_until(struct fixture *f, bool (*done)(struct fixture *f, void *arg), void *arg)
{
	uint64_t end = uv_hrtime() / 1000000 + WAIT_MS;
	uv_timer_t timer;
	bool ok;

	uv_timer_init(&f->loop, &timer);
	uv_timer_start(&timer, on_timer, 20, 20);
	while (!(ok = done(f, arg)) && uv_hrtime() / 1000000 < end)
		uv_run(&f->loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	return ok;
}

static bool never(struct fixture *f, void *arg)
{
	uint64_t *end = arg;

	(void)f;
	return uv_hrtime() / 1000000 >= *end;
}

static void run_ms(struct fixture *f, uint64_t ms)
{
	uint64_t end = uv_hrtime() / 1000000 + ms;

	assert_true(run_until(f, never, &end));
}

static bool is_closed(struct fixture *f, void *arg)
{
	struct board *b = arg;

	(void)f;
	return b->engine == NULL;
}

static void board_stop(struct board *b)
{
	if (b->engine == NULL)
		return;
	if (!b->closing)
		board_close_begin(b);
	assert_true(run_until(b->f, is_closed, b));
}

static struct board *leader_of(struct fixture *f)
{
	for (unsigned i = 0; i < BOARDS; i++)
		if (f->boards[i].engine != NULL && !f->boards[i].cut &&
		    engine_state(f->boards[i].engine) == ENGINE_LEADER)
			return &f->boards[i];
	return NULL;
}

static bool has_leader(struct fixture *f, void *arg)
{
	(void)arg;
	return leader_of(f) != NULL;
}

static struct board *wait_leader(struct fixture *f)
{
	assert_true(run_until(f, has_leader, NULL));
	return leader_of(f);
}

static void on_done(void *arg, int status, uint64_t index, void *result)
{
	struct fixture *f = arg;

	if (status == 0) {
		assert_true(index > 0);
		assert_string_equal(result, "done");
		free(result);
		f->ok++;
	} else {
		assert_null(result);
		if (status == -EAGAIN)
			f->again++;
		else if (status == -ECANCELED)
			f->canceled++;
		else
			f->other++;
	}
}

static void propose(struct board *b, const char *text)
{
	engine_propose(b->engine, (const uint8_t *)text, strlen(text), on_done, b->f);
}

static bool all_answered(struct fixture *f, void *arg)
{
	return f->ok + f->again + f->canceled + f->other >= *(unsigned *)arg;
}

static void wait_answers(struct fixture *f, unsigned count)
{
	assert_true(run_until(f, all_answered, &count));
}

static void on_member(void *arg, int status)
{
	struct fixture *f = arg;

	f->member_status = status;
	f->member_done = true;
}

static bool member_done(struct fixture *f, void *arg)
{
	(void)arg;
	return f->member_done;
}

static int wait_member(struct fixture *f)
{
	assert_true(run_until(f, member_done, NULL));
	f->member_done = false;
	return f->member_status;
}

/* The boards' models are equal and hold `entries` entries. */
struct same {
	unsigned mask;
	size_t bytes;
};

static bool are_same(struct fixture *f, void *arg)
{
	const struct same *same = arg;
	const struct board *first = NULL;

	for (unsigned i = 0; i < BOARDS; i++) {
		const struct board *b = &f->boards[i];

		if (!(same->mask & (1U << i)))
			continue;
		if (b->model.len != same->bytes)
			return false;
		if (first == NULL)
			first = b;
		else if (memcmp(first->model.data, b->model.data, same->bytes) != 0)
			return false;
	}
	return true;
}

static void wait_same(struct fixture *f, unsigned mask, size_t bytes)
{
	struct same same = {mask, bytes};

	if (run_until(f, are_same, &same))
		return;
	for (unsigned i = 0; i < BOARDS; i++)
		print_message("board %u: %zu bytes of %zu\n", i + 1, f->boards[i].model.len, bytes);
	fail();
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void remove_dir(const char *path)
{
	(void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int setup(void **state)
{
	struct fixture *f = mem_zalloc(sizeof(*f));

	uv_loop_init(&f->loop);
	(void)snprintf(f->root, sizeof(f->root), "%s/engine-XXXXXX",
		       getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(f->root));
	for (unsigned i = 0; i < BOARDS; i++) {
		struct board *b = &f->boards[i];

		b->f = f;
		b->id = i + 1;
		(void)snprintf(b->dir, sizeof(b->dir), "%s/%u", f->root, i + 1);
		(void)snprintf(b->address, sizeof(b->address), "board%u", i + 1);
	}
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < BOARDS; i++) {
		board_stop(&f->boards[i]);
		buf_free(&f->boards[i].model);
	}
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	remove_dir(f->root);
	free(f);
	return 0;
}

/* Boards 1..n as voters, board 1 the first leader. */
static void make_cluster(struct fixture *f, unsigned n)
{
	struct board *first = &f->boards[0];

	assert_int_equal(engine_bootstrap(first->dir, first->id, first->address), 0);
	assert_int_equal(board_start(first), 0);
	(void)wait_leader(f);
	for (unsigned i = 1; i < n; i++) {
		struct board *b = &f->boards[i];

		assert_int_equal(board_start(b), 0);
		engine_add(first->engine, b->id, b->address, on_member, f);
		assert_int_equal(wait_member(f), 0);
		engine_promote(first->engine, b->id, on_member, f);
		assert_int_equal(wait_member(f), 0);
	}
}

static void test_alone(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];

	assert_false(engine_exists(b->dir));
	assert_int_equal(engine_bootstrap(b->dir, 1, "board1"), 0);
	assert_true(engine_exists(b->dir));
	assert_int_equal(engine_bootstrap(b->dir, 1, "board1"), -EEXIST);
	assert_int_equal(board_start(b), 0);
	assert_ptr_equal(wait_leader(f), b);
	for (unsigned i = 0; i < 1000; i++)
		propose(b, "x");
	wait_answers(f, 1000);
	assert_int_equal(f->ok, 1000);
	assert_int_equal(b->model.len, 1000);
	assert_int_equal(b->state, ENGINE_LEADER);
	assert_int_equal(b->leader, 1);
	board_stop(b);
	/* Its log brings the model back. */
	assert_int_equal(board_start(b), 0);
	assert_int_equal(b->model.len, 1000);
	assert_int_equal(engine_applied(b->engine), b->last_index);
}

static void test_three(void **state)
{
	struct fixture *f = *state;
	struct engine_member members[8];
	struct board *b;

	make_cluster(f, 3);
	assert_int_equal(engine_members(f->boards[0].engine, members, 8), 3);
	assert_int_equal(members[2].id, 3);
	assert_int_equal(members[2].role, ENGINE_VOTER);
	assert_string_equal(members[2].address, "board3");
	for (unsigned i = 0; i < 300; i++)
		propose(&f->boards[0], "abc");
	wait_answers(f, 300);
	assert_int_equal(f->ok, 300);
	wait_same(f, 7, 900);
	/* A follower takes nothing. */
	propose(&f->boards[1], "no");
	wait_answers(f, 301);
	assert_int_equal(f->again, 1);
	/* Transfer, then remove the former leader. */
	engine_transfer(f->boards[0].engine, 2, on_member, f);
	assert_int_equal(wait_member(f), 0);
	b = wait_leader(f);
	assert_int_equal(b->id, 2);
	engine_remove(b->engine, 2, on_member, f);
	assert_int_equal(wait_member(f), -EPERM);
	engine_remove(b->engine, 9, on_member, f);
	assert_int_equal(wait_member(f), -ENOENT);
	engine_add(b->engine, 3, "elsewhere", on_member, f);
	assert_int_equal(wait_member(f), -EEXIST);
	engine_promote(b->engine, 3, on_member, f);
	assert_int_equal(wait_member(f), -EALREADY);
	engine_remove(b->engine, 1, on_member, f);
	assert_int_equal(wait_member(f), 0);
	assert_int_equal(engine_members(b->engine, members, 8), 2);
	propose(b, "def");
	wait_answers(f, 302);
	assert_int_equal(f->ok, 301);
	wait_same(f, 6, 903);
}

static void test_leader_lost(void **state)
{
	struct fixture *f = *state;
	struct board *old;
	struct board *new;

	make_cluster(f, 3);
	propose(&f->boards[0], "one");
	wait_answers(f, 1);
	board_stop(&f->boards[0]);
	new = wait_leader(f);
	assert_int_not_equal(new->id, 1);
	propose(new, "two");
	wait_answers(f, 2);
	assert_int_equal(f->ok, 2);
	old = &f->boards[0];
	assert_int_equal(board_start(old), 0);
	wait_same(f, 7, 6);
}

/* In flight at the loss of the leadership: each is answered exactly once. */
static void test_in_flight(void **state)
{
	struct fixture *f = *state;

	make_cluster(f, 3);
	board_stop(&f->boards[1]);
	board_stop(&f->boards[2]);
	for (unsigned i = 0; i < 700; i++)
		propose(&f->boards[0], "y");
	wait_answers(f, 700);
	assert_int_equal(f->ok, 0);
	assert_int_equal(f->canceled + f->again, 700);
	assert_true(f->canceled > 0);
	run_ms(f, 300);
	assert_int_equal(f->canceled + f->again, 700);
}

static void test_close_busy(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];

	make_cluster(f, 3);
	for (unsigned i = 0; i < 600; i++)
		propose(b, "z");
	uv_run(&f->loop, UV_RUN_NOWAIT);
	for (unsigned i = 0; i < 600; i++)
		propose(b, "z");
	engine_add(b->engine, 4, "board4", on_member, f);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	engine_transfer(b->engine, 0, on_member, f);
	propose(b, "z");
	board_stop(b);
	assert_int_equal(f->ok + f->canceled + f->again + f->other, 1201);
	assert_true(f->member_done);
}

static void test_snapshot(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];
	unsigned total = 0;

	make_cluster(f, 3);
	board_stop(&f->boards[2]);
	for (unsigned round = 0; round < 14; round++) {
		for (unsigned i = 0; i < 1000; i++)
			propose(b, "0123456789");
		total += 1000;
		wait_answers(f, total);
	}
	assert_int_equal(f->ok, total);
	/* Away for longer than the log reaches back: it gets the snapshot. */
	assert_int_equal(board_start(&f->boards[2]), 0);
	wait_same(f, 7, total * 10);
	assert_true(f->boards[2].restored);
	/* And so does a start of its own. */
	board_stop(&f->boards[2]);
	assert_int_equal(board_start(&f->boards[2]), 0);
	assert_true(f->boards[2].restored);
	wait_same(f, 7, total * 10);
}

static void test_unanswered_dials(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];

	make_cluster(f, 2);
	b->deaf = true;
	board_stop(&f->boards[1]);
	run_ms(f, 1500);
	assert_true(b->dial_count > 0);
	board_stop(b);
	assert_int_equal(b->dial_count, 0);
}

static void test_directory(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];
	struct board *other = &f->boards[1];
	int fd;

	assert_int_equal(engine_bootstrap(b->dir, 1, "board1"), 0);
	assert_int_equal(board_start(b), 0);
	/* In use. */
	(void)snprintf(other->dir, sizeof(other->dir), "%s", b->dir);
	assert_int_equal(board_start(other), -EBUSY);
	assert_non_null(strstr(other->message, b->dir));
	board_stop(b);
	/* Another board's. */
	assert_int_equal(board_start(other), -EXDEV);
	assert_non_null(strstr(other->message, "board 1"));
	/* Not a directory. */
	(void)snprintf(other->dir, sizeof(other->dir), "%s/file", f->root);
	fd = open(other->dir, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(board_start(other), -ENOTDIR);
	/* No parent. */
	(void)snprintf(other->dir, sizeof(other->dir), "%s/no/such", f->root);
	assert_int_equal(board_start(other), -ENOENT);
	assert_int_equal(engine_bootstrap(other->dir, 2, "board2"), -ENOENT);
}

static void test_model_refuses(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];

	make_cluster(f, 1);
	b->refuse_apply = true;
	propose(b, "bad");
	propose(b, "bad");
	wait_answers(f, 2);
	assert_int_equal(f->canceled, 2);
	run_ms(f, 50);
	assert_int_equal(b->failed, -EIO);
	assert_int_equal(engine_state(b->engine), ENGINE_STOPPED);
	assert_int_equal(b->state, ENGINE_STOPPED);
	propose(b, "late");
	wait_answers(f, 3);
	assert_int_equal(f->again, 1);
}

static void test_sizes(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];
	size_t max = 1 << 20;
	uint8_t *big = mem_zalloc(max + 1);

	make_cluster(f, 1);
	engine_propose(b->engine, big, max + 1, on_done, f);
	engine_propose(b->engine, big, 0, on_done, f);
	wait_answers(f, 2);
	assert_int_equal(f->other, 2);
	for (unsigned i = 0; i < 20; i++)
		engine_propose(b->engine, big, max - i, on_done, f);
	wait_answers(f, 22);
	assert_int_equal(f->ok, 20);
	assert_int_equal(b->model.len, 20 * max - 190);
	board_stop(b);
	assert_int_equal(board_start(b), 0);
	assert_int_equal(b->model.len, 20 * max - 190);
	free(big);
}

/* --- what power cuts and bad cards leave --- */

enum { CRASH_ENTRIES = 9000 };

/* A child runs a cluster of one, gets CRASH_ENTRIES entries acknowledged and dies by SIGKILL. */
static void make_crashed(struct fixture *f, unsigned entries)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		char text[16];
		unsigned total = 0;

		uv_loop_fork(&f->loop);
		make_cluster(f, 1);
		while (total < entries) {
			for (unsigned i = 0; i < 100; i++) {
				(void)snprintf(text, sizeof(text), "%07u,", total++);
				propose(&f->boards[0], text);
			}
			wait_answers(f, total);
		}
		if (f->ok == entries)
			(void)kill(getpid(), SIGKILL);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

static void copy_dir(const char *from, const char *to)
{
	char command[600];

	remove_dir(to);
	(void)snprintf(command, sizeof(command), "cp -a --sparse=always '%s' '%s'", from, to);
	assert_int_equal(system(command), 0);
}

static bool model_is_whole(const struct board *b, unsigned entries)
{
	char text[16];

	if (b->model.len != (size_t)entries * 8)
		return false;
	for (unsigned i = 0; i < entries; i++) {
		(void)snprintf(text, sizeof(text), "%07u,", i);
		if (memcmp(b->model.data + (size_t)i * 8, text, 8) != 0)
			return false;
	}
	return true;
}

/* Where the file's zeros at its end begin. */
static off_t used_size(int fd)
{
	struct stat st;
	uint8_t *data;
	size_t n;

	assert_int_equal(fstat(fd, &st), 0);
	data = mem_alloc((size_t)st.st_size + 1);
	assert_int_equal(pread(fd, data, (size_t)st.st_size, 0), st.st_size);
	for (n = (size_t)st.st_size; n > 0 && data[n - 1] == 0; n--)
		;
	free(data);
	return (off_t)n;
}

enum damage { DAMAGE_FLIP, DAMAGE_CUT, DAMAGE_EMPTY };

/* Starts from the damaged directory: either refused, naming the file, or nothing is missing. */
static void try_damage(struct fixture *f, const char *good, const char *name, enum damage damage,
		       off_t at, unsigned entries)
{
	struct board *b = &f->boards[0];
	char path[512];
	uint8_t byte;
	int fd, rv;

	copy_dir(good, b->dir);
	(void)snprintf(path, sizeof(path), "%s/%s", b->dir, name);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	if (damage == DAMAGE_FLIP) {
		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= (uint8_t)(1 << (at % 8));
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	} else {
		assert_int_equal(ftruncate(fd, damage == DAMAGE_CUT ? at : 0), 0);
	}
	close(fd);
	rv = board_start(b);
	if (rv == -EBADMSG) {
		if (strstr(b->message, b->dir) == NULL ||
		    strstr(b->message, "join it anew") == NULL)
			print_message("%s\n", b->message);
		assert_non_null(strstr(b->message, b->dir));
		assert_non_null(strstr(b->message, "join it anew"));
	} else if (rv != 0 || !model_is_whole(b, entries)) {
		print_message("%s, damage %d at %lld: %d %s, %zu bytes\n", name, (int)damage,
			      (long long)at, rv, b->message, b->model.len);
		fail();
	}
	if (rv == 0)
		board_stop(b);
	else
		run_ms(f, 1);
}

static void try_all_damage(struct fixture *f, unsigned entries)
{
	struct board *b = &f->boards[0];
	char good[300];
	const struct dirent *d;
	DIR *dir;

	make_crashed(f, entries);
	(void)snprintf(good, sizeof(good), "%s/good", f->root);
	assert_int_equal(rename(b->dir, good), 0);
	copy_dir(good, b->dir);
	assert_int_equal(board_start(b), 0);
	assert_true(model_is_whole(b, entries));
	board_stop(b);
	dir = opendir(good);
	assert_non_null(dir);
	while ((d = readdir(dir)) != NULL) {
		char path[600];
		off_t used;
		int fd;

		if (d->d_name[0] == '.' || strcmp(d->d_name, "lock") == 0)
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s", good, d->d_name);
		fd = open(path, O_RDONLY);
		assert_true(fd >= 0);
		used = used_size(fd);
		close(fd);
		for (off_t i = 0; i < 24 && used > 0; i++)
			try_damage(f, good, d->d_name, DAMAGE_FLIP,
				   i < 8 ? i * 5 % used : used * i / 24, entries);
		for (off_t i = 1; i < 8 && used > 8; i++)
			try_damage(f, good, d->d_name, DAMAGE_CUT, used * i / 8, entries);
		if (strncmp(d->d_name, "open-", 5) != 0 || used == 0)
			try_damage(f, good, d->d_name, DAMAGE_EMPTY, 0, entries);
	}
	closedir(dir);
}

static void test_damage_log(void **state)
{
	try_all_damage(*state, 500);
}

static void test_damage_snapshot(void **state)
{
	try_all_damage(*state, CRASH_ENTRIES);
}

/* A write that never ended is no damage: what was acknowledged is there, and life goes on. */
static void test_torn_tail(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];
	char path[512];
	uint8_t torn[3000];
	uint32_t crc;
	off_t used;
	int fd;

	make_crashed(f, 500);
	(void)snprintf(path, sizeof(path), "%s/open-1", b->dir);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	used = (used_size(fd) + 7) / 8 * 8;
	/* The first sectors of a batch of one entry, the later ones missing. */
	memset(torn, 'x', sizeof(torn));
	memset(torn + 8, 0, 24);
	torn[8] = 1;
	torn[16] = 1;
	torn[24] = SEGMENT_COMMAND;
	torn[29] = 0x10;
	crc = htole32(crc_add(0, torn + 8, 24));
	memcpy(torn, &crc, sizeof(crc));
	assert_true(pwrite(fd, torn, (size_t)((used / 512 + 1) * 512 - used), used) > 0);
	close(fd);
	assert_int_equal(board_start(b), 0);
	assert_true(model_is_whole(b, 500));
	propose(b, "more");
	wait_answers(f, 1);
	assert_int_equal(f->ok, 1);
	board_stop(b);
	assert_int_equal(board_start(b), 0);
	assert_int_equal(b->model.len, 4004);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_three, setup, teardown),
		cmocka_unit_test_setup_teardown(test_leader_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(test_in_flight, setup, teardown),
		cmocka_unit_test_setup_teardown(test_close_busy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_snapshot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unanswered_dials, setup, teardown),
		cmocka_unit_test_setup_teardown(test_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_model_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage_log, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage_snapshot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_torn_tail, setup, teardown),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
