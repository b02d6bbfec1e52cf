/* main_sandbox_filter.c: runs while building and prints sandbox_filter.h's program: every system
 * call that a VM's process makes after its start, and why. Whatever is not here ends the process.
 *
 * The only file that names libseccomp. */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
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

/* Argument `number`, masked, must be `value`. A mask of 0 ends the conditions. */
struct condition {
	unsigned number;
	uint64_t mask, value;
};

struct call {
	const char *name; /* on processors that have no such call it is left out */
	const char *why;
	struct condition conditions[2];
};

#define WORD UINT64_C(0xffffffff)

static const struct call calls[] = {
	/* What a running guest needs all the time comes first: the kernel goes through the list. */
	{"futex", "threads wait for the device lock, the gate, the disk thread"},
	{"epoll_pwait", "the loop"},
	{"epoll_wait", "the loop, on x86"},
	{"epoll_ctl", "the loop: what to wait for"},
	{"read", "eventfds, timers, signals, console, tap"},
	{"write", "eventfds, console, log lines"},
	{"readv", "tap"},
	{"writev", "tap"},
	{"io_uring_enter", "disk; each ring is confined to its one file"},
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

static void call_allow(scmp_filter_ctx filter, const struct call *call)
{
	int number = seccomp_syscall_resolve_name(call->name);
	struct scmp_arg_cmp args[2];
	unsigned count = 0;

	if (number == __NR_SCMP_ERROR) {
		must(-EINVAL, call->name);
	}
	if (number < 0) {
		return;
	}
	while (count < 2 && call->conditions[count].mask != 0) {
		const struct condition *c = &call->conditions[count];

		args[count++] = SCMP_CMP64(c->number, SCMP_CMP_MASKED_EQ, c->mask, c->value);
	}
	must(seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, count, args), call->name);
}

static void request_allow(scmp_filter_ctx filter, const struct request *request)
{
	must(seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
			      SCMP_A1(SCMP_CMP_EQ, request->number)),
	     "ioctl");
}

static scmp_filter_ctx filter_make(void)
{
	scmp_filter_ctx filter;

	/* The program is not for the kernel that runs us, which may be an emulator. */
	must(seccomp_api_set(3), "seccomp_api_set");
	filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	must(filter == NULL ? -ENOMEM : 0, "seccomp_init");
	must(seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS), "badarch");
	/* A tree: the kernel tries every number once when it loads the program. */
	must(seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2), "optimize");
	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		request_allow(filter, &requests[i]);
	}
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		call_allow(filter, &calls[i]);
	}
	return filter;
}

int main(void)
{
	scmp_filter_ctx filter = filter_make();
	FILE *file = tmpfile();
	struct sock_filter line;
	unsigned pids = 0;

	must(file == NULL ? -errno : 0, "tmpfile");
	must(seccomp_export_bpf(filter, fileno(file)), "seccomp_export_bpf");
	seccomp_release(filter);
	rewind(file);
	printf("/* Made by main_sandbox_filter.c. */\n#include \"hv/sandbox_filter.h\"\n\n"
	       "const struct sock_filter sandbox_filter[] = {\n");
	while (fread(&line, sizeof(line), 1, file) == 1) {
		printf("\t{0x%02x, %u, %u, 0x%08x},\n", line.code, line.jt, line.jf, line.k);
		pids += line.k == SANDBOX_FILTER_PID;
	}
	printf("};\nconst size_t sandbox_filter_len = sizeof(sandbox_filter) / "
	       "sizeof(sandbox_filter[0]);\n");
	fclose(file);
	must(pids == 1 ? 0 : -ERANGE, "the place of the process's id");
	return fflush(stdout) == 0 ? 0 : 1;
}
