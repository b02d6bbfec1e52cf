/* vsock_words.c: words about vsock, and about the local sockets that a VM monitor may put at its
 * other end. Every word is a stream.h conversation over another kind of socket. */
#include "guest.h"
#include "stream.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <linux/vm_sockets.h>
#include <unistd.h>

enum { GREETING = 64 };

static int listening(struct call *call, const char *name, const struct sockaddr *address,
		     socklen_t size)
{
	int listener = socket(address->sa_family, SOCK_STREAM, 0);
	if (listener >= 0 && bind(listener, address, size) == 0 && listen(listener, 64) == 0)
		return listener;
	int error = errno;
	close(listener);
	return call_failed(call, error, "listen at %s", name);
}

static int connected(struct call *call, const char *name, const struct sockaddr *address,
		     socklen_t size)
{
	int stream = socket(address->sa_family, SOCK_STREAM, 0);
	if (stream >= 0 && connect(stream, address, size) == 0)
		return stream;
	int error = errno;
	close(stream);
	return call_failed(call, error, "connection to %s", name);
}

static int served(struct call *call, int listener)
{
	if (listener < 0)
		return listener;
	say("STREAM awaited");
	int error = stream_serve(listener);
	close(listener);
	return call_failed(call, -error, "accept");
}

static int exercised(struct call *call, int stream, uint64_t kib)
{
	int error = stream_exercise(stream, kib * 1024);
	close(stream);
	call_result(call, "kib=%llu", (unsigned long long)kib);
	return error ? call_failed(call, -error, "what was echoed") : 0;
}

static int vsock_echo_run(struct call *call)
{
	struct sockaddr_vm here = {.svm_family = AF_VSOCK,
				   .svm_cid = VMADDR_CID_ANY,
				   .svm_port = (unsigned)call_number(call, 0, 5000)};
	return served(call, listening(call, "vsock port", (struct sockaddr *)&here, sizeof here));
}

static int vsock_exercise_run(struct call *call)
{
	struct sockaddr_vm there = {.svm_family = AF_VSOCK,
				    .svm_cid = (unsigned)call_number(call, 0, VMADDR_CID_HOST),
				    .svm_port = (unsigned)call_number(call, 1, 5000)};
	int stream = connected(call, "vsock port", (struct sockaddr *)&there, sizeof there);
	return stream < 0 ? stream : exercised(call, stream, call_number(call, 2, 64));
}

static struct sockaddr_un local_address(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	return address;
}

static int local_echo_run(struct call *call)
{
	const char *path = call_text(call, 0, "/dev/echo");
	struct sockaddr_un here = local_address(path);
	return served(call, listening(call, path, (struct sockaddr *)&here, sizeof here));
}

/* Says "CONNECT port" and reads the one line that a monitor answers, byte by byte, for what follows
 * is the guest's. */
static int greeting_exchange(struct call *call, int stream, uint64_t port)
{
	char line[GREETING];
	int length = snprintf(line, sizeof line, "CONNECT %llu\n", (unsigned long long)port);
	if (send(stream, line, (size_t)length, MSG_NOSIGNAL) != length)
		return call_failed(call, errno, "CONNECT");
	for (length = 0; length < GREETING - 1; length++)
		if (recv(stream, line + length, 1, 0) != 1 || line[length] == '\n')
			break;
	line[length] = '\0';
	return strncmp(line, "OK", 2) == 0 ? 0
					   : call_failed(call, ECONNREFUSED, "CONNECT: %s", line);
}

static int local_exercise_run(struct call *call)
{
	const char *path = call_text(call, 0, "/dev/echo");
	struct sockaddr_un there = local_address(path);
	uint64_t port = call_number(call, 2, 0);
	int stream = connected(call, path, (struct sockaddr *)&there, sizeof there);
	if (stream < 0)
		return stream;
	int error = port ? greeting_exchange(call, stream, port) : 0;
	if (error == 0)
		return exercised(call, stream, call_number(call, 1, 64));
	close(stream);
	return error;
}

const struct word vsock_words[] = {
	{"vsock.echo", vsock_echo_run, "PORT"},
	{"vsock.exercise", vsock_exercise_run, "CID,PORT,KIB"},
	{"local.echo", local_echo_run, "PATH"},
	{"local.exercise", local_exercise_run, "PATH,KIB,CONNECT_PORT"},
	{NULL, NULL, NULL},
};
