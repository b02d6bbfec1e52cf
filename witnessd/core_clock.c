/* core_clock.c: the time of the cluster as every thread may ask for it. */
#include "lib/clock.h"
#include "witnessd/core_internal.h"

bool core_clock_can_be(int64_t ms)
{
	return ms >= CORE_CLOCK_FIRST_MS && ms < CORE_CLOCK_LAST_MS;
}

bool core_clock_plausible(void)
{
	return core_clock_can_be(clock_realtime_ms());
}

int64_t core_clock_from(int64_t offset_ms, int64_t floor_ms)
{
	int64_t now = floor_ms;

	if (offset_ms != 0)
		now = (int64_t)clock_boottime_ms() + offset_ms;
	else if (core_clock_plausible())
		now = clock_realtime_ms();
	return now > floor_ms ? now : floor_ms;
}

int64_t core_view_now_ms(const struct core_view *v)
{
	return core_clock_from(atomic_load(&v->clock_offset_ms), atomic_load(&v->clock_floor_ms));
}

int64_t core_valid_from_ms(int64_t now_ms)
{
	int64_t own = clock_realtime_ms();

	return core_clock_plausible() && own < now_ms ? own : now_ms;
}
