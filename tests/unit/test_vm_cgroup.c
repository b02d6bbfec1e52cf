/* The limits of a VM's cgroup, as files; whether a kernel obeys is for the tests on boards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "witnessd/vm_cgroup.h"

static char base[64];

static void path_of(const char *file, char path[128])
{
	snprintf(path, 128, "%s/web/%s", base, file);
}

/* The kernel makes these with the folder. */
static void file_make(const char *file)
{
	char path[128];

	path_of(file, path);
	assert_int_equal(close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)), 0);
}

static void expect_file(const char *file, const char *text)
{
	char path[128];
	char got[64] = "";
	FILE *f;

	path_of(file, path);
	f = fopen(path, "r");
	assert_non_null(f);
	(void)!fgets(got, sizeof(got), f);
	fclose(f);
	assert_int_equal(unlink(path), 0);
	assert_string_equal(got, text);
}

static int make(bool memory, bool pids)
{
	char path[VM_CGROUP_PATH];
	struct problem problem;

	path_of("", path);
	assert_int_equal(mkdir(path, 0700), 0);
	if (memory)
		file_make("memory.max");
	if (pids)
		file_make("pids.max");
	return vm_cgroup_make(base, "web", 64, path, &problem);
}

static void test_limits(void **state)
{
	char path[128];

	(void)state;
	path_of("", path);
	assert_int_equal(make(true, true), 0);
	expect_file("memory.max", "201326592"); /* (64 + 128) MiB */
	expect_file("pids.max", "128");
	vm_cgroup_remove(path);
	/* A kernel without control of memory. */
	assert_int_equal(make(false, true), 0);
	expect_file("pids.max", "128");
	vm_cgroup_remove(path);
	/* None at all is no limit, and told; nothing stays. */
	assert_int_equal(make(false, false), -ENOENT);
	assert_int_equal(access(path, F_OK), -1);
}

static int setup(void **state)
{
	(void)state;
	snprintf(base, sizeof(base), "%s/cgroup-XXXXXX",
		 getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
	return mkdtemp(base) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return rmdir(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
