#include "witnessd/token.h"

#include <errno.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

#include "lib/hex.h"
#include "lib/mem.h"

enum {
	ID_AT = 4,
	SECRET_AT = ID_AT + TOKEN_ID_HEX + 1,
	CA_AT = SECRET_AT + 2 * TOKEN_SECRET + 1,
};

/* `len` hex digits into canonical lower case. */
static int hex_part(const char *text, size_t len, uint8_t *bytes, char *lower)
{
	char part[2 * TOKEN_SECRET + 1];
	int rv;

	memcpy(part, text, len);
	part[len] = '\0';
	rv = hex_decode(part, bytes, len / 2);
	if (rv == 0 && lower != NULL)
		hex_encode(bytes, len / 2, lower);
	mem_wipe(part, sizeof(part));
	return rv;
}

int token_parse(const char *text, struct token_parts *ret)
{
	uint8_t bytes[TOKEN_SECRET];
	uint8_t secret[TOKEN_SECRET];
	struct token_parts parts;
	int rv;

	if (strlen(text) != TOKEN_TEXT || strncmp(text, "tb1.", ID_AT) != 0 ||
	    text[SECRET_AT - 1] != '.' || text[CA_AT - 1] != '.')
		return -EINVAL;
	rv = hex_part(text + ID_AT, TOKEN_ID_HEX, bytes, parts.id);
	if (rv == 0)
		rv = hex_part(text + CA_AT, 64, bytes, parts.ca_sha256);
	if (rv == 0)
		rv = hex_part(text + SECRET_AT, sizeof(secret) * 2, secret, NULL);
	if (rv == 0) {
		token_secret_sha256(secret, parts.secret_sha256);
		*ret = parts;
	}
	mem_wipe(secret, sizeof(secret));
	return rv;
}

void token_format(const char *id, const uint8_t secret[TOKEN_SECRET], const char *ca_sha256,
		  char text[TOKEN_TEXT + 1])
{
	char hex[2 * TOKEN_SECRET + 1];

	hex_encode(secret, TOKEN_SECRET, hex);
	snprintf(text, TOKEN_TEXT + 1, "tb1.%s.%s.%s", id, hex, ca_sha256);
	mem_wipe(hex, sizeof(hex));
}

void token_secret_sha256(const uint8_t secret[TOKEN_SECRET], uint8_t ret[32])
{
	SHA256(secret, TOKEN_SECRET, ret);
}
