/* stream.c: see stream.h. */
#include "stream.h"
#include "guest.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024 };

static int all_write(int stream, const void *data, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t length = send(stream, (const char *)data + done, size - done, MSG_NOSIGNAL);
		if (length < 0)
			return -errno;
		done += (size_t)length;
	}
	return 0;
}

int stream_echo(int stream)
{
	static char chunk[CHUNK];
	for (;;) {
		ssize_t length = recv(stream, chunk, sizeof chunk, 0);
		if (length <= 0)
			return length < 0 ? -errno : 0;
		int error = all_write(stream, chunk, (size_t)length);
		if (error != 0)
			return error;
	}
}

static void sequence_fill(uint64_t *state, uint64_t *words, size_t bytes)
{
	for (size_t i = 0; i < bytes / 8; i++)
		words[i] = mixed_next(state);
}

static int sequence_send(int stream, uint64_t bytes)
{
	static uint64_t chunk[CHUNK / 8];
	uint64_t state = 11;
	int error = 0;
	for (uint64_t left = bytes; error == 0 && left > 0;) {
		size_t size = left < CHUNK ? (size_t)left : CHUNK;
		sequence_fill(&state, chunk, CHUNK);
		error = all_write(stream, chunk, size);
		left -= size;
	}
	return error;
}

static int sequence_check(int stream, uint64_t bytes)
{
	static uint64_t chunk[CHUNK / 8], expected[CHUNK / 8];
	uint64_t state = 11;
	for (uint64_t left = bytes; left > 0;) {
		size_t size = left < CHUNK ? (size_t)left : CHUNK;
		ssize_t length = recv(stream, chunk, size, MSG_WAITALL);
		if (length != (ssize_t)size)
			return length < 0 ? -errno : -EPIPE;
		sequence_fill(&state, expected, CHUNK);
		if (memcmp(chunk, expected, size) != 0)
			return -EBADMSG;
		left -= size;
	}
	return 0;
}

int stream_exercise(int stream, uint64_t bytes)
{
	pid_t sender = fork();
	if (sender < 0)
		return -errno;
	if (sender == 0)
		_exit(-sequence_send(stream, bytes));
	int error = sequence_check(stream, bytes), status;
	if (error != 0)
		kill(sender, SIGKILL);
	waitpid(sender, &status, 0);
	return error == 0 && status != 0 ? -EPIPE : error;
}

int stream_send(int stream, uint64_t bytes)
{
	static const char chunk[CHUNK];
	uint64_t received;
	int error = 0;
	for (uint64_t left = bytes; error == 0 && left > 0;) {
		size_t size = left < CHUNK ? (size_t)left : CHUNK;
		error = all_write(stream, chunk, size);
		left -= size;
	}
	if (error != 0)
		return error;
	shutdown(stream, SHUT_WR);
	if (recv(stream, &received, sizeof received, MSG_WAITALL) != sizeof received)
		return -EPIPE;
	return received == bytes ? 0 : -EBADMSG;
}

int stream_receive(int stream, uint64_t *ret_bytes)
{
	static char chunk[CHUNK];
	uint64_t total = 0;
	ssize_t length;
	while ((length = recv(stream, chunk, sizeof chunk, 0)) > 0)
		total += (uint64_t)length;
	if (length < 0)
		return -errno;
	*ret_bytes = total;
	return all_write(stream, &total, sizeof total);
}

int stream_serve(int listener)
{
	for (;;) {
		int stream = accept(listener, NULL, NULL);
		if (stream < 0)
			return -errno;
		pid_t child = fork();
		if (child == 0)
			_exit(stream_echo(stream) == 0 ? 0 : 1);
		close(stream);
		if (child < 0)
			return -errno;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}
