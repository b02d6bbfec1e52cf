/* csv.h: comma-separated values (RFC 4180), read piece by piece in bounded memory.
 *
 * Accepted beyond RFC 4180: LF line ends, a UTF-8 byte order mark, a last line without an end,
 * blank lines (skipped). Refused with the place: zero bytes, text that is not UTF-8, a carriage
 * return alone, quotes in the middle of a field, text behind a closing quote, an open quote at
 * the end, and whatever is longer than the limits. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

enum {
	CSV_FIELD_MAX = 4096, /* bytes of one field, quotes aside */
	CSV_FIELDS_MAX = 256, /* fields of one record */
	CSV_RECORD_MAX = 65536, /* bytes of one record */
};

struct csv_field {
	const char *text; /* with a zero byte behind it; valid during the callback */
	size_t len;
	uint64_t line; /* 1.., where it begins */
	uint64_t column; /* 1.., in characters */
	bool quoted; /* "" is a value, nothing at all is none */
};

struct csv_record {
	struct csv_field fields[CSV_FIELDS_MAX];
	size_t count; /* at least 1 */
	uint64_t line;
};

/* Returns 0 to go on; anything else stops and is returned by csv_feed. */
typedef int (*csv_visit)(void *arg, const struct csv_record *record);

struct csv {
	csv_visit visit;
	void *arg;
	int state;
	uint64_t line, column; /* of the next byte */
	uint64_t quote_line, quote_column; /* of the open quote */
	struct buf text; /* the record's fields, each with a zero byte */
	size_t field_start; /* in text */
	struct csv_record record; /* fields' text is set when the record is whole */
	size_t offsets[CSV_FIELDS_MAX];
	unsigned bom; /* bytes of a byte order mark seen */
	uint64_t error_line, error_column;
	char error[200]; /* a sentence, after -EINVAL */
};

void csv_init(struct csv *c, csv_visit visit, void *arg);
/* 0; -EINVAL with error_line, error_column, error; or what `visit` returned. Not to be called
 * again after anything but 0. */
int csv_feed(struct csv *c, const void *data, size_t len);
/* The end of the text: the last record may have no line end. */
int csv_end(struct csv *c);
void csv_free(struct csv *c);

/* Appends `text` as one field, quoted if it has to be. An empty text is written as "". */
void csv_write_field(struct buf *out, const char *text);
