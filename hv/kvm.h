/* kvm.h: the kernel's KVM API, arm64: the ONE file that says ioctl(KVM_...). Thin: a function a
 * call, negative errno, no policy. Source: Linux Documentation/virt/kvm/api.rst and
 * devices/arm-vgic*.rst. */
#pragma once
#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hv/fault.h"

/* /dev/kvm by path or a descriptor handed in; API version 12. *ret_fd owned by the caller.
 * -ENOENT, -EACCES, -ENXIO with the remedy in *fault. */
int kvm_open(const char *path, int *ret_fd, struct fault *fault);
/* Value of a capability on /dev/kvm or on a VM; 0 if the kernel does not know it. */
int kvm_capability(int fd, long capability);
int kvm_enable(int vm, uint32_t capability, uint64_t arg);

/* A VM whose guest physical addresses have `ipa_bits` bits (32..). *ret_fd owned. */
int kvm_vm_create(int kvm, unsigned ipa_bits, int *ret_fd);
/* Slot of host memory; size 0 removes it. flags KVM_MEM_READONLY, KVM_MEM_LOG_DIRTY_PAGES. */
int kvm_slot_set(int vm, uint32_t slot, uint32_t flags, uint64_t guest, uint64_t size, void *host);
/* A write of `len` bytes (0: any) at the address signals the eventfd and does not exit;
 * datamatch -1: whatever is written. */
int kvm_ioeventfd(int vm, uint64_t address, unsigned len, int64_t datamatch, int eventfd, bool on);
/* The eventfd raises SPI `spi` (an edge). */
int kvm_irqfd(int vm, uint32_t spi, int eventfd, bool on);
/* The level of SPI `spi`. */
int kvm_irq_line(int vm, uint32_t spi, bool level);

int kvm_vcpu_create(int vm, unsigned index, int *ret_fd);
/* Bytes of the shared page of a vCPU. */
int kvm_vcpu_map_size(int kvm);
int kvm_vcpu_target(int vm, struct kvm_vcpu_init *ret);
int kvm_vcpu_init(int vcpu, const struct kvm_vcpu_init *init);
/* -EINTR when kicked; 0 with the exit in the shared page. */
int kvm_vcpu_run(int vcpu);
int kvm_vcpu_state_get(int vcpu, uint32_t *ret_mp_state);
int kvm_vcpu_state_set(int vcpu, uint32_t mp_state);
int kvm_vcpu_events_get(int vcpu, struct kvm_vcpu_events *ret);
int kvm_vcpu_events_set(int vcpu, const struct kvm_vcpu_events *events);
/* Size in bytes of the register, from its id. */
size_t kvm_reg_size(uint64_t id);
int kvm_reg_get(int vcpu, uint64_t id, void *value);
int kvm_reg_set(int vcpu, uint64_t id, const void *value);
/* All register ids of KVM_GET_REG_LIST; *ret (free) and the count. */
int kvm_reg_list(int vcpu, uint64_t **ret, size_t *ret_count);

/* Devices (vGIC) and vCPU attributes. */
int kvm_device_create(int vm, uint32_t type, bool test_only, int *ret_fd);
int kvm_attr_has(int fd, uint32_t group, uint64_t number);
int kvm_attr_get(int fd, uint32_t group, uint64_t number, void *value);
int kvm_attr_set(int fd, uint32_t group, uint64_t number, const void *value);

/* KVM_GET_STATS_FD of a VM or vCPU; -EINVAL/-ENOTTY where the kernel has none. *ret_fd owned. */
int kvm_stats_open(int fd, int *ret_fd);
