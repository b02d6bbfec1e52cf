/* Watches: what is sent, in which order, resume, filters, slow clients, limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api_double.h"
#include "lib/mem.h"
#include "witnessd/api_call.h"

static int setup(void **state)
{
	struct world *w = mem_zalloc(sizeof(*w));

	world_open(w, true);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	world_close(*state);
	free(*state);
	return 0;
}

static void site_make(struct world *w, const char *name, const char *region)
{
	char *body = mem_printf("{\"name\":\"%s\",\"labels\":{\"region\":\"%s\"}}", name, region);
	struct answer a;

	ask(w, &(struct ask){"POST", "/v1/sites", body}, &a);
	assert_int_equal(a.status, 201);
	answer_clear(&a);
	free(body);
}

/* Written by another board: nobody here waits for it. */
static void site_begin(struct world *w, const char *name)
{
	Tb__Command *command = mem_alloc(sizeof(*command));
	Tb__SitePut *put = mem_alloc(sizeof(*put));
	Tb__Site *site = mem_alloc(sizeof(*site));

	tb__command__init(command);
	tb__site_put__init(put);
	tb__site__init(site);
	site->name = mem_strdup(name);
	put->n_sites = 1;
	put->sites = mem_array(1, sizeof(put->sites[0]));
	put->sites[0] = site;
	command->op_case = TB__COMMAND__OP_SITE_PUT;
	command->site_put = put;
	core_apply(&w->core, command);
}

static void site_delete(struct world *w, const char *name)
{
	char *path = mem_printf("/v1/sites/%s", name);
	struct answer a;

	ask(w, &(struct ask){"DELETE", path}, &a);
	assert_int_equal(a.status, 200);
	answer_clear(&a);
	free(path);
}

static void changed(struct world *w)
{
	api_model_changed(w->api);
	world_run(w);
}

static unsigned count(struct answer *a, const char *what)
{
	unsigned n = 0;

	for (const char *at = buf_string(&a->body); (at = strstr(at, what)) != NULL; at++)
		n++;
	return n;
}

static uint64_t last_seq(struct world *w)
{
	uint64_t first;
	uint64_t last;

	assert_int_equal(store_event_range(w->core.writer, &first, &last), 0);
	return last;
}

/* Every id once, rising by one from `after` + 1. */
static void check_ids(struct answer *a, uint64_t after, uint64_t last)
{
	const char *at = buf_string(&a->body);

	while ((at = strstr(at, "id: ")) != NULL) {
		uint64_t id = strtoull(at + 4, NULL, 10);

		if (strncmp(strchr(at, '\n') + 1, "event: ", 7) == 0)
			assert_int_equal(id, ++after);
		at++;
	}
	assert_int_equal(after, last);
}

static void test_events_from_now(void **state)
{
	struct world *w = *state;
	struct answer a;
	uint64_t start;

	site_make(w, "old", "emea");
	start = last_seq(w);
	ask(w, &(struct ask){"GET", "/v1/events?watch=1"}, &a);
	assert_true(a.streaming);
	assert_string_equal(a.type, "text/event-stream");
	assert_int_equal(count(&a, "event: "), 0);
	/* Where to resume is known before the first event. */
	assert_int_equal(count(&a, "retry: 2000\nid: "), 1);
	site_make(w, "new", "emea");
	changed(w);
	site_delete(w, "new");
	changed(w);
	changed(w);
	assert_int_equal(count(&a, "event: site.created\ndata: {"), 1);
	assert_int_equal(count(&a, "event: site.deleted\ndata: {"), 1);
	check_ids(&a, start, last_seq(w));
	api_gone(a.call);
	assert_true(a.ended);
	assert_null(a.call);
	changed(w);
	answer_clear(&a);
}

static void test_resume(void **state)
{
	struct world *w = *state;
	struct answer a;
	struct answer b;

	for (int i = 0; i < 700; i++) { /* more than one batch */
		char name[16];

		snprintf(name, sizeof(name), "n%d", i);
		site_make(w, name, "emea");
	}
	ask(w, &(struct ask){"GET", "/v1/events?watch=1", .last_event_id = "5"}, &a);
	check_ids(&a, 5, last_seq(w));
	ask(w, &(struct ask){"GET", "/v1/events?watch=1&after=0"}, &b);
	check_ids(&b, 0, last_seq(w));
	site_make(w, "more", "emea");
	changed(w);
	check_ids(&b, 0, last_seq(w));
	api_gone(b.call);
	answer_clear(&b);
	check_ids(&a, 5, last_seq(w));
	api_gone(a.call);
	answer_clear(&a);
	/* The header is newer than the address, which a client repeats as it was. */
	ask(w, &(struct ask){"GET", "/v1/events?watch=1&after=0", .last_event_id = "600"}, &a);
	check_ids(&a, 600, last_seq(w));
	api_gone(a.call);
	answer_clear(&a);
}

static void test_one_text_for_all(void **state)
{
	struct world *w = *state;
	struct answer a[5];
	unsigned queries;

	for (int i = 0; i < 5; i++)
		ask(w, &(struct ask){"GET", "/v1/sites?watch=1"}, &a[i]);
	queries = w->core.queries;
	site_make(w, "berlin", "emea");
	changed(w);
	assert_int_equal(w->core.queries, queries + 1);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(count(&a[i], "event: site.created\ndata: {"), 1);
		assert_int_equal(count(&a[i], "\"state\":\"whole\""), 1);
		api_gone(a[i].call);
		answer_clear(&a[i]);
	}
}

static void test_site_filters(void **state)
{
	static const char *const paths[] = {
		"/v1/sites?watch=1",
		"/v1/sites?watch=1&prefix=ber",
		"/v1/sites?watch=1&label=region%3Dapac",
		"/v1/sites?watch=1&state=split",
	};
	struct world *w = *state;
	struct answer a[4];

	for (int i = 0; i < 4; i++)
		ask(w, &(struct ask){"GET", paths[i]}, &a[i]);
	site_make(w, "berlin", "emea");
	site_make(w, "tokyo", "apac");
	site_make(w, "paris", "emea"); /* the stand-in says: split */
	changed(w);
	assert_int_equal(count(&a[0], "event: site.created"), 3);
	assert_int_equal(count(&a[1], "event: site.created"), 1);
	assert_int_equal(count(&a[1], "\"name\":\"berlin\""), 1);
	assert_int_equal(count(&a[2], "event: site.created"), 1);
	assert_int_equal(count(&a[2], "\"name\":\"tokyo\""), 1);
	assert_int_equal(count(&a[3], "event: site.created"), 1);
	assert_int_equal(count(&a[3], "\"name\":\"paris\""), 1);
	site_delete(w, "tokyo");
	changed(w);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(count(&a[i], "data: {\"name\":\"tokyo\"}\n"), i == 1 ? 0 : 1);
		api_gone(a[i].call);
		answer_clear(&a[i]);
	}
	ask(w, &(struct ask){"GET", "/v1/sites?watch=1&label=%3D"}, &a[0]);
	assert_int_equal(a[0].status, 400);
	answer_clear(&a[0]);
}

static void test_too_old(void **state)
{
	struct world *w = *state;
	struct answer a;

	ask(w, &(struct ask){"GET", "/v1/events?watch=1", .last_event_id = "99999"}, &a);
	assert_int_equal(count(&a, "event: too-old\n"), 1);
	assert_true(a.ended);
	answer_clear(&a);
	ask(w, &(struct ask){"GET", "/v1/events?watch=1", .last_event_id = "x"}, &a);
	assert_int_equal(a.status, 400);
	answer_clear(&a);
}

/* A client that takes nothing is sent nothing more, and everything later. */
static void test_slow_client(void **state)
{
	struct world *w = *state;
	struct answer slow;
	struct answer fast;
	uint64_t start = last_seq(w);
	size_t held;

	ask(w, &(struct ask){"GET", "/v1/events?watch=1"}, &slow);
	ask(w, &(struct ask){"GET", "/v1/events?watch=1"}, &fast);
	slow.queued = 1 << 20;
	site_make(w, "first", "emea");
	changed(w);
	held = slow.body.len;
	for (int i = 0; i < 1500; i++) { /* more than the ring */
		char name[16];

		snprintf(name, sizeof(name), "n%d", i);
		site_make(w, name, "emea");
		if (i % 100 == 0)
			changed(w);
	}
	changed(w);
	assert_int_equal(slow.body.len, held);
	check_ids(&fast, start, last_seq(w));
	slow.queued = 0;
	api_drained(slow.call);
	world_run(w);
	check_ids(&slow, start, last_seq(w));
	api_gone(slow.call);
	api_gone(fast.call);
	answer_clear(&slow);
	answer_clear(&fast);
}

static void test_stream_limit(void **state)
{
	struct world *w = *state;
	struct answer *a = mem_array(API_STREAMS_MAX, sizeof(*a));
	struct answer more;

	for (int i = 0; i < API_STREAMS_MAX; i++) {
		ask(w, &(struct ask){"GET", "/v1/events?watch=1"}, &a[i]);
		assert_true(a[i].streaming);
	}
	ask(w, &(struct ask){"GET", "/v1/events?watch=1"}, &more);
	assert_int_equal(more.status, 503);
	answer_clear(&more);
	api_gone(a[7].call);
	answer_clear(&a[7]);
	ask(w, &(struct ask){"GET", "/v1/events?watch=1"}, &a[7]);
	assert_true(a[7].streaming);
	for (int i = 0; i < API_STREAMS_MAX; i++) {
		api_gone(a[i].call);
		answer_clear(&a[i]);
	}
	free(a);
}

/* A stream goes while the leader is being asked for it. */
static void test_gone_in_between(void **state)
{
	struct world *w = *state;
	struct answer a;

	site_make(w, "berlin", "emea");
	ask_begin(w, &(struct ask){"GET", "/v1/sites?watch=1&after=0"}, &a);
	assert_true(a.streaming);
	assert_false(list_empty(&w->core.pending));
	api_gone(a.call);
	world_run(w);
	assert_int_equal(count(&a, "event: "), 0);
	answer_clear(&a);
	ask(w, &(struct ask){"GET", "/v1/sites?watch=1"}, &a);
	site_make(w, "paris", "emea");
	api_model_changed(w->api);
	api_gone(a.call);
	world_run(w);
	answer_clear(&a);
}

/* The model changes while a batch is under way: nothing is sent twice or left out. */
static void test_changes_overlap(void **state)
{
	struct world *w = *state;
	struct answer a;
	uint64_t start;

	ask(w, &(struct ask){"GET", "/v1/sites?watch=1"}, &a);
	start = last_seq(w);
	site_make(w, "n0", "emea");
	api_model_changed(w->api); /* asks the leader */
	site_begin(w, "n1");
	api_model_changed(w->api);
	world_run(w);
	check_ids(&a, start, last_seq(w));
	api_gone(a.call);
	answer_clear(&a);
}

static void test_close_ends_streams(void **state)
{
	struct world *w = *state;

	for (int late = 0; late < 2; late++) {
		struct answer a;
		struct answer b;

		site_make(w, "berlin", "emea");
		ask(w, &(struct ask){"GET", "/v1/events?watch=1"}, &a);
		ask_begin(w, &(struct ask){"GET", "/v1/sites?watch=1&after=0"}, &b);
		assert_false(list_empty(&w->core.pending));
		w->late = late;
		world_close(w);
		assert_true(a.ended && b.ended);
		answer_clear(&a);
		answer_clear(&b);
		world_open(w, true);
	}
}

static void test_no_leader(void **state)
{
	struct world *w = *state;
	struct answer a;

	ask(w, &(struct ask){"GET", "/v1/sites?watch=1"}, &a);
	site_make(w, "berlin", "emea");
	w->core.view.leader_id = 0;
	changed(w);
	assert_int_equal(count(&a, "event: site.created"), 1);
	assert_int_equal(count(&a, "no leader"), 1);
	api_gone(a.call);
	answer_clear(&a);
}

/* Who is no longer let in does not go on listening. */
static void test_revoked_token_ends_stream(void **state)
{
	struct world *w = *state;
	char *token = token_make(w, "viewer", "");
	char *path = mem_printf("/v1/tokens/%.16s", token + 4);
	struct answer a;
	struct answer b;

	ask(w, &(struct ask){"GET", "/v1/events?watch=1", .token = token}, &a);
	api_watch_beat(w->api->watch);
	assert_int_equal(count(&a, "\n:\n\n"), 1);
	assert_false(a.ended);
	ask(w, &(struct ask){"DELETE", path}, &b);
	answer_clear(&b);
	api_watch_beat(w->api->watch);
	assert_true(a.ended);
	answer_clear(&a);
	free(path);
	free(token);
}

/* It ends at once with the CA of its certificate. */
static void test_ca_ends_stream(void **state)
{
	struct world *w = *state;
	struct tls_peer peer = {.present = true,
				.uri = "tiebreak:client/viewer",
				.serial = "aa112233445566778899aabbccddeeff"};
	Tb__Command *command = mem_alloc(sizeof(*command));
	Tb__Certificate *row = mem_alloc(sizeof(*row));
	struct answer a;

	tb__command__init(command);
	command->op_case = TB__COMMAND__OP_CERTIFICATE_ADD;
	command->certificate_add = mem_alloc(sizeof(*command->certificate_add));
	tb__certificate_add__init(command->certificate_add);
	tb__certificate__init(row);
	row->serial = mem_strdup(peer.serial);
	row->subject = mem_strdup("ann");
	row->kind = mem_strdup("client");
	row->role = TB__ROLE__ROLE_VIEWER;
	command->certificate_add->certificate = row;
	core_apply(&w->core, command);
	ask(w, &(struct ask){"GET", "/v1/events?watch=1", .certificate = &peer}, &a);
	api_identity_changed(w->api);
	assert_false(a.ended);
	w->believed.ids[0] = 5;
	api_identity_changed(w->api);
	assert_true(a.ended);
	answer_clear(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_events_from_now, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resume, setup, teardown),
		cmocka_unit_test_setup_teardown(test_one_text_for_all, setup, teardown),
		cmocka_unit_test_setup_teardown(test_site_filters, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_old, setup, teardown),
		cmocka_unit_test_setup_teardown(test_slow_client, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stream_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gone_in_between, setup, teardown),
		cmocka_unit_test_setup_teardown(test_changes_overlap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_close_ends_streams, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_leader, setup, teardown),
		cmocka_unit_test_setup_teardown(test_revoked_token_ends_stream, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ca_ends_stream, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
