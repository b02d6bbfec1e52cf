/* tree.h: what this board's own device tree says of the board and of its interrupt controller, as a
 * folder of files (/proc/device-tree, or one captured from a board). KVM makes a virtual GIC only
 * if the tree describes the parts for it, and kernels' trees have been wrong about that. Pure but
 * for reading. Source: Linux bindings interrupt-controller/arm,gic.yaml, arm,gic-v3.yaml. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { TREE_COMPATIBLE_MAX = 5 };

enum board_controller {
	BOARD_CONTROLLER_NONE, /* no tree, or no controller in it that we know */
	BOARD_CONTROLLER_GICV2,
	BOARD_CONTROLLER_GICV3,
	BOARD_CONTROLLER_BCM2836, /* Raspberry Pi 2, 3, Zero 2: no GIC */
};

struct board_tree {
	bool present; /* there is a tree */
	char model[96]; /* of the root node; empty: none */
	char compatible[TREE_COMPATIBLE_MAX][64]; /* of the root node, the most exact first */
	unsigned compatible_count;
	char serial[64];
	enum board_controller controller;
	char node[64]; /* "interrupt-controller@40041000" */
	unsigned ranges; /* of its registers */
	bool maintenance; /* it has an interrupt of its own, which KVM needs */
	/* The virtual CPU interface of a GICv2 (fourth range): guest address space maps it page by
	 * page. 0, 0: none. */
	uint64_t gicv_base, gicv_size;
};

/* `root` as in board/root.h. *ret is filled, also where nothing is. */
void board_tree_read(int root, struct board_tree *ret);
