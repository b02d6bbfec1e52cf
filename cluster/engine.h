/* engine.h: the replicated log, behind one door. The only file that names libraft, so that its
 * heir can take its place (notes: raft is no longer maintained upstream).
 *
 * All on one libuv loop and its thread. The log and snapshots live in `dir` (on the SD card);
 * links to peers are streams that someone else makes (TLS is pumped into socketpairs by
 * witnessd): the engine asks for an outgoing one by `dial` and is given incoming ones. The process
 * ignores SIGPIPE. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "lib/buf.h"

struct engine;
struct engine_dial; /* one outgoing link being made */

enum engine_state { ENGINE_STOPPED, ENGINE_FOLLOWER, ENGINE_CANDIDATE, ENGINE_LEADER };
enum engine_role { ENGINE_SPARE, ENGINE_VOTER };

struct engine_member {
	uint64_t id;
	char address[272];
	enum engine_role role;
};

struct engine_events {
	void *arg;
	/* A committed entry, in log order, exactly once per start. *ret_result goes to the
	 * proposer's callback if this board proposed it (else the engine ignores it: see `drop`).
	 * Non-zero: the model cannot go on; the engine reports `failed`. */
	int (*apply)(void *arg, uint64_t index, const uint8_t *data, size_t len, void **ret_result);
	/* A result that no proposer waits for. */
	void (*drop)(void *arg, void *result);
	/* The model at the last applied entry, and back. */
	int (*snapshot)(void *arg, struct buf *out);
	int (*restore)(void *arg, const uint8_t *data, size_t len);
	/* State, term or leader changed (leader 0: not known). Never called from inside a call into
	 * the engine: always from the loop. */
	void (*changed)(void *arg, enum engine_state state, uint64_t term, uint64_t leader);
	/* Connect to a peer's raft link; answer later with engine_dialed, exactly once. */
	void (*dial)(void *arg, struct engine_dial *dial, uint64_t id, const char *address);
	/* The engine gave an open dial up: answer it all the same, soon. */
	void (*dial_cancel)(void *arg, struct engine_dial *dial);
	/* The log can no longer be written or trusted. The board must stop serving; message says
	 * what, where and the remedy. */
	void (*failed)(void *arg, int error, const char *message);
};

/* True if `dir` holds a log already. */
bool engine_exists(const char *dir);
/* Makes a log whose only member is (id, address), and the directory if its parent is there.
 * -EEXIST if there is one. A crash leaves no log (and can be repeated) or a whole one. */
int engine_bootstrap(const char *dir, uint64_t id, const char *address);
/* Opens (an empty dir is a board that has joined but was not added yet) and starts. The model must
 * be empty: `restore` may be called from within, and `apply` too if this board is the only voter.
 * *ret_message (of this thread; valid until the next call) explains any failure in one sentence
 * with place and remedy:
 *   -EBUSY    another process has the directory
 *   -EXDEV    it is the log of another board
 *   -EBADMSG  a file is damaged; nothing was changed (decisions/0005 says what counts as damage)
 *   -ENOSPC   no room to run
 *   -EACCES, -EROFS, -ENOTDIR, ...  what the file system says
 * After a failure the loop must run once more before it is closed. */
int engine_start(uv_loop_t *loop, const char *dir, uint64_t id, const char *address,
		 const struct engine_events *events, struct engine **ret, const char **ret_message);
/* Stops; `closed` is called from the loop when nothing is left, the engine is freed then. Open
 * proposals end with -ECANCELED first. */
void engine_close(struct engine *e, void (*closed)(void *arg), void *arg);

/* One entry. Durable on a majority and applied here when `done` gets status 0 (`result`: what
 * apply gave). -EAGAIN: not the leader, nothing happened. -ECANCELED: leadership lost or closing,
 * it may or may not commit. Other: nothing happened (-ENOSPC: this leader's disk is nearly full,
 * it hands over to another; -EMSGSIZE: over LIMIT_ENTRY). Always answered from the loop. Entries
 * proposed in one turn of the loop go to the library in one call (group commit). */
typedef void (*engine_done)(void *arg, int status, uint64_t index, void *result);
void engine_propose(struct engine *e, const uint8_t *data, size_t len, engine_done done, void *arg);

/* The entries behind the last one applied, in order: this board has them, but only a majority could
 * say whether they were agreed upon. For a cluster that has lost it. `visit`: 0 goes on, other:
 * ends it and is returned. */
typedef int (*engine_visit)(void *arg, uint64_t index, const uint8_t *data, size_t len);
int engine_tail(const struct engine *e, engine_visit visit, void *arg);

/* Membership, one at a time (-EBUSY while one is under way), leader only (-EAGAIN). engine_add
 * adds a spare, engine_promote catches it up and makes it a voter, engine_remove removes any
 * member (the leader itself transfers first: -EPERM). -EEXIST: id or address is a member;
 * -ENOENT: no such member; -EALREADY: it is a voter; -ETIMEDOUT: it did not catch up or take
 * over; -ECANCELED: leadership lost or closing, it may or may not have happened. */
typedef void (*engine_member_done)(void *arg, int status);
void engine_add(struct engine *e, uint64_t id, const char *address, engine_member_done done,
		void *arg);
void engine_promote(struct engine *e, uint64_t id, engine_member_done done, void *arg);
/* Gives up a promotion that still catches up (-ECANCELED), as the engine itself does when the board
 * has been silent for long (-ETIMEDOUT). Nothing otherwise. */
void engine_promote_end(struct engine *e);
void engine_remove(struct engine *e, uint64_t id, engine_member_done done, void *arg);
/* Hands the leadership to `id`, or to any up-to-date voter if 0. Also while a promotion is under
 * way, which ends with the leadership. */
void engine_transfer(struct engine *e, uint64_t id, engine_member_done done, void *arg);

/* An incoming raft link from member `id` is connected as `fd` (a stream socket; the engine owns it
 * from here on). */
void engine_accept(struct engine *e, uint64_t id, const char *address, int fd);
/* The answer to a dial: fd >= 0 (owned by the engine) or a negative errno. */
void engine_dialed(struct engine_dial *dial, int fd);

enum engine_state engine_state(const struct engine *e);
uint64_t engine_term(const struct engine *e);
uint64_t engine_leader(const struct engine *e); /* 0: not known */
uint64_t engine_applied(const struct engine *e);
/* The longest write of the log lately, in ms. */
uint64_t engine_disk_ms(struct engine *e);
/* Members as in the newest configuration this board knows; returns how many. */
unsigned engine_members(const struct engine *e, struct engine_member *members, unsigned max);
