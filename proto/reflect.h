/* reflect.h: walking and changing a message by its descriptor, whatever its type.
 *
 * Covers what protoc-c 1.4 makes of our schema: proto3 without `optional`. A field is plain
 * (no presence but its value), in a oneof (present if the case word names it), repeated, or a
 * map (repeated messages `...Entry` with key = 1 and value = 2; protobuf-c has no mark for it).
 * Messages changed here stay free-able by protobuf_c_message_free_unpacked(message, NULL). */
#pragma once
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

typedef ProtobufCMessageDescriptor message_type;
typedef ProtobufCFieldDescriptor message_field;

/* An empty message of this type, owned by the caller. */
ProtobufCMessage *message_new(const message_type *type);

bool field_is_map(const message_field *field);
bool field_is_repeated(const message_field *field);
bool field_is_oneof(const message_field *field);
/* Are both members of one oneof of the type that they belong to? */
bool field_same_oneof(const message_field *a, const message_field *b);

/* Where the value is: of the scalar's type; char *, ProtobufCBinaryData, ProtobufCMessage *;
 * for a repeated field a pointer to the first of field_count() such values. */
void *field_at(const ProtobufCMessage *message, const message_field *field);
/* Number of items of a repeated field. */
size_t *field_count(const ProtobufCMessage *message, const message_field *field);
/* Bytes of one value in memory. */
size_t field_value_size(const message_field *field);
/* Not at its default: repeated fields have items, oneof members are selected. */
bool field_is_present(const ProtobufCMessage *message, const message_field *field);
/* Back to the default; what it held is freed. */
void field_clear(ProtobufCMessage *message, const message_field *field);
/* Makes a oneof member the selected one, with a zero value if it was not; others are freed. */
void field_select(ProtobufCMessage *message, const message_field *field);
/* Frees one value that field_at or an item of a repeated field holds. */
void field_value_free(const message_field *field, void *at);
