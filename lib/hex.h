/* hex.h: bytes as lower-case hexadecimal text. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* `text` has room for 2 * len + 1. */
void hex_encode(const void *data, size_t len, char *text);
/* Exactly 2 * len digits, either case. 0, or -EINVAL and `data` is not to be used. */
int hex_decode(const char *text, void *data, size_t len);
