/* link.h: the pump between a TLS stream and a plain local socket, so that the core thread can talk
 * to other boards without ever doing TLS. Bytes go both ways with back-pressure: neither side
 * makes the pump hold more than LINK_QUEUE_MAX and one read for it. */
#pragma once
#include "lib/list.h"
#include "witnessd/stream.h"

enum {
	LINK_QUEUE_MAX = 256 * 1024,
	/* A board that takes nothing for so long is gone or cut off: its link is closed, so that
	 * the next one is dialed as soon as it is back, and not when TCP tries again. */
	LINK_SILENCE_MS = 5000,
};

/* Joins a stream that is ready (and of which nothing was read) with one end of a new socketpair;
 * *ret_fd is the other end, non-blocking, the caller's. From here on the pump owns the stream.
 * When either side ends, what it sent before is still passed on, and the other side is closed.
 * 0; -EMFILE and the like: the stream stays the caller's. `links` (NULL: none) outlives it. */
int link_pump(struct stream *tls, struct list *links, uint64_t node, const struct tls_peer *peer,
	      int *ret_fd);
/* Resets the links of boards whose certificate no longer holds: `issuer` as in tls_peer. */
void links_check(struct list *links,
		 bool (*holds)(void *arg, uint64_t node, const char *serial, uint64_t issuer),
		 void *arg);
