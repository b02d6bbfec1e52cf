/* history.c: backup, restore, recover: how a cluster outlives its boards. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/human.h"
#include "cli/outfile.h"
#include "cli/run.h"
#include "cluster/backup.h"
#include "lib/clock.h"
#include "lib/mem.h"

enum { LONG_TIMEOUT_MS = 600000 };

/* --- backup --- */

int run_cluster_backup(struct invocation *inv)
{
	const char *path = inv->args[0];
	struct buf file = {0};
	int rv;

	if (access(path, F_OK) == 0 && !option_given(inv, "force")) {
		complain("%s is there already; choose another name, or give --force", path);
		return EXIT_USAGE;
	}
	rv = api_send(inv,
		      &(struct api_request){.path = "/v1/cluster:backup",
					    .timeout_ms = LONG_TIMEOUT_MS,
					    .retry_ms = API_RETRY_MS},
		      &file);
	if (rv == EXIT_OK && outfile_replace(path, file.data, file.len, 0600) != 0)
		rv = EXIT_REFUSED;
	if (rv == EXIT_OK && api_output(inv) == OUTPUT_JSON)
		printf("{\"bytes\":%zu}\n", file.len);
	else if (rv == EXIT_OK)
		printf("%s: %zu bytes\n\nIt holds the keys of the cluster: whoever has the file "
		       "can "
		       "make certificates that the boards believe. Keep it away from them and from "
		       "others.\n",
		       path, file.len);
	if (file.data != NULL)
		mem_wipe(file.data, file.cap);
	buf_free(&file);
	return rv;
}

/* --- restore --- */

static void query_add(struct buf *path, const struct invocation *inv, const char *option,
		      const char *param)
{
	const char *text = option_text(inv, option);

	if (text == NULL)
		return;
	buf_printf(path, "%c%s=", strchr(buf_string(path), '?') != NULL ? '&' : '?', param);
	url_encode(path, text);
}

/* The file is looked at here, for the question; the board does it again. */
static int restore_ask(const struct invocation *inv, const char *path, const char *data, size_t len)
{
	Tb__BackupHead *head = NULL;
	const uint8_t *model;
	const char *problem;
	char taken[32], ago[64];
	size_t model_len;
	int rv;

	if (backup_open((const uint8_t *)data, len, &head, &model, &model_len, &problem) != 0) {
		complain("%s: %s", path, problem);
		return EXIT_USAGE;
	}
	human_time(head->taken_ms, taken);
	human_relative(head->taken_ms, clock_realtime_ms(), ago);
	fprintf(stderr,
		"%s is of cluster \"%s\" with %" PRIu32 " boards and %" PRIu32
		" sites, taken by %s at %s (%s).\nWhat was changed later is lost. The boards of "
		"that cluster must be off for good, or be\nemptied: they are not of the new one, "
		"and "
		"two clusters would both give votes.\n",
		path, head->cluster_name, head->nodes, head->sites, head->board, taken, ago);
	rv = api_confirm(inv, "Make cluster \"%s\" anew on this board?", head->cluster_name);
	tb__backup_head__free_unpacked(head, NULL);
	return rv;
}

static int restore_send(struct invocation *inv, const char *data, size_t len)
{
	struct client *client = api_client(inv);
	struct client_response response = {0};
	struct buf path = {0};
	Tb__Cluster *cluster;
	int rv;

	if (client == NULL)
		return EXIT_USAGE;
	buf_puts(&path, "/v1/cluster:restore");
	query_add(&path, inv, "cluster-name", "name");
	query_add(&path, inv, "node-name", "node-name");
	query_add(&path, inv, "advertise", "address");
	query_add(&path, inv, "qnet-address", "qnet-address");
	rv = client_send(client,
			 &(struct client_request){.method = "POST",
						  .path = buf_string(&path),
						  .content_type = "application/octet-stream",
						  .body = data,
						  .body_len = len,
						  .timeout_ms = LONG_TIMEOUT_MS},
			 &response);
	buf_free(&path);
	if (rv != 0)
		rv = api_failure(client, rv);
	else if (response.status != 200)
		rv = api_refusal(&response, NULL);
	else if (api_output(inv) == OUTPUT_JSON)
		api_print_json(&response.body);
	else
		rv = api_decode(&tb__cluster__descriptor, (const char *)response.body.data,
				response.body.len, &cluster);
	if (rv == EXIT_OK && api_output(inv) != OUTPUT_JSON) {
		printf("cluster \"%s\" is made anew on this board (history %" PRIu32
		       ", id %s)\n\nVotes are given again when none of before can be held any "
		       "more, in some %" PRIu32 " s;\nleases of witness-agents in two minutes. For "
		       "each further board: empty its\ndata directory, and join it with a new "
		       "token.\n",
		       cluster->name, cluster->history, cluster->id, cluster->hold_ms / 1000 + 4);
		tb__cluster__free_unpacked(cluster, NULL);
	}
	client_response_clear(&response);
	return rv;
}

int run_cluster_restore(struct invocation *inv)
{
	size_t len;
	char *data;
	int rv;

	if (outfile_read(inv->args[0], BACKUP_MAX, &data, &len) != 0)
		return EXIT_USAGE;
	rv = restore_ask(inv, inv->args[0], data, len);
	if (rv == EXIT_OK)
		rv = restore_send(inv, data, len);
	mem_wipe(data, len);
	free(data);
	return rv;
}

/* --- recover --- */

static int recover_call(struct invocation *inv, const char *name, bool dry_run, struct buf *body,
			Tb__ClusterRecovery **ret)
{
	Tb__ClusterRecoverRequest request = TB__CLUSTER_RECOVER_REQUEST__INIT;
	int rv;

	request.name = (char *)name;
	request.dry_run = dry_run;
	rv = api_send(inv,
		      &(struct api_request){.method = "POST",
					    .path = "/v1/cluster:recover",
					    .message = &request.base,
					    .timeout_ms = LONG_TIMEOUT_MS},
		      body);
	return rv == EXIT_OK ? api_decode(&tb__cluster_recovery__descriptor,
					  (const char *)body->data, body->len, ret)
			     : rv;
}

static void recover_explain(const Tb__ClusterRecovery *plan)
{
	char newest[32], ago[64];

	human_time(plan->newest_ms, newest);
	human_relative(plan->newest_ms, clock_realtime_ms(), ago);
	fprintf(stderr,
		"This board makes a new cluster of itself alone from what it has: %" PRIu32
		" sites, and its log\nup to entry %" PRIu64 " (%s, %s).\n\nWhat may be lost:\n",
		plan->sites, plan->last_index, newest, ago);
	fprintf(stderr, "  - every change that was acknowledged later than that, by boards other "
			"than this one\n");
	if (plan->last_index > plan->applied_index)
		fprintf(stderr,
			"  - and the other way round: %" PRIu64
			" entries at the end may never have been agreed upon; they are kept\n",
			plan->last_index - plan->applied_index);
	fprintf(stderr, "  - for ever, the place of each other board:");
	for (size_t i = 0; i < plan->n_lost; i++)
		fprintf(stderr, " %s", plan->lost[i]);
	fprintf(stderr,
		"\n    Their data directories must be emptied before they join anew. If two of "
		"them "
		"are only cut off\n    and go on as the old cluster, both clusters give votes, and "
		"a "
		"site may have two sides.\nIf another board is alive and has more of the log, run "
		"this there instead.\n\n");
}

/* Typed by whoever means this cluster and no other. */
static int recover_name(const struct invocation *inv, char name[80])
{
	const char *given = option_text(inv, "cluster-name");

	if (given != NULL) {
		snprintf(name, 80, "%s", given);
		return EXIT_OK;
	}
	if (!isatty(STDIN_FILENO)) {
		complain("this needs the cluster's name: give --cluster-name");
		return EXIT_USAGE;
	}
	fprintf(stderr, "To go on, type the cluster's name: ");
	if (fgets(name, 80, stdin) == NULL)
		name[0] = '\0';
	name[strcspn(name, "\n")] = '\0';
	if (name[0] != '\0')
		return EXIT_OK;
	complain("nothing was done");
	return EXIT_REFUSED;
}

int run_cluster_recover(struct invocation *inv)
{
	Tb__ClusterRecovery *plan = NULL;
	struct buf body = {0};
	char name[80];
	int rv = recover_call(inv, "", true, &body, &plan);

	if (rv != EXIT_OK) {
		buf_free(&body);
		return rv;
	}
	recover_explain(plan);
	tb__cluster_recovery__free_unpacked(plan, NULL);
	buf_free(&body);
	body = (struct buf){0};
	rv = option_given(inv, "dry-run") ? EXIT_OK : recover_name(inv, name);
	if (rv == EXIT_OK && !option_given(inv, "dry-run"))
		rv = recover_call(inv, name, false, &body, &plan);
	else
		plan = NULL;
	if (plan != NULL && rv == EXIT_OK) {
		if (api_output(inv) == OUTPUT_JSON)
			api_print_json(&body);
		else
			printf("cluster \"%s\" goes on, on this board alone. The state of before "
			       "is "
			       "in %s.\nVotes are given again when none of before can be held any "
			       "more. Empty the data directory of every other board,\nand join it "
			       "with a new token.\n",
			       plan->name, plan->backup);
		tb__cluster_recovery__free_unpacked(plan, NULL);
	}
	buf_free(&body);
	return rv;
}
