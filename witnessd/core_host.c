/* core_host.c: what the core has to do with this board's host (host.h): tells it its lease and its
 * fence, and brings its report to whoever leads; as the leader, keeps the newest report of each
 * board.
 *
 * The fence (docs/decisions/0011-resilient-vms.md) is what the leader had applied at the first
 * grant of a link, or at the first after a lease that was over: the placements that were moved
 * meanwhile are in there.
 *
 * One lease serves sites and VMs, but not every grant of it is for the VMs: the core renews it, and
 * a host that hangs renews no VM, though the sites are served. Then this board says so with each
 * renewal, and the leader counts what it grants from there on as without VMs: these are lost at the
 * end of the last grant that was for them. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "witnessd/core_internal.h"

void core_host_tell(struct core *c)
{
	uint64_t until_ms = atomic_load(&c->view.lease_until_ms);

	if (until_ms > c->host_granted_ms)
		until_ms = c->host_granted_ms;
	if (c->listeners.host_lease == NULL ||
	    (until_ms == c->host_until_ms && c->host_fence == c->host_fence_told))
		return;
	c->host_until_ms = until_ms;
	c->host_fence_told = c->host_fence;
	c->listeners.host_lease(c->listeners.arg, until_ms, c->host_fence);
}

void core_host_fence(struct core *c, uint64_t index)
{
	c->host_fence = index;
}

void core_host_granted(struct core *c, uint64_t until_ms, uint64_t index, uint64_t now_ms)
{
	if (now_ms >= c->host_granted_ms || c->host_fence == UINT64_MAX)
		core_host_fence(c, index);
	/* A grant of an older term is none. */
	if (until_ms > c->lease.until_ms)
		until_ms = c->lease.until_ms;
	if (until_ms > c->host_granted_ms)
		c->host_granted_ms = until_ms;
}

void core_host_tick(struct core *c, uint64_t now_ms)
{
	uint64_t told_ms =
		c->listeners.host_waits != NULL ? c->listeners.host_waits(c->listeners.arg) : 0;
	bool stands = lease_stands(told_ms, c->host_asked_ms, now_ms);

	c->host_asked_ms = now_ms;
	if (stands == c->host_stands)
		return;
	c->host_stands = stands;
	lead_vms_changed(c);
	if (stands)
		log_error("host-stands",
			  "the thread that runs this board's VMs has hung for %" PRIu64
			  " ms: they are over, and the leader restarts them elsewhere; look for a "
			  "card or a device that hangs in the kernel's log (dmesg), and restart "
			  "witnessd, or the board if that does not end",
			  now_ms - told_ms);
	else
		log_notice("host-turns",
			   "the thread that runs this board's VMs goes on: it may have VMs again");
}

void core_host_ask(struct core *c)
{
	if (c->listeners.host_report != NULL)
		c->listeners.host_report(c->listeners.arg);
}

/* --- reports, as the leader --- */

static struct host_soft *slot_of(struct core *c, uint64_t node)
{
	struct host_soft *free_slot = NULL;

	for (unsigned i = 0; i < LIMIT_NODES; i++) {
		if (c->hosts[i].node == node)
			return &c->hosts[i];
		if (c->hosts[i].node == 0 && free_slot == NULL)
			free_slot = &c->hosts[i];
	}
	return free_slot;
}

static void slot_clear(struct host_soft *slot)
{
	if (slot->report != NULL)
		tb__host_report__free_unpacked(slot->report, NULL);
	*slot = (struct host_soft){0};
}

static int image_order(const void *one, const void *two)
{
	const Tb__ImageReport *const *a = one;
	const Tb__ImageReport *const *b = two;

	return strcmp((*a)->sha256, (*b)->sha256);
}

void core_host_reported(struct core *c, uint64_t node, Tb__HostReport *report)
{
	struct host_soft *slot = c->fleet != NULL ? slot_of(c, node) : NULL;

	if (slot == NULL) {
		tb__host_report__free_unpacked(report, NULL);
		return;
	}
	slot_clear(slot);
	for (size_t i = 0; i < report->n_vms; i++)
		text_tame(report->vms[i]->problem, LIMIT_MESSAGE);
	for (size_t i = 0; i < report->n_images; i++)
		text_tame(report->images[i]->problem, LIMIT_MESSAGE);
	if (report->n_images > 0)
		qsort(report->images, report->n_images, sizeof(report->images[0]), image_order);
	slot->node = node;
	slot->heard_ms = clock_boottime_ms();
	slot->report = report;
	lead_vms_changed(c);
}

const Tb__HostReport *core_host_report_of(struct core *c, uint64_t node)
{
	const struct host_soft *slot = slot_of(c, node);

	return slot != NULL && slot->node == node ? slot->report : NULL;
}

void core_host_forget(struct core *c, uint64_t node)
{
	for (unsigned i = 0; i < LIMIT_NODES; i++)
		if (c->hosts[i].node != 0 && (node == 0 || c->hosts[i].node == node))
			slot_clear(&c->hosts[i]);
	lead_vms_changed(c);
}

/* --- this board's own --- */

struct report_letter {
	struct letter letter;
	struct core *core;
	Tb__HostReport *report;
};

static void report_open(struct letter *letter)
{
	struct report_letter *l = list_entry(letter, struct report_letter, letter);
	struct core *c = l->core;

	if (c->fleet != NULL) {
		core_host_reported(c, c->identity.node_id, l->report);
	} else {
		if (c->up != NULL)
			peer_send_report(c, l->report);
		tb__host_report__free_unpacked(l->report, NULL);
	}
	free(l);
}

void core_host_report(struct core *c, Tb__HostReport *report)
{
	struct report_letter *l = mem_zalloc(sizeof(*l));

	l->letter.open = report_open;
	l->core = c;
	l->report = report;
	if (mailbox_answer(&c->mailbox, &l->letter) != 0) {
		tb__host_report__free_unpacked(report, NULL);
		free(l);
	}
}
