/* logcheck.h: may the raft files of a directory be trusted? Asked before the library reads them,
 * because it goes on without entries that it cannot read, and fails assertions on some states that
 * a crash can leave (docs/decisions/0005-raft-engine.md). Links nothing of the library. */
#pragma once
#include <stdint.h>

enum { LOGCHECK_MESSAGE = 512 };

struct logcheck {
	const char *dir; /* for messages */
	int dir_fd;
	uint64_t cut; /* of the ballot */
	uint64_t install; /* of the ballot */
	char message[LOGCHECK_MESSAGE]; /* out, after an error: what, where, remedy */
};

/* What to do about a damaged log. */
#define LOGCHECK_REMEDY                                                                            \
	"remove this board from the cluster, empty the directory and join it anew (a cluster of "  \
	"one board: restore its backup)"

/* 0 if the directory holds no raft file, else -EEXIST. */
int logcheck_empty(int dir_fd);
/* Removes what an interrupted bootstrap leaves. -EEXIST if there is more than that. */
int logcheck_discard_bootstrap(int dir_fd);
/* Reads and checks everything that will be loaded. Then, and only if all is sound, finishes what a
 * crash has interrupted: a cut, the installing of a snapshot, torn ends.
 * 0; -EBADMSG: damaged, nothing was changed; or what the file system says. */
int logcheck_run(struct logcheck *c);
