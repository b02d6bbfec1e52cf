#include "witnessd/image_receive.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/list.h"
#include "lib/mem.h"

enum receive_step { RECEIVE_IDLE, RECEIVE_OPEN, RECEIVE_WRITE, RECEIVE_CATCH_UP, RECEIVE_FINISH };

struct image_put {
	struct list link;
	uint64_t offset;
	void *bytes;
	size_t len;
	bool written;
	image_received received;
	void *arg;
};

struct image_receive {
	uv_loop_t *loop;
	const struct image_store *store;
	char sha256[IMAGE_NAME + 1];
	uint64_t size;
	const struct image_receive_events *events;
	void *arg;
	struct list puts;
	uint64_t have;
	bool caught_up; /* what was there before it was opened is hashed */
	bool over;
	bool closing;
	bool inside; /* further up the stack: it is not to be freed */
	/* The worker's while `step` is not RECEIVE_IDLE. */
	uv_work_t work;
	enum receive_step step;
	struct image_part *part; /* NULL: not open */
	int rv;
	bool again;
	char message[IMAGE_PROBLEM];
};

static void receive_next(struct image_receive *r);

static void put_answer(struct image_put *put, int error, const char *message, uint64_t have,
		       bool done)
{
	image_received received = put->received;
	void *arg = put->arg;

	list_remove(&put->link);
	free(put->bytes);
	free(put);
	received(arg, error, message, have, done);
}

static struct image_put *receive_first(struct image_receive *r)
{
	return list_empty(&r->puts) ? NULL : list_entry(r->puts.next, struct image_put, link);
}

static void receive_answer_all(struct image_receive *r, int error, const char *message, bool done)
{
	struct image_put *put;

	while ((put = receive_first(r)) != NULL)
		put_answer(put, error, message, r->have, done);
}

static void receive_freed(struct image_receive *r)
{
	const struct image_receive_events *events = r->events;
	void *arg = r->arg;

	image_part_close(r->part);
	free(r);
	events->gone(arg);
}

static void receive_over(struct image_receive *r, int error, int answered)
{
	r->over = true;
	image_part_close(r->part);
	r->part = NULL;
	if (error != 0)
		r->have = 0;
	receive_answer_all(r, answered, r->message, error == 0);
	if (!r->closing)
		r->events->over(r->arg, error, r->message);
}

/* --- in a worker --- */

static void receive_work(uv_work_t *work)
{
	struct image_receive *r = work->data;
	const struct image_put *put;

	r->message[0] = '\0';
	switch (r->step) {
	case RECEIVE_OPEN:
		r->rv = image_part_open(r->store, r->sha256, r->size, &r->part, r->message);
		break;
	case RECEIVE_WRITE:
		put = receive_first(r);
		r->rv = image_part_write(r->part, put->offset, put->bytes, put->len);
		break;
	case RECEIVE_CATCH_UP:
		r->rv = image_part_catch_up(r->part);
		break;
	case RECEIVE_FINISH:
		r->rv = image_part_finish(r->part, &r->again, r->message);
		break;
	case RECEIVE_IDLE:
		abort();
	}
}

/* --- back on the loop --- */

static void receive_opened(struct image_receive *r)
{
	if (r->rv != 0) {
		r->part = NULL;
		receive_over(r, r->rv, r->rv);
		return;
	}
	r->have = image_part_have(r->part);
	r->caught_up = r->have == 0;
}

static void receive_wrote(struct image_receive *r)
{
	struct image_put *put = receive_first(r);

	put->written = true;
	if (r->rv == -ERANGE) {
		snprintf(r->message, sizeof(r->message),
			 "these bytes are not where the upload stands, or beyond the image's end");
		put_answer(put, -ERANGE, r->message, r->have, false);
		return;
	}
	if (r->rv == 0) {
		r->have = image_part_have(r->part);
		return;
	}
	/* How much of it is there is learnt when it is opened again. */
	snprintf(r->message, sizeof(r->message), "the disk of this board does not take it: %s",
		 strerror(-r->rv));
	image_part_close(r->part);
	r->part = NULL;
	put_answer(put, r->rv, r->message, r->have, false);
}

static void receive_caught_up(struct image_receive *r)
{
	r->caught_up = r->rv == 0;
	if (r->rv >= 0)
		return;
	snprintf(r->message, sizeof(r->message),
		 "what was there from an earlier attempt cannot be read (%s): send it again",
		 strerror(-r->rv));
	image_part_drop(r->part);
	receive_over(r, r->rv, -EAGAIN);
}

static void receive_stepped(struct image_receive *r, enum receive_step step)
{
	switch (step) {
	case RECEIVE_OPEN:
		receive_opened(r);
		break;
	case RECEIVE_WRITE:
		receive_wrote(r);
		break;
	case RECEIVE_CATCH_UP:
		receive_caught_up(r);
		break;
	default:
		receive_over(r, r->rv, r->rv == -EBADMSG && r->again ? -EAGAIN : r->rv);
		break;
	}
}

static void receive_after(uv_work_t *work, int status)
{
	struct image_receive *r = work->data;
	enum receive_step step = r->step;

	(void)status;
	r->step = RECEIVE_IDLE;
	r->inside = true;
	receive_stepped(r, step);
	r->inside = false;
	receive_next(r);
}

/* --- what is next --- */

static void receive_start(struct image_receive *r, enum receive_step step)
{
	r->step = step;
	r->work.data = r;
	if (uv_queue_work(r->loop, &r->work, receive_work, receive_after) != 0)
		abort();
}

/* Answers those puts that are done with while more of the image is to come. */
static void receive_settle(struct image_receive *r)
{
	struct image_put *put;

	while (r->part != NULL && r->have < r->size && (put = receive_first(r)) != NULL &&
	       (put->written || put->len == 0))
		put_answer(put, 0, "", r->have, false);
}

static enum receive_step receive_step(struct image_receive *r)
{
	const struct image_put *put = receive_first(r);

	if (r->part == NULL)
		return put != NULL ? RECEIVE_OPEN : RECEIVE_IDLE;
	if (put != NULL && !put->written && put->len > 0)
		return RECEIVE_WRITE;
	if (!r->caught_up)
		return RECEIVE_CATCH_UP;
	return r->have == r->size ? RECEIVE_FINISH : RECEIVE_IDLE;
}

static void receive_next(struct image_receive *r)
{
	enum receive_step step;

	if (r->step != RECEIVE_IDLE || r->inside)
		return;
	r->inside = true;
	if (!r->closing && !r->over)
		receive_settle(r);
	if (r->closing)
		receive_answer_all(r, -ECANCELED, "this board is stopping", false);
	r->inside = false;
	if (r->closing) {
		receive_freed(r);
		return;
	}
	step = r->over ? RECEIVE_IDLE : receive_step(r);
	if (step != RECEIVE_IDLE)
		receive_start(r, step);
}

struct image_receive *image_receive_new(uv_loop_t *loop, const struct image_store *store,
					const char *sha256, uint64_t size, uint64_t have,
					const struct image_receive_events *events, void *arg)
{
	struct image_receive *r = mem_zalloc(sizeof(*r));

	r->loop = loop;
	r->store = store;
	snprintf(r->sha256, sizeof(r->sha256), "%s", sha256);
	r->size = size;
	r->have = have;
	r->events = events;
	r->arg = arg;
	list_init(&r->puts);
	return r;
}

void image_receive_put(struct image_receive *r, uint64_t offset, const void *bytes, size_t len,
		       image_received received, void *arg)
{
	struct image_put *put;

	if (r->closing || r->over) {
		received(arg, -ECANCELED, "it is over", r->have, false);
		return;
	}
	put = mem_zalloc(sizeof(*put));
	put->offset = offset;
	put->len = len;
	put->bytes = len > 0 ? mem_dup(bytes, len) : NULL;
	put->received = received;
	put->arg = arg;
	list_append(&r->puts, &put->link);
	receive_next(r);
}

bool image_receive_busy(const struct image_receive *r)
{
	return r->step != RECEIVE_IDLE || !list_empty(&r->puts);
}

uint64_t image_receive_have(const struct image_receive *r)
{
	return r->have;
}

void image_receive_close(struct image_receive *r)
{
	if (r->closing)
		return;
	r->closing = true;
	receive_next(r);
}
