/* alarm.h: what makes a witness useless on the day it is needed, seen before that day. Pure.
 *
 * The leader looks at sites, boards and certificates, a few at a time; what holds is collected in a
 * set, and a full pass is compared with the alarms in the model: the difference is one command. So
 * an alarm outlives a change of leader, and writes to the log when it begins and when it ends. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/limits.h"
#include "proto/model.pb-c.h"

enum {
	ALARM_ALONE_MS = 300000, /* a site with a node missing for so long */
	ALARM_LATE_PART = 4, /* a round trip above 1/4 of the interval that it must fit in */
	ALARM_SKEW_MS = 30000, /* of a board's clock against the cluster's time */
	ALARM_DISK_MS = 500, /* a write of the log; elections begin after 800 ms */
	ALARM_WEAR_PERCENT = 80, /* of the card's life */
	ALARM_HOT = 80, /* degrees Celsius; a Raspberry Pi begins to slow down */
	ALARM_HOT_MARGIN = 10, /* degrees below those at which a board switches itself off */
	ALARM_EXPIRY_PART = 6, /* the last sixth of a certificate's life */
};

/* Is a round trip near the time in which it must come? `was`: it was so far; that is over when it
 * is clearly better, not when it wavers. */
bool alarm_late(uint32_t rtt_ms, uint32_t within_ms, bool was);

struct alarm_site_node {
	uint32_t node_id;
	const char *address; /* "10.0.0.1:34346" */
	uint64_t board;
	const char *board_zone; /* "" none */
	uint32_t rtt_ms; /* 0: no trouble */
	uint32_t within_ms; /* an answer must come: the heartbeat, or a part of an agent's lease */
};

struct alarm_site {
	const char *name;
	const char *zone; /* label "zone", "" none */
	unsigned configured; /* nodes, 0: not told */
	uint64_t missing_ms; /* for so long not all are attached; 0: all are */
	const struct alarm_site_node *nodes;
	unsigned count;
	bool agents; /* its nodes run witness-agent */
};

struct alarm_board {
	const char *name;
	bool reachable; /* else nothing else is known */
	int64_t skew_ms;
	uint32_t rtt_ms; /* of the newest lease renewals, the longest */
	uint32_t disk_ms; /* of the newest writes of the log, the longest */
	uint32_t wear_percent; /* 0: not known */
	bool host_stands; /* the thread that renews its VMs hangs */
	const Tb__BoardFacts *facts; /* NULL: not known */
};

struct alarm_certificate {
	const char *kind; /* "site", "client", "agent" */
	const char *subject;
	uint32_t node; /* of the site, kind "agent" */
	int64_t issued_ms;
	int64_t not_after_ms;
};

/* What was found in a pass. */
struct alarm_set {
	Tb__Alarm *items[LIMIT_ALARMS]; /* owned; by kind and subject */
	unsigned count;
	unsigned left_out; /* there was no room for */
};
void alarm_set_clear(struct alarm_set *set);

void alarm_site_check(struct alarm_set *set, const struct alarm_site *site);
void alarm_board_check(struct alarm_set *set, const struct alarm_board *board);
void alarm_certificate_check(struct alarm_set *set, const struct alarm_certificate *certificate,
			     int64_t now_ms);

/* A service address that no board has. */
void alarm_address_check(struct alarm_set *set, const char *address, const char *problem);

/* Compares with the alarms of the model (sorted as the set). `each` hears of those to be raised and
 * those to be cleared, at most `max` of them: the rest comes with the next pass. An alarm whose
 * sentence has changed is left as it is. Returns how many. */
typedef void (*alarm_change)(void *arg, bool raise, const Tb__Alarm *alarm);
unsigned alarm_set_compare(const struct alarm_set *set, Tb__Alarm *const *rows, size_t row_count,
			   unsigned max, alarm_change each, void *arg);
/* Their order. */
int alarm_order(const Tb__Alarm *one, const Tb__Alarm *two);
