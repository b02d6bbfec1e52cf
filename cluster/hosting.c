/* One entry for each VM that is placed here or has a process here.
 *
 *              +--------------------- back-off is over -----------------------+
 *              v                                                              |
 *   WAITING --> PREPARING --> PREPARED --> STARTING --> RUNNING --> BACKING_OFF, FAILED, ENDED
 *      ^            the process is there:  `-----+---------'
 *      |                                         v
 *      +------- the process is gone --------- ENDING (button, then force; or force at once)
 *
 * WAITING:   nothing is there; PREPARE is asked for once it may start.
 *
 * PREPARED:  as WAITING, with all that the process needs. New data disks are told to the leader,
 * and it starts when the model has them. When one is taken out of the VM it is prepared again.
 *
 * ENDING:    the process may still be there. What the placement says only matters again when it is
 *            gone.
 *
 * FAILED and ENDED stay until there is another incarnation.
 *
 * "Released" is no state: it is a placement that is being released, and no process. */
#include "cluster/hosting.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

#ifdef TIEBREAK_SIM_FAULTS
enum hosting_fault hosting_fault;
#endif

enum state {
	WAITING,
	PREPARING,
	PREPARED,
	STARTING,
	RUNNING,
	ENDING,
	BACKING_OFF,
	FAILED,
	ENDED,
};

/* Ids of data disks. */
struct disks {
	size_t count;
	char ids[LIMIT_VM_DISKS][LIMIT_VM_DISK_ID + 1];
};

struct hosted {
	uint64_t vm;
	enum state state;
	/* The placement, as the newest model has it; incarnation 0: it is not here. */
	uint64_t incarnation;
	bool releasing;
	bool hard;
	Tb__VmRestart restart;
	uint32_t attempts_max;
	uint32_t backoff_ms;
	struct disks data; /* those that it has, as the newest model says */
	struct disks home; /* and those of which the model knows that they are made */
	struct disks asked; /* those that it had when PREPARE was asked for */
	struct disks made; /* and that are there: what it would start with */
	/* The process; incarnation 0: there is none. */
	uint64_t process;
	uint64_t deadline_ms; /* as it was last told */
	uint64_t taken_ms; /* the last one that it is known to have taken */
	uint64_t asked_ms; /* when the first one that it has not taken was told; 0: it has all */
	uint64_t runs_since_ms; /* 0: its guest does not run */
	uint64_t force_ms; /* ENDING: when the button has had its time; 0: it was forced */
	/* What PREPARE was asked for and DISCARD was not; 0: nothing. */
	uint64_t prepared;
	unsigned attempts; /* that failed, since it last ran well */
	uint32_t restarts; /* in this incarnation */
	bool started; /* in this incarnation */
	uint64_t again_ms; /* BACKING_OFF */
	uint64_t since_ms; /* of what is reported */
	Tb__VmCondition reported;
	char problem[LIMIT_MESSAGE + 1];
};

struct hosting {
	uint64_t node;
	uint64_t quiet_ms; /* nothing is started before */
	uint64_t until_ms; /* of the lease */
	uint64_t fence;
	uint64_t applied;
	struct hosted *vms;
	size_t count;
	struct hosting_action *actions;
	size_t action_count;
	size_t action_next;
	bool changed;
};

struct hosting *hosting_new(uint64_t node, uint64_t now_ms)
{
	struct hosting *h = mem_zalloc(sizeof(*h));

	h->node = node;
	h->quiet_ms = now_ms + HOSTING_QUIET_MS;
	h->fence = UINT64_MAX;
	h->changed = true;
	return h;
}

void hosting_free(struct hosting *h)
{
	if (h == NULL)
		return;
	free(h->vms);
	free(h->actions);
	free(h);
}

/* --- entries --------------------------------------------------------------------------------- */

static struct hosted *hosted_find(const struct hosting *h, uint64_t vm)
{
	for (size_t i = 0; i < h->count; i++)
		if (h->vms[i].vm == vm)
			return &h->vms[i];
	return NULL;
}

static struct hosted *hosted_add(struct hosting *h, uint64_t vm, uint64_t now_ms)
{
	h->vms = mem_realloc(h->vms, (h->count + 1) * sizeof(h->vms[0]));
	h->vms[h->count] = (struct hosted){.vm = vm, .since_ms = now_ms};
	h->changed = true;
	return &h->vms[h->count++];
}

static void hosted_act(struct hosting *h, const struct hosted *e, enum hosting_verb verb,
		       uint64_t incarnation, uint64_t deadline_ms)
{
	/* The array starts again whenever all of it was taken. */
	if (h->action_next == h->action_count)
		h->action_next = h->action_count = 0;
	h->actions = mem_realloc(h->actions, (h->action_count + 1) * sizeof(h->actions[0]));
	h->actions[h->action_count++] =
		(struct hosting_action){verb, e->vm, incarnation, deadline_ms};
}

bool hosting_next(struct hosting *h, struct hosting_action *ret)
{
	if (h->action_next == h->action_count)
		return false;
	*ret = h->actions[h->action_next++];
	return true;
}

static void problem_set(struct hosting *h, struct hosted *e, const char *problem)
{
	if (strncmp(e->problem, problem, LIMIT_MESSAGE) == 0)
		return;
	snprintf(e->problem, sizeof(e->problem), "%s", problem);
	h->changed = true;
}

/* --- its data disks -------------------------------------------------------------------------- */

static bool disks_have(const struct disks *disks, const char *id)
{
	for (size_t i = 0; i < disks->count; i++)
		if (strcmp(disks->ids[i], id) == 0)
			return true;
	return false;
}

static void disks_add(struct disks *disks, const char *id)
{
	if (disks->count < LIMIT_VM_DISKS)
		snprintf(disks->ids[disks->count++], sizeof(disks->ids[0]), "%s", id);
}

/* One that was taken out of the VM meanwhile is nothing to wait for. */
static bool disk_new(const struct hosted *e, const char *id)
{
	return disks_have(&e->data, id) && !disks_have(&e->home, id);
}

static bool disks_known(const struct hosted *e)
{
	for (size_t i = 0; i < e->made.count; i++)
		if (disk_new(e, e->made.ids[i]))
			return HOSTING_FAULTY(HOSTING_FAULT_UNKNOWN_DISKS);
	return true;
}

/* One that it was prepared with was taken out of the VM: of what a guest then wrote to it the model
 * would not know. */
static bool disks_fewer(const struct hosted *e)
{
	for (size_t i = 0; i < e->made.count; i++)
		if (!disks_have(&e->data, e->made.ids[i]))
			return true;
	return false;
}

static void disks_update(struct hosted *e, const Tb__Vm *vm)
{
	const Tb__VmPlacement *p = vm->placement;

	e->data.count = e->home.count = 0;
	for (size_t i = 0; i < vm->config->n_disks; i++)
		if (vm->config->disks[i]->kind == TB__DISK_KIND__DISK_KIND_DATA)
			disks_add(&e->data, vm->config->disks[i]->id);
	for (size_t i = 0; i < p->n_home_disks; i++)
		disks_add(&e->home, p->home_disks[i]);
}

/* The model is to have them. */
static void disks_report(const struct hosted *e, Tb__VmReport *r)
{
	r->home_disks = mem_array(LIMIT_VM_DISKS, sizeof(*r->home_disks));
	for (size_t i = 0; i < e->made.count; i++)
		if (disk_new(e, e->made.ids[i]))
			r->home_disks[r->n_home_disks++] = mem_strdup(e->made.ids[i]);
}

/* --- what is said of one --------------------------------------------------------------------- */

/* Also no process that a daemon of before has left behind. */
static bool released(const struct hosting *h, const struct hosted *e, uint64_t now_ms)
{
	return e->releasing && ((e->process == 0 && (now_ms >= h->quiet_ms ||
						     HOSTING_FAULTY(HOSTING_FAULT_NO_QUIET))) ||
				HOSTING_FAULTY(HOSTING_FAULT_EARLY_RELEASE));
}

static Tb__VmCondition condition_of(const struct hosting *h, const struct hosted *e,
				    uint64_t now_ms)
{
	static const Tb__VmCondition by_state[] = {
		[WAITING] = TB__VM_CONDITION__VM_CONDITION_PREPARING,
		[PREPARING] = TB__VM_CONDITION__VM_CONDITION_PREPARING,
		[PREPARED] = TB__VM_CONDITION__VM_CONDITION_PREPARING,
		[STARTING] = TB__VM_CONDITION__VM_CONDITION_STARTING,
		[RUNNING] = TB__VM_CONDITION__VM_CONDITION_RUNNING,
		[ENDING] = TB__VM_CONDITION__VM_CONDITION_STOPPING,
		[BACKING_OFF] = TB__VM_CONDITION__VM_CONDITION_BACKING_OFF,
		[FAILED] = TB__VM_CONDITION__VM_CONDITION_FAILED,
		[ENDED] = TB__VM_CONDITION__VM_CONDITION_ENDED,
	};

	if (released(h, e, now_ms))
		return TB__VM_CONDITION__VM_CONDITION_RELEASED;
	return e->releasing ? TB__VM_CONDITION__VM_CONDITION_STOPPING : by_state[e->state];
}

/* Notes it when the leader is to hear of it. */
static void hosted_note(struct hosting *h, struct hosted *e, uint64_t now_ms)
{
	Tb__VmCondition condition = condition_of(h, e, now_ms);

	if (condition == e->reported)
		return;
	e->reported = condition;
	e->since_ms = now_ms;
	h->changed = true;
}

/* --- what is due for one --------------------------------------------------------------------- */

static bool may_start(const struct hosting *h, uint64_t now_ms)
{
	return now_ms >= h->quiet_ms && h->until_ms >= now_ms + HOSTING_START_MIN_MS &&
	       ((h->fence != UINT64_MAX && h->applied >= h->fence) ||
		HOSTING_FAULTY(HOSTING_FAULT_NO_FENCE));
}

/* The process ends now, whatever it does. */
static void hosted_force(struct hosting *h, struct hosted *e)
{
	if (e->state == ENDING && e->force_ms == 0)
		return;
	e->state = ENDING;
	e->force_ms = 0;
	hosted_act(h, e, HOSTING_KILL, e->process, 0);
}

static void hosted_renew(struct hosting *h, struct hosted *e, uint64_t now_ms)
{
	if (h->until_ms < e->deadline_ms + HOSTING_RENEW_MS)
		return;
	e->deadline_ms = h->until_ms;
	if (e->asked_ms == 0)
		e->asked_ms = now_ms;
	hosted_act(h, e, HOSTING_RENEW, e->process, e->deadline_ms);
}

/* Its guest is asked first, if it runs. */
static void hosted_release(struct hosting *h, struct hosted *e, uint64_t now_ms)
{
	if (e->hard || e->state == STARTING) {
		hosted_force(h, e);
	} else if (e->state == RUNNING) {
		e->state = ENDING;
		e->force_ms = now_ms + HOSTING_BUTTON_MS;
		hosted_act(h, e, HOSTING_BUTTON, e->process, 0);
	} else if (e->force_ms != 0 && now_ms >= e->force_ms) {
		hosted_force(h, e);
	}
}

static void process_settle(struct hosting *h, struct hosted *e, uint64_t now_ms)
{
	if (now_ms >= h->until_ms || now_ms >= e->deadline_ms || e->incarnation != e->process)
		hosted_force(h, e);
	else if (e->releasing)
		hosted_release(h, e, now_ms);
	if (e->state != ENDING || e->force_ms != 0)
		hosted_renew(h, e, now_ms);
}

static void discard(struct hosting *h, struct hosted *e)
{
	if (e->prepared == 0)
		return;
	hosted_act(h, e, HOSTING_DISCARD, e->prepared, 0);
	e->prepared = 0;
}

/* No process is there, and the placement is here for good. */
static void placement_settle(struct hosting *h, struct hosted *e, uint64_t now_ms)
{
	if ((e->state == BACKING_OFF && now_ms >= e->again_ms) ||
	    (e->state == PREPARED && disks_fewer(e)))
		e->state = WAITING;
	if (e->state == WAITING && may_start(h, now_ms)) {
		e->state = PREPARING;
		e->prepared = e->incarnation;
		e->asked = e->data;
		hosted_act(h, e, HOSTING_PREPARE, e->incarnation, 0);
	}
	if (e->state == PREPARED && disks_known(e) && may_start(h, now_ms)) {
		e->state = STARTING;
		e->process = e->incarnation;
		e->deadline_ms = h->until_ms;
		e->taken_ms = h->until_ms;
		e->asked_ms = 0;
		e->restarts += e->started;
		e->started = true;
		hosted_act(h, e, HOSTING_START, e->incarnation, e->deadline_ms);
	}
}

static void hosted_settle(struct hosting *h, struct hosted *e, uint64_t now_ms)
{
	if (e->process != 0) {
		process_settle(h, e, now_ms);
	} else {
		if (e->releasing || e->prepared != e->incarnation)
			discard(h, e);
		if (e->incarnation != 0 && !e->releasing)
			placement_settle(h, e, now_ms);
	}
	hosted_note(h, e, now_ms);
}

static void hosted_forget(struct hosting *h)
{
	size_t kept = 0;

	for (size_t i = 0; i < h->count; i++) {
		if (h->vms[i].incarnation == 0 && h->vms[i].process == 0)
			h->changed = true;
		else
			h->vms[kept++] = h->vms[i];
	}
	h->count = kept;
}

static void settle(struct hosting *h, uint64_t now_ms)
{
	for (size_t i = 0; i < h->count; i++)
		hosted_settle(h, &h->vms[i], now_ms);
	hosted_forget(h);
}

/* --- events ---------------------------------------------------------------------------------- */

void hosting_lease(struct hosting *h, uint64_t until_ms, uint64_t now_ms)
{
	h->until_ms = until_ms;
	settle(h, now_ms);
}

void hosting_fence(struct hosting *h, uint64_t index, uint64_t now_ms)
{
	h->fence = index;
	settle(h, now_ms);
}

/* Another incarnation begins with a clean slate. */
static void hosted_renew_placement(struct hosting *h, struct hosted *e, uint64_t incarnation,
				   uint64_t now_ms)
{
	if (e->incarnation == incarnation)
		return;
	e->incarnation = incarnation;
	e->attempts = 0;
	e->restarts = 0;
	e->started = false;
	e->made.count = 0;
	e->since_ms = now_ms;
	e->problem[0] = '\0';
	h->changed = true;
	/* With a process, what it is goes on to count until it is gone. */
	if (e->process == 0)
		e->state = WAITING;
}

static void hosted_update(struct hosting *h, const Tb__Vm *vm, uint64_t now_ms)
{
	const Tb__VmPlacement *p = vm->placement;
	struct hosted *e = hosted_find(h, vm->id);

	if (e == NULL)
		e = hosted_add(h, vm->id, now_ms);
	hosted_renew_placement(h, e, p->incarnation, now_ms);
	disks_update(e, vm);
	e->releasing = p->releasing;
	e->hard = p->hard;
	e->restart = vm->config->restart;
	e->attempts_max = vm->config->restart_attempts;
	e->backoff_ms = vm->config->restart_backoff_ms;
}

static bool placed_here(const struct hosting *h, const Tb__Vm *vm)
{
	return vm->placement->node == h->node && vm->placement->incarnation != 0;
}

static bool among(const struct hosting *h, const Tb__Vm *const *vms, size_t count, uint64_t vm)
{
	for (size_t i = 0; i < count; i++)
		if (vms[i]->id == vm && placed_here(h, vms[i]))
			return true;
	return false;
}

void hosting_model(struct hosting *h, uint64_t applied, const Tb__Vm *const *vms, size_t count,
		   uint64_t now_ms)
{
	h->applied = applied;
	for (size_t i = 0; i < h->count; i++) {
		struct hosted *e = &h->vms[i];

		if (among(h, vms, count, e->vm))
			continue;
		hosted_renew_placement(h, e, 0, now_ms);
		e->releasing = false;
	}
	for (size_t i = 0; i < count; i++)
		if (placed_here(h, vms[i]))
			hosted_update(h, vms[i], now_ms);
	settle(h, now_ms);
}

/* It did not go as it should: again after a while, or never here. */
static void hosted_failed(struct hosted *e, uint64_t now_ms)
{
	uint64_t wait_ms = e->backoff_ms;

	if (++e->attempts > e->attempts_max) {
		e->state = FAILED;
		return;
	}
	for (unsigned i = 1; i < e->attempts && wait_ms < HOSTING_BACKOFF_MAX_MS; i++)
		wait_ms *= 2;
	e->state = BACKING_OFF;
	e->again_ms =
		now_ms + (wait_ms < HOSTING_BACKOFF_MAX_MS ? wait_ms : HOSTING_BACKOFF_MAX_MS);
}

static void hosted_ended(struct hosted *e, bool off, uint64_t now_ms)
{
	if (off && e->restart != TB__VM_RESTART__VM_RESTART_ALWAYS)
		e->state = ENDED;
	else if (!off && e->restart == TB__VM_RESTART__VM_RESTART_NEVER)
		e->state = FAILED;
	else
		hosted_failed(e, now_ms);
}

static bool hosted_late(const struct hosted *e, uint64_t now_ms)
{
	return now_ms >= e->taken_ms;
}

/* There was time enough to take a renewal. */
static bool hosted_deaf(const struct hosted *e, uint64_t now_ms)
{
	return hosted_late(e, now_ms) && e->asked_ms != 0 &&
	       e->taken_ms >= e->asked_ms + HOSTING_DEAF_MS;
}

/* The process is gone. Whatever this board ended itself, or the end of the lease did, is nobody's
 * failure. */
static void process_gone(struct hosting *h, struct hosted *e, bool off, const char *problem,
			 uint64_t now_ms)
{
	bool wanted = e->state != ENDING && e->incarnation == e->process && !e->releasing;
	bool lapsed = !off && hosted_late(e, now_ms) && !hosted_deaf(e, now_ms);

	if (e->runs_since_ms != 0 && now_ms >= e->runs_since_ms + HOSTING_WELL_MS)
		e->attempts = 0;
	e->process = 0;
	e->runs_since_ms = 0;
	e->force_ms = 0;
	e->state = WAITING;
	if (!wanted || lapsed)
		return;
	problem_set(h, e, problem != NULL ? problem : "");
	hosted_ended(e, off, now_ms);
}

static void prepare_news(struct hosting *h, struct hosted *e, enum hosting_news news,
			 const char *problem, uint64_t now_ms)
{
	if (e->state != PREPARING)
		return;
	if (news == HOSTING_PREPARED) {
		e->state = PREPARED;
		e->made = e->asked;
		h->changed |= !disks_known(e);
		return;
	}
	problem_set(h, e, problem != NULL ? problem : "");
	hosted_failed(e, now_ms);
}

static void process_news(struct hosting *h, struct hosted *e, enum hosting_news news,
			 const char *problem, uint64_t now_ms)
{
	if (news != HOSTING_RUNS) {
		process_gone(h, e, news == HOSTING_OFF, problem, now_ms);
		return;
	}
	if (e->state != STARTING)
		return;
	e->state = RUNNING;
	e->runs_since_ms = now_ms;
	problem_set(h, e, "");
}

void hosting_process(struct hosting *h, uint64_t vm, uint64_t incarnation, enum hosting_news news,
		     const char *problem, uint64_t now_ms)
{
	struct hosted *e = hosted_find(h, vm);

	if (e == NULL)
		return;
	if (news == HOSTING_PREPARED || news == HOSTING_NOT_PREPARED) {
		if (e->prepared == incarnation)
			prepare_news(h, e, news, problem, now_ms);
	} else if (e->process == incarnation) {
		process_news(h, e, news, problem, now_ms);
	}
	settle(h, now_ms);
}

void hosting_renewed(struct hosting *h, uint64_t vm, uint64_t incarnation, uint64_t until_ms,
		     uint64_t now_ms)
{
	struct hosted *e = hosted_find(h, vm);

	if (e == NULL || e->process != incarnation || until_ms <= e->taken_ms)
		return;
	e->taken_ms = until_ms;
	e->asked_ms = until_ms < e->deadline_ms ? now_ms : 0;
}

static const struct hosted *process_find(const struct hosting *h, uint64_t vm, uint64_t incarnation)
{
	const struct hosted *e = hosted_find(h, vm);

	return e != NULL && e->process == incarnation ? e : NULL;
}

bool hosting_lapsed(const struct hosting *h, uint64_t vm, uint64_t incarnation, uint64_t now_ms)
{
	const struct hosted *e = process_find(h, vm, incarnation);

	return e != NULL && hosted_late(e, now_ms) && !hosted_deaf(e, now_ms);
}

bool hosting_deaf(const struct hosting *h, uint64_t vm, uint64_t incarnation, uint64_t now_ms)
{
	const struct hosted *e = process_find(h, vm, incarnation);

	return e != NULL && hosted_deaf(e, now_ms);
}

static void sooner(uint64_t *due_ms, uint64_t at_ms, uint64_t now_ms)
{
	if (at_ms > now_ms && at_ms < *due_ms)
		*due_ms = at_ms;
}

uint64_t hosting_tick(struct hosting *h, uint64_t now_ms)
{
	uint64_t due_ms = UINT64_MAX;

	settle(h, now_ms);
	for (size_t i = 0; i < h->count; i++) {
		const struct hosted *e = &h->vms[i];

		if (e->process != 0) {
			sooner(&due_ms, e->deadline_ms, now_ms);
			sooner(&due_ms, e->force_ms, now_ms);
			continue;
		}
		sooner(&due_ms, h->quiet_ms, now_ms);
		if (e->state == BACKING_OFF)
			sooner(&due_ms, e->again_ms, now_ms);
	}
	return due_ms;
}

/* --- the report ------------------------------------------------------------------------------ */

bool hosting_changed(const struct hosting *h)
{
	return h->changed;
}

static Tb__VmReport *report_make(uint64_t vm, uint64_t incarnation, Tb__VmCondition condition,
				 uint64_t since_ms)
{
	Tb__VmReport *r = mem_alloc(sizeof(*r));

	tb__vm_report__init(r);
	r->vm = vm;
	r->incarnation = incarnation;
	r->condition = condition;
	r->since_ms = (int64_t)since_ms;
	return r;
}

static Tb__VmReport *hosted_report(const struct hosting *h, const struct hosted *e, uint64_t now_ms)
{
	/* While a process of before is there, this incarnation has not begun. */
	Tb__VmCondition condition = e->process == 0 || e->process == e->incarnation
					    ? condition_of(h, e, now_ms)
					    : TB__VM_CONDITION__VM_CONDITION_PREPARING;
	Tb__VmReport *r = report_make(e->vm, e->incarnation, condition, e->since_ms);

	r->restarts = e->restarts;
	if (e->problem[0] != '\0')
		r->problem = mem_strdup(e->problem);
	disks_report(e, r);
	r->lasts_ms = now_ms - e->since_ms;
	if (condition == TB__VM_CONDITION__VM_CONDITION_RUNNING)
		r->well_ms = now_ms - e->runs_since_ms;
	return r;
}

size_t hosting_report(struct hosting *h, Tb__VmReport ***ret, uint64_t now_ms)
{
	Tb__VmReport **list = mem_array(2 * h->count + 1, sizeof(list[0]));
	size_t count = 0;

	for (size_t i = 0; i < h->count; i++) {
		const struct hosted *e = &h->vms[i];

		if (e->process != 0 && e->process != e->incarnation)
			list[count++] =
				report_make(e->vm, e->process,
					    TB__VM_CONDITION__VM_CONDITION_STOPPING, e->since_ms);
		if (e->incarnation != 0)
			list[count++] = hosted_report(h, e, now_ms);
	}
	h->changed = false;
	*ret = list;
	return count;
}
