/* api_hold.c: requests whose token or certificate this board's model does not know yet.
 *
 * Another board may have made it a moment ago, and this one learns of it with the leader's next
 * heartbeat. So the verdict waits: until the model has it, or for HOLD_MS. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "witnessd/api_call.h"

enum { HOLD_MS = 1000, HELD_MAX = 64 };

struct api_held {
	struct list link;
	struct api_call *call;
	struct api_request request; /* its texts are ours */
	struct tls_peer certificate;
	uint64_t deadline_ms; /* of uv_now */
};

static const char *text_own(const char *text)
{
	return text != NULL ? mem_strdup(text) : NULL;
}

static void text_free(const char *text)
{
	free((char *)(uintptr_t)text);
}

static void request_own(struct api_held *h, const struct api_request *from)
{
	struct api_request *to = &h->request;

	*to = *from;
	to->method = text_own(from->method);
	to->path = text_own(from->path);
	to->query = text_own(from->query);
	to->authorization = text_own(from->authorization);
	to->content_type = text_own(from->content_type);
	to->accept = text_own(from->accept);
	to->if_match = text_own(from->if_match);
	to->idempotency_key = text_own(from->idempotency_key);
	to->last_event_id = text_own(from->last_event_id);
	to->peer_address = text_own(from->peer_address);
	to->body = from->body_len > 0 ? mem_dup(from->body, from->body_len) : NULL;
	if (from->certificate != NULL) {
		h->certificate = *from->certificate;
		to->certificate = &h->certificate;
	}
}

void api_held_free(struct api_held *h)
{
	if (h == NULL)
		return;
	list_remove(&h->link);
	if (h->request.authorization != NULL)
		mem_wipe((char *)(uintptr_t)h->request.authorization,
			 strlen(h->request.authorization));
	text_free(h->request.method);
	text_free(h->request.path);
	text_free(h->request.query);
	text_free(h->request.authorization);
	text_free(h->request.content_type);
	text_free(h->request.accept);
	text_free(h->request.if_match);
	text_free(h->request.idempotency_key);
	text_free(h->request.last_event_id);
	text_free(h->request.peer_address);
	text_free((const char *)h->request.body);
	free(h);
}

static void hold_due(uv_timer_t *timer)
{
	api_hold_retry(timer->data, uv_now(timer->loop));
}

int api_hold(struct api_call *call, const struct api_request *request)
{
	struct api *a = call->api;
	struct api_held *h;

	if (call->held != NULL || a->closing || a->held_count >= HELD_MAX)
		return -EBUSY;
	h = mem_zalloc(sizeof(*h));
	h->call = call;
	h->deadline_ms = uv_now(a->config.loop) + HOLD_MS;
	request_own(h, request);
	list_append(&a->held, &h->link);
	a->held_count++;
	call->held = h;
	if (!uv_is_active((uv_handle_t *)&a->hold_timer))
		uv_timer_start(&a->hold_timer, hold_due, HOLD_MS, HOLD_MS / 4);
	return 0;
}

static bool still_unknown(struct api *a, const struct api_held *h, uint64_t now_ms)
{
	struct api_principal who;
	const char *why;

	return h->deadline_ms > now_ms && api_identify(a, &h->request, &who, &why) == -ENOENT;
}

void api_hold_retry(struct api *a, uint64_t now_ms)
{
	list_for_each_safe (at, &a->held) {
		struct api_held *h = list_entry(at, struct api_held, link);

		if (still_unknown(a, h, now_ms))
			continue;
		list_remove(&h->link);
		a->held_count--;
		api_serve(h->call, &h->request);
	}
	if (a->held_count == 0)
		uv_timer_stop(&a->hold_timer);
}

void api_hold_end(struct api *a)
{
	list_for_each_safe (at, &a->held) {
		struct api_held *h = list_entry(at, struct api_held, link);

		list_remove(&h->link);
		a->held_count--;
		api_problem_error(h->call, -ESHUTDOWN, NULL);
	}
}
