/* floor.c: runs on a board: what a restore asks of KVM and nothing else, for tests/bench/hv.py.
 *
 *   floor STATE MEMORY [USER]
 *
 * Makes a VM with one memory slot, the vCPUs and the interrupt controller of the snapshot, reads
 * the registers of the host's class, sets all state that there is, and runs the first vCPU. No
 * spec, devices, doors or threads, and files are opened and parsed before the clock is read. With
 * USER, a number, all this is done as a VM of witness-vm does it: in its sandbox, which is made
 * after the clock was read. The calls are witness-vm's own functions for them.
 *
 * Says `FLOOR begin=SECONDS`, of CLOCK_MONOTONIC; the kernel's trace has the first entry into the
 * guest. A tenth of a second later it ends. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "hv/class.h"
#include "hv/gic_state.h"
#include "hv/host_class.h"
#include "hv/kvm.h"
#include "hv/ram.h"
#include "hv/sandbox.h"
#include "hv/state_file.h"
#include "hv/vcpu_state.h"

struct floor {
	int kvm, vm, memory;
	Tb__VmSnapshot *saved;
	struct host_class class;
	struct ram ram;
	struct bus bus;
	struct loop loop;
	struct vcpus vcpus;
	struct gic gic;
	Tb__SandboxSpec sandbox; /* uid 0: none */
	struct sandbox layers;
};

static void must(int rv, const char *what, const struct fault *fault)
{
	if (rv < 0) {
		fprintf(stderr, "floor: %s: %s %s\n", what, strerror(-rv), fault->text);
		exit(1);
	}
}

static void files_open(struct floor *f, char **argv, struct fault *fault)
{
	int state = open(argv[1], O_RDONLY | O_CLOEXEC);

	f->memory = open(argv[2], O_RDONLY | O_CLOEXEC);
	must(state < 0 || f->memory < 0 ? -1 : 0, "the snapshot", fault);
	must(state_file_read(state, &f->saved, fault), "the state", fault);
	must(class_unpack(f->saved->host_class, &f->class) ? 0 : -1, "the class", fault);
	must(kvm_open("/dev/kvm", &f->kvm, fault), "KVM", fault);
}

static void machine_make(struct floor *f, struct fault *fault)
{
	const Tb__VmHardware *h = f->saved->hardware;
	unsigned count = h->vcpus;

	must(kvm_vm_create(f->kvm, 32, &f->vm), "a VM", fault);
	must(ram_map_file(f->memory, h->memory_bytes, &f->ram, fault), "memory", fault);
	must(kvm_slot_set(f->vm, 0, 0, LAYOUT_RAM, f->ram.size, f->ram.host), "a slot", fault);
	must(vcpus_create(f->kvm, f->vm, count, h->pmu, &f->bus, &f->loop, &f->vcpus, fault),
	     "vCPUs", fault);
	must(vcpus_init(&f->vcpus, true, fault), "vCPUs", fault);
	must(gic_create(f->vm, (unsigned)h->gic, count, &f->gic, fault), "GIC", fault);
	must(gic_init(&f->gic, fault), "GIC", fault);
	must(vcpus_attach(&f->vcpus, 0, fault), "PMU", fault);
}

static void state_load(struct floor *f, struct fault *fault)
{
	const struct guest_clock clock = {.counter = f->saved->clock->counter};
	struct host_class here;
	uint64_t *ids;
	size_t count;
	unsigned i;

	must(kvm_reg_list(f->vcpus.vcpu[0].fd, &ids, &count), "the list of registers", fault);
	must(host_class_read(f->vm, f->vcpus.vcpu[0].fd, &f->gic, ids, count, &here), "the class",
	     fault);
	for (i = 0; i < f->vcpus.count; i++) {
		must(vcpu_state_load(&f->vcpus.vcpu[i], f->saved->vcpus[i], &f->class, fault),
		     "registers", fault);
	}
	must(gic_state_load(&f->gic, &f->vcpus, f->saved->gic, fault), "GIC's state", fault);
	must(vcpus_clock_set(&f->vcpus, &clock, clock.counter, fault), "the clock", fault);
}

static void alarmed(int signal)
{
	(void)signal;
}

int main(int argc, char **argv)
{
	const struct itimerval later = {.it_value.tv_usec = 100000};
	const struct sandbox_limits limits = {.file_size_max = 1 << 20, .descriptors_more = 8};
	const struct sigaction action = {.sa_handler = alarmed};
	static struct floor f;
	struct fault fault = {0};
	struct timespec begin;

	if (argc < 3) {
		fputs("usage: floor STATE MEMORY [USER]\n", stderr);
		return 2;
	}
	files_open(&f, argv, &fault);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &later, NULL);
	tb__sandbox_spec__init(&f.sandbox);
	f.sandbox.uid = f.sandbox.gid = argc > 3 ? (uint32_t)atoi(argv[3]) : 0;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	if (f.sandbox.uid != 0) {
		must(sandbox_enter(&f.sandbox, &f.layers, &fault), "the sandbox", &fault);
	}
	machine_make(&f, &fault);
	if (f.sandbox.uid != 0) {
		must(sandbox_seal(&f.sandbox, &limits, &f.layers, &fault), "the sandbox", &fault);
	}
	state_load(&f, &fault);
	(void)kvm_vcpu_run(f.vcpus.vcpu[0].fd);
	printf("FLOOR begin=%lld.%09ld\n", (long long)begin.tv_sec, begin.tv_nsec);
	return fflush(stdout) == 0 ? 0 : 1;
}
