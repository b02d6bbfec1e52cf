/* json.h: the ONE mapper between protobuf messages and JSON, by reflection over the
 * protobuf-c descriptors, so that no type has hand-written JSON.
 *
 * Proto3 JSON mapping (protobuf.dev, "ProtoJSON format"): names in lowerCamelCase, 64-bit
 * integers as strings (numbers are accepted on input if exact), bytes as base64, map fields
 * as objects, default values left out (json_encode) or written (json_encode_full).
 * Two deviations, for people: enum values lose the type's prefix and are lower case with
 * dashes ("TIE_BREAKER_LOWEST" is "lowest"; the full name is accepted too); fields named
 * `*_ms` that hold a point in time stay integers (as strings).
 * Unknown fields, wrong types, duplicate keys, out-of-range numbers, nesting over 32 and
 * invalid UTF-8 are refused with the place. Input parsing is jansson's, named here only. */
#pragma once
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#include "lib/buf.h"

struct json_error {
	char field[128]; /* "sites[3].policy.tieBreakerNode"; empty: the whole text */
	char message[256]; /* a sentence that says what is wrong and what is allowed */
	int line; /* 1..; 0 if not known (jansson knows it for syntax errors) */
	int column;
};

/* Appends one compact JSON object. Never fails: the message is ours. */
void json_encode(const ProtobufCMessage *message, struct buf *out);
/* The same with every field, also those at their default. What has no default stays out: a message
 * that is not there, a oneof member that is not chosen. */
void json_encode_full(const ProtobufCMessage *message, struct buf *out);
/* Appends `text` (valid UTF-8 or not) as a JSON string with quotes. */
void json_encode_string(const char *text, struct buf *out);

/* Reads one JSON object into a new message of this type, owned by the caller
 * (protobuf_c_message_free_unpacked with NULL allocator). -EINVAL and *error on bad input. */
int json_decode(const ProtobufCMessageDescriptor *type, const char *text, size_t len,
		ProtobufCMessage **ret, struct json_error *error);
/* Merge-patch (RFC 7396): fields present in the text replace those of `message`, null resets
 * a field to its default, maps merge by key. On error `message` is unchanged. `message` owns all
 * its parts as an unpacked one does: what is replaced is freed. */
int json_merge(ProtobufCMessage *message, const char *text, size_t len, struct json_error *error);

/* Sets one field by its JSON path from text as a person types it (numbers, enum words, true):
 * "policy.algorithm" = "ffsplit", "labels.region" = "north" (a label's name may hold dots). Lists
 * cannot be set. Used for CSV columns and `site set`. Errors and ownership as json_merge. */
int json_set(ProtobufCMessage *message, const char *path, const char *value,
	     struct json_error *error);

/* The JSON Schema (OpenAPI 3.1 dialect) of a type as {"type":"object",...}; nested types as
 * {"$ref":"#/components/schemas/NAME"} where NAME is the message's short name. Comments of
 * api.proto and model.proto are the descriptions. */
void json_schema(const ProtobufCMessageDescriptor *type, struct buf *out);

/* Word of an enum value as in JSON ("lowest"); "unknown" for a number that has no name. */
const char *json_enum_word(const ProtobufCEnumDescriptor *type, int value, char word[64]);
/* The number of a word; -EINVAL and a message that lists the words allowed. */
int json_enum_parse(const ProtobufCEnumDescriptor *type, const char *word, int *ret,
		    struct json_error *error);

/* Deep copy through pack and unpack; the caller owns it. */
ProtobufCMessage *message_copy(const ProtobufCMessage *message);
