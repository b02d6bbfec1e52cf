/* hold.c */
#include "cluster/hold.h"

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

int hold_votes_ms(struct store *s, uint32_t *ret)
{
	const struct store_site_filter all = {0};

	*ret = arbiter_own_timeout_ms(HEARTBEAT_MS, TB__HANDOVER__HANDOVER_SAFE);
	return store_sites(s, &all, grant_visit, ret, NULL);
}

uint32_t hold_leases_ms(uint32_t votes_ms)
{
	uint32_t lease = candidate_own_timeout_ms(LEASE_MAX_MS);

	return lease > votes_ms ? lease : votes_ms;
}
