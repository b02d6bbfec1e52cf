/* vm_spec.h: what people say of a VM on the command line, as members of a JSON object (the API's
 * Vm, or a merge patch of it). */
#pragma once
#include <stdint.h>

#include "cli/command.h"
#include "lib/buf.h"

enum { VM_SPEC_MESSAGE = 300 };

/* "256M", "2G", "1T": MiB. 0; -EINVAL and a sentence. */
int vm_size_read(const char *text, uint32_t *ret_mib, char message[VM_SPEC_MESSAGE]);
/* "image=NAME", "overlay=NAME,size=4G", "data=10G", each with ",id=SERIAL": appends a JSON object.
 * 0; -EINVAL and a sentence. */
int vm_disk_read(const char *text, struct buf *out, char message[VM_SPEC_MESSAGE]);
/* "br0", "br0,mac=02:..": the same. */
int vm_nic_read(const char *text, struct buf *out, char message[VM_SPEC_MESSAGE]);
/* The options of `vm create` and `vm set` that are given, as the members of an object, without its
 * braces. EXIT_OK, or EXIT_USAGE and told. A list that is given takes the place of the whole list;
 * "none" alone is the empty one. "-l KEY-" takes a label away. */
int vm_options_read(const struct invocation *inv, struct buf *members);
