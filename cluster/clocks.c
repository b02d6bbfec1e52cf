/* clocks.c */
#include "cluster/clocks.h"

int64_t clocks_majority_ms(const struct clocks *c)
{
	int64_t best = 0;

	for (unsigned i = 0; i < c->count; i++) {
		unsigned reached = 0;

		for (unsigned j = 0; j < c->count; j++)
			reached += c->heard_ms[j] >= c->heard_ms[i];
		if (reached > c->voters / 2 && c->heard_ms[i] > best)
			best = c->heard_ms[i];
	}
	return best;
}

int64_t clocks_now_ms(const struct clocks *c)
{
	int64_t majority = clocks_majority_ms(c);
	int64_t now = majority > c->newest_ms ? majority : c->newest_ms;

	/* A majority that lags behind what is known is not asked alone. */
	if (majority != 0 && majority >= c->reckoned_ms - CLOCKS_STEP_MS)
		return now;
	return c->own_ms > now && c->own_ms <= c->reckoned_ms + CLOCKS_STEP_MS ? c->own_ms : now;
}
