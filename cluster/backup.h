/* backup.h: the file that "witnessctl cluster backup" writes. Pure.
 *
 *   0  magic "TBBACKUP"
 *   8  layout version, 32 bits big-endian
 *  12  length of the head, 32 bits
 *  16  the head: a packed Tb__BackupHead, so that a file tells what it is
 *      the model: a snapshot (snapshot.h), as the boards' logs have it
 *      SHA-256 of all before
 *
 * It holds the keys of the cluster's CAs: whoever has it can make certificates. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "proto/api.pb-c.h"

enum { BACKUP_VERSION = 1, BACKUP_MAX = 256 << 20 };

/* Appends the file. What the head says of the cluster is read from the model; the caller gives
 * taken_ms, board and version. -EBADMSG: the model is none. */
int backup_seal(const Tb__BackupHead *about, const uint8_t *model, size_t len, struct buf *out);

/* 0: *ret_head (the caller frees it) and where in `data` the model is. -EBADMSG and what is wrong,
 * in words (static). The model is sound as far as its checksum tells; store_restore says the rest.
 */
int backup_open(const uint8_t *data, size_t len, Tb__BackupHead **ret_head,
		const uint8_t **ret_model, size_t *ret_len, const char **ret_problem);
