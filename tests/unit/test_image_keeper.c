/* The image keeper: boards in one loop, joined by socket pairs, keep their stores as the model
 * says, whatever is missing, damaged, cut off or full. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/hex.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "witnessd/image_keeper.h"
#include "witnessd/image_store.h"

enum { BOARDS = 3, SIZE = 3 << 20, PIECE = 1 << 20, TURNS = 20000 };

#define PART ".3145728.part" /* of SIZE */

enum manner {
	HONEST,
	DOWN, /* cannot be reached */
	MUTE, /* takes the link and says nothing */
	LIAR, /* sends other bytes */
	SHORT, /* ends the link after half of it */
	NONSENSE, /* sends what is no frame */
};

struct board {
	struct world *world;
	uint64_t id;
	char data[80];
	char run[80];
	struct image_keeper *keeper;
	uint64_t space;
	bool keeps_memory;
	enum manner manner;
	unsigned asked; /* links that came */
	uint64_t first_offset; /* of the newest one */
	unsigned changes;
	bool closed;
};

/* A dial that was asked for and not answered yet. */
struct dial {
	struct board *from;
	uint64_t id;
	uint64_t node;
};

struct world {
	char dir[64];
	uv_loop_t loop;
	struct board boards[BOARDS];
	struct dial dials[16];
	size_t dial_count;
	uint8_t *bytes;
	char name[65];
	Tb__Image image;
	struct host_link *links[32]; /* of mute ones and liars */
	size_t link_count;
	/* The newest answer to an upload. */
	int error;
	char message[256];
	uint64_t have;
	bool done;
	bool answered;
};

/* --- the world --- */

static void world_dial(void *arg, uint64_t dial_id, uint64_t node)
{
	struct board *b = arg;

	b->world->dials[b->world->dial_count++] =
		(struct dial){.from = b, .id = dial_id, .node = node};
}

static void world_changed(void *arg)
{
	((struct board *)arg)->changes++;
}

static void board_open(struct board *b)
{
	const char *message = NULL;
	struct image_keeper_config config = {.loop = &b->world->loop,
					     .data_dir = b->data,
					     .run_dir = b->keeps_memory ? b->run : NULL,
					     .space = b->space,
					     .arg = b,
					     .dial = world_dial,
					     .changed = world_changed};

	assert_int_equal(image_keeper_new(&config, &b->keeper, &message), 0);
	b->closed = false;
}

static void board_closed(void *arg)
{
	((struct board *)arg)->closed = true;
}

static void world_step(struct world *w);

static void board_close(struct board *b)
{
	unsigned turns = 0;

	if (b->keeper == NULL)
		return;
	image_keeper_close(b->keeper, board_closed, b);
	b->keeper = NULL;
	while (!b->closed && turns++ < TURNS)
		world_step(b->world);
	assert_true(b->closed);
}

static void link_closed(void *arg, struct host_link *l, const char *why)
{
	struct world *w = ((struct board *)arg)->world;

	(void)why;
	for (size_t i = 0; i < w->link_count; i++)
		if (w->links[i] == l)
			w->links[i] = w->links[--w->link_count];
}

static void lie(struct board *b, struct host_link *l, uint64_t offset)
{
	Tb__HostFrame frame = TB__HOST_FRAME__INIT;
	Tb__ImageHead head = TB__IMAGE_HEAD__INIT;
	uint64_t end = b->manner == SHORT ? offset + (SIZE - offset) / 2 : SIZE;
	uint8_t piece[HOST_PIECE_MAX];

	head.size = SIZE;
	frame.what_case = TB__HOST_FRAME__WHAT_IMAGE_HEAD;
	frame.image_head = &head;
	host_link_send(l, &frame);
	frame.what_case = TB__HOST_FRAME__WHAT_IMAGE_PIECE;
	for (uint64_t at = offset; at < end; at += frame.image_piece.len) {
		frame.image_piece.len =
			end - at < sizeof(piece) ? (size_t)(end - at) : sizeof(piece);
		memcpy(piece, b->world->bytes + at, frame.image_piece.len);
		if (b->manner == LIAR)
			piece[0] ^= 1;
		frame.image_piece.data = piece;
		host_link_send(l, &frame);
	}
}

static void link_frame(void *arg, struct host_link *l, const Tb__HostFrame *frame)
{
	struct board *b = arg;

	assert_int_equal(frame->what_case, TB__HOST_FRAME__WHAT_IMAGE_GET);
	b->asked++;
	b->first_offset = frame->image_get->offset;
	link_closed(arg, l, "");
	if (b->manner == HONEST && b->keeper == NULL) {
		host_link_close(l, "stopping");
		return;
	}
	if (b->manner == HONEST) {
		image_keeper_serve(b->keeper, l, frame->image_get);
		return;
	}
	if (b->manner != MUTE)
		lie(b, l, frame->image_get->offset);
	if (b->manner == MUTE)
		b->world->links[b->world->link_count++] = l;
	else
		host_link_close(l, NULL);
}

static const struct host_link_events link_events = {.frame = link_frame, .closed = link_closed};

static void world_answer_dial(struct world *w, const struct dial *d)
{
	struct board *to = &w->boards[d->node - 1];
	int pair[2];

	if (d->from->keeper == NULL)
		return;
	if (to->manner == DOWN || (to->keeper == NULL && to->manner == HONEST)) {
		image_keeper_dialed(d->from->keeper, d->id, -EHOSTUNREACH);
		return;
	}
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
			 0);
	image_keeper_dialed(d->from->keeper, d->id, pair[0]);
	if (to->manner == NONSENSE) {
		assert_int_equal(write(pair[1], "\377\377\377\377 what?", 10), 10);
		close(pair[1]);
		return;
	}
	w->links[w->link_count++] = host_link_new(&w->loop, d->from->id, pair[1], &link_events, to);
}

static void world_step(struct world *w)
{
	struct dial dials[16];
	size_t count = w->dial_count;

	memcpy(dials, w->dials, sizeof(dials));
	w->dial_count = 0;
	for (size_t i = 0; i < count; i++)
		world_answer_dial(w, &dials[i]);
	uv_run(&w->loop, UV_RUN_NOWAIT);
	usleep(100);
}

static int setup(void **state)
{
	struct world *w = mem_zalloc(sizeof(*w));
	const char *base = getenv("TMPDIR");
	uint8_t digest[32];

	log_set_level(getenv("KEEPER_LOG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR - 1);
	(void)signal(SIGPIPE, SIG_IGN);
	snprintf(w->dir, sizeof(w->dir), "%s/keeperXXXXXX", base != NULL ? base : "/tmp");
	assert_non_null(mkdtemp(w->dir));
	uv_loop_init(&w->loop);
	w->bytes = mem_alloc(SIZE);
	for (size_t i = 0; i < SIZE; i++)
		w->bytes[i] = (uint8_t)(i * 131 + i / 251);
	SHA256(w->bytes, SIZE, digest);
	hex_encode(digest, sizeof(digest), w->name);
	tb__image__init(&w->image);
	w->image.sha256 = w->name;
	w->image.size = SIZE;
	for (unsigned i = 0; i < BOARDS; i++) {
		struct board *b = &w->boards[i];

		b->world = w;
		b->id = i + 1;
		snprintf(b->data, sizeof(b->data), "%s/data%u", w->dir, i + 1);
		snprintf(b->run, sizeof(b->run), "%s/run%u", w->dir, i + 1);
		assert_int_equal(mkdir(b->data, 0700), 0);
		assert_int_equal(mkdir(b->run, 0700), 0);
		board_open(b);
	}
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char *command = mem_printf("rm -r '%s'", w->dir);

	for (unsigned i = 0; i < BOARDS; i++)
		board_close(&w->boards[i]);
	while (w->link_count > 0)
		host_link_abort(w->links[--w->link_count]);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&w->loop), 0);
	assert_int_equal(system(command), 0);
	free(command);
	free(w->bytes);
	free(w);
	return 0;
}

/* --- what a test does and asks --- */

/* The model as board b sees it: with the image or without. */
static void model_of(struct board *b, bool listed, bool hosts, bool newest)
{
	const Tb__Image *images[] = {&b->world->image};
	uint64_t others[BOARDS];
	size_t count = 0;

	for (uint64_t id = 1; id <= BOARDS; id++)
		if (id != b->id)
			others[count++] = id;
	image_keeper_model(b->keeper, &(struct image_keeper_model){.images = images,
								   .image_count = listed,
								   .boards = others,
								   .board_count = count,
								   .hosts = hosts,
								   .newest = newest});
}

static void model(struct board *b, bool listed, bool hosts)
{
	model_of(b, listed, hosts, true);
}

static Tb__ImageReport *row(struct board *b)
{
	Tb__ImageReport **rows;
	size_t count = image_keeper_report(b->keeper, &rows);
	Tb__ImageReport *one = count > 0 ? rows[0] : NULL;

	assert_true(count <= 1);
	free(rows);
	return one;
}

static bool row_is(struct board *b, Tb__ImageCopyState state)
{
	Tb__ImageReport *one = row(b);
	bool is = one != NULL && one->state == state;

	tb__image_report__free_unpacked(one, NULL);
	return is;
}

/* Goes on until the board's copy is in this state. */
static void until(struct board *b, Tb__ImageCopyState state)
{
	unsigned turns = 0;

	while (!row_is(b, state) && turns++ < TURNS)
		world_step(b->world);
	assert_true(row_is(b, state));
}

#define HELD TB__IMAGE_COPY_STATE__IMAGE_COPY_STATE_HELD
#define MISSING TB__IMAGE_COPY_STATE__IMAGE_COPY_STATE_MISSING
#define DAMAGED TB__IMAGE_COPY_STATE__IMAGE_COPY_STATE_DAMAGED
#define COPYING TB__IMAGE_COPY_STATE__IMAGE_COPY_STATE_COPYING

static void steps(struct world *w, unsigned count)
{
	while (count-- > 0)
		world_step(w);
}

/* Asks for the file until it is there; the bytes must be right. */
static void assert_file(struct board *b)
{
	uint8_t *bytes = mem_alloc(SIZE);
	char problem[200];
	unsigned turns = 0;
	int fd = -1;
	int rv;

	while ((rv = image_keeper_file(b->keeper, b->world->name, &fd, problem, sizeof(problem))) ==
		       -EAGAIN &&
	       turns++ < TURNS)
		world_step(b->world);
	assert_int_equal(rv, 0);
	assert_int_equal(pread(fd, bytes, SIZE, 0), SIZE);
	assert_memory_equal(bytes, b->world->bytes, SIZE);
	close(fd);
	free(bytes);
}

static int file_now(struct board *b, char problem[200])
{
	int fd = -1;
	int rv = image_keeper_file(b->keeper, b->world->name, &fd, problem, 200);

	if (fd >= 0)
		close(fd);
	return rv;
}

static void uploaded(void *arg, int error, const char *message, uint64_t have, bool done)
{
	struct world *w = arg;

	w->error = error;
	snprintf(w->message, sizeof(w->message), "%s", message);
	w->have = have;
	w->done = done;
	w->answered = true;
}

static int upload_sized(struct board *b, uint64_t size, uint64_t offset, size_t len)
{
	struct world *w = b->world;
	unsigned turns = 0;

	w->answered = false;
	image_keeper_upload(b->keeper, w->name, size, offset, w->bytes + offset, len, uploaded, w);
	while (!w->answered && turns++ < TURNS)
		world_step(w);
	assert_true(w->answered);
	return w->error;
}

static int upload(struct board *b, uint64_t offset, size_t len)
{
	return upload_sized(b, SIZE, offset, len);
}

static void upload_all(struct board *b)
{
	unsigned turns = 0;

	/* A worker may still be at what was there before. */
	while (upload(b, 0, PIECE) == -EBUSY && turns++ < TURNS)
		world_step(b->world);
	assert_int_equal(b->world->error, 0);
	for (uint64_t at = PIECE; at < SIZE; at += PIECE)
		assert_int_equal(upload(b, at, PIECE), 0);
	assert_true(b->world->done);
}

static void flip(struct board *b, const char *folder, const char *suffix)
{
	char *path = mem_printf("%s/%s/%s%s", b->data, folder, b->world->name, suffix);
	int fd = open(path, O_RDWR);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, 5000), 1);
	byte ^= 4;
	assert_int_equal(pwrite(fd, &byte, 1, 5000), 1);
	close(fd);
	free(path);
}

static void reopen(struct board *b)
{
	board_close(b);
	board_open(b);
}

/* --- uploads --- */

static void test_upload(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[0];
	unsigned changes;

	assert_int_equal(upload(b, 0, 0), 0);
	assert_int_equal(w->have, 0);
	assert_int_equal(upload(b, 0, PIECE), 0);
	assert_int_equal(w->have, PIECE);
	assert_false(w->done);
	assert_int_equal(upload(b, 0, PIECE), -ERANGE);
	assert_int_equal(w->have, PIECE);
	assert_int_equal(upload(b, PIECE, PIECE), 0);
	assert_int_equal(upload(b, 2 * PIECE, PIECE), 0);
	assert_true(w->done);
	/* Once more is as good as done. */
	assert_int_equal(upload(b, 0, PIECE), 0);
	assert_true(w->done);
	/* It is told now that the model has it. */
	changes = b->changes;
	model(b, true, true);
	assert_true(b->changes > changes);
	assert_true(row_is(b, HELD));
	assert_file(b);
	changes = b->changes;
	model(b, true, true);
	assert_int_equal(b->changes, changes);
}

static void test_upload_refused(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[0];

	image_keeper_upload(b->keeper, "../../etc/passwd", 10, 0, "x", 1, uploaded, w);
	assert_int_equal(w->error, -EINVAL);
	image_keeper_upload(b->keeper, w->name, 0, 0, "x", 1, uploaded, w);
	assert_int_equal(w->error, -EINVAL);
	assert_int_equal(upload(b, 0, 10), 0);
	image_keeper_upload(b->keeper, w->name, SIZE + 1, 10, "x", 1, uploaded, w);
	assert_int_equal(w->error, -EEXIST);
	w->bytes[PIECE] ^= 1;
	assert_int_equal(upload(b, 10, PIECE), 0);
	assert_int_equal(upload(b, PIECE + 10, PIECE), 0);
	assert_int_equal(upload(b, 2 * PIECE + 10, PIECE - 10), -EBADMSG);
	assert_false(w->done);
	w->bytes[PIECE] ^= 1;
	steps(w, 50);
	assert_int_equal(upload(b, 0, 0), 0);
	assert_int_equal(w->have, 0);
	upload_all(b);
}

static void test_upload_resumed(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[0];

	assert_int_equal(upload(b, 0, PIECE), 0);
	reopen(b);
	assert_int_equal(upload(b, 0, 0), 0);
	assert_int_equal(w->have, PIECE);
	assert_int_equal(upload(b, PIECE, PIECE), 0);
	assert_int_equal(upload(b, 2 * PIECE, PIECE), 0);
	assert_true(w->done);
}

static bool file_there(struct board *b, const char *folder, const char *suffix)
{
	char *path = mem_printf("%s/%s/%s%s", b->data, folder, b->world->name, suffix);
	bool there = access(path, F_OK) == 0;

	free(path);
	return there;
}

static void assert_refused_sizes(struct board *b, const char *words)
{
	static const size_t lengths[] = {0, 10};
	static const uint64_t sizes[] = {1000, SIZE - 1, SIZE + 1};

	for (size_t i = 0; i < 2; i++)
		for (size_t k = 0; k < 3; k++) {
			struct world *w = b->world;

			assert_int_equal(upload_sized(b, sizes[k], 0, lengths[i]), -EEXIST);
			if (strstr(w->message, words) == NULL)
				fail_msg("%s", w->message);
		}
}

/* Another size than of what is here, by who only asks as by who sends: both sizes are named, and
 * nothing has changed. */
static void test_upload_other_size(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[0];

	assert_int_equal(upload(b, 0, PIECE), 0);
	assert_refused_sizes(b, "1048576 bytes of this image are here, of an upload with "
				"size=3145728, and not size=");
	reopen(b);
	assert_refused_sizes(b, "go on with that size, or upload it to another board");
	assert_true(file_there(b, "incoming", PART));
	assert_int_equal(upload(b, 0, 0), 0);
	assert_int_equal(w->have, PIECE);
	assert_int_equal(upload(b, PIECE, PIECE), 0);
	assert_int_equal(upload(b, 2 * PIECE, PIECE), 0);
	assert_true(w->done);
	/* Nor may the model get another size than the bytes have. */
	assert_refused_sizes(b, "has 3145728 bytes, and not ");
	reopen(b);
	assert_refused_sizes(b, ": give size=3145728");
	model(b, true, true);
	assert_refused_sizes(b, "has 3145728 bytes, and not ");
}

/* Who asks makes no file. */
static void test_upload_asked(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[0];

	assert_int_equal(upload(b, 0, 0), 0);
	model(b, true, false);
	model(b, false, false);
	assert_int_equal(upload(b, 0, 0), 0);
	assert_int_equal(w->have, 0);
	assert_false(file_there(b, "incoming", PART));
	assert_int_equal(upload_sized(b, 1000, 0, 0), 0);
}

/* The part of an upload that named a wrong size does not keep the image away for ever. */
static void test_copy_past_wrong_part(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[1];

	assert_int_equal(upload_sized(b, SIZE + 5, 0, PIECE), 0);
	reopen(b);
	upload_all(&w->boards[0]);
	model(&w->boards[0], true, true);
	model(b, true, true);
	until(b, HELD);
	assert_file(b);
	assert_false(file_there(b, "incoming", ".3145733.part"));
}

/* A power cut has left the length and not the bytes: the client is told to begin again. */
static void test_upload_damaged_part(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[0];

	assert_int_equal(upload(b, 0, PIECE), 0);
	board_close(b);
	flip(b, "incoming", PART);
	board_open(b);
	assert_int_equal(upload(b, PIECE, PIECE), 0);
	assert_int_equal(upload(b, 2 * PIECE, PIECE), -EAGAIN);
	assert_int_equal(w->have, 0);
	steps(w, 50);
	upload_all(b);
}

/* All bytes came, and the power went before it was put into the store. */
static void test_upload_finished_later(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[0];
	char *from = mem_printf("%s/images/%s", b->data, w->name);
	char *to = mem_printf("%s/incoming/%s" PART, b->data, w->name);

	upload_all(b);
	board_close(b);
	assert_int_equal(rename(from, to), 0);
	board_open(b);
	assert_int_equal(upload(b, 0, 0), 0);
	assert_true(w->done);
	free(from);
	free(to);
}

static void test_upload_full(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[0];

	board_close(b);
	b->space = 1 << 20;
	board_open(b);
	assert_int_equal(upload(b, 0, PIECE), -ENOSPC);
	assert_non_null(strstr(w->message, "of 1 MiB (vms.image-space-mib)"));
	b->space = 0;
}

/* --- copies --- */

static void test_copy(void **state)
{
	struct world *w = *state;

	upload_all(&w->boards[0]);
	for (unsigned i = 0; i < BOARDS; i++)
		model(&w->boards[i], true, true);
	until(&w->boards[1], HELD);
	until(&w->boards[2], HELD);
	assert_file(&w->boards[1]);
	assert_file(&w->boards[2]);
	assert_true(w->boards[1].changes > 0);
}

static void test_copy_only_to_hosts(void **state)
{
	struct world *w = *state;

	upload_all(&w->boards[0]);
	model(&w->boards[0], true, false);
	model(&w->boards[1], true, false);
	steps(w, 300);
	assert_true(row_is(&w->boards[0], HELD));
	assert_true(row_is(&w->boards[1], MISSING));
	assert_int_equal(w->boards[0].asked, 0);
	model(&w->boards[1], true, true);
	until(&w->boards[1], HELD);
}

static void copy_past(struct world *w, enum manner manner)
{
	upload_all(&w->boards[2]);
	model(&w->boards[2], true, true);
	w->boards[0].manner = manner;
	model(&w->boards[1], true, true);
	until(&w->boards[1], HELD);
	assert_file(&w->boards[1]);
	assert_true(w->boards[2].asked >= 1);
}

static void test_copy_past_down(void **state)
{
	copy_past(*state, DOWN);
}

static void test_copy_past_nonsense(void **state)
{
	copy_past(*state, NONSENSE);
}

static void test_copy_past_liar(void **state)
{
	struct world *w = *state;

	copy_past(w, LIAR);
	assert_int_equal(w->boards[0].asked, 1);
	assert_int_equal(w->boards[2].first_offset, 0);
}

/* What an interrupted copy has brought is not asked for again. */
static void test_copy_resumed(void **state)
{
	struct world *w = *state;

	copy_past(w, SHORT);
	assert_int_equal(w->boards[0].asked, 1);
	assert_true(w->boards[2].first_offset > 0);
}

static void test_copy_past_mute(void **state)
{
	struct world *w = *state;
	unsigned turns = 0;

	upload_all(&w->boards[2]);
	model(&w->boards[2], true, true);
	w->boards[0].manner = MUTE;
	model(&w->boards[1], true, true);
	while (w->boards[0].asked == 0 && turns++ < TURNS)
		world_step(w);
	image_keeper_tick(w->boards[1].keeper, uv_now(&w->loop) + 14000);
	steps(w, 20);
	assert_true(row_is(&w->boards[1], COPYING));
	image_keeper_tick(w->boards[1].keeper, uv_now(&w->loop) + 16000);
	until(&w->boards[1], HELD);
}

static void test_copy_nobody_has(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[1];
	unsigned turns = 0;
	char problem[200];
	Tb__ImageReport *one;

	model(b, true, true);
	model(&w->boards[0], true, false);
	w->boards[2].manner = DOWN;
	while ((w->boards[0].asked == 0 || !row_is(b, MISSING)) && turns++ < TURNS)
		world_step(w);
	steps(w, 100);
	one = row(b);
	assert_int_equal(one->state, MISSING);
	assert_string_not_equal(one->problem, "");
	tb__image_report__free_unpacked(one, NULL);
	assert_int_equal(file_now(b, problem), -EAGAIN);
	assert_non_null(strstr(problem, "is not here: board"));
	/* It waits before it asks all of them again. */
	assert_int_equal(w->boards[0].asked, 1);
}

static void test_copy_full(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[1];
	Tb__ImageReport *one;

	upload_all(&w->boards[0]);
	model(&w->boards[0], true, true);
	board_close(b);
	b->space = 1 << 20;
	board_open(b);
	model(b, true, true);
	steps(w, 300);
	one = row(b);
	assert_int_equal(one->state, MISSING);
	assert_non_null(strstr(one->problem, "vms.image-space-mib"));
	assert_null(strstr(one->problem, "board 1:"));
	assert_null(strstr(one->problem, "board 3:"));
	tb__image_report__free_unpacked(one, NULL);
	b->space = 0;
}

/* --- damage --- */

static void test_damaged_replaced(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[0];

	upload_all(&w->boards[0]);
	model(&w->boards[0], true, true);
	model(&w->boards[1], true, true);
	until(&w->boards[1], HELD);
	board_close(b);
	flip(b, "images", "");
	board_open(b);
	model(b, true, false);
	until(b, COPYING);
	until(b, HELD);
	assert_file(b);
}

static void test_damaged_not_served(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[0];

	upload_all(b);
	board_close(b);
	flip(b, "images", "");
	board_open(b);
	model(b, true, false);
	until(b, DAMAGED);
	model(&w->boards[1], true, true);
	steps(w, 300);
	assert_true(row_is(&w->boards[1], MISSING));
	assert_true(b->asked >= 1);
}

/* Changed under a running daemon: seen when a VM asks for it. */
static void test_changed_seen(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[0];
	char problem[200];

	upload_all(b);
	model(b, true, false);
	assert_int_equal(file_now(b, problem), 0);
	flip(b, "images", "");
	assert_int_equal(file_now(b, problem), -EAGAIN);
	assert_non_null(strstr(problem, "is being checked"));
	until(b, DAMAGED);
	assert_int_equal(file_now(b, problem), -EAGAIN);
}

/* --- restarts --- */

static void test_checked_once(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[0];
	char problem[200];

	board_close(b);
	b->keeps_memory = true;
	board_open(b);
	upload_all(b);
	reopen(b);
	model(b, true, true);
	assert_int_equal(file_now(b, problem), 0);
	/* Another file of that name is not the one that was checked. */
	board_close(b);
	flip(b, "images", "");
	board_open(b);
	model(b, true, false);
	assert_int_equal(file_now(b, problem), -EAGAIN);
	until(b, DAMAGED);
	/* A new boot: nothing is remembered. */
	b->keeps_memory = false;
	reopen(b);
	model(b, true, false);
	assert_int_equal(file_now(b, problem), -EAGAIN);
}

/* --- dropped --- */

static void test_dropped(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[0];
	unsigned turns = 0;
	char problem[200];

	upload_all(b);
	model(b, true, true);
	model(b, false, true);
	assert_int_equal(file_now(b, problem), -ENOENT);
	image_keeper_tick(b->keeper, uv_now(&w->loop) + IMAGE_GRACE_MS - 5000);
	steps(w, 100);
	assert_true(file_there(b, "images", ""));
	/* Listed again in time: kept. */
	model(b, true, true);
	image_keeper_tick(b->keeper, uv_now(&w->loop) + 10 * IMAGE_GRACE_MS);
	steps(w, 100);
	assert_file(b);
	model(b, false, true);
	image_keeper_tick(b->keeper, uv_now(&w->loop) + IMAGE_GRACE_MS + 1);
	while (file_there(b, "images", "") && turns++ < TURNS)
		world_step(w);
	assert_false(file_there(b, "images", ""));
	steps(w, 100);
	upload_all(b);
}

/* Before the model has spoken, nothing is dropped. */
static void test_not_dropped_without_model(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[0];

	upload_all(b);
	reopen(b);
	image_keeper_tick(b->keeper, uv_now(&w->loop) + 100 * IMAGE_GRACE_MS);
	steps(w, 200);
	assert_true(file_there(b, "images", ""));
	/* All boards were without power, and this one is up alone: its model is still empty. */
	model_of(b, false, true, false);
	image_keeper_tick(b->keeper, uv_now(&w->loop) + 100 * IMAGE_GRACE_MS);
	steps(w, 200);
	assert_true(file_there(b, "images", ""));
}

static void test_old_part_dropped(void **state)
{
	struct world *w = *state;
	struct board *b = &w->boards[0];
	unsigned turns = 0;

	assert_int_equal(upload(b, 0, PIECE), 0);
	model(b, false, true);
	image_keeper_tick(b->keeper, uv_now(&w->loop) + 3600000);
	steps(w, 100);
	assert_true(file_there(b, "incoming", PART));
	image_keeper_tick(b->keeper, uv_now(&w->loop) + UINT64_C(25) * 3600000);
	while (file_there(b, "incoming", PART) && turns++ < TURNS)
		world_step(w);
	assert_false(file_there(b, "incoming", PART));
}

/* --- the end, wherever it comes --- */

static void test_closed_anywhere(void **state)
{
	struct world *w = *state;

	upload_all(&w->boards[0]);
	for (unsigned after = 0; after < 40; after += 3) {
		struct board *b = &w->boards[1];

		model(&w->boards[0], true, true);
		model(b, true, true);
		steps(w, after);
		w->answered = false;
		image_keeper_upload(w->boards[2].keeper, w->name, SIZE, 0, w->bytes, 1000, uploaded,
				    w);
		reopen(&w->boards[2]);
		assert_true(w->answered);
		reopen(&w->boards[0]);
		reopen(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_upload, setup, teardown),
		cmocka_unit_test_setup_teardown(test_upload_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_upload_other_size, setup, teardown),
		cmocka_unit_test_setup_teardown(test_upload_asked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy_past_wrong_part, setup, teardown),
		cmocka_unit_test_setup_teardown(test_upload_resumed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_upload_damaged_part, setup, teardown),
		cmocka_unit_test_setup_teardown(test_upload_finished_later, setup, teardown),
		cmocka_unit_test_setup_teardown(test_upload_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy_only_to_hosts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy_past_down, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy_past_nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy_past_liar, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy_resumed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy_past_mute, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy_nobody_has, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_replaced, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_not_served, setup, teardown),
		cmocka_unit_test_setup_teardown(test_changed_seen, setup, teardown),
		cmocka_unit_test_setup_teardown(test_checked_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dropped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_dropped_without_model, setup, teardown),
		cmocka_unit_test_setup_teardown(test_old_part_dropped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_closed_anywhere, setup, teardown),
	};

	cmocka_set_test_filter(getenv("KEEPER_TEST"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
