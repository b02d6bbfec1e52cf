/* The process of a VM, as its daemon sees it: this program is the VM as well (`supervised`), and
 * what it does is the command line of its spec. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/lease.h"
#include "hv/start.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "proto/frame.h"
#include "witnessd/vm_process.h"

enum { GUARD_MS = 30000, PARENT = 3 };

/* --- the VM --- */

static void vm_say(uint64_t id, const char *error)
{
	Tb__VmReply reply = TB__VM_REPLY__INIT;
	struct buf out = {0};

	reply.id = id;
	reply.error = (char *)(uintptr_t)error;
	frame_append(&out, &reply.base);
	(void)!write(PARENT, out.data, out.len);
	buf_free(&out);
}

/* NULL: the parent has gone. */
static Tb__VmRequest *vm_hear(void)
{
	uint8_t head[FRAME_HEAD];
	uint8_t payload[4096];
	ProtobufCMessage *message;
	size_t len;

	if (recv(PARENT, head, sizeof(head), MSG_WAITALL) != sizeof(head))
		return NULL;
	len = frame_payload_len(head);
	if (len > sizeof(payload) || recv(PARENT, payload, len, MSG_WAITALL) != (ssize_t)len ||
	    frame_unpack(&tb__vm_request__descriptor, payload, len, FRAME_MEMORY(len), &message) !=
		    0)
		_exit(99);
	return (Tb__VmRequest *)message;
}

static void vm_serve(const char *word, struct lease *lease)
{
	Tb__VmRequest *request;

	while ((request = vm_hear()) != NULL) {
		switch (request->what_case) {
		case TB__VM_REQUEST__WHAT_LEASE:
			lease_until(lease, request->lease->until_ms);
			vm_say(request->id, "");
			break;
		case TB__VM_REQUEST__WHAT_POWER_BUTTON:
			if (strcmp(word, "no-button") == 0) {
				vm_say(request->id, "the guest has no driver for it");
				break;
			}
			vm_say(request->id, "");
			vm_say(0, "powered off");
			_exit(0);
		case TB__VM_REQUEST__WHAT_STOP:
			vm_say(request->id, "");
			vm_say(0, "stopped by request");
			_exit(0);
		default:
			_exit(98);
		}
		tb__vm_request__free_unpacked(request, NULL);
	}
	_exit(97); /* the parent has gone */
}

/* A kernel that takes two seconds to read: renewals are taken between its pieces. */
static void vm_load(struct lease *lease)
{
	for (int piece = 0; piece < 20; piece++) {
		struct pollfd at = {.fd = PARENT, .events = POLLIN};
		Tb__VmRequest *request;

		usleep(100000);
		if (poll(&at, 1, 0) != 1)
			continue;
		request = vm_hear();
		if (request == NULL || request->what_case != TB__VM_REQUEST__WHAT_LEASE)
			_exit(93);
		lease_until(lease, request->lease->until_ms);
		vm_say(request->id, "");
		tb__vm_request__free_unpacked(request, NULL);
	}
}

static int vm_main(void)
{
	struct resources r = {0};
	struct fault fault = {0};
	struct lease lease;
	Tb__VmStart *start;
	char text[16] = "";
	const char *word;

	if (fcntl(PARENT + 1, F_GETFD) >= 0)
		return 94; /* nothing of the daemon's is open here */
	if (start_receive(PARENT, &start, &r, &fault) < 0)
		return 96;
	word = start->spec->command_line;
	lease_init(&lease);
	if (start->lease_until_ms != 0)
		lease_until(&lease, start->lease_until_ms);
	if (!start->with_parent)
		return 95;
	if (strcmp(word, "mute") == 0)
		pause();
	if (strcmp(word, "refuse") == 0) {
		start_refuse(PARENT, "the kernel is no Image");
		return 2;
	}
	if (strcmp(word, "die") == 0)
		return 1;
	if (strcmp(word, "slow") == 0)
		vm_load(&lease);
	if (strcmp(word, "files") == 0) {
		(void)!read(resource_find(&r, "kernel"), text, sizeof(text) - 1);
		start_refuse(PARENT, text);
		return 1;
	}
	vm_say(0, "");
	if (strcmp(word, "long") == 0)
		(void)!write(PARENT, "\xff\xff\xff\xff more", 9);
	if (strcmp(word, "garbage") == 0)
		(void)!write(PARENT, "\0\0\0\3\xff\xff\xff", 7);
	if (strcmp(word, "flood") == 0)
		for (;;)
			vm_say(0, "again and again");
	if (strcmp(word, "crash") == 0) {
		vm_say(0, "the guest touched what is not there");
		return 3;
	}
	if (strcmp(word, "signal") == 0)
		kill(getpid(), SIGSYS);
	vm_serve(word, &lease);
	return 0;
}

/* --- the daemon --- */

struct seen {
	uv_loop_t loop;
	uv_timer_t guard, step;
	struct vm_process *process;
	bool started, ended, no_button, guarded;
	unsigned late, renewed;
	uint64_t first_ms, renewed_ms; /* deadlines: the first, and the last that it has taken */
	enum vm_process_end end;
	char why[LIMIT_MESSAGE + 1];
	void (*on_start)(struct seen *s);
	void (*on_step)(struct seen *s);
	uint64_t ended_ms;
};

static void on_started(void *arg)
{
	struct seen *s = arg;

	s->started = true;
	if (s->on_start != NULL)
		s->on_start(s);
}

static void on_no_button(void *arg, const char *why)
{
	struct seen *s = arg;

	(void)why;
	s->no_button = true;
	vm_process_stop(s->process);
}

static void on_renewed(void *arg, uint64_t until_ms)
{
	struct seen *s = arg;

	s->renewed++;
	s->renewed_ms = until_ms;
}

static void on_late(void *arg, uint64_t ms)
{
	(void)ms;
	((struct seen *)arg)->late++;
}

static void on_ended(void *arg, enum vm_process_end end, const char *why)
{
	struct seen *s = arg;

	s->ended = true;
	s->end = end;
	s->ended_ms = clock_boottime_ms();
	snprintf(s->why, sizeof(s->why), "%s", why);
	uv_close((uv_handle_t *)&s->guard, NULL);
	uv_close((uv_handle_t *)&s->step, NULL);
}

static const struct vm_process_events events = {
	.started = on_started,
	.no_button = on_no_button,
	.renewed = on_renewed,
	.late = on_late,
	.ended = on_ended,
};

static void on_guard(uv_timer_t *timer)
{
	struct seen *s = timer->data;

	s->guarded = true;
	vm_process_kill(s->process);
}

static void on_step_timer(uv_timer_t *timer)
{
	struct seen *s = timer->data;

	s->on_step(s);
}

static int seen_start(struct seen *s, const char *word, uint64_t lease_ms, const char *program,
		      struct problem *problem)
{
	Tb__VmSpec spec = TB__VM_SPEC__INIT;
	struct vm_process_start how = {
		.loop = &s->loop, .program = program, .spec = &spec, .events = &events, .arg = s};
	int rv;

	uv_loop_init(&s->loop);
	spec.command_line = (char *)(uintptr_t)word;
	how.deadline_ms = s->first_ms = clock_boottime_ms() + lease_ms;
	how.names[0] = "kernel";
	how.fds[0] = open("/proc/sys/kernel/ostype", O_RDONLY | O_CLOEXEC);
	how.count = 1;
	rv = vm_process_start(&how, &s->process, problem);
	close(how.fds[0]);
	return rv;
}

/* Runs one VM to its end. */
static void run(struct seen *s, const char *word, uint64_t lease_ms)
{
	struct problem problem = {0};
	int status;

	assert_int_equal(seen_start(s, word, lease_ms, "/proc/self/exe", &problem), 0);
	uv_timer_init(&s->loop, &s->guard);
	uv_timer_init(&s->loop, &s->step);
	s->guard.data = s->step.data = s;
	uv_timer_start(&s->guard, on_guard, GUARD_MS, 0);
	if (s->on_step != NULL)
		uv_timer_start(&s->step, on_step_timer, 100, 100);
	uv_run(&s->loop, UV_RUN_DEFAULT);
	assert_true(s->ended);
	assert_false(s->guarded); /* it ended without us */
	assert_int_equal(uv_loop_close(&s->loop), 0);
	assert_int_equal(waitpid(-1, &status, WNOHANG), -1); /* waited for, all of them */
}

static void expect(const struct seen *s, bool started, enum vm_process_end end, const char *why)
{
	assert_int_equal(s->started, started);
	assert_int_equal(s->end, end);
	if (strstr(s->why, why) == NULL)
		fail_msg("\"%s\" is not in \"%s\"", why, s->why);
}

static void press(struct seen *s)
{
	vm_process_button(s->process);
}

static void test_button(void **state)
{
	struct seen s = {.on_start = press};

	(void)state;
	run(&s, "serve", GUARD_MS);
	expect(&s, true, VM_PROCESS_OFF, "powered off");
	assert_false(s.no_button);
}

static void test_no_button(void **state)
{
	struct seen s = {.on_start = press};

	(void)state;
	run(&s, "no-button", GUARD_MS);
	expect(&s, true, VM_PROCESS_OFF, "stopped by request");
	assert_true(s.no_button);
}

static void test_refusals(void **state)
{
	struct seen s = {0}, dead = {0}, files = {0};

	(void)state;
	run(&s, "refuse", GUARD_MS);
	expect(&s, false, VM_PROCESS_REFUSED, "the kernel is no Image");
	run(&dead, "die", GUARD_MS);
	expect(&dead, false, VM_PROCESS_REFUSED, "status 1");
	run(&files, "files", GUARD_MS);
	expect(&files, false, VM_PROCESS_REFUSED, "Linux");
}

static void test_no_program(void **state)
{
	struct seen s = {0};
	struct problem problem = {0};

	(void)state;
	assert_int_equal(seen_start(&s, "serve", GUARD_MS, "/nowhere/witness-vm", &problem),
			 -ENOENT);
	assert_non_null(strstr(problem.text, "/nowhere/witness-vm: No such file"));
	uv_run(&s.loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&s.loop), 0);
}

static void test_crash(void **state)
{
	struct seen s = {0}, signalled = {0};

	(void)state;
	run(&s, "crash", GUARD_MS);
	expect(&s, true, VM_PROCESS_FAILED, "touched what is not there");
	run(&signalled, "signal", GUARD_MS);
	expect(&signalled, true, VM_PROCESS_FAILED, "system call that its sandbox does not allow");
}

/* The guest may own its process: what that says is not believed. */
static void test_hostile(void **state)
{
	struct seen s = {0}, garbage = {0};

	(void)state;
	run(&s, "long", GUARD_MS);
	expect(&s, true, VM_PROCESS_FAILED, "what is no reply");
	run(&garbage, "garbage", GUARD_MS);
	expect(&garbage, true, VM_PROCESS_FAILED, "what is no reply");
}

static void flood_step(struct seen *s)
{
	if (s->started)
		vm_process_kill(s->process);
}

static void test_flood(void **state)
{
	struct seen s = {.on_step = flood_step};

	(void)state;
	run(&s, "flood", GUARD_MS);
	expect(&s, true, VM_PROCESS_FAILED, "killed");
}

static uint64_t deadline;

/* A process that hangs, in whatever way, is gone at its deadline without anybody's doing. */
static void test_mute(void **state)
{
	struct seen s = {0};

	(void)state;
	deadline = clock_boottime_ms() + 600;
	run(&s, "mute", 600);
	expect(&s, false, VM_PROCESS_REFUSED, "lease was over");
	assert_true(s.ended_ms >= deadline);
}

static void freeze(struct seen *s)
{
	kill(vm_process_pid(s->process), SIGSTOP);
	vm_process_renew(s->process, clock_boottime_ms() + GUARD_MS);
	for (int i = 0; i < 10000; i++)
		vm_process_renew(s->process, clock_boottime_ms() + GUARD_MS);
}

static void test_frozen(void **state)
{
	struct seen s = {.on_start = freeze};

	(void)state;
	deadline = clock_boottime_ms() + 2000;
	run(&s, "serve", 2000);
	expect(&s, true, VM_PROCESS_FAILED, "lease was over");
	assert_true(s.ended_ms >= deadline);
	assert_int_equal(s.renewed, 0); /* told, but never taken */
}

static unsigned renewals;

static void renew_step(struct seen *s)
{
	if (++renewals < 15)
		vm_process_renew(s->process, clock_boottime_ms() + 5000);
	else
		vm_process_stop(s->process);
}

static void test_renewed(void **state)
{
	struct seen s = {.on_step = renew_step};

	(void)state;
	run(&s, "serve", 1000);
	expect(&s, true, VM_PROCESS_OFF, "stopped by request");
	assert_int_equal(renewals, 15);
}

/* A start that takes longer than the lease that it began with. */
static void slow_step(struct seen *s)
{
	if (!s->started)
		vm_process_renew(s->process, clock_boottime_ms() + 1500);
	else
		vm_process_stop(s->process);
}

static void test_slow_start(void **state)
{
	struct seen s = {.on_step = slow_step};

	(void)state;
	run(&s, "slow", 1500);
	expect(&s, true, VM_PROCESS_OFF, "stopped by request");
	assert_true(s.renewed > 0);
	assert_true(s.renewed_ms > s.first_ms);
	assert_int_equal(s.late, 0);
}

/* Time that was given can be taken back: the last word counts. */
static void shorten(struct seen *s)
{
	vm_process_renew(s->process, clock_boottime_ms() + 300);
}

static void test_taken_back(void **state)
{
	struct seen s = {.on_start = shorten};

	(void)state;
	run(&s, "serve", GUARD_MS);
	expect(&s, true, VM_PROCESS_FAILED, "lease was over");
}

static void test_warm(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(stat("/proc/self/exe", &st), 0);
	assert_int_equal(vm_process_warm("/proc/self/exe"), st.st_size);
	assert_int_equal(vm_process_warm("/nowhere"), -ENOENT);
	assert_int_equal(vm_process_warm("/"), -EISDIR);
}

static void test_ask(void **state)
{
	static char name[] = "sh", option[] = "-c";
	char good[] = "echo hello; exit 3", slow[] = "exec sleep 100", loud[] = "yes";
	char *args[] = {name, option, good, NULL};
	struct buf text = {0};
	int status = 0;

	(void)state;
	assert_int_equal(vm_process_ask("/bin/sh", args, GUARD_MS, 100, &text, &status), 0);
	assert_string_equal(buf_string(&text), "hello\n");
	assert_int_equal(WEXITSTATUS(status), 3);
	args[2] = slow;
	assert_int_equal(vm_process_ask("/bin/sh", args, 100, 100, &text, &status), -ETIMEDOUT);
	args[2] = loud;
	assert_int_equal(vm_process_ask("/bin/sh", args, GUARD_MS, 100, &text, &status), -EMSGSIZE);
	assert_int_equal(vm_process_ask("/nowhere", args, GUARD_MS, 100, &text, &status), -ENOENT);
	assert_int_equal(waitpid(-1, &status, WNOHANG), -1);
	buf_free(&text);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_button),	   cmocka_unit_test(test_no_button),
		cmocka_unit_test(test_refusals),   cmocka_unit_test(test_no_program),
		cmocka_unit_test(test_crash),	   cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_flood),	   cmocka_unit_test(test_mute),
		cmocka_unit_test(test_frozen),	   cmocka_unit_test(test_renewed),
		cmocka_unit_test(test_slow_start), cmocka_unit_test(test_taken_back),
		cmocka_unit_test(test_warm),	   cmocka_unit_test(test_ask),
	};

	if (argc > 1 && strcmp(argv[1], "supervised") == 0)
		_exit(vm_main()); /* what it has needs no tidying */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
