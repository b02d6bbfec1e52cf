/* The sandbox of a VM's process: which layers hold, that each holds on its own, that what a VM
 * needs still works, and that what somebody who took the process over would try ends it. Every try
 * is a child of its own. Where the kernel has no filter for system calls (user-mode emulation), and
 * under sanitizers, which make calls of their own, the cases that need it are skipped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>

#include "escapes.h"
#include "hv/sandbox.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

enum { USER = 61234, CANNOT = 77 };

static struct escape_ground ground = {.terminal = -1};

/* What a VM's process has open, and somebody outside. */
static int group_setup(void **state)
{
	(void)state;
	ground.file = open("/tmp", O_RDWR | O_TMPFILE, 0600);
	if (ground.file < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, ground.pair) < 0) {
		return -1;
	}
	ground.other = fork();
	if (ground.other == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (geteuid() == 0 && setgid(USER) == 0 && setuid(USER) == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
		}
		for (;;) {
			pause();
		}
	}
	return ground.other < 0;
}

static int group_teardown(void **state)
{
	int status;

	(void)state;
	kill(ground.other, SIGKILL);
	return waitpid(ground.other, &status, 0) != ground.other;
}

/* As root the VM gets a user of its own; as somebody else it keeps its one. */
static Tb__SandboxSpec spec_make(void)
{
	Tb__SandboxSpec spec = TB__SANDBOX_SPEC__INIT;

	if (geteuid() == 0) {
		spec.uid = spec.gid = USER;
	}
	return spec;
}

static const struct sandbox_limits limits = {.file_size_max = 1 << 20, .descriptors_more = 4};

/* In a child: both steps. Ends it with CANNOT where the host has no such thing. */
static struct sandbox enter(const Tb__SandboxSpec *spec)
{
	struct fault fault = {0};
	struct sandbox s;

	if (sandbox_enter(spec, &s, &fault) != 0) {
		fprintf(stderr, "%s\n", fault.text);
		_exit(CANNOT);
	}
	return s;
}

static void seal(const Tb__SandboxSpec *spec, struct sandbox *s)
{
	struct fault fault = {0};

	if (sandbox_seal(spec, &limits, s, &fault) != 0) {
		fprintf(stderr, "%s\n", fault.text);
		_exit(CANNOT);
	}
}

/* The status of a child that runs `life`. */
static int child_run(void (*life)(void *arg), void *arg)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		life(arg);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT) {
		skip();
	}
	return status;
}

/* A line of /proc/self/status through a descriptor from before. */
static void status_must_have(int fd, const char *line)
{
	static char text[1 << 14];
	ssize_t len = pread(fd, text, sizeof(text) - 1, 0);

	text[len < 0 ? 0 : len] = '\0';
	if (strstr(text, line) == NULL) {
		fprintf(stderr, "no \"%s\" in\n%s\n", line, text);
		_exit(1);
	}
}

static void must(bool good, const char *what)
{
	if (!good) {
		fprintf(stderr, "not so: %s (%s)\n", what, strerror(errno));
		_exit(1);
	}
}

/* All layers but the list of calls, which would end the looking. */
static void life_layers(void *arg)
{
	const Tb__SandboxSpec spec = spec_make();
	const gid_t groups[] = {4, 5};
	int status = open("/proc/self/status", O_RDONLY);
	struct sandbox s;
	char text[160];
	DIR *root;

	(void)arg;
	if (geteuid() == 0) {
		must(setgroups(2, groups) == 0, "groups to be given up");
	}
	s = enter(&spec);
	must((s.layers & SANDBOX_CAPABILITIES) != 0, "capabilities");
	must((s.layers & SANDBOX_NO_NEW_PRIVILEGES) != 0, "no new privileges");
	must(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1, "no new privileges in the kernel");
	status_must_have(status, "CapInh:\t0000000000000000");
	status_must_have(status, "CapPrm:\t0000000000000000");
	status_must_have(status, "CapEff:\t0000000000000000");
	status_must_have(status, "CapAmb:\t0000000000000000");
	if (spec.uid != 0) {
		must((s.layers & SANDBOX_UID) != 0, "uid");
		status_must_have(status, "Uid:\t61234\t61234\t61234\t61234");
		status_must_have(status, "Gid:\t61234\t61234\t61234\t61234");
		status_must_have(status, "Groups:\t \n");
	}
	sandbox_describe(&s, text);
	if ((s.layers & SANDBOX_ROOT) == 0) {
		fprintf(stderr, "this host leaves the root directory: %s\n", text);
		_exit(CANNOT);
	}
	status_must_have(status, "CapBnd:\t0000000000000000");
	must(strstr(text, "empty root") != NULL && strstr(text, "no capabilities") != NULL, text);
	root = opendir("/");
	must(root != NULL, "the root can be listed");
	for (struct dirent *entry; (entry = readdir(root)) != NULL;) {
		must(entry->d_name[0] == '.', entry->d_name);
	}
	must(mkdir("/x", 0700) < 0 && errno == EROFS, "the root cannot be written");
	must(open("..", O_RDONLY | O_DIRECTORY) >= 0 && open("/../etc/passwd", O_RDONLY) < 0,
	     "nothing above");
	must(access("/proc", F_OK) < 0, "no proc");
}

static void test_layers(void **state)
{
	(void)state;
	assert_int_equal(child_run(life_layers, NULL), 0);
}

static void become_a_person(void)
{
	if (geteuid() == 0 && (setgid(USER) < 0 || setuid(USER) < 0)) {
		_exit(CANNOT);
	}
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static void life_person(void *arg)
{
	become_a_person();
	life_layers(arg);
}

/* An ordinary person, by a user namespace. */
static void test_layers_of_a_person(void **state)
{
	(void)state;
	assert_int_equal(child_run(life_person, NULL), 0);
}

static void life_limits(void *arg)
{
	const Tb__SandboxSpec spec = spec_make();
	Tb__SandboxSpec log = spec;
	struct rlimit now;
	struct sandbox s;
	int inherited = fcntl(0, F_DUPFD, 500);
	const rlim_t *few = arg;

	if (few != NULL) {
		must(getrlimit(RLIMIT_NOFILE, &now) == 0, "the limit of descriptors");
		now.rlim_cur = *few;
		must(setrlimit(RLIMIT_NOFILE, &now) == 0, "a low limit of descriptors");
	}
	log.log = true;
	s = enter(&log);
	seal(&log, &s);
	must(getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur == now.rlim_max, "files");
	must(now.rlim_cur < 100 && fcntl((int)now.rlim_cur - 5, F_GETFD) >= 0 &&
		     fcntl((int)now.rlim_cur - 4, F_GETFD) < 0,
	     "files: what is open and four more");
	must(fcntl(inherited, F_GETFD) < 0, "others are closed");
	must(getrlimit(RLIMIT_CORE, &now) == 0 && now.rlim_max == 0, "core");
	must(getrlimit(RLIMIT_NPROC, &now) == 0 && now.rlim_max == 0, "processes");
	must(getrlimit(RLIMIT_FSIZE, &now) == 0 && now.rlim_max == 1 << 20, "file size");
	must(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0, "dumpable");
	must((s.layers & SANDBOX_LIMITS) != 0 && (s.layers & SANDBOX_SECCOMP_LOG) != 0, "layers");
}

static void life_limits_of_a_person(void *arg)
{
	become_a_person();
	life_limits(arg);
}

static void test_limits(void **state)
{
	rlim_t few = 40; /* fewer than are looked at in one go */

	(void)state;
	if (SANITIZED) {
		skip();
	}
	assert_int_equal(child_run(life_limits, NULL), 0);
	assert_int_equal(child_run(life_limits, &few), 0);
	assert_int_equal(child_run(life_limits_of_a_person, NULL), 0);
}

static void life_escape(void *arg)
{
	const struct escape *e = arg;
	const Tb__SandboxSpec spec = spec_make();
	struct sandbox s = enter(&spec);
	long rv;

	seal(&spec, &s);
	rv = e->attempt(&ground);
	_exit(rv > 0 ? 2 : 3);
}

static void test_escapes(void **state)
{
	unsigned bad = 0;

	(void)state;
	if (SANITIZED) {
		skip();
	}
	for (unsigned i = 0; i < ESCAPES; i++) {
		int status = child_run(life_escape, (void *)(uintptr_t)&escapes[i]);

		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS) {
			print_error("%s: status 0x%x (2: it worked, 3: refused otherwise)\n",
				    escapes[i].name, status);
			bad++;
		}
	}
	assert_int_equal(bad, 0);
	assert_int_equal(kill(ground.other, 0), 0);
}

/* The same without the list of calls (logged only): the other layers refuse these on their own. */
static void life_escape_without_list(void *arg)
{
	const struct escape *e = arg;
	Tb__SandboxSpec spec = spec_make();
	struct sandbox s;

	spec.log = true;
	s = enter(&spec);
	if ((s.layers & SANDBOX_ROOT) == 0) {
		_exit(CANNOT);
	}
	seal(&spec, &s);
	_exit(e->attempt(&ground) > 0 ? 2 : 0);
}

static void test_layers_hold_on_their_own(void **state)
{
	static const char *const names[] = {
		"open",	  "create",    "openat2",    "stat",	      "access",	   "mkdir",
		"rename", "symlink",   "mknod",	     "link",	      "chroot",	   "pivot_root",
		"mount",  "umount",    "handle",     "execve",	      "clone",	   "clone3",
		"setns",  "setuid",    "setresuid",  "setgid",	      "setgroups", "capset",
		"limits", "clock_set", "hostname",   "reboot",	      "module",	   "kexec",
		"swap",	  "quota",     "kernel_log", "socket_packet", "chown",
	};
	unsigned done = 0, bad = 0;

	(void)state;
	if (SANITIZED) {
		skip();
	}
	for (unsigned n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
		for (unsigned i = 0; i < ESCAPES; i++) {
			int status;

			if (strcmp(escapes[i].name, names[n]) != 0) {
				continue;
			}
			status =
				child_run(life_escape_without_list, (void *)(uintptr_t)&escapes[i]);
			if (status != 0) {
				print_error("%s: status 0x%x\n", names[n], status);
				bad++;
			}
			done++;
		}
	}
	assert_int_equal(done, sizeof(names) / sizeof(names[0]));
	assert_int_equal(bad, 0);
}

static void nothing(int signal)
{
	(void)signal;
}

static void *wait_for_lock(void *arg)
{
	pthread_mutex_lock(arg);
	pthread_mutex_unlock(arg);
	return NULL;
}

/* What a VM's process does all day. */
static void life_needs(void *arg)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	const Tb__SandboxSpec spec = spec_make();
	const struct itimerspec soon = {.it_value = {.tv_nsec = 1}};
	int epoll = epoll_create1(0), event = eventfd(0, EFD_NONBLOCK);
	int timer = timerfd_create(CLOCK_MONOTONIC, 0);
	struct sigevent expiry = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
	struct epoll_event ready = {.events = EPOLLIN};
	struct timespec now;
	pthread_t thread;
	struct sandbox s;
	uint64_t word = 1;
	timer_t lease;
	struct stat st;
	uint8_t *page;
	void *big;

	(void)arg;
	signal(SIGUSR1, nothing);
	must(timer_create(CLOCK_BOOTTIME, &expiry, &lease) == 0, "timer");
	s = enter(&spec);
	pthread_mutex_lock(&lock);
	must(pthread_create(&thread, NULL, wait_for_lock, &lock) == 0, "thread");
	page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	seal(&spec, &s);
	must((s.layers & SANDBOX_SECCOMP) != 0, "layers");
	/* The loop. */
	must(epoll_ctl(epoll, EPOLL_CTL_ADD, event, &ready) == 0, "epoll_ctl");
	must(write(event, &word, 8) == 8 && epoll_wait(epoll, &ready, 1, -1) == 1 &&
		     read(event, &word, 8) == 8,
	     "eventfd");
	must(timerfd_settime(timer, 0, &soon, NULL) == 0 && read(timer, &word, 8) == 8, "timerfd");
	/* Threads, kicked and joined. */
	must(pthread_kill(thread, SIGUSR1) == 0 && raise(SIGUSR1) == 0, "kick");
	pthread_mutex_unlock(&lock);
	must(pthread_join(thread, NULL) == 0, "join");
	/* Memory. */
	big = malloc(10 << 20);
	must(big != NULL, "malloc");
	memset(big, 1, 10 << 20);
	big = realloc(big, 30 << 20);
	must(big != NULL, "realloc");
	free(big);
	must(madvise(page, 8192, MADV_DONTNEED) == 0, "madvise");
	/* Files. */
	must(pwrite(ground.file, "abc", 3, 0) == 3 && pread(ground.file, page, 3, 0) == 3, "pread");
	must(ftruncate(ground.file, 4096) == 0 && lseek(ground.file, 0, SEEK_END) == 4096, "seek");
	must(fstat(ground.file, &st) == 0, "fstat");
	/* Sockets. */
	must(send(ground.pair[0], "x", 1, MSG_NOSIGNAL) == 1 &&
		     recvmsg(ground.pair[1],
			     &(struct msghdr){.msg_iov = &(struct iovec){page, 1}, .msg_iovlen = 1},
			     0) == 1,
	     "socket");
	must(fcntl(ground.file, F_DUPFD_CLOEXEC, 0) >= 0, "dup");
	must(clock_gettime(CLOCK_BOOTTIME, &now) == 0, "time");
	must(getentropy(page, 16) == 0, "random");
	/* The deadline still works. */
	must(timer_settime(lease, 0, &soon, NULL) == 0, "lease");
	for (;;) {
		(void)!read(timer, &word, 8);
	}
}

static void test_what_a_vm_needs(void **state)
{
	int status;

	(void)state;
	if (SANITIZED) {
		skip();
	}
	status = child_run(life_needs, NULL);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGKILL);
}

static void *open_soon(void *arg)
{
	pthread_mutex_lock(arg);
	_exit(open("/etc/passwd", O_RDONLY) >= 0 ? 2 : 3);
}

/* The list holds in threads that were there before. */
static void life_threads(void *arg)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	const Tb__SandboxSpec spec = spec_make();
	struct sandbox s = enter(&spec);
	pthread_t thread;

	(void)arg;
	pthread_mutex_lock(&lock);
	must(pthread_create(&thread, NULL, open_soon, &lock) == 0, "thread");
	seal(&spec, &s);
	pthread_mutex_unlock(&lock);
	pthread_join(thread, NULL);
}

static void test_all_threads(void **state)
{
	int status;

	(void)state;
	if (SANITIZED) {
		skip();
	}
	status = child_run(life_threads, NULL);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
}

static void life_refused(void *arg)
{
	static char none[] = "/nowhere";
	Tb__SandboxSpec spec = TB__SANDBOX_SPEC__INIT;
	struct fault fault = {0};
	struct sandbox s;
	char text[160];

	(void)arg;
	spec.off = true;
	must(sandbox_enter(&spec, &s, &fault) == 0 && s.layers == 0, "off");
	must(sandbox_seal(&spec, &limits, &s, &fault) == 0 && s.layers == 0, "off");
	sandbox_describe(&s, text);
	must(strcmp(text, "off") == 0, text);
	spec.off = false;
	spec.cgroup = none;
	must(sandbox_enter(&spec, &s, &fault) == -ENOENT &&
		     strcmp(fault.text,
			    "sandbox.cgroup: cannot open /nowhere/cgroup.procs: No such file or "
			    "directory; it must be a directory of cgroup v2 that this user may "
			    "enter") == 0,
	     fault.text);
	if (geteuid() == 0) {
		fault.text[0] = '\0';
		must(sandbox_enter(NULL, &s, &fault) == -EPERM &&
			     strcmp(fault.text,
				    "sandbox: a VM does not run as root; give it a user of its own "
				    "with sandbox.uid and sandbox.gid") == 0,
		     fault.text);
		must(setgid(USER) == 0 && setuid(USER) == 0, "a person");
	}
	fault.text[0] = '\0';
	spec = (Tb__SandboxSpec)TB__SANDBOX_SPEC__INIT;
	spec.uid = spec.gid = 1;
	must(sandbox_enter(&spec, &s, &fault) == -EPERM &&
		     strcmp(fault.text, "sandbox.uid: only root can give a VM another user") == 0,
	     fault.text);
}

static void test_refused(void **state)
{
	(void)state;
	assert_int_equal(child_run(life_refused, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layers),
		cmocka_unit_test(test_layers_of_a_person),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_escapes),
		cmocka_unit_test(test_layers_hold_on_their_own),
		cmocka_unit_test(test_what_a_vm_needs),
		cmocka_unit_test(test_all_threads),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
