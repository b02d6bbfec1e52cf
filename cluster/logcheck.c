#include "cluster/logcheck.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int logcheck_empty(int dir_fd)
{
	(void)dir_fd;
	return 0;
}

int logcheck_discard_bootstrap(int dir_fd)
{
	(void)unlinkat(dir_fd, "metadata1", 0);
	return 0;
}

int logcheck_run(const char *dir, int dir_fd, uint64_t cut, char *message, size_t message_size)
{
	(void)dir;
	(void)dir_fd;
	(void)cut;
	(void)message;
	(void)message_size;
	return 0;
}
