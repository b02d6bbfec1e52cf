/* api_tenants.c: tenants: whose sites are whose (label "tenant"), and how many each may have. */
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "witnessd/api_call.h"

struct tenants {
	Tb__Tenant **items; /* by name */
	size_t count;
};

static Tb__Tenant *tenant_at(struct tenants *t, const char *name)
{
	size_t at = 0;

	while (at < t->count && strcmp(t->items[at]->name, name) < 0)
		at++;
	if (at < t->count && strcmp(t->items[at]->name, name) == 0)
		return t->items[at];
	t->items = mem_realloc(t->items, (t->count + 1) * sizeof(*t->items));
	memmove(&t->items[at + 1], &t->items[at], (t->count - at) * sizeof(*t->items));
	t->items[at] = mem_alloc(sizeof(*t->items[at]));
	tb__tenant__init(t->items[at]);
	t->items[at]->name = mem_strdup(name);
	t->count++;
	return t->items[at];
}

static int tenant_visit(void *arg, const char *tenant, uint64_t sites)
{
	tenant_at(arg, tenant)->sites = (uint32_t)sites;
	return 0;
}

static int tenants_read(struct api_call *call, struct tenants *t)
{
	struct store *s = api_store(call->api);
	Tb__Cluster *cluster;
	int rv = store_cluster_get(s, &cluster);

	if (rv == 0)
		rv = store_tenants(s, tenant_visit, t);
	if (rv != 0) {
		api_store_failed(call);
		return rv;
	}
	for (size_t i = 0; i < cluster->n_quotas; i++)
		tenant_at(t, cluster->quotas[i]->tenant)->max_sites = cluster->quotas[i]->max_sites;
	tb__cluster__free_unpacked(cluster, NULL);
	return 0;
}

static void tenants_free(struct tenants *t)
{
	for (size_t i = 0; i < t->count; i++)
		tb__tenant__free_unpacked(t->items[i], NULL);
	free(t->items);
}

void api_tenants_list(struct api_call *call)
{
	struct tenants t = {0};
	Tb__TenantList list = TB__TENANT_LIST__INIT;

	if (tenants_read(call, &t) == 0) {
		list.items = t.items;
		list.n_items = t.count;
		api_answer_message(call, &list.base);
	}
	tenants_free(&t);
}

static void tenant_applied(struct api_call *call, const Tb__CommandResult *result)
{
	struct tenants t = {0};

	(void)result;
	if (tenants_read(call, &t) == 0)
		api_answer_message(call, &tenant_at(&t, call->arg)->base);
	tenants_free(&t);
}

void api_tenant_set(struct api_call *call)
{
	const Tb__Tenant *wanted = (const Tb__Tenant *)call->request;
	Tb__Command *command;

	if (wanted->name[0] != '\0' && strcmp(wanted->name, call->arg) != 0) {
		api_problem_field(call, 422, "name", "differs from the name in the path");
		return;
	}
	command = api_command(call, 0);
	command->op_case = TB__COMMAND__OP_TENANT_SET;
	command->tenant_set = mem_alloc(sizeof(*command->tenant_set));
	tb__tenant_set__init(command->tenant_set);
	command->tenant_set->tenant = mem_strdup(call->arg);
	command->tenant_set->max_sites = wanted->max_sites;
	api_propose(call, command, tenant_applied);
}
