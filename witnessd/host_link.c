#include "witnessd/host_link.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "proto/frame.h"

/* Freed when pipe and timer have closed. */
struct host_link {
	uv_pipe_t pipe;
	uv_timer_t patience; /* runs from host_link_close on */
	unsigned open_handles;
	uv_shutdown_t shutdown;
	uint64_t node;
	const struct host_link_events *events; /* NULL: it has no owner any more */
	void *arg;
	bool paused;
	bool closing; /* nothing is read or sent any more */
	bool parsing; /* pieces of `in` are looked at further up the stack */
	struct buf in;
};

struct host_write {
	uv_write_t write;
	struct buf bytes;
};

static void link_freed(uv_handle_t *handle)
{
	struct host_link *l = handle->data;

	if (--l->open_handles > 0)
		return;
	buf_free(&l->in);
	free(l);
}

static void link_handles_close(struct host_link *l)
{
	if (uv_is_closing((uv_handle_t *)&l->pipe))
		return;
	uv_close((uv_handle_t *)&l->pipe, link_freed);
	uv_close((uv_handle_t *)&l->patience, link_freed);
}

/* The end from here on: `closed`, if somebody still owns it. */
static void link_end(struct host_link *l, const char *why)
{
	const struct host_link_events *events = l->events;

	l->closing = true;
	l->events = NULL;
	link_handles_close(l);
	if (events != NULL)
		events->closed(l->arg, l, why);
}

static void link_wrote(uv_write_t *write, int status)
{
	struct host_write *w = write->data;
	struct host_link *l = write->handle->data;

	buf_free(&w->bytes);
	free(w);
	if (l->closing)
		return;
	if (status < 0)
		link_end(l, uv_strerror(status));
	else if (uv_stream_get_write_queue_size((uv_stream_t *)&l->pipe) == 0 &&
		 l->events->drained != NULL)
		l->events->drained(l->arg, l);
}

size_t host_link_send(struct host_link *l, const Tb__HostFrame *frame)
{
	struct host_write *w;
	uv_buf_t bytes;

	if (l->closing)
		return 0;
	w = mem_zalloc(sizeof(*w));
	frame_append(&w->bytes, &frame->base);
	assert(w->bytes.len <= FRAME_HEAD + HOST_FRAME_MAX);
	w->write.data = w;
	bytes = uv_buf_init((char *)w->bytes.data, (unsigned)w->bytes.len);
	if (uv_write(&w->write, (uv_stream_t *)&l->pipe, &bytes, 1, link_wrote) != 0) {
		/* The end of the link is read, too: the owner hears of it there and not in here. */
		buf_free(&w->bytes);
		free(w);
		return 0;
	}
	return uv_stream_get_write_queue_size((uv_stream_t *)&l->pipe);
}

/* --- reading --- */

static void link_frame(struct host_link *l, const Tb__HostFrame *frame)
{
	if (frame->what_case == TB__HOST_FRAME__WHAT_END)
		link_end(l, frame->end[0] != '\0' ? frame->end : "the other board has ended it");
	else
		l->events->frame(l->arg, l, frame);
}

/* 1 frame taken; 0: more bytes are needed; -EBADMSG and the like: nonsense. */
static int link_next(struct host_link *l, size_t *used)
{
	const uint8_t *payload;
	size_t payload_len;
	size_t frame_len;
	ProtobufCMessage *message;
	int rv = frame_next(l->in.data + *used, l->in.len - *used, HOST_FRAME_MAX, &payload,
			    &payload_len, &frame_len);

	if (rv <= 0)
		return rv;
	rv = frame_unpack(&tb__host_frame__descriptor, payload, payload_len,
			  FRAME_MEMORY(payload_len), &message);
	if (rv < 0)
		return rv;
	*used += frame_len;
	link_frame(l, (const Tb__HostFrame *)message);
	protobuf_c_message_free_unpacked(message, NULL);
	return 1;
}

static void link_frames(struct host_link *l)
{
	size_t used = 0;
	int rv = 1;

	if (l->parsing)
		return;
	l->parsing = true;
	while (rv > 0 && !l->closing && !l->paused)
		rv = link_next(l, &used);
	l->parsing = false;
	buf_consume(&l->in, used);
	if (rv < 0 && !l->closing)
		link_end(l, "the other board sent what is no frame");
}

static void link_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *bytes)
{
	struct host_link *l = handle->data;

	(void)suggested;
	*bytes = uv_buf_init((char *)buf_reserve(&l->in, HOST_PIECE_MAX), HOST_PIECE_MAX);
}

static void link_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *bytes)
{
	struct host_link *l = stream->data;

	(void)bytes;
	if (l->closing)
		return;
	if (got < 0) {
		link_end(l, got == UV_EOF ? "the link has ended" : uv_strerror((int)got));
		return;
	}
	l->in.len += (size_t)got;
	link_frames(l);
}

void host_link_pause(struct host_link *l)
{
	if (l->closing || l->paused)
		return;
	l->paused = true;
	uv_read_stop((uv_stream_t *)&l->pipe);
}

void host_link_resume(struct host_link *l)
{
	if (l->closing || !l->paused)
		return;
	l->paused = false;
	uv_read_start((uv_stream_t *)&l->pipe, link_alloc, link_read);
	link_frames(l);
}

/* --- life --- */

struct host_link *host_link_new(uv_loop_t *loop, uint64_t node, int fd,
				const struct host_link_events *events, void *arg)
{
	struct host_link *l = mem_zalloc(sizeof(*l));

	l->node = node;
	l->events = events;
	l->arg = arg;
	if (uv_pipe_init(loop, &l->pipe, 0) != 0)
		abort();
	uv_timer_init(loop, &l->patience);
	l->open_handles = 2;
	l->pipe.data = l->patience.data = l;
	if (uv_pipe_open(&l->pipe, fd) != 0) {
		close(fd);
		l->closing = true;
		link_handles_close(l);
		return NULL;
	}
	uv_read_start((uv_stream_t *)&l->pipe, link_alloc, link_read);
	return l;
}

void host_link_serve(struct host_link *l, const struct host_link_events *events, void *arg)
{
	l->events = events;
	l->arg = arg;
}

uint64_t host_link_node(const struct host_link *l)
{
	return l->node;
}

static void link_shut(uv_shutdown_t *request, int status)
{
	struct host_link *l = request->handle->data;

	(void)status;
	link_handles_close(l);
}

static void link_impatient(uv_timer_t *timer)
{
	link_handles_close(timer->data);
}

void host_link_close(struct host_link *l, const char *why)
{
	Tb__HostFrame frame = TB__HOST_FRAME__INIT;

	if (l->closing)
		return;
	if (why != NULL) {
		frame.what_case = TB__HOST_FRAME__WHAT_END;
		frame.end = (char *)why;
		host_link_send(l, &frame);
	}
	l->events = NULL;
	l->closing = true;
	uv_read_stop((uv_stream_t *)&l->pipe);
	/* A board that is frozen takes nothing, and would keep this one from stopping. */
	uv_timer_start(&l->patience, link_impatient, HOST_LINK_CLOSE_MS, 0);
	if (uv_shutdown(&l->shutdown, (uv_stream_t *)&l->pipe, link_shut) != 0)
		link_handles_close(l);
}

void host_link_abort(struct host_link *l)
{
	if (l->closing)
		return;
	l->events = NULL;
	l->closing = true;
	link_handles_close(l);
}
