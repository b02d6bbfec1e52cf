/* frame.h: a protobuf message on a byte stream: 4 bytes big-endian length, then the message.
 * The length is checked before anything is allocated. */
#pragma once
#include <protobuf-c/protobuf-c.h>

#include "lib/buf.h"

enum { FRAME_HEAD = 4, FRAME_MAX = 4 << 20 };

/* Appends head and message; the message is ours and below FRAME_MAX (asserted). */
void frame_append(struct buf *out, const ProtobufCMessage *message);
/* The first whole frame of `data`: 1 and the payload's place and the frame's whole size; 0 if
 * more bytes are needed; -EMSGSIZE if the head announces more than `max` (close the link). */
int frame_next(const uint8_t *data, size_t len, size_t max, const uint8_t **ret_payload,
	       size_t *ret_payload_len, size_t *ret_frame_len);
