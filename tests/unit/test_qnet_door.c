/* The site door on real loopback sockets, with a fake arbiter and a clock in the test's hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/mem.h"
#include "tests/unit/test_certs.h"
#include "witnessd/core.h"
#include "witnessd/qnet_door.h"

enum { WAIT_S = 60, HEARTBEAT_MS = 1000, STEP_MS = 2500 };
#define SEQ QNET_HAS(QNET_OPT_SEQ)

/* --- the board around the door --- */

struct board {
	struct qnet_door *door;
	struct core_view view;
	_Atomic uint64_t now_ms;
	_Atomic unsigned looks; /* at the clock */
	pthread_mutex_t lock;
	pthread_cond_t more;
	Tb__DoorEvent **events;
	size_t count;
	size_t seen;
	_Atomic int policy_tls;
	_Atomic bool known;
	_Atomic bool keys;
	_Atomic int revoked;
	_Atomic int concerns;
	_Atomic bool rotating; /* old_ca is believed too */
	_Atomic int secrets_fail; /* so often they cannot be read */
	struct test_cert old_ca;
	struct test_cert ca;
	struct test_cert server;
};

static uint64_t board_clock(void *arg)
{
	struct board *b = arg;

	b->looks++;
	return b->now_ms;
}

static void board_events(void *arg, Tb__DoorEvent **events, size_t count)
{
	struct board *b = arg;

	pthread_mutex_lock(&b->lock);
	b->events = mem_realloc(b->events, (b->count + count) * sizeof(*events));
	memcpy(b->events + b->count, events, count * sizeof(*events));
	b->count += count;
	pthread_cond_broadcast(&b->more);
	pthread_mutex_unlock(&b->lock);
	free(events);
}

static int board_site(void *arg, const char *name, Tb__SitePolicy **ret)
{
	struct board *b = arg;

	if (!b->known || strcmp(name, "labcluster") != 0)
		return -ENOENT;
	*ret = mem_alloc(sizeof(**ret));
	tb__site_policy__init(*ret);
	(*ret)->tls = (Tb__Tls)b->policy_tls;
	return 0;
}

static int board_revoked(void *arg, const char *serial)
{
	(void)serial;
	return ((struct board *)arg)->revoked;
}

static int board_secrets(void *arg, Tb__Secrets **ret)
{
	struct board *b = arg;

	if (!b->keys)
		return -ENOENT;
	if (b->secrets_fail > 0) {
		b->secrets_fail--;
		return -EIO;
	}
	*ret = mem_alloc(sizeof(**ret));
	tb__secrets__init(*ret);
	(*ret)->qnet_ca_cert = mem_strdup(b->ca.pem);
	(*ret)->qnet_cert = mem_strdup(b->server.pem);
	(*ret)->qnet_key = mem_strdup(b->server.key);
	if (b->rotating) {
		(*ret)->old_qnet_ca_cert = mem_strdup(b->old_ca.pem);
		(*ret)->qnet_bridge_cert = mem_strdup(b->ca.pem); /* another chain than without */
	}
	return 0;
}

static int board_concerns(void *arg)
{
	return ((struct board *)arg)->concerns;
}

static struct qnet_door_upcalls board_upcalls(struct board *b)
{
	return (struct qnet_door_upcalls){.arg = b,
					  .events = board_events,
					  .view = &b->view,
					  .site = board_site,
					  .revoked = board_revoked,
					  .secrets = board_secrets,
					  .concerns = board_concerns};
}

/* Until the door's loop has turned: it reads the clock at every tick. */
static void board_turn(struct board *b)
{
	unsigned before = b->looks;
	const struct timespec moment = {.tv_nsec = 1000000};

	for (unsigned i = 0; b->looks - before < 4; i++) {
		assert_true(i < WAIT_S * 1000);
		nanosleep(&moment, NULL);
	}
}

/* In steps that no watcher could take for a standstill; the lease keeps pace. */
static void board_pass(struct board *b, uint64_t ms)
{
	for (uint64_t left = ms; left != 0;) {
		uint64_t step = left < STEP_MS ? left : STEP_MS;

		b->view.lease_until_ms += step;
		b->now_ms += step;
		left -= step;
		board_turn(b);
	}
}

static void board_serve(struct board *b)
{
	const struct timespec moment = {.tv_nsec = 1000000};

	b->view.lease_until_ms = b->now_ms + 3000;
	qnet_door_serve(b->door, true);
	for (unsigned i = 0; qnet_door_port(b->door) == 0; i++) {
		assert_true(i < WAIT_S * 1000);
		nanosleep(&moment, NULL);
	}
}

static struct board *board_new_of(enum qnet_tls tls, bool keys, struct qnet_door_config config)
{
	struct board *b = mem_zalloc(sizeof(*b));
	const struct qnet_door_upcalls upcalls[] = {board_upcalls(b), board_upcalls(b),
						    board_upcalls(b)};
	const char *message = NULL;

	signal(SIGPIPE, SIG_IGN); /* of the TLS client below */
	config.listen = "127.0.0.1:0";
	config.tls = tls;
	config.client_certificate = true;
	config.sessions_max = 100;
	config.clock_ms = board_clock;
	config.clock_arg = b;
	b->now_ms = 50000;
	b->known = true;
	b->keys = keys && tls != QNET_TLS_UNSUPPORTED;
	b->view.node_id = 3;
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->more, NULL);
	if (tls != QNET_TLS_UNSUPPORTED) {
		b->ca = test_cert_new("QNet CA", NULL, NULL, -3600, 36000, 0);
		b->server = test_cert_new("Qnetd Server", &b->ca, NULL, -3600, 36000, 0);
	}
	assert_int_equal(qnet_door_start_in(&config, upcalls, &b->door, &message), 0);
	qnet_door_identity(b->door);
	return b;
}

static struct board *board_new_with(enum qnet_tls tls, unsigned per_address, bool keys)
{
	return board_new_of(tls, keys,
			    (struct qnet_door_config){.sessions_per_address_max = per_address});
}

static struct board *board_new(enum qnet_tls tls, unsigned per_address)
{
	return board_new_with(tls, per_address, true);
}

static const Tb__DoorEvent *board_event(struct board *b, Tb__DoorEvent__WhatCase what)
{
	struct timespec until;
	const Tb__DoorEvent *event = NULL;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	pthread_mutex_lock(&b->lock);
	while (b->seen == b->count && pthread_cond_timedwait(&b->more, &b->lock, &until) == 0)
		;
	if (b->seen < b->count)
		event = b->events[b->seen++];
	pthread_mutex_unlock(&b->lock);
	assert_non_null(event);
	assert_int_equal(event->what_case, what);
	return event;
}

static void board_free(struct board *b)
{
	qnet_door_stop(b->door);
	for (size_t i = 0; i < b->count; i++)
		tb__door_event__free_unpacked(b->events[i], NULL);
	free(b->events);
	if (b->ca.pem != NULL) {
		test_cert_free(&b->ca);
		test_cert_free(&b->server);
	}
	free(b);
}

static Tb__DoorOrder *order_new(uint64_t session, Tb__DoorOrder__WhatCase what)
{
	Tb__DoorOrder *o = mem_alloc(sizeof(*o));

	tb__door_order__init(o);
	o->session = session;
	o->what_case = what;
	return o;
}

static void board_order(struct board *b, Tb__DoorOrder *o)
{
	Tb__DoorOrder **orders = mem_alloc(sizeof(Tb__DoorOrder *));

	*orders = o;
	qnet_door_orders(b->door, orders, 1);
}

static void board_accept(struct board *b, uint64_t session, uint32_t error)
{
	Tb__DoorOrder *o = order_new(session, TB__DOOR_ORDER__WHAT_INIT_REPLY);

	o->init_reply = mem_alloc(sizeof(*o->init_reply));
	tb__door_init_reply__init(o->init_reply);
	o->init_reply->seq = 2;
	o->init_reply->error = error;
	board_order(b, o);
}

static void board_vote(struct board *b, uint64_t session, Tb__Vote vote)
{
	Tb__DoorOrder *o = order_new(session, TB__DOOR_ORDER__WHAT_VOTE);

	o->vote = mem_alloc(sizeof(*o->vote));
	tb__door_vote__init(o->vote);
	o->vote->ticket = 900;
	o->vote->vote = vote;
	board_order(b, o);
}

/* --- a client that blocks --- */

struct client {
	int fd;
	SSL_CTX *context;
	SSL *ssl;
	SSL_SESSION *ticket; /* to come back with; NULL: none */
};

static int client_connect_error(unsigned port, int *ret_fd)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct timeval limit = {.tv_sec = WAIT_S};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0) {
		int error = errno;

		close(fd);
		return error;
	}
	*ret_fd = fd;
	return 0;
}

static struct client client_new(struct board *b)
{
	struct client c = {.fd = -1};

	assert_int_equal(client_connect_error(qnet_door_port(b->door), &c.fd), 0);
	return c;
}

static void client_free(struct client *c)
{
	SSL_free(c->ssl);
	SSL_CTX_free(c->context);
	if (c->fd >= 0)
		close(c->fd);
}

static void client_send(struct client *c, const void *data, size_t len)
{
	if (c->ssl != NULL)
		assert_int_equal(SSL_write(c->ssl, data, (int)len), len);
	else
		assert_int_equal(send(c->fd, data, len, MSG_NOSIGNAL), len);
}

static void client_say(struct client *c, const struct qnet_message *m)
{
	struct buf wire = {0};

	qnet_encode(m, &wire);
	client_send(c, wire.data, wire.len);
	buf_free(&wire);
}

/* 1..: bytes; 0: closed in order; negative: errno. */
static ssize_t client_take(struct client *c, void *data, size_t len)
{
	ssize_t got = c->ssl != NULL ? SSL_read(c->ssl, data, (int)len) : recv(c->fd, data, len, 0);

	return got >= 0 ? got : -errno;
}

static struct qnet_message client_hear(struct client *c, uint16_t type)
{
	static uint8_t bytes[QNET_MESSAGE_MAX];
	struct qnet_message m = {0};
	size_t want = QNET_HEAD;

	for (size_t have = 0; have < want;) {
		ssize_t got = client_take(c, bytes + have, want - have);

		if (got <= 0)
			fail_msg("the connection ended (%zd), wanted %s", got,
				 qnet_type_name(type));
		have += (size_t)got;
		if (have == QNET_HEAD)
			want += qnet_head_read(bytes).body;
	}
	assert_int_equal(qnet_decode(bytes, want, &m), 0);
	assert_int_equal(m.type, type);
	return m;
}

/* The connection ends; nothing more is said before. Returns 0 (FIN) or -ECONNRESET. */
static ssize_t client_end(struct client *c)
{
	uint8_t byte;
	ssize_t got = c->ssl != NULL && SSL_is_init_finished(c->ssl) ? client_take(c, &byte, 1)
								     : recv(c->fd, &byte, 1, 0);

	if (got < 0 && c->ssl == NULL)
		got = -errno;
	assert_true(got <= 0);
	return got;
}

static void client_preinit(struct client *c)
{
	client_say(c, &(struct qnet_message){.type = QNET_PREINIT,
					     .has = SEQ | QNET_HAS(QNET_OPT_CLUSTER_NAME),
					     .seq = 1,
					     .name = (const uint8_t *)"labcluster",
					     .name_len = 10});
}

static void client_init(struct client *c)
{
	client_say(c, &(struct qnet_message){.type = QNET_INIT,
					     .has = SEQ | QNET_HAS(QNET_OPT_NODE_ID) |
						    QNET_HAS(QNET_OPT_ALGORITHM) |
						    QNET_HAS(QNET_OPT_HEARTBEAT_INTERVAL) |
						    QNET_HAS(QNET_OPT_TIE_BREAKER) |
						    QNET_HAS(QNET_OPT_RING_ID),
					     .seq = 2,
					     .node_id = 1,
					     .algorithm = QNET_ALGORITHM_FFSPLIT,
					     .heartbeat_ms = HEARTBEAT_MS,
					     .tie_breaker = QNET_TIE_LOWEST,
					     .ring = {1, 5}});
}

static uint64_t client_open(struct board *b, struct client *c)
{
	uint64_t session;

	client_preinit(c);
	client_hear(c, QNET_PREINIT_REPLY);
	client_init(c);
	session = board_event(b, TB__DOOR_EVENT__WHAT_OPEN)->session;
	board_accept(b, session, 0);
	assert_int_equal(client_hear(c, QNET_INIT_REPLY).error, 0);
	return session;
}

static void client_echo(struct client *c, uint32_t seq)
{
	client_say(c, &(struct qnet_message){.type = QNET_ECHO_REQUEST, .has = SEQ, .seq = seq});
}

/* STARTTLS and the ClientHello leave in one segment, as real clients do it. 1: the handshake is
 * over on our side; else what SSL_connect said. */
static int client_start_tls(struct board *b, struct client *c, const struct test_cert *cert)
{
	struct buf wire = {0};
	BIO *in = BIO_new(BIO_s_mem());
	BIO *out = BIO_new(BIO_s_mem());
	char *hello;
	long len;

	c->context = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_verify(c->context, SSL_VERIFY_PEER, NULL);
	X509_STORE_add_cert(SSL_CTX_get_cert_store(c->context), b->ca.public);
	c->ssl = SSL_new(c->context);
	if (cert != NULL) {
		SSL_use_certificate(c->ssl, cert->public);
		SSL_use_PrivateKey(c->ssl, cert->private);
	}
	if (c->ticket != NULL)
		SSL_set_session(c->ssl, c->ticket);
	SSL_set_bio(c->ssl, in, out);
	SSL_connect(c->ssl);
	len = BIO_get_mem_data(out, &hello);
	qnet_encode(&(struct qnet_message){.type = QNET_STARTTLS, .has = SEQ, .seq = 2}, &wire);
	buf_append(&wire, hello, (size_t)len);
	assert_int_equal(send(c->fd, wire.data, wire.len, MSG_NOSIGNAL), wire.len);
	buf_free(&wire);
	SSL_set_fd(c->ssl, c->fd);
	return SSL_connect(c->ssl);
}

static void expect_closed(struct board *b, Tb__DoorClosed__Reason reason)
{
	assert_int_equal(board_event(b, TB__DOOR_EVENT__WHAT_CLOSED)->closed->reason, reason);
}

/* --- cases --- */

static void test_transcript(void **state)
{
	struct board *b = board_new(QNET_TLS_UNSUPPORTED, 0);
	struct qnet_door_stats stats;
	struct client c;
	uint64_t session;

	(void)state;
	board_serve(b);
	c = client_new(b);
	client_preinit(&c);
	assert_int_equal(client_hear(&c, QNET_PREINIT_REPLY).tls_supported, QNET_TLS_UNSUPPORTED);
	client_init(&c);
	session = board_event(b, TB__DOOR_EVENT__WHAT_OPEN)->session;
	board_accept(b, session, 0);
	client_hear(&c, QNET_INIT_REPLY);
	client_echo(&c, 1);
	assert_int_equal(client_hear(&c, QNET_ECHO_REPLY).seq, 1);
	board_vote(b, session, TB__VOTE__VOTE_ACK);
	assert_int_equal(client_hear(&c, QNET_VOTE_INFO).vote, QNET_VOTE_ACK);
	client_say(&c, &(struct qnet_message){.type = QNET_VOTE_INFO_REPLY, .has = SEQ, .seq = 1});
	assert_int_equal(board_event(b, TB__DOOR_EVENT__WHAT_VOTE_REPLY)->vote_reply->ticket, 900);
	qnet_door_stats(b->door, &stats);
	assert_int_equal(stats.sessions[QNET_OPEN], 1);
	assert_int_equal(stats.accepted, 1);
	assert_int_equal(stats.echoes, 1);
	client_free(&c);
	expect_closed(b, TB__DOOR_CLOSED__REASON__BY_CLIENT);
	board_free(b);
}

static void test_reset_by_the_client(void **state)
{
	struct linger at_once = {.l_onoff = 1};
	struct board *b = board_new(QNET_TLS_UNSUPPORTED, 0);
	struct client c;

	(void)state;
	board_serve(b);
	c = client_new(b);
	client_open(b, &c);
	setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	client_free(&c);
	expect_closed(b, TB__DOOR_CLOSED__REASON__BY_CLIENT);
	board_free(b);
}

static void test_refused_by_the_arbiter(void **state)
{
	struct board *b = board_new(QNET_TLS_UNSUPPORTED, 0);
	struct client c;

	(void)state;
	board_serve(b);
	c = client_new(b);
	client_preinit(&c);
	client_hear(&c, QNET_PREINIT_REPLY);
	client_init(&c);
	board_accept(b, board_event(b, TB__DOOR_EVENT__WHAT_OPEN)->session, 17);
	assert_int_equal(client_hear(&c, QNET_INIT_REPLY).error, 17);
	client_free(&c);
	board_free(b);
}

static void test_no_lease_no_listener(void **state)
{
	struct board *b = board_new(QNET_TLS_UNSUPPORTED, 0);
	struct qnet_door_stats stats;
	struct client c;
	unsigned port;
	int fd;

	(void)state;
	board_turn(b);
	assert_int_equal(qnet_door_port(b->door), 0);
	board_serve(b);
	port = qnet_door_port(b->door);
	c = client_new(b);
	client_open(b, &c);
	qnet_door_serve(b->door, false);
	expect_closed(b, TB__DOOR_CLOSED__REASON__BY_DOOR);
	assert_int_equal(client_end(&c), -ECONNRESET);
	assert_int_equal(client_connect_error(port, &fd), ECONNREFUSED);
	client_free(&c);
	qnet_door_stats(b->door, &stats);
	assert_int_equal(stats.leases_lost, 1);
	board_serve(b);
	c = client_new(b);
	client_open(b, &c);
	client_free(&c);
	expect_closed(b, TB__DOOR_CLOSED__REASON__BY_CLIENT);
	board_free(b);
}

/* A drained board keeps who is there, lease and all, and refuses who comes. */
static void test_drained(void **state)
{
	struct board *b = board_new(QNET_TLS_UNSUPPORTED, 0);
	struct client here;
	struct client c;
	unsigned port;
	int fd;

	(void)state;
	board_serve(b);
	port = qnet_door_port(b->door);
	here = client_new(b);
	client_open(b, &here);
	qnet_door_admit(b->door, false);
	board_turn(b);
	assert_int_equal(qnet_door_port(b->door), 0);
	assert_int_equal(client_connect_error(port, &fd), ECONNREFUSED);
	client_echo(&here, 9);
	client_hear(&here, QNET_ECHO_REPLY);
	qnet_door_admit(b->door, true);
	board_serve(b);
	c = client_new(b);
	client_free(&c);
	/* Without a lease it is over for those as well, though no listener is to be closed. */
	qnet_door_admit(b->door, false);
	qnet_door_serve(b->door, false);
	expect_closed(b, TB__DOOR_CLOSED__REASON__BY_DOOR);
	assert_int_equal(client_end(&here), -ECONNRESET);
	client_free(&here);
	board_free(b);
}

/* A service address leaves the board: its sessions are told by a reset, the others stay. */
static void test_address_leaves(void **state)
{
	struct board *b = board_new(QNET_TLS_UNSUPPORTED, 0);
	struct client c;
	struct ip ip;

	(void)state;
	board_serve(b);
	c = client_new(b);
	client_open(b, &c);
	ip_parse("127.0.0.2", &ip);
	qnet_door_leave(b->door, &ip);
	client_echo(&c, 9);
	client_hear(&c, QNET_ECHO_REPLY);
	ip_parse("127.0.0.1", &ip);
	qnet_door_leave(b->door, &ip);
	expect_closed(b, TB__DOOR_CLOSED__REASON__BY_DOOR);
	assert_int_equal(client_end(&c), -ECONNRESET);
	client_free(&c);
	board_free(b);
}

/* Nobody says so, but the time is over: neither a heartbeat is answered nor an ACK sent, and a
 * door that has nothing to do notices by itself. */
static void test_lease_runs_out(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 3; how++) {
		struct board *b = board_new(QNET_TLS_UNSUPPORTED, 0);
		struct client c;
		uint64_t session;

		board_serve(b);
		c = client_new(b);
		session = client_open(b, &c);
		b->view.lease_until_ms = b->now_ms;
		if (how == 0)
			client_echo(&c, 1);
		else if (how == 1)
			board_vote(b, session, TB__VOTE__VOTE_ACK);
		expect_closed(b, TB__DOOR_CLOSED__REASON__BY_DOOR);
		assert_int_equal(client_end(&c), -ECONNRESET);
		client_free(&c);
		board_free(b);
	}
}

/* A process that stood still longer than a lease has lost it, whatever the core says meanwhile. */
static void test_standstill(void **state)
{
	struct board *b = board_new(QNET_TLS_UNSUPPORTED, 0);
	struct client c;

	(void)state;
	board_serve(b);
	c = client_new(b);
	client_open(b, &c);
	b->view.lease_until_ms += 10000;
	b->now_ms += 3100;
	expect_closed(b, TB__DOOR_CLOSED__REASON__BY_DOOR);
	assert_int_equal(client_end(&c), -ECONNRESET);
	client_free(&c);
	board_serve(b); /* and opens again by itself */
	board_free(b);
}

static void test_silence(void **state)
{
	struct board *b = board_new(QNET_TLS_UNSUPPORTED, 0);
	const Tb__DoorClosed *closed;
	struct qnet_door_stats stats;
	struct client c;

	(void)state;
	board_serve(b);
	c = client_new(b);
	client_open(b, &c);
	board_pass(b, 1800);
	client_echo(&c, 1);
	client_hear(&c, QNET_ECHO_REPLY);
	board_pass(b, 2200);
	qnet_door_stats(b->door, &stats);
	assert_int_equal(stats.silent, 0);
	board_pass(b, 300);
	closed = board_event(b, TB__DOOR_EVENT__WHAT_CLOSED)->closed;
	assert_int_equal(closed->reason, TB__DOOR_CLOSED__REASON__SILENT);
	assert_in_range(closed->heard_age_ms, 2270, 2270 + 250);
	assert_int_equal(client_end(&c), -ECONNRESET);
	qnet_door_stats(b->door, &stats);
	assert_int_equal(stats.silent, 1);
	client_free(&c);
	board_free(b);
}

static void test_half_open(void **state)
{
	struct board *b = board_new(QNET_TLS_UNSUPPORTED, 0);
	struct client silent;
	struct client c;

	(void)state;
	board_serve(b);
	c = client_new(b);
	silent = client_new(b);
	client_preinit(&c);
	client_hear(&c, QNET_PREINIT_REPLY);
	board_pass(b, QNET_HELLO_DEADLINE_MS + 200);
	assert_int_equal(client_end(&silent), 0);
	/* Saying hello again and again gives no more time. */
	for (unsigned i = 0; i < 3; i++) {
		client_preinit(&c);
		client_hear(&c, QNET_PREINIT_REPLY);
		board_pass(b, (QNET_INIT_DEADLINE_MS - QNET_HELLO_DEADLINE_MS) / 4);
	}
	board_pass(b, (QNET_INIT_DEADLINE_MS - QNET_HELLO_DEADLINE_MS) / 4);
	assert_int_equal(client_end(&c), 0);
	client_free(&silent);
	client_free(&c);
	board_free(b);
}

static void test_tls(void **state)
{
	struct board *b = board_new(QNET_TLS_SUPPORTED, 0);
	struct test_cert good = test_cert_new("labcluster", &b->ca, NULL, -3600, 36000, 0);
	const Tb__DoorEvent *asked;
	struct client c;

	(void)state;
	board_serve(b);
	c = client_new(b);
	client_preinit(&c);
	assert_int_equal(client_hear(&c, QNET_PREINIT_REPLY).tls_supported, QNET_TLS_SUPPORTED);
	assert_int_equal(client_start_tls(b, &c, &good), 1);
	client_init(&c);
	asked = board_event(b, TB__DOOR_EVENT__WHAT_OPEN);
	assert_true(asked->open->node->tls);
	assert_true(asked->open->node->certificate);
	board_accept(b, asked->session, 0);
	client_hear(&c, QNET_INIT_REPLY);
	client_echo(&c, 1);
	client_hear(&c, QNET_ECHO_REPLY);
	/* Revoked while it is attached. */
	b->revoked = true;
	b->concerns = true;
	qnet_door_model_changed(b->door, 5);
	expect_closed(b, TB__DOOR_CLOSED__REASON__BY_DOOR);
	client_end(&c);
	client_free(&c);
	test_cert_free(&good);
	board_free(b);
}

/* A model that cannot be read ends no session, and its news are not lost: the trail's, and those of
 * each session. */
static void test_unreadable(void **state)
{
	for (int of_trail = 0; of_trail < 2; of_trail++) {
		struct board *b = board_new(QNET_TLS_SUPPORTED, 0);
		struct test_cert good = test_cert_new("labcluster", &b->ca, NULL, -3600, 36000, 0);
		struct client c;

		(void)state;
		board_serve(b);
		c = client_new(b);
		client_preinit(&c);
		client_hear(&c, QNET_PREINIT_REPLY);
		assert_int_equal(client_start_tls(b, &c, &good), 1);
		client_init(&c);
		board_accept(b, board_event(b, TB__DOOR_EVENT__WHAT_OPEN)->session, 0);
		client_hear(&c, QNET_INIT_REPLY);
		b->concerns = of_trail ? -EIO : 1;
		b->revoked = of_trail ? 1 : -EIO;
		qnet_door_model_changed(b->door, 5);
		board_turn(b);
		if (!of_trail)
			b->concerns = 0; /* said once */
		board_pass(b, 1500);
		client_echo(&c, 1);
		client_hear(&c, QNET_ECHO_REPLY);
		if (of_trail)
			b->concerns = 1;
		b->revoked = 1;
		board_pass(b, 1500);
		expect_closed(b, TB__DOOR_CLOSED__REASON__BY_DOOR);
		client_end(&c);
		client_free(&c);
		test_cert_free(&good);
		board_free(b);
	}
}

/* A session ends with the CA that vouched for it, whatever its serial number; also when the keys
 * cannot be read at first. */
static void test_ca_ends(void **state)
{
	for (int fail = 0; fail < 2; fail++) {
		struct board *b = board_new_with(QNET_TLS_SUPPORTED, 0, false);
		struct test_cert certs[2];
		struct client c[2];

		(void)state;
		b->old_ca = test_cert_new("Old CA", NULL, NULL, -3600, 36000, 0);
		certs[0] = test_cert_new("labcluster", &b->old_ca, NULL, -3600, 36000, 0);
		certs[1] = test_cert_new("labcluster", &b->ca, NULL, -3600, 36000, 0);
		b->rotating = true;
		b->keys = true;
		qnet_door_model_changed(b->door, 4);
		board_serve(b);
		for (unsigned i = 0; i < 2; i++) {
			c[i] = client_new(b);
			client_preinit(&c[i]);
			client_hear(&c[i], QNET_PREINIT_REPLY);
			assert_int_equal(client_start_tls(b, &c[i], &certs[i]), 1);
			client_init(&c[i]);
			board_accept(b, board_event(b, TB__DOOR_EVENT__WHAT_OPEN)->session, 0);
			client_hear(&c[i], QNET_INIT_REPLY);
		}
		b->secrets_fail = fail;
		b->rotating = false;
		b->concerns = true;
		qnet_door_model_changed(b->door, 5);
		board_turn(b);
		b->concerns = false; /* said once */
		board_pass(b, 1500);
		expect_closed(b, TB__DOOR_CLOSED__REASON__BY_DOOR);
		client_end(&c[0]);
		client_echo(&c[1], 1);
		client_hear(&c[1], QNET_ECHO_REPLY);
		for (unsigned i = 0; i < 2; i++) {
			client_free(&c[i]);
			test_cert_free(&certs[i]);
		}
		test_cert_free(&b->old_ca);
		board_free(b);
	}
}

/* A client that comes back with a ticket is who it was, unless that has been revoked meanwhile. */
static void test_resumption(void **state)
{
	struct board *b = board_new(QNET_TLS_REQUIRED, 0);
	struct test_cert cert = test_cert_new("labcluster", &b->ca, NULL, -3600, 36000, 0);
	SSL_SESSION *ticket = NULL;
	struct qnet_door_stats stats;

	(void)state;
	board_serve(b);
	for (unsigned round = 0; round < 3; round++) {
		struct client c = client_new(b);
		const Tb__DoorEvent *asked;

		c.ticket = ticket;
		b->revoked = round == 2;
		client_preinit(&c);
		client_hear(&c, QNET_PREINIT_REPLY);
		/* Without the certificate: it is in the ticket. */
		assert_int_equal(client_start_tls(b, &c, round == 0 ? &cert : NULL), 1);
		assert_int_equal(SSL_session_reused(c.ssl), round != 0);
		client_init(&c);
		if (round == 2) {
			client_end(&c);
			client_free(&c);
			break;
		}
		asked = board_event(b, TB__DOOR_EVENT__WHAT_OPEN);
		assert_true(asked->open->node->certificate);
		board_accept(b, asked->session, 0);
		assert_int_equal(client_hear(&c, QNET_INIT_REPLY).error, 0);
		SSL_SESSION_free(ticket);
		ticket = SSL_get1_session(c.ssl);
		assert_true(SSL_SESSION_has_ticket(ticket));
		SSL_set_shutdown(c.ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
		client_free(&c);
		expect_closed(b, TB__DOOR_CLOSED__REASON__BY_CLIENT);
	}
	qnet_door_stats(b->door, &stats);
	assert_int_equal(stats.resumed, 2);
	assert_int_equal(stats.certificate_refused, 1);
	SSL_SESSION_free(ticket);
	test_cert_free(&cert);
	board_free(b);
}

/* In mode "on" a client that never asks for TLS is served, as by corosync-qnetd. */
static void test_tls_not_used(void **state)
{
	struct board *b = board_new(QNET_TLS_SUPPORTED, 0);
	struct client c;

	(void)state;
	board_serve(b);
	c = client_new(b);
	client_open(b, &c);
	b->policy_tls = TB__TLS__TLS_REQUIRED; /* until the site demands it */
	b->concerns = true;
	qnet_door_model_changed(b->door, 5);
	expect_closed(b, TB__DOOR_CLOSED__REASON__BY_DOOR);
	client_free(&c);
	c = client_new(b);
	client_preinit(&c);
	assert_int_equal(client_hear(&c, QNET_PREINIT_REPLY).tls_supported, QNET_TLS_REQUIRED);
	client_init(&c);
	assert_int_equal(client_hear(&c, QNET_SERVER_ERROR).error, QNET_ERROR_TLS_REQUIRED);
	client_free(&c);
	board_free(b);
}

static void test_bad_certificates(void **state)
{
	struct board *b = board_new(QNET_TLS_SUPPORTED, 0);
	struct test_cert other_ca = test_cert_new("QNet CA", NULL, NULL, -3600, 36000, 0);
	struct test_cert good = test_cert_new("labcluster", &b->ca, NULL, -3600, 36000, 0);
	struct test_cert other = test_cert_new("othersite", &b->ca, NULL, -3600, 36000, 0);
	struct test_cert cased = test_cert_new("LabCluster", &b->ca, NULL, -3600, 36000, 0);
	struct test_cert expired = test_cert_new("labcluster", &b->ca, NULL, -7200, -3600, 0);
	struct test_cert foreign = test_cert_new("labcluster", &other_ca, NULL, -3600, 36000, 0);
	const struct {
		const struct test_cert *cert;
		bool revoked;
		bool counted; /* the others fail in the handshake itself */
	} cases[] = {
		{NULL, false, true},	  {&other, false, true},    {&good, true, true},
		{&expired, false, false}, {&foreign, false, false}, {&cased, false, true},
	};
	struct qnet_door_stats stats;
	unsigned counted = 0;

	(void)state;
	board_serve(b);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct client c = client_new(b);

		b->revoked = cases[i].revoked;
		client_preinit(&c);
		client_hear(&c, QNET_PREINIT_REPLY);
		client_start_tls(b, &c, cases[i].cert);
		client_end(&c);
		client_free(&c);
		counted += cases[i].counted;
		qnet_door_stats(b->door, &stats);
		assert_int_equal(stats.certificate_refused, counted);
	}
	b->revoked = false;
	test_cert_free(&other_ca);
	test_cert_free(&good);
	test_cert_free(&other);
	test_cert_free(&cased);
	test_cert_free(&expired);
	test_cert_free(&foreign);
	board_free(b);
}

/* The keys come with the model: until then nobody is let in without the TLS that was promised. */
static void test_no_keys_no_listener(void **state)
{
	struct board *b = board_new_with(QNET_TLS_SUPPORTED, 0, false);

	(void)state;
	b->view.lease_until_ms = b->now_ms + 3000;
	qnet_door_serve(b->door, true);
	board_turn(b);
	assert_int_equal(qnet_door_port(b->door), 0);
	b->keys = true;
	qnet_door_model_changed(b->door, 5);
	board_serve(b);
	board_free(b);
}

static void test_reports(void **state)
{
	struct board *b = board_new(QNET_TLS_UNSUPPORTED, 0);
	struct client first;
	struct client second;
	uint64_t session;

	(void)state;
	board_serve(b);
	first = client_new(b);
	session = client_open(b, &first);
	second = client_new(b);
	client_preinit(&second);
	client_hear(&second, QNET_PREINIT_REPLY);
	client_init(&second);
	board_event(b, TB__DOOR_EVENT__WHAT_OPEN);
	qnet_door_report(b->door);
	assert_int_equal(board_event(b, TB__DOOR_EVENT__WHAT_RESET)->reset->sessions, 1);
	assert_true(board_event(b, TB__DOOR_EVENT__WHAT_REPORT)->session == session);
	assert_int_equal(board_event(b, TB__DOOR_EVENT__WHAT_OPEN)->open->seq, 2);
	client_free(&first);
	expect_closed(b, TB__DOOR_CLOSED__REASON__BY_CLIENT);
	client_free(&second);
	expect_closed(b, TB__DOOR_CLOSED__REASON__BY_CLIENT);
	board_free(b);
}

/* A client that asks and never reads costs a bounded queue, then its connection. */
static void test_stuck_client(void **state)
{
	struct board *b = board_new(QNET_TLS_UNSUPPORTED, 0);
	struct buf wire = {0};
	struct client c;
	int small = 4096;
	unsigned i;

	(void)state;
	board_serve(b);
	c = client_new(b);
	setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	client_open(b, &c);
	buf_put_u16(&wire, QNET_ECHO_REQUEST);
	buf_put_u32(&wire, 30004);
	buf_put_u32(&wire, 0x00997530); /* an option that nobody knows, of 30000 bytes */
	memset(buf_reserve(&wire, 30000), 0, 30000);
	wire.len += 30000;
	for (i = 0; i < 3000; i++)
		if (send(c.fd, wire.data, wire.len, MSG_NOSIGNAL) < 0)
			break;
	assert_in_range(i, 1, 2999);
	expect_closed(b, TB__DOOR_CLOSED__REASON__BY_DOOR);
	buf_free(&wire);
	client_free(&c);
	board_free(b);
}

/* A client that floods the arbiter is read at the rate that it may have. */
static void test_flood(void **state)
{
	struct board *b = board_new(QNET_TLS_UNSUPPORTED, 0);
	struct timeval moment = {.tv_usec = 300000};
	struct timeval limit = {.tv_sec = WAIT_S};
	struct buf flood = {0};
	struct client c;
	uint8_t byte;

	(void)state;
	board_serve(b);
	c = client_new(b);
	client_open(b, &c);
	/* In one segment, which the door reads at once: in several, it would stop in the middle. */
	for (unsigned i = 0; i < 85; i++)
		qnet_encode(&(struct qnet_message){.type = QNET_SET_OPTION}, &flood);
	client_send(&c, flood.data, flood.len);
	buf_free(&flood);
	for (unsigned i = 0; i < 85; i++)
		board_event(b, TB__DOOR_EVENT__WHAT_OPTION);
	for (unsigned i = 0; i < 85; i++)
		client_hear(&c, QNET_SET_OPTION_REPLY);
	client_echo(&c, 1);
	setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof(moment));
	assert_int_equal(client_take(&c, &byte, 1), -EAGAIN);
	setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	board_pass(b, 1900);
	client_hear(&c, QNET_ECHO_REPLY);
	client_free(&c);
	expect_closed(b, TB__DOOR_CLOSED__REASON__BY_CLIENT);
	board_free(b);
}

static void test_limit_per_address(void **state)
{
	struct board *b = board_new(QNET_TLS_UNSUPPORTED, 2);
	struct qnet_door_stats stats;
	struct client c[4];

	(void)state;
	board_serve(b);
	for (unsigned i = 0; i < 3; i++)
		c[i] = client_new(b);
	assert_int_equal(client_end(&c[2]), -ECONNRESET);
	qnet_door_stats(b->door, &stats);
	assert_int_equal(stats.refused_limit, 1);
	client_open(b, &c[0]);
	client_free(&c[0]);
	expect_closed(b, TB__DOOR_CLOSED__REASON__BY_CLIENT);
	c[3] = client_new(b); /* one has gone, so there is room */
	client_open(b, &c[3]);
	client_free(&c[3]);
	expect_closed(b, TB__DOOR_CLOSED__REASON__BY_CLIENT);
	client_free(&c[1]);
	client_free(&c[2]);
	board_free(b);
}

/* Connections that never say who they are take only a part of the places. */
static void test_limit_of_pending(void **state)
{
	struct board *b = board_new_of(QNET_TLS_UNSUPPORTED, false,
				       (struct qnet_door_config){.pending_per_address_max = 2});
	struct qnet_door_stats stats;
	struct client c[5];

	(void)state;
	board_serve(b);
	for (unsigned i = 0; i < 3; i++)
		c[i] = client_new(b);
	assert_int_equal(client_end(&c[2]), -ECONNRESET);
	client_open(b, &c[0]);
	c[3] = client_new(b); /* one is attached, so there is room */
	client_open(b, &c[3]);
	qnet_door_stats(b->door, &stats);
	assert_int_equal(stats.refused_limit, 1);
	assert_int_equal(stats.accepted, 3);
	for (unsigned i = 0; i < 4; i++)
		client_free(&c[i]);
	board_free(b);
}

static void board_await(struct board *b, uint64_t accepted, uint64_t waiting)
{
	const struct timespec moment = {.tv_nsec = 1000000};
	struct qnet_door_stats stats;

	for (unsigned i = 0;; i++) {
		qnet_door_stats(b->door, &stats);
		if (stats.accepted == accepted && stats.waiting == waiting)
			return;
		if (i == WAIT_S * 1000)
			fail_msg("accepted %llu, waiting %llu", (unsigned long long)stats.accepted,
				 (unsigned long long)stats.waiting);
		nanosleep(&moment, NULL);
	}
}

/* Two are let in, the others wait as bare sockets: until one of the two is attached or has taken
 * too long, or until they lose patience, or the door does. */
static void test_lobby(void **state)
{
	struct board *b =
		board_new_of(QNET_TLS_UNSUPPORTED, false, (struct qnet_door_config){.window = 2});
	struct qnet_door_stats stats;
	struct client c[5];

	(void)state;
	board_serve(b);
	for (unsigned i = 0; i < 5; i++)
		c[i] = client_new(b);
	board_await(b, 2, 3);
	client_open(b, &c[0]);
	board_await(b, 3, 2); /* c[2] in its place */
	client_free(&c[3]); /* and when its turn comes it has gone */
	board_pass(b, 600);
	board_await(b, 4, 0);
	client_open(b, &c[4]);
	qnet_door_stats(b->door, &stats);
	assert_int_equal(stats.sent_away, 0);
	for (unsigned i = 0; i < 5; i++)
		if (i != 3)
			client_free(&c[i]);
	board_free(b);
}

/* Silent connections of one address wait for their own, and another comes in at once. */
static void test_lobby_of_one_address(void **state)
{
	struct board *b =
		board_new_of(QNET_TLS_UNSUPPORTED, false, (struct qnet_door_config){.window = 4});
	const struct sockaddr_in from = {.sin_family = AF_INET,
					 .sin_addr.s_addr = htonl(0x7f000002)};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct client c;
	int silent[5];

	(void)state;
	board_serve(b);
	to.sin_port = htons((uint16_t)qnet_door_port(b->door));
	for (unsigned i = 0; i < 5; i++) {
		silent[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(bind(silent[i], (const void *)&from, sizeof(from)), 0);
		assert_int_equal(connect(silent[i], (void *)&to, sizeof(to)), 0);
	}
	board_await(b, 3, 2);
	c = client_new(b);
	board_await(b, 4, 2);
	client_open(b, &c);
	board_pass(b, 600);
	board_await(b, 6, 0);
	client_free(&c);
	for (unsigned i = 0; i < 5; i++)
		close(silent[i]);
	board_free(b);
}

/* Handshakes that fail are a sign that too many are let in: those on their way count for longer. */
static void test_lobby_slows_down(void **state)
{
	struct board *b =
		board_new_of(QNET_TLS_SUPPORTED, true, (struct qnet_door_config){.window = 1});
	const struct timespec moment = {.tv_nsec = 1000000};
	struct qnet_door_stats stats;
	struct client c[3];

	(void)state;
	board_serve(b);
	c[0] = client_new(b);
	client_preinit(&c[0]);
	client_hear(&c[0], QNET_PREINIT_REPLY);
	client_say(&c[0], &(struct qnet_message){.type = QNET_STARTTLS, .has = SEQ, .seq = 2});
	do {
		nanosleep(&moment, NULL);
		qnet_door_stats(b->door, &stats);
	} while (stats.sessions[QNET_SECURING] == 0);
	client_free(&c[0]);
	do {
		nanosleep(&moment, NULL);
		qnet_door_stats(b->door, &stats);
	} while (stats.sessions[QNET_SECURING] != 0);
	board_turn(b);
	c[1] = client_new(b);
	c[2] = client_new(b);
	board_await(b, 2, 1);
	board_pass(b, 600);
	board_await(b, 2, 1);
	board_pass(b, 500);
	board_await(b, 3, 0);
	client_free(&c[1]);
	client_free(&c[2]);
	board_free(b);
}

/* A lease that ends ends the waiting too. */
static void test_lobby_without_lease(void **state)
{
	struct board *b =
		board_new_of(QNET_TLS_UNSUPPORTED, false, (struct qnet_door_config){.window = 1});
	struct client c[3];

	(void)state;
	board_serve(b);
	for (unsigned i = 0; i < 3; i++)
		c[i] = client_new(b);
	board_await(b, 1, 2);
	qnet_door_serve(b->door, false);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(client_end(&c[i]), -ECONNRESET);
		client_free(&c[i]);
	}
	board_free(b);
}

static unsigned loop_of(uint64_t session)
{
	return session % QNET_DOOR_THREADS_MAX;
}

/* Three loops are one door: sessions are spread, orders find them, a report is one. */
static void test_loops(void **state)
{
	enum { CLIENTS = 6, LOOPS = 3 };
	struct board *b =
		board_new_of(QNET_TLS_SUPPORTED, true, (struct qnet_door_config){.threads = LOOPS});
	struct test_cert cert = test_cert_new("labcluster", &b->ca, NULL, -3600, 36000, 0);
	unsigned per_loop[LOOPS] = {0};
	uint64_t sessions[CLIENTS];
	struct qnet_door_stats stats;
	struct client c[CLIENTS];

	(void)state;
	board_serve(b);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < CLIENTS; i++) {
			c[i] = client_new(b);
			client_preinit(&c[i]);
			client_hear(&c[i], QNET_PREINIT_REPLY);
			assert_int_equal(client_start_tls(b, &c[i], &cert), 1);
			client_init(&c[i]);
			sessions[i] = board_event(b, TB__DOOR_EVENT__WHAT_OPEN)->session;
			board_accept(b, sessions[i], 0);
			assert_int_equal(client_hear(&c[i], QNET_INIT_REPLY).error, 0);
			assert_in_range(loop_of(sessions[i]), 0, LOOPS - 1);
			per_loop[loop_of(sessions[i])]++;
		}
		/* In one batch, as the core sends them. */
		Tb__DoorOrder **orders = mem_array(CLIENTS, sizeof(*orders));
		for (unsigned i = 0; i < CLIENTS; i++) {
			orders[i] = order_new(sessions[i], TB__DOOR_ORDER__WHAT_VOTE);
			orders[i]->vote = mem_alloc(sizeof(*orders[i]->vote));
			tb__door_vote__init(orders[i]->vote);
			orders[i]->vote->ticket = 900 + i;
			orders[i]->vote->vote = TB__VOTE__VOTE_ACK;
		}
		qnet_door_orders(b->door, orders, CLIENTS);
		for (unsigned i = 0; i < CLIENTS; i++)
			assert_int_equal(client_hear(&c[i], QNET_VOTE_INFO).vote, QNET_VOTE_ACK);
		qnet_door_report(b->door);
		assert_int_equal(board_event(b, TB__DOOR_EVENT__WHAT_RESET)->reset->sessions,
				 CLIENTS);
		for (unsigned i = 0; i < CLIENTS; i++)
			board_event(b, TB__DOOR_EVENT__WHAT_REPORT);
		/* The lease is over: each loop ends its own, and serves again after it. */
		qnet_door_serve(b->door, false);
		for (unsigned i = 0; i < CLIENTS; i++) {
			expect_closed(b, TB__DOOR_CLOSED__REASON__BY_DOOR);
			client_free(&c[i]);
		}
		board_serve(b);
	}
	qnet_door_stats(b->door, &stats);
	assert_int_equal(stats.leases_lost, 2);
	assert_int_equal(stats.accepted, 2 * CLIENTS);
	for (unsigned i = 0; i < LOOPS; i++)
		assert_int_equal(per_loop[i], 2 * CLIENTS / LOOPS);
	test_cert_free(&cert);
	board_free(b);
}

static void test_port_in_use(void **state)
{
	struct board *b = board_new(QNET_TLS_UNSUPPORTED, 0);
	const struct qnet_door_upcalls upcalls = board_upcalls(b);
	struct qnet_door *second;
	const char *message = NULL;
	char address[32];
	struct qnet_door_config config = {.listen = address, .sessions_max = 10};

	(void)state;
	board_serve(b);
	snprintf(address, sizeof(address), "127.0.0.1:%u", qnet_door_port(b->door));
	assert_int_equal(qnet_door_start_in(&config, &upcalls, &second, &message), -EADDRINUSE);
	assert_non_null(strstr(message, address));
	board_free(b);
}

/* Sessions that are open when the daemon stops are reset. */
static void test_stop(void **state)
{
	struct board *b = board_new(QNET_TLS_UNSUPPORTED, 0);
	struct client c;

	(void)state;
	board_serve(b);
	c = client_new(b);
	client_open(b, &c);
	board_free(b);
	assert_int_equal(client_end(&c), -ECONNRESET);
	client_free(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_transcript),
		cmocka_unit_test(test_reset_by_the_client),
		cmocka_unit_test(test_refused_by_the_arbiter),
		cmocka_unit_test(test_no_lease_no_listener),
		cmocka_unit_test(test_drained),
		cmocka_unit_test(test_address_leaves),
		cmocka_unit_test(test_lease_runs_out),
		cmocka_unit_test(test_standstill),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_half_open),
		cmocka_unit_test(test_tls),
		cmocka_unit_test(test_resumption),
		cmocka_unit_test(test_unreadable),
		cmocka_unit_test(test_ca_ends),
		cmocka_unit_test(test_tls_not_used),
		cmocka_unit_test(test_bad_certificates),
		cmocka_unit_test(test_no_keys_no_listener),
		cmocka_unit_test(test_reports),
		cmocka_unit_test(test_stuck_client),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_limit_per_address),
		cmocka_unit_test(test_limit_of_pending),
		cmocka_unit_test(test_lobby),
		cmocka_unit_test(test_lobby_of_one_address),
		cmocka_unit_test(test_lobby_slows_down),
		cmocka_unit_test(test_lobby_without_lease),
		cmocka_unit_test(test_loops),
		cmocka_unit_test(test_port_in_use),
		cmocka_unit_test(test_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
