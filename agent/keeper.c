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

/* --- what the duty says --- */

static void out_news(struct keeper *k, const struct duty_out *out)
{
	if (out->gain_failed)
		log_error("gain-failed",
			  "on-gain failed: the lease is given back, and asked for again in %d s",
			  DUTY_GAIN_AGAIN_MS / 1000);
	if (out->waits)
		log_error("start-waits",
			  "on-loss failed, or there is none: what an earlier run started may still "
			  "run here, so the boards hear nothing from this node until its lease is "
			  "over, %llu s after the start",
			  (unsigned long long)(k->settings->lease_ms + 999) / 1000);
	if (out->stopped)
		log_notice("stopped", "nothing uses the lease of epoch %llu any more",
			   (unsigned long long)k->epoch);
}

static void hook_problem(struct keeper *k, enum duty_hook which, const char *what)
{
	snprintf(k->problem, sizeof(k->problem), "%s %s", hook_names[which], what);
	log_error("hook-failed", "%s", k->problem);
}

/* Carries it out. The library may call on_gained and on_lost meanwhile: it comes last. */
static void obey(struct keeper *k, const struct duty_out *first)
{
	struct duty_out out = *first;
	bool stopped = out.stopped;
	int rv;

	for (;;) {
		out_news(k, &out);
		rv = hook_obey(&k->hook, &out, k->settings, k->epoch);
		if (rv == 0)
			break;
		hook_problem(k, out.run, strerror(-rv));
		out = (struct duty_out){0};
		duty_hook_ended(&k->duty, false, clock_boottime_ms(), &out);
		stopped |= out.stopped;
	}
	if (stopped)
		witness_agent_stopped(k->agent);
	witness_agent_want(k->agent, duty_wants(&k->duty));
}

static void duty_look(struct keeper *k)
{
	struct duty_out out = {0};
	enum duty_hook which = k->duty.running;
	uint64_t now = clock_boottime_ms();
	bool good;

	if (hook_ended(&k->hook, &good)) {
		if (!good)
			hook_problem(k, which, "failed or was killed");
		duty_hook_ended(&k->duty, good, now, &out);
		obey(k, &out);
		out = (struct duty_out){0};
		which = k->duty.running;
	}
	duty_tick(&k->duty, now, &out);
	if (out.abandon)
		hook_problem(k, which, "was killed and does not go away");
	obey(k, &out);
}

/* --- what the library says --- */

static void on_gained(void *arg, uint64_t epoch)
{
	struct keeper *k = arg;
	struct duty_out out = {0};

	k->epoch = epoch;
	k->problem[0] = '\0';
	log_notice("gained", "this node holds the lease of %s, epoch %llu", k->settings->site,
		   (unsigned long long)epoch);
	duty_gained(&k->duty, clock_boottime_ms(), &out);
	obey(k, &out);
}

static void on_lost(void *arg, uint64_t epoch, uint32_t left_ms)
{
	struct keeper *k = arg;
	struct duty_out out = {0};

	log_notice("losing", "the lease of epoch %llu ends in %u ms", (unsigned long long)epoch,
		   left_ms);
	if (left_ms == 0)
		log_error("late", "the lease is over already: this program was not run in time");
	duty_lost(&k->duty, left_ms, clock_boottime_ms(), &out);
	obey(k, &out);
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
		const char *key, const char *ca, bool left, char **ret_message)
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
	struct duty_terms terms = {.lease_ms = s->lease_ms,
				   .stop_ms = s->stop_ms != 0 ? s->stop_ms : s->lease_ms / 4,
				   .left = left,
				   .wish = s->acquire};
	struct duty_out out = {0};
	int rv;

	*k = (struct keeper){.settings = s};
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
	hook_terms(s, terms.has);
	duty_begin(&k->duty, &terms, clock_boottime_ms(), &out);
	obey(k, &out);
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
	unsigned count = 0;

	*timeout_ms = -1;
	if (duty_speaks(&k->duty))
		count = (unsigned)witness_agent_poll(k->agent, fds, timeout_ms);
	if (k->beacon != NULL)
		fds[count++] = (struct pollfd){.fd = beacon_fd(k->beacon), .events = POLLIN};
	due_add(timeout_ms, beacon_due(k->beacon), now);
	due_add(timeout_ms, duty_due(&k->duty), now);
	return count;
}

void keeper_turn(struct keeper *k)
{
	if (duty_speaks(&k->duty))
		witness_agent_turn(k->agent);
	duty_look(k);
	beacon_turn(k->beacon, clock_boottime_ms());
	report(k);
}

void keeper_wish(struct keeper *k, bool wanted)
{
	duty_wish(&k->duty, wanted);
	witness_agent_want(k->agent, duty_wants(&k->duty));
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
	duty_end(&k->duty, clock_boottime_ms());
	witness_agent_want(k->agent, duty_wants(&k->duty));
}

bool keeper_over(const struct keeper *k)
{
	return duty_over(&k->duty, witness_agent_idle(k->agent), clock_boottime_ms());
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
	/* Until what an earlier run left has stopped, the file must go on to say so: the next start
	 * after an early end of this one looks there. */
	text_line(out, "state",
		  words[duty_speaks(&k->duty) || !k->duty.terms.left ? s.state
								     : WITNESS_AGENT_STOPPING]);
	text_line(out, "site", k->settings->site);
	buf_printf(out, "node=%u\nepoch=%llu\nuntil_boot_ms=%llu\n", k->settings->node,
		   (unsigned long long)s.epoch, (unsigned long long)s.until_ms);
	text_line(out, "wanted", s.wanted ? "yes" : "no");
	buf_printf(out, "generation=%llu\nsite_generation=%llu\n",
		   (unsigned long long)k->generation, (unsigned long long)s.site_generation);
	text_line(out, "connected", s.connected ? "yes" : "no");
	text_line(out, "board", s.board);
	text_line(out, "why", s.why);
	text_line(out, "hook", hook_names[k->duty.running]);
	text_line(out, "problem", k->problem);
}
