#include "witnessd/http_chunk.h"

enum { SIZE, SIZE_LF, DATA, DATA_CR, DATA_LF, LAST_CR, LAST_LF, WHOLE };
enum { SIZE_DIGITS_MAX = 8 };

static int hex_value(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static int feed_size(struct http_chunks *c, uint8_t byte)
{
	int digit = hex_value(byte);

	if (digit >= 0 && c->digits < SIZE_DIGITS_MAX) {
		c->left = c->left << 4 | (unsigned)digit;
		c->digits++;
		return 0;
	}
	if (byte != '\r' || c->digits == 0)
		return -400;
	c->state = SIZE_LF;
	return 0;
}

/* One byte that is not of the body. */
static int feed_byte(struct http_chunks *c, uint8_t byte)
{
	switch (c->state) {
	case SIZE:
		return feed_size(c, byte);
	case SIZE_LF:
		c->state = c->left > 0 ? DATA : LAST_CR;
		return byte == '\n' ? 0 : -400;
	case DATA_CR:
		c->state = DATA_LF;
		return byte == '\r' ? 0 : -400;
	case DATA_LF:
		*c = (struct http_chunks){.state = SIZE};
		return byte == '\n' ? 0 : -400;
	case LAST_CR:
		c->state = LAST_LF;
		return byte == '\r' ? 0 : -400; /* else it is a trailer */
	default:
		c->state = WHOLE;
		return byte == '\n' ? 1 : -400;
	}
}

static size_t feed_data(struct http_chunks *c, const uint8_t *data, size_t len, struct buf *body)
{
	if (len > c->left)
		len = (size_t)c->left;
	buf_append(body, data, len);
	c->left -= len;
	if (c->left == 0)
		c->state = DATA_CR;
	return len;
}

int http_chunks_feed(struct http_chunks *c, const uint8_t *data, size_t len, size_t limit,
		     struct buf *body, size_t *ret_used)
{
	size_t at = 0;
	int rv = 0;

	while (rv == 0 && at < len) {
		if (c->state == DATA)
			at += feed_data(c, data + at, len - at, body);
		else
			rv = feed_byte(c, data[at++]);
		/* Known from the size line on: what would not fit is not even waited for. */
		if (rv == 0 && c->state == DATA && c->left > limit - body->len)
			rv = -413;
	}
	*ret_used = at;
	return rv;
}
