#include "hv/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hv/affinity.h"
#include "hv/host_class.h"
#include "hv/kvm.h"
#include "hv/layout.h"
#include "hv/probe_facts.h"
#include "hv/probe_judge.h"
#include "lib/buf.h"
#include "lib/mem.h"
#include "proto/json.h"

enum { CAP_COUNTER_OFFSET = 227 }; /* kernel 6.4; newer than our headers */

static bool has_io_uring(void)
{
	struct io_uring_params params = {0};
	long fd = syscall(__NR_io_uring_setup, 1, &params);

	if (fd < 0) {
		return false;
	}
	close((int)fd);
	return true;
}

/* The error of really making a virtual GIC of this version, 0 for none. */
static int gic_error(int kvm, unsigned version)
{
	struct kvm_vcpu_init init;
	struct fault fault = {0};
	struct gic gic = {.fd = -1};
	int vm = -1, vcpu = -1;
	int rv = kvm_vm_create(kvm, 32, &vm);

	rv = rv < 0 ? rv : kvm_vcpu_create(vm, 0, &vcpu);
	rv = rv < 0 ? rv : kvm_vcpu_target(vm, &init);
	if (rv >= 0) {
		init.features[0] |= 1U << KVM_ARM_VCPU_PSCI_0_2;
		rv = kvm_vcpu_init(vcpu, &init);
	}
	rv = rv < 0 ? rv : gic_create(vm, version, 1, &gic, &fault);
	rv = rv < 0 ? rv : gic_init(&gic, &fault);
	gic_close(&gic);
	if (vcpu >= 0) {
		close(vcpu);
	}
	if (vm >= 0) {
		close(vm);
	}
	return -rv;
}

static void ask_vm(int kvm, struct probe_kvm *ret)
{
	int vm, rv = kvm_vm_create(kvm, 32, &vm);
	int vcpus;

	if (rv < 0) {
		ret->vm_error = -rv;
		return;
	}
	vcpus = kvm_capability(vm, KVM_CAP_MAX_VCPUS);
	ret->max_vcpus = vcpus < LAYOUT_VCPUS_MAX ? (unsigned)vcpus : LAYOUT_VCPUS_MAX;
	ret->ipa_bits = (unsigned)kvm_capability(vm, KVM_CAP_ARM_VM_IPA_SIZE);
	ret->pmu = kvm_capability(vm, KVM_CAP_ARM_PMU_V3) > 0;
	ret->steal_time = kvm_capability(vm, KVM_CAP_STEAL_TIME) > 0;
	ret->counter_offset = kvm_capability(vm, CAP_COUNTER_OFFSET) > 0;
	ret->its = kvm_device_create(vm, KVM_DEV_TYPE_ARM_VGIC_ITS, true, NULL) == 0;
	close(vm);
	ret->gicv2_error = gic_error(kvm, 2);
	ret->gicv3_error = gic_error(kvm, 3);
}

/* A descriptor of /dev/kvm, or -1. */
static int ask_kvm(const char *root, struct probe_kvm *ret)
{
	char *path = mem_printf("%s/dev/kvm", root);
	struct fault fault = {0};
	int kvm = -1, rv = kvm_open(path, &kvm, &fault);

	free(path);
	ret->page_size = (uint32_t)sysconf(_SC_PAGESIZE);
	if (rv == -ENXIO) {
		/* Opened, of another version. */
		ret->version = -1;
		return -1;
	}
	if (rv < 0) {
		ret->open_error = -rv;
		return -1;
	}
	ret->version = KVM_API_VERSION;
	ask_vm(kvm, ret);
	return kvm;
}

static Tb__HostClassParts *ask_class(int kvm)
{
	struct host_class *class = mem_alloc(sizeof(*class));
	Tb__HostClassParts *parts = NULL;
	struct fault fault = {0};

	if (host_class_probe(kvm, class, &fault) == 0) {
		parts = class_describe(class);
	}
	free(class);
	return parts;
}

/* What is asked is asked where a VM would be. */
static void keep_cores(void)
{
	struct fault fault = {0};
	struct affinity cores;
	char text[AFFINITY_TEXT];

	affinity_read("", &cores);
	(void)affinity_keep(&cores, text, &fault);
}

Tb__HostProbe *probe_host(const char *root)
{
	struct probe_board board;
	struct probe_kvm facts = {0};
	Tb__HostClassParts *class;
	Tb__HostProbe *probe;
	int kvm;

	probe_board_read(root, &board);
	if (root[0] == '\0') {
		keep_cores();
	}
	kvm = ask_kvm(root, &facts);
	class = kvm >= 0 ? ask_class(kvm) : NULL;
	/* After KVM: what is left of a closed ring interrupts the next system calls. */
	facts.io_uring = has_io_uring();
	probe = probe_judge(&board, &facts);
	probe->host_class = class;
	if (kvm >= 0) {
		close(kvm);
	}
	return probe;
}

int probe_main(const char *root, bool json, FILE *out)
{
	Tb__HostProbe *probe = probe_host(root);
	struct buf text = {0};
	int status = probe->can_host ? 0 : 1;

	if (json) {
		json_encode_full(&probe->base, &text);
		buf_putc(&text, '\n');
	} else {
		probe_text(probe, &text);
	}
	fwrite(text.data, 1, text.len, out);
	buf_free(&text);
	tb__host_probe__free_unpacked(probe, NULL);
	return status;
}
