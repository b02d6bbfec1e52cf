/* hv_snapshot_sample.h: a sound record of a snapshot, made up: two vCPUs, GICv2, two devices. */
#pragma once
#include "proto/hv_state.pb-c.h"

/* Owned by the caller: tb__vm_snapshot__free_unpacked with NULL. */
Tb__VmSnapshot *snapshot_sample(void);
