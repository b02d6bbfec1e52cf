/* cache.h: what a guest maps as a device's memory it reads past the caches, on cores without
 * FEAT_S2FWB: after a change there the lines must be written back (Arm ARM DDI 0487, D7.5). */
#pragma once
#include <stddef.h>

/* Writes the lines that hold the range back to memory, and waits for it. Nothing to do elsewhere
 * than on arm64. */
void cache_clean(const void *at, size_t len);
