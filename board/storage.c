#include "board/storage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "board/root.h"

/* JEDEC eMMC 5.0: estimates of used life in steps of 10 %, 11: beyond it; of two kinds of cells.
 * JEDEC UFS 3.1 has the same. */
enum { LIFE_STEP = 10, LIFE_MAX = 11, EOL_WARNING = 2, EOL_URGENT = 3 };

enum { MOUNT_TEXT_MAX = 256, DEVICE_PATH_MAX = 128, PARENTS_MAX = 6, SECTOR = 512 };

/* --- the mount that holds a path: /proc/self/mountinfo, proc(5) --- */

struct mount {
	char point[MOUNT_TEXT_MAX];
	char device[24]; /* "179:2" */
	char type[24]; /* of the file system */
	char source[MOUNT_TEXT_MAX]; /* "/dev/mmcblk0p2" */
	bool read_only;
};

/* Spaces and the like are written as \040. */
static void unescape(const char *from, char *ret, size_t size)
{
	size_t end = 0;

	while (*from != '\0' && end < size - 1) {
		if (from[0] == '\\' && strspn(from + 1, "01234567") >= 3) {
			ret[end++] = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 |
					    (from[3] - '0'));
			from += 4;
		} else {
			ret[end++] = *from++;
		}
	}
	ret[end] = '\0';
}

static bool mount_parse(const char *line, struct mount *ret)
{
	char point[MOUNT_TEXT_MAX], options[MOUNT_TEXT_MAX], source[MOUNT_TEXT_MAX];
	const char *rest = strstr(line, " - ");

	if (rest == NULL ||
	    sscanf(line, "%*u %*u %23s %*s %255s %255s", ret->device, point, options) != 3 ||
	    sscanf(rest + 3, "%23s %255s", ret->type, source) != 2)
		return false;
	unescape(point, ret->point, sizeof(ret->point));
	unescape(source, ret->source, sizeof(ret->source));
	ret->read_only = strcmp(options, "ro") == 0 || strncmp(options, "ro,", 3) == 0;
	return true;
}

static bool path_within(const char *path, const char *point)
{
	size_t len = strlen(point);

	return strcmp(point, "/") == 0 ||
	       (strncmp(path, point, len) == 0 && (path[len] == '/' || path[len] == '\0'));
}

/* The longest mount point; of equal ones the last, which covers the others. */
static bool mount_find(int root, const char *path, struct mount *ret)
{
	char *text = root_text(root, "proc/self/mountinfo");
	bool found = false;
	char *save = NULL;

	for (char *line = text != NULL ? strtok_r(text, "\n", &save) : NULL; line != NULL;
	     line = strtok_r(NULL, "\n", &save)) {
		struct mount m;

		if (mount_parse(line, &m) && path_within(path, m.point) &&
		    (!found || strlen(m.point) >= strlen(ret->point))) {
			*ret = m;
			found = true;
		}
	}
	free(text);
	return found;
}

/* --- the device below it --- */

/* Its folder in sysfs, of the whole disk; false: there is none. */
static bool device_find(int root, const struct mount *m, char ret[DEVICE_PATH_MAX])
{
	char partition[DEVICE_PATH_MAX + 16];

	/* File systems of several devices (btrfs, overlay) have a number of their own. */
	if (strncmp(m->device, "0:", 2) != 0)
		snprintf(ret, DEVICE_PATH_MAX, "sys/dev/block/%s", m->device);
	else if (strncmp(m->source, "/dev/", 5) == 0)
		snprintf(ret, DEVICE_PATH_MAX, "sys/class/block/%.64s", m->source + 5);
	else
		return false;
	snprintf(partition, sizeof(partition), "%s/partition", ret);
	if (root_has(root, partition))
		strcat(ret, "/..");
	return root_has(root, ret);
}

struct slave {
	char name[32];
};

static bool slave_first(void *arg, const char *name)
{
	struct slave *slave = arg;

	snprintf(slave->name, sizeof(slave->name), "%.31s", name);
	return false;
}

/* LVM, encryption and RAID: the first of those below. */
static void device_lower(int root, char path[DEVICE_PATH_MAX])
{
	for (unsigned i = 0; i < 4; i++) {
		char slaves[DEVICE_PATH_MAX + 8];
		struct slave slave = {""};
		struct mount m = {.device = "0:0"};

		snprintf(slaves, sizeof(slaves), "%s/slaves", path);
		root_names(root, slaves, "", slave_first, &slave);
		if (slave.name[0] == '\0')
			return;
		snprintf(m.source, sizeof(m.source), "/dev/%s", slave.name);
		if (!device_find(root, &m, path))
			return;
	}
}

static void device_name(int root, const char *path, struct board_storage *ret)
{
	char file[DEVICE_PATH_MAX + 8];
	char text[ROOT_LINE_MAX + 1] = "";
	const char *name;
	ssize_t len;

	snprintf(file, sizeof(file), "%s/uevent", path);
	len = root_bytes(root, file, text, sizeof(text) - 1);
	text[len < 0 ? 0 : len] = '\0';
	name = strstr(text, "DEVNAME=");
	if (name != NULL)
		root_clean(name + 8, strlen(name + 8), ret->device, sizeof(ret->device));
}

/* Whether the way to the device has `word` in it: "/usb", "/ufs". */
static bool device_behind(int root, const struct board_storage *s, const char *word)
{
	char path[DEVICE_PATH_MAX];
	char link[ROOT_PATH_MAX];

	snprintf(path, sizeof(path), "sys/class/block/%s", s->device);
	return root_link(root, link, sizeof(link), path) && strstr(link, word) != NULL;
}

static const char *device_kind(int root, const char *path, const struct board_storage *s)
{
	int64_t rotates = 0;
	char type[8];

	if (strncmp(s->device, "mmcblk", 6) == 0) {
		root_line(root, type, sizeof(type), "%s/device/type", path);
		return strcmp(type, "SD") == 0 ? "SD card" : strcmp(type, "MMC") == 0 ? "eMMC" : "";
	}
	if (strncmp(s->device, "nvme", 4) == 0)
		return "NVMe";
	if (strncmp(s->device, "vd", 2) == 0 || strncmp(s->device, "xvd", 3) == 0)
		return "virtual disk";
	if (strncmp(s->device, "sd", 2) != 0)
		return "";
	if (device_behind(root, s, "/usb"))
		return "USB disk";
	if (device_behind(root, s, "ufs"))
		return "UFS";
	root_number(root, &rotates, "%s/queue/rotational", path);
	return rotates != 0 ? "hard disk" : "SSD";
}

/* --- wear --- */

static bool numbers_read(int root, const char *path, unsigned *first, unsigned *second)
{
	char line[ROOT_LINE_MAX];

	*first = 0;
	*second = 0;
	return root_line(root, line, sizeof(line), "%s", path) &&
	       sscanf(line, "%x %x", first, second) > 0;
}

static unsigned wear_of(unsigned a, unsigned b, unsigned eol)
{
	unsigned life = b > a ? b : a;
	unsigned percent = (life < LIFE_MAX ? life : LIFE_MAX) * LIFE_STEP;

	/* What is left of the spare blocks counts as well. */
	if (eol >= EOL_WARNING && percent < 90)
		percent = eol >= EOL_URGENT ? 100 : 90;
	return percent;
}

static unsigned emmc_wear(int root, const char *path)
{
	char file[DEVICE_PATH_MAX + 24];
	unsigned a, b, eol, none;

	snprintf(file, sizeof(file), "%s/device/life_time", path);
	numbers_read(root, file, &a, &b);
	snprintf(file, sizeof(file), "%s/device/pre_eol_info", path);
	numbers_read(root, file, &eol, &none);
	return wear_of(a, b, eol);
}

/* The host controller has the numbers, some folders above its disks. */
static unsigned ufs_wear(int root, const char *path)
{
	char parent[DEVICE_PATH_MAX + 8 + 3 * PARENTS_MAX];

	snprintf(parent, sizeof(parent), "%s/device", path);
	for (unsigned i = 0; i < PARENTS_MAX; i++) {
		char file[sizeof(parent) + 56];
		unsigned a, b, eol, none;

		strcat(parent, "/..");
		snprintf(file, sizeof(file), "%s/health_descriptor/life_time_estimation_a", parent);
		if (!numbers_read(root, file, &a, &none))
			continue;
		snprintf(file, sizeof(file), "%s/health_descriptor/life_time_estimation_b", parent);
		numbers_read(root, file, &b, &none);
		snprintf(file, sizeof(file), "%s/health_descriptor/eol_info", parent);
		numbers_read(root, file, &eol, &none);
		return wear_of(a, b, eol);
	}
	return 0;
}

void storage_read(int root, const char *path, struct board_storage *ret)
{
	char device[DEVICE_PATH_MAX];
	int64_t sectors = 0;
	struct mount m;

	*ret = (struct board_storage){0};
	if (!mount_find(root, path, &m))
		return;
	ret->read_only = m.read_only;
	if (!device_find(root, &m, device)) {
		bool memory = strcmp(m.type, "tmpfs") == 0 || strcmp(m.type, "ramfs") == 0 ||
			      strcmp(m.type, "rootfs") == 0;

		root_clean(memory ? "memory" : m.type, strlen(memory ? "memory" : m.type),
			   ret->kind, sizeof(ret->kind));
		return;
	}
	device_lower(root, device);
	device_name(root, device, ret);
	snprintf(ret->kind, sizeof(ret->kind), "%s", device_kind(root, device, ret));
	if (!root_line(root, ret->model, sizeof(ret->model), "%s/device/name", device))
		root_line(root, ret->model, sizeof(ret->model), "%s/device/model", device);
	if (root_number(root, &sectors, "%s/size", device) && sectors > 0 &&
	    sectors < INT64_MAX / SECTOR)
		ret->bytes = (uint64_t)sectors * SECTOR;
	ret->wear_percent =
		strcmp(ret->kind, "UFS") == 0 ? ufs_wear(root, device) : emmc_wear(root, device);
}
