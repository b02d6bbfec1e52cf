/* spec.h: what a person or a parent asks for as a VM: read, checked, defaults filled in. Pure.
 *
 * A spec that has passed spec_finish can be trusted by everything behind it: all numbers are in
 * their range, names are words, nothing is there twice, and every default is written out (vcpus,
 * memory, command line, MAC addresses, disk ids). What only the host can know (does the file
 * exist?) is resources.h's. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hv/fault.h"
#include "proto/hv.pb-c.h"

enum {
	SPEC_TEXT_MAX = 256 << 10, /* bytes of a spec as JSON */
	SPEC_NAME_MAX = 63,
	SPEC_COMMAND_LINE_MAX = 2048,
	SPEC_DISKS_MAX = 8,
	SPEC_NICS_MAX = 4,
	SPEC_DISK_ID_MAX = 20, /* virtio 1.2, 5.2.6: the serial number's bytes */
	SPEC_LEASE_MIN_MS = 100,
};
#define SPEC_LEASE_MAX_MS UINT64_C(86400000)

/* Reads one JSON object. Relative paths in it get `folder` in front ("" or NULL: left as they are).
 * 0 and *ret, owned by the caller (spec_free), not yet checked; -EINVAL and a sentence with the
 * place. */
int spec_parse(const char *text, size_t len, const char *folder, Tb__VmSpec **ret,
	       struct fault *fault);
/* "memoryMib=256", "disks[0].readOnly=true": one field over what was read. Paths are taken as they
 * are. -EINVAL and a sentence. */
int spec_override(Tb__VmSpec *spec, const char *assignment, struct fault *fault);
/* Of what was read, the machine without its guest, which is the one of the snapshot in `folder`: no
 * kernel, initrd and command line, and another generation id. -EINVAL and a sentence. */
int spec_restore(Tb__VmSpec *spec, const char *folder, struct fault *fault);
/* Checks the whole and writes the defaults into it. `paths`: files are named by path (`run`);
 * false: descriptors come along (the supervised form), so that paths may be empty. -EINVAL and a
 * sentence. */
int spec_finish(Tb__VmSpec *spec, bool paths, struct fault *fault);
void spec_free(Tb__VmSpec *spec); /* NULL ok */

/* The six bytes of "52:54:00:12:34:56" (either case). -EINVAL: not that; or a group address, or
 * zeros. */
int spec_mac_parse(const char *text, uint8_t ret[6]);
/* The address of the NIC `number` of the VM `name` if the spec gives none: always the same one,
 * locally administered and unicast (IEEE 802, 8.2). `text` has room for 18. */
void spec_mac_derive(const char *name, unsigned number, char text[18]);
/* The 16 bytes of 32 hex digits. -EINVAL. */
int spec_generation_parse(const char *text, uint8_t ret[16]);
