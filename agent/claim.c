#include "agent/claim.h"

#include <assert.h>
#include <string.h>

#ifdef TIEBREAK_SIM_FAULTS
bool claim_fault_from_arrival;
#endif

void claim_init(struct claim *c, uint32_t lease_ms, uint32_t stop_ms, uint64_t number)
{
	assert(stop_ms < lease_ms / 2);
	*c = (struct claim){.lease_ms = lease_ms, .stop_ms = stop_ms, .number = number};
}

static void claim_lose(struct claim *c, struct claim_out *out)
{
	c->state = CLAIM_STOPPING;
	out->lost = true;
}

/* A new one: nothing that was said of the old one concerns it. */
static void claim_anew(struct claim *c, struct claim_out *out)
{
	c->number++;
	c->epoch = 0;
	c->until_ms = 0;
	c->given_epoch = 0;
	c->state = c->wanted ? CLAIM_WAITING : CLAIM_IDLE;
	out->claim = c->open;
}

static uint64_t claim_end(const struct claim *c)
{
	return c->answered_ms != 0 ? c->answered_ms + c->lease_ms : 0;
}

/* Does what the present facts allow and demand. */
static void claim_settle(struct claim *c, uint64_t now_ms, struct claim_out *out)
{
	if (c->state == CLAIM_WAITING && c->given_epoch != 0 &&
	    claim_end(c) > now_ms + c->stop_ms) {
		c->state = CLAIM_HELD;
		c->epoch = c->given_epoch;
		c->until_ms = claim_end(c);
		out->gained = true;
	}
	if (c->state != CLAIM_HELD)
		return;
	/* One that has ended is not revived: somebody else may have had it since. */
	if (now_ms + c->stop_ms < c->until_ms && c->given_epoch == c->epoch &&
	    claim_end(c) > c->until_ms)
		c->until_ms = claim_end(c);
	if (now_ms + c->stop_ms >= c->until_ms)
		claim_lose(c, out);
}

void claim_want(struct claim *c, bool wanted, uint64_t now_ms, struct claim_out *out)
{
	bool changed = wanted != c->wanted;

	c->wanted = wanted;
	if (!changed)
		return;
	if (c->state == CLAIM_HELD)
		claim_lose(c, out);
	else if (c->state != CLAIM_STOPPING)
		claim_anew(c, out);
	claim_settle(c, now_ms, out);
}

void claim_connected(struct claim *c, uint64_t now_ms, struct claim_out *out)
{
	c->open = true;
	c->renew_ms = now_ms;
	claim_tick(c, now_ms, out);
}

void claim_disconnected(struct claim *c)
{
	c->open = false;
	c->renewal = 0;
	c->answered = 0;
	c->answered_ms = 0;
	c->given_epoch = 0;
	c->refused_ticket = 0;
	c->renew_ms = 0;
}

static void claim_refused(struct claim *c, uint64_t ticket, struct claim_out *out)
{
	c->given_epoch = 0;
	if (c->state == CLAIM_HELD)
		claim_lose(c, out);
	if (c->state == CLAIM_STOPPING)
		c->refused_ticket = ticket;
	else
		out->confirm = ticket;
}

void claim_lease(struct claim *c, uint64_t ticket, bool yours, uint64_t epoch, uint64_t number,
		 uint64_t now_ms, struct claim_out *out)
{
	if (!c->open)
		return;
	if (!yours) {
		claim_refused(c, ticket, out);
		return;
	}
	/* For an earlier claim: the board will hear of the newer one and answer that. */
	if (number != c->number || epoch == 0)
		return;
	if (c->state == CLAIM_HELD && epoch != c->epoch) {
		claim_lose(c, out);
		return;
	}
	if (c->state != CLAIM_HELD && c->state != CLAIM_WAITING)
		return;
	c->given_epoch = epoch;
	out->confirm = ticket;
	claim_settle(c, now_ms, out);
}

void claim_renewed(struct claim *c, uint64_t renewal, uint64_t now_ms, struct claim_out *out)
{
	if (!c->open || renewal <= c->answered || renewal > c->renewal ||
	    c->renewal - renewal >= CLAIM_RENEWALS)
		return;
	c->answered = renewal;
	c->answered_ms = CLAIM_FAULTY ? now_ms : c->sent_ms[renewal % CLAIM_RENEWALS];
	claim_settle(c, now_ms, out);
}

void claim_stopped(struct claim *c, uint64_t now_ms, struct claim_out *out)
{
	if (c->state != CLAIM_STOPPING)
		return;
	out->confirm = c->refused_ticket;
	c->refused_ticket = 0;
	claim_anew(c, out);
	claim_settle(c, now_ms, out);
}

static bool claim_silent(const struct claim *c, uint64_t now_ms)
{
	return c->open && c->renewal > c->answered &&
	       now_ms >= c->sent_ms[(c->answered + 1) % CLAIM_RENEWALS] +
				 c->lease_ms / CLAIM_SILENT_PARTS;
}

void claim_tick(struct claim *c, uint64_t now_ms, struct claim_out *out)
{
	claim_settle(c, now_ms, out);
	if (!c->open)
		return;
	if (claim_silent(c, now_ms) || c->renewal - c->answered >= CLAIM_RENEWALS - 1) {
		out->dead = true;
		return;
	}
	if (now_ms < c->renew_ms)
		return;
	out->renew = ++c->renewal;
	c->sent_ms[c->renewal % CLAIM_RENEWALS] = now_ms;
	c->renew_ms = now_ms + c->lease_ms / CLAIM_RENEW_PARTS;
}

uint64_t claim_due(const struct claim *c)
{
	uint64_t due = UINT64_MAX;

	if (c->state == CLAIM_HELD)
		due = c->until_ms - c->stop_ms;
	if (!c->open)
		return due;
	if (c->renew_ms < due)
		due = c->renew_ms;
	if (c->renewal > c->answered) {
		uint64_t silent = c->sent_ms[(c->answered + 1) % CLAIM_RENEWALS] +
				  c->lease_ms / CLAIM_SILENT_PARTS;

		if (silent < due)
			due = silent;
	}
	return due;
}
