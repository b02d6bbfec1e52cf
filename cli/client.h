/* client.h: requests to a board over HTTPS, or over its Unix socket. The only file of this room
 * that says curl. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

#define CLIENT_SOCKET "/run/tiebreak/witnessd.sock"
enum { CLIENT_PORT = 7443, CLIENT_SERVERS_MAX = 16 };

struct client;

struct client_options {
	const char *socket; /* NULL if servers are given */
	const char *const *servers; /* each "https://host:port", or a comma list of these */
	size_t server_count;
	const char *token; /* NULL: none; carries the CA's fingerprint */
	const char *ca; /* files, NULL: none */
	const char *cert;
	const char *key;
	uint64_t connect_timeout_ms;
};

/* 0, or -EINVAL and *message (free) that says what is wrong with the options. */
int client_new(const struct client_options *options, struct client **ret, char **message);
void client_free(struct client *c);

struct client_request {
	const char *method; /* "GET" */
	const char *path; /* "/v1/sites?limit=10", already encoded */
	const char *content_type; /* NULL: application/json */
	const void *body; /* NULL: none */
	size_t body_len;
	const char *if_match; /* NULL: none */
	const char *idempotency_key; /* NULL: none; needed for a POST that may be sent twice */
	const char *last_event_id; /* NULL: none */
	uint64_t timeout_ms; /* of one attempt; 0: 30 s */
	bool quiet; /* of a stream: silence is no sign that it is lost */
	/* How long to try again after 503, or after no answer of servers that have answered this
	 * client before; 0: each server once. */
	uint64_t retry_ms;
};

struct client_response {
	long status;
	struct buf body;
	char etag[80];
	char content_type[80];
};
void client_response_clear(struct client_response *r);

/* Tries the servers in turn, beginning with the one that answered last. 0: a server answered,
 * whatever it said. -EHOSTUNREACH: none did. -EMSGSIZE: the answer is too large. Then
 * client_error says more. */
int client_send(struct client *c, const struct client_request *request,
		struct client_response *ret);
/* An answer without end: `take` gets each piece of a 200 answer; nonzero from it ends it. 0 if the
 * stream ended or the answer was not 200 (then ret->body holds it); else as client_send. */
typedef int (*client_take)(void *arg, const char *data, size_t len);
int client_stream(struct client *c, const struct client_request *request, client_take take,
		  void *arg, struct client_response *ret);
/* A sentence about the last failure, with the remedy. */
const char *client_error(const struct client *c);
/* The server that answered last, or the first one. */
const char *client_server(const struct client *c);
/* Leaves the current server for the next one. */
void client_next_server(struct client *c);

/* Appends `text` percent-encoded (RFC 3986). */
void url_encode(struct buf *out, const char *text);
