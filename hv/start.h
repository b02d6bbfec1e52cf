/* start.h: the first frame of the supervised form: VmStart with the descriptors of a VM. */
#pragma once
#include "hv/fault.h"
#include "hv/resources.h"
#include "proto/hv.pb-c.h"

enum { START_MAX = 256 << 10 }; /* bytes of VmStart */

/* Waits for it on a connected Unix stream socket and takes exactly that frame. 0, *ret (owned by
 * the caller, tb__vm_start__free_unpacked) with a spec in it, not checked yet, and the descriptors
 * in *r; -ENOTCONN: the parent ended without a word; or another negative errno. A sentence in
 * either case. */
int start_receive(int fd, Tb__VmStart **ret, struct resources *r, struct fault *fault);
/* The answer to a parent whose VM does not start. */
void start_refuse(int fd, const char *error);
