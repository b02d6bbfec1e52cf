/* json_schema.c: JSON Schema of a type, in the dialect of OpenAPI 3.1 (JSON Schema 2020-12). */
#include "proto/description.h"
#include "proto/json.h"
#include "proto/json_name.h"

static void write_enum(const ProtobufCEnumDescriptor *type, struct buf *out)
{
	char word[64];

	buf_puts(out, "\"type\":\"string\",\"enum\":[");
	for (unsigned i = 0; i < type->n_values; i++)
		buf_printf(out, "%s\"%s\"", i > 0 ? "," : "",
			   json_enum_word(type, type->values[i].value, word));
	buf_putc(out, ']');
}

/* The keywords that say what one value is. */
static void write_value(const message_field *field, struct buf *out)
{
	const message_type *type = field->descriptor;

	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		buf_puts(out, "\"type\":\"integer\",\"format\":\"int32\"");
		return;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		buf_puts(out, "\"type\":\"integer\",\"format\":\"uint32\",\"minimum\":0,"
			      "\"maximum\":4294967295");
		return;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		buf_puts(out,
			 "\"type\":\"string\",\"format\":\"int64\",\"pattern\":\"^-?[0-9]+$\"");
		return;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		buf_puts(out, "\"type\":\"string\",\"format\":\"uint64\",\"pattern\":\"^[0-9]+$\"");
		return;
	case PROTOBUF_C_TYPE_BOOL:
		buf_puts(out, "\"type\":\"boolean\"");
		return;
	case PROTOBUF_C_TYPE_ENUM:
		write_enum(field->descriptor, out);
		return;
	case PROTOBUF_C_TYPE_STRING:
		buf_puts(out, "\"type\":\"string\"");
		return;
	case PROTOBUF_C_TYPE_BYTES:
		buf_puts(out, "\"type\":\"string\",\"contentEncoding\":\"base64\"");
		return;
	case PROTOBUF_C_TYPE_MESSAGE:
		buf_printf(out, "\"$ref\":\"#/components/schemas/%s\"", type->short_name);
		return;
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_DOUBLE:
		/* Ends the process: the schema has none. */
		field_value_size(field);
	}
}

static void write_field(const message_field *field, struct buf *out)
{
	const message_type *entry = field->descriptor;

	if (field_is_map(field)) {
		buf_puts(out, "\"type\":\"object\",\"additionalProperties\":{");
		write_value(&entry->fields[1], out);
		buf_putc(out, '}');
	} else if (field_is_repeated(field)) {
		buf_puts(out, "\"type\":\"array\",\"items\":{");
		write_value(field, out);
		buf_putc(out, '}');
	} else {
		write_value(field, out);
	}
}

static void append_part(const char *separator, const char *text, struct buf *out)
{
	if (text == NULL)
		return;
	if (out->len > 0)
		buf_puts(out, separator);
	buf_puts(out, text);
}

/* "ffsplit = ...; lms = ..." of the values about which something is said. */
static void describe_values(const ProtobufCEnumDescriptor *type, struct buf *out)
{
	char word[64];

	append_part("; ", description_find(type->name, ""), out);
	for (unsigned i = 0; i < type->n_values; i++) {
		const char *text = description_find(type->name, type->values[i].name);

		if (text == NULL)
			continue;
		append_part("; ", json_enum_word(type, type->values[i].value, word), out);
		append_part(" = ", text, out);
	}
}

static void write_description(struct buf *text, const char *separator, struct buf *out)
{
	if (text->len > 0) {
		buf_printf(out, "%s\"description\":", separator);
		json_encode_string(buf_string(text), out);
	}
	buf_free(text);
}

static void describe_field(const message_type *type, const message_field *field, struct buf *out)
{
	struct buf text = {0};

	append_part("; ", description_find(type->name, field->name), &text);
	if (field->type == PROTOBUF_C_TYPE_ENUM)
		describe_values(field->descriptor, &text);
	write_description(&text, ",", out);
}

void json_schema(const ProtobufCMessageDescriptor *type, struct buf *out)
{
	char name[JSON_NAME_MAX];
	struct buf text = {0};

	buf_puts(out, "{\"type\":\"object\",");
	append_part("", description_find(type->name, ""), &text);
	if (text.len > 0) {
		write_description(&text, "", out);
		buf_putc(out, ',');
	}
	buf_puts(out, "\"properties\":{");
	for (unsigned i = 0; i < type->n_fields; i++) {
		json_field_name(&type->fields[i], name);
		buf_printf(out, "%s\"%s\":{", i > 0 ? "," : "", name);
		write_field(&type->fields[i], out);
		describe_field(type, &type->fields[i], out);
		buf_putc(out, '}');
	}
	buf_puts(out, "},\"additionalProperties\":false}");
}
