/* Streams over the loopback: both roles, TLS, STARTTLS, back-pressure, ends of every kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test_certs.h"
#include "lib/address.h"
#include "witnessd/admission.h"
#include "witnessd/stream.h"

enum { DAY = 86400, BIG = 16 * 1024 * 1024 }; /* more than the kernel keeps */

/* What one end of a connection has seen. */
struct end {
	struct stream *stream;
	struct buf got;
	unsigned ready;
	unsigned drained;
	unsigned closed;
	enum stream_end why;
	char detail[128];
	struct tls_context *upgrade; /* after one clear byte: STARTTLS */
	bool echo;
};

struct fixture {
	uv_loop_t loop;
	struct stream_group *group;
	struct test_cert ca, server, client, old;
	struct tls_context *server_tls, *client_tls;
	struct stream_listener *listener;
	struct end there; /* the newest accepted */
	struct end here;
	char address[64];
	bool freed;
};

static void on_ready(struct stream *s)
{
	((struct end *)stream_arg(s))->ready++;
}

static void on_data(struct stream *s, const uint8_t *bytes, size_t len)
{
	struct end *e = stream_arg(s);

	if (e->upgrade && !stream_tls(s)) {
		buf_append(&e->got, bytes, 1);
		stream_start_tls(s, e->upgrade, bytes + 1, len - 1);
		return;
	}
	buf_append(&e->got, bytes, len);
	if (e->echo)
		stream_write(s, bytes, len);
}

static void on_drained(struct stream *s)
{
	((struct end *)stream_arg(s))->drained++;
}

static void on_closed(struct stream *s, enum stream_end why, const char *detail)
{
	struct end *e = stream_arg(s);

	e->closed++;
	e->why = why;
	e->stream = NULL;
	snprintf(e->detail, sizeof(e->detail), "%s", detail);
}

static const struct stream_events events = {
	.ready = on_ready, .data = on_data, .drained = on_drained, .closed = on_closed};

static void on_accepted(struct stream *s, void *arg)
{
	struct fixture *f = arg;

	f->there.stream = s;
	stream_set_arg(s, &f->there);
}

static struct tls_context *context(const struct test_cert *own, const struct test_cert *ca,
				   bool server)
{
	struct tls_options o = {.certificate = own->pem,
				.key = own->key,
				.ca = ca->pem,
				.server = server,
				.ask_client_certificate = server};
	struct tls_context *c;
	const char *message;

	assert_int_equal(tls_context_new(&o, &c, &message), 0);
	return c;
}

static int setup(void **state)
{
	struct fixture *f = mem_zalloc(sizeof(*f));

	f->ca = test_cert_new("CA", NULL, NULL, -DAY, DAY, 0);
	f->server = test_cert_new("server", &f->ca, NULL, -DAY, DAY, 0);
	f->client = test_cert_new("client", &f->ca, NULL, -DAY, DAY, 0);
	f->old = test_cert_new("old", &f->ca, NULL, -2 * DAY, -DAY, 0);
	f->server_tls = context(&f->server, &f->ca, true);
	f->client_tls = context(&f->client, &f->ca, false);
	uv_loop_init(&f->loop);
	f->group = stream_group_new(&f->loop, 2000);
	*state = f;
	return 0;
}

static void on_freed(void *arg)
{
	((struct fixture *)arg)->freed = true;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	stream_group_free(f->group, on_freed, f);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_true(f->freed);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	tls_context_free(f->server_tls);
	tls_context_free(f->client_tls);
	test_cert_free(&f->ca);
	test_cert_free(&f->server);
	test_cert_free(&f->client);
	test_cert_free(&f->old);
	buf_free(&f->there.got);
	buf_free(&f->here.got);
	free(f);
	return 0;
}

#define run_until(f, condition)                                                                    \
	while (!(condition))                                                                       \
	uv_run(&(f)->loop, UV_RUN_ONCE)

static void turns(struct fixture *f, int count)
{
	while (count-- > 0)
		uv_run(&f->loop, UV_RUN_NOWAIT);
}

static void listen_on(struct fixture *f, const char *address, struct tls_context *tls,
		      unsigned limit)
{
	const struct stream_listen how = {.address = address,
					  .tls = tls,
					  .limit = limit,
					  .mode = 0600,
					  .events = &events,
					  .accepted = on_accepted,
					  .arg = f};
	const char *message = "";

	if (stream_listen(f->group, &how, &f->listener, &message) < 0)
		fail_msg("%s", message);
	if (strncmp(address, "unix:", 5) == 0)
		snprintf(f->address, sizeof(f->address), "%s", address);
	else
		snprintf(f->address, sizeof(f->address), "127.0.0.1:%u",
			 stream_listener_port(f->listener));
}

static void dial(struct fixture *f, struct tls_context *tls)
{
	f->here.stream = stream_connect(f->group, f->address, tls, 5000, &events, &f->here);
}

static int raw_dial(struct fixture *f)
{
	struct address a;

	assert_int_equal(address_parse(f->address, &a), 0);
	int fd = socket(a.socket.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, &a.socket.any, a.socket_len), 0);
	return fd;
}

static uint8_t *pattern(size_t len)
{
	uint8_t *bytes = mem_alloc(len);

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 31 >> 3);
	return bytes;
}

static void check_echo(struct fixture *f, struct tls_context *server, struct tls_context *client,
		       const char *address)
{
	uint8_t *bytes = pattern(BIG);

	listen_on(f, address, server, 0);
	f->there.echo = true;
	dial(f, client);
	assert_true(stream_write(f->here.stream, bytes, BIG) > 0); /* before the connect is done */
	run_until(f, f->here.got.len == BIG);
	assert_memory_equal(f->here.got.data, bytes, BIG);
	assert_int_equal(f->here.ready, 1);
	assert_int_equal(f->there.ready, 1);
	assert_int_equal(f->here.drained, 1);
	assert_int_equal(stream_write(f->here.stream, "", 0), 0);
	stream_close(f->here.stream);
	run_until(f, f->here.closed && f->there.closed);
	assert_int_equal(f->here.why, STREAM_END_LOCAL);
	assert_int_equal(f->there.why, STREAM_END_PEER);
	free(bytes);
}

static void test_clear(void **state)
{
	check_echo(*state, NULL, NULL, "127.0.0.1:0");
}

static void test_tls(void **state)
{
	struct fixture *f = *state;

	check_echo(f, f->server_tls, f->client_tls, "*:0");
}

static void test_tls_peer(void **state)
{
	struct fixture *f = *state;
	struct tls_peer peer;

	listen_on(f, "127.0.0.1:0", f->server_tls, 0);
	dial(f, f->client_tls);
	run_until(f, f->there.ready && f->here.ready);
	tls_session_peer(stream_tls(f->there.stream), &peer);
	assert_string_equal(peer.common_name, "client");
	assert_memory_equal(stream_peer_address(f->there.stream), "127.0.0.1:", 10);
}

static void test_unix(void **state)
{
	struct fixture *f = *state;
	char path[] = "/tmp/test_stream_XXXXXX";
	char address[64];
	struct stat file;
	struct stream_listener *second;
	const char *message = "";
	unsigned uid;

	assert_non_null(mkdtemp(path));
	snprintf(address, sizeof(address), "unix:%s/socket", path);
	/* A leftover of a daemon that was killed is replaced. */
	struct address a;
	assert_int_equal(address_parse(address, &a), 0);
	int stale = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(stale, &a.socket.any, a.socket_len), 0);
	close(stale);
	check_echo(f, NULL, NULL, address);
	assert_int_equal(stat(address + 5, &file), 0);
	assert_int_equal(file.st_mode & 0777, 0600);
	const struct stream_listen how = {.address = address, .mode = 0600, .events = &events};
	assert_int_equal(stream_listen(f->group, &how, &second, &message), -EADDRINUSE);
	assert_non_null(strstr(message, "another witnessd?"));
	f->there.ready = 0;
	dial(f, NULL);
	run_until(f, f->there.ready);
	assert_int_equal(stream_peer_uid(f->there.stream, &uid), 0);
	assert_int_equal(uid, getuid());
	assert_string_equal(stream_peer_address(f->there.stream), "unix");
	stream_listener_close(f->listener);
	assert_int_equal(stat(address + 5, &file), -1);
	rmdir(path);
}

/* One segment with the last clear byte and the ClientHello behind it; then everything again,
 * byte by byte. */
static void test_starttls(void **state)
{
	struct fixture *f = *state;

	for (size_t step = 1; step <= 100000; step += 99999) {
		struct tls_session *client = tls_session_new(f->client_tls);
		struct buf wire = {0}, plain = {0};
		uint8_t bytes[4096];

		f->there = (struct end){.upgrade = f->server_tls};
		if (!f->listener)
			listen_on(f, "127.0.0.1:0", NULL, 0);
		int fd = raw_dial(f);
		buf_puts(&wire, "S");
		tls_session_start(client, &wire);
		tls_session_send(client, (const uint8_t *)"secret", 6, &wire);
		while (f->there.got.len < 7) {
			while (wire.len > 0) {
				size_t len = wire.len < step ? wire.len : step;
				assert_int_equal(write(fd, wire.data, len), len);
				buf_consume(&wire, len);
				turns(f, 2);
			}
			turns(f, 2);
			ssize_t len = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
			if (len > 0)
				assert_int_equal(tls_session_receive(client, bytes, (size_t)len,
								     &plain, &wire),
						 0);
		}
		assert_memory_equal(f->there.got.data, "Ssecret", 7);
		assert_int_equal(f->there.ready, 2);
		/* A connection cut without a TLS close is still an end of the peer. */
		close(fd);
		run_until(f, f->there.closed);
		assert_int_equal(f->there.why, STREAM_END_PEER);
		assert_string_equal(f->there.detail, "closed without a TLS close");
		buf_free(&f->there.got);
		buf_free(&wire);
		buf_free(&plain);
		tls_session_free(client);
	}
}

static void test_truncated_handshake(void **state)
{
	struct fixture *f = *state;
	struct tls_session *client = tls_session_new(f->client_tls);
	struct buf wire = {0};

	listen_on(f, "127.0.0.1:0", f->server_tls, 0);
	int fd = raw_dial(f);
	tls_session_start(client, &wire);
	assert_int_equal(write(fd, wire.data, wire.len / 2), wire.len / 2);
	close(fd);
	run_until(f, f->there.closed);
	assert_int_equal(f->there.why, STREAM_END_PEER);
	assert_int_equal(f->there.ready, 0);
	buf_free(&wire);
	tls_session_free(client);
}

static void test_expired_certificate(void **state)
{
	struct fixture *f = *state;
	struct tls_context *old = context(&f->old, &f->ca, false);

	listen_on(f, "127.0.0.1:0", f->server_tls, 0);
	dial(f, old);
	run_until(f, f->there.closed && f->here.closed);
	assert_int_equal(f->there.why, STREAM_END_TLS);
	assert_string_equal(f->there.detail, "certificate has expired");
	assert_int_equal(f->there.ready, 0);
	assert_int_equal(f->here.why, STREAM_END_TLS);
	assert_string_equal(f->here.detail, "the peer refused: certificate expired");
	tls_context_free(old);
}

static void test_handshake_deadline(void **state)
{
	struct fixture *f = *state;

	listen_on(f, "127.0.0.1:0", f->server_tls, 0);
	int fd = raw_dial(f);
	run_until(f, f->there.stream);
	stream_group_expire(f->group, uv_now(&f->loop) + 4000);
	turns(f, 2);
	assert_int_equal(f->there.closed, 0);
	stream_group_expire(f->group, uv_now(&f->loop) + 5000);
	run_until(f, f->there.closed);
	assert_int_equal(f->there.why, STREAM_END_TIMEOUT);
	close(fd);
}

/* A peer whose last word was lost: it is gone, and nothing is ever written to it. */
static void test_gone_peer(void **state)
{
	struct fixture *f = *state;
	int on = 1;

	listen_on(f, "127.0.0.1:0", NULL, 0);
	int fd = raw_dial(f);
	run_until(f, f->there.ready);
	stream_silence_limit(f->there.stream, 1000);
	/* A socket under repair is closed without a word (CRIU). Only root may. */
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) != 0) {
		close(fd);
		skip();
	}
	close(fd);
	run_until(f, f->there.closed);
	assert_int_equal(f->there.closed, 1);
}

/* S1: what was queued when a session is cut must not arrive afterwards. */
static void test_abort_resets(void **state)
{
	struct fixture *f = *state;
	uint8_t *bytes = pattern(BIG);
	size_t total = 0;
	ssize_t len;

	listen_on(f, "127.0.0.1:0", NULL, 0);
	int fd = raw_dial(f);
	run_until(f, f->there.ready);
	assert_true(stream_write(f->there.stream, bytes, BIG) > 0);
	stream_abort(f->there.stream);
	assert_int_equal(stream_write(f->there.stream, "late", 4), 0);
	while ((len = read(fd, bytes, BIG)) > 0)
		total += (size_t)len;
	assert_int_equal(len, -1);
	assert_int_equal(errno, ECONNRESET);
	assert_true(total < BIG);
	run_until(f, f->there.closed);
	assert_int_equal(f->there.why, STREAM_END_LOCAL);
	assert_int_equal(f->there.closed, 1);
	close(fd);
	free(bytes);
}

/* A reset right behind data is a reset, not an end in order. */
static void test_reset_behind_data(void **state)
{
	const struct linger at_once = {.l_onoff = 1};
	struct fixture *f = *state;

	listen_on(f, "127.0.0.1:0", NULL, 0);
	int fd = raw_dial(f);
	run_until(f, f->there.ready);
	assert_int_equal(write(fd, "last words", 10), 10);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
	run_until(f, f->there.closed);
	assert_int_equal(f->there.got.len, 10);
	assert_int_equal(f->there.why, STREAM_END_RESET);
}

/* close sends all that was queued, even if the peer sent bytes that nobody reads any more. */
static void test_close_flushes(void **state)
{
	struct fixture *f = *state;
	uint8_t *bytes = pattern(BIG), *got = mem_alloc(BIG + 1);
	size_t total = 0;

	listen_on(f, "127.0.0.1:0", NULL, 0);
	int fd = raw_dial(f);
	run_until(f, f->there.ready);
	assert_true(stream_write(f->there.stream, bytes, BIG) > 0);
	stream_close(f->there.stream);
	assert_int_equal(write(fd, "unread", 6), 6);
	for (ssize_t len = 1; len != 0;) {
		turns(f, 1);
		len = recv(fd, got + total, BIG + 1 - total, MSG_DONTWAIT);
		if (len < 0)
			assert_int_equal(errno, EAGAIN);
		else
			total += (size_t)len;
	}
	assert_int_equal(total, BIG);
	assert_memory_equal(bytes, got, BIG);
	assert_int_equal(f->there.closed, 0); /* lingers for the peer's FIN */
	close(fd);
	run_until(f, f->there.closed);
	assert_int_equal(f->there.why, STREAM_END_LOCAL);
	free(bytes);
	free(got);
}

static void test_linger_ends(void **state)
{
	struct fixture *f = *state;

	listen_on(f, "127.0.0.1:0", NULL, 0);
	int fd = raw_dial(f);
	run_until(f, f->there.ready);
	stream_close(f->there.stream);
	turns(f, 2);
	assert_int_equal(f->there.closed, 0);
	stream_group_expire(f->group, uv_now(&f->loop) + 2000);
	run_until(f, f->there.closed);
	close(fd);
}

static void test_cork(void **state)
{
	struct fixture *f = *state;
	char text[16] = "";

	listen_on(f, "127.0.0.1:0", NULL, 0);
	int fd = raw_dial(f);
	run_until(f, f->there.ready);
	stream_cork(f->there.stream);
	stream_write(f->there.stream, "a", 1);
	stream_write(f->there.stream, "b", 1);
	assert_int_equal(recv(fd, text, sizeof(text), MSG_DONTWAIT), -1);
	stream_uncork(f->there.stream);
	assert_int_equal(recv(fd, text, sizeof(text), MSG_DONTWAIT), 2);
	assert_string_equal(text, "ab");
	close(fd);
}

static void test_pause(void **state)
{
	struct fixture *f = *state;

	listen_on(f, "127.0.0.1:0", f->server_tls, 0);
	dial(f, f->client_tls);
	run_until(f, f->there.stream);
	stream_pause(f->there.stream); /* during the handshake, which goes on */
	stream_write(f->here.stream, "one", 3);
	run_until(f, f->there.ready);
	turns(f, 20);
	assert_int_equal(f->there.got.len, 0);
	stream_resume(f->there.stream);
	run_until(f, f->there.got.len == 3);
	stream_pause(f->there.stream);
	stream_write(f->here.stream, "two", 3);
	turns(f, 20);
	assert_int_equal(f->there.got.len, 3);
	stream_resume(f->there.stream);
	run_until(f, f->there.got.len == 6);
	assert_memory_equal(f->there.got.data, "onetwo", 6);
}

static void test_limit(void **state)
{
	struct fixture *f = *state;
	char byte;

	listen_on(f, "127.0.0.1:0", NULL, 1);
	int first = raw_dial(f), second = raw_dial(f);
	turns(f, 4);
	assert_int_equal(stream_listener_over_limit(f->listener), 1);
	assert_int_equal(read(second, &byte, 1), 0);
	close(first);
	run_until(f, f->there.closed);
	f->there.ready = 0;
	close(second);
	second = raw_dial(f);
	run_until(f, f->there.ready);
	close(second);
}

/* Descriptors run out: the client is turned away, the loop does not spin, the next one is taken. */
static void test_no_descriptors(void **state)
{
	struct fixture *f = *state;
	struct rlimit old, none;
	char byte;

	listen_on(f, "127.0.0.1:0", NULL, 0);
	int fd = raw_dial(f);
	int probe = dup(fd);
	getrlimit(RLIMIT_NOFILE, &old);
	none = (struct rlimit){.rlim_cur = (rlim_t)probe, .rlim_max = old.rlim_max};
	close(probe);
	setrlimit(RLIMIT_NOFILE, &none);
	turns(f, 4);
	setrlimit(RLIMIT_NOFILE, &old);
	assert_int_equal(stream_listener_over_limit(f->listener), 1);
	assert_int_equal(read(fd, &byte, 1), 0);
	close(fd);
	fd = raw_dial(f);
	run_until(f, f->there.ready);
	close(fd);
}

static void test_listen_messages(void **state)
{
	struct fixture *f = *state;
	const struct {
		const char *address;
		int rv;
		const char *says;
	} cases[] = {
		{"192.0.2.1:5", -EADDRNOTAVAIL, "this board has no such address"},
		{"7443", -EINVAL, "use host:port"},
		{"::1:7443", -EINVAL, "use host:port"},
		{"[::1]7443", -EINVAL, "use host:port"},
		{"127.0.0.1:65536", -EINVAL, "use host:port"},
		{"unix:", -EINVAL, "unix:/path"},
		{f->address, -EADDRINUSE,
		 "address already in use; another witnessd? (see --listen, --sites-listen)"},
	};

	listen_on(f, "127.0.0.1:0", NULL, 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct stream_listen how = {.address = cases[i].address, .events = &events};
		struct stream_listener *l;
		const char *message = "";

		assert_int_equal(stream_listen(f->group, &how, &l, &message), cases[i].rv);
		assert_non_null(strstr(message, cases[i].address));
		assert_non_null(strstr(message, cases[i].says));
	}
}

static void test_dial_failures(void **state)
{
	struct fixture *f = *state;
	const char *const addresses[] = {f->address, "nonsense", "unix:/nonexistent/socket"};

	listen_on(f, "127.0.0.1:0", NULL, 0);
	stream_listener_close(f->listener);
	for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
		f->here.closed = 0;
		stream_connect(f->group, addresses[i], NULL, 5000, &events, &f->here);
		run_until(f, f->here.closed);
		assert_int_equal(f->here.why, STREAM_END_CONNECT);
		assert_int_equal(f->here.ready, 0);
	}
	f->here.closed = 0;
	stream_abort(stream_connect(f->group, "localhost:1", NULL, 5000, &events, &f->here));
	run_until(f, f->here.closed);
	assert_int_equal(f->here.why, STREAM_END_LOCAL);
}

/* A name with several addresses: the first that answers is taken (localhost is ::1 first on many
 * boards, and the listener is IPv4). */
static void test_dial_name(void **state)
{
	struct fixture *f = *state;

	listen_on(f, "127.0.0.1:0", NULL, 0);
	snprintf(f->address, sizeof(f->address), "localhost:%u", stream_listener_port(f->listener));
	dial(f, NULL);
	run_until(f, f->here.ready && f->there.ready);
}

static void test_adopt(void **state)
{
	struct fixture *f = *state;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	f->here.stream = stream_adopt(f->group, pair[0], &events, &f->here);
	run_until(f, f->here.ready);
	stream_write(f->here.stream, "x", 1);
	char byte = 0;
	assert_int_equal(read(pair[1], &byte, 1), 1);
	assert_int_equal(byte, 'x');
	close(pair[1]);
	run_until(f, f->here.closed);
	assert_int_equal(f->here.why, STREAM_END_PEER);
}

/* Clients that shake hands all at once share the loop with others: with no budget at all, one
 * step is done per turn. */
struct storm {
	uv_prepare_t prepare;
	unsigned now; /* established in this turn */
	unsigned most;
	unsigned total;
	unsigned accepted;
	struct storm *last; /* of whom the next one is */
};

static void storm_turn(uv_prepare_t *p)
{
	struct storm *s = p->data;

	if (s->now > s->most)
		s->most = s->now;
	s->now = 0;
}

static void storm_ready(struct stream *s)
{
	struct storm *storm = stream_arg(s);

	storm->now++;
	storm->total++;
}

static void storm_accepted(struct stream *s, void *arg)
{
	struct storm *storm = arg;

	storm->accepted++;
	if (storm->last != NULL)
		stream_set_arg(s, storm->last);
}

static void storm_data(struct stream *s, const uint8_t *bytes, size_t len)
{
	(void)s;
	(void)bytes;
	(void)len;
}

static const struct stream_events storm_events = {.ready = storm_ready, .data = storm_data};

static void test_budget(void **state)
{
	enum { CLIENTS = 20 };
	struct fixture *f = *state;
	struct storm storm = {0};
	struct stream_group *strict = stream_group_new(&f->loop, 0);
	const struct stream_listen how = {.address = "127.0.0.1:0",
					  .tls = f->server_tls,
					  .events = &storm_events,
					  .arg = &storm};
	struct stream_listener *l;
	const char *message;

	assert_int_equal(stream_listen(strict, &how, &l, &message), 0);
	snprintf(f->address, sizeof(f->address), "127.0.0.1:%u", stream_listener_port(l));
	uv_prepare_init(&f->loop, &storm.prepare);
	storm.prepare.data = &storm;
	uv_prepare_start(&storm.prepare, storm_turn);
	for (int i = 0; i < CLIENTS; i++)
		dial(f, f->client_tls);
	run_until(f, storm.total == CLIENTS);
	turns(f, 1);
	assert_int_equal(storm.most, 1);
	uv_close((uv_handle_t *)&storm.prepare, NULL);
	stream_group_free(strict, on_freed, f);
	run_until(f, f->freed);
}

enum last { LAST_MEMBER, LAST_OTHER, LAST_DIALED };

/* A crowd of handshakes is there when there is one more: of a board, of another client while the
 * crowd are boards, or of our own to elsewhere. How many of the crowd are served before it. */
static unsigned served_before(struct fixture *f, enum last what)
{
	enum { CLIENTS = 20 };
	struct storm storm = {0};
	struct storm last = {0};
	struct stream_group *strict = stream_group_new(&f->loop, 0);
	struct admission *places = admission_new(&(struct admission_limits){
		.sessions_max = CLIENTS + 1, .pending_per_member_max = CLIENTS});
	const struct stream_listen how = {.address = "127.0.0.1:0",
					  .tls = f->server_tls,
					  .admission = places,
					  .events = &storm_events,
					  .accepted = storm_accepted,
					  .arg = &storm};
	struct stream_listener *l;
	const char *message;
	struct ip local;
	unsigned before;

	assert_int_equal(ip_parse("127.0.0.1", &local), 0);
	admission_members_set(places, &local, what == LAST_OTHER);
	assert_int_equal(stream_listen(strict, &how, &l, &message), 0);
	snprintf(f->address, sizeof(f->address), "127.0.0.1:%u", stream_listener_port(l));
	for (int i = 0; i < CLIENTS; i++)
		dial(f, f->client_tls);
	run_until(f, storm.accepted == CLIENTS);
	admission_members_set(places, &local, what == LAST_MEMBER);
	storm.last = &last;
	if (what == LAST_DIALED) {
		run_until(f, storm.total == 1); /* each of the crowd needs one turn more */
		listen_on(f, "127.0.0.1:0", f->server_tls, 0);
		stream_connect(strict, f->address, f->client_tls, 5000, &storm_events, &last);
	} else {
		dial(f, f->client_tls);
	}
	run_until(f, last.total == 1);
	before = storm.total;
	run_until(f, storm.total == CLIENTS);
	f->freed = false;
	stream_group_free(strict, on_freed, f);
	run_until(f, f->freed);
	admission_free(places);
	return before;
}

/* Neither a crowd keeps the boards out, nor do the boards keep others out. */
static void test_turns(void **state)
{
	assert_in_range(served_before(*state, LAST_MEMBER), 0, 5);
	assert_in_range(served_before(*state, LAST_OTHER), 0, 10);
	assert_in_range(served_before(*state, LAST_DIALED), 0, 15);
}

/* Who has no place is closed before its handshake, and a place is pending until that is over. */
static void test_places(void **state)
{
	struct fixture *f = *state;
	struct admission *places =
		admission_new(&(struct admission_limits){.sessions_max = 2,
							 .pending_per_address_max = 1,
							 .sessions_setting = "all",
							 .pending_setting = "pending"});
	const struct stream_listen how = {.address = "127.0.0.1:0",
					  .tls = f->server_tls,
					  .admission = places,
					  .events = &events,
					  .accepted = on_accepted,
					  .arg = f};
	const char *message;
	char byte;

	assert_int_equal(stream_listen(f->group, &how, &f->listener, &message), 0);
	snprintf(f->address, sizeof(f->address), "127.0.0.1:%u", stream_listener_port(f->listener));
	int first = raw_dial(f), second = raw_dial(f);
	run_until(f, stream_listener_over_limit(f->listener) == 1);
	assert_int_equal(read(second, &byte, 1), -1);
	assert_int_equal(errno, ECONNRESET);
	close(first);
	close(second);
	run_until(f, f->there.closed);
	for (unsigned i = 1; i <= 2; i++) {
		f->there.ready = 0;
		dial(f, f->client_tls);
		run_until(f, f->there.ready);
	}
	first = raw_dial(f);
	run_until(f, stream_listener_over_limit(f->listener) == 2);
	close(first);
	f->freed = false;
	stream_group_free(f->group, on_freed, f);
	run_until(f, f->freed);
	f->freed = false;
	admission_free(places);
	f->group = stream_group_new(&f->loop, 2000);
}

static void test_addresses(void **state)
{
	const struct {
		const char *text;
		int rv;
		enum address_kind kind;
		const char *back;
	} cases[] = {
		{"10.0.0.1:7443", 0, ADDRESS_SOCKET, "10.0.0.1:7443"},
		{"[2001:db8::1]:1", 0, ADDRESS_SOCKET, "[2001:db8::1]:1"},
		{"[::ffff:10.0.0.9]:1", 0, ADDRESS_SOCKET, "10.0.0.9:1"},
		{"*:5403", 0, ADDRESS_ANY, "[::]:5403"},
		{"witness.example:7443", 0, ADDRESS_NAME, NULL},
		{"unix:/run/x", 0, ADDRESS_SOCKET, "unix"},
		{":1", -EINVAL, 0, NULL},
		{"a:", -EINVAL, 0, NULL},
		{"[]:1", -EINVAL, 0, NULL},
		{"[10.0.0.1]:1", -EINVAL, 0, NULL},
		{"2001:db8::1", -EINVAL, 0, NULL},
		{"", -EINVAL, 0, NULL},
	};
	struct address a;
	char text[ADDRESS_TEXT];
	char path[200];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(address_parse(cases[i].text, &a), cases[i].rv);
		if (cases[i].rv < 0)
			continue;
		assert_int_equal(a.kind, cases[i].kind);
		if (!cases[i].back)
			continue;
		address_format(&a.socket.any, text);
		assert_string_equal(text, cases[i].back);
	}
	memset(path, 'x', sizeof(path));
	memcpy(path, "unix:", 5);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(address_parse(path, &a), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_clear, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tls, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tls_peer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unix, setup, teardown),
		cmocka_unit_test_setup_teardown(test_starttls, setup, teardown),
		cmocka_unit_test_setup_teardown(test_truncated_handshake, setup, teardown),
		cmocka_unit_test_setup_teardown(test_expired_certificate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_handshake_deadline, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gone_peer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_abort_resets, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset_behind_data, setup, teardown),
		cmocka_unit_test_setup_teardown(test_close_flushes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_linger_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cork, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pause, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_descriptors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_listen_messages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dial_failures, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dial_name, setup, teardown),
		cmocka_unit_test_setup_teardown(test_adopt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_budget, setup, teardown),
		cmocka_unit_test_setup_teardown(test_turns, setup, teardown),
		cmocka_unit_test_setup_teardown(test_places, setup, teardown),
		cmocka_unit_test(test_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
