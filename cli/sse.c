#include "cli/sse.h"

#include <errno.h>
#include <string.h>

void sse_init(struct sse *s, sse_visit visit, void *arg)
{
	memset(s, 0, sizeof(*s));
	s->visit = visit;
	s->arg = arg;
}

void sse_restart(struct sse *s)
{
	buf_clear(&s->line);
	buf_clear(&s->type);
	buf_clear(&s->data);
	s->after_cr = 0;
}

void sse_free(struct sse *s)
{
	buf_free(&s->line);
	buf_free(&s->type);
	buf_free(&s->data);
	buf_free(&s->id);
}

static int event_end(struct sse *s)
{
	struct sse_event event = {.data_len = s->data.len};
	int rv = 0;

	if (s->data.len > 0) {
		s->data.len--; /* the line feed behind the last line of data */
		event.data_len = s->data.len;
		event.id = buf_string(&s->id);
		event.type = s->type.len > 0 ? buf_string(&s->type) : "message";
		event.data = buf_string(&s->data);
		rv = s->visit(s->arg, &event);
	}
	buf_clear(&s->type);
	buf_clear(&s->data);
	return rv;
}

static int line_end(struct sse *s)
{
	const char *line = buf_string(&s->line);
	const char *colon = strchr(line, ':');
	size_t name_len = colon != NULL ? (size_t)(colon - line) : strlen(line);
	const char *value = colon != NULL ? colon + 1 : "";

	if (s->line.len == 0)
		return event_end(s);
	if (*value == ' ')
		value++;
	if (name_len == 4 && memcmp(line, "data", 4) == 0) {
		if (s->data.len + strlen(value) > SSE_EVENT_MAX)
			return -EMSGSIZE;
		buf_puts(&s->data, value);
		buf_putc(&s->data, '\n');
	} else if (name_len == 5 && memcmp(line, "event", 5) == 0) {
		buf_clear(&s->type);
		buf_puts(&s->type, value);
	} else if (name_len == 2 && memcmp(line, "id", 2) == 0) {
		buf_clear(&s->id);
		buf_puts(&s->id, value);
	}
	return 0;
}

int sse_feed(struct sse *s, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		int rv = 0;

		if (data[i] == '\n' && s->after_cr) {
			s->after_cr = 0;
			continue;
		}
		s->after_cr = data[i] == '\r';
		if (data[i] == '\n' || data[i] == '\r') {
			rv = line_end(s);
			buf_clear(&s->line);
		} else if (s->line.len >= SSE_EVENT_MAX) {
			rv = -EMSGSIZE;
		} else {
			buf_putc(&s->line, data[i]);
		}
		if (rv != 0)
			return rv;
	}
	return 0;
}
