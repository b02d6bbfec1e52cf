#include "hv/control.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/mem.h"
#include "proto/frame.h"

enum { PARENT = 0, PLACES = CONTROL_CLIENTS_MAX + 1, TICK_MS = 1000 };

/* A connection.
 *
 *   reading --whole frame--> handler --answer--> writing --all taken--> reading
 *                               |                  ^
 *                               +--later--> reading+ (control_answer)
 */
struct client {
	struct watch watch;
	struct control *control;
	int fd; /* -1: a free place */
	uint64_t id; /* never used twice */
	struct buf in; /* a frame that is not whole yet */
	struct buf out; /* answers that were not taken yet */
	bool promised; /* the handler owes an answer to an earlier request */
	int fds[CONTROL_FDS_MAX]; /* that came with the frame */
	size_t fd_count;
	uint64_t waits_since_ms; /* boot time since when it owes us something; 0: it does not */
};

struct control {
	struct control_config config;
	struct client client[PLACES]; /* the parent is the first */
	struct watch listen_watch;
	bool deaf; /* the listener is not watched: out of descriptors */
	int timer;
	struct watch timer_watch;
	bool timer_runs;
	uint64_t next_id;
	uint64_t handled; /* requests */
};

/* The timer */

static bool timer_needed(const struct control *c)
{
	bool needed = c->deaf;

	for (unsigned i = 0; i < PLACES; i++) {
		needed = needed || (c->client[i].fd >= 0 && c->client[i].waits_since_ms != 0);
	}
	return needed;
}

/* Ticks only while somebody owes something. */
static void timer_update(struct control *c)
{
	struct itimerspec each = {0};
	bool needed = timer_needed(c);

	if (needed == c->timer_runs) {
		return;
	}
	if (needed) {
		each.it_interval.tv_sec = each.it_value.tv_sec = TICK_MS / 1000;
	}
	if (timerfd_settime(c->timer, 0, &each, NULL) == 0) {
		c->timer_runs = needed;
	}
}

/* Connections */

static void fds_close(struct client *client)
{
	for (size_t i = 0; i < client->fd_count; i++) {
		close(client->fds[i]);
	}
	client->fd_count = 0;
}

static void listen_again(struct control *c)
{
	if (c->deaf && loop_modify(&c->listen_watch, EPOLLIN) == 0) {
		c->deaf = false;
	}
}

static void client_close(struct client *client)
{
	struct control *c = client->control;

	loop_remove(&client->watch);
	close(client->fd);
	client->fd = -1;
	fds_close(client);
	buf_free(&client->in);
	buf_free(&client->out);
	client->promised = false;
	client->waits_since_ms = 0;
	listen_again(c);
	timer_update(c);
	if (client == &c->client[PARENT] && c->config.parent_gone != NULL) {
		c->config.parent_gone(c->config.arg);
	}
}

/* What to wait for, and whether time counts against the other side. */
static void client_update(struct client *client)
{
	bool owes = client->out.len > 0 || client->in.len > 0;

	(void)loop_modify(&client->watch, client->out.len > 0 ? EPOLLOUT : EPOLLIN);
	if (!owes) {
		client->waits_since_ms = 0;
	} else if (client->waits_since_ms == 0) {
		client->waits_since_ms = clock_boottime_ms();
	}
	timer_update(client->control);
}

/* False: the connection is closed. */
static bool client_flush(struct client *client)
{
	while (client->out.len > 0) {
		ssize_t sent = send(client->fd, client->out.data, client->out.len,
				    MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR) {
			continue;
		}
		if (sent < 0 && errno == EAGAIN) {
			break;
		}
		if (sent < 0) {
			client_close(client);
			return false;
		}
		client->waits_since_ms = 0; /* it took something */
		buf_consume(&client->out, (size_t)sent);
	}
	if (client->out.len == 0) {
		buf_free(&client->out);
	}
	client_update(client);
	return true;
}

static void client_answer(struct client *client, Tb__VmReply *reply)
{
	frame_append(&client->out, &reply->base);
	(void)client_flush(client);
}

/* Requests */

static void request_handle(struct client *client, Tb__VmRequest *request)
{
	struct control *c = client->control;
	struct control_call call = {
		.request = request,
		.client = client->id,
		.parent = client == &c->client[PARENT],
		.fds = client->fds,
		.fd_count = client->fd_count,
	};
	Tb__VmReply reply = TB__VM_REPLY__INIT;
	uint64_t id = client->id;

	c->handled++;
	call.may_renew = call.parent || c->client[PARENT].fd < 0;
	if (!c->config.request(c->config.arg, &call, &reply)) {
		client->promised = true;
		return;
	}
	reply.id = request->id;
	/* The handler may have ended everything. */
	if (client->fd >= 0 && client->id == id) {
		client_answer(client, &reply);
	}
}

/* A whole frame is in `in`. */
static void frame_handle(struct client *client, const uint8_t *payload, size_t len)
{
	ProtobufCMessage *message;

	if (frame_unpack(&tb__vm_request__descriptor, payload, len, FRAME_MEMORY(len), &message) !=
	    0) {
		client_close(client);
		return;
	}
	buf_free(&client->in);
	request_handle(client, (Tb__VmRequest *)message);
	protobuf_c_message_free_unpacked(message, NULL);
	fds_close(client);
	if (client->fd >= 0) {
		client_update(client);
	}
}

/* Keeps what came along; more than a request can have is refused. */
static bool fds_take(struct client *client, struct msghdr *message)
{
	bool good = (message->msg_flags & MSG_CTRUNC) == 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
		int fds[2 * CONTROL_FDS_MAX];
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
			continue;
		}
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		assert(count <= sizeof(fds) / sizeof(fds[0]));
		memcpy(fds, CMSG_DATA(c), count * sizeof(int));
		for (size_t i = 0; i < count; i++) {
			if (client->fd_count < CONTROL_FDS_MAX) {
				client->fds[client->fd_count++] = fds[i];
			} else {
				close(fds[i]);
				good = false;
			}
		}
	}
	return good;
}

/* Reads at most `len` bytes to the end of `in`. As recvmsg; -1 with EPROTO for descriptors that are
 * too many. */
static ssize_t client_receive(struct client *client, size_t len)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * CONTROL_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = buf_reserve(&client->in, len), .iov_len = len};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	ssize_t got = recvmsg(client->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (got >= 0 && !fds_take(client, &message)) {
		errno = EPROTO;
		return -1;
	}
	return got;
}

/* How many bytes are missing to the head, or to the whole frame: never a byte of the next one,
 * whose descriptors would then come with this one. 0: whole. -EMSGSIZE. */
static int frame_missing(const struct buf *in, const uint8_t **ret_payload, size_t *ret_len)
{
	size_t len;

	if (in->len < FRAME_HEAD) {
		return (int)(FRAME_HEAD - in->len);
	}
	len = frame_payload_len(in->data);
	if (len > CONTROL_REQUEST_MAX) {
		return -EMSGSIZE;
	}
	*ret_payload = in->data + FRAME_HEAD;
	*ret_len = len;
	return (int)(FRAME_HEAD + len - in->len);
}

static void client_read(struct client *client)
{
	for (;;) {
		const uint8_t *payload;
		size_t len;
		int missing = frame_missing(&client->in, &payload, &len);
		ssize_t got;

		if (missing == 0) {
			frame_handle(client, payload, len);
			return; /* others may have waited */
		}
		got = missing < 0 ? 0 : client_receive(client, (size_t)missing);
		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got < 0 && errno == EAGAIN) {
			client_update(client);
			return;
		}
		if (got <= 0) {
			client_close(client);
			return;
		}
		client->in.len += (size_t)got;
	}
}

static void client_ready(struct watch *watch, uint32_t events)
{
	struct client *client = (struct client *)((char *)watch - offsetof(struct client, watch));

	if ((events & EPOLLOUT) != 0 && !client_flush(client)) {
		return;
	}
	if ((events & EPOLLIN) != 0) {
		client_read(client);
	} else if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
		client_close(client);
	}
}

/* 0 or negative errno; then the descriptor stays the caller's. */
static int client_open(struct control *c, struct client *client, int fd)
{
	int rv;

	client->watch.ready = client_ready;
	rv = loop_add(c->config.loop, &client->watch, fd, EPOLLIN);
	if (rv == 0) {
		client->fd = fd;
		client->id = ++c->next_id;
	}
	return rv;
}

/* The socket */

static struct client *place_free(struct control *c)
{
	for (unsigned i = PARENT + 1; i < PLACES; i++) {
		if (c->client[i].fd < 0) {
			return &c->client[i];
		}
	}
	return NULL;
}

static void refuse(int fd)
{
	static char text[] = "too many clients are connected to this VM; try again";
	Tb__VmReply reply = TB__VM_REPLY__INIT;
	struct buf out = {0};

	reply.error = text;
	frame_append(&out, &reply.base);
	(void)!send(fd, out.data, out.len, MSG_DONTWAIT | MSG_NOSIGNAL);
	buf_free(&out);
	close(fd);
}

static void listen_ready(struct watch *watch, uint32_t events)
{
	struct control *c =
		(struct control *)((char *)watch - offsetof(struct control, listen_watch));
	struct client *place = place_free(c);
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0) {
		/* A listener that cannot be served would be ready for ever. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED &&
		    loop_modify(watch, 0) == 0) {
			c->deaf = true;
			timer_update(c);
		}
		return;
	}
	if (place == NULL || client_open(c, place, fd) < 0) {
		refuse(fd);
	}
}

static void timer_ready(struct watch *watch, uint32_t events)
{
	struct control *c =
		(struct control *)((char *)watch - offsetof(struct control, timer_watch));
	uint64_t count;

	(void)events;
	(void)!read(watch->fd, &count, sizeof(count));
	listen_again(c);
	control_expire(c, clock_boottime_ms());
	timer_update(c);
}

void control_expire(struct control *c, uint64_t now_ms)
{
	for (unsigned i = 0; i < PLACES; i++) {
		struct client *client = &c->client[i];

		if (client->fd >= 0 && client->waits_since_ms != 0 &&
		    now_ms >= client->waits_since_ms + CONTROL_PATIENCE_MS) {
			client_close(client);
		}
	}
}

/* True: nobody answers there any more. */
static bool socket_is_dead(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool dead = fd >= 0 &&
		    connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
		    errno == ECONNREFUSED;

	if (fd >= 0) {
		close(fd);
	}
	return dead;
}

static int socket_bind(int fd, const struct sockaddr_un *address)
{
	const struct sockaddr *any = (const struct sockaddr *)address;
	struct stat st;

	/* The socket's mode becomes the file's (unix(7)): there is no moment in which others can
	 * connect. */
	if (fchmod(fd, 0600) < 0) {
		return -errno;
	}
	if (bind(fd, any, sizeof(*address)) == 0) {
		return 0;
	}
	if (errno != EADDRINUSE || lstat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode) ||
	    !socket_is_dead(address)) {
		return -EADDRINUSE;
	}
	if (unlink(address->sun_path) < 0 || bind(fd, any, sizeof(*address)) < 0) {
		return -errno;
	}
	return 0;
}

int control_listen(const char *path, int *ret_fd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int rv = 0;
	int fd;

	if (strlen(path) >= sizeof(address.sun_path)) {
		return -ENAMETOOLONG;
	}
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		return -errno;
	}
	rv = socket_bind(fd, &address);
	if (rv == 0 && listen(fd, CONTROL_CLIENTS_MAX) < 0) {
		rv = -errno;
	}
	if (rv < 0) {
		close(fd);
		return rv;
	}
	*ret_fd = fd;
	return 0;
}

/* Life */

static int control_watch(struct control *c)
{
	int rv = c->timer < 0 ? -errno : 0;

	c->timer_watch.ready = timer_ready;
	rv = rv < 0 ? rv : loop_add(c->config.loop, &c->timer_watch, c->timer, EPOLLIN);
	c->listen_watch.ready = listen_ready;
	if (rv == 0 && c->config.listener >= 0) {
		rv = loop_add(c->config.loop, &c->listen_watch, c->config.listener, EPOLLIN);
	}
	if (rv == 0 && c->config.parent >= 0) {
		rv = client_open(c, &c->client[PARENT], c->config.parent);
	}
	return rv;
}

int control_create(const struct control_config *config, struct control **ret)
{
	struct control *c = mem_zalloc(sizeof(*c));
	int rv;

	c->config = *config;
	for (unsigned i = 0; i < PLACES; i++) {
		c->client[i].fd = -1;
		c->client[i].control = c;
	}
	c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	rv = control_watch(c);
	if (rv < 0) {
		c->config.listener = -1;
		control_destroy(c);
		return rv;
	}
	*ret = c;
	return 0;
}

void control_destroy(struct control *c)
{
	if (c == NULL) {
		return;
	}
	c->config.parent_gone = NULL;
	loop_remove(&c->listen_watch);
	for (unsigned i = 0; i < PLACES; i++) {
		if (c->client[i].fd >= 0 && client_flush(&c->client[i])) {
			client_close(&c->client[i]);
		}
	}
	if (c->config.listener >= 0) {
		close(c->config.listener);
	}
	loop_remove(&c->timer_watch);
	if (c->timer >= 0) {
		close(c->timer);
	}
	free(c);
}

void control_answer(struct control *c, uint64_t client, Tb__VmReply *reply)
{
	for (unsigned i = 0; i < PLACES; i++) {
		if (c->client[i].fd >= 0 && c->client[i].id == client && c->client[i].promised) {
			c->client[i].promised = false;
			client_answer(&c->client[i], reply);
		}
	}
}

void control_tell_parent(struct control *c, Tb__VmReply *reply)
{
	struct client *parent = &c->client[PARENT];

	if (parent->fd >= 0) {
		reply->id = 0;
		frame_append(&parent->out, &reply->base);
		(void)client_flush(parent);
	}
}

void control_hear_parent(struct control *c)
{
	struct client *parent = &c->client[PARENT];
	uint64_t handled;

	/* A parent that has stopped taking answers is not heard, as in the loop. */
	do {
		handled = c->handled;
		if (parent->fd >= 0 && parent->out.len == 0) {
			client_read(parent);
		}
	} while (c->handled != handled);
}

unsigned control_clients(const struct control *c)
{
	unsigned count = 0;

	for (unsigned i = 0; i < PLACES; i++) {
		count += c->client[i].fd >= 0;
	}
	return count;
}
