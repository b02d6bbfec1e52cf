/* board.h: what a board is and how it fares, from /proc and /sys below a root, so that the captured
 * tree of any board can be read on every other one. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "board/condition.h"
#include "board/cores.h"
#include "board/madt.h"
#include "board/storage.h"
#include "board/tree.h"

/* Can it host virtual machines? */
enum board_hosting { BOARD_HOSTING_UNKNOWN, BOARD_HOSTING_YES, BOARD_HOSTING_NO };

struct board_watchdog {
	bool present;
	char identity[64]; /* as its driver calls it; empty: it does not say */
	bool no_way_out; /* once armed it cannot be disarmed */
};

/* Texts are printable ASCII; empty ones are not known. */
struct board_facts {
	/* "Raspberry Pi 4 Model B Rev 1.4": of the device tree, else of the firmware (DMI) */
	char model[96];
	char compatible[TREE_COMPATIBLE_MAX][64]; /* of the device tree, the most exact first */
	unsigned compatible_count;
	char soc[64]; /* "Broadcom BCM2711" */
	char serial[64];
	char kernel[64]; /* release */
	struct board_cores cores;
	uint64_t memory_bytes;
	unsigned gic_version; /* 2, 3, 4; 0: not known, or none */
	bool gic_virtual; /* with the parts that KVM needs for a virtual one */
	bool kvm; /* the kernel offers it */
	enum board_hosting hosting;
	/* Why not, as the end of a sentence ("its processor has no ..."); only with NO. */
	char hosting_why[320];
	struct board_storage storage; /* below the data directory */
	struct board_watchdog watchdog;
	struct board_condition condition;
};

/* All of it. `root` as in root.h; `data_dir` is an absolute path of the board's. What is not there
 * is not known; there are no errors. */
void board_read(int root, const char *data_dir, struct board_facts *ret);
/* What changes while a board runs: condition and storage. */
void board_update(int root, const char *data_dir, struct board_facts *facts);
