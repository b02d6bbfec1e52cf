/* One site connection, without sockets: what the protocol demands of a server, case by case. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "witnessd/deadlines.h"
#include "witnessd/qnet_session.h"

#define SEQ QNET_HAS(QNET_OPT_SEQ)

/* --- the bench: a session, its world, what came out --- */

struct bench {
	struct qnet_session session;
	struct qnet_world world;
	struct qnet_site site;
	int model_error;
	struct qnet_out out;
	enum qnet_verdict verdict;
	size_t used;
	size_t read; /* of out.wire, by next_reply */
	size_t seen; /* of out.events, by next_event */
};

static int bench_site(void *arg, const char *name, struct qnet_site *ret)
{
	struct bench *b = arg;

	(void)name;
	*ret = b->site;
	return b->model_error;
}

static struct bench *bench_new(void)
{
	struct bench *b = mem_zalloc(sizeof(*b));

	b->site = (struct qnet_site){.tls = QNET_TLS_SUPPORTED,
				     .certificate = true,
				     .heartbeat_min_ms = 1000,
				     .heartbeat_max_ms = 120000};
	b->world = (struct qnet_world){
		.arg = b, .site = bench_site, .board = 3, .now_ms = 1000000, .real_ms = 5};
	qnet_session_init(&b->session, 77, "10.0.0.1:3434", b->world.now_ms);
	return b;
}

static void bench_free(struct bench *b)
{
	assert_int_equal(b->read, b->out.wire.len);
	assert_int_equal(b->seen, b->out.events.count);
	qnet_session_free(&b->session);
	qnet_out_free(&b->out);
	free(b);
}

static void feed(struct bench *b, const void *data, size_t len)
{
	/* On the heap, so that the sanitizer sees a read behind the end. */
	uint8_t *copy = mem_dup(data, len);

	b->verdict = qnet_session_receive(&b->session, &b->world, copy, len, &b->used, &b->out);
	free(copy);
}

static void say(struct bench *b, const struct qnet_message *m)
{
	struct buf wire = {0};

	qnet_encode(m, &wire);
	feed(b, wire.data, wire.len);
	assert_int_equal(b->used, wire.len);
	buf_free(&wire);
}

static void order(struct bench *b, const Tb__DoorOrder *o)
{
	b->verdict = qnet_session_order(&b->session, &b->world, o, &b->out);
}

static struct qnet_message next_reply(struct bench *b, uint16_t type)
{
	struct qnet_message m = {0};
	size_t len;

	assert_true(b->out.wire.len - b->read >= QNET_HEAD);
	len = QNET_HEAD + (size_t)qnet_head_read(b->out.wire.data + b->read).body;
	assert_true(b->out.wire.len - b->read >= len);
	assert_int_equal(qnet_decode(b->out.wire.data + b->read, len, &m), 0);
	assert_true(qnet_complete(&m));
	if (m.type != type)
		fail_msg("got %s (error %u), wanted %s", qnet_type_name(m.type), m.error,
			 qnet_type_name(type));
	b->read += len;
	return m;
}

static void expect_error(struct bench *b, enum qnet_error error)
{
	assert_int_equal(next_reply(b, QNET_SERVER_ERROR).error, error);
}

static const Tb__DoorEvent *next_event(struct bench *b, Tb__DoorEvent__WhatCase what)
{
	const Tb__DoorEvent *e;

	assert_true(b->seen < b->out.events.count);
	e = b->out.events.items[b->seen++];
	assert_int_equal(e->what_case, what);
	assert_int_equal(e->session, what == TB__DOOR_EVENT__WHAT_RESET ? 0 : 77);
	return e;
}

static struct qnet_message preinit(const char *name)
{
	return (struct qnet_message){.type = QNET_PREINIT,
				     .has = SEQ | QNET_HAS(QNET_OPT_CLUSTER_NAME),
				     .seq = 41,
				     .name = (const uint8_t *)name,
				     .name_len = (uint16_t)strlen(name)};
}

static const struct qnet_message init_message = {
	.type = QNET_INIT,
	.has = SEQ | QNET_HAS(QNET_OPT_SUPPORTED_MESSAGES) | QNET_HAS(QNET_OPT_SUPPORTED_OPTIONS) |
	       QNET_HAS(QNET_OPT_NODE_ID) | QNET_HAS(QNET_OPT_ALGORITHM) |
	       QNET_HAS(QNET_OPT_HEARTBEAT_INTERVAL) | QNET_HAS(QNET_OPT_TIE_BREAKER) |
	       QNET_HAS(QNET_OPT_RING_ID),
	.seq = 42,
	.node_id = 1,
	.algorithm = QNET_ALGORITHM_FFSPLIT,
	.heartbeat_ms = 8000,
	.tie_breaker = QNET_TIE_NODE,
	.tie_breaker_node = 2,
	.ring = {1, 5},
};

static const struct qnet_message config_message = {
	.type = QNET_NODE_LIST,
	.has = SEQ | QNET_HAS(QNET_OPT_NODE_LIST_TYPE) | QNET_HAS(QNET_OPT_CONFIG_VERSION),
	.seq = 44,
	.list = QNET_LIST_INITIAL,
	.config_version = 9,
	.node_count = 2,
	.nodes = {{.id = 1}, {.id = 2}},
};

static const struct qnet_message membership_message = {
	.type = QNET_NODE_LIST,
	.has = SEQ | QNET_HAS(QNET_OPT_NODE_LIST_TYPE) | QNET_HAS(QNET_OPT_RING_ID) |
	       QNET_HAS(QNET_OPT_HEURISTICS),
	.seq = 45,
	.list = QNET_LIST_MEMBERSHIP,
	.ring = {1, 9},
	.heuristics = QNET_HEURISTICS_PASS,
	.node_count = 1,
	.nodes = {{.id = 1}},
};

static const struct qnet_message quorum_message = {
	.type = QNET_NODE_LIST,
	.has = SEQ | QNET_HAS(QNET_OPT_NODE_LIST_TYPE) | QNET_HAS(QNET_OPT_QUORATE),
	.seq = 46,
	.list = QNET_LIST_QUORUM,
	.quorate = true,
	.node_count = 1,
	.nodes = {{.id = 1, .state = QNET_NODE_MEMBER}},
};

static void greet(struct bench *b)
{
	struct qnet_message m = preinit("labcluster");

	say(b, &m);
	next_reply(b, QNET_PREINIT_REPLY);
}

static void order_init_reply(struct bench *b, uint32_t error)
{
	Tb__DoorInitReply r = TB__DOOR_INIT_REPLY__INIT;
	Tb__DoorOrder o = TB__DOOR_ORDER__INIT;

	r.seq = 42;
	r.error = error;
	o.session = 77;
	o.what_case = TB__DOOR_ORDER__WHAT_INIT_REPLY;
	o.init_reply = &r;
	order(b, &o);
}

static void order_vote(struct bench *b, uint64_t ticket, Tb__Vote vote)
{
	Tb__RingId ring = TB__RING_ID__INIT;
	Tb__DoorVote v = TB__DOOR_VOTE__INIT;
	Tb__DoorOrder o = TB__DOOR_ORDER__INIT;

	ring.node = 1;
	ring.seq = 9;
	v.ticket = ticket;
	v.ring = &ring;
	v.vote = vote;
	o.session = 77;
	o.what_case = TB__DOOR_ORDER__WHAT_VOTE;
	o.vote = &v;
	order(b, &o);
}

static void ask(struct bench *b)
{
	greet(b);
	say(b, &init_message);
	assert_int_equal(b->session.state, QNET_ASKED);
	next_event(b, TB__DOOR_EVENT__WHAT_OPEN);
}

static void open(struct bench *b)
{
	ask(b);
	order_init_reply(b, 0);
	assert_int_equal(b->session.state, QNET_OPEN);
	assert_int_equal(next_reply(b, QNET_INIT_REPLY).error, 0);
}

/* --- cases --- */

static void test_handshake(void **state)
{
	struct bench *b = bench_new();
	struct qnet_message m = preinit("labcluster");
	const Tb__DoorOpen *asked;

	(void)state;
	say(b, &m);
	m = next_reply(b, QNET_PREINIT_REPLY);
	assert_int_equal(m.seq, 41);
	assert_int_equal(m.tls_supported, QNET_TLS_SUPPORTED);
	assert_true(m.tls_client_cert_required);
	say(b, &init_message);
	asked = next_event(b, TB__DOOR_EVENT__WHAT_OPEN)->open;
	assert_int_equal(asked->seq, 42);
	assert_string_equal(asked->site, "labcluster");
	assert_int_equal(asked->node->node_id, 1);
	assert_string_equal(asked->node->address, "10.0.0.1:3434");
	assert_int_equal(asked->node->board, 3);
	assert_false(asked->node->tls);
	assert_int_equal(asked->node->heartbeat_ms, 8000);
	assert_int_equal(asked->node->algorithm, TB__ALGORITHM__ALGORITHM_FFSPLIT);
	assert_int_equal(asked->node->tie_breaker, TB__TIE_BREAKER__TIE_BREAKER_NODE);
	assert_int_equal(asked->node->tie_breaker_node, 2);
	assert_int_equal(asked->node->ring->seq, 5);
	order_init_reply(b, 0);
	m = next_reply(b, QNET_INIT_REPLY);
	assert_int_equal(m.seq, 42);
	assert_int_equal(m.error, 0);
	assert_true(m.supported_messages == QNET_ALL_MESSAGES);
	assert_true(m.supported_options == QNET_ALL_OPTIONS);
	assert_int_equal(m.supported_algorithms, 0xf);
	assert_int_equal(m.maximum_request_size, 32768);
	assert_int_equal(m.maximum_reply_size, 32768);
	bench_free(b);
}

/* Real clients send four messages in one go; a network may deliver them byte by byte. */
static void test_pipelined_in_any_pieces(void **state)
{
	static const struct qnet_message set = {
		.type = QNET_SET_OPTION,
		.has = SEQ | QNET_HAS(QNET_OPT_KEEP_ACTIVE_PARTITION),
		.seq = 43,
		.keep_active_partition = true};
	struct buf wire = {0};

	(void)state;
	qnet_encode(&set, &wire);
	qnet_encode(&config_message, &wire);
	qnet_encode(&membership_message, &wire);
	qnet_encode(&quorum_message, &wire);
	for (size_t piece = 1; piece <= wire.len; piece = piece < 20 ? piece + 1 : piece * 2) {
		struct bench *b = bench_new();
		const Tb__DoorList *list;
		struct qnet_message m;

		open(b);
		for (size_t at = 0; at < wire.len; at += piece)
			feed(b, wire.data + at, wire.len - at < piece ? wire.len - at : piece);
		m = next_reply(b, QNET_SET_OPTION_REPLY);
		assert_int_equal(m.seq, 43);
		assert_int_equal(m.has, set.has);
		assert_true(m.keep_active_partition);
		assert_true(
			next_event(b, TB__DOOR_EVENT__WHAT_OPTION)->option->keep_active_partition);
		list = next_event(b, TB__DOOR_EVENT__WHAT_LIST)->list;
		assert_int_equal(list->kind, TB__DOOR_LIST__KIND__INITIAL_CONFIG);
		assert_int_equal(list->seq, 44);
		assert_int_equal(list->n_nodes, 2);
		assert_int_equal(list->nodes[1], 2);
		assert_true(list->config_version_set);
		assert_int_equal(list->config_version, 9);
		list = next_event(b, TB__DOOR_EVENT__WHAT_LIST)->list;
		assert_int_equal(list->kind, TB__DOOR_LIST__KIND__MEMBERSHIP);
		assert_int_equal(list->ring->node, 1);
		assert_int_equal(list->ring->seq, 9);
		assert_int_equal(list->heuristics, TB__HEURISTICS__HEURISTICS_PASS);
		list = next_event(b, TB__DOOR_EVENT__WHAT_LIST)->list;
		assert_int_equal(list->kind, TB__DOOR_LIST__KIND__QUORUM);
		assert_true(list->quorate);
		assert_int_equal(b->session.partial.cap, 0);
		bench_free(b);
	}
	buf_free(&wire);
}

/* What stands behind STARTTLS is TLS's, also in the same segment. */
static void test_starttls_leaves_the_rest(void **state)
{
	static const struct qnet_message start = {.type = QNET_STARTTLS, .has = SEQ, .seq = 42};
	struct bench *b = bench_new();
	struct buf wire = {0};
	size_t message;

	(void)state;
	greet(b);
	qnet_encode(&start, &wire);
	message = wire.len;
	buf_append(&wire, "\x16\x03\x01\x02\x00\x01", 6);
	feed(b, wire.data, wire.len);
	assert_int_equal(b->verdict, QNET_START_TLS);
	assert_int_equal(b->used, message);
	assert_int_equal(b->session.state, QNET_SECURING);
	buf_free(&wire);
	bench_free(b);
}

static void test_certificates(void **state)
{
	static const struct {
		bool required;
		const char *serial;
		bool named;
		enum qnet_verdict verdict;
		bool kept;
	} cases[] = {
		{true, "aa", true, QNET_GO_ON, true},	 {true, NULL, false, QNET_CLOSE, false},
		{true, "aa", false, QNET_CLOSE, false},	 {false, NULL, false, QNET_GO_ON, false},
		{false, "aa", false, QNET_GO_ON, false}, {false, "aa", true, QNET_GO_ON, true},
	};
	static const struct qnet_message start = {.type = QNET_STARTTLS, .has = SEQ, .seq = 42};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bench *b = bench_new();

		b->site.certificate = cases[i].required;
		greet(b);
		say(b, &start);
		assert_int_equal(
			qnet_session_secured(&b->session, cases[i].serial, cases[i].named, &b->out),
			cases[i].verdict);
		assert_int_equal(b->session.serial != NULL, cases[i].kept);
		if (cases[i].verdict == QNET_GO_ON) {
			say(b, &init_message);
			assert_true(next_event(b, TB__DOOR_EVENT__WHAT_OPEN)->open->node->tls);
		}
		bench_free(b);
	}
}

/* Each error of the protocol: what is sent in which state, and what comes of it. */
static void test_errors(void **state)
{
	static const struct qnet_message start = {.type = QNET_STARTTLS, .has = SEQ, .seq = 7};
	static const struct qnet_message echo = {.type = QNET_ECHO_REQUEST, .has = SEQ, .seq = 7};
	static const struct qnet_message set = {.type = QNET_SET_OPTION, .has = SEQ, .seq = 7};
	static const struct qnet_message bare_list = {.type = QNET_NODE_LIST};
	static const struct qnet_message no_ring = {.type = QNET_NODE_LIST,
						    .has = SEQ | QNET_HAS(QNET_OPT_NODE_LIST_TYPE),
						    .seq = 7,
						    .list = QNET_LIST_MEMBERSHIP};
	static const struct qnet_message bare_vote = {.type = QNET_VOTE_INFO_REPLY};
	static const struct qnet_message bare_heuristics = {.type = QNET_HEURISTICS_CHANGE,
							    .has = SEQ};
	static const struct qnet_message bare_preinit = {
		.type = QNET_PREINIT, .has = SEQ, .seq = 7};
	static const struct qnet_message servers = {.type = QNET_VOTE_INFO, .has = SEQ, .seq = 7};
	static const struct qnet_message late_preinit = {.type = QNET_PREINIT,
							 .has = QNET_HAS(QNET_OPT_CLUSTER_NAME),
							 .name = (const uint8_t *)"other",
							 .name_len = 5};
	static const struct {
		void (*reach)(struct bench *b);
		const struct qnet_message *message;
		enum qnet_verdict verdict;
		int error; /* -1: nothing is said */
	} cases[] = {
		{NULL, &start, QNET_GO_ON, QNET_ERROR_PREINIT_REQUIRED},
		{NULL, &bare_preinit, QNET_GO_ON, QNET_ERROR_OPTION_MISSING},
		{NULL, &echo, QNET_GO_ON, QNET_ERROR_INIT_REQUIRED},
		{NULL, &servers, QNET_GO_ON, QNET_ERROR_UNEXPECTED_MESSAGE},
		{greet, &echo, QNET_GO_ON, QNET_ERROR_INIT_REQUIRED},
		{greet, &set, QNET_GO_ON, QNET_ERROR_INIT_REQUIRED},
		{greet, &bare_list, QNET_GO_ON, QNET_ERROR_INIT_REQUIRED},
		{ask, &echo, QNET_GO_ON, QNET_ERROR_INIT_REQUIRED},
		{ask, &init_message, QNET_CLOSE, -1},
		{ask, &late_preinit, QNET_CLOSE, -1},
		{open, &init_message, QNET_CLOSE, -1},
		{open, &late_preinit, QNET_CLOSE, -1},
		{open, &start, QNET_CLOSE, -1},
		{open, &bare_list, QNET_GO_ON, QNET_ERROR_OPTION_MISSING},
		{open, &no_ring, QNET_GO_ON, QNET_ERROR_OPTION_MISSING},
		{open, &bare_vote, QNET_GO_ON, QNET_ERROR_OPTION_MISSING},
		{open, &bare_heuristics, QNET_GO_ON, QNET_ERROR_OPTION_MISSING},
		{open, &servers, QNET_GO_ON, QNET_ERROR_UNEXPECTED_MESSAGE},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bench *b = bench_new();

		if (cases[i].reach != NULL)
			cases[i].reach(b);
		say(b, cases[i].message);
		assert_int_equal(b->verdict, cases[i].verdict);
		if (cases[i].error >= 0) {
			struct qnet_message m = next_reply(b, QNET_SERVER_ERROR);

			assert_int_equal(m.error, cases[i].error);
			assert_int_equal(m.has & SEQ, cases[i].message->has & SEQ);
			assert_int_equal(m.seq, cases[i].message->seq);
		} else {
			assert_non_null(b->out.why);
		}
		bench_free(b);
	}
}

static void test_init_refused_by_the_door(void **state)
{
	static const struct {
		uint32_t drop; /* options left out */
		uint32_t heartbeat_ms;
		uint16_t algorithm;
		enum qnet_error error;
	} cases[] = {
		{QNET_HAS(QNET_OPT_NODE_ID), 8000, 1, QNET_ERROR_OPTION_MISSING},
		{QNET_HAS(QNET_OPT_ALGORITHM), 8000, 1, QNET_ERROR_OPTION_MISSING},
		{QNET_HAS(QNET_OPT_HEARTBEAT_INTERVAL), 8000, 1, QNET_ERROR_OPTION_MISSING},
		{QNET_HAS(QNET_OPT_TIE_BREAKER), 8000, 1, QNET_ERROR_OPTION_MISSING},
		{QNET_HAS(QNET_OPT_RING_ID), 8000, 1, QNET_ERROR_OPTION_MISSING},
		{0, 999, 1, QNET_ERROR_HEARTBEAT},
		{0, 120001, 1, QNET_ERROR_HEARTBEAT},
		{0, 8000, QNET_ALGORITHM_TEST, QNET_ERROR_ALGORITHM},
		{0, 8000, 4, QNET_ERROR_ALGORITHM},
	};
	struct bench *b;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct qnet_message m = init_message;

		b = bench_new();
		m.has &= ~cases[i].drop;
		m.heartbeat_ms = cases[i].heartbeat_ms;
		m.algorithm = cases[i].algorithm;
		greet(b);
		say(b, &m);
		m = next_reply(b, QNET_INIT_REPLY);
		assert_int_equal(m.error, cases[i].error);
		assert_int_equal(m.seq, 42);
		assert_int_equal(b->verdict, QNET_GO_ON);
		assert_int_equal(b->session.state, QNET_REFUSED);
		bench_free(b);
	}
	b = bench_new();
	say(b, &init_message);
	assert_int_equal(next_reply(b, QNET_INIT_REPLY).error, QNET_ERROR_PREINIT_REQUIRED);
	bench_free(b);
}

static void test_init_refused_by_the_arbiter(void **state)
{
	struct bench *b = bench_new();

	(void)state;
	ask(b);
	order_init_reply(b, QNET_ERROR_DUPLICATE_NODE_ID);
	assert_int_equal(next_reply(b, QNET_INIT_REPLY).error, QNET_ERROR_DUPLICATE_NODE_ID);
	assert_int_equal(b->session.state, QNET_REFUSED);
	/* Nothing more is owed to the arbiter, nothing is taken from the client. */
	qnet_session_close(&b->session, TB__DOOR_CLOSED__REASON__BY_CLIENT, 0, &b->out);
	bench_free(b);
}

static void test_tls_required(void **state)
{
	struct bench *b = bench_new();

	(void)state;
	b->site.tls = QNET_TLS_REQUIRED;
	greet(b);
	say(b, &init_message);
	expect_error(b, QNET_ERROR_TLS_REQUIRED);
	assert_int_equal(b->session.state, QNET_GREETED);
	bench_free(b);
}

static void test_tls_not_offered(void **state)
{
	static const struct qnet_message start = {.type = QNET_STARTTLS, .has = SEQ, .seq = 7};
	struct bench *b = bench_new();

	(void)state;
	b->site.tls = QNET_TLS_UNSUPPORTED;
	greet(b);
	say(b, &start);
	assert_int_equal(b->verdict, QNET_CLOSE);
	bench_free(b);
}

static void test_second_name_before_init(void **state)
{
	struct bench *b = bench_new();
	struct qnet_message m = preinit("second");

	(void)state;
	greet(b);
	say(b, &m);
	next_reply(b, QNET_PREINIT_REPLY);
	assert_string_equal(b->session.site, "second");
	bench_free(b);
}

/* A name can never be mistaken for that of another site. */
static void test_names(void **state)
{
	char long_name[66];
	const struct {
		const char *name;
		size_t len;
		const char *site;
	} cases[] = {
		{"store-17.emea_x", 15, "store-17.emea_x"},
		{"", 0, "?"},
		{"-a", 2, "?a"},
		{"a b", 3, "a?b"},
		{"good\0bad", 8, "good?bad"},
		{"good\0", 5, "good?"},
		{"gr\303\274n", 5, "gr??n"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bench *b = bench_new();
		struct qnet_message m = preinit("x");

		m.name = (const uint8_t *)cases[i].name;
		m.name_len = (uint16_t)cases[i].len;
		say(b, &m);
		next_reply(b, QNET_PREINIT_REPLY);
		assert_string_equal(b->session.site, cases[i].site);
		bench_free(b);
	}
	for (size_t len = 64; len <= 65; len++) {
		struct bench *b = bench_new();
		struct qnet_message m;

		memset(long_name, 'a', len);
		long_name[len] = '\0';
		m = preinit(long_name);
		say(b, &m);
		next_reply(b, QNET_PREINIT_REPLY);
		assert_int_equal(strlen(b->session.site), len);
		assert_int_equal(b->session.site[len - 1], len == 64 ? 'a' : '?');
		bench_free(b);
	}
}

static void test_unreadable_model(void **state)
{
	struct bench *b = bench_new();
	struct qnet_message m = preinit("labcluster");

	(void)state;
	b->model_error = -EIO;
	say(b, &m);
	assert_int_equal(b->verdict, QNET_CLOSE); /* never an error: clients would end for good */
	bench_free(b);
}

/* What cannot be read is answered once, skipped, and the next message is understood. */
static void test_skipped_bodies(void **state)
{
	static const struct {
		const char *head;
		enum qnet_error error;
	} cases[] = {
		{"\x00\x08\x00\x00\x7f\xfb", QNET_ERROR_MESSAGE_TOO_LONG},
		{"\x00\x08\x00\x10\x00\x00", QNET_ERROR_MESSAGE_TOO_LONG},
		{"\x00\x12\x00\x00\x00\x20", QNET_ERROR_UNSUPPORTED_MESSAGE},
		{"\x00\x12\x00\x00\x00\x00", QNET_ERROR_UNSUPPORTED_MESSAGE},
		{"\xff\xff\x00\x00\x7f\xfa", QNET_ERROR_UNSUPPORTED_MESSAGE},
	};
	static const size_t pieces[] = {1, 5, 6, 7, 100, 65536};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (size_t p = 0; p < sizeof(pieces) / sizeof(pieces[0]); p++) {
			struct bench *b = bench_new();
			struct qnet_message m = preinit("labcluster");
			size_t body = qnet_head_read((const uint8_t *)cases[i].head).body;
			struct buf wire = {0};

			buf_append(&wire, cases[i].head, QNET_HEAD);
			memset(buf_reserve(&wire, body), 0, body);
			wire.len += body;
			qnet_encode(&m, &wire);
			for (size_t at = 0; at < wire.len; at += pieces[p]) {
				feed(b, wire.data + at,
				     wire.len - at < pieces[p] ? wire.len - at : pieces[p]);
				assert_true(b->session.partial.len <= QNET_MESSAGE_MAX);
			}
			m = next_reply(b, QNET_SERVER_ERROR);
			assert_int_equal(m.error, cases[i].error);
			assert_int_equal(m.has & SEQ, 0);
			next_reply(b, QNET_PREINIT_REPLY);
			buf_free(&wire);
			bench_free(b);
		}
	}
}

static void test_undecodable(void **state)
{
	struct bench *b = bench_new();

	(void)state;
	open(b);
	feed(b, "\x00\x0a\x00\x00\x00\x05\x00\x12\x00\x01\x09", 11);
	expect_error(b, QNET_ERROR_DECODING);
	assert_int_equal(b->session.state, QNET_OPEN);
	bench_free(b);
}

static void test_echo_and_silence(void **state)
{
	static const struct {
		bool fast;
		uint64_t patience_ms;
	} cases[] = {{false, 16410}, {true, 12370}};
	/* An option that we do not know comes back too. */
	static const char request[] = "\x00\x08\x00\x00\x00\x0e\x00\x99\x00\x02\xab\xcd"
				      "\x00\x00\x00\x04\x00\x00\x00\x01";

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bench *b = bench_new();

		b->site.fast = cases[i].fast;
		ask(b);
		assert_true(b->session.deadline_ms == 1000000 + QNET_INIT_DEADLINE_MS);
		b->world.now_ms += 3000;
		order_init_reply(b, 0);
		next_reply(b, QNET_INIT_REPLY);
		assert_true(b->session.deadline_ms == b->world.now_ms + cases[i].patience_ms);
		b->world.now_ms += 8000;
		/* INIT_REPLY may have been on its way until now. */
		say(b, &membership_message);
		next_event(b, TB__DOOR_EVENT__WHAT_LIST);
		assert_true(b->session.heard_ms == b->world.now_ms);
		feed(b, request, sizeof(request) - 1);
		assert_int_equal(b->out.wire.len - b->read, sizeof(request) - 1);
		assert_memory_equal(b->out.wire.data + b->read + 2, request + 2,
				    sizeof(request) - 3);
		assert_int_equal(next_reply(b, QNET_ECHO_REPLY).seq, 1);
		assert_true(b->session.deadline_ms == b->world.now_ms + cases[i].patience_ms);
		b->world.now_ms += 8000;
		say(b, &membership_message); /* life, but no heartbeat: the client counts echoes */
		next_event(b, TB__DOOR_EVENT__WHAT_LIST);
		assert_true(b->session.heard_ms == b->world.now_ms - 8000);
		assert_int_equal(qnet_session_overdue(&b->session, &b->out), QNET_ABORT);
		qnet_session_close(&b->session, TB__DOOR_CLOSED__REASON__SILENT,
				   b->world.now_ms + 8001, &b->out);
		assert_int_equal(next_event(b, TB__DOOR_EVENT__WHAT_CLOSED)->closed->heard_age_ms,
				 16001);
		bench_free(b);
	}
}

static void test_overdue_before_init(void **state)
{
	struct bench *b = bench_new();

	(void)state;
	greet(b);
	assert_int_equal(qnet_session_overdue(&b->session, &b->out), QNET_CLOSE);
	qnet_session_close(&b->session, TB__DOOR_CLOSED__REASON__BY_DOOR, 0, &b->out);
	bench_free(b);
}

static void set_heartbeat(struct bench *b, uint32_t ms)
{
	say(b, &(struct qnet_message){.type = QNET_SET_OPTION,
				      .has = SEQ | QNET_HAS(QNET_OPT_HEARTBEAT_INTERVAL),
				      .seq = 50,
				      .heartbeat_ms = ms});
}

/* A longer interval counts at once, a shorter one when the client has shown that it knows. */
static void test_heartbeat_changes(void **state)
{
	static const struct qnet_message echo = {.type = QNET_ECHO_REQUEST, .has = SEQ, .seq = 1};
	struct bench *b = bench_new();

	(void)state;
	open(b);
	set_heartbeat(b, 999);
	expect_error(b, QNET_ERROR_HEARTBEAT);
	set_heartbeat(b, 20000);
	assert_int_equal(next_reply(b, QNET_SET_OPTION_REPLY).heartbeat_ms, 20000);
	assert_int_equal(next_event(b, TB__DOOR_EVENT__WHAT_OPTION)->option->heartbeat_ms, 20000);
	assert_true(b->session.deadline_ms == b->world.now_ms + 40650);
	set_heartbeat(b, 1000);
	assert_int_equal(next_reply(b, QNET_SET_OPTION_REPLY).heartbeat_ms, 1000);
	assert_int_equal(next_event(b, TB__DOOR_EVENT__WHAT_OPTION)->option->heartbeat_ms, 20000);
	assert_true(b->session.deadline_ms == b->world.now_ms + 40650);
	say(b, &echo);
	next_reply(b, QNET_ECHO_REPLY);
	assert_int_equal(next_event(b, TB__DOOR_EVENT__WHAT_OPTION)->option->heartbeat_ms, 1000);
	assert_true(b->session.deadline_ms == b->world.now_ms + 2270);
	bench_free(b);
}

static void vote_answered(struct bench *b, uint32_t number)
{
	say(b, &(struct qnet_message){.type = QNET_VOTE_INFO_REPLY, .has = SEQ, .seq = number});
}

static void test_votes(void **state)
{
	struct bench *b = bench_new();
	struct qnet_message m;

	(void)state;
	open(b);
	assert_true(b->session.confirmed);
	vote_answered(b, 0); /* of none */
	order_vote(b, 900, TB__VOTE__VOTE_NACK);
	m = next_reply(b, QNET_VOTE_INFO);
	assert_int_equal(m.seq, 1);
	assert_int_equal(m.vote, QNET_VOTE_NACK);
	assert_true(m.ring.node == 1 && m.ring.seq == 9);
	order_vote(b, 901, TB__VOTE__VOTE_ACK);
	assert_int_equal(next_reply(b, QNET_VOTE_INFO).seq, 2);
	vote_answered(b, 1); /* late: not what the client believes now */
	assert_false(b->session.confirmed);
	vote_answered(b, 3); /* never sent */
	assert_false(b->session.confirmed);
	vote_answered(b, 2);
	assert_int_equal(next_event(b, TB__DOOR_EVENT__WHAT_VOTE_REPLY)->vote_reply->ticket, 901);
	vote_answered(b, 2); /* once is enough */
	assert_true(b->session.confirmed);
	assert_int_equal(b->session.last_result, QNET_VOTE_ACK);
	order_vote(b, 902, (Tb__Vote)9); /* nonsense of our own side does not reach the client */
	bench_free(b);
}

static void test_replies(void **state)
{
	Tb__RingId ring = TB__RING_ID__INIT;
	Tb__DoorListReply list = TB__DOOR_LIST_REPLY__INIT;
	Tb__DoorAskReply asked = TB__DOOR_ASK_REPLY__INIT;
	Tb__DoorHeuristicsReply heuristics = TB__DOOR_HEURISTICS_REPLY__INIT;
	Tb__DoorRefuse refuse = TB__DOOR_REFUSE__INIT;
	Tb__DoorOrder o = TB__DOOR_ORDER__INIT;
	struct bench *b = bench_new();
	struct qnet_message m;

	(void)state;
	open(b);
	ring.node = 2;
	ring.seq = 0x100000000;
	o.what_case = TB__DOOR_ORDER__WHAT_LIST_REPLY;
	o.list_reply = &list;
	list.seq = 5;
	list.kind = TB__DOOR_LIST__KIND__MEMBERSHIP;
	list.ring = &ring;
	list.vote = TB__VOTE__VOTE_WAIT_FOR_REPLY;
	order(b, &o);
	m = next_reply(b, QNET_NODE_LIST_REPLY);
	assert_int_equal(m.seq, 5);
	assert_int_equal(m.list, QNET_LIST_MEMBERSHIP);
	assert_int_equal(m.vote, QNET_VOTE_WAIT_FOR_REPLY);
	assert_true(m.ring.seq == 0x100000000);
	assert_int_equal(b->session.vote, QNET_VOTE_WAIT_FOR_REPLY);
	assert_int_equal(b->session.last_result, 0);
	say(b, &(struct qnet_message){.type = QNET_ASK_FOR_VOTE, .has = SEQ, .seq = 6});
	assert_int_equal(next_event(b, TB__DOOR_EVENT__WHAT_ASK)->ask->seq, 6);
	o.what_case = TB__DOOR_ORDER__WHAT_ASK_REPLY;
	o.ask_reply = &asked;
	asked.seq = 6;
	asked.ring = &ring;
	asked.vote = TB__VOTE__VOTE_NACK;
	order(b, &o);
	assert_int_equal(next_reply(b, QNET_ASK_FOR_VOTE_REPLY).vote, QNET_VOTE_NACK);
	assert_int_equal(b->session.last_result, QNET_VOTE_NACK);
	say(b, &(struct qnet_message){.type = QNET_HEURISTICS_CHANGE,
				      .has = SEQ | QNET_HAS(QNET_OPT_HEURISTICS),
				      .seq = 8,
				      .heuristics = QNET_HEURISTICS_FAIL});
	assert_int_equal(next_event(b, TB__DOOR_EVENT__WHAT_HEURISTICS)->heuristics->heuristics,
			 TB__HEURISTICS__HEURISTICS_FAIL);
	o.what_case = TB__DOOR_ORDER__WHAT_HEURISTICS_REPLY;
	o.heuristics_reply = &heuristics;
	heuristics.seq = 8;
	heuristics.ring = &ring;
	heuristics.vote = TB__VOTE__VOTE_NO_CHANGE;
	heuristics.heuristics = TB__HEURISTICS__HEURISTICS_FAIL;
	order(b, &o);
	assert_int_equal(next_reply(b, QNET_HEURISTICS_CHANGE_REPLY).heuristics,
			 QNET_HEURISTICS_FAIL);
	o.what_case = TB__DOOR_ORDER__WHAT_REFUSE;
	o.refuse = &refuse;
	refuse.seq = 5;
	refuse.error = QNET_ERROR_MEMBERSHIP_LIST;
	order(b, &o);
	m = next_reply(b, QNET_SERVER_ERROR);
	assert_int_equal(m.seq, 5);
	assert_int_equal(m.error, QNET_ERROR_MEMBERSHIP_LIST);
	bench_free(b);
}

static void test_orders_that_come_too_late(void **state)
{
	struct bench *b = bench_new();

	(void)state;
	greet(b);
	order_vote(b, 1, TB__VOTE__VOTE_ACK);
	order_init_reply(b, 0);
	assert_int_equal(b->session.state, QNET_GREETED);
	bench_free(b);
	b = bench_new();
	open(b);
	order_init_reply(b, 0); /* a second time */
	bench_free(b);
}

static void test_close_by_the_arbiter(void **state)
{
	Tb__DoorClose close = TB__DOOR_CLOSE__INIT;
	Tb__DoorOrder o = TB__DOOR_ORDER__INIT;
	struct bench *b = bench_new();

	(void)state;
	o.what_case = TB__DOOR_ORDER__WHAT_CLOSE;
	o.close = &close;
	open(b);
	order(b, &o);
	assert_int_equal(b->verdict, QNET_ABORT);
	bench_free(b);
}

static void test_reports(void **state)
{
	struct bench *b = bench_new();
	const Tb__DoorReport *r;

	(void)state;
	qnet_session_report(&b->session, &b->world, &b->out); /* nothing to say yet */
	ask(b);
	qnet_session_report(&b->session, &b->world, &b->out);
	assert_int_equal(next_event(b, TB__DOOR_EVENT__WHAT_OPEN)->open->seq, 42);
	order_init_reply(b, 0);
	next_reply(b, QNET_INIT_REPLY);
	say(b, &config_message);
	say(b, &membership_message);
	say(b, &quorum_message);
	for (unsigned i = 0; i < 3; i++)
		next_event(b, TB__DOOR_EVENT__WHAT_LIST);
	order_vote(b, 900, TB__VOTE__VOTE_ACK);
	next_reply(b, QNET_VOTE_INFO);
	qnet_session_report(&b->session, &b->world, &b->out);
	r = next_event(b, TB__DOOR_EVENT__WHAT_REPORT)->report;
	assert_string_equal(r->site, "labcluster");
	assert_true(r->has_config && r->has_membership && r->has_quorum && r->quorate);
	assert_false(r->confirmed);
	assert_true(r->vote_ring->node == 1 && r->vote_ring->seq == 9);
	assert_int_equal(r->node->n_configured, 2);
	assert_int_equal(r->node->n_members, 1);
	assert_int_equal(r->node->ring->seq, 9);
	assert_int_equal(r->node->vote, TB__VOTE__VOTE_ACK);
	assert_int_equal(r->node->last_result, TB__VOTE__VOTE_ACK);
	assert_int_equal(r->node->heuristics, TB__HEURISTICS__HEURISTICS_PASS);
	assert_int_equal(r->node->attached_ms, 5);
	qnet_out_reset(&b->out, 1);
	assert_int_equal(next_event(b, TB__DOOR_EVENT__WHAT_RESET)->reset->sessions, 1);
	bench_free(b);
}

/* --- the wheel of deadlines --- */

struct alarm {
	struct deadline deadline;
	uint64_t at_ms;
	uint64_t rang_ms;
};

static uint64_t wheel_now;

static uint64_t alarm_look(struct deadline *item, void *arg)
{
	struct alarm *a = list_entry(item, struct alarm, deadline);

	(void)arg;
	if (a->at_ms > wheel_now)
		return a->at_ms;
	a->rang_ms = wheel_now;
	return 0;
}

static void test_deadlines(void **state)
{
	static struct deadlines wheel;
	static struct alarm alarms[1000];

	(void)state;
	wheel_now = 123456;
	deadlines_init(&wheel, wheel_now);
	for (unsigned i = 0; i < 1000; i++) {
		alarms[i].at_ms = wheel_now + i * 777; /* up to 777 s: beyond the wheel */
		deadlines_set(&wheel, &alarms[i].deadline, alarms[i].at_ms);
	}
	for (unsigned i = 0; i < 1000; i += 3) { /* some move away, some come nearer */
		alarms[i].at_ms += 60000;
		alarms[i + 1 < 1000 ? i + 1 : 0].at_ms -= 500;
		deadlines_set(&wheel, &alarms[i + 1 < 1000 ? i + 1 : 0].deadline,
			      alarms[i + 1 < 1000 ? i + 1 : 0].at_ms);
	}
	deadlines_remove(&alarms[500].deadline);
	for (; wheel_now < 123456 + 900000; wheel_now += wheel_now % 700 == 0 ? 30000 : 50)
		deadlines_pass(&wheel, wheel_now, alarm_look, NULL);
	for (unsigned i = 0; i < 1000; i++) {
		if (i == 500) {
			assert_int_equal(alarms[i].rang_ms, 0);
			continue;
		}
		assert_true(alarms[i].rang_ms >= alarms[i].at_ms);
	}
}

static void test_deadlines_are_on_time(void **state)
{
	static struct deadlines wheel;
	struct alarm a = {0};

	(void)state;
	for (unsigned i = 0; i < 500; i++) {
		wheel_now = 1000000 + i * 37;
		deadlines_init(&wheel, wheel_now);
		a = (struct alarm){.at_ms = wheel_now + i * 991};
		deadlines_set(&wheel, &a.deadline, a.at_ms);
		while (a.rang_ms == 0) {
			wheel_now += 10;
			deadlines_pass(&wheel, wheel_now, alarm_look, NULL);
		}
		assert_in_range(a.rang_ms - a.at_ms, 0, DEADLINE_SLOT_MS + 10);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_handshake),
		cmocka_unit_test(test_pipelined_in_any_pieces),
		cmocka_unit_test(test_starttls_leaves_the_rest),
		cmocka_unit_test(test_certificates),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_init_refused_by_the_door),
		cmocka_unit_test(test_init_refused_by_the_arbiter),
		cmocka_unit_test(test_tls_required),
		cmocka_unit_test(test_tls_not_offered),
		cmocka_unit_test(test_second_name_before_init),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_unreadable_model),
		cmocka_unit_test(test_skipped_bodies),
		cmocka_unit_test(test_undecodable),
		cmocka_unit_test(test_echo_and_silence),
		cmocka_unit_test(test_overdue_before_init),
		cmocka_unit_test(test_heartbeat_changes),
		cmocka_unit_test(test_votes),
		cmocka_unit_test(test_replies),
		cmocka_unit_test(test_orders_that_come_too_late),
		cmocka_unit_test(test_close_by_the_arbiter),
		cmocka_unit_test(test_reports),
		cmocka_unit_test(test_deadlines),
		cmocka_unit_test(test_deadlines_are_on_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
