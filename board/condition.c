#include "board/condition.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "board/root.h"

enum { TRIPS_MAX = 12, SENSORS_MAX = 16 };
/* Sensors that are not there say such things. */
enum { COLDEST_MC = -60000, HOTTEST_MC = 200000, CRITICAL_LEAST_MC = 40000 };

/* Of the firmware's word: now, and (sixteen higher) since it was last asked. */
enum { UNDER_VOLTAGE = 0x10001, CAPPED = 0x20002, THROTTLED = 0x40004 };

struct look {
	int root;
	struct board_condition *ret;
	bool processor; /* what was found is a sensor of the processor */
};

static bool has_word(const char *text, const char *const *words)
{
	for (; *words != NULL; words++)
		if (strcasestr(text, *words) != NULL)
			return true;
	return false;
}

/* --- heat --- */

/* One sensor. Those of the processor go before all others (a Jetson's power chip says 100 degrees,
 * always); of equal ones the hottest counts. */
static bool temperature_take(struct look *look, int64_t mc, bool processor)
{
	struct board_condition *c = look->ret;

	if (mc < COLDEST_MC || mc > HOTTEST_MC || (look->processor && !processor))
		return false;
	if (c->temperature_known && look->processor == processor && mc <= c->temperature_mc)
		return false;
	c->temperature_known = true;
	c->temperature_mc = (int32_t)mc;
	c->critical_mc = 0;
	look->processor = processor;
	return true;
}

static bool zone_look(void *arg, const char *name)
{
	static const char *const words[] = {"cpu", "soc", "x86_pkg", "package", NULL};
	struct look *look = arg;
	char type[ROOT_LINE_MAX];
	int64_t value;

	root_line(look->root, type, sizeof(type), "sys/class/thermal/%s/type", name);
	if (!root_number(look->root, &value, "sys/class/thermal/%s/temp", name) ||
	    !temperature_take(look, value, has_word(type, words)))
		return true;
	for (unsigned i = 0; i < TRIPS_MAX; i++)
		if (root_line(look->root, type, sizeof(type),
			      "sys/class/thermal/%s/trip_point_%u_type", name, i) &&
		    strcmp(type, "critical") == 0 &&
		    root_number(look->root, &value, "sys/class/thermal/%s/trip_point_%u_temp", name,
				i) &&
		    value >= CRITICAL_LEAST_MC && value <= HOTTEST_MC)
			look->ret->critical_mc = (int32_t)value;
	return true;
}

/* Servers without thermal zones: sensors that say they are the processor's. */
static bool sensor_look(void *arg, const char *name)
{
	static const char *const words[] = {"cpu", "soc", "core", "package", "tctl", "tdie", NULL};
	struct look *look = arg;
	char chip[64], label[64];
	int64_t value;

	root_line(look->root, chip, sizeof(chip), "sys/class/hwmon/%s/name", name);
	for (unsigned i = 1; i <= SENSORS_MAX; i++) {
		root_line(look->root, label, sizeof(label), "sys/class/hwmon/%s/temp%u_label", name,
			  i);
		if ((has_word(chip, words) || has_word(label, words)) &&
		    root_number(look->root, &value, "sys/class/hwmon/%s/temp%u_input", name, i) &&
		    temperature_take(look, value, true) &&
		    root_number(look->root, &value, "sys/class/hwmon/%s/temp%u_crit", name, i) &&
		    value >= CRITICAL_LEAST_MC && value <= HOTTEST_MC)
			look->ret->critical_mc = (int32_t)value;
	}
	return true;
}

/* Somebody has been told to make the processor slower. */
static bool cooling_look(void *arg, const char *name)
{
	static const char *const words[] = {"cpufreq", "Processor", NULL};
	struct look *look = arg;
	char type[ROOT_LINE_MAX];
	int64_t state;

	if (root_line(look->root, type, sizeof(type), "sys/class/thermal/%s/type", name) &&
	    has_word(type, words) &&
	    root_number(look->root, &state, "sys/class/thermal/%s/cur_state", name) && state > 0)
		look->ret->throttled = true;
	return true;
}

/* --- power --- */

/* Raspberry Pi: the driver of the voltage sensor asks the firmware every two seconds. */
static bool voltage_look(void *arg, const char *name)
{
	struct look *look = arg;
	char chip[16];
	int64_t alarm;

	if (root_line(look->root, chip, sizeof(chip), "sys/class/hwmon/%s/name", name) &&
	    strcmp(chip, "rpi_volt") == 0 &&
	    root_number(look->root, &alarm, "sys/class/hwmon/%s/in0_lcrit_alarm", name) &&
	    alarm != 0)
		look->ret->under_voltage = true;
	return true;
}

/* Raspberry Pi, with its maker's kernel: all that the firmware says, in hex without 0x. */
static bool firmware_look(void *arg, const char *name)
{
	struct look *look = arg;
	char line[ROOT_LINE_MAX];
	unsigned long bits;

	if (!root_line(look->root, line, sizeof(line),
		       "sys/bus/platform/drivers/raspberrypi-firmware/%s/get_throttled", name))
		return true;
	bits = strtoul(line, NULL, 16);
	look->ret->under_voltage |= (bits & UNDER_VOLTAGE) != 0;
	look->ret->throttled |= (bits & (CAPPED | THROTTLED)) != 0;
	return true;
}

/* --- links --- */

static bool link_look(void *arg, const char *name)
{
	struct look *look = arg;
	struct board_condition *c = look->ret;
	struct board_link *link = &c->links[c->link_count];
	char path[ROOT_LINE_MAX];
	char state[16];
	int64_t mbits;

	snprintf(path, sizeof(path), "sys/class/net/%s/device", name);
	if (!root_has(look->root, path))
		return true; /* a bridge, a tap, the loopback */
	*link = (struct board_link){0};
	root_clean(name, strlen(name), link->name, sizeof(link->name));
	root_line(look->root, state, sizeof(state), "sys/class/net/%s/operstate", name);
	link->up = strcmp(state, "up") == 0;
	if (link->up && root_number(look->root, &mbits, "sys/class/net/%s/speed", name) &&
	    mbits > 0 && mbits <= 1000000)
		link->mbits = (uint32_t)mbits;
	c->link_count++;
	return c->link_count < LINKS_MAX;
}

void condition_read(int root, struct board_condition *ret)
{
	struct look look = {.root = root, .ret = ret};

	*ret = (struct board_condition){0};
	root_names(root, "sys/class/thermal", "thermal_zone", zone_look, &look);
	if (!ret->temperature_known)
		root_names(root, "sys/class/hwmon", "hwmon", sensor_look, &look);
	root_names(root, "sys/class/thermal", "cooling_device", cooling_look, &look);
	root_names(root, "sys/class/hwmon", "hwmon", voltage_look, &look);
	root_names(root, "sys/bus/platform/drivers/raspberrypi-firmware", "", firmware_look, &look);
	root_names(root, "sys/class/net", "", link_look, &look);
}
