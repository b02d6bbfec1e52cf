/* How a proposal flows:
 *
 *   engine_propose  ->  queued  ->  turn: one raft_apply for all  ->  in_log  ->  apply, in order
 *                                                                                     |
 *   done  <-  next turn  <-  answers  <------------------------------------------------
 *
 * Nothing is called back from inside a call into the engine, and the library is never called from
 * inside its own callbacks: both happen in `turn`, which runs once per iteration of the loop,
 * before it sleeps. */
#include "cluster/engine.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <raft.h>
#include <raft/uv.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cluster/ballot.h"
#include "cluster/limits.h"
#include "cluster/logcheck.h"
#include "cluster/membrane.h"
#include "cluster/segment.h"
#include "cluster/parcel.h"
#include "lib/list.h"
#include "lib/mem.h"

/* Why these numbers: docs/decisions/0005-raft-engine.md. */
enum {
	HEARTBEAT_MS = 100, /* a writer at a follower waits for the next one */
	ELECTION_MS = 800, /* with what follows it, shorter than what is left of a lease */
	INSTALL_MS = 10000, /* a snapshot that is not installed by then is sent again */
	CATCH_UP_MS = 60000, /* a board that is promoted gets this long per round */
	PROMOTE_SILENT_MS = 15000, /* longer than INSTALL_MS: who takes a snapshot is silent, too */
	RECONNECT_MS = 1000,
	SNAPSHOT_ENTRIES = 4096, /* a snapshot at least this often .. */
	SNAPSHOT_BYTES = 16 << 20, /* .. and when the log in memory has grown to this */
	TRAILING_ENTRIES = 2048,
	TRAILING_MIN = 64,
	TRAILING_BYTES = 8 << 20,
	SNAPSHOT_RETRY_MS = 60000,
	BATCH_ENTRIES = 256,
	BATCH_BYTES = 1 << 20,
	SPACE_FLOOR = 3 * SEGMENT_SIZE,
	SPACE_START = 2 * SEGMENT_SIZE,
	SPACE_CHECK_MS = 1000,
	HANDOVER_MS = 10000,
	STRANGER_MS = 10000, /* who is not a member is dialled only this long after its last word */
	MESSAGE_SIZE = 512,
};

struct proposal {
	struct list link;
	engine_done done;
	void *arg;
	uint8_t *entry; /* until it is the library's */
	size_t size;
	raft_index index;
	int status;
	void *result;
};

struct batch {
	struct raft_apply req;
	struct engine *e;
};

enum member_kind { MEMBER_ADD, MEMBER_PROMOTE, MEMBER_REMOVE, MEMBER_TRANSFER };

struct member_request {
	struct list link;
	struct engine *e;
	enum member_kind kind;
	uint64_t id;
	char address[sizeof(((struct engine_member *)0)->address)];
	engine_member_done done; /* NULL: the engine's own */
	void *arg;
	int status;
	uint64_t begun_ms; /* loop time */
	bool given_up; /* a promotion, by our owner */
	union {
		struct raft_change change;
		struct raft_transfer transfer;
	};
};

enum dial_state { DIAL_NEW, DIAL_ASKED, DIAL_ANSWERED, DIAL_GIVEN_UP };

struct engine_dial {
	struct list link;
	struct engine *e;
	struct raft_uv_connect *req;
	raft_uv_connect_cb cb;
	enum dial_state state;
	uint64_t id;
	char *address;
	int fd; /* once answered: the socket or a negative errno */
};

struct engine {
	uv_loop_t *loop;
	uint64_t id;
	char *dir;
	int dir_fd;
	int lock_fd;
	struct engine_events events;
	struct ballot ballot;
	struct membrane membrane;
	struct raft raft;
	struct raft_fsm fsm;
	struct raft_uv_transport transport;
	raft_uv_accept_cb accept; /* NULL: not listening */
	uv_prepare_t prepare;
	uv_idle_t idle; /* active while there is work for the next turn */

	struct list queued;
	struct list in_log;
	struct list answers;
	struct list members; /* requests to be begun */
	struct list member_answers;
	struct list dials;
	struct member_request *changing;
	struct member_request *transferring;

	enum engine_state state; /* as reported */
	uint64_t term;
	uint64_t leader;
	raft_term noop_term; /* the last own term that has its first entry */
	bool started;
	bool failed;

	uint64_t log_bytes; /* applied since the last snapshot */
	uint64_t log_entries;
	uint64_t snapshot_after_ms;
	uint64_t space_checked_ms;
	bool space_low;
	uint64_t handover_ms;

	bool closing;
	bool library_closing;
	bool library_closed;
	bool abandoned; /* the library cannot be closed: its memory and the lock stay */
	void (*closed)(void *arg);
	void *closed_arg;
};

/* --- memory of the library: never fails (lib/mem.h); all but large pieces are zeroed, since
 * the library writes and sends bytes that it has not filled (F10). --- */

enum { HEAP_ZEROED = 128 << 10 };

static void *heap_malloc(void *data, size_t size)
{
	(void)data;
	return size <= HEAP_ZEROED ? mem_zalloc(size) : mem_alloc(size);
}

static void heap_free(void *data, void *ptr)
{
	(void)data;
	free(ptr);
}

static void *heap_calloc(void *data, size_t count, size_t size)
{
	(void)data;
	if (size != 0 && count > SIZE_MAX / size)
		abort();
	return mem_zalloc(count * size);
}

static void *heap_realloc(void *data, void *ptr, size_t size)
{
	(void)data;
	return mem_realloc(ptr, size);
}

static void *heap_aligned_alloc(void *data, size_t alignment, size_t size)
{
	void *ptr;

	(void)data;
	if (posix_memalign(&ptr, alignment, size) != 0)
		abort();
	return ptr;
}

static void heap_aligned_free(void *data, size_t alignment, void *ptr)
{
	(void)data;
	(void)alignment;
	free(ptr);
}

static void heap_install(void)
{
	static struct raft_heap heap = {
		.malloc = heap_malloc,
		.free = heap_free,
		.calloc = heap_calloc,
		.realloc = heap_realloc,
		.aligned_alloc = heap_aligned_alloc,
		.aligned_free = heap_aligned_free,
	};

	raft_heap_set(&heap);
}

/* --- small questions --- */

static bool is_leader(const struct engine *e)
{
	return e->started && e->membrane.error == 0 && e->raft.state == RAFT_LEADER;
}

static void wake(struct engine *e);

static void answer(struct engine *e, struct proposal *p, int status)
{
	list_remove(&p->link);
	p->status = status;
	list_append(&e->answers, &p->link);
	wake(e);
}

static void answer_all(struct engine *e, struct list *proposals, int status)
{
	while (!list_empty(proposals))
		answer(e, list_entry(proposals->next, struct proposal, link), status);
}

static void member_answer(struct member_request *r, int status)
{
	r->status = status;
	list_append(&r->e->member_answers, &r->link);
	wake(r->e);
}

/* --- the model as the library sees it --- */

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **ret_result)
{
	struct engine *e = fsm->data;
	raft_index index = e->raft.last_applied + 1;
	struct entry_head head;
	struct proposal *p;
	void *result = NULL;
	int rv;

	*ret_result = NULL;
	if (e->membrane.error != 0)
		return RAFT_SHUTDOWN;
	if (buf->len >= sizeof(head))
		memcpy(&head, buf->base, sizeof(head));
	if (buf->len < sizeof(head) || le32toh(head.magic) != ENTRY_MAGIC ||
	    le32toh(head.length) > buf->len - sizeof(head) || le64toh(head.index) != index) {
		membrane_break(&e->membrane, -EBADMSG,
			       "entry %llu of the log in %s is not what was written there: remove "
			       "this board from the cluster, empty the directory and join it anew",
			       index, e->dir);
		return RAFT_CORRUPT;
	}
	e->log_entries++;
	e->log_bytes += buf->len;
	if (e->log_bytes >= SNAPSHOT_BYTES)
		raft_set_snapshot_threshold(&e->raft, 1);
	if (head.length == 0)
		return 0;
	rv = e->events.apply(e->events.arg, index, (const uint8_t *)buf->base + sizeof(head),
			     le32toh(head.length), &result);
	if (rv != 0) {
		membrane_break(&e->membrane, rv, "the model refused entry %llu of the log", index);
		return RAFT_SHUTDOWN;
	}
	p = list_empty(&e->in_log) ? NULL : list_entry(e->in_log.next, struct proposal, link);
	if (p == NULL || p->index != index) {
		if (result != NULL)
			e->events.drop(e->events.arg, result);
		return 0;
	}
	p->result = result;
	answer(e, p, 0);
	return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *ret_bufs[], unsigned *ret_n)
{
	struct engine *e = fsm->data;
	struct raft_buffer *bufs;
	struct buf data = {0};
	uint8_t *packed;
	uint64_t trailing;
	int rv;

	/* A snapshot carries the list of members: it must be a committed one (F6). Two barriers at
	 * once lose one (F7). Either passes: the library asks again at the next entry. */
	if (e->membrane.error != 0 || e->raft.configuration_uncommitted_index != 0 ||
	    e->membrane.cutting || uv_now(e->loop) < e->snapshot_after_ms)
		return RAFT_BUSY;
	rv = e->events.snapshot(e->events.arg, &data);
	if (rv != 0) {
		buf_free(&data);
		membrane_break(&e->membrane, rv, "the model cannot be written down");
		return RAFT_SHUTDOWN;
	}
	trailing = e->log_entries == 0 ? TRAILING_ENTRIES
				       : TRAILING_BYTES / (e->log_bytes / e->log_entries + 1);
	if (trailing > TRAILING_ENTRIES)
		trailing = TRAILING_ENTRIES;
	if (trailing < TRAILING_MIN)
		trailing = TRAILING_MIN;
	raft_set_snapshot_trailing(&e->raft, (unsigned)trailing);
	raft_set_snapshot_threshold(&e->raft, SNAPSHOT_ENTRIES);
	e->log_bytes = 0;
	e->log_entries = 0;
	bufs = mem_array(1, sizeof(*bufs));
	bufs[0].len = parcel_pack(e->raft.last_applied, &data, &packed);
	bufs[0].base = packed;
	buf_free(&data);
	*ret_bufs = bufs;
	*ret_n = 1;
	return 0;
}

static bool on_sound(void *arg, const void *data, size_t len)
{
	(void)arg;
	return parcel_sound(data, len);
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
	struct engine *e = fsm->data;
	struct buf model = {0};
	int rv = parcel_unpack(buf->base, buf->len, &model);

	if (rv == 0)
		rv = e->events.restore(e->events.arg, model.data, model.len);
	buf_free(&model);
	if (rv != 0) {
		membrane_break(&e->membrane, rv, "the model cannot be read from a snapshot in %s",
			       e->dir);
		return RAFT_CORRUPT;
	}
	raft_free(buf->base);
	e->log_bytes = 0;
	e->log_entries = 0;
	return 0;
}

static void on_snapshot_failed(void *arg)
{
	struct engine *e = arg;

	e->snapshot_after_ms = uv_now(e->loop) + SNAPSHOT_RETRY_MS;
}

/* --- proposals --- */

static void on_batch(struct raft_apply *req, int status, void *result)
{
	struct batch *b = list_entry(req, struct batch, req);
	struct engine *e = b->e;

	(void)result;
	free(b);
	/* 0: the first entry of the batch is applied; fsm_apply answers each by itself. */
	if (status != 0)
		answer_all(e, &e->in_log, -ECANCELED);
}

static int apply_batch(struct engine *e, const struct raft_buffer *bufs, unsigned n)
{
	struct batch *b = mem_zalloc(sizeof(*b));
	int rv;

	b->e = e;
	rv = raft_apply(&e->raft, &b->req, bufs, n, on_batch);
	if (rv != 0)
		free(b);
	return rv;
}

static uint8_t *entry_new(const uint8_t *data, size_t len, size_t *ret_size)
{
	struct entry_head head = {htole32(ENTRY_MAGIC), htole32((uint32_t)len), 0};
	size_t size = (sizeof(head) + len + 7) & ~(size_t)7;
	uint8_t *entry = mem_alloc(size);

	memset(entry + size - 8, 0, 8);
	memcpy(entry, &head, sizeof(head));
	if (len > 0)
		memcpy(entry + sizeof(head), data, len);
	*ret_size = size;
	return entry;
}

static void entry_set_index(uint8_t *entry, raft_index index)
{
	uint64_t le = htole64(index);

	memcpy(entry + offsetof(struct entry_head, index), &le, sizeof(le));
}

/* The first entry of a leadership, so that what earlier leaders left is committed by it and not
 * by count (F1). */
static void lead(struct engine *e)
{
	struct raft_buffer buf;
	raft_index index = raft_last_index(&e->raft) + 1;

	buf.base = entry_new(NULL, 0, &buf.len);
	entry_set_index(buf.base, index);
	e->membrane.own_first = index;
	e->membrane.own_term = e->raft.current_term;
	e->noop_term = e->raft.current_term;
	if (apply_batch(e, &buf, 1) != 0)
		free(buf.base);
}

static void on_ran(void *arg)
{
	struct engine *e = arg;

	if (!e->started || e->closing)
		return;
	if (e->raft.state == RAFT_UNAVAILABLE)
		membrane_break(&e->membrane, -EBADMSG,
			       "the log in %s contradicts what the cluster has committed (%s): "
			       "remove this board from the cluster, empty the directory and join "
			       "it anew",
			       e->dir, e->raft.errmsg[0] ? e->raft.errmsg : "no detail");
	if (is_leader(e) && e->noop_term != e->raft.current_term)
		lead(e);
	if (!is_leader(e) && !list_empty(&e->in_log))
		answer_all(e, &e->in_log, -ECANCELED);
	wake(e);
}

static bool space_is_low(struct engine *e)
{
	uint64_t now = uv_now(e->loop);
	struct statvfs fs;

	if (e->space_checked_ms != 0 && now - e->space_checked_ms < SPACE_CHECK_MS)
		return e->space_low;
	e->space_checked_ms = now;
	e->space_low =
		fstatvfs(e->dir_fd, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < SPACE_FLOOR;
	return e->space_low;
}

/* A leader that cannot take writes makes room for one that can. */
static void hand_over(struct engine *e)
{
	uint64_t now = uv_now(e->loop);

	if (e->handover_ms != 0 && now - e->handover_ms < HANDOVER_MS)
		return;
	e->handover_ms = now;
	engine_transfer(e, 0, NULL, NULL);
}

static void flush(struct engine *e)
{
	struct raft_buffer bufs[BATCH_ENTRIES];
	struct list taken;
	size_t bytes = 0;
	unsigned n = 0;

	if (list_empty(&e->queued))
		return;
	if (!is_leader(e) || e->raft.transfer != NULL) {
		answer_all(e, &e->queued, -EAGAIN);
		return;
	}
	if (space_is_low(e)) {
		answer_all(e, &e->queued, -ENOSPC);
		hand_over(e);
		return;
	}
	/* While one batch is being written the next one grows. */
	if (!membrane_quiet(&e->membrane))
		return;
	list_init(&taken);
	list_for_each_safe (pos, &e->queued) {
		struct proposal *p = list_entry(pos, struct proposal, link);

		if (n == BATCH_ENTRIES || (n > 0 && bytes + p->size > BATCH_BYTES))
			break;
		p->index = raft_last_index(&e->raft) + 1 + n;
		entry_set_index(p->entry, p->index);
		bufs[n++] = (struct raft_buffer){p->entry, p->size};
		bytes += p->size;
		list_remove(&p->link);
		list_append(&taken, &p->link);
	}
	if (apply_batch(e, bufs, n) != 0) {
		answer_all(e, &taken, -EAGAIN);
		return;
	}
	while (!list_empty(&taken)) {
		struct proposal *p = list_entry(taken.next, struct proposal, link);

		p->entry = NULL;
		list_remove(&p->link);
		list_append(&e->in_log, &p->link);
	}
}

void engine_propose(struct engine *e, const uint8_t *data, size_t len, engine_done done, void *arg)
{
	struct proposal *p = mem_zalloc(sizeof(*p));

	p->done = done;
	p->arg = arg;
	list_init(&p->link);
	if (e->closing || len > LIMIT_ENTRY || len == 0) {
		answer(e, p, e->closing ? -ECANCELED : len == 0 ? -EINVAL : -EMSGSIZE);
		return;
	}
	p->entry = entry_new(data, len, &p->size);
	list_append(&e->queued, &p->link);
	wake(e);
}

/* --- members --- */

static void on_changed(struct raft_change *req, int status)
{
	struct member_request *r = list_entry(req, struct member_request, change);

	r->e->changing = NULL;
	member_answer(r, membrane_errno(status != 0 && r->given_up ? RAFT_CANCELED : status));
}

static void on_transferred(struct raft_transfer *req)
{
	struct member_request *r = list_entry(req, struct member_request, transfer);
	struct engine *e = r->e;
	bool done = e->raft.state == RAFT_FOLLOWER &&
		    e->raft.follower_state.current_leader.id == req->id;

	e->transferring = NULL;
	member_answer(r, done ? 0 : e->closing ? -ECANCELED : -ETIMEDOUT);
}

static bool promoting(const struct engine *e)
{
	return e->changing != NULL && e->changing->kind == MEMBER_PROMOTE;
}

static int member_begin(struct engine *e, struct member_request *r)
{
	int rv;

	if (e->closing)
		return -ECANCELED;
	if (!is_leader(e))
		return -EAGAIN;
	if (e->transferring != NULL)
		return -EBUSY;
	/* The library promotes and transfers at once: another leader promotes again. */
	if (e->changing != NULL && (r->kind != MEMBER_TRANSFER || !promoting(e)))
		return -EBUSY;
	if (r->kind == MEMBER_REMOVE && r->id == e->id)
		return -EPERM;
	if (r->kind == MEMBER_TRANSFER) {
		e->transferring = r;
		rv = raft_transfer(&e->raft, &r->transfer, r->id, on_transferred);
		if (rv != 0)
			e->transferring = NULL;
		return membrane_errno(rv);
	}
	e->changing = r;
	r->begun_ms = uv_now(e->loop);
	raft_set_max_catch_up_round_duration(&e->raft, CATCH_UP_MS);
	if (r->kind == MEMBER_ADD)
		rv = raft_add(&e->raft, &r->change, r->id, r->address, on_changed);
	else if (r->kind == MEMBER_PROMOTE)
		rv = raft_assign(&e->raft, &r->change, r->id, RAFT_VOTER, on_changed);
	else
		rv = raft_remove(&e->raft, &r->change, r->id, on_changed);
	if (rv != 0)
		e->changing = NULL;
	return membrane_errno(rv);
}

/* The library knows no other way: no round is short enough, so its next tick gives it up. */
static void promotion_end(struct engine *e)
{
	raft_set_max_catch_up_round_duration(&e->raft, 0);
}

void engine_promote_end(struct engine *e)
{
	if (!promoting(e))
		return;
	e->changing->given_up = true;
	promotion_end(e);
}

/* The library would wait for a whole round, and nothing else could be changed meanwhile. */
static void promotion_turn(struct engine *e)
{
	uint64_t heard;

	if (!promoting(e))
		return;
	heard = membrane_heard(&e->membrane, e->changing->id);
	if (heard < e->changing->begun_ms)
		heard = e->changing->begun_ms;
	if (uv_now(e->loop) - heard > PROMOTE_SILENT_MS)
		promotion_end(e);
}

static void members_begin(struct engine *e)
{
	while (!list_empty(&e->members)) {
		struct member_request *r = list_entry(e->members.next, struct member_request, link);
		int rv;

		list_remove(&r->link);
		rv = member_begin(e, r);
		if (rv < 0)
			member_answer(r, rv);
	}
}

static struct member_request *member_request(struct engine *e, enum member_kind kind, uint64_t id,
					     engine_member_done done, void *arg)
{
	struct member_request *r = mem_zalloc(sizeof(*r));

	r->e = e;
	r->kind = kind;
	r->id = id;
	r->done = done;
	r->arg = arg;
	list_append(&e->members, &r->link);
	wake(e);
	return r;
}

void engine_add(struct engine *e, uint64_t id, const char *address, engine_member_done done,
		void *arg)
{
	struct member_request *r = member_request(e, MEMBER_ADD, id, done, arg);
	size_t len = strlen(address);

	if (id == 0 || len == 0 || len >= sizeof(r->address)) {
		list_remove(&r->link);
		member_answer(r, -EINVAL);
		return;
	}
	memcpy(r->address, address, len + 1);
}

void engine_promote(struct engine *e, uint64_t id, engine_member_done done, void *arg)
{
	(void)member_request(e, MEMBER_PROMOTE, id, done, arg);
}

void engine_remove(struct engine *e, uint64_t id, engine_member_done done, void *arg)
{
	(void)member_request(e, MEMBER_REMOVE, id, done, arg);
}

void engine_transfer(struct engine *e, uint64_t id, engine_member_done done, void *arg)
{
	(void)member_request(e, MEMBER_TRANSFER, id, done, arg);
}

/* --- links --- */

static void on_stream_closed(uv_handle_t *handle)
{
	raft_free(handle);
}

/* The library wants a stream that it may close and free itself. */
static uv_stream_t *stream_new(struct engine *e, int fd)
{
	int rv;

	if (uv_guess_handle(fd) == UV_TCP) {
		uv_tcp_t *tcp = raft_malloc(sizeof(*tcp));

		rv = uv_tcp_init(e->loop, tcp);
		assert(rv == 0);
		rv = uv_tcp_open(tcp, fd);
		if (rv == 0)
			return (uv_stream_t *)tcp;
		(void)close(fd);
		uv_close((uv_handle_t *)tcp, on_stream_closed);
		return NULL;
	}
	uv_pipe_t *pipe = raft_malloc(sizeof(*pipe));

	rv = uv_pipe_init(e->loop, pipe, 0);
	assert(rv == 0);
	rv = uv_pipe_open(pipe, fd);
	if (rv == 0)
		return (uv_stream_t *)pipe;
	(void)close(fd);
	uv_close((uv_handle_t *)pipe, on_stream_closed);
	return NULL;
}

static int transport_init(struct raft_uv_transport *t, raft_id id, const char *address)
{
	(void)t;
	(void)id;
	(void)address;
	return 0;
}

static int transport_listen(struct raft_uv_transport *t, raft_uv_accept_cb cb)
{
	struct engine *e = t->impl;

	e->accept = cb;
	return 0;
}

/* The library goes on dialling whoever was a member once (F11). */
static bool worth_dialling(const struct engine *e, uint64_t id, const char *address)
{
	uint64_t heard = membrane_heard(&e->membrane, id);

	for (unsigned i = 0; i < e->raft.configuration.n; i++)
		if (e->raft.configuration.servers[i].id == id &&
		    strcmp(e->raft.configuration.servers[i].address, address) == 0)
			return true;
	return heard != 0 && uv_now(e->loop) - heard < STRANGER_MS;
}

static int transport_connect(struct raft_uv_transport *t, struct raft_uv_connect *req, raft_id id,
			     const char *address, raft_uv_connect_cb cb)
{
	struct engine *e = t->impl;
	struct engine_dial *d;

	if (e->membrane.error != 0 || !worth_dialling(e, id, address))
		return RAFT_NOCONNECTION;
	d = mem_zalloc(sizeof(*d));
	d->e = e;
	d->req = req;
	d->cb = cb;
	d->id = id;
	d->address = mem_strdup(address);
	d->fd = -ECANCELED;
	list_append(&e->dials, &d->link);
	wake(e);
	return 0;
}

static void dial_free(struct engine_dial *d)
{
	list_remove(&d->link);
	free(d->address);
	free(d);
}

static void dials_cancel(struct engine *e)
{
	e->accept = NULL;
	list_for_each_safe (pos, &e->dials) {
		struct engine_dial *d = list_entry(pos, struct engine_dial, link);
		enum dial_state state = d->state;

		if (state == DIAL_ANSWERED && d->fd >= 0)
			(void)close(d->fd);
		if (!e->abandoned)
			d->cb(d->req, NULL, RAFT_CANCELED);
		if (state == DIAL_ASKED) {
			d->state = DIAL_GIVEN_UP;
			e->events.dial_cancel(e->events.arg, d);
		} else {
			dial_free(d);
		}
	}
}

static void transport_close(struct raft_uv_transport *t, raft_uv_transport_close_cb cb)
{
	dials_cancel(t->impl);
	cb(t);
}

static void dials_turn(struct engine *e)
{
	list_for_each_safe (pos, &e->dials) {
		struct engine_dial *d = list_entry(pos, struct engine_dial, link);
		uv_stream_t *stream;

		if (d->state == DIAL_NEW) {
			d->state = DIAL_ASKED;
			e->events.dial(e->events.arg, d, d->id, d->address);
		} else if (d->state == DIAL_ANSWERED) {
			struct raft_uv_connect *req = d->req;
			raft_uv_connect_cb cb = d->cb;

			stream = d->fd < 0 ? NULL : stream_new(e, d->fd);
			dial_free(d);
			cb(req, stream, stream == NULL ? RAFT_NOCONNECTION : 0);
		}
	}
}

static void maybe_closed(struct engine *e);

void engine_dialed(struct engine_dial *d, int fd)
{
	struct engine *e = d->e;

	assert(d->state == DIAL_ASKED || d->state == DIAL_GIVEN_UP);
	if (d->state == DIAL_GIVEN_UP) {
		if (fd >= 0)
			(void)close(fd);
		dial_free(d);
		wake(e);
		return;
	}
	d->state = DIAL_ANSWERED;
	d->fd = fd;
	wake(e);
}

void engine_accept(struct engine *e, uint64_t id, const char *address, int fd)
{
	uv_stream_t *stream;

	if (e->accept == NULL || e->closing || e->membrane.error != 0 || id == 0) {
		(void)close(fd);
		return;
	}
	stream = stream_new(e, fd);
	if (stream != NULL)
		e->accept(&e->transport, id, address, stream);
}

/* --- what the owner sees --- */

enum engine_state engine_state(const struct engine *e)
{
	if (!e->started || e->closing || e->membrane.error != 0)
		return ENGINE_STOPPED;
	switch (e->raft.state) {
	case RAFT_FOLLOWER:
		return ENGINE_FOLLOWER;
	case RAFT_CANDIDATE:
		return ENGINE_CANDIDATE;
	case RAFT_LEADER:
		return ENGINE_LEADER;
	default:
		return ENGINE_STOPPED;
	}
}

uint64_t engine_term(const struct engine *e)
{
	return e->raft.current_term;
}

uint64_t engine_disk_ms(struct engine *e)
{
	return membrane_disk_ms(&e->membrane);
}

int engine_tail(const struct engine *e, engine_visit visit, void *arg)
{
	const struct raft_log *log = &e->raft.log;
	raft_index index = log->offset;
	int rv = 0;

	for (size_t at = log->front; at != log->back && rv == 0; at = (at + 1) % log->size) {
		const struct raft_entry *entry = &log->entries[at];
		struct entry_head head;

		index++;
		if (index <= e->raft.last_applied || entry->type != RAFT_COMMAND ||
		    entry->buf.len < sizeof(head))
			continue;
		memcpy(&head, entry->buf.base, sizeof(head));
		if (le32toh(head.magic) != ENTRY_MAGIC ||
		    le32toh(head.length) > entry->buf.len - sizeof(head))
			return -EBADMSG;
		if (head.length != 0)
			rv = visit(arg, index, (const uint8_t *)entry->buf.base + sizeof(head),
				   le32toh(head.length));
	}
	return rv;
}

uint64_t engine_leader(const struct engine *e)
{
	switch (engine_state(e)) {
	case ENGINE_LEADER:
		return e->id;
	case ENGINE_FOLLOWER:
		return e->raft.follower_state.current_leader.id;
	default:
		return 0;
	}
}

uint64_t engine_applied(const struct engine *e)
{
	return e->raft.last_applied;
}

unsigned engine_members(const struct engine *e, struct engine_member *members, unsigned max)
{
	const struct raft_configuration *c = &e->raft.configuration;

	for (unsigned i = 0; i < c->n && i < max; i++) {
		members[i].id = c->servers[i].id;
		(void)snprintf(members[i].address, sizeof(members[i].address), "%s",
			       c->servers[i].address);
		members[i].role = c->servers[i].role == RAFT_VOTER ? ENGINE_VOTER : ENGINE_SPARE;
	}
	return c->n < max ? c->n : max;
}

static void report(struct engine *e)
{
	enum engine_state state = engine_state(e);
	uint64_t term = engine_term(e);
	uint64_t leader = engine_leader(e);

	if (e->closing)
		return;
	if (state != e->state || term != e->term || leader != e->leader) {
		e->state = state;
		e->term = term;
		e->leader = leader;
		e->events.changed(e->events.arg, state, term, leader);
	}
	if (e->membrane.error != 0 && !e->failed) {
		e->failed = true;
		e->events.failed(e->events.arg, e->membrane.error, e->membrane.message);
	}
}

static void answers_turn(struct engine *e)
{
	struct list answers, member_answers;

	/* Answers to what these callbacks begin are for the next turn. */
	list_init(&answers);
	list_init(&member_answers);
	while (!list_empty(&e->answers)) {
		struct list *item = e->answers.next;

		list_remove(item);
		list_append(&answers, item);
	}
	while (!list_empty(&e->member_answers)) {
		struct list *item = e->member_answers.next;

		list_remove(item);
		list_append(&member_answers, item);
	}
	while (!list_empty(&answers)) {
		struct proposal *p = list_entry(answers.next, struct proposal, link);

		list_remove(&p->link);
		p->done(p->arg, p->status, p->status == 0 ? p->index : 0, p->result);
		free(p->entry);
		free(p);
	}
	while (!list_empty(&member_answers)) {
		struct member_request *r =
			list_entry(member_answers.next, struct member_request, link);

		list_remove(&r->link);
		if (r->done != NULL)
			r->done(r->arg, r->status);
		free(r);
	}
}

/* --- the turn --- */

static void on_idle(uv_idle_t *handle)
{
	(void)handle; /* being active is all: the loop does not sleep before the next turn */
}

static void wake(struct engine *e)
{
	if (e->started && !uv_is_closing((uv_handle_t *)&e->idle))
		(void)uv_idle_start(&e->idle, on_idle);
}

static void on_library_closed(struct raft *r);

static void library_close(struct engine *e)
{
	e->library_closing = true;
	answer_all(e, &e->queued, -ECANCELED);
	if (membrane_stuck(&e->membrane)) {
		e->abandoned = true;
		dials_cancel(e);
		e->library_closed = true;
		wake(e);
	} else {
		raft_close(&e->raft, on_library_closed);
	}
	answer_all(e, &e->in_log, -ECANCELED);
	if (e->changing != NULL)
		on_changed(&e->changing->change, RAFT_CANCELED);
	if (e->transferring != NULL)
		on_transferred(&e->transferring->transfer);
}

static void turn(uv_prepare_t *handle)
{
	struct engine *e = handle->data;

	(void)uv_idle_stop(&e->idle);
	if (!e->library_closed && membrane_turn(&e->membrane))
		wake(e);
	if (e->closing && !e->library_closing && membrane_drained(&e->membrane))
		library_close(e);
	if (e->membrane.error != 0 && !e->closing) {
		answer_all(e, &e->in_log, -ECANCELED);
		answer_all(e, &e->queued, -EAGAIN);
	}
	promotion_turn(e);
	members_begin(e);
	if (!e->closing)
		dials_turn(e);
	flush(e);
	report(e);
	answers_turn(e);
	maybe_closed(e);
}

/* --- begin and end --- */

static void files_close(struct engine *e)
{
	ballot_close(&e->ballot);
	if (e->lock_fd >= 0)
		(void)close(e->lock_fd);
	if (e->dir_fd >= 0)
		(void)close(e->dir_fd);
	e->lock_fd = -1;
	e->dir_fd = -1;
}

static void engine_free(struct engine *e)
{
	files_close(e);
	free(e->dir);
	free(e);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct engine *e = handle->data;

	e->closed(e->closed_arg);
	if (!e->abandoned)
		engine_free(e);
}

static void on_idle_closed(uv_handle_t *handle)
{
	struct engine *e = handle->data;

	uv_close((uv_handle_t *)&e->prepare, on_handle_closed);
}

static void maybe_closed(struct engine *e)
{
	if (!e->library_closed || !list_empty(&e->dials) || !list_empty(&e->answers) ||
	    !list_empty(&e->member_answers) || uv_is_closing((uv_handle_t *)&e->idle))
		return;
	uv_close((uv_handle_t *)&e->idle, on_idle_closed);
}

static void library_free(struct engine *e)
{
	raft_uv_close(&e->membrane.io);
	membrane_free(&e->membrane);
}

static void on_library_closed(struct raft *r)
{
	struct engine *e = r->data;

	library_free(e);
	e->library_closed = true;
	wake(e);
}

static void on_start_undone(struct raft *r)
{
	struct engine *e = r->data;

	library_free(e);
	engine_free(e);
}

void engine_close(struct engine *e, void (*closed)(void *arg), void *arg)
{
	assert(!e->closing);
	e->closing = true;
	e->closed = closed;
	e->closed_arg = arg;
	wake(e);
}

/* --- the directory --- */

static int explain(char *message, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static int explain(char *message, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(message, MESSAGE_SIZE, format, args);
	va_end(args);
	return error;
}

static int dir_open(struct engine *e, char *message)
{
	if (mkdir(e->dir, 0700) < 0 && errno != EEXIST)
		return explain(message, -errno, "cannot make the directory %s: %s", e->dir,
			       strerror(errno));
	e->dir_fd = open(e->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (e->dir_fd < 0)
		return explain(message, -errno, "cannot open the directory %s: %s", e->dir,
			       strerror(errno));
	e->lock_fd = openat(e->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (e->lock_fd < 0)
		return explain(message, -errno, "cannot write in the directory %s: %s", e->dir,
			       strerror(errno));
	if (flock(e->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return explain(message, errno == EWOULDBLOCK ? -EBUSY : -errno,
			       "another process uses %s: stop it first", e->dir);
	return 0;
}

static int ballot_open(struct engine *e, char *message)
{
	int rv = ballot_load(&e->ballot, e->dir_fd);

	if (rv == -EBADMSG)
		return explain(message, rv,
			       "%s/ballot is damaged: remove this board from the cluster, empty "
			       "the directory and join it anew",
			       e->dir);
	if (rv < 0 && rv != -ENOENT)
		return explain(message, rv, "cannot read %s/ballot: %s", e->dir, strerror(-rv));
	if (rv == 0 && e->ballot.node != e->id)
		return explain(message, -EXDEV,
			       "%s is the log of board %llu, and this is board %llu: give each "
			       "board a directory of its own",
			       e->dir, (unsigned long long)e->ballot.node,
			       (unsigned long long)e->id);
	return rv;
}

static int ballot_begin(struct engine *e, uint64_t term, char *message)
{
	int rv;

	e->ballot = (struct ballot){.fd = -1, .node = e->id, .term = term};
	rv = ballot_create(&e->ballot, e->dir_fd);
	if (rv < 0)
		return explain(message, rv, "cannot write %s/ballot: %s", e->dir, strerror(-rv));
	return 0;
}

static struct engine *engine_new(uv_loop_t *loop, const char *dir, uint64_t id)
{
	struct engine *e = mem_zalloc(sizeof(*e));

	heap_install();
	e->loop = loop;
	e->id = id;
	e->dir = mem_strdup(dir);
	e->dir_fd = -1;
	e->lock_fd = -1;
	e->ballot.fd = -1;
	list_init(&e->queued);
	list_init(&e->in_log);
	list_init(&e->answers);
	list_init(&e->members);
	list_init(&e->member_answers);
	list_init(&e->dials);
	e->transport = (struct raft_uv_transport){
		.impl = e,
		.init = transport_init,
		.listen = transport_listen,
		.connect = transport_connect,
		.close = transport_close,
	};
	e->fsm = (struct raft_fsm){
		.version = 1,
		.data = e,
		.apply = fsm_apply,
		.snapshot = fsm_snapshot,
		.restore = fsm_restore,
	};
	return e;
}

/* Sets the library up to the point where it can be started. It takes no memory that
 * library_free does not give back. */
static int library_init(struct engine *e, const char *address, bool wrapped, char *message)
{
	const struct membrane_events events = {
		.arg = e,
		.ran = on_ran,
		.sound = on_sound,
		.snapshot_failed = on_snapshot_failed,
	};
	struct raft_io *io = &e->membrane.io;
	int rv;

	rv = raft_uv_init(io, e->loop, e->dir, &e->transport);
	if (rv != 0)
		return explain(message, membrane_errno(rv), "cannot use %s: %s", e->dir,
			       io->errmsg);
	raft_uv_set_segment_size(io, SEGMENT_SIZE);
	raft_uv_set_auto_recovery(io, false);
	(void)raft_uv_set_snapshot_compression(io, false);
	raft_uv_set_connect_retry_delay(io, RECONNECT_MS);
	if (wrapped)
		membrane_init(&e->membrane, &e->raft, &e->ballot, &events);
	rv = raft_init(&e->raft, io, &e->fsm, e->id, address);
	if (rv != 0) {
		raft_uv_close(io);
		return explain(message, membrane_errno(rv), "cannot use %s: %s", e->dir,
			       io->errmsg);
	}
	e->raft.data = e;
	raft_set_heartbeat_timeout(&e->raft, HEARTBEAT_MS);
	raft_set_election_timeout(&e->raft, ELECTION_MS);
	raft_set_install_snapshot_timeout(&e->raft, INSTALL_MS);
	raft_set_max_catch_up_round_duration(&e->raft, CATCH_UP_MS);
	raft_set_snapshot_threshold(&e->raft, SNAPSHOT_ENTRIES);
	raft_set_snapshot_trailing(&e->raft, TRAILING_ENTRIES);
	raft_set_pre_vote(&e->raft, true);
	return 0;
}

bool engine_exists(const char *dir)
{
	char *path = mem_printf("%s/ballot", dir);
	bool exists = access(path, F_OK) == 0;

	free(path);
	return exists;
}

static int bootstrap_files(struct engine *e, const char *address, char *message)
{
	struct raft_configuration members;
	int rv;

	raft_configuration_init(&members);
	rv = raft_configuration_add(&members, e->id, address, RAFT_VOTER);
	if (rv == 0)
		rv = raft_bootstrap(&e->raft, &members);
	raft_configuration_close(&members);
	if (rv != 0)
		return explain(message, membrane_errno(rv), "cannot make a log in %s: %s", e->dir,
			       raft_errmsg(&e->raft));
	/* The ballot makes it a log; it has the last word on the term from here on. */
	if (unlinkat(e->dir_fd, "metadata1", 0) < 0)
		return -errno;
	return ballot_begin(e, 1, message);
}

int engine_bootstrap(const char *dir, uint64_t id, const char *address)
{
	char message[MESSAGE_SIZE];
	uv_loop_t loop;
	struct engine *e;
	int rv;

	if (engine_exists(dir))
		return -EEXIST;
	rv = uv_loop_init(&loop);
	if (rv < 0)
		return rv;
	e = engine_new(&loop, dir, id);
	rv = dir_open(e, message);
	if (rv == 0)
		rv = logcheck_discard_bootstrap(e->dir_fd);
	if (rv == 0)
		rv = library_init(e, address, false, message);
	if (rv == 0) {
		rv = bootstrap_files(e, address, message);
		raft_close(&e->raft, on_start_undone);
	} else {
		engine_free(e);
	}
	(void)uv_run(&loop, UV_RUN_DEFAULT);
	(void)uv_loop_close(&loop);
	return rv;
}

static int start_files(struct engine *e, char *message)
{
	struct logcheck check;
	struct statvfs fs;
	int rv;

	rv = dir_open(e, message);
	if (rv < 0)
		return rv;
	rv = ballot_open(e, message);
	if (rv == -ENOENT) {
		rv = logcheck_empty(e->dir_fd);
		if (rv < 0)
			return explain(
				message, -EBADMSG,
				"%s holds a log but not the file ballot that belongs to it: "
				"remove this board from the cluster, empty the directory and "
				"join it anew",
				e->dir);
		rv = ballot_begin(e, 0, message);
	}
	if (rv < 0)
		return rv;
	if (fstatvfs(e->dir_fd, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < SPACE_START)
		return explain(message, -ENOSPC,
			       "%s has less than %u MiB free: make room on that file system",
			       e->dir, SPACE_START >> 20);
	check = (struct logcheck){
		.dir = e->dir,
		.dir_fd = e->dir_fd,
		.cut = e->ballot.cut,
		.install = e->ballot.install,
	};
	rv = logcheck_run(&check);
	if (rv < 0)
		return explain(message, rv, "%s", check.message);
	if (e->ballot.cut == 0 && e->ballot.install == 0)
		return 0;
	e->ballot.cut = 0;
	e->ballot.install = 0;
	rv = ballot_save(&e->ballot);
	if (rv < 0)
		return explain(message, rv, "cannot write %s/ballot: %s", e->dir, strerror(-rv));
	return 0;
}

int engine_start(uv_loop_t *loop, const char *dir, uint64_t id, const char *address,
		 const struct engine_events *events, struct engine **ret, const char **ret_message)
{
	static _Thread_local char message[MESSAGE_SIZE];
	struct engine *e = engine_new(loop, dir, id);
	int rv;

	message[0] = '\0';
	*ret_message = message;
	e->events = *events;
	rv = start_files(e, message);
	if (rv == 0)
		rv = library_init(e, address, true, message);
	if (rv < 0) {
		engine_free(e);
		return rv;
	}
	rv = raft_start(&e->raft);
	if (rv != 0 || e->membrane.error != 0) {
		rv = e->membrane.error != 0
			     ? explain(message, e->membrane.error, "%s", e->membrane.message)
			     : explain(message, membrane_errno(rv),
				       "cannot load the log in %s (%s)", dir,
				       raft_errmsg(&e->raft));
		files_close(e);
		raft_close(&e->raft, on_start_undone);
		return rv;
	}
	membrane_started(&e->membrane);
	(void)uv_prepare_init(loop, &e->prepare);
	(void)uv_idle_init(loop, &e->idle);
	e->prepare.data = e;
	e->idle.data = e;
	(void)uv_prepare_start(&e->prepare, turn);
	e->started = true;
	on_ran(e);
	*ret = e;
	return 0;
}
