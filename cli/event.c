/* event.c: the audit trail: who, what, when, why. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/human.h"
#include "cli/run.h"
#include "cli/watch.h"
#include "lib/mem.h"
#include "proto/json.h"

enum { LIMIT_DEFAULT = 50, LIMIT_MAX = 1000 };

static void event_print(const Tb__Event *e)
{
	char when[32], *line;
	const char *about = e->site[0] != '\0' ? e->site : e->node;
	const char *mark = e->severity == TB__SEVERITY__SEVERITY_ERROR	   ? "error: "
			   : e->severity == TB__SEVERITY__SEVERITY_WARNING ? "warning: "
									   : "";

	human_time(e->time_ms, when);
	line = mem_printf("%s  %-20s  %s%s%s%s (%s)", when, e->type, about,
			  about[0] != '\0' ? ": " : "", mark, e->message, e->actor);
	human_safe(line);
	puts(line);
	free(line);
}

static int watch_row(void *arg, const struct sse_event *event)
{
	Tb__Event *e;

	(void)arg;
	if (api_decode(&tb__event__descriptor, event->data, event->data_len, &e) != EXIT_OK)
		return EXIT_REFUSED;
	event_print(e);
	fflush(stdout);
	tb__event__free_unpacked(e, NULL);
	return 0;
}

int run_event_list(struct invocation *inv)
{
	const char *after = option_text(inv, "after");
	uint64_t limit = option_number(inv, "limit", LIMIT_DEFAULT);
	struct buf body = {0};
	Tb__EventList *list;
	char *path;
	int rv;

	if (option_given(inv, "watch"))
		return watch_run(inv, "/v1/events?watch=1", after, watch_row);
	if (limit == 0 || limit > LIMIT_MAX) {
		complain("--limit goes from 1 to %d", LIMIT_MAX);
		return EXIT_USAGE;
	}
	path = mem_printf("/v1/events?limit=%" PRIu64 "%s%s", limit, after != NULL ? "&after=" : "",
			  after != NULL ? after : "");
	rv = api_send(inv, &(struct api_request){.path = path}, &body);
	free(path);
	if (rv == EXIT_OK && api_output(inv) == OUTPUT_JSON) {
		api_print_json(&body);
	} else if (rv == EXIT_OK) {
		rv = api_decode(&tb__event_list__descriptor, (const char *)body.data, body.len,
				&list);
		/* The API gives the newest first; people read downwards. */
		for (size_t i = 0; rv == EXIT_OK && i < list->n_items; i++)
			event_print(list->items[after != NULL ? i : list->n_items - 1 - i]);
		if (rv == EXIT_OK)
			tb__event_list__free_unpacked(list, NULL);
	}
	buf_free(&body);
	return rv;
}
