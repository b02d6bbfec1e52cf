/* vm_board.c: a board as a host of virtual machines, and the scheduler while it leads. What is
 * around cluster/hosting and cluster/scheduler is a model of the daemon's (witnessd/host.c,
 * lead_vms.c, core_host.c), and of the commands on a VM (cluster/apply_vm.c).
 *
 * The daemon may be frozen or die while its processes go on, each until the deadline that it was
 * last told; that is the board's kernel's business, on the board's clock. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/room.h"
#include "lib/mem.h"
#include "tests/sim/world.h"

enum {
	VMS_BATCH = 3,
	MEMORY_MIB = 1000,
	VM_MIB = 200,
	BACKOFF_MS = 500,
	ATTEMPTS = 2,
	KILL_LATE_US = 100 * 1000, /* hv/lease.h: gone within 100 ms */
};

bool vm_fault_no_withhold;
bool vm_fault_stale_disk;
bool vm_fault_every_grant;

static char disk_id[] = "data";

static bool vm_pinned(const struct world *w, unsigned vm)
{
	return (w->pinned >> vm & 1) != 0;
}

/* --- rows as messages ------------------------------------------------------------------------ */

struct vm_message {
	Tb__Vm vm;
	Tb__VmConfig config;
	Tb__VmPlacement placement;
	Tb__VmDisk disk;
	Tb__VmDisk *disks[1];
	char *home_disks[1];
	char name[8];
};

static void message_make(const struct world *w, const struct vm_row *r, unsigned vm,
			 struct vm_message *m)
{
	tb__vm__init(&m->vm);
	tb__vm_config__init(&m->config);
	tb__vm_placement__init(&m->placement);
	tb__vm_disk__init(&m->disk);
	snprintf(m->name, sizeof(m->name), "vm%u", vm);
	m->vm.id = vm;
	m->vm.name = m->name;
	m->vm.running = r->running;
	m->vm.config = &m->config;
	m->vm.placement = &m->placement;
	m->config.vcpus = 1;
	m->config.memory_mib = VM_MIB;
	m->config.restart_attempts = ATTEMPTS;
	m->config.restart_backoff_ms = BACKOFF_MS;
	m->config.priority = vm;
	if ((w->waits >> vm & 1) != 0)
		m->config.loss = TB__VM_LOSS__VM_LOSS_WAIT;
	if (vm_pinned(w, vm)) {
		m->disk.kind = TB__DISK_KIND__DISK_KIND_DATA;
		m->disk.id = disk_id;
		m->disks[0] = &m->disk;
		m->config.disks = m->disks;
		m->config.n_disks = 1;
	}
	m->placement.node = r->node;
	m->placement.incarnation = r->incarnation;
	m->placement.releasing = r->releasing;
	m->placement.hard = r->hard;
	m->placement.target = r->target;
	m->placement.avoid = r->avoid;
	m->placement.home = r->home;
	m->placement.home_incarnation = r->home_incarnation;
	m->home_disks[0] = disk_id;
	m->placement.home_disks = m->home_disks;
	m->placement.n_home_disks = r->home_disk;
	m->placement.moves = r->moves;
}

/* --- the model: what cluster/apply_vm.c does ------------------------------------------------- */

static void row_release(struct vm_row *r, bool hard)
{
	r->releasing = true;
	r->hard |= hard;
}

static void row_run(struct vm_row *r, const struct vm_op *op)
{
	if (op->verb == VM_START) {
		r->moves = r->running ? r->moves : 0;
		r->running = true;
		return;
	}
	if (op->verb == VM_RESTART && !r->running)
		return;
	if (op->verb == VM_STOP) {
		r->running = false;
		r->target = 0;
	} else {
		r->moves = 0;
		r->avoid = 0;
		if (!r->releasing)
			r->target = r->node;
	}
	if (r->node != 0)
		row_release(r, op->hard);
}

static void row_home(struct vm_row *r, unsigned node)
{
	r->home = node;
	r->home_incarnation = node != 0 ? r->incarnation : 0;
	r->home_disk = false;
}

/* The board that it cannot leave without losing what its data disk holds. */
static unsigned row_bound(const struct world *w, const struct vm_row *r, unsigned vm)
{
	struct vm_message m;

	message_make(w, r, vm, &m);
	return (unsigned)room_home(&m.vm);
}

static void row_move(struct world *w, struct vm_row *r, const struct vm_op *op)
{
	unsigned home = row_bound(w, r, op->vm);

	if (op->node == r->node || (home != 0 && home != op->node && !op->force))
		return;
	if (home != 0 && home != op->node) {
		if (w->given_up[op->vm] < r->home_incarnation)
			w->given_up[op->vm] = r->home_incarnation;
		row_home(r, 0);
	}
	r->target = op->node;
	if (r->node != 0)
		row_release(r, false);
}

static void row_place(const struct world *w, unsigned removed, struct vm_row *r,
		      const struct vm_op *op)
{
	unsigned home = row_bound(w, r, op->vm);

	if (op->node != 0 &&
	    (!r->running || (removed >> op->node & 1) != 0 || (home != 0 && home != op->node)))
		return;
	if (op->node != 0) {
		r->incarnation++;
		r->target = 0;
		if (vm_pinned(w, op->vm) && r->home != op->node)
			row_home(r, op->node);
	}
	r->node = op->node;
	r->releasing = false;
	r->hard = false;
}

static void row_apply(struct world *w, unsigned removed, struct vm_row *r, const struct vm_op *op)
{
	bool stale = op->incarnation != r->incarnation;

	switch (op->verb) {
	case VM_START:
	case VM_STOP:
	case VM_RESTART:
		row_run(r, op);
		break;
	case VM_MOVE:
		row_move(w, r, op);
		break;
	case VM_PLACE:
		if (!stale)
			row_place(w, removed, r, op);
		break;
	case VM_RELEASE:
		if (stale || r->node == 0)
			break;
		if (op->failed && !r->releasing) {
			r->moves++;
			r->avoid = r->node;
		}
		row_release(r, op->hard);
		break;
	case VM_SETTLE:
		if (stale || r->node == 0 || r->releasing)
			break;
		if (op->disk) {
			r->home_disk |= r->home == r->node && (removed >> r->node & 1) == 0;
			break;
		}
		if (op->well)
			r->moves = r->avoid = 0;
		if (op->ended) {
			r->running = false;
			row_release(r, true);
		}
		break;
	default:
		break;
	}
}

/* Not one that has data disks. */
static void board_remove(struct world *w, struct board *b, unsigned board)
{
	for (unsigned vm = 1; vm <= SIM_VMS; vm++)
		if (row_bound(w, &b->vms[vm], vm) == board)
			return;
	world_note(w, "board %u: board %u is removed", b->id, board);
	b->removed |= 1u << board;
	/* It is a member of raft for a while yet. */
	if (b->fleet != NULL)
		b->members_us = w->now_us + world_below(w, 3000000);
}

void vm_applied(struct world *w, struct board *b, const struct log_entry *e)
{
	b->vm_changed = true;
	if (e->vm.verb == VM_BOARD_REMOVE) {
		board_remove(w, b, e->vm.node);
		return;
	}
	row_apply(w, b->removed, &b->vms[e->vm.vm], &e->vm);
	if (b->fleet == NULL || e->term != b->fleet_term || e->vm.verb < VM_PLACE)
		return;
	/* Our own: one decision at a time. */
	b->vm_on_way--;
	if (b->vm_on_way == 0)
		b->withheld = 0;
}

/* --- the card's: data disks (witnessd/vm_disk.c) -----------------------------------------------
 */

struct vm_file *vm_file_find(const struct board *b, struct board *card, unsigned vm)
{
	for (unsigned i = 0; i < SIM_DISKS; i++) {
		struct vm_file *f = &card->files[i];

		if (f->number != 0 && f->vm == vm &&
		    (f->home == b->vms[vm].home_incarnation || vm_fault_stale_disk))
			return f;
	}
	return NULL;
}

static void file_make(struct world *w, struct board *b, unsigned vm)
{
	struct vm_file *oldest = &b->files[0];

	for (unsigned i = 1; i < SIM_DISKS; i++)
		if (b->files[i].number < oldest->number)
			oldest = &b->files[i];
	*oldest = (struct vm_file){
		.number = ++w->files, .vm = vm, .home = b->vms[vm].home_incarnation};
}

static bool disks_prepare(struct world *w, struct board *b, unsigned vm, uint64_t incarnation)
{
	const struct vm_row *r = &b->vms[vm];

	if (!vm_pinned(w, vm))
		return true;
	if (r->node != b->id || r->incarnation != incarnation || r->home != b->id)
		return false;
	if (vm_file_find(b, b, vm) != NULL)
		return true;
	if (r->home_disk)
		return false; /* it is missing */
	if ((w->small >> b->id & 1) != 0)
		return false;
	file_make(w, b, vm);
	return true;
}

/* --- the kernel's: processes ----------------------------------------------------------------- */

static struct vm_process *process_find(struct board *b, uint64_t id)
{
	for (unsigned i = 0; i < SIM_PROCESSES; i++)
		if (b->processes[i].id == id)
			return &b->processes[i];
	return NULL;
}

/* That of this daemon. */
static struct vm_process *process_of(struct board *b, unsigned vm, uint64_t incarnation)
{
	for (unsigned i = 0; i < SIM_PROCESSES; i++) {
		struct vm_process *p = &b->processes[i];

		if (p->id != 0 && p->vm == vm && p->incarnation == incarnation &&
		    p->daemon == b->boot)
			return p;
	}
	return NULL;
}

static void tell_gone(struct world *w, struct board *b, const struct vm_process *p, bool off)
{
	world_at(w, w->now_us + world_below(w, 20000),
		 (struct moment){.kind = MOMENT_VM_GONE,
				 .a = b->id,
				 .b = p->vm,
				 .number = p->incarnation,
				 .ring = {off, p->daemon}});
}

static void process_die(struct world *w, struct board *b, struct vm_process *p, bool off,
			const char *why)
{
	world_note(w, "board %u: vm%u.%llu is gone: %s", b->id, p->vm,
		   (unsigned long long)p->incarnation, why);
	tell_gone(w, b, p, off);
	*p = (struct vm_process){0};
}

static void process_watch(struct world *w, struct board *b, const struct vm_process *p)
{
	world_at(w, board_when_us(b, p->deadline_ms) + world_below(w, KILL_LATE_US),
		 (struct moment){.kind = MOMENT_VM_DEADLINE, .a = b->id, .number = p->id});
}

static void process_start(struct world *w, struct board *b, const struct hosting_action *a)
{
	struct vm_process *p = process_find(b, 0);
	struct vm_process refused = {
		.vm = (unsigned)a->vm, .incarnation = a->incarnation, .daemon = b->boot};

	bool pinned = vm_pinned(w, (unsigned)a->vm);
	const struct vm_file *file = pinned ? vm_file_find(b, b, (unsigned)a->vm) : NULL;

	if (clock_of_board(w, b) >= a->deadline_ms || p == NULL || (pinned && file == NULL)) {
		tell_gone(w, b, &refused, false);
		return;
	}
	*p = (struct vm_process){
		.id = ++w->processes,
		.vm = (unsigned)a->vm,
		.incarnation = a->incarnation,
		.deadline_ms = a->deadline_ms,
		.daemon = b->boot,
	};
	if (file != NULL)
		p->file = *file;
	world_note(w, "board %u: vm%u.%llu starts, disk %llu", b->id, p->vm,
		   (unsigned long long)p->incarnation, (unsigned long long)p->file.number);
	process_watch(w, b, p);
	world_at(w, w->now_us + 50000 + world_below(w, 1500000),
		 (struct moment){.kind = MOMENT_VM_RUNS, .a = b->id, .number = p->id});
	check_vm_started(w, b, p);
	/* The worst moment for a new disk to go. */
	if (file != NULL && !w->calm && world_chance(w, 10))
		world_at(w, w->now_us + world_below(w, 20000),
			 (struct moment){.kind = MOMENT_VM_CARD, .a = b->id});
}

/* Too late is too late. */
static void process_renew(struct world *w, struct board *b, const struct hosting_action *a)
{
	struct vm_process *p = process_of(b, (unsigned)a->vm, a->incarnation);

	if (p == NULL || clock_of_board(w, b) >= p->deadline_ms)
		return;
	p->deadline_ms = a->deadline_ms;
	hosting_renewed(b->hosting, a->vm, a->incarnation, a->deadline_ms, clock_of_board(w, b));
	process_watch(w, b, p);
}

static void process_end_soon(struct world *w, struct board *b, const struct hosting_action *a,
			     bool button)
{
	const struct vm_process *p = process_of(b, (unsigned)a->vm, a->incarnation);
	uint64_t after_us = button ? 100000 + world_below(w, 5000000) : world_below(w, 50000);

	/* Not every guest listens to its button. */
	if (p == NULL || (button && !w->calm && world_chance(w, 20)))
		return;
	world_at(w, w->now_us + after_us,
		 (struct moment){.kind = MOMENT_VM_DIES, .a = b->id, .b = button, .number = p->id});
}

/* --- the daemon's: the host ------------------------------------------------------------------- */

static void host_prepare(struct world *w, struct board *b, const struct hosting_action *a)
{
	if ((w->full >> b->id & 1) != 0)
		return; /* it waits for images */
	world_at(w, w->now_us + 10000 + world_below(w, 800000),
		 (struct moment){.kind = MOMENT_VM_PREPARED,
				 .a = b->id,
				 .b = (unsigned)a->vm,
				 .number = a->incarnation,
				 .ring = {0, b->boot}});
}

static void host_act(struct world *w, struct board *b)
{
	struct hosting_action a;

	while (hosting_next(b->hosting, &a)) {
		switch (a.verb) {
		case HOSTING_PREPARE:
			host_prepare(w, b, &a);
			break;
		case HOSTING_START:
			process_start(w, b, &a);
			break;
		case HOSTING_RENEW:
			process_renew(w, b, &a);
			break;
		case HOSTING_BUTTON:
		case HOSTING_KILL:
			process_end_soon(w, b, &a, a.verb == HOSTING_BUTTON);
			break;
		case HOSTING_DISCARD:
			break;
		}
	}
}

static void report_keep(struct world *w, struct board *b, unsigned host, Tb__HostReport *report)
{
	if (b->hosts[host].report != NULL)
		tb__host_report__free_unpacked(b->hosts[host].report, NULL);
	b->hosts[host].report = report;
	b->hosts[host].heard_ms = clock_of_board(w, b);
	b->vm_changed = true;
}

static void host_report(struct world *w, struct board *b)
{
	Tb__HostReport *report;
	struct parcel *p;

	if (b->fleet == NULL && b->link == 0)
		return; /* whoever leads next is told whole */
	b->host_owes = b->host_hung_until_us > w->now_us;
	if (b->host_owes)
		return;
	report = mem_alloc(sizeof(*report));
	tb__host_report__init(report);
	report->n_vms = hosting_report(b->hosting, &report->vms, clock_of_board(w, b));
	for (size_t i = 0; i < report->n_vms; i++)
		report->vms[i]->waits =
			(w->full >> b->id & 1) != 0 &&
			report->vms[i]->condition == TB__VM_CONDITION__VM_CONDITION_PREPARING;
	if (b->fleet != NULL) {
		report_keep(w, b, b->id, report);
		return;
	}
	p = parcel_new(LINK_REPORT);
	p->report = report;
	pipe_send(w, b->link, true, p);
}

/* After whatever the hosting was told. */
static void host_settle(struct world *w, struct board *b)
{
	b->host_due_ms = hosting_tick(b->hosting, clock_of_board(w, b));
	host_act(w, b);
	if (hosting_changed(b->hosting) || b->host_owes)
		host_report(w, b);
}

static void host_model(struct world *w, struct board *b)
{
	struct vm_message rows[SIM_VMS];
	const Tb__Vm *vms[SIM_VMS];
	size_t count = 0;

	if (b->host_applied == b->raft.applied)
		return;
	b->host_applied = b->raft.applied;
	for (unsigned vm = 1; vm <= SIM_VMS; vm++) {
		if (b->vms[vm].node != b->id)
			continue;
		message_make(w, &b->vms[vm], vm, &rows[count]);
		vms[count] = &rows[count].vm;
		count++;
	}
	hosting_model(b->hosting, b->raft.applied, vms, count, clock_of_board(w, b));
}

static void host_lease(struct world *w, struct board *b)
{
	uint64_t until = board_lease(w, b);
	uint64_t now = clock_of_board(w, b);

	if (until > b->host_granted_ms)
		until = b->host_granted_ms;
	if (until > b->lease_max_ms)
		b->lease_max_ms = until;
	hosting_fence(b->hosting, b->fence, now);
	hosting_lease(b->hosting, now < until ? until : 0, now);
}

void vm_boot(struct world *w, struct board *b)
{
	memset(b->vms, 0, sizeof(b->vms));
	b->removed = 0;
	b->hosting = hosting_new(b->id, clock_of_board(w, b));
	b->fence = UINT64_MAX;
	b->host_applied = 0;
	b->host_due_ms = UINT64_MAX;
	b->host_hung_until_us = 0;
	b->host_told_ms = b->host_asked_ms = b->host_granted_ms = 0;
	b->host_stands = b->host_owes = false;
	vm_deposed(b);
}

void vm_crash(struct world *w, struct board *b, bool kept)
{
	(void)w;
	hosting_free(b->hosting);
	b->hosting = NULL;
	vm_deposed(b);
	if (kept)
		return;
	memset(b->processes, 0, sizeof(b->processes));
	b->lease_max_ms = 0;
}

/* --- the daemon's: links and leadership ------------------------------------------------------ */

void vm_led(struct world *w, struct board *b)
{
	vm_deposed(b);
	b->fence = b->raft.applied;
	b->vm_changed = true;
	host_report(w, b);
}

void vm_deposed(struct board *b)
{
	for (unsigned i = 1; i <= SIM_BOARDS; i++)
		vm_forget(b, i);
	b->fence = UINT64_MAX;
	b->vm_on_way = 0;
	b->vm_due_ms = UINT64_MAX;
	b->withheld = 0;
	b->standing = 0;
}

void vm_linked(struct world *w, struct board *b)
{
	host_report(w, b);
}

void vm_link_lost(struct board *b)
{
	b->fence = UINT64_MAX;
}

void vm_forget(struct board *b, unsigned host)
{
	if (b->hosts[host].report != NULL)
		tb__host_report__free_unpacked(b->hosts[host].report, NULL);
	b->hosts[host].report = NULL;
	b->vm_changed = true;
}

void vm_granted(struct board *b, uint64_t until_ms, bool vms, uint64_t now_ms, uint64_t applied)
{
	if (!vms && !vm_fault_every_grant)
		return;
	if (now_ms >= b->host_granted_ms || b->fence == UINT64_MAX)
		b->fence = applied;
	if (until_ms > b->host_granted_ms)
		b->host_granted_ms = until_ms;
}

bool vm_renewed(struct board *b, unsigned board, bool turns)
{
	unsigned standing = turns ? b->standing & ~(1u << board) : b->standing | 1u << board;

	b->vm_changed |= standing != b->standing;
	b->standing = standing;
	return turns && !vm_withholds(b, board);
}

void vm_reported(struct world *w, struct board *b, unsigned host, struct parcel *p)
{
	report_keep(w, b, host, p->report);
	p->report = NULL;
}

/* --- the scheduler ---------------------------------------------------------------------------- */

struct view {
	struct scheduler_view view;
	struct scheduler_board boards[SIM_BOARDS];
	Tb__Node nodes[SIM_BOARDS];
	Tb__NodeHost hosts[SIM_BOARDS];
	char names[SIM_BOARDS][8];
	struct scheduler_vm vms[SIM_VMS];
	struct vm_message rows[SIM_VMS];
	Tb__VmReport reports[SIM_VMS];
};

static bool renews(const struct board *b, unsigned node, uint64_t now)
{
	for (unsigned i = 0; i < LIMIT_NODES; i++) {
		const struct lease_member *m = &b->leases.members[i];

		if (m->node == node)
			return m->renewed_ms != 0 && now - m->renewed_ms < LEASE_LENGTH_MS;
	}
	return false;
}

static unsigned who_answers(struct world *w, struct board *b)
{
	unsigned links = vm_links_up(w, b);
	uint64_t now = clock_of_board(w, b);

	for (unsigned i = 1; i <= w->boards; i++)
		if (i != b->id && !renews(b, i, now))
			links &= ~(1u << i);
	return links & ~b->standing;
}

static void view_report(const struct board *b, struct view *v, unsigned vm, uint64_t now)
{
	const struct vm_row *r = &b->vms[vm];
	const Tb__HostReport *host = r->node != 0 ? b->hosts[r->node].report : NULL;

	if ((b->standing >> r->node & 1) != 0)
		return;
	for (size_t i = 0; host != NULL && i < host->n_vms; i++) {
		if (host->vms[i]->vm != vm || host->vms[i]->incarnation != r->incarnation)
			continue;
		v->reports[vm - 1] = *host->vms[i];
		v->reports[vm - 1].well_ms += now - b->hosts[r->node].heard_ms;
		v->reports[vm - 1].lasts_ms += now - b->hosts[r->node].heard_ms;
		v->vms[vm - 1].report = &v->reports[vm - 1];
	}
}

static uint64_t vms_end(const struct board *b, unsigned node)
{
	uint64_t end_ms = lease_table_vms_end(&b->leases, node);

	return node == b->id && b->host_granted_ms > end_ms ? b->host_granted_ms : end_ms;
}

static void view_make(struct world *w, struct board *b, unsigned answers, struct view *v)
{
	uint64_t now = clock_of_board(w, b);
	uint64_t images = 0;

	memset(v, 0, sizeof(*v));
	for (unsigned i = 1; i <= w->boards; i++) {
		Tb__Node *node = &v->nodes[i - 1];
		Tb__NodeHost *host = &v->hosts[i - 1];

		if ((b->removed >> i & 1) != 0)
			continue;

		tb__node__init(node);
		tb__node_host__init(host);
		snprintf(v->names[i - 1], sizeof(v->names[i - 1]), "b%u", i);
		host->hosts = true;
		host->vcpus = 4;
		host->memory_mib = MEMORY_MIB;
		node->id = i;
		node->name = v->names[i - 1];
		node->host = host;
		node->drain = !w->board[i].drained	? TB__DRAIN__DRAIN_OFF
			      : w->board[i].drained_now ? TB__DRAIN__DRAIN_NOW
							: TB__DRAIN__DRAIN_GENTLE;
		/* Boards that answer and have said so. */
		if ((answers >> i & 1) != 0 && b->hosts[i].report != NULL &&
		    (w->full >> i & 1) == 0)
			images |= UINT64_C(1) << v->view.board_count;
		v->boards[v->view.board_count++] = (struct scheduler_board){
			.node = node,
			.reachable = (answers >> i & 1) != 0,
			.reported = b->hosts[i].report != NULL,
			.end_ms = vms_end(b, i),
		};
	}
	for (unsigned vm = 1; vm <= SIM_VMS; vm++) {
		message_make(w, &b->vms[vm], vm, &v->rows[vm - 1]);
		v->vms[vm - 1] = (struct scheduler_vm){
			.vm = &v->rows[vm - 1].vm, .images = images, .images_there = images != 0};
		view_report(b, v, vm, now);
	}
	v->view.boards = v->boards;
	v->view.vms = v->vms;
	v->view.vm_count = SIM_VMS;
	v->view.gone_end_ms = lease_table_end(&b->leases, 0);
	for (unsigned i = 1; i <= w->boards; i++)
		if ((b->removed >> i & 1) != 0 &&
		    lease_table_end(&b->leases, i) > v->view.gone_end_ms)
			v->view.gone_end_ms = lease_table_end(&b->leases, i);
}

static struct vm_op op_of(const Tb__Command *c)
{
	switch (c->op_case) {
	case TB__COMMAND__OP_VM_PLACE:
		return (struct vm_op){.verb = VM_PLACE,
				      .vm = (unsigned)c->vm_place->vm,
				      .incarnation = c->vm_place->incarnation,
				      .node = (unsigned)c->vm_place->node};
	case TB__COMMAND__OP_VM_RELEASE:
		return (struct vm_op){.verb = VM_RELEASE,
				      .vm = (unsigned)c->vm_release->vm,
				      .incarnation = c->vm_release->incarnation,
				      .hard = c->vm_release->hard,
				      .failed = c->vm_release->failed};
	default:
		return (struct vm_op){.verb = VM_SETTLE,
				      .disk = c->vm_settle->n_home_disks > 0,
				      .vm = (unsigned)c->vm_settle->vm,
				      .incarnation = c->vm_settle->incarnation,
				      .well = c->vm_settle->well,
				      .ended = c->vm_settle->ended};
	}
}

static void lead_decide(struct world *w, struct board *b)
{
	static const char *const verbs[] = {
		[VM_PLACE] = "place", [VM_RELEASE] = "release", [VM_SETTLE] = "settle"};
	struct scheduler_plan plan;
	struct view v;

	b->vm_changed = false;
	view_make(w, b, b->vm_links, &v);
	scheduler_decide(&v.view, clock_of_board(w, b), VMS_BATCH, &plan);
	b->vm_due_ms = plan.due_ms;
	b->vm_on_way = (unsigned)plan.count;
	b->withheld = 0;
	for (size_t i = 0; i < v.view.board_count; i++)
		if ((plan.lost >> i & 1) != 0)
			b->withheld |= 1u << v.boards[i].node->id;
	for (size_t i = 0; i < plan.count; i++) {
		struct log_entry e = {.proposal = ++w->proposal, .vm = op_of(plan.commands[i])};

		world_note(w, "board %u: %s vm%u.%llu, board %u", b->id, verbs[e.vm.verb], e.vm.vm,
			   (unsigned long long)e.vm.incarnation, e.vm.node);
		raft_propose(w, b, e);
	}
	scheduler_plan_free(&plan);
}

bool vm_withholds(const struct board *b, unsigned board)
{
	return (b->withheld >> board & 1) != 0 && !vm_fault_no_withhold;
}

bool vm_removed(const struct board *b, unsigned board)
{
	return (b->removed >> board & 1) != 0;
}

static void lead_vms(struct world *w, struct board *b)
{
	unsigned answers = who_answers(w, b);

	if ((b->removed >> b->id & 1) != 0) {
		raft_step_down(w, b); /* it hands over */
		return;
	}
	if (b->members_us != 0 && w->now_us >= b->members_us) {
		b->members_us = 0;
		board_members(w, b);
	}

	if (answers != b->vm_links)
		b->vm_changed = true;
	b->vm_links = answers;
	if (b->vm_on_way == 0 && (b->vm_changed || clock_of_board(w, b) >= b->vm_due_ms))
		lead_decide(w, b);
}

/* The core: does the host take what it is told? If this board leads, its own lease is for its VMs
 * like a grant. */
static void core_host(struct world *w, struct board *b, bool hangs)
{
	uint64_t now = clock_of_board(w, b);
	uint64_t own;

	if (!hangs)
		b->host_told_ms = 0;
	else if (b->host_told_ms == 0)
		b->host_told_ms = now;
	b->host_stands = lease_stands(b->host_told_ms, b->host_asked_ms, now);
	b->host_asked_ms = now;
	if (b->fleet == NULL)
		return;
	own = lease_table_self_until(&b->leases, now);
	if (own > now)
		vm_granted(b, own, vm_renewed(b, b->id, !b->host_stands), now, b->raft.applied);
}

void vm_tick(struct world *w, struct board *b)
{
	bool hangs = b->host_hung_until_us > w->now_us;

	core_host(w, b, hangs);
	if (hangs) {
		b->host_due_ms = UINT64_MAX;
	} else {
		host_model(w, b);
		host_lease(w, b);
		host_settle(w, b);
	}
	if (b->fleet != NULL)
		lead_vms(w, b);
}

uint64_t vm_due_ms(const struct board *b)
{
	bool leads = b->fleet != NULL && b->vm_on_way == 0;

	return leads && b->vm_due_ms < b->host_due_ms ? b->vm_due_ms : b->host_due_ms;
}

/* --- moments ---------------------------------------------------------------------------------- */

static void moment_kernel(struct world *w, struct board *b, const struct moment *m)
{
	struct vm_process *p = process_find(b, m->number);

	if (p == NULL || m->number == 0)
		return;
	if (m->kind == MOMENT_VM_DEADLINE) {
		if (clock_of_board(w, b) >= p->deadline_ms)
			process_die(w, b, p, false, "its deadline");
	} else {
		process_die(w, b, p, m->b != 0, m->b != 0 ? "powered off" : "killed");
	}
}

/* News for the daemon whose process or preparation it was. */
static void moment_daemon(struct world *w, struct board *b, const struct moment *m)
{
	uint64_t now = clock_of_board(w, b);
	struct vm_process *p;

	if (!b->alive)
		return;
	switch (m->kind) {
	case MOMENT_VM_RUNS:
		p = process_find(b, m->number);
		if (p == NULL || p->daemon != b->boot)
			return;
		p->runs = true;
		hosting_process(b->hosting, p->vm, p->incarnation, HOSTING_RUNS, NULL, now);
		break;
	case MOMENT_VM_PREPARED:
		if (m->ring.seq != b->boot)
			return;
		hosting_process(
			b->hosting, m->b, m->number,
			(!w->calm && world_chance(w, 3)) || !disks_prepare(w, b, m->b, m->number)
				? HOSTING_NOT_PREPARED
				: HOSTING_PREPARED,
			"no room", now);
		break;
	default:
		if (m->ring.seq != b->boot)
			return;
		hosting_process(b->hosting, m->b, m->number,
				m->ring.node != 0 ? HOSTING_OFF : HOSTING_FAILED, "gone", now);
		break;
	}
	board_tick(w, b);
}

/* A disk that is missing for good is given up by a person. */
static void disk_give_up(struct world *w, struct board *b, unsigned vm)
{
	const struct vm_row *r = &b->vms[vm];

	if (!vm_pinned(w, vm) || !r->home_disk || vm_file_find(b, &w->board[r->home], vm) != NULL)
		return;
	raft_propose(w, b,
		     (struct log_entry){.proposal = ++w->proposal,
					.vm = {.verb = VM_MOVE,
					       .vm = vm,
					       .node = r->home % w->boards + 1,
					       .force = true}});
}

/* Persons want all of them, whatever became of them. */
static void moment_person(struct world *w, const struct moment *m)
{
	for (unsigned i = 1; i <= w->boards; i++) {
		struct board *b = &w->board[i];

		if (!b->alive || b->fleet == NULL || b->raft.role != RAFT_LEADER)
			continue;
		for (unsigned vm = 1; vm <= SIM_VMS; vm++) {
			raft_propose(w, b,
				     (struct log_entry){.proposal = ++w->proposal,
							.vm = {.verb = VM_START, .vm = vm}});
			raft_propose(w, b,
				     (struct log_entry){.proposal = ++w->proposal,
							.vm = {.verb = VM_RESTART, .vm = vm}});
			disk_give_up(w, b, vm);
		}
		board_tick(w, b);
		return;
	}
	world_at(w, w->now_us + 1000000, *m);
}

void vm_moment(struct world *w, const struct moment *m)
{
	struct board *b = &w->board[m->a];

	if (m->kind == MOMENT_VM_PERSON) {
		moment_person(w, m);
		return;
	}
	if (m->kind == MOMENT_VM_PATHS) {
		world_note(w, "paths of boards healed");
		memset(w->board_cut, 0, sizeof(w->board_cut));
		return;
	}
	if (m->kind == MOMENT_VM_CARD) {
		vm_card(w, b);
		return;
	}
	if (b->paused_until_us > w->now_us) {
		world_at(w, b->paused_until_us, *m);
		return;
	}
	if (m->kind == MOMENT_VM_DEADLINE || m->kind == MOMENT_VM_DIES)
		moment_kernel(w, b, m);
	else if (b->frozen_until_us > w->now_us)
		world_at(w, b->frozen_until_us, *m);
	else if (b->alive && b->host_hung_until_us > w->now_us)
		world_at(w, b->host_hung_until_us, *m);
	else
		moment_daemon(w, b, m);
}
