/* storage.h: how worn the storage below a directory is, as the kernel tells it (eMMC and UFS; SD
 * cards do not say). */
#pragma once

/* Percent of its life that is used, 10 to 110; 0: not known. `sysfs` is "/sys" (tests: another). */
unsigned storage_wear(const char *sysfs, const char *path);
