#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hv/probe_facts.h"

enum { TEXT_MAX = 4096, PATH_MAX_HERE = 512, CORES_MAX = 256, KINDS_MAX = 8 };

/* The file's text, at most TEXT_MAX - 1 bytes, without the newline at its end; false: none. */
static bool text_read(const char *root, const char *path, char ret[TEXT_MAX])
{
	char full[PATH_MAX_HERE];
	ssize_t len;
	int fd;

	snprintf(full, sizeof(full), "%s%s", root, path);
	fd = open(full, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return false;
	}
	len = read(fd, ret, TEXT_MAX - 1);
	close(fd);
	ret[len < 0 ? 0 : len] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return len >= 0;
}

static bool exists(const char *root, const char *path)
{
	char full[PATH_MAX_HERE];

	snprintf(full, sizeof(full), "%s%s", root, path);
	return access(full, F_OK) == 0;
}

/* The word in brackets: "always [madvise] never". */
static void chosen_read(const char *root, const char *path, char *ret, size_t size)
{
	char text[TEXT_MAX];
	char *begin, *end;

	ret[0] = '\0';
	if (!text_read(root, path, text)) {
		return;
	}
	begin = strchr(text, '[');
	end = begin != NULL ? strchr(begin, ']') : NULL;
	if (end != NULL) {
		snprintf(ret, size, "%.*s", (int)(end - begin - 1), begin + 1);
	}
}

static bool has_word(const char *text, const char *word)
{
	size_t len = strlen(word);
	const char *at = text;

	while ((at = strstr(at, word)) != NULL) {
		if ((at == text || at[-1] == ' ') && (at[len] == '\0' || at[len] == ' ')) {
			return true;
		}
		at += len;
	}
	return false;
}

static bool is_zero(const char *root, const char *path)
{
	char text[TEXT_MAX];

	return text_read(root, path, text) && strcmp(text, "0") == 0;
}

static void cgroup_read(const char *root, struct probe_board *ret)
{
	char text[TEXT_MAX];

	ret->cgroup2 = text_read(root, "/sys/fs/cgroup/cgroup.controllers", text);
	ret->cgroup_memory = ret->cgroup2 && has_word(text, "memory");
	ret->cgroup_memory_disabled =
		text_read(root, "/proc/cmdline", text) && has_word(text, "cgroup_disable=memory");
}

/* big.LITTLE: what a guest patches into itself at boot is for one kind of core. */
static unsigned core_kinds(const char *root)
{
	uint64_t seen[KINDS_MAX];
	unsigned kinds = 0, core, i;

	for (core = 0; core < CORES_MAX && kinds < KINDS_MAX; core++) {
		char path[128], text[TEXT_MAX];
		uint64_t midr;

		snprintf(path, sizeof(path),
			 "/sys/devices/system/cpu/cpu%u/regs/identification/midr_el1", core);
		if (!text_read(root, path, text)) {
			continue;
		}
		midr = strtoull(text, NULL, 16);
		for (i = 0; i < kinds && seen[i] != midr; i++) {
		}
		if (i == kinds) {
			seen[kinds++] = midr;
		}
	}
	return kinds;
}

static void tree_read(const char *root, struct board_tree *ret)
{
	char path[PATH_MAX_HERE];

	/* /proc/device-tree is a link to it, which would lead out of a root. */
	snprintf(path, sizeof(path), "%s/sys/firmware/devicetree/base", root);
	board_tree_read(path, ret);
	if (!ret->present) {
		snprintf(path, sizeof(path), "%s/proc/device-tree", root);
		board_tree_read(path, ret);
	}
}

void probe_board_read(const char *root, struct probe_board *ret)
{
	char text[TEXT_MAX];

	memset(ret, 0, sizeof(*ret));
	tree_read(root, &ret->tree);
	if (text_read(root, "/proc/sys/kernel/osrelease", text)) {
		snprintf(ret->kernel, sizeof(ret->kernel), "%.63s", text);
	}
	chosen_read(root, "/sys/kernel/mm/transparent_hugepage/enabled", ret->huge_anonymous,
		    sizeof(ret->huge_anonymous));
	chosen_read(root, "/sys/kernel/mm/transparent_hugepage/shmem_enabled", ret->huge_memfd,
		    sizeof(ret->huge_memfd));
	cgroup_read(root, ret);
	ret->user_namespaces = exists(root, "/proc/self/ns/user") &&
			       !is_zero(root, "/proc/sys/user/max_user_namespaces") &&
			       !is_zero(root, "/proc/sys/kernel/unprivileged_userns_clone");
	ret->vhost_vsock = exists(root, "/dev/vhost-vsock");
	ret->tap = exists(root, "/dev/net/tun");
	ret->core_kinds = core_kinds(root);
}
