/* help.h: everything that explains the command table: help on the terminal, the manual page. */
#pragma once
#include <stdio.h>

#include "cli/command.h"

/* Help for a command, for a group ("site", command NULL) or for the program ("", NULL). */
void help_print(FILE *out, const char *path, const struct command *command);
/* The manual page witnessctl(1) in man(7) markup. */
void help_manual(FILE *out);
