/* crc.h: CRC-32, polynomial 0x04c11db7, most significant bit first, without the customary
 * inversions: the form that raft's files on disk have. Finds accidents, not attacks; zeros in
 * front of the data go unseen, so begin with a magic word or a length. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* crc: 0 to begin with, or an earlier result: crc_add(crc_add(0, a), b) is that of a followed by b.
 */
uint32_t crc_add(uint32_t crc, const void *data, size_t len);
