/* api.h: one call of the API from a command: send, tell a refusal on stderr, decode. */
#pragma once
#include <protobuf-c/protobuf-c.h>

#include "cli/client.h"
#include "cli/command.h"
#include "lib/buf.h"
#include "proto/api.pb-c.h"

enum { API_RETRY_MS = 10000 }; /* writes, while the cluster changes its leader */

/* Made from the options at first use and kept in `inv`. NULL: told on stderr, exit with
 * EXIT_USAGE. */
struct client *api_client(struct invocation *inv);
/* One more, owned by the caller; a client serves one thread. */
struct client *api_client_new(const struct invocation *inv);

struct api_request {
	const char *method; /* NULL: "GET" */
	const char *path;
	const ProtobufCMessage *message; /* body, NULL: none */
	const char *text; /* body as JSON text, instead of a message */
	const char *content_type; /* NULL: application/json */
	const char *if_match;
	const char *idempotency_key; /* NULL: a random one for POST */
	uint64_t timeout_ms; /* 0: 30 s */
	uint64_t retry_ms; /* 0: none */
};

/* Sends it. EXIT_OK: a 2xx answer, its body in *ret (the caller frees it). Else the exit code, told
 * on stderr. */
int api_send(struct invocation *inv, const struct api_request *request, struct buf *ret);
/* As api_send, and reads the answer as `type` into *ret, a pointer to a message pointer (the caller
 * frees it with protobuf_c_message_free_unpacked). */
int api_call(struct invocation *inv, const struct api_request *request,
	     const ProtobufCMessageDescriptor *type, void *ret);

/* GET: with -o json prints the answer as it came, else reads it as `type` and has it printed; the
 * message is freed behind that. The exit code of whatever fails first. */
typedef int (*api_print)(struct invocation *inv, const void *message);
int api_show(struct invocation *inv, const char *path, const ProtobufCMessageDescriptor *type,
	     api_print print);

/* All pages of a list, the JSON of each item to `visit`: 0 goes on, an exit code ends it and is
 * returned. `path` has no page or limit. */
typedef int (*api_visit)(void *arg, const char *json, size_t len);
int api_list(struct invocation *inv, const char *path, api_visit visit, void *arg);
/* The same as one JSON text on stdout: {"items":[..]}. */
int api_list_json(struct invocation *inv, const char *path);

/* Reads JSON of the server; EXIT_REFUSED and told if it cannot be read. */
int api_decode(const ProtobufCMessageDescriptor *type, const char *json, size_t len, void *ret);
/* Tells a refusal on stderr and gives the exit code for it. `what` is put before it, or NULL. */
int api_refusal(const struct client_response *response, const char *what);
/* The exit code for a client_send that gave `rv` != 0, told on stderr. */
int api_failure(const struct client *client, int rv);

enum output { OUTPUT_TABLE, OUTPUT_WIDE, OUTPUT_JSON, OUTPUT_NAME };
enum output api_output(const struct invocation *inv);
/* Prints JSON that came from the server, with a line end. */
void api_print_json(const struct buf *body);

/* "/v1/sites/" + name percent-encoded + suffix; the caller frees it. */
char *api_path(const char *collection, const char *name, const char *suffix);
/* 32 random hex digits. */
void api_random_key(char key[33]);
/* Asks a yes/no question on the terminal; --yes answers it. EXIT_OK: go on. */
int api_confirm(const struct invocation *inv, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
