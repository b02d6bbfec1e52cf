/* watch.c: the leader's watch for what would make the witness useless (cluster/alarm.h): a few
 * sites per tick, then the boards and certificates, then the difference to the model's alarms goes
 * into the log. And what this board can say of itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/alarm.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "witnessd/addresses.h"
#include "witnessd/core_internal.h"

enum {
	SITES_PER_TICK = 100, /* the core has other things to do */
	CERTIFICATES_PER_TICK = 200,
	PASS_MS = 10000, /* at least, from one pass to the next */
	CHANGES_MAX = 20, /* of one pass */
	RTT_WINDOW_MS = 60000,
	ALARMS_LEVEL = 2, /* of AlarmSet: an upgrade under way silences no alarm */
};

struct watch {
	struct alarm_set set;
	char after[LIMIT_NAME +
		   1]; /* the last site looked at, then serial of the last certificate */
	bool sites_done;
	uint64_t next_ms; /* no pass begins before */
	bool running;
};

/* --- of this board --- */

void watch_renewed(struct core *c, uint64_t rtt_ms, uint64_t now_ms)
{
	if (now_ms - c->rtt_window_ms >= RTT_WINDOW_MS) {
		c->rtt_ms[1] = now_ms - c->rtt_window_ms < 2 * RTT_WINDOW_MS ? c->rtt_ms[0] : 0;
		c->rtt_ms[0] = 0;
		c->rtt_window_ms = now_ms;
	}
	if (rtt_ms > c->rtt_ms[0])
		c->rtt_ms[0] = (uint32_t)rtt_ms;
}

void watch_self(struct core *c, struct board_health *ret)
{
	*ret = (struct board_health){
		.real_ms = clock_realtime_ms(),
		.rtt_ms = c->rtt_ms[0] > c->rtt_ms[1] ? c->rtt_ms[0] : c->rtt_ms[1],
		.disk_ms = (uint32_t)engine_disk_ms(c->engine),
		.wear_percent = guard_wear(c),
		.host_stands = c->host_stands,
		.facts = guard_facts(c),
	};
}

/* --- a pass --- */

struct zones {
	uint64_t ids[LIMIT_NODES];
	char zones[LIMIT_NODES][LIMIT_LABEL_VALUE + 1];
	unsigned count;
};

static int zones_visit(void *arg, const Tb__Node *node)
{
	struct zones *z = arg;

	if (z->count == LIMIT_NODES)
		return 1;
	z->ids[z->count] = node->id;
	snprintf(z->zones[z->count], sizeof(z->zones[0]), "%s", node->zone);
	z->count++;
	return 0;
}

static const char *zone_of(const struct zones *z, uint64_t board)
{
	for (unsigned i = 0; i < z->count; i++)
		if (z->ids[i] == board)
			return z->zones[i];
	return "";
}

struct slice {
	struct core *c;
	struct zones zones;
	unsigned count;
};

static int slice_visit(void *arg, const Tb__Site *row, const Tb__Grant *grant)
{
	struct slice *slice = arg;
	struct core *c = slice->c;
	struct fleet_watch seen;
	struct alarm_site site = {.name = row->name, .zone = ""};

	(void)grant;
	slice->count++;
	snprintf(c->watch->after, sizeof(c->watch->after), "%s", row->name);
	if (!fleet_site_watch(c->fleet, row->name, &seen, clock_boottime_ms()))
		return 0;
	for (size_t i = 0; i < row->n_labels; i++)
		if (strcmp(row->labels[i]->key, "zone") == 0)
			site.zone = row->labels[i]->value;
	for (unsigned i = 0; i < seen.count; i++)
		seen.nodes[i].board_zone = zone_of(&slice->zones, seen.nodes[i].board);
	site.configured = seen.configured;
	site.missing_ms = seen.missing_ms;
	site.nodes = seen.nodes;
	site.count = seen.count;
	site.agents = seen.agents;
	alarm_site_check(&c->watch->set, &site);
	return 0;
}

/* True: these were the last ones. */
static bool watch_sites(struct core *c)
{
	struct store_site_filter filter = {.after_name = c->watch->after, .limit = SITES_PER_TICK};
	struct slice slice = {.c = c};

	store_nodes(c->store, zones_visit, &slice.zones);
	return store_sites(c->store, &filter, slice_visit, &slice, NULL) != 0 ||
	       slice.count < SITES_PER_TICK;
}

static int boards_visit(void *arg, const Tb__Node *node)
{
	struct core *c = arg;
	struct alarm_board board = {.name = node->name};
	struct board_health health;

	board.reachable = lead_health(c, node->id, &health);
	board.skew_ms = health.skew_ms;
	board.rtt_ms = health.rtt_ms;
	board.disk_ms = health.disk_ms;
	board.wear_percent = health.wear_percent;
	board.host_stands = health.host_stands;
	board.facts = health.facts;
	alarm_board_check(&c->watch->set, &board);
	return 0;
}

struct newer {
	const Tb__Certificate *than;
	bool found;
};

static int newer_visit(void *arg, const Tb__Certificate *row)
{
	struct newer *newer = arg;

	newer->found |= !row->revoked && row->node == newer->than->node &&
			row->not_after_ms > newer->than->not_after_ms;
	return newer->found;
}

struct certificates {
	struct core *c;
	unsigned count;
};

static int certificates_visit(void *arg, const Tb__Certificate *row)
{
	struct certificates *slice = arg;
	struct core *c = slice->c;
	struct alarm_certificate certificate = {row->kind, row->subject, row->node, row->issued_ms,
						row->not_after_ms};
	struct newer newer = {.than = row};
	int64_t now = core_now_ms(c);

	slice->count++;
	snprintf(c->watch->after, sizeof(c->watch->after), "%s", row->serial);
	/* Boards renew theirs by themselves. One that has long ended is of somebody who has left.
	 */
	if (row->revoked || strcmp(row->kind, "node") == 0 ||
	    now - row->not_after_ms > row->not_after_ms - row->issued_ms ||
	    row->not_after_ms - now > (row->not_after_ms - row->issued_ms) / ALARM_EXPIRY_PART)
		return 0;
	store_certificates_of(c->store, row->kind, row->subject, newer_visit, &newer);
	if (!newer.found)
		alarm_certificate_check(&c->watch->set, &certificate, now);
	return 0;
}

static bool watch_certificates(struct core *c)
{
	struct certificates slice = {.c = c};

	return store_certificates(c->store, c->watch->after, CERTIFICATES_PER_TICK,
				  certificates_visit, &slice) != 0 ||
	       slice.count < CERTIFICATES_PER_TICK;
}

static void address_visit(void *arg, const char *address, const char *problem)
{
	struct core *c = arg;

	alarm_address_check(&c->watch->set, address, problem);
}

static Tb__Alarm **alarms_add(Tb__Alarm **list, size_t *count, const Tb__Alarm *alarm)
{
	list = mem_realloc(list, (*count + 1) * sizeof(*list));
	list[(*count)++] = (Tb__Alarm *)message_copy(&alarm->base);
	return list;
}

static void watch_change(void *arg, bool raise, const Tb__Alarm *alarm)
{
	Tb__AlarmSet *change = arg;

	if (raise)
		change->raise = alarms_add(change->raise, &change->n_raise, alarm);
	else
		change->clear = alarms_add(change->clear, &change->n_clear, alarm);
}

static void watch_end(struct core *c)
{
	Tb__AlarmSet *change = mem_alloc(sizeof(*change));
	Tb__Command *command;
	Tb__Cluster *cluster;

	tb__alarm_set__init(change);
	if (store_cluster_get(c->store, &cluster) == 0) {
		alarm_set_compare(&c->watch->set, cluster->alarms, cluster->n_alarms, CHANGES_MAX,
				  watch_change, change);
		tb__cluster__free_unpacked(cluster, NULL);
	}
	if (change->n_raise + change->n_clear == 0) {
		tb__alarm_set__free_unpacked(change, NULL);
		return;
	}
	command = proposal_command(mem_strdup("watch"));
	command->op_case = TB__COMMAND__OP_ALARM_SET;
	command->alarm_set = change;
	proposal_one(c, command, NULL, NULL);
}

void watch_tick(struct core *c, uint64_t now_ms)
{
	struct watch *w = c->watch;

	if (w == NULL) {
		/* A new leader: the doors report first, and the leases come. */
		w = mem_zalloc(sizeof(*w));
		w->next_ms = now_ms + PASS_MS;
		c->watch = w;
	}
	if (!w->running && (now_ms < w->next_ms || core_level(c) < ALARMS_LEVEL))
		return;
	if (!w->running) {
		w->running = true;
		w->sites_done = false;
		w->next_ms = now_ms + PASS_MS;
		w->after[0] = '\0';
	}
	if (!w->sites_done) {
		w->sites_done = watch_sites(c);
		if (w->sites_done)
			w->after[0] = '\0';
		return;
	}
	if (!watch_certificates(c))
		return;
	store_nodes(c->store, boards_visit, c);
	addresses_watch(c, address_visit, c);
	watch_end(c);
	alarm_set_clear(&w->set);
	w->running = false;
}

void watch_stop(struct core *c)
{
	if (c->watch == NULL)
		return;
	alarm_set_clear(&c->watch->set);
	free(c->watch);
	c->watch = NULL;
}
