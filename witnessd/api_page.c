/* api_page.c: lists in pages.
 *
 * A page token is base64url(MAC || key of the last row). The MAC (HMAC-SHA-256, first 16 bytes) is
 * over the query and that key with a key of the cluster, so that a token works on every board, and
 * one from another query or cluster, or a made-up one, is refused instead of giving odd pages. */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "witnessd/api_call.h"

enum { MAC = 16, LAST_MAX = 128, TOKEN_MAX = (MAC + LAST_MAX) * 4 / 3 + 4 };

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void page_mac(const char *cluster_key, const char *query, const char *last,
		     uint8_t mac[EVP_MAX_MD_SIZE])
{
	struct buf text = {0};

	buf_puts(&text, "page");
	buf_append(&text, query, strlen(query) + 1);
	buf_append(&text, last, strlen(last) + 1);
	HMAC(EVP_sha256(), cluster_key, (int)strlen(cluster_key), text.data, text.len, mac, NULL);
	buf_free(&text);
}

char *api_page_make(const char *cluster_key, const char *query, const char *last)
{
	uint8_t mac[EVP_MAX_MD_SIZE];
	struct buf bytes = {0};
	struct buf text = {0};
	char *page;

	page_mac(cluster_key, query, last, mac);
	buf_append(&bytes, mac, MAC);
	buf_puts(&bytes, last);
	for (size_t i = 0; i < bytes.len; i += 3) {
		unsigned n = bytes.data[i] << 16;

		if (i + 1 < bytes.len)
			n |= bytes.data[i + 1] << 8;
		if (i + 2 < bytes.len)
			n |= bytes.data[i + 2];
		buf_putc(&text, digits[n >> 18]);
		buf_putc(&text, digits[n >> 12 & 63]);
		if (i + 1 < bytes.len)
			buf_putc(&text, digits[n >> 6 & 63]);
		if (i + 2 < bytes.len)
			buf_putc(&text, digits[n & 63]);
	}
	page = mem_strdup(buf_string(&text));
	buf_free(&bytes);
	buf_free(&text);
	return page;
}

static int page_bytes(const char *page, struct buf *bytes)
{
	size_t len = strlen(page);
	unsigned bits = 0;
	unsigned n = 0;

	if (len > TOKEN_MAX || len % 4 == 1)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		const char *at = strchr(digits, page[i]);

		if (at == NULL)
			return -EINVAL;
		n = n << 6 | (unsigned)(at - digits);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			buf_putc(bytes, (char)(n >> bits & 255));
		}
	}
	return (n & ((1U << bits) - 1)) == 0 ? 0 : -EINVAL;
}

int api_page_open(const char *cluster_key, const char *query, const char *page, char **ret_last)
{
	uint8_t mac[EVP_MAX_MD_SIZE];
	struct buf bytes = {0};
	int rv = page_bytes(page, &bytes);

	if (rv == 0 && (bytes.len <= MAC || memchr(bytes.data + MAC, 0, bytes.len - MAC) != NULL))
		rv = -EINVAL;
	if (rv == 0) {
		const char *last = buf_string(&bytes) + MAC;

		page_mac(cluster_key, query, last, mac);
		rv = CRYPTO_memcmp(mac, bytes.data, MAC) == 0 ? 0 : -EINVAL;
		if (rv == 0)
			*ret_last = mem_strdup(last);
	}
	buf_free(&bytes);
	return rv;
}

/* The CA's key is the one secret that every board has from its first moment. */
static Tb__Secrets *call_secrets(struct api_call *call)
{
	struct store *s = api_store(call->api);
	Tb__Secrets *secrets = NULL;

	return s != NULL && store_secrets_get(s, &secrets) == 0 ? secrets : NULL;
}

char *api_page_for_call(struct api_call *call, const char *query, const char *last)
{
	Tb__Secrets *secrets = call_secrets(call);
	char *page = api_page_make(secrets != NULL ? secrets->ca_key : "", query, last);

	tb__secrets__free_unpacked(secrets, NULL);
	return page;
}

int api_page_of_call(struct api_call *call, const char *query, char **ret_last)
{
	const struct api_value *page = api_param(call, "page");
	Tb__Secrets *secrets;
	int rv;

	*ret_last = NULL;
	if (!page->set)
		return 0;
	secrets = call_secrets(call);
	rv = secrets != NULL ? api_page_open(secrets->ca_key, query, page->text, ret_last)
			     : -EINVAL;
	tb__secrets__free_unpacked(secrets, NULL);
	if (rv != 0)
		api_problem_field(call, 400, "page",
				  "this page token belongs to another query or cluster; take "
				  "nextPage from an answer to the same query, or leave it out "
				  "to begin at the first page");
	return rv;
}

void api_list_begin(struct api_list *l)
{
	*l = (struct api_list){0};
	buf_puts(&l->text, "{\"items\":[");
}

void api_list_item(struct api_list *l, const ProtobufCMessage *item)
{
	if (l->count++ > 0)
		buf_putc(&l->text, ',');
	json_encode(item, &l->text);
}

void api_list_answer(struct api_list *l, struct api_call *call, const char *next_page,
		     uint64_t total)
{
	struct buf text = l->text; /* the list may go with the call */

	l->text = (struct buf){0};
	buf_putc(&text, ']');
	if (next_page != NULL)
		buf_printf(&text, ",\"nextPage\":\"%s\"", next_page);
	if (total > 0)
		buf_printf(&text, ",\"total\":%llu", (unsigned long long)total);
	buf_putc(&text, '}');
	api_answer_text(call, &text);
	buf_free(&text);
}
