/* root.h: files below a root folder: "/" of this board, or a captured tree of another one.
 *
 * What lies there is believed no more than a guest or a peer: links are followed inside the root
 * only, whatever they say; nothing but regular files and folders is opened (the opening of a device
 * can do something); every read is bounded. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	ROOT_LINE_MAX = 256, /* bytes of a line, with its zero byte */
	ROOT_TEXT_MAX = 65536, /* of a whole file that is read: 128 cores in /proc/cpuinfo */
	ROOT_NAMES_MAX = 1024, /* of a folder, the rest is not seen */
	ROOT_PATH_MAX = 1024,
};

/* A descriptor of the folder (the caller closes it) or a negative errno. */
int root_open(const char *path);
/* Opens a folder or file below it to be read: a descriptor, or a negative errno (-ELOOP, -ENOENT;
 * -EINVAL: what is there is neither). */
int root_at(int root, const char *path);
bool root_has(int root, const char *path);
/* The bytes of a file, at most `size`; or a negative errno. */
ssize_t root_bytes(int root, const char *path, void *ret, size_t size);
/* The same of a file in an open folder, links not followed. */
ssize_t folder_bytes(int folder, const char *name, void *ret, size_t size);
/* A file's text, at most ROOT_TEXT_MAX - 1 bytes, owned by the caller; NULL: none. */
char *root_text(int root, const char *path);
/* A file's first line without spaces around it, made fit for people and JSON: whatever is not
 * printable ASCII is a '?'. False, and "" in `ret`: there is none, or it is empty. */
bool root_line(int root, char *ret, size_t size, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* A decimal number, or one with 0x before it; false: there is none. */
bool root_number(int root, int64_t *ret, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Where a link leads, as it says itself; false: it is none. */
bool root_link(int root, char *ret, size_t size, const char *path);
/* The names in a folder that begin with `prefix`, in order of bytes; `each` returns false to end.
 */
void root_names(int root, const char *path, const char *prefix,
		bool (*each)(void *arg, const char *name), void *arg);
/* Makes text of `len` bytes fit as root_line does; `ret` may be `data`. */
void root_clean(const void *data, size_t len, char *ret, size_t size);
