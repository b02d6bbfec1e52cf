/* buf.h: a growable byte buffer.
 *
 * Zero-initialised means empty. The buffer owns its bytes; `buf_free` gives them
 * back and leaves it empty. Growth never fails (lib/mem.h); whoever fills a
 * buffer from outside bounds it first. Not thread-safe. */
#pragma once
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	uint8_t *data; /* NULL while cap is 0 */
	size_t len; /* bytes in use */
	size_t cap; /* len <= cap */
};

void buf_free(struct buf *b);
/* Forgets the content, keeps the room. */
void buf_clear(struct buf *b);
/* Room for `extra` more bytes behind len; returns where they start. */
uint8_t *buf_reserve(struct buf *b, size_t extra);
void buf_append(struct buf *b, const void *data, size_t len);
void buf_puts(struct buf *b, const char *text);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *format, va_list args)
	__attribute__((format(printf, 2, 0)));
/* Drops the first `len` bytes (len <= b->len); the rest moves to the front. */
void buf_consume(struct buf *b, size_t len);
/* The content as a C string: a zero byte is kept behind len. Valid until the next change. */
const char *buf_string(struct buf *b);
/* Big-endian integers, as QNet and our frames use them. */
void buf_put_u8(struct buf *b, uint8_t value);
void buf_put_u16(struct buf *b, uint16_t value);
void buf_put_u32(struct buf *b, uint32_t value);
void buf_put_u64(struct buf *b, uint64_t value);
