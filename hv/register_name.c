#include "hv/register_name.h"

#include <stddef.h>
#include <stdio.h>

/* Parts of an id (asm/kvm.h of arm64; written out, since this is built everywhere). */
#define ARCH_MASK UINT64_C(0xff00000000000000)
#define ARCH_ARM64 UINT64_C(0x6000000000000000)
enum {
	SPACE_CORE = 0x10,
	SPACE_DEMUX,
	SPACE_SYSTEM = 0x13,
	SPACE_FIRMWARE,
	SPACE_SVE,
	SPACE_BITMAP
};
enum { SIZE_SHIFT = 52, SIZE_MAX_SHIFT = 8 };

/* No pointers: the tables need no relocation when the program starts. */
struct named {
	uint16_t code;
	char name[22];
};

#define S(op0, op1, crn, crm, op2) ((op0) << 14 | (op1) << 11 | (crn) << 7 | (crm) << 3 | (op2))

static const struct named system_names[] = {
	{S(3, 0, 0, 0, 0), "MIDR_EL1"},
	{S(3, 0, 0, 0, 5), "MPIDR_EL1"},
	{S(3, 0, 0, 0, 6), "REVIDR_EL1"},
	{S(3, 0, 0, 1, 0), "ID_PFR0_EL1"},
	{S(3, 0, 0, 1, 1), "ID_PFR1_EL1"},
	{S(3, 0, 0, 1, 2), "ID_DFR0_EL1"},
	{S(3, 0, 0, 1, 3), "ID_AFR0_EL1"},
	{S(3, 0, 0, 1, 4), "ID_MMFR0_EL1"},
	{S(3, 0, 0, 1, 5), "ID_MMFR1_EL1"},
	{S(3, 0, 0, 1, 6), "ID_MMFR2_EL1"},
	{S(3, 0, 0, 1, 7), "ID_MMFR3_EL1"},
	{S(3, 0, 0, 2, 0), "ID_ISAR0_EL1"},
	{S(3, 0, 0, 2, 1), "ID_ISAR1_EL1"},
	{S(3, 0, 0, 2, 2), "ID_ISAR2_EL1"},
	{S(3, 0, 0, 2, 3), "ID_ISAR3_EL1"},
	{S(3, 0, 0, 2, 4), "ID_ISAR4_EL1"},
	{S(3, 0, 0, 2, 5), "ID_ISAR5_EL1"},
	{S(3, 0, 0, 2, 6), "ID_MMFR4_EL1"},
	{S(3, 0, 0, 2, 7), "ID_ISAR6_EL1"},
	{S(3, 0, 0, 3, 0), "MVFR0_EL1"},
	{S(3, 0, 0, 3, 1), "MVFR1_EL1"},
	{S(3, 0, 0, 3, 2), "MVFR2_EL1"},
	{S(3, 0, 0, 3, 4), "ID_PFR2_EL1"},
	{S(3, 0, 0, 3, 5), "ID_DFR1_EL1"},
	{S(3, 0, 0, 3, 6), "ID_MMFR5_EL1"},
	{S(3, 0, 0, 4, 0), "ID_AA64PFR0_EL1"},
	{S(3, 0, 0, 4, 1), "ID_AA64PFR1_EL1"},
	{S(3, 0, 0, 4, 2), "ID_AA64PFR2_EL1"},
	{S(3, 0, 0, 4, 4), "ID_AA64ZFR0_EL1"},
	{S(3, 0, 0, 4, 5), "ID_AA64SMFR0_EL1"},
	{S(3, 0, 0, 4, 7), "ID_AA64FPFR0_EL1"},
	{S(3, 0, 0, 5, 0), "ID_AA64DFR0_EL1"},
	{S(3, 0, 0, 5, 1), "ID_AA64DFR1_EL1"},
	{S(3, 0, 0, 5, 2), "ID_AA64DFR2_EL1"},
	{S(3, 0, 0, 5, 4), "ID_AA64AFR0_EL1"},
	{S(3, 0, 0, 5, 5), "ID_AA64AFR1_EL1"},
	{S(3, 0, 0, 6, 0), "ID_AA64ISAR0_EL1"},
	{S(3, 0, 0, 6, 1), "ID_AA64ISAR1_EL1"},
	{S(3, 0, 0, 6, 2), "ID_AA64ISAR2_EL1"},
	{S(3, 0, 0, 6, 3), "ID_AA64ISAR3_EL1"},
	{S(3, 0, 0, 7, 0), "ID_AA64MMFR0_EL1"},
	{S(3, 0, 0, 7, 1), "ID_AA64MMFR1_EL1"},
	{S(3, 0, 0, 7, 2), "ID_AA64MMFR2_EL1"},
	{S(3, 0, 0, 7, 3), "ID_AA64MMFR3_EL1"},
	{S(3, 0, 0, 7, 4), "ID_AA64MMFR4_EL1"},
	{S(3, 1, 0, 0, 0), "CCSIDR_EL1"},
	{S(3, 1, 0, 0, 1), "CLIDR_EL1"},
	{S(3, 1, 0, 0, 7), "AIDR_EL1"},
	{S(3, 2, 0, 0, 0), "CSSELR_EL1"},
	{S(3, 3, 0, 0, 1), "CTR_EL0"},
	{S(3, 3, 0, 0, 7), "DCZID_EL0"},
	{S(3, 0, 1, 0, 0), "SCTLR_EL1"},
	{S(3, 0, 1, 0, 1), "ACTLR_EL1"},
	{S(3, 0, 1, 0, 2), "CPACR_EL1"},
	{S(3, 0, 2, 0, 0), "TTBR0_EL1"},
	{S(3, 0, 2, 0, 1), "TTBR1_EL1"},
	{S(3, 0, 2, 0, 2), "TCR_EL1"},
	{S(3, 0, 5, 1, 0), "AFSR0_EL1"},
	{S(3, 0, 5, 1, 1), "AFSR1_EL1"},
	{S(3, 0, 5, 2, 0), "ESR_EL1"},
	{S(3, 0, 6, 0, 0), "FAR_EL1"},
	{S(3, 0, 7, 4, 0), "PAR_EL1"},
	{S(3, 0, 9, 14, 1), "PMINTENSET_EL1"},
	{S(3, 0, 9, 14, 2), "PMINTENCLR_EL1"},
	{S(3, 0, 10, 2, 0), "MAIR_EL1"},
	{S(3, 0, 10, 3, 0), "AMAIR_EL1"},
	{S(3, 0, 12, 0, 0), "VBAR_EL1"},
	{S(3, 0, 12, 1, 1), "DISR_EL1"},
	{S(3, 0, 13, 0, 1), "CONTEXTIDR_EL1"},
	{S(3, 0, 13, 0, 4), "TPIDR_EL1"},
	{S(3, 0, 14, 1, 0), "CNTKCTL_EL1"},
	{S(3, 3, 9, 12, 0), "PMCR_EL0"},
	{S(3, 3, 9, 12, 1), "PMCNTENSET_EL0"},
	{S(3, 3, 9, 12, 2), "PMCNTENCLR_EL0"},
	{S(3, 3, 9, 12, 3), "PMOVSCLR_EL0"},
	{S(3, 3, 9, 12, 4), "PMSWINC_EL0"},
	{S(3, 3, 9, 12, 5), "PMSELR_EL0"},
	{S(3, 3, 9, 13, 0), "PMCCNTR_EL0"},
	{S(3, 3, 9, 14, 0), "PMUSERENR_EL0"},
	{S(3, 3, 9, 14, 3), "PMOVSSET_EL0"},
	{S(3, 3, 13, 0, 2), "TPIDR_EL0"},
	{S(3, 3, 13, 0, 3), "TPIDRRO_EL0"},
	{S(3, 3, 14, 0, 1), "CNTPCT_EL0"},
	{S(3, 3, 14, 2, 1), "CNTP_CTL_EL0"},
	{S(3, 3, 14, 2, 2), "CNTP_CVAL_EL0"},
	{S(3, 3, 14, 3, 1), "CNTV_CTL_EL0"},
	/* Swapped by accident in KVM's interface (asm/kvm.h). */
	{S(3, 3, 14, 0, 2), "CNTV_CVAL_EL0"},
	{S(3, 3, 14, 3, 2), "CNTVCT_EL0"},
	{S(3, 3, 14, 15, 7), "PMCCFILTR_EL0"},
	{S(2, 0, 0, 2, 0), "MDCCINT_EL1"},
	{S(2, 0, 0, 2, 2), "MDSCR_EL1"},
	{S(2, 0, 1, 1, 4), "OSLSR_EL1"},
	{S(3, 4, 3, 0, 0), "DACR32_EL2"},
	{S(3, 4, 5, 0, 1), "IFSR32_EL2"},
	{S(3, 4, 5, 3, 0), "FPEXC32_EL2"},
};

static const struct named firmware_names[] = {
	{0, "PSCI_VERSION"},
	{1, "SMCCC_WORKAROUND_1"},
	{2, "SMCCC_WORKAROUND_2"},
	{3, "SMCCC_WORKAROUND_3"},
};

static const struct named bitmap_names[] = {
	{0, "SMCCC_STANDARD"},
	{1, "SMCCC_HYPERVISOR"},
	{2, "SMCCC_VENDOR"},
};

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static const char *find(const struct named *names, size_t count, unsigned code)
{
	size_t i;

	for (i = 0; i < count; i++) {
		if (names[i].code == code) {
			return names[i].name;
		}
	}
	return NULL;
}

static void put(char *to, const char *name)
{
	snprintf(to, REGISTER_NAME, "%s", name);
}

static void system_name(unsigned code, char *to)
{
	const char *name = find(system_names, LENGTH(system_names), code);
	unsigned op0 = code >> 14 & 3, op1 = code >> 11 & 7, crn = code >> 7 & 15;
	unsigned crm = code >> 3 & 15, op2 = code & 7;

	if (name != NULL) {
		put(to, name);
	} else if (op0 == 2 && op1 == 0 && crn == 0 && op2 >= 4) {
		static const char kind[4][4] = {"BVR", "BCR", "WVR", "WCR"};

		snprintf(to, REGISTER_NAME, "DBG%s%u_EL1", kind[op2 - 4], crm);
	} else if (op0 == 3 && op1 == 3 && crn == 14 && crm >= 8 && crm < 12) {
		snprintf(to, REGISTER_NAME, "PMEVCNTR%u_EL0", (crm & 3) << 3 | op2);
	} else if (op0 == 3 && op1 == 3 && crn == 14 && crm >= 12) {
		snprintf(to, REGISTER_NAME, "PMEVTYPER%u_EL0", (crm & 3) << 3 | op2);
	} else {
		snprintf(to, REGISTER_NAME, "S%u_%u_C%u_C%u_%u", op0, op1, crn, crm, op2);
	}
}

/* Offsets in struct kvm_regs, in words of 32 bits. */
static void core_name(unsigned word, char *to)
{
	static const char after_pc[][9] = {"PSTATE",   "SP_EL1",   "ELR_EL1",  "SPSR_EL1",
					   "SPSR_ABT", "SPSR_UND", "SPSR_IRQ", "SPSR_FIQ"};

	if (word < 62) {
		snprintf(to, REGISTER_NAME, "X%u", word / 2);
	} else if (word < 66) {
		put(to, word < 64 ? "SP_EL0" : "PC");
	} else if (word < 82) {
		put(to, after_pc[(word - 66) / 2]);
	} else if (word >= 84 && word < 212) {
		snprintf(to, REGISTER_NAME, "V%u", (word - 84) / 4);
	} else {
		put(to, word == 212 ? "FPSR" : word == 213 ? "FPCR" : "core register");
	}
}

void register_name(uint64_t id, char ret_name[REGISTER_NAME])
{
	unsigned code = id & 0xffff;
	const char *name = NULL;

	switch ((id & ~ARCH_MASK & ~(UINT64_C(15) << SIZE_SHIFT)) >> 16) {
	case SPACE_CORE:
		core_name(code, ret_name);
		return;
	case SPACE_SYSTEM:
		system_name(code, ret_name);
		return;
	case SPACE_DEMUX:
		snprintf(ret_name, REGISTER_NAME, "CCSIDR_EL1[%u]", code & 0xff);
		return;
	case SPACE_FIRMWARE:
		name = find(firmware_names, LENGTH(firmware_names), code);
		break;
	case SPACE_BITMAP:
		name = find(bitmap_names, LENGTH(bitmap_names), code);
		break;
	default:
		break;
	}
	if (name != NULL) {
		put(ret_name, name);
	} else {
		snprintf(ret_name, REGISTER_NAME, "register %llx", (unsigned long long)id);
	}
}

unsigned register_size(uint64_t id)
{
	unsigned shift = id >> SIZE_SHIFT & 15;

	return (id & ARCH_MASK) == ARCH_ARM64 && shift <= SIZE_MAX_SHIFT ? 1U << shift : 0;
}
