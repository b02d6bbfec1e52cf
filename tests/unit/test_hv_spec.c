/* The spec of a VM: what is taken, what is filled in, and one clear error for each bad one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv/spec.h"
#include "lib/buf.h"
#include "proto/json.h"

#define SMALL "\"name\":\"vm-1\",\"kernel\":\"Image\""

/* 0 and *ret, or the error and its sentence. */
static int spec_make(const char *text, const char *folder, bool paths, Tb__VmSpec **ret,
		     struct fault *fault)
{
	Tb__VmSpec *spec = NULL;
	int rv;

	*ret = NULL;
	*fault = (struct fault){0};
	rv = spec_parse(text, strlen(text), folder, &spec, fault);
	if (rv == 0) {
		rv = spec_finish(spec, paths, fault);
	}
	if (rv != 0) {
		spec_free(spec);
		return rv;
	}
	*ret = spec;
	return 0;
}

static void test_defaults(void **state)
{
	struct fault fault;
	Tb__VmSpec *s;

	(void)state;
	assert_int_equal(spec_make("{" SMALL ",\"disks\":[{\"path\":\"/d\"},{\"path\":\"e\"}],"
				   "\"nics\":[{\"tap\":\"t0\"},{\"tap\":\"t1\"}]}",
				   "/vms/one", true, &s, &fault),
			 0);
	assert_int_equal(s->vcpus, 1);
	assert_int_equal(s->memory_mib, 128);
	assert_string_equal(s->kernel, "/vms/one/Image");
	assert_string_equal(s->initrd, "");
	assert_string_equal(s->command_line, "console=hvc0 quiet");
	assert_string_equal(s->disks[0]->path, "/d");
	assert_string_equal(s->disks[1]->path, "/vms/one/e");
	assert_string_equal(s->disks[0]->id, "disk0");
	assert_string_equal(s->disks[1]->id, "disk1");
	assert_int_equal(s->lease_ms, 0);
	assert_string_not_equal(s->nics[0]->mac, s->nics[1]->mac);
	spec_free(s);
}

static void test_whole_spec(void **state)
{
	static const char text[] =
		"{\"name\":\"web-01\",\"kernel\":\"/k\",\"initrd\":\"/i\",\"commandLine\":\"quiet "
		"a=b\","
		"\"vcpus\":8,\"memoryMib\":65536,\"backing\":\"memfd\","
		"\"disks\":[{\"path\":\"/d\",\"readOnly\":true,\"id\":\"root\",\"direct\":true}],"
		"\"nics\":[{\"tap\":\"t0\",\"mac\":\"52:54:00:AB:cd:0f\"}],"
		"\"noBalloon\":true,\"vsockCid\":3,\"leaseMs\":3000,"
		"\"sandbox\":{\"uid\":100000,\"gid\":100000,\"cgroup\":\"/sys/fs/cgroup/vm\"},"
		"\"control\":\"c.sock\",\"gic\":\"v2\","
		"\"generationId\":\"00112233445566778899aabbccddeeff\",\"onReset\":\"exit\"}";
	struct fault fault;
	Tb__VmSpec *s;
	uint8_t id[16];

	(void)state;
	assert_int_equal(spec_make(text, "/f", true, &s, &fault), 0);
	assert_int_equal(s->vcpus, 8);
	assert_int_equal(s->memory_mib, 65536);
	assert_string_equal(s->nics[0]->mac, "52:54:00:ab:cd:0f");
	assert_string_equal(s->control, "/f/c.sock");
	assert_int_equal(spec_generation_parse(s->generation_id, id), 0);
	assert_int_equal(id[0], 0);
	assert_int_equal(id[15], 0xff);
	spec_free(s);
}

static void test_restore(void **state)
{
	struct fault fault;
	Tb__VmSpec *s;

	(void)state;
	assert_int_equal(spec_make("{\"name\":\"a\",\"backing\":\"shared\","
				   "\"disks\":[{\"path\":\"d\",\"asSaved\":true}],"
				   "\"restore\":{\"state\":\"s\",\"memory\":\"m\"}}",
				   "/f", true, &s, &fault),
			 0);
	assert_true(s->disks[0]->as_saved);
	assert_string_equal(s->restore->state, "/f/s");
	assert_string_equal(s->restore->memory, "/f/m");
	assert_string_equal(s->command_line, "");
	spec_free(s);
}

/* The machine stays, its guest is another; what is said of the run is said after. */
static void test_restore_from_folder(void **state)
{
	static const char text[] =
		"{" SMALL ",\"initrd\":\"i\",\"commandLine\":\"quiet\",\"memoryMib\":64,"
		"\"generationId\":\"00112233445566778899aabbccddeeff\"}";
	struct fault fault = {0};
	Tb__VmSpec *s;

	(void)state;
	assert_int_equal(spec_parse(text, strlen(text), "/f", &s, &fault), 0);
	assert_int_equal(spec_restore(s, "snap", &fault), 0);
	assert_int_equal(spec_override(s, "restore.paused=true", &fault), 0);
	assert_int_equal(spec_finish(s, true, &fault), 0);
	assert_string_equal(s->kernel, "");
	assert_string_equal(s->initrd, "");
	assert_string_equal(s->command_line, "");
	assert_string_equal(s->generation_id, "");
	assert_string_equal(s->restore->state, "snap/state");
	assert_string_equal(s->restore->memory, "snap/memory");
	assert_true(s->restore->paused);
	assert_int_equal(s->memory_mib, 64);
	spec_free(s);
}

static void test_supervised_needs_no_paths(void **state)
{
	struct fault fault;
	Tb__VmSpec *s;

	(void)state;
	assert_int_equal(spec_make("{\"name\":\"a\",\"disks\":[{},{}],\"nics\":[{},{}]}", NULL,
				   false, &s, &fault),
			 0);
	assert_int_equal(s->n_disks, 2);
	assert_string_equal(s->disks[0]->path, "");
	spec_free(s);
}

static void test_refused(void **state)
{
	static const struct {
		const char *text;
		const char *message; /* whole, or its beginning up to '*' */
	} cases[] = {
		{"", "line 1: *"},
		{"\x7f"
		 "ELF",
		 "line 1: *"},
		{"[]", "must be an object*"},
		{"{" SMALL ",\"memroyMib\":1}",
		 "memroyMib: unknown field \"memroyMib\"; did you mean \"memoryMib\"?"},
		{"{" SMALL ",\"disks\":[{\"pth\":\"x\"}]}",
		 "disks[0].pth: unknown field \"pth\" in disks[0]; did you mean \"path\"?"},
		{"{" SMALL ",\"vcpus\":\"two\"}",
		 "vcpus: must be a whole number from 0 to 4294967295"},
		{"{" SMALL ",\"vcpus\":-1}", "vcpus: must be a whole number from 0 to 4294967295"},
		{"{" SMALL ",\"disks\":{}}", "disks: must be an array"},
		{"{" SMALL ",\"name\":\"b\"}", "line 1: *"},
		{"{\"kernel\":\"Image\"}", "name: must be given"},
		{"{\"name\":\"Vm\",\"kernel\":\"Image\"}",
		 "name: must be 1 to 63 characters from a-z, 0-9 and -"},
		{"{\"name\":\"0123456789012345678901234567890123456789012345678901234567890123\"}",
		 "name: must be 1 to 63 characters from a-z, 0-9 and -"},
		{"{\"name\":\"a\"}",
		 "kernel: must be given (the path of an arm64 Linux Image), or restore"},
		{"{" SMALL ",\"restore\":{\"state\":\"s\",\"memory\":\"m\"}}",
		 "restore: excludes kernel, initrd and commandLine; the snapshot has the running "
		 "ones"},
		{"{\"name\":\"a\",\"restore\":{\"state\":\"s\"}}", "restore.memory: must be given"},
		{"{\"name\":\"a\",\"restore\":{}}", "restore.state: must be given"},
		{"{" SMALL ",\"vcpus\":9}", "vcpus: 9 is not between 1 and 8"},
		{"{" SMALL ",\"memoryMib\":1}", "memoryMib: 1 is not between 16 and 65536 MiB"},
		{"{" SMALL ",\"memoryMib\":1048576}",
		 "memoryMib: 1048576 is not between 16 and 65536 MiB"},
		{"{" SMALL ",\"backing\":\"shared\"}",
		 "backing: \"shared\" shares the memory file of a snapshot; it needs restore"},
		{"{" SMALL ",\"gic\":\"v4\"}", "gic: *"},
		{"{" SMALL ",\"commandLine\":\"a\\nb\"}", "commandLine: has a control character"},
		{"{" SMALL ",\"disks\":[{}]}", "disks[0].path: must be given"},
		{"{" SMALL ",\"disks\":[{\"path\":\"a\"},{\"path\":\"a\",\"readOnly\":true}]}",
		 "disks[1].path: is disks[0] again"},
		{"{" SMALL ",\"disks\":[{\"path\":\"a\",\"id\":\"disk1\"},{\"path\":\"b\"}]}",
		 "disks[1].id: \"disk1\" is the id of disks[0] too"},
		{"{" SMALL ",\"disks\":[{\"path\":\"a\",\"id\":\"123456789012345678901\"}]}",
		 "disks[0].id: 21 bytes; at most 20"},
		{"{" SMALL ",\"disks\":[{\"path\":\"a\"},{\"path\":\"b\"},{\"path\":\"c\"},"
		 "{\"path\":\"d\"},{\"path\":\"e\"},{\"path\":\"f\"},{\"path\":\"g\"},"
		 "{\"path\":\"h\"},{\"path\":\"i\"}]}",
		 "disks: 9; at most 8"},
		{"{" SMALL ",\"disks\":[{\"path\":\"a\",\"asSaved\":true}]}",
		 "disks[0].asSaved: says what a disk holds at a restore; leave it out, or give "
		 "restore"},
		{"{" SMALL ",\"nics\":[{}]}",
		 "nics[0].tap: must be given, the name of a tap interface"},
		{"{" SMALL ",\"nics\":[{\"tap\":\"0123456789012345\"}]}",
		 "nics[0].tap: 16 bytes; at most 15"},
		{"{" SMALL ",\"nics\":[{\"tap\":\"t%d\"}]}",
		 "nics[0].tap: \"t%d\" is no interface's name"},
		{"{" SMALL ",\"nics\":[{\"tap\":\"t0\"},{\"tap\":\"t0\"}]}",
		 "nics[1].tap: \"t0\" is the tap of nics[0] too"},
		{"{" SMALL ",\"nics\":[{\"tap\":\"t0\",\"mac\":\"52:54:00:00:00:01\"},"
		 "{\"tap\":\"t1\",\"mac\":\"52:54:00:00:00:01\"}]}",
		 "nics[1].mac: 52:54:00:00:00:01 is the address of nics[0] too"},
		{"{" SMALL ",\"nics\":[{\"tap\":\"t0\",\"mac\":\"01:54:00:00:00:01\"}]}",
		 "nics[0].mac: \"01:54:00:00:00:01\" is not the address of one card; write it as "
		 "52:54:00:12:34:56"},
		{"{" SMALL ",\"nics\":[{\"tap\":\"t0\",\"mac\":\"525400000001\"}]}",
		 "nics[0].mac: \"525400000001\" is not *"},
		{"{" SMALL ",\"nics\":[{\"tap\":\"t0\",\"mac\":\"\\u001b[2J\"}]}",
		 "nics[0].mac: has a control character"},
		{"{" SMALL ",\"nics\":[{\"tap\":\"a\"},{\"tap\":\"b\"},{\"tap\":\"c\"},"
		 "{\"tap\":\"d\"},{\"tap\":\"e\"}]}",
		 "nics: 5; at most 4"},
		{"{" SMALL ",\"vsockCid\":2}", "vsockCid: 2 is not between 3 and 4294967294"},
		{"{" SMALL ",\"vsockCid\":4294967295}",
		 "vsockCid: 4294967295 is not between 3 and 4294967294"},
		{"{" SMALL ",\"leaseMs\":99}", "leaseMs: 99 is not between 100 and 86400000 ms"},
		{"{" SMALL ",\"generationId\":\"12\"}",
		 "generationId: must be 32 hexadecimal digits"},
		{"{" SMALL ",\"sandbox\":{\"uid\":1000}}",
		 "sandbox: uid and gid go together, and neither is 0"},
		{"{" SMALL
		 ",\"control\":\"/x0123456789012345678901234567890123456789012345678901234567"
		 "890123456789012345678901234567890123456789012345\"}",
		 "control: the path of a socket has at most 107 bytes, *"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *star = strchr(cases[i].message, '*');
		struct fault fault;
		Tb__VmSpec *s = NULL;

		if (spec_make(cases[i].text, NULL, true, &s, &fault) != -EINVAL) {
			fail_msg("taken: %s", cases[i].text);
		}
		if (star != NULL) {
			fault.text[star - cases[i].message + 1] = '\0';
			fault.text[star - cases[i].message] = '*';
		}
		assert_string_equal(fault.text, cases[i].message);
	}
}

/* What JSON cannot say, a protobuf message can. */
static void test_numbers_without_words(void **state)
{
	struct fault fault = {0};
	Tb__VmSpec *s;

	(void)state;
	assert_int_equal(spec_make("{" SMALL "}", NULL, true, &s, &fault), 0);
	s->gic = (Tb__GicVersion)1;
	assert_int_equal(spec_finish(s, true, &fault), -EINVAL);
	assert_string_equal(fault.text, "gic: 1 is none of its values");
	spec_free(s);
}

static void test_overrides(void **state)
{
	static const struct {
		const char *assignment;
		const char *message; /* NULL: taken */
	} cases[] = {
		{"memoryMib=256", NULL},
		{"noRng=true", NULL},
		{"sandbox.off=true", NULL},
		{"backing=anonymous", NULL},
		{"disks[0].readOnly=true", NULL},
		{"disks[1].path=more.img", NULL},
		{"nics[0].tap=tap7", NULL},
		{"memoryMib", "\"memoryMib\" sets nothing; write FIELD=VALUE, as in memoryMib=256"},
		{"=1", "\"=1\" sets nothing; write FIELD=VALUE, as in memoryMib=256"},
		{"memoryMib=lots", "memoryMib: must be a whole number from 0 to 4294967295"},
		{"memory=1", "memory: unknown field \"memory\"; did you mean \"memoryMib\"?"},
		{"disks[3].path=x", "disks[3].path: disks[3] is neither there nor the next one"},
		{"disks[x].path=x",
		 "disks[x].path: write one item as disks[0].path or nics[0].tap"},
		{"disks[0]=x", "disks[0]: write one item as disks[0].path or nics[0].tap"},
		{"knobs[0].path=x", "knobs[0].path: knobs[0] is neither there nor the next one"},
	};
	struct fault fault = {0};
	Tb__VmSpec *s;

	(void)state;
	assert_int_equal(
		spec_parse("{" SMALL ",\"disks\":[{\"path\":\"d\"}]}",
			   strlen("{" SMALL ",\"disks\":[{\"path\":\"d\"}]}"), "/f", &s, &fault),
		0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int rv;

		fault = (struct fault){0};
		rv = spec_override(s, cases[i].assignment, &fault);
		assert_int_equal(rv, cases[i].message == NULL ? 0 : -EINVAL);
		assert_string_equal(fault.text, cases[i].message == NULL ? "" : cases[i].message);
	}
	assert_int_equal(spec_finish(s, true, &fault), 0);
	assert_int_equal(s->memory_mib, 256);
	assert_true(s->disks[0]->read_only);
	assert_string_equal(s->disks[0]->path, "/f/d");
	assert_string_equal(s->disks[1]->path, "more.img");
	assert_string_equal(s->nics[0]->tap, "tap7");
	assert_true(s->sandbox->off);
	spec_free(s);
}

static void test_derived_addresses(void **state)
{
	char first[18];
	char again[18];
	char seen[4000][18];
	uint8_t mac[6];
	unsigned count = 0;

	(void)state;
	spec_mac_derive("vm-1", 0, first);
	spec_mac_derive("vm-1", 0, again);
	assert_string_equal(first, again);
	for (unsigned vm = 0; vm < 1000; vm++) {
		char name[16];

		snprintf(name, sizeof(name), "vm-%u", vm);
		for (unsigned nic = 0; nic < 4; nic++) {
			spec_mac_derive(name, nic, seen[count]);
			assert_int_equal(spec_mac_parse(seen[count], mac), 0);
			assert_int_equal(mac[0] & 3, 2);
			count++;
		}
	}
	qsort(seen, count, sizeof(seen[0]), (int (*)(const void *, const void *))strcmp);
	for (unsigned i = 1; i < count; i++) {
		assert_string_not_equal(seen[i - 1], seen[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_whole_spec),
		cmocka_unit_test(test_restore),
		cmocka_unit_test(test_restore_from_folder),
		cmocka_unit_test(test_supervised_needs_no_paths),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_numbers_without_words),
		cmocka_unit_test(test_overrides),
		cmocka_unit_test(test_derived_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
