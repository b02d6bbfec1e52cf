#include "cli/grid.h"

#include <libsmartcols/libsmartcols.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/human.h"
#include "lib/buf.h"
#include "lib/mem.h"

enum { LABEL_WIDTH = 16 };

struct grid {
	struct libscols_table *table;
	size_t columns;
	size_t rows;
};

struct grid *grid_new(const char *const *headers)
{
	struct grid *g = mem_zalloc(sizeof(*g));

	g->table = scols_new_table();
	if (g->table == NULL)
		abort();
	scols_table_enable_colors(g->table, state_color("whole")[0] != '\0');
	for (; headers[g->columns] != NULL; g->columns++) {
		const char *name = headers[g->columns];
		int flags = 0;

		if (*name == '>') {
			flags = SCOLS_FL_RIGHT;
			name++;
		} else if (*name == '~') {
			flags = SCOLS_FL_TRUNC;
			name++;
		}
		if (scols_table_new_column(g->table, name, 0, flags) == NULL)
			abort();
	}
	return g;
}

void grid_row(struct grid *g, const char *const *cells)
{
	struct libscols_line *line = scols_table_new_line(g->table, NULL);

	if (line == NULL)
		abort();
	for (size_t i = 0; i < g->columns; i++) {
		char *text = mem_strdup(cells[i] != NULL ? cells[i] : "");
		const char *color = state_color(text);

		human_safe(text);
		if (scols_line_refer_data(line, i, text) != 0) /* takes the text */
			abort();
		if (color[0] != '\0')
			scols_cell_set_color(scols_line_get_cell(line, i), color);
	}
	g->rows++;
}

void grid_print(struct grid *g, const char *empty)
{
	if (g->rows > 0)
		scols_print_table(g->table);
	else if (empty != NULL)
		puts(empty);
	scols_unref_table(g->table);
	free(g);
}

void field_print(const char *label, const char *format, ...)
{
	struct buf text = {0};
	va_list args;
	char *safe;

	va_start(args, format);
	buf_vprintf(&text, format, args);
	va_end(args);
	if (text.len > 0) {
		safe = mem_strdup(buf_string(&text));
		human_safe(safe);
		printf("%s%s%*s%s\n", label, *label != '\0' ? ":" : " ",
		       (int)(LABEL_WIDTH - strlen(label)), "", safe);
		free(safe);
	}
	buf_free(&text);
}

void field_color(const char *label, const char *word)
{
	const char *color = state_color(word);

	printf("%s:%*s%s%s%s\n", label, (int)(LABEL_WIDTH - strlen(label)), "", color, word,
	       color[0] != '\0' ? "\033[0m" : "");
}

const char *state_color(const char *word)
{
	static const struct {
		const char *word, *color;
	} colors[] = {
		{"whole", "\033[32m"},	   {"ok", "\033[32m"},	     {"voter", "\033[32m"},
		{"serving", "\033[32m"},   {"degraded", "\033[33m"}, {"undecided", "\033[33m"},
		{"joining", "\033[33m"},   {"warning", "\033[33m"},  {"split", "\033[31m"},
		{"no-quorum", "\033[31m"}, {"error", "\033[31m"},    {"away", "\033[31m"},
		{"failed", "\033[31m"},
	};
	const char *no_color = getenv("NO_COLOR");

	if ((no_color != NULL && no_color[0] != '\0') || !isatty(STDOUT_FILENO))
		return "";
	for (size_t i = 0; i < sizeof(colors) / sizeof(colors[0]); i++) {
		if (strcmp(colors[i].word, word) == 0)
			return colors[i].color;
	}
	return "";
}
