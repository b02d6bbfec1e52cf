/* vsock_words.c: words about vsock, and about the local sockets that a VM monitor may put at its
 * other end. Every word is a stream.h conversation over another kind of socket. */
#include "guest.h"
#include "stream.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <unistd.h>

static int vsock_echo_run(struct call *call)
{
	struct sockaddr_vm here = {.svm_family = AF_VSOCK,
				   .svm_cid = VMADDR_CID_ANY,
				   .svm_port = (unsigned)call_number(call, 0, 5000)};
	int listener = socket(AF_VSOCK, SOCK_STREAM, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&here, sizeof here) < 0 ||
	    listen(listener, 64) < 0) {
		int error = errno;
		close(listener);
		return call_failed(call, error, "listen at vsock port %u", here.svm_port);
	}
	say("STREAM awaited");
	int error = stream_serve(listener);
	close(listener);
	return call_failed(call, -error, "accept");
}

/* A connection to CID (first argument) and PORT, or negative errno. */
static int vsock_connect(struct call *call)
{
	struct sockaddr_vm there = {.svm_family = AF_VSOCK,
				    .svm_cid = (unsigned)call_number(call, 0, VMADDR_CID_HOST),
				    .svm_port = (unsigned)call_number(call, 1, 5000)};
	int stream = socket(AF_VSOCK, SOCK_STREAM, 0);
	if (stream < 0 || connect(stream, (struct sockaddr *)&there, sizeof there) < 0) {
		int error = errno;
		close(stream);
		return call_failed(call, error, "connection to vsock %u:%u", there.svm_cid,
				   there.svm_port);
	}
	return stream;
}

/* Connects, and then only waits for the other side to end it. */
static int vsock_hold_run(struct call *call)
{
	char byte;
	int stream = vsock_connect(call);
	if (stream < 0)
		return stream;
	say("STREAM held");
	ssize_t got = read(stream, &byte, 1);
	call_result(call, "ended=%s",
		    got == 0  ? "closed"
		    : got < 0 ? strerrorname_np(errno)
			      : "data");
	close(stream);
	return 0;
}

static int vsock_exercise_run(struct call *call)
{
	uint64_t kib = call_number(call, 2, 64);
	int stream = vsock_connect(call);
	if (stream < 0)
		return stream;
	int error = stream_exercise(stream, kib * 1024);
	close(stream);
	call_result(call, "kib=%llu", (unsigned long long)kib);
	return error ? call_failed(call, -error, "what was echoed") : 0;
}

const struct word vsock_words[] = {
	{"vsock.echo", vsock_echo_run, "PORT"},
	{"vsock.hold", vsock_hold_run, "CID,PORT"},
	{"vsock.exercise", vsock_exercise_run, "CID,PORT,KIB"},
	{NULL, NULL, NULL},
};
