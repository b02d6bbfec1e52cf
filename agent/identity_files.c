#include "agent/identity_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/file.h"
#include "agent/tls.h"
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

int identity_files_settle(const char *dir)
{
	char *next = mem_printf("%s/%s", dir, IDENTITY_NEXT_KEY);
	char *key = mem_printf("%s/agent.key", dir);
	int folder = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rv = rename(next, key) == 0 || errno == ENOENT ? 0 : -errno;

	if (folder >= 0) {
		if (rv == 0 && fsync(folder) != 0)
			rv = -errno;
		close(folder);
	}
	free(next);
	free(key);
	return rv;
}

static bool fits(const char *certificate, const char *key)
{
	struct tls_identity *id;
	const char *why;

	if (key == NULL || tls_identity_new(certificate, key, NULL, &id, &why) != 0)
		return false;
	tls_identity_free(id);
	return true;
}

static void key_free(char *key)
{
	if (key != NULL)
		mem_wipe(key, strlen(key));
	free(key);
}

/* The key that fits the certificate: a renewal may have ended before it was in its place. */
static int key_read(const char *dir, struct identity_files *ret, const char **ret_why)
{
	const char *why = "";
	char *next = NULL;
	int rv = part_read(dir, "agent.key", &ret->key, ret_why);

	if (rv == 0 && fits(ret->certificate, ret->key))
		return 0;
	if (part_read(dir, IDENTITY_NEXT_KEY, &next, &why) == 0 && fits(ret->certificate, next) &&
	    identity_files_settle(dir) == 0) {
		key_free(ret->key);
		ret->key = next;
		return 0;
	}
	key_free(next);
	/* Says once more what is wrong with the key itself. */
	return rv == 0 ? 0 : part_read(dir, "agent.key", &ret->key, ret_why);
}

int identity_files_read(const char *dir, struct identity_files *ret, const char **ret_why)
{
	int rv;

	*ret = (struct identity_files){0};
	rv = part_read(dir, "agent.crt", &ret->certificate, ret_why);
	if (rv == 0)
		rv = key_read(dir, ret, ret_why);
	if (rv == 0)
		rv = part_read(dir, "ca.crt", &ret->ca, ret_why);
	if (rv != 0)
		identity_files_free(ret);
	return rv;
}

void identity_files_free(struct identity_files *files)
{
	key_free(files->key);
	free(files->certificate);
	free(files->ca);
	*files = (struct identity_files){0};
}
