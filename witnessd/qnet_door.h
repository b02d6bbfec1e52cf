/* qnet_door.h: the door for site nodes that speak QNet (corosync-qdevice), on threads and loops of
 * its own (DESIGN section 3), over which the sessions are spread. It translates bytes into
 * Tb__DoorEvent and Tb__DoorOrder into bytes and knows no voting rule (qnet_session.h has the
 * protocol).
 *
 * It listens, keeps sessions and answers only while the board's lease is valid (DESIGN S2), which
 * it checks by itself before anything is sent: a board without a lease refuses connects, so that
 * clients go on to the next address at once. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/ip.h"
#include "proto/door.pb-c.h"
#include "proto/model.pb-c.h"
#include "witnessd/qnet_session.h"

struct config;
struct core;
struct core_view;
struct qnet_door;

/* The door of a running daemon: events go to the core, policies and keys come from its model.
 * Called before core_start; the door waits for a lease. 0; other: *ret_message (valid until the
 * next failed start) says what is wrong, where, and the remedy (a port in use is found here). */
int qnet_door_start(const struct config *config, struct core *core, struct qnet_door **ret,
		    const char **ret_message);
/* Resets all sessions, ends the threads, frees the door. */
void qnet_door_stop(struct qnet_door *door);

/* What the core calls (struct core_listeners); from any thread, each returns at once. */
void qnet_door_orders(struct qnet_door *door, Tb__DoorOrder **orders,
		      size_t count); /* taken over */
void qnet_door_report(struct qnet_door *door);
void qnet_door_serve(struct qnet_door *door, bool on);
/* Off: new connects are refused, as without a lease; the sessions that are there go on. */
void qnet_door_admit(struct qnet_door *door, bool on);
/* A service address is about to leave this board: its sessions end. */
void qnet_door_leave(struct qnet_door *door, const struct ip *ip);
void qnet_door_identity(struct qnet_door *door);
void qnet_door_model_changed(struct qnet_door *door, uint64_t applied_index);

struct qnet_door_stats {
	uint64_t sessions[QNET_STATES]; /* now, by state */
	uint64_t accepted; /* connections, since the start */
	uint64_t refused_limit; /* closed at once: sessions-max or the address's own limits */
	uint64_t waiting; /* now, in the lobby (lobby.h) */
	uint64_t sent_away; /* waited too long there */
	uint64_t echoes;
	uint64_t silent; /* given up for their silence */
	uint64_t resumed; /* TLS sessions that came back with a ticket */
	uint64_t certificate_refused; /* none, another site's, or revoked */
	uint64_t leases_lost; /* times that all sessions were reset for the lack of a lease */
};
/* Any thread. */
void qnet_door_stats(const struct qnet_door *door, struct qnet_door_stats *ret);

/* --- the same door in other surroundings (tests) --- */

enum { QNET_DOOR_THREADS_MAX = 16 };

struct qnet_door_config {
	const char *listen; /* "*:5403" */
	enum qnet_tls tls; /* for sites whose policy does not say */
	bool client_certificate; /* required over TLS */
	unsigned threads; /* loops; 0: one; at most QNET_DOOR_THREADS_MAX */
	unsigned sessions_max;
	unsigned sessions_per_address_max; /* 0: no limit */
	unsigned pending_per_address_max; /* not attached yet; 0: no limit */
	unsigned window; /* of each loop: connections on their way in at once; 0: 256 */
	uint64_t (*clock_ms)(void *arg); /* boot clock; NULL: the real one */
	void *clock_arg;
};

/* What a loop of the door needs of the rest of the board. Called in its thread. */
struct qnet_door_upcalls {
	void *arg;
	/* In order; taken over. Of all loops, one call at a time, with the first loop's `arg`. */
	void (*events)(void *arg, Tb__DoorEvent **events, size_t count);
	const struct core_view *view;
	/* 0 and a policy that the door frees; -ENOENT no such site; other: cannot be read. */
	int (*site)(void *arg, const char *name, Tb__SitePolicy **ret);
	/* 0: not revoked; 1: revoked; negative: cannot be read. */
	int (*revoked)(void *arg, const char *serial);
	/* 0 and new secrets that the door wipes and frees; -ENOENT: none yet. */
	int (*secrets)(void *arg, Tb__Secrets **ret);
	/* Could the change up to now concern sessions that are open (revocation, site, policy)? 1
	 * or 0; negative: cannot be read, it is asked again. */
	int (*concerns)(void *arg);
	/* The loop is gone (also after a failed start); nothing is called any more. NULL: not
	 * needed. */
	void (*stopped)(void *arg);
};
/* `upcalls`: one for each thread. */
int qnet_door_start_in(const struct qnet_door_config *config,
		       const struct qnet_door_upcalls *upcalls, struct qnet_door **ret,
		       const char **ret_message);
/* The port in use, 0 while not listening. */
unsigned qnet_door_port(const struct qnet_door *door);
