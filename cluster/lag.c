#include "cluster/lag.h"

#include "cluster/limits.h"

void lag_note(struct lag *l, uint64_t applied, uint64_t leader, uint64_t now_ms)
{
	if (applied >= l->index || now_ms - l->noted_ms >= LEASE_LENGTH_MS) {
		l->index = leader;
		l->since_ms = now_ms;
	}
	l->applied = applied;
	l->noted_ms = now_ms;
}

uint64_t lag_ms(const struct lag *l)
{
	return l->applied < l->index ? l->noted_ms - l->since_ms : 0;
}
