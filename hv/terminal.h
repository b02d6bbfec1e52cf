/* terminal.h: the guest's console at the host's end: a person's terminal, a pipe, a file, a socket.
 *
 * Never waits for anybody: what the reader does not take now is refused (the guest's side keeps
 * it), what the guest does not take now is kept and not read on. A person has Ctrl-A as the escape
 * key. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <termios.h>

#include "hv/loop.h"

enum terminal_key {
	TERMINAL_KEY_NONE,
	TERMINAL_KEY_LEAVE, /* Ctrl-A x */
	TERMINAL_KEY_POWER, /* Ctrl-A p */
	TERMINAL_KEY_HELP, /* Ctrl-A h, or anything unknown */
};

/* Takes escape sequences out of what was typed. Zeroed: begin. Pure. */
struct terminal_keys {
	bool escaped; /* Ctrl-A was the last one */
};
/* Filters in place until a key is found or `*len` bytes are done; `*len` becomes what is left for
 * the guest, `*used` how many of the bytes given are done. */
enum terminal_key terminal_filter(struct terminal_keys *k, uint8_t *data, size_t *len,
				  size_t *used);

struct terminal_config {
	struct loop *loop;
	int in; /* -1: none; the caller's */
	int out; /* from terminal_reopen, taken over; -1: none */
	bool keys; /* a person types: look for Ctrl-A */
	/* Characters for the guest; returns how many it took. */
	size_t (*input)(void *arg, const uint8_t *data, size_t len);
	/* The output can take more. */
	void (*output_ready)(void *arg);
	void (*key)(void *arg, enum terminal_key key); /* LEAVE or POWER */
	void *arg;
};

struct terminal;

/* Columns and rows of a terminal; 0 and 0 if it does not know, or is none. */
void terminal_size(int fd, uint16_t *ret_columns, uint16_t *ret_rows);

/* The output once more, with an O_NONBLOCK of its own: others share the given description. Before
 * the sandbox. Owned by the caller; -1 if that cannot be. */
int terminal_reopen(int out);
/* 0; or negative errno, then the descriptors stay the caller's. */
int terminal_create(const struct terminal_config *config, struct terminal **ret);
void terminal_destroy(struct terminal *t);
/* From the guest: returns how many bytes were taken; fewer: output_ready comes. With the lock. */
size_t terminal_output(struct terminal *t, const uint8_t *data, size_t len);
/* Offers the guest again what it did not take; called by a timer of its own while there is such. */
void terminal_retry(struct terminal *t);

/* Raw mode for a person's terminal, output processing stays. 0 and the old settings; -ENOTTY: it is
 * none, or not ours to change now (a background job). */
int terminal_raw(int fd, struct termios *ret_old);
void terminal_restore(int fd, const struct termios *old);
