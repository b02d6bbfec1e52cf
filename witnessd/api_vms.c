/* api_vms.c: the virtual machines: what they are to be, whether they are to run, and how they are.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "lib/text.h"
#include "witnessd/api_call.h"

static void vm_absent(struct api_call *call)
{
	api_problem(call, 404, "GET /v1/vms lists the names", "there is no VM \"%s\"", call->arg);
}

/* A VM is started, stopped and moved by a majority or not at all: said at once, and not after the
 * time that a leader may take to be elected. */
static bool no_quorum(const struct api_call *call)
{
	const struct api_config *config = &call->api->config;

	return config->backend->view(config->core)->state == CORE_NO_QUORUM;
}

static bool quorum_missing(struct api_call *call)
{
	if (!no_quorum(call))
		return false;
	api_problem(
		call, 503, "bring a majority of the boards back, then try again",
		"the cluster has no quorum: this board does not reach a majority of the boards, "
		"and without one nothing is started, stopped or changed");
	return true;
}

/* --- reading --- */

struct vms {
	Tb__Vm **items; /* owned */
	size_t count;
	bool one; /* the answer is the first, and not a list */
};

static void vms_free(void *state)
{
	struct vms *all = state;

	for (size_t i = 0; i < all->count; i++)
		tb__vm__free_unpacked(all->items[i], NULL);
	free(all->items);
	free(all);
}

static void vms_add(struct vms *all, Tb__Vm *vm)
{
	all->items = mem_realloc(all->items, (all->count + 1) * sizeof(*all->items));
	all->items[all->count++] = vm;
}

static int vm_visit(void *arg, const Tb__Vm *row)
{
	vms_add(arg, (Tb__Vm *)message_copy(&row->base));
	return 0;
}

static void view_set(Tb__Vm *vm, const Tb__VmView *view, int error)
{
	tb__vm_view__free_unpacked(vm->status, NULL);
	if (view != NULL) {
		vm->status = (Tb__VmView *)message_copy(&view->base);
		return;
	}
	vm->status = mem_alloc(sizeof(*vm->status));
	tb__vm_view__init(vm->status);
	vm->status->reason = mem_strdup(error != 0 ? "there is no leader to ask at the moment"
						   : "the leader does not know it yet");
}

static const Tb__VmView *view_find(const Tb__PeerAnswer *answer, const char *name)
{
	for (size_t i = 0; answer != NULL && i < answer->n_vms; i++)
		if (strcmp(answer->vms[i]->name, name) == 0)
			return answer->vms[i]->view;
	return NULL;
}

static void vms_answered(struct api_call *call, int error, const Tb__PeerAnswer *answer)
{
	struct vms *all = call->state;
	Tb__VmList list = TB__VM_LIST__INIT;
	char *location = NULL;

	for (size_t i = 0; i < all->count; i++)
		view_set(all->items[i], error == 0 ? view_find(answer, all->items[i]->name) : NULL,
			 error);
	list.items = all->items;
	list.n_items = all->count;
	if (!all->one) {
		api_answer_message(call, &list.base);
		return;
	}
	if (call->route->status == 201)
		location = mem_printf("/v1/vms/%s", all->items[0]->name);
	api_answer_revision(call, &all->items[0]->base, all->items[0]->revision, location);
	free(location);
}

/* How they are, of the leader; `name` NULL: all. */
static void vms_query(struct api_call *call, char *name, api_answered done)
{
	Tb__VmQuery vms = TB__VM_QUERY__INIT;
	Tb__PeerQuery query = TB__PEER_QUERY__INIT;

	if (name != NULL) {
		vms.n_names = 1;
		vms.names = &name;
	}
	query.what_case = TB__PEER_QUERY__WHAT_VMS;
	query.vms = &vms;
	api_query(call, &query, done);
}

static void vms_ask(struct api_call *call)
{
	const struct vms *all = call->state;

	vms_query(call, all->one ? all->items[0]->name : NULL, vms_answered);
}

/* Takes the place of what a handler kept before. */
static struct vms *vms_new(struct api_call *call)
{
	struct vms *all = mem_zalloc(sizeof(*all));

	if (call->state != NULL)
		call->state_free(call->state);
	call->state = all;
	call->state_free = vms_free;
	return all;
}

void api_vms_list(struct api_call *call)
{
	struct vms *all = vms_new(call);

	if (store_vms(api_store(call->api), vm_visit, all) != 0)
		api_store_failed(call);
	else
		vms_ask(call);
}

static void vm_answer(struct api_call *call, Tb__Vm *vm)
{
	struct vms *all = vms_new(call);

	all->one = true;
	vms_add(all, vm);
	vms_ask(call);
}

void api_vm_get(struct api_call *call)
{
	Tb__Vm *vm;
	int rv = store_vm_find(api_store(call->api), call->arg, &vm);

	if (rv == -ENOENT)
		vm_absent(call);
	else if (rv != 0)
		api_store_failed(call);
	else
		vm_answer(call, vm);
}

/* --- commands --- */

/* The VM as the model has it after a write. */
static void vm_written(struct api_call *call, const char *name)
{
	Tb__Vm *vm;
	int rv = store_vm_find(api_store(call->api), name, &vm);

	if (rv == -ENOENT)
		api_problem(call, 409, NULL, "it was written, and deleted again meanwhile");
	else if (rv != 0)
		api_store_failed(call);
	else
		vm_answer(call, vm);
}

static const char *vm_name(const struct api_call *call)
{
	return call->arg[0] != '\0' ? call->arg : ((const Tb__Vm *)call->request)->name;
}

static void vm_applied(struct api_call *call, const Tb__CommandResult *result)
{
	(void)result;
	vm_written(call, vm_name(call));
}

/* The VM as it would be. */
static void vm_rehearse(struct api_call *call, Tb__Command *command)
{
	struct store *s;
	Tb__Vm *vm;
	int rv = api_rehearse(call, command, &s);

	if (rv != 0)
		return;
	rv = store_vm_find(s, vm_name(call), &vm);
	store_close(s);
	if (rv != 0) {
		api_store_failed(call);
		return;
	}
	api_answer_message(call, &vm->base);
	tb__vm__free_unpacked(vm, NULL);
}

/* `applied` may be NULL: the VM is answered, and a refusal is one. */
static void vm_propose(struct api_call *call, Tb__Command *command, api_applied applied)
{
	if (call->route->params != NULL && api_param(call, "dry-run")->number != 0) {
		vm_rehearse(call, command);
		return;
	}
	if (quorum_missing(call)) {
		tb__command__free_unpacked(command, NULL);
		return;
	}
	if (applied != NULL)
		api_propose_raw(call, command, applied);
	else
		api_propose(call, command, vm_applied);
}

/* --- what it is to be --- */

/* What a client sends back of an answer, and what is not its to say. */
static void vm_clean(Tb__Vm *vm)
{
	tb__vm_view__free_unpacked(vm->status, NULL);
	vm->status = NULL;
	tb__vm_placement__free_unpacked(vm->placement, NULL);
	vm->placement = NULL;
	vm->id = 0;
	vm->revision = 0;
	vm->created_ms = 0;
}

/* Not 0: the call is over. The path names the VM; a name in the body may only repeat it. */
static int vm_take(struct api_call *call, Tb__Vm *vm)
{
	struct apply_problem problem;

	vm_clean(vm);
	if (call->arg[0] != '\0' && vm->name[0] == '\0')
		api_field_set(&vm->name, call->arg);
	if (call->arg[0] != '\0' && strcmp(vm->name, call->arg) != 0) {
		api_problem_field(call, 422, "name",
				  "differs from the name in the path; a VM cannot be renamed");
		return -EINVAL;
	}
	if (vm_check(vm, &problem) == 0)
		return 0;
	api_problem_field(call, 422, problem.field, problem.message);
	return -EINVAL;
}

/* The VM is taken over. */
static Tb__Command *put_command(struct api_call *call, Tb__Vm *vm, Tb__VmPut__Mode mode,
				uint64_t if_revision)
{
	Tb__Command *command = api_command(call, 0);

	command->op_case = TB__COMMAND__OP_VM_PUT;
	command->vm_put = mem_alloc(sizeof(*command->vm_put));
	tb__vm_put__init(command->vm_put);
	command->vm_put->vm = vm;
	command->vm_put->mode = mode;
	command->vm_put->if_revision = if_revision;
	return command;
}

void api_vm_create(struct api_call *call)
{
	Tb__Vm *vm = (Tb__Vm *)call->request;

	if (vm_take(call, vm) == 0)
		vm_propose(call,
			   put_command(call, (Tb__Vm *)message_copy(&vm->base),
				       TB__VM_PUT__MODE__MODE_CREATE, 0),
			   NULL);
}

void api_vm_replace(struct api_call *call)
{
	Tb__Vm *vm = (Tb__Vm *)call->request;

	if (vm_take(call, vm) == 0)
		vm_propose(call,
			   put_command(call, (Tb__Vm *)message_copy(&vm->base),
				       TB__VM_PUT__MODE__MODE_REPLACE, call->if_revision),
			   NULL);
}

enum { PATCH_TRIES = 5 };

struct patch {
	unsigned tries;
};

static void vm_patch_try(struct api_call *call);

static void vm_patched(struct api_call *call, const Tb__CommandResult *result)
{
	const struct patch *p = call->state;

	if (result->refusal == TB__REFUSAL__REFUSAL_CONFLICT && call->if_revision == 0 &&
	    p->tries < PATCH_TRIES)
		vm_patch_try(call);
	else if (result->refusal != TB__REFUSAL__REFUSAL_NONE)
		api_problem_refusal(call, result);
	else
		vm_written(call, call->arg);
}

static void vm_patch_propose(struct api_call *call, Tb__Vm *vm)
{
	uint64_t revision = call->if_revision != 0 ? call->if_revision : vm->revision;
	struct json_error error = {0};

	if (json_merge(&vm->base, (const char *)call->body.data, call->body.len, &error) != 0) {
		api_problem_json(call, &error);
		tb__vm__free_unpacked(vm, NULL);
		return;
	}
	if (vm_take(call, vm) != 0) {
		tb__vm__free_unpacked(vm, NULL);
		return;
	}
	vm_propose(call, put_command(call, vm, TB__VM_PUT__MODE__MODE_REPLACE, revision),
		   vm_patched);
}

/* Without If-Match somebody else's change between our reading and our writing is no reason to
 * bother the client: the patch is applied to the newer VM. */
static void vm_patch_try(struct api_call *call)
{
	struct patch *p = call->state;
	Tb__Vm *vm;
	int rv = store_vm_find(api_store(call->api), call->arg, &vm);

	p->tries++;
	if (rv == -ENOENT)
		vm_absent(call);
	else if (rv != 0)
		api_store_failed(call);
	else
		vm_patch_propose(call, vm);
}

void api_vm_patch(struct api_call *call)
{
	call->state = mem_zalloc(sizeof(struct patch));
	call->state_free = free;
	vm_patch_try(call);
}

static void vm_deleted(struct api_call *call, const Tb__CommandResult *result)
{
	Tb__Empty empty = TB__EMPTY__INIT;

	if (result->refusal != TB__REFUSAL__REFUSAL_NONE)
		api_problem_refusal(call, result);
	else
		api_answer_message(call, &empty.base);
}

void api_vm_delete(struct api_call *call)
{
	Tb__Command *command = api_command(call, 0);

	command->op_case = TB__COMMAND__OP_VM_DELETE;
	command->vm_delete = mem_alloc(sizeof(*command->vm_delete));
	tb__vm_delete__init(command->vm_delete);
	command->vm_delete->name = mem_strdup(call->arg);
	command->vm_delete->if_revision = call->if_revision;
	vm_propose(call, command, vm_deleted);
}

/* --- whether it is to run, and where --- */

static void vm_run(struct api_call *call, Tb__VmRun__Verb verb)
{
	Tb__Command *command = api_command(call, 0);
	const Tb__VmStopRequest *request =
		call->request != NULL ? (const Tb__VmStopRequest *)call->request : NULL;

	command->op_case = TB__COMMAND__OP_VM_RUN;
	command->vm_run = mem_alloc(sizeof(*command->vm_run));
	tb__vm_run__init(command->vm_run);
	command->vm_run->name = mem_strdup(call->arg);
	command->vm_run->verb = verb;
	command->vm_run->hard = request != NULL && request->now;
	vm_propose(call, command, NULL);
}

/* One that has failed is to run already, and rests: only a restart has it tried now. */
static void vm_start_known(struct api_call *call, int error, const Tb__PeerAnswer *answer)
{
	const Tb__VmView *view = error == 0 ? view_find(answer, call->arg) : NULL;
	bool failed = view != NULL && view->condition == TB__VM_CONDITION__VM_CONDITION_FAILED;

	vm_run(call, failed ? TB__VM_RUN__VERB__VERB_RESTART : TB__VM_RUN__VERB__VERB_START);
}

void api_vm_start(struct api_call *call)
{
	if (api_param(call, "dry-run")->number != 0 || no_quorum(call))
		vm_run(call, TB__VM_RUN__VERB__VERB_START);
	else
		vms_query(call, call->arg, vm_start_known);
}

void api_vm_stop(struct api_call *call)
{
	vm_run(call, TB__VM_RUN__VERB__VERB_STOP);
}

void api_vm_restart(struct api_call *call)
{
	vm_run(call, TB__VM_RUN__VERB__VERB_RESTART);
}

/* Not 0: the call is over. */
static int board_find(struct api_call *call, const char *board, uint64_t *ret)
{
	struct store *s = api_store(call->api);
	uint64_t id = 0;
	Tb__Node *node;
	int rv = store_node_find(s, board, &node);

	if (rv == -ENOENT && text_to_u64(board, 1, UINT64_MAX, &id) == 0)
		rv = store_node_get(s, id, &node);
	if (rv == -ENOENT)
		api_problem_field(call, 422, "board",
				  "there is no such board; GET /v1/nodes lists them");
	else if (rv != 0)
		api_store_failed(call);
	if (rv != 0)
		return rv;
	*ret = node->id;
	tb__node__free_unpacked(node, NULL);
	return 0;
}

/* The board was found already; it may be gone since. */
static void vm_move(struct api_call *call)
{
	const Tb__VmMoveRequest *request = (const Tb__VmMoveRequest *)call->request;
	uint64_t node = 0;
	Tb__Command *command;

	if (request->board[0] != '\0' && board_find(call, request->board, &node) != 0)
		return;
	command = api_command(call, 0);
	command->op_case = TB__COMMAND__OP_VM_MOVE;
	command->vm_move = mem_alloc(sizeof(*command->vm_move));
	tb__vm_move__init(command->vm_move);
	command->vm_move->name = mem_strdup(call->arg);
	command->vm_move->node = node;
	command->vm_move->force = request->force;
	vm_propose(call, command, NULL);
}

/* A leader of a release before this question goes by the model alone. */
static void vm_move_answered(struct api_call *call, int error, const Tb__PeerAnswer *answer)
{
	if (error == 0 || error == -EOPNOTSUPP)
		vm_move(call);
	else
		api_problem_error(call, error, answer != NULL ? answer->message : NULL);
}

void api_vm_move(struct api_call *call)
{
	const Tb__VmMoveRequest *request = (const Tb__VmMoveRequest *)call->request;
	Tb__PeerMove move = TB__PEER_MOVE__INIT;
	Tb__PeerQuery query = TB__PEER_QUERY__INIT;

	if (request->board[0] != '\0' && board_find(call, request->board, &move.node_id) != 0)
		return;
	if (no_quorum(call)) {
		vm_move(call);
		return;
	}
	move.vm = call->arg;
	query.what_case = TB__PEER_QUERY__WHAT_MOVE;
	query.move = &move;
	api_query(call, &query, vm_move_answered);
}
