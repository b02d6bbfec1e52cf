/* json_schema.c: JSON Schema of a type, in the dialect of OpenAPI 3.1 (JSON Schema 2020-12). */
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

void json_schema(const ProtobufCMessageDescriptor *type, struct buf *out)
{
	char name[JSON_NAME_MAX];

	buf_puts(out, "{\"type\":\"object\",\"properties\":{");
	for (unsigned i = 0; i < type->n_fields; i++) {
		json_field_name(&type->fields[i], name);
		buf_printf(out, "%s\"%s\":{", i > 0 ? "," : "", name);
		write_field(&type->fields[i], out);
		buf_putc(out, '}');
	}
	buf_puts(out, "},\"additionalProperties\":false}");
}
