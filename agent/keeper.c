#include "agent/keeper.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/file.h"
#include "agent/identity_files.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/text.h"

static const char *const hook_names[] = {"", "on-gain", "on-loss", "on-loss-failed"};

static void want_update(struct keeper *k)
{
	bool paused = k->pause_until_ms > clock_boottime_ms();

	if (!paused)
		k->pause_until_ms = 0;
	witness_agent_want(k->agent, k->phase == KEEPER_RUNNING && k->wish && !paused);
}

/* --- hooks --- */

static const char *hook_command(const struct keeper *k, enum keeper_hook which)
{
	switch (which) {
	case HOOK_GAIN:
		return k->settings->on_gain;
	case HOOK_LOSS:
		return k->settings->on_loss;
	case HOOK_LOSS_FAILED:
		return k->settings->on_loss_failed;
	default:
		return NULL;
	}
}

/* False: there is none, or it could not be started. */
static bool hook_run(struct keeper *k, enum keeper_hook which, uint64_t time_ms)
{
	static const char *const events[] = {"", "gain", "loss", "loss-failed"};
	const struct hook_call call = {.command = hook_command(k, which),
				       .event = events[which],
				       .settings = k->settings,
				       .epoch = k->epoch,
				       .time_ms = time_ms};
	int rv;

	if (call.command == NULL)
		return false;
	rv = hook_start(&k->hook, &call, clock_boottime_ms());
	if (rv != 0) {
		snprintf(k->problem, sizeof(k->problem), "%s could not be started: %s",
			 hook_names[which], strerror(-rv));
		log_error("hook-failed", "%s", k->problem);
		return false;
	}
	k->running = which;
	return true;
}

static void lost_over(struct keeper *k)
{
	k->lost = false;
	k->loss_failed = false;
	log_notice("stopped", "nothing uses the lease of epoch %llu any more",
		   (unsigned long long)k->epoch);
	witness_agent_stopped(k->agent);
	want_update(k);
}

/* How long on-loss has: all there is, or two thirds if something must follow it. */
static uint64_t loss_time(const struct keeper *k, uint64_t left_ms)
{
	uint64_t time = left_ms > KEEPER_SPARE_MS ? left_ms - KEEPER_SPARE_MS : 0;

	if (k->settings->on_loss_failed != NULL)
		time = time * 2 / 3;
	/* Too late is no reason not to stop it. */
	return time > KEEPER_SPARE_MS ? time : KEEPER_SPARE_MS;
}

static void loss_start(struct keeper *k, uint64_t left_ms)
{
	if (k->settings->on_loss == NULL) {
		if (k->lost)
			lost_over(k);
	} else if (!hook_run(k, HOOK_LOSS, loss_time(k, left_ms))) {
		k->loss_failed = true;
	}
}

static uint64_t stop_time(const struct keeper *k)
{
	return k->settings->stop_ms != 0 ? k->settings->stop_ms : k->settings->lease_ms / 4;
}

static void running_begin(struct keeper *k)
{
	if (k->phase == KEEPER_STARTING)
		k->phase = KEEPER_RUNNING;
	want_update(k);
}

static void gain_ended(struct keeper *k, bool good)
{
	if (good || k->lost)
		return;
	k->pause_until_ms = clock_boottime_ms() + KEEPER_GAIN_AGAIN_MS;
	log_error("gain-failed",
		  "on-gain failed: the lease is given back, and asked for again in "
		  "%d s",
		  KEEPER_GAIN_AGAIN_MS / 1000);
	want_update(k);
}

static void loss_ended(struct keeper *k, bool good)
{
	uint64_t now = clock_boottime_ms();
	uint64_t left = k->lost_end_ms > now ? k->lost_end_ms - now : 0;

	if (!k->lost) { /* the one at the start */
		running_begin(k);
		return;
	}
	if (good) {
		lost_over(k);
		return;
	}
	k->loss_failed = true;
	hook_run(k, HOOK_LOSS_FAILED, left > KEEPER_SPARE_MS ? left : stop_time(k));
}

static void hook_look(struct keeper *k)
{
	enum keeper_hook which = k->running;
	bool good;

	if (!hook_ended(&k->hook, clock_boottime_ms(), &good))
		return;
	k->running = HOOK_NONE;
	if (!good) {
		snprintf(k->problem, sizeof(k->problem), "%s failed or was killed",
			 hook_names[which]);
		log_error("hook-failed", "%s", k->problem);
	}
	switch (which) {
	case HOOK_GAIN:
		gain_ended(k, good);
		break;
	case HOOK_LOSS:
		loss_ended(k, good);
		break;
	default:
		break;
	}
	/* A loss came while something else ran. */
	if (k->lost && k->running == HOOK_NONE && which == HOOK_GAIN) {
		uint64_t now = clock_boottime_ms();

		loss_start(k, k->lost_end_ms > now ? k->lost_end_ms - now : 0);
	}
}

/* --- what the library says --- */

static void on_gained(void *arg, uint64_t epoch)
{
	struct keeper *k = arg;

	k->epoch = epoch;
	k->problem[0] = '\0';
	log_notice("gained", "this node holds the lease of %s, epoch %llu", k->settings->site,
		   (unsigned long long)epoch);
	if (k->settings->on_gain != NULL && !hook_run(k, HOOK_GAIN, 0))
		gain_ended(k, false);
}

static void on_lost(void *arg, uint64_t epoch, uint32_t left_ms)
{
	struct keeper *k = arg;

	k->lost = true;
	k->loss_failed = false;
	k->lost_end_ms = clock_boottime_ms() + left_ms;
	log_notice("losing", "the lease of epoch %llu ends in %u ms", (unsigned long long)epoch,
		   left_ms);
	if (left_ms == 0)
		log_error("late", "the lease is over already: this program was not run in time");
	if (k->running == HOOK_GAIN)
		hook_kill(&k->hook); /* on-loss follows when it is gone */
	else
		loss_start(k, left_ms);
}

static void on_news(void *arg, const char *text)
{
	(void)arg;
	log_info("board", "%s", text);
}

/* --- life --- */

static char *generation_path(const struct settings *s)
{
	return mem_printf("%s/generation", s->state_dir);
}

static void generation_load(struct keeper *k)
{
	char *path = generation_path(k->settings);
	char *text = NULL;

	if (file_read(path, 32, &text) == 0) {
		text[strcspn(text, "\n")] = '\0';
		(void)text_to_u64(text, 0, UINT64_MAX, &k->generation);
	}
	free(text);
	free(path);
}

static void report(struct keeper *k)
{
	uint64_t now = clock_boottime_ms();
	uint32_t seen[WITNESS_AGENT_NODES];

	witness_agent_report(k->agent, k->generation, seen, beacon_seen(k->beacon, now, seen));
}

int keeper_generation(struct keeper *k, uint64_t generation)
{
	char *path = generation_path(k->settings);
	char text[32];
	int rv;

	snprintf(text, sizeof(text), "%llu\n", (unsigned long long)generation);
	rv = file_write(path, text, 0644);
	free(path);
	if (rv != 0)
		return rv;
	k->generation = generation;
	report(k);
	return 0;
}

int keeper_open(struct keeper *k, const struct settings *s, const char *certificate,
		const char *key, const char *ca, char **ret_message)
{
	char host[WITNESS_AGENT_NODES + 1] = "";
	char why[WITNESS_AGENT_TEXT] = "";
	uint32_t nodes[WITNESS_AGENT_NODES];
	struct witness_agent_options options = {
		.boards = (const char *const *)s->boards,
		.certificate = certificate,
		.key = key,
		.ca = ca,
		.node = s->node,
		.nodes = nodes,
		.node_count = settings_nodes(s, nodes),
		.name = host,
		.lease_ms = (uint32_t)s->lease_ms,
		.stop_ms = (uint32_t)s->stop_ms,
		.arg = k,
		.gained = on_gained,
		.lost = on_lost,
		.news = on_news,
	};
	int rv;

	*k = (struct keeper){.settings = s, .wish = s->acquire};
	gethostname(host, sizeof(host) - 1);
	rv = beacon_open(s, clock_boottime_ms(), &k->beacon, ret_message);
	if (rv != 0)
		return rv;
	rv = witness_agent_new(&options, &k->agent, why);
	if (rv != 0) {
		*ret_message = mem_strdup(why);
		beacon_close(k->beacon);
		return rv;
	}
	generation_load(k);
	if (s->on_loss == NULL || !hook_run(k, HOOK_LOSS, stop_time(k)))
		running_begin(k);
	return 0;
}

void keeper_close(struct keeper *k)
{
	hook_kill(&k->hook);
	witness_agent_free(k->agent);
	beacon_close(k->beacon);
}

static void due_add(int *timeout_ms, uint64_t due, uint64_t now)
{
	int left = due <= now ? 0 : due - now < 3600000 ? (int)(due - now) : 3600000;

	if (due != UINT64_MAX && (*timeout_ms < 0 || left < *timeout_ms))
		*timeout_ms = left;
}

unsigned keeper_poll(struct keeper *k, struct pollfd fds[2], int *timeout_ms)
{
	uint64_t now = clock_boottime_ms();
	unsigned count = (unsigned)witness_agent_poll(k->agent, fds, timeout_ms);

	if (k->beacon != NULL)
		fds[count++] = (struct pollfd){.fd = beacon_fd(k->beacon), .events = POLLIN};
	due_add(timeout_ms, beacon_due(k->beacon), now);
	if (k->hook.pid != 0 && !k->hook.killed)
		due_add(timeout_ms, k->hook.deadline_ms, now);
	if (k->loss_failed)
		due_add(timeout_ms, k->lost_end_ms, now);
	if (k->pause_until_ms != 0)
		due_add(timeout_ms, k->pause_until_ms, now);
	if (k->phase == KEEPER_ENDING)
		due_add(timeout_ms, k->end_by_ms, now);
	return count;
}

void keeper_turn(struct keeper *k)
{
	uint64_t now;

	witness_agent_turn(k->agent);
	hook_look(k);
	now = clock_boottime_ms();
	if (k->loss_failed && now >= k->lost_end_ms && k->running == HOOK_NONE)
		lost_over(k);
	if (k->pause_until_ms != 0 && now >= k->pause_until_ms)
		want_update(k);
	beacon_turn(k->beacon, now);
	report(k);
}

void keeper_wish(struct keeper *k, bool wanted)
{
	k->wish = wanted;
	k->pause_until_ms = 0;
	want_update(k);
}

int keeper_reload(struct keeper *k, char why[WITNESS_AGENT_TEXT])
{
	struct identity_files files;
	const char *problem = "";
	int rv = identity_files_read(k->settings->state_dir, &files, &problem);

	if (rv != 0) {
		snprintf(why, WITNESS_AGENT_TEXT, "%.250s", problem);
		return rv;
	}
	rv = witness_agent_identity(k->agent, files.certificate, files.key, files.ca, why);
	identity_files_free(&files);
	return rv;
}

void keeper_end(struct keeper *k)
{
	if (k->phase == KEEPER_ENDING)
		return;
	k->phase = KEEPER_ENDING;
	k->end_by_ms = clock_boottime_ms() + k->settings->lease_ms + KEEPER_END_MS;
	want_update(k);
}

bool keeper_over(const struct keeper *k)
{
	if (k->phase != KEEPER_ENDING)
		return false;
	return (!k->lost && k->running == HOOK_NONE && witness_agent_idle(k->agent)) ||
	       clock_boottime_ms() >= k->end_by_ms;
}

/* Values of others: nothing in them may end the line or the quotes. */
static void text_line(struct buf *out, const char *name, const char *value)
{
	buf_printf(out, "%s=\"", name);
	for (; *value != '\0'; value++)
		buf_putc(out, strchr("\"\\$`\n", *value) != NULL || (unsigned char)*value < ' '
				      ? '\''
				      : *value);
	buf_puts(out, "\"\n");
}

void keeper_status(const struct keeper *k, struct buf *out)
{
	static const char *const words[] = {"idle", "waiting", "held", "stopping"};
	struct witness_agent_status s;

	witness_agent_status(k->agent, &s);
	text_line(out, "state", words[s.state]);
	text_line(out, "site", k->settings->site);
	buf_printf(out, "node=%u\nepoch=%llu\nuntil_boot_ms=%llu\n", k->settings->node,
		   (unsigned long long)s.epoch, (unsigned long long)s.until_ms);
	text_line(out, "wanted", s.wanted ? "yes" : "no");
	buf_printf(out, "generation=%llu\nsite_generation=%llu\n",
		   (unsigned long long)k->generation, (unsigned long long)s.site_generation);
	text_line(out, "connected", s.connected ? "yes" : "no");
	text_line(out, "board", s.board);
	text_line(out, "why", s.why);
	text_line(out, "hook", hook_names[k->running]);
	text_line(out, "problem", k->problem);
}
