/* The head of a request: the same verdict however the bytes are cut; what is accepted is clean. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/rng.h"
#include "lib/text.h"
#include "witnessd/http.h"
#include "witnessd/http_head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
	if (!ok)
		abort();
}

static int find_in_pieces(const uint8_t *data, size_t size, struct prng *p)
{
	size_t scanned = 0;
	int rv = 0;

	for (size_t len = 0; rv == 0 && len < size;) {
		len += 1 + prng_below(p, size - len);
		/* A copy of just these bytes, so that a look beyond them is seen. */
		uint8_t *piece = malloc(len);
		must(piece != NULL);
		memcpy(piece, data, len);
		rv = http_head_find(piece, len, &scanned);
		free(piece);
	}
	return rv;
}

static void check_text(const char *text)
{
	for (; *text; text++)
		must((uint8_t)*text >= 0x20 || *text == '\t');
}

static void check_query(const char *query)
{
	char *value;

	if (http_query_value(query, "name", &value) == 0) {
		must(text_is_utf8(value, strlen(value)));
		free(value);
	}
}

static void check_head(const struct http_head *h)
{
	char *decoded;

	must(h->method[0] != '\0' && strlen(h->method) <= HTTP_METHOD_MAX);
	must(h->path[0] == '/' || strcmp(h->path, "*") == 0);
	must(strlen(h->path) + strlen(h->query) <= HTTP_TARGET_MAX);
	must(!strchr(h->path, '?') && !strpbrk(h->path, " #\\") && !strpbrk(h->query, " #\\"));
	must(h->field_count <= HTTP_FIELD_MAX);
	must(!(h->chunked && (h->content_length != 0 || h->http_1_0)));
	must(!(h->http_1_0 && h->keep_alive));
	for (unsigned i = 0; i < h->field_count; i++) {
		must(h->fields[i].name[0] != '\0' && !strpbrk(h->fields[i].name, " \t:"));
		check_text(h->fields[i].value);
	}
	if (http_decode(h->path, strlen(h->path), false, &decoded) == 0) {
		must(strlen(decoded) <= strlen(h->path));
		free(decoded);
	}
	check_query(h->query);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct prng p = {.state = size > 0 ? data[0] : 0};
	struct http_head head;
	const char *why = NULL;
	size_t scanned = 0;
	int found = http_head_find(data, size, &scanned);

	for (int i = 0; i < 3; i++)
		must(find_in_pieces(data, size, &p) == found);
	must(found <= (int)size && found <= HTTP_HEAD_MAX);
	if (found <= 0)
		return 0;
	int rv = http_head_parse(data, (size_t)found, &head, &why);
	must(rv == 0 || (rv <= -400 && rv > -600 && why));
	if (rv < 0)
		return 0;
	check_head(&head);
	http_head_free(&head);
	return 0;
}
