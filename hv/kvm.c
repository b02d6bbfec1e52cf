#include "hv/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/mem.h"

static int call(int fd, unsigned long request, unsigned long arg)
{
	int rv = ioctl(fd, request, arg);

	return rv < 0 ? -errno : rv;
}

#define CALL_AT(fd, request, pointer) call(fd, request, (unsigned long)(pointer))

static const char *open_remedy(int error)
{
	switch (error) {
	case ENOENT:
		return "this kernel has no KVM, or the processor did not start in EL2: see "
		       "`witness-vm probe`";
	case EACCES:
	case EPERM:
		return "add the user to the group kvm";
	default:
		return "see `witness-vm probe`";
	}
}

int kvm_open(const char *path, int *ret_fd, struct fault *fault)
{
	int version;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		int error = errno;

		return fault_set(fault, -error, "cannot open %s: %s; %s", path, strerror(error),
				 open_remedy(error));
	}
	version = call(fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		close(fd);
		return fault_set(fault, -ENXIO, "%s speaks KVM API version %d, %d is needed", path,
				 version, KVM_API_VERSION);
	}
	*ret_fd = fd;
	return 0;
}

int kvm_capability(int fd, long capability)
{
	int rv = call(fd, KVM_CHECK_EXTENSION, (unsigned long)capability);

	return rv < 0 ? 0 : rv;
}

int kvm_enable(int vm, uint32_t capability, uint64_t arg)
{
	struct kvm_enable_cap cap = {.cap = capability, .args = {arg}};

	return CALL_AT(vm, KVM_ENABLE_CAP, &cap);
}

int kvm_vm_create(int kvm, unsigned ipa_bits, int *ret_fd)
{
	int fd;

	/* Interrupted also by what the kernel does for this process in passing (io_uring). */
	do {
		fd = call(kvm, KVM_CREATE_VM, KVM_VM_TYPE_ARM_IPA_SIZE(ipa_bits));
	} while (fd == -EINTR);
	if (fd < 0) {
		return fd;
	}
	*ret_fd = fd;
	return 0;
}

int kvm_slot_set(int vm, uint32_t slot, uint32_t flags, uint64_t guest, uint64_t size, void *host)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = guest,
		.memory_size = size,
		.userspace_addr = (uint64_t)(uintptr_t)host,
	};

	return CALL_AT(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

int kvm_ioeventfd(int vm, uint64_t address, unsigned len, int64_t datamatch, int eventfd, bool on)
{
	struct kvm_ioeventfd event = {
		.addr = address,
		.len = len,
		.fd = eventfd,
		.flags = on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN,
	};

	if (datamatch >= 0) {
		event.datamatch = (uint64_t)datamatch;
		event.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
	}
	return CALL_AT(vm, KVM_IOEVENTFD, &event);
}

int kvm_irqfd(int vm, uint32_t spi, int eventfd, bool on)
{
	struct kvm_irqfd irq = {
		.fd = (uint32_t)eventfd,
		.gsi = spi,
		.flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
	};

	return CALL_AT(vm, KVM_IRQFD, &irq);
}

int kvm_irq_line(int vm, uint32_t spi, bool level)
{
	/* KVM_IRQ_LINE counts interrupt ids, KVM_IRQFD counts SPIs (api.rst). */
	struct kvm_irq_level line = {
		.irq = (KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT) | (32 + spi),
		.level = level,
	};

	return CALL_AT(vm, KVM_IRQ_LINE, &line);
}

int kvm_vcpu_create(int vm, unsigned index, int *ret_fd)
{
	int fd = call(vm, KVM_CREATE_VCPU, index);

	if (fd < 0) {
		return fd;
	}
	*ret_fd = fd;
	return 0;
}

int kvm_vcpu_map_size(int kvm)
{
	return call(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
}

int kvm_vcpu_target(int vm, struct kvm_vcpu_init *ret)
{
	memset(ret, 0, sizeof(*ret));
	return CALL_AT(vm, KVM_ARM_PREFERRED_TARGET, ret);
}

int kvm_vcpu_init(int vcpu, const struct kvm_vcpu_init *init)
{
	return CALL_AT(vcpu, KVM_ARM_VCPU_INIT, init);
}

int kvm_vcpu_run(int vcpu)
{
	return call(vcpu, KVM_RUN, 0);
}

int kvm_vcpu_state_get(int vcpu, uint32_t *ret_mp_state)
{
	struct kvm_mp_state state = {0};
	int rv = CALL_AT(vcpu, KVM_GET_MP_STATE, &state);

	if (rv == 0) {
		*ret_mp_state = state.mp_state;
	}
	return rv;
}

int kvm_vcpu_state_set(int vcpu, uint32_t mp_state)
{
	struct kvm_mp_state state = {.mp_state = mp_state};

	return CALL_AT(vcpu, KVM_SET_MP_STATE, &state);
}

int kvm_vcpu_events_get(int vcpu, struct kvm_vcpu_events *ret)
{
	memset(ret, 0, sizeof(*ret));
	return CALL_AT(vcpu, KVM_GET_VCPU_EVENTS, ret);
}

int kvm_vcpu_events_set(int vcpu, const struct kvm_vcpu_events *events)
{
	return CALL_AT(vcpu, KVM_SET_VCPU_EVENTS, events);
}

size_t kvm_reg_size(uint64_t id)
{
	return (size_t)1 << ((id & KVM_REG_SIZE_MASK) >> KVM_REG_SIZE_SHIFT);
}

int kvm_reg_get(int vcpu, uint64_t id, void *value)
{
	struct kvm_one_reg reg = {.id = id, .addr = (uint64_t)(uintptr_t)value};

	return CALL_AT(vcpu, KVM_GET_ONE_REG, &reg);
}

int kvm_reg_set(int vcpu, uint64_t id, const void *value)
{
	struct kvm_one_reg reg = {.id = id, .addr = (uint64_t)(uintptr_t)value};

	return CALL_AT(vcpu, KVM_SET_ONE_REG, &reg);
}

int kvm_reg_list(int vcpu, uint64_t **ret, size_t *ret_count)
{
	enum { USUAL = 500 };
	struct kvm_reg_list *list = mem_alloc(sizeof(*list) + USUAL * sizeof(uint64_t));
	int rv;

	list->n = USUAL;
	rv = CALL_AT(vcpu, KVM_GET_REG_LIST, list);
	/* The kernel says the count together with E2BIG. */
	if (rv == -E2BIG) {
		list = mem_realloc(list, sizeof(*list) + list->n * sizeof(uint64_t));
		rv = CALL_AT(vcpu, KVM_GET_REG_LIST, list);
	}
	if (rv < 0) {
		free(list);
		return rv;
	}
	*ret_count = list->n;
	memmove(list, list->reg, list->n * sizeof(uint64_t));
	*ret = (uint64_t *)list;
	return 0;
}

int kvm_device_create(int vm, uint32_t type, bool test_only, int *ret_fd)
{
	struct kvm_create_device device = {
		.type = type,
		.flags = test_only ? KVM_CREATE_DEVICE_TEST : 0,
	};
	int rv = CALL_AT(vm, KVM_CREATE_DEVICE, &device);

	if (rv == 0 && !test_only) {
		*ret_fd = (int)device.fd;
	}
	return rv;
}

static int attr(int fd, unsigned long request, uint32_t group, uint64_t number, const void *value)
{
	struct kvm_device_attr a = {
		.group = group,
		.attr = number,
		.addr = (uint64_t)(uintptr_t)value,
	};

	return CALL_AT(fd, request, &a);
}

int kvm_attr_has(int fd, uint32_t group, uint64_t number)
{
	return attr(fd, KVM_HAS_DEVICE_ATTR, group, number, NULL);
}

int kvm_attr_get(int fd, uint32_t group, uint64_t number, void *value)
{
	return attr(fd, KVM_GET_DEVICE_ATTR, group, number, value);
}

int kvm_attr_set(int fd, uint32_t group, uint64_t number, const void *value)
{
	return attr(fd, KVM_SET_DEVICE_ATTR, group, number, value);
}

int kvm_stats_open(int fd, int *ret_fd)
{
	int stats = call(fd, KVM_GET_STATS_FD, 0);

	if (stats < 0) {
		return stats;
	}
	*ret_fd = stats;
	return 0;
}
