#include "cli/csv.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lib/text.h"

enum {
	FIELD_START, /* nothing of the field yet */
	FIELD_PLAIN, /* in a field without quotes */
	FIELD_QUOTED, /* behind an opening quote */
	FIELD_QUOTE, /* behind a quote that may be the closing one */
	LINE_CR, /* behind a carriage return that must end the line */
};

static const unsigned char byte_order_mark[3] = {0xef, 0xbb, 0xbf};

void csv_init(struct csv *c, csv_visit visit, void *arg)
{
	memset(c, 0, sizeof(*c));
	c->visit = visit;
	c->arg = arg;
	c->line = 1;
	c->column = 1;
	c->state = FIELD_START;
}

void csv_free(struct csv *c)
{
	buf_free(&c->text);
}

static int error_at(struct csv *c, uint64_t line, uint64_t column, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static int error_at(struct csv *c, uint64_t line, uint64_t column, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(c->error, sizeof(c->error), format, args);
	va_end(args);
	c->error_line = line;
	c->error_column = column;
	return -EINVAL;
}

/* Called at the first byte of a field (or where its end would be, if it is empty). */
static int field_begin(struct csv *c, bool quoted)
{
	struct csv_record *r = &c->record;

	if (r->count == CSV_FIELDS_MAX)
		return error_at(c, c->line, c->column, "more than %d fields in one line",
				CSV_FIELDS_MAX);
	if (r->count == 0)
		r->line = c->line;
	r->fields[r->count] =
		(struct csv_field){.line = c->line, .column = c->column, .quoted = quoted};
	c->offsets[r->count] = c->text.len;
	c->field_start = c->text.len;
	r->count++;
	return 0;
}

static int field_add(struct csv *c, char byte)
{
	const struct csv_field *f = &c->record.fields[c->record.count - 1];

	if (c->text.len - c->field_start == CSV_FIELD_MAX)
		return error_at(c, f->line, f->column, "a field of more than %d bytes%s",
				CSV_FIELD_MAX, f->quoted ? "; is its closing quote missing?" : "");
	if (c->text.len >= CSV_RECORD_MAX)
		return error_at(c, c->line, c->column, "a line of more than %d bytes",
				CSV_RECORD_MAX);
	buf_putc(&c->text, byte);
	return 0;
}

static int field_end(struct csv *c)
{
	struct csv_field *f = &c->record.fields[c->record.count - 1];

	f->len = c->text.len - c->field_start;
	buf_putc(&c->text, '\0');
	if (!text_is_utf8(c->text.data + c->field_start, f->len))
		return error_at(c, f->line, f->column,
				"text that is not UTF-8; save the file as UTF-8");
	return 0;
}

static int record_end(struct csv *c)
{
	struct csv_record *r = &c->record;
	int rv = 0;

	for (size_t i = 0; i < r->count; i++)
		r->fields[i].text = (const char *)c->text.data + c->offsets[i];
	if (r->count > 1 || r->fields[0].len > 0 || r->fields[0].quoted)
		rv = c->visit(c->arg, r);
	r->count = 0;
	buf_clear(&c->text);
	return rv;
}

static void line_next(struct csv *c)
{
	c->line++;
	c->column = 0; /* byte_take counts the line feed itself */
}

/* What ends a field that is not inside quotes; 1 if `byte` is none of these. */
static int separator_take(struct csv *c, unsigned char byte)
{
	int rv;

	if (byte != ',' && byte != '\n' && byte != '\r')
		return 1;
	if (c->state == FIELD_START) {
		rv = field_begin(c, false);
		if (rv != 0)
			return rv;
	}
	rv = field_end(c);
	if (rv != 0)
		return rv;
	if (byte == '\r') {
		c->state = LINE_CR;
		return 0;
	}
	c->state = FIELD_START;
	if (byte == ',')
		return 0;
	rv = record_end(c);
	line_next(c);
	return rv;
}

static int start_take(struct csv *c, unsigned char byte)
{
	int rv = separator_take(c, byte);

	if (rv != 1)
		return rv;
	if (byte == '"') {
		c->quote_line = c->line;
		c->quote_column = c->column;
		c->state = FIELD_QUOTED;
		return field_begin(c, true);
	}
	c->state = FIELD_PLAIN;
	rv = field_begin(c, false);
	return rv != 0 ? rv : field_add(c, (char)byte);
}

static int plain_take(struct csv *c, unsigned char byte)
{
	int rv = separator_take(c, byte);

	if (rv != 1)
		return rv;
	if (byte == '"')
		return error_at(c, c->line, c->column,
				"a quote inside a field; put quotes around the whole field and "
				"write the inner ones twice");
	return field_add(c, (char)byte);
}

static int quoted_take(struct csv *c, unsigned char byte)
{
	int rv;

	if (byte == '"') {
		c->state = FIELD_QUOTE;
		return 0;
	}
	rv = field_add(c, (char)byte);
	if (byte == '\n')
		line_next(c);
	return rv;
}

static int quote_take(struct csv *c, unsigned char byte)
{
	int rv;

	if (byte == '"') {
		c->state = FIELD_QUOTED;
		return field_add(c, '"');
	}
	rv = separator_take(c, byte);
	if (rv == 1)
		return error_at(c, c->line, c->column, "text behind a closing quote");
	return rv;
}

static int cr_take(struct csv *c, unsigned char byte)
{
	int rv;

	if (byte != '\n')
		return error_at(
			c, c->line, c->column,
			"a carriage return that does not end a line; lines end with LF or CR LF");
	c->state = FIELD_START;
	rv = record_end(c);
	line_next(c);
	return rv;
}

static int state_take(struct csv *c, unsigned char byte)
{
	switch (c->state) {
	case FIELD_START:
		return start_take(c, byte);
	case FIELD_PLAIN:
		return plain_take(c, byte);
	case FIELD_QUOTED:
		return quoted_take(c, byte);
	case FIELD_QUOTE:
		return quote_take(c, byte);
	default:
		return cr_take(c, byte);
	}
}

static int byte_take(struct csv *c, unsigned char byte)
{
	int rv;

	if (byte == '\0')
		return error_at(
			c, c->line, c->column,
			"a zero byte; this is not a text file (or it is UTF-16: save it as UTF-8)");
	rv = state_take(c, byte);
	if (rv == 0 && (byte & 0xc0) != 0x80) /* continuation bytes are no characters */
		c->column++;
	return rv;
}

int csv_feed(struct csv *c, const void *data, size_t len)
{
	const unsigned char *bytes = data;

	for (size_t i = 0; i < len; i++) {
		int rv;

		if (c->bom < sizeof(byte_order_mark)) {
			if (bytes[i] == byte_order_mark[c->bom]) {
				c->bom++;
				continue;
			}
			/* Part of a mark is no mark: those bytes are text (and not UTF-8). */
			for (unsigned k = 0; k < c->bom; k++) {
				rv = byte_take(c, byte_order_mark[k]);
				if (rv != 0)
					return rv;
			}
			c->bom = sizeof(byte_order_mark);
		}
		rv = byte_take(c, bytes[i]);
		if (rv != 0)
			return rv;
	}
	return 0;
}

int csv_end(struct csv *c)
{
	int rv;

	if (c->bom > 0 && c->bom < sizeof(byte_order_mark) && c->line == 1 && c->column == 1)
		return error_at(c, 1, 1, "text that is not UTF-8; save the file as UTF-8");
	if (c->state == FIELD_QUOTED)
		return error_at(c, c->quote_line, c->quote_column, "a quote that is never closed");
	if (c->state == LINE_CR) /* the last line ended with CR alone */
		return error_at(
			c, c->line, c->column,
			"a carriage return that does not end a line; lines end with LF or CR LF");
	if (c->state == FIELD_START && c->record.count == 0)
		return 0;
	if (c->state == FIELD_START) {
		rv = field_begin(c, false);
		if (rv != 0)
			return rv;
	}
	rv = field_end(c);
	if (rv == 0)
		rv = record_end(c);
	c->state = FIELD_START;
	return rv;
}

void csv_write_field(struct buf *out, const char *text)
{
	/* A byte order mark that is text must not stand bare at the start of a file. */
	if (text[0] != '\0' && strncmp(text, "\xef\xbb\xbf", 3) != 0 &&
	    text[strcspn(text, ",\"\r\n")] == '\0') {
		buf_puts(out, text);
		return;
	}
	buf_putc(out, '"');
	for (; *text != '\0'; text++) {
		if (*text == '"')
			buf_putc(out, '"');
		buf_putc(out, *text);
	}
	buf_putc(out, '"');
}
