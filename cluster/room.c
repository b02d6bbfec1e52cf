#include "cluster/room.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/check.h"
#include "cluster/scheduler.h"
#include "lib/mem.h"
#include "lib/text.h"

void room_init(struct room *r, const Tb__Node *const *nodes, size_t count)
{
	memset(r, 0, sizeof(*r));
	r->share = SCHEDULER_SHARE;
	for (size_t i = 0; i < count && i < LIMIT_NODES; i++)
		r->boards[r->board_count++].node = nodes[i];
}

size_t room_find(const struct room *r, uint64_t node)
{
	size_t i = 0;

	while (i < r->board_count && r->boards[i].node->id != node)
		i++;
	return i;
}

/* What a VM takes. */
struct room_size {
	uint32_t memory_mib;
	uint32_t vcpus;
};

static struct room_size size_begins(const Tb__Vm *vm)
{
	return (struct room_size){vm->config->memory_mib + SCHEDULER_OVERHEAD_MIB,
				  vm->config->vcpus};
}

static struct room_size size_there(const Tb__Vm *vm)
{
	struct room_size size = size_begins(vm);
	const Tb__VmPlacement *p = vm->placement;

	if (size.memory_mib < p->most_memory_mib + SCHEDULER_OVERHEAD_MIB)
		size.memory_mib = p->most_memory_mib + SCHEDULER_OVERHEAD_MIB;
	if (size.vcpus < p->most_vcpus)
		size.vcpus = p->most_vcpus;
	return size;
}

uint32_t room_memory_mib(const Tb__Vm *vm)
{
	return size_begins(vm).memory_mib;
}

bool room_pins(const Tb__Vm *vm)
{
	for (size_t i = 0; i < vm->config->n_disks; i++)
		if (vm->config->disks[i]->kind == TB__DISK_KIND__DISK_KIND_DATA)
			return true;
	return false;
}

uint64_t room_home(const Tb__Vm *vm)
{
	const Tb__VmPlacement *p = vm->placement;
	bool made = p->n_home_disks > 0 || p->home_incarnation == 0;

	return made && room_pins(vm) && !SCHEDULER_FAULTY(SCHEDULER_FAULT_NO_PIN) ? p->home : 0;
}

bool room_has_data(const Tb__Vm *vm, const char *id)
{
	for (size_t i = 0; i < vm->config->n_disks; i++)
		if (vm->config->disks[i]->kind == TB__DISK_KIND__DISK_KIND_DATA &&
		    strcmp(vm->config->disks[i]->id, id) == 0)
			return true;
	return false;
}

static void size_take(struct room *r, size_t board, const Tb__Vm *vm, struct room_size size)
{
	struct room_board *b = &r->boards[board];

	b->memory_mib += size.memory_mib;
	b->vcpus += size.vcpus;
	b->vms++;
	if (r->held_count < sizeof(r->held) / sizeof(r->held[0]))
		r->held[r->held_count++] = (struct room_held){vm, board};
}

void room_take(struct room *r, size_t board, const Tb__Vm *vm)
{
	size_take(r, board, vm, size_begins(vm));
}

void room_hold(struct room *r, size_t board, const Tb__Vm *vm)
{
	size_take(r, board, vm, size_there(vm));
}

static bool bridges_there(const Tb__NodeHost *host, const Tb__VmConfig *c)
{
	for (size_t i = 0; i < c->n_nics; i++)
		if (!text_among(c->nics[i]->bridge, host->bridges, host->n_bridges))
			return false;
	return true;
}

/* By the key that `one` names, if it names any. */
static bool apart_by(const Tb__Vm *one, const Tb__Vm *two)
{
	const char *mine;
	const char *other;

	if (one->config->apart[0] == '\0')
		return false;
	mine = vm_label(one, one->config->apart);
	other = vm_label(two, one->config->apart);
	return mine != NULL && other != NULL && strcmp(mine, other) == 0;
}

static bool apart_there(const struct room *r, size_t board, const Tb__Vm *vm)
{
	for (size_t i = 0; i < r->held_count; i++) {
		const struct room_held *held = &r->held[i];

		if (held->board == board && (apart_by(vm, held->vm) || apart_by(held->vm, vm)))
			return true;
	}
	return false;
}

static enum room_lack size_lacks(const struct room *r, size_t board, const Tb__Vm *vm,
				 struct room_size size)
{
	const struct room_board *b = &r->boards[board];
	const Tb__NodeHost *host = b->node->host;
	const Tb__VmConfig *c = vm->config;
	uint64_t home = room_home(vm);

	if (host == NULL)
		return ROOM_SILENT;
	if (!host->hosts)
		return ROOM_NO_HOST;
	if (b->away)
		return ROOM_AWAY;
	if (b->behind)
		return ROOM_BEHIND;
	if (b->node->drain != TB__DRAIN__DRAIN_OFF && !r->drained_too)
		return ROOM_DRAINED;
	if (c->n_require > 0 && !text_among(b->node->name, c->require, c->n_require))
		return ROOM_REQUIRE;
	if (home != 0 && home != b->node->id)
		return ROOM_HOME;
	if (!bridges_there(host, c))
		return ROOM_BRIDGE;
	if (apart_there(r, board, vm))
		return ROOM_APART;
	if ((uint64_t)b->memory_mib + size.memory_mib > host->memory_mib)
		return ROOM_MEMORY;
	if ((uint64_t)b->vcpus + size.vcpus > (uint64_t)host->vcpus * r->share)
		return ROOM_VCPUS;
	if (r->starts != 0 && b->starting >= r->starts)
		return ROOM_BUSY;
	return ROOM_FITS;
}

enum room_lack room_lacks(const struct room *r, size_t board, const Tb__Vm *vm)
{
	return size_lacks(r, board, vm, size_begins(vm));
}

static const struct {
	const char *one;
	const char *many;
} lack_words[ROOM_LACKS] = {
	[ROOM_FITS] = {"could take it", "could take it"},
	[ROOM_SILENT] = {"has not said yet what it can host",
			 "have not said yet what they can host"},
	[ROOM_NO_HOST] = {"hosts no virtual machines", "host no virtual machines"},
	[ROOM_AWAY] = {"is away", "are away"},
	[ROOM_BEHIND] = {"does not keep up with the log", "do not keep up with the log"},
	[ROOM_DRAINED] = {"is drained", "are drained"},
	[ROOM_REQUIRE] = {"is not one that it requires", "are not ones that it requires"},
	[ROOM_HOME] = {"does not have its data disks", "do not have its data disks"},
	[ROOM_BRIDGE] = {"lacks a bridge", "lack a bridge"},
	[ROOM_APART] = {"has a VM that it is kept apart from",
			"have a VM that it is kept apart from"},
	[ROOM_MEMORY] = {"lacks memory", "lack memory"},
	[ROOM_VCPUS] = {"lacks processors", "lack processors"},
	[ROOM_BUSY] = {"is starting others", "are starting others"},
};

void room_describe(const unsigned counts[ROOM_LACKS], size_t boards, struct buf *out)
{
	buf_printf(out, "%zu board%s", boards, boards == 1 ? "" : "s");
	/* What could be changed most easily comes first. */
	for (int lack = ROOM_LACKS - 1; lack >= 0; lack--) {
		if (counts[lack] == 0)
			continue;
		buf_printf(out, ", %u %s", counts[lack],
			   counts[lack] == 1 ? lack_words[lack].one : lack_words[lack].many);
	}
}

void room_explain(const struct room *r, size_t board, const Tb__Vm *vm, enum room_lack lack,
		  char *ret_message, size_t message_size)
{
	const struct room_board *b = &r->boards[board];
	const Tb__Node *node = b->node;

	if (lack == ROOM_MEMORY)
		snprintf(ret_message, message_size,
			 "%s has %" PRIu32 " MiB for virtual machines, %" PRIu32
			 " of them are taken by %u, and it needs %" PRIu32,
			 node->name, node->host->memory_mib, b->memory_mib, b->vms,
			 room_memory_mib(vm));
	else if (lack == ROOM_NO_HOST && node->host->why_not[0] != '\0')
		snprintf(ret_message, message_size, "%s hosts no virtual machines: %s", node->name,
			 node->host->why_not);
	else
		snprintf(ret_message, message_size, "%s %s", node->name, lack_words[lack].one);
}

/* --- admission ------------------------------------------------------------------------------- */

struct admission {
	const struct scheduler_room *rows;
	const Tb__Vm *vm;
	char *field;
	size_t field_size;
	char *message;
	size_t message_size;
};

__attribute__((format(printf, 3, 4))) static int
admit_refuse(const struct admission *a, const char *field, const char *format, ...)
{
	va_list args;

	snprintf(a->field, a->field_size, "%s", field);
	va_start(args, format);
	vsnprintf(a->message, a->message_size, format, args);
	va_end(args);
	return -EINVAL;
}

static int admit_require(const struct admission *a)
{
	const Tb__VmConfig *c = a->vm->config;

	for (size_t i = 0; i < c->n_require; i++) {
		char field[48];
		size_t n = 0;

		while (n < a->rows->node_count &&
		       strcmp(a->rows->nodes[n]->name, c->require[i]) != 0)
			n++;
		if (n < a->rows->node_count)
			continue;
		snprintf(field, sizeof(field), "config.require[%zu]", i);
		return admit_refuse(a, field, "no board is named %s; see witnessctl node list",
				    c->require[i]);
	}
	return 0;
}

/* The boards that may have it at all, as long as they are empty. */
struct candidates {
	const Tb__Node *nodes[LIMIT_NODES];
	size_t count;
	const Tb__Node *largest; /* by memory */
	uint32_t vcpus; /* of the one with most */
};

static int admit_candidates(const struct admission *a, struct candidates *ret)
{
	const Tb__Vm *vm = a->vm;
	uint64_t home = room_home(vm);
	const Tb__Node *silent = NULL;
	bool home_there = false;
	bool hosts = false;

	*ret = (struct candidates){0};
	for (size_t i = 0; i < a->rows->node_count && i < LIMIT_NODES; i++) {
		const Tb__Node *node = a->rows->nodes[i];

		home_there |= node->id == home;
		if (node->host == NULL || !node->host->hosts) {
			silent = node;
			continue;
		}
		hosts = true;
		if ((vm->config->n_require > 0 &&
		     !text_among(node->name, vm->config->require, vm->config->n_require)) ||
		    (home != 0 && node->id != home))
			continue;
		ret->nodes[ret->count++] = node;
		if (ret->largest == NULL || node->host->memory_mib > ret->largest->host->memory_mib)
			ret->largest = node;
		if (node->host->vcpus > ret->vcpus)
			ret->vcpus = node->host->vcpus;
	}
	if (home != 0 && !home_there)
		return admit_refuse(a, "config.disks",
				    "its data disks are on a board that is not in the cluster any "
				    "more; witnessctl vm move %s --force gives it empty ones",
				    vm->name);
	if (ret->count > 0)
		return 0;
	if (hosts)
		return admit_refuse(a, home != 0 ? "config.disks" : "config.require",
				    home != 0 ? "the board with its data disks hosts no virtual "
						"machines, or is not one that it requires"
					      : "none of the boards that it requires hosts virtual "
						"machines");
	return admit_refuse(a, "",
			    "no board hosts virtual machines: %s %s; see witnessctl node "
			    "show %s",
			    silent != NULL ? silent->name : "there is none",
			    silent == NULL	   ? ""
			    : silent->host == NULL ? "has not said yet what it can host"
						   : silent->host->why_not,
			    silent != NULL ? silent->name : "");
}

static int admit_size(const struct admission *a, const struct candidates *boards)
{
	const Tb__VmConfig *c = a->vm->config;
	const Tb__Node *largest = boards->largest;

	if (room_memory_mib(a->vm) > largest->host->memory_mib)
		return admit_refuse(a, "config.memoryMib",
				    "it needs %" PRIu32 " MiB (%" PRIu32
				    " and %d for its process), and the largest board that it may "
				    "be on, %s, has %" PRIu32 " MiB for virtual machines",
				    room_memory_mib(a->vm), c->memory_mib, SCHEDULER_OVERHEAD_MIB,
				    largest->name, largest->host->memory_mib);
	if (c->vcpus > (uint64_t)boards->vcpus * SCHEDULER_SHARE)
		return admit_refuse(a, "config.vcpus",
				    "it needs %" PRIu32
				    " vCPUs, and no board has more than %" PRIu32
				    " cores, of which each may be shared by %d",
				    c->vcpus, boards->vcpus, SCHEDULER_SHARE);
	return 0;
}

static int admit_bridges(const struct admission *a, const struct candidates *boards)
{
	const Tb__VmConfig *c = a->vm->config;

	for (size_t i = 0; i < c->n_nics; i++) {
		char field[48];
		size_t n = 0;

		while (n < boards->count &&
		       !text_among(c->nics[i]->bridge, boards->nodes[n]->host->bridges,
				   boards->nodes[n]->host->n_bridges))
			n++;
		if (n < boards->count)
			continue;
		snprintf(field, sizeof(field), "config.nics[%zu].bridge", i);
		return admit_refuse(
			a, field,
			"no board that it may be on has a bridge %s; make one there, or "
			"name one that witnessctl node show lists",
			c->nics[i]->bridge);
	}
	return 0;
}

/* All of it on one board. */
static int admit_whole(const struct admission *a, const struct candidates *boards)
{
	struct room *r = mem_alloc(sizeof(*r));
	unsigned counts[ROOM_LACKS] = {0};
	struct buf text = {0};
	int rv = 0;

	room_init(r, boards->nodes, boards->count);
	r->drained_too = true;
	for (size_t i = 0; i < r->board_count; i++)
		counts[room_lacks(r, i, a->vm)]++;
	if (counts[ROOM_FITS] == 0) {
		room_describe(counts, r->board_count, &text);
		rv = admit_refuse(a, "config", "no board has all that it needs: %s",
				  buf_string(&text));
	}
	buf_free(&text);
	free(r);
	return rv;
}

/* --- room for the loss of any one board --- */

/* What is bound to few boards first, then by size: first-fit decreasing. It may miss a packing that
 * is there, and then says no where a yes would do. */
static int packing_order(const void *one, const void *two)
{
	const Tb__Vm *a = *(const Tb__Vm *const *)one;
	const Tb__Vm *b = *(const Tb__Vm *const *)two;
	bool a_bound = a->config->n_require > 0 || room_home(a) != 0;
	bool b_bound = b->config->n_require > 0 || room_home(b) != 0;
	uint32_t a_mib = size_there(a).memory_mib;
	uint32_t b_mib = size_there(b).memory_mib;

	if (a_bound != b_bound)
		return a_bound ? -1 : 1;
	if (a_mib != b_mib)
		return a_mib > b_mib ? -1 : 1;
	return a->id < b->id ? -1 : a->id > b->id;
}

/* It stays where it is, whatever is lost with that board. */
static bool lost_with(const Tb__Vm *vm, uint64_t node)
{
	return room_home(vm) == node;
}

struct packing {
	const Tb__Vm **vms;
	size_t count;
	const struct scheduler_room *rows;
	const Tb__Vm *asked; /* counts as it is to be */
};

/* What it needs when a board is lost: those of that board begin anew. */
static struct room_size packing_size(const struct packing *p, const Tb__Vm *vm,
				     const Tb__Node *without)
{
	return vm == p->asked || vm->placement->node == without->id ? size_begins(vm)
								    : size_there(vm);
}

/* The VM that has no place without the board, or NULL. */
static const Tb__Vm *packing_fails(const struct packing *p, const Tb__Node *without)
{
	struct room *r = mem_alloc(sizeof(*r));
	const Tb__Vm *left = NULL;

	room_init(r, p->rows->nodes, p->rows->node_count);
	for (size_t i = 0; i < r->board_count; i++)
		r->boards[i].away = r->boards[i].node == without;
	for (size_t v = 0; v < p->count && left == NULL; v++) {
		const Tb__Vm *vm = p->vms[v];
		struct room_size size = packing_size(p, vm, without);
		size_t i = 0;

		if (lost_with(vm, without->id))
			continue;
		while (i < r->board_count && size_lacks(r, i, vm, size) != ROOM_FITS)
			i++;
		if (i < r->board_count)
			size_take(r, i, vm, size);
		else
			left = vm;
	}
	free(r);
	return left;
}

static int keep_room_refuse(const struct admission *a, const struct packing *p,
			    const Tb__Node *without, const Tb__Vm *left)
{
	uint64_t have = 0;
	uint64_t need = 0;
	unsigned count = 0;

	for (size_t i = 0; i < a->rows->node_count; i++) {
		const Tb__Node *node = a->rows->nodes[i];

		if (node != without && node->host != NULL && node->host->hosts &&
		    node->drain == TB__DRAIN__DRAIN_OFF)
			have += node->host->memory_mib;
	}
	for (size_t i = 0; i < p->count; i++) {
		if (lost_with(p->vms[i], without->id))
			continue;
		need += packing_size(p, p->vms[i], without).memory_mib;
		count++;
	}
	return admit_refuse(a, "config.memoryMib",
			    "without %s the other boards have %" PRIu64
			    " MiB for virtual machines, and the %u to be kept running need %" PRIu64
			    " MiB: %s would have no place; stop some, or let go of the room with "
			    "witnessctl cluster set --keep-room off",
			    without->name, have, count, need, left->name);
}

static int admit_keep_room(const struct admission *a)
{
	struct packing p = {.rows = a->rows, .count = a->rows->vm_count + 1, .asked = a->vm};
	int rv = 0;

	p.vms = mem_array(p.count, sizeof(*p.vms));
	for (size_t i = 0; i < a->rows->vm_count; i++)
		p.vms[i] = a->rows->vms[i];
	p.vms[a->rows->vm_count] = a->vm;
	qsort(p.vms, p.count, sizeof(*p.vms), packing_order);
	for (size_t i = 0; i < a->rows->node_count && rv == 0; i++) {
		const Tb__Node *node = a->rows->nodes[i];
		const Tb__Vm *left;

		if (node->host == NULL || !node->host->hosts)
			continue;
		left = packing_fails(&p, node);
		if (left != NULL)
			rv = keep_room_refuse(a, &p, node, left);
	}
	free(p.vms);
	return rv;
}

int scheduler_admit(const struct scheduler_room *room, const Tb__Vm *vm, char *ret_field,
		    size_t field_size, char *ret_message, size_t message_size)
{
	const struct admission a = {room, vm, ret_field, field_size, ret_message, message_size};
	struct candidates boards;
	int rv = admit_require(&a);

	if (rv == 0)
		rv = admit_candidates(&a, &boards);
	if (rv == 0)
		rv = admit_size(&a, &boards);
	if (rv == 0)
		rv = admit_bridges(&a, &boards);
	if (rv == 0)
		rv = admit_whole(&a, &boards);
	return rv == 0 && room->keep_room ? admit_keep_room(&a) : rv;
}

/* The board with all that is placed there. */
static void room_of(struct room *r, const struct scheduler_room *rows, const Tb__Node *node)
{
	room_init(r, &node, 1);
	for (size_t i = 0; i < rows->vm_count; i++)
		if (rows->vms[i]->placement->node == node->id)
			room_hold(r, 0, rows->vms[i]);
}

int scheduler_holds(const struct scheduler_room *rows, const Tb__Node *node, const Tb__Vm *vm,
		    char *ret_field, size_t field_size, char *ret_message, size_t message_size)
{
	const struct admission a = {rows, vm, ret_field, field_size, ret_message, message_size};
	const Tb__NodeHost *host = node->host;
	struct room *r = mem_alloc(sizeof(*r));
	const struct room_board *b = &r->boards[0];
	int rv = 0;

	room_of(r, rows, node);
	if (host == NULL || !host->hosts)
		rv = 0; /* nobody knows what it has */
	else if ((uint64_t)b->memory_mib + room_memory_mib(vm) > host->memory_mib)
		rv = admit_refuse(&a, "config.memoryMib",
				  "it is on %s, which has %" PRIu32
				  " MiB for virtual machines; %" PRIu32
				  " of them are taken by %u other%s, and it would need %" PRIu32
				  "; move it first, or stop it",
				  node->name, host->memory_mib, b->memory_mib, b->vms,
				  b->vms == 1 ? "" : "s", room_memory_mib(vm));
	else if ((uint64_t)b->vcpus + vm->config->vcpus > (uint64_t)host->vcpus * r->share)
		rv = admit_refuse(&a, "config.vcpus",
				  "it is on %s, whose %" PRIu32
				  " cores may be shared by %d vCPUs each; %" PRIu32
				  " vCPUs are those of %u other%s, and it would have %" PRIu32
				  "; move it first, or stop it",
				  node->name, host->vcpus, SCHEDULER_SHARE, b->vcpus, b->vms,
				  b->vms == 1 ? "" : "s", vm->config->vcpus);
	free(r);
	return rv;
}

int scheduler_takes(const struct scheduler_room *rows, const Tb__Node *node, const Tb__Vm *vm,
		    char *ret_message, size_t message_size)
{
	struct room *r = mem_alloc(sizeof(*r));
	enum room_lack lack;

	room_of(r, rows, node);
	lack = room_lacks(r, 0, vm);
	if (lack != ROOM_FITS)
		room_explain(r, 0, vm, lack, ret_message, message_size);
	free(r);
	return lack == ROOM_FITS ? 0 : -EINVAL;
}
