/* duty.h: which hook runs when, and when the boards may hear that nothing uses the lease. Pure: no
 * clock, no I/O; `now_ms` is the caller's boot clock and never goes back.
 *
 *   STARTING --nothing is left of an earlier run, or its lease is over--> RUNNING --> ENDING
 *       +---------------------- told to end ----------------------------> LEAVING
 *
 * What may be trusted in each phase:
 *   STARTING  nothing. What an earlier run had started may still run here, by a lease that it had:
 *             the boards are not spoken to, for they would hear that this node holds nothing. First
 *             comes on-loss; if it fails, or if there is none, the lease of the earlier run is left
 *             to end by time, which is one length after the start at the latest
 *   RUNNING   what uses the lease was started by the last gain
 *   ENDING    the lease is given back, or left to end by time
 *   LEAVING   as STARTING: the boards are never spoken to
 *
 * A lease that ends: on-gain is killed, on-loss has until shortly before the end, then it is
 * killed. If it failed, on-loss-failed follows, and the lease is left to end by time; so it is
 * without an on-loss, for then nobody says when all has stopped. A killed hook that does not go
 * away (a process that waits for a disk cannot be killed) counts as failed DUTY_SPARE_MS later. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum {
	DUTY_GAIN_AGAIN_MS = 30000, /* after an on-gain that failed */
	DUTY_END_MS = 3000, /* how long the end waits for the boards to hear of it */
	DUTY_SPARE_MS = 50, /* between the kill of on-loss and the end of the lease */
};

enum duty_hook { DUTY_NONE, DUTY_GAIN, DUTY_LOSS, DUTY_LOSS_FAILED, DUTY_HOOKS };

struct duty_terms {
	bool has[DUTY_HOOKS]; /* hooks that there are */
	uint64_t lease_ms;
	uint64_t stop_ms; /* what on-loss may take; below half of lease_ms */
	bool left; /* an earlier run had the lease when it ended out of order */
	bool wish; /* the lease is wanted from the start */
};

struct duty {
	struct duty_terms terms; /* `wish`: as the administrator said last */
	enum duty_phase { DUTY_STARTING, DUTY_RUNNING, DUTY_ENDING, DUTY_LEAVING } phase;
	/* The lease that ends, or the one of an earlier run. */
	enum duty_loss {
		DUTY_KEPT, /* none ends */
		DUTY_STOPPING, /* what uses it is being stopped */
		DUTY_TO_TIME /* it is left to end by time */
	} loss;
	uint64_t loss_end_ms; /* STOPPING, TO_TIME: it is over then */
	enum duty_hook running;
	bool killed; /* the running one; deadline_ms: it counts as gone then */
	uint64_t deadline_ms; /* the running one is killed then; UINT64_MAX: never */
	uint64_t pause_until_ms; /* not wanted until then, after a failed on-gain; 0: none */
	uint64_t end_by_ms; /* ENDING, LEAVING: over at the latest */
};

/* What the caller has to do now, in this order. */
struct duty_out {
	bool kill; /* the hook that runs, with all that it started */
	bool abandon; /* it is not waited for any longer */
	enum duty_hook run; /* start this; if that fails: duty_hook_ended(false) */
	uint64_t run_ms; /* how long it has, for its environment; 0: no limit */
	bool gain_failed; /* for people */
	bool waits; /* for people: at the start, until the earlier lease is over */
	bool stopped; /* nothing uses the lease any more: the boards may have it */
};

void duty_begin(struct duty *d, const struct duty_terms *terms, uint64_t now_ms,
		struct duty_out *out);
void duty_gained(struct duty *d, uint64_t now_ms, struct duty_out *out);
void duty_lost(struct duty *d, uint64_t left_ms, uint64_t now_ms, struct duty_out *out);
/* The hook that ran has ended; good: by itself, with 0. */
void duty_hook_ended(struct duty *d, bool good, uint64_t now_ms, struct duty_out *out);
void duty_tick(struct duty *d, uint64_t now_ms, struct duty_out *out);
void duty_wish(struct duty *d, bool wanted);
void duty_end(struct duty *d, uint64_t now_ms);

/* May the boards be spoken to? */
bool duty_speaks(const struct duty *d);
/* Is the lease wanted now? */
bool duty_wants(const struct duty *d);
/* idle: the boards know that nothing is held (or none is connected). */
bool duty_over(const struct duty *d, bool idle, uint64_t now_ms);
/* When to call duty_tick (and duty_over) next; UINT64_MAX: only after an event. */
uint64_t duty_due(const struct duty *d);

#ifdef TIEBREAK_SIM_FAULTS
/* A mistake for the simulator to find: the boards are spoken to while on-loss runs at the start. */
extern bool duty_fault_hasty;
#define DUTY_FAULTY duty_fault_hasty
#else
#define DUTY_FAULTY false
#endif
