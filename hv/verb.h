/* verb.h: what a person says to a running VM through its control socket (`witness-vm status
 * SOCKET`). */
#pragma once
#include <stdbool.h>
#include <stdio.h>

#include "hv/fault.h"

/* Exit statuses of all verbs. */
enum {
	VERB_OK = 0,
	VERB_REFUSED = 1, /* the VM said no, or a file could not be written */
	VERB_USAGE = 2, /* an argument is none; nothing was asked */
	VERB_UNREACHABLE = 3, /* nobody answers there */
};

struct verb {
	const char *name; /* NULL ends the table */
	const char *args; /* behind the name, for the help */
	unsigned count; /* of arguments, the socket's path the first */
	bool json; /* has something to show with -o json */
	bool stays; /* takes --stay-paused */
	const char *summary; /* one line */
	const char *help; /* a paragraph more, or "" */
};

extern const struct verb verbs[];

/* NULL: there is no such verb. */
const struct verb *verb_find(const char *name);

struct verb_options {
	bool json;
	bool stay_paused;
};

/* Says it and prints the answer to `out`. One of the exit statuses; *fault says why if it is not 0.
 */
int verb_run(const struct verb *verb, char *const args[], const struct verb_options *options,
	     FILE *out, struct fault *fault);
