/* lead_vms.c: the scheduler's hands (cluster/scheduler.h). It builds the view (model, leases,
 * reports of the hosts), asks what is to be done, and proposes that, one batch at a time: so
 * nothing is decided again while the last decision is on its way.
 *
 * A board whose lease is over may come back in the moment between the decision that it has lost its
 * VMs and the entry that says so. With a lease it would start them by a model that still has them
 * there. So its VMs are granted none until the entry is applied (`withheld`). If it is not certain
 * what became of the entry, until a later one is: raft's log has an order. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/check.h"
#include "cluster/scheduler.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "witnessd/core_internal.h"
#include "witnessd/query.h"

enum {
	VMS_BATCH = 64, /* commands in one entry */
	VMS_REACH_MS = LEASE_RENEW_MS, /* who answers is looked at again */
	VMS_STUCK_MS = 5000, /* after so long it is told in the event log */
};

/* Since when a VM is in its condition. */
struct vm_since {
	uint64_t vm;
	Tb__VmCondition condition;
	int64_t since_ms;
	uint64_t stuck_ms; /* boot clock: stuck since then; 0: it is not */
	char told[LIMIT_MESSAGE + 1]; /* why, as the event log has it */
};

struct lead_vms {
	bool changed; /* since the last decision */
	bool on_way; /* a batch */
	uint64_t due_ms; /* of the last plan */
	uint64_t reach_ms; /* boot clock: the next look at who answers */
	uint64_t reached; /* bit i: member i of the lease table answers */
	uint64_t behind; /* and does not keep up with the log */
	uint64_t withheld[LIMIT_NODES]; /* boards; 0: free */
	bool uncertain; /* what became of the last batch */
	uint64_t retry_ms; /* boot clock: nothing is proposed before, since the log refused */
	char storm[LIMIT_MESSAGE + 1]; /* as it was last told */
	struct vm_since since[LIMIT_VMS];
	size_t since_count;
};

void lead_vms_start(struct core *c)
{
	c->vms = mem_zalloc(sizeof(*c->vms));
	c->vms->changed = true;
}

void lead_vms_stop(struct core *c)
{
	free(c->vms);
	c->vms = NULL;
}

void lead_vms_changed(struct core *c)
{
	if (c->vms != NULL)
		c->vms->changed = true;
}

/* --- the view -------------------------------------------------------------------------------- */

struct vms_view {
	struct core *c;
	uint64_t now_ms;
	struct scheduler_view view;
	struct scheduler_board boards[LIMIT_NODES];
	Tb__Node *nodes[LIMIT_NODES];
	const Tb__HostReport *hosts[LIMIT_NODES]; /* by board; NULL: none */
	uint64_t heard_ms[LIMIT_NODES];
	struct scheduler_vm vms[LIMIT_VMS];
	Tb__Vm *rows[LIMIT_VMS];
	Tb__VmReport reports[LIMIT_VMS]; /* shallow, with its durations as of now */
};

/* Its own clock has no rate of another one. */
static uint64_t vms_end(const struct core *c, uint64_t node)
{
	uint64_t end_ms = lease_table_vms_end(&c->leases, node);

	return node == c->identity.node_id && c->host_granted_ms > end_ms ? c->host_granted_ms
									  : end_ms;
}

static int view_node(void *arg, const Tb__Node *row)
{
	struct vms_view *v = arg;
	struct core *c = v->c;
	size_t i = v->view.board_count;
	bool self = row->id == c->identity.node_id;
	bool stands = lead_host_stands(c, row->id);

	if (i == LIMIT_NODES)
		return 1;
	v->nodes[i] = (Tb__Node *)message_copy(&row->base);
	/* What it has said of its VMs is true no more. */
	v->hosts[i] = stands ? NULL : core_host_report_of(c, row->id);
	for (unsigned h = 0; h < LIMIT_NODES; h++)
		if (c->hosts[h].node == row->id)
			v->heard_ms[i] = c->hosts[h].heard_ms;
	v->boards[i] = (struct scheduler_board){
		.node = v->nodes[i],
		.reachable = !stands && (self || (peer_find(c, row->id) != NULL &&
						  lead_reaches(c, row->id, v->now_ms))),
		.stands = stands,
		.behind_ms = lead_lag_ms(c, row->id),
		.reported = v->hosts[i] != NULL,
		.end_ms = vms_end(c, row->id),
	};
	v->view.board_count++;
	return 0;
}

/* Boards that are no longer in the model may be members of raft for a while, with a lease. */
static void view_gone(struct vms_view *v)
{
	const struct lease_table *t = &v->c->leases;

	v->view.gone_end_ms = lease_table_end(t, 0);
	for (unsigned i = 0; i < LIMIT_NODES; i++) {
		uint64_t node = t->members[i].node;
		uint64_t end = lease_table_end(t, node);
		bool known = false;

		for (size_t b = 0; b < v->view.board_count; b++)
			known |= v->nodes[b]->id == node;
		if (!known && end > v->view.gone_end_ms)
			v->view.gone_end_ms = end;
	}
}

static int sum_order(const void *key, const void *item)
{
	return strcmp(key, (*(Tb__ImageReport *const *)item)->sha256);
}

static const Tb__ImageReport *image_of(const Tb__HostReport *report, const char *sha256)
{
	Tb__ImageReport *const *found;

	if (report == NULL || report->n_images == 0)
		return NULL;
	found = bsearch(sha256, report->images, report->n_images, sizeof(report->images[0]),
			sum_order);
	return found != NULL ? *found : NULL;
}

/* The boards that hold it whole, of those that answer. */
static uint64_t image_boards(const struct vms_view *v, const char *sha256)
{
	uint64_t boards = 0;

	for (size_t i = 0; i < v->view.board_count; i++) {
		const Tb__ImageReport *image = image_of(v->hosts[i], sha256);

		if (image != NULL && image->state == TB__IMAGE_COPY_STATE__IMAGE_COPY_STATE_HELD &&
		    v->boards[i].reachable)
			boards |= UINT64_C(1) << i;
	}
	return boards;
}

static void image_need(const struct vms_view *v, const char *sha256, struct scheduler_vm *vm)
{
	uint64_t boards;

	if (sha256[0] == '\0')
		return;
	boards = image_boards(v, sha256);
	vm->images &= boards;
	vm->images_there &= boards != 0;
}

static void view_images(const struct vms_view *v, struct scheduler_vm *vm)
{
	const Tb__VmConfig *config = vm->vm->config;

	vm->images = UINT64_MAX;
	vm->images_there = true;
	image_need(v, config->kernel, vm);
	image_need(v, config->initrd, vm);
	for (size_t i = 0; i < config->n_disks; i++)
		image_need(v, config->disks[i]->image, vm);
}

static void view_report(struct vms_view *v, size_t i, const Tb__VmPlacement *p)
{
	size_t b = 0;

	while (b < v->view.board_count && v->nodes[b]->id != p->node)
		b++;
	if (b == v->view.board_count || v->hosts[b] == NULL)
		return;
	for (size_t r = 0; r < v->hosts[b]->n_vms; r++) {
		const Tb__VmReport *report = v->hosts[b]->vms[r];

		if (report->vm != v->rows[i]->id || report->incarnation != p->incarnation)
			continue;
		v->reports[i] = *report;
		v->reports[i].lasts_ms += v->now_ms - v->heard_ms[b];
		if (report->condition == TB__VM_CONDITION__VM_CONDITION_RUNNING)
			v->reports[i].well_ms += v->now_ms - v->heard_ms[b];
		v->vms[i].report = &v->reports[i];
		return;
	}
}

static int view_vm(void *arg, const Tb__Vm *row)
{
	struct vms_view *v = arg;
	size_t i = v->view.vm_count;

	if (i == LIMIT_VMS)
		return 1;
	v->rows[i] = (Tb__Vm *)message_copy(&row->base);
	v->vms[i] = (struct scheduler_vm){.vm = v->rows[i]};
	view_report(v, i, row->placement);
	view_images(v, &v->vms[i]);
	v->view.vm_count++;
	return 0;
}

/* NULL: the model cannot be read. */
static struct vms_view *view_make(struct core *c, uint64_t now_ms)
{
	struct vms_view *v = mem_zalloc(sizeof(*v));

	v->c = c;
	v->now_ms = now_ms;
	v->view.boards = v->boards;
	v->view.vms = v->vms;
	if (store_nodes(c->store, view_node, v) == 0)
		store_vms(c->store, view_vm, v);
	view_gone(v);
	return v;
}

static void view_free(struct vms_view *v)
{
	for (size_t i = 0; i < v->view.board_count; i++)
		tb__node__free_unpacked(v->nodes[i], NULL);
	for (size_t i = 0; i < v->view.vm_count; i++)
		tb__vm__free_unpacked(v->rows[i], NULL);
	free(v);
}

/* --- deciding -------------------------------------------------------------------------------- */

struct vms_batch {
	struct core *c;
	uint64_t term;
};

/* A batch, or an empty entry, is applied or will never be known of. */
static void vms_done(struct vms_batch *b, bool applied)
{
	struct core *c = b->c;

	/* Of an earlier leadership: that one's state is gone. */
	if (c->vms != NULL && c->fleet_term == b->term) {
		c->vms->on_way = false;
		c->vms->changed = true;
		c->vms->uncertain = !applied;
		c->vms->retry_ms = applied ? 0 : clock_boottime_ms() + VMS_REACH_MS;
		if (applied)
			memset(c->vms->withheld, 0, sizeof(c->vms->withheld));
	}
	free(b);
}

static void vms_decided(void *arg, int error, Tb__CommandResult *const *results, size_t count)
{
	for (size_t i = 0; error == 0 && i < count; i++)
		if (results[i]->refusal != 0)
			log_notice("vm-decision", "overtaken: %s", results[i]->message);
	vms_done(arg, error == 0);
}

static void vms_flushed(void *arg, int status, uint64_t index, void *result)
{
	(void)index;
	if (result != NULL) {
		apply_result_free(result);
		free(result);
	}
	vms_done(arg, status == 0);
}

static struct vms_batch *batch_new(struct core *c)
{
	struct vms_batch *b = mem_alloc(sizeof(*b));

	*b = (struct vms_batch){c, c->fleet_term};
	c->vms->on_way = true;
	return b;
}

/* An entry that does nothing: once it is applied, the ones before it are, or never will be. */
static void vms_flush_log(struct core *c)
{
	Tb__Entry entry = TB__ENTRY__INIT;
	uint8_t packed[8];

	entry.barrier = true;
	engine_propose(c->engine, packed, tb__entry__pack(&entry, packed), vms_flushed,
		       batch_new(c));
}

static void vms_withhold(struct core *c, const struct vms_view *v, uint64_t lost)
{
	for (size_t i = 0; i < v->view.board_count; i++) {
		unsigned slot = 0;

		if ((lost >> i & 1) == 0)
			continue;
		while (slot < LIMIT_NODES && c->vms->withheld[slot] != 0 &&
		       c->vms->withheld[slot] != v->nodes[i]->id)
			slot++;
		if (slot < LIMIT_NODES)
			c->vms->withheld[slot] = v->nodes[i]->id;
	}
}

static void vms_propose(struct core *c, const struct vms_view *v, struct scheduler_plan *plan)
{
	Tb__Command **commands = plan->commands;
	size_t count = plan->count;

	plan->commands = NULL;
	plan->count = 0;
	for (size_t i = 0; i < count; i++)
		commands[i]->actor = mem_strdup("scheduler");
	vms_withhold(c, v, plan->lost);
	proposal_add_once(c, commands, count, vms_decided, batch_new(c));
}

/* A sentence of the scheduler's in the event log; `vm` may be empty. */
static void vms_tell(struct core *c, const char *type, Tb__Severity severity, const char *vm,
		     const char *message)
{
	Tb__Command *command = proposal_command(mem_strdup("scheduler"));
	Tb__Event *event = mem_alloc(sizeof(*event));

	tb__event__init(event);
	event->type = mem_strdup(type);
	event->severity = severity;
	event->vm = mem_strdup(vm);
	event->message = mem_strdup(message);
	text_tame(event->message, LIMIT_MESSAGE);
	command->op_case = TB__COMMAND__OP_EVENT_ADD;
	command->event_add = mem_alloc(sizeof(Tb__EventAdd));
	tb__event_add__init(command->event_add);
	command->event_add->event = event;
	proposal_one(c, command, NULL, NULL);
}

/* S8 in the event log: when it begins to hold something back, when that is other, and when it is
 * over. */
static void vms_tell_storm(struct core *c, const struct scheduler_plan *plan)
{
	if (strcmp(plan->storm, c->vms->storm) == 0)
		return;
	snprintf(c->vms->storm, sizeof(c->vms->storm), "%s", plan->storm);
	if (plan->storm[0] != '\0')
		vms_tell(c, "vm.storm", TB__SEVERITY__SEVERITY_WARNING, "", plan->storm);
	else
		vms_tell(c, "vm.storm-over", TB__SEVERITY__SEVERITY_INFO, "",
			 "no virtual machine is held back any more");
}

static struct vm_since *since_of(struct lead_vms *l, uint64_t vm)
{
	for (size_t i = 0; i < l->since_count; i++)
		if (l->since[i].vm == vm)
			return &l->since[i];
	return NULL;
}

/* It is told once for each reason, if it lasts. */
static void vms_stuck(struct core *c, const struct vms_view *v, size_t i,
		      const struct vm_since *old, const struct scheduler_verdict *verdict,
		      struct vm_since *ret)
{
	char message[LIMIT_VM_NAME + LIMIT_MESSAGE + 8];

	ret->stuck_ms = old != NULL && old->stuck_ms != 0 ? old->stuck_ms : v->now_ms;
	if (old != NULL)
		memcpy(ret->told, old->told, sizeof(ret->told));
	if (v->now_ms < ret->stuck_ms + VMS_STUCK_MS) {
		if (ret->stuck_ms + VMS_STUCK_MS < c->vms->due_ms)
			c->vms->due_ms = ret->stuck_ms + VMS_STUCK_MS;
	} else if (strcmp(ret->told, verdict->reason) != 0) {
		memcpy(ret->told, verdict->reason, sizeof(ret->told));
		snprintf(message, sizeof(message), "VM %s: %s", v->rows[i]->name, verdict->reason);
		vms_tell(c, "vm.waits", TB__SEVERITY__SEVERITY_WARNING, v->rows[i]->name, message);
	}
}

/* What is gone goes, what is new is noted. */
static void vms_note(struct core *c, const struct vms_view *v, const struct scheduler_plan *plan)
{
	struct vm_since *next = mem_array(LIMIT_VMS, sizeof(*next));
	int64_t now = core_now_ms(c); /* asks the clocks of all boards */

	for (size_t i = 0; i < v->view.vm_count; i++) {
		const struct vm_since *old = since_of(c->vms, v->rows[i]->id);

		next[i] = (struct vm_since){.vm = v->rows[i]->id,
					    .condition = plan->verdicts[i].condition,
					    .since_ms = now};
		if (old != NULL && old->condition == next[i].condition)
			next[i].since_ms = old->since_ms;
		if (plan->verdicts[i].stuck)
			vms_stuck(c, v, i, old, &plan->verdicts[i], &next[i]);
	}
	memcpy(c->vms->since, next, v->view.vm_count * sizeof(*next));
	c->vms->since_count = v->view.vm_count;
	free(next);
}

static void vms_decide(struct core *c, uint64_t now_ms)
{
	struct vms_view *v = view_make(c, now_ms);
	struct scheduler_plan plan;

	scheduler_decide(&v->view, now_ms, VMS_BATCH, &plan);
	c->vms->due_ms = plan.due_ms;
	vms_note(c, v, &plan);
	vms_tell_storm(c, &plan);
	if (plan.count > 0)
		vms_propose(c, v, &plan);
	scheduler_plan_free(&plan);
	view_free(v);
}

/* A board that falls silent, or behind, makes no event. */
static void vms_reach(struct core *c, uint64_t now_ms)
{
	uint64_t reached = 0;
	uint64_t behind = 0;

	if (now_ms < c->vms->reach_ms)
		return;
	c->vms->reach_ms = now_ms + VMS_REACH_MS;
	for (unsigned i = 0; i < LIMIT_NODES; i++) {
		uint64_t node = c->leases.members[i].node;

		if (node == 0)
			continue;
		if (lead_reaches(c, node, now_ms))
			reached |= UINT64_C(1) << i;
		if (lead_lag_ms(c, node) >= SCHEDULER_BEHIND_MS)
			behind |= UINT64_C(1) << i;
	}
	if (reached != c->vms->reached || behind != c->vms->behind)
		c->vms->changed = true;
	c->vms->reached = reached;
	c->vms->behind = behind;
}

/* The model has had this board, and has it no more. */
bool lead_vms_board_gone(struct core *c, uint64_t node)
{
	Tb__Node *row;
	int rv = store_node_get(c->store, node, &row);

	if (rv == 0)
		tb__node__free_unpacked(row, NULL);
	return rv == -ENOENT;
}

uint64_t lead_vms_flush(struct core *c, uint64_t now_ms)
{
	struct lead_vms *l = c->vms;
	uint64_t vms;

	if (c->stopping || l->on_way)
		return UINT64_MAX;
	if (now_ms < l->retry_ms)
		return l->retry_ms;
	if (l->uncertain) {
		vms_flush_log(c);
		return UINT64_MAX;
	}
	vms_reach(c, now_ms);
	/* Most turns of the loop have nothing to do with virtual machines. */
	if (!l->changed && now_ms < l->due_ms)
		return l->due_ms;
	l->changed = false;
	l->due_ms = UINT64_MAX;
	/* A board that was removed leads until it has handed over. Its own lease is in nobody's
	 * table: what ran here is left to the next leader, which waits a whole lease. */
	if (core_level(c) >= LEVEL_VMS && store_count(c->store, "vm", &vms) == 0 && vms > 0 &&
	    !lead_vms_board_gone(c, c->identity.node_id))
		vms_decide(c, now_ms);
	return l->on_way ? UINT64_MAX : l->due_ms;
}

bool lead_vms_withholds(const struct core *c, uint64_t node)
{
	for (unsigned i = 0; c->vms != NULL && i < LIMIT_NODES; i++)
		if (c->vms->withheld[i] == node)
			return true;
	return false;
}

/* --- answers --------------------------------------------------------------------------------- */

static bool named(char *const *names, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return count == 0;
}

static bool is_ephemeral(const Tb__Vm *vm)
{
	for (size_t i = 0; i < vm->config->n_disks; i++)
		if (vm->config->disks[i]->kind == TB__DISK_KIND__DISK_KIND_OVERLAY)
			return true;
	return false;
}

static const char *board_of(const struct vms_view *v, uint64_t node)
{
	for (size_t i = 0; i < v->view.board_count; i++)
		if (v->nodes[i]->id == node)
			return v->nodes[i]->name;
	return "";
}

static Tb__VmRow *vm_row(struct core *c, const struct vms_view *v, size_t i,
			 const struct scheduler_verdict *verdict)
{
	const struct vm_since *since = since_of(c->vms, v->rows[i]->id);
	Tb__VmRow *row = mem_alloc(sizeof(*row));
	Tb__VmView *view = mem_alloc(sizeof(*view));

	tb__vm_row__init(row);
	tb__vm_view__init(view);
	row->name = mem_strdup(v->rows[i]->name);
	row->view = view;
	view->condition = verdict->condition;
	view->reason = mem_strdup(verdict->reason);
	view->board = mem_strdup(board_of(v, v->rows[i]->placement->node));
	view->restarts = v->vms[i].report != NULL ? v->vms[i].report->restarts : 0;
	view->ephemeral = is_ephemeral(v->rows[i]);
	view->stuck = verdict->stuck && since != NULL && since->stuck_ms != 0 &&
		      v->now_ms >= since->stuck_ms + VMS_STUCK_MS;
	if (since != NULL && since->condition == verdict->condition)
		view->since_ms = since->since_ms;
	return row;
}

static void answer_vms(struct core *c, struct query *q)
{
	const Tb__VmQuery *query = q->query->vms;
	struct vms_view *v = view_make(c, clock_boottime_ms());
	Tb__VmRow **rows = mem_array(LIMIT_VMS, sizeof(*rows));
	Tb__PeerAnswer answer = TB__PEER_ANSWER__INIT;
	struct scheduler_plan plan;

	/* Only the sentences are wanted. */
	scheduler_decide(&v->view, v->now_ms, 0, &plan);
	for (size_t i = 0; i < v->view.vm_count; i++)
		if (named(query->names, query->n_names, v->rows[i]->name))
			rows[answer.n_vms++] = vm_row(c, v, i, &plan.verdicts[i]);
	answer.vms = rows;
	query_finish(q, 0, &answer);
	for (size_t i = 0; i < answer.n_vms; i++)
		tb__vm_row__free_unpacked(rows[i], NULL);
	free(rows);
	scheduler_plan_free(&plan);
	view_free(v);
}

/* One for each board that hosts or has said something of it. */
static void image_copies(const struct vms_view *v, const char *sha256, Tb__ImageStatus *status)
{
	status->copies = mem_array(LIMIT_NODES, sizeof(*status->copies));
	for (size_t i = 0; i < v->view.board_count; i++) {
		const Tb__ImageReport *report = image_of(v->hosts[i], sha256);
		Tb__ImageCopy *copy;

		if (report == NULL && (v->nodes[i]->host == NULL || !v->nodes[i]->host->hosts))
			continue;
		copy = mem_alloc(sizeof(*copy));
		tb__image_copy__init(copy);
		copy->node = v->nodes[i]->id;
		copy->board = mem_strdup(v->nodes[i]->name);
		if (report != NULL) {
			copy->state = report->state;
			copy->have = report->have;
			copy->problem = mem_strdup(report->problem);
		} else if (v->hosts[i] == NULL) {
			copy->problem = mem_strdup("the board does not answer");
		}
		status->copies[status->n_copies++] = copy;
	}
}

struct image_rows {
	const struct vms_view *v;
	const Tb__ImageQuery *query;
	Tb__ImageRow **rows;
	size_t count;
};

static int image_rows_visit(void *arg, const Tb__Image *image)
{
	struct image_rows *r = arg;
	Tb__ImageRow *row;

	if (r->count == LIMIT_IMAGES)
		return 1;
	if (!named(r->query->sha256, r->query->n_sha256, image->sha256))
		return 0;
	row = mem_alloc(sizeof(*row));
	tb__image_row__init(row);
	row->sha256 = mem_strdup(image->sha256);
	row->status = mem_alloc(sizeof(*row->status));
	tb__image_status__init(row->status);
	image_copies(r->v, image->sha256, row->status);
	row->status->used_by = mem_array(r->v->view.vm_count, sizeof(char *));
	for (size_t i = 0; i < r->v->view.vm_count; i++)
		if (vm_uses_image(r->v->rows[i], image->sha256))
			row->status->used_by[row->status->n_used_by++] =
				mem_strdup(r->v->rows[i]->name);
	r->rows[r->count++] = row;
	return 0;
}

static void answer_images(struct core *c, struct query *q)
{
	struct vms_view *v = view_make(c, clock_boottime_ms());
	struct image_rows r = {.v = v, .query = q->query->images};
	Tb__PeerAnswer answer = TB__PEER_ANSWER__INIT;

	r.rows = mem_array(LIMIT_IMAGES, sizeof(*r.rows));
	store_images(c->store, image_rows_visit, &r);
	answer.n_images = r.count;
	answer.images = r.rows;
	query_finish(q, 0, &answer);
	for (size_t i = 0; i < r.count; i++)
		tb__image_row__free_unpacked(r.rows[i], NULL);
	free(r.rows);
	view_free(v);
}

/* A person's move takes a VM down: is there a board that can have it now? One that does not run
 * loses nothing, and its next start takes whatever board there is. */
static void answer_move(struct core *c, struct query *q)
{
	const Tb__PeerMove *move = q->query->move;
	struct vms_view *v = view_make(c, clock_boottime_ms());
	Tb__PeerAnswer done = TB__PEER_ANSWER__INIT;
	char why[2 * LIMIT_MESSAGE];
	char message[sizeof(why) + LIMIT_VM_NAME + 64];
	size_t i = 0;

	while (i < v->view.vm_count && strcmp(v->rows[i]->name, move->vm) != 0)
		i++;
	if (i < v->view.vm_count && v->rows[i]->running &&
	    scheduler_moves(&v->view, i, move->node_id, v->now_ms, why, sizeof(why)) != 0) {
		snprintf(message, sizeof(message),
			 move->node_id == 0
				 ? "VM %s stays where it is, no other board can take it now: %s"
				 : "VM %s stays where it is: %s; name another board, or none",
			 move->vm, why);
		query_refuse(q, -EPERM, message);
	} else {
		query_finish(q, 0, &done);
	}
	view_free(v);
}

void lead_vms_answer(struct core *c, struct query *q)
{
	if (q->query->what_case == TB__PEER_QUERY__WHAT_VMS)
		answer_vms(c, q);
	else if (q->query->what_case == TB__PEER_QUERY__WHAT_MOVE)
		answer_move(c, q);
	else
		answer_images(c, q);
}

void lead_vms_count(struct core *c, const uint64_t *nodes, size_t count, struct vm_counts *ret_all,
		    struct vm_counts *ret_nodes)
{
	struct vms_view *v = view_make(c, clock_boottime_ms());

	*ret_all = (struct vm_counts){0};
	memset(ret_nodes, 0, count * sizeof(*ret_nodes));
	for (size_t i = 0; i < v->view.vm_count; i++) {
		const Tb__VmReport *report = v->vms[i].report;
		bool running = report != NULL &&
			       report->condition == TB__VM_CONDITION__VM_CONDITION_RUNNING;

		ret_all->vms += v->rows[i]->running;
		ret_all->running += running;
		for (size_t n = 0; n < count; n++) {
			ret_nodes[n].vms += v->rows[i]->placement->node == nodes[n];
			ret_nodes[n].running += running && v->rows[i]->placement->node == nodes[n];
		}
	}
	view_free(v);
}
