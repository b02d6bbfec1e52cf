/* listener.c: sockets that wait for clients.
 *
 * The accept loop is ours and not libuv's, for three reasons: it takes a bounded number of clients
 * per turn, it notices when descriptors run out, and it says plainly why it cannot listen. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/mem.h"
#include "witnessd/stream_group.h"

enum {
	ACCEPTS_PER_TURN = 32,
	TAKES_PER_TURN = 512, /* costs next to nothing, and the queue of the kernel is short */
	BACKLOG_DEFAULT = 1024,
	COMPLAIN_EVERY_MS = 10 * 1000,
};

static const char *listen_message(const char *address, int error)
{
	static _Thread_local char message[512];
	const char *remedy = "";

	switch (error) {
	case EADDRINUSE:
		remedy = "; another witnessd? (see --listen, --sites-listen)";
		break;
	case EADDRNOTAVAIL:
		remedy = "; this board has no such address";
		break;
	case EACCES:
		remedy = "; ports below 1024 and foreign directories need more rights";
		break;
	case EINVAL:
		remedy = "; use host:port, [ipv6]:port, *:port or unix:/path";
		break;
	default:
		break;
	}
	snprintf(message, sizeof(message), "cannot listen on %s: %s%s", address,
		 uv_strerror(-error), remedy);
	return message;
}

static int resolve(struct address *a)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	struct addrinfo *found;
	char port[8];

	snprintf(port, sizeof(port), "%u", a->port);
	if (getaddrinfo(a->host, port, &hints, &found) != 0)
		return -EADDRNOTAVAIL;
	memcpy(&a->socket, found->ai_addr, found->ai_addrlen);
	a->socket_len = found->ai_addrlen;
	a->kind = ADDRESS_SOCKET;
	freeaddrinfo(found);
	return 0;
}

/* A socket file that nobody answers at is a leftover of a daemon that was killed. */
static int remove_stale(const struct address *a)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat file;
	int rv = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, &a->socket.any, a->socket_len) == 0 || errno == EAGAIN)
		rv = -EADDRINUSE;
	else if (errno == ECONNREFUSED && stat(a->socket.un.sun_path, &file) == 0 &&
		 S_ISSOCK(file.st_mode) && unlink(a->socket.un.sun_path) < 0)
		rv = -errno;
	close(fd);
	return rv;
}

static int bind_socket(const struct address *a, int fd)
{
	int on = 1;
	int only_v6 = a->kind != ADDRESS_ANY;

	if (a->socket.any.sa_family != AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (a->socket.any.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_v6, sizeof(only_v6));
	return bind(fd, &a->socket.any, a->socket_len) < 0 ? -errno : 0;
}

/* "*" where IPv6 is switched off means every IPv4 address. */
static void fall_back_to_v4(struct address *a)
{
	a->kind = ADDRESS_SOCKET;
	a->socket.in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(a->port)};
	a->socket_len = sizeof(a->socket.in);
}

static int open_bound(struct address *a, unsigned mode)
{
	int fd = socket(a->socket.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rv;

	if (fd < 0)
		return -errno;
	rv = bind_socket(a, fd);
	/* Nobody can connect before listen(2), so there is no moment with other rights. */
	if (rv == 0 && a->socket.any.sa_family == AF_UNIX &&
	    chmod(a->socket.un.sun_path, (mode_t)mode) < 0)
		rv = -errno;
	if (rv == 0)
		return fd;
	close(fd);
	return rv;
}

/* The descriptor of a listening socket, or a code. */
static int open_listening(const struct stream_listen *how, struct address *a)
{
	int rv = address_parse(how->address, a);

	if (rv == 0 && a->kind == ADDRESS_NAME)
		rv = resolve(a);
	if (rv == 0 && a->socket.any.sa_family == AF_UNIX)
		rv = remove_stale(a);
	if (rv < 0)
		return rv;
	int fd = open_bound(a, how->mode);
	if (a->kind == ADDRESS_ANY && (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL)) {
		fall_back_to_v4(a);
		fd = open_bound(a, how->mode);
	}
	if (fd < 0)
		return fd;
	if (listen(fd, how->backlog > 0 ? how->backlog : BACKLOG_DEFAULT) == 0)
		return fd;
	rv = -errno;
	close(fd);
	return rv;
}

static unsigned bound_port(int fd)
{
	struct sockaddr_storage name = {0};
	socklen_t len = sizeof(name);
	const void *at = &name;

	getsockname(fd, (struct sockaddr *)&name, &len);
	if (name.ss_family == AF_INET)
		return ntohs(((const struct sockaddr_in *)at)->sin_port);
	if (name.ss_family == AF_INET6)
		return ntohs(((const struct sockaddr_in6 *)at)->sin6_port);
	return 0;
}

static void complain(struct stream_listener *l, int error)
{
	uint64_t now = uv_now(l->group->loop);

	if (l->group->complained_ms != 0 && now - l->group->complained_ms < COMPLAIN_EVERY_MS)
		return;
	l->group->complained_ms = now;
	log_warning("accept-failed", "cannot take more clients on %s: %s; raise LimitNOFILE",
		    l->address, uv_strerror(-error));
}

static void clients_wait(uv_poll_t *poll, int status, int events);

static void rest(struct stream_listener *l)
{
	l->resting = true;
	uv_poll_stop(&l->poll);
	stream_group_start_ticker(l->group);
}

bool stream_listener_wake(struct stream_listener *l)
{
	struct stream_group *g = l->group;

	if (!l->resting)
		return false;
	if (g->spare_fd < 0)
		g->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (g->spare_fd < 0)
		return true;
	l->resting = false;
	uv_poll_start(&l->poll, UV_READABLE, clients_wait);
	return false;
}

/* Without a free descriptor a client cannot even be turned away, and the loop would spin on it:
 * give up the spare one for a moment. */
static void turn_away(struct stream_listener *l, int error)
{
	struct stream_group *g = l->group;

	complain(l, error);
	if (g->spare_fd < 0 || (error != EMFILE && error != ENFILE)) {
		rest(l);
		return;
	}
	close(g->spare_fd);
	int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd >= 0) {
		close(fd);
		l->over_limit++;
	}
	g->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void stream_socket_reset(int fd)
{
	struct linger at_once = {.l_onoff = 1};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
}

static void refuse_client(struct stream_listener *l, int fd, const struct sockaddr *peer,
			  const char *why)
{
	uint64_t now = uv_now(l->group->loop);
	char address[ADDRESS_TEXT];

	stream_socket_reset(fd);
	l->over_limit++;
	if (l->refused_ms != 0 && now - l->refused_ms < COMPLAIN_EVERY_MS)
		return;
	l->refused_ms = now;
	address_format(peer, address);
	log_warning("client-refused", "%s: client %s: %s", l->address, address, why);
}

static void take_client(struct stream_listener *l, int fd, const struct sockaddr *peer)
{
	struct place *place = NULL;
	char why[ADMISSION_WHY];

	if (l->taken) {
		l->taken(fd, peer, l->arg);
		return;
	}
	if (l->limit > 0 && l->open >= l->limit) {
		close(fd);
		l->over_limit++;
		return;
	}
	if (l->admission && admission_enter(l->admission, peer, &place, why) != 0) {
		refuse_client(l, fd, peer, why);
		return;
	}
	l->open++;
	struct stream *s = stream_new_accepted(l->group, l, fd, peer, l->tls, l->events, l->arg);
	if (place)
		stream_take_place(s, place);
	if (l->accepted)
		l->accepted(s, l->arg);
	stream_begin(s);
}

static void clients_wait(uv_poll_t *poll, int status, int events)
{
	struct stream_listener *l = poll->data;

	(void)status; /* an error shows again in accept */
	(void)events;
	int most = l->taken ? TAKES_PER_TURN : ACCEPTS_PER_TURN;

	for (int i = 0; i < most && !uv_is_closing((uv_handle_t *)poll); i++) {
		struct sockaddr_storage peer = {.ss_family = AF_UNIX};
		socklen_t len = sizeof(peer);
		int fd = accept4(l->fd, (struct sockaddr *)&peer, &len,
				 SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			take_client(l, fd, (struct sockaddr *)&peer);
		} else if (errno == EAGAIN) {
			return;
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
			   errno == ENOMEM) {
			turn_away(l, errno);
			return;
		}
		/* Anything else concerns one client that has gone already (accept(2)). */
	}
}

int stream_listen(struct stream_group *g, const struct stream_listen *how,
		  struct stream_listener **ret, const char **ret_message)
{
	struct address address;
	int fd = open_listening(how, &address);

	if (fd < 0) {
		*ret_message = listen_message(how->address, -fd);
		return fd;
	}
	struct stream_listener *l = mem_zalloc(sizeof(*l));
	*l = (struct stream_listener){
		.group = g,
		.address = mem_strdup(how->address),
		.fd = fd,
		.port = bound_port(fd),
		.tls = how->tls ? tls_context_share(how->tls) : NULL,
		.limit = how->limit,
		.admission = how->admission,
		.events = how->events,
		.accepted = how->accepted,
		.taken = how->taken,
		.arg = how->arg,
	};
	if (address.socket.any.sa_family == AF_UNIX)
		l->path = mem_strdup(address.socket.un.sun_path);
	list_append(&g->listeners, &l->link);
	int rv = uv_poll_init(g->loop, &l->poll, fd);
	assert(rv == 0);
	l->poll.data = l;
	uv_poll_start(&l->poll, UV_READABLE, clients_wait);
	*ret = l;
	return 0;
}

unsigned stream_listener_port(const struct stream_listener *l)
{
	return l->port;
}

uint64_t stream_listener_over_limit(const struct stream_listener *l)
{
	return l->over_limit;
}

void stream_listener_set_tls(struct stream_listener *l, struct tls_context *tls)
{
	if (tls)
		tls_context_share(tls);
	tls_context_free(l->tls);
	l->tls = tls;
}

static void maybe_free(struct stream_listener *l)
{
	struct stream_group *g = l->group;

	if (!l->closed || l->open > 0)
		return;
	list_remove(&l->link);
	tls_context_free(l->tls);
	free(l->address);
	free(l);
	stream_group_maybe_freed(g);
}

void stream_listener_left(struct stream_listener *l)
{
	assert(l->open > 0);
	l->open--;
	maybe_free(l);
}

static void poll_closed(uv_handle_t *handle)
{
	struct stream_listener *l = handle->data;

	l->closed = true;
	maybe_free(l);
}

void stream_listener_close(struct stream_listener *l)
{
	if (!l || uv_is_closing((uv_handle_t *)&l->poll))
		return;
	uv_close((uv_handle_t *)&l->poll, poll_closed);
	close(l->fd);
	if (l->path)
		unlink(l->path);
	free(l->path);
	l->path = NULL;
}
