/* http_text.c: percent-decoding of paths and queries. Pure. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/hex.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "witnessd/http.h"

int http_decode(const char *text, size_t len, bool plus, char **ret)
{
	char *out = mem_alloc(len + 1);
	size_t at = 0;

	for (size_t i = 0; i < len; i++) {
		uint8_t byte = (uint8_t)text[i];

		if (byte == '%') {
			char digits[3] = "";

			memcpy(digits, text + i + 1, len - i - 1 < 2 ? len - i - 1 : 2);
			if (hex_decode(digits, &byte, 1) < 0)
				goto bad;
			i += 2;
		} else if (plus && byte == '+') {
			byte = ' ';
		}
		out[at++] = (char)byte;
	}
	if (!text_is_utf8(out, at))
		goto bad;
	out[at] = '\0';
	*ret = out;
	return 0;
bad:
	free(out);
	return -EINVAL;
}

/* Is the name of the parameter at `text` (up to '=' or `len`) `name`? */
static bool is_parameter(const char *text, size_t len, const char *name)
{
	char *decoded;

	if (http_decode(text, len, true, &decoded) < 0)
		return false;
	bool same = strcmp(decoded, name) == 0;
	free(decoded);
	return same;
}

int http_query_value(const char *query, const char *name, char **ret)
{
	char *value = NULL;
	int rv = -ENOENT;

	while (*query) {
		size_t len = strcspn(query, "&");
		size_t name_len = strcspn(query, "=&");

		if (is_parameter(query, name_len, name)) {
			size_t skip = name_len < len ? name_len + 1 : len;

			rv = value ? -EINVAL : http_decode(query + skip, len - skip, true, &value);
			if (rv < 0)
				break;
		}
		query += len;
		query += *query == '&';
	}
	if (rv < 0)
		free(value);
	else
		*ret = value;
	return rv;
}
