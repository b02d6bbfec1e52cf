#include "hv/virtio/patience.h"

static uint32_t price(const struct patience *p)
{
	return p->price != 0 ? p->price : PATIENCE_PRICE_MIN;
}

void patience_kicked(struct patience *p, uint64_t now_us)
{
	bool soon = p->left_us != 0 && now_us - p->left_us <= PATIENCE_WINDOW_US;

	if (!soon) {
		p->soon = 0;
	} else if (p->soon < PATIENCE_PRICE_MAX) {
		p->soon++;
	}
}

bool patience_pays(const struct patience *p)
{
	return p->soon >= price(p);
}

void patience_looked(struct patience *p, bool came)
{
	if (came) {
		p->price = PATIENCE_PRICE_MIN;
		return;
	}
	p->soon = 0;
	p->price = price(p) < PATIENCE_PRICE_MAX ? price(p) * 2 : PATIENCE_PRICE_MAX;
}

void patience_left(struct patience *p, uint64_t now_us)
{
	p->left_us = now_us;
}
