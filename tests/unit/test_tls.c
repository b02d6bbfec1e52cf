/* TLS between two sessions in memory: identity, refusals, odd fragments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>

#include "lib/clock.h"
#include "test_certs.h"
#include "witnessd/pki.h"
#include "witnessd/tls.h"

enum { DAY = 86400 };

struct side {
	struct tls_session *session;
	struct buf wire; /* towards the other side */
	struct buf plain;
	int rv;
};

struct fixture {
	struct test_cert ca, server, client, rsa_client, old_client, future_client, foreign_ca,
		foreign_client, namesake_ca, namesake_client;
};

static int setup(void **state)
{
	struct fixture *f = mem_zalloc(sizeof(*f));

	f->ca = test_cert_new("Cluster CA", NULL, NULL, -DAY, DAY, 0);
	f->server = test_cert_new("board-a", &f->ca, "DNS:board-a.example,URI:tiebreak:node/7",
				  -DAY, DAY, 0);
	f->client = test_cert_new("Alpha", &f->ca,
				  "URI:tiebreak:client/operator,DNS:*.site.example", -DAY, DAY, 0);
	f->rsa_client = test_cert_new("Beta_1", &f->ca, NULL, -DAY, DAY, 1);
	f->old_client = test_cert_new("old", &f->ca, NULL, -2 * DAY, -DAY, 0);
	f->future_client = test_cert_new("future", &f->ca, NULL, DAY / 2, DAY, 0);
	f->foreign_ca = test_cert_new("Other CA", NULL, NULL, -DAY, DAY, 0);
	f->foreign_client = test_cert_new("Alpha", &f->foreign_ca, NULL, -DAY, DAY, 0);
	f->namesake_ca = test_cert_new("Cluster CA", NULL, NULL, -DAY, DAY, 0);
	f->namesake_client = test_cert_new("Alpha", &f->namesake_ca, NULL, -DAY, DAY, 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct test_cert *all = &f->ca;

	for (size_t i = 0; i < sizeof(*f) / sizeof(f->ca); i++)
		test_cert_free(&all[i]);
	free(f);
	return 0;
}

static void side_free(struct side *s)
{
	tls_session_free(s->session);
	buf_free(&s->wire);
	buf_free(&s->plain);
}

static struct tls_context *context(const struct tls_options *options)
{
	struct tls_context *c = NULL;
	const char *message = "";

	if (tls_context_new(options, &c, &message) < 0)
		fail_msg("%s", message);
	return c;
}

static void side_open(struct side *s, const struct tls_options *options)
{
	struct tls_context *c = context(options);

	*s = (struct side){.session = tls_session_new(c)};
	tls_context_free(c); /* the session keeps it */
}

/* Moves what `from` has to say, `step` bytes at a time. True if anything moved. */
static int move(struct side *from, struct side *to, size_t step)
{
	struct buf bytes = from->wire;

	from->wire = (struct buf){0};
	for (size_t at = 0; at < bytes.len; at += step) {
		size_t len = bytes.len - at < step ? bytes.len - at : step;
		int rv = tls_session_receive(to->session, bytes.data + at, len, &to->plain,
					     &to->wire);
		if (rv < 0)
			to->rv = rv;
	}
	int moved = bytes.len > 0;
	buf_free(&bytes);
	return moved;
}

static void talk(struct side *client, struct side *server, size_t step)
{
	tls_session_start(client->session, &client->wire);
	while (move(client, server, step) | move(server, client, step))
		;
}

static struct tls_options server_options(const struct fixture *f)
{
	return (struct tls_options){.server = true,
				    .certificate = f->server.pem,
				    .key = f->server.key,
				    .ca = f->ca.pem,
				    .ask_client_certificate = true};
}

static struct tls_options client_options(const struct fixture *f, const struct test_cert *own)
{
	return (struct tls_options){.certificate = own ? own->pem : NULL,
				    .key = own ? own->key : NULL,
				    .ca = f->ca.pem};
}

static void test_identity(void **state)
{
	const struct fixture *f = *state;
	const struct tls_options so = server_options(f), co = client_options(f, &f->client);
	struct side s, c;
	struct tls_peer peer;
	char root[65];

	side_open(&s, &so);
	side_open(&c, &co);
	assert_int_equal(tls_session_send(c.session, (const uint8_t *)"early", 5, &c.wire), 0);
	assert_int_equal(tls_session_pending(c.session), 5);
	talk(&c, &s, 100000);
	assert_true(tls_session_established(s.session) && tls_session_established(c.session));
	assert_memory_equal(s.plain.data, "early", 5);
	assert_int_equal(tls_session_pending(c.session), 0);
	tls_session_peer(s.session, &peer);
	assert_true(peer.present);
	assert_string_equal(peer.common_name, "Alpha");
	assert_string_equal(peer.uri, "tiebreak:client/operator");
	assert_int_equal(strlen(peer.sha256), 64);
	assert_true(peer.not_after_ms > clock_realtime_ms());
	tls_session_peer(c.session, &peer);
	assert_string_equal(peer.uri, "tiebreak:node/7");
	pki_sha256(f->ca.pem, root);
	assert_int_equal(tls_session_peer_leads_to(c.session, root), 0);
	pki_sha256(f->namesake_ca.pem, root);
	assert_int_equal(tls_session_peer_leads_to(c.session, root), -ENOENT);
	assert_true(tls_session_peer_matches(c.session, "BOARD-A.example"));
	assert_false(tls_session_peer_matches(c.session, "board-a")); /* SAN before CN */
	assert_true(tls_session_peer_matches(s.session, "x.site.example"));
	assert_false(tls_session_peer_matches(s.session, "x.y.site.example"));
	assert_false(tls_session_peer_matches(s.session, ".site.example"));
	assert_false(tls_session_peer_matches(s.session, ""));
	tls_session_close(c.session, &c.wire);
	move(&c, &s, 7);
	assert_int_equal(s.rv, -EPIPE);
	side_free(&s);
	side_free(&c);
}

/* qdevice's certificates are RSA 2048 with a name that is no host name. */
static void test_rsa_client(void **state)
{
	const struct fixture *f = *state;
	const struct tls_options so = server_options(f), co = client_options(f, &f->rsa_client);
	struct side s, c;

	side_open(&s, &so);
	side_open(&c, &co);
	talk(&c, &s, 1);
	assert_true(tls_session_established(s.session));
	assert_true(tls_session_peer_matches(s.session, "beta_1"));
	assert_false(tls_session_peer_matches(s.session, "beta_2"));
	side_free(&s);
	side_free(&c);
}

static void test_anonymous(void **state)
{
	const struct fixture *f = *state;
	const struct tls_options so = server_options(f), co = client_options(f, NULL);
	struct side s, c;
	struct tls_peer peer;
	char root[65];

	side_open(&s, &so);
	side_open(&c, &co);
	talk(&c, &s, 100000);
	assert_true(tls_session_established(s.session));
	tls_session_peer(s.session, &peer);
	assert_false(peer.present);
	assert_false(tls_session_peer_matches(s.session, "Alpha"));
	pki_sha256(f->ca.pem, root);
	assert_int_equal(tls_session_peer_leads_to(s.session, root), -ENOENT);
	side_free(&s);
	side_free(&c);
}

/* A server that was not asked to verify must not believe a certificate. */
static void test_unverified(void **state)
{
	const struct fixture *f = *state;
	const struct tls_options so = server_options(f);
	struct tls_options co = client_options(f, NULL);
	struct side s, c;
	struct tls_peer peer;
	char root[65];

	co.ca = NULL;
	side_open(&s, &so);
	side_open(&c, &co);
	talk(&c, &s, 100000);
	assert_true(tls_session_established(c.session));
	tls_session_peer(c.session, &peer);
	assert_false(peer.present);
	pki_sha256(f->ca.pem, root);
	assert_int_equal(tls_session_peer_leads_to(c.session, root), 0);
	pki_sha256(f->namesake_ca.pem, root);
	assert_int_equal(tls_session_peer_leads_to(c.session, root), -ENOENT);
	side_free(&s);
	side_free(&c);
}

static void test_refusals(void **state)
{
	const struct fixture *f = *state;
	const struct {
		const struct test_cert *client;
		const char *server_says;
		const char *client_says;
	} cases[] = {
		{&f->old_client, "certificate has expired", "certificate expired"},
		{&f->future_client, "certificate is not yet valid", "bad certificate"},
		{&f->foreign_client, "unknown CA", "unknown CA"},
		{&f->namesake_client, "unknown CA", "decrypt error"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct tls_options so = server_options(f);
		const struct tls_options co = client_options(f, cases[i].client);
		struct side s, c;
		struct tls_peer peer;

		side_open(&s, &so);
		side_open(&c, &co);
		talk(&c, &s, 100000);
		assert_int_equal(s.rv, -EPROTO);
		assert_false(tls_session_established(s.session));
		assert_non_null(strstr(tls_session_error(s.session), cases[i].server_says));
		tls_session_peer(s.session, &peer);
		assert_false(peer.present);
		/* In TLS 1.3 the client hears of it after its own handshake is over. */
		assert_int_equal(c.rv, -EPROTO);
		if (!strstr(tls_session_error(c.session), cases[i].client_says))
			fail_msg("client says: %s", tls_session_error(c.session));
		side_free(&s);
		side_free(&c);
	}
}

/* A board without a clock battery believes in 1970 and must not refuse its peers for that; a
 * floor beyond a certificate's end refuses it. */
static void test_clock_floor(void **state)
{
	const struct fixture *f = *state;
	struct tls_options so = server_options(f);
	const struct tls_options co = client_options(f, &f->future_client);
	const struct tls_options late = client_options(f, &f->client);
	struct side s, c;

	so.clock_floor_ms = clock_realtime_ms() + DAY * 3 / 4 * 1000LL;
	side_open(&s, &so);
	side_open(&c, &co);
	talk(&c, &s, 100000);
	assert_true(tls_session_established(s.session));
	side_free(&s);
	side_free(&c);
	so.clock_floor_ms = clock_realtime_ms() + 2 * DAY * 1000LL;
	side_open(&s, &so);
	side_open(&c, &late);
	talk(&c, &s, 100000);
	assert_string_equal(tls_session_error(s.session), "certificate has expired");
	side_free(&s);
	side_free(&c);
}

static void test_server_name(void **state)
{
	const struct fixture *f = *state;
	const struct tls_options so = server_options(f);
	struct tls_options co = client_options(f, NULL);
	struct side s, c;

	co.server_name = "board-a.example";
	side_open(&s, &so);
	side_open(&c, &co);
	talk(&c, &s, 100000);
	assert_true(tls_session_established(c.session));
	side_free(&s);
	side_free(&c);
	static const char *const others[] = {"10.1.2.3", "board-b.example", "board-a"};
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		co.server_name = others[i];
		side_open(&s, &so);
		side_open(&c, &co);
		talk(&c, &s, 100000);
		assert_string_equal(tls_session_error(c.session),
				    "certificate is for another name");
		side_free(&s);
		side_free(&c);
	}
}

static void test_alpn(void **state)
{
	static const char *const served[] = {"tiebreak-raft/1", "http/1.1", NULL};
	static const char *const wanted[] = {"http/1.1", "tiebreak-raft/1", NULL};
	static const char *const foreign[] = {"h2", NULL};
	const struct {
		const char *const *client;
		const char *chosen; /* NULL: refused */
	} cases[] = {{wanted, "tiebreak-raft/1"}, {NULL, ""}, {foreign, NULL}};
	const struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct tls_options so = server_options(f), co = client_options(f, NULL);
		struct side s, c;

		so.alpn = served;
		co.alpn = cases[i].client;
		side_open(&s, &so);
		side_open(&c, &co);
		talk(&c, &s, 100000);
		assert_int_equal(tls_session_established(s.session), cases[i].chosen != NULL);
		if (cases[i].chosen) {
			assert_string_equal(tls_session_alpn(s.session), cases[i].chosen);
			assert_string_equal(tls_session_alpn(c.session), cases[i].chosen);
		}
		side_free(&s);
		side_free(&c);
	}
}

static void test_garbage_and_damage(void **state)
{
	const struct fixture *f = *state;
	const struct tls_options so = server_options(f), co = client_options(f, NULL);
	struct side s, c;

	side_open(&s, &so);
	s.rv = tls_session_receive(s.session, (const uint8_t *)"GET / HTTP/1.1\r\n\r\n", 18,
				   &s.plain, &s.wire);
	assert_int_equal(s.rv, -EPROTO);
	assert_true(tls_session_error(s.session)[0] != '\0');
	side_free(&s);

	side_open(&s, &so);
	side_open(&c, &co);
	talk(&c, &s, 100000);
	tls_session_send(c.session, (const uint8_t *)"hello", 5, &c.wire);
	c.wire.data[c.wire.len - 1] ^= 1;
	move(&c, &s, 3);
	assert_int_equal(s.rv, -EPROTO);
	assert_int_equal(s.plain.len, 0);
	assert_int_equal(tls_session_send(s.session, (const uint8_t *)"x", 1, &s.wire), -EPROTO);
	side_free(&s);
	side_free(&c);
}

static void test_contexts(void **state)
{
	const struct fixture *f = *state;
	struct tls_options options = server_options(f);
	struct tls_context *c;
	const char *message = NULL;

	options.key = f->client.key;
	assert_int_equal(tls_context_new(&options, &c, &message), -EINVAL);
	assert_non_null(strstr(message, "does not fit"));
	options = server_options(f);
	options.certificate = "nothing";
	assert_int_equal(tls_context_new(&options, &c, &message), -EINVAL);
	assert_non_null(strstr(message, "certificate"));
	options = server_options(f);
	options.ca = "";
	assert_int_equal(tls_context_new(&options, &c, &message), -EINVAL);
	assert_non_null(strstr(message, "CA"));
}

/* --- tickets, with a client that resumes (ours do not) --- */

struct resumer {
	SSL_CTX *context;
	SSL *ssl; /* during resumer_connect */
	SSL_SESSION *ticket; /* newest that came */
};

static int resumer_keep(SSL *ssl, SSL_SESSION *session)
{
	struct resumer *r = SSL_get_app_data(ssl);

	SSL_SESSION_free(r->ticket);
	r->ticket = session;
	return 1;
}

static struct resumer resumer_new(const struct fixture *f, const struct test_cert *own)
{
	struct resumer r = {.context = SSL_CTX_new(TLS_client_method())};

	SSL_CTX_use_certificate(r.context, own->public);
	SSL_CTX_use_PrivateKey(r.context, own->private);
	X509_STORE_add_cert(SSL_CTX_get_cert_store(r.context), f->ca.public);
	SSL_CTX_set_session_cache_mode(r.context,
				       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(r.context, resumer_keep);
	return r;
}

/* One connection, with the ticket that it has. What the server thinks of it stays in `s`. */
static void resumer_connect(struct resumer *r, const struct tls_options *options, struct side *s)
{
	BIO *in = BIO_new(BIO_s_mem());
	BIO *out = BIO_new(BIO_s_mem());
	uint8_t bytes[4096];

	side_open(s, options);
	r->ssl = SSL_new(r->context);
	SSL_set_app_data(r->ssl, r);
	SSL_set_bio(r->ssl, in, out);
	if (r->ticket)
		SSL_set_session(r->ssl, r->ticket);
	for (int moved = 1; moved;) {
		size_t len;
		int got;

		moved = 0;
		if (!SSL_is_init_finished(r->ssl))
			SSL_connect(r->ssl);
		else
			SSL_read(r->ssl, bytes, sizeof(bytes)); /* the ticket */
		ERR_clear_error();
		while ((got = BIO_read(out, bytes, sizeof(bytes))) > 0) {
			s->rv = tls_session_receive(s->session, bytes, (size_t)got, &s->plain,
						    &s->wire);
			moved = 1;
		}
		len = s->wire.len;
		if (len > 0)
			BIO_write(in, s->wire.data, (int)len);
		buf_clear(&s->wire);
		moved |= len > 0;
	}
	/* OpenSSL throws away the ticket of a connection that did not end in order. */
	SSL_set_shutdown(r->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(r->ssl);
	r->ssl = NULL;
}

static void resumer_free(struct resumer *r)
{
	SSL_SESSION_free(r->ticket);
	SSL_CTX_free(r->context);
}

static void test_tickets(void **state)
{
	const struct fixture *f = *state;
	struct tls_options so = server_options(f);
	struct resumer r = resumer_new(f, &f->client);
	struct tls_peer first, again;
	struct side s;

	/* Without the option nobody gets one. */
	resumer_connect(&r, &so, &s);
	assert_true(tls_session_established(s.session));
	assert_null(r.ticket);
	side_free(&s);
	so.tickets = true;
	resumer_connect(&r, &so, &s);
	assert_false(tls_session_resumed(s.session));
	assert_non_null(r.ticket);
	tls_session_peer(s.session, &first);
	side_free(&s);
	/* Each connection has a context of its own here, as boards have. */
	for (int i = 0; i < 3; i++) {
		resumer_connect(&r, &so, &s);
		assert_true(tls_session_established(s.session));
		assert_true(tls_session_resumed(s.session));
		tls_session_peer(s.session, &again);
		assert_true(again.present);
		assert_memory_equal(&first, &again, sizeof(first));
		assert_true(tls_session_peer_matches(s.session, "x.site.example"));
		side_free(&s);
	}
	/* Its key is gone when the half day after the present one is over (not "so many hours from
	 * now": those may end in it). */
	so.clock_floor_ms = (clock_realtime_ms() / (DAY / 2 * 1000LL) + 2) * (DAY / 2 * 1000LL);
	resumer_connect(&r, &so, &s);
	assert_true(tls_session_established(s.session));
	assert_false(tls_session_resumed(s.session));
	side_free(&s);
	resumer_free(&r);
}

/* Other keys, another CA, another question: a whole handshake. */
static void test_foreign_tickets(void **state)
{
	const struct fixture *f = *state;
	struct test_cert other = test_cert_new("board-b", &f->ca, NULL, -DAY, DAY, 0);
	struct resumer r = resumer_new(f, &f->client);
	struct tls_options so = server_options(f), foreign[3];
	char *two = mem_printf("%s%s", f->ca.pem, f->foreign_ca.pem);
	struct side s;

	so.tickets = true;
	foreign[0] = foreign[1] = foreign[2] = so;
	foreign[0].certificate = other.pem;
	foreign[0].key = other.key;
	foreign[1].ca = two;
	foreign[2].ask_client_certificate = false;
	for (size_t i = 0; i < 3; i++) {
		resumer_connect(&r, &so, &s);
		side_free(&s);
		resumer_connect(&r, &foreign[i], &s);
		assert_true(tls_session_established(s.session));
		assert_false(tls_session_resumed(s.session));
		side_free(&s);
	}
	free(two);
	test_cert_free(&other);
	resumer_free(&r);
}

/* The certificate's end is looked at when its ticket comes back, not only when it was made. */
static void test_ticket_of_expired(void **state)
{
	const struct fixture *f = *state;
	struct test_cert brief = test_cert_new("Alpha", &f->ca, NULL, -DAY, 3600, 0);
	struct resumer r = resumer_new(f, &brief);
	struct tls_options so = server_options(f);
	struct side s;

	so.tickets = true;
	resumer_connect(&r, &so, &s);
	assert_true(tls_session_established(s.session));
	side_free(&s);
	so.clock_floor_ms = clock_realtime_ms() + 7200 * 1000LL;
	resumer_connect(&r, &so, &s);
	assert_false(tls_session_established(s.session));
	assert_string_equal(tls_session_error(s.session), "certificate has expired");
	side_free(&s);
	resumer_free(&r);
	test_cert_free(&brief);
}

static uint64_t ca_of(const struct test_cert *ca)
{
	struct tls_cas cas;

	tls_cas_read(ca->pem, &cas);
	assert_int_equal(cas.count, 1);
	assert_true(tls_cas_hold(&cas, cas.ids[0]));
	return cas.ids[0];
}

/* Of two CAs that are believed, which vouched for a client? Also when it comes back
 * with a ticket. */
static void test_issuer(void **state)
{
	const struct fixture *f = *state;
	const struct {
		const struct test_cert *client, *ca;
	} cases[] = {{&f->client, &f->ca}, {&f->foreign_client, &f->foreign_ca}};
	struct tls_options so = server_options(f);
	char *two = mem_printf("%s%s", f->ca.pem, f->foreign_ca.pem);
	struct tls_cas cas;
	struct side s;

	tls_cas_read(two, &cas);
	assert_int_equal(cas.count, 2);
	assert_false(tls_cas_hold(&cas, ca_of(&f->namesake_ca)));
	assert_false(tls_cas_hold(&cas, 0));
	for (size_t i = 0; i < 2; i++) {
		struct resumer r = resumer_new(f, cases[i].client);

		for (int round = 0; round < 2; round++) {
			struct tls_peer peer;

			so.tickets = true;
			so.ca = two;
			resumer_connect(&r, &so, &s);
			assert_int_equal(tls_session_resumed(s.session), round);
			tls_session_peer(s.session, &peer);
			assert_true(peer.present);
			assert_true(peer.issuer == ca_of(cases[i].ca));
			side_free(&s);
		}
		resumer_free(&r);
	}
	free(two);
}

/* A CA that another has signed is the one that it is. */
static void test_bridged_issuer(void **state)
{
	int64_t now_ms = clock_realtime_ms();
	struct pki_signed old = {0}, new = {0};
	char *old_key, *new_key, *bridge;
	struct tls_cas bridged, itself;

	(void)state;
	assert_int_equal(pki_key_new(&old_key), 0);
	assert_int_equal(pki_key_new(&new_key), 0);
	assert_int_equal(pki_ca_new("CA", old_key, now_ms, 10, &old), 0);
	assert_int_equal(pki_ca_new("CA", new_key, now_ms, 10, &new), 0);
	assert_int_equal(pki_bridge(old.pem, old_key, new.pem, now_ms, &bridge), 0);
	tls_cas_read(bridge, &bridged);
	tls_cas_read(new.pem, &itself);
	assert_int_equal(bridged.count, 1);
	assert_true(tls_cas_hold(&itself, bridged.ids[0]));
	pki_signed_free(&old);
	pki_signed_free(&new);
	free(old_key);
	free(new_key);
	free(bridge);
}

/* After its owner has forgotten the peer, a session works on and names nobody. */
static void test_forgotten_peer(void **state)
{
	const struct fixture *f = *state;
	struct tls_options so = server_options(f);
	const struct tls_options co = client_options(f, &f->client);
	struct side s, c;
	struct tls_peer peer;

	so.tickets = true;
	side_open(&s, &so);
	side_open(&c, &co);
	talk(&c, &s, 100000);
	tls_session_forget_peer(s.session);
	tls_session_forget_peer(s.session);
	tls_session_peer(s.session, &peer);
	assert_false(peer.present);
	assert_false(tls_session_peer_matches(s.session, "x.site.example"));
	for (int i = 0; i < 3; i++) {
		assert_int_equal(tls_session_send(c.session, (const uint8_t *)"in", 2, &c.wire), 0);
		assert_int_equal(tls_session_send(s.session, (const uint8_t *)"out", 3, &s.wire),
				 0);
		while (move(&c, &s, 100) | move(&s, &c, 100))
			;
	}
	assert_memory_equal(s.plain.data, "ininin", 6);
	assert_memory_equal(c.plain.data, "outoutout", 9);
	side_free(&s);
	side_free(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_rsa_client),
		cmocka_unit_test(test_anonymous),
		cmocka_unit_test(test_unverified),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_clock_floor),
		cmocka_unit_test(test_server_name),
		cmocka_unit_test(test_alpn),
		cmocka_unit_test(test_garbage_and_damage),
		cmocka_unit_test(test_contexts),
		cmocka_unit_test(test_tickets),
		cmocka_unit_test(test_foreign_tickets),
		cmocka_unit_test(test_ticket_of_expired),
		cmocka_unit_test(test_forgotten_peer),
		cmocka_unit_test(test_issuer),
		cmocka_unit_test(test_bridged_issuer),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
