/* host.h: the thread that runs this board's VMs and keeps its images. It does what
 * cluster/hosting.h decides: processes (vm_process.h), disks (vm_disk.h), networks (vm_net.h),
 * consoles (console.h), the image store (image_store.h), and the links to other boards' hosts
 * (proto/host.proto). A process of a VM outlives neither its lease nor this daemon.
 *
 *   core thread  --model_changed, lease, fence-->  host thread  --report-->  core thread --> leader
 *   front thread --uploads, consoles---------->    own model reader
 *
 * Every function may be called from any thread after host_start; answers come as a letter to the
 * `home` mailbox of the caller. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "lib/buf.h"
#include "proto/host.pb-c.h"
#include "proto/model.pb-c.h"
#include "proto/peer.pb-c.h"
#include "witnessd/mailbox.h"

struct config;
struct core;
struct front;
struct host;

/* After core_new and front_start, before core_start. A board that cannot host has one too: it keeps
 * images and says why not. 0; other: *ret_message says what is wrong, where, and the remedy. */
int host_start(const struct config *config, struct core *core, struct front *front,
	       struct host **ret, const char **ret_message);
/* Before core_stop, so that the lease is still renewed: ends all VMs (power button, then force) and
 * the thread. What is called after it does nothing. */
void host_stop(struct host *h);
/* After front_stop: nobody calls in any more. NULL is fine. */
void host_free(struct host *h);

/* --- from the core's thread --- */
void host_model_changed(struct host *h, uint64_t applied_index);
/* The board entered a cluster, or its model database is another one. */
void host_identity_changed(struct host *h);
/* until_ms: of the board's lease on the boot clock, 0: none. fence: see hosting_fence. */
void host_lease(struct host *h, uint64_t until_ms, uint64_t fence);
/* Since when (boot clock) the host's thread has not taken what host_lease told it; 0: it has, or
 * the host is stopped. A thread that hangs takes nothing, and renews no VM. */
uint64_t host_waits_ms(struct host *h);
/* A new leader or a new link to it: report whole. */
void host_report(struct host *h);

/* --- from the front's thread --- */
/* A link of another board's host; the fd is the plain end, taken over. */
void host_link_accepted(struct host *h, uint64_t node, int fd);
/* The answer to front_host_dial: a plain end, taken over, or a negative errno. */
void host_link_dialed(struct host *h, uint64_t dial_id, int fd_or_error);

/* --- images, from the front's thread (image_store.h has the rules) --- */

/* error 0: `have` bytes of the upload are on this board's disk, synced when it is whole; done: it
 * is whole, its SHA-256 is right and it is in the store. Otherwise `message` says what and the
 * remedy; it is valid during the call. */
typedef void (*host_uploaded)(void *arg, int error, const char *message, uint64_t have, bool done);
/* Bytes at `offset` of the image; must be where the upload stands (-ERANGE otherwise, `have` says
 * where). `bytes` are copied. len 0: only asks where it stands. */
void host_upload(struct host *h, struct mailbox *home, const char *sha256, uint64_t size,
		 uint64_t offset, const void *bytes, size_t len, host_uploaded done, void *arg);

/* --- consoles, from the front's thread --- */

/* A console that somebody looks at. */
struct host_console;
/* Bytes that the guest printed, in order; after each call none comes before host_console_next. len
 * 0: the console is open (`why` NULL; the first call); or it is over and `why` says why, "" for the
 * end of what there is (the last call). */
typedef void (*host_console_bytes)(void *arg, const void *bytes, size_t len, const char *why);
/* Opens the console of a VM on whichever board it runs, up to `replay` bytes back; without `follow`
 * it is over with what there is now. `bytes` is called in the thread of `home`, until it is over or
 * host_console_close. */
struct host_console *host_console_open(struct host *h, struct mailbox *home, uint64_t vm,
				       uint32_t replay, bool follow, host_console_bytes bytes,
				       void *arg);
void host_console_next(struct host_console *c);
/* Keys, copied; dropped if the guest does not take them. */
void host_console_write(struct host_console *c, const void *bytes, size_t len);
/* Owed for each one opened, in the thread of its home. */
void host_console_close(struct host_console *c);

/* For metrics_collect. */
void host_metrics(void *host, bool open, struct buf *out);
