/* stream.h: one connection on a loop: TCP or Unix socket, in the clear or TLS, upgradable in the
 * middle (QNet STARTTLS). The handshakes of all streams of a loop share a time budget per loop
 * turn (notes, libraries.md section 5), so that a storm of clients delays nobody for long.
 *
 * The owner embeds nothing: streams are opaque, made by listeners or stream_connect, freed by
 * themselves after `closed`, which is called exactly once and is the last call. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "lib/address.h"
#include "witnessd/tls.h"

struct admission;
struct stream;
struct stream_listener;
struct stream_group; /* the streams of one loop: budget, limits */

enum stream_end {
	STREAM_END_PEER, /* FIN or TLS close from the other side */
	STREAM_END_RESET, /* ECONNRESET, EPIPE: the other side's own kernel has ended it */
	STREAM_END_LOST, /* unreachable, timed out, our own trouble: the peer may not know */
	STREAM_END_TLS, /* handshake or record failure */
	STREAM_END_TIMEOUT, /* connect or handshake deadline */
	STREAM_END_LOCAL, /* stream_close or stream_abort */
	STREAM_END_CONNECT, /* an outgoing connect failed */
};

struct stream_events {
	/* The stream can be used: connected, and the TLS handshake is over if there is TLS. */
	void (*ready)(struct stream *s);
	/* Plaintext. `bytes` is valid during the call only. The callee takes all. It may close. */
	void (*data)(struct stream *s, const uint8_t *bytes, size_t len);
	/* All that was written has gone to the kernel (only called after stream_write said more
	 * than 0). */
	void (*drained)(struct stream *s);
	void (*closed)(struct stream *s, enum stream_end end, const char *detail);
};

struct stream_group *stream_group_new(uv_loop_t *loop, unsigned handshake_budget_us);
/* Aborts what is left, then calls `freed` from the loop. */
void stream_group_free(struct stream_group *g, void (*freed)(void *arg), void *arg);
/* Ends what is past its deadline at `now_ms` (of uv_now). The group's own timer calls it, and
 * tests do. */
void stream_group_expire(struct stream_group *g, uint64_t now_ms);
/* Streams that have ciphertext of a handshake and wait for their turn. Those of members
 * (admission.h) and those that we dialed ourselves have every other turn as long as there are any:
 * neither a crowd at the door nor the boards can keep the others out. */
unsigned stream_group_handshakes(const struct stream_group *g);
uv_loop_t *stream_group_loop(const struct stream_group *g);

/* TCP "host:port" ("[::1]:5403", "*:5403", "0.0.0.0:0") or "unix:/path". The TLS context may be
 * NULL (clear; stream_start_tls later). Connections over `limit`, and those that `admission` has no
 * place for, are accepted and closed at once; `over_limit` counts them. A place is pending until
 * the TLS handshake is over, and is left when the stream is closed. `accepted` is called before
 * anything is read: set data, events, arg.
 * 0; -EADDRINUSE and others, *ret_message says address, cause and remedy. */
struct stream_listen {
	const char *address;
	struct tls_context *tls;
	unsigned limit; /* 0: none */
	struct admission *admission; /* NULL: none; outlives the listener and its streams */
	int backlog;
	unsigned mode; /* unix: permission bits of the socket file */
	const struct stream_events *events;
	void (*accepted)(struct stream *s, void *arg);
	/* Instead of all that: who connects becomes no stream here, its socket (owned by the
	 * callee) may be adopted by another loop. NULL: as above. */
	void (*taken)(int fd, const struct sockaddr *peer, void *arg);
	void *arg;
};
int stream_listen(struct stream_group *g, const struct stream_listen *how,
		  struct stream_listener **ret, const char **ret_message);
/* The port that was bound (for port 0). */
unsigned stream_listener_port(const struct stream_listener *l);
void stream_listener_close(struct stream_listener *l); /* its streams live on */
/* Connections closed at once because there were too many, or no descriptor was left. */
uint64_t stream_listener_over_limit(const struct stream_listener *l);
/* Closes a socket that became no stream, by RST: nothing is kept until the other end agrees. */
void stream_socket_reset(int fd);
/* New connections use this context from now on. The listener keeps a reference of its own. */
void stream_listener_set_tls(struct stream_listener *l, struct tls_context *tls);

/* Outgoing. `closed` tells a failure (STREAM_END_CONNECT). */
struct stream *stream_connect(struct stream_group *g, const char *address, struct tls_context *tls,
			      unsigned timeout_ms, const struct stream_events *events, void *arg);
/* A connected socket that someone else made; owned by the stream from here on. */
struct stream *stream_adopt(struct stream_group *g, int fd, const struct stream_events *events,
			    void *arg);

/* Hands the stream to another owner: the next event goes there. */
void stream_set_events(struct stream *s, const struct stream_events *events, void *arg);
void stream_set_arg(struct stream *s, void *arg);
void *stream_arg(const struct stream *s);
struct stream_group *stream_group_of(const struct stream *s);
/* "10.0.0.1:34346", "[::1]:5", "unix" */
const char *stream_peer_address(const struct stream *s);
/* The address of this end, as address_format writes it; "" if it cannot be told. */
void stream_local_address(const struct stream *s, char text[ADDRESS_TEXT]);
/* NULL while in the clear. */
struct tls_session *stream_tls(struct stream *s);
/* The kernel's estimate of the longest usual round trip (mean and four deviations); 0: not TCP. */
unsigned stream_rtt_ms(const struct stream *s);
/* Peer of a Unix socket: uid, or -ENOTSUP. */
int stream_peer_uid(const struct stream *s, unsigned *ret_uid);
/* Ends the stream when the peer has acknowledged no byte of what was written for `ms`, which TCP
 * alone waits for a quarter of an hour for; and a second later than that if nothing is written and
 * nobody is there any more, which TCP alone never notices. Nothing happens on a Unix socket. */
void stream_silence_limit(struct stream *s, unsigned ms);

/* In the clear so far: everything after the bytes consumed so far is TLS; the context says
 * whether we are its server or its client. Called from `data`, `rest` is what came behind the
 * STARTTLS message. `ready` comes again. */
void stream_start_tls(struct stream *s, struct tls_context *tls, const uint8_t *rest, size_t len);

/* Queues bytes; sends at once what the socket takes (TCP_NODELAY is on). Returns the bytes still
 * queued; the owner stops producing above its own limit. After close or abort: ignored, 0. */
size_t stream_write(struct stream *s, const void *data, size_t len);
/* Several stream_write in one segment. */
void stream_cork(struct stream *s);
void stream_uncork(struct stream *s);
/* Stop and go on reading (back-pressure). */
void stream_pause(struct stream *s);
void stream_resume(struct stream *s);
/* In order: sends what is queued, TLS close, FIN; `closed` follows. */
void stream_close(struct stream *s);
/* At once, by RST: nothing queued reaches the peer any more (DESIGN S1: no late ACK). */
void stream_abort(struct stream *s);
