/* condition.h: how a board fares at this moment: heat, power, links. Sources: Linux
 * Documentation/driver-api/thermal/sysfs-api.rst, ABI/testing/sysfs-class-hwmon; Raspberry Pi
 * documentation, vcgencmd get_throttled (the bits). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { LINKS_MAX = 8 };

struct board_link {
	char name[16];
	bool up;
	uint32_t mbits; /* 0: not known, or down */
};

struct board_condition {
	bool temperature_known;
	int32_t temperature_mc; /* of the processor, thousandths of a degree Celsius */
	int32_t critical_mc; /* at which the kernel switches the board off; 0: not known */
	bool under_voltage; /* now, or in the two seconds before */
	bool throttled; /* slower than it could be, for heat or want of power */
	struct board_link links[LINKS_MAX]; /* with a device of their own, by name */
	unsigned link_count;
};

/* May take up to a second: the firmware of a board is asked. */
void condition_read(int root, struct board_condition *ret);
