#include "cluster/snapshot.h"

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

static const char magic[8] = {'T', 'B', 'S', 'N', 'A', 'P', 'S', 'H'};

/* Field numbers of Tb__Snapshot, as in command.proto. */
enum { FIELD_VERSION = 1, FIELD_APPLIED = 2, FIELD_RECORD = 3 };
enum { WIRE_VARINT = 0, WIRE_BYTES = 2 };

void snapshot_sum(const void *data, size_t len, uint8_t sum[SNAPSHOT_SUM])
{
	unsigned sum_len = SNAPSHOT_SUM;
	int ok = EVP_Digest(data, len, sum, &sum_len, EVP_sha256(), NULL);

	assert(ok == 1 && sum_len == SNAPSHOT_SUM);
}

/* --- writing --------------------------------------------------------------------------------- */

static size_t varint_len(uint64_t value)
{
	size_t len = 1;

	while (value >= 0x80) {
		value >>= 7;
		len++;
	}
	return len;
}

static void varint_put(struct buf *out, uint64_t value)
{
	while (value >= 0x80) {
		buf_put_u8(out, (uint8_t)(value | 0x80));
		value >>= 7;
	}
	buf_put_u8(out, (uint8_t)value);
}

static void tag_put(struct buf *out, unsigned field, unsigned wire)
{
	assert(field > 0 && field <= SNAPSHOT_ROW_MAX);
	varint_put(out, (uint64_t)field << 3 | wire);
}

void snapshot_put_start(struct buf *message, uint64_t applied_index)
{
	tag_put(message, FIELD_VERSION, WIRE_VARINT);
	varint_put(message, SNAPSHOT_VERSION);
	if (applied_index != 0) {
		tag_put(message, FIELD_APPLIED, WIRE_VARINT);
		varint_put(message, applied_index);
	}
}

void snapshot_put_record(struct buf *message, unsigned row, const void *body, size_t len)
{
	tag_put(message, FIELD_RECORD, WIRE_BYTES);
	varint_put(message, varint_len((uint64_t)row << 3) + varint_len(len) + len);
	tag_put(message, row, WIRE_BYTES);
	varint_put(message, len);
	buf_append(message, body, len);
}

void snapshot_seal(const struct buf *message, struct buf *out)
{
	uint8_t sum[SNAPSHOT_SUM];

	snapshot_sum(message->data, message->len, sum);
	buf_append(out, magic, sizeof(magic));
	buf_put_u32(out, SNAPSHOT_VERSION);
	buf_put_u64(out, message->len);
	buf_append(out, sum, sizeof(sum));
	buf_append(out, message->data, message->len);
}

/* --- reading --------------------------------------------------------------------------------- */

static uint64_t big_endian(const uint8_t *data, size_t len)
{
	uint64_t value = 0;

	while (len-- > 0)
		value = value << 8 | *data++;
	return value;
}

int snapshot_open(const uint8_t *data, size_t len, struct snapshot_reader *ret,
		  const char **ret_problem)
{
	uint8_t sum[SNAPSHOT_SUM];
	const char *what = NULL;

	if (len < SNAPSHOT_HEAD || memcmp(data, magic, sizeof(magic)) != 0)
		what = "this is not a snapshot of a Tiebreak cluster";
	else if (big_endian(data + 8, 4) != SNAPSHOT_VERSION)
		what = "the snapshot has a layout that this release does not read";
	else if (big_endian(data + 12, 8) != len - SNAPSHOT_HEAD)
		what = "the snapshot is cut off or has bytes behind its end";
	if (what == NULL) {
		snapshot_sum(data + SNAPSHOT_HEAD, len - SNAPSHOT_HEAD, sum);
		if (memcmp(sum, data + 20, sizeof(sum)) != 0)
			what = "the snapshot is damaged: its checksum does not match";
	}
	if (what != NULL) {
		*ret_problem = what;
		return -EBADMSG;
	}
	*ret = (struct snapshot_reader){data + SNAPSHOT_HEAD, len - SNAPSHOT_HEAD, 0};
	return 0;
}

static int varint_take(struct snapshot_reader *r, uint64_t *ret)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < 64 && r->len > 0; shift += 7) {
		uint8_t byte = *r->data++;

		r->len--;
		if (shift == 63 && byte > 1)
			return -EBADMSG;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*ret = value;
			return 0;
		}
	}
	return -EBADMSG;
}

static int bytes_take(struct snapshot_reader *r, struct snapshot_reader *ret)
{
	uint64_t len;

	if (varint_take(r, &len) != 0 || len > r->len)
		return -EBADMSG;
	*ret = (struct snapshot_reader){r->data, (size_t)len, 0};
	r->data += len;
	r->len -= (size_t)len;
	return 0;
}

static int record_take(struct snapshot_reader *r, struct snapshot_record *ret)
{
	struct snapshot_reader record;
	struct snapshot_reader body;
	uint64_t tag;

	if (bytes_take(r, &record) != 0 || varint_take(&record, &tag) != 0 ||
	    (tag & 7) != WIRE_BYTES || tag >> 3 > SNAPSHOT_ROW_MAX ||
	    bytes_take(&record, &body) != 0 || record.len != 0)
		return -EBADMSG;
	*ret = (struct snapshot_record){(unsigned)(tag >> 3), body.data, body.len};
	return 1;
}

int snapshot_next(struct snapshot_reader *r, struct snapshot_record *ret)
{
	while (r->len > 0) {
		uint64_t version;
		uint64_t tag;

		if (varint_take(r, &tag) != 0)
			return -EBADMSG;
		if (tag == (FIELD_RECORD << 3 | WIRE_BYTES))
			return record_take(r, ret);
		if (tag == (FIELD_APPLIED << 3 | WIRE_VARINT)) {
			if (varint_take(r, &r->applied_index) != 0)
				return -EBADMSG;
		} else if (tag != (FIELD_VERSION << 3 | WIRE_VARINT) ||
			   varint_take(r, &version) != 0 || version != SNAPSHOT_VERSION) {
			return -EBADMSG;
		}
	}
	return 0;
}
