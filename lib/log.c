#include "lib/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/clock.h"

static _Atomic int log_level_now = LOG_LEVEL_INFO;
static _Atomic int log_timestamps;
static _Atomic int log_fd = STDERR_FILENO;
static _Atomic bool log_is_socket;
static _Atomic unsigned log_dropped; /* lines since the last that was taken */

void log_set_level(enum log_level level)
{
	log_level_now = (int)level;
}

void log_set_timestamps(int on)
{
	log_timestamps = on;
}

void log_set_output(int fd)
{
	struct stat st;

	log_is_socket = fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
	log_fd = fd;
}

static bool put(const char *line, size_t len)
{
	ssize_t done = log_is_socket ? send(log_fd, line, len, MSG_DONTWAIT | MSG_NOSIGNAL)
				     : write(log_fd, line, len);

	return done >= 0;
}

/* Length of the beginning of a line. */
static size_t begin(char *line, size_t room, enum log_level level, const char *event)
{
	char stamp[32] = "";
	size_t head;

	if (log_timestamps)
		clock_format_utc(clock_realtime_ms(), stamp);
	head = (size_t)snprintf(line, room, "<%d>%s%s%s: ", (int)level, stamp, stamp[0] ? " " : "",
				event);
	return head < room ? head : room - 1;
}

static bool put_dropped(unsigned count)
{
	char line[128];
	size_t len = begin(line, sizeof(line), LOG_LEVEL_WARNING, "log-dropped");

	len += (size_t)snprintf(line + len, sizeof(line) - len,
				"%u lines before this one were not taken\n", count);
	return put(line, len);
}

/* A log that cannot be written must not stop the program. */
static void put_counted(const char *line, size_t len)
{
	unsigned dropped = atomic_exchange(&log_dropped, 0);

	if (dropped > 0 && !put_dropped(dropped))
		atomic_fetch_add(&log_dropped, dropped + 1);
	else if (!put(line, len))
		atomic_fetch_add(&log_dropped, 1);
}

void log_line(enum log_level level, const char *event, const char *format, ...)
{
	char line[2048];
	size_t room = sizeof(line) - 1;
	size_t head;
	size_t len;
	va_list args;

	if ((int)level > log_level_now)
		return;
	head = begin(line, room, level, event);
	va_start(args, format);
	vsnprintf(line + head, room - head, format, args);
	va_end(args);
	len = strlen(line);
	for (size_t i = head; i < len; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[len++] = '\n';
	put_counted(line, len);
}
