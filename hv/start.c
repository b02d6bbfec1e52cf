#include "hv/start.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/buf.h"
#include "proto/frame.h"

struct received {
	int fds[RESOURCES_MAX];
	size_t count;
};

static void received_close(struct received *r)
{
	for (size_t i = 0; i < r->count; i++) {
		close(r->fds[i]);
	}
	r->count = 0;
}

static bool received_take(struct received *r, struct msghdr *message)
{
	bool good = (message->msg_flags & MSG_CTRUNC) == 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		for (size_t i = 0; c->cmsg_type == SCM_RIGHTS && i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (r->count < RESOURCES_MAX) {
				r->fds[r->count++] = fd;
			} else {
				close(fd);
				good = false;
			}
		}
	}
	return good;
}

/* Exactly `len` bytes and whatever descriptors come with them. */
static int receive(int fd, void *data, size_t len, struct received *r)
{
	/* All that the kernel lets through at once, to see whether they are too many. */
	enum { SCM_MAX_FD = 253 };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(SCM_MAX_FD * sizeof(int))];
	} control;
	size_t done = 0;

	while (done < len) {
		struct iovec iov = {.iov_base = (char *)data + done, .iov_len = len - done};
		struct msghdr message = {
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control.bytes,
			.msg_controllen = sizeof(control.bytes),
		};
		ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);

		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got < 0) {
			return -errno;
		}
		if (!received_take(r, &message)) {
			return -E2BIG;
		}
		if (got == 0) {
			return -ENOTCONN;
		}
		done += (size_t)got;
	}
	return 0;
}

static int frame_receive(int fd, struct buf *payload, struct received *r)
{
	uint8_t head[FRAME_HEAD];
	size_t len;
	int rv = receive(fd, head, sizeof(head), r);

	if (rv < 0) {
		return rv;
	}
	len = frame_payload_len(head);
	if (len > START_MAX) {
		return -EMSGSIZE;
	}
	rv = receive(fd, buf_reserve(payload, len), len, r);
	payload->len = rv < 0 ? 0 : len;
	return rv;
}

static int fault_receive(struct fault *fault, int error)
{
	switch (error) {
	case -ENOTCONN:
		return fault_set(fault, error, "descriptor 3: the parent ended before VmStart");
	case -E2BIG:
		return fault_set(fault, error, "descriptor 3: more than %d descriptors",
				 RESOURCES_MAX);
	case -EMSGSIZE:
		return fault_set(fault, error, "descriptor 3: VmStart is over %d bytes", START_MAX);
	case -ENOTSOCK:
	case -EBADF:
		return fault_set(fault, error,
				 "descriptor 3 is no socket; `witness-vm supervised` is started by "
				 "a parent with one (hv.proto, VmStart)");
	default:
		return fault_set(fault, error, "descriptor 3: %s", strerror(-error));
	}
}

/* The descriptors by their names, in order. */
static int resources_name(const Tb__VmStart *start, struct received *received, struct resources *r,
			  struct fault *fault)
{
	if (received->count != start->n_descriptors) {
		return fault_set(fault, -EINVAL, "VmStart names %zu descriptors and %zu came along",
				 start->n_descriptors, received->count);
	}
	while (received->count > 0) {
		size_t last = received->count - 1;
		int rv = resource_add(r, start->descriptors[last], received->fds[last]);

		if (rv < 0) {
			return fault_set(fault, rv, "VmStart: \"%.32s\" is %s",
					 start->descriptors[last],
					 rv == -EEXIST ? "there twice" : "no descriptor's name");
		}
		received->count = last;
	}
	return 0;
}

static int start_take(const struct buf *payload, struct received *received, Tb__VmStart **ret,
		      struct resources *r, struct fault *fault)
{
	ProtobufCMessage *message;
	Tb__VmStart *start;
	int rv = frame_unpack(&tb__vm_start__descriptor, payload->data, payload->len,
			      FRAME_MEMORY(payload->len), &message);

	if (rv < 0) {
		return fault_set(fault, rv, "descriptor 3: the first frame is no VmStart");
	}
	start = (Tb__VmStart *)message;
	rv = start->spec == NULL ? fault_set(fault, -EINVAL, "VmStart has no spec")
				 : resources_name(start, received, r, fault);
	if (rv < 0) {
		tb__vm_start__free_unpacked(start, NULL);
		return rv;
	}
	*ret = start;
	return 0;
}

int start_receive(int fd, Tb__VmStart **ret, struct resources *r, struct fault *fault)
{
	struct received received = {.count = 0};
	struct buf payload = {0};
	int rv = frame_receive(fd, &payload, &received);

	rv = rv < 0 ? fault_receive(fault, rv) : start_take(&payload, &received, ret, r, fault);
	received_close(&received);
	buf_free(&payload);
	return rv;
}

void start_refuse(int fd, const char *error)
{
	Tb__VmReply reply = TB__VM_REPLY__INIT;
	struct buf out = {0};

	reply.error = (char *)(uintptr_t)error;
	frame_append(&out, &reply.base);
	(void)!send(fd, out.data, out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	buf_free(&out);
}
