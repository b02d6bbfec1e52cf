/* probe.h: `witness-vm probe`: what this host can do for virtual machines, and why not.
 *
 * Asks KVM itself: the virtual GIC is really made in a scratch VM, since kernels and device trees
 * lie about it (Pi 5 with 6.12, Jetson Nano with 4.9). Opens what it asks about; not for the
 * sandbox. */
#pragma once
#include <stdbool.h>
#include <stdio.h>

#include "proto/hv_probe.pb-c.h"

/* `root`: "" for this host, or a folder with proc, sys and dev of another: a captured tree tells
 * what a board of that kind says, as far as files tell it. A new message, owned by the caller
 * (free_unpacked with NULL). Never fails: what cannot be found out is a finding. */
Tb__HostProbe *probe_host(const char *root);
/* Writes text (probe_judge.h) or JSON to `out`. Exit status: 0 this host can run VMs, 1 it cannot.
 */
int probe_main(const char *root, bool json, FILE *out);
