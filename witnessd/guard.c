/* guard.c: what keeps this board honest, run by the core thread: it reads the facts of the board
 * (board/board.h) beside the loop, since firmware may take its time, and tells them to the leader;
 * and it feeds the board's watchdog from the core's tick, so that a core that hangs ends with a
 * board that starts anew. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "board/feeding.h"
#include "board/root.h"
#include "board/watchdog.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "witnessd/core_internal.h"
#include "witnessd/facts.h"

enum {
	FACTS_MS = 10000, /* from one look at the board to the next, and from one telling */
	WATCHDOG_RETRY_MS = 10000, /* its driver may come late */
};

struct guard {
	/* the facts */
	uv_work_t work;
	bool reading;
	bool read; /* the facts hold something */
	struct board_facts fresh; /* the worker's while it reads */
	struct facts_lately lately;
	Tb__BoardFacts *facts; /* NULL: not yet */
	uint64_t next_ms;
	/* what the leader knows */
	Tb__BoardFacts *told; /* over this link; NULL: nothing yet */
	uint64_t told_ms;
	/* the watchdog */
	char *path; /* NULL: off */
	unsigned timeout_s;
	bool keep; /* stays armed when witnessd ends */
	struct watchdog watchdog;
	struct feeding feeding;
	char problem[320]; /* why it is not armed */
	uint64_t open_ms; /* tried again */
};

/* --- the watchdog --- */

static void watchdog_arm(struct guard *g, uint64_t now_ms)
{
	char why[sizeof(g->problem)];
	int rv;

	g->open_ms = now_ms + WATCHDOG_RETRY_MS;
	rv = watchdog_open(&watchdog_kernel, g->path, g->timeout_s, &g->watchdog, why, sizeof(why));
	if (rv != 0) {
		/* Once for each reason, not every ten seconds. */
		if (strcmp(why, g->problem) != 0)
			log_warning("watchdog-off", "the watchdog is not armed: %s", why);
		memcpy(g->problem, why, sizeof(why));
		return;
	}
	g->problem[0] = '\0';
	g->feeding = feeding_plan(g->watchdog.timeout_s);
	log_notice("watchdog-armed", "%s (%s) resets this board when witnessd hangs for %u s%s",
		   g->path, g->watchdog.identity, g->watchdog.timeout_s,
		   g->watchdog.no_way_out
			   ? "; its driver has nowayout: it cannot be disarmed any more, so the "
			     "board is reset too when witnessd is stopped for so long"
		   : g->keep ? "; it stays armed when witnessd is stopped (watchdog-keep)"
			     : "");
	if (g->watchdog.timeout_s < WATCHDOG_TIMEOUT_MIN)
		log_warning("watchdog-timeout",
			    "the watchdog's timeout is %u s, and its driver takes no more: a crash "
			    "of witnessd may reset this board before systemd has started it again "
			    "(%d s are enough); node.watchdog = off is safer here",
			    g->watchdog.timeout_s, WATCHDOG_TIMEOUT_MIN);
	else if (g->watchdog.timeout_s != g->timeout_s)
		log_notice("watchdog-timeout",
			   "the watchdog's timeout is %u s, not %u s: its driver takes no more",
			   g->watchdog.timeout_s, g->timeout_s);
	if (g->watchdog.reset_before)
		log_warning("watchdog-reset",
			    "the last reset of this board was the watchdog's: witnessd or the "
			    "kernel had hung");
}

static void watchdog_tick(struct guard *g, uint64_t now_ms)
{
	int rv;

	if (g->path == NULL)
		return;
	if (g->watchdog.fd < 0 && now_ms >= g->open_ms)
		watchdog_arm(g, now_ms);
	if (g->watchdog.fd < 0 || !feeding_due(&g->feeding, now_ms))
		return;
	rv = watchdog_feed(&g->watchdog);
	if (rv != 0)
		log_error("watchdog-feed", "%s cannot be fed: %s; the board may be reset", g->path,
			  strerror(-rv));
}

static void watchdog_end(struct guard *g)
{
	if (g->watchdog.fd < 0)
		return;
	if (watchdog_close(&g->watchdog, !g->keep))
		log_notice("watchdog-disarmed", "%s is disarmed", g->path);
	else
		log_warning("watchdog-stays",
			    "%s stays armed: the board is reset in %u s unless witnessd is "
			    "started before",
			    g->path, g->watchdog.timeout_s);
}

/* --- the facts --- */

static void facts_work(uv_work_t *work)
{
	struct guard *g = ((struct core *)work->data)->guard;
	const char *data_dir = ((struct core *)work->data)->data_dir;
	int root = root_open("/");

	if (root < 0)
		return;
	if (g->read)
		board_update(root, data_dir, &g->fresh);
	else
		board_read(root, data_dir, &g->fresh);
	g->read = true;
	close(root);
}

/* What only this process knows of its watchdog. */
static void watchdog_fill(const struct guard *g, Tb__BoardWatchdog *w)
{
	w->armed = g->watchdog.fd >= 0;
	if (w->armed) {
		w->timeout = g->watchdog.timeout_s;
		w->no_way_out = g->watchdog.no_way_out;
	}
	w->problem = mem_strdup(g->problem);
}

static void facts_read(uv_work_t *work, int status)
{
	struct core *c = work->data;
	struct guard *g = c->guard;
	bool first = g->facts == NULL;
	uint64_t now = clock_boottime_ms();

	g->reading = false;
	if (status != 0 || !g->read)
		return;
	facts_lately_note(&g->lately, &g->fresh.condition, now);
	if (!first)
		tb__board_facts__free_unpacked(g->facts, NULL);
	g->facts = facts_message(&g->fresh, &g->lately, now);
	watchdog_fill(g, g->facts->watchdog);
	if (first)
		log_notice("board", "%s: %s",
			   g->facts->model[0] != '\0' ? g->facts->model : "a board without a name",
			   g->facts->hosting_reason);
}

static void facts_tick(struct core *c, uint64_t now_ms)
{
	struct guard *g = c->guard;

	if (g->reading || c->stopping || now_ms < g->next_ms)
		return;
	g->next_ms = now_ms + FACTS_MS;
	g->work.data = c;
	g->reading = uv_queue_work(&c->loop, &g->work, facts_work, facts_read) == 0;
}

const Tb__BoardFacts *guard_facts(const struct core *c)
{
	return c->guard->facts;
}

uint32_t guard_wear(const struct core *c)
{
	const Tb__BoardFacts *facts = guard_facts(c);

	return facts != NULL && facts->storage != NULL ? facts->storage->wear_percent : 0;
}

Tb__BoardFacts *guard_news(struct core *c, uint64_t now_ms)
{
	struct guard *g = c->guard;

	if (g->facts == NULL ||
	    (g->told != NULL && (now_ms - g->told_ms < FACTS_MS || facts_same(g->told, g->facts))))
		return NULL;
	guard_link_changed(c);
	g->told = (Tb__BoardFacts *)message_copy(&g->facts->base);
	g->told_ms = now_ms;
	return g->told;
}

void guard_link_changed(struct core *c)
{
	struct guard *g = c->guard;

	if (g->told != NULL)
		tb__board_facts__free_unpacked(g->told, NULL);
	g->told = NULL;
}

/* --- both --- */

void guard_new(struct core *c, const struct core_config *config)
{
	struct guard *g = mem_zalloc(sizeof(*g));

	g->watchdog.fd = -1;
	g->path = config->watchdog != NULL ? mem_strdup(config->watchdog) : NULL;
	g->timeout_s = config->watchdog_timeout_s;
	g->keep = config->watchdog_keep;
	c->guard = g;
}

void guard_tick(struct core *c, uint64_t now_ms)
{
	watchdog_tick(c->guard, now_ms);
	facts_tick(c, now_ms);
}

void guard_end(struct core *c)
{
	watchdog_end(c->guard);
}

void guard_free(struct core *c)
{
	guard_link_changed(c);
	if (c->guard->facts != NULL)
		tb__board_facts__free_unpacked(c->guard->facts, NULL);
	free(c->guard->path);
	free(c->guard);
}
