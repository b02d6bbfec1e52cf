/* saver.h: writing a snapshot while the loop goes on, by the thread of a vCPU: all of them are
 * parked and have nothing else to do. A big memory takes minutes on a slow card; the parent's
 * renewals of the lease must be heard meanwhile. A card that does not answer at all keeps this
 * thread, and with it what is left of the process after the end of the lease, until it does; the
 * guest has ended. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "hv/fault.h"
#include "hv/machine.h"

struct saver;

struct saver_job {
	int state, memory; /* taken over */
	uint64_t client, id; /* who is answered */
	bool stay_paused;
};

/* In the loop, with the lock: the machine is still paused and the files are closed. `fault` is
 * empty if it went well. */
typedef void (*saver_done)(void *arg, const struct saver_job *job, const struct fault *fault);

/* 0 or negative errno. */
int saver_create(struct machine *m, saver_done done, void *arg, struct saver **ret);
/* NULL ok. Not while it is busy: a thread holds the machine; end the process instead. */
void saver_destroy(struct saver *s);
bool saver_is_busy(const struct saver *s);
/* In the loop, with the lock, not busy, the machine running or paused: pauses it and begins. What
 * the vCPUs had to tell is heard after. */
void saver_begin(struct saver *s, const struct saver_job *job);
