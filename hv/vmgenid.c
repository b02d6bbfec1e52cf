#include "hv/vmgenid.h"

#include <errno.h>
#include <string.h>

#include "hv/cache.h"
#include "hv/layout.h"
#include "lib/hex.h"
#include "lib/rng.h"

int vmgenid_choose(const char *hex, uint8_t ret_id[VMGENID_SIZE], struct fault *fault)
{
	if (hex[0] == '\0') {
		rng_fill(ret_id, VMGENID_SIZE);
		return 0;
	}
	if (hex_decode(hex, ret_id, VMGENID_SIZE) < 0) {
		return fault_set(fault, -EINVAL, "generationId is not 32 hex digits");
	}
	return 0;
}

int vmgenid_check(const uint8_t id[VMGENID_SIZE], const uint8_t saved[VMGENID_SIZE],
		  struct fault *fault)
{
	if (memcmp(id, saved, VMGENID_SIZE) == 0) {
		return fault_set(
			fault, -EXDEV,
			"generationId: is the one of the snapshot, so that the guest would "
			"make the same random numbers again; leave it out, or give "
			"another");
	}
	return 0;
}

void vmgenid_write(uint8_t *page, const uint8_t id[VMGENID_SIZE])
{
	memcpy(page, id, VMGENID_SIZE);
	cache_clean(page, VMGENID_SIZE);
}

void vmgenid_tree(struct tree *t)
{
	tree_open(t, "vmgenid@%llx", (unsigned long long)LAYOUT_VMGENID);
	tree_text(t, "compatible", "microsoft,vmgenid");
	tree_reg(t, LAYOUT_VMGENID, 0x1000);
	tree_spi(t, LAYOUT_SPI_VMGENID, TREE_EDGE);
	tree_close(t);
}
