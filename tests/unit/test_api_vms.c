/* The API of images and virtual machines: what it takes, what it refuses and when, what it says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api_double.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "witnessd/api_call.h"

#define KERNEL "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define DISK "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
#define WEB "{\"name\":\"web\",\"config\":{\"kernel\":\"linux\",\"memoryMib\":64}}"

/* Board 1 of the lab can run VMs, up to 1 GiB. */
static void board_hosts(struct world *w)
{
	Tb__Command *command = mem_alloc(sizeof(*command));
	Tb__NodeHost *host = mem_alloc(sizeof(*host));

	tb__command__init(command);
	tb__node_host__init(host);
	host->hosts = true;
	host->vcpus = 4;
	host->memory_mib = 1024;
	host->n_bridges = 1;
	host->bridges = mem_array(1, sizeof(host->bridges[0]));
	host->bridges[0] = mem_strdup("br0");
	command->op_case = TB__COMMAND__OP_NODE_HOST_SET;
	command->node_host_set = mem_alloc(sizeof(*command->node_host_set));
	tb__node_host_set__init(command->node_host_set);
	command->node_host_set->id = 1;
	command->node_host_set->host = host;
	core_apply(&w->core, command);
}

/* A problem with this text in its detail, at this field (NULL: none). */
static void expect_problem(struct world *w, int status, const char *text, const char *field,
			   const struct ask *what)
{
	struct answer a;

	expect(w, status, what, &a);
	if (strstr(answer_text(&a, "detail"), text) == NULL)
		print_error("%s\n", answer_text(&a, "detail"));
	assert_non_null(strstr(answer_text(&a, "detail"), text));
	if (field != NULL)
		assert_string_equal(answer_text(&a, "errors.0.field"), field);
	answer_clear(&a);
}

static void image_make(struct world *w, const char *sha256, const char *query)
{
	char *path = mem_printf("/v1/images/%s?size=3&%s", sha256, query);
	struct answer a;

	w->core.upload_have = 0;
	expect(w, 200, &(struct ask){"PUT", path, "abc"}, &a);
	assert_string_equal(answer_text(&a, "done"), "true");
	answer_clear(&a);
	free(path);
}

static int setup(void **state)
{
	struct world *w = mem_zalloc(sizeof(*w));

	log_set_level(LOG_LEVEL_ERROR);
	world_open(w, true);
	board_hosts(w);
	*state = w;
	return 0;
}

static int setup_vm(void **state)
{
	setup(state);
	image_make(*state, KERNEL, "name=linux&kind=kernel");
	expect_status(*state, 201, &(struct ask){"POST", "/v1/vms", WEB});
	return 0;
}

static int teardown(void **state)
{
	world_close(*state);
	free(*state);
	return 0;
}

/* --- images --- */

static void test_upload(void **state)
{
	static const char path[] = "/v1/images/" DISK "?name=debian&size=6&offset=";
	struct world *w = *state;
	char *second = mem_printf("%s3", path);
	struct answer a;

	expect(w, 200, &(struct ask){"PUT", "/v1/images/" DISK "?name=debian&size=6", "abc"}, &a);
	assert_string_equal(answer_text(&a, "have"), "3");
	assert_string_equal(answer_text(&a, "done"), "");
	answer_clear(&a);
	expect_status(w, 404, &(struct ask){"GET", "/v1/images/debian"});
	expect(w, 200, &(struct ask){"GET", "/v1/images/" DISK ":upload?size=6"}, &a);
	assert_string_equal(answer_text(&a, "have"), "3");
	answer_clear(&a);
	expect_problem(w, 409, "no", NULL,
		       &(struct ask){"PUT", "/v1/images/" DISK "?name=debian&size=6", "abc"});
	expect(w, 200, &(struct ask){"PUT", second, "def"}, &a);
	assert_string_equal(answer_text(&a, "done"), "true");
	assert_string_equal(answer_text(&a, "image.name"), "debian");
	assert_string_equal(answer_text(&a, "image.createdBy"), "root@one");
	answer_clear(&a);
	expect(w, 200, &(struct ask){"GET", "/v1/images/debian"}, &a);
	assert_string_equal(answer_text(&a, "sha256"), DISK);
	assert_string_equal(answer_text(&a, "status.copies.0.state"), "held");
	assert_true(a.etag != NULL);
	answer_clear(&a);
	expect_status(w, 200, &(struct ask){"GET", "/v1/images/" DISK});
	expect(w, 200, &(struct ask){"GET", "/v1/images/" DISK ":upload?size=6"}, &a);
	assert_string_equal(answer_text(&a, "done"), "true");
	answer_clear(&a);
	free(second);
}

/* What the model will say is said before a byte is taken. */
static void test_upload_refused_early(void **state)
{
	struct world *w = *state;

	image_make(w, KERNEL, "name=linux&kind=kernel");
	w->core.uploads = 0;
	expect_problem(w, 409, "the name linux is that of the image", "name",
		       &(struct ask){"PUT", "/v1/images/" DISK "?name=linux&size=3", "abc"});
	expect_problem(w, 409, "these bytes are the image linux already", "sha256",
		       &(struct ask){"PUT", "/v1/images/" KERNEL "?name=other&size=3", "abc"});
	expect_problem(w, 422, "use 1 to 64", "name",
		       &(struct ask){"PUT", "/v1/images/" DISK "?name=a%20b&size=3", "abc"});
	expect_problem(w, 422, "", "sha256",
		       &(struct ask){"PUT", "/v1/images/ABC?name=x&size=3", "abc"});
	expect_problem(w, 422, "size of the whole", "size",
		       &(struct ask){"PUT", "/v1/images/" DISK "?name=x", "abc"});
	expect_problem(w, 400, "did you mean", "siz",
		       &(struct ask){"PUT", "/v1/images/" DISK "?name=x&siz=3", "abc"});
	assert_int_equal(w->core.uploads, 0);
	/* The same once more is no mistake. */
	image_make(w, KERNEL, "name=linux&kind=kernel");
}

static void test_upload_failures(void **state)
{
	static const struct {
		int error;
		int status;
	} cases[] = {{-ERANGE, 409}, {-EAGAIN, 409}, {-EBUSY, 409}, {-EBADMSG, 422},
		     {-EINVAL, 422}, {-ENOSPC, 507}, {-EIO, 500},   {-ESHUTDOWN, 503}};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		w->core.upload_error = cases[i].error;
		expect_status(w, cases[i].status,
			      &(struct ask){"PUT", "/v1/images/" DISK "?name=x&size=3", "abc"});
		expect_status(w, cases[i].status,
			      &(struct ask){"GET", "/v1/images/" DISK ":upload?size=3"});
	}
	/* The field at fault tells witnessctl that asking again does not help. */
	w->core.upload_error = -EEXIST;
	expect_problem(w, 409, "no", "size",
		       &(struct ask){"GET", "/v1/images/" DISK ":upload?size=3"});
	w->core.upload_error = 0;
	expect_status(w, 404, &(struct ask){"GET", "/v1/images/x"});
	api_host_set(w->api, NULL);
	expect_status(w, 503, &(struct ask){"PUT", "/v1/images/" DISK "?name=x&size=3", "abc"});
}

static void test_images_used(void **state)
{
	struct world *w = *state;
	struct answer a;

	expect(w, 200, &(struct ask){"GET", "/v1/images"}, &a);
	assert_string_equal(answer_text(&a, "items.0.name"), "linux");
	assert_string_equal(answer_text(&a, "items.0.status.usedBy.0"), "web");
	answer_clear(&a);
	expect_problem(w, 409, "web", NULL, &(struct ask){"DELETE", "/v1/images/linux"});
	expect_status(w, 200, &(struct ask){"DELETE", "/v1/vms/web"});
	expect_status(w, 200, &(struct ask){"DELETE", "/v1/images/linux"});
	expect_status(w, 404, &(struct ask){"DELETE", "/v1/images/linux"});
}

static void test_who(void **state)
{
	struct world *w = *state;
	char *viewer = token_make(w, "viewer", "");
	char *writer = token_make(w, "operator", "");
	struct ask put = {"PUT", "/v1/images/" DISK "?name=x&size=3", "abc"};

	put.token = viewer;
	expect_status(w, 403, &put);
	expect_status(w, 403, &(struct ask){"POST", "/v1/vms", WEB, .token = viewer});
	expect_status(w, 403, &(struct ask){"POST", "/v1/vms/web:start", .token = viewer});
	expect_status(w, 200, &(struct ask){"GET", "/v1/vms/web", .token = viewer});
	expect_status(w, 200, &(struct ask){"GET", "/v1/images", .token = viewer});
	w->core.upload_have = 0;
	put.token = writer;
	expect_status(w, 200, &put);
	expect_status(w, 200, &(struct ask){"POST", "/v1/vms/web:start", .token = writer});
	free(viewer);
	free(writer);
}

/* --- VMs --- */

static void test_create(void **state)
{
	struct world *w = *state;
	struct answer a;

	image_make(w, KERNEL, "name=linux&kind=kernel");
	expect(w, 201, &(struct ask){"POST", "/v1/vms", WEB}, &a);
	assert_string_equal(a.location, "/v1/vms/web");
	assert_true(a.etag != NULL);
	assert_string_equal(answer_text(&a, "config.kernel"), KERNEL);
	assert_string_equal(answer_text(&a, "config.vcpus"), "1");
	assert_string_equal(answer_text(&a, "running"), "");
	assert_string_equal(answer_text(&a, "status.reason"),
			    "not placed: 1 board, 1 lacks memory");
	answer_clear(&a);
	expect(w, 200, &(struct ask){"GET", "/v1/vms"}, &a);
	assert_string_equal(answer_text(&a, "items.0.name"), "web");
	answer_clear(&a);
	expect_status(w, 409, &(struct ask){"POST", "/v1/vms", WEB});
	expect_status(w, 404, &(struct ask){"GET", "/v1/vms/other"});
}

static void test_create_refused(void **state)
{
	static const struct {
		int status;
		const char *body;
		const char *text;
		const char *field;
	} cases[] = {
		{422, "{\"name\":\"x\",\"config\":{\"kernel\":\"linux\",\"memoryMB\":64}}", "",
		 "config.memoryMB"},
		{422, "{\"name\":\"X\",\"config\":{\"kernel\":\"linux\"}}", "a-z", "name"},
		{422, "{\"name\":\"x\",\"config\":{\"kernel\":\"linus\"}}", "linus",
		 "config.kernel"},
		{422, "{\"name\":\"x\",\"config\":{\"kernel\":\"linux\",\"memoryMib\":65000}}",
		 "1024", "config.memoryMib"},
		{422,
		 "{\"name\":\"x\",\"config\":{\"kernel\":\"linux\",\"nics\":[{\"bridge\":"
		 "\"br7\"}]}}",
		 "br7", "config.nics[0].bridge"},
		{409, WEB, "web", "name"},
	};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		expect_problem(w, cases[i].status, cases[i].text, cases[i].field,
			       &(struct ask){"POST", "/v1/vms", cases[i].body});
		/* A dry run says the very same. */
		expect_problem(w, cases[i].status, cases[i].text, cases[i].field,
			       &(struct ask){"POST", "/v1/vms?dry-run=1", cases[i].body});
	}
}

static void test_dry_run(void **state)
{
	struct world *w = *state;
	uint64_t before = w->core.index;
	struct answer a;

	expect(w, 201,
	       &(struct ask){"POST", "/v1/vms?dry-run=1",
			     "{\"name\":\"db\",\"config\":{\"kernel\":\"linux\"}}"},
	       &a);
	assert_string_equal(answer_text(&a, "name"), "db");
	assert_string_equal(answer_text(&a, "config.kernel"), KERNEL);
	assert_string_equal(answer_text(&a, "id"), "2");
	answer_clear(&a);
	expect(w, 200, &(struct ask){"POST", "/v1/vms/web:start?dry-run=1"}, &a);
	assert_string_equal(answer_text(&a, "running"), "true");
	answer_clear(&a);
	expect(w, 200,
	       &(struct ask){"PATCH", "/v1/vms/web?dry-run=1", "{\"config\":{\"vcpus\":2}}"}, &a);
	assert_string_equal(answer_text(&a, "config.vcpus"), "2");
	answer_clear(&a);
	assert_int_equal(w->core.index, before);
	expect_status(w, 404, &(struct ask){"GET", "/v1/vms/db"});
}

static void test_change(void **state)
{
	struct world *w = *state;
	struct answer a;
	char *old;

	expect(w, 200, &(struct ask){"GET", "/v1/vms/web"}, &a);
	old = mem_strdup(a.etag);
	/* What was read can be sent back as it is. */
	expect_status(w, 200,
		      &(struct ask){"PUT", "/v1/vms/web", buf_string(&a.body), .if_match = old});
	answer_clear(&a);
	expect(w, 200, &(struct ask){"PATCH", "/v1/vms/web", "{\"config\":{\"memoryMib\":128}}"},
	       &a);
	assert_string_equal(answer_text(&a, "config.memoryMib"), "128");
	assert_string_equal(answer_text(&a, "config.kernel"), KERNEL);
	answer_clear(&a);
	expect_status(w, 412, &(struct ask){"PUT", "/v1/vms/web", WEB, .if_match = old});
	expect_status(w, 412, &(struct ask){"PATCH", "/v1/vms/web", "{}", .if_match = old});
	expect_status(w, 412, &(struct ask){"DELETE", "/v1/vms/web", .if_match = old});
	expect_problem(w, 422, "renamed", "name",
		       &(struct ask){"PUT", "/v1/vms/web", "{\"name\":\"other\"}"});
	expect_problem(w, 422, "", "config.disc",
		       &(struct ask){"PATCH", "/v1/vms/web", "{\"config\":{\"disc\":1}}"});
	expect_status(w, 404, &(struct ask){"PATCH", "/v1/vms/other", "{}"});
	free(old);
}

static void meanwhile(struct core *c)
{
	Tb__Command *command = mem_alloc(sizeof(*command));
	Tb__Vm *vm;

	assert_int_equal(store_vm_find(c->writer, "web", &vm), 0);
	vm->config->priority = 7;
	tb__command__init(command);
	command->op_case = TB__COMMAND__OP_VM_PUT;
	command->vm_put = mem_alloc(sizeof(*command->vm_put));
	tb__vm_put__init(command->vm_put);
	command->vm_put->vm = vm;
	command->vm_put->mode = TB__VM_PUT__MODE__MODE_REPLACE;
	core_apply(c, command);
}

/* Somebody else was faster: the patch is made again on what is there now. */
static void test_patch_again(void **state)
{
	struct world *w = *state;
	struct answer a;

	w->core.before_apply = meanwhile;
	expect(w, 200, &(struct ask){"PATCH", "/v1/vms/web", "{\"config\":{\"vcpus\":2}}"}, &a);
	assert_string_equal(answer_text(&a, "config.vcpus"), "2");
	assert_string_equal(answer_text(&a, "config.priority"), "7");
	answer_clear(&a);
}

static void test_run(void **state)
{
	struct world *w = *state;
	struct answer a;

	expect(w, 200, &(struct ask){"POST", "/v1/vms/web:start"}, &a);
	assert_string_equal(answer_text(&a, "running"), "true");
	answer_clear(&a);
	expect_status(w, 409, &(struct ask){"DELETE", "/v1/vms/web"});
	expect_status(w, 200, &(struct ask){"POST", "/v1/vms/web:restart", "{\"now\":true}"});
	expect_status(w, 422, &(struct ask){"POST", "/v1/vms/web:stop", "{\"hard\":true}"});
	expect(w, 200, &(struct ask){"POST", "/v1/vms/web:stop"}, &a);
	assert_string_equal(answer_text(&a, "running"), "");
	answer_clear(&a);
	expect_status(w, 404, &(struct ask){"POST", "/v1/vms/other:start"});
	expect_problem(w, 422, "no such board", "board",
		       &(struct ask){"POST", "/v1/vms/web:move", "{\"board\":\"mars\"}"});
	expect_status(w, 200, &(struct ask){"DELETE", "/v1/vms/web"});
}

static int newest_visit(void *arg, const Tb__Event *row)
{
	snprintf(arg, 64, "%s", row->type);
	return 0;
}

static void expect_newest(const struct world *w, const char *type)
{
	char newest[64] = "";

	assert_int_equal(store_events_newest(w->core.writer, 1, newest_visit, newest), 0);
	assert_string_equal(newest, type);
}

/* One that has failed is not told that it starts while it does not: it is restarted. */
static void test_start_failed(void **state)
{
	struct world *w = *state;
	struct answer a;

	expect_status(w, 200, &(struct ask){"POST", "/v1/vms/web:start"});
	expect_status(w, 200, &(struct ask){"POST", "/v1/vms/web:start"});
	expect_newest(w, "vm.started");
	w->core.vms_failed = true;
	expect(w, 200, &(struct ask){"POST", "/v1/vms/web:start"}, &a);
	assert_string_equal(answer_text(&a, "running"), "true");
	answer_clear(&a);
	expect_newest(w, "vm.restarted");
	/* Nobody to ask: it is to run, whatever it is at. */
	w->core.view.leader_id = 0;
	expect_status(w, 200, &(struct ask){"POST", "/v1/vms/web:start"});
}

/* The leader knows who answers and who has the images; the model does not. */
static void test_move(void **state)
{
	struct world *w = *state;
	unsigned before = w->core.proposals;

	expect_status(w, 200, &(struct ask){"POST", "/v1/vms/web:start"});
	before = w->core.proposals;
	w->core.move_error = -EPERM;
	expect_problem(w, 409, "stays where it is", NULL,
		       &(struct ask){"POST", "/v1/vms/web:move", "{}"});
	expect_problem(w, 409, "stays where it is", NULL,
		       &(struct ask){"POST", "/v1/vms/web:move?dry-run=1", "{}"});
	assert_int_equal(w->core.proposals, before);
	w->core.view.leader_id = 0;
	expect_problem(w, 503, "no leader", NULL, &(struct ask){"POST", "/v1/vms/web:move", "{}"});
	assert_int_equal(w->core.proposals, before);
	w->core.view.leader_id = 1;
	/* No objection, or a leader that does not know the question: then the model's word counts.
	 */
	w->core.move_error = 0;
	expect_status(w, 200, &(struct ask){"POST", "/v1/vms/web:move", "{}"});
	w->core.move_error = -EOPNOTSUPP;
	expect_status(w, 200, &(struct ask){"POST", "/v1/vms/web:move", "{}"});
	assert_int_equal(w->core.proposals, before + 2);
	/* Without a quorum a dry run asks nobody. */
	w->core.view.state = CORE_NO_QUORUM;
	w->core.move_error = -EPERM;
	expect_status(w, 200, &(struct ask){"POST", "/v1/vms/web:move?dry-run=1", "{}"});
}

/* Refused at once, before anything is proposed. */
static void test_no_quorum(void **state)
{
	struct world *w = *state;
	unsigned before = w->core.proposals;
	unsigned queries = w->core.queries;

	w->core.view.state = CORE_NO_QUORUM;
	expect_problem(w, 503, "has no quorum", NULL, &(struct ask){"POST", "/v1/vms/web:start"});
	expect_problem(w, 503, "has no quorum", NULL,
		       &(struct ask){"POST", "/v1/vms/web:move", "{}"});
	expect_problem(w, 503, "has no quorum", NULL, &(struct ask){"DELETE", "/v1/vms/web"});
	assert_int_equal(w->core.proposals, before);
	assert_int_equal(w->core.queries, queries); /* nobody is waited for */
	/* Reading goes on. */
	expect_status(w, 200, &(struct ask){"GET", "/v1/vms/web"});
	expect_status(w, 200, &(struct ask){"POST", "/v1/vms/web:start?dry-run=1"});
}

static void test_no_leader(void **state)
{
	struct world *w = *state;
	struct answer a;

	w->core.view.leader_id = 0;
	expect(w, 200, &(struct ask){"GET", "/v1/vms/web"}, &a);
	assert_string_equal(answer_text(&a, "status.condition"), "");
	assert_non_null(strstr(answer_text(&a, "status.reason"), "no leader"));
	answer_clear(&a);
	expect_status(w, 200, &(struct ask){"GET", "/v1/images"});
}

static void test_keep_room(void **state)
{
	struct world *w = *state;
	struct answer a;

	expect(w, 200, &(struct ask){"PATCH", "/v1/cluster", "{\"keepRoom\":\"on\"}"}, &a);
	assert_string_equal(answer_text(&a, "keepRoom"), "true");
	answer_clear(&a);
	expect(w, 200, &(struct ask){"PATCH", "/v1/cluster", "{\"autoRegister\":true}"}, &a);
	assert_string_equal(answer_text(&a, "keepRoom"), "true");
	answer_clear(&a);
	/* The only board cannot be done without. */
	expect_status(w, 422, &(struct ask){"POST", "/v1/vms/web:start"});
	expect_status(w, 200, &(struct ask){"PATCH", "/v1/cluster", "{\"keepRoom\":\"off\"}"});
	expect_status(w, 200, &(struct ask){"POST", "/v1/vms/web:start"});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_upload, setup, teardown),
		cmocka_unit_test_setup_teardown(test_upload_refused_early, setup, teardown),
		cmocka_unit_test_setup_teardown(test_upload_failures, setup, teardown),
		cmocka_unit_test_setup_teardown(test_images_used, setup_vm, teardown),
		cmocka_unit_test_setup_teardown(test_who, setup_vm, teardown),
		cmocka_unit_test_setup_teardown(test_create, setup, teardown),
		cmocka_unit_test_setup_teardown(test_create_refused, setup_vm, teardown),
		cmocka_unit_test_setup_teardown(test_dry_run, setup_vm, teardown),
		cmocka_unit_test_setup_teardown(test_change, setup_vm, teardown),
		cmocka_unit_test_setup_teardown(test_patch_again, setup_vm, teardown),
		cmocka_unit_test_setup_teardown(test_run, setup_vm, teardown),
		cmocka_unit_test_setup_teardown(test_start_failed, setup_vm, teardown),
		cmocka_unit_test_setup_teardown(test_move, setup_vm, teardown),
		cmocka_unit_test_setup_teardown(test_no_quorum, setup_vm, teardown),
		cmocka_unit_test_setup_teardown(test_no_leader, setup_vm, teardown),
		cmocka_unit_test_setup_teardown(test_keep_room, setup_vm, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
