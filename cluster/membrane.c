#include "cluster/membrane.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

/* Entries that wait together for the disk become one write, up to this size. */
enum { FLIGHT_BYTES = 1 << 20 };

/* A card may pause for seconds. Beyond this it is broken, and a leader that cannot write blocks
 * the whole cluster. */
enum { FLIGHT_MS = 10000, TICK_MAX_MS = 500, CLOSED_TURNS = 3, DISK_WINDOW_MS = 60000 };

struct append {
	struct list link;
	struct raft_io_append *user;
	raft_io_append_cb cb;
	const struct raft_entry *entries;
	unsigned n;
	size_t bytes;
};

struct flight {
	struct raft_io_append req;
	struct membrane *m;
	struct list link;
	struct list appends;
	struct raft_entry *joined; /* owned; NULL if there is only one append */
	uint64_t waited_ms;
	uint64_t begun_ms;
	bool after_cut;
	bool landed; /* the disk has answered */
	bool lost; /* the disk may never answer */
};

struct send {
	struct raft_io_send req;
	struct membrane *m;
	struct list link;
	struct raft_io_send *user; /* not valid without cb (F12) */
	raft_io_send_cb cb;
	uint64_t peer;
};

struct get {
	struct raft_io_snapshot_get req;
	struct membrane *m;
	struct raft_io_snapshot_get *user;
	raft_io_snapshot_get_cb cb;
};

static struct membrane *membrane_of(struct raft_io *io)
{
	return list_entry(io, struct membrane, io);
}

int membrane_errno(int raft_code)
{
	static const struct {
		int code, error;
	} map[] = {
		{0, 0},
		{RAFT_NOTLEADER, -EAGAIN},
		{RAFT_LEADERSHIPLOST, -ECANCELED},
		{RAFT_SHUTDOWN, -ECANCELED},
		{RAFT_CANCELED, -ECANCELED},
		{RAFT_CANTCHANGE, -EBUSY},
		{RAFT_BUSY, -EBUSY},
		{RAFT_BADID, -ENOENT},
		{RAFT_NOTFOUND, -ENOENT},
		{RAFT_DUPLICATEID, -EEXIST},
		{RAFT_DUPLICATEADDRESS, -EEXIST},
		{RAFT_CANTBOOTSTRAP, -EEXIST},
		{RAFT_BADROLE, -EALREADY},
		{RAFT_NOCONNECTION, -ETIMEDOUT},
		{RAFT_NOSPACE, -ENOSPC},
		{RAFT_CORRUPT, -EBADMSG},
		{RAFT_MALFORMED, -EBADMSG},
		{RAFT_NAMETOOLONG, -ENAMETOOLONG},
		{RAFT_INVALID, -EINVAL},
		{RAFT_UNAUTHORIZED, -EACCES},
	};

	for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		if (map[i].code == raft_code)
			return map[i].error;
	return -EIO;
}

void membrane_break(struct membrane *m, int error, const char *format, ...)
{
	va_list args;

	if (m->error != 0 || m->closing)
		return;
	m->error = error;
	va_start(args, format);
	(void)vsnprintf(m->message, sizeof(m->message), format, args);
	va_end(args);
}

static void ballot_write(struct membrane *m)
{
	int rv = ballot_save(m->ballot);

	if (rv < 0)
		membrane_break(m, rv, "cannot write the file ballot: %s", strerror(-rv));
}

bool membrane_quiet(const struct membrane *m)
{
	return list_empty(&m->held) && list_empty(&m->flights);
}

static void ran(struct membrane *m)
{
	const struct raft *r = m->raft;

	if (r->configuration_uncommitted_index == 0 &&
	    r->configuration_index != m->committed_index) {
		raft_configuration_close(&m->committed);
		raft_configuration_init(&m->committed);
		for (unsigned i = 0; i < r->configuration.n; i++) {
			const struct raft_server *s = &r->configuration.servers[i];

			(void)raft_configuration_add(&m->committed, s->id, s->address, s->role);
		}
		m->committed_index = r->configuration_index;
	}
	m->events.ran(m->events.arg);
}

/* --- the library's log in memory, read only --- */

static raft_index log_last(const struct raft_log *l)
{
	size_t n = l->front <= l->back ? l->back - l->front : l->size - l->front + l->back;

	return l->offset + n;
}

/* 0: not in the log. */
static raft_term log_term(const struct raft_log *l, raft_index index)
{
	if (index == l->snapshot.last_index)
		return l->snapshot.last_term;
	if (index <= l->offset || index > log_last(l))
		return 0;
	return l->entries[(l->front + (size_t)(index - l->offset - 1)) % l->size].term;
}

/* --- entries to the disk --- */

static void flight_free(struct flight *f)
{
	list_remove(&f->link);
	free(f->joined);
	free(f);
}

/* Success in any order is the one answer that a closed library takes without touching its log
 * again (F2): it is unavailable by then and only gives its memory back. */
static void appends_finish(struct list *appends)
{
	while (!list_empty(appends)) {
		struct append *a = list_entry(appends->next, struct append, link);
		struct raft_io_append *user = a->user;
		raft_io_append_cb cb = a->cb;

		list_remove(&a->link);
		free(a);
		cb(user, 0);
	}
}

static void flight_done(struct raft_io_append *req, int status);

/* Gives what is held, up to `limit` bytes, to the disk as one batch in one write. With one write
 * at a time, each one batch, nothing sound can lie behind a torn batch (segment.h relies on it).
 */
static void submit(struct membrane *m, size_t limit)
{
	struct flight *f = mem_zalloc(sizeof(*f));
	size_t bytes = 0;
	unsigned n = 0;
	int rv;

	f->m = m;
	f->begun_ms = m->inner.time(&m->io);
	f->after_cut = m->cutting;
	list_init(&f->appends);
	list_append(&m->flights, &f->link);
	list_for_each_safe (pos, &m->held) {
		struct append *a = list_entry(pos, struct append, link);

		if (n > 0 && bytes + a->bytes > limit)
			break;
		bytes += a->bytes;
		n += a->n;
		list_remove(&a->link);
		list_append(&f->appends, &a->link);
	}
	if (f->appends.next == f->appends.prev) {
		struct append *only = list_entry(f->appends.next, struct append, link);

		rv = m->inner.append(&m->io, &f->req, only->entries, only->n, flight_done);
	} else {
		unsigned at = 0;

		f->joined = mem_array(n, sizeof(*f->joined));
		list_for_each (pos, &f->appends) {
			const struct append *a = list_entry(pos, struct append, link);

			memcpy(f->joined + at, a->entries, a->n * sizeof(*f->joined));
			at += a->n;
		}
		rv = m->inner.append(&m->io, &f->req, f->joined, n, flight_done);
	}
	if (rv != 0) {
		f->lost = true;
		membrane_break(m, membrane_errno(rv), "cannot write to the log: %s", m->io.errmsg);
	}
}

/* The entries behind a cut are on disk, hence the cut is: forget it, before anyone hears that
 * they are (a start would else remove them). */
static void cut_done(struct membrane *m)
{
	m->cutting = false;
	m->ballot->cut = 0;
	ballot_write(m);
}

static void disk_turn(struct membrane *m)
{
	uint64_t now = m->inner.time(&m->io);

	if (now - m->disk_window_ms < DISK_WINDOW_MS)
		return;
	m->disk_ms[1] = now - m->disk_window_ms < 2 * DISK_WINDOW_MS ? m->disk_ms[0] : 0;
	m->disk_ms[0] = 0;
	m->disk_window_ms = now;
}

static void disk_note(struct membrane *m, uint64_t took_ms)
{
	disk_turn(m);
	if (took_ms > m->disk_ms[0])
		m->disk_ms[0] = took_ms;
}

uint64_t membrane_disk_ms(struct membrane *m)
{
	disk_turn(m);
	return m->disk_ms[0] > m->disk_ms[1] ? m->disk_ms[0] : m->disk_ms[1];
}

static void flight_done(struct raft_io_append *req, int status)
{
	struct flight *f = list_entry(req, struct flight, req);
	struct membrane *m = f->m;
	struct list appends;

	f->landed = true;
	disk_note(m, m->inner.time(&m->io) - f->begun_ms);
	if (!m->closing) {
		if (status != 0)
			membrane_break(m, membrane_errno(status), "cannot write to the log: %s",
				       m->io.errmsg[0] ? m->io.errmsg : raft_strerror(status));
		else if (m->error == 0 && f->after_cut && m->cutting)
			cut_done(m);
		if (m->error != 0)
			return;
	}
	list_init(&appends);
	while (!list_empty(&f->appends)) {
		struct list *item = f->appends.next;

		list_remove(item);
		list_append(&appends, item);
	}
	flight_free(f);
	appends_finish(&appends);
	if (m->closing)
		return;
	if (m->error == 0 && !m->draining && list_empty(&m->flights) && !list_empty(&m->held))
		submit(m, FLIGHT_BYTES);
	ran(m);
}

static int membrane_append(struct raft_io *io, struct raft_io_append *req,
			   const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
	struct membrane *m = membrane_of(io);
	struct append *a = mem_alloc(sizeof(*a));

	*a = (struct append){.user = req, .cb = cb, .entries = entries, .n = n};
	for (unsigned i = 0; i < n; i++)
		a->bytes += entries[i].buf.len;
	list_append(&m->held, &a->link);
	if (m->error == 0 && !m->draining && list_empty(&m->flights))
		submit(m, FLIGHT_BYTES);
	return 0;
}

/* Everything that was appended must be before a cut or an installed snapshot. */
static void submit_all(struct membrane *m)
{
	if (!list_empty(&m->held))
		submit(m, SIZE_MAX);
}

static int membrane_truncate(struct raft_io *io, raft_index index)
{
	struct membrane *m = membrane_of(io);
	int rv;

	if (m->error != 0)
		return 0;
	submit_all(m);
	m->ballot->cut = index;
	ballot_write(m);
	if (m->error != 0)
		return 0;
	m->cutting = true;
	rv = m->inner.truncate(io, index);
	if (rv != 0)
		membrane_break(m, membrane_errno(rv), "cannot cut the log at entry %llu", index);
	return 0;
}

/* --- term and vote --- */

static int membrane_vote(struct membrane *m, raft_term term, raft_id vote)
{
	if (m->error != 0)
		return 0;
	m->ballot->term = term;
	m->ballot->vote = vote;
	ballot_write(m);
	return 0;
}

static int membrane_set_term(struct raft_io *io, raft_term term)
{
	return membrane_vote(membrane_of(io), term, 0);
}

static int membrane_set_vote(struct raft_io *io, raft_id server_id)
{
	struct membrane *m = membrane_of(io);

	return membrane_vote(m, m->ballot->term, server_id);
}

/* --- loading --- */

/* The library's encoding: u8 1, u64 count, then per server u64 id, address with its zero, u8 role.
 */
static int configuration_decode(const struct raft_buffer *buf, struct raft_configuration *c)
{
	const uint8_t *at = buf->base, *end = at + buf->len;
	uint64_t count;

	if (buf->len < 9 || *at++ != 1)
		return -EBADMSG;
	memcpy(&count, at, 8);
	count = le64toh(count);
	at += 8;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t id;
		const uint8_t *zero;

		if (end - at < 8)
			return -EBADMSG;
		memcpy(&id, at, 8);
		at += 8;
		zero = memchr(at, 0, (size_t)(end - at));
		if (zero == NULL || end - zero < 2 || le64toh(id) == 0)
			return -EBADMSG;
		if (raft_configuration_add(c, le64toh(id), (const char *)at, zero[1]) != 0)
			return -EBADMSG;
		at = zero + 2;
	}
	return 0;
}

/* Finds the last configuration but one: the newest may not be committed, and the library takes
 * it as if it were (F6). */
static int find_committed(struct membrane *m, const struct raft_snapshot *snapshot,
			  raft_index start, const struct raft_entry *entries, size_t n)
{
	raft_index newest = 0;
	const struct raft_entry *before = NULL;

	for (size_t i = 0; i < n; i++) {
		if (entries[i].type != RAFT_CHANGE)
			continue;
		if (snapshot != NULL && start + i <= snapshot->index)
			continue;
		if (newest != 0) {
			before = &entries[newest - start];
			m->committed_index = newest;
		}
		newest = start + i;
	}
	if (before != NULL) {
		m->uncommitted_index = newest;
		return configuration_decode(&before->buf, &m->committed);
	}
	if (snapshot == NULL || newest == 0)
		return 0;
	for (unsigned i = 0; i < snapshot->configuration.n; i++) {
		const struct raft_server *s = &snapshot->configuration.servers[i];

		if (raft_configuration_add(&m->committed, s->id, s->address, s->role) != 0)
			return -EBADMSG;
	}
	m->committed_index = snapshot->configuration_index;
	m->uncommitted_index = newest;
	return 0;
}

static int membrane_load(struct raft_io *io, raft_term *term, raft_id *voted_for,
			 struct raft_snapshot **snapshot, raft_index *start_index,
			 struct raft_entry *entries[], size_t *n_entries)
{
	struct membrane *m = membrane_of(io);
	int rv = m->inner.load(io, term, voted_for, snapshot, start_index, entries, n_entries);

	if (rv != 0)
		return rv;
	*term = m->ballot->term;
	*voted_for = m->ballot->vote;
	if (find_committed(m, *snapshot, *start_index, *entries, *n_entries) < 0) {
		/* Checksums were sound, so this is no accident of the disk; the library would
		 * refuse it too. It is told through the membrane, for it owns the entries now. */
		membrane_break(m, -EBADMSG, "the log holds a list of members that cannot be read");
	}
	return 0;
}

void membrane_started(struct membrane *m)
{
	struct raft *r = m->raft;

	m->turning = true;
	if (m->uncommitted_index > r->last_applied &&
	    r->configuration_index == m->uncommitted_index) {
		r->configuration_uncommitted_index = m->uncommitted_index;
		r->configuration_index = m->committed_index;
	}
}

/* --- messages in --- */

static void message_free(struct raft_message *msg)
{
	if (msg->type == RAFT_IO_APPEND_ENTRIES) {
		if (msg->append_entries.n_entries > 0)
			raft_free(msg->append_entries.entries[0].batch);
		raft_free(msg->append_entries.entries);
	} else if (msg->type == RAFT_IO_INSTALL_SNAPSHOT) {
		raft_configuration_close(&msg->install_snapshot.conf);
		raft_free(msg->install_snapshot.data.base);
	}
}

/* The first entry that would make the library cut its log; 0: none. */
static raft_index conflict(const struct raft *r, const struct raft_append_entries *ae)
{
	if (ae->term < r->current_term)
		return 0;
	if (ae->prev_log_index > 0 && log_term(&r->log, ae->prev_log_index) != ae->prev_log_term)
		return 0;
	for (unsigned i = 0; i < ae->n_entries; i++) {
		raft_index index = ae->prev_log_index + 1 + i;
		raft_term term = log_term(&r->log, index);

		if (term == 0)
			return 0;
		if (term != ae->entries[i].term)
			return index;
	}
	return 0;
}

/* A cut takes back a change of members whose predecessor is no longer in the log: the library
 * would look for it there and fail an assertion (F5). */
static void roll_back(struct membrane *m, raft_index cut)
{
	struct raft *r = m->raft;

	if (r->configuration_uncommitted_index < cut || m->committed_index == 0 ||
	    (r->configuration_index > r->log.offset && r->configuration_index <= log_last(&r->log)))
		return;
	raft_configuration_close(&r->configuration);
	raft_configuration_init(&r->configuration);
	for (unsigned i = 0; i < m->committed.n; i++) {
		const struct raft_server *s = &m->committed.servers[i];

		(void)raft_configuration_add(&r->configuration, s->id, s->address, s->role);
	}
	r->configuration_index = m->committed_index;
	r->configuration_uncommitted_index = 0;
}

static bool installing(const struct membrane *m)
{
	return m->put.user != NULL && m->put.install;
}

static bool entries_pass(struct membrane *m, const struct raft_append_entries *ae, raft_id from)
{
	const struct raft *r = m->raft;
	raft_index cut;

	if (r->state == RAFT_LEADER && ae->term == r->current_term) {
		membrane_break(
			m, -EBADMSG,
			"member %llu leads in term %llu as this board does: the files of "
			"one of the two are an old copy; remove that member and join it anew",
			from, ae->term);
		return false;
	}
	cut = conflict(r, ae);
	if (cut == 0)
		return true;
	/* A second barrier in raft_uv is forgotten while one is pending (F7). */
	if (m->put.user != NULL || m->cutting)
		return false;
	roll_back(m, cut);
	return true;
}

static bool message_passes(struct membrane *m, const struct raft_message *msg)
{
	const struct raft *r = m->raft;

	switch (msg->type) {
	case RAFT_IO_APPEND_ENTRIES:
		return entries_pass(m, &msg->append_entries, msg->server_id);
	case RAFT_IO_APPEND_ENTRIES_RESULT:
		/* The library counts copies of entries of earlier terms (F1, Raft dissertation
		 * 3.6.2). It counts at its own newest stored entry only; so it may count once
		 * that is one of its own. */
		return !(r->state == RAFT_LEADER &&
			 msg->append_entries_result.term == r->current_term &&
			 msg->append_entries_result.rejected == 0 &&
			 (m->own_term != r->current_term || r->last_stored < m->own_first));
	case RAFT_IO_INSTALL_SNAPSHOT:
		return !m->cutting &&
		       m->events.sound(m->events.arg, msg->install_snapshot.data.base,
				       msg->install_snapshot.data.len);
	case RAFT_IO_TIMEOUT_NOW:
		/* A leader whose model is half installed has nothing to lead with (F8). */
		return !installing(m);
	default:
		return true;
	}
}

static struct membrane_peer *peer_of(struct membrane *m, uint64_t id)
{
	struct membrane_peer *spare = NULL;

	for (unsigned i = 0; i < MEMBRANE_PEERS; i++) {
		struct membrane_peer *p = &m->peers[i];

		if (p->id == id)
			return p;
		if (p->sending == 0 && (spare == NULL || p->heard_ms < spare->heard_ms))
			spare = p;
	}
	if (spare != NULL)
		*spare = (struct membrane_peer){.id = id};
	return spare;
}

uint64_t membrane_heard(const struct membrane *m, uint64_t id)
{
	for (unsigned i = 0; i < MEMBRANE_PEERS; i++)
		if (m->peers[i].id == id)
			return m->peers[i].heard_ms;
	return 0;
}

static void membrane_recv(struct raft_io *io, struct raft_message *msg)
{
	struct membrane *m = membrane_of(io);
	struct membrane_peer *peer = peer_of(m, msg->server_id);

	if (peer != NULL)
		peer->heard_ms = m->inner.time(io);
	if (m->error != 0 || m->draining || !message_passes(m, msg)) {
		message_free(msg);
		ran(m);
		return;
	}
	m->recv_cb(io, msg);
	ran(m);
}

static void membrane_tick(struct raft_io *io)
{
	struct membrane *m = membrane_of(io);

	/* No election in the middle of an install (F8). */
	if (m->error != 0 || m->draining || (installing(m) && m->raft->state == RAFT_FOLLOWER))
		return;
	m->tick_cb(io);
	ran(m);
}

static int membrane_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick,
			  raft_io_recv_cb recv)
{
	struct membrane *m = membrane_of(io);

	m->tick_cb = tick;
	m->recv_cb = recv;
	return m->inner.start(io, msecs, membrane_tick, membrane_recv);
}

/* --- messages out --- */

static void send_finish(struct send *s, int status)
{
	list_remove(&s->link);
	if (s->cb != NULL)
		s->cb(s->user, status);
	free(s);
}

static void send_done(struct raft_io_send *req, int status)
{
	struct send *s = list_entry(req, struct send, req);
	struct membrane_peer *peer = peer_of(s->m, s->peer);

	if (peer != NULL && peer->sending > 0)
		peer->sending--;
	send_finish(s, status);
}

/* Never fails: the library frees a message twice if it does (F9). What cannot be sent is lost,
 * as on any network, and reported in the next turn. */
static int membrane_send(struct raft_io *io, struct raft_io_send *req,
			 const struct raft_message *message, raft_io_send_cb cb)
{
	struct membrane *m = membrane_of(io);
	struct membrane_peer *peer =
		message->server_id == 0 ? NULL : peer_of(m, message->server_id);
	struct send *s = mem_zalloc(sizeof(*s));

	s->m = m;
	s->user = req;
	s->cb = cb;
	s->peer = message->server_id;
	list_append(&m->refused, &s->link);
	/* No address: the library answers a leader that it has forgotten (F8). Too many under way:
	 * the link is stuck, and each message pins its entries in memory. */
	if (m->error != 0 || peer == NULL || message->server_address == NULL ||
	    peer->sending >= MEMBRANE_SENDS)
		return 0;
	if (m->inner.send(io, &s->req, message, send_done) != 0)
		return 0;
	peer->sending++;
	list_remove(&s->link);
	list_append(&m->sends, &s->link);
	return 0;
}

/* --- snapshots --- */

static void put_finish(struct membrane *m, int status)
{
	struct raft_io_snapshot_put *user = m->put.user;
	struct raft_buffer *bufs = m->put.install ? m->put.bufs : NULL;
	raft_io_snapshot_put_cb cb = m->put.cb;

	m->put.user = NULL;
	cb(user, status);
	/* An install that came to nothing leaves this array behind in the library. */
	if (m->closing || m->error != 0)
		raft_free(bufs);
}

static void put_done(struct raft_io_snapshot_put *req, int status)
{
	struct membrane *m = list_entry(req, struct membrane, put.req);

	m->put.landed = true;
	if (!m->closing && m->put.install) {
		if (status != 0)
			membrane_break(m, membrane_errno(status),
				       "cannot write the leader's snapshot");
		if (m->error == 0) {
			m->ballot->install = 0;
			ballot_write(m);
		}
		if (m->error != 0)
			return;
	}
	if (!m->closing && status != 0)
		m->events.snapshot_failed(m->events.arg);
	put_finish(m, status);
	if (!m->closing)
		ran(m);
}

static int membrane_snapshot_put(struct raft_io *io, unsigned trailing,
				 struct raft_io_snapshot_put *req,
				 const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
	struct membrane *m = membrane_of(io);
	int rv;

	assert(m->put.user == NULL);
	m->put.user = req;
	m->put.cb = cb;
	m->put.bufs = snapshot->bufs;
	m->put.install = trailing == 0;
	if (m->put.install && m->error == 0) {
		submit_all(m);
		m->ballot->install = snapshot->index;
		ballot_write(m);
	}
	m->put.landed = m->error != 0;
	if (m->error != 0)
		return 0;
	rv = m->inner.snapshot_put(io, trailing, &m->put.req, snapshot, put_done);
	if (rv != 0) {
		m->put.landed = true;
		membrane_break(m, membrane_errno(rv), "cannot write a snapshot: %s", io->errmsg);
	}
	return 0;
}

static void get_done(struct raft_io_snapshot_get *req, struct raft_snapshot *snapshot, int status)
{
	struct get *g = list_entry(req, struct get, req);
	struct membrane *m = g->m;
	struct raft_io_snapshot_get *user = g->user;
	raft_io_snapshot_get_cb cb = g->cb;

	free(g);
	if (status == 0 &&
	    (snapshot->n_bufs != 1 ||
	     !m->events.sound(m->events.arg, snapshot->bufs[0].base, snapshot->bufs[0].len))) {
		for (unsigned i = 0; i < snapshot->n_bufs; i++)
			raft_free(snapshot->bufs[i].base);
		raft_free(snapshot->bufs);
		raft_configuration_close(&snapshot->configuration);
		status = RAFT_CORRUPT;
	}
	if (status != 0) {
		raft_free(snapshot);
		snapshot = NULL;
		membrane_break(m, membrane_errno(status),
			       "cannot read the newest snapshot back: the storage is failing");
	}
	cb(user, snapshot, status);
}

static int membrane_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
				 raft_io_snapshot_get_cb cb)
{
	struct membrane *m = membrane_of(io);
	struct get *g = mem_zalloc(sizeof(*g));
	int rv;

	g->m = m;
	g->user = req;
	g->cb = cb;
	rv = m->inner.snapshot_get(io, &g->req, get_done);
	if (rv != 0)
		free(g);
	return rv;
}

/* --- closing --- */

static void close_finish(struct membrane *m)
{
	while (!list_empty(&m->flights)) {
		struct flight *f = list_entry(m->flights.next, struct flight, link);

		appends_finish(&f->appends);
		flight_free(f);
	}
	while (!list_empty(&m->refused))
		send_finish(list_entry(m->refused.next, struct send, link), RAFT_CANCELED);
	assert(list_empty(&m->sends));
	m->close_cb(&m->io);
}

/* raft_uv says that it is closed while handles of a segment may still be closing; when they are,
 * it says so again (F14). */
static void inner_closed(struct raft_io *io)
{
	struct membrane *m = membrane_of(io);

	if (m->closed_turns == 0 && m->turning)
		m->closed_turns = 1;
	else if (!m->turning)
		close_finish(m);
}

static bool closing_turn(struct membrane *m)
{
	if (m->closed_turns == 0)
		return false;
	if (m->closed_turns++ <= CLOSED_TURNS)
		return true;
	m->turning = false;
	close_finish(m);
	return false;
}

/* A write must have ended before its file is truncated and renamed: else it may grow it again. */
bool membrane_drained(struct membrane *m)
{
	m->draining = true;
	list_for_each (pos, &m->flights) {
		const struct flight *f = list_entry(pos, struct flight, link);

		if (!f->landed && !f->lost)
			return false;
	}
	return true;
}

bool membrane_stuck(const struct membrane *m)
{
	list_for_each (pos, &m->flights) {
		const struct flight *f = list_entry(pos, struct flight, link);

		if (f->lost && !f->landed)
			return true;
	}
	return false;
}

static void membrane_close(struct raft_io *io, raft_io_close_cb cb)
{
	struct membrane *m = membrane_of(io);

	m->closing = true;
	m->close_cb = cb;
	appends_finish(&m->held);
	list_for_each_safe (pos, &m->flights) {
		struct flight *f = list_entry(pos, struct flight, link);

		if (!f->landed)
			continue;
		appends_finish(&f->appends);
		flight_free(f);
	}
	if (m->put.user != NULL && m->put.landed)
		put_finish(m, RAFT_CANCELED);
	m->inner.close(io, inner_closed);
}

/* Counts only time in which this process ran: it may have been frozen, and the disk not. */
static void flights_watch(struct membrane *m)
{
	uint64_t now = m->inner.time(&m->io);
	uint64_t passed = now - m->watched_ms;

	m->watched_ms = now;
	if (passed > TICK_MAX_MS)
		passed = TICK_MAX_MS;
	list_for_each (pos, &m->flights) {
		struct flight *f = list_entry(pos, struct flight, link);

		f->waited_ms += passed;
		if (f->landed || f->waited_ms < FLIGHT_MS)
			continue;
		f->lost = true;
		membrane_break(m, -ETIMEDOUT, "the storage has not answered for %d seconds",
			       FLIGHT_MS / 1000);
	}
}

bool membrane_turn(struct membrane *m)
{
	struct list *last = m->refused.prev;

	if (m->closing)
		return closing_turn(m);
	flights_watch(m);
	/* Only what is there now: an answer may lead to the next refusal. */
	while (!list_empty(&m->refused)) {
		struct list *item = m->refused.next;
		bool end = item == last;

		send_finish(list_entry(item, struct send, link), RAFT_NOCONNECTION);
		if (end)
			break;
	}
	return !list_empty(&m->refused);
}

void membrane_init(struct membrane *m, struct raft *raft, struct ballot *ballot,
		   const struct membrane_events *events)
{
	m->inner = m->io;
	m->raft = raft;
	m->ballot = ballot;
	m->events = *events;
	list_init(&m->held);
	list_init(&m->flights);
	list_init(&m->sends);
	list_init(&m->refused);
	raft_configuration_init(&m->committed);
	m->io.start = membrane_start;
	m->io.load = membrane_load;
	m->io.set_term = membrane_set_term;
	m->io.set_vote = membrane_set_vote;
	m->io.append = membrane_append;
	m->io.truncate = membrane_truncate;
	m->io.send = membrane_send;
	m->io.snapshot_put = membrane_snapshot_put;
	m->io.snapshot_get = membrane_snapshot_get;
	m->io.close = membrane_close;
}

void membrane_free(struct membrane *m)
{
	raft_configuration_close(&m->committed);
}
