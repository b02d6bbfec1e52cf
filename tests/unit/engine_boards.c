#include "tests/unit/engine_boards.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/mem.h"

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
	assert_true(b->f->link_count < 256);
	b->f->links[b->f->link_count++] = (struct board_link){b->id, id, dup(pair[0])};
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

int board_start(struct board *b)
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

void board_close_begin(struct board *b)
{
	b->closing = true;
	engine_close(b->engine, on_board_closed, b);
}

static void on_timer(uv_timer_t *timer)
{
	(void)timer;
}

/* Runs the loop until `done` or WAIT_MS. */
bool boards_run_until(struct fixture *f, bool (*done)(struct fixture *f, void *arg), void *arg)
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

void boards_run_ms(struct fixture *f, uint64_t ms)
{
	uint64_t end = uv_hrtime() / 1000000 + ms;

	assert_true(boards_run_until(f, never, &end));
}

static bool is_closed(struct fixture *f, void *arg)
{
	struct board *b = arg;

	(void)f;
	return b->engine == NULL;
}

void board_stop(struct board *b)
{
	if (b->engine == NULL)
		return;
	if (!b->closing)
		board_close_begin(b);
	assert_true(boards_run_until(b->f, is_closed, b));
}

void board_cut(struct board *b, bool cut)
{
	b->cut = cut;
	for (unsigned i = 0; cut && i < b->f->link_count; i++)
		if (b->f->links[i].a == b->id || b->f->links[i].b == b->id)
			(void)shutdown(b->f->links[i].fd, SHUT_RDWR);
}

struct board *boards_leader(struct fixture *f)
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
	return boards_leader(f) != NULL;
}

struct board *boards_wait_leader(struct fixture *f)
{
	assert_true(boards_run_until(f, has_leader, NULL));
	return boards_leader(f);
}

void on_proposed(void *arg, int status, uint64_t index, void *result)
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

void board_propose(struct board *b, const char *text)
{
	engine_propose(b->engine, (const uint8_t *)text, strlen(text), on_proposed, b->f);
}

static bool all_answered(struct fixture *f, void *arg)
{
	return f->ok + f->again + f->canceled + f->other >= *(unsigned *)arg;
}

void boards_wait_answers(struct fixture *f, unsigned count)
{
	assert_true(boards_run_until(f, all_answered, &count));
}

void on_member_done(void *arg, int status)
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

int boards_wait_member(struct fixture *f)
{
	assert_true(boards_run_until(f, member_done, NULL));
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

void boards_wait_same(struct fixture *f, unsigned mask, size_t bytes)
{
	struct same same = {mask, bytes};

	if (boards_run_until(f, are_same, &same))
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

void dir_remove(const char *path)
{
	(void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int boards_setup(void **state)
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

int boards_teardown(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < f->link_count; i++)
		(void)close(f->links[i].fd);
	for (unsigned i = 0; i < BOARDS; i++) {
		board_stop(&f->boards[i]);
		buf_free(&f->boards[i].model);
	}
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	dir_remove(f->root);
	free(f);
	return 0;
}

/* Boards 1..n as voters, board 1 the first leader. */
void boards_cluster(struct fixture *f, unsigned n)
{
	struct board *first = &f->boards[0];

	assert_int_equal(engine_bootstrap(first->dir, first->id, first->address), 0);
	assert_int_equal(board_start(first), 0);
	(void)boards_wait_leader(f);
	for (unsigned i = 1; i < n; i++) {
		struct board *b = &f->boards[i];

		assert_int_equal(board_start(b), 0);
		engine_add(first->engine, b->id, b->address, on_member_done, f);
		assert_int_equal(boards_wait_member(f), 0);
		engine_promote(first->engine, b->id, on_member_done, f);
		assert_int_equal(boards_wait_member(f), 0);
	}
}
void dir_copy(const char *from, const char *to)
{
	char command[600];

	dir_remove(to);
	(void)snprintf(command, sizeof(command), "cp -a --sparse=always '%s' '%s'", from, to);
	assert_int_equal(system(command), 0);
}

bool board_is_whole(const struct board *b, unsigned entries)
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
