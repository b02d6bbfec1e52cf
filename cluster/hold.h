/* hold.h: how long a new history gives no vote.
 *
 * A model that comes from a backup does not know who was given a vote after it was made, so nobody
 * is given one until every vote of before is over, whoever had it (docs/decisions/0010). */
#pragma once
#include "cluster/store.h"

/* The longest that a client of this model can go on with a vote that it was given after the model's
 * end, in ms: the greatest that a grant in it says; at least that of a corosync-qdevice with a
 * heartbeat of 10 s; and that of the longest lease, if a witness-agent may be out there (a
 * certificate or a token for one). Negative: the store's error. */
int hold_ms(struct store *s, uint32_t *ret);
