/* query.h: one question to the leader, inside the core thread. */
#pragma once
#include "witnessd/core_internal.h"

struct query {
	struct list link;
	struct core *core;
	Tb__PeerQuery *query; /* its id is ours */
	bool sent;
	bool asked_before; /* sent to a leader whose answer was lost: it may have been done */
	bool held; /* the leader's log or raft is at work on it; no deadline here */
	uint64_t deadline_ms;
	struct mailbox *home;
	core_answered done;
	void *arg;
	struct peer *remote;
	uint64_t remote_id;
};

struct query_letter {
	struct letter letter;
	struct core *core;
	struct mailbox *home;
	Tb__PeerQuery *query;
	core_answered done;
	void *arg;
	int error;
	Tb__PeerAnswer *answer;
};

/* Sends it, or answers it if this board leads. */
void query_push(struct query *q);
/* Answers it and frees it. `answer` stays the caller's; NULL with an error. */
void query_finish(struct query *q, int error, const Tb__PeerAnswer *answer);
/* lead.c: answers it with an error, and says why. */
void query_refuse(struct query *q, int error, const char *message);
/* Is `error` only the echo of what the first asking did? */
bool query_was_done(const struct query *q, int error);
/* lead.c: answers it, now or later. */
void lead_answer(struct core *c, struct query *q);
