/* logcheck.h: may the raft files of a directory be trusted? Asked before the library reads them,
 * because it takes some damage for a torn write and goes on without what lies behind it
 * (docs/decisions/0005-raft-engine.md). Knows the library's file formats, links nothing of it. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* 0 if the directory holds no raft file, else -EEXIST. */
int logcheck_empty(int dir_fd);
/* Removes what an interrupted bootstrap leaves. -EEXIST if there is more than that. */
int logcheck_discard_bootstrap(int dir_fd);
/* Reads and checks everything, and finishes what a crash has interrupted: a cut of the log from
 * entry `cut` on (0: none was begun), the clean-up behind an installed snapshot. 0, or -EBADMSG
 * or another errno with a sentence that names file and remedy; nothing was changed then. */
int logcheck_run(const char *dir, int dir_fd, uint64_t cut, char *message, size_t message_size);
