/* vcpu.h: the virtual processors: one thread each, parked together at one place.
 *
 *   CREATED -> RUNNING <-> PARKED -> ... -> ENDED
 *
 * Nobody touches a vCPU's registers unless all are parked (vcpus_park returned). A parked vCPU has
 * finished its last trapped access (KVM completes a read at the next KVM_RUN: it was re-entered
 * once with immediate_exit set). */
#pragma once
#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "hv/bus.h"
#include "hv/fault.h"
#include "hv/layout.h"
#include "hv/loop.h"
#include "hv/tree.h"

enum vcpu_event {
	VCPU_EVENT_NONE,
	VCPU_EVENT_POWEROFF, /* PSCI SYSTEM_OFF */
	VCPU_EVENT_RESET, /* PSCI SYSTEM_RESET */
	VCPU_EVENT_CRASH, /* KVM says crash, or an access it cannot describe */
	VCPU_EVENT_ERROR, /* KVM_RUN failed */
};

struct vcpu_counters {
	uint64_t mmio, hypercalls, system, kicks, other, unclaimed;
};

struct vcpu {
	unsigned index;
	int fd;
	struct kvm_run *run; /* shared page */
	pthread_t thread;
	pid_t task; /* the kernel's number of it; known when vcpus_start has returned */
	struct vcpus *all;
	const struct bus_device *busy; /* it waits until this one's write is done; or NULL */
	struct vcpu_counters counters; /* written by its own thread only */
};

struct vcpus {
	struct vcpu vcpu[LAYOUT_VCPUS_MAX];
	unsigned count;
	size_t run_size;
	struct kvm_vcpu_init init; /* target and features, without POWER_OFF */
	const struct bus *bus;
	struct loop *loop; /* for the device lock */
	pthread_mutex_t gate_lock;
	pthread_cond_t gate_changed;
	bool park; /* vCPUs are to stop at the gate; under gate_lock, as all below */
	bool ending;
	unsigned threads; /* that were made */
	unsigned parked; /* threads that wait at the gate, or work there */
	void (*work)(void *arg); /* for one that waits; NULL: none */
	void *work_arg;
	/* First system event since the last reset; told once through event_fd. */
	enum vcpu_event event;
	char event_text[160];
	int event_fd; /* eventfd, owned */
};

/* Creates `count` vCPUs with the features the host has (PSCI always, PMU if wanted); not
 * initialised yet: vcpus_init. */
int vcpus_create(int kvm, int vm, unsigned count, bool pmu, const struct bus *bus,
		 struct loop *loop, struct vcpus *ret, struct fault *fault);
/* KVM_ARM_VCPU_INIT of all with the same features: power-on state; all but the first are off
 * (unless `restoring`). All parked or not started. */
int vcpus_init(struct vcpus *v, bool restoring, struct fault *fault);
/* What needs the interrupt controller: PMU interrupt, stolen time at guest address `stolen` (0:
 * none). */
int vcpus_attach(struct vcpus *v, uint64_t stolen, struct fault *fault);
/* Can the kernel tell the guest how long it was kept from running? */
bool vcpus_have_stolen_time(const struct vcpus *v);
/* /cpus, /psci, /timer and, where there is one, /pmu. */
void vcpus_tree(const struct vcpus *v, unsigned gic_version, struct tree *t);
/* Registers of the boot protocol (Documentation/arm64/booting.rst). */
int vcpus_set_entry(struct vcpus *v, uint64_t pc, uint64_t x0);
/* Makes the threads; they wait at the gate when this returns. Before the sandbox is sealed. */
int vcpus_start(struct vcpus *v, struct fault *fault);
/* All threads are at the gate when this returns. Not from a vCPU thread; without the device lock,
 * which a vCPU may be waiting for. */
void vcpus_park(struct vcpus *v);
void vcpus_release(struct vcpus *v);
/* One of the parked threads, which have nothing else to do, calls `work`. Once per park; they stay
 * parked until it has returned, and are not released, parked again or ended before it says that it
 * is done. */
void vcpus_work(struct vcpus *v, void (*work)(void *arg), void *arg);
/* Ends and joins the threads, closes all. */
void vcpus_close(struct vcpus *v);
/* Takes the event that event_fd told; NONE if none. `text` for people, stays valid until the next.
 */
enum vcpu_event vcpus_take_event(struct vcpus *v, const char **text);
