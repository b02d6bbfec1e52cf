/* resources.h: the open descriptors a VM lives on, by name, so that the process has nothing to open
 * once it is in its sandbox. Filled by `run` from paths or by a parent over a socket.
 *
 * Names: kvm, kernel, initrd, disk0..7, nic0..3, vsock, console-in, console-out, state, memory. */
#pragma once
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

/* Opens what the spec names by path: kernel, initrd, disks (with their locks), taps, /dev/kvm,
 * /dev/vhost-vsock, snapshot files. 0; or a negative errno and one sentence, nothing left open. */
int resources_open(const Tb__VmSpec *spec, struct resources *ret, struct fault *fault);
