/* sim: many small worlds by seed, until one of them breaks a rule.
 *
 * sim [--leases | --vms] [--runs N] [--seed S] [--bug NAME] [--trace]
 *
 * Run i has the seed S + i, so a failure is repeated, and told as a story, by
 * `sim --runs 1 --seed THAT --trace`. Exit: 0 nothing found, 1 a rule was broken, 2 usage.
 * --bug makes the code under test wrong on purpose. --leases: the site's nodes run witness-agent
 * and hold a lease, else corosync and hold the vote. --vms: no site, but virtual machines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/fleet_site.h"
#include "lib/text.h"
#include "tests/sim/world.h"

static const struct {
	const char *name;
	enum fleet_fault fault;
} bugs[] = {
	{"ack-before-commit", FLEET_FAULT_ACK_BEFORE_COMMIT},
	{"no-refusal-wait", FLEET_FAULT_NO_REFUSAL_WAIT},
	{"short-handover", FLEET_FAULT_SHORT_HANDOVER},
	{"ignore-lease", FLEET_FAULT_IGNORE_LEASE},
	{"closed-is-released", FLEET_FAULT_CLOSED_IS_RELEASED}, /* --leases only */
	{"drain-forgets", FLEET_FAULT_DRAIN_FORGETS},
};
/* --leases only: a mistake of the agent, not of the boards. */
static const char bug_from_arrival[] = "from-arrival";
/* --leases only: a restarted agent says at once that it holds nothing, and is believed. Either
 * alone does no harm. */
static const char bug_hasty[] = "hasty-start";

/* --vms only. */
static const struct {
	const char *name;
	enum scheduler_fault scheduler;
	enum hosting_fault hosting;
	bool *glue;
} vm_bugs[] = {
	{"no-margin", SCHEDULER_FAULT_NO_MARGIN, HOSTING_FAULT_NONE, NULL},
	{"punctual", SCHEDULER_FAULT_PUNCTUAL, HOSTING_FAULT_NONE, NULL},
	{"no-release", SCHEDULER_FAULT_NO_RELEASE, HOSTING_FAULT_NONE, NULL},
	{"gone-is-dead", SCHEDULER_FAULT_GONE_IS_DEAD, HOSTING_FAULT_NONE, NULL},
	{"no-pin", SCHEDULER_FAULT_NO_PIN, HOSTING_FAULT_NONE, NULL},
	{"no-fence", SCHEDULER_FAULT_NONE, HOSTING_FAULT_NO_FENCE, NULL},
	{"early-release", SCHEDULER_FAULT_NONE, HOSTING_FAULT_EARLY_RELEASE, NULL},
	{"no-quiet", SCHEDULER_FAULT_NONE, HOSTING_FAULT_NO_QUIET, NULL},
	{"unknown-disks", SCHEDULER_FAULT_NONE, HOSTING_FAULT_UNKNOWN_DISKS, NULL},
	{"no-withhold", SCHEDULER_FAULT_NONE, HOSTING_FAULT_NONE, &vm_fault_no_withhold},
	{"every-grant", SCHEDULER_FAULT_NONE, HOSTING_FAULT_NONE, &vm_fault_every_grant},
	{"stale-disk", SCHEDULER_FAULT_NONE, HOSTING_FAULT_NONE, &vm_fault_stale_disk},
};

static int usage(void)
{
	fprintf(stderr, "usage: sim [--leases | --vms] [--runs N] [--seed S] [--bug NAME] "
			"[--trace]\nbugs:");
	for (size_t i = 0; i < sizeof(bugs) / sizeof(bugs[0]); i++)
		fprintf(stderr, " %s", bugs[i].name);
	for (size_t i = 0; i < sizeof(vm_bugs) / sizeof(vm_bugs[0]); i++)
		fprintf(stderr, " %s", vm_bugs[i].name);
	fprintf(stderr, " %s %s\n", bug_from_arrival, bug_hasty);
	return 2;
}

static bool vm_bug_set(const char *name)
{
	for (size_t i = 0; i < sizeof(vm_bugs) / sizeof(vm_bugs[0]); i++) {
		if (strcmp(vm_bugs[i].name, name) != 0)
			continue;
		scheduler_fault = vm_bugs[i].scheduler;
		hosting_fault = vm_bugs[i].hosting;
		if (vm_bugs[i].glue != NULL)
			*vm_bugs[i].glue = true;
		return true;
	}
	return false;
}

static int bug_set(const char *name)
{
	if (strcmp(name, bug_from_arrival) == 0) {
		claim_fault_from_arrival = true;
		return 0;
	}
	if (strcmp(name, bug_hasty) == 0) {
		duty_fault_hasty = true;
		fleet_fault = FLEET_FAULT_ANY_INSTANCE;
		return 0;
	}
	for (size_t i = 0; i < sizeof(bugs) / sizeof(bugs[0]); i++) {
		if (strcmp(bugs[i].name, name) != 0)
			continue;
		fleet_fault = bugs[i].fault;
		return 0;
	}
	return vm_bug_set(name) ? 0 : -1;
}

int main(int argc, char **argv)
{
	struct options options = {.seed = 1};
	uint64_t runs = 1000;

	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (strcmp(argv[i], "--trace") == 0)
			options.trace = true;
		else if (strcmp(argv[i], "--leases") == 0)
			options.leases = true;
		else if (strcmp(argv[i], "--vms") == 0)
			options.vms = true;
		else if (strcmp(argv[i], "--runs") == 0 &&
			 text_to_u64(value, 1, UINT32_MAX, &runs) == 0)
			i++;
		else if (strcmp(argv[i], "--seed") == 0 &&
			 text_to_u64(value, 0, UINT64_MAX, &options.seed) == 0)
			i++;
		else if (strcmp(argv[i], "--bug") == 0 && bug_set(value) == 0)
			i++;
		else
			return usage();
	}
	for (uint64_t run = 0; run < runs; run++, options.seed++) {
		char problem[512];

		if (world_run(&options, problem, sizeof(problem)) == 0)
			continue;
		printf("run %llu, seed %llu: %s\n", (unsigned long long)run + 1,
		       (unsigned long long)options.seed, problem);
		return 1;
	}
	printf("%llu runs, nothing found\n", (unsigned long long)runs);
	return 0;
}
