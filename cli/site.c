/* site.c: create, list, show, set, delete and export of sites. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/csv.h"
#include "cli/grid.h"
#include "cli/human.h"
#include "cli/run.h"
#include "cli/site_field.h"
#include "cli/watch.h"
#include "cluster/apply.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "proto/json.h"

static const char collection[] = "/v1/sites/";

static void site_free(Tb__Site *site)
{
	tb__site__free_unpacked(site, NULL);
}

/* Text of a site */

static void numbers_text(struct buf *out, const uint32_t *numbers, size_t count)
{
	for (size_t i = 0; i < count; i++)
		buf_printf(out, "%s%" PRIu32, i > 0 ? ", " : "", numbers[i]);
}

static void labels_text(struct buf *out, const Tb__Site *site)
{
	for (size_t i = 0; i < site->n_labels; i++)
		buf_printf(out, "%s%s=%s", i > 0 ? "," : "", site->labels[i]->key,
			   site->labels[i]->value);
}

static const char *state_word(const Tb__Site *site, char word[64])
{
	if (site->status == NULL)
		return "unknown";
	return json_enum_word(&tb__site_state__descriptor, (int)site->status->state, word);
}

/* How many different nodes the attached ones are configured with. */
static size_t nodes_configured(const Tb__SiteStatus *s)
{
	size_t most = 0;

	for (size_t i = 0; i < s->n_nodes; i++) {
		if (s->nodes[i]->n_configured > most)
			most = s->nodes[i]->n_configured;
	}
	return most;
}

static void attached_text(struct buf *out, const Tb__Site *site)
{
	const Tb__SiteStatus *s = site->status;
	size_t configured;

	if (s == NULL)
		return;
	configured = nodes_configured(s);
	if (configured >= s->n_nodes && configured > 0)
		buf_printf(out, "%zu of %zu", s->n_nodes, configured);
	else
		buf_printf(out, "%zu", s->n_nodes);
}

static void holder_text(struct buf *out, const Tb__Site *site)
{
	const Tb__SiteLease *lease = site->status != NULL ? site->status->lease : NULL;

	if (lease != NULL && lease->holder != 0)
		buf_printf(out, "%" PRIu32, lease->holder);
	if (lease != NULL || site->status == NULL || site->status->grant == NULL)
		return;
	numbers_text(out, site->status->grant->nodes, site->status->grant->n_nodes);
}

/* "ffsplit, tie-breaker lowest": what differs from the defaults; "default" if nothing does. */
static void policy_text(struct buf *out, const Tb__Site *site)
{
	for (size_t i = 0; site_field_options[i] != NULL; i++) {
		struct site_field f;
		char text[256], message[SITE_FIELD_MESSAGE];

		(void)site_field_find(site_field_options[i], &f, message);
		(void)site_field_get(site, &f, text);
		if (text[0] == '\0')
			continue;
		buf_puts(out, out->len > 0 ? ", " : "");
		if (i > 0)
			buf_printf(out, "%s ", site_field_options[i]);
		buf_puts(out, text);
	}
	if (out->len == 0)
		buf_puts(out, "default");
}

/* list */

static const char *const list_headers[] = {"NAME",   "STATE",	"NODES", "VOTE HELD BY",
					   "POLICY", "~LABELS", NULL};
static const char *const wide_headers[] = {"NAME",    "STATE",	"NODES",  "VOTE HELD BY",
					   ">EPOCH",  "POLICY", "LABELS", ">REVISION",
					   "CREATED", "REASON", NULL};

struct lister {
	struct grid *grid;
	bool wide;
};

static void row_add(struct lister *l, const Tb__Site *site)
{
	struct buf nodes = {0}, holder = {0}, policy = {0}, labels = {0};
	char state[64], revision[24], epoch[24] = "", created[32];
	const Tb__Grant *grant = site->status != NULL ? site->status->grant : NULL;

	attached_text(&nodes, site);
	holder_text(&holder, site);
	policy_text(&policy, site);
	labels_text(&labels, site);
	if (!l->wide) {
		grid_row(l->grid, (const char *[]){site->name, state_word(site, state),
						   buf_string(&nodes), buf_string(&holder),
						   buf_string(&policy), buf_string(&labels)});
	} else {
		human_time(site->created_ms, created);
		snprintf(revision, sizeof(revision), "%" PRIu64, site->revision);
		if (grant != NULL)
			snprintf(epoch, sizeof(epoch), "%" PRIu64, grant->epoch);
		grid_row(l->grid,
			 (const char *[]){site->name, state_word(site, state), buf_string(&nodes),
					  buf_string(&holder), epoch, buf_string(&policy),
					  buf_string(&labels), revision, created,
					  site->status != NULL ? site->status->reason : ""});
	}
	buf_free(&nodes);
	buf_free(&holder);
	buf_free(&policy);
	buf_free(&labels);
}

static int row_take(void *arg, const char *json, size_t len)
{
	Tb__Site *site;
	int rv = api_decode(&tb__site__descriptor, json, len, &site);

	if (rv != EXIT_OK)
		return rv;
	row_add(arg, site);
	site_free(site);
	return EXIT_OK;
}

static int name_take(void *arg, const char *json, size_t len)
{
	Tb__Site *site;
	int rv = api_decode(&tb__site__descriptor, json, len, &site);

	(void)arg;
	if (rv != EXIT_OK)
		return rv;
	puts(site->name);
	site_free(site);
	return EXIT_OK;
}

static void query_add(struct buf *path, const char *key, const char *value)
{
	if (value == NULL)
		return;
	buf_printf(path, "%c%s=", memchr(path->data, '?', path->len) != NULL ? '&' : '?', key);
	url_encode(path, value);
}

static void list_path(const struct invocation *inv, struct buf *path)
{
	buf_puts(path, "/v1/sites");
	for (size_t i = 0; option_nth(inv, "label", i) != NULL; i++)
		query_add(path, "label", option_nth(inv, "label", i));
	query_add(path, "state", option_text(inv, "state"));
	query_add(path, "prefix", option_text(inv, "prefix"));
}

/* One line for each change. */
static int watch_row(void *arg, const struct sse_event *event)
{
	char now[32], state[64];
	Tb__Site *site;

	(void)arg;
	human_time(clock_realtime_ms(), now);
	if (api_decode(&tb__site__descriptor, event->data, event->data_len, &site) != EXIT_OK)
		return EXIT_REFUSED;
	printf("%s  %-18s  %-24s  %-10s  %s\n", now, event->type, site->name,
	       site->status != NULL ? state_word(site, state) : "deleted",
	       site->status != NULL ? site->status->reason : "");
	fflush(stdout);
	site_free(site);
	return 0;
}

int run_site_list(struct invocation *inv)
{
	struct buf path = {0};
	enum output output = api_output(inv);
	struct lister l = {.wide = output == OUTPUT_WIDE};
	int rv;

	list_path(inv, &path);
	if (option_given(inv, "watch")) {
		query_add(&path, "watch", "1");
		rv = watch_run(inv, buf_string(&path), NULL, watch_row);
	} else if (output == OUTPUT_JSON) {
		rv = api_list_json(inv, buf_string(&path));
	} else if (output == OUTPUT_NAME) {
		rv = api_list(inv, buf_string(&path), name_take, NULL);
	} else {
		l.grid = grid_new(l.wide ? wide_headers : list_headers);
		rv = api_list(inv, buf_string(&path), row_take, &l);
		grid_print(l.grid, rv != EXIT_OK ? NULL
				   : path.len > strlen("/v1/sites")
					   ? "No site matches."
					   : "No sites yet; see witnessctl site import "
					     "--help.");
	}
	buf_free(&path);
	return rv;
}

/* show */

static void nodes_print(const Tb__SiteStatus *s)
{
	static const char *const headers[] = {">NODE",	 "ADDRESS",    ">BOARD", "TLS",	     "RING",
					      "MEMBERS", "HEURISTICS", "VOTE",	 "ATTACHED", NULL};
	struct grid *g = grid_new(headers);

	for (size_t i = 0; i < s->n_nodes; i++) {
		const Tb__SiteNode *n = s->nodes[i];
		struct buf members = {0};
		char id[16], board[24], ring[40] = "", heuristics[64], vote[64], attached[32];

		snprintf(id, sizeof(id), "%" PRIu32, n->node_id);
		snprintf(board, sizeof(board), "%" PRIu64, n->board);
		if (n->ring != NULL)
			snprintf(ring, sizeof(ring), "%" PRIx32 ".%" PRIx64, n->ring->node,
				 n->ring->seq);
		numbers_text(&members, n->members, n->n_members);
		human_time(n->attached_ms, attached);
		grid_row(g, (const char *[]){id, n->address, board,
					     !n->tls	      ? "no"
					     : n->certificate ? "certificate"
							      : "yes",
					     ring, buf_string(&members),
					     json_enum_word(&tb__heuristics__descriptor,
							    (int)n->heuristics, heuristics),
					     json_enum_word(&tb__vote__descriptor,
							    (int)n->last_result, vote),
					     attached});
		buf_free(&members);
	}
	putchar('\n');
	grid_print(g, "No node is attached.");
}

static void agents_print(const Tb__SiteStatus *s)
{
	static const char *const headers[] = {">NODE",	  "NAME", "ADDRESS", ">BOARD",
					      "WANTS IT", "SEES", "LEASE",   ">GENERATION",
					      "ATTACHED", NULL};
	struct grid *g = grid_new(headers);

	for (size_t i = 0; i < s->n_nodes; i++) {
		const Tb__SiteNode *n = s->nodes[i];
		struct buf seen = {0};
		char id[16], board[24], lease[32] = "", generation[24], attached[32];

		snprintf(id, sizeof(id), "%" PRIu32, n->node_id);
		snprintf(board, sizeof(board), "%" PRIu64, n->board);
		snprintf(generation, sizeof(generation), "%" PRIu64, n->generation);
		if (s->lease->holder == n->node_id)
			snprintf(lease, sizeof(lease), "epoch %" PRIu64, s->lease->epoch);
		numbers_text(&seen, n->seen, n->n_seen);
		human_time(n->attached_ms, attached);
		grid_row(g,
			 (const char *[]){id, n->name, n->address, board, n->wanted ? "yes" : "no",
					  buf_string(&seen), lease, generation, attached});
		buf_free(&seen);
	}
	putchar('\n');
	grid_print(g, "No node is attached.");
}

static void lease_print(const Tb__SiteLease *lease)
{
	char until[32];

	if (lease->holder == 0) {
		field_print("Lease", "held by nobody (last epoch %" PRIu64 ")", lease->epoch);
		return;
	}
	human_time(lease->until_ms, until);
	field_print("Lease",
		    "held by node %" PRIu32 " (epoch %" PRIu64
		    ") until %s at the latest, unless it "
		    "renews",
		    lease->holder, lease->epoch, until);
}

static void grant_print(const Tb__Grant *grant)
{
	struct buf nodes = {0};
	char when[32], ago[64];

	if (grant == NULL) {
		field_print("Vote", "given to nobody yet");
		return;
	}
	numbers_text(&nodes, grant->nodes, grant->n_nodes);
	human_time(grant->granted_ms, when);
	human_relative(grant->granted_ms, clock_realtime_ms(), ago);
	field_print("Vote", "held by node%s %s (epoch %" PRIu64 ") since %s, %s",
		    grant->n_nodes == 1 ? "" : "s", buf_string(&nodes), grant->epoch, when, ago);
	field_print("Why", "%s", grant->reason);
	buf_free(&nodes);
}

static int site_print(struct invocation *inv, const void *message)
{
	const Tb__Site *site = message;
	struct buf labels = {0}, policy = {0};
	char state[64], when[32];

	if (api_output(inv) == OUTPUT_NAME) {
		puts(site->name);
		return EXIT_OK;
	}
	labels_text(&labels, site);
	policy_text(&policy, site);
	human_time(site->created_ms, when);
	field_print("Name", "%s", site->name);
	if (site->status != NULL)
		field_print("State", "%s%s%s", state_word(site, state),
			    site->status->reason[0] != '\0' ? ": " : "", site->status->reason);
	field_print("Labels", "%s", buf_string(&labels));
	field_print("Policy", "%s", buf_string(&policy));
	if (site->status != NULL && site->status->lease != NULL)
		lease_print(site->status->lease);
	else if (site->status != NULL)
		grant_print(site->status->grant);
	field_print("Created", "%s", when);
	field_print("Revision", "%" PRIu64, site->revision);
	if (site->status != NULL && site->status->lease != NULL)
		agents_print(site->status);
	else if (site->status != NULL)
		nodes_print(site->status);
	buf_free(&labels);
	buf_free(&policy);
	return EXIT_OK;
}

int run_site_show(struct invocation *inv)
{
	char *path = api_path(collection, inv->args[0], "");
	int rv = api_show(inv, path, &tb__site__descriptor, site_print);

	free(path);
	return rv;
}

/* create, set, delete */

static int site_told(const struct invocation *inv, const char *name, const char *what,
		     const struct buf *body)
{
	if (api_output(inv) == OUTPUT_JSON)
		api_print_json(body);
	else if (api_output(inv) == OUTPUT_NAME)
		puts(name);
	else
		printf("site %s %s\n", name, what);
	return EXIT_OK;
}

static int checked(const Tb__Site *site)
{
	struct apply_problem problem;

	if (site_check(site, &problem) == 0)
		return EXIT_OK;
	human_safe(problem.message);
	complain("%s: %s", problem.field, problem.message);
	return EXIT_USAGE;
}

int run_site_create(struct invocation *inv)
{
	Tb__Site *site = site_new();
	struct buf body = {0};
	int rv;

	site->name = mem_strdup(inv->args[0]);
	rv = site_options_apply(inv, site, NULL);
	if (rv == EXIT_OK)
		rv = checked(site);
	if (rv == EXIT_OK)
		rv = api_send(inv,
			      &(struct api_request){.method = "POST",
						    .path = "/v1/sites",
						    .message = &site->base,
						    .retry_ms = API_RETRY_MS},
			      &body);
	if (rv == EXIT_OK)
		rv = site_told(inv, site->name, "created", &body);
	buf_free(&body);
	site_free(site);
	return rv;
}

static int site_set_one(struct invocation *inv, const char *name, const char *patch)
{
	char *path = api_path(collection, name, "");
	char match[40];
	const char *revision = option_text(inv, "if-revision");
	struct buf body = {0};
	int rv;

	snprintf(match, sizeof(match), "\"%s\"", revision != NULL ? revision : "");
	rv = api_send(inv,
		      &(struct api_request){.method = "PATCH",
					    .path = path,
					    .text = patch,
					    .content_type = "application/merge-patch+json",
					    .if_match = revision != NULL ? match : NULL,
					    .retry_ms = API_RETRY_MS},
		      &body);
	if (rv == EXIT_OK)
		rv = site_told(inv, name, "set", &body);
	buf_free(&body);
	free(path);
	return rv;
}

int run_site_set(struct invocation *inv)
{
	Tb__Site *site = site_new();
	struct buf members = {0};
	char *patch;
	int rv = site_options_apply(inv, site, &members);

	site_free(site);
	if (rv == EXIT_OK && members.len == 0) {
		complain("nothing to set; see witnessctl site set --help");
		rv = EXIT_USAGE;
	}
	if (rv == EXIT_OK && option_given(inv, "if-revision") && inv->arg_count > 1) {
		complain("--if-revision goes with one site only");
		rv = EXIT_USAGE;
	}
	patch = mem_printf("{%s}", buf_string(&members));
	for (size_t i = 0; rv == EXIT_OK && i < inv->arg_count; i++)
		rv = site_set_one(inv, inv->args[i], patch);
	free(patch);
	buf_free(&members);
	return rv;
}

int run_site_delete(struct invocation *inv)
{
	int rv = EXIT_OK;

	for (size_t i = 0; rv == EXIT_OK && i < inv->arg_count; i++) {
		char *path = api_path(collection, inv->args[i], "");
		struct buf body = {0};

		rv = api_send(inv,
			      &(struct api_request){
				      .method = "DELETE", .path = path, .retry_ms = API_RETRY_MS},
			      &body);
		if (rv == EXIT_OK && api_output(inv) != OUTPUT_JSON)
			rv = site_told(inv, inv->args[i], "deleted", &body);
		buf_free(&body);
		free(path);
	}
	return rv;
}

/* export */

struct exporter {
	Tb__Site **sites;
	size_t count, cap;
	char **keys; /* labels seen on any site, sorted */
	size_t key_count;
};

static void exporter_free(struct exporter *e)
{
	for (size_t i = 0; i < e->count; i++)
		site_free(e->sites[i]);
	for (size_t i = 0; i < e->key_count; i++)
		free(e->keys[i]);
	free(e->sites);
	free(e->keys);
}

/* Where the key is or belongs in the sorted list. */
static size_t key_place(const struct exporter *e, const char *key, bool *found)
{
	size_t low = 0, high = e->key_count;

	*found = false;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(e->keys[middle], key);

		if (order == 0) {
			*found = true;
			return middle;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void keys_note(struct exporter *e, const Tb__Site *site)
{
	for (size_t i = 0; i < site->n_labels; i++) {
		bool found;
		size_t place = key_place(e, site->labels[i]->key, &found);

		if (found)
			continue;
		e->keys = mem_realloc(e->keys, (e->key_count + 1) * sizeof(*e->keys));
		memmove(e->keys + place + 1, e->keys + place,
			(e->key_count - place) * sizeof(*e->keys));
		e->keys[place] = mem_strdup(site->labels[i]->key);
		e->key_count++;
	}
}

static int export_take(void *arg, const char *json, size_t len)
{
	struct exporter *e = arg;
	Tb__Site *site;
	int rv = api_decode(&tb__site__descriptor, json, len, &site);

	if (rv != EXIT_OK)
		return rv;
	/* What the cluster gives is no part of what a person writes. */
	tb__site_status__free_unpacked(site->status, NULL);
	site->status = NULL;
	site->id = 0;
	site->revision = 0;
	site->created_ms = 0;
	if (e->count == e->cap) {
		e->cap = e->cap == 0 ? 256 : 2 * e->cap;
		e->sites = mem_realloc(e->sites, e->cap * sizeof(Tb__Site *));
	}
	e->sites[e->count++] = site;
	keys_note(e, site);
	return EXIT_OK;
}

static void export_csv(const struct exporter *e, FILE *out)
{
	struct buf text = {0};

	buf_puts(&text, "name");
	for (size_t i = 0; site_field_options[i] != NULL; i++)
		buf_printf(&text, ",%s", site_field_options[i]);
	for (size_t i = 0; i < e->key_count; i++)
		buf_printf(&text, ",label.%s", e->keys[i]);
	buf_putc(&text, '\n');
	for (size_t i = 0; i < e->count; i++) {
		csv_write_field(&text, e->sites[i]->name);
		for (size_t k = 0; site_field_options[k] != NULL; k++) {
			struct site_field f;
			char value[256], message[SITE_FIELD_MESSAGE];

			(void)site_field_find(site_field_options[k], &f, message);
			(void)site_field_get(e->sites[i], &f, value);
			buf_putc(&text, ',');
			buf_puts(&text, value);
		}
		for (size_t k = 0; k < e->key_count; k++) {
			const char *value = site_label(e->sites[i], e->keys[k]);

			buf_putc(&text, ',');
			if (value != NULL)
				csv_write_field(&text, value);
		}
		buf_putc(&text, '\n');
		fwrite(text.data, 1, text.len, out);
		buf_clear(&text);
	}
	fwrite(text.data, 1, text.len, out); /* the header alone, if there is no site */
	buf_free(&text);
}

static void export_json(const struct exporter *e, FILE *out)
{
	struct buf text = {0};

	fputs("{\"sites\":[", out);
	for (size_t i = 0; i < e->count; i++) {
		buf_clear(&text);
		buf_puts(&text, i > 0 ? ",\n" : "\n");
		json_encode(&e->sites[i]->base, &text);
		fwrite(text.data, 1, text.len, out);
	}
	fputs("\n]}\n", out);
	buf_free(&text);
}

int run_site_export(struct invocation *inv)
{
	const char *format = option_text(inv, "format");
	const char *path_out = option_text(inv, "out");
	struct exporter e = {0};
	struct buf path = {0};
	FILE *out = stdout;
	int rv;

	list_path(inv, &path);
	rv = api_list(inv, buf_string(&path), export_take, &e);
	buf_free(&path);
	if (rv == EXIT_OK && path_out != NULL) {
		out = fopen(path_out, "we");
		if (out == NULL) {
			complain("cannot write %s: %s", path_out, strerror(errno));
			rv = EXIT_REFUSED;
		}
	}
	if (rv == EXIT_OK) {
		if ((format == NULL && api_output(inv) == OUTPUT_JSON) ||
		    (format != NULL && strcmp(format, "json") == 0))
			export_json(&e, out);
		else
			export_csv(&e, out);
		if (fflush(out) != 0 || ferror(out)) {
			complain("cannot write %s: %s", path_out != NULL ? path_out : "the output",
				 strerror(errno));
			rv = EXIT_REFUSED;
		}
	}
	if (out != NULL && out != stdout)
		fclose(out);
	exporter_free(&e);
	return rv;
}
