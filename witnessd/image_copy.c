#include "witnessd/image_copy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/mem.h"

/* --- the asker --- */

/* Freed when it was closed and no put of it is under way. */
struct image_copy {
	uv_loop_t *loop;
	struct host_link *link; /* NULL: over */
	char sha256[IMAGE_NAME + 1];
	uint64_t size;
	uint64_t offset; /* of what comes next from the link */
	struct image_receive *receive;
	image_copied over;
	void *arg;
	struct buf ahead; /* came, and waits for the disk */
	bool asked;
	bool headed;
	bool putting; /* `ahead` of before is on its way to the disk */
	bool closing;
	uint64_t heard_ms;
};

static void copy_maybe_freed(struct image_copy *c)
{
	if (!c->closing || c->putting)
		return;
	buf_free(&c->ahead);
	free(c);
}

/* `error` 0 or why not; the owner closes it. */
static void copy_over(struct image_copy *c, int error, const char *why)
{
	if (c->closing)
		return;
	if (c->link != NULL)
		host_link_abort(c->link);
	c->link = NULL;
	c->over(c->arg, error, why);
}

static void copy_put(struct image_copy *c);

static void copy_ask(struct image_copy *c, uint64_t have)
{
	Tb__HostFrame frame = TB__HOST_FRAME__INIT;
	Tb__ImageGet get = TB__IMAGE_GET__INIT;

	c->asked = true;
	c->offset = have;
	get.sha256 = c->sha256;
	get.offset = have;
	frame.what_case = TB__HOST_FRAME__WHAT_IMAGE_GET;
	frame.image_get = &get;
	host_link_send(c->link, &frame);
}

static void copy_received(void *arg, int error, const char *message, uint64_t have, bool done)
{
	struct image_copy *c = arg;

	c->putting = false;
	if (c->closing) {
		copy_maybe_freed(c);
		return;
	}
	if (error != 0 || done)
		copy_over(c, error, message);
	else if (c->asked)
		copy_put(c);
	else if (c->link != NULL)
		copy_ask(c, have);
}

static void copy_put(struct image_copy *c)
{
	uint64_t from = c->offset - c->ahead.len;
	struct buf bytes = c->ahead;

	if (c->putting || (c->asked && c->ahead.len == 0))
		return;
	c->ahead = (struct buf){0};
	c->putting = true;
	image_receive_put(c->receive, from, bytes.data, bytes.len, copy_received, c);
	buf_free(&bytes);
	/* Last, since what comes now may end it all. */
	if (c->link != NULL)
		host_link_resume(c->link);
}

static void copy_head(struct image_copy *c, const Tb__ImageHead *head)
{
	char why[IMAGE_PROBLEM];

	c->headed = true;
	if (head->error[0] != '\0') {
		snprintf(why, sizeof(why), "%s", head->error);
		copy_over(c, -ENOENT, why);
	} else if (head->size != c->size) {
		snprintf(why, sizeof(why), "it has %llu bytes there, and not %llu",
			 (unsigned long long)head->size, (unsigned long long)c->size);
		copy_over(c, -EBADMSG, why);
	}
}

static void copy_piece(struct image_copy *c, const ProtobufCBinaryData *piece)
{
	if (piece->len == 0 || piece->len > c->size - c->offset) {
		copy_over(c, -EBADMSG, "more was sent than the image has");
		return;
	}
	buf_append(&c->ahead, piece->data, piece->len);
	c->offset += piece->len;
	if (c->ahead.len >= IMAGE_AHEAD)
		host_link_pause(c->link);
	if (c->ahead.len >= IMAGE_AHEAD / 2 || c->offset == c->size)
		copy_put(c);
}

static void copy_frame(void *arg, struct host_link *l, const Tb__HostFrame *frame)
{
	struct image_copy *c = arg;

	(void)l;
	c->heard_ms = uv_now(c->loop);
	if (c->asked && !c->headed && frame->what_case == TB__HOST_FRAME__WHAT_IMAGE_HEAD)
		copy_head(c, frame->image_head);
	else if (c->headed && frame->what_case == TB__HOST_FRAME__WHAT_IMAGE_PIECE)
		copy_piece(c, &frame->image_piece);
	else
		copy_over(c, -EBADMSG, "that board sent something else than an image");
}

static void copy_closed(void *arg, struct host_link *l, const char *why)
{
	struct image_copy *c = arg;

	(void)l;
	c->link = NULL;
	/* All is here, if not on the disk yet: the last put tells how it ended. */
	if (c->asked && c->offset == c->size)
		copy_put(c);
	else
		copy_over(c, -EPIPE, why);
}

static const struct host_link_events copy_events = {.frame = copy_frame, .closed = copy_closed};

struct image_copy *image_copy_new(uv_loop_t *loop, uint64_t node, int fd, const char *sha256,
				  uint64_t size, struct image_receive *receive, image_copied over,
				  void *arg)
{
	struct image_copy *c = mem_zalloc(sizeof(*c));

	c->loop = loop;
	snprintf(c->sha256, sizeof(c->sha256), "%s", sha256);
	c->size = size;
	c->receive = receive;
	c->over = over;
	c->arg = arg;
	c->heard_ms = uv_now(loop);
	c->link = host_link_new(loop, node, fd, &copy_events, c);
	if (c->link == NULL) {
		free(c);
		return NULL;
	}
	copy_put(c);
	return c;
}

void image_copy_tick(struct image_copy *c, uint64_t now_ms)
{
	if (c->putting || c->link == NULL)
		c->heard_ms = now_ms;
	else if (now_ms - c->heard_ms > IMAGE_COPY_SILENCE_MS)
		copy_over(c, -ETIMEDOUT, "it sends nothing");
}

void image_copy_close(struct image_copy *c)
{
	if (c == NULL || c->closing)
		return;
	c->closing = true;
	if (c->link != NULL)
		host_link_abort(c->link);
	c->link = NULL;
	copy_maybe_freed(c);
}

/* --- the server --- */

enum { SERVE_PIECES = 4 }; /* read at once */

struct image_serve {
	uv_loop_t *loop;
	struct host_link *link; /* NULL: it has ended */
	int fd;
	uint64_t size;
	uint64_t offset;
	void (*gone)(void *arg);
	void *arg;
	bool reading; /* `bytes` and `got` are the worker's */
	uv_work_t work;
	ssize_t got;
	uint8_t bytes[SERVE_PIECES * HOST_PIECE_MAX];
};

static void serve_end(struct image_serve *s, const char *why)
{
	void (*gone)(void *arg) = s->gone;
	void *arg = s->arg;

	if (s->link != NULL)
		host_link_close(s->link, why);
	s->link = NULL;
	if (s->reading)
		return;
	close(s->fd);
	free(s);
	gone(arg);
}

static void serve_work(uv_work_t *work)
{
	struct image_serve *s = work->data;

	s->got = pread(s->fd, s->bytes, sizeof(s->bytes), (off_t)s->offset);
	if (s->got < 0)
		s->got = -errno;
}

static size_t serve_piece(struct image_serve *s, size_t at)
{
	Tb__HostFrame frame = TB__HOST_FRAME__INIT;
	size_t len = (size_t)s->got - at;

	frame.what_case = TB__HOST_FRAME__WHAT_IMAGE_PIECE;
	frame.image_piece.data = s->bytes + at;
	frame.image_piece.len = len < HOST_PIECE_MAX ? len : HOST_PIECE_MAX;
	return host_link_send(s->link, &frame);
}

static void serve_next(struct image_serve *s);

static void serve_after(uv_work_t *work, int status)
{
	struct image_serve *s = work->data;
	size_t queued = 0;

	(void)status;
	s->reading = false;
	if (s->link == NULL || s->got <= 0) {
		serve_end(s, "its file cannot be read");
		return;
	}
	for (size_t at = 0; at < (size_t)s->got; at += HOST_PIECE_MAX)
		queued = serve_piece(s, at);
	s->offset += (uint64_t)s->got;
	if (queued == 0)
		serve_next(s);
}

static void serve_next(struct image_serve *s)
{
	if (s->reading)
		return;
	if (s->offset >= s->size) {
		serve_end(s, NULL);
		return;
	}
	s->reading = true;
	s->work.data = s;
	if (uv_queue_work(s->loop, &s->work, serve_work, serve_after) != 0)
		abort();
}

static void serve_drained(void *arg, struct host_link *l)
{
	(void)l;
	serve_next(arg);
}

static void serve_frame(void *arg, struct host_link *l, const Tb__HostFrame *frame)
{
	(void)l;
	(void)frame;
	serve_end(arg, "nothing more was to be asked on this link");
}

static void serve_closed(void *arg, struct host_link *l, const char *why)
{
	struct image_serve *s = arg;

	(void)l;
	(void)why;
	s->link = NULL;
	serve_end(s, NULL);
}

static const struct host_link_events serve_events = {
	.frame = serve_frame, .drained = serve_drained, .closed = serve_closed};

struct image_serve *image_serve_new(uv_loop_t *loop, struct host_link *l, int fd, uint64_t size,
				    uint64_t offset, void (*gone)(void *arg), void *arg)
{
	struct image_serve *s = mem_zalloc(sizeof(*s));
	Tb__HostFrame frame = TB__HOST_FRAME__INIT;
	Tb__ImageHead head = TB__IMAGE_HEAD__INIT;

	s->loop = loop;
	s->link = l;
	s->fd = fd;
	s->size = size;
	s->offset = offset;
	s->gone = gone;
	s->arg = arg;
	host_link_serve(l, &serve_events, s);
	head.size = size;
	frame.what_case = TB__HOST_FRAME__WHAT_IMAGE_HEAD;
	frame.image_head = &head;
	host_link_send(l, &frame);
	serve_next(s);
	return s;
}

void image_serve_close(struct image_serve *s)
{
	serve_end(s, "this board is stopping");
}
