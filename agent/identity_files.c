#include "agent/identity_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/file.h"
#include "lib/mem.h"

enum { PEM_MAX = 64 << 10 };

static int part_read(const char *dir, const char *name, char **ret, const char **ret_why)
{
	static char why[512];
	char *path = mem_printf("%s/%s", dir, name);
	int rv = file_read(path, PEM_MAX, ret);

	if (rv != 0) {
		snprintf(why, sizeof(why), "%s: %s", path, strerror(-rv));
		*ret_why = why;
	}
	free(path);
	return rv;
}

int identity_files_read(const char *dir, struct identity_files *ret, const char **ret_why)
{
	int rv;

	*ret = (struct identity_files){0};
	rv = part_read(dir, "agent.crt", &ret->certificate, ret_why);
	if (rv == 0)
		rv = part_read(dir, "agent.key", &ret->key, ret_why);
	if (rv == 0)
		rv = part_read(dir, "ca.crt", &ret->ca, ret_why);
	if (rv != 0)
		identity_files_free(ret);
	return rv;
}

void identity_files_free(struct identity_files *files)
{
	if (files->key != NULL)
		mem_wipe(files->key, strlen(files->key));
	free(files->key);
	free(files->certificate);
	free(files->ca);
	*files = (struct identity_files){0};
}
