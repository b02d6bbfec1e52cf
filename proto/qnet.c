#include "proto/qnet.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

enum { OPTION_HEAD = 4 };
enum { NONE = 0xff };

/* What a message holds: `required` by its receiver, `order` as the real programs write it. Options
 * that a message holds beside these follow in rising order. */
static const struct layout {
	const char *name;
	bool from_server;
	uint32_t required;
	uint8_t order[12];
} layouts[QNET_TYPES] = {
	[QNET_PREINIT] = {"PREINIT", false, QNET_HAS(QNET_OPT_CLUSTER_NAME), {NONE}},
	[QNET_PREINIT_REPLY] = {"PREINIT_REPLY",
				true,
				QNET_HAS(QNET_OPT_SEQ) | QNET_HAS(QNET_OPT_TLS_SUPPORTED) |
					QNET_HAS(QNET_OPT_TLS_CLIENT_CERT_REQUIRED),
				{NONE}},
	[QNET_STARTTLS] = {"STARTTLS", false, 0, {NONE}},
	[QNET_INIT] = {"INIT",
		       false,
		       QNET_HAS(QNET_OPT_NODE_ID) | QNET_HAS(QNET_OPT_ALGORITHM) |
			       QNET_HAS(QNET_OPT_HEARTBEAT_INTERVAL) |
			       QNET_HAS(QNET_OPT_TIE_BREAKER) | QNET_HAS(QNET_OPT_RING_ID),
		       {QNET_OPT_SEQ, QNET_OPT_SUPPORTED_MESSAGES, QNET_OPT_SUPPORTED_OPTIONS,
			QNET_OPT_NODE_ID, QNET_OPT_ALGORITHM, QNET_OPT_HEARTBEAT_INTERVAL,
			QNET_OPT_TIE_BREAKER, QNET_OPT_RING_ID, NONE}},
	[QNET_INIT_REPLY] = {"INIT_REPLY",
			     true,
			     QNET_HAS(QNET_OPT_SEQ) | QNET_HAS(QNET_OPT_REPLY_ERROR_CODE) |
				     QNET_HAS(QNET_OPT_SUPPORTED_MESSAGES) |
				     QNET_HAS(QNET_OPT_SUPPORTED_OPTIONS) |
				     QNET_HAS(QNET_OPT_MAXIMUM_REQUEST_SIZE) |
				     QNET_HAS(QNET_OPT_MAXIMUM_REPLY_SIZE) |
				     QNET_HAS(QNET_OPT_SUPPORTED_ALGORITHMS),
			     {QNET_OPT_REPLY_ERROR_CODE, QNET_OPT_SUPPORTED_MESSAGES,
			      QNET_OPT_SUPPORTED_OPTIONS, QNET_OPT_SEQ, NONE}},
	[QNET_SERVER_ERROR] = {"SERVER_ERROR", true, QNET_HAS(QNET_OPT_REPLY_ERROR_CODE), {NONE}},
	[QNET_SET_OPTION] = {"SET_OPTION", false, 0, {NONE}},
	[QNET_SET_OPTION_REPLY] = {"SET_OPTION_REPLY", true, 0, {NONE}},
	[QNET_ECHO_REQUEST] = {"ECHO_REQUEST", false, 0, {NONE}},
	[QNET_ECHO_REPLY] = {"ECHO_REPLY", true, QNET_HAS(QNET_OPT_SEQ), {NONE}},
	[QNET_NODE_LIST] = {"NODE_LIST",
			    false,
			    QNET_HAS(QNET_OPT_SEQ) | QNET_HAS(QNET_OPT_NODE_LIST_TYPE),
			    {QNET_OPT_SEQ, QNET_OPT_NODE_LIST_TYPE, QNET_OPT_RING_ID,
			     QNET_OPT_CONFIG_VERSION, QNET_OPT_QUORATE, QNET_OPT_NODE_INFO,
			     QNET_OPT_HEURISTICS, NONE}},
	[QNET_NODE_LIST_REPLY] = {"NODE_LIST_REPLY",
				  true,
				  QNET_HAS(QNET_OPT_SEQ) | QNET_HAS(QNET_OPT_NODE_LIST_TYPE) |
					  QNET_HAS(QNET_OPT_RING_ID) | QNET_HAS(QNET_OPT_VOTE),
				  {QNET_OPT_SEQ, QNET_OPT_NODE_LIST_TYPE, QNET_OPT_RING_ID,
				   QNET_OPT_VOTE, NONE}},
	[QNET_ASK_FOR_VOTE] = {"ASK_FOR_VOTE", false, QNET_HAS(QNET_OPT_SEQ), {NONE}},
	[QNET_ASK_FOR_VOTE_REPLY] = {"ASK_FOR_VOTE_REPLY",
				     true,
				     QNET_HAS(QNET_OPT_SEQ) | QNET_HAS(QNET_OPT_VOTE) |
					     QNET_HAS(QNET_OPT_RING_ID),
				     {QNET_OPT_SEQ, QNET_OPT_VOTE, QNET_OPT_RING_ID, NONE}},
	[QNET_VOTE_INFO] = {"VOTE_INFO",
			    true,
			    QNET_HAS(QNET_OPT_SEQ) | QNET_HAS(QNET_OPT_VOTE) |
				    QNET_HAS(QNET_OPT_RING_ID),
			    {QNET_OPT_SEQ, QNET_OPT_VOTE, QNET_OPT_RING_ID, NONE}},
	[QNET_VOTE_INFO_REPLY] = {"VOTE_INFO_REPLY", false, QNET_HAS(QNET_OPT_SEQ), {NONE}},
	[QNET_HEURISTICS_CHANGE] = {"HEURISTICS_CHANGE",
				    false,
				    QNET_HAS(QNET_OPT_SEQ) | QNET_HAS(QNET_OPT_HEURISTICS),
				    {NONE}},
	[QNET_HEURISTICS_CHANGE_REPLY] = {"HEURISTICS_CHANGE_REPLY",
					  true,
					  QNET_HAS(QNET_OPT_SEQ) | QNET_HAS(QNET_OPT_VOTE) |
						  QNET_HAS(QNET_OPT_RING_ID) |
						  QNET_HAS(QNET_OPT_HEURISTICS),
					  {QNET_OPT_SEQ, QNET_OPT_VOTE, QNET_OPT_RING_ID,
					   QNET_OPT_HEURISTICS, NONE}},
};

static uint16_t get_u16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get_u32(const uint8_t *p)
{
	return (uint32_t)get_u16(p) << 16 | get_u16(p + 2);
}

static uint64_t get_u64(const uint8_t *p)
{
	return (uint64_t)get_u32(p) << 32 | get_u32(p + 4);
}

/* --- decoding --- */

struct option {
	uint16_t type;
	uint16_t len;
	const uint8_t *value;
};

/* 1: *ret is the next option and *rest what follows; 0: the end; -EBADMSG: runs past the end. */
static int option_next(const uint8_t **data, size_t *rest, struct option *ret)
{
	if (*rest == 0)
		return 0;
	if (*rest < OPTION_HEAD)
		return -EBADMSG;
	*ret = (struct option){get_u16(*data), get_u16(*data + 2), *data + OPTION_HEAD};
	if (ret->len > *rest - OPTION_HEAD)
		return -EBADMSG;
	*data += OPTION_HEAD + ret->len;
	*rest -= (size_t)OPTION_HEAD + ret->len;
	return 1;
}

static bool take_u8(const struct option *o, uint8_t min, uint8_t max, uint8_t *ret)
{
	if (o->len != 1 || o->value[0] < min || o->value[0] > max)
		return false;
	*ret = o->value[0];
	return true;
}

static bool take_bool(const struct option *o, uint8_t max, bool *ret)
{
	uint8_t value;

	if (!take_u8(o, 0, max, &value))
		return false;
	*ret = value != 0;
	return true;
}

static bool take_u16(const struct option *o, uint16_t *ret)
{
	if (o->len != 2)
		return false;
	*ret = get_u16(o->value);
	return true;
}

static bool take_u32(const struct option *o, uint32_t *ret)
{
	if (o->len != 4)
		return false;
	*ret = get_u32(o->value);
	return true;
}

static bool take_u64(const struct option *o, uint64_t *ret)
{
	if (o->len != 8)
		return false;
	*ret = get_u64(o->value);
	return true;
}

static bool take_set(const struct option *o, uint64_t *ret)
{
	uint64_t set = 0;

	if (o->len % 2 != 0)
		return false;
	for (uint16_t i = 0; i < o->len; i += 2) {
		uint16_t item = get_u16(o->value + i);

		if (item < 64)
			set |= UINT64_C(1) << item;
	}
	*ret = set;
	return true;
}

static bool take_name(const struct option *o, struct qnet_message *m)
{
	m->name = o->value;
	m->name_len = o->len;
	return true;
}

static bool take_ring(const struct option *o, struct qnet_ring *ret)
{
	if (o->len != 12)
		return false;
	*ret = (struct qnet_ring){get_u32(o->value), get_u64(o->value + 4)};
	return true;
}

static bool take_tie_breaker(const struct option *o, struct qnet_message *m)
{
	if (o->len != 5 || o->value[0] < QNET_TIE_LOWEST || o->value[0] > QNET_TIE_NODE)
		return false;
	m->tie_breaker = o->value[0];
	m->tie_breaker_node = m->tie_breaker == QNET_TIE_NODE ? get_u32(o->value + 1) : 0;
	return true;
}

static bool take_node(const struct option *outer, struct qnet_message *m)
{
	const uint8_t *data = outer->value;
	size_t rest = outer->len;
	struct qnet_node node = {0};
	struct option o;
	int more;

	while ((more = option_next(&data, &rest, &o)) > 0) {
		bool good = true;

		if (o.type == QNET_OPT_NODE_ID)
			good = take_u32(&o, &node.id);
		else if (o.type == QNET_OPT_DATA_CENTER_ID)
			good = take_u32(&o, &node.data_center);
		else if (o.type == QNET_OPT_NODE_STATE)
			good = take_u8(&o, QNET_NODE_MEMBER, QNET_NODE_LEAVING, &node.state);
		if (!good)
			return false;
	}
	if (more < 0 || node.id == 0 || m->node_count == QNET_NODES_MAX)
		return false;
	m->nodes[m->node_count++] = node;
	return true;
}

static bool take_option(const struct option *o, struct qnet_message *m)
{
	switch ((enum qnet_option)o->type) {
	case QNET_OPT_SEQ:
		return take_u32(o, &m->seq);
	case QNET_OPT_CLUSTER_NAME:
		return take_name(o, m);
	case QNET_OPT_TLS_SUPPORTED:
		return take_u8(o, QNET_TLS_UNSUPPORTED, QNET_TLS_REQUIRED, &m->tls_supported);
	case QNET_OPT_TLS_CLIENT_CERT_REQUIRED:
		return take_bool(o, UINT8_MAX, &m->tls_client_cert_required);
	case QNET_OPT_SUPPORTED_MESSAGES:
		return take_set(o, &m->supported_messages);
	case QNET_OPT_SUPPORTED_OPTIONS:
		return take_set(o, &m->supported_options);
	case QNET_OPT_REPLY_ERROR_CODE:
		return take_u16(o, &m->error);
	case QNET_OPT_MAXIMUM_REQUEST_SIZE:
		return take_u32(o, &m->maximum_request_size);
	case QNET_OPT_MAXIMUM_REPLY_SIZE:
		return take_u32(o, &m->maximum_reply_size);
	case QNET_OPT_NODE_ID:
		return take_u32(o, &m->node_id);
	case QNET_OPT_SUPPORTED_ALGORITHMS:
		return take_set(o, &m->supported_algorithms);
	case QNET_OPT_ALGORITHM:
		return take_u16(o, &m->algorithm);
	case QNET_OPT_HEARTBEAT_INTERVAL:
		return take_u32(o, &m->heartbeat_ms);
	case QNET_OPT_RING_ID:
		return take_ring(o, &m->ring);
	case QNET_OPT_CONFIG_VERSION:
		return take_u64(o, &m->config_version);
	case QNET_OPT_DATA_CENTER_ID:
		return take_u32(o, &m->data_center);
	case QNET_OPT_NODE_STATE:
		return take_u8(o, QNET_NODE_MEMBER, QNET_NODE_LEAVING, &m->node_state);
	case QNET_OPT_NODE_INFO:
		return take_node(o, m);
	case QNET_OPT_NODE_LIST_TYPE:
		return take_u8(o, QNET_LIST_INITIAL, QNET_LIST_QUORUM, &m->list);
	case QNET_OPT_VOTE:
		return take_u8(o, QNET_VOTE_ACK, QNET_VOTE_NO_CHANGE, &m->vote);
	case QNET_OPT_QUORATE:
		return take_bool(o, 1, &m->quorate);
	case QNET_OPT_TIE_BREAKER:
		return take_tie_breaker(o, m);
	case QNET_OPT_HEURISTICS:
		return take_u8(o, QNET_HEURISTICS_PASS, QNET_HEURISTICS_FAIL, &m->heuristics);
	case QNET_OPT_KEEP_ACTIVE_PARTITION:
		return take_bool(o, 1, &m->keep_active_partition);
	case QNET_OPTIONS:
		break;
	}
	assert(!"an option without a reader");
	return false;
}

struct qnet_head qnet_head_read(const uint8_t *bytes)
{
	return (struct qnet_head){get_u16(bytes), get_u32(bytes + 2)};
}

int qnet_decode(const uint8_t *bytes, size_t len, struct qnet_message *ret)
{
	const uint8_t *data = bytes + QNET_HEAD;
	size_t rest = len - QNET_HEAD;
	struct option o;
	int more;

	assert(len >= QNET_HEAD && qnet_head_read(bytes).body == len - QNET_HEAD);
	/* The nodes' array is filled by node_count; clearing it would cost more than decoding. */
	memset(ret, 0, offsetof(struct qnet_message, nodes));
	ret->type = get_u16(bytes);
	if (ret->type >= QNET_TYPES)
		return -EPROTONOSUPPORT;
	while ((more = option_next(&data, &rest, &o)) > 0) {
		if (o.type >= QNET_OPTIONS)
			continue;
		if (!take_option(&o, ret))
			return -EBADMSG;
		if (o.type != QNET_OPT_NODE_INFO)
			ret->has |= QNET_HAS(o.type);
	}
	return more;
}

bool qnet_complete(const struct qnet_message *m)
{
	uint32_t required = layouts[m->type].required;

	if (m->type == QNET_NODE_LIST && (m->has & QNET_HAS(QNET_OPT_NODE_LIST_TYPE)) != 0) {
		if (m->list == QNET_LIST_MEMBERSHIP)
			required |= QNET_HAS(QNET_OPT_RING_ID);
		if (m->list == QNET_LIST_QUORUM)
			required |= QNET_HAS(QNET_OPT_QUORATE);
	}
	return (m->has & required) == required;
}

bool qnet_from_server(uint16_t type)
{
	return type < QNET_TYPES && layouts[type].from_server;
}

const char *qnet_type_name(uint16_t type)
{
	return type < QNET_TYPES ? layouts[type].name : "unknown";
}

/* --- encoding --- */

static void put_head(struct buf *out, uint16_t type, size_t len)
{
	buf_put_u16(out, type);
	buf_put_u16(out, (uint16_t)len);
}

static void put_u8(struct buf *out, uint16_t type, uint8_t value)
{
	put_head(out, type, 1);
	buf_put_u8(out, value);
}

static void put_u16(struct buf *out, uint16_t type, uint16_t value)
{
	put_head(out, type, 2);
	buf_put_u16(out, value);
}

static void put_u32(struct buf *out, uint16_t type, uint32_t value)
{
	put_head(out, type, 4);
	buf_put_u32(out, value);
}

static void put_u64(struct buf *out, uint16_t type, uint64_t value)
{
	put_head(out, type, 8);
	buf_put_u64(out, value);
}

static void put_set(struct buf *out, uint16_t type, uint64_t set)
{
	put_head(out, type, 2 * (size_t)__builtin_popcountll(set));
	for (uint16_t item = 0; item < 64; item++)
		if ((set >> item & 1) != 0)
			buf_put_u16(out, item);
}

static void put_name(struct buf *out, const struct qnet_message *m)
{
	put_head(out, QNET_OPT_CLUSTER_NAME, m->name_len);
	buf_append(out, m->name, m->name_len);
}

static void put_ring(struct buf *out, const struct qnet_ring *ring)
{
	put_head(out, QNET_OPT_RING_ID, 12);
	buf_put_u32(out, ring->node);
	buf_put_u64(out, ring->seq);
}

static void put_tie_breaker(struct buf *out, const struct qnet_message *m)
{
	put_head(out, QNET_OPT_TIE_BREAKER, 5);
	buf_put_u8(out, m->tie_breaker);
	buf_put_u32(out, m->tie_breaker_node);
}

static void put_nodes(struct buf *out, const struct qnet_message *m)
{
	assert(m->node_count <= QNET_NODES_MAX);
	for (unsigned i = 0; i < m->node_count; i++) {
		const struct qnet_node *node = &m->nodes[i];

		put_head(out, QNET_OPT_NODE_INFO,
			 8u + (node->data_center != 0 ? 8u : 0u) + (node->state != 0 ? 5u : 0u));
		put_u32(out, QNET_OPT_NODE_ID, node->id);
		if (node->data_center != 0)
			put_u32(out, QNET_OPT_DATA_CENTER_ID, node->data_center);
		if (node->state != 0)
			put_u8(out, QNET_OPT_NODE_STATE, node->state);
	}
}

static void put_option(struct buf *out, uint16_t type, const struct qnet_message *m)
{
	switch ((enum qnet_option)type) {
	case QNET_OPT_SEQ:
		return put_u32(out, type, m->seq);
	case QNET_OPT_CLUSTER_NAME:
		return put_name(out, m);
	case QNET_OPT_TLS_SUPPORTED:
		return put_u8(out, type, m->tls_supported);
	case QNET_OPT_TLS_CLIENT_CERT_REQUIRED:
		return put_u8(out, type, m->tls_client_cert_required);
	case QNET_OPT_SUPPORTED_MESSAGES:
		return put_set(out, type, m->supported_messages);
	case QNET_OPT_SUPPORTED_OPTIONS:
		return put_set(out, type, m->supported_options);
	case QNET_OPT_REPLY_ERROR_CODE:
		return put_u16(out, type, m->error);
	case QNET_OPT_MAXIMUM_REQUEST_SIZE:
		return put_u32(out, type, m->maximum_request_size);
	case QNET_OPT_MAXIMUM_REPLY_SIZE:
		return put_u32(out, type, m->maximum_reply_size);
	case QNET_OPT_NODE_ID:
		return put_u32(out, type, m->node_id);
	case QNET_OPT_SUPPORTED_ALGORITHMS:
		return put_set(out, type, m->supported_algorithms);
	case QNET_OPT_ALGORITHM:
		return put_u16(out, type, m->algorithm);
	case QNET_OPT_HEARTBEAT_INTERVAL:
		return put_u32(out, type, m->heartbeat_ms);
	case QNET_OPT_RING_ID:
		return put_ring(out, &m->ring);
	case QNET_OPT_CONFIG_VERSION:
		return put_u64(out, type, m->config_version);
	case QNET_OPT_DATA_CENTER_ID:
		return put_u32(out, type, m->data_center);
	case QNET_OPT_NODE_STATE:
		return put_u8(out, type, m->node_state);
	case QNET_OPT_NODE_INFO:
		return put_nodes(out, m);
	case QNET_OPT_NODE_LIST_TYPE:
		return put_u8(out, type, m->list);
	case QNET_OPT_VOTE:
		return put_u8(out, type, m->vote);
	case QNET_OPT_QUORATE:
		return put_u8(out, type, m->quorate);
	case QNET_OPT_TIE_BREAKER:
		return put_tie_breaker(out, m);
	case QNET_OPT_HEURISTICS:
		return put_u8(out, type, m->heuristics);
	case QNET_OPT_KEEP_ACTIVE_PARTITION:
		return put_u8(out, type, m->keep_active_partition);
	case QNET_OPTIONS:
		break;
	}
	assert(!"an option without a writer");
}

/* The length is known when the body is there: put it into its place then. */
static void patch_length(struct buf *out, size_t start)
{
	size_t body = out->len - start - QNET_HEAD;

	assert(body + QNET_HEAD <= QNET_MESSAGE_MAX);
	for (unsigned i = 0; i < 4; i++)
		out->data[start + 2 + i] = (uint8_t)(body >> (24 - 8 * i));
}

void qnet_encode(const struct qnet_message *m, struct buf *out)
{
	size_t start = out->len;
	uint32_t left = m->has;

	assert(m->type < QNET_TYPES && (m->has >> QNET_OPTIONS) == 0);
	if (m->node_count != 0)
		left |= QNET_HAS(QNET_OPT_NODE_INFO);
	buf_put_u16(out, m->type);
	buf_put_u32(out, 0);
	for (const uint8_t *o = layouts[m->type].order; *o != NONE; o++) {
		if ((left & QNET_HAS(*o)) != 0)
			put_option(out, *o, m);
		left &= ~QNET_HAS(*o);
	}
	for (uint16_t o = 0; left != 0; o++) {
		if ((left & QNET_HAS(o)) != 0)
			put_option(out, o, m);
		left &= ~QNET_HAS(o);
	}
	patch_length(out, start);
}

void qnet_encode_echo_reply(const uint8_t *request, size_t len, struct buf *out)
{
	assert(len >= QNET_HEAD && get_u16(request) == QNET_ECHO_REQUEST);
	buf_put_u16(out, QNET_ECHO_REPLY);
	buf_append(out, request + 2, len - 2);
}
