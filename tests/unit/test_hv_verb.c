/* What a person says to a running VM, against a control socket with a stand-in behind it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/control.h"
#include "hv/verb.h"
#include "proto/json_name.h"

struct fixture {
	struct loop loop;
	struct control *control;
	pthread_t thread;
	char folder[40];
	char path[64];
	/* Of the last request. */
	Tb__VmRequest__WhatCase what;
	uint64_t number;
	bool stay_paused;
	const char *refusal; /* NULL: done */
	bool vanish; /* end instead of an answer */
	char text[160];
};

static bool handle(void *arg, const struct control_call *call, Tb__VmReply *reply)
{
	static Tb__VmStatus status;
	static Tb__VmStats stats;
	static Tb__VmCounter counters[2];
	static Tb__VmCounter *list[] = {&counters[0], &counters[1]};
	static char name[] = "web-1", backing[] = "memfd", sandbox[] = "limits",
		    engine[] = "io_uring", cores[] = "4 of 6, Cortex-A53";
	static char first[] = "exits.mmio", second[] = "memory.resident-bytes";
	struct fixture *f = arg;
	const Tb__VmRequest *q = call->request;

	f->what = q->what_case;
	if (f->vanish) {
		loop_stop(&f->loop);
		return false;
	}
	switch (q->what_case) {
	case TB__VM_REQUEST__WHAT_STATUS:
		status = (Tb__VmStatus)TB__VM_STATUS__INIT;
		status.name = name;
		status.state = TB__VM_STATE__VM_STATE_RUNNING;
		status.vcpus = 2;
		status.memory_mib = 256;
		status.running_ms = 3725000;
		status.lease_left_ms = -1;
		status.gic = TB__GIC_VERSION__GIC_VERSION_V2;
		status.sandbox = sandbox;
		status.memory_backing = backing;
		status.disk_engine = engine;
		status.cores = cores;
		reply->status = &status;
		break;
	case TB__VM_REQUEST__WHAT_STATS:
		counters[0] = counters[1] = (Tb__VmCounter)TB__VM_COUNTER__INIT;
		counters[0].name = first;
		counters[0].value = 7;
		counters[1].name = second;
		counters[1].value = 1 << 20;
		counters[1].gauge = true;
		stats = (Tb__VmStats)TB__VM_STATS__INIT;
		stats.counters = list;
		stats.n_counters = 2;
		reply->stats = &stats;
		break;
	case TB__VM_REQUEST__WHAT_LEASE:
		f->number = q->lease->length_ms;
		f->vanish = f->number == 0;
		break;
	case TB__VM_REQUEST__WHAT_BALLOON:
		f->number = q->balloon->target_mib;
		break;
	case TB__VM_REQUEST__WHAT_SAVE:
		f->stay_paused = q->save->stay_paused;
		if (call->fd_count != 2 || write(call->fds[0], "STATE", 5) != 5 ||
		    write(call->fds[1], "MEMORY", 6) != 6) {
			f->refusal = "no files";
		}
		break;
	case TB__VM_REQUEST__WHAT_STOP:
		loop_stop(&f->loop);
		break;
	default:
		break;
	}
	if (f->refusal != NULL) {
		snprintf(f->text, sizeof(f->text), "%s", f->refusal);
		reply->error = f->text;
	}
	if (f->vanish) {
		loop_stop(&f->loop);
		return false;
	}
	return true;
}

/* As a VM's process: when the loop ends the connections do. */
static void *run(void *arg)
{
	struct fixture *f = arg;

	loop_run(&f->loop);
	control_destroy(f->control);
	return NULL;
}

static void begin(struct fixture *f)
{
	struct control_config config = {
		.loop = &f->loop, .parent = -1, .request = handle, .arg = f};

	*f = (struct fixture){.folder = "/tmp/test_hv_verb_XXXXXX"};
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof(f->path), "%s/vm.sock", f->folder);
	assert_int_equal(loop_init(&f->loop), 0);
	assert_int_equal(control_listen(f->path, &config.listener), 0);
	assert_int_equal(control_create(&config, &f->control), 0);
	assert_int_equal(pthread_create(&f->thread, NULL, run, f), 0);
}

static void end(struct fixture *f)
{
	loop_stop(&f->loop);
	pthread_join(f->thread, NULL);
	loop_close(&f->loop);
	unlink(f->path);
	rmdir(f->folder);
}

/* Says it; what was printed is in `said`, the reason of a failure too. */
static int say(const struct fixture *f, const char *name, char *argument, bool json,
	       char said[2048])
{
	const struct verb *verb = verb_find(name);
	struct verb_options options = {.json = json, .stay_paused = json};
	struct fault fault = {0};
	char path[64];
	char *args[] = {path, argument};
	FILE *out;
	int status;

	assert_non_null(verb);
	strcpy(path, f->path);
	memset(said, 0, 2048);
	out = fmemopen(said, 2048, "w");
	status = verb_run(verb, args, &options, out, &fault);
	fclose(out);
	if (status != 0) {
		snprintf(said, 2048, "%s", fault.text);
	}
	assert_int_equal(status == 0, fault.text[0] == '\0');
	return status;
}

static void test_plain_words(void **state)
{
	static const struct {
		const char *name;
		Tb__VmRequest__WhatCase what;
	} cases[] = {
		{"pause", TB__VM_REQUEST__WHAT_PAUSE},
		{"resume", TB__VM_REQUEST__WHAT_RESUME},
		{"reset", TB__VM_REQUEST__WHAT_RESET},
		{"button", TB__VM_REQUEST__WHAT_POWER_BUTTON},
		{"stop", TB__VM_REQUEST__WHAT_STOP},
	};
	static struct fixture f;
	char said[2048];

	(void)state;
	begin(&f);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(say(&f, cases[i].name, NULL, false, said), VERB_OK);
		assert_int_equal(f.what, cases[i].what);
		assert_string_equal(said, "");
	}
	end(&f);
	/* It was stopped, and has ended when the word returned. */
	assert_int_equal(say(&f, "status", NULL, false, said), VERB_UNREACHABLE);
}

static void test_shown(void **state)
{
	static struct fixture f;
	char said[2048];

	(void)state;
	begin(&f);
	assert_int_equal(say(&f, "status", NULL, false, said), VERB_OK);
	assert_string_equal(said, "name      web-1\n"
				  "state     running\n"
				  "running   1h 2m\n"
				  "vcpus     2\n"
				  "cores     4 of 6, Cortex-A53\n"
				  "memory    256 MiB, memfd\n"
				  "gic       v2\n"
				  "disks     by io_uring\n"
				  "resets    0\n"
				  "lease     none\n"
				  "sandbox   limits\n");
	assert_int_equal(say(&f, "status", NULL, true, said), VERB_OK);
	assert_non_null(strstr(said, "\"state\":\"running\""));
	assert_non_null(strstr(said, "\"leaseLeftMs\":\"-1\""));
	assert_int_equal(say(&f, "stats", NULL, false, said), VERB_OK);
	assert_string_equal(said, "exits.mmio                                7\n"
				  "memory.resident-bytes               1048576  now\n");
	assert_int_equal(say(&f, "stats", NULL, true, said), VERB_OK);
	assert_non_null(strstr(said, "{\"name\":\"exits.mmio\",\"value\":\"7\",\"gauge\":false}"));
	end(&f);
}

static void test_numbers(void **state)
{
	static const struct {
		const char *name, *argument, *sentence;
		uint64_t number;
	} cases[] = {
		{"lease", "90s", "", 90000},
		{"lease", "250ms", "", 250},
		{"lease", "90",
		 "\"90\" is not a time of at most a day with its unit, such as 90s or 5m", 0},
		{"lease", "25h",
		 "\"25h\" is not a time of at most a day with its unit, such as 90s or 5m", 0},
		{"balloon", "64", "", 64},
		{"balloon", "0", "", 0},
		{"balloon", "1g", "\"1g\" is not a whole number of MiB from 0 to 4294967295", 0},
		{"balloon", "-1", "\"-1\" is not a whole number of MiB from 0 to 4294967295", 0},
	};
	static struct fixture f;
	char said[2048];

	(void)state;
	begin(&f);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char argument[16];
		int status;

		strcpy(argument, cases[i].argument);
		f.what = TB__VM_REQUEST__WHAT__NOT_SET;
		status = say(&f, cases[i].name, argument, false, said);
		assert_string_equal(said, cases[i].sentence);
		assert_int_equal(status, said[0] == '\0' ? VERB_OK : VERB_USAGE);
		/* Nothing is asked with a bad argument. */
		assert_int_equal(f.what == TB__VM_REQUEST__WHAT__NOT_SET, status != VERB_OK);
		assert_true(status != VERB_OK || f.number == cases[i].number);
	}
	end(&f);
}

/* A lease of no time ends the VM before it can answer: that is what was asked for. */
static void test_lease_of_no_time(void **state)
{
	static struct fixture f;
	char argument[] = "0s";
	char said[2048];

	(void)state;
	begin(&f);
	assert_int_equal(say(&f, "lease", argument, false, said), VERB_OK);
	end(&f);
}

static void test_refused(void **state)
{
	static struct fixture f;
	char said[2048];
	char name[128];

	(void)state;
	begin(&f);
	f.refusal = "a snapshot is being written; try again";
	assert_int_equal(say(&f, "pause", NULL, false, said), VERB_REFUSED);
	assert_string_equal(said, "a snapshot is being written; try again");
	f.vanish = true;
	assert_int_equal(say(&f, "status", NULL, false, said), VERB_UNREACHABLE);
	assert_string_equal(
		said,
		"the VM ended, or does not speak our words: Transport endpoint is not connected");
	end(&f);
	snprintf(name, sizeof(name), "%s: No such file or directory", f.path);
	assert_int_equal(say(&f, "status", NULL, false, said), VERB_UNREACHABLE);
	assert_string_equal(said, name);
}

static void file_must_be(const char *folder, const char *name, const char *text)
{
	char path[80];
	char got[16] = "";
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_RDONLY);
	assert_int_equal(fd >= 0, text != NULL);
	if (fd >= 0) {
		assert_true(read(fd, got, sizeof(got) - 1) >= 0);
		assert_string_equal(got, text);
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_mode & 07777, 0600);
		close(fd);
	}
}

static void test_save(void **state)
{
	static struct fixture f;
	char said[2048];
	char folder[64], path[96], sentence[160];

	(void)state;
	begin(&f);
	snprintf(folder, sizeof(folder), "%s/snap", f.folder);
	/* Refused: nothing stays. */
	f.refusal = "no";
	assert_int_equal(say(&f, "save", folder, false, said), VERB_REFUSED);
	file_must_be(folder, "state", NULL);
	file_must_be(folder, "state.new", NULL);
	file_must_be(folder, "memory.new", NULL);
	f.refusal = NULL;
	assert_int_equal(say(&f, "save", folder, true, said), VERB_OK);
	assert_true(f.stay_paused);
	file_must_be(folder, "state", "STATE");
	file_must_be(folder, "memory", "MEMORY");
	file_must_be(folder, "memory.new", NULL);
	/* Never over another. */
	f.what = TB__VM_REQUEST__WHAT__NOT_SET;
	assert_int_equal(say(&f, "save", folder, false, said), VERB_REFUSED);
	snprintf(sentence, sizeof(sentence),
		 "%s/state is there already; a snapshot is not written over another", folder);
	assert_string_equal(said, sentence);
	assert_int_equal(f.what, TB__VM_REQUEST__WHAT__NOT_SET);
	snprintf(path, sizeof(path), "%s/state", folder);
	unlink(path);
	snprintf(path, sizeof(path), "%s/memory", folder);
	unlink(path);
	rmdir(folder);
	strcpy(folder, "/proc/none");
	assert_int_equal(say(&f, "save", folder, false, said), VERB_REFUSED);
	assert_string_equal(said, "cannot make /proc/none: No such file or directory");
	end(&f);
}

static void test_table(void **state)
{
	(void)state;
	assert_null(verb_find("sttus"));
	assert_null(verb_find(""));
	for (const struct verb *v = verbs; v->name != NULL; v++) {
		assert_ptr_equal(verb_find(v->name), v);
		assert_true(v->count == 1 || v->count == 2);
		assert_true(strlen(v->summary) > 0 && v->summary[strlen(v->summary) - 1] != '.');
	}
}

/* The manual page, as text. */
static char *manual(void)
{
	static char text[1 << 16];
	FILE *file = fopen(TEST_DATA "/../../../docs/man/witness-vm.1", "r");
	size_t len = file == NULL ? 0 : fread(text, 1, sizeof(text) - 1, file);

	if (file != NULL) {
		fclose(file);
	}
	text[len] = '\0';
	return text;
}

static void fields_must_be_in(const char *text, const ProtobufCMessageDescriptor *type)
{
	for (unsigned i = 0; i < type->n_fields; i++) {
		char name[JSON_NAME_MAX];

		json_field_name(&type->fields[i], name);
		if (strstr(text, name) == NULL) {
			fail_msg("%s of %s is not in witness-vm(1)", name, type->short_name);
		}
	}
}

static void test_manual_page_is_whole(void **state)
{
	const char *text = manual();

	(void)state;
	if (text[0] == '\0') {
		skip(); /* an installed test */
	}
	fields_must_be_in(text, &tb__vm_spec__descriptor);
	fields_must_be_in(text, &tb__disk_spec__descriptor);
	fields_must_be_in(text, &tb__nic_spec__descriptor);
	fields_must_be_in(text, &tb__restore_spec__descriptor);
	fields_must_be_in(text, &tb__sandbox_spec__descriptor);
	for (const struct verb *v = verbs; v->name != NULL; v++) {
		if (strstr(text, v->name) == NULL) {
			fail_msg("%s is not in witness-vm(1)", v->name);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain_words), cmocka_unit_test(test_shown),
		cmocka_unit_test(test_numbers),	    cmocka_unit_test(test_lease_of_no_time),
		cmocka_unit_test(test_refused),	    cmocka_unit_test(test_save),
		cmocka_unit_test(test_table),	    cmocka_unit_test(test_manual_page_is_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
