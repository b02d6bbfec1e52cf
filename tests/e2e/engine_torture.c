/* Three processes with an engine each, a writer that notes what was acknowledged, and kill -9 at
 * random. In the end all models are equal, each entry is there once, and no acknowledged one is
 * missing.
 *
 *   engine_torture [--kills N] [--seed N] [--keep]
 *
 * The ways a board is hurt: killed; killed with others; a leader that has taken entries which
 * nobody else has, since it was cut off from the others, killed or not: its log must be cut. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/engine.h"
#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "lib/rng.h"
#include "lib/text.h"

enum { NODES = 3, WINDOW = 64, PADDING = 600, LINKS = 32, EXIT_FAILED = 3 };
/* Requests that are no entries. */
#define DUMP 0 /* write the model down */
#define ISOLATE UINT64_MAX /* cut the links to the others, and make no new ones */
#define CONNECT (UINT64_MAX - 1) /* be part of the network again */

struct request {
	uint64_t id;
	uint64_t size;
};

struct reply {
	uint64_t id;
	int64_t status;
};

/* --- a node --- */

struct node {
	uint64_t id;
	const char *root;
	uv_loop_t loop;
	struct engine *engine;
	struct buf model; /* ids, in order */
	uv_poll_t peers, clients;
	int peers_fd, clients_fd;
	bool isolated;
	int links[LINKS]; /* second descriptors of the latest links, to cut them */
	unsigned link_count;
};

struct client {
	struct node *n;
	uv_pipe_t pipe;
	struct request request;
	size_t have;
	unsigned pending;
	bool closed;
};

struct pending {
	struct client *c;
	uint64_t id;
};

static void die(const char *what)
{
	(void)fprintf(stderr, "engine_torture: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void path_of(char *path, size_t size, const char *root, uint64_t id, const char *what)
{
	(void)snprintf(path, size, "%s/%llu.%s", root, (unsigned long long)id, what);
}

static void socket_address(struct sockaddr_un *un, const char *root, uint64_t id, const char *what)
{
	*un = (struct sockaddr_un){.sun_family = AF_UNIX};
	path_of(un->sun_path, sizeof(un->sun_path), root, id, what);
}

static int on_apply(void *arg, uint64_t index, const uint8_t *data, size_t len, void **ret_result)
{
	struct node *n = arg;

	(void)index;
	(void)ret_result;
	if (len < 8)
		return -EBADMSG;
	buf_append(&n->model, data, 8);
	return 0;
}

static void on_drop(void *arg, void *result)
{
	(void)arg;
	(void)result;
}

static int on_snapshot(void *arg, struct buf *out)
{
	struct node *n = arg;

	buf_append(out, n->model.data, n->model.len);
	return 0;
}

static int on_restore(void *arg, const uint8_t *data, size_t len)
{
	struct node *n = arg;

	buf_clear(&n->model);
	buf_append(&n->model, data, len);
	return 0;
}

static void on_changed(void *arg, enum engine_state state, uint64_t term, uint64_t leader)
{
	(void)arg;
	(void)state;
	(void)term;
	(void)leader;
}

static void link_note(struct node *n, int fd)
{
	int *slot = &n->links[n->link_count++ % LINKS];

	if (n->link_count > LINKS)
		(void)close(*slot);
	*slot = dup(fd);
}

static void links_cut(struct node *n)
{
	for (unsigned i = 0; i < n->link_count && i < LINKS; i++)
		(void)shutdown(n->links[i], SHUT_RDWR);
}

static void on_dial(void *arg, struct engine_dial *dial, uint64_t id, const char *address)
{
	struct node *n = arg;
	struct sockaddr_un un;
	int fd;

	(void)address;
	if (n->isolated) {
		engine_dialed(dial, -EHOSTUNREACH);
		return;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socket_address(&un, n->root, id, "peer");
	if (fd < 0 || connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0 ||
	    write(fd, &n->id, sizeof(n->id)) != (ssize_t)sizeof(n->id)) {
		int error = -errno;

		if (fd >= 0)
			(void)close(fd);
		engine_dialed(dial, error);
		return;
	}
	link_note(n, fd);
	engine_dialed(dial, fd);
}

static void on_dial_cancel(void *arg, struct engine_dial *dial)
{
	(void)arg;
	(void)dial;
	abort(); /* every dial is answered at once */
}

static void on_failed(void *arg, int error, const char *message)
{
	struct node *n = arg;

	(void)fprintf(stderr, "node %llu failed: %d %s\n", (unsigned long long)n->id, error,
		      message);
	exit(EXIT_FAILED);
}

static void on_peer(uv_poll_t *poll, int status, int events)
{
	struct node *n = poll->data;
	const struct timeval wait = {.tv_sec = 1};
	char address[32];
	uint64_t id;
	int fd;

	(void)status;
	(void)events;
	fd = accept4(n->peers_fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	if (n->isolated || recv(fd, &id, sizeof(id), MSG_WAITALL) != (ssize_t)sizeof(id)) {
		(void)close(fd);
		return;
	}
	(void)snprintf(address, sizeof(address), "node%llu", (unsigned long long)id);
	link_note(n, fd);
	engine_accept(n->engine, id, address, fd);
}

static void maybe_free(struct client *c)
{
	if (c->closed && c->pending == 0)
		free(c);
}

static void on_client_closed(uv_handle_t *handle)
{
	struct client *c = handle->data;

	c->closed = true;
	maybe_free(c);
}

static void client_reply(struct client *c, uint64_t id, int status)
{
	struct reply reply = {id, status};
	uv_buf_t buf = uv_buf_init((char *)&reply, sizeof(reply));

	if (!uv_is_closing((uv_handle_t *)&c->pipe))
		(void)uv_try_write((uv_stream_t *)&c->pipe, &buf, 1);
}

static void on_done(void *arg, int status, uint64_t index, void *result)
{
	struct pending *p = arg;
	struct client *c = p->c;

	(void)index;
	(void)result;
	client_reply(c, p->id, status);
	c->pending--;
	free(p);
	maybe_free(c);
}

static void dump(struct node *n)
{
	char path[256];
	FILE *f;

	path_of(path, sizeof(path), n->root, n->id, "dump");
	f = fopen(path, "w");
	if (f == NULL || fwrite(n->model.data, 1, n->model.len, f) != n->model.len ||
	    fclose(f) != 0)
		die("dump");
}

static void client_request(struct client *c)
{
	uint8_t entry[8 + PADDING];
	struct pending *p;

	if (c->request.id == DUMP) {
		dump(c->n);
		client_reply(c, DUMP, 0);
		return;
	}
	if (c->request.id == ISOLATE || c->request.id == CONNECT) {
		c->n->isolated = c->request.id == ISOLATE;
		if (c->n->isolated)
			links_cut(c->n);
		return;
	}
	p = mem_alloc(sizeof(*p));
	*p = (struct pending){c, c->request.id};
	c->pending++;
	memset(entry, (int)(c->request.id % 251), sizeof(entry));
	memcpy(entry, &c->request.id, 8);
	engine_propose(c->n->engine, entry, 8 + c->request.size % PADDING, on_done, p);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct client *c = handle->data;

	(void)suggested;
	*buf = uv_buf_init((char *)&c->request + c->have, (unsigned)(sizeof(c->request) - c->have));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct client *c = stream->data;

	(void)buf;
	if (n < 0) {
		if (!uv_is_closing((uv_handle_t *)stream))
			uv_close((uv_handle_t *)stream, on_client_closed);
		return;
	}
	c->have += (size_t)n;
	if (c->have < sizeof(c->request))
		return;
	c->have = 0;
	client_request(c);
}

static void on_client(uv_poll_t *poll, int status, int events)
{
	struct node *n = poll->data;
	int fd = accept4(n->clients_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *c;

	(void)status;
	(void)events;
	if (fd < 0)
		return;
	c = mem_zalloc(sizeof(*c));
	c->n = n;
	(void)uv_pipe_init(&n->loop, &c->pipe, 0);
	(void)uv_pipe_open(&c->pipe, fd);
	c->pipe.data = c;
	(void)uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);
}

static int listen_on(struct node *n, const char *what, uv_poll_t *poll, uv_poll_cb cb)
{
	struct sockaddr_un un;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	socket_address(&un, n->root, n->id, what);
	(void)unlink(un.sun_path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0 || listen(fd, 64) < 0)
		die("listen");
	(void)uv_poll_init(&n->loop, poll, fd);
	poll->data = n;
	(void)uv_poll_start(poll, UV_READABLE, cb);
	return fd;
}

static void node_run(uint64_t id, const char *root)
{
	struct node *n = mem_zalloc(sizeof(*n));
	const struct engine_events events = {
		.arg = n,
		.apply = on_apply,
		.drop = on_drop,
		.snapshot = on_snapshot,
		.restore = on_restore,
		.changed = on_changed,
		.dial = on_dial,
		.dial_cancel = on_dial_cancel,
		.failed = on_failed,
	};
	const char *message;
	char dir[256], address[32];

	n->id = id;
	n->root = root;
	(void)uv_loop_init(&n->loop);
	path_of(dir, sizeof(dir), root, id, "log");
	(void)snprintf(address, sizeof(address), "node%llu", (unsigned long long)id);
	if (engine_start(&n->loop, dir, id, address, &events, &n->engine, &message) < 0) {
		(void)fprintf(stderr, "node %llu does not start: %s\n", (unsigned long long)id,
			      message);
		exit(EXIT_FAILED);
	}
	n->peers_fd = listen_on(n, "peer", &n->peers, on_peer);
	n->clients_fd = listen_on(n, "client", &n->clients, on_client);
	(void)uv_run(&n->loop, UV_RUN_DEFAULT);
	exit(1);
}

/* --- the boards are born as a cluster of three --- */

struct grow {
	struct engine *engines[NODES];
	struct buf models[NODES];
	unsigned next;
	bool promoting;
	bool done;
	unsigned open;
	uv_loop_t loop;
};

struct grow_node {
	struct grow *g;
	unsigned at;
};

static int grow_apply(void *arg, uint64_t index, const uint8_t *data, size_t len, void **ret)
{
	(void)arg;
	(void)index;
	(void)data;
	(void)len;
	(void)ret;
	return 0;
}

static int grow_snapshot(void *arg, struct buf *out)
{
	(void)arg;
	(void)out;
	return 0;
}

static int grow_restore(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	(void)data;
	(void)len;
	return 0;
}

static void grow_dial(void *arg, struct engine_dial *dial, uint64_t id, const char *address)
{
	struct grow_node *n = arg;
	char own[32];
	int pair[2];

	(void)address;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		die("socketpair");
	(void)snprintf(own, sizeof(own), "node%u", n->at + 1);
	engine_accept(n->g->engines[id - 1], n->at + 1, own, pair[1]);
	engine_dialed(dial, pair[0]);
}

static void grow_on(void *arg, int status)
{
	struct grow *g = arg;
	char address[32];

	if (status < 0 && status != -EAGAIN) {
		errno = -status;
		die("cannot grow the cluster");
	}
	if (status == 0 && g->next > 0) {
		if (g->promoting)
			g->next++;
		g->promoting = !g->promoting;
	}
	if (g->next == 0)
		g->next = 2;
	if (g->next > NODES) {
		g->done = true;
		return;
	}
	(void)snprintf(address, sizeof(address), "node%u", g->next);
	if (g->promoting)
		engine_promote(g->engines[0], g->next, grow_on, g);
	else
		engine_add(g->engines[0], g->next, address, grow_on, g);
}

static void grow_closed(void *arg)
{
	struct grow_node *n = arg;

	n->g->open--;
}

static void make_cluster(const char *root)
{
	struct grow *g = mem_zalloc(sizeof(*g));
	struct grow_node nodes[NODES];
	const char *message;

	(void)uv_loop_init(&g->loop);
	for (unsigned i = 0; i < NODES; i++) {
		char dir[256], address[32];
		struct engine_events events = {
			.arg = &nodes[i],
			.apply = grow_apply,
			.drop = on_drop,
			.snapshot = grow_snapshot,
			.restore = grow_restore,
			.changed = on_changed,
			.dial = grow_dial,
			.dial_cancel = on_dial_cancel,
			.failed = on_failed,
		};

		nodes[i] = (struct grow_node){g, i};
		path_of(dir, sizeof(dir), root, i + 1, "log");
		(void)snprintf(address, sizeof(address), "node%u", i + 1);
		if (i == 0 && engine_bootstrap(dir, 1, address) < 0)
			die("bootstrap");
		if (engine_start(&g->loop, dir, i + 1, address, &events, &g->engines[i], &message) <
		    0) {
			(void)fprintf(stderr, "%s\n", message);
			exit(1);
		}
		g->open++;
	}
	grow_on(g, 0);
	while (!g->done)
		(void)uv_run(&g->loop, UV_RUN_ONCE);
	for (unsigned i = 0; i < NODES; i++)
		engine_close(g->engines[i], grow_closed, &nodes[i]);
	while (g->open > 0)
		(void)uv_run(&g->loop, UV_RUN_ONCE);
	(void)uv_run(&g->loop, UV_RUN_DEFAULT);
	(void)uv_loop_close(&g->loop);
	free(g);
}

/* --- the tormentor --- */

struct victim {
	uint64_t id;
	pid_t pid; /* 0: dead */
	int fd; /* connection as a client; -1: none */
	struct reply reply;
	size_t have;
	bool dumped;
};

struct torture {
	char root[64]; /* short enough for the name of a socket */
	struct prng rng;
	struct victim nodes[NODES];
	unsigned target;
	unsigned outstanding;
	uint64_t next_id;
	uint8_t *acked; /* by id */
	size_t acked_size;
	uint64_t acked_count;
	bool writing;
	uint64_t slow_ms; /* between writes; slow ones leave logs that are cut, not replaced */
	uint64_t written_ms;
};

static void node_start(struct torture *t, struct victim *v)
{
	v->pid = fork();
	if (v->pid < 0)
		die("fork");
	if (v->pid == 0)
		node_run(v->id, t->root);
}

static void node_disconnect(struct torture *t, struct victim *v)
{
	if (v->fd >= 0)
		(void)close(v->fd);
	v->fd = -1;
	v->have = 0;
	if (&t->nodes[t->target] == v)
		t->outstanding = 0;
}

static void node_kill(struct torture *t, struct victim *v)
{
	if (v->pid == 0)
		return;
	(void)kill(v->pid, SIGKILL);
	(void)waitpid(v->pid, NULL, 0);
	v->pid = 0;
	node_disconnect(t, v);
}

/* A node that ended by itself has failed the test. */
static void check_alive(struct torture *t)
{
	for (unsigned i = 0; i < NODES; i++) {
		struct victim *v = &t->nodes[i];
		int status;

		if (v->pid == 0 || waitpid(v->pid, &status, WNOHANG) != v->pid)
			continue;
		(void)fprintf(stderr, "FAILED: node %u ended by itself: %s %d; files in %s\n",
			      i + 1, WIFSIGNALED(status) ? "signal" : "status",
			      WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
			      t->root);
		exit(1);
	}
}

static void node_connect(struct torture *t, struct victim *v)
{
	struct sockaddr_un un;

	if (v->fd >= 0 || v->pid == 0)
		return;
	socket_address(&un, t->root, v->id, "client");
	v->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (v->fd < 0)
		die("socket");
	if (connect(v->fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
		(void)close(v->fd);
		v->fd = -1;
		return;
	}
	(void)fcntl(v->fd, F_SETFL, O_NONBLOCK);
}

static void on_reply(struct torture *t, struct victim *v)
{
	if (v->reply.id == DUMP) {
		v->dumped = true;
		return;
	}
	if (&t->nodes[t->target] == v && t->outstanding > 0)
		t->outstanding--;
	if (v->reply.status == 0) {
		while (v->reply.id >= t->acked_size) {
			t->acked = mem_realloc(t->acked, t->acked_size + 65536);
			memset(t->acked + t->acked_size, 0, 65536);
			t->acked_size += 65536;
		}
		t->acked[v->reply.id] = 1;
		t->acked_count++;
	} else if (&t->nodes[t->target] == v) {
		t->target = (t->target + 1) % NODES;
		t->outstanding = 0;
	}
}

static void replies_read(struct torture *t, struct victim *v)
{
	while (v->fd >= 0) {
		ssize_t n = read(v->fd, (char *)&v->reply + v->have, sizeof(v->reply) - v->have);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			node_disconnect(t, v);
			return;
		}
		v->have += (size_t)n;
		if (v->have < sizeof(v->reply))
			continue;
		v->have = 0;
		on_reply(t, v);
	}
}

static bool request_send(struct victim *v, uint64_t id, uint64_t size)
{
	struct request r = {id, size};

	return v->fd >= 0 && send(v->fd, &r, sizeof(r), MSG_NOSIGNAL) == (ssize_t)sizeof(r);
}

static void requests_write(struct torture *t)
{
	struct victim *v = &t->nodes[t->target];

	if (v->fd < 0) {
		t->target = (t->target + 1) % NODES;
		t->outstanding = 0;
		return;
	}
	if (t->slow_ms != 0 && clock_boottime_ms() < t->written_ms + t->slow_ms)
		return;
	t->written_ms = clock_boottime_ms();
	while (t->writing && t->outstanding < (t->slow_ms != 0 ? 4 : WINDOW)) {
		if (!request_send(v, t->next_id, prng_u64(&t->rng)))
			return;
		t->next_id++;
		t->outstanding++;
	}
}

static void pump(struct torture *t, uint64_t ms)
{
	uint64_t end = clock_boottime_ms() + ms;

	for (;;) {
		uint64_t now = clock_boottime_ms();
		struct pollfd fds[NODES];

		check_alive(t);
		for (unsigned i = 0; i < NODES; i++) {
			node_connect(t, &t->nodes[i]);
			fds[i] = (struct pollfd){t->nodes[i].fd, POLLIN, 0};
		}
		requests_write(t);
		if (now >= end)
			return;
		(void)poll(fds, NODES, end - now < 10 ? (int)(end - now) : 10);
		for (unsigned i = 0; i < NODES; i++)
			replies_read(t, &t->nodes[i]);
	}
}

static unsigned hurt(struct torture *t)
{
	unsigned way = (unsigned)prng_below(&t->rng, 10);
	unsigned at = (unsigned)prng_below(&t->rng, NODES);
	unsigned kills = 1;

	t->slow_ms = way < 4 ? 20 : 0;
	if (way < 3) {
		/* What the leader writes now, nobody else gets. */
		at = t->target;
		(void)request_send(&t->nodes[at], ISOLATE, 0);
		pump(t, 20 + prng_below(&t->rng, 400));
		node_kill(t, &t->nodes[at]);
	} else if (way < 4) {
		/* The same, and it finds out alive. */
		at = t->target;
		(void)request_send(&t->nodes[at], ISOLATE, 0);
		pump(t, 1000 + prng_below(&t->rng, 3000));
		(void)request_send(&t->nodes[at], CONNECT, 0);
		kills = 0;
	} else if (way < 5) {
		node_kill(t, &t->nodes[at]);
		pump(t, prng_below(&t->rng, 300));
		node_kill(t, &t->nodes[(at + 1) % NODES]);
		kills = 2;
	} else if (way < 6) {
		for (unsigned i = 0; i < NODES; i++)
			node_kill(t, &t->nodes[i]);
		kills = 3;
	} else if (way < 8) {
		node_kill(t, &t->nodes[t->target]);
	} else {
		node_kill(t, &t->nodes[at]);
	}
	pump(t, prng_below(&t->rng, 2500));
	for (unsigned i = 0; i < NODES; i++)
		if (t->nodes[i].pid == 0)
			node_start(t, &t->nodes[i]);
	return kills;
}

/* --- the verdict --- */

static uint64_t *dump_read(struct torture *t, unsigned at, size_t *ret_count)
{
	char path[256];
	struct stat st;
	uint64_t *ids;
	int fd;

	path_of(path, sizeof(path), t->root, at + 1, "dump");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		die("dump");
	ids = mem_alloc((size_t)st.st_size + 1);
	if (read(fd, ids, (size_t)st.st_size) != st.st_size)
		die("dump");
	(void)close(fd);
	*ret_count = (size_t)st.st_size / 8;
	return ids;
}

static bool dumps_taken(struct torture *t)
{
	uint64_t end = clock_boottime_ms() + 5000;

	for (unsigned i = 0; i < NODES; i++) {
		t->nodes[i].dumped = false;
		if (!request_send(&t->nodes[i], DUMP, 0))
			return false;
	}
	while (clock_boottime_ms() < end) {
		pump(t, 10);
		if (t->nodes[0].dumped && t->nodes[1].dumped && t->nodes[2].dumped)
			return true;
	}
	return false;
}

static bool dumps_equal(struct torture *t)
{
	size_t counts[NODES];
	uint64_t *ids[NODES];
	bool equal = true;

	for (unsigned i = 0; i < NODES; i++)
		ids[i] = dump_read(t, i, &counts[i]);
	for (unsigned i = 1; i < NODES; i++)
		if (counts[i] != counts[0] || memcmp(ids[i], ids[0], counts[0] * 8) != 0)
			equal = false;
	for (unsigned i = 0; i < NODES; i++)
		free(ids[i]);
	return equal;
}

static int verdict(struct torture *t)
{
	uint8_t *seen = mem_zalloc(t->next_id + 1);
	uint64_t missing = 0, twice = 0;
	uint64_t *ids;
	size_t count;

	ids = dump_read(t, 0, &count);
	for (size_t i = 0; i < count; i++) {
		if (ids[i] >= t->next_id || seen[ids[i]]++ != 0)
			twice++;
	}
	for (uint64_t id = 0; id < t->acked_size && id < t->next_id; id++)
		if (t->acked[id] && !seen[id])
			missing++;
	(void)printf("%zu entries in every model, %llu acknowledged, %llu of them missing, "
		     "%llu twice or unknown\n",
		     count, (unsigned long long)t->acked_count, (unsigned long long)missing,
		     (unsigned long long)twice);
	free(seen);
	free(ids);
	return missing == 0 && twice == 0 && t->acked_count > 0 ? 0 : 1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

int main(int argc, char **argv)
{
	static struct torture t;
	uint64_t kills = 15, seed = 1, done = 0, end;
	bool keep = false, equal = false;
	int rv;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--kills") == 0 && i + 1 < argc &&
		    text_to_u64(argv[++i], 1, 1000000, &kills) == 0)
			continue;
		if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc &&
		    text_to_u64(argv[++i], 0, UINT64_MAX, &seed) == 0)
			continue;
		if (strcmp(argv[i], "--keep") == 0 && (keep = true))
			continue;
		(void)fprintf(stderr, "usage: engine_torture [--kills N] [--seed N] [--keep]\n");
		return 2;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	(void)printf("seed %llu\n", (unsigned long long)seed);
	(void)snprintf(t.root, sizeof(t.root), "%s/torture-XXXXXX",
		       getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
	if (mkdtemp(t.root) == NULL)
		die(t.root);
	t.rng.state = seed;
	t.next_id = 1;
	make_cluster(t.root);
	for (unsigned i = 0; i < NODES; i++) {
		t.nodes[i] = (struct victim){.id = i + 1, .fd = -1};
		node_start(&t, &t.nodes[i]);
	}
	t.writing = true;
	pump(&t, 3000);
	while (done < kills) {
		done += hurt(&t);
		pump(&t, prng_below(&t.rng, 2000));
	}
	pump(&t, 3000);
	t.writing = false;
	end = clock_boottime_ms() + 30000;
	while (!equal && clock_boottime_ms() < end) {
		pump(&t, 300);
		equal = dumps_taken(&t) && dumps_equal(&t);
	}
	if (!equal)
		(void)printf("FAILED: the models differ; files in %s\n", t.root);
	rv = equal ? verdict(&t) : 1;
	for (unsigned i = 0; i < NODES; i++)
		node_kill(&t, &t.nodes[i]);
	free(t.acked);
	if (rv == 0 && !keep)
		(void)nftw(t.root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	else
		(void)printf("files in %s\n", t.root);
	return rv;
}
