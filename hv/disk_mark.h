/* disk_mark.h: is a disk still as a snapshot left it? In the guest's memory are parts of its file
 * systems, and writes under way: over a disk that is newer than they they destroy it. A disk that
 * the guest only reads harms nobody and is not looked at.
 *
 * What tells is the time of the file's last write (hv_state.proto, DiskMark), which the kernel sets
 * whoever writes, and which a copy keeps that is made for it (`cp -a`, `rsync -a`). A block device
 * has none, and is taken only on the word of the spec (DiskSpec.as_saved). So is a disk of a file
 * system that forgets the time in a power cut, seconds after the write. */
#pragma once
#include "hv/fault.h"
#include "hv/resources.h"
#include "proto/hv_state.pb-c.h"

/* For a machine that is paused: has all that was written to its writable disks on them, and puts
 * their marks into the records of the first spec->n_disks devices. When it returns a later write
 * has another time: it waits for that, as a rule not at all, and 2 s where files have times in
 * whole seconds. 0, or the errno of the flush and a sentence. May wait for a disk as long as that
 * likes. */
int disk_marks_take(const Tb__VmSpec *spec, const struct resources *r, Tb__VmSnapshot *s,
		    struct fault *fault);
/* Are the writable disks of the spec those of the snapshot, whose devices are known to be the
 * spec's? -EXDEV and a sentence with the remedy. */
int disk_marks_check(const Tb__VmSpec *spec, const struct resources *r, const Tb__VmSnapshot *s,
		     struct fault *fault);
