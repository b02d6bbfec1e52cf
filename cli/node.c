/* node.c: what is done to one board: drain, undrain, set. (list and show are with status in
 * cluster.c)
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/api.h"
#include "cli/human.h"
#include "cli/run.h"
#include "lib/clock.h"
#include "lib/mem.h"

enum { DRAIN_WAIT_MS = 600000, POLL_MS = 500 };

static int node_get(struct invocation *inv, Tb__Node **ret)
{
	char *path = api_path("/v1/nodes/", inv->args[0], "");
	int rv = api_call(inv, &(struct api_request){.path = path}, &tb__node__descriptor, ret);

	free(path);
	return rv;
}

static bool node_is_drained(const Tb__Node *n)
{
	return n->status != NULL && n->status->reachable && n->status->sessions == 0 &&
	       !n->status->leader;
}

static void drain_vain(const Tb__Node *n, uint64_t limit)
{
	char duration[64];

	human_duration(limit, duration);
	if (n->status == NULL || !n->status->reachable)
		complain("waited %s in vain: board \"%s\" is away; it is drained when it is back",
			 duration, n->name);
	else if (n->status->sessions == 0)
		complain("waited %s in vain: board \"%s\" still leads; is another board up to "
			 "date? (witnessctl status)",
			 duration, n->name);
	else
		complain("waited %s in vain: %" PRIu32 " site nodes stay on board \"%s\", because "
			 "their sites need the vote at this moment (witnessctl site list --state "
			 "degraded, and --state split); they leave when the sites are whole, or "
			 "at once with --now",
			 duration, n->status->sessions, n->name);
}

/* Until the board has neither site nodes nor the leadership. */
static int drain_wait(struct invocation *inv)
{
	uint64_t limit = option_duration_ms(inv, "timeout", DRAIN_WAIT_MS);
	uint64_t until = clock_boottime_ms() + limit;
	struct timespec pause = {.tv_nsec = POLL_MS * 1000000L};

	for (;;) {
		Tb__Node *n;
		bool over;
		int rv = node_get(inv, &n);

		if (rv != EXIT_OK)
			return rv;
		over = node_is_drained(n);
		if (!over && clock_boottime_ms() >= until) {
			drain_vain(n, limit);
			rv = EXIT_NO_QUORUM;
			over = true;
		}
		tb__node__free_unpacked(n, NULL);
		if (over)
			return rv;
		nanosleep(&pause, NULL);
	}
}

static int drain_send(struct invocation *inv, const char *verb, const ProtobufCMessage *message,
		      struct buf *ret)
{
	char *path = api_path("/v1/nodes/", inv->args[0], verb);
	int rv = api_send(inv,
			  &(struct api_request){.method = "POST",
						.path = path,
						.message = message,
						.retry_ms = API_RETRY_MS},
			  ret);

	free(path);
	return rv;
}

int run_node_drain(struct invocation *inv)
{
	Tb__NodeDrainRequest request = TB__NODE_DRAIN_REQUEST__INIT;
	bool wait = !option_given(inv, "no-wait");
	struct buf body = {0};
	int rv;

	request.now = option_given(inv, "now");
	rv = drain_send(inv, ":drain", &request.base, &body);
	if (rv == EXIT_OK && wait)
		rv = drain_wait(inv);
	if (rv == EXIT_OK && api_output(inv) == OUTPUT_JSON)
		api_print_json(&body);
	else if (rv == EXIT_OK)
		printf(wait ? "board \"%s\" is drained: no site node is attached to it\n"
			    : "board \"%s\" is being drained\n",
		       inv->args[0]);
	buf_free(&body);
	return rv;
}

int run_node_set(struct invocation *inv)
{
	Tb__NodeSetRequest request = TB__NODE_SET_REQUEST__INIT;
	char *path = api_path("/v1/nodes/", inv->args[0], "");
	struct buf body = {0};
	int rv = EXIT_USAGE;

	if (option_given(inv, "zone"))
		rv = EXIT_OK;
	else
		complain("nothing to set; usage: witnessctl node set NODE --zone ZONE");
	request.zone = (char *)(option_given(inv, "zone") ? option_text(inv, "zone") : "");
	if (rv == EXIT_OK)
		rv = api_send(inv,
			      &(struct api_request){.method = "PATCH",
						    .path = path,
						    .message = &request.base,
						    .retry_ms = API_RETRY_MS},
			      &body);
	if (rv == EXIT_OK && api_output(inv) == OUTPUT_JSON)
		api_print_json(&body);
	else if (rv == EXIT_OK)
		printf("board \"%s\" is in zone \"%s\"\n", inv->args[0], request.zone);
	buf_free(&body);
	free(path);
	return rv;
}

int run_node_undrain(struct invocation *inv)
{
	struct buf body = {0};
	int rv = drain_send(inv, ":undrain", NULL, &body);

	if (rv == EXIT_OK && api_output(inv) == OUTPUT_JSON)
		api_print_json(&body);
	else if (rv == EXIT_OK)
		printf("board \"%s\" serves sites again\n", inv->args[0]);
	buf_free(&body);
	return rv;
}
