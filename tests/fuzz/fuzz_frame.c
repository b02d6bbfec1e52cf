/* Frames of a link between boards: any bytes end in messages or an error, within the bound of
 * memory, and what was read can be written, copied and shown. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "lib/buf.h"
#include "proto/frame.h"
#include "proto/json.h"
#include "proto/peer.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const ProtobufCMessage *message)
{
	ProtobufCMessage *copy = message_copy(message);
	struct buf out = {0};

	json_encode(copy, &out);
	frame_append(&out, copy);
	buf_free(&out);
	protobuf_c_message_free_unpacked(copy, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *payload;
	size_t payload_len;
	size_t frame_len;

	while (frame_next(data, size, FRAME_MAX, &payload, &payload_len, &frame_len) == 1) {
		ProtobufCMessage *message;
		int rv = frame_unpack(&tb__peer_frame__descriptor, payload, payload_len,
				      FRAME_MEMORY(payload_len), &message);

		if (rv == 0) {
			use(message);
			protobuf_c_message_free_unpacked(message, NULL);
		}
		/* A tight bound makes each allocation fail at some input. */
		if (frame_unpack(&tb__peer_frame__descriptor, payload, payload_len, payload_len * 8,
				 &message) == 0)
			protobuf_c_message_free_unpacked(message, NULL);
		if (frame_len > size)
			abort();
		data += frame_len;
		size -= frame_len;
	}
	return 0;
}
