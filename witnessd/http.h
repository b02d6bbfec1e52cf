/* http.h: a strict HTTP/1.1 server on streams.
 *
 * It owns connections, heads, bodies, deadlines and limits, and knows no route. The owner makes
 * listeners (or adopts streams whose ALPN said http/1.1), looks at each request twice (once at its
 * head, to set the limit of the body or refuse, and once when it is whole), and answers it, at
 * once or later, in the loop's thread. Requests of one connection are handled one at a time and
 * answered in order.
 *
 * Doubtful framing is refused and the connection closed (RFC 9112, 11): whoever could smuggle a
 * request past us would run it with somebody else's rights. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "witnessd/stream.h"

enum {
	HTTP_BODY_DEFAULT = 1024 * 1024,
	HTTP_CONNECTIONS_DEFAULT = 256,
	HTTP_PER_ADDRESS_DEFAULT = 64,
	HTTP_HEAD_DEADLINE_MS = 10 * 1000,
	HTTP_BODY_DEADLINE_MS = 60 * 1000,
	HTTP_IDLE_DEADLINE_MS = 75 * 1000,
	HTTP_SEND_DEADLINE_MS = 60 * 1000, /* a client that takes nothing of its answer */
	HTTP_SILENCE_DEFAULT_MS = 60 * 1000,
};

struct http_server;
struct http_connection;

/* A request lives until it is answered (http_respond, http_respond_end), also when the client has
 * gone meanwhile: the answer is dropped then. Texts live as long as the request. */
struct http_request {
	const char *method; /* "GET"; HEAD arrives as "HEAD" and its answer's body is left out */
	const char *path; /* as sent, still percent-encoded, begins with '/' (or is "*") */
	const char *query; /* behind '?', still percent-encoded; "" if none */
	const uint8_t
		*body; /* NULL while the head is looked at; else body_len bytes and a zero byte */
	size_t body_len;
	const char *remote_address; /* "10.0.0.1:34346", "unix" */
	bool tls; /* came over TLS */
	const struct tls_peer *peer; /* never NULL; present false without a verified certificate */
	bool has_uid; /* came over a Unix socket of a process of this user: */
	unsigned uid;
	size_t body_limit; /* the head callback may change it */
	void *arg; /* the owner's */
};

struct http_handler {
	/* The head is there, the body is not. May raise or lower request->body_limit, or answer
	 * already (http_respond; the connection then closes if a body was announced). The request
	 * is not to be kept from here: the client may go before its body is whole, and then nobody
	 * hears of it again (request->arg is lost too). NULL: nothing to say. */
	void (*head)(struct http_request *request, void *arg);
	/* The request is whole; answer it now or later. */
	void (*request)(struct http_request *request, void *arg);
	/* The client of an unfinished streamed answer, or of a request not answered yet, has gone.
	 * The request still has to be ended. NULL: nobody asks. */
	void (*gone)(struct http_request *request, void *arg);
	/* Streamed answers: the queue is empty again after http_respond_chunk returned more than
	 * the owner wants to hold. NULL: nobody asks. */
	void (*drained)(struct http_request *request, void *arg);
	/* A response body for an error that the server itself found (400, 408, 413, 431, ...): text
	 * valid until the next call and its type. NULL: a line of text/plain. */
	const char *(*error_body)(unsigned status, const char *detail, const char **ret_type,
				  void *arg);
	void *arg;
};

struct http_limits { /* 0: the default above */
	unsigned connections; /* over TCP; as many again over Unix sockets */
	unsigned per_address; /* over TCP; the addresses of an IPv6 /64 are one */
	/* A client that waits for something for hours, as with a console, and is gone without a
	 * word (stream_silence_limit). */
	unsigned silence_ms;
};

struct http_server *http_server_new(struct stream_group *g, const struct http_handler *handler,
				    const struct http_limits *limits);
/* Listens like stream_listen; `how` needs address, tls, backlog and mode only. */
int http_server_listen(struct http_server *h, const struct stream_listen *how,
		       struct stream_listener **ret, const char **ret_message);
/* Takes over a stream that is ready (and of which nothing was read). */
void http_server_adopt(struct http_server *h, struct stream *s);
/* Connections open now. */
unsigned http_server_connections(const struct http_server *h);
/* Aborts the connections; requests that are still unanswered must be answered nevertheless.
 * `freed` is called when all is gone. The listeners are the caller's to close before. */
void http_server_free(struct http_server *h, void (*freed)(void *arg), void *arg);
/* Ends what is past its deadline at `now_ms` (of uv_now); the server's own timer calls it, and
 * tests do. */
void http_server_expire(struct http_server *h, uint64_t now_ms);

/* The value of a field, name in any case, NULL if absent. Repeated fields are joined with ", "
 * (RFC 9110, 5.2). */
const char *http_header(const struct http_request *request, const char *name);

/* The whole answer. `headers`: extra lines "Name: value\r\n..." or NULL. `type` NULL: no
 * Content-Type. Ends the request. */
void http_respond(struct http_request *request, unsigned status, const char *type,
		  const char *headers, const void *body, size_t len);
/* In pieces, length not known: start, any number of chunks, end. The request lives until the end.
 * http_respond_chunk sends at once and returns the bytes still queued towards the client
 * (0 if it has gone). */
void http_respond_start(struct http_request *request, unsigned status, const char *type,
			const char *headers);
size_t http_respond_chunk(struct http_request *request, const void *data, size_t len);
void http_respond_end(struct http_request *request);
/* Cuts an answer off in the middle, so that the client sees it is not whole. Ends the request. */
void http_respond_abort(struct http_request *request);
/* True if nobody is there to read the answer any more. */
bool http_request_gone(const struct http_request *request);

/* Percent-decodes a path segment or a query part strictly: valid escapes only, no zero byte,
 * valid UTF-8; in a query `plus` turns '+' into a space. The caller frees.
 * 0; -EINVAL. */
int http_decode(const char *text, size_t len, bool plus, char **ret);
/* The decoded value of a query parameter. 0 and the caller frees; -ENOENT absent; -EINVAL badly
 * encoded or given twice. */
int http_query(const struct http_request *request, const char *name, char **ret);
int http_query_value(const char *query, const char *name, char **ret);
