/* capacity.h: what the system lets this process have, taken in full at the start, or said plainly.
 */
#pragma once
#include "witnessd/config.h"

/* Raises the limit of open files to what the settings ask for, and sets sessions_max if it is 0 (as
 * many as there is room for) and agents_max (as many again, or what is left). 0; -EMFILE and
 * *ret_message (static): the limit's name, its value and the remedy. Warns of few files for agents,
 * and of a short queue for connects. */
int capacity_take(struct config *config, const char **ret_message);
