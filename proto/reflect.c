#include "proto/reflect.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "proto/json.h"

static void *allocate(void *arg, size_t size)
{
	(void)arg;
	return mem_alloc(size);
}

static void release(void *arg, void *data)
{
	(void)arg;
	free(data);
}

ProtobufCMessage *message_new(const message_type *type)
{
	ProtobufCMessage *message = mem_alloc(type->sizeof_message);

	protobuf_c_message_init(type, message);
	return message;
}

ProtobufCMessage *message_copy(const ProtobufCMessage *message)
{
	ProtobufCAllocator allocator = {.alloc = allocate, .free = release};
	size_t len = protobuf_c_message_get_packed_size(message);
	uint8_t *packed = mem_alloc(len);
	ProtobufCMessage *copy;

	protobuf_c_message_pack(message, packed);
	copy = protobuf_c_message_unpack(message->descriptor, &allocator, len, packed);
	assert(copy != NULL);
	mem_wipe(packed, len);
	free(packed);
	return copy;
}

bool field_is_repeated(const message_field *field)
{
	/* Anything else would have a has_ word, which nothing here looks at. */
	assert(field->label == PROTOBUF_C_LABEL_REPEATED || field->label == PROTOBUF_C_LABEL_NONE);
	return field->label == PROTOBUF_C_LABEL_REPEATED;
}

bool field_is_oneof(const message_field *field)
{
	return (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
}

bool field_same_oneof(const message_field *a, const message_field *b)
{
	return field_is_oneof(a) && field_is_oneof(b) &&
	       a->quantifier_offset == b->quantifier_offset;
}

bool field_is_map(const message_field *field)
{
	static const char suffix[] = "Entry";
	const message_type *type = field->descriptor;
	size_t len;

	if (!field_is_repeated(field) || field->type != PROTOBUF_C_TYPE_MESSAGE)
		return false;
	len = strlen(type->short_name);
	return len > strlen(suffix) &&
	       strcmp(type->short_name + len - strlen(suffix), suffix) == 0 &&
	       type->n_fields == 2 && type->fields[0].id == 1 && type->fields[1].id == 2 &&
	       strcmp(type->fields[0].name, "key") == 0 &&
	       strcmp(type->fields[1].name, "value") == 0;
}

static void *at_offset(const ProtobufCMessage *message, unsigned offset)
{
	return (char *)(uintptr_t)message + offset;
}

void *field_at(const ProtobufCMessage *message, const message_field *field)
{
	return at_offset(message, field->offset);
}

size_t *field_count(const ProtobufCMessage *message, const message_field *field)
{
	assert(field_is_repeated(field));
	return at_offset(message, field->quantifier_offset);
}

/* The word that names the selected member: an enum whose values are field numbers. */
static uint32_t *field_case(const ProtobufCMessage *message, const message_field *field)
{
	return at_offset(message, field->quantifier_offset);
}

size_t field_value_size(const message_field *field)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_ENUM:
		return sizeof(uint32_t);
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		return sizeof(uint64_t);
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_STRING:
		return sizeof(char *);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(ProtobufCMessage *);
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_DOUBLE:
		break;
	}
	assert(!"our schema has no floating point (docs/decisions/0001-json-mapping.md)");
	abort();
}

bool field_is_present(const ProtobufCMessage *message, const message_field *field)
{
	static const uint8_t zero[sizeof(uint64_t)];
	const void *at = field_at(message, field);

	if (field_is_repeated(field))
		return *field_count(message, field) != 0;
	if (field_is_oneof(field))
		return *field_case(message, field) == field->id;
	if (field->type == PROTOBUF_C_TYPE_STRING)
		return *(char *const *)at != NULL && **(char *const *)at != '\0';
	if (field->type == PROTOBUF_C_TYPE_BYTES)
		return ((const ProtobufCBinaryData *)at)->len != 0;
	return memcmp(at, zero, field_value_size(field)) != 0;
}

void field_value_free(const message_field *field, void *at)
{
	if (field->type == PROTOBUF_C_TYPE_STRING) {
		/* The default is a constant of the library. */
		if (*(char **)at != field->default_value)
			free(*(char **)at);
	} else if (field->type == PROTOBUF_C_TYPE_BYTES) {
		free(((ProtobufCBinaryData *)at)->data);
	} else if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
		protobuf_c_message_free_unpacked(*(ProtobufCMessage **)at, NULL);
	}
}

static void clear_repeated(ProtobufCMessage *message, const message_field *field)
{
	char **items = field_at(message, field);
	size_t *count = field_count(message, field);

	for (size_t i = 0; i < *count; i++)
		field_value_free(field, *items + i * field_value_size(field));
	free(*items);
	*items = NULL;
	*count = 0;
}

void field_clear(ProtobufCMessage *message, const message_field *field)
{
	void *at = field_at(message, field);

	if (field_is_repeated(field)) {
		clear_repeated(message, field);
		return;
	}
	if (field_is_oneof(field)) {
		if (*field_case(message, field) != field->id)
			return;
		*field_case(message, field) = 0;
	}
	field_value_free(field, at);
	memset(at, 0, field_value_size(field));
	if (field->type == PROTOBUF_C_TYPE_STRING && !field_is_oneof(field))
		*(const void **)at = field->default_value;
}

void field_select(ProtobufCMessage *message, const message_field *field)
{
	const message_type *type = message->descriptor;

	if (!field_is_oneof(field) || *field_case(message, field) == field->id)
		return;
	for (unsigned i = 0; i < type->n_fields; i++)
		if (field_same_oneof(&type->fields[i], field))
			field_clear(message, &type->fields[i]);
	memset(field_at(message, field), 0, field_value_size(field));
	*field_case(message, field) = field->id;
}
