/* directory.h: a directory that one daemon has for itself. */
#pragma once
#include <sys/types.h>

/* Makes `path` if missing, checks that it can be written and locks it (flock) for the life of
 * *ret_fd. `option` is named in the message. 0, or a negative errno and *ret_message (static):
 * -EWOULDBLOCK if another process has it. */
int directory_claim(const char *path, mode_t mode, const char *option, int *ret_fd,
		    const char **ret_message);
