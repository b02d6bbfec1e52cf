/* watch.h: follows a stream of the API until it is interrupted, over lost connections and boards.
 */
#pragma once
#include "cli/api.h"
#include "cli/sse.h"

/* `row` is called for each event when the output is for people; JSON output is one line each.
 * `after`: only what came behind this event; NULL: from now on. Returns only with an exit code. */
int watch_run(struct invocation *inv, const char *path, const char *after, sse_visit row);
