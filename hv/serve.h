/* serve.h: the life of one VM's process, from a checked spec and open descriptors to its exit
 * status. */
#pragma once
#include <stdbool.h>
#include <termios.h>

#include "hv/fault.h"
#include "hv/resources.h"
#include "proto/hv.pb-c.h"

struct serve_config {
	Tb__VmSpec *spec; /* finished (spec.h); its backing is written out here */
	struct resources *resources; /* checked (resources_check), and "kvm"; the caller's */
	int parent; /* the supervised form's connection, or -1; taken over */
	uint64_t lease_until_ms; /* first deadline; 0: spec->lease_ms from now, if that is not 0 */
	bool with_parent; /* ends at once with the parent's connection and with its thread */
	int console_in, console_out; /* -1: none; the caller's */
	/* A person types: Ctrl-A. Raw mode is the parent process's: SIGTERM if that ends. */
	bool keys;
};

/* Runs until the VM ends. Returns the exit status (machine_end_status; 1 for a VM that did not
 * start); *fault says why if it is not 0, and the parent was told. From the main thread, once in a
 * process. */
int serve(const struct serve_config *config, struct fault *fault);
