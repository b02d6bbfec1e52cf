/* sandbox_filter.h: the list of system calls as the kernel's filter program. Made while building
 * (main_sandbox_filter.c says what is allowed and why): at run time libseccomp would cost more
 * instructions and memory than all the rest of a VM's start (docs/decisions/0007-vm-sandbox.md). */
#pragma once
#include <linux/filter.h>
#include <stddef.h>

/* Stands in the program where the process's own id is compared. */
#define SANDBOX_FILTER_PID 0x7ead01d5U

extern const struct sock_filter sandbox_filter[];
extern const size_t sandbox_filter_len;
