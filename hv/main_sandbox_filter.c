/* main_sandbox_filter.c: runs while building and prints sandbox_filter.h's program: every system
 * call that a VM's process makes after its start, and why. Whatever is not here ends the process.
 *
 * The program is our own (sandbox_program.h), and judges as libseccomp's does for the same rules:
 * no other is printed. The only file that names libseccomp. */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/vhost.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "hv/sandbox_filter.h"
#include "hv/sandbox_program.h"

enum { PROGRAM_ROOM = 512 };

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

struct call {
	const char *name; /* on processors that have no such call it is left out */
	const char *why;
	struct program_condition conditions[PROGRAM_CONDITIONS]; /* a mask of 0 ends them */
};

struct rules {
	struct program_rule rule[PROGRAM_RULES];
	size_t count;
};

#define WORD UINT64_C(0xffffffff)

static const struct call calls[] = {
	/* What a running guest needs all the time. */
	{"futex", "threads wait for the device lock, the gate, the disk thread"},
	{"epoll_pwait", "the loop"},
	{"epoll_wait", "the loop, on x86"},
	{"epoll_ctl", "the loop: what to wait for"},
	{"read", "eventfds, timers, signals, console, tap"},
	{"write", "eventfds, console, log lines"},
	{"readv", "tap"},
	{"writev", "tap"},
	{"io_uring_enter", "disk; each ring is confined to its one file"},
	{"io_uring_register", "disk: let go of at the end", {{1, WORD, IORING_UNREGISTER_FILES}}},
	{"ppoll", "disk: waiting at a pause or the end"},
	{"poll", "the same, on x86"},
	{"preadv", "disk without io_uring"},
	{"pwritev2", "disk without io_uring"},
	{"clock_nanosleep", "disk: the kernel has no memory for a request just now"},
	{"madvise",
	 "memory that the guest gives back, stacks of ended threads",
	 {{2, WORD, MADV_DONTNEED}}},
	{"madvise", "the same for shared memory", {{2, WORD, MADV_REMOVE}}},
	/* Control connections. */
	{"accept4", "control socket"},
	{"recvmsg", "requests, and the descriptors of a snapshot"},
	{"sendto", "answers, console of a socket; never to an address", {{4, UINT64_MAX, 0}}},
	{"close", "connections, snapshot files; all at the end"},
	{"fcntl",
	 "keeping a snapshot's files until they are written",
	 {{1, WORD, F_DUPFD_CLOEXEC}}},
	{"timerfd_settime", "patience with clients, the console's retry"},
	{"timer_settime", "the lease's deadline"},
	/* Kernel, initrd and snapshots are read and written in here: they come from outside. */
	{"pread64", "kernel, initrd, snapshot; statistics"},
	{"pwrite64", "snapshot"},
	{"ftruncate", "snapshot"},
	{"fsync", "snapshot: what the guest wrote to its disks is there for it"},
	{"lseek", "snapshot: holes"},
	{"fstat", "sizes"},
	{"newfstatat", "the same as the C library calls it", {{3, WORD, AT_EMPTY_PATH}}},
	{"getrandom", "seeds for the guest, virtio-rng, snapshot ids"},
	/* Memory of our own: never a file's, never code. */
	{"mmap",
	 "malloc, memory of a clone that reboots",
	 {{2, PROT_EXEC, 0}, {3, MAP_ANONYMOUS, MAP_ANONYMOUS}}},
	{"mprotect", "malloc", {{2, PROT_EXEC, 0}}},
	{"mremap", "malloc"},
	{"munmap", "malloc, the end"},
	{"brk", "malloc"},
	/* Threads that exist. */
	{"tgkill",
	 "kicking a vCPU out of the guest; abort; the end of a lease; nobody else",
	 {{0, WORD, SANDBOX_FILTER_PID}}},
	{"getpid", "tgkill"},
	{"gettid", "tgkill"},
	{"rt_sigreturn", "the end of a kick"},
	{"rt_sigprocmask", "the end of a thread, abort"},
	{"set_robust_list", "a thread that was made just before"},
	{"rseq", "a thread that was made just before"},
	{"sched_yield", "the C library's locks"},
	{"restart_syscall", "a wait that SIGSTOP and SIGCONT interrupted"},
	{"clock_gettime", "time, where the vdso has none"},
	{"gettimeofday", "time, where the vdso has none"},
	{"exit", "the end of a thread"},
	{"exit_group", "the end"},
};

struct request {
	unsigned long number;
	const char *why;
};

static const struct request requests[] = {
	{KVM_RUN, "the guest"},
	{KVM_IRQ_LINE, "interrupt of the UART"},
	{KVM_CHECK_EXTENSION, "snapshot: is the host of the same class"},
	{KVM_GET_ONE_REG, "snapshot; where a broken guest is"},
	{KVM_SET_ONE_REG, "restore; the first instruction"},
	{KVM_GET_REG_LIST, "snapshot"},
	{KVM_GET_MP_STATE, "snapshot"},
	{KVM_SET_MP_STATE, "restore"},
	{KVM_GET_VCPU_EVENTS, "snapshot"},
	{KVM_SET_VCPU_EVENTS, "restore"},
	{KVM_GET_DEVICE_ATTR, "snapshot of the interrupt controller"},
	{KVM_SET_DEVICE_ATTR, "restore and reset of the interrupt controller"},
#ifdef __aarch64__
	{KVM_ARM_VCPU_INIT, "reset"},
#endif
	{TUNSETOFFLOAD, "what the guest's network driver can take"},
	{VHOST_SET_FEATURES, "the guest's vsock driver starts"},
	{VHOST_SET_MEM_TABLE, "the same"},
	{VHOST_SET_VRING_NUM, "the same"},
	{VHOST_SET_VRING_BASE, "the same"},
	{VHOST_GET_VRING_BASE, "it stops, or is paused"},
	{VHOST_SET_VRING_ADDR, "it starts"},
	{VHOST_SET_VRING_KICK, "the same"},
	{VHOST_SET_VRING_CALL, "the same"},
	{VHOST_SET_VRING_ERR, "the same"},
	{VHOST_VSOCK_SET_RUNNING, "it starts, or stops"},
	{TCSETS, "the person's terminal as it was"},
	{TIOCGWINSZ, "the person's terminal changed its size"},
};

static void must(int rv, const char *what)
{
	if (rv < 0) {
		fprintf(stderr, "sandbox filter: %s: %s\n", what, strerror(-rv));
		exit(1);
	}
}

/* --- libseccomp's program ----------------------------------------------------------------------
 */

static void rule_allow(scmp_filter_ctx filter, const struct program_rule *rule)
{
	struct scmp_arg_cmp args[PROGRAM_CONDITIONS];

	for (unsigned i = 0; i < rule->count; i++) {
		const struct program_condition *c = &rule->conditions[i];

		args[i] = SCMP_CMP64(c->number, SCMP_CMP_MASKED_EQ, c->mask, c->value);
	}
	must(seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, (int)rule->call, rule->count, args),
	     "seccomp_rule_add");
}

static size_t reference_make(const struct rules *rules, struct sock_filter *ret)
{
	scmp_filter_ctx filter;
	FILE *file = tmpfile();
	size_t len;

	/* The program is not for the kernel that runs us, which may be an emulator. */
	must(seccomp_api_set(3), "seccomp_api_set");
	filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	must(filter == NULL ? -ENOMEM : 0, "seccomp_init");
	must(seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS), "badarch");
	for (size_t i = 0; i < rules->count; i++) {
		rule_allow(filter, &rules->rule[i]);
	}
	must(file == NULL ? -errno : 0, "tmpfile");
	must(seccomp_export_bpf(filter, fileno(file)), "seccomp_export_bpf");
	seccomp_release(filter);
	rewind(file);
	len = fread(ret, sizeof(ret[0]), PROGRAM_ROOM, file);
	fclose(file);
	return len;
}

/* --- the rules ---------------------------------------------------------------------------------
 */

static void rule_add(struct rules *rules, int call, const struct program_condition *conditions,
		     unsigned count)
{
	struct program_rule *rule = &rules->rule[rules->count];

	must(rules->count < PROGRAM_RULES && call < PROGRAM_CALLS ? 0 : -E2BIG, "rules");
	*rule = (struct program_rule){.call = (unsigned)call, .count = count};
	memcpy(rule->conditions, conditions, count * sizeof(conditions[0]));
	rules->count++;
}

static void rules_list(struct rules *ret)
{
	for (size_t i = 0; i < LENGTH(calls); i++) {
		int call = seccomp_syscall_resolve_name(calls[i].name);
		unsigned count = 0;

		must(call == __NR_SCMP_ERROR ? -EINVAL : 0, calls[i].name);
		while (count < PROGRAM_CONDITIONS && calls[i].conditions[count].mask != 0) {
			count++;
		}
		if (call >= 0) {
			rule_add(ret, call, calls[i].conditions, count);
		}
	}
	for (size_t i = 0; i < LENGTH(requests); i++) {
		/* The kernel looks at 32 bits. */
		const struct program_condition request = {1, WORD, requests[i].number};

		rule_add(ret, SCMP_SYS(ioctl), &request, 1);
	}
}

/* --- are both the same? ------------------------------------------------------------------------
 */

struct pair {
	struct sock_filter own[PROGRAM_ROOM], other[PROGRAM_ROOM];
	size_t own_len, other_len;
	unsigned allowed, refused;
};

static void pair_run(struct pair *p, const struct seccomp_data *data)
{
	uint32_t own = program_run(p->own, p->own_len, data);

	if (own != program_run(p->other, p->other_len, data)) {
		fprintf(stderr, "sandbox filter: call %d is judged otherwise by libseccomp\n",
			data->nr);
		exit(1);
	}
	p->allowed += own == SECCOMP_RET_ALLOW;
	p->refused += own != SECCOMP_RET_ALLOW;
}

/* Each argument as it is, and with each of its bits turned. */
static void pair_try(struct pair *p, struct seccomp_data data)
{
	pair_run(p, &data);
	for (unsigned i = 0; i < 6; i++) {
		for (unsigned bit = 0; bit < 64; bit++) {
			data.args[i] ^= UINT64_C(1) << bit;
			pair_run(p, &data);
			data.args[i] ^= UINT64_C(1) << bit;
		}
	}
}

static void pair_compare(struct pair *p, const struct rules *rules, uint32_t arch)
{
	struct seccomp_data data = {.arch = arch};

	for (size_t i = 0; i < rules->count; i++) {
		const struct program_rule *rule = &rules->rule[i];

		data = (struct seccomp_data){.arch = arch, .nr = (int)rule->call};
		for (unsigned c = 0; c < rule->count; c++) {
			data.args[rule->conditions[c].number] |= rule->conditions[c].value;
		}
		pair_try(p, data);
		data.arch ^= 1;
		pair_run(p, &data);
	}
	for (int call = -1024; call < 2 * PROGRAM_CALLS; call++) {
		data = (struct seccomp_data){.arch = arch, .nr = call};
		pair_run(p, &data);
		memset(data.args, 0xff, sizeof(data.args));
		pair_run(p, &data);
		data.nr ^= 0x40000000;
		pair_run(p, &data);
	}
	must(p->allowed >= rules->count && p->refused > 1000 ? 0 : -ERANGE, "the comparison");
}

int main(void)
{
	static struct rules rules;
	static struct pair p;
	unsigned pids = 0;

	rules_list(&rules);
	p.own_len =
		program_make(rules.rule, rules.count, seccomp_arch_native(), p.own, PROGRAM_ROOM);
	must(p.own_len > 0 ? 0 : -E2BIG, "the program");
	p.other_len = reference_make(&rules, p.other);
	pair_compare(&p, &rules, seccomp_arch_native());
	printf("/* Made by main_sandbox_filter.c. */\n#include \"hv/sandbox_filter.h\"\n\n"
	       "const struct sock_filter sandbox_filter[] = {\n");
	for (size_t i = 0; i < p.own_len; i++) {
		const struct sock_filter *line = &p.own[i];

		printf("\t{0x%02x, %u, %u, 0x%08x},\n", line->code, line->jt, line->jf, line->k);
		pids += line->k == SANDBOX_FILTER_PID;
	}
	printf("};\nconst size_t sandbox_filter_len = sizeof(sandbox_filter) / "
	       "sizeof(sandbox_filter[0]);\n");
	must(pids == 1 ? 0 : -ERANGE, "the place of the process's id");
	return fflush(stdout) == 0 ? 0 : 1;
}
