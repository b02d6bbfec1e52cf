/* A session of the site door fed with anything: bytes of a client in any pieces, orders of an
 * arbiter in any order, time. It may refuse and close; its memory stays bounded, and everything
 * that it sends is whole messages of a server.
 *
 * Input: steps of one byte what (low 3 bits) and one byte how long, then that many bytes. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "witnessd/qnet_session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int fuzz_site(void *arg, const char *name, struct qnet_site *ret)
{
	(void)name;
	*ret = *(const struct qnet_site *)arg;
	return 0;
}

static void check_out(struct qnet_out *out)
{
	size_t at = 0;

	while (at < out->wire.len) {
		struct qnet_message m;
		size_t len;

		assert(out->wire.len - at >= QNET_HEAD);
		len = QNET_HEAD + (size_t)qnet_head_read(out->wire.data + at).body;
		assert(len <= out->wire.len - at && len <= QNET_MESSAGE_MAX);
		if (qnet_decode(out->wire.data + at, len, &m) != 0 || !qnet_from_server(m.type))
			abort();
		at += len;
	}
	for (size_t i = 0; i < out->events.count; i++) {
		size_t packed = tb__door_event__get_packed_size(out->events.items[i]);

		assert(packed < 4096);
	}
	qnet_out_free(out);
}

/* An order made of the bytes: the arbiter of another release may say anything. */
static enum qnet_verdict fuzz_order(struct qnet_session *s, const struct qnet_world *w,
				    const uint8_t *bytes, size_t len, struct qnet_out *out)
{
	Tb__DoorOrder *order = tb__door_order__unpack(NULL, len, bytes);
	enum qnet_verdict verdict = QNET_GO_ON;

	if (order != NULL)
		verdict = qnet_session_order(s, w, order, out);
	if (order != NULL)
		tb__door_order__free_unpacked(order, NULL);
	return verdict;
}

/* The order that opens a session, so that the fuzzer gets behind INIT easily. */
static enum qnet_verdict accept_init(struct qnet_session *s, const struct qnet_world *w,
				     struct qnet_out *out)
{
	Tb__DoorInitReply reply = TB__DOOR_INIT_REPLY__INIT;
	Tb__DoorOrder order = TB__DOOR_ORDER__INIT;

	reply.seq = s->init_seq;
	order.what_case = TB__DOOR_ORDER__WHAT_INIT_REPLY;
	order.init_reply = &reply;
	return qnet_session_order(s, w, &order, out);
}

static enum qnet_verdict step(struct qnet_session *s, struct qnet_world *w, uint8_t what,
			      const uint8_t *bytes, size_t len, struct qnet_out *out)
{
	uint8_t *copy = mem_dup(bytes, len);
	enum qnet_verdict verdict = QNET_GO_ON;
	size_t used = len;

	if (s->state == QNET_SECURING) {
		verdict = qnet_session_secured(s, what & 1 ? "aa" : NULL, what & 2, out);
	} else if ((what & 7) == 6) {
		verdict = fuzz_order(s, w, copy, len, out);
	} else if ((what & 7) == 7) {
		qnet_session_report(s, w, out);
		w->now_ms += len;
		verdict = accept_init(s, w, out);
	} else {
		verdict = qnet_session_receive(s, w, copy, len, &used, out);
		assert(used <= len && (used == len || verdict != QNET_GO_ON));
	}
	free(copy);
	return verdict;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct qnet_site site = {.heartbeat_min_ms = 1000, .heartbeat_max_ms = 120000};
	struct qnet_world w = {.arg = &site, .site = fuzz_site, .board = 1, .now_ms = 1};
	struct qnet_session s;
	enum qnet_verdict verdict = QNET_GO_ON;
	struct qnet_out out = {0};
	size_t at = 1;

	if (size == 0)
		return 0;
	site.tls = (enum qnet_tls)(data[0] % 3);
	site.certificate = data[0] & 4;
	site.fast = data[0] & 8;
	qnet_session_init(&s, 77, "10.0.0.1:1", w.now_ms);
	while (size - at >= 2 && verdict != QNET_CLOSE && verdict != QNET_ABORT) {
		size_t len = data[at + 1];

		if (len > size - at - 2)
			len = size - at - 2;
		verdict = step(&s, &w, data[at], data + at + 2, len, &out);
		assert(s.partial.cap <= 2 * QNET_MESSAGE_MAX);
		check_out(&out);
		at += 2 + len;
	}
	qnet_session_close(&s, TB__DOOR_CLOSED__REASON__BY_CLIENT, w.now_ms, &out);
	check_out(&out);
	qnet_session_free(&s);
	return 0;
}
