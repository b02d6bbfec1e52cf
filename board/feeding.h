/* feeding.h: when a watchdog is fed. Pure.
 *
 * The one who feeds is the loop that must turn: it asks in each turn, and feeds when it is due. A
 * loop that hangs asks no more, and the board is reset one timeout after it was last fed. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct feeding {
	uint64_t every_ms;
	uint64_t last_ms; /* boot clock; 0: never yet */
};

/* Four times in a timeout, but once a second is enough. */
struct feeding feeding_plan(unsigned timeout_s);
/* True: feed now; it is noted as done. */
bool feeding_due(struct feeding *f, uint64_t now_ms);
