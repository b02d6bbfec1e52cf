/* tickle.h: a packet that makes an idle client notice that its connection is gone. Pure.
 *
 * The heir of a service address does not know the sequence numbers of the dead board's connections,
 * so it cannot reset them. But a TCP that gets an ACK with numbers that cannot be answers with its
 * own (RFC 9293, 3.10.7.4), and to that answer the heir's kernel, which has no such connection,
 * sends the reset that fits. Without it an idle client would notice with its next heartbeat only.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "cluster/roll.h"

enum { TICKLE_BYTES = 60 };

/* A whole packet with its IP header, from the local end to the remote one. Returns the length. */
size_t tickle_packet(const struct roll_ends *ends, uint8_t bytes[TICKLE_BYTES]);
