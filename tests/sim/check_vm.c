/* check_vm.c: what must hold for virtual machines, seen from outside: processes and clocks, nothing
 * of what the boards believe. */
#include "tests/sim/world.h"

enum {
	LATE_US = 101 * 1000, /* within so long of its deadline a process is gone (hv/lease.h) */
	RESUME_US = 2000, /* a board that stood still sees to its timers first */
};

static bool acts(const struct world *w, const struct board *b, const struct vm_process *p)
{
	return p->id != 0 && w->now_us >= b->paused_until_us + RESUME_US;
}

/* S3: at no instant two processes of a VM, wherever. */
static void check_once(struct world *w)
{
	const struct board *first[SIM_VMS + 1] = {0};

	for (unsigned i = 1; i <= w->boards; i++) {
		const struct board *b = &w->board[i];

		for (unsigned k = 0; k < SIM_PROCESSES; k++) {
			const struct vm_process *p = &b->processes[k];

			if (!acts(w, b, p))
				continue;
			if (first[p->vm] != NULL) {
				world_problem(w, "S3: vm%u runs twice, on boards %u and %u", p->vm,
					      first[p->vm]->id, i);
				return;
			}
			first[p->vm] = b;
		}
	}
}

/* S2: no process is there past its deadline, nor past the last lease of its board. */
static void check_leases(struct world *w)
{
	for (unsigned i = 1; i <= w->boards; i++) {
		const struct board *b = &w->board[i];

		for (unsigned k = 0; k < SIM_PROCESSES; k++) {
			const struct vm_process *p = &b->processes[k];

			if (!acts(w, b, p) ||
			    (w->now_us <= board_when_us(b, p->deadline_ms) + LATE_US &&
			     w->now_us <= board_when_us(b, b->lease_max_ms) + LATE_US))
				continue;
			world_problem(w, "S2: vm%u runs on board %u past its lease", p->vm, i);
			return;
		}
	}
}

void check_vm_moment(struct world *w)
{
	check_once(w);
	check_leases(w);
}

/* A VM's data are what its last process had, until a person has given them up: never an older
 * file, never an empty one in the place of one that there was. */
static void check_file(struct world *w, const struct board *b, const struct vm_process *p)
{
	struct vm_file *last = &w->file[p->vm];

	if (p->file.number == 0)
		return;
	if (p->file.home < last->home ||
	    (p->file.home > last->home && last->home > w->given_up[p->vm]) ||
	    (p->file.home == last->home && p->file.number != last->number))
		world_problem(
			w,
			"S3: vm%u starts on board %u with disk %llu of incarnation %llu after "
			"disk %llu of incarnation %llu",
			p->vm, b->id, (unsigned long long)p->file.number,
			(unsigned long long)p->file.home, (unsigned long long)last->number,
			(unsigned long long)last->home);
	*last = p->file;
}

/* What the disk says: an older incarnation than one that has opened it may not. */
void check_vm_started(struct world *w, const struct board *b, const struct vm_process *p)
{
	if (p->incarnation < w->incarnation[p->vm])
		world_problem(w, "S3: vm%u starts in incarnation %llu on board %u after %llu",
			      p->vm, (unsigned long long)p->incarnation, b->id,
			      (unsigned long long)w->incarnation[p->vm]);
	if (p->incarnation > w->incarnation[p->vm])
		w->incarnation[p->vm] = p->incarnation;
	check_file(w, b, p);
}

/* Long after all has healed, and persons wanted all of them to run, each does. */
void check_vm_alive(struct world *w)
{
	for (unsigned vm = 1; vm <= SIM_VMS; vm++) {
		unsigned running = 0;

		for (unsigned i = 1; i <= w->boards; i++)
			for (unsigned k = 0; k < SIM_PROCESSES; k++)
				running += w->board[i].processes[k].id != 0 &&
					   w->board[i].processes[k].vm == vm &&
					   w->board[i].processes[k].runs;
		if (running != 1)
			world_problem(w, "alive: vm%u runs %u times long after all has healed", vm,
				      running);
	}
}
