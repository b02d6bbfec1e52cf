/* core_internal.h: what the files of the core thread share: core.c (thread, start, stop, model),
 * peer.c (control links), lead.c (duties of the leader), proposal.c (writes on their way),
 * admit.c (init, join, admission). All of it runs in the core's thread.
 *
 *   letters of doors --> proposal.c --> engine --> core.c: apply --> lead.c: fleet --> flush
 *   peer.c: frames   -->                                             peer.c / door: orders
 */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <uv.h>

#include "cluster/apply.h"
#include "cluster/engine.h"
#include "cluster/fleet.h"
#include "cluster/lease.h"
#include "cluster/store.h"
#include "lib/list.h"
#include "proto/json.h"
#include "witnessd/core.h"
#include "witnessd/identity.h"

enum {
	CORE_TICK_MS = LEASE_RENEW_MS,
	CORE_PROPOSE_DEADLINE_MS = 10000,
	CORE_QUERY_DEADLINE_MS = 5000,
	CORE_JOIN_DEADLINE_MS = 60000,
	CORE_MAILBOX_LIMIT = 200000,
	CORE_BATCH = 256, /* grants in one entry */
	CORE_CERT_DAYS = 825, /* of boards; renewed by joining again */
	CORE_CA_DAYS = 36500,
};

struct peer;
struct proposal;

/* Soft state of a board at the leader. */
struct board_soft {
	uint64_t node; /* 0: free */
	uint64_t applied_index;
	uint32_t sessions;
};

/* One outgoing link that the front is making for us. */
struct dial {
	struct list link;
	uint64_t id;
	struct engine_dial *raft; /* NULL: the control link to the leader */
};

struct core {
	pthread_t thread;
	uv_loop_t loop;
	struct mailbox mailbox;
	uv_prepare_t flush;
	uv_timer_t tick; /* every CORE_TICK_MS */
	uv_timer_t lease_end; /* when the own lease ends */
	uv_timer_t fleet_due;
	uv_sem_t started;
	int start_status;
	char start_message[512];
	bool stopping;
	bool shut; /* nothing new begins any more; the log is closing */
	int open_handles;

	char *data_dir, *run_dir, *raft_dir, *model_path;
	char *default_name, *default_address, *default_qnet_address;
	struct core_listeners listeners;
	struct core_view view;
	pthread_mutex_t detail_lock;
	char detail[512]; /* of the state, for a person */
	/* The identity's, for other threads; under the same lock. */
	char shown_name[sizeof(((struct identity *)0)->node_name)];
	char shown_cluster[sizeof(((struct identity *)0)->cluster_id)];

	struct identity identity; /* node_id 0: none yet */
	struct store *store;
	struct engine *engine;
	int64_t newest_ms; /* newest time carried by a command: the floor of our clock (S6) */
	bool model_dirty; /* since the last flush */
	bool nodes_dirty;
	bool self_seen; /* the model has named this board */
	bool threaded; /* the thread runs */
	void (*failed)(void *arg);
	void *failed_arg;
	bool secrets_seen;

	/* as a follower */
	struct lease lease;
	struct peer *up; /* the link to the leader, NULL none */
	uint64_t up_dial; /* dial id, 0 none */
	uint64_t up_node; /* whom we dialed */
	bool serving;
	/* Reports that the own doors (by the top bit of their sessions) still owe. Until it has
	 * begun the last one, what it says belongs to the time before and is dropped, and this
	 * board gets no more lease: the leader counts on the end of the last one for sessions that
	 * it does not know (S4). */
	unsigned reports_due[2];

	/* as the leader */
	bool barrier_sent;
	struct fleet *fleet; /* NULL: not leading (or not ready to) */
	uint64_t fleet_term;
	struct lease_table leases;
	struct board_soft boards[LIMIT_NODES]; /* what the others said with their renewals */
	bool membership_busy;

	struct list peers; /* control links, incoming and the outgoing one */
	struct list dials;
	struct list proposals;
	struct list queries;
	uint64_t next_id;

	struct join *join; /* of this board, under way */
	struct init *init;
};

uint64_t core_next_id(struct core *c);
void core_set_state(struct core *c, enum core_state state, const char *detail, ...)
	__attribute__((format(printf, 3, 4)));
bool core_leading(const struct core *c);
/* Opens model and log for the identity in `c`; makes the log if `bootstrap`. */
int core_serve(struct core *c, bool bootstrap, const char **ret_message);
/* Asks the own doors for a report: a new leader, or a new link to it. */
void core_door_ask(struct core *c);
bool core_reports_due(const struct core *c);
/* Orders of the leader for the own doors; taken over. Those for a door that still owes a report are
 * dropped: the leader makes them again when it has it. */
void core_door_orders(struct core *c, Tb__DoorOrder **orders, size_t count);
int64_t core_now_ms(const struct core *c); /* real time if plausible, never below newest_ms */
bool core_clock_plausible(void);
void core_wipe_raft(struct core *c);
/* Asks the front for a link. */
uint64_t core_dial(struct core *c, uint64_t node, const char *address, const char *alpn,
		   struct engine_dial *raft);

/* --- peer.c --- */
void peer_dial_leader(struct core *c); /* keep the link to the leader up */
void peer_dialed(struct core *c, int fd); /* answer to the control dial */
void peer_accepted(struct core *c, uint64_t node, int fd);
void peer_drop_silent(struct core *c); /* every tick */
void peer_greet_waiting(struct core *c); /* this board leads now */
void peer_close_all(struct core *c);
struct peer *peer_find(struct core *c, uint64_t node); /* incoming, greeted, current term */
void peer_send(struct peer *p, const Tb__PeerFrame *frame);
uint64_t peer_node(const struct peer *p);
void peer_renew(struct core *c); /* follower: send a lease renewal */
void peer_send_events(struct core *c, Tb__DoorEvent **events, size_t count);

/* --- lead.c --- */
void lead_start(struct core *c); /* the barrier of the term is applied */
void lead_stop(struct core *c);
void lead_tick(struct core *c);
bool lead_has_others(struct core *c); /* another voter is reachable */
void lead_flush(struct core *c); /* commands and orders of the fleet */
void lead_applied(struct core *c, const struct apply_result *result);
void lead_lease_changed(struct core *c); /* serve or stop serving */
void lead_renewed(struct core *c, uint64_t node, const Tb__LeaseRenew *renew);

/* --- proposal.c --- */
/* Internal: done in the core's own thread when home is NULL. */
void proposal_add(struct core *c, struct mailbox *home, Tb__Command **commands, size_t count,
		  core_proposed done, void *arg);
/* Tried once, only in this board's own log: what the arbiter of this leadership decided. */
void proposal_add_once(struct core *c, Tb__Command **commands, size_t count, core_proposed done,
		       void *arg);
void proposal_remote(struct core *c, struct peer *from, const Tb__PeerPropose *request);
void proposal_result(struct core *c, const Tb__PeerResult *result);
void proposals_kick(struct core *c); /* somewhere to send them again */
void proposals_link_lost(struct core *c);
void proposals_applied(struct core *c);
void proposals_tick(struct core *c, uint64_t now_ms);
void proposals_cancel(struct core *c);
void proposals_forget_peer(struct core *c, const struct peer *p);
void query_remote(struct core *c, struct peer *from, const Tb__PeerQuery *request);
void query_result(struct core *c, const Tb__PeerAnswer *answer);

/* --- admit.c --- */
void admit_tick(struct core *c, uint64_t now_ms);
void admit_applied(struct core *c);
void admit_cancel(struct core *c);
