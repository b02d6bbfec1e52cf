#include "hv/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hv/sandbox_filter.h"
#include "lib/log.h"

/* Closed descriptors in a row behind which none is looked for; numbers are given densely. */
enum { CLOSED_IN_A_ROW = 64, FILTER_MAX = 512, KERNEL_THREADS = 64 };

static int fault_layer(struct fault *fault, int error, const char *what)
{
	return fault_set(fault, error,
			 "sandbox: %s: %s; sandbox.off runs the VM without any, for debugging",
			 what, strerror(-error));
}

/* Cgroup */

static int cgroup_enter(const char *cgroup, struct sandbox *s, struct fault *fault)
{
	char path[4096 + 32];
	int rv = 0;
	int fd;

	snprintf(path, sizeof(path), "%.4095s/cgroup.procs", cgroup);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0) {
		return fault_set(
			fault, -errno,
			"sandbox.cgroup: cannot open %.256s: %s; it must be a directory of "
			"cgroup v2 that this user may enter",
			path, strerror(errno));
	}
	if (write(fd, "0", 1) < 0) {
		rv = fault_set(fault, -errno, "sandbox.cgroup: cannot enter %.256s: %s", cgroup,
			       strerror(errno));
	}
	close(fd);
	s->layers |= rv == 0 ? SANDBOX_CGROUP : 0;
	return rv;
}

/* Root */

static int pivot_here(void)
{
	/* The old root comes to lie over the new one (pivot_root(2), "."), and is taken away. */
	if (syscall(SYS_pivot_root, ".", ".") == 0) {
		return umount2(".", MNT_DETACH) < 0 ? -errno : 0;
	}
	/* The first file system of a system (an initramfs) cannot be left: it is covered. */
	if (errno != EINVAL || mount(".", "/", NULL, MS_MOVE, NULL) < 0) {
		return -errno;
	}
	return chroot(".") < 0 ? -errno : 0;
}

/* In a mount namespace of our own: an empty file system that cannot be written as root. */
static int root_enter(void)
{
	const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY;
	int rv;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("empty", "/proc", "tmpfs", flags, "mode=0555,size=4k,nr_inodes=2") < 0 ||
	    chdir("/proc") < 0) {
		return -errno;
	}
	rv = pivot_here();
	if (rv == 0 && chdir("/") < 0) {
		rv = -errno;
	}
	return rv;
}

/* Capabilities */

/* Those that a new program could get. Needs a capability itself, so it comes first; who has none
 * can get none, since nothing new comes after PR_SET_NO_NEW_PRIVS. */
static void capabilities_bound(void)
{
	for (int cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++) {
	}
}

static int capabilities_drop(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {0};

	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

static bool capabilities_are_gone(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct now[2] = {0};

	return syscall(SYS_capget, &header, now) == 0 && now[0].effective == 0 &&
	       now[0].permitted == 0 && now[0].inheritable == 0 && now[1].effective == 0 &&
	       now[1].permitted == 0 && now[1].inheritable == 0;
}

/* Users */

static int file_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int rv = 0;

	if (fd < 0) {
		return -errno;
	}
	if (write(fd, text, strlen(text)) < 0) {
		rv = -errno;
	}
	close(fd);
	return rv;
}

/* A namespace in which we are the only user there is (user_namespaces(7)). */
static int user_namespace_enter(uid_t uid, gid_t gid)
{
	char map[32];
	int rv;

	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) {
		return -errno;
	}
	rv = file_write("/proc/self/setgroups", "deny");
	snprintf(map, sizeof(map), "%u %u 1", uid, uid);
	rv = rv < 0 ? rv : file_write("/proc/self/uid_map", map);
	snprintf(map, sizeof(map), "%u %u 1", gid, gid);
	return rv < 0 ? rv : file_write("/proc/self/gid_map", map);
}

static int user_become(uid_t uid, gid_t gid)
{
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 ||
	    setresuid(uid, uid, uid) < 0) {
		return -errno;
	}
	return 0;
}

/* Root's way: no user namespace is needed, the user is the VM's own. */
static int enter_as_root(const Tb__SandboxSpec *spec, struct sandbox *s, struct fault *fault)
{
	int rv;

	if (spec == NULL || spec->uid == 0) {
		return fault_set(fault, -EPERM,
				 "sandbox: a VM does not run as root; give it a user of its own "
				 "with sandbox.uid and sandbox.gid");
	}
	rv = unshare(CLONE_NEWNS) < 0 ? -errno : root_enter();
	if (rv < 0) {
		return fault_layer(fault, rv, "cannot make an empty root directory");
	}
	capabilities_bound();
	rv = user_become(spec->uid, spec->gid);
	if (rv < 0) {
		return fault_layer(fault, rv, "cannot become the user of sandbox.uid");
	}
	s->layers |= SANDBOX_ROOT | SANDBOX_UID;
	return 0;
}

/* What hosts say that keep user namespaces, or what can be done in them, from ordinary users. */
static bool is_withheld(int error)
{
	return error == -EPERM || error == -EACCES || error == -EINVAL || error == -ENOSPC ||
	       error == -EUSERS;
}

/* An ordinary person's way. Where the host gives no user namespaces the root directory stays: what
 * is left (no capabilities, no new ones, limits, the list of calls) keeps it out of reach. */
static int enter_as_person(const Tb__SandboxSpec *spec, struct sandbox *s, struct fault *fault)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int rv;

	if (spec != NULL && spec->uid != 0 && (spec->uid != uid || spec->gid != gid)) {
		return fault_set(fault, -EPERM,
				 "sandbox.uid: only root can give a VM another user");
	}
	rv = user_namespace_enter(uid, gid);
	s->own_user_namespace = rv == 0;
	rv = rv < 0 ? rv : root_enter();
	if (rv < 0 && !is_withheld(rv)) {
		return fault_layer(fault, rv, "cannot make an empty root directory");
	}
	capabilities_bound();
	s->layers |= s->own_user_namespace ? SANDBOX_USER_NAMESPACE : 0;
	s->layers |= rv == 0 ? SANDBOX_ROOT : 0;
	if (rv < 0) {
		log_warning("sandbox",
			    "this host gives ordinary users no user namespaces (%s): the VM keeps "
			    "its view of the file system",
			    strerror(-rv));
	}
	return 0;
}

int sandbox_enter(const Tb__SandboxSpec *spec, struct sandbox *ret, struct fault *fault)
{
	int rv = 0;

	*ret = (struct sandbox){0};
	if (spec != NULL && spec->off) {
		return 0;
	}
	if (spec != NULL && spec->cgroup[0] != '\0') {
		rv = cgroup_enter(spec->cgroup, ret, fault);
	}
	if (rv == 0) {
		rv = geteuid() == 0 ? enter_as_root(spec, ret, fault)
				    : enter_as_person(spec, ret, fault);
	}
	if (rv < 0) {
		return rv;
	}
	rv = capabilities_drop();
	if (rv == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
		rv = -errno;
	}
	if (rv < 0 || !capabilities_are_gone()) {
		return fault_layer(fault, rv < 0 ? rv : -EPERM, "cannot give up all capabilities");
	}
	ret->layers |= SANDBOX_CAPABILITIES | SANDBOX_NO_NEW_PRIVILEGES;
	return 0;
}

/* Limits */

/* Which numbers from `begin` on are of nobody: POLLNVAL, with one call if the limit of descriptors
 * allows it. */
static void row_look(struct pollfd row[CLOSED_IN_A_ROW], unsigned begin)
{
	unsigned i;

	for (i = 0; i < CLOSED_IN_A_ROW; i++) {
		row[i] = (struct pollfd){.fd = (int)(begin + i)};
	}
	if (poll(row, CLOSED_IN_A_ROW, 0) >= 0) {
		return;
	}
	for (i = 0; i < CLOSED_IN_A_ROW; i++) {
		row[i].revents = fcntl(row[i].fd, F_GETFD) < 0 ? POLLNVAL : 0;
	}
}

static unsigned descriptors_open(void)
{
	struct pollfd row[CLOSED_IN_A_ROW];
	unsigned end = 0, begin, i;

	for (begin = 0; begin < end + CLOSED_IN_A_ROW; begin += CLOSED_IN_A_ROW) {
		row_look(row, begin);
		for (i = 0; i < CLOSED_IN_A_ROW; i++) {
			end = (row[i].revents & POLLNVAL) == 0 ? begin + i + 1 : end;
		}
	}
	return end;
}

static int limit(int which, rlim_t value)
{
	struct rlimit now;

	if (getrlimit((__rlimit_resource_t)which, &now) < 0) {
		return -errno;
	}
	if (now.rlim_max < value) {
		value = now.rlim_max;
	}
	now = (struct rlimit){.rlim_cur = value, .rlim_max = value};
	return setrlimit((__rlimit_resource_t)which, &now) < 0 ? -errno : 0;
}

/* Processes are counted for all of a user's, so a limit is only sound where nobody else is that
 * user: in a namespace of our own. Elsewhere pids.max of a cgroup is the way; no call on the list
 * makes a process anyway. */
static int limit_processes(const struct sandbox_limits *limits, const struct sandbox *s)
{
	if (!limits->kernel_threads) {
		return limit(RLIMIT_NPROC, 0);
	}
	return s->own_user_namespace ? limit(RLIMIT_NPROC, KERNEL_THREADS) : 0;
}

static int limits_set(const struct sandbox_limits *limits, struct sandbox *s)
{
	unsigned descriptors = descriptors_open();
	int rv;

	/* What could be there behind a gap is not ours. */
	if (close_range(descriptors, ~0U, 0) < 0) {
		return -errno;
	}
	rv = limit(RLIMIT_NOFILE, descriptors + limits->descriptors_more);
	rv = rv < 0 ? rv : limit(RLIMIT_FSIZE, limits->file_size_max);
	rv = rv < 0 ? rv : limit(RLIMIT_CORE, 0);
	rv = rv < 0 ? rv : limit_processes(limits, s);
	if (rv == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
		rv = -errno;
	}
	s->layers |= rv == 0 ? SANDBOX_LIMITS : 0;
	return rv;
}

/* System calls */

static int filter_load(bool log)
{
	struct sock_filter program[FILTER_MAX];
	struct sock_fprog load = {.len = (unsigned short)sandbox_filter_len, .filter = program};
	long rv;

	if (sandbox_filter_len > FILTER_MAX) {
		return -E2BIG;
	}
	memcpy(program, sandbox_filter, sandbox_filter_len * sizeof(program[0]));
	for (size_t i = 0; i < sandbox_filter_len; i++) {
		if (program[i].code == (BPF_JMP | BPF_JEQ | BPF_K) &&
		    program[i].k == SANDBOX_FILTER_PID) {
			program[i].k = (uint32_t)getpid();
		}
		if (log && program[i].code == (BPF_RET | BPF_K) &&
		    program[i].k == SECCOMP_RET_KILL_PROCESS) {
			program[i].k = SECCOMP_RET_LOG;
		}
	}
	rv = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &load);
	/* Positive: the thread that could not be brought under it. */
	return rv > 0 ? -ESRCH : rv < 0 ? -errno : 0;
}

int sandbox_seal(const Tb__SandboxSpec *spec, const struct sandbox_limits *limits,
		 struct sandbox *s, struct fault *fault)
{
	bool log = spec != NULL && spec->log;
	int rv;

	if (spec != NULL && spec->off) {
		return 0;
	}
	rv = limits_set(limits, s);
	if (rv < 0) {
		return fault_layer(fault, rv, "cannot set limits");
	}
	rv = filter_load(log);
	if (rv < 0) {
		return fault_layer(fault, rv, "cannot load the list of system calls");
	}
	s->layers |= log ? SANDBOX_SECCOMP_LOG : SANDBOX_SECCOMP;
	return 0;
}

void sandbox_describe(const struct sandbox *s, char text[160])
{
	static const struct {
		unsigned layer;
		const char *name;
	} names[] = {
		{SANDBOX_CGROUP, "cgroup"},
		{SANDBOX_UID, "own user"},
		{SANDBOX_USER_NAMESPACE, "user namespace"},
		{SANDBOX_ROOT, "empty root"},
		{SANDBOX_CAPABILITIES, "no capabilities"},
		{SANDBOX_NO_NEW_PRIVILEGES, "no new privileges"},
		{SANDBOX_LIMITS, "limits"},
		{SANDBOX_SECCOMP, "system calls"},
		{SANDBOX_SECCOMP_LOG, "system calls only logged"},
	};
	size_t len = 0;

	snprintf(text, 160, "off");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if ((s->layers & names[i].layer) != 0) {
			len += (size_t)snprintf(text + len, 160 - len, "%s%s", len > 0 ? ", " : "",
						names[i].name);
		}
	}
}
