#include "api_double.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/mem.h"
#include "lib/rng.h"
#include "proto/json.h"
#include "proto/peer.pb-c.h"
#include "witnessd/api_call.h"
#include "witnessd/pki.h"

/* --- the core --- */

struct pending {
	struct list link;
	core_proposed proposed;
	core_answered answered;
	core_controlled controlled;
	void *arg;
	int error;
	struct apply_result result;
	Tb__PeerAnswer *answer;
};

static struct pending *pending_new(struct core *c, void *arg)
{
	struct pending *p = mem_zalloc(sizeof(*p));

	p->arg = arg;
	list_append(&c->pending, &p->link);
	return p;
}

static void pending_free(struct pending *p)
{
	apply_result_free(&p->result);
	tb__peer_answer__free_unpacked(p->answer, NULL);
	list_remove(&p->link);
	free(p);
}

static void pending_give(struct pending *p)
{
	list_remove(&p->link);
	if (p->proposed != NULL)
		p->proposed(p->arg, p->error, p->result.results, p->result.count);
	else if (p->answered != NULL)
		p->answered(p->arg, p->error, p->answer);
	else
		p->controlled(p->arg, p->error, "");
	pending_free(p);
}

static const struct core_view *fake_view(const struct core *c)
{
	return &c->view;
}

static const char *fake_path(const struct core *c)
{
	return c->path;
}

static void entry_apply(struct core *c, Tb__Command **commands, size_t count,
			struct apply_result *ret)
{
	Tb__Entry entry = TB__ENTRY__INIT;
	uint8_t *data;
	size_t len;

	entry.n_commands = count;
	entry.commands = commands;
	len = tb__entry__get_packed_size(&entry);
	data = mem_alloc(len);
	tb__entry__pack(&entry, data);
	assert_int_equal(apply_entry(c->writer, ++c->index, data, len, ret), 0);
	free(data);
	c->view.applied_index = c->index;
}

void core_apply(struct core *c, Tb__Command *command)
{
	struct apply_result result;

	command->id.len = 16;
	command->id.data = mem_alloc(16);
	rng_fill(command->id.data, 16);
	command->time_ms = clock_realtime_ms();
	command->actor = mem_strdup("somebody");
	entry_apply(c, &command, 1, &result);
	if (result.results[0]->refusal != 0)
		print_error("%s: %s\n", result.results[0]->field, result.results[0]->message);
	assert_int_equal(result.results[0]->refusal, 0);
	apply_result_free(&result);
	tb__command__free_unpacked(command, NULL);
}

static void fake_propose(struct core *c, struct mailbox *home, Tb__Command **commands, size_t count,
			 core_proposed done, void *arg)
{
	struct pending *p = pending_new(c, arg);

	(void)home;
	c->proposals++;
	p->proposed = done;
	p->error = c->propose_error;
	if (c->before_apply != NULL) {
		void (*before)(struct core * core) = c->before_apply;

		c->before_apply = NULL;
		before(c);
	}
	if (p->error == 0)
		entry_apply(c, commands, count, &p->result);
	for (size_t i = 0; i < count; i++)
		tb__command__free_unpacked(commands[i], NULL);
	free(commands);
}

static void answer_sites(struct core *c, const Tb__SiteStatusQuery *query, Tb__PeerAnswer *answer)
{
	answer->n_rows = query->n_names;
	answer->rows = mem_array(query->n_names + 1, sizeof(answer->rows[0]));
	for (size_t i = 0; i < query->n_names; i++) {
		Tb__SiteStatusRow *row = mem_alloc(sizeof(*row));

		tb__site_status_row__init(row);
		row->name = mem_strdup(query->names[i]);
		row->status = mem_alloc(sizeof(*row->status));
		tb__site_status__init(row->status);
		/* Those that end in "s" are split. */
		row->status->state = row->name[strlen(row->name) - 1] == 's'
					     ? TB__SITE_STATE__SITE_STATE_SPLIT
					     : c->state;
		answer->rows[i] = row;
	}
}

static void answer_cluster(struct core *c, Tb__PeerAnswer *answer)
{
	Tb__BoardFacts *facts;

	answer->cluster = mem_alloc(sizeof(*answer->cluster));
	tb__cluster_status__init(answer->cluster);
	answer->cluster->leader = 1;
	answer->cluster->sites_whole = 3;
	answer->cluster->applied_index = c->index;
	answer->n_nodes = 1;
	answer->nodes = mem_array(1, sizeof(answer->nodes[0]));
	answer->nodes[0] = mem_alloc(sizeof(*answer->nodes[0]));
	tb__node_status_row__init(answer->nodes[0]);
	answer->nodes[0]->node_id = 1;
	answer->nodes[0]->status = mem_alloc(sizeof(Tb__NodeStatus));
	tb__node_status__init(answer->nodes[0]->status);
	answer->nodes[0]->status->leader = true;
	answer->nodes[0]->status->reachable = true;
	answer->nodes[0]->status->n_interfaces = 1;
	answer->nodes[0]->status->interfaces = mem_array(1, sizeof(char *));
	answer->nodes[0]->status->interfaces[0] = mem_strdup("eth0");
	answer->nodes[0]->status->wear_percent = 25;
	answer->nodes[0]->status->board = facts = mem_alloc(sizeof(*facts));
	tb__board_facts__init(facts);
	facts->model = mem_strdup("A \"board\" of\nours \\");
	facts->n_cores = 1;
	facts->cores = mem_array(1, sizeof(facts->cores[0]));
	facts->cores[0] = mem_alloc(sizeof(*facts->cores[0]));
	tb__board_cores__init(facts->cores[0]);
	facts->cores[0]->name = mem_strdup("Cortex-A72 r0p3");
	facts->cores[0]->count = 4;
	facts->gic_version = 2;
	facts->memory_bytes = UINT64_C(2) << 30;
	facts->temperature_known = true;
	facts->temperature = 61;
	facts->throttled = true;
	answer->n_addresses = 1;
	answer->addresses = mem_array(1, sizeof(answer->addresses[0]));
	answer->addresses[0] = mem_alloc(sizeof(*answer->addresses[0]));
	tb__service_address__init(answer->addresses[0]);
	answer->addresses[0]->address = mem_strdup("fd00::5");
	answer->addresses[0]->status = mem_alloc(sizeof(Tb__AddressStatus));
	tb__address_status__init(answer->addresses[0]->status);
	answer->addresses[0]->status->state = TB__ADDRESS_STATE__ADDRESS_STATE_HELD;
	answer->addresses[0]->status->board = mem_strdup("one");
}

static void answer_vms(const struct core *c, const Tb__VmQuery *query, Tb__PeerAnswer *answer)
{
	answer->n_vms = query->n_names;
	answer->vms = mem_array(query->n_names + 1, sizeof(answer->vms[0]));
	for (size_t i = 0; i < query->n_names; i++) {
		Tb__VmRow *row = mem_alloc(sizeof(*row));

		tb__vm_row__init(row);
		row->name = mem_strdup(query->names[i]);
		row->view = mem_alloc(sizeof(*row->view));
		tb__vm_view__init(row->view);
		row->view->condition = c->vms_failed ? TB__VM_CONDITION__VM_CONDITION_FAILED
						     : TB__VM_CONDITION__VM_CONDITION_UNPLACED;
		row->view->reason = mem_strdup("not placed: 1 board, 1 lacks memory");
		answer->vms[i] = row;
	}
}

static void answer_images(const Tb__ImageQuery *query, Tb__PeerAnswer *answer)
{
	answer->n_images = query->n_sha256;
	answer->images = mem_array(query->n_sha256 + 1, sizeof(answer->images[0]));
	for (size_t i = 0; i < query->n_sha256; i++) {
		Tb__ImageRow *row = mem_alloc(sizeof(*row));

		tb__image_row__init(row);
		row->sha256 = mem_strdup(query->sha256[i]);
		row->status = mem_alloc(sizeof(*row->status));
		tb__image_status__init(row->status);
		row->status->n_copies = 1;
		row->status->copies = mem_array(1, sizeof(row->status->copies[0]));
		row->status->copies[0] = mem_alloc(sizeof(Tb__ImageCopy));
		tb__image_copy__init(row->status->copies[0]);
		row->status->copies[0]->node = 1;
		row->status->copies[0]->state = TB__IMAGE_COPY_STATE__IMAGE_COPY_STATE_HELD;
		answer->images[i] = row;
	}
}

static void fake_query(struct core *c, struct mailbox *home, const Tb__PeerQuery *query,
		       core_answered done, void *arg)
{
	struct pending *p = pending_new(c, arg);

	(void)home;
	c->queries++;
	p->answered = done;
	p->answer = mem_alloc(sizeof(*p->answer));
	tb__peer_answer__init(p->answer);
	if (query->what_case == TB__PEER_QUERY__WHAT_SITES)
		answer_sites(c, query->sites, p->answer);
	else if (query->what_case == TB__PEER_QUERY__WHAT_CLUSTER)
		answer_cluster(c, p->answer);
	else if (query->what_case == TB__PEER_QUERY__WHAT_VMS)
		answer_vms(c, query->vms, p->answer);
	else if (query->what_case == TB__PEER_QUERY__WHAT_IMAGES)
		answer_images(query->images, p->answer);
	else if (query->what_case == TB__PEER_QUERY__WHAT_MOVE) {
		p->error = c->move_error;
		p->answer->message = mem_strdup("VM web stays where it is");
	} else if (query->what_case == TB__PEER_QUERY__WHAT_REMOVE) {
		p->error = -EPERM;
		p->answer->message = mem_strdup("this is the last board");
	}
}

static void fake_init(struct core *c, struct mailbox *home, const Tb__ClusterInitRequest *request,
		      core_controlled done, void *arg)
{
	struct pending *p = pending_new(c, arg);

	(void)home;
	(void)request;
	p->controlled = done;
	p->error = c->path[0] != '\0' ? -EEXIST : 0;
}

static void fake_join(struct core *c, struct mailbox *home, const Tb__ClusterJoinRequest *request,
		      core_controlled done, void *arg)
{
	(void)request;
	fake_init(c, home, NULL, done, arg);
}

static void fake_restore(struct core *c, struct mailbox *home,
			 const Tb__ClusterInitRequest *request, const uint8_t *backup, size_t len,
			 core_controlled done, void *arg)
{
	c->restored = len;
	(void)backup;
	fake_init(c, home, request, done, arg);
}

static void fake_recover(struct core *c, struct mailbox *home,
			 const Tb__ClusterRecoverRequest *request, core_recovered done, void *arg)
{
	Tb__ClusterRecovery recovery = TB__CLUSTER_RECOVERY__INIT;

	(void)c;
	(void)home;
	recovery.sites = 7;
	if (request->dry_run)
		done(arg, 0, "", &recovery);
	else
		done(arg, -EPERM, "the cluster has a leader", NULL);
}

static Tb__LocalStatus *fake_local(struct core *c)
{
	Tb__LocalStatus *status = mem_alloc(sizeof(*status));

	tb__local_status__init(status);
	status->state = mem_strdup(c->path[0] != '\0' ? "serving" : "new");
	status->node_name = mem_strdup("one");
	return status;
}

/* The host is the core here. */
static void fake_upload(struct host *h, struct mailbox *home, const char *sha256, uint64_t size,
			uint64_t offset, const void *bytes, size_t len, host_uploaded done,
			void *arg)
{
	struct core *c = (struct core *)h;
	int error = c->upload_error;

	(void)home;
	(void)sha256;
	(void)bytes;
	c->uploads++;
	if (error == 0 && len > 0 && offset != c->upload_have)
		error = -ERANGE;
	if (error == 0)
		c->upload_have += len;
	done(arg, error, error != 0 ? "no" : "", c->upload_have,
	     error == 0 && c->upload_have == size);
}

static struct host_console *fake_console_open(struct host *h, struct mailbox *home, uint64_t vm,
					      uint32_t replay, bool follow,
					      host_console_bytes bytes, void *arg)
{
	struct core *c = (struct core *)h;
	struct host_console *console = mem_zalloc(sizeof(*console));

	(void)home;
	*console = (struct host_console){.core = c,
					 .bytes = bytes,
					 .arg = arg,
					 .vm = vm,
					 .replay = replay,
					 .follow = follow,
					 .before = c->console};
	c->console = console;
	return console;
}

static void fake_console_next(struct host_console *console)
{
	console->nexts++;
}

static void fake_console_write(struct host_console *console, const void *bytes, size_t len)
{
	buf_append(&console->keys, bytes, len);
}

static void fake_console_close(struct host_console *console)
{
	struct host_console **at = &console->core->console;

	while (*at != console)
		at = &(*at)->before;
	*at = console->before;
	buf_free(&console->core->closed_keys);
	console->core->closed_keys = console->keys;
	free(console);
}

static const struct api_backend backend = {.view = fake_view,
					   .model_path = fake_path,
					   .propose = fake_propose,
					   .query = fake_query,
					   .init_cluster = fake_init,
					   .join_cluster = fake_join,
					   .restore_cluster = fake_restore,
					   .recover_cluster = fake_recover,
					   .local_status = fake_local,
					   .upload = fake_upload,
					   .console_open = fake_console_open,
					   .console_next = fake_console_next,
					   .console_write = fake_console_write,
					   .console_close = fake_console_close};

/* --- HTTP --- */

static char *text_or_null(const char *text)
{
	return text != NULL ? mem_strdup(text) : NULL;
}

static void sink_answer(void *conn, const struct api_answer *from)
{
	struct answer *a = conn;

	assert_int_equal(a->status, 0);
	assert_null(a->call); /* the slot is cleared first */
	a->status = from->status;
	a->type = text_or_null(from->content_type);
	a->etag = text_or_null(from->etag);
	a->location = text_or_null(from->location);
	a->allow = text_or_null(from->allow);
	a->retry_after = text_or_null(from->retry_after);
	a->head = from->head;
	buf_append(&a->body, from->body, from->body_len);
}

static void sink_stream_begin(void *conn, const char *content_type)
{
	struct answer *a = conn;

	a->streaming = true;
	a->status = 200;
	a->type = mem_strdup(content_type);
}

static size_t sink_stream_write(void *conn, const void *data, size_t len)
{
	struct answer *a = conn;

	assert_true(a->streaming && !a->ended);
	buf_append(&a->body, data, len);
	return a->queued;
}

static void sink_stream_end(void *conn)
{
	struct answer *a = conn;

	assert_true(a->streaming && !a->ended);
	a->ended = true;
}

static const struct api_sink sink = {.answer = sink_answer,
				     .stream_begin = sink_stream_begin,
				     .stream_write = sink_stream_write,
				     .stream_end = sink_stream_end};

void ask_begin(struct world *w, const struct ask *what, struct answer *ret)
{
	const char *question = strchr(what->path, '?');
	char *path = question != NULL ? mem_strndup(what->path, (size_t)(question - what->path))
				      : mem_strdup(what->path);
	char *bearer = what->token != NULL ? mem_printf("Bearer %s", what->token) : NULL;
	struct api_request request = {
		.method = what->method,
		.path = path,
		.query = question != NULL ? question + 1 : "",
		.authorization = bearer,
		.content_type = what->content_type,
		.accept = what->accept,
		.if_match = what->if_match,
		.idempotency_key = what->key,
		.last_event_id = what->last_event_id,
		.body = (const uint8_t *)what->body,
		.body_len = what->body != NULL ? strlen(what->body) : 0,
		.peer_address = what->address != NULL ? what->address : "10.0.0.9:1234",
		.local = !what->remote && what->token == NULL && what->certificate == NULL,
		.uid = what->uid,
		.certificate = what->certificate,
	};

	*ret = (struct answer){0};
	api_handle(w->api, &request, ret, &ret->call);
	free(path);
	free(bearer);
}

void ask(struct world *w, const struct ask *what, struct answer *ret)
{
	ask_begin(w, what, ret);
	world_run(w);
	if (ret->status == 0) { /* its token is not known: time passes */
		api_hold_retry(w->api, UINT64_MAX);
		world_run(w);
	}
	if (ret->status == 0)
		print_error("%s %s: no answer\n", what->method, what->path);
	assert_int_not_equal(ret->status, 0);
}

void answer_clear(struct answer *a)
{
	free(a->type);
	free(a->etag);
	free(a->location);
	free(a->allow);
	free(a->retry_after);
	buf_free(&a->body);
	*a = (struct answer){0};
}

const char *answer_text(struct answer *a, const char *path)
{
	static char text[4096];
	json_t *root = json_loadb((const char *)a->body.data, a->body.len, 0, NULL);
	json_t *at = root;
	char *copy = mem_strdup(path);

	text[0] = '\0';
	for (char *save = NULL, *part = strtok_r(copy, ".", &save); part != NULL && at != NULL;
	     part = strtok_r(NULL, ".", &save))
		at = json_is_array(at) ? json_array_get(at, (size_t)atoi(part))
				       : json_object_get(at, part);
	if (json_is_string(at))
		snprintf(text, sizeof(text), "%s", json_string_value(at));
	else if (json_is_integer(at))
		snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(at));
	else if (at != NULL)
		snprintf(text, sizeof(text), "%s", json_is_true(at) ? "true" : "?");
	json_decref(root);
	free(copy);
	return text;
}

/* --- the world --- */

void world_run(struct world *w)
{
	while (!list_empty(&w->core.pending))
		pending_give(list_entry(w->core.pending.next, struct pending, link));
	uv_run(&w->loop, UV_RUN_NOWAIT);
}

static void cluster_make(struct core *c)
{
	Tb__Command *command = mem_alloc(sizeof(*command));
	Tb__ClusterInit *init = mem_alloc(sizeof(*init));
	struct pki_signed ca;
	struct pki_signed qnet;
	char *key;
	char *qnet_key;
	char sha256[65];

	assert_int_equal(pki_key_new(&key), 0);
	assert_int_equal(pki_key_new(&qnet_key), 0);
	assert_int_equal(pki_ca_new("lab CA", key, clock_realtime_ms(), 3650, &ca), 0);
	assert_int_equal(pki_ca_new("QNet CA", qnet_key, clock_realtime_ms(), 36500, &qnet), 0);
	pki_sha256(ca.pem, sha256);
	tb__command__init(command);
	tb__cluster_init__init(init);
	command->op_case = TB__COMMAND__OP_CLUSTER_INIT;
	command->cluster_init = init;
	init->cluster = mem_alloc(sizeof(*init->cluster));
	tb__cluster__init(init->cluster);
	init->cluster->id = mem_strdup("00112233445566778899aabbccddeeff");
	init->cluster->name = mem_strdup("lab");
	init->cluster->ca_sha256 = mem_strdup(sha256);
	init->secrets = mem_alloc(sizeof(*init->secrets));
	tb__secrets__init(init->secrets);
	init->secrets->ca_cert = mem_strdup(ca.pem);
	init->secrets->ca_key = key;
	init->secrets->qnet_ca_cert = mem_strdup(qnet.pem);
	init->secrets->qnet_ca_key = qnet_key;
	init->node = mem_alloc(sizeof(*init->node));
	tb__node__init(init->node);
	init->node->id = 1;
	init->node->name = mem_strdup("one");
	init->node->address = mem_strdup("10.0.0.1:7443");
	init->node->qnet_address = mem_strdup("10.0.0.1:5403");
	init->node->role = TB__NODE_ROLE__NODE_ROLE_VOTER;
	core_apply(c, command);
	pki_signed_free(&ca);
	pki_signed_free(&qnet);
}

void world_open(struct world *w, bool cluster)
{
	struct core *c = &w->core;

	*w = (struct world){0};
	uv_loop_init(&w->loop);
	list_init(&c->pending);
	c->state = TB__SITE_STATE__SITE_STATE_WHOLE;
	snprintf(c->dir, sizeof(c->dir), "/tmp/tiebreak-api-XXXXXX");
	assert_non_null(mkdtemp(c->dir));
	if (cluster) {
		snprintf(c->path, sizeof(c->path), "%s/model.db", c->dir);
		assert_int_equal(store_open(c->path, &c->writer), 0);
		c->view.node_id = 1;
		c->view.leader_id = 1;
		c->view.lease_until_ms = UINT64_MAX;
		c->view.state = CORE_SERVING;
		cluster_make(c);
	}
	w->metrics = metrics_new();
	w->believed.count = 1; /* issuer 0 */
	w->api = api_new(&(struct api_config){.loop = &w->loop,
					      .core = c,
					      .backend = &backend,
					      .sink = &sink,
					      .metrics = w->metrics,
					      .believed = &w->believed});
	api_host_set(w->api, (struct host *)c);
}

static void closed(void *arg)
{
	*(bool *)arg = true;
}

void world_close(struct world *w)
{
	struct core *c = &w->core;
	bool over = false;
	char *line;

	api_close(w->api, closed, &over);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	assert_true(over);
	assert_int_equal(uv_loop_close(&w->loop), 0);
	while (w->late && !list_empty(&c->pending))
		pending_give(list_entry(c->pending.next, struct pending, link));
	list_for_each_safe (at, &c->pending)
		pending_free(list_entry(at, struct pending, link));
	api_free(w->api);
	store_close(c->writer);
	buf_free(&c->closed_keys);
	metrics_free(w->metrics);
	line = mem_printf("%s/model.db", c->dir);
	unlink(line);
	free(line);
	line = mem_printf("%s/model.db-wal", c->dir);
	unlink(line);
	free(line);
	line = mem_printf("%s/model.db-shm", c->dir);
	unlink(line);
	free(line);
	assert_int_equal(rmdir(c->dir), 0);
}

char *token_make(struct world *w, const char *role, const char *site)
{
	char *body = mem_printf("{\"role\":\"%s\",\"site\":\"%s\"}", role, site);
	struct answer a;
	char *text;

	ask(w, &(struct ask){.method = "POST", .path = "/v1/tokens", .body = body}, &a);
	if (a.status != 201)
		print_error("%s\n", buf_string(&a.body));
	assert_int_equal(a.status, 201);
	text = mem_strdup(answer_text(&a, "secret"));
	answer_clear(&a);
	free(body);
	return text;
}

void expect(struct world *w, int status, const struct ask *what, struct answer *ret)
{
	ask(w, what, ret);
	if (ret->status != status)
		print_error("%s %s: %d %s\n", what->method, what->path, ret->status,
			    buf_string(&ret->body));
	assert_int_equal(ret->status, status);
	if (status >= 400)
		assert_string_equal(ret->type, "application/problem+json");
}

void expect_status(struct world *w, int status, const struct ask *what)
{
	struct answer a;

	expect(w, status, what, &a);
	answer_clear(&a);
}
