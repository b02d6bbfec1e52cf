#include "lib/base64.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/mem.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(const void *data, size_t len, struct buf *out)
{
	const uint8_t *in = data;

	for (size_t i = 0; i < len; i += 3) {
		size_t have = len - i < 3 ? len - i : 3;
		uint32_t group = (uint32_t)in[i] << 16;
		char text[4];

		if (have > 1)
			group |= (uint32_t)in[i + 1] << 8;
		if (have > 2)
			group |= in[i + 2];
		text[0] = alphabet[group >> 18];
		text[1] = alphabet[group >> 12 & 63];
		text[2] = have > 1 ? alphabet[group >> 6 & 63] : '=';
		text[3] = have > 2 ? alphabet[group & 63] : '=';
		buf_append(out, text, sizeof(text));
	}
}

static int digit_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+' || c == '-')
		return 62;
	if (c == '/' || c == '_')
		return 63;
	return -1;
}

int base64_decode(const char *text, size_t len, uint8_t **ret, size_t *ret_len)
{
	uint8_t *data;
	size_t used = 0;
	uint32_t bits = 0;
	unsigned bit_count = 0;

	if (len % 4 == 0 && len > 0 && text[len - 1] == '=')
		len -= text[len - 2] == '=' ? 2 : 1;
	if (len % 4 == 1)
		return -EINVAL;
	data = mem_alloc(len / 4 * 3 + 3);
	for (size_t i = 0; i < len; i++) {
		int value = digit_value(text[i]);

		if (value < 0)
			goto bad;
		bits = bits << 6 | (uint32_t)value;
		bit_count += 6;
		if (bit_count >= 8) {
			bit_count -= 8;
			data[used++] = (uint8_t)(bits >> bit_count);
		}
	}
	/* One value has one text: the bits behind the last byte are zero. */
	if ((bits & ((1U << bit_count) - 1)) != 0)
		goto bad;
	if (used == 0) {
		free(data);
		data = NULL;
	}
	*ret = data;
	*ret_len = used;
	return 0;
bad:
	free(data);
	return -EINVAL;
}
