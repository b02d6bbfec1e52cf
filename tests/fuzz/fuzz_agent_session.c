/* A connection of an agent at a board's door fed with anything: frames in any pieces, orders of an
 * arbiter in any order, time. It may refuse and close; its memory stays bounded, and everything
 * that it sends is whole frames of a board. What it tells the arbiter is within the model's bounds.
 *
 * Input: steps of one byte what (low 2 bits) and one byte how long, then that many bytes. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "proto/agent.pb-c.h"
#include "proto/frame.h"
#include "witnessd/agent_session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_out(struct agent_out *out)
{
	size_t at = 0;

	while (at < out->wire.len) {
		ProtobufCMessage *frame;
		const uint8_t *payload;
		size_t payload_len, frame_len;

		if (frame_next(out->wire.data + at, out->wire.len - at, FRAME_MAX, &payload,
			       &payload_len, &frame_len) != 1 ||
		    frame_unpack(&tb__board_frame__descriptor, payload, payload_len,
				 FRAME_MEMORY(payload_len), &frame) != 0)
			abort();
		protobuf_c_message_free_unpacked(frame, NULL);
		at += frame_len;
	}
	for (size_t i = 0; i < out->events.count; i++) {
		assert((out->events.items[i]->session & AGENT_SESSION) != 0);
		assert(tb__door_event__get_packed_size(out->events.items[i]) < 4096);
	}
	agent_out_free(out);
}

static enum agent_verdict fuzz_order(struct agent_session *s, const struct agent_world *w,
				     const uint8_t *bytes, size_t len, struct agent_out *out)
{
	Tb__DoorOrder *order = tb__door_order__unpack(NULL, len, bytes);
	enum agent_verdict verdict = AGENT_GO_ON;

	if (order != NULL)
		verdict = agent_session_order(s, w, order, out);
	tb__door_order__free_unpacked(order, NULL);
	return verdict;
}

/* The order that opens a session, so that the fuzzer gets behind the hello easily. */
static enum agent_verdict accept_hello(struct agent_session *s, const struct agent_world *w,
				       struct agent_out *out)
{
	Tb__DoorOrder order = TB__DOOR_ORDER__INIT;
	Tb__DoorInitReply reply = TB__DOOR_INIT_REPLY__INIT;

	order.what_case = TB__DOOR_ORDER__WHAT_INIT_REPLY;
	order.init_reply = &reply;
	return agent_session_order(s, w, &order, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct agent_world w = {.board = 1, .board_name = "b", .now_ms = 1000};
	enum agent_verdict verdict = AGENT_GO_ON;
	struct agent_session s;

	agent_session_init(&s, 1, "shop", 1, "00", "10.0.0.1:5", w.now_ms);
	while (size >= 2 && verdict == AGENT_GO_ON) {
		size_t len = data[1] < size - 2 ? data[1] : size - 2;
		const uint8_t *bytes = data + 2;
		struct agent_out out = {0};

		if ((data[0] & 3) == 0)
			verdict = fuzz_order(&s, &w, bytes, len, &out);
		else if ((data[0] & 3) == 1)
			verdict = accept_hello(&s, &w, &out);
		else
			verdict = agent_session_receive(&s, &w, bytes, len, &out);
		w.now_ms += data[0];
		assert(s.partial.len <= AGENT_FRAME_MAX + FRAME_HEAD + 255);
		if ((data[0] & 0x80) != 0)
			agent_session_report(&s, &w, &out);
		check_out(&out);
		data += 2 + len;
		size -= 2 + len;
	}
	agent_session_free(&s);
	return 0;
}
