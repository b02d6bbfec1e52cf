/* The board's watchdog: when it is fed, and a double of the kernel's driver that shows what
 * happens to it. And what a board has seen lately. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "board/feeding.h"
#include "board/watchdog.h"
#include "lib/mem.h"
#include "witnessd/facts.h"

/* --- when --- */

static void test_feeding(void **state)
{
	static const struct {
		unsigned timeout_s;
		uint64_t every_ms;
	} cases[] = {{1, 250}, {2, 500}, {3, 750}, {4, 1000}, {15, 1000}, {300, 1000}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct feeding f = feeding_plan(cases[i].timeout_s);
		unsigned fed = 0;

		assert_int_equal(f.every_ms, cases[i].every_ms);
		/* The loop's first turn feeds, and none of those that come early. */
		for (uint64_t now = 5000; now < 5000 + 4 * cases[i].every_ms; now += 50)
			fed += feeding_due(&f, now);
		assert_int_equal(fed, 4);
		/* A loop that hung does not make up for it. */
		assert_true(feeding_due(&f, 900000));
		assert_false(feeding_due(&f, 900001));
	}
}

/* --- a driver --- */

struct driver {
	int open_error;
	int support_error;
	unsigned most_s; /* WDIOC_SETTIMEOUT: more is EINVAL; 0: it cannot be set */
	bool clamps; /* takes its most instead */
	unsigned timeout_s;
	bool no_way_out, no_options, no_keepalive;
	int boot_status;
	/* what became of it */
	bool open, armed;
	bool magic; /* as Linux 6.1: a close forgets it only if that disarms */
	unsigned feeds, writes;
};

static int driver_open(void *arg, const char *path)
{
	struct driver *d = arg;

	assert_string_equal(path, "/dev/watchdog");
	errno = d->open_error;
	if (d->open_error != 0)
		return -1;
	d->open = d->armed = true;
	return 7;
}

static int refuse(int error)
{
	errno = error;
	return -1;
}

static int driver_timeout(struct driver *d, int *seconds)
{
	if (d->most_s == 0)
		return refuse(EOPNOTSUPP);
	if ((unsigned)*seconds > d->most_s && !d->clamps)
		return refuse(EINVAL);
	d->timeout_s = (unsigned)*seconds < d->most_s ? (unsigned)*seconds : d->most_s;
	*seconds = (int)d->timeout_s;
	return 0;
}

static int driver_stop(struct driver *d)
{
	if (d->no_options)
		return refuse(ENOTTY);
	if (d->no_way_out)
		return refuse(EBUSY);
	d->armed = false;
	return 0;
}

static int driver_control(void *arg, int fd, unsigned long request, void *value)
{
	struct driver *d = arg;

	assert_int_equal(fd, 7);
	assert_true(d->open);
	switch (request) {
	case WDIOC_GETSUPPORT:
		if (d->support_error != 0)
			return refuse(d->support_error);
		memcpy(((struct watchdog_info *)value)->identity,
		       "A Double\x1b of a driver. No zero.", 32);
		return 0;
	case WDIOC_SETTIMEOUT:
		return driver_timeout(d, value);
	case WDIOC_GETTIMEOUT:
		if (d->timeout_s == 0)
			return refuse(EOPNOTSUPP);
		*(int *)value = (int)d->timeout_s;
		return 0;
	case WDIOC_GETBOOTSTATUS:
		*(int *)value = d->boot_status;
		return 0;
	case WDIOC_KEEPALIVE:
		if (d->no_keepalive)
			return refuse(ENOTTY);
		d->feeds++;
		return 0;
	case WDIOC_SETOPTIONS:
		assert_int_equal(*(int *)value, WDIOS_DISABLECARD);
		return driver_stop(d);
	default:
		fail_msg("an odd request");
		return -1;
	}
}

static int driver_write(void *arg, int fd, char byte)
{
	struct driver *d = arg;

	assert_int_equal(fd, 7);
	assert_true(d->open);
	d->writes++;
	d->magic = byte == 'V';
	return 0;
}

static int driver_close(void *arg, int fd)
{
	struct driver *d = arg;

	assert_int_equal(fd, 7);
	assert_true(d->open);
	d->open = false;
	if (d->armed && d->magic && !d->no_way_out)
		d->armed = d->magic = false;
	return 0;
}

static bool driver_no_way_out(void *arg, int fd)
{
	(void)fd;
	return ((struct driver *)arg)->no_way_out;
}

static struct watchdog_calls calls_of(struct driver *d)
{
	return (struct watchdog_calls){.arg = d,
				       .open = driver_open,
				       .control = driver_control,
				       .write = driver_write,
				       .close = driver_close,
				       .no_way_out = driver_no_way_out};
}

static void test_life(void **state)
{
	struct driver d = {.most_s = 15, .timeout_s = 15, .boot_status = WDIOF_CARDRESET};
	struct watchdog_calls calls = calls_of(&d);
	struct watchdog w;
	char why[200];

	(void)state;
	assert_int_equal(watchdog_open(&calls, "/dev/watchdog", 10, &w, why, sizeof(why)), 0);
	assert_true(d.armed);
	assert_int_equal(w.timeout_s, 10);
	assert_true(w.reset_before);
	assert_false(w.no_way_out);
	assert_string_equal(w.identity, "A Double? of a driver. No zero.");
	assert_int_equal(watchdog_feed(&w), 0);
	assert_int_equal(d.feeds, 1);
	assert_int_equal(d.writes, 1);
	d.no_keepalive = true;
	assert_int_equal(watchdog_feed(&w), 0);
	assert_int_equal(d.writes, 2);
	assert_false(d.magic); /* feeding must not disarm it */
	assert_true(watchdog_close(&w, true));
	assert_false(d.open);
	assert_false(d.armed);
	/* Once more is nothing. */
	assert_true(watchdog_close(&w, true));
}

/* A process that dies leaves it armed, whatever the one before it left behind. */
static void test_death(void **state)
{
	struct driver d = {.most_s = 15, .timeout_s = 15, .magic = true};
	struct watchdog_calls calls = calls_of(&d);
	struct watchdog w;
	char why[200];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(watchdog_open(&calls, "/dev/watchdog", 15, &w, why, sizeof(why)),
				 0);
		driver_close(&d, 7);
		assert_true(d.armed);
		/* And after a life that ended in order. */
		assert_int_equal(watchdog_open(&calls, "/dev/watchdog", 15, &w, why, sizeof(why)),
				 0);
		assert_true(watchdog_close(&w, true));
		assert_false(d.armed);
	}
}

/* What was asked for, what is in force. */
static void test_timeouts(void **state)
{
	static const struct {
		unsigned most_s;
		bool clamps;
		unsigned before_s, wanted_s, got_s;
	} cases[] = {
		{15, false, 15, 15, 15}, {15, false, 15, 5, 5},
		{15, false, 15, 60, 15}, /* a Raspberry Pi */
		{15, true, 15, 60, 15},	 {65535, false, 60, 300, 300},
		{10, false, 10, 60, 10}, /* cannot do fifteen either: as it was */
		{0, false, 30, 15, 30}, /* cannot be set */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct driver d = {.most_s = cases[i].most_s,
				   .clamps = cases[i].clamps,
				   .timeout_s = cases[i].before_s};
		struct watchdog_calls calls = calls_of(&d);
		struct watchdog w;
		char why[200];

		assert_int_equal(watchdog_open(&calls, "/dev/watchdog", cases[i].wanted_s, &w, why,
					       sizeof(why)),
				 0);
		if (w.timeout_s != cases[i].got_s)
			fail_msg("case %zu: %u s", i, w.timeout_s);
		watchdog_close(&w, true);
	}
}

/* How it ends: what is told is what is so. */
static void test_ends(void **state)
{
	static const struct {
		bool no_way_out, no_options, disarm, told, armed;
	} cases[] = {
		{false, false, true, true, false},  {false, true, true, true, false},
		{true, false, true, false, true},   {true, true, true, false, true},
		{false, false, false, false, true}, /* watchdog-keep */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct driver d = {.most_s = 15,
				   .timeout_s = 15,
				   .no_way_out = cases[i].no_way_out,
				   .no_options = cases[i].no_options};
		struct watchdog_calls calls = calls_of(&d);
		struct watchdog w;
		char why[200];

		assert_int_equal(watchdog_open(&calls, "/dev/watchdog", 15, &w, why, sizeof(why)),
				 0);
		assert_int_equal(w.no_way_out, cases[i].no_way_out);
		if (watchdog_close(&w, cases[i].disarm) != cases[i].told ||
		    d.armed != cases[i].armed || d.open)
			fail_msg("case %zu: armed %d, open %d", i, d.armed, d.open);
	}
}

static void test_refusals(void **state)
{
	static const struct {
		int open_error, support_error;
		unsigned timeout_s;
		int error;
		const char *words;
	} cases[] = {
		{EBUSY, 0, 15, -EBUSY, "RuntimeWatchdogSec=off"},
		{EACCES, 0, 15, -EACCES, "DeviceAllow="},
		{EPERM, 0, 15, -EPERM, "as root"},
		{ENOENT, 0, 15, -ENOENT, "modprobe softdog"},
		{ENODEV, 0, 15, -ENODEV, "dtparam=watchdog=on"},
		{EIO, 0, 15, -EIO, "Input/output error"},
		{0, ENOTTY, 15, -ENOTTY, "this is no watchdog"},
		{0, 0, 0, -EINVAL, "does not say"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct driver d = {.open_error = cases[i].open_error,
				   .support_error = cases[i].support_error,
				   .timeout_s = cases[i].timeout_s};
		struct watchdog_calls calls = calls_of(&d);
		struct watchdog w = {.fd = -1};
		char why[200];

		assert_int_equal(watchdog_open(&calls, "/dev/watchdog", 15, &w, why, sizeof(why)),
				 cases[i].error);
		if (strstr(why, "/dev/watchdog: ") != why || strstr(why, cases[i].words) == NULL)
			fail_msg("case %zu: %s", i, why);
		assert_false(d.open);
		/* A watchdog of which we know too little is let go; what is none is not written to.
		 */
		assert_int_equal(d.writes, cases[i].error == -EINVAL ? 1 : 0);
	}
}

/* The kernel's own calls, on a file that somebody took for a watchdog. */
static void test_no_watchdog(void **state)
{
	char path[] = "/tmp/test_watchdog.XXXXXX";
	int fd = mkstemp(path);
	struct watchdog w;
	char why[200], text[8] = "";
	int rv;

	(void)state;
	assert_int_equal(write(fd, "text", 4), 4);
	close(fd);
	rv = watchdog_open(&watchdog_kernel, path, 15, &w, why, sizeof(why));
	assert_true(rv == -ENOTTY || rv == -ENOSYS); /* the latter: user-mode emulation */
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, text, sizeof(text)), 4);
	assert_string_equal(text, "text");
	close(fd);
	unlink(path);
	assert_int_equal(watchdog_open(&watchdog_kernel, path, 15, &w, why, sizeof(why)), -ENOENT);
}

/* --- what a board has seen lately --- */

static Tb__BoardFacts *seen(struct facts_lately *lately, const struct board_condition *now,
			    uint64_t now_ms)
{
	struct board_facts facts = {.condition = *now};

	facts_lately_note(lately, now, now_ms);
	return facts_message(&facts, lately, now_ms);
}

static void expect_seen(struct facts_lately *lately, int32_t mc, bool under_voltage, bool throttled,
			uint64_t now_ms, const char *expected)
{
	const struct board_condition now = {.temperature_known = true,
					    .temperature_mc = mc,
					    .critical_mc = 90000,
					    .under_voltage = under_voltage,
					    .throttled = throttled};
	Tb__BoardFacts *m = seen(lately, &now, now_ms);
	char text[64];

	snprintf(text, sizeof(text), "%d/%d/%u%s%s", m->temperature, m->hottest, m->critical,
		 m->under_voltage ? " u" : "", m->throttled ? " t" : "");
	assert_string_equal(text, expected);
	tb__board_facts__free_unpacked(m, NULL);
}

static void test_lately(void **state)
{
	struct facts_lately lately = {0};
	const struct board_condition nothing = {0};
	Tb__BoardFacts *m;

	(void)state;
	m = seen(&lately, &nothing, 1000);
	assert_false(m->temperature_known);
	assert_null(m->storage);
	assert_int_equal(m->n_links, 0);
	assert_non_null(strstr(m->hosting_reason, "not known"));
	tb__board_facts__free_unpacked(m, NULL);
	expect_seen(&lately, -1500, false, false, 10000, "-2/-2/90");
	expect_seen(&lately, 40499, true, false, 20000, "40/40/90 u");
	expect_seen(&lately, 81000, false, true, 30000, "81/81/90 u t");
	/* The peak is remembered for two minutes, or nearly so. */
	expect_seen(&lately, 41000, false, false, 69999, "41/81/90 u t");
	expect_seen(&lately, 42000, false, false, 70000, "42/81/90 u t");
	expect_seen(&lately, 43000, false, false, 129999, "43/81/90 u t");
	expect_seen(&lately, 44000, false, false, 139999, "44/44/90 u t");
	expect_seen(&lately, 44000, false, false, 140000, "44/44/90 t");
	expect_seen(&lately, 44000, false, false, 150000, "44/44/90");
	/* A board that was frozen remembers nothing. */
	expect_seen(&lately, 90000, false, false, 160000, "90/90/90");
	expect_seen(&lately, 50000, true, false, 900000, "50/50/90 u");
	/* A sensor that goes away and comes back. */
	tb__board_facts__free_unpacked(seen(&lately, &nothing, 910000), NULL);
	expect_seen(&lately, 20000, false, false, 920000, "20/20/90 u");
}

static void test_same(void **state)
{
	struct board_facts facts = {.model = "A", .kernel = "B"};
	struct facts_lately lately = {0};
	Tb__BoardFacts *one = facts_message(&facts, &lately, 1);
	Tb__BoardFacts *two = facts_message(&facts, &lately, 2);
	Tb__BoardFacts *three, *four;

	(void)state;
	assert_true(facts_same(one, two));
	facts.model[0] = 'C';
	three = facts_message(&facts, &lately, 3);
	assert_false(facts_same(one, three));
	facts.condition.link_count = 1;
	four = facts_message(&facts, &lately, 3);
	assert_false(facts_same(three, four));
	tb__board_facts__free_unpacked(one, NULL);
	tb__board_facts__free_unpacked(two, NULL);
	tb__board_facts__free_unpacked(three, NULL);
	tb__board_facts__free_unpacked(four, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_feeding),	    cmocka_unit_test(test_life),
		cmocka_unit_test(test_death),	    cmocka_unit_test(test_timeouts),
		cmocka_unit_test(test_ends),	    cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_no_watchdog), cmocka_unit_test(test_lately),
		cmocka_unit_test(test_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
