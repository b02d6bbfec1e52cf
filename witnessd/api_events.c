/* api_events.c: the audit trail as a list; as a stream see api_watch.c. */
#include <stdlib.h>

#include "lib/mem.h"
#include "witnessd/api_call.h"

enum { LIMIT_DEFAULT = 100 };

struct event_list {
	struct api_list out;
	uint64_t last;
	uint64_t limit;
	bool more;
};

static int event_visit(void *arg, const Tb__Event *row)
{
	struct event_list *l = arg;

	l->more = l->out.count == l->limit;
	if (l->more)
		return 1;
	api_list_item(&l->out, &row->base);
	l->last = row->seq;
	return 0;
}

void api_events_list(struct api_call *call)
{
	const struct api_value *after = api_param(call, "after");
	const struct api_value *limit = api_param(call, "limit");
	struct event_list l = {.limit = limit->set ? limit->number : LIMIT_DEFAULT};
	struct store *s = api_store(call->api);
	char *page = NULL;
	int rv;

	if (api_param(call, "watch")->number != 0) {
		api_watch_start(call, false);
		return;
	}
	api_list_begin(&l.out);
	if (after->set)
		rv = store_events(s, after->number, (uint32_t)l.limit + 1, event_visit, &l);
	else
		rv = store_events_newest(s, (uint32_t)l.limit, event_visit, &l);
	if (rv != 0) {
		buf_free(&l.out.text);
		api_store_failed(call);
		return;
	}
	/* Only the rising list goes on: its next page begins behind this event (?after=). */
	if (after->set && l.more)
		page = mem_printf("%llu", (unsigned long long)l.last);
	api_list_answer(&l.out, call, page, 0);
	free(page);
}
