/* frame.h: a protobuf message on a byte stream: 4 bytes big-endian length, then the message.
 * The length is checked before anything is allocated. */
#pragma once
#include <protobuf-c/protobuf-c.h>

#include "lib/buf.h"

enum { FRAME_HEAD = 4, FRAME_MAX = 4 << 20 };

/* The bound for frame_unpack that no honest message of `len` bytes reaches: long lists of our
 * smallest messages take 30 bytes a byte. Two hostile bytes can ask for 250. */
#define FRAME_MEMORY(len) ((size_t)(len)*32 + (1 << 20))

/* Appends head and message; the message is ours and below FRAME_MAX (asserted). */
void frame_append(struct buf *out, const ProtobufCMessage *message);
/* Bytes of the message that a head announces; from outside: to be checked before anything else. */
size_t frame_payload_len(const uint8_t head[FRAME_HEAD]);
/* The first whole frame of `data`: 1 and the payload's place and the frame's whole size; 0 if
 * more bytes are needed; -EMSGSIZE if the head announces more than `max` (close the link). */
int frame_next(const uint8_t *data, size_t len, size_t max, const uint8_t **ret_payload,
	       size_t *ret_payload_len, size_t *ret_frame_len);
/* Unpacks bytes from outside. The sum of all allocations on the way stays below `max_memory`,
 * which bounds the time too: protobuf-c copies a list again for each repetition of the field
 * that holds it. 0 and *ret, owned by the caller (protobuf_c_message_free_unpacked with NULL
 * allocator); -EBADMSG if it is no such message; -E2BIG over the bound. */
int frame_unpack(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t len,
		 size_t max_memory, ProtobufCMessage **ret);
