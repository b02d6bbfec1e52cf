/* sandbox.h: what a VM's process gives up before a guest runs in it, so that a guest that took the
 * process over gains nothing.
 *
 * Two steps, because the kernel wants it so. sandbox_enter: after everything named by a path is
 * open and while there is one thread (a user namespace takes no more): cgroup, empty root, own
 * user, no capabilities. sandbox_seal: after all threads were made: limits and the list of system
 * calls (sandbox_calls.h), on all of them at once.
 *
 * A layer that cannot be had is an error, with two exceptions: `off` in the spec; and an ordinary
 * person's process on a host that gives no user namespaces keeps its view of the files: said once
 * on stderr and in the status. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hv/fault.h"
#include "proto/hv.pb-c.h"

enum sandbox_layer {
	SANDBOX_CGROUP = 1 << 0,
	SANDBOX_UID = 1 << 1, /* a user that is not root and owns nothing else */
	SANDBOX_USER_NAMESPACE = 1 << 2,
	SANDBOX_ROOT = 1 << 3, /* empty, read-only root directory */
	SANDBOX_CAPABILITIES = 1 << 4, /* none, and none to be had */
	SANDBOX_NO_NEW_PRIVILEGES = 1 << 5,
	SANDBOX_LIMITS = 1 << 6,
	SANDBOX_SECCOMP = 1 << 7,
	SANDBOX_SECCOMP_LOG = 1 << 8, /* instead: unlisted calls are only logged by the kernel */
};

struct sandbox {
	unsigned layers; /* that hold */
	bool own_user_namespace;
};

struct sandbox_limits {
	uint64_t file_size_max; /* largest file this process writes: disks, snapshot */
	unsigned descriptors_more; /* how many may be opened later: clients, snapshot files */
	/* Threads that the kernel makes for io_uring come out of the limit of processes. */
	bool kernel_threads;
};

/* First step. `spec` may be NULL: defaults. 0, or negative errno and a sentence. */
int sandbox_enter(const Tb__SandboxSpec *spec, struct sandbox *ret, struct fault *fault);
/* Second step. From the main thread; afterwards nothing can be opened. */
int sandbox_seal(const Tb__SandboxSpec *spec, const struct sandbox_limits *limits,
		 struct sandbox *s, struct fault *fault);
/* "uid, root, capabilities, ..."; "off" for none. */
void sandbox_describe(const struct sandbox *s, char text[160]);
