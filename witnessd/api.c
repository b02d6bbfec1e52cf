/* api.c: from a request to its handler. Each step either goes on or ends the call. */
#include "witnessd/api.h"

#include <errno.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "witnessd/api_call.h"
#include "witnessd/http.h"

/* --- the route of a path --- */

/* The pattern's last segment may be "{arg}" or "{arg}:verb". 0 and the place of the argument. */
static int route_matches(const char *pattern, const char *path, const char **ret_arg,
			 size_t *ret_len)
{
	const char *brace = strchr(pattern, '{');
	size_t head = brace != NULL ? (size_t)(brace - pattern) : strlen(pattern);
	const char *tail = brace != NULL ? strchr(brace, '}') + 1 : "";
	size_t tail_len = strlen(tail);
	const char *arg = path + head;
	size_t len;

	if (strncmp(path, pattern, head) != 0)
		return -ENOENT;
	len = strlen(arg);
	if (brace == NULL)
		return len == 0 ? 0 : -ENOENT;
	if (len <= tail_len || strcmp(arg + len - tail_len, tail) != 0)
		return -ENOENT;
	len -= tail_len;
	/* An encoded colon or slash is part of the argument; these are not. */
	if (memchr(arg, '/', len) != NULL || memchr(arg, ':', len) != NULL)
		return -ENOENT;
	*ret_arg = arg;
	*ret_len = len;
	return 0;
}

struct route_search {
	const struct api_route *route; /* NULL: none with this method */
	const char *arg;
	size_t arg_len;
	char allow[64]; /* methods of the path; "" if there is no such path */
};

static void allow_add(char allow[64], const char *method)
{
	size_t len = strlen(allow);

	snprintf(allow + len, 64 - len, "%s%s", len > 0 ? ", " : "", method);
}

static struct route_search route_find(const char *method, const char *path)
{
	const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
	struct route_search found = {0};

	for (size_t i = 0; i < api_route_count; i++) {
		const struct api_route *route = &api_routes[i];
		const char *arg = "";
		size_t len = 0;

		if (route_matches(route->path, path, &arg, &len) != 0)
			continue;
		allow_add(found.allow, route->method);
		if (strcmp(route->method, "GET") == 0)
			allow_add(found.allow, "HEAD");
		if (strcmp(route->method, wanted) == 0) {
			found.route = route;
			found.arg = arg;
			found.arg_len = len;
		}
	}
	if (found.allow[0] != '\0')
		allow_add(found.allow, "OPTIONS");
	return found;
}

size_t api_body_max(struct api *a, const struct api_request *request)
{
	const struct api_route *route = route_find(request->method, request->path).route;

	(void)a;
	/* So much only of who is an administrator without any token. */
	return route != NULL && request->local ? route->raw_max : 0;
}

static int call_route(struct api_call *call, const struct api_request *request)
{
	struct route_search found = route_find(request->method, request->path);

	if (found.allow[0] == '\0') {
		api_problem(call, 404, "GET /openapi.json lists every path",
			    "there is no such path");
		return -ENOENT;
	}
	if (strcmp(request->method, "OPTIONS") == 0) {
		api_answer_methods(call, found.allow, false);
		return -ENOENT;
	}
	if (found.route == NULL) {
		api_answer_methods(call, found.allow, true);
		return -ENOENT;
	}
	call->route = found.route;
	if (http_decode(found.arg, found.arg_len, false, &call->arg) != 0) {
		api_problem(call, 400, NULL,
			    "the path is not percent-encoded UTF-8 (zero bytes are not allowed)");
		return -EINVAL;
	}
	return 0;
}

/* --- who --- */

static int call_identify(struct api_call *call, const struct api_request *request)
{
	struct api *a = call->api;
	uint64_t now = clock_boottime_ms();
	const char *why;
	unsigned retry_s;
	int rv;

	if (call->route->role == API_OPEN)
		return 0;
	if (request->authorization != NULL && !request->local &&
	    api_limiter_blocked(a->limiter, request->peer_address, now, &retry_s)) {
		api_answer_too_many(call, retry_s);
		return -EACCES;
	}
	rv = api_identify(a, request, &call->who, &why);
	if (rv == 0)
		return 0;
	if (request->local) {
		api_problem(call, 403, NULL, "%s", why);
	} else if (rv != -ENOENT || api_hold(call, request) != 0) {
		api_limiter_failed(a->limiter, request->peer_address, now);
		log_notice("api-refused", "%s: %s", request->peer_address, why);
		api_answer_unauthorized(call, why);
	}
	return -EACCES;
}

static const char *role_word(const struct api_route *route)
{
	switch (route->role) {
	case API_VIEWER:
		return "viewer";
	case API_OPERATOR:
		return "operator";
	default:
		return "admin";
	}
}

static int call_authorize(struct api_call *call)
{
	if (api_allowed(&call->who, call->route, call->arg))
		return 0;
	if (call->route->role == API_SOCKET)
		api_problem(call, 403, "run witnessctl as root on the board itself",
			    "this is only answered on the Unix socket of the board");
	else if (call->who.role == TB__ROLE__ROLE_NONE)
		api_answer_unauthorized(call, "this needs a token or a client certificate");
	else if (call->who.tenant[0] != '\0' && !call->route->tenant)
		api_problem(call, 403, "use a token that is not limited to a tenant",
			    "this token is for the sites of tenant %s only", call->who.tenant);
	else
		api_problem(call, 403, "use a token or a certificate with that role",
			    "this needs the role %s", role_word(call->route));
	return -EACCES;
}

/* --- what --- */

/* A tenant's lists are narrowed to its own sites. */
static void call_narrow(struct api_call *call)
{
	const struct api_param *params = call->route->params;

	for (size_t i = 0; params != NULL && params[i].name != NULL; i++) {
		struct api_value *value = &call->params[i];
		char *text;

		if (strcmp(params[i].name, "label") != 0)
			continue;
		text = mem_printf("tenant=%s%s%s", call->who.tenant, value->set ? "," : "",
				  value->set ? value->text : "");
		free(value->text);
		value->text = text;
		value->set = true;
	}
}

static int call_params(struct api_call *call, const struct api_request *request)
{
	struct api_query_problem problem = {0};

	if (api_query_parse(request->query, call->route->params, call->params, &problem) == 0) {
		if (call->who.tenant[0] != '\0')
			call_narrow(call);
		return 0;
	}
	api_problem_field(call, 400, problem.name, problem.message);
	return -EINVAL;
}

static int call_if_match(struct api_call *call, const struct api_request *request)
{
	const char *text = request->if_match;
	char digits[24];
	size_t len;

	if (text == NULL || strcmp(text, "*") == 0)
		return 0;
	len = strlen(text);
	if (len > 2 && len < sizeof(digits) && text[0] == '"' && text[len - 1] == '"') {
		memcpy(digits, text + 1, len - 2);
		digits[len - 2] = '\0';
		if (text_to_u64(digits, 1, UINT64_MAX, &call->if_revision) == 0)
			return 0;
	}
	api_problem_field(call, 400, "If-Match",
			  "must be one ETag as this API gives it: \"REVISION\" in double quotes");
	return -EINVAL;
}

static bool is_json(const char *type)
{
	size_t len;

	if (type == NULL)
		return true;
	len = strcspn(type, "; ");
	return (len == 16 && strncasecmp(type, "application/json", len) == 0) ||
	       (len == 28 && strncasecmp(type, "application/merge-patch+json", len) == 0);
}

static int call_decode(struct api_call *call)
{
	struct json_error error = {0};

	if (json_decode(call->route->request, (const char *)call->body.data, call->body.len,
			&call->request, &error) == 0)
		return 0;
	api_problem_json(call, &error);
	return -EINVAL;
}

static int call_body(struct api_call *call, const struct api_request *request)
{
	if (call->route->raw_max != 0) {
		buf_append(&call->body, request->body, request->body_len);
		return 0;
	}
	if (call->route->request == NULL) {
		if (request->body_len == 0)
			return 0;
		api_problem(call, 400, NULL, "this request takes no body");
		return -EINVAL;
	}
	if (!is_json(request->content_type)) {
		api_problem(call, 415, "send \"Content-Type: application/json\"",
			    "the body must be JSON");
		return -EINVAL;
	}
	if (request->body_len > 0)
		buf_append(&call->body, request->body, request->body_len);
	else
		buf_puts(&call->body, "{}");
	return call->route->merge ? 0 : call_decode(call);
}

enum { KEY_MAX = 128 };

static int call_key(struct api_call *call, const struct api_request *request)
{
	const char *key = request->idempotency_key;
	const struct api_remembered *first;
	struct buf text = {0};
	int rv;

	if (key == NULL || strcmp(request->method, "POST") != 0)
		return 0;
	if (*key == '\0' || strlen(key) > KEY_MAX) {
		api_problem_field(call, 400, "Idempotency-Key", "must have 1 to 128 characters");
		return -EINVAL;
	}
	buf_append(&text, request->path, strlen(request->path) + 1);
	buf_append(&text, request->query, strlen(request->query) + 1);
	buf_append(&text, request->body, request->body_len);
	SHA256(text.data, text.len, call->request_sha256);
	buf_free(&text);
	rv = api_memory_find(call->api->memory, call->who.actor, key, call->request_sha256, &first);
	if (rv == -EEXIST)
		api_problem_field(call, 422, "Idempotency-Key",
				  "was used for another request; take a new key");
	else if (rv == 1)
		api_answer_again(call, first);
	else
		call->idempotency_key = mem_strdup(key);
	return rv == 0 ? 0 : -EEXIST;
}

/* A board that was started without the others has its log but does not know yet how much of it is
 * agreed upon: its model is still empty, which is not to be taken for an empty cluster. */
static bool model_filled(struct api *a)
{
	uint64_t applied;

	if (!a->model_filled)
		a->model_filled = store_applied(a->store, &applied) == 0 && applied > 0;
	return a->model_filled;
}

static int call_model(struct api_call *call)
{
	bool open;

	if (call->route->before_init)
		return 0;
	open = api_store(call->api) != NULL;
	if (open && model_filled(call->api))
		return 0;
	if (open || call->api->config.backend->view(call->api->config.core)->state == CORE_STARTING)
		api_problem_error(call, -EINPROGRESS, NULL);
	else
		api_problem_error(call, -ENOTCONN, NULL);
	return -ENOTCONN;
}

void api_serve(struct api_call *call, const struct api_request *request)
{
	if (call_identify(call, request) == 0 && call_authorize(call) == 0 &&
	    call_params(call, request) == 0 && call_if_match(call, request) == 0 &&
	    call_model(call) == 0 && call_key(call, request) == 0 && call_body(call, request) == 0)
		call->route->handle(call);
}

void api_handle(struct api *a, const struct api_request *request, void *conn, void **slot)
{
	struct api_call *call = mem_zalloc(sizeof(*call));

	call->api = a;
	call->conn = conn;
	call->slot = slot;
	call->head = strcmp(request->method, "HEAD") == 0;
	call->started_us = uv_hrtime() / 1000;
	call->accept_open_metrics = request->accept != NULL &&
				    strstr(request->accept, "application/openmetrics-text") != NULL;
	if (request->last_event_id != NULL)
		call->last_event_id = mem_strdup(request->last_event_id);
	list_append(&a->calls, &call->link);
	if (slot != NULL)
		*slot = call;
	if (call_route(call, request) == 0)
		api_serve(call, request);
}

/* --- the end of a call --- */

static void call_count(const struct api_call *call, int status)
{
	char labels[160];

	snprintf(labels, sizeof(labels), "method=\"%s\",route=\"%s\",code=\"%d\"",
		 call->route != NULL ? call->route->method : "other",
		 call->route != NULL ? call->route->path : "other", status);
	metric_add(
		metrics_series(call->api->config.metrics, METRIC_COUNTER, "tiebreak_http_requests",
			       "Answered requests of the API.", labels),
		1);
	metric_observe_us(call->api->duration, uv_hrtime() / 1000 - call->started_us);
}

void api_call_end(struct api_call *call, int status)
{
	if (status != 0)
		call_count(call, status);
	if (call->slot != NULL)
		*call->slot = NULL;
	list_remove(&call->link);
	if (call->state != NULL && call->state_free != NULL)
		call->state_free(call->state);
	if (call->request != NULL)
		protobuf_c_message_free_unpacked(call->request, NULL);
	if (call->body.len > 0)
		mem_wipe(call->body.data, call->body.len);
	buf_free(&call->body);
	api_values_free(call->params, API_PARAMS_MAX);
	api_held_free(call->held);
	free(call->idempotency_key);
	free(call->last_event_id);
	free(call->arg);
	free(call);
}

void api_gone(struct api_call *call)
{
	if (call->stream != NULL)
		api_watch_gone(call);
	else if (call->console != NULL)
		api_console_gone(call);
}

void api_drained(struct api_call *call)
{
	if (call->stream != NULL)
		api_watch_drained(call);
	else if (call->console != NULL)
		api_console_drained(call);
}

const struct api_value *api_param(const struct api_call *call, const char *name)
{
	size_t i = 0;

	while (strcmp(call->route->params[i].name, name) != 0)
		i++;
	return &call->params[i];
}

void api_field_set(char **field, const char *text)
{
	if (*field != protobuf_c_empty_string)
		free(*field);
	*field = mem_strdup(text);
}

/* --- the model --- */

struct store *api_store(struct api *a)
{
	const char *path = a->config.backend->model_path(a->config.core);

	if (a->store == NULL && *path != '\0' && store_open_reader(path, &a->store) != 0)
		a->store = NULL;
	return a->store;
}

void api_store_failed(struct api_call *call)
{
	struct store *s = api_store(call->api);

	log_error("model-read", "the API cannot read the model: %s",
		  s != NULL ? store_error(s) : "it is not open");
	api_problem_error(call, -EIO, NULL);
}

int64_t api_now_ms(const struct api *a)
{
	return core_view_now_ms(a->config.backend->view(a->config.core));
}

char *api_node_name(struct api *a)
{
	Tb__LocalStatus *status = a->config.backend->local_status(a->config.core);
	char *name = mem_strdup(status->node_name);

	tb__local_status__free_unpacked(status, NULL);
	return name;
}

void api_identity_changed(struct api *a)
{
	store_close(a->store);
	a->store = NULL;
	api_model_changed(a);
	/* Another CA may be believed now. */
	if (!a->closing) {
		api_consoles_check(a);
		api_watch_check(a->watch);
	}
}

void api_model_changed(struct api *a)
{
	if (a->closing)
		return;
	api_hold_retry(a, uv_now(a->config.loop));
	api_watch_changed(a->watch);
}

/* --- life --- */

struct api *api_new(const struct api_config *config)
{
	struct api *a = mem_zalloc(sizeof(*a));

	a->config = *config;
	list_init(&a->calls);
	list_init(&a->held);
	list_init(&a->consoles);
	uv_timer_init(config->loop, &a->hold_timer);
	a->hold_timer.data = a;
	a->limiter = api_limiter_new();
	a->memory = api_memory_new();
	a->watch = api_watch_new(a);
	a->duration = metrics_histogram(config->metrics, "tiebreak_http_request_duration_seconds",
					"Time from a whole request to its answer.");
	return a;
}

void api_host_set(struct api *a, struct host *h)
{
	atomic_store(&a->host, h);
}

static void maybe_closed(struct api *a)
{
	if (--a->open_handles == 0)
		a->closed(a->closed_arg);
}

static void hold_timer_closed(uv_handle_t *handle)
{
	maybe_closed(handle->data);
}

/* The core may still hold the call: it stays, without a connection. */
static void call_cancel(struct api_call *call)
{
	void *conn = call->conn;
	static const char text[] = "this board is stopping\n";

	if (conn == NULL)
		return;
	call->conn = NULL;
	if (call->slot != NULL)
		*call->slot = NULL;
	call->slot = NULL;
	call->api->config.sink->answer(conn, &(struct api_answer){.status = 503,
								  .content_type = "text/plain",
								  .body = (const uint8_t *)text,
								  .body_len = sizeof(text) - 1});
}

void api_close(struct api *a, void (*closed)(void *arg), void *arg)
{
	a->closing = true;
	a->closed = closed;
	a->closed_arg = arg;
	a->open_handles = 2;
	api_watch_close(a->watch, maybe_closed);
	uv_close((uv_handle_t *)&a->hold_timer, hold_timer_closed);
	api_hold_end(a);
	api_consoles_end(a);
	list_for_each_safe (at, &a->calls)
		call_cancel(list_entry(at, struct api_call, link));
}

void api_free(struct api *a)
{
	if (a == NULL)
		return;
	list_for_each_safe (at, &a->calls)
		api_call_end(list_entry(at, struct api_call, link), 0);
	api_watch_free(a->watch);
	api_memory_free(a->memory);
	api_limiter_free(a->limiter);
	store_close(a->store);
	buf_free(&a->openapi);
	free(a);
}
