/* storage.h: what a directory lies on, and how worn that is, as the kernel tells it (eMMC and UFS
 * do; SD cards and most others do not). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct board_storage {
	/* "SD card", "eMMC", "UFS", "NVMe", "SSD", "hard disk", "USB disk", "virtual disk",
	 * "memory" or the name of the file system; empty: not known */
	char kind[24];
	char device[32]; /* "mmcblk0"; empty: none */
	char model[48]; /* as the device calls itself */
	uint64_t bytes; /* of the whole device; 0: not known */
	bool read_only; /* as it is mounted */
	/* Percent of its life that is used, 10 to 110; 0: not known. */
	unsigned wear_percent;
};

/* `root` as in root.h: its proc and sys tell; `path` is absolute and need not be there. */
void storage_read(int root, const char *path, struct board_storage *ret);
