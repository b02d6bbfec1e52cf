/* The engine: what it does, and what crashes and damaged files do to it. */
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
#include <inttypes.h>
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
#include "tests/unit/engine_boards.h"

static void test_alone(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];

	assert_false(engine_exists(b->dir));
	assert_int_equal(engine_bootstrap(b->dir, 1, "board1"), 0);
	assert_true(engine_exists(b->dir));
	assert_int_equal(engine_bootstrap(b->dir, 1, "board1"), -EEXIST);
	assert_int_equal(board_start(b), 0);
	assert_ptr_equal(boards_wait_leader(f), b);
	for (unsigned i = 0; i < 1000; i++)
		board_propose(b, "x");
	boards_wait_answers(f, 1000);
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

	boards_cluster(f, 3);
	assert_int_equal(engine_members(f->boards[0].engine, members, 8), 3);
	assert_int_equal(members[2].id, 3);
	assert_int_equal(members[2].role, ENGINE_VOTER);
	assert_string_equal(members[2].address, "board3");
	for (unsigned i = 0; i < 300; i++)
		board_propose(&f->boards[0], "abc");
	boards_wait_answers(f, 300);
	assert_int_equal(f->ok, 300);
	boards_wait_same(f, 7, 900);
	/* A follower takes nothing. */
	board_propose(&f->boards[1], "no");
	boards_wait_answers(f, 301);
	assert_int_equal(f->again, 1);
	/* Transfer, then remove the former leader. */
	engine_transfer(f->boards[0].engine, 2, on_member_done, f);
	assert_int_equal(boards_wait_member(f), 0);
	b = boards_wait_leader(f);
	assert_int_equal(b->id, 2);
	engine_remove(b->engine, 2, on_member_done, f);
	assert_int_equal(boards_wait_member(f), -EPERM);
	engine_remove(b->engine, 9, on_member_done, f);
	assert_int_equal(boards_wait_member(f), -ENOENT);
	engine_add(b->engine, 3, "elsewhere", on_member_done, f);
	assert_int_equal(boards_wait_member(f), -EEXIST);
	engine_promote(b->engine, 3, on_member_done, f);
	assert_int_equal(boards_wait_member(f), -EALREADY);
	engine_remove(b->engine, 1, on_member_done, f);
	assert_int_equal(boards_wait_member(f), 0);
	assert_int_equal(engine_members(b->engine, members, 8), 2);
	board_propose(b, "def");
	boards_wait_answers(f, 302);
	assert_int_equal(f->ok, 301);
	boards_wait_same(f, 6, 903);
}

static void test_leader_lost(void **state)
{
	struct fixture *f = *state;
	struct board *old;
	struct board *new;

	boards_cluster(f, 3);
	board_propose(&f->boards[0], "one");
	boards_wait_answers(f, 1);
	board_stop(&f->boards[0]);
	new = boards_wait_leader(f);
	assert_int_not_equal(new->id, 1);
	board_propose(new, "two");
	boards_wait_answers(f, 2);
	assert_int_equal(f->ok, 2);
	old = &f->boards[0];
	assert_int_equal(board_start(old), 0);
	boards_wait_same(f, 7, 6);
}

/* In flight at the loss of the leadership: each is answered exactly once. */
static void test_in_flight(void **state)
{
	struct fixture *f = *state;

	boards_cluster(f, 3);
	board_stop(&f->boards[1]);
	board_stop(&f->boards[2]);
	for (unsigned i = 0; i < 700; i++)
		board_propose(&f->boards[0], "y");
	boards_wait_answers(f, 700);
	assert_int_equal(f->ok, 0);
	assert_int_equal(f->canceled + f->again, 700);
	assert_true(f->canceled > 0);
	boards_run_ms(f, 300);
	assert_int_equal(f->canceled + f->again, 700);
}

static void test_close_busy(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];

	boards_cluster(f, 3);
	for (unsigned i = 0; i < 600; i++)
		board_propose(b, "z");
	uv_run(&f->loop, UV_RUN_NOWAIT);
	for (unsigned i = 0; i < 600; i++)
		board_propose(b, "z");
	engine_add(b->engine, 4, "board4", on_member_done, f);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	engine_transfer(b->engine, 0, on_member_done, f);
	board_propose(b, "z");
	board_stop(b);
	assert_int_equal(f->ok + f->canceled + f->again + f->other, 1201);
	assert_true(f->member_done);
}

static int tail_visit(void *arg, uint64_t index, const uint8_t *data, size_t len)
{
	struct buf *text = arg;

	assert_true(index > 1);
	buf_append(text, data, len);
	return text->len >= 6 ? -EFBIG : 0;
}

/* A board that has lost its majority still has what nobody can agree upon any more. */
static void test_tail(void **state)
{
	struct fixture *f = *state;
	struct board *b;
	struct buf text = {0};

	boards_cluster(f, 3);
	b = boards_wait_leader(f);
	board_propose(b, "a");
	board_propose(b, "b");
	boards_wait_answers(f, 2);
	assert_int_equal(engine_tail(b->engine, tail_visit, &text), 0);
	assert_int_equal(text.len, 0);
	for (unsigned i = 0; i < 3; i++)
		board_cut(&f->boards[i], true);
	board_propose(b, "c");
	board_propose(b, "d");
	boards_run_ms(f, 300);
	assert_int_equal(engine_tail(b->engine, tail_visit, &text), 0);
	assert_string_equal(buf_string(&text), "cd");
	assert_string_equal(buf_string(&b->model), "ab");
	/* Started alone it knows of nothing that was agreed upon, and has it all. */
	board_stop(b);
	assert_int_equal(board_start(b), 0);
	buf_clear(&text);
	assert_int_equal(engine_tail(b->engine, tail_visit, &text), 0);
	assert_string_equal(buf_string(&text), "abcd");
	assert_int_equal(b->model.len, 0);
	buf_clear(&text);
	buf_puts(&text, "12345");
	assert_int_equal(engine_tail(b->engine, tail_visit, &text), -EFBIG);
	buf_free(&text);
}

static void test_snapshot(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];
	unsigned total = 0;

	boards_cluster(f, 3);
	board_stop(&f->boards[2]);
	for (unsigned round = 0; round < 14; round++) {
		for (unsigned i = 0; i < 1000; i++)
			board_propose(b, "0123456789");
		total += 1000;
		boards_wait_answers(f, total);
	}
	assert_int_equal(f->ok, total);
	/* Away for longer than the log reaches back: it gets the snapshot. */
	assert_int_equal(board_start(&f->boards[2]), 0);
	boards_wait_same(f, 7, total * 10);
	assert_true(f->boards[2].restored);
	/* And so does a start of its own. */
	board_stop(&f->boards[2]);
	assert_int_equal(board_start(&f->boards[2]), 0);
	assert_true(f->boards[2].restored);
	boards_wait_same(f, 7, total * 10);
}

static unsigned many(struct fixture *f, unsigned answered, unsigned thousands)
{
	for (unsigned round = 0; round < thousands; round++) {
		for (unsigned i = 0; i < 1000; i++)
			board_propose(boards_leader(f), "0123456789");
		answered += 1000;
		boards_wait_answers(f, answered);
	}
	return answered;
}

/* The leader goes while it sends a snapshot, at several moments. */
static void test_install_leader_lost(void **state)
{
	struct fixture *f = *state;
	unsigned answered = 0;

	boards_cluster(f, 3);
	for (unsigned round = 0; round < 4; round++) {
		struct board *leader = boards_wait_leader(f);
		struct board *away = &f->boards[leader->id % 3];

		board_stop(away);
		answered = many(f, answered, 8);
		assert_int_equal(board_start(away), 0);
		boards_run_ms(f, 100 + round * 150);
		board_stop(leader);
		assert_int_equal(board_start(leader), 0);
		(void)boards_wait_leader(f);
		boards_wait_same(f, 7, (size_t)f->ok * 10);
	}
	assert_int_equal(f->ok, answered);
}

/* A removed board that runs on disturbs nobody; its address can be had again under a new id. */
static void test_removed(void **state)
{
	struct fixture *f = *state;
	struct board *first = &f->boards[0], *gone = &f->boards[2], *next = &f->boards[3];
	struct engine_member members[4];
	uint64_t term;

	boards_cluster(f, 3);
	board_propose(first, "one");
	boards_wait_answers(f, 1);
	engine_remove(first->engine, gone->id, on_member_done, f);
	assert_int_equal(boards_wait_member(f), 0);
	term = engine_term(first->engine);
	boards_run_ms(f, 5000);
	assert_int_equal(engine_term(first->engine), term);
	assert_int_equal(engine_state(first->engine), ENGINE_LEADER);
	board_stop(gone);
	(void)snprintf(next->address, sizeof(next->address), "%s", gone->address);
	assert_int_equal(board_start(next), 0);
	engine_add(first->engine, next->id, next->address, on_member_done, f);
	assert_int_equal(boards_wait_member(f), 0);
	engine_promote(first->engine, next->id, on_member_done, f);
	assert_int_equal(boards_wait_member(f), 0);
	board_propose(first, "two");
	boards_wait_answers(f, 2);
	boards_wait_same(f, 11, 6);
	assert_int_equal(engine_members(next->engine, members, 4), 3);
}

static void on_promoted(void *arg, int status)
{
	*(int *)arg = status;
}

static bool is_promoted(struct fixture *f, void *arg)
{
	(void)f;
	return *(int *)arg != 1;
}

/* A member that never answers: its promotion hinders no transfer and gives way when it is told to.
 */
static void test_ghost(void **state)
{
	struct fixture *f = *state;
	struct board *b;
	int status = 1;
	uint64_t began;

	boards_cluster(f, 3);
	b = &f->boards[0];
	engine_add(b->engine, 9, "nowhere", on_member_done, f);
	assert_int_equal(boards_wait_member(f), 0);
	engine_promote(b->engine, 9, on_promoted, &status);
	boards_run_ms(f, 300);
	engine_add(b->engine, 8, "anywhere", on_member_done, f);
	assert_int_equal(boards_wait_member(f), -EBUSY);
	engine_transfer(b->engine, 2, on_member_done, f);
	assert_int_equal(boards_wait_member(f), 0);
	assert_true(boards_run_until(f, is_promoted, &status));
	assert_int_equal(status, -ECANCELED);
	b = boards_wait_leader(f);
	assert_int_equal(b->id, 2);
	status = 1;
	engine_promote(b->engine, 9, on_promoted, &status);
	boards_run_ms(f, 300);
	engine_promote_end(b->engine);
	assert_true(boards_run_until(f, is_promoted, &status));
	assert_int_equal(status, -ECANCELED);
	/* Left alone, it ends long before the library's minute. */
	status = 1;
	began = uv_hrtime();
	engine_promote(b->engine, 9, on_promoted, &status);
	assert_true(boards_run_until(f, is_promoted, &status));
	assert_int_equal(status, -ETIMEDOUT);
	assert_true(uv_hrtime() - began > 12ULL * 1000000000);
	engine_remove(b->engine, 9, on_member_done, f);
	assert_int_equal(boards_wait_member(f), 0);
}

static bool has_other_leader(struct fixture *f, void *arg)
{
	struct board *leader = boards_leader(f);

	(void)arg;
	return leader != NULL && leader->id != 1;
}

/* A change of members that only the leader has is taken back when it finds out, even if the entry
 * before it was compacted away; with and without a restart in between. */
static void try_change_undone(struct fixture *f, bool restart)
{
	struct board *old = &f->boards[0];
	struct engine_member members[8];
	unsigned answered;

	boards_cluster(f, 3);
	answered = many(f, 0, 14);
	board_cut(old, true);
	engine_add(old->engine, 9, "nowhere", on_member_done, f);
	boards_run_ms(f, 200);
	assert_int_equal(engine_members(old->engine, members, 8), 4);
	if (restart) {
		board_stop(old);
		assert_int_equal(boards_wait_member(f), -ECANCELED);
	}
	assert_true(boards_run_until(f, has_other_leader, NULL));
	board_propose(boards_leader(f), "0123456789");
	boards_wait_answers(f, answered + 1);
	if (restart) {
		assert_int_equal(board_start(old), 0);
		assert_int_equal(engine_members(old->engine, members, 8), 4);
	} else {
		assert_int_equal(boards_wait_member(f), -ECANCELED);
	}
	board_cut(old, false);
	boards_wait_same(f, 7, (size_t)f->ok * 10);
	assert_int_equal(engine_members(old->engine, members, 8), 3);
	board_propose(boards_wait_leader(f), "0123456789");
	boards_wait_answers(f, answered + 2);
	boards_wait_same(f, 7, (size_t)f->ok * 10);
}

static void test_change_undone(void **state)
{
	try_change_undone(*state, false);
}

static void test_change_undone_restart(void **state)
{
	try_change_undone(*state, true);
}

static uint64_t bytes_written(void)
{
	uint64_t bytes = UINT64_MAX;
	char line[128];
	FILE *io = fopen("/proc/self/io", "r");

	assert_non_null(io);
	while (fgets(line, sizeof(line), io) != NULL)
		(void)sscanf(line, "write_bytes: %" SCNu64, &bytes);
	(void)fclose(io);
	assert_true(bytes != UINT64_MAX);
	return bytes;
}

/* An idle cluster costs the card nothing. */
static void test_idle(void **state)
{
	struct fixture *f = *state;
	uint64_t before;

	boards_cluster(f, 3);
	board_propose(&f->boards[0], "x");
	boards_wait_answers(f, 1);
	boards_wait_same(f, 7, 1);
	boards_run_ms(f, 500);
	before = bytes_written();
	boards_run_ms(f, 3000);
	assert_int_equal(bytes_written() - before, 0);
}

static void test_unanswered_dials(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];

	boards_cluster(f, 2);
	b->deaf = true;
	board_stop(&f->boards[1]);
	boards_run_ms(f, 1500);
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

	boards_cluster(f, 1);
	b->refuse_apply = true;
	board_propose(b, "bad");
	board_propose(b, "bad");
	boards_wait_answers(f, 2);
	assert_int_equal(f->canceled, 2);
	boards_run_ms(f, 50);
	assert_int_equal(b->failed, -EIO);
	assert_int_equal(engine_state(b->engine), ENGINE_STOPPED);
	assert_int_equal(b->state, ENGINE_STOPPED);
	board_propose(b, "late");
	boards_wait_answers(f, 3);
	assert_int_equal(f->again, 1);
}

static void test_sizes(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];
	size_t max = 1 << 20;
	uint8_t *big = mem_zalloc(max + 1);

	boards_cluster(f, 1);
	engine_propose(b->engine, big, max + 1, on_proposed, f);
	engine_propose(b->engine, big, 0, on_proposed, f);
	boards_wait_answers(f, 2);
	assert_int_equal(f->other, 2);
	for (unsigned i = 0; i < 20; i++)
		engine_propose(b->engine, big, max - i, on_proposed, f);
	boards_wait_answers(f, 22);
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
		boards_cluster(f, 1);
		while (total < entries) {
			for (unsigned i = 0; i < 100; i++) {
				(void)snprintf(text, sizeof(text), "%07u,", total++);
				board_propose(&f->boards[0], text);
			}
			boards_wait_answers(f, total);
		}
		if (f->ok == entries)
			(void)kill(getpid(), SIGKILL);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
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

	dir_copy(good, b->dir);
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
	} else if (rv != 0 || !board_is_whole(b, entries)) {
		print_message("%s, damage %d at %lld: %d %s, %zu bytes\n", name, (int)damage,
			      (long long)at, rv, b->message, b->model.len);
		fail();
	}
	if (rv == 0)
		board_stop(b);
	else
		boards_run_ms(f, 1);
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
	dir_copy(good, b->dir);
	assert_int_equal(board_start(b), 0);
	assert_true(board_is_whole(b, entries));
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
	assert_true(board_is_whole(b, 500));
	board_propose(b, "more");
	boards_wait_answers(f, 1);
	assert_int_equal(f->ok, 1);
	board_stop(b);
	assert_int_equal(board_start(b), 0);
	assert_int_equal(b->model.len, 4004);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_alone, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_three, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_leader_lost, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_in_flight, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_close_busy, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_tail, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_snapshot, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_install_leader_lost, boards_setup,
						boards_teardown),
		cmocka_unit_test_setup_teardown(test_removed, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_ghost, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_change_undone, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_change_undone_restart, boards_setup,
						boards_teardown),
		cmocka_unit_test_setup_teardown(test_idle, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_unanswered_dials, boards_setup,
						boards_teardown),
		cmocka_unit_test_setup_teardown(test_directory, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_model_refuses, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_sizes, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_damage_log, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_damage_snapshot, boards_setup,
						boards_teardown),
		cmocka_unit_test_setup_teardown(test_torn_tail, boards_setup, boards_teardown),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
