/* api_rehearse.c: what a command about images and VMs would do, by the very code that does it: a
 * model in memory gets the few rows that such a command looks at. */
#include <errno.h>
#include <stdlib.h>

#include "lib/mem.h"
#include "witnessd/api_call.h"

struct copying {
	struct store *to;
	int rv;
};

static int node_copy(void *arg, const Tb__Node *row)
{
	struct copying *c = arg;

	c->rv = store_node_put(c->to, row);
	return c->rv != 0;
}

static int image_copy(void *arg, const Tb__Image *row)
{
	struct copying *c = arg;

	c->rv = store_image_put(c->to, row);
	return c->rv != 0;
}

static int vm_copy(void *arg, const Tb__Vm *row)
{
	struct copying *c = arg;

	c->rv = store_vm_put(c->to, row);
	return c->rv != 0;
}

static int cluster_copy(struct store *from, struct store *to)
{
	Tb__Cluster *cluster;
	uint64_t last = 0;
	int rv = store_cluster_get(from, &cluster);

	if (rv != 0)
		return rv;
	rv = store_cluster_put(to, cluster);
	tb__cluster__free_unpacked(cluster, NULL);
	if (rv == 0)
		rv = store_counter_get(from, "vm", &last);
	return rv == 0 && last > 0 ? store_counter_raise(to, "vm", last) : rv;
}

static int rows_copy(struct store *from, struct store *to)
{
	struct copying c = {.to = to};
	int rv = cluster_copy(from, to);

	if (rv == 0)
		rv = store_nodes(from, node_copy, &c);
	if (rv == 0 && c.rv == 0)
		rv = store_images(from, image_copy, &c);
	if (rv == 0 && c.rv == 0)
		rv = store_vms(from, vm_copy, &c);
	return rv != 0 ? rv : c.rv;
}

/* All rows of one commit. */
static int model_copy(struct store *from, struct store *to, uint64_t *ret_applied)
{
	int rv = store_begin(from);

	if (rv != 0)
		return rv;
	rv = store_begin(to);
	if (rv == 0)
		rv = store_applied(from, ret_applied);
	if (rv == 0)
		rv = rows_copy(from, to);
	if (rv == 0)
		rv = store_commit(to, *ret_applied);
	store_rollback(from);
	return rv;
}

static int command_apply(struct store *s, uint64_t index, Tb__Command *command,
			 struct apply_result *ret)
{
	Tb__Entry entry = TB__ENTRY__INIT;
	uint8_t *data;
	size_t len;
	int rv;

	entry.n_commands = 1;
	entry.commands = &command;
	len = tb__entry__get_packed_size(&entry);
	data = mem_alloc(len);
	tb__entry__pack(&entry, data);
	rv = apply_entry(s, index, data, len, ret);
	free(data);
	return rv;
}

int api_rehearse(struct api_call *call, Tb__Command *command, struct store **ret_store)
{
	struct apply_result result = {0};
	struct store *s = NULL;
	uint64_t applied = 0;
	int rv = store_open(":memory:", &s);

	if (rv == 0)
		rv = model_copy(api_store(call->api), s, &applied);
	if (rv == 0)
		rv = command_apply(s, applied + 1, command, &result);
	tb__command__free_unpacked(command, NULL);
	if (rv != 0) {
		api_store_failed(call);
	} else if (result.results[0]->refusal != TB__REFUSAL__REFUSAL_NONE) {
		rv = -EPERM;
		api_problem_refusal(call, result.results[0]);
	}
	apply_result_free(&result);
	if (rv == 0)
		*ret_store = s;
	else
		store_close(s);
	return rv;
}
