#include "hv/board_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Trees of boards have 2,000 nodes, eight deep. */
enum { DEPTH_MAX = 10, NODES_MAX = 20000, PROPERTY_MAX = 256, CELLS_MAX = 4 };

struct walk {
	struct board_tree *ret;
	unsigned nodes;
};

static const struct {
	char compatible[24];
	enum board_controller kind;
} controllers[] = {
	{"arm,gic-400", BOARD_CONTROLLER_GICV2},
	{"arm,cortex-a15-gic", BOARD_CONTROLLER_GICV2},
	{"arm,cortex-a7-gic", BOARD_CONTROLLER_GICV2},
	{"arm,gic-v3", BOARD_CONTROLLER_GICV3},
	{"brcm,bcm2836-l1-intc", BOARD_CONTROLLER_BCM2836},
};

/* Bytes of a property; -1: not there. */
static ssize_t property(int folder, const char *name, uint8_t ret[PROPERTY_MAX])
{
	int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t len;

	if (fd < 0) {
		return -1;
	}
	len = read(fd, ret, PROPERTY_MAX);
	close(fd);
	return len;
}

static uint64_t cells(const uint8_t *at, unsigned count)
{
	uint64_t value = 0;
	unsigned i;

	for (i = 0; i < 4 * count; i++) {
		value = value << 8 | at[i];
	}
	return value;
}

/* #address-cells or #size-cells of a node. */
static unsigned cell_count(int folder, const char *name, unsigned otherwise)
{
	uint8_t value[PROPERTY_MAX];
	unsigned count = property(folder, name, value) == 4 ? (unsigned)cells(value, 1) : otherwise;

	return count <= CELLS_MAX ? count : otherwise;
}

static enum board_controller kind_of(int folder)
{
	uint8_t list[PROPERTY_MAX + 1];
	ssize_t len = property(folder, "compatible", list), at;
	size_t i;

	list[len < 0 ? 0 : len] = '\0';
	for (at = 0; at < len; at += (ssize_t)strlen((char *)list + at) + 1) {
		for (i = 0; i < sizeof(controllers) / sizeof(controllers[0]); i++) {
			if (strcmp((char *)list + at, controllers[i].compatible) == 0) {
				return controllers[i].kind;
			}
		}
	}
	return BOARD_CONTROLLER_NONE;
}

static void controller_read(int parent, int folder, const char *name, enum board_controller kind,
			    struct board_tree *ret)
{
	unsigned address = cell_count(parent, "#address-cells", 2);
	unsigned size = cell_count(parent, "#size-cells", 1), range = 4 * (address + size);
	uint8_t value[PROPERTY_MAX];
	ssize_t len = property(folder, "reg", value);

	ret->controller = kind;
	snprintf(ret->node, sizeof(ret->node), "%.63s", name);
	ret->ranges = len > 0 && range > 0 ? (unsigned)len / range : 0;
	if (kind == BOARD_CONTROLLER_GICV2 && ret->ranges >= 4) {
		ret->gicv_base = cells(value + 3 * range, address);
		ret->gicv_size = cells(value + 3 * range + 4 * address, size);
	}
	ret->maintenance = property(folder, "interrupts", value) > 0 ||
			   property(folder, "interrupts-extended", value) > 0;
}

/* All nodes below `folder`, which is closed; a GIC counts more than what it stands behind. */
static void walk_node(struct walk *w, int folder, unsigned depth)
{
	DIR *dir = fdopendir(folder);
	struct dirent *entry;

	if (dir == NULL) {
		close(folder);
		return;
	}
	while (depth < DEPTH_MAX && w->nodes < NODES_MAX && (entry = readdir(dir)) != NULL) {
		int child;

		if (entry->d_type != DT_DIR || entry->d_name[0] == '.') {
			continue;
		}
		child = openat(folder, entry->d_name,
			       O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (child >= 0) {
			enum board_controller kind = kind_of(child);

			w->nodes++;
			if (kind != BOARD_CONTROLLER_NONE &&
			    (w->ret->controller == BOARD_CONTROLLER_NONE ||
			     w->ret->controller == BOARD_CONTROLLER_BCM2836)) {
				controller_read(folder, child, entry->d_name, kind, w->ret);
			}
			walk_node(w, child, depth + 1);
		}
	}
	closedir(dir);
}

void board_tree_read(const char *path, struct board_tree *ret)
{
	struct walk w = {.ret = ret};
	uint8_t model[PROPERTY_MAX];
	int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ssize_t len;

	memset(ret, 0, sizeof(*ret));
	if (folder < 0) {
		return;
	}
	ret->present = true;
	len = property(folder, "model", model);
	if (len > 0) {
		snprintf(ret->model, sizeof(ret->model), "%.*s", len < 95 ? (int)len : 95,
			 (char *)model);
	}
	walk_node(&w, folder, 0);
}
