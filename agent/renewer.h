/* renewer.h: the node's certificate is renewed by itself, at two thirds of its life
 * (lib/renewal.h).
 *
 * `witness-agent renew` is run as a process of its own: it may wait for boards, and the daemon must
 * not. It has the daemon read the new files by the control socket, as it does for a person. What
 * fails is tried again until it works: every time that it looks. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	RENEWER_LOOK_MAX_MS =
		3600000, /* between two looks; less for short lives, spread at random */
	RENEWER_LOOK_PART = 20, /* of the life */
	RENEWER_PATIENCE_MS = 300000, /* a renewal that takes longer is ended */
};

struct renewer {
	char *const *command; /* program and arguments; the caller's */
	const char *certificate; /* path of the file; the caller's */
	int64_t issued_ms, not_after_ms; /* of it; 0, 0: not readable */
	uint64_t look_ms; /* boot clock: looks again */
	pid_t pid; /* 0: none under way */
	uint64_t end_ms; /* boot clock: it is killed then */
};

/* `command` and `certificate` outlive it. */
void renewer_open(struct renewer *r, char *const *command, const char *certificate,
		  uint64_t now_ms);
/* Does what is due. `now_ms`: boot clock; `real_ms`: since 1970. */
void renewer_turn(struct renewer *r, uint64_t now_ms, int64_t real_ms);
/* Milliseconds until the next turn is due. */
int renewer_timeout_ms(const struct renewer *r, uint64_t now_ms);
/* Ends a renewal that is under way. */
void renewer_close(struct renewer *r);
