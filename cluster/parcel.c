#include "cluster/parcel.h"

#include <endian.h>
#include <errno.h>
#include <lz4.h>
#include <string.h>

#include "lib/crc.h"
#include "lib/mem.h"

static const char parcel_magic[8] = {'T', 'B', 'S', 'N', 'A', 'P', '0', '1'};

/* Returns the bytes stored at `out`, which has room for `room`. */
static size_t store(const struct buf *model, uint8_t *out, size_t room)
{
	int n = 0;

	if (model->len > 0 && model->len <= LZ4_MAX_INPUT_SIZE)
		n = LZ4_compress_default((const char *)model->data, (char *)out, (int)model->len,
					 room > INT32_MAX ? INT32_MAX : (int)room);
	if (n > 0 && (size_t)n < model->len)
		return (size_t)n;
	if (model->len > 0)
		memcpy(out, model->data, model->len);
	return model->len;
}

size_t parcel_pack(uint64_t index, const struct buf *model, uint8_t **ret)
{
	struct parcel_head head = {.index = htole64(index), .raw = htole64(model->len)};
	uint8_t *data = mem_alloc(sizeof(head) + model->len);
	size_t stored = store(model, data + sizeof(head), model->len);

	memcpy(head.magic, parcel_magic, sizeof(parcel_magic));
	head.stored = htole64(stored);
	head.stored_crc = htole32(crc_add(0, data + sizeof(head), stored));
	head.head_crc = htole32(crc_add(0, &head, offsetof(struct parcel_head, head_crc)));
	memcpy(data, &head, sizeof(head));
	*ret = data;
	return sizeof(head) + stored;
}

bool parcel_sound(const uint8_t *data, size_t len)
{
	struct parcel_head head;

	if (len < sizeof(head))
		return false;
	memcpy(&head, data, sizeof(head));
	return memcmp(head.magic, parcel_magic, sizeof(parcel_magic)) == 0 &&
	       le32toh(head.head_crc) ==
		       crc_add(0, &head, offsetof(struct parcel_head, head_crc)) &&
	       le64toh(head.stored) == len - sizeof(head) &&
	       le32toh(head.stored_crc) == crc_add(0, data + sizeof(head), len - sizeof(head));
}

int parcel_unpack(const uint8_t *data, size_t len, struct buf *model)
{
	struct parcel_head head;
	uint64_t raw, stored;
	int n;

	if (!parcel_sound(data, len))
		return -EBADMSG;
	memcpy(&head, data, sizeof(head));
	raw = le64toh(head.raw);
	stored = le64toh(head.stored);
	if (raw == stored) {
		buf_append(model, data + sizeof(head), stored);
		return 0;
	}
	if (raw > LZ4_MAX_INPUT_SIZE || stored > INT32_MAX)
		return -EBADMSG;
	n = LZ4_decompress_safe((const char *)data + sizeof(head), (char *)buf_reserve(model, raw),
				(int)stored, (int)raw);
	if (n < 0 || (uint64_t)n != raw)
		return -EBADMSG;
	model->len += raw;
	return 0;
}
