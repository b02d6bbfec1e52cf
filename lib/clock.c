#include "lib/clock.h"

#include <assert.h>
#include <stdio.h>
#include <time.h>

static int64_t clock_read_ms(clockid_t id)
{
	struct timespec now;

	if (clock_gettime(id, &now) != 0)
		assert(!"a clock that every Linux has");
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

uint64_t clock_boottime_ms(void)
{
	return (uint64_t)clock_read_ms(CLOCK_BOOTTIME);
}

int64_t clock_realtime_ms(void)
{
	return clock_read_ms(CLOCK_REALTIME);
}

void clock_format_utc(int64_t realtime_ms, char text[32])
{
	time_t seconds = (time_t)(realtime_ms / 1000);
	int millis = (int)(realtime_ms % 1000);
	struct tm utc;

	if (millis < 0) {
		millis += 1000;
		seconds--;
	}
	if (gmtime_r(&seconds, &utc) == NULL || utc.tm_year > 9999 - 1900 || utc.tm_year < -1900) {
		snprintf(text, 32, "out-of-range");
		return;
	}
	/* Not strftime, which brings locales into static programs. The remainders tell the compiler
	 * that it fits. */
	snprintf(text, 32, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ",
		 (unsigned)(utc.tm_year + 1900) % 10000, (unsigned)(utc.tm_mon + 1) % 100,
		 (unsigned)utc.tm_mday % 100, (unsigned)utc.tm_hour % 100,
		 (unsigned)utc.tm_min % 100, (unsigned)utc.tm_sec % 100, (unsigned)millis % 1000);
}
