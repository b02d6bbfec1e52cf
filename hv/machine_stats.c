#include "hv/machine_stats.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hv/kvm.h"
#include "hv/virtio/balloon.h"
#include "hv/virtio/blk.h"
#include "hv/virtio/console.h"
#include "hv/virtio/input.h"
#include "hv/virtio/net.h"
#include "hv/virtio/rng.h"
#include "hv/virtio/vsock.h"

void machine_stats_open(struct machine_stats *s, const struct machine *m, int statm)
{
	*s = (struct machine_stats){.machine = m, .vm = -1, .statm = statm};
	(void)kvm_stats_open(m->vm, &s->vm);
	for (unsigned i = 0; i < m->vcpus.count; i++) {
		s->vcpu[i] = s->schedstat[i] = -1;
		(void)kvm_stats_open(m->vcpus.vcpu[i].fd, &s->vcpu[i]);
	}
}

void machine_stats_open_threads(struct machine_stats *s, int tasks)
{
	for (unsigned i = 0; i < s->machine->vcpus.count; i++) {
		char path[32];

		snprintf(path, sizeof(path), "%d/schedstat", (int)s->machine->vcpus.vcpu[i].task);
		s->schedstat[i] = openat(tasks, path, O_RDONLY | O_CLOEXEC);
	}
}

static void fd_close(int fd)
{
	if (fd >= 0) {
		close(fd);
	}
}

void machine_stats_close(struct machine_stats *s)
{
	fd_close(s->statm);
	fd_close(s->vm);
	for (unsigned i = 0; s->machine != NULL && i < s->machine->vcpus.count; i++) {
		fd_close(s->vcpu[i]);
		fd_close(s->schedstat[i]);
	}
	*s = (struct machine_stats){.vm = -1, .statm = -1};
}

/* Written by the vCPUs' threads meanwhile: each number is one store. */
static void exits_list(const struct vcpus *v, const struct stats_sink *sink)
{
	struct vcpu_counters sum = {0};

	for (unsigned i = 0; i < v->count; i++) {
		const struct vcpu_counters *c = &v->vcpu[i].counters;

		sum.mmio += __atomic_load_n(&c->mmio, __ATOMIC_RELAXED);
		sum.unclaimed += __atomic_load_n(&c->unclaimed, __ATOMIC_RELAXED);
		sum.hypercalls += __atomic_load_n(&c->hypercalls, __ATOMIC_RELAXED);
		sum.system += __atomic_load_n(&c->system, __ATOMIC_RELAXED);
		sum.kicks += __atomic_load_n(&c->kicks, __ATOMIC_RELAXED);
		sum.other += __atomic_load_n(&c->other, __ATOMIC_RELAXED);
	}
	sink->add(sink->arg, "exits", "mmio", sum.mmio, false);
	sink->add(sink->arg, "exits", "unclaimed", sum.unclaimed, false);
	sink->add(sink->arg, "exits", "hypercalls", sum.hypercalls, false);
	sink->add(sink->arg, "exits", "system", sum.system, false);
	sink->add(sink->arg, "exits", "kicks", sum.kicks, false);
	sink->add(sink->arg, "exits", "other", sum.other, false);
}

static void steal_list(const struct machine_stats *s, const struct stats_sink *sink)
{
	for (unsigned i = 0; i < s->machine->vcpus.count; i++) {
		char part[16];
		uint64_t ns;

		snprintf(part, sizeof(part), "vcpu%u", i);
		if (stats_run_delay(s->schedstat[i], &ns) == 0) {
			sink->add(sink->arg, part, "steal-ns", ns, false);
		}
	}
}

static void devices_list(const struct machine *m, const struct stats_sink *sink)
{
	for (size_t i = 0; i < sizeof(m->blk) / sizeof(m->blk[0]) && m->blk[i] != NULL; i++) {
		blk_stats(m->blk[i], sink);
	}
	for (size_t i = 0; i < sizeof(m->net) / sizeof(m->net[0]) && m->net[i] != NULL; i++) {
		net_stats(m->net[i], sink);
	}
	if (m->console != NULL) {
		vconsole_stats(m->console, sink);
	}
	if (m->rng != NULL) {
		vrng_stats(m->rng, sink);
	}
	if (m->balloon != NULL) {
		balloon_stats(m->balloon, sink);
	}
	if (m->button != NULL) {
		vinput_stats(m->button, sink);
	}
	if (m->vsock != NULL) {
		vsock_stats(m->vsock, sink);
	}
}

void machine_stats_list(const struct machine_stats *s, struct stats_list *ret)
{
	const struct machine *m = s->machine;
	struct stats_sink sink;

	stats_list_init(ret);
	sink = stats_list_sink(ret);
	sink.add(sink.arg, "memory", "guest-bytes", m->ram.size, true);
	(void)stats_memory(s->statm, &sink);
	exits_list(&m->vcpus, &sink);
	steal_list(s, &sink);
	devices_list(m, &sink);
	(void)stats_kvm(s->vm, "vm", &sink);
	ret->sum_from = ret->message.n_counters;
	for (unsigned i = 0; i < m->vcpus.count; i++) {
		(void)stats_kvm(s->vcpu[i], "vcpu", &sink);
	}
	ret->sum_from = SIZE_MAX;
}
