#include "board/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "board/root.h"

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

/* Bytes of a property; below 0: not there. */
static ssize_t property(int folder, const char *name, uint8_t ret[PROPERTY_MAX])
{
	return folder_bytes(folder, name, ret, PROPERTY_MAX);
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

static void text_property(int folder, const char *name, char *ret, size_t size)
{
	uint8_t value[PROPERTY_MAX];
	ssize_t len = property(folder, name, value);

	root_clean(value, len < 0 ? 0 : (size_t)len, ret, size);
}

static void compatible_read(int folder, struct board_tree *ret)
{
	uint8_t list[PROPERTY_MAX];
	ssize_t len = property(folder, "compatible", list);
	size_t left = len < 0 ? 0 : (size_t)len, at = 0;

	while (at < left && ret->compatible_count < TREE_COMPATIBLE_MAX) {
		size_t size = strnlen((char *)list + at, left - at);

		root_clean(list + at, size, ret->compatible[ret->compatible_count++],
			   sizeof(ret->compatible[0]));
		at += size + 1;
	}
}

void board_tree_read(int root, struct board_tree *ret)
{
	struct walk w = {.ret = ret};
	int folder = root_at(root, "sys/firmware/devicetree/base");

	memset(ret, 0, sizeof(*ret));
	if (folder < 0) {
		folder = root_at(root, "proc/device-tree");
	}
	if (folder < 0) {
		return;
	}
	ret->present = true;
	text_property(folder, "model", ret->model, sizeof(ret->model));
	text_property(folder, "serial-number", ret->serial, sizeof(ret->serial));
	compatible_read(folder, ret);
	walk_node(&w, folder, 0);
}
