/* VMs on the command line: what is understood, and what is told instead. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/vm_spec.h"
#include "proto/json.h"
#include "proto/model.pb-c.h"

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		uint32_t mib; /* 0: refused */
	} cases[] = {
		{"1M", 1},	   {"256M", 256},   {"256MiB", 256},
		{"2G", 2048},	   {"2GiB", 2048},  {"1T", 1 << 20},
		{"1TiB", 1 << 20}, {"", 0},	    {"M", 0},
		{"0M", 0},	   {"12", 0},	    {"12K", 0},
		{"12m", 0},	   {"-1M", 0},	    {"1.5G", 0},
		{"1 G", 0},	   {"4194304G", 0}, {"99999999999999999999M", 0},
		{"1GB", 0},
	};
	char message[VM_SPEC_MESSAGE];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint32_t mib = 0;
		int rv = vm_size_read(cases[i].text, &mib, message);

		if ((rv == 0) != (cases[i].mib != 0) || mib != cases[i].mib)
			print_error("%s: %d, %u\n", cases[i].text, rv, mib);
		assert_int_equal(rv, cases[i].mib != 0 ? 0 : -EINVAL);
		assert_int_equal(mib, cases[i].mib);
		if (rv != 0)
			assert_non_null(strstr(message, "write 256M"));
	}
}

typedef int (*reading)(const char *text, struct buf *out, char message[VM_SPEC_MESSAGE]);

struct reading_case {
	const char *text;
	const char *json; /* or: */
	const char *problem;
};

static void readings(reading read, const struct reading_case *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		char message[VM_SPEC_MESSAGE] = "";
		struct buf out = {0};
		int rv = read(cases[i].text, &out, message);

		if (cases[i].json != NULL) {
			assert_int_equal(rv, 0);
			assert_string_equal(buf_string(&out), cases[i].json);
		} else {
			assert_int_equal(rv, -EINVAL);
			if (strstr(message, cases[i].problem) == NULL)
				print_error("%s: %s\n", cases[i].text, message);
			assert_non_null(strstr(message, cases[i].problem));
		}
		buf_free(&out);
	}
}

static void test_disks(void **state)
{
	static const struct reading_case cases[] = {
		{"image=debian", "{\"kind\":\"image\",\"image\":\"debian\"}", NULL},
		{"image=debian,id=root",
		 "{\"kind\":\"image\",\"image\":\"debian\",\"id\":\"root\"}", NULL},
		{"overlay=debian,size=4G",
		 "{\"kind\":\"overlay\",\"image\":\"debian\",\"sizeMib\":4096}", NULL},
		{"data=10G,id=db", "{\"kind\":\"data\",\"sizeMib\":10240,\"id\":\"db\"}", NULL},
		{"image=a\"b", "{\"kind\":\"image\",\"image\":\"a\\\"b\"}", NULL},
		{"", NULL, "begin with image="},
		{"debian", NULL, "begin with image="},
		{"image=", NULL, "begin with image="},
		{"=x", NULL, "begin with image="},
		{"size=4G,overlay=debian", NULL, "cannot begin with \"size=\""},
		{"qcow2=x", NULL, "cannot begin with"},
		{"data=much", NULL, "is no size"},
		{"data=1G,size=2G", NULL, "size= is for an overlay"},
		{"image=x,size=2G", NULL, "size= is for an overlay"},
		{"image=x,cache=none", NULL, "a disk has no \"cache\""},
		{"image=x,id", NULL, "is not KEY=VALUE"},
	};

	(void)state;
	readings(vm_disk_read, cases, sizeof(cases) / sizeof(cases[0]));
}

static void test_nics(void **state)
{
	static const struct reading_case cases[] = {
		{"br0", "{\"bridge\":\"br0\"}", NULL},
		{"br0,mac=02:00:00:00:00:01", "{\"bridge\":\"br0\",\"mac\":\"02:00:00:00:00:01\"}",
		 NULL},
		{"", NULL, "BRIDGE,mac="},
		{"bridge=br0", NULL, "BRIDGE,mac="},
		{"br0,vlan=7", NULL, "a network card has no \"vlan\""},
		{"br0,mac", NULL, "is not KEY=VALUE"},
	};

	(void)state;
	readings(vm_nic_read, cases, sizeof(cases) / sizeof(cases[0]));
}

/* What the options of a command line make of a VM. */
static int options(const char *const *words, Tb__Vm **ret)
{
	struct invocation inv;
	struct buf members = {0};
	struct json_error error;
	char *argv[40] = {(char *)"witnessctl", (char *)"vm", (char *)"set", (char *)"web"};
	char text[2048];
	int argc = 4;
	int code;
	int rv;

	while (*words != NULL)
		argv[argc++] = (char *)(uintptr_t)*words++;
	assert_int_equal(command_parse(argc, argv, &inv, &code), 0);
	rv = vm_options_read(&inv, &members);
	snprintf(text, sizeof(text), "{%s}", buf_string(&members));
	buf_free(&members);
	*ret = (Tb__Vm *)protobuf_c_message_unpack(&tb__vm__descriptor, NULL, 0, NULL);
	if (rv == EXIT_OK)
		assert_int_equal(json_merge(&(*ret)->base, text, strlen(text), &error), 0);
	return rv;
}

static void test_options(void **state)
{
	static const char *const all[] = {"--kernel",
					  "linux",
					  "--initrd",
					  "rd",
					  "--cpus",
					  "2",
					  "--memory",
					  "1G",
					  "--disk",
					  "overlay=debian",
					  "--disk",
					  "data=1G",
					  "--nic",
					  "br0",
					  "--restart",
					  "on-failure",
					  "--on-loss",
					  "wait",
					  "--priority",
					  "50",
					  "--prefer",
					  "board-1",
					  "--prefer",
					  "board-2",
					  "--require",
					  "none",
					  "--apart",
					  "tier",
					  "-l",
					  "tier=front",
					  "--start-order",
					  "7",
					  "--restart-backoff",
					  "2s",
					  NULL};
	Tb__Vm *vm;

	(void)state;
	assert_int_equal(options(all, &vm), EXIT_OK);
	assert_string_equal(vm->config->kernel, "linux");
	assert_int_equal(vm->config->vcpus, 2);
	assert_int_equal(vm->config->memory_mib, 1024);
	assert_int_equal(vm->config->n_disks, 2);
	assert_int_equal(vm->config->disks[1]->size_mib, 1024);
	assert_string_equal(vm->config->nics[0]->bridge, "br0");
	assert_int_equal(vm->config->restart, TB__VM_RESTART__VM_RESTART_ON_FAILURE);
	assert_int_equal(vm->config->loss, TB__VM_LOSS__VM_LOSS_WAIT);
	assert_int_equal(vm->config->restart_backoff_ms, 2000);
	assert_int_equal(vm->config->n_prefer, 2);
	assert_int_equal(vm->config->n_require, 0);
	assert_int_equal(vm->config->start_order, 7);
	assert_string_equal(vm->labels[0]->value, "front");
	tb__vm__free_unpacked(vm, NULL);
}

static void test_options_refused(void **state)
{
	static const char *const cases[][3] = {
		{"--disk", "x", NULL},
		{"--memory", "12", NULL},
		{"--nic", "", NULL},
		{"-l", "front", NULL},
	};
	Tb__Vm *vm;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(options(cases[i], &vm), EXIT_USAGE);
		tb__vm__free_unpacked(vm, NULL);
	}
}

/* Nothing given is nothing said: a merge patch that changes nothing. */
static void test_options_none(void **state)
{
	static const char *const none[] = {NULL};
	static const char *const away[] = {"-l", "tier-", NULL};
	Tb__Vm *vm;

	(void)state;
	assert_int_equal(options(none, &vm), EXIT_OK);
	assert_null(vm->config);
	tb__vm__free_unpacked(vm, NULL);
	assert_int_equal(options(away, &vm), EXIT_OK);
	assert_int_equal(vm->n_labels, 0);
	tb__vm__free_unpacked(vm, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_disks),
		cmocka_unit_test(test_nics),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_options_refused),
		cmocka_unit_test(test_options_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
