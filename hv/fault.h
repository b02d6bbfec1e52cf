/* fault.h: why something was refused, for a person: what, where, and the remedy.
 *
 * Functions that meet bad input fill one and return a negative errno; the caller that gives up
 * prints it, once. */
#pragma once

struct fault {
	char text[512]; /* one sentence, no newline; empty: nothing went wrong */
};

/* Keeps the first sentence that is set, since that one is nearest to the cause. `error` is a
 * negative errno and is returned, so that callers can say `return fault_set(...)`. */
int fault_set(struct fault *fault, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
