/* api_sites.c: the sites: read, write, in bulk. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "witnessd/api_call.h"
#include "witnessd/http.h"

static void site_absent(struct api_call *call)
{
	api_problem(call, 404, "GET /v1/sites lists the names", "there is no site \"%s\"",
		    call->arg);
}

bool api_site_visible(const struct api_call *call, const Tb__Site *site)
{
	return call->who.tenant[0] == '\0' || strcmp(site_tenant(site), call->who.tenant) == 0;
}

/* What a tenant makes is its own, without saying so. Another label than that is refused by the
 * model. */
static void site_claim(const struct api_call *call, Tb__Site *site)
{
	Tb__Site__LabelsEntry *label;

	if (call->who.tenant[0] == '\0' || site_tenant(site)[0] != '\0')
		return;
	label = mem_alloc(sizeof(*label));
	tb__site__labels_entry__init(label);
	label->key = mem_strdup("tenant");
	label->value = mem_strdup(call->who.tenant);
	site->labels = mem_realloc(site->labels, (site->n_labels + 1) * sizeof(*site->labels));
	site->labels[site->n_labels++] = label;
}

/* What a client sends back of an answer, and what is not its to say. */
static void site_clean(Tb__Site *site)
{
	tb__site_status__free_unpacked(site->status, NULL);
	site->status = NULL;
	site->id = 0;
	site->revision = 0;
	site->created_ms = 0;
}

/* --- list --- */

struct site_list {
	struct api_list out;
	struct api_site_filter filter;
	struct api_site_set batch;
	char *query; /* for the page token */
	char *after; /* name of the last row looked at, NULL none */
	uint32_t limit;
	bool more; /* there are rows behind this batch */
	uint64_t total; /* 0: not known */
};

static void site_list_free(void *state)
{
	struct site_list *l = state;

	buf_free(&l->out.text);
	api_site_set_clear(&l->batch);
	free(l->query);
	free(l->after);
	free(l);
}

static struct store_site_filter store_filter(const struct site_list *l, uint32_t limit)
{
	return (struct store_site_filter){.after_name = l->after,
					  .label_selector = l->filter.label,
					  .name_prefix = l->filter.prefix,
					  .limit = limit};
}

static void site_list_end(struct api_call *call)
{
	struct site_list *l = call->state;
	char *page = l->more ? api_page_for_call(call, l->query, l->after) : NULL;

	api_list_answer(&l->out, call, page, l->total);
	free(page);
}

static void site_list_read(struct api_call *call);

static void site_list_take(struct site_list *l, const Tb__Site *site)
{
	free(l->after);
	l->after = mem_strdup(site->name);
	if (l->filter.state < 0 || (int)site->status->state == l->filter.state)
		api_list_item(&l->out, &site->base);
}

static void site_list_answered(struct api_call *call, int error, const Tb__PeerAnswer *answer)
{
	struct site_list *l = call->state;
	size_t i = 0;

	if (error != 0 && l->filter.state >= 0) {
		api_problem_error(call, error, NULL);
		return;
	}
	api_site_set_fill(&l->batch, error, answer);
	while (i < l->batch.count && l->out.count < l->limit)
		site_list_take(l, l->batch.sites[i++]);
	l->more = l->more || i < l->batch.count;
	if (l->more && l->out.count < l->limit)
		site_list_read(call);
	else
		site_list_end(call);
}

/* Reads the next batch: just the page, or, to find those in a state, as many as one question to the
 * leader may name. */
static void site_list_read(struct api_call *call)
{
	struct site_list *l = call->state;
	uint32_t limit = l->filter.state < 0 ? l->limit : LIMIT_PAGE;
	struct store_site_filter filter = store_filter(l, limit + 1);
	struct store *s = api_store(call->api);
	const char *problem = NULL;
	Tb__SiteStatusQuery sites;
	Tb__PeerQuery query;
	int rv;

	api_site_set_clear(&l->batch);
	rv = s != NULL ? store_sites(s, &filter, api_site_set_add, &l->batch, &problem) : -EIO;
	if (rv == -EINVAL) {
		api_problem_field(call, 400, "label", problem);
		return;
	}
	if (rv != 0) {
		api_store_failed(call);
		return;
	}
	l->more = l->batch.count > limit;
	if (l->more)
		tb__site__free_unpacked(l->batch.sites[--l->batch.count], NULL);
	if (l->batch.count == 0) {
		site_list_end(call);
		return;
	}
	api_site_set_query(&l->batch, &query, &sites);
	api_query(call, &query, site_list_answered);
	free(sites.names);
}

enum { PAGE_DEFAULT = 100 };

static void sites_count(struct api_call *call, struct site_list *l)
{
	struct store_site_filter filter = store_filter(l, 0);

	filter.after_name = NULL;
	/* A selector that is wrong is reported by the reading. */
	if (l->filter.state < 0)
		store_sites_count(api_store(call->api), &filter, &l->total);
}

void api_sites_list(struct api_call *call)
{
	const struct api_value *limit = api_param(call, "limit");
	struct site_list *l;

	if (api_param(call, "watch")->number != 0 && call->who.tenant[0] != '\0') {
		api_problem(
			call, 403, "read the list from time to time",
			"a tenant's token cannot watch: deleted sites of others would be named");
		return;
	}
	if (api_param(call, "watch")->number != 0) {
		api_watch_start(call, true);
		return;
	}
	l = mem_zalloc(sizeof(*l));
	call->state = l;
	call->state_free = site_list_free;
	l->filter = api_site_filter_of(call);
	l->limit = limit->set ? (uint32_t)limit->number : PAGE_DEFAULT;
	l->query = mem_printf("sites\n%s\n%s\n%d", l->filter.label != NULL ? l->filter.label : "",
			      l->filter.prefix != NULL ? l->filter.prefix : "", l->filter.state);
	if (api_page_of_call(call, l->query, &l->after) != 0)
		return;
	sites_count(call, l);
	api_list_begin(&l->out);
	site_list_read(call);
}

/* --- one site --- */

static void site_state_free(void *state)
{
	struct api_site_set *set = state;

	api_site_set_clear(set);
	free(set);
}

static void site_get_answered(struct api_call *call, int error, const Tb__PeerAnswer *answer)
{
	struct api_site_set *set = call->state;

	api_site_set_fill(set, error, answer);
	api_answer_revision(call, &set->sites[0]->base, set->sites[0]->revision, NULL);
}

void api_site_get(struct api_call *call)
{
	struct api_site_set *set;
	Tb__SiteStatusQuery sites;
	Tb__PeerQuery query;
	Tb__Site *site;
	int rv = api_site_read(api_store(call->api), call->arg, &site);

	if (rv == 0 && !api_site_visible(call, site)) {
		tb__site__free_unpacked(site, NULL);
		rv = -ENOENT;
	}
	if (rv != 0) {
		if (rv == -ENOENT)
			site_absent(call);
		else
			api_store_failed(call);
		return;
	}
	set = mem_zalloc(sizeof(*set));
	set->sites = mem_array(1, sizeof(set->sites[0]));
	set->sites[0] = site;
	set->count = 1;
	set->room = 1;
	call->state = set;
	call->state_free = site_state_free;
	api_site_set_query(set, &query, &sites);
	api_query(call, &query, site_get_answered);
	free(sites.names);
}

/* The site as the model has it now, for the answer to a write. */
static void site_answer(struct api_call *call, const char *name)
{
	char *location = NULL;
	Tb__Site *site;
	int rv = store_site_find(api_store(call->api), name, &site);

	if (rv == -ENOENT) {
		api_problem(call, 409, NULL, "it was written, and deleted again meanwhile");
		return;
	}
	if (rv != 0) {
		api_store_failed(call);
		return;
	}
	if (call->route->status == 201)
		location = mem_printf("/v1/sites/%s", name);
	api_answer_revision(call, &site->base, site->revision, location);
	free(location);
	tb__site__free_unpacked(site, NULL);
}

/* A command that puts one site, taken over. */
static Tb__Command *put_command(struct api_call *call, Tb__Site *site, Tb__SitePut__Mode mode,
				uint64_t if_revision)
{
	Tb__Command *command = api_command(call, 0);
	Tb__SitePut *put = mem_alloc(sizeof(*put));

	tb__site_put__init(put);
	put->n_sites = 1;
	put->sites = mem_array(1, sizeof(put->sites[0]));
	put->sites[0] = site;
	put->mode = mode;
	put->if_revision = if_revision;
	command->op_case = TB__COMMAND__OP_SITE_PUT;
	command->site_put = put;
	return command;
}

static void site_created(struct api_call *call, const Tb__CommandResult *result)
{
	const Tb__Site *site = (const Tb__Site *)call->request;

	(void)result;
	site_answer(call, site->name);
}

static int site_checked(struct api_call *call, const Tb__Site *site)
{
	struct apply_problem problem;

	if (site_check(site, &problem) == 0)
		return 0;
	api_problem_field(call, 422, problem.field, problem.message);
	return -EINVAL;
}

void api_site_create(struct api_call *call)
{
	Tb__Site *site = (Tb__Site *)call->request;

	site_clean(site);
	site_claim(call, site);
	if (site_checked(call, site) != 0)
		return;
	api_propose(call,
		    put_command(call, (Tb__Site *)message_copy(&site->base),
				TB__SITE_PUT__MODE__MODE_CREATE, 0),
		    site_created);
}

static void site_written(struct api_call *call, const Tb__CommandResult *result)
{
	(void)result;
	site_answer(call, call->arg);
}

/* The path names the site; a name in the body may only repeat it. */
static int site_named(struct api_call *call, Tb__Site *site)
{
	if (site->name[0] == '\0') {
		api_field_set(&site->name, call->arg);
		return 0;
	}
	if (strcmp(site->name, call->arg) == 0)
		return 0;
	api_problem_field(call, 422, "name",
			  "differs from the name in the path; a site cannot be renamed, so "
			  "create another one and delete this one");
	return -EINVAL;
}

void api_site_replace(struct api_call *call)
{
	Tb__Site *site = (Tb__Site *)call->request;

	site_clean(site);
	site_claim(call, site);
	if (site_named(call, site) != 0 || site_checked(call, site) != 0)
		return;
	api_propose(call,
		    put_command(call, (Tb__Site *)message_copy(&site->base),
				TB__SITE_PUT__MODE__MODE_REPLACE, call->if_revision),
		    site_written);
}

/* --- merge patch --- */

enum { PATCH_TRIES = 5 };

struct patch {
	unsigned tries;
};

static void site_patch_try(struct api_call *call);

static void site_patched(struct api_call *call, const Tb__CommandResult *result)
{
	struct patch *p = call->state;

	if (result->refusal == TB__REFUSAL__REFUSAL_CONFLICT && call->if_revision == 0 &&
	    p->tries < PATCH_TRIES)
		site_patch_try(call);
	else if (result->refusal != TB__REFUSAL__REFUSAL_NONE)
		api_problem_refusal(call, result);
	else
		site_answer(call, call->arg);
}

static void site_patch_propose(struct api_call *call, Tb__Site *site)
{
	uint64_t revision = call->if_revision != 0 ? call->if_revision : site->revision;
	struct json_error error = {0};

	if (json_merge(&site->base, (const char *)call->body.data, call->body.len, &error) != 0) {
		api_problem_json(call, &error);
		tb__site__free_unpacked(site, NULL);
		return;
	}
	site_clean(site);
	if (site_named(call, site) != 0 || site_checked(call, site) != 0) {
		tb__site__free_unpacked(site, NULL);
		return;
	}
	api_propose_raw(call, put_command(call, site, TB__SITE_PUT__MODE__MODE_REPLACE, revision),
			site_patched);
}

/* Without If-Match somebody else's change between our reading and our writing is no reason to
 * bother the client: the patch is applied to the newer site. */
static void site_patch_try(struct api_call *call)
{
	struct patch *p = call->state;
	Tb__Site *site;
	int rv = store_site_find(api_store(call->api), call->arg, &site);

	if (rv == 0 && !api_site_visible(call, site)) {
		tb__site__free_unpacked(site, NULL);
		rv = -ENOENT;
	}
	p->tries++;
	if (rv == -ENOENT)
		site_absent(call);
	else if (rv != 0)
		api_store_failed(call);
	else
		site_patch_propose(call, site);
}

void api_site_patch(struct api_call *call)
{
	call->state = mem_zalloc(sizeof(struct patch));
	call->state_free = free;
	site_patch_try(call);
}

/* --- delete --- */

static void site_deleted(struct api_call *call, const Tb__CommandResult *result)
{
	Tb__Empty empty = TB__EMPTY__INIT;

	(void)result;
	api_answer_message(call, &empty.base);
}

void api_site_delete(struct api_call *call)
{
	Tb__Command *command = api_command(call, 0);
	Tb__SiteDelete *op = mem_alloc(sizeof(*op));

	tb__site_delete__init(op);
	op->n_names = 1;
	op->names = mem_array(1, sizeof(op->names[0]));
	op->names[0] = mem_strdup(call->arg);
	op->if_revision = call->if_revision;
	command->op_case = TB__COMMAND__OP_SITE_DELETE;
	command->site_delete = op;
	api_propose(call, command, site_deleted);
}

/* --- bulk --- */

static int bulk_problem(struct api_call *call, size_t i, const char *field, const char *message)
{
	char *place = mem_printf("sites[%zu].%s", i, field);

	api_problem_field(call, 422, place, message);
	free(place);
	return -EINVAL;
}

static int name_order(const void *one, const void *two)
{
	return strcmp(*(char *const *)one, *(char *const *)two);
}

static int bulk_twice(struct api_call *call, const Tb__SiteBulk *bulk)
{
	char **names = mem_array(bulk->n_sites, sizeof(*names));
	const char *twice = NULL;
	int rv = 0;

	for (size_t i = 0; i < bulk->n_sites; i++)
		names[i] = bulk->sites[i]->name;
	qsort(names, bulk->n_sites, sizeof(*names), name_order);
	for (size_t i = 1; i < bulk->n_sites && twice == NULL; i++)
		if (strcmp(names[i - 1], names[i]) == 0)
			twice = names[i];
	for (size_t i = bulk->n_sites; twice != NULL && i-- > 0;)
		if (bulk->sites[i]->name == twice || strcmp(bulk->sites[i]->name, twice) == 0) {
			rv = bulk_problem(call, i, "name", "is in this batch twice");
			break;
		}
	free(names);
	return rv;
}

static int bulk_check(struct api_call *call, const Tb__SiteBulk *bulk)
{
	struct apply_problem problem;

	if (bulk->n_sites == 0 || bulk->n_sites > LIMIT_BULK) {
		api_problem_field(call, 422, "sites", "must hold 1 to 256 sites");
		return -EINVAL;
	}
	for (size_t i = 0; i < bulk->n_sites; i++) {
		site_clean(bulk->sites[i]);
		site_claim(call, bulk->sites[i]);
		if (site_check(bulk->sites[i], &problem) != 0)
			return bulk_problem(call, i, problem.field, problem.message);
	}
	return bulk_twice(call, bulk);
}

static int label_order(const void *one, const void *two)
{
	const Tb__Site__LabelsEntry *const *a = one;
	const Tb__Site__LabelsEntry *const *b = two;

	return strcmp((*a)->key, (*b)->key);
}

/* The bytes of what a client says of a site, in one order. */
static void site_bytes(Tb__Site *site, struct buf *out)
{
	Tb__SitePolicy policy = TB__SITE_POLICY__INIT;
	bool without = site->policy == NULL;

	site_clean(site);
	if (site->n_labels > 1)
		qsort(site->labels, site->n_labels, sizeof(site->labels[0]), label_order);
	if (without)
		site->policy = &policy;
	buf_reserve(out, tb__site__get_packed_size(site));
	out->len = tb__site__pack(site, out->data);
	if (without)
		site->policy = NULL;
}

static bool site_same(Tb__Site *one, Tb__Site *two)
{
	struct buf a = {0};
	struct buf b = {0};
	bool same;

	site_bytes(one, &a);
	site_bytes(two, &b);
	same = a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
	buf_free(&a);
	buf_free(&b);
	return same;
}

static void room_add(Tb__SiteBulkResult *result, const char *tenant, uint32_t max, uint64_t sites,
		     int32_t more)
{
	Tb__SiteRoom *room = mem_alloc(sizeof(*room));

	tb__site_room__init(room);
	room->tenant = mem_strdup(tenant);
	room->max = max;
	room->sites = (uint32_t)sites;
	room->more = more;
	result->rooms =
		mem_realloc(result->rooms, (result->n_rooms + 1) * sizeof(result->rooms[0]));
	result->rooms[result->n_rooms++] = room;
}

static int tenant_count(struct store *s, const char *tenant, uint64_t *ret)
{
	char *selector = mem_printf("tenant=%s", tenant);
	const struct store_site_filter filter = {.label_selector = selector};
	int rv = store_sites_count(s, &filter, ret);

	free(selector);
	return rv;
}

/* `more`: sites that each tenant with a quota gets, in their order. */
static int rooms_find(const struct api_call *call, struct store *s, const Tb__Cluster *cluster,
		      const int32_t *more, Tb__SiteBulkResult *result)
{
	uint64_t count = 0;
	int rv = store_count(s, "site", &count);

	/* How many sites others have does not concern a tenant. */
	if (rv == 0 && result->created != 0 && call->who.tenant[0] == '\0')
		room_add(result, "", LIMIT_SITES, count, (int32_t)result->created);
	for (size_t i = 0; i < cluster->n_quotas && rv == 0; i++) {
		const Tb__TenantQuota *quota = cluster->quotas[i];

		if (more[i] == 0)
			continue;
		rv = tenant_count(s, quota->tenant, &count);
		if (rv == 0)
			room_add(result, quota->tenant, quota->max_sites, count, more[i]);
	}
	return rv;
}

/* False: the batch alone is too much, which is told. */
static bool rooms_suffice(struct api_call *call, const Tb__SiteBulkResult *result)
{
	for (size_t i = 0; i < result->n_rooms; i++) {
		const Tb__SiteRoom *room = result->rooms[i];
		int64_t after = (int64_t)room->sites + room->more;

		if (room->more <= 0 || after <= room->max)
			continue;
		if (room->tenant[0] == '\0')
			api_problem(call, 409, NULL,
				    "a cluster has at most %u sites; it has %u now", room->max,
				    room->sites);
		else
			api_problem(call, 409, NULL,
				    "tenant %s may have %u sites, and this makes %lld; delete "
				    "some, or raise it with witnessctl tenant set %s --max-sites N",
				    room->tenant, room->max, (long long)after, room->tenant);
		return false;
	}
	return true;
}

static void rooms_free(Tb__SiteBulkResult *result)
{
	for (size_t i = 0; i < result->n_rooms; i++)
		tb__site_room__free_unpacked(result->rooms[i], NULL);
	free(result->rooms);
}

static void tenant_more(const Tb__Cluster *cluster, int32_t *more, const char *tenant, int32_t by)
{
	for (size_t i = 0; i < cluster->n_quotas; i++)
		if (strcmp(cluster->quotas[i]->tenant, tenant) == 0)
			more[i] += by;
}

/* What the batch would do to the model as this board has it. */
static void bulk_rehearse(struct api_call *call, const Tb__SiteBulk *bulk)
{
	Tb__SiteBulkResult result = TB__SITE_BULK_RESULT__INIT;
	struct store *s = api_store(call->api);
	int32_t more[LIMIT_TENANTS] = {0};
	Tb__Cluster *cluster;
	int rv = store_cluster_get(s, &cluster);

	if (rv != 0) {
		api_store_failed(call);
		return;
	}

	for (size_t i = 0; i < bulk->n_sites && (rv == 0 || rv == -ENOENT); i++) {
		Tb__Site *old;

		rv = store_site_find(s, bulk->sites[i]->name, &old);
		if (rv == -ENOENT)
			result.created++;
		if (rv == 0 || rv == -ENOENT)
			tenant_more(cluster, more, site_tenant(bulk->sites[i]), 1);
		if (rv != 0)
			continue;
		if (!api_site_visible(call, old)) {
			tb__site__free_unpacked(old, NULL);
			tb__cluster__free_unpacked(cluster, NULL);
			api_problem(call, 409, "choose another name", "the name %s is taken",
				    bulk->sites[i]->name);
			return;
		}
		tenant_more(cluster, more, site_tenant(old), -1);
		if (site_same(old, bulk->sites[i]))
			result.unchanged++;
		else
			result.changed++;
		tb__site__free_unpacked(old, NULL);
	}
	result.dry_run = true;
	if (rv == 0 || rv == -ENOENT)
		rv = rooms_find(call, s, cluster, more, &result);
	tb__cluster__free_unpacked(cluster, NULL);
	if (rv != 0)
		api_store_failed(call);
	else if (rooms_suffice(call, &result))
		api_answer_message(call, &result.base);
	rooms_free(&result);
}

static void bulk_done(struct api_call *call, const Tb__CommandResult *applied)
{
	Tb__SiteBulkResult result = TB__SITE_BULK_RESULT__INIT;

	result.created = applied->created;
	result.changed = applied->changed;
	result.unchanged = applied->unchanged;
	api_answer_message(call, &result.base);
}

void api_sites_bulk(struct api_call *call)
{
	Tb__SiteBulk *bulk = (Tb__SiteBulk *)call->request;
	Tb__Command *command;

	if (bulk_check(call, bulk) != 0)
		return;
	if (bulk->dry_run) {
		bulk_rehearse(call, bulk);
		return;
	}
	command = api_command(call, 0);
	command->op_case = TB__COMMAND__OP_SITE_PUT;
	command->site_put = mem_alloc(sizeof(*command->site_put));
	tb__site_put__init(command->site_put);
	command->site_put->mode = TB__SITE_PUT__MODE__MODE_UPSERT;
	/* The sites move from the request to the command. */
	command->site_put->n_sites = bulk->n_sites;
	command->site_put->sites = bulk->sites;
	bulk->n_sites = 0;
	bulk->sites = NULL;
	api_propose(call, command, bulk_done);
}
