#include "witnessd/vm_cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define ROOT "/sys/fs/cgroup"

static int file_write(const char *folder, const char *file, const char *text)
{
	char path[VM_CGROUP_PATH + 32];
	int rv = 0;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		rv = -errno;
	close(fd);
	return rv;
}

static ssize_t file_read(const char *folder, const char *file, char *text, size_t room)
{
	char path[VM_CGROUP_PATH + 32];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	len = read(fd, text, room - 1);
	len = len < 0 ? -errno : len;
	close(fd);
	text[len > 0 ? len : 0] = '\0';
	return len;
}

/* "0::/system.slice/witnessd.service" (cgroups(7)). */
static int own_folder(char path[VM_CGROUP_PATH])
{
	char text[VM_CGROUP_PATH];
	ssize_t len = file_read("/proc/self", "cgroup", text, sizeof(text));
	char *own = len > 0 ? strstr(text, "0::/") : NULL;

	if (own == NULL || access(ROOT "/cgroup.controllers", F_OK) < 0)
		return -ENOENT;
	own[strcspn(own, "\n")] = '\0';
	snprintf(path, VM_CGROUP_PATH, ROOT "%.400s", strcmp(own, "0::/") == 0 ? "" : own + 3);
	return 0;
}

/* systemd owns every cgroup that it has not given away, and says so there. */
static bool is_delegated(const char *folder)
{
	char value[4];

	return access("/run/systemd/system", F_OK) < 0 ||
	       getxattr(folder, "trusted.delegate", value, sizeof(value)) > 0 ||
	       getxattr(folder, "user.delegate", value, sizeof(value)) > 0;
}

/* A cgroup whose children have controllers holds no processes itself (cgroups(7)). */
static int leaf_enter(const char *folder)
{
	char leaf[VM_CGROUP_PATH];
	char mine[32];
	char text[64];

	snprintf(mine, sizeof(mine), "%d\n", (int)getpid());
	if (file_read(folder, "cgroup.procs", text, sizeof(text)) < 0)
		return -EBUSY;
	if (text[0] == '\0')
		return 0; /* nobody is in it any more */
	if (strcmp(text, mine) != 0)
		return -EBUSY; /* others are in it as well */
	snprintf(leaf, sizeof(leaf), "%.480s/daemon", folder);
	if (mkdir(leaf, 0755) < 0 && errno != EEXIST)
		return -errno;
	return file_write(leaf, "cgroup.procs", "0");
}

static bool has_controller(const char *folder, const char *name)
{
	char text[256];
	char *rest = text;
	const char *word;

	if (file_read(folder, "cgroup.controllers", text, sizeof(text)) < 0)
		return false;
	while ((word = strsep(&rest, " \n")) != NULL)
		if (strcmp(word, name) == 0)
			return true;
	return false;
}

static int controllers_give(const char *folder, bool memory)
{
	return file_write(folder, "cgroup.subtree_control", memory ? "+memory +pids" : "+pids");
}

static int folder_begin(char folder[VM_CGROUP_PATH], bool memory, char ret_base[VM_CGROUP_PATH])
{
	/* That of processes alone is taken also with processes in it, but then no child can hold
	 * any (cgroups(7), "Threaded mode"): out of it first. Nobody has to leave the root. */
	int rv = memory || strcmp(folder, ROOT) == 0 ? controllers_give(folder, memory) : -EBUSY;

	if (rv == -EBUSY) {
		rv = leaf_enter(folder);
		rv = rv < 0 ? rv : controllers_give(folder, memory);
	}
	if (rv < 0)
		return rv;
	snprintf(ret_base, VM_CGROUP_PATH, "%.480s/vms", folder);
	if (mkdir(ret_base, 0755) < 0 && errno != EEXIST)
		return -errno;
	return controllers_give(ret_base, memory);
}

/* A daemon of before may have been killed in its leaf, and this one started there. */
static void leaf_leave(char folder[VM_CGROUP_PATH])
{
	char *last = strrchr(folder, '/');

	if (last != NULL && strcmp(last, "/daemon") == 0)
		*last = '\0';
}

int vm_cgroup_begin(char ret_base[VM_CGROUP_PATH], struct problem *problem)
{
	char folder[VM_CGROUP_PATH];
	int rv = own_folder(folder);
	bool memory;

	problem->text[0] = '\0';
	if (rv < 0)
		return problem_set(problem, rv, "this board has no cgroup v2");
	if (!is_delegated(folder))
		return problem_set(problem, -EPERM,
				   "the cgroup of this service is systemd's own (Delegate=yes)");
	leaf_leave(folder);
	memory = has_controller(folder, "memory");
	rv = folder_begin(folder, memory, ret_base);
	if (rv == -EBUSY)
		return problem_set(problem, rv,
				   "other processes are in the cgroup %.100s of this one", folder);
	if (rv == -ENOENT)
		return problem_set(problem, rv,
				   "the cgroup %.100s has no controllers for memory and pids",
				   folder);
	if (rv < 0)
		return problem_set(problem, rv, "the cgroup %.100s is not for this daemon: %s",
				   folder, strerror(-rv));
	/* The firmware of Raspberry Pis says cgroup_disable=memory to the kernel. */
	if (!memory)
		problem_set(
			problem, 0, "%s",
			has_controller(ROOT, "memory")
				? "its cgroup was not given the controller for memory"
				: "the kernel was started without control of memory (Raspberry "
				  "Pi OS: add cgroup_enable=memory to /boot/firmware/cmdline.txt "
				  "and restart)");
	return 0;
}

int vm_cgroup_make(const char *base, const char *name, uint32_t memory_mib,
		   char ret_path[VM_CGROUP_PATH], struct problem *problem)
{
	char text[32];
	int rv;

	snprintf(ret_path, VM_CGROUP_PATH, "%.420s/%.80s", base, name);
	rv = mkdir(ret_path, 0755) < 0 && errno != EEXIST ? -errno : 0;
	snprintf(text, sizeof(text), "%" PRIu64,
		 ((uint64_t)memory_mib + VM_CGROUP_MEMORY_MIB) << 20);
	rv = rv < 0 ? rv : file_write(ret_path, "memory.max", text);
	rv = rv == -ENOENT ? 0 : rv; /* without control of memory: told at the begin */
	snprintf(text, sizeof(text), "%d", VM_CGROUP_PIDS);
	rv = rv < 0 ? rv : file_write(ret_path, "pids.max", text);
	if (rv < 0) {
		vm_cgroup_remove(ret_path);
		return problem_set(problem, rv, "cannot make its cgroup: %s", strerror(-rv));
	}
	return 0;
}

void vm_cgroup_remove(const char *path)
{
	(void)rmdir(path);
}
