/* probe.h: `witness-vm probe`: what this host can do for virtual machines, and why not.
 *
 * Asks KVM itself: the virtual GIC is really made in a scratch VM, since kernels and device trees
 * lie about it (Pi 5 with 6.12, Jetson Nano with 4.9). Opens what it asks about; not for the
 * sandbox. */
#pragma once
#include <stdio.h>

#include "lib/buf.h"
#include "proto/hv_probe.pb-c.h"

struct probe_options {
	const char *kvm; /* NULL: /dev/kvm */
	/* Where proc, sys and dev of the board are found; NULL or "": /. A captured tree tells what
	 * a board of that kind would say, as far as files tell it. */
	const char *root;
};

/* *ret owned by the caller: protobuf_c_message_free_unpacked with NULL. Never fails: what cannot be
 * found out is a finding. */
void probe_host(const struct probe_options *options, Tb__HostProbe **ret);
/* For a person: the summary, the findings with their remedies, the facts, the class's id. */
void probe_text(const Tb__HostProbe *probe, struct buf *out);
/* Writes text or JSON to `out`. Exit status: 0 this host can run VMs, 1 it cannot. */
int probe_main(const struct probe_options *options, int json, FILE *out);
