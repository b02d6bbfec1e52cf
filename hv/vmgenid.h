/* vmgenid.h: the VM generation id: 16 bytes that change whenever the guest's past is played again
 * (restore, clone), so that the guest's kernel makes its random numbers anew.
 * Source: "Virtual Machine Generation ID", Microsoft 2012; Linux bindings
 * rng/microsoft,vmgenid.yaml, read by guests from 6.10 on. */
#pragma once
#include <stdint.h>

#include "hv/fault.h"
#include "hv/tree.h"

enum { VMGENID_SIZE = 16 };

/* The id of a spec (32 hex digits) or, if it is empty, a random one. -EINVAL and a sentence. */
int vmgenid_choose(const char *hex, uint8_t ret_id[VMGENID_SIZE], struct fault *fault);
/* Is it another than the snapshot's? -EXDEV and a sentence: the guest would not learn that its past
 * is played again. */
int vmgenid_check(const uint8_t id[VMGENID_SIZE], const uint8_t saved[VMGENID_SIZE],
		  struct fault *fault);
/* Puts it into the page the guest maps; seen also by a guest that reads past the caches. The
 * interrupt (LAYOUT_SPI_VMGENID, an edge) is the caller's, and only for a change. */
void vmgenid_write(uint8_t *page, const uint8_t id[VMGENID_SIZE]);
/* Its node: "microsoft,vmgenid" at LAYOUT_VMGENID. */
void vmgenid_tree(struct tree *t);
