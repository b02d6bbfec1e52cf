#include "hv/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/affinity.h"
#include "hv/control.h"
#include "hv/lease.h"
#include "hv/machine.h"
#include "hv/machine_stats.h"
#include "hv/ram.h"
#include "hv/sandbox.h"
#include "hv/saver.h"
#include "hv/snapshot.h"
#include "hv/start.h"
#include "hv/terminal.h"
#include "hv/virtio/balloon.h"
#include "hv/virtio/blk.h"
#include "lib/clock.h"
#include "lib/log.h"

/* How long an end may take before the kernel makes it: a disk that hangs must not keep a VM. */
enum { END_MS = 5000 };
/* State of a snapshot beside the memory, at most. */
#define STATE_FILE_MAX (UINT64_C(4) << 20)

struct server {
	const struct serve_config *config;
	const Tb__VmSpec *spec;
	struct lease lease;
	struct sandbox sandbox;
	struct machine *machine;
	struct machine_stats stats;
	struct control *control; /* NULL: nobody can ask */
	struct saver *saver; /* NULL likewise */
	struct terminal *terminal;
	struct watch signals; /* signalfd, owned */
	bool asked_to_end; /* a signal has pressed the button */
	bool end_waits; /* a signal came while a snapshot was written */
	bool resetting; /* it rests for a reset that was asked for, which is the loop's next */
	bool loading; /* the guest's memory is being filled */
	/* Who is answered when the machine rests; 0: nobody waits. */
	uint64_t rest_client, rest_id;
	/* Opened before the sandbox, until somebody takes them over; -1. */
	int out, listener, statm, tasks;
	/* What an answer points to until it is sent. */
	struct fault error;
	Tb__VmStatus status;
	char sandbox_text[160];
	char cores_text[AFFINITY_TEXT];
	struct stats_list list;
};

/* Requests. Each returns true if the answer is ready; `error` of the server is its sentence. */

static const char *backing_word(enum ram_backing backing)
{
	static const char *const words[] = {
		[RAM_ANONYMOUS] = "anonymous",
		[RAM_MEMFD] = "memfd",
		[RAM_SHARED_FILE] = "shared with clones",
	};

	return backing == RAM_AUTO ? "" : words[backing];
}

static Tb__VmState state_word(enum machine_state state)
{
	static const Tb__VmState words[] = {
		[MACHINE_STARTING] = TB__VM_STATE__VM_STATE_STARTING,
		[MACHINE_RUNNING] = TB__VM_STATE__VM_STATE_RUNNING,
		[MACHINE_PAUSING] = TB__VM_STATE__VM_STATE_PAUSING,
		[MACHINE_PAUSED] = TB__VM_STATE__VM_STATE_PAUSED,
		[MACHINE_ENDED] = TB__VM_STATE__VM_STATE_ENDED,
	};

	return words[state];
}

static void status_fill(struct server *s)
{
	const struct machine *m = s->machine;
	uint64_t now = clock_boottime_ms();

	s->status = (Tb__VmStatus)TB__VM_STATUS__INIT;
	s->status.name = s->spec->name;
	s->status.state =
		m->end != MACHINE_END_NONE ? TB__VM_STATE__VM_STATE_ENDED : state_word(m->state);
	s->status.vcpus = s->spec->vcpus;
	s->status.memory_mib = s->spec->memory_mib;
	s->status.running_ms = m->started_ms == 0 ? 0 : now - m->started_ms;
	s->status.lease_left_ms = lease_left_ms(&s->lease, now);
	s->status.gic = (Tb__GicVersion)m->gic.version;
	s->status.sandbox = s->sandbox_text;
	s->status.memory_backing = (char *)(uintptr_t)backing_word(m->ram.backing);
	s->status.resets = m->resets;
	s->status.cores = s->cores_text;
	if (m->blk[0] != NULL) {
		s->status.disk_engine = (char *)(uintptr_t)blk_engine(m->blk[0]);
	}
}

/* The machine rests and what it was to rest for is done, or failed by the error: the answer, unless
 * the call that wants it has not returned yet. */
static void rest_answer(struct server *s)
{
	Tb__VmReply reply = TB__VM_REPLY__INIT;
	uint64_t client = s->rest_client;

	s->rest_client = 0;
	if (client != 0) {
		reply.id = s->rest_id;
		reply.error = s->error.text;
		control_answer(s->control, client, &reply);
	}
}

static void rest_await(struct server *s, const struct control_call *call)
{
	s->rest_client = call->client;
	s->rest_id = call->request->id;
}

/* Rests, then `then`. True: that was it; false: rest_answer comes. */
static bool rest(struct server *s, const struct control_call *call, void (*then)(void *arg))
{
	struct machine *m = s->machine;

	loop_unlock(&m->loop);
	machine_rest(m, then, s);
	loop_lock(&m->loop);
	if (m->state != MACHINE_PAUSING) {
		return true;
	}
	rest_await(s, call);
	return false;
}

static void pause_rested(void *arg)
{
	struct server *s = arg;

	s->error.text[0] = '\0';
	rest_answer(s);
}

static int do_resume(struct server *s)
{
	loop_unlock(&s->machine->loop);
	machine_resume(s->machine);
	loop_lock(&s->machine->loop);
	return 0;
}

/* Who took a turn away has ended the machine, and says why. */
static int fault_ended(const struct server *s, int error, struct fault *fault)
{
	return error == -ECANCELED ? fault_set(fault, error, "%s", s->machine->end_text) : error;
}

static void reset_now(void *arg)
{
	struct server *s = arg;
	struct machine *m = s->machine;
	struct fault fault = {0};
	int rv;

	loop_unlock(&m->loop);
	rv = machine_reset(m, &fault);
	if (rv == -ECANCELED) {
		(void)fault_ended(s, rv, &fault);
	} else if (rv < 0) {
		/* Half reset it must not run. */
		machine_stop(m, MACHINE_END_ERROR, fault.text);
	}
	loop_lock(&m->loop);
	s->resetting = false;
	s->error = fault;
	rest_answer(s);
}

/* Not in here, where the parent may be in a request: kernel and initrd may take longer to read than
 * the lease is long, and who reads them hears its renewals (loading_turn). */
static void reset_rested(void *arg)
{
	struct server *s = arg;

	s->resetting = true;
	loop_first(&s->machine->loop, reset_now, s);
}

static bool do_reset(struct server *s, const struct control_call *call)
{
	/* Refused it goes on as it was. */
	if (!machine_can_reset(s->machine, &s->error)) {
		return true;
	}
	(void)rest(s, call, reset_rested);
	rest_await(s, call);
	return false;
}

static int do_button(struct server *s)
{
	int rv = machine_press_button(s->machine);

	if (rv == -ENODEV) {
		return fault_set(&s->error, rv,
				 "this VM has no power button (noPowerButton); stop "
				 "ends it at once");
	}
	if (rv < 0) {
		return fault_set(&s->error, rv,
				 "the guest has no driver for its power button (virtio_input), or "
				 "not yet; stop ends it at once");
	}
	return 0;
}

static int do_lease(struct server *s, const Tb__VmLease *lease, bool may_renew)
{
	int rv;

	if (!may_renew) {
		return fault_set(&s->error, -EPERM,
				 "this VM's lease is its parent's, and the parent is connected");
	}
	rv = lease->until_ms != 0 ? lease_until(&s->lease, lease->until_ms)
				  : lease_for(&s->lease, lease->length_ms);
	if (rv < 0) {
		return fault_set(&s->error, rv, "a lease of more than a day is none");
	}
	return 0;
}

static int do_balloon(struct server *s, const Tb__VmBalloon *balloon)
{
	if (s->machine->balloon == NULL) {
		return fault_set(&s->error, -ENODEV, "this VM has no balloon (noBalloon)");
	}
	if (balloon->target_mib >= s->spec->memory_mib) {
		return fault_set(&s->error, -ERANGE,
				 "the guest has %u MiB in all and cannot give back %u",
				 s->spec->memory_mib, balloon->target_mib);
	}
	balloon_set_target(s->machine->balloon,
			   balloon->target_mib * (UINT32_C(1048576) / BALLOON_PAGE));
	return 0;
}

static int save_dup(int from, int *ret)
{
	*ret = fcntl(from, F_DUPFD_CLOEXEC, 0);
	return *ret < 0 ? -errno : 0;
}

static int do_save(struct server *s, const struct control_call *call)
{
	struct saver_job job = {
		.state = -1,
		.memory = -1,
		.client = call->client,
		.id = call->request->id,
	};
	int rv;

	if (call->fd_count != 2) {
		return fault_set(&s->error, -EINVAL,
				 "save needs two descriptors, of the state and the memory file");
	}
	/* One that was paused stays so. */
	job.stay_paused = call->request->save->stay_paused || s->machine->state == MACHINE_PAUSED;
	rv = save_dup(call->fds[0], &job.state);
	rv = rv < 0 ? rv : save_dup(call->fds[1], &job.memory);
	if (rv < 0) {
		if (job.state >= 0) {
			close(job.state);
		}
		return fault_set(&s->error, rv, "cannot keep the files: %s", strerror(-rv));
	}
	saver_begin(s->saver, &job);
	return 0;
}

/* The button first; again, or without one: at once. A snapshot is finished before. */
static void end_politely(struct server *s)
{
	const char *name = s->spec->name;
	bool first = !s->asked_to_end;

	s->asked_to_end = true;
	if (first && s->saver != NULL && saver_is_busy(s->saver)) {
		s->end_waits = true;
		log_notice("shutdown",
			   "%s: a snapshot is being written, then the guest is asked to shut down; "
			   "once more ends the VM at once",
			   name);
	} else if (first && s->machine->state == MACHINE_RUNNING &&
		   machine_press_button(s->machine) == 0) {
		log_notice("shutdown",
			   "%s: the guest was asked to shut down; once more ends it at once", name);
	} else {
		machine_stop(s->machine, MACHINE_END_STOPPED, "ended by a signal");
	}
}

static void save_done(void *arg, const struct saver_job *job, const struct fault *fault)
{
	struct server *s = arg;
	Tb__VmReply reply = TB__VM_REPLY__INIT;

	if (!job->stay_paused) {
		(void)do_resume(s);
	}
	reply.id = job->id;
	reply.error = (char *)(uintptr_t)fault->text;
	control_answer(s->control, job->client, &reply);
	if (s->end_waits) {
		s->end_waits = s->asked_to_end = false;
		end_politely(s);
	}
}

static int do_stats(struct server *s, Tb__VmReply *reply)
{
	stats_list_free(&s->list);
	machine_stats_list(&s->stats, &s->list);
	/* Asked now, there at the next time. */
	if (s->machine->balloon != NULL && s->machine->state == MACHINE_RUNNING) {
		balloon_poll(s->machine->balloon);
	}
	reply->stats = &s->list.message;
	return 0;
}

static int do_status(struct server *s, Tb__VmReply *reply)
{
	status_fill(s);
	reply->status = &s->status;
	return 0;
}

static int do_stop(struct server *s)
{
	machine_stop(s->machine, MACHINE_END_STOPPED, "stopped by request");
	return 0;
}

/* What does not touch the guest while it comes to rest or its memory is written. */
static bool goes_with_rest(Tb__VmRequest__WhatCase what)
{
	return what == TB__VM_REQUEST__WHAT_STATUS || what == TB__VM_REQUEST__WHAT_STATS ||
	       what == TB__VM_REQUEST__WHAT_LEASE || what == TB__VM_REQUEST__WHAT_STOP;
}

/* The machine is at something that takes its time. */
static bool is_busy(struct server *s)
{
	if (s->loading || s->resetting) {
		(void)fault_set(&s->error, -EBUSY, "the VM is starting; try again");
		return true;
	}
	if (s->machine->state == MACHINE_PAUSING) {
		(void)fault_set(&s->error, -EBUSY,
				"the VM waits for its disk to end what was begun; try again");
		return true;
	}
	if (saver_is_busy(s->saver)) {
		(void)fault_set(&s->error, -EBUSY, "a snapshot is being written; try again");
		return true;
	}
	return false;
}

static bool request_do(void *arg, const struct control_call *call, Tb__VmReply *reply)
{
	struct server *s = arg;
	const Tb__VmRequest *q = call->request;
	bool done = true;

	s->error.text[0] = '\0';
	if (!goes_with_rest(q->what_case) && is_busy(s)) {
		reply->error = s->error.text;
		return true;
	}
	switch (q->what_case) {
	case TB__VM_REQUEST__WHAT_STATUS:
		(void)do_status(s, reply);
		break;
	case TB__VM_REQUEST__WHAT_STATS:
		(void)do_stats(s, reply);
		break;
	case TB__VM_REQUEST__WHAT_POWER_BUTTON:
		(void)do_button(s);
		break;
	case TB__VM_REQUEST__WHAT_STOP:
		(void)do_stop(s);
		break;
	case TB__VM_REQUEST__WHAT_PAUSE:
		done = rest(s, call, pause_rested);
		break;
	case TB__VM_REQUEST__WHAT_RESUME:
		(void)do_resume(s);
		break;
	case TB__VM_REQUEST__WHAT_RESET:
		done = do_reset(s, call);
		break;
	case TB__VM_REQUEST__WHAT_LEASE:
		(void)do_lease(s, q->lease, call->may_renew);
		break;
	case TB__VM_REQUEST__WHAT_BALLOON:
		(void)do_balloon(s, q->balloon);
		break;
	case TB__VM_REQUEST__WHAT_SAVE:
		done = do_save(s, call) < 0;
		break;
	default:
		(void)fault_set(&s->error, -ENOSYS,
				"this VM is of a version that does not know "
				"the request");
		break;
	}
	reply->error = s->error.text;
	return done;
}

/* A kernel and an initrd, or a snapshot's memory, may take longer to read than the lease is long:
 * its renewals are heard between the pieces. False: the VM is to end. */
static bool loading_turn(void *arg)
{
	struct server *s = arg;
	struct machine *m = s->machine;

	if (s->control == NULL) {
		return true;
	}
	loop_lock(&m->loop);
	s->loading = true;
	control_hear_parent(s->control);
	s->loading = false;
	s->error.text[0] = '\0';
	loop_unlock(&m->loop);
	return m->end == MACHINE_END_NONE;
}

static void signals_ready(struct watch *watch, uint32_t events);

/* The same while a disk is waited for, and signals. */
static bool lock_turn(void *arg)
{
	struct server *s = arg;
	struct pollfd fd = {.fd = s->signals.fd, .events = POLLIN};

	if (poll(&fd, 1, RESOURCES_TURN_MS) > 0) {
		signals_ready(&s->signals, EPOLLIN);
	}
	return loading_turn(s) && s->machine->end == MACHINE_END_NONE;
}

static void parent_gone(void *arg)
{
	struct server *s = arg;

	if (s->config->with_parent) {
		(void)lease_for(&s->lease, 0); /* does not return */
	}
	if (!s->lease.armed) {
		log_warning("parent", "%s: the parent has gone; no lease ends this VM",
			    s->spec->name);
	}
}

/* Console and signals */

static size_t console_output(void *arg, const uint8_t *data, size_t len)
{
	struct server *s = arg;

	return s->terminal == NULL ? len : terminal_output(s->terminal, data, len);
}

static size_t console_input(void *arg, const uint8_t *data, size_t len)
{
	struct server *s = arg;

	/* A device at rest, or one that is being written to a file, takes nothing. */
	return s->machine->state == MACHINE_RUNNING ? machine_input(s->machine, data, len) : 0;
}

static void console_ready(void *arg)
{
	machine_console_ready(((struct server *)arg)->machine);
}

static void console_key(void *arg, enum terminal_key key)
{
	struct server *s = arg;

	s->error.text[0] = '\0';
	if (key == TERMINAL_KEY_LEAVE) {
		machine_stop(s->machine, MACHINE_END_STOPPED, "ended by Ctrl-A x");
	} else if (do_button(s) < 0) {
		log_notice("button", "%s", s->error.text);
	}
}

static void signals_ready(struct watch *watch, uint32_t events)
{
	struct server *s = (struct server *)((char *)watch - offsetof(struct server, signals));
	struct signalfd_siginfo info;

	(void)events;
	if (read(watch->fd, &info, sizeof(info)) != (ssize_t)sizeof(info)) {
		return;
	}
	if (info.ssi_signo == SIGWINCH) {
		uint16_t columns, rows;

		terminal_size(s->config->console_in, &columns, &rows);
		machine_console_resize(s->machine, columns, rows);
	} else {
		end_politely(s);
	}
}

/* Blocked in all threads that come; SIGPIPE and SIGXFSZ are errors of the write. */
static int signals_take(struct server *s, struct fault *fault)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (s->config->keys) {
		sigaddset(&set, SIGWINCH);
	}
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->signals = (struct watch){
		.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
		.ready = signals_ready,
	};
	if (s->signals.fd < 0) {
		return fault_set(fault, -errno, "cannot take signals: %s", strerror(errno));
	}
	return 0;
}

/* Life, in order */

/* The deadline is armed before anything else: a start that hangs ends too. */
static int lease_begin(struct server *s, struct fault *fault)
{
	int rv = lease_init(&s->lease);

	if (rv == -EPERM) {
		return fault_set(
			fault, rv,
			"a VM's process must not be the first of a PID namespace, where no "
			"deadline could end it; start it below an init (docker run --init)");
	}
	if (rv < 0) {
		return fault_set(fault, rv, "cannot make the lease's timer: %s", strerror(-rv));
	}
	if (s->config->lease_until_ms != 0) {
		rv = lease_until(&s->lease, s->config->lease_until_ms);
	} else if (s->spec->lease_ms != 0) {
		rv = lease_for(&s->lease, s->spec->lease_ms);
	}
	return rv < 0 ? fault_set(fault, rv, "a lease of more than a day is none") : 0;
}

static int control_open(struct server *s, struct fault *fault)
{
	int handed = resource_find(s->config->resources, "control");
	int rv = 0;

	if (handed >= 0) {
		s->listener = fcntl(handed, F_DUPFD_CLOEXEC, 0);
	} else if (s->spec->control[0] != '\0') {
		rv = control_listen(s->spec->control, &s->listener);
	}
	if (rv == -EADDRINUSE) {
		return fault_set(fault, rv,
				 "control: %s is there already, and a VM answers it or it "
				 "is no socket",
				 s->spec->control);
	}
	return rv < 0 ? fault_set(fault, rv, "control: cannot make %s: %s", s->spec->control,
				  strerror(-rv))
		      : 0;
}

/* Whatever needs a path. */
static int outside(struct server *s, struct affinity *cores, struct fault *fault)
{
	Tb__VmSpec *spec = s->config->spec;
	int rv = signals_take(s, fault);
	int err;

	if (spec->backing == TB__MEMORY_BACKING__MEMORY_BACKING_AUTO) {
		spec->backing = ram_choose() == RAM_MEMFD
					? TB__MEMORY_BACKING__MEMORY_BACKING_MEMFD
					: TB__MEMORY_BACKING__MEMORY_BACKING_ANONYMOUS;
	}
	affinity_read("", cores);
	s->out = terminal_reopen(s->config->console_out);
	s->statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	s->tasks = open("/proc/self/task", O_PATH | O_DIRECTORY | O_CLOEXEC);
	/* Devices complain while others wait for the lock. */
	err = terminal_reopen(STDERR_FILENO);
	if (err >= 0) {
		log_set_output(err);
	}
	return rv < 0 ? rv : control_open(s, fault);
}

static int watch_signals(struct server *s)
{
	return loop_add(&s->machine->loop, &s->signals, s->signals.fd, EPOLLIN);
}

static int make_terminal(struct server *s)
{
	const struct terminal_config config = {
		.loop = &s->machine->loop,
		.in = s->config->console_in,
		.out = s->out,
		.keys = s->config->keys,
		.input = console_input,
		.output_ready = console_ready,
		.key = console_key,
		.arg = s,
	};
	int rv = terminal_create(&config, &s->terminal);

	s->out = rv == 0 ? -1 : s->out;
	return rv;
}

static int make_control(struct server *s)
{
	const struct control_config config = {
		.loop = &s->machine->loop,
		.parent = s->config->parent,
		.listener = s->listener,
		.request = request_do,
		.parent_gone = parent_gone,
		.arg = s,
	};
	int rv;

	if (config.parent < 0 && config.listener < 0) {
		return 0;
	}
	rv = control_create(&config, &s->control);
	s->listener = rv == 0 ? -1 : s->listener;
	return rv < 0 ? rv : saver_create(s->machine, save_done, s, &s->saver);
}

static int make_doors(struct server *s, struct fault *fault)
{
	int rv = watch_signals(s);

	rv = rv < 0 ? rv : make_terminal(s);
	rv = rv < 0 ? rv : make_control(s);
	s->machine->turn = (struct image_turn){.take = loading_turn, .arg = s};
	return rv < 0 ? fault_set(fault, rv, "cannot make the VM's own doors: %s", strerror(-rv))
		      : 0;
}

/* The largest file that this process has a reason to write. */
static uint64_t file_size_max(const struct server *s)
{
	uint64_t max = s->machine->ram.size + STATE_FILE_MAX;
	struct stat st;

	for (unsigned i = 0; i < s->spec->n_disks; i++) {
		int fd = resource_find_nth(s->config->resources, "disk", i);

		if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size > max) {
			max = (uint64_t)st.st_size;
		}
	}
	/* A console that is kept in a file grows as it likes. */
	if (s->config->console_out >= 0 && fstat(s->config->console_out, &st) == 0 &&
	    S_ISREG(st.st_mode)) {
		return RLIM_INFINITY;
	}
	return max;
}

static bool uses_kernel_threads(const struct machine *m)
{
	bool uses = false;

	for (size_t i = 0; i < sizeof(m->blk) / sizeof(m->blk[0]); i++) {
		uses = uses || (m->blk[i] != NULL && strcmp(blk_engine(m->blk[i]), "threads") != 0);
	}
	return uses;
}

static int seal(struct server *s, struct fault *fault)
{
	const struct sandbox_limits limits = {
		.file_size_max = file_size_max(s),
		/* Clients and one that is told to go; descriptors that come and those that are
		   kept. */
		.descriptors_more = CONTROL_CLIENTS_MAX + 1 + 4 * CONTROL_FDS_MAX,
		.kernel_threads = uses_kernel_threads(s->machine),
	};
	int rv = sandbox_seal(s->spec->sandbox, &limits, &s->sandbox, fault);

	sandbox_describe(&s->sandbox, s->sandbox_text);
	return rv;
}

/* A whole disk's time, if it hangs: after the doors are made, so that the lease is renewed. */
static int lock_disks(struct server *s, struct fault *fault)
{
	int rv = resources_lock(s->spec, s->config->resources, lock_turn, s, fault);

	return fault_ended(s, rv, fault);
}

/* From here on bytes from outside are parsed: kernel, initrd, snapshot. */
static int load_guest(struct server *s, struct fault *fault)
{
	const struct resources *r = s->config->resources;
	int rv = s->spec->restore == NULL ? machine_load_kernel(s->machine, fault)
					  : snapshot_load(s->machine, resource_find(r, "state"),
							  resource_find(r, "memory"), fault);

	return fault_ended(s, rv, fault);
}

static void fd_close(int fd)
{
	if (fd >= 0) {
		close(fd);
	}
}

static int keep_cores(struct server *s, const struct affinity *cores, struct fault *fault)
{
	int rv = affinity_keep(cores, s->cores_text, fault);

	if (s->cores_text[0] != '\0') {
		log_notice("cores", "%s: kept to cores of one kind: %s", s->spec->name,
			   s->cores_text);
	}
	return rv;
}

static int start(struct server *s, struct fault *fault)
{
	struct machine_console console = {.output = console_output, .arg = s};
	struct affinity cores;
	int rv = outside(s, &cores, fault);

	if (s->config->keys) {
		terminal_size(s->config->console_in, &console.columns, &console.rows);
	}

	rv = rv < 0 ? rv : sandbox_enter(s->spec->sandbox, &s->sandbox, fault);
	if (s->config->keys) {
		/* Who keeps the terminal's settings; not before the change of user, which undoes
		 * it. */
		(void)prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
	}
	if (s->config->with_parent) {
		/* Even if our loop hangs. A parent that has gone before is seen on its connection.
		 */
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	}
	rv = rv < 0 ? rv : keep_cores(s, &cores, fault);
	rv = rv < 0 ? rv
		    : machine_create(s->spec, s->config->resources, console, &s->machine, fault);
	if (rv < 0) {
		return rv;
	}
	machine_stats_open(&s->stats, s->machine, s->statm);
	s->statm = -1;
	rv = make_doors(s, fault);
	rv = rv < 0 ? rv : lock_disks(s, fault);
	rv = rv < 0 ? rv : vcpus_start(&s->machine->vcpus, fault);
	if (rv < 0) {
		return rv;
	}
	machine_stats_open_threads(&s->stats, s->tasks);
	fd_close(s->tasks);
	s->tasks = -1;
	rv = seal(s, fault);
	rv = rv < 0 ? rv : load_guest(s, fault);
	if (rv == 0 && (s->spec->restore == NULL || !s->spec->restore->paused)) {
		machine_start(s->machine);
	}
	return rv;
}

/* What the parent hears unasked: that it runs, that it has ended, or why it did not start. */
static void tell_parent(struct server *s, const char *error)
{
	Tb__VmReply reply = TB__VM_REPLY__INIT;

	reply.error = (char *)(uintptr_t)error;
	if (s->control == NULL) {
		if (s->config->parent >= 0) {
			start_refuse(s->config->parent, error);
		}
		return;
	}
	status_fill(s);
	reply.status = &s->status;
	control_tell_parent(s->control, &reply);
}

/* The start backwards. */
static void finish(struct server *s)
{
	/* An end from outside finds the vCPUs running: nobody may speak to what goes now. */
	if (s->machine != NULL) {
		vcpus_park(&s->machine->vcpus);
	}
	saver_destroy(s->saver);
	control_destroy(s->control);
	terminal_destroy(s->terminal);
	s->terminal = NULL;
	machine_stats_close(&s->stats);
	stats_list_free(&s->list);
	loop_remove(&s->signals);
	machine_destroy(s->machine);
	fd_close(s->signals.fd);
	fd_close(s->statm);
	fd_close(s->tasks);
	fd_close(s->listener);
	fd_close(s->out);
}

static int segment_forget(struct dl_phdr_info *program, size_t size, void *arg)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);

	(void)size;
	(void)arg;
	for (unsigned i = 0; i < program->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &program->dlpi_phdr[i];
		uintptr_t begin = program->dlpi_addr + segment->p_vaddr;

		if (segment->p_type == PT_LOAD && (segment->p_flags & PF_W) == 0) {
			begin &= ~(page - 1);
			(void)madvise((void *)begin, segment->p_memsz, MADV_DONTNEED);
		}
	}
	return 1; /* the program itself comes first, and there is no other */
}

/* Most of the program is needed to start: parsers, tables, messages. Its pages leave this process,
 * and those that are needed again come back from the page cache, a few of many. */
static void program_forget(void)
{
	(void)dl_iterate_phdr(segment_forget, NULL);
	(void)malloc_trim(0);
}

static int run(struct server *s, struct fault *fault)
{
	struct machine *m = s->machine;

	loop_when_quiet(&m->loop, program_forget);
	loop_lock(&m->loop);
	tell_parent(s, "");
	loop_unlock(&m->loop);
	loop_run(&m->loop);
	if (machine_end_status(m->end) != 0) {
		(void)fault_set(fault, -EIO, "%s", m->end_text);
	}
	tell_parent(s, m->end_text);
	return machine_end_status(m->end);
}

int serve(const struct serve_config *config, struct fault *fault)
{
	struct server s = {
		.config = config,
		.spec = config->spec,
		.signals.fd = -1,
		.stats = {.vm = -1, .statm = -1},
		.out = -1,
		.listener = -1,
		.statm = -1,
		.tasks = -1,
	};
	int status;

	/* One arena: threads of ours hardly allocate, and each arena would keep pages. */
	(void)mallopt(M_ARENA_MAX, 1);
	stats_list_init(&s.list);
	if (lease_begin(&s, fault) < 0) {
		tell_parent(&s, fault->text);
		return 1;
	}
	if (start(&s, fault) < 0) {
		tell_parent(&s, fault->text);
		status = 1;
	} else {
		status = run(&s, fault);
	}
	lease_shorten(&s.lease, END_MS);
	if (s.saver != NULL && saver_is_busy(s.saver)) {
		/* Its thread has the machine, and may hang in a write: the end of the process ends
		 * it. */
		terminal_destroy(s.terminal);
		return status;
	}
	finish(&s);
	return status;
}
