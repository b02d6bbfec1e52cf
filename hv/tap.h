/* tap.h: attaching to a tap interface that the board's administrator made (ip tuntap add). */
#pragma once
#include "hv/fault.h"

/* Never makes one: a wrong name would otherwise be a new interface that leads nowhere. With
 * IFF_VNET_HDR. 0 and *ret_fd (owned by the caller); or a negative errno and a sentence that begins
 * with `field`. */
int tap_open(const char *name, const char *field, int *ret_fd, struct fault *fault);
