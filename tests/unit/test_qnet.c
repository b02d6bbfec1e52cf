/* The QNet codec against messages as corosync-qdevice 3.0.3 and corosync-qnetd 3.0.3 wrote them
 * (node 1 of cluster "labcluster", TLS off), and against what a hostile peer could write. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/hex.h"
#include "lib/rng.h"
#include "proto/qnet.h"

/* Hex with spaces; "0000..0011" stands for the u16 numbers of a whole range. */
static void hex_read(const char *text, struct buf *out)
{
	buf_clear(out);
	while (*text != '\0') {
		uint8_t byte;

		if (*text == ' ') {
			text++;
		} else if (text[0] == '.') {
			uint8_t last[2];

			assert_int_equal(
				hex_decode((char[5]){text[2], text[3], text[4], text[5]}, last, 2),
				0);
			for (uint16_t i = 1; i <= (last[0] << 8 | last[1]); i++)
				buf_put_u16(out, i);
			text += 6;
		} else {
			assert_int_equal(hex_decode((char[3]){text[0], text[1]}, &byte, 1), 0);
			buf_put_u8(out, byte);
			text += 2;
		}
	}
}

static void assert_bytes(const struct buf *got, const struct buf *want, const char *what)
{
	if (got->len != want->len || memcmp(got->data, want->data, got->len) != 0) {
		char text[1024] = "";

		hex_encode(got->data, got->len < 500 ? got->len : 500, text);
		fail_msg("%s: got %s", what, text);
	}
}

#define SEQ QNET_HAS(QNET_OPT_SEQ)
#define RING_1_5                                                                                   \
	{                                                                                          \
		1, 5                                                                               \
	}

static const struct real {
	const char *hex;
	struct qnet_message message;
} reals[] = {
	{"0000 00000016 0000 0004 00000001 0001 000a 6c6162636c7573746572",
	 {.type = QNET_PREINIT,
	  .has = SEQ | QNET_HAS(QNET_OPT_CLUSTER_NAME),
	  .seq = 1,
	  .name = (const uint8_t *)"labcluster",
	  .name_len = 10}},
	{"0001 00000012 0000 0004 00000001 0002 0001 00 0003 0001 01",
	 {.type = QNET_PREINIT_REPLY,
	  .has = SEQ | QNET_HAS(QNET_OPT_TLS_SUPPORTED) |
		 QNET_HAS(QNET_OPT_TLS_CLIENT_CERT_REQUIRED),
	  .seq = 1,
	  .tls_supported = QNET_TLS_UNSUPPORTED,
	  .tls_client_cert_required = true}},
	{"0002 00000008 0000 0004 00000002", {.type = QNET_STARTTLS, .has = SEQ, .seq = 2}},
	{"0003 00000093 0000 0004 00000002 0004 0024 0000..0011 0005 0030 0000..0017"
	 "0009 0004 00000001 000b 0002 0001 000c 0004 00001f40 0015 0005 01 00000000"
	 "000d 000c 00000001 0000000000000005",
	 {.type = QNET_INIT,
	  .has = SEQ | QNET_HAS(QNET_OPT_SUPPORTED_MESSAGES) |
		 QNET_HAS(QNET_OPT_SUPPORTED_OPTIONS) | QNET_HAS(QNET_OPT_NODE_ID) |
		 QNET_HAS(QNET_OPT_ALGORITHM) | QNET_HAS(QNET_OPT_HEARTBEAT_INTERVAL) |
		 QNET_HAS(QNET_OPT_TIE_BREAKER) | QNET_HAS(QNET_OPT_RING_ID),
	  .seq = 2,
	  .supported_messages = QNET_ALL_MESSAGES,
	  .supported_options = QNET_ALL_OPTIONS,
	  .node_id = 1,
	  .algorithm = QNET_ALGORITHM_FFSPLIT,
	  .heartbeat_ms = 8000,
	  .tie_breaker = QNET_TIE_LOWEST,
	  .ring = RING_1_5}},
	{"0004 00000086 0006 0002 0000 0004 0024 0000..0011 0005 0030 0000..0017"
	 "0000 0004 00000002 0007 0004 00008000 0008 0004 00008000"
	 "000a 0008 0000 0001 0002 0003",
	 {.type = QNET_INIT_REPLY,
	  .has = SEQ | QNET_HAS(QNET_OPT_REPLY_ERROR_CODE) | QNET_HAS(QNET_OPT_SUPPORTED_MESSAGES) |
		 QNET_HAS(QNET_OPT_SUPPORTED_OPTIONS) | QNET_HAS(QNET_OPT_MAXIMUM_REQUEST_SIZE) |
		 QNET_HAS(QNET_OPT_MAXIMUM_REPLY_SIZE) | QNET_HAS(QNET_OPT_SUPPORTED_ALGORITHMS),
	  .seq = 2,
	  .supported_messages = QNET_ALL_MESSAGES,
	  .supported_options = QNET_ALL_OPTIONS,
	  .maximum_request_size = 32768,
	  .maximum_reply_size = 32768,
	  .supported_algorithms = 0xf}},
	{"0005 0000000e 0000 0004 00000007 0006 0002 000b",
	 {.type = QNET_SERVER_ERROR,
	  .has = SEQ | QNET_HAS(QNET_OPT_REPLY_ERROR_CODE),
	  .seq = 7,
	  .error = QNET_ERROR_INIT_REQUIRED}},
	{"0006 0000000d 0000 0004 00000003 0017 0001 01",
	 {.type = QNET_SET_OPTION,
	  .has = SEQ | QNET_HAS(QNET_OPT_KEEP_ACTIVE_PARTITION),
	  .seq = 3,
	  .keep_active_partition = true}},
	{"0007 0000000d 0000 0004 00000003 0017 0001 01",
	 {.type = QNET_SET_OPTION_REPLY,
	  .has = SEQ | QNET_HAS(QNET_OPT_KEEP_ACTIVE_PARTITION),
	  .seq = 3,
	  .keep_active_partition = true}},
	{"0008 00000008 0000 0004 00000001", {.type = QNET_ECHO_REQUEST, .has = SEQ, .seq = 1}},
	{"0009 00000008 0000 0004 00000001", {.type = QNET_ECHO_REPLY, .has = SEQ, .seq = 1}},
	{"000a 00000025 0000 0004 00000004 0012 0001 00"
	 "0011 0008 0009 0004 00000001 0011 0008 0009 0004 00000002",
	 {.type = QNET_NODE_LIST,
	  .has = SEQ | QNET_HAS(QNET_OPT_NODE_LIST_TYPE),
	  .seq = 4,
	  .list = QNET_LIST_INITIAL,
	  .node_count = 2,
	  .nodes = {{.id = 1}, {.id = 2}}}},
	{"000a 00000029 0000 0004 00000005 0012 0001 02"
	 "000d 000c 00000001 0000000000000005 0011 0008 0009 0004 00000001",
	 {.type = QNET_NODE_LIST,
	  .has = SEQ | QNET_HAS(QNET_OPT_NODE_LIST_TYPE) | QNET_HAS(QNET_OPT_RING_ID),
	  .seq = 5,
	  .list = QNET_LIST_MEMBERSHIP,
	  .ring = RING_1_5,
	  .node_count = 1,
	  .nodes = {{.id = 1}}}},
	{"000a 00000023 0000 0004 00000006 0012 0001 03 0014 0001 00"
	 "0011 000d 0009 0004 00000001 0010 0001 01",
	 {.type = QNET_NODE_LIST,
	  .has = SEQ | QNET_HAS(QNET_OPT_NODE_LIST_TYPE) | QNET_HAS(QNET_OPT_QUORATE),
	  .seq = 6,
	  .list = QNET_LIST_QUORUM,
	  .node_count = 1,
	  .nodes = {{.id = 1, .state = QNET_NODE_MEMBER}}}},
	{"000b 00000022 0000 0004 00000004 0012 0001 00"
	 "000d 000c 00000001 0000000000000005 0013 0001 03",
	 {.type = QNET_NODE_LIST_REPLY,
	  .has = SEQ | QNET_HAS(QNET_OPT_NODE_LIST_TYPE) | QNET_HAS(QNET_OPT_RING_ID) |
		 QNET_HAS(QNET_OPT_VOTE),
	  .seq = 4,
	  .list = QNET_LIST_INITIAL,
	  .ring = RING_1_5,
	  .vote = QNET_VOTE_ASK_LATER}},
	{"000c 00000008 0000 0004 00000009", {.type = QNET_ASK_FOR_VOTE, .has = SEQ, .seq = 9}},
	{"000d 0000001d 0000 0004 00000009 0013 0001 02 000d 000c 00000001 0000000000000005",
	 {.type = QNET_ASK_FOR_VOTE_REPLY,
	  .has = SEQ | QNET_HAS(QNET_OPT_VOTE) | QNET_HAS(QNET_OPT_RING_ID),
	  .seq = 9,
	  .vote = QNET_VOTE_NACK,
	  .ring = RING_1_5}},
	{"000e 0000001d 0000 0004 00000001 0013 0001 01 000d 000c 00000001 0000000000000005",
	 {.type = QNET_VOTE_INFO,
	  .has = SEQ | QNET_HAS(QNET_OPT_VOTE) | QNET_HAS(QNET_OPT_RING_ID),
	  .seq = 1,
	  .vote = QNET_VOTE_ACK,
	  .ring = RING_1_5}},
	{"000f 00000008 0000 0004 00000001", {.type = QNET_VOTE_INFO_REPLY, .has = SEQ, .seq = 1}},
	{"0010 0000000d 0000 0004 0000000a 0016 0001 02",
	 {.type = QNET_HEURISTICS_CHANGE,
	  .has = SEQ | QNET_HAS(QNET_OPT_HEURISTICS),
	  .seq = 10,
	  .heuristics = QNET_HEURISTICS_FAIL}},
	{"0011 00000022 0000 0004 0000000a 0013 0001 05"
	 "000d 000c 00000001 0000000000000005 0016 0001 02",
	 {.type = QNET_HEURISTICS_CHANGE_REPLY,
	  .has = SEQ | QNET_HAS(QNET_OPT_VOTE) | QNET_HAS(QNET_OPT_RING_ID) |
		 QNET_HAS(QNET_OPT_HEURISTICS),
	  .seq = 10,
	  .vote = QNET_VOTE_NO_CHANGE,
	  .ring = RING_1_5,
	  .heuristics = QNET_HEURISTICS_FAIL}},
};
enum { REALS = sizeof(reals) / sizeof(reals[0]) };

static void assert_same(const struct qnet_message *a, const struct qnet_message *b)
{
	struct qnet_message x = *a;
	struct qnet_message y = *b;

	assert_int_equal(x.name_len, y.name_len);
	if (x.name_len != 0)
		assert_memory_equal(x.name, y.name, x.name_len);
	x.name = y.name = NULL;
	assert_int_equal(x.node_count, y.node_count);
	for (unsigned i = 0; i < x.node_count; i++) {
		assert_int_equal(x.nodes[i].id, y.nodes[i].id);
		assert_int_equal(x.nodes[i].data_center, y.nodes[i].data_center);
		assert_int_equal(x.nodes[i].state, y.nodes[i].state);
	}
	assert_memory_equal(&x, &y, offsetof(struct qnet_message, nodes));
}

static void test_real_messages(void **state)
{
	(void)state;
	for (size_t i = 0; i < REALS; i++) {
		struct buf wire = {0};
		struct buf again = {0};
		struct qnet_message got;

		memset(&got, 0, sizeof(got));
		hex_read(reals[i].hex, &wire);
		assert_int_equal(qnet_head_read(wire.data).type, reals[i].message.type);
		assert_int_equal(qnet_head_read(wire.data).body, wire.len - QNET_HEAD);
		assert_int_equal(qnet_decode(wire.data, wire.len, &got), 0);
		assert_same(&got, &reals[i].message);
		assert_true(qnet_complete(&got));
		qnet_encode(&reals[i].message, &again);
		assert_bytes(&again, &wire, qnet_type_name(got.type));
		buf_free(&wire);
		buf_free(&again);
	}
}

static void test_every_type_is_there(void **state)
{
	bool seen[QNET_TYPES] = {false};

	(void)state;
	for (size_t i = 0; i < REALS; i++)
		seen[reals[i].message.type] = true;
	for (size_t i = 0; i < QNET_TYPES; i++)
		assert_true(seen[i]);
	assert_string_equal(qnet_type_name(10), "NODE_LIST");
	assert_string_equal(qnet_type_name(18), "unknown");
	assert_true(qnet_from_server(QNET_VOTE_INFO));
	assert_false(qnet_from_server(QNET_VOTE_INFO_REPLY));
	assert_false(qnet_from_server(18));
}

/* Each real message cut short in the body, with the head saying so, is an ordinary error or, if
 * it is cut between two options, decodable. */
static void test_truncated(void **state)
{
	(void)state;
	for (size_t i = 0; i < REALS; i++) {
		struct buf wire = {0};
		struct qnet_message got;

		hex_read(reals[i].hex, &wire);
		for (size_t len = wire.len - 1; len >= QNET_HEAD; len--) {
			uint8_t *copy = test_malloc(len); /* its end is guarded by the sanitizer */
			int rv;

			memcpy(copy, wire.data, len);
			copy[2] = 0;
			copy[3] = 0;
			copy[4] = (uint8_t)((len - QNET_HEAD) >> 8);
			copy[5] = (uint8_t)(len - QNET_HEAD);
			rv = qnet_decode(copy, len, &got);
			assert_true(rv == 0 || rv == -EBADMSG);
			test_free(copy);
		}
		buf_free(&wire);
	}
}

static void test_undecodable(void **state)
{
	static const struct {
		const char *hex;
		int rv;
		const char *why;
	} cases[] = {
		{"0012 00000000", -EPROTONOSUPPORT, "a type that no version knows"},
		{"0008 00000003 000000", -EBADMSG, "an option head cut short"},
		{"0008 00000004 0000 0004", -EBADMSG, "a value that runs past the end"},
		{"0008 00000007 0000 0003 000000", -EBADMSG, "a sequence number of 3 bytes"},
		{"0008 00000009 0000 0005 0000000000", -EBADMSG, "a sequence number of 5 bytes"},
		{"0008 00000005 00ff 0001 ff", 0, "an unknown option"},
		{"0008 00000004 0063 0000", 0, "an empty unknown option"},
		{"000e 00000005 0013 0001 00", -EBADMSG, "vote 0"},
		{"000e 00000005 0013 0001 06", -EBADMSG, "vote 6"},
		{"000e 00000006 0013 0002 0101", -EBADMSG, "a vote of 2 bytes"},
		{"000e 0000000f 000d 000b 0000000100000000000000", -EBADMSG, "a short ring id"},
		{"000a 00000005 0012 0001 04", -EBADMSG, "list type 4"},
		{"000a 00000005 0014 0001 02", -EBADMSG, "quorate 2"},
		{"000a 00000005 0016 0001 00", -EBADMSG, "heuristics 0"},
		{"000a 00000005 0016 0001 03", -EBADMSG, "heuristics 3"},
		{"000a 00000005 0010 0001 00", -EBADMSG, "node state 0"},
		{"000a 00000004 0011 0000", -EBADMSG, "a node without an id"},
		{"000a 0000000c 0011 0008 0009 0004 00000000", -EBADMSG, "node id 0"},
		{"000a 0000000b 0011 0007 0009 0004 000000", -EBADMSG, "a node option cut short"},
		{"000a 00000011 0011 000d 0009 0004 00000001 0010 0001 04", -EBADMSG, "state 4"},
		{"000a 00000011 0011 000d 0009 0004 00000001 0063 0001 04", 0, "unknown in a node"},
		{"000a 00000014 0011 0010 0009 0004 00000001 000f 0004 00000000", 0, "no centre"},
		{"0003 00000009 0015 0005 0000000000", -EBADMSG, "tie-breaker mode 0"},
		{"0003 00000009 0015 0005 0400000000", -EBADMSG, "tie-breaker mode 4"},
		{"0003 00000005 0015 0001 01", -EBADMSG, "a tie-breaker without a node"},
		{"0003 00000006 000b 0002 0009", 0, "an algorithm that nobody knows"},
		{"0003 00000005 0004 0001 00", -EBADMSG, "half a message type"},
		{"0003 00000006 0004 0002 ffff", 0, "a message type of the future"},
		{"0006 00000005 0017 0001 02", -EBADMSG, "keep active partition 2"},
		{"0001 00000005 0002 0001 03", -EBADMSG, "TLS 3"},
		{"0000 00000004 0001 0000", 0, "an empty name"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buf wire = {0};
		struct qnet_message got;

		hex_read(cases[i].hex, &wire);
		if (qnet_decode(wire.data, wire.len, &got) != cases[i].rv)
			fail_msg("%s", cases[i].why);
		buf_free(&wire);
	}
}

static void test_last_one_counts(void **state)
{
	struct buf wire = {0};
	struct qnet_message got;

	(void)state;
	hex_read("0003 00000022 0000 0004 00000001 0015 0005 03 00000007 0000 0004 00000009"
		 "0015 0005 02 00000007",
		 &wire);
	assert_int_equal(qnet_decode(wire.data, wire.len, &got), 0);
	assert_int_equal(got.seq, 9);
	assert_int_equal(got.tie_breaker, QNET_TIE_HIGHEST);
	assert_int_equal(got.tie_breaker_node, 0);
	buf_free(&wire);
}

static void test_missing_options(void **state)
{
	(void)state;
	for (size_t i = 0; i < REALS; i++) {
		struct qnet_message m = reals[i].message;

		m.has = 0;
		switch ((enum qnet_type)m.type) {
		case QNET_STARTTLS:
		case QNET_SET_OPTION:
		case QNET_SET_OPTION_REPLY:
		case QNET_ECHO_REQUEST:
			assert_true(qnet_complete(&m));
			break;
		default:
			assert_false(qnet_complete(&m));
		}
	}
}

static void test_list_conditions(void **state)
{
	static const struct {
		uint8_t list;
		uint32_t has;
		bool complete;
	} cases[] = {
		{QNET_LIST_INITIAL, 0, true},
		{QNET_LIST_CHANGED, 0, true},
		{QNET_LIST_MEMBERSHIP, 0, false},
		{QNET_LIST_MEMBERSHIP, QNET_HAS(QNET_OPT_QUORATE), false},
		{QNET_LIST_MEMBERSHIP, QNET_HAS(QNET_OPT_RING_ID), true},
		{QNET_LIST_QUORUM, 0, false},
		{QNET_LIST_QUORUM, QNET_HAS(QNET_OPT_RING_ID), false},
		{QNET_LIST_QUORUM, QNET_HAS(QNET_OPT_QUORATE), true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct qnet_message m = {
			.type = QNET_NODE_LIST,
			.list = cases[i].list,
			.has = cases[i].has | SEQ | QNET_HAS(QNET_OPT_NODE_LIST_TYPE)};

		assert_int_equal(qnet_complete(&m), cases[i].complete);
	}
}

static void test_node_limit(void **state)
{
	struct buf wire = {0};
	struct qnet_message m = {.type = QNET_NODE_LIST, .node_count = QNET_NODES_MAX};
	struct qnet_message got;

	(void)state;
	for (unsigned i = 0; i < m.node_count; i++)
		m.nodes[i] = (struct qnet_node){i + 1, i, (uint8_t)(i % 4)};
	qnet_encode(&m, &wire);
	assert_int_equal(qnet_decode(wire.data, wire.len, &got), 0);
	assert_same(&got, &m);
	buf_append(&wire, "\0\x11\0\x08\0\x09\0\x04\0\0\0\x63", 12);
	wire.data[4] = (uint8_t)((wire.len - QNET_HEAD) >> 8);
	wire.data[5] = (uint8_t)(wire.len - QNET_HEAD);
	assert_int_equal(qnet_decode(wire.data, wire.len, &got), -EBADMSG);
	buf_free(&wire);
}

static void test_echo_is_exact(void **state)
{
	struct buf request = {0};
	struct buf reply = {0};

	(void)state;
	hex_read("0008 00000012 0099 0002 abcd 0000 0004 00000007 0000 0000", &request);
	qnet_encode_echo_reply(request.data, request.len, &reply);
	assert_int_equal(reply.len, request.len);
	assert_int_equal(qnet_head_read(reply.data).type, QNET_ECHO_REPLY);
	assert_memory_equal(reply.data + 2, request.data + 2, request.len - 2);
	buf_free(&request);
	buf_free(&reply);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_real_messages),	cmocka_unit_test(test_every_type_is_there),
		cmocka_unit_test(test_truncated),	cmocka_unit_test(test_undecodable),
		cmocka_unit_test(test_last_one_counts), cmocka_unit_test(test_missing_options),
		cmocka_unit_test(test_list_conditions), cmocka_unit_test(test_node_limit),
		cmocka_unit_test(test_echo_is_exact),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
