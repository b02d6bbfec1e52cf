/* serve.h: the life of one VM's process, from a checked spec and open descriptors to its exit
 * status. */
#pragma once
#include <stdbool.h>

#include "hv/fault.h"
#include "hv/resources.h"
#include "proto/hv.pb-c.h"

struct serve_config {
	const Tb__VmSpec *spec; /* finished (spec.h) */
	struct resources *resources; /* all that the spec needs */
	int parent; /* the supervised form's connection, or -1; taken over */
	bool terminal; /* console-in is a person's terminal: raw mode, Ctrl-A */
	struct termios *saved; /* of the terminal; given back at the end. NULL: none */
};

/* Runs until the VM ends. The exit status (machine_end_status, or 1 with *fault for a VM that did
 * not start). */
int serve(const struct serve_config *config, struct fault *fault);
