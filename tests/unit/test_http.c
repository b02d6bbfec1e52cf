/* HTTP: the strictness corpus, framing, order, limits, deadlines, streamed answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/ipv6.h> /* behind netinet/in.h */

#include "lib/mem.h"
#include "test_certs.h"
#include "witnessd/http.h"
#include "witnessd/http_head.h"

enum { LATER_MAX = 8, DAY = 86400 };

struct fixture {
	uv_loop_t loop;
	struct stream_group *group;
	struct http_server *server;
	struct http_request *later[LATER_MAX]; /* requests kept for an answer later */
	unsigned later_count;
	unsigned gone;
	unsigned drained;
	size_t burst_left; /* what the answer to /burst was told */
	unsigned requests;
	char seen[256]; /* of the last request */
	bool server_freed, group_freed;
	int fd; /* the client's end */
	struct buf got;
};

static void on_head(struct http_request *r, void *arg)
{
	(void)arg;
	if (strcmp(r->path, "/early") == 0)
		http_respond(r, 401, NULL, "WWW-Authenticate: Bearer\r\n", NULL, 0);
	else if (strcmp(r->path, "/small") == 0)
		r->body_limit = 4;
}

static void on_request(struct http_request *r, void *arg)
{
	struct fixture *f = arg;

	f->requests++;
	snprintf(f->seen, sizeof(f->seen), "%s %s ?%s [%s]", r->method, r->path, r->query, r->body);
	if (strncmp(r->path, "/later", 6) == 0 && f->later_count < LATER_MAX) {
		f->later[f->later_count++] = r;
	} else if (strcmp(r->path, "/stream") == 0) {
		http_respond_start(r, 200, "text/event-stream", NULL);
		http_respond_chunk(r, "one", 3);
		http_respond_chunk(r, "", 0);
		http_respond_chunk(r, "twotwotwotwotwotwo", 18);
		http_respond_end(r);
	} else if (strcmp(r->path, "/burst") == 0) {
		static char bytes[10000];

		memset(bytes, 'x', sizeof(bytes));
		http_respond_start(r, 200, "text/event-stream", NULL);
		f->burst_left = http_respond_chunk(r, bytes, sizeof(bytes));
		f->later[f->later_count++] = r;
	} else if (strcmp(r->path, "/empty") == 0) {
		http_respond(r, 204, NULL, NULL, NULL, 0);
	} else {
		http_respond(r, 200, "text/plain", "X-Extra: 1\r\n", r->body, r->body_len);
	}
}

static void on_gone(struct http_request *r, void *arg)
{
	struct fixture *f = arg;

	assert_true(http_request_gone(r));
	f->gone++;
}

static void on_drained(struct http_request *r, void *arg)
{
	(void)r;
	((struct fixture *)arg)->drained++;
}

static const struct http_handler handler = {
	.head = on_head, .request = on_request, .gone = on_gone, .drained = on_drained};

static int setup(void **state)
{
	struct fixture *f = mem_zalloc(sizeof(*f));
	struct http_handler h = handler;

	h.arg = f;
	uv_loop_init(&f->loop);
	f->group = stream_group_new(&f->loop, 2000);
	f->server = http_server_new(f->group, &h, NULL);
	f->fd = -1;
	*state = f;
	return 0;
}

static void on_server_freed(void *arg)
{
	((struct fixture *)arg)->server_freed = true;
}

static void on_group_freed(void *arg)
{
	((struct fixture *)arg)->group_freed = true;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	http_server_free(f->server, on_server_freed, f);
	stream_group_free(f->group, on_group_freed, f);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_true(f->server_freed && f->group_freed);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	if (f->fd >= 0)
		close(f->fd);
	buf_free(&f->got);
	free(f);
	return 0;
}

static void turns(struct fixture *f, int count)
{
	while (count-- > 0)
		uv_run(&f->loop, UV_RUN_NOWAIT);
}

static void client_open(struct fixture *f)
{
	static const struct stream_events none = {0};
	int pair[2];

	if (f->fd >= 0)
		close(f->fd);
	turns(f, 3);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	f->fd = pair[1];
	buf_clear(&f->got);
	http_server_adopt(f->server, stream_adopt(f->group, pair[0], &none, NULL));
	turns(f, 2);
}

/* Reads what is there; true if the server has closed. */
static bool client_read(struct fixture *f)
{
	ssize_t len;

	while ((len = recv(f->fd, buf_reserve(&f->got, 65536), 65536, MSG_DONTWAIT)) > 0)
		f->got.len += (size_t)len;
	return len == 0 || (len < 0 && errno == ECONNRESET);
}

/* Sends in pieces of `step` and reads all answers; true if the server closed then. */
static bool client_send(struct fixture *f, const void *data, size_t len, size_t step)
{
	const char *bytes = data;

	for (size_t at = 0; at < len; at += step) {
		size_t piece = len - at < step ? len - at : step;

		if (send(f->fd, bytes + at, piece, MSG_NOSIGNAL) != (ssize_t)piece)
			break; /* refused before the end */
		turns(f, 1);
	}
	turns(f, 3);
	return client_read(f);
}

/* The statuses of the answers, "200 400". */
static const char *statuses(struct fixture *f)
{
	static char text[256];
	const char *at = buf_string(&f->got);

	text[0] = '\0';
	while ((at = strstr(at, "HTTP/1.1 "))) {
		size_t len = strlen(text);

		if (at[9] >= '0' && at[9] <= '9') /* not the words of a refusal */
			snprintf(text + len, sizeof(text) - len, "%s%.3s", len ? " " : "", at + 9);
		at += 9;
	}
	return text;
}

static const char *last_body(struct fixture *f)
{
	const char *body = "";

	for (const char *at = buf_string(&f->got); (at = strstr(at, "\r\n\r\n")); at += 4)
		body = at + 4;
	return body;
}

#define GET "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\n"
#define RAW(text) (text), sizeof(text) - 1

/* Each sent whole and byte by byte. "..." at the end of the statuses: the server still waits. */
static const struct {
	const char *raw;
	size_t len;
	const char *statuses;
} corpus[] = {
	/* what works */
	{RAW(GET "\r\n"), "200 ..."},
	{RAW(POST "Content-Length: 3\r\n\r\nabc"), "200 ..."},
	{RAW(POST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "200 ..."},
	{RAW(POST "Transfer-Encoding: CHUNKED\r\n\r\n003\r\nabc\r\n0\r\n\r\n"), "200 ..."},
	{RAW(POST "Content-Length: 3\r\n\r\nabc" GET "\r\n" GET "Connection: close\r\n\r\n"),
	 "200 200 200"},
	{RAW("GET / HTTP/1.0\r\n\r\n"), "200"},
	{RAW(GET "Connection: close\r\n\r\n"), "200"},
	{RAW(GET "Connection: keep-alive, Close\r\n\r\n"), "200"},
	{RAW(GET "X:\t \xff\x80 y \t\r\n\r\n"), "200 ..."},
	{RAW(GET "Host-Not: b\r\n\r\n"), "200 ..."},
	{RAW("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), "200 ..."},
	{RAW(GET "Content-Length: 0\r\n\r\n"), "200 ..."},
	/* where the body ends */
	{RAW(POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc"), "400"},
	{RAW(POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "400"},
	{RAW(POST "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), "400"},
	{RAW(POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"), "400"},
	{RAW(POST "Content-Length: 3, 3\r\n\r\nabc"), "400"},
	{RAW(POST "Content-Length: +3\r\n\r\nabc"), "400"},
	{RAW(POST "Content-Length: -3\r\n\r\nabc"), "400"},
	{RAW(POST "Content-Length: 3 3\r\n\r\nabc"), "400"},
	{RAW(POST "Content-Length: 0x3\r\n\r\nabc"), "400"},
	{RAW(POST "Content-Length:\r\n\r\n"), "400"},
	{RAW(POST "Content-Length: 18446744073709551619\r\n\r\nabc"), "413"},
	{RAW(POST "Content-Length: 1048577\r\n\r\n"), "413"},
	{RAW(POST "Transfer-Encoding: gzip\r\n\r\n"), "501"},
	{RAW(POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), "501"},
	{RAW(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
	 "400"},
	{RAW(POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"), "501"},
	{RAW(POST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), "400"},
	{RAW("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "400"},
	/* chunks */
	{RAW(POST "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n"), "400"},
	{RAW(POST "Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n"), "400"},
	{RAW(POST "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n"), "400"},
	{RAW(POST "Transfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n"), "400"},
	{RAW(POST "Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n"), "400"},
	{RAW(POST "Transfer-Encoding: chunked\r\n\r\n000000003\r\nabc\r\n0\r\n\r\n"), "400"},
	{RAW(POST "Transfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n"), "400"},
	{RAW(POST "Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n"), "400"},
	{RAW(POST "Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n"), "400"},
	{RAW(POST "Transfer-Encoding: chunked\r\n\r\n\r\n\r\n"), "400"},
	{RAW(POST "Transfer-Encoding: chunked\r\n\r\nffffffff\r\n"), "413"},
	{RAW("POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
	     "chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
	 "413"},
	{RAW("POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
	     "chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"),
	 "200 ..."},
	/* lines */
	{RAW(GET "X : y\r\n\r\n"), "400"},
	{RAW(GET "X: y\r\n z\r\n\r\n"), "400"},
	{RAW(GET "X: y\r\n\tz\r\n\r\n"), "400"},
	{RAW(GET ": y\r\n\r\n"), "400"},
	{RAW(GET "X\r\n\r\n"), "400"},
	{RAW(GET "X: a\rb\r\n\r\n"), "400"},
	{RAW(GET "X: a\nb: c\r\n\r\n"), "400"},
	{RAW("GET / HTTP/1.1\nHost: a\n\n"), "400"},
	{RAW(GET "\n"), "400"},
	{RAW(GET "X: a\0b\r\n\r\n"), "400"},
	{RAW(GET "X: a\x01\r\n\r\n"), "400"},
	{RAW(GET "X: a\x7f\r\n\r\n"), "400"},
	{RAW("\r\n" GET "\r\n"), "400"},
	{RAW(" " GET "\r\n"), "400"},
	/* the request line */
	{RAW("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"), "400"},
	{RAW("GET /  HTTP/1.1\r\nHost: a\r\n\r\n"), "400"},
	{RAW("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"), "400"},
	{RAW("GET / HTTP/1.1 \r\nHost: a\r\n\r\n"), "400"},
	{RAW("GET /\r\nHost: a\r\n\r\n"), "400"},
	{RAW("GET /\r\n\r\n"), "400"},
	{RAW("GET\r\n\r\n"), "400"},
	{RAW("GET / HTTP/9.9\r\nHost: a\r\n\r\n"), "505"},
	{RAW("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), "505"},
	{RAW("GET / HTTP/1.2\r\nHost: a\r\n\r\n"), "505"},
	{RAW("GET / http/1.1\r\nHost: a\r\n\r\n"), "400"},
	{RAW("GET / HTTP/1.10\r\nHost: a\r\n\r\n"), "400"},
	{RAW("GET / HTTP/11\r\nHost: a\r\n\r\n"), "400"},
	{RAW("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "505"},
	{RAW("G(T / HTTP/1.1\r\nHost: a\r\n\r\n"), "400"},
	{RAW("ABCDEFGHIJKLMNOPQ / HTTP/1.1\r\nHost: a\r\n\r\n"), "501"},
	{RAW("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), "400"},
	{RAW("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"), "400"},
	{RAW("GET * HTTP/1.1\r\nHost: a\r\n\r\n"), "400"},
	{RAW("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"), "400"},
	{RAW("GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n"), "400"},
	{RAW("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"), "400"},
	{RAW("GET /\x80 HTTP/1.1\r\nHost: a\r\n\r\n"), "400"},
	{RAW("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), "400"},
	/* who is meant */
	{RAW("GET / HTTP/1.1\r\n\r\n"), "400"},
	{RAW(GET "Host: a\r\n\r\n"), "400"},
	{RAW("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), "400"},
	{RAW("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"), "400"},
	{RAW("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), "400"},
	/* the rest */
	{RAW(POST "Expect: tea\r\nContent-Length: 1\r\n\r\n"), "417"},
	{RAW(GET "\r\n"
		 "GET / HTTP/1.1\r\n\r\n" GET "\r\n"),
	 "200 400"},
	{RAW("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" GET "\r\n"), "401"},
	{RAW("GET /early HTTP/1.1\r\nHost: a\r\n\r\n" GET "\r\n"), "401 200 ..."},
	{RAW(GET "X"), "..."},
};

static void test_corpus(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(corpus) / sizeof(corpus[0]); i++) {
		for (size_t step = 1; step <= 100000; step += 99999) {
			char text[256];

			client_open(f);
			bool closed = client_send(f, corpus[i].raw, corpus[i].len, step);
			snprintf(text, sizeof(text), "%s%s", statuses(f),
				 closed	      ? ""
				 : f->got.len ? " ..."
					      : "...");
			if (strcmp(text, corpus[i].statuses) != 0)
				fail_msg("%s (in steps of %zu)\nwant %s, got %s", corpus[i].raw,
					 step, corpus[i].statuses, text);
		}
	}
}

static void test_large_heads(void **state)
{
	struct fixture *f = *state;
	const struct {
		size_t target, value, fields;
		const char *status;
	} cases[] = {
		{2048, 10, 10, "200"}, {2049, 10, 10, "414"}, {17000, 0, 0, "414"},
		{10, 20000, 0, "431"}, {10, 10, 63, "200"},   {10, 10, 64, "431"},
		{10, 16000, 0, "200"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buf head = {0};

		buf_puts(&head, "GET ");
		for (size_t n = 0; n < cases[i].target; n++)
			buf_putc(&head, n ? 'a' : '/');
		buf_puts(&head, " HTTP/1.1\r\nHost: a\r\n");
		if (cases[i].fields == 0)
			buf_puts(&head, "Big: ");
		for (size_t n = 0; cases[i].fields == 0 && n < cases[i].value; n++)
			buf_putc(&head, 'v');
		for (size_t n = 0; n < cases[i].fields; n++)
			buf_printf(&head, "%sF%zu: v", n ? "\r\n" : "", n);
		buf_puts(&head, "\r\n\r\n");
		client_open(f);
		client_send(f, head.data, head.len, 777);
		assert_string_equal(statuses(f), cases[i].status);
		buf_free(&head);
	}
}

static void test_request_content(void **state)
{
	struct fixture *f = *state;

	client_open(f);
	client_send(f,
		    RAW("PUT /a%20b?x=1&y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
			"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
		    5);
	assert_string_equal(f->seen, "PUT /a%20b ?x=1&y [abcde]");
	assert_string_equal(last_body(f), "abcde");
	assert_non_null(strstr(buf_string(&f->got), "Content-Length: 5\r\n"));
	assert_non_null(strstr(buf_string(&f->got), "X-Extra: 1\r\n"));
	assert_non_null(strstr(buf_string(&f->got), " GMT\r\n"));
	client_open(f);
	client_send(f, RAW("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi" GET "\r\n"),
		    100);
	assert_string_equal(statuses(f), "200 200");
	assert_null(strstr(buf_string(&f->got), "hi"));
	assert_non_null(strstr(buf_string(&f->got), "Content-Length: 2\r\n"));
	client_open(f);
	client_send(f, RAW("GET /empty HTTP/1.1\r\nHost: a\r\n\r\n"), 100);
	assert_null(strstr(buf_string(&f->got), "Content-Length"));
}

static void test_headers(void **state)
{
	struct fixture *f = *state;

	client_open(f);
	client_send(f,
		    RAW("GET /later HTTP/1.1\r\nHost: a\r\nX-One:  v w \r\nAccept: a\r\n"
			"aCCept:\r\nACCEPT: c\r\n\r\n"),
		    100);
	assert_int_equal(f->later_count, 1);
	struct http_request *r = f->later[0];
	assert_string_equal(http_header(r, "x-one"), "v w");
	assert_null(http_header(r, "X"));
	for (int i = 0; i < 2; i++)
		assert_string_equal(http_header(r, "accept"), "a, , c");
	assert_string_equal(r->remote_address, "unix");
	assert_true(r->has_uid && r->uid == getuid());
	assert_false(r->peer->present || r->tls);
	http_respond(r, 200, NULL, NULL, NULL, 0);
}

/* Answers come in the order of the requests, and the second waits for the first. */
static void test_order(void **state)
{
	struct fixture *f = *state;

	client_open(f);
	client_send(f,
		    RAW("GET /later HTTP/1.1\r\nHost: a\r\n\r\n" POST "Content-Length: 1\r\n\r\n2"),
		    100);
	assert_int_equal(f->requests, 1);
	assert_int_equal(f->got.len, 0);
	http_respond(f->later[0], 200, "text/plain", NULL, "1", 1);
	turns(f, 1);
	client_read(f);
	assert_int_equal(f->requests, 2);
	const char *first = strstr(buf_string(&f->got), "\r\n\r\n1");
	assert_non_null(first);
	assert_non_null(strstr(first, "\r\n\r\n2"));
}

static void test_expect(void **state)
{
	struct fixture *f = *state;

	client_open(f);
	client_send(f, RAW(POST "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"), 100);
	assert_string_equal(statuses(f), "100");
	client_send(f, RAW("hi"), 100);
	assert_string_equal(statuses(f), "100 200");
	client_open(f);
	client_send(f, RAW(POST "Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n"), 100);
	assert_string_equal(statuses(f), "413");
	client_open(f);
	client_send(f,
		    RAW("POST /early HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
			"Content-Length: 2\r\n\r\n"),
		    200);
	assert_string_equal(statuses(f), "401");
}

static void test_stream(void **state)
{
	struct fixture *f = *state;
	const char *text;

	client_open(f);
	client_send(f, RAW("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n" GET "\r\n"), 100);
	text = buf_string(&f->got);
	assert_non_null(strstr(text, "Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n12\r\n"
				     "twotwotwotwotwotwo\r\n0\r\n\r\nHTTP/1.1 200"));
	assert_string_equal(statuses(f), "200 200");
	client_open(f);
	assert_true(client_send(f, RAW("GET /stream HTTP/1.0\r\n\r\n"), 100));
	assert_string_equal(last_body(f), "onetwotwotwotwotwotwo");
	client_open(f);
	client_send(f, RAW("HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n"), 100);
	assert_string_equal(last_body(f), "");
}

/* A client that does not read holds the owner back, and is cut off after a while. */
static void test_back_pressure(void **state)
{
	static char bytes[65536];
	struct fixture *f = *state;
	size_t left = 0, total = 0;

	client_open(f);
	client_send(f, RAW("GET /later HTTP/1.1\r\nHost: a\r\n\r\n"), 100);
	struct http_request *r = f->later[0];
	http_respond_start(r, 200, NULL, NULL);
	while (left < 1000000 && total < 100000000) {
		left = http_respond_chunk(r, bytes, sizeof(bytes));
		total += sizeof(bytes);
	}
	assert_true(left >= 1000000);
	turns(f, 3);
	assert_int_equal(f->drained, 0);
	while (f->drained == 0) {
		client_read(f);
		turns(f, 1);
	}
	client_read(f);
	assert_true(f->got.len > total);
	while (http_respond_chunk(r, bytes, sizeof(bytes)) < 1000000)
		;
	http_server_expire(f->server, uv_now(&f->loop) + HTTP_SEND_DEADLINE_MS - 1);
	turns(f, 3);
	assert_int_equal(f->gone, 0);
	http_server_expire(f->server, uv_now(&f->loop) + HTTP_SEND_DEADLINE_MS);
	turns(f, 3);
	assert_int_equal(f->gone, 1);
	assert_int_equal(http_respond_chunk(r, bytes, sizeof(bytes)), 0);
	http_respond_end(r);
}

/* Told at once that much is queued, because it only leaves when the request has been looked at,
 * the owner hears that it has left, also if the socket takes it all at once. */
static void test_burst_is_taken(void **state)
{
	struct fixture *f = *state;

	client_open(f);
	client_send(f, RAW("GET /burst HTTP/1.1\r\nHost: a\r\n\r\n"), 100);
	assert_true(f->burst_left >= 10000);
	assert_int_equal(f->drained, 1);
	http_respond_end(f->later[0]);
	client_send(f, RAW(GET "\r\n"), 100);
	assert_string_equal(statuses(f), "200 200");
}

/* Pipelined requests whose answers nobody takes are not run on and on. */
static void test_greedy_pipeline(void **state)
{
	struct fixture *f = *state;
	struct buf all = {0};
	char body[1001];

	memset(body, 'b', sizeof(body) - 1);
	body[sizeof(body) - 1] = '\0';
	for (int i = 0; i < 20000; i++)
		buf_printf(&all, POST "Content-Length: 1000\r\n\r\n%s", body);
	client_open(f);
	size_t sent = 0;
	for (int idle = 0; idle < 20;) {
		ssize_t len = send(f->fd, all.data + sent, all.len - sent, MSG_DONTWAIT);
		turns(f, 1);
		if (len > 0)
			sent += (size_t)len;
		else
			idle++;
	}
	assert_true(sent < all.len);
	assert_true(f->requests < 5000);
	while (f->requests < 20000) {
		client_read(f);
		buf_clear(&f->got);
		ssize_t len = send(f->fd, all.data + sent, all.len - sent, MSG_DONTWAIT);
		if (len > 0)
			sent += (size_t)len;
		turns(f, 1);
	}
	buf_free(&all);
}

static void test_client_goes(void **state)
{
	struct fixture *f = *state;

	client_open(f);
	client_send(f, RAW("GET /later HTTP/1.1\r\nHost: a\r\n\r\nGET /later HTT"), 100);
	client_open(f); /* closes the first */
	turns(f, 3);
	assert_int_equal(f->gone, 1);
	http_respond(f->later[0], 200, "text/plain", NULL, "x", 1);
	client_send(f, RAW(POST "Content-Length: 10\r\n\r\nabc"), 100);
	client_open(f);
	turns(f, 3);
	assert_int_equal(f->gone, 1); /* the owner never had that one */
	assert_int_equal(http_server_connections(f->server), 1);
	client_send(f, RAW("GET /later HTTP/1.1\r\nHost: a\r\n\r\n"), 100);
	http_respond_start(f->later[1], 200, NULL, NULL);
	http_respond_abort(f->later[1]);
	turns(f, 3);
	assert_true(client_read(f));
}

static void test_deadlines(void **state)
{
	struct fixture *f = *state;
	const struct {
		const char *sent;
		unsigned ms;
		const char *status;
	} cases[] = {
		{"", HTTP_HEAD_DEADLINE_MS, ""},
		{"GET / HT", HTTP_HEAD_DEADLINE_MS, "408"},
		{POST "Content-Length: 5\r\n\r\nab", HTTP_BODY_DEADLINE_MS, "408"},
		{GET "\r\n", HTTP_IDLE_DEADLINE_MS, "200"},
		{GET "\r\nGET / HT", HTTP_HEAD_DEADLINE_MS, "200 408"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		client_open(f);
		assert_false(client_send(f, cases[i].sent, strlen(cases[i].sent), 100));
		http_server_expire(f->server, uv_now(&f->loop) + cases[i].ms - 1000);
		turns(f, 3);
		assert_false(client_read(f));
		http_server_expire(f->server, uv_now(&f->loop) + cases[i].ms);
		turns(f, 3);
		assert_true(client_read(f));
		assert_string_equal(statuses(f), cases[i].status);
	}
	/* The owner may take its time. */
	client_open(f);
	client_send(f, RAW("GET /later HTTP/1.1\r\nHost: a\r\n\r\n"), 100);
	http_server_expire(f->server, uv_now(&f->loop) + 1000000);
	turns(f, 3);
	assert_false(client_read(f));
	http_respond(f->later[0], 200, NULL, NULL, NULL, 0);
}

static void server_end(struct fixture *f, struct http_server *server, struct stream_listener *l)
{
	stream_listener_close(l);
	http_server_free(server, on_server_freed, f);
	while (!f->server_freed)
		uv_run(&f->loop, UV_RUN_ONCE);
	f->server_freed = false;
}

/* One whose machine has lost its power while it waits: nothing is ever written to it. */
static void test_silence(void **state)
{
	static const char call[] = "GET /later HTTP/1.1\r\nHost: a\r\n\r\n";
	struct fixture *f = *state;
	struct http_handler h = handler;
	const struct http_limits limits = {.silence_ms = 1000};
	const struct stream_listen how = {.address = "127.0.0.1:0"};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001)};
	struct stream_listener *l;
	const char *message;
	int on = 1;

	h.arg = f;
	struct http_server *server = http_server_new(f->group, &h, &limits);
	assert_int_equal(http_server_listen(server, &how, &l, &message), 0);
	to.sin_port = htons((uint16_t)stream_listener_port(l));
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	assert_int_equal(send(fd, call, strlen(call), 0), (ssize_t)strlen(call));
	while (f->later_count == 0)
		uv_run(&f->loop, UV_RUN_ONCE);
	/* A socket under repair is closed without a word (CRIU). Only root may. */
	bool may = setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) == 0;
	close(fd);
	while (f->gone == 0)
		uv_run(&f->loop, UV_RUN_ONCE);
	http_respond(f->later[0], 200, NULL, NULL, NULL, 0);
	server_end(f, server, l);
	if (!may)
		skip();
}

static void test_limits(void **state)
{
	struct fixture *f = *state;
	struct http_handler h = handler;
	const struct http_limits limits = {.connections = 3, .per_address = 2};
	const struct stream_listen how = {.address = "127.0.0.1:0"};
	struct stream_listener *l;
	const char *message;
	int fds[4];
	char byte;

	h.arg = f;
	struct http_server *server = http_server_new(f->group, &h, &limits);
	assert_int_equal(http_server_listen(server, &how, &l, &message), 0);
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)stream_listener_port(l))};
	for (int i = 0; i < 4; i++) {
		/* Two clients of 127.0.0.1, then 127.0.0.2 and 127.0.0.3. */
		struct sockaddr_in from = {.sin_family = AF_INET,
					   .sin_addr.s_addr = htonl(0x7f000001 + (i < 3 ? 0 : 1))};
		to.sin_addr.s_addr = htonl(0x7f000001);
		fds[i] = socket(AF_INET, SOCK_STREAM, 0);
		assert_int_equal(bind(fds[i], (struct sockaddr *)&from, sizeof(from)), 0);
		assert_int_equal(connect(fds[i], (struct sockaddr *)&to, sizeof(to)), 0);
		turns(f, 3);
	}
	assert_int_equal(http_server_connections(server), 3);
	assert_int_equal(recv(fds[2], &byte, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	turns(f, 5);
	assert_int_equal(http_server_connections(server), 0);
	server_end(f, server, l);
}

static void loopback_add(const char *text)
{
	struct in6_ifreq request = {.ifr6_prefixlen = 64, .ifr6_ifindex = 1};
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);

	assert_int_equal(inet_pton(AF_INET6, text, &request.ifr6_addr), 1);
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &lo), 0);
	assert_int_equal(ioctl(fd, SIOCSIFADDR, &request), 0);
	close(fd);
}

/* Two addresses of a /64 are one client, one of another is not. In a network of our own, which only
 * root may have. */
static void test_limits_ipv6(void **state)
{
	static const char *const clients[] = {"fd00::2", "fd00::3", "fd00:0:0:1::2"};
	struct fixture *f = *state;
	struct http_handler h = handler;
	const struct http_limits limits = {.per_address = 1};
	const struct stream_listen how = {.address = "[::1]:0"};
	struct stream_listener *l;
	const char *message;
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	bool reset[3];
	char byte;
	int fds[3];

	if (unshare(CLONE_NEWNET) != 0) {
		close(home);
		skip();
	}
	for (unsigned i = 0; i < 3; i++)
		loopback_add(clients[i]);
	h.arg = f;
	struct http_server *server = http_server_new(f->group, &h, &limits);
	assert_int_equal(http_server_listen(server, &how, &l, &message), 0);
	for (unsigned i = 0; i < 3; i++) {
		struct sockaddr_in6 from = {.sin6_family = AF_INET6};
		struct sockaddr_in6 to = {.sin6_family = AF_INET6,
					  .sin6_addr = in6addr_loopback,
					  .sin6_port = htons((uint16_t)stream_listener_port(l))};

		inet_pton(AF_INET6, clients[i], &from.sin6_addr);
		fds[i] = socket(AF_INET6, SOCK_STREAM, 0);
		/* The kernel may still be at giving us the address. */
		while (bind(fds[i], (struct sockaddr *)&from, sizeof(from)) != 0) {
			assert_int_equal(errno, EADDRNOTAVAIL);
			usleep(1000);
		}
		assert_int_equal(connect(fds[i], (struct sockaddr *)&to, sizeof(to)), 0);
		send(fds[i], RAW(GET "\r\n"), MSG_NOSIGNAL);
		for (errno = EAGAIN; recv(fds[i], &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;)
			turns(f, 1);
		reset[i] = errno == ECONNRESET;
	}
	for (unsigned i = 0; i < 3; i++)
		close(fds[i]);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	close(home);
	server_end(f, server, l);
	assert_true(!reset[0] && reset[1] && !reset[2]);
}

struct tls_client {
	struct buf got;
	bool closed;
};

static void tls_client_ready(struct stream *s)
{
	stream_write(s, RAW(GET "\r\n"));
	stream_write(s, RAW("GET /later HTTP/1.1\r\nHost: a\r\n\r\n"));
}

static void tls_client_data(struct stream *s, const uint8_t *bytes, size_t len)
{
	buf_append(&((struct tls_client *)stream_arg(s))->got, bytes, len);
}

static void tls_client_closed(struct stream *s, enum stream_end end, const char *detail)
{
	(void)end;
	(void)detail;
	((struct tls_client *)stream_arg(s))->closed = true;
}

static void test_tls(void **state)
{
	static const struct stream_events events = {
		.ready = tls_client_ready, .data = tls_client_data, .closed = tls_client_closed};
	static const char *const alpn[] = {"http/1.1", NULL};
	struct fixture *f = *state;
	struct test_cert ca = test_cert_new("CA", NULL, NULL, -DAY, DAY, 0);
	struct test_cert own =
		test_cert_new("client", &ca, "URI:tiebreak:client/admin", -DAY, DAY, 0);
	struct tls_options options = {.certificate = own.pem,
				      .key = own.key,
				      .ca = ca.pem,
				      .alpn = alpn,
				      .server = true,
				      .ask_client_certificate = true};
	struct tls_context *server, *client;
	struct stream_listener *l;
	struct tls_client c = {0};
	const char *message;
	char address[64];

	assert_int_equal(tls_context_new(&options, &server, &message), 0);
	options.server = false;
	assert_int_equal(tls_context_new(&options, &client, &message), 0);
	const struct stream_listen how = {.address = "127.0.0.1:0", .tls = server};
	assert_int_equal(http_server_listen(f->server, &how, &l, &message), 0);
	snprintf(address, sizeof(address), "127.0.0.1:%u", stream_listener_port(l));
	struct stream *s = stream_connect(f->group, address, client, 5000, &events, &c);
	while (f->later_count == 0)
		uv_run(&f->loop, UV_RUN_ONCE);
	assert_string_equal(f->later[0]->peer->uri, "tiebreak:client/admin");
	assert_true(f->later[0]->tls && !f->later[0]->has_uid);
	http_respond(f->later[0], 200, NULL, NULL, "done", 4);
	while (!c.got.len || !strstr(buf_string(&c.got), "done"))
		uv_run(&f->loop, UV_RUN_ONCE);
	stream_close(s);
	while (!c.closed)
		uv_run(&f->loop, UV_RUN_ONCE);
	stream_listener_close(l);
	tls_context_free(server);
	tls_context_free(client);
	test_cert_free(&ca);
	test_cert_free(&own);
	buf_free(&c.got);
}

static void test_decode(void **state)
{
	const struct {
		const char *text;
		bool plus;
		const char *decoded; /* NULL: refused */
	} cases[] = {
		{"a%20b+c", false, "a b+c"},   {"a%20b+c", true, "a b c"},
		{"%C3%a4", false, "\xc3\xa4"}, {"", false, ""},
		{"%2F%3f", false, "/?"},       {"%", false, NULL},
		{"%4", false, NULL},	       {"a%4", false, NULL},
		{"%+4", false, NULL},	       {"%00", false, NULL},
		{"%ff", false, NULL},	       {"%c0%80", false, NULL},
	};
	const struct {
		const char *query, *name;
		int rv;
		const char *value;
	} queries[] = {
		{"limit=10&page=x", "page", 0, "x"},
		{"limit=10&page=x", "limit", 0, "10"},
		{"limit=10", "lim", -ENOENT, NULL},
		{"", "a", -ENOENT, NULL},
		{"a", "a", 0, ""},
		{"a&b", "b", 0, ""},
		{"a=1=2", "a", 0, "1=2"},
		{"%61=b%3Dc", "a", 0, "b=c"},
		{"a=1&a=1", "a", -EINVAL, NULL},
		{"a=%zz", "a", -EINVAL, NULL},
		{"b=%zz&a=1", "a", 0, "1"},
		{"&&a=1&", "a", 0, "1"},
	};
	char *value;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int rv = http_decode(cases[i].text, strlen(cases[i].text), cases[i].plus, &value);

		assert_int_equal(rv, cases[i].decoded ? 0 : -EINVAL);
		if (rv < 0)
			continue;
		assert_string_equal(value, cases[i].decoded);
		free(value);
	}
	for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
		int rv = http_query_value(queries[i].query, queries[i].name, &value);

		assert_int_equal(rv, queries[i].rv);
		if (rv < 0)
			continue;
		assert_string_equal(value, queries[i].value);
		free(value);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_corpus),
		TEST(test_large_heads),
		TEST(test_request_content),
		TEST(test_headers),
		TEST(test_order),
		TEST(test_expect),
		TEST(test_stream),
		TEST(test_back_pressure),
		TEST(test_burst_is_taken),
		TEST(test_greedy_pipeline),
		TEST(test_client_goes),
		TEST(test_deadlines),
		TEST(test_silence),
		TEST(test_limits),
		TEST(test_limits_ipv6),
		TEST(test_tls),
		cmocka_unit_test(test_decode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
