/* The door for agents, without sockets: its streams are stand-ins, defined here; its loop, its
 * sessions and its orders are real. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "cluster/limits.h"
#include "lib/mem.h"
#include "proto/agent.pb-c.h"
#include "proto/frame.h"
#include "witnessd/agent_door.h"
#include "witnessd/core.h"

/* Many more than the door looks at in one turn. */
enum { AGENTS = 1500, SESSIONS_MAX = 1600, LEASE_MS = 4000, TURNS = 8 };

/* --- streams --- */

struct stream {
	const struct stream_events *events;
	void *arg;
	char serial[16];
	uint32_t node;
	unsigned rtt_ms;
	bool aborted;
};

void stream_set_events(struct stream *s, const struct stream_events *events, void *arg)
{
	s->events = events;
	s->arg = arg;
}

void *stream_arg(const struct stream *s)
{
	return s->arg;
}

const char *stream_peer_address(const struct stream *s)
{
	(void)s;
	return "10.0.0.1:5";
}

void stream_local_address(const struct stream *s, char text[ADDRESS_TEXT])
{
	(void)s;
	strcpy(text, "10.0.0.9:7443");
}

/* What tls_session_peer looks at. */
struct tls_session *stream_tls(struct stream *s)
{
	return (struct tls_session *)s;
}

void tls_session_peer(const struct tls_session *t, struct tls_peer *ret)
{
	const struct stream *s = (const struct stream *)t;

	*ret = (struct tls_peer){.present = true};
	snprintf(ret->uri, sizeof(ret->uri), "tiebreak:agent/shop/%u", s->node);
	snprintf(ret->serial, sizeof(ret->serial), "%s", s->serial);
}

unsigned stream_rtt_ms(const struct stream *s)
{
	return s->rtt_ms;
}

size_t stream_write(struct stream *s, const void *data, size_t len)
{
	(void)s, (void)data, (void)len;
	return 0;
}

void stream_close(struct stream *s)
{
	s->aborted = true;
}

void stream_abort(struct stream *s)
{
	s->aborted = true;
}

/* --- the board around the door --- */

struct board {
	uv_loop_t loop;
	struct mailbox mailbox;
	struct agent_door *door;
	struct core_view view;
	uint64_t now_ms;
	struct stream streams[SESSIONS_MAX + 8];
	unsigned count;
	char revoked[16]; /* serial */
	unsigned looked_up;
	int concerns; /* the answer */
	unsigned asked;
	bool unreadable;
	unsigned opened, closed, rtts; /* events */
	uint64_t session; /* of the newest */
	uint32_t rtt_ms;
};

static void board_events(void *arg, Tb__DoorEvent **events, size_t count)
{
	struct board *b = arg;

	for (size_t i = 0; i < count; i++) {
		const Tb__DoorEvent *e = events[i];

		b->session = e->session;
		b->opened += e->what_case == TB__DOOR_EVENT__WHAT_OPEN;
		b->closed += e->what_case == TB__DOOR_EVENT__WHAT_CLOSED;
		if (e->what_case == TB__DOOR_EVENT__WHAT_RTT) {
			b->rtts++;
			b->rtt_ms = e->rtt->rtt_ms;
		}
		tb__door_event__free_unpacked(events[i], NULL);
	}
	free(events);
}

static int board_revoked(void *arg, const char *serial, uint64_t issuer)
{
	struct board *b = arg;

	(void)issuer;
	b->looked_up++;
	if (b->unreadable)
		return -EIO;
	return strcmp(serial, b->revoked) == 0;
}

static int board_concerns(void *arg)
{
	struct board *b = arg;

	b->asked++;
	return b->concerns;
}

static const char *board_name(void *arg)
{
	(void)arg;
	return "b1";
}

static uint64_t board_clock(void *arg)
{
	return ((struct board *)arg)->now_ms;
}

static struct board *board_begin(void)
{
	struct board *b = mem_zalloc(sizeof(*b));
	const struct agent_door_upcalls upcalls = {.arg = b,
						   .events = board_events,
						   .view = &b->view,
						   .revoked = board_revoked,
						   .concerns = board_concerns,
						   .board_name = board_name,
						   .clock_ms = board_clock};

	b->now_ms = 1000;
	b->view.lease_until_ms = UINT64_MAX;
	uv_loop_init(&b->loop);
	mailbox_init(&b->mailbox, &b->loop, 1000);
	b->door = agent_door_new(&b->loop, &b->mailbox, SESSIONS_MAX, &upcalls);
	return b;
}

/* Ends what was aborted, as a loop of real streams does. */
static void board_bury(struct board *b)
{
	for (unsigned i = 0; i < b->count; i++) {
		struct stream *s = &b->streams[i];

		if (!s->aborted || s->events == NULL)
			continue;
		s->events->closed(s, STREAM_END_LOCAL, "");
		s->events = NULL;
	}
}

static void board_turn(struct board *b)
{
	/* The loop's own time is what its timers go by; a tick of the door's is 100 ms. */
	for (uint64_t at = uv_now(&b->loop); uv_now(&b->loop) < at + 100;)
		uv_run(&b->loop, UV_RUN_ONCE);
	board_bury(b);
}

static void door_closed(void *arg)
{
	*(bool *)arg = true;
}

static void mailbox_gone(struct mailbox *m)
{
	(void)m;
}

static void board_end(struct board *b)
{
	bool closed = false;

	agent_door_close(b->door, door_closed, &closed);
	board_bury(b);
	mailbox_close(&b->mailbox, mailbox_gone);
	while (uv_run(&b->loop, UV_RUN_NOWAIT) != 0)
		;
	assert_true(closed);
	agent_door_free(b->door);
	assert_int_equal(uv_loop_close(&b->loop), 0);
	free(b);
}

static struct stream *agent_come_as(struct board *b, uint32_t node)
{
	struct stream *s = &b->streams[b->count++];

	s->node = node;
	snprintf(s->serial, sizeof(s->serial), "serial-%u", s->node);
	agent_door_adopt(b->door, s);
	return s;
}

static struct stream *agent_come(struct board *b)
{
	return agent_come_as(b, b->count + 1);
}

/* Says hello and is welcome. */
static void agent_attach(struct board *b, struct stream *s)
{
	Tb__AgentFrame frame = TB__AGENT_FRAME__INIT;
	Tb__AgentHello hello = TB__AGENT_HELLO__INIT;
	Tb__AgentClaim claim = TB__AGENT_CLAIM__INIT;
	Tb__DoorOrder *order = mem_alloc(sizeof(*order));
	Tb__DoorOrder **orders = mem_alloc(sizeof(*orders));
	struct buf bytes = {0};

	hello.node = s->node;
	hello.name = (char *)"host";
	hello.lease_ms = LEASE_MS;
	hello.instance = 9;
	hello.attempt = 1;
	hello.claim = &claim;
	claim.number = 1;
	frame.what_case = TB__AGENT_FRAME__WHAT_HELLO;
	frame.hello = &hello;
	frame_append(&bytes, &frame.base);
	s->events->data(s, bytes.data, bytes.len);
	buf_free(&bytes);
	board_turn(b);
	tb__door_order__init(order);
	order->session = b->session;
	order->what_case = TB__DOOR_ORDER__WHAT_INIT_REPLY;
	order->init_reply = mem_alloc(sizeof(*order->init_reply));
	tb__door_init_reply__init(order->init_reply);
	orders[0] = order;
	agent_door_orders(b->door, orders, 1);
	board_turn(b);
}

static unsigned agents_gone(const struct board *b)
{
	unsigned gone = 0;

	for (unsigned i = 0; i < b->count; i++)
		gone += b->streams[i].aborted;
	return gone;
}

/* --- tests --- */

/* The model changes faster than the door gets round: the last of many is looked up all the same. */
static void test_revoked_while_model_changes(void **state)
{
	struct board *b = board_begin();

	(void)state;
	for (unsigned i = 0; i < AGENTS; i++)
		agent_come(b);
	board_turn(b);
	b->concerns = 1;
	snprintf(b->revoked, sizeof(b->revoked), "serial-%d", AGENTS);
	for (unsigned i = 0; i < TURNS; i++) {
		agent_door_model_changed(b->door);
		board_turn(b);
	}
	assert_true(b->streams[AGENTS - 1].aborted);
	assert_int_equal(agents_gone(b), 1);
	/* One that goes while it is the next is not looked up again. */
	for (unsigned i = 0; i < AGENTS; i += 2)
		b->streams[i].aborted = true;
	board_bury(b);
	strcpy(b->revoked, "serial-2");
	for (unsigned i = 0; i < TURNS; i++) {
		agent_door_model_changed(b->door);
		board_turn(b);
	}
	assert_true(b->streams[1].aborted);
	board_end(b);
}

/* A grant is no reason to look up every session, and once round is enough. */
static void test_looked_up_for_a_reason(void **state)
{
	struct board *b = board_begin();
	unsigned before;

	(void)state;
	agent_come(b);
	agent_come(b);
	before = b->looked_up;
	agent_door_model_changed(b->door);
	board_turn(b);
	assert_int_equal(b->looked_up, before);
	assert_int_equal(b->asked, 1);
	b->concerns = 1;
	agent_door_model_changed(b->door);
	board_turn(b);
	board_turn(b);
	assert_int_equal(b->looked_up, before + 2);
	assert_int_equal(b->asked, 2);
	/* What cannot be read now is asked again. */
	b->concerns = -EIO;
	strcpy(b->revoked, "serial-1");
	agent_door_model_changed(b->door);
	board_turn(b);
	b->concerns = 1;
	b->unreadable = true;
	board_turn(b);
	assert_int_equal(agents_gone(b), 0);
	b->unreadable = false;
	board_turn(b);
	assert_true(b->streams[0].aborted && !b->streams[1].aborted);
	board_end(b);
}

/* A round trip near the time in which an answer must come is said once, and once when it is over.
 */
static void test_round_trips(void **state)
{
	struct board *b = board_begin();
	struct stream *s = agent_come(b);

	(void)state;
	s->rtt_ms = LEASE_MS / LEASE_ANSWER_PARTS / 4;
	board_turn(b);
	assert_int_equal(b->rtts, 0); /* it has not said who it is */
	agent_attach(b, s);
	board_turn(b);
	assert_int_equal(b->opened, 1);
	assert_int_equal(b->rtts, 1);
	assert_int_equal(b->rtt_ms, s->rtt_ms);
	s->rtt_ms--; /* it wavers */
	board_turn(b);
	assert_int_equal(b->rtts, 1);
	s->rtt_ms = 5;
	board_turn(b);
	board_turn(b);
	assert_int_equal(b->rtts, 2);
	assert_int_equal(b->rtt_ms, 0);
	board_end(b);
}

/* Without a lease of the board all are sent away, and nobody is let in. */
static void test_refused(void **state)
{
	struct board *b = board_begin();
	struct agent_door_stats stats;

	(void)state;
	strcpy(b->revoked, "serial-1");
	assert_true(agent_come(b)->aborted);
	while (b->count < SESSIONS_MAX)
		assert_false(agent_come(b)->aborted);
	assert_false(agent_come(b)->aborted); /* in the place of the first */
	assert_true(agent_come(b)->aborted); /* one too many */
	b->view.lease_until_ms = 0;
	board_turn(b);
	assert_int_equal(agents_gone(b), b->count);
	assert_true(agent_come(b)->aborted);
	b->view.lease_until_ms = UINT64_MAX;
	b->view.drained = true;
	assert_true(agent_come(b)->aborted);
	agent_door_stats(b->door, &stats);
	assert_int_equal(stats.refused, 4);
	assert_int_equal(stats.accepted, SESSIONS_MAX);
	board_end(b);
}

/* One certificate takes four places and no more: who never said who he is goes for the next one,
 * who serves stays. */
static void test_connections_of_a_node(void **state)
{
	struct board *b = board_begin();
	struct stream *own[6];

	(void)state;
	own[0] = agent_come_as(b, 7);
	agent_attach(b, own[0]);
	for (unsigned i = 1; i < 5; i++)
		own[i] = agent_come_as(b, 7);
	assert_true(own[1]->aborted); /* the oldest of the silent */
	assert_int_equal(agents_gone(b), 1);
	assert_false(agent_come_as(b, 8)->aborted); /* another node */
	for (unsigned i = 2; i < 5; i++)
		agent_attach(b, own[i]);
	assert_true(agent_come_as(b, 7)->aborted);
	assert_int_equal(agents_gone(b), 2);
	board_bury(b);
	own[0]->aborted = true;
	board_bury(b);
	own[5] = agent_come_as(b, 7);
	assert_false(own[5]->aborted);
	assert_int_equal(agents_gone(b), 3);
	board_end(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_revoked_while_model_changes),
		cmocka_unit_test(test_looked_up_for_a_reason),
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_connections_of_a_node),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
