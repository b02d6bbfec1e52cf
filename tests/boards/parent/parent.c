/* parent: on a board, starts a VM in the supervised form as a daemon would: opens everything, hands
 * the descriptors over with VmStart, and then does its words, each told with how it went:
 *
 *   parent SPEC.json [lease=MS] [starting=EVERY_MS,LENGTH_MS] WORD...
 *     starting      renewals while it starts; "STARTED after-ms 4000 renewed 40"
 *     renew=COUNT,EVERY_MS,LENGTH_MS   renewals by point in time
 *     status stats button stop pause resume reset   a request; its answer in one line of JSON
 *     say=TEXT      a line to the guest's console
 *     await=TEXT    until the guest's console has said it
 *     wait=MS       does nothing
 *     exists=FILE   waits until it is there
 *     ask=WORD      such a request, whose answer is not waited for; told as LATER when it is there
 *     files=FOLDER  makes the files of a snapshot; save: has it written to them, as ask does
 *     answered      waits for the answer to the last of ask and save
 *     freeze term   SIGSTOP, SIGTERM to the VM
 *     hold let      stops the VM's loop, and nothing else of it; it goes on
 *     gone          waits for the VM's process; "GONE status 0x9 after-deadline-ms 3": how long
 * after the last deadline that was given Status 0 if every word went well. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/resources.h"
#include "hv/spec.h"
#include "lib/buf.h"
#include "lib/clock.h"
#include "proto/frame.h"
#include "proto/json.h"

struct parent {
	pid_t vm;
	int control; /* our end of its descriptor 3 */
	int console; /* our end of its console */
	uint64_t deadline_ms;
	uint64_t id;
	uint64_t later_id; /* its answer was not waited for; 0: none */
	int files[2]; /* of a snapshot */
	struct buf heard;
};

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "parent: %s: %s\n", what, why);
	exit(1);
}

static Tb__VmSpec *spec_of(const char *path)
{
	struct fault fault = {0};
	struct buf text = {0};
	Tb__VmSpec *spec;
	int fd = open(path, O_RDONLY);
	ssize_t len = fd < 0 ? -1 : read(fd, buf_reserve(&text, SPEC_TEXT_MAX), SPEC_TEXT_MAX);

	if (len < 0) {
		fail(path, strerror(errno));
	}
	close(fd);
	if (spec_parse((const char *)text.data, (size_t)len, "", &spec, &fault) < 0 ||
	    spec_finish(spec, true, &fault) < 0) {
		fail(path, fault.text);
	}
	buf_free(&text);
	return spec;
}

static void frame_send(int fd, const ProtobufCMessage *message, const int *fds, size_t count)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(RESOURCES_MAX * sizeof(int))];
	} control = {0};
	struct buf out = {0};
	struct iovec iov;
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	frame_append(&out, message);
	iov = (struct iovec){.iov_base = out.data, .iov_len = out.len};
	if (count > 0) {
		struct cmsghdr *c;

		m.msg_control = control.bytes;
		m.msg_controllen = CMSG_SPACE(count * sizeof(int));
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	}
	if (sendmsg(fd, &m, MSG_NOSIGNAL) < 0) {
		fail("send", strerror(errno));
	}
	buf_free(&out);
}

/* NULL: the connection ended. */
static Tb__VmReply *reply_receive(int fd)
{
	uint8_t head[FRAME_HEAD];
	ProtobufCMessage *message;
	uint8_t *payload;
	size_t len;

	if (recv(fd, head, sizeof(head), MSG_WAITALL) != sizeof(head)) {
		return NULL;
	}
	len = frame_payload_len(head);
	payload = malloc(len + 1);
	if (recv(fd, payload, len, MSG_WAITALL) != (ssize_t)len ||
	    frame_unpack(&tb__vm_reply__descriptor, payload, len, FRAME_MEMORY(len), &message) <
		    0) {
		fail("reply", "is none");
	}
	free(payload);
	return (Tb__VmReply *)message;
}

static void reply_print(const char *word, const Tb__VmReply *reply)
{
	struct buf text = {0};

	json_encode(&reply->base, &text);
	printf("%s %s\n", word, buf_string(&text));
	fflush(stdout);
	buf_free(&text);
}

/* The VM's process with our end of its socket as 3 and nothing else. */
static pid_t vm_spawn(int control)
{
	char *args[] = {(char *)(uintptr_t) "witness-vm", (char *)(uintptr_t) "supervised", NULL};
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(control, 3);
		execv("/bin/witness-vm", args);
		_exit(127);
	}
	return pid;
}

static void lease_send(struct parent *p, uint64_t length_ms)
{
	Tb__VmRequest request = TB__VM_REQUEST__INIT;
	Tb__VmLease lease = TB__VM_LEASE__INIT;

	p->deadline_ms = clock_boottime_ms() + length_ms;
	lease.until_ms = p->deadline_ms;
	request.id = ++p->id;
	request.what_case = TB__VM_REQUEST__WHAT_LEASE;
	request.lease = &lease;
	frame_send(p->control, &request.base, NULL, 0);
}

/* Its word that it runs, or why not; NULL: it ended without one. */
static Tb__VmReply *start_await(struct parent *p, const char *starting)
{
	unsigned long long every = 0, length = 0;
	uint64_t began = clock_boottime_ms();
	unsigned renewed = 0;

	if (starting != NULL && sscanf(starting, "%llu,%llu", &every, &length) != 2) {
		fail("starting", "EVERY_MS,LENGTH_MS");
	}
	for (;;) {
		Tb__VmReply *reply;

		/* One at a time, as a daemon does. */
		if (starting != NULL && p->id == renewed) {
			usleep((useconds_t)every * 1000);
			lease_send(p, length);
		}
		reply = reply_receive(p->control);
		if (reply == NULL || reply->id == 0) {
			printf("STARTED after-ms %llu renewed %u\n",
			       (unsigned long long)(clock_boottime_ms() - began), renewed);
			p->later_id = p->id != renewed ? p->id : 0;
			return reply;
		}
		renewed++;
		tb__vm_reply__free_unpacked(reply, NULL);
	}
}

static void vm_start(struct parent *p, Tb__VmSpec *spec, uint64_t lease_ms, const char *starting)
{
	Tb__VmStart start = TB__VM_START__INIT;
	struct resources r = {0};
	struct fault fault = {0};
	char *names[RESOURCES_MAX];
	int fds[RESOURCES_MAX];
	int control[2], console[2];
	Tb__VmReply *reply;

	if (resources_open(spec, &r, &fault) < 0 || resources_check(spec, &r, &fault) < 0) {
		fail("resources", fault.text);
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console) < 0) {
		fail("socketpair", strerror(errno));
	}
	resource_add(&r, "kvm", open("/dev/kvm", O_RDWR | O_CLOEXEC));
	resource_add(&r, "console", console[1]);
	for (size_t i = 0; i < r.count; i++) {
		names[i] = r.item[i].name;
		fds[i] = r.item[i].fd;
	}
	start.spec = spec;
	start.descriptors = names;
	start.n_descriptors = r.count;
	if (lease_ms != 0) {
		p->deadline_ms = clock_boottime_ms() + lease_ms;
		start.lease_until_ms = p->deadline_ms;
	}
	p->vm = vm_spawn(control[1]);
	close(control[1]);
	p->control = control[0];
	p->console = console[0];
	frame_send(p->control, &start.base, fds, r.count);
	resources_close(&r);
	reply = start_await(p, starting);
	if (reply == NULL) {
		fail("start", "the VM ended without a word");
	}
	reply_print("START", reply);
	tb__vm_reply__free_unpacked(reply, NULL);
}

/* The answer to `id`; that to an earlier request may come before it. */
static void await_answer(struct parent *p, const char *word, uint64_t id)
{
	for (;;) {
		Tb__VmReply *reply = reply_receive(p->control);
		bool done;

		if (reply == NULL) {
			fail(word, "the connection ended");
		}
		done = reply->id == id;
		if (p->later_id != 0 && reply->id == p->later_id) {
			reply_print("LATER", reply);
			p->later_id = 0;
		} else if (done) {
			reply_print(word, reply);
		} else {
			fail(word, "an answer to something else");
		}
		tb__vm_reply__free_unpacked(reply, NULL);
		if (done) {
			return;
		}
	}
}

static void ask(struct parent *p, const char *word, Tb__VmRequest *request)
{
	request->id = ++p->id;
	frame_send(p->control, &request->base, NULL, 0);
	await_answer(p, word, request->id);
}

static void do_files(struct parent *p, const char *folder)
{
	static const char *const names[] = {"state", "memory"};
	char path[256];

	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		p->files[i] = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		if (p->files[i] < 0) {
			fail(path, strerror(errno));
		}
	}
}

static void do_save(struct parent *p)
{
	Tb__VmRequest request = TB__VM_REQUEST__INIT;
	Tb__VmSave save = TB__VM_SAVE__INIT;

	request.id = p->later_id = ++p->id;
	request.what_case = TB__VM_REQUEST__WHAT_SAVE;
	request.save = &save;
	frame_send(p->control, &request.base, p->files, 2);
}

static void do_answered(struct parent *p)
{
	if (p->later_id != 0) {
		await_answer(p, "answered", p->later_id);
	}
}

static void do_renew(struct parent *p, const char *numbers)
{
	unsigned long long count, every, length;

	if (sscanf(numbers, "%llu,%llu,%llu", &count, &every, &length) != 3) {
		fail("renew", "COUNT,EVERY_MS,LENGTH_MS");
	}
	while (count-- > 0) {
		lease_send(p, length);
		await_answer(p, "renew", p->id);
		usleep((useconds_t)every * 1000);
	}
}

static void do_await(struct parent *p, const char *text)
{
	while (strstr(buf_string(&p->heard), text) == NULL) {
		ssize_t got = read(p->console, buf_reserve(&p->heard, 4096), 4096);

		if (got <= 0) {
			printf("%s\n", buf_string(&p->heard));
			fail("await", text);
		}
		p->heard.len += (size_t)got;
	}
	buf_consume(&p->heard,
		    (size_t)(strstr(buf_string(&p->heard), text) - buf_string(&p->heard)));
	printf("HEARD %s\n", text);
	fflush(stdout);
}

/* What becomes ready meanwhile is there at once when it goes on. */
static void do_hold(struct parent *p)
{
	int status;

	if (ptrace(PTRACE_SEIZE, p->vm, NULL, NULL) < 0 ||
	    ptrace(PTRACE_INTERRUPT, p->vm, NULL, NULL) < 0 ||
	    waitpid(p->vm, &status, 0) != p->vm || !WIFSTOPPED(status)) {
		fail("hold", strerror(errno));
	}
}

static void do_let(struct parent *p)
{
	if (ptrace(PTRACE_DETACH, p->vm, NULL, NULL) < 0) {
		fail("let", strerror(errno));
	}
}

static void do_gone(struct parent *p)
{
	Tb__VmReply *reply;
	uint64_t now;
	int status;

	if (waitpid(p->vm, &status, 0) != p->vm) {
		fail("gone", strerror(errno));
	}
	now = clock_boottime_ms();
	printf("GONE status 0x%x after-deadline-ms %lld\n", (unsigned)status,
	       (long long)(now - p->deadline_ms));
	while ((reply = reply_receive(p->control)) != NULL) {
		reply_print("LAST", reply);
		tb__vm_reply__free_unpacked(reply, NULL);
	}
}

static bool do_request(struct parent *p, const char *word, bool wait)
{
	static const struct {
		const char *word;
		Tb__VmRequest__WhatCase what;
	} words[] = {
		{"status", TB__VM_REQUEST__WHAT_STATUS},
		{"stats", TB__VM_REQUEST__WHAT_STATS},
		{"button", TB__VM_REQUEST__WHAT_POWER_BUTTON},
		{"stop", TB__VM_REQUEST__WHAT_STOP},
		{"pause", TB__VM_REQUEST__WHAT_PAUSE},
		{"resume", TB__VM_REQUEST__WHAT_RESUME},
		{"reset", TB__VM_REQUEST__WHAT_RESET},
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(words[i].word, word) == 0) {
			Tb__VmRequest request = TB__VM_REQUEST__INIT;

			request.what_case = words[i].what;
			request.status = true;
			if (wait) {
				ask(p, word, &request);
			} else {
				request.id = p->later_id = ++p->id;
				frame_send(p->control, &request.base, NULL, 0);
			}
			return true;
		}
	}
	return false;
}

static void word_do(struct parent *p, const char *word)
{
	if (strncmp(word, "renew=", 6) == 0) {
		do_renew(p, word + 6);
	} else if (strncmp(word, "await=", 6) == 0) {
		do_await(p, word + 6);
	} else if (strncmp(word, "say=", 4) == 0) {
		dprintf(p->console, "%s\n", word + 4);
	} else if (strncmp(word, "wait=", 5) == 0) {
		usleep((useconds_t)atoi(word + 5) * 1000);
	} else if (strncmp(word, "exists=", 7) == 0) {
		while (access(word + 7, F_OK) < 0) {
			usleep(10000);
		}
	} else if (strncmp(word, "files=", 6) == 0) {
		do_files(p, word + 6);
	} else if (strcmp(word, "save") == 0) {
		do_save(p);
	} else if (strcmp(word, "answered") == 0) {
		do_answered(p);
	} else if (strcmp(word, "term") == 0) {
		kill(p->vm, SIGTERM);
	} else if (strcmp(word, "freeze") == 0) {
		kill(p->vm, SIGSTOP);
	} else if (strcmp(word, "hold") == 0) {
		do_hold(p);
	} else if (strcmp(word, "let") == 0) {
		do_let(p);
	} else if (strcmp(word, "gone") == 0) {
		do_gone(p);
	} else if (strncmp(word, "ask=", 4) == 0 ? !do_request(p, word + 4, false)
						 : !do_request(p, word, true)) {
		fail(word, "is no word");
	}
}

int main(int argc, char **argv)
{
	struct parent p = {0};
	const char *starting = NULL;
	uint64_t lease_ms = 0;
	int i = 2;

	if (argc < 2) {
		fail("usage", "parent SPEC.json [lease=MS] WORD...");
	}
	if (argc > 2 && strncmp(argv[2], "lease=", 6) == 0) {
		lease_ms = strtoull(argv[2] + 6, NULL, 10);
		i = 3;
	}
	if (argc > i && strncmp(argv[i], "starting=", 9) == 0) {
		starting = argv[i++] + 9;
	}
	vm_start(&p, spec_of(argv[1]), lease_ms, starting);
	for (; i < argc; i++) {
		word_do(&p, argv[i]);
	}
	return 0;
}
