/* qnet_door.c: the loops of the site door, seen as one door.
 *
 *   clients --> listener (first loop) --> admission --> the loop with the fewest places taken
 *   core <-- joint <-- events of each loop            core --> orders, by session --> its loop
 */
#include "witnessd/qnet_door.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "lib/mem.h"
#include "witnessd/door_joint.h"
#include "witnessd/qnet_loop.h"

struct qnet_door {
	unsigned count;
	struct qnet_loop *loops[QNET_LOOPS_MAX];
	struct admission *admission;
	struct joint *joint;
	unsigned turn; /* first loop's thread: who is given the next connection */
};

static void client_taken(void *arg, int fd, struct place *place)
{
	struct qnet_door *d = arg;

	qnet_loop_take(d->loops[d->turn], fd, place);
	d->turn = (d->turn + 1) % d->count;
}

/* --- from the core --- */

void qnet_door_orders(struct qnet_door *door, Tb__DoorOrder **orders, size_t count)
{
	struct {
		Tb__DoorOrder **orders;
		size_t count;
	} parts[QNET_LOOPS_MAX] = {0};

	if (door->count == 1) {
		qnet_loop_orders(door->loops[0], orders, count);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		unsigned loop = orders[i]->session % QNET_LOOPS_MAX;

		/* Of an earlier run of this board, which had more loops: no such session. */
		if (loop >= door->count) {
			tb__door_order__free_unpacked(orders[i], NULL);
			continue;
		}
		if (parts[loop].orders == NULL)
			parts[loop].orders = mem_array(count - i, sizeof(*orders));
		parts[loop].orders[parts[loop].count++] = orders[i];
	}
	free(orders);
	for (unsigned i = 0; i < door->count; i++)
		if (parts[i].count != 0)
			qnet_loop_orders(door->loops[i], parts[i].orders, parts[i].count);
}

void qnet_door_report(struct qnet_door *door)
{
	for (unsigned i = 0; i < door->count; i++)
		qnet_loop_report(door->loops[i]);
}

/* The first loop is the last to hear that it may: nothing comes in before the others know. */
void qnet_door_serve(struct qnet_door *door, bool on)
{
	for (unsigned i = door->count; i-- > 0;)
		qnet_loop_serve(door->loops[i], on);
}

void qnet_door_admit(struct qnet_door *door, bool on)
{
	for (unsigned i = door->count; i-- > 0;)
		qnet_loop_admit(door->loops[i], on);
}

void qnet_door_leave(struct qnet_door *door, const struct ip *ip)
{
	for (unsigned i = door->count; i-- > 0;)
		qnet_loop_leave(door->loops[i], ip);
}

void qnet_door_identity(struct qnet_door *door)
{
	for (unsigned i = door->count; i-- > 0;)
		qnet_loop_identity(door->loops[i]);
}

void qnet_door_model_changed(struct qnet_door *door, uint64_t applied_index)
{
	(void)applied_index; /* the model itself says what is new */
	for (unsigned i = 0; i < door->count; i++)
		qnet_loop_model_changed(door->loops[i]);
}

void qnet_door_stats(const struct qnet_door *door, struct qnet_door_stats *ret)
{
	*ret = (struct qnet_door_stats){0};
	for (unsigned i = 0; i < door->count; i++)
		qnet_loop_stats(door->loops[i], ret);
}

unsigned qnet_door_port(const struct qnet_door *door)
{
	return qnet_loop_port(door->loops[0]);
}

/* --- start and stop --- */

static void door_free(struct qnet_door *d)
{
	for (unsigned i = 0; i < d->count; i++)
		qnet_loop_free(d->loops[i]);
	joint_free(d->joint);
	admission_free(d->admission);
	free(d);
}

int qnet_door_start_in(const struct qnet_door_config *config,
		       const struct qnet_door_upcalls *upcalls, struct qnet_door **ret,
		       const char **ret_message)
{
	struct qnet_door *d = mem_zalloc(sizeof(*d));
	const struct admission_limits limits = {
		.sessions_max = config->sessions_max,
		.per_address_max = config->sessions_per_address_max,
		.pending_per_address_max = config->pending_per_address_max,
		.sessions_setting = "sites.sessions-max",
		.pending_setting = "sites.pending-per-address-max",
	};
	int rv;

	d->count = config->threads == 0		      ? 1
		   : config->threads > QNET_LOOPS_MAX ? QNET_LOOPS_MAX
						      : config->threads;
	d->admission = admission_new(&limits);
	d->joint = joint_new(d->count, upcalls[0].events, upcalls[0].arg);
	for (unsigned i = 0; i < d->count; i++) {
		const struct qnet_loop_options options = {.config = config,
							  .upcalls = &upcalls[i],
							  .admission = d->admission,
							  .joint = d->joint,
							  .index = i,
							  .taken = i == 0 ? client_taken : NULL,
							  .arg = d};

		d->loops[i] = qnet_loop_new(&options);
	}
	rv = qnet_loop_probe(d->loops[0], ret_message);
	if (rv != 0) {
		door_free(d);
		return rv;
	}
	for (unsigned i = d->count; i-- > 0;)
		qnet_loop_start(d->loops[i]);
	*ret = d;
	return 0;
}

void qnet_door_stop(struct qnet_door *door)
{
	/* The first one must not give connections to a loop that has gone: it ends before them. */
	qnet_loop_stop(door->loops[0]);
	qnet_loop_join(door->loops[0]);
	for (unsigned i = 1; i < door->count; i++)
		qnet_loop_stop(door->loops[i]);
	door_free(door);
}
