/* bare.c: the smallest guest: says one line on the PL011 and does the one thing its command line
 * says.
 *
 * /chosen/bootargs holds one of: off, reset (PSCI, by hvc as KVM has it), later (reset, half a
 * second after), lie, spin, idle, held, tick, tock. It runs with the MMU off, on the first vCPU, a
 * few microseconds after the VM starts: for what is to be done to hundreds of VMs, or to one that
 * does not cooperate.
 *
 * `lie` says LIED when it has written that it was kept from running for ever, where KVM tells how
 * long it was (Arm DEN0057A), and waits.
 *
 * `held` has two interrupts pending and takes none, the virtual timer's level and an SGI to itself,
 * says HELD, waits for a character, and then says which the interrupt controller gives it.
 *
 * `tick`: TICK n BOARD BEGUN AT, four a second, for ever; `tock`: one in four seconds. BEGUN and AT
 * are of the board's own counter, that of all its guests; BEGUN tells one life of the VM from
 * another. BOARD is the revision of the processor: the boards of watched.py have their numbers
 * there. */
#include <stdint.h>

#define PL011 UINT64_C(0x09000000) /* hv/layout.h: LAYOUT_PL011 */
#define STOLEN UINT64_C(0x09030000) /* LAYOUT_STOLEN */
#define GICD UINT64_C(0x08000000)
#define GICC UINT64_C(0x08010000)
#define GICR UINT64_C(0x08020000)
#define PSCI_SYSTEM_OFF UINT64_C(0x84000008)
#define PSCI_SYSTEM_RESET UINT64_C(0x84000009)

enum { FDT_MAGIC = 0xd00dfeed, FDT_BEGIN_NODE = 1, FDT_PROP = 3, FDT_NOP = 4, FDT_END_NODE = 2 };

enum { UART_DR = 0, UART_FR = 0x18, UART_EMPTY = 0x10 };
enum { SGI = 3, TIMER = 27, NONE = 1020, PATIENCE = 1000 };

void bare_main(const uint32_t *tree, uint64_t counter);

static volatile uint32_t *at(uint64_t address)
{
	return (volatile uint32_t *)address;
}

static void character_put(char c)
{
	*at(PL011 + UART_DR) = (uint8_t)c;
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

/* The interrupt controller with system registers is a GICv3. */
static int has_v3(void)
{
	uint64_t features;
	__asm__("mrs %0, id_aa64pfr0_el1" : "=r"(features));
	return features >> 24 & 15;
}

/* IHI 0048 (GICv2) and IHI 0069 (GICv3): on, both interrupts enabled, one sent to oneself. */
static void interrupts_begin_v2(void)
{
	*at(GICD) = 3;
	*at(GICD + 0x100) = 1 << TIMER | 1 << SGI;
	*at(GICC + 4) = 0xff;
	*at(GICC) = 3;
	*at(GICD + 0xf00) = 2 << 24 | SGI;
}

static void interrupts_begin_v3(void)
{
	*at(GICD) = 0x12;
	*at(GICR + 0x14) = 0;
	*at(GICR + 0x10100) = 1 << TIMER | 1 << SGI;
	__asm__ volatile("msr s3_0_c12_c12_5, %0; isb" : : "r"(UINT64_C(7)));
	__asm__ volatile("msr s3_0_c4_c6_0, %0" : : "r"(UINT64_C(0xff)));
	__asm__ volatile("msr s3_0_c12_c12_7, %0; isb" : : "r"(UINT64_C(1)));
	__asm__ volatile("msr s3_0_c12_c11_5, %0; isb" : : "r"((uint64_t)SGI << 24 | 1));
}

static uint64_t interrupt_take(int v3)
{
	uint64_t number;
	if (!v3)
		return *at(GICC + 0xc) & 0x3ff;
	__asm__ volatile("mrs %0, s3_0_c12_c12_0; dsb sy" : "=r"(number));
	return number;
}

static void interrupt_end(int v3, uint64_t number)
{
	if (v3)
		__asm__ volatile("msr s3_0_c12_c12_1, %0; isb" : : "r"(number));
	else
		*at(GICC + 0x10) = (uint32_t)number;
}

static void interrupts_begin(int v3)
{
	if (v3)
		interrupts_begin_v3();
	else
		interrupts_begin_v2();
}

/* Its condition is met from this count of the VM's own counter on. */
static void timer_set(uint64_t control, uint64_t count)
{
	__asm__ volatile("msr cntv_cval_el0, %0; msr cntv_ctl_el0, %1; isb"
			 :
			 : "r"(count), "r"(control));
}

static void held(void)
{
	int v3 = has_v3(), tries;
	interrupts_begin(v3);
	timer_set(1, 0);
	text_put("HELD\n");
	while (*at(PL011 + UART_FR) & UART_EMPTY)
		;
	for (tries = 0; tries < PATIENCE; tries++) {
		uint64_t number = interrupt_take(v3);
		if (number >= NONE)
			continue;
		if (number == TIMER)
			timer_set(0, 0);
		interrupt_end(v3, number);
		text_put("TAKEN ");
		number_put(number);
		text_put("\n");
	}
	text_put("ALL\n");
}

/* The board's, not the VM's: KVM lets guests read it. */
static uint64_t board_counter(void)
{
	uint64_t count;
	__asm__ volatile("isb; mrs %0, cntpct_el0" : "=r"(count) : : "memory");
	return count;
}

static void field_put(uint64_t number)
{
	text_put(" ");
	number_put(number);
}

/* The timer's interrupt ends a wait though no handler takes it; one that is not enabled would not.
 */
static void rest(int v3, uint64_t counts)
{
	uint64_t control, number, now;

	__asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(now));
	timer_set(1, now + counts);
	do {
		__asm__ volatile("wfi; isb; mrs %0, cntv_ctl_el0" : "=r"(control) : : "memory");
	} while (!(control & 4));
	number = interrupt_take(v3);
	timer_set(0, 0);
	interrupt_end(v3, number);
}

static _Noreturn void ticks(uint64_t counts)
{
	uint64_t begun = board_counter(), processor, number;
	int v3 = has_v3();

	__asm__("mrs %0, midr_el1" : "=r"(processor));
	interrupts_begin(v3);
	while ((number = interrupt_take(v3)) < NONE)
		interrupt_end(v3, number); /* the one to oneself */
	for (uint64_t n = 1;; n++) {
		text_put("TICK");
		field_put(n);
		field_put(processor & 15);
		field_put(begun);
		field_put(board_counter());
		text_put("\n");
		rest(v3, counts);
	}
}

static uint64_t counter_now(void)
{
	uint64_t now;

	__asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(now));
	return now;
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
	while (same(order, "later") && counter_now() - counter < hz / 2)
		;
	if (same(order, "reset") || same(order, "later"))
		psci_call(PSCI_SYSTEM_RESET);
	if (same(order, "lie")) {
		*(volatile uint64_t *)(STOLEN + 8) = UINT64_C(1) << 62;
		text_put("LIED\n");
	}
	if (same(order, "held"))
		held();
	if (same(order, "tick"))
		ticks(hz / 4);
	if (same(order, "tock"))
		ticks(hz * 4);
	while (same(order, "spin"))
		__asm__ volatile("" : : : "memory");
	/* idle, or an order not known: returns to head.S, which waits for interrupts for ever. */
}
