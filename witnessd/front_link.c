/* front_link.c: connections that do not speak HTTP: links between boards, and boards that join.
 *
 *   accepted --handshake--> by ALPN:  http -------> http.h
 *                                     peer, raft -> certificate of a board? -> pump -> core
 *                                     join -------> JoinRequest -> core_admit -> JoinReply
 *                                     agent ------> agent_door.h
 *                                     host -------> as peer, but -> host
 *   dialed ----handshake--> the board expected? --> pump -> core
 *                           the CA of the token? -> JoinRequest -> JoinReply -> core
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "proto/frame.h"
#include "witnessd/api_call.h"
#include "witnessd/core.h"
#include "witnessd/front_internal.h"
#include "witnessd/host.h"
#include "witnessd/link.h"

enum end_kind {
	END_ENTRANT, /* accepted; what it wants is not known yet */
	END_ADMITTED, /* a board that wants in: its request is read, or with the core */
	END_DIAL, /* ours, for a link */
	END_JOIN, /* ours, to be admitted elsewhere */
};

struct link_end {
	struct list link;
	struct front *front;
	struct stream *stream; /* NULL: gone, the core still has the request */
	enum end_kind kind;
	uint64_t deadline_ms; /* 0: the stream has its own */
	struct buf in;
	bool asked; /* the core has the request */
	/* dials */
	uint64_t dial_id;
	char *address;
	char alpn[16];
	uint64_t expect_node;
	char *pin;
	Tb__JoinRequest *request;
};

static struct link_end *end_new(struct front *f, enum end_kind kind)
{
	struct link_end *e = mem_zalloc(sizeof(*e));

	e->front = f;
	e->kind = kind;
	list_append(&f->links, &e->link);
	return e;
}

static void end_free(struct link_end *e)
{
	if (e->kind == END_ADMITTED)
		e->front->joiners--;
	list_remove(&e->link);
	tb__join_request__free_unpacked(e->request, NULL);
	buf_free(&e->in);
	free(e->address);
	free(e->pin);
	free(e);
}

void front_links_free(struct front *f)
{
	list_for_each_safe (at, &f->links)
		end_free(list_entry(at, struct link_end, link));
}

static bool pump_holds(void *arg, uint64_t node, const char *serial, uint64_t issuer)
{
	const char *why;

	return api_board_holds(((struct front *)arg)->api, node, serial, issuer, &why) == 0;
}

void front_links_check(struct front *f)
{
	links_check(&f->pumps, pump_holds, f);
}

/* --- a rotation of the CA: links are made anew before the old CA ends --- */

struct renewed {
	struct store *s;
	const struct front *f;
	const char *ca_sha256; /* of the CA that signs */
	bool found; /* what the last look has found */
	unsigned count; /* boards */
	unsigned rank; /* of this one among them, by id */
	uint64_t ready[LIMIT_NODES]; /* whose certificate of the new CA is on their disk */
	unsigned ready_count;
	bool self; /* so is our own */
};

static int renewed_certificate(void *arg, const Tb__Certificate *row)
{
	struct renewed *r = arg;

	r->found |= !row->revoked && row->saved && strcmp(row->ca_sha256, r->ca_sha256) == 0;
	return r->found;
}

static int renewed_visit(void *arg, const Tb__Node *row)
{
	struct renewed *r = arg;

	r->count++;
	r->rank += row->id < r->f->identity.node_id;
	r->found = false;
	store_certificates_of(r->s, "node", row->name, renewed_certificate, r);
	r->self |= r->found && row->id == r->f->identity.node_id;
	if (r->found && r->ready_count < LIMIT_NODES)
		r->ready[r->ready_count++] = row->id;
	return 0;
}

static bool renewed_holds(void *arg, uint64_t node, const char *serial, uint64_t issuer)
{
	struct renewed *r = arg;
	bool ready = false;

	(void)serial;
	for (unsigned i = 0; i < r->ready_count; i++)
		ready |= r->ready[i] == node;
	if (!ready || issuer == r->f->believed.ids[0])
		return true;
	/* Those of one board at a time. */
	r->ready[0] = node;
	r->ready_count = 1;
	return false;
}

/* At the end of the rotation all links of the old CA end at once, and a leader that has none for a
 * second leads no more. So each is made anew while both CAs are believed, when both of its boards
 * have the new certificate: those of one board at a time, by one board at a time as far as their
 * clocks agree. */
void front_links_renew(struct front *f)
{
	struct renewed r = {.s = api_store(f->api), .f = f};
	uint64_t slot = (uint64_t)clock_realtime_ms() / FRONT_RENEW_MS;
	Tb__Cluster *cluster;

	if (f->believed.count < 2 || slot == f->renew_slot || r.s == NULL ||
	    store_cluster_get(r.s, &cluster) != 0)
		return;
	r.ca_sha256 = cluster->ca_sha256;
	if (cluster->ca_rotation == TB__CA_ROTATION__CA_ROTATION_OVERLAP &&
	    store_nodes(r.s, renewed_visit, &r) == 0 && r.self && slot % r.count == r.rank)
		links_check(&f->pumps, renewed_holds, &r);
	f->renew_slot = slot;
	tb__cluster__free_unpacked(cluster, NULL);
}

void front_links_expire(struct front *f, uint64_t now_ms)
{
	list_for_each_safe (at, &f->links) {
		struct link_end *e = list_entry(at, struct link_end, link);

		if (e->stream != NULL && e->deadline_ms != 0 && e->deadline_ms <= now_ms)
			stream_abort(e->stream);
	}
}

static void silent_data(struct stream *s, const uint8_t *bytes, size_t len)
{
	(void)s;
	(void)bytes;
	(void)len;
}

static void silent_closed(struct stream *s, enum stream_end end, const char *detail)
{
	(void)s;
	(void)end;
	(void)detail;
}

static const struct stream_events silent_events = {.data = silent_data, .closed = silent_closed};

/* The stream becomes something else. */
static struct stream *end_release(struct link_end *e)
{
	struct stream *s = e->stream;

	e->stream = NULL;
	end_free(e);
	return s;
}

/* --- which board --- */

static uint64_t peer_node(const struct tls_peer *peer)
{
	static const char head[] = "tiebreak:node/";
	uint64_t node;

	if (!peer->present || strncmp(peer->uri, head, sizeof(head) - 1) != 0 ||
	    text_to_u64(peer->uri + sizeof(head) - 1, 1, UINT64_MAX, &node) != 0)
		return 0;
	return node;
}

/* The plain socket of the link, or a negative errno; the stream is taken care of either way. */
static int end_pump(struct link_end *e)
{
	struct stream *s = e->stream;
	struct tls_peer peer;
	int fd;
	int rv;

	tls_session_peer(stream_tls(s), &peer);
	front_member_seen(e->front, peer_node(&peer), stream_peer_address(s));
	rv = link_pump(s, &e->front->pumps, peer_node(&peer), &peer, &fd);

	if (rv == 0) {
		end_release(e);
		return fd;
	}
	log_error("link", "no socket for a link of %s: %s", stream_peer_address(s), strerror(-rv));
	/* A dial is answered by its caller. */
	stream_set_events(s, &silent_events, NULL);
	end_release(e);
	stream_abort(s);
	return rv;
}

/* --- incoming --- */

static void entrant_refuse(struct link_end *e, const char *why)
{
	log_notice("link-refused", "%s: %s", stream_peer_address(e->stream), why);
	stream_abort(e->stream);
}

static void entrant_link(struct link_end *e, const char *alpn)
{
	struct front *f = e->front;
	const char *why = "it has no certificate of a board";
	struct tls_peer peer;
	struct host *host;
	char name[16];
	uint64_t node;
	int fd;

	tls_session_peer(stream_tls(e->stream), &peer);
	node = peer_node(&peer);
	if (node == 0 || api_board_holds(f->api, node, peer.serial, peer.issuer, &why) != 0) {
		entrant_refuse(e, why);
		return;
	}
	snprintf(name, sizeof(name), "%s", alpn);
	host = atomic_load(&f->host);
	if (strcmp(name, ALPN_HOST) == 0 && host == NULL) {
		entrant_refuse(e, "this board has no host yet");
		return;
	}
	fd = end_pump(e);
	if (fd < 0)
		return;
	if (strcmp(name, ALPN_HOST) == 0)
		host_link_accepted(host, node, fd);
	else
		core_link_accepted(f->core, name, node, fd);
}

static void entrant_join(struct link_end *e)
{
	struct front *f = e->front;
	unsigned retry_s;

	if (f->joiners >= FRONT_JOINERS_MAX ||
	    api_limiter_blocked(f->join_limiter, stream_peer_address(e->stream),
				clock_boottime_ms(), &retry_s)) {
		entrant_refuse(e, "too many attempts to join");
		return;
	}
	e->kind = END_ADMITTED;
	e->deadline_ms = uv_now(&f->loop) + FRONT_JOIN_MS;
	f->joiners++;
}

static void entrant_ready(struct stream *s)
{
	struct link_end *e = stream_arg(s);
	struct front *f = e->front; /* outlives e, which end_release frees */
	const char *alpn = tls_session_alpn(stream_tls(s));

	if (*alpn == '\0' || strcmp(alpn, ALPN_HTTP) == 0)
		http_server_adopt(f->http, end_release(e));
	else if (strcmp(alpn, ALPN_JOIN) == 0)
		entrant_join(e);
	else if (strcmp(alpn, ALPN_AGENT) == 0)
		agent_door_adopt(f->agents, end_release(e));
	else
		entrant_link(e, alpn);
}

static void admitted(void *arg, const Tb__JoinReply *reply)
{
	struct link_end *e = arg;
	struct buf out = {0};

	if (e->stream == NULL) {
		end_free(e);
		return;
	}
	e->asked = false;
	if (reply->refusal != TB__REFUSAL__REFUSAL_NONE)
		api_limiter_failed(e->front->join_limiter, stream_peer_address(e->stream),
				   clock_boottime_ms());
	frame_append(&out, &reply->base);
	stream_write(e->stream, out.data, out.len);
	stream_close(e->stream);
	buf_free(&out);
}

static void entrant_data(struct stream *s, const uint8_t *bytes, size_t len)
{
	struct link_end *e = stream_arg(s);
	const uint8_t *payload;
	size_t payload_len;
	size_t frame_len;
	ProtobufCMessage *request;
	int rv;

	if (e->kind != END_ADMITTED || e->asked)
		return; /* it talks on before its answer has come: not listened to */
	buf_append(&e->in, bytes, len);
	rv = frame_next(e->in.data, e->in.len, FRONT_JOIN_BYTES, &payload, &payload_len,
			&frame_len);
	if (rv == 0)
		return;
	if (rv < 0 || frame_unpack(&tb__join_request__descriptor, payload, payload_len,
				   FRAME_MEMORY(payload_len), &request) != 0) {
		entrant_refuse(e, "that is no request to join");
		return;
	}
	e->asked = true;
	core_admit(e->front->core, &e->front->mailbox, (Tb__JoinRequest *)request, admitted, e);
	protobuf_c_message_free_unpacked(request, NULL);
}

static void entrant_closed(struct stream *s, enum stream_end end, const char *detail)
{
	struct link_end *e = stream_arg(s);

	if (end == STREAM_END_TLS) {
		metric_add(e->front->handshake_failures, 1);
		log_debug("tls-failed", "%s: %s", stream_peer_address(s), detail);
	}
	e->stream = NULL;
	if (!e->asked)
		end_free(e);
}

const struct stream_events front_entrant_events = {
	.ready = entrant_ready, .data = entrant_data, .closed = entrant_closed};

void front_accepted(struct stream *s, void *arg)
{
	struct link_end *e = end_new(arg, END_ENTRANT);

	e->stream = s;
	stream_set_arg(s, e);
}

/* --- outgoing links --- */

static int end_errno(enum stream_end end)
{
	switch (end) {
	case STREAM_END_TIMEOUT:
		return -ETIMEDOUT;
	case STREAM_END_TLS:
		return -EPROTO;
	case STREAM_END_CONNECT:
		return -ECONNREFUSED;
	default:
		return -ECONNRESET;
	}
}

/* To whom it belongs that a link was dialed. */
static void dial_answer(struct front *f, bool of_host, uint64_t dial_id, int fd_or_error)
{
	if (of_host)
		host_link_dialed(atomic_load(&f->host), dial_id, fd_or_error);
	else
		core_link_dialed(f->core, dial_id, fd_or_error);
}

static bool end_of_host(const struct link_end *e)
{
	return strcmp(e->alpn, ALPN_HOST) == 0;
}

static void dial_ready(struct stream *s)
{
	struct link_end *e = stream_arg(s);
	struct front *f = e->front;
	uint64_t dial_id = e->dial_id;
	bool of_host = end_of_host(e);
	const char *why = "it is another board";
	struct tls_peer peer;

	tls_session_peer(stream_tls(s), &peer);
	if (peer_node(&peer) != e->expect_node ||
	    api_board_holds(f->api, e->expect_node, peer.serial, peer.issuer, &why) != 0) {
		log_warning("link-refused", "%s should be board %llu: %s", e->address,
			    (unsigned long long)e->expect_node, why);
		stream_abort(s);
		return;
	}
	dial_answer(f, of_host, dial_id, end_pump(e));
}

static void dial_closed(struct stream *s, enum stream_end end, const char *detail)
{
	struct link_end *e = stream_arg(s);

	log_debug("link-failed", "%s: %s", e->address, detail);
	dial_answer(e->front, end_of_host(e), e->dial_id, end_errno(end));
	end_free(e);
}

static const struct stream_events dial_events = {
	.ready = dial_ready, .data = silent_data, .closed = dial_closed};

/* Only whether somebody is there: a board that wants to join has no certificate yet. */
static void reach_ready(struct stream *s)
{
	struct link_end *e = stream_arg(s);

	core_link_dialed(e->front->core, e->dial_id, 0);
	stream_set_events(s, &silent_events, NULL);
	end_release(e);
	stream_abort(s);
}

static const struct stream_events reach_events = {
	.ready = reach_ready, .data = silent_data, .closed = dial_closed};

struct dial_letter {
	struct letter letter;
	struct front *front;
	struct link_end *end; /* in no list yet */
};

/* What a dial letter brings is a link from now on; the letter is spent. */
static struct link_end *dial_taken(struct letter *letter)
{
	struct dial_letter *d = list_entry(letter, struct dial_letter, letter);
	struct link_end *e = d->end;

	list_append(&d->front->links, &e->link);
	free(d);
	return e;
}

static void link_dial_open(struct letter *letter)
{
	struct link_end *e = dial_taken(letter);
	struct front *f = e->front;
	struct tls_context *context = end_of_host(e)			? f->host_context
				      : strcmp(e->alpn, ALPN_RAFT) == 0 ? f->raft_context
									: f->peer_context;

	if (f->stopping || context == NULL) {
		dial_answer(f, end_of_host(e), e->dial_id, -ENOTCONN);
		end_free(e);
		return;
	}
	e->stream = stream_connect(f->group, e->address, context, FRONT_DIAL_MS, &dial_events, e);
}

static struct dial_letter *dial_new(struct front *f, enum end_kind kind, uint64_t dial_id,
				    const char *address)
{
	struct dial_letter *d = mem_zalloc(sizeof(*d));

	d->front = f;
	d->end = mem_zalloc(sizeof(*d->end));
	d->end->front = f;
	d->end->kind = kind;
	d->end->dial_id = dial_id;
	d->end->address = mem_strdup(address);
	list_init(&d->end->link);
	return d;
}

static void dial_discard(struct dial_letter *d)
{
	end_free(d->end);
	free(d);
}

void front_link_dial(struct front *f, uint64_t dial_id, const char *address, const char *alpn,
		     uint64_t expect_node)
{
	struct dial_letter *d = dial_new(f, END_DIAL, dial_id, address);

	d->letter.open = link_dial_open;
	d->end->expect_node = expect_node;
	snprintf(d->end->alpn, sizeof(d->end->alpn), "%s", alpn);
	if (mailbox_answer(&f->mailbox, &d->letter) != 0)
		dial_discard(d);
}

static void reach_dial_open(struct letter *letter)
{
	struct link_end *e = dial_taken(letter);
	struct front *f = e->front;

	if (f->stopping) {
		core_link_dialed(f->core, e->dial_id, -ESHUTDOWN);
		end_free(e);
		return;
	}
	e->stream = stream_connect(f->group, e->address, NULL, FRONT_DIAL_MS, &reach_events, e);
}

void front_reach_dial(struct front *f, uint64_t dial_id, const char *address)
{
	struct dial_letter *d = dial_new(f, END_DIAL, dial_id, address);

	d->letter.open = reach_dial_open;
	if (mailbox_answer(&f->mailbox, &d->letter) != 0)
		dial_discard(d);
}

void front_host_dial(struct front *f, uint64_t dial_id, const char *address, uint64_t node)
{
	front_link_dial(f, dial_id, address, ALPN_HOST, node);
}

/* --- joining another cluster --- */

static void join_answer(struct link_end *e, int error, const char *message,
			const Tb__JoinReply *reply)
{
	front_join_unlisten(e->front); /* the port is for what comes with the identity */
	core_join_answered(e->front->core, e->dial_id, error, message, reply);
	e->asked = true;
}

static void join_ready(struct stream *s)
{
	struct link_end *e = stream_arg(s);
	struct buf out = {0};
	int rv = tls_session_peer_leads_to(stream_tls(s), e->pin);
	char *text;

	if (rv == -EACCES) {
		text = mem_printf("%s does not show a board's certificate with its CA; is it a "
				  "board?",
				  e->address);
	} else if (rv != 0) {
		text = mem_printf(
			"this token belongs to another cluster than the board at %s; take "
			"a token of that cluster, or the address of one of its boards",
			e->address);
	} else {
		frame_append(&out, &e->request->base);
		stream_write(s, out.data, out.len);
		mem_wipe(out.data, out.len);
		buf_free(&out);
		return;
	}
	join_answer(e, -EACCES, text, NULL);
	free(text);
	stream_abort(s);
}

static void join_data(struct stream *s, const uint8_t *bytes, size_t len)
{
	struct link_end *e = stream_arg(s);
	const uint8_t *payload;
	size_t payload_len;
	size_t frame_len;
	ProtobufCMessage *reply;
	int rv;

	if (e->asked)
		return;
	buf_append(&e->in, bytes, len);
	rv = frame_next(e->in.data, e->in.len, FRONT_JOIN_BYTES, &payload, &payload_len,
			&frame_len);
	if (rv == 0)
		return;
	if (rv < 0 || frame_unpack(&tb__join_reply__descriptor, payload, payload_len,
				   FRAME_MEMORY(payload_len), &reply) != 0) {
		join_answer(e, -EPROTO, "the other board's answer cannot be read", NULL);
	} else {
		join_answer(e, 0, "", (Tb__JoinReply *)reply);
		protobuf_c_message_free_unpacked(reply, NULL);
	}
	stream_close(s);
}

static void join_closed(struct stream *s, enum stream_end end, const char *detail)
{
	struct link_end *e = stream_arg(s);
	char *text;

	(void)s;
	if (!e->asked) {
		text = mem_printf("%s: %s; check the address, that witnessd runs there and that "
				  "this board may connect to it",
				  e->address, detail);
		join_answer(e, end_errno(end), text, NULL);
		free(text);
	}
	end_free(e);
}

static const struct stream_events join_events = {
	.ready = join_ready, .data = join_data, .closed = join_closed};

static void join_dial_open(struct letter *letter)
{
	struct link_end *e = dial_taken(letter);
	struct front *f = e->front;

	if (f->stopping) {
		join_answer(e, -ESHUTDOWN, "this board is stopping", NULL);
		end_free(e);
		return;
	}
	e->deadline_ms = uv_now(&f->loop) + FRONT_JOIN_MS;
	e->request->listening = front_join_listen(f) == 0;
	e->stream = stream_connect(f->group, e->address, f->join_context, FRONT_DIAL_MS,
				   &join_events, e);
}

void front_join_dial(struct front *f, uint64_t dial_id, const char *address, const char *pin,
		     Tb__JoinRequest *request)
{
	struct dial_letter *d = dial_new(f, END_JOIN, dial_id, address);

	d->letter.open = join_dial_open;
	d->end->pin = mem_strdup(pin);
	d->end->request = request;
	if (mailbox_answer(&f->mailbox, &d->letter) != 0)
		dial_discard(d);
}
