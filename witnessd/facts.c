#include "witnessd/facts.h"

#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

static int32_t degrees(int32_t mc)
{
	return (mc + (mc < 0 ? -500 : 500)) / 1000;
}

void facts_lately_note(struct facts_lately *l, const struct board_condition *c, uint64_t now_ms)
{
	if (c->under_voltage) {
		l->under_voltage = true;
		l->under_voltage_ms = now_ms;
	}
	if (c->throttled) {
		l->throttled = true;
		l->throttled_ms = now_ms;
	}
	if (!c->temperature_known) {
		l->hottest_count = 0;
		return;
	}
	if (l->hottest_count == 0 || now_ms - l->window_ms >= FACTS_LATELY_MS / 2) {
		bool follows = l->hottest_count > 0 && now_ms - l->window_ms < FACTS_LATELY_MS;

		l->hottest[1] = l->hottest[0];
		l->hottest_count = follows ? 2 : 1;
		l->hottest[0] = degrees(c->temperature_mc);
		l->window_ms = now_ms;
	}
	if (degrees(c->temperature_mc) > l->hottest[0])
		l->hottest[0] = degrees(c->temperature_mc);
}

static bool is_late(bool ever, uint64_t last_ms, uint64_t now_ms)
{
	return ever && now_ms - last_ms < FACTS_LATELY_MS;
}

static char *hosting_sentence(const struct board_facts *f)
{
	if (f->hosting == BOARD_HOSTING_NO)
		return mem_printf("this board can witness but not host virtual machines: %s",
				  f->hosting_why);
	if (f->hosting == BOARD_HOSTING_YES)
		return mem_printf("this board can host virtual machines (GICv%u)", f->gic_version);
	return mem_strdup("whether this board can host virtual machines is not known: its "
			  "interrupt controller is none that we know; \"witness-vm probe\" asks "
			  "its kernel");
}

static void cores_fill(Tb__BoardFacts *m, const struct board_cores *cores)
{
	m->cores = mem_array(cores->kind_count, sizeof(*m->cores));
	for (unsigned i = 0; i < cores->kind_count; i++) {
		m->cores[i] = mem_alloc(sizeof(*m->cores[i]));
		tb__board_cores__init(m->cores[i]);
		m->cores[i]->name = mem_strdup(cores->kinds[i].name);
		m->cores[i]->count = cores->kinds[i].count;
	}
	m->n_cores = cores->kind_count;
}

static void compatible_fill(Tb__BoardFacts *m, const struct board_facts *f)
{
	m->compatible = mem_array(f->compatible_count, sizeof(*m->compatible));
	for (unsigned i = 0; i < f->compatible_count; i++)
		m->compatible[i] = mem_strdup(f->compatible[i]);
	m->n_compatible = f->compatible_count;
}

static void storage_fill(Tb__BoardFacts *m, const struct board_storage *s)
{
	if (s->kind[0] == '\0' && s->device[0] == '\0')
		return;
	m->storage = mem_alloc(sizeof(*m->storage));
	tb__board_storage__init(m->storage);
	m->storage->kind = mem_strdup(s->kind);
	m->storage->device = mem_strdup(s->device);
	m->storage->model = mem_strdup(s->model);
	m->storage->bytes = s->bytes;
	m->storage->read_only = s->read_only;
	m->storage->wear_percent = s->wear_percent;
}

static void links_fill(Tb__BoardFacts *m, const struct board_condition *c)
{
	m->links = mem_array(c->link_count, sizeof(*m->links));
	for (unsigned i = 0; i < c->link_count; i++) {
		m->links[i] = mem_alloc(sizeof(*m->links[i]));
		tb__board_link__init(m->links[i]);
		m->links[i]->name = mem_strdup(c->links[i].name);
		m->links[i]->up = c->links[i].up;
		m->links[i]->mbits = c->links[i].mbits;
	}
	m->n_links = c->link_count;
}

static void strain_fill(Tb__BoardFacts *m, const struct board_condition *c,
			const struct facts_lately *l, uint64_t now_ms)
{
	m->temperature_known = c->temperature_known;
	if (c->temperature_known) {
		m->temperature = degrees(c->temperature_mc);
		m->hottest = l->hottest_count > 1 && l->hottest[1] > l->hottest[0] ? l->hottest[1]
										   : l->hottest[0];
		m->critical = (uint32_t)degrees(c->critical_mc);
	}
	m->under_voltage = is_late(l->under_voltage, l->under_voltage_ms, now_ms);
	m->throttled = is_late(l->throttled, l->throttled_ms, now_ms);
}

Tb__BoardFacts *facts_message(const struct board_facts *f, const struct facts_lately *lately,
			      uint64_t now_ms)
{
	Tb__BoardFacts *m = mem_alloc(sizeof(*m));

	tb__board_facts__init(m);
	m->model = mem_strdup(f->model);
	m->soc = mem_strdup(f->soc);
	m->serial = mem_strdup(f->serial);
	m->kernel = mem_strdup(f->kernel);
	m->memory_bytes = f->memory_bytes;
	m->gic_version = f->gic_version;
	m->gic_virtual = f->gic_virtual;
	m->hosting = f->hosting == BOARD_HOSTING_YES  ? TB__HOSTING__HOSTING_YES
		     : f->hosting == BOARD_HOSTING_NO ? TB__HOSTING__HOSTING_NO
						      : TB__HOSTING__HOSTING_UNKNOWN;
	m->hosting_reason = hosting_sentence(f);
	compatible_fill(m, f);
	cores_fill(m, &f->cores);
	storage_fill(m, &f->storage);
	links_fill(m, &f->condition);
	strain_fill(m, &f->condition, lately, now_ms);
	m->watchdog = mem_alloc(sizeof(*m->watchdog));
	tb__board_watchdog__init(m->watchdog);
	m->watchdog->present = f->watchdog.present;
	m->watchdog->identity = mem_strdup(f->watchdog.identity);
	m->watchdog->no_way_out = f->watchdog.no_way_out;
	return m;
}

bool facts_same(const Tb__BoardFacts *one, const Tb__BoardFacts *two)
{
	size_t len = tb__board_facts__get_packed_size(one);
	uint8_t *a, *b;
	bool same;

	if (len != tb__board_facts__get_packed_size(two))
		return false;
	a = mem_alloc(len);
	b = mem_alloc(len);
	tb__board_facts__pack(one, a);
	tb__board_facts__pack(two, b);
	same = memcmp(a, b, len) == 0;
	free(a);
	free(b);
	return same;
}
