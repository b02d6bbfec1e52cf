/* escapes.h: what somebody who took a VM's process over would try. Each of these, tried in a
 * sandboxed process, must end it or fail; the same list serves the unit test and
 * tests/boards/escape/escape.c. */
#pragma once
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/vhost.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the tries work on, made before the sandbox. */
struct escape_ground {
	pid_t other; /* a process of the same user, outside */
	int file; /* open for reading and writing */
	int pair[2]; /* connected sockets */
	int terminal; /* or -1 */
};

/* Negative or 0: refused; positive: it worked. errno is left as it was set. */
struct escape {
	const char *name;
	long (*attempt)(const struct escape_ground *g);
};

/* A system call that gives -1 for "no" and anything else for "done". */
#define ESCAPE(word, call)                                                                         \
	static long escape_##word(const struct escape_ground *g)                                   \
	{                                                                                          \
		(void)g;                                                                           \
		return (long)(call) != -1;                                                         \
	}

ESCAPE(open, open("/etc/passwd", O_RDONLY))
ESCAPE(create, open("/tmp/escaped", O_CREAT | O_WRONLY, 0600))
ESCAPE(openat2, syscall(SYS_openat2, AT_FDCWD, "/etc", calloc(1, 24), 24))
ESCAPE(stat, syscall(SYS_newfstatat, AT_FDCWD, "/etc/passwd", malloc(256), 0))
ESCAPE(statx, syscall(SYS_statx, AT_FDCWD, "/etc/passwd", 0, 0x7ff, malloc(512)))
ESCAPE(access, faccessat(AT_FDCWD, "/etc/passwd", R_OK, 0))
ESCAPE(readlink, readlink("/proc/self/exe", malloc(64), 64))
ESCAPE(getdents, syscall(SYS_getdents64, g->file, malloc(1024), 1024))
ESCAPE(mkdir, mkdir("/tmp/escaped", 0700))
ESCAPE(unlink, unlink("/tmp/nothing"))
ESCAPE(rename, rename("/tmp/a", "/tmp/b"))
ESCAPE(link, linkat(g->file, "", AT_FDCWD, "/tmp/escaped", AT_EMPTY_PATH))
ESCAPE(symlink, symlink("/etc", "/tmp/escaped"))
ESCAPE(mknod, mknod("/tmp/escaped", S_IFIFO | 0600, 0))
ESCAPE(chmod, fchmod(g->file, 04755))
ESCAPE(chown, fchown(g->file, 0, 0))
ESCAPE(xattr, syscall(SYS_fsetxattr, g->file, "user.x", "y", 1, 0))
ESCAPE(chdir, chdir("/proc"))
ESCAPE(chroot, chroot("/proc"))
ESCAPE(pivot_root, syscall(SYS_pivot_root, ".", "."))
ESCAPE(mount, mount("x", "/", "tmpfs", 0, NULL))
ESCAPE(umount, umount2("/", MNT_DETACH))
ESCAPE(fsopen, syscall(430, "tmpfs", 0))
ESCAPE(open_tree, syscall(428, AT_FDCWD, "/", 0))
ESCAPE(handle, syscall(SYS_open_by_handle_at, g->file, malloc(256), O_RDONLY))
ESCAPE(inotify, syscall(SYS_inotify_init1, 0))
ESCAPE(fanotify, syscall(SYS_fanotify_init, 0, 0))
ESCAPE(socket_inet, socket(AF_INET, SOCK_STREAM, 0))
ESCAPE(socket_unix, socket(AF_UNIX, SOCK_STREAM, 0))
ESCAPE(socket_packet, socket(AF_PACKET, SOCK_RAW, 0))
ESCAPE(socket_netlink, socket(AF_NETLINK, SOCK_RAW, 0))
ESCAPE(socketpair, socketpair(AF_UNIX, SOCK_STREAM, 0, malloc(64)))
ESCAPE(connect, connect(g->pair[0], (struct sockaddr *)&(struct sockaddr_un){.sun_family = AF_UNIX},
			sizeof(struct sockaddr_un)))
ESCAPE(bind, bind(g->pair[0], (struct sockaddr *)&(struct sockaddr_un){.sun_family = AF_UNIX}, 2))
ESCAPE(listen, listen(g->pair[0], 1))
ESCAPE(sendto_address,
       sendto(g->pair[0], "x", 1, 0,
	      (struct sockaddr *)&(struct sockaddr_un){.sun_family = AF_UNIX, .sun_path = "/x"},
	      sizeof(struct sockaddr_un)))
ESCAPE(sendmsg, sendmsg(g->pair[0], &(struct msghdr){0}, 0))
ESCAPE(execve, execve("/bin/true", (char *[]){NULL}, (char *[]){NULL}))
ESCAPE(execveat, syscall(SYS_execveat, g->file, "", NULL, NULL, AT_EMPTY_PATH))
ESCAPE(clone, syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0))
ESCAPE(clone_thread, syscall(SYS_clone, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, 0, 0, 0, 0))
ESCAPE(clone3, syscall(SYS_clone3, (uint64_t[11]){[4] = SIGCHLD}, 88))
ESCAPE(ptrace, ptrace(PTRACE_ATTACH, g->other, NULL, NULL))
ESCAPE(traceme, ptrace(PTRACE_TRACEME, 0, NULL, NULL))
ESCAPE(vm_read, process_vm_readv(g->other, &(struct iovec){malloc(8), 8}, 1,
				 &(struct iovec){malloc(8), 8}, 1, 0))
ESCAPE(vm_write, process_vm_writev(g->other, &(struct iovec){malloc(8), 8}, 1,
				   &(struct iovec){malloc(8), 8}, 1, 0))
ESCAPE(kill_other, kill(g->other, SIGKILL))
ESCAPE(kill_all, kill(-1, SIGCONT))
ESCAPE(tgkill_other, syscall(SYS_tgkill, g->other, g->other, SIGKILL))
ESCAPE(tkill_other, syscall(SYS_tkill, g->other, SIGKILL))
ESCAPE(sigqueue, syscall(SYS_rt_sigqueueinfo, g->other, SIGKILL, calloc(1, 128)))
ESCAPE(pidfd_open, syscall(434, g->other, 0))
ESCAPE(pidfd_getfd, syscall(438, g->file, 0, 0))
ESCAPE(pidfd_send_signal, syscall(424, g->file, SIGKILL, NULL, 0))
ESCAPE(process_madvise, syscall(440, g->file, NULL, 0, 0, 0))
ESCAPE(kcmp, syscall(SYS_kcmp, g->other, getpid(), 0, 0, 0))
ESCAPE(wait, waitpid(-1, NULL, WNOHANG))
ESCAPE(unshare, unshare(CLONE_NEWUSER))
ESCAPE(setns, setns(g->file, 0))
ESCAPE(io_uring_setup, syscall(425, 1, calloc(1, 256)))
ESCAPE(io_uring_register, syscall(427, g->file, 0, NULL, 0))
ESCAPE(bpf, syscall(SYS_bpf, 0, calloc(1, 128), 128))
ESCAPE(perf, syscall(SYS_perf_event_open, calloc(1, 128), 0, -1, -1, 0))
ESCAPE(keyctl, syscall(SYS_keyctl, 0, -3, 0, 0, 0))
ESCAPE(add_key, syscall(SYS_add_key, "user", "x", "y", 1, -3))
ESCAPE(request_key, syscall(SYS_request_key, "user", "x", NULL, -3))
ESCAPE(userfaultfd, syscall(SYS_userfaultfd, 0))
ESCAPE(memfd, memfd_create("x", 0))
ESCAPE(memfd_secret, syscall(447, 0))
ESCAPE(map_code,
       mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED
	       ? 1
	       : -1)
ESCAPE(map_file, mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, g->file, 0) != MAP_FAILED ? 1 : -1)
ESCAPE(protect_code, mprotect((void *)((uintptr_t)malloc(8192) & ~UINT64_C(4095)), 4096,
			      PROT_READ | PROT_WRITE | PROT_EXEC))
ESCAPE(pkey_protect, syscall(SYS_pkey_mprotect, 0, 0, PROT_EXEC, 0))
ESCAPE(madvise_free, madvise((void *)((uintptr_t)malloc(8192) & ~UINT64_C(4095)), 4096, MADV_FREE))
ESCAPE(dumpable, prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
ESCAPE(seccomp, syscall(SYS_seccomp, 1, 0, NULL))
ESCAPE(setuid, syscall(SYS_setuid, 0))
ESCAPE(setresuid, syscall(SYS_setresuid, 0, 0, 0))
ESCAPE(setgid, syscall(SYS_setgid, 0))
ESCAPE(setgroups, syscall(SYS_setgroups, 0, NULL))
ESCAPE(capset, syscall(SYS_capset,
		       &(struct __user_cap_header_struct){.version = _LINUX_CAPABILITY_VERSION_3},
		       (struct __user_cap_data_struct[2]){{.effective = 1, .permitted = 1}}))
ESCAPE(limits, syscall(SYS_prlimit64, 0, RLIMIT_CORE, &(struct rlimit){1, 1}, NULL))
ESCAPE(limits_other, syscall(SYS_prlimit64, g->other, RLIMIT_CPU, &(struct rlimit){0, 0}, NULL))
ESCAPE(scheduler, syscall(SYS_sched_setscheduler, 0, SCHED_BATCH, &(struct sched_param){0}))
ESCAPE(affinity, syscall(SYS_sched_setaffinity, 0, 8, (uint64_t[1]){1}))
ESCAPE(priority, setpriority(PRIO_PROCESS, 0, 0))
ESCAPE(personality, syscall(SYS_personality, 0xffffffff))
ESCAPE(steal_terminal, ioctl(g->terminal, TIOCSTI, "x"))
ESCAPE(ioctl_unknown, ioctl(g->file, FIONREAD, malloc(8)))
ESCAPE(new_vm, ioctl(g->file, KVM_CREATE_VM, 0))
ESCAPE(new_vcpu, ioctl(g->file, KVM_CREATE_VCPU, 0))
ESCAPE(new_slot, ioctl(g->file, KVM_SET_USER_MEMORY_REGION, calloc(1, 64)))
ESCAPE(new_device, ioctl(g->file, KVM_CREATE_DEVICE, calloc(1, 64)))
ESCAPE(other_tap, ioctl(g->file, TUNSETIFF, calloc(1, sizeof(struct ifreq))))
ESCAPE(other_cid, ioctl(g->file, VHOST_VSOCK_SET_GUEST_CID, calloc(1, 64)))
ESCAPE(new_owner, ioctl(g->file, VHOST_SET_OWNER, 0))
ESCAPE(splice, splice(g->pair[0], NULL, g->pair[1], NULL, 1, SPLICE_F_NONBLOCK))
ESCAPE(vmsplice, vmsplice(g->pair[0], &(struct iovec){malloc(8), 8}, 1, 0))
ESCAPE(pipe, pipe(malloc(64)))
ESCAPE(timer, syscall(SYS_timer_create, 0, NULL, malloc(8)))
ESCAPE(sigaction, syscall(SYS_rt_sigaction, SIGSEGV, calloc(1, 64), NULL, 8))
ESCAPE(clock_set, syscall(SYS_clock_settime, 0, (uint64_t[2]){0}))
ESCAPE(hostname, sethostname("x", 1))
ESCAPE(reboot, syscall(SYS_reboot, 0xfee1dead, 672274793, 0x89abcdef, NULL))
ESCAPE(module, syscall(SYS_finit_module, g->file, "", 0))
ESCAPE(kexec, syscall(SYS_kexec_load, 0, 0, NULL, 0))
ESCAPE(kernel_log, syscall(SYS_syslog, 3, malloc(64), 64))
ESCAPE(swap, syscall(SYS_swapon, "/x", 0))
ESCAPE(quota, syscall(SYS_quotactl, 0, NULL, 0, NULL))
ESCAPE(shared_memory, syscall(SYS_shmget, 1, 4096, 01600))
ESCAPE(message_queue, syscall(SYS_mq_open, "/x", O_CREAT, 0600, NULL))
ESCAPE(getppid, getppid())
ESCAPE(fcntl_flags, fcntl(g->file, F_SETFL, 0))
ESCAPE(fcntl_owner, fcntl(g->pair[0], F_SETOWN, g->other))
#ifdef __x86_64__
/* The other door into the kernel: 32-bit calls have other numbers (5 is open). */
static long escape_compat(const struct escape_ground *g)
{
	long rv;

	(void)g;
	__asm__ volatile("int $0x80" : "=a"(rv) : "a"(20L) : "memory"); /* getpid */
	return rv > 0;
}
#endif

#define ESCAPE_ROW(word)                                                                           \
	{                                                                                          \
#word, escape_##word                                                               \
	}
static const struct escape escapes[] = {
	ESCAPE_ROW(open),
	ESCAPE_ROW(create),
	ESCAPE_ROW(openat2),
	ESCAPE_ROW(stat),
	ESCAPE_ROW(statx),
	ESCAPE_ROW(access),
	ESCAPE_ROW(readlink),
	ESCAPE_ROW(getdents),
	ESCAPE_ROW(mkdir),
	ESCAPE_ROW(unlink),
	ESCAPE_ROW(rename),
	ESCAPE_ROW(link),
	ESCAPE_ROW(symlink),
	ESCAPE_ROW(mknod),
	ESCAPE_ROW(chmod),
	ESCAPE_ROW(chown),
	ESCAPE_ROW(xattr),
	ESCAPE_ROW(chdir),
	ESCAPE_ROW(chroot),
	ESCAPE_ROW(pivot_root),
	ESCAPE_ROW(mount),
	ESCAPE_ROW(umount),
	ESCAPE_ROW(fsopen),
	ESCAPE_ROW(open_tree),
	ESCAPE_ROW(handle),
	ESCAPE_ROW(inotify),
	ESCAPE_ROW(fanotify),
	ESCAPE_ROW(socket_inet),
	ESCAPE_ROW(socket_unix),
	ESCAPE_ROW(socket_packet),
	ESCAPE_ROW(socket_netlink),
	ESCAPE_ROW(socketpair),
	ESCAPE_ROW(connect),
	ESCAPE_ROW(bind),
	ESCAPE_ROW(listen),
	ESCAPE_ROW(sendto_address),
	ESCAPE_ROW(sendmsg),
	ESCAPE_ROW(execve),
	ESCAPE_ROW(execveat),
	ESCAPE_ROW(clone),
	ESCAPE_ROW(clone_thread),
	ESCAPE_ROW(clone3),
	ESCAPE_ROW(ptrace),
	ESCAPE_ROW(traceme),
	ESCAPE_ROW(vm_read),
	ESCAPE_ROW(vm_write),
	ESCAPE_ROW(kill_other),
	ESCAPE_ROW(kill_all),
	ESCAPE_ROW(tgkill_other),
	ESCAPE_ROW(tkill_other),
	ESCAPE_ROW(sigqueue),
	ESCAPE_ROW(pidfd_open),
	ESCAPE_ROW(pidfd_getfd),
	ESCAPE_ROW(pidfd_send_signal),
	ESCAPE_ROW(process_madvise),
	ESCAPE_ROW(kcmp),
	ESCAPE_ROW(wait),
	ESCAPE_ROW(unshare),
	ESCAPE_ROW(setns),
	ESCAPE_ROW(io_uring_setup),
	ESCAPE_ROW(io_uring_register),
	ESCAPE_ROW(bpf),
	ESCAPE_ROW(perf),
	ESCAPE_ROW(keyctl),
	ESCAPE_ROW(add_key),
	ESCAPE_ROW(request_key),
	ESCAPE_ROW(userfaultfd),
	ESCAPE_ROW(memfd),
	ESCAPE_ROW(memfd_secret),
	ESCAPE_ROW(map_code),
	ESCAPE_ROW(map_file),
	ESCAPE_ROW(protect_code),
	ESCAPE_ROW(pkey_protect),
	ESCAPE_ROW(madvise_free),
	ESCAPE_ROW(dumpable),
	ESCAPE_ROW(seccomp),
	ESCAPE_ROW(setuid),
	ESCAPE_ROW(setresuid),
	ESCAPE_ROW(setgid),
	ESCAPE_ROW(setgroups),
	ESCAPE_ROW(capset),
	ESCAPE_ROW(limits),
	ESCAPE_ROW(limits_other),
	ESCAPE_ROW(scheduler),
	ESCAPE_ROW(affinity),
	ESCAPE_ROW(priority),
	ESCAPE_ROW(personality),
	ESCAPE_ROW(steal_terminal),
	ESCAPE_ROW(ioctl_unknown),
	ESCAPE_ROW(new_vm),
	ESCAPE_ROW(new_vcpu),
	ESCAPE_ROW(new_slot),
	ESCAPE_ROW(new_device),
	ESCAPE_ROW(other_tap),
	ESCAPE_ROW(other_cid),
	ESCAPE_ROW(new_owner),
	ESCAPE_ROW(splice),
	ESCAPE_ROW(vmsplice),
	ESCAPE_ROW(pipe),
	ESCAPE_ROW(timer),
	ESCAPE_ROW(sigaction),
	ESCAPE_ROW(clock_set),
	ESCAPE_ROW(hostname),
	ESCAPE_ROW(reboot),
	ESCAPE_ROW(module),
	ESCAPE_ROW(kexec),
	ESCAPE_ROW(kernel_log),
	ESCAPE_ROW(swap),
	ESCAPE_ROW(quota),
	ESCAPE_ROW(shared_memory),
	ESCAPE_ROW(message_queue),
	ESCAPE_ROW(getppid),
	ESCAPE_ROW(fcntl_flags),
	ESCAPE_ROW(fcntl_owner),
#ifdef __x86_64__
	ESCAPE_ROW(compat),
#endif
};
enum { ESCAPES = sizeof(escapes) / sizeof(escapes[0]) };
