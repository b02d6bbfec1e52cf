#include "cli/watch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { FAILURES_MAX = 60 };

struct watcher {
	struct sse sse;
	sse_visit row; /* NULL: JSON lines */
	unsigned failures; /* in a row */
	bool too_old;
	bool connected; /* at least once: losing it then is no reason to give up */
	int result;
};

static int event_take(void *arg, const struct sse_event *event)
{
	struct watcher *w = arg;

	w->failures = 0;
	if (strcmp(event->type, "too-old") == 0) {
		w->too_old = true;
		return 1;
	}
	if (w->row != NULL) {
		w->result = w->row(NULL, event);
		return w->result;
	}
	fwrite(event->data, 1, event->data_len, stdout);
	fputc('\n', stdout);
	fflush(stdout);
	return ferror(stdout) ? 1 : 0;
}

static int piece_take(void *arg, const char *data, size_t len)
{
	struct watcher *w = arg;

	return sse_feed(&w->sse, data, len);
}

int watch_run(struct invocation *inv, const char *path, const char *after, sse_visit row)
{
	struct client *client = api_client(inv);
	struct watcher w = {.row = api_output(inv) == OUTPUT_JSON ? NULL : row};
	struct client_response response = {0};
	int rv = EXIT_OK;

	if (client == NULL)
		return EXIT_USAGE;
	sse_init(&w.sse, event_take, &w);
	if (after != NULL)
		buf_puts(&w.sse.id, after);
	while (rv == EXIT_OK) {
		const char *id = buf_string(&w.sse.id);
		struct client_request request = {
			.method = "GET", .path = path, .last_event_id = id[0] != '\0' ? id : NULL};
		int sent;

		sse_restart(&w.sse);
		sent = client_stream(client, &request, piece_take, &w, &response);
		w.connected = w.connected || response.status == 200;
		if (w.result != 0) {
			rv = w.result;
		} else if (w.too_old) {
			complain("some events were missed: the cluster keeps only the newest; "
				 "going on "
				 "from now");
			buf_clear(&w.sse.id);
			w.too_old = false;
		} else if (ferror(stdout)) {
			rv = EXIT_REFUSED;
		} else if (sent == 0 && response.status != 200 && response.status != 503) {
			rv = api_refusal(&response, NULL);
		} else if (!w.connected || w.failures++ >= FAILURES_MAX) {
			rv = sent != 0 ? api_failure(client, sent) : api_refusal(&response, NULL);
		} else {
			struct timespec pause = {.tv_nsec = w.failures > 1 ? 500000000 : 50000000};

			if (w.failures == 2)
				complain("%s; trying again",
					 sent != 0 ? client_error(client) : "the stream ended");
			client_next_server(client);
			nanosleep(&pause, NULL);
		}
	}
	sse_free(&w.sse);
	client_response_clear(&response);
	return rv;
}
