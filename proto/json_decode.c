/* json_decode.c: JSON text to messages, strictly. jansson parses the text; what is here maps
 * its values by the descriptors. Everything read is bounded by the length of the text, which
 * the caller bounds. */
#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base64.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "proto/json.h"
#include "proto/json_name.h"

enum { NESTING_MAX = 32 };

/* Where we are, for errors: a chain of stack frames. */
struct place {
	const struct place *up; /* NULL at the top, which has no name */
	const char *name; /* NULL for an item of an array */
	size_t index;
};

struct reader {
	struct json_error *error;
	bool merge; /* RFC 7396: keep what the text does not name, null removes */
};

static int read_message(const struct reader *r, const struct place *place, const json_t *value,
			ProtobufCMessage *message);

static void place_print(const struct place *place, struct buf *out)
{
	char quoted[56];

	if (place->up == NULL)
		return;
	place_print(place->up, out);
	if (place->name == NULL)
		buf_printf(out, "[%zu]", place->index);
	else
		buf_printf(out, "%s%s", out->len > 0 ? "." : "",
			   json_error_quote(place->name, quoted));
}

static void place_write(const struct place *place, char *text, size_t size)
{
	struct buf out = {0};

	place_print(place, &out);
	snprintf(text, size, "%s", buf_string(&out));
	buf_free(&out);
}

static int fail(const struct reader *r, const struct place *place, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(const struct reader *r, const struct place *place, const char *format, ...)
{
	va_list args;

	*r->error = (struct json_error){0};
	place_write(place, r->error->field, sizeof(r->error->field));
	va_start(args, format);
	vsnprintf(r->error->message, sizeof(r->error->message), format, args);
	va_end(args);
	return -EINVAL;
}

static int fail_unknown(const struct reader *r, const struct place *place, const message_type *type)
{
	char(*names)[JSON_NAME_MAX] = mem_array(type->n_fields, sizeof(*names));
	const char **list = mem_array(type->n_fields + 1, sizeof(*list));
	char within[64];
	char quoted[56];

	for (unsigned i = 0; i < type->n_fields; i++) {
		json_field_name(&type->fields[i], names[i]);
		list[i] = names[i];
	}
	place_write(place->up, within, sizeof(within));
	fail(r, place, "unknown field \"%s\"%s%s", json_error_quote(place->name, quoted),
	     within[0] != '\0' ? " in " : "", within);
	json_error_suggest(r->error, place->name, list);
	free(list);
	free(names);
	return -EINVAL;
}

/* A whole number of any size that our types have. */
struct whole {
	bool negative;
	uint64_t magnitude;
};

static int whole_from_text(const char *text, struct whole *ret)
{
	bool negative = *text == '-';
	uint64_t magnitude;

	if (text_to_u64(text + negative, 0, UINT64_MAX, &magnitude) != 0)
		return -EINVAL;
	*ret = (struct whole){.negative = negative && magnitude != 0, .magnitude = magnitude};
	return 0;
}

/* 1e3 is a whole number, and a double holds it exactly up to 2^53. */
static int whole_from_real(double real, struct whole *ret)
{
	const double most = 9007199254740992.0;

	if (!(real >= -most && real <= most) || (double)(int64_t)real != real)
		return -EINVAL;
	*ret = (struct whole){.negative = real < 0,
			      .magnitude = (uint64_t)(real < 0 ? -real : real)};
	return 0;
}

static int whole_read(const json_t *value, struct whole *ret)
{
	json_int_t number;

	if (json_is_string(value))
		return whole_from_text(json_string_value(value), ret);
	if (json_is_real(value))
		return whole_from_real(json_real_value(value), ret);
	if (!json_is_integer(value))
		return -EINVAL;
	number = json_integer_value(value);
	*ret = (struct whole){.negative = number < 0,
			      .magnitude = number < 0 ? -(uint64_t)number : (uint64_t)number};
	return 0;
}

static int read_unsigned(const struct reader *r, const struct place *place, const json_t *value,
			 uint64_t max, uint64_t *ret)
{
	struct whole number;

	if (whole_read(value, &number) != 0 || number.negative || number.magnitude > max)
		return fail(r, place, "must be a whole number from 0 to %llu",
			    (unsigned long long)max);
	*ret = number.magnitude;
	return 0;
}

static int read_signed(const struct reader *r, const struct place *place, const json_t *value,
		       int64_t max, int64_t *ret)
{
	struct whole number;

	if (whole_read(value, &number) != 0 ||
	    number.magnitude > (uint64_t)max + (number.negative ? 1 : 0))
		return fail(r, place, "must be a whole number from %lld to %lld",
			    -(long long)max - 1, (long long)max);
	*ret = (int64_t)(number.negative ? -number.magnitude : number.magnitude);
	return 0;
}

static int read_int32(const struct reader *r, const struct place *place, const json_t *value,
		      int32_t *ret)
{
	int64_t number = 0;

	if (read_signed(r, place, value, INT32_MAX, &number) != 0)
		return -EINVAL;
	*ret = (int32_t)number;
	return 0;
}

static int read_uint32(const struct reader *r, const struct place *place, const json_t *value,
		       uint32_t *ret)
{
	uint64_t number = 0;

	if (read_unsigned(r, place, value, UINT32_MAX, &number) != 0)
		return -EINVAL;
	*ret = (uint32_t)number;
	return 0;
}

static int read_enum(const struct reader *r, const struct place *place, const json_t *value,
		     const ProtobufCEnumDescriptor *type, int *ret)
{
	/* What is not a string is not a word, and "" makes the message that lists them. */
	const char *word = json_is_string(value) ? json_string_value(value) : "";

	if (json_is_integer(value) && json_integer_value(value) == (int)json_integer_value(value) &&
	    protobuf_c_enum_descriptor_get_value(type, (int)json_integer_value(value)) != NULL) {
		*ret = (int)json_integer_value(value);
		return 0;
	}
	if (json_enum_parse(type, word, ret, r->error) != 0) {
		place_write(place, r->error->field, sizeof(r->error->field));
		return -EINVAL;
	}
	return 0;
}

static int read_bool(const struct reader *r, const struct place *place, const json_t *value,
		     protobuf_c_boolean *ret)
{
	if (!json_is_boolean(value))
		return fail(r, place, "must be true or false");
	*ret = json_is_true(value);
	return 0;
}

static int read_string(const struct reader *r, const struct place *place, const json_t *value,
		       char **ret)
{
	if (!json_is_string(value))
		return fail(r, place, "must be a string");
	*ret = mem_strdup(json_string_value(value));
	return 0;
}

static int read_bytes(const struct reader *r, const struct place *place, const json_t *value,
		      ProtobufCBinaryData *ret)
{
	if (!json_is_string(value) ||
	    base64_decode(json_string_value(value), json_string_length(value), &ret->data,
			  &ret->len) != 0)
		return fail(r, place, "must be a string in base64");
	return 0;
}

static int read_submessage(const struct reader *r, const struct place *place, const json_t *value,
			   const message_type *type, ProtobufCMessage **at)
{
	if (*at == NULL)
		*at = message_new(type);
	return read_message(r, place, value, *at);
}

/* Reads one value to `at`, which holds nothing to be freed unless it is a message to be merged. */
static int read_value(const struct reader *r, const struct place *place, const json_t *value,
		      const message_field *field, void *at)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		return read_int32(r, place, value, at);
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		return read_uint32(r, place, value, at);
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		return read_signed(r, place, value, INT64_MAX, at);
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		return read_unsigned(r, place, value, UINT64_MAX, at);
	case PROTOBUF_C_TYPE_BOOL:
		return read_bool(r, place, value, at);
	case PROTOBUF_C_TYPE_ENUM:
		return read_enum(r, place, value, field->descriptor, at);
	case PROTOBUF_C_TYPE_STRING:
		return read_string(r, place, value, at);
	case PROTOBUF_C_TYPE_BYTES:
		return read_bytes(r, place, value, at);
	case PROTOBUF_C_TYPE_MESSAGE:
		return read_submessage(r, place, value, field->descriptor, at);
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_DOUBLE:
		break;
	}
	/* Ends the process: the schema has none. */
	return (int)field_value_size(field);
}

static int read_array(const struct reader *r, const struct place *place, const json_t *value,
		      const message_field *field, ProtobufCMessage *message)
{
	size_t *count = field_count(message, field);
	size_t size = field_value_size(field);
	char *items;

	if (!json_is_array(value))
		return fail(r, place, "must be an array");
	field_clear(message, field);
	if (json_array_size(value) == 0)
		return 0;
	items = mem_array(json_array_size(value), size);
	*(char **)field_at(message, field) = items;
	for (size_t i = 0; i < json_array_size(value); i++) {
		const struct place item = {.up = place, .index = i};

		/* Counted first, so that what an error leaves in it is freed with the message. */
		*count = i + 1;
		if (read_value(r, &item, json_array_get(value, i), field, items + i * size) != 0)
			return -EINVAL;
	}
	return 0;
}

/* What the field holds is replaced, or merged with if it is a message. */
static int read_singular(const struct reader *r, const struct place *place, const json_t *value,
			 const message_field *field, ProtobufCMessage *message)
{
	if (field->type != PROTOBUF_C_TYPE_MESSAGE)
		field_clear(message, field);
	field_select(message, field);
	return read_value(r, place, value, field, field_at(message, field));
}

static ProtobufCMessage **map_entries(const ProtobufCMessage *message, const message_field *field)
{
	return *(ProtobufCMessage ***)field_at(message, field);
}

static const message_field *map_value(const message_field *field)
{
	const message_type *entry = field->descriptor;

	return &entry->fields[1];
}

static char **entry_key(const ProtobufCMessage *entry)
{
	const message_field *key = &entry->descriptor->fields[0];

	assert(key->type == PROTOBUF_C_TYPE_STRING);
	return field_at(entry, key);
}

/* Index of the entry with this key among the first `count`, or `count`. */
static size_t map_find(const ProtobufCMessage *message, const message_field *field, size_t count,
		       const char *key)
{
	ProtobufCMessage **entries = map_entries(message, field);
	size_t i = 0;

	while (i < count && strcmp(*entry_key(entries[i]), key) != 0)
		i++;
	return i;
}

static void map_remove(ProtobufCMessage *message, const message_field *field, size_t index)
{
	ProtobufCMessage **entries = map_entries(message, field);
	size_t *count = field_count(message, field);

	protobuf_c_message_free_unpacked(entries[index], NULL);
	memmove(entries + index, entries + index + 1, (*count - index - 1) * sizeof(*entries));
	*count -= 1;
}

static int map_put(const struct reader *r, const struct place *place, const json_t *value,
		   const message_field *field, size_t index, ProtobufCMessage *message)
{
	ProtobufCMessage **entries = map_entries(message, field);
	size_t *count = field_count(message, field);

	if (index == *count) {
		entries[index] = message_new(field->descriptor);
		*entry_key(entries[index]) = mem_strdup(place->name);
		*count = index + 1;
	}
	return read_singular(r, place, value, map_value(field), entries[index]);
}

static int read_map(const struct reader *r, const struct place *place, json_t *value,
		    const message_field *field, ProtobufCMessage *message)
{
	size_t *count = field_count(message, field);
	void **entries = field_at(message, field);
	const char *key;
	json_t *item;
	size_t old;

	if (!json_is_object(value))
		return fail(r, place, "must be an object");
	if (!r->merge)
		field_clear(message, field);
	/* The keys of the text are distinct: only what was there before needs to be searched. */
	old = *count;
	*entries = mem_realloc(*entries, (*count + json_object_size(value)) * sizeof(*entries));
	json_object_foreach(value, key, item)
	{
		const struct place here = {.up = place, .name = key};
		size_t index = map_find(message, field, old, key);

		if (json_is_null(item) && !r->merge)
			return fail(r, &here, "must not be null");
		if (json_is_null(item)) {
			if (index < old) {
				map_remove(message, field, index);
				old--;
			}
			continue;
		}
		if (index == old)
			index = *count;
		if (map_put(r, &here, item, field, index, message) != 0)
			return -EINVAL;
	}
	return 0;
}

/* Two members of one oneof cannot both be meant. */
static int check_oneof(const struct reader *r, const struct place *place, const json_t *object,
		       const message_type *type, const message_field *field)
{
	char name[JSON_NAME_MAX];

	for (const message_field *other = type->fields; other < field; other++) {
		const json_t *value;

		if (!field_same_oneof(other, field))
			continue;
		json_field_name(other, name);
		value = json_object_get(object, name);
		if (value != NULL && !json_is_null(value))
			return fail(r, place, "cannot be given together with \"%s\"", name);
	}
	return 0;
}

static int read_field(const struct reader *r, const struct place *place, json_t *value,
		      const message_field *field, ProtobufCMessage *message)
{
	if (json_is_null(value)) {
		field_clear(message, field);
		return 0;
	}
	if (field_is_map(field))
		return read_map(r, place, value, field, message);
	if (field_is_repeated(field))
		return read_array(r, place, value, field, message);
	return read_singular(r, place, value, field, message);
}

static int read_message(const struct reader *r, const struct place *place, const json_t *value,
			ProtobufCMessage *message)
{
	const message_type *type = message->descriptor;
	json_t *object = (json_t *)(uintptr_t)value;
	const char *key;
	json_t *item;

	if (!json_is_object(value))
		return fail(r, place, "must be an object");
	json_object_foreach(object, key, item)
	{
		const struct place here = {.up = place, .name = key};
		const message_field *field = json_field_find(type, key);

		if (field == NULL)
			return fail_unknown(r, &here, type);
		if (!json_is_null(item) && check_oneof(r, &here, object, type, field) != 0)
			return -EINVAL;
		if (read_field(r, &here, item, field, message) != 0)
			return -EINVAL;
	}
	return 0;
}

/* Ahead of the parser, which would recurse: brackets outside strings. */
static int check_nesting(const char *text, size_t len, struct json_error *error)
{
	unsigned depth = 0;
	bool in_string = false;
	const char *line_start = text;
	int line = 1;

	for (const char *c = text; c < text + len; c++) {
		if (*c == '\n') {
			line++;
			line_start = c + 1;
		}
		if (in_string && *c == '\\')
			c++;
		else if (*c == '"')
			in_string = !in_string;
		else if (!in_string && (*c == '{' || *c == '['))
			depth++;
		else if (!in_string && (*c == '}' || *c == ']') && depth > 0)
			depth--;
		if (depth > NESTING_MAX) {
			error->line = line;
			error->column = (int)(c - line_start) + 1;
			return json_error_set(error, "nested deeper than %d levels", NESTING_MAX);
		}
	}
	return 0;
}

static int parse(const char *text, size_t len, json_t **ret, struct json_error *error)
{
	json_error_t parse_error;

	*error = (struct json_error){0};
	if (check_nesting(text, len, error) != 0)
		return -EINVAL;
	*ret = json_loadb(text, len, JSON_REJECT_DUPLICATES, &parse_error);
	if (*ret != NULL)
		return 0;
	error->line = parse_error.line > 0 ? parse_error.line : 0;
	error->column = parse_error.column > 0 ? parse_error.column : 0;
	if (json_error_code(&parse_error) == json_error_numeric_overflow)
		return json_error_set(error,
				      "a number is too big; write a big 64-bit number as a string");
	json_error_set(error, "not valid JSON: %s", parse_error.text);
	/* jansson quotes the text near the error, whatever it is. */
	for (char *c = error->message; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	return -EINVAL;
}

int json_decode(const ProtobufCMessageDescriptor *type, const char *text, size_t len,
		ProtobufCMessage **ret, struct json_error *error)
{
	const struct reader r = {.error = error};
	const struct place top = {0};
	ProtobufCMessage *message;
	json_t *root;
	int rv;

	if (parse(text, len, &root, error) != 0)
		return -EINVAL;
	message = message_new(type);
	rv = read_message(&r, &top, root, message);
	json_decref(root);
	if (rv != 0)
		protobuf_c_message_free_unpacked(message, NULL);
	else
		*ret = message;
	return rv;
}

/* On a copy that changes places with the message at the end, so that an error changes nothing. */
static int merge_tree(ProtobufCMessage *message, const json_t *patch, struct json_error *error)
{
	const struct reader r = {.error = error, .merge = true};
	const struct place top = {0};
	size_t size = message->descriptor->sizeof_message;
	ProtobufCMessage *copy = message_copy(message);
	int rv = read_message(&r, &top, patch, copy);

	if (rv == 0) {
		void *old = mem_dup(message, size);

		memcpy(message, copy, size);
		memcpy(copy, old, size);
		free(old);
	}
	protobuf_c_message_free_unpacked(copy, NULL);
	return rv;
}

int json_merge(ProtobufCMessage *message, const char *text, size_t len, struct json_error *error)
{
	json_t *root;
	int rv;

	if (parse(text, len, &root, error) != 0)
		return -EINVAL;
	rv = merge_tree(message, root, error);
	json_decref(root);
	return rv;
}

/* The JSON value that a person's text stands for, or NULL if it cannot be this field's. */
static json_t *value_from_text(const message_field *field, const char *text)
{
	if (field_is_repeated(field) || field->type == PROTOBUF_C_TYPE_MESSAGE)
		return NULL;
	if (field->type == PROTOBUF_C_TYPE_BOOL && strcmp(text, "true") == 0)
		return json_true();
	if (field->type == PROTOBUF_C_TYPE_BOOL && strcmp(text, "false") == 0)
		return json_false();
	return json_string(text);
}

/* {"policy":{"algorithm":"ffsplit"}} of "policy.algorithm" and "ffsplit"; NULL if what the path
 * names is not a single value. */
static json_t *patch_from_path(const message_type *type, const char *path, const char *value)
{
	size_t len = strcspn(path, ".");
	const char *rest = path[len] == '.' ? path + len + 1 : NULL;
	char *name = mem_strndup(path, len);
	const message_field *field = json_field_find(type, name);
	json_t *inner = NULL;
	json_t *patch = NULL;

	if (field == NULL)
		inner = json_null(); /* the reader says what is wrong with the name */
	else if (rest == NULL)
		inner = value_from_text(field, value);
	else if (field_is_map(field)) /* keys may hold dots: the key is all the rest */
		inner = json_pack("{s:o}", rest, value_from_text(map_value(field), value));
	else if (field->type == PROTOBUF_C_TYPE_MESSAGE && !field_is_repeated(field))
		inner = patch_from_path(field->descriptor, rest, value);
	if (inner != NULL)
		patch = json_pack("{s:o}", name, inner);
	free(name);
	return patch;
}

int json_set(ProtobufCMessage *message, const char *path, const char *value,
	     struct json_error *error)
{
	char quoted[56];
	json_t *patch;
	int rv;

	*error = (struct json_error){0};
	snprintf(error->field, sizeof(error->field), "%s", json_error_quote(path, quoted));
	if (!text_is_utf8(path, strlen(path)) || !text_is_utf8(value, strlen(value)))
		return json_error_set(error, "must be UTF-8");
	patch = patch_from_path(message->descriptor, path, value);
	if (patch == NULL)
		return json_error_set(error, "cannot be set as one value; name a field of it");
	rv = merge_tree(message, patch, error);
	json_decref(patch);
	return rv;
}
