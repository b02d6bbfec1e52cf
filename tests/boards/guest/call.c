/* call.c: one word being done: its arguments, its line of result, and the clocks words measure by.
 */
#include "guest.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char *call_text(const struct call *call, int index, const char *fallback)
{
	return index < call->count && *call->args[index] ? call->args[index] : fallback;
}

uint64_t call_number(const struct call *call, int index, uint64_t fallback)
{
	const char *text = call_text(call, index, NULL);
	return text ? strtoull(text, NULL, 0) : fallback;
}

int call_failed(struct call *call, int error, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(call->what, sizeof call->what, format, args);
	va_end(args);
	return -error;
}

void call_result(struct call *call, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(call->result, sizeof call->result, format, args);
	va_end(args);
}

void say(const char *format, ...)
{
	char line[1024];
	va_list args;
	va_start(args, format);
	int length = vsnprintf(line, sizeof line - 1, format, args);
	va_end(args);
	if (length > (int)sizeof line - 2)
		length = sizeof line - 2;
	line[length++] = '\n';
	/* The console is the only witness; when it cannot be written there is nobody to tell. */
	if (write(STDOUT_FILENO, line, (size_t)length) < 0)
		return;
}

uint64_t counter_read(void)
{
	uint64_t count;
	__asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(count) : : "memory");
	return count;
}

uint64_t counter_hz(void)
{
	uint64_t hz;
	__asm__("mrs %0, cntfrq_el0" : "=r"(hz));
	return hz;
}

uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t mixed_next(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}
