/* resources.h: the open descriptors a VM lives on, by name, so that the process has nothing to open
 * once it is in its sandbox. Filled by `run` from paths or by a parent over a socket.
 *
 * Names: kvm, kernel, initrd, disk0..7, nic0..3, vsock, console (both ways) or console-in and
 * console-out, state, memory, control (a listening socket). */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "hv/fault.h"
#include "proto/hv.pb-c.h"

enum { RESOURCES_MAX = 32 };

struct resource {
	char name[16];
	int fd; /* owned */
};

struct resources {
	struct resource item[RESOURCES_MAX];
	size_t count;
};

/* The descriptor of this name, or -1. Stays owned by the resources. */
int resource_find(const struct resources *r, const char *name);
/* "disk3" by kind and number. */
int resource_find_nth(const struct resources *r, const char *kind, unsigned number);
/* Takes the descriptor over. -EEXIST if the name is there, -E2BIG if full, -EINVAL for a name that
 * is none; then the descriptor stays the caller's. */
int resource_add(struct resources *r, const char *name, int fd);
void resources_close(struct resources *r);

/* Opens what the spec (finished, spec.h) names by path: kernel, initrd, disks, taps,
 * /dev/vhost-vsock, snapshot files; not /dev/kvm (kvm.h). 0; or a negative errno and one sentence;
 * what was opened stays in *r. */
int resources_open(const Tb__VmSpec *spec, struct resources *r, struct fault *fault);
/* What the spec needs is there and is what it should be, nothing else came along, and the disks
 * are locked for this VM, but for those that only the rest of a killed VM has: resources_lock. For
 * descriptors that were opened and for those handed over. */
int resources_check(const Tb__VmSpec *spec, const struct resources *r, struct fault *fault);

enum { RESOURCES_TURNS = 3000, RESOURCES_TURN_MS = 10 };

/* Locks the disks that were not free yet: a disk that does not answer keeps them as long as that
 * lasts. Between two tries others have a turn, which takes RESOURCES_TURN_MS; false: nobody wants
 * the VM any more. 0; -ECANCELED without a sentence; or, after RESOURCES_TURNS at the latest, an
 * error and a sentence. Before anything is written to a disk. */
int resources_lock(const Tb__VmSpec *spec, const struct resources *r, bool (*turn)(void *arg),
		   void *arg, struct fault *fault);
