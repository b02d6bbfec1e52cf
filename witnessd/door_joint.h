/* door_joint.h: makes one stream of events of those of several door loops.
 *
 * The core and the leader see one door for each board: its report is a reset, then every session
 * that is open, and what comes later is later. With several loops each gives its own part of a
 * report at its own time, so what a loop says after its part waits here until the others have
 * given theirs; then one reset with the sum goes out, the parts, and what has waited. Events of
 * one session are never reordered, as a session stays with its loop.
 *
 * Any thread; a lock inside. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "proto/door.pb-c.h"

struct joint;

/* `deliver` is called with the lock held, in the order of the stream; it takes the events over. */
struct joint *joint_new(unsigned loops,
			void (*deliver)(void *arg, Tb__DoorEvent **events, size_t count),
			void *arg);
/* What still waits is dropped. */
void joint_free(struct joint *j);
/* Both take the events over. `count` may be 0. */
void joint_events(struct joint *j, unsigned loop, Tb__DoorEvent **events, size_t count);
/* The loop's part of a report: each of the core's requests is answered by one part of every loop,
 * in the same order. `open`: how many sessions the reset is to announce for it. */
void joint_report(struct joint *j, unsigned loop, uint32_t open, Tb__DoorEvent **events,
		  size_t count);
