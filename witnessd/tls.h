/* tls.h: TLS on bytes, no sockets. The only file that says SSL_.
 *
 * A context is made from PEM and shared by threads once made. A session turns ciphertext into
 * plaintext and back through memory; the stream (stream.h) moves the bytes. TLS 1.2 and 1.3,
 * AEAD suites only, ECDSA P-256 by default; buffers are released while idle. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

struct tls_context;
struct tls_session;

struct tls_options {
	const char *certificate; /* PEM chain; NULL: a client without one */
	const char *key; /* PEM */
	const char *ca; /* PEM: peers are verified against it; NULL: not verified */
	bool server;
	bool ask_client_certificate; /* server: ask; never require here: doors decide */
	const char *const *alpn; /* NULL-terminated, in order of preference; NULL: none used */
	const char *server_name; /* client: SNI and name to verify; NULL: none */
	/* server: a client may come back with a ticket instead of the whole handshake (TLS 1.3). It
	 * holds the client's certificate, sealed with a key that follows from `key` and `ca`: every
	 * server with the same ones can open it, another never. tls_session_peer says what the
	 * certificate said; an expired one is not taken, so the client has to show its new one. */
	bool tickets;
	int64_t clock_floor_ms; /* certificates are checked at max(now, this), or at this if now is
				   decades ahead (S6); 0: now */
};

/* 0, or -EINVAL and *ret_message (static or thread's own) naming what is wrong with the PEM. */
int tls_context_new(const struct tls_options *options, struct tls_context **ret,
		    const char **ret_message);
/* Another reference, for whoever keeps the context; each is given back by tls_context_free. */
struct tls_context *tls_context_share(struct tls_context *c);
void tls_context_free(struct tls_context *c); /* sessions keep what they need */
/* The same as clock_floor_ms of the options, for sessions to come. Any thread. */
void tls_context_set_clock_floor(struct tls_context *c, int64_t floor_ms);
bool tls_context_is_server(const struct tls_context *c);

struct tls_session *tls_session_new(struct tls_context *c);
void tls_session_free(struct tls_session *s);

/* Ciphertext from the network goes in, plaintext comes out at the end of `plain`; what must go to
 * the network is appended to `wire` in every call. 0; -EPIPE: the peer closed TLS in order;
 * -EPROTO: TLS failed, tls_session_error says why (send `wire` first: it holds the alert). */
int tls_session_receive(struct tls_session *s, const uint8_t *data, size_t len, struct buf *plain,
			struct buf *wire);
/* Plaintext to send; before the handshake is done it is kept and sent after it. */
int tls_session_send(struct tls_session *s, const uint8_t *data, size_t len, struct buf *wire);
/* Client: writes the ClientHello. */
int tls_session_start(struct tls_session *s, struct buf *wire);
/* Writes the close alert. */
void tls_session_close(struct tls_session *s, struct buf *wire);
/* Plaintext kept for after the handshake. */
size_t tls_session_pending(const struct tls_session *s);
bool tls_session_established(const struct tls_session *s);
const char *tls_session_error(const struct tls_session *s);
/* ALPN chosen, "" if none. */
const char *tls_session_alpn(const struct tls_session *s);

/* CAs by their keys: one that another has signed (a bridge) is the same as when it signs itself. */
enum { TLS_CAS_MAX = 4 };
struct tls_cas {
	unsigned count;
	uint64_t ids[TLS_CAS_MAX];
};
/* Those of a PEM text; what is no certificate ends it, what is too much is left out. */
void tls_cas_read(const char *pem, struct tls_cas *ret);
bool tls_cas_hold(const struct tls_cas *cas, uint64_t id);

/* The verified certificate of the peer. present: it sent one and it verified. */
struct tls_peer {
	bool present;
	char common_name[128];
	char serial[64]; /* lower-case hex */
	char uri[256]; /* first URI SAN, "" if none */
	char sha256[65]; /* of the DER */
	uint64_t issuer; /* the CA of the context that vouched for it (tls_cas); 0: unknown */
	int64_t not_after_ms;
};
void tls_session_peer(const struct tls_session *s, struct tls_peer *ret);
/* The owner has taken what it needs of the peer's certificate: most of its memory is given back,
 * and from now on the peer counts as not present. */
void tls_session_forget_peer(struct tls_session *s);
/* The client came back with a ticket. */
bool tls_session_resumed(const struct tls_session *s);
/* Does the peer's certificate name `host` by the rules of TLS host names (SAN before CN,
 * wildcards in the leftmost label, case ignored)? As corosync-qnetd checks cluster names. */
bool tls_session_peer_matches(const struct tls_session *s, const char *host);
/* As a client, for pinning a CA before it is known (join): 0 if the chain that the peer sent leads
 * from its own certificate, one of a server, to the one with this SHA-256 (hex). -ENOENT: that one
 * is not in it; -EACCES: it is, but the chain does not lead to it. During a rotation a chain leads
 * to two. */
int tls_session_peer_leads_to(const struct tls_session *s, const char *sha256);
