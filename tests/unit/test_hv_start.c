/* The first word of a VM's parent: VmStart with descriptors, or one clear error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hv/start.h"
#include "lib/buf.h"
#include "proto/frame.h"

/* Sends the bytes with `fds` copies of /dev/null, then ends. Returns the receiver's end. */
static int parent_says(const void *data, size_t len, unsigned fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(64 * sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	int null = open("/dev/null", O_RDWR);
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	if (fds > 0) {
		struct cmsghdr *c;

		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(fds * sizeof(int));
		c = CMSG_FIRSTHDR(&message);
		*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
				      .cmsg_type = SCM_RIGHTS,
				      .cmsg_len = CMSG_LEN(fds * sizeof(int))};
		for (unsigned i = 0; i < fds; i++) {
			memcpy(CMSG_DATA(c) + i * sizeof(int), &null, sizeof(int));
		}
	}
	assert_int_equal(sendmsg(pair[1], &message, 0), len);
	close(pair[1]);
	close(null);
	return pair[0];
}

static struct buf start_frame(const char *const *names, bool spec)
{
	Tb__VmStart start = TB__VM_START__INIT;
	Tb__VmSpec vm = TB__VM_SPEC__INIT;
	struct buf out = {0};
	char name[] = "vm";

	vm.name = name;
	start.spec = spec ? &vm : NULL;
	start.descriptors = (char **)(uintptr_t)names;
	while (names[start.n_descriptors] != NULL) {
		start.n_descriptors++;
	}
	start.lease_until_ms = 12345;
	frame_append(&out, &start.base);
	return out;
}

static void test_taken(void **state)
{
	static const char *const names[] = {"kvm", "kernel", "disk0", "console", NULL};
	struct buf frame = start_frame(names, true);
	struct resources r = {0};
	struct fault fault = {0};
	Tb__VmStart *start;
	int fd;

	(void)state;
	/* A request behind it stays in the socket. */
	buf_puts(&frame, "more");
	fd = parent_says(frame.data, frame.len, 4);
	assert_int_equal(start_receive(fd, &start, &r, &fault), 0);
	assert_string_equal(start->spec->name, "vm");
	assert_int_equal(start->lease_until_ms, 12345);
	assert_int_equal(r.count, 4);
	assert_true(resource_find(&r, "kvm") >= 0);
	assert_int_equal(fcntl(resource_find(&r, "console"), F_GETFD), FD_CLOEXEC);
	frame.len = (size_t)read(fd, frame.data, 5);
	assert_int_equal(frame.len, 4);
	assert_memory_equal(frame.data, "more", 4);
	tb__vm_start__free_unpacked(start, NULL);
	resources_close(&r);
	close(fd);
	buf_free(&frame);
}

static unsigned open_count(void)
{
	unsigned count = 0;

	for (int fd = 0; fd < 256; fd++) {
		count += fcntl(fd, F_GETFD) >= 0;
	}
	return count;
}

static void must_refuse(const void *data, size_t len, unsigned fds, const char *sentence)
{
	struct resources r = {0};
	struct fault fault = {0};
	Tb__VmStart *start;
	int fd = parent_says(data, len, fds);
	unsigned before = open_count();

	assert_true(start_receive(fd, &start, &r, &fault) < 0);
	assert_string_equal(fault.text, sentence);
	resources_close(&r);
	assert_int_equal(open_count(), before);
	close(fd);
}

static void test_refused(void **state)
{
	static const char *const two[] = {"kvm", "kernel", NULL};
	static const char *const twice[] = {"kvm", "kvm", NULL};
	static const char *const odd[] = {"kvm", "../etc", NULL};
	static const char *const none[] = {NULL};
	struct buf frame = start_frame(two, true);

	(void)state;
	must_refuse(frame.data, frame.len, 1, "VmStart names 2 descriptors and 1 came along");
	must_refuse(frame.data, frame.len, 3, "VmStart names 2 descriptors and 3 came along");
	must_refuse(frame.data, frame.len, 33, "descriptor 3: more than 32 descriptors");
	must_refuse(frame.data, frame.len, 60, "descriptor 3: more than 32 descriptors");
	must_refuse(frame.data, frame.len - 1, 2, "descriptor 3: the parent ended before VmStart");
	must_refuse(frame.data, 3, 2, "descriptor 3: the parent ended before VmStart");
	buf_free(&frame);
	frame = start_frame(twice, true);
	must_refuse(frame.data, frame.len, 2, "VmStart: \"kvm\" is there twice");
	buf_free(&frame);
	frame = start_frame(odd, true);
	must_refuse(frame.data, frame.len, 2, "VmStart: \"../etc\" is no descriptor's name");
	buf_free(&frame);
	frame = start_frame(none, false);
	must_refuse(frame.data, frame.len, 0, "VmStart has no spec");
	buf_free(&frame);
	must_refuse("\xff\xff\xff\xff", 4, 0, "descriptor 3: VmStart is over 262144 bytes");
	must_refuse("\0\0\0\3\xff\xff\xff", 7, 0, "descriptor 3: the first frame is no VmStart");
}

static void test_no_parent(void **state)
{
	struct resources r = {0};
	struct fault fault = {0};
	Tb__VmStart *start;

	(void)state;
	assert_true(start_receive(open("/dev/null", O_RDWR), &start, &r, &fault) < 0);
	assert_string_equal(fault.text, "descriptor 3 is no socket; `witness-vm supervised` is "
					"started by a parent with one (hv.proto, VmStart)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_taken),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_no_parent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
