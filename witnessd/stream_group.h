/* stream_group.h: what stream.c and listener.c share; for nobody else. */
#pragma once
#include "lib/list.h"
#include "lib/address.h"
#include "lib/pool.h"
#include "witnessd/admission.h"
#include "witnessd/stream.h"

struct stream_group {
	uv_loop_t *loop;
	uv_timer_t ticker; /* runs while something has a deadline or a listener rests */
	uv_check_t check; /* run while something waits for its turn; the idle handle keeps */
	uv_idle_t idle; /* the loop from sleeping meanwhile */
	unsigned handles; /* of the three above, not closed yet */
	uint64_t budget_ns;
	struct list streams;
	struct pool pool; /* of their memory */
	struct list listeners;
	struct list wakes; /* streams to be woken once in this turn of the loop */
	/* Streams with ciphertext of a handshake, served within the budget, by turns. */
	struct list preferred; /* of members, and dialed */
	struct list handshakes; /* the others */
	unsigned handshake_count; /* of both */
	bool preferred_was; /* the last turn went there */
	struct list deadlines; /* streams with a deadline */
	struct buf plain; /* scratch of the call in progress */
	struct buf wire;
	uint8_t *read_buffer;
	int spare_fd; /* given up when descriptors run out, to turn away one more client; -1: gone
		       */
	uint64_t complained_ms; /* when running out of descriptors was logged last */
	void (*freed)(void *arg); /* set once the group is being freed */
	void *freed_arg;
};

/* A connection that a listener took: counted there until it is closed. Calls nobody. */
struct stream *stream_new_accepted(struct stream_group *g, struct stream_listener *l, int fd,
				   const struct sockaddr *peer, struct tls_context *tls,
				   const struct stream_events *events, void *arg);
/* Its place, which it leaves when it is closed. */
void stream_take_place(struct stream *s, struct place *place);
/* The owner knows of it now: go. */
void stream_begin(struct stream *s);
/* One of its streams is gone. */
void stream_listener_left(struct stream_listener *l);
/* Tries to accept again after running out of descriptors; true if it still has to wait. */
bool stream_listener_wake(struct stream_listener *l);
void stream_group_start_ticker(struct stream_group *g);
/* The last thing of a freed group is gone: tell. */
void stream_group_maybe_freed(struct stream_group *g);

struct stream_listener {
	uv_poll_t poll;
	struct list link; /* in group->listeners; alone once closed */
	struct stream_group *group;
	char *address;
	char *path; /* of a Unix socket, to be removed; NULL else */
	int fd;
	unsigned port;
	struct tls_context *tls; /* a reference of its own; NULL: clear */
	unsigned limit; /* 0: none */
	struct admission *admission; /* NULL: none */
	unsigned open; /* streams of this listener that are not closed */
	uint64_t over_limit;
	uint64_t refused_ms; /* when one over a limit was logged last */
	const struct stream_events *events;
	void (*accepted)(struct stream *s, void *arg);
	void (*taken)(int fd, const struct sockaddr *peer, void *arg);
	void *arg;
	bool resting; /* not polled: no descriptor was free */
	bool closed; /* the poll handle is gone; freed with the last stream */
};
