/* image_copy.h: an image from another board: the asker's and the server's half of a link
 * (proto/host.proto). In the thread of the loop; the disk is read and written by libuv's workers.
 *
 *   asker                                   server
 *   image_get(sha256, offset) ------------>
 *          <------------------------------- image_head(size | error)
 *          <------------------------------- image_piece ... up to the end
 *   (pauses while more than IMAGE_AHEAD     (reads on when what it sent has gone)
 *    bytes wait for the disk)
 */
#pragma once
#include <stdint.h>
#include <uv.h>

#include "witnessd/host_link.h"
#include "witnessd/image_receive.h"

struct image_copy;
struct image_serve;

enum {
	IMAGE_AHEAD = 1 << 20,
	IMAGE_COPY_SILENCE_MS = 15000, /* a source that sends nothing for so long is given up */
};

/* Fetches into `receive`, from where that stands. `over` is called once, unless it was closed: 0
 * (it is in the store), -EBADMSG (what the source sent is another image), others; the link is gone
 * then. The fd is taken over. */
typedef void (*image_copied)(void *arg, int error, const char *why);
struct image_copy *image_copy_new(uv_loop_t *loop, uint64_t node, int fd, const char *sha256,
				  uint64_t size, struct image_receive *receive, image_copied over,
				  void *arg);
/* Gives a silent source up. `now_ms` of uv_now. */
void image_copy_tick(struct image_copy *c, uint64_t now_ms);
/* Before its receive is closed, or after `over`. */
void image_copy_close(struct image_copy *c);

/* Serves an open file (taken over) from the offset on, on a link whose first frame asked for it
 * (taken over). `gone` is the last call. */
struct image_serve *image_serve_new(uv_loop_t *loop, struct host_link *l, int fd, uint64_t size,
				    uint64_t offset, void (*gone)(void *arg), void *arg);
void image_serve_close(struct image_serve *s);
