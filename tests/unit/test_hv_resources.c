/* What a VM lives on: one clear error for each thing that is missing, wrong, taken or too much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/disk_lock.h"
#include "hv/resources.h"
#include "hv/spec.h"
#include "hv/tap.h"

static char folder[] = "/tmp/test_hv_resources_XXXXXX";

static void file_make(const char *name, off_t size)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

static int group_setup(void **state)
{
	(void)state;
	if (mkdtemp(folder) == NULL || chdir(folder) < 0) {
		return -1;
	}
	file_make("Image", 100);
	file_make("initrd", 100);
	file_make("a.img", 4096);
	file_make("b.img", 4096);
	file_make("state", 10);
	file_make("memory", 10);
	return link("a.img", "same.img") < 0 || mkfifo("pipe", 0600) < 0 || mkdir("dir", 0700) < 0;
}

static int group_teardown(void **state)
{
	static const char *const files[] = {"Image", "initrd", "a.img",	   "b.img",
					    "state", "memory", "same.img", "pipe"};

	(void)state;
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		unlink(files[i]);
	}
	rmdir("dir");
	return chdir("/") < 0 || rmdir(folder) < 0;
}

static Tb__VmSpec *spec_of(const char *text)
{
	struct fault fault = {0};
	Tb__VmSpec *spec;

	assert_int_equal(spec_parse(text, strlen(text), NULL, &spec, &fault), 0);
	if (spec_finish(spec, false, &fault) != 0) {
		fail_msg("%s", fault.text);
	}
	return spec;
}

/* Opens and checks; the descriptors stay open if it went well. */
static int take(const char *text, struct resources *r, struct fault *fault)
{
	Tb__VmSpec *spec = spec_of(text);
	int rv;

	*fault = (struct fault){0};
	*r = (struct resources){0};
	rv = resources_open(spec, r, fault);
	rv = rv < 0 ? rv : resources_check(spec, r, fault);
	if (rv < 0) {
		resources_close(r);
	}
	spec_free(spec);
	return rv;
}

#define VM "{\"name\":\"vm\",\"kernel\":\"Image\""

static void test_all_there(void **state)
{
	struct resources r;
	struct fault fault;

	(void)state;
	assert_int_equal(take(VM ",\"initrd\":\"initrd\",\"disks\":[{\"path\":\"a.img\"},"
				 "{\"path\":\"b.img\",\"readOnly\":true}]}",
			      &r, &fault),
			 0);
	assert_int_equal(r.count, 4);
	assert_true(resource_find(&r, "kernel") >= 0);
	assert_true(resource_find(&r, "initrd") >= 0);
	assert_int_equal(fcntl(resource_find_nth(&r, "disk", 0), F_GETFL) & O_ACCMODE, O_RDWR);
	assert_int_equal(fcntl(resource_find(&r, "disk1"), F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(fcntl(resource_find(&r, "disk1"), F_GETFL) & O_NONBLOCK, 0);
	assert_int_equal(resource_find(&r, "disk2"), -1);
	resources_close(&r);
	assert_int_equal(r.count, 0);
	assert_int_equal(
		take("{\"name\":\"vm\",\"restore\":{\"state\":\"state\",\"memory\":\"memory\"}}",
		     &r, &fault),
		0);
	assert_true(resource_find(&r, "memory") >= 0);
	resources_close(&r);
}

static void test_refused(void **state)
{
	static const struct {
		const char *text;
		int error;
		const char *message;
	} cases[] = {
		{"{\"name\":\"vm\",\"kernel\":\"none\"}", -ENOENT,
		 "kernel: cannot open none: No such file or directory"},
		{"{\"name\":\"vm\",\"kernel\":\"dir\"}", -EINVAL, "kernel: is not a file"},
		{"{\"name\":\"vm\",\"kernel\":\"pipe\"}", -EINVAL, "kernel: is not a file"},
		{VM ",\"initrd\":\"none\"}", -ENOENT,
		 "initrd: cannot open none: No such file or directory"},
		{VM ",\"initrd\":\"/dev/null\"}", -EINVAL, "initrd: is not a file"},
		{VM ",\"disks\":[{\"path\":\"a.img\"},{\"path\":\"c.img\"}]}", -ENOENT,
		 "disks[1]: cannot open c.img: No such file or directory"},
		{VM ",\"disks\":[{\"path\":\"dir\"}]}", -EISDIR,
		 "disks[0]: cannot open dir: Is a directory"},
		{VM ",\"disks\":[{\"path\":\"a.img\"},{\"path\":\"same.img\"}]}", -EINVAL,
		 "disks[1]: is the file of disks[0] too"},
		{VM ",\"nics\":[{\"tap\":\"no-such-tap\"}]}", -ENODEV,
		 "nics[0]: there is no tap \"no-such-tap\"; make it: `ip tuntap add no-such-tap "
		 "mode tap`"},
		{"{\"name\":\"vm\",\"restore\":{\"state\":\"none\",\"memory\":\"memory\"}}",
		 -ENOENT, "restore.state: cannot open none: No such file or directory"},
		{"{\"name\":\"vm\",\"restore\":{\"state\":\"state\",\"memory\":\"none\"}}", -ENOENT,
		 "restore.memory: cannot open none: No such file or directory"},
	};
	int before = dup(0);
	int after;

	(void)state;
	close(before);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct resources r;
		struct fault fault;

		assert_int_equal(take(cases[i].text, &r, &fault), cases[i].error);
		assert_string_equal(fault.text, cases[i].message);
	}
	/* Nothing stayed open. */
	after = dup(0);
	assert_int_equal(after, before);
	close(after);
}

/* Another process has a lock on a.img; returns its id, ends with other_end. */
static pid_t other_lock(bool read_only)
{
	char byte;
	int told[2];
	pid_t pid;

	assert_int_equal(pipe(told), 0);
	pid = fork();
	if (pid == 0) {
		char holder[64];
		int fd = open("a.img", read_only ? O_RDONLY : O_RDWR);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, "other-vm");
		if (disk_lock(fd, read_only, holder) != 0 || write(told[1], "x", 1) != 1) {
			_exit(1);
		}
		pause();
	}
	assert_int_equal(read(told[0], &byte, 1), 1);
	close(told[0]);
	close(told[1]);
	return pid;
}

static void other_end(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_locks(void **state)
{
	static const char writer[] = VM ",\"disks\":[{\"path\":\"a.img\"}]}";
	static const char reader[] = VM ",\"disks\":[{\"path\":\"a.img\",\"readOnly\":true}]}";
	static const char careless[] = VM ",\"disks\":[{\"path\":\"a.img\",\"noLock\":true}]}";
	char expected[128];
	struct resources r;
	struct fault fault;
	pid_t other = other_lock(false);

	(void)state;
	snprintf(expected, sizeof(expected), "disks[0]: a.img is in use by process %d (other-vm)",
		 (int)other);
	assert_int_equal(take(writer, &r, &fault), -EBUSY);
	assert_string_equal(fault.text, expected);
	assert_int_equal(take(reader, &r, &fault), -EBUSY);
	assert_string_equal(fault.text, expected);
	assert_int_equal(take(careless, &r, &fault), 0);
	resources_close(&r);
	other_end(other);
	assert_int_equal(take(writer, &r, &fault), 0);
	resources_close(&r);
	other = other_lock(true);
	assert_int_equal(take(reader, &r, &fault), 0);
	resources_close(&r);
	assert_int_equal(take(writer, &r, &fault), -EBUSY);
	other_end(other);
}

/* Processes that have one lock together, the older one first; told by `told`. */
static void family_begin(const char *older, const char *younger, int told)
{
	pid_t pid = fork();

	if (pid == 0) {
		char holder[64];
		int fd = open("a.img", O_RDWR);
		pid_t pids[2] = {getpid()};

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, older);
		if (disk_lock(fd, false, holder) != 0) {
			_exit(1);
		}
		pids[1] = younger == NULL ? 0 : fork();
		if (pids[1] == 0 && younger != NULL) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			prctl(PR_SET_NAME, younger);
			pause();
		}
		(void)!write(told, pids, sizeof(pids));
		pause();
	}
}

struct family {
	pid_t pids[2];
};

static struct family family(const char *older, const char *younger)
{
	struct family f;
	int told[2];

	assert_int_equal(pipe(told), 0);
	family_begin(older, younger, told[1]);
	close(told[1]);
	assert_int_equal(read(told[0], &f, sizeof(f)), sizeof(f));
	close(told[0]);
	/* Its name is there a moment after it. */
	usleep(20000);
	return f;
}

static void family_end(const struct family *f)
{
	if (f->pids[1] != 0) {
		kill(f->pids[1], SIGKILL);
	}
	kill(f->pids[0], SIGKILL);
	assert_int_equal(waitpid(f->pids[0], NULL, 0), f->pids[0]);
}

/* Turns that are given; the family is ended at one of them, or nobody wants the VM any more. */
static struct {
	const struct family *family;
	int turns, ends_at, unwanted_at;
} waiting;

static bool waiting_turn(void *arg)
{
	assert_ptr_equal(arg, &waiting);
	waiting.turns++;
	if (waiting.turns == waiting.ends_at) {
		family_end(waiting.family);
		usleep(50000);
	}
	return waiting.turns != waiting.unwanted_at;
}

/* A VM was killed while its disk did not answer: what is left of it has the lock until then. */
static void test_left_lock_is_waited_for(void **state)
{
	static const struct {
		int ends_at, unwanted_at, error, turns;
		const char *message;
	} cases[] = {
		{3, 0, 0, 3, ""},
		{0, 2, -ECANCELED, 2, ""},
		{0, 0, -EAGAIN, RESOURCES_TURNS,
		 "disks[0]: a.img is still in use by a vm-disk-sync, left of a VM that was killed: "
		 "the disk does not answer"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct family left = family("vm-disk-sync", NULL);
		Tb__VmSpec *spec = spec_of(VM ",\"disks\":[{\"path\":\"a.img\"}]}");
		struct resources r = {0};
		struct fault fault = {0};

		memset(&waiting, 0, sizeof(waiting));
		waiting.family = &left;
		waiting.ends_at = cases[i].ends_at;
		waiting.unwanted_at = cases[i].unwanted_at;
		assert_int_equal(resources_open(spec, &r, &fault), 0);
		assert_int_equal(resources_check(spec, &r, &fault), 0);
		assert_int_equal(resources_lock(spec, &r, waiting_turn, &waiting, &fault),
				 cases[i].error);
		assert_int_equal(waiting.turns, cases[i].turns);
		assert_string_equal(fault.text, cases[i].message);
		if (cases[i].error != 0) {
			family_end(&left);
		} else {
			int other = open("a.img", O_RDWR);

			/* Now it is ours. */
			assert_int_equal(disk_lock_try(other, false), -EAGAIN);
			close(other);
		}
		resources_close(&r);
		spec_free(spec);
	}
}

/* A VM that lives is refused by its own name, whichever of its processes is found first. */
static void test_living_is_named(void **state)
{
	struct family f = family("vm-disk-sync", "other-vm");
	struct resources r;
	struct fault fault;
	char expected[128];

	(void)state;
	snprintf(expected, sizeof(expected), "disks[0]: a.img is in use by process %d (other-vm)",
		 (int)f.pids[1]);
	assert_int_equal(take(VM ",\"disks\":[{\"path\":\"a.img\"}]}", &r, &fault), -EBUSY);
	assert_string_equal(fault.text, expected);
	family_end(&f);
}

/* A parent locks the disk and hands it over: the lock is the child's own. */
static void test_lock_comes_along(void **state)
{
	Tb__VmSpec *spec = spec_of("{\"name\":\"vm\",\"disks\":[{}]}");
	struct resources r = {0};
	struct fault fault = {0};
	char holder[64];
	int disk = open("a.img", O_RDWR);
	int other = open("a.img", O_RDWR);

	(void)state;
	assert_int_equal(disk_lock(disk, false, holder), 0);
	assert_int_equal(resource_add(&r, "disk0", dup(disk)), 0);
	assert_int_equal(resource_add(&r, "kernel", open("Image", O_RDONLY)), 0);
	assert_int_equal(resources_check(spec, &r, &fault), 0);
	close(disk);
	assert_int_equal(disk_lock(other, false, holder), -EBUSY);
	resources_close(&r);
	assert_int_equal(disk_lock(other, false, holder), 0);
	close(other);
	spec_free(spec);
}

static void test_handed_over(void **state)
{
	static const struct {
		const char *text;
		const char *names[3];
		const char *message;
	} cases[] = {
		{"{\"name\":\"vm\"}", {NULL}, "the descriptor \"kernel\" did not come along"},
		{"{\"name\":\"vm\",\"disks\":[{}]}",
		 {"kernel", NULL},
		 "the descriptor \"disk0\" did not come along"},
		{"{\"name\":\"vm\",\"nics\":[{}]}",
		 {"kernel", NULL},
		 "the descriptor \"nic0\" did not come along"},
		{"{\"name\":\"vm\",\"vsockCid\":3}",
		 {"kernel", NULL},
		 "the descriptor \"vsock\" did not come along"},
		{"{\"name\":\"vm\",\"restore\":{}}",
		 {"state", NULL},
		 "the descriptor \"memory\" did not come along"},
		{"{\"name\":\"vm\",\"restore\":{}}",
		 {"kernel", NULL},
		 "the descriptor \"kernel\" belongs to nothing in the spec"},
		{"{\"name\":\"vm\",\"disks\":[{}]}",
		 {"kernel", "disk1", NULL},
		 "the descriptor \"disk1\" belongs to nothing in the spec"},
		{"{\"name\":\"vm\"}",
		 {"kernel", "vsock", NULL},
		 "the descriptor \"vsock\" belongs to nothing in the spec"},
		{"{\"name\":\"vm\"}", {"kernel", "kvm", NULL}, ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		Tb__VmSpec *spec = spec_of(cases[i].text);
		struct resources r = {0};
		struct fault fault = {0};
		int rv;

		for (size_t k = 0; cases[i].names[k] != NULL; k++) {
			assert_int_equal(
				resource_add(&r, cases[i].names[k], open("Image", O_RDONLY)), 0);
		}
		rv = resources_check(spec, &r, &fault);
		assert_string_equal(fault.text, cases[i].message);
		assert_int_equal(rv == 0, cases[i].message[0] == '\0');
		resources_close(&r);
		spec_free(spec);
	}
}

static void test_names(void **state)
{
	static const char *const bad[] = {"",	     "disk",   "disk8",
					  "disk10",  "disk-1", "nic4",
					  "kernels", "Disk0",  "a-very-long-name-of-a-thing"};
	struct resources r = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(resource_add(&r, bad[i], 0), -EINVAL);
	}
	assert_int_equal(resource_add(&r, "disk7", -1), -EINVAL);
	assert_int_equal(resource_add(&r, "disk7", 1000), 0);
	assert_int_equal(resource_add(&r, "disk7", 1001), -EEXIST);
	assert_int_equal(resource_find(&r, "disk7"), 1000);
}

static void test_no_permission(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	if (geteuid() != 0) {
		skip();
	}
	assert_int_equal(chmod(folder, 0755), 0);
	pid = fork();
	if (pid == 0) {
		struct resources r;
		struct fault fault;

		/* a.img can be read by everybody and written by root. */
		if (setgid(65534) < 0 || setuid(65534) < 0) {
			_exit(2);
		}
		take(VM ",\"disks\":[{\"path\":\"a.img\"}]}", &r, &fault);
		_exit(strcmp(fault.text,
			     "disks[0]: cannot open a.img: Permission denied; give this user the "
			     "right to write it, or make it readOnly") == 0
			      ? 0
			      : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* A tap that persists, as `ip tuntap add` makes it. */
static bool tap_make(const char *name)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	int fd = open("/dev/net/tun", O_RDWR);
	bool made;

	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	made = fd >= 0 && ioctl(fd, TUNSETIFF, &request) == 0 && ioctl(fd, TUNSETPERSIST, 1) == 0;
	close(fd);
	return made;
}

static void test_tap(void **state)
{
	struct fault fault = {0};
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	if (pid == 0) {
		struct ifreq got = {0};
		int fd, second;

		/* A network of its own, gone with the child. */
		if (unshare(CLONE_NEWNET) < 0 || !tap_make("t0")) {
			_exit(77);
		}
		if (tap_open("t0", "nics[0]", &fd, &fault) != 0) {
			_exit(1);
		}
		if (ioctl(fd, TUNGETIFF, &got) < 0 || (got.ifr_flags & IFF_VNET_HDR) == 0) {
			_exit(2);
		}
		if (tap_open("t0", "nics[1]", &second, &fault) != -EBUSY ||
		    strcmp(fault.text, "nics[1]: tap \"t0\" is in use by another program") != 0) {
			_exit(3);
		}
		fault.text[0] = '\0';
		if (tap_open("t1", "nics[1]", &second, &fault) != -ENODEV ||
		    if_nametoindex("t1") != 0) {
			_exit(4);
		}
		fault.text[0] = '\0';
		if (tap_open("lo", "nics[1]", &second, &fault) != -EINVAL) {
			_exit(5);
		}
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		skip();
	}
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_there),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_locks),
		cmocka_unit_test(test_lock_comes_along),
		cmocka_unit_test(test_left_lock_is_waited_for),
		cmocka_unit_test(test_living_is_named),
		cmocka_unit_test(test_handed_over),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_no_permission),
		cmocka_unit_test(test_tap),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
