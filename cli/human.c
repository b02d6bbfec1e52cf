#include "cli/human.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const struct {
	const char *word;
	uint64_t ms;
} units[] = {
	{"day", 86400000}, {"hour", 3600000},  {"minute", 60000},
	{"second", 1000},  {"millisecond", 1},
};

void human_time(int64_t realtime_ms, char text[32])
{
	time_t seconds = (time_t)(realtime_ms / 1000);
	struct tm parts;

	if (realtime_ms == 0 || localtime_r(&seconds, &parts) == NULL) {
		snprintf(text, 32, "never");
		return;
	}
	strftime(text, 32, "%Y-%m-%d %H:%M:%S", &parts);
}

/* To the nearest of the smaller unit that is shown, so that what was made to last 90 days is not
 * said to last 89 days and 23 hours a moment later. */
static uint64_t rounded(uint64_t ms)
{
	size_t i = 0;

	while (units[i].ms > ms)
		i++;
	if (units[i].ms > 1000)
		i++;
	return (ms + units[i].ms / 2) / units[i].ms * units[i].ms;
}

void human_duration(uint64_t ms, char text[64])
{
	size_t used = 0;
	unsigned parts = 0;

	if (ms == 0) {
		snprintf(text, 64, "0 seconds");
		return;
	}
	ms = rounded(ms);
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]) && parts < 2; i++) {
		uint64_t count = ms / units[i].ms;

		/* The second unit is the next one down or none: "3 days", not "3 days 5 seconds".
		 */
		if (count == 0) {
			if (parts > 0)
				break;
			continue;
		}
		used += (size_t)snprintf(text + used, 64 - used, "%s%" PRIu64 " %s%s",
					 parts > 0 ? " " : "", count, units[i].word,
					 count == 1 ? "" : "s");
		ms %= units[i].ms;
		parts++;
	}
}

void human_relative(int64_t realtime_ms, int64_t now_ms, char text[64])
{
	char duration[64];

	if (realtime_ms == 0) {
		snprintf(text, 64, "never");
		return;
	}
	if (realtime_ms > now_ms - 500 && realtime_ms < now_ms + 500) {
		snprintf(text, 64, "now");
		return;
	}
	if (realtime_ms > now_ms) {
		/* To the nearest second: what was made to last an hour is not said to last 59
		 * minutes. */
		human_duration((uint64_t)(realtime_ms - now_ms), duration);
		snprintf(text, 64, "in %.50s", duration);
		return;
	}
	human_duration((uint64_t)(now_ms - realtime_ms), duration);
	snprintf(text, 64, "%.50s ago", duration);
}

void human_duration_exact(uint64_t ms, char text[32])
{
	static const struct {
		const char *unit;
		uint64_t ms;
	} exact[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};

	for (size_t i = 0; i < sizeof(exact) / sizeof(exact[0]); i++) {
		if (ms % exact[i].ms == 0) {
			snprintf(text, 32, "%" PRIu64 "%s", ms / exact[i].ms, exact[i].unit);
			return;
		}
	}
}

void human_count(uint64_t value, char text[32])
{
	char digits[24];
	int len = snprintf(digits, sizeof(digits), "%" PRIu64, value);
	size_t used = 0;

	for (int i = 0; i < len; i++) {
		if (i > 0 && (len - i) % 3 == 0)
			text[used++] = ',';
		text[used++] = digits[i];
	}
	text[used] = '\0';
}

void human_safe(char *text)
{
	for (; *text != '\0'; text++) {
		unsigned char byte = (unsigned char)*text, next = (unsigned char)text[1];

		if (byte < 0x20 || byte == 0x7f) {
			*text = '?';
		} else if (byte == 0xc2 && next >= 0x80 && next < 0xa0) { /* U+0080 to U+009F */
			text[0] = '?';
			text[1] = '?';
		}
	}
}
