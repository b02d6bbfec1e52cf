/* A link to another board's host, any bytes on it: as the source of a copy, and as one who asks for
 * an image. Ends in an end, with nothing in the store that does not have its digest. The first byte
 * says which; whatever the bytes are, they come in one piece and then the link ends. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/log.h"
#include "witnessd/image_copy.h"
#include "witnessd/image_keeper.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The SHA-256 of "abc" (FIPS 180-4), and one that nothing has. */
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define NOTHING "1111111111111111111111111111111111111111111111111111111111111111"

enum { WANTED = 3000 };

static struct {
	uv_loop_t loop;
	char dir[32];
	struct image_store *store;
	struct image_keeper *keeper;
	bool held;
	bool over;
	bool gone;
} f;

static void keeper_dial(void *arg, uint64_t dial_id, uint64_t node)
{
	(void)arg;
	(void)dial_id;
	(void)node;
}

static void keeper_changed(void *arg)
{
	(void)arg;
}

static void uploaded(void *arg, int error, const char *message, uint64_t have, bool done)
{
	(void)arg;
	(void)message;
	(void)have;
	if (error != 0 || !done)
		abort();
	f.held = true;
}

static void at_exit(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -r %s", f.dir);
	if (system(command) != 0)
		perror(f.dir);
}

static void start(void)
{
	const char *message;
	struct image_keeper_config config = {
		.loop = &f.loop, .data_dir = f.dir, .dial = keeper_dial, .changed = keeper_changed};

	log_set_level(LOG_LEVEL_ERROR - 1);
	strcpy(f.dir, "/tmp/fuzz-hostXXXXXX");
	uv_loop_init(&f.loop);
	if (mkdtemp(f.dir) == NULL || image_store_open(f.dir, 0, &f.store, &message) != 0 ||
	    image_keeper_new(&config, &f.keeper, &message) != 0)
		abort();
	atexit(at_exit);
	image_keeper_upload(f.keeper, ABC, 3, 0, "abc", 3, uploaded, NULL);
	while (!f.held)
		uv_run(&f.loop, UV_RUN_ONCE);
}

/* --- the asker --- */

static void copy_over(void *arg, int error, const char *why)
{
	(void)arg;
	if (error == 0 || why == NULL)
		abort(); /* nothing has that digest */
	f.over = true;
}

static void receive_over(void *arg, int error, const char *message)
{
	(void)arg;
	(void)message;
	if (error == 0)
		abort();
}

static void receive_gone(void *arg)
{
	(void)arg;
	f.gone = true;
}

static const struct image_receive_events receive_events = {receive_over, receive_gone};

static void fuzz_copy(int fd)
{
	struct image_receive *receive =
		image_receive_new(&f.loop, f.store, NOTHING, WANTED, 0, &receive_events, NULL);
	struct image_copy *copy;

	f.over = false;
	f.gone = false;
	copy = image_copy_new(&f.loop, 2, fd, NOTHING, WANTED, receive, copy_over, NULL);
	while (!f.over)
		uv_run(&f.loop, UV_RUN_ONCE);
	image_copy_close(copy);
	image_receive_close(receive);
	while (!f.gone)
		uv_run(&f.loop, UV_RUN_ONCE);
	image_store_drop(f.store, NOTHING);
}

/* --- the server --- */

static void link_frame(void *arg, struct host_link *l, const Tb__HostFrame *frame)
{
	f.over = true;
	(void)arg;
	if (frame->what_case == TB__HOST_FRAME__WHAT_IMAGE_GET)
		image_keeper_serve(f.keeper, l, frame->image_get);
	else
		host_link_close(l, "that is no beginning");
}

static void link_closed(void *arg, struct host_link *l, const char *why)
{
	(void)arg;
	(void)l;
	(void)why;
	f.over = true;
}

static const struct host_link_events link_events = {.frame = link_frame, .closed = link_closed};

static void fuzz_serve(int fd, int far)
{
	char answer[1024];

	f.over = false;
	if (host_link_new(&f.loop, 2, fd, &link_events, NULL) == NULL)
		abort();
	while (!f.over)
		uv_run(&f.loop, UV_RUN_ONCE);
	/* Until the server has ended it. */
	while (recv(far, answer, sizeof(answer), MSG_DONTWAIT) != 0)
		uv_run(&f.loop, UV_RUN_NOWAIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int pair[2];

	if (f.store == NULL)
		start();
	if (size == 0 || size > 100000 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
		return 0;
	if (send(pair[1], data + 1, size - 1, MSG_NOSIGNAL) != (ssize_t)(size - 1))
		abort();
	shutdown(pair[1], SHUT_WR);
	if (data[0] & 1)
		fuzz_serve(pair[0], pair[1]);
	else
		fuzz_copy(pair[0]);
	close(pair[1]);
	return 0;
}
