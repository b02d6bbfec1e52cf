/* The host's thread from its letters to real processes and back: this program stands in for the
 * core, the front and witness-vm (`supervised`, `probe`), the model and the images are real. One
 * host for all of it, since it starts nothing in its first three seconds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/store.h"
#include "hv/lease.h"
#include "hv/start.h"
#include "lib/clock.h"
#include "lib/hex.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "proto/frame.h"
#include "proto/json.h"
#include "witnessd/core.h"
#include "witnessd/front.h"
#include "witnessd/host_internal.h"

enum { PARENT = 3, WAIT_MS = 20000 };

/* --- witness-vm --- */

static void vm_say(uint64_t id, const char *error)
{
	Tb__VmReply reply = TB__VM_REPLY__INIT;
	struct buf out = {0};

	reply.id = id;
	reply.error = (char *)(uintptr_t)error;
	frame_append(&out, &reply.base);
	(void)!write(PARENT, out.data, out.len);
	buf_free(&out);
}

/* The guest says what it is typed, in brackets, and powers off when asked to. */
static void vm_guest(int console, struct lease *lease)
{
	uint8_t head[FRAME_HEAD], payload[4096];
	ProtobufCMessage *message;
	Tb__VmRequest *request;
	fd_set set;
	char key;

	for (;;) {
		FD_ZERO(&set);
		FD_SET(PARENT, &set);
		FD_SET(console, &set);
		if (select(console > PARENT ? console + 1 : PARENT + 1, &set, NULL, NULL, NULL) < 0)
			_exit(90);
		if (FD_ISSET(console, &set) && read(console, &key, 1) == 1)
			dprintf(console, "[%c]", key);
		if (!FD_ISSET(PARENT, &set))
			continue;
		if (recv(PARENT, head, sizeof(head), MSG_WAITALL) != sizeof(head))
			raise(SIGKILL); /* VmStart.with_parent */
		size_t len = frame_payload_len(head);
		recv(PARENT, payload, len, MSG_WAITALL);
		if (frame_unpack(&tb__vm_request__descriptor, payload, len, FRAME_MEMORY(len),
				 &message) != 0)
			_exit(91);
		request = (Tb__VmRequest *)message;
		vm_say(request->id, "");
		if (request->what_case == TB__VM_REQUEST__WHAT_LEASE) {
			lease_until(lease, request->lease->until_ms);
		} else {
			dprintf(console, "powering off\n");
			vm_say(0, "powered off");
			_exit(0);
		}
	}
}

static int vm_main(void)
{
	struct resources r = {0};
	struct fault fault = {0};
	struct lease lease;
	Tb__VmStart *start;
	int console;

	if (start_receive(PARENT, &start, &r, &fault) < 0)
		return 96;
	lease_init(&lease);
	lease_until(&lease, start->lease_until_ms);
	console = resource_find(&r, "console");
	for (size_t i = 0; i < r.count; i++)
		dprintf(console, "%s ", r.item[i].name);
	dprintf(console, "of %s\n", start->spec->name);
	vm_say(0, "");
	vm_guest(console, &lease);
	return 0;
}

static int probe_main(void)
{
	puts(access("no-kvm", F_OK) == 0 ? "{\"canHost\":false,\"summary\":\"no kvm\"}"
					 : "{\"canHost\":true,\"summary\":\"fine\"}");
	return 0;
}

/* --- core and front --- */

static struct core_view view = {.node_id = 1};
static char model_path[128];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Tb__HostReport *newest; /* under the lock */
static unsigned proposals; /* of NodeHostSet that fit */
static unsigned refusals; /* of those of a board that cannot host */

const struct core_view *core_view(const struct core *c)
{
	(void)c;
	return &view;
}

const char *core_model_path(const struct core *c)
{
	(void)c;
	return model_path;
}

void core_propose(struct core *c, struct mailbox *home, Tb__Command **commands, size_t count,
		  core_proposed done, void *arg)
{
	(void)c, (void)home;
	pthread_mutex_lock(&lock);
	if (count == 1 && commands[0]->op_case == TB__COMMAND__OP_NODE_HOST_SET &&
	    commands[0]->node_host_set->id == 1) {
		proposals += commands[0]->node_host_set->host->hosts;
		refusals += !commands[0]->node_host_set->host->hosts;
	}
	pthread_mutex_unlock(&lock);
	for (size_t i = 0; i < count; i++)
		tb__command__free_unpacked(commands[i], NULL);
	free(commands);
	done(arg, 0, NULL, 0);
}

void core_host_report(struct core *c, Tb__HostReport *report)
{
	(void)c;
	pthread_mutex_lock(&lock);
	if (newest != NULL)
		tb__host_report__free_unpacked(newest, NULL);
	newest = report;
	pthread_mutex_unlock(&lock);
}

void front_host_dial(struct front *f, uint64_t dial_id, const char *address, uint64_t node)
{
	(void)f, (void)dial_id, (void)address, (void)node;
	fail();
}

/* --- the test --- */

struct lab {
	char root[64], data[80], run[80], sha256[65];
	struct store *model;
	uint64_t applied;
	struct host *host;
	uv_loop_t loop; /* the front's */
	struct mailbox home;
	struct host_console *console;
	struct buf said;
	bool open, over, uploaded;
	char why[128];
	bool known; /* to the model: the VM's data disk is made */
	uint64_t placed; /* its newest incarnation */
};

static struct lab lab;

static void pause_ms(unsigned ms)
{
	usleep(ms * 1000);
	uv_run(&lab.loop, UV_RUN_NOWAIT);
}

/* What the newest report says of the VM; UNKNOWN: nothing. */
static Tb__VmCondition condition(uint64_t vm, uint64_t incarnation, char problem[256])
{
	Tb__VmCondition is = TB__VM_CONDITION__VM_CONDITION_UNKNOWN;

	problem[0] = '\0';
	pthread_mutex_lock(&lock);
	for (size_t i = 0; newest != NULL && i < newest->n_vms; i++)
		if (newest->vms[i]->vm == vm && newest->vms[i]->incarnation == incarnation) {
			is = newest->vms[i]->condition;
			snprintf(problem, 256, "%s", newest->vms[i]->problem);
		}
	pthread_mutex_unlock(&lock);
	return is;
}

static void lease_give(void)
{
	host_lease(lab.host, clock_boottime_ms() + 3000, 1);
}

static bool disk_said(void)
{
	bool said = false;

	pthread_mutex_lock(&lock);
	for (size_t i = 0; newest != NULL && i < newest->n_vms; i++)
		said |= newest->vms[i]->n_home_disks == 1 &&
			strcmp(newest->vms[i]->home_disks[0], "books") == 0;
	pthread_mutex_unlock(&lock);
	return said;
}

/* Somebody has to know that it is images that it waits for, and not its guest's disks. */
static bool images_waited_for(void)
{
	bool waits = false;

	pthread_mutex_lock(&lock);
	for (size_t i = 0; newest != NULL && i < newest->n_vms; i++)
		waits |= newest->vms[i]->waits;
	pthread_mutex_unlock(&lock);
	return waits;
}

static void vm_put(uint64_t incarnation, bool releasing, bool data);
static pid_t vm_pid(uint64_t id);

static void await(uint64_t vm, uint64_t incarnation, Tb__VmCondition wanted, const char *problem)
{
	uint64_t end = clock_boottime_ms() + WAIT_MS;
	char said[256];
	Tb__VmCondition is;
	char words[2][64];

	do {
		pause_ms(20);
		lease_give();
		if (!lab.known && disk_said()) { /* as the scheduler would */
			lab.known = true;
			assert_int_equal(vm_pid(vm), 0);
			vm_put(lab.placed, false, true);
		}
		is = condition(vm, incarnation, said);
		if (is == wanted && strstr(said, problem) != NULL)
			return;
	} while (clock_boottime_ms() < end);
	fail_msg("VM %" PRIu64 " is %s (%s), not %s (%s)", vm,
		 json_enum_word(&tb__vm_condition__descriptor, (int)is, words[0]), said,
		 json_enum_word(&tb__vm_condition__descriptor, (int)wanted, words[1]), problem);
}

static pid_t vm_pid(uint64_t id)
{
	/* As procps would find it: the only child of this process. */
	char path[64], text[64] = "";
	FILE *f;

	(void)id;
	for (pid_t t = getpid(); t < getpid() + 64; t++) {
		snprintf(path, sizeof(path), "/proc/%d/task/%d/children", getpid(), t);
		f = fopen(path, "r");
		if (f == NULL)
			continue;
		if (fgets(text, sizeof(text), f) == NULL)
			text[0] = '\0';
		fclose(f);
		if (atoi(text) > 0)
			return atoi(text);
	}
	return 0;
}

static void model_begin(void)
{
	assert_int_equal(store_begin(lab.model), 0);
}

static void model_commit(void)
{
	assert_int_equal(store_commit(lab.model, ++lab.applied), 0);
	view.applied_index = lab.applied;
	host_model_changed(lab.host, lab.applied);
}

static char text_name[] = "web", text_copied[] = "copied", text_kernel[] = "kernel",
	    text_disk[] = "disk", text_cluster[] = "lab", text_board[] = "b1",
	    empty_address[] = "x:1";

static void vm_store(Tb__Vm *vm, Tb__VmConfig *config, Tb__VmPlacement *placement)
{
	vm->config = config;
	vm->running = true;
	vm->placement = placement;
	placement->node = 1;
	config->vcpus = 1;
	config->memory_mib = 64;
	config->kernel = lab.sha256;
	config->restart_attempts = 3;
	config->restart_backoff_ms = 1000;
	model_begin();
	assert_int_equal(store_vm_put(lab.model, vm), 0);
	model_commit();
}

static void vm_put(uint64_t incarnation, bool releasing, bool data)
{
	Tb__Vm vm = TB__VM__INIT;
	Tb__VmConfig config = TB__VM_CONFIG__INIT;
	Tb__VmPlacement placement = TB__VM_PLACEMENT__INIT;
	Tb__VmDisk disk = TB__VM_DISK__INIT, *disks[] = {&disk};
	static char id[] = "books";
	char *known[] = {id};

	lab.placed = incarnation;

	vm.id = 5;
	vm.name = text_name;
	placement.incarnation = incarnation;
	placement.releasing = releasing;
	placement.home = placement.home_incarnation = 1;
	placement.home_disks = known;
	placement.n_home_disks = lab.known;
	disk.id = id;
	disk.kind = TB__DISK_KIND__DISK_KIND_DATA;
	disk.size_mib = 1;
	config.disks = disks;
	config.n_disks = data;
	vm_store(&vm, &config, &placement);
}

static void image_put(char *name, Tb__ImageKind kind, const void *bytes, size_t len,
		      char sha256[65])
{
	Tb__Image image = TB__IMAGE__INIT;
	uint8_t digest[SHA256_DIGEST_LENGTH];

	SHA256(bytes, len, digest);
	hex_encode(digest, sizeof(digest), sha256);
	image.sha256 = sha256;
	image.name = name;
	image.kind = kind;
	image.size = len;
	model_begin();
	assert_int_equal(store_image_put(lab.model, &image), 0);
	model_commit();
}

static void cluster_put(void)
{
	Tb__Cluster cluster = TB__CLUSTER__INIT;
	Tb__Node node = TB__NODE__INIT;

	cluster.name = text_cluster;
	cluster.level = 3;
	node.id = 1;
	node.name = text_board;
	node.address = empty_address;
	model_begin();
	assert_int_equal(store_cluster_put(lab.model, &cluster), 0);
	assert_int_equal(store_node_put(lab.model, &node), 0);
	model_commit();
}

static bool vm_folder(void)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/vms/5", lab.data);
	return access(path, F_OK) == 0;
}

/* --- consoles --- */

static void on_bytes(void *arg, const void *bytes, size_t len, const char *why)
{
	(void)arg;
	if (len > 0) {
		buf_append(&lab.said, bytes, len);
	} else if (why != NULL) {
		lab.over = true;
		snprintf(lab.why, sizeof(lab.why), "%s", why);
		return;
	} else {
		lab.open = true;
	}
	host_console_next(lab.console);
}

static void console_open(uint64_t vm, bool follow)
{
	lab.open = lab.over = false;
	buf_clear(&lab.said);
	lab.console =
		host_console_open(lab.host, &lab.home, vm, CONSOLE_KEEP, follow, on_bytes, NULL);
}

static void console_await(const char *text)
{
	uint64_t end = clock_boottime_ms() + WAIT_MS;

	while (strstr(buf_string(&lab.said), text) == NULL && clock_boottime_ms() < end) {
		pause_ms(20);
		lease_give();
	}
	if (strstr(buf_string(&lab.said), text) == NULL)
		fail_msg("\"%s\" is not in \"%s\"", text, buf_string(&lab.said));
}

static void console_await_over(const char *why)
{
	uint64_t end = clock_boottime_ms() + WAIT_MS;

	while (!lab.over && clock_boottime_ms() < end)
		pause_ms(20);
	assert_true(lab.over);
	assert_string_equal(lab.why, why);
}

/* --- the story --- */

#define IS(word) TB__VM_CONDITION__VM_CONDITION_##word

static void uploaded(void *arg, int error, const char *message, uint64_t have, bool done)
{
	(void)message;
	assert_int_equal(error, 0);
	assert_int_equal(have, *(const size_t *)arg);
	assert_true(done);
	lab.uploaded = true;
}

static void upload(const char *sha256, const void *bytes, size_t len)
{
	static size_t size;

	size = len;
	lab.uploaded = false;
	host_upload(lab.host, &lab.home, sha256, len, 0, bytes, len, uploaded, &size);
}

/* Without the fence nothing starts; without the image it says so; then it runs. */
static bool said_of_host(const unsigned *count)
{
	bool said;

	pthread_mutex_lock(&lock);
	said = *count > 0;
	pthread_mutex_unlock(&lock);
	return said;
}

/* What it needs comes late: it is asked again, and the cluster hears of it. */
static void story_probe(void)
{
	uint64_t end = clock_boottime_ms() + WAIT_MS;

	while (!said_of_host(&refusals) && clock_boottime_ms() < end)
		pause_ms(20);
	assert_true(said_of_host(&refusals));
	assert_false(said_of_host(&proposals));
	assert_int_equal(rmdir("no-kvm"), 0);
	while (!said_of_host(&proposals) && clock_boottime_ms() < end)
		pause_ms(20);
	assert_true(said_of_host(&proposals));
}

static void story_start(void)
{
	static const char kernel[] = "what a kernel is made of";

	image_put(text_kernel, TB__IMAGE_KIND__IMAGE_KIND_KERNEL, kernel, sizeof(kernel),
		  lab.sha256);
	vm_put(1, false, true);
	host_lease(lab.host, clock_boottime_ms() + 60000, UINT64_MAX);
	pause_ms(HOSTING_QUIET_MS + 500);
	assert_int_equal(vm_pid(5), 0);
	await(5, 1, IS(PREPARING), "kernel: ");
	assert_true(images_waited_for());
	assert_int_equal(vm_pid(5), 0);
	upload(lab.sha256, kernel, sizeof(kernel));
	await(5, 1, IS(RUNNING), "");
	assert_true(vm_pid(5) > 0);
	assert_true(vm_folder());
	pthread_mutex_lock(&lock);
	assert_true(proposals > 0);
	assert_int_equal(newest->n_images, 1);
	assert_int_equal(newest->images[0]->state, TB__IMAGE_COPY_STATE__IMAGE_COPY_STATE_HELD);
	pthread_mutex_unlock(&lock);
}

static void story_console(void)
{
	console_open(5, true);
	console_await("console disk0 kernel kvm of web\n");
	host_console_write(lab.console, "x", 1);
	console_await("[x]");
	host_console_close(lab.console);
	console_open(5, false);
	console_await_over("");
	assert_non_null(strstr(buf_string(&lab.said), "[x]"));
	host_console_close(lab.console);
	console_open(77, true);
	console_await_over("it is on no board");
	host_console_close(lab.console);
}

static void story_crash(void)
{
	pid_t before = vm_pid(5);

	console_open(5, true);
	kill(before, SIGKILL);
	await(5, 1, IS(BACKING_OFF), "killed");
	await(5, 1, IS(RUNNING), "");
	assert_int_not_equal(vm_pid(5), before);
	console_await("[x]console disk0"); /* of both starts, through one look */
	host_console_close(lab.console);
}

/* A letter that holds its thread up. */
static sem_t hold_begun, hold_over;

static void hold_open(struct letter *letter)
{
	free(letter);
	sem_post(&hold_begun);
	sem_wait(&hold_over);
}

static void hold_open_at(struct mailbox *mailbox)
{
	struct letter *letter = mem_zalloc(sizeof(*letter));

	letter->open = hold_open;
	assert_int_equal(mailbox_answer(mailbox, letter), 0);
}

/* The lease is not renewed: the process is gone at its end, and comes back with the next one. */
static void story_lease(void)
{
	uint64_t end = clock_boottime_ms() + WAIT_MS;

	host_lease(lab.host, clock_boottime_ms() + 600, 1);
	while (vm_pid(5) != 0 && clock_boottime_ms() < end)
		pause_ms(20);
	assert_int_equal(vm_pid(5), 0);
	await(5, 1, IS(RUNNING), "");
}

/* What it is told it takes; while its thread is held up, it does not. */
static void story_hung(void)
{
	uint64_t end = clock_boottime_ms() + WAIT_MS;
	uint64_t told = clock_boottime_ms();
	uint64_t first, second;

	while (host_waits_ms(lab.host) != 0 && clock_boottime_ms() < end)
		pause_ms(20);
	assert_int_equal(host_waits_ms(lab.host), 0);
	sem_init(&hold_begun, 0, 0);
	sem_init(&hold_over, 0, 0);
	hold_open_at(&lab.host->mailbox);
	sem_wait(&hold_begun);
	lease_give();
	first = host_waits_ms(lab.host);
	pause_ms(20);
	lease_give();
	second = host_waits_ms(lab.host);
	sem_post(&hold_over);
	assert_in_range(first, told, clock_boottime_ms());
	assert_int_equal(second, first);
	while (host_waits_ms(lab.host) != 0 && clock_boottime_ms() < end)
		pause_ms(20);
	assert_int_equal(host_waits_ms(lab.host), 0);
}

static void story_release(void)
{
	vm_put(1, true, true);
	await(5, 1, IS(RELEASED), "");
	assert_int_equal(vm_pid(5), 0);
	assert_true(vm_folder()); /* its data */
	vm_put(3, false, true);
	await(5, 3, IS(RUNNING), "");
}

/* Its data disk is gone from this board: nothing is made in its place, and it starts when it is
 * back. */
static void story_missing(void)
{
	char path[160], aside[160];

	snprintf(path, sizeof(path), "%s/vms/5/data-books.1", lab.data);
	snprintf(aside, sizeof(aside), "%s/aside", lab.root);
	vm_put(3, true, true);
	await(5, 3, IS(RELEASED), "");
	assert_int_equal(rename(path, aside), 0);
	vm_put(4, false, true);
	await(5, 4, IS(BACKING_OFF), "data disk books is missing on this board");
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(rename(aside, path), 0);
	await(5, 4, IS(RUNNING), "");
}

/* Another board that makes links, and says nothing on them: each is closed in time, with words. */
static void story_silent(void)
{
	uint8_t head[FRAME_HEAD], payload[256];
	ProtobufCMessage *message;
	int pairs[3][2];
	size_t len;

	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i]), 0);
		assert_int_equal(setsockopt(pairs[i][0], SOL_SOCKET, SO_RCVTIMEO,
					    &(struct timeval){.tv_sec = WAIT_MS / 1000},
					    sizeof(struct timeval)),
				 0);
		host_link_accepted(lab.host, 2, pairs[i][1]);
	}
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(recv(pairs[i][0], head, sizeof(head), MSG_WAITALL), sizeof(head));
		len = frame_payload_len(head);
		assert_in_range(len, 1, sizeof(payload));
		assert_int_equal(recv(pairs[i][0], payload, len, MSG_WAITALL), len);
		assert_int_equal(frame_unpack(&tb__host_frame__descriptor, payload, len,
					      FRAME_MEMORY(len), &message),
				 0);
		assert_string_equal(((Tb__HostFrame *)message)->end,
				    "this board was not told in time what the link is for");
		protobuf_c_message_free_unpacked(message, NULL);
		assert_int_equal(recv(pairs[i][0], head, 1, 0), 0);
		close(pairs[i][0]);
	}
}

static void story_delete(void)
{
	uint64_t end = clock_boottime_ms() + WAIT_MS;

	vm_put(4, true, true);
	await(5, 4, IS(RELEASED), "");
	model_begin();
	assert_int_equal(store_vm_delete(lab.model, 5), 0);
	model_commit();
	while (vm_folder() && clock_boottime_ms() < end) {
		pause_ms(100);
		lease_give();
	}
	assert_false(vm_folder());
}

/* A copy whose first piece stays with a slow disk until the host has heard that it is to stop. */
static struct {
	atomic_bool armed;
	atomic_uint pieces;
	sem_t stops;
	atomic_bool heard;
} copy;

/* In place of libc's: what is copied goes to the disk piece by piece. */
int sync_file_range(int fd, off64_t offset, off64_t count, unsigned flags)
{
	(void)fd, (void)offset, (void)count, (void)flags;
	if (copy.armed && copy.pieces++ == 0)
		sem_wait(&copy.stops);
	return 0;
}

static void stop_asked(void *arg, int error, const char *message, uint64_t have, bool done)
{
	(void)arg, (void)message, (void)have, (void)done;
	if (error == -ESHUTDOWN)
		copy.heard = true;
}

/* Letters come in order: whoever is refused knows that the host has read the one before. */
static void *copy_let_go(void *arg)
{
	(void)arg;
	while (!copy.heard) {
		host_upload(lab.host, &lab.home, lab.sha256, 25, 0, NULL, 0, stop_asked, NULL);
		pause_ms(2);
	}
	sem_post(&copy.stops);
	return NULL;
}

/* false: the file system clones, and nothing is copied. */
static bool copy_begin(void)
{
	char problem[256];
	static uint8_t bytes[3 << 20];
	uint64_t end = clock_boottime_ms() + WAIT_MS;
	char sha256[65];
	Tb__Vm vm = TB__VM__INIT;
	Tb__VmConfig config = TB__VM_CONFIG__INIT;
	Tb__VmPlacement placement = TB__VM_PLACEMENT__INIT;
	Tb__VmDisk disk = TB__VM_DISK__INIT, *disks[] = {&disk};

	memset(bytes, 0x5a, sizeof(bytes));
	image_put(text_disk, TB__IMAGE_KIND__IMAGE_KIND_DISK, bytes, sizeof(bytes), sha256);
	upload(sha256, bytes, sizeof(bytes));
	sem_init(&copy.stops, 0, 0);
	vm.id = 6;
	vm.name = text_copied;
	placement.incarnation = 1;
	disk.kind = TB__DISK_KIND__DISK_KIND_OVERLAY;
	disk.image = sha256;
	config.disks = disks;
	config.n_disks = 1;
	while (!lab.uploaded && clock_boottime_ms() < end) {
		pause_ms(20);
		lease_give();
	}
	copy.armed = true;
	vm_store(&vm, &config, &placement);
	while (copy.pieces == 0 && condition(6, 1, problem) != IS(RUNNING) &&
	       clock_boottime_ms() < end) {
		pause_ms(20);
		lease_give();
	}
	return copy.pieces > 0;
}

/* What runs is asked to shut down; of what is copied no further piece is waited for. */
static void story_stop(void)
{
	pthread_t other;
	bool copies;

	vm_put(6, false, false);
	await(5, 6, IS(RUNNING), "");
	console_open(5, true);
	console_await("of web");
	copies = copy_begin();
	pthread_create(&other, NULL, copy_let_go, NULL);
	host_stop(lab.host);
	pthread_join(other, NULL);
	assert_int_equal(copy.pieces, copies);
	assert_int_equal(vm_pid(5), 0);
	console_await("powering off");
	console_await_over("this board is stopping");
	host_console_close(lab.console);
}

static void test_story(void **state)
{
	(void)state;
	cluster_put();
	story_probe();
	story_start();
	story_console();
	story_crash();
	story_lease();
	story_hung();
	story_release();
	story_missing();
	story_silent();
	story_delete();
	story_stop();
}

static int setup(void **state)
{
	static char program[] = "/proc/self/exe";
	struct config config;
	const char *why = "";

	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	snprintf(lab.root, sizeof(lab.root), "%s/host-XXXXXX",
		 getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(lab.root));
	assert_int_equal(chdir(lab.root), 0);
	assert_int_equal(mkdir("no-kvm", 0700), 0);
	snprintf(lab.data, sizeof(lab.data), "%s/data", lab.root);
	snprintf(lab.run, sizeof(lab.run), "%s/run", lab.root);
	snprintf(model_path, sizeof(model_path), "%s/model.db", lab.run);
	mkdir(lab.data, 0700);
	mkdir(lab.run, 0700);
	assert_int_equal(store_open(model_path, &lab.model), 0);
	config_init(&config);
	free(config.data_dir);
	free(config.run_dir);
	free(config.vm_program);
	config.data_dir = lab.data;
	config.run_dir = lab.run;
	config.vm_program = program;
	uv_loop_init(&lab.loop);
	mailbox_init(&lab.home, &lab.loop, 1000);
	if (host_start(&config, NULL, NULL, &lab.host, &why) != 0)
		fail_msg("%s", why);
	lab.host->kvm = "/dev/null";
	lab.host->entrant_ms = 200;
	lab.host->probe_ms = 200;
	config.data_dir = config.run_dir = config.vm_program = NULL;
	config_free(&config);
	return 0;
}

static int teardown(void **state)
{
	char command[96];

	(void)state;
	host_stop(lab.host);
	mailbox_close(&lab.home, NULL);
	uv_run(&lab.loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&lab.loop), 0);
	host_free(lab.host);
	store_close(lab.model);
	if (newest != NULL)
		tb__host_report__free_unpacked(newest, NULL);
	buf_free(&lab.said);
	snprintf(command, sizeof(command), "rm -rf %s", lab.root);
	return system(command);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_story, setup, teardown)};

	if (argc > 1 && strcmp(argv[1], "supervised") == 0)
		_exit(vm_main()); /* what it has needs no tidying */
	if (argc > 1 && strcmp(argv[1], "probe") == 0)
		return probe_main();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
