/* bare.c: the smallest guest: says one line on the PL011 and does the one thing its command line
 * says.
 *
 * /chosen/bootargs holds one of: off, reset (PSCI, by hvc as KVM has it), spin, idle. It runs with
 * the MMU off, on the first vCPU, a few microseconds after the VM starts: for what is to be done to
 * hundreds of VMs, or to one that does not cooperate. */
#include <stdint.h>

#define PL011 UINT64_C(0x09000000) /* hv/layout.h: LAYOUT_PL011 */
#define PSCI_SYSTEM_OFF UINT64_C(0x84000008)
#define PSCI_SYSTEM_RESET UINT64_C(0x84000009)

enum { FDT_MAGIC = 0xd00dfeed, FDT_BEGIN_NODE = 1, FDT_PROP = 3, FDT_NOP = 4, FDT_END_NODE = 2 };

void bare_main(const uint32_t *tree, uint64_t counter);

static void character_put(char c)
{
	*(volatile uint32_t *)PL011 = (uint8_t)c;
}

static void text_put(const char *text)
{
	while (*text)
		character_put(*text++);
}

static void number_put(uint64_t number)
{
	if (number >= 10)
		number_put(number / 10);
	character_put((char)('0' + number % 10));
}

static uint32_t big_endian(uint32_t value)
{
	return __builtin_bswap32(value);
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static const uint32_t *name_skip(const uint32_t *at)
{
	const char *text = (const char *)at;
	while (*text)
		text++;
	return (const uint32_t *)(((uintptr_t)text + 4) & ~(uintptr_t)3);
}

/* The value of the first property called bootargs: only /chosen has one. */
static const char *bootargs_find(const uint32_t *tree)
{
	if (big_endian(tree[0]) != FDT_MAGIC)
		return "";
	const uint32_t *at = tree + big_endian(tree[2]) / 4;
	const char *names = (const char *)tree + big_endian(tree[3]);
	for (;;) {
		uint32_t token = big_endian(*at++);
		if (token == FDT_BEGIN_NODE) {
			at = name_skip(at);
		} else if (token == FDT_PROP) {
			uint32_t length = big_endian(at[0]);
			const char *value = (const char *)(at + 2);
			if (same(names + big_endian(at[1]), "bootargs"))
				return value;
			at += 2 + (length + 3) / 4;
		} else if (token != FDT_NOP && token != FDT_END_NODE) {
			return "";
		}
	}
}

static void psci_call(uint64_t function)
{
	register uint64_t x0 __asm__("x0") = function;
	__asm__ volatile("hvc #0" : "+r"(x0) : : "x1", "x2", "x3", "memory");
}

void bare_main(const uint32_t *tree, uint64_t counter)
{
	const char *order = bootargs_find(tree);
	uint64_t hz;
	__asm__("mrs %0, cntfrq_el0" : "=r"(hz));
	text_put("BARE ");
	text_put(order);
	text_put(" counter=");
	number_put(counter);
	text_put(" hz=");
	number_put(hz);
	text_put("\n");
	if (same(order, "off"))
		psci_call(PSCI_SYSTEM_OFF);
	if (same(order, "reset"))
		psci_call(PSCI_SYSTEM_RESET);
	while (same(order, "spin"))
		__asm__ volatile("" : : : "memory");
	/* idle, or an order not known: returns to head.S, which waits for interrupts for ever. */
}
