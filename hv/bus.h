/* bus.h: which device answers at a guest physical address.
 *
 * Filled at start-up, read by vCPU threads; never changes while they run. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { BUS_DEVICES_MAX = 40 };

/* Registers of one device. `offset` is below the size given to bus_add and offset + len does not
 * pass it; len is 1, 2, 4 or 8. Called with the device lock held. A read of nothing gives 0. */
struct bus_device {
	const char *name;
	uint64_t (*read)(void *device, uint64_t offset, unsigned len);
	void (*write)(void *device, uint64_t offset, uint64_t value, unsigned len);
	/* The last write is not done: the vCPU must not go on. Called again, until it says false;
	 * others have the lock meanwhile. NULL: writes are done at once. */
	bool (*busy)(void *device);
	void *device;
};

struct bus_slot {
	uint64_t base, size;
	struct bus_device device;
};

struct bus {
	struct bus_slot slot[BUS_DEVICES_MAX];
	unsigned count;
};

/* Ranges do not overlap and there is room (asserted: they come from layout.h). */
void bus_add(struct bus *bus, uint64_t base, uint64_t size, struct bus_device device);
/* The slot with all of [address, address + len), or NULL. */
const struct bus_slot *bus_find(const struct bus *bus, uint64_t address, unsigned len);
