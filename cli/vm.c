/* vm.c: virtual machines: what they are to be, whether they run, how they are. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/api.h"
#include "cli/grid.h"
#include "cli/human.h"
#include "cli/run.h"
#include "cli/vm_spec.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "proto/json.h"

enum { FILE_MAX = 1 << 20, POLL_MS = 300, WAIT_MS = 120000 };

static const char collection[] = "/v1/vms/";

static const char *condition_word(const Tb__Vm *vm, char word[64])
{
	return json_enum_word(&tb__vm_condition__descriptor,
			      vm->status != NULL ? (int)vm->status->condition : 0, word);
}

static const char *reason_of(const Tb__Vm *vm)
{
	return vm->status != NULL ? vm->status->reason : "";
}

static int vm_get(struct invocation *inv, const char *name, Tb__Vm **ret)
{
	char *path = api_path(collection, name, "");
	int rv = api_call(inv, &(struct api_request){.path = path, .retry_ms = API_RETRY_MS},
			  &tb__vm__descriptor, ret);

	free(path);
	return rv;
}

/* --- list --- */

static void memory_text(uint32_t mib, char text[32])
{
	char count[32];

	human_count(mib, count);
	snprintf(text, 32, "%.20s MiB", count);
}

static bool vm_pinned(const Tb__Vm *vm)
{
	for (size_t i = 0; vm->config != NULL && i < vm->config->n_disks; i++)
		if (vm->config->disks[i]->kind == TB__DISK_KIND__DISK_KIND_DATA)
			return true;
	return false;
}

static void vm_row(struct grid *g, const Tb__Vm *vm, bool wide)
{
	const Tb__VmConfig *c = vm->config;
	char state[64], cpus[16], memory[32], since[64] = "", restarts[16] = "", priority[16];
	const char *board = vm->status != NULL ? vm->status->board : "";

	snprintf(cpus, sizeof(cpus), "%" PRIu32, c->vcpus);
	snprintf(priority, sizeof(priority), "%" PRIu32, c->priority);
	memory_text(c->memory_mib, memory);
	condition_word(vm, state);
	if (vm->status != NULL && vm->status->since_ms != 0)
		human_relative(vm->status->since_ms, clock_realtime_ms(), since);
	if (vm->status != NULL)
		snprintf(restarts, sizeof(restarts), "%" PRIu32, vm->status->restarts);
	if (wide)
		grid_row(g,
			 (const char *[]){vm->name, state, board, cpus, memory, since, restarts,
					  priority, vm_pinned(vm) ? "pinned" : "", reason_of(vm)});
	else
		grid_row(g, (const char *[]){vm->name, state, board, cpus, memory, reason_of(vm)});
}

static int vms_print(struct invocation *inv, const void *message)
{
	static const char *const headers[] = {"NAME",	 "STATE",   "BOARD", ">CPUS",
					      ">MEMORY", "~REASON", NULL};
	static const char *const wide[] = {"NAME",    "STATE",	"BOARD",     ">CPUS",
					   ">MEMORY", "SINCE",	">RESTARTS", ">PRIORITY",
					   "DISKS",   "REASON", NULL};
	enum output output = api_output(inv);
	const Tb__VmList *list = message;
	struct grid *g;

	if (output == OUTPUT_NAME) {
		for (size_t i = 0; i < list->n_items; i++)
			puts(list->items[i]->name);
		return EXIT_OK;
	}
	g = grid_new(output == OUTPUT_WIDE ? wide : headers);
	for (size_t i = 0; i < list->n_items; i++)
		vm_row(g, list->items[i], output == OUTPUT_WIDE);
	grid_print(g, "No VMs.");
	return EXIT_OK;
}

int run_vm_list(struct invocation *inv)
{
	return api_show(inv, "/v1/vms", &tb__vm_list__descriptor, vms_print);
}

/* --- show --- */

/* Images are SHA-256 sums in a VM; people gave them names. */
static const char *image_name(const Tb__ImageList *images, const char *sha256)
{
	for (size_t i = 0; images != NULL && i < images->n_items; i++)
		if (strcmp(images->items[i]->sha256, sha256) == 0)
			return images->items[i]->name;
	return sha256;
}

static void list_print(const char *label, char *const *names, size_t count)
{
	struct buf text = {0};

	for (size_t i = 0; i < count; i++)
		buf_printf(&text, "%s%s", i > 0 ? ", " : "", names[i]);
	field_print(label, "%s", buf_string(&text));
	buf_free(&text);
}

/* Is it on a board? A home without an incarnation is of before the model had a list. */
static bool disk_made(const Tb__Vm *vm, const Tb__VmDisk *disk)
{
	const Tb__VmPlacement *p = vm->placement;

	return p != NULL && p->home != 0 &&
	       (p->home_incarnation == 0 || text_among(disk->id, p->home_disks, p->n_home_disks));
}

static void disk_print(const char *label, const Tb__Vm *vm, const Tb__VmDisk *disk,
		       const Tb__ImageList *images)
{
	switch (disk->kind) {
	case TB__DISK_KIND__DISK_KIND_OVERLAY:
		if (disk->size_mib != 0)
			field_print(label,
				    "%s: writable, begins as %s, %" PRIu32
				    " MiB; what is written to it is gone after a move or a "
				    "stop",
				    disk->id, image_name(images, disk->image), disk->size_mib);
		else
			field_print(label,
				    "%s: writable, begins as %s; what is written to it is gone "
				    "after a move or a stop",
				    disk->id, image_name(images, disk->image));
		break;
	case TB__DISK_KIND__DISK_KIND_DATA:
		field_print(label,
			    "%s: data, %" PRIu32 " MiB; it stays on its board and pins the "
			    "VM to it%s",
			    disk->id, disk->size_mib, disk_made(vm, disk) ? "" : " (none yet)");
		break;
	default:
		field_print(label, "%s: read-only, %s", disk->id, image_name(images, disk->image));
	}
}

static void nic_print(const char *label, const Tb__VmNic *nic)
{
	field_print(label, "%s, address %s", nic->bridge, nic->mac);
}

static void restart_print(const Tb__VmConfig *c)
{
	char word[64], backoff[64];

	json_enum_word(&tb__vm_restart__descriptor, (int)c->restart, word);
	human_duration(c->restart_backoff_ms, backoff);
	if (c->restart == TB__VM_RESTART__VM_RESTART_NEVER)
		field_print("Restart", "never");
	else
		field_print("Restart",
			    "%s: %" PRIu32 " times on a board, first after %s, then it "
			    "moves",
			    word, c->restart_attempts, backoff);
	if (c->loss == TB__VM_LOSS__VM_LOSS_WAIT)
		field_print("Board lost", "waits for that board to come back");
}

/* It may have been made smaller since it was placed: its board keeps the room. */
static void size_print(const Tb__Vm *vm)
{
	static const Tb__VmPlacement nowhere = TB__VM_PLACEMENT__INIT;
	const Tb__VmPlacement *p = vm->placement != NULL ? vm->placement : &nowhere;
	const Tb__VmConfig *c = vm->config;
	uint32_t vcpus = p->most_vcpus > c->vcpus ? p->most_vcpus : c->vcpus;
	char memory[32], most[32];

	memory_text(c->memory_mib, memory);
	memory_text(p->most_memory_mib > c->memory_mib ? p->most_memory_mib : c->memory_mib, most);
	if (p->most_memory_mib == 0 && p->most_vcpus == 0)
		field_print("Size", "%" PRIu32 " vCPU%s, %s", c->vcpus, c->vcpus == 1 ? "" : "s",
			    memory);
	else
		field_print("Size",
			    "%" PRIu32 " vCPU%s, %s; its board keeps %" PRIu32
			    " vCPU%s, %s for it until witnessctl vm restart %s",
			    c->vcpus, c->vcpus == 1 ? "" : "s", memory, vcpus,
			    vcpus == 1 ? "" : "s", most, vm->name);
}

static void config_print(const Tb__Vm *vm, const Tb__ImageList *images)
{
	const Tb__VmConfig *c = vm->config;

	size_print(vm);
	field_print("Kernel", "%s", image_name(images, c->kernel));
	if (c->initrd[0] != '\0')
		field_print("Initrd", "%s", image_name(images, c->initrd));
	field_print("Command line", "%s", c->command_line);
	for (size_t i = 0; i < c->n_disks; i++)
		disk_print(i == 0 ? "Disks" : "", vm, c->disks[i], images);
	for (size_t i = 0; i < c->n_nics; i++)
		nic_print(i == 0 ? "Network" : "", c->nics[i]);
	restart_print(c);
	if (c->priority != 0 || c->start_order != 0)
		field_print("Priority", "%" PRIu32 ", start order %" PRIu32, c->priority,
			    c->start_order);
	list_print("Prefers", c->prefer, c->n_prefer);
	list_print("Requires", c->require, c->n_require);
	if (c->apart[0] != '\0')
		field_print("Apart", "from VMs with the same label %s", c->apart);
}

static void state_print(const Tb__Vm *vm)
{
	char word[64], since[64] = "";
	const Tb__VmView *view = vm->status;
	int64_t now = clock_realtime_ms();

	condition_word(vm, word);
	if (view != NULL && view->since_ms != 0 && view->since_ms <= now)
		human_duration((uint64_t)(now - view->since_ms), since);
	field_print("State", "%s%s%s%s%s", word, since[0] != '\0' ? " for " : "", since,
		    reason_of(vm)[0] != '\0' ? ": " : "", reason_of(vm));
	field_print("Wanted", "%s", vm->running ? "running" : "stopped");
	if (view == NULL)
		return;
	field_print("Board", "%s", view->board);
	if (view->restarts != 0)
		field_print("Restarts", "%" PRIu32 " on this board", view->restarts);
}

static void vm_print(const Tb__Vm *vm, const Tb__ImageList *images)
{
	struct buf labels = {0};
	char when[32];

	for (size_t i = 0; i < vm->n_labels; i++)
		buf_printf(&labels, "%s%s=%s", i > 0 ? ", " : "", vm->labels[i]->key,
			   vm->labels[i]->value);
	human_time(vm->created_ms, when);
	field_print("Name", "%s", vm->name);
	state_print(vm);
	if (vm->placement != NULL && vm->placement->reason[0] != '\0')
		field_print("Placement", "%s (incarnation %" PRIu64 ")", vm->placement->reason,
			    vm->placement->incarnation);
	field_print("Labels", "%s", buf_string(&labels));
	if (vm->config != NULL)
		config_print(vm, images);
	field_print("Created", "%s", when);
	field_print("Revision", "%" PRIu64, vm->revision);
	buf_free(&labels);
}

static int vm_show(struct invocation *inv, const void *message)
{
	const Tb__Vm *vm = message;
	Tb__ImageList *images;
	int rv;

	if (api_output(inv) == OUTPUT_NAME) {
		puts(vm->name);
		return EXIT_OK;
	}
	rv = api_call(inv, &(struct api_request){.path = "/v1/images"}, &tb__image_list__descriptor,
		      &images);
	if (rv != EXIT_OK)
		return rv;
	vm_print(vm, images);
	tb__image_list__free_unpacked(images, NULL);
	return EXIT_OK;
}

int run_vm_show(struct invocation *inv)
{
	char *path = api_path(collection, inv->args[0], "");
	int rv = api_show(inv, path, &tb__vm__descriptor, vm_show);

	free(path);
	return rv;
}

/* --- create, set, delete --- */

static bool dry_run(const struct invocation *inv)
{
	return option_given(inv, "dry-run");
}

static int vm_told(const struct invocation *inv, const char *name, const char *what,
		   const struct buf *body)
{
	if (api_output(inv) == OUTPUT_JSON)
		api_print_json(body);
	else if (api_output(inv) == OUTPUT_NAME)
		puts(name);
	else if (dry_run(inv))
		printf("VM %s would be %s\n", name, what);
	else
		printf("VM %s is %s\n", name, what);
	return EXIT_OK;
}

/* The text of a VM file; "-" is the standard input. */
static int file_read(const char *path, struct buf *ret)
{
	FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");

	if (file == NULL) {
		complain("cannot read %s: %s", path, strerror(errno));
		return EXIT_USAGE;
	}
	buf_reserve(ret, FILE_MAX + 1);
	ret->len = fread(ret->data, 1, FILE_MAX + 1, file);
	if (file != stdin)
		fclose(file);
	if (ret->len <= FILE_MAX)
		return EXIT_OK;
	complain("%s is larger than a VM can be", path);
	return EXIT_USAGE;
}

static int merge(Tb__Vm *vm, const char *where, const char *text, size_t len)
{
	struct json_error error = {0};

	if (json_merge(&vm->base, text, len, &error) == 0)
		return EXIT_OK;
	if (error.field[0] != '\0')
		complain("%s: %s: %s", where, error.field, error.message);
	else if (error.line > 0)
		complain("%s:%d:%d: %s", where, error.line, error.column, error.message);
	else
		complain("%s: %s", where, error.message);
	return EXIT_USAGE;
}

static void text_set(char **text, const char *value)
{
	if (*text != (char *)(uintptr_t)protobuf_c_empty_string)
		free(*text);
	*text = mem_strdup(value);
}

/* A VM from --file, if given, with the options over it. */
static int vm_read(struct invocation *inv, Tb__Vm *vm)
{
	struct buf members = {0};
	struct buf file = {0};
	char *patch;
	int rv = EXIT_OK;

	if (option_given(inv, "file"))
		rv = file_read(option_text(inv, "file"), &file);
	if (rv == EXIT_OK && file.len > 0)
		rv = merge(vm, option_text(inv, "file"), (const char *)file.data, file.len);
	if (rv == EXIT_OK)
		rv = vm_options_read(inv, &members);
	if (rv == EXIT_OK) {
		patch = mem_printf("{%s}", buf_string(&members));
		rv = merge(vm, "the options", patch, strlen(patch));
		free(patch);
	}
	buf_free(&members);
	buf_free(&file);
	return rv;
}

static int vm_wait(struct invocation *inv, const char *name, bool running);

int run_vm_create(struct invocation *inv)
{
	Tb__Vm *vm = (Tb__Vm *)protobuf_c_message_unpack(&tb__vm__descriptor, NULL, 0, NULL);
	struct buf body = {0};
	int rv = vm_read(inv, vm);

	if (rv == EXIT_OK && vm->name[0] != '\0' && inv->arg_count > 0 &&
	    strcmp(vm->name, inv->args[0]) != 0) {
		complain("the file is of VM %s, not of %s", vm->name, inv->args[0]);
		rv = EXIT_USAGE;
	}
	if (inv->arg_count > 0)
		text_set(&vm->name, inv->args[0]);
	if (rv == EXIT_OK && vm->name[0] == '\0') {
		complain("a name is missing: witnessctl vm create NAME");
		rv = EXIT_USAGE;
	}
	if (option_given(inv, "start"))
		vm->running = true;
	if (rv == EXIT_OK)
		rv = api_send(inv,
			      &(struct api_request){
				      .method = "POST",
				      .path = dry_run(inv) ? "/v1/vms?dry-run=1" : "/v1/vms",
				      .message = &vm->base,
				      .retry_ms = API_RETRY_MS},
			      &body);
	if (rv == EXIT_OK && option_given(inv, "wait") && vm->running && !dry_run(inv))
		rv = vm_wait(inv, vm->name, true);
	if (rv == EXIT_OK)
		rv = vm_told(inv, vm->name, "created", &body);
	buf_free(&body);
	tb__vm__free_unpacked(vm, NULL);
	return rv;
}

static int set_send(struct invocation *inv, const char *method, const char *text)
{
	char *path = api_path(collection, inv->args[0], dry_run(inv) ? "?dry-run=1" : "");
	const char *revision = option_text(inv, "if-revision");
	char match[40];
	struct buf body = {0};
	int rv;

	snprintf(match, sizeof(match), "\"%s\"", revision != NULL ? revision : "");
	rv = api_send(inv,
		      &(struct api_request){.method = method,
					    .path = path,
					    .text = text,
					    .if_match = revision != NULL ? match : NULL,
					    .retry_ms = API_RETRY_MS},
		      &body);
	if (rv == EXIT_OK)
		rv = vm_told(inv, inv->args[0], "set, from its next start on", &body);
	buf_free(&body);
	free(path);
	return rv;
}

int run_vm_set(struct invocation *inv)
{
	struct buf members = {0};
	struct buf file = {0};
	char *patch;
	int rv = vm_options_read(inv, &members);

	if (rv == EXIT_OK && (members.len > 0) == option_given(inv, "file")) {
		complain(members.len > 0
				 ? "--file replaces all of the VM; leave the other options out"
				 : "nothing to set; see witnessctl vm set --help");
		rv = EXIT_USAGE;
	}
	if (rv == EXIT_OK && option_given(inv, "file")) {
		rv = file_read(option_text(inv, "file"), &file);
		if (rv == EXIT_OK)
			rv = set_send(inv, "PUT", buf_string(&file));
	} else if (rv == EXIT_OK) {
		patch = mem_printf("{%s}", buf_string(&members));
		rv = set_send(inv, "PATCH", patch);
		free(patch);
	}
	buf_free(&members);
	buf_free(&file);
	return rv;
}

static int vm_delete(struct invocation *inv, const char *name)
{
	char *path = api_path(collection, name, "");
	struct buf body = {0};
	Tb__Vm *vm;
	int rv = vm_get(inv, name, &vm);

	if (rv == EXIT_OK) {
		if (vm_pinned(vm))
			rv = api_confirm(inv,
					 "VM %s has data disks, which are deleted with it. "
					 "Delete it?",
					 name);
		tb__vm__free_unpacked(vm, NULL);
	}
	if (rv == EXIT_OK)
		rv = api_send(inv,
			      &(struct api_request){
				      .method = "DELETE", .path = path, .retry_ms = API_RETRY_MS},
			      &body);
	if (rv == EXIT_OK && api_output(inv) == OUTPUT_NAME)
		puts(name);
	else if (rv == EXIT_OK && api_output(inv) != OUTPUT_JSON)
		printf("VM %s is deleted\n", name);
	buf_free(&body);
	free(path);
	return rv;
}

int run_vm_delete(struct invocation *inv)
{
	int rv = EXIT_OK;

	for (size_t i = 0; rv == EXIT_OK && i < inv->arg_count; i++)
		rv = vm_delete(inv, inv->args[i]);
	return rv;
}

/* --- start, stop, restart, move --- */

/* Does it do what is wanted? -1: it never will by itself, or not for minutes. */
static int vm_settled(const Tb__Vm *vm, bool running)
{
	Tb__VmCondition condition =
		vm->status != NULL ? vm->status->condition : TB__VM_CONDITION__VM_CONDITION_UNKNOWN;

	if (!running)
		return condition == TB__VM_CONDITION__VM_CONDITION_STOPPED ||
		       condition == TB__VM_CONDITION__VM_CONDITION_ENDED;
	if (condition == TB__VM_CONDITION__VM_CONDITION_ENDED || !vm->running)
		return -1;
	if (condition == TB__VM_CONDITION__VM_CONDITION_FAILED && vm->status->stuck)
		return -1;
	return condition == TB__VM_CONDITION__VM_CONDITION_RUNNING &&
	       (vm->placement == NULL || !vm->placement->releasing);
}

static int vm_wait(struct invocation *inv, const char *name, bool running)
{
	uint64_t limit = option_duration_ms(inv, "timeout", WAIT_MS);
	uint64_t until = clock_boottime_ms() + limit;
	struct timespec pause = {.tv_nsec = POLL_MS * 1000000L};
	char word[64], duration[64];

	for (;;) {
		Tb__Vm *vm;
		int settled;
		int rv = vm_get(inv, name, &vm);

		if (rv != EXIT_OK)
			return rv;
		settled = vm_settled(vm, running);
		condition_word(vm, word);
		if (settled < 0) {
			complain("VM %s is %s%s%s", name, word,
				 reason_of(vm)[0] != '\0' ? ": " : "", reason_of(vm));
			rv = EXIT_REFUSED;
		} else if (settled == 0 && clock_boottime_ms() >= until) {
			human_duration(limit, duration);
			complain("waited %s in vain: VM %s is %s%s%s", duration, name, word,
				 reason_of(vm)[0] != '\0' ? ": " : "", reason_of(vm));
			rv = EXIT_NO_QUORUM;
		}
		tb__vm__free_unpacked(vm, NULL);
		if (settled != 0 || rv != EXIT_OK)
			return rv;
		nanosleep(&pause, NULL);
	}
}

struct verb {
	const char *suffix; /* ":start" */
	const ProtobufCMessage *message;
	bool running; /* what is waited for */
	const char *done; /* "started" */
	const char *begun;
	const char *stopped; /* what else it means for one that is not to run; NULL: nothing else */
};

/* Of the VM in the answer: is it to run? */
static bool answer_running(const struct buf *body)
{
	bool running = true;
	Tb__Vm *vm;

	if (api_decode(&tb__vm__descriptor, (const char *)body->data, body->len, &vm) == EXIT_OK) {
		running = vm->running;
		tb__vm__free_unpacked(vm, NULL);
	}
	return running;
}

static int vm_verb(struct invocation *inv, const char *name, const struct verb *verb)
{
	char *suffix = mem_printf("%s%s", verb->suffix, dry_run(inv) ? "?dry-run=1" : "");
	char *path = api_path(collection, name, suffix);
	bool wait = option_given(inv, "wait") && !dry_run(inv);
	struct buf body = {0};
	int rv = api_send(
		inv,
		&(struct api_request){
			.method = "POST", .path = path, .message = verb->message, .retry_ms = 0},
		&body);

	bool stopped = rv == EXIT_OK && verb->stopped != NULL && !answer_running(&body);

	if (rv == EXIT_OK && wait && !stopped)
		rv = vm_wait(inv, name, verb->running);
	if (rv == EXIT_OK)
		rv = vm_told(inv, name,
			     stopped		    ? verb->stopped
			     : wait || dry_run(inv) ? verb->done
						    : verb->begun,
			     &body);
	buf_free(&body);
	free(suffix);
	free(path);
	return rv;
}

static int vms_verb(struct invocation *inv, const struct verb *verb)
{
	int rv = EXIT_OK;

	for (size_t i = 0; rv == EXIT_OK && i < inv->arg_count; i++)
		rv = vm_verb(inv, inv->args[i], verb);
	return rv;
}

int run_vm_start(struct invocation *inv)
{
	return vms_verb(inv,
			&(struct verb){":start", NULL, true, "started", "being started", NULL});
}

int run_vm_stop(struct invocation *inv)
{
	Tb__VmStopRequest request = TB__VM_STOP_REQUEST__INIT;

	request.now = option_given(inv, "now");
	return vms_verb(inv,
			&(struct verb){":stop", &request.base, false, "stopped", "being stopped"});
}

int run_vm_restart(struct invocation *inv)
{
	Tb__VmStopRequest request = TB__VM_STOP_REQUEST__INIT;

	request.now = option_given(inv, "now");
	return vms_verb(inv, &(struct verb){":restart", &request.base, true, "restarted",
					    "being restarted", NULL});
}

int run_vm_move(struct invocation *inv)
{
	Tb__VmMoveRequest request = TB__VM_MOVE_REQUEST__INIT;
	int rv = EXIT_OK;

	request.board = inv->arg_count > 1 ? inv->args[1] : (char *)"";
	request.force = option_given(inv, "force");
	if (request.force && !dry_run(inv))
		rv = api_confirm(inv,
				 "The data disks of VM %s stay behind, and what is on them is lost "
				 "to it: it begins with empty ones. Move it?",
				 inv->args[0]);
	return rv != EXIT_OK ? rv
			     : vm_verb(inv, inv->args[0],
				       &(struct verb){":move", &request.base, true, "moved",
						      "being moved",
						      "stopped, and starts on another board next "
						      "time"});
}
