/* The door's side of an agent's connection: frames in, events and frames out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/candidate.h"
#include "lib/mem.h"
#include "proto/agent.pb-c.h"
#include "proto/frame.h"
#include "witnessd/agent_session.h"

struct stage {
	struct agent_session s;
	struct agent_world w;
	struct agent_out out;
	enum agent_verdict verdict;
};

static void stage_begin(struct stage *st)
{
	*st = (struct stage){.w = {.board = 4, .board_name = "b4", .now_ms = 1000, .real_ms = 5}};
	agent_session_init(&st->s, 7, "shop", 2, "abcd", "10.0.0.1:5", st->w.now_ms);
	assert_true((st->s.id & AGENT_SESSION) != 0);
}

static void stage_end(struct stage *st)
{
	agent_out_free(&st->out);
	agent_session_free(&st->s);
}

static void say(struct stage *st, Tb__AgentFrame__WhatCase what, void *message)
{
	Tb__AgentFrame frame = TB__AGENT_FRAME__INIT;
	struct buf bytes = {0};

	frame.what_case = what;
	switch (what) {
	case TB__AGENT_FRAME__WHAT_HELLO:
		frame.hello = message;
		break;
	case TB__AGENT_FRAME__WHAT_CLAIM:
		frame.claim = message;
		break;
	case TB__AGENT_FRAME__WHAT_RENEW:
		frame.renew = message;
		break;
	default:
		frame.confirm = message;
		break;
	}
	frame_append(&bytes, &frame.base);
	/* In pieces: a frame may come in any. */
	for (size_t i = 0; i < bytes.len; i++)
		st->verdict = agent_session_receive(&st->s, &st->w, bytes.data + i, 1, &st->out);
	buf_free(&bytes);
}

struct hello {
	Tb__AgentHello hello;
	Tb__AgentClaim claim;
	uint32_t nodes[LIMIT_SITE_NODES + 1];
};

static void hello_make(struct hello *h)
{
	tb__agent_hello__init(&h->hello);
	tb__agent_claim__init(&h->claim);
	h->hello.node = 2;
	h->hello.name = (char *)"host";
	h->hello.lease_ms = 4000;
	h->hello.instance = 9;
	h->hello.attempt = 3;
	h->hello.claim = &h->claim;
	h->nodes[0] = 1;
	h->nodes[1] = 2;
	h->hello.nodes = h->nodes;
	h->hello.n_nodes = 2;
	h->claim.number = 50;
	h->claim.wanted = true;
}

static void order(struct stage *st, Tb__DoorOrder *o)
{
	o->session = st->s.id;
	st->verdict = agent_session_order(&st->s, &st->w, o, &st->out);
}

static void order_init(struct stage *st, uint32_t error, const char *why)
{
	Tb__DoorOrder o = TB__DOOR_ORDER__INIT;
	Tb__DoorInitReply reply = TB__DOOR_INIT_REPLY__INIT;

	reply.error = error;
	reply.why = (char *)why;
	o.what_case = TB__DOOR_ORDER__WHAT_INIT_REPLY;
	o.init_reply = &reply;
	order(st, &o);
}

static void order_vote(struct stage *st, Tb__Vote vote, uint64_t ticket, uint64_t claim)
{
	Tb__DoorOrder o = TB__DOOR_ORDER__INIT;
	Tb__DoorVote v = TB__DOOR_VOTE__INIT;
	Tb__RingId ring = TB__RING_ID__INIT;

	ring.node = 2;
	ring.seq = 6;
	v.ring = &ring;
	v.vote = vote;
	v.ticket = ticket;
	v.claim = claim;
	v.epoch = vote == TB__VOTE__VOTE_ACK ? 6 : 0;
	v.why = (char *)"because";
	o.what_case = TB__DOOR_ORDER__WHAT_VOTE;
	o.vote = &v;
	order(st, &o);
}

/* The newest frame that was sent; the caller frees it. */
static Tb__BoardFrame *heard(struct stage *st)
{
	ProtobufCMessage *frame = NULL;
	const uint8_t *payload;
	size_t payload_len, frame_len;
	size_t used = 0;

	while (frame_next(st->out.wire.data + used, st->out.wire.len - used, FRAME_MAX, &payload,
			  &payload_len, &frame_len) == 1) {
		protobuf_c_message_free_unpacked(frame, NULL);
		assert_int_equal(frame_unpack(&tb__board_frame__descriptor, payload, payload_len,
					      1 << 20, &frame),
				 0);
		used += frame_len;
	}
	assert_non_null(frame);
	return (Tb__BoardFrame *)frame;
}

static const Tb__DoorEvent *told(const struct stage *st, Tb__DoorEvent__WhatCase what)
{
	const Tb__DoorEvent *e;

	assert_true(st->out.events.count > 0);
	e = st->out.events.items[st->out.events.count - 1];
	assert_int_equal(e->what_case, what);
	assert_true(e->session == st->s.id);
	return e;
}

static void open_session(struct stage *st)
{
	struct hello h;

	stage_begin(st);
	hello_make(&h);
	say(st, TB__AGENT_FRAME__WHAT_HELLO, &h.hello);
	assert_int_equal(st->s.state, AGENT_ASKED);
	order_init(st, 0, "");
	assert_int_equal(st->s.state, AGENT_OPEN);
}

static void test_hello(void **state)
{
	const Tb__SiteNode *n;
	Tb__BoardFrame *frame;
	struct stage st;

	(void)state;
	open_session(&st);
	n = told(&st, TB__DOOR_EVENT__WHAT_OPEN)->open->node;
	assert_string_equal(told(&st, TB__DOOR_EVENT__WHAT_OPEN)->open->site, "shop");
	assert_int_equal(n->algorithm, TB__ALGORITHM__ALGORITHM_LEASE);
	assert_int_equal(n->node_id, 2);
	assert_int_equal(n->claim, 50);
	assert_true(n->wanted && n->tls && n->certificate);
	frame = heard(&st);
	assert_int_equal(frame->what_case, TB__BOARD_FRAME__WHAT_WELCOME);
	assert_string_equal(frame->welcome->board, "b4");
	tb__board_frame__free_unpacked(frame, NULL);
	assert_int_equal(st.s.deadline_ms, 1000 + candidate_own_timeout_ms(4000));
	stage_end(&st);
}

static void test_renew(void **state)
{
	Tb__AgentRenew renew = TB__AGENT_RENEW__INIT;
	Tb__BoardFrame *frame;
	struct stage st;

	(void)state;
	open_session(&st);
	st.w.now_ms = 2500;
	renew.number = 8;
	say(&st, TB__AGENT_FRAME__WHAT_RENEW, &renew);
	frame = heard(&st);
	assert_int_equal(frame->what_case, TB__BOARD_FRAME__WHAT_RENEWED);
	assert_int_equal(frame->renewed->number, 8);
	tb__board_frame__free_unpacked(frame, NULL);
	assert_int_equal(st.s.deadline_ms, 2500 + candidate_own_timeout_ms(4000));
	/* How long ago the last answer was is what the arbiter counts from. */
	agent_session_close(&st.s, TB__DOOR_CLOSED__REASON__BY_CLIENT, 3100, &st.out);
	assert_int_equal(told(&st, TB__DOOR_EVENT__WHAT_CLOSED)->closed->heard_age_ms, 600);
	stage_end(&st);
}

static void test_votes(void **state)
{
	Tb__AgentConfirm confirm = TB__AGENT_CONFIRM__INIT;
	const Tb__DoorReport *report;
	Tb__BoardFrame *frame;
	struct stage st;
	size_t events;

	(void)state;
	open_session(&st);
	order_vote(&st, TB__VOTE__VOTE_ACK, 31, 50);
	frame = heard(&st);
	assert_true(frame->lease->yours);
	assert_int_equal(frame->lease->epoch, 6);
	assert_int_equal(frame->lease->claim, 50);
	tb__board_frame__free_unpacked(frame, NULL);
	/* An unconfirmed vote is reported as such; a stale confirmation is none. */
	agent_session_report(&st.s, &st.w, &st.out);
	report = told(&st, TB__DOOR_EVENT__WHAT_REPORT)->report;
	assert_false(report->confirmed);
	assert_int_equal(report->node->last_result, TB__VOTE__VOTE_ACK);
	assert_int_equal(report->node->ring->seq, 6);
	events = st.out.events.count;
	confirm.ticket = 30;
	say(&st, TB__AGENT_FRAME__WHAT_CONFIRM, &confirm);
	assert_int_equal(st.out.events.count, events);
	confirm.ticket = 31;
	say(&st, TB__AGENT_FRAME__WHAT_CONFIRM, &confirm);
	assert_int_equal(told(&st, TB__DOOR_EVENT__WHAT_VOTE_REPLY)->vote_reply->ticket, 31);
	say(&st, TB__AGENT_FRAME__WHAT_CONFIRM, &confirm);
	assert_int_equal(st.out.events.count, events + 1);
	agent_session_report(&st.s, &st.w, &st.out);
	assert_true(told(&st, TB__DOOR_EVENT__WHAT_REPORT)->report->confirmed);
	stage_end(&st);
}

static void test_claims(void **state)
{
	Tb__AgentClaim claim = TB__AGENT_CLAIM__INIT;
	uint32_t seen[LIMIT_SITE_NODES + 1] = {1};
	const Tb__DoorClaim *c;
	struct stage st;

	(void)state;
	open_session(&st);
	order_vote(&st, TB__VOTE__VOTE_ACK, 31, 50);
	claim.number = 50;
	claim.wanted = true;
	claim.epoch = 6;
	claim.generation = 12;
	claim.seen = seen;
	claim.n_seen = 1;
	say(&st, TB__AGENT_FRAME__WHAT_CLAIM, &claim);
	c = told(&st, TB__DOOR_EVENT__WHAT_CLAIM)->claim;
	assert_int_equal(c->held_epoch, 6);
	assert_int_equal(c->generation, 12);
	assert_int_equal(st.s.ring_seq, 6);
	/* The arbiter numbers a new claim anew. */
	claim.number = 51;
	say(&st, TB__AGENT_FRAME__WHAT_CLAIM, &claim);
	assert_int_equal(st.s.ring_seq, 0);
	/* A vote for the claim before does not number it. */
	order_vote(&st, TB__VOTE__VOTE_NACK, 32, 50);
	assert_int_equal(st.s.ring_seq, 0);
	claim.number = 50;
	say(&st, TB__AGENT_FRAME__WHAT_CLAIM, &claim);
	assert_int_equal(st.verdict, AGENT_CLOSE);
	stage_end(&st);
}

static void refused(void (*spoil)(struct hello *h), const char *words)
{
	Tb__BoardFrame *frame;
	struct hello h;
	struct stage st;

	stage_begin(&st);
	hello_make(&h);
	spoil(&h);
	say(&st, TB__AGENT_FRAME__WHAT_HELLO, &h.hello);
	assert_int_equal(st.verdict, AGENT_CLOSE);
	assert_int_equal(st.out.events.count, 0);
	frame = heard(&st);
	assert_int_equal(frame->what_case, TB__BOARD_FRAME__WHAT_REFUSED);
	if (strstr(frame->refused->why, words) == NULL)
		fail_msg("%s", frame->refused->why);
	tb__board_frame__free_unpacked(frame, NULL);
	stage_end(&st);
}

static void other_node(struct hello *h)
{
	h->hello.node = 3;
}

static void no_claim(struct hello *h)
{
	h->hello.claim = NULL;
}

static void no_instance(struct hello *h)
{
	h->hello.instance = 0;
}

static void escape_in_name(struct hello *h)
{
	h->hello.name = (char *)"a\033[2J";
}

static void many_nodes(struct hello *h)
{
	h->hello.n_nodes = LIMIT_SITE_NODES + 1;
}

static void short_lease(struct hello *h)
{
	h->hello.lease_ms = LEASE_MIN_MS - 1;
}

static void long_lease(struct hello *h)
{
	h->hello.lease_ms = LEASE_MAX_MS + 1;
}

static void test_bad_hello(void **state)
{
	(void)state;
	refused(other_node, "not the one of its certificate");
	refused(no_claim, "not complete");
	refused(no_instance, "not complete");
	refused(escape_in_name, "not complete");
	refused(many_nodes, "too long");
	refused(short_lease, "3 s to 120 s");
	refused(long_lease, "3 s to 120 s");
}

static void test_refused_by_the_arbiter(void **state)
{
	Tb__BoardFrame *frame;
	struct hello h;
	struct stage st;
	size_t events;

	(void)state;
	stage_begin(&st);
	hello_make(&h);
	say(&st, TB__AGENT_FRAME__WHAT_HELLO, &h.hello);
	events = st.out.events.count;
	order_init(&st, 16, "for this reason");
	assert_int_equal(st.verdict, AGENT_CLOSE);
	frame = heard(&st);
	assert_string_equal(frame->refused->why, "for this reason");
	tb__board_frame__free_unpacked(frame, NULL);
	/* It has forgotten it already. */
	agent_session_close(&st.s, TB__DOOR_CLOSED__REASON__BY_DOOR, 1000, &st.out);
	assert_int_equal(st.out.events.count, events);
	stage_end(&st);
}

static void test_order(void **state)
{
	Tb__AgentRenew renew = TB__AGENT_RENEW__INIT;
	struct stage st;
	struct hello h;

	(void)state;
	/* Nothing before the hello, nothing before the welcome, no second hello. */
	stage_begin(&st);
	say(&st, TB__AGENT_FRAME__WHAT_RENEW, &renew);
	assert_int_equal(st.verdict, AGENT_CLOSE);
	stage_end(&st);
	stage_begin(&st);
	hello_make(&h);
	say(&st, TB__AGENT_FRAME__WHAT_HELLO, &h.hello);
	say(&st, TB__AGENT_FRAME__WHAT_RENEW, &renew);
	assert_int_equal(st.verdict, AGENT_CLOSE);
	stage_end(&st);
	/* Votes wait for the welcome. */
	stage_begin(&st);
	say(&st, TB__AGENT_FRAME__WHAT_HELLO, &h.hello);
	order_vote(&st, TB__VOTE__VOTE_ACK, 1, 50);
	assert_int_equal(st.out.wire.len, 0);
	stage_end(&st);
}

static void test_nonsense(void **state)
{
	static const uint8_t huge[] = {0x7f, 0, 0, 0, 1};
	static const uint8_t bad[] = {0, 0, 0, 2, 0xff, 0xff};
	struct stage st;

	(void)state;
	stage_begin(&st);
	assert_int_equal(agent_session_receive(&st.s, &st.w, huge, sizeof(huge), &st.out),
			 AGENT_ABORT);
	stage_end(&st);
	stage_begin(&st);
	assert_int_equal(agent_session_receive(&st.s, &st.w, bad, sizeof(bad), &st.out),
			 AGENT_ABORT);
	stage_end(&st);
}

static void test_flood(void **state)
{
	Tb__AgentRenew renew = TB__AGENT_RENEW__INIT;
	unsigned taken = 0;
	struct stage st;

	(void)state;
	open_session(&st);
	while (st.verdict == AGENT_GO_ON && taken < 1000) {
		say(&st, TB__AGENT_FRAME__WHAT_RENEW, &renew);
		taken++;
	}
	assert_true(taken > 50 && taken < 200);
	stage_end(&st);
	/* The rate that an agent has is no flood. */
	open_session(&st);
	for (unsigned i = 0; i < 1000; i++) {
		st.w.now_ms += 500;
		say(&st, TB__AGENT_FRAME__WHAT_RENEW, &renew);
		assert_int_equal(st.verdict, AGENT_GO_ON);
	}
	stage_end(&st);
}

static void test_uri(void **state)
{
	static const char *const bad[] = {"",
					  "tiebreak:agent/",
					  "tiebreak:agent/shop",
					  "tiebreak:agent/shop/",
					  "tiebreak:agent/shop/0",
					  "tiebreak:agent/shop/x",
					  "tiebreak:agent/shop/4294967296",
					  "tiebreak:agent//1",
					  "tiebreak:agent/a b/1",
					  "tiebreak:agent/a/b/1",
					  "tiebreak:client/admin",
					  "tiebreak:node/1"};
	char *site;
	uint32_t node;

	(void)state;
	assert_int_equal(agent_uri_parse("tiebreak:agent/shop-1.x/12", &site, &node), 0);
	assert_string_equal(site, "shop-1.x");
	assert_int_equal(node, 12);
	free(site);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(agent_uri_parse(bad[i], &site, &node), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hello),	  cmocka_unit_test(test_renew),
		cmocka_unit_test(test_votes),	  cmocka_unit_test(test_claims),
		cmocka_unit_test(test_bad_hello), cmocka_unit_test(test_refused_by_the_arbiter),
		cmocka_unit_test(test_order),	  cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_flood),	  cmocka_unit_test(test_uri),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
