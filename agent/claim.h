/* claim.h: one node's claim of its site's lease: whether it holds it, with which epoch, and when it
 * must have stopped what depends on it. Pure: no clock, no I/O; `now_ms` is the caller's boot
 * clock and never goes back.
 *
 *             want                       given, renewed            not given, not renewed,
 *   IDLE -------------> WAITING -------------------------> HELD    no longer wanted
 *    ^  <-------------   ^                                  |
 *    |   not wanted      |                                  v
 *    +-------------------+--------------------------- STOPPING
 *             stopped: the next claim has a new number
 *
 * What may be trusted in each state:
 *   IDLE, WAITING  nothing that needs the lease runs here; epoch is 0
 *   HELD           nobody else has the lease before `until_ms`; renewals move it on
 *   STOPPING       the same; whoever uses the lease was told to stop and has until `until_ms`
 *
 * The lease ends lease_ms after the sending of the newest answered renewal (proto/agent.proto), so
 * every delay on the way makes it shorter, never longer. It outlives a connection: on the next
 * one it is given again (or refused), and renewals count from then on. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum {
	CLAIM_RENEWALS = 16, /* renewals that may be on their way */
	CLAIM_RENEW_PARTS = 6, /* renewals in the length of a lease */
	CLAIM_SILENT_PARTS =
		4, /* a connection on which none is answered for lease_ms / this is dead */
};

enum claim_state { CLAIM_IDLE, CLAIM_WAITING, CLAIM_HELD, CLAIM_STOPPING };

struct claim {
	uint32_t lease_ms;
	uint32_t stop_ms; /* what stopping may take; below lease_ms / 2 */
	enum claim_state state;
	bool wanted;
	uint64_t number; /* grows with each claim */
	uint64_t epoch; /* HELD, STOPPING: the fencing token; else 0 */
	uint64_t until_ms; /* HELD, STOPPING: see above; else 0 */
	/* Of the present connection; all 0 while there is none. */
	bool open;
	uint64_t renewal; /* newest that was sent */
	uint64_t answered; /* newest that was answered */
	uint64_t sent_ms[CLAIM_RENEWALS]; /* of renewal n at n % CLAIM_RENEWALS */
	uint64_t answered_ms; /* when the newest answered one was sent; 0: none yet */
	uint64_t given_epoch; /* the lease was given on this connection to this claim; 0: not */
	uint64_t refused_ticket; /* to be confirmed once all has stopped; 0: none */
	uint64_t renew_ms; /* next renewal */
};

/* What the caller has to do now, in this order. */
struct claim_out {
	bool gained; /* `epoch` is held */
	bool lost; /* stop what uses it, by until_ms (which may have passed); then claim_stopped */
	uint64_t confirm; /* send a confirmation of this ticket; 0: none */
	bool claim; /* send the claim: it has changed */
	uint64_t renew; /* send this renewal; 0: none */
	bool dead; /* the connection is of no use: close it and try another board */
};

/* `number`: greater than that of any claim of this node before, also before a restart. */
void claim_init(struct claim *c, uint32_t lease_ms, uint32_t stop_ms, uint64_t number);
void claim_want(struct claim *c, bool wanted, uint64_t now_ms, struct claim_out *out);
/* The board has said welcome. */
void claim_connected(struct claim *c, uint64_t now_ms, struct claim_out *out);
void claim_disconnected(struct claim *c);
void claim_lease(struct claim *c, uint64_t ticket, bool yours, uint64_t epoch, uint64_t number,
		 uint64_t now_ms, struct claim_out *out);
void claim_renewed(struct claim *c, uint64_t renewal, uint64_t now_ms, struct claim_out *out);
/* In STOPPING: nothing uses the lease any more (or was killed). */
void claim_stopped(struct claim *c, uint64_t now_ms, struct claim_out *out);
void claim_tick(struct claim *c, uint64_t now_ms, struct claim_out *out);
/* When to call claim_tick next; UINT64_MAX: only after an event. */
uint64_t claim_due(const struct claim *c);

#ifdef TIEBREAK_SIM_FAULTS
/* A mistake for the simulator to find: the lease counts from the arrival of an answer. */
extern bool claim_fault_from_arrival;
#define CLAIM_FAULTY claim_fault_from_arrival
#else
#define CLAIM_FAULTY false
#endif
