/* fleet_site.h: the inside of fleet.h: one site's sessions, holders and decision.
 *
 * Who may hold the vote is kept in two places. `session.may_hold`: what happened on this very
 * connection (an ACK was sent, and no NACK confirmed since). `member.hold_until_ms`: what else
 * the node may have been told, as far as that is not excluded; it ends by time at the latest:
 *
 *   a session ended while may_hold was set, and the client may not know of its end;
 *   its board was lost, and may have gone on answering its heartbeats for the rest of its lease;
 *   the grant names it, but an earlier leader made it (S4). That leader may not even know that it
 *   has been followed, and for a full lease after the election it may still serve boards that
 *   have not reported here: a client that leaves its board goes there and gets the vote again.
 *
 * The second kind ends early only by proof that the client is at its present connection, and
 * this after the full lease: it answered a vote that we sent then, or it attached by INIT then
 * and went on to use that connection (an INIT alone may have been on its way for long).
 *
 * Holders inside the winning ring do not matter: the ring was not installed before all its
 * members had left their older ones. Unless it is the older one itself: sequences of rings only
 * grow, so if a member was seen in a ring of the same or a greater sequence since, then the
 * report of the winning ring is out of date.
 *
 * Sites whose nodes run witness-agent hold a lease instead of a vote, by the same rules; the
 * differences are in fleet_lease.c. There a "ring" stands for one claim of one node: its
 * members are that node, and a new claim has a greater sequence than every grant before it. An
 * agent keeps its lease when its connection is lost, so only a confirmed refusal or its timeout
 * ends what it may hold. And it is one process that holds it: another one with the same node id (an
 * agent that was started again, a machine that was cloned) can neither confirm for it nor go on
 * with what it holds. That ends by time.
 *
 * A decision takes effect in this order, and each step waits for the one before:
 *   1. holders outside the winning ring that cannot be asked (not attached, or no full lease since
 *      the election): their time is over. Who has the vote keeps it meanwhile: there is nobody
 *      to give it to;
 *   2. other holders outside the winning ring: each confirmed a NACK;
 *   3. the grant is committed, if it is not the committed one already;
 *   4. ACK to the members of the ring, as long as their newest report still names it. */
#pragma once
#include "cluster/arbiter.h"
#include "cluster/candidate.h"
#include "cluster/due.h"
#include "cluster/fleet.h"
#include "lib/hash.h"
#include "lib/list.h"

enum {
	/* How long lists that a node has not sent yet are waited for after it attached. A client
	 * sends them after its start-up heuristics, at most 15 s. */
	FLEET_STARTING_MS = 16000,
	/* Between a command that failed and the next try. */
	FLEET_RETRY_MS = 100,
	/* How long a node that was sent away is waited for before the next one of its site is: a
	 * client sleeps up to 4.5 s, and needs 8 s for an address that does not answer. */
	FLEET_MOVE_MS = 15000,
	/* Over how long a new leader spreads the votes that it repeats to have that proof. */
	FLEET_PROOF_SPREAD_MS = 2000,
	/* Between notes of a holder's generation: each is written to every board's card. */
	FLEET_NOTE_MS = 1000,
};

struct node_ids {
	uint32_t *ids; /* sorted, each once; NULL: not told yet */
	unsigned count;
};

struct session {
	struct hash_node by_id; /* fleet.sessions; a held one as well */
	struct list of_door; /* door.sessions */
	struct list of_site; /* site.held, while held */
	struct site *site;
	uint64_t door;
	uint64_t id;
	Tb__DoorEvent *held; /* INIT that waits for the site to be registered; NULL: attached */
	uint64_t attached_at_ms; /* leader's clock */
	int64_t attached_ms;
	char *address;
	struct ip local; /* the service address that it came to, or another of the board */
	uint32_t node_id;
	uint32_t heartbeat_ms;
	uint32_t rtt_ms; /* if near the heartbeat */
	uint32_t tie_breaker_node;
	uint8_t algorithm;
	uint8_t tie_breaker;
	bool tls;
	bool certificate;
	bool keep_active;
	bool config_version_set;
	uint64_t config_version;
	struct node_ids configured;
	struct node_ids members;
	struct arbiter_ring ring;
	uint8_t heuristics;
	uint8_t membership_heuristics;
	uint8_t regular_heuristics;
	uint8_t vote; /* last sent, for people */
	uint8_t last_result; /* last ACK or NACK; 0: none since it connected */
	bool stands; /* the client still acts on last_result: it asked nothing since */
	bool judged; /* see arbiter.h */
	bool may_hold;
	struct arbiter_ring result_ring; /* that last_result named */
	uint64_t ticket; /* of the newest vote, until it is answered; 0: none */
	bool proving; /* that vote was sent after the full lease */
	bool settled; /* it attached by INIT after the full lease */
	bool leaving; /* its door was told to close it: the board is drained */
	/* Agents only: */
	bool agent;
	bool wanted;
	uint32_t lease_ms;
	uint64_t claim;
	uint64_t generation;
	uint64_t held_epoch;
	uint64_t instance;
	uint64_t attempt;
	struct node_ids seen;
	char *name;
};

#define HOLD_OF_SEVERAL UINT64_MAX

struct member {
	uint32_t node_id;
	struct session *session; /* NULL: not attached */
	uint64_t hold_until_ms; /* see above; in the past: nothing is feared */
	struct arbiter_ring hold_ring; /* the newest that it may hold the vote for */
	/* Of agents: the instance that holds; 0: not known, HOLD_OF_SEVERAL: more than one. */
	uint64_t hold_instance;
	enum member_gone {
		GONE_UNKNOWN,
		GONE_CLOSED,
		GONE_BOARD
	} gone; /* why it is not attached */
};

struct site {
	struct hash_node by_name;
	struct hash_node by_site_id; /* while known */
	struct due due;
	char *name;
	bool known; /* the model has it */
	bool registering; /* a SitePut is on its way */
	uint64_t id;
	Tb__SitePolicy policy;
	struct member *members; /* by rising node id */
	unsigned member_count;
	unsigned attached;
	struct list held;
	/* The committed grant; epoch 0: none. */
	uint64_t epoch;
	struct arbiter_ring grant_ring;
	struct node_ids grant_nodes;
	uint32_t handover_ms;
	bool grant_lease; /* to an agent */
	uint64_t grant_instance; /* that agent's; 0: not known */
	uint64_t grant_generation; /* committed, or what the holder has said since */
	uint64_t noted_generation; /* committed */
	uint64_t noting; /* a LeaseNote of this generation is on its way; 0: none */
	uint64_t note_ms; /* none before this time */
	/* The grant that is on its way into the log; epoch 0: none. */
	uint64_t pending_epoch;
	struct arbiter_ring pending_ring;
	uint64_t retry_ms; /* no new command before this time */
	uint64_t proof_ms; /* when to repeat the vote to nodes that a former leader's grant names */
	bool counted;
	uint8_t state; /* Tb__SiteState, in fleet.states while counted */
	bool unstable; /* the last decision */
	bool whole; /* all configured nodes are attached */
	uint64_t whole_ms; /* they were, then */
	uint64_t moved_ms; /* a node was sent away from a drained board then; 0: never */
	uint64_t again_ms; /* a decision about a lease may change then without news; 0: never */
	const char *why; /* of the decision that is being carried out; NULL: none */
};

struct door {
	struct list link;
	uint64_t id;
	struct list sessions;
};

struct fleet {
	struct fleet_model model;
	uint64_t term;
	uint64_t lease_ms;
	uint64_t hold_votes_until_ms, hold_leases_until_ms; /* fleet_hold; 0: none */
	uint64_t unknown_until_ms; /* S4: until then boards nobody has heard of may act */
	uint64_t now_ms;
	uint64_t ticket;
	struct hash sites;
	struct hash site_ids;
	struct hash sessions;
	struct list doors;
	struct list orders;
	struct list commands;
	struct due_heap due;
	unsigned states[TB__SITE_STATE__SITE_STATE_UNDECIDED + 1];
	unsigned session_count;
	uint64_t nonsense; /* events that made no sense */
	struct ip addresses[LIMIT_ADDRESSES]; /* the pool */
	unsigned address_count;
};

/* --- fleet.c, for fleet_site.c --- */

/* A new order for the session's door; the caller fills it in at once. */
Tb__DoorOrder *fleet_order(struct fleet *f, const struct session *s);
/* Queued; owned by the fleet. */
void fleet_command(struct fleet *f, Tb__Command *command);

/* --- fleet_site.c --- */

struct site *site_find(const struct fleet *f, const char *name);
struct site *site_find_id(const struct fleet *f, uint64_t id);
/* Finds or makes it, and reads it from the model if it is not known. */
struct site *site_open(struct fleet *f, const char *name);
/* Reads it again; false: the model does not have it. */
bool site_load(struct fleet *f, struct site *s);
/* Decides anew, does what is possible, sets its timer. Frees the site if nothing is left to
 * remember: not to be used afterwards. */
void site_settle(struct fleet *f, struct site *s);
/* A committed grant, maybe of another leader. */
void site_granted(struct fleet *f, struct site *s, const Tb__Grant *grant);
void site_free(struct fleet *f, struct site *s);

struct member *site_member(struct site *s, uint32_t node_id); /* NULL: none */
/* Makes room for it; NULL: too many nodes. */
struct member *site_member_add(struct fleet *f, struct site *s, uint32_t node_id);

void session_vote(struct fleet *f, struct session *s, Tb__Vote vote);
uint32_t session_own_timeout_ms(const struct session *s);
/* The client gave a sign of life on this session: see the top of this file. For what another
 * instance of an agent holds it proves nothing. */
void session_proven(const struct fleet *f, struct session *s, bool answered);
/* Takes it from its site, door and index and frees it. If it may hold the vote, it does so until
 * hold_until_ms. The site is not settled. */
void session_end(struct fleet *f, struct session *s, uint64_t hold_until_ms, enum member_gone gone);

void node_ids_free(struct node_ids *ids);
bool node_ids_equal(const struct node_ids *a, const struct node_ids *b);
/* Copies, sorts, drops repetitions. False (and *ret untouched): more than LIMIT_SITE_NODES, or a 0.
 */
bool node_ids_set(struct node_ids *ret, const uint32_t *ids, size_t count);

/* The older session of the node ends: it is told to close. The site is not settled. */
void session_dismiss(struct fleet *f, struct session *s, const char *why);

/* --- fleet_lease.c --- */

/* Are its nodes agents? By who is attached, else by the committed grant. */
bool site_of_agents(const struct site *s);
/* May the agent attach, as far as the site's policy goes? NULL, or why not. */
const char *lease_open_problem(const struct site *s, const Tb__SiteNode *n);
/* What an open or a report says, beyond what is said of every node. */
void lease_describe(struct session *s, const Tb__SiteNode *n);
/* Is `n` the same agent on a newer connection than that of `s`? */
bool lease_supersedes(const struct session *s, const Tb__SiteNode *n);
/* False: not from an agent. */
bool lease_claimed(struct fleet *f, struct session *s, const Tb__DoorClaim *claim);
/* For the event log: it gave back what it had. */
void lease_released(struct fleet *f, const struct session *s);
/* Commits the generation that the holder has reported, if the policy needs it. */
void lease_note(struct fleet *f, struct site *s);
/* The committed generation of the same grant, maybe a greater one: the agents are told. */
void lease_noted(struct fleet *f, struct site *s, uint64_t generation);
/* An agent's present claim is the one that the committed grant is for. */
bool lease_granted_to(const struct site *s, const struct session *x);
/* The sessions of the site, and who of them should have the lease. */
unsigned lease_decide(const struct fleet *f, const struct site *s, struct session **sessions,
		      struct candidate_decision *ret);
/* The lease for people; NULL if it is no site of agents. */
Tb__SiteLease *lease_status(const struct fleet *f, const struct site *s);
/* The agent's part of a node for people. */
void lease_node_message(const struct session *s, Tb__SiteNode *n);
/* The agent's part of a vote. */
void lease_vote(const struct session *s, Tb__DoorVote *vote);

#ifdef TIEBREAK_SIM_FAULTS
/* Mistakes for the simulator to find; compiled only into its own build of the library. */
enum fleet_fault {
	FLEET_FAULT_NONE,
	FLEET_FAULT_ACK_BEFORE_COMMIT,
	FLEET_FAULT_NO_REFUSAL_WAIT,
	FLEET_FAULT_SHORT_HANDOVER,
	FLEET_FAULT_IGNORE_LEASE,
	FLEET_FAULT_CLOSED_IS_RELEASED,
	FLEET_FAULT_DRAIN_FORGETS,
	FLEET_FAULT_ANY_INSTANCE,
};
extern enum fleet_fault fleet_fault;
#define FLEET_FAULTY(what) (fleet_fault == (what))
#else
#define FLEET_FAULTY(what) false
#endif
