#include "hv/class.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv/register_name.h"
#include "lib/mem.h"
#include "lib/rng.h"

enum { SHOWN = 3 }; /* differences told by name */

/* Spaces of register ids, bits 31:16 (asm/kvm.h). */
enum { SPACE_DEMUX = 0x11, SPACE_SYSTEM = 0x13, SPACE_FIRMWARE = 0x14, SPACE_BITMAP = 0x16 };

static bool system_in_class(unsigned code)
{
	unsigned op0 = code >> 14, op1 = code >> 11 & 7, crn = code >> 7 & 15;
	unsigned crm = code >> 3 & 15, op2 = code & 7;

	if (op0 != 3 || crn != 0) {
		return false;
	}
	switch (op1) {
	case 0: /* MIDR, REVIDR and the ID space; MPIDR is each vCPU's own */
		return crm == 0 ? op2 != 5 : crm < 8;
	case 1: /* CLIDR, AIDR */
		return crm == 0;
	case 3: /* CTR, DCZID */
		return crm == 0;
	default:
		return false;
	}
}

bool class_has_register(uint64_t id)
{
	switch (id >> 16 & 0xffff) {
	case SPACE_SYSTEM:
		return system_in_class(id & 0xffff);
	case SPACE_DEMUX:
	case SPACE_FIRMWARE:
	case SPACE_BITMAP:
		return true;
	default:
		return false;
	}
}

/* Where the key is or comes to lie. From the end: most come in their order. */
static size_t place(const struct host_class *c, uint64_t key)
{
	size_t i = c->count;

	while (i > 0 && c->part[i - 1].key >= key) {
		i--;
	}
	return i;
}

bool class_add(struct host_class *c, uint64_t key, uint64_t value)
{
	size_t at = place(c, key);

	if (at == c->count || c->part[at].key != key) {
		if (c->count == CLASS_PARTS_MAX) {
			return false;
		}
		memmove(&c->part[at + 1], &c->part[at], (c->count - at) * sizeof(c->part[0]));
		c->count++;
	}
	c->part[at] = (struct class_part){.key = key, .value = value};
	return true;
}

const uint64_t *class_find(const struct host_class *c, uint64_t key)
{
	size_t low = 0, high = c->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (c->part[middle].key < key) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return low < c->count && c->part[low].key == key ? &c->part[low].value : NULL;
}

static uint64_t mix(uint64_t sum, uint64_t value)
{
	struct prng p = {.state = sum ^ value};

	return prng_u64(&p);
}

uint64_t class_id(const struct host_class *c)
{
	uint64_t sum = c->count;
	size_t i;

	for (i = 0; i < c->count; i++) {
		sum = mix(mix(sum, c->part[i].key), c->part[i].value);
	}
	return sum;
}

uint64_t class_list_mix(const uint64_t *ids, size_t count)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < count; i++) {
		sum += mix(0, ids[i]);
	}
	return sum;
}

void class_name(uint64_t key, char ret_name[CLASS_NAME])
{
	static const char names[][24] = {
		[CLASS_PAGE_SIZE] = "page size",
		[CLASS_IPA_BITS] = "guest address bits",
		[CLASS_COUNTER_HZ] = "CNTFRQ_EL0",
		[CLASS_GIC_VERSION] = "GIC version",
		[CLASS_GIC_IIDR] = "GICD_IIDR",
		[CLASS_PMU_COUNTERS] = "PMU counters",
		[CLASS_REGISTERS] = "number of registers",
		[CLASS_REGISTER_LIST] = "list of registers",
	};

	_Static_assert((int)CLASS_NAME == (int)REGISTER_NAME, "one size for all names");
	if (key < sizeof(names) / sizeof(names[0])) {
		snprintf(ret_name, CLASS_NAME, "%s",
			 names[key][0] != '\0' ? names[key] : "nothing");
	} else {
		register_name(key, ret_name);
	}
}

/* One difference more: told by name if it is among the first. */
static size_t tell(size_t told, uint64_t key, const uint64_t *saved, const uint64_t *here,
		   char *text, size_t size)
{
	char name[CLASS_NAME], was[24] = "missing", is[24] = "missing";
	size_t len = strlen(text);

	if (told >= SHOWN) {
		return told + 1;
	}
	class_name(key, name);
	if (saved != NULL) {
		snprintf(was, sizeof(was), "0x%llx", (unsigned long long)*saved);
	}
	if (here != NULL) {
		snprintf(is, sizeof(is), "0x%llx", (unsigned long long)*here);
	}
	snprintf(text + len, size - len, "%s%s is %s in the snapshot and %s here",
		 told > 0 ? "; " : "", name, was, is);
	return told + 1;
}

static bool is_system_register(uint64_t key)
{
	return (key >> 16 & 0xffff) == SPACE_SYSTEM;
}

/* Differences among the keys that are, or are not, system registers. */
static size_t tell_some(bool system, size_t told, const struct host_class *saved,
			const struct host_class *here, char *text, size_t size)
{
	size_t i;

	for (i = 0; i < saved->count; i++) {
		const struct class_part *p = &saved->part[i];
		const uint64_t *other = class_find(here, p->key);

		if (is_system_register(p->key) == system && (other == NULL || *other != p->value)) {
			told = tell(told, p->key, &p->value, other, text, size);
		}
	}
	for (i = 0; i < here->count; i++) {
		const struct class_part *p = &here->part[i];

		if (is_system_register(p->key) == system && class_find(saved, p->key) == NULL) {
			told = tell(told, p->key, NULL, &p->value, text, size);
		}
	}
	return told;
}

size_t class_difference(const struct host_class *saved, const struct host_class *here, char *text,
			size_t size)
{
	size_t differences, len;

	text[0] = '\0';
	if (saved->count == here->count &&
	    memcmp(saved->part, here->part, here->count * sizeof(here->part[0])) == 0) {
		return 0;
	}
	/* The processor's own registers first, MIDR_EL1 before all: the rest follows from them. */
	differences = tell_some(true, 0, saved, here, text, size);
	differences = tell_some(false, differences, saved, here, text, size);
	if (differences > SHOWN) {
		len = strlen(text);
		snprintf(text + len, size - len, "; and %zu more", differences - SHOWN);
	}
	return differences;
}

void class_pack(const struct host_class *c, Tb__HostClass *ret)
{
	size_t i;

	tb__host_class__init(ret);
	ret->id = class_id(c);
	ret->n_keys = c->count;
	ret->n_values = c->count;
	ret->keys = mem_array(c->count, sizeof(uint64_t));
	ret->values = mem_array(c->count, sizeof(uint64_t));
	for (i = 0; i < c->count; i++) {
		ret->keys[i] = c->part[i].key;
		ret->values[i] = c->part[i].value;
	}
}

bool class_unpack(const Tb__HostClass *record, struct host_class *ret)
{
	size_t i;

	if (record->n_keys != record->n_values || record->n_keys > CLASS_PARTS_MAX) {
		return false;
	}
	for (i = 1; i < record->n_keys; i++) {
		if (record->keys[i] <= record->keys[i - 1]) {
			return false;
		}
	}
	ret->count = record->n_keys;
	for (i = 0; i < ret->count; i++) {
		ret->part[i] = (struct class_part){record->keys[i], record->values[i]};
	}
	return true;
}

Tb__HostClassParts *class_describe(const struct host_class *c)
{
	Tb__HostClassParts *parts = mem_alloc(sizeof(*parts));
	size_t i;

	tb__host_class_parts__init(parts);
	parts->id = mem_printf("%016llx", (unsigned long long)class_id(c));
	parts->n_parts = c->count;
	parts->parts = mem_array(c->count, sizeof(parts->parts[0]));
	for (i = 0; i < c->count; i++) {
		Tb__HostClassPart *part = mem_alloc(sizeof(*part));
		char name[CLASS_NAME];

		tb__host_class_part__init(part);
		class_name(c->part[i].key, name);
		part->name = mem_strdup(name);
		part->value = mem_printf("0x%llx", (unsigned long long)c->part[i].value);
		parts->parts[i] = part;
	}
	return parts;
}
