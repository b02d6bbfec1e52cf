/* machine_stats.h: all counters of a running VM: its devices', its vCPUs', the kernel's, its
 * memory. */
#pragma once
#include "hv/layout.h"
#include "hv/machine.h"
#include "hv/stats.h"

struct machine_stats {
	const struct machine *machine;
	int vm, vcpu[LAYOUT_VCPUS_MAX]; /* the kernel's statistics; -1: it keeps none */
	int statm;
};

/* Opens what is read later; the descriptor of /proc/self/statm (or -1) was opened before the
 * sandbox and is taken over. Never fails: what the kernel does not keep is not told. */
void machine_stats_open(struct machine_stats *s, const struct machine *m, int statm);
void machine_stats_close(struct machine_stats *s);
/* With the device lock. */
void machine_stats_list(const struct machine_stats *s, struct stats_list *ret);
