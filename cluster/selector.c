#include "cluster/selector.h"

#include <stdbool.h>
#include <string.h>

struct span {
	const char *text;
	size_t len;
};

static struct span span_trim(struct span s)
{
	while (s.len > 0 && s.text[0] == ' ') {
		s.text++;
		s.len--;
	}
	while (s.len > 0 && s.text[s.len - 1] == ' ')
		s.len--;
	return s;
}

/* False if it does not fit. */
static bool span_copy(struct span s, char *out, size_t room)
{
	if (s.len >= room)
		return false;
	memcpy(out, s.text, s.len);
	out[s.len] = '\0';
	return true;
}

/* Cuts the operator out of "key=value", "key!=value", "key", "!key". */
static enum selector_kind part_split(struct span part, struct span *ret_key, struct span *ret_value)
{
	const char *equal = memchr(part.text, '=', part.len);
	size_t at = equal != NULL ? (size_t)(equal - part.text) : part.len;

	*ret_key = (struct span){part.text, at};
	*ret_value = (struct span){part.text + part.len, 0};
	if (equal != NULL) {
		*ret_value = (struct span){equal + 1, part.len - at - 1};
		if (at == 0 || part.text[at - 1] != '!')
			return SELECTOR_EQUAL;
		ret_key->len--;
		return SELECTOR_DIFFERENT;
	}
	if (at == 0 || part.text[0] != '!')
		return SELECTOR_SET;
	ret_key->text++;
	ret_key->len--;
	return SELECTOR_UNSET;
}

static const char *part_parse(struct span text, struct selector_part *ret)
{
	struct span key;
	struct span value;

	ret->kind = part_split(span_trim(text), &key, &value);
	if (!span_copy(span_trim(key), ret->key, sizeof(ret->key)))
		return "a label key in the selector is longer than 63 bytes";
	if (ret->key[0] == '\0')
		return "a part of the label selector has no key; write region=emea,tier!=lab,owner";
	if (!span_copy(span_trim(value), ret->value, sizeof(ret->value)))
		return "a label value in the selector is longer than 63 bytes";
	return NULL;
}

const char *selector_parse(const char *text, struct selector *ret)
{
	ret->count = 0;
	if (text == NULL || *text == '\0')
		return NULL;
	for (;;) {
		size_t len = strcspn(text, ",");
		const char *problem;

		if (ret->count == LIMIT_SITE_LABELS)
			return "a label selector has at most 16 parts";
		problem = part_parse((struct span){text, len}, &ret->parts[ret->count++]);
		if (problem != NULL || text[len] == '\0')
			return problem;
		text += len + 1;
	}
}
