/* madt.h: what firmware with ACPI says of the interrupt controller (there is no device tree then).
 * Pure. Source: ACPI 6.5, 5.2.12 (MADT), 5.2.12.14 (GICC), 5.2.12.15 (GICD). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct board_madt {
	bool present; /* there is a table, with a controller of Arm's in it */
	unsigned version; /* of the GIC: 2, 3, 4 */
	bool maintenance; /* every core has its maintenance interrupt, which KVM needs */
	bool virtual_interface; /* every core has GICV and GICH; GICv3 does without */
};

/* `table` may be anything, also cut off. */
void madt_parse(const uint8_t *table, size_t len, struct board_madt *ret);
