/* One call is three walks over the VMs in the order of their priority.
 *
 *   settle: what each placement is at: where it stays, whether it may be left (released, or its
 *           board's lease over), whether its guest has ended
 *   place:  those that are nowhere, or may leave: the best board that fits, or why there is none
 *   clear:  those that are where they should not be (drained, failed, no images): told to leave, if
 *           another board has room
 *
 * What a command takes from a board's room counts for those after it, also where the VM only gets
 * there later: so two VMs are never sent where one fits. */
#include "cluster/scheduler.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/room.h"
#include "lib/buf.h"
#include "lib/mem.h"
#include "lib/text.h"

#ifdef TIEBREAK_SIM_FAULTS
enum scheduler_fault scheduler_fault;
#endif

/* How a placement may be left. */
enum leave {
	LEAVE_NOT,
	LEAVE_NOWHERE, /* it has none */
	LEAVE_RELEASED, /* its board says that it is gone */
	LEAVE_LOST, /* its board cannot act any more */
};

struct item {
	const struct scheduler_vm *sv;
	const Tb__Vm *vm;
	struct scheduler_verdict *verdict;
	size_t board; /* of its placement, in the view; board_count: none that is there */
	enum leave leave;
	bool leaving; /* told to leave, wanted elsewhere, not gone yet */
	bool beginning; /* on its way to run: those that start after it wait */
	bool waits; /* for images that its board does not have: that may last */
};

struct decider {
	const struct scheduler_view *view;
	uint64_t now_ms;
	size_t max;
	struct scheduler_plan *plan;
	struct room room;
	struct item *items; /* in the order of priority */
	bool lost[LIMIT_NODES];
	unsigned hosts;
	unsigned hosts_lost;
	unsigned held_back; /* by S8 */
	bool storm;
};

/* --- words and commands ---------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static void
verdict(struct item *it, Tb__VmCondition condition, const char *format, ...)
{
	va_list args;

	it->verdict->condition = condition;
	va_start(args, format);
	vsnprintf(it->verdict->reason, sizeof(it->verdict->reason), format, args);
	va_end(args);
}

static void due(struct decider *d, uint64_t at_ms)
{
	if (at_ms < d->plan->due_ms)
		d->plan->due_ms = at_ms;
}

/* False: no more in this call. */
static bool emit(struct decider *d, Tb__Command__OpCase op, void *message)
{
	struct scheduler_plan *p = d->plan;
	Tb__Command *command;

	if (p->count == d->max) {
		protobuf_c_message_free_unpacked(message, NULL);
		due(d, d->now_ms);
		return false;
	}
	command = mem_alloc(sizeof(*command));
	tb__command__init(command);
	command->op_case = op;
	command->vm_place = message; /* the members of the union are all pointers */
	p->commands = mem_realloc(p->commands, (p->count + 1) * sizeof(p->commands[0]));
	p->commands[p->count++] = command;
	return true;
}

static bool emit_place(struct decider *d, struct item *it, uint64_t node, const char *reason)
{
	Tb__VmPlace *op = mem_alloc(sizeof(*op));

	tb__vm_place__init(op);
	op->vm = it->vm->id;
	op->incarnation = it->vm->placement->incarnation;
	op->node = node;
	op->reason = mem_strdup(reason);
	if (!emit(d, TB__COMMAND__OP_VM_PLACE, op))
		return false;
	if (it->leave == LEAVE_LOST && it->board < d->view->board_count)
		d->plan->lost |= UINT64_C(1) << it->board;
	return true;
}

static bool emit_release(struct decider *d, struct item *it, bool failed, const char *reason)
{
	Tb__VmRelease *op = mem_alloc(sizeof(*op));

	tb__vm_release__init(op);
	op->vm = it->vm->id;
	op->incarnation = it->vm->placement->incarnation;
	op->hard = failed;
	op->failed = failed;
	op->reason = mem_strdup(reason);
	return emit(d, TB__COMMAND__OP_VM_RELEASE, op);
}

/* The model is to know that its data disks are made: it begins only then. */
static void emit_disks(struct decider *d, struct item *it)
{
	const Tb__VmReport *r = it->sv->report;
	Tb__VmSettle *op = mem_alloc(sizeof(*op));

	tb__vm_settle__init(op);
	op->vm = it->vm->id;
	op->incarnation = it->vm->placement->incarnation;
	op->home_disks = mem_array(r->n_home_disks, sizeof(*op->home_disks));
	for (size_t i = 0; i < r->n_home_disks; i++)
		op->home_disks[op->n_home_disks++] = mem_strdup(r->home_disks[i]);
	emit(d, TB__COMMAND__OP_VM_SETTLE, op);
}

static bool disks_new(const Tb__Vm *vm, const Tb__VmReport *r)
{
	const Tb__VmPlacement *p = vm->placement;

	if (p->home != p->node)
		return false;
	for (size_t i = 0; i < r->n_home_disks; i++)
		if (room_has_data(vm, r->home_disks[i]) &&
		    !text_among(r->home_disks[i], p->home_disks, p->n_home_disks))
			return true;
	return false;
}

static void emit_settle(struct decider *d, struct item *it, bool ended, const char *reason)
{
	Tb__VmSettle *op = mem_alloc(sizeof(*op));

	tb__vm_settle__init(op);
	op->vm = it->vm->id;
	op->incarnation = it->vm->placement->incarnation;
	op->well = !ended;
	op->ended = ended;
	op->reason = mem_strdup(reason);
	emit(d, TB__COMMAND__OP_VM_SETTLE, op);
}

static const char *board_name(const struct decider *d, const struct item *it)
{
	return it->board < d->view->board_count ? d->view->boards[it->board].node->name
						: "its board";
}

/* --- settle ---------------------------------------------------------------------------------- */

/* From when on no VM of a board runs that may act until `end_ms`. */
static uint64_t vms_gone(uint64_t end_ms)
{
	return end_ms + (SCHEDULER_FAULTY(SCHEDULER_FAULT_PUNCTUAL) ? 0 : SCHEDULER_MARGIN_MS);
}

static bool is_lost(const struct decider *d, const struct scheduler_board *b)
{
	if (b->reachable)
		return false;
	return d->now_ms >= vms_gone(b->end_ms) || SCHEDULER_FAULTY(SCHEDULER_FAULT_NO_MARGIN);
}

static bool has_images(const struct item *it, size_t board)
{
	return (it->sv->images >> board & 1) != 0;
}

static bool begins(const struct item *it)
{
	const Tb__VmReport *r = it->sv->report;

	return r == NULL || r->condition == TB__VM_CONDITION__VM_CONDITION_PREPARING ||
	       r->condition == TB__VM_CONDITION__VM_CONDITION_STARTING;
}

/* Its board is gone from the model. */
static void settle_removed(struct decider *d, struct item *it)
{
	uint64_t gone_ms = vms_gone(d->view->gone_end_ms);

	if (d->now_ms >= gone_ms || SCHEDULER_FAULTY(SCHEDULER_FAULT_GONE_IS_DEAD)) {
		it->leave = LEAVE_LOST;
		return;
	}
	due(d, gone_ms);
	verdict(it, TB__VM_CONDITION__VM_CONDITION_UNKNOWN,
		"its board was removed from the cluster; it may still run there for %" PRIu64 " ms",
		gone_ms - d->now_ms);
}

static void settle_away(struct decider *d, struct item *it)
{
	const struct scheduler_board *b = &d->view->boards[it->board];
	const Tb__Vm *vm = it->vm;

	if (!is_lost(d, b)) {
		due(d, vms_gone(b->end_ms));
		verdict(it, TB__VM_CONDITION__VM_CONDITION_UNKNOWN,
			"%s %s; it may still run there for %" PRIu64 " ms", b->node->name,
			b->stands ? "has hung as a host of virtual machines" : "does not answer",
			vms_gone(b->end_ms) - d->now_ms);
		return;
	}
	if (!vm->placement->releasing && vm->running &&
	    vm->config->loss == TB__VM_LOSS__VM_LOSS_WAIT) {
		verdict(it, TB__VM_CONDITION__VM_CONDITION_UNPLACED,
			"%s is lost, and the VM waits for that board, as it is set to",
			b->node->name);
		it->verdict->stuck = true;
		return;
	}
	it->leave = LEAVE_LOST;
}

static void settle_releasing(struct decider *d, struct item *it)
{
	const Tb__VmReport *r = it->sv->report;
	const Tb__VmPlacement *p = it->vm->placement;

	if ((r != NULL && r->condition == TB__VM_CONDITION__VM_CONDITION_RELEASED) ||
	    SCHEDULER_FAULTY(SCHEDULER_FAULT_NO_RELEASE)) {
		it->leave = LEAVE_RELEASED;
		return;
	}
	it->leaving = it->vm->running;
	verdict(it, TB__VM_CONDITION__VM_CONDITION_STOPPING, "%s ends it%s%s", board_name(d, it),
		p->reason[0] != '\0' ? ": " : "", p->reason);
}

/* Does no other board that answers hold what it would need there? */
static bool is_alone(const struct decider *d, const struct item *it)
{
	return d->view->board_count > 1 && (it->sv->images & ~(UINT64_C(1) << it->board)) == 0;
}

static void settle_report(struct decider *d, struct item *it, const Tb__VmReport *r)
{
	const char *board = board_name(d, it);
	bool problem = r->problem[0] != '\0';

	switch (r->condition) {
	case TB__VM_CONDITION__VM_CONDITION_RUNNING:
		verdict(it, r->condition, "it runs on %s%s", board,
			is_alone(d, it)
				? "; no other board that answers holds all of its images whole"
				: "");
		return;
	case TB__VM_CONDITION__VM_CONDITION_BACKING_OFF:
		verdict(it, r->condition, "it failed on %s, which tries again%s%s", board,
			problem ? ": " : "", r->problem);
		return;
	case TB__VM_CONDITION__VM_CONDITION_FAILED:
		verdict(it, r->condition, "it failed on %s%s%s", board, problem ? ": " : "",
			r->problem);
		return;
	case TB__VM_CONDITION__VM_CONDITION_ENDED:
		verdict(it, r->condition, "its guest powered off on %s", board);
		return;
	default:
		it->waits = r->waits && !has_images(it, it->board);
		it->beginning = begins(it) && !(it->waits && r->lasts_ms >= SCHEDULER_IMAGES_MS);
		if (it->waits && it->beginning)
			due(d, d->now_ms + SCHEDULER_IMAGES_MS - r->lasts_ms);
		verdict(it, r->condition, "%s %s it%s%s", board,
			r->condition == TB__VM_CONDITION__VM_CONDITION_STARTING ? "starts"
			: begins(it)						? "prepares"
										: "has",
			problem ? ": " : "", r->problem);
		return;
	}
}

/* It is where it is to be, and its board is there. */
static void settle_there(struct decider *d, struct item *it)
{
	const Tb__VmReport *r = it->sv->report;
	const Tb__VmPlacement *p = it->vm->placement;
	bool ended = r != NULL && (r->condition == TB__VM_CONDITION__VM_CONDITION_ENDED ||
				   (r->condition == TB__VM_CONDITION__VM_CONDITION_FAILED &&
				    it->vm->config->restart == TB__VM_RESTART__VM_RESTART_NEVER));

	if (r == NULL) {
		it->beginning = true;
		if (d->view->boards[it->board].reported)
			verdict(it, TB__VM_CONDITION__VM_CONDITION_PREPARING, "%s is to run it",
				board_name(d, it));
		else
			verdict(it, TB__VM_CONDITION__VM_CONDITION_UNKNOWN,
				"%s has not said yet how it is", board_name(d, it));
		return;
	}
	settle_report(d, it, r);
	if (disks_new(it->vm, r))
		emit_disks(d, it);
	else if (ended)
		emit_settle(d, it, true,
			    r->condition == TB__VM_CONDITION__VM_CONDITION_ENDED
				    ? "its guest powered off"
				    : r->problem);
	else if (r->condition == TB__VM_CONDITION__VM_CONDITION_RUNNING &&
		 (p->moves != 0 || p->avoid != 0)) {
		if (r->well_ms >= SCHEDULER_WELL_MS)
			emit_settle(d, it, false, "");
		else
			due(d, d->now_ms + SCHEDULER_WELL_MS - r->well_ms);
	}
}

static void settle(struct decider *d, struct item *it)
{
	const Tb__VmPlacement *p = it->vm->placement;

	if (p->node == 0)
		it->leave = LEAVE_NOWHERE;
	else if (it->board == d->view->board_count)
		settle_removed(d, it);
	else if (!d->view->boards[it->board].reachable)
		settle_away(d, it);
	else if (p->releasing)
		settle_releasing(d, it);
	else
		settle_there(d, it);
	if (it->leave == LEAVE_NOT && it->board < d->view->board_count) {
		room_hold(&d->room, it->board, it->vm);
		/* One that waits keeps its board from nothing. */
		d->room.boards[it->board].starting += it->beginning && !it->waits;
	}
}

/* --- place ----------------------------------------------------------------------------------- */

static size_t prefer_rank(const Tb__Vm *vm, const char *name)
{
	size_t i = 0;

	while (i < vm->config->n_prefer && strcmp(vm->config->prefer[i], name) != 0)
		i++;
	return i;
}

/* One that fails goes round: by any other order it would go to and fro between the best two, and
 * never come to the board on which it may run. The smaller, the sooner. */
static uint64_t board_turn(const Tb__VmPlacement *p, uint64_t node)
{
	return p->moves == 0 ? 0 : node - p->avoid; /* modulo 2^64: behind the last the first */
}

/* Whether board `a` is the better one. In this order: the one a person has asked for; not the one
 * on which it has just failed; one that has its images; the next one in turn; as preferred; the one
 * with the smaller part of its memory taken; fewer VMs. */
static bool board_better(const struct decider *d, const struct item *it, size_t a, size_t b)
{
	const struct room_board *one = &d->room.boards[a];
	const struct room_board *two = &d->room.boards[b];
	const Tb__VmPlacement *p = it->vm->placement;
	uint64_t one_taken = (uint64_t)one->memory_mib * two->node->host->memory_mib;
	uint64_t two_taken = (uint64_t)two->memory_mib * one->node->host->memory_mib;
	uint64_t one_turn = board_turn(p, one->node->id);
	uint64_t two_turn = board_turn(p, two->node->id);
	const int order[][2] = {
		{one->node->id == p->target, two->node->id == p->target},
		{one->node->id != p->avoid, two->node->id != p->avoid},
		{has_images(it, a), has_images(it, b)},
		{one_turn < two_turn, two_turn < one_turn},
		{-(int)prefer_rank(it->vm, one->node->name),
		 -(int)prefer_rank(it->vm, two->node->name)},
		{one_taken < two_taken, two_taken < one_taken},
		{one->vms < two->vms, two->vms < one->vms},
	};

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		if (order[i][0] != order[i][1])
			return order[i][0] > order[i][1];
	return false;
}

/* Board `busy` starts others: is it worth waiting for, although `other` fits? A person has asked
 * for it, or it has the images: its start is a matter of seconds, and nobody knows how long a copy
 * takes, or whether it ever comes. Or it failed on the other one, which it would have left only to
 * come back, and be given up with this one never tried. */
static bool worth_waiting(const struct decider *d, const struct item *it, size_t busy, size_t other)
{
	bool asked = d->room.boards[busy].node->id == it->vm->placement->target;
	bool failed = d->room.boards[other].node->id == it->vm->placement->avoid;

	return (asked || failed || (has_images(it, busy) && !has_images(it, other))) &&
	       board_better(d, it, busy, other);
}

struct choice {
	size_t board; /* the best that fits; board_count: none, or it is to wait for `busy` */
	size_t busy; /* the best that would, but starts others; board_count: none */
	unsigned counts[ROOM_LACKS];
	enum room_lack asked; /* what the board that a person asked for lacks */
};

/* `except`: a board that is no choice; board_count: none. */
static void choose(const struct decider *d, const struct item *it, size_t except,
		   struct choice *ret)
{
	size_t none = d->view->board_count;

	*ret = (struct choice){.board = none, .busy = none, .asked = ROOM_FITS};
	for (size_t i = 0; i < d->room.board_count; i++) {
		enum room_lack lack = room_lacks(&d->room, i, it->vm);
		size_t *best = lack == ROOM_FITS ? &ret->board : &ret->busy;

		if (i == except)
			continue;
		ret->counts[lack]++;
		if (d->room.boards[i].node->id == it->vm->placement->target)
			ret->asked = lack;
		if ((lack == ROOM_FITS || lack == ROOM_BUSY) &&
		    (*best == none || board_better(d, it, i, *best)))
			*best = i;
	}
	if (ret->board != none && ret->busy != none && worth_waiting(d, it, ret->busy, ret->board))
		ret->board = none;
}

/* Is anything on its way that is to start before it? */
static const struct item *starts_before(const struct decider *d, const struct item *it)
{
	for (const struct item *other = d->items; other < it; other++)
		if (other->beginning && other->vm->config->priority == it->vm->config->priority &&
		    other->vm->config->start_order < it->vm->config->start_order)
			return other;
	return NULL;
}

/* It would fit if processors were shared. */
static bool storm_holds(struct decider *d, const struct item *it)
{
	struct choice choice;

	if (!d->storm)
		return false;
	d->room.share = SCHEDULER_SHARE;
	choose(d, it, d->view->board_count, &choice);
	d->room.share = 1;
	return choice.board < d->view->board_count || choice.busy < d->view->board_count;
}

/* Nothing fits. What has been released need not be held by its old board any more. */
static void place_nowhere(struct decider *d, struct item *it, const struct choice *choice)
{
	struct buf boards = {0};

	it->verdict->stuck = true;
	if (storm_holds(d, it)) {
		d->held_back++;
		verdict(it, TB__VM_CONDITION__VM_CONDITION_UNPLACED,
			"held back: %u of %u boards were lost within %d minutes, and it would have "
			"to share the processors of the others",
			d->hosts_lost, d->hosts, SCHEDULER_STORM_MS / 60000);
	} else {
		room_describe(choice->counts, d->room.board_count, &boards);
		verdict(it, TB__VM_CONDITION__VM_CONDITION_UNPLACED, "not placed: %s",
			buf_string(&boards));
	}
	buf_free(&boards);
	if (it->leave == LEAVE_RELEASED)
		emit_place(d, it, 0, it->verdict->reason);
}

static void reason_describe(const struct decider *d, const struct item *it,
			    const struct choice *choice, struct buf *out)
{
	const Tb__VmPlacement *p = it->vm->placement;
	bool known = it->board < d->view->board_count;

	if (it->leave == LEAVE_LOST && known && d->view->boards[it->board].stands)
		buf_printf(out, "%s has hung as a host of virtual machines", board_name(d, it));
	else if (it->leave == LEAVE_LOST)
		buf_printf(out, "%s is lost", known ? board_name(d, it) : "its old board");
	else if (it->leave == LEAVE_RELEASED && p->reason[0] != '\0')
		buf_puts(out, p->reason);
	else
		buf_puts(out, "it is to run");
	if (p->target != 0 && choice->asked != ROOM_FITS)
		buf_puts(out, "; the board that was asked for cannot take it now");
}

static void place_there(struct decider *d, struct item *it, const struct choice *choice)
{
	const struct room_board *b = &d->room.boards[choice->board];
	struct buf text = {0};
	char *reason;

	reason_describe(d, it, choice, &text);
	reason = mem_strdup(buf_string(&text));
	text_tame(reason, LIMIT_MESSAGE);
	buf_free(&text);
	emit_place(d, it, b->node->id, reason);
	verdict(it, TB__VM_CONDITION__VM_CONDITION_UNPLACED, "it goes to %.64s: %.100s",
		b->node->name, reason);
	free(reason);
	room_take(&d->room, choice->board, it->vm);
	d->room.boards[choice->board].starting++;
}

static void place_wanted(struct decider *d, struct item *it)
{
	const struct item *first = starts_before(d, it);
	struct choice choice;

	choose(d, it, d->view->board_count, &choice);
	if (choice.board == d->view->board_count && choice.busy == d->view->board_count) {
		place_nowhere(d, it, &choice);
		return;
	}
	/* From here on it is only a matter of time: those after it wait, and leave it the room. */
	it->beginning = true;
	if (!it->sv->images_there) {
		it->beginning = false;
		it->verdict->stuck = true;
		verdict(it, TB__VM_CONDITION__VM_CONDITION_UNPLACED,
			"not placed: no board that answers holds all of its images whole");
	} else if (first != NULL) {
		verdict(it, TB__VM_CONDITION__VM_CONDITION_UNPLACED,
			"it waits for %s, which starts before it", first->vm->name);
	} else if (choice.board == d->view->board_count) {
		verdict(it, TB__VM_CONDITION__VM_CONDITION_UNPLACED,
			"it is next: %s starts others at the moment",
			d->room.boards[choice.busy].node->name);
	} else {
		place_there(d, it, &choice);
		return;
	}
	room_take(&d->room, choice.board < d->view->board_count ? choice.board : choice.busy,
		  it->vm);
}

/* Room for one that is still on its way out of its board. */
static void place_leaving(struct decider *d, struct item *it)
{
	unsigned starts = d->room.starts;
	struct choice choice;

	/* A restart by a person: where it is, it has its room. */
	if (it->vm->placement->target == it->vm->placement->node)
		return;
	d->room.starts = 0;
	choose(d, it, it->board, &choice);
	d->room.starts = starts;
	if (choice.board < d->view->board_count)
		room_take(&d->room, choice.board, it->vm);
}

static void place(struct decider *d, struct item *it)
{
	if (it->leaving) {
		place_leaving(d, it);
	} else if (it->leave == LEAVE_NOT) {
		return;
	} else if (it->vm->running) {
		place_wanted(d, it);
	} else {
		verdict(it, TB__VM_CONDITION__VM_CONDITION_STOPPED, "it is stopped");
		if (it->leave != LEAVE_NOWHERE)
			emit_place(d, it, 0, it->vm->placement->reason);
	}
}

/* --- clear ----------------------------------------------------------------------------------- */

/* Boards, other than its own, that could have it if they were empty. */
static unsigned other_candidates(const struct decider *d, const struct item *it)
{
	struct room *empty = mem_alloc(sizeof(*empty));
	const Tb__Node *nodes[LIMIT_NODES];
	unsigned count = 0;

	for (size_t i = 0; i < d->room.board_count; i++)
		nodes[i] = d->room.boards[i].node;
	room_init(empty, nodes, d->room.board_count);
	for (size_t i = 0; i < empty->board_count; i++)
		count += i != it->board && room_lacks(empty, i, it->vm) == ROOM_FITS;
	free(empty);
	return count;
}

/* Another board with room for it and with its images: what runs, or may run where it is, is not
 * ended to wait for a copy. board_count: none, and its words. */
static size_t other_board(struct decider *d, struct item *it, struct buf *ret_lacks)
{
	struct choice choice;
	unsigned starts = d->room.starts;

	d->room.starts = 0;
	choose(d, it, it->board, &choice);
	d->room.starts = starts;
	if (choice.board == d->view->board_count)
		room_describe(choice.counts,
			      d->room.board_count - (it->board < d->room.board_count), ret_lacks);
	if (choice.board == d->view->board_count || has_images(it, choice.board))
		return choice.board;
	buf_printf(ret_lacks, "%s does not have its images",
		   d->room.boards[choice.board].node->name);
	return d->view->board_count;
}

/* It stays where it has failed, in the hope that what made it fail passes. False: it has stayed
 * long enough. */
static bool failed_stays(struct decider *d, struct item *it)
{
	const Tb__VmReport *r = it->sv->report;

	if (r->lasts_ms >= SCHEDULER_AGAIN_MS)
		return false;
	due(d, d->now_ms + SCHEDULER_AGAIN_MS - r->lasts_ms);
	it->verdict->stuck = true;
	return true;
}

static void failed_again(struct decider *d, struct item *it, bool failed)
{
	const Tb__VmReport *r = it->sv->report;
	char reason[LIMIT_MESSAGE + 1];

	snprintf(reason, sizeof(reason), "it is tried again%s%s", r->problem[0] != '\0' ? ": " : "",
		 r->problem);
	text_tame(reason, LIMIT_MESSAGE);
	emit_release(d, it, failed, reason);
}

static void clear_failed_everywhere(struct decider *d, struct item *it)
{
	const Tb__VmReport *r = it->sv->report;

	if (!failed_stays(d, it))
		failed_again(d, it, true);
	else
		verdict(it, TB__VM_CONDITION__VM_CONDITION_FAILED,
			"it failed on every board that it may be on, and is tried again after %d "
			"minutes, or at once by a person's start; on %s last%s%s",
			SCHEDULER_AGAIN_MS / 60000, board_name(d, it),
			r->problem[0] != '\0' ? ": " : "", r->problem);
}

/* On every board in its turn, and then on all of them again. */
static void clear_failed(struct decider *d, struct item *it)
{
	unsigned others = other_candidates(d, it);
	struct buf lacks = {0};
	size_t board;

	if (it->vm->placement->moves % (others + 1) >= others) {
		clear_failed_everywhere(d, it);
		return;
	}
	board = other_board(d, it, &lacks);
	if (board < d->view->board_count) {
		if (emit_release(d, it, true, it->sv->report->problem))
			room_take(&d->room, board, it->vm);
	} else if (!failed_stays(d, it)) {
		failed_again(d, it, false);
	} else {
		verdict(it, TB__VM_CONDITION__VM_CONDITION_FAILED,
			"it failed on %s, is tried again after %d minutes, and no other board can "
			"take it: %s",
			board_name(d, it), SCHEDULER_AGAIN_MS / 60000, buf_string(&lacks));
	}
	buf_free(&lacks);
}

/* It may have come from a board that is drained: what begins on one has not. */
static bool arrives(const struct decider *d, const struct item *it)
{
	if (!it->beginning || (it->leave == LEAVE_NOT &&
			       d->view->boards[it->board].node->drain != TB__DRAIN__DRAIN_OFF))
		return false;
	return it->sv->report == NULL || it->sv->report->problem[0] == '\0';
}

/* A gentle drain moves one VM at a time: is one on its way already? */
static bool drain_busy(const struct decider *d, size_t board)
{
	for (size_t i = 0; i < d->view->vm_count; i++) {
		const struct item *it = &d->items[i];

		if ((it->leaving && it->board == board) || arrives(d, it))
			return true;
	}
	return false;
}

/* Not with what its board says: how far a copy has come is no news. */
static void waits_in_vain(const struct decider *d, struct item *it, struct buf *lacks)
{
	verdict(it, it->verdict->condition,
		"it waits on %s for its images (see witnessctl image show), and no other board can "
		"take it: %s",
		board_name(d, it), buf_string(lacks));
	it->verdict->stuck = true;
}

static void clear_drained(struct decider *d, struct item *it)
{
	const Tb__Node *node = d->view->boards[it->board].node;
	bool now = node->drain == TB__DRAIN__DRAIN_NOW;
	char reason[LIMIT_MESSAGE + 1];
	struct buf lacks = {0};
	size_t board = other_board(d, it, &lacks);

	snprintf(reason, sizeof(reason), "%s is drained", node->name);
	if (board == d->view->board_count && !now) {
		verdict(it, it->verdict->condition,
			"it stays on %s, which is drained: no other board can take it: %s",
			node->name, buf_string(&lacks));
		if (it->waits && !it->beginning)
			waits_in_vain(d, it, &lacks);
	} else if (!now && drain_busy(d, it->board)) {
		verdict(it, it->verdict->condition,
			"it is to leave %s, which is drained, after the others before it",
			node->name);
	} else if (emit_release(d, it, false, reason)) {
		it->leaving = true;
		if (board < d->view->board_count)
			room_take(&d->room, board, it->vm);
	}
	buf_free(&lacks);
}

/* It does not run, and goes where it can. Not to where it has just failed: from there it would come
 * back here. */
static void clear_waiting(struct decider *d, struct item *it)
{
	char reason[LIMIT_MESSAGE + 1];
	struct buf lacks = {0};
	size_t board;

	if (it->beginning)
		return;
	board = other_board(d, it, &lacks);
	if (board < d->view->board_count && board_better(d, it, board, it->board)) {
		snprintf(reason, sizeof(reason), "%s does not get its images", board_name(d, it));
		if (emit_release(d, it, false, reason))
			room_take(&d->room, board, it->vm);
	} else {
		if (board < d->view->board_count)
			buf_printf(&lacks, "it has just failed on %s",
				   d->room.boards[board].node->name);
		waits_in_vain(d, it, &lacks);
	}
	buf_free(&lacks);
}

static void clear(struct decider *d, struct item *it)
{
	const Tb__VmReport *r = it->sv->report;

	if (it->leave != LEAVE_NOT || it->leaving || it->vm->placement->releasing ||
	    it->board == d->view->board_count || !d->view->boards[it->board].reachable)
		return;
	if (!it->vm->running)
		emit_release(d, it, false, "it is not wanted");
	else if (r != NULL && r->condition == TB__VM_CONDITION__VM_CONDITION_FAILED) {
		if (it->vm->config->restart != TB__VM_RESTART__VM_RESTART_NEVER)
			clear_failed(d, it);
	} else if (d->view->boards[it->board].node->drain != TB__DRAIN__DRAIN_OFF &&
		   (r == NULL || r->condition != TB__VM_CONDITION__VM_CONDITION_ENDED)) {
		clear_drained(d, it);
	} else if (it->waits) {
		clear_waiting(d, it);
	}
}

/* --- a call ---------------------------------------------------------------------------------- */

static int item_order(const void *one, const void *two)
{
	const Tb__Vm *a = ((const struct item *)one)->vm;
	const Tb__Vm *b = ((const struct item *)two)->vm;

	if (a->config->priority != b->config->priority)
		return a->config->priority > b->config->priority ? -1 : 1;
	if (a->config->start_order != b->config->start_order)
		return a->config->start_order < b->config->start_order ? -1 : 1;
	return a->id < b->id ? -1 : a->id > b->id;
}

/* Does a storm have it? A new leader does not know how long a board has been away, and takes it for
 * lost now. */
static bool is_missed(const struct decider *d, const struct scheduler_board *b)
{
	return b->node->drain == TB__DRAIN__DRAIN_OFF && is_lost(d, b) &&
	       d->now_ms < b->end_ms + SCHEDULER_STORM_MS;
}

static void decider_boards(struct decider *d)
{
	const struct scheduler_view *view = d->view;
	const Tb__Node *nodes[LIMIT_NODES];
	uint64_t fewer_ms = UINT64_MAX; /* one board less is missed then */

	for (size_t i = 0; i < view->board_count; i++)
		nodes[i] = view->boards[i].node;
	room_init(&d->room, nodes, view->board_count);
	d->room.starts = SCHEDULER_STARTS;
	for (size_t i = 0; i < view->board_count; i++) {
		const struct scheduler_board *b = &view->boards[i];

		d->room.boards[i].away = !b->reachable;
		d->room.boards[i].behind = b->behind_ms >= SCHEDULER_BEHIND_MS;
		if (b->node->host == NULL || !b->node->host->hosts)
			continue;
		d->hosts++;
		if (is_missed(d, b)) {
			d->hosts_lost++;
			if (b->end_ms + SCHEDULER_STORM_MS < fewer_ms)
				fewer_ms = b->end_ms + SCHEDULER_STORM_MS;
		}
	}
	d->storm = d->hosts_lost > 1 && d->hosts_lost * 3 > d->hosts;
	if (d->storm) {
		d->room.share = 1;
		due(d, fewer_ms);
	}
}

static void decider_items(struct decider *d)
{
	d->items = mem_array(d->view->vm_count, sizeof(d->items[0]));
	for (size_t i = 0; i < d->view->vm_count; i++) {
		const Tb__Vm *vm = d->view->vms[i].vm;

		d->items[i] = (struct item){
			.sv = &d->view->vms[i],
			.vm = vm,
			.verdict = &d->plan->verdicts[i],
			.board = vm->placement->node != 0 ? room_find(&d->room, vm->placement->node)
							  : d->view->board_count,
		};
	}
	qsort(d->items, d->view->vm_count, sizeof(d->items[0]), item_order);
}

/* VM `except` (0: none) is placed nowhere, and no room is kept for it. */
static struct decider *decider_run(const struct scheduler_view *view, uint64_t now_ms, size_t max,
				   uint64_t except, struct scheduler_plan *ret)
{
	struct decider *d = mem_zalloc(sizeof(*d));

	*ret = (struct scheduler_plan){.due_ms = UINT64_MAX};
	ret->verdicts = mem_array(view->vm_count, sizeof(ret->verdicts[0]));
	memset(ret->verdicts, 0, view->vm_count * sizeof(ret->verdicts[0]));
	d->view = view;
	d->now_ms = now_ms;
	d->max = max;
	d->plan = ret;
	decider_boards(d);
	decider_items(d);
	for (size_t i = 0; i < view->vm_count; i++)
		settle(d, &d->items[i]);
	for (size_t i = 0; i < view->vm_count; i++)
		if (d->items[i].vm->id != except)
			place(d, &d->items[i]);
	for (size_t i = 0; i < view->vm_count; i++)
		clear(d, &d->items[i]);
	return d;
}

static void decider_free(struct decider *d)
{
	free(d->items);
	free(d);
}

void scheduler_decide(const struct scheduler_view *view, uint64_t now_ms, size_t max,
		      struct scheduler_plan *ret)
{
	struct decider *d = decider_run(view, now_ms, max, 0, ret);

	if (d->held_back > 0)
		snprintf(ret->storm, sizeof(ret->storm),
			 "%u of %u hosting boards were lost within %d minutes: virtual machines "
			 "are restarted only where no processor has to be shared, and %u wait%s",
			 d->hosts_lost, d->hosts, SCHEDULER_STORM_MS / 60000, d->held_back,
			 d->held_back == 1 ? "s" : "");
	decider_free(d);
}

static int moves_there(const struct decider *d, const struct item *it, size_t board,
		       char *ret_message, size_t message_size)
{
	enum room_lack lack = room_lacks(&d->room, board, it->vm);

	if (lack != ROOM_FITS)
		room_explain(&d->room, board, it->vm, lack, ret_message, message_size);
	else if (!has_images(it, board))
		snprintf(ret_message, message_size,
			 "%s does not have its images; see witnessctl image show",
			 d->room.boards[board].node->name);
	else
		return 0;
	return -EINVAL;
}

static int moves_anywhere(struct decider *d, struct item *it, char *ret_message,
			  size_t message_size)
{
	struct buf lacks = {0};
	int rv = other_board(d, it, &lacks) < d->view->board_count ? 0 : -EINVAL;

	if (rv != 0)
		snprintf(ret_message, message_size, "%s", buf_string(&lacks));
	buf_free(&lacks);
	return rv;
}

int scheduler_moves(const struct scheduler_view *view, size_t vm, uint64_t node, uint64_t now_ms,
		    char *ret_message, size_t message_size)
{
	const struct scheduler_vm *sv = &view->vms[vm];
	Tb__VmPlacement placement = *sv->vm->placement;
	Tb__Vm row = *sv->vm;
	struct item it = {.sv = sv, .vm = &row};
	struct scheduler_plan plan;
	struct decider *d;
	size_t board;
	int rv;

	/* As the command makes it (apply_vm.c). */
	placement.home = 0;
	placement.target = node;
	placement.avoid = placement.node;
	row.placement = &placement;
	d = decider_run(view, now_ms, 0, row.id, &plan);
	d->room.starts = 0;
	it.board = room_find(&d->room, placement.node);
	board = room_find(&d->room, node);
	if (node == 0)
		rv = moves_anywhere(d, &it, ret_message, message_size);
	else if (board == view->board_count || board == it.board)
		rv = 0; /* what is to be said of that is said elsewhere (apply_vm.c) */
	else
		rv = moves_there(d, &it, board, ret_message, message_size);
	decider_free(d);
	scheduler_plan_free(&plan);
	return rv;
}

void scheduler_plan_free(struct scheduler_plan *p)
{
	for (size_t i = 0; i < p->count; i++)
		tb__command__free_unpacked(p->commands[i], NULL);
	free(p->commands);
	free(p->verdicts);
	*p = (struct scheduler_plan){0};
}
