/* witness_agent.h: libwitness-agent: hold a site's lease from a program of one's own.
 *
 * A site of two or more nodes has one lease, given by a cluster of witness boards (witnessd) to one
 * node at a time. Whoever holds it may act as the primary; whoever loses it must have stopped
 * before anybody else gets it. Each holder has an epoch that is greater than all before it: a
 * fencing token to hand to whatever is written to. proto/agent.proto is the protocol.
 *
 * The library keeps a connection to one of the boards, renews, and comes back to another board by
 * itself. It has no thread, no signal handler, no timer of its own, and writes nothing anywhere:
 * the caller's loop polls for it.
 *
 *     struct witness_agent *wa;
 *     char why[WITNESS_AGENT_TEXT];
 *     if (witness_agent_new(&options, &wa, why) != 0) ...
 *     witness_agent_want(wa, true);
 *     for (;;) {
 *         struct pollfd fd;
 *         int timeout_ms;
 *         int count = witness_agent_poll(wa, &fd, &timeout_ms);
 *         poll(&fd, count, timeout_ms);
 *         witness_agent_turn(wa);
 *     }
 *
 * Whatever an earlier process has left that uses the lease must have stopped before the first turn:
 * from then on the boards are told that nothing uses it. If that is not known, wait for lease_ms
 * first.
 *
 * Time is CLOCK_BOOTTIME. The loop must turn in time: what is late in the loop is late in `lost`,
 * and stop_ms is all there is between `lost` and the end of the lease.
 *
 * All functions are for one thread. Callbacks run inside witness_agent_turn, witness_agent_want and
 * witness_agent_stopped and may call any function but witness_agent_free. */
#pragma once
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
	WITNESS_AGENT_TEXT = 256, /* bytes of a message */
	WITNESS_AGENT_BOARDS = 16,
	WITNESS_AGENT_NODES = 64,
};

struct witness_agent;

/* All texts and lists are copied by witness_agent_new. */
struct witness_agent_options {
	/* "host:port" of the boards, at most WITNESS_AGENT_BOARDS, NULL-terminated. Names are
	 * looked up while nothing is held, since that may take long; addresses are better. */
	const char *const *boards;
	/* PEM texts: the node's certificate and key as enrolled, and the CA of the boards. */
	const char *certificate;
	const char *key;
	const char *ca;
	uint32_t node; /* this node's id, the one of the certificate; from 1 */
	/* Every node of the site, this one too; at most WITNESS_AGENT_NODES. NULL: not said. */
	const uint32_t *nodes;
	size_t node_count;
	const char *name; /* of this host, for people; at most 64 bytes; NULL: "" */
	uint32_t lease_ms; /* 3000..120000: how soon another node may take over; 0: 10000 */
	/* Between `lost` and the end of the lease: what stopping may take; at least 100 and less
	 * than half of lease_ms; 0: a quarter of it. */
	uint32_t stop_ms;

	void *arg;
	/* This node holds the lease. */
	void (*gained)(void *arg, uint64_t epoch);
	/* It is ending: stop what depends on it within left_ms (0: it should have been stopped
	 * already, for this program was not run in time), then call witness_agent_stopped. */
	void (*lost)(void *arg, uint64_t epoch, uint32_t left_ms);
	/* A line for a log: connected, refused, why it is not ours. NULL: not wanted. */
	void (*news)(void *arg, const char *text);
};

/* 0 and *ret; -EINVAL and a sentence that names the option and the remedy. Connects at the first
 * turn. */
int witness_agent_new(const struct witness_agent_options *options, struct witness_agent **ret,
		      char why[WITNESS_AGENT_TEXT]);
/* Closes the connection. If the lease is still held it is not given back: it ends by time. To give
 * it back: witness_agent_want(wa, false), and turns until witness_agent_idle. NULL is fine. */
void witness_agent_free(struct witness_agent *wa);

/* Asks for the lease, or gives it back (`lost` comes first if it is held). Not wanted at first. */
void witness_agent_want(struct witness_agent *wa, bool wanted);
/* After `lost`: nothing uses the lease any more. It goes to others only after this, or when its
 * time is over. */
void witness_agent_stopped(struct witness_agent *wa);
/* Generation of this node's data and the other nodes that it can see (at most
 * WITNESS_AGENT_NODES); by the site's policy they help to choose. Sent if they changed. */
void witness_agent_report(struct witness_agent *wa, uint64_t generation, const uint32_t *seen,
			  size_t seen_count);

/* Another certificate, key and CA (PEM texts), after a renewal: connects anew with them; what is
 * held is kept. 0; -EINVAL and a sentence, and the old ones go on. */
int witness_agent_identity(struct witness_agent *wa, const char *certificate, const char *key,
			   const char *ca, char why[WITNESS_AGENT_TEXT]);

/* What to poll for: returns how many descriptors (0 or 1) were written to *fd, and sets *timeout_ms
 * to when to turn at the latest (-1: never). */
int witness_agent_poll(struct witness_agent *wa, struct pollfd *fd, int *timeout_ms);
/* Does all that is due. Early or needless calls are harmless. */
void witness_agent_turn(struct witness_agent *wa);

enum witness_agent_state {
	WITNESS_AGENT_IDLE, /* not wanted, not held */
	WITNESS_AGENT_WAITING, /* wanted, not held */
	WITNESS_AGENT_HELD,
	WITNESS_AGENT_STOPPING, /* `lost` was called, witness_agent_stopped not yet */
};

struct witness_agent_status {
	enum witness_agent_state state;
	bool wanted;
	uint64_t epoch; /* HELD, STOPPING; else 0 */
	uint64_t until_ms; /* HELD, STOPPING: CLOCK_BOOTTIME at which it ends unless renewed; else 0
			    */
	/* With the policy "generation": what the boards have in their log, as last heard; no node
	 * with older data gets the lease. */
	uint64_t site_generation;
	bool connected;
	char board[WITNESS_AGENT_TEXT]; /* address of the board in use or tried last */
	char why[WITNESS_AGENT_TEXT]; /* what a board or the connection said last, for people */
};
void witness_agent_status(const struct witness_agent *wa, struct witness_agent_status *ret);
/* Nothing is held, nothing is wanted, and the boards know it (or none is connected). */
bool witness_agent_idle(const struct witness_agent *wa);

#ifdef __cplusplus
}
#endif
