#include "hv/gic_words.h"

#include <assert.h>
#include <stdio.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* Attribute groups of the device (asm/kvm.h). */
enum { DIST = 1, CPU_INTERFACE = 2, REDIST = 5, SYSTEM = 6, LEVEL = 7 };
enum { CTLR = 0x000, IIDR = 0x008, CPENDSGIR = 0xf10, SPENDSGIR = 0xf20, IROUTER = 0x6000 };
enum { GICR_CTLR = 0x000, GICR_WAKER = 0x014, GICR_SGI_FRAME = 0x10000 };
enum { GICC_APR0 = 0xd0 };
enum { PRIVATE = 32 }; /* interrupt ids below are each vCPU's own */

/* A register with `bits` for each interrupt; word n of it is at offset + 4 n. */
struct bank {
	uint16_t offset, clear;
	uint8_t bits;
	bool event; /* what interrupts do, not how they are set up: zero at first, and late */
	char name[13];
};

static const struct bank banks_v2[] = {
	{0x080, 0, 1, false, "IGROUPR"},    {0x100, 0x180, 1, false, "ISENABLER"},
	{0x200, 0x280, 1, true, "ISPENDR"}, {0x300, 0x380, 1, true, "ISACTIVER"},
	{0x400, 0, 8, false, "IPRIORITYR"}, {0x800, 0, 8, false, "ITARGETSR"},
	{0xc00, 0, 2, false, "ICFGR"},
};

/* A GICv3 takes ISPENDR from user space as the whole truth. */
static const struct bank banks_v3[] = {
	{0x080, 0, 1, false, "IGROUPR"},    {0x100, 0x180, 1, false, "ISENABLER"},
	{0x200, 0, 1, true, "ISPENDR"},	    {0x300, 0x380, 1, true, "ISACTIVER"},
	{0x400, 0, 8, false, "IPRIORITYR"}, {0xc00, 0, 2, false, "ICFGR"},
};

struct single {
	uint16_t number;
	char name[14];
};

static const struct single interface_v2[] = {
	{0x00, "GICC_CTLR"}, {0x04, "GICC_PMR"},  {0x08, "GICC_BPR"},  {0x1c, "GICC_ABPR"},
	{0xd0, "GICC_APR0"}, {0xd4, "GICC_APR1"}, {0xd8, "GICC_APR2"}, {0xdc, "GICC_APR3"},
};

#define S(crn, crm, op2) (3 << 14 | (crn) << 7 | (crm) << 3 | (op2))

static const struct single interface_v3[] = {
	{S(12, 12, 5), "ICC_SRE"},     {S(12, 12, 4), "ICC_CTLR"}, {S(4, 6, 0), "ICC_PMR"},
	{S(12, 8, 3), "ICC_BPR0"},     {S(12, 12, 3), "ICC_BPR1"}, {S(12, 12, 6), "ICC_IGRPEN0"},
	{S(12, 12, 7), "ICC_IGRPEN1"},
};
static const uint16_t active_v3[2] = {S(12, 8, 4), S(12, 9, 0)}; /* ICC_AP0R0, ICC_AP1R0 */

struct list {
	struct gic_word *word;
	size_t count;
	int vcpu; /* of the words that come; -1: shared */
};

static struct gic_word *add(struct list *l, uint32_t group, uint64_t number)
{
	struct gic_word *w = &l->word[l->count];

	assert(l->count < GIC_WORDS_MAX);
	l->count++;
	*w = (struct gic_word){
		.group = group, .number = number, .wide = group == SYSTEM, .vcpu = l->vcpu};
	return w;
}

/* The words of a bank for the interrupts from..to. */
static void add_bank(struct list *l, const struct bank *b, uint32_t group, uint64_t base,
		     unsigned from, unsigned to)
{
	unsigned word;

	for (word = from * b->bits / 32; word < to * b->bits / 32; word++) {
		struct gic_word *w = add(l, group, base + b->offset + 4 * word);

		w->clear = b->clear != 0 ? base + b->clear + 4 * word : 0;
		w->zero = w->late = b->event;
	}
}

/* The lines of 32 interrupts; GICv3. */
static void add_levels(struct list *l, uint64_t number)
{
	struct gic_word *w = add(l, LEVEL, number);

	w->zero = w->late = true;
}

static void add_private_v2(struct list *l, uint64_t vcpu)
{
	uint64_t base = vcpu << 32;
	size_t i;

	for (i = 0; i < LENGTH(banks_v2); i++) {
		if (banks_v2[i].offset != 0x800) { /* read-only for SGIs and PPIs */
			add_bank(l, &banks_v2[i], DIST, base, 0, PRIVATE);
		}
	}
	for (i = 0; i < 4; i++) {
		struct gic_word *w = add(l, DIST, base + SPENDSGIR + 4 * i);

		w->clear = base + CPENDSGIR + 4 * i;
		w->zero = w->late = true;
	}
	for (i = 0; i < LENGTH(interface_v2); i++) {
		uint16_t number = interface_v2[i].number;

		add(l, CPU_INTERFACE, base + number)->zero = number >= GICC_APR0;
	}
}

static void add_private_v3(struct list *l, uint64_t affinity, unsigned priority_bits)
{
	uint64_t base = affinity << 32;
	unsigned active = priority_bits <= 5 ? 1 : priority_bits == 6 ? 2 : 4, n;
	size_t i;

	add(l, REDIST, base + GICR_CTLR);
	add(l, REDIST, base + GICR_WAKER);
	for (i = 0; i < LENGTH(banks_v3); i++) {
		add_bank(l, &banks_v3[i], REDIST, base + GICR_SGI_FRAME, 0, PRIVATE);
	}
	add_levels(l, base);
	for (i = 0; i < LENGTH(interface_v3); i++) {
		add(l, SYSTEM, base + interface_v3[i].number);
	}
	for (i = 0; i < 2; i++) {
		for (n = 0; n < active; n++) {
			add(l, SYSTEM, base + active_v3[i] + n)->zero = true;
		}
	}
}

static void add_shared(struct list *l, const struct gic_shape *shape)
{
	const struct bank *banks = shape->version == 2 ? banks_v2 : banks_v3;
	size_t count = shape->version == 2 ? LENGTH(banks_v2) : LENGTH(banks_v3), i;
	unsigned n;

	for (i = 0; i < count; i++) {
		add_bank(l, &banks[i], DIST, 0, PRIVATE, shape->interrupts);
	}
	if (shape->version == 3) {
		/* The upper halves hold Aff3, which KVM's vCPUs do not have. */
		for (n = PRIVATE; n < shape->interrupts; n++) {
			add(l, DIST, IROUTER + 8 * n)->zero = true;
		}
		for (n = PRIVATE; n < shape->interrupts; n += 32) {
			add_levels(l, n);
		}
	}
}

size_t gic_words(const struct gic_shape *shape, struct gic_word *ret)
{
	struct list l = {.word = ret, .vcpu = -1};
	unsigned i;

	assert(shape->version == 2 || shape->version == 3);
	assert(shape->interrupts % 32 == 0 && shape->interrupts <= 128);
	add(&l, DIST, IIDR);
	add_shared(&l, shape);
	for (i = 0; i < shape->vcpus; i++) {
		l.vcpu = (int)i;
		if (shape->version == 2) {
			add_private_v2(&l, i);
		} else {
			add_private_v3(&l, shape->affinity[i], shape->priority_bits);
		}
	}
	l.vcpu = -1;
	add(&l, DIST, CTLR);
	return l.count;
}

/* "ISENABLER1" of an offset inside a bank. */
static bool name_in_bank(const struct gic_shape *shape, uint64_t offset, const char *prefix,
			 char *to, size_t size)
{
	const struct bank *banks = shape->version == 2 ? banks_v2 : banks_v3;
	size_t count = shape->version == 2 ? LENGTH(banks_v2) : LENGTH(banks_v3), i;

	for (i = 0; i < count; i++) {
		const struct bank *b = &banks[i];

		if (offset >= b->offset && offset < b->offset + shape->interrupts * b->bits / 8) {
			snprintf(to, size, "%s_%s%u", prefix, b->name,
				 (unsigned)(offset - b->offset) / 4);
			return true;
		}
	}
	return false;
}

static void name_register(const struct gic_shape *shape, const struct gic_word *word,
			  uint64_t offset, char *to, size_t size)
{
	bool redist = word->group == REDIST;

	if (redist && offset < GICR_SGI_FRAME) {
		snprintf(to, size, "GICR_%s", offset == GICR_CTLR ? "CTLR" : "WAKER");
	} else if (name_in_bank(shape, redist ? offset - GICR_SGI_FRAME : offset,
				redist ? "GICR" : "GICD", to, size)) {
		return;
	} else if (offset >= IROUTER) {
		snprintf(to, size, "GICD_IROUTER%u", (unsigned)(offset - IROUTER) / 8);
	} else if (offset >= SPENDSGIR) {
		snprintf(to, size, "GICD_SPENDSGIR%u", (unsigned)(offset - SPENDSGIR) / 4);
	} else {
		snprintf(to, size, "GICD_%s", offset == IIDR ? "IIDR" : "CTLR");
	}
}

static void name_interface(const struct single *names, size_t count, uint64_t number, char *to,
			   size_t size)
{
	size_t i;

	for (i = 0; i < count; i++) {
		if (names[i].number == number) {
			snprintf(to, size, "%s", names[i].name);
			return;
		}
	}
	i = number >= active_v3[1];
	snprintf(to, size, "ICC_AP%zuR%u", i, (unsigned)(number - active_v3[i]));
}

void gic_word_name(const struct gic_shape *shape, const struct gic_word *word,
		   char ret_name[GIC_WORD_NAME])
{
	uint64_t offset = word->number & UINT32_MAX;
	char name[32];

	if (word->group == CPU_INTERFACE) {
		name_interface(interface_v2, LENGTH(interface_v2), offset, name, sizeof(name));
	} else if (word->group == SYSTEM) {
		name_interface(interface_v3, LENGTH(interface_v3), offset, name, sizeof(name));
	} else if (word->group == LEVEL) {
		snprintf(name, sizeof(name), "line levels %u", (unsigned)offset);
	} else {
		name_register(shape, word, offset, name, sizeof(name));
	}
	if (word->vcpu < 0) {
		snprintf(ret_name, GIC_WORD_NAME, "%s", name);
	} else {
		snprintf(ret_name, GIC_WORD_NAME, "vCPU %d %s", word->vcpu, name);
	}
}
