#include "witnessd/api_http.h"

#include "proto/json.h"

/* What somebody without credentials may send: enough to be told so. */
enum { BODY_UNKNOWN = 4096 };

static void request_fill(const struct http_request *from, struct api_request *to)
{
	*to = (struct api_request){.method = from->method,
				   .path = from->path,
				   .query = from->query,
				   .authorization = http_header(from, "Authorization"),
				   .content_type = http_header(from, "Content-Type"),
				   .accept = http_header(from, "Accept"),
				   .if_match = http_header(from, "If-Match"),
				   .idempotency_key = http_header(from, "Idempotency-Key"),
				   .last_event_id = http_header(from, "Last-Event-ID"),
				   .body = from->body,
				   .body_len = from->body_len,
				   .peer_address = from->remote_address,
				   .local = from->has_uid,
				   .uid = from->uid,
				   .certificate = from->peer};
}

static void on_head(struct http_request *request, void *arg)
{
	struct api_http *h = arg;
	struct api_request r;

	size_t max;

	request_fill(request, &r);
	max = api_body_max(h->api, &r);
	if (!api_knows(h->api, &r))
		request->body_limit = BODY_UNKNOWN;
	else if (max != 0)
		request->body_limit = max;
}

static void on_request(struct http_request *request, void *arg)
{
	struct api_http *h = arg;
	struct api_request r;

	request_fill(request, &r);
	api_handle(h->api, &r, request, &request->arg);
}

static void on_gone(struct http_request *request, void *arg)
{
	(void)arg;
	if (request->arg != NULL)
		api_gone(request->arg);
}

static void on_drained(struct http_request *request, void *arg)
{
	(void)arg;
	if (request->arg != NULL)
		api_drained(request->arg);
}

static const char *on_error(unsigned status, const char *detail, const char **ret_type, void *arg)
{
	struct api_http *h = arg;
	Tb__Problem problem = TB__PROBLEM__INIT;

	problem.type = (char *)"about:blank";
	problem.title = (char *)"HTTP";
	problem.status = status;
	problem.detail = (char *)detail;
	buf_clear(&h->error);
	json_encode(&problem.base, &h->error);
	*ret_type = "application/problem+json";
	return buf_string(&h->error);
}

void api_http_init(struct api_http *h, struct api *api)
{
	*h = (struct api_http){.api = api};
	h->handler = (struct http_handler){.head = on_head,
					   .request = on_request,
					   .gone = on_gone,
					   .drained = on_drained,
					   .error_body = on_error,
					   .arg = h};
}

void api_http_free(struct api_http *h)
{
	buf_free(&h->error);
}

/* --- answers --- */

static void header_add(struct buf *out, const char *name, const char *value)
{
	if (value != NULL)
		buf_printf(out, "%s: %s\r\n", name, value);
}

static void sink_answer(void *conn, const struct api_answer *a)
{
	struct buf headers = {0};

	header_add(&headers, "ETag", a->etag);
	header_add(&headers, "Location", a->location);
	header_add(&headers, "Allow", a->allow);
	header_add(&headers, "Retry-After", a->retry_after);
	header_add(&headers, "WWW-Authenticate", a->www_authenticate);
	header_add(&headers, "Cache-Control", a->no_store ? "no-store" : NULL);
	http_respond(conn, (unsigned)a->status, a->content_type,
		     headers.len > 0 ? buf_string(&headers) : NULL, a->body, a->body_len);
	buf_free(&headers);
}

static void sink_stream_begin(void *conn, const char *content_type)
{
	http_respond_start(conn, 200, content_type, "Cache-Control: no-store\r\n");
}

static size_t sink_stream_write(void *conn, const void *data, size_t len)
{
	return http_respond_chunk(conn, data, len);
}

static void sink_stream_end(void *conn)
{
	http_respond_end(conn);
}

const struct api_sink api_http_sink = {.answer = sink_answer,
				       .stream_begin = sink_stream_begin,
				       .stream_write = sink_stream_write,
				       .stream_end = sink_stream_end};
