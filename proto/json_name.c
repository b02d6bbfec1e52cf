#include "proto/json_name.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "lib/text.h"

void json_field_name(const message_field *field, char name[JSON_NAME_MAX])
{
	size_t len = 0;
	bool upper = false;

	for (const char *from = field->name; *from != '\0'; from++) {
		if (*from == '_') {
			upper = true;
			continue;
		}
		assert(len + 1 < JSON_NAME_MAX);
		name[len++] = upper ? (char)toupper((unsigned char)*from) : *from;
		upper = false;
	}
	name[len] = '\0';
}

const message_field *json_field_find(const message_type *type, const char *name)
{
	char candidate[JSON_NAME_MAX];

	for (unsigned i = 0; i < type->n_fields; i++) {
		json_field_name(&type->fields[i], candidate);
		if (strcmp(candidate, name) == 0)
			return &type->fields[i];
	}
	return NULL;
}

/* "TieBreaker" has values that begin with "TIE_BREAKER_". */
static void enum_prefix(const ProtobufCEnumDescriptor *type, char prefix[JSON_NAME_MAX])
{
	size_t len = 0;

	for (const char *from = type->short_name; *from != '\0'; from++) {
		assert(len + 3 < JSON_NAME_MAX);
		if (isupper((unsigned char)*from) && from != type->short_name &&
		    !isupper((unsigned char)from[-1]))
			prefix[len++] = '_';
		prefix[len++] = (char)toupper((unsigned char)*from);
	}
	prefix[len++] = '_';
	prefix[len] = '\0';
}

static void value_word(const ProtobufCEnumDescriptor *type, const char *name,
		       char word[JSON_NAME_MAX])
{
	char prefix[JSON_NAME_MAX];
	size_t len = 0;

	enum_prefix(type, prefix);
	if (strncmp(name, prefix, strlen(prefix)) == 0)
		name += strlen(prefix);
	for (; *name != '\0'; name++) {
		assert(len + 1 < JSON_NAME_MAX);
		word[len++] = *name == '_' ? '-' : (char)tolower((unsigned char)*name);
	}
	word[len] = '\0';
}

const char *json_enum_word(const ProtobufCEnumDescriptor *type, int value, char word[64])
{
	const ProtobufCEnumValue *found = protobuf_c_enum_descriptor_get_value(type, value);

	if (found == NULL)
		return strcpy(word, "unknown");
	value_word(type, found->name, word);
	return word;
}

int json_enum_parse(const ProtobufCEnumDescriptor *type, const char *word, int *ret,
		    struct json_error *error)
{
	char(*words)[JSON_NAME_MAX] = mem_array(type->n_values, sizeof(*words));
	const char **list = mem_array(type->n_values + 1, sizeof(*list));
	char quoted[56];
	int rv = 0;

	for (unsigned i = 0; i < type->n_values; i++) {
		const ProtobufCEnumValue *value = &type->values[i];

		value_word(type, value->name, words[i]);
		list[i] = words[i];
		if (strcmp(word, words[i]) == 0 || strcmp(word, value->name) == 0) {
			*ret = value->value;
			goto out;
		}
	}
	*error = (struct json_error){0};
	rv = json_error_set(error, "\"%s\" is not allowed", json_error_quote(word, quoted));
	json_error_list(error, list);
out:
	free(list);
	free(words);
	return rv;
}

int json_error_set(struct json_error *error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error->message, sizeof(error->message), format, args);
	va_end(args);
	return -EINVAL;
}

const char *json_error_quote(const char *text, char quoted[56])
{
	enum { SHOWN = 48 };
	size_t len = strnlen(text, SHOWN);
	bool cut = text[len] != '\0';

	/* Not in the middle of a character. */
	while (cut && len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
		len--;
	for (size_t i = 0; i < len; i++)
		quoted[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? '?' : text[i];
	strcpy(quoted + len, cut ? "..." : "");
	return quoted;
}

void json_error_list(struct json_error *error, const char *const *words)
{
	size_t len = strlen(error->message);
	const char *before = "; allowed are ";

	for (; *words != NULL; words++) {
		if (len + strlen(before) + strlen(*words) + sizeof(", ...") >
		    sizeof(error->message)) {
			strcpy(error->message + len, ", ...");
			return;
		}
		len += (size_t)sprintf(error->message + len, "%s%s", before, *words);
		before = ", ";
	}
}

void json_error_suggest(struct json_error *error, const char *word, const char *const *words)
{
	const char *nearest = text_nearest(word, words);
	size_t len = strlen(error->message);

	if (nearest == NULL)
		json_error_list(error, words);
	else
		snprintf(error->message + len, sizeof(error->message) - len,
			 "; did you mean \"%s\"?", nearest);
}
