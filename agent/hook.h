/* hook.h: one command of the administrator's at a time, in a process group of its own, that can be
 * killed as a whole. When, says duty.h. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/duty.h"
#include "agent/settings.h"

enum { HOOK_ABANDONED = 4 };

struct hook {
	pid_t pid; /* 0: none runs */
	bool killed;
	pid_t abandoned[HOOK_ABANDONED]; /* killed, and not gone yet; 0: free */
};

extern const char *const hook_names[DUTY_HOOKS];
/* Which hooks the settings have. */
void hook_terms(const struct settings *s, bool ret_has[DUTY_HOOKS]);
/* Kills the one that runs, stops waiting for it, starts another, as far as `out` says so. What is
 * started has in its environment WITNESS_EVENT, WITNESS_SITE, WITNESS_NODE, WITNESS_EPOCH, and
 * WITNESS_TIME_MS (until it is killed; 0: no limit). 0; negative errno: it could not be started. */
int hook_obey(struct hook *h, const struct duty_out *out, const struct settings *s, uint64_t epoch);
/* Kills the group; the end is told by hook_ended. */
void hook_kill(struct hook *h);
/* True once when it is gone: *ret_good if it ended with 0 by itself. */
bool hook_ended(struct hook *h, bool *ret_good);
