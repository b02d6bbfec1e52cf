/* host_link.h: a link to another board's host: frames of proto/host.proto on a plain local socket
 * (the front does the TLS and has checked the other board's certificate). One purpose for a link,
 * named by its first frame; whoever serves that purpose takes the link over (host_link_serve).
 *
 * In the thread of the loop. Bytes in both directions are bounded: a frame's length is checked
 * before anything is allocated; whoever sends stops above HOST_LINK_QUEUE_MAX until `drained`. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "proto/host.pb-c.h"

struct host_link;

enum {
	HOST_PIECE_MAX = 64 * 1024, /* bytes in one piece of an image or of a console */
	HOST_FRAME_MAX = HOST_PIECE_MAX + 4096,
	HOST_LINK_QUEUE_MAX = 4 * HOST_PIECE_MAX,
	HOST_LINK_CLOSE_MS = 10000, /* for what is queued at the end; then it goes */
};

struct host_link_events {
	/* Valid during the call, which may close the link. An `end` is no frame: it is the reason
	 * in `closed`. */
	void (*frame)(void *arg, struct host_link *l, const Tb__HostFrame *frame);
	/* All that was queued has gone (only after host_link_send said more than 0). NULL: none. */
	void (*drained)(void *arg, struct host_link *l);
	/* Exactly once, the last call; `why` is for a person. Not called after host_link_close. */
	void (*closed)(void *arg, struct host_link *l, const char *why);
};

/* The fd is taken over, whatever happens; NULL: it cannot be used. `node`: the other board. */
struct host_link *host_link_new(uv_loop_t *loop, uint64_t node, int fd,
				const struct host_link_events *events, void *arg);
/* Hands the link to another owner: the next event goes there. */
void host_link_serve(struct host_link *l, const struct host_link_events *events, void *arg);
uint64_t host_link_node(const struct host_link *l);
/* Returns the bytes that are still queued. A frame of ours: below HOST_FRAME_MAX (asserted). */
size_t host_link_send(struct host_link *l, const Tb__HostFrame *frame);
/* Stop and go on reading (back-pressure). */
void host_link_pause(struct host_link *l);
void host_link_resume(struct host_link *l);
/* Sends what is queued and, if not NULL, why it is over, as far as the other board takes it within
 * HOST_LINK_CLOSE_MS; `l` is not the caller's any more. */
void host_link_close(struct host_link *l, const char *why);
/* The same at once: what is queued is dropped. */
void host_link_abort(struct host_link *l);
