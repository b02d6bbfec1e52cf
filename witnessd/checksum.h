/* checksum.h: the Internet checksum (RFC 1071). Pure. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "lib/ip.h"

/* Of bytes, big-endian words; what stands in the header for it. The field itself is 0 meanwhile. */
uint16_t checksum_of(const uint8_t *bytes, size_t len);
/* Of a TCP segment or an ICMPv6 message between two addresses of one family, with the pseudo-header
 * of RFC 9293, 3.1, and RFC 8200, 8.1. */
uint16_t checksum_of_segment(const struct ip *from, const struct ip *to, uint8_t protocol,
			     const uint8_t *bytes, size_t len);
