/* What raises which alarm, and the difference between a pass and the model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/alarm.h"
#include "lib/buf.h"
#include "lib/mem.h"

/* Kinds found, as "a b". */
static void expect(struct alarm_set *set, const char *kinds)
{
	struct buf text = {0};

	for (unsigned i = 0; i < set->count; i++) {
		buf_printf(&text, "%s%s", i > 0 ? " " : "", set->items[i]->kind);
		assert_true(strlen(set->items[i]->message) > 20);
	}
	if (strcmp(buf_string(&text), kinds) != 0)
		print_error("expected %s\n", kinds);
	assert_string_equal(buf_string(&text), kinds);
	buf_free(&text);
	alarm_set_clear(set);
}

#define NODE(id, from, zone, rtt)                                                                  \
	{                                                                                          \
		.node_id = id, .address = from, .board = id, .board_zone = zone, .rtt_ms = rtt,    \
		.within_ms = 8000                                                                  \
	}

static void test_sites(void **state)
{
	static const struct alarm_site_node apart[] = {NODE(1, "10.0.0.1:1", "x", 0),
						       NODE(2, "10.0.0.2:1", "", 0)};
	static const struct alarm_site_node together[] = {NODE(1, "[fd00::1]:1", "x", 0),
							  NODE(2, "[fd00::1]:2", "", 0)};
	static const struct alarm_site_node near[] = {NODE(1, "10.0.0.1:1", "", 0),
						      NODE(2, "10.0.0.10:1", "", 2000)};
	static const struct alarm_site_node good[] = {NODE(1, "10.0.0.1:1", "", 0),
						      NODE(2, "10.0.0.10:1", "", 1999)};
	const struct {
		struct alarm_site site;
		const char *kinds;
	} cases[] = {
		{{"a", "", 2, 0, apart, 2}, ""},
		{{"a", "", 2, ALARM_ALONE_MS - 1, apart, 1}, ""},
		{{"a", "", 2, ALARM_ALONE_MS, apart, 1}, "site-alone"},
		{{"a", "", 2, ALARM_ALONE_MS, apart, 0}, ""}, /* offline is a state */
		{{"a", "", 0, ALARM_ALONE_MS, apart, 1}, ""}, /* not told */
		{{"a", "", 1, ALARM_ALONE_MS, apart, 1}, ""},
		{{"a", "", 3, ALARM_ALONE_MS, apart, 2}, "site-alone"},
		{{"a", "", 2, 0, together, 2}, "site-one-address"},
		{{"a", "", 2, 0, together, 1}, ""},
		{{"a", "x", 2, 0, apart, 2}, "site-zone"},
		{{"a", "y", 2, 0, apart, 2}, ""},
		{{"a", "", 2, 0, near, 2}, "site-late"},
		{{"a", "", 2, 0, good, 2}, ""},
		{{"a", "x", 3, ALARM_ALONE_MS, together, 2},
		 "site-alone site-one-address site-zone"},
	};
	struct alarm_set set = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		alarm_site_check(&set, &cases[i].site);
		expect(&set, cases[i].kinds);
	}
	alarm_site_check(&set, &(struct alarm_site){.name = "a",
						    .zone = "",
						    .configured = 2,
						    .missing_ms = ALARM_ALONE_MS,
						    .nodes = apart,
						    .count = 1,
						    .agents = true});
	assert_non_null(strstr(set.items[0]->message, "lease"));
	expect(&set, "site-alone");
}

static void test_boards(void **state)
{
	static const struct {
		struct alarm_board board;
		const char *kinds;
	} cases[] = {
		{{"b", true, 0, 0, 0, 0}, ""},
		{{"b", true, ALARM_SKEW_MS, 749, 499, 79}, ""},
		{{"b", true, ALARM_SKEW_MS + 1, 0, 0, 0}, "clock"},
		{{"b", true, -ALARM_SKEW_MS - 1, 0, 0, 0}, "clock"},
		{{"b", true, 0, 750, 0, 0}, "board-late"},
		{{"b", true, 0, 0, 500, 0}, "disk-slow"},
		{{"b", true, 0, 0, 0, 80}, "card-worn"},
		{{"b", true, 99999, 999, 999, 110}, "board-late card-worn clock disk-slow"},
		{{"b", true, 0, 0, 0, 0, true}, "host-stands"},
		{{"b", false, 0, 0, 0, 0, true}, ""},
		{{"b", false, 99999, 999, 999, 110}, ""}, /* away: nothing is known */
	};
	struct alarm_set set = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		alarm_board_check(&set, &cases[i].board);
		expect(&set, cases[i].kinds);
	}
}

static void test_board_facts(void **state)
{
	static const struct {
		bool known;
		int32_t hottest;
		uint32_t critical;
		bool under_voltage, throttled;
		const char *kinds;
	} cases[] = {
		{false, 0, 0, false, false, ""},
		{false, 99, 0, false, false, ""}, /* not known */
		{true, ALARM_HOT - 1, 0, false, false, ""},
		{true, ALARM_HOT, 0, false, false, "board-hot"},
		{true, -40, 0, false, false, ""},
		/* A board that switches itself off early is hot early; one that bears much is not
		 * hot late: its neighbours may bear less. */
		{true, 74, 85, false, false, ""},
		{true, 75, 85, false, false, "board-hot"},
		{true, ALARM_HOT - 1, 125, false, false, ""},
		{true, ALARM_HOT, 125, false, false, "board-hot"},
		{true, ALARM_HOT - 1, UINT32_MAX, false, false, ""}, /* nonsense */
		{false, 0, 0, true, false, "board-under-voltage"},
		{false, 0, 0, false, true, "board-throttled"},
		{true, 90, 90, true, true, "board-hot board-throttled board-under-voltage"},
	};
	struct alarm_set set = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		Tb__BoardFacts facts = TB__BOARD_FACTS__INIT;
		struct alarm_board board = {.name = "b", .reachable = true, .facts = &facts};

		facts.temperature_known = cases[i].known;
		facts.hottest = cases[i].hottest;
		facts.critical = cases[i].critical;
		facts.under_voltage = cases[i].under_voltage;
		facts.throttled = cases[i].throttled;
		alarm_board_check(&set, &board);
		expect(&set, cases[i].kinds);
		/* Away: what it said last is no news. */
		board.reachable = false;
		alarm_board_check(&set, &board);
		expect(&set, "");
	}
}

static void test_certificates(void **state)
{
	const struct alarm_certificate c = {"site", "a", 0, 0, 60000000};
	const struct alarm_certificate agent = {"agent", "a", 2, 0, 60000000};
	struct alarm_set set = {0};

	(void)state;
	alarm_certificate_check(&set, &c, 49999999);
	expect(&set, "");
	alarm_certificate_check(&set, &c, 50000000);
	assert_non_null(strstr(set.items[0]->message, "ends in 2 h"));
	assert_string_equal(set.items[0]->subject, "site/a");
	expect(&set, "certificate");
	alarm_certificate_check(&set, &c, 60000000);
	assert_non_null(strstr(set.items[0]->message, "has ended"));
	expect(&set, "certificate");
	/* Each node's agent has its own. */
	alarm_certificate_check(&set, &agent, 50000000);
	assert_string_equal(set.items[0]->subject, "agent/a/2");
	assert_non_null(strstr(set.items[0]->message, "witness-agent renew"));
	expect(&set, "certificate");
	alarm_certificate_check(&set, &agent, 60000000);
	assert_non_null(strstr(set.items[0]->message, "site enroll --agent"));
	expect(&set, "certificate");
}

static void change(void *arg, bool raise, const Tb__Alarm *alarm)
{
	buf_printf(arg, "%c%s ", raise ? '+' : '-', alarm->subject);
}

static void board_slow(struct alarm_set *set, const char *name)
{
	alarm_board_check(set,
			  &(struct alarm_board){.name = name, .reachable = true, .disk_ms = 900});
}

static void compare(const struct alarm_set *set, Tb__Alarm **rows, size_t count, unsigned max,
		    const char *expected)
{
	struct buf text = {0};

	alarm_set_compare(set, rows, count, max, change, &text);
	assert_string_equal(buf_string(&text), expected);
	buf_free(&text);
}

static void test_addresses(void **state)
{
	struct alarm_set set = {0};

	(void)state;
	alarm_address_check(&set, "10.0.0.5", "no board can have it at eth9: one has eth0");
	expect(&set, "address");
}

static void test_compare(void **state)
{
	struct alarm_set old = {0};
	struct alarm_set new = {0};

	(void)state;
	board_slow(&old, "b");
	board_slow(&old, "d");
	board_slow(&new, "d");
	board_slow(&new, "a");
	board_slow(&new, "c");
	compare(&new, NULL, 0, 9, "+a +c +d ");
	compare(&new, old.items, old.count, 9, "+a -b +c ");
	compare(&new, old.items, old.count, 2, "+a -b "); /* the rest comes later */
	compare(&new, new.items, new.count, 9, "");
	alarm_set_clear(&new);
	compare(&new, old.items, old.count, 9, "-b -d ");
	alarm_set_clear(&old);
	/* Full: what is there stays, what does not fit is counted. */
	for (unsigned i = 0; i < LIMIT_ALARMS + 5; i++) {
		char name[16];

		snprintf(name, sizeof(name), "b%03u", i);
		board_slow(&old, name);
	}
	assert_int_equal(old.count, LIMIT_ALARMS);
	assert_int_equal(old.left_out, 5);
	board_slow(&new, "zzz");
	compare(&new, old.items, old.count, 1, "-b000 ");
	alarm_set_clear(&new);
	board_slow(&new, "aaa"); /* no room for it in the model */
	compare(&new, old.items, old.count, 1, "-b000 ");
	alarm_set_clear(&new);
	alarm_set_clear(&old);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sites),	    cmocka_unit_test(test_boards),
		cmocka_unit_test(test_board_facts), cmocka_unit_test(test_certificates),
		cmocka_unit_test(test_compare),	    cmocka_unit_test(test_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
