/* The daemon's settings: good files, and one clear error for each bad one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "witnessd/config.h"

static void test_defaults_are_enough(void **state)
{
	struct config c;
	char *message = NULL;

	(void)state;
	config_init(&c);
	assert_int_equal(config_finish(&c, &message), 0);
	assert_string_equal(c.listen, "*:7443");
	assert_string_equal(c.sites_listen, "*:5403");
	assert_string_equal(c.data_dir, "/var/lib/tiebreak");
	assert_int_equal(c.tls, CONFIG_TLS_ON);
	assert_true(c.client_certificate);
	assert_null(c.watchdog);
	assert_int_equal(c.watchdog_timeout_ms, 15000);
	assert_false(c.watchdog_keep);
	assert_non_null(strstr(c.advertise, ":7443"));
	assert_non_null(strstr(c.sites_advertise, ":5403"));
	config_free(&c);
}

static void test_whole_file(void **state)
{
	static const char text[] = "# a board\n"
				   "[node]\n"
				   "name = rack-7\r\n"
				   "  log-level=debug\n"
				   "watchdog = /dev/watchdog1\n"
				   "watchdog-timeout = 1m\n"
				   "watchdog-keep = on\n"
				   "\n"
				   "[api]\n"
				   "listen = 10.0.0.7:7443\n"
				   "[sites]\n"
				   "tls = required\n"
				   "client-certificate = off\n"
				   "sessions-max = 100\n"
				   "[vms]\n"
				   "image-space-mib = 4096";
	struct config c;
	char *message = NULL;

	(void)state;
	config_init(&c);
	assert_int_equal(config_parse(&c, "f", text, sizeof(text) - 1, &message), 0);
	assert_int_equal(config_finish(&c, &message), 0);
	assert_string_equal(c.name, "rack-7");
	assert_int_equal(c.log_level, 7);
	assert_string_equal(c.watchdog, "/dev/watchdog1");
	assert_int_equal(c.watchdog_timeout_ms, 60000);
	assert_true(c.watchdog_keep);
	assert_string_equal(c.advertise, "10.0.0.7:7443");
	assert_string_equal(c.sites_advertise, "10.0.0.7:5403");
	assert_int_equal(c.tls, CONFIG_TLS_REQUIRED);
	assert_false(c.client_certificate);
	assert_int_equal(c.sessions_max, 100);
	assert_int_equal(c.image_space_mib, 4096);
	config_free(&c);
}

static void test_refused(void **state)
{
	static const struct {
		const char *text;
		const char *message;
	} cases[] = {
		{"[node]\nnmae = x\n",
		 "f:2: unknown setting \"node.nmae\"; did you mean \"node.name\"?"},
		{"[nodes]\nname = x\n",
		 "f:2: unknown setting \"nodes.name\"; did you mean \"node.name\"?"},
		{"name = x\n", "f:1: a setting before any [section]"},
		{"[node\n", "f:1: a section is one of [node], [api], [sites], [vms], [addresses]"},
		{"[vms]\nimage-space-mib = 4G\n",
		 "f:2: vms.image-space-mib \"4G\" is not a whole number from 0 to 1048576"},
		{"[node]\nname\n", "f:2: expected \"key = value\", \"[section]\" or \"# comment\""},
		{"[node]\nname =\n", "f:2: node.name is empty; leave the line out for the default"},
		{"[node]\nname = a\nname = b\n", "f:3: node.name is set twice in this file"},
		{"[node]\ndata-dir = var\n",
		 "f:2: node.data-dir must be an absolute path such as /var/lib/tiebreak"},
		{"[sites]\ntls = maybe\n",
		 "f:2: sites.tls \"maybe\" is not one of: off, on, required"},
		{"[sites]\nsessions-max = 200000\n",
		 "f:2: sites.sessions-max \"200000\" is not a whole number from 0 to 100000"},
		{"[node]\nname = \xff\n", "f: not a configuration file: not UTF-8 text"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config c;
		char *message = NULL;

		config_init(&c);
		assert_int_equal(
			config_parse(&c, "f", cases[i].text, strlen(cases[i].text), &message),
			-EINVAL);
		assert_string_equal(message, cases[i].message);
		free(message);
		config_free(&c);
	}
}

static void test_watchdog(void **state)
{
	static const struct {
		const char *name, *value;
		const char *message; /* NULL: fine */
	} cases[] = {
		{"node.watchdog", "off", NULL},
		{"node.watchdog", "/dev/watchdog", NULL},
		{"node.watchdog", "on", "must be off or the path of a watchdog"},
		{"node.watchdog", "dev/watchdog", "such as /dev/watchdog"},
		{"node.watchdog-timeout", "10s", NULL},
		{"node.watchdog-timeout", "15s", NULL},
		{"node.watchdog-timeout", "5m", NULL},
		{"node.watchdog-timeout", "9s",
		 "from 10s to 300s, such as 15s; with less a crash of witnessd would reset the "
		 "board"},
		{"node.watchdog-timeout", "301s", "from 10s to 300s"},
		{"node.watchdog-timeout", "5500ms", "whole seconds"},
		{"node.watchdog-timeout", "15", "such as 15s"},
		{"node.watchdog-keep", "yes", "off, on"},
	};
	struct config c;

	(void)state;
	config_init(&c);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *message = NULL;
		int rv = config_set(&c, cases[i].name, cases[i].value, &message);

		assert_int_equal(rv, cases[i].message == NULL ? 0 : -EINVAL);
		if (cases[i].message != NULL && strstr(message, cases[i].message) == NULL)
			fail_msg("case %zu: %s", i, message);
		free(message);
	}
	/* "off" after a path. */
	assert_int_equal(config_set(&c, "node.watchdog", "off", &(char *){NULL}), 0);
	assert_null(c.watchdog);
	config_free(&c);
}

static void test_addresses(void **state)
{
	static const struct {
		const char *name;
		const char *value;
		const char *message; /* NULL: fine */
	} cases[] = {
		{"api.listen", "[::1]:7443", NULL},
		{"api.listen", "[::]:7443", NULL},
		{"api.listen", "7443", "HOST:PORT"},
		{"api.listen", "::1:7443", "HOST:PORT"},
		{"api.listen", "host:70000", "HOST:PORT"},
		{"api.advertise", "0.0.0.0:7443", "as others reach it"},
		{"api.advertise", "*:7443", "as others reach it"},
		{"api.advertise", "witness.example:7443", NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config c;
		char *message = NULL;
		int rv;

		config_init(&c);
		assert_int_equal(config_set(&c, cases[i].name, cases[i].value, &message), 0);
		rv = config_finish(&c, &message);
		assert_int_equal(rv, cases[i].message == NULL ? 0 : -EINVAL);
		if (cases[i].message != NULL)
			assert_non_null(strstr(message, cases[i].message));
		free(message);
		config_free(&c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults_are_enough),
		cmocka_unit_test(test_whole_file),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_watchdog),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
