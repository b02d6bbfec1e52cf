/* api_status.c: sites with their soft state, which only the leader has. */
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "witnessd/api_call.h"

static Tb__SiteStatus *status_new(const Tb__Grant *grant)
{
	Tb__SiteStatus *status = mem_alloc(sizeof(*status));

	tb__site_status__init(status);
	if (grant != NULL)
		status->grant = (Tb__Grant *)message_copy(&grant->base);
	return status;
}

int api_site_set_add(void *arg, const Tb__Site *site, const Tb__Grant *grant)
{
	struct api_site_set *set = arg;
	Tb__Site *copy = (Tb__Site *)message_copy(&site->base);

	if (set->count == set->room) {
		set->room = set->room == 0 ? 16 : 2 * set->room;
		set->sites = mem_realloc(set->sites, set->room * sizeof(set->sites[0]));
	}
	copy->status = status_new(grant);
	set->sites[set->count++] = copy;
	return 0;
}

void api_site_set_clear(struct api_site_set *set)
{
	for (size_t i = 0; i < set->count; i++)
		tb__site__free_unpacked(set->sites[i], NULL);
	free(set->sites);
	*set = (struct api_site_set){0};
}

/* `sites->names` is allocated here and freed by the caller; the names are the set's. */
void api_site_set_query(const struct api_site_set *set, Tb__PeerQuery *query,
			Tb__SiteStatusQuery *sites)
{
	tb__peer_query__init(query);
	tb__site_status_query__init(sites);
	sites->n_names = set->count < LIMIT_PAGE ? set->count : LIMIT_PAGE;
	sites->names = mem_array(sites->n_names, sizeof(sites->names[0]));
	for (size_t i = 0; i < sites->n_names; i++)
		sites->names[i] = set->sites[i]->name;
	query->what_case = TB__PEER_QUERY__WHAT_SITES;
	query->sites = sites;
}

/* Rows come in the order of the names asked for; the search begins where the last one was. */
static const Tb__SiteStatus *answer_row(const Tb__PeerAnswer *answer, size_t hint, const char *name)
{
	for (size_t i = 0; i < answer->n_rows; i++) {
		const Tb__SiteStatusRow *row = answer->rows[(hint + i) % answer->n_rows];

		if (strcmp(row->name, name) == 0)
			return row->status;
	}
	return NULL;
}

static void site_fill(Tb__Site *site, const Tb__SiteStatus *soft)
{
	Tb__SiteStatus *status = (Tb__SiteStatus *)message_copy(&soft->base);

	tb__grant__free_unpacked(status->grant, NULL);
	status->grant = site->status->grant;
	site->status->grant = NULL;
	tb__site_status__free_unpacked(site->status, NULL);
	site->status = status;
}

static void site_unknown(Tb__Site *site)
{
	api_field_set(&site->status->reason,
		      "no leader answers at the moment, so nobody knows who is attached");
}

void api_site_set_fill(struct api_site_set *set, int error, const Tb__PeerAnswer *answer)
{
	for (size_t i = 0; i < set->count; i++) {
		const Tb__SiteStatus *soft =
			error == 0 ? answer_row(answer, i, set->sites[i]->name) : NULL;

		if (soft != NULL)
			site_fill(set->sites[i], soft);
		else
			site_unknown(set->sites[i]);
	}
}

int api_site_read(struct store *s, const char *name, Tb__Site **ret)
{
	Tb__Grant *grant = NULL;
	Tb__Site *site;
	int rv = store_site_find(s, name, &site);

	if (rv != 0)
		return rv;
	store_grant_get(s, site->id, &grant);
	tb__site_status__free_unpacked(site->status, NULL);
	site->status = status_new(grant);
	tb__grant__free_unpacked(grant, NULL);
	*ret = site;
	return 0;
}

struct api_site_filter api_site_filter_of(const struct api_call *call)
{
	const struct api_value *state = api_param(call, "state");

	return (struct api_site_filter){.label = api_param(call, "label")->text,
					.prefix = api_param(call, "prefix")->text,
					.state = state->set ? (int)state->number : -1};
}
