/* lag.h: does a board keep up with the log? Pure. */
#pragma once
#include <stdint.h>

/* All 0: nothing was said yet. */
struct lag {
	uint64_t applied; /* as it last said, at `noted_ms` */
	uint64_t noted_ms;
	uint64_t
		index; /* what the leader had applied at `since_ms`; once it has that, it is anew */
	uint64_t since_ms;
};

/* It says how far its model is; `leader`: how far the leader's is now. One that was silent for a
 * lease has just come back, and is given time. */
void lag_note(struct lag *l, uint64_t applied, uint64_t leader, uint64_t now_ms);
/* For so long, when it spoke last, its model had not had what the leader's had then; 0: it keeps
 * up. */
uint64_t lag_ms(const struct lag *l);
