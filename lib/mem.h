/* mem.h: allocation that does not fail.
 *
 * Everything a client or peer can make us hold is bounded by explicit limits at
 * the doors, so running out of memory is a mis-sized machine, not an input. The
 * process then ends with one line; a killed witness is a case the rest of the
 * system is built for, a half-applied change is not (docs/decisions/0002-memory.md). */
#pragma once
#include <stddef.h>

/* Never NULL. Size 0 gives a unique pointer. Free with free(). */
void *mem_alloc(size_t size) __attribute__((malloc, returns_nonnull));
void *mem_zalloc(size_t size) __attribute__((malloc, returns_nonnull));
/* Room for `count` items of `size`; a product that overflows ends the process. */
void *mem_array(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
void *mem_realloc(void *old, size_t size) __attribute__((returns_nonnull));
char *mem_strdup(const char *text) __attribute__((malloc, returns_nonnull, nonnull));
char *mem_strndup(const char *text, size_t len) __attribute__((malloc, returns_nonnull));
void *mem_dup(const void *data, size_t size) __attribute__((malloc, returns_nonnull));
char *mem_printf(const char *format, ...)
	__attribute__((malloc, returns_nonnull, format(printf, 1, 2)));
/* Overwrites a secret so that the compiler cannot drop the write. */
void mem_wipe(void *data, size_t size);
