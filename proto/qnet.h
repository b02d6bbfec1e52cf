/* qnet.h: the QNet protocol, as corosync-qdevice and corosync-qnetd speak it: bytes to messages
 * and back, both directions. Pure: no sockets, no rules.
 *
 *   message = type (u16), length of the body (u32), body          all integers big-endian
 *   body    = options in any order: type (u16), length (u16), value
 *
 * Decoding is strict where real programs are: an option that runs past the body, a known option
 * with the wrong length or a value that the protocol does not list make the message undecodable.
 * Unknown options are skipped; of a known one that occurs twice the last counts, except
 * NODE_INFO, which is a list. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

enum {
	QNET_HEAD = 6, /* bytes before the body */
	QNET_MESSAGE_MAX =
		32768, /* head and body, both directions, until INIT_REPLY says otherwise */
	QNET_NODES_MAX = 64, /* nodes of one list; a longer one is undecodable */
	QNET_PORT = 5403,
};

enum qnet_type {
	QNET_PREINIT = 0,
	QNET_PREINIT_REPLY = 1,
	QNET_STARTTLS = 2,
	QNET_INIT = 3,
	QNET_INIT_REPLY = 4,
	QNET_SERVER_ERROR = 5,
	QNET_SET_OPTION = 6,
	QNET_SET_OPTION_REPLY = 7,
	QNET_ECHO_REQUEST = 8,
	QNET_ECHO_REPLY = 9,
	QNET_NODE_LIST = 10,
	QNET_NODE_LIST_REPLY = 11,
	QNET_ASK_FOR_VOTE = 12,
	QNET_ASK_FOR_VOTE_REPLY = 13,
	QNET_VOTE_INFO = 14,
	QNET_VOTE_INFO_REPLY = 15,
	QNET_HEURISTICS_CHANGE = 16,
	QNET_HEURISTICS_CHANGE_REPLY = 17,
	QNET_TYPES = 18,
};

enum qnet_option {
	QNET_OPT_SEQ = 0,
	QNET_OPT_CLUSTER_NAME = 1,
	QNET_OPT_TLS_SUPPORTED = 2,
	QNET_OPT_TLS_CLIENT_CERT_REQUIRED = 3,
	QNET_OPT_SUPPORTED_MESSAGES = 4,
	QNET_OPT_SUPPORTED_OPTIONS = 5,
	QNET_OPT_REPLY_ERROR_CODE = 6,
	QNET_OPT_MAXIMUM_REQUEST_SIZE = 7,
	QNET_OPT_MAXIMUM_REPLY_SIZE = 8,
	QNET_OPT_NODE_ID = 9,
	QNET_OPT_SUPPORTED_ALGORITHMS = 10,
	QNET_OPT_ALGORITHM = 11,
	QNET_OPT_HEARTBEAT_INTERVAL = 12,
	QNET_OPT_RING_ID = 13,
	QNET_OPT_CONFIG_VERSION = 14,
	QNET_OPT_DATA_CENTER_ID = 15,
	QNET_OPT_NODE_STATE = 16,
	QNET_OPT_NODE_INFO = 17,
	QNET_OPT_NODE_LIST_TYPE = 18,
	QNET_OPT_VOTE = 19,
	QNET_OPT_QUORATE = 20,
	QNET_OPT_TIE_BREAKER = 21,
	QNET_OPT_HEURISTICS = 22,
	QNET_OPT_KEEP_ACTIVE_PARTITION = 23,
	QNET_OPTIONS = 24,
};

/* REPLY_ERROR_CODE. The names are this project's. */
enum qnet_error {
	QNET_OK = 0,
	QNET_ERROR_MESSAGE_MISSING = 1,
	QNET_ERROR_OPTION_UNSUPPORTED = 2,
	QNET_ERROR_TLS_REQUIRED = 3,
	QNET_ERROR_UNSUPPORTED_MESSAGE = 4,
	QNET_ERROR_MESSAGE_TOO_LONG = 5,
	QNET_ERROR_PREINIT_REQUIRED = 6,
	QNET_ERROR_OPTION_MISSING = 7,
	QNET_ERROR_UNEXPECTED_MESSAGE = 8,
	QNET_ERROR_DECODING = 9,
	QNET_ERROR_INTERNAL = 10,
	QNET_ERROR_INIT_REQUIRED = 11,
	QNET_ERROR_ALGORITHM = 12,
	QNET_ERROR_HEARTBEAT = 13,
	QNET_ERROR_UNSUPPORTED_BY_ALGORITHM = 14,
	QNET_ERROR_TIE_BREAKER_DIFFERS = 15,
	QNET_ERROR_ALGORITHM_DIFFERS = 16,
	QNET_ERROR_DUPLICATE_NODE_ID = 17,
	QNET_ERROR_CONFIG_LIST = 18,
	QNET_ERROR_MEMBERSHIP_LIST = 19,
};

enum qnet_tls { QNET_TLS_UNSUPPORTED = 0, QNET_TLS_SUPPORTED = 1, QNET_TLS_REQUIRED = 2 };
enum qnet_algorithm {
	QNET_ALGORITHM_TEST = 0,
	QNET_ALGORITHM_FFSPLIT = 1,
	QNET_ALGORITHM_2NODELMS = 2,
	QNET_ALGORITHM_LMS = 3,
};
enum qnet_list {
	QNET_LIST_INITIAL = 0,
	QNET_LIST_CHANGED = 1,
	QNET_LIST_MEMBERSHIP = 2,
	QNET_LIST_QUORUM = 3
};
enum qnet_vote {
	QNET_VOTE_ACK = 1,
	QNET_VOTE_NACK = 2,
	QNET_VOTE_ASK_LATER = 3,
	QNET_VOTE_WAIT_FOR_REPLY = 4,
	QNET_VOTE_NO_CHANGE = 5,
};
enum qnet_tie_breaker { QNET_TIE_LOWEST = 1, QNET_TIE_HIGHEST = 2, QNET_TIE_NODE = 3 };
enum qnet_heuristics { QNET_HEURISTICS_PASS = 1, QNET_HEURISTICS_FAIL = 2 };
enum qnet_node_state { QNET_NODE_MEMBER = 1, QNET_NODE_DEAD = 2, QNET_NODE_LEAVING = 3 };

struct qnet_ring {
	uint32_t node; /* representative */
	uint64_t seq; /* 0: no ring yet */
};

struct qnet_node {
	uint32_t id; /* never 0 */
	uint32_t data_center; /* 0: not set, not sent */
	uint8_t state; /* enum qnet_node_state; 0: not set, not sent */
};

/* One message. A field means something only if its bit is in `has` (1 << enum qnet_option); the
 * node list has no bit of its own: node_count says it. */
struct qnet_message {
	uint16_t type;
	uint32_t has;
	uint32_t seq;
	const uint8_t *name; /* CLUSTER_NAME, not terminated; borrowed from the bytes decoded */
	uint16_t name_len;
	uint8_t tls_supported;
	bool tls_client_cert_required;
	uint64_t supported_messages; /* bit n: type n; types above 63 are dropped */
	uint64_t supported_options; /* the same of option types */
	uint64_t supported_algorithms; /* the same of enum qnet_algorithm */
	uint16_t error;
	uint32_t maximum_request_size;
	uint32_t maximum_reply_size;
	uint32_t node_id;
	uint16_t algorithm; /* any number: not an error of the codec */
	uint32_t heartbeat_ms;
	struct qnet_ring ring;
	uint64_t config_version;
	uint32_t data_center;
	uint8_t node_state;
	uint8_t list;
	uint8_t vote;
	bool quorate;
	uint8_t tie_breaker;
	uint32_t tie_breaker_node; /* 0 unless QNET_TIE_NODE */
	uint8_t heuristics;
	bool keep_active_partition;
	unsigned node_count;
	struct qnet_node nodes[QNET_NODES_MAX];
};

#define QNET_HAS(option) (UINT32_C(1) << (option))
#define QNET_ALL_MESSAGES ((UINT64_C(1) << QNET_TYPES) - 1)
#define QNET_ALL_OPTIONS ((UINT64_C(1) << QNET_OPTIONS) - 1)

struct qnet_head {
	uint16_t type;
	uint32_t body; /* length */
};
/* `bytes` holds at least QNET_HEAD. Whoever reads checks the length before waiting for the body. */
struct qnet_head qnet_head_read(const uint8_t *bytes);

/* A whole message, head included; `len` must be the head's word (asserted). 0, *ret filled;
 * -EPROTONOSUPPORT: a type that no version knows; -EBADMSG: undecodable. */
int qnet_decode(const uint8_t *bytes, size_t len, struct qnet_message *ret);
/* Does it hold what its receiver requires? The node lists' own conditions (a membership needs a
 * ring, a quorum list needs quorate) are included. */
bool qnet_complete(const struct qnet_message *m);
/* True for a type that only a server sends. */
bool qnet_from_server(uint16_t type);
/* "NODE_LIST"; "unknown" for a number without one. */
const char *qnet_type_name(uint16_t type);

/* Appends the message: the options of `has` in the order in which the real programs write them. It
 * must fit QNET_MESSAGE_MAX (asserted: every message of ours does). */
void qnet_encode(const struct qnet_message *m, struct buf *out);
/* Appends the ECHO_REPLY to a whole ECHO_REQUEST: its body byte for byte. */
void qnet_encode_echo_reply(const uint8_t *request, size_t len, struct buf *out);
