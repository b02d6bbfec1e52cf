/* memory_file.h: the memory file of a snapshot: the guest's memory at its offsets, so that it can
 * be mapped; pages of zeros are holes. Behind it one page that says what it is:
 *
 *   size of the memory   8  "TBVMMEMO"
 *                      + 8  size of the memory, big-endian
 *                      +16  16 bytes, the state file's memory_id
 *                      +32  zeros up to 4096
 *
 * That page is written last: a file without it was never finished. */
#pragma once
#include <stdint.h>

#include "hv/fault.h"
#include "hv/image.h"
#include "hv/ram.h"

enum { MEMORY_FILE_ID = 16, MEMORY_FILE_TAIL = 4096 };

/* From its beginning; what it held is lost. The guest stands still. Not synced. */
int memory_file_write(int fd, const struct ram *r, const uint8_t id[MEMORY_FILE_ID],
		      struct fault *fault);
/* -EBADMSG and a sentence unless it is a whole file for `size` bytes of memory with this id. */
int memory_file_check(int fd, uint64_t size, const uint8_t id[MEMORY_FILE_ID], struct fault *fault);
/* Copies it into memory that reads as zeros; holes stay untouched. Others have their turns, as
 * while a kernel is read; -ECANCELED and no sentence when one ended it. */
int memory_file_read(int fd, struct ram *r, const struct image_turn *turn, struct fault *fault);
