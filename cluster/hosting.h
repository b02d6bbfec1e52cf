/* hosting.h: what a board does with the placements that its model shows, and with its VMs'
 * processes (DESIGN S2, S3). Pure: events and `now` in, actions out; witnessd/host.c does them.
 *
 * A VM is started only while all of these hold:
 * - the board's lease is valid, and the process is given that very deadline;
 * - the model is as new as the leader's was at the last lease grant of this link (`fence`): an old
 *   model would show a placement that has moved on while this board was away;
 * - the placement names this board and is not being released;
 * - the model knows that its data disks are made (VmPlacement.home_disks): from the guest's first
 *   write on, a disk that is not there is missing, and not one that is still to be made;
 * - no process of this VM is there, and HOSTING_QUIET_MS have passed since the daemon's start: a
 *   process that a daemon of before has left behind has reached its deadline by then.
 * A process is ended when its placement is released, gone, or of another incarnation, and when the
 * lease is over (its own deadline does that too, whatever hangs here).
 *
 * `released` is said only of an incarnation that the model shows as releasing, when no process is
 * left, also none of a daemon of before (HOSTING_QUIET_MS); from there the model itself keeps this
 * board from starting it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/limits.h"
#include "proto/model.pb-c.h"
#include "proto/peer.pb-c.h"

enum {
	HOSTING_QUIET_MS = LEASE_LENGTH_MS,
	HOSTING_BUTTON_MS = 30000, /* from the power button to force */
	HOSTING_RENEW_MS = 500, /* a process is told when its deadline has moved on by so much */
	/* A renewal told so long before the deadline that ended a process would have been taken. */
	HOSTING_DEAF_MS = 1000,
	HOSTING_START_MIN_MS = 1000, /* a lease shorter than this starts nothing: renewed in time */
	HOSTING_BACKOFF_MAX_MS = 300000,
	HOSTING_WELL_MS = 60000, /* a VM that ran so long starts afresh with its attempts */
};

struct hosting;

struct hosting *hosting_new(uint64_t node, uint64_t now_ms);
void hosting_free(struct hosting *h);

/* The lease of this board on its own boot clock; 0: none. */
void hosting_lease(struct hosting *h, uint64_t until_ms, uint64_t now_ms);
/* There is a new link to a leader, or this board leads: what it applied must reach `index` before
 * anything is started. UINT64_MAX: not known yet. */
void hosting_fence(struct hosting *h, uint64_t index, uint64_t now_ms);
/* The model up to `applied`: all VMs that it places on this board (placement.node). Borrowed. */
void hosting_model(struct hosting *h, uint64_t applied, const Tb__Vm *const *vms, size_t count,
		   uint64_t now_ms);

/* What became of an action. News of a process or of preparations that nobody waits for any more are
 * ignored; `problem` may be NULL. */
enum hosting_news {
	HOSTING_PREPARED, /* images, disks and taps are there */
	HOSTING_NOT_PREPARED, /* `problem` says why; tried again with back-off */
	HOSTING_RUNS, /* its guest runs */
	HOSTING_REFUSED, /* the process did not start the VM; `problem`. It is gone. */
	HOSTING_OFF, /* the process is gone: its guest powered off */
	HOSTING_FAILED, /* the process is gone otherwise; `problem` */
};
void hosting_process(struct hosting *h, uint64_t vm, uint64_t incarnation, enum hosting_news news,
		     const char *problem, uint64_t now_ms);

/* The process has said that this deadline is its own now. Of a renewal that it has not answered
 * nobody knows whether it was taken. */
void hosting_renewed(struct hosting *h, uint64_t vm, uint64_t incarnation, uint64_t until_ms,
		     uint64_t now_ms);
/* A process that is gone at `now` otherwise than by its guest's own wish: was it its deadline that
 * ended it, and no failure? */
bool hosting_lapsed(const struct hosting *h, uint64_t vm, uint64_t incarnation, uint64_t now_ms);
/* Or was it its deadline because it took no renewal, and a failure? */
bool hosting_deaf(const struct hosting *h, uint64_t vm, uint64_t incarnation, uint64_t now_ms);

/* Does what is due; when to call again (UINT64_MAX: only on an event). */
uint64_t hosting_tick(struct hosting *h, uint64_t now_ms);

enum hosting_verb {
	HOSTING_PREPARE, /* the Vm is that of the newest model */
	HOSTING_START, /* with this deadline */
	HOSTING_RENEW, /* tell it this deadline; it may be gone, and the news on the way */
	HOSTING_BUTTON,
	HOSTING_KILL, /* SIGKILL; HOSTING_OFF or _FAILED follows when it was waited for */
	/* Its overlays and taps may go: the placement has left this board. A PREPARE that is still
	 * under way is given up. */
	HOSTING_DISCARD,
};
struct hosting_action {
	enum hosting_verb verb;
	uint64_t vm;
	uint64_t incarnation;
	uint64_t deadline_ms;
};
/* The next one, in the order made; false: none. */
bool hosting_next(struct hosting *h, struct hosting_action *ret);

/* What the leader is told: one for each placement and each process. The messages and the array are
 * the caller's. `changed` false: as at the last call. */
size_t hosting_report(struct hosting *h, Tb__VmReport ***ret, uint64_t now_ms);
bool hosting_changed(const struct hosting *h);

#ifdef TIEBREAK_SIM_FAULTS
/* Mistakes for the simulator to find; compiled only into its own build of the library. */
enum hosting_fault {
	HOSTING_FAULT_NONE,
	HOSTING_FAULT_NO_FENCE, /* starts by an old model */
	HOSTING_FAULT_EARLY_RELEASE, /* says released while the process is still there */
	HOSTING_FAULT_NO_QUIET, /* or while one of a daemon of before may be */
	HOSTING_FAULT_UNKNOWN_DISKS, /* starts before the model knows of its data disks */
};
extern enum hosting_fault hosting_fault;
#define HOSTING_FAULTY(fault) (hosting_fault == (fault))
#else
#define HOSTING_FAULTY(fault) false
#endif
