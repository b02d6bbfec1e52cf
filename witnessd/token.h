/* token.h: the text of a bearer token, and what of it is kept.
 *
 *   tb1.<id, 16 hex>.<secret, 64 hex>.<SHA-256 of the cluster CA's certificate, 64 hex>
 *
 * The model holds the SHA-256 of the 32 secret bytes only; the text is shown once. */
#pragma once
#include <stdint.h>

enum { TOKEN_ID_HEX = 16, TOKEN_SECRET = 32, TOKEN_TEXT = 4 + 16 + 1 + 64 + 1 + 64 };

struct token_parts {
	char id[TOKEN_ID_HEX + 1];
	uint8_t secret_sha256[32];
	char ca_sha256[65]; /* lower case */
};

/* 0, or -EINVAL if the text is not a token. */
int token_parse(const char *text, struct token_parts *ret);
/* The text of a token; the caller wipes it. */
void token_format(const char *id, const uint8_t secret[TOKEN_SECRET], const char *ca_sha256,
		  char text[TOKEN_TEXT + 1]);
void token_secret_sha256(const uint8_t secret[TOKEN_SECRET], uint8_t ret[32]);
