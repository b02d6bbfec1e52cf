#include "agent/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/mem.h"

int file_read(const char *path, size_t max, char **ret)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text;
	ssize_t got;

	if (fd < 0)
		return -errno;
	text = mem_alloc(max + 2);
	got = read(fd, text, max + 1);
	close(fd);
	if (got < 0 || (size_t)got > max || memchr(text, '\0', (size_t)got) != NULL) {
		free(text);
		return got < 0 ? -EIO : -EFBIG;
	}
	text[got] = '\0';
	*ret = text;
	return 0;
}

int file_write(const char *path, const char *text, unsigned mode)
{
	char *fresh = mem_printf("%s.new", path);
	size_t len = strlen(text);
	int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	int rv = 0;

	if (fd < 0) {
		rv = -errno;
		free(fresh);
		return rv;
	}
	if (fchmod(fd, mode) != 0 || write(fd, text, len) != (ssize_t)len || fsync(fd) != 0)
		rv = errno != 0 ? -errno : -EIO;
	close(fd);
	if (rv == 0 && rename(fresh, path) != 0)
		rv = -errno;
	if (rv != 0)
		unlink(fresh);
	free(fresh);
	return rv;
}
