/* snapshot.h: the bytes of a snapshot, written and read record by record, so that nobody needs
 * the messages of a whole model at once and a row's bytes stay as they are. Pure.
 *
 * A head, all integers big-endian, then a packed Tb__Snapshot (the message):
 *
 *   0  magic "TBSNAPSH"
 *   8  layout version, 32 bits
 *  12  length of the message in bytes, 64 bits
 *  20  SHA-256 of the message
 *  52  the message
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

enum { SNAPSHOT_VERSION = 1, SNAPSHOT_HEAD = 52, SNAPSHOT_SUM = 32, SNAPSHOT_ROW_MAX = 127 };

/* Appends the message's own fields; records follow. */
void snapshot_put_start(struct buf *message, uint64_t applied_index);
/* Appends a record; `row` is a Tb__Snapshot__Record__RowCase, `body` a packed row. */
void snapshot_put_record(struct buf *message, unsigned row, const void *body, size_t len);
/* Appends head and message to `out`. */
void snapshot_seal(const struct buf *message, struct buf *out);
void snapshot_sum(const void *data, size_t len, uint8_t sum[SNAPSHOT_SUM]);

/* What is left to read of a message; the bytes are the caller's. */
struct snapshot_reader {
	const uint8_t *data;
	size_t len;
	uint64_t applied_index; /* once it was read; 0 before */
};

struct snapshot_record {
	unsigned row; /* 0..SNAPSHOT_ROW_MAX */
	const uint8_t *body; /* within the reader's bytes */
	size_t len;
};

/* Checks the head and starts behind it. -EBADMSG and what is wrong (static text). */
int snapshot_open(const uint8_t *data, size_t len, struct snapshot_reader *ret,
		  const char **ret_problem);
/* 1 and the next record, 0 at the end, -EBADMSG. */
int snapshot_next(struct snapshot_reader *r, struct snapshot_record *ret);
