/* json_encode.c: messages to JSON text, written straight into the buffer. */
#include <string.h>

#include "lib/base64.h"
#include "lib/text.h"
#include "proto/json.h"
#include "proto/json_name.h"

static void write_message(const ProtobufCMessage *message, bool full, struct buf *out);

/* Length of the valid UTF-8 character at `s`, 0 if there is none. */
static size_t character_len(const char *s, size_t left)
{
	unsigned char lead = (unsigned char)*s;
	size_t len = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;

	return len <= left && text_is_utf8(s, len) ? len : 0;
}

static void write_escape(char c, struct buf *out)
{
	static const char plain[] = "\"\\\b\f\n\r\t";
	static const char letters[] = "\"\\bfnrt";
	const char *found = memchr(plain, c, sizeof(plain) - 1);

	if (found != NULL)
		buf_printf(out, "\\%c", letters[found - plain]);
	else
		buf_printf(out, "\\u%04x", (unsigned char)c);
}

void json_encode_string(const char *text, struct buf *out)
{
	size_t left = strlen(text);

	buf_putc(out, '"');
	while (left > 0) {
		size_t run = 0;

		while (run < left && (unsigned char)text[run] >= ' ' &&
		       (unsigned char)text[run] < 0x80 && text[run] != '"' && text[run] != '\\')
			run++;
		buf_append(out, text, run);
		text += run;
		left -= run;
		if (left == 0)
			break;
		run = 1;
		if ((unsigned char)*text < 0x80) {
			write_escape(*text, out);
		} else if (character_len(text, left) == 0) {
			buf_puts(out, "\xef\xbf\xbd"); /* U+FFFD stands for what is not UTF-8 */
		} else {
			run = character_len(text, left);
			buf_append(out, text, run);
		}
		text += run;
		left -= run;
	}
	buf_putc(out, '"');
}

/* Numbers and words are most of a long listing: no printf for them. */
static void write_unsigned(uint64_t number, struct buf *out)
{
	char digits[20];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number != 0);
	buf_append(out, digits + at, sizeof(digits) - at);
}

static void write_signed(int64_t number, struct buf *out)
{
	if (number < 0)
		buf_putc(out, '-');
	write_unsigned(number < 0 ? -(uint64_t)number : (uint64_t)number, out);
}

static void write_quoted_unsigned(uint64_t number, struct buf *out)
{
	buf_putc(out, '"');
	write_unsigned(number, out);
	buf_putc(out, '"');
}

static void write_quoted_signed(int64_t number, struct buf *out)
{
	buf_putc(out, '"');
	write_signed(number, out);
	buf_putc(out, '"');
}

static void write_enum(const ProtobufCEnumDescriptor *type, int value, struct buf *out)
{
	char word[64];

	/* A value from a newer board has no name here; its number loses nothing. */
	if (protobuf_c_enum_descriptor_get_value(type, value) == NULL) {
		write_signed(value, out);
		return;
	}
	buf_putc(out, '"');
	buf_puts(out, json_enum_word(type, value, word));
	buf_putc(out, '"');
}

static void write_bytes(const ProtobufCBinaryData *bytes, struct buf *out)
{
	buf_putc(out, '"');
	base64_encode(bytes->data, bytes->len, out);
	buf_putc(out, '"');
}

static void write_value(const message_field *field, const void *at, bool full, struct buf *out)
{
	const char *string;

	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		write_signed(*(const int32_t *)at, out);
		return;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		write_unsigned(*(const uint32_t *)at, out);
		return;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		write_quoted_signed(*(const int64_t *)at, out);
		return;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		write_quoted_unsigned(*(const uint64_t *)at, out);
		return;
	case PROTOBUF_C_TYPE_BOOL:
		buf_puts(out, *(const protobuf_c_boolean *)at ? "true" : "false");
		return;
	case PROTOBUF_C_TYPE_ENUM:
		write_enum(field->descriptor, *(const int *)at, out);
		return;
	case PROTOBUF_C_TYPE_STRING:
		string = *(char *const *)at;
		json_encode_string(string == NULL ? "" : string, out);
		return;
	case PROTOBUF_C_TYPE_BYTES:
		write_bytes(at, out);
		return;
	case PROTOBUF_C_TYPE_MESSAGE:
		write_message(*(ProtobufCMessage *const *)at, full, out);
		return;
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_DOUBLE:
		/* Ends the process: the schema has none. */
		field_value_size(field);
	}
}

static void write_map(const ProtobufCMessage *message, const message_field *field, bool full,
		      struct buf *out)
{
	ProtobufCMessage *const *entries = *(ProtobufCMessage *const **)field_at(message, field);
	const message_type *entry = field->descriptor;

	buf_putc(out, '{');
	for (size_t i = 0; i < *field_count(message, field); i++) {
		if (i > 0)
			buf_putc(out, ',');
		write_value(&entry->fields[0], field_at(entries[i], &entry->fields[0]), full, out);
		buf_putc(out, ':');
		write_value(&entry->fields[1], field_at(entries[i], &entry->fields[1]), full, out);
	}
	buf_putc(out, '}');
}

static void write_array(const ProtobufCMessage *message, const message_field *field, bool full,
			struct buf *out)
{
	const char *items = *(const char *const *)field_at(message, field);

	buf_putc(out, '[');
	for (size_t i = 0; i < *field_count(message, field); i++) {
		if (i > 0)
			buf_putc(out, ',');
		write_value(field, items + i * field_value_size(field), full, out);
	}
	buf_putc(out, ']');
}

static void write_field(const ProtobufCMessage *message, const message_field *field, bool full,
			struct buf *out)
{
	char name[JSON_NAME_MAX];

	json_field_name(field, name);
	buf_putc(out, '"');
	buf_puts(out, name);
	buf_puts(out, "\":");
	if (field_is_map(field))
		write_map(message, field, full, out);
	else if (field_is_repeated(field))
		write_array(message, field, full, out);
	else
		write_value(field, field_at(message, field), full, out);
}

/* An absent message and a oneof member that is not selected have no default to show. */
static bool has_default(const message_field *field)
{
	return field_is_repeated(field) ||
	       (!field_is_oneof(field) && field->type != PROTOBUF_C_TYPE_MESSAGE);
}

static void write_message(const ProtobufCMessage *message, bool full, struct buf *out)
{
	const message_type *type = message->descriptor;
	bool first = true;

	buf_putc(out, '{');
	for (unsigned i = 0; i < type->n_fields; i++) {
		const message_field *field = &type->fields[i];

		if (!field_is_present(message, field) && !(full && has_default(field)))
			continue;
		if (!first)
			buf_putc(out, ',');
		first = false;
		write_field(message, field, full, out);
	}
	buf_putc(out, '}');
}

void json_encode(const ProtobufCMessage *message, struct buf *out)
{
	write_message(message, false, out);
}

void json_encode_full(const ProtobufCMessage *message, struct buf *out)
{
	write_message(message, true, out);
}
