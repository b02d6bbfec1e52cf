/* console.h: the guest's hvc0 (virtio 1.2, 5.3): one port, both ways, nobody waits for anybody.
 *
 *   guest --transmitq--> backlog (VCONSOLE_BACKLOG) --output()--> owner
 *   guest <--receiveq--------------------------- vconsole_input <-- owner
 *
 * Linux spins until a character it printed is taken, so a bounded backlog stands between it and a
 * slow reader. When that is full, chains stay in the ring: the guest waits, the VM process does
 * not. Input that the guest has no buffers for stays with the owner. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "hv/fault.h"
#include "hv/loop.h"
#include "hv/ram.h"
#include "hv/stats.h"
#include "hv/virtio/virtio.h"

enum { VCONSOLE_BACKLOG = 16 << 10 };

struct vconsole_config {
	/* Takes at most `len` bytes, returns how many. Fewer than `len`: the owner calls
	 * vconsole_output_ready once it can take more. `data` is ours and stands still. With the
	 * device lock held; must not block. NULL: everything is thrown away. */
	size_t (*output)(void *arg, const uint8_t *data, size_t len);
	/* After vconsole_input took less than it was offered: try again. May be NULL. */
	void (*input_ready)(void *arg);
	void *arg;
	uint16_t columns, rows; /* of the terminal; 0, 0: unknown */
};

struct vconsole;

int vconsole_create(const struct vconsole_config *config, const struct ram *ram, struct loop *loop,
		    const char *name, struct vconsole **ret, struct fault *fault);
struct virtio *vconsole_virtio(struct vconsole *c);
void vconsole_destroy(struct vconsole *c);
void vconsole_stats(const struct vconsole *c, const struct stats_sink *sink);

/* Typed characters for the guest: how many it had buffers for (0 before its driver runs and while
 * paused). Fewer than `len`: input_ready will be called. With the device lock held. */
size_t vconsole_input(struct vconsole *c, const uint8_t *data, size_t len);
/* output() can take more. With the device lock held. */
void vconsole_output_ready(struct vconsole *c);
/* The terminal changed its size. The size is always offered, so that a guest can go on where there
 * is another terminal, or none. With the device lock held. */
void vconsole_resize(struct vconsole *c, uint16_t columns, uint16_t rows);
