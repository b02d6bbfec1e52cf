/* The engine on storage that fails: the n-th call that touches a board's files fails, or the file
 * system is full. The board says so, the others go on, and after a restart on sound storage
 * nothing acknowledged is missing. ENGINE_FAULTS=n: so many of the random cases. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/mem.h"
#include "lib/rng.h"
#include "tests/unit/engine_boards.h"

/* --- calls that fail when told to; the program's own definitions come before the C library's ---
 */

enum fault_mode {
	FAULT_ONCE, /* the n-th call: EIO */
	FAULT_FULL, /* all that need room, from the n-th call on: ENOSPC */
	FAULT_HANG, /* writes to segments never end */
};

/* Shared with the child. */
struct fault {
	_Atomic int armed;
	_Atomic unsigned calls;
	unsigned at;
	enum fault_mode mode;
	char dir[256];
	unsigned acked;
	int failed;
};

static struct fault *fault;

/* Where `fd` or `path` is, if that is in the faulty directory; else NULL. */
static const char *faulty_place(int fd, const char *path, char place[512])
{
	char link[64];
	ssize_t n;

	if (fault == NULL || !fault->armed)
		return NULL;
	if (path == NULL || path[0] != '/') {
		(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		n = readlink(link, place, 511);
		if (n < 0)
			return NULL;
		place[n] = '\0';
		path = place;
	}
	return strncmp(path, fault->dir, strlen(fault->dir)) == 0 ? path : NULL;
}

/* The errno that this call must fail with, or 0. */
static int fault_hits(int fd, const char *path, bool needs_room)
{
	char place[512];
	unsigned call;

	if (faulty_place(fd, path, place) == NULL || fault->mode == FAULT_HANG)
		return 0;
	call = ++fault->calls;
	if (fault->mode == FAULT_ONCE)
		return call == fault->at ? EIO : 0;
	return call >= fault->at && needs_room ? ENOSPC : 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static mode_t mode_of(int flags, va_list args)
{
	return flags & O_CREAT ? va_arg(args, mode_t) : 0;
}

int open64(const char *path, int flags, ...);
int open64(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;
	int error = fault_hits(-1, path, flags & O_CREAT);

	va_start(args, flags);
	mode = mode_of(flags, args);
	va_end(args);
	if (error != 0) {
		errno = error;
		return -1;
	}
	return REAL(open64)(path, flags, mode);
}

int openat(int dir, const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;
	int error = fault_hits(dir, path, flags & O_CREAT);

	va_start(args, flags);
	mode = mode_of(flags, args);
	va_end(args);
	if (error != 0) {
		errno = error;
		return -1;
	}
	return REAL(openat)(dir, path, flags, mode);
}

int posix_fallocate(int fd, off_t offset, off_t len)
{
	int error = fault_hits(fd, NULL, true);

	return error != 0 ? error : REAL(posix_fallocate)(fd, offset, len);
}

#define FAILING(type, name, params, args, fd, path, room)                                          \
	type name params;                                                                          \
	type name params                                                                           \
	{                                                                                          \
		int error = fault_hits(fd, path, room);                                            \
                                                                                                   \
		if (error != 0) {                                                                  \
			errno = error;                                                             \
			return -1;                                                                 \
		}                                                                                  \
		return REAL(name) args;                                                            \
	}

FAILING(ssize_t, pwrite, (int fd, const void *data, size_t len, off_t at), (fd, data, len, at), fd,
	NULL, true)
FAILING(ssize_t, pwrite64, (int fd, const void *data, size_t len, off_t at), (fd, data, len, at),
	fd, NULL, true)
FAILING(int, ftruncate, (int fd, off_t len), (fd, len), fd, NULL, false)
FAILING(int, ftruncate64, (int fd, off_t len), (fd, len), fd, NULL, false)
FAILING(int, fsync, (int fd), (fd), fd, NULL, false)
FAILING(int, fdatasync, (int fd), (fd), fd, NULL, false)
FAILING(int, rename, (const char *from, const char *to), (from, to), -1, from, false)
FAILING(int, renameat, (int d1, const char *from, int d2, const char *to), (d1, from, d2, to), d1,
	from, false)
FAILING(int, unlink, (const char *path), (path), -1, path, false)
FAILING(int, unlinkat, (int dir, const char *path, int flags), (dir, path, flags), dir, path, false)

long syscall(long number, ...)
{
	va_list args;
	char place[512];
	long a[6], n;

	va_start(args, number);
	for (unsigned i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (number == SYS_io_submit && a[1] == 1) {
		const char *path;
		struct iocb *iocb;

		memcpy(&iocb, (void *)a[2], sizeof(iocb));
		path = faulty_place((int)iocb->aio_fildes, NULL, place);
		if (path != NULL && fault->mode == FAULT_HANG && strstr(path, "/open-") != NULL)
			return 1; /* and nothing more is heard of it */
	}
	n = REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	for (long i = 0; number == SYS_io_getevents && i < n; i++) {
		struct io_event *event = (struct io_event *)a[3] + i;
		const struct iocb *iocb = (const struct iocb *)(uintptr_t)event->obj;
		int error =
			event->res == -EAGAIN ? 0 : fault_hits((int)iocb->aio_fildes, NULL, true);

		if (error != 0)
			event->res = -error;
	}
	return n;
}

/* --- the n-th call fails --- */

enum { SEED = 4711, ENTRIES = 9000, ROUND = 200 };

static unsigned cases_wanted(unsigned usual)
{
	const char *text = getenv("ENGINE_FAULTS");

	return text != NULL ? (unsigned)atoi(text) : usual;
}

static void fault_arm(const char *dir, unsigned at, enum fault_mode mode)
{
	(void)snprintf(fault->dir, sizeof(fault->dir), "%s", dir);
	fault->at = at;
	fault->mode = mode;
	fault->calls = 0;
	fault->acked = 0;
	fault->failed = 0;
	fault->armed = 1;
}

static void propose_numbers(struct board *b, unsigned from, unsigned count)
{
	char text[16];

	for (unsigned i = 0; i < count; i++) {
		(void)snprintf(text, sizeof(text), "%07u,", from + i);
		board_propose(b, text);
	}
}

/* In a child: `leader` takes entries until the end or its failure. Only a prefix is counted as
 * acknowledged: each round is answered before the next one begins. */
static void run_writer(struct fixture *f, struct board *leader)
{
	unsigned answered = 0;

	while (f->ok < ENTRIES && leader->failed == 0) {
		propose_numbers(leader, f->ok, ROUND);
		answered += ROUND;
		boards_wait_answers(f, answered);
		fault->acked = f->ok;
		if (f->ok != answered)
			break;
	}
}

/* Runs `body` in a child; its death by a signal or an assertion fails the test. */
static void in_child(struct fixture *f, void (*body)(struct fixture *f), const char *what)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		/* Not back into the runner of tests. */
		(void)setenv("CMOCKA_TEST_ABORT", "1", 1);
		for (int sig = 1; sig < 32; sig++)
			if (sig != SIGPIPE)
				(void)signal(sig, SIG_DFL);
		uv_loop_fork(&f->loop);
		body(f);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	fault->armed = 0;
	if (status != 0) {
		print_message("%s, call %u, mode %d: child ended with %x\n", what, fault->at,
			      (int)fault->mode, (unsigned)status);
		fail();
	}
}

/* "0000000,0000001,...": all acknowledged ones, perhaps some more, none missing between. */
static void check_numbers(const struct board *b, const char *what)
{
	unsigned count = (unsigned)(b->model.len / 8);

	if (count < fault->acked || !board_is_whole(b, count)) {
		print_message("%s, call %u, mode %d: %u of %u\n", what, fault->at, (int)fault->mode,
			      count, fault->acked);
		fail();
	}
}

static void body_alone(struct fixture *f)
{
	struct board *b = &f->boards[0];

	if (board_start(b) < 0) {
		fault->failed = 1;
		assert_true(strlen(b->message) > 10);
		boards_run_ms(f, 1);
		return;
	}
	(void)boards_wait_leader;
	run_writer(f, b);
	if (b->failed != 0)
		assert_true(strlen(b->message) > 10);
	fault->failed = b->failed != 0;
	board_stop(b);
}

static void test_alone_faults(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];
	struct prng rng = {SEED};
	unsigned cases = cases_wanted(40), total, failed = 0;
	char good[300];

	print_message("seed %d\n", SEED);
	(void)snprintf(good, sizeof(good), "%s/good", f->root);
	assert_int_equal(engine_bootstrap(b->dir, 1, b->address), 0);
	assert_int_equal(rename(b->dir, good), 0);
	dir_copy(good, b->dir);
	fault_arm(b->dir, 0, FAULT_ONCE);
	in_child(f, body_alone, "no fault");
	total = fault->calls;
	assert_int_equal(fault->acked, ENTRIES);
	for (unsigned i = 0; i < cases; i++) {
		unsigned at = 1 + (unsigned)prng_below(&rng, i % 4 == 0 ? 40 : total);

		dir_copy(good, b->dir);
		fault_arm(b->dir, at, i % 2 == 0 ? FAULT_ONCE : FAULT_FULL);
		in_child(f, body_alone, "alone");
		failed += fault->failed != 0;
		if (board_start(b) != 0) {
			print_message("call %u, mode %d: %s\n", at, (int)fault->mode, b->message);
			fail();
		}
		check_numbers(b, "alone");
		board_stop(b);
	}
	print_message("%u calls, %u cases, %u of them made the board stop\n", total, cases, failed);
	assert_true(cases == 0 || failed > 0);
}

static bool has_failed(struct fixture *f, void *arg)
{
	const struct board *b = arg;

	(void)f;
	return b->failed != 0;
}

static void body_hang(struct fixture *f)
{
	struct board *b = &f->boards[0];

	assert_int_equal(board_start(b), 0);
	propose_numbers(b, 0, 1);
	assert_true(boards_run_until(f, has_failed, b));
	assert_int_equal(b->failed, -ETIMEDOUT);
	boards_wait_answers(f, 1);
	board_stop(b);
}

/* Storage that answers no more. */
static void test_hang(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];

	assert_int_equal(engine_bootstrap(b->dir, 1, b->address), 0);
	fault_arm(b->dir, 1, FAULT_HANG);
	in_child(f, body_hang, "hang");
	assert_int_equal(board_start(b), 0);
}

static void body_bootstrap(struct fixture *f)
{
	struct board *b = &f->boards[0];

	fault->failed = engine_bootstrap(b->dir, 1, b->address);
}

/* Whatever call of a bootstrap fails: it can be repeated, or is done. */
static void test_bootstrap_faults(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];

	for (unsigned at = 1; at < 1000; at++) {
		int rv;

		dir_remove(b->dir);
		fault_arm(b->dir, at, FAULT_ONCE);
		in_child(f, body_bootstrap, "bootstrap");
		if (fault->calls < at)
			return;
		rv = engine_bootstrap(b->dir, 1, b->address);
		if (rv != 0 && rv != -EEXIST)
			print_message("call %u: first %d, then %d\n", at, fault->failed, rv);
		assert_true(rv == 0 || rv == -EEXIST);
		assert_int_equal(board_start(b), 0);
		if (boards_wait_leader(f) != b)
			fail();
		board_stop(b);
	}
	fail();
}

static unsigned faulty;

static void body_three(struct fixture *f)
{
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(board_start(&f->boards[i]), 0);
	(void)boards_wait_leader(f);
	fault->armed = 1;
	run_writer(f, boards_wait_leader(f));
	fault->failed = f->boards[faulty].failed != 0;
	fault->armed = 0;
	for (unsigned i = 0; i < 3; i++)
		board_stop(&f->boards[i]);
}

static void test_three_faults(void **state)
{
	struct fixture *f = *state;
	struct prng rng = {SEED};
	unsigned cases = cases_wanted(4);
	char good[300], from[400];

	print_message("seed %d\n", SEED);
	boards_cluster(f, 3);
	(void)snprintf(good, sizeof(good), "%s/good", f->root);
	assert_int_equal(mkdir(good, 0700), 0);
	for (unsigned i = 0; i < 3; i++) {
		board_stop(&f->boards[i]);
		(void)snprintf(from, sizeof(from), "%s/%u", good, i);
		dir_copy(f->boards[i].dir, from);
	}
	for (unsigned i = 0; i < cases; i++) {
		for (unsigned j = 0; j < 3; j++) {
			(void)snprintf(from, sizeof(from), "%s/%u", good, j);
			dir_copy(from, f->boards[j].dir);
		}
		faulty = (unsigned)prng_below(&rng, 3);
		fault_arm(f->boards[faulty].dir, 1 + (unsigned)prng_below(&rng, 200),
			  i % 2 == 0 ? FAULT_FULL : FAULT_ONCE);
		fault->armed = 0;
		f->ok = f->again = f->canceled = f->other = 0;
		in_child(f, body_three, "three");
		for (unsigned j = 0; j < 3; j++)
			assert_int_equal(board_start(&f->boards[j]), 0);
		board_propose(boards_wait_leader(f), "the end.");
		boards_wait_answers(f, 1);
		assert_int_equal(f->ok, 1);
		boards_wait_same(f, 7, boards_wait_leader(f)->model.len);
		f->boards[0].model.len -= 8;
		check_numbers(&f->boards[0], "three");
		for (unsigned j = 0; j < 3; j++)
			board_stop(&f->boards[j]);
	}
}

/* --- a full file system --- */

static bool can_mount;

static void mount_small(struct board *b, unsigned mib)
{
	char options[64];

	if (!can_mount)
		skip();
	assert_int_equal(mkdir(b->dir, 0700), 0);
	(void)snprintf(options, sizeof(options), "size=%um", mib);
	assert_int_equal(mount("tiebreak", b->dir, "tmpfs", 0, options), 0);
}

static void fill(const struct board *b, unsigned leave_mib)
{
	char path[300];
	struct stat st;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/ballast", b->dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	while (REAL(posix_fallocate)(fd, 0, 1) == 0) {
		static const char chunk[1 << 16];

		if (write(fd, chunk, sizeof(chunk)) != (ssize_t)sizeof(chunk))
			break;
	}
	assert_int_equal(fstat(fd, &st), 0);
	if (leave_mib > 0)
		assert_int_equal(ftruncate(fd, st.st_size - (off_t)leave_mib * (1 << 20)), 0);
	close(fd);
}

static void empty(const struct board *b)
{
	char path[300];

	(void)snprintf(path, sizeof(path), "%s/ballast", b->dir);
	assert_int_equal(unlink(path), 0);
}

static void small_teardown(struct board *b)
{
	board_stop(b);
	(void)umount2(b->dir, MNT_DETACH);
}

/* A board alone refuses entries while the file system is nearly full, and goes on by itself. */
static void test_full_alone(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];

	mount_small(b, 100);
	boards_cluster(f, 1);
	propose_numbers(b, 0, 10);
	boards_wait_answers(f, 10);
	assert_int_equal(f->ok, 10);
	fill(b, 20);
	boards_run_ms(f, 1100);
	propose_numbers(b, 10, 10);
	boards_wait_answers(f, 20);
	assert_int_equal(f->ok, 10);
	assert_int_equal(f->other, 10);
	assert_int_equal(b->failed, 0);
	empty(b);
	boards_run_ms(f, 1100);
	propose_numbers(b, 10, 10);
	boards_wait_answers(f, 30);
	assert_int_equal(f->ok, 20);
	small_teardown(b);
}

static bool is_led_by_another(struct fixture *f, void *arg)
{
	const struct board *leader = boards_leader(f);

	return leader != NULL && leader != arg;
}

/* A leader with a nearly full file system hands over; a follower with a full one stops, the
 * others go on, and it comes back with all that it missed. */
static void test_full_member(void **state)
{
	struct fixture *f = *state;
	struct board *b = &f->boards[0];
	struct board *leader;
	static uint8_t big[100000];
	unsigned answered = 0, acked;

	mount_small(b, 60);
	boards_cluster(f, 3);
	fill(b, 20);
	boards_run_ms(f, 1100);
	board_propose(b, "nothing");
	boards_wait_answers(f, ++answered);
	assert_int_equal(f->other, 1);
	assert_true(boards_run_until(f, is_led_by_another, b));
	leader = boards_leader(f);
	fill(b, 0);
	while (b->failed == 0 && f->ok < 1000) {
		for (unsigned i = 0; i < 10; i++)
			engine_propose(leader->engine, big, sizeof(big), on_proposed, f);
		answered += 10;
		boards_wait_answers(f, answered);
		if (f->ok + 1 != answered)
			break;
	}
	acked = f->ok;
	assert_int_equal(b->failed, -ENOSPC);
	assert_true(strlen(b->message) > 10);
	board_stop(b);
	assert_int_equal(board_start(b), -ENOSPC);
	assert_non_null(strstr(b->message, b->dir));
	empty(b);
	assert_int_equal(board_start(b), 0);
	boards_wait_same(f, 7, (size_t)acked * sizeof(big));
	small_teardown(b);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_bootstrap_faults, boards_setup,
						boards_teardown),
		cmocka_unit_test_setup_teardown(test_alone_faults, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_three_faults, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_hang, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_full_alone, boards_setup, boards_teardown),
		cmocka_unit_test_setup_teardown(test_full_member, boards_setup, boards_teardown),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	fault = mmap(NULL, sizeof(*fault), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	can_mount = geteuid() == 0 && unshare(CLONE_NEWNS) == 0 &&
		    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
