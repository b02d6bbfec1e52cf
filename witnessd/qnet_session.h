/* qnet_session.h: one site connection as the QNet protocol sees it: bytes and orders in; bytes,
 * events and a verdict out. Pure: no socket, no clock, no log, no voting rule.
 *
 *   NEW --PREINIT--> GREETED --STARTTLS--> SECURING --handshake--> SECURED
 *                       |                                             |
 *                       +------------------ INIT ---------------------+--> ASKED
 *                                                                            |
 *            REFUSED <------- INIT_REPLY with an error (ours or the order's)-+
 *                                                                            |
 *            OPEN <-------------------------------- the order INIT_REPLY 0 --+
 *
 *   any --> CLOSED
 *
 * What may be trusted: GREETED the name that the client claims; SECURED that the certificate
 * names this site, if one is required; ASKED and OPEN that the arbiter knows of the session and
 * is owed a DoorClosed. Before OPEN every message but the ones above gets SERVER_ERROR; a
 * second PREINIT after STARTTLS or INIT and a second INIT end the connection, since the
 * certificate was checked against the first name. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "proto/door.pb-c.h"
#include "proto/qnet.h"
#include "witnessd/door_events.h"

enum qnet_state {
	QNET_NEW,
	QNET_GREETED,
	QNET_SECURING,
	QNET_SECURED,
	QNET_ASKED,
	QNET_OPEN,
	QNET_REFUSED,
	QNET_CLOSED,
	QNET_STATES,
};

enum {
	QNET_HELLO_DEADLINE_MS = 5000, /* from connect to PREINIT, which clients send at once */
	QNET_INIT_DEADLINE_MS = 30000, /* from connect to OPEN */
	QNET_SITE_NAME_MAX = 64, /* longer names are cut and marked, see qnet_session.site */
};

/* What the model and the board's settings say of a site. */
struct qnet_site {
	enum qnet_tls tls;
	bool certificate; /* over TLS, a client certificate that names the site is required */
	bool fast; /* a silent client is given up after 1.5 intervals instead of 2 */
	uint32_t heartbeat_min_ms;
	uint32_t heartbeat_max_ms;
};

/* The world at this moment, as far as a session needs it. */
struct qnet_world {
	void *arg;
	/* 0 and *ret for any name (an unknown site gets the board's defaults: refusing it is not
	 * the door's business); a negative errno if the model cannot be read. */
	int (*site)(void *arg, const char *name, struct qnet_site *ret);
	uint64_t board; /* id of this board */
	uint64_t now_ms; /* boot clock */
	int64_t real_ms;
};

/* A node list, owned. */
struct qnet_ids {
	uint32_t *ids;
	unsigned count;
};

struct qnet_session {
	uint64_t id;
	enum qnet_state state;
	/* As claimed in PREINIT; NULL before. Bytes that no site name may hold are replaced by '?',
	 * and a '?' marks a name that was cut, so that it can never be taken for another site's. */
	char *site;
	char *address;
	char *local; /* the board's end, "10.0.0.5:5403"; NULL: not told */
	struct qnet_site policy;
	struct buf partial; /* of a message; empty between messages */
	uint32_t skip; /* bytes of a body still to be dropped */
	uint64_t deadline_ms; /* give the client up at this time */
	/* Of the last echo answered; before the first one, of the last message or INIT_REPLY. */
	uint64_t heard_ms;
	bool echoed; /* since INIT_REPLY, or since the interval was changed */
	bool tls;
	char *serial; /* of the verified client certificate, NULL: none */
	uint32_t init_seq;
	uint32_t node_id;
	uint8_t algorithm; /* enum qnet_algorithm */
	uint8_t tie_breaker;
	uint32_t tie_breaker_node;
	bool keep_active;
	uint32_t heartbeat_ms;
	uint32_t rtt_ms; /* the door's measurement, if it is near the heartbeat; else 0 */
	/* A shorter interval counts only when an echo shows that the client has it; 0: none. */
	uint32_t heartbeat_next_ms;
	int64_t attached_ms;
	bool has_config;
	bool has_membership;
	bool has_quorum;
	bool quorate;
	bool config_version_set;
	uint64_t config_version;
	struct qnet_ids configured;
	struct qnet_ids members;
	struct qnet_ring ring; /* newest that the client has named */
	uint8_t heuristics; /* newest of the two below */
	uint8_t membership_heuristics;
	uint8_t regular_heuristics;
	uint8_t vote; /* last sent */
	uint8_t last_result; /* last ACK or NACK sent */
	struct qnet_ring vote_ring; /* that the last ACK or NACK named */
	uint32_t vote_number; /* of the newest VOTE_INFO; 0: none sent */
	uint64_t ticket; /* the order's, of the same */
	bool confirmed; /* it was answered, or none was sent */
};

enum qnet_verdict {
	QNET_GO_ON,
	QNET_START_TLS, /* everything behind the bytes used is TLS */
	QNET_CLOSE, /* in order, after what is to be sent */
	QNET_ABORT, /* by reset, nothing more is sent */
};

/* What came out; zero-initialised by the caller, who may collect over several calls. */
struct qnet_out {
	struct buf wire; /* to send */
	unsigned replies; /* messages in it */
	unsigned echoes; /* of these */
	struct door_events events;
	const char
		*why; /* static: with QNET_CLOSE and QNET_ABORT, and with a refusal by ourselves */
};
/* Gives back what is left of it. */
void qnet_out_free(struct qnet_out *out);

/* `address` ("10.0.0.1:34346") is copied. */
void qnet_session_init(struct qnet_session *s, uint64_t id, const char *address, uint64_t now_ms);
void qnet_session_free(struct qnet_session *s);

/* Bytes of the client, in the clear or decrypted. *ret_used is `len` unless the verdict is another
 * than QNET_GO_ON. */
enum qnet_verdict qnet_session_receive(struct qnet_session *s, const struct qnet_world *w,
				       const uint8_t *data, size_t len, size_t *ret_used,
				       struct qnet_out *out);
/* The handshake is over. serial NULL: no verified certificate; named: it names s->site. The caller
 * has refused a revoked one. */
enum qnet_verdict qnet_session_secured(struct qnet_session *s, const char *serial, bool named,
				       struct qnet_out *out);
/* An order of the arbiter. One that does not fit the state is too late and ignored. The caller has
 * made sure that the lease is valid. */
enum qnet_verdict qnet_session_order(struct qnet_session *s, const struct qnet_world *w,
				     const Tb__DoorOrder *order, struct qnet_out *out);
/* After deadline_ms: QNET_ABORT (silent) or QNET_CLOSE (never got as far as INIT). */
enum qnet_verdict qnet_session_overdue(struct qnet_session *s, struct qnet_out *out);
/* For a new leader: DoorReport if OPEN, DoorOpen again if ASKED, else nothing. */
void qnet_session_report(const struct qnet_session *s, const struct qnet_world *w,
			 struct qnet_out *out);
/* The connection is gone, or its end was decided: DoorClosed if the arbiter knows it. */
void qnet_session_close(struct qnet_session *s, Tb__DoorClosed__Reason reason, uint64_t now_ms,
			struct qnet_out *out);
/* Appends DoorReset for so many reports. */
void qnet_out_reset(struct qnet_out *out, uint32_t reports);

const char *qnet_state_name(enum qnet_state state);
