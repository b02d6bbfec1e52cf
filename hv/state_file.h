/* state_file.h: the state file of a snapshot: bytes and their meaning, nothing about KVM. Pure but
 * for the two functions with a descriptor; built everywhere.
 *
 *   0   8  "TBVMSTAT"
 *   8   4  version, big-endian
 *  12   4  length of the record
 *  16   8  checksum over the 16 bytes before and the record (state_file_sum)
 *  24      one protobuf record, VmSnapshot (proto/hv_state.proto)
 *
 * The checksum finds accidents; a forged file has a good one. Whoever gets a record from here may
 * rely on every bound that hv_state.proto states; what the machine must agree with is snapshot.h's.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "hv/fault.h"
#include "lib/buf.h"
#include "proto/hv_state.pb-c.h"

enum {
	STATE_FILE_VERSION = 1,
	STATE_FILE_HEAD = 24,
	STATE_FILE_MAX = 1 << 20, /* bytes; 8 vCPUs take 60,000 */
	STATE_REGISTERS_MAX = 2048, /* of one vCPU */
};

/* The checksum of a file with this head and record: each eight bytes (little-endian, zeros behind
 * the last ones) are mixed into it by a function that no two values share a result of, so that a
 * change within eight of them is found for certain, any other but once in 2^64. */
uint64_t state_file_sum(const uint8_t head[16], const uint8_t *record, size_t len);
/* Appends the file. The record is ours and within its bounds (asserted by size). */
void state_file_encode(const Tb__VmSnapshot *snapshot, struct buf *out);
/* 0 and *ret, owned by the caller (tb__vm_snapshot__free_unpacked with NULL); -EBADMSG and a
 * sentence for anything that is no sound state file. Memory is bounded by the length. */
int state_file_decode(const uint8_t *data, size_t len, Tb__VmSnapshot **ret, struct fault *fault);

/* From its beginning; what it held is lost. */
int state_file_write(int fd, const Tb__VmSnapshot *snapshot, struct fault *fault);
int state_file_read(int fd, Tb__VmSnapshot **ret, struct fault *fault);
