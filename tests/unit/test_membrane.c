/* The membrane between the raft library and its disk and network, with both ends made here: what
 * passes in which state, and that nothing passes after the first failure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cluster/membrane.h"
#include "lib/mem.h"

struct world {
	struct membrane m;
	struct raft raft;
	struct ballot ballot;
	char dir[64];
	int dir_fd;
	raft_io_recv_cb recv; /* as raft_uv calls it */
	raft_io_tick_cb tick;
	unsigned received, ticked, ran;
	unsigned sent, send_refused;
	int send_status;
	struct raft_io_send *sends[2 * MEMBRANE_SENDS];
	raft_io_send_cb sending_cb;
	unsigned appends;
	unsigned entries; /* in the last append */
	struct raft_io_append *appending;
	raft_io_append_cb appending_cb;
	int append_rv;
	unsigned appended;
	unsigned truncates;
	struct raft_io_snapshot_put *putting;
	raft_io_snapshot_put_cb putting_cb;
	int put_status; /* 1: not answered */
	bool sound;
	raft_time now;
};

static struct world *world_of(struct raft_io *io)
{
	return (struct world *)(void *)((char *)io - offsetof(struct world, m.io));
}

static int disk_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick,
		      raft_io_recv_cb recv)
{
	(void)msecs;
	world_of(io)->recv = recv;
	world_of(io)->tick = tick;
	return 0;
}

static int disk_append(struct raft_io *io, struct raft_io_append *req,
		       const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
	struct world *w = world_of(io);

	(void)entries;
	w->appends++;
	w->entries = n;
	w->appending = req;
	w->appending_cb = cb;
	return w->append_rv;
}

static int disk_truncate(struct raft_io *io, raft_index index)
{
	(void)index;
	world_of(io)->truncates++;
	return 0;
}

static int disk_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
		    const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
	(void)trailing;
	(void)snapshot;
	world_of(io)->putting = req;
	world_of(io)->putting_cb = cb;
	return 0;
}

static int disk_send(struct raft_io *io, struct raft_io_send *req,
		     const struct raft_message *message, raft_io_send_cb cb)
{
	struct world *w = world_of(io);

	(void)message;
	if (w->send_status != 0)
		return w->send_status;
	w->sends[w->sent++] = req;
	w->sending_cb = cb;
	return 0;
}

static raft_time disk_time(struct raft_io *io)
{
	return world_of(io)->now;
}

static void disk_close(struct raft_io *io, raft_io_close_cb cb)
{
	cb(io);
}

static void on_recv(struct raft_io *io, struct raft_message *msg)
{
	(void)msg;
	world_of(io)->received++;
}

static void on_tick(struct raft_io *io)
{
	world_of(io)->ticked++;
}

static void on_ran(void *arg)
{
	((struct world *)arg)->ran++;
}

static bool on_sound(void *arg, const void *data, size_t len)
{
	(void)data;
	(void)len;
	return ((struct world *)arg)->sound;
}

static void on_snapshot_failed(void *arg)
{
	(void)arg;
}

static int setup(void **state)
{
	struct world *w = mem_zalloc(sizeof(*w));
	const struct membrane_events events = {w, on_ran, on_sound, on_snapshot_failed};

	(void)snprintf(w->dir, sizeof(w->dir), "/tmp/membrane-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->dir_fd = open(w->dir, O_RDONLY | O_DIRECTORY);
	w->ballot = (struct ballot){.fd = -1, .node = 1, .term = 5};
	assert_int_equal(ballot_create(&w->ballot, w->dir_fd), 0);
	w->m.io = (struct raft_io){
		.start = disk_start,
		.append = disk_append,
		.truncate = disk_truncate,
		.snapshot_put = disk_put,
		.send = disk_send,
		.time = disk_time,
		.close = disk_close,
	};
	w->raft.current_term = 5;
	w->raft.state = RAFT_FOLLOWER;
	w->sound = true;
	w->now = 1000;
	membrane_init(&w->m, &w->raft, &w->ballot, &events);
	assert_int_equal(w->m.io.start(&w->m.io, 200, on_tick, on_recv), 0);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char path[128];

	membrane_free(&w->m);
	ballot_close(&w->ballot);
	(void)close(w->dir_fd);
	(void)snprintf(path, sizeof(path), "%s/ballot", w->dir);
	(void)unlink(path);
	assert_int_equal(rmdir(w->dir), 0);
	free(w->raft.log.entries);
	free(w);
	return 0;
}

/* A log of entries 1..n with these terms. */
static void log_make(struct world *w, const raft_term *terms, unsigned n)
{
	w->raft.log.entries = mem_zalloc((n + 1) * sizeof(struct raft_entry));
	w->raft.log.size = n + 1;
	w->raft.log.back = n;
	for (unsigned i = 0; i < n; i++)
		w->raft.log.entries[i].term = terms[i];
	w->raft.last_stored = n;
}

static bool passes(struct world *w, struct raft_message *msg)
{
	unsigned before = w->received;

	msg->server_id = 2;
	msg->server_address = "two";
	w->recv(&w->m.io, msg);
	return w->received == before + 1;
}

/* Raft dissertation 3.6.2: entries of earlier terms are not committed by counting. */
static void test_results(void **state)
{
	static const struct {
		unsigned short role;
		raft_term term;
		raft_index rejected;
		raft_index stored;
		raft_term own_term;
		bool passes;
		const char *what;
	} cases[] = {
		{RAFT_LEADER, 5, 0, 9, 0, false, "no entry of this leadership yet"},
		{RAFT_LEADER, 5, 0, 9, 4, false, "only one of an earlier leadership"},
		{RAFT_LEADER, 5, 0, 9, 5, false, "own entry not on disk"},
		{RAFT_LEADER, 5, 0, 10, 5, true, "own entry on disk"},
		{RAFT_LEADER, 5, 3, 9, 5, true, "a rejection is needed to find the common part"},
		{RAFT_LEADER, 6, 0, 9, 5, true, "a higher term ends the leadership"},
		{RAFT_FOLLOWER, 5, 0, 9, 0, true, "not a leader"},
	};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct raft_message msg = {.type = RAFT_IO_APPEND_ENTRIES_RESULT};

		w->raft.state = cases[i].role;
		w->raft.last_stored = cases[i].stored;
		w->m.own_term = cases[i].own_term;
		w->m.own_first = 10;
		msg.append_entries_result.term = cases[i].term;
		msg.append_entries_result.rejected = cases[i].rejected;
		if (passes(w, &msg) != cases[i].passes)
			fail_msg("%s", cases[i].what);
	}
}

static struct raft_message entries_from(raft_term term, raft_index prev, raft_term prev_term,
					raft_term entry_term)
{
	struct raft_message msg = {.type = RAFT_IO_APPEND_ENTRIES};
	struct raft_entry *entry = mem_zalloc(sizeof(*entry));

	entry->term = entry_term;
	msg.append_entries.term = term;
	msg.append_entries.prev_log_index = prev;
	msg.append_entries.prev_log_term = prev_term;
	msg.append_entries.entries = entry;
	msg.append_entries.n_entries = 1;
	return msg;
}

/* A conflict must wait while a snapshot is written or the log is being cut. */
static void test_conflicts(void **state)
{
	static const raft_term terms[] = {1, 2, 2, 4};
	static const struct {
		raft_index prev;
		raft_term prev_term, term;
		bool conflict;
	} cases[] = {
		{4, 4, 5, false}, /* new */
		{3, 2, 4, false}, /* known */
		{3, 2, 5, true},  {1, 1, 3, true},
		{2, 1, 3, false}, /* rejected: the entry before does not match */
		{9, 4, 5, false}, /* rejected: not that far */
	};
	struct world *w = *state;
	struct raft_snapshot snapshot = {0};
	struct raft_io_snapshot_put put;

	log_make(w, terms, 4);
	for (unsigned busy = 0; busy < 3; busy++) {
		if (busy == 1)
			assert_int_equal(w->m.io.snapshot_put(&w->m.io, 100, &put, &snapshot, NULL),
					 0);
		if (busy == 2) {
			w->m.put.user = NULL;
			assert_int_equal(w->m.io.truncate(&w->m.io, 4), 0);
			assert_int_equal(w->ballot.cut, 4);
		}
		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			struct raft_message msg =
				entries_from(5, cases[i].prev, cases[i].prev_term, cases[i].term);
			bool expected = busy == 0 || !cases[i].conflict;
			bool passed = passes(w, &msg);

			if (passed)
				free(msg.append_entries.entries);
			if (passed != expected)
				fail_msg("busy %u, case %zu", busy, i);
		}
	}
}

static void test_two_leaders(void **state)
{
	struct world *w = *state;
	struct raft_message msg = entries_from(5, 0, 0, 5);

	w->raft.state = RAFT_LEADER;
	assert_false(passes(w, &msg));
	assert_int_equal(w->m.error, -EBADMSG);
	assert_non_null(strstr(w->m.message, "member 2"));
}

/* While a leader's snapshot is installed: no election, no call to lead, no damaged one. */
static void test_installing(void **state)
{
	struct world *w = *state;
	struct raft_message msg = {.type = RAFT_IO_TIMEOUT_NOW};
	struct raft_message install = {.type = RAFT_IO_INSTALL_SNAPSHOT};
	struct raft_snapshot snapshot = {.index = 77};
	struct raft_io_snapshot_put put;

	assert_true(passes(w, &msg));
	w->tick(&w->m.io);
	assert_int_equal(w->ticked, 1);
	assert_true(passes(w, &install));
	w->sound = false;
	assert_false(passes(w, &install));
	assert_int_equal(w->m.io.snapshot_put(&w->m.io, 0, &put, &snapshot, NULL), 0);
	assert_int_equal(w->ballot.install, 77);
	assert_false(passes(w, &msg));
	w->tick(&w->m.io);
	assert_int_equal(w->ticked, 1);
}

static void on_appended(struct raft_io_append *req, int status)
{
	struct world *w = req->data;

	assert_int_equal(status, 0);
	w->appended++;
}

/* One write at a time; what waits meanwhile becomes the next one. */
static void test_appends(void **state)
{
	struct world *w = *state;
	struct raft_io_append reqs[5];
	struct raft_entry entries[2] = {{.term = 5}, {.term = 5}};

	for (unsigned i = 0; i < 5; i++) {
		reqs[i].data = w;
		assert_int_equal(
			w->m.io.append(&w->m.io, &reqs[i], entries, 1 + i % 2, on_appended), 0);
	}
	assert_int_equal(w->appends, 1);
	assert_false(membrane_quiet(&w->m));
	w->appending_cb(w->appending, 0);
	assert_int_equal(w->appended, 1);
	assert_int_equal(w->appends, 2);
	assert_int_equal(w->entries, 6);
	w->appending_cb(w->appending, 0);
	assert_int_equal(w->appended, 5);
	assert_true(membrane_quiet(&w->m));
}

static void on_closed(struct raft_io *io)
{
	world_of(io)->ran += 1000;
}

static void on_sent(struct raft_io_send *req, int status)
{
	struct world *w = req->data;

	assert_int_not_equal(status, 0);
	w->send_refused++;
}

/* After a failed write the library hears nothing, sends nothing, and is let go at the close. */
static void test_broken(void **state)
{
	struct world *w = *state;
	struct raft_io_append reqs[3];
	struct raft_entry entry = {.term = 5};
	struct raft_message msg = {.type = RAFT_IO_REQUEST_VOTE};
	struct raft_message out = {.server_id = 2, .server_address = "two"};
	struct raft_io_send send = {.data = w};

	for (unsigned i = 0; i < 3; i++) {
		reqs[i].data = w;
		assert_int_equal(w->m.io.append(&w->m.io, &reqs[i], &entry, 1, on_appended), 0);
	}
	w->appending_cb(w->appending, RAFT_NOSPACE);
	assert_int_equal(w->m.error, -ENOSPC);
	assert_int_equal(w->appended, 0);
	assert_int_equal(w->appends, 1);
	assert_false(passes(w, &msg));
	w->tick(&w->m.io);
	assert_int_equal(w->ticked, 0);
	assert_int_equal(w->m.io.set_term(&w->m.io, 9), 0);
	assert_int_equal(w->ballot.term, 5);
	assert_int_equal(w->m.io.send(&w->m.io, &send, &out, on_sent), 0);
	assert_int_equal(w->sent, 0);
	assert_false(membrane_turn(&w->m));
	assert_int_equal(w->send_refused, 1);
	assert_true(membrane_drained(&w->m));
	w->m.io.close(&w->m.io, on_closed);
	assert_int_equal(w->appended, 3);
	assert_true(w->ran >= 1000);
}

/* A send never fails at once, nor without an address, nor without end. */
static void test_sends(void **state)
{
	struct world *w = *state;
	struct raft_message out = {.server_id = 2, .server_address = "two"};
	struct raft_io_send sends[MEMBRANE_SENDS + 1];

	w->send_status = RAFT_IOERR;
	sends[0].data = w;
	assert_int_equal(w->m.io.send(&w->m.io, &sends[0], &out, on_sent), 0);
	assert_int_equal(w->send_refused, 0);
	assert_false(membrane_turn(&w->m));
	assert_int_equal(w->send_refused, 1);
	w->send_status = 0;
	out.server_address = NULL;
	assert_int_equal(w->m.io.send(&w->m.io, &sends[0], &out, on_sent), 0);
	assert_false(membrane_turn(&w->m));
	assert_int_equal(w->send_refused, 2);
	assert_int_equal(w->sent, 0);
	out.server_address = "two";
	for (unsigned i = 0; i < MEMBRANE_SENDS + 1; i++) {
		sends[i].data = w;
		assert_int_equal(w->m.io.send(&w->m.io, &sends[i], &out, NULL), 0);
	}
	assert_int_equal(w->sent, MEMBRANE_SENDS);
	assert_false(membrane_turn(&w->m));
	/* One comes back: there is room for one. */
	w->sending_cb(w->sends[MEMBRANE_SENDS - 1], 0);
	assert_int_equal(w->m.io.send(&w->m.io, &sends[0], &out, NULL), 0);
	assert_int_equal(w->sent, MEMBRANE_SENDS + 1);
	for (unsigned i = 0; i < w->sent; i++)
		if (i != MEMBRANE_SENDS - 1)
			w->sending_cb(w->sends[i], 0);
}

/* A disk that does not answer; time in which the process was frozen does not count. */
static void test_silent_disk(void **state)
{
	struct world *w = *state;
	struct raft_io_append req = {.data = w};
	struct raft_entry entry = {.term = 5};

	assert_false(membrane_turn(&w->m));
	assert_int_equal(w->m.io.append(&w->m.io, &req, &entry, 1, on_appended), 0);
	w->now += 100000;
	assert_false(membrane_turn(&w->m));
	assert_int_equal(w->m.error, 0);
	assert_false(membrane_drained(&w->m));
	w->m.draining = false;
	for (unsigned i = 0; i < 60; i++) {
		w->now += 200;
		assert_false(membrane_turn(&w->m));
	}
	assert_int_equal(w->m.error, -ETIMEDOUT);
	assert_true(membrane_drained(&w->m));
	assert_true(membrane_stuck(&w->m));
	w->appending_cb(w->appending, 0);
	assert_int_equal(w->appended, 0);
	w->m.io.close(&w->m.io, on_closed);
	assert_int_equal(w->appended, 1);
}

/* The cut is remembered until the entries behind it are on disk. */
static void test_cut(void **state)
{
	struct world *w = *state;
	struct raft_io_append reqs[2] = {{.data = w}, {.data = w}};
	struct raft_entry entry = {.term = 5};

	assert_int_equal(w->m.io.append(&w->m.io, &reqs[0], &entry, 1, on_appended), 0);
	assert_int_equal(w->m.io.truncate(&w->m.io, 3), 0);
	assert_int_equal(w->truncates, 1);
	assert_int_equal(w->ballot.cut, 3);
	w->appending_cb(w->appending, 0);
	assert_int_equal(w->ballot.cut, 3);
	assert_int_equal(w->m.io.append(&w->m.io, &reqs[1], &entry, 1, on_appended), 0);
	w->appending_cb(w->appending, 0);
	assert_int_equal(w->ballot.cut, 0);
	assert_int_equal(w->appended, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_results),    TEST(test_conflicts),   TEST(test_two_leaders),
		TEST(test_installing), TEST(test_appends),     TEST(test_broken),
		TEST(test_sends),      TEST(test_silent_disk), TEST(test_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
