/* guest.h: one static program that is the init of a test guest, and does what its words say.
 *
 * A word is NAME or NAME=ARG,ARG,...; words come from the kernel's command line after `--` and
 * then, line by line, from the console. `&` before a word runs it beside the others. Each word ends
 * with one line of output, RESULT name ok key=value ...      or      RESULT name failed: what was
 * attempted: why and lines are written whole, so that words which run at once do not mix theirs.
 * Started as an ordinary program it does the words of its arguments and exits 1 at the first that
 * failed: so it is also the peer of a guest, on the board. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { CALL_ARGS = 8, CALL_TEXT = 256 };

/* A word being done. Texts are the caller's and last until the word ends. */
struct call {
	const char *name;
	int count;
	char *args[CALL_ARGS];
	char what[CALL_TEXT]; /* in failure: what was attempted; set by call_failed */
	char result[CALL_TEXT]; /* in success: key=value ...; set by call_result; may stay empty */
};

/* 0, or negative errno with call->what set. */
typedef int (*word_run)(struct call *call);

struct word {
	const char *name; /* NULL ends a table */
	word_run run;
	const char *args; /* for the person who asks: "DEVICE,COUNT" */
};

extern const struct word system_words[], block_words[], net_words[], vsock_words[], memory_words[],
	cpu_words[], input_words[], board_words[];

/* Argument `index`, or `fallback` when there are fewer or it is empty. */
const char *call_text(const struct call *call, int index, const char *fallback);
uint64_t call_number(const struct call *call, int index, uint64_t fallback);

/* Notes what was attempted; returns -`error`, to be returned in turn. */
int call_failed(struct call *call, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void call_result(struct call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* One line to the console, in one write; the newline is added. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Does the words of `line`, separated by blanks. 0, or the first word's negative errno. */
int words_do(char *line);

/* The virtual counter and its frequency; CLOCK_MONOTONIC in nanoseconds. */
uint64_t counter_read(void);
uint64_t counter_hz(void);
uint64_t now_ns(void);

/* What comes after `state` in a fixed sequence of well mixed numbers (splitmix64). */
uint64_t mixed_next(uint64_t *state);
