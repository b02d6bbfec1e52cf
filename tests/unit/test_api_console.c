/* Consoles of VMs in the API: who may, what a stream is made of, how it ends, where keys go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api_double.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "witnessd/api_call.h"
#include "witnessd/console.h"

#define CONSOLE "/v1/vms/web/console"

/* The row of a VM, as apply would have written it. */
static void vm_put(struct world *w, bool running, uint64_t node)
{
	static char name[] = "web";
	Tb__Vm vm = TB__VM__INIT;
	Tb__VmConfig config = TB__VM_CONFIG__INIT;
	Tb__VmPlacement placement = TB__VM_PLACEMENT__INIT;
	struct core *c = &w->core;

	vm.id = 9;
	vm.name = name;
	vm.config = &config;
	vm.placement = &placement;
	vm.running = running;
	placement.node = node;
	assert_int_equal(store_begin(c->writer), 0);
	assert_int_equal(store_vm_put(c->writer, &vm), 0);
	assert_int_equal(store_commit(c->writer, ++c->index), 0);
}

static int setup(void **state)
{
	struct world *w = mem_zalloc(sizeof(*w));

	log_set_level(LOG_LEVEL_ERROR);
	world_open(w, true);
	vm_put(w, true, 1);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	world_close(*state);
	free(*state);
	return 0;
}

static void expect_problem(struct world *w, int status, const char *text, const struct ask *what)
{
	struct answer a;

	ask(w, what, &a);
	assert_int_equal(a.status, status);
	if (strstr(answer_text(&a, "detail"), text) == NULL)
		fail_msg("\"%s\" is not in \"%s\"", text, answer_text(&a, "detail"));
	answer_clear(&a);
}

static struct host_console *console_of(struct world *w)
{
	assert_non_null(w->core.console);
	return w->core.console;
}

static void say(struct host_console *c, const char *text)
{
	c->bytes(c->arg, text, strlen(text), NULL);
}

static void test_stream(void **state)
{
	struct world *w = *state;
	struct host_console *c;
	struct answer a;

	ask_begin(w, &(struct ask){"GET", CONSOLE}, &a);
	c = console_of(w);
	assert_int_equal(c->vm, 9);
	assert_int_equal(c->replay, CONSOLE_KEEP);
	assert_true(c->follow);
	assert_false(a.streaming); /* not before it is known that there is one */
	c->bytes(c->arg, NULL, 0, NULL);
	assert_true(a.streaming);
	assert_string_equal(a.type, "application/octet-stream");
	assert_int_equal(c->nexts, 1);
	say(c, "login: ");
	say(c, "\x1b[2J");
	assert_int_equal(c->nexts, 3);
	assert_string_equal(buf_string(&a.body), "login: \x1b[2J");
	c->bytes(c->arg, NULL, 0, "the VM has left this board");
	assert_true(a.ended);
	assert_string_equal(buf_string(&a.body),
			    "login: \x1b[2J\r\n[the VM has left this board]\r\n");
	assert_null(w->core.console);
	answer_clear(&a);
}

static void test_once(void **state)
{
	struct world *w = *state;
	struct host_console *c;
	struct answer a;

	ask_begin(w, &(struct ask){"GET", CONSOLE "?follow=0&replay=10"}, &a);
	c = console_of(w);
	assert_int_equal(c->replay, 10);
	assert_false(c->follow);
	c->bytes(c->arg, NULL, 0, NULL);
	say(c, "0123456789");
	c->bytes(c->arg, NULL, 0, "");
	assert_true(a.ended);
	assert_string_equal(buf_string(&a.body), "0123456789");
	answer_clear(&a);
}

/* A client that does not read is given no more, and goes on where it was. */
static void test_slow_client(void **state)
{
	struct world *w = *state;
	struct host_console *c;
	struct answer a;

	ask_begin(w, &(struct ask){"GET", CONSOLE}, &a);
	c = console_of(w);
	c->bytes(c->arg, NULL, 0, NULL);
	a.queued = 1 << 20;
	say(c, "much");
	assert_int_equal(c->nexts, 1);
	a.queued = 0;
	api_drained(a.call);
	assert_int_equal(c->nexts, 2);
	api_drained(a.call); /* nobody waits: nothing more is asked for */
	assert_int_equal(c->nexts, 2);
	api_gone(a.call);
	assert_true(a.ended);
	assert_null(w->core.console);
	answer_clear(&a);
}

static void test_refusals(void **state)
{
	struct world *w = *state;
	struct host_console *c;
	struct answer a;

	expect_problem(w, 404, "there is no VM \"nope\"",
		       &(struct ask){"GET", "/v1/vms/nope/console"});
	expect_problem(w, 400, "", &(struct ask){"GET", CONSOLE "?replay=99999999"});
	ask_begin(w, &(struct ask){"GET", CONSOLE}, &a);
	c = console_of(w);
	c->bytes(c->arg, NULL, 0, "too many look at this console");
	assert_int_equal(a.status, 503);
	assert_non_null(strstr(answer_text(&a, "detail"), "too many look at this console"));
	assert_null(w->core.console);
	answer_clear(&a);
	vm_put(w, true, 0);
	expect_problem(w, 409, "not placed on any board", &(struct ask){"GET", CONSOLE});
	vm_put(w, false, 0);
	expect_problem(w, 409, "is stopped: it has no console", &(struct ask){"GET", CONSOLE});
	expect_problem(w, 409, "is stopped", &(struct ask){"POST", CONSOLE, "x"});
	vm_put(w, true, 1);
	api_host_set(w->api, NULL);
	expect_problem(w, 503, "still starting", &(struct ask){"GET", CONSOLE});
}

static void test_who(void **state)
{
	struct world *w = *state;
	char *viewer = token_make(w, "viewer", "");

	expect_problem(w, 403, "", &(struct ask){"GET", CONSOLE, .token = viewer});
	expect_problem(w, 403, "", &(struct ask){"POST", CONSOLE, "x", .token = viewer});
	expect_problem(w, 401, "", &(struct ask){"GET", CONSOLE, .remote = true});
	free(viewer);
}

/* Who is shut out loses what he looks at, also when nothing is printed. */
static void test_revoked(void **state)
{
	struct world *w = *state;
	char *token = token_make(w, "operator", "");
	char *path = mem_printf("/v1/tokens/%.16s", token + strlen("tb1."));
	struct host_console *c;
	struct answer a, revoked;

	ask_begin(w, &(struct ask){"GET", CONSOLE, .token = token}, &a);
	world_run(w);
	c = console_of(w);
	c->bytes(c->arg, NULL, 0, NULL);
	api_consoles_check(w->api);
	assert_false(a.ended);
	*strchrnul(path + strlen("/v1/tokens/"), '.') = '\0';
	ask(w, &(struct ask){"DELETE", path}, &revoked);
	assert_int_equal(revoked.status, 200);
	answer_clear(&revoked);
	api_consoles_check(w->api);
	assert_true(a.ended);
	assert_null(w->core.console);
	answer_clear(&a);
	free(path);
	free(token);
}

/* Through what is open; else one is opened for it, and closed behind it. */
static void test_keys(void **state)
{
	struct world *w = *state;
	struct host_console *c;
	struct answer a, keys;
	char *many = mem_alloc(API_CONSOLE_KEYS_MAX + 2);

	ask_begin(w, &(struct ask){"POST", CONSOLE, "ls\r"}, &a);
	assert_int_equal(a.status, 0);
	c = console_of(w);
	assert_int_equal(c->replay, 0);
	c->bytes(c->arg, NULL, 0, NULL);
	assert_int_equal(a.status, 200);
	assert_null(w->core.console);
	assert_string_equal(buf_string(&w->core.closed_keys), "ls\r");
	answer_clear(&a);
	ask_begin(w, &(struct ask){"GET", CONSOLE}, &a);
	c = console_of(w);
	c->bytes(c->arg, NULL, 0, NULL);
	ask(w, &(struct ask){"POST", CONSOLE, "pwd\r"}, &keys);
	assert_int_equal(keys.status, 200);
	answer_clear(&keys);
	assert_ptr_equal(console_of(w), c);
	assert_string_equal(buf_string(&c->keys), "pwd\r");
	memset(many, 'x', API_CONSOLE_KEYS_MAX + 1);
	many[API_CONSOLE_KEYS_MAX + 1] = '\0';
	expect_problem(w, 413, "at most 16384 bytes", &(struct ask){"POST", CONSOLE, many});
	api_gone(a.call);
	answer_clear(&a);
	free(many);
}

/* The client goes before there is an answer: nothing is left open. */
static void test_gone_early(void **state)
{
	struct world *w = *state;
	struct host_console *c;
	struct answer a;

	ask_begin(w, &(struct ask){"GET", CONSOLE}, &a);
	c = console_of(w);
	api_gone(a.call);
	c->bytes(c->arg, NULL, 0, NULL);
	assert_null(w->core.console);
	answer_clear(&a);
}

static struct answer left[3];

static int teardown_open(void **state)
{
	struct world *w = *state;

	world_close(w);
	assert_true(left[0].ended);
	assert_int_equal(left[1].status, 503);
	assert_int_equal(left[2].status, 503);
	assert_null(w->core.console);
	for (unsigned i = 0; i < 3; i++)
		answer_clear(&left[i]);
	free(w);
	return 0;
}

/* The board stops while consoles are open, opening, and typed at. */
static void test_stopping(void **state)
{
	struct world *w = *state;
	struct host_console *c;

	ask_begin(w, &(struct ask){"POST", CONSOLE, "x"}, &left[2]);
	ask_begin(w, &(struct ask){"GET", CONSOLE}, &left[1]);
	ask_begin(w, &(struct ask){"GET", CONSOLE}, &left[0]);
	c = console_of(w);
	c->bytes(c->arg, NULL, 0, NULL);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_stream),
		CASE(test_once),
		CASE(test_slow_client),
		CASE(test_refusals),
		CASE(test_who),
		CASE(test_revoked),
		CASE(test_keys),
		CASE(test_gone_early),
		cmocka_unit_test_setup_teardown(test_stopping, setup, teardown_open),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
