#include "witnessd/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory_message[768];

int directory_claim(const char *path, mode_t mode, const char *option, int *ret_fd,
		    const char **ret_message)
{
	int rv = 0;
	int fd = -1;

	*ret_message = directory_message;
	if (mkdir(path, mode) != 0 && errno != EEXIST)
		rv = -errno;
	if (rv == 0) {
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0 || access(path, R_OK | W_OK | X_OK) != 0)
			rv = -errno;
	}
	if (rv != 0) {
		snprintf(directory_message, sizeof(directory_message),
			 "cannot use directory %s: %s; make it writable for this user or choose "
			 "another with %s",
			 path, strerror(-rv), option);
	} else if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		rv = -errno;
		snprintf(directory_message, sizeof(directory_message),
			 "directory %s is in use by another witnessd; stop that one, or choose "
			 "another "
			 "directory with %s",
			 path, option);
	}
	if (rv == 0)
		*ret_fd = fd;
	else if (fd >= 0)
		close(fd);
	return rv;
}
