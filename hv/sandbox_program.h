/* sandbox_program.h: rules on system calls as a filter program that is short and soon understood.
 *
 * When the kernel takes a program it translates each instruction (900 instructions of its own) and
 * tries every number of a system call once, to know those that are allowed whatever their arguments
 * (20 for each instruction on the way). libseccomp's program for the same rules costs a VM's start
 * 310,000 instructions; it is what this one is compared with (main_sandbox_filter.c). Pure. */
#pragma once
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>

enum { PROGRAM_CONDITIONS = 2, PROGRAM_CALLS = 512, PROGRAM_RULES = 128 };

/* Argument `number`, masked, is `value`; the mask is not 0. */
struct program_condition {
	unsigned number;
	uint64_t mask, value;
};

/* Allows a call if all conditions hold. There may be several for one call: any of them. */
struct program_rule {
	unsigned call; /* below PROGRAM_CALLS */
	unsigned count; /* of conditions; 0: always */
	struct program_condition conditions[PROGRAM_CONDITIONS];
};

/* Allows what the rules say on `arch` (AUDIT_ARCH_...), ends the process for all else. The order of
 * a call's rules is the order in which they are tried. How many instructions; 0: more than `room`,
 * or too far to jump. At most PROGRAM_RULES rules. */
size_t program_make(const struct program_rule *rules, size_t count, uint32_t arch,
		    struct sock_filter *ret, size_t room);
/* What the program says (SECCOMP_RET_...): for programs that only load, compare, mask and return.
 */
uint32_t program_run(const struct sock_filter *program, size_t len,
		     const struct seccomp_data *data);
