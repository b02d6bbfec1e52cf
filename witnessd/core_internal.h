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
#include "cluster/lag.h"
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
	CORE_DRAIN_BATCH = 40, /* site nodes sent away per tick: a small board takes so many */
	CORE_LEVEL_MS = 1000,
	CORE_HAND_OVER_MS = 3000, /* between two tries of a drained leader */
	CORE_PROMOTE_AGAIN_MS = 15000, /* between two tries of a board that was not reached */
	/* On their way at once: raft applies all that is committed in one go, and a board must be
	 * back at its heartbeats before the others miss them. */
	CORE_GRANTS_MAX = 1024,
};

struct lead_vms;
struct addresses;
struct peer;
struct proposal;
struct query;

/* Soft state of a board at the leader. */
struct board_soft {
	uint64_t node; /* 0: free */
	uint64_t applied_index;
	uint32_t sessions;
	uint64_t certified_index;
	int64_t clock_offset_ms; /* its clock less our boot clock; 0: it has not said */
	uint32_t rtt_ms, disk_ms, wear_percent;
	bool host_stands;
	struct lag lag;
	Tb__BoardFacts *facts; /* owned; NULL: it has not said yet */
};

/* What a board's host has said on its link to this leader. */
struct host_soft {
	uint64_t node; /* 0: free */
	uint64_t heard_ms; /* boot clock */
	Tb__HostReport *report; /* texts tamed, images in the order of their sums */
};

/* What a board says of itself, or of another one as the leader. */
struct board_health {
	int64_t real_ms;
	int64_t skew_ms; /* against the time of the cluster */
	uint32_t rtt_ms;
	uint32_t disk_ms;
	uint32_t wear_percent;
	bool host_stands;
	const Tb__BoardFacts *facts; /* the core's, until its next turn; NULL: not known */
};

/* One outgoing link that the front is making for us. */
struct dial {
	struct list link;
	uint64_t id;
	struct engine_dial *raft; /* NULL: the control link to the leader */
	struct admission *admission; /* of a board that is to be reached; NULL: a link */
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
	uint64_t newest_seen_ms; /* boot clock: it was in the model */
	/* The last known time of the cluster less the boot clock; 0: not known. A follower has it
	 * from its leader, a leader from the clocks of a majority. */
	int64_t clock_offset_ms;
	/* The last entry in the model, as store_applied says: what is raft's own does not count. */
	uint64_t model_index;
	bool model_dirty; /* since the last flush */
	bool nodes_dirty;
	bool version_told; /* the model is being told which release runs here */
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

	/* what the host was told, and the fence that it is to be told */
	uint64_t host_until_ms, host_fence_told, host_fence;
	uint64_t host_granted_ms; /* boot clock: of the lease, until then it is for VMs, too */
	bool host_stands; /* its thread takes nothing any more */
	uint64_t host_asked_ms; /* boot clock: when that was asked */

	/* as the leader */
	bool barrier_sent;
	struct fleet *fleet; /* NULL: not leading (or not ready to) */
	uint64_t fleet_term;
	size_t grants_on_way; /* commands of the arbiter, not answered yet */
	struct lease_table leases;
	struct board_soft boards[LIMIT_NODES]; /* what the others said with their renewals */
	struct host_soft hosts[LIMIT_NODES];
	bool membership_busy; /* a change of the members is on its way */
	uint64_t promoting; /* and is this board's promotion; 0: another */
	uint64_t promoted; /* the board that was tried last */
	uint64_t promote_again_ms; /* boot clock: when it failed it is not tried before this time */
	uint64_t hand_over_ms; /* boot clock: not tried again before this time */
	struct lead_vms *vms; /* NULL: not leading */

	struct list peers; /* control links, incoming and the outgoing one */
	struct list dials;
	struct list proposals;
	struct list queries;
	uint64_t next_id;

	struct join *join; /* of this board, under way */
	struct init *init;
	struct restoration *restoration; /* a new history, being made */
	bool retiring; /* the engine of the old history is closing */
	uint64_t led_ms; /* boot clock: a leader was known then */
	uint64_t certify_ms; /* boot clock: files and model are compared again */
	uint64_t certify_again_ms; /* boot clock: nothing is proposed before this time */
	bool certifying; /* a new one is on its way into the log */
	bool certify_failed; /* to write: it is said once */
	uint64_t certified_index; /* ca_rotation_index whose CAs are on this board's disk */
	uint32_t rtt_ms[2]; /* the longest renewal in this window of time, and in the one before */
	uint64_t rtt_window_ms;
	struct guard *guard; /* what this board is, and its watchdog */
	struct watch *watch; /* as the leader */
	struct addresses *addresses; /* addresses.h */
	bool admitting; /* the door of site nodes takes new ones */
	uint64_t level_ms; /* as the leader: the levels are looked at again */
	uint64_t rotate_ms; /* as the leader: the rotation is looked at again */
	uint64_t hold_until_ms; /* as the leader: all is given again, 0: it is */
};

uint64_t core_next_id(struct core *c);
void core_set_state(struct core *c, enum core_state state, const char *detail, ...)
	__attribute__((format(printf, 3, 4)));
bool core_leading(const struct core *c);
/* Opens model and log for the identity in `c`; makes the log if `bootstrap`. */
int core_serve(struct core *c, bool bootstrap, const char **ret_message);
/* Takes new site nodes, or not: the board was drained, or service addresses came or went. */
void core_admit_sites(struct core *c);
/* Asks the own doors for a report: a new leader, or a new link to it. */
void core_door_ask(struct core *c);
bool core_reports_due(const struct core *c);
/* Orders of the leader for the own doors; taken over. Those for a door that still owes a report are
 * dropped: the leader makes them again when it has it. */
void core_door_orders(struct core *c, Tb__DoorOrder **orders, size_t count);
/* The time of the cluster, never below newest_ms. */
int64_t core_now_ms(const struct core *c);
/* By what is known of the time (clock_offset_ms), at least `floor_ms`. */
int64_t core_clock_from(int64_t offset_ms, int64_t floor_ms);
bool core_clock_can_be(int64_t ms); /* CORE_CLOCK_FIRST_MS */
bool core_clock_plausible(void); /* the own one */
/* The time of the cluster is known, and the doors may know it. */
void core_clock_learn(struct core *c, int64_t now_ms);
/* False: who leads has not heard the clocks of a majority yet, though it may soon. */
bool core_clock_known(const struct core *c);
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
unsigned peer_level(struct core *c, uint64_t node); /* as the leader; 0: no link */
void peer_renew(struct core *c); /* follower: send a lease renewal */
void peer_send_events(struct core *c, Tb__DoorEvent **events, size_t count);

void peer_send_report(struct core *c, Tb__HostReport *report); /* follower */

/* --- core_host.c --- */
void core_host_tell(struct core *c); /* lease and fence, if they have changed */
void core_host_fence(struct core *c, uint64_t index); /* UINT64_MAX: not known */
/* The board's VMs have the lease until then; `index`: what the leader had applied. */
void core_host_granted(struct core *c, uint64_t until_ms, uint64_t index, uint64_t now_ms);
void core_host_tick(struct core *c, uint64_t now_ms); /* does its thread turn? */
void core_host_ask(struct core *c); /* for a whole report */
/* A board's report, as the leader; taken over. */
void core_host_reported(struct core *c, uint64_t node, Tb__HostReport *report);
/* The newest one on the board's link; NULL: none. */
const Tb__HostReport *core_host_report_of(struct core *c, uint64_t node);
void core_host_forget(struct core *c, uint64_t node); /* its link is gone; 0: of all */

/* --- lead.c --- */
void lead_start(struct core *c); /* the barrier of the term is applied */
void lead_stop(struct core *c);
void lead_tick(struct core *c);
bool lead_has_others(struct core *c); /* another voter is reachable */
void lead_flush(struct core *c); /* commands and orders of the fleet */
void lead_applied(struct core *c, const struct apply_result *result);
void lead_lease_changed(struct core *c); /* serve or stop serving */
bool lead_reaches(const struct core *c, uint64_t node, uint64_t now_ms);
bool lead_health(struct core *c, uint64_t node, struct board_health *ret); /* false: away */
void lead_renewed(struct core *c, uint64_t node, const Tb__LeaseRenew *renew);
int64_t lead_now_ms(const struct core *c); /* as the leader */
bool lead_host_stands(const struct core *c, uint64_t node); /* as it has said */
uint64_t lead_lag_ms(const struct core *c, uint64_t node); /* lag_ms of its model */

/* --- lead_vms.c --- */
void lead_vms_start(struct core *c);
void lead_vms_stop(struct core *c);
/* Something that the scheduler looks at has changed. */
void lead_vms_changed(struct core *c);
/* Decides and proposes, if there is reason to; when to be called again. */
uint64_t lead_vms_flush(struct core *c, uint64_t now_ms);
/* The board's VMs get no lease at the moment: a decision that it has lost them is on its way. */
bool lead_vms_withholds(const struct core *c, uint64_t node);
/* It is no board of the model any more, and gets no lease at all. */
bool lead_vms_board_gone(struct core *c, uint64_t node);
void lead_vms_answer(struct core *c, struct query *q); /* VmQuery, ImageQuery, PeerMove */
/* VMs that are wanted, and those that run; on a board, those placed there. */
struct vm_counts {
	uint32_t vms;
	uint32_t running;
};
void lead_vms_count(struct core *c, const uint64_t *nodes, size_t count, struct vm_counts *ret_all,
		    struct vm_counts *ret_nodes);

/* What every board understands; of a log that makes no cluster yet, what this board does. */
unsigned core_level(struct core *c);
/* Ends leadership, lease and links; the engine is the caller's to close. */
void core_let_go(struct core *c);
/* The engine is closed and the board is stopping: closes the rest. `arg` is the core. */
void core_engine_closed(void *arg);

/* --- watch.c --- */
void watch_tick(struct core *c, uint64_t now_ms); /* every tick while leading */
void watch_stop(struct core *c);
void watch_renewed(struct core *c, uint64_t rtt_ms, uint64_t now_ms); /* as a follower */
void watch_self(struct core *c, struct board_health *ret);

/* --- guard.c --- */
void guard_new(struct core *c, const struct core_config *config);
void guard_tick(struct core *c, uint64_t now_ms);
void guard_end(struct core *c); /* the loop has ended in order */
void guard_free(struct core *c);
const Tb__BoardFacts *guard_facts(const struct core *c); /* NULL: not read yet */
uint32_t guard_wear(const struct core *c); /* percent; 0: not known */
/* What the leader is to be told with this renewal; NULL: it knows. Stays the guard's. */
Tb__BoardFacts *guard_news(struct core *c, uint64_t now_ms);
void guard_link_changed(struct core *c); /* another leader, or a new link: it knows nothing */

/* --- certify.c --- */
void certify_tick(struct core *c, uint64_t now_ms);
void certify_lead(struct core *c, uint64_t now_ms); /* every tick while leading */

/* --- proposal.c --- */
/* Internal: done in the core's own thread when home is NULL. */
void proposal_add(struct core *c, struct mailbox *home, Tb__Command **commands, size_t count,
		  core_proposed done, void *arg);
/* One command of this board's own, as `actor` (taken over); the op is the caller's to fill in. */
Tb__Command *proposal_command(char *actor);
/* Proposes it (taken over); `done` may be NULL. */
void proposal_one(struct core *c, Tb__Command *command, core_proposed done, void *arg);
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
void admit_reached(struct admission *a, int error); /* the board that wants in, or not */
