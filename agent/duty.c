#include "agent/duty.h"

#ifdef TIEBREAK_SIM_FAULTS
bool duty_fault_hasty;
#endif

static void hook_run(struct duty *d, enum duty_hook which, uint64_t time_ms, uint64_t now_ms,
		     struct duty_out *out)
{
	d->running = which;
	d->killed = false;
	d->deadline_ms = time_ms != 0 ? now_ms + time_ms : UINT64_MAX;
	out->run = which;
	out->run_ms = time_ms;
}

static void hook_kill(struct duty *d, uint64_t now_ms, struct duty_out *out)
{
	d->killed = true;
	d->deadline_ms = now_ms + DUTY_SPARE_MS;
	out->kill = true;
}

static bool before_running(const struct duty *d)
{
	return d->phase == DUTY_STARTING || d->phase == DUTY_LEAVING;
}

static void loss_over(struct duty *d, struct duty_out *out)
{
	d->loss = DUTY_KEPT;
	if (d->phase == DUTY_STARTING)
		d->phase = DUTY_RUNNING;
	else if (d->phase != DUTY_LEAVING)
		out->stopped = true;
}

static uint64_t loss_left_ms(const struct duty *d, uint64_t now_ms)
{
	return d->loss_end_ms > now_ms ? d->loss_end_ms - now_ms : 0;
}

/* How long on-loss has: all there is, or two thirds if something must follow it. */
static uint64_t loss_time_ms(const struct duty *d, uint64_t now_ms)
{
	uint64_t left = loss_left_ms(d, now_ms);
	uint64_t time = left > DUTY_SPARE_MS ? left - DUTY_SPARE_MS : 0;

	if (before_running(d)) /* when the earlier lease ends is not known: be quick */
		return d->terms.stop_ms;
	if (d->terms.has[DUTY_LOSS_FAILED])
		time = time * 2 / 3;
	/* Too late is no reason not to stop it. */
	return time > DUTY_SPARE_MS ? time : DUTY_SPARE_MS;
}

static void loss_to_time(struct duty *d, struct duty_out *out)
{
	d->loss = DUTY_TO_TIME;
	out->waits = d->phase == DUTY_STARTING;
}

static void loss_failed(struct duty *d, uint64_t now_ms, struct duty_out *out)
{
	uint64_t left = loss_left_ms(d, now_ms);

	loss_to_time(d, out);
	/* The last resort may reboot the machine: not at each boot at which there was nothing to
	 * stop and on-loss made an error of that. */
	if (!d->terms.has[DUTY_LOSS_FAILED] || (before_running(d) && !d->terms.left))
		return;
	hook_run(d, DUTY_LOSS_FAILED, left > DUTY_SPARE_MS ? left : d->terms.stop_ms, now_ms, out);
}

static void loss_start(struct duty *d, uint64_t now_ms, struct duty_out *out)
{
	if (d->terms.has[DUTY_LOSS])
		hook_run(d, DUTY_LOSS, loss_time_ms(d, now_ms), now_ms, out);
	else
		loss_to_time(d, out);
}

void duty_begin(struct duty *d, const struct duty_terms *terms, uint64_t now_ms,
		struct duty_out *out)
{
	*d = (struct duty){.terms = *terms,
			   .phase = DUTY_STARTING,
			   .loss = DUTY_STOPPING,
			   .loss_end_ms = now_ms + terms->lease_ms,
			   .deadline_ms = UINT64_MAX};
	if (terms->has[DUTY_LOSS] || terms->left)
		loss_start(d, now_ms, out);
	else
		loss_over(d, out);
}

void duty_gained(struct duty *d, uint64_t now_ms, struct duty_out *out)
{
	if (d->terms.has[DUTY_GAIN])
		hook_run(d, DUTY_GAIN, 0, now_ms, out);
}

void duty_lost(struct duty *d, uint64_t left_ms, uint64_t now_ms, struct duty_out *out)
{
	d->loss = DUTY_STOPPING;
	d->loss_end_ms = now_ms + left_ms;
	if (d->running == DUTY_GAIN)
		hook_kill(d, now_ms, out); /* on-loss follows when it is gone */
	else
		loss_start(d, now_ms, out);
}

static void gain_ended(struct duty *d, bool good, uint64_t now_ms, struct duty_out *out)
{
	if (d->loss == DUTY_STOPPING) {
		loss_start(d, now_ms, out);
	} else if (!good) {
		d->pause_until_ms = now_ms + DUTY_GAIN_AGAIN_MS;
		out->gain_failed = true;
	}
}

void duty_hook_ended(struct duty *d, bool good, uint64_t now_ms, struct duty_out *out)
{
	enum duty_hook which = d->running;

	d->running = DUTY_NONE;
	d->killed = false;
	d->deadline_ms = UINT64_MAX;
	if (which == DUTY_GAIN)
		gain_ended(d, good, now_ms, out);
	else if (which == DUTY_LOSS && good)
		loss_over(d, out);
	else if (which == DUTY_LOSS)
		loss_failed(d, now_ms, out);
}

void duty_tick(struct duty *d, uint64_t now_ms, struct duty_out *out)
{
	if (d->running != DUTY_NONE && now_ms >= d->deadline_ms) {
		if (d->killed) {
			out->abandon = true;
			duty_hook_ended(d, false, now_ms, out);
		} else {
			hook_kill(d, now_ms, out);
		}
	}
	if (d->loss == DUTY_TO_TIME && d->running == DUTY_NONE && now_ms >= d->loss_end_ms)
		loss_over(d, out);
	if (now_ms >= d->pause_until_ms)
		d->pause_until_ms = 0;
}

void duty_wish(struct duty *d, bool wanted)
{
	d->terms.wish = wanted;
	d->pause_until_ms = 0;
}

void duty_end(struct duty *d, uint64_t now_ms)
{
	if (d->phase == DUTY_ENDING || d->phase == DUTY_LEAVING)
		return;
	d->phase = d->phase == DUTY_STARTING ? DUTY_LEAVING : DUTY_ENDING;
	d->end_by_ms = now_ms + d->terms.lease_ms + DUTY_END_MS;
}

bool duty_speaks(const struct duty *d)
{
	return !before_running(d) || DUTY_FAULTY;
}

bool duty_wants(const struct duty *d)
{
	return d->phase == DUTY_RUNNING && d->terms.wish && d->pause_until_ms == 0;
}

bool duty_over(const struct duty *d, bool idle, uint64_t now_ms)
{
	if (d->phase == DUTY_LEAVING)
		return d->running == DUTY_NONE || now_ms >= d->end_by_ms;
	if (d->phase != DUTY_ENDING)
		return false;
	return (d->loss == DUTY_KEPT && d->running == DUTY_NONE && idle) || now_ms >= d->end_by_ms;
}

static void due_add(uint64_t *due, uint64_t ms)
{
	if (ms < *due)
		*due = ms;
}

uint64_t duty_due(const struct duty *d)
{
	uint64_t due = UINT64_MAX;

	if (d->running != DUTY_NONE)
		due_add(&due, d->deadline_ms);
	if (d->loss == DUTY_TO_TIME && d->running == DUTY_NONE && d->phase != DUTY_LEAVING)
		due_add(&due, d->loss_end_ms);
	if (d->pause_until_ms != 0)
		due_add(&due, d->pause_until_ms);
	if (d->phase == DUTY_ENDING || d->phase == DUTY_LEAVING)
		due_add(&due, d->end_by_ms);
	return due;
}
