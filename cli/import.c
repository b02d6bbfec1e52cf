/* import.c: `site import`. The file is read and checked whole; only then is it sent, in batches
 * that are each all or nothing. A batch is sent again under the same idempotency key when the
 * answer is lost, so a change of leader in the middle costs a pause and nothing else; an import
 * that was broken off is simply run again: what is there already is "unchanged".
 *
 * A few batches are on their way at once, since most of each one's time is waiting for disks and
 * other boards. No name is in two batches, so their order does not matter. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
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

enum { IMPORT_RETRY_MS = 60000, SENDERS = 4, SHOW_EVERY_MS = 100 };

struct totals {
	uint64_t created, changed, unchanged;
};

/* Shared by the senders; all behind the lock but what never changes. */
struct import {
	const struct invocation *inv;
	const struct site_file *file;
	char run[33]; /* random: names this run in the idempotency keys */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	size_t next; /* first site that nobody has taken */
	size_t done; /* sites written */
	unsigned senders; /* at work */
	int result; /* EXIT_OK until the first batch fails */
	struct totals totals;
	Tb__SiteBulkResult rooms; /* of a dry run: its rooms, with what all batches make of them */
	struct progress progress;
};

static Tb__SiteRoom *room_find(const struct import *im, const char *tenant)
{
	for (size_t i = 0; i < im->rooms.n_rooms; i++)
		if (strcmp(im->rooms.rooms[i]->tenant, tenant) == 0)
			return im->rooms.rooms[i];
	return NULL;
}

static void rooms_count(struct import *im, Tb__SiteBulkResult *result)
{
	for (size_t i = 0; i < result->n_rooms; i++) {
		Tb__SiteRoom *room = room_find(im, result->rooms[i]->tenant);

		if (room != NULL) {
			room->more += result->rooms[i]->more;
			continue;
		}
		im->rooms.rooms = mem_realloc(im->rooms.rooms,
					      (im->rooms.n_rooms + 1) * sizeof(im->rooms.rooms[0]));
		im->rooms.rooms[im->rooms.n_rooms++] = result->rooms[i];
		result->rooms[i] = NULL;
	}
}

/* Each batch alone has room enough; a board knows nothing of the others before it. */
static int rooms_check(const struct import *im)
{
	for (size_t i = 0; i < im->rooms.n_rooms; i++) {
		const Tb__SiteRoom *room = im->rooms.rooms[i];
		int64_t after = (int64_t)room->sites + room->more;

		if (room->more <= 0 || after <= room->max)
			continue;
		if (room->tenant[0] == '\0')
			complain("a cluster has at most %u sites, and this makes %" PRId64,
				 room->max, after);
		else
			complain("tenant %s may have %u sites, and this makes %" PRId64
				 "; delete some, or raise it with witnessctl tenant set %s "
				 "--max-sites N",
				 room->tenant, room->max, after, room->tenant);
		return EXIT_REFUSED;
	}
	return EXIT_OK;
}

static void rooms_free(struct import *im)
{
	for (size_t i = 0; i < im->rooms.n_rooms; i++)
		tb__site_room__free_unpacked(im->rooms.rooms[i], NULL);
	free(im->rooms.rooms);
}

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

/* One batch on its way: what was answered. */
struct batch {
	size_t first, count;
	int rv; /* of client_send */
	struct client_response response;
	Tb__SiteBulkResult *result; /* NULL: it was not done */
};

static void batch_send(struct import *im, struct client *client, struct batch *b)
{
	Tb__SiteBulk bulk = TB__SITE_BULK__INIT;
	Tb__Site *sites[LIMIT_BULK];
	struct json_error error;
	struct buf body = {0};
	char key[96];
	struct client_request request = {
		.method = "POST",
		.path = "/v1/sites:bulk",
		.idempotency_key = key,
		.retry_ms = IMPORT_RETRY_MS,
	};

	for (size_t i = 0; i < b->count; i++)
		sites[i] = im->file->entries[b->first + i]->site;
	bulk.sites = sites;
	bulk.n_sites = b->count;
	bulk.dry_run = option_given(im->inv, "dry-run");
	json_encode(&bulk.base, &body);
	request.body = body.data;
	request.body_len = body.len;
	snprintf(key, sizeof(key), "%.16s-%.16s-%zu", im->file->sha256, im->run,
		 b->first / LIMIT_BULK);
	b->rv = client_send(client, &request, &b->response);
	if (b->rv == 0 && b->response.status >= 200 && b->response.status <= 299)
		(void)json_decode(&tb__site_bulk_result__descriptor,
				  (const char *)b->response.body.data, b->response.body.len,
				  (ProtobufCMessage **)&b->result, &error);
	buf_free(&body);
}

/* Under the lock. Only the first failure is told: the others have the same cause, as a rule. */
static void batch_count(struct import *im, struct client *client, const struct batch *b)
{
	if (b->result != NULL) {
		rooms_count(im, b->result);
		im->done += b->count;
		im->totals.created += b->result->created;
		im->totals.changed += b->result->changed;
		im->totals.unchanged += b->result->unchanged;
		return;
	}
	if (im->result != EXIT_OK)
		return;
	progress_end(&im->progress);
	im->result = b->rv != 0 ? api_failure(client, b->rv)
				: batch_refused(im->inv, im->file, b->first, &b->response);
}

static bool batch_take(struct import *im, struct batch *b)
{
	size_t left = im->file->count - im->next;

	*b = (struct batch){.first = im->next, .count = left < LIMIT_BULK ? left : LIMIT_BULK};
	im->next += b->count;
	return b->count > 0 && im->result == EXIT_OK;
}

/* A sender: takes batches until there are none or one has failed. */
static void *batches_send(void *arg)
{
	struct import *im = arg;
	struct client *client = api_client_new(im->inv);
	struct batch b;

	pthread_mutex_lock(&im->lock);
	if (client == NULL) /* the options were good a moment ago; a file has changed */
		im->result = EXIT_USAGE;
	while (batch_take(im, &b)) {
		pthread_mutex_unlock(&im->lock);
		batch_send(im, client, &b);
		pthread_mutex_lock(&im->lock);
		batch_count(im, client, &b);
		client_response_clear(&b.response);
		if (b.result != NULL)
			tb__site_bulk_result__free_unpacked(b.result, NULL);
		pthread_cond_signal(&im->changed);
	}
	im->senders--;
	pthread_cond_signal(&im->changed);
	pthread_mutex_unlock(&im->lock);
	client_free(client);
	return NULL;
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

/* Waits for the senders and shows how far they are. */
static void senders_watch(struct import *im)
{
	pthread_mutex_lock(&im->lock);
	while (im->senders > 0) {
		struct timespec until;

		clock_gettime(CLOCK_REALTIME, &until); /* what pthread_cond_timedwait goes by */
		until.tv_nsec += SHOW_EVERY_MS * 1000000L;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		if (im->result == EXIT_OK)
			progress_show(&im->progress, im->done);
		pthread_cond_timedwait(&im->changed, &im->lock, &until);
	}
	progress_end(&im->progress);
	pthread_mutex_unlock(&im->lock);
}

static void all_send(struct import *im)
{
	pthread_t threads[SENDERS];
	size_t batches = (im->file->count + LIMIT_BULK - 1) / LIMIT_BULK;
	unsigned count = 0;

	pthread_mutex_lock(&im->lock);
	while (count < SENDERS && count < batches &&
	       pthread_create(&threads[count], NULL, batches_send, im) == 0)
		count++;
	im->senders = count;
	pthread_mutex_unlock(&im->lock);
	if (count == 0)
		abort(); /* no room for one thread: as without memory */
	senders_watch(im);
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

int run_site_import(struct invocation *inv)
{
	struct site_file file = {0};
	struct import im = {
		.inv = inv,
		.file = &file,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.changed = PTHREAD_COND_INITIALIZER,
	};
	uint64_t start = clock_boottime_ms();
	int rv;

	if (api_client(inv) == NULL) /* before the file is read: is the command line good? */
		return EXIT_USAGE;
	rv = file_read(inv, &file);
	if (rv != EXIT_OK) {
		site_file_free(&file);
		return rv;
	}
	/* The same file again must be looked at again, since others may have changed sites in
	 * between: so the keys are of this run. */
	api_random_key(im.run);
	progress_start(&im.progress, option_given(inv, "dry-run") ? "checking" : "importing",
		       file.count, option_given(inv, "quiet"));
	all_send(&im);
	if (im.result == EXIT_OK)
		im.result = rooms_check(&im);
	rooms_free(&im);
	if (im.result == EXIT_OK)
		summary_print(inv, &file, &im.totals, clock_boottime_ms() - start);
	else if (!option_given(inv, "dry-run"))
		complain("stopped: %zu of %zu sites are written (%" PRIu64 " created, %" PRIu64
			 " changed) and stay so; an import may be repeated",
			 im.done, file.count, im.totals.created, im.totals.changed);
	site_file_free(&file);
	return im.result;
}
