/* sse.h: server-sent events (WHATWG HTML, 9.2.6), read piece by piece. */
#pragma once
#include <stddef.h>

#include "lib/buf.h"

enum { SSE_EVENT_MAX = 1 << 20 }; /* bytes of one event */

struct sse_event {
	const char *id; /* "" if none was sent yet */
	const char *type; /* "message" if none is named */
	const char *data;
	size_t data_len;
};
/* Returns 0 to go on; anything else stops. */
typedef int (*sse_visit)(void *arg, const struct sse_event *event);

struct sse {
	sse_visit visit;
	void *arg;
	struct buf line;
	struct buf type;
	struct buf data;
	struct buf id; /* kept from event to event, for Last-Event-ID */
	int after_cr;
};

void sse_init(struct sse *s, sse_visit visit, void *arg);
/* 0; -EMSGSIZE: an event is too large; or what `visit` returned. */
int sse_feed(struct sse *s, const char *data, size_t len);
/* Forgets a half-read event (a connection was lost), keeps the id. */
void sse_restart(struct sse *s);
void sse_free(struct sse *s);
