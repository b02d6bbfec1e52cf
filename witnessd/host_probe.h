/* host_probe.h: asks `witness-vm probe` whether virtual machines run on this board. It makes a
 * virtual interrupt controller for a try, which this process must not (it carries no KVM); in a
 * process of its own, once, beside the loop. */
#pragma once
#include <stdbool.h>
#include <uv.h>

#include "lib/buf.h"
#include "proto/hv_probe.pb-c.h"

struct host_probe {
	void (*done)(void *arg, const Tb__HostProbe *probe);
	void *arg;
	uv_process_t process;
	uv_pipe_t out;
	uv_timer_t limit;
	struct buf text;
	unsigned handles; /* of the loop's, not closed yet */
	bool ended; /* the process has, or was never there */
};

/* `done` is called once when it is over, from the loop: `probe` is NULL if there is no witness-vm,
 * or none that answers; else valid during the call. *p must live until then. */
void host_probe_start(struct host_probe *p, uv_loop_t *loop,
		      void (*done)(void *arg, const Tb__HostProbe *probe), void *arg);
/* Ends it early; `done` is called all the same. Harmless when it is over. */
void host_probe_stop(struct host_probe *p);
