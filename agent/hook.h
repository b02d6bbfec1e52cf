/* hook.h: one command of the administrator's at a time, in a process group of its own, with a
 * deadline after which the whole group is killed. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/settings.h"

struct hook {
	pid_t pid; /* 0: none runs */
	uint64_t deadline_ms; /* boot clock; UINT64_MAX: none */
	bool killed; /* its deadline has passed, or hook_kill was called */
};

/* What it gets in its environment: WITNESS_EVENT, WITNESS_SITE, WITNESS_NODE, WITNESS_EPOCH,
 * WITNESS_TIME_MS (until it is killed; 0: no limit). */
struct hook_call {
	const char *command; /* for /bin/sh -c */
	const char *event; /* "gain", "loss", "loss-failed" */
	const struct settings *settings;
	uint64_t epoch;
	uint64_t time_ms;
};

/* 0; negative errno: it could not be started. None may run. */
int hook_start(struct hook *h, const struct hook_call *call, uint64_t now_ms);
/* Kills the group; the end is told by hook_ended. */
void hook_kill(struct hook *h);
/* Kills it if its time is over; true when it is gone: *ret_good if it ended with 0 by itself. */
bool hook_ended(struct hook *h, uint64_t now_ms, bool *ret_good);
