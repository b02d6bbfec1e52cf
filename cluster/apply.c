/* One function per command. Each checks everything itself and only then writes; it returns 0,
 * REFUSED (the result says why, nothing of it stays) or the store's negative error, which ends
 * the daemon. Time and random values come with the command; nothing here may depend on the
 * machine, on pointers or on the order of a hash table.
 *
 * Epochs of grants are never used twice for a site's name, also not when the site is deleted and
 * comes back: the counter "epoch" keeps the greatest epoch of any deleted grant, and a site
 * created while it is above 0 begins with a grant to nobody at that epoch. So an epoch that
 * someone still holds as a fencing token is always below the next one. */
#include "cluster/apply_internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/alarm.h"
#include "cluster/check.h"
#include "cluster/limits.h"
#include "lib/ip.h"
#include "lib/mem.h"
#include "proto/json.h"

enum { COMMAND_ID = 16 };

/* --- results --------------------------------------------------------------------------------- */

static void result_text(char **text, char *owned)
{
	if (*text != (char *)(uintptr_t)protobuf_c_empty_string)
		free(*text);
	*text = owned;
}

int refuse(struct applier *a, Tb__Refusal why, const char *field, const char *format, ...)
{
	struct buf message = {0};
	va_list args;

	va_start(args, format);
	buf_vprintf(&message, format, args);
	va_end(args);
	a->result->refusal = why;
	result_text(&a->result->message, mem_strdup(buf_string(&message)));
	result_text(&a->result->field, mem_strdup(field));
	buf_free(&message);
	return REFUSED;
}

int refuse_invalid(struct applier *a, const struct apply_problem *problem)
{
	return refuse(a, TB__REFUSAL__REFUSAL_INVALID, problem->field, "%s", problem->message);
}

int refuse_missing(struct applier *a, const char *field)
{
	return refuse(a, TB__REFUSAL__REFUSAL_INVALID, field,
		      "the command lacks its %s; send it again with it", field);
}

static void changed_site(struct applier *a, const char *name)
{
	struct apply_result *out = a->out;

	/* Room grows by doubling: an entry may hold thousands. */
	if ((out->site_count & (out->site_count - 1)) == 0) {
		size_t room = out->site_count == 0 ? 1 : out->site_count * 2;

		out->sites = mem_realloc(out->sites, room * sizeof(out->sites[0]));
	}
	out->sites[out->site_count++] = mem_strdup(name);
}

static void changed_grant(struct applier *a, const Tb__Grant *grant)
{
	struct apply_result *out = a->out;

	if ((out->grant_count & (out->grant_count - 1)) == 0) {
		size_t room = out->grant_count == 0 ? 1 : out->grant_count * 2;

		out->grants = mem_realloc(out->grants, room * sizeof(out->grants[0]));
	}
	out->grants[out->grant_count++] = (Tb__Grant *)message_copy(&grant->base);
}

int audit(struct applier *a, const char *type, Tb__Severity severity, struct subject subject,
	  const char *format, ...)
{
	Tb__Event event = TB__EVENT__INIT;
	struct buf message = {0};
	va_list args;
	int rv;

	va_start(args, format);
	buf_vprintf(&message, format, args);
	va_end(args);
	event.time_ms = a->command->time_ms;
	event.type = (char *)(uintptr_t)type;
	event.severity = severity;
	event.actor = a->command->actor;
	if (subject.site != NULL)
		event.site = (char *)(uintptr_t)subject.site;
	if (subject.node != NULL)
		event.node = (char *)(uintptr_t)subject.node;
	if (subject.vm != NULL)
		event.vm = (char *)(uintptr_t)subject.vm;
	event.message = (char *)(uintptr_t)buf_string(&message);
	rv = store_event_add(a->s, &event);
	buf_free(&message);
	return rv;
}

bool level_reached(struct applier *a, unsigned level)
{
	bool reached;
	Tb__Cluster *row;

	if (store_cluster_get(a->s, &row) != 0)
		return false;
	reached = row->level >= level;
	tb__cluster__free_unpacked(row, NULL);
	return reached;
}

/* --- nodes ----------------------------------------------------------------------------------- */

/* The node's certificate names it, so that removing the node can revoke it. */
static int node_certificate_add(struct applier *a, const Tb__Node *node,
				const Tb__Certificate *certificate)
{
	if (certificate == NULL)
		return 0;
	if (strcmp(certificate->kind, "node") != 0 || strcmp(certificate->subject, node->name) != 0)
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, "certificate.subject",
			      "the certificate of a board is of kind node and has the board's "
			      "name as its subject");
	return certificate_add(a, certificate);
}

/* Gives an id if there is none; one that was ever used is refused. */
static int node_id_settle(struct applier *a, Tb__Node *node)
{
	uint64_t last;
	int rv;

	if (node->id == 0)
		return store_counter_next(a->s, "node", &node->id);
	rv = store_counter_get(a->s, "node", &last);
	if (rv != 0)
		return rv;
	if (node->id <= last)
		return refuse(a, TB__REFUSAL__REFUSAL_EXISTS, "node.id",
			      "the id %" PRIu64 " was given to a board before; ids are never used "
			      "again, leave it out",
			      node->id);
	return store_counter_raise(a->s, "node", node->id);
}

static int node_put_new(struct applier *a, const Tb__Node *node, Tb__NodeRole role)
{
	Tb__Node row = *node;
	int rv = node_id_settle(a, &row);

	if (rv != 0)
		return rv;
	row.role = role;
	row.joined_ms = a->command->time_ms;
	row.host = NULL; /* it says so itself, when it is in */
	a->result->node_id = row.id;
	a->out->nodes_changed = true;
	return store_node_put(a->s, &row);
}

/* Finds the token and says why it does not admit a board. A wrong secret and an unknown id get
 * the same answer. */
static int token_admit(struct applier *a, const Tb__NodeAdd *op, const Tb__Token *token)
{
	uint8_t difference = 0;

	if (token != NULL && op->token_secret_sha256.len == token->secret_sha256.len) {
		/* Without an early end, so that the time taken tells nothing. */
		for (size_t i = 0; i < token->secret_sha256.len; i++)
			difference |= (uint8_t)(op->token_secret_sha256.data[i] ^
						token->secret_sha256.data[i]);
	} else {
		difference = 1;
	}
	if (difference != 0)
		return refuse(a, TB__REFUSAL__REFUSAL_TOKEN_UNKNOWN, "token",
			      "this cluster does not know the token; make one with witnessctl "
			      "token create --role node");
	if (token->revoked)
		return refuse(a, TB__REFUSAL__REFUSAL_TOKEN_REVOKED, "token",
			      "the token was revoked; make one with witnessctl token create "
			      "--role node");
	if (token->expires_ms != 0 && a->command->time_ms >= token->expires_ms)
		return refuse(a, TB__REFUSAL__REFUSAL_TOKEN_EXPIRED, "token",
			      "the token has expired; make one with witnessctl token create "
			      "--role node");
	if (token->max_uses != 0 && token->uses >= token->max_uses)
		return refuse(a, TB__REFUSAL__REFUSAL_TOKEN_USED, "token",
			      "the token was used as often as allowed; make one with witnessctl "
			      "token create --role node");
	if (token->role != TB__ROLE__ROLE_NODE)
		return refuse(a, TB__REFUSAL__REFUSAL_TOKEN_ROLE, "token",
			      "the token is not for joining a board; make one with witnessctl "
			      "token create --role node");
	return 0;
}

/* *ret_replaces: the board whose place is taken, 0: none. */
static int token_use(struct applier *a, const Tb__NodeAdd *op, uint64_t *ret_replaces)
{
	Tb__Token *token = NULL;
	int rv = store_token_get(a->s, op->token_id, &token);

	if (rv != 0 && rv != -ENOENT)
		return rv;
	rv = token_admit(a, op, token);
	if (rv == 0) {
		Tb__Token row = *token;

		*ret_replaces = row.replaces;
		row.uses++;
		rv = store_token_put(a->s, &row);
	}
	tb__token__free_unpacked(token, NULL);
	return rv;
}

static int node_room(struct applier *a, const char *name)
{
	uint64_t count;
	Tb__Node *old;
	int rv = store_node_find(a->s, name, &old);

	if (rv == 0) {
		tb__node__free_unpacked(old, NULL);
		return refuse(a, TB__REFUSAL__REFUSAL_EXISTS, "node.name",
			      "a board named %s is in the cluster; choose another name, or remove "
			      "the old one with witnessctl cluster remove %s",
			      name, name);
	}
	if (rv != -ENOENT)
		return rv;
	rv = store_count(a->s, "node", &count);
	if (rv != 0 || count < LIMIT_NODES)
		return rv;
	return refuse(a, TB__REFUSAL__REFUSAL_LIMIT, "node",
		      "a cluster has at most %d boards; remove one with witnessctl cluster remove",
		      LIMIT_NODES);
}

static int node_admit(struct applier *a, const Tb__NodeAdd *op)
{
	int rv = node_room(a, op->node->name);

	if (rv == 0)
		rv = node_put_new(a, op->node, TB__NODE_ROLE__NODE_ROLE_JOINING);
	if (rv == 0)
		rv = node_certificate_add(a, op->node, op->certificate);
	if (rv != 0)
		return rv;
	return audit(a, "node.added", INFO, (struct subject){.node = op->node->name},
		     "board %s admitted with id %" PRIu64 " by token %s", op->node->name,
		     a->result->node_id, op->token_id);
}

/* The new board gets the name; the old one's id and certificates are worth nothing any more. */
static int node_take_place(struct applier *a, const Tb__NodeAdd *op, const Tb__Node *old)
{
	Tb__Node row = *op->node;
	int rv = store_node_delete(a->s, old->id);

	if (rv == 0)
		rv = node_certificates_revoke(a, old->name);
	row.name = old->name;
	if (rv == 0)
		rv = node_put_new(a, &row, TB__NODE_ROLE__NODE_ROLE_JOINING);
	if (rv != 0)
		return rv;
	return audit(a, "node.replaced", WARNING, (struct subject){.node = old->name},
		     "board %s (id %" PRIu64 ") is replaced by a new board with id %" PRIu64
		     " by token %s",
		     old->name, old->id, a->result->node_id, op->token_id);
}

/* The token may be old, and the board be back; whoever sends the command asks the leader first. A
 * board whose model lacked the token has not asked. */
static int node_dead_check(struct applier *a, const Tb__NodeAdd *op, const Tb__Node *old)
{
	if (op->dead == old->id || !level_reached(a, LEVEL_DEAD))
		return 0;
	return refuse(
		a, TB__REFUSAL__REFUSAL_CONFLICT, "token",
		"it was not looked whether board %s, whose place the token gives, is still dead: "
		"the board that was asked did not know the token yet; try again in a moment",
		old->name);
}

static int apply_node_add(struct applier *a, const Tb__NodeAdd *op)
{
	struct apply_problem problem;
	uint64_t replaces = 0;
	Tb__Node *old = NULL;
	int rv;

	if (op->node == NULL)
		return refuse_missing(a, "node");
	rv = token_use(a, op, &replaces);
	if (rv != 0)
		return rv;
	if (node_check(op->node, &problem) != 0)
		return refuse_invalid(a, &problem);
	/* A board that was removed meanwhile has left its place free: the new one just joins. */
	if (replaces != 0)
		rv = store_node_get(a->s, replaces, &old);
	if (rv != 0 && rv != -ENOENT)
		return rv;
	rv = old != NULL ? node_dead_check(a, op, old) : 0;
	if (rv == 0)
		rv = old != NULL ? node_take_place(a, op, old) : node_admit(a, op);
	tb__node__free_unpacked(old, NULL);
	return rv;
}

static int node_get(struct applier *a, uint64_t id, Tb__Node **ret)
{
	int rv = store_node_get(a->s, id, ret);

	if (rv != -ENOENT)
		return rv;
	return refuse(a, TB__REFUSAL__REFUSAL_NOT_FOUND, "id",
		      "no board has the id %" PRIu64 "; see witnessctl node list", id);
}

/* What is not given stays: an empty text, and the role joining (a voter never goes back). */
static int node_merge(struct applier *a, const Tb__Node *old, const Tb__NodeSet *op, Tb__Node *row)
{
	struct apply_problem problem;

	if (op->role != TB__NODE_ROLE__NODE_ROLE_JOINING &&
	    op->role != TB__NODE_ROLE__NODE_ROLE_VOTER)
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, "role", "use joining or voter");
	*row = *old;
	if (op->role == TB__NODE_ROLE__NODE_ROLE_VOTER)
		row->role = op->role;
	if (op->address[0] != '\0')
		row->address = op->address;
	if (op->qnet_address[0] != '\0')
		row->qnet_address = op->qnet_address;
	if (op->version[0] != '\0')
		row->version = op->version;
	return node_check(row, &problem) == 0 ? 0 : refuse_invalid(a, &problem);
}

bool message_equal(const ProtobufCMessage *one, const ProtobufCMessage *two)
{
	size_t len = protobuf_c_message_get_packed_size(one);
	struct buf packed = {0};
	bool equal = len == protobuf_c_message_get_packed_size(two);

	if (equal) {
		uint8_t *first = buf_reserve(&packed, 2 * len);

		protobuf_c_message_pack(one, first);
		protobuf_c_message_pack(two, first + len);
		equal = memcmp(first, first + len, len) == 0;
	}
	buf_free(&packed);
	return equal;
}

static int node_change(struct applier *a, const Tb__Node *old, const Tb__Node *row)
{
	struct subject subject = {.node = row->name};
	int rv;

	if (message_equal(&old->base, &row->base)) {
		a->result->unchanged = 1;
		return 0;
	}
	a->result->changed = 1;
	a->out->nodes_changed = true;
	rv = store_node_put(a->s, row);
	if (rv != 0)
		return rv;
	if (old->role != row->role)
		return audit(a, "node.joined", INFO, subject, "board %s is a voter", row->name);
	return audit(a, "node.changed", INFO, subject, "board %s changed: %s, version %s",
		     row->name, row->address, row->version);
}

static int apply_node_set(struct applier *a, const Tb__NodeSet *op)
{
	Tb__Node *old;
	Tb__Node row;
	int rv = node_get(a, op->id, &old);

	if (rv != 0)
		return rv;
	a->result->node_id = op->id;
	rv = node_merge(a, old, op, &row);
	if (rv == 0)
		rv = node_change(a, old, &row);
	tb__node__free_unpacked(old, NULL);
	return rv;
}

/* --- drained boards --- */

struct servers {
	uint64_t except;
	unsigned count;
	unsigned drained;
};

static int servers_visit(void *arg, const Tb__Node *row)
{
	struct servers *servers = arg;

	if (row->id == servers->except)
		return 0;
	servers->count +=
		row->drain == TB__DRAIN__DRAIN_OFF && row->role == TB__NODE_ROLE__NODE_ROLE_VOTER;
	servers->drained += row->drain != TB__DRAIN__DRAIN_OFF;
	return 0;
}

/* Somebody must serve the sites. */
static int node_drain_check(struct applier *a, const Tb__Node *node, Tb__Drain drain)
{
	struct servers others = {.except = node->id};
	int rv;

	if (drain > TB__DRAIN__DRAIN_NOW)
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, "drain", "use off, gentle or now");
	if (drain == TB__DRAIN__DRAIN_OFF)
		return 0;
	rv = store_nodes(a->s, servers_visit, &others);
	if (rv != 0 || others.count > 0)
		return rv;
	return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "id",
		      "no other board would serve the sites; undrain another one, or join one, "
		      "before %s is drained",
		      node->name);
}

static int node_drain(struct applier *a, Tb__Node *node, Tb__Drain drain)
{
	struct subject subject = {.node = node->name};
	int rv = node_drain_check(a, node, drain);

	if (rv != 0)
		return rv;
	if (node->drain == drain) {
		a->result->unchanged = 1;
		return 0;
	}
	node->drain = drain;
	a->result->changed = 1;
	a->out->nodes_changed = true;
	rv = store_node_put(a->s, node);
	if (rv != 0)
		return rv;
	if (drain == TB__DRAIN__DRAIN_OFF)
		return audit(a, "node.undrained", INFO, subject, "board %s serves sites again",
			     node->name);
	return audit(
		a, "node.drained", INFO, subject,
		"board %s is drained: its site nodes are sent to the other boards%s", node->name,
		drain == TB__DRAIN__DRAIN_NOW ? ", also those whose site needs the vote now" : "");
}

static int apply_node_drain(struct applier *a, const Tb__NodeDrain *op)
{
	Tb__Node *node;
	int rv = node_get(a, op->id, &node);

	if (rv != 0)
		return rv;
	a->result->node_id = op->id;
	rv = node_drain(a, node, op->drain);
	tb__node__free_unpacked(node, NULL);
	return rv;
}

static int node_remove(struct applier *a, const Tb__Node *node)
{
	struct servers others = {.except = node->id};
	uint64_t count;
	int rv = store_count(a->s, "node", &count);

	if (rv == 0)
		rv = store_nodes(a->s, servers_visit, &others);
	if (rv != 0)
		return rv;
	if (others.count == 0 && others.drained > 0)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "id",
			      "without %s only drained boards would be left; undrain one first "
			      "(witnessctl node undrain)",
			      node->name);
	if (count == 1)
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, "id",
			      "%s is the last board of the cluster; add another one first",
			      node->name);
	rv = vm_home_check(a, node);
	if (rv != 0)
		return rv;
	rv = store_node_delete(a->s, node->id);
	if (rv == 0)
		rv = node_certificates_revoke(a, node->name);
	if (rv != 0)
		return rv;
	a->result->deleted = 1;
	a->result->node_id = node->id;
	a->out->nodes_changed = true;
	return audit(a, "node.removed", WARNING, (struct subject){.node = node->name},
		     "board %s removed from the cluster", node->name);
}

static int apply_node_remove(struct applier *a, const Tb__NodeRemove *op)
{
	Tb__Node *node;
	int rv = node_get(a, op->id, &node);

	if (rv != 0)
		return rv;
	rv = node_remove(a, node);
	tb__node__free_unpacked(node, NULL);
	return rv;
}

/* --- the cluster ----------------------------------------------------------------------------- */

static int cluster_init_check(struct applier *a, const Tb__ClusterInit *op)
{
	struct apply_problem problem;

	if (op->cluster == NULL)
		return refuse_missing(a, "cluster");
	if (op->secrets == NULL)
		return refuse_missing(a, "secrets");
	if (op->node == NULL)
		return refuse_missing(a, "node");
	if (cluster_check(op->cluster, &problem) != 0 ||
	    secrets_check(op->secrets, &problem) != 0 || node_check(op->node, &problem) != 0)
		return refuse_invalid(a, &problem);
	return 0;
}

static int apply_cluster_init(struct applier *a, const Tb__ClusterInit *op)
{
	Tb__Cluster row;
	int rv = cluster_init_check(a, op);

	if (rv != 0)
		return rv;
	row = *op->cluster;
	row.created_ms = a->command->time_ms;
	a->out->cluster_changed = true;
	rv = store_cluster_put(a->s, &row);
	if (rv == 0)
		rv = store_secrets_put(a->s, op->secrets);
	if (rv == 0)
		rv = node_put_new(a, op->node, TB__NODE_ROLE__NODE_ROLE_VOTER);
	if (rv == 0)
		rv = node_certificate_add(a, op->node, op->certificate);
	if (rv != 0)
		return rv;
	return audit(a, "cluster.created", INFO, (struct subject){.node = op->node->name},
		     "cluster %s created on board %s", row.name, op->node->name);
}

static int cluster_auto_register(struct applier *a, Tb__Cluster *row, bool on)
{
	if (!row->auto_register == !on)
		return 0;
	row->auto_register = on;
	a->result->changed = 1;
	return audit(a, "cluster.changed", INFO, (struct subject){0}, "unknown sites are now %s",
		     on ? "created when they first attach" : "refused");
}

static int cluster_keep_room(struct applier *a, Tb__Cluster *row, Tb__Switch keep)
{
	bool on = keep == TB__SWITCH__SWITCH_ON;

	if (keep > TB__SWITCH__SWITCH_OFF)
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, "keepRoom", "use any, on or off");
	if (keep == TB__SWITCH__SWITCH_ANY || !row->keep_room == !on)
		return 0;
	row->keep_room = on;
	a->result->changed = 1;
	return audit(a, "cluster.changed", INFO, (struct subject){0},
		     on ? "room is kept for the virtual machines of any one board: what would not "
			  "leave it is refused"
			: "no room is kept for the loss of a board");
}

static int apply_cluster_set(struct applier *a, const Tb__ClusterSet *op)
{
	Tb__Cluster *row;
	int rv = store_cluster_get(a->s, &row);

	if (rv != 0)
		return rv;
	rv = cluster_auto_register(a, row, op->auto_register);
	if (rv == 0)
		rv = cluster_keep_room(a, row, op->keep_room);
	if (rv == 0 && a->result->changed != 0) {
		a->out->cluster_changed = true;
		rv = store_cluster_put(a->s, row);
	}
	a->result->unchanged = a->result->changed == 0;
	tb__cluster__free_unpacked(row, NULL);
	return rv;
}

/* --- a new history --------------------------------------------------------------------------- */

/* Epochs of a history lie above those of every history before it, also of one that went on after
 * this backup was taken, as time does: one grant in 2^-20 ms is more than any site can have. */
enum { EPOCH_TIME_SHIFT = 20 };

static int restore_rows(struct applier *a, const Tb__ClusterRestore *op)
{
	for (size_t i = 0; i < op->n_rows; i++) {
		const Tb__ClusterRestore__Row *row = op->rows[i];
		int rv = -EBADMSG;

		switch (row->row) {
		case TB__SNAPSHOT__RECORD__ROW_TOKEN:
		case TB__SNAPSHOT__RECORD__ROW_SITE:
		case TB__SNAPSHOT__RECORD__ROW_GRANT:
		case TB__SNAPSHOT__RECORD__ROW_CERTIFICATE:
		case TB__SNAPSHOT__RECORD__ROW_EVENT:
		case TB__SNAPSHOT__RECORD__ROW_COUNTER:
		case TB__SNAPSHOT__RECORD__ROW_IMAGE:
		case TB__SNAPSHOT__RECORD__ROW_VM:
			rv = store_record_put(a->s, row->row, row->body.data, row->body.len);
			break;
		default:
			break;
		}
		if (rv == -EBADMSG)
			return refuse(a, TB__REFUSAL__REFUSAL_INVALID, "rows",
				      "row %zu is not of a kind that is restored", i);
		if (rv != 0)
			return rv;
	}
	return 0;
}

struct grants {
	size_t count;
	Tb__Grant **items;
};

static int grants_visit(void *arg, const Tb__Site *site, const Tb__Grant *grant)
{
	struct grants *grants = arg;

	(void)site;
	if (grant == NULL)
		return 0;
	if ((grants->count & (grants->count - 1)) == 0)
		grants->items =
			mem_realloc(grants->items, (grants->count == 0 ? 1 : grants->count * 2) *
							   sizeof(grants->items[0]));
	grants->items[grants->count++] = (Tb__Grant *)message_copy(&grant->base);
	return 0;
}

/* Who had the vote is kept, for whoever decides next; no ring, so that it is decided and committed
 * anew. */
static int restore_epochs(struct applier *a, uint64_t floor)
{
	const struct store_site_filter all = {0};
	struct grants grants = {0};
	int rv = store_sites(a->s, &all, grants_visit, &grants, NULL);

	for (size_t i = 0; i < grants.count; i++) {
		Tb__RingId none = TB__RING_ID__INIT;
		Tb__Grant row = *grants.items[i];

		row.epoch = row.epoch < floor ? floor : row.epoch + 1;
		row.ring = &none;
		if (rv == 0)
			rv = store_grant_put(a->s, &row);
		tb__grant__free_unpacked(grants.items[i], NULL);
	}
	free(grants.items);
	return rv != 0 ? rv : store_counter_raise(a->s, "epoch", floor);
}

static int restore_final(struct applier *a, const Tb__ClusterRestore__Final *final)
{
	struct apply_problem problem;
	Tb__Cluster row;
	int rv;

	if (final->cluster == NULL || final->secrets == NULL || final->node == NULL ||
	    final->certificate == NULL)
		return refuse_missing(a, "final");
	if (cluster_check(final->cluster, &problem) != 0 ||
	    secrets_check(final->secrets, &problem) != 0 || node_check(final->node, &problem) != 0)
		return refuse_invalid(a, &problem);
	row = *final->cluster;
	row.history++;
	row.hold_ms = final->hold_ms;
	a->out->cluster_changed = true;
	rv = restore_epochs(a, (uint64_t)a->command->time_ms << EPOCH_TIME_SHIFT);
	if (rv == 0)
		rv = restore_certificates(a);
	if (rv == 0)
		rv = store_cluster_put(a->s, &row);
	if (rv == 0)
		rv = store_secrets_put(a->s, final->secrets);
	if (rv == 0)
		rv = node_put_new(a, final->node, TB__NODE_ROLE__NODE_ROLE_VOTER);
	if (rv == 0)
		rv = vm_restore(a, final->old_node, a->result->node_id);
	if (rv == 0)
		rv = node_certificate_add(a, final->node, final->certificate);
	if (rv != 0)
		return rv;
	return audit(a, "cluster.restored", WARNING, (struct subject){.node = final->node->name},
		     "history %" PRIu32 " of cluster %s begins on board %s, from %s", row.history,
		     row.name, final->node->name, final->source);
}

static int apply_cluster_restore(struct applier *a, const Tb__ClusterRestore *op)
{
	int rv = restore_rows(a, op);

	return rv == 0 && op->final != NULL ? restore_final(a, op->final) : rv;
}

static int apply_cluster_settle(struct applier *a)
{
	Tb__Cluster *row;
	int rv = store_cluster_get(a->s, &row);

	if (rv != 0)
		return rv;
	if (row->hold_ms == 0) {
		a->result->unchanged = 1;
	} else {
		row->hold_ms = 0;
		a->result->changed = 1;
		a->out->cluster_changed = true;
		rv = store_cluster_put(a->s, row);
		if (rv == 0)
			rv = audit(a, "cluster.settled", INFO, (struct subject){0},
				   "no vote of an older history can be held any more: votes are "
				   "given again");
	}
	tb__cluster__free_unpacked(row, NULL);
	return rv;
}

/* --- alarms ---------------------------------------------------------------------------------- */

static size_t alarm_place(const Tb__Cluster *row, const Tb__Alarm *alarm, bool *ret_there)
{
	size_t at = 0;

	while (at < row->n_alarms && alarm_order(row->alarms[at], alarm) < 0)
		at++;
	*ret_there = at < row->n_alarms && alarm_order(row->alarms[at], alarm) == 0;
	return at;
}

static int alarm_audit(struct applier *a, const Tb__Alarm *alarm, bool raised)
{
	struct subject subject = {0};

	if (strncmp(alarm->kind, "site-", 5) == 0)
		subject.site = alarm->subject;
	else if (strcmp(alarm->kind, "certificate") != 0)
		subject.node = alarm->subject;
	return audit(a, raised ? "alarm.raised" : "alarm.cleared", raised ? WARNING : INFO, subject,
		     "%s%s", raised ? "" : "over: ", alarm->message);
}

static int alarm_check(struct applier *a, const Tb__Alarm *alarm)
{
	struct apply_problem problem;

	if (text_check(alarm->kind, LIMIT_NAME, "alarm.kind", &problem) != 0 ||
	    text_check(alarm->subject, 2 * LIMIT_NAME, "alarm.subject", &problem) != 0 ||
	    text_check(alarm->message, LIMIT_MESSAGE, "alarm.message", &problem) != 0)
		return refuse_invalid(a, &problem);
	return 0;
}

static int alarm_clear(struct applier *a, Tb__Cluster *row, const Tb__Alarm *alarm)
{
	bool there;
	size_t at = alarm_place(row, alarm, &there);
	int rv;

	if (!there)
		return 0;
	a->result->changed++;
	rv = alarm_audit(a, row->alarms[at], false);
	tb__alarm__free_unpacked(row->alarms[at], NULL);
	row->n_alarms--;
	memmove(&row->alarms[at], &row->alarms[at + 1],
		(row->n_alarms - at) * sizeof(row->alarms[0]));
	return rv;
}

static int alarm_raise(struct applier *a, Tb__Cluster *row, const Tb__Alarm *alarm)
{
	bool there;
	size_t at = alarm_place(row, alarm, &there);
	int rv = alarm_check(a, alarm);

	if (rv != 0 || there || row->n_alarms == LIMIT_ALARMS)
		return rv;
	a->result->changed++;
	row->alarms = mem_realloc(row->alarms, (row->n_alarms + 1) * sizeof(row->alarms[0]));
	memmove(&row->alarms[at + 1], &row->alarms[at],
		(row->n_alarms - at) * sizeof(row->alarms[0]));
	row->alarms[at] = (Tb__Alarm *)message_copy(&alarm->base);
	row->alarms[at]->since_ms = a->command->time_ms;
	row->n_alarms++;
	return alarm_audit(a, alarm, true);
}

static int apply_alarm_set(struct applier *a, const Tb__AlarmSet *op)
{
	Tb__Cluster *row;
	int rv = store_cluster_get(a->s, &row);

	if (rv != 0)
		return rv;
	for (size_t i = 0; rv == 0 && i < op->n_clear; i++)
		rv = alarm_clear(a, row, op->clear[i]);
	for (size_t i = 0; rv == 0 && i < op->n_raise; i++)
		rv = alarm_raise(a, row, op->raise[i]);
	if (rv == 0 && a->result->changed != 0) {
		a->out->cluster_changed = true;
		rv = store_cluster_put(a->s, row);
	}
	tb__cluster__free_unpacked(row, NULL);
	return rv;
}

static int apply_node_zone(struct applier *a, const Tb__NodeZone *op)
{
	struct apply_problem problem;
	Tb__Node *node;
	Tb__Node row;
	int rv;

	if (text_check(op->zone, LIMIT_LABEL_VALUE, "zone", &problem) != 0)
		return refuse_invalid(a, &problem);
	rv = node_get(a, op->id, &node);
	if (rv != 0)
		return rv;
	a->result->node_id = op->id;
	row = *node;
	row.zone = op->zone;
	rv = node_change(a, node, &row);
	tb__node__free_unpacked(node, NULL);
	return rv;
}

static int node_host_set(struct applier *a, const Tb__Node *old, Tb__NodeHost *host)
{
	struct subject subject = {.node = old->name};
	struct buf bridges = {0};
	Tb__Node row = *old;
	int rv;

	row.host = host;
	if (message_equal(&old->base, &row.base)) {
		a->result->unchanged = 1;
		return 0;
	}
	a->result->changed = 1;
	a->out->nodes_changed = true;
	rv = store_node_put(a->s, &row);
	if (rv != 0)
		return rv;
	if (!host->hosts)
		return audit(a, "node.host", WARNING, subject,
			     "board %s hosts no virtual machines: %s", row.name, host->why_not);
	for (size_t i = 0; i < host->n_bridges; i++)
		buf_printf(&bridges, "%s%s", i > 0 ? ", " : "", host->bridges[i]);
	rv = audit(a, "node.host", INFO, subject,
		   "board %s hosts virtual machines: %" PRIu32 " cores, %" PRIu32
		   " MiB, bridges: %s",
		   row.name, host->vcpus, host->memory_mib,
		   host->n_bridges > 0 ? buf_string(&bridges) : "none");
	buf_free(&bridges);
	return rv;
}

static int apply_node_host_set(struct applier *a, const Tb__NodeHostSet *op)
{
	struct apply_problem problem;
	Tb__Node *node;
	int rv;

	if (op->host == NULL)
		return refuse_missing(a, "host");
	if (host_check(op->host, &problem) != 0)
		return refuse_invalid(a, &problem);
	rv = node_get(a, op->id, &node);
	if (rv != 0)
		return rv;
	a->result->node_id = op->id;
	rv = node_host_set(a, node, op->host);
	tb__node__free_unpacked(node, NULL);
	return rv;
}

/* --- the level ------------------------------------------------------------------------------- */

static int apply_cluster_level(struct applier *a, const Tb__ClusterLevel *op)
{
	Tb__Cluster *row;
	int rv;

	if (op->level > LEVEL_HERE)
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, "level",
			      "this release understands no more than level %d", LEVEL_HERE);
	rv = store_cluster_get(a->s, &row);
	if (rv != 0)
		return rv;
	if (op->level <= row->level) {
		a->result->unchanged = 1;
	} else {
		row->level = op->level;
		a->result->changed = 1;
		a->out->cluster_changed = true;
		rv = store_cluster_put(a->s, row);
		if (rv == 0)
			rv = audit(a, "cluster.level", INFO, (struct subject){0},
				   "every board understands level %" PRIu32
				   ": its commands may be used, and boards of an older release are "
				   "not let in any more",
				   op->level);
	}
	tb__cluster__free_unpacked(row, NULL);
	return rv;
}

/* --- tokens ---------------------------------------------------------------------------------- */

struct dead_tokens {
	int64_t now_ms;
	size_t count;
	char *ids[LIMIT_TOKENS];
};

static int dead_tokens_visit(void *arg, const Tb__Token *row)
{
	struct dead_tokens *dead = arg;

	if (dead->count < LIMIT_TOKENS &&
	    (row->revoked || (row->expires_ms != 0 && row->expires_ms <= dead->now_ms) ||
	     (row->max_uses != 0 && row->uses >= row->max_uses)))
		dead->ids[dead->count++] = mem_strdup(row->id);
	return 0;
}

/* Tokens that admit nobody any more make room for new ones. */
static int tokens_trim(struct applier *a)
{
	struct dead_tokens dead = {.now_ms = a->command->time_ms};
	int rv = store_tokens(a->s, dead_tokens_visit, &dead);

	for (size_t i = 0; i < dead.count; i++) {
		if (rv == 0)
			rv = store_token_delete(a->s, dead.ids[i]);
		free(dead.ids[i]);
	}
	return rv;
}

static int token_room(struct applier *a)
{
	uint64_t count;
	int rv = store_count(a->s, "token", &count);

	if (rv != 0 || count < LIMIT_TOKENS)
		return rv;
	rv = tokens_trim(a);
	if (rv == 0)
		rv = store_count(a->s, "token", &count);
	if (rv != 0 || count < LIMIT_TOKENS)
		return rv;
	return refuse(a, TB__REFUSAL__REFUSAL_LIMIT, "token",
		      "a cluster has at most %d valid tokens; revoke some with witnessctl token "
		      "revoke",
		      LIMIT_TOKENS);
}

static int token_free_id(struct applier *a, const char *id)
{
	Tb__Token *old;
	int rv = store_token_get(a->s, id, &old);

	if (rv != 0)
		return rv == -ENOENT ? 0 : rv;
	tb__token__free_unpacked(old, NULL);
	return refuse(a, TB__REFUSAL__REFUSAL_EXISTS, "token.id",
		      "a token with the id %s exists; draw another one", id);
}

static int token_site(struct applier *a, const Tb__Token *token)
{
	Tb__Site *site;
	int rv;

	if (token->role != TB__ROLE__ROLE_SITE && token->role != TB__ROLE__ROLE_AGENT)
		return 0;
	rv = store_site_find(a->s, token->site, &site);
	if (rv == 0) {
		rv = tenant_may(a, site) ? 0 : -ENOENT;
		tb__site__free_unpacked(site, NULL);
	}
	if (rv != -ENOENT)
		return rv;
	return refuse(a, TB__REFUSAL__REFUSAL_NOT_FOUND, "token.site",
		      "there is no site %s; create it with witnessctl site create %s", token->site,
		      token->site);
}

static int token_replaces(struct applier *a, const Tb__Token *token)
{
	Tb__Node *node;
	int rv;

	if (token->replaces == 0)
		return 0;
	if (token->role != TB__ROLE__ROLE_NODE)
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, "token.replaces",
			      "only a token of role node lets a board take another's place");
	rv = store_node_get(a->s, token->replaces, &node);
	if (rv == 0)
		tb__node__free_unpacked(node, NULL);
	if (rv != -ENOENT)
		return rv;
	return refuse(a, TB__REFUSAL__REFUSAL_NOT_FOUND, "token.replaces",
		      "no board has the id %" PRIu64 "; see witnessctl node list", token->replaces);
}

static int token_valid(struct applier *a, const Tb__Token *token)
{
	struct apply_problem problem;

	if (token_check(token, &problem) != 0)
		return refuse_invalid(a, &problem);
	if (token->expires_ms != 0 && token->expires_ms <= a->command->time_ms)
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, "token.expiresMs",
			      "the token would be expired already; give a later time");
	return 0;
}

static int apply_token_add(struct applier *a, const Tb__TokenAdd *op)
{
	Tb__Token row;
	char buffer[64];
	const char *word;
	int rv;

	if (op->token == NULL)
		return refuse_missing(a, "token");
	rv = token_valid(a, op->token);
	if (rv == 0)
		rv = token_free_id(a, op->token->id);
	if (rv == 0)
		rv = token_site(a, op->token);
	if (rv == 0)
		rv = token_replaces(a, op->token);
	if (rv == 0)
		rv = token_room(a);
	if (rv != 0)
		return rv;
	row = *op->token;
	row.created_ms = a->command->time_ms;
	row.created_by = a->command->actor;
	row.uses = 0;
	row.revoked = false;
	rv = store_token_put(a->s, &row);
	if (rv != 0)
		return rv;
	word = json_enum_word(&tb__role__descriptor, (int)row.role, buffer);
	return audit(a, "token.created", INFO, (struct subject){.site = row.site},
		     "token %s%s%s of role %s created", row.id, row.name[0] != '\0' ? " " : "",
		     row.name, word);
}

static int token_void(struct applier *a, Tb__Token *row)
{
	int rv;

	row->revoked = true;
	rv = store_token_put(a->s, row);
	return rv != 0 ? rv
		       : audit(a, "token.revoked", INFO, (struct subject){0}, "token %s revoked",
			       row->id);
}

static int token_revoke(struct applier *a, Tb__Token *row)
{
	if (row->revoked) {
		a->result->unchanged = 1;
		return 0;
	}
	a->result->changed = 1;
	return token_void(a, row);
}

static int apply_token_revoke(struct applier *a, const Tb__TokenRevoke *op)
{
	Tb__Token *row;
	int rv = store_token_get(a->s, op->id, &row);

	if (rv == -ENOENT)
		return refuse(a, TB__REFUSAL__REFUSAL_NOT_FOUND, "id",
			      "no token has that id; see witnessctl token list");
	if (rv != 0)
		return rv;
	rv = token_revoke(a, row);
	tb__token__free_unpacked(row, NULL);
	return rv;
}

/* --- sites ----------------------------------------------------------------------------------- */

static int label_order(const void *one, const void *two)
{
	const Tb__Site__LabelsEntry *const *a = one;
	const Tb__Site__LabelsEntry *const *b = two;

	return strcmp((*a)->key, (*b)->key);
}

/* A site as the model keeps it: labels by key, a policy, no soft state. The rest is borrowed. */
struct site_row {
	Tb__Site row;
	Tb__SitePolicy policy;
	Tb__Site__LabelsEntry *labels[LIMIT_SITE_LABELS];
};

static void site_row_make(const Tb__Site *site, struct site_row *ret)
{
	ret->row = *site;
	ret->row.status = NULL;
	tb__site_policy__init(&ret->policy);
	if (site->policy == NULL)
		ret->row.policy = &ret->policy;
	if (site->n_labels > 0)
		memcpy(ret->labels, site->labels, site->n_labels * sizeof(site->labels[0]));
	ret->row.labels = ret->labels;
	qsort(ret->labels, site->n_labels, sizeof(ret->labels[0]), label_order);
}

/* The field of the i-th site: "sites[3].name". */
static void site_field(size_t i, const char *field, char out[160])
{
	snprintf(out, 160, "sites[%zu]%s%s", i, field[0] != '\0' ? "." : "", field);
}

/* A grant to nobody at the epoch floor, so that the next one is above every epoch that a site of
 * this name may have had. */
static int site_epoch_start(struct applier *a, uint64_t site_id)
{
	Tb__RingId ring = TB__RING_ID__INIT;
	Tb__Grant row = TB__GRANT__INIT;
	int rv = store_counter_get(a->s, "epoch", &row.epoch);

	if (rv != 0 || row.epoch == 0)
		return rv;
	row.site_id = site_id;
	row.ring = &ring;
	row.reason = (char *)(uintptr_t) "the site is new: nobody holds its vote yet";
	row.granted_ms = a->command->time_ms;
	return store_grant_put(a->s, &row);
}

static int site_create(struct applier *a, struct site_row *site)
{
	Tb__Site *row = &site->row;
	int rv = store_counter_next(a->s, "site", &row->id);

	if (rv != 0)
		return rv;
	row->revision = a->index;
	row->created_ms = a->command->time_ms;
	rv = store_site_put(a->s, row);
	if (rv == 0)
		rv = site_epoch_start(a, row->id);
	if (rv != 0)
		return rv;
	a->result->created++;
	changed_site(a, row->name);
	return audit(a, "site.created", INFO, (struct subject){.site = row->name},
		     "site %s created", row->name);
}

static int site_replace(struct applier *a, const Tb__Site *old, struct site_row *site)
{
	Tb__Site *row = &site->row;
	int rv;

	row->id = old->id;
	row->revision = old->revision;
	row->created_ms = old->created_ms;
	if (message_equal(&old->base, &row->base)) {
		a->result->unchanged++;
		return 0;
	}
	row->revision = a->index;
	rv = store_site_put(a->s, row);
	if (rv != 0)
		return rv;
	a->result->changed++;
	changed_site(a, row->name);
	return audit(a, "site.changed", INFO, (struct subject){.site = row->name},
		     "site %s changed", row->name);
}

static int refuse_revision(struct applier *a, const char *name, uint64_t is)
{
	if (is == 0)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "ifRevision",
			      "site %s is gone; read it again", name);
	return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "ifRevision",
		      "site %s was changed meanwhile (its revision is %" PRIu64
		      "); read it again and repeat the change",
		      name, is);
}

static int site_put_new(struct applier *a, const Tb__SitePut *op, struct site_row *site,
			const char *field, uint64_t *sites)
{
	const char *name = site->row.name;

	if (op->if_revision != 0)
		return refuse_revision(a, name, 0);
	if (op->mode == TB__SITE_PUT__MODE__MODE_REPLACE)
		return refuse(a, TB__REFUSAL__REFUSAL_NOT_FOUND, field,
			      "there is no site %s; create it with witnessctl site create %s", name,
			      name);
	if (*sites >= LIMIT_SITES)
		return refuse(a, TB__REFUSAL__REFUSAL_LIMIT, field,
			      "a cluster has at most %d sites; delete some, or make a second "
			      "cluster",
			      LIMIT_SITES);
	++*sites;
	return site_create(a, site);
}

static int site_put_old(struct applier *a, const Tb__SitePut *op, const Tb__Site *old,
			struct site_row *site, const char *field)
{
	if (op->mode == TB__SITE_PUT__MODE__MODE_CREATE)
		return refuse(a, TB__REFUSAL__REFUSAL_EXISTS, field,
			      "the site %s exists; change it with witnessctl site set %s",
			      old->name, old->name);
	if (op->if_revision != 0 && op->if_revision != old->revision)
		return refuse_revision(a, old->name, old->revision);
	return site_replace(a, old, site);
}

bool tenant_may(const struct applier *a, const Tb__Site *site)
{
	return a->command->tenant[0] == '\0' || strcmp(site_tenant(site), a->command->tenant) == 0;
}

static int refuse_tenant(struct applier *a, const Tb__SitePut *op, const char *name,
			 const char *field)
{
	if (op->mode == TB__SITE_PUT__MODE__MODE_REPLACE)
		return refuse(a, TB__REFUSAL__REFUSAL_NOT_FOUND, field,
			      "there is no site %s of this tenant", name);
	return refuse(a, TB__REFUSAL__REFUSAL_EXISTS, field,
		      "the name %s is taken; names are unique in the whole cluster, choose another "
		      "one",
		      name);
}

static int site_put(struct applier *a, const Tb__SitePut *op, size_t i, uint64_t *sites)
{
	struct apply_problem problem;
	struct site_row site;
	char field[160];
	Tb__Site *old;
	int rv;

	if (site_check(op->sites[i], &problem) != 0) {
		site_field(i, problem.field, field);
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, field, "%s", problem.message);
	}
	if (!tenant_may(a, op->sites[i])) {
		site_field(i, "labels.tenant", field);
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, field,
			      "a site of this tenant has the label tenant=%s; set it so",
			      a->command->tenant);
	}
	site_row_make(op->sites[i], &site);
	site_field(i, "name", field);
	rv = store_site_find(a->s, site.row.name, &old);
	if (rv == -ENOENT)
		return site_put_new(a, op, &site, field, sites);
	if (rv != 0)
		return rv;
	rv = tenant_may(a, old) ? site_put_old(a, op, old, &site, field)
				: refuse_tenant(a, op, old->name, field);
	tb__site__free_unpacked(old, NULL);
	return rv;
}

/* --- quotas --- */

struct quotas {
	Tb__Cluster *cluster;
	uint64_t before[LIMIT_TENANTS]; /* sites of the tenant; UINT64_MAX: not concerned */
};

static bool tenant_is_named(const Tb__SitePut *op, const char *tenant)
{
	for (size_t i = 0; i < op->n_sites; i++)
		if (strcmp(site_tenant(op->sites[i]), tenant) == 0)
			return true;
	return false;
}

static int quotas_begin(struct applier *a, const Tb__SitePut *op, struct quotas *q)
{
	int rv = store_cluster_get(a->s, &q->cluster);

	for (size_t i = 0; rv == 0 && i < q->cluster->n_quotas; i++) {
		q->before[i] = UINT64_MAX;
		if (tenant_is_named(op, q->cluster->quotas[i]->tenant))
			rv = store_tenant_sites(a->s, q->cluster->quotas[i]->tenant, &q->before[i]);
	}
	return rv;
}

/* What a tenant has too much already may be changed, but not become more. */
static int quotas_end(struct applier *a, struct quotas *q)
{
	int rv = 0;

	for (size_t i = 0; rv == 0 && i < q->cluster->n_quotas; i++) {
		const Tb__TenantQuota *quota = q->cluster->quotas[i];
		uint64_t after;

		if (q->before[i] == UINT64_MAX)
			continue;
		rv = store_tenant_sites(a->s, quota->tenant, &after);
		if (rv == 0 && after > quota->max_sites && after > q->before[i])
			rv = refuse(a, TB__REFUSAL__REFUSAL_LIMIT, "sites",
				    "tenant %s may have %" PRIu32 " sites, and this makes %" PRIu64
				    "; delete some, or raise it with witnessctl tenant set %s "
				    "--max-sites N",
				    quota->tenant, quota->max_sites, after, quota->tenant);
	}
	tb__cluster__free_unpacked(q->cluster, NULL);
	return rv;
}

static int sites_twice(struct applier *a, const Tb__SitePut *op)
{
	for (size_t i = 1; i < op->n_sites; i++) {
		for (size_t j = 0; j < i; j++) {
			char field[160];

			if (strcmp(op->sites[i]->name, op->sites[j]->name) != 0)
				continue;
			site_field(i, "name", field);
			return refuse(a, TB__REFUSAL__REFUSAL_INVALID, field,
				      "the same name as sites[%zu]; name each site once", j);
		}
	}
	return 0;
}

static int bulk_count(struct applier *a, size_t count, uint64_t if_revision, const char *field)
{
	if (count == 0)
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, field,
			      "no site is named; name at least one");
	if (count > LIMIT_BULK)
		return refuse(
			a, TB__REFUSAL__REFUSAL_LIMIT, field,
			"%zu sites in one command, at most %d are allowed; send them in parts",
			count, LIMIT_BULK);
	if (count > 1 && if_revision != 0)
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, "ifRevision",
			      "a revision goes with one site only; leave it out");
	return 0;
}

static int apply_site_put(struct applier *a, const Tb__SitePut *op)
{
	struct quotas quotas = {0};
	uint64_t sites;
	int rv = bulk_count(a, op->n_sites, op->if_revision, "sites");

	if (rv != 0)
		return rv;
	if (op->mode != TB__SITE_PUT__MODE__MODE_CREATE &&
	    op->mode != TB__SITE_PUT__MODE__MODE_REPLACE &&
	    op->mode != TB__SITE_PUT__MODE__MODE_UPSERT)
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, "mode",
			      "use create, replace or upsert");
	rv = sites_twice(a, op);
	if (rv == 0)
		rv = store_count(a->s, "site", &sites);
	if (rv == 0)
		rv = quotas_begin(a, op, &quotas);
	if (rv != 0)
		return rv;
	for (size_t i = 0; i < op->n_sites && rv == 0; i++)
		rv = site_put(a, op, i, &sites);
	if (rv == 0)
		return quotas_end(a, &quotas);
	tb__cluster__free_unpacked(quotas.cluster, NULL);
	return rv;
}

static int site_delete(struct applier *a, const Tb__Site *site)
{
	Tb__Grant *grant;
	size_t certificates = 0;
	int rv = store_grant_get(a->s, site->id, &grant);

	if (rv == 0) {
		rv = store_counter_raise(a->s, "epoch", grant->epoch);
		tb__grant__free_unpacked(grant, NULL);
	} else if (rv == -ENOENT) {
		rv = 0;
	}
	if (rv == 0)
		rv = store_site_delete(a->s, site->id);
	if (rv == 0 && level_reached(a, LEVEL_CERTIFICATES))
		rv = site_certificates_revoke(a, site->name, &certificates);
	if (rv != 0)
		return rv;
	a->result->deleted++;
	changed_site(a, site->name);
	if (certificates == 0)
		return audit(a, "site.deleted", INFO, (struct subject){.site = site->name},
			     "site %s deleted", site->name);
	return audit(a, "site.deleted", INFO, (struct subject){.site = site->name},
		     "site %s deleted; its certificates (%zu) are revoked", site->name,
		     certificates);
}

static int site_delete_named(struct applier *a, const Tb__SiteDelete *op, size_t i)
{
	struct apply_problem problem;
	char field[160];
	Tb__Site *site;
	int rv;

	snprintf(field, sizeof(field), "names[%zu]", i);
	if (name_check(op->names[i], field, &problem) != 0)
		return refuse_invalid(a, &problem);
	rv = store_site_find(a->s, op->names[i], &site);
	if (rv == -ENOENT)
		return refuse(a, TB__REFUSAL__REFUSAL_NOT_FOUND, field,
			      "there is no site %s; see witnessctl site list", op->names[i]);
	if (rv != 0)
		return rv;
	if (!tenant_may(a, site))
		rv = refuse(a, TB__REFUSAL__REFUSAL_NOT_FOUND, field,
			    "there is no site %s of this tenant", site->name);
	else if (op->if_revision != 0 && op->if_revision != site->revision)
		rv = refuse_revision(a, site->name, site->revision);
	else
		rv = site_delete(a, site);
	tb__site__free_unpacked(site, NULL);
	return rv;
}

/* In the order of their names; 0 takes the quota away. */
static int quota_set(struct applier *a, Tb__Cluster *row, const Tb__TenantSet *op)
{
	Tb__TenantQuota *quota = NULL;
	size_t at = 0;

	while (at < row->n_quotas && strcmp(row->quotas[at]->tenant, op->tenant) < 0)
		at++;
	if (at < row->n_quotas && strcmp(row->quotas[at]->tenant, op->tenant) == 0)
		quota = row->quotas[at];
	if (op->max_sites == (quota != NULL ? quota->max_sites : 0))
		return 0;
	a->result->changed = 1;
	if (op->max_sites == 0) {
		tb__tenant_quota__free_unpacked(quota, NULL);
		row->n_quotas--;
		memmove(&row->quotas[at], &row->quotas[at + 1],
			(row->n_quotas - at) * sizeof(row->quotas[0]));
		return 0;
	}
	if (quota == NULL) {
		if (row->n_quotas == LIMIT_TENANTS)
			return refuse(a, TB__REFUSAL__REFUSAL_LIMIT, "tenant",
				      "at most %d tenants may have a quota", LIMIT_TENANTS);
		quota = mem_alloc(sizeof(*quota));
		tb__tenant_quota__init(quota);
		quota->tenant = mem_strdup(op->tenant);
		row->quotas =
			mem_realloc(row->quotas, (row->n_quotas + 1) * sizeof(row->quotas[0]));
		memmove(&row->quotas[at + 1], &row->quotas[at],
			(row->n_quotas - at) * sizeof(row->quotas[0]));
		row->quotas[at] = quota;
		row->n_quotas++;
	}
	quota->max_sites = op->max_sites;
	return 0;
}

static int apply_tenant_set(struct applier *a, const Tb__TenantSet *op)
{
	struct apply_problem problem;
	Tb__Cluster *row;
	int rv;

	if (name_check(op->tenant, "tenant", &problem) != 0)
		return refuse_invalid(a, &problem);
	rv = store_cluster_get(a->s, &row);
	if (rv != 0)
		return rv;
	rv = quota_set(a, row, op);
	a->result->unchanged = a->result->changed == 0;
	if (rv == 0 && a->result->changed != 0) {
		a->out->cluster_changed = true;
		rv = store_cluster_put(a->s, row);
		if (rv == 0)
			rv = op->max_sites != 0
				     ? audit(a, "tenant.changed", INFO, (struct subject){0},
					     "tenant %s may have %" PRIu32 " sites", op->tenant,
					     op->max_sites)
				     : audit(a, "tenant.changed", INFO, (struct subject){0},
					     "tenant %s may have any number of sites", op->tenant);
	}
	tb__cluster__free_unpacked(row, NULL);
	return rv;
}

struct site_tokens {
	const Tb__SiteDelete *op;
	size_t count;
	char *ids[LIMIT_TOKENS];
};

static int site_tokens_visit(void *arg, const Tb__Token *row)
{
	struct site_tokens *tokens = arg;

	if (row->revoked || row->site[0] == '\0')
		return 0;
	for (size_t i = 0; i < tokens->op->n_names; i++) {
		if (strcmp(tokens->op->names[i], row->site) != 0)
			continue;
		tokens->ids[tokens->count++] = mem_strdup(row->id);
		break;
	}
	return tokens->count == LIMIT_TOKENS;
}

/* They enrol a site of that name, whosever it will be. */
static int site_tokens_revoke(struct applier *a, const Tb__SiteDelete *op)
{
	struct site_tokens tokens = {.op = op};
	int rv = store_tokens(a->s, site_tokens_visit, &tokens);

	for (size_t i = 0; i < tokens.count; i++) {
		Tb__Token *row = NULL;

		if (rv == 0)
			rv = store_token_get(a->s, tokens.ids[i], &row);
		if (rv == 0)
			rv = token_void(a, row);
		tb__token__free_unpacked(row, NULL);
		free(tokens.ids[i]);
	}
	return rv;
}

static int apply_site_delete(struct applier *a, const Tb__SiteDelete *op)
{
	int rv = bulk_count(a, op->n_names, op->if_revision, "names");

	for (size_t i = 0; i < op->n_names && rv == 0; i++)
		rv = site_delete_named(a, op, i);
	if (rv == 0 && level_reached(a, LEVEL_CERTIFICATES))
		rv = site_tokens_revoke(a, op);
	return rv;
}

/* --- grants ---------------------------------------------------------------------------------- */

/* "node 1" or "nodes 1, 2, 3"; more than eight are counted only, since an event is a sentence. */
static void nodes_describe(const Tb__Grant *grant, struct buf *out)
{
	size_t shown = grant->n_nodes <= 8 ? grant->n_nodes : 8;

	buf_puts(out, grant->n_nodes == 1 ? "node " : "nodes ");
	for (size_t i = 0; i < shown; i++)
		buf_printf(out, "%s%" PRIu32, i > 0 ? ", " : "", grant->nodes[i]);
	if (grant->n_nodes > shown)
		buf_printf(out, " and %zu more", grant->n_nodes - shown);
}

static bool same_nodes(const Tb__Grant *one, const Tb__Grant *two)
{
	return one->n_nodes == two->n_nodes &&
	       memcmp(one->nodes, two->nodes, one->n_nodes * sizeof(one->nodes[0])) == 0;
}

static const char *grant_event_type(const Tb__Grant *old, const Tb__Grant *grant)
{
	if (grant->lease)
		return "lease.granted";
	if (old == NULL || old->n_nodes == 0)
		return "grant.given";
	return same_nodes(old, grant) ? "grant.renewed" : "grant.moved";
}

static int grant_put(struct applier *a, const Tb__Site *site, const Tb__Grant *old,
		     const Tb__Grant *grant)
{
	Tb__RingId no_ring = TB__RING_ID__INIT;
	Tb__Grant row = *grant;
	struct buf nodes = {0};
	int rv;

	row.granted_ms = a->command->time_ms;
	if (row.ring == NULL)
		row.ring = &no_ring;
	rv = store_grant_put(a->s, &row);
	if (rv != 0)
		return rv;
	changed_grant(a, &row);
	nodes_describe(&row, &nodes);
	if (row.lease)
		rv = audit(a, grant_event_type(old, &row), INFO,
			   (struct subject){.site = site->name},
			   "lease of %s given to %s (epoch %" PRIu64 ")%s%s", site->name,
			   buf_string(&nodes), row.epoch, row.reason[0] != '\0' ? ": " : "",
			   row.reason);
	else
		rv = audit(a, grant_event_type(old, &row), INFO,
			   (struct subject){.site = site->name},
			   "vote of %s given to %s on ring %" PRIu32 ".%" PRIu64 " (epoch %" PRIu64
			   ")%s%s",
			   site->name, buf_string(&nodes), row.ring->node, row.ring->seq, row.epoch,
			   row.reason[0] != '\0' ? ": " : "", row.reason);
	buf_free(&nodes);
	return rv;
}

static int grant_epoch(struct applier *a, const Tb__GrantSet *op, const Tb__Grant *old)
{
	uint64_t committed = old != NULL ? old->epoch : 0;

	if (op->after_epoch != committed)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "afterEpoch",
			      "the site's epoch is %" PRIu64 ", not %" PRIu64 "; decide again",
			      committed, op->after_epoch);
	if (op->grant->epoch <= committed)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "grant.epoch",
			      "the new epoch %" PRIu64 " must be above %" PRIu64 "; decide again",
			      op->grant->epoch, committed);
	return 0;
}

static int grant_site(struct applier *a, uint64_t id, Tb__Site **ret)
{
	int rv = store_site_get(a->s, id, ret);

	if (rv != -ENOENT)
		return rv;
	return refuse(a, TB__REFUSAL__REFUSAL_NOT_FOUND, "grant.siteId",
		      "there is no site with the id %" PRIu64 "; it was deleted", id);
}

static int apply_grant_set(struct applier *a, const Tb__GrantSet *op)
{
	struct apply_problem problem;
	Tb__Site *site = NULL;
	Tb__Grant *old = NULL;
	int rv;

	if (op->grant == NULL)
		return refuse_missing(a, "grant");
	if (grant_check(op->grant, &problem) != 0)
		return refuse_invalid(a, &problem);
	rv = grant_site(a, op->grant->site_id, &site);
	if (rv != 0)
		return rv;
	rv = store_grant_get(a->s, site->id, &old);
	if (rv == 0 || rv == -ENOENT)
		rv = grant_epoch(a, op, old);
	if (rv == 0)
		rv = grant_put(a, site, old, op->grant);
	tb__grant__free_unpacked(old, NULL);
	tb__site__free_unpacked(site, NULL);
	return rv;
}

static int lease_note_put(struct applier *a, const Tb__LeaseNote *op, const Tb__Grant *old)
{
	Tb__Grant row;
	int rv = 0;

	if (old == NULL || !old->lease || old->epoch != op->epoch)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "epoch",
			      "the lease is not that of epoch %" PRIu64 " any more", op->epoch);
	row = *old;
	if (op->generation > row.generation) {
		row.generation = op->generation;
		rv = store_grant_put(a->s, &row);
	}
	if (rv == 0)
		changed_grant(a, &row);
	return rv;
}

static int apply_lease_note(struct applier *a, const Tb__LeaseNote *op)
{
	Tb__Grant *old = NULL;
	int rv = store_grant_get(a->s, op->site_id, &old);

	if (rv == 0 || rv == -ENOENT)
		rv = lease_note_put(a, op, old);
	tb__grant__free_unpacked(old, NULL);
	return rv;
}

/* --- service addresses ----------------------------------------------------------------------- */

struct address_fit {
	struct ip ip;
	const Tb__ServiceAddress *row;
	char owner[LIMIT_NAME + 1]; /* the board whose own address it is; "" none */
	unsigned named; /* boards of the row that are in the cluster */
};

static bool is_host_of(const char *host_port, const struct ip *ip)
{
	struct ip own;
	uint16_t port;

	return ip_of_text(host_port, &own, &port) == 0 && ip_equal(&own, ip);
}

static int address_fit_visit(void *arg, const Tb__Node *node)
{
	struct address_fit *fit = arg;

	if (is_host_of(node->address, &fit->ip) || is_host_of(node->qnet_address, &fit->ip))
		snprintf(fit->owner, sizeof(fit->owner), "%s", node->name);
	for (size_t i = 0; i < fit->row->n_boards; i++)
		fit->named += strcmp(fit->row->boards[i], node->name) == 0;
	return 0;
}

/* What the boards have to say about it. */
static int address_fits(struct applier *a, const Tb__ServiceAddress *row)
{
	struct address_fit fit = {.row = row};
	int rv;

	ip_parse(row->address, &fit.ip);
	rv = store_nodes(a->s, address_fit_visit, &fit);
	if (rv != 0)
		return rv;
	if (fit.owner[0] != '\0')
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, "address",
			      "%s is the own address of board %s; a service address is one that "
			      "no machine has",
			      row->address, fit.owner);
	if (fit.named != row->n_boards)
		return refuse(
			a, TB__REFUSAL__REFUSAL_INVALID, "boards",
			"not all of them are boards of the cluster; see witnessctl node list");
	return 0;
}

/* Where the address of this number is, or would be. */
static size_t address_place(const Tb__Cluster *cluster, const struct ip *ip, bool *ret_there)
{
	size_t at = 0;
	int order = 1;

	for (; at < cluster->n_addresses; at++) {
		struct ip other = {0};

		ip_parse(cluster->addresses[at]->address, &other);
		order = ip_order(&other, ip);
		if (order >= 0)
			break;
	}
	*ret_there = order == 0;
	return at;
}

static int address_insert(struct applier *a, Tb__Cluster *cluster, size_t at,
			  const Tb__ServiceAddress *row)
{
	if (cluster->n_addresses >= LIMIT_ADDRESSES)
		return refuse(a, TB__REFUSAL__REFUSAL_LIMIT, "address",
			      "a cluster has at most %d service addresses; remove one with "
			      "witnessctl address remove",
			      LIMIT_ADDRESSES);
	cluster->addresses = mem_realloc(
		cluster->addresses, (cluster->n_addresses + 1) * sizeof(cluster->addresses[0]));
	memmove(&cluster->addresses[at + 1], &cluster->addresses[at],
		(cluster->n_addresses - at) * sizeof(cluster->addresses[0]));
	cluster->addresses[at] = (Tb__ServiceAddress *)message_copy(&row->base);
	cluster->n_addresses++;
	a->result->created = 1;
	return 0;
}

static int address_put(struct applier *a, Tb__Cluster *cluster, const Tb__ServiceAddress *wanted)
{
	Tb__ServiceAddress row = *wanted;
	struct ip ip = {0};
	bool there;
	size_t at;
	int rv = 0;

	ip_parse(row.address, &ip);
	at = address_place(cluster, &ip, &there);
	row.status = NULL;
	row.added_ms = there ? cluster->addresses[at]->added_ms : a->command->time_ms;
	if (there && message_equal(&cluster->addresses[at]->base, &row.base)) {
		a->result->unchanged = 1;
		return 0;
	}
	if (there) {
		tb__service_address__free_unpacked(cluster->addresses[at], NULL);
		cluster->addresses[at] = (Tb__ServiceAddress *)message_copy(&row.base);
		a->result->changed = 1;
	} else {
		rv = address_insert(a, cluster, at, &row);
	}
	if (rv != 0)
		return rv;
	a->out->cluster_changed = true;
	rv = store_cluster_put(a->s, cluster);
	if (rv != 0)
		return rv;
	return audit(a, there ? "address.changed" : "address.added", INFO, (struct subject){0},
		     "service address %s/%" PRIu32 " at interface %s", row.address, row.prefix,
		     row.interface);
}

static int apply_address_set(struct applier *a, const Tb__AddressSet *op)
{
	struct apply_problem problem;
	Tb__Cluster *cluster;
	int rv;

	if (op->address == NULL)
		return refuse_missing(a, "address");
	if (service_address_check(op->address, &problem) != 0)
		return refuse_invalid(a, &problem);
	rv = address_fits(a, op->address);
	if (rv == 0)
		rv = store_cluster_get(a->s, &cluster);
	if (rv != 0)
		return rv;
	rv = address_put(a, cluster, op->address);
	tb__cluster__free_unpacked(cluster, NULL);
	return rv;
}

static int address_drop(struct applier *a, Tb__Cluster *cluster, size_t at)
{
	tb__service_address__free_unpacked(cluster->addresses[at], NULL);
	cluster->n_addresses--;
	memmove(&cluster->addresses[at], &cluster->addresses[at + 1],
		(cluster->n_addresses - at) * sizeof(cluster->addresses[0]));
	a->result->deleted = 1;
	a->out->cluster_changed = true;
	return store_cluster_put(a->s, cluster);
}

static int apply_address_remove(struct applier *a, const Tb__AddressRemove *op)
{
	Tb__Cluster *cluster;
	bool there = false;
	struct ip ip;
	size_t at = 0;
	int rv = store_cluster_get(a->s, &cluster);

	if (rv != 0)
		return rv;
	if (ip_parse(op->address, &ip) == 0)
		at = address_place(cluster, &ip, &there);
	if (there)
		rv = address_drop(a, cluster, at);
	else
		rv = refuse(a, TB__REFUSAL__REFUSAL_NOT_FOUND, "address",
			    "no service address has that number; see witnessctl address list");
	tb__cluster__free_unpacked(cluster, NULL);
	if (rv != 0)
		return rv;
	return audit(a, "address.removed", INFO, (struct subject){0}, "service address %s removed",
		     op->address);
}

/* --- events ---------------------------------------------------------------------------------- */

static int apply_event_add(struct applier *a, const Tb__EventAdd *op)
{
	struct apply_problem problem;
	Tb__Event row;

	if (op->event == NULL)
		return refuse_missing(a, "event");
	if (event_check(op->event, &problem) != 0)
		return refuse_invalid(a, &problem);
	row = *op->event;
	row.time_ms = a->command->time_ms;
	if (row.actor[0] == '\0')
		row.actor = a->command->actor;
	return store_event_add(a->s, &row);
}

/* --- a command, an entry --------------------------------------------------------------------- */

static int command_dispatch(struct applier *a)
{
	const Tb__Command *c = a->command;

	switch (c->op_case) {
	case TB__COMMAND__OP_CLUSTER_INIT:
		return apply_cluster_init(a, c->cluster_init);
	case TB__COMMAND__OP_CLUSTER_SET:
		return apply_cluster_set(a, c->cluster_set);
	case TB__COMMAND__OP_NODE_ADD:
		return apply_node_add(a, c->node_add);
	case TB__COMMAND__OP_NODE_SET:
		return apply_node_set(a, c->node_set);
	case TB__COMMAND__OP_NODE_REMOVE:
		return apply_node_remove(a, c->node_remove);
	case TB__COMMAND__OP_TOKEN_ADD:
		return apply_token_add(a, c->token_add);
	case TB__COMMAND__OP_TOKEN_REVOKE:
		return apply_token_revoke(a, c->token_revoke);
	case TB__COMMAND__OP_SITE_PUT:
		return apply_site_put(a, c->site_put);
	case TB__COMMAND__OP_SITE_DELETE:
		return apply_site_delete(a, c->site_delete);
	case TB__COMMAND__OP_GRANT_SET:
		return apply_grant_set(a, c->grant_set);
	case TB__COMMAND__OP_CERTIFICATE_ADD:
		return apply_certificate_add(a, c->certificate_add);
	case TB__COMMAND__OP_CERTIFICATE_REVOKE:
		return apply_certificate_revoke(a, c->certificate_revoke);
	case TB__COMMAND__OP_CERTIFICATE_SAVED:
		return apply_certificate_saved(a, c->certificate_saved);
	case TB__COMMAND__OP_EVENT_ADD:
		return apply_event_add(a, c->event_add);
	case TB__COMMAND__OP_NODE_DRAIN:
		return apply_node_drain(a, c->node_drain);
	case TB__COMMAND__OP_CLUSTER_RESTORE:
		return apply_cluster_restore(a, c->cluster_restore);
	case TB__COMMAND__OP_CLUSTER_SETTLE:
		return apply_cluster_settle(a);
	case TB__COMMAND__OP_ALARM_SET:
		return apply_alarm_set(a, c->alarm_set);
	case TB__COMMAND__OP_NODE_ZONE:
		return apply_node_zone(a, c->node_zone);
	case TB__COMMAND__OP_TENANT_SET:
		return apply_tenant_set(a, c->tenant_set);
	case TB__COMMAND__OP_CLUSTER_LEVEL:
		return apply_cluster_level(a, c->cluster_level);
	case TB__COMMAND__OP_CLUSTER_CERTIFICATES:
		return certificate_life_set(a, c->cluster_certificates);
	case TB__COMMAND__OP_CA_ROTATE:
	case TB__COMMAND__OP_CA_ADVANCE:
	case TB__COMMAND__OP_CA_FINISH:
	case TB__COMMAND__OP_SITE_CA_ROTATE:
	case TB__COMMAND__OP_SITE_CA_FINISH:
		return ca_apply(a);
	case TB__COMMAND__OP_LEASE_NOTE:
		return apply_lease_note(a, c->lease_note);
	case TB__COMMAND__OP_ADDRESS_SET:
		return apply_address_set(a, c->address_set);
	case TB__COMMAND__OP_ADDRESS_REMOVE:
		return apply_address_remove(a, c->address_remove);
	case TB__COMMAND__OP_IMAGE_ADD:
	case TB__COMMAND__OP_IMAGE_REMOVE:
	case TB__COMMAND__OP_VM_PUT:
	case TB__COMMAND__OP_VM_DELETE:
	case TB__COMMAND__OP_VM_RUN:
	case TB__COMMAND__OP_VM_MOVE:
	case TB__COMMAND__OP_VM_PLACE:
	case TB__COMMAND__OP_VM_RELEASE:
	case TB__COMMAND__OP_VM_SETTLE:
		return vm_apply(a);
	case TB__COMMAND__OP_NODE_HOST_SET:
		return apply_node_host_set(a, c->node_host_set);
	default:
		/* entry_known let no other pass. */
		abort();
	}
}

static bool command_founds(const Tb__Command *c)
{
	return c->op_case == TB__COMMAND__OP_CLUSTER_INIT ||
	       c->op_case == TB__COMMAND__OP_CLUSTER_RESTORE;
}

static int command_envelope_check(struct applier *a)
{
	const Tb__Command *c = a->command;
	struct apply_problem problem;
	Tb__Cluster *cluster;
	int rv;

	if (text_check(c->actor, CHECK_ACTOR, "actor", &problem) != 0)
		return refuse_invalid(a, &problem);
	rv = store_cluster_get(a->s, &cluster);
	if (rv == 0)
		tb__cluster__free_unpacked(cluster, NULL);
	else if (rv != -ENOENT)
		return rv;
	if (rv == 0 && command_founds(c))
		return refuse(a, TB__REFUSAL__REFUSAL_INITIALISED, "",
			      "this cluster exists already; to join it use witnessctl cluster "
			      "join on another board");
	if (rv != 0 && !command_founds(c))
		return refuse(a, TB__REFUSAL__REFUSAL_NOT_INITIALISED, "",
			      "there is no cluster yet; make one with witnessctl cluster init");
	return 0;
}

/* What the entry changed so far, to go back to when a command is refused. */
static void changes_undo(struct apply_result *out, const struct apply_result *before)
{
	while (out->site_count > before->site_count)
		free(out->sites[--out->site_count]);
	while (out->grant_count > before->grant_count)
		tb__grant__free_unpacked(out->grants[--out->grant_count], NULL);
	out->nodes_changed = before->nodes_changed;
	out->cluster_changed = before->cluster_changed;
	out->certificates_changed = before->certificates_changed;
	out->images_changed = before->images_changed;
	out->vms_changed = before->vms_changed;
}

/* All of the command, or nothing but its refusal. */
static int command_run(struct applier *a)
{
	struct apply_result before = *a->out;
	int rv = command_envelope_check(a);
	int end;

	if (rv != 0)
		return rv == REFUSED ? 0 : rv;
	rv = store_mark(a->s);
	if (rv != 0)
		return rv;
	rv = command_dispatch(a);
	if (rv < 0)
		return rv;
	if (rv == 0)
		return store_keep(a->s);
	end = store_undo(a->s);
	changes_undo(a->out, &before);
	/* Counts of what was done before it was refused. */
	a->result->node_id = 0;
	a->result->created = a->result->changed = a->result->unchanged = a->result->deleted = 0;
	return end;
}

static int command_apply(struct applier *a)
{
	const Tb__Command *c = a->command;
	int rv;

	if (c->id.len != COMMAND_ID) {
		refuse(a, TB__REFUSAL__REFUSAL_INVALID, "id",
		       "the id of a command has %d bytes; draw a random one", COMMAND_ID);
		return 0;
	}
	rv = command_run(a);
	/* The arbiter's commands are proposed once and guarded by their epoch. In a storm they
	 * would push the ids of operators' commands out of the ring while these may still be tried
	 * again.
	 */
	if (rv != 0 || c->op_case == TB__COMMAND__OP_GRANT_SET ||
	    c->op_case == TB__COMMAND__OP_LEASE_NOTE)
		return rv;
	return store_request_put(a->s, c->id.data, c->id.len, a->result);
}

/* Applies it, or gives the result it had before. */
static int command_once(struct store *s, uint64_t index, const Tb__Command *command,
			struct apply_result *out, Tb__CommandResult **ret)
{
	struct applier a = {.s = s, .index = index, .command = command, .out = out};
	int rv = store_request_get(s, command->id.data, command->id.len, ret);

	if (rv != -ENOENT)
		return rv;
	a.result = mem_alloc(sizeof(*a.result));
	tb__command_result__init(a.result);
	a.result->index = index;
	rv = command_apply(&a);
	if (rv == 0)
		*ret = a.result;
	else
		tb__command_result__free_unpacked(a.result, NULL);
	return rv;
}

static bool site_put_for_agents(const Tb__SitePut *op)
{
	for (size_t i = 0; i < op->n_sites; i++) {
		const Tb__SitePolicy *p = op->sites[i]->policy;

		if (p != NULL &&
		    (p->algorithm == TB__ALGORITHM__ALGORITHM_LEASE ||
		     p->lease != TB__LEASE_POLICY__LEASE_POLICY_ANY || p->lease_node != 0))
			return true;
	}
	return false;
}

/* The first release would refuse it, or tell it otherwise in the event log. */
static bool command_for_agents(const Tb__Command *command)
{
	switch (command->op_case) {
	case TB__COMMAND__OP_TOKEN_ADD:
		return command->token_add->token != NULL &&
		       command->token_add->token->role == TB__ROLE__ROLE_AGENT;
	case TB__COMMAND__OP_CERTIFICATE_ADD:
		return command->certificate_add->certificate != NULL &&
		       strcmp(command->certificate_add->certificate->kind, "agent") == 0;
	case TB__COMMAND__OP_GRANT_SET:
		return command->grant_set->grant != NULL && command->grant_set->grant->lease;
	case TB__COMMAND__OP_SITE_PUT:
		return site_put_for_agents(command->site_put);
	default:
		return false;
	}
}

unsigned command_level(const Tb__Command *command)
{
	if (command->op_case >= TB__COMMAND__OP_ADDRESS_SET ||
	    (command->op_case == TB__COMMAND__OP_CLUSTER_SET &&
	     command->cluster_set->keep_room != 0))
		return 3;
	if (command->op_case >= TB__COMMAND__OP_NODE_DRAIN || command->tenant[0] != '\0' ||
	    command_for_agents(command))
		return 2;
	if (command->op_case == TB__COMMAND__OP_TOKEN_ADD && command->token_add->token != NULL &&
	    (command->token_add->token->replaces != 0 ||
	     command->token_add->token->tenant[0] != '\0'))
		return 2;
	return LEVEL_FIRST;
}

bool command_known(const Tb__Command *command)
{
	return command->op_case != TB__COMMAND__OP__NOT_SET;
}

static bool entry_known(const Tb__Entry *entry)
{
	for (size_t i = 0; i < entry->n_commands; i++) {
		if (!command_known(entry->commands[i]))
			return false;
	}
	return true;
}

static int entry_run(struct store *s, uint64_t index, const Tb__Entry *entry,
		     struct apply_result *out)
{
	int rv = store_begin(s);

	if (rv != 0)
		return rv;
	for (size_t i = 0; i < entry->n_commands && rv == 0; i++) {
		rv = command_once(s, index, entry->commands[i], out, &out->results[i]);
		out->count += rv == 0;
	}
	if (rv == 0)
		rv = store_commit(s, index);
	if (rv != 0)
		store_rollback(s);
	return rv;
}

int apply_entry(struct store *s, uint64_t index, const uint8_t *data, size_t len,
		struct apply_result *ret)
{
	struct apply_result out = {0};
	Tb__Entry *entry = tb__entry__unpack(NULL, len, data);
	int rv = -EBADMSG;

	if (entry != NULL && entry_known(entry)) {
		out.results = mem_array(entry->n_commands, sizeof(out.results[0]));
		rv = entry_run(s, index, entry, &out);
	}
	tb__entry__free_unpacked(entry, NULL);
	if (rv == 0)
		*ret = out;
	else
		apply_result_free(&out);
	/* A constraint of the tables that our own checks should have kept. */
	return rv == 0 || rv == -EBADMSG ? rv : -EIO;
}

void apply_result_free(struct apply_result *r)
{
	for (size_t i = 0; i < r->count; i++)
		tb__command_result__free_unpacked(r->results[i], NULL);
	for (size_t i = 0; i < r->site_count; i++)
		free(r->sites[i]);
	for (size_t i = 0; i < r->grant_count; i++)
		tb__grant__free_unpacked(r->grants[i], NULL);
	free(r->results);
	free(r->sites);
	free(r->grants);
	*r = (struct apply_result){0};
}
