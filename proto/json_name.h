/* json_name.h: the names that messages have in JSON; for the other json_*.c only. */
#pragma once
#include "proto/json.h"
#include "proto/reflect.h"

enum { JSON_NAME_MAX = 64 };

/* "tie_breaker_node" is "tieBreakerNode". */
void json_field_name(const message_field *field, char name[JSON_NAME_MAX]);
/* The field with this JSON name, or NULL. */
const message_field *json_field_find(const message_type *type, const char *name);

/* Fills the message; the field stays as it is. Always -EINVAL, so that callers can return it. */
int json_error_set(struct json_error *error, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* Text from outside made fit for a message: one line, printable, at most 48 bytes. */
const char *json_error_quote(const char *text, char quoted[56]);
/* Behind a message: the words (NULL-terminated) that are allowed, as many as fit. */
void json_error_list(struct json_error *error, const char *const *words);
/* The same, or only the one that `word` was meant to be if one is near. */
void json_error_suggest(struct json_error *error, const char *word, const char *const *words);
