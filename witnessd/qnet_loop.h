/* qnet_loop.h: one of the site door's threads with its own loop, and the sessions that it was
 * given; for qnet_door.c and nobody else.
 *
 * The first loop also listens. It gives each connection to the door, which finds a loop for it;
 * there it stays. A loop watches the lease by itself and closes its own sessions. */
#pragma once
#include "witnessd/admission.h"
#include "witnessd/qnet_door.h"

enum {
	QNET_LOOPS_MAX = QNET_DOOR_THREADS_MAX, /* also the step of session ids: id modulo this is
						   the loop's index */
	QNET_BACKLOG = 4096, /* clients come back all at the same moment */
};

struct joint;
struct qnet_loop;

struct qnet_loop_options {
	const struct qnet_door_config *config; /* copied; the address to listen at too */
	const struct qnet_door_upcalls *upcalls; /* this loop's; copied */
	struct admission *admission;
	struct joint *joint;
	unsigned index;
	/* A connection for one of the loops, both taken over; called in this loop's thread. NULL:
	 * this loop does not listen. */
	void (*taken)(void *arg, int fd, struct place *place);
	void *arg;
};
struct qnet_loop *qnet_loop_new(const struct qnet_loop_options *options);
/* A port that is in use is a mistake of the installation: found before the thread runs, before
 * there is a lease and while somebody is looking. */
int qnet_loop_probe(struct qnet_loop *loop, const char **ret_message);
void qnet_loop_start(struct qnet_loop *loop);
/* Resets all sessions; the thread ends. Returns at once. */
void qnet_loop_stop(struct qnet_loop *loop);
/* After qnet_loop_stop: waits for the thread. */
void qnet_loop_join(struct qnet_loop *loop);
/* After qnet_loop_stop, or never started; NULL allowed. Waits for the thread too. */
void qnet_loop_free(struct qnet_loop *loop);

/* Any thread, each returns at once; as the functions of these names in qnet_door.h. */
void qnet_loop_orders(struct qnet_loop *loop, Tb__DoorOrder **orders, size_t count);
void qnet_loop_report(struct qnet_loop *loop);
void qnet_loop_serve(struct qnet_loop *loop, bool on);
void qnet_loop_admit(struct qnet_loop *loop, bool on);
void qnet_loop_leave(struct qnet_loop *loop, const struct ip *ip);
void qnet_loop_identity(struct qnet_loop *loop);
void qnet_loop_model_changed(struct qnet_loop *loop);
/* A connection; both taken over. */
void qnet_loop_take(struct qnet_loop *loop, int fd, struct place *place);
/* Adds this loop's numbers. */
void qnet_loop_stats(const struct qnet_loop *loop, struct qnet_door_stats *sum);
unsigned qnet_loop_port(const struct qnet_loop *loop);
