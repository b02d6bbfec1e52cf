/* stream.c: the life of one connection.
 *
 *   CONNECTING --connected--> HANDSHAKE --established--> OPEN     accepted and adopted streams
 *        |                        ^                       |       begin in HANDSHAKE or OPEN
 *        |                        +------ start_tls ------+
 *        |                        |                       |
 *        |     close, peer's end, TLS failure: FLUSHING <-+
 *        |                                        | queue empty: FIN
 *        |                                     LINGERING
 *        v   failure, abort, deadline from any    | peer's FIN or 2 s
 *      CLOSED <-----------------------------------+       then `closed` from the loop, then freed
 *
 *   CONNECTING  writes are queued, nothing is read; `dial` is set
 *   HANDSHAKE   `tls` is set; ciphertext goes to `inbox` and waits for the group's budget
 *   OPEN        the only state in which the owner gets data and drained
 *   FLUSHING    what was queued is still sent; what comes in is thrown away
 *   LINGERING   reads until the peer's FIN: closing a socket with unread bytes makes the kernel
 *               send RST, which may overtake our last words (RFC 9112, 9.6)
 *   CLOSED      the handle is closing; no callback but `closed`
 *
 * The bytes of a call live in the group's buffers, so a sleeping stream holds none. */
#include "witnessd/stream.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/mem.h"
#include "witnessd/stream_group.h"

enum {
	READ_BUFFER = 64 * 1024,
	SCRATCH_KEPT = 256 * 1024, /* scratch buffers above this are given back */
	UNASKED_MAX = 16 * 1024, /* TLS answers piled up for a peer that does not read */
	TICK_MS = 250,
	HANDSHAKE_MS = 5000,
	FLUSH_MS = 30 * 1000, /* without any progress */
	LINGER_MS = 2000,
	LINGER_BYTES = 4 * 1024 * 1024,
};

enum state { CONNECTING, HANDSHAKE, OPEN, FLUSHING, LINGERING, CLOSED };

/* Bytes on their way through libuv. */
struct flight {
	uv_write_t request;
	struct stream *stream;
	struct buf bytes;
};

/* An outgoing connection being made; outlives its stream while the resolver runs. */
struct dial {
	uv_getaddrinfo_t resolve;
	uv_connect_t connect;
	struct stream *stream; /* NULL: it has gone */
	struct address address;
	struct addrinfo *found; /* of a name; owned */
	struct addrinfo *next;
	struct tls_context *tls; /* reference; NULL: clear */
	unsigned requests; /* under way in libuv */
};

struct stream {
	union {
		uv_handle_t handle;
		uv_stream_t stream;
		uv_tcp_t tcp;
		uv_pipe_t pipe;
	} uv;
	struct stream_group *group;
	struct list link; /* group->streams */
	struct list turn; /* group->wakes, ->handshakes or ->preferred */
	struct list waiting; /* group->deadlines */
	uint64_t deadline_ms; /* while in `waiting` */
	const struct stream_events *events;
	void *arg;
	struct stream_listener *listener; /* NULL: not accepted */
	struct place *place; /* NULL: not counted */
	struct dial *dial; /* while CONNECTING */
	struct tls_session *tls;
	struct flight *flight;
	struct buf inbox; /* ciphertext of the handshake */
	struct buf held; /* plaintext that came while paused */
	struct buf corked; /* plaintext */
	struct buf outbox; /* behind `flight` */
	char *detail; /* for `closed` */
	size_t lingered; /* bytes thrown away */
	size_t unflushed; /* while FLUSHING: queued when the deadline was set */
	unsigned unasked;
	unsigned corks;
	enum state state;
	enum stream_end end;
	bool begun; /* the owner knows of it */
	bool announce; /* `ready` is still to be called */
	bool in_handshakes; /* `turn` is in group->handshakes or ->preferred */
	bool preferred; /* it has its turns there */
	bool paused;
	bool busy; /* the owner was told that bytes are queued, and wants `drained` */
	bool reading;
	bool peer_fin;
	char peer_address[ADDRESS_TEXT];
};

static void tick(uv_timer_t *timer);
static void run_turns(uv_check_t *check);
static void dial_next(struct stream *s);

/* --- the group --- */

static void keep_awake(uv_idle_t *idle)
{
	(void)idle;
}

struct stream_group *stream_group_new(uv_loop_t *loop, unsigned handshake_budget_us)
{
	struct stream_group *g = mem_zalloc(sizeof(*g));
	int rv;

	/* libuv writes with write(2); a peer that has gone is an error code to us, not a signal. */
	signal(SIGPIPE, SIG_IGN);
	g->loop = loop;
	g->budget_ns = handshake_budget_us * UINT64_C(1000);
	list_init(&g->streams);
	pool_init(&g->pool, sizeof(struct stream));
	list_init(&g->listeners);
	list_init(&g->wakes);
	list_init(&g->preferred);
	list_init(&g->handshakes);
	list_init(&g->deadlines);
	g->read_buffer = mem_alloc(READ_BUFFER);
	g->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	rv = uv_timer_init(loop, &g->ticker);
	assert(rv == 0);
	rv = uv_check_init(loop, &g->check);
	assert(rv == 0);
	rv = uv_idle_init(loop, &g->idle);
	assert(rv == 0);
	g->handles = 3;
	g->ticker.data = g->check.data = g->idle.data = g;
	return g;
}

unsigned stream_group_handshakes(const struct stream_group *g)
{
	return g->handshake_count;
}

uv_loop_t *stream_group_loop(const struct stream_group *g)
{
	return g->loop;
}

void stream_group_start_ticker(struct stream_group *g)
{
	if (!g->freed && !uv_is_active((uv_handle_t *)&g->ticker))
		uv_timer_start(&g->ticker, tick, TICK_MS, TICK_MS);
}

static void start_turns(struct stream_group *g)
{
	if (g->freed || uv_is_active((uv_handle_t *)&g->check))
		return;
	uv_check_start(&g->check, run_turns);
	uv_idle_start(&g->idle, keep_awake);
}

static void group_handle_closed(uv_handle_t *handle)
{
	struct stream_group *g = handle->data;

	g->handles--;
	stream_group_maybe_freed(g);
}

void stream_group_free(struct stream_group *g, void (*freed)(void *arg), void *arg)
{
	assert(!g->freed);
	list_for_each_safe (at, &g->streams)
		stream_abort(list_entry(at, struct stream, link));
	list_for_each_safe (at, &g->listeners)
		stream_listener_close(list_entry(at, struct stream_listener, link));
	g->freed = freed;
	g->freed_arg = arg;
	uv_close((uv_handle_t *)&g->ticker, group_handle_closed);
	uv_close((uv_handle_t *)&g->check, group_handle_closed);
	uv_close((uv_handle_t *)&g->idle, group_handle_closed);
}

void stream_group_maybe_freed(struct stream_group *g)
{
	if (!g->freed || g->handles > 0 || !list_empty(&g->streams) || !list_empty(&g->listeners))
		return;
	void (*freed)(void *arg) = g->freed;
	void *arg = g->freed_arg;
	if (g->spare_fd >= 0)
		close(g->spare_fd);
	buf_free(&g->plain);
	buf_free(&g->wire);
	pool_free(&g->pool);
	free(g->read_buffer);
	free(g);
	freed(arg);
}

static struct buf *scratch(struct buf *b)
{
	if (b->cap > SCRATCH_KEPT)
		buf_free(b);
	buf_clear(b);
	return b;
}

/* --- deadlines and turns --- */

static void set_deadline(struct stream *s, uint64_t from_now_ms)
{
	s->deadline_ms = uv_now(s->group->loop) + from_now_ms;
	list_remove(&s->waiting);
	list_append(&s->group->deadlines, &s->waiting);
	stream_group_start_ticker(s->group);
}

static void clear_deadline(struct stream *s)
{
	list_remove(&s->waiting);
}

static void leave_turn(struct stream *s)
{
	list_remove(&s->turn);
	if (s->in_handshakes)
		s->group->handshake_count--;
	s->in_handshakes = false;
}

static void wake_soon(struct stream *s)
{
	if (!list_empty(&s->turn))
		return;
	list_append(&s->group->wakes, &s->turn);
	start_turns(s->group);
}

static void handshake_soon(struct stream *s)
{
	if (!list_empty(&s->turn))
		return;
	list_append(s->preferred ? &s->group->preferred : &s->group->handshakes, &s->turn);
	s->in_handshakes = true;
	s->group->handshake_count++;
	start_turns(s->group);
}

/* --- the end --- */

static void stream_closed(uv_handle_t *handle)
{
	struct stream *s = handle->data;
	struct stream_group *g = s->group;

	assert(!s->flight);
	if (s->events->closed)
		s->events->closed(s, s->end, s->detail ? s->detail : "");
	if (s->place)
		admission_leave(s->place);
	if (s->listener)
		stream_listener_left(s->listener);
	list_remove(&s->link);
	free(s->detail);
	pool_put(&g->pool, s);
	stream_group_maybe_freed(g);
}

static void dial_free(struct dial *d)
{
	if (!d || d->requests > 0)
		return;
	if (d->found)
		uv_freeaddrinfo(d->found);
	tls_context_free(d->tls);
	free(d);
}

static void drop_dial(struct stream *s)
{
	struct dial *d = s->dial;

	if (!d)
		return;
	s->dial = NULL;
	d->stream = NULL;
	dial_free(d);
}

static void drop_buffers(struct stream *s)
{
	buf_free(&s->inbox);
	buf_free(&s->held);
	buf_free(&s->corked);
	buf_free(&s->outbox);
}

/* The reason of the first failure stays. */
static void set_end(struct stream *s, enum stream_end end, const char *detail)
{
	if (s->state >= FLUSHING)
		return;
	s->end = end;
	s->detail = detail && detail[0] ? mem_strdup(detail) : NULL;
}

static void finish(struct stream *s)
{
	if (s->state == CLOSED)
		return;
	s->state = CLOSED;
	s->reading = false;
	leave_turn(s);
	clear_deadline(s);
	drop_dial(s);
	drop_buffers(s);
	tls_session_free(s->tls);
	s->tls = NULL;
	if (!uv_is_closing(&s->uv.handle)) /* else on the way to the next address of a dial */
		uv_close(&s->uv.handle, stream_closed);
}

static void fail(struct stream *s, enum stream_end end, const char *detail)
{
	set_end(s, end, detail);
	finish(s);
}

/* A read, write or socket call said no. */
static void fail_errno(struct stream *s, int error)
{
	fail(s, error == UV_ECONNRESET || error == UV_EPIPE ? STREAM_END_RESET : STREAM_END_LOST,
	     uv_strerror(error));
}

void stream_abort(struct stream *s)
{
	struct linger at_once = {.l_onoff = 1, .l_linger = 0};
	uv_os_fd_t fd;

	if (s->state == CLOSED)
		return;
	if (!uv_is_closing(&s->uv.handle) && uv_fileno(&s->uv.handle, &fd) == 0)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	fail(s, STREAM_END_LOCAL, "");
}

/* --- reading --- */

static void read_room(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct stream *s = handle->data;

	(void)suggested;
	*ret = uv_buf_init((char *)s->group->read_buffer, READ_BUFFER);
}

static void bytes_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buffer);

static bool wants_bytes(const struct stream *s)
{
	switch (s->state) {
	case HANDSHAKE:
		return list_empty(&s->turn);
	case OPEN:
		return !s->announce && !s->paused && s->held.len == 0;
	case FLUSHING:
	case LINGERING:
		return !s->peer_fin;
	default:
		return false;
	}
}

static void update_reading(struct stream *s)
{
	bool wanted = wants_bytes(s);

	if (wanted == s->reading || s->state == CLOSED)
		return;
	s->reading = wanted;
	if (!wanted) {
		uv_read_stop(&s->uv.stream);
		return;
	}
	int rv = uv_read_start(&s->uv.stream, read_room, bytes_read);
	if (rv < 0)
		fail_errno(s, rv);
}

static void deliver(struct stream *s, const uint8_t *bytes, size_t len)
{
	if (s->state != OPEN || len == 0)
		return;
	if (s->paused || s->held.len > 0)
		buf_append(&s->held, bytes, len);
	else
		s->events->data(s, bytes, len);
}

/* --- writing --- */

static void sent(uv_write_t *request, int status);

static size_t queued(const struct stream *s)
{
	return (s->flight ? uv_stream_get_write_queue_size(&s->uv.stream) : 0) + s->outbox.len +
	       (s->tls ? tls_session_pending(s->tls) : 0);
}

static void tell_drained(struct stream *s)
{
	if (s->state != OPEN || !s->busy || queued(s) > 0)
		return;
	s->busy = false;
	if (s->events->drained)
		s->events->drained(s);
}

static void take_off(struct stream *s)
{
	struct flight *f = mem_zalloc(sizeof(*f));

	f->stream = s;
	f->bytes = s->outbox;
	s->outbox = (struct buf){0};
	s->flight = f;
	uv_buf_t bytes = uv_buf_init((char *)f->bytes.data, (unsigned)f->bytes.len);
	int rv = uv_write(&f->request, &s->uv.stream, &bytes, 1, sent);
	if (rv < 0) {
		s->flight = NULL;
		buf_free(&f->bytes);
		free(f);
		fail_errno(s, rv);
	}
}

/* Ciphertext, or plaintext in the clear. The stream may be CLOSED afterwards. */
static void send_bytes(struct stream *s, const uint8_t *data, size_t len)
{
	if (len == 0 || s->state == CLOSED)
		return;
	if (!s->flight && s->outbox.len == 0 && s->state != CONNECTING) {
		uv_buf_t bytes = uv_buf_init((char *)data, (unsigned)len);
		int rv = uv_try_write(&s->uv.stream, &bytes, 1);
		if (rv < 0 && rv != UV_EAGAIN) {
			fail_errno(s, rv);
			return;
		}
		size_t gone = rv > 0 ? (size_t)rv : 0;
		data += gone;
		len -= gone;
	}
	if (len == 0)
		return;
	buf_append(&s->outbox, data, len);
	if (!s->flight && s->state != CONNECTING)
		take_off(s);
}

static void expect_flush(struct stream *s)
{
	s->unflushed = queued(s);
	set_deadline(s, FLUSH_MS);
}

static void send_fin(struct stream *s)
{
	uv_os_fd_t fd;

	if (s->state != FLUSHING || queued(s) > 0)
		return;
	/* Nothing is queued in libuv either, so its request for this is not needed. */
	if (s->peer_fin || uv_fileno(&s->uv.handle, &fd) < 0 || shutdown(fd, SHUT_WR) < 0) {
		finish(s);
		return;
	}
	s->state = LINGERING;
	set_deadline(s, LINGER_MS);
	update_reading(s);
}

static void sent(uv_write_t *request, int status)
{
	struct flight *f = list_entry(request, struct flight, request);
	struct stream *s = f->stream;

	s->flight = NULL;
	buf_free(&f->bytes);
	free(f);
	if (s->state == CLOSED)
		return;
	if (status < 0) {
		fail_errno(s, status);
		return;
	}
	if (s->outbox.len > 0) {
		take_off(s);
		return;
	}
	s->unasked = 0;
	send_fin(s);
	tell_drained(s);
}

static void write_plain(struct stream *s, const uint8_t *data, size_t len)
{
	if (!s->tls) {
		send_bytes(s, data, len);
		return;
	}
	struct buf *wire = scratch(&s->group->wire);
	if (tls_session_send(s->tls, data, len, wire) < 0) {
		fail(s, STREAM_END_TLS, tls_session_error(s->tls));
		return;
	}
	send_bytes(s, wire->data, wire->len);
}

size_t stream_write(struct stream *s, const void *data, size_t len)
{
	if (s->state >= FLUSHING)
		return 0;
	if (s->corks > 0)
		buf_append(&s->corked, data, len);
	else
		write_plain(s, data, len);
	if (s->state >= FLUSHING)
		return 0;
	size_t left = queued(s);
	if (left > 0)
		s->busy = true;
	return left;
}

void stream_cork(struct stream *s)
{
	s->corks++;
}

static void flush_cork(struct stream *s)
{
	struct buf bytes = s->corked;

	s->corked = (struct buf){0};
	if (bytes.len > 0 && s->state < FLUSHING)
		write_plain(s, bytes.data, bytes.len);
	buf_free(&bytes);
	if (s->state < FLUSHING && queued(s) > 0)
		s->busy = true;
}

void stream_uncork(struct stream *s)
{
	assert(s->corks > 0);
	if (--s->corks == 0)
		flush_cork(s);
}

/* --- closing in order --- */

static void close_in_order(struct stream *s, enum stream_end end, const char *detail)
{
	if (s->state >= FLUSHING)
		return;
	if (s->state == CONNECTING) {
		fail(s, end, detail);
		return;
	}
	flush_cork(s);
	if (s->state == CLOSED)
		return;
	set_end(s, end, detail);
	if (s->tls) {
		struct buf *wire = scratch(&s->group->wire);

		tls_session_close(s->tls, wire);
		s->state = FLUSHING;
		send_bytes(s, wire->data, wire->len);
		if (s->state == CLOSED)
			return;
		/* What the session still kept was for a handshake that will not be. */
		tls_session_free(s->tls);
		s->tls = NULL;
	}
	s->state = FLUSHING;
	leave_turn(s);
	buf_free(&s->inbox);
	buf_free(&s->held);
	expect_flush(s);
	update_reading(s);
	send_fin(s);
}

void stream_close(struct stream *s)
{
	close_in_order(s, STREAM_END_LOCAL, "");
}

/* --- TLS --- */

/* After tls_session_receive: words to the peer first, then ours. */
static void tls_received(struct stream *s, int rv, struct buf *plain, struct buf *wire)
{
	bool opened = s->state == HANDSHAKE && tls_session_established(s->tls);

	if (s->state == OPEN && wire->len > 0 && queued(s) > 0) {
		s->unasked += (unsigned)wire->len;
		if (s->unasked > UNASKED_MAX) {
			fail(s, STREAM_END_TLS, "the peer asks and does not read");
			return;
		}
	}
	send_bytes(s, wire->data, wire->len);
	if (s->state == CLOSED)
		return;
	if (opened) {
		s->state = OPEN;
		clear_deadline(s);
		if (s->place)
			admission_attached(s->place);
		if (s->events->ready)
			s->events->ready(s);
		tell_drained(s);
	}
	deliver(s, plain->data, plain->len);
	if (s->state >= FLUSHING)
		return;
	if (rv == -EPIPE)
		close_in_order(s, STREAM_END_PEER, "");
	else if (rv < 0)
		close_in_order(s, STREAM_END_TLS, tls_session_error(s->tls));
}

static void tls_bytes(struct stream *s, const uint8_t *bytes, size_t len)
{
	struct buf *plain = scratch(&s->group->plain);
	struct buf *wire = scratch(&s->group->wire);

	tls_received(s, tls_session_receive(s->tls, bytes, len, plain, wire), plain, wire);
}

static void handshake_turn(struct stream *s)
{
	struct buf inbox = s->inbox;

	s->inbox = (struct buf){0};
	tls_bytes(s, inbox.data, inbox.len);
	buf_free(&inbox);
	update_reading(s);
}

static void begin_handshake(struct stream *s, struct tls_context *tls)
{
	assert(!s->tls);
	s->tls = tls_session_new(tls);
	s->state = HANDSHAKE;
	set_deadline(s, HANDSHAKE_MS);
	if (tls_context_is_server(tls))
		return;
	struct buf *wire = scratch(&s->group->wire);
	tls_session_start(s->tls, wire);
	send_bytes(s, wire->data, wire->len);
}

void stream_start_tls(struct stream *s, struct tls_context *tls, const uint8_t *rest, size_t len)
{
	if (s->state >= FLUSHING)
		return;
	assert(s->state == OPEN);
	flush_cork(s);
	if (s->state == CLOSED)
		return;
	s->announce = false;
	begin_handshake(s, tls);
	if (s->state == CLOSED)
		return;
	buf_append(&s->inbox, rest, len);
	if (len > 0)
		handshake_soon(s);
	update_reading(s);
}

/* --- events of the loop --- */

static void thrown_away(struct stream *s, ssize_t len)
{
	if (len < 0) {
		s->peer_fin = true;
		if (s->state == LINGERING || len != UV_EOF)
			finish(s);
		return;
	}
	s->lingered += (size_t)len;
	if (s->lingered > LINGER_BYTES)
		finish(s);
}

static void peer_ended(struct stream *s, ssize_t why)
{
	if (why != UV_EOF) {
		fail_errno(s, (int)why);
		return;
	}
	s->peer_fin = true;
	if (s->state == HANDSHAKE)
		fail(s, STREAM_END_PEER, "closed during the TLS handshake");
	else
		close_in_order(s, STREAM_END_PEER, s->tls ? "closed without a TLS close" : "");
}

/* libuv takes a hang-up right behind data for the peer's FIN without reading on. It may be a reset,
 * or our own kernel that gave up; who asks whether the peer knows (S1) must not be told a FIN. */
static ssize_t end_or_error(struct stream *s)
{
	int error = 0;
	socklen_t len = sizeof(error);
	uv_os_fd_t fd;

	if (uv_fileno(&s->uv.handle, &fd) == 0 &&
	    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error != 0)
		return -error;
	return UV_EOF;
}

static void bytes_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buffer)
{
	struct stream *s = stream->data;
	const uint8_t *bytes = (const uint8_t *)buffer->base;

	if (len == 0)
		return;
	if (len < 0)
		s->reading = false; /* libuv has stopped by itself */
	if (len == UV_EOF)
		len = end_or_error(s);
	if (s->state == FLUSHING || s->state == LINGERING) {
		thrown_away(s, len);
	} else if (len < 0) {
		peer_ended(s, len);
	} else if (s->state == HANDSHAKE) {
		buf_append(&s->inbox, bytes, (size_t)len);
		handshake_soon(s);
	} else if (s->tls) {
		tls_bytes(s, bytes, (size_t)len);
	} else {
		deliver(s, bytes, (size_t)len);
	}
	update_reading(s);
}

static void wake_turn(struct stream *s)
{
	if (s->state == HANDSHAKE && s->inbox.len > 0)
		handshake_soon(s);
	if (s->state == OPEN && s->announce) {
		s->announce = false;
		if (s->events->ready)
			s->events->ready(s);
	}
	if (s->state == OPEN && !s->paused && s->held.len > 0) {
		struct buf held = s->held;

		s->held = (struct buf){0};
		deliver(s, held.data, held.len);
		buf_free(&held);
	}
	update_reading(s);
}

static struct stream *next_turn(struct list *queue)
{
	struct stream *s = list_entry(queue->next, struct stream, turn);

	leave_turn(s);
	return s;
}

static struct stream *next_handshake(struct stream_group *g)
{
	g->preferred_was =
		list_empty(&g->handshakes) || (!list_empty(&g->preferred) && !g->preferred_was);
	return next_turn(g->preferred_was ? &g->preferred : &g->handshakes);
}

static void run_turns(uv_check_t *check)
{
	struct stream_group *g = check->data;
	struct list batch;

	/* Streams woken by these wait for the next turn. */
	list_init(&batch);
	while (!list_empty(&g->wakes))
		list_append(&batch, &next_turn(&g->wakes)->turn);
	while (!list_empty(&batch))
		wake_turn(next_turn(&batch));
	uint64_t start = uv_hrtime();
	while (g->handshake_count > 0) {
		handshake_turn(next_handshake(g));
		if (uv_hrtime() - start >= g->budget_ns)
			break;
	}
	if (list_empty(&g->wakes) && g->handshake_count == 0) {
		uv_check_stop(&g->check);
		uv_idle_stop(&g->idle);
	}
}

static void expire(struct stream *s)
{
	switch (s->state) {
	case CONNECTING:
		fail(s, STREAM_END_TIMEOUT, "no connection within the time given");
		break;
	case HANDSHAKE:
		fail(s, STREAM_END_TIMEOUT, "no TLS handshake within 5 seconds");
		break;
	case FLUSHING:
		if (queued(s) < s->unflushed)
			expect_flush(s);
		else
			stream_abort(s);
		break;
	default:
		finish(s);
	}
}

void stream_group_expire(struct stream_group *g, uint64_t now_ms)
{
	bool resting = false;

	list_for_each_safe (at, &g->deadlines) {
		struct stream *s = list_entry(at, struct stream, waiting);

		if (s->deadline_ms <= now_ms)
			expire(s);
	}
	list_for_each (at, &g->listeners) {
		if (stream_listener_wake(list_entry(at, struct stream_listener, link)))
			resting = true;
	}
	if (list_empty(&g->deadlines) && !resting)
		uv_timer_stop(&g->ticker);
}

static void tick(uv_timer_t *timer)
{
	struct stream_group *g = timer->data;

	stream_group_expire(g, uv_now(g->loop));
}

/* --- birth --- */

static struct stream *stream_new(struct stream_group *g, bool local,
				 const struct stream_events *events, void *arg)
{
	struct stream *s = pool_get(&g->pool);
	int rv = local ? uv_pipe_init(g->loop, &s->uv.pipe, 0) : uv_tcp_init(g->loop, &s->uv.tcp);

	assert(rv == 0);
	assert(!g->freed);
	s->uv.handle.data = s;
	s->group = g;
	s->events = events;
	s->arg = arg;
	s->state = OPEN;
	list_append(&g->streams, &s->link);
	list_init(&s->turn);
	list_init(&s->waiting);
	strcpy(s->peer_address, "unix");
	return s;
}

static int open_socket(struct stream *s, int fd)
{
	int rv;

	if (s->uv.handle.type == UV_NAMED_PIPE)
		return uv_pipe_open(&s->uv.pipe, fd);
	rv = uv_tcp_open(&s->uv.tcp, fd);
	if (rv == 0)
		uv_tcp_nodelay(&s->uv.tcp, 1);
	return rv;
}

struct stream *stream_new_accepted(struct stream_group *g, struct stream_listener *l, int fd,
				   const struct sockaddr *peer, struct tls_context *tls,
				   const struct stream_events *events, void *arg)
{
	struct stream *s = stream_new(g, peer->sa_family == AF_UNIX, events, arg);
	int rv = open_socket(s, fd);

	s->listener = l;
	address_format(peer, s->peer_address);
	if (rv < 0) {
		close(fd);
		fail_errno(s, rv);
	} else if (tls) {
		begin_handshake(s, tls);
	}
	return s;
}

void stream_take_place(struct stream *s, struct place *place)
{
	s->place = place;
	s->preferred = admission_is_member(place);
}

void stream_begin(struct stream *s)
{
	if (s->state == OPEN && s->events->ready)
		s->events->ready(s);
	update_reading(s);
}

struct stream *stream_adopt(struct stream_group *g, int fd, const struct stream_events *events,
			    void *arg)
{
	struct sockaddr_storage name = {.ss_family = AF_UNIX};
	socklen_t len = sizeof(name);

	if (getpeername(fd, (struct sockaddr *)&name, &len) < 0)
		name.ss_family = AF_UNIX; /* uv_pipe_open takes any descriptor; reading will tell */
	struct stream *s = stream_new(g, name.ss_family == AF_UNIX, events, arg);
	address_format((struct sockaddr *)&name, s->peer_address);
	int rv = open_socket(s, fd);
	if (rv < 0) {
		close(fd);
		fail(s, STREAM_END_CONNECT, uv_strerror(rv));
	} else {
		s->announce = true;
		wake_soon(s);
	}
	return s;
}

/* --- outgoing --- */

static void connected(struct stream *s)
{
	struct tls_context *tls = s->dial->tls ? tls_context_share(s->dial->tls) : NULL;
	struct buf early = s->outbox;

	drop_dial(s);
	clear_deadline(s);
	s->outbox = (struct buf){0};
	s->state = OPEN;
	if (tls) {
		begin_handshake(s, tls);
		tls_context_free(tls);
	}
	if (s->state != CLOSED && early.len > 0)
		write_plain(s, early.data, early.len);
	buf_free(&early);
	if (s->state == OPEN && s->events->ready)
		s->events->ready(s);
	tell_drained(s);
	update_reading(s);
}

static void redial(uv_handle_t *handle)
{
	struct stream *s = handle->data;

	if (s->state == CLOSED) {
		stream_closed(handle);
		return;
	}
	int rv = uv_tcp_init(s->group->loop, &s->uv.tcp);
	assert(rv == 0);
	s->uv.handle.data = s;
	dial_next(s);
}

/* On to the next address of the name, if there is one. */
static void dial_failed(struct stream *s, int rv)
{
	if (s->dial->next)
		uv_close(&s->uv.handle, redial);
	else
		fail(s, STREAM_END_CONNECT, uv_strerror(rv));
}

static void connect_done(uv_connect_t *request, int status)
{
	struct dial *d = list_entry(request, struct dial, connect);
	struct stream *s = d->stream;

	d->requests--;
	if (!s)
		dial_free(d);
	else if (status < 0)
		dial_failed(s, status);
	else
		connected(s);
}

static void dial_socket(struct stream *s, const struct sockaddr *to)
{
	struct dial *d = s->dial;

	address_format(to, s->peer_address);
	if (to->sa_family == AF_UNIX) {
		d->requests++;
		uv_pipe_connect(&d->connect, &s->uv.pipe, d->address.socket.un.sun_path,
				connect_done);
		return;
	}
	int rv = uv_tcp_connect(&d->connect, &s->uv.tcp, to, connect_done);
	if (rv < 0) {
		dial_failed(s, rv);
		return;
	}
	d->requests++;
	uv_tcp_nodelay(&s->uv.tcp, 1);
}

static void dial_next(struct stream *s)
{
	struct addrinfo *now = s->dial->next;

	s->dial->next = now->ai_next;
	dial_socket(s, now->ai_addr);
}

static void resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
	struct dial *d = list_entry(request, struct dial, resolve);
	struct stream *s = d->stream;

	d->requests--;
	d->found = d->next = found;
	if (!s)
		dial_free(d);
	else if (status < 0 || !found)
		fail(s, STREAM_END_CONNECT, status < 0 ? uv_strerror(status) : "no address");
	else
		dial_next(s);
}

static int dial_name(struct stream *s)
{
	struct dial *d = s->dial;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
	char port[8];

	snprintf(port, sizeof(port), "%u", d->address.port);
	int rv = uv_getaddrinfo(s->group->loop, &d->resolve, resolved, d->address.host, port,
				&hints);
	if (rv == 0)
		d->requests++;
	return rv;
}

struct stream *stream_connect(struct stream_group *g, const char *address, struct tls_context *tls,
			      unsigned timeout_ms, const struct stream_events *events, void *arg)
{
	struct dial *d = mem_zalloc(sizeof(*d));
	int rv = address_parse(address, &d->address);
	bool local = rv == 0 && d->address.socket.any.sa_family == AF_UNIX;
	struct stream *s = stream_new(g, local, events, arg);

	s->state = CONNECTING;
	s->preferred = true;
	s->dial = d;
	d->stream = s;
	d->tls = tls ? tls_context_share(tls) : NULL;
	snprintf(s->peer_address, sizeof(s->peer_address), "%s", address);
	set_deadline(s, timeout_ms);
	if (rv == 0 && d->address.kind == ADDRESS_NAME)
		rv = dial_name(s);
	else if (rv == 0)
		dial_socket(s, &d->address.socket.any);
	if (rv < 0)
		fail(s, STREAM_END_CONNECT,
		     rv == -EINVAL ? "not an address of the form host:port" : uv_strerror(rv));
	return s;
}

/* --- questions --- */

void stream_set_events(struct stream *s, const struct stream_events *events, void *arg)
{
	s->events = events;
	s->arg = arg;
}

void stream_set_arg(struct stream *s, void *arg)
{
	s->arg = arg;
}

void *stream_arg(const struct stream *s)
{
	return s->arg;
}

struct stream_group *stream_group_of(const struct stream *s)
{
	return s->group;
}

const char *stream_peer_address(const struct stream *s)
{
	return s->peer_address;
}

void stream_local_address(const struct stream *s, char text[ADDRESS_TEXT])
{
	struct sockaddr_storage name = {0};
	socklen_t len = sizeof(name);
	uv_os_fd_t fd;

	text[0] = '\0';
	if (uv_fileno(&s->uv.handle, &fd) == 0 &&
	    getsockname(fd, (struct sockaddr *)&name, &len) == 0)
		address_format((struct sockaddr *)&name, text);
}

struct tls_session *stream_tls(struct stream *s)
{
	return s->tls;
}

int stream_peer_uid(const struct stream *s, unsigned *ret_uid)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	uv_os_fd_t fd;

	if (s->uv.handle.type != UV_NAMED_PIPE || uv_fileno(&s->uv.handle, &fd) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return -ENOTSUP;
	*ret_uid = peer.uid;
	return 0;
}

void stream_silence_limit(struct stream *s, unsigned ms)
{
	int idle_s = ms < 1000 ? 1 : (int)(ms / 1000);
	int again_s = 1;
	int on = 1;
	uv_os_fd_t fd;

	if (s->uv.handle.type != UV_TCP || uv_fileno(&s->uv.handle, &fd) != 0)
		return;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
	/* tcp(7): a peer that is there answers the first probe; TCP_USER_TIMEOUT ends the others.
	 */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &again_s, sizeof(again_s));
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

unsigned stream_rtt_ms(const struct stream *s)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);
	uv_os_fd_t fd;

	if (s->uv.handle.type != UV_TCP || uv_fileno(&s->uv.handle, &fd) < 0 ||
	    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
		return 0;
	return (info.tcpi_rtt + 4 * info.tcpi_rttvar) / 1000;
}

void stream_pause(struct stream *s)
{
	s->paused = true;
	update_reading(s);
}

void stream_resume(struct stream *s)
{
	s->paused = false;
	if (s->state == OPEN && s->held.len > 0)
		wake_soon(s);
	update_reading(s);
}
