#include "board/feeding.h"

enum { PART = 4, EVERY_MAX_MS = 1000 };

struct feeding feeding_plan(unsigned timeout_s)
{
	uint64_t every_ms = (uint64_t)timeout_s * 1000 / PART;

	return (struct feeding){.every_ms = every_ms < EVERY_MAX_MS ? every_ms : EVERY_MAX_MS};
}

bool feeding_due(struct feeding *f, uint64_t now_ms)
{
	if (f->last_ms != 0 && now_ms - f->last_ms < f->every_ms)
		return false;
	f->last_ms = now_ms;
	return true;
}
