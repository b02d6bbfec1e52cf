/* machine_stats.h: all counters of a running VM: its devices', its vCPUs', the kernel's, its
 * memory. */
#pragma once
#include "hv/layout.h"
#include "hv/machine.h"
#include "hv/stats.h"

struct machine_stats {
	const struct machine *machine;
	int vm, vcpu[LAYOUT_VCPUS_MAX]; /* the kernel's statistics; -1: it keeps none */
	int schedstat[LAYOUT_VCPUS_MAX]; /* of the vCPUs' threads; -1 likewise */
	int statm;
};

/* Opens what is read later; the descriptor of /proc/self/statm (or -1) was opened before the
 * sandbox and is taken over. Never fails: what the kernel does not keep is not told. */
void machine_stats_open(struct machine_stats *s, const struct machine *m, int statm);
/* The same of the vCPUs' threads, when vcpus_start has made them. `tasks`: /proc/self/task (or -1),
 * opened before the sandbox; stays the caller's. */
void machine_stats_open_threads(struct machine_stats *s, int tasks);
void machine_stats_close(struct machine_stats *s);
/* With the device lock. */
void machine_stats_list(const struct machine_stats *s, struct stats_list *ret);
