/* core.h: the core thread: raft, the model's single writer, the deciders while leading, leases,
 * links to the other boards. Doors (threads of their own) reach it by letters only.
 *
 * Every function here may be called from any thread after core_start. Answers come as a letter
 * to the `home` mailbox of the caller: `done` runs in the caller's thread. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/api.pb-c.h"
#include "proto/command.pb-c.h"
#include "proto/door.pb-c.h"
#include "proto/peer.pb-c.h"
#include "witnessd/mailbox.h"

struct core;
struct roll_ends;

enum { CORE_CA_DAYS = 36500 }; /* life of a CA */

/* A clock outside 2026 .. 2056 is wrong, not early or late: it neither stamps commands nor makes
 * certificates (DESIGN S6). */
#define CORE_CLOCK_FIRST_MS INT64_C(1767225600000)
#define CORE_CLOCK_LAST_MS INT64_C(2713910400000)

/* What the doors may read at any time without asking. */
struct core_view {
	/* Own boot clock; 0: none. A door accepts sites and sends ACKs only before this time (S2).
	 */
	_Atomic uint64_t lease_until_ms;
	_Atomic uint64_t node_id; /* 0: not in a cluster */
	_Atomic uint64_t leader_id; /* 0: not known */
	_Atomic uint64_t term;
	_Atomic uint64_t applied_index;
	_Atomic int state; /* enum core_state */
	/* Newest time that the log has seen: certificates are checked at max(now, this) (S6). */
	_Atomic int64_t clock_floor_ms;
	/* The time of the cluster (cluster/clocks.h) less the own boot clock; 0: not known yet. */
	_Atomic int64_t clock_offset_ms;
	_Atomic bool drained; /* this board takes no new site nodes */
};
/* STARTING: it has an identity and reads its log. */
enum core_state {
	CORE_NEW,
	CORE_STARTING,
	CORE_JOINING,
	CORE_SERVING,
	CORE_NO_QUORUM,
	CORE_FAILED
};

const struct core_view *core_view(const struct core *c);
/* The time of the cluster: what is signed and what ends is measured by it. While it is not known,
 * by the own clock, and never before the newest time of the log. */
int64_t core_view_now_ms(const struct core_view *v);
/* What is signed at that time is valid from then, or from the own clock's time if that is earlier:
 * should the log be ahead, it is of use to those whose clock is right. */
int64_t core_valid_from_ms(int64_t now_ms);
/* Path of the model database, for readers of their own. "" while CORE_NEW. */
const char *core_model_path(const struct core *c);

/* Commands for the log: proposed here or forwarded to the leader, then waited for until this
 * board's own model has them. `commands` are taken over. error: 0 (look at the results);
 * -EAGAIN no leader within the deadline (nothing happened); -ETIMEDOUT it may or may not happen:
 * propose the same ids again to learn; -ENOTCONN not in a cluster.
 * results: one per command, valid during `done`. */
typedef void (*core_proposed)(void *arg, int error, Tb__CommandResult *const *results,
			      size_t count);
void core_propose(struct core *c, struct mailbox *home, Tb__Command **commands, size_t count,
		  core_proposed done, void *arg);

/* Soft state from the leader: which of the query's fields is set decides. The answer is valid
 * during `done`; error as above. `query` is copied. */
typedef void (*core_answered)(void *arg, int error, const Tb__PeerAnswer *answer);
void core_query(struct core *c, struct mailbox *home, const Tb__PeerQuery *query,
		core_answered done, void *arg);

/* Life of this board. `message` (valid during `done`) says what went wrong with the remedy. */
typedef void (*core_controlled)(void *arg, int error, const char *message);
void core_init_cluster(struct core *c, struct mailbox *home, const Tb__ClusterInitRequest *request,
		       core_controlled done, void *arg);
void core_join_cluster(struct core *c, struct mailbox *home, const Tb__ClusterJoinRequest *request,
		       core_controlled done, void *arg);
/* A new cluster of this board from a backup (copied); a name in the request must be the backup's.
 */
void core_restore_cluster(struct core *c, struct mailbox *home,
			  const Tb__ClusterInitRequest *request, const uint8_t *backup, size_t len,
			  core_controlled done, void *arg);
/* A new cluster of this board from its own log, after the majority is lost for good. `recovery` is
 * valid during `done`, NULL with an error. */
typedef void (*core_recovered)(void *arg, int error, const char *message,
			       const Tb__ClusterRecovery *recovery);
void core_recover_cluster(struct core *c, struct mailbox *home,
			  const Tb__ClusterRecoverRequest *request, core_recovered done, void *arg);
/* GET /v1/local. The caller owns the answer. */
Tb__LocalStatus *core_local_status(struct core *c);

/* What this board's host says of itself, for whoever leads. Taken over. */
void core_host_report(struct core *c, Tb__HostReport *report);

/* A door's events, in order. Taken over. */
void core_door_events(struct core *c, Tb__DoorEvent **events, size_t count);

/* What the holder of this board's service addresses says (holder.h). Taken over. */
void core_address_report(struct core *c, uint64_t letter, Tb__PeerAddressReport *report);

/* What the core calls in other threads (each posts a letter to its own mailbox); set before start.
 */
struct core_listeners {
	void *arg;
	/* The model changed up to this index (coalesced). */
	void (*model_changed)(void *arg, uint64_t applied_index);
	/* Identity or secrets are there or changed: make TLS contexts. */
	void (*identity_changed)(void *arg);
	/* Orders for site sessions of this board, taken over. */
	void (*door_orders)(void *arg, Tb__DoorOrder **orders, size_t count);
	/* Send a reset and a report of every session: there is a new leader or a new link to it. */
	void (*door_report)(void *arg);
	/* Site nodes attached to this board now. */
	uint32_t (*door_sessions)(void *arg);
	/* The lease was gained (open the socket) or lost (close all sessions and the socket). */
	void (*door_serve)(void *arg, bool on);
	/* The board was drained (refuse new sessions, keep those that are there) or undrained. */
	void (*door_admit)(void *arg, bool on);
	/* All service addresses that this board is to have, as holder_hold. Copied. */
	void (*address_hold)(void *arg, uint64_t letter, const Tb__PeerAddressOrder *order,
			     uint64_t until_ms);
	/* Clients of a board that died, whose address this board has now. Taken over. */
	void (*address_tickle)(void *arg, struct roll_ends *ends, size_t count);
	/* Ask a board of another cluster for admission: pin is the SHA-256 (hex) of its cluster CA.
	 * `request` is taken over; answered by core_join_answered with the same id. */
	void (*join_dial)(void *arg, uint64_t dial_id, const char *address, const char *pin,
			  Tb__JoinRequest *request);
	/* Make an outgoing TLS link to a board: a connected local socket, plain bytes, comes back
	 * by core_link_dialed with the same id, or an error. */
	void (*link_dial)(void *arg, uint64_t dial_id, const char *address, const char *alpn,
			  uint64_t expect_node);
	/* Try whether somebody listens at an address: core_link_dialed with 0, or an error. */
	void (*reach_dial)(void *arg, uint64_t dial_id, const char *address);
	/* For this board's host (host.h), all NULL: there is none. Its lease on the boot clock (0:
	 * none), and what its model must have applied before a VM starts (hosting_fence); at each
	 * change. */
	void (*host_lease)(void *arg, uint64_t until_ms, uint64_t fence);
	/* Since when (boot clock) the host has not taken what host_lease told; 0: it has. */
	uint64_t (*host_waits)(void *arg);
	/* Report whole: there is a new leader or a new link to it. */
	void (*host_report)(void *arg);
};

struct core_config {
	const char *data_dir; /* identity and raft log; claimed by main (directory.h) */
	const char *run_dir; /* model database and sockets; tmpfs */
	const char *node_name; /* default name of this board */
	const char *address; /* default host:port that other boards and clients reach us by */
	const char *qnet_address;
	const char *watchdog; /* its device; NULL: none is armed */
	unsigned watchdog_timeout_s;
	bool watchdog_keep; /* it stays armed when witnessd ends */
};
/* Made before the doors, which need it; nothing runs yet. `listeners` is copied; its functions are
 * called from the core's thread only, from core_start on. Strings are copied. */
struct core *core_new(const struct core_config *config, const struct core_listeners *listeners);
/* Starts the thread; an existing identity is loaded and its log opened before this returns 0.
 * Otherwise *ret_message says what is wrong, where, and the remedy; core_free is still owed. */
int core_start(struct core *c, const char **ret_message);
/* Hands the leadership over if it has it, closes the log, ends the thread. After it the listeners
 * are called no more; the doors may still call in until they are stopped and get errors. */
void core_stop(struct core *c);
/* After core_stop and after the doors are gone. */
void core_free(struct core *c);
/* The log has failed at run time (see the log for the reason): main ends the process. Called once,
 * from the core's thread. */
void core_on_failure(struct core *c, void (*failed)(void *arg), void *arg);

/* Answers of the front to link_dial, and incoming links whose certificate was verified as that of
 * board `node`. `fd` is one end of a socketpair carrying the plaintext; the core owns it. */
void core_link_dialed(struct core *c, uint64_t dial_id, int fd_or_error);
void core_link_accepted(struct core *c, const char *alpn, uint64_t node, int fd);

/* error 0 and the reply (copied), or a negative errno and a sentence with the remedy. */
void core_join_answered(struct core *c, uint64_t dial_id, int error, const char *message,
			const Tb__JoinReply *reply);

/* Handles a JoinRequest of a new board (any board takes it); the answer goes to `home`. */
typedef void (*core_joined)(void *arg, const Tb__JoinReply *reply);
void core_admit(struct core *c, struct mailbox *home, const Tb__JoinRequest *request,
		core_joined done, void *arg);
