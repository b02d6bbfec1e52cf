/* vm_faults.c: what befalls boards that host virtual machines, and what persons want of them. */
#include <string.h>

#include "tests/sim/world.h"

static struct board *any_board(struct world *w)
{
	return &w->board[1 + world_below(w, w->boards)];
}

void vm_world_init(struct world *w)
{
	w->vms = true;
	w->nodes = 0;
	w->boards = world_chance(w, 30) ? 5 : 3;
	for (unsigned i = 1; i <= w->boards; i++) {
		w->board[i].id = i;
		w->board[i].clock_offset_ms = 100000 + world_below(w, 100000);
		w->board[i].clock_rate = 995 + (unsigned)world_below(w, 11);
	}
	if (world_chance(w, 50))
		w->pinned = 1u << (1 + world_below(w, SIM_VMS));
	if (world_chance(w, 30))
		w->waits = 1u << (1 + world_below(w, SIM_VMS));
	if (w->pinned != 0 && world_chance(w, 40))
		w->small = 1u << any_board(w)->id;
	/* Nobody can help data disks that are on such a board. */
	if (w->pinned == 0 && world_chance(w, 50))
		w->full = 1u << any_board(w)->id;
	world_at(w, w->now_us + 6000000, (struct moment){.kind = MOMENT_VM_PERSON});
}

static struct board *leader_of(struct world *w)
{
	for (unsigned i = 1; i <= w->boards; i++) {
		struct board *b = &w->board[i];

		if (b->alive && b->fleet != NULL && b->raft.role == RAFT_LEADER &&
		    b->frozen_until_us <= w->now_us)
			return b;
	}
	return NULL;
}

/* A board with a process, if there is one. */
static struct board *any_host(struct world *w)
{
	unsigned first = (unsigned)world_below(w, w->boards);

	for (unsigned i = 0; i < w->boards; i++) {
		struct board *b = &w->board[1 + (first + i) % w->boards];

		for (unsigned p = 0; p < SIM_PROCESSES; p++)
			if (b->processes[p].id != 0)
				return b;
	}
	return any_board(w);
}

static void cut(struct world *w, struct board *b, bool on)
{
	world_note(w, "board %u: %s", b->id, on ? "cut off from the others" : "reached again");
	for (unsigned i = 1; i <= w->boards; i++) {
		w->board_cut[b->id][i] = on && i != b->id;
		w->board_cut[i][b->id] = on && i != b->id;
	}
}

/* The daemon is killed (its processes go on until their deadlines), or the power fails. */
static void crash(struct world *w, struct board *b, bool daemon_only)
{
	uint64_t away_us = daemon_only && world_chance(w, 70) ? 50000 + world_below(w, 2000000)
							      : 500000 + world_below(w, 15000000);

	if (!b->alive)
		return;
	world_note(w, "board %u: %s", b->id, daemon_only ? "daemon killed" : "power fails");
	board_crash(w, b, daemon_only);
	world_at(w, w->now_us + away_us, (struct moment){.kind = MOMENT_BOARD_BOOT, .a = b->id});
}

static void freeze(struct world *w, struct board *b, bool all)
{
	uint64_t until_us = w->now_us + 100000 + world_below(w, 9000000);

	world_note(w, "board %u: %s", b->id, all ? "stands still" : "daemon frozen");
	if (until_us > b->frozen_until_us)
		b->frozen_until_us = until_us;
	if (all && until_us > b->paused_until_us)
		b->paused_until_us = until_us;
}

/* The thread of the host hangs, and the rest of the daemon does not know at once. */
static void hang(struct world *w, struct board *b)
{
	world_note(w, "board %u: its host hangs", b->id);
	b->host_hung_until_us = w->now_us + 100000 + world_below(w, 12000000);
}

static void paths(struct world *w)
{
	struct board *a = any_board(w);
	struct board *b = any_board(w);

	if (world_chance(w, 50)) {
		world_note(w, "path of boards %u > %u cut", a->id, b->id);
		w->board_cut[a->id][b->id] = a != b;
		return;
	}
	world_note(w, "paths of boards healed");
	memset(w->board_cut, 0, sizeof(w->board_cut));
}

static void person(struct world *w)
{
	static const enum vm_verb verbs[] = {VM_START, VM_START,   VM_START, VM_STOP,
					     VM_MOVE,  VM_RESTART, VM_MOVE};
	struct board *b = leader_of(w);
	struct log_entry e = {.proposal = ++w->proposal};

	if (b == NULL)
		return;
	e.vm.verb = verbs[world_below(w, sizeof(verbs) / sizeof(verbs[0]))];
	e.vm.vm = 1 + (unsigned)world_below(w, SIM_VMS);
	e.vm.node = e.vm.verb == VM_MOVE ? any_board(w)->id : 0;
	e.vm.hard = world_chance(w, 30);
	e.vm.force = e.vm.verb == VM_MOVE && world_chance(w, 50);
	world_note(w, "a person: %u of vm%u, board %u", e.vm.verb, e.vm.vm, e.vm.node);
	raft_propose(w, b, e);
	board_tick(w, b);
}

/* A guest crashes or powers itself off. */
static void guest(struct world *w)
{
	struct board *b = any_host(w);

	for (unsigned i = 0; i < SIM_PROCESSES; i++) {
		if (b->processes[i].id == 0 || !b->processes[i].runs)
			continue;
		world_at(w, w->now_us,
			 (struct moment){.kind = MOMENT_VM_DIES,
					 .a = b->id,
					 .b = world_chance(w, 30),
					 .number = b->processes[i].id});
		return;
	}
}

static void drain(struct world *w)
{
	struct board *b = any_board(w);

	b->drained = !b->drained;
	b->drained_now = world_chance(w, 50);
	world_note(w, "board %u: %s", b->id, b->drained ? "drained" : "undrained");
}

/* Once in a world: those that are left are to have a majority of those that vote. */
static void remove_board(struct world *w)
{
	struct board *b = leader_of(w);
	struct log_entry e = {.proposal = ++w->proposal, .vm = {.verb = VM_BOARD_REMOVE}};

	if (b == NULL || w->removing)
		return;
	w->removing = true;
	e.vm.node = any_host(w)->id;
	world_note(w, "a person removes board %u", e.vm.node);
	raft_propose(w, b, e);
	board_tick(w, b);
}

/* The power fails, and the card comes back without data disks. */
void vm_card(struct world *w, struct board *b)
{
	if (!b->alive)
		return;
	world_note(w, "board %u: its data disks are lost", b->id);
	memset(b->files, 0, sizeof(b->files));
	crash(w, b, false);
}

/* Several things at once, each of which is likely to break what the others rely on. */
static void combined(struct world *w)
{
	struct board *host = any_host(w);
	struct board *leader = leader_of(w);

	switch (world_below(w, 4)) {
	case 0: /* leader and host go together */
		crash(w, host, world_chance(w, 50));
		if (leader != NULL)
			crash(w, leader, world_chance(w, 50));
		break;
	case 1: /* the majority */
		for (unsigned i = 0; i <= w->boards / 2; i++)
			crash(w, any_board(w), false);
		break;
	case 2: /* the host loses its lease, and is back about when it is over */
		cut(w, host, true);
		world_at(w, w->now_us + 2500000 + world_below(w, 1500000),
			 (struct moment){.kind = MOMENT_VM_PATHS});
		break;
	case 3: /* the leader is cut off and does not know; what it leads goes on */
		if (leader != NULL)
			cut(w, leader, true);
		world_at(w, w->now_us + 500000 + world_below(w, 6000000),
			 (struct moment){.kind = MOMENT_VM_PATHS});
		break;
	}
}

void vm_fault(struct world *w)
{
	switch (world_below(w, 15)) {
	case 0:
		crash(w, any_board(w), false);
		break;
	case 1:
		crash(w, any_host(w), true);
		break;
	case 2:
		freeze(w, any_host(w), world_chance(w, 40));
		break;
	case 3:
		cut(w, any_host(w), true);
		break;
	case 4:
		paths(w);
		break;
	case 5:
		drain(w);
		break;
	case 6:
		guest(w);
		break;
	case 7:
	case 8:
		combined(w);
		break;
	case 9:
		remove_board(w);
		break;
	case 10:
		vm_card(w, any_host(w));
		break;
	case 11:
		hang(w, any_host(w));
		break;
	default:
		person(w);
		break;
	}
}

void vm_heal(struct world *w)
{
	world_at(w, w->now_us + 12000000, (struct moment){.kind = MOMENT_VM_PERSON});
}
