/* stats.h: how parts of a VM tell their counters, and the list they make. Names are "part.what"
 * ("blk0.read-bytes"). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/hv.pb-c.h"

struct stats_sink {
	/* A gauge may fall; a counter only grows. */
	void (*add)(void *arg, const char *part, const char *what, uint64_t value, bool gauge);
	void *arg;
};

/* A VmStats that grows. Zeroed is not empty: stats_list_init. */
struct stats_list {
	Tb__VmStats message;
	size_t cap;
	/* Names from this place on are summed when they come again: one number for all vCPUs.
	 * SIZE_MAX: none are. */
	size_t sum_from;
};

void stats_list_init(struct stats_list *l);
void stats_list_free(struct stats_list *l);
/* What is told to it is added to the list, which outlives it. */
struct stats_sink stats_list_sink(struct stats_list *l);

/* Counters that the kernel keeps of a VM or vCPU, read from a KVM_GET_STATS_FD descriptor (KVM API
 * 4.133); histograms are left out. 0; negative errno or -EBADMSG for what cannot be read as such.
 */
int stats_kvm(int fd, const char *part, const struct stats_sink *sink);
/* Memory of this process from an open /proc/self/statm (proc(5)): what of it is resident now, guest
 * and all, and what of that is shared with others (a memfd, a snapshot's file). */
int stats_memory(int statm, const struct stats_sink *sink);
/* How long a thread of this process was ready to run and had no core, in all, from an open
 * /proc/self/task/ID/schedstat (proc(5), Documentation/scheduler/sched-stats.rst). What KVM tells
 * the guest as stolen time is the same number; where it does the guest can write. 0 and *ret_ns;
 * negative errno or -EBADMSG. */
int stats_run_delay(int schedstat, uint64_t *ret_ns);
