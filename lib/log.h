/* log.h: one line per event to stderr, with the priority prefix that journald reads
 * (sd-daemon(3), "<N>").
 *
 * `event` is a short stable word ("lease-lost") that a person can grep and a program
 * can count; the rest is a sentence for people. Thread-safe: one write(2) per line.
 * Control characters of the message are replaced, so that a hostile name cannot forge
 * a line. Only programs and doors log; deciders and libraries return values. */
#pragma once

enum log_level {
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_NOTICE = 5,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7,
};

/* Lines above this level are dropped. Set once at start-up. */
void log_set_level(enum log_level level);
/* Adds "2026-11-21T04:38:00.123Z" to each line; for a terminal or a file (journald has its own). */
void log_set_timestamps(int on);
/* Lines go to `fd` (stays the caller's, open to the end) instead of stderr, and nobody waits for
 * who reads them: what a socket, or a pipe or terminal that is O_NONBLOCK, does not take at once is
 * dropped and counted, and the next line that is taken says how many. */
void log_set_output(int fd);
void log_line(enum log_level level, const char *event, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#define log_error(event, ...) log_line(LOG_LEVEL_ERROR, event, __VA_ARGS__)
#define log_warning(event, ...) log_line(LOG_LEVEL_WARNING, event, __VA_ARGS__)
#define log_notice(event, ...) log_line(LOG_LEVEL_NOTICE, event, __VA_ARGS__)
#define log_info(event, ...) log_line(LOG_LEVEL_INFO, event, __VA_ARGS__)
#define log_debug(event, ...) log_line(LOG_LEVEL_DEBUG, event, __VA_ARGS__)
