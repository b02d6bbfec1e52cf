/* The API: its table, who may what, the objects, problems, pages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api_double.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "witnessd/api_call.h"
#include "witnessd/pki.h"
#include "witnessd/token.h"

static int setup(void **state)
{
	struct world *w = mem_zalloc(sizeof(*w));

	world_open(w, true);
	*state = w;
	return 0;
}

static int setup_new(void **state)
{
	struct world *w = mem_zalloc(sizeof(*w));

	world_open(w, false);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	world_close(*state);
	free(*state);
	return 0;
}

static void site_make(struct world *w, const char *name, const char *label)
{
	char *body = mem_printf("{\"name\":\"%s\",\"labels\":{\"region\":\"%s\"}}", name, label);

	expect_status(w, 201, &(struct ask){"POST", "/v1/sites", body});
	free(body);
}

/* --- the table --- */

/* The path of a route with something in the place of its argument. */
static char *route_path(const struct api_route *route, const char *arg)
{
	const char *brace = strchr(route->path, '{');

	if (brace == NULL)
		return mem_strdup(route->path);
	return mem_printf("%.*s%s%s", (int)(brace - route->path), route->path, arg,
			  strchr(brace, '}') + 1);
}

static void test_every_route(void **state)
{
	struct world *w = *state;

	site_make(w, "berlin", "emea");
	for (size_t i = 0; i < api_route_count; i++) {
		const struct api_route *route = &api_routes[i];
		char *path = route_path(route, "berlin");
		struct answer a;

		ask(w, &(struct ask){route->method, path, route->request != NULL ? "{}" : NULL},
		    &a);
		if (a.status == 405 || a.status >= 500)
			print_error("%s %s: %d %s\n", route->method, path, a.status,
				    buf_string(&a.body));
		assert_true(a.status < 500 && a.status != 405 && a.status != 400);
		assert_non_null(a.type);
		/* What an answer is, the table says. */
		if (a.status == route->status && route->answer != NULL) {
			ProtobufCMessage *message;
			struct json_error error;

			assert_string_equal(a.type, "application/json");
			assert_int_equal(json_decode(route->answer, buf_string(&a.body), a.body.len,
						     &message, &error),
					 0);
			protobuf_c_message_free_unpacked(message, NULL);
		}
		answer_clear(&a);
		free(path);
	}
}

static void test_table_is_sound(void **state)
{
	(void)state;
	for (size_t i = 0; i < api_route_count; i++) {
		const struct api_route *r = &api_routes[i];
		size_t params = 0;

		assert_non_null(r->handle);
		assert_non_null(r->summary);
		assert_true((r->answer != NULL) != (r->content_type != NULL));
		for (const struct api_param *p = r->params; p != NULL && p->name != NULL; p++) {
			assert_non_null(p->summary);
			assert_true((p->type == API_WORD) == (p->words != NULL));
			params++;
		}
		assert_true(params <= API_PARAMS_MAX);
		for (size_t j = 0; j < i; j++)
			assert_true(strcmp(r->path, api_routes[j].path) != 0 ||
				    strcmp(r->method, api_routes[j].method) != 0);
	}
}

static void test_methods(void **state)
{
	struct world *w = *state;
	struct answer a;

	expect(w, 405, &(struct ask){"PUT", "/v1/sites"}, &a);
	assert_string_equal(a.allow, "GET, HEAD, POST, OPTIONS");
	answer_clear(&a);
	expect(w, 204, &(struct ask){"OPTIONS", "/v1/nodes/one", .remote = true}, &a);
	assert_string_equal(a.allow, "GET, HEAD, PATCH, DELETE, OPTIONS");
	answer_clear(&a);
	expect(w, 200, &(struct ask){"HEAD", "/v1/cluster"}, &a);
	assert_true(a.head && a.body.len > 0);
	answer_clear(&a);
	expect_status(w, 404, &(struct ask){"GET", "/v1"});
	expect_status(w, 404, &(struct ask){"GET", "/v1/sites/"});
	expect_status(w, 404, &(struct ask){"GET", "/v1/sites/a/b"});
	expect_status(w, 404, &(struct ask){"POST", "/v1/sites/a:explode"});
	expect_status(w, 404, &(struct ask){"OPTIONS", "*"});
	expect_status(w, 400, &(struct ask){"GET", "/v1/sites/%zz"});
	expect_status(w, 400, &(struct ask){"GET", "/v1/sites/%00"});
	expect_status(w, 404, &(struct ask){"GET", "/v1/sites/%2e%2e%2fnodes"});
}

/* --- OpenAPI --- */

static void refs_check(json_t *root, json_t *at)
{
	const char *key;
	json_t *value;
	size_t i;

	if (json_is_array(at)) {
		json_array_foreach(at, i, value) refs_check(root, value);
		return;
	}
	json_object_foreach(at, key, value)
	{
		json_t *target = root;
		char *path;

		if (strcmp(key, "$ref") != 0) {
			refs_check(root, value);
			continue;
		}
		path = mem_strdup(json_string_value(value));
		assert_true(strncmp(path, "#/", 2) == 0);
		for (char *save = NULL, *part = strtok_r(path + 2, "/", &save); part != NULL;
		     part = strtok_r(NULL, "/", &save))
			target = json_object_get(target, part);
		if (target == NULL)
			print_error("no %s\n", json_string_value(value));
		assert_non_null(target);
		free(path);
	}
}

static void operation_check(const char *path, json_t *operation)
{
	json_t *parameters = json_object_get(operation, "parameters");
	json_t *parameter;
	size_t i;
	bool in_path = false;

	assert_true(json_is_string(json_object_get(operation, "operationId")));
	assert_true(json_is_string(json_object_get(operation, "summary")));
	assert_true(json_object_size(json_object_get(operation, "responses")) >= 2);
	json_array_foreach(parameters, i, parameter)
	{
		const char *where = json_string_value(json_object_get(parameter, "in"));

		assert_true(json_is_object(json_object_get(parameter, "schema")));
		in_path = in_path || strcmp(where, "path") == 0;
	}
	assert_true(in_path == (strchr(path, '{') != NULL));
}

static void test_openapi(void **state)
{
	struct world *w = *state;
	json_error_t error;
	struct answer a;
	const char *path;
	json_t *root;
	json_t *item;
	size_t operations = 0;

	expect(w, 200, &(struct ask){"GET", "/openapi.json", .remote = true}, &a);
	root = json_loadb((const char *)a.body.data, a.body.len, JSON_REJECT_DUPLICATES, &error);
	if (root == NULL)
		print_error("%s at %d\n", error.text, error.position);
	assert_non_null(root);
	assert_string_equal(json_string_value(json_object_get(root, "openapi")), "3.1.0");
	json_object_foreach(json_object_get(root, "paths"), path, item)
	{
		const char *method;
		json_t *operation;

		assert_true(path[0] == '/');
		json_object_foreach(item, method, operation)
		{
			operation_check(path, operation);
			operations++;
		}
	}
	assert_int_equal(operations, api_route_count);
	refs_check(root, root);
	json_decref(root);
	answer_clear(&a);
}

/* The page for people has the table as it is. After a change: MANUAL=write test_api. */
static void test_manual(void **state)
{
	static const char path[] = TEST_DATA "/../../../docs/API.md";
	static const char mark[] = "checks it -->\n";
	FILE *file = fopen(path, getenv("MANUAL") != NULL ? "r+" : "r");
	struct buf text = {0};
	struct buf table = {0};
	const char *at;

	(void)state;
	assert_non_null(file);
	buf_reserve(&text, 1 << 20);
	text.len = fread(text.data, 1, 1 << 20, file);
	api_manual(&table);
	at = strstr(buf_string(&text), mark);
	assert_non_null(at);
	at += strlen(mark);
	if (getenv("MANUAL") != NULL) {
		assert_int_equal(fseek(file, at - (char *)text.data, SEEK_SET), 0);
		assert_int_equal(fwrite(table.data, 1, table.len, file), table.len);
		assert_int_equal(ftruncate(fileno(file), ftell(file)), 0);
	} else {
		assert_string_equal(at, buf_string(&table));
	}
	fclose(file);
	buf_free(&text);
	buf_free(&table);
}

/* --- who may what --- */

enum who { NOBODY, VIEWER, OPERATOR, ADMIN, BOARD, SITE, AGENT, SOCKET, WHO_COUNT };

/* 200: let in (whatever comes of it), 401, 403. */
static int expected(const struct api_route *r, enum who who)
{
	if (r->role == API_OPEN)
		return 200;
	if (r->role == API_SOCKET)
		return who == SOCKET ? 200 : 403;
	if (who == NOBODY)
		return 401;
	if (who == SITE)
		return r->own_site ? 200 : 403;
	if (who == AGENT)
		return r->own_agent ? 200 : 403;
	if (who == BOARD)
		return 403;
	if (who == SOCKET)
		return 200;
	return (int)who - VIEWER >= (int)r->role - API_VIEWER ? 200 : 403;
}

static void test_auth_matrix(void **state)
{
	struct world *w = *state;
	char *tokens[WHO_COUNT] = {NULL};

	site_make(w, "berlin", "emea");
	site_make(w, "paris", "emea");
	tokens[VIEWER] = token_make(w, "viewer", "");
	tokens[OPERATOR] = token_make(w, "operator", "");
	tokens[ADMIN] = token_make(w, "admin", "");
	tokens[BOARD] = token_make(w, "node", "");
	tokens[SITE] = token_make(w, "site", "berlin");
	tokens[AGENT] = token_make(w, "agent", "berlin");
	for (size_t i = 0; i < api_route_count; i++) {
		const struct api_route *r = &api_routes[i];
		/* Bodies that are refused later, so that nothing changes on the way. */
		const char *body = r->request != NULL ? "{\"nonsense\":1}" : NULL;
		char *path = strcmp(r->method, "DELETE") == 0 ? route_path(r, "nobody")
							      : route_path(r, "berlin");

		for (enum who who = NOBODY; who < WHO_COUNT; who++) {
			int want = expected(r, who);
			struct answer a;

			/* Asked for its own site, which is not there to delete. */
			if (who == SITE && strcmp(r->method, "DELETE") == 0)
				want = 403;
			ask(w,
			    &(struct ask){r->method, path, body, .token = tokens[who],
					  .remote = who != SOCKET},
			    &a);
			if ((want == 200) != (a.status != 401 && a.status != 403))
				print_error("%s %s as %d: %d\n", r->method, path, (int)who,
					    a.status);
			if (want == 200)
				assert_true(a.status != 401 && a.status != 403);
			else if (r->role == API_SOCKET)
				assert_int_equal(a.status, 403);
			else
				assert_int_equal(a.status, want);
			answer_clear(&a);
		}
		free(path);
	}
	expect_status(w, 403, &(struct ask){"GET", "/v1/sites/paris", .token = tokens[SITE]});
	expect_status(w, 403, &(struct ask){"GET", "/v1/sites", .token = tokens[SITE]});
	expect_status(w, 403,
		      &(struct ask){"POST", "/v1/sites/paris:enroll-agent", "{\"node\":1}",
				    .token = tokens[AGENT], .remote = true});
	for (enum who who = NOBODY; who < WHO_COUNT; who++)
		free(tokens[who]);
}

static void test_socket_is_for_root(void **state)
{
	struct world *w = *state;

	expect_status(w, 403, &(struct ask){"GET", "/v1/cluster", .uid = 54321});
	expect_status(w, 200, &(struct ask){"GET", "/healthz", .uid = 54321});
	expect_status(w, 200, &(struct ask){"GET", "/v1/cluster", .uid = geteuid()});
}

static void test_bad_tokens(void **state)
{
	struct world *w = *state;
	char *good = token_make(w, "viewer", "");
	struct token_parts parts;
	struct answer a;
	char *bad;

	assert_int_equal(token_parse(good, &parts), 0);
	expect_status(w, 200, &(struct ask){"GET", "/v1/cluster", .token = good});
	bad = mem_strdup(good);
	bad[40] = bad[40] == '0' ? '1' : '0'; /* the secret */
	expect(w, 401, &(struct ask){"GET", "/v1/cluster", .token = bad}, &a);
	assert_string_equal(answer_text(&a, "detail"), "this cluster does not know that token");
	answer_clear(&a);
	free(bad);
	bad = mem_strdup(good);
	bad[strlen(bad) - 1] = bad[strlen(bad) - 1] == '0' ? '1' : '0'; /* the CA */
	expect(w, 401, &(struct ask){"GET", "/v1/cluster", .token = bad}, &a);
	assert_string_equal(answer_text(&a, "detail"), "this token belongs to another cluster");
	answer_clear(&a);
	free(bad);
	expect_status(w, 401, &(struct ask){"GET", "/v1/cluster", .token = "tb1.x"});
	bad = mem_printf("/v1/tokens/%s", parts.id);
	expect_status(w, 200, &(struct ask){"DELETE", bad});
	free(bad);
	expect(w, 401, &(struct ask){"GET", "/v1/cluster", .token = good}, &a);
	assert_non_null(strstr(answer_text(&a, "detail"), "revoked"));
	answer_clear(&a);
	free(good);
}

/* A token that another board has just made: the verdict waits for the model. */
static void test_unknown_token_waits(void **state)
{
	struct world *w = *state;
	char *other = token_make(w, "viewer", "");
	Tb__Command *command = mem_alloc(sizeof(*command));
	Tb__Token *token = mem_alloc(sizeof(*token));
	uint8_t secret[TOKEN_SECRET] = {7};
	char text[TOKEN_TEXT + 1];
	struct token_parts parts;
	struct answer a;
	struct answer b;

	token_parse(other, &parts);
	token_format("0123456789abcdef", secret, parts.ca_sha256, text);
	ask_begin(w, &(struct ask){"GET", "/v1/cluster", .token = text}, &a);
	ask_begin(w, &(struct ask){"GET", "/v1/cluster", .token = text}, &b);
	world_run(w);
	assert_int_equal(a.status, 0);
	api_model_changed(w->api); /* something else */
	assert_int_equal(a.status, 0);
	tb__command__init(command);
	tb__token__init(token);
	command->op_case = TB__COMMAND__OP_TOKEN_ADD;
	command->token_add = mem_alloc(sizeof(*command->token_add));
	tb__token_add__init(command->token_add);
	command->token_add->token = token;
	token->id = mem_strdup("0123456789abcdef");
	token->role = TB__ROLE__ROLE_VIEWER;
	token->secret_sha256.len = 32;
	token->secret_sha256.data = mem_alloc(32);
	token_secret_sha256(secret, token->secret_sha256.data);
	core_apply(&w->core, command);
	api_model_changed(w->api);
	world_run(w);
	assert_int_equal(a.status, 200);
	assert_int_equal(b.status, 200);
	answer_clear(&a);
	answer_clear(&b);
	/* One that stays unknown is refused in the end, or when the API closes. */
	text[4] = 'f';
	ask_begin(w, &(struct ask){"GET", "/v1/cluster", .token = text}, &a);
	ask_begin(w, &(struct ask){"POST", "/v1/sites", "{}", .token = text, .key = "k"}, &b);
	api_hold_retry(w->api, uv_now(&w->loop) + 999);
	assert_int_equal(a.status, 0);
	api_hold_retry(w->api, uv_now(&w->loop) + 1000);
	assert_int_equal(a.status, 401);
	assert_int_equal(b.status, 401);
	answer_clear(&a);
	answer_clear(&b);
	ask_begin(w, &(struct ask){"POST", "/v1/sites", "{}", .token = text}, &b);
	world_close(w);
	assert_int_equal(b.status, 503);
	answer_clear(&b);
	world_open(w, true);
	free(other);
}

static void test_tokens_expire(void **state)
{
	struct world *w = *state;
	struct answer a;
	char *token;

	expect(w, 201,
	       &(struct ask){"POST", "/v1/tokens", "{\"role\":\"viewer\",\"ttlMs\":\"60000\"}"},
	       &a);
	token = mem_strdup(answer_text(&a, "secret"));
	assert_string_equal(answer_text(&a, "token.secretSha256"), "");
	answer_clear(&a);
	expect_status(w, 200, &(struct ask){"GET", "/v1/cluster", .token = token});
	/* The log has seen a later time than this board's clock. */
	w->core.view.clock_floor_ms = clock_realtime_ms() + 61000;
	expect(w, 401, &(struct ask){"GET", "/v1/cluster", .token = token}, &a);
	assert_non_null(strstr(answer_text(&a, "detail"), "expired"));
	answer_clear(&a);
	free(token);
}

static void test_token_list_hides(void **state)
{
	struct world *w = *state;
	char *tokens[5];
	char *page;
	struct answer a;

	for (size_t i = 0; i < 5; i++)
		tokens[i] = token_make(w, "viewer", "");
	expect(w, 200, &(struct ask){"GET", "/v1/tokens?limit=3"}, &a);
	assert_null(strstr(buf_string(&a.body), "ecret"));
	assert_string_not_equal(answer_text(&a, "items.2.id"), "");
	assert_string_equal(answer_text(&a, "items.3.id"), "");
	page = mem_printf("/v1/tokens?limit=3&page=%s", answer_text(&a, "nextPage"));
	answer_clear(&a);
	expect(w, 200, &(struct ask){"GET", page}, &a);
	assert_string_not_equal(answer_text(&a, "items.1.id"), "");
	assert_string_equal(answer_text(&a, "items.2.id"), "");
	assert_string_equal(answer_text(&a, "nextPage"), "");
	answer_clear(&a);
	free(page);
	for (size_t i = 0; i < 5; i++)
		free(tokens[i]);
}

static void test_failed_attempts_are_limited(void **state)
{
	struct world *w = *state;
	char *good = token_make(w, "viewer", "");
	struct answer a;

	for (int i = 0; i < 20; i++)
		expect_status(w, 401, &(struct ask){"GET", "/v1/cluster", .token = "tb1.x"});
	expect(w, 429, &(struct ask){"GET", "/v1/cluster", .token = good}, &a);
	assert_true(atoi(a.retry_after) > 0 && atoi(a.retry_after) <= 60);
	answer_clear(&a);
	/* Another port of the same address is the same; another address is not. */
	expect_status(w, 429,
		      &(struct ask){"GET", "/v1/cluster", .token = good, .address = "10.0.0.9:9"});
	expect_status(w, 200,
		      &(struct ask){"GET", "/v1/cluster", .token = good, .address = "10.0.0.8:1"});
	expect_status(w, 200, &(struct ask){"GET", "/v1/cluster"});
	free(good);
}

static void test_limiter_forgets(void **state)
{
	struct api_limiter *l = api_limiter_new();
	unsigned retry_s;

	(void)state;
	for (int i = 0; i < 20; i++)
		api_limiter_failed(l, "10.0.0.1:5", 1000);
	assert_true(api_limiter_blocked(l, "10.0.0.1:6", 1000, &retry_s));
	assert_int_equal(retry_s, 60);
	assert_true(api_limiter_blocked(l, "10.0.0.1:6", 60999, &retry_s));
	assert_false(api_limiter_blocked(l, "10.0.0.1:6", 61000, &retry_s));
	/* A full table forgets the oldest and goes on. */
	for (int i = 0; i < 1000; i++) {
		char address[32];

		snprintf(address, sizeof(address), "10.1.%d.%d:1", i / 250, i % 250);
		for (int j = 0; j < 20; j++)
			api_limiter_failed(l, address, 2000 + (uint64_t)i);
		assert_true(api_limiter_blocked(l, address, 2000 + (uint64_t)i, &retry_s));
	}
	api_limiter_free(l);
}

/* --- certificates --- */

static char *csr_json(void)
{
	char *csr;
	char *key;
	struct buf text = {0};
	char *out;

	assert_int_equal(pki_key_new(&key), 0);
	assert_int_equal(pki_request_new("whatever", key, &csr), 0);
	json_encode_string(csr, &text);
	out = mem_strdup(buf_string(&text));
	buf_free(&text);
	free(csr);
	free(key);
	return out;
}

static void test_client_certificates(void **state)
{
	struct world *w = *state;
	struct tls_peer peer = {.present = true, .uri = "tiebreak:client/operator"};
	char *csr = csr_json();
	char *body = mem_printf("{\"name\":\"ann\",\"role\":\"operator\",\"csr\":%s}", csr);
	struct answer a;
	char *path;

	expect(w, 201, &(struct ask){"POST", "/v1/certificates", body}, &a);
	snprintf(peer.serial, sizeof(peer.serial), "%s", answer_text(&a, "certificate.serial"));
	assert_string_equal(answer_text(&a, "certificate.kind"), "client");
	assert_non_null(strstr(answer_text(&a, "pem"), "BEGIN CERTIFICATE"));
	answer_clear(&a);
	expect_status(w, 200, &(struct ask){"GET", "/v1/cluster", .certificate = &peer});
	expect_status(w, 403, &(struct ask){"GET", "/v1/tokens", .certificate = &peer});
	/* It renews itself, and nothing else: not its role, not another's. */
	free(body);
	body = mem_printf("{\"csr\":%s}", csr);
	expect(w, 201, &(struct ask){"POST", "/v1/certificates:renew", body, .certificate = &peer},
	       &a);
	assert_string_equal(answer_text(&a, "certificate.subject"), "ann");
	assert_string_equal(answer_text(&a, "certificate.role"), "operator");
	assert_string_not_equal(answer_text(&a, "certificate.serial"), peer.serial);
	answer_clear(&a);
	expect_status(w, 409, &(struct ask){"POST", "/v1/certificates:renew", body});
	/* Its CA is believed no more; the connection is older. */
	w->believed.ids[0] = 5;
	expect_status(w, 401, &(struct ask){"GET", "/v1/cluster", .certificate = &peer});
	w->believed.ids[0] = 0;
	expect_status(w, 200, &(struct ask){"GET", "/v1/cluster", .certificate = &peer});
	path = mem_printf("/v1/certificates/%s", peer.serial);
	expect_status(w, 200, &(struct ask){"DELETE", path});
	expect_status(w, 401, &(struct ask){"GET", "/v1/cluster", .certificate = &peer});
	/* One that the model has never heard of. */
	strcpy(peer.serial, "00112233445566778899aabbccddeeff");
	expect_status(w, 401, &(struct ask){"GET", "/v1/cluster", .certificate = &peer});
	/* A board's certificate is not for the API. */
	strcpy(peer.uri, "tiebreak:node/1");
	expect_status(w, 401, &(struct ask){"GET", "/v1/cluster", .certificate = &peer});
	expect_status(
		w, 422,
		&(struct ask){"POST", "/v1/certificates", "{\"name\":\"x\",\"role\":\"node\"}"});
	expect_status(
		w, 422,
		&(struct ask){"POST", "/v1/certificates",
			      "{\"name\":\"x\",\"role\":\"admin\",\"csr\":\"no request at all\"}"});
	free(path);
	free(body);
	free(csr);
}

static void test_tenants(void **state)
{
	struct world *w = *state;
	struct answer a;
	char *token;

	expect_status(
		w, 422,
		&(struct ask){"POST", "/v1/tokens", "{\"role\":\"admin\",\"tenant\":\"red\"}"});
	expect(w, 201,
	       &(struct ask){"POST", "/v1/tokens", "{\"role\":\"operator\",\"tenant\":\"red\"}"},
	       &a);
	token = mem_strdup(answer_text(&a, "secret"));
	answer_clear(&a);
	expect_status(w, 201,
		      &(struct ask){"POST", "/v1/sites",
				    "{\"name\":\"b1\",\"labels\":{\"tenant\":\"blue\"}}"});
	/* Its sites become its own without saying so. */
	expect(w, 201, &(struct ask){"POST", "/v1/sites", "{\"name\":\"r1\"}", .token = token}, &a);
	assert_string_equal(answer_text(&a, "labels.tenant"), "red");
	answer_clear(&a);
	expect_status(w, 422,
		      &(struct ask){"POST", "/v1/sites",
				    "{\"name\":\"r2\",\"labels\":{\"tenant\":\"blue\"}}",
				    .token = token});
	/* It sees no others, in any way. */
	expect(w, 200, &(struct ask){"GET", "/v1/sites", .token = token}, &a);
	assert_string_equal(answer_text(&a, "items.0.name"), "r1");
	assert_null(strstr(buf_string(&a.body), "b1"));
	answer_clear(&a);
	expect(w, 200, &(struct ask){"GET", "/v1/sites?label=tenant=blue", .token = token}, &a);
	assert_null(strstr(buf_string(&a.body), "b1"));
	answer_clear(&a);
	expect_status(w, 200, &(struct ask){"GET", "/v1/sites/r1", .token = token});
	expect_status(w, 404, &(struct ask){"GET", "/v1/sites/b1", .token = token});
	expect_status(w, 404, &(struct ask){"PATCH", "/v1/sites/b1", "{}", .token = token});
	expect_status(w, 404, &(struct ask){"PUT", "/v1/sites/b1", "{}", .token = token});
	expect_status(w, 404, &(struct ask){"DELETE", "/v1/sites/b1", .token = token});
	expect_status(w, 404, &(struct ask){"POST", "/v1/sites/b1:enroll", .token = token});
	expect_status(
		w, 404,
		&(struct ask){"POST", "/v1/sites/b1:enroll-agent", "{\"node\":1}", .token = token});
	/* Its own site's agents it enrols itself: here only the request for a certificate lacks. */
	expect_status(
		w, 422,
		&(struct ask){"POST", "/v1/sites/r1:enroll-agent", "{\"node\":1}", .token = token});
	expect_status(w, 409,
		      &(struct ask){"POST", "/v1/sites:bulk", "{\"sites\":[{\"name\":\"b1\"}]}",
				    .token = token});
	expect_status(
		w, 409,
		&(struct ask){"POST", "/v1/sites:bulk",
			      "{\"dryRun\":true,\"sites\":[{\"name\":\"b1\"}]}", .token = token});
	expect_status(w, 422,
		      &(struct ask){"PATCH", "/v1/sites/r1", "{\"labels\":{\"tenant\":\"blue\"}}",
				    .token = token});
	expect_status(w, 403, &(struct ask){"GET", "/v1/sites?watch=1", .token = token});
	for (size_t i = 0; i < api_route_count; i++) {
		const struct api_route *r = &api_routes[i];

		if (r->role == API_OPEN || strncmp(r->path, "/v1/sites", 9) == 0 ||
		    strcmp(r->path, "/v1/qnet-ca") == 0 || strchr(r->path, '{') != NULL)
			continue;
		expect_status(w, 403, &(struct ask){r->method, r->path, .token = token});
	}
	/* The quota, and who has how many. */
	expect(w, 200, &(struct ask){"PUT", "/v1/tenants/red", "{\"maxSites\":1}"}, &a);
	assert_string_equal(answer_text(&a, "sites"), "1");
	answer_clear(&a);
	expect(w, 409, &(struct ask){"POST", "/v1/sites", "{\"name\":\"r2\"}", .token = token}, &a);
	assert_non_null(strstr(answer_text(&a, "detail"), "may have 1 sites"));
	answer_clear(&a);
	/* What is only looked at knows it, too: what one goes and another comes is no more. */
	expect(w, 409,
	       &(struct ask){"POST", "/v1/sites:bulk",
			     "{\"dryRun\":true,\"sites\":[{\"name\":\"r2\"}]}", .token = token},
	       &a);
	assert_non_null(strstr(answer_text(&a, "detail"), "may have 1 sites, and this makes 2"));
	answer_clear(&a);
	expect(w, 200,
	       &(struct ask){"POST", "/v1/sites:bulk",
			     "{\"dryRun\":true,\"sites\":[{\"name\":\"r2\",\"labels\":{\"tenant\":"
			     "\"red\"}},{\"name\":\"r1\",\"labels\":{\"tenant\":\"blue\"}}]}"},
	       &a);
	assert_string_equal(answer_text(&a, "rooms.0.max"), "20000");
	assert_string_equal(answer_text(&a, "rooms.0.sites"), "2");
	assert_string_equal(answer_text(&a, "rooms.0.more"), "1");
	assert_string_equal(answer_text(&a, "rooms.1.max"), "");
	answer_clear(&a);
	expect_status(w, 200, &(struct ask){"PUT", "/v1/tenants/red", "{\"maxSites\":2}"});
	expect(w, 200,
	       &(struct ask){"POST", "/v1/sites:bulk",
			     "{\"dryRun\":true,\"sites\":[{\"name\":\"r2\"}]}", .token = token},
	       &a);
	assert_string_equal(answer_text(&a, "rooms.0.tenant"), "red");
	assert_string_equal(answer_text(&a, "rooms.0.more"), "1");
	assert_string_equal(answer_text(&a, "rooms.1.max"),
			    ""); /* the cluster's is none of its concern */
	answer_clear(&a);
	expect_status(w, 200, &(struct ask){"PUT", "/v1/tenants/red", "{\"maxSites\":1}"});
	expect(w, 200, &(struct ask){"GET", "/v1/tenants"}, &a);
	assert_string_equal(answer_text(&a, "items.0.name"), "blue");
	assert_string_equal(answer_text(&a, "items.1.maxSites"), "1");
	answer_clear(&a);
	expect_status(w, 200, &(struct ask){"DELETE", "/v1/sites/r1", .token = token});
	free(token);
}

static void test_addresses(void **state)
{
	struct world *w = *state;
	struct answer a;

	expect_status(w, 200, &(struct ask){"GET", "/v1/addresses"});
	/* A colon of the path is written %3A; the answer has the usual form. */
	expect(w, 200,
	       &(struct ask){"PUT", "/v1/addresses/FD00%3A%3A5",
			     "{\"prefix\":64,\"interface\":\"eth0\",\"boards\":[\"one\"]}"},
	       &a);
	assert_string_equal(answer_text(&a, "address"), "fd00::5");
	assert_string_equal(answer_text(&a, "status.state"), "held");
	assert_string_equal(answer_text(&a, "status.board"), "one");
	answer_clear(&a);
	expect_status(w, 200,
		      &(struct ask){"PUT", "/v1/addresses/10.0.0.5",
				    "{\"prefix\":24,\"interface\":\"eth0\"}"});
	expect(w, 200, &(struct ask){"GET", "/v1/addresses"}, &a);
	assert_string_equal(answer_text(&a, "items.0.address"), "10.0.0.5");
	assert_string_equal(answer_text(&a, "items.1.boards.0"), "one");
	assert_string_equal(answer_text(&a, "items.1.status.state"), "held");
	answer_clear(&a);
	/* What is wrong is named. */
	expect(w, 422,
	       &(struct ask){"PUT", "/v1/addresses/10.0.0.6",
			     "{\"prefix\":24,\"interface\":\"eth9\"}"},
	       &a);
	assert_non_null(strstr(buf_string(&a.body), "no board has an interface eth9"));
	assert_non_null(strstr(buf_string(&a.body), "one has eth0"));
	answer_clear(&a);
	expect(w, 422, &(struct ask){"PUT", "/v1/addresses/10.0.0.6", "{\"interface\":\"eth0\"}"},
	       &a);
	assert_string_equal(answer_text(&a, "errors.0.field"), "prefix");
	answer_clear(&a);
	expect_status(w, 422,
		      &(struct ask){"PUT", "/v1/addresses/10.0.0.6",
				    "{\"address\":\"10.0.0.7\",\"prefix\":24,\"interface\":"
				    "\"eth0\"}"});
	expect_status(w, 422,
		      &(struct ask){"PUT", "/v1/addresses/10.0.0.6",
				    "{\"prefix\":24,\"interface\":\"eth0\",\"boards\":[\"two\"]}"});
	expect_status(w, 404,
		      &(struct ask){"PUT", "/v1/addresses/ten",
				    "{\"prefix\":24,\"interface\":\"eth0\"}"});
	expect_status(w, 404, &(struct ask){"GET", "/v1/addresses/10.0.0.6"});
	expect_status(w, 404, &(struct ask){"DELETE", "/v1/addresses/10.0.0.6"});
	expect_status(w, 200, &(struct ask){"DELETE", "/v1/addresses/10.0.0.5"});
	expect_status(w, 404, &(struct ask){"GET", "/v1/addresses/10.0.0.5"});
	/* Without a leader they can be read. */
	w->core.view.leader_id = 0;
	expect(w, 200, &(struct ask){"GET", "/v1/addresses/fd00%3A%3A5"}, &a);
	assert_string_equal(answer_text(&a, "status.state"), "");
	answer_clear(&a);
	expect_status(w, 503,
		      &(struct ask){"PUT", "/v1/addresses/10.0.0.6",
				    "{\"prefix\":24,\"interface\":\"eth0\"}"});
}

static void test_boards_may_link(void **state)
{
	struct world *w = *state;
	Tb__Command *command = mem_alloc(sizeof(*command));
	Tb__Certificate *row = mem_alloc(sizeof(*row));
	static const char serial[] = "aa112233445566778899aabbccddeeff";
	const char *why = "";

	/* One that we have not heard of: our model may lag. */
	assert_int_equal(api_board_holds(w->api, 9, serial, 0, &why), 0);
	tb__command__init(command);
	command->op_case = TB__COMMAND__OP_CERTIFICATE_ADD;
	command->certificate_add = mem_alloc(sizeof(*command->certificate_add));
	tb__certificate_add__init(command->certificate_add);
	tb__certificate__init(row);
	row->serial = mem_strdup(serial);
	row->subject = mem_strdup("one");
	row->kind = mem_strdup("node");
	row->not_after_ms = clock_realtime_ms() + 1000000;
	command->certificate_add->certificate = row;
	core_apply(&w->core, command);
	assert_int_equal(api_board_holds(w->api, 1, serial, 0, &why), 0);
	/* Of another CA, known or not. */
	assert_int_equal(api_board_holds(w->api, 1, serial, 7, &why), -EACCES);
	assert_int_equal(api_board_holds(w->api, 1, "00", 7, &why), -EACCES);
	/* Known, but its board is not in the cluster. */
	assert_int_equal(api_board_holds(w->api, 9, serial, 0, &why), -EACCES);
	expect_status(w, 200,
		      &(struct ask){"DELETE", "/v1/certificates/aa112233445566778899aabbccddeeff"});
	assert_int_equal(api_board_holds(w->api, 1, serial, 0, &why), -EACCES);
}

static void test_enroll(void **state)
{
	struct world *w = *state;
	char *csr = csr_json();
	char *body = mem_printf("{\"csr\":%s}", csr);
	struct answer a;

	site_make(w, "berlin", "emea");
	expect(w, 200, &(struct ask){"POST", "/v1/sites/berlin:enroll"}, &a);
	assert_string_equal(answer_text(&a, "site"), "berlin");
	assert_true(strlen(answer_text(&a, "pkcs12")) > 1000);
	assert_non_null(strstr(answer_text(&a, "corosyncConf"), "host: 10.0.0.1\n"));
	assert_non_null(strstr(answer_text(&a, "corosyncConf"), "algorithm: ffsplit\n"));
	answer_clear(&a);
	expect(w, 200, &(struct ask){"POST", "/v1/sites/berlin:enroll", body}, &a);
	assert_string_equal(answer_text(&a, "pkcs12"), "");
	assert_non_null(strstr(answer_text(&a, "certificate"), "BEGIN CERTIFICATE"));
	answer_clear(&a);
	expect_status(w, 422,
		      &(struct ask){"POST", "/v1/sites/berlin:enroll", "{\"csr\":\"%%%\"}"});
	expect_status(w, 422,
		      &(struct ask){"POST", "/v1/sites/berlin:enroll", "{\"csr\":\"AAAA\"}"});
	expect_status(w, 404, &(struct ask){"POST", "/v1/sites/nowhere:enroll"});
	/* Both are on record. */
	expect(w, 200, &(struct ask){"GET", "/v1/certificates"}, &a);
	assert_string_equal(answer_text(&a, "items.1.kind"), "site");
	assert_string_equal(answer_text(&a, "items.2.kind"), "");
	answer_clear(&a);
	expect(w, 200, &(struct ask){"GET", "/v1/qnet-ca"}, &a);
	assert_non_null(strstr(buf_string(&a.body), "BEGIN CERTIFICATE"));
	answer_clear(&a);
	free(body);
	free(csr);
}

/* --- sites --- */

static void test_site_life(void **state)
{
	struct world *w = *state;
	struct answer a;
	char *etag;

	expect(w, 201,
	       &(struct ask){"POST", "/v1/sites",
			     "{\"name\":\"berlin\",\"labels\":{\"a\":\"1\"},\"policy\":"
			     "{\"algorithm\":\"lms\"}}"},
	       &a);
	assert_string_equal(a.location, "/v1/sites/berlin");
	etag = mem_strdup(a.etag);
	answer_clear(&a);
	expect(w, 409, &(struct ask){"POST", "/v1/sites", "{\"name\":\"berlin\"}"}, &a);
	answer_clear(&a);
	expect(w, 200, &(struct ask){"GET", "/v1/sites/berlin"}, &a);
	assert_string_equal(a.etag, etag);
	assert_string_equal(answer_text(&a, "status.state"), "whole");
	answer_clear(&a);
	/* What was read may be sent back whole. */
	expect(w, 200, &(struct ask){"GET", "/v1/sites/berlin"}, &a);
	expect_status(w, 200, &(struct ask){"PUT", "/v1/sites/berlin", buf_string(&a.body)});
	answer_clear(&a);
	expect(w, 200,
	       &(struct ask){"PATCH", "/v1/sites/berlin", "{\"labels\":{\"b\":\"2\",\"a\":null}}",
			     .if_match = etag, .content_type = "application/merge-patch+json"},
	       &a);
	assert_string_equal(answer_text(&a, "labels.b"), "2");
	assert_string_equal(answer_text(&a, "labels.a"), "");
	assert_string_equal(answer_text(&a, "policy.algorithm"), "lms");
	answer_clear(&a);
	expect_status(w, 412, &(struct ask){"PUT", "/v1/sites/berlin", "{}", .if_match = etag});
	expect_status(w, 412, &(struct ask){"DELETE", "/v1/sites/berlin", .if_match = etag});
	expect_status(w, 400, &(struct ask){"DELETE", "/v1/sites/berlin", .if_match = "7"});
	expect_status(w, 200, &(struct ask){"PUT", "/v1/sites/berlin", "{}"});
	expect_status(w, 200, &(struct ask){"DELETE", "/v1/sites/berlin", .if_match = "*"});
	expect_status(w, 404, &(struct ask){"DELETE", "/v1/sites/berlin"});
	expect_status(w, 404, &(struct ask){"PUT", "/v1/sites/berlin", "{}"});
	expect_status(w, 404, &(struct ask){"PATCH", "/v1/sites/berlin", "{}"});
	expect_status(w, 404, &(struct ask){"GET", "/v1/sites/berlin"});
	free(etag);
}

static void change_between(struct core *c)
{
	Tb__Command *command = mem_alloc(sizeof(*command));
	Tb__SitePut *put = mem_alloc(sizeof(*put));
	struct json_error error;
	static const char text[] = "{\"name\":\"berlin\",\"labels\":{\"by\":\"other\"}}";

	tb__command__init(command);
	tb__site_put__init(put);
	command->op_case = TB__COMMAND__OP_SITE_PUT;
	command->site_put = put;
	put->mode = TB__SITE_PUT__MODE__MODE_REPLACE;
	put->n_sites = 1;
	put->sites = mem_array(1, sizeof(put->sites[0]));
	assert_int_equal(json_decode(&tb__site__descriptor, text, strlen(text),
				     (ProtobufCMessage **)&put->sites[0], &error),
			 0);
	core_apply(c, command);
}

/* Somebody else writes between the reading and the writing of a patch: both changes are there. */
static void test_patch_races(void **state)
{
	struct world *w = *state;
	struct answer a;

	site_make(w, "berlin", "emea");
	w->core.before_apply = change_between;
	expect(w, 200, &(struct ask){"PATCH", "/v1/sites/berlin", "{\"labels\":{\"mine\":\"1\"}}"},
	       &a);
	assert_string_equal(answer_text(&a, "labels.by"), "other");
	assert_string_equal(answer_text(&a, "labels.mine"), "1");
	answer_clear(&a);
}

static void test_bad_sites(void **state)
{
	static const struct {
		const char *body;
		int status;
		const char *field;
	} cases[] = {
		{"{\"name\":\"a b\"}", 422, "name"},
		{"{\"name\":\"\"}", 422, "name"},
		{"{\"name\":\"a\\nb\"}", 422, "name"},
		{"{}", 422, "name"},
		{"{\"name\":\"a\",\"nmae\":1}", 422, "nmae"},
		{"{\"name\":7}", 422, "name"},
		{"{\"name\":\"a\",\"policy\":{\"algorithm\":\"best\"}}", 422, "policy.algorithm"},
		{"{\"name\":\"a\",\"policy\":{\"heartbeatMinMs\":5}}", 422,
		 "policy.heartbeatMinMs"},
		{"{\"name\":", 400, NULL},
		{"[]", 400, NULL},
		{"\xff", 400, NULL},
	};
	struct world *w = *state;
	struct answer a;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		Tb__Problem *problem;
		struct json_error error;

		expect(w, cases[i].status, &(struct ask){"POST", "/v1/sites", cases[i].body}, &a);
		assert_int_equal(json_decode(&tb__problem__descriptor, buf_string(&a.body),
					     a.body.len, (ProtobufCMessage **)&problem, &error),
				 0);
		assert_int_equal(problem->status, cases[i].status);
		assert_true(problem->title[0] != '\0' && problem->detail[0] != '\0');
		if (cases[i].field != NULL) {
			assert_int_equal(problem->n_errors, 1);
			assert_string_equal(problem->errors[0]->field, cases[i].field);
		}
		tb__problem__free_unpacked(problem, NULL);
		answer_clear(&a);
	}
	expect_status(w, 415,
		      &(struct ask){"POST", "/v1/sites", "name: a", .content_type = "text/yaml"});
	expect_status(w, 400, &(struct ask){"GET", "/v1/sites", "{}"});
	expect_status(w, 422, &(struct ask){"PUT", "/v1/sites/a", "{\"name\":\"b\"}"});
	assert_int_equal(w->core.proposals, 0);
}

static void test_bulk(void **state)
{
	struct world *w = *state;
	struct answer a;
	struct buf many = {0};

	site_make(w, "berlin", "emea");
	expect(w, 200,
	       &(struct ask){"POST", "/v1/sites:bulk",
			     "{\"dryRun\":true,\"sites\":[{\"name\":\"berlin\",\"labels\":"
			     "{\"region\":\"emea\"}},{\"name\":\"paris\"}]}"},
	       &a);
	assert_string_equal(answer_text(&a, "created"), "1");
	assert_string_equal(answer_text(&a, "unchanged"), "1");
	assert_string_equal(answer_text(&a, "dryRun"), "true");
	answer_clear(&a);
	expect_status(w, 404, &(struct ask){"GET", "/v1/sites/paris"});
	expect(w, 200,
	       &(struct ask){"POST", "/v1/sites:bulk",
			     "{\"sites\":[{\"name\":\"berlin\"},{\"name\":\"paris\"}]}"},
	       &a);
	assert_string_equal(answer_text(&a, "created"), "1");
	assert_string_equal(answer_text(&a, "changed"), "1");
	answer_clear(&a);
	expect(w, 422,
	       &(struct ask){"POST", "/v1/sites:bulk",
			     "{\"sites\":[{\"name\":\"x\"},{\"name\":\"y z\"}]}"},
	       &a);
	assert_string_equal(answer_text(&a, "errors.0.field"), "sites[1].name");
	answer_clear(&a);
	expect_status(w, 404, &(struct ask){"GET", "/v1/sites/x"});
	expect(w, 422,
	       &(struct ask){"POST", "/v1/sites:bulk",
			     "{\"sites\":[{\"name\":\"x\"},{\"name\":\"y\"},{\"name\":\"x\"}]}"},
	       &a);
	assert_string_equal(answer_text(&a, "errors.0.field"), "sites[2].name");
	answer_clear(&a);
	expect_status(w, 422, &(struct ask){"POST", "/v1/sites:bulk", "{}"});
	buf_puts(&many, "{\"sites\":[");
	for (int i = 0; i < 257; i++)
		buf_printf(&many, "%s{\"name\":\"n%d\"}", i > 0 ? "," : "", i);
	buf_puts(&many, "]}");
	expect_status(w, 422, &(struct ask){"POST", "/v1/sites:bulk", buf_string(&many)});
	buf_free(&many);
}

static void sites_fill(struct world *w, unsigned from, unsigned to)
{
	struct buf body = {0};

	for (unsigned i = from; i < to; i++) {
		if (body.len == 0)
			buf_puts(&body, "{\"sites\":[");
		else
			buf_putc(&body, ',');
		buf_printf(&body, "{\"name\":\"n%05u%s\",\"labels\":{\"odd\":\"%u\"}}", i,
			   i % 100 == 7 ? "s" : "", i % 2);
		if (i + 1 == to || (i - from) % 256 == 255) {
			buf_puts(&body, "]}");
			expect_status(w, 200,
				      &(struct ask){"POST", "/v1/sites:bulk", buf_string(&body)});
			buf_clear(&body);
		}
	}
	buf_free(&body);
}

/* Walks all pages; counts the items and checks that they rise. */
static unsigned pages_walk(struct world *w, const char *query, unsigned *ret_pages)
{
	char *page = mem_strdup("");
	char last[80] = "";
	unsigned items = 0;

	*ret_pages = 0;
	do {
		char *path = mem_printf("/v1/sites?%s%s%s", query, *page ? "&page=" : "", page);
		struct answer a;

		expect(w, 200, &(struct ask){"GET", path}, &a);
		free(path);
		for (unsigned i = 0;; i++) {
			char place[32];
			const char *name;

			snprintf(place, sizeof(place), "items.%u.name", i);
			name = answer_text(&a, place);
			if (*name == '\0')
				break;
			assert_true(strcmp(last, name) < 0);
			snprintf(last, sizeof(last), "%s", name);
			items++;
		}
		free(page);
		page = mem_strdup(answer_text(&a, "nextPage"));
		++*ret_pages;
		answer_clear(&a);
	} while (*page != '\0');
	free(page);
	return items;
}

static void test_site_pages(void **state)
{
	struct world *w = *state;
	unsigned pages;
	struct answer a;

	sites_fill(w, 0, 300);
	assert_int_equal(pages_walk(w, "limit=7", &pages), 300);
	assert_int_equal(pages, 43);
	assert_int_equal(pages_walk(w, "limit=300", &pages), 300);
	assert_int_equal(pages, 1);
	assert_int_equal(pages_walk(w, "limit=50&label=odd%3D1", &pages), 150);
	assert_int_equal(pages, 3);
	assert_int_equal(pages_walk(w, "limit=2&state=split", &pages), 3);
	assert_int_equal(pages_walk(w, "prefix=n0001&state=whole", &pages), 10);
	assert_int_equal(pages_walk(w, "label=odd%3D1&label=!none&prefix=n0000", &pages), 5);
	expect(w, 200, &(struct ask){"GET", "/v1/sites?limit=1&label=odd=0"}, &a);
	assert_string_equal(answer_text(&a, "total"), "150");
	answer_clear(&a);
	expect_status(w, 400, &(struct ask){"GET", "/v1/sites?label=%3D%3D"});
	/* Without a leader the list is there and says what it does not know; the filter is not. */
	w->core.view.leader_id = 0;
	expect(w, 200, &(struct ask){"GET", "/v1/sites?limit=1"}, &a);
	assert_string_equal(answer_text(&a, "items.0.status.state"), "");
	assert_non_null(strstr(answer_text(&a, "items.0.status.reason"), "no leader"));
	answer_clear(&a);
	expect_status(w, 503, &(struct ask){"GET", "/v1/sites?state=split"});
}

/* More sites than one question to the leader may name, and the few wanted far apart. */
static void test_state_filter_goes_on(void **state)
{
	struct world *w = *state;
	unsigned pages;

	sites_fill(w, 0, 2300);
	assert_int_equal(pages_walk(w, "limit=1000&state=split", &pages), 23);
	assert_int_equal(pages, 1);
	assert_int_equal(pages_walk(w, "limit=10&state=split", &pages), 23);
	assert_int_equal(pages, 3);
}

static void test_page_tokens(void **state)
{
	struct world *w = *state;
	struct answer a;
	char *page;
	char *path;

	sites_fill(w, 0, 20);
	expect(w, 200, &(struct ask){"GET", "/v1/sites?limit=5&prefix=n"}, &a);
	page = mem_strdup(answer_text(&a, "nextPage"));
	answer_clear(&a);
	path = mem_printf("/v1/sites?limit=6&prefix=n&page=%s", page);
	expect_status(w, 200, &(struct ask){"GET", path});
	free(path);
	path = mem_printf("/v1/sites?limit=5&page=%s", page); /* another query */
	expect_status(w, 400, &(struct ask){"GET", path});
	free(path);
	path = mem_printf("/v1/tokens?page=%s", page); /* another list */
	expect_status(w, 400, &(struct ask){"GET", path});
	free(path);
	for (size_t i = 0; page[i] != '\0'; i++) {
		char was = page[i];

		page[i] = was == 'A' ? 'B' : 'A';
		path = mem_printf("/v1/sites?limit=5&prefix=n&page=%s", page);
		expect_status(w, 400, &(struct ask){"GET", path});
		free(path);
		page[i] = was;
	}
	expect_status(w, 400, &(struct ask){"GET", "/v1/sites?page="});
	expect_status(w, 400, &(struct ask){"GET", "/v1/sites?page=AAAA"});
	expect_status(w, 400, &(struct ask){"GET", "/v1/sites?page=%C3%A4"});
	free(page);
}

static void test_page_round_trip(void **state)
{
	(void)state;
	for (size_t len = 1; len < 100; len++) {
		char last[128];
		char *page;
		char *back;

		memset(last, 'x', len);
		last[len] = '\0';
		page = api_page_make("key", "query", last);
		assert_int_equal(api_page_open("key", "query", page, &back), 0);
		assert_string_equal(back, last);
		free(back);
		assert_int_equal(api_page_open("other", "query", page, &back), -EINVAL);
		assert_int_equal(api_page_open("key", "queryx", page, &back), -EINVAL);
		free(page);
	}
}

static void test_bad_queries(void **state)
{
	static const struct {
		const char *path;
		const char *field;
		const char *words;
	} cases[] = {
		{"/v1/sites?limit=0", "limit", "1 to 1000"},
		{"/v1/sites?limit=1001", "limit", "1 to 1000"},
		{"/v1/sites?limit=-1", "limit", "number"},
		{"/v1/sites?limit=1&limit=2", "limit", "twice"},
		{"/v1/sites?lable=a", "lable", "\"label\""},
		{"/v1/sites?state=broken", "state", "split"},
		{"/v1/sites?watch=maybe", "watch", "1 or 0"},
		{"/v1/sites?prefix=%ff", "prefix", "UTF-8"},
		{"/v1/sites?%zz=1", "query", "readable"},
		{"/v1/cluster?pretty=1", "pretty", "no query"},
		{"/v1/events?after=x", "after", "number"},
	};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct answer a;

		expect(w, 400, &(struct ask){"GET", cases[i].path}, &a);
		assert_string_equal(answer_text(&a, "errors.0.field"), cases[i].field);
		if (strstr(answer_text(&a, "errors.0.message"), cases[i].words) == NULL)
			print_error("%s: %s\n", cases[i].path, answer_text(&a, "detail"));
		assert_non_null(strstr(answer_text(&a, "errors.0.message"), cases[i].words));
		answer_clear(&a);
	}
}

/* --- the cluster --- */

static void test_cluster(void **state)
{
	struct world *w = *state;
	struct answer a;

	expect(w, 200, &(struct ask){"GET", "/v1/cluster"}, &a);
	assert_string_equal(answer_text(&a, "name"), "lab");
	assert_string_equal(answer_text(&a, "status.sitesWhole"), "3");
	assert_string_equal(answer_text(&a, "status.node"), "one");
	assert_null(strstr(buf_string(&a.body), "PRIVATE"));
	answer_clear(&a);
	expect(w, 200, &(struct ask){"PATCH", "/v1/cluster", "{\"autoRegister\":true}"}, &a);
	assert_string_equal(answer_text(&a, "autoRegister"), "true");
	answer_clear(&a);
	/* What is not given stays. */
	expect(w, 200, &(struct ask){"PATCH", "/v1/cluster", "{\"certificateLifeMs\":\"60000\"}"},
	       &a);
	assert_string_equal(answer_text(&a, "autoRegister"), "true");
	assert_string_equal(answer_text(&a, "certificateLifeMs"), "60000");
	answer_clear(&a);
	expect_status(w, 422,
		      &(struct ask){"PATCH", "/v1/cluster", "{\"certificateLifeMs\":\"5\"}"});
	expect(w, 200,
	       &(struct ask){"PATCH", "/v1/cluster",
			     "{\"certificateLifeMs\":\"0\",\"autoRegister\":false}"},
	       &a);
	assert_string_equal(answer_text(&a, "autoRegister"), "");
	assert_string_equal(answer_text(&a, "certificateLifeMs"), "");
	answer_clear(&a);
	expect(w, 200, &(struct ask){"PATCH", "/v1/cluster", "{\"autoRegister\":true}"}, &a);
	answer_clear(&a);
	expect(w, 200, &(struct ask){"POST", "/v1/cluster:rotate-ca"}, &a);
	assert_string_equal(answer_text(&a, "caRotation"), "trust");
	assert_null(strstr(buf_string(&a.body), "PRIVATE"));
	answer_clear(&a);
	expect_status(w, 409, &(struct ask){"POST", "/v1/cluster:rotate-ca"});
	expect_status(w, 200, &(struct ask){"POST", "/v1/cluster:rotate-ca", "{\"finish\":true}"});
	expect_status(w, 422, &(struct ask){"POST", "/v1/cluster:rotate-ca", "{\"force\":true}"});
	expect(w, 200, &(struct ask){"POST", "/v1/cluster:rotate-ca", "{\"sites\":true}"}, &a);
	assert_string_equal(answer_text(&a, "siteCaRotation"), "overlap");
	assert_string_equal(answer_text(&a, "caRotation"), "");
	assert_null(strstr(buf_string(&a.body), "PRIVATE"));
	answer_clear(&a);
	expect_status(w, 409, &(struct ask){"POST", "/v1/cluster:rotate-ca", "{\"sites\":true}"});
	expect(w, 200,
	       &(struct ask){"POST", "/v1/cluster:rotate-ca", "{\"sites\":true,\"finish\":true}"},
	       &a);
	assert_string_equal(answer_text(&a, "siteCaRotation"), "");
	assert_string_equal(answer_text(&a, "siteCaGeneration"), "1");
	answer_clear(&a);
	expect(w, 200, &(struct ask){"GET", "/v1/nodes"}, &a);
	assert_string_equal(answer_text(&a, "items.0.status.leader"), "true");
	answer_clear(&a);
	expect_status(w, 200, &(struct ask){"GET", "/v1/nodes/one"});
	expect_status(w, 200, &(struct ask){"GET", "/v1/nodes/1"});
	expect_status(w, 404, &(struct ask){"GET", "/v1/nodes/two"});
	expect(w, 409, &(struct ask){"DELETE", "/v1/nodes/one"}, &a);
	assert_string_equal(answer_text(&a, "detail"), "this is the last board");
	answer_clear(&a);
	expect(w, 409, &(struct ask){"POST", "/v1/nodes/one:drain", "{\"now\":true}"}, &a);
	assert_non_null(strstr(answer_text(&a, "detail"), "no other board"));
	answer_clear(&a);
	expect_status(w, 404, &(struct ask){"POST", "/v1/nodes/two:drain"});
	expect(w, 200, &(struct ask){"POST", "/v1/nodes/one:undrain"}, &a);
	assert_string_equal(answer_text(&a, "name"), "one");
	answer_clear(&a);
	expect(w, 200, &(struct ask){"POST", "/v1/cluster:recover", "{\"dryRun\":true}"}, &a);
	assert_string_equal(answer_text(&a, "sites"), "7");
	answer_clear(&a);
	expect(w, 409, &(struct ask){"POST", "/v1/cluster:recover", "{\"name\":\"lab\"}"}, &a);
	assert_string_equal(answer_text(&a, "detail"), "the cluster has a leader");
	answer_clear(&a);
	expect(w, 409,
	       &(struct ask){"POST", "/v1/cluster:restore?name=lab", "bytes",
			     .content_type = "application/octet-stream"},
	       &a);
	assert_int_equal(w->core.restored, 5);
	answer_clear(&a);
	expect(w, 200, &(struct ask){"GET", "/v1/cluster:backup"}, &a);
	assert_int_equal(memcmp(a.body.data, "TBBACKUP", 8), 0);
	answer_clear(&a);
	expect(w, 201, &(struct ask){"POST", "/v1/nodes/one:replace"}, &a);
	assert_string_equal(answer_text(&a, "token.replaces"), "1");
	assert_string_equal(answer_text(&a, "token.maxUses"), "1");
	answer_clear(&a);
	expect_status(w, 404, &(struct ask){"POST", "/v1/nodes/two:replace"});
	expect_status(w, 200, &(struct ask){"POST", "/v1/cluster:transfer"});
	expect_status(w, 404, &(struct ask){"POST", "/v1/cluster:transfer", "{\"node\":\"nine\"}"});
	w->core.view.leader_id = 0;
	expect(w, 200, &(struct ask){"GET", "/v1/cluster"}, &a);
	assert_string_equal(answer_text(&a, "status.state"), "no-quorum");
	answer_clear(&a);
	expect(w, 503, &(struct ask){"POST", "/v1/cluster:transfer"}, &a);
	assert_string_equal(a.retry_after, "1");
	answer_clear(&a);
}

static void test_core_errors(void **state)
{
	static const struct {
		int error;
		int status;
	} cases[] = {{-EAGAIN, 503}, {-ETIMEDOUT, 504}, {-ENOTCONN, 503}, {-EIO, 500}, {-7, 500}};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		w->core.propose_error = cases[i].error;
		expect_status(w, cases[i].status,
			      &(struct ask){"POST", "/v1/sites", "{\"name\":\"a\"}"});
	}
}

static void test_before_init(void **state)
{
	struct world *w = *state;
	struct answer a;

	expect(w, 200, &(struct ask){"GET", "/v1/local"}, &a);
	assert_string_equal(answer_text(&a, "state"), "new");
	answer_clear(&a);
	expect_status(w, 200, &(struct ask){"GET", "/healthz"});
	expect_status(w, 200, &(struct ask){"GET", "/metrics"});
	expect(w, 503, &(struct ask){"GET", "/v1/sites"}, &a);
	assert_non_null(strstr(answer_text(&a, "remedy"), "cluster init"));
	answer_clear(&a);
	ask(w, &(struct ask){"GET", "/readyz"}, &a);
	assert_int_equal(a.status, 503);
	answer_clear(&a);
	expect_status(w, 200, &(struct ask){"POST", "/v1/cluster:join", "{}"});
}

static void test_ready(void **state)
{
	struct world *w = *state;
	struct answer a;

	expect_status(w, 200, &(struct ask){"GET", "/readyz", .remote = true});
	w->core.view.lease_until_ms = 1;
	ask(w, &(struct ask){"GET", "/readyz", .remote = true}, &a);
	assert_int_equal(a.status, 503);
	assert_non_null(strstr(buf_string(&a.body), "lease"));
	answer_clear(&a);
}

/* --- idempotency --- */

static void test_idempotency(void **state)
{
	struct world *w = *state;
	struct answer first;
	struct answer again;
	unsigned proposals;

	expect(w, 201, &(struct ask){"POST", "/v1/tokens", "{\"role\":\"viewer\"}", .key = "k1"},
	       &first);
	proposals = w->core.proposals;
	expect(w, 201, &(struct ask){"POST", "/v1/tokens", "{\"role\":\"viewer\"}", .key = "k1"},
	       &again);
	assert_string_equal(buf_string(&first.body), buf_string(&again.body));
	assert_int_equal(w->core.proposals, proposals);
	answer_clear(&first);
	answer_clear(&again);
	expect_status(w, 422,
		      &(struct ask){"POST", "/v1/tokens", "{\"role\":\"admin\"}", .key = "k1"});
	expect_status(w, 400,
		      &(struct ask){"POST", "/v1/tokens", "{\"role\":\"admin\"}", .key = ""});
	/* A refusal is an answer, too; no leader is none. */
	w->core.propose_error = -EAGAIN;
	expect_status(w, 503, &(struct ask){"POST", "/v1/sites", "{\"name\":\"a\"}", .key = "k2"});
	w->core.propose_error = 0;
	expect_status(w, 201, &(struct ask){"POST", "/v1/sites", "{\"name\":\"a\"}", .key = "k2"});
	expect_status(w, 201, &(struct ask){"POST", "/v1/sites", "{\"name\":\"a\"}", .key = "k2"});
	expect_status(w, 409, &(struct ask){"POST", "/v1/sites", "{\"name\":\"a\"}", .key = "k3"});
}

/* Another board does not remember the answer, but the model remembers the command. */
static void test_idempotency_elsewhere(void **state)
{
	struct world *w = *state;
	struct api *first = w->api;
	struct answer a;

	expect_status(w, 201, &(struct ask){"POST", "/v1/sites", "{\"name\":\"a\"}", .key = "k"});
	expect_status(w, 201,
		      &(struct ask){"POST", "/v1/tokens", "{\"role\":\"node\"}", .key = "t"});
	api_memory_free(first->memory);
	first->memory = api_memory_new();
	expect_status(w, 201, &(struct ask){"POST", "/v1/sites", "{\"name\":\"a\"}", .key = "k"});
	expect(w, 409, &(struct ask){"POST", "/v1/tokens", "{\"role\":\"node\"}", .key = "t"}, &a);
	assert_non_null(strstr(answer_text(&a, "detail"), "shown then"));
	answer_clear(&a);
	expect(w, 200, &(struct ask){"GET", "/v1/tokens"}, &a);
	assert_string_equal(answer_text(&a, "items.1.id"), "");
	answer_clear(&a);
}

/* --- life --- */

/* The API closes while the core has requests: they are answered, and late answers do no harm. */
static void test_close_with_open_calls(void **state)
{
	struct world *w = *state;

	for (int late = 0; late < 2; late++) {
		struct answer a;
		struct answer b;

		site_make(w, "berlin", "emea");
		ask_begin(w, &(struct ask){"GET", "/v1/sites"}, &a);
		ask_begin(w, &(struct ask){"POST", "/v1/sites", "{\"name\":\"x\"}"}, &b);
		assert_int_equal(a.status, 0);
		assert_int_equal(b.status, 0);
		w->late = late;
		world_close(w);
		assert_int_equal(a.status, 503);
		assert_int_equal(b.status, 503);
		answer_clear(&a);
		answer_clear(&b);
		world_open(w, true);
	}
}

static void test_metrics(void **state)
{
	struct world *w = *state;
	struct answer a;
	const char *text;

	expect_status(w, 200, &(struct ask){"GET", "/v1/cluster"});
	expect(w, 200, &(struct ask){"GET", "/metrics"}, &a);
	text = buf_string(&a.body);
	assert_non_null(strstr(a.type, "version=0.0.4"));
	assert_non_null(strstr(text, "# TYPE tiebreak_http_requests_total counter\n"));
	assert_non_null(strstr(text, "tiebreak_http_requests_total{method=\"GET\",route=\"/v1/"
				     "cluster\",code=\"200\"} 1\n"));
	assert_non_null(strstr(text, "tiebreak_sites{state=\"whole\"} 3\n"));
	assert_non_null(
		strstr(text, "tiebreak_http_request_duration_seconds_bucket{le=\"+Inf\"} "));
	assert_non_null(strstr(text, "\ntiebreak_node_wear_ratio{node=\"1\"} 0.25\n"));
	assert_non_null(strstr(text, "\ntiebreak_node_temperature_celsius{node=\"1\"} 61\n"));
	assert_non_null(strstr(text, "\ntiebreak_node_throttled{node=\"1\"} 1\n"));
	assert_non_null(strstr(text, "\ntiebreak_node_under_voltage{node=\"1\"} 0\n"));
	assert_non_null(strstr(text, "\ntiebreak_node_memory_bytes{node=\"1\"} 2147483648\n"));
	assert_non_null(strstr(text, "\ntiebreak_node_info{node=\"1\",gic=\"2\","
				     "model=\"A \\\"board\\\" of ours \\\\\",soc=\"\","
				     "serial=\"\",kernel=\"\",cores=\"4 Cortex-A72 r0p3\","
				     "storage=\"\",hosting=\"\"} 1\n"));
	assert_non_null(strstr(text, "\nprocess_resident_memory_bytes "));
	assert_non_null(strstr(text, "\nprocess_allocated_memory_bytes "));
	assert_null(strstr(text, "# EOF"));
	answer_clear(&a);
	expect(w, 200,
	       &(struct ask){"GET", "/metrics", .accept = "application/openmetrics-text;q=1"}, &a);
	text = buf_string(&a.body);
	assert_non_null(strstr(a.type, "openmetrics"));
	assert_non_null(strstr(text, "# TYPE tiebreak_http_requests counter\n"));
	assert_string_equal(text + a.body.len - 6, "# EOF\n");
	answer_clear(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table_is_sound),
		cmocka_unit_test(test_limiter_forgets),
		cmocka_unit_test(test_page_round_trip),
		cmocka_unit_test(test_manual),
		cmocka_unit_test_setup_teardown(test_every_route, setup, teardown),
		cmocka_unit_test_setup_teardown(test_methods, setup, teardown),
		cmocka_unit_test_setup_teardown(test_openapi, setup, teardown),
		cmocka_unit_test_setup_teardown(test_auth_matrix, setup, teardown),
		cmocka_unit_test_setup_teardown(test_socket_is_for_root, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_tokens, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tokens_expire, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unknown_token_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_token_list_hides, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failed_attempts_are_limited, setup, teardown),
		cmocka_unit_test_setup_teardown(test_client_certificates, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tenants, setup, teardown),
		cmocka_unit_test_setup_teardown(test_addresses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_boards_may_link, setup, teardown),
		cmocka_unit_test_setup_teardown(test_enroll, setup, teardown),
		cmocka_unit_test_setup_teardown(test_site_life, setup, teardown),
		cmocka_unit_test_setup_teardown(test_patch_races, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_sites, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bulk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_site_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_state_filter_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_page_tokens, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_queries, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cluster, setup, teardown),
		cmocka_unit_test_setup_teardown(test_core_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_before_init, setup_new, teardown),
		cmocka_unit_test_setup_teardown(test_ready, setup, teardown),
		cmocka_unit_test_setup_teardown(test_idempotency, setup, teardown),
		cmocka_unit_test_setup_teardown(test_idempotency_elsewhere, setup, teardown),
		cmocka_unit_test_setup_teardown(test_close_with_open_calls, setup, teardown),
		cmocka_unit_test_setup_teardown(test_metrics, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
