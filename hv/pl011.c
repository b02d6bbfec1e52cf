#include "hv/pl011.h"

#include "hv/layout.h"

/* Registers, DDI 0183 table 3-1. */
enum {
	DR = 0x000,
	FR = 0x018,
	IBRD = 0x024,
	FBRD = 0x028,
	LCR_H = 0x02c,
	CR = 0x030,
	IFLS = 0x034,
	IMSC = 0x038,
	RIS = 0x03c,
	MIS = 0x040,
	ICR = 0x044,
	ID = 0xfe0,
};
enum { FR_RXFE = 1 << 4, FR_RXFF = 1 << 6, FR_TXFE = 1 << 7 };
enum { INT_RX = 1 << 4, INT_TX = 1 << 5, INT_RT = 1 << 6 };
enum { CLOCK_HZ = 24000000, PHANDLE_CLOCK = 2 };

static void update(struct pl011 *p)
{
	int level = (p->ris & p->imsc) != 0;

	if (level != p->level) {
		p->level = level;
		p->irq(p->arg, level);
	}
}

void pl011_init(struct pl011 *p, void (*output)(void *arg, uint8_t data),
		void (*irq)(void *arg, int level), void *arg)
{
	*p = (struct pl011){.output = output, .irq = irq, .arg = arg, .cr = 0x300, .ifls = 0x12};
}

unsigned pl011_input(struct pl011 *p, const uint8_t *data, unsigned len)
{
	unsigned taken = 0;

	while (taken < len && p->count < PL011_FIFO) {
		p->fifo[(p->head + p->count++) % PL011_FIFO] = data[taken++];
	}
	if (p->count > 0) {
		p->ris |= INT_RX | INT_RT;
	}
	update(p);
	return taken;
}

static uint32_t data_take(struct pl011 *p)
{
	uint32_t value = 0;

	if (p->count > 0) {
		value = p->fifo[p->head];
		p->head = (p->head + 1) % PL011_FIFO;
		p->count--;
	}
	if (p->count == 0) {
		p->ris &= ~(uint32_t)(INT_RX | INT_RT);
	}
	update(p);
	return value;
}

/* The transmitter takes a character at once: it is always empty. */
static uint32_t flags(const struct pl011 *p)
{
	return FR_TXFE | (p->count == 0 ? FR_RXFE : 0) | (p->count == PL011_FIFO ? FR_RXFF : 0);
}

static uint64_t read_register(void *device, uint64_t offset, unsigned len)
{
	static const uint8_t id[] = {0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1};
	struct pl011 *p = device;

	(void)len;
	switch (offset) {
	case DR:
		return data_take(p);
	case FR:
		return flags(p);
	case IBRD:
		return p->ibrd;
	case FBRD:
		return p->fbrd;
	case LCR_H:
		return p->lcr;
	case CR:
		return p->cr;
	case IFLS:
		return p->ifls;
	case IMSC:
		return p->imsc;
	case RIS:
		return p->ris;
	case MIS:
		return p->ris & p->imsc;
	default:
		return offset >= ID && offset % 4 == 0 && offset < ID + 4 * sizeof(id)
			       ? id[(offset - ID) / 4]
			       : 0;
	}
}

static void write_register(void *device, uint64_t offset, uint64_t value, unsigned len)
{
	struct pl011 *p = device;
	uint32_t v = (uint32_t)value;

	(void)len;
	switch (offset) {
	case DR:
		p->output(p->arg, (uint8_t)v);
		p->ris |= INT_TX;
		break;
	case IBRD:
		p->ibrd = v & 0xffff;
		break;
	case FBRD:
		p->fbrd = v & 0x3f;
		break;
	case LCR_H:
		p->lcr = v & 0xff;
		break;
	case CR:
		p->cr = v & 0xffff;
		break;
	case IFLS:
		p->ifls = v & 0x3f;
		break;
	case IMSC:
		/* The transmitter is empty: whoever enables its interrupt gets one. */
		p->imsc = v & 0x7ff;
		p->ris |= INT_TX;
		break;
	case ICR:
		p->ris &= ~v;
		break;
	default:
		break;
	}
	update(p);
}

struct bus_device pl011_device(struct pl011 *p)
{
	return (struct bus_device){
		.name = "pl011", .read = read_register, .write = write_register, .device = p};
}

void pl011_tree(const struct pl011 *p, struct tree *t)
{
	static const uint32_t clocks[] = {PHANDLE_CLOCK, PHANDLE_CLOCK};

	(void)p;
	tree_open(t, "apb-pclk");
	tree_text(t, "compatible", "fixed-clock");
	tree_u32(t, "#clock-cells", 0);
	tree_u32(t, "clock-frequency", CLOCK_HZ);
	tree_text(t, "clock-output-names", "clk24mhz");
	tree_u32(t, "phandle", PHANDLE_CLOCK);
	tree_close(t);
	tree_open(t, "pl011@%llx", (unsigned long long)LAYOUT_PL011);
	tree_bytes(t, "compatible", "arm,pl011\0arm,primecell", sizeof("arm,pl011\0arm,primecell"));
	tree_reg(t, LAYOUT_PL011, 0x1000);
	tree_spi(t, LAYOUT_SPI_PL011, TREE_LEVEL);
	tree_cells(t, "clocks", clocks, 2);
	tree_bytes(t, "clock-names", "uartclk\0apb_pclk", sizeof("uartclk\0apb_pclk"));
	tree_close(t);
}
