/* image_store.h: the files of images on this board, named by the SHA-256 of their bytes.
 *
 *   DATA/images/SHA256                whole; its digest was right when it was put there
 *   DATA/incoming/SHA256.SIZE.part    the first bytes of one of SIZE bytes; written in order
 *
 * A file is in images/ only after its digest was found right, and it and both folders were synced:
 * a power cut leaves either a part (gone on with or dropped; damage shows in the digest) or a whole
 * image. What else lies in the folders is left alone. Nothing here knows a loop or the model.
 *
 * The store itself never changes after it was opened: any thread may use it. A part or a check is
 * used by one thread at a time. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

struct image_store;
struct image_part;
struct image_check;

enum {
	IMAGE_NAME = 64, /* hex digits */
	IMAGE_PROBLEM = 256, /* room for a message below */
	IMAGE_PIECE_MAX =
		4 << 20, /* bytes of one step: so long is the disk or a core busy at once */
};

/* 64 lower-case hex digits. Every function refuses another name with -EINVAL. */
bool image_name_ok(const char *sha256);

/* Makes the folders. `space`: bytes that images may take, 0: what the file system has, less a
 * reserve for the log and the model of the board. 0, or a negative errno and *ret_message. */
int image_store_open(const char *data_dir, uint64_t space, struct image_store **ret,
		     const char **ret_message);
void image_store_close(struct image_store *s); /* NULL is fine; after its parts and checks */

/* What is there. Returns 0, or a negative errno of the folders. */
struct image_found {
	const char *sha256;
	uint64_t have; /* bytes */
	uint64_t size; /* of the whole image, as whoever began the part said */
	bool whole;
};
int image_store_list(const struct image_store *s,
		     void (*visit)(void *arg, const struct image_found *found), void *arg);
/* Is there room for so many bytes more? 0; -ENOSPC and a sentence with the arithmetic. */
int image_store_room(const struct image_store *s, uint64_t more, char message[IMAGE_PROBLEM]);
/* Drops it, whole and part. A VM that has it open keeps its bytes until it is closed. -ENOENT. */
int image_store_drop(const struct image_store *s, const char *sha256);

/* --- a part --- */

/* Begins one, or goes on with what is there. Its whole room is taken from the disk at once, if the
 * file system can. 0; -EEXIST: there are bytes of one of another size, which stay; -EINVAL, -ENOSPC
 * and others; all with a sentence. */
int image_part_open(const struct image_store *s, const char *sha256, uint64_t size,
		    struct image_part **ret, char message[IMAGE_PROBLEM]);
void image_part_close(struct image_part *p); /* what was written stays; NULL is fine */
uint64_t image_part_have(const struct image_part *p);
uint64_t image_part_size(const struct image_part *p);
/* At most IMAGE_PIECE_MAX bytes, which are hashed on the way. -ERANGE: not where it stands, or
 * beyond the size; nothing was done. Others: of the disk; close it, it can be opened again. */
int image_part_write(struct image_part *p, uint64_t offset, const void *bytes, size_t len);
/* Hashes up to IMAGE_PIECE_MAX bytes of what was there before this was opened. 1: there is more to
 * do, 0: nothing; negative errno. */
int image_part_catch_up(struct image_part *p);
/* Its bytes go; it can only be closed then. */
void image_part_drop(struct image_part *p);
/* All bytes are there and hashed (asserted): puts it among the images. -EBADMSG and a sentence: the
 * digest is another one, and the part is gone; *ret_again: it may be for what was there before this
 * was opened, so that sending it once more helps. Others: of the disk. Close it in any case. */
int image_part_finish(struct image_part *p, bool *ret_again, char message[IMAGE_PROBLEM]);

/* --- whole ones --- */

/* Tells a file from another one, and from itself after a change. */
struct image_identity {
	dev_t device;
	ino_t inode;
	uint64_t size;
	struct timespec changed; /* mtime */
};
bool image_identity_same(const struct image_identity *a, const struct image_identity *b);
/* Read-only; the caller's. */
int image_file_open(const struct image_store *s, const char *sha256, int *ret_fd,
		    struct image_identity *ret_identity);

/* Hashes a whole one in steps of IMAGE_PIECE_MAX. */
int image_check_begin(const struct image_store *s, const char *sha256, struct image_check **ret);
/* 1: there is more to do; 0: the digest is right; -EBADMSG: it is not, or the file has changed
 * meanwhile; others: of the disk. */
int image_check_step(struct image_check *c);
const struct image_identity *image_check_identity(const struct image_check *c);
void image_check_end(struct image_check *c); /* NULL is fine */
