/* agent_door.h: the door for site nodes that run witness-agent. It lives in the front's loop, which
 * hands it connections whose TLS handshake chose "tiebreak-agent/1"; it translates their frames
 * into Tb__DoorEvent and Tb__DoorOrder into frames and knows no rule (agent_session.h has the
 * protocol).
 *
 * It keeps sessions and answers only while the board's lease is valid (DESIGN S2), which it checks
 * by itself before anything is sent: without one an agent is sent away at once and goes on to
 * another board. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "lib/ip.h"
#include "witnessd/agent_session.h"
#include "witnessd/mailbox.h"
#include "witnessd/stream.h"

struct core_view;
struct agent_door;

/* What the door needs of the rest of the board. Called in the loop's thread. */
struct agent_door_upcalls {
	void *arg;
	/* In order; taken over. */
	void (*events)(void *arg, Tb__DoorEvent **events, size_t count);
	const struct core_view *view;
	/* 0: not revoked; 1: revoked, or of a CA that is believed no more (`issuer` as in
	 * tls_peer); negative: cannot be read. */
	int (*revoked)(void *arg, const char *serial, uint64_t issuer);
	/* After a change of the model: does it concern open sessions, so that `revoked` is to be
	 * asked for each? 1 or 0; negative: cannot be read, it is asked again. */
	int (*concerns)(void *arg);
	/* Name of this board; valid until the next call. */
	const char *(*board_name)(void *arg);
	uint64_t (*clock_ms)(void *arg); /* boot clock; NULL: the real one */
};

/* In the loop's thread, or before it runs; `home` is the loop's mailbox. `upcalls` is copied. */
struct agent_door *agent_door_new(uv_loop_t *loop, struct mailbox *home, unsigned sessions_max,
				  const struct agent_door_upcalls *upcalls);
/* Resets all sessions; the streams end in the loop's own time, before its group is freed. */
void agent_door_close(struct agent_door *d, void (*closed)(void *arg), void *arg);
/* After `closed` and after the group of the streams is gone. NULL is fine. */
void agent_door_free(struct agent_door *d);

/* In the loop's thread: the connection is the door's. */
void agent_door_adopt(struct agent_door *d, struct stream *s);
/* The same: something in the model has changed. */
void agent_door_model_changed(struct agent_door *d);

/* What the core calls (struct core_listeners); from any thread, each returns at once. */
void agent_door_orders(struct agent_door *d, Tb__DoorOrder **orders, size_t count); /* taken over */
void agent_door_report(struct agent_door *d);
void agent_door_serve(struct agent_door *d, bool on);
void agent_door_leave(struct agent_door *d, const struct ip *ip);

struct agent_door_stats {
	uint64_t sessions; /* open now */
	uint64_t accepted; /* connections, since the start */
	uint64_t refused; /* for their certificate or their number */
	uint64_t renewals; /* answered */
	uint64_t silent; /* given up for their silence */
};
/* Any thread. */
void agent_door_stats(const struct agent_door *d, struct agent_door_stats *ret);
/* For metrics_collect. */
void agent_door_metrics(void *door, bool open, struct buf *out);
