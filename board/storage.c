#include "board/storage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "lib/mem.h"

/* JEDEC eMMC 5.0: estimates of used life in steps of 10 %, 11: beyond it; of two kinds of cells. */
enum { LIFE_STEP = 10, LIFE_MAX = 11, EOL_WARNING = 2, EOL_URGENT = 3 };

static int numbers_read(const char *path, unsigned *first, unsigned *second)
{
	FILE *file = fopen(path, "re");
	int count;

	*first = 0;
	*second = 0;
	if (file == NULL)
		return 0;
	count = fscanf(file, "%x %x", first, second);
	fclose(file);
	return count > 0;
}

static unsigned device_wear(const char *device)
{
	char *life = mem_printf("%s/device/life_time", device);
	char *eol = mem_printf("%s/device/pre_eol_info", device);
	unsigned a, b, state, none;
	unsigned percent = 0;

	if (numbers_read(life, &a, &b)) {
		a = b > a ? b : a;
		percent = (a < LIFE_MAX ? a : LIFE_MAX) * LIFE_STEP;
	}
	/* What is left of the spare blocks counts as well. */
	if (numbers_read(eol, &state, &none) && state >= EOL_WARNING && percent < 90)
		percent = state >= EOL_URGENT ? 100 : 90;
	free(life);
	free(eol);
	return percent;
}

unsigned storage_wear(const char *sysfs, const char *path)
{
	struct stat info;
	char *device;
	char *whole;
	unsigned percent;

	if (stat(path, &info) != 0)
		return 0;
	device = mem_printf("%s/dev/block/%u:%u", sysfs, major(info.st_dev), minor(info.st_dev));
	/* A partition's own directory lies in that of the whole device. */
	whole = mem_printf("%s/..", device);
	percent = device_wear(device);
	if (percent == 0)
		percent = device_wear(whole);
	free(whole);
	free(device);
	return percent;
}
