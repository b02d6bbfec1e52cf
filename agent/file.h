/* file.h: small files, whole. */
#pragma once
#include <stddef.h>

/* A text of at most `max` bytes, owned by the caller. Negative errno; -EFBIG: larger, or not a
 * text. */
int file_read(const char *path, size_t max, char **ret);
/* Written beside it and put in its place, so that a reader sees the old or the new text, never a
 * part.
 */
int file_write(const char *path, const char *text, unsigned mode);
