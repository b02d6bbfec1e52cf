/* duty.h: which hook runs when, by tables of what happens and what must follow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "agent/duty.h"
#include "lib/buf.h"

enum { LEASE_MS = 10000, STOP_MS = 2000 };

/* What happens, at which time, and what comes of it, in words: "kill", "abandon", "gain MS",
 * "loss MS", "loss-failed MS", "gain-failed", "waits", "stopped". */
struct step {
	uint64_t at_ms;
	enum {
		BEGIN,
		LEFT, /* begin after a run that ended with the lease */
		GAINED,
		LOST, /* 4000 ms before the end */
		GOOD, /* the hook ends so */
		BAD,
		TICK,
		END,
	} what;
	const char *expected;
	bool speaks; /* to the boards, afterwards */
};

static const char *out_text(const struct duty_out *out, struct buf *text)
{
	static const char *const hooks[] = {"", "gain", "loss", "loss-failed"};

	buf_clear(text);
	if (out->kill)
		buf_puts(text, "kill ");
	if (out->abandon)
		buf_puts(text, "abandon ");
	if (out->run != DUTY_NONE)
		buf_printf(text, "%s %llu ", hooks[out->run], (unsigned long long)out->run_ms);
	if (out->gain_failed)
		buf_puts(text, "gain-failed ");
	if (out->waits)
		buf_puts(text, "waits ");
	if (out->stopped)
		buf_puts(text, "stopped ");
	if (text->len > 0)
		text->len--;
	return buf_string(text);
}

static void step_take(struct duty *d, struct duty_terms terms, const struct step *s,
		      struct duty_out *out)
{
	switch (s->what) {
	case LEFT:
	case BEGIN:
		terms.left = s->what == LEFT;
		duty_begin(d, &terms, s->at_ms, out);
		break;
	case GAINED:
		duty_gained(d, s->at_ms, out);
		break;
	case LOST:
		duty_lost(d, 4000, s->at_ms, out);
		break;
	case GOOD:
	case BAD:
		duty_hook_ended(d, s->what == GOOD, s->at_ms, out);
		break;
	case TICK:
		duty_tick(d, s->at_ms, out);
		break;
	case END:
		duty_end(d, s->at_ms);
		break;
	}
}

/* hooks: some of "gls": gain, loss, loss-failed. */
static struct duty run(const char *name, const char *hooks, const struct step *steps, size_t count)
{
	const struct duty_terms terms = {.has = {[DUTY_GAIN] = strchr(hooks, 'g') != NULL,
						 [DUTY_LOSS] = strchr(hooks, 'l') != NULL,
						 [DUTY_LOSS_FAILED] = strchr(hooks, 's') != NULL},
					 .lease_ms = LEASE_MS,
					 .stop_ms = STOP_MS,
					 .wish = true};
	struct buf text = {0};
	struct duty d;

	for (size_t i = 0; i < count; i++) {
		struct duty_out out = {0};

		step_take(&d, terms, &steps[i], &out);
		if (strcmp(out_text(&out, &text), steps[i].expected) != 0)
			fail_msg("%s, step %zu: \"%s\" instead of \"%s\"", name, i,
				 out_text(&out, &text), steps[i].expected);
		if (duty_speaks(&d) != steps[i].speaks)
			fail_msg("%s, step %zu: the boards are %sspoken to", name, i,
				 duty_speaks(&d) ? "" : "not ");
	}
	buf_free(&text);
	return d;
}

#define RUN(name, hooks, ...)                                                                      \
	run(name, hooks, (const struct step[]){__VA_ARGS__},                                       \
	    sizeof((const struct step[]){__VA_ARGS__}) / sizeof(struct step))

/* The boards hear nothing before on-loss has ended well, or the lease of an earlier run is over. */
static void test_start(void **state)
{
	struct duty d;

	(void)state;
	d = RUN("well", "gls", {1000, BEGIN, "loss 2000", false}, {2000, TICK, "", false},
		{2100, GOOD, "", true});
	assert_true(duty_wants(&d));
	d = RUN("failed", "gl", {1000, BEGIN, "loss 2000", false}, {2000, BAD, "waits", false},
		{10999, TICK, "", false});
	assert_false(duty_wants(&d));
	assert_int_equal(duty_due(&d), 11000);
	RUN("failed, and its lease is over", "gl", {1000, BEGIN, "loss 2000", false},
	    {2000, BAD, "waits", false}, {11000, TICK, "", true});
	RUN("killed", "gl", {1000, BEGIN, "loss 2000", false}, {2999, TICK, "", false},
	    {3000, TICK, "kill", false}, {3001, BAD, "waits", false}, {11000, TICK, "", true});
	RUN("the last resort", "gls", {1000, LEFT, "loss 2000", false},
	    {2000, BAD, "loss-failed 9000 waits", false}, {2500, GOOD, "", false},
	    {10999, TICK, "", false}, {11000, TICK, "", true});
	RUN("the last resort is late", "gls", {1000, LEFT, "loss 2000", false},
	    {2000, BAD, "loss-failed 9000 waits", false}, {11000, TICK, "kill", false},
	    {11050, TICK, "abandon", true});
	RUN("nothing was left: no last resort", "gls", {1000, BEGIN, "loss 2000", false},
	    {2000, BAD, "waits", false}, {11000, TICK, "", true});
	RUN("no on-loss", "", {1000, BEGIN, "", true});
	RUN("no on-loss, and something was left", "", {1000, LEFT, "waits", false},
	    {10999, TICK, "", false}, {11000, TICK, "", true});
}

static void test_lost(void **state)
{
	struct duty d;

	(void)state;
#define BEGUN {0, BEGIN, "loss 2000", false}, {100, GOOD, "", true}, {200, GAINED, "gain 0", true}
	RUN("well", "gl", BEGUN, {300, GOOD, "", true}, {1000, LOST, "loss 3950", true},
	    {2000, GOOD, "stopped", true});
	RUN("on-loss failed", "gl", BEGUN, {300, GOOD, "", true}, {1000, LOST, "loss 3950", true},
	    {2000, BAD, "", true}, {4999, TICK, "", true}, {5000, TICK, "stopped", true});
	RUN("two thirds, and the last resort", "gls", BEGUN, {300, GOOD, "", true},
	    {1000, LOST, "loss 2633", true}, {3633, TICK, "kill", true},
	    {3634, BAD, "loss-failed 1366", true}, {4000, GOOD, "", true},
	    {5000, TICK, "stopped", true});
	RUN("on-gain is killed first", "gl", BEGUN, {1000, LOST, "kill", true},
	    {1010, BAD, "loss 3940", true}, {2000, GOOD, "stopped", true});
	/* A process that waits for a disk is not ended by a kill. */
	RUN("on-gain does not go away", "gl", BEGUN, {1000, LOST, "kill", true},
	    {1049, TICK, "", true}, {1050, TICK, "abandon loss 3900", true},
	    {2000, GOOD, "stopped", true});
	RUN("on-loss does not go away", "gls", BEGUN, {300, GOOD, "", true},
	    {1000, LOST, "loss 2633", true}, {3633, TICK, "kill", true}, {3682, TICK, "", true},
	    {3683, TICK, "abandon loss-failed 1317", true}, {4000, BAD, "", true},
	    {5000, TICK, "stopped", true});
	RUN("neither does the last resort", "gls", BEGUN, {300, GOOD, "", true},
	    {1000, LOST, "loss 2633", true}, {2000, BAD, "loss-failed 3000", true},
	    {5000, TICK, "kill", true}, {5049, TICK, "", true},
	    {5050, TICK, "abandon stopped", true});
	/* What could not be started has failed. */
	RUN("on-loss cannot be started", "gls", BEGUN, {300, GOOD, "", true},
	    {1000, LOST, "loss 2633", true}, {1000, BAD, "loss-failed 4000", true});
	/* Nobody says when those have stopped who ask for themselves. */
	RUN("no on-loss", "g", {0, BEGIN, "", true}, {200, GAINED, "gain 0", true},
	    {300, GOOD, "", true}, {1000, LOST, "", true}, {4999, TICK, "", true},
	    {5000, TICK, "stopped", true});
	d = RUN("a gain that fails", "gl", BEGUN, {300, BAD, "gain-failed", true});
	assert_false(duty_wants(&d));
	assert_int_equal(duty_due(&d), 300 + DUTY_GAIN_AGAIN_MS);
	d = RUN("it is asked for again", "gl", BEGUN, {300, BAD, "gain-failed", true},
		{300 + DUTY_GAIN_AGAIN_MS, TICK, "", true});
	assert_true(duty_wants(&d));
}

static void test_end(void **state)
{
	struct duty d;

	(void)state;
	d = RUN("in order", "gl", BEGUN, {300, GOOD, "", true}, {1000, END, "", true});
	assert_false(duty_wants(&d));
	assert_false(duty_over(&d, false, 1000));
	assert_true(duty_over(&d, true, 1000));
	assert_true(duty_over(&d, false, 1000 + LEASE_MS + DUTY_END_MS));
	d = RUN("while it stops", "gl", BEGUN, {300, GOOD, "", true}, {1000, END, "", true},
		{1000, LOST, "loss 3950", true});
	assert_false(duty_over(&d, true, 1000));
	/* Before on-loss has ended: the boards hear nothing, also not on the way out. */
	d = RUN("at the start", "gls", {1000, LEFT, "loss 2000", false}, {1100, END, "", false});
	assert_false(duty_over(&d, true, 1100));
	d = RUN("at the start, well", "gls", {1000, LEFT, "loss 2000", false},
		{1100, END, "", false}, {1200, GOOD, "", false});
	assert_true(duty_over(&d, true, 1200));
	d = RUN("at the start, failed", "gls", {1000, LEFT, "loss 2000", false},
		{1100, END, "", false}, {1200, BAD, "loss-failed 9800", false});
	assert_false(duty_over(&d, true, 1200));
	d = RUN("at the start, failed", "gls", {1000, LEFT, "loss 2000", false},
		{1100, END, "", false}, {1200, BAD, "loss-failed 9800", false},
		{1300, GOOD, "", false});
	assert_true(duty_over(&d, true, 1300));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start),
		cmocka_unit_test(test_lost),
		cmocka_unit_test(test_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
