/* identity.h: who this board is: files in the data directory, read and written in one place.
 *
 *   node.key         PEM, 0600, never leaves the board
 *   node.crt         PEM, signed by the cluster CA
 *   ca.crt           PEM, the cluster CA
 *   identity.json    tb.LocalIdentity as JSON: cluster id, node id, name, addresses
 *   raft/            the log (cluster/engine.h)
 *
 * identity.json is written last, by rename after fsync: a board with it has joined, a board
 * without it is new, whatever else lies there. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cluster/limits.h"

/* Another board, as told when this one joined: until the model names it, its links come from here.
 */
struct identity_seed {
	uint64_t node_id;
	char address[272];
};

struct identity {
	char cluster_id[33];
	uint64_t node_id;
	char node_name[65];
	char address[272];
	char qnet_address[272];
	char *key; /* PEM, owned */
	char *cert; /* PEM, owned: the board's, then what leads from it to a CA of before */
	char *next_cert; /* PEM, owned: recorded for the board, not on its disk yet; NULL: none */
	char *ca_cert; /* PEM, owned: the CA that signs, then others that are believed */
	struct identity_seed seeds[LIMIT_NODES];
	unsigned seed_count;
};

/* 0; -ENOENT: a new board; other: *ret_message names file, cause and remedy. */
int identity_load(const char *data_dir, struct identity *ret, const char **ret_message);
int identity_save(const char *data_dir, const struct identity *id, const char **ret_message);
/* A file with this content, or the one that was there: written beside, flushed, renamed. */
int identity_file_write(const char *dir, const char *name, mode_t mode, const void *data,
			size_t len);
/* Ignored if it does not fit. */
void identity_seed_add(struct identity *id, uint64_t node_id, const char *address);
/* Marks a new log directory as this cluster's. 0, or -errno and *ret_message. */
int identity_log_mark(const char *raft_dir, const struct identity *id, const char **ret_message);
/* Is the log in there the one that belongs to this identity? 0; -EINVAL: it is another cluster's or
 * board's, or gone: with a vote of its own forgotten, a board could vote twice. */
int identity_log_check(const char *raft_dir, const struct identity *id, const char **ret_message);
/* Bytes of the first certificate of a PEM text, with its line end. */
size_t identity_pem_first(const char *pem);
void identity_free(struct identity *id);
