/* host_console.c: consoles of VMs for the front's thread, wherever the VM runs, and for other
 * boards that ask for one of ours.
 *
 *   front --letters--> host_console --> console.h                (the VM is here)
 *                           +---------> host_link --> the other board's `served` --> console.h
 *
 * A console is made in the front's thread and lives until that has closed it and the last letter on
 * its way there was opened. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/mem.h"
#include "witnessd/host_internal.h"

enum { SERVED_MAX = 64 };

struct host_console {
	struct host *host;
	struct mailbox *home;
	uint64_t vm;
	uint32_t replay;
	bool follow;
	/* the front's thread */
	bool closed;
	host_console_bytes bytes;
	void *arg;
	/* the host's thread */
	struct list link;
	bool over; /* nothing more comes */
	struct console_watcher watcher;
	struct host_link *line; /* NULL: none, or the VM is here */
	uint64_t dial; /* 0: none */
};

/* Another board looks at a console of ours. */
struct served {
	struct list link;
	struct host_consoles *all;
	struct host_link *line;
	struct console_watcher watcher;
	uint64_t vm;
};

struct host_consoles {
	struct host *host;
	struct list open; /* host_console */
	struct list served;
	unsigned served_count;
	bool closed;
};

/* --- letters to the front --- */

struct answer {
	struct letter letter;
	struct host_console *console;
	void *bytes;
	size_t len;
	char *why; /* NULL: none */
	bool last; /* the console is not used any more */
};

static void answer_open(struct letter *letter)
{
	struct answer *a = list_entry(letter, struct answer, letter);
	struct host_console *c = a->console;

	if (a->last)
		free(c);
	else if (!c->closed)
		c->bytes(c->arg, a->bytes, a->len, a->why);
	free(a->bytes);
	free(a->why);
	free(a);
}

static void answer(struct host_console *c, const void *bytes, size_t len, const char *why,
		   bool last)
{
	struct answer *a = mem_zalloc(sizeof(*a));
	struct mailbox *home = c->home;

	a->letter.open = answer_open;
	a->console = c;
	a->bytes = len > 0 ? mem_dup(bytes, len) : NULL;
	a->len = len;
	a->why = why != NULL ? mem_strdup(why) : NULL;
	a->last = last;
	if (mailbox_answer(home, &a->letter) == 0)
		return;
	/* The front is gone, and with it whoever would have read it. */
	if (last)
		free(c);
	free(a->bytes);
	free(a->why);
	free(a);
}

static void over(struct host_console *c, const char *why)
{
	if (c->over)
		return;
	c->over = true;
	answer(c, NULL, 0, why, false);
}

/* --- a VM on this board --- */

static void watched_bytes(struct console_watcher *w, const void *bytes, size_t len)
{
	answer(list_entry(w, struct host_console, watcher), bytes, len, NULL, false);
}

static void watched_ended(struct console_watcher *w, const char *why)
{
	over(list_entry(w, struct host_console, watcher), why);
}

static void open_here(struct host_console *c)
{
	uint64_t incarnation;
	struct console *console = host_vm_console(c->host, c->vm, &incarnation);

	c->watcher.bytes = watched_bytes;
	c->watcher.ended = watched_ended;
	if (console == NULL)
		over(c, "its board has not begun with it yet; try again");
	else if (console_watch(console, &c->watcher, c->replay, c->follow) != 0)
		over(c, "too many look at this console; end another one first");
	else
		answer(c, NULL, 0, NULL, false);
}

/* --- a VM on another board --- */

static void line_frame(void *arg, struct host_link *l, const Tb__HostFrame *frame)
{
	struct host_console *c = arg;

	if (frame->what_case == TB__HOST_FRAME__WHAT_CONSOLE_HEAD) {
		host_link_pause(l);
		if (frame->console_head->error[0] == '\0') {
			answer(c, NULL, 0, NULL, false);
			return;
		}
		over(c, frame->console_head->error);
		c->line = NULL;
		host_link_close(l, NULL);
	} else if (frame->what_case == TB__HOST_FRAME__WHAT_CONSOLE_BYTES) {
		host_link_pause(l);
		if (frame->console_bytes.len > 0)
			answer(c, frame->console_bytes.data, frame->console_bytes.len, NULL, false);
		else
			over(c, "");
	}
}

static void line_closed(void *arg, struct host_link *l, const char *why)
{
	struct host_console *c = arg;

	(void)l;
	c->line = NULL;
	over(c, why);
}

static const struct host_link_events line_events = {
	.frame = line_frame,
	.closed = line_closed,
};

static void line_dialed(void *arg, int fd_or_error)
{
	struct host_console *c = arg;
	Tb__HostFrame frame = TB__HOST_FRAME__INIT;
	Tb__ConsoleOpen open = TB__CONSOLE_OPEN__INIT;

	c->dial = 0;
	if (fd_or_error >= 0)
		c->line = host_link_new(&c->host->loop, 0, fd_or_error, &line_events, c);
	if (c->line == NULL) {
		over(c, "the board that runs it cannot be reached from this one");
		return;
	}
	open.vm = c->vm;
	open.replay = c->replay;
	open.once = !c->follow;
	frame.what_case = TB__HOST_FRAME__WHAT_CONSOLE_OPEN;
	frame.console_open = &open;
	(void)host_link_send(c->line, &frame);
}

/* --- letters from the front --- */

enum wish_kind { WISH_OPEN, WISH_NEXT, WISH_KEYS, WISH_CLOSE };

struct wish {
	struct letter letter;
	struct host_console *console;
	enum wish_kind kind;
	struct buf keys;
};

static void console_open(struct host_console *c)
{
	struct host *h = c->host;
	uint64_t node = 0;
	Tb__Vm *row;

	list_append(&h->consoles->open, &c->link);
	if (h->store != NULL && store_vm_get(h->store, c->vm, &row) == 0) {
		node = row->placement != NULL ? row->placement->node : 0;
		tb__vm__free_unpacked(row, NULL);
	}
	if (h->stopping || h->consoles->closed)
		over(c, "this board is stopping");
	else if (node == 0)
		over(c, "it is on no board");
	else if (node == h->node)
		open_here(c);
	else
		c->dial = host_dial(h, node, line_dialed, c);
}

static void console_shut(struct host_console *c)
{
	c->over = true;
	console_unwatch(&c->watcher);
	if (c->line != NULL)
		host_link_abort(c->line);
	c->line = NULL;
	if (c->dial != 0)
		host_undial(c->host, c->dial);
	c->dial = 0;
}

static void console_keys(struct host_console *c, const struct buf *keys)
{
	Tb__HostFrame frame = TB__HOST_FRAME__INIT;

	if (c->watcher.console != NULL) {
		(void)console_write(c->watcher.console, keys->data, keys->len);
	} else if (c->line != NULL && keys->len <= HOST_PIECE_MAX) {
		frame.what_case = TB__HOST_FRAME__WHAT_CONSOLE_BYTES;
		frame.console_bytes = (ProtobufCBinaryData){.data = keys->data, .len = keys->len};
		(void)host_link_send(c->line, &frame);
	}
}

static void console_more(struct host_console *c)
{
	if (c->line != NULL)
		host_link_resume(c->line);
	else
		console_next(&c->watcher);
}

static void wish_open(struct letter *letter)
{
	struct wish *w = list_entry(letter, struct wish, letter);
	struct host_console *c = w->console;

	switch (w->kind) {
	case WISH_OPEN:
		console_open(c);
		break;
	case WISH_NEXT:
		if (!c->over)
			console_more(c);
		break;
	case WISH_KEYS:
		if (!c->over)
			console_keys(c, &w->keys);
		break;
	case WISH_CLOSE:
		console_shut(c);
		list_remove(&c->link);
		answer(c, NULL, 0, NULL, true);
		break;
	}
	buf_free(&w->keys);
	free(w);
}

/* false: the host has stopped. */
static bool wish(struct host_console *c, enum wish_kind kind, const void *keys, size_t len)
{
	struct wish *w = mem_zalloc(sizeof(*w));

	w->letter.open = wish_open;
	w->console = c;
	w->kind = kind;
	buf_append(&w->keys, keys, len);
	if (mailbox_answer(&c->host->mailbox, &w->letter) == 0)
		return true;
	buf_free(&w->keys);
	free(w);
	return false;
}

struct host_console *host_console_open(struct host *h, struct mailbox *home, uint64_t vm,
				       uint32_t replay, bool follow, host_console_bytes bytes,
				       void *arg)
{
	struct host_console *c = mem_zalloc(sizeof(*c));

	c->host = h;
	c->home = home;
	c->vm = vm;
	c->replay = replay;
	c->follow = follow;
	c->bytes = bytes;
	c->arg = arg;
	list_init(&c->link);
	list_init(&c->watcher.link);
	if (!wish(c, WISH_OPEN, NULL, 0))
		over(c, "this board is stopping");
	return c;
}

void host_console_next(struct host_console *c)
{
	(void)wish(c, WISH_NEXT, NULL, 0);
}

void host_console_write(struct host_console *c, const void *bytes, size_t len)
{
	(void)wish(c, WISH_KEYS, bytes, len);
}

void host_console_close(struct host_console *c)
{
	c->closed = true;
	if (!wish(c, WISH_CLOSE, NULL, 0))
		answer(c, NULL, 0, NULL, true);
}

/* --- for other boards --- */

static void served_free(struct served *s)
{
	console_unwatch(&s->watcher);
	list_remove(&s->link);
	s->all->served_count--;
	free(s);
}

static size_t served_send(struct served *s, const void *bytes, size_t len)
{
	Tb__HostFrame frame = TB__HOST_FRAME__INIT;

	frame.what_case = TB__HOST_FRAME__WHAT_CONSOLE_BYTES;
	frame.console_bytes =
		(ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)bytes, .len = len};
	return host_link_send(s->line, &frame);
}

static void served_bytes(struct console_watcher *w, const void *bytes, size_t len)
{
	struct served *s = list_entry(w, struct served, watcher);

	if (served_send(s, bytes, len) <= HOST_LINK_QUEUE_MAX)
		console_next(w);
}

static void served_ended(struct console_watcher *w, const char *why)
{
	struct served *s = list_entry(w, struct served, watcher);

	if (*why == '\0')
		(void)served_send(s, "", 0);
	host_link_close(s->line, why);
	served_free(s);
}

static void served_frame(void *arg, struct host_link *l, const Tb__HostFrame *frame)
{
	struct served *s = arg;

	(void)l;
	if (frame->what_case == TB__HOST_FRAME__WHAT_CONSOLE_BYTES && s->watcher.console != NULL)
		(void)console_write(s->watcher.console, frame->console_bytes.data,
				    frame->console_bytes.len);
}

static void served_drained(void *arg, struct host_link *l)
{
	struct served *s = arg;

	(void)l;
	console_next(&s->watcher);
}

static void served_closed(void *arg, struct host_link *l, const char *why)
{
	(void)l;
	(void)why;
	served_free(arg);
}

static const struct host_link_events served_events = {
	.frame = served_frame,
	.drained = served_drained,
	.closed = served_closed,
};

static void head_send(struct host_link *l, uint64_t incarnation, const char *error)
{
	Tb__HostFrame frame = TB__HOST_FRAME__INIT;
	Tb__ConsoleHead head = TB__CONSOLE_HEAD__INIT;

	head.incarnation = incarnation;
	head.error = (char *)(uintptr_t)error;
	frame.what_case = TB__HOST_FRAME__WHAT_CONSOLE_HEAD;
	frame.console_head = &head;
	(void)host_link_send(l, &frame);
}

static void refuse(struct host_link *l, const char *error)
{
	head_send(l, 0, error);
	host_link_close(l, NULL);
}

void host_console_serve(struct host *h, struct host_link *l, const Tb__ConsoleOpen *open)
{
	struct host_consoles *all = h->consoles;
	uint64_t incarnation = 0;
	struct console *console = host_vm_console(h, open->vm, &incarnation);
	struct served *s;

	if (console == NULL) {
		refuse(l, "its board has not begun with it yet; try again");
		return;
	}
	if (all->closed || all->served_count == SERVED_MAX) {
		refuse(l, all->closed ? "its board is stopping"
				      : "too many look at consoles of its board");
		return;
	}
	s = mem_zalloc(sizeof(*s));
	s->all = all;
	s->line = l;
	s->vm = open->vm;
	s->watcher.bytes = served_bytes;
	s->watcher.ended = served_ended;
	list_init(&s->watcher.link);
	if (console_watch(console, &s->watcher, open->replay, !open->once) != 0) {
		refuse(l, "too many look at this console; end another one first");
		free(s);
		return;
	}
	list_append(&all->served, &s->link);
	all->served_count++;
	host_link_serve(l, &served_events, s);
	head_send(l, incarnation, "");
	console_next(&s->watcher);
}

/* --- life --- */

struct host_consoles *host_consoles_new(struct host *h)
{
	struct host_consoles *all = mem_zalloc(sizeof(*all));

	all->host = h;
	list_init(&all->open);
	list_init(&all->served);
	return all;
}

void host_consoles_close(struct host_consoles *all)
{
	all->closed = true;
	list_for_each_safe (at, &all->served) {
		struct served *s = list_entry(at, struct served, link);

		host_link_close(s->line, "its board is stopping");
		served_free(s);
	}
	list_for_each (at, &all->open) {
		struct host_console *c = list_entry(at, struct host_console, link);

		over(c, "this board is stopping");
		console_shut(c);
	}
}

void host_consoles_free(struct host_consoles *all)
{
	free(all);
}
