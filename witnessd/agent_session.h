/* agent_session.h: one connection of witness-agent as proto/agent.proto describes it: bytes and
 * orders in; bytes, events and a verdict out. Pure: no socket, no clock, no log, no rule about
 * who gets the lease.
 *
 *   NEW --hello--> ASKED --order: init_reply 0--> OPEN          any --> CLOSED
 *
 * What may be trusted: site and node in every state, they are the certificate's; ASKED and OPEN
 * that the arbiter knows of the session and is owed a DoorClosed. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/limits.h"
#include "lib/buf.h"
#include "proto/door.pb-c.h"
#include "witnessd/door_events.h"

enum agent_state { AGENT_NEW, AGENT_ASKED, AGENT_OPEN, AGENT_CLOSED, AGENT_STATES };

enum {
	AGENT_FRAME_MAX = 4096, /* bytes of a frame of an agent, without its head */
	AGENT_OPEN_MS = 30000, /* from connect to OPEN */
	AGENT_FRAME_COST_MS = 50, /* what a frame costs of the agent's time, and how far it may */
	AGENT_CREDIT_MS = 5000, /* get ahead: no agent needs more */
};

/* Sessions of agents have this bit in their number (proto/door.proto). */
#define AGENT_SESSION (UINT64_C(1) << 63)

struct agent_session {
	uint64_t id;
	enum agent_state state;
	char *site;
	uint32_t node;
	char *address;
	char *local; /* the board's end; NULL: not told */
	char *serial;
	struct buf partial; /* of a frame */
	uint64_t deadline_ms; /* give the agent up at this time */
	uint64_t heard_ms; /* the newest renewal that was answered; before it, the welcome */
	uint64_t paced_ms; /* its frames so far are paid for at this time */
	int64_t attached_ms;
	/* of the hello and the claims after it */
	char *name;
	uint32_t lease_ms;
	uint32_t rtt_ms; /* the door's measurement, if an answer may come too late; else 0 */
	uint64_t instance;
	uint64_t attempt;
	uint32_t nodes[LIMIT_SITE_NODES];
	size_t node_count;
	uint64_t claim;
	bool wanted;
	uint64_t held_epoch;
	uint64_t generation;
	uint32_t seen[LIMIT_SITE_NODES];
	size_t seen_count;
	/* of the arbiter's votes */
	uint8_t last_result; /* Tb__Vote: ACK or NACK; NONE: none yet */
	uint32_t ring_node; /* of the claim as the arbiter numbers it; seq 0: not known here */
	uint64_t ring_seq;
	uint32_t vote_ring_node; /* that the last vote named */
	uint64_t vote_ring_seq;
	uint64_t ticket; /* of the newest vote */
	bool confirmed; /* it was, or there was none */
};

enum agent_verdict {
	AGENT_GO_ON,
	AGENT_CLOSE, /* in order, after what is to be sent */
	AGENT_ABORT, /* by reset */
};

/* What came out; zero-initialised by the caller, who may collect over several calls. */
struct agent_out {
	struct buf wire; /* to send */
	struct door_events events;
	unsigned renewals; /* answered */
	const char *why; /* static or the thread's own: with CLOSE and ABORT */
};
void agent_out_free(struct agent_out *out);

/* The world at this moment. */
struct agent_world {
	uint64_t board; /* id of this board */
	const char *board_name;
	uint64_t now_ms; /* boot clock */
	int64_t real_ms;
};

/* Site and node from the subject alternative name "tiebreak:agent/SITE/NODE". 0 and *ret_site
 * (owned by the caller); -EINVAL: it is no certificate of an agent. */
int agent_uri_parse(const char *uri, char **ret_site, uint32_t *ret_node);

/* Texts are copied. The handshake is over and the certificate holds. */
void agent_session_init(struct agent_session *s, uint64_t id, const char *site, uint32_t node,
			const char *serial, const char *address, uint64_t now_ms);
void agent_session_free(struct agent_session *s);
/* Decrypted bytes; all are taken. */
enum agent_verdict agent_session_receive(struct agent_session *s, const struct agent_world *w,
					 const uint8_t *data, size_t len, struct agent_out *out);
/* An order of the arbiter; one that does not fit the state is too late and ignored. The caller has
 * made sure that the board's lease is valid. */
enum agent_verdict agent_session_order(struct agent_session *s, const struct agent_world *w,
				       const Tb__DoorOrder *order, struct agent_out *out);
/* For a new leader: DoorReport if OPEN, DoorOpen again if ASKED, else nothing. */
void agent_session_report(const struct agent_session *s, const struct agent_world *w,
			  struct agent_out *out);
/* The connection is gone, or its end was decided: DoorClosed if the arbiter knows it. */
void agent_session_close(struct agent_session *s, Tb__DoorClosed__Reason reason, uint64_t now_ms,
			 struct agent_out *out);
/* Appends a DoorReset of the door of agents. */
void agent_out_reset(struct agent_out *out, uint32_t reports);
