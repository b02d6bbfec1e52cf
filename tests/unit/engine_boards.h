/* engine_boards.h: boards in one process on one loop, their links socketpairs. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/engine.h"
#include "lib/buf.h"

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

/* Second descriptors of the links, to cut them. */
struct board_link {
	uint64_t a, b;
	int fd;
};

struct fixture {
	uv_loop_t loop;
	struct board_link links[256];
	unsigned link_count;
	char root[128];
	struct board boards[BOARDS];
	unsigned ok, again, canceled, other;
	int member_status;
	bool member_done;
};

/* cmocka set-up and tear-down: no board runs yet; all are stopped, files removed. */
int boards_setup(void **state);
int boards_teardown(void **state);
/* Boards 1..n as voters, board 1 the first leader. */
void boards_cluster(struct fixture *f, unsigned n);
/* With an empty model. An error is in b->message. */
int board_start(struct board *b);
void board_close_begin(struct board *b);
void board_stop(struct board *b);
/* Cuts the board off from the others, and back. */
void board_cut(struct board *b, bool cut);
/* NULL: none that can be reached. */
struct board *boards_leader(struct fixture *f);
struct board *boards_wait_leader(struct fixture *f);
void board_propose(struct board *b, const char *text);
void on_proposed(void *arg, int status, uint64_t index, void *result);
void boards_wait_answers(struct fixture *f, unsigned count);
void on_member_done(void *arg, int status);
int boards_wait_member(struct fixture *f);
/* Waits until the models of the boards in `mask` are equal and have `bytes` bytes. */
void boards_wait_same(struct fixture *f, unsigned mask, size_t bytes);
/* Runs the loop until `done` or WAIT_MS. */
bool boards_run_until(struct fixture *f, bool (*done)(struct fixture *f, void *arg), void *arg);
void boards_run_ms(struct fixture *f, uint64_t ms);
/* The model is "0000000,0000001,..." up to `entries`. */
bool board_is_whole(const struct board *b, unsigned entries);
void dir_remove(const char *path);
void dir_copy(const char *from, const char *to);
