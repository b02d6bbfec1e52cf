#include "tests/bench/site_nodes.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/mem.h"
#include "lib/rng.h"

/*
 *            due          socket up      PREINIT_REPLY             INIT_REPLY 0
 *  IDLE/SLEEP --> CONNECTING --> GREETING ------+--> HANDSHAKE --> JOINING --> UP
 *     ^                |            |           +------ clear ------^          |
 *     +----------------+------------+-------------------------------+----------+
 *                                                any SERVER_ERROR: GONE
 */
enum node_state { IDLE, SLEEP, CONNECTING, GREETING, HANDSHAKE, JOINING, UP, GONE };

enum { SLEEP_FIRST_MS = 2386, SLEEP_SECOND_MS = 1992, SLEEP_MAX_MS = 4500, SCAN_MS = 5 };
enum { READ_MAX = 65536 };

struct node {
	enum node_state state;
	unsigned site;
	unsigned id; /* 1 or 2 */
	int fd; /* -1: none */
	int dead_fd; /* of a cut connection: open, never read again; -1: none */
	SSL *ssl;
	struct buf in;
	struct buf out;
	bool want_write; /* EPOLLOUT is asked for */
	bool muted; /* cut off from the witness without a word */
	unsigned address; /* in use, or used last */
	unsigned tried; /* addresses tried in this attempt */
	unsigned disconnects;
	uint64_t attempt_us; /* the attempt began */
	uint64_t echo_us; /* the open echo was sent; 0: answered */
	uint32_t seq;
	uint32_t echo_seq;
	struct qnet_ring ring; /* of corosync */
	struct qnet_ring granted; /* of the ACK in force; seq 0: none */
	bool alone; /* membership is only this node */
	int quorate_sent; /* -1: not since the ring changed */
	unsigned turn; /* of the loop, in which its socket had something for it */
};

struct site {
	char *name;
	X509 *cert;
	EVP_PKEY *key; /* of cert, if the site has one of its own */
	uint64_t seq; /* of the ring */
	uint64_t split_us; /* waiting for the decision since; 0: not */
	uint64_t both_us; /* in SITE_BOTH since */
	enum site_view view;
};

struct site_nodes {
	struct site_nodes_options options;
	struct sockaddr_storage addresses[SITE_ADDRESSES];
	socklen_t address_lens[SITE_ADDRESSES];
	unsigned address_count;
	int epoll;
	SSL_CTX *tls;
	EVP_PKEY *key; /* shared by all certificates made here */
	struct site *sites;
	struct node *nodes; /* 2 per site */
	uint64_t *due_us; /* when to look at the node again, UINT64_MAX: never */
	unsigned on; /* sites attached so far */
	unsigned in_flight;
	struct epoll_event *events; /* of a turn: room for all nodes */
	unsigned turn;
	struct prng prng;
	uint64_t start_us;
	struct site_nodes_counts counts;
	struct samples attach_times;
	struct samples echo_times;
	struct samples split_times;
};

uint64_t site_nodes_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* --- samples --- */

void samples_add(struct samples *s, uint64_t us)
{
	if (s->count == s->cap) {
		s->cap = s->cap ? 2 * s->cap : 1024;
		s->us = mem_realloc(s->us, s->cap * sizeof(*s->us));
	}
	s->us[s->count++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

uint32_t samples_percentile(struct samples *s, double percent)
{
	size_t rank;

	if (s->count == 0)
		return 0;
	qsort(s->us, s->count, sizeof(*s->us), compare_u32);
	rank = (size_t)(percent / 100.0 * (double)s->count);
	return s->us[rank < s->count ? rank : s->count - 1];
}

/* --- the book of who holds what --- */

static bool ring_equal(const struct qnet_ring *a, const struct qnet_ring *b)
{
	return a->node == b->node && a->seq == b->seq;
}

static bool holds_any(const struct node *n)
{
	return n->granted.seq != 0;
}

static bool holds_now(const struct node *n)
{
	return holds_any(n) && ring_equal(&n->granted, &n->ring);
}

/* When it gives the witness up if it hears nothing from now on. */
static uint64_t node_patience_us(const struct site_nodes *s, const struct node *n)
{
	return s->due_us[n - s->nodes] +
	       (n->echo_us != 0 ? 0 : (uint64_t)s->options.heartbeat_ms * 1000);
}

/* A real node is a program of its own and gives up in time. This one does the work of thousands,
 * and may come to it late: what nothing has come for counts as given up from then on. */
static bool holds_still(const struct site_nodes *s, const struct node *n, uint64_t now_us)
{
	return holds_any(n) &&
	       (n->state != UP || n->turn == s->turn || now_us < node_patience_us(s, n));
}

static enum site_view site_look(const struct site_nodes *s, const struct node *a,
				const struct node *b, uint64_t now_us)
{
	if (ring_equal(&a->ring, &b->ring))
		return holds_now(a) && holds_now(b) ? SITE_WHOLE : SITE_LOOSE;
	if ((holds_now(a) && holds_still(s, b, now_us)) ||
	    (holds_now(b) && holds_still(s, a, now_us)))
		return SITE_BOTH;
	return holds_now(a) || holds_now(b) ? SITE_ONE : SITE_NONE;
}

static void write_event(struct site_nodes *s, const struct node *n, const char *event)
{
	if (s->options.events == NULL)
		return;
	fprintf(s->options.events,
		"{\"t\":%.6f,\"site\":\"%s\",\"node\":%u,\"event\":\"%s\",\"ring\":\"%u.%llu\","
		"\"address\":\"%s\"}\n",
		(double)(site_nodes_now_us() - s->start_us) / 1e6, s->sites[n->site].name, n->id,
		event, n->ring.node, (unsigned long long)n->ring.seq,
		s->options.addresses[n->address]);
}

static const char *node_cut(const struct node *n)
{
	return n->muted ? ", cut off" : "";
}

static void violation_tell(struct site_nodes *s, const struct site *site, uint64_t now_us)
{
	const struct node *a = &s->nodes[2 * (site - s->sites)];

	snprintf(s->counts.last_error, sizeof(s->counts.last_error),
		 "%s: BOTH SIDES HOLD THE VOTE: node 1 at %s%s for %.3f s more, node 2 at %s%s for "
		 "%.3f s more",
		 site->name, s->options.addresses[a->address], node_cut(a),
		 ((double)node_patience_us(s, a) - (double)now_us) / 1e6,
		 s->options.addresses[a[1].address], node_cut(a + 1),
		 ((double)node_patience_us(s, a + 1) - (double)now_us) / 1e6);
}

/* After anything that could change who holds the vote. */
static void site_update(struct site_nodes *s, unsigned index)
{
	struct site *site = &s->sites[index];
	const struct node *a = &s->nodes[2 * index];
	uint64_t now_us = site_nodes_now_us();
	enum site_view view = site_look(s, a, a + 1, now_us);

	if (view == site->view)
		return;
	if (site->view == SITE_BOTH && now_us - site->both_us > s->counts.overlap_us)
		s->counts.overlap_us = now_us - site->both_us;
	site->view = view;
	if (view == SITE_BOTH) {
		site->both_us = now_us;
		s->counts.violations++;
		violation_tell(s, site, now_us);
		write_event(s, a, "violation");
	}
	if (view == SITE_ONE && site->split_us != 0) {
		samples_add(&s->split_times, site_nodes_now_us() - site->split_us);
		site->split_us = 0;
	}
}

/* --- bytes out --- */

static void node_watch(struct site_nodes *s, struct node *n, bool want_write)
{
	struct epoll_event e = {.events = EPOLLIN | (want_write ? EPOLLOUT : 0u),
				.data.u32 = (uint32_t)(n - s->nodes)};

	if (n->want_write == want_write)
		return;
	n->want_write = want_write;
	epoll_ctl(s->epoll, EPOLL_CTL_MOD, n->fd, &e);
}

static void node_fail(struct site_nodes *s, struct node *n, const char *why);

static ssize_t node_send(struct node *n)
{
	int rv;

	if (n->ssl == NULL)
		return send(n->fd, n->out.data, n->out.len, MSG_NOSIGNAL);
	ERR_clear_error();
	rv = SSL_write(n->ssl, n->out.data, (int)n->out.len);
	if (rv > 0)
		return rv;
	errno = SSL_get_error(n->ssl, rv) == SSL_ERROR_WANT_WRITE ? EAGAIN : EPIPE;
	return -1;
}

static void node_flush(struct site_nodes *s, struct node *n)
{
	if (n->muted || n->state == HANDSHAKE)
		return;
	while (n->out.len != 0) {
		ssize_t sent = node_send(n);

		if (sent < 0 && errno == EAGAIN)
			break;
		if (sent < 0) {
			node_fail(s, n, "write failed");
			return;
		}
		buf_consume(&n->out, (size_t)sent);
	}
	node_watch(s, n, n->out.len != 0);
}

static void node_put(struct node *n, struct qnet_message *m)
{
	m->has |= QNET_HAS(QNET_OPT_SEQ);
	if (m->type != QNET_ECHO_REQUEST && m->type != QNET_VOTE_INFO_REPLY)
		m->seq = ++n->seq;
	qnet_encode(m, &n->out);
}

static void put_preinit(struct site_nodes *s, struct node *n)
{
	const char *name = s->sites[n->site].name;

	node_put(n, &(struct qnet_message){.type = QNET_PREINIT,
					   .has = QNET_HAS(QNET_OPT_CLUSTER_NAME),
					   .name = (const uint8_t *)name,
					   .name_len = (uint16_t)strlen(name)});
}

static void put_init(struct site_nodes *s, struct node *n)
{
	node_put(n, &(struct qnet_message){
			    .type = QNET_INIT,
			    .has = QNET_HAS(QNET_OPT_SUPPORTED_MESSAGES) |
				   QNET_HAS(QNET_OPT_SUPPORTED_OPTIONS) |
				   QNET_HAS(QNET_OPT_NODE_ID) | QNET_HAS(QNET_OPT_ALGORITHM) |
				   QNET_HAS(QNET_OPT_HEARTBEAT_INTERVAL) |
				   QNET_HAS(QNET_OPT_TIE_BREAKER) | QNET_HAS(QNET_OPT_RING_ID),
			    .supported_messages = QNET_ALL_MESSAGES,
			    .supported_options = QNET_ALL_OPTIONS,
			    .node_id = n->id,
			    .algorithm = s->options.algorithm,
			    .heartbeat_ms = s->options.heartbeat_ms,
			    .tie_breaker = QNET_TIE_LOWEST,
			    .ring = n->ring});
}

static void put_config(struct node *n)
{
	node_put(n, &(struct qnet_message){.type = QNET_NODE_LIST,
					   .has = QNET_HAS(QNET_OPT_NODE_LIST_TYPE),
					   .list = QNET_LIST_INITIAL,
					   .node_count = 2,
					   .nodes = {{.id = 1}, {.id = 2}}});
}

static void put_membership(struct node *n)
{
	struct qnet_message m = {
		.type = QNET_NODE_LIST,
		.has = QNET_HAS(QNET_OPT_NODE_LIST_TYPE) | QNET_HAS(QNET_OPT_RING_ID),
		.list = QNET_LIST_MEMBERSHIP,
		.ring = n->ring,
		.node_count = n->alone ? 1 : 2,
		.nodes = {{.id = n->alone ? n->id : 1}, {.id = 2}}};

	node_put(n, &m);
}

static void put_quorum(struct node *n)
{
	uint8_t other = n->alone ? QNET_NODE_DEAD : QNET_NODE_MEMBER;
	bool quorate = !n->alone || holds_now(n);

	n->quorate_sent = quorate;
	node_put(n, &(struct qnet_message){
			    .type = QNET_NODE_LIST,
			    .has = QNET_HAS(QNET_OPT_NODE_LIST_TYPE) | QNET_HAS(QNET_OPT_QUORATE),
			    .list = QNET_LIST_QUORUM,
			    .quorate = quorate,
			    .node_count = 2,
			    .nodes = {{.id = 1, .state = n->id == 1 ? QNET_NODE_MEMBER : other},
				      {.id = 2, .state = n->id == 2 ? QNET_NODE_MEMBER : other}}});
}

/* --- connections --- */

static void node_drop(struct site_nodes *s, struct node *n)
{
	if (n->state == CONNECTING || n->state == GREETING || n->state == HANDSHAKE ||
	    n->state == JOINING)
		s->in_flight--;
	if (n->state == UP)
		s->counts.attached--;
	if (n->ssl != NULL)
		SSL_free(n->ssl);
	n->ssl = NULL;
	if (n->fd >= 0 && n->muted) {
		/* A dead wire carries no FIN: the socket stays open, nobody reads it. */
		epoll_ctl(s->epoll, EPOLL_CTL_DEL, n->fd, NULL);
		n->dead_fd = n->fd;
	} else if (n->fd >= 0) {
		close(n->fd);
	}
	n->fd = -1;
	n->want_write = false;
	buf_free(&n->in);
	buf_free(&n->out);
	n->granted = (struct qnet_ring){0};
	n->echo_us = 0;
}

static void node_sleep(struct site_nodes *s, struct node *n, uint64_t ms)
{
	n->state = SLEEP;
	n->tried = 0;
	s->due_us[n - s->nodes] = site_nodes_now_us() + ms * 1000;
}

/* The rest of the attempt's time, for a node that got nowhere. */
static void node_sleep_rest(struct site_nodes *s, struct node *n)
{
	uint64_t spent_ms = (site_nodes_now_us() - n->attempt_us) / 1000;

	node_sleep(s, n,
		   spent_ms < s->options.heartbeat_ms ? s->options.heartbeat_ms - spent_ms : 0);
}

static void node_sleep_random(struct site_nodes *s, struct node *n)
{
	n->disconnects++;
	if (n->disconnects == 1)
		node_sleep(s, n, SLEEP_FIRST_MS);
	else if (n->disconnects == 2)
		node_sleep(s, n, SLEEP_SECOND_MS);
	else
		node_sleep(s, n, prng_below(&s->prng, SLEEP_MAX_MS));
}

static void node_note(struct site_nodes *s, const struct node *n, const char *why)
{
	snprintf(s->counts.last_error, sizeof(s->counts.last_error), "%s node %u at %s: %s",
		 s->sites[n->site].name, n->id, s->options.addresses[n->address], why);
}

/* The connection is over, the program goes on. */
static void node_fail(struct site_nodes *s, struct node *n, const char *why)
{
	node_note(s, n, why);
	write_event(s, n, "detached");
	if (n->state == UP)
		s->counts.lost++;
	node_drop(s, n);
	node_sleep_random(s, n);
	site_update(s, n->site);
}

/* The program has ended. */
static void node_end(struct site_nodes *s, struct node *n, unsigned code)
{
	char why[64];

	snprintf(why, sizeof(why), "ended by the witness with error %u", code);
	node_note(s, n, why);
	write_event(s, n, "ended");
	node_drop(s, n);
	n->state = GONE;
	s->due_us[n - s->nodes] = UINT64_MAX;
	s->counts.gone++;
	site_update(s, n->site);
}

static void node_try(struct site_nodes *s, struct node *n);

static void node_connect_failed(struct site_nodes *s, struct node *n, int error)
{
	if (error == ECONNREFUSED)
		s->counts.refused++;
	node_note(s, n, strerror(error));
	node_drop(s, n);
	n->tried++;
	if (n->tried < s->address_count) {
		n->state = SLEEP; /* next address, at once */
		node_try(s, n);
	} else {
		node_sleep_rest(s, n);
	}
}

static void node_greet(struct site_nodes *s, struct node *n)
{
	n->state = GREETING;
	put_preinit(s, n);
	node_flush(s, n);
}

static unsigned node_first_address(const struct site_nodes *s, const struct node *n)
{
	return s->options.fair_start ? (unsigned)(n - s->nodes) % s->address_count : 0;
}

/* Its own source address, another one than its neighbour has. The kernel chooses the port when it
 * knows where to. */
static void node_bind(struct site_nodes *s, const struct node *n)
{
	struct sockaddr_in from = {.sin_family = AF_INET};
	int one = 1;

	if (s->options.sources == 0)
		return;
	from.sin_addr.s_addr = htonl(0x7f650001u + (unsigned)(n - s->nodes) % s->options.sources);
	setsockopt(n->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	if (bind(n->fd, (struct sockaddr *)&from, sizeof(from)) != 0)
		node_note(s, n, strerror(errno));
}

/* The next address of the attempt. */
static void node_try(struct site_nodes *s, struct node *n)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.u32 = (uint32_t)(n - s->nodes)};
	int one = 1;

	if (n->tried == 0)
		n->attempt_us = site_nodes_now_us();
	n->address = (node_first_address(s, n) + n->tried) % s->address_count;
	n->fd = socket(s->addresses[n->address].ss_family,
		       SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (n->fd < 0) {
		node_note(s, n, strerror(errno));
		node_sleep_rest(s, n);
		return;
	}
	setsockopt(n->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	node_bind(s, n);
	n->state = CONNECTING;
	n->want_write = true;
	s->in_flight++;
	s->due_us[n - s->nodes] = n->attempt_us + (uint64_t)s->options.heartbeat_ms * 1000;
	if (connect(n->fd, (struct sockaddr *)&s->addresses[n->address],
		    s->address_lens[n->address]) != 0 &&
	    errno != EINPROGRESS) {
		node_connect_failed(s, n, errno);
		return;
	}
	epoll_ctl(s->epoll, EPOLL_CTL_ADD, n->fd, &e);
}

static void node_connected(struct site_nodes *s, struct node *n)
{
	int error = 0;
	socklen_t len = sizeof(error);

	getsockopt(n->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error != 0)
		node_connect_failed(s, n, error);
	else
		node_greet(s, n);
}

static void node_handshake(struct site_nodes *s, struct node *n)
{
	int rv;
	int error;

	ERR_clear_error();
	rv = SSL_connect(n->ssl);
	if (rv == 1) {
		n->state = JOINING;
		put_init(s, n);
		node_flush(s, n);
		return;
	}
	error = SSL_get_error(n->ssl, rv);
	if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
		node_watch(s, n, error == SSL_ERROR_WANT_WRITE);
	} else {
		char why[256] = "TLS: connection closed in the handshake";

		if (ERR_peek_error() != 0)
			ERR_error_string_n(ERR_get_error(), why, sizeof(why));
		node_fail(s, n, why);
	}
}

static void node_start_tls(struct site_nodes *s, struct node *n)
{
	const struct site *site = &s->sites[n->site];

	node_put(n, &(struct qnet_message){.type = QNET_STARTTLS});
	node_flush(s, n); /* a few bytes into an empty socket: they go at once or not at all */
	if (n->state != GREETING)
		return;
	n->state = HANDSHAKE;
	n->ssl = SSL_new(s->tls);
	SSL_set_fd(n->ssl, n->fd);
	SSL_set1_host(n->ssl, "Qnetd Server");
	SSL_set_tlsext_host_name(n->ssl, "Qnetd Server");
	if (site->cert != NULL) {
		SSL_use_certificate(n->ssl, site->cert);
		SSL_use_PrivateKey(n->ssl, site->key != NULL ? site->key : s->key);
	}
	node_handshake(s, n);
}

/* --- messages in --- */

static void node_vote(struct site_nodes *s, struct node *n, const struct qnet_message *m)
{
	if (!ring_equal(&m->ring, &n->ring))
		return;
	if (m->vote == QNET_VOTE_ACK) {
		n->granted = n->ring;
		write_event(s, n, "ack");
	} else if (m->vote == QNET_VOTE_NACK) {
		n->granted = (struct qnet_ring){0};
		write_event(s, n, "nack");
	} else {
		return;
	}
	site_update(s, n->site);
	if (n->quorate_sent != (!n->alone || holds_now(n)))
		put_quorum(n);
}

static void node_preinit_reply(struct site_nodes *s, struct node *n, const struct qnet_message *m)
{
	if (s->options.tls && m->tls_supported != QNET_TLS_UNSUPPORTED) {
		node_start_tls(s, n);
	} else if (m->tls_supported == QNET_TLS_REQUIRED) {
		node_end(s, n, QNET_ERROR_TLS_REQUIRED);
	} else {
		n->state = JOINING;
		put_init(s, n);
	}
}

static void node_init_reply(struct site_nodes *s, struct node *n, const struct qnet_message *m)
{
	if (m->error != QNET_OK) {
		if (m->error < sizeof(s->counts.errors) / sizeof(s->counts.errors[0]))
			s->counts.errors[m->error]++;
		if (m->error == QNET_ERROR_TIE_BREAKER_DIFFERS ||
		    m->error == QNET_ERROR_ALGORITHM_DIFFERS ||
		    m->error == QNET_ERROR_DUPLICATE_NODE_ID)
			node_fail(s, n, "refused for now");
		else
			node_end(s, n, m->error);
		return;
	}
	s->in_flight--;
	n->state = UP;
	s->counts.attached++;
	n->echo_seq = 0;
	n->echo_us = 0;
	samples_add(&s->attach_times, site_nodes_now_us() - n->attempt_us);
	s->due_us[n - s->nodes] = site_nodes_now_us() + (uint64_t)s->options.heartbeat_ms * 1000;
	write_event(s, n, "attached");
	node_put(n, &(struct qnet_message){.type = QNET_SET_OPTION,
					   .has = QNET_HAS(QNET_OPT_KEEP_ACTIVE_PARTITION),
					   .keep_active_partition = true});
	put_config(n);
	put_membership(n);
	put_quorum(n);
}

static void node_echo_reply(struct site_nodes *s, struct node *n, const struct qnet_message *m)
{
	if (n->echo_us == 0 || m->seq != n->echo_seq) {
		node_end(s, n, QNET_ERROR_UNEXPECTED_MESSAGE);
		return;
	}
	samples_add(&s->echo_times, site_nodes_now_us() - n->echo_us);
	n->echo_us = 0;
}

static void node_message(struct site_nodes *s, struct node *n, const struct qnet_message *m)
{
	if (m->type == QNET_SERVER_ERROR) {
		if (m->error < sizeof(s->counts.errors) / sizeof(s->counts.errors[0]))
			s->counts.errors[m->error]++;
		node_end(s, n, m->error);
	} else if (m->type == QNET_PREINIT_REPLY && n->state == GREETING) {
		node_preinit_reply(s, n, m);
	} else if (m->type == QNET_INIT_REPLY && n->state == JOINING) {
		node_init_reply(s, n, m);
	} else if (n->state != UP) {
		node_end(s, n, QNET_ERROR_UNEXPECTED_MESSAGE);
	} else if (m->type == QNET_ECHO_REPLY) {
		node_echo_reply(s, n, m);
	} else if (m->type == QNET_VOTE_INFO) {
		node_put(n, &(struct qnet_message){.type = QNET_VOTE_INFO_REPLY, .seq = m->seq});
		node_vote(s, n, m);
	} else if (m->type == QNET_NODE_LIST_REPLY || m->type == QNET_HEURISTICS_CHANGE_REPLY) {
		node_vote(s, n, m);
	} else if (m->type != QNET_SET_OPTION_REPLY) {
		node_end(s, n, QNET_ERROR_UNEXPECTED_MESSAGE);
	}
}

static void node_parse(struct site_nodes *s, struct node *n)
{
	struct qnet_message m;
	size_t used = 0;

	while (n->fd >= 0 && n->state != HANDSHAKE && n->in.len - used >= QNET_HEAD) {
		size_t len = QNET_HEAD + (size_t)qnet_head_read(n->in.data + used).body;

		if (len > QNET_MESSAGE_MAX) {
			node_fail(s, n, "a message that is too long");
			return;
		}
		if (n->in.len - used < len)
			break;
		if (qnet_decode(n->in.data + used, len, &m) != 0 || !qnet_complete(&m)) {
			node_fail(s, n, "an undecodable message");
			return;
		}
		used += len;
		node_message(s, n, &m);
	}
	if (n->fd >= 0) {
		buf_consume(&n->in, used);
		node_flush(s, n);
	}
}

static ssize_t node_receive(struct node *n, uint8_t *data)
{
	int rv;
	int error;

	if (n->ssl == NULL)
		return recv(n->fd, data, READ_MAX, 0);
	ERR_clear_error();
	rv = SSL_read(n->ssl, data, READ_MAX);
	if (rv > 0)
		return rv;
	error = SSL_get_error(n->ssl, rv);
	if (error == SSL_ERROR_ZERO_RETURN)
		return 0;
	errno = error == SSL_ERROR_WANT_READ ? EAGAIN : ECONNRESET;
	return -1;
}

static void node_read(struct site_nodes *s, struct node *n)
{
	static uint8_t data[READ_MAX];

	for (;;) {
		ssize_t len = node_receive(n, data);

		if (len < 0 && errno == EAGAIN)
			return;
		if (len <= 0) {
			node_fail(s, n, len == 0 ? "closed by the witness" : strerror(errno));
			return;
		}
		buf_append(&n->in, data, (size_t)len);
		node_parse(s, n);
		if (n->fd < 0 || n->state == HANDSHAKE || n->ssl == NULL)
			return;
	}
}

static void node_ready(struct site_nodes *s, struct node *n, uint32_t events)
{
	if (n->fd < 0 || n->muted)
		return;
	if (n->state == CONNECTING) {
		node_connected(s, n);
		return;
	}
	if (n->state == HANDSHAKE) {
		node_handshake(s, n);
		return;
	}
	if ((events & EPOLLOUT) != 0)
		node_flush(s, n);
	if (n->fd >= 0 && (events & ~(uint32_t)EPOLLOUT) != 0)
		node_read(s, n);
}

/* --- time --- */

static void node_echo(struct site_nodes *s, struct node *n, uint64_t now_us)
{
	if (n->echo_us != 0) {
		s->counts.echo_late++;
		node_fail(s, n, "no answer to the last echo");
		return;
	}
	n->echo_us = now_us;
	s->due_us[n - s->nodes] += (uint64_t)s->options.heartbeat_ms * 1000;
	node_put(n, &(struct qnet_message){.type = QNET_ECHO_REQUEST, .seq = ++n->echo_seq});
	node_flush(s, n);
}

static void node_due(struct site_nodes *s, struct node *n, uint64_t now_us)
{
	switch (n->state) {
	case SLEEP:
		if (n->muted)
			node_sleep(s, n, s->options.heartbeat_ms);
		else if (s->options.in_flight == 0 || s->in_flight < s->options.in_flight)
			node_try(s, n);
		break;
	case CONNECTING:
		node_connect_failed(s, n, ETIMEDOUT);
		break;
	case GREETING:
	case HANDSHAKE:
	case JOINING:
		node_fail(s, n, "the witness did not answer in time");
		break;
	case UP:
		node_echo(s, n, now_us);
		break;
	case IDLE:
	case GONE:
		s->due_us[n - s->nodes] = UINT64_MAX;
		break;
	}
}

static void scan_due(struct site_nodes *s)
{
	uint64_t now_us = site_nodes_now_us();

	for (unsigned i = 0; i < 2 * s->on; i++)
		if (s->due_us[i] <= now_us)
			node_due(s, &s->nodes[i], now_us);
}

bool site_nodes_poll(struct site_nodes *s, int timeout_ms, int extra_fd)
{
	struct epoll_event *events = s->events;
	struct epoll_event extra = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
	bool readable = false;
	int count;

	if (extra_fd >= 0)
		epoll_ctl(s->epoll, EPOLL_CTL_ADD, extra_fd, &extra);
	count = epoll_wait(s->epoll, events, (int)(2 * s->options.sites + 1),
			   timeout_ms < SCAN_MS ? timeout_ms : SCAN_MS);
	s->turn++;
	for (int i = 0; i < count; i++)
		if (events[i].data.u32 != UINT32_MAX && !s->nodes[events[i].data.u32].muted)
			s->nodes[events[i].data.u32].turn = s->turn;
	if (extra_fd >= 0)
		epoll_ctl(s->epoll, EPOLL_CTL_DEL, extra_fd, NULL);
	for (int i = 0; i < count; i++) {
		if (events[i].data.u32 == UINT32_MAX)
			readable = true;
		else
			node_ready(s, &s->nodes[events[i].data.u32], events[i].events);
	}
	scan_due(s);
	return readable;
}

/* --- what happens to sites --- */

/* Corosync of this node has formed a new ring. */
static void node_ring(struct site_nodes *s, struct node *n, uint32_t representative, uint64_t seq,
		      bool alone)
{
	n->ring = (struct qnet_ring){representative, seq};
	n->alone = alone;
	n->quorate_sent = -1;
	if (n->state == UP) {
		put_membership(n);
		node_flush(s, n);
	}
}

static void site_split(struct site_nodes *s, unsigned index)
{
	struct site *site = &s->sites[index];

	site->seq += 4;
	site->split_us = site_nodes_now_us();
	node_ring(s, &s->nodes[2 * index], 1, site->seq, true);
	node_ring(s, &s->nodes[2 * index + 1], 2, site->seq, true);
	site_update(s, index);
}

static bool site_is_split(const struct site_nodes *s, unsigned index)
{
	return s->nodes[2 * index].alone;
}

static unsigned split_share(struct site_nodes *s, unsigned percent, bool unplug)
{
	unsigned done = 0;

	for (unsigned i = 0; i < s->on; i++) {
		if (site_is_split(s, i) || !prng_chance(&s->prng, percent))
			continue;
		if (unplug)
			s->nodes[2 * i].muted = true;
		site_split(s, i);
		done++;
	}
	return done;
}

unsigned site_nodes_split(struct site_nodes *s, unsigned percent)
{
	return split_share(s, percent, false);
}

unsigned site_nodes_unplug(struct site_nodes *s, unsigned percent)
{
	return split_share(s, percent, true);
}

static void node_unmute(struct site_nodes *s, struct node *n)
{
	if (!n->muted)
		return;
	n->muted = false;
	if (n->dead_fd >= 0)
		close(n->dead_fd);
	n->dead_fd = -1;
	if (n->fd >= 0)
		node_flush(s, n);
	else
		node_sleep(s, n, 0);
}

void site_nodes_heal(struct site_nodes *s)
{
	for (unsigned i = 0; i < s->on; i++) {
		struct node *a = &s->nodes[2 * i];

		node_unmute(s, a);
		node_unmute(s, a + 1);
		if (!site_is_split(s, i))
			continue;
		s->sites[i].seq += 4;
		s->sites[i].split_us = 0;
		node_ring(s, a, 1, s->sites[i].seq, false);
		node_ring(s, a + 1, 1, s->sites[i].seq, false);
		site_update(s, i);
	}
}

void site_nodes_reset(struct site_nodes *s)
{
	struct linger at_once = {.l_onoff = 1};

	for (unsigned i = 0; i < 2 * s->on; i++) {
		struct node *n = &s->nodes[i];

		if (n->fd < 0 || n->muted)
			continue;
		setsockopt(n->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
		node_fail(s, n, "reset by ourselves");
	}
}

void site_nodes_attach(struct site_nodes *s, unsigned sites)
{
	for (; s->on < sites && s->on < s->options.sites; s->on++) {
		struct site *site = &s->sites[s->on];

		site->seq = 4;
		for (unsigned i = 2 * s->on; i < 2 * s->on + 2; i++) {
			s->nodes[i].ring = (struct qnet_ring){1, site->seq};
			node_sleep(s, &s->nodes[i], 0);
		}
		site->view = SITE_LOOSE;
	}
}

/* --- what is asked --- */

void site_nodes_counts(const struct site_nodes *s, struct site_nodes_counts *ret)
{
	*ret = s->counts;
	memset(ret->views, 0, sizeof(ret->views));
	for (unsigned i = 0; i < s->options.sites; i++)
		ret->views[s->sites[i].view]++;
	ret->connecting = s->in_flight;
}

bool site_nodes_settled(const struct site_nodes *s)
{
	for (unsigned i = 0; i < s->on; i++)
		if (s->sites[i].view != SITE_WHOLE && s->sites[i].view != SITE_ONE)
			return false;
	return true;
}

static const char *node_word(const struct node *n)
{
	if (holds_now(n))
		return "has the vote";
	if (holds_any(n))
		return "waits (had the vote)";
	if (n->state == UP)
		return "no vote";
	return n->state == GONE ? "ended" : "not attached";
}

void site_nodes_print(const struct site_nodes *s, unsigned first, unsigned count, FILE *out)
{
	static const char *const words[SITE_VIEWS] = {
		[SITE_IDLE] = "not started",	  [SITE_WHOLE] = "whole",
		[SITE_LOOSE] = "without witness", [SITE_ONE] = "split, one side",
		[SITE_NONE] = "split, no side",	  [SITE_BOTH] = "SPLIT, BOTH SIDES",
	};

	for (unsigned i = first; i < s->options.sites && i - first < count; i++) {
		const struct node *n = &s->nodes[2 * i];

		fprintf(out, "%-24s %-18s", s->sites[i].name, words[s->sites[i].view]);
		for (unsigned k = 0; k < 2; k++, n++)
			fprintf(out, "  node %u: %-20s %-22s", n->id, node_word(n),
				n->state == UP ? s->options.addresses[n->address] : "-");
		fputc('\n', out);
	}
}

struct samples *site_nodes_attach_times(struct site_nodes *s)
{
	return &s->attach_times;
}

struct samples *site_nodes_echo_times(struct site_nodes *s)
{
	return &s->echo_times;
}

struct samples *site_nodes_split_times(struct site_nodes *s)
{
	return &s->split_times;
}

void site_nodes_clear(struct site_nodes *s)
{
	s->attach_times.count = 0;
	s->echo_times.count = 0;
	s->split_times.count = 0;
}

/* --- set-up --- */

static int resolve(struct site_nodes *s, char **ret_message)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};

	for (; s->options.addresses[s->address_count] != NULL; s->address_count++) {
		const char *text = s->options.addresses[s->address_count];
		const char *colon = strrchr(text, ':');
		struct addrinfo *found = NULL;
		char *host;

		if (s->address_count == SITE_ADDRESSES || colon == NULL) {
			*ret_message = mem_printf("%s: at most %d addresses of the form HOST:PORT",
						  text, SITE_ADDRESSES);
			return -EINVAL;
		}
		host = text[0] == '[' ? mem_strndup(text + 1, (size_t)(colon - text) - 2)
				      : mem_strndup(text, (size_t)(colon - text));
		if (getaddrinfo(host, colon + 1, &hints, &found) != 0) {
			*ret_message = mem_printf("%s: not a numeric address", text);
			free(host);
			return -EINVAL;
		}
		memcpy(&s->addresses[s->address_count], found->ai_addr, found->ai_addrlen);
		s->address_lens[s->address_count] = found->ai_addrlen;
		freeaddrinfo(found);
		free(host);
	}
	return 0;
}

static X509 *read_cert(const char *path)
{
	FILE *f = fopen(path, "re");
	X509 *cert = f != NULL ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;

	if (f != NULL)
		fclose(f);
	return cert;
}

static EVP_PKEY *read_key(const char *path)
{
	FILE *f = fopen(path, "re");
	EVP_PKEY *key = f != NULL ? PEM_read_PrivateKey(f, NULL, NULL, NULL) : NULL;

	if (f != NULL)
		fclose(f);
	return key;
}

static X509 *make_cert(const char *name, EVP_PKEY *key, X509 *ca, EVP_PKEY *ca_key)
{
	X509 *cert = X509_new();
	X509_NAME *subject = X509_NAME_new();
	BIGNUM *serial = BN_new();

	BN_set_word(serial, rng_u64() >> 1 | 1);
	BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(cert));
	BN_free(serial);
	X509_set_version(cert, X509_VERSION_3);
	X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const uint8_t *)name, -1, -1, 0);
	X509_set_subject_name(cert, subject);
	X509_NAME_free(subject);
	X509_set_issuer_name(cert, X509_get_subject_name(ca));
	X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
	X509_gmtime_adj(X509_getm_notAfter(cert), 86400L * 365);
	X509_set_pubkey(cert, key);
	if (X509_sign(cert, ca_key, EVP_sha256()) == 0) {
		X509_free(cert);
		return NULL;
	}
	return cert;
}

static int load_site_cert(struct site_nodes *s, struct site *site, X509 *ca, EVP_PKEY *ca_key,
			  char **ret_message)
{
	char *cert_path = NULL;
	char *key_path = NULL;

	if (ca_key != NULL) {
		site->cert = make_cert(site->name, s->key, ca, ca_key);
	} else if (s->options.cert_dir != NULL) {
		cert_path = mem_printf("%s/%s.crt", s->options.cert_dir, site->name);
		key_path = mem_printf("%s/%s.key", s->options.cert_dir, site->name);
		site->cert = read_cert(cert_path);
		site->key = read_key(key_path);
	} else if (s->options.cert != NULL) {
		site->cert = read_cert(s->options.cert);
		site->key = read_key(s->options.key);
	} else {
		return 0;
	}
	if (site->cert == NULL || (ca_key == NULL && site->key == NULL))
		*ret_message = mem_printf("no certificate and key for %s: looked in %s", site->name,
					  cert_path != NULL ? cert_path
					  : ca_key != NULL  ? s->options.ca_key
							    : s->options.cert);
	free(cert_path);
	free(key_path);
	return *ret_message != NULL ? -EINVAL : 0;
}

int site_nodes_recertify(struct site_nodes *s, unsigned site)
{
	char *message = NULL;
	X509 *old_cert;
	EVP_PKEY *old_key;

	if (s->tls == NULL || s->options.cert_dir == NULL || site >= s->options.sites)
		return -EINVAL;
	old_cert = s->sites[site].cert;
	old_key = s->sites[site].key;
	if (load_site_cert(s, &s->sites[site], NULL, NULL, &message) != 0) {
		X509_free(s->sites[site].cert);
		EVP_PKEY_free(s->sites[site].key);
		s->sites[site].cert = old_cert;
		s->sites[site].key = old_key;
		free(message);
		return -EINVAL;
	}
	/* A handshake under way has references of its own. */
	X509_free(old_cert);
	EVP_PKEY_free(old_key);
	return 0;
}

static int load_tls(struct site_nodes *s, char **ret_message)
{
	X509 *ca = NULL;
	EVP_PKEY *ca_key = NULL;
	int rv = 0;

	s->tls = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_mode(s->tls, SSL_MODE_ENABLE_PARTIAL_WRITE |
					 SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					 SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_session_cache_mode(s->tls, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_verify(s->tls, SSL_VERIFY_PEER, NULL);
	if (s->options.ca == NULL || (ca = read_cert(s->options.ca)) == NULL ||
	    SSL_CTX_load_verify_locations(s->tls, s->options.ca, NULL) != 1) {
		*ret_message = mem_printf("TLS needs the witness's CA certificate (PEM): %s",
					  s->options.ca != NULL ? s->options.ca : "--ca FILE");
		rv = -EINVAL;
	}
	if (rv == 0 && s->options.ca_key != NULL) {
		ca_key = read_key(s->options.ca_key);
		s->key = EVP_EC_gen("P-256");
		if (ca_key == NULL) {
			*ret_message = mem_printf("%s: no private key in PEM", s->options.ca_key);
			rv = -EINVAL;
		}
	}
	for (unsigned i = 0; rv == 0 && i < s->options.sites; i++)
		rv = load_site_cert(s, &s->sites[i], ca, ca_key, ret_message);
	X509_free(ca);
	EVP_PKEY_free(ca_key);
	return rv;
}

int site_nodes_new(const struct site_nodes_options *options, struct site_nodes **ret,
		   char **ret_message)
{
	struct site_nodes *s = mem_zalloc(sizeof(*s));
	int rv;

	*ret_message = NULL;
	signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
	s->options = *options;
	s->prng.state = options->seed;
	s->start_us = site_nodes_now_us();
	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	s->sites = mem_array(options->sites, sizeof(*s->sites));
	s->nodes = mem_array(2 * (size_t)options->sites, sizeof(*s->nodes));
	s->due_us = mem_array(2 * (size_t)options->sites, sizeof(*s->due_us));
	s->events = mem_array(2 * (size_t)options->sites + 1, sizeof(*s->events));
	for (unsigned i = 0; i < options->sites; i++)
		s->sites[i].name = options->names != NULL
					   ? mem_strdup(options->names[i])
					   : mem_printf("%s%04u", options->prefix, i + 1);
	for (unsigned i = 0; i < 2 * options->sites; i++) {
		s->nodes[i] = (struct node){.site = i / 2,
					    .id = i % 2 + 1,
					    .fd = -1,
					    .dead_fd = -1,
					    .quorate_sent = -1};
		s->due_us[i] = UINT64_MAX;
	}
	rv = resolve(s, ret_message);
	if (rv == 0 && options->tls)
		rv = load_tls(s, ret_message);
	if (rv != 0) {
		site_nodes_free(s);
		return rv;
	}
	*ret = s;
	return 0;
}

void site_nodes_free(struct site_nodes *s)
{
	if (s == NULL)
		return;
	for (unsigned i = 0; i < 2 * s->options.sites; i++) {
		node_drop(s, &s->nodes[i]);
		if (s->nodes[i].dead_fd >= 0)
			close(s->nodes[i].dead_fd);
	}
	for (unsigned i = 0; i < s->options.sites; i++) {
		free(s->sites[i].name);
		X509_free(s->sites[i].cert);
		EVP_PKEY_free(s->sites[i].key);
	}
	SSL_CTX_free(s->tls);
	EVP_PKEY_free(s->key);
	close(s->epoll);
	free(s->sites);
	free(s->nodes);
	free(s->due_us);
	free(s->events);
	free(s->attach_times.us);
	free(s->echo_times.us);
	free(s->split_times.us);
	free(s);
}
