#include "hv/tree.h"

#include <errno.h>
#include <libfdt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Names are ours and short. */
enum { NAME_MAX_LEN = 64 };

static void note(struct tree *t, int rv)
{
	if (rv < 0 && t->error == 0) {
		t->error = rv;
	}
}

void tree_begin(struct tree *t, void *blob, size_t size)
{
	*t = (struct tree){.blob = blob, .size = size, .phandle_gic = 1};
	note(t, fdt_create(blob, (int)size));
	note(t, fdt_finish_reservemap(blob));
	note(t, fdt_begin_node(blob, ""));
}

int tree_finish(struct tree *t, size_t *ret_size)
{
	note(t, fdt_end_node(t->blob));
	note(t, fdt_finish(t->blob));
	if (t->error != 0) {
		return -ENOSPC;
	}
	*ret_size = fdt_totalsize(t->blob);
	return 0;
}

void tree_open(struct tree *t, const char *format, ...)
{
	char name[NAME_MAX_LEN];
	va_list args;

	va_start(args, format);
	vsnprintf(name, sizeof(name), format, args);
	va_end(args);
	note(t, fdt_begin_node(t->blob, name));
}

void tree_close(struct tree *t)
{
	note(t, fdt_end_node(t->blob));
}

void tree_empty(struct tree *t, const char *name)
{
	note(t, fdt_property(t->blob, name, NULL, 0));
}

void tree_u32(struct tree *t, const char *name, uint32_t value)
{
	note(t, fdt_property_u32(t->blob, name, value));
}

void tree_u64(struct tree *t, const char *name, uint64_t value)
{
	note(t, fdt_property_u64(t->blob, name, value));
}

void tree_cells(struct tree *t, const char *name, const uint32_t *cells, size_t count)
{
	void *at;
	size_t i;
	int rv = fdt_property_placeholder(t->blob, name, (int)(count * sizeof(uint32_t)), &at);

	note(t, rv);
	for (i = 0; rv == 0 && i < count; i++) {
		fdt32_st((uint8_t *)at + i * sizeof(uint32_t), cells[i]);
	}
}

void tree_text(struct tree *t, const char *name, const char *text)
{
	note(t, fdt_property_string(t->blob, name, text));
}

void tree_bytes(struct tree *t, const char *name, const void *data, size_t len)
{
	note(t, fdt_property(t->blob, name, data, (int)len));
}

void tree_regs(struct tree *t, const uint64_t (*pairs)[2], size_t count)
{
	uint32_t cells[16];
	size_t i;

	if (count > 4) {
		note(t, -FDT_ERR_NOSPACE);
		return;
	}
	for (i = 0; i < count; i++) {
		cells[4 * i] = (uint32_t)(pairs[i][0] >> 32);
		cells[4 * i + 1] = (uint32_t)pairs[i][0];
		cells[4 * i + 2] = (uint32_t)(pairs[i][1] >> 32);
		cells[4 * i + 3] = (uint32_t)pairs[i][1];
	}
	tree_cells(t, "reg", cells, 4 * count);
}

void tree_reg(struct tree *t, uint64_t base, uint64_t size)
{
	const uint64_t pair[1][2] = {{base, size}};

	tree_regs(t, pair, 1);
}

void tree_spi(struct tree *t, uint32_t spi, enum tree_trigger trigger)
{
	const uint32_t cells[] = {0, spi, (uint32_t)trigger};

	tree_cells(t, "interrupts", cells, 3);
}
