#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "board/cores.h"
#include "board/root.h"
#include "hv/probe_facts.h"

/* The word in brackets: "always [madvise] never". */
static void chosen_read(int root, const char *path, char *ret, size_t size)
{
	char text[ROOT_LINE_MAX];
	char *begin, *end;

	ret[0] = '\0';
	root_line(root, text, sizeof(text), "%s", path);
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
		if ((at == text || at[-1] == ' ') &&
		    (at[len] == '\0' || at[len] == ' ' || at[len] == '\n')) {
			return true;
		}
		at += len;
	}
	return false;
}

static bool is_zero(int root, const char *path)
{
	int64_t value;

	return root_number(root, &value, "%s", path) && value == 0;
}

static void cgroup_read(int root, struct probe_board *ret)
{
	char *controllers = root_text(root, "sys/fs/cgroup/cgroup.controllers");
	char *command_line = root_text(root, "proc/cmdline");

	ret->cgroup2 = controllers != NULL;
	ret->cgroup_memory = ret->cgroup2 && has_word(controllers, "memory");
	ret->cgroup_memory_disabled =
		command_line != NULL && has_word(command_line, "cgroup_disable=memory");
	free(controllers);
	free(command_line);
}

void probe_board_read(const char *path, struct probe_board *ret)
{
	int root = root_open(path[0] != '\0' ? path : "/");
	struct board_cores cores;
	char link[64];

	memset(ret, 0, sizeof(*ret));
	if (root < 0) {
		return;
	}
	board_tree_read(root, &ret->tree);
	root_line(root, ret->kernel, sizeof(ret->kernel), "proc/sys/kernel/osrelease");
	chosen_read(root, "sys/kernel/mm/transparent_hugepage/enabled", ret->huge_anonymous,
		    sizeof(ret->huge_anonymous));
	chosen_read(root, "sys/kernel/mm/transparent_hugepage/shmem_enabled", ret->huge_memfd,
		    sizeof(ret->huge_memfd));
	cgroup_read(root, ret);
	/* It is a link that leads nowhere but for the kernel. */
	ret->user_namespaces = (root_link(root, link, sizeof(link), "proc/self/ns/user") ||
				root_has(root, "proc/self/ns/user")) &&
			       !is_zero(root, "proc/sys/user/max_user_namespaces") &&
			       !is_zero(root, "proc/sys/kernel/unprivileged_userns_clone");
	ret->vhost_vsock = root_has(root, "dev/vhost-vsock");
	ret->tap = root_has(root, "dev/net/tun");
	/* big.LITTLE: what a guest patches into itself at boot is for one kind of core. */
	cores_read(root, &cores);
	ret->core_kinds = cores.kind_count;
	close(root);
}
