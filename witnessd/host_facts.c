/* host_facts.c: what this board can give to VMs: NodeHost, committed so that every board can do
 * the arithmetic. Asked at the start (`witness-vm probe`), and every minute again while this board
 * cannot host: it may be too busy at its boot to answer in time, or /dev/kvm come late. But for the
 * bridges, which a person makes at any time. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/apply.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/rng.h"
#include "proto/hv_probe.pb-c.h"
#include "proto/json.h"
#include "witnessd/core.h"
#include "witnessd/host_internal.h"
#include "witnessd/vm_net.h"

enum {
	PROBE_MS = 20000,
	PROBE_MAX = 256 << 10, /* bytes of its answer */
	RESERVE_MIB = 384, /* of the board for itself, or a quarter, whichever is more */
};

struct probe_job {
	struct host_job job;
	char *program;
	bool hosts;
	struct problem why_not;
};

static void probe_judge(struct probe_job *p, const struct buf *text)
{
	struct json_error error;
	ProtobufCMessage *message;
	const Tb__HostProbe *probe;

	if (json_decode(&tb__host_probe__descriptor, (const char *)text->data, text->len, &message,
			&error) != 0) {
		problem_set(&p->why_not, 0, "%.120s says what cannot be read: %s", p->program,
			    error.message);
		return;
	}
	probe = (const Tb__HostProbe *)message;
	p->hosts = probe->can_host;
	if (!p->hosts)
		problem_set(&p->why_not, 0, "%s",
			    probe->n_findings > 0 ? probe->findings[0]->text : probe->summary);
	protobuf_c_message_free_unpacked(message, NULL);
}

static void probe_work(struct host_job *job)
{
	static char name[] = "witness-vm", probe[] = "probe", output[] = "-o", json[] = "json";
	char *const args[] = {name, probe, output, json, NULL};
	struct probe_job *p = list_entry(job, struct probe_job, job);
	struct buf text = {0};
	int status = 0;
	int rv = access(p->program, X_OK) < 0 ? -errno : 0;

	rv = rv < 0 ? rv : vm_process_ask(p->program, args, PROBE_MS, PROBE_MAX, &text, &status);
	if (rv == -ENOENT)
		problem_set(&p->why_not, 0,
			    "%.120s is not there; install witness-vm, or set vms.program",
			    p->program);
	else if (rv < 0)
		problem_set(&p->why_not, 0, "%.120s probe: %s", p->program, strerror(-rv));
	else
		probe_judge(p, &text);
	buf_free(&text);
}

static uint32_t memory_for_vms(uint64_t reserve_mib)
{
	uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) >> 20;
	uint64_t reserve = reserve_mib;

	if (reserve == 0)
		reserve = all / 4 > RESERVE_MIB ? all / 4 : RESERVE_MIB;
	return all > reserve ? (uint32_t)(all - reserve) : 0;
}

static void bridges_take(Tb__NodeHost *facts)
{
	char *names[VM_BRIDGES_MAX];

	for (size_t i = 0; i < facts->n_bridges; i++)
		free(facts->bridges[i]);
	free(facts->bridges);
	facts->n_bridges = vm_net_bridges(names);
	facts->bridges =
		facts->n_bridges > 0 ? mem_dup(names, facts->n_bridges * sizeof(names[0])) : NULL;
}

static void facts_log(const Tb__NodeHost *facts, const Tb__NodeHost *before)
{
	if (before != NULL && before->hosts == facts->hosts &&
	    strcmp(before->why_not, facts->why_not) == 0)
		return;
	if (facts->hosts)
		log_notice("hosts", "this board runs VMs: %u cores, %u MiB for them", facts->vcpus,
			   facts->memory_mib);
	else
		log_notice("hosts-not", "this board runs no VMs: %s", facts->why_not);
}

static void facts_make(struct host *h, const struct probe_job *p)
{
	Tb__NodeHost *before = h->facts_now;
	Tb__NodeHost *facts = mem_alloc(sizeof(*facts));

	tb__node_host__init(facts);
	facts->hosts = p->hosts;
	facts->why_not = mem_strdup(p->why_not.text);
	facts->vcpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
	facts->memory_mib = memory_for_vms(h->reserve_mib);
	bridges_take(facts);
	h->facts_now = facts;
	facts_log(facts, before);
	if (before != NULL)
		tb__node_host__free_unpacked(before, NULL);
}

static void on_probe(uv_timer_t *timer)
{
	host_facts_begin(timer->data);
}

static void probe_done(struct host_job *job)
{
	struct probe_job *p = list_entry(job, struct probe_job, job);
	struct host *h = job->host;

	facts_make(h, p);
	free(p->program);
	free(p);
	if (!h->facts_now->hosts && !h->stopping)
		uv_timer_start(&h->probe, on_probe, h->probe_ms, 0);
	host_facts_compare(h);
	host_maybe_stopped(h);
}

void host_facts_begin(struct host *h)
{
	struct probe_job *p = mem_zalloc(sizeof(*p));

	p->program = mem_strdup(h->program);
	p->job.work = probe_work;
	p->job.done = probe_done;
	host_work(h, &p->job);
}

void host_facts_tick(struct host *h)
{
	if (h->facts_now != NULL)
		bridges_take(h->facts_now);
}

static bool facts_equal(const Tb__NodeHost *a, const Tb__NodeHost *b)
{
	struct buf texts[2] = {{0}, {0}};
	bool equal;

	json_encode(&a->base, &texts[0]);
	json_encode(&b->base, &texts[1]);
	equal = strcmp(buf_string(&texts[0]), buf_string(&texts[1])) == 0;
	buf_free(&texts[0]);
	buf_free(&texts[1]);
	return equal;
}

/* Said again after the next reading of the model, if it is still not there. */
static void proposed(void *arg, int error, Tb__CommandResult *const *results, size_t count)
{
	struct host *h = arg;

	h->proposing = false;
	if (error == 0 && count == 1 && results[0]->refusal != TB__REFUSAL__REFUSAL_NONE)
		log_warning("host-facts", "what this board can give was refused: %s",
			    results[0]->message);
}

static Tb__Command *facts_command(const struct host *h)
{
	Tb__Command *command = mem_alloc(sizeof(*command));
	Tb__NodeHostSet *set = mem_alloc(sizeof(*set));

	tb__command__init(command);
	command->id.len = 16;
	command->id.data = mem_alloc(16);
	rng_fill(command->id.data, 16);
	command->time_ms = core_view_now_ms(core_view(h->core));
	command->actor = mem_strdup("host");
	command->op_case = TB__COMMAND__OP_NODE_HOST_SET;
	command->node_host_set = set;
	tb__node_host_set__init(set);
	set->id = h->node;
	set->host = (Tb__NodeHost *)message_copy(&h->facts_now->base);
	return command;
}

void host_facts_compare(struct host *h)
{
	Tb__Command **commands;

	if (h->facts_now == NULL || h->node == 0 || h->applied == 0 || h->level < LEVEL_VMS ||
	    h->proposing || h->stopping)
		return;
	if (h->facts_model != NULL && facts_equal(h->facts_model, h->facts_now))
		return;
	h->proposing = true;
	commands = mem_array(1, sizeof(commands[0]));
	commands[0] = facts_command(h);
	core_propose(h->core, &h->mailbox, commands, 1, proposed, h);
}

void host_facts_free(struct host *h)
{
	if (h->facts_now != NULL)
		tb__node_host__free_unpacked(h->facts_now, NULL);
	if (h->facts_model != NULL)
		tb__node_host__free_unpacked(h->facts_model, NULL);
}
