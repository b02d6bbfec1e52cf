/* http.c: connections, requests and answers.
 *
 *   IDLE --first byte--> HEAD --whole--> BODY --whole--> ANSWER --answered--> IDLE or HEAD
 *                          |               |                |
 *                          +---- refused --+---> CLOSING <--+ (no keep-alive)
 *
 * One request of a connection is in hand at a time; what a client sends ahead waits in `in`. An
 * exchange is a request with its answer. It outlives its connection if the client goes while the
 * owner still works on it; `connection` is NULL then and the answer goes nowhere. */
#include "witnessd/http.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/ip.h"
#include "lib/list.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "witnessd/http_chunk.h"
#include "witnessd/http_head.h"

enum {
	TICK_MS = 500,
	AHEAD_MAX = 64 * 1024, /* bytes of requests sent ahead; then reading pauses */
	QUEUED_MAX = 256 * 1024, /* queued answers; then no further request is begun */
	BODY_BYTES_PER_S = 16 * 1024, /* each so many bytes of a body win it another second */
	COMPLAIN_EVERY_MS = 10 * 1000,
};

enum connection_state { IDLE, HEAD, BODY, ANSWER, CLOSING };

struct origin { /* one client as limits count it, and its connections */
	struct hash_node node;
	struct ip key;
	unsigned count;
};

struct http_server {
	struct stream_group *group;
	struct http_handler handler;
	struct http_limits limits;
	uv_timer_t ticker;
	struct list connections;
	struct hash origins;
	unsigned tcp_count, unix_count;
	uint64_t complained_ms;
	struct buf out; /* head of the answer being made */
	time_t date_s;
	char date[32];
	bool closing, timer_closed;
	void (*freed)(void *arg);
	void *freed_arg;
};

struct http_connection {
	struct list link;
	struct http_server *server;
	struct stream *stream;
	struct origin *origin; /* NULL: Unix socket */
	struct exchange *exchange; /* in BODY and ANSWER */
	struct tls_peer *peer; /* NULL: without a verified certificate */
	struct buf in;
	size_t scanned; /* of `in`, for http_head_find */
	uint64_t deadline_ms; /* of the state; 0: none */
	uint64_t send_deadline_ms; /* 0: nothing is queued */
	size_t unsent; /* when send_deadline_ms was set */
	enum connection_state state;
	size_t corked; /* while working: bytes of answers made */
	bool working; /* inside connection_work */
	bool choked; /* too much is queued to begin another request */
};

enum answer { UNANSWERED, STREAMING, ANSWERED };

struct exchange {
	struct http_request public;
	struct http_connection *connection; /* NULL: the client has gone */
	struct http_head head;
	struct http_chunks chunks;
	uint64_t body_left;
	struct buf body;
	char *joined[HTTP_FIELD_MAX]; /* repeated fields, made when asked for */
	enum answer answer;
	bool chunked; /* the streamed answer */
	bool bodiless; /* HEAD and the like */
	bool keep_alive;
	bool shown; /* the owner has it (handler->request) */
};

static const struct tls_peer nobody;

static struct exchange *exchange_of(const struct http_request *request)
{
	return list_entry(request, struct exchange, public);
}

/* --- limits --- */

static int origin_matches(const struct hash_node *node, const void *key)
{
	return ip_equal(&list_entry(node, struct origin, node)->key, key);
}

static struct origin *origin_take(struct http_server *h, struct stream *s)
{
	struct ip key = {0};
	uint16_t port;

	(void)ip_of_text(stream_peer_address(s), &key, &port);
	key = ip_origin(&key);
	uint64_t hash = hash_bytes(&key, sizeof(key));
	struct hash_node *found = hash_find(&h->origins, hash, origin_matches, &key);
	struct origin *o;
	if (found) {
		o = list_entry(found, struct origin, node);
	} else {
		o = mem_zalloc(sizeof(*o));
		o->key = key;
		hash_insert(&h->origins, &o->node, hash);
	}
	o->count++;
	return o;
}

static void origin_give(struct http_server *h, struct origin *o)
{
	if (!o || --o->count > 0)
		return;
	hash_remove(&h->origins, &o->node);
	free(o);
}

static bool is_unix(const struct stream *s)
{
	return strcmp(stream_peer_address(s), "unix") == 0;
}

static bool over_limit(struct http_server *h, struct http_connection *c)
{
	const char *what = NULL;
	unsigned limit = 0;

	if (c->origin && c->origin->count > h->limits.per_address) {
		what = "from this address";
		limit = h->limits.per_address;
	} else if ((c->origin ? h->tcp_count : h->unix_count) > h->limits.connections) {
		what = "in all (api.connections-max)";
		limit = h->limits.connections;
	}
	if (!what)
		return false;
	uint64_t now = uv_now(stream_group_loop(h->group));
	if (h->complained_ms == 0 || now - h->complained_ms >= COMPLAIN_EVERY_MS) {
		h->complained_ms = now;
		log_warning("http-limit", "client %s turned away: more than %u connections %s",
			    stream_peer_address(c->stream), limit, what);
	}
	return true;
}

/* --- exchanges --- */

static void exchange_free(struct exchange *x)
{
	if (!x)
		return;
	for (unsigned i = 0; i < HTTP_FIELD_MAX; i++)
		free(x->joined[i]);
	http_head_free(&x->head);
	if (x->body.data)
		mem_wipe(x->body.data, x->body.len); /* may hold a join secret */
	buf_free(&x->body);
	free((char *)x->public.remote_address);
	if (x->public.peer != &nobody)
		free((struct tls_peer *)x->public.peer);
	free(x);
}

static void connection_peer(struct http_connection *c)
{
	struct tls_session *tls = stream_tls(c->stream);
	struct tls_peer peer;

	if (!tls || c->peer)
		return;
	tls_session_peer(tls, &peer);
	if (peer.present)
		c->peer = mem_dup(&peer, sizeof(peer));
}

static struct exchange *exchange_new(struct http_connection *c, struct http_head *head)
{
	struct exchange *x = mem_zalloc(sizeof(*x));

	x->head = *head;
	x->connection = c;
	x->bodiless = strcmp(head->method, "HEAD") == 0;
	x->keep_alive = head->keep_alive;
	x->body_left = head->content_length;
	x->public = (struct http_request){
		.method = x->head.method,
		.path = x->head.path,
		.query = x->head.query,
		.remote_address = mem_strdup(stream_peer_address(c->stream)),
		.tls = stream_tls(c->stream) != NULL,
		.peer = c->peer ? mem_dup(c->peer, sizeof(*c->peer)) : &nobody,
		.body_limit = HTTP_BODY_DEFAULT,
	};
	x->public.has_uid = stream_peer_uid(c->stream, &x->public.uid) == 0;
	return x;
}

const char *http_header(const struct http_request *request, const char *name)
{
	struct exchange *x = exchange_of(request);
	const struct http_field *fields = x->head.fields;
	unsigned first = 0;

	while (first < x->head.field_count && strcasecmp(fields[first].name, name) != 0)
		first++;
	if (first == x->head.field_count)
		return NULL;
	if (x->joined[first])
		return x->joined[first];
	struct buf all = {0};
	for (unsigned i = first + 1; i < x->head.field_count; i++) {
		if (strcasecmp(fields[i].name, name) == 0)
			buf_printf(&all, "%s%s", ", ", fields[i].value);
	}
	if (all.len == 0)
		return fields[first].value;
	x->joined[first] = mem_printf("%s%s", fields[first].value, buf_string(&all));
	buf_free(&all);
	return x->joined[first];
}

int http_query(const struct http_request *request, const char *name, char **ret)
{
	return http_query_value(request->query, name, ret);
}

bool http_request_gone(const struct http_request *request)
{
	return !exchange_of(request)->connection;
}

/* --- sending --- */

static const char *status_words(unsigned status)
{
	static const struct {
		unsigned status;
		const char *words;
	} table[] = {
		{100, "Continue"},
		{200, "OK"},
		{201, "Created"},
		{202, "Accepted"},
		{204, "No Content"},
		{301, "Moved Permanently"},
		{302, "Found"},
		{303, "See Other"},
		{304, "Not Modified"},
		{307, "Temporary Redirect"},
		{308, "Permanent Redirect"},
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{406, "Not Acceptable"},
		{408, "Request Timeout"},
		{409, "Conflict"},
		{410, "Gone"},
		{411, "Length Required"},
		{412, "Precondition Failed"},
		{413, "Content Too Large"},
		{414, "URI Too Long"},
		{415, "Unsupported Media Type"},
		{417, "Expectation Failed"},
		{421, "Misdirected Request"},
		{422, "Unprocessable Content"},
		{428, "Precondition Required"},
		{429, "Too Many Requests"},
		{431, "Request Header Fields Too Large"},
		{500, "Internal Server Error"},
		{501, "Not Implemented"},
		{502, "Bad Gateway"},
		{503, "Service Unavailable"},
		{504, "Gateway Timeout"},
		{505, "HTTP Version Not Supported"},
		{507, "Insufficient Storage"},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (table[i].status == status)
			return table[i].words;
	}
	return "Status";
}

/* Made anew once a second. No strftime: its names of days follow the locale. */
static const char *server_date(struct http_server *h)
{
	static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	time_t now = (time_t)(clock_realtime_ms() / 1000);
	struct tm utc;

	if (now == h->date_s || !gmtime_r(&now, &utc))
		return h->date;
	h->date_s = now;
	snprintf(h->date, sizeof(h->date), "%s, %02u %s %04u %02u:%02u:%02u GMT", days[utc.tm_wday],
		 (unsigned)utc.tm_mday % 100, months[utc.tm_mon],
		 (unsigned)(utc.tm_year + 1900) % 10000, (unsigned)utc.tm_hour % 100,
		 (unsigned)utc.tm_min % 100, (unsigned)utc.tm_sec % 100);
	return h->date;
}

static struct buf *head_begin(struct http_server *h, unsigned status, const char *type,
			      const char *headers, bool keep_alive)
{
	struct buf *out = &h->out;

	buf_clear(out);
	buf_printf(out, "HTTP/1.1 %u %s\r\nDate: %s\r\n", status, status_words(status),
		   server_date(h));
	if (type)
		buf_printf(out, "Content-Type: %s\r\n", type);
	if (headers)
		buf_puts(out, headers);
	if (!keep_alive)
		buf_puts(out, "Connection: close\r\n");
	return out;
}

/* Watches that the client takes what is queued for it. */
static size_t connection_watch(struct http_connection *c, size_t left)
{
	if (left > 0 && c->send_deadline_ms == 0) {
		c->unsent = left;
		c->send_deadline_ms =
			uv_now(stream_group_loop(c->server->group)) + HTTP_SEND_DEADLINE_MS;
	}
	c->choked = left > QUEUED_MAX;
	return left;
}

/* Returns the bytes still queued. */
static size_t connection_send(struct http_connection *c, const void *data, size_t len)
{
	size_t left = stream_write(c->stream, data, len);

	if (c->working)
		left += c->corked += len;
	return connection_watch(c, left);
}

static void connection_deadline(struct http_connection *c, uint64_t from_now_ms)
{
	c->deadline_ms =
		from_now_ms ? uv_now(stream_group_loop(c->server->group)) + from_now_ms : 0;
}

static void connection_close(struct http_connection *c)
{
	c->state = CLOSING;
	c->deadline_ms = 0;
	c->send_deadline_ms = 0; /* the stream has a deadline of its own for this */
	buf_free(&c->in);
	stream_close(c->stream);
}

/* The connection cannot go on: say why and close it. */
static void connection_refuse(struct http_connection *c, unsigned status, const char *why)
{
	struct http_server *h = c->server;
	const char *type = "text/plain; charset=utf-8";
	char line[160];
	const char *body = line;

	snprintf(line, sizeof(line), "%u %s: %s\n", status, status_words(status), why);
	if (h->handler.error_body)
		body = h->handler.error_body(status, why, &type, h->handler.arg);
	struct buf *out = head_begin(h, status, type, NULL, false);
	buf_printf(out, "Content-Length: %zu\r\n\r\n", strlen(body));
	if (!c->exchange || !c->exchange->bodiless)
		buf_puts(out, body);
	connection_send(c, out->data, out->len);
	exchange_free(c->exchange);
	c->exchange = NULL;
	connection_close(c);
}

static void refuse_body(struct http_connection *c)
{
	char why[64];

	snprintf(why, sizeof(why), "the body is larger than %zu bytes",
		 c->exchange->public.body_limit);
	connection_refuse(c, 413, why);
}

static void connection_work(struct http_connection *c);

/* Answered at its head, with the body that was announced still to come: what follows cannot be told
 * from a request any more. */
static bool exchange_keeps_alive(const struct exchange *x)
{
	bool body_pending = x->connection->state == BODY && (x->head.chunked || x->body_left > 0);

	return x->keep_alive && !body_pending && !x->connection->server->closing;
}

/* The answer is complete: on to the next request, or close. */
static void exchange_done(struct exchange *x)
{
	struct http_connection *c = x->connection;

	x->answer = ANSWERED;
	if (!c) {
		exchange_free(x);
		return;
	}
	bool keep = exchange_keeps_alive(x);
	c->exchange = NULL;
	exchange_free(x);
	if (!keep) {
		connection_close(c);
		return;
	}
	c->state = IDLE;
	connection_deadline(c, HTTP_IDLE_DEADLINE_MS);
	if (!c->working)
		connection_work(c);
}

static bool body_forbidden(const struct exchange *x, unsigned status)
{
	return x->bodiless || status == 204 || status == 304;
}

void http_respond(struct http_request *request, unsigned status, const char *type,
		  const char *headers, const void *body, size_t len)
{
	struct exchange *x = exchange_of(request);
	struct http_connection *c = x->connection;

	assert(x->answer == UNANSWERED);
	if (c) {
		struct buf *out =
			head_begin(c->server, status, type, headers, exchange_keeps_alive(x));

		if (status != 204)
			buf_printf(out, "Content-Length: %zu\r\n", len);
		buf_puts(out, "\r\n");
		if (!body_forbidden(x, status))
			buf_append(out, body, len);
		connection_send(c, out->data, out->len);
		if (out->cap > QUEUED_MAX)
			buf_free(out);
	}
	exchange_done(x);
}

void http_respond_start(struct http_request *request, unsigned status, const char *type,
			const char *headers)
{
	struct exchange *x = exchange_of(request);
	struct http_connection *c = x->connection;

	assert(x->answer == UNANSWERED);
	x->answer = STREAMING;
	if (!c)
		return;
	x->chunked = !x->head.http_1_0;
	struct buf *out = head_begin(c->server, status, type, headers, exchange_keeps_alive(x));
	buf_puts(out, x->chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
	x->bodiless = body_forbidden(x, status);
	connection_send(c, out->data, out->len);
}

size_t http_respond_chunk(struct http_request *request, const void *data, size_t len)
{
	struct exchange *x = exchange_of(request);
	struct http_connection *c = x->connection;

	assert(x->answer == STREAMING);
	if (!c || x->bodiless)
		return 0;
	if (!x->chunked || len == 0)
		return connection_send(c, data, len);
	struct buf *out = &c->server->out;
	buf_clear(out);
	buf_printf(out, "%zx\r\n", len);
	buf_append(out, data, len);
	buf_puts(out, "\r\n");
	size_t left = connection_send(c, out->data, out->len);
	if (out->cap > QUEUED_MAX)
		buf_free(out);
	return left;
}

void http_respond_end(struct http_request *request)
{
	struct exchange *x = exchange_of(request);

	assert(x->answer == STREAMING);
	if (x->connection && x->chunked && !x->bodiless)
		connection_send(x->connection, "0\r\n\r\n", 5);
	exchange_done(x);
}

void http_respond_abort(struct http_request *request)
{
	struct exchange *x = exchange_of(request);
	struct http_connection *c = x->connection;

	if (c) {
		c->exchange = NULL;
		c->state = CLOSING;
		stream_abort(c->stream);
	}
	exchange_free(x);
}

/* --- receiving --- */

/* Both return true if there may be more to do with the bytes at hand. */
static bool read_head(struct http_connection *c);
static bool read_body(struct http_connection *c);

static void consume(struct http_connection *c, size_t len)
{
	c->scanned = 0;
	buf_consume(&c->in, len);
}

static const char *const find_why = "the head is too large, or has bare line ends or zero bytes";

/* The head decides what follows; the owner may refuse before the body is sent. */
static bool begin_body(struct http_connection *c)
{
	struct exchange *x = c->exchange;
	const struct http_handler *handler = &c->server->handler;

	c->state = BODY;
	connection_deadline(c, HTTP_BODY_DEADLINE_MS);
	if (handler->head) {
		handler->head(&x->public, handler->arg);
		if (c->exchange != x || x->answer != UNANSWERED)
			return c->state != CLOSING;
	}
	if (!x->head.chunked && x->body_left > x->public.body_limit) {
		refuse_body(c);
		return false;
	}
	if (x->head.expect_continue && (x->head.chunked || x->body_left > 0) && c->in.len == 0)
		connection_send(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	return true;
}

static bool read_head(struct http_connection *c)
{
	struct http_head head;
	const char *why = find_why;

	if (c->in.len == 0)
		return false;
	if (c->state == IDLE) {
		c->state = HEAD;
		connection_deadline(c, HTTP_HEAD_DEADLINE_MS);
	}
	int rv = http_head_find(c->in.data, c->in.len, &c->scanned);
	if (rv == 0)
		return false;
	size_t len = (size_t)rv;
	if (rv > 0)
		rv = http_head_parse(c->in.data, len, &head, &why);
	if (rv < 0) {
		connection_refuse(c, (unsigned)-rv, why);
		return false;
	}
	consume(c, len);
	c->exchange = exchange_new(c, &head);
	return begin_body(c);
}

/* 1: whole, 0: more is needed, negative: a status. */
static int take_body(struct http_connection *c)
{
	struct exchange *x = c->exchange;
	size_t used = c->in.len;
	int rv;

	if (x->head.chunked) {
		rv = http_chunks_feed(&x->chunks, c->in.data, c->in.len, x->public.body_limit,
				      &x->body, &used);
	} else {
		if (used > x->body_left)
			used = (size_t)x->body_left;
		buf_append(&x->body, c->in.data, used);
		x->body_left -= used;
		rv = x->body_left == 0;
	}
	consume(c, used);
	c->deadline_ms += used * 1000 / BODY_BYTES_PER_S;
	return rv;
}

static bool read_body(struct http_connection *c)
{
	struct exchange *x = c->exchange;
	const struct http_handler *handler = &c->server->handler;
	int rv = take_body(c);

	if (rv == -413)
		refuse_body(c);
	else if (rv < 0)
		connection_refuse(c, (unsigned)-rv, "a chunk is malformed");
	if (rv <= 0)
		return false;
	c->state = ANSWER;
	c->deadline_ms = 0;
	x->shown = true;
	x->public.body = (const uint8_t *)buf_string(&x->body);
	x->public.body_len = x->body.len;
	handler->request(&x->public, handler->arg);
	return c->state == IDLE;
}

static bool work_step(struct http_connection *c)
{
	switch (c->state) {
	case IDLE:
	case HEAD:
		return read_head(c);
	case BODY:
		return read_body(c);
	default:
		return false;
	}
}

/* While working, answers count as queued. If the socket took them all at the end, the stream has
 * nothing to tell, but the owner waits to hear of it. */
static void connection_taken(struct http_connection *c)
{
	const struct http_handler *handler = &c->server->handler;
	struct exchange *x = c->exchange;

	if (c->corked > 0 && x && x->answer == STREAMING && handler->drained)
		handler->drained(&x->public, handler->arg);
}

/* Goes through the bytes at hand until more are needed, a request is in the owner's hands, or the
 * client has to take its answers first. Answers given inside leave together, and do not enter here
 * again. */
static void connection_work(struct http_connection *c)
{
	bool more = true;

	while (more && !c->choked) {
		c->working = true;
		c->corked = 0;
		stream_cork(c->stream);
		while (more && !c->choked)
			more = work_step(c);
		c->working = false;
		stream_uncork(c->stream);
		if (c->state == CLOSING)
			return;
		if (connection_watch(c, stream_write(c->stream, NULL, 0)) == 0)
			connection_taken(c);
		if (c->state == CLOSING)
			return;
	}
	if (c->in.len == 0)
		buf_free(&c->in);
	if (c->in.len > AHEAD_MAX)
		stream_pause(c->stream);
	else
		stream_resume(c->stream);
}

static void stream_data(struct stream *s, const uint8_t *bytes, size_t len)
{
	struct http_connection *c = stream_arg(s);

	if (c->state == CLOSING)
		return;
	buf_append(&c->in, bytes, len);
	connection_work(c);
}

static void stream_drained(struct stream *s)
{
	struct http_connection *c = stream_arg(s);
	struct exchange *x = c->exchange;
	const struct http_handler *handler = &c->server->handler;

	c->send_deadline_ms = 0;
	c->choked = false;
	if (x && x->answer == STREAMING && handler->drained)
		handler->drained(&x->public, handler->arg);
	else if (c->state != CLOSING)
		connection_work(c);
}

/* --- connections --- */

static void server_maybe_freed(struct http_server *h)
{
	if (!h->closing || !h->timer_closed || !list_empty(&h->connections))
		return;
	void (*freed)(void *arg) = h->freed;
	void *arg = h->freed_arg;
	buf_free(&h->out);
	hash_free(&h->origins);
	free(h);
	freed(arg);
}

static void stream_gone(struct stream *s, enum stream_end end, const char *detail)
{
	struct http_connection *c = stream_arg(s);
	struct http_server *h = c->server;
	struct exchange *x = c->exchange;

	if (end == STREAM_END_TLS)
		log_info("tls-refused", "client %s: %s", stream_peer_address(s), detail);
	list_remove(&c->link);
	if (c->origin)
		h->tcp_count--;
	else
		h->unix_count--;
	origin_give(h, c->origin);
	buf_free(&c->in);
	free(c->peer);
	free(c);
	if (x) {
		x->connection = NULL;
		if (!x->shown)
			exchange_free(x);
		else if (h->handler.gone)
			h->handler.gone(&x->public, h->handler.arg);
	}
	server_maybe_freed(h);
}

static void stream_is_ready(struct stream *s)
{
	struct http_connection *c = stream_arg(s);

	connection_peer(c);
	connection_deadline(c, HTTP_HEAD_DEADLINE_MS);
}

static const struct stream_events connection_events = {
	.ready = stream_is_ready,
	.data = stream_data,
	.drained = stream_drained,
	.closed = stream_gone,
};

static struct http_connection *connection_new(struct http_server *h, struct stream *s)
{
	struct http_connection *c = mem_zalloc(sizeof(*c));

	c->server = h;
	c->stream = s;
	list_append(&h->connections, &c->link);
	if (is_unix(s)) {
		h->unix_count++;
	} else {
		h->tcp_count++;
		c->origin = origin_take(h, s);
	}
	stream_set_events(s, &connection_events, c);
	stream_silence_limit(s, h->limits.silence_ms);
	if (h->closing || over_limit(h, c)) {
		c->state = CLOSING;
		stream_abort(s); /* before it costs us a handshake */
	}
	return c;
}

static void stream_taken(struct stream *s, void *arg)
{
	connection_new(arg, s);
}

void http_server_adopt(struct http_server *h, struct stream *s)
{
	connection_new(h, s);
	stream_is_ready(s);
}

int http_server_listen(struct http_server *h, const struct stream_listen *how,
		       struct stream_listener **ret, const char **ret_message)
{
	struct stream_listen ours = *how;

	/* The limits of this server are finer than a listener's. */
	ours.limit = 0;
	ours.events = &connection_events;
	ours.accepted = stream_taken;
	ours.arg = h;
	return stream_listen(h->group, &ours, ret, ret_message);
}

/* --- time --- */

static void expire_state(struct http_connection *c)
{
	switch (c->state) {
	case IDLE:
		connection_close(c);
		break;
	case HEAD:
		connection_refuse(c, 408, "the head did not come in time");
		break;
	case BODY:
		connection_refuse(c, 408, "the body did not come in time");
		break;
	default:
		break;
	}
}

static void expire_send(struct http_connection *c, uint64_t now_ms)
{
	size_t left = stream_write(c->stream, NULL, 0);

	if (left < c->unsent) {
		c->unsent = left;
		c->send_deadline_ms = left > 0 ? now_ms + HTTP_SEND_DEADLINE_MS : 0;
		return;
	}
	/* `closed` comes from the loop, so the exchange is still whole here. */
	stream_abort(c->stream);
}

void http_server_expire(struct http_server *h, uint64_t now_ms)
{
	list_for_each_safe (at, &h->connections) {
		struct http_connection *c = list_entry(at, struct http_connection, link);

		if (c->send_deadline_ms != 0 && now_ms >= c->send_deadline_ms)
			expire_send(c, now_ms);
		else if (c->deadline_ms != 0 && now_ms >= c->deadline_ms)
			expire_state(c);
	}
}

static void tick(uv_timer_t *timer)
{
	http_server_expire(timer->data, uv_now(timer->loop));
}

/* --- the server --- */

struct http_server *http_server_new(struct stream_group *g, const struct http_handler *handler,
				    const struct http_limits *limits)
{
	struct http_server *h = mem_zalloc(sizeof(*h));

	assert(handler->request);
	h->group = g;
	h->handler = *handler;
	if (limits)
		h->limits = *limits;
	if (h->limits.connections == 0)
		h->limits.connections = HTTP_CONNECTIONS_DEFAULT;
	if (h->limits.per_address == 0)
		h->limits.per_address = HTTP_PER_ADDRESS_DEFAULT;
	if (h->limits.silence_ms == 0)
		h->limits.silence_ms = HTTP_SILENCE_DEFAULT_MS;
	list_init(&h->connections);
	uv_timer_init(stream_group_loop(g), &h->ticker);
	h->ticker.data = h;
	uv_timer_start(&h->ticker, tick, TICK_MS, TICK_MS);
	return h;
}

unsigned http_server_connections(const struct http_server *h)
{
	return h->tcp_count + h->unix_count;
}

static void timer_closed(uv_handle_t *handle)
{
	struct http_server *h = handle->data;

	h->timer_closed = true;
	server_maybe_freed(h);
}

void http_server_free(struct http_server *h, void (*freed)(void *arg), void *arg)
{
	assert(!h->closing);
	h->closing = true;
	h->freed = freed;
	h->freed_arg = arg;
	list_for_each_safe (at, &h->connections)
		stream_abort(list_entry(at, struct http_connection, link)->stream);
	uv_close((uv_handle_t *)&h->ticker, timer_closed);
}
