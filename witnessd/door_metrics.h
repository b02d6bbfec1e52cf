/* door_metrics.h: the site door's numbers for metrics_collect; `door` is its struct qnet_door,
 * which must outlive the scrapes. */
#pragma once
#include <stdbool.h>

#include "lib/buf.h"

void door_metrics_write(void *door, bool open, struct buf *out);
