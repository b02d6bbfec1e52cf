/* image_memory.h: which files of images were found right since the board's boot, so that a restart
 * of the daemon need not read them all again. A text file on tmpfs, one line for a file:
 *   SHA256 device inode size seconds nanoseconds
 * A line that is none is dropped: the file is checked again. One thread. */
#pragma once
#include <stdbool.h>

#include "witnessd/image_store.h"

struct image_memory;

/* `path` NULL: nothing outlives this process. What is there is read. */
struct image_memory *image_memory_new(const char *path);
void image_memory_free(struct image_memory *m); /* NULL is fine */
/* Was this very file found right? */
bool image_memory_knows(const struct image_memory *m, const char *sha256,
			const struct image_identity *identity);
void image_memory_add(struct image_memory *m, const char *sha256,
		      const struct image_identity *identity);
void image_memory_forget(struct image_memory *m, const char *sha256);
