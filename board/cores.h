/* cores.h: the cores of a board. Sources: Arm ARM (MIDR_EL1), the part numbers as
 * the Linux kernel has them (arch/arm64/include/asm/cputype.h). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { CORE_KINDS_MAX = 8 };

struct core_kind {
	char name[64]; /* "Cortex-A72 r0p3"; of a part that is not known "0x41/0xd99 r1p0" */
	uint64_t midr; /* 0: no Arm core */
	unsigned count;
};

struct board_cores {
	unsigned count; /* on line; 0: not known */
	unsigned
		kind_count; /* more than one: big.LITTLE; those after CORE_KINDS_MAX are not told */
	struct core_kind kinds[CORE_KINDS_MAX];
	bool arm; /* 64-bit Arm, as far as this is known */
};

/* MIDR_EL1 in sysfs, else /proc/cpuinfo. */
void cores_read(int root, struct board_cores *ret);
/* Name of the part without its revision; NULL: not known. */
const char *cores_part(uint64_t midr);
