/* http_head.h: the head of an HTTP/1.1 request (RFC 9112), strictly. Pure.
 *
 * Refused where the RFC lets a server be generous: bare CR or LF, folded lines, space before the
 * colon, empty lines before the request, absolute and authority targets, any transfer coding but
 * "chunked", repeated Host and Content-Length. Nobody we talk to sends those, and each of them is
 * read differently by some proxy. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	HTTP_HEAD_MAX = 16 * 1024, /* bytes, with the empty line */
	HTTP_TARGET_MAX = 2 * 1024,
	HTTP_FIELD_MAX = 64,
	HTTP_METHOD_MAX = 16,
};

struct http_field {
	const char *name; /* as sent */
	const char *value; /* without the spaces around it */
};

/* Texts point into `text`. */
struct http_head {
	char *text; /* owned */
	const char *method;
	const char *path; /* begins with '/', or is "*" */
	const char *query; /* "" if none */
	struct http_field fields[HTTP_FIELD_MAX];
	unsigned field_count;
	uint64_t content_length; /* 0 if `chunked` or not given */
	bool chunked;
	bool http_1_0;
	bool keep_alive;
	bool expect_continue;
};

/* Where the head at the front of `data` ends: its length; 0: not there yet; else a negative HTTP
 * status: the connection is beyond rescue. *scanned is 0 at first and remembers what was looked at,
 * so that a head which comes in drops is not searched again and again. The answer depends on the
 * bytes only, not on how they were cut. */
int http_head_find(const uint8_t *data, size_t len, size_t *scanned);

/* A whole head, its length from http_head_find. 0 and *ret set (free it with http_head_free); else
 * a negative HTTP status and *ret_why (static) says in plain words what is wrong. */
int http_head_parse(const uint8_t *data, size_t len, struct http_head *ret, const char **ret_why);
void http_head_free(struct http_head *h);
