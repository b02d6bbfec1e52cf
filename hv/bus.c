#include "hv/bus.h"

#include <assert.h>
#include <stddef.h>

void bus_add(struct bus *bus, uint64_t base, uint64_t size, struct bus_device device)
{
	unsigned i;

	assert(bus->count < BUS_DEVICES_MAX);
	for (i = 0; i < bus->count; i++) {
		const struct bus_slot *s = &bus->slot[i];

		assert(base + size <= s->base || s->base + s->size <= base);
	}
	bus->slot[bus->count++] = (struct bus_slot){.base = base, .size = size, .device = device};
}

const struct bus_slot *bus_find(const struct bus *bus, uint64_t address, unsigned len)
{
	unsigned i;

	for (i = 0; i < bus->count; i++) {
		const struct bus_slot *s = &bus->slot[i];

		if (address >= s->base && address - s->base < s->size) {
			return len <= s->size - (address - s->base) ? s : NULL;
		}
	}
	return NULL;
}
