/* api_openapi.c: the route table and the schema as OpenAPI 3.1, and as a page for people. */
#include <string.h>

#include "lib/mem.h"
#include "proto/reflect.h"
#include "witnessd/api_call.h"

/* --- types --- */

enum { TYPES_MAX = 128 };

struct types {
	const ProtobufCMessageDescriptor *list[TYPES_MAX];
	size_t count;
};

/* The type and all that it names. */
static void types_add(struct types *t, const ProtobufCMessageDescriptor *type)
{
	if (type == NULL)
		return;
	for (size_t i = 0; i < t->count; i++)
		if (t->list[i] == type)
			return;
	if (t->count == TYPES_MAX)
		return;
	t->list[t->count++] = type;
	for (unsigned i = 0; i < type->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &type->fields[i];

		if (field->type == PROTOBUF_C_TYPE_MESSAGE && !field_is_map(field))
			types_add(t, field->descriptor);
	}
}

static void types_collect(struct types *t)
{
	*t = (struct types){0};
	types_add(t, &tb__problem__descriptor);
	for (size_t i = 0; i < api_route_count; i++) {
		types_add(t, api_routes[i].request);
		types_add(t, api_routes[i].answer);
	}
}

static void schemas_write(struct buf *out)
{
	struct types types;

	types_collect(&types);
	buf_puts(out, "\"schemas\":{");
	for (size_t i = 0; i < types.count; i++) {
		buf_printf(out, "%s\"%s\":", i > 0 ? "," : "", types.list[i]->short_name);
		json_schema(types.list[i], out);
	}
	buf_putc(out, '}');
}

/* --- operations --- */

static void param_schema(const struct api_param *param, struct buf *out)
{
	char word[64];

	switch (param->type) {
	case API_TEXT:
		buf_printf(out, "{\"type\":\"string\",\"maxLength\":%llu}",
			   (unsigned long long)param->max);
		break;
	case API_NUMBER:
		buf_printf(out, "{\"type\":\"integer\",\"minimum\":%llu,\"maximum\":%llu}",
			   (unsigned long long)param->min, (unsigned long long)param->max);
		break;
	case API_FLAG:
		buf_puts(out, "{\"type\":\"string\",\"enum\":[\"0\",\"1\",\"false\",\"true\"]}");
		break;
	case API_WORD:
		buf_puts(out, "{\"type\":\"string\",\"enum\":[");
		for (unsigned i = 0; i < param->words->n_values; i++)
			buf_printf(
				out, "%s\"%s\"", i > 0 ? "," : "",
				json_enum_word(param->words, param->words->values[i].value, word));
		buf_puts(out, "]}");
		break;
	}
}

static void param_write(const struct api_param *param, struct buf *out)
{
	buf_printf(out, "{\"name\":\"%s\",\"in\":\"query\",\"description\":", param->name);
	json_encode_string(param->summary, out);
	buf_puts(out, ",\"schema\":");
	param_schema(param, out);
	buf_putc(out, '}');
}

static void header_param(const char *name, const char *summary, struct buf *out)
{
	buf_printf(out,
		   ",{\"name\":\"%s\",\"in\":\"header\",\"description\":\"%s\","
		   "\"schema\":{\"type\":\"string\"}}",
		   name, summary);
}

static bool route_streams(const struct api_route *route)
{
	for (const struct api_param *p = route->params; p != NULL && p->name != NULL; p++)
		if (strcmp(p->name, "watch") == 0)
			return true;
	return false;
}

/* Writes of one site can be bound to a revision. */
static bool route_matches_revision(const struct api_route *route)
{
	return strcmp(route->path, "/v1/sites/{name}") == 0 && strcmp(route->method, "GET") != 0;
}

static void params_write(const struct api_route *route, struct buf *out)
{
	const char *brace = strchr(route->path, '{');
	struct buf list = {0};

	if (brace != NULL)
		buf_printf(&list,
			   ",{\"name\":\"%.*s\",\"in\":\"path\",\"required\":true,"
			   "\"schema\":{\"type\":\"string\"}}",
			   (int)strcspn(brace + 1, "}"), brace + 1);
	for (const struct api_param *p = route->params; p != NULL && p->name != NULL; p++) {
		buf_putc(&list, ',');
		param_write(p, &list);
	}
	if (strcmp(route->method, "POST") == 0)
		header_param("Idempotency-Key", "the same key repeats the first answer", &list);
	if (route_matches_revision(route))
		header_param("If-Match", "the ETag that the site must still have", &list);
	if (route_streams(route))
		header_param("Last-Event-ID", "resume a stream behind this id", &list);
	if (list.len > 0) {
		buf_puts(out, ",\"parameters\":[");
		buf_append(out, list.data + 1, list.len - 1);
		buf_putc(out, ']');
	}
	buf_free(&list);
}

static void body_write(const struct api_route *route, struct buf *out)
{
	if (route->request != NULL)
		buf_printf(out,
			   ",\"requestBody\":{\"content\":{\"application/%sjson\":{\"schema\":"
			   "{\"$ref\":\"#/components/schemas/%s\"}}}}",
			   route->merge ? "merge-patch+" : "", route->request->short_name);
	else if (route->raw_max != 0)
		buf_puts(out, ",\"requestBody\":{\"content\":{\"application/octet-stream\":{}}}");
}

static void content_write(const struct api_route *route, struct buf *out)
{
	if (route->answer != NULL)
		buf_printf(out,
			   "\"application/json\":{\"schema\":{\"$ref\":"
			   "\"#/components/schemas/%s\"}}",
			   route->answer->short_name);
	else
		buf_printf(out, "\"%.*s\":{}", (int)strcspn(route->content_type, ";"),
			   route->content_type);
	if (route_streams(route))
		buf_puts(out, ",\"text/event-stream\":{\"schema\":{\"type\":\"string\"}}");
}

static const char *role_text(const struct api_route *route)
{
	switch (route->role) {
	case API_OPEN:
		return "Open to anyone.";
	case API_VIEWER:
		return route->own_site ? "Needs the role viewer, or a token of this site."
				       : "Needs the role viewer.";
	case API_OPERATOR:
		return route->own_agent
			       ? "Needs the role operator, or a token of the site's agents."
			       : "Needs the role operator.";
	case API_ADMIN:
		return "Needs the role admin.";
	case API_SOCKET:
		return "On the Unix socket of the board only.";
	}
	return "";
}

/* "get_v1_sites_name_enroll" */
static void operation_id(const struct api_route *route, struct buf *out)
{
	for (const char *c = route->method; *c != '\0'; c++)
		buf_putc(out, (char)(*c | 0x20));
	for (const char *c = route->path; *c != '\0'; c++)
		if (strchr("{}", *c) == NULL)
			buf_putc(out, strchr("/:.-", *c) != NULL ? '_' : *c);
}

static void operation_write(const struct api_route *route, struct buf *out)
{
	for (const char *c = route->method; *c != '\0'; c++)
		buf_printf(out, "%s%c", c == route->method ? "\"" : "", *c | 0x20);
	buf_puts(out, "\":{\"operationId\":\"");
	operation_id(route, out);
	buf_puts(out, "\",\"summary\":");
	json_encode_string(route->summary, out);
	buf_printf(out, ",\"description\":\"%s\"", role_text(route));
	if (route->role == API_OPEN || route->role == API_SOCKET)
		buf_puts(out, ",\"security\":[]");
	params_write(route, out);
	body_write(route, out);
	buf_printf(out, ",\"responses\":{\"%d\":{\"description\":\"Done.\",\"content\":{",
		   route->status);
	content_write(route, out);
	buf_puts(out, "}},\"default\":{\"$ref\":\"#/components/responses/Problem\"}}}");
}

/* Routes of one path stand together; the first one of the path writes them all. */
static bool path_is_first(size_t index)
{
	for (size_t i = 0; i < index; i++)
		if (strcmp(api_routes[i].path, api_routes[index].path) == 0)
			return false;
	return true;
}

static void path_write(size_t index, struct buf *out)
{
	buf_printf(out, "%s\"%s\":{", index > 0 ? "," : "", api_routes[index].path);
	for (size_t i = index; i < api_route_count; i++) {
		if (strcmp(api_routes[i].path, api_routes[index].path) != 0)
			continue;
		if (i > index)
			buf_putc(out, ',');
		operation_write(&api_routes[i], out);
	}
	buf_putc(out, '}');
}

void api_openapi(struct buf *out)
{
	buf_puts(out,
		 "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"Tiebreak\",\"version\":"
		 "\"" TIEBREAK_VERSION "\",\"description\":\"Fields at their default are left out. "
		 "64-bit integers are strings.\"},"
		 "\"security\":[{\"token\":[]},{\"certificate\":[]}],\"paths\":{");
	for (size_t i = 0; i < api_route_count; i++)
		if (path_is_first(i))
			path_write(i, out);
	buf_puts(out,
		 "},\"components\":{\"securitySchemes\":{"
		 "\"token\":{\"type\":\"http\",\"scheme\":\"bearer\"},"
		 "\"certificate\":{\"type\":\"mutualTLS\"}},"
		 "\"responses\":{\"Problem\":{\"description\":\"What is wrong, and the remedy "
		 "(RFC 9457).\",\"content\":{\"application/problem+json\":{\"schema\":{\"$ref\":"
		 "\"#/components/schemas/Problem\"}}}}},");
	schemas_write(out);
	buf_puts(out, "}}\n");
}

void api_openapi_json(struct api_call *call)
{
	struct buf *text = &call->api->openapi;

	if (text->len == 0)
		api_openapi(text);
	api_answer_text(call, text);
}

/* --- the manual --- */

void api_manual(struct buf *out)
{
	buf_puts(out, "| request | body | answer | least role | what it does |\n"
		      "| --- | --- | --- | --- | --- |\n");
	for (size_t i = 0; i < api_route_count; i++) {
		const struct api_route *r = &api_routes[i];
		static const char *const roles[] = {
			[API_OPEN] = "none",
			[API_VIEWER] = "viewer",
			[API_OPERATOR] = "operator",
			[API_ADMIN] = "admin",
			[API_SOCKET] = "the board's Unix socket",
		};

		buf_printf(out, "| `%s %s", r->method, r->path);
		for (const struct api_param *p = r->params; p != NULL && p->name != NULL; p++)
			buf_printf(out, "%c%s=", p == r->params ? '?' : '&', p->name);
		buf_printf(out, "` | %s | %s | %s%s | %s |\n",
			   r->request != NULL ? r->request->short_name
			   : r->raw_max != 0  ? "bytes"
					      : "",
			   r->answer != NULL ? r->answer->short_name : "text", roles[r->role],
			   r->own_site	  ? ", or the site's own token"
			   : r->own_agent ? ", or a token of its agents"
					  : "",
			   r->summary);
	}
}
