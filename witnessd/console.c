#include "witnessd/console.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/mem.h"

/* One connection to a VM's process; closes by itself once it is let go. */
struct line {
	uv_poll_t poll;
	int fd;
	struct console *console; /* NULL: let go */
	struct buf keys;
};

struct console {
	uv_loop_t *loop;
	struct line *line; /* NULL: no VM */
	struct list watchers;
	unsigned watcher_count;
	uint64_t end; /* bytes printed in its whole life */
	uint8_t ring[CONSOLE_KEEP]; /* byte n of them is at n % CONSOLE_KEEP */
};

struct console *console_new(uv_loop_t *loop)
{
	struct console *c = mem_zalloc(sizeof(*c));

	c->loop = loop;
	list_init(&c->watchers);
	return c;
}

/* --- watchers --- */

static uint64_t oldest(const struct console *c)
{
	return c->end > CONSOLE_KEEP ? c->end - CONSOLE_KEEP : 0;
}

void console_unwatch(struct console_watcher *w)
{
	if (w->console == NULL)
		return;
	list_remove(&w->link);
	w->console->watcher_count--;
	w->console = NULL;
}

static void watcher_end(struct console_watcher *w, const char *why)
{
	console_unwatch(w);
	w->ended(w, why);
}

static void watcher_missed(struct console_watcher *w)
{
	char text[64];
	int len = snprintf(text, sizeof(text), "\r\n[%llu bytes were missed]\r\n",
			   (unsigned long long)(oldest(w->console) - w->at));

	w->at = oldest(w->console);
	w->bytes(w, text, (size_t)len);
}

static void watcher_give(struct console_watcher *w)
{
	const struct console *c = w->console;
	uint64_t end = w->until < c->end ? w->until : c->end;
	size_t place = w->at % CONSOLE_KEEP;
	size_t len = end > w->at ? (size_t)(end - w->at) : 0;

	if (!w->ready)
		return;
	if (w->at < oldest(c)) {
		w->ready = false;
		watcher_missed(w);
	} else if (len > 0) {
		len = len < CONSOLE_PIECE ? len : CONSOLE_PIECE;
		len = len < CONSOLE_KEEP - place ? len : CONSOLE_KEEP - place;
		w->ready = false;
		w->at += len;
		w->bytes(w, c->ring + place, len);
	} else if (w->at >= w->until) {
		watcher_end(w, "");
	}
}

int console_watch(struct console *c, struct console_watcher *w, size_t replay, bool follow)
{
	uint64_t kept = c->end - oldest(c);

	if (c->watcher_count == CONSOLE_WATCHERS_MAX)
		return -EBUSY;
	w->console = c;
	w->at = c->end - (replay < kept ? replay : kept);
	w->until = follow ? UINT64_MAX : c->end;
	w->ready = false;
	list_append(&c->watchers, &w->link);
	c->watcher_count++;
	return 0;
}

void console_next(struct console_watcher *w)
{
	if (w->console == NULL)
		return;
	w->ready = true;
	watcher_give(w);
}

/* A watcher may take itself, or others, out while it is told: begun anew then. */
static struct console_watcher *watcher_due(struct console *c)
{
	list_for_each (at, &c->watchers) {
		struct console_watcher *w = list_entry(at, struct console_watcher, link);

		if (w->ready && w->at < c->end)
			return w;
	}
	return NULL;
}

static void printed(struct console *c, const uint8_t *bytes, size_t len)
{
	struct console_watcher *w;

	while (len > 0) {
		size_t place = c->end % CONSOLE_KEEP;
		size_t piece = len < CONSOLE_KEEP - place ? len : CONSOLE_KEEP - place;

		memcpy(c->ring + place, bytes, piece);
		c->end += piece;
		bytes += piece;
		len -= piece;
	}
	while ((w = watcher_due(c)) != NULL)
		watcher_give(w);
}

/* --- the VM's end --- */

static void line_closed(uv_handle_t *handle)
{
	struct line *l = handle->data;

	close(l->fd);
	buf_free(&l->keys);
	free(l);
}

static void line_drop(struct line *l)
{
	if (l->console != NULL)
		l->console->line = NULL;
	l->console = NULL;
	uv_close((uv_handle_t *)&l->poll, line_closed);
}

static void line_ready(uv_poll_t *handle, int status, int events);

static void line_poll(struct line *l)
{
	uv_poll_start(&l->poll, UV_READABLE | (l->keys.len > 0 ? UV_WRITABLE : 0), line_ready);
}

/* false: it has ended. */
static bool line_read(struct line *l)
{
	uint8_t piece[CONSOLE_PIECE];
	ssize_t got = recv(l->fd, piece, sizeof(piece), MSG_DONTWAIT);

	if (got > 0)
		printed(l->console, piece, (size_t)got);
	return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

static void line_write(struct line *l)
{
	while (l->keys.len > 0) {
		ssize_t put = send(l->fd, l->keys.data, l->keys.len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return;
		buf_consume(&l->keys, (size_t)put);
	}
}

static void line_ready(uv_poll_t *handle, int status, int events)
{
	struct line *l = handle->data;

	if ((status < 0 || (events & UV_READABLE) != 0) && !line_read(l)) {
		line_drop(l);
		return;
	}
	if (l->console == NULL)
		return; /* a watcher has ended the console */
	line_write(l);
	line_poll(l);
}

int console_attach(struct console *c, int fd)
{
	struct line *l = mem_zalloc(sizeof(*l));
	int rv = uv_poll_init(c->loop, &l->poll, fd);

	if (rv < 0) {
		close(fd);
		free(l);
		return rv;
	}
	console_detach(c);
	l->poll.data = l;
	l->fd = fd;
	l->console = c;
	c->line = l;
	line_poll(l);
	return 0;
}

void console_detach(struct console *c)
{
	/* Bounded: what fits into a socket, since nobody writes any more. */
	for (unsigned i = 0; i < CONSOLE_KEEP / 1024 && c->line != NULL; i++) {
		uint64_t before = c->end;

		if (!line_read(c->line) || c->end == before)
			break;
	}
	if (c->line != NULL)
		line_drop(c->line);
}

void console_free(struct console *c, const char *why)
{
	if (c == NULL)
		return;
	if (c->line != NULL)
		line_drop(c->line);
	while (!list_empty(&c->watchers))
		watcher_end(list_entry(c->watchers.next, struct console_watcher, link), why);
	free(c);
}

int console_write(struct console *c, const void *bytes, size_t len)
{
	if (c->line == NULL)
		return -EAGAIN;
	if (c->line->keys.len + len > CONSOLE_KEYS_MAX)
		return -ENOBUFS;
	buf_append(&c->line->keys, bytes, len);
	line_write(c->line);
	line_poll(c->line);
	return 0;
}
