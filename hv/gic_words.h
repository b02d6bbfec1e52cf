/* gic_words.h: which words of the virtual interrupt controller are its state, and in which order
 * they go back. One list, used to save and to load. Pure.
 * Source: devices/arm-vgic.rst, arm-vgic-v3.rst; IHI 0048 chapter 4, IHI 0069 chapter 12.
 *
 * Order: GICD_IIDR first (it tells a GICv2 of KVM that groups may be written), then what all vCPUs
 * share, then each vCPU's own copy of the banked words (SGIs and PPIs: without them the timer is
 * off in the restored guest), its CPU interface, and GICD_CTLR, which turns it all on. What is
 * pending or active (`late`) goes back only after all that. KVM queues an interrupt for a vCPU in
 * the moment in which it becomes pending, and only while the distributor is on; nothing looks for
 * it afterwards, and a level that is high already is no news when its device raises it again
 * (vgic_target_oracle, vgic_validate_injection of Linux 6.1). What is lost so hangs the guest: a
 * timer that is never served, a call to another processor that it never hears of. And what is
 * active is queued for its target, which has to be known by then.
 *
 * Set registers only add bits: `clear` names the register that takes all ones before. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GIC_WORDS_MAX = 640, GIC_WORD_NAME = 48 };

struct gic_shape {
	unsigned version; /* 2 or 3 */
	unsigned vcpus; /* 1..8 */
	unsigned interrupts; /* 64..128, a multiple of 32 */
	unsigned priority_bits; /* GICv3: 5..7 (ICC_CTLR_EL1.PRIbits + 1): how many active-priority
				   words there are; GICv2: 0 */
	uint32_t affinity[8]; /* GICv3: Aff3.Aff2.Aff1.Aff0 of each vCPU */
};

struct gic_word {
	uint32_t group; /* of the device's attributes */
	uint64_t number; /* attribute */
	uint64_t clear; /* attribute of the register that clears; 0: none */
	bool zero; /* what a controller has there that did nothing yet */
	bool wide; /* 64 bits (GICv3 CPU interface) */
	bool late; /* goes back after all that is not */
	int vcpu; /* whose it is; -1: all share it */
};

/* The words in order; returns how many: at most GIC_WORDS_MAX. */
size_t gic_words(const struct gic_shape *shape, struct gic_word *ret);
/* "GICD_ISENABLER1", "vCPU 2 GICC_PMR". */
void gic_word_name(const struct gic_shape *shape, const struct gic_word *word,
		   char ret_name[GIC_WORD_NAME]);
