/* import.c: `site import`. The file is read and checked whole; only then is it sent, in batches
 * that are each all or nothing. A batch is sent again under the same idempotency key when the
 * answer is lost, so a change of leader in the middle costs a pause and nothing else; an import
 * that was broken off is simply run again: what is there already is "unchanged". */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/human.h"
#include "cli/progress.h"
#include "cli/run.h"
#include "cli/site_file.h"
#include "cluster/limits.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "proto/json.h"

enum { IMPORT_RETRY_MS = 60000 };

struct totals {
	uint64_t created, changed, unchanged;
};

static int file_read(const struct invocation *inv, struct site_file *ret)
{
	const char *path = inv->args[0];
	bool standard = strcmp(path, "-") == 0;
	const char *word = option_text(inv, "format");
	enum site_file_format format = SITE_FILE_AUTO;
	FILE *in = standard ? stdin : fopen(path, "re");
	int rv;

	if (in == NULL) {
		complain("cannot open %s: %s", path, strerror(errno));
		return EXIT_USAGE;
	}
	if (word != NULL)
		format = strcmp(word, "csv") == 0 ? SITE_FILE_CSV : SITE_FILE_JSON;
	rv = site_file_read(in, standard ? "stdin" : path, format, ret);
	if (!standard)
		fclose(in);
	if (rv == 0)
		return EXIT_OK;
	fprintf(stderr, "%s\n", ret->error);
	complain("nothing was sent");
	return EXIT_USAGE;
}

/* Points a problem's field "sites[3].policy.tls" at the line of the file. False if it names none.
 */
static bool place_tell(const struct invocation *inv, const struct site_file *file, size_t first,
		       const Tb__FieldProblem *p)
{
	char digits[16];
	uint64_t n = 0;
	size_t len;
	char *text;

	if (strncmp(p->field, "sites[", 6) != 0)
		return false;
	len = strspn(p->field + 6, "0123456789");
	snprintf(digits, sizeof(digits), "%.*s", (int)len, p->field + 6);
	if (len > 9 || text_to_u64(digits, 0, LIMIT_BULK, &n) != 0 || first + n >= file->count)
		return false;
	text = mem_printf("%s:%" PRIu64 ":%" PRIu64 ": site \"%s\": %s", inv->args[0],
			  file->entries[first + n]->line, file->entries[first + n]->column,
			  file->entries[first + n]->site->name, p->message);
	human_safe(text);
	fprintf(stderr, "%s\n", text);
	free(text);
	return true;
}

static int batch_refused(const struct invocation *inv, const struct site_file *file, size_t first,
			 const struct client_response *response)
{
	struct json_error error;
	ProtobufCMessage *message;
	bool told = false;

	if (json_decode(&tb__problem__descriptor, (const char *)response->body.data,
			response->body.len, &message, &error) == 0) {
		const Tb__Problem *p = (const Tb__Problem *)message;

		for (size_t i = 0; i < p->n_errors; i++)
			told = place_tell(inv, file, first, p->errors[i]) || told;
		protobuf_c_message_free_unpacked(message, NULL);
	}
	return told ? EXIT_REFUSED : api_refusal(response, NULL);
}

static int batch_send(struct invocation *inv, const struct site_file *file, size_t first,
		      size_t count, const char *run, struct totals *totals)
{
	Tb__SiteBulk bulk = TB__SITE_BULK__INIT;
	Tb__Site *sites[LIMIT_BULK];
	Tb__SiteBulkResult *result = NULL;
	struct client_response response = {0};
	struct buf body = {0};
	char key[96];
	struct client_request request = {
		.method = "POST",
		.path = "/v1/sites:bulk",
		.idempotency_key = key,
		.retry_ms = IMPORT_RETRY_MS,
	};
	int rv;

	for (size_t i = 0; i < count; i++)
		sites[i] = file->entries[first + i]->site;
	bulk.sites = sites;
	bulk.n_sites = count;
	bulk.dry_run = option_given(inv, "dry-run");
	json_encode(&bulk.base, &body);
	request.body = body.data;
	request.body_len = body.len;
	snprintf(key, sizeof(key), "%.16s-%.16s-%zu", file->sha256, run, first / LIMIT_BULK);
	rv = client_send(inv->client, &request, &response);
	if (rv != 0)
		rv = api_failure(inv->client, rv);
	else if (response.status < 200 || response.status > 299)
		rv = batch_refused(inv, file, first, &response);
	else
		rv = api_decode(&tb__site_bulk_result__descriptor, (const char *)response.body.data,
				response.body.len, &result);
	if (result != NULL) {
		totals->created += result->created;
		totals->changed += result->changed;
		totals->unchanged += result->unchanged;
		tb__site_bulk_result__free_unpacked(result, NULL);
	}
	buf_free(&body);
	client_response_clear(&response);
	return rv;
}

static void summary_print(const struct invocation *inv, const struct site_file *file,
			  const struct totals *t, uint64_t elapsed_ms)
{
	bool dry_run = option_given(inv, "dry-run");
	char all[32], created[32], changed[32], unchanged[32], duration[64];

	if (api_output(inv) == OUTPUT_JSON) {
		printf("{\"created\":%" PRIu64 ",\"changed\":%" PRIu64 ",\"unchanged\":%" PRIu64
		       ",\"dryRun\":%s}\n",
		       t->created, t->changed, t->unchanged, dry_run ? "true" : "false");
		return;
	}
	if (option_given(inv, "quiet"))
		return;
	human_count(file->count, all);
	human_count(t->created, created);
	human_count(t->changed, changed);
	human_count(t->unchanged, unchanged);
	human_duration(elapsed_ms, duration);
	printf("%s sites: %s %s, %s %s, %s unchanged%s (%s)\n", all, created,
	       dry_run ? "would be created" : "created", changed,
	       dry_run ? "would be changed" : "changed", unchanged,
	       dry_run ? "; nothing was written" : "", duration);
}

int run_site_import(struct invocation *inv)
{
	struct site_file file = {0};
	struct progress progress;
	struct totals totals = {0};
	uint64_t start = clock_boottime_ms();
	size_t done = 0;
	char run[33];
	int rv;

	if (api_client(inv) == NULL)
		return EXIT_USAGE;
	rv = file_read(inv, &file);
	if (rv != EXIT_OK) {
		site_file_free(&file);
		return rv;
	}
	/* The key names this run too: the same file again must be looked at again, since others may
	 * have changed sites in between. */
	api_random_key(run);
	progress_start(&progress, option_given(inv, "dry-run") ? "checking" : "importing",
		       file.count, option_given(inv, "quiet"));
	while (rv == EXIT_OK && done < file.count) {
		size_t count = file.count - done < LIMIT_BULK ? file.count - done : LIMIT_BULK;

		progress_show(&progress, done);
		rv = batch_send(inv, &file, done, count, run, &totals);
		if (rv == EXIT_OK)
			done += count;
	}
	progress_end(&progress);
	if (rv == EXIT_OK)
		summary_print(inv, &file, &totals, clock_boottime_ms() - start);
	else if (!option_given(inv, "dry-run"))
		complain("stopped: %zu of %zu sites are written (%" PRIu64 " created, %" PRIu64
			 " changed) and stay so; an import may be repeated",
			 done, file.count, totals.created, totals.changed);
	site_file_free(&file);
	return rv;
}
