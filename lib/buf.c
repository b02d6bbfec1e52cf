#include "lib/buf.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

void buf_free(struct buf *b)
{
	free(b->data);
	*b = (struct buf){0};
}

void buf_clear(struct buf *b)
{
	b->len = 0;
}

uint8_t *buf_reserve(struct buf *b, size_t extra)
{
	assert(extra <= SIZE_MAX / 2 - b->len);
	if (b->data == NULL || b->len + extra > b->cap) {
		size_t cap = b->cap ? b->cap : 64;

		while (cap < b->len + extra)
			cap *= 2;
		b->data = mem_realloc(b->data, cap);
		b->cap = cap;
	}
	return b->data + b->len;
}

void buf_append(struct buf *b, const void *data, size_t len)
{
	if (len == 0)
		return;
	memcpy(buf_reserve(b, len), data, len);
	b->len += len;
}

void buf_puts(struct buf *b, const char *text)
{
	buf_append(b, text, strlen(text));
}

void buf_putc(struct buf *b, char c)
{
	*buf_reserve(b, 1) = (uint8_t)c;
	b->len++;
}

void buf_vprintf(struct buf *b, const char *format, va_list args)
{
	va_list again;
	int len;

	va_copy(again, args);
	len = vsnprintf(NULL, 0, format, again);
	va_end(again);
	assert(len >= 0);
	buf_reserve(b, (size_t)len + 1);
	vsnprintf((char *)b->data + b->len, (size_t)len + 1, format, args);
	b->len += (size_t)len;
}

void buf_printf(struct buf *b, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	buf_vprintf(b, format, args);
	va_end(args);
}

void buf_consume(struct buf *b, size_t len)
{
	assert(len <= b->len);
	b->len -= len;
	if (b->len != 0 && len != 0)
		memmove(b->data, b->data + len, b->len);
}

const char *buf_string(struct buf *b)
{
	*buf_reserve(b, 1) = 0;
	return (const char *)b->data;
}

void buf_put_u8(struct buf *b, uint8_t value)
{
	*buf_reserve(b, 1) = value;
	b->len++;
}

void buf_put_u16(struct buf *b, uint16_t value)
{
	buf_put_u8(b, (uint8_t)(value >> 8));
	buf_put_u8(b, (uint8_t)value);
}

void buf_put_u32(struct buf *b, uint32_t value)
{
	buf_put_u16(b, (uint16_t)(value >> 16));
	buf_put_u16(b, (uint16_t)value);
}

void buf_put_u64(struct buf *b, uint64_t value)
{
	buf_put_u32(b, (uint32_t)(value >> 32));
	buf_put_u32(b, (uint32_t)value);
}
