/* grid.h: tables and field lists on the terminal (libsmartcols, named here only). */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct grid;

/* `headers`: NULL-terminated. A header that begins with '>' is for numbers (aligned right); '~':
 * may be cut on a narrow terminal. */
struct grid *grid_new(const char *const *headers);
/* One row; `cells` has as many texts as there are headers (copied; NULL is empty). */
void grid_row(struct grid *g, const char *const *cells);
/* Prints it to stdout and frees it. `empty`: the sentence if there are no rows, NULL: nothing. */
void grid_print(struct grid *g, const char *empty);

/* "Label:   value" with all values in one column; an empty value is left out. An empty label goes
 * on with the one before. */
void field_print(const char *label, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for a word that tells a state, in its colour. */
void field_color(const char *label, const char *word);

/* Colour for a word that tells a state ("split", "whole", "no-quorum"), "" if none or if stdout is
 * not a terminal or NO_COLOR is set. */
const char *state_color(const char *word);
