/* blk.h: virtio block device (virtio 1.2, 5.2) over a raw file or a block device of the host.
 *
 * A flush is acknowledged after fdatasync returned, never before; without the flush feature every
 * write is stable before it is acknowledged. What the host cannot do (no space, broken disk, disk
 * shrunk under us) is an I/O error of that one request. Requests that are out of range, misaligned
 * or not allowed get an error status; only a chain without room for a status needs a reset.
 *
 * The host's work is done by io_uring where the kernel lets us, else by one thread (blk_host.h).
 * Both are made in blk_create, before the sandbox. */
#pragma once
#include <stdbool.h>

#include "hv/fault.h"
#include "hv/loop.h"
#include "hv/ram.h"
#include "hv/stats.h"
#include "hv/virtio/virtio.h"

struct blk;

struct blk_config {
	int fd; /* the caller's, open for as long as the device lives; for writing unless read_only
		 */
	bool read_only;
	bool direct; /* past the host's page cache: O_DIRECT is set on the descriptor */
	const char *id; /* serial number for the guest, at most 20 bytes are shown; NULL or "": the
			   name */
	bool force_threads; /* do not try io_uring */
};

/* 0; or a negative errno and one sentence: -EINVAL size not a multiple of 512, not a file or block
 * device, O_DIRECT impossible there; -EACCES descriptor not open for what is asked. */
int blk_create(const struct blk_config *c, const struct ram *ram, struct loop *loop,
	       const char *name, struct blk **ret, struct fault *f);
/* NULL is allowed. Waits for requests in flight. Without the device lock, loop not running. */
void blk_destroy(struct blk *b);
struct virtio *blk_virtio(struct blk *b);
/* "io_uring" or "threads". */
const char *blk_engine(const struct blk *b);
void blk_stats(const struct blk *b, const struct stats_sink *s);
