/* Which cores a VM is kept to: one kind of those that it is allowed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/affinity.h"

enum { A53 = 0x410fd034, A72 = 0x410fd082, A72_LATER = 0x410fd083, A76 = 0x414fd0b1 };

static cpu_set_t set_of(uint64_t bits)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (unsigned i = 0; i < 64; i++) {
		if (bits >> i & 1) {
			CPU_SET(i, &set);
		}
	}
	return set;
}

static void test_choose(void **state)
{
	static const struct {
		unsigned count;
		uint32_t midr[8];
		uint64_t allowed;
		uint64_t chosen; /* 0: nothing is changed */
		uint32_t kind;
	} cases[] = {
		/* Alike: a Pi 4, whole and in part. */
		{4, {A72, A72, A72, A72}, 0xf, 0, 0},
		{4, {A72, A72, A72, A72}, 0x6, 0, 0},
		{1, {A72}, 0x1, 0, 0},
		/* RK3399: most of what is allowed, which may be the large ones. */
		{6, {A53, A53, A53, A53, A72, A72}, 0x3f, 0x0f, A53},
		{6, {A53, A53, A53, A53, A72, A72}, 0x31, 0x30, A72},
		{6, {A53, A53, A53, A53, A72, A72}, 0x30, 0, 0},
		{6, {A53, A53, A53, A53, A72, A72}, 0x0f, 0, 0},
		/* As many of both: the larger ones, whatever their order. */
		{6, {A53, A53, A53, A53, A72, A72}, 0x36, 0x30, A72},
		{4, {A53, A53, A76, A76}, 0xf, 0xc, A76},
		{4, {A76, A76, A53, A53}, 0xf, 0x3, A76},
		{4, {A53, A76, A53, A76}, 0xf, 0xa, A76},
		{3, {A53, A72, A76}, 0x7, 0x4, A76},
		/* Another revision is another kind: a guest reads it. */
		{3, {A72, A72_LATER, A72_LATER}, 0x7, 0x6, A72_LATER},
		/* Not known, off line, beyond what was read. */
		{4, {0, 0, 0, 0}, 0xf, 0, 0},
		{4, {A53, 0, A72, A72}, 0xf, 0, 0},
		{4, {A53, 0, A72, A72}, 0xd, 0xc, A72},
		{3, {A53, A72, A72}, 0xf, 0, 0},
		{2, {A53, A72}, UINT64_C(1) << 63 | 1, 0, 0},
		{0, {0}, 0xf, 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct affinity board = {.count = cases[i].count};
		struct affinity_choice choice = {0};
		cpu_set_t allowed = set_of(cases[i].allowed);
		cpu_set_t expected = set_of(cases[i].chosen);
		bool chosen;

		memcpy(board.midr, cases[i].midr, sizeof(cases[i].midr));
		chosen = affinity_choose(&board, &allowed, &choice);
		if (chosen != (cases[i].chosen != 0) ||
		    (chosen &&
		     (!CPU_EQUAL(&choice.cores, &expected) || choice.midr != cases[i].kind ||
		      choice.count != CPU_COUNT(&expected) ||
		      choice.allowed != CPU_COUNT(&allowed)))) {
			fail_msg("case %zu", i);
		}
	}
}

/* The first of the cores that we are allowed is of one kind, all others of another. */
static struct affinity board_of_two(const cpu_set_t *allowed)
{
	struct affinity board = {.count = AFFINITY_CORES_MAX};
	uint32_t kind = A76;

	for (size_t i = 0; i < AFFINITY_CORES_MAX; i++) {
		board.midr[i] = kind;
		kind = CPU_ISSET(i, allowed) ? A53 : kind;
	}
	return board;
}

/* In a child: 0 if it was kept as expected. */
static int kept(const struct affinity *board, const cpu_set_t *expected, const char *text)
{
	char said[AFFINITY_TEXT];
	struct fault fault = {0};
	cpu_set_t now;

	return affinity_keep(board, said, &fault) != 0 || strcmp(said, text) != 0 ||
	       sched_getaffinity(0, sizeof(now), &now) != 0 || !CPU_EQUAL(&now, expected);
}

static void expect_kept(const struct affinity *board, const cpu_set_t *expected, const char *text)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		_exit(kept(board, expected, text));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_keep(void **state)
{
	struct affinity board = {.count = AFFINITY_CORES_MAX};
	cpu_set_t allowed, expected;
	char text[AFFINITY_TEXT];
	int count, first = 0;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
	count = CPU_COUNT(&allowed);
	expect_kept(&board, &allowed, ""); /* not known */
	if (count < 2) {
		skip();
	}
	while (!CPU_ISSET(first, &allowed)) {
		first++;
	}
	board = board_of_two(&allowed);
	CPU_ZERO(&expected);
	if (count == 2) {
		CPU_SET(first, &expected); /* one and one: the larger */
		snprintf(text, sizeof(text), "1 of 2, Cortex-A76");
	} else {
		expected = allowed;
		CPU_CLR(first, &expected);
		snprintf(text, sizeof(text), "%d of %d, Cortex-A53", count - 1, count);
	}
	expect_kept(&board, &expected, text);
}

static void file_put(const char *root, unsigned core, const char *midr)
{
	char command[512];

	snprintf(command, sizeof(command),
		 "d=%s/sys/devices/system/cpu/cpu%u; mkdir -p $d; test -z '%s' || "
		 "{ mkdir -p $d/regs/identification; echo %s >$d/regs/identification/midr_el1; }",
		 root, core, midr, midr);
	assert_int_equal(system(command), 0);
}

static void test_read(void **state)
{
	char root[] = "/tmp/test_hv_affinity_XXXXXX";
	struct affinity *board = calloc(1, sizeof(*board));
	char command[64];

	(void)state;
	assert_non_null(mkdtemp(root));
	affinity_read(root, board);
	assert_int_equal(board->count, 0);
	file_put(root, 0, "0x00000000410fd034");
	file_put(root, 1, "");
	file_put(root, 2, "0x00000000410fd082");
	file_put(root, 4, "0x00000000410fd082");
	affinity_read(root, board);
	assert_int_equal(board->count, 3);
	assert_int_equal(board->midr[0], A53);
	assert_int_equal(board->midr[1], 0);
	assert_int_equal(board->midr[2], A72);
	free(board);
	snprintf(command, sizeof(command), "rm -r %s", root);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_choose),
		cmocka_unit_test(test_keep),
		cmocka_unit_test(test_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
