/* ballot.h: the few facts a board may never forget: its term, whom it voted for, and what it has
 * begun to do to its log.
 *
 * The raft library keeps term and vote in two files without a checksum, so that one flipped bit
 * could make a board vote twice. This file takes their place. It is written before anything that
 * follows from it leaves the board.
 *
 *   offset    0  slot of even sequence numbers      each slot: "TBBALLOT", sequence, node, term,
 *   offset 4096  slot of odd sequence numbers       vote, cut, install (u64, little endian), CRC
 *
 * A save overwrites the older slot (one sector) and syncs. A slot is blank (all zero), sound or
 * damaged; with any damaged slot the file is refused, since the newer fact may be the lost one. */
#pragma once
#include <stdint.h>

struct ballot {
	int fd; /* -1: closed */
	uint64_t sequence;
	uint64_t node; /* the board whose log this is */
	uint64_t term;
	uint64_t vote; /* 0: nobody in this term */
	uint64_t cut; /* entries from this index on are being removed; 0: no cut under way */
	uint64_t install; /* a leader's snapshot up to this index replaces the log; 0: none does */
};

/* Makes the file in `dir_fd`, durable, with b's values (sequence and fd are set here).
 * -EEXIST, or what the file system says. */
int ballot_create(struct ballot *b, int dir_fd);
/* -ENOENT: there is none; -EBADMSG: damaged. */
int ballot_load(struct ballot *b, int dir_fd);
/* Durable when it returns 0. After an error the file may hold either state: stop. */
int ballot_save(struct ballot *b);
void ballot_close(struct ballot *b);
