/* Images and virtual machines: what persons want of them, and where the scheduler puts them.
 *
 * S3 is kept in two places: the scheduler decides when a VM may leave its board (scheduler.h), and
 * here every command that moves it names the incarnation that it saw. A decision that was made on
 * an older placement is refused. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/apply_internal.h"
#include "cluster/check.h"
#include "cluster/limits.h"
#include "cluster/room.h"
#include "cluster/scheduler.h"
#include "cluster/snapshot.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "proto/json.h"

enum {
	DEFAULT_VCPUS = 1,
	DEFAULT_MEMORY_MIB = 128,
	DEFAULT_ATTEMPTS = 3,
	DEFAULT_BACKOFF_MS = 1000,
	/* A history that went on after a backup was taken moved its VMs less often than this. */
	INCARNATION_GAP = 1000000,
};

static void text_set(char **text, char *owned)
{
	if (*text != (char *)(uintptr_t)protobuf_c_empty_string)
		free(*text);
	*text = owned;
}

/* --- images ---------------------------------------------------------------------------------- */

static int image_free_name(struct applier *a, const Tb__Image *image)
{
	Tb__Image *other;
	int rv = store_image_find(a->s, image->name, &other);

	if (rv != 0)
		return rv == -ENOENT ? 0 : rv;
	rv = refuse(a, TB__REFUSAL__REFUSAL_EXISTS, "name",
		    "the name %s is that of the image %.12s...; choose another, or remove that one "
		    "with witnessctl image rm %s",
		    other->name, other->sha256, other->name);
	tb__image__free_unpacked(other, NULL);
	return rv;
}

/* The bytes are there already, perhaps by another name. */
static int image_again(struct applier *a, const Tb__Image *old, const Tb__Image *image)
{
	if (strcmp(old->name, image->name) != 0 || old->kind != image->kind)
		return refuse(a, TB__REFUSAL__REFUSAL_EXISTS, "sha256",
			      "these bytes are the image %s already; use it, or remove it first",
			      old->name);
	a->result->unchanged = 1;
	return 0;
}

static int image_put_new(struct applier *a, const Tb__Image *image)
{
	Tb__Image row = *image;
	uint64_t count;
	int rv = image_free_name(a, image);

	if (rv == 0)
		rv = store_count(a->s, "image", &count);
	if (rv != 0)
		return rv;
	if (count >= LIMIT_IMAGES)
		return refuse(a, TB__REFUSAL__REFUSAL_LIMIT, "name",
			      "a cluster has at most %d images; remove some with witnessctl image "
			      "rm",
			      LIMIT_IMAGES);
	row.created_ms = a->command->time_ms;
	row.created_by = a->command->actor;
	row.revision = a->index;
	row.status = NULL;
	a->result->created = 1;
	a->out->images_changed = true;
	rv = store_image_put(a->s, &row);
	return rv != 0 ? rv
		       : audit(a, "image.added", INFO, (struct subject){0},
			       "image %s added (%" PRIu64 " bytes, SHA-256 %s)", row.name, row.size,
			       row.sha256);
}

static int apply_image_add(struct applier *a, const Tb__ImageAdd *op)
{
	struct apply_problem problem;
	Tb__Image *old;
	int rv;

	if (op->image == NULL)
		return refuse_missing(a, "image");
	if (image_check(op->image, &problem) != 0)
		return refuse_invalid(a, &problem);
	rv = store_image_get(a->s, op->image->sha256, &old);
	if (rv == -ENOENT)
		return image_put_new(a, op->image);
	if (rv != 0)
		return rv;
	rv = image_again(a, old, op->image);
	tb__image__free_unpacked(old, NULL);
	return rv;
}

struct users {
	const char *sha256;
	unsigned count;
	struct buf names; /* of the first ones */
};

static int users_visit(void *arg, const Tb__Vm *vm)
{
	struct users *users = arg;

	if (!vm_uses_image(vm, users->sha256))
		return 0;
	if (users->count < 3)
		buf_printf(&users->names, "%s%s", users->count > 0 ? ", " : "", vm->name);
	users->count++;
	return 0;
}

static int image_remove(struct applier *a, const Tb__Image *image)
{
	struct users users = {.sha256 = image->sha256};
	int rv = store_vms(a->s, users_visit, &users);

	if (rv == 0 && users.count > 0)
		rv = refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "sha256",
			    "the image %s is used by %u virtual machine%s (%s%s); delete or change "
			    "them first",
			    image->name, users.count, users.count > 1 ? "s" : "",
			    buf_string(&users.names), users.count > 3 ? ", ..." : "");
	buf_free(&users.names);
	if (rv == 0)
		rv = store_image_delete(a->s, image->sha256);
	if (rv != 0)
		return rv;
	a->result->deleted = 1;
	a->out->images_changed = true;
	return audit(a, "image.removed", INFO, (struct subject){0}, "image %s removed (SHA-256 %s)",
		     image->name, image->sha256);
}

static int apply_image_remove(struct applier *a, const Tb__ImageRemove *op)
{
	struct apply_problem problem;
	Tb__Image *image;
	int rv;

	if (hex_check(op->sha256, 64, "sha256", &problem) != 0)
		return refuse_invalid(a, &problem);
	rv = store_image_get(a->s, op->sha256, &image);
	if (rv == -ENOENT)
		return refuse(a, TB__REFUSAL__REFUSAL_NOT_FOUND, "sha256",
			      "there is no such image; see witnessctl image list");
	if (rv != 0)
		return rv;
	rv = image_remove(a, image);
	tb__image__free_unpacked(image, NULL);
	return rv;
}

/* --- all boards and VMs, for the arithmetic -------------------------------------------------- */

struct rows {
	size_t node_count;
	Tb__Node *nodes[LIMIT_NODES];
	size_t vm_count;
	Tb__Vm *vms[LIMIT_VMS];
	uint64_t except; /* VM that is not among them */
	bool placed; /* those with a placement, not those that are wanted */
};

static int rows_node(void *arg, const Tb__Node *row)
{
	struct rows *rows = arg;

	if (rows->node_count < LIMIT_NODES)
		rows->nodes[rows->node_count++] = (Tb__Node *)message_copy(&row->base);
	return 0;
}

static int rows_vm(void *arg, const Tb__Vm *row)
{
	struct rows *rows = arg;

	if (row->id != rows->except && rows->vm_count < LIMIT_VMS &&
	    (rows->placed ? row->placement->node != 0 : row->running))
		rows->vms[rows->vm_count++] = (Tb__Vm *)message_copy(&row->base);
	return 0;
}

static int rows_get(struct applier *a, uint64_t except, bool placed, struct rows *ret)
{
	int rv;

	*ret = (struct rows){.except = except, .placed = placed};
	rv = store_nodes(a->s, rows_node, ret);
	return rv != 0 ? rv : store_vms(a->s, rows_vm, ret);
}

static void rows_free(struct rows *rows)
{
	for (size_t i = 0; i < rows->node_count; i++)
		tb__node__free_unpacked(rows->nodes[i], NULL);
	for (size_t i = 0; i < rows->vm_count; i++)
		tb__vm__free_unpacked(rows->vms[i], NULL);
	free(rows);
}

static struct scheduler_room rows_room(const struct rows *rows, bool keep_room)
{
	return (struct scheduler_room){
		.nodes = (const Tb__Node *const *)rows->nodes,
		.node_count = rows->node_count,
		.vms = (const Tb__Vm *const *)rows->vms,
		.vm_count = rows->vm_count,
		.keep_room = keep_room,
	};
}

/* Could the VM be run? `wanted`: it is to be, so that it counts for the room that is kept. */
static int vm_admit(struct applier *a, const Tb__Vm *vm, bool wanted)
{
	struct rows *rows = mem_zalloc(sizeof(*rows));
	struct apply_problem problem;
	struct scheduler_room room;
	Tb__Cluster *cluster = NULL;
	int rv = rows_get(a, vm->id, false, rows);

	if (rv == 0)
		rv = store_cluster_get(a->s, &cluster);
	if (rv == 0) {
		room = rows_room(rows, cluster->keep_room && wanted);
		if (scheduler_admit(&room, vm, problem.field, sizeof(problem.field),
				    problem.message, sizeof(problem.message)) != 0)
			rv = refuse_invalid(a, &problem);
	}
	tb__cluster__free_unpacked(cluster, NULL);
	rows_free(rows);
	return rv;
}

/* --- what a VM in the model looks like ------------------------------------------------------- */

static int label_order(const void *one, const void *two)
{
	const Tb__Vm__LabelsEntry *const *a = one;
	const Tb__Vm__LabelsEntry *const *b = two;

	return strcmp((*a)->key, (*b)->key);
}

static void vm_defaults(Tb__Vm *row)
{
	Tb__VmConfig *c = row->config;

	c->vcpus = c->vcpus != 0 ? c->vcpus : DEFAULT_VCPUS;
	c->memory_mib = c->memory_mib != 0 ? c->memory_mib : DEFAULT_MEMORY_MIB;
	c->restart_attempts = c->restart_attempts != 0 ? c->restart_attempts : DEFAULT_ATTEMPTS;
	c->restart_backoff_ms =
		c->restart_backoff_ms != 0 ? c->restart_backoff_ms : DEFAULT_BACKOFF_MS;
	for (size_t i = 0; i < c->n_disks; i++)
		if (c->disks[i]->id[0] == '\0')
			text_set(&c->disks[i]->id, mem_printf("disk%zu", i));
	if (row->n_labels > 1)
		qsort(row->labels, row->n_labels, sizeof(row->labels[0]), label_order);
}

static int image_word_get(struct applier *a, const char *word, const char *field, Tb__Image **ret)
{
	int rv = image_sum_shaped(word) ? store_image_get(a->s, word, ret)
					: store_image_find(a->s, word, ret);

	if (rv != -ENOENT)
		return rv;
	return refuse(a, TB__REFUSAL__REFUSAL_INVALID, field,
		      "there is no image %s; see witnessctl image list, or push it with witnessctl "
		      "image push",
		      word);
}

/* Puts the SHA-256 in the place of the name. */
static int image_resolve(struct applier *a, char **word, Tb__ImageKind kind, uint32_t size_mib,
			 const char *field)
{
	static const char *const kinds[] = {"disk", "kernel", "initrd"};
	Tb__Image *image;
	int rv = image_word_get(a, *word, field, &image);

	if (rv != 0)
		return rv;
	if (image->kind != kind)
		rv = refuse(a, TB__REFUSAL__REFUSAL_INVALID, field,
			    "the image %s is of kind %s, and a %s is needed here", image->name,
			    kinds[image->kind], kinds[kind]);
	else if (size_mib != 0 && image->size > (uint64_t)size_mib << 20)
		rv = refuse(a, TB__REFUSAL__REFUSAL_INVALID, field,
			    "the image %s has %" PRIu64 " bytes, more than the disk's %" PRIu32
			    " MiB; make the disk larger, or leave its size out",
			    image->name, image->size, size_mib);
	else
		text_set(word, mem_strdup(image->sha256));
	tb__image__free_unpacked(image, NULL);
	return rv;
}

static int vm_images(struct applier *a, Tb__VmConfig *c)
{
	int rv =
		image_resolve(a, &c->kernel, TB__IMAGE_KIND__IMAGE_KIND_KERNEL, 0, "config.kernel");
	char field[48];

	if (rv == 0 && c->initrd[0] != '\0')
		rv = image_resolve(a, &c->initrd, TB__IMAGE_KIND__IMAGE_KIND_INITRD, 0,
				   "config.initrd");
	for (size_t i = 0; i < c->n_disks && rv == 0; i++) {
		snprintf(field, sizeof(field), "config.disks[%zu].image", i);
		if (c->disks[i]->kind != TB__DISK_KIND__DISK_KIND_DATA)
			rv = image_resolve(a, &c->disks[i]->image, TB__IMAGE_KIND__IMAGE_KIND_DISK,
					   c->disks[i]->size_mib, field);
	}
	return rv;
}

/* --- addresses of network cards --- */

struct mac_holder {
	const char *mac;
	uint64_t except; /* VM */
	char name[LIMIT_VM_NAME + 1]; /* whose it is, "" nobody's */
};

static int mac_visit(void *arg, const Tb__Vm *vm)
{
	struct mac_holder *holder = arg;

	if (vm->id == holder->except)
		return 0;
	for (size_t i = 0; i < vm->config->n_nics; i++) {
		if (strcmp(vm->config->nics[i]->mac, holder->mac) != 0)
			continue;
		snprintf(holder->name, sizeof(holder->name), "%s", vm->name);
		return 1;
	}
	return 0;
}

static int mac_holder_get(struct applier *a, const Tb__Vm *vm, const char *mac,
			  struct mac_holder *ret)
{
	*ret = (struct mac_holder){.mac = mac, .except = vm->id};
	return store_vms(a->s, mac_visit, ret);
}

/* Locally administered, of one card (IEEE 802, the two low bits of the first byte). */
static char *mac_derive(const char *cluster_id, uint64_t vm, size_t nic, unsigned attempt)
{
	char *text = mem_printf("%s/%" PRIu64 "/%zu/%u", cluster_id, vm, nic, attempt);
	uint8_t sum[SNAPSHOT_SUM];

	snapshot_sum(text, strlen(text), sum);
	free(text);
	return mem_printf("%02x:%02x:%02x:%02x:%02x:%02x", (sum[0] & 0xfc) | 2, sum[1], sum[2],
			  sum[3], sum[4], sum[5]);
}

static bool mac_own(const Tb__VmConfig *c, const char *mac)
{
	for (size_t i = 0; i < c->n_nics; i++)
		if (strcmp(c->nics[i]->mac, mac) == 0)
			return true;
	return false;
}

static int mac_give(struct applier *a, Tb__Vm *row, const char *cluster_id, size_t nic)
{
	for (unsigned attempt = 0;; attempt++) {
		char *mac = mac_derive(cluster_id, row->id, nic, attempt);
		struct mac_holder holder;
		int rv = mac_holder_get(a, row, mac, &holder);

		if (rv == 0 && holder.name[0] == '\0' && !mac_own(row->config, mac)) {
			text_set(&row->config->nics[nic]->mac, mac);
			return 0;
		}
		free(mac);
		if (rv != 0)
			return rv;
	}
}

/* One that was given before stays with its number. */
static void macs_keep(Tb__VmConfig *c, const Tb__Vm *old)
{
	for (size_t i = 0; old != NULL && i < c->n_nics && i < old->config->n_nics; i++) {
		if (c->nics[i]->mac[0] == '\0' && !mac_own(c, old->config->nics[i]->mac))
			text_set(&c->nics[i]->mac, mem_strdup(old->config->nics[i]->mac));
	}
}

static int macs_check(struct applier *a, const Tb__Vm *row)
{
	for (size_t i = 0; i < row->config->n_nics; i++) {
		const char *mac = row->config->nics[i]->mac;
		struct mac_holder holder;
		char field[48];
		int rv;

		if (mac[0] == '\0')
			continue;
		rv = mac_holder_get(a, row, mac, &holder);
		if (rv != 0)
			return rv;
		if (holder.name[0] == '\0')
			continue;
		snprintf(field, sizeof(field), "config.nics[%zu].mac", i);
		return refuse(a, TB__REFUSAL__REFUSAL_EXISTS, field,
			      "a card of the VM %s has the address %s; leave it out to be given "
			      "another",
			      holder.name, mac);
	}
	return 0;
}

static int vm_macs(struct applier *a, Tb__Vm *row, const Tb__Vm *old)
{
	Tb__Cluster *cluster;
	int rv = macs_check(a, row);

	if (rv == 0)
		rv = store_cluster_get(a->s, &cluster);
	if (rv != 0)
		return rv;
	macs_keep(row->config, old);
	for (size_t i = 0; i < row->config->n_nics && rv == 0; i++)
		if (row->config->nics[i]->mac[0] == '\0')
			rv = mac_give(a, row, cluster->id, i);
	tb__cluster__free_unpacked(cluster, NULL);
	return rv;
}

/* --- create and change ----------------------------------------------------------------------- */

static int vm_prefer_check(struct applier *a, const Tb__VmConfig *c)
{
	for (size_t i = 0; i < c->n_prefer; i++) {
		Tb__Node *node;
		char field[48];
		int rv = store_node_find(a->s, c->prefer[i], &node);

		if (rv == 0) {
			tb__node__free_unpacked(node, NULL);
			continue;
		}
		if (rv != -ENOENT)
			return rv;
		snprintf(field, sizeof(field), "config.prefer[%zu]", i);
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, field,
			      "no board is named %s; see witnessctl node list", c->prefer[i]);
	}
	return 0;
}

/* All that the rest of the model has to say of a configuration. */
static int vm_settle_config(struct applier *a, Tb__Vm *row, const Tb__Vm *old)
{
	int rv = vm_images(a, row->config);

	if (rv == 0)
		rv = vm_prefer_check(a, row->config);
	if (rv == 0)
		rv = vm_macs(a, row, old);
	if (rv == 0)
		vm_defaults(row);
	return rv == 0 ? vm_admit(a, row, row->running) : rv;
}

static int vm_put_row(struct applier *a, const Tb__Vm *row)
{
	a->out->vms_changed = true;
	return store_vm_put(a->s, row);
}

static int vm_create(struct applier *a, Tb__Vm *row)
{
	struct subject subject = {.vm = row->name};
	uint64_t count;
	int rv = store_count(a->s, "vm", &count);

	if (rv != 0)
		return rv;
	if (count >= LIMIT_VMS)
		return refuse(a, TB__REFUSAL__REFUSAL_LIMIT, "name",
			      "a cluster has at most %d virtual machines; delete some", LIMIT_VMS);
	rv = store_counter_next(a->s, "vm", &row->id);
	if (rv != 0)
		return rv;
	row->created_ms = a->command->time_ms;
	row->revision = a->index;
	row->placement = mem_alloc(sizeof(*row->placement));
	tb__vm_placement__init(row->placement);
	rv = vm_settle_config(a, row, NULL);
	if (rv == 0)
		rv = vm_put_row(a, row);
	if (rv != 0)
		return rv;
	a->result->created = 1;
	rv = audit(a, "vm.created", INFO, subject,
		   "VM %s created: %" PRIu32 " vCPU%s, %" PRIu32 " MiB", row->name,
		   row->config->vcpus, row->config->vcpus > 1 ? "s" : "", row->config->memory_mib);
	if (rv == 0 && row->running)
		rv = audit(a, "vm.started", INFO, subject, "VM %s is to run", row->name);
	return rv;
}

static int vm_refuse_revision(struct applier *a, const char *name, uint64_t is)
{
	if (is == 0)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "ifRevision",
			      "VM %s is gone; read it again", name);
	return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "ifRevision",
		      "VM %s was changed meanwhile (its revision is %" PRIu64
		      "); read it again and repeat the change",
		      name, is);
}

static void home_disks_free(Tb__VmPlacement *p)
{
	for (size_t i = 0; i < p->n_home_disks; i++)
		text_set(&p->home_disks[i], NULL);
	free(p->home_disks);
	p->home_disks = NULL;
	p->n_home_disks = 0;
}

/* What is on the board that was its home is none of its disks any more. */
static void home_leave(Tb__VmPlacement *p)
{
	home_disks_free(p);
	p->home = 0;
	p->home_incarnation = 0;
}

/* It begins with empty disks where it is placed now. */
static void home_begin(Tb__VmPlacement *p)
{
	home_leave(p);
	p->home = p->node;
	p->home_incarnation = p->incarnation;
}

/* It stays on its board if it begins anew there: its board must have the room. One that is on its
 * way out is placed again anyway. */
static int vm_grow(struct applier *a, const Tb__Vm *old, const Tb__Vm *row)
{
	const Tb__VmPlacement *p = row->placement;
	struct apply_problem problem;
	struct scheduler_room room;
	struct rows *rows;
	int rv;

	if (p->node == 0 || p->releasing ||
	    (row->config->memory_mib <= old->config->memory_mib &&
	     row->config->vcpus <= old->config->vcpus))
		return 0;
	rows = mem_zalloc(sizeof(*rows));
	rv = rows_get(a, row->id, true, rows);
	room = rows_room(rows, false);
	for (size_t i = 0; i < rows->node_count && rv == 0; i++)
		if (rows->nodes[i]->id == p->node &&
		    scheduler_holds(&room, rows->nodes[i], row, problem.field,
				    sizeof(problem.field), problem.message,
				    sizeof(problem.message)) != 0)
			rv = refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, problem.field, "%s",
				    problem.message);
	rows_free(rows);
	return rv;
}

/* Its process may have what the configuration said at any time since it was placed: it begins anew
 * on its board without an entry. */
static void most_keep(Tb__VmPlacement *p, const Tb__VmConfig *old)
{
	if (p->node == 0)
		return;
	if (p->most_memory_mib < old->memory_mib)
		p->most_memory_mib = old->memory_mib;
	if (p->most_vcpus < old->vcpus)
		p->most_vcpus = old->vcpus;
}

/* It is only said where the configuration says less. */
static void most_settle(Tb__VmPlacement *p, const Tb__VmConfig *now)
{
	if (p->most_memory_mib <= now->memory_mib)
		p->most_memory_mib = 0;
	if (p->most_vcpus <= now->vcpus)
		p->most_vcpus = 0;
}

static int vm_replace(struct applier *a, const Tb__Vm *old, Tb__Vm *row)
{
	int rv;

	row->id = old->id;
	row->running = old->running;
	row->created_ms = old->created_ms;
	row->revision = old->revision;
	row->placement = (Tb__VmPlacement *)message_copy(&old->placement->base);
	most_keep(row->placement, old->config);
	rv = vm_settle_config(a, row, old);
	rv = rv != 0 ? rv : vm_grow(a, old, row);
	if (rv != 0)
		return rv;
	most_settle(row->placement, row->config);
	if (message_equal(&old->base, &row->base)) {
		a->result->unchanged = 1;
		return 0;
	}
	/* Its board makes a data disk at the next start there: that is its home, which pins it once
	 * the disk is made. */
	if (room_pins(row) && row->placement->node != 0 && !row->placement->releasing &&
	    row->placement->home == 0)
		home_begin(row->placement);
	row->revision = a->index;
	a->result->changed = 1;
	rv = vm_put_row(a, row);
	return rv != 0 ? rv
		       : audit(a, "vm.changed", INFO, (struct subject){.vm = row->name},
			       "VM %s changed%s", row->name,
			       row->placement->node != 0 ? "; it takes effect at its next start"
							 : "");
}

static int vm_put(struct applier *a, const Tb__VmPut *op, Tb__Vm *row)
{
	bool create = op->mode == TB__VM_PUT__MODE__MODE_CREATE;
	Tb__Vm *old;
	int rv = store_vm_find(a->s, row->name, &old);

	if (rv == -ENOENT) {
		if (op->if_revision != 0)
			return vm_refuse_revision(a, row->name, 0);
		return create ? vm_create(a, row)
			      : refuse(a, TB__REFUSAL__REFUSAL_NOT_FOUND, "name",
				       "there is no VM %s; create it with witnessctl vm create %s",
				       row->name, row->name);
	}
	if (rv != 0)
		return rv;
	if (create)
		rv = refuse(a, TB__REFUSAL__REFUSAL_EXISTS, "name",
			    "the VM %s exists; change it with witnessctl vm set %s, or choose "
			    "another name",
			    old->name, old->name);
	else if (op->if_revision != 0 && op->if_revision != old->revision)
		rv = vm_refuse_revision(a, old->name, old->revision);
	else
		rv = vm_replace(a, old, row);
	tb__vm__free_unpacked(old, NULL);
	return rv;
}

static int apply_vm_put(struct applier *a, const Tb__VmPut *op)
{
	struct apply_problem problem;
	Tb__Vm *row;
	int rv;

	if (op->vm == NULL)
		return refuse_missing(a, "vm");
	if (op->mode > TB__VM_PUT__MODE__MODE_REPLACE)
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, "mode", "use create or replace");
	if (vm_check(op->vm, &problem) != 0)
		return refuse_invalid(a, &problem);
	row = (Tb__Vm *)message_copy(&op->vm->base);
	tb__vm_view__free_unpacked(row->status, NULL);
	tb__vm_placement__free_unpacked(row->placement, NULL);
	row->status = NULL;
	row->placement = NULL;
	rv = vm_put(a, op, row);
	tb__vm__free_unpacked(row, NULL);
	return rv;
}

/* --- what persons do with one ---------------------------------------------------------------- */

static int vm_named(struct applier *a, const char *name, Tb__Vm **ret)
{
	struct apply_problem problem;
	int rv;

	if (text_check(name, LIMIT_VM_NAME, "name", &problem) != 0)
		return refuse_invalid(a, &problem);
	rv = store_vm_find(a->s, name, ret);
	if (rv != -ENOENT)
		return rv;
	return refuse(a, TB__REFUSAL__REFUSAL_NOT_FOUND, "name",
		      "there is no VM %s; see witnessctl vm list", name);
}

/* The board's name, for sentences; the caller frees it. */
static char *node_name(struct applier *a, uint64_t id)
{
	Tb__Node *node;
	char *name;

	if (id == 0 || store_node_get(a->s, id, &node) != 0)
		return mem_printf("board %" PRIu64, id);
	name = mem_strdup(node->name);
	tb__node__free_unpacked(node, NULL);
	return name;
}

static int vm_delete(struct applier *a, const Tb__VmDelete *op, const Tb__Vm *vm)
{
	char *board;
	int rv;

	if (op->if_revision != 0 && op->if_revision != vm->revision)
		return vm_refuse_revision(a, vm->name, vm->revision);
	if (vm->running)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "name",
			      "VM %s runs or is to run; stop it first with witnessctl vm stop %s",
			      vm->name, vm->name);
	if (vm->placement->node != 0) {
		board = node_name(a, vm->placement->node);
		rv = refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "name",
			    "VM %s is still being ended on %s; wait until it is stopped "
			    "(witnessctl vm show %s)",
			    vm->name, board, vm->name);
		free(board);
		return rv;
	}
	a->result->deleted = 1;
	a->out->vms_changed = true;
	rv = store_vm_delete(a->s, vm->id);
	return rv != 0 ? rv
		       : audit(a, "vm.deleted", INFO, (struct subject){.vm = vm->name},
			       "VM %s deleted", vm->name);
}

static int apply_vm_delete(struct applier *a, const Tb__VmDelete *op)
{
	Tb__Vm *vm;
	int rv = vm_named(a, op->name, &vm);

	if (rv != 0)
		return rv;
	rv = vm_delete(a, op, vm);
	tb__vm__free_unpacked(vm, NULL);
	return rv;
}

/* It is off the board, or on it anew: its process is another one, if there is any. */
static void placement_renew(Tb__VmPlacement *p, uint64_t node, int64_t now_ms, const char *reason)
{
	p->node = node;
	p->releasing = false;
	p->hard = false;
	p->most_memory_mib = 0;
	p->most_vcpus = 0;
	p->since_ms = now_ms;
	text_set(&p->reason, mem_strdup(reason));
}

/* Its board is to end it. Once it is asked for force, there is no way back to asking the guest. */
static void placement_release(Tb__VmPlacement *p, bool hard, const char *reason, int64_t now_ms)
{
	if (!p->releasing) {
		p->releasing = true;
		p->since_ms = now_ms;
		text_set(&p->reason, mem_strdup(reason));
	}
	p->hard |= hard;
}

static int vm_start(struct applier *a, Tb__Vm *vm)
{
	if (vm->running) {
		a->result->unchanged = 1;
		return 0;
	}
	vm->running = true;
	vm->placement->moves = 0;
	vm->placement->avoid = 0;
	return vm_admit(a, vm, true);
}

static int vm_stop(struct applier *a, Tb__Vm *vm, bool hard)
{
	Tb__VmPlacement *p = vm->placement;
	bool placed = p->node != 0;

	if (!vm->running && (!placed || (p->releasing && (p->hard || !hard)))) {
		a->result->unchanged = 1;
		return 0;
	}
	vm->running = false;
	p->target = 0;
	if (placed)
		placement_release(p, hard, "it is stopped by a person", a->command->time_ms);
	return 0;
}

static int vm_restart(struct applier *a, Tb__Vm *vm, bool hard)
{
	Tb__VmPlacement *p = vm->placement;

	if (!vm->running)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "name",
			      "VM %s is stopped; start it with witnessctl vm start %s", vm->name,
			      vm->name);
	p->moves = 0;
	p->avoid = 0;
	if (p->node != 0) {
		if (!p->releasing)
			p->target = p->node;
		placement_release(p, hard, "it is restarted by a person", a->command->time_ms);
	}
	return 0;
}

static int vm_run(struct applier *a, const Tb__VmRun *op, Tb__Vm *vm)
{
	static const struct {
		const char *type;
		const char *text;
	} words[] = {
		{"vm.started", "is to run"},
		{"vm.stopped", "is stopped"},
		{"vm.restarted", "is restarted"},
	};
	int rv;

	if (op->verb == TB__VM_RUN__VERB__VERB_START)
		rv = vm_start(a, vm);
	else if (op->verb == TB__VM_RUN__VERB__VERB_STOP)
		rv = vm_stop(a, vm, op->hard);
	else
		rv = vm_restart(a, vm, op->hard);
	if (rv != 0 || a->result->unchanged != 0)
		return rv;
	vm->revision = a->index;
	a->result->changed = 1;
	rv = vm_put_row(a, vm);
	return rv != 0 ? rv
		       : audit(a, words[op->verb].type, INFO, (struct subject){.vm = vm->name},
			       "VM %s %s%s", vm->name, words[op->verb].text,
			       op->hard && op->verb != TB__VM_RUN__VERB__VERB_START
				       ? ", without asking the guest"
				       : "");
}

static int apply_vm_run(struct applier *a, const Tb__VmRun *op)
{
	Tb__Vm *vm;
	int rv;

	if (op->verb > TB__VM_RUN__VERB__VERB_RESTART)
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, "verb",
			      "use start, stop or restart");
	rv = vm_named(a, op->name, &vm);
	if (rv != 0)
		return rv;
	rv = vm_run(a, op, vm);
	tb__vm__free_unpacked(vm, NULL);
	return rv;
}

/* --- move --- */

/* Some board other than where it is, or the one that is asked for, takes it as things are. */
static int vm_move_fits(struct applier *a, const Tb__VmMove *op, const Tb__Vm *vm)
{
	struct rows *rows = mem_zalloc(sizeof(*rows));
	struct scheduler_room room;
	char message[256] = "there is no other board";
	const Tb__Node *asked = NULL;
	bool fits = false;
	int rv = rows_get(a, vm->id, true, rows);

	room = rows_room(rows, false);
	for (size_t i = 0; i < rows->node_count && rv == 0 && !fits; i++) {
		const Tb__Node *node = rows->nodes[i];

		if (op->node != 0 ? node->id != op->node : node->id == vm->placement->node)
			continue;
		asked = node;
		fits = scheduler_takes(&room, node, vm, message, sizeof(message)) == 0;
	}
	if (rv == 0 && op->node != 0 && asked == NULL)
		rv = refuse(a, TB__REFUSAL__REFUSAL_NOT_FOUND, "node",
			    "no board has the id %" PRIu64 "; see witnessctl node list", op->node);
	if (rv == 0 && !fits)
		rv = refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "node", "%s cannot take VM %s: %s",
			    op->node != 0 ? asked->name : "another board", vm->name, message);
	rows_free(rows);
	return rv;
}

/* Whether its data disks are in the way; with force they are left behind. */
static int vm_move_data(struct applier *a, const Tb__VmMove *op, Tb__Vm *vm)
{
	uint64_t home = room_home(vm);
	char *board;
	int rv;

	if (home == 0 || home == op->node)
		return 0;
	board = node_name(a, home);
	if (op->force)
		rv = audit(a, "vm.data-lost", WARNING, (struct subject){.vm = vm->name},
			   "VM %s leaves its data disks behind on %s and gets empty ones", vm->name,
			   board);
	else
		rv = refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "force",
			    "the data disks of VM %s are on %s and do not move with it; with "
			    "--force it starts with empty ones, and what they hold is lost to it",
			    vm->name, board);
	free(board);
	home_leave(vm->placement);
	return rv;
}

static int vm_move(struct applier *a, const Tb__VmMove *op, Tb__Vm *vm)
{
	Tb__VmPlacement *p = vm->placement;
	char *board;
	int rv;

	if (op->node != 0 && op->node == p->node && !p->releasing)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "node",
			      "VM %s is on that board; name another one", vm->name);
	rv = vm_move_data(a, op, vm);
	if (rv == 0)
		rv = vm_move_fits(a, op, vm);
	if (rv != 0)
		return rv;
	p->target = op->node;
	p->moves = 0;
	p->avoid = op->node == 0 ? p->node : 0;
	if (p->node != 0)
		placement_release(p, false, "it is moved by a person", a->command->time_ms);
	vm->revision = a->index;
	a->result->changed = 1;
	rv = vm_put_row(a, vm);
	if (rv != 0)
		return rv;
	board = node_name(a, op->node);
	rv = audit(a, "vm.moving", INFO, (struct subject){.vm = vm->name}, "VM %s %s %s", vm->name,
		   vm->running ? "is to move to" : "is to start next on",
		   op->node != 0 ? board : "another board");
	free(board);
	return rv;
}

static int apply_vm_move(struct applier *a, const Tb__VmMove *op)
{
	Tb__Vm *vm;
	int rv = vm_named(a, op->name, &vm);

	if (rv != 0)
		return rv;
	rv = vm_move(a, op, vm);
	tb__vm__free_unpacked(vm, NULL);
	return rv;
}

/* --- the scheduler's ------------------------------------------------------------------------- */

static int vm_incarnation(struct applier *a, uint64_t id, uint64_t incarnation, const char *reason,
			  Tb__Vm **ret)
{
	struct apply_problem problem;
	int rv;

	if (text_check(reason, LIMIT_MESSAGE, "reason", &problem) != 0)
		return refuse_invalid(a, &problem);
	rv = store_vm_get(a->s, id, ret);
	if (rv == -ENOENT)
		return refuse(a, TB__REFUSAL__REFUSAL_NOT_FOUND, "vm",
			      "no VM has the id %" PRIu64 "; it was deleted", id);
	if (rv != 0 || (*ret)->placement->incarnation == incarnation)
		return rv;
	rv = refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "incarnation",
		    "the VM is in incarnation %" PRIu64 ", not %" PRIu64 "; decide again",
		    (*ret)->placement->incarnation, incarnation);
	tb__vm__free_unpacked(*ret, NULL);
	return rv;
}

static int vm_nowhere(struct applier *a, Tb__Vm *vm, const char *reason)
{
	Tb__VmPlacement *p = vm->placement;
	char *board = node_name(a, p->node);
	int rv;

	if (p->node == 0) {
		a->result->unchanged = 1;
		free(board);
		return 0;
	}
	placement_renew(p, 0, a->command->time_ms, reason);
	a->result->changed = 1;
	rv = vm_put_row(a, vm);
	if (rv == 0)
		rv = audit(a, "vm.released", INFO, (struct subject){.node = board, .vm = vm->name},
			   "VM %s is off %s%s%s", vm->name, board, reason[0] != '\0' ? ": " : "",
			   reason);
	free(board);
	return rv;
}

static int vm_place_check(struct applier *a, const Tb__Vm *vm, uint64_t node)
{
	const Tb__VmPlacement *p = vm->placement;
	uint64_t home = room_home(vm);

	if (!vm->running)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "vm",
			      "VM %s is not wanted any more; decide again", vm->name);
	if (p->incarnation >= INT64_MAX)
		return refuse(a, TB__REFUSAL__REFUSAL_LIMIT, "incarnation",
			      "VM %s is at its last incarnation; make it anew", vm->name);
	if (home != 0 && home != node)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "node",
			      "the data disks of VM %s are on another board; decide again",
			      vm->name);
	return 0;
}

static int vm_place(struct applier *a, const Tb__VmPlace *op, Tb__Vm *vm, const Tb__Node *node)
{
	Tb__VmPlacement *p = vm->placement;
	bool moved = p->node != 0 && p->node != node->id;
	struct subject subject = {.node = node->name, .vm = vm->name};
	char *from = node_name(a, p->node);
	int rv;

	p->incarnation++;
	placement_renew(p, node->id, a->command->time_ms, op->reason);
	p->target = 0;
	if (!room_pins(vm))
		home_leave(p);
	else if (p->home != node->id)
		home_begin(p);
	a->result->changed = 1;
	a->result->node_id = node->id;
	rv = vm_put_row(a, vm);
	if (rv == 0)
		rv = audit(a, moved ? "vm.moved" : "vm.placed", INFO, subject,
			   "VM %s %s%s to %s (incarnation %" PRIu64 ")%s%s", vm->name,
			   moved ? "moves from " : "goes", moved ? from : "", node->name,
			   p->incarnation, op->reason[0] != '\0' ? ": " : "", op->reason);
	free(from);
	return rv;
}

static int apply_vm_place(struct applier *a, const Tb__VmPlace *op)
{
	Tb__Node *node = NULL;
	Tb__Vm *vm;
	int rv = vm_incarnation(a, op->vm, op->incarnation, op->reason, &vm);

	if (rv != 0)
		return rv;
	if (op->node == 0) {
		rv = vm_nowhere(a, vm, op->reason);
	} else {
		rv = store_node_get(a->s, op->node, &node);
		if (rv == -ENOENT)
			rv = refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "node",
				    "no board has the id %" PRIu64 "; decide again", op->node);
		if (rv == 0)
			rv = vm_place_check(a, vm, op->node);
		if (rv == 0)
			rv = vm_place(a, op, vm, node);
		tb__node__free_unpacked(node, NULL);
	}
	tb__vm__free_unpacked(vm, NULL);
	return rv;
}

static int vm_release(struct applier *a, const Tb__VmRelease *op, Tb__Vm *vm)
{
	Tb__VmPlacement *p = vm->placement;
	char *board;
	int rv;

	if (p->node == 0)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "vm",
			      "VM %s is nowhere; decide again", vm->name);
	if (p->releasing && (p->hard || !op->hard)) {
		a->result->unchanged = 1;
		return 0;
	}
	if (op->failed && !p->releasing) {
		p->moves++;
		p->avoid = p->node;
	}
	placement_release(p, op->hard, op->reason, a->command->time_ms);
	a->result->changed = 1;
	rv = vm_put_row(a, vm);
	if (rv != 0)
		return rv;
	board = node_name(a, p->node);
	rv = audit(a, op->failed ? "vm.failed" : "vm.releasing", op->failed ? WARNING : INFO,
		   (struct subject){.node = board, .vm = vm->name}, "VM %s %s %s%s%s", vm->name,
		   op->failed ? "failed on" : "is to leave", board,
		   op->reason[0] != '\0' ? ": " : "", op->reason);
	free(board);
	return rv;
}

static int apply_vm_release(struct applier *a, const Tb__VmRelease *op)
{
	Tb__Vm *vm;
	int rv = vm_incarnation(a, op->vm, op->incarnation, op->reason, &vm);

	if (rv != 0)
		return rv;
	rv = vm_release(a, op, vm);
	tb__vm__free_unpacked(vm, NULL);
	return rv;
}

/* Adds the ids of data disks that it still has, and drops those that it has no more. False: the
 * model knew. */
static bool home_disks_add(Tb__Vm *vm, const Tb__VmSettle *op, struct buf *ret_names)
{
	Tb__VmPlacement *p = vm->placement;
	char **ids = mem_array(vm->config->n_disks + 1, sizeof(*ids));
	size_t count = 0;

	for (size_t i = 0; i < vm->config->n_disks; i++) {
		const Tb__VmDisk *disk = vm->config->disks[i];
		bool known = text_among(disk->id, p->home_disks, p->n_home_disks);

		if (disk->kind != TB__DISK_KIND__DISK_KIND_DATA ||
		    (!known && !text_among(disk->id, op->home_disks, op->n_home_disks)))
			continue;
		ids[count++] = mem_strdup(disk->id);
		if (!known)
			buf_printf(ret_names, "%s%s", ret_names->len > 0 ? ", " : "", disk->id);
	}
	if (ret_names->len > 0) {
		home_disks_free(p);
		p->home_disks = ids;
		p->n_home_disks = count;
		return true;
	}
	for (size_t i = 0; i < count; i++)
		free(ids[i]);
	free(ids);
	return false;
}

/* From now on its home is to have them, or it does not start: none is made anew in their place. */
static int vm_settle_disks(struct applier *a, const Tb__VmSettle *op, Tb__Vm *vm)
{
	struct buf names = {0};
	Tb__Node *node;
	int rv;

	if (vm->placement->home != vm->placement->node)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "homeDisks",
			      "VM %s has no data disks where it is; decide again", vm->name);
	/* It would be pinned to a board that is no more. Refused, it never begins there. */
	rv = store_node_get(a->s, vm->placement->node, &node);
	if (rv == -ENOENT)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "homeDisks",
			      "the board of VM %s was removed; decide again", vm->name);
	if (rv != 0)
		return rv;
	if (home_disks_add(vm, op, &names)) {
		a->result->changed = 1;
		rv = vm_put_row(a, vm);
		if (rv == 0)
			rv = audit(a, "vm.data-made", INFO,
				   (struct subject){.node = node->name, .vm = vm->name},
				   "VM %s has its data disks on %s, empty: %s", vm->name,
				   node->name, buf_string(&names));
	} else {
		a->result->unchanged = 1;
	}
	tb__node__free_unpacked(node, NULL);
	buf_free(&names);
	return rv;
}

static int vm_settle(struct applier *a, const Tb__VmSettle *op, Tb__Vm *vm)
{
	Tb__VmPlacement *p = vm->placement;
	char *board;
	int rv;

	if (p->node == 0 || p->releasing)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "vm",
			      "VM %s is leaving its board; decide again", vm->name);
	if (op->n_home_disks > 0)
		return vm_settle_disks(a, op, vm);
	if (!op->ended && (!op->well || (p->moves == 0 && p->avoid == 0))) {
		a->result->unchanged = 1;
		return 0;
	}
	if (op->well) {
		p->moves = 0;
		p->avoid = 0;
	}
	if (op->ended) {
		vm->running = false;
		placement_release(p, true, op->reason, a->command->time_ms);
	}
	a->result->changed = 1;
	rv = vm_put_row(a, vm);
	if (rv != 0)
		return rv;
	board = node_name(a, p->node);
	rv = audit(a, op->ended ? "vm.ended" : "vm.well", INFO,
		   (struct subject){.node = board, .vm = vm->name}, "VM %s %s %s%s%s", vm->name,
		   op->ended ? "has ended on" : "runs well on", board,
		   op->reason[0] != '\0' ? ": " : "", op->reason);
	free(board);
	return rv;
}

static int apply_vm_settle(struct applier *a, const Tb__VmSettle *op)
{
	Tb__Vm *vm;
	int rv = vm_incarnation(a, op->vm, op->incarnation, op->reason, &vm);

	if (rv != 0)
		return rv;
	rv = vm_settle(a, op, vm);
	tb__vm__free_unpacked(vm, NULL);
	return rv;
}

int vm_apply(struct applier *a)
{
	const Tb__Command *c = a->command;

	if (c->tenant[0] != '\0')
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, "tenant",
			      "images and virtual machines are the whole cluster's; ask an "
			      "operator who is of no tenant");
	switch (c->op_case) {
	case TB__COMMAND__OP_IMAGE_ADD:
		return apply_image_add(a, c->image_add);
	case TB__COMMAND__OP_IMAGE_REMOVE:
		return apply_image_remove(a, c->image_remove);
	case TB__COMMAND__OP_VM_PUT:
		return apply_vm_put(a, c->vm_put);
	case TB__COMMAND__OP_VM_DELETE:
		return apply_vm_delete(a, c->vm_delete);
	case TB__COMMAND__OP_VM_RUN:
		return apply_vm_run(a, c->vm_run);
	case TB__COMMAND__OP_VM_MOVE:
		return apply_vm_move(a, c->vm_move);
	case TB__COMMAND__OP_VM_PLACE:
		return apply_vm_place(a, c->vm_place);
	case TB__COMMAND__OP_VM_RELEASE:
		return apply_vm_release(a, c->vm_release);
	case TB__COMMAND__OP_VM_SETTLE:
		return apply_vm_settle(a, c->vm_settle);
	default:
		/* command_dispatch lets no other in. */
		abort();
	}
}

/* --- boards that go, and new histories ------------------------------------------------------- */

struct home {
	uint64_t node;
	char name[LIMIT_VM_NAME + 1]; /* a VM whose data disks are there, "" none */
};

static int home_visit(void *arg, const Tb__Vm *vm)
{
	struct home *home = arg;

	if (room_home(vm) != home->node)
		return 0;
	snprintf(home->name, sizeof(home->name), "%s", vm->name);
	return 1;
}

int vm_home_check(struct applier *a, const Tb__Node *node)
{
	struct home home = {.node = node->id};
	int rv = store_vms(a->s, home_visit, &home);

	if (rv != 0 || home.name[0] == '\0')
		return rv;
	return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "id",
		      "board %s has the data disks of VM %s; give them up with witnessctl vm move "
		      "%s --force, or delete the VM first",
		      node->name, home.name, home.name);
}

static int restore_visit(void *arg, const Tb__Vm *row)
{
	struct rows *rows = arg;

	if (rows->vm_count < LIMIT_VMS)
		rows->vms[rows->vm_count++] = (Tb__Vm *)message_copy(&row->base);
	return 0;
}

/* The history that ends may have gone on: what it had made on its home since then is not to be made
 * anew, and empty, elsewhere. */
static void home_believe(Tb__Vm *vm)
{
	Tb__VmPlacement *p = vm->placement;

	if (p->home == 0 || p->n_home_disks > 0)
		return;
	p->home_disks = mem_array(vm->config->n_disks + 1, sizeof(*p->home_disks));
	for (size_t i = 0; i < vm->config->n_disks; i++)
		if (vm->config->disks[i]->kind == TB__DISK_KIND__DISK_KIND_DATA)
			p->home_disks[p->n_home_disks++] = mem_strdup(vm->config->disks[i]->id);
}

int vm_restore(struct applier *a, uint64_t old_node, uint64_t node)
{
	struct rows *rows = mem_zalloc(sizeof(*rows));
	int rv = store_vms(a->s, restore_visit, rows);

	for (size_t i = 0; i < rows->vm_count && rv == 0; i++) {
		Tb__VmPlacement *p = rows->vms[i]->placement;

		p->incarnation += INCARNATION_GAP;
		placement_renew(p, 0, a->command->time_ms, "a new history of the cluster begins");
		p->target = 0;
		p->moves = 0;
		p->avoid = 0;
		p->home = p->home == old_node && old_node != 0 ? node : p->home;
		home_believe(rows->vms[i]);
		rv = vm_put_row(a, rows->vms[i]);
	}
	rows_free(rows);
	return rv;
}
