/* probe_judge.h: what the facts of a probe mean for somebody who wants to run VMs on the board.
 * Pure. */
#pragma once
#include "hv/probe_facts.h"
#include "lib/buf.h"
#include "proto/hv_probe.pb-c.h"

/* A new message, owned by the caller (free_unpacked with NULL), without the class of the host. */
Tb__HostProbe *probe_judge(const struct probe_board *board, const struct probe_kvm *kvm);
/* For a person: the verdict, the findings with their remedies, the facts, the class's id. */
void probe_text(const Tb__HostProbe *probe, struct buf *out);
