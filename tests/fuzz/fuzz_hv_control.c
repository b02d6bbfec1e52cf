/* The parent's side of a VM's control connection: any bytes end in answered requests or a closed
 * connection, and nothing stays open. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hv/control.h"
#include "proto/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Answers to as many requests as fit stay in the socket's buffer: nobody reads them. */
enum { INPUT_MAX = 1024 };

static bool handle(void *arg, const struct control_call *call, Tb__VmReply *reply)
{
	static char text[] = "no";
	struct buf out = {0};

	(void)arg;
	if (!call->parent || !call->may_renew || call->fd_count != 0) {
		abort();
	}
	json_encode(&call->request->base, &out);
	buf_free(&out);
	reply->error = text;
	return true;
}

static void gone(void *arg)
{
	loop_stop(arg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct loop loop;
	struct control_config config = {.loop = &loop,
					.listener = -1,
					.request = handle,
					.parent_gone = gone,
					.arg = &loop};
	struct control *control;
	int pair[2];
	int size_max = 1 << 20;

	if (size > INPUT_MAX || loop_init(&loop) != 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
		return 0;
	}
	(void)setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size_max, sizeof(size_max));
	config.parent = pair[0];
	if (control_create(&config, &control) != 0 ||
	    send(pair[1], data, size, 0) != (ssize_t)size) {
		abort();
	}
	shutdown(pair[1], SHUT_WR);
	loop_run(&loop);
	if (control_clients(control) != 0) {
		abort();
	}
	control_destroy(control);
	loop_close(&loop);
	close(pair[1]);
	return 0;
}
