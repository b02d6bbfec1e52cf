/* hold.c */
#include "cluster/hold.h"

#include <string.h>

#include "cluster/arbiter.h"
#include "cluster/candidate.h"
#include "cluster/limits.h"

enum { HEARTBEAT_MS = 10000 };

static int grant_visit(void *arg, const Tb__Site *site, const Tb__Grant *grant)
{
	uint32_t *ms = arg;

	(void)site;
	if (grant != NULL && grant->handover_ms > *ms)
		*ms = grant->handover_ms;
	return 0;
}

/* Revoked ones count: that may be younger than what the agent was told. */
static int certificate_visit(void *arg, const Tb__Certificate *row)
{
	*(bool *)arg = strcmp(row->kind, "agent") == 0;
	return *(bool *)arg;
}

static int token_visit(void *arg, const Tb__Token *row)
{
	*(bool *)arg = row->role == TB__ROLE__ROLE_AGENT;
	return *(bool *)arg;
}

int hold_ms(struct store *s, uint32_t *ret)
{
	const struct store_site_filter all = {0};
	uint32_t lease = candidate_own_timeout_ms(LEASE_MAX_MS);
	bool agents = false;
	int rv;

	*ret = arbiter_own_timeout_ms(HEARTBEAT_MS, TB__HANDOVER__HANDOVER_SAFE);
	rv = store_sites(s, &all, grant_visit, ret, NULL);
	if (rv == 0)
		rv = store_certificates(s, "", 0, certificate_visit, &agents);
	if (rv == 0 && !agents)
		rv = store_tokens(s, token_visit, &agents);
	if (rv == 0 && agents && lease > *ret)
		*ret = lease;
	return rv;
}
