/* control.h: the socket and the file by which others ask how it is and say what they want.
 *
 * A client connects to RUN-DIR/control.sock, sends one line and reads until the end:
 *
 *     status        anyone         the lines of keeper_status
 *     acquire       root           "ok", or "error: ..."
 *     release       root
 *     generation N  root
 *     reload        root           reads key and certificates again
 *
 * RUN-DIR/status holds the same lines as `status`. A reader of the file must compare until_boot_ms
 * with the time since boot: the file of an agent that was killed stays. */
#pragma once
#include <poll.h>

#include "agent/keeper.h"

enum { CONTROL_CLIENTS = 8, CONTROL_LINE = 64, CONTROL_PATIENCE_MS = 2000 };

struct control {
	struct keeper *keeper;
	char *socket_path;
	char *file_path;
	int fd;
	struct {
		int fd; /* -1: free */
		uint64_t deadline_ms;
		char line[CONTROL_LINE];
		size_t len;
	} clients[CONTROL_CLIENTS];
	struct buf written; /* what the file says */
};

/* Makes the run directory and the socket. 0; other: *ret_message (owned by the caller). */
int control_open(struct control *c, struct keeper *k, const struct settings *s, char **ret_message);
/* `told`: the file says how it ended. */
void control_close(struct control *c, bool told);
/* At most 1 + CONTROL_CLIENTS descriptors; returns how many. */
unsigned control_poll(struct control *c, struct pollfd *fds, int *timeout_ms);
void control_turn(struct control *c);
/* Writes the file if what it says has changed. */
void control_file(struct control *c);

/* The client's side: sends the line and gives the answer, owned by the caller. Negative errno. */
int control_ask(const struct settings *s, const char *line, char **ret_answer);
/* Does the text of a status say that the lease is held, as of now (boot clock)? Pure. */
bool control_status_held(const char *status, uint64_t now_ms);
/* Had the agent that left this text the lease, and ended out of order? Pure. */
bool control_status_left(const char *status);
/* The same of the file in RUN-DIR; false if there is none, as after a start of the machine. */
bool control_left(const struct settings *s);
/* What it had started was stopped: takes the file away. Not while an agent runs. */
void control_forget(const struct settings *s);
