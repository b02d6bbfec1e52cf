/* api_answer.c: every way a call can end. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "witnessd/api_call.h"

static const char json_type[] = "application/json";
static const char problem_type[] = "application/problem+json";

/* Errors of ours and of credentials are not remembered: they may be gone at the next attempt. */
static bool worth_keeping(int status)
{
	return status < 500 && status != 401 && status != 403 && status != 429;
}

static void answer(struct api_call *call, struct api_answer *a)
{
	struct api *api = call->api;
	void *conn = call->conn;

	if (call->idempotency_key != NULL && worth_keeping(a->status))
		api_memory_keep(api->memory, call->who.actor, call->idempotency_key,
				call->request_sha256, a);
	a->head = call->head;
	call->conn = NULL;
	if (call->slot != NULL)
		*call->slot = NULL;
	call->slot = NULL;
	api->config.sink->answer(conn, a);
	api_call_end(call, a->status);
}

static void answer_json(struct api_call *call, const ProtobufCMessage *message,
			struct api_answer *a)
{
	struct buf text = {0};

	json_encode(message, &text);
	a->content_type = json_type;
	a->body = text.data;
	a->body_len = text.len;
	answer(call, a);
	mem_wipe(text.data, text.len);
	buf_free(&text);
}

void api_answer_message(struct api_call *call, const ProtobufCMessage *message)
{
	answer_json(call, message,
		    &(struct api_answer){.status = call->route->status, .no_store = true});
}

void api_answer_revision(struct api_call *call, const ProtobufCMessage *message, uint64_t revision,
			 const char *location)
{
	char etag[32];

	snprintf(etag, sizeof(etag), "\"%llu\"", (unsigned long long)revision);
	answer_json(call, message,
		    &(struct api_answer){.status = call->route->status,
					 .etag = etag,
					 .location = location,
					 .no_store = true});
}

void api_answer_typed(struct api_call *call, const char *type, const struct buf *text)
{
	answer(call, &(struct api_answer){.status = call->route->status,
					  .content_type = type,
					  .no_store = true,
					  .body = text->data,
					  .body_len = text->len});
}

void api_answer_text(struct api_call *call, const struct buf *text)
{
	const char *type = call->route->content_type;

	api_answer_typed(call, type != NULL ? type : json_type, text);
}

void api_answer_plain(struct api_call *call, int status, const char *text)
{
	answer(call, &(struct api_answer){.status = status,
					  .content_type = "text/plain; charset=utf-8",
					  .no_store = true,
					  .retry_after = status == 503 ? "1" : NULL,
					  .body = (const uint8_t *)text,
					  .body_len = strlen(text)});
}

void api_answer_stream(struct api_call *call, const char *content_type)
{
	call->api->config.sink->stream_begin(call->conn, content_type);
}

void api_answer_again(struct api_call *call, const struct api_remembered *first)
{
	/* Not kept a second time. */
	free(call->idempotency_key);
	call->idempotency_key = NULL;
	answer(call, &(struct api_answer){.status = first->status,
					  .content_type = first->content_type,
					  .etag = first->etag,
					  .location = first->location,
					  .no_store = first->no_store,
					  .body = first->body.data,
					  .body_len = first->body.len});
}

/* --- problems --- */

static const char *status_title(int status)
{
	static const struct {
		int status;
		const char *title;
	} titles[] = {
		{400, "Bad request"},
		{401, "Who are you?"},
		{403, "Not allowed"},
		{404, "Not found"},
		{405, "Method not allowed"},
		{409, "Conflict"},
		{412, "Changed meanwhile"},
		{413, "Too big"},
		{415, "Unsupported content type"},
		{422, "Not valid"},
		{429, "Too many attempts"},
		{502, "The other side failed"},
		{503, "Not available now"},
		{504, "No answer in time"},
		{507, "No room"},
	};

	for (size_t i = 0; i < sizeof(titles) / sizeof(titles[0]); i++)
		if (titles[i].status == status)
			return titles[i].title;
	return "Internal error";
}

struct problem {
	int status;
	const char *detail;
	const char *remedy;
	const char *field; /* NULL: none */
	const char *message; /* of the field */
	struct api_answer answer; /* header fields */
};

static void problem_answer(struct api_call *call, struct problem *p)
{
	Tb__Problem problem = TB__PROBLEM__INIT;
	Tb__FieldProblem field = TB__FIELD_PROBLEM__INIT;
	Tb__FieldProblem *fields[] = {&field};
	struct buf text = {0};

	problem.type = (char *)"about:blank";
	problem.title = (char *)status_title(p->status);
	problem.status = (uint32_t)p->status;
	problem.detail = (char *)p->detail;
	problem.remedy = (char *)(p->remedy != NULL ? p->remedy : "");
	if (p->field != NULL) {
		field.field = (char *)p->field;
		field.message = (char *)p->message;
		problem.n_errors = 1;
		problem.errors = fields;
	}
	json_encode(&problem.base, &text);
	p->answer.status = p->status;
	p->answer.content_type = problem_type;
	p->answer.no_store = true;
	p->answer.body = text.data;
	p->answer.body_len = text.len;
	answer(call, &p->answer);
	buf_free(&text);
}

void api_problem(struct api_call *call, int status, const char *remedy, const char *format, ...)
{
	struct buf detail = {0};
	va_list args;

	va_start(args, format);
	buf_vprintf(&detail, format, args);
	va_end(args);
	problem_answer(call, &(struct problem){.status = status,
					       .detail = buf_string(&detail),
					       .remedy = remedy,
					       .answer.retry_after = status == 503 ? "1" : NULL});
	buf_free(&detail);
}

void api_problem_field(struct api_call *call, int status, const char *field, const char *message)
{
	char *detail = *field != '\0' ? mem_printf("%s: %s", field, message) : mem_strdup(message);

	problem_answer(call, &(struct problem){.status = status,
					       .detail = detail,
					       .field = *field != '\0' ? field : NULL,
					       .message = message});
	free(detail);
}

void api_problem_json(struct api_call *call, const struct json_error *error)
{
	if (error->field[0] != '\0')
		api_problem_field(call, 422, error->field, error->message);
	else if (error->line > 0)
		api_problem(call, 400, NULL, "the body is not JSON: line %d, column %d: %s",
			    error->line, error->column, error->message);
	else
		api_problem(call, 400, NULL, "the body: %s", error->message);
}

static const struct error_meaning {
	int error;
	int status;
	const char *detail;
	const char *remedy;
} meanings[] = {
	{-EAGAIN, 503, "the cluster has no leader at the moment", "try again in a few seconds"},
	{-ETIMEDOUT, 504, "no answer in time: it may or may not have happened",
	 "look at the object, or send the same request again with the same Idempotency-Key"},
	{-ENOTCONN, 503, "this board is not in a cluster",
	 "run \"witnessctl cluster init\" or \"witnessctl cluster join\" on it"},
	{-EINPROGRESS, 503, "this board is starting and still reads its log",
	 "try again in a few seconds, or ask another board"},
	{-ENOENT, 404, "there is no such object", NULL},
	{-EEXIST, 409, "there is one already", NULL},
	{-EBUSY, 409, "another change of this kind is under way", "try again in a moment"},
	{-EPERM, 409, "that is not possible in the present state", NULL},
	{-EACCES, 403, "that was refused", NULL},
	{-EINVAL, 422, "that is not valid", NULL},
	{-ESHUTDOWN, 503, "this board is stopping", "ask another board"},
	{-ECANCELED, 503, "this board is stopping", "ask another board"},
	{-ECONNREFUSED, 502, "the other board refuses connections",
	 "check the address, and that witnessd runs there"},
	{-EHOSTUNREACH, 502, "the other board cannot be reached",
	 "check the address and the network"},
	{-EIO, 500, "the board could not do it", "look at the log of witnessd on this board"},
};

void api_problem_error(struct api_call *call, int error, const char *message)
{
	const size_t count = sizeof(meanings) / sizeof(meanings[0]);
	size_t i = 0;

	while (i + 1 < count && meanings[i].error != error)
		i++;
	if (message != NULL && *message != '\0')
		api_problem(call, meanings[i].status, NULL, "%s", message);
	else
		api_problem(call, meanings[i].status, meanings[i].remedy, "%s", meanings[i].detail);
}

static int refusal_status(const struct api_call *call, Tb__Refusal refusal)
{
	switch (refusal) {
	case TB__REFUSAL__REFUSAL_NOT_FOUND:
		return 404;
	case TB__REFUSAL__REFUSAL_CONFLICT:
		return call->if_revision != 0 ? 412 : 409;
	case TB__REFUSAL__REFUSAL_EXISTS:
	case TB__REFUSAL__REFUSAL_LIMIT:
	case TB__REFUSAL__REFUSAL_INITIALISED:
	case TB__REFUSAL__REFUSAL_LEVEL:
		return 409;
	case TB__REFUSAL__REFUSAL_TOKEN_UNKNOWN:
	case TB__REFUSAL__REFUSAL_TOKEN_EXPIRED:
	case TB__REFUSAL__REFUSAL_TOKEN_USED:
	case TB__REFUSAL__REFUSAL_TOKEN_REVOKED:
	case TB__REFUSAL__REFUSAL_TOKEN_ROLE:
		return 403;
	case TB__REFUSAL__REFUSAL_NOT_INITIALISED:
		return 503;
	default:
		return 422;
	}
}

void api_problem_refusal(struct api_call *call, const Tb__CommandResult *result)
{
	problem_answer(call,
		       &(struct problem){.status = refusal_status(call, result->refusal),
					 .detail = result->message,
					 .field = *result->field != '\0' ? result->field : NULL,
					 .message = result->message});
}

/* --- before a handler --- */

void api_answer_methods(struct api_call *call, const char *allow, bool refused)
{
	if (refused)
		problem_answer(call,
			       &(struct problem){.status = 405,
						 .detail = "this path has no such method",
						 .remedy = "the Allow header names its methods",
						 .answer.allow = allow});
	else
		answer(call, &(struct api_answer){.status = 204, .allow = allow});
}

void api_answer_unauthorized(struct api_call *call, const char *why)
{
	problem_answer(call, &(struct problem){
				     .status = 401,
				     .detail = why,
				     .remedy = "send \"Authorization: Bearer TOKEN\" or a client "
					       "certificate of the cluster; on the board itself "
					       "the Unix socket needs neither",
				     .answer.www_authenticate = "Bearer realm=\"tiebreak\""});
}

void api_answer_too_many(struct api_call *call, unsigned retry_s)
{
	char seconds[16];

	snprintf(seconds, sizeof(seconds), "%u", retry_s);
	problem_answer(call,
		       &(struct problem){.status = 429,
					 .detail = "too many failed attempts from this address",
					 .remedy = "wait as long as Retry-After says",
					 .answer.retry_after = seconds});
}
