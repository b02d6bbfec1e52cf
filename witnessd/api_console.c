/* api_console.c: consoles of VMs: a GET is a stream of what the guest prints, a POST is keys. Bytes
 * are the guest's own, in both directions.
 *
 *   GET  --> OPENING --open--> STREAMING --over, client gone, credentials gone--> closed
 *   POST --> through a console of that VM that is open here; else one is opened for it */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "witnessd/api_call.h"
#include "witnessd/console.h"

enum { CONSOLES_MAX = 64, STREAM_QUEUE = 256 << 10 };

struct api_console {
	struct list link; /* api.consoles */
	struct api_call *call;
	struct host_console *host;
	uint64_t vm;
	bool keys; /* of a POST: over as soon as its body was sent */
	bool open; /* the head of the answer is sent */
	bool gone; /* the client went before that */
	bool full; /* waits for `drained` */
};

static const struct api_backend *backend_of(const struct api_console *c)
{
	return c->call->api->config.backend;
}

/* The call goes on without it. */
static struct api_call *console_drop(struct api_console *c)
{
	struct api_call *call = c->call;

	backend_of(c)->console_close(c->host);
	list_remove(&c->link);
	call->console = NULL;
	free(c);
	return call;
}

static void stream_end(struct api_console *c)
{
	struct api_call *call = console_drop(c);
	void *conn = call->conn;

	call->conn = NULL;
	if (call->slot != NULL)
		*call->slot = NULL;
	call->slot = NULL;
	call->api->config.sink->stream_end(conn);
	api_call_end(call, 200);
}

static void not_open(struct api_console *c, const char *why)
{
	struct api_call *call = console_drop(c);

	api_problem(call, 503, "look at the VM (witnessctl vm show), and try again",
		    "the console of %s cannot be had: %s", call->arg, why);
}

static void over(struct api_console *c, const char *why)
{
	char *text;

	if (!c->open) {
		not_open(c, why);
		return;
	}
	if (*why != '\0') {
		text = mem_printf("\r\n[%s]\r\n", why);
		c->call->api->config.sink->stream_write(c->call->conn, text, strlen(text));
		free(text);
	}
	stream_end(c);
}

static void keys_sent(struct api_console *c)
{
	struct api_call *call = c->call;
	Tb__Empty empty = TB__EMPTY__INIT;

	backend_of(c)->console_write(c->host, call->body.data, call->body.len);
	console_drop(c);
	api_answer_message(call, &empty.base);
}

static void on_bytes(void *arg, const void *bytes, size_t len, const char *why)
{
	struct api_console *c = arg;
	const struct api_sink *sink = c->call->api->config.sink;

	if (len == 0 && why != NULL) {
		over(c, why);
	} else if (c->keys) {
		keys_sent(c);
	} else if (len == 0) {
		c->open = true;
		api_answer_stream(c->call, c->call->route->content_type);
		if (c->gone)
			stream_end(c);
		else
			backend_of(c)->console_next(c->host);
	} else if (sink->stream_write(c->call->conn, bytes, len) > STREAM_QUEUE) {
		c->full = true;
	} else {
		backend_of(c)->console_next(c->host);
	}
}

/* 0 and the VM's id; else the call is over. */
static int vm_of_call(struct api_call *call, uint64_t *ret)
{
	struct store *s = api_store(call->api);
	bool placed;
	Tb__Vm *vm;
	int rv = store_vm_find(s, call->arg, &vm);

	if (rv == -ENOENT) {
		api_problem(call, 404, "GET /v1/vms lists them", "there is no VM \"%s\"",
			    call->arg);
		return rv;
	}
	if (rv != 0) {
		api_store_failed(call);
		return rv;
	}
	*ret = vm->id;
	placed = vm->placement != NULL && vm->placement->node != 0;
	if (!placed)
		api_problem(call, 409,
			    vm->running ? "see why: witnessctl vm show"
					: "start it first: witnessctl vm start",
			    "VM \"%s\" is %s: it has no console", call->arg,
			    vm->running ? "not placed on any board" : "stopped");
	tb__vm__free_unpacked(vm, NULL);
	return placed ? 0 : -ENOTCONN;
}

static struct api_console *console_find(struct api *a, uint64_t vm)
{
	list_for_each (at, &a->consoles) {
		struct api_console *c = list_entry(at, struct api_console, link);

		if (c->vm == vm && c->open)
			return c;
	}
	return NULL;
}

static size_t console_count(const struct api *a)
{
	size_t count = 0;

	list_for_each (at, &a->consoles)
		count++;
	return count;
}

static void console_begin(struct api_call *call, uint64_t vm, uint32_t replay, bool follow,
			  bool keys)
{
	struct api *a = call->api;
	struct host *host = atomic_load(&a->host);
	struct api_console *c;

	if (host == NULL || console_count(a) >= CONSOLES_MAX) {
		api_problem(call, 503, "ask another board, or end another console",
			    host == NULL ? "this board is still starting"
					 : "this board serves no more consoles at once");
		return;
	}
	c = mem_zalloc(sizeof(*c));
	c->call = call;
	c->vm = vm;
	c->keys = keys;
	list_append(&a->consoles, &c->link);
	call->console = c;
	c->host = a->config.backend->console_open(host, a->config.home, vm, replay, follow,
						  on_bytes, c);
}

void api_console_get(struct api_call *call)
{
	const struct api_value *replay = api_param(call, "replay");
	const struct api_value *follow = api_param(call, "follow");
	uint64_t vm;

	if (vm_of_call(call, &vm) == 0)
		console_begin(call, vm, replay->set ? (uint32_t)replay->number : CONSOLE_KEEP,
			      !follow->set || follow->number == 1, false);
}

void api_console_post(struct api_call *call)
{
	Tb__Empty empty = TB__EMPTY__INIT;
	struct api_console *c;
	uint64_t vm;

	if (call->body.len > API_CONSOLE_KEYS_MAX) {
		api_problem(call, 413, "send them in parts", "at most %d bytes of keys at once",
			    API_CONSOLE_KEYS_MAX);
		return;
	}
	if (vm_of_call(call, &vm) != 0)
		return;
	c = console_find(call->api, vm);
	if (c == NULL) {
		console_begin(call, vm, 0, true, true);
		return;
	}
	backend_of(c)->console_write(c->host, call->body.data, call->body.len);
	api_answer_message(call, &empty.base);
}

void api_console_drained(struct api_call *call)
{
	struct api_console *c = call->console;

	if (!c->full)
		return;
	c->full = false;
	backend_of(c)->console_next(c->host);
}

void api_console_gone(struct api_call *call)
{
	if (call->console->open)
		stream_end(call->console);
	else
		call->console->gone = true;
}

void api_consoles_check(struct api *a)
{
	list_for_each_safe (at, &a->consoles) {
		struct api_console *c = list_entry(at, struct api_console, link);

		if (c->open && !api_principal_holds(a, &c->call->who))
			stream_end(c);
	}
}

/* What is not open yet is answered with the other calls. */
void api_consoles_end(struct api *a)
{
	list_for_each_safe (at, &a->consoles) {
		struct api_console *c = list_entry(at, struct api_console, link);

		if (c->open)
			stream_end(c);
		else
			console_drop(c);
	}
}
