/* room.h: what the boards have left for virtual machines, and whether one fits. Pure; for the
 * scheduler and for admission. Memory and processors as scheduler.h says. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/limits.h"
#include "lib/buf.h"
#include "proto/model.pb-c.h"

/* Why a VM cannot be on a board; the first that holds, in this order. */
enum room_lack {
	ROOM_FITS,
	ROOM_SILENT, /* the board has not said yet what it can host */
	ROOM_NO_HOST,
	ROOM_AWAY,
	ROOM_BEHIND, /* it does not keep up with the log */
	ROOM_DRAINED,
	ROOM_REQUIRE, /* not one of those it requires */
	ROOM_HOME, /* its data disks are elsewhere (room_home) */
	ROOM_BRIDGE,
	ROOM_APART,
	ROOM_MEMORY,
	ROOM_VCPUS,
	ROOM_BUSY, /* it is starting as many as it may */
	ROOM_LACKS,
};

struct room_board {
	const Tb__Node *node; /* borrowed */
	bool away;
	bool behind;
	unsigned starting;
	/* Taken: */
	uint32_t memory_mib;
	uint32_t vcpus;
	unsigned vms;
};

struct room_held {
	const Tb__Vm *vm;
	size_t board;
};

struct room {
	struct room_board boards[LIMIT_NODES];
	size_t board_count;
	unsigned share; /* vCPUs for each core */
	unsigned starts; /* VMs that may begin on one board; 0: any number */
	bool drained_too; /* a drained board counts as any other */
	/* A VM may be held twice: where it is, and where it goes. Nobody asks whether it fits where
	 * it is held. */
	struct room_held held[2 * LIMIT_VMS];
	size_t held_count;
};

void room_init(struct room *r, const Tb__Node *const *nodes, size_t count);
/* The board's place in the room; board_count: it is not there. */
size_t room_find(const struct room *r, uint64_t node);
/* It goes there, and takes what its configuration says. */
void room_take(struct room *r, size_t board, const Tb__Vm *vm);
/* It is there, and has what its process may have: it was made smaller since, or was not. */
void room_hold(struct room *r, size_t board, const Tb__Vm *vm);
enum room_lack room_lacks(const struct room *r, size_t board, const Tb__Vm *vm);
/* What the board lacks for the VM (not ROOM_FITS), in a sentence with the arithmetic. */
void room_explain(const struct room *r, size_t board, const Tb__Vm *vm, enum room_lack lack,
		  char *ret_message, size_t message_size);
/* Memory of a VM, as its configuration says, and of its process. */
uint32_t room_memory_mib(const Tb__Vm *vm);
/* It has a disk that stays on its board. */
bool room_pins(const Tb__Vm *vm);
/* The board that it cannot leave without losing what its data disks hold; 0: none. They pin it from
 * when the model knows that one of them is made, which is before its guest first runs (hosting.h):
 * until then there is nothing to lose. Of a home that has no incarnation, one of before these were
 * kept, nobody can say so. */
uint64_t room_home(const Tb__Vm *vm);
/* And one of them has this id. */
bool room_has_data(const Tb__Vm *vm, const char *id);
/* "3 boards, 2 lack memory, 1 is drained"; counts of each lack, as many as there are boards. */
void room_describe(const unsigned counts[ROOM_LACKS], size_t boards, struct buf *out);
