/* http_chunk.h: a body in chunks (RFC 9112, 7.1), strictly: no extensions, no trailers. Pure. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

/* Zero-initialised: before the first chunk. */
struct http_chunks {
	int state;
	unsigned digits; /* of the size being read */
	uint64_t left; /* bytes of the chunk being read; the size while it is read */
};

/* Takes bytes, appends the body to `body`, at most `limit` in all. 1: the body is whole; 0: more is
 * needed; negative: an HTTP status (-400, -413). *ret_used: how many bytes were taken. */
int http_chunks_feed(struct http_chunks *c, const uint8_t *data, size_t len, size_t limit,
		     struct buf *body, size_t *ret_used);
