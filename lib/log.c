#include "lib/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/clock.h"

static _Atomic int log_level_now = LOG_LEVEL_INFO;
static _Atomic int log_timestamps;

void log_set_level(enum log_level level)
{
	log_level_now = (int)level;
}

void log_set_timestamps(int on)
{
	log_timestamps = on;
}

void log_line(enum log_level level, const char *event, const char *format, ...)
{
	char line[2048];
	char stamp[32] = "";
	size_t room = sizeof(line) - 1;
	size_t head;
	size_t len;
	va_list args;

	if ((int)level > log_level_now)
		return;
	if (log_timestamps)
		clock_format_utc(clock_realtime_ms(), stamp);
	head = (size_t)snprintf(line, room, "<%d>%s%s%s: ", (int)level, stamp, stamp[0] ? " " : "",
				event);
	if (head >= room)
		head = room - 1;
	va_start(args, format);
	vsnprintf(line + head, room - head, format, args);
	va_end(args);
	len = strlen(line);
	for (size_t i = head; i < len; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[len++] = '\n';
	/* A log that cannot be written must not stop the witness. */
	if (write(STDERR_FILENO, line, len) < 0)
		return;
}
