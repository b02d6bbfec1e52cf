/* pl011.h: the UART of the early console (Arm PrimeCell UART PL011, DDI 0183): data, flags,
 * interrupt. Every character is an exit: the guest's console moves to virtio-console as soon as it
 * can. */
#pragma once
#include <stdint.h>

#include "hv/bus.h"
#include "hv/tree.h"

enum { PL011_FIFO = 32 };

struct pl011 {
	/* What the guest sends goes here; `data` is one character. */
	void (*output)(void *arg, uint8_t data);
	void (*irq)(void *arg, int level);
	void *arg;
	uint32_t cr, lcr, ibrd, fbrd, ifls, imsc, ris;
	uint8_t fifo[PL011_FIFO];
	unsigned head, count; /* of the fifo */
	int level; /* last told to irq() */
};

void pl011_init(struct pl011 *p, void (*output)(void *arg, uint8_t data),
		void (*irq)(void *arg, int level), void *arg);
/* Characters typed by a person. Returns how many fitted. */
unsigned pl011_input(struct pl011 *p, const uint8_t *data, unsigned len);
struct bus_device pl011_device(struct pl011 *p);
void pl011_tree(const struct pl011 *p, struct tree *t);
