/* tenant.c: tenants and how many sites each may have. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/api.h"
#include "cli/grid.h"
#include "cli/run.h"
#include "lib/mem.h"

static int tenants_print(struct invocation *inv, const void *message)
{
	static const char *const headers[] = {"NAME", ">SITES", ">MAX SITES", NULL};
	const Tb__TenantList *list = message;
	struct grid *g;

	g = api_output(inv) == OUTPUT_NAME ? NULL : grid_new(headers);
	for (size_t i = 0; i < list->n_items; i++) {
		const Tb__Tenant *t = list->items[i];
		char sites[16], most[16];

		snprintf(sites, sizeof(sites), "%" PRIu32, t->sites);
		snprintf(most, sizeof(most), "%" PRIu32, t->max_sites);
		if (g == NULL)
			puts(t->name);
		else
			grid_row(g,
				 (const char *[]){t->name, sites, t->max_sites != 0 ? most : ""});
	}
	if (g != NULL)
		grid_print(g, "No tenants.");
	return EXIT_OK;
}

int run_tenant_list(struct invocation *inv)
{
	return api_show(inv, "/v1/tenants", &tb__tenant_list__descriptor, tenants_print);
}

int run_tenant_set(struct invocation *inv)
{
	Tb__Tenant request = TB__TENANT__INIT;
	char *path = api_path("/v1/tenants/", inv->args[0], "");
	struct buf body = {0};
	uint64_t most = option_number(inv, "max-sites", 0);
	int rv = EXIT_USAGE;

	if (!option_given(inv, "max-sites") || most > UINT32_MAX)
		complain("--max-sites is missing or too large; 0 means any number");
	else
		rv = EXIT_OK;
	request.max_sites = (uint32_t)most;
	if (rv == EXIT_OK)
		rv = api_send(inv,
			      &(struct api_request){.method = "PUT",
						    .path = path,
						    .message = &request.base,
						    .retry_ms = API_RETRY_MS},
			      &body);
	if (rv == EXIT_OK && api_output(inv) == OUTPUT_JSON)
		api_print_json(&body);
	else if (rv == EXIT_OK && most == 0)
		printf("tenant \"%s\" may have any number of sites\n", inv->args[0]);
	else if (rv == EXIT_OK)
		printf("tenant \"%s\" may have %" PRIu64 " sites\n", inv->args[0], most);
	buf_free(&body);
	free(path);
	return rv;
}
