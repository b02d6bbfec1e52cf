/* What an agent reads from outside: its settings, beacons of peers, the answer to an enrolment, the
 * status of another agent, and frames of a board with the claim that they move.
 *
 * Input: one byte which of them, then its bytes. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/beacon.h"
#include "agent/claim.h"
#include "agent/control.h"
#include "agent/enroll.h"
#include "agent/settings.h"
#include "lib/mem.h"
#include "proto/agent.pb-c.h"
#include "proto/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_settings(const uint8_t *data, size_t size)
{
	struct settings s;
	char *message = NULL;
	uint32_t nodes[WITNESS_AGENT_NODES];

	settings_init(&s);
	if (settings_parse(&s, "f", (const char *)data, size, &message) == 0) {
		assert(settings_nodes(&s, nodes) <= WITNESS_AGENT_NODES);
		if (settings_check(&s, &message) != 0)
			assert(message != NULL);
	} else {
		assert(message != NULL);
	}
	free(message);
	settings_free(&s);
}

static void fuzz_answer(const uint8_t *data, size_t size)
{
	const char *body;
	size_t len;
	unsigned status;

	if (enroll_answer_parse((const char *)data, size, &status, &body, &len) == 0)
		assert(body >= (const char *)data && body + len <= (const char *)data + size);
}

static void fuzz_status(const uint8_t *data, size_t size)
{
	char *text = mem_strndup((const char *)data, size);

	control_status_held(text, 1000);
	free(text);
}

/* Whatever a board says, what holds is within what was sent. */
static void fuzz_frames(const uint8_t *data, size_t size)
{
	struct claim c;
	uint64_t now = 10000;
	struct claim_out out = {0};

	claim_init(&c, 6000, 1000, 1);
	claim_want(&c, true, now, &out);
	claim_connected(&c, now, &out);
	while (size > 0) {
		const uint8_t *payload;
		size_t payload_len, frame_len;
		ProtobufCMessage *message;
		const Tb__BoardFrame *frame;

		if (frame_next(data, size, 4096, &payload, &payload_len, &frame_len) != 1 ||
		    frame_unpack(&tb__board_frame__descriptor, payload, payload_len,
				 FRAME_MEMORY(payload_len), &message) != 0)
			return;
		frame = (const Tb__BoardFrame *)message;
		out = (struct claim_out){0};
		if (frame->what_case == TB__BOARD_FRAME__WHAT_LEASE)
			claim_lease(&c, frame->lease->ticket, frame->lease->yours,
				    frame->lease->epoch, frame->lease->claim, now, &out);
		else if (frame->what_case == TB__BOARD_FRAME__WHAT_RENEWED)
			claim_renewed(&c, frame->renewed->number, now, &out);
		if (out.lost)
			claim_stopped(&c, now, &out);
		protobuf_c_message_free_unpacked(message, NULL);
		data += frame_len;
		size -= frame_len;
		now += 500;
		claim_tick(&c, now, &out);
		assert(c.until_ms <= now + 6000);
		assert((c.state == CLAIM_HELD || c.state == CLAIM_STOPPING) == (c.epoch != 0));
		if (c.state == CLAIM_STOPPING)
			claim_stopped(&c, now, &out);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	switch (data[0] % 5) {
	case 0:
		fuzz_settings(data + 1, size - 1);
		break;
	case 1:
		beacon_parse(data + 1, size - 1, "shop");
		break;
	case 2:
		fuzz_answer(data + 1, size - 1);
		break;
	case 3:
		fuzz_status(data + 1, size - 1);
		break;
	default:
		fuzz_frames(data + 1, size - 1);
		break;
	}
	return 0;
}
