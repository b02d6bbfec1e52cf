/* The scheduler as tables: boards and VMs in, commands and a sentence for each VM out.
 *
 * Boards: "b1:4/1000" has 4 cores and 1000 MiB; then, after commas: away (its lease may last
 * another second), lost (it is over), hung, hung-away (the same, but it answers: its host is hung),
 * late (over, but it answers), drained, drained-now, silent (it has not said what it can host),
 * behind=MS (its model lags), nohost, unreported (its host has not reported), bridge (it has br0).
 * VMs: "web 256" has 256 MiB and one vCPU; then words as in vm_word below. Ids count from 1. A
 * command: "place web.3 b2 (reason)": the VM and the incarnation that it names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/scheduler.h"
#include "lib/buf.h"
#include "lib/mem.h"
#include "proto/json.h"

enum { NOW = 1000000, MAX = 100, GONE = NOW - SCHEDULER_MARGIN_MS };

struct scene {
	struct scheduler_board boards[LIMIT_NODES];
	Tb__Node *nodes[LIMIT_NODES];
	struct scheduler_vm vms[64];
	Tb__Vm *rows[64];
	Tb__VmReport *reports[64];
	struct scheduler_view view;
};

static char *empty_or(const char *text)
{
	return text != NULL ? mem_strdup(text) : mem_strdup("");
}

/* --- reading a scene ---------------------------------------------------------------------------
 */

static uint64_t board_id(const char *name)
{
	assert_int_equal(name[0], 'b');
	return strtoull(name + 1, NULL, 10);
}

static void board_word(struct scheduler_board *b, Tb__Node *node, const char *word)
{
	if (strcmp(word, "away") == 0 || strcmp(word, "lost") == 0) {
		b->reachable = false;
		b->end_ms = word[0] == 'a' ? GONE + 1000 : GONE;
	} else if (strcmp(word, "off") == 0) { /* for ten minutes */
		b->reachable = false;
		b->end_ms = NOW - SCHEDULER_STORM_MS;
	} else if (strcmp(word, "hung") == 0 || strcmp(word, "hung-away") == 0) {
		b->reachable = false;
		b->stands = true;
		b->end_ms = word[4] != '\0' ? GONE + 1000 : GONE;
	} else if (strncmp(word, "behind=", 7) == 0) { /* ms */
		b->behind_ms = strtoull(word + 7, NULL, 10);
	} else if (strcmp(word, "late") == 0) {
		b->end_ms = GONE;
	} else if (strcmp(word, "drained") == 0) {
		node->drain = TB__DRAIN__DRAIN_GENTLE;
	} else if (strcmp(word, "drained-now") == 0) {
		node->drain = TB__DRAIN__DRAIN_NOW;
	} else if (strcmp(word, "unreported") == 0) {
		b->reported = false;
	} else if (strcmp(word, "nohost") == 0) {
		node->host->hosts = false;
	} else if (strcmp(word, "silent") == 0) {
		tb__node_host__free_unpacked(node->host, NULL);
		node->host = NULL;
	} else if (strcmp(word, "bridge") == 0) {
		node->host->bridges = mem_alloc(sizeof(char *));
		node->host->bridges[0] = mem_strdup("br0");
		node->host->n_bridges = 1;
	} else {
		fail_msg("no such word of a board: %s", word);
	}
}

static void board_read(struct scene *s, char *text)
{
	struct scheduler_board *b = &s->boards[s->view.board_count];
	Tb__Node *node = mem_alloc(sizeof(*node));
	char *words;
	char *name = strtok_r(text, ":", &words);
	char *size = strtok_r(NULL, ",", &words);
	char *memory;

	tb__node__init(node);
	node->id = board_id(name);
	node->name = mem_strdup(name);
	node->host = mem_alloc(sizeof(*node->host));
	tb__node_host__init(node->host);
	node->host->hosts = true;
	node->host->vcpus = (uint32_t)strtoul(size, &memory, 10);
	node->host->memory_mib = (uint32_t)strtoul(memory + 1, NULL, 10);
	*b = (struct scheduler_board){
		.node = node, .reachable = true, .reported = true, .end_ms = NOW + 3000};
	for (char *word = strtok_r(NULL, ",", &words); word != NULL;
	     word = strtok_r(NULL, ",", &words))
		board_word(b, node, word);
	s->nodes[s->view.board_count++] = node;
}

static void names_add(char ***list, size_t *count, const char *name)
{
	*list = mem_realloc(*list, (*count + 1) * sizeof(char *));
	(*list)[(*count)++] = mem_strdup(name);
}

static void label_set(Tb__Vm *vm, const char *value)
{
	Tb__Vm__LabelsEntry *label = mem_alloc(sizeof(*label));

	tb__vm__labels_entry__init(label);
	label->key = mem_strdup("tier");
	label->value = mem_strdup(value);
	vm->labels = mem_alloc(sizeof(*vm->labels));
	vm->labels[0] = label;
	vm->n_labels = 1;
}

static void disk_add(Tb__Vm *vm)
{
	Tb__VmDisk *disk = mem_alloc(sizeof(*disk));

	tb__vm_disk__init(disk);
	disk->kind = TB__DISK_KIND__DISK_KIND_DATA;
	vm->config->disks = mem_alloc(sizeof(*vm->config->disks));
	vm->config->disks[0] = disk;
	vm->config->n_disks = 1;
}

static void nic_add(Tb__Vm *vm, const char *bridge)
{
	Tb__VmNic *nic = mem_alloc(sizeof(*nic));

	tb__vm_nic__init(nic);
	nic->bridge = mem_strdup(bridge);
	vm->config->nics = mem_alloc(sizeof(*vm->config->nics));
	vm->config->nics[0] = nic;
	vm->config->n_nics = 1;
}

static void report_set(struct scene *s, size_t i, const char *word)
{
	Tb__VmReport *r = mem_alloc(sizeof(*r));
	struct json_error error;
	int condition;

	tb__vm_report__init(r);
	assert_int_equal(json_enum_parse(&tb__vm_condition__descriptor, word, &condition, &error),
			 0);
	r->condition = (Tb__VmCondition)condition;
	s->reports[i] = r;
	s->vms[i].report = r;
}

static void images_set(struct scheduler_vm *sv, const char *boards)
{
	sv->images = 0;
	for (const char *at = boards; at[0] == 'b'; at += 2)
		sv->images |= UINT64_C(1) << (board_id(at) - 1);
	sv->images_there = sv->images != 0;
}

static void vm_word(struct scene *s, size_t i, const char *key, const char *value)
{
	Tb__Vm *vm = s->rows[i];
	Tb__VmPlacement *p = vm->placement;
	Tb__VmConfig *c = vm->config;

	if (strcmp(key, "at") == 0) { /* at=b1.3 */
		p->node = board_id(value);
		p->incarnation = strtoull(strchr(value, '.') + 1, NULL, 10);
	} else if (strcmp(key, "report") == 0) {
		report_set(s, i, value);
	} else if (strcmp(key, "problem") == 0) {
		s->reports[i]->problem = mem_strdup(value);
	} else if (strcmp(key, "well") == 0) {
		s->reports[i]->well_ms = strtoull(value, NULL, 10);
	} else if (strcmp(key, "lasts") == 0) {
		s->reports[i]->lasts_ms = strtoull(value, NULL, 10);
	} else if (strcmp(key, "waits") == 0) { /* for its images, for so long */
		s->reports[i]->waits = true;
		s->reports[i]->lasts_ms = strtoull(value, NULL, 10);
	} else if (strcmp(key, "releasing") == 0) {
		p->releasing = true;
		p->reason = mem_strdup(value != NULL ? value : "it-is-moved");
	} else if (strcmp(key, "target") == 0) {
		p->target = board_id(value);
	} else if (strcmp(key, "avoid") == 0) {
		p->avoid = board_id(value);
	} else if (strcmp(key, "moves") == 0) {
		p->moves = (uint32_t)strtoul(value, NULL, 10);
	} else if (strcmp(key, "home") == 0) {
		p->home = board_id(value);
		disk_add(vm);
	} else if (strcmp(key, "begun") == 0) { /* there, in this incarnation; else of before */
		p->home_incarnation = strtoull(value, NULL, 10);
	} else if (strcmp(key, "data") == 0) { /* behind home: the disk's id */
		c->disks[0]->id = mem_strdup(value);
	} else if (strcmp(key, "known") == 0) { /* to the model, of the data disks */
		names_add(&p->home_disks, &p->n_home_disks, value);
	} else if (strcmp(key, "made") == 0) { /* says its board of them */
		names_add(&s->reports[i]->home_disks, &s->reports[i]->n_home_disks, value);
	} else if (strcmp(key, "oldhome") == 0) { /* of data disks that it has no more */
		p->home = board_id(value);
	} else if (strcmp(key, "stopped") == 0) {
		vm->running = false;
	} else if (strcmp(key, "most") == 0) { /* memory since it was placed */
		p->most_memory_mib = (uint32_t)strtoul(value, NULL, 10);
	} else if (strcmp(key, "most-vcpus") == 0) {
		p->most_vcpus = (uint32_t)strtoul(value, NULL, 10);
	} else if (strcmp(key, "vcpus") == 0) {
		c->vcpus = (uint32_t)strtoul(value, NULL, 10);
	} else if (strcmp(key, "prio") == 0) {
		c->priority = (uint32_t)strtoul(value, NULL, 10);
	} else if (strcmp(key, "order") == 0) {
		c->start_order = (uint32_t)strtoul(value, NULL, 10);
	} else if (strcmp(key, "prefer") == 0) {
		names_add(&c->prefer, &c->n_prefer, value);
	} else if (strcmp(key, "require") == 0) {
		names_add(&c->require, &c->n_require, value);
	} else if (strcmp(key, "tier") == 0) {
		label_set(vm, value);
	} else if (strcmp(key, "apart") == 0) {
		c->apart = mem_strdup("tier");
	} else if (strcmp(key, "nic") == 0) {
		nic_add(vm, value);
	} else if (strcmp(key, "wait") == 0) {
		c->loss = TB__VM_LOSS__VM_LOSS_WAIT;
	} else if (strcmp(key, "never") == 0) {
		c->restart = TB__VM_RESTART__VM_RESTART_NEVER;
	} else if (strcmp(key, "images") == 0) { /* on these boards only: images=b2b3; =none */
		images_set(&s->vms[i], value);
	} else {
		fail_msg("no such word of a VM: %s", key);
	}
}

static void vm_read(struct scene *s, char *line)
{
	size_t i = s->view.vm_count;
	Tb__Vm *vm = mem_alloc(sizeof(*vm));
	char *words;

	tb__vm__init(vm);
	vm->id = i + 1;
	vm->running = true;
	vm->name = empty_or(strtok_r(line, " ", &words));
	vm->config = mem_alloc(sizeof(*vm->config));
	tb__vm_config__init(vm->config);
	vm->config->vcpus = 1;
	vm->config->memory_mib = (uint32_t)strtoul(strtok_r(NULL, " ", &words), NULL, 10);
	vm->placement = mem_alloc(sizeof(*vm->placement));
	tb__vm_placement__init(vm->placement);
	s->rows[i] = vm;
	s->vms[i] = (struct scheduler_vm){.vm = vm, .images = UINT64_MAX, .images_there = true};
	s->view.vm_count++;
	for (char *word = strtok_r(NULL, " ", &words); word != NULL;
	     word = strtok_r(NULL, " ", &words)) {
		char *value = strchr(word, '=');

		if (value != NULL)
			*value++ = '\0';
		vm_word(s, i, word, value);
	}
}

static void scene_read(struct scene *s, const char *boards, const char *vms)
{
	char *text = mem_strdup(boards);
	char *rest;

	memset(s, 0, sizeof(*s));
	for (char *board = strtok_r(text, " ", &rest); board != NULL;
	     board = strtok_r(NULL, " ", &rest))
		board_read(s, board);
	free(text);
	text = mem_strdup(vms);
	for (char *line = strtok_r(text, "\n", &rest); line != NULL;
	     line = strtok_r(NULL, "\n", &rest))
		vm_read(s, line);
	free(text);
	s->view.boards = s->boards;
	s->view.vms = s->vms;
	s->view.gone_end_ms = GONE + 500;
}

static void scene_free(struct scene *s)
{
	for (size_t i = 0; i < s->view.board_count; i++)
		tb__node__free_unpacked(s->nodes[i], NULL);
	for (size_t i = 0; i < s->view.vm_count; i++) {
		tb__vm__free_unpacked(s->rows[i], NULL);
		tb__vm_report__free_unpacked(s->reports[i], NULL);
	}
}

/* --- writing a plan ----------------------------------------------------------------------------
 */

static void command_write(const struct scene *s, const Tb__Command *c, struct buf *out)
{
	switch (c->op_case) {
	case TB__COMMAND__OP_VM_PLACE: {
		const Tb__VmPlace *op = c->vm_place;

		buf_printf(out, "place %s.%" PRIu64, s->rows[op->vm - 1]->name, op->incarnation);
		if (op->node != 0)
			buf_printf(out, " b%" PRIu64, op->node);
		else
			buf_puts(out, " nowhere");
		buf_printf(out, " (%s)", op->reason);
		break;
	}
	case TB__COMMAND__OP_VM_RELEASE: {
		const Tb__VmRelease *op = c->vm_release;

		buf_printf(out, "release %s.%" PRIu64 "%s%s (%s)", s->rows[op->vm - 1]->name,
			   op->incarnation, op->failed ? " failed" : "", op->hard ? " hard" : "",
			   op->reason);
		break;
	}
	default: {
		const Tb__VmSettle *op = c->vm_settle;

		assert_int_equal(c->op_case, TB__COMMAND__OP_VM_SETTLE);
		buf_printf(out, "settle %s.%" PRIu64 "%s%s (%s)", s->rows[op->vm - 1]->name,
			   op->incarnation, op->well ? " well" : "", op->ended ? " ended" : "",
			   op->reason);
		for (size_t i = 0; i < op->n_home_disks; i++)
			buf_printf(out, " disk %s", op->home_disks[i]);
	}
	}
}

static void plan_write(const struct scene *s, const struct scheduler_plan *plan, struct buf *out)
{
	char word[64];

	for (size_t i = 0; i < plan->count; i++) {
		command_write(s, plan->commands[i], out);
		buf_putc(out, '\n');
	}
	for (size_t i = 0; i < s->view.vm_count; i++)
		buf_printf(out, "%s %s: %s\n", s->rows[i]->name,
			   json_enum_word(&tb__vm_condition__descriptor,
					  (int)plan->verdicts[i].condition, word),
			   plan->verdicts[i].reason);
	if (plan->storm[0] != '\0')
		buf_printf(out, "storm: %s\n", plan->storm);
	if (plan->lost != 0)
		buf_printf(out, "lost: %" PRIu64 "\n", plan->lost);
	if (plan->due_ms != UINT64_MAX)
		buf_printf(out, "due: %" PRId64 "\n", (int64_t)(plan->due_ms - NOW));
}

/* It says so where nothing is under way for a VM that should run, and nowhere else. */
static bool stuck_as_said(const struct scheduler_verdict *v)
{
	static const char *const words[] = {"not placed: ", "held back: ", "waits for that board",
					    "it failed on every board",
					    ", and no other board can take it"};
	bool said = false;

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		said |= strstr(v->reason, words[i]) != NULL;
	return said == v->stuck;
}

struct scheduler_case {
	const char *what;
	const char *boards;
	const char *vms;
	const char *plan;
};

#define THREE "b1:4/1000 b2:4/1000 b3:4/1000"

static int cases_run(const struct scheduler_case *cases, size_t count)
{
	int bad = 0;

	for (size_t i = 0; i < count; i++) {
		struct scheduler_plan plan;
		struct buf text = {0};
		struct scene s;

		scene_read(&s, cases[i].boards, cases[i].vms);
		scheduler_decide(&s.view, NOW, MAX, &plan);
		plan_write(&s, &plan, &text);
		if (strcmp(buf_string(&text), cases[i].plan) != 0) {
			print_message("%s:\n%s--- expected:\n%s\n", cases[i].what,
				      buf_string(&text), cases[i].plan);
			bad++;
		}
		for (size_t v = 0; v < s.view.vm_count; v++) {
			if (stuck_as_said(&plan.verdicts[v]))
				continue;
			print_message("%s: stuck %d: %s\n", cases[i].what, plan.verdicts[v].stuck,
				      plan.verdicts[v].reason);
			bad++;
		}
		buf_free(&text);
		scheduler_plan_free(&plan);
		scene_free(&s);
	}
	return bad;
}

#define RUN_CASES(cases) assert_int_equal(cases_run(cases, sizeof(cases) / sizeof(cases[0])), 0)

/* --- where one goes ----------------------------------------------------------------------------
 */

static void test_place(void **state)
{
	static const struct scheduler_case cases[] = {
		{"the first board of equals", THREE, "web 256",
		 "place web.0 b1 (it is to run)\nweb unplaced: it goes to b1: it is to run\n"},
		{"not wanted", THREE, "web 256 stopped", "web stopped: it is stopped\n"},
		{"spread by the part of memory that is taken", "b1:4/1000 b2:4/2000 b3:4/1000",
		 "a 300 at=b1.1 report=running\nb 300 at=b2.1 report=running\n"
		 "c 300 at=b3.1 report=running\nweb 256",
		 "place web.0 b2 (it is to run)\na running: it runs on b1\nb running: it runs on "
		 "b2\n"
		 "c running: it runs on b3\nweb unplaced: it goes to b2: it is to run\n"},
		{"several of one call are spread", THREE, "a 256\nb 256\nc 256\nd 256",
		 "place a.0 b1 (it is to run)\nplace b.0 b2 (it is to run)\nplace c.0 b3 (it is to "
		 "run)\nplace d.0 b1 (it is to run)\na unplaced: it goes to b1: it is to run\nb "
		 "unplaced: it goes to b2: it is to run\nc unplaced: it goes to b3: it is to "
		 "run\nd "
		 "unplaced: it goes to b1: it is to run\n"},
		{"then by the number of VMs", "b1:4/1000 b2:4/1000",
		 "a 48 at=b1.1 report=running\nb 48 at=b1.1 report=running\nc 98 at=b2.1 "
		 "report=running\nweb 256",
		 "place web.0 b2 (it is to run)\na running: it runs on b1\nb running: it runs on "
		 "b1\nc "
		 "running: it runs on b2\nweb unplaced: it goes to b2: it is to run\n"},
		{"preferred, in their order", THREE,
		 "web 256 prefer=b3 prefer=b2\ndb 256 prefer=b3",
		 "place web.0 b3 (it is to run)\nplace db.0 b3 (it is to run)\nweb unplaced: it "
		 "goes "
		 "to b3: it is to run\ndb unplaced: it goes to b3: it is to run\n"},
		{"preferred, but there is no room", "b1:4/1000 b2:4/1000 b3:4/100",
		 "web 256 prefer=b3 prefer=b2",
		 "place web.0 b2 (it is to run)\nweb unplaced: it goes to b2: it is to run\n"},
		{"images before preference: a restart does not wait for a copy", THREE,
		 "web 256 images=b2 prefer=b3",
		 "place web.0 b2 (it is to run)\nweb unplaced: it goes to b2: it is to run\n"},
		{"a person's choice before images", THREE, "web 256 images=b2 target=b3",
		 "place web.0 b3 (it is to run)\nweb unplaced: it goes to b3: it is to run\n"},
		{"a person's choice that cannot be", "b1:4/1000 b2:4/1000 b3:4/1000,lost",
		 "web 256 target=b3",
		 "place web.0 b1 (it is to run; the board that was asked for cannot take it "
		 "now)\nweb unplaced: it goes to b1: it is to run; the board that was asked for "
		 "cannot take it now\n"},
		{"not where it has just failed", THREE, "web 256 avoid=b1",
		 "place web.0 b2 (it is to run)\nweb unplaced: it goes to b2: it is to run\n"},
		{"one that fails: the next board in turn, not to and fro", THREE,
		 "a 256 avoid=b1 moves=1\nb 256 avoid=b2 moves=2 prefer=b1\nc 256 avoid=b3 "
		 "moves=3\n"
		 "d 256 avoid=b2 moves=2 images=b1",
		 "place a.0 b2 (it is to run)\nplace b.0 b3 (it is to run)\nplace c.0 b1 (it is to "
		 "run)\nplace d.0 b1 (it is to run)\na unplaced: it goes to b2: it is to run\nb "
		 "unplaced: it goes to b3: it is to run\nc unplaced: it goes to b1: it is to "
		 "run\nd unplaced: it goes to b1: it is to run\n"},
		{"unless there is no other", "b1:4/1000", "web 256 avoid=b1",
		 "place web.0 b1 (it is to run)\nweb unplaced: it goes to b1: it is to run\n"},
		{"required", THREE, "web 256 require=b3",
		 "place web.0 b3 (it is to run)\nweb unplaced: it goes to b3: it is to run\n"},
		{"its data disks", THREE, "web 256 home=b2",
		 "place web.0 b2 (it is to run)\nweb unplaced: it goes to b2: it is to run\n"},
		{"where they are to be made, as anywhere", THREE, "web 256 home=b2 begun=3",
		 "place web.0 b1 (it is to run)\nweb unplaced: it goes to b1: it is to run\n"},
		{"where they are made", THREE, "web 256 home=b2 begun=3 data=a known=a",
		 "place web.0 b2 (it is to run)\nweb unplaced: it goes to b2: it is to run\n"},
		{"not those that it had", THREE, "web 256 oldhome=b2",
		 "place web.0 b1 (it is to run)\nweb unplaced: it goes to b1: it is to run\n"},
		{"a bridge", "b1:4/1000 b2:4/1000,bridge", "web 256 nic=br0",
		 "place web.0 b2 (it is to run)\nweb unplaced: it goes to b2: it is to run\n"},
		{"apart from one that runs, and from one that is placed now", THREE,
		 "a 256 tier=x apart at=b1.1 report=running\nb 256 tier=x apart\nc 256 tier=x\n"
		 "d 256 tier=y apart prefer=b1",
		 "place b.0 b2 (it is to run)\nplace c.0 b3 (it is to run)\nplace d.0 b1 (it is to "
		 "run)\na running: it runs on b1\nb unplaced: it goes to b2: it is to run\nc "
		 "unplaced: "
		 "it goes to b3: it is to run\nd unplaced: it goes to b1: it is to run\n"},
	};

	(void)state;
	RUN_CASES(cases);
}

static void test_not_placed(void **state)
{
	static const struct scheduler_case cases[] = {
		{"every lack has its words",
		 "b1:4/100 b2:4/1000,drained b3:4/1000,lost b4:4/1000,nohost b5:4/1000,silent "
		 "b6:0/1000",
		 "web 256",
		 "web unplaced: not placed: 6 boards, 1 lacks processors, 1 lacks memory, 1 is "
		 "drained, 1 is away, 1 hosts no virtual machines, 1 has not said yet what it can "
		 "host\n"},
		{"the example of the issue", "b1:4/100 b2:4/100 b3:4/1000,drained", "web 256",
		 "web unplaced: not placed: 3 boards, 2 lack memory, 1 is drained\n"},
		{"memory is never shared: 998 and 2", "b1:4/1000", "web 999",
		 "web unplaced: not placed: 1 board, 1 lacks memory\n"},
		{"and to the last MiB", "b1:4/1000", "web 998",
		 "place web.0 b1 (it is to run)\nweb unplaced: it goes to b1: it is to run\n"},
		{"processors are, by four", "b1:1/1000", "web 10 vcpus=4",
		 "place web.0 b1 (it is to run)\nweb unplaced: it goes to b1: it is to run\n"},
		{"and no more", "b1:1/1000", "a 10 vcpus=4 at=b1.1 report=running\nb 10",
		 "a running: it runs on b1\nb unplaced: not placed: 1 board, 1 lacks processors\n"},
		{"what is told to leave still has its memory", "b1:4/1000",
		 "a 600 at=b1.1 releasing stopped report=stopping\nb 600",
		 "a stopping: b1 ends it: it-is-moved\nb unplaced: not placed: 1 board, 1 lacks "
		 "memory\n"},
		{"one was made smaller, and its process may still be as large", "b1:4/1000",
		 "a 100 at=b1.1 report=running most=700\nb 297\nc 296",
		 "place c.0 b1 (it is to run)\na running: it runs on b1\nb unplaced: not placed: 1 "
		 "board, 1 lacks memory\nc unplaced: it goes to b1: it is to run\n"},
		{"or larger by now", "b1:4/1000", "a 900 at=b1.1 report=running most=700\nb 297",
		 "a running: it runs on b1\nb unplaced: not placed: 1 board, 1 lacks memory\n"},
		{"its vCPUs too", "b1:1/1000",
		 "a 10 at=b1.1 report=running most-vcpus=3\nb 10 vcpus=2",
		 "a running: it runs on b1\nb unplaced: not placed: 1 board, 1 lacks "
		 "processors\n"},
		{"it begins anew as small as it is now", "b1:4/300 b2:4/300,lost",
		 "a 120 at=b1.1 releasing report=released target=b1 most=600 most-vcpus=40\n"
		 "b 120 at=b2.1 most=600 most-vcpus=40",
		 "place a.1 b1 (it-is-moved)\nplace b.1 b1 (b2 is lost)\na unplaced: it goes to "
		 "b1: it-is-moved\nb unplaced: it goes to b1: b2 is lost\nlost: 2\n"},
		{"data disks, requirement, bridge, apart", THREE,
		 "a 10 home=b9\nb 10 require=b9\nc 10 nic=br0\nd 10 tier=x at=b1.1 "
		 "report=running\ne 10 tier=x apart require=b1",
		 "a unplaced: not placed: 3 boards, 3 do not have its data disks\nb unplaced: not "
		 "placed: 3 boards, 3 are not ones that it requires\nc unplaced: not placed: 3 "
		 "boards, "
		 "3 lack a bridge\nd running: it runs on b1\ne unplaced: not placed: 3 boards, 1 "
		 "has a "
		 "VM that it is kept apart from, 2 are not ones that it requires\n"},
		{"nobody has its images", THREE, "web 256 images=none",
		 "web unplaced: not placed: no board that answers holds all of its images whole\n"},
	};

	(void)state;
	RUN_CASES(cases);
}

/* --- order -------------------------------------------------------------------------------------
 */

static void test_order(void **state)
{
	static const struct scheduler_case cases[] = {
		{"priority first, and the lower one goes without", "b1:4/1000",
		 "low 600\nhigh 600 prio=9",
		 "place high.0 b1 (it is to run)\nlow unplaced: not placed: 1 board, 1 lacks "
		 "memory\nhigh unplaced: it goes to b1: it is to run\n"},
		{"nothing that runs is stopped for it", "b1:4/1000",
		 "low 600 at=b1.1 report=running\nhigh 600 prio=9",
		 "low running: it runs on b1\nhigh unplaced: not placed: 1 board, 1 lacks "
		 "memory\n"},
		{"start order: the lower one first, and until it runs", THREE,
		 "web 100 order=2\ndb 100 order=1",
		 "place db.0 b1 (it is to run)\nweb unplaced: it waits for db, which starts before "
		 "it\ndb unplaced: it goes to b1: it is to run\n"},
		{"it starts", THREE, "web 100 order=2\ndb 100 order=1 at=b1.1 report=starting",
		 "web unplaced: it waits for db, which starts before it\ndb starting: b1 starts "
		 "it\n"},
		{"it is not reported yet", THREE, "web 100 order=2\ndb 100 order=1 at=b1.1",
		 "web unplaced: it waits for db, which starts before it\ndb preparing: b1 is to "
		 "run "
		 "it\n"},
		{"it runs", THREE, "web 100 order=2\ndb 100 order=1 at=b1.1 report=running",
		 "place web.0 b2 (it is to run)\nweb unplaced: it goes to b2: it is to run\ndb "
		 "running: it runs on b1\n"},
		{"it has failed: nobody waits for ever", THREE,
		 "web 100 order=2\ndb 100 order=1 at=b1.1 report=backing-off problem=crash",
		 "place web.0 b2 (it is to run)\nweb unplaced: it goes to b2: it is to run\ndb "
		 "backing-off: it failed on b1, which tries again: crash\n"},
		{"it fits nowhere", THREE, "web 100 order=2\ndb 9999 order=1",
		 "place web.0 b1 (it is to run)\nweb unplaced: it goes to b1: it is to run\ndb "
		 "unplaced: not placed: 3 boards, 3 lack memory\n"},
		{"only within one priority", THREE, "web 100 order=2 prio=1\ndb 100 order=1",
		 "place web.0 b1 (it is to run)\nplace db.0 b2 (it is to run)\nweb unplaced: it "
		 "goes "
		 "to b1: it is to run\ndb unplaced: it goes to b2: it is to run\n"},
		{"one of a higher priority holds up nobody", THREE,
		 "web 100 order=1 prio=1\ndb 100 "
		 "order=2",
		 "place web.0 b1 (it is to run)\nplace db.0 b2 (it is to run)\nweb unplaced: it "
		 "goes "
		 "to b1: it is to run\ndb unplaced: it goes to b2: it is to run\n"},
		{"nor one whose images are nowhere", THREE,
		 "db 100 order=1 images=none\nweb 100 "
		 "order=2",
		 "place web.0 b2 (it is to run)\ndb unplaced: not placed: no board that answers "
		 "holds "
		 "all of its images whole\nweb unplaced: it goes to b2: it is to run\n"},
		{"one that fits nowhere changes nothing for the next", "b1:1/1000",
		 "a 2000\nb 10 vcpus=4",
		 "place b.0 b1 (it is to run)\na unplaced: not placed: 1 board, 1 lacks memory\nb "
		 "unplaced: it goes to b1: it is to run\n"},
		{"two begin on a board at a time, the next one's room is kept", "b1:4/1000",
		 "a 300\nb 300\nc 300\nd 300 prio=1",
		 "place d.0 b1 (it is to run)\nplace a.0 b1 (it is to run)\na unplaced: it goes to "
		 "b1: "
		 "it is to run\nb unplaced: it is next: b1 starts others at the moment\nc "
		 "unplaced: "
		 "not placed: 1 board, 1 lacks memory\nd unplaced: it goes to b1: it is to run\n"},
		{"those that begin already count", "b1:4/1000",
		 "a 100 at=b1.1 report=preparing\nb 100 at=b1.1\nc 100",
		 "a preparing: b1 prepares it\nb preparing: b1 is to run it\nc unplaced: it is "
		 "next: b1 "
		 "starts others at the moment\n"},
		{"those that run or have failed do not", "b1:4/1000",
		 "a 100 at=b1.1 report=running\nb 100 at=b1.1 report=backing-off\nc 100",
		 "place c.0 b1 (it is to run)\na running: it runs on b1\nb backing-off: it failed "
		 "on "
		 "b1, which tries again\nc unplaced: it goes to b1: it is to run\n"},
	};

	(void)state;
	RUN_CASES(cases);
}

/* --- leaving a board (S3) ------------------------------------------------------------------------
 */

static void test_leave(void **state)
{
	static const struct scheduler_case cases[] = {
		{"told to leave, not gone", THREE, "web 256 at=b1.3 releasing report=stopping",
		 "web stopping: b1 ends it: it-is-moved\n"},
		{"nothing is heard of it", THREE, "web 256 at=b1.3 releasing",
		 "web stopping: b1 ends it: it-is-moved\n"},
		{"gone: it goes on", THREE, "web 256 at=b1.3 releasing report=released avoid=b1",
		 "place web.3 b2 (it-is-moved)\nweb unplaced: it goes to b2: it-is-moved\n"},
		{"to the board that a person chose", THREE,
		 "web 256 at=b1.3 releasing report=released target=b3",
		 "place web.3 b3 (it-is-moved)\nweb unplaced: it goes to b3: it-is-moved\n"},
		{"gone, and not wanted", THREE, "web 256 at=b1.3 releasing report=released stopped",
		 "place web.3 nowhere (it-is-moved)\nweb stopped: it is stopped\n"},
		{"gone, and no place for it: its board is rid of it", "b1:4/1000,drained b2:4/100",
		 "web 256 at=b1.3 releasing report=released",
		 "place web.3 nowhere (not placed: 2 boards, 1 lacks memory, 1 is drained)\nweb "
		 "unplaced: not placed: 2 boards, 1 lacks memory, 1 is drained\n"},
		{"its board is away: nothing yet", "b1:4/1000,away b2:4/1000 b3:4/1000",
		 "web 256 at=b1.3 report=running\ndb 256 at=b1.1 releasing report=released\n"
		 "x 256 at=b1.2 releasing stopped",
		 "web unknown: b1 does not answer; it may still run there for 1000 ms\ndb unknown: "
		 "b1 "
		 "does not answer; it may still run there for 1000 ms\nx unknown: b1 does not "
		 "answer; "
		 "it may still run there for 1000 ms\ndue: 1000\n"},
		{"its lease is over: all of them", "b1:4/1000,lost b2:4/1000 b3:4/1000",
		 "web 256 at=b1.3 report=running\ndb 256 at=b1.1 releasing\nx 256 at=b1.2 "
		 "releasing "
		 "stopped",
		 "place web.3 b2 (b1 is lost)\nplace db.1 b3 (b1 is lost)\nplace x.2 nowhere "
		 "(it-is-moved)\nweb unplaced: it goes to b2: b1 is lost\ndb unplaced: it goes to "
		 "b3: "
		 "b1 is lost\nx stopped: it is stopped\nlost: 1\n"},
		{"its host has hung: nothing yet", "b1:4/1000,hung-away b2:4/1000",
		 "web 256 at=b1.3",
		 "web unknown: b1 has hung as a host of virtual machines; it may still run there "
		 "for 1000 ms\ndue: 1000\n"},
		{"its host has hung for long, and nothing goes there", "b1:4/1000,hung b2:4/300",
		 "web 256 at=b1.3\ndb 256",
		 "place web.3 b2 (b1 has hung as a host of virtual machines)\nweb unplaced: it "
		 "goes "
		 "to b2: b1 has hung as a host of virtual machines\ndb unplaced: not placed: 2 "
		 "boards, 1 lacks memory, 1 is away\nlost: 1\n"},
		{"its model lags behind: nothing more goes there",
		 "b1:4/1000 b2:4/1000,behind=5000", "web 256 at=b2.1 report=running\ndb 900\nx 256",
		 "place db.0 b1 (it is to run)\nweb running: it runs on b2\ndb unplaced: it goes "
		 "to "
		 "b1: it is to run\nx unplaced: not placed: 2 boards, 1 lacks memory, 1 does not "
		 "keep up with the log\n"},
		{"a little later than the others it always is", "b1:4/1000 b2:4/1000,behind=4999",
		 "web 256 at=b2.1 report=running\ndb 900\nx 256",
		 "place db.0 b1 (it is to run)\nplace x.0 b2 (it is to run)\nweb running: it runs "
		 "on b2\ndb unplaced: it goes to b1: it is to run\nx unplaced: it goes to b2: it "
		 "is "
		 "to run\n"},
		{"reachable again before it was moved: it stays", "b1:4/1000,unreported b2:4/1000",
		 "web 256 at=b1.3", "web unknown: b1 has not said yet how it is\n"},
		{"lost, and it waits for its board", "b1:4/1000,lost b2:4/1000",
		 "web 256 at=b1.3 wait\ndb 256 at=b1.3 wait releasing",
		 "place db.3 b2 (b1 is lost)\nweb unplaced: b1 is lost, and the VM waits for that "
		 "board, as it is set to\ndb unplaced: it goes to b2: b1 is lost\nlost: "
		 "1\n"},
		{"lost with its data disks", "b1:4/1000,lost b2:4/1000 b3:4/1000",
		 "web 256 at=b1.3 home=b1",
		 "web unplaced: not placed: 3 boards, 2 do not have its data disks, 1 is away\n"},
		{"lost before they were made", "b1:4/1000,lost b2:4/1000 b3:4/1000",
		 "web 256 at=b1.3 home=b1 begun=3",
		 "place web.3 b2 (b1 is lost)\nweb unplaced: it goes to b2: b1 is lost\nlost: 1\n"},
		{"lost, and there is no room: it is not taken from its board, which may come back",
		 "b1:4/1000,lost b2:4/100 b3:4/100", "web 256 at=b1.3",
		 "web unplaced: not placed: 3 boards, 2 lack memory, 1 is away\n"},
		{"its board was removed", THREE, "web 256 at=b9.3",
		 "web unknown: its board was removed from the cluster; it may still run there for "
		 "500 "
		 "ms\ndue: 500\n"},
	};
	struct scheduler_plan plan;
	struct buf text = {0};
	struct scene s;

	(void)state;
	RUN_CASES(cases);
	/* The removed board's time is over. */
	scene_read(&s, THREE, "web 256 at=b9.3");
	s.view.gone_end_ms = GONE;
	scheduler_decide(&s.view, NOW, MAX, &plan);
	plan_write(&s, &plan, &text);
	assert_string_equal(buf_string(&text),
			    "place web.3 b1 (its old board is lost)\nweb unplaced: it goes to b1: "
			    "its old board is lost\n");
	buf_free(&text);
	scheduler_plan_free(&plan);
	scene_free(&s);
}

/* The lease's end and 100 ms, to the millisecond. */
static void test_margin(void **state)
{
	static const struct {
		uint64_t end_ms;
		size_t commands;
	} cases[] = {
		{NOW - 99, 0},
		{NOW - 100, 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct scheduler_plan plan;
		struct scene s;

		scene_read(&s, "b1:4/1000,away b2:4/1000 b3:4/1000", "web 256 at=b1.1");
		s.boards[0].end_ms = cases[i].end_ms;
		scheduler_decide(&s.view, NOW, MAX, &plan);
		assert_int_equal(plan.count, cases[i].commands);
		assert_int_equal(plan.lost, cases[i].commands);
		scheduler_plan_free(&plan);
		scene_free(&s);
	}
}

/* --- what its board says -------------------------------------------------------------------------
 */

static void test_reports(void **state)
{
	static const struct scheduler_case cases[] = {
		{"in words", THREE,
		 "a 10 at=b1.1 report=preparing problem=fetching\nb 10 at=b2.1 report=starting\nc "
		 "10 "
		 "at=b3.1 report=running\nd 10 at=b1.1 report=stopping",
		 "a preparing: b1 prepares it: fetching\nb starting: b2 starts it\nc running: it "
		 "runs "
		 "on b3\nd stopping: b1 has it\n"},
		{"ended by its guest", THREE, "web 256 at=b1.3 report=ended",
		 "settle web.3 ended (its guest powered off)\nweb ended: its guest powered off on "
		 "b1\n"},
		{"failed, and it is never restarted", THREE,
		 "web 256 at=b1.3 report=failed problem=crash never",
		 "settle web.3 ended (crash)\nweb failed: it failed on b1: crash\n"},
		{"failed: another board", THREE, "web 256 at=b1.3 report=failed problem=crash",
		 "release web.3 failed hard (crash)\nweb failed: it failed on b1: crash\n"},
		{"failed: another board, though it starts others now", "b1:4/1000 b2:4/1000",
		 "web 256 at=b1.3 report=failed problem=crash\na 10 at=b2.1\nb 10 at=b2.1",
		 "release web.3 failed hard (crash)\nweb failed: it failed on b1: crash\na "
		 "preparing: "
		 "b2 is to run it\nb preparing: b2 is to run it\n"},
		{"failed on all of them", THREE,
		 "web 256 at=b1.3 report=failed problem=crash moves=2",
		 "web failed: it failed on every board that it may be on, and is tried again after "
		 "5 minutes, or at once by a person's start; on b1 last: crash\ndue: 300000\n"},
		{"not for ever: after five minutes all of them once more", THREE,
		 "web 256 at=b1.3 report=failed problem=crash moves=2 lasts=300000",
		 "release web.3 failed hard (it is tried again: crash)\nweb failed: it failed on "
		 "b1: crash\n"},
		{"not before", THREE,
		 "web 256 at=b1.3 report=failed problem=crash moves=2 lasts=299999",
		 "web failed: it failed on every board that it may be on, and is tried again after "
		 "5 minutes, or at once by a person's start; on b1 last: crash\ndue: 1\n"},
		{"the second round begins", THREE,
		 "web 256 at=b2.4 report=failed problem=crash moves=3 avoid=b1",
		 "release web.4 failed hard (crash)\nweb failed: it failed on b2: crash\n"},
		{"and ends", THREE,
		 "web 256 at=b3.6 report=failed problem=crash moves=5 avoid=b2 lasts=1000",
		 "web failed: it failed on every board that it may be on, and is tried again after "
		 "5 minutes, or at once by a person's start; on b3 last: crash\ndue: 299000\n"},
		{"never restarted, never tried again", THREE,
		 "web 256 at=b1.3 report=failed moves=2 never lasts=900000",
		 "settle web.3 ended ()\nweb failed: it failed on b1\n"},
		{"the only board, five minutes later", "b1:4/1000",
		 "web 256 at=b1.3 report=failed problem=crash lasts=300000",
		 "release web.3 failed hard (it is tried again: crash)\nweb failed: it failed on "
		 "b1: crash\n"},
		{"there again: there is no other", "b1:4/1000",
		 "web 256 at=b1.3 releasing=it-is-tried-again report=released moves=1 avoid=b1",
		 "place web.3 b1 (it-is-tried-again)\nweb unplaced: it goes to b1: "
		 "it-is-tried-again\n"},
		{"failed, and the others cannot, five minutes later",
		 "b1:4/1000 b2:4/1000 b3:4/1000,lost",
		 "web 256 at=b1.3 report=failed problem=crash lasts=300000\ndb 900 at=b2.1 "
		 "report=running",
		 "release web.3 (it is tried again: crash)\nweb failed: it failed on b1: crash\ndb "
		 "running: it runs on b2\n"},
		{"failed, and the others cannot", "b1:4/1000 b2:4/1000 b3:4/1000,lost",
		 "web 256 at=b1.3 report=failed problem=crash\ndb 900 at=b2.1 report=running",
		 "web failed: it failed on b1, is tried again after 5 minutes, and no other board "
		 "can take it: 2 boards, 1 lacks memory, 1 is away\ndb running: it runs on "
		 "b2\ndue: 300000\n"},
		{"failed, and its data disks are there", THREE,
		 "web 256 at=b1.3 report=failed problem=crash home=b1",
		 "web failed: it failed on every board that it may be on, and is tried again after "
		 "5 minutes, or at once by a person's start; on b1 last: crash\ndue: 300000\n"},
		{"failed before they were made: its card is full", THREE,
		 "web 256 at=b1.3 report=failed problem=full home=b1 begun=3",
		 "release web.3 failed hard (full)\nweb failed: it failed on b1: full\n"},
		{"two that failed do not both go where one fits", "b1:4/2000 b2:4/1000",
		 "a 600 at=b1.1 report=failed\nb 600 at=b1.1 report=failed",
		 "release a.1 failed hard ()\na failed: it failed on b1\nb failed: it failed on "
		 "b1, is tried again after 5 minutes, and no other board can take it: 1 board, 1 "
		 "lacks memory\ndue: 300000\n"},
		{"its data disks are made", THREE,
		 "db 256 at=b1.3 report=preparing home=b1 data=a made=a",
		 "settle db.3 () disk a\ndb preparing: b1 prepares it\n"},
		{"they are, and the model knows", THREE,
		 "db 256 at=b1.3 report=preparing home=b1 data=a made=a known=a",
		 "db preparing: b1 prepares it\n"},
		{"another is, that it has no more", THREE,
		 "db 256 at=b1.3 report=preparing home=b1 data=a made=b",
		 "db preparing: b1 prepares it\n"},
		{"they are, where its home is not any more", THREE,
		 "db 256 at=b1.3 report=preparing home=b2 data=a made=a",
		 "db preparing: b1 prepares it\n"},
		{"it runs well: its failures are forgotten", THREE,
		 "web 256 at=b1.3 report=running well=600000 moves=1 avoid=b2",
		 "settle web.3 well ()\nweb running: it runs on b1\n"},
		{"not yet", THREE, "web 256 at=b1.3 report=running well=599000 moves=1 avoid=b2",
		 "web running: it runs on b1\ndue: 1000\n"},
		{"nothing to forget", THREE, "web 256 at=b1.3 report=running well=600000",
		 "web running: it runs on b1\n"},
		{"it could not start elsewhere yet", THREE,
		 "web 256 at=b1.3 report=running images=b1",
		 "web running: it runs on b1; no other board that answers holds all of its images "
		 "whole\n"},
		{"nor anywhere, as it is", THREE, "web 256 at=b1.3 report=running images=none",
		 "web running: it runs on b1; no other board that answers holds all of its images "
		 "whole\n"},
		{"one other board is enough", THREE, "web 256 at=b1.3 report=running images=b1b3",
		 "web running: it runs on b1\n"},
		{"there is no other board", "b1:4/1000", "web 256 at=b1.3 report=running images=b1",
		 "web running: it runs on b1\n"},
		{"placed, and not wanted", THREE, "web 256 at=b1.3 report=running stopped",
		 "release web.3 (it is not wanted)\nweb running: it runs on b1\n"},
	};

	(void)state;
	RUN_CASES(cases);
}

/* --- images that a board does not get -----------------------------------------------------------
 */

#define W3 "w1 100 at=b1.1 images=b2\nw2 100 at=b1.1 images=b2\nw3 100 at=b1.1 images=b2"

static void test_images(void **state)
{
	static const struct scheduler_case cases[] = {
		{"the board that has them is busy for a moment: it is waited for",
		 "b1:4/1000,lost b2:4/1000 b3:4/1000", W3,
		 "place w1.1 b2 (b1 is lost)\nplace w2.1 b2 (b1 is lost)\nw1 unplaced: it goes to "
		 "b2: b1 is lost\nw2 unplaced: it goes to b2: b1 is lost\nw3 unplaced: it is next: "
		 "b2 starts others at the moment\nlost: 1\n"},
		{"not if it has no room for it", "b1:4/1000,lost b2:4/205 b3:4/1000", W3,
		 "place w1.1 b2 (b1 is lost)\nplace w2.1 b2 (b1 is lost)\nplace w3.1 b3 (b1 is "
		 "lost)\nw1 unplaced: it goes to b2: b1 is lost\nw2 unplaced: it goes to b2: b1 is "
		 "lost\nw3 unplaced: it goes to b3: b1 is lost\nlost: 1\n"},
		{"nor where it has just failed", THREE,
		 "a 10 at=b1.1\nb 10 at=b1.1\nweb 100 images=b1 avoid=b1",
		 "place web.0 b2 (it is to run)\na preparing: b1 is to run it\nb preparing: b1 is "
		 "to run it\nweb unplaced: it goes to b2: it is to run\n"},
		{"nor against a person's choice", THREE,
		 "a 10 at=b1.1\nb 10 at=b1.1\nweb 100 images=b1 target=b3",
		 "place web.0 b3 (it is to run)\na preparing: b1 is to run it\nb preparing: b1 is "
		 "to run it\nweb unplaced: it goes to b3: it is to run\n"},
		{"the board that a person has asked for is busy for a moment", THREE,
		 "a 10 at=b2.1\nb 10 at=b2.1\nweb 100 at=b1.1 releasing report=released target=b2",
		 "a preparing: b2 is to run it\nb preparing: b2 is to run it\nweb unplaced: it is "
		 "next: b2 starts others at the moment\n"},
		{"it failed on the one that fits: the one that starts others is waited for",
		 "b1:4/1000 b2:4/1000",
		 "a 10 at=b2.1\nb 10 at=b2.1\nweb 100 at=b1.1 releasing report=released moves=1 "
		 "avoid=b1",
		 "a preparing: b2 is to run it\nb preparing: b2 is to run it\nweb unplaced: it is "
		 "next: b2 starts others at the moment\n"},
		{"two that wait keep nobody from starting there", "b1:4/1000,lost b2:4/1000",
		 "a 10 at=b2.1 report=preparing images=b1 waits=5000\n"
		 "b 10 at=b2.1 report=preparing images=b1 waits=6000\nc 10",
		 "place c.0 b2 (it is to run)\na preparing: b2 prepares it\nb preparing: b2 "
		 "prepares it\nc unplaced: it goes to b2: it is to run\ndue: 4000\n"},
		{"start order: it is waited for, but not for ever", THREE,
		 "db 10 order=1 at=b1.1 report=preparing images=b2 waits=9999\nweb 10 order=2\n"
		 "q 10 prio=1 order=1 at=b1.1 report=preparing images=none waits=10000\n"
		 "r 10 prio=1 order=2",
		 "place r.0 b2 (it is to run)\ndb preparing: b1 prepares it\nweb unplaced: it "
		 "waits for db, which starts before it\nq preparing: it waits on b1 for its images "
		 "(see witnessctl image show), and no other board can take it: b2 does not have "
		 "its images\nr unplaced: it goes to b2: it is to run\ndue: 1\n"},
		{"its board gets no images, and another has them: there", THREE,
		 "web 256 at=b3.1 report=preparing images=b2 waits=10000 problem=full",
		 "release web.1 (b3 does not get its images)\nweb preparing: b3 prepares it: "
		 "full\n"},
		{"not before its board has had its time", THREE,
		 "web 256 at=b3.1 report=preparing images=b2 waits=9999 problem=full",
		 "web preparing: b3 prepares it: full\ndue: 1\n"},
		{"though that one starts others now", THREE,
		 "a 10 at=b2.1\nb 10 at=b2.1\n"
		 "web 256 at=b3.1 report=preparing images=b2 waits=10000",
		 "release web.1 (b3 does not get its images)\na preparing: b2 is to run it\nb "
		 "preparing: b2 is to run it\nweb preparing: b3 prepares it\n"},
		{"and once it has left, it waits for that one", THREE,
		 "a 10 at=b2.1\nb 10 at=b2.1\n"
		 "web 256 at=b3.1 releasing=b3-has-no-images report=released images=b2",
		 "a preparing: b2 is to run it\nb preparing: b2 is to run it\nweb unplaced: it is "
		 "next: b2 starts others at the moment\n"},
		{"that one has no room: it is told", "b1:4/1000,away b2:4/100 b3:4/1000",
		 "web 256 at=b3.1 report=preparing images=b2 waits=10000 problem=full",
		 "web preparing: it waits on b3 for its images (see witnessctl image show), and no "
		 "other board can take it: 2 boards, 1 lacks memory, 1 is away\n"},
		{"the only other one does not have them either", "b2:4/1000 b3:4/1000",
		 "web 256 at=b3.1 report=preparing images=none waits=10000 problem=full",
		 "web preparing: it waits on b3 for its images (see witnessctl image show), and no "
		 "other board can take it: b2 does not have its images\n"},
		{"it has just failed there", "b1:4/1000 b2:4/1000",
		 "web 256 at=b1.2 report=preparing images=b2 avoid=b2 moves=1 waits=10000",
		 "web preparing: it waits on b1 for its images (see witnessctl image show), and no "
		 "other board can take it: it has just failed on b2\n"},
		{"its data disks are there", "b1:4/1000 b2:4/1000",
		 "web 256 at=b1.2 report=preparing images=b2 home=b1 waits=10000",
		 "web preparing: it waits on b1 for its images (see witnessctl image show), and no "
		 "other board can take it: 1 board, 1 does not have its data disks\n"},
		{"its board has just got them", THREE,
		 "web 256 at=b3.1 report=preparing images=b2b3 waits=10000",
		 "web preparing: b3 prepares it\n"},
		{"it waits for something else: that is its board's business", THREE,
		 "web 256 at=b3.1 report=preparing images=b2 lasts=10000 problem=copying",
		 "web preparing: b3 prepares it: copying\n"},
		{"two of them, and room for one", "b1:4/1000 b2:4/1000",
		 "a 600 at=b1.1 report=preparing images=b2 waits=10000\n"
		 "b 300 at=b1.1 report=preparing images=b2 waits=10000 prio=1\n"
		 "c 600 at=b1.1 report=preparing images=b2 waits=10000",
		 "release b.1 (b1 does not get its images)\nrelease a.1 (b1 does not get its "
		 "images)\na preparing: b1 prepares it\nb preparing: b1 prepares it\nc preparing: "
		 "it waits on b1 for its images (see witnessctl image show), and no other board "
		 "can take it: 1 board, 1 lacks memory\n"},
		{"a drain sends none where it cannot begin",
		 "b1:4/1000,drained b2:4/1000 b3:4/1000",
		 "web 256 at=b1.1 report=running images=b1",
		 "web running: it stays on b1, which is drained: no other board can take it: b2 "
		 "does not have its images\n"},
		{"but where it can", "b1:4/1000,drained b2:4/1000 b3:4/1000",
		 "web 256 at=b1.1 report=running images=b1b3",
		 "release web.1 (b1 is drained)\nweb running: it runs on b1\n"},
		{"one that does not begin there leaves no drained board",
		 "b1:4/1000,drained b2:4/1000",
		 "web 256 at=b1.1 report=preparing images=none "
		 "waits=10000\nx 256 at=b1.1 report=preparing images=none waits=9000",
		 "web preparing: it waits on b1 for its images (see witnessctl image show), and no "
		 "other board can take it: b2 does not have its images\nx preparing: it stays on "
		 "b1, which is drained: no other board can take it: b2 does not have its "
		 "images\ndue: 1000\n"},
		{"a drain in haste asks nobody", "b1:4/1000,drained-now b2:4/1000",
		 "web 256 at=b1.1 report=running images=b1",
		 "release web.1 (b1 is drained)\nweb running: it runs on b1; no other board that "
		 "answers "
		 "holds all of its images whole\n"},
		{"what has failed goes only where it can begin", THREE,
		 "web 256 at=b1.1 report=failed images=b1 problem=crash",
		 "web failed: it failed on b1, is tried again after 5 minutes, and no other board "
		 "can take it: b2 does not have its images\ndue: 300000\n"},
	};

	(void)state;
	RUN_CASES(cases);
}

/* --- drain ---------------------------------------------------------------------------------------
 */

static void test_drain(void **state)
{
	static const struct scheduler_case cases[] = {
		{"gently: one, the most important", "b1:4/1000,drained b2:4/1000",
		 "a 100 at=b1.1 report=running\nb 100 at=b1.1 report=running prio=5\nc 100 at=b2.1 "
		 "report=running",
		 "release b.1 (b1 is drained)\na running: it is to leave b1, which is drained, "
		 "after "
		 "the others before it\nb running: it runs on b1\nc running: it runs on b2\n"},
		{"one is leaving", "b1:4/1000,drained b2:4/1000",
		 "a 100 at=b1.1 report=running\nb 100 at=b1.1 releasing report=stopping",
		 "a running: it is to leave b1, which is drained, after the others before it\nb "
		 "stopping: b1 ends it: it-is-moved\n"},
		{"it goes on", "b1:4/1000,drained b2:4/1000",
		 "a 100 at=b1.1 report=running\nb 100 at=b1.1 releasing report=released",
		 "place b.1 b2 (it-is-moved)\na running: it is to leave b1, which is drained, "
		 "after "
		 "the others before it\nb unplaced: it goes to b2: it-is-moved\n"},
		{"it begins on the other board", "b1:4/1000,drained b2:4/1000",
		 "a 100 at=b1.1 report=running\nb 100 at=b2.2 report=starting",
		 "a running: it is to leave b1, which is drained, after the others before it\nb "
		 "starting: b2 starts it\n"},
		{"nor one on another that is drained",
		 "b1:4/1000,drained b2:4/1000,drained b3:4/1000",
		 "a 100 at=b1.1 report=preparing\nb 100 at=b2.1 report=preparing",
		 "release a.1 (b1 is drained)\nrelease b.1 (b2 is drained)\na preparing: b1 "
		 "prepares "
		 "it\nb preparing: b2 prepares it\n"},
		{"it begins on the board itself: that hinders nobody",
		 "b1:4/1000,drained b2:4/1000", "a 100 at=b1.1 report=preparing",
		 "release a.1 (b1 is drained)\na preparing: b1 prepares it\n"},
		{"nothing is heard of it there", "b1:4/1000,drained b2:4/1000",
		 "a 100 at=b1.1 report=running\nb 100 at=b2.2",
		 "a running: it is to leave b1, which is drained, after the others before it\nb "
		 "preparing: b2 is to run it\n"},
		{"it waits for something there: that may last", "b1:4/1000,drained b2:4/1000",
		 "a 100 at=b1.1 report=running\nb 100 at=b2.2 report=preparing problem=fetching",
		 "release a.1 (b1 is drained)\na running: it runs on b1\nb preparing: b2 prepares "
		 "it: "
		 "fetching\n"},
		{"one leaves another board: that is another matter",
		 "b1:4/1000,drained b2:4/1000 b3:4/1000",
		 "a 100 at=b1.1 report=running\nb 100 at=b2.2 releasing report=stopping",
		 "release a.1 (b1 is drained)\na running: it runs on b1\nb stopping: b2 ends it: "
		 "it-is-moved\n"},
		{"two boards are drained: no room is given twice",
		 "b1:4/1000,drained-now b2:4/1000 b3:4/1000,drained",
		 "a 600 at=b1.1 report=running\nb 600 at=b3.1 report=running",
		 "release a.1 (b1 is drained)\na running: it runs on b1\nb running: it stays on "
		 "b3, "
		 "which is drained: no other board can take it: 2 boards, 1 lacks memory, 1 is "
		 "drained\n"},
		{"a drained board that is away is told nothing", "b1:4/1000,drained,away b2:4/1000",
		 "a 600 at=b1.1 report=running",
		 "a unknown: b1 does not answer; it may still run there for 1000 ms\ndue: 1000\n"},
		{"it runs: the next one", "b1:4/1000,drained b2:4/1000",
		 "a 100 at=b1.1 report=running\nb 100 at=b2.2 report=running",
		 "release a.1 (b1 is drained)\na running: it runs on b1\nb running: it runs on "
		 "b2\n"},
		{"no other board has room: it stays", "b1:4/1000,drained b2:4/1000",
		 "a 600 at=b1.1 report=running\nb 600 at=b2.2 report=running",
		 "a running: it stays on b1, which is drained: no other board can take it: 1 "
		 "board, 1 "
		 "lacks memory\nb running: it runs on b2\n"},
		{"so does one with its data disks there", "b1:4/1000,drained b2:4/1000",
		 "a 100 at=b1.1 report=running home=b1",
		 "a running: it stays on b1, which is drained: no other board can take it: 1 "
		 "board, 1 "
		 "does not have its data disks\n"},
		{"now: all at once, in their order", "b1:4/1000,drained-now b2:4/1000",
		 "a 100 at=b1.1 report=running\nb 100 at=b1.1 report=running prio=5\nc 100 at=b1.1 "
		 "report=running home=b1",
		 "release b.1 (b1 is drained)\nrelease a.1 (b1 is drained)\nrelease c.1 (b1 is "
		 "drained)\na running: it runs on b1\nb running: it runs on b1\nc running: it runs "
		 "on "
		 "b1\n"},
		{"its data disks wait for the board", "b1:4/1000,drained-now b2:4/1000",
		 "c 100 at=b1.1 releasing report=released home=b1",
		 "place c.1 nowhere (not placed: 2 boards, 1 does not have its data disks, 1 is "
		 "drained)\nc unplaced: not placed: 2 boards, 1 does not have its data disks, 1 is "
		 "drained\n"},
		{"one that has ended is ended, not moved", "b1:4/1000,drained b2:4/1000",
		 "a 100 at=b1.1 report=ended",
		 "settle a.1 ended (its guest powered off)\na ended: its guest powered off on "
		 "b1\n"},
		{"the room of one that is leaving is kept", "b1:4/1000 b2:4/1000",
		 "a 600 at=b1.1 releasing report=stopping avoid=b1\nb 600",
		 "a stopping: b1 ends it: it-is-moved\nb unplaced: not placed: 2 boards, 2 lack "
		 "memory\n"},
		{"unless it comes back to where it is", "b1:4/1000 b2:4/1000",
		 "a 600 at=b1.1 releasing report=stopping target=b1\nb 600",
		 "place b.0 b2 (it is to run)\na stopping: b1 ends it: it-is-moved\nb unplaced: it "
		 "goes to b2: it is to run\n"},
	};

	(void)state;
	RUN_CASES(cases);
}

/* --- storms (S8) ---------------------------------------------------------------------------------
 */

static void test_storm(void **state)
{
	static const struct scheduler_case cases[] = {
		{"one of three: as always, processors are shared",
		 "b1:1/1000,lost b2:1/1000 b3:1/1000", "a 10 at=b1.1\nb 10 at=b1.1 vcpus=4",
		 "place a.1 b2 (b1 is lost)\nplace b.1 b3 (b1 is lost)\na unplaced: it goes to b2: "
		 "b1 "
		 "is lost\nb unplaced: it goes to b3: b1 is lost\nlost: 1\n"},
		{"two of five, one of them for long: no storm",
		 "b1:2/1000,lost b2:2/1000,off b3:2/1000 b4:1/1000 b5:1/1000,drained",
		 "a 10 at=b1.1 vcpus=2",
		 "place a.1 b3 (b1 is lost)\na unplaced: it goes to b3: b1 is lost\nlost: 1\n"},
		{"two of five, one of them drained before: no storm",
		 "b1:2/1000,lost b2:2/1000,drained,lost b3:2/1000 b4:1/1000 b5:1/1000",
		 "a 10 at=b1.1 vcpus=2",
		 "place a.1 b3 (b1 is lost)\na unplaced: it goes to b3: b1 is lost\nlost: 1\n"},
		{"two of five: only what needs no sharing, the important ones first",
		 "b1:2/1000,lost b2:2/1000,lost b3:2/1000 b4:1/1000 b5:1/1000,drained",
		 "a 10 at=b1.1 vcpus=2\nb 10 at=b2.1 prio=5\nc 10 at=b3.1 report=running "
		 "vcpus=1\nd 10 at=b2.1 vcpus=3",
		 "place b.1 b4 (b2 is lost)\na unplaced: held back: 2 of 5 boards were lost within "
		 "10 minutes, and it "
		 "would have to share the processors of the others\nb unplaced: it goes to b4: b2 "
		 "is "
		 "lost\nc running: it runs on b3\nd unplaced: held back: 2 of 5 boards were lost "
		 "within 10 minutes, "
		 "and it would have to share the processors of the others\nstorm: 2 of 5 hosting "
		 "boards were lost within 10 "
		 "minutes: virtual machines are restarted only where no processor has to be "
		 "shared, "
		 "and 2 wait\nlost: 2\ndue: 599900\n"},
		{"a drain waits for the end of a storm, too",
		 "b1:2/1000,lost b2:2/1000,lost b3:2/1000,drained b4:1/1000 b5:1/1000",
		 "a 10 at=b3.1 report=running vcpus=2",
		 "a running: it stays on b3, which is drained: no other board can take it: 4 "
		 "boards, 2 lack "
		 "processors, 2 are away\n"
		 "due: 599900\n"},
		{"what has no room at all is said as always",
		 "b1:2/1000,lost b2:2/1000,lost b3:2/100 b4:2/100 b5:2/100", "a 500 at=b1.1",
		 "a unplaced: not placed: 5 boards, 3 lack memory, 2 are away\ndue: 599900\n"},
		{"one of two is no storm", "b1:1/1000,lost b2:1/1000", "a 10 at=b1.1 vcpus=3",
		 "place a.1 b2 (b1 is lost)\na unplaced: it goes to b2: b1 is lost\nlost: 1\n"},
		{"a third is no storm",
		 "b1:1/1000,lost b2:1/1000,lost b3:1/1000 b4:1/1000 b5:1/1000 b6:1/1000",
		 "a 10 vcpus=2",
		 "place a.0 b3 (it is to run)\na unplaced: it goes to b3: it is to run\n"},
		{"boards that host nothing do not count",
		 "b1:1/1000,lost,nohost b2:1/1000,lost b3:1/1000 b4:1/1000 b5:1/1000",
		 "a 10 vcpus=2",
		 "place a.0 b3 (it is to run)\na unplaced: it goes to b3: it is to run\n"},
		{"a board that answers is not lost", "b1:1/1000,late b2:1/1000,late b3:1/1000",
		 "a 10 vcpus=2",
		 "place a.0 b1 (it is to run)\na unplaced: it goes to b1: it is to run\n"},
		{"away is not lost", "b1:1/1000,away b2:1/1000,away b3:1/1000 b4:1/1000 b5:1/1000",
		 "a 10 vcpus=2",
		 "place a.0 b3 (it is to run)\na unplaced: it goes to b3: it is to run\n"},
	};

	(void)state;
	RUN_CASES(cases);
}

/* --- a person's move ---------------------------------------------------------------------------
 */

static void test_moves(void **state)
{
	static const struct {
		const char *what;
		const char *boards;
		const char *vms; /* the first one is to move */
		uint64_t node;
		const char *answer;
	} cases[] = {
		{"it can", THREE, "web 256 at=b1.1 report=running", 3, ""},
		{"anywhere", THREE, "web 256 at=b1.1 report=running", 0, ""},
		{"the board is off", "b1:4/1000 b2:4/1000 b3:4/1000,lost",
		 "web 256 at=b1.1 report=running", 3, "b3 is away"},
		{"it does not answer", "b1:4/1000 b2:4/1000 b3:4/1000,away",
		 "web 256 at=b1.1 report=running", 3, "b3 is away"},
		{"it is drained", "b1:4/1000 b2:4/1000 b3:4/1000,drained",
		 "web 256 at=b1.1 report=running", 3, "b3 is drained"},
		{"it has no room", THREE, "web 256 at=b1.1 report=running\na 800 at=b3.1", 3,
		 "b3 has 1000 MiB for virtual machines, 802 of them are taken by 1, and it needs "
		 "258"},
		{"nor for what goes there now", "b1:4/1000 b2:4/1000,lost b3:4/1000",
		 "web 256 at=b1.1 report=running\na 800 at=b2.1", 3,
		 "b3 has 1000 MiB for virtual machines, 802 of them are taken by 1, and it needs "
		 "258"},
		{"it starts others: for a moment only", THREE,
		 "web 256 at=b1.1 report=running\na 10 at=b3.1\nb 10 at=b3.1", 3, ""},
		{"its images are not there", THREE, "web 256 at=b1.1 report=running images=b1b2", 3,
		 "b3 does not have its images; see witnessctl image show"},
		{"but elsewhere", THREE, "web 256 at=b1.1 report=running images=b1b2", 0, ""},
		{"nor elsewhere", THREE, "web 256 at=b1.1 report=running images=b1", 0,
		 "b2 does not have its images"},
		{"no other", "b1:4/1000 b2:4/100 b3:4/1000,lost", "web 256 at=b1.1 report=running",
		 0, "2 boards, 1 lacks memory, 1 is away"},
		{"its own is none", "b1:4/1000", "web 256 at=b1.1 report=running", 0, "0 boards"},
		{"where it is kept apart", THREE,
		 "web 10 at=b1.1 tier=x apart report=running\na 10 at=b3.1 tier=x", 3,
		 "b3 has a VM that it is kept apart from"},
		{"its data disks are left behind", THREE, "web 256 at=b1.1 report=running home=b1",
		 3, ""},
		{"it is nowhere", "b1:4/1000,drained b2:4/100", "web 256", 0,
		 "2 boards, 1 lacks memory, 1 is drained"},
		{"nowhere, to the only place for it", "b1:4/100 b2:4/300", "web 256", 2, ""},
		{"it is on its way already", "b1:4/1000 b2:4/300",
		 "web 256 at=b1.1 releasing report=stopping avoid=b1", 2, ""},
		{"it failed there before: it is a person's choice", THREE,
		 "web 256 at=b1.1 report=running avoid=b3", 3, ""},
		{"where it is: others say so", "b1:4/300", "web 256 at=b1.1 report=running", 1, ""},
		{"anywhere, and it failed before where its images are", THREE,
		 "web 256 at=b1.1 report=running images=b1b3 avoid=b3", 0, ""},
		{"no such board: others say so", THREE, "web 256 at=b1.1 report=running", 9, ""},
		{"in a storm: where no processor is shared",
		 "b1:2/1000 b2:2/1000,lost b3:2/1000,lost b4:1/1000",
		 "web 10 vcpus=2 at=b1.1 report=running", 4, "b4 lacks processors"},
	};
	int bad = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char answer[256] = "";
		struct scene s;
		int rv;

		scene_read(&s, cases[i].boards, cases[i].vms);
		rv = scheduler_moves(&s.view, 0, cases[i].node, NOW, answer, sizeof(answer));
		if (strcmp(answer, cases[i].answer) != 0 || (rv == 0) != (answer[0] == '\0')) {
			print_message("%s: %d %s\n--- expected: %s\n", cases[i].what, rv, answer,
				      cases[i].answer);
			bad++;
		}
		scene_free(&s);
	}
	assert_int_equal(bad, 0);
}

/* --- the call ------------------------------------------------------------------------------------
 */

static void test_max(void **state)
{
	struct scheduler_plan plan;
	struct scene s;

	(void)state;
	scene_read(&s, "b1:4/1000,lost b2:4/1000 b3:4/1000",
		   "a 10 at=b1.1\nb 10 at=b1.1\nc 10 at=b1.1 prio=3");
	scheduler_decide(&s.view, NOW, 2, &plan);
	assert_int_equal(plan.count, 2);
	assert_int_equal(plan.commands[0]->vm_place->vm, 3);
	assert_int_equal(plan.due_ms, NOW); /* there is more */
	scheduler_plan_free(&plan);
	/* Boards that lose nothing by a command may have their lease. */
	scheduler_decide(&s.view, NOW, 0, &plan);
	assert_int_equal(plan.count, 0);
	assert_int_equal(plan.lost, 0);
	scheduler_plan_free(&plan);
	scene_free(&s);
}

/* Any order of the VMs gives the same decisions. */
static void test_deterministic(void **state)
{
	struct buf expected = {0};

	(void)state;
	for (unsigned turn = 0; turn < 6; turn++) {
		struct scheduler_plan plan;
		struct buf text = {0};
		struct scene s;

		scene_read(
			&s, "b1:4/1000,drained b2:4/1000 b3:4/1000",
			"a 300 at=b1.1 report=running\nb 200 prio=4\nc 200 prio=4 order=2\nd 300 "
			"at=b2.1 report=failed\ne 100\nf 100");
		for (unsigned i = 0; i < turn; i++) {
			struct scheduler_vm first = s.vms[0];

			memmove(&s.vms[0], &s.vms[1], 5 * sizeof(s.vms[0]));
			s.vms[5] = first;
		}
		scheduler_decide(&s.view, NOW, MAX, &plan);
		for (size_t i = 0; i < plan.count; i++) {
			command_write(&s, plan.commands[i], &text);
			buf_putc(&text, ';');
		}
		if (turn == 0)
			buf_puts(&expected, buf_string(&text));
		assert_string_equal(buf_string(&text), buf_string(&expected));
		scheduler_plan_free(&plan);
		buf_free(&text);
		scene_free(&s);
	}
	buf_free(&expected);
}

/* --- admission -----------------------------------------------------------------------------------
 */

struct admit_case {
	const char *what;
	const char *boards;
	const char *vms; /* the last one is in question */
	bool keep_room;
	const char *answer; /* "field: message", or empty */
};

static void test_admit(void **state)
{
	static const struct admit_case cases[] = {
		{"it fits", THREE, "web 998", false, ""},
		{"whatever else runs: that is the scheduler's", "b1:4/1000", "a 900\nweb 900",
		 false, ""},
		{"larger than any board", "b1:4/1000 b2:4/2000", "web 1999", false,
		 "config.memoryMib: it needs 2001 MiB (1999 and 2 for its process), and the "
		 "largest "
		 "board that it may be on, b2, has 2000 MiB for virtual machines"},
		{"a drained board may be undrained", "b1:4/100 b2:4/2000,drained", "web 1000",
		 false, ""},
		{"more vCPUs", "b1:1/1000 b2:2/1000,nohost", "web 10 vcpus=5", false,
		 "config.vcpus: it needs 5 vCPUs, and no board has more than 1 cores, of which "
		 "each may "
		 "be shared by 4"},
		{"no such bridge", "b1:1/1000 b2:2/1000,bridge", "web 10 nic=br1", false,
		 "config.nics[0].bridge: no board that it may be on has a bridge br1; make one "
		 "there, "
		 "or name one that witnessctl node show lists"},
		{"not on those that it requires", "b1:1/1000 b2:2/1000,bridge",
		 "web 10 nic=br0 require=b1", false,
		 "config.nics[0].bridge: no board that it may be on has a bridge br0; make one "
		 "there, "
		 "or name one that witnessctl node show lists"},
		{"not all of it on one board", "b1:1/1000 b2:2/100,bridge", "web 500 nic=br0",
		 false,
		 "config: no board has all that it needs: 2 boards, 1 lacks memory, 1 lacks a "
		 "bridge"},
		{"requires one that is not there", THREE, "web 10 require=b9", false,
		 "config.require[0]: no board is named b9; see witnessctl node list"},
		{"requires one that does not host", "b1:4/1000 b2:4/1000,nohost",
		 "web 10 require=b2", false,
		 "config.require: none of the boards that it requires hosts virtual machines"},
		{"nobody hosts", "b1:4/1000,silent", "web 10", false,
		 ": no board hosts virtual machines: b1 has not said yet what it can host; see "
		 "witnessctl node show b1"},
		{"its data disks are gone", THREE, "web 10 home=b9", false,
		 "config.disks: its data disks are on a board that is not in the cluster any more; "
		 "witnessctl vm move web --force gives it empty ones"},
		{"they were to be made there", THREE, "web 10 home=b9 begun=3", false, ""},
		{"its board has become too small", "b1:4/1000 b2:4/100", "web 500 home=b2", false,
		 "config.memoryMib: it needs 502 MiB (500 and 2 for its process), and the largest "
		 "board "
		 "that it may be on, b2, has 100 MiB for virtual machines"},
		{"n-1: it fits", THREE, "a 498\nb 498\nc 498\nweb 498", true, ""},
		{"n-1: what is bound comes first", THREE, "a 900\nweb 200 home=b2", true, ""},
		{"n-1: then the large ones", THREE, "a 390\nb 390\nc 590\nweb 590", true, ""},
		{"n-1: what is lost with the board is not counted", "b1:4/1000 b2:4/1000",
		 "a 40 home=b1\nb 100\nweb 950", true,
		 "config.memoryMib: without b1 the other boards have 1000 MiB for virtual "
		 "machines, and "
		 "the 2 to be kept running need 1054 MiB: b would have no place; stop some, or let "
		 "go "
		 "of the room with witnessctl cluster set --keep-room off"},
		{"n-1: what was only to be made there is", "b1:4/1000 b2:4/1000",
		 "a 40 home=b1 begun=3\nweb 960", true,
		 "config.memoryMib: without b1 the other boards have 1000 MiB for virtual "
		 "machines, and "
		 "the 2 to be kept running need 1004 MiB: a would have no place; stop some, or let "
		 "go "
		 "of the room with witnessctl cluster set --keep-room off"},
		{"n-1: by memory", THREE, "a 498\nb 498\nc 498\nd 498\nweb 498", true,
		 "config.memoryMib: without b1 the other boards have 2000 MiB for virtual "
		 "machines, and "
		 "the 5 to be kept running need 2500 MiB: web would have no place; stop some, or "
		 "let "
		 "go of the room with witnessctl cluster set --keep-room off"},
		{"n-1: as pieces", THREE, "a 598\nb 598\nweb 598", true,
		 "config.memoryMib: without b1 the other boards have 2000 MiB for virtual "
		 "machines, and "
		 "the 3 to be kept running need 1800 MiB: web would have no place; stop some, or "
		 "let "
		 "go of the room with witnessctl cluster set --keep-room off"},
		{"n-1: the largest board", "b1:4/1000 b2:4/2000", "web 1500", true,
		 "config.memoryMib: without b2 the other boards have 1000 MiB for virtual "
		 "machines, and "
		 "the 1 to be kept running need 1502 MiB: web would have no place; stop some, or "
		 "let "
		 "go of the room with witnessctl cluster set --keep-room off"},
		{"n-1: by processors", "b1:1/1000 b2:1/1000", "a 10 vcpus=4\nweb 10", true,
		 "config.memoryMib: without b1 the other boards have 1000 MiB for virtual "
		 "machines, and "
		 "the 2 to be kept running need 24 MiB: web would have no place; stop some, or let "
		 "go "
		 "of the room with witnessctl cluster set --keep-room off"},
		{"n-1: apart", "b1:1/1000 b2:1/1000", "a 10 tier=x apart\nweb 10 tier=x", true,
		 "config.memoryMib: without b1 the other boards have 1000 MiB for virtual "
		 "machines, and "
		 "the 2 to be kept running need 24 MiB: web would have no place; stop some, or let "
		 "go "
		 "of the room with witnessctl cluster set --keep-room off"},
		{"n-1: what is pinned is lost with its board and needs no other",
		 "b1:4/1000 b2:4/1000", "a 900 home=b1\nweb 90", true, ""},
		{"n-1: and has no room elsewhere", "b1:4/1000 b2:4/1000", "a 900 home=b1\nweb 150",
		 true,
		 "config.memoryMib: without b2 the other boards have 1000 MiB for virtual "
		 "machines, and "
		 "the 2 to be kept running need 1054 MiB: web would have no place; stop some, or "
		 "let "
		 "go of the room with witnessctl cluster set --keep-room off"},
		{"n-1: one that was made smaller keeps its room where it is", "b1:4/1000 b2:4/1000",
		 "a 100 at=b2.1 most=700\nweb 400", true,
		 "config.memoryMib: without b1 the other boards have 1000 MiB for virtual "
		 "machines, and "
		 "the 2 to be kept running need 1104 MiB: web would have no place; stop some, or "
		 "let "
		 "go of the room with witnessctl cluster set --keep-room off"},
		{"n-1: and needs no more than it is now when that board is lost",
		 "b1:4/1000 b2:4/400", "a 100 at=b1.1 most=900\nweb 90", true, ""},
		{"n-1: it may be made smaller", "b1:4/1000 b2:4/1000",
		 "a 400\nweb 100 at=b2.1 most=900", true, ""},
		{"n-1: a drained board gives no room", "b1:4/1000 b2:4/1000 b3:4/1000,drained",
		 "a 500\nweb 500", true,
		 "config.memoryMib: without b1 the other boards have 1000 MiB for virtual "
		 "machines, and "
		 "the 2 to be kept running need 1004 MiB: web would have no place; stop some, or "
		 "let "
		 "go of the room with witnessctl cluster set --keep-room off"},
	};
	int bad = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct scene s;
		struct scheduler_room room;
		char field[128] = "";
		char message[256] = "";
		char answer[512];

		scene_read(&s, cases[i].boards, cases[i].vms);
		room = (struct scheduler_room){
			.nodes = (const Tb__Node *const *)s.nodes,
			.node_count = s.view.board_count,
			.vms = (const Tb__Vm *const *)s.rows,
			.vm_count = s.view.vm_count - 1,
			.keep_room = cases[i].keep_room,
		};
		if (scheduler_admit(&room, s.rows[s.view.vm_count - 1], field, sizeof(field),
				    message, sizeof(message)) == 0)
			answer[0] = '\0';
		else
			snprintf(answer, sizeof(answer), "%s: %s", field, message);
		if (strcmp(answer, cases[i].answer) != 0) {
			print_message("%s: %s\n--- expected: %s\n", cases[i].what, answer,
				      cases[i].answer);
			bad++;
		}
		scene_free(&s);
	}
	assert_int_equal(bad, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_place),	      cmocka_unit_test(test_not_placed),
		cmocka_unit_test(test_order),	      cmocka_unit_test(test_leave),
		cmocka_unit_test(test_margin),	      cmocka_unit_test(test_reports),
		cmocka_unit_test(test_images),	      cmocka_unit_test(test_drain),
		cmocka_unit_test(test_storm),	      cmocka_unit_test(test_max),
		cmocka_unit_test(test_deterministic), cmocka_unit_test(test_admit),
		cmocka_unit_test(test_moves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
