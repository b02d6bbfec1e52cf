#include "cli/board.h"

#include <inttypes.h>
#include <stdio.h>

#include "cli/grid.h"
#include "lib/buf.h"

static void size_text(uint64_t bytes, char text[24])
{
	static const char units[][4] = {"KiB", "MiB", "GiB", "TiB"};
	double value = (double)bytes / 1024;
	unsigned unit = 0;

	while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
		value /= 1024;
		unit++;
	}
	snprintf(text, 24, value < 10 && unit > 0 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

static void processor_print(const Tb__BoardFacts *f)
{
	struct buf text = {0};

	for (size_t i = 0; i < f->n_cores; i++)
		buf_printf(&text, "%s%" PRIu32 " x %s", i > 0 ? ", " : "", f->cores[i]->count,
			   f->cores[i]->name);
	if (f->soc[0] != '\0' || text.len > 0)
		field_print("Processor", "%s%s%s", f->soc,
			    f->soc[0] != '\0' && text.len > 0 ? ": " : "", buf_string(&text));
	buf_free(&text);
}

static void storage_print(const Tb__BoardStorage *s)
{
	char size[24] = "";

	if (s == NULL)
		return;
	if (s->bytes != 0)
		size_text(s->bytes, size);
	field_print("Storage", "%s%s%s%s%s%s%s%s%s", s->kind[0] != '\0' ? s->kind : "a disk",
		    s->device[0] != '\0' ? " " : "", s->device, s->model[0] != '\0' ? " (" : "",
		    s->model, s->model[0] != '\0' ? ")" : "", size[0] != '\0' ? ", " : "", size,
		    s->read_only ? ", read only" : "");
}

static void links_print(const Tb__BoardFacts *f)
{
	struct buf text = {0};

	for (size_t i = 0; i < f->n_links; i++) {
		buf_printf(&text, "%s%s %s", i > 0 ? ", " : "", f->links[i]->name,
			   f->links[i]->up ? "up" : "down");
		if (f->links[i]->mbits != 0)
			buf_printf(&text, " (%" PRIu32 " Mbit/s)", f->links[i]->mbits);
	}
	if (text.len > 0)
		field_print("Network", "%s", buf_string(&text));
	buf_free(&text);
}

static void strain_print(const Tb__BoardFacts *f)
{
	if (f->temperature_known)
		field_print("Temperature",
			    "%" PRId32 " degrees Celsius, at most %" PRId32
			    " in the last two minutes",
			    f->temperature, f->hottest);
	if (f->under_voltage)
		field_print("Power", "too little voltage in the last two minutes");
	if (f->throttled)
		field_print("Speed", "slowed down in the last two minutes, for heat or want of "
				     "power");
}

static void watchdog_print(const Tb__BoardWatchdog *w)
{
	if (w == NULL)
		return;
	if (w->armed)
		field_print("Watchdog", "armed, %" PRIu32 " s%s%s%s%s", w->timeout,
			    w->identity[0] != '\0' ? " (" : "", w->identity,
			    w->identity[0] != '\0' ? ")" : "",
			    w->no_way_out ? "; it cannot be disarmed (nowayout)" : "");
	else if (w->problem[0] != '\0')
		field_print("Watchdog", "not armed: %s", w->problem);
	else if (w->present)
		field_print("Watchdog", "off%s%s%s", w->identity[0] != '\0' ? " (" : "",
			    w->identity, w->identity[0] != '\0' ? ")" : "");
}

void board_print(const Tb__BoardFacts *f)
{
	char size[24];

	if (f->model[0] != '\0')
		field_print("Board", "%s", f->model);
	if (f->serial[0] != '\0')
		field_print("Serial", "%s", f->serial);
	processor_print(f);
	if (f->memory_bytes != 0) {
		size_text(f->memory_bytes, size);
		field_print("Memory", "%s", size);
	}
	if (f->kernel[0] != '\0')
		field_print("Kernel", "%s", f->kernel);
	field_print("Hosting", "%s", f->hosting_reason);
	storage_print(f->storage);
	links_print(f);
	strain_print(f);
	watchdog_print(f->watchdog);
}
