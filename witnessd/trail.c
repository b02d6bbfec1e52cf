#include "witnessd/trail.h"

#include <string.h>

#include "cluster/store.h"

struct reading {
	const char *const *types;
	uint64_t last;
	bool concerns;
};

static int event_visit(void *arg, const Tb__Event *row)
{
	struct reading *r = arg;

	r->last = row->seq;
	for (const char *const *type = r->types; *type != NULL; type++)
		r->concerns |= strcmp(row->type, *type) == 0;
	return 0;
}

int trail_read(struct trail *t, struct store *model, const char *const *types)
{
	struct reading r = {.types = types, .last = t->seen_seq};
	uint64_t first = 0;
	uint64_t last = 0;
	int rv = store_event_range(model, &first, &last);

	if (rv == 0 && (t->seen_seq == 0 || first > t->seen_seq + 1 || last < t->seen_seq)) {
		t->seen_seq = last;
		return 1;
	}
	if (rv == 0)
		rv = store_events(model, t->seen_seq, 0, event_visit, &r);
	if (rv != 0)
		return rv;
	t->seen_seq = r.last;
	return r.concerns;
}
