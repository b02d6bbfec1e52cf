/* base64.h: bytes as base64 text (RFC 4648). */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

/* Appends the standard alphabet with padding. */
void base64_encode(const void *data, size_t len, struct buf *out);
/* Reads the standard or the URL alphabet, with or without padding, no white space.
 * 0 and *ret (owned by the caller, free) and its length, NULL for no bytes; -EINVAL. */
int base64_decode(const char *text, size_t len, uint8_t **ret, size_t *ret_len);
