/* The filter program of the sandbox: what it allows and refuses, rule by rule. (That it judges the
 * real list as libseccomp's program does is seen whenever it is made: hv/main_sandbox_filter.c.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "hv/sandbox_program.h"

enum { ARCH = 0x1234, ROOM = 512 };

#define WORD UINT64_C(0xffffffff)

static const struct program_rule rules[] = {
	{.call = 5},
	{.call = 6},
	{.call = 300},
	{.call = 400},
	{.call = 401}, /* more than one among others */
	{.call = 7, .count = 1, .conditions = {{1, WORD, 10}}},
	{.call = 7, .count = 1, .conditions = {{1, WORD, 11}}},
	{.call = 9, .count = 2, .conditions = {{2, 4, 0}, {3, 32, 32}}},
	{.call = 11, .count = 1, .conditions = {{4, UINT64_MAX, UINT64_C(0x500000007)}}},
	{.call = 7, .count = 2, .conditions = {{1, WORD, 12}, {0, WORD, 1}}},
};

static bool allows(const struct sock_filter *p, size_t len, struct seccomp_data data)
{
	uint32_t said = program_run(p, len, &data);

	assert_true(said == SECCOMP_RET_ALLOW || said == SECCOMP_RET_KILL_PROCESS);
	return said == SECCOMP_RET_ALLOW;
}

static void test_judges(void **state)
{
	static const struct {
		bool allowed;
		struct seccomp_data data;
	} cases[] = {
		{true, {.nr = 5, .arch = ARCH}},
		{true, {.nr = 6, .arch = ARCH}},
		{true, {.nr = 300, .arch = ARCH}},
		{false, {.nr = 5, .arch = ARCH + 1}},
		{false, {.nr = 4, .arch = ARCH}},
		{false, {.nr = 8, .arch = ARCH}},
		{false, {.nr = 0, .arch = ARCH}},
		{false, {.nr = 299, .arch = ARCH}},
		{false, {.nr = 301, .arch = ARCH}},
		{false, {.nr = PROGRAM_CALLS + 5, .arch = ARCH}},
		{false, {.nr = -1, .arch = ARCH}},
		{true, {.nr = 7, .arch = ARCH, .args = {0, 10}}},
		{true, {.nr = 7, .arch = ARCH, .args = {0, 11}}},
		{false, {.nr = 7, .arch = ARCH, .args = {0, 12}}},
		{true, {.nr = 7, .arch = ARCH, .args = {1, 12}}},
		{false, {.nr = 7, .arch = ARCH, .args = {10, 0}}},
		/* The upper half is not looked at. */
		{true, {.nr = 7, .arch = ARCH, .args = {0, UINT64_C(0x70000000a)}}},
		{true, {.nr = 9, .arch = ARCH, .args = {0, 0, 3, 35}}},
		{false, {.nr = 9, .arch = ARCH, .args = {0, 0, 7, 35}}},
		{false, {.nr = 9, .arch = ARCH, .args = {0, 0, 3, 3}}},
		{true, {.nr = 11, .arch = ARCH, .args = {[4] = UINT64_C(0x500000007)}}},
		{false, {.nr = 11, .arch = ARCH, .args = {[4] = UINT64_C(0x400000007)}}},
		{false, {.nr = 11, .arch = ARCH, .args = {[4] = UINT64_C(0x500000006)}}},
	};
	struct sock_filter program[ROOM];
	size_t len = program_make(rules, sizeof(rules) / sizeof(rules[0]), ARCH, program, ROOM);

	(void)state;
	assert_true(len > 0 && len < ROOM);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (allows(program, len, cases[i].data) != cases[i].allowed) {
			print_error("case %zu, call %d\n", i, cases[i].data.nr);
			fail();
		}
	}
	for (int call = 0; call < 2 * PROGRAM_CALLS; call++) {
		assert_int_equal(
			allows(program, len, (struct seccomp_data){.nr = call, .arch = ARCH}),
			call == 5 || call == 6 || call == 300 || call == 400 || call == 401);
	}
}

static void test_room(void **state)
{
	struct sock_filter program[ROOM];
	size_t count = sizeof(rules) / sizeof(rules[0]);
	size_t len = program_make(rules, count, ARCH, program, ROOM);

	(void)state;
	assert_int_equal(program_make(rules, count, ARCH, program, len), len);
	assert_int_equal(program_make(rules, count, ARCH, program, len - 1), 0);
}

/* A jump over 255 instructions cannot be: half as many rules would do. */
static void test_too_far(void **state)
{
	enum { MANY = 70 };
	static struct program_rule many[MANY];
	struct sock_filter program[ROOM];

	(void)state;
	for (unsigned i = 0; i < MANY; i++) {
		many[i] = (struct program_rule){
			.call = 2 * i, .count = 1, .conditions = {{0, UINT64_MAX, i}}};
	}
	assert_int_equal(program_make(many, MANY, ARCH, program, ROOM), 0);
	assert_true(program_make(many, MANY / 2, ARCH, program, ROOM) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_judges),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_too_far),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
