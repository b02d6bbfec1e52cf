/* scheduler.h: which board runs which VM. Pure (STYLE "Pure inside"): the whole view goes in, the
 * commands that follow come out, and a sentence for every VM. It keeps nothing between calls, so
 * a new leader decides as the old one did.
 *
 * S3 lives here: a placement leaves a board only
 *   (a) after the board has said that it is released: it was told by a committed entry
 *       (VmPlacement.releasing), the process is gone, and it never starts that incarnation again;
 * or (b) after the latest time at which the board may still act (lease_table_end, margins included:
 *       a new leader therefore waits a whole lease, S4) and SCHEDULER_MARGIN_MS, within which a
 *       process whose deadline has passed is gone (hv/lease.h).
 * Both end in VmPlace, which the model refuses unless the incarnation is still the one seen here.
 *
 * S8: a board that is lost is made good within what the others have room for, higher priority
 * first; nothing that runs is stopped for it. While more than a third of the hosting boards, and
 * more than one, was lost within SCHEDULER_STORM_MS, only VMs that fit without overcommitting the
 * processors are placed. A board that is drained is missed by nobody.
 *
 * Room. Memory is never overcommitted: NodeHost.memory_mib is for VMs, each takes its memory and
 * SCHEDULER_OVERHEAD_MIB. One that is made smaller keeps its room until it is placed anew.
 * Processors may be shared by SCHEDULER_SHARE vCPUs for each core. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/limits.h"
#include "proto/command.pb-c.h"
#include "proto/peer.pb-c.h"

enum {
	SCHEDULER_MARGIN_MS = 100, /* a timer is late on a busy core, and threads have to stop */
	SCHEDULER_OVERHEAD_MIB = 2, /* a VM's process beyond the guest's memory, rounded up */
	SCHEDULER_SHARE = 4,
	SCHEDULER_STARTS = 2, /* VMs that begin on one board at the same time */
	SCHEDULER_WELL_MS = 600000, /* a VM that ran so long starts afresh with its failures */
	SCHEDULER_BEHIND_MS = 5000, /* a board whose model lags behind for so long gets no VMs */
	/* A board is given so long to get the images of a VM that was placed there. */
	SCHEDULER_IMAGES_MS = 10000,
	/* After so long a VM that failed wherever it could be is tried again: a bridge that was not
	 * there yet, or a card that was full, may be no trouble any more. */
	SCHEDULER_AGAIN_MS = 300000,
	SCHEDULER_STORM_MS = 600000, /* a board that is off for longer is no part of a storm */
};

/* A board of the model, as the leader sees it. */
struct scheduler_board {
	const Tb__Node *node; /* borrowed; node->host NULL: it has not said yet */
	bool reachable; /* the lease of its VMs is being renewed, its link is up */
	bool stands; /* it answers, but what runs its VMs does not; not reachable then */
	uint64_t behind_ms; /* lag_ms: for so long its model has not had what there was then */
	bool reported; /* its host has reported on this link */
	uint64_t end_ms; /* latest time at which it may still act, leader's boot clock */
};

struct scheduler_vm {
	const Tb__Vm *vm; /* borrowed */
	/* What the placement's board said of it in this incarnation; NULL: nothing. Its durations
	 * as of now, `problem` a sentence of at most LIMIT_MESSAGE bytes (text_tame). */
	const Tb__VmReport *report;
	uint64_t images; /* bit i: board i of the view holds all its images, whole */
	bool images_there; /* somebody does hold each of them */
};

struct scheduler_view {
	const struct scheduler_board *boards;
	size_t board_count;
	const struct scheduler_vm *vms; /* in any order */
	size_t vm_count;
	bool keep_room; /* Cluster.keep_room */
	/* Latest time at which a board that the model does not have any more may still act
	 * (lease_table_end of node 0). */
	uint64_t gone_end_ms;
};

struct scheduler_verdict {
	Tb__VmCondition condition;
	bool stuck; /* it is wanted, does not run, and nothing is under way: somebody should hear of
		       it */
	char reason[LIMIT_MESSAGE + 1]; /* "not placed: 3 boards, 2 lack memory, 1 is drained" */
};

struct scheduler_plan {
	Tb__Command **commands; /* id and time are left to the caller; owned */
	size_t count;
	struct scheduler_verdict *verdicts; /* one for each VM of the view, its order; owned */
	/* Bit i: a command takes VMs from board i because its lease is over. Board i is granted
	 * none until the command is applied: with a lease it would start by a model that still has
	 * them there. */
	uint64_t lost;
	char storm[LIMIT_MESSAGE + 1]; /* S8 holds something back, and why; empty: no */
	uint64_t
		due_ms; /* call again then at the latest; UINT64_MAX: only when something changes */
};

/* At most `max` commands; what is left comes with the next call. Free with scheduler_plan_free. */
void scheduler_decide(const struct scheduler_view *view, uint64_t now_ms, size_t max,
		      struct scheduler_plan *ret);
void scheduler_plan_free(struct scheduler_plan *p);

/* A person wants VM `vm` (its place in the view) on board `node`, or on any other one (0), for
 * which it is ended where it is: would it begin there at once, with all others where they are or
 * are to be? Its data disks are not looked at. 0, or -EINVAL with a sentence: "b3 is away". */
int scheduler_moves(const struct scheduler_view *view, size_t vm, uint64_t node, uint64_t now_ms,
		    char *ret_message, size_t message_size);

/* Admission, on the committed rows alone (apply.c asks, and so may a dry run). */
struct scheduler_room {
	const Tb__Node *const *nodes;
	size_t node_count;
	const Tb__Vm *const *vms; /* those wanted, without the one in question */
	size_t vm_count;
	bool keep_room;
};
/* Can this VM be run: is it smaller than some board, does a board have its bridges, are the boards
 * that it requires there; with keep_room: do all VMs still fit without any one board? 0, or
 * -EINVAL with the field and a sentence with the arithmetic. */
int scheduler_admit(const struct scheduler_room *room, const Tb__Vm *vm, char *ret_field,
		    size_t field_size, char *ret_message, size_t message_size);

/* Can the board have it now, by the rows alone (room->vms: all others that have a placement)? 0, or
 * -EINVAL with a sentence: "b2 has 512 MiB for virtual machines, ...". */
int scheduler_takes(const struct scheduler_room *room, const Tb__Node *node, const Tb__Vm *vm,
		    char *ret_message, size_t message_size);

/* Has the board on which the VM is memory and processors for it as `vm` says it is now? It may
 * begin anew there without being placed again. 0, or -EINVAL with the field and a sentence. */
int scheduler_holds(const struct scheduler_room *room, const Tb__Node *node, const Tb__Vm *vm,
		    char *ret_field, size_t field_size, char *ret_message, size_t message_size);

#ifdef TIEBREAK_SIM_FAULTS
/* Mistakes for the simulator to find; compiled only into its own build of the library. */
enum scheduler_fault {
	SCHEDULER_FAULT_NONE,
	SCHEDULER_FAULT_NO_MARGIN, /* moves when it has missed a renewal, before the lease's end */
	SCHEDULER_FAULT_PUNCTUAL, /* thinks that a process is gone at its deadline to the
				     millisecond */
	SCHEDULER_FAULT_NO_RELEASE, /* moves without waiting for the release */
	SCHEDULER_FAULT_GONE_IS_DEAD, /* moves what was on a board that was removed at once */
	SCHEDULER_FAULT_NO_PIN, /* takes a VM away from data disks that it has */
};
extern enum scheduler_fault scheduler_fault;
#define SCHEDULER_FAULTY(fault) (scheduler_fault == (fault))
#else
#define SCHEDULER_FAULTY(fault) false
#endif
