/* keeper.h: the daemon between the library and the hooks: what runs when the lease is gained and
 * lost.
 *
 *   start: on-loss first, so that nothing that needs the lease is left of an earlier run
 *   gained --> on-gain; if it fails the lease is given back and asked for again later
 *   lost   --> on-gain is killed, on-loss has until shortly before the end, then it is killed;
 *              if it failed: on-loss-failed, and the lease is left to end by time
 *
 * The lease is confirmed as stopped only after on-loss has ended well. */
#pragma once
#include <poll.h>
#include <stdbool.h>

#include "agent/beacon.h"
#include "agent/hook.h"
#include "agent/settings.h"
#include "agent/witness_agent.h"
#include "lib/buf.h"

enum {
	KEEPER_GAIN_AGAIN_MS = 30000, /* after an on-gain that failed */
	KEEPER_END_MS = 3000, /* how long the end waits for the boards to hear of it */
	KEEPER_SPARE_MS = 50, /* between the kill of on-loss and the end of the lease */
};

struct keeper {
	const struct settings *settings;
	struct witness_agent *agent;
	struct beacon *beacon;
	enum keeper_phase { KEEPER_STARTING, KEEPER_RUNNING, KEEPER_ENDING } phase;
	enum keeper_hook { HOOK_NONE, HOOK_GAIN, HOOK_LOSS, HOOK_LOSS_FAILED } running;
	struct hook hook;
	bool lost; /* the library waits for witness_agent_stopped */
	bool loss_failed; /* so it waits for the end of the lease */
	uint64_t lost_end_ms; /* when that is */
	uint64_t epoch; /* of the last gain */
	bool wish; /* what the administrator wants: the lease, or not */
	uint64_t pause_until_ms; /* not wanted until then, after a failed on-gain; 0: none */
	uint64_t end_by_ms; /* ENDING: leave at the latest */
	uint64_t generation;
	char problem[WITNESS_AGENT_TEXT]; /* the last failure of a hook; "" */
};

/* Certificate, key and CA are PEM texts. 0; other: *ret_message (owned by the caller). */
int keeper_open(struct keeper *k, const struct settings *s, const char *certificate,
		const char *key, const char *ca, char **ret_message);
void keeper_close(struct keeper *k);
/* Up to two descriptors; *timeout_ms as in witness_agent_poll. */
unsigned keeper_poll(struct keeper *k, struct pollfd fds[2], int *timeout_ms);
void keeper_turn(struct keeper *k);
void keeper_wish(struct keeper *k, bool wanted);
int keeper_generation(struct keeper *k, uint64_t generation); /* kept over restarts; or an errno */
/* Reads certificate, key and CA again; the lease is kept. 0, or an errno and a sentence. */
int keeper_reload(struct keeper *k, char why[WITNESS_AGENT_TEXT]);
/* Gives the lease back in order; over when keeper_over says so. */
void keeper_end(struct keeper *k);
bool keeper_over(const struct keeper *k);
/* Lines "name=value", for a shell to read. */
void keeper_status(const struct keeper *k, struct buf *out);
