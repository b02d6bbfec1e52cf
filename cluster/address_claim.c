#include "cluster/address_claim.h"

bool ip_list_has(const struct ip_list *l, const struct ip *ip)
{
	for (unsigned i = 0; i < l->count; i++)
		if (ip_equal(&l->items[i], ip))
			return true;
	return false;
}

void ip_list_add(struct ip_list *l, const struct ip *ip)
{
	if (!ip_list_has(l, ip) && l->count < IP_LIST_MAX)
		l->items[l->count++] = *ip;
}

void ip_list_add_all(struct ip_list *l, const struct ip_list *other)
{
	for (unsigned i = 0; i < other->count; i++)
		ip_list_add(l, &other->items[i]);
}

void address_claim_greet(struct address_claim *c)
{
	c->known = false;
}

void address_claim_order(struct address_claim *c, uint64_t serial, const struct ip_list *hold)
{
	c->serial = serial;
	c->ordered = *hold;
	c->again = false;
	ip_list_add_all(&c->has, hold);
}

bool address_claim_report(struct address_claim *c, uint64_t serial, const struct ip_list *held)
{
	if (!c->known && serial != 0)
		return false;
	if (!c->known) {
		c->known = true;
		c->again = false;
		c->serial = 0;
		c->ordered.count = 0;
	}
	if (serial == c->serial)
		c->has = c->ordered;
	else
		/* An order that is on its way may be in force soon. */
		c->again |= serial == 0;
	ip_list_add_all(&c->has, held);
	return true;
}

void address_claim_over(struct address_claim *c)
{
	/* What it said before is of before; but it has spoken on this link, and will not say it all
	 * again. */
	*c = (struct address_claim){.known = c->known};
}

void address_orders_give(struct address_orders *o, uint64_t serial, const struct ip_list *hold)
{
	o->letter++;
	o->serial = serial;
	o->hold = *hold;
	ip_list_add_all(&o->pending, hold);
}

void address_orders_opened(struct address_orders *o, uint64_t letter, uint64_t serial)
{
	if (letter != o->letter)
		return;
	o->pending.count = 0;
	if (serial != 0 && serial == o->serial)
		o->pending = o->hold;
}
