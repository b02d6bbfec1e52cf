/* The control socket of a VM: requests and answers over real sockets with a handler that stands for
 * the machine, and everything that a broken or hostile client can do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "hv/control.h"
#include "lib/buf.h"
#include "lib/clock.h"
#include "proto/frame.h"

/* The machine's stand-in: says what it was asked. */
struct fixture {
	struct loop loop;
	struct control *control;
	pthread_t thread;
	int parent; /* our end, or -1 */
	char path[64];
	char folder[32];
	/* Under the loop's lock. */
	unsigned requests, stats, renewals;
	bool last_parent;
	size_t last_fds;
	char last_text[16]; /* read from the first descriptor */
	bool parent_gone;
	uint64_t later; /* client that was promised an answer */
	uint64_t later_id;
	char text[1 << 16];
};

static bool handle(void *arg, const struct control_call *call, Tb__VmReply *reply)
{
	struct fixture *f = arg;

	f->requests++;
	f->last_parent = call->parent;
	f->last_fds = call->fd_count;
	if (call->fd_count > 0) {
		(void)!pread(call->fds[0], f->last_text, sizeof(f->last_text) - 1, 0);
	}
	switch (call->request->what_case) {
	case TB__VM_REQUEST__WHAT_SAVE:
		f->later = call->client;
		f->later_id = call->request->id;
		return false;
	case TB__VM_REQUEST__WHAT_STATS:
		f->stats++;
		memset(f->text, 'x', sizeof(f->text) - 1);
		reply->error = f->text;
		return true;
	case TB__VM_REQUEST__WHAT_LEASE:
		f->renewals += call->may_renew;
		f->text[0] = '\0';
		reply->error = f->text;
		return true;
	default:
		snprintf(f->text, sizeof(f->text), "asked for %d", (int)call->request->what_case);
		reply->error = f->text;
		return true;
	}
}

static void gone(void *arg)
{
	((struct fixture *)arg)->parent_gone = true;
}

static void *run(void *arg)
{
	loop_run(&((struct fixture *)arg)->loop);
	return NULL;
}

static void begin(struct fixture *f, bool parent)
{
	struct control_config config = {
		.loop = &f->loop,
		.parent = -1,
		.request = handle,
		.parent_gone = gone,
		.arg = f,
	};
	int pair[2];

	*f = (struct fixture){.parent = -1, .folder = "/tmp/test_hv_control_XXXXXX"};
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof(f->path), "%s/vm.sock", f->folder);
	assert_int_equal(loop_init(&f->loop), 0);
	assert_int_equal(control_listen(f->path, &config.listener), 0);
	if (parent) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		config.parent = pair[0];
		f->parent = pair[1];
	}
	assert_int_equal(control_create(&config, &f->control), 0);
	assert_int_equal(pthread_create(&f->thread, NULL, run, f), 0);
}

static void end(struct fixture *f)
{
	loop_stop(&f->loop);
	pthread_join(f->thread, NULL);
	control_destroy(f->control);
	loop_close(&f->loop);
	if (f->parent >= 0) {
		close(f->parent);
	}
	unlink(f->path);
	rmdir(f->folder);
}

static int connect_to(const struct fixture *f)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, f->path);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* A request with `count` descriptors of `fd`. */
static void send_request(int to, const Tb__VmRequest *request, int fd, unsigned count)
{
	struct buf out = {0};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(8 * sizeof(int))];
	} control = {0};
	struct iovec iov;
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	frame_append(&out, &request->base);
	iov = (struct iovec){.iov_base = out.data, .iov_len = out.len};
	if (count > 0) {
		struct cmsghdr *c;

		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		c = CMSG_FIRSTHDR(&message);
		*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
				      .cmsg_type = SCM_RIGHTS,
				      .cmsg_len = CMSG_LEN(count * sizeof(int))};
		for (unsigned i = 0; i < count; i++) {
			memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(int));
		}
	}
	assert_int_equal(sendmsg(to, &message, MSG_NOSIGNAL), out.len);
	buf_free(&out);
}

static void ask(int to, uint64_t id, Tb__VmRequest__WhatCase what)
{
	Tb__VmRequest request = TB__VM_REQUEST__INIT;
	Tb__VmSave save = TB__VM_SAVE__INIT;
	Tb__VmLease lease = TB__VM_LEASE__INIT;

	request.id = id;
	request.what_case = what;
	if (what == TB__VM_REQUEST__WHAT_SAVE) {
		request.save = &save;
	} else if (what == TB__VM_REQUEST__WHAT_LEASE) {
		request.lease = &lease;
	} else {
		request.status = true;
	}
	send_request(to, &request, -1, 0);
}

/* The next answer; NULL: the connection ended. */
static Tb__VmReply *answer(int from)
{
	uint8_t head[FRAME_HEAD];
	uint8_t *payload;
	size_t len;
	Tb__VmReply *reply;

	if (recv(from, head, sizeof(head), MSG_WAITALL) != sizeof(head)) {
		return NULL;
	}
	len = frame_payload_len(head);
	assert_true(len <= 1 << 17);
	payload = malloc(len + 1);
	assert_int_equal(recv(from, payload, len, MSG_WAITALL), len);
	reply = tb__vm_reply__unpack(NULL, len, payload);
	assert_non_null(reply);
	free(payload);
	return reply;
}

static void answer_must_be(int from, uint64_t id, const char *error)
{
	Tb__VmReply *reply = answer(from);

	assert_non_null(reply);
	assert_int_equal(reply->id, id);
	assert_string_equal(reply->error, error);
	tb__vm_reply__free_unpacked(reply, NULL);
}

static void must_be_closed(int fd)
{
	char byte;

	assert_true(recv(fd, &byte, 1, 0) <= 0);
	close(fd);
}

/* The loop has seen everything that was sent before: connecting and speaking are two turns each. */
static void settle(struct fixture *f)
{
	bool by_parent = f->parent >= 0;
	int fd = by_parent ? f->parent : connect_to(f);

	for (unsigned i = 0; i < 4; i++) {
		ask(fd, 99, TB__VM_REQUEST__WHAT_STATUS);
		answer_must_be(fd, 99, "asked for 2");
	}
	if (!by_parent) {
		close(fd);
	}
}

static void test_asked_and_answered(void **state)
{
	static struct fixture f;
	int client;

	(void)state;
	begin(&f, true);
	client = connect_to(&f);
	ask(f.parent, 7, TB__VM_REQUEST__WHAT_STATUS);
	answer_must_be(f.parent, 7, "asked for 2");
	assert_true(f.last_parent);
	ask(client, 8, TB__VM_REQUEST__WHAT_PAUSE);
	answer_must_be(client, 8, "asked for 5");
	assert_false(f.last_parent);
	/* Several at once are answered one after the other. */
	for (uint64_t i = 1; i <= 50; i++) {
		ask(client, i, TB__VM_REQUEST__WHAT_STATUS);
	}
	for (uint64_t i = 1; i <= 50; i++) {
		answer_must_be(client, i, "asked for 2");
	}
	/* What a newer client says is the handler's to refuse. */
	ask(client, 9, TB__VM_REQUEST__WHAT__NOT_SET);
	answer_must_be(client, 9, "asked for 0");
	close(client);
	end(&f);
}

static void test_socket_is_private(void **state)
{
	static struct fixture f;
	struct stat st;
	int other;

	(void)state;
	begin(&f, false);
	assert_int_equal(stat(f.path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	/* One that lives is not taken away; what a dead process left is. */
	assert_int_equal(control_listen(f.path, &other), -EADDRINUSE);
	settle(&f);
	loop_stop(&f.loop);
	pthread_join(f.thread, NULL);
	control_destroy(f.control);
	loop_close(&f.loop);
	assert_int_equal(control_listen(f.path, &other), 0);
	close(other);
	assert_int_equal(unlink(f.path), 0);
	/* A file that is no socket is not ours to remove. */
	close(open(f.path, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(control_listen(f.path, &other), -EADDRINUSE);
	assert_int_equal(unlink(f.path), 0);
	rmdir(f.folder);
}

static void test_descriptors(void **state)
{
	static struct fixture f;
	Tb__VmRequest request = TB__VM_REQUEST__INIT;
	char name[] = "/tmp/test_hv_control_fd_XXXXXX";
	int fd = mkstemp(name);
	int probe, client;

	(void)state;
	assert_int_equal(write(fd, "hello", 5), 5);
	begin(&f, true);
	probe = dup(0);
	close(probe);
	request.what_case = TB__VM_REQUEST__WHAT_STATUS;
	send_request(f.parent, &request, fd, 2);
	answer_must_be(f.parent, 0, "asked for 2");
	assert_int_equal(f.last_fds, 2);
	assert_string_equal(f.last_text, "hello");
	/* Those of the next request do not come with this one. */
	ask(f.parent, 1, TB__VM_REQUEST__WHAT_STATUS);
	send_request(f.parent, &request, fd, 1);
	answer_must_be(f.parent, 1, "asked for 2");
	answer_must_be(f.parent, 0, "asked for 2");
	assert_int_equal(f.last_fds, 1);
	/* Too many end the connection, and none stays open here. */
	for (unsigned count = 3; count <= 8; count += 5) {
		client = connect_to(&f);
		send_request(client, &request, fd, count);
		must_be_closed(client);
	}
	settle(&f);
	client = dup(0);
	assert_int_equal(client, probe);
	close(client);
	end(&f);
	close(fd);
	unlink(name);
}

static void test_later_answer(void **state)
{
	static struct fixture f;
	Tb__VmReply reply = TB__VM_REPLY__INIT;
	struct pollfd quiet;
	int client;

	(void)state;
	begin(&f, true);
	client = connect_to(&f);
	ask(client, 5, TB__VM_REQUEST__WHAT_SAVE);
	ask(client, 6, TB__VM_REQUEST__WHAT_STATUS);
	settle(&f);
	/* The second does not wait for the first. */
	answer_must_be(client, 6, "asked for 2");
	settle(&f);
	quiet = (struct pollfd){.fd = client, .events = POLLIN};
	assert_int_equal(poll(&quiet, 1, 0), 0);
	loop_lock(&f.loop);
	reply.id = f.later_id;
	control_answer(f.control, f.later, &reply);
	control_answer(f.control, f.later, &reply); /* only once */
	loop_unlock(&f.loop);
	answer_must_be(client, 5, "");
	settle(&f);
	assert_int_equal(poll(&quiet, 1, 0), 0);
	/* A client that did not wait for it. */
	ask(client, 7, TB__VM_REQUEST__WHAT_SAVE);
	settle(&f);
	close(client);
	settle(&f);
	loop_lock(&f.loop);
	control_answer(f.control, f.later, &reply);
	assert_int_equal(control_clients(f.control), 1);
	loop_unlock(&f.loop);
	end(&f);
}

static void test_broken_frames(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
	} cases[] = {
		{"\xff\xff\xff\xff", 4}, /* longer than anything */
		{"\x00\x00\x10\x01", 4}, /* one more than is allowed */
		{"\x00\x00\x00\x03\xff\xff\xff", 7}, /* no protobuf */
		{"GET / HTTP/1.1\r\n\r\n", 18},
	};
	static struct fixture f;
	int half;

	(void)state;
	begin(&f, true);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int client = connect_to(&f);

		assert_int_equal(send(client, cases[i].bytes, cases[i].len, MSG_NOSIGNAL),
				 cases[i].len);
		settle(&f);
		loop_lock(&f.loop);
		assert_int_equal(control_clients(f.control), 1);
		loop_unlock(&f.loop);
		must_be_closed(client);
	}
	/* The end in the middle of one. */
	half = connect_to(&f);
	assert_int_equal(send(half, "\0\0\0\4\1", 5, 0), 5);
	shutdown(half, SHUT_WR);
	must_be_closed(half);
	end(&f);
}

static void test_byte_by_byte(void **state)
{
	static struct fixture f;
	Tb__VmRequest request = TB__VM_REQUEST__INIT;
	struct buf out = {0};

	(void)state;
	request.id = 300;
	request.what_case = TB__VM_REQUEST__WHAT_RESUME;
	request.resume = true;
	frame_append(&out, &request.base);
	begin(&f, true);
	for (size_t i = 0; i < out.len; i++) {
		assert_int_equal(send(f.parent, out.data + i, 1, 0), 1);
		usleep(1000);
	}
	answer_must_be(f.parent, 300, "asked for 6");
	buf_free(&out);
	end(&f);
}

/* As if it were so much later than now, and now is when nobody else has the loop: whoever began to
 * wait did so before. */
static void expire(struct fixture *f, uint64_t later_ms)
{
	settle(f);
	loop_lock(&f->loop);
	control_expire(f->control, clock_boottime_ms() + later_ms);
	loop_unlock(&f->loop);
}

static void test_half_done_frames_time_out(void **state)
{
	static struct fixture f;
	int half, idle;

	(void)state;
	begin(&f, true);
	idle = connect_to(&f);
	half = connect_to(&f);
	assert_int_equal(send(half, "\0\0\0", 3, 0), 3);
	expire(&f, 0);
	assert_int_equal(control_clients(f.control), 3);
	expire(&f, CONTROL_PATIENCE_MS);
	assert_int_equal(control_clients(f.control), 2);
	must_be_closed(half);
	/* Who says nothing may stay. */
	ask(idle, 1, TB__VM_REQUEST__WHAT_STATUS);
	answer_must_be(idle, 1, "asked for 2");
	close(idle);
	end(&f);
}

static void test_slow_readers_time_out(void **state)
{
	static struct fixture f;
	int client, size = 4096;

	(void)state;
	begin(&f, true);
	client = connect_to(&f);
	setsockopt(client, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	for (unsigned i = 0; i < 20; i++) {
		ask(client, i, TB__VM_REQUEST__WHAT_STATS);
	}
	/* In the end it owes an answer that is not taken, and is closed for it. */
	while (control_clients(f.control) > 1) {
		expire(&f, CONTROL_PATIENCE_MS);
	}
	/* No answer is made while one is not taken. */
	assert_true(f.stats < 20);
	close(client);
	/* One that takes its time, and takes it all. */
	client = connect_to(&f);
	for (unsigned i = 0; i < 20; i++) {
		ask(client, i, TB__VM_REQUEST__WHAT_STATS);
	}
	for (unsigned i = 0; i < 20; i++) {
		Tb__VmReply *reply = answer(client);

		assert_int_equal(reply->id, i);
		assert_int_equal(strlen(reply->error), sizeof(f.text) - 1);
		tb__vm_reply__free_unpacked(reply, NULL);
	}
	close(client);
	end(&f);
}

static void test_too_many_clients(void **state)
{
	static struct fixture f;
	int clients[CONTROL_CLIENTS_MAX];
	int more;

	(void)state;
	begin(&f, true);
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		clients[i] = connect_to(&f);
	}
	more = connect_to(&f);
	answer_must_be(more, 0, "too many clients are connected to this VM; try again");
	must_be_closed(more);
	ask(f.parent, 1, TB__VM_REQUEST__WHAT_STATUS);
	answer_must_be(f.parent, 1, "asked for 2");
	close(clients[3]);
	settle(&f);
	clients[3] = connect_to(&f);
	ask(clients[3], 2, TB__VM_REQUEST__WHAT_STATUS);
	answer_must_be(clients[3], 2, "asked for 2");
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		close(clients[i]);
	}
	end(&f);
}

static void test_who_speaks_for_the_lease(void **state)
{
	static struct fixture f;
	int client;

	(void)state;
	begin(&f, true);
	client = connect_to(&f);
	ask(client, 1, TB__VM_REQUEST__WHAT_LEASE);
	answer_must_be(client, 1, "");
	assert_int_equal(f.renewals, 0);
	ask(f.parent, 2, TB__VM_REQUEST__WHAT_LEASE);
	answer_must_be(f.parent, 2, "");
	assert_int_equal(f.renewals, 1);
	/* The parent is gone: who has the socket is the next one. */
	shutdown(f.parent, SHUT_RDWR);
	must_be_closed(f.parent);
	f.parent = -1;
	settle(&f);
	loop_lock(&f.loop);
	assert_true(f.parent_gone);
	loop_unlock(&f.loop);
	ask(client, 3, TB__VM_REQUEST__WHAT_LEASE);
	answer_must_be(client, 3, "");
	assert_int_equal(f.renewals, 2);
	close(client);
	end(&f);
}

static void hear(struct fixture *f)
{
	loop_lock(&f->loop);
	control_hear_parent(f->control);
	loop_unlock(&f->loop);
}

/* The loop does not run: whoever keeps it from that takes the parent's requests himself. */
static void test_heard_without_loop(void **state)
{
	static struct fixture f;
	int client;

	(void)state;
	begin(&f, true);
	settle(&f);
	client = connect_to(&f);
	ask(client, 1, TB__VM_REQUEST__WHAT_STATUS);
	answer_must_be(client, 1, "asked for 2");
	loop_stop(&f.loop);
	pthread_join(f.thread, NULL);
	f.requests = 0;
	hear(&f);
	assert_int_equal(f.requests, 0); /* there is nothing, and it does not wait */
	ask(f.parent, 5, TB__VM_REQUEST__WHAT_LEASE);
	ask(f.parent, 6, TB__VM_REQUEST__WHAT_LEASE);
	ask(client, 2, TB__VM_REQUEST__WHAT_STATUS); /* waits for the loop */
	hear(&f);
	assert_int_equal(f.requests, 2);
	assert_int_equal(f.renewals, 2);
	answer_must_be(f.parent, 5, "");
	answer_must_be(f.parent, 6, "");
	/* Half a frame is kept. */
	assert_int_equal(send(f.parent, "\0\0", 2, 0), 2);
	hear(&f);
	assert_int_equal(send(f.parent, "\0\0", 2, 0), 2);
	hear(&f);
	assert_int_equal(f.requests, 3);
	answer_must_be(f.parent, 0, "asked for 0");
	/* A parent that goes is noticed. */
	close(f.parent);
	f.parent = -1;
	hear(&f);
	assert_true(f.parent_gone);
	hear(&f);
	f.loop.stop = false;
	assert_int_equal(pthread_create(&f.thread, NULL, run, &f), 0);
	answer_must_be(client, 2, "asked for 2");
	close(client);
	end(&f);
}

static void test_told_without_being_asked(void **state)
{
	static struct fixture f;
	Tb__VmReply reply = TB__VM_REPLY__INIT;
	char text[] = "the guest powered off";

	(void)state;
	begin(&f, true);
	reply.error = text;
	loop_lock(&f.loop);
	control_tell_parent(f.control, &reply);
	loop_unlock(&f.loop);
	answer_must_be(f.parent, 0, text);
	settle(&f);
	end(&f);
}

/* Out of descriptors: the loop does not spin, and hears again when there are some. */
static void test_no_descriptor_for_a_client(void **state)
{
	static struct fixture f;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct rlimit old, few;
	struct pollfd quiet;
	int first, client, last;

	(void)state;
	begin(&f, true);
	first = connect_to(&f);
	client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strcpy(address.sun_path, f.path);
	settle(&f);
	last = dup(0);
	close(last);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = (struct rlimit){.rlim_cur = (rlim_t)last, .rlim_max = old.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof(address)), 0);
	settle(&f);
	loop_lock(&f.loop);
	quiet = (struct pollfd){.fd = f.loop.epoll, .events = POLLIN};
	assert_int_equal(poll(&quiet, 1, 0), 0);
	assert_int_equal(control_clients(f.control), 2);
	loop_unlock(&f.loop);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	close(first);
	ask(client, 4, TB__VM_REQUEST__WHAT_STATUS);
	answer_must_be(client, 4, "asked for 2");
	close(client);
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_asked_and_answered),
		cmocka_unit_test(test_socket_is_private),
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_later_answer),
		cmocka_unit_test(test_broken_frames),
		cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_half_done_frames_time_out),
		cmocka_unit_test(test_slow_readers_time_out),
		cmocka_unit_test(test_too_many_clients),
		cmocka_unit_test(test_who_speaks_for_the_lease),
		cmocka_unit_test(test_heard_without_loop),
		cmocka_unit_test(test_told_without_being_asked),
		cmocka_unit_test(test_no_descriptor_for_a_client),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
