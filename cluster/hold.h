/* hold.h: how long a new history gives no vote.
 *
 * A model that comes from a backup does not know who was given a vote after it was made, so nobody
 * is given one until every vote of before is over, whoever had it (docs/decisions/0010). */
#pragma once
#include <stdint.h>

#include "cluster/store.h"

/* The longest that a corosync-qdevice can go on with a vote that it was given after the model's
 * end, in ms: the greatest that a grant in it says, at least that of a heartbeat of 10 s. Negative:
 * the store's error. */
int hold_votes_ms(struct store *s, uint32_t *ret);
/* The same for a witness-agent: always the longest lease. Whoever may change a site may enrol an
 * agent for it, with what the backup knows, so that it knows none says nothing. */
uint32_t hold_leases_ms(uint32_t votes_ms);
