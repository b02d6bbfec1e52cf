/* problem.h: why something could not be done for a VM: one sentence, which goes to the leader and
 * from there to a person. */
#pragma once
#include "cluster/limits.h"

struct problem {
	char text[LIMIT_MESSAGE + 1];
};

/* Writes the sentence and returns `error`. */
int problem_set(struct problem *p, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
