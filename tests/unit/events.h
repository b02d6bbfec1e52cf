/* events.h: the newest event of a model, as one line. Behind cmocka.h. */
#pragma once
#include <stdlib.h>

#include "cluster/store.h"
#include "lib/mem.h"
#include "tests/unit/commands.h"

static inline int event_text(void *arg, const Tb__Event *row)
{
	char **text = arg;

	free(*text);
	*text = mem_printf("%s|%s|%s|%s|%s|%s", row->type, row->actor, row->site, row->node,
			   row->vm, row->message);
	return 0;
}

/* The newest event: "type|actor|site|board|VM|message". */
static inline void expect_event(struct model *m, const char *text)
{
	char *newest = NULL;

	assert_int_equal(store_events_newest(m->s, 1, event_text, &newest), 0);
	assert_string_equal(newest != NULL ? newest : "", text);
	free(newest);
}
