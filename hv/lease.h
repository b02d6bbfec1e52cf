/* lease.h: until when this VM may run (safety rule S2: past it the process is gone, whatever
 * hangs).
 *
 * The deadline is a kernel timer on CLOCK_BOOTTIME whose expiry sends SIGKILL to this process.
 * Nothing of ours has to run for it, and nothing can hold it up: not a spinning vCPU, a hanging
 * disk, a stopped process (SIGSTOP, ptrace, a cgroup freezer) or a board that was suspended (the
 * timer has then expired, and no thread reaches user space or the guest before the signal). Within
 * 100 ms nothing of it runs any more (tests/boards/test_process.py). What may outlast it is a
 * thread inside an uninterruptible wait of the kernel, with requests that were sent to the disk
 * before: no vCPU runs, nothing new is sent. Those late writes are what the disk's own incarnation
 * fence is for.
 *
 * Rules:
 * - Once armed, the deadline can only be moved, never taken off.
 * - The last word counts, also when it is earlier than the one before: who gives time may take it
 * back, and ending too early is the safe mistake. Words cannot overtake each other, they come on
 * one stream.
 * - The giver names a point in time (the same board, so the same clock). "For so long from now"
 * would be counted from when this process got to read it, and a process that was frozen meanwhile
 * would live longer than its board's lease; it is only for people.
 * - A deadline that has passed, or a length of zero, ends the process before the call returns.
 *
 * It is kept against a process that hangs, not against one that a guest has taken over: the timer
 * has to be moved after the sandbox is closed, so timer_settime is on its list, and the kernel
 * knows no "not later than". Such a process can live on, confined as it is; what is left is the
 * SIGKILL of whoever started it (docs/decisions/0007-vm-sandbox.md). */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct lease {
	timer_t timer;
	bool armed;
	uint64_t until_ms; /* boot time; valid while armed */
};

/* Makes the timer, not armed. The signal goes to the process that calls this, not to its children.
 * 0 or negative errno; -EPERM for the first process of a PID namespace, which nothing inside can
 * kill. */
int lease_init(struct lease *l);
/* Ends at this boot time (clock_boottime_ms). 0; -ERANGE: over SPEC_LEASE_MAX_MS away, nothing
 * changed. */
int lease_until(struct lease *l, uint64_t until_ms);
/* Ends so long from now. -ERANGE as above. */
int lease_for(struct lease *l, uint64_t length_ms);
/* As lease_for, but never later than the deadline that is there: for an end that must not hang. */
void lease_shorten(struct lease *l, uint64_t length_ms);
/* Milliseconds left at boot time `now_ms`; -1: no lease. */
int64_t lease_left_ms(const struct lease *l, uint64_t now_ms);
