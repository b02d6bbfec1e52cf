/* parcel.h: the model's bytes as they are stored and sent: compressed, with checksums. Pure.
 *
 * The library could compress by itself, but it loops for ever on a snapshot file that was cut off
 * (docs/decisions/0005-raft-engine.md), checks nothing if compression is off, and sends it
 * uncompressed. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

/* Little endian. The stored bytes follow: an LZ4 block, or as they are if raw == stored. */
struct parcel_head {
	char magic[8];
	uint64_t index; /* the last entry in it */
	uint64_t raw; /* bytes of the model */
	uint64_t stored; /* bytes behind this head */
	uint32_t stored_crc;
	uint32_t head_crc; /* of everything before it */
};

/* The model's bytes, packed. *ret is malloc'ed and the caller's; returns its length. */
size_t parcel_pack(uint64_t index, const struct buf *model, uint8_t **ret);
/* True if these are the bytes of one whole, undamaged snapshot. */
bool parcel_sound(const uint8_t *data, size_t len);
/* The model's bytes of a sound snapshot, appended to *model. 0, or -EBADMSG. */
int parcel_unpack(const uint8_t *data, size_t len, struct buf *model);
