/* What a board does with its placements: each rule of hosting.h as a transcript. Actions are
 * written "start 1.2 @9000": verb, VM, incarnation, deadline. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/hosting.h"
#include "lib/buf.h"
#include "lib/mem.h"
#include "proto/json.h"

enum { SELF = 7, BEGIN = 100000, QUIET = BEGIN + HOSTING_QUIET_MS };

struct bench {
	struct hosting *h;
	uint64_t now;
	uint64_t applied;
	uint64_t due;
	Tb__Vm *vms[4];
	size_t count;
};

static struct hosting_action action_next(struct bench *b, bool *ret_there)
{
	struct hosting_action action = {0};

	*ret_there = hosting_next(b->h, &action);
	return action;
}

static void expect_actions(struct bench *b, const char *expected)
{
	static const char *const verbs[] = {
		[HOSTING_PREPARE] = "prepare", [HOSTING_START] = "start",
		[HOSTING_RENEW] = "renew",     [HOSTING_BUTTON] = "button",
		[HOSTING_KILL] = "kill",       [HOSTING_DISCARD] = "discard",
	};
	struct buf text = {0};
	bool there;

	for (struct hosting_action a = action_next(b, &there); there; a = action_next(b, &there)) {
		buf_printf(&text, "%s%s %" PRIu64 ".%" PRIu64, text.len > 0 ? "; " : "",
			   verbs[a.verb], a.vm, a.incarnation);
		if (a.deadline_ms != 0)
			buf_printf(&text, " @%" PRIu64, a.deadline_ms);
	}
	assert_string_equal(buf_string(&text), expected);
	buf_free(&text);
}

/* "1.2 running +1500" (restarts and well_ms where they are not 0), by VM in the order of the list.
 */
static void expect_report(struct bench *b, const char *expected)
{
	Tb__VmReport **reports;
	size_t count = hosting_report(b->h, &reports, b->now);
	struct buf text = {0};
	char word[64];

	for (size_t i = 0; i < count; i++) {
		const Tb__VmReport *r = reports[i];

		buf_printf(&text, "%s%" PRIu64 ".%" PRIu64 " %s", i > 0 ? "; " : "", r->vm,
			   r->incarnation,
			   json_enum_word(&tb__vm_condition__descriptor, (int)r->condition, word));
		if (r->restarts != 0)
			buf_printf(&text, " r%" PRIu32, r->restarts);
		if (r->well_ms != 0)
			buf_printf(&text, " +%" PRIu64, r->well_ms);
		for (size_t d = 0; d < r->n_home_disks; d++)
			buf_printf(&text, " made %s", r->home_disks[d]);
		if (r->problem[0] != '\0')
			buf_printf(&text, " (%s)", r->problem);
		tb__vm_report__free_unpacked(reports[i], NULL);
	}
	free(reports);
	assert_string_equal(buf_string(&text), expected);
	assert_false(hosting_changed(b->h));
	buf_free(&text);
}

static Tb__Vm *vm_make(const char *json)
{
	struct json_error error;
	ProtobufCMessage *message;

	if (json_decode(&tb__vm__descriptor, json, strlen(json), &message, &error) != 0)
		fail_msg("%s: %s", error.field, error.message);
	return (Tb__Vm *)message;
}

static void vms_clear(struct bench *b)
{
	while (b->count > 0)
		tb__vm__free_unpacked(b->vms[--b->count], NULL);
}

/* A VM of the next model. */
static void vm_add(struct bench *b, unsigned vm, unsigned node, unsigned incarnation,
		   const char *placement, const char *config)
{
	char json[512];

	snprintf(json, sizeof(json),
		 "{\"id\":%u,\"config\":{\"vcpus\":1%s},\"placement\":{\"node\":%u,\"incarnation\":"
		 "%u%s}}",
		 vm, config, node, incarnation, placement);
	b->vms[b->count] = vm_make(json);
	if (b->vms[b->count]->config->restart_attempts == 0)
		b->vms[b->count]->config->restart_attempts = 2;
	if (b->vms[b->count]->config->restart_backoff_ms == 0)
		b->vms[b->count]->config->restart_backoff_ms = 1000;
	b->count++;
}

static void model_give(struct bench *b)
{
	hosting_model(b->h, ++b->applied, (const Tb__Vm *const *)b->vms, b->count, b->now);
	vms_clear(b);
}

/* The model has one VM, with id 1. */
static void model_one(struct bench *b, unsigned incarnation, const char *placement,
		      const char *config)
{
	vm_add(b, 1, SELF, incarnation, placement, config);
	model_give(b);
}

static void model_none(struct bench *b)
{
	model_give(b);
}

static void lease(struct bench *b, uint64_t left_ms)
{
	hosting_lease(b->h, left_ms != 0 ? b->now + left_ms : 0, b->now);
}

static void pass(struct bench *b, uint64_t ms)
{
	b->now += ms;
	b->due = hosting_tick(b->h, b->now);
}

static void news(struct bench *b, unsigned incarnation, enum hosting_news what, const char *problem)
{
	hosting_process(b->h, 1, incarnation, what, problem, b->now);
}

static int setup(void **state)
{
	struct bench *b = mem_zalloc(sizeof(*b));

	b->h = hosting_new(SELF, BEGIN);
	b->now = BEGIN;
	b->applied = 10;
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	hosting_free(b->h);
	vms_clear(b);
	free(b);
	return 0;
}

/* With lease, fence, and past the quiet time. */
static void begin(struct bench *b)
{
	b->now = QUIET;
	hosting_fence(b->h, 5, b->now);
	lease(b, 3000);
	hosting_tick(b->h, b->now);
}

/* VM 1 runs in incarnation 1 until now + 3000. */
static void begin_running(struct bench *b, const char *config)
{
	begin(b);
	model_one(b, 1, "", config);
	expect_actions(b, "prepare 1.1");
	news(b, 1, HOSTING_PREPARED, NULL);
	expect_actions(b, "start 1.1 @106000");
	news(b, 1, HOSTING_RUNS, NULL);
	expect_actions(b, "");
	expect_report(b, "1.1 running");
}

/* What is said of the only VM lasts for so long. */
static void expect_lasts(struct bench *b, uint64_t ms)
{
	Tb__VmReport **reports;

	assert_int_equal(hosting_report(b->h, &reports, b->now), 1);
	assert_int_equal(reports[0]->lasts_ms, ms);
	tb__vm_report__free_unpacked(reports[0], NULL);
	free(reports);
}

/* --- what a start needs ---------------------------------------------------------------------- */

static void test_start(void **state)
{
	struct bench *b = *state;

	begin(b);
	assert_true(hosting_changed(b->h)); /* nothing was ever said */
	expect_report(b, "");
	model_one(b, 1, "", "");
	assert_true(hosting_changed(b->h));
	expect_report(b, "1.1 preparing");
	expect_actions(b, "prepare 1.1");
	pass(b, 500);
	expect_lasts(b, 500);
	news(b, 1, HOSTING_PREPARED, NULL);
	expect_actions(b, "start 1.1 @106000");
	expect_report(b, "1.1 starting");
	expect_lasts(b, 0);
	news(b, 1, HOSTING_RUNS, NULL);
	assert_true(hosting_changed(b->h));
	pass(b, 700);
	expect_report(b, "1.1 running +700");
	news(b, 1, HOSTING_PREPARED, NULL); /* twice */
	expect_report(b, "1.1 running +700");
	expect_actions(b, "");
}

static void test_needs_quiet(void **state)
{
	struct bench *b = *state;

	model_one(b, 1, "", "");
	pass(b, HOSTING_QUIET_MS);
	lease(b, 3000);
	expect_actions(b, ""); /* no leader has said how far its model is */
	b->now = BEGIN;
	hosting_fence(b->h, 5, b->now);
	pass(b, HOSTING_QUIET_MS - 1);
	lease(b, 3000);
	expect_actions(b, "");
	expect_report(b, "1.1 preparing");
	pass(b, 0);
	assert_int_equal(b->due, QUIET);
	pass(b, 1);
	expect_actions(b, "prepare 1.1");
}

static void test_needs_lease(void **state)
{
	struct bench *b = *state;

	begin(b);
	lease(b, 0);
	model_one(b, 1, "", "");
	expect_actions(b, "");
	lease(b, HOSTING_START_MIN_MS - 1); /* too little of it */
	expect_actions(b, "");
	lease(b, 3000);
	expect_actions(b, "prepare 1.1");
	/* Lost while it is prepared. */
	lease(b, 0);
	news(b, 1, HOSTING_PREPARED, NULL);
	expect_actions(b, "");
	lease(b, 2000);
	expect_actions(b, "start 1.1 @105000");
}

static void test_needs_fence(void **state)
{
	static const struct {
		uint64_t fence;
		const char *actions;
	} cases[] = {
		{UINT64_MAX, ""}, /* nothing is known of the leader's model yet */
		{12, ""}, /* this board is one entry behind */
		{11, "prepare 1.1"},
		{3, "prepare 1.1"},
	};
	struct bench *b = *state;

	(void)b;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bench *each;
		void *made;

		setup(&made);
		each = made;
		begin(each);
		hosting_fence(each->h, cases[i].fence, each->now);
		model_one(each, 1, "", "");
		assert_int_equal(each->applied, 11);
		expect_actions(each, cases[i].actions);
		/* A new link: what was prepared is not started. */
		if (cases[i].actions[0] != '\0') {
			hosting_fence(each->h, UINT64_MAX, each->now);
			news(each, 1, HOSTING_PREPARED, NULL);
			expect_actions(each, "");
			hosting_fence(each->h, 11, each->now);
			expect_actions(each, "start 1.1 @106000");
		}
		teardown(&made);
	}
}

/* A VM starts with data disks of which the model knows. */
static void test_needs_known_disks(void **state)
{
	static const char disks[] = ",\"disks\":[{\"kind\":\"data\",\"id\":\"a\"},{\"kind\":"
				    "\"overlay\",\"id\":\"o\"},{\"kind\":\"data\",\"id\":\"b\"}]";
	static const char fewer[] = ",\"disks\":[{\"kind\":\"data\",\"id\":\"a\"}]";
	struct bench *b = *state;

	begin(b);
	model_one(b, 1, "", disks);
	expect_actions(b, "prepare 1.1");
	expect_report(b, "1.1 preparing");
	news(b, 1, HOSTING_PREPARED, NULL);
	expect_actions(b, "");
	assert_true(hosting_changed(b->h)); /* it is said at once */
	expect_report(b, "1.1 preparing made a made b");
	model_one(b, 1, ",\"homeDisks\":[\"b\"]", disks);
	expect_actions(b, "");
	expect_report(b, "1.1 preparing made a");
	model_one(b, 1, ",\"homeDisks\":[\"b\",\"a\"]", disks);
	expect_actions(b, "start 1.1 @106000");
	expect_report(b, "1.1 starting");
	/* Again, in this incarnation and the next: they are known. */
	news(b, 1, HOSTING_FAILED, "crash");
	pass(b, 1000);
	expect_actions(b, "prepare 1.1");
	news(b, 1, HOSTING_PREPARED, NULL);
	expect_actions(b, "start 1.1 @106000");
	news(b, 1, HOSTING_FAILED, "crash");
	model_one(b, 2, ",\"homeDisks\":[\"b\",\"a\"]", disks);
	expect_actions(b, "discard 1.1; prepare 1.2");
	news(b, 2, HOSTING_PREPARED, NULL);
	expect_actions(b, "start 1.2 @106000");
	/* Another home: known is what is there. One that is taken out meanwhile holds up nobody. */
	news(b, 2, HOSTING_FAILED, "crash");
	model_one(b, 3, "", disks);
	expect_actions(b, "discard 1.2; prepare 1.3");
	news(b, 3, HOSTING_PREPARED, NULL);
	expect_report(b, "1.3 preparing made a made b");
	model_one(b, 3, ",\"homeDisks\":[\"a\"]", fewer);
	expect_actions(b, "prepare 1.3"); /* without it: it may be put in again */
	model_one(b, 3, ",\"homeDisks\":[\"a\"]", disks);
	news(b, 3, HOSTING_PREPARED, NULL);
	expect_actions(b, "start 1.3 @106000");
	/* One that is added meanwhile is made at the next start. */
	news(b, 3, HOSTING_FAILED, "crash");
	model_one(b, 4, ",\"homeDisks\":[\"a\"]", fewer);
	expect_actions(b, "discard 1.3; prepare 1.4");
	model_one(b, 4, ",\"homeDisks\":[\"a\"]", disks);
	news(b, 4, HOSTING_PREPARED, NULL);
	expect_actions(b, "start 1.4 @106000");
}

static void test_only_own(void **state)
{
	struct bench *b = *state;

	begin(b);
	vm_add(b, 1, SELF + 1, 1, "", "");
	vm_add(b, 2, SELF, 4, ",\"releasing\":true", "");
	vm_add(b, 3, SELF, 2, "", "");
	model_give(b);
	expect_actions(b, "prepare 3.2");
	expect_report(b, "2.4 released; 3.2 preparing");
}

/* --- renewals and the end of the lease -------------------------------------------------------- */

static void test_renew(void **state)
{
	struct bench *b = *state;

	begin_running(b, "");
	pass(b, 250);
	lease(b, 3000);
	expect_actions(b, ""); /* a quarter of a second is not worth it */
	pass(b, 250);
	lease(b, 3000);
	expect_actions(b, "renew 1.1 @106500");
	pass(b, 499);
	lease(b, 3000);
	expect_actions(b, "");
	pass(b, 1);
	lease(b, 3000);
	expect_actions(b, "renew 1.1 @107000");
}

static void test_lease_ends(void **state)
{
	struct bench *b = *state;

	begin_running(b, "");
	pass(b, 2999);
	assert_int_equal(b->due, b->now + 1);
	expect_actions(b, "");
	pass(b, 1);
	expect_actions(b, "kill 1.1");
	expect_report(b, "1.1 stopping");
	/* A lease that comes back does not bring the process back. */
	lease(b, 3000);
	expect_actions(b, "");
	/* That was no failure of the guest's: at once again, without a wait, and not counted. */
	news(b, 1, HOSTING_FAILED, "killed");
	expect_actions(b, "prepare 1.1");
	expect_report(b, "1.1 preparing");
	news(b, 1, HOSTING_PREPARED, NULL);
	expect_actions(b, "start 1.1 @109000");
	expect_report(b, "1.1 starting r1");
}

static void test_lease_given_up(void **state)
{
	struct bench *b = *state;

	begin_running(b, "");
	lease(b, 0);
	expect_actions(b, "kill 1.1");
	news(b, 1, HOSTING_FAILED, "killed");
	expect_report(b, "1.1 preparing"); /* no failure */
}

/* This daemon was frozen: its processes are dead by now, or will be. */
static void test_frozen(void **state)
{
	struct bench *b = *state;

	begin_running(b, "");
	b->now += 20000;
	lease(b, 3000); /* the core thread was faster */
	expect_actions(b, "kill 1.1");
	news(b, 1, HOSTING_FAILED, "its lease has ended");
	expect_actions(b, "prepare 1.1");
	expect_report(b, "1.1 preparing");
}

/* The process reached its deadline before anybody looked here. */
static void test_lapsed(void **state)
{
	struct bench *b = *state;

	begin_running(b, "");
	b->now += 3000;
	news(b, 1, HOSTING_FAILED, "its lease has ended");
	expect_actions(b, "");
	lease(b, 3000);
	expect_actions(b, "prepare 1.1");
	expect_report(b, "1.1 preparing");
}

/* What it is counted as when its process is gone, by the deadlines that it was told and has taken.
 * Times since it began to run, with a deadline of 3000. */
static void test_lapsed_or_failed(void **state)
{
	enum count { FAILURE, LAPSED, DEAF };
	static const struct {
		const char *name;
		uint64_t told_ms; /* 0: nothing was told */
		uint64_t deadline_ms;
		bool taken;
		uint64_t gone_ms;
		enum hosting_news news;
		enum count count;
		const char *report;
	} cases[] = {
		{"crash", 0, 0, false, 2999, HOSTING_FAILED, FAILURE, "1.1 backing-off (gone)"},
		{"its first deadline", 0, 0, false, 3000, HOSTING_FAILED, LAPSED, "1.1 preparing"},
		{"told too late to be read", 2001, 5000, false, 3000, HOSTING_FAILED, LAPSED,
		 "1.1 preparing"},
		{"told in time, and never read", 2000, 5000, false, 3000, HOSTING_FAILED, DEAF,
		 "1.1 backing-off (gone)"},
		{"a crash before that", 2000, 5000, false, 2999, HOSTING_FAILED, FAILURE,
		 "1.1 backing-off (gone)"},
		{"a renewal that it has taken: a crash", 0, 4000, true, 3500, HOSTING_FAILED,
		 FAILURE, "1.1 backing-off (gone)"},
		{"and the end of that one", 0, 4000, true, 4000, HOSTING_FAILED, LAPSED,
		 "1.1 preparing"},
		{"while it starts", 2500, 5000, false, 3100, HOSTING_REFUSED, LAPSED,
		 "1.1 preparing"},
		{"while it starts, and reads nothing", 0, 4000, false, 3100, HOSTING_REFUSED, DEAF,
		 "1.1 backing-off (gone)"},
		{"a guest that powers off late is off", 2500, 5000, false, 3100, HOSTING_OFF,
		 LAPSED, "1.1 backing-off (gone)"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		enum count count;
		struct bench *b;
		void *made;

		setup(&made);
		b = made;
		begin_running(b, "");
		b->now += cases[i].told_ms;
		if (cases[i].deadline_ms != 0)
			hosting_lease(b->h, QUIET + cases[i].deadline_ms, b->now);
		if (cases[i].taken)
			hosting_renewed(b->h, 1, 1, QUIET + cases[i].deadline_ms, b->now);
		hosting_renewed(b->h, 1, 2, QUIET + 9000, b->now); /* of another */
		b->now += cases[i].gone_ms - cases[i].told_ms;
		count = hosting_lapsed(b->h, 1, 1, b->now) ? LAPSED
			: hosting_deaf(b->h, 1, 1, b->now) ? DEAF
							   : FAILURE;
		if (count != cases[i].count)
			fail_msg("%s: counted as %d", cases[i].name, (int)count);
		news(b, 1, cases[i].news, "gone");
		expect_report(b, cases[i].report);
		teardown(&made);
	}
}

/* It answers one of two: it is asked again since then. */
static void test_deaf_since(void **state)
{
	struct bench *b = *state;

	begin_running(b, "");
	b->now += 500;
	lease(b, 3000);
	b->now += 1900;
	lease(b, 3000);
	expect_actions(b, "renew 1.1 @106500; renew 1.1 @108400");
	b->now += 100;
	hosting_renewed(b->h, 1, 1, QUIET + 3500, b->now);
	b->now += 1000;
	assert_true(hosting_deaf(b->h, 1, 1, b->now));
	hosting_renewed(b->h, 1, 1, QUIET + 5400, b->now);
	assert_false(hosting_deaf(b->h, 1, 1, b->now));
	b->now += 1900;
	assert_true(hosting_lapsed(b->h, 1, 1, b->now));
}

/* --- the placement goes ----------------------------------------------------------------------- */

static void test_release(void **state)
{
	struct bench *b = *state;

	begin_running(b, "");
	model_one(b, 1, ",\"releasing\":true", "");
	expect_actions(b, "button 1.1");
	expect_report(b, "1.1 stopping");
	/* It keeps its lease while its guest shuts down. */
	for (unsigned ms = 0; ms < HOSTING_BUTTON_MS; ms += 1000) {
		char renewal[32];

		lease(b, 3000);
		snprintf(renewal, sizeof(renewal), "renew 1.1 @%" PRIu64, b->now + 3000);
		expect_actions(b, ms != 0 ? renewal : "");
		pass(b, 0);
		assert_int_equal(b->due, ms + 3000 < HOSTING_BUTTON_MS
						 ? b->now + 3000
						 : b->now + HOSTING_BUTTON_MS - ms);
		pass(b, 1000);
	}
	expect_actions(b, "kill 1.1");
	lease(b, 3000);
	expect_actions(b, ""); /* and no longer */
	expect_report(b, "1.1 stopping");
	news(b, 1, HOSTING_FAILED, "killed");
	expect_actions(b, "discard 1.1");
	expect_report(b, "1.1 released");
	/* Never again, whatever comes. */
	pass(b, 500000);
	lease(b, 3000);
	hosting_fence(b->h, 1, b->now);
	expect_actions(b, "");
	model_none(b);
	assert_true(hosting_changed(b->h));
	expect_report(b, "");
	expect_actions(b, "");
}

static void test_release_by_guest(void **state)
{
	struct bench *b = *state;

	begin_running(b, "");
	model_one(b, 1, ",\"releasing\":true", "");
	expect_actions(b, "button 1.1");
	news(b, 1, HOSTING_OFF, NULL);
	expect_actions(b, "discard 1.1");
	expect_report(b, "1.1 released");
}

static void test_release_hard(void **state)
{
	struct bench *b = *state;

	begin_running(b, "");
	model_one(b, 1, ",\"releasing\":true", "");
	expect_actions(b, "button 1.1");
	model_one(b, 1, ",\"releasing\":true,\"hard\":true", "");
	expect_actions(b, "kill 1.1");
	model_one(b, 1, ",\"releasing\":true,\"hard\":true", "");
	expect_actions(b, ""); /* once is enough */
}

/* A guest that does not run yet hears no button. */
static void test_release_while_starting(void **state)
{
	struct bench *b = *state;

	begin(b);
	model_one(b, 1, "", "");
	news(b, 1, HOSTING_PREPARED, NULL);
	expect_actions(b, "prepare 1.1; start 1.1 @106000");
	model_one(b, 1, ",\"releasing\":true", "");
	expect_actions(b, "kill 1.1");
	expect_report(b, "1.1 stopping");
	news(b, 1, HOSTING_RUNS, NULL); /* too late */
	expect_actions(b, "");
	expect_report(b, "1.1 stopping");
	news(b, 1, HOSTING_REFUSED, "killed");
	expect_report(b, "1.1 released");
}

static void test_release_while_preparing(void **state)
{
	struct bench *b = *state;

	begin(b);
	model_one(b, 1, "", "");
	expect_actions(b, "prepare 1.1");
	model_one(b, 1, ",\"releasing\":true", "");
	expect_actions(b, "discard 1.1");
	expect_report(b, "1.1 released");
	news(b, 1, HOSTING_PREPARED, NULL);
	expect_actions(b, "");
	expect_report(b, "1.1 released");
}

/* A process of the daemon of before may still be there until its deadline. */
static void test_no_release_in_quiet_time(void **state)
{
	struct bench *b = *state;

	hosting_fence(b->h, 5, b->now);
	lease(b, 3000);
	model_one(b, 1, ",\"releasing\":true", "");
	expect_report(b, "1.1 stopping");
	pass(b, HOSTING_QUIET_MS - 1);
	expect_report(b, "1.1 stopping");
	assert_int_equal(b->due, QUIET);
	pass(b, 1);
	assert_true(hosting_changed(b->h));
	expect_report(b, "1.1 released");
}

static void test_placement_gone(void **state)
{
	struct bench *b = *state;

	begin_running(b, "");
	model_none(b);
	expect_actions(b, "kill 1.1");
	expect_report(b, "1.1 stopping");
	news(b, 1, HOSTING_FAILED, "killed");
	expect_actions(b, "discard 1.1");
	expect_report(b, "");
}

static void test_other_incarnation(void **state)
{
	struct bench *b = *state;

	begin_running(b, "");
	model_one(b, 2, "", "");
	expect_actions(b, "kill 1.1");
	expect_report(b, "1.1 stopping; 1.2 preparing");
	news(b, 1, HOSTING_FAILED, "killed");
	expect_actions(b, "discard 1.1; prepare 1.2");
	expect_report(b, "1.2 preparing");
	news(b, 1, HOSTING_FAILED, "twice");
	news(b, 1, HOSTING_PREPARED, NULL); /* of the other one */
	expect_actions(b, "");
	news(b, 2, HOSTING_PREPARED, NULL);
	expect_actions(b, "start 1.2 @106000");
	news(b, 2, HOSTING_RUNS, NULL);
	news(b, 1, HOSTING_FAILED, "late");
	expect_report(b, "1.2 running"); /* restarts begin at none */
}

static void test_two_vms(void **state)
{
	struct bench *b = *state;

	begin(b);
	vm_add(b, 1, SELF, 1, "", "");
	vm_add(b, 2, SELF, 1, "", "");
	model_give(b);
	expect_actions(b, "prepare 1.1; prepare 2.1");
	hosting_process(b->h, 2, 1, HOSTING_PREPARED, NULL, b->now);
	expect_actions(b, "start 2.1 @106000");
	hosting_process(b->h, 3, 1, HOSTING_RUNS, NULL, b->now); /* nobody's */
	expect_report(b, "1.1 preparing; 2.1 starting");
	pass(b, 3000);
	expect_actions(b, "kill 2.1");
}

/* --- the guest goes --------------------------------------------------------------------------- */

static void test_back_off(void **state)
{
	static const uint64_t waits[] = {1000, 2000};
	struct bench *b = *state;

	begin_running(b, "");
	for (size_t i = 0; i < 2; i++) {
		news(b, 1, HOSTING_FAILED, "it crashed");
		assert_true(hosting_changed(b->h));
		expect_report(b, i == 0 ? "1.1 backing-off (it crashed)"
					: "1.1 backing-off r1 (it crashed)");
		expect_actions(b, "");
		pass(b, waits[i] - 1);
		lease(b, 3000);
		expect_actions(b, "");
		hosting_tick(b->h, b->now);
		pass(b, 0);
		assert_int_equal(b->due, b->now + 1);
		pass(b, 1);
		expect_actions(b, "prepare 1.1");
		expect_report(
			b, i == 0 ? "1.1 preparing (it crashed)" : "1.1 preparing r1 (it crashed)");
		news(b, 1, HOSTING_PREPARED, NULL);
		bool there;

		assert_int_equal(action_next(b, &there).verb, HOSTING_START);
		news(b, 1, HOSTING_RUNS, NULL);
		expect_report(b, i == 0 ? "1.1 running r1" : "1.1 running r2");
	}
	/* Two attempts were allowed. */
	news(b, 1, HOSTING_FAILED, "it crashed");
	expect_report(b, "1.1 failed r2 (it crashed)");
	pass(b, 1000000);
	lease(b, 3000);
	expect_actions(b, "");
	/* Another incarnation begins afresh. */
	model_one(b, 2, "", "");
	expect_actions(b, "discard 1.1; prepare 1.2");
	expect_report(b, "1.2 preparing");
	news(b, 2, HOSTING_NOT_PREPARED, "x");
	expect_report(b, "1.2 backing-off (x)");
}

static void test_well(void **state)
{
	struct bench *b = *state;

	begin_running(b, ",\"restartAttempts\":1");
	for (int i = 0; i < 3; i++) {
		for (unsigned ms = 0; ms < HOSTING_WELL_MS; ms += 1000) {
			pass(b, 1000);
			lease(b, 3000);
		}
		news(b, 1, HOSTING_FAILED, "it crashed");
		pass(b, 1000);
		lease(b, 3000);
		news(b, 1, HOSTING_PREPARED, NULL);
		news(b, 1, HOSTING_RUNS, NULL);
	}
	expect_report(b, "1.1 running r3");
}

static void test_back_off_limit(void **state)
{
	struct bench *b = *state;

	begin(b);
	model_one(b, 1, "", ",\"restartAttempts\":100,\"restartBackoffMs\":100000");
	for (int i = 0; i < 10; i++) {
		uint64_t wait = i == 0 ? 100000 : i == 1 ? 200000 : 300000;

		expect_actions(b, "prepare 1.1");
		news(b, 1, HOSTING_NOT_PREPARED, "the disk is full");
		expect_report(b, "1.1 backing-off (the disk is full)");
		pass(b, wait - 1);
		lease(b, 3000);
		expect_actions(b, "");
		pass(b, 1);
	}
}

static void test_ends_by_policy(void **state)
{
	static const struct {
		const char *config;
		enum hosting_news news;
		const char *report;
	} cases[] = {
		{"", HOSTING_OFF, "1.1 backing-off"},
		{"", HOSTING_FAILED, "1.1 backing-off (x)"},
		{"", HOSTING_REFUSED, "1.1 backing-off (x)"},
		{",\"restart\":\"on-failure\"", HOSTING_OFF, "1.1 ended"},
		{",\"restart\":\"on-failure\"", HOSTING_FAILED, "1.1 backing-off (x)"},
		{",\"restart\":\"never\"", HOSTING_OFF, "1.1 ended"},
		{",\"restart\":\"never\"", HOSTING_FAILED, "1.1 failed (x)"},
		{",\"restart\":\"never\"", HOSTING_REFUSED, "1.1 failed (x)"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bench *each;
		void *made;

		setup(&made);
		each = made;
		begin_running(each, cases[i].config);
		news(each, 1, cases[i].news, cases[i].news == HOSTING_OFF ? NULL : "x");
		expect_report(each, cases[i].report);
		expect_actions(each, "");
		teardown(&made);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_start, setup, teardown),
		cmocka_unit_test_setup_teardown(test_needs_quiet, setup, teardown),
		cmocka_unit_test_setup_teardown(test_needs_lease, setup, teardown),
		cmocka_unit_test_setup_teardown(test_needs_fence, setup, teardown),
		cmocka_unit_test_setup_teardown(test_needs_known_disks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_only_own, setup, teardown),
		cmocka_unit_test_setup_teardown(test_renew, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lease_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lease_given_up, setup, teardown),
		cmocka_unit_test_setup_teardown(test_frozen, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lapsed, setup, teardown),
		cmocka_unit_test(test_lapsed_or_failed),
		cmocka_unit_test_setup_teardown(test_deaf_since, setup, teardown),
		cmocka_unit_test_setup_teardown(test_release, setup, teardown),
		cmocka_unit_test_setup_teardown(test_release_by_guest, setup, teardown),
		cmocka_unit_test_setup_teardown(test_release_hard, setup, teardown),
		cmocka_unit_test_setup_teardown(test_release_while_starting, setup, teardown),
		cmocka_unit_test_setup_teardown(test_release_while_preparing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_release_in_quiet_time, setup, teardown),
		cmocka_unit_test_setup_teardown(test_placement_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_incarnation, setup, teardown),
		cmocka_unit_test_setup_teardown(test_two_vms, setup, teardown),
		cmocka_unit_test_setup_teardown(test_back_off, setup, teardown),
		cmocka_unit_test_setup_teardown(test_well, setup, teardown),
		cmocka_unit_test_setup_teardown(test_back_off_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ends_by_policy, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
