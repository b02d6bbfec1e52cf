/* fleet.h: the leader's soft state of all sites: which node is attached at which door, what it
 * reported, who may still hold the vote; and the arbiter that decides from it.
 *
 * Pure (STYLE "Pure inside"): no clock, no I/O, no log. Input: door events, applied model
 * changes, time. Output: orders to doors and commands for the log, taken by the caller in the
 * order made. It exists only while this board leads: a new leader makes a new one and the doors
 * report to it.
 *
 * S1 lives here. The vote moves in three steps: refuse the others and wait until each node that
 * may hold the vote and is not in the winning ring has (a) confirmed a NACK, (b) closed its
 * session itself, or (c) reached its worst-case own timeout; then commit the grant; then ACK. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "cluster/alarm.h"
#include "lib/ip.h"
#include "proto/command.pb-c.h"
#include "proto/door.pb-c.h"

struct fleet;

/* The committed model, as far as the arbiter needs it. Called synchronously. */
struct fleet_model {
	void *arg;
	/* 0 and new messages that the fleet frees (*ret_grant NULL if none); -ENOENT. */
	int (*site)(void *arg, const char *name, Tb__Site **ret_site, Tb__Grant **ret_grant);
	bool (*auto_register)(void *arg);
};

/* At election. `term` tags the leadership; `lease_ms` is the length of a full lease with margin
 * (S4: boards and sessions unknown so far count as alive until now_ms + lease_ms). */
struct fleet *fleet_new(const struct fleet_model *model, uint64_t term, uint64_t lease_ms,
			uint64_t now_ms);
void fleet_free(struct fleet *f);
/* Before these times nobody gets a vote, or the lease of a site of agents: a grant that the model
 * has never seen may be in force, since it comes from a backup. Called right after fleet_new. */
void fleet_hold(struct fleet *f, uint64_t votes_until_ms, uint64_t leases_until_ms);

/* An event of a door (a board's node id). Nonsense from a door is ignored and counted, never fatal.
 */
void fleet_door_event(struct fleet *f, uint64_t door, const Tb__DoorEvent *event, uint64_t now_ms);
/* The link to the board is lost. `lease_end_ms`: the latest time at which it may still act
 * (lease_table_end); its sessions count as holders until then plus their own timeout, unless it
 * comes back with a reset and reports, or they attach elsewhere. */
void fleet_door_lost(struct fleet *f, uint64_t door, uint64_t lease_end_ms, uint64_t now_ms);

/* Every grant that is applied, also one of an earlier leader. Only this lets ACKs out. */
void fleet_grant_applied(struct fleet *f, const Tb__Grant *grant, uint64_t now_ms);
/* A command taken from fleet_next_command was refused, or may be lost. */
void fleet_command_failed(struct fleet *f, const Tb__Command *command, uint64_t now_ms);
/* The site was created, changed or deleted (deleted: its sessions are closed). */
void fleet_site_changed(struct fleet *f, const char *name, uint64_t now_ms);

/* Sends away at most `max` of the board's site nodes, so that they attach elsewhere; 0: none left
 * to send. One node of a site at a time, and only while all nodes of the site see each other: they
 * are quorate without the vote, which a client gives up while it changes its board. `now` sends
 * those as well whose site needs the vote. Called again until no session is left. */
unsigned fleet_drain(struct fleet *f, uint64_t door, bool now, unsigned max, uint64_t now_ms);

/* The pool of service addresses, of which sessions are not sent away: they go with the address. At
 * most LIMIT_ADDRESSES; copied. */
void fleet_addresses(struct fleet *f, const struct ip *addresses, unsigned count);
/* Those of them (bit n: address n) by which a site is attached that needs the vote now: its
 * sessions should not end for a mere wish. All of them until the leader knows who is where. */
uint64_t fleet_address_busy(struct fleet *f, uint64_t now_ms);

/* Does what is due at now_ms; returns when to call again (UINT64_MAX: only on an event). */
uint64_t fleet_tick(struct fleet *f, uint64_t now_ms);

/* The next order for a door, in the order made, or NULL. The caller frees it. */
Tb__DoorOrder *fleet_next_order(struct fleet *f, uint64_t *ret_door);
/* The next command for the log, or NULL; `id`, `time_ms` are left for the caller to fill; the
 * caller frees it. After it: fleet_grant_applied / fleet_site_changed or fleet_command_failed. */
Tb__Command *fleet_next_command(struct fleet *f);

/* For the API. A new message; never NULL. `grant` may be NULL. */
Tb__SiteStatus *fleet_site_status(const struct fleet *f, const char *name, const Tb__Grant *grant);
/* For the alarms: a site with nodes attached; false if none is. The texts live until the next call
 * into the fleet. */
struct fleet_watch {
	unsigned configured;
	uint64_t missing_ms; /* see alarm.h */
	struct alarm_site_node nodes[LIMIT_SITE_NODES];
	unsigned count;
	bool agents;
};
bool fleet_site_watch(const struct fleet *f, const char *name, struct fleet_watch *ret,
		      uint64_t now_ms);
/* Counts of sites by state and sessions, over sites that have sessions; the caller adds the rest
 * as offline. */
void fleet_counts(const struct fleet *f, Tb__ClusterStatus *counts);
