/* renew.h: the client certificate that a command was run with. */
#pragma once
#include "cli/command.h"

/* After a command that the server has answered: renews the file of --cert if two thirds of its life
 * are over and it may be written. What goes wrong is told, and harmless. */
void renew_if_due(struct invocation *inv);
