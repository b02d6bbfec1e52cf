#include "cluster/ballot.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/crc.h"

#define BALLOT_FILE "ballot"
#define BALLOT_NEW "ballot.new"

enum { SLOT_STEP = 4096, FILE_SIZE = 2 * SLOT_STEP };

struct slot {
	char magic[8];
	uint64_t sequence;
	uint64_t node;
	uint64_t term;
	uint64_t vote;
	uint64_t cut;
	uint64_t install;
	uint32_t zero;
	uint32_t crc; /* of everything before it */
};

enum slot_state { SLOT_BLANK, SLOT_SOUND, SLOT_DAMAGED };

static const char slot_magic[8] = {'T', 'B', 'B', 'A', 'L', 'L', 'O', 'T'};

static void slot_encode(struct slot *s, const struct ballot *b)
{
	memset(s, 0, sizeof(*s));
	memcpy(s->magic, slot_magic, sizeof(slot_magic));
	s->sequence = htole64(b->sequence);
	s->node = htole64(b->node);
	s->term = htole64(b->term);
	s->vote = htole64(b->vote);
	s->cut = htole64(b->cut);
	s->install = htole64(b->install);
	s->crc = htole32(crc_add(0, s, offsetof(struct slot, crc)));
}

static enum slot_state slot_decode(const uint8_t area[SLOT_STEP], struct ballot *b)
{
	static const uint8_t zeros[SLOT_STEP];
	struct slot s;

	if (memcmp(area, zeros, SLOT_STEP) == 0)
		return SLOT_BLANK;
	memcpy(&s, area, sizeof(s));
	if (memcmp(s.magic, slot_magic, sizeof(slot_magic)) != 0 ||
	    le32toh(s.crc) != crc_add(0, &s, offsetof(struct slot, crc)))
		return SLOT_DAMAGED;
	b->sequence = le64toh(s.sequence);
	b->node = le64toh(s.node);
	b->term = le64toh(s.term);
	b->vote = le64toh(s.vote);
	b->cut = le64toh(s.cut);
	b->install = le64toh(s.install);
	return SLOT_SOUND;
}

static int write_slot(int fd, const struct ballot *b)
{
	struct slot s;
	ssize_t n;

	slot_encode(&s, b);
	n = pwrite(fd, &s, sizeof(s), (off_t)(b->sequence % 2) * SLOT_STEP);
	if (n < 0)
		return -errno;
	return n == (ssize_t)sizeof(s) ? 0 : -EIO;
}

int ballot_create(struct ballot *b, int dir_fd)
{
	int fd, rv;

	if (faccessat(dir_fd, BALLOT_FILE, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return -EEXIST;
	fd = openat(dir_fd, BALLOT_NEW, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	b->sequence = 1;
	rv = ftruncate(fd, FILE_SIZE) < 0 ? -errno : write_slot(fd, b);
	if (rv == 0 && (fsync(fd) < 0 || renameat(dir_fd, BALLOT_NEW, dir_fd, BALLOT_FILE) < 0 ||
			fsync(dir_fd) < 0))
		rv = -errno;
	if (rv < 0) {
		(void)unlinkat(dir_fd, BALLOT_NEW, 0);
		(void)close(fd);
		return rv;
	}
	b->fd = fd;
	return 0;
}

static int ballot_read(struct ballot *b, int fd)
{
	uint8_t file[FILE_SIZE + 1];
	struct ballot found[2] = {0};
	enum slot_state states[2];
	ssize_t n = pread(fd, file, sizeof(file), 0);
	unsigned newer;

	if (n < 0)
		return -errno;
	if (n != FILE_SIZE)
		return -EBADMSG;
	for (unsigned i = 0; i < 2; i++) {
		states[i] = slot_decode(file + (size_t)i * SLOT_STEP, &found[i]);
		if (states[i] == SLOT_DAMAGED)
			return -EBADMSG;
		if (states[i] == SLOT_SOUND && found[i].sequence % 2 != i)
			return -EBADMSG;
	}
	/* The first save is number 1; from the second on both slots are in use. */
	if (states[1] == SLOT_BLANK || (states[0] == SLOT_BLANK && found[1].sequence != 1))
		return -EBADMSG;
	newer = states[0] == SLOT_SOUND && found[0].sequence > found[1].sequence ? 0 : 1;
	if (states[0] == SLOT_SOUND && found[newer].sequence - found[1 - newer].sequence != 1)
		return -EBADMSG;
	*b = found[newer];
	return 0;
}

int ballot_load(struct ballot *b, int dir_fd)
{
	int fd = openat(dir_fd, BALLOT_FILE, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	int rv;

	if (fd < 0)
		return -errno;
	rv = ballot_read(b, fd);
	if (rv < 0) {
		(void)close(fd);
		return rv;
	}
	b->fd = fd;
	return 0;
}

int ballot_save(struct ballot *b)
{
	int rv;

	b->sequence++;
	rv = write_slot(b->fd, b);
	if (rv == 0 && fdatasync(b->fd) < 0)
		rv = -errno;
	return rv;
}

void ballot_close(struct ballot *b)
{
	if (b->fd >= 0)
		(void)close(b->fd);
	b->fd = -1;
}
