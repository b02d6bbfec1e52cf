/* outfile.h: files that a command leaves behind. */
#pragma once
#include <stddef.h>

/* Writes dir/name with this mode, through a temporary file that is renamed, so that a reader sees
 * the old content or the new one. 0, or told on stderr. The directory is made if it is not there.*/
int outfile_write(const char *dir, const char *name, const void *data, size_t len, unsigned mode);
/* The same for a whole path. */
int outfile_replace(const char *path, const void *data, size_t len, unsigned mode);
/* Reads a file of at most `max` bytes into a new buffer with a zero byte behind it, free with free.
 * 0, or told on stderr. */
int outfile_read(const char *path, size_t max, char **ret, size_t *ret_len);
