/* The parts of the site door that need no socket: the lobby, the places, the joint. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/mem.h"
#include "witnessd/admission.h"
#include "witnessd/capacity.h"
#include "witnessd/door_joint.h"
#include "witnessd/lobby.h"

/* --- the lobby --- */

struct storm {
	unsigned served;
	unsigned sent_away;
	unsigned most_at_once; /* sent away in one tick, after the first second */
	uint64_t last_ms;
};

static struct ip source(unsigned number)
{
	const uint8_t bytes[] = {10, (uint8_t)(number >> 16), (uint8_t)(number >> 8),
				 (uint8_t)number};

	return ip_of_bytes(bytes, sizeof(bytes));
}

/* `crowd` come at the same moment from `sources` addresses by turns, to a door that lets `pace` in
 * per tick. */
static struct storm storm_run(unsigned crowd, unsigned pace, unsigned sources)
{
	struct lobby_guest *guests = mem_array(crowd, sizeof(*guests));
	struct storm result = {0};
	unsigned next = 0;
	struct lobby l;

	lobby_init(&l, 7, 256);
	for (unsigned i = 0; i < crowd; i++) {
		struct ip from = source(i % sources);

		lobby_enter(&l, &guests[i], &from, 1000);
	}
	for (uint64_t now = 1000; l.count != 0; now += LOBBY_TICK_MS) {
		struct lobby_guest *guest;
		struct list leaving;
		unsigned left = 0;

		assert_true(now <= 1000 + LOBBY_PATIENCE_MS + LOBBY_TICK_MS);
		for (unsigned i = 0; i < pace && (guest = lobby_next(&l)) != NULL; i++) {
			/* In the order of arrival, as long as nobody has left out of it, and never
			 * after its time. */
			assert_true(guest >= &guests[next] || result.sent_away != 0);
			assert_true(guest->until_ms + LOBBY_TICK_MS > now);
			lobby_arrived(&l, guest->origin);
			next = (unsigned)(guest - guests) + 1;
			result.served++;
		}
		list_init(&leaving);
		lobby_tick(&l, now, &leaving);
		list_for_each (at, &leaving) {
			(void)at;
			left++;
		}
		result.sent_away += left;
		if (left > result.most_at_once)
			result.most_at_once = left;
		result.last_ms = now - 1000;
	}
	assert_int_equal(result.served + result.sent_away, crowd);
	lobby_free(&l);
	free(guests);
	return result;
}

static void test_lobby(void **state)
{
	static const unsigned sources[] = {1, 7, 10000};
	struct storm s;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		/* A door that keeps up sends nobody away. */
		s = storm_run(1000, 50, sources[i]);
		assert_int_equal(s.sent_away, 0);
		s = storm_run(2900, 50, sources[i]);
		assert_int_equal(s.sent_away, 0);
		/* One that does not serves as many as it can in their time, and the rest goes one
		 * by one. */
		s = storm_run(10000, 50, sources[i]);
		assert_in_range(s.served, 2500, 3100);
		assert_in_range(s.most_at_once, 1, 10000 / 30);
		/* One that stands still keeps nobody beyond his patience. */
		s = storm_run(300, 0, sources[i]);
		assert_int_equal(s.served, 0);
		assert_in_range(s.last_ms, 0, LOBBY_PATIENCE_MS + LOBBY_TICK_MS);
	}
}

enum { SILENT = 2000 };

/* One address fills the lobby, and who is let in of it is on his way for ever: others come in as if
 * it were not there. */
static void test_lobby_of_one_address(void **state)
{
	struct lobby_guest *silent = mem_array(SILENT, sizeof(*silent));
	struct ip crowd = source(1), other = source(2), third = source(3);
	struct lobby_guest *let_in[6];
	struct lobby_guest node[3];
	struct list leaving;
	struct lobby l;

	(void)state;
	lobby_init(&l, 7, 8);
	for (unsigned i = 0; i < SILENT; i++)
		lobby_enter(&l, &silent[i], &crowd, 1000);
	/* Three quarters of the window, and no more. */
	for (unsigned i = 0; i < 6; i++) {
		let_in[i] = lobby_next(&l);
		assert_ptr_equal(let_in[i], &silent[i]);
	}
	assert_null(lobby_next(&l));
	/* It is told of nobody that he will not have his turn because of them. */
	list_init(&leaving);
	for (unsigned i = 0; i < 2 * LOBBY_MEASURE_TICKS; i++)
		lobby_tick(&l, 1000, &leaving);
	lobby_enter(&l, &node[0], &other, 1000);
	lobby_tick(&l, 1000, &leaving);
	assert_false(node[0].surplus);
	assert_true(silent[SILENT - 1].surplus);
	assert_ptr_equal(lobby_next(&l), &node[0]);
	lobby_arrived(&l, node[0].origin);
	assert_null(lobby_next(&l));
	/* By turns, each address in order of arrival. */
	lobby_enter(&l, &node[0], &other, 1000);
	lobby_enter(&l, &node[1], &other, 1000);
	lobby_arrived(&l, let_in[0]->origin);
	lobby_enter(&l, &node[2], &third, 1000);
	lobby_tick(&l, 1000, &leaving);
	assert_false(node[2].surplus);
	assert_ptr_equal(lobby_next(&l), &node[0]);
	assert_ptr_equal(lobby_next(&l), &silent[6]);
	assert_ptr_equal(lobby_next(&l), &node[2]);
	assert_ptr_equal(lobby_next(&l), &node[1]);
	assert_null(lobby_next(&l));
	for (unsigned i = 0; i < 3; i++)
		lobby_arrived(&l, node[i].origin);
	for (unsigned i = 1; i < 6; i++)
		lobby_arrived(&l, let_in[i]->origin);
	lobby_clear(&l, &leaving);
	assert_int_equal(l.count, 0);
	lobby_arrived(&l, silent[6].origin);
	lobby_free(&l);
	free(silent);
}

/* --- places --- */

static struct sockaddr_storage address_of(const char *text)
{
	struct sockaddr_storage s = {0};
	void *at = &s;
	struct sockaddr_in *in = at;
	struct sockaddr_in6 *in6 = at;

	if (inet_pton(AF_INET, text, &in->sin_addr) == 1)
		s.ss_family = AF_INET;
	else if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1)
		s.ss_family = AF_INET6;
	return s;
}

static int enter(struct admission *a, const char *text, struct place **ret, char *ret_why)
{
	struct sockaddr_storage s = address_of(text);

	return admission_enter(a, (struct sockaddr *)&s, ret, ret_why);
}

static void test_places(void **state)
{
	const struct admission_limits limits = {.sessions_max = 5,
						.per_address_max = 3,
						.pending_per_address_max = 2,
						.sessions_setting = "sites.sessions-max",
						.pending_setting = "sites.pending-per-address-max"};
	struct admission *a = admission_new(&limits);
	char why[ADMISSION_WHY];
	struct place *p[5];
	struct place *none;

	(void)state;
	assert_int_equal(enter(a, "10.0.0.1", &p[0], why), 0);
	assert_int_equal(enter(a, "::ffff:10.0.0.1", &p[1], why), 0); /* the same */
	assert_int_equal(enter(a, "10.0.0.1", &none, why), -EUSERS);
	assert_non_null(strstr(why, "2 connections"));
	admission_attached(p[0]);
	admission_attached(p[0]);
	assert_int_equal(enter(a, "10.0.0.1", &p[2], why), 0);
	admission_attached(p[1]);
	assert_int_equal(enter(a, "10.0.0.1", &none, why), -EUSERS);
	assert_non_null(strstr(why, "sites.sessions-per-address-max"));
	/* One /64 is one address, the next another. */
	assert_int_equal(enter(a, "2001:db8::1", &p[3], why), 0);
	assert_int_equal(enter(a, "2001:db8::2", &p[4], why), 0);
	assert_int_equal(enter(a, "2001:db8:0:1::1", &none, why), -EUSERS);
	assert_non_null(strstr(why, "sites.sessions-max"));
	admission_leave(p[2]);
	assert_int_equal(enter(a, "2001:db8::3", &none, why), -EUSERS);
	assert_non_null(strstr(why, "sites.pending-per-address-max"));
	assert_int_equal(enter(a, "2001:db8:0:1::1", &p[2], why), 0);
	for (unsigned i = 0; i < 5; i++)
		admission_leave(p[i]);
	admission_free(a);
}

/* Members have places beside all the others: full or not, whose ever the /64 is. */
static void test_places_of_members(void **state)
{
	const struct admission_limits limits = {.sessions_max = 2,
						.pending_per_member_max = 2,
						.sessions_setting = "all",
						.pending_setting = "pending"};
	struct admission *a = admission_new(&limits);
	struct ip members[2];
	char why[ADMISSION_WHY];
	struct place *p[7];
	struct place *none;

	(void)state;
	assert_int_equal(ip_parse("10.0.0.1", &members[0]), 0);
	assert_int_equal(ip_parse("2001:db8::1", &members[1]), 0);
	admission_members_set(a, members, 2);
	assert_int_equal(enter(a, "10.0.0.9", &p[0], why), 0);
	assert_false(admission_is_member(p[0]));
	assert_int_equal(enter(a, "2001:db8::9", &p[1], why), 0); /* a neighbour in its /64 */
	assert_int_equal(enter(a, "10.0.0.9", &none, why), -EUSERS);
	assert_int_equal(enter(a, "::ffff:10.0.0.1", &p[2], why), 0);
	assert_true(admission_is_member(p[2]));
	assert_int_equal(enter(a, "2001:db8::1", &p[3], why), 0);
	assert_int_equal(enter(a, "10.0.0.1", &p[4], why), 0);
	/* More than that are as anybody's. */
	assert_int_equal(enter(a, "10.0.0.1", &none, why), -EUSERS);
	assert_string_equal(why, "all 2 places are taken (all)");
	admission_leave(p[0]);
	assert_int_equal(enter(a, "10.0.0.1", &p[0], why), 0);
	assert_false(admission_is_member(p[0]));
	/* One that is in does not keep the next one out, and one that leaves makes room for one. */
	admission_attached(p[2]);
	assert_int_equal(enter(a, "10.0.0.1", &p[5], why), 0);
	assert_true(admission_is_member(p[5]));
	assert_int_equal(enter(a, "10.0.0.1", &none, why), -EUSERS);
	admission_leave(p[4]);
	assert_int_equal(enter(a, "10.0.0.1", &p[4], why), 0);
	/* Who stays a member keeps its count; who is none any more has no such place. */
	admission_members_set(a, members, 1);
	assert_int_equal(enter(a, "10.0.0.1", &none, why), -EUSERS);
	assert_int_equal(enter(a, "2001:db8::1", &none, why), -EUSERS);
	for (unsigned i = 0; i < 6; i++)
		admission_leave(p[i]);
	assert_int_equal(enter(a, "2001:db8::1", &p[0], why), 0);
	assert_false(admission_is_member(p[0]));
	admission_leave(p[0]);
	admission_free(a);
}

/* --- the joint --- */

struct heard {
	uint64_t sessions[64]; /* 1000 + n: a reset that announces n */
	size_t count;
};

static void hear(void *arg, Tb__DoorEvent **events, size_t count)
{
	struct heard *h = arg;

	for (size_t i = 0; i < count; i++) {
		h->sessions[h->count++] = events[i]->what_case == TB__DOOR_EVENT__WHAT_RESET
						  ? 1000 + events[i]->reset->sessions
						  : events[i]->session;
		tb__door_event__free_unpacked(events[i], NULL);
	}
	free(events);
}

static Tb__DoorEvent **one(uint64_t session)
{
	Tb__DoorEvent **events = mem_alloc(sizeof(*events));

	events[0] = mem_alloc(sizeof(**events));
	tb__door_event__init(events[0]);
	events[0]->session = session;
	return events;
}

static void expect_heard(struct heard *h, const uint64_t *want, size_t count)
{
	assert_int_equal(h->count, count);
	assert_memory_equal(h->sessions, want, count * sizeof(*want));
	h->count = 0;
}

#define EXPECT_HEARD(h, ...)                                                                       \
	do {                                                                                       \
		const uint64_t want[] = {__VA_ARGS__};                                             \
		expect_heard(h, want, sizeof(want) / sizeof(want[0]));                             \
	} while (0)

static void test_joint(void **state)
{
	struct heard h = {0};
	struct joint *j = joint_new(3, hear, &h);

	(void)state;
	joint_events(j, 2, one(1), 1);
	EXPECT_HEARD(&h, 1);
	/* One loop has given its part; what it says later waits, what the others say does not. */
	joint_report(j, 0, 1, one(10), 1);
	joint_events(j, 0, one(11), 1);
	joint_events(j, 1, one(2), 1);
	EXPECT_HEARD(&h, 2);
	joint_report(j, 2, 1, one(30), 1);
	joint_events(j, 2, one(31), 1);
	assert_int_equal(h.count, 0);
	joint_report(j, 1, 0, NULL, 0);
	EXPECT_HEARD(&h, 1002, 10, 30, 11, 31);
	joint_events(j, 0, one(12), 1);
	EXPECT_HEARD(&h, 12);
	/* Two reports are asked for before the first is whole. */
	joint_report(j, 0, 1, one(10), 1);
	joint_report(j, 0, 2, one(10), 1);
	joint_events(j, 0, one(13), 1);
	joint_report(j, 1, 0, NULL, 0);
	joint_report(j, 2, 1, one(30), 1);
	EXPECT_HEARD(&h, 1002, 10, 30);
	joint_report(j, 2, 1, one(30), 1);
	joint_events(j, 2, one(32), 1);
	joint_report(j, 1, 0, NULL, 0);
	EXPECT_HEARD(&h, 1003, 10, 30, 13, 32);
	joint_report(j, 1, 7, one(40), 1); /* never whole */
	joint_free(j);
}

/* --- what the system allows --- */

/* In a child, whose limit of open files is `files`: the exit code is what capacity_take did. */
static int capacity_in_child(unsigned files, unsigned sessions, unsigned want, unsigned want_agents)
{
	pid_t child = fork();
	int status = -1;

	if (child == 0) {
		struct config config = {.connections_max = 100, .sessions_max = sessions};
		const struct rlimit limit = {files, files};
		const char *message = "";
		int rv;

		/* Root may raise the limit again, unless it gives the right away. */
		setrlimit(RLIMIT_NOFILE, &limit);
		if (setuid(65534) != 0 && geteuid() == 0)
			_exit(9);
		rv = capacity_take(&config, &message);
		if (rv != 0)
			_exit(strstr(message, "RLIMIT_NOFILE") != NULL &&
					      strstr(message, "LimitNOFILE=") != NULL
				      ? 1
				      : 8);
		_exit(config.sessions_max == want && config.agents_max == want_agents ? 0 : 7);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_capacity(void **state)
{
	(void)state;
	assert_int_equal(capacity_in_child(1000, 300, 300, 300), 0); /* each door has as many */
	assert_int_equal(capacity_in_child(1000, 500, 500, 144), 0);
	assert_int_equal(capacity_in_child(1000, 644, 644, 0), 0);
	assert_int_equal(capacity_in_child(1000, 645, 0, 0), 1); /* asked for and not to be had */
	assert_int_equal(capacity_in_child(1000, 0, 483, 161), 0); /* of 1000 - 100 - 256 */
	assert_int_equal(capacity_in_child(300, 0, 0, 0), 1);
	assert_int_equal(capacity_in_child(370, 0, 0, 0), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lobby),  cmocka_unit_test(test_lobby_of_one_address),
		cmocka_unit_test(test_places), cmocka_unit_test(test_places_of_members),
		cmocka_unit_test(test_joint),  cmocka_unit_test(test_capacity),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
