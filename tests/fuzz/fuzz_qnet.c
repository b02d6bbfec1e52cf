/* The QNet codec: any bytes decode to a message or to an error, and what was decoded comes back
 * the same from its own encoding. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "proto/qnet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(const struct qnet_message *a, const struct qnet_message *b)
{
	struct qnet_message x = *a;
	struct qnet_message y = *b;

	assert(x.name_len == y.name_len);
	assert(x.name_len == 0 || memcmp(x.name, y.name, x.name_len) == 0);
	x.name = y.name = NULL;
	assert(x.node_count == y.node_count);
	for (unsigned i = 0; i < x.node_count; i++)
		assert(x.nodes[i].id == y.nodes[i].id &&
		       x.nodes[i].data_center == y.nodes[i].data_center &&
		       x.nodes[i].state == y.nodes[i].state);
	assert(memcmp(&x, &y, offsetof(struct qnet_message, nodes)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf wire = {0};
	struct qnet_message first;
	struct qnet_message second;
	uint8_t *message;

	/* The head's length is the reader's business: put in what the decoder may rely on. */
	if (size < QNET_HEAD || size > QNET_MESSAGE_MAX)
		return 0;
	message = mem_dup(data, size);
	for (unsigned i = 0; i < 4; i++)
		message[2 + i] = (uint8_t)((size - QNET_HEAD) >> (24 - 8 * i));
	if (qnet_decode(message, size, &first) == 0) {
		qnet_complete(&first);
		qnet_encode(&first, &wire);
		if (qnet_decode(wire.data, wire.len, &second) != 0)
			abort();
		check_same(&first, &second);
	}
	buf_free(&wire);
	free(message);
	return 0;
}
