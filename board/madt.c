#include "board/madt.h"

#include <string.h>

enum {
	HEADER = 44, /* of the table: signature, length, ..., flags */
	GICC = 0x0b,
	GICC_SIZE = 76, /* ACPI 5.1; it has grown since */
	GICC_GICV = 40,
	GICC_GICH = 48,
	GICC_MAINTENANCE = 56,
	GICC_GICR = 60,
	GICD = 0x0c,
	GICD_SIZE = 24,
	GICD_VERSION = 20,
	GICR = 0x0e,
};

static uint64_t number(const uint8_t *at, unsigned bytes)
{
	uint64_t value = 0;

	while (bytes-- > 0)
		value = value << 8 | at[bytes];
	return value;
}

struct cores {
	unsigned count, maintained, virtual;
	bool redistributors;
};

static void core_parse(const uint8_t *entry, struct cores *cores)
{
	cores->count++;
	cores->maintained += number(entry + GICC_MAINTENANCE, 4) != 0;
	cores->virtual += number(entry + GICC_GICV, 8) != 0 && number(entry + GICC_GICH, 8) != 0;
	cores->redistributors |= number(entry + GICC_GICR, 8) != 0;
}

void madt_parse(const uint8_t *table, size_t len, struct board_madt *ret)
{
	struct cores cores = {0};
	unsigned version = 0;
	size_t at = HEADER;

	*ret = (struct board_madt){0};
	if (len < HEADER || memcmp(table, "APIC", 4) != 0)
		return;
	if (number(table + 4, 4) < len)
		len = number(table + 4, 4);
	while (len >= 2 && at <= len - 2) {
		size_t size = table[at + 1];

		if (size < 2 || size > len - at)
			break;
		if (table[at] == GICC && size >= GICC_SIZE)
			core_parse(table + at, &cores);
		else if (table[at] == GICD && size >= GICD_SIZE)
			version = table[at + GICD_VERSION];
		else if (table[at] == GICR)
			cores.redistributors = true;
		at += size;
	}
	if (cores.count == 0)
		return;
	ret->present = true;
	/* Tables of ACPI 5.0 do not say; only GICv3 has redistributors. */
	ret->version = version != 0 ? version : cores.redistributors ? 3 : 2;
	ret->maintenance = cores.maintained == cores.count;
	ret->virtual_interface = cores.virtual == cores.count;
}
