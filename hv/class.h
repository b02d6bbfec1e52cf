/* class.h: the compatibility class of a host: all that a guest has seen of it and cannot unsee. A
 * snapshot goes on only where every part is equal, value by value.
 *
 * Parts are registers of a vCPU by their KVM ids (the ID registers, caches, firmware services), and
 * a few facts with small numbers. Kept in ascending order of their keys. Pure. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/hv_probe.pb-c.h"
#include "proto/hv_state.pb-c.h"

enum class_key {
	CLASS_PAGE_SIZE = 1, /* of the host */
	CLASS_IPA_BITS,
	CLASS_COUNTER_HZ, /* CNTFRQ_EL0: KVM never scales it */
	CLASS_GIC_VERSION, /* 2 or 3 */
	CLASS_GIC_IIDR, /* GICD_IIDR: model and behaviour of KVM's own */
	CLASS_PMU_COUNTERS, /* PMCR_EL0.N; left out without PMU */
	CLASS_REGISTERS, /* how many are in KVM_GET_REG_LIST */
	CLASS_REGISTER_LIST, /* mixed from their ids: differs with the kernel */
};

enum { CLASS_PARTS_MAX = 192, CLASS_NAME = 32 };

struct class_part {
	uint64_t key, value;
};

/* Zeroed: no parts. */
struct host_class {
	size_t count;
	struct class_part part[CLASS_PARTS_MAX];
};

/* Is the register a part of the class: the same on every vCPU, and nothing a guest can change? */
bool class_has_register(uint64_t id);
/* Keeps the order. A key that is there gets the new value. False: full. */
bool class_add(struct host_class *c, uint64_t key, uint64_t value);
/* The value of a key, or NULL. */
const uint64_t *class_find(const struct host_class *c, uint64_t key);
/* 64 bits over all parts, for lists and labels. */
uint64_t class_id(const struct host_class *c);
/* Mixes the ids of registers into one value: whatever their order. */
uint64_t class_list_mix(const uint64_t *ids, size_t count);
void class_name(uint64_t key, char ret_name[CLASS_NAME]);

/* How many parts differ, 0 for the same class. `text` tells the first few of them by name:
 * "MIDR_EL1 is 0x410fd083 in the snapshot and 0x414fd0b1 here; ...". */
size_t class_difference(const struct host_class *saved, const struct host_class *here, char *text,
			size_t size);

/* The record in a state file: arrays owned by the record (free). */
void class_pack(const struct host_class *c, Tb__HostClass *ret);
/* From outside: false unless the keys ascend, the counts are equal and within CLASS_PARTS_MAX. */
bool class_unpack(const Tb__HostClass *record, struct host_class *ret);
/* For people: a new message, owned by the caller (free_unpacked with NULL). */
Tb__HostClassParts *class_describe(const struct host_class *c);
