/* host_vm.c: one VM on this board, as the decider wants it.
 *
 *   PREPARE --> images there? --no--> waits, tried again when images come
 *                   | yes
 *                   v
 *               disks (a worker) --> PREPARED, or NOT_PREPARED and why
 *   START ----> descriptors, taps, console, cgroup, user --> process --> RUNS, REFUSED, OFF, FAILED
 *   DISCARD --> overlays go (a worker), and with them what is kept here
 *
 * One worker at a time is in a VM's folder: the next one waits for it. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "proto/json.h"
#include "witnessd/host_internal.h"
#include "witnessd/vm_net.h"

enum vm_work { WORK_NONE, WORK_PREPARE, WORK_DISCARD, WORK_DELETE };

struct host_vm {
	struct list link; /* in host.vms */
	struct host *host;
	uint64_t id;
	Tb__Vm *row; /* as it was prepared last; NULL: never yet */
	struct console *console;
	struct vm_process *process; /* NULL: none */
	uint64_t process_incarnation;
	int user; /* slot of uid_used; -1: none */
	char cgroup[VM_CGROUP_PATH]; /* "": none */
	struct problem waits; /* for these images; "": for nothing */
	struct vm_job *preparing; /* while busy is WORK_PREPARE */
	enum vm_work busy; /* a worker is in its folder */
	enum vm_work next; /* and what is to be done behind it */
};

struct vm_job {
	struct host_job job;
	uint64_t vm;
	enum vm_work kind;
	Tb__Vm *row; /* WORK_PREPARE */
	int images[VM_DISKS_MAX];
	struct vm_disk_copying copying;
	uint64_t began_ms;
	char *folder, *program;
	int result;
	struct problem problem;
};

static struct host_vm *vm_find(const struct host *h, uint64_t id)
{
	list_for_each (at, &h->vms) {
		struct host_vm *vm = list_entry(at, struct host_vm, link);

		if (vm->id == id)
			return vm;
	}
	return NULL;
}

static struct host_vm *vm_take(struct host *h, uint64_t id)
{
	struct host_vm *vm = vm_find(h, id);

	if (vm != NULL)
		return vm;
	vm = mem_zalloc(sizeof(*vm));
	vm->host = h;
	vm->id = id;
	vm->user = -1;
	vm->console = console_new(&h->loop);
	list_append(&h->vms, &vm->link);
	return vm;
}

static void vm_free(struct host_vm *vm, const char *why)
{
	list_remove(&vm->link);
	console_free(vm->console, why);
	tb__vm__free_unpacked(vm->row, NULL);
	free(vm);
}

static const char *vm_name(const struct host_vm *vm)
{
	return vm->row != NULL ? vm->row->name : "?";
}

static void tell(struct host *h, uint64_t vm, uint64_t incarnation, enum hosting_news news,
		 const char *problem)
{
	if (h->hosting == NULL || h->stopping)
		return;
	hosting_process(h->hosting, vm, incarnation, news, problem, clock_boottime_ms());
	host_step(h);
}

/* --- disks, by workers --- */

static void job_free(struct vm_job *j)
{
	for (unsigned i = 0; i < VM_DISKS_MAX; i++)
		if (j->images[i] >= 0)
			close(j->images[i]);
	tb__vm__free_unpacked(j->row, NULL);
	free(j->folder);
	free(j->program);
	free(j);
}

static void job_work(struct host_job *job)
{
	struct vm_job *j = list_entry(job, struct vm_job, job);

	switch (j->kind) {
	case WORK_PREPARE:
		j->result = vm_disk_prepare(j->folder, j->row, j->images, &j->copying, &j->problem);
		if (j->result == 0)
			(void)vm_process_warm(j->program); /* a start will say what it lacks */
		break;
	case WORK_DISCARD:
		vm_disk_discard(j->folder, j->vm);
		break;
	case WORK_DELETE:
		vm_disk_delete(j->folder, j->vm);
		break;
	case WORK_NONE:
		break;
	}
}

static void vm_prepare(struct host_vm *vm);
static void vm_discard(struct host_vm *vm, enum vm_work kind);

static void prepared(struct host_vm *vm, const struct vm_job *j)
{
	struct host *h = vm->host;
	uint64_t incarnation = j->row->placement->incarnation;

	if (j->result == -ECANCELED)
		return; /* who cancelled it goes on */
	if (j->result < 0) {
		log_warning("vm-not-prepared", "%s: %s", j->row->name, j->problem.text);
		tell(h, vm->id, incarnation, HOSTING_NOT_PREPARED, j->problem.text);
		return;
	}
	if (j->copying.bytes > 0)
		log_info("vm-disks", "%s: %" PRIu64 " MiB of its disks copied in %" PRIu64 " ms",
			 j->row->name, j->copying.bytes >> 20, clock_boottime_ms() - j->began_ms);
	tell(h, vm->id, incarnation, HOSTING_PREPARED, "");
}

static void job_done(struct host_job *job)
{
	struct vm_job *j = list_entry(job, struct vm_job, job);
	struct host *h = job->host; /* outlives the job */
	struct host_vm *vm = vm_find(h, j->vm);
	enum vm_work next;

	assert(vm != NULL); /* stays while a worker is in its folder */
	next = vm->next;
	vm->preparing = NULL;
	vm->busy = WORK_NONE;
	vm->next = WORK_NONE;
	if (next == WORK_PREPARE)
		vm_prepare(vm);
	else if (next != WORK_NONE)
		vm_discard(vm, next);
	else if (j->kind == WORK_PREPARE)
		prepared(vm, j);
	else if (vm->process == NULL)
		vm_free(vm, j->kind == WORK_DELETE ? "the VM is deleted"
						   : "the VM has left this board");
	job_free(j);
	host_maybe_stopped(h);
}

static struct vm_job *job_new(struct host_vm *vm, enum vm_work kind)
{
	struct vm_job *j = mem_zalloc(sizeof(*j));

	j->job.work = job_work;
	j->job.done = job_done;
	j->vm = vm->id;
	j->kind = kind;
	j->folder = mem_strdup(vm->host->vms_dir);
	j->program = mem_strdup(vm->host->program);
	j->began_ms = clock_boottime_ms();
	for (unsigned i = 0; i < VM_DISKS_MAX; i++)
		j->images[i] = -1;
	return j;
}

static void job_start(struct host_vm *vm, struct vm_job *j)
{
	vm->busy = j->kind;
	vm->preparing = j->kind == WORK_PREPARE ? j : NULL;
	host_work(vm->host, &j->job);
}

/* A copy that nobody wants any more ends with the piece in hand: gigabytes take a card minutes. */
static void vm_cancel(struct host_vm *vm)
{
	if (vm->preparing != NULL)
		vm->preparing->copying.cancelled = true;
}

static void vm_discard(struct host_vm *vm, enum vm_work kind)
{
	vm->waits.text[0] = '\0';
	vm_cancel(vm);
	if (vm->busy != WORK_NONE)
		vm->next = kind;
	else
		job_start(vm, job_new(vm, kind));
}

/* An image that must be whole before anything is made. 0; -EAGAIN: it will come. */
static int image_take(struct host_vm *vm, const char *what, const char *sha256, int *ret_fd,
		      struct problem *problem)
{
	char text[LIMIT_MESSAGE + 1];
	int rv = image_keeper_file(vm->host->keeper, sha256, ret_fd, text, sizeof(text));

	return rv < 0 ? problem_set(problem, rv, "%s: %.160s", what, text) : 0;
}

/* Looks at an image that is only opened at the start. */
static int image_look(struct host_vm *vm, const char *what, const char *sha256,
		      struct problem *problem)
{
	int fd;
	int rv = image_take(vm, what, sha256, &fd, problem);

	if (rv == 0)
		close(fd);
	return rv;
}

static int images_take(struct host_vm *vm, struct vm_job *j)
{
	const Tb__VmConfig *config = j->row->config;
	char what[16];
	int rv = image_look(vm, "kernel", config->kernel, &j->problem);

	if (rv == 0 && config->initrd[0] != '\0')
		rv = image_look(vm, "initrd", config->initrd, &j->problem);
	for (unsigned i = 0; i < config->n_disks && rv == 0; i++) {
		snprintf(what, sizeof(what), "disk %u", i);
		if (config->disks[i]->kind == TB__DISK_KIND__DISK_KIND_IMAGE)
			rv = image_look(vm, what, config->disks[i]->image, &j->problem);
		else if (config->disks[i]->kind == TB__DISK_KIND__DISK_KIND_OVERLAY &&
			 !vm_disk_made(j->folder, j->row, i))
			rv = image_take(vm, what, config->disks[i]->image, &j->images[i],
					&j->problem);
	}
	return rv;
}

static int bridges_look(const Tb__VmConfig *config, struct problem *problem)
{
	int rv = 0;

	for (unsigned i = 0; i < config->n_nics && rv == 0; i++)
		rv = vm_net_check(i, config->nics[i]->bridge, problem);
	return rv;
}

static void waits_set(struct host_vm *vm, const struct problem *problem)
{
	if (strcmp(vm->waits.text, problem->text) == 0)
		return;
	log_info("vm-waits", "%s: %s", vm_name(vm), problem->text);
	vm->waits = *problem;
	host_say(vm->host);
}

static void vm_prepare(struct host_vm *vm)
{
	struct vm_job *j;
	int rv;

	if (vm->busy != WORK_NONE) {
		if (vm->preparing != NULL &&
		    vm->preparing->row->placement->incarnation != vm->row->placement->incarnation)
			vm_cancel(vm);
		vm->next = WORK_PREPARE;
		return;
	}
	j = job_new(vm, WORK_PREPARE);
	j->row = (Tb__Vm *)message_copy(&vm->row->base);
	rv = bridges_look(j->row->config, &j->problem);
	rv = rv < 0 ? rv : images_take(vm, j);
	if (rv == -EAGAIN) {
		waits_set(vm, &j->problem);
		job_free(j);
		return;
	}
	vm->waits.text[0] = '\0';
	if (rv == 0) {
		job_start(vm, j);
		return;
	}
	j->result = rv;
	prepared(vm, j);
	job_free(j);
}

void host_vms_retry(struct host *h)
{
	list_for_each_safe (at, &h->vms) {
		struct host_vm *vm = list_entry(at, struct host_vm, link);

		if (vm->waits.text[0] != '\0' && !h->stopping)
			vm_prepare(vm);
	}
}

const char *host_vm_waits(struct host *h, uint64_t id)
{
	const struct host_vm *vm = vm_find(h, id);

	return vm != NULL && vm->waits.text[0] != '\0' ? vm->waits.text : NULL;
}

/* --- the process --- */

/* What a start has open; the process has copies of its own once it is there. */
struct launch {
	struct vm_process_start how;
	char names[VM_PROCESS_FDS_MAX][16];
	Tb__VmSpec spec;
	Tb__SandboxSpec sandbox;
	Tb__DiskSpec disks[VM_DISKS_MAX], *disk_list[VM_DISKS_MAX];
	Tb__NicSpec nics[4], *nic_list[4];
	int console; /* our end; -1: none */
};

static void launch_add(struct launch *l, const char *kind, int number, int fd)
{
	size_t at = l->how.count++;

	assert(at < VM_PROCESS_FDS_MAX);
	if (number < 0)
		snprintf(l->names[at], sizeof(l->names[at]), "%s", kind);
	else
		snprintf(l->names[at], sizeof(l->names[at]), "%s%d", kind, number);
	l->how.names[at] = l->names[at];
	l->how.fds[at] = fd;
}

static void launch_close(struct launch *l)
{
	for (size_t i = 0; i < l->how.count; i++)
		close(l->how.fds[i]);
	if (l->console >= 0)
		close(l->console);
}

static int open_kvm(const struct host *h, struct launch *l, struct problem *problem)
{
	int fd = open(h->kvm, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return problem_set(problem, -errno, "cannot open %s: %s", h->kvm, strerror(errno));
	launch_add(l, "kvm", -1, fd);
	return 0;
}

static int open_image(struct host_vm *vm, struct launch *l, const char *name, int number,
		      const char *sha256, struct problem *problem)
{
	int fd;
	int rv = image_take(vm, name, sha256, &fd, problem);

	if (rv == 0)
		launch_add(l, name, number, fd);
	return rv;
}

static int open_disk(struct host_vm *vm, struct launch *l, unsigned number, struct problem *problem)
{
	const Tb__VmDisk *disk = vm->row->config->disks[number];
	Tb__DiskSpec *spec = &l->disks[number];
	int fd;
	int rv;

	tb__disk_spec__init(spec);
	spec->read_only = disk->kind == TB__DISK_KIND__DISK_KIND_IMAGE;
	spec->id = disk->id;
	l->disk_list[number] = spec;
	l->spec.n_disks = number + 1;
	if (spec->read_only)
		return open_image(vm, l, "disk", (int)number, disk->image, problem);
	rv = vm_disk_open(vm->host->vms_dir, vm->row, number, &fd, problem);
	if (rv == 0)
		launch_add(l, "disk", (int)number, fd);
	return rv;
}

static int open_nic(struct host_vm *vm, struct launch *l, unsigned number, struct problem *problem)
{
	const Tb__VmNic *nic = vm->row->config->nics[number];
	Tb__NicSpec *spec = &l->nics[number];
	int fd;
	int rv = vm_net_open(vm->id, number, nic->bridge, nic->mac, &fd, problem);

	tb__nic_spec__init(spec);
	spec->mac = nic->mac;
	l->nic_list[number] = spec;
	l->spec.n_nics = number + 1;
	if (rv == 0)
		launch_add(l, "nic", (int)number, fd);
	return rv;
}

static int open_console(struct launch *l, struct problem *problem)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return problem_set(problem, -errno, "no socket for its console: %s",
				   strerror(errno));
	l->console = pair[0];
	launch_add(l, "console", -1, pair[1]);
	return 0;
}

/* In the order in which VmStart has them. */
static int launch_open(struct host_vm *vm, struct launch *l, struct problem *problem)
{
	const Tb__VmConfig *config = vm->row->config;
	int rv = open_kvm(vm->host, l, problem);

	rv = rv < 0 ? rv : open_image(vm, l, "kernel", -1, config->kernel, problem);
	if (rv == 0 && config->initrd[0] != '\0')
		rv = open_image(vm, l, "initrd", -1, config->initrd, problem);
	for (unsigned i = 0; i < config->n_disks && rv == 0; i++)
		rv = open_disk(vm, l, i, problem);
	for (unsigned i = 0; i < config->n_nics && rv == 0; i++)
		rv = open_nic(vm, l, i, problem);
	return rv < 0 ? rv : open_console(l, problem);
}

static void launch_describe(struct host_vm *vm, struct launch *l)
{
	const Tb__VmConfig *config = vm->row->config;

	tb__vm_spec__init(&l->spec);
	l->spec.name = vm->row->name;
	l->spec.command_line = config->command_line;
	l->spec.vcpus = config->vcpus;
	l->spec.memory_mib = config->memory_mib;
	l->spec.disks = l->disk_list;
	l->spec.nics = l->nic_list;
	tb__sandbox_spec__init(&l->sandbox);
	l->spec.sandbox = &l->sandbox;
}

/* A user that no other VM of this board has at this moment. */
static int user_take(struct host_vm *vm, struct launch *l, struct problem *problem)
{
	struct host *h = vm->host;

	if (!h->root)
		return 0;
	for (int i = 0; i < CONFIG_VM_UIDS; i++) {
		if (h->uid_used[i])
			continue;
		h->uid_used[i] = true;
		vm->user = i;
		l->sandbox.uid = l->sandbox.gid = h->uid_base + (uint32_t)i;
		return 0;
	}
	return problem_set(problem, -EUSERS, "all %d users for VMs are taken", CONFIG_VM_UIDS);
}

static int cgroup_take(struct host_vm *vm, struct launch *l, struct problem *problem)
{
	struct host *h = vm->host;
	int rv;

	if (h->cgroups[0] == '\0')
		return 0;
	rv = vm_cgroup_make(h->cgroups, vm->row->name, vm->row->config->memory_mib, vm->cgroup,
			    problem);
	if (rv < 0)
		vm->cgroup[0] = '\0';
	else
		l->sandbox.cgroup = vm->cgroup;
	return rv;
}

static void vm_give_back(struct host_vm *vm)
{
	if (vm->user >= 0)
		vm->host->uid_used[vm->user] = false;
	vm->user = -1;
	if (vm->cgroup[0] != '\0')
		vm_cgroup_remove(vm->cgroup);
	vm->cgroup[0] = '\0';
}

static void process_started(void *arg)
{
	struct host_vm *vm = arg;

	log_notice("vm-runs", "%s runs (process %d, incarnation %" PRIu64 ")", vm_name(vm),
		   (int)vm_process_pid(vm->process), vm->process_incarnation);
	tell(vm->host, vm->id, vm->process_incarnation, HOSTING_RUNS, "");
}

static void process_no_button(void *arg, const char *why)
{
	struct host_vm *vm = arg;

	log_notice("vm-stopped", "%s is ended without asking it: %s", vm_name(vm), why);
	vm_process_stop(vm->process);
}

static void process_renewed(void *arg, uint64_t until_ms)
{
	struct host_vm *vm = arg;

	if (vm->host->hosting != NULL)
		hosting_renewed(vm->host->hosting, vm->id, vm->process_incarnation, until_ms,
				clock_boottime_ms());
}

static void process_late(void *arg, uint64_t ms)
{
	struct host_vm *vm = arg;

	vm->host->counters.late++;
	log_warning("vm-renewal-late", "%s took %" PRIu64 " ms to answer a renewal of its lease",
		    vm_name(vm), ms);
}

static void process_ended(void *arg, enum vm_process_end end, const char *why)
{
	static const enum hosting_news news[] = {
		[VM_PROCESS_REFUSED] = HOSTING_REFUSED,
		[VM_PROCESS_OFF] = HOSTING_OFF,
		[VM_PROCESS_FAILED] = HOSTING_FAILED,
	};
	struct host_vm *vm = arg;
	struct host *h = vm->host;
	uint64_t incarnation = vm->process_incarnation, now_ms = clock_boottime_ms();

	vm->process = NULL;
	vm_give_back(vm);
	console_detach(vm->console);
	if (h->hosting != NULL && hosting_deaf(h->hosting, vm->id, incarnation, now_ms))
		why = "its process did not answer, so that its lease could not be renewed";
	if (end == VM_PROCESS_OFF) {
		log_notice("vm-off", "%s is off: %s", vm_name(vm), why);
	} else if (h->hosting != NULL && hosting_lapsed(h->hosting, vm->id, incarnation, now_ms)) {
		h->counters.lapses++;
		log_warning("vm-lapsed", "%s has ended with its lease", vm_name(vm));
	} else {
		h->counters.failures++;
		log_warning("vm-failed", "%s %s: %s", vm_name(vm),
			    end == VM_PROCESS_REFUSED ? "did not start" : "has ended", why);
	}
	tell(h, vm->id, incarnation, news[end], why);
	host_maybe_stopped(h);
}

static const struct vm_process_events process_events = {
	.started = process_started,
	.no_button = process_no_button,
	.renewed = process_renewed,
	.late = process_late,
	.ended = process_ended,
};

static int vm_launch(struct host_vm *vm, struct launch *l, uint64_t deadline_ms,
		     struct problem *problem)
{
	int rv;

	l->how.loop = &vm->host->loop;
	l->how.program = vm->host->program;
	l->how.spec = &l->spec;
	l->how.deadline_ms = deadline_ms;
	l->how.events = &process_events;
	l->how.arg = vm;
	launch_describe(vm, l);
	rv = launch_open(vm, l, problem);
	rv = rv < 0 ? rv : user_take(vm, l, problem);
	rv = rv < 0 ? rv : cgroup_take(vm, l, problem);
	rv = rv < 0 ? rv : vm_process_start(&l->how, &vm->process, problem);
	if (rv < 0) {
		vm_give_back(vm);
		return rv;
	}
	if (console_attach(vm->console, l->console) < 0)
		log_warning("vm-console", "%s: nobody can read its console", vm_name(vm));
	l->console = -1;
	return 0;
}

static void vm_start(struct host_vm *vm, uint64_t incarnation, uint64_t deadline_ms)
{
	struct launch l = {.console = -1};
	struct problem problem = {0};
	int rv = 0;

	if (vm->process != NULL)
		rv = problem_set(&problem, -EBUSY, "its process of before is still there");
	else if (vm->row == NULL || vm->row->placement->incarnation != incarnation)
		rv = problem_set(&problem, -ESTALE, "it is not prepared in this incarnation");
	vm->process_incarnation = rv < 0 ? vm->process_incarnation : incarnation;
	rv = rv < 0 ? rv : vm_launch(vm, &l, deadline_ms, &problem);
	launch_close(&l);
	if (rv == 0) {
		vm->host->counters.starts++;
		return;
	}
	vm->host->counters.failures++;
	log_warning("vm-failed", "%s did not start: %s", vm_name(vm), problem.text);
	tell(vm->host, vm->id, incarnation, HOSTING_REFUSED, problem.text);
}

/* --- what the decider wants --- */

static void vm_row(struct host_vm *vm, const Tb__Vm *row)
{
	if (row == NULL)
		return;
	tb__vm__free_unpacked(vm->row, NULL);
	vm->row = (Tb__Vm *)message_copy(&row->base);
}

static bool is_of(const struct host_vm *vm, uint64_t incarnation)
{
	return vm->process != NULL && vm->process_incarnation == incarnation;
}

void host_vm_do(struct host *h, const struct hosting_action *a, const Tb__Vm *row)
{
	struct host_vm *vm = vm_take(h, a->vm);

	switch (a->verb) {
	case HOSTING_PREPARE:
		vm_row(vm, row);
		if (vm->row != NULL)
			vm_prepare(vm);
		break;
	case HOSTING_START:
		vm_start(vm, a->incarnation, a->deadline_ms);
		break;
	case HOSTING_RENEW:
		if (is_of(vm, a->incarnation))
			vm_process_renew(vm->process, a->deadline_ms);
		break;
	case HOSTING_BUTTON:
		if (!is_of(vm, a->incarnation))
			break;
		log_notice("vm-button", "%s is asked to shut down", vm_name(vm));
		vm_process_button(vm->process);
		break;
	case HOSTING_KILL:
		if (!is_of(vm, a->incarnation))
			break;
		log_notice("vm-killed", "%s is ended by force", vm_name(vm));
		vm_process_kill(vm->process);
		break;
	case HOSTING_DISCARD:
		vm_discard(vm, WORK_DISCARD);
		break;
	}
}

struct console *host_vm_console(struct host *h, uint64_t id, uint64_t *ret_incarnation)
{
	struct host_vm *vm = vm_find(h, id);

	if (vm == NULL)
		return NULL;
	*ret_incarnation = vm->process_incarnation;
	return vm->console;
}

/* --- all of them --- */

void host_vms_sweep(struct host *h, bool (*exists)(void *arg, uint64_t vm), void *arg)
{
	uint64_t ids[2 * LIMIT_VMS];
	unsigned count = vm_disk_list(h->vms_dir, ids, 2 * LIMIT_VMS);

	for (unsigned i = 0; i < count; i++) {
		if (exists(arg, ids[i]) || vm_find(h, ids[i]) != NULL)
			continue;
		log_notice("vm-disks", "what VM %" PRIu64 " has left here goes: it is deleted",
			   ids[i]);
		vm_discard(vm_take(h, ids[i]), WORK_DELETE);
	}
}

void host_vms_cancel(struct host *h)
{
	list_for_each (at, &h->vms)
		vm_cancel(list_entry(at, struct host_vm, link));
}

void host_vms_button(struct host *h)
{
	list_for_each (at, &h->vms) {
		struct host_vm *vm = list_entry(at, struct host_vm, link);

		if (vm->process != NULL)
			vm_process_button(vm->process);
	}
}

void host_vms_kill(struct host *h)
{
	list_for_each (at, &h->vms) {
		struct host_vm *vm = list_entry(at, struct host_vm, link);

		if (vm->process != NULL)
			vm_process_kill(vm->process);
	}
}

void host_vms_renew(struct host *h, uint64_t until_ms)
{
	list_for_each (at, &h->vms) {
		struct host_vm *vm = list_entry(at, struct host_vm, link);

		if (vm->process != NULL)
			vm_process_renew(vm->process, until_ms);
	}
}

bool host_vms_gone(const struct host *h)
{
	list_for_each (at, &h->vms)
		if (list_entry(at, struct host_vm, link)->process != NULL)
			return false;
	return true;
}

void host_vms_free(struct host *h)
{
	list_for_each_safe (at, &h->vms)
		vm_free(list_entry(at, struct host_vm, link), "this board is stopping");
}
