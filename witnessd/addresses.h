/* addresses.h: the core's side of the service addresses. As any board: passes the leader's orders
 * to the holder (holder.h) and its reports to the leader, and keeps the roll (cluster/roll.h). As
 * the leader: decides by cluster/address_pool.h. For the files of the core thread.
 *
 *   holder --report--> addresses.c --(peer link)--> addresses.c of the leader: plan
 *   holder <--order--- addresses.c <--(peer link)-- order: all that the board is to have */
#pragma once
#include "witnessd/core_internal.h"

struct addresses;

struct addresses *addresses_new(void);
void addresses_free(struct addresses *a); /* NULL is fine */

/* --- as any board --- */

/* What the holder says; taken over. `letter` is the newest order that it has opened. */
void addresses_report(struct core *c, uint64_t letter, Tb__PeerAddressReport *report);
/* The lease has ended: no order is in force any more. */
void addresses_void(struct core *c);
/* Would site nodes still come to this board by a service address? */
bool addresses_wanted(const struct core *c);
/* An event of the own doors: a session comes or goes. */
void addresses_event(struct core *c, const Tb__DoorEvent *event);
/* Every turn: what has changed goes out. */
void addresses_flush(struct core *c);

/* --- as a follower --- */

/* The link to the leader is up. */
void addresses_link_up(struct core *c);
void addresses_order(struct core *c, const Tb__PeerAddressOrder *order);

/* --- as the leader --- */

void addresses_lead(struct core *c);
void addresses_lead_end(struct core *c);
/* A board's link serves this leadership: its first report is to come. */
void addresses_greeted(struct core *c, uint64_t node);
void addresses_reported(struct core *c, uint64_t node, const Tb__PeerAddressReport *report);
void addresses_tick(struct core *c);
/* For the API: the pool with its state, and what a board has. Owned by the answer and the status.
 */
void addresses_answer(struct core *c, Tb__PeerAnswer *answer, Tb__ClusterStatus *status);
void addresses_node(struct core *c, uint64_t node, Tb__NodeStatus *status);
/* For the alarms: `each` hears of every address that no board has and what could be done. */
void addresses_watch(struct core *c,
		     void (*each)(void *arg, const char *address, const char *problem), void *arg);

/* --- both --- */

/* Part of a roll: from the leader, or from a follower, `node`, about itself. */
void addresses_rolled(struct core *c, uint64_t node, const Tb__PeerRoll *roll);
