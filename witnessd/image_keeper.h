/* image_keeper.h: keeps this board's images as the model lists them: takes uploads, fetches what
 * is missing or damaged from other boards, checks what is there, drops what is no longer listed.
 * Part of the host (host.h), on its loop; hashing and the disk are done by libuv's workers, one
 * piece at a time, so that neither the loop nor an upload waits for a check.
 *
 *   model: list of images --+                     +--> rows for HostReport
 *   uploads (front) --------+--> image_keeper ----+--> open files for VMs
 *   other boards' hosts ----+    image_store      +--> dial other boards (image_copy)
 *
 * An image is given to a VM only when its whole SHA-256 was found right since this daemon began
 * (or was recorded so since the board's boot) in the very file: inode, size, and time of change. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "proto/host.pb-c.h"
#include "proto/model.pb-c.h"
#include "proto/peer.pb-c.h"
#include "witnessd/host_link.h"

struct image_keeper;

enum {
	IMAGE_COPIES_MAX = 2, /* fetched at the same time */
	IMAGE_SERVES_MAX = 8, /* links of other boards served at the same time */
	IMAGE_GRACE_MS = 60000, /* an image that left the model is kept so long */
	IMAGE_UPLOAD_MAX = 4 << 20, /* bytes of one image_keeper_upload */
};

struct image_keeper_config {
	uv_loop_t *loop;
	const char *data_dir; /* images/ and incoming/ are made in it */
	const char *run_dir; /* what was checked since the boot is remembered here; NULL: nowhere */
	uint64_t space; /* bytes that images may take; 0: what the card has, less a reserve */
	void *arg;
	/* Make a link (ALPN tiebreak-host/1) to the board; answered by image_keeper_dialed. */
	void (*dial)(void *arg, uint64_t dial_id, uint64_t node);
	/* The rows are not as they were, or image_keeper_file may answer otherwise now. */
	void (*changed)(void *arg);
};

/* 0; other: *ret_message says what is wrong, where, and the remedy. Strings are copied. */
int image_keeper_new(const struct image_keeper_config *config, struct image_keeper **ret,
		     const char **ret_message);
/* Ends links and copies, lets the workers' pieces in hand end, frees; then `closed`. NULL config
 * callbacks are called no more from here on. */
void image_keeper_close(struct image_keeper *k, void (*closed)(void *arg), void *arg);

/* What the model says now: its images, the other boards, and whether this one hosts VMs (if not, it
 * keeps what it has, and fetches nothing). All borrowed for the call. */
struct image_keeper_model {
	const Tb__Image *const *images;
	size_t image_count;
	const uint64_t *boards; /* the others; those that host first */
	size_t board_count;
	bool hosts;
	/* It is as new as the leader's (hosting_fence): what it does not list may be dropped. A
	 * board that starts alone reads an empty model, or one of long ago. */
	bool newest;
};
void image_keeper_model(struct image_keeper *k, const struct image_keeper_model *m);
/* Tries again what failed, drops what is due. The keeper has a timer of its own; tests call it. */
void image_keeper_tick(struct image_keeper *k, uint64_t now_ms);

/* Rows for HostReport.images, whole; the messages and the array are the caller's. */
size_t image_keeper_report(struct image_keeper *k, Tb__ImageReport ***ret);

/* For a VM: an open read-only file of the image, the caller's. -EAGAIN: not here yet (copying, or
 * being checked: it is checked first then); `changed` tells when to ask again. -ENOENT: the model
 * has no such image. `ret_problem` says what it waits for, in one sentence, except with 0. */
int image_keeper_file(struct image_keeper *k, const char *sha256, int *ret_fd, char *ret_problem,
		      size_t problem_size);

/* host_upload (host.h), on this thread. `done` may be called before this returns. Who names another
 * size than what is here has is refused with -EEXIST; who sends nothing only asks: neither changes
 * anything. */
typedef void (*image_keeper_uploaded)(void *arg, int error, const char *message, uint64_t have,
				      bool done);
void image_keeper_upload(struct image_keeper *k, const char *sha256, uint64_t size, uint64_t offset,
			 const void *bytes, size_t len, image_keeper_uploaded done, void *arg);

/* The answer to `dial`: a plain end, taken over, or a negative errno. */
void image_keeper_dialed(struct image_keeper *k, uint64_t dial_id, int fd_or_error);
/* Another board's link whose first frame is this; taken over. */
void image_keeper_serve(struct image_keeper *k, struct host_link *l, const Tb__ImageGet *get);
