/* Images and virtual machines in the model: what each command does, and each way in which it is
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cluster/limits.h"
#include "cluster/snapshot.h"
#include "proto/json.h"
#include "tests/unit/commands.h"
#include "tests/unit/events.h"

enum {
	NONE = TB__REFUSAL__REFUSAL_NONE,
	NOT_FOUND = TB__REFUSAL__REFUSAL_NOT_FOUND,
	EXISTS = TB__REFUSAL__REFUSAL_EXISTS,
	CONFLICT = TB__REFUSAL__REFUSAL_CONFLICT,
	INVALID = TB__REFUSAL__REFUSAL_INVALID,
	LIMIT = TB__REFUSAL__REFUSAL_LIMIT,
};

/* The images of the tests: the digit repeated. */
#define KERNEL "1111111111111111111111111111111111111111111111111111111111111111"
#define INITRD "2222222222222222222222222222222222222222222222222222222222222222"
#define DISK "3333333333333333333333333333333333333333333333333333333333333333"
#define OTHER "4444444444444444444444444444444444444444444444444444444444444444"

/* Sends one command given as JSON of Tb__Command ({"vmPut":{...}}); its refusal. What it answered
 * stays in `last` until the next one. */
static Tb__CommandResult last;
static char last_field[160];
static char last_message[512];
static bool vms_changed;
static bool images_changed;

static int send(struct model *m, const char *json)
{
	struct apply_result result;
	struct json_error error;
	ProtobufCMessage *message;
	struct command c;

	if (json_decode(&tb__command__descriptor, json, strlen(json), &message, &error) != 0)
		fail_msg("%s: %s: %s", json, error.field, error.message);
	c.c = *(Tb__Command *)message;
	command_renew(m, &c);
	c.c.time_ms = TEST_TIME;
	if (c.c.actor[0] == '\0')
		c.c.actor = TEXT("root@test");
	assert_int_equal(command_apply_to(m, &c, &result), 0);
	last = *result.results[0];
	snprintf(last_field, sizeof(last_field), "%s", last.field);
	snprintf(last_message, sizeof(last_message), "%s", last.message);
	vms_changed = result.vms_changed;
	images_changed = result.images_changed;
	assert_int_equal(last_message[0] == '\0', last.refusal == 0);
	assert_true(last.refusal == 0 || (!vms_changed && !images_changed));
	apply_result_free(&result);
	protobuf_c_message_free_unpacked(message, NULL);
	return (int)last.refusal;
}

static void expect(struct model *m, const char *json, int refusal, const char *field)
{
	int got = send(m, json);

	if (got != refusal || strcmp(last_field, field) != 0)
		fail_msg("%s: refusal %d at \"%s\": %s", json, got, last_field, last_message);
}

static void ok(struct model *m, const char *json)
{
	expect(m, json, NONE, "");
}

/* With the VM's own part in the middle: PUT("db", "\"priority\":3"). */
#define PUT_MODE(mode, name, config)                                                               \
	"{\"vmPut\":{\"mode\":\"" mode "\",\"vm\":{\"name\":\"" name                               \
	"\",\"config\":{\"kernel\":\"linux\"" config "}}}}"
#define PUT(name, config) PUT_MODE("create", name, config)
#define SET(name, config) PUT_MODE("replace", name, config)
#define RUN(name, verb) "{\"vmRun\":{\"name\":\"" name "\",\"verb\":\"" verb "\"}}"
#define PLACE(vm, incarnation, node)                                                               \
	"{\"vmPlace\":{\"vm\":" #vm ",\"incarnation\":" #incarnation ",\"node\":" #node "}}"

#define RELEASE(vm, incarnation, rest)                                                             \
	"{\"vmRelease\":{\"vm\":" #vm ",\"incarnation\":" #incarnation rest "}}"
#define SETTLE(vm, incarnation, rest)                                                              \
	"{\"vmSettle\":{\"vm\":" #vm ",\"incarnation\":" #incarnation rest "}}"

static Tb__Vm *vm_of(struct model *m, const char *name)
{
	Tb__Vm *vm;

	assert_int_equal(store_vm_find(m->s, name, &vm), 0);
	return vm;
}

/* The row as JSON, placement and all. */
static void expect_row(struct model *m, const char *name, const char *json)
{
	Tb__Vm *vm = vm_of(m, name);
	struct buf text = {0};

	json_encode(&vm->base, &text);
	assert_string_equal(buf_string(&text), json);
	buf_free(&text);
	tb__vm__free_unpacked(vm, NULL);
}

static void expect_placement(struct model *m, const char *name, bool running, const char *json)
{
	Tb__Vm *vm = vm_of(m, name);
	struct buf text = {0};

	assert_int_equal(vm->running, running);
	assert_int_equal(vm->placement->since_ms, vm->placement->incarnation != 0 ? TEST_TIME : 0);
	vm->placement->since_ms = 0;
	json_encode(&vm->placement->base, &text);
	assert_string_equal(buf_string(&text), json);
	buf_free(&text);
	tb__vm__free_unpacked(vm, NULL);
}

static void board_add(struct model *m, uint64_t id, const char *name)
{
	Tb__Node row = TB__NODE__INIT;

	row.id = id;
	row.name = TEXT(name);
	row.address = TEXT("192.0.2.9:7443");
	row.role = TB__NODE_ROLE__NODE_ROLE_VOTER;
	assert_int_equal(store_node_put(m->s, &row), 0);
}

static void host_set(struct model *m, unsigned node, unsigned memory)
{
	char text[200];

	snprintf(text, sizeof(text),
		 "{\"nodeHostSet\":{\"id\":%u,\"host\":{\"hosts\":true,\"vcpus\":4,"
		 "\"memoryMib\":%u,\"bridges\":[\"br0\"]}}}",
		 node, memory);
	ok(m, text);
}

/* Three boards of 1000 MiB, and four images. */
static int setup(void **state)
{
	struct model *m = mem_alloc(sizeof(*m));

	model_open(m);
	*state = m;
	if (model_init_cluster(m) != NONE)
		return -1;
	board_add(m, 2, "b2");
	board_add(m, 3, "b3");
	for (unsigned i = 1; i <= 3; i++)
		host_set(m, i, 1000);
	ok(m, "{\"imageAdd\":{\"image\":{\"sha256\":\"" KERNEL
	      "\",\"name\":\"linux\",\"kind\":\"kernel\",\"size\":1000}}}");
	ok(m, "{\"imageAdd\":{\"image\":{\"sha256\":\"" INITRD
	      "\",\"name\":\"initrd\",\"kind\":\"initrd\",\"size\":1000}}}");
	ok(m, "{\"imageAdd\":{\"image\":{\"sha256\":\"" DISK
	      "\",\"name\":\"debian\",\"kind\":\"disk\",\"size\":2097152}}}");
	return 0;
}

static int teardown(void **state)
{
	struct model *m = *state;

	store_close(m->s);
	free(m);
	return 0;
}

/* --- images ---------------------------------------------------------------------------------- */

#define IMAGE(sum, name, rest)                                                                     \
	"{\"imageAdd\":{\"image\":{\"sha256\":\"" sum "\",\"name\":\"" name "\"" rest "}}}"

static void test_images(void **state)
{
	struct model *m = *state;
	Tb__Image *row;

	ok(m, IMAGE(OTHER, "data", ",\"size\":5"));
	assert_true(images_changed && !vms_changed);
	assert_int_equal(last.created, 1);
	expect_event(m, "image.added|root@test||||image data added (5 bytes, SHA-256 " OTHER ")");
	assert_int_equal(store_image_find(m->s, "data", &row), 0);
	assert_string_equal(row->sha256, OTHER);
	assert_string_equal(row->created_by, "root@test");
	assert_int_equal(row->created_ms, TEST_TIME);
	assert_int_equal(row->revision, m->index);
	tb__image__free_unpacked(row, NULL);

	ok(m, IMAGE(OTHER, "data", ",\"size\":5")); /* pushed twice */
	assert_int_equal(last.unchanged, 1);
	assert_false(images_changed);
	expect(m, IMAGE(OTHER, "linux-2", ",\"size\":5"), EXISTS, "sha256");
	expect(m, "{\"imageRemove\":{\"sha256\":\"" OTHER "0\"}}", INVALID, "sha256");
	ok(m, "{\"imageRemove\":{\"sha256\":\"" OTHER "\"}}");
	assert_true(images_changed);
	expect_event(m, "image.removed|root@test||||image data removed (SHA-256 " OTHER ")");
	expect(m, "{\"imageRemove\":{\"sha256\":\"" OTHER "\"}}", NOT_FOUND, "sha256");
}

static void test_image_checks(void **state)
{
	static const struct {
		const char *json;
		int refusal;
		const char *field;
	} cases[] = {
		{"{\"imageAdd\":{}}", INVALID, "image"},
		{IMAGE("44", "data", ",\"size\":5"), INVALID, "sha256"},
		{IMAGE(OTHER, "a b", ",\"size\":5"), INVALID, "name"},
		{IMAGE(OTHER, OTHER, ",\"size\":5"), INVALID, "name"}, /* would be ambiguous */
		{IMAGE(OTHER, "data", ",\"size\":0"), INVALID, "size"},
		{IMAGE(OTHER, "data", ",\"size\":1099511627777"), INVALID, "size"},
		{IMAGE(OTHER, "linux", ",\"size\":5"), EXISTS, "name"},
		{IMAGE(KERNEL, "linux", ",\"size\":1000,\"kind\":\"disk\""), EXISTS, "sha256"},
	};
	struct model *m = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect(m, cases[i].json, cases[i].refusal, cases[i].field);
}

static void test_image_in_use(void **state)
{
	struct model *m = *state;

	ok(m,
	   PUT("web",
	       ",\"initrd\":\"initrd\",\"disks\":[{\"kind\":\"overlay\",\"image\":\"debian\"}]"));
	expect(m, "{\"imageRemove\":{\"sha256\":\"" KERNEL "\"}}", CONFLICT, "sha256");
	assert_string_equal(last_message, "the image linux is used by 1 virtual machine (web); "
					  "delete or change them first");
	expect(m, "{\"imageRemove\":{\"sha256\":\"" INITRD "\"}}", CONFLICT, "sha256");
	expect(m, "{\"imageRemove\":{\"sha256\":\"" DISK "\"}}", CONFLICT, "sha256");
	ok(m, SET("web", ""));
	ok(m, "{\"imageRemove\":{\"sha256\":\"" INITRD "\"}}");
	ok(m, PUT("web2", ""));
	ok(m, PUT("web3", ""));
	ok(m, PUT("web4", ""));
	expect(m, "{\"imageRemove\":{\"sha256\":\"" KERNEL "\"}}", CONFLICT, "sha256");
	assert_string_equal(last_message, "the image linux is used by 4 virtual machines (web, "
					  "web2, web3, ...); delete or change them first");
}

static void test_image_limit(void **state)
{
	struct model *m = *state;
	Tb__Image row = TB__IMAGE__INIT;
	char sum[65];
	char name[16];

	for (unsigned i = 3; i < LIMIT_IMAGES; i++) {
		snprintf(sum, sizeof(sum), "%064x", i);
		snprintf(name, sizeof(name), "i%u", i);
		row.sha256 = sum;
		row.name = name;
		assert_int_equal(store_image_put(m->s, &row), 0);
	}
	expect(m, IMAGE(OTHER, "data", ",\"size\":5"), LIMIT, "name");
}

/* --- a VM is made and changed ---------------------------------------------------------------- */

static void test_create(void **state)
{
	struct model *m = *state;

	ok(m, "{\"vmPut\":{\"vm\":{\"name\":\"web\",\"id\":77,\"revision\":4,\"createdMs\":5,"
	      "\"labels\":{\"b\":\"2\",\"a\":\"1\"},\"placement\":{\"node\":3},"
	      "\"status\":{\"restarts\":3},\"config\":{\"kernel\":\"linux\","
	      "\"initrd\":\"" INITRD "\",\"disks\":[{\"kind\":\"overlay\",\"image\":\"debian\"},"
	      "{\"kind\":\"data\",\"sizeMib\":10}],\"nics\":[{\"bridge\":\"br0\"}]}}}}");
	assert_int_equal(last.created, 1);
	assert_true(vms_changed && !images_changed);
	expect_event(m, "vm.created|root@test|||web|VM web created: 1 vCPU, 128 MiB");
	expect_row(m, "web",
		   "{\"id\":\"1\",\"name\":\"web\",\"labels\":{\"a\":\"1\",\"b\":\"2\"},"
		   "\"config\":{\"vcpus\":1,\"memoryMib\":128,\"kernel\":\"" KERNEL
		   "\",\"initrd\":\"" INITRD "\",\"disks\":[{\"kind\":\"overlay\",\"image\":\"" DISK
		   "\",\"id\":\"disk0\"},{\"kind\":\"data\",\"sizeMib\":10,\"id\":\"disk1\"}],"
		   "\"nics\":[{\"bridge\":\"br0\",\"mac\":\"8a:d9:34:5f:17:ce\"}],"
		   "\"restartAttempts\":3,\"restartBackoffMs\":1000},\"revision\":\"8\","
		   "\"createdMs\":\"1000000\",\"placement\":{}}");
	expect(m, PUT("web", ""), EXISTS, "name");
	expect(m, SET("other", ""), NOT_FOUND, "name");
	/* Started at once. */
	ok(m, "{\"vmPut\":{\"vm\":{\"name\":\"db\",\"running\":true,"
	      "\"config\":{\"kernel\":\"linux\",\"vcpus\":2}}}}");
	expect_event(m, "vm.started|root@test|||db|VM db is to run");
	expect_placement(m, "db", true, "{}");
}

static void test_create_checks(void **state)
{
	static const struct {
		const char *json;
		int refusal;
		const char *field;
	} cases[] = {
		{"{\"vmPut\":{}}", INVALID, "vm"},
		{PUT("Web", ""), INVALID, "name"},
		{PUT("-web", ""), INVALID, "name"},
		{PUT("", ""), INVALID, "name"},
		{PUT(KERNEL, ""), INVALID, "name"}, /* 64 bytes */
		{"{\"vmPut\":{\"vm\":{\"name\":\"a\"}}}", INVALID, "config.kernel"},
		{"{\"vmPut\":{\"vm\":{\"name\":\"a\",\"config\":{}}}}", INVALID, "config.kernel"},
		{"{\"vmPut\":{\"vm\":{\"name\":\"a\",\"labels\":{\"!\":\"\"}}}}", INVALID,
		 "labels"},
		{"{\"vmPut\":{\"vm\":{\"name\":\"a\",\"labels\":{\"k\":\"\\u0001\"}}}}", INVALID,
		 "labels.k"},
		{"{\"vmPut\":{\"vm\":{\"name\":\"a\",\"config\":{\"kernel\":\"x\"}}}}", INVALID,
		 "config.kernel"},
		{"{\"vmPut\":{\"vm\":{\"name\":\"a\",\"config\":{\"kernel\":\"debian\"}}}}",
		 INVALID, "config.kernel"}, /* a disk */
		{PUT("a", ",\"initrd\":\"linux\""), INVALID, "config.initrd"},
		{PUT("a", ",\"initrd\":\"" OTHER "\""), INVALID, "config.initrd"},
		{PUT("a", ",\"vcpus\":9"), INVALID, "config.vcpus"},
		{PUT("a", ",\"memoryMib\":15"), INVALID, "config.memoryMib"},
		{PUT("a", ",\"memoryMib\":65537"), INVALID, "config.memoryMib"},
		{PUT("a", ",\"memoryMib\":999"), INVALID, "config.memoryMib"}, /* and 2 */
		{PUT("a", ",\"restartAttempts\":101"), INVALID, "config.restartAttempts"},
		{PUT("a", ",\"restartBackoffMs\":300001"), INVALID, "config.restartBackoffMs"},
		{PUT("a", ",\"priority\":101"), INVALID, "config.priority"},
		{PUT("a", ",\"commandLine\":\"a\\nb\""), INVALID, "config.commandLine"},
		{PUT("a", ",\"disks\":[{\"image\":\"linux\"}]"), INVALID, "config.disks[0].image"},
		{PUT("a", ",\"disks\":[{}]"), INVALID, "config.disks[0].image"},
		{PUT("a", ",\"disks\":[{\"image\":\"debian\",\"sizeMib\":5}]"), INVALID,
		 "config.disks[0].sizeMib"},
		{PUT("a", ",\"disks\":[{\"kind\":\"overlay\",\"image\":\"debian\",\"sizeMib\":1}]"),
		 INVALID, "config.disks[0].image"}, /* of 2 MiB */
		{PUT("a", ",\"disks\":[{\"kind\":\"data\"}]"), INVALID, "config.disks[0].sizeMib"},
		{PUT("a", ",\"disks\":[{\"kind\":\"data\",\"sizeMib\":1048577}]"), INVALID,
		 "config.disks[0].sizeMib"},
		{PUT("a", ",\"disks\":[{\"kind\":\"data\",\"sizeMib\":1,\"image\":\"debian\"}]"),
		 INVALID, "config.disks[0].image"},
		{PUT("a", ",\"disks\":[{\"image\":\"debian\"},{\"image\":\"debian\",\"id\":"
			  "\"disk0\"}]"),
		 INVALID, "config.disks[1].id"},
		{PUT("a", ",\"disks\":[{\"image\":\"debian\",\"id\":\"123456789012345678901\"}]"),
		 INVALID, "config.disks[0].id"},
		{PUT("a", ",\"nics\":[{}]"), INVALID, "config.nics[0].bridge"},
		{PUT("a", ",\"nics\":[{\"bridge\":\"../etc\"}]"), INVALID, "config.nics[0].bridge"},
		{PUT("a", ",\"nics\":[{\"bridge\":\"br1\"}]"), INVALID, "config.nics[0].bridge"},
		{PUT("a", ",\"nics\":[{\"bridge\":\"br0\",\"mac\":\"02:00:00:00:00\"}]"), INVALID,
		 "config.nics[0].mac"},
		{PUT("a", ",\"nics\":[{\"bridge\":\"br0\",\"mac\":\"03:00:00:00:00:01\"}]"),
		 INVALID, "config.nics[0].mac"},
		{PUT("a", ",\"nics\":[{\"bridge\":\"br0\",\"mac\":\"02:00:00:00:00:0A\"}]"),
		 INVALID, "config.nics[0].mac"},
		{PUT("a", ",\"nics\":[{\"bridge\":\"br0\",\"mac\":\"02:00:00:00:00:01\"},"
			  "{\"bridge\":\"br0\",\"mac\":\"02:00:00:00:00:01\"}]"),
		 INVALID, "config.nics[1].mac"},
		{PUT("a", ",\"prefer\":[\"b1\",\"b1\"]"), INVALID, "config.prefer[1]"},
		{PUT("a", ",\"prefer\":[\"b9\"]"), INVALID, "config.prefer[0]"},
		{PUT("a", ",\"require\":[\"b1\",\"b9\"]"), INVALID, "config.require[1]"},
		{PUT("a", ",\"apart\":\"tier\""), INVALID, "config.apart"}, /* no such label */
		{"{\"tenant\":\"acme\",\"vmRun\":{\"name\":\"a\"}}", INVALID, "tenant"},
		{"{\"tenant\":\"acme\",\"imageRemove\":{}}", INVALID, "tenant"},
	};
	struct model *m = *state;
	uint64_t count;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect(m, cases[i].json, cases[i].refusal, cases[i].field);
	assert_int_equal(store_count(m->s, "vm", &count), 0);
	assert_int_equal(count, 0);
	assert_int_equal(store_counter_get(m->s, "vm", &count), 0);
	assert_int_equal(count, 0); /* what is refused uses no id */
}

static void test_vm_limit(void **state)
{
	struct model *m = *state;
	Tb__Vm row = TB__VM__INIT;
	Tb__VmConfig config = TB__VM_CONFIG__INIT;
	Tb__VmPlacement placement = TB__VM_PLACEMENT__INIT;
	char name[16];

	row.config = &config;
	row.placement = &placement;
	for (unsigned i = 1; i <= LIMIT_VMS; i++) {
		snprintf(name, sizeof(name), "v%u", i);
		row.id = i;
		row.name = name;
		assert_int_equal(store_vm_put(m->s, &row), 0);
	}
	expect(m, PUT("one-more", ""), LIMIT, "name");
}

static void test_change(void **state)
{
	struct model *m = *state;
	char json[256];

	ok(m, PUT("web", ""));
	ok(m, SET("web", "")); /* the same */
	assert_int_equal(last.unchanged, 1);
	assert_false(vms_changed);
	ok(m, SET("web", ",\"memoryMib\":256"));
	assert_int_equal(last.changed, 1);
	expect_event(m, "vm.changed|root@test|||web|VM web changed");
	ok(m, RUN("web", "start"));
	ok(m, PLACE(1, 0, 2));
	/* While it runs: `running` and the placement are not VmPut's. */
	ok(m, SET("web", ",\"memoryMib\":512"));
	expect_event(m, "vm.changed|root@test|||web|VM web changed; it takes effect at its next "
			"start");
	expect_placement(m, "web", true, "{\"node\":\"2\",\"incarnation\":\"1\"}");
	expect(m, SET("web", ",\"memoryMib\":1200"), INVALID, "config.memoryMib");
	snprintf(json, sizeof(json),
		 "{\"vmPut\":{\"mode\":\"replace\",\"ifRevision\":%d,\"vm\":{\"name\":\"web\","
		 "\"config\":{\"kernel\":\"linux\"}}}}",
		 (int)m->index - 2);
	expect(m, json, CONFLICT, "ifRevision");
	snprintf(json, sizeof(json),
		 "{\"vmPut\":{\"mode\":\"replace\",\"ifRevision\":%d,\"vm\":{\"name\":\"web\","
		 "\"config\":{\"kernel\":\"linux\"}}}}",
		 (int)m->index - 2);
	ok(m, json);
	expect(m,
	       "{\"vmPut\":{\"mode\":\"replace\",\"ifRevision\":5,\"vm\":{\"name\":\"gone\","
	       "\"config\":{\"kernel\":\"linux\"}}}}",
	       CONFLICT, "ifRevision");
}

/* A change by a person moves the revision; the scheduler's does not, or nobody could edit. */
static void test_revision(void **state)
{
	struct model *m = *state;
	Tb__Vm *vm;

	ok(m, PUT("web", ""));
	ok(m, RUN("web", "start"));
	ok(m, PLACE(1, 0, 2));
	vm = vm_of(m, "web");
	assert_int_equal(vm->revision, m->index - 1);
	tb__vm__free_unpacked(vm, NULL);
}

static void expect_mac(struct model *m, const char *name, size_t nic, const char *mac)
{
	Tb__Vm *vm = vm_of(m, name);

	assert_true(vm->config->n_nics > nic);
	assert_string_equal(vm->config->nics[nic]->mac, mac);
	tb__vm__free_unpacked(vm, NULL);
}

static void test_macs(void **state)
{
	static const char first[] = "8a:d9:34:5f:17:ce"; /* cluster, VM 1, card 0 */
	struct model *m = *state;
	Tb__Vm *vm;
	char second[18];

	ok(m, PUT("web", ",\"nics\":[{\"bridge\":\"br0\"},{\"bridge\":\"br0\"}]"));
	expect_mac(m, "web", 0, first);
	vm = vm_of(m, "web");
	memcpy(second, vm->config->nics[1]->mac, sizeof(second));
	tb__vm__free_unpacked(vm, NULL);
	assert_string_not_equal(second, first);
	assert_true((strtoul(second, NULL, 16) & 3) == 2); /* local, of one card */
	/* Kept across changes, also one that was set once. */
	ok(m, SET("web", ",\"memoryMib\":64,\"nics\":[{\"bridge\":\"br0\",\"mac\":"
			 "\"02:00:5e:10:00:01\"},{\"bridge\":\"br0\"}]"));
	ok(m, SET("web", ",\"memoryMib\":65,\"nics\":[{\"bridge\":\"br0\"},{\"bridge\":\"br0\"}]"));
	expect_mac(m, "web", 0, "02:00:5e:10:00:01");
	expect_mac(m, "web", 1, second);
	/* What is said is one's own already is no other's. */
	ok(m, SET("web", ",\"memoryMib\":66,\"nics\":[{\"bridge\":\"br0\",\"mac\":"
			 "\"02:00:5e:10:00:01\"},{\"bridge\":\"br0\"}]"));
	/* Nor is it kept for one card when another has it now. */
	ok(m, SET("web", ",\"nics\":[{\"bridge\":\"br0\"},{\"bridge\":\"br0\",\"mac\":"
			 "\"02:00:5e:10:00:01\"}]"));
	expect_mac(m, "web", 0, first);
	ok(m, SET("web", ",\"nics\":[{\"bridge\":\"br0\",\"mac\":\"02:00:5e:10:00:01\"},"
			 "{\"bridge\":\"br0\"}]"));
	/* Nobody else's. */
	expect(m,
	       PUT("db", ",\"nics\":[{\"bridge\":\"br0\"},{\"bridge\":\"br0\",\"mac\":"
			 "\"02:00:5e:10:00:01\"}]"),
	       EXISTS, "config.nics[1].mac");
	assert_string_equal(last_message, "a card of the VM web has the address "
					  "02:00:5e:10:00:01; leave it out to be given another");
	/* What would be derived is taken: the next one. */
	ok(m, SET("web", ",\"nics\":[{\"bridge\":\"br0\",\"mac\":\"0a:d7:38:6f:87:0f\"}]"));
	ok(m, PUT("db", ",\"nics\":[{\"bridge\":\"br0\"}]"));
	expect_mac(m, "db", 0, "7e:33:7f:35:20:d7");
}

static void test_admission(void **state)
{
	struct model *m = *state;

	expect(m, PUT("a", ",\"memoryMib\":1200"), INVALID, "config.memoryMib");
	assert_string_equal(last_message,
			    "it needs 1202 MiB (1200 and 2 for its process), and the largest board "
			    "that it may be on, b1, has 1000 MiB for virtual machines");
	expect(m, PUT("a", ",\"nics\":[{\"bridge\":\"br7\"}]"), INVALID, "config.nics[0].bridge");
	/* Room for the loss of a board: 2 of 3 boards have 2000 MiB. */
	ok(m, "{\"clusterSet\":{\"keepRoom\":\"on\"}}");
	assert_int_equal(last.changed, 1);
	expect_event(m, "cluster.changed|root@test||||room is kept for the virtual machines of any "
			"one board: what would not leave it is refused");
	ok(m, "{\"clusterSet\":{}}"); /* any: stays */
	assert_int_equal(last.unchanged, 1);
	for (int i = 0; i < 3; i++) {
		char json[200];

		snprintf(json, sizeof(json),
			 "{\"vmPut\":{\"vm\":{\"name\":\"v%d\",\"running\":true,\"config\":"
			 "{\"kernel\":\"linux\",\"memoryMib\":598}}}}",
			 i);
		if (i < 2) {
			ok(m, json);
			continue;
		}
		expect(m, json, INVALID, "config.memoryMib");
		assert_string_equal(
			last_message,
			"without b1 the other boards have 2000 MiB for virtual machines, and the 3 "
			"to be kept running need 1800 MiB: v2 would have no place; stop some, or "
			"let go of the room with witnessctl cluster set --keep-room off");
	}
	/* One that is there counts once when it is changed, and so does its own address. */
	ok(m, "{\"vmPut\":{\"mode\":\"replace\",\"vm\":{\"name\":\"v1\",\"config\":{\"kernel\":"
	      "\"linux\",\"memoryMib\":597}}}}");
	/* Made but not started it takes no room; its start is refused. */
	ok(m, PUT("v2", ",\"memoryMib\":598"));
	expect(m, RUN("v2", "start"), INVALID, "config.memoryMib");
	ok(m, "{\"clusterSet\":{\"keepRoom\":\"off\"}}");
	ok(m, RUN("v2", "start"));
}

/* One that is on a board and grows must fit there. */
static void test_grow(void **state)
{
	static const struct {
		const char *json;
		int refusal;
		const char *field;
	} cases[] = {
		{SET("web", ",\"memoryMib\":497"), NONE, ""}, /* to the last MiB: 499 + 501 */
		{SET("web", ",\"memoryMib\":498"), CONFLICT, "config.memoryMib"},
		{SET("web", ",\"memoryMib\":400"), NONE, ""},
		{SET("web", ",\"memoryMib\":400,\"vcpus\":8"), NONE, ""},
		{SET("web", ",\"memoryMib\":400,\"vcpus\":1"), NONE, ""},
	};
	struct model *m = *state;

	ok(m, PUT("web", ",\"memoryMib\":300"));
	ok(m, PUT("db", ",\"memoryMib\":499,\"vcpus\":8"));
	ok(m, SET("web", ",\"memoryMib\":900")); /* it is nowhere */
	ok(m, SET("web", ",\"memoryMib\":300"));
	ok(m, RUN("web", "start"));
	ok(m, RUN("db", "start"));
	ok(m, PLACE(1, 0, 1));
	ok(m, PLACE(2, 0, 1));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect(m, cases[i].json, cases[i].refusal, cases[i].field);
	expect(m, SET("web", ",\"memoryMib\":600"), CONFLICT, "config.memoryMib");
	assert_string_equal(last_message,
			    "it is on b1, which has 1000 MiB for virtual machines; 501 of them are "
			    "taken by 1 other, and it would need 602; move it first, or stop it");
	ok(m, PUT("third", ",\"memoryMib\":16,\"vcpus\":7"));
	ok(m, RUN("third", "start"));
	ok(m, PLACE(3, 0, 1));
	expect(m, SET("web", ",\"memoryMib\":400,\"vcpus\":2"), CONFLICT, "config.vcpus");
	assert_string_equal(
		last_message,
		"it is on b1, whose 4 cores may be shared by 4 vCPUs each; 15 vCPUs are "
		"those of 2 others, and it would have 2; move it first, or stop it");
	/* The others of that board have grown too large by themselves: what does not grow is free.
	 */
	host_set(m, 1, 500);
	ok(m, SET("web", ",\"memoryMib\":399"));
	host_set(m, 1, 1000);
	/* On its way out it is placed again, where it fits. */
	ok(m, "{\"vmMove\":{\"name\":\"web\",\"node\":2}}");
	ok(m, SET("web", ",\"memoryMib\":600"));
}

#define MOST(most) "{\"node\":\"1\",\"incarnation\":\"1\"" most "}"

/* One that is on a board and shrinks keeps its room there, and that of all that it was set to
 * meanwhile, until it is placed anew. */
static void test_shrink(void **state)
{
	static const struct {
		const char *json;
		const char *placement;
	} cases[] = {
		{SET("web", ",\"memoryMib\":500,\"vcpus\":4"), MOST("")},
		{SET("web", ",\"memoryMib\":100,\"vcpus\":4"), MOST(",\"mostMemoryMib\":500")},
		{SET("web", ",\"memoryMib\":100,\"vcpus\":4"), MOST(",\"mostMemoryMib\":500")},
		{SET("web", ",\"memoryMib\":200,\"vcpus\":1"),
		 MOST(",\"mostMemoryMib\":500,\"mostVcpus\":4")},
		{SET("web", ",\"memoryMib\":600,\"vcpus\":2"), MOST(",\"mostVcpus\":4")},
		{SET("web", ",\"memoryMib\":600,\"vcpus\":5"), MOST("")},
		{SET("web", ""), MOST(",\"mostMemoryMib\":600,\"mostVcpus\":5")},
	};
	struct model *m = *state;

	ok(m, PUT("web", ",\"memoryMib\":900,\"vcpus\":8"));
	ok(m, SET("web", ",\"memoryMib\":500,\"vcpus\":4")); /* it is nowhere */
	expect_placement(m, "web", false, "{}");
	ok(m, RUN("web", "start"));
	ok(m, PLACE(1, 0, 1));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ok(m, cases[i].json);
		expect_placement(m, "web", true, cases[i].placement);
	}
	ok(m, PUT("db", ",\"memoryMib\":397"));
	ok(m, RUN("db", "start"));
	ok(m, PLACE(2, 0, 2));
	expect(m, "{\"vmMove\":{\"name\":\"db\",\"node\":1}}", CONFLICT, "node");
	assert_string_equal(last_message,
			    "b1 cannot take VM db: b1 has 1000 MiB for virtual machines, 602 of "
			    "them are taken by 1, and it needs 399");
	/* Until it has left, and no longer. */
	ok(m, RUN("web", "restart"));
	expect(m, "{\"vmMove\":{\"name\":\"db\",\"node\":1}}", CONFLICT, "node");
	ok(m, PLACE(1, 1, 1));
	expect_placement(m, "web", true, "{\"node\":\"1\",\"incarnation\":\"2\"}");
	ok(m, "{\"vmMove\":{\"name\":\"db\",\"node\":1}}");
	ok(m, SET("web", ",\"memoryMib\":64"));
	ok(m, RUN("web", "stop"));
	ok(m, PLACE(1, 2, 0));
	expect_placement(m, "web", false, "{\"incarnation\":\"2\"}");
}

static void test_no_hosts(void **state)
{
	struct model *m = *state;

	for (unsigned i = 1; i <= 3; i++) {
		char json[200];

		snprintf(json, sizeof(json),
			 "{\"nodeHostSet\":{\"id\":%u,\"host\":{\"whyNot\":\"there is no "
			 "/dev/kvm\"}}}",
			 i);
		ok(m, json);
	}
	expect_event(m, "node.host|root@test||b3||board b3 hosts no virtual machines: there is no "
			"/dev/kvm");
	expect(m, PUT("web", ""), INVALID, "");
	assert_string_equal(last_message, "no board hosts virtual machines: b3 there is no "
					  "/dev/kvm; see witnessctl node show b3");
}

/* --- start, stop, restart, move, delete ------------------------------------------------------- */

static void test_run(void **state)
{
	struct model *m = *state;

	expect(m, RUN("web", "start"), NOT_FOUND, "name");
	ok(m, PUT("web", ""));
	expect(m, RUN("web", "restart"), CONFLICT, "name");
	ok(m, RUN("web", "stop"));
	assert_int_equal(last.unchanged, 1);
	ok(m, RUN("web", "start"));
	assert_true(vms_changed);
	expect_event(m, "vm.started|root@test|||web|VM web is to run");
	ok(m, RUN("web", "start"));
	assert_int_equal(last.unchanged, 1);
	ok(m, PLACE(1, 0, 2));
	expect_event(m, "vm.placed|root@test||b2|web|VM web goes to b2 (incarnation 1)");
	/* A restart leaves the placement in the same entry, and is to come back there. */
	ok(m, RUN("web", "restart"));
	expect_placement(
		m, "web", true,
		"{\"node\":\"2\",\"incarnation\":\"1\",\"releasing\":true,\"target\":\"2\","
		"\"reason\":\"it is restarted by a person\"}");
	/* So does a stop; a second one with force makes it hard, and there is no way back. */
	ok(m, RUN("web", "stop"));
	expect_event(m, "vm.stopped|root@test|||web|VM web is stopped");
	ok(m, "{\"vmRun\":{\"name\":\"web\",\"verb\":\"stop\",\"hard\":true}}");
	expect_event(m, "vm.stopped|root@test|||web|VM web is stopped, without asking the guest");
	ok(m, RUN("web", "stop"));
	assert_int_equal(last.unchanged, 1);
	expect_placement(m, "web", false,
			 "{\"node\":\"2\",\"incarnation\":\"1\",\"releasing\":true,\"hard\":true,"
			 "\"reason\":\"it is restarted by a person\"}");
	ok(m, "{\"vmRun\":{\"name\":\"web\",\"verb\":\"stop\",\"hard\":true}}");
	assert_int_equal(last.unchanged, 1);
	/* Wanted again before it is gone: the placement goes on being left. */
	ok(m, RUN("web", "start"));
	ok(m, PLACE(1, 1, 2));
	expect_placement(m, "web", true, "{\"node\":\"2\",\"incarnation\":\"2\"}");
	ok(m, RUN("web", "stop"));
	ok(m, PLACE(1, 2, 0));
	expect_event(m, "vm.released|root@test||b2|web|VM web is off b2");
	expect_placement(m, "web", false, "{\"incarnation\":\"2\"}");
}

static void test_delete(void **state)
{
	struct model *m = *state;

	expect(m, "{\"vmDelete\":{\"name\":\"web\"}}", NOT_FOUND, "name");
	ok(m, PUT("web", ""));
	ok(m, RUN("web", "start"));
	expect(m, "{\"vmDelete\":{\"name\":\"web\"}}", CONFLICT, "name");
	ok(m, PLACE(1, 0, 2));
	ok(m, RUN("web", "stop"));
	expect(m, "{\"vmDelete\":{\"name\":\"web\"}}", CONFLICT, "name");
	assert_string_equal(last_message, "VM web is still being ended on b2; wait until it is "
					  "stopped (witnessctl vm show web)");
	ok(m, PLACE(1, 1, 0));
	expect(m, "{\"vmDelete\":{\"name\":\"web\",\"ifRevision\":3}}", CONFLICT, "ifRevision");
	ok(m, "{\"vmDelete\":{\"name\":\"web\"}}");
	assert_int_equal(last.deleted, 1);
	assert_true(vms_changed);
	expect_event(m, "vm.deleted|root@test|||web|VM web deleted");
	ok(m, PUT("web", "")); /* with an id of its own */
	expect(m, PLACE(1, 1, 2), NOT_FOUND, "vm");
}

static void test_move(void **state)
{
	struct model *m = *state;

	expect(m, "{\"vmMove\":{\"name\":\"web\",\"node\":2}}", NOT_FOUND, "name");
	ok(m, PUT("web", ",\"memoryMib\":598"));
	ok(m, PUT("db", ",\"memoryMib\":500"));
	ok(m, RUN("web", "start"));
	ok(m, RUN("db", "start"));
	ok(m, PLACE(1, 0, 1));
	ok(m, PLACE(2, 0, 2));
	expect(m, "{\"vmMove\":{\"name\":\"web\",\"node\":1}}", CONFLICT, "node");
	expect(m, "{\"vmMove\":{\"name\":\"web\",\"node\":9}}", NOT_FOUND, "node");
	expect(m, "{\"vmMove\":{\"name\":\"web\",\"node\":2}}", CONFLICT, "node");
	assert_string_equal(last_message,
			    "b2 cannot take VM web: b2 has 1000 MiB for virtual machines, 502 of "
			    "them are taken by 1, and it needs 600");
	ok(m, "{\"vmMove\":{\"name\":\"web\",\"node\":3}}");
	expect_event(m, "vm.moving|root@test|||web|VM web is to move to b3");
	expect_placement(
		m, "web", true,
		"{\"node\":\"1\",\"incarnation\":\"1\",\"releasing\":true,\"target\":\"3\","
		"\"reason\":\"it is moved by a person\"}");
	ok(m, PLACE(1, 1, 3));
	expect_event(m, "vm.moved|root@test||b3|web|VM web moves from b1 to b3 (incarnation 2)");
	/* Anywhere else: not back to where it was. */
	ok(m, "{\"vmMove\":{\"name\":\"web\"}}");
	expect_placement(m, "web", true,
			 "{\"node\":\"3\",\"incarnation\":\"2\",\"releasing\":true,\"avoid\":\"3\","
			 "\"reason\":\"it is moved by a person\"}");
	ok(m, PLACE(1, 2, 1));
	ok(m, "{\"nodeDrain\":{\"id\":3,\"drain\":\"gentle\"}}");
	expect(m, "{\"vmMove\":{\"name\":\"web\",\"node\":3}}", CONFLICT, "node");
	expect(m, "{\"vmMove\":{\"name\":\"web\"}}", CONFLICT, "node");
	assert_string_equal(last_message, "another board cannot take VM web: b3 is drained");
}

/* Placed where its data disks are, which began there in incarnation `since`. */
#define HOME(node, incarnation, since)                                                             \
	"{\"node\":\"" #node "\",\"incarnation\":\"" #incarnation "\",\"home\":\"" #node           \
	"\",\"homeIncarnation\":\"" #since "\"}"
#define HOME_DISKS(node, incarnation, since, disks)                                                \
	"{\"node\":\"" #node "\",\"incarnation\":\"" #incarnation "\",\"home\":\"" #node           \
	"\",\"homeIncarnation\":\"" #since "\",\"homeDisks\":[" disks "]}"

/* Its board makes the disk at its next start there. */
static void test_data_disk_added(void **state)
{
	struct model *m = *state;

	ok(m, PUT("db", ""));
	ok(m, RUN("db", "start"));
	ok(m, PLACE(1, 0, 2));
	expect_placement(m, "db", true, "{\"node\":\"2\",\"incarnation\":\"1\"}");
	ok(m, SET("db", ",\"disks\":[{\"kind\":\"data\",\"sizeMib\":10}]"));
	expect_placement(m, "db", true, HOME(2, 1, 1));
	/* Before that it may begin with it elsewhere. */
	ok(m, PLACE(1, 1, 3));
	expect_placement(m, "db", true, HOME(3, 2, 2));
	ok(m, PLACE(1, 2, 2));
	ok(m, SETTLE(1, 3, ",\"homeDisks\":[\"disk0\"]"));
	expect_placement(m, "db", true, HOME_DISKS(2, 3, 3, "\"disk0\""));
	expect(m, "{\"vmMove\":{\"name\":\"db\",\"node\":3}}", CONFLICT, "force");
	/* While it leaves that board by force, that is its home no more. */
	ok(m, "{\"vmMove\":{\"name\":\"db\",\"node\":3,\"force\":true}}");
	ok(m, SET("db", ",\"disks\":[{\"kind\":\"data\",\"sizeMib\":12}]"));
	expect_placement(
		m, "db", true,
		"{\"node\":\"2\",\"incarnation\":\"3\",\"releasing\":true,\"target\":\"3\","
		"\"reason\":\"it is moved by a person\"}");
}

/* Its board is removed just before it would begin to make them there: nothing pins the VM to it. */
static void test_data_disks_removed_board(void **state)
{
	struct model *m = *state;

	ok(m, PUT("db", ",\"disks\":[{\"kind\":\"data\",\"sizeMib\":10}]"));
	ok(m, RUN("db", "start"));
	ok(m, PLACE(1, 0, 2));
	ok(m, "{\"nodeRemove\":{\"id\":2}}");
	expect(m, SETTLE(1, 1, ",\"homeDisks\":[\"disk0\"]"), CONFLICT, "homeDisks");
	ok(m, PLACE(1, 1, 3));
	expect_placement(m, "db", true, HOME(3, 2, 2));
}

static void test_data_disks_pin(void **state)
{
	struct model *m = *state;

	ok(m, PUT("db", ",\"disks\":[{\"kind\":\"data\",\"sizeMib\":10}]"));
	ok(m, RUN("db", "start"));
	ok(m, PLACE(1, 0, 2));
	ok(m, SETTLE(1, 1, ",\"homeDisks\":[\"disk0\"]"));
	expect_placement(m, "db", true, HOME_DISKS(2, 1, 1, "\"disk0\""));
	/* The scheduler cannot either. */
	expect(m, PLACE(1, 1, 3), CONFLICT, "node");
	expect(m, "{\"vmMove\":{\"name\":\"db\",\"node\":3}}", CONFLICT, "force");
	assert_string_equal(last_message,
			    "the data disks of VM db are on b2 and do not move with it; with "
			    "--force it starts with empty ones, and what they hold is lost to it");
	/* A refusal leaves them where they are. */
	expect_placement(m, "db", true, HOME_DISKS(2, 1, 1, "\"disk0\""));
	expect(m, "{\"nodeRemove\":{\"id\":2}}", CONFLICT, "id");
	assert_string_equal(last_message,
			    "board b2 has the data disks of VM db; give them up with witnessctl vm "
			    "move db --force, or delete the VM first");
	/* Home again needs no force, and loses nothing. */
	ok(m, RUN("db", "stop"));
	ok(m, PLACE(1, 1, 0));
	ok(m, "{\"vmMove\":{\"name\":\"db\",\"node\":2}}");
	ok(m, RUN("db", "start"));
	ok(m, PLACE(1, 1, 2));
	expect_placement(m, "db", true, HOME_DISKS(2, 2, 1, "\"disk0\""));
	ok(m, "{\"vmMove\":{\"name\":\"db\",\"node\":3,\"force\":true}}");
	expect_placement(
		m, "db", true,
		"{\"node\":\"2\",\"incarnation\":\"2\",\"releasing\":true,\"target\":\"3\","
		"\"reason\":\"it is moved by a person\"}");
	ok(m, PLACE(1, 2, 3));
	expect_placement(m, "db", true, HOME(3, 3, 3));
	ok(m, "{\"nodeRemove\":{\"id\":2}}");
	/* Nowhere: they still pin it. */
	ok(m, SETTLE(1, 3, ",\"homeDisks\":[\"disk0\"]"));
	ok(m, RUN("db", "stop"));
	ok(m, PLACE(1, 3, 0));
	expect_placement(m, "db", false,
			 "{\"incarnation\":\"3\",\"home\":\"3\",\"homeIncarnation\":\"3\","
			 "\"homeDisks\":[\"disk0\"]}");
	/* A board that is gone: a new start says so. */
	board_add(m, 4, "b4");
	host_set(m, 4, 1000);
	assert_int_equal(store_node_delete(m->s, 3), 0);
	expect(m, RUN("db", "start"), INVALID, "config.disks");
	ok(m, "{\"vmMove\":{\"name\":\"db\",\"node\":4,\"force\":true}}");
	expect_event(m, "vm.moving|root@test|||db|VM db is to start next on b4");
	ok(m, RUN("db", "start"));
}

/* Until the model knows of a disk its guest has not run: nothing is lost by going elsewhere. */
static void test_data_disks_unmade(void **state)
{
	struct model *m = *state;
	Tb__Vm *vm;

	ok(m, PUT("db", ",\"disks\":[{\"kind\":\"data\",\"sizeMib\":10}]"));
	ok(m, RUN("db", "start"));
	ok(m, PLACE(1, 0, 2));
	expect_placement(m, "db", true, HOME(2, 1, 1));
	/* b2 is lost while it makes the disk; what it says of it comes too late. */
	ok(m, PLACE(1, 1, 3));
	expect(m, SETTLE(1, 1, ",\"homeDisks\":[\"disk0\"]"), CONFLICT, "incarnation");
	expect_placement(m, "db", true, HOME(3, 2, 2));
	/* A person needs no force, and hears of no loss. */
	ok(m, "{\"vmMove\":{\"name\":\"db\",\"node\":2}}");
	expect_event(m, "vm.moving|root@test|||db|VM db is to move to b2");
	expect(m, SETTLE(1, 2, ",\"homeDisks\":[\"disk0\"]"), CONFLICT, "vm");
	ok(m, "{\"nodeRemove\":{\"id\":3}}");
	/* Back on b2 a disk is made: not the one that was begun there, which nobody wrote to. */
	ok(m, PLACE(1, 2, 2));
	expect_placement(m, "db", true, HOME(2, 3, 3));
	/* Whoever decided before the disk was known is too late, in the same incarnation. */
	ok(m, SETTLE(1, 3, ",\"homeDisks\":[\"disk0\"]"));
	expect(m, PLACE(1, 3, 1), CONFLICT, "node");
	expect(m, "{\"nodeRemove\":{\"id\":2}}", CONFLICT, "id");
	/* A home of before this was kept: nobody knows, and it stays. */
	vm = vm_of(m, "db");
	free(vm->placement->home_disks[0]);
	vm->placement->n_home_disks = 0;
	vm->placement->home_incarnation = 0;
	assert_int_equal(store_vm_put(m->s, vm), 0);
	tb__vm__free_unpacked(vm, NULL);
	expect(m, PLACE(1, 3, 1), CONFLICT, "node");
	expect(m, "{\"vmMove\":{\"name\":\"db\",\"node\":1}}", CONFLICT, "force");
}

/* --- the scheduler's ------------------------------------------------------------------------- */

/* What the model knows of the files of data disks: from when on they are, and which. */
static void test_data_disks_made(void **state)
{
	struct model *m = *state;

	ok(m, PUT("web", ""));
	ok(m, RUN("web", "start"));
	ok(m, PLACE(1, 0, 1));
	expect(m, SETTLE(1, 1, ",\"homeDisks\":[\"a\"]"), CONFLICT, "homeDisks");
	ok(m, PUT("db", ",\"disks\":[{\"kind\":\"data\",\"sizeMib\":1,\"id\":\"a\"},"
			"{\"kind\":\"data\",\"sizeMib\":1,\"id\":\"b\"}]"));
	ok(m, RUN("db", "start"));
	ok(m, PLACE(2, 0, 2));
	expect(m, SETTLE(2, 0, ",\"homeDisks\":[\"a\"]"), CONFLICT, "incarnation");
	ok(m, SETTLE(2, 1, ",\"homeDisks\":[\"x\"]")); /* it has no such disk (any more) */
	assert_int_equal(last.unchanged, 1);
	expect_placement(m, "db", true, HOME(2, 1, 1));
	ok(m, SETTLE(2, 1, ",\"homeDisks\":[\"b\",\"x\"]"));
	assert_true(vms_changed);
	expect_event(m, "vm.data-made|root@test||b2|db|VM db has its data disks on b2, empty: b");
	expect_placement(m, "db", true, HOME_DISKS(2, 1, 1, "\"b\""));
	ok(m, SETTLE(2, 1, ",\"homeDisks\":[\"b\",\"a\"]"));
	expect_placement(m, "db", true, HOME_DISKS(2, 1, 1, "\"a\",\"b\""));
	ok(m, SETTLE(2, 1, ",\"homeDisks\":[\"b\"]"));
	assert_int_equal(last.unchanged, 1);
	/* Elsewhere for a while, home again: the same disks. */
	ok(m, RUN("db", "stop"));
	ok(m, PLACE(2, 1, 0));
	ok(m, RUN("db", "start"));
	ok(m, PLACE(2, 1, 2));
	expect_placement(m, "db", true, HOME_DISKS(2, 2, 1, "\"a\",\"b\""));
	/* A person cannot say it, and changes nothing of it. */
	ok(m, SET("db", ",\"disks\":[{\"kind\":\"data\",\"sizeMib\":1,\"id\":\"a\"},"
			"{\"kind\":\"data\",\"sizeMib\":1,\"id\":\"c\"}]"));
	expect_placement(m, "db", true, HOME_DISKS(2, 2, 1, "\"a\",\"b\""));
	ok(m, SETTLE(2, 2, ",\"homeDisks\":[\"c\"]"));
	expect_placement(m, "db", true, HOME_DISKS(2, 2, 1, "\"a\",\"c\""));
	/* By force to b3 and by force back: what is on b2 from before is not its disk. */
	ok(m, "{\"vmMove\":{\"name\":\"db\",\"node\":3,\"force\":true}}");
	expect(m, SETTLE(2, 2, ",\"homeDisks\":[\"c\"]"), CONFLICT, "vm");
	ok(m, PLACE(2, 2, 3));
	expect_placement(m, "db", true, HOME(3, 3, 3));
	ok(m, SETTLE(2, 3, ",\"homeDisks\":[\"a\",\"c\"]"));
	ok(m, "{\"vmMove\":{\"name\":\"db\",\"node\":2,\"force\":true}}");
	ok(m, PLACE(2, 3, 2));
	expect_placement(m, "db", true, HOME(2, 4, 4));
	/* Without data disks it has no home. */
	ok(m, SET("db", ""));
	ok(m, RELEASE(2, 4, ""));
	ok(m, PLACE(2, 4, 2));
	expect_placement(m, "db", true, "{\"node\":\"2\",\"incarnation\":\"5\"}");
}

static void test_incarnations(void **state)
{
	struct model *m = *state;

	ok(m, PUT("web", ""));
	ok(m, RUN("web", "start"));
	expect(m, PLACE(7, 0, 2), NOT_FOUND, "vm");
	expect(m, PLACE(1, 1, 2), CONFLICT, "incarnation");
	expect(m, PLACE(1, 0, 9), CONFLICT, "node");
	ok(m, PLACE(1, 0, 2));
	assert_int_equal(last.changed, 1);
	assert_int_equal(last.node_id, 2);
	assert_true(vms_changed);
	/* Whoever decided on the placement of before is too late. */
	expect(m, PLACE(1, 0, 3), CONFLICT, "incarnation");
	expect(m, PLACE(1, 0, 0), CONFLICT, "incarnation");
	expect(m, RELEASE(1, 0, ""), CONFLICT, "incarnation");
	expect(m, SETTLE(1, 0, ",\"ended\":true"), CONFLICT, "incarnation");
	ok(m, "{\"vmPlace\":{\"vm\":1,\"incarnation\":1,\"node\":3,\"reason\":\"b2 is lost\"}}");
	expect_event(m, "vm.moved|root@test||b3|web|VM web moves from b2 to b3 (incarnation 2): b2 "
			"is lost");
	/* Nowhere keeps the incarnation: the next placement gives the next one. */
	ok(m, PLACE(1, 2, 0));
	ok(m, PLACE(1, 2, 0));
	assert_int_equal(last.unchanged, 1);
	expect(m, RELEASE(1, 2, ""), CONFLICT, "vm");
	expect(m, SETTLE(1, 2, ",\"ended\":true"), CONFLICT, "vm");
	ok(m, PLACE(1, 2, 1));
	expect_placement(m, "web", true, "{\"node\":\"1\",\"incarnation\":\"3\"}");
	/* Not wanted any more: it goes nowhere else, but it may go. */
	ok(m, RUN("web", "stop"));
	expect(m, PLACE(1, 3, 2), CONFLICT, "vm");
	ok(m, PLACE(1, 3, 0));
	expect(m, PLACE(1, 3, 2), CONFLICT, "vm");
}

static void test_release(void **state)
{
	struct model *m = *state;

	ok(m, PUT("web", ""));
	ok(m, RUN("web", "start"));
	ok(m, PLACE(1, 0, 2));
	ok(m, RELEASE(1, 1, ",\"reason\":\"b2 is drained\""));
	expect_event(m, "vm.releasing|root@test||b2|web|VM web is to leave b2: b2 is drained");
	expect_placement(m, "web", true,
			 "{\"node\":\"2\",\"incarnation\":\"1\",\"releasing\":true,\"reason\":\"b2 "
			 "is drained\"}");
	ok(m, RELEASE(1, 1, ",\"failed\":true"));
	assert_int_equal(last.unchanged, 1); /* it leaves already */
	ok(m, RELEASE(1, 1, ",\"hard\":true,\"failed\":true"));
	assert_int_equal(last.changed, 1);
	expect_placement(m, "web", true,
			 "{\"node\":\"2\",\"incarnation\":\"1\",\"releasing\":true,\"hard\":true,"
			 "\"reason\":\"b2 is drained\"}");
	ok(m, PLACE(1, 1, 3));
	ok(m, RELEASE(1, 2, ",\"failed\":true,\"hard\":true,\"reason\":\"it crashed\""));
	expect_event(m, "vm.failed|root@test||b3|web|VM web failed on b3: it crashed");
	expect_placement(m, "web", true,
			 "{\"node\":\"3\",\"incarnation\":\"2\",\"releasing\":true,\"hard\":true,"
			 "\"moves\":1,\"avoid\":\"3\",\"reason\":\"it crashed\"}");
	ok(m, PLACE(1, 2, 1));
	expect_placement(m, "web", true,
			 "{\"node\":\"1\",\"incarnation\":\"3\",\"moves\":1,\"avoid\":\"3\"}");
	expect(m, "{\"vmRelease\":{\"vm\":1,\"incarnation\":3,\"reason\":\"a\\u0007\"}}", INVALID,
	       "reason");
	/* A start by a person too is a new beginning. */
	ok(m, RUN("web", "stop"));
	ok(m, RUN("web", "start"));
	expect_placement(m, "web", true,
			 "{\"node\":\"1\",\"incarnation\":\"3\",\"releasing\":true,\"reason\":\"it "
			 "is stopped by a person\"}");
	ok(m, PLACE(1, 3, 1));
	ok(m, RELEASE(1, 4, ",\"failed\":true"));
	ok(m, PLACE(1, 4, 1));
	/* It runs well: forgotten. */
	ok(m, SETTLE(1, 5, ",\"well\":true"));
	expect_event(m, "vm.well|root@test||b1|web|VM web runs well on b1");
	expect_placement(m, "web", true, "{\"node\":\"1\",\"incarnation\":\"5\"}");
	ok(m, SETTLE(1, 5, ",\"well\":true"));
	assert_int_equal(last.unchanged, 1);
	/* And ends by itself. */
	ok(m, SETTLE(1, 5, ",\"ended\":true,\"reason\":\"its guest powered off\""));
	expect_event(m, "vm.ended|root@test||b1|web|VM web has ended on b1: its guest powered off");
	expect_placement(m, "web", false,
			 "{\"node\":\"1\",\"incarnation\":\"5\",\"releasing\":true,\"hard\":true,"
			 "\"reason\":\"its guest powered off\"}");
}

/* The guest powers itself off because a restart pressed its button: it is not ended. */
static void test_ended_while_restarted(void **state)
{
	struct model *m = *state;

	ok(m, PUT("web", ""));
	ok(m, RUN("web", "start"));
	ok(m, PLACE(1, 0, 2));
	ok(m, RUN("web", "restart"));
	expect(m, SETTLE(1, 1, ",\"ended\":true"), CONFLICT, "vm");
	expect_placement(
		m, "web", true,
		"{\"node\":\"2\",\"incarnation\":\"1\",\"releasing\":true,\"target\":\"2\","
		"\"reason\":\"it is restarted by a person\"}");
}

/* --- boards ---------------------------------------------------------------------------------- */

static void test_node_host(void **state)
{
	static const struct {
		const char *json;
		int refusal;
		const char *field;
	} cases[] = {
		{"{\"nodeHostSet\":{\"id\":1}}", INVALID, "host"},
		{"{\"nodeHostSet\":{\"id\":9,\"host\":{}}}", NOT_FOUND, "id"},
		{"{\"nodeHostSet\":{\"id\":1,\"host\":{\"bridges\":[\"b\",\"a\"]}}}", INVALID,
		 "host.bridges"},
		{"{\"nodeHostSet\":{\"id\":1,\"host\":{\"bridges\":[\"a\",\"a\"]}}}", INVALID,
		 "host.bridges"},
		{"{\"nodeHostSet\":{\"id\":1,\"host\":{\"bridges\":[\"a/b\"]}}}", INVALID,
		 "host.bridges"},
		{"{\"nodeHostSet\":{\"id\":1,\"host\":{\"vcpus\":1025}}}", INVALID, "host.vcpus"},
		{"{\"nodeHostSet\":{\"id\":1,\"host\":{\"whyNot\":\"a\\nb\"}}}", INVALID,
		 "host.whyNot"},
	};
	struct model *m = *state;
	Tb__Node *node;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect(m, cases[i].json, cases[i].refusal, cases[i].field);
	host_set(m, 1, 2000);
	expect_event(m, "node.host|root@test||b1||board b1 hosts virtual machines: 4 cores, 2000 "
			"MiB, bridges: br0");
	host_set(m, 1, 2000);
	assert_int_equal(last.unchanged, 1);
	/* What else is said of the board leaves it. */
	ok(m, "{\"nodeSet\":{\"id\":1,\"version\":\"9\"}}");
	assert_int_equal(store_node_get(m->s, 1, &node), 0);
	assert_int_equal(node->host->memory_mib, 2000);
	tb__node__free_unpacked(node, NULL);
}

/* --- a new history --------------------------------------------------------------------------- */

static char *hex_of(const uint8_t *data, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
		"+/";
	char *text = mem_alloc(len * 4 / 3 + 8);
	size_t out = 0;

	/* base64, as the JSON of bytes is */
	for (size_t i = 0; i < len; i += 3) {
		uint32_t word = (uint32_t)data[i] << 16 |
				(i + 1 < len ? (uint32_t)data[i + 1] << 8 : 0) |
				(i + 2 < len ? data[i + 2] : 0);

		text[out++] = digits[word >> 18];
		text[out++] = digits[word >> 12 & 63];
		text[out++] = i + 1 < len ? digits[word >> 6 & 63] : '=';
		text[out++] = i + 2 < len ? digits[word & 63] : '=';
	}
	text[out] = '\0';
	return text;
}

static void restore_rows(struct model *from, struct model *to, const char *final)
{
	struct snapshot_reader reader;
	struct snapshot_record record;
	struct buf snapshot = {0};
	struct buf json = {0};
	const char *problem;
	bool first = true;

	assert_int_equal(store_snapshot(from->s, &snapshot), 0);
	assert_int_equal(snapshot_open(snapshot.data, snapshot.len, &reader, &problem), 0);
	buf_puts(&json, "{\"clusterRestore\":{\"rows\":[");
	while (snapshot_next(&reader, &record) > 0) {
		char *body;

		if (record.row != TB__SNAPSHOT__RECORD__ROW_IMAGE &&
		    record.row != TB__SNAPSHOT__RECORD__ROW_VM &&
		    record.row != TB__SNAPSHOT__RECORD__ROW_COUNTER)
			continue;
		body = hex_of(record.body, record.len);
		buf_printf(&json, "%s{\"row\":%u,\"body\":\"%s\"}", first ? "" : ",", record.row,
			   body);
		free(body);
		first = false;
	}
	buf_printf(&json, "],\"final\":%s}}", final);
	ok(to, buf_string(&json));
	buf_free(&json);
	buf_free(&snapshot);
}

#define FINAL(old)                                                                                 \
	"{\"cluster\":{\"id\":\"0123456789abcdef0123456789abcdee\",\"name\":\"c1\"},"              \
	"\"secrets\":{},\"oldNode\":" #old                                                         \
	",\"node\":{\"id\":20,\"name\":\"b1\",\"address\":\"h:1\","                                \
	"\"host\":{\"hosts\":true,\"memoryMib\":9}},"                                              \
	"\"certificate\":{\"serial\":\"eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee\",\"kind\":\"node\","      \
	"\"subject\":\"b1\",\"notAfterMs\":10000000}}"

static void test_restore(void **state)
{
	struct model *old = *state;
	Tb__Node *node;
	Tb__Image *image;

	ok(old, PUT("web", ""));
	ok(old, PUT("db", ",\"disks\":[{\"kind\":\"data\",\"sizeMib\":10}]"));
	ok(old, PUT("log", ",\"disks\":[{\"kind\":\"data\",\"sizeMib\":10}]"));
	ok(old, RUN("web", "start"));
	ok(old, RUN("db", "start"));
	ok(old, RUN("log", "start"));
	ok(old, PLACE(1, 0, 2));
	ok(old, PLACE(2, 0, 3));
	ok(old, PLACE(3, 0, 2));
	ok(old, SETTLE(2, 1, ",\"homeDisks\":[\"disk0\"]"));
	ok(old, RUN("web", "restart"));
	ok(old, SET("web", ",\"memoryMib\":64"));
	for (int recovery = 0; recovery < 2; recovery++) {
		struct model m;

		model_open(&m);
		restore_rows(old, &m, recovery ? FINAL(3) : FINAL(0));
		assert_true(vms_changed);
		expect_placement(&m, "web", true,
				 "{\"incarnation\":\"1000001\",\"reason\":\"a new history of the "
				 "cluster begins\"}");
		/* The board that goes on still has the data disks that it had. */
		expect_placement(&m, "db", true,
				 recovery ? "{\"incarnation\":\"1000001\",\"home\":\"20\","
					    "\"reason\":\"a new history of the cluster begins\","
					    "\"homeIncarnation\":\"1\",\"homeDisks\":[\"disk0\"]}"
					  : "{\"incarnation\":\"1000001\",\"home\":\"3\","
					    "\"reason\":\"a new history of the cluster begins\","
					    "\"homeIncarnation\":\"1\",\"homeDisks\":[\"disk0\"]}");
		/* What was made since then is not made anew, and empty, elsewhere. */
		expect_placement(&m, "log", true,
				 "{\"incarnation\":\"1000001\",\"home\":\"2\",\"reason\":\"a new "
				 "history of the cluster begins\",\"homeIncarnation\":\"1\","
				 "\"homeDisks\":[\"disk0\"]}");
		assert_int_equal(store_image_find(m.s, "debian", &image), 0);
		tb__image__free_unpacked(image, NULL);
		/* What a board can host it says itself. */
		assert_int_equal(store_node_get(m.s, 20, &node), 0);
		assert_null(node->host);
		tb__node__free_unpacked(node, NULL);
		store_close(m.s);
	}
}

/* A backup is a file: a row that nobody could use is refused, not stored. */
static void test_restore_damaged(void **state)
{
	struct model m;

	(void)state;
	model_open(&m);
	expect(&m,
	       "{\"clusterRestore\":{\"rows\":[{\"row\":71,\"body\":\"CAESAWE=\"}],"
	       "\"final\":" FINAL(0) "}}",
	       INVALID, "rows");
	store_close(m.s);
}

/* The board is dead and its place is taken: its VMs wait for a person. */
static void test_replaced_board(void **state)
{
	struct model *m = *state;

	ok(m, PUT("db", ",\"disks\":[{\"kind\":\"data\",\"sizeMib\":10}]"));
	ok(m, RUN("db", "start"));
	ok(m, PLACE(1, 0, 2));
	ok(m, SETTLE(1, 1, ",\"homeDisks\":[\"disk0\"]"));
	ok(m, "{\"tokenAdd\":{\"token\":{\"id\":\"00000000000000aa\",\"role\":\"node\","
	      "\"secretSha256\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\","
	      "\"replaces\":2}}}");
	ok(m, "{\"nodeAdd\":{\"tokenId\":\"00000000000000aa\","
	      "\"tokenSecretSha256\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\","
	      "\"node\":{\"id\":9,\"name\":\"b2\",\"address\":\"h:1\"}}}");
	expect_placement(m, "db", true, HOME_DISKS(2, 1, 1, "\"disk0\""));
	host_set(m, 9, 1000);
	expect(m, PLACE(1, 1, 9), CONFLICT, "node");
	ok(m, "{\"vmMove\":{\"name\":\"db\",\"force\":true}}");
	ok(m, PLACE(1, 1, 9));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_images, setup, teardown),
		cmocka_unit_test_setup_teardown(test_image_checks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_image_in_use, setup, teardown),
		cmocka_unit_test_setup_teardown(test_image_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_create, setup, teardown),
		cmocka_unit_test_setup_teardown(test_create_checks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vm_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_change, setup, teardown),
		cmocka_unit_test_setup_teardown(test_revision, setup, teardown),
		cmocka_unit_test_setup_teardown(test_macs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_admission, setup, teardown),
		cmocka_unit_test_setup_teardown(test_grow, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shrink, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_hosts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_run, setup, teardown),
		cmocka_unit_test_setup_teardown(test_delete, setup, teardown),
		cmocka_unit_test_setup_teardown(test_move, setup, teardown),
		cmocka_unit_test_setup_teardown(test_data_disk_added, setup, teardown),
		cmocka_unit_test_setup_teardown(test_data_disks_removed_board, setup, teardown),
		cmocka_unit_test_setup_teardown(test_data_disks_pin, setup, teardown),
		cmocka_unit_test_setup_teardown(test_data_disks_unmade, setup, teardown),
		cmocka_unit_test_setup_teardown(test_data_disks_made, setup, teardown),
		cmocka_unit_test_setup_teardown(test_incarnations, setup, teardown),
		cmocka_unit_test_setup_teardown(test_release, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ended_while_restarted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_node_host, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restore, setup, teardown),
		cmocka_unit_test(test_restore_damaged),
		cmocka_unit_test_setup_teardown(test_replaced_board, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
