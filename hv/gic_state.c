#include "hv/gic_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/gic_words.h"
#include "hv/kvm.h"
#include "hv/layout.h"
#include "hv/refusals.h"
#include "lib/mem.h"

#define MPIDR_EL1 ARM64_SYS_REG(3, 0, 0, 0, 5)
enum { ICC_CTLR_EL1 = 3 << 14 | 12 << 7 | 12 << 3 | 4 };

/* Aff3 stands apart in MPIDR_EL1, and next to the others in the device's attributes. */
static uint32_t affinity_pack(uint64_t mpidr)
{
	return (uint32_t)(mpidr >> 32 & 0xff) << 24 | (uint32_t)(mpidr & 0xffffff);
}

/* What KVM says of itself and its vCPUs. */
static int shape_read(const struct gic *g, const struct vcpus *v, struct gic_shape *ret)
{
	uint64_t value = 0;
	unsigned i;
	int rv = 0;

	*ret = (struct gic_shape){
		.version = g->version, .vcpus = v->count, .interrupts = LAYOUT_INTERRUPTS};
	for (i = 0; i < v->count && g->version == 3 && rv == 0; i++) {
		rv = kvm_reg_get(v->vcpu[i].fd, MPIDR_EL1, &value);
		ret->affinity[i] = affinity_pack(value);
	}
	if (g->version == 3 && rv == 0) {
		rv = kvm_attr_get(g->fd, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
				  (uint64_t)ret->affinity[0] << 32 | ICC_CTLR_EL1, &value);
		ret->priority_bits = (value >> 8 & 7) + 1;
	}
	return rv;
}

static int word_get(const struct gic *g, const struct gic_word *w, uint64_t *ret)
{
	uint32_t narrow = 0;
	int rv;

	if (w->wide) {
		return kvm_attr_get(g->fd, w->group, w->number, ret);
	}
	rv = kvm_attr_get(g->fd, w->group, w->number, &narrow);
	*ret = narrow;
	return rv;
}

static int word_set(const struct gic *g, const struct gic_word *w, uint64_t value)
{
	uint32_t narrow = UINT32_MAX;
	int rv = 0;

	if (w->wide) {
		return kvm_attr_set(g->fd, w->group, w->number, &value);
	}
	if (value > UINT32_MAX) {
		return -EINVAL;
	}
	if (w->zero && value == 0) {
		return 0;
	}
	if (w->clear != 0) {
		rv = kvm_attr_set(g->fd, w->group, w->clear, &narrow);
	}
	narrow = (uint32_t)value;
	return rv < 0 ? rv : kvm_attr_set(g->fd, w->group, w->number, &narrow);
}

static int words_save(const struct gic *g, const struct gic_shape *shape,
		      const struct gic_word *words, size_t count, uint64_t *values,
		      struct fault *fault)
{
	char name[GIC_WORD_NAME];
	size_t i;
	int rv;

	for (i = 0; i < count; i++) {
		rv = word_get(g, &words[i], &values[i]);
		if (rv < 0) {
			gic_word_name(shape, &words[i], name);
			return fault_set(fault, rv, "cannot read %s: %s", name, strerror(-rv));
		}
	}
	return 0;
}

int gic_state_save(const struct gic *g, const struct vcpus *v, Tb__VmGicState *ret,
		   struct fault *fault)
{
	struct gic_word *words;
	struct gic_shape shape;
	int rv = shape_read(g, v, &shape);

	if (rv < 0) {
		return fault_set(fault, rv, "cannot read the interrupt controller's shape: %s",
				 strerror(-rv));
	}
	words = mem_array(GIC_WORDS_MAX, sizeof(words[0]));
	ret->interrupts = shape.interrupts;
	ret->priority_bits = shape.priority_bits;
	ret->n_words = gic_words(&shape, words);
	ret->words = mem_array(ret->n_words, sizeof(ret->words[0]));
	rv = words_save(g, &shape, words, ret->n_words, ret->words, fault);
	free(words);
	return rv;
}

/* Those words that go back late, or those that do not. */
static void words_set(const struct gic *g, const struct gic_shape *shape,
		      const struct gic_word *words, const Tb__VmGicState *saved, bool late,
		      struct refusals *refused)
{
	char name[GIC_WORD_NAME];
	size_t i;

	for (i = 0; i < saved->n_words; i++) {
		int rv = words[i].late == late ? word_set(g, &words[i], saved->words[i]) : 0;

		if (rv < 0) {
			gic_word_name(shape, &words[i], name);
			refusals_add(refused, name, rv);
		}
	}
}

static int words_load(const struct gic *g, const struct gic_shape *shape,
		      const struct gic_word *words, const Tb__VmGicState *saved,
		      struct fault *fault)
{
	struct refusals refused = {0};

	words_set(g, shape, words, saved, false, &refused);
	words_set(g, shape, words, saved, true, &refused);
	if (refused.count > 0) {
		return fault_set(fault, -EBADMSG,
				 "%u words of the interrupt controller are refused: %s",
				 refused.count, refused.text);
	}
	return 0;
}

int gic_state_load(const struct gic *g, const struct vcpus *v, const Tb__VmGicState *saved,
		   struct fault *fault)
{
	struct gic_word *words;
	struct gic_shape shape;
	int rv = shape_read(g, v, &shape);

	if (rv < 0) {
		return fault_set(fault, rv, "cannot read the interrupt controller's shape: %s",
				 strerror(-rv));
	}
	if (shape.priority_bits != saved->priority_bits) {
		return fault_set(fault, -EXDEV,
				 "the snapshot's interrupt controller has %u priority bits, this "
				 "host's has %u",
				 saved->priority_bits, shape.priority_bits);
	}
	words = mem_array(GIC_WORDS_MAX, sizeof(words[0]));
	if (gic_words(&shape, words) != saved->n_words) {
		rv = fault_set(fault, -EBADMSG,
			       "the snapshot has %zu words of the interrupt controller, not as "
			       "many as it has",
			       saved->n_words);
	} else {
		rv = words_load(g, &shape, words, saved, fault);
	}
	free(words);
	return rv;
}
