/* control.h: the words of others to a running VM: VmRequest frames in, VmReply frames out.
 *
 * Two doors: the parent's connection (descriptor 3 of the supervised form) and clients of a
 * listening Unix socket of mode 0600. Both are read as if hostile: a frame is bounded before it is
 * read, one that stays half done for CONTROL_PATIENCE_MS ends its connection, and so does a reader
 * that does not take its answer. The next request of a connection is read after the answer to the
 * last one left; an answer that takes long (a snapshot) holds up nobody: it comes when it is there,
 * by its id, and the lease is renewed meanwhile. Knows nothing of machines: the handler does. Runs
 * in the loop, with the device lock held. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hv/loop.h"
#include "lib/buf.h"
#include "proto/hv.pb-c.h"

enum {
	CONTROL_CLIENTS_MAX = 8, /* of the socket; the parent is one more */
	CONTROL_REQUEST_MAX = 4096, /* bytes of a request */
	CONTROL_FDS_MAX = 2, /* descriptors that may come with a request */
	CONTROL_PATIENCE_MS = 5000,
};

struct control_call {
	const Tb__VmRequest *request; /* valid during the call */
	uint64_t client; /* who asks, for control_answer */
	bool parent; /* on the parent's connection */
	/* This connection speaks for the lease: the parent's; or, if there was none or it has gone
	 * (a daemon that starts anew comes back by the socket), one of the socket. */
	bool may_renew;
	const int *fds; /* closed after the call: dup what is kept */
	size_t fd_count;
};

struct control_config {
	struct loop *loop;
	int parent; /* connected stream socket, or -1; taken over */
	int listener; /* listening socket, or -1; taken over */
	/* Fills *reply (id aside) and returns true: it is sent at once. False: control_answer comes
	 * later. What *reply points to stays the handler's and must live until the call after. */
	bool (*request)(void *arg, const struct control_call *call, Tb__VmReply *reply);
	/* The parent's connection ended. May be NULL. */
	void (*parent_gone)(void *arg);
	void *arg;
};

struct control;

/* A listening socket at `path`, mode 0600. What a dead process left there is replaced; a live one
 * is -EADDRINUSE. 0 and *ret_fd (owned by the caller). */
int control_listen(const char *path, int *ret_fd);
/* 0 or negative errno; then the descriptors stay the caller's. */
int control_create(const struct control_config *config, struct control **ret);
/* Answers that were not sent yet get a last try. Closes all. NULL ok. */
void control_destroy(struct control *c);
/* The answer that was promised to `client`, with the request's id in it; nothing happens if it has
 * gone. */
void control_answer(struct control *c, uint64_t client, Tb__VmReply *reply);

/* Takes the parent's requests that are there, one after the other; for whoever keeps the loop
 * waiting and is not in a request itself. With the lock. */
void control_hear_parent(struct control *c);
/* A word to the parent that no request asked for (id 0): the VM runs, the VM has ended. */
void control_tell_parent(struct control *c, Tb__VmReply *reply);
/* Ends connections that were half done or not read from for CONTROL_PATIENCE_MS; called by a timer
 * of its own while there are any. `now_ms` is boot time. */
void control_expire(struct control *c, uint64_t now_ms);
/* Clients connected now, the parent included. */
unsigned control_clients(const struct control *c);
