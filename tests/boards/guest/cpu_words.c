/* cpu_words.c: words about processors: that all run, that they keep their registers, and load. */
#include "guest.h"
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int cpus_online(void)
{
	return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static int pin(int cpu)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	return sched_setaffinity(0, sizeof set, &set) < 0 ? -errno : 0;
}

/* Goes to each processor in turn and counts there, with the counter seen to go on. */
static int cpus_run(struct call *call)
{
	int online = cpus_online();
	for (int cpu = 0; cpu < online; cpu++) {
		int error = pin(cpu);
		if (error != 0)
			return call_failed(call, -error, "to go to processor %d", cpu);
		uint64_t began = counter_read();
		for (volatile int i = 0; i < 1000; i++)
			;
		if (counter_read() == began || sched_getcpu() != cpu)
			return call_failed(call, EIO, "processor %d does not count", cpu);
	}
	call_result(call, "online=%d", online);
	return 0;
}

/* A process for each of N processors that never gives way; they go with the guest. */
static int spin_run(struct call *call)
{
	int count = (int)call_number(call, 0, (uint64_t)cpus_online());
	for (int cpu = 0; cpu < count; cpu++) {
		pid_t child = fork();
		if (child < 0)
			return call_failed(call, errno, "fork");
		if (child > 0)
			continue;
		pin(cpu);
		for (;;)
			__asm__ volatile("" : : : "memory");
	}
	call_result(call, "processors=%d", count);
	return 0;
}

/* Fills V0 to V31 with numbers, counts for a while, and looks at both halves of each. One
 * statement, for no compiler may use a vector register in between. */
static bool vectors_kept(uint64_t seed, uint64_t turns)
{
	uint64_t wrong = 0, number = seed, left = turns;
	__asm__ volatile(
		"	.irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, "
		"18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31\n"
		"	add	%[number], %[number], #1\n"
		"	mov	v\\n\\().d[0], %[number]\n"
		"	mvn	x9, %[number]\n"
		"	mov	v\\n\\().d[1], x9\n"
		"	.endr\n"
		"1:	subs	%[left], %[left], #1\n"
		"	b.ne	1b\n"
		"	mov	%[number], %[seed]\n"
		"	.irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, "
		"18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31\n"
		"	add	%[number], %[number], #1\n"
		"	mov	x9, v\\n\\().d[0]\n"
		"	eor	x9, x9, %[number]\n"
		"	orr	%[wrong], %[wrong], x9\n"
		"	mov	x9, v\\n\\().d[1]\n"
		"	eon	x9, x9, %[number]\n"
		"	orr	%[wrong], %[wrong], x9\n"
		"	.endr"
		: [wrong] "+&r"(wrong), [left] "+&r"(left), [number] "+&r"(number)
		: [seed] "r"(seed)
		: "x9", "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10",
		  "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21",
		  "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31");
	return wrong == 0;
}

/* For a guest that is saved and restored meanwhile: 0 turns is for ever, and only a loss is said.
 */
static int vectors_run(struct call *call)
{
	uint64_t rounds = call_number(call, 0, 100);
	for (uint64_t round = 1; rounds == 0 || round <= rounds; round++)
		if (!vectors_kept(round << 8, 1000000)) {
			say("VECTORS LOST in round %llu", (unsigned long long)round);
			return call_failed(call, EIO, "vector registers changed in round %llu",
					   (unsigned long long)round);
		}
	call_result(call, "rounds=%llu", (unsigned long long)rounds);
	return 0;
}

const struct word cpu_words[] = {
	{"cpus", cpus_run, ""},
	{"spin", spin_run, "PROCESSORS"},
	{"vectors", vectors_run, "ROUNDS (0: for ever)"},
	{NULL, NULL, NULL},
};
