/* world.h: a whole witness in one process: boards, the site's nodes, and the networks between
 * them, on a virtual clock. Everything that is chosen is chosen by the seed.
 *
 *   node 1..5 (node.c)              boards 1..5 (board.c)             boards among each other
 *   corosync: rings                 door: sessions, lease             raft.c: terms, log, commit
 *   qdevice: vote, echoes  --tcp--> fleet.c while it leads  --link--> datagrams that get lost
 *
 * With --leases the nodes run witness-agent (agent_node.c) and the boards have a door for them
 * (agent_board.c) instead.
 *
 * With --vms there are no nodes: the boards host virtual machines (vm_board.c), which persons
 * start, stop and move, and things of their own go wrong (vm_faults.c).
 *
 * Real code under test: cluster/fleet, cluster/arbiter, cluster/lease; with --leases
 * cluster/candidate, witnessd/agent_session, agent/claim and agent/duty too; with --vms
 * cluster/scheduler and cluster/hosting. The rest are models of what
 * surrounds them, written from the protocol's description. check.c knows none of it: it looks at
 * what nodes hold and at what the log has committed. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/claim.h"
#include "agent/duty.h"
#include "cluster/fleet.h"
#include "cluster/hosting.h"
#include "cluster/lease.h"
#include "cluster/scheduler.h"
#include "lib/buf.h"
#include "lib/rng.h"
#include "witnessd/agent_session.h"

enum {
	SIM_BOARDS = 5,
	SIM_NODES = 5,
	SIM_LISTS = 8,
	SIM_VMS = 4,
	SIM_PROCESSES = 16, /* of one board at a time */
	SIM_DISKS = 32, /* files of data disks that a board keeps */
};

struct ring {
	uint32_t node;
	uint64_t seq;
};

/* --- the log --- */

/* A command on a VM, as in command.proto; what persons do names no incarnation. */
struct vm_op {
	enum vm_verb {
		VM_NONE,
		VM_START,
		VM_STOP,
		VM_RESTART,
		VM_MOVE,
		VM_PLACE,
		VM_RELEASE,
		VM_SETTLE,
		VM_BOARD_REMOVE, /* of board `node` */
	} verb;
	unsigned vm;
	uint64_t incarnation;
	unsigned node;
	bool hard;
	bool failed;
	bool well;
	bool ended;
	bool force;
	bool disk; /* VM_SETTLE: its data disk is made */
};

struct log_entry {
	uint64_t term;
	uint64_t proposal; /* 0: the first entry of a term, without content */
	uint64_t after_epoch;
	uint64_t epoch;
	struct ring ring;
	unsigned nodes; /* set of node ids: bit 1 is node 1 */
	uint32_t handover_ms;
	bool lease;
	uint64_t generation;
	uint64_t instance;
	struct vm_op vm;
};

enum raft_role { RAFT_FOLLOWER, RAFT_CANDIDATE, RAFT_LEADER };

struct raft {
	/* on disk */
	uint64_t term;
	unsigned voted_for;
	struct log_entry *log; /* log[0] is entry 1 */
	uint64_t length;
	/* in memory */
	enum raft_role role;
	unsigned leader; /* 0: not known */
	uint64_t commit;
	uint64_t applied;
	unsigned votes;
	uint64_t match[SIM_BOARDS + 1];
	uint64_t election_us; /* true time: a detector of its own */
	uint64_t beat_us;
};

struct raft_message {
	enum raft_what { RAFT_ASK, RAFT_VOTE, RAFT_APPEND, RAFT_APPENDED } what;
	uint64_t term;
	bool granted;
	uint64_t index; /* last of the candidate; previous of the entries; match */
	uint64_t index_term;
	uint64_t commit;
	struct log_entry *entries;
	uint64_t count;
};

/* --- pipes: streams that keep order, stall while the path is cut, and break --- */

enum parcel_kind {
	/* tcp, node to board */
	TCP_INIT,
	TCP_LIST,
	TCP_HEURISTICS,
	TCP_ECHO,
	TCP_VOTE_REPLY,
	/* tcp, board to node */
	TCP_INIT_REPLY,
	TCP_ECHO_REPLY,
	TCP_LIST_REPLY,
	TCP_VOTE,
	/* both */
	TCP_BYTES, /* of an agent's connection */
	TCP_END,
	/* link, to the leader */
	LINK_EVENT,
	LINK_RENEW,
	LINK_REPORT, /* of the host */
	/* link, to the follower */
	LINK_ORDER,
	LINK_GRANT,
	LINK_END,
};

struct parcel {
	struct parcel *next;
	uint64_t due_us;
	enum parcel_kind kind;
	unsigned list_kind;
	uint32_t code; /* error, vote */
	uint64_t number; /* echo, vote number; sent_ms */
	uint64_t leader_ms;
	uint64_t term;
	uint64_t length_ms;
	struct ring ring;
	unsigned nodes;
	unsigned heuristics;
	Tb__DoorEvent *event; /* owned */
	Tb__DoorOrder *order; /* owned */
	struct buf bytes; /* owned */
	Tb__HostReport *report; /* owned */
	uint64_t applied; /* LINK_GRANT */
	bool vms; /* LINK_RENEW: the host turns; LINK_GRANT: it is for VMs, too */
};

/* An end is open until its owner closes it or its owner dies. */
struct pipe {
	bool tcp;
	unsigned near; /* tcp: node; link: follower */
	unsigned far; /* board; link: leader */
	uint64_t term; /* link */
	bool near_open;
	bool far_open;
	uint64_t near_heard_ms; /* own clocks */
	uint64_t far_heard_ms;
	struct {
		struct parcel *head;
		struct parcel *tail;
		uint64_t last_due_us;
		bool moving; /* a moment is set for the head */
	} way[2]; /* 0: near to far */
};

/* --- boards --- */

struct door_session {
	struct door_session *next;
	uint64_t id;
	unsigned pipe;
	unsigned node;
	bool open; /* INIT_REPLY 0 was sent */
	uint32_t heartbeat_ms;
	unsigned algorithm;
	bool keep_active;
	struct ring ring;
	bool has_config;
	bool has_membership;
	unsigned configured;
	unsigned members;
	unsigned heuristics;
	unsigned vote;
	unsigned last_result;
	struct ring vote_ring;
	uint64_t vote_number;
	uint64_t ticket;
	bool confirmed;
	uint64_t heard_ms; /* own clock */
};

/* A connection of an agent. */
struct agent_conn {
	struct agent_conn *next;
	unsigned pipe;
	struct agent_session session;
};

/* --- virtual machines --- */

/* A row of the model. */
struct vm_row {
	bool running;
	unsigned node;
	uint64_t incarnation;
	bool releasing;
	bool hard;
	unsigned target;
	unsigned avoid;
	unsigned home;
	uint64_t home_incarnation;
	bool home_disk; /* the model knows that it is made there */
	unsigned moves;
};

/* A file with the data of a VM, on a board's card. */
struct vm_file {
	uint64_t number; /* of all that were ever made; 0: none */
	unsigned vm;
	uint64_t home; /* incarnation, in its name */
};

/* A process of the board's kernel: it outlives the daemon, but not its deadline. */
struct vm_process {
	uint64_t id; /* 0: free */
	unsigned vm;
	uint64_t incarnation;
	uint64_t deadline_ms; /* own clock */
	bool runs; /* its guest */
	uint64_t daemon; /* whose child it is */
	struct vm_file file; /* its data disk, if it has one */
};

struct board {
	unsigned id;
	bool alive;
	bool drained; /* as the model would say it; all boards know at once */
	bool drained_now; /* whatever it costs the site */
	uint64_t frozen_until_us;
	uint64_t clock_offset_ms;
	unsigned clock_rate; /* per mille */
	uint64_t boot;
	struct raft raft;
	/* the model */
	uint64_t epoch;
	struct log_entry grant;
	/* as a leader */
	struct fleet *fleet;
	uint64_t fleet_term;
	struct lease_table leases;
	uint64_t fleet_due_ms;
	struct proposal {
		uint64_t id;
		Tb__Command *command;
	} proposals[8];
	/* as a follower */
	struct lease lease;
	unsigned link; /* pipe, 0: none */
	uint64_t dial_ms;
	uint64_t renew_ms;
	/* the door */
	bool serving;
	struct door_session *sessions;
	struct agent_conn *agents;
	uint64_t next_session;
	const Tb__SitePolicy *policy; /* of the site */
	/* virtual machines */
	struct vm_row vms[SIM_VMS + 1]; /* the model */
	unsigned removed; /* the model: set of boards that it has no more */
	struct vm_file files[SIM_DISKS]; /* on its card */
	struct hosting *hosting;
	uint64_t fence;
	uint64_t host_applied; /* of what the hosting was told */
	uint64_t host_due_ms;
	uint64_t host_hung_until_us; /* its thread hangs, and the core does not */
	uint64_t host_told_ms; /* the first that it has not taken; 0: it has taken all */
	uint64_t host_asked_ms;
	bool host_stands; /* as the core says */
	bool host_owes; /* a report */
	uint64_t host_granted_ms; /* the lease of its VMs */
	struct vm_process processes[SIM_PROCESSES];
	uint64_t lease_max_ms; /* the longest that this board ever had */
	uint64_t paused_until_us; /* the whole board stands still, its processes too */
	struct {
		Tb__HostReport *report; /* as the leader */
		uint64_t heard_ms;
	} hosts[SIM_BOARDS + 1];
	unsigned vm_on_way; /* commands of the scheduler, not applied yet */
	bool vm_changed; /* since the last decision */
	unsigned vm_links; /* set of boards that answered then */
	uint64_t vm_due_ms;
	unsigned withheld; /* set of boards */
	unsigned standing; /* and of those whose hosts stand still, as they say */
	uint64_t members_us; /* true time: boards that were removed leave the table; 0: none does */
	uint64_t wake; /* generation of the timer that counts */
};

/* --- nodes --- */

struct node {
	unsigned id;
	bool alive;
	uint64_t clock_offset_ms;
	unsigned clock_rate;
	/* corosync */
	struct ring ring;
	unsigned members;
	bool gathering; /* it has left that ring: others have installed one with this node */
	uint64_t ring_generation;
	/* corosync-qdevice */
	enum { QDEVICE_IDLE, QDEVICE_ASKING, QDEVICE_UP } state;
	unsigned pipe;
	unsigned first_board; /* where its name server begins this time */
	unsigned next_board;
	uint64_t retry_ms; /* connect again; 0: not waiting */
	uint64_t echo_ms;
	uint64_t echo_sent;
	uint64_t echo_answered;
	uint64_t init_ms; /* give up INIT at this time */
	struct ring sent_ring;
	uint64_t list_ms; /* send the membership list at this time (heuristics), 0: sent */
	bool first_lists;
	unsigned heuristics;
	/* what it makes of the votes */
	bool holds;
	struct ring held_ring;
	unsigned held_members; /* of that ring */
	uint64_t wake;
	/* witness-agent */
	struct claim claim;
	uint64_t instance;
	uint64_t attempt;
	uint64_t generation;
	struct buf in;
	bool last_renewal; /* the next one is: its answer comes late, and nothing after it */
	bool acts; /* what needs the lease runs here */
	uint64_t acts_epoch;
	uint64_t service_end_ms; /* if no hook has ended it, it ends then; 0: its agent is there */
	uint64_t down_until_ms; /* the agent has died and starts again then; 0: it runs */
	struct duty duty;
	uint64_t hook_end_ms; /* of the one that runs; 0: none, or it hangs */
	bool hook_good;
	bool wish;
};

/* --- the world --- */

enum moment_kind {
	MOMENT_PIPE,
	MOMENT_RAFT,
	MOMENT_BOARD,
	MOMENT_NODE,
	MOMENT_RING,
	MOMENT_BOARD_BOOT,
	MOMENT_NODE_BOOT,
	MOMENT_BREAK,
	MOMENT_PATHS, /* node a: cut off from all boards if b, else not */
	MOMENT_FAULT,
	/* board a: */
	MOMENT_VM_PREPARED, /* VM b in incarnation `number` */
	MOMENT_VM_RUNS, /* process `number` */
	MOMENT_VM_DEADLINE, /* process `number`: is it over? */
	MOMENT_VM_DIES, /* process `number`; b: its guest powered off */
	MOMENT_VM_GONE, /* daemon ring.seq hears of it: incarnation `number` of VM b; ring.node: off
			 */
	MOMENT_VM_CARD, /* the power fails, and the data disks are lost */
	MOMENT_VM_PERSON, /* persons want all VMs to run again */
	MOMENT_VM_PATHS, /* the boards reach each other again */
};

struct moment {
	uint64_t at_us;
	uint64_t order;
	enum moment_kind kind;
	unsigned a;
	unsigned b;
	uint64_t number;
	struct ring ring;
	void *data;
};

struct options {
	uint64_t seed;
	bool trace;
	bool leases;
	bool vms;
};

struct world {
	struct prng random;
	bool trace;
	uint64_t now_us;
	uint64_t end_of_faults_us;
	uint64_t end_us;
	struct moment *moments; /* a heap */
	size_t moment_count;
	size_t moment_room;
	uint64_t moment_order;
	/* the case */
	unsigned boards;
	unsigned nodes;
	unsigned algorithm;
	uint32_t heartbeat_ms;
	bool keep_active;
	bool with_heuristics;
	bool leases; /* the nodes run witness-agent */
	uint32_t lease_ms;
	uint32_t stop_ms;
	Tb__SitePolicy policy;
	bool vms; /* the boards host VMs, and there are no nodes */
	unsigned pinned; /* set of VMs with data disks */
	unsigned small; /* set of boards whose cards have no room for a data disk */
	unsigned waits; /* set of VMs that wait for their board when it is lost */
	unsigned full; /* set of boards whose cards have no room for images */
	uint64_t processes; /* ever made */
	uint64_t incarnation[SIM_VMS + 1]; /* the greatest that ever had a process */
	uint64_t files; /* of data disks, ever made */
	struct vm_file file[SIM_VMS + 1]; /* the last one that a process had */
	uint64_t given_up[SIM_VMS + 1]; /* the newest home that a person has given up */
	bool removing; /* a person has removed a board */
	uint64_t greatest_epoch; /* that any node ever acted by */
	bool calm; /* nothing goes wrong any more */
	unsigned loss; /* percent of raft messages */
	uint32_t reconnect_ms; /* a client that lost its connection waits for less than this */
	struct board board[SIM_BOARDS + 1];
	struct node node[SIM_NODES + 1];
	struct pipe *pipes; /* pipes[0] is not used */
	unsigned pipe_count;
	unsigned pipe_room;
	/* who reaches whom */
	bool board_cut[SIM_BOARDS + 1][SIM_BOARDS + 1];
	bool node_cut[SIM_NODES + 1][SIM_BOARDS + 1];
	unsigned group[SIM_NODES + 1]; /* partition of each node */
	uint64_t ring_seq;
	uint64_t proposal;
	/* what ever was committed, for check.c */
	struct log_entry *committed;
	uint64_t committed_count;
	char problem[512]; /* the first thing that was wrong */
};

/* world.c */
int world_run(const struct options *options, char *problem, size_t size);
void world_note(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void world_problem(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void world_at(struct world *w, uint64_t at_us, struct moment m);
/* A delay of the network, with a tail. */
uint64_t world_delay_us(struct world *w);
bool world_chance(struct world *w, unsigned percent);
uint64_t world_below(struct world *w, uint64_t bound);
uint64_t clock_of_board(const struct world *w, const struct board *b);
uint64_t clock_of_node(const struct world *w, const struct node *n);
/* True time at which a clock will show `ms`. */
uint64_t board_when_us(const struct board *b, uint64_t ms);
uint64_t node_when_us(const struct node *n, uint64_t ms);
unsigned pipe_open(struct world *w, bool tcp, unsigned near, unsigned far, uint64_t term);
/* Takes the parcel. Dropped if the sender's end is closed. */
void pipe_send(struct world *w, unsigned pipe, bool from_near, struct parcel *p);
struct parcel *parcel_new(enum parcel_kind kind);
/* One end closes. told: the other end hears of it, if the path is open then. */
void pipe_close(struct world *w, unsigned pipe, bool near, bool told);
bool pipe_connected(const struct world *w, const struct pipe *p);
void world_partition(struct world *w);

/* raft.c */
void raft_start(struct world *w, struct board *b);
void raft_receive(struct world *w, struct board *b, unsigned from, const struct raft_message *m);
void raft_tick(struct world *w, struct board *b);
void raft_propose(struct world *w, struct board *b, struct log_entry entry);
void raft_step_down(struct world *w, struct board *b);
void raft_message_free(struct raft_message *m);

/* board.c */
void board_boot(struct world *w, struct board *b);
void board_crash(struct world *w, struct board *b, bool resets);
void board_tick(struct world *w, struct board *b);
void board_applied(struct world *w, struct board *b, const struct log_entry *e);
/* The boards that the model has, in the table of leases. */
void board_members(struct world *w, struct board *b);
void board_led(struct world *w, struct board *b); /* first entry of its term is committed */
void board_deposed(struct world *w, struct board *b); /* no longer leads */
void board_parcel(struct world *w, struct board *b, unsigned pipe, struct parcel *p);
void board_emit(struct world *w, struct board *b, Tb__DoorEvent *e); /* takes it */
bool board_may_act(struct world *w, struct board *b);
bool board_accepts(struct world *w, struct board *b);

/* node.c */
void node_boot(struct world *w, struct node *n);
void node_crash(struct world *w, struct node *n, bool resets);
void node_tick(struct world *w, struct node *n);
void node_parcel(struct world *w, struct node *n, struct parcel *p);
void node_ring(struct world *w, struct node *n, struct ring ring, unsigned members);
void node_heuristics(struct world *w, struct node *n);
void node_break(struct world *w, struct node *n);

/* agent_board.c: the door for agents */
void agents_parcel(struct world *w, struct board *b, unsigned pipe, struct parcel *p);
void agents_order(struct world *w, struct board *b, const Tb__DoorOrder *o);
void agents_report(struct world *w, struct board *b);
void agents_silence(struct world *w, struct board *b);
void agents_end(struct world *w, struct board *b); /* all of them: no lease */
uint64_t agents_due_ms(const struct board *b); /* UINT64_MAX: nothing */
void agents_free(struct board *b);

/* agent_node.c: a node with witness-agent; the same functions as node.c has */
void agent_boot(struct world *w, struct node *n);
void agent_crash(struct world *w, struct node *n, bool resets);
/* Only the process; it is started again after a while. */
void agent_die(struct world *w, struct node *n);
void agent_tick(struct world *w, struct node *n);
void agent_parcel(struct world *w, struct node *n, struct parcel *p);
void agent_break(struct world *w, struct node *n);
/* Somebody changes what it wants, or its data. */
void agent_whim(struct world *w, struct node *n);
void agent_heal(struct world *w, struct node *n);

/* vm_board.c: a board as a host, and the scheduler while it leads */
/* Seeded mistakes of what is only modelled here. */
extern bool vm_fault_no_withhold;
extern bool vm_fault_stale_disk;
extern bool vm_fault_every_grant;
void vm_boot(struct world *w, struct board *b);
/* kept: the kernel lives on, and the processes with it, each until its deadline. */
void vm_crash(struct world *w, struct board *b, bool kept);
void vm_applied(struct world *w, struct board *b, const struct log_entry *e);
void vm_led(struct world *w, struct board *b);
void vm_deposed(struct board *b);
void vm_linked(struct world *w, struct board *b); /* to a leader */
void vm_link_lost(struct board *b); /* its own */
void vm_forget(struct board *b, unsigned host); /* as the leader: that link is gone */
void vm_granted(struct board *b, uint64_t until_ms, bool vms, uint64_t now_ms, uint64_t applied);
/* As the leader: is what it grants to the board with this renewal for its VMs, too? */
bool vm_renewed(struct board *b, unsigned board, bool turns);
void vm_reported(struct world *w, struct board *b, unsigned host, struct parcel *p);
/* The lease as it is now; actions and reports; as the leader, decisions. */
void vm_tick(struct world *w, struct board *b);
uint64_t vm_due_ms(const struct board *b); /* UINT64_MAX: nothing */
void vm_moment(struct world *w, const struct moment *m);
/* As the leader: is this board to get no lease? */
bool vm_withholds(const struct board *b, unsigned board);
bool vm_removed(const struct board *b, unsigned board);
/* The file with the VM's data, by the model of `b`, on `card`; NULL: it is not there. */
struct vm_file *vm_file_find(const struct board *b, struct board *card, unsigned vm);
unsigned vm_links_up(const struct world *w, const struct board *b); /* board.c: set of boards */
uint64_t board_lease(struct world *w, struct board *b); /* board.c: until when */

/* vm_faults.c */
void vm_world_init(struct world *w);
void vm_fault(struct world *w);
void vm_card(struct world *w, struct board *b);
void vm_heal(struct world *w);

/* check_vm.c */
void check_vm_started(struct world *w, const struct board *b, const struct vm_process *p);
void check_vm_moment(struct world *w); /* after each moment */
void check_vm_alive(struct world *w); /* at the end */

/* check.c */
void check_lease(struct world *w);
void check_lease_given(struct world *w, const struct node *n);
void check_lease_alive(struct world *w);
void check_s1(struct world *w);
void check_ack(struct world *w, unsigned node, struct ring ring);
void check_alive(struct world *w);
