#include "cli/objects.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
	LINES, /* between objects, or before anything */
	FIRST_KEY, /* behind the first brace: is this a wrapper or an object? */
	FIRST_NAME, /* in its first key */
	OBJECT, /* in an object that is handed over */
	ARRAY_FIRST, /* behind [ */
	ARRAY_VALUE, /* behind a comma */
	ARRAY_NEXT, /* behind an object */
	WRAPPER_COLON, /* behind a key of the wrapper */
	WRAPPER_VALUE,
	WRAPPER_TEXT, /* in a string value */
	WRAPPER_WORD, /* in a number or word */
	WRAPPER_NEXT, /* behind a value */
	WRAPPER_KEY, /* behind a comma */
	WRAPPER_NAME, /* in a key */
	END, /* nothing but space may follow */
};

static const unsigned char byte_order_mark[3] = {0xef, 0xbb, 0xbf};

void objects_init(struct objects *o, objects_visit visit, void *arg)
{
	memset(o, 0, sizeof(*o));
	o->visit = visit;
	o->arg = arg;
	o->size_max = OBJECTS_SIZE_MAX;
	o->state = LINES;
	o->line = 1;
	o->column = 1;
}

void objects_free(struct objects *o)
{
	buf_free(&o->text);
	buf_free(&o->key);
	buf_free(&o->value);
}

static int error_here(struct objects *o, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static int error_here(struct objects *o, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(o->error, sizeof(o->error), format, args);
	va_end(args);
	o->error_line = o->line;
	o->error_column = o->column;
	return -EINVAL;
}

static int error_expected(struct objects *o, unsigned char byte, const char *what)
{
	if (byte == '\0')
		return error_here(o, "a zero byte; this is not a JSON text");
	if (byte >= 0x21 && byte < 0x7f)
		return error_here(o, "expected %s, found '%c'", what, byte);
	return error_here(o, "expected %s", what);
}

static int is_space(unsigned char byte)
{
	return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

static void object_begin(struct objects *o, int after)
{
	buf_clear(&o->text);
	buf_putc(&o->text, '{');
	o->object_line = o->line;
	o->object_column = o->column;
	o->depth = 1;
	o->in_string = 0;
	o->escaped = 0;
	o->after = after;
	o->state = OBJECT;
}

static int object_end(struct objects *o)
{
	struct object object = {
		.len = o->text.len, .line = o->object_line, .column = o->object_column};

	object.text = buf_string(&o->text);
	o->state = o->after;
	return o->visit(o->arg, &object);
}

static int object_add(struct objects *o, unsigned char byte)
{
	if (byte == '\0')
		return error_here(o, "a zero byte; this is not a JSON text");
	if (o->text.len >= o->size_max) {
		o->line = o->object_line;
		o->column = o->object_column;
		return error_here(o, "an object of more than %zu bytes", o->size_max);
	}
	buf_putc(&o->text, (char)byte);
	return 0;
}

static int object_take(struct objects *o, unsigned char byte)
{
	int rv = object_add(o, byte);

	if (rv != 0)
		return rv;
	if (o->in_string) {
		if (o->escaped)
			o->escaped = 0;
		else if (byte == '\\')
			o->escaped = 1;
		else if (byte == '"')
			o->in_string = 0;
		return 0;
	}
	if (byte == '"')
		o->in_string = 1;
	else if (byte == '{' || byte == '[')
		o->depth++;
	else if (byte == '}' || byte == ']')
		o->depth--;
	return o->depth == 0 ? object_end(o) : 0;
}

static int key_is(struct objects *o, const char *name)
{
	return strcmp(buf_string(&o->key), name) == 0;
}

static int key_is_wrapper(struct objects *o)
{
	return key_is(o, "sites") || key_is(o, "items") || key_is(o, "nextPage") ||
	       key_is(o, "total");
}

static int key_add(struct objects *o, unsigned char byte)
{
	if (o->key.len >= 64 || byte < 0x20)
		return error_here(o, "a key that is no field of a site");
	buf_putc(&o->key, (char)byte);
	return 0;
}

static int lines_take(struct objects *o, unsigned char byte)
{
	if (byte == '[' && o->wrapped == 0) {
		o->wrapped = -1;
		o->state = ARRAY_FIRST;
		return 0;
	}
	if (byte != '{')
		return error_expected(o, byte, o->wrapped == 0 ? "'{' or '['" : "'{'");
	object_begin(o, LINES);
	/* Only the first object of a text can be the wrapper. */
	if (o->wrapped == 0)
		o->state = FIRST_KEY;
	o->wrapped = -1;
	return 0;
}

static int first_key_take(struct objects *o, unsigned char byte)
{
	if (is_space(byte))
		return object_add(o, byte);
	buf_clear(&o->key);
	if (byte == '"') {
		o->state = FIRST_NAME;
		return object_add(o, byte);
	}
	o->state = OBJECT;
	return object_take(o, byte);
}

static int first_name_take(struct objects *o, unsigned char byte)
{
	if (byte != '"') {
		int rv = object_add(o, byte);

		if (rv == 0 && byte == '\\') { /* none of the wrapper's keys needs an escape */
			o->state = OBJECT;
			o->in_string = 1;
			o->escaped = 1;
			return 0;
		}
		return rv != 0 ? rv : key_add(o, byte);
	}
	if (key_is_wrapper(o)) {
		o->wrapped = 1;
		o->state = WRAPPER_COLON;
		return 0;
	}
	o->state = OBJECT;
	return object_add(o, byte);
}

static int array_take(struct objects *o, unsigned char byte)
{
	if (byte == '{' && o->state != ARRAY_NEXT) {
		object_begin(o, ARRAY_NEXT);
		return 0;
	}
	if (byte == ']' && o->state != ARRAY_VALUE) {
		o->state = o->wrapped > 0 ? WRAPPER_NEXT : END;
		return 0;
	}
	if (o->state == ARRAY_NEXT) {
		if (byte != ',')
			return error_expected(o, byte, "',' or ']'");
		o->state = ARRAY_VALUE;
		return 0;
	}
	return error_expected(o, byte, "'{'");
}

static int wrapper_value_end(struct objects *o)
{
	const char *value = buf_string(&o->value);

	if (key_is(o, "nextPage"))
		snprintf(o->next_page, sizeof(o->next_page), "%s", value);
	else if (key_is(o, "total"))
		snprintf(o->total, sizeof(o->total), "%s", value);
	o->state = WRAPPER_NEXT;
	return 0;
}

static int value_add(struct objects *o, unsigned char byte)
{
	if (o->value.len >= sizeof(o->next_page) - 1)
		return error_here(o, "a value that is too long");
	buf_putc(&o->value, (char)byte);
	return 0;
}

static int wrapper_value_take(struct objects *o, unsigned char byte)
{
	int array = key_is(o, "sites") || key_is(o, "items");

	buf_clear(&o->value);
	if (array) {
		if (byte != '[')
			return error_expected(o, byte, "'['");
		o->state = ARRAY_FIRST;
		return 0;
	}
	if (byte == '"') {
		o->state = WRAPPER_TEXT;
		return 0;
	}
	if ((byte < '0' || byte > '9') && byte != 'n')
		return error_expected(o, byte, "a value");
	o->state = WRAPPER_WORD;
	return value_add(o, byte);
}

static int wrapper_next_take(struct objects *o, unsigned char byte)
{
	if (byte == '}') {
		o->state = END;
		return 0;
	}
	if (byte != ',')
		return error_expected(o, byte, "',' or '}'");
	o->state = WRAPPER_KEY;
	return 0;
}

static int wrapper_name_take(struct objects *o, unsigned char byte)
{
	if (byte != '"')
		return key_add(o, byte);
	if (!key_is_wrapper(o))
		return error_here(o, "\"%s\" has no place beside \"sites\"", buf_string(&o->key));
	o->state = WRAPPER_COLON;
	return 0;
}

static int wrapper_take(struct objects *o, unsigned char byte)
{
	switch (o->state) {
	case WRAPPER_COLON:
		if (byte != ':')
			return error_expected(o, byte, "':'");
		o->state = WRAPPER_VALUE;
		return 0;
	case WRAPPER_VALUE:
		return wrapper_value_take(o, byte);
	case WRAPPER_KEY:
		if (byte != '"')
			return error_expected(o, byte, "'\"'");
		buf_clear(&o->key);
		o->state = WRAPPER_NAME;
		return 0;
	default:
		return wrapper_next_take(o, byte);
	}
}

static int word_take(struct objects *o, unsigned char byte)
{
	if ((byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z'))
		return value_add(o, byte);
	wrapper_value_end(o);
	return is_space(byte) ? 0 : wrapper_next_take(o, byte);
}

static int state_take(struct objects *o, unsigned char byte)
{
	switch (o->state) { /* where space counts */
	case OBJECT:
		return object_take(o, byte);
	case FIRST_KEY:
		return first_key_take(o, byte);
	case FIRST_NAME:
		return first_name_take(o, byte);
	case WRAPPER_NAME:
		return wrapper_name_take(o, byte);
	case WRAPPER_TEXT:
		return byte == '"' ? wrapper_value_end(o) : value_add(o, byte);
	case WRAPPER_WORD:
		return word_take(o, byte);
	default:
		break;
	}
	if (is_space(byte))
		return 0;
	switch (o->state) {
	case LINES:
		return lines_take(o, byte);
	case ARRAY_FIRST:
	case ARRAY_VALUE:
	case ARRAY_NEXT:
		return array_take(o, byte);
	case END:
		return error_here(o, "text behind the end");
	default:
		return wrapper_take(o, byte);
	}
}

static int byte_take(struct objects *o, unsigned char byte)
{
	int rv = state_take(o, byte);

	if (rv != 0)
		return rv;
	if (byte == '\n') {
		o->line++;
		o->column = 1;
	} else if ((byte & 0xc0) != 0x80) {
		o->column++;
	}
	return 0;
}

int objects_feed(struct objects *o, const void *data, size_t len)
{
	const unsigned char *bytes = data;

	for (size_t i = 0; i < len; i++) {
		int rv;

		if (o->bom < sizeof(byte_order_mark)) {
			if (bytes[i] == byte_order_mark[o->bom]) {
				o->bom++;
				continue;
			}
			if (o->bom > 0)
				return error_here(o, "text that is not UTF-8");
			o->bom = sizeof(byte_order_mark);
		}
		rv = byte_take(o, bytes[i]);
		if (rv != 0)
			return rv;
	}
	return 0;
}

int objects_end(struct objects *o)
{
	if (o->state == LINES || o->state == END)
		return 0;
	return error_here(o, "the text ends in the middle");
}
