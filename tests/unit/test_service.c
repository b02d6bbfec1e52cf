/* The times in packaging/witnessd.service beside those in the code that they are to fit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "board/watchdog.h"
#include "lib/text.h"
#include "witnessd/host_internal.h"

enum {
	FED_S = 1, /* the watchdog was fed so long before, at most: board/feeding.c */
	START_S = 5, /* from the start to the first feeding, on a slow card */
	/* After the VMs: links, then addresses, the log, the piece that is being copied. */
	END_S = HOST_LINK_CLOSE_MS / 1000 + 10,
};

/* The number of a setting that is there once; -1: it is not. */
static long setting(const char *name)
{
	FILE *f = fopen(TEST_DATA "/../../../packaging/witnessd.service", "r");
	size_t len = strlen(name);
	long value = -1;
	char line[256];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		uint64_t number;

		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, name, len) != 0 || line[len] != '=')
			continue;
		assert_int_equal(value, -1);
		assert_int_equal(text_to_u64(line + len + 1, 0, 1000, &number), 0);
		value = (long)number;
	}
	fclose(f);
	return value;
}

/* A crash leaves the watchdog armed. */
static void test_restart_before_watchdog(void **state)
{
	long restart_s = setting("RestartSec");

	(void)state;
	assert_true(restart_s >= 1); /* a program that cannot start leaves the processor alone */
	assert_true(FED_S + restart_s + START_S < WATCHDOG_TIMEOUT_MIN);
	assert_in_range(WATCHDOG_TIMEOUT_DEFAULT, WATCHDOG_TIMEOUT_MIN, 15); /* a Pi's most */
	/* Nor does the service manager give up after some. */
	assert_int_equal(setting("StartLimitIntervalSec"), 0);
}

static void test_stop_in_time(void **state)
{
	(void)state;
	assert_true(setting("TimeoutStopSec") >= HOST_STOP_MS / 1000 + END_S);
}

/* Which images are right is remembered in the run directory: not anew after a crash or an upgrade,
 * but nothing of it is left behind by a stop. */
static void test_images_remembered(void **state)
{
	FILE *f = fopen(TEST_DATA "/../../../packaging/witnessd.service", "r");
	unsigned preserves = 0;
	char line[256];

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL)
		preserves += strcmp(line, "RuntimeDirectoryPreserve=restart\n") == 0;
	fclose(f);
	assert_int_equal(preserves, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_restart_before_watchdog),
		cmocka_unit_test(test_stop_in_time),
		cmocka_unit_test(test_images_remembered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
