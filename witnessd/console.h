/* console.h: what a VM on this board prints, and what is typed at it: the last CONSOLE_KEEP bytes
 * and whoever watches. On a loop.
 *
 * The guest is never waited for and never holds anybody up: a watcher that falls behind more than
 * is kept is told how much it has missed, and keys that the guest does not take are dropped above
 * CONSOLE_KEYS_MAX. The console outlives the VM's process, so that one can read why it ended. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "lib/list.h"

enum {
	CONSOLE_KEEP = 64 << 10,
	CONSOLE_PIECE = 16 << 10, /* bytes of one call */
	CONSOLE_KEYS_MAX = 64 << 10,
	CONSOLE_WATCHERS_MAX = 16,
};

struct console;

/* Somebody who reads along; embedded by its owner, zeroed before console_watch. */
struct console_watcher {
	struct list link;
	struct console *console; /* NULL: not watching (any more) */
	uint64_t at; /* bytes of the console's whole life that it has got */
	uint64_t until; /* ends there; UINT64_MAX: goes on */
	bool ready; /* may be given more */
	/* At most CONSOLE_PIECE; no more come before console_next. May end the watching. */
	void (*bytes)(struct console_watcher *w, const void *bytes, size_t len);
	/* Not watching any more; `why` is a sentence, or "" when there is no more to follow. */
	void (*ended)(struct console_watcher *w, const char *why);
};

struct console *console_new(uv_loop_t *loop);
/* Its watchers are ended with this sentence. */
void console_free(struct console *c, const char *why);
/* The end of a VM's console (a connected socket), taken over; the one before is let go. 0 or
 * negative errno. */
int console_attach(struct console *c, int fd);
/* The VM is gone: what it still had to say is read. */
void console_detach(struct console *c);

/* Begins `replay` bytes back, as far as they are kept; without `follow` it ends with what there is
 * now. -EBUSY: too many watch. Nothing is given before console_next. */
int console_watch(struct console *c, struct console_watcher *w, size_t replay, bool follow);
void console_next(struct console_watcher *w);
void console_unwatch(struct console_watcher *w);
/* Keys for the guest. -EAGAIN: no VM is there to take them; -ENOBUFS: it does not take them. */
int console_write(struct console *c, const void *bytes, size_t len);
