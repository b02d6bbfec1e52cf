/* patience.h: is it worth looking out for a driver's next request for a moment, instead of sleeping
 * until it kicks? Pure: times are the caller's, in microseconds of a clock that never steps.
 *
 * A guest that waits for each block comes back with the next one some microseconds after it was
 * interrupted. To be woken for it costs more than the request itself: an exit of the guest, an
 * interrupt of another processor, a turn of the scheduler and of epoll. The kernel looks out
 * likewise for a halted vCPU (kvm.halt_poll_ns). Earned by requests that follow each other soon,
 * lost at once when none came, and then dearer to earn: who shares one processor with its vCPU
 * keeps what it waits for from running, and must find that out cheaply. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum {
	PATIENCE_WINDOW_US = 50, /* what is soon, and how long is looked out */
	PATIENCE_PRICE_MIN = 4, /* requests in a row that came soon */
	PATIENCE_PRICE_MAX = 256,
};

/* Zeroed: nothing is known yet. */
struct patience {
	uint64_t left_us; /* when the queue was left alone; 0: never */
	uint32_t soon; /* requests in a row that came within the window */
	uint32_t price; /* of them, to be worth it; 0: PATIENCE_PRICE_MIN */
};

/* The driver kicked. */
void patience_kicked(struct patience *p, uint64_t now_us);
/* Nothing is left to do: look out now? */
bool patience_pays(const struct patience *p);
/* After looking out: did something come? */
void patience_looked(struct patience *p, bool came);
/* The queue is left alone until the next kick. */
void patience_left(struct patience *p, uint64_t now_us);
