/* vm_process.h: one witness-vm process: started in its supervised form (proto/hv.proto, VmStart),
 * renewed, asked to end, ended by force, waited for. On a loop.
 *
 *        start                 "it runs"                button, stop
 *   ------------> STARTING ----------------> RUNNING -----------------> (ends by itself)
 *                     |                         |                            |
 *                     +---- refuses, dies ------+---- deadline, crash -------+--> ended: waited for
 *
 * It is gone no later than its deadline, whatever hangs here or there (hv/lease.h). It ends at once
 * with its control connection and with the thread that started it (VmStart.with_parent), so that
 * thread lives as long as the daemon. What it says is read as hostile: the guest may own it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "lib/buf.h"
#include "proto/hv.pb-c.h"
#include "witnessd/problem.h"

enum {
	VM_PROCESS_FDS_MAX = 32,
	VM_PROCESS_REPLY_MAX = 64 << 10, /* bytes of one reply */
	VM_PROCESS_LATE_MS =
		500, /* an answer to a renewal that takes longer is late, once it runs */
};

struct vm_process;

enum vm_process_end {
	VM_PROCESS_REFUSED, /* it never ran */
	VM_PROCESS_OFF, /* the guest powered off, or was stopped by request */
	VM_PROCESS_FAILED,
};

struct vm_process_events {
	/* The guest runs. */
	void (*started)(void *arg);
	/* The power button does nothing for this guest; `why` is a sentence. */
	void (*no_button)(void *arg, const char *why);
	/* It has taken this deadline. May be NULL. */
	void (*renewed)(void *arg, uint64_t until_ms);
	/* An answer to a renewal took longer than VM_PROCESS_LATE_MS. */
	void (*late)(void *arg, uint64_t ms);
	/* It is gone and was waited for: the last call, the process is freed behind it. */
	void (*ended)(void *arg, enum vm_process_end end, const char *why);
};

struct vm_process_start {
	uv_loop_t *loop;
	const char *program; /* path of witness-vm */
	const Tb__VmSpec *spec;
	/* By their names in VmStart; the caller's, and may be closed after the start. */
	const char *names[VM_PROCESS_FDS_MAX];
	int fds[VM_PROCESS_FDS_MAX];
	size_t count;
	uint64_t deadline_ms; /* boot clock */
	const struct vm_process_events *events;
	void *arg;
};

/* 0: the process is there, and `ended` comes in any case. Or negative errno and a sentence: there
 * is none. */
int vm_process_start(const struct vm_process_start *how, struct vm_process **ret,
		     struct problem *problem);
pid_t vm_process_pid(const struct vm_process *p);
/* The deadline has moved to `until_ms` of the boot clock; the newest word wins. Also while it
 * starts, which may last longer than the lease. */
void vm_process_renew(struct vm_process *p, uint64_t until_ms);
/* Asks the guest to shut down. */
void vm_process_button(struct vm_process *p);
/* Ends the VM at once, with its disks' requests finished. */
void vm_process_stop(struct vm_process *p);
/* SIGKILL. */
void vm_process_kill(struct vm_process *p);

/* Reads `program` once, so that a start after this does not wait for the card: the thread that
 * starts is held up until the kernel has the new program, and with it the renewals of all VMs.
 * Blocks: not in a loop. The bytes read, or negative errno. */
int64_t vm_process_warm(const char *program);

/* Runs `program` with `args` (NULL-terminated, the name first) until it ends or `timeout_ms` are
 * over (it is killed then), and gives what it printed, at most `max` bytes. Blocks: not in a loop.
 * 0 and *ret_status as of waitpid; -ETIMEDOUT, -EMSGSIZE or of the start. */
int vm_process_ask(const char *program, char *const args[], unsigned timeout_ms, size_t max,
		   struct buf *ret_text, int *ret_status);
