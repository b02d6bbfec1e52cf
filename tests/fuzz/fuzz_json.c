/* JSON from clients: the first byte chooses the type, the rest is the text. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "proto/api.pb-c.h"
#include "proto/json.h"
#include "proto/peer.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const ProtobufCMessageDescriptor *const types[] = {
	&tb__site__descriptor,	&tb__site_bulk__descriptor,  &tb__token__descriptor,
	&tb__grant__descriptor, &tb__peer_query__descriptor, &tb__command__descriptor,
};

static void must(int ok)
{
	if (!ok)
		abort();
}

static void must_equal(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
	size_t len = protobuf_c_message_get_packed_size(a);
	uint8_t *packed_a = mem_alloc(len);
	uint8_t *packed_b;

	must(protobuf_c_message_get_packed_size(b) == len);
	packed_b = mem_alloc(len);
	protobuf_c_message_pack(a, packed_a);
	protobuf_c_message_pack(b, packed_b);
	must(memcmp(packed_a, packed_b, len) == 0);
	free(packed_a);
	free(packed_b);
}

/* What we write we can read, and it is the same. */
static void check_written(const ProtobufCMessage *message,
			  void (*encode)(const ProtobufCMessage *message, struct buf *out))
{
	struct buf text = {0};
	struct json_error error;
	ProtobufCMessage *again = NULL;

	encode(message, &text);
	must(json_decode(message->descriptor, (const char *)text.data, text.len, &again, &error) ==
	     0);
	must_equal(message, again);
	protobuf_c_message_free_unpacked(again, NULL);
	buf_free(&text);
}

/* A text merged into an empty message, and into itself, is the text. */
static void check_merged(const ProtobufCMessage *message, const char *text, size_t len)
{
	struct json_error error;
	ProtobufCMessage *merged = NULL;

	must(json_decode(message->descriptor, "{}", 2, &merged, &error) == 0);
	for (int i = 0; i < 2; i++) {
		must(json_merge(merged, text, len, &error) == 0);
		must_equal(message, merged);
	}
	protobuf_c_message_free_unpacked(merged, NULL);
}

/* A patch on a message that has something of everything: any end is fine, but a clean one. */
static void check_patch(const ProtobufCMessageDescriptor *type, const char *text, size_t len)
{
	static const char site[] =
		"{\"name\":\"a\",\"labels\":{\"a\":\"1\",\"b\":\"2\"},\"policy\":{}}";
	struct json_error error;
	ProtobufCMessage *message = NULL;

	if (type != &tb__site__descriptor)
		return;
	must(json_decode(type, site, strlen(site), &message, &error) == 0);
	if (json_merge(message, text, len, &error) == 0)
		check_written(message, json_encode);
	else
		must(error.message[0] != '\0');
	protobuf_c_message_free_unpacked(message, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const ProtobufCMessageDescriptor *type;
	const char *text = (const char *)data + 1;
	struct json_error error;
	ProtobufCMessage *message;

	if (size < 1)
		return 0;
	type = types[data[0] % (sizeof(types) / sizeof(types[0]))];
	check_patch(type, text, size - 1);
	if (json_decode(type, text, size - 1, &message, &error) != 0) {
		must(error.message[0] != '\0');
		return 0;
	}
	check_written(message, json_encode);
	check_written(message, json_encode_full);
	check_merged(message, text, size - 1);
	protobuf_c_message_free_unpacked(message, NULL);
	return 0;
}
