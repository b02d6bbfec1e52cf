/* api_double.h: the API with a stand-in for the core and for HTTP: commands go through the real
 * apply into a real store in a file, soft state is what the test says, answers are kept. */
#pragma once
#include "cluster/apply.h"
#include "lib/list.h"
#include "witnessd/api.h"

/* A console that the API has opened: the test gives what its guest prints to `bytes`. */
struct host_console {
	struct core *core;
	host_console_bytes bytes;
	void *arg;
	uint64_t vm;
	uint32_t replay;
	bool follow;
	unsigned nexts;
	struct buf keys;
	struct host_console *before; /* opened earlier */
};

struct core {
	struct core_view view;
	struct store *writer;
	char dir[64];
	char path[128]; /* "" while not in a cluster */
	uint64_t index;
	struct list pending; /* answers not given yet */
	int propose_error; /* != 0: the next proposals fail with it, unapplied */
	Tb__SiteState state; /* what the leader says of every site */
	bool vms_failed; /* and of every VM; else they are not placed */
	int move_error; /* and when it is asked for a move; 0: no objection */
	unsigned queries;
	unsigned proposals;
	/* Before the next proposal is applied, once. */
	void (*before_apply)(struct core *c);
	size_t restored; /* bytes of the backup */
	/* The board's image store: one upload, whole with its last byte. */
	uint64_t upload_have;
	int upload_error; /* != 0: the next uploads fail with it */
	unsigned uploads;
	struct host_console *console; /* the newest that is open */
	struct buf closed_keys; /* of the one closed last */
};

struct answer {
	int status; /* 0: none yet */
	char *type;
	char *etag;
	char *location;
	char *allow;
	char *retry_after;
	bool head;
	struct buf body;
	/* streams */
	bool streaming;
	bool ended;
	size_t queued; /* what stream_write says */
	void *call; /* slot */
};

struct ask {
	const char *method;
	const char *path; /* with the query */
	const char *body; /* NULL: none */
	const char *token;
	const struct tls_peer *certificate;
	const char *if_match;
	const char *key;
	const char *last_event_id;
	const char *accept;
	const char *content_type;
	const char *address; /* NULL: 10.0.0.9:1234 */
	bool remote; /* not by the Unix socket */
	unsigned uid;
};

struct world {
	uv_loop_t loop;
	struct core core;
	struct api *api;
	struct metrics *metrics;
	struct tls_cas believed; /* issuer 0 until a test says otherwise */
	bool late; /* on closing, the core's answers still come before the mailbox closes */
};

/* A board in a cluster "lab" with CA keys and one node "one"; or, without `cluster`, a new one. */
void world_open(struct world *w, bool cluster);
void world_close(struct world *w);
/* Does the core's work until nothing is pending. */
void world_run(struct world *w);
/* Sends a request and runs until it is answered (or streams). */
void ask(struct world *w, const struct ask *what, struct answer *ret);
/* The same without running. */
void ask_begin(struct world *w, const struct ask *what, struct answer *ret);
void answer_clear(struct answer *a);
/* The value of a member of the body, as text ("" if absent); valid until the next call. */
const char *answer_text(struct answer *a, const char *path);
/* Makes a token by the API; the text is the caller's. */
char *token_make(struct world *w, const char *role, const char *site);
/* Applies a command as if somebody else had sent it. */
void core_apply(struct core *c, Tb__Command *command);

/* Sends it and checks the status, and that a refusal is a problem; prints what came otherwise. */
void expect(struct world *w, int status, const struct ask *what, struct answer *ret);
void expect_status(struct world *w, int status, const struct ask *what);
