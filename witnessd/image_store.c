#include "witnessd/image_store.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lib/hex.h"
#include "lib/mem.h"
#include "lib/text.h"

enum {
	HASH_PIECE = 256 * 1024, /* read at once */
	MIB = 1 << 20,
};

/* Kept free for the log, its snapshots and whatever else lives on the card. */
static const uint64_t reserve_max = UINT64_C(512) * MIB;

#define PART_SUFFIX ".part"

enum { PART_NAME = IMAGE_NAME + sizeof(".18446744073709551615" PART_SUFFIX) };

struct image_store {
	int images; /* folders */
	int incoming;
	uint64_t space;
};

struct image_part {
	const struct image_store *store;
	char sha256[IMAGE_NAME + 1];
	int fd;
	uint64_t size;
	uint64_t have;
	uint64_t hashed; /* <= have; the digest is of so many bytes */
	bool resumed; /* some of it was there before */
	EVP_MD_CTX *digest;
};

struct image_check {
	char sha256[IMAGE_NAME + 1];
	int fd;
	struct image_identity identity;
	uint64_t at;
	EVP_MD_CTX *digest;
};

bool image_name_ok(const char *sha256)
{
	return strspn(sha256, "0123456789abcdef") == IMAGE_NAME && sha256[IMAGE_NAME] == '\0';
}

/* --- digests --- */

static EVP_MD_CTX *digest_new(void)
{
	EVP_MD_CTX *digest = EVP_MD_CTX_new();

	if (digest == NULL || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1)
		abort();
	return digest;
}

static void digest_add(EVP_MD_CTX *digest, const void *bytes, size_t len)
{
	if (EVP_DigestUpdate(digest, bytes, len) != 1)
		abort();
}

static void digest_hex(EVP_MD_CTX *digest, char hex[IMAGE_NAME + 1])
{
	uint8_t bytes[32];

	if (EVP_DigestFinal_ex(digest, bytes, NULL) != 1)
		abort();
	hex_encode(bytes, sizeof(bytes), hex);
}

/* The bytes from..to of a file, at most IMAGE_PIECE_MAX of them. *at moves on. A file that ends
 * before is one that somebody has cut: -EBADMSG. */
static int digest_file(EVP_MD_CTX *digest, int fd, uint64_t *at, uint64_t to)
{
	uint64_t end = to - *at > IMAGE_PIECE_MAX ? *at + IMAGE_PIECE_MAX : to;
	uint8_t *bytes = mem_alloc(HASH_PIECE);
	uint64_t from = *at;
	int rv = 0;

	while (rv == 0 && *at < end) {
		size_t want = end - *at < HASH_PIECE ? (size_t)(end - *at) : HASH_PIECE;
		ssize_t got = pread(fd, bytes, want, (off_t)*at);

		if (got < 0)
			rv = errno == EINTR ? 0 : -errno;
		else if (got == 0)
			rv = -EBADMSG;
		else
			digest_add(digest, bytes, (size_t)got);
		if (got > 0)
			*at += (uint64_t)got;
	}
	free(bytes);
	/* What was read once is not to push the board's own files out of memory. */
	posix_fadvise(fd, (off_t)from, (off_t)(*at - from), POSIX_FADV_DONTNEED);
	return rv;
}

/* --- the store --- */

static char store_message[768];

static int folder_open(int base, const char *name, int *ret)
{
	if (mkdirat(base, name, 0700) != 0 && errno != EEXIST)
		return -errno;
	*ret = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (*ret < 0)
		return -errno;
	return 0;
}

int image_store_open(const char *data_dir, uint64_t space, struct image_store **ret,
		     const char **ret_message)
{
	struct image_store *s = mem_zalloc(sizeof(*s));
	int base = open(data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const char *which = "images";
	int rv = base < 0 ? -errno : 0;

	s->space = space;
	s->images = -1;
	s->incoming = -1;
	if (rv == 0)
		rv = folder_open(base, which, &s->images);
	if (rv == 0) {
		which = "incoming";
		rv = folder_open(base, which, &s->incoming);
	}
	if (rv == 0 && fsync(base) != 0)
		rv = -errno;
	if (base >= 0)
		close(base);
	if (rv == 0) {
		*ret = s;
		return 0;
	}
	snprintf(store_message, sizeof(store_message),
		 "cannot use the folder %s/%s for images: %s; it must be a folder that this user "
		 "may write to",
		 data_dir, which, strerror(-rv));
	*ret_message = store_message;
	image_store_close(s);
	return rv;
}

void image_store_close(struct image_store *s)
{
	if (s == NULL)
		return;
	if (s->images >= 0)
		close(s->images);
	if (s->incoming >= 0)
		close(s->incoming);
	free(s);
}

static void part_name(const char *sha256, uint64_t size, char name[PART_NAME])
{
	snprintf(name, PART_NAME, "%s.%" PRIu64 PART_SUFFIX, sha256, size);
}

/* The SHA-256 of a file's name, and what follows it; NULL: a stranger. */
static const char *name_read(const char *name, char sha256[IMAGE_NAME + 1])
{
	if (strlen(name) < IMAGE_NAME)
		return NULL;
	memcpy(sha256, name, IMAGE_NAME);
	sha256[IMAGE_NAME] = '\0';
	return image_name_ok(sha256) ? name + IMAGE_NAME : NULL;
}

/* ".SIZE.part" */
static bool suffix_read(const char *suffix, uint64_t *ret_size)
{
	const char *end = strrchr(suffix, '.');
	char digits[24];

	if (suffix[0] != '.' || strcmp(end, PART_SUFFIX) != 0 || end == suffix ||
	    (size_t)(end - suffix) > sizeof(digits))
		return false;
	memcpy(digits, suffix + 1, (size_t)(end - suffix) - 1);
	digits[end - suffix - 1] = '\0';
	return text_to_u64(digits, 1, INT64_MAX, ret_size) == 0;
}

/* What its name says in the folder of whole ones, or of parts; false: a stranger. */
static bool found_read(const char *name, bool whole, char sha256[IMAGE_NAME + 1],
		       uint64_t *ret_size)
{
	const char *suffix = name_read(name, sha256);

	*ret_size = 0;
	return suffix != NULL && (whole ? *suffix == '\0' : suffix_read(suffix, ret_size));
}

static int folder_each(int folder, bool whole,
		       void (*visit)(void *arg, const struct image_found *found,
				     const struct stat *st),
		       void *arg)
{
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;

	if (dir == NULL) {
		if (fd >= 0)
			close(fd);
		return -errno;
	}
	while ((entry = readdir(dir)) != NULL) {
		char sha256[IMAGE_NAME + 1];
		struct image_found found = {.sha256 = sha256, .whole = whole};
		struct stat st;

		if (!found_read(entry->d_name, whole, sha256, &found.size) ||
		    fstatat(folder, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
		    !S_ISREG(st.st_mode))
			continue;
		found.have = (uint64_t)st.st_size;
		if (whole)
			found.size = found.have;
		visit(arg, &found, &st);
	}
	closedir(dir);
	return 0;
}

static int store_each(const struct image_store *s,
		      void (*visit)(void *arg, const struct image_found *found,
				    const struct stat *st),
		      void *arg)
{
	int rv = folder_each(s->images, true, visit, arg);

	return rv != 0 ? rv : folder_each(s->incoming, false, visit, arg);
}

struct listing {
	void (*visit)(void *arg, const struct image_found *found);
	void *arg;
};

static void list_one(void *arg, const struct image_found *found, const struct stat *st)
{
	const struct listing *l = arg;

	(void)st;
	l->visit(l->arg, found);
}

int image_store_list(const struct image_store *s,
		     void (*visit)(void *arg, const struct image_found *found), void *arg)
{
	return store_each(s, list_one, &(struct listing){visit, arg});
}

/* What a part will take was taken from the disk when it began. */
static void sum_one(void *arg, const struct image_found *found, const struct stat *st)
{
	uint64_t *sum = arg;
	uint64_t blocks = (uint64_t)st->st_blocks * 512;

	*sum += found->have > blocks ? found->have : blocks;
}

static uint64_t mib_up(uint64_t bytes)
{
	return bytes / MIB + (bytes % MIB != 0);
}

static int room_budget(const struct image_store *s, uint64_t more, char message[IMAGE_PROBLEM])
{
	uint64_t taken = 0;
	int rv = store_each(s, sum_one, &taken);

	if (rv != 0) {
		snprintf(message, IMAGE_PROBLEM, "cannot read the image store: %s", strerror(-rv));
		return rv;
	}
	if (taken <= s->space && more <= s->space - taken)
		return 0;
	snprintf(message, IMAGE_PROBLEM,
		 "the image store of this board is full: of %" PRIu64 " MiB (vms.image-space-mib) "
		 "%" PRIu64 " MiB are taken, and %" PRIu64 " MiB more are needed; remove images or "
		 "raise it",
		 s->space / MIB, mib_up(taken), mib_up(more));
	return -ENOSPC;
}

int image_store_room(const struct image_store *s, uint64_t more, char message[IMAGE_PROBLEM])
{
	struct statvfs fs;
	uint64_t total;
	uint64_t available;
	uint64_t reserve;

	if (fstatvfs(s->images, &fs) != 0) {
		snprintf(message, IMAGE_PROBLEM, "cannot ask for free space: %s", strerror(errno));
		return -EIO;
	}
	total = (uint64_t)fs.f_blocks * fs.f_frsize;
	available = (uint64_t)fs.f_bavail * fs.f_frsize;
	reserve = total / 10 < reserve_max ? total / 10 : reserve_max;
	if (available < reserve || more > available - reserve) {
		snprintf(message, IMAGE_PROBLEM,
			 "the card of this board is full: %" PRIu64 " MiB are free, %" PRIu64
			 " MiB of them are kept for the board itself, and %" PRIu64
			 " MiB are needed; remove images or data disks",
			 available / MIB, mib_up(reserve), mib_up(more));
		return -ENOSPC;
	}
	return s->space != 0 ? room_budget(s, more, message) : 0;
}

struct part_search {
	const char *sha256;
	uint64_t size; /* 0: none yet */
	uint64_t have;
};

static void part_one(void *arg, const struct image_found *found, const struct stat *st)
{
	struct part_search *search = arg;

	(void)st;
	if (strcmp(found->sha256, search->sha256) != 0)
		return;
	search->size = found->size;
	search->have = found->have;
}

/* The part of this image, whatever size it was begun for; size 0: none. */
static int part_find(const struct image_store *s, const char *sha256, struct part_search *ret)
{
	*ret = (struct part_search){.sha256 = sha256};
	return folder_each(s->incoming, false, part_one, ret);
}

int image_store_drop(const struct image_store *s, const char *sha256)
{
	struct part_search there;
	char part[PART_NAME];
	int whole;

	if (!image_name_ok(sha256))
		return -EINVAL;
	whole = unlinkat(s->images, sha256, 0) == 0 ? 0 : -errno;
	if (part_find(s, sha256, &there) != 0 || there.size == 0)
		return whole;
	part_name(sha256, there.size, part);
	if (unlinkat(s->incoming, part, 0) == 0 && whole == -ENOENT)
		whole = 0;
	return whole;
}

/* --- a part --- */

static int part_refused(int rv, char message[IMAGE_PROBLEM], const char *what)
{
	snprintf(message, IMAGE_PROBLEM, "%s: %s", what, strerror(-rv));
	return rv;
}

/* Room is asked for and taken before the first byte, not when gigabytes were sent already. */
static int part_reserve(struct image_part *p, char message[IMAGE_PROBLEM])
{
	struct stat st;
	uint64_t taken;
	int rv;

	if (fstat(p->fd, &st) != 0)
		return part_refused(-errno, message, "cannot look at the image's file");
	taken = (uint64_t)st.st_blocks * 512;
	if (taken < p->size) {
		rv = image_store_room(p->store, p->size - taken, message);
		if (rv != 0)
			return rv;
		if (fallocate(p->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)p->size) != 0 &&
		    errno != EOPNOTSUPP)
			return part_refused(-errno, message, "cannot take the room for the image");
	}
	/* More than an image of that size has: somebody else's bytes. */
	if ((uint64_t)st.st_size > p->size && ftruncate(p->fd, 0) != 0)
		return part_refused(-errno, message, "cannot begin the image's file anew");
	p->have = (uint64_t)st.st_size > p->size ? 0 : (uint64_t)st.st_size;
	p->resumed = p->have > 0;
	return 0;
}

/* Two sizes of one digest: one of them is wrong, and it is not for this one to say which. */
static int part_agrees(const struct image_store *s, const char *sha256, uint64_t size,
		       char message[IMAGE_PROBLEM])
{
	struct part_search there;
	char name[PART_NAME];
	int rv = part_find(s, sha256, &there);

	if (rv != 0)
		return part_refused(rv, message, "cannot read the image store");
	if (there.size == 0 || there.size == size)
		return 0;
	part_name(sha256, there.size, name);
	if (there.have == 0 && unlinkat(s->incoming, name, 0) == 0)
		return 0;
	snprintf(message, IMAGE_PROBLEM,
		 "of this image %" PRIu64 " bytes are here, of an upload with size=%" PRIu64
		 ", and not %" PRIu64,
		 there.have, there.size, size);
	return -EEXIST;
}

int image_part_open(const struct image_store *s, const char *sha256, uint64_t size,
		    struct image_part **ret, char message[IMAGE_PROBLEM])
{
	char name[PART_NAME];
	struct image_part *p;
	int rv;

	if (!image_name_ok(sha256) || size == 0 || size > INT64_MAX) {
		snprintf(message, IMAGE_PROBLEM,
			 "an image has a SHA-256 of 64 lower-case hex digits and at least one "
			 "byte");
		return -EINVAL;
	}
	rv = part_agrees(s, sha256, size, message);
	if (rv != 0)
		return rv;
	p = mem_zalloc(sizeof(*p));
	p->store = s;
	p->size = size;
	memcpy(p->sha256, sha256, sizeof(p->sha256));
	p->digest = digest_new();
	part_name(sha256, size, name);
	p->fd = openat(s->incoming, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (p->fd < 0)
		rv = part_refused(-errno, message, "cannot make the image's file");
	else
		rv = part_reserve(p, message);
	if (rv == 0) {
		*ret = p;
		return 0;
	}
	/* One that was refused leaves nothing, unless it has bytes of before. */
	if (p->fd >= 0 && lseek(p->fd, 0, SEEK_END) == 0)
		unlinkat(s->incoming, name, 0);
	image_part_close(p);
	return rv;
}

void image_part_close(struct image_part *p)
{
	if (p == NULL)
		return;
	if (p->fd >= 0)
		close(p->fd);
	EVP_MD_CTX_free(p->digest);
	free(p);
}

uint64_t image_part_have(const struct image_part *p)
{
	return p->have;
}

uint64_t image_part_size(const struct image_part *p)
{
	return p->size;
}

static int write_whole(int fd, const uint8_t *bytes, size_t len, uint64_t offset)
{
	while (len > 0) {
		ssize_t put = pwrite(fd, bytes, len, (off_t)offset);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		bytes += put;
		len -= (size_t)put;
		offset += (uint64_t)put;
	}
	return 0;
}

/* On the way to the card piece by piece: a log entry of the cluster that is to be synced meanwhile
 * then waits for one piece, and not for all that a fast network has brought (an election begins
 * after 800 ms). It makes nothing durable; image_part_finish does. */
static int part_flush(const struct image_part *p, uint64_t offset, size_t len)
{
	if (sync_file_range(p->fd, (off_t)offset, (off_t)len,
			    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
				    SYNC_FILE_RANGE_WAIT_AFTER) == 0 ||
	    errno == ENOSYS || errno == ESPIPE || errno == EINVAL)
		return 0;
	return -errno;
}

int image_part_write(struct image_part *p, uint64_t offset, const void *bytes, size_t len)
{
	int rv;

	if (offset != p->have || len > p->size - p->have || len > IMAGE_PIECE_MAX)
		return -ERANGE;
	rv = write_whole(p->fd, bytes, len, offset);
	if (rv != 0)
		return rv;
	p->have += len;
	if (p->hashed == offset) {
		digest_add(p->digest, bytes, len);
		p->hashed = p->have;
	}
	return part_flush(p, offset, len);
}

int image_part_catch_up(struct image_part *p)
{
	int rv = digest_file(p->digest, p->fd, &p->hashed, p->have);

	return rv != 0 ? rv : p->hashed < p->have;
}

void image_part_drop(struct image_part *p)
{
	char name[PART_NAME];

	part_name(p->sha256, p->size, name);
	unlinkat(p->store->incoming, name, 0);
}

static int part_publish(struct image_part *p)
{
	char name[PART_NAME];

	part_name(p->sha256, p->size, name);
	if (fsync(p->fd) != 0 ||
	    renameat(p->store->incoming, name, p->store->images, p->sha256) != 0 ||
	    fsync(p->store->images) != 0 || fsync(p->store->incoming) != 0)
		return -errno;
	return 0;
}

int image_part_finish(struct image_part *p, bool *ret_again, char message[IMAGE_PROBLEM])
{
	char hex[IMAGE_NAME + 1];
	int rv;

	assert(p->have == p->size && p->hashed == p->size);
	*ret_again = false;
	digest_hex(p->digest, hex);
	if (strcmp(hex, p->sha256) == 0) {
		rv = part_publish(p);
		return rv == 0 ? 0
			       : part_refused(rv, message, "cannot put the image into the store");
	}
	image_part_drop(p);
	*ret_again = p->resumed;
	snprintf(message, IMAGE_PROBLEM, "the SHA-256 of the bytes received is %s; %s", hex,
		 p->resumed ? "what was there from an earlier attempt may be damaged: send it again"
			    : "send the file that has the digest given");
	return -EBADMSG;
}

/* --- whole ones --- */

bool image_identity_same(const struct image_identity *a, const struct image_identity *b)
{
	return a->device == b->device && a->inode == b->inode && a->size == b->size &&
	       a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

static int identity_of(int fd, struct image_identity *ret)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EBADMSG;
	*ret = (struct image_identity){.device = st.st_dev,
				       .inode = st.st_ino,
				       .size = (uint64_t)st.st_size,
				       .changed = st.st_mtim};
	return 0;
}

int image_file_open(const struct image_store *s, const char *sha256, int *ret_fd,
		    struct image_identity *ret_identity)
{
	int fd;
	int rv;

	if (!image_name_ok(sha256))
		return -EINVAL;
	fd = openat(s->images, sha256, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	rv = identity_of(fd, ret_identity);
	if (rv != 0)
		close(fd);
	else
		*ret_fd = fd;
	return rv;
}

int image_check_begin(const struct image_store *s, const char *sha256, struct image_check **ret)
{
	struct image_check *c = mem_zalloc(sizeof(*c));
	int rv = image_file_open(s, sha256, &c->fd, &c->identity);

	if (rv != 0) {
		free(c);
		return rv;
	}
	memcpy(c->sha256, sha256, sizeof(c->sha256));
	c->digest = digest_new();
	*ret = c;
	return 0;
}

int image_check_step(struct image_check *c)
{
	struct image_identity now = {0};
	char hex[IMAGE_NAME + 1];
	int rv = digest_file(c->digest, c->fd, &c->at, c->identity.size);

	if (rv != 0 || c->at < c->identity.size)
		return rv != 0 ? rv : 1;
	digest_hex(c->digest, hex);
	rv = identity_of(c->fd, &now);
	if (rv == 0 && (strcmp(hex, c->sha256) != 0 || !image_identity_same(&now, &c->identity)))
		rv = -EBADMSG;
	return rv;
}

const struct image_identity *image_check_identity(const struct image_check *c)
{
	return &c->identity;
}

void image_check_end(struct image_check *c)
{
	if (c == NULL)
		return;
	close(c->fd);
	EVP_MD_CTX_free(c->digest);
	free(c);
}
