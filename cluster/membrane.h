/* membrane.h: the raft library's disk and network, wrapped.
 *
 *        raft (the library's rules)
 *   ----------- membrane -----------   what passes is what the rules may rely on
 *        raft_uv (its files, its links)
 *
 * Why: in version 0.15 a failed write is rolled back in memory only, and the board goes on with a
 * log that differs from its disk, or ends in an assertion (docs/decisions/0005-raft-engine.md
 * lists the faults; the numbers F1.. below refer to it). So the first failure of any kind breaks
 * the membrane: from then on nothing goes in or out, the library is told neither success nor
 * failure, and the owner closes. What is on disk stays the truth, read again at the next start.
 *
 * It also keeps the library from situations it cannot handle, by dropping the message that leads
 * there, which raft must survive anyway. */
#pragma once
#include <raft.h>
#include <stdbool.h>
#include <stdint.h>

#include "cluster/ballot.h"
#include "lib/list.h"

enum { MEMBRANE_PEERS = 32, MEMBRANE_SENDS = 64 };

struct membrane_events {
	void *arg;
	/* The library has run: look at its state. */
	void (*ran)(void *arg);
	/* True if these are the bytes of an undamaged snapshot. */
	bool (*sound)(void *arg, const void *data, size_t len);
	/* A snapshot of this board could not be written. It goes on without. */
	void (*snapshot_failed)(void *arg);
};

struct membrane_peer {
	uint64_t id; /* 0: free */
	unsigned sending; /* messages under way */
	uint64_t heard_ms; /* loop time of its last message; 0: none */
};

struct membrane {
	struct raft_io io; /* for raft_uv_init, then membrane_init, then raft_init */
	struct raft_io inner; /* raft_uv's own methods */
	struct raft *raft;
	struct ballot *ballot;
	struct membrane_events events;

	int error; /* 0, or why it is broken */
	char message[512];
	bool turning; /* membrane_turn is called */
	bool draining;
	bool closing;
	unsigned closed_turns; /* since raft_uv said it was closed; 0: it has not */
	raft_io_close_cb close_cb;
	raft_io_tick_cb tick_cb;
	raft_io_recv_cb recv_cb;

	uint64_t disk_ms[2]; /* the longest write in this window of time, and in the one before */
	uint64_t disk_window_ms; /* loop time at which this window began */

	struct list held; /* appends not yet given to the disk */
	struct list flights; /* appends at the disk; at most one while all is well */
	uint64_t watched_ms; /* loop time of the last look at the flights */
	bool cutting; /* a truncation is at the disk */

	struct list sends; /* at the network */
	struct list refused; /* to be reported as failed in the next turn */
	struct membrane_peer peers[MEMBRANE_PEERS];

	struct {
		struct raft_io_snapshot_put req;
		struct raft_io_snapshot_put *user; /* NULL: none under way */
		raft_io_snapshot_put_cb cb;
		struct raft_buffer *bufs;
		bool install; /* of a leader's snapshot */
		bool landed; /* the disk has answered; the library will not hear of it */
	} put;

	/* The newest configuration known to be committed (F5, F6). */
	struct raft_configuration committed;
	raft_index committed_index;
	raft_index uncommitted_index; /* found at load behind the committed one; 0: none */

	/* First entry of this leadership; until it is on disk, acceptances are not heard (F1). */
	raft_term own_term;
	raft_index own_first;
};

/* `io` is set up by raft_uv_init; puts the wrappers in. ballot stays the caller's. */
void membrane_init(struct membrane *m, struct raft *raft, struct ballot *ballot,
		   const struct membrane_events *events);
/* After raft_start. From here on membrane_turn is called, also while closing. */
void membrane_started(struct membrane *m);
/* Nothing goes in or out any more; the first reason is kept. */
void membrane_break(struct membrane *m, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Between runs of the library, once per turn of the loop. True: call again soon. */
bool membrane_turn(struct membrane *m);
/* No append is held or at the disk. */
bool membrane_quiet(const struct membrane *m);
/* Lets nothing new through; true once the disk has answered all that it was given. Ask until it is,
 * then close. */
bool membrane_drained(struct membrane *m);
/* The kernel has refused a write outright: the library waits for it for ever, and so would a close
 * (F13). */
bool membrane_stuck(const struct membrane *m);
/* The longest write of the log within the last minute or two, in ms. */
uint64_t membrane_disk_ms(struct membrane *m);
/* Loop time of the peer's last message, 0 if none. */
uint64_t membrane_heard(const struct membrane *m, uint64_t id);
/* After the library was closed and raft_uv_close. */
void membrane_free(struct membrane *m);
/* A raft error code as a negative errno. */
int membrane_errno(int raft_code);
