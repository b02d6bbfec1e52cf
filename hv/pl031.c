#include "hv/pl031.h"

#include "hv/layout.h"
#include "lib/clock.h"

/* Registers, DDI 0224 table 3-1. */
enum { DR = 0x00, MR = 0x04, LR = 0x08, CR = 0x0c, IMSC = 0x10, ID = 0xfe0 };
enum { PHANDLE_CLOCK = 2 }; /* the PL011's fixed clock */

static uint64_t read_register(void *device, uint64_t offset, unsigned len)
{
	static const uint8_t id[] = {0x31, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1};
	const struct pl031 *p = device;

	(void)len;
	switch (offset) {
	case DR:
	case LR:
		return (uint32_t)(clock_realtime_ms() / 1000 + p->offset_s);
	case MR:
		return p->match;
	case CR:
		return 1;
	case IMSC:
		return p->mask;
	default:
		return offset >= ID && offset % 4 == 0 && offset < ID + 4 * sizeof(id)
			       ? id[(offset - ID) / 4]
			       : 0;
	}
}

static void write_register(void *device, uint64_t offset, uint64_t value, unsigned len)
{
	struct pl031 *p = device;

	(void)len;
	switch (offset) {
	case MR:
		p->match = (uint32_t)value;
		break;
	case LR:
		p->offset_s = (int64_t)(uint32_t)value - clock_realtime_ms() / 1000;
		break;
	case IMSC:
		p->mask = value & 1;
		break;
	default:
		break;
	}
}

struct bus_device pl031_device(struct pl031 *p)
{
	return (struct bus_device){
		.name = "pl031", .read = read_register, .write = write_register, .device = p};
}

void pl031_tree(const struct pl031 *p, struct tree *t)
{
	(void)p;
	tree_open(t, "pl031@%llx", (unsigned long long)LAYOUT_PL031);
	tree_bytes(t, "compatible", "arm,pl031\0arm,primecell", sizeof("arm,pl031\0arm,primecell"));
	tree_reg(t, LAYOUT_PL031, 0x1000);
	tree_spi(t, LAYOUT_SPI_PL031, TREE_LEVEL);
	tree_u32(t, "clocks", PHANDLE_CLOCK);
	tree_text(t, "clock-names", "apb_pclk");
	tree_close(t);
}
