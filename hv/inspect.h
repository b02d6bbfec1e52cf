/* inspect.h: `witness-vm inspect STATE`: what a snapshot's state file holds, for people: what a VM
 * must be made of to be restored from it, which class of host it needs, and, line by line, every
 * register and word (so that two states can be compared with diff). */
#pragma once
#include <stdbool.h>
#include <stdio.h>

#include "lib/buf.h"
#include "proto/hv_state.pb-c.h"

/* A record that state_file_decode took. */
void inspect_text(const Tb__VmSnapshot *s, bool all, struct buf *out);
/* Exit status: 0; 1 and a sentence on stderr for a file that is none. */
int inspect_main(const char *path, bool all, FILE *out);
