/* client.c: libwitness-agent: one connection to one of the boards, and the claim over it.
 *
 *   NONE --dial--> CONNECTING --> HANDSHAKING --hello--> GREETED --welcome--> OPEN
 *     ^                                                                        |
 *     +---------------- any failure; the next board after a while ------------+
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/boards.h"
#include "agent/claim.h"
#include "agent/tls.h"
#include "agent/witness_agent.h"
#include "lib/address.h"
#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "lib/rng.h"
#include "proto/agent.pb-c.h"
#include "proto/frame.h"

enum {
	LEASE_DEFAULT_MS = 10000,
	LEASE_LEAST_MS = 3000,
	LEASE_MOST_MS = 120000,
	STOP_LEAST_MS = 100,
	GREET_MOST_MS = 5000, /* from the dial to the welcome; less with a short lease */
	FRAME_MAX_FROM_BOARD = 4096,
	OUT_MAX = 64 << 10,
	LOOKUP_EVERY_MS = 60000,
};

enum link_state { LINK_NONE, LINK_CONNECTING, LINK_HANDSHAKING, LINK_GREETED, LINK_OPEN };

struct board {
	char *text;
	struct address address; /* as written; a name until it was looked up */
	bool known; /* address is ready for connect */
	uint64_t looked_up_ms;
};

struct witness_agent {
	struct witness_agent_options options; /* the callbacks; texts and lists are below */
	struct tls_identity *identity;
	struct board boards_list[WITNESS_AGENT_BOARDS];
	struct boards boards;
	uint32_t nodes[WITNESS_AGENT_NODES];
	char *name;
	struct claim claim;
	uint64_t instance;
	uint64_t attempt;
	uint64_t generation;
	uint64_t site_generation;
	uint32_t seen[WITNESS_AGENT_NODES];
	size_t seen_count;
	bool report_due;
	bool unsettled; /* the boards have not answered our newest claim yet */
	/* the connection */
	enum link_state state;
	int fd;
	struct tls_link *tls;
	unsigned board;
	uint64_t deadline_ms; /* of the greeting */
	struct buf in, out;
	char why[WITNESS_AGENT_TEXT];
};

static void act(struct witness_agent *wa, const struct claim_out *out);

__attribute__((format(printf, 2, 3))) static void news(struct witness_agent *wa, const char *format,
						       ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(wa->why, sizeof(wa->why), format, args);
	va_end(args);
	if (wa->options.news != NULL)
		wa->options.news(wa->options.arg, wa->why);
}

static bool holding(const struct witness_agent *wa)
{
	return wa->claim.state == CLAIM_HELD || wa->claim.state == CLAIM_STOPPING;
}

/* --- the connection --- */

static void link_drop(struct witness_agent *wa)
{
	tls_link_free(wa->tls);
	wa->tls = NULL;
	if (wa->fd >= 0)
		close(wa->fd);
	wa->fd = -1;
	wa->state = LINK_NONE;
	buf_free(&wa->in);
	buf_free(&wa->out);
	claim_disconnected(&wa->claim);
}

static void link_failed(struct witness_agent *wa, const char *why)
{
	char text[WITNESS_AGENT_TEXT];

	snprintf(text, sizeof(text), "%.190s", why); /* it may be of what is dropped here */
	link_drop(wa);
	boards_failed(&wa->boards, holding(wa), clock_boottime_ms());
	news(wa, "board %.60s: %s", wa->boards_list[wa->board].text, text);
}

static void send_frame(struct witness_agent *wa, const Tb__AgentFrame *frame)
{
	if (wa->state < LINK_HANDSHAKING || wa->out.len > OUT_MAX)
		return; /* a board that reads nothing is found by its silence */
	frame_append(&wa->out, &frame->base);
}

static void fill_claim(struct witness_agent *wa, Tb__AgentClaim *claim)
{
	claim->number = wa->claim.number;
	claim->wanted = wa->claim.wanted && wa->claim.state != CLAIM_STOPPING;
	claim->epoch = wa->claim.epoch;
	claim->generation = wa->generation;
	claim->seen = wa->seen;
	claim->n_seen = wa->seen_count;
	wa->report_due = false;
	wa->unsettled = true;
}

static void send_claim(struct witness_agent *wa)
{
	Tb__AgentFrame frame = TB__AGENT_FRAME__INIT;
	Tb__AgentClaim claim = TB__AGENT_CLAIM__INIT;

	if (wa->state != LINK_OPEN)
		return;
	fill_claim(wa, &claim);
	frame.what_case = TB__AGENT_FRAME__WHAT_CLAIM;
	frame.claim = &claim;
	send_frame(wa, &frame);
}

static void send_hello(struct witness_agent *wa)
{
	Tb__AgentFrame frame = TB__AGENT_FRAME__INIT;
	Tb__AgentHello hello = TB__AGENT_HELLO__INIT;
	Tb__AgentClaim claim = TB__AGENT_CLAIM__INIT;

	fill_claim(wa, &claim);
	hello.node = wa->options.node;
	hello.name = wa->name;
	hello.version = (char *)TIEBREAK_VERSION;
	hello.lease_ms = wa->claim.lease_ms;
	hello.nodes = wa->nodes;
	hello.n_nodes = wa->options.node_count;
	hello.instance = wa->instance;
	hello.attempt = wa->attempt;
	hello.claim = &claim;
	frame.what_case = TB__AGENT_FRAME__WHAT_HELLO;
	frame.hello = &hello;
	send_frame(wa, &frame);
}

static void send_confirm(struct witness_agent *wa, uint64_t ticket)
{
	Tb__AgentFrame frame = TB__AGENT_FRAME__INIT;
	Tb__AgentConfirm confirm = TB__AGENT_CONFIRM__INIT;

	confirm.ticket = ticket;
	frame.what_case = TB__AGENT_FRAME__WHAT_CONFIRM;
	frame.confirm = &confirm;
	send_frame(wa, &frame);
}

static void send_renew(struct witness_agent *wa, uint64_t number)
{
	Tb__AgentFrame frame = TB__AGENT_FRAME__INIT;
	Tb__AgentRenew renew = TB__AGENT_RENEW__INIT;

	renew.number = number;
	frame.what_case = TB__AGENT_FRAME__WHAT_RENEW;
	frame.renew = &renew;
	send_frame(wa, &frame);
}

/* Carries out what the claim says. Callbacks may change the claim again: they come last. */
static void act(struct witness_agent *wa, const struct claim_out *out)
{
	uint64_t now = clock_boottime_ms();

	if (out->confirm != 0)
		send_confirm(wa, out->confirm);
	if (out->claim)
		send_claim(wa);
	if (out->renew != 0)
		send_renew(wa, out->renew);
	if (out->dead)
		link_failed(wa, "it does not answer");
	if (out->gained)
		wa->options.gained(wa->options.arg, wa->claim.epoch);
	if (out->lost)
		wa->options.lost(
			wa->options.arg, wa->claim.epoch,
			wa->claim.until_ms > now ? (uint32_t)(wa->claim.until_ms - now) : 0);
}

/* --- frames of the board --- */

static void take_welcome(struct witness_agent *wa, const Tb__BoardWelcome *welcome)
{
	struct claim_out out = {0};

	if (wa->state != LINK_GREETED)
		return;
	wa->state = LINK_OPEN;
	boards_welcome(&wa->boards);
	news(wa, "connected to board %.64s at %.64s", welcome->board,
	     wa->boards_list[wa->board].text);
	/* What has changed since the hello. */
	send_claim(wa);
	claim_connected(&wa->claim, clock_boottime_ms(), &out);
	act(wa, &out);
}

static void take_lease(struct witness_agent *wa, const Tb__BoardLease *lease)
{
	struct claim_out out = {0};

	if (wa->state != LINK_OPEN)
		return;
	wa->site_generation = lease->generation;
	if (!lease->yours || lease->claim == wa->claim.number)
		wa->unsettled = false;
	if (lease->why[0] != '\0')
		news(wa, "%s: %.200s", lease->yours ? "the lease is ours" : "the lease is not ours",
		     lease->why);
	claim_lease(&wa->claim, lease->ticket, lease->yours, lease->epoch, lease->claim,
		    clock_boottime_ms(), &out);
	act(wa, &out);
}

static void take_frame(struct witness_agent *wa, const Tb__BoardFrame *frame)
{
	struct claim_out out = {0};

	switch (frame->what_case) {
	case TB__BOARD_FRAME__WHAT_WELCOME:
		take_welcome(wa, frame->welcome);
		break;
	case TB__BOARD_FRAME__WHAT_REFUSED:
		link_failed(wa, frame->refused->why);
		break;
	case TB__BOARD_FRAME__WHAT_LEASE:
		take_lease(wa, frame->lease);
		break;
	case TB__BOARD_FRAME__WHAT_RENEWED:
		claim_renewed(&wa->claim, frame->renewed->number, clock_boottime_ms(), &out);
		act(wa, &out);
		break;
	case TB__BOARD_FRAME__WHAT_NOTED:
		wa->site_generation = frame->noted->generation;
		break;
	default:
		break; /* of a later release */
	}
}

/* False: the connection is gone. */
static bool take_frames(struct witness_agent *wa)
{
	for (;;) {
		ProtobufCMessage *frame;
		const uint8_t *payload;
		size_t payload_len, frame_len;
		int rv = frame_next(wa->in.data, wa->in.len, FRAME_MAX_FROM_BOARD, &payload,
				    &payload_len, &frame_len);

		if (rv == 0)
			return true;
		if (rv > 0)
			rv = frame_unpack(&tb__board_frame__descriptor, payload, payload_len,
					  FRAME_MEMORY(payload_len), &frame);
		if (rv < 0) {
			link_failed(wa, "what it sends is no frame of a board");
			return false;
		}
		buf_consume(&wa->in, frame_len);
		take_frame(wa, (const Tb__BoardFrame *)frame);
		protobuf_c_message_free_unpacked(frame, NULL);
		if (wa->state == LINK_NONE)
			return false;
	}
}

/* --- dialing --- */

/* May take seconds: never while something is held. */
static void board_look_up(struct board *b, uint64_t now_ms)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *found;
	char port[8];

	if (b->address.kind != ADDRESS_NAME || (b->known && now_ms < b->looked_up_ms))
		return;
	snprintf(port, sizeof(port), "%u", b->address.port);
	b->looked_up_ms = now_ms + LOOKUP_EVERY_MS;
	if (getaddrinfo(b->address.host, port, &hints, &found) != 0)
		return;
	memcpy(&b->address.socket, found->ai_addr, found->ai_addrlen);
	b->address.socket_len = found->ai_addrlen;
	b->known = true;
	freeaddrinfo(found);
}

static void link_dial(struct witness_agent *wa)
{
	uint64_t now = clock_boottime_ms();
	uint64_t patience = wa->claim.lease_ms / CLAIM_SILENT_PARTS;
	struct board *b;
	int on = 1;

	wa->board = boards_next(&wa->boards);
	wa->attempt++;
	b = &wa->boards_list[wa->board];
	if (!holding(wa))
		board_look_up(b, now);
	if (!b->known) {
		link_failed(wa, "its name is not known (DNS); an address is better");
		return;
	}
	wa->fd = socket(b->address.socket.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
			0);
	if (wa->fd < 0) {
		link_failed(wa, strerror(errno));
		return;
	}
	setsockopt(wa->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(wa->fd, &b->address.socket.any, b->address.socket_len) != 0 &&
	    errno != EINPROGRESS) {
		link_failed(wa, strerror(errno));
		return;
	}
	wa->state = LINK_CONNECTING;
	wa->deadline_ms = now + (patience < GREET_MOST_MS ? patience : GREET_MOST_MS);
}

static void link_connected(struct witness_agent *wa)
{
	struct pollfd ready = {.fd = wa->fd, .events = POLLOUT};
	int error = 0;
	socklen_t len = sizeof(error);

	if (poll(&ready, 1, 0) != 1)
		return;
	getsockopt(wa->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error != 0) {
		link_failed(wa, strerror(error));
		return;
	}
	wa->tls = tls_link_new(wa->identity, wa->fd, "tiebreak-agent/1");
	wa->state = LINK_HANDSHAKING;
}

static void link_handshake(struct witness_agent *wa)
{
	int rv = tls_link_handshake(wa->tls);

	if (rv == -EAGAIN)
		return;
	if (rv != 0) {
		link_failed(wa, tls_link_error(wa->tls));
		return;
	}
	wa->state = LINK_GREETED;
	send_hello(wa);
}

static void link_read(struct witness_agent *wa)
{
	uint8_t bytes[2048];
	int got = 1;

	while (wa->state >= LINK_GREETED && got > 0) {
		got = tls_link_read(wa->tls, bytes, sizeof(bytes));
		if (got == -EAGAIN)
			return;
		if (got <= 0) {
			link_failed(wa, tls_link_error(wa->tls));
			return;
		}
		buf_append(&wa->in, bytes, (size_t)got);
		if (!take_frames(wa))
			return;
	}
}

static void link_write(struct witness_agent *wa)
{
	while (wa->state >= LINK_GREETED && wa->out.len > 0) {
		int took = tls_link_write(wa->tls, wa->out.data, wa->out.len);

		if (took == -EAGAIN)
			return;
		if (took < 0) {
			link_failed(wa, tls_link_error(wa->tls));
			return;
		}
		buf_consume(&wa->out, (size_t)took);
	}
}

/* --- the public side --- */

static int check_boards(struct witness_agent *wa, const char *const *boards, char *why)
{
	unsigned count = 0;

	for (; boards != NULL && boards[count] != NULL; count++) {
		struct board *b = &wa->boards_list[count];

		if (count == WITNESS_AGENT_BOARDS) {
			snprintf(why, WITNESS_AGENT_TEXT, "boards: at most %d are possible",
				 WITNESS_AGENT_BOARDS);
			return -EINVAL;
		}
		if (address_parse(boards[count], &b->address) != 0 ||
		    b->address.kind == ADDRESS_ANY || b->address.socket.any.sa_family == AF_UNIX ||
		    b->address.port == 0) {
			snprintf(why, WITNESS_AGENT_TEXT,
				 "boards: \"%.100s\" is no address of a board; write HOST:PORT, as "
				 "in 10.0.0.11:7443",
				 boards[count]);
			return -EINVAL;
		}
		b->text = mem_strdup(boards[count]);
		b->known = b->address.kind == ADDRESS_SOCKET;
	}
	if (count == 0) {
		snprintf(why, WITNESS_AGENT_TEXT,
			 "boards: give the address of one board at least, of all better");
		return -EINVAL;
	}
	boards_init(&wa->boards, count, rng_u64(), clock_boottime_ms());
	return 0;
}

static int check_nodes(struct witness_agent *wa, const struct witness_agent_options *o, char *why)
{
	bool own = o->node_count == 0;

	if (o->node == 0) {
		snprintf(why, WITNESS_AGENT_TEXT, "node: give this node's id, from 1");
		return -EINVAL;
	}
	if (o->node_count > WITNESS_AGENT_NODES) {
		snprintf(why, WITNESS_AGENT_TEXT, "nodes: a site has at most %d",
			 WITNESS_AGENT_NODES);
		return -EINVAL;
	}
	for (size_t i = 0; i < o->node_count; i++) {
		wa->nodes[i] = o->nodes[i];
		own |= o->nodes[i] == o->node;
	}
	if (own)
		return 0;
	snprintf(why, WITNESS_AGENT_TEXT, "nodes: node %u itself is missing in the list", o->node);
	return -EINVAL;
}

static int check_times(struct witness_agent *wa, const struct witness_agent_options *o, char *why)
{
	uint32_t lease = o->lease_ms != 0 ? o->lease_ms : LEASE_DEFAULT_MS;
	uint32_t stop = o->stop_ms != 0 ? o->stop_ms : lease / 4;

	if (lease < LEASE_LEAST_MS || lease > LEASE_MOST_MS) {
		snprintf(why, WITNESS_AGENT_TEXT, "lease: %u ms are not between 3 s and 120 s",
			 lease);
		return -EINVAL;
	}
	if (stop < STOP_LEAST_MS || stop >= lease / 2) {
		snprintf(why, WITNESS_AGENT_TEXT,
			 "stop-time: %u ms are not between 0.1 s and half of the lease (%u ms); "
			 "make "
			 "the lease longer",
			 stop, lease / 2);
		return -EINVAL;
	}
	/* Claims of an earlier start had smaller numbers, unless the clock has gone back: then the
	 * boards tell them apart by the instance. */
	claim_init(&wa->claim, lease, stop, (uint64_t)clock_realtime_ms());
	return 0;
}

int witness_agent_new(const struct witness_agent_options *options, struct witness_agent **ret,
		      char why[WITNESS_AGENT_TEXT])
{
	struct witness_agent *wa = mem_zalloc(sizeof(*wa));
	const char *name = options->name != NULL ? options->name : "";
	const char *problem = "";
	int rv;

	wa->options = *options;
	wa->fd = -1;
	wa->instance = rng_u64() | 1;
	wa->name = mem_strndup(name, strnlen(name, 64));
	rv = check_boards(wa, options->boards, why);
	if (rv == 0)
		rv = check_nodes(wa, options, why);
	if (rv == 0)
		rv = check_times(wa, options, why);
	if (rv == 0) {
		rv = tls_identity_new(options->certificate, options->key, options->ca,
				      &wa->identity, &problem);
		if (rv != 0)
			snprintf(why, WITNESS_AGENT_TEXT, "%s", problem);
	}
	if (rv != 0) {
		witness_agent_free(wa);
		return rv;
	}
	*ret = wa;
	return 0;
}

void witness_agent_free(struct witness_agent *wa)
{
	if (wa == NULL)
		return;
	link_drop(wa);
	tls_identity_free(wa->identity);
	for (unsigned i = 0; i < WITNESS_AGENT_BOARDS; i++)
		free(wa->boards_list[i].text);
	free(wa->name);
	free(wa);
}

void witness_agent_want(struct witness_agent *wa, bool wanted)
{
	struct claim_out out = {0};

	claim_want(&wa->claim, wanted, clock_boottime_ms(), &out);
	act(wa, &out);
}

void witness_agent_stopped(struct witness_agent *wa)
{
	struct claim_out out = {0};

	claim_stopped(&wa->claim, clock_boottime_ms(), &out);
	act(wa, &out);
}

void witness_agent_report(struct witness_agent *wa, uint64_t generation, const uint32_t *seen,
			  size_t seen_count)
{
	if (seen_count > WITNESS_AGENT_NODES)
		seen_count = WITNESS_AGENT_NODES;
	if (generation == wa->generation && seen_count == wa->seen_count &&
	    (seen_count == 0 || memcmp(seen, wa->seen, seen_count * sizeof(*seen)) == 0))
		return;
	wa->generation = generation;
	wa->seen_count = seen_count;
	if (seen_count > 0)
		memcpy(wa->seen, seen, seen_count * sizeof(*seen));
	wa->report_due = true;
}

int witness_agent_identity(struct witness_agent *wa, const char *certificate, const char *key,
			   const char *ca, char why[WITNESS_AGENT_TEXT])
{
	struct tls_identity *fresh;
	const char *problem = "";
	int rv = tls_identity_new(certificate, key, ca, &fresh, &problem);

	if (rv != 0) {
		snprintf(why, WITNESS_AGENT_TEXT, "%s", problem);
		return rv;
	}
	link_drop(wa);
	tls_identity_free(wa->identity);
	wa->identity = fresh;
	wa->boards.due_ms = clock_boottime_ms();
	return 0;
}

int witness_agent_poll(struct witness_agent *wa, struct pollfd *fd, int *timeout_ms)
{
	uint64_t now = clock_boottime_ms();
	uint64_t due = claim_due(&wa->claim);

	if (wa->state == LINK_NONE && wa->boards.due_ms < due)
		due = wa->boards.due_ms;
	if (wa->state != LINK_NONE && wa->state != LINK_OPEN && wa->deadline_ms < due)
		due = wa->deadline_ms;
	if (wa->report_due && wa->state == LINK_OPEN)
		due = now;
	*timeout_ms = due == UINT64_MAX ? -1 : due <= now ? 0 : (int)(due - now);
	if (wa->state == LINK_NONE)
		return 0;
	*fd = (struct pollfd){.fd = wa->fd, .events = POLLIN};
	if (wa->state == LINK_CONNECTING)
		fd->events = POLLOUT;
	else if (wa->out.len > 0 ||
		 (wa->state == LINK_HANDSHAKING && tls_link_wants_write(wa->tls)))
		fd->events |= POLLOUT;
	return 1;
}

void witness_agent_turn(struct witness_agent *wa)
{
	struct claim_out out = {0};

	/* First what cannot wait: the end of the lease. */
	claim_tick(&wa->claim, clock_boottime_ms(), &out);
	act(wa, &out);
	if (wa->state == LINK_NONE && clock_boottime_ms() >= wa->boards.due_ms)
		link_dial(wa);
	if (wa->state == LINK_CONNECTING)
		link_connected(wa);
	if (wa->state == LINK_HANDSHAKING)
		link_handshake(wa);
	link_read(wa);
	if (wa->state == LINK_OPEN && wa->report_due)
		send_claim(wa);
	link_write(wa);
	if (wa->state != LINK_NONE && wa->state != LINK_OPEN &&
	    clock_boottime_ms() >= wa->deadline_ms)
		link_failed(wa, "it does not answer");
}

void witness_agent_status(const struct witness_agent *wa, struct witness_agent_status *ret)
{
	*ret = (struct witness_agent_status){.state = (enum witness_agent_state)wa->claim.state,
					     .wanted = wa->claim.wanted,
					     .epoch = wa->claim.epoch,
					     .until_ms = wa->claim.until_ms,
					     .site_generation = wa->site_generation,
					     .connected = wa->state == LINK_OPEN};
	snprintf(ret->board, sizeof(ret->board), "%s", wa->boards_list[wa->board].text);
	memcpy(ret->why, wa->why, sizeof(ret->why));
}

bool witness_agent_idle(const struct witness_agent *wa)
{
	return wa->claim.state == CLAIM_IDLE &&
	       (wa->state != LINK_OPEN || (!wa->unsettled && wa->out.len == 0));
}
