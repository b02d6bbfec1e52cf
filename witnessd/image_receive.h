/* image_receive.h: one image on its way into the store, from an upload or from another board: puts
 * in order, written and hashed by libuv's workers, one piece at a time; checked and put among the
 * images when the last byte is there. In the thread of the loop.
 *
 *      put                     last byte                      digest right
 *   ---> OPEN -> WRITE ... WRITE -----> CATCH_UP (what was -----> FINISH --> over(0)
 *                 ^-- next put -|        there before)              | wrong: over(-EBADMSG)
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "witnessd/image_store.h"

struct image_receive;

/* As host_uploaded (host.h): `have` bytes are here; done: it is whole and in the store. error:
 * -ERANGE not at `have`; -EBADMSG the digest is wrong; -EAGAIN the same, but once more from the
 * beginning may help; -ENOSPC, -EIO, ...; -ECANCELED it was closed. */
typedef void (*image_received)(void *arg, int error, const char *message, uint64_t have, bool done);

struct image_receive_events {
	/* Nothing goes on any more (0: it is in the store); the puts were answered. Close it. */
	void (*over)(void *arg, int error, const char *message);
	/* After image_receive_close: the worker has let go of it. The last call. */
	void (*gone)(void *arg);
};

/* Nothing is opened before the first put; until then it has `have`, as far as is known. The store
 * and the events outlive it. */
struct image_receive *image_receive_new(uv_loop_t *loop, const struct image_store *store,
					const char *sha256, uint64_t size, uint64_t have,
					const struct image_receive_events *events, void *arg);
/* At most IMAGE_PIECE_MAX bytes, copied; len 0: opens it, and asks where it stands (`offset` does
 * not matter). `received` may be called before this returns. */
void image_receive_put(struct image_receive *r, uint64_t offset, const void *bytes, size_t len,
		       image_received received, void *arg);
uint64_t image_receive_have(const struct image_receive *r);
/* A worker is at it, or puts wait for one. */
bool image_receive_busy(const struct image_receive *r);
/* What is there stays. Puts are answered with -ECANCELED. */
void image_receive_close(struct image_receive *r);
