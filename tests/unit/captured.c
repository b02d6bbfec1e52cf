#include "captured.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "board/root.h"
#include "lib/mem.h"

static void folders_make(char *path)
{
	for (char *at = strchr(path + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
		*at = '\0';
		mkdir(path, 0700);
		*at = '/';
	}
}

static void file_append(const char *root, const char *path, const void *data, size_t len, int flags)
{
	char *full = mem_printf("%s/%s", root, path);
	int fd;

	folders_make(full);
	fd = open(full, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
	if (fd < 0)
		fail_msg("%s cannot be made", full);
	assert_int_equal(write(fd, data, len), (ssize_t)len);
	close(fd);
	free(full);
}

/* In place; the bytes that are left. */
static size_t unescape(char *text)
{
	char *from = text, *to = text;

	while (*from != '\0') {
		unsigned byte;

		if (from[0] != '\\') {
			*to++ = *from++;
		} else if (sscanf(from, "\\x%2x", &byte) == 1) {
			*to++ = (char)byte;
			from += 4;
		} else {
			*to++ = from[1] == 'n' ? '\n' : from[1];
			from += 2;
		}
	}
	return (size_t)(to - text);
}

static void line_unpack(const char *root, char *line)
{
	char *path = line + 2;
	char *rest = line[0] == 'd' ? path + strlen(path) : strchr(path, ' ');
	char *full;

	if (line[1] != ' ' || rest == NULL)
		fail_msg("not a line of a captured board: %s", line);
	if (*rest != '\0')
		*rest++ = '\0';
	switch (line[0]) {
	case 'f':
		file_append(root, path, rest, unescape(rest), O_APPEND);
		break;
	case 'l':
		captured_link(root, path, rest);
		break;
	case 'd':
		full = mem_printf("%s/%s/", root, path);
		folders_make(full);
		free(full);
		break;
	default:
		fail_msg("not a line of a captured board: %s", line);
	}
}

int captured_empty(char root[64])
{
	int fd;

	snprintf(root, 64, "/tmp/captured-XXXXXX");
	assert_non_null(mkdtemp(root));
	fd = root_open(root);
	assert_true(fd >= 0);
	return fd;
}

int captured_unpack(const char *name, char root[64])
{
	char *path = mem_printf("%s/boards/%s.board", TEST_DATA, name);
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;
	ssize_t len;
	int fd;

	if (file == NULL)
		fail_msg("no %s", path);
	fd = captured_empty(root);
	while ((len = getline(&line, &size, file)) > 0) {
		line[len - (line[len - 1] == '\n')] = '\0';
		if (line[0] != '#')
			line_unpack(root, line);
	}
	free(line);
	fclose(file);
	free(path);
	return fd;
}

void captured_put(const char *root, const char *path, const char *text)
{
	file_append(root, path, text, strlen(text), O_TRUNC);
}

void captured_link(const char *root, const char *path, const char *target)
{
	char *full = mem_printf("%s/%s", root, path);

	folders_make(full);
	if (symlink(target, full) != 0)
		fail_msg("%s cannot be made", full);
	free(full);
}

static int entry_remove(const char *path, const struct stat *info, int type, struct FTW *where)
{
	(void)info;
	(void)type;
	(void)where;
	return remove(path);
}

void captured_remove(const char *root)
{
	nftw(root, entry_remove, 16, FTW_DEPTH | FTW_PHYS);
}
