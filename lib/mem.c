#include "lib/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *mem_checked(void *data)
{
	if (data == NULL) {
		static const char message[] = "<2>out of memory: ending this process\n";
		fwrite(message, 1, sizeof(message) - 1, stderr);
		abort();
	}
	return data;
}

void *mem_alloc(size_t size)
{
	return mem_checked(malloc(size ? size : 1));
}

void *mem_zalloc(size_t size)
{
	return mem_checked(calloc(1, size ? size : 1));
}

void *mem_array(size_t count, size_t size)
{
	if (size != 0 && count > SIZE_MAX / size)
		return mem_checked(NULL);
	return mem_zalloc(count * size);
}

void *mem_realloc(void *old, size_t size)
{
	return mem_checked(realloc(old, size ? size : 1));
}

char *mem_strdup(const char *text)
{
	return mem_checked(strdup(text));
}

char *mem_strndup(const char *text, size_t len)
{
	char *copy = mem_alloc(len + 1);

	memcpy(copy, text, len);
	copy[len] = '\0';
	return copy;
}

void *mem_dup(const void *data, size_t size)
{
	void *copy = mem_alloc(size);

	if (size != 0)
		memcpy(copy, data, size);
	return copy;
}

char *mem_printf(const char *format, ...)
{
	va_list args;
	char *text = NULL;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	return mem_checked(text);
}

void mem_wipe(void *data, size_t size)
{
	if (size > 0) /* an empty buffer has no data */
		explicit_bzero(data, size);
}
