/* The whole HTTP server: a client's bytes give the same requests and the same answers however they
 * are cut on their way, pipelined requests, bodies and chunks included. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/rng.h"
#include "witnessd/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 8192 };

struct fixture {
	uv_loop_t loop;
	struct stream_group *group;
	struct http_server *server;
	struct buf requests; /* what the owner saw */
	struct buf answers; /* what the client saw, dates and 100s left out */
};

static void must(int ok)
{
	if (!ok)
		abort();
}

static void on_head(struct http_request *r, void *arg)
{
	(void)arg;
	if (strcmp(r->path, "/no") == 0)
		http_respond(r, 401, NULL, NULL, NULL, 0);
	else if (strcmp(r->path, "/few") == 0)
		r->body_limit = 16;
}

static void on_request(struct http_request *r, void *arg)
{
	struct fixture *f = arg;
	const char *type = http_header(r, "Content-Type");

	buf_printf(&f->requests, "%s %s ?%s (%s) %zu:", r->method, r->path, r->query,
		   type ? type : "", r->body_len);
	buf_append(&f->requests, r->body, r->body_len);
	if (strcmp(r->path, "/stream") == 0) {
		http_respond_start(r, 200, NULL, NULL);
		http_respond_chunk(r, r->body, r->body_len);
		http_respond_end(r);
	} else {
		http_respond(r, 200, NULL, NULL, r->body, r->body_len);
	}
}

static struct fixture *fixture(void)
{
	static struct fixture f;
	const struct http_handler handler = {.head = on_head, .request = on_request, .arg = &f};

	if (!f.server) {
		uv_loop_init(&f.loop);
		f.group = stream_group_new(&f.loop, 2000);
		f.server = http_server_new(f.group, &handler, NULL);
	}
	return &f;
}

static void receive(struct fixture *f, int fd)
{
	ssize_t len;

	uv_run(&f->loop, UV_RUN_NOWAIT);
	while ((len = recv(fd, buf_reserve(&f->answers, 65536), 65536, MSG_DONTWAIT)) > 0)
		f->answers.len += (size_t)len;
}

static void cut(struct buf *b, const char *from, size_t len)
{
	size_t at = (size_t)(from - (const char *)b->data);

	memmove(b->data + at, b->data + at + len, b->len - at - len);
	b->len -= len;
}

/* What may differ: the time, and whether a 100 was still worth sending. */
static void normalise(struct buf *answers)
{
	static const char proceed[] = "HTTP/1.1 100 Continue\r\n\r\n";
	static const char date[] = "Date: ";
	char *at;

	while ((at = memmem(answers->data, answers->len, proceed, sizeof(proceed) - 1)))
		cut(answers, at, sizeof(proceed) - 1);
	while ((at = memmem(answers->data, answers->len, date, sizeof(date) - 1)) &&
	       answers->len - (size_t)(at - (char *)answers->data) >= 37)
		cut(answers, at, 37);
}

static void run(struct fixture *f, const uint8_t *data, size_t size, struct prng *p)
{
	static const struct stream_events none;
	int pair[2];

	buf_clear(&f->requests);
	buf_clear(&f->answers);
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	http_server_adopt(f->server, stream_adopt(f->group, pair[0], &none, NULL));
	uv_run(&f->loop, UV_RUN_NOWAIT);
	for (size_t at = 0; at < size;) {
		size_t len = p ? 1 + prng_below(p, prng_chance(p, 80) ? 4 : 200) : size;
		if (len > size - at)
			len = size - at;
		if (send(pair[1], data + at, len, MSG_NOSIGNAL) != (ssize_t)len)
			break;
		at += len;
		receive(f, pair[1]);
	}
	receive(f, pair[1]);
	close(pair[1]);
	while (http_server_connections(f->server) > 0)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	if (f->answers.len > 0)
		normalise(&f->answers);
}

static int same(const struct buf *a, const struct buf *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fixture *f = fixture();
	struct prng p = {.state = size > 0 ? data[size - 1] : 0};

	if (size > INPUT_MAX)
		return 0;
	run(f, data, size, NULL);
	struct buf requests = f->requests, answers = f->answers;
	f->requests = (struct buf){0};
	f->answers = (struct buf){0};
	run(f, data, size, &p);
	must(same(&requests, &f->requests));
	must(same(&answers, &f->answers));
	buf_free(&requests);
	buf_free(&answers);
	return 0;
}
