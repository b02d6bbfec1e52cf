/* keeper.h: the daemon between the library and the hooks: does what duty.h says. */
#pragma once
#include <poll.h>
#include <stdbool.h>

#include "agent/beacon.h"
#include "agent/duty.h"
#include "agent/hook.h"
#include "agent/settings.h"
#include "agent/witness_agent.h"
#include "lib/buf.h"

struct keeper {
	const struct settings *settings;
	struct witness_agent *agent;
	struct beacon *beacon;
	struct duty duty;
	struct hook hook;
	uint64_t epoch; /* of the last gain */
	uint64_t generation;
	char problem[WITNESS_AGENT_TEXT]; /* the last failure of a hook; "" */
};

/* Certificate, key and CA are PEM texts. left: an earlier run had the lease when it ended out of
 * order. Begins with on-loss. 0; other: *ret_message (owned by the caller). */
int keeper_open(struct keeper *k, const struct settings *s, const char *certificate,
		const char *key, const char *ca, bool left, char **ret_message);
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
