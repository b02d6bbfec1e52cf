/* progress.h: how far a long job is, on stderr: a bar on a terminal, else a line now and then. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct progress {
	const char *what; /* "importing" */
	uint64_t total;
	bool quiet;
	bool terminal;
	bool shown; /* a bar is on the line now */
	uint64_t start_ms, last_ms;
};

void progress_start(struct progress *p, const char *what, uint64_t total, bool quiet);
void progress_show(struct progress *p, uint64_t done);
/* Takes the bar away, so that other text can be printed. */
void progress_end(struct progress *p);

/* The bar as text of at most `width` columns. Pure, for tests. */
void progress_line(const char *what, uint64_t done, uint64_t total, uint64_t elapsed_ms, int width,
		   char text[256]);
