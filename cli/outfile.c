#include "cli/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/command.h"
#include "lib/mem.h"

static int write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

int outfile_write(const char *dir, const char *name, const void *data, size_t len, unsigned mode)
{
	char *path = mem_printf("%s/%s", dir, name);
	char *temporary = mem_printf("%s/.%s.%ld", dir, name, (long)getpid());
	int rv = 0;
	int fd;

	if (mkdir(dir, 0755) != 0 && errno != EEXIST) {
		complain("cannot make the directory %s: %s", dir, strerror(errno));
		rv = -errno;
		goto out;
	}
	unlink(temporary);
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0) {
		rv = -errno;
	} else {
		rv = write_all(fd, data, len);
		if (rv == 0 && (fchmod(fd, mode) != 0 || fsync(fd) != 0))
			rv = -errno;
		close(fd);
		if (rv == 0 && rename(temporary, path) != 0)
			rv = -errno;
		if (rv != 0)
			unlink(temporary);
	}
	if (rv != 0)
		complain("cannot write %s: %s", path, strerror(-rv));
out:
	free(path);
	free(temporary);
	return rv;
}

int outfile_replace(const char *path, const void *data, size_t len, unsigned mode)
{
	const char *slash = strrchr(path, '/');
	char *dir = slash == NULL   ? mem_strdup(".")
		    : slash == path ? mem_strdup("/")
				    : mem_strndup(path, (size_t)(slash - path));
	int rv = outfile_write(dir, slash != NULL ? slash + 1 : path, data, len, mode);

	free(dir);
	return rv;
}

int outfile_read(const char *path, size_t max, char **ret, size_t *ret_len)
{
	FILE *file = fopen(path, "re");
	char *data;
	size_t len;

	if (file == NULL) {
		complain("cannot open %s: %s", path, strerror(errno));
		return -ENOENT;
	}
	data = mem_alloc(max + 2);
	len = fread(data, 1, max + 1, file);
	if (ferror(file) || len > max) {
		complain("%s is %s", path,
			 len > max ? "too large to be what it should be" : "unreadable");
		fclose(file);
		free(data);
		return -EINVAL;
	}
	fclose(file);
	data[len] = '\0';
	*ret = data;
	*ret_len = len;
	return 0;
}
