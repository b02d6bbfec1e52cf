#include "cluster/alarm.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

/* --- the set --- */

int alarm_order(const Tb__Alarm *one, const Tb__Alarm *two)
{
	int order = strcmp(one->kind, two->kind);

	return order != 0 ? order : strcmp(one->subject, two->subject);
}

void alarm_set_clear(struct alarm_set *set)
{
	for (unsigned i = 0; i < set->count; i++)
		tb__alarm__free_unpacked(set->items[i], NULL);
	set->count = 0;
	set->left_out = 0;
}

__attribute__((format(printf, 4, 5))) static void
alarm_found(struct alarm_set *set, const char *kind, const char *subject, const char *format, ...)
{
	char message[LIMIT_MESSAGE + 1];
	Tb__Alarm *alarm;
	unsigned at;
	va_list args;

	if (set->count == LIMIT_ALARMS) {
		set->left_out++;
		return;
	}
	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	alarm = mem_alloc(sizeof(*alarm));
	tb__alarm__init(alarm);
	alarm->kind = mem_strdup(kind);
	alarm->subject = mem_strdup(subject);
	alarm->message = mem_strdup(message);
	for (at = set->count; at > 0 && alarm_order(set->items[at - 1], alarm) > 0; at--)
		set->items[at] = set->items[at - 1];
	set->items[at] = alarm;
	set->count++;
}

unsigned alarm_set_compare(const struct alarm_set *set, Tb__Alarm *const *rows, size_t row_count,
			   unsigned max, alarm_change each, void *arg)
{
	size_t room = row_count < LIMIT_ALARMS ? LIMIT_ALARMS - row_count : 0;
	unsigned changes = 0;
	unsigned found = 0;
	size_t row = 0;

	while (changes < max && (found < set->count || row < row_count)) {
		int order = found == set->count ? 1
			    : row == row_count	? -1
						: alarm_order(set->items[found], rows[row]);

		if (order > 0) {
			each(arg, false, rows[row++]);
			changes++;
		} else if (order == 0) {
			found++;
			row++;
		} else if (room > 0) {
			each(arg, true, set->items[found++]);
			changes++;
			room--;
		} else {
			found++; /* when others have ended */
		}
	}
	return changes;
}

/* --- sites --- */

static size_t host_len(const char *address)
{
	const char *colon = strrchr(address, ':');

	return colon != NULL ? (size_t)(colon - address) : strlen(address);
}

static bool same_host(const char *one, const char *two)
{
	size_t len = host_len(one);

	return len == host_len(two) && strncmp(one, two, len) == 0;
}

static void site_alone(struct alarm_set *set, const struct alarm_site *site)
{
	if (site->count == 0 || site->configured < 2 || site->count >= site->configured ||
	    site->missing_ms < ALARM_ALONE_MS)
		return;
	alarm_found(set, "site-alone", site->name,
		    "only %u of the %u nodes of site %s are attached, for %" PRIu64 " min: %s",
		    site->count, site->configured, site->name, site->missing_ms / 60000,
		    site->agents ? "the others could not get its lease"
				 : "the others would have no witness");
}

static void site_one_address(struct alarm_set *set, const struct alarm_site *site)
{
	if (site->count < 2)
		return;
	for (unsigned i = 1; i < site->count; i++)
		if (!same_host(site->nodes[0].address, site->nodes[i].address))
			return;
	alarm_found(
		set, "site-one-address", site->name,
		"all nodes of site %s come from %.*s: they lose the witness together, with that "
		"router or line",
		site->name, (int)host_len(site->nodes[0].address), site->nodes[0].address);
}

static void site_zone(struct alarm_set *set, const struct alarm_site *site)
{
	if (site->zone[0] == '\0')
		return;
	for (unsigned i = 0; i < site->count; i++) {
		if (strcmp(site->nodes[i].board_zone, site->zone) != 0)
			continue;
		alarm_found(set, "site-zone", site->name,
			    "node %" PRIu32
			    " of site %s is attached to a board in its own zone %s: what ends one "
			    "may end the other",
			    site->nodes[i].node_id, site->name, site->zone);
		return;
	}
}

bool alarm_late(uint32_t rtt_ms, uint32_t within_ms, bool was)
{
	return (uint64_t)rtt_ms * (ALARM_LATE_PART + (unsigned)was) >= within_ms;
}

static void site_late(struct alarm_set *set, const struct alarm_site *site)
{
	for (unsigned i = 0; i < site->count; i++) {
		const struct alarm_site_node *n = &site->nodes[i];

		if (n->rtt_ms == 0 || !alarm_late(n->rtt_ms, n->within_ms, false))
			continue;
		alarm_found(set, "site-late", site->name,
			    "a round trip to node %" PRIu32 " of site %s takes %" PRIu32
			    " ms, and an answer must come within %" PRIu32
			    " ms: it is near its timeout",
			    n->node_id, site->name, n->rtt_ms, n->within_ms);
		return;
	}
}

void alarm_site_check(struct alarm_set *set, const struct alarm_site *site)
{
	site_alone(set, site);
	site_one_address(set, site);
	site_zone(set, site);
	site_late(set, site);
}

/* --- boards --- */

static int32_t board_hot_limit(const Tb__BoardFacts *f)
{
	int32_t critical = f->critical < INT32_MAX ? (int32_t)f->critical : 0;

	return critical != 0 && critical - ALARM_HOT_MARGIN < ALARM_HOT
		       ? critical - ALARM_HOT_MARGIN
		       : ALARM_HOT;
}

static void board_strain(struct alarm_set *set, const char *name, const Tb__BoardFacts *f)
{
	if (f->temperature_known && f->hottest >= board_hot_limit(f))
		alarm_found(set, "board-hot", name,
			    "board %s is at %" PRId32 " degrees Celsius: it slows down, and may "
			    "switch itself off; give it air or a heat sink",
			    name, f->hottest);
	if (f->under_voltage)
		alarm_found(set, "board-under-voltage", name,
			    "board %s gets too little voltage: it may lose what it writes, or "
			    "restart; use its maker's power supply and a short cable",
			    name);
	if (f->throttled)
		alarm_found(set, "board-throttled", name,
			    "the processor of board %s is being slowed down, for heat or want of "
			    "power: it may be late for its leases; look at its cooling and its "
			    "power supply",
			    name);
}

void alarm_board_check(struct alarm_set *set, const struct alarm_board *b)
{
	if (!b->reachable)
		return; /* that is no warning but a state */
	if (b->skew_ms > ALARM_SKEW_MS || b->skew_ms < -ALARM_SKEW_MS)
		alarm_found(set, "clock", b->name,
			    "the clock of board %s is %" PRId64
			    " s %s the time of the cluster: certificates may be refused; is its "
			    "time service running?",
			    b->name, (b->skew_ms < 0 ? -b->skew_ms : b->skew_ms) / 1000,
			    b->skew_ms < 0 ? "behind" : "ahead of");
	if ((uint64_t)b->rtt_ms * ALARM_LATE_PART >= LEASE_LENGTH_MS)
		alarm_found(set, "board-late", b->name,
			    "a round trip between the leader and board %s takes %" PRIu32
			    " ms, and a lease is %d ms: it is near losing it",
			    b->name, b->rtt_ms, LEASE_LENGTH_MS);
	if (b->disk_ms >= ALARM_DISK_MS)
		alarm_found(set, "disk-slow", b->name,
			    "a write of the log on board %s takes %" PRIu32
			    " ms: the card is slow, worn or busy, and elections begin after 800 ms",
			    b->name, b->disk_ms);
	if (b->wear_percent >= ALARM_WEAR_PERCENT)
		alarm_found(set, "card-worn", b->name,
			    "the card of board %s has used %" PRIu32
			    " %% of its life: replace it (witnessctl node drain %s, then node "
			    "replace)",
			    b->name, b->wear_percent, b->name);
	if (b->host_stands)
		alarm_found(set, "host-stands", b->name,
			    "the thread of board %s that runs virtual machines hangs: it has none; "
			    "look for a card or device that hangs in its kernel's log, and restart "
			    "witnessd there, or the board",
			    b->name);
	if (b->facts != NULL)
		board_strain(set, b->name, b->facts);
}

/* --- certificates --- */

static const char *certificate_remedy(const char *kind, bool ended)
{
	if (strcmp(kind, "site") == 0)
		return "witnessctl site enroll makes a new one";
	if (strcmp(kind, "agent") == 0)
		return ended ? "witnessctl site enroll --agent tells how to make a new one"
			     : "witness-agent renew on that node renews it";
	return ended ? "witnessctl cert create makes a new one" : "witnessctl cert renew renews it";
}

void alarm_certificate_check(struct alarm_set *set, const struct alarm_certificate *c,
			     int64_t now_ms)
{
	int64_t left_ms = c->not_after_ms - now_ms;
	char subject[2 * LIMIT_NAME];
	char node[16] = "";

	if (left_ms > (c->not_after_ms - c->issued_ms) / ALARM_EXPIRY_PART)
		return;
	if (c->node != 0)
		snprintf(node, sizeof(node), "/%" PRIu32, c->node);
	snprintf(subject, sizeof(subject), "%s/%s%s", c->kind, c->subject, node);
	if (left_ms <= 0)
		alarm_found(set, "certificate", subject, "the %s certificate of %s%s has ended; %s",
			    c->kind, c->subject, node, certificate_remedy(c->kind, true));
	else
		alarm_found(set, "certificate", subject,
			    "the %s certificate of %s%s ends in %" PRId64 " h; %s", c->kind,
			    c->subject, node, left_ms / 3600000,
			    certificate_remedy(c->kind, false));
}

void alarm_address_check(struct alarm_set *set, const char *address, const char *problem)
{
	alarm_found(set, "address", address, "nobody has service address %s: %s", address, problem);
}
