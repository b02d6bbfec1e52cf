#include "proto/frame.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "lib/mem.h"
#include "proto/reflect.h"

void frame_append(struct buf *out, const ProtobufCMessage *message)
{
	size_t len = protobuf_c_message_get_packed_size(message);

	assert(len < FRAME_MAX);
	buf_put_u32(out, (uint32_t)len);
	protobuf_c_message_pack(message, buf_reserve(out, len));
	out->len += len;
}

size_t frame_payload_len(const uint8_t head[FRAME_HEAD])
{
	return (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
}

int frame_next(const uint8_t *data, size_t len, size_t max, const uint8_t **ret_payload,
	       size_t *ret_payload_len, size_t *ret_frame_len)
{
	size_t payload_len;

	if (len < FRAME_HEAD)
		return 0;
	payload_len = frame_payload_len(data);
	if (payload_len > max)
		return -EMSGSIZE;
	if (len - FRAME_HEAD < payload_len)
		return 0;
	*ret_payload = data + FRAME_HEAD;
	*ret_payload_len = payload_len;
	*ret_frame_len = FRAME_HEAD + payload_len;
	return 1;
}

/* What is left of a budget; spent by every allocation, not given back by a free. */
struct budget {
	size_t left;
	bool exceeded;
};

static void *budget_alloc(void *arg, size_t size)
{
	enum { CHUNK_OVERHEAD = 16 };
	struct budget *budget = arg;

	if (budget->left < CHUNK_OVERHEAD || size > budget->left - CHUNK_OVERHEAD) {
		budget->exceeded = true;
		return NULL;
	}
	budget->left -= size + CHUNK_OVERHEAD;
	return mem_alloc(size);
}

static void budget_free(void *arg, void *data)
{
	(void)arg;
	free(data);
}

static bool can_be_packed(const ProtobufCMessage *message);

static bool field_can_be_packed(const ProtobufCMessage *message, const message_field *field)
{
	ProtobufCMessage *const *items = field_at(message, field);
	size_t count = 1;

	if (field->type != PROTOBUF_C_TYPE_MESSAGE || !field_is_present(message, field))
		return true;
	if (field_is_repeated(field)) {
		count = *field_count(message, field);
		items = *(ProtobufCMessage *const **)field_at(message, field);
	}
	for (size_t i = 0; i < count; i++)
		if (!can_be_packed(items[i]))
			return false;
	return true;
}

/* protobuf-c takes an unknown field of number 0 if its tag is written too long, and cannot read
 * what it packs then: a command with one would make a log entry that no board can read. */
static bool can_be_packed(const ProtobufCMessage *message)
{
	const message_type *type = message->descriptor;

	for (unsigned i = 0; i < message->n_unknown_fields; i++)
		if (message->unknown_fields[i].tag == 0)
			return false;
	for (unsigned i = 0; i < type->n_fields; i++)
		if (!field_can_be_packed(message, &type->fields[i]))
			return false;
	return true;
}

int frame_unpack(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t len,
		 size_t max_memory, ProtobufCMessage **ret)
{
	struct budget budget = {.left = max_memory};
	ProtobufCAllocator allocator = {
		.alloc = budget_alloc, .free = budget_free, .allocator_data = &budget};
	ProtobufCMessage *message = protobuf_c_message_unpack(type, &allocator, len, data);

	if (message == NULL)
		return budget.exceeded ? -E2BIG : -EBADMSG;
	if (!can_be_packed(message)) {
		protobuf_c_message_free_unpacked(message, NULL);
		return -EBADMSG;
	}
	*ret = message;
	return 0;
}
