/* The agent's settings, beacons, the answer to an enrolment, the status that others read, hooks,
 * and options of the library. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/beacon.h"
#include "agent/control.h"
#include "agent/enroll.h"
#include "agent/hook.h"
#include "agent/settings.h"
#include "lib/clock.h"
#include "proto/agent.pb-c.h"

static void test_settings(void **state)
{
	static const char text[] = "# a site\nsite = shop-1\nnode = 2\n"
				   "boards = 10.0.0.11, 10.0.0.12:8443 [::1] fd00::5 w.example:1\n"
				   "peers = 1@10.1.0.1 3@[fd00::3]:9000, 4\n"
				   "lease=20s\nstop-time = 3s\nacquire = off\n"
				   "on-loss = systemctl stop x # y\n";
	uint32_t nodes[WITNESS_AGENT_NODES];
	struct settings s;
	char *message = NULL;

	(void)state;
	settings_init(&s);
	assert_int_equal(settings_parse(&s, "f", text, strlen(text), &message), 0);
	assert_int_equal(settings_check(&s, &message), 0);
	assert_string_equal(s.boards[0], "10.0.0.11:7443");
	assert_string_equal(s.boards[1], "10.0.0.12:8443");
	assert_string_equal(s.boards[2], "[::1]:7443");
	assert_string_equal(s.boards[3], "[fd00::5]:7443");
	assert_string_equal(s.boards[4], "w.example:1");
	assert_null(s.boards[5]);
	assert_string_equal(s.peers[0].address, "10.1.0.1:7444");
	assert_string_equal(s.peers[1].address, "[fd00::3]:9000");
	assert_null(s.peers[2].address);
	assert_int_equal(s.lease_ms, 20000);
	assert_false(s.acquire);
	assert_string_equal(s.on_loss, "systemctl stop x # y");
	assert_int_equal(settings_nodes(&s, nodes), 4);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(nodes[i], i + 1);
	settings_free(&s);
}

static void test_bad_settings(void **state)
{
	static const struct {
		const char *text;
		const char *message;
	} cases[] = {
		{"site = a b",
		 "f:1: site \"a b\" is no site's name: 1 to 64 letters, digits, dots, "
		 "dashes and underscores"},
		{"node = 0", "f:1: node \"0\" is no node id; write a whole number from 1"},
		{"boards =", "f:1: boards is empty; name every board, as in 10.0.0.11, 10.0.0.12"},
		{"boards = *:7443", "f:1: boards \"*:7443\" is no address of a board; write "
				    "HOST:PORT, as in 10.0.0.11:7443"},
		{"boards = unix:/x", "f:1: boards \"unix:/x\" is no address of a board; write "
				     "HOST:PORT, as in 10.0.0.11:7443"},
		{"peers = 2 2", "f:1: peers names node 2 twice"},
		{"peers = x@1.2.3.4",
		 "f:1: peers \"x\" is no node id; write a whole number from 1"},
		{"peers = 2@a:b:c:", "f:1: peers \"a:b:c:\" is no address of a node; write "
				     "NODE@ADDRESS, as in 2@10.1.0.2"},
		{"listen = host:1",
		 "f:1: listen \"host:1\" is no address of this host; write ADDRESS:PORT or *:PORT"},
		{"lease = 2s", "f:1: lease \"2s\" is not a time from 3000ms to 120s; write it with "
			       "a unit, as in 10s"},
		{"acquire = yes", "f:1: acquire \"yes\" is not one of: off, on"},
		{"on-gain =", "f:1: on-gain is empty; give a command, or leave the line out"},
		{"run-dir = x", "f:1: run-dir must be an absolute path"},
		{"onloss = x", "f:1: unknown setting \"onloss\"; did you mean \"on-loss\"?"},
		{"[agent]", "f:1: the settings of this file stand without a [section]"},
		{"node = 1\nnode = 2", "f:2: node is set twice in this file"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct settings s;
		char *message = NULL;

		settings_init(&s);
		assert_int_equal(
			settings_parse(&s, "f", cases[i].text, strlen(cases[i].text), &message),
			-EINVAL);
		assert_string_equal(message, cases[i].message);
		free(message);
		settings_free(&s);
	}
}

static void test_beacon(void **state)
{
	Tb__AgentBeacon beacon = TB__AGENT_BEACON__INIT;
	uint8_t bytes[BEACON_BYTES + 1] = {0};
	size_t len;

	(void)state;
	beacon.site = (char *)"shop";
	beacon.node = 3;
	len = tb__agent_beacon__pack(&beacon, bytes);
	assert_int_equal(beacon_parse(bytes, len, "shop"), 3);
	assert_int_equal(beacon_parse(bytes, len, "other"), 0);
	assert_int_equal(beacon_parse(bytes, len - 1, "shop"), 0);
	assert_int_equal(beacon_parse(bytes, sizeof(bytes), "shop"), 0);
	assert_int_equal(beacon_parse(bytes, 0, "shop"), 0);
}

/* Two agents on two addresses of this host, by a clock of the test's own. */
static void test_beacons_meet(void **state)
{
	static const char *const texts[] = {
		"site = s\nnode = 1\nlisten = 127.0.0.1:17444\npeers = 2@127.0.0.2:17445",
		"site = s\nnode = 2\nlisten = 127.0.0.2:17445\npeers = 1@127.0.0.1:17444",
	};
	uint32_t seen[WITNESS_AGENT_NODES];
	struct settings s[2];
	struct beacon *b[2];
	char *message = NULL;

	(void)state;
	for (int i = 0; i < 2; i++) {
		settings_init(&s[i]);
		assert_int_equal(settings_parse(&s[i], "f", texts[i], strlen(texts[i]), &message),
				 0);
		assert_int_equal(beacon_open(&s[i], 1000, &b[i], &message), 0);
	}
	assert_int_equal(beacon_seen(b[1], 1000, seen), 0);
	beacon_turn(b[0], 1000);
	beacon_turn(b[1], 1000);
	assert_int_equal(beacon_seen(b[1], 1000, seen), 1);
	assert_int_equal(seen[0], 1);
	assert_int_equal(beacon_seen(b[1], 1000 + BEACON_SEEN_MS, seen), 0);
	assert_int_equal(beacon_due(b[0]), 1000 + BEACON_EVERY_MS);
	for (int i = 0; i < 2; i++) {
		beacon_close(b[i]);
		settings_free(&s[i]);
	}
	assert_int_equal(beacon_fd(NULL), -1);
}

static void test_answers(void **state)
{
	static const char good[] = "HTTP/1.1 403 Forbidden\r\nX: y\r\ncontent-LENGTH:  2\r\n\r\n{}";
	static const char *const bad[] = {
		"",
		"HTTP/1.1 200 OK\r\n\r\n{}",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
		"HTTP/1.1 20x OK\r\nContent-Length: 2\r\n\r\n{}",
		"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n{}",
		"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
	};
	const char *body;
	size_t len;
	unsigned status;

	(void)state;
	assert_int_equal(enroll_answer_parse(good, strlen(good), &status, &body, &len), 0);
	assert_int_equal(status, 403);
	assert_int_equal(len, 2);
	assert_string_equal(body, "{}");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(enroll_answer_parse(bad[i], strlen(bad[i]), &status, &body, &len),
				 -EPROTO);
}

static void test_status_held(void **state)
{
	static const char held[] = "state=\"held\"\nepoch=3\nuntil_boot_ms=5000\n";

	(void)state;
	assert_true(control_status_held(held, 4999));
	assert_false(control_status_held(held, 5000));
	assert_false(control_status_held("state=\"stopping\"\nuntil_boot_ms=5000\n", 1));
	assert_false(control_status_held("state=\"waiting\"\nwhy=\"state=held\"\n"
					 "until_boot_ms=5000\n",
					 1));
	assert_false(control_status_held("state=\"held\"\n", 1));
	assert_false(control_status_held("state=\"held\"\nuntil_boot_ms=x\n", 1));
	assert_false(control_status_held("", 1));
	/* Whoever left such a text had not stopped what uses the lease, however long ago. */
	assert_true(control_status_left(held));
	assert_true(control_status_left("state=\"stopping\"\nuntil_boot_ms=0\n"));
	assert_false(control_status_left("state=\"waiting\"\nwhy=\"state=held\"\n"));
	assert_false(control_status_left("state=\"idle\"\n"));
	assert_false(control_status_left(""));
}

static bool hook_wait(struct hook *h, bool *ret_good)
{
	for (int i = 0; i < 5000; i++) {
		if (hook_ended(h, ret_good))
			return true;
		usleep(1000);
	}
	return false;
}

static void test_hooks(void **state)
{
	struct settings s = {.site = (char *)"shop", .node = 2};
	const struct duty_out run = {.run = DUTY_GAIN, .run_ms = 250};
	const struct duty_out kill = {.kill = true};
	const struct duty_out next = {.abandon = true, .run = DUTY_LOSS};
	struct hook h = {0};
	bool good;

	(void)state;
	s.on_gain = (char *)"test $WITNESS_EVENT.$WITNESS_SITE.$WITNESS_NODE.$WITNESS_EPOCH."
			    "$WITNESS_TIME_MS = gain.shop.2.7.250";
	assert_int_equal(hook_obey(&h, &run, &s, 7), 0);
	assert_true(hook_wait(&h, &good));
	assert_true(good);
	s.on_gain = (char *)"exit 3";
	assert_int_equal(hook_obey(&h, &run, &s, 7), 0);
	assert_true(hook_wait(&h, &good));
	assert_false(good);
	/* The whole group goes, also what the command has left behind in it. */
	s.on_gain = (char *)"sleep 100 & trap '' TERM; sleep 100";
	assert_int_equal(hook_obey(&h, &run, &s, 7), 0);
	assert_int_equal(hook_obey(&h, &kill, &s, 7), 0);
	assert_true(hook_wait(&h, &good));
	assert_false(good);
	/* One that is not waited for does not hold up the next, and is no zombie in the end. */
	assert_int_equal(hook_obey(&h, &run, &s, 7), 0);
	assert_int_equal(hook_obey(&h, &kill, &s, 7), 0);
	s.on_loss = (char *)"exit 0";
	assert_int_equal(hook_obey(&h, &next, &s, 7), 0);
	assert_true(h.abandoned[0] > 0);
	assert_true(hook_wait(&h, &good));
	assert_true(good);
	for (int i = 0; i < 5000 && h.abandoned[0] != 0; i++) {
		usleep(1000);
		hook_ended(&h, &good);
	}
	assert_int_equal(h.abandoned[0], 0);
}

static void no_gain(void *arg, uint64_t epoch)
{
	(void)arg;
	(void)epoch;
}

static void no_loss(void *arg, uint64_t epoch, uint32_t left_ms)
{
	(void)arg;
	(void)epoch;
	(void)left_ms;
}

static void test_library_options(void **state)
{
	static const char *const boards[] = {"10.0.0.1:7443", NULL};
	static const char *const no_port[] = {"10.0.0.1", NULL};
	static const uint32_t others[] = {2, 3};
	const struct witness_agent_options sound = {.boards = boards,
						    .certificate = "x",
						    .key = "x",
						    .ca = "x",
						    .node = 1,
						    .gained = no_gain,
						    .lost = no_loss};
	char why[WITNESS_AGENT_TEXT];
	struct witness_agent *wa;
	struct witness_agent_options o;

#define REFUSED(text, ...)                                                                         \
	do {                                                                                       \
		o = sound;                                                                         \
		__VA_ARGS__;                                                                       \
		assert_int_equal(witness_agent_new(&o, &wa, why), -EINVAL);                        \
		if (strstr(why, text) == NULL)                                                     \
			fail_msg("%s", why);                                                       \
	} while (0)
	(void)state;
	REFUSED("boards: give", o.boards = NULL);
	REFUSED("no address of a board", o.boards = no_port);
	REFUSED("node: give", o.node = 0);
	REFUSED("node 1 itself is missing", o.nodes = others; o.node_count = 2);
	REFUSED("between 3 s and 120 s", o.lease_ms = 2999);
	REFUSED("half of the lease", o.lease_ms = 4000; o.stop_ms = 2000);
	REFUSED("the CA of the boards is no certificate", (void)0);
#undef REFUSED
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_settings), cmocka_unit_test(test_bad_settings),
		cmocka_unit_test(test_beacon),	 cmocka_unit_test(test_beacons_meet),
		cmocka_unit_test(test_answers),	 cmocka_unit_test(test_status_held),
		cmocka_unit_test(test_hooks),	 cmocka_unit_test(test_library_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
