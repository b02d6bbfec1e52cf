/* lease.h: which boards may act, and until when (DESIGN S2, S4). Pure: no clock, no I/O.
 *
 *   board                               leader
 *   renew(sent = my clock) ---------->  remember leader_ms echo, i.e. "this board was with me"
 *         <---------- grant(sent echoed, leader_ms = leader's clock, length)
 *   my lease ends at sent + length
 *
 * The leader's own lease comes from the same exchange: a board echoes the leader_ms of the last
 * grant that it got in this term, which proves contact no older than that. The leader's lease
 * ends LEASE_LENGTH after the oldest such echo among the newest that make a majority with
 * itself. What it grants to others never goes beyond its own lease, so that a new leader,
 * elected by a majority that has turned away, needs to wait only one length from its election
 * (S4). All of this within one raft term; a grant of an older term is ignored. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "cluster/limits.h"

/* --- a board's own lease, held from a leader --- */
struct lease {
	uint64_t term; /* of the leader that granted it; 0: never had one */
	uint64_t until_ms; /* own boot clock; 0: none */
	uint64_t leader_ms; /* to echo */
};

/* A grant arrived. Ignored if its term is older than the lease's or than `known_term`. Length 0
 * (the leader has no lease itself yet) renews nothing, but its leader_ms is to be echoed: that is
 * how a new leader gets its first lease. */
void lease_granted(struct lease *l, uint64_t known_term, uint64_t term, uint64_t sent_ms,
		   uint64_t leader_ms, uint64_t length_ms);
bool lease_valid(const struct lease *l, uint64_t now_ms);

/* --- of a thread that the lease is passed on to --- */
/* Does a thread stand still that has not taken what it was told at `told_ms` (0: it has taken all)?
 * It may keep that waiting for a lease. `asked_ms`: when this was asked the last time; after a gap
 * that long both were frozen, and nothing is known of the thread yet. All on one clock. */
bool lease_stands(uint64_t told_ms, uint64_t asked_ms, uint64_t now_ms);

/* --- the leader's table --- */
struct lease_member {
	uint64_t node; /* 0: free slot */
	bool voter;
	uint64_t contact_ms; /* leader's clock: newest leader_ms that it echoed in this term, 0 none
			      */
	uint64_t end_ms; /* leader's clock: latest time at which it may believe in its lease */
	uint64_t vms_end_ms; /* the same for its VMs: not every grant is for them */
	uint64_t renewed_ms; /* leader's clock at the last renewal */
};

struct lease_table {
	uint64_t self;
	uint64_t term;
	uint64_t elected_ms;
	uint64_t gone_end_ms; /* latest end_ms of a member that was removed, 0 none */
	struct lease_member members[LIMIT_NODES];
};

/* A new leadership. Every member is assumed to hold a lease until elected_ms + length + margin. */
void lease_table_start(struct lease_table *t, uint64_t self, uint64_t term, uint64_t now_ms);
/* Membership as committed; keeps what is known of members that stay. */
void lease_table_members(struct lease_table *t, const uint64_t *nodes, const bool *voters,
			 unsigned count, uint64_t now_ms);
/* A renewal arrived. Returns the length to grant in ms, 0 if refused (older term, not a member,
 * or the leader itself has no lease). */
uint64_t lease_table_renew(struct lease_table *t, uint64_t node, uint64_t term,
			   uint64_t leader_ms_echo, uint64_t now_ms);
/* What lease_table_renew has just granted to `node` is for its VMs, too. */
void lease_table_renew_vms(struct lease_table *t, uint64_t node);
/* Until when the leader itself may act; alone as only voter: always now + length. */
uint64_t lease_table_self_until(const struct lease_table *t, uint64_t now_ms);
/* The latest time at which `node` may still act, margins included (clock rate 1 %). A node that
 * is not in the table: elected_ms + length + margin, or the end of whoever was removed, if later.
 */
uint64_t lease_table_end(const struct lease_table *t, uint64_t node);
/* The same for its VMs: at most lease_table_end. */
uint64_t lease_table_vms_end(const struct lease_table *t, uint64_t node);
