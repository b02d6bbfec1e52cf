/* host_internal.h: what the files of the host share: host.c (thread, letters, model, decider),
 * host_vm.c (one VM's disks, networks and process), host_facts.c (what this board can give),
 * host_console.c (consoles, here and on other boards). All of it runs in the host's thread. */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "cluster/hosting.h"
#include "cluster/store.h"
#include "lib/list.h"
#include "witnessd/config.h"
#include "witnessd/console.h"
#include "witnessd/host.h"
#include "witnessd/host_link.h"
#include "witnessd/image_keeper.h"
#include "witnessd/vm_cgroup.h"
#include "witnessd/vm_disk.h"
#include "witnessd/vm_process.h"

enum {
	HOST_FACTS_MS = 10000, /* bridges are looked for again, and what is left over */
	HOST_PROBE_MS = 60000, /* a board that cannot host is asked again */
	HOST_MODEL_MS = 50, /* a busy log makes the model be read no more often */
	HOST_STOP_MS = 20000, /* from the power buttons to force, when the daemon stops */
	HOST_ENTRANT_MS = 10000, /* a link that has not said by then what it is for is closed */
	HOST_MAILBOX_LIMIT = 10000,
};

struct host_vm;
struct host_consoles;

/* Numbers for other threads. */
struct host_counters {
	_Atomic uint64_t vms[TB__VM_CONDITION__VM_CONDITION_ENDED + 1];
	_Atomic uint64_t starts, failures, lapses, late;
};

struct host {
	pthread_t thread;
	bool threaded;
	uv_loop_t loop;
	struct mailbox mailbox;
	uv_timer_t due; /* of the decider */
	uv_timer_t reread; /* the model, a moment after it has changed */
	uv_timer_t facts;
	uv_timer_t probe; /* asked again whether this board can host */
	uint64_t probe_ms; /* HOST_PROBE_MS; less in tests */
	struct core *core;
	struct front *front;
	char *vms_dir, *program;
	const char *kvm; /* /dev/kvm */
	uint32_t uid_base;
	uint64_t reserve_mib;
	bool root; /* VMs get users of their own */
	bool uid_used[CONFIG_VM_UIDS];
	char cgroups[VM_CGROUP_PATH]; /* of the VMs; "" without */

	struct store *store; /* NULL: not open */
	uint64_t node; /* 0: in no cluster */
	uint64_t applied;
	struct hosting *hosting; /* NULL while node is 0 */
	bool stepping; /* the decider is being asked */
	bool again; /* something happened meanwhile */
	uint64_t lease_until_ms, fence; /* as the core said */
	struct image_keeper *keeper;
	Tb__Vm **rows; /* those on this board, by the newest model that was read */
	size_t row_count;
	bool sweep; /* look for what deleted VMs have left, at the next reading of the model */
	struct list vms; /* struct host_vm */
	struct list dials; /* struct host_dial */
	uint64_t next_dial;
	struct list entrants; /* links that have not said what they are for, the oldest first */
	unsigned entrant_count;
	uint64_t entrant_ms; /* HOST_ENTRANT_MS; less in tests */
	uv_timer_t entrants_due; /* of the oldest one */
	struct host_consoles *consoles;

	/* what this board can give; host NULL: not known yet */
	Tb__NodeHost *facts_now;
	Tb__NodeHost *facts_model; /* as committed, NULL: never said */
	unsigned level; /* of the cluster */
	bool proposing;

	/* from the core's thread */
	pthread_mutex_t lock;
	uint64_t said_until_ms, said_fence;
	uint64_t said_ms; /* the first that was not taken yet; 0: all is */
	bool over; /* nothing is taken any more */
	struct letter model_letter, identity_letter, lease_letter, report_letter, stop_letter;
	atomic_flag model_posted, identity_posted, lease_posted, report_posted;

	bool stopping;
	uint64_t force_ms; /* while stopping: then by force */
	unsigned workers; /* pieces of work that are under way */
	bool ended; /* nothing runs any more, what is left is being closed */
	struct host_counters counters;
};

/* --- host.c --- */
/* Something happened that the decider was told of: does what follows. */
void host_step(struct host *h);
/* Tells the leader how all VMs and images are. */
void host_say(struct host *h);
/* A link to another board's host. Answered once, also with an error; not after host_undial. */
typedef void (*host_dialed)(void *arg, int fd_or_error);
uint64_t host_dial(struct host *h, uint64_t node, host_dialed done, void *arg);
void host_undial(struct host *h, uint64_t dial_id);
/* Work for libuv's threads: `work` there, then `done` here. The job is the caller's. */
struct host_job {
	uv_work_t request;
	struct host *host;
	void (*work)(struct host_job *job);
	void (*done)(struct host_job *job);
};
void host_work(struct host *h, struct host_job *job);
/* While stopping: is all gone? Then goes on. */
void host_maybe_stopped(struct host *h);

/* --- host_vm.c --- */
void host_vm_do(struct host *h, const struct hosting_action *action, const Tb__Vm *row);
/* The console of a VM on this board; NULL: it is not here. */
struct console *host_vm_console(struct host *h, uint64_t vm, uint64_t *ret_incarnation);
/* What a VM waits for before its disks can be made; NULL: nothing. */
const char *host_vm_waits(struct host *h, uint64_t vm);
/* Images have come: VMs that wait for them go on. */
void host_vms_retry(struct host *h);
/* Drops what is left of VMs that are in the model no more. */
void host_vms_sweep(struct host *h, bool (*exists)(void *arg, uint64_t vm), void *arg);
/* While stopping. Copies of disks that are under way end; all are asked to shut down. */
void host_vms_cancel(struct host *h);
void host_vms_button(struct host *h);
void host_vms_kill(struct host *h);
void host_vms_renew(struct host *h, uint64_t until_ms); /* while stopping: the decider is out */
bool host_vms_gone(const struct host *h);
void host_vms_free(struct host *h);

/* --- host_facts.c --- */
void host_facts_begin(struct host *h);
void host_facts_tick(struct host *h);
/* Proposes what this board can give if the model says otherwise. */
void host_facts_compare(struct host *h);
void host_facts_free(struct host *h);

/* --- host_console.c --- */
struct host_consoles *host_consoles_new(struct host *h);
/* Ends all, at once. */
void host_consoles_close(struct host_consoles *c);
void host_consoles_free(struct host_consoles *c);
/* Another board's link whose first frame is this; taken over. */
void host_console_serve(struct host *h, struct host_link *l, const Tb__ConsoleOpen *open);
