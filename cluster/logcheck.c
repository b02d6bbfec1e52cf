#include "cluster/logcheck.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/segment.h"
#include "cluster/parcel.h"
#include "lib/crc.h"
#include "lib/mem.h"

/* The library asserts that names are shorter than 128 bytes. */
enum { NAME_MAX_SAFE = 100, NAME_SIZE = 128, META_MAX = 1 << 20 };

struct file {
	char name[NAME_SIZE];
	bool open;
	bool remove; /* decided, not done */
	uint64_t first; /* open: the counter */
	uint64_t last;
	size_t truncate; /* open: to this length; 0: leave */
	bool rename; /* to the name of a closed one */
};

struct files {
	struct file *list;
	size_t count;
	bool snapshot;
	char snapshot_name[NAME_SIZE]; /* of the newest one */
	uint64_t snapshot_term, snapshot_index, snapshot_time;
};

static int fault(struct logcheck *c, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static int fault(struct logcheck *c, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(c->message, sizeof(c->message), format, args);
	va_end(args);
	return error;
}

/* --- the directory --- */

static bool is_closed_name(const char *name, struct file *f)
{
	int used = 0;

	return sscanf(name, "%16" SCNu64 "-%16" SCNu64 "%n", &f->first, &f->last, &used) == 2 &&
	       used == (int)strlen(name) && name[0] >= '0' && name[0] <= '9';
}

static bool is_open_name(const char *name, struct file *f)
{
	int used = 0;

	return sscanf(name, "open-%" SCNu64 "%n", &f->first, &used) == 1 &&
	       used == (int)strlen(name);
}

static bool is_meta_name(const char *name, uint64_t *term, uint64_t *index, uint64_t *time)
{
	int used = 0;

	return sscanf(name, "snapshot-%" SCNu64 "-%" SCNu64 "-%" SCNu64 ".meta%n", term, index,
		      time, &used) == 3 &&
	       used == (int)strlen(name);
}

/* Closed ones by index, then open ones by counter, as the library orders them. */
static int file_order(const void *a, const void *b)
{
	const struct file *x = a, *y = b;

	if (x->open != y->open)
		return x->open ? 1 : -1;
	if (x->first != y->first)
		return x->first < y->first ? -1 : 1;
	return x->last < y->last ? -1 : x->last > y->last;
}

static void note_snapshot(struct logcheck *c, struct files *fs, const char *name, uint64_t term,
			  uint64_t index, uint64_t time)
{
	char data[NAME_SIZE];
	struct stat st;

	(void)snprintf(data, sizeof(data), "%.*s", (int)(strlen(name) - strlen(".meta")), name);
	if (fstatat(c->dir_fd, data, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_size == 0)
		return; /* a crash while it was written; the library removes the rest */
	if (fs->snapshot && (term < fs->snapshot_term ||
			     (term == fs->snapshot_term &&
			      (index < fs->snapshot_index ||
			       (index == fs->snapshot_index && time <= fs->snapshot_time)))))
		return;
	fs->snapshot = true;
	fs->snapshot_term = term;
	fs->snapshot_index = index;
	fs->snapshot_time = time;
	(void)snprintf(fs->snapshot_name, sizeof(fs->snapshot_name), "%s", data);
}

static int dir_read(struct logcheck *c, struct files *fs)
{
	int fd = openat(c->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *d;
	int rv = 0;

	if (dir == NULL) {
		rv = -errno;
		if (fd >= 0)
			(void)close(fd);
		return fault(c, rv, "cannot read the directory %s: %s", c->dir, strerror(-rv));
	}
	while (rv == 0 && (d = readdir(dir)) != NULL) {
		struct file f = {0};
		uint64_t term, index, time;

		if (strlen(d->d_name) > NAME_MAX_SAFE) {
			rv = fault(c, -EBADMSG,
				   "%s/%.40s... is none of this program's files: "
				   "remove it",
				   c->dir, d->d_name);
		} else if (is_meta_name(d->d_name, &term, &index, &time)) {
			note_snapshot(c, fs, d->d_name, term, index, time);
		} else if (is_closed_name(d->d_name, &f) ||
			   (f.open = is_open_name(d->d_name, &f))) {
			(void)snprintf(f.name, sizeof(f.name), "%s", d->d_name);
			fs->list = mem_realloc(fs->list, (fs->count + 1) * sizeof(*fs->list));
			fs->list[fs->count++] = f;
		}
	}
	(void)closedir(dir);
	if (rv == 0 && fs->count > 1)
		qsort(fs->list, fs->count, sizeof(*fs->list), file_order);
	return rv;
}

/* The whole file; *ret is owned by the caller. */
static int file_read(struct logcheck *c, const char *name, uint8_t **ret, size_t *ret_len)
{
	int fd = openat(c->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint8_t *data = NULL;
	struct stat st;
	size_t at = 0;
	int rv = 0;

	if (fd < 0 || fstat(fd, &st) < 0) {
		rv = -errno;
	} else if (!S_ISREG(st.st_mode)) {
		rv = -EINVAL;
	} else {
		data = mem_alloc((size_t)st.st_size);
		while (at < (size_t)st.st_size) {
			ssize_t n = pread(fd, data + at, (size_t)st.st_size - at, (off_t)at);

			if (n <= 0) {
				rv = n < 0 ? -errno : -EIO;
				break;
			}
			at += (size_t)n;
		}
	}
	if (fd >= 0)
		(void)close(fd);
	if (rv < 0) {
		free(data);
		return fault(c, rv, "cannot read %s/%s: %s", c->dir, name, strerror(-rv));
	}
	*ret = data;
	*ret_len = at;
	return 0;
}

/* --- what a crash may have interrupted --- */

/* A cut first writes the shortened segment, then removes the longer one and all behind it, in
 * order. If none of that has happened, all is as before the cut, which the cluster will ask for
 * again. */
static void plan_cut(struct files *fs, uint64_t cut)
{
	const struct file *longer = NULL;
	bool shorter = false, at_cut = false;

	for (size_t i = 0; i < fs->count && !fs->list[i].open; i++) {
		const struct file *f = &fs->list[i];

		if (f->first < cut && f->last >= cut)
			longer = f;
		if (f->first == cut)
			at_cut = true;
	}
	for (size_t i = 0; longer != NULL && i < fs->count && !fs->list[i].open; i++)
		if (fs->list[i].first == longer->first && fs->list[i].last == cut - 1)
			shorter = true;
	if (longer != NULL ? !shorter : at_cut)
		return;
	for (size_t i = 0; i < fs->count && !fs->list[i].open; i++)
		if (fs->list[i].last >= cut)
			fs->list[i].remove = true;
}

/* An installed snapshot takes the place of the whole log. */
static void plan_install(struct files *fs, uint64_t install)
{
	if (!fs->snapshot || fs->snapshot_index != install)
		return;
	for (size_t i = 0; i < fs->count; i++)
		if (!fs->list[i].open)
			fs->list[i].remove = true;
}

static int file_change(const struct logcheck *c, const struct file *f)
{
	char closed[NAME_SIZE];
	int fd, rv = 0;

	if (f->remove)
		return unlinkat(c->dir_fd, f->name, 0) < 0 ? -errno : 0;
	if (f->truncate != 0) {
		fd = openat(c->dir_fd, f->name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0 || ftruncate(fd, (off_t)f->truncate) < 0 || fsync(fd) < 0)
			rv = -errno;
		if (fd >= 0)
			(void)close(fd);
	}
	if (rv == 0 && f->rename) {
		(void)snprintf(closed, sizeof(closed), "%016" PRIu64 "-%016" PRIu64, f->first,
			       f->last);
		if (renameat(c->dir_fd, f->name, c->dir_fd, closed) < 0)
			rv = -errno;
	}
	return rv;
}

static int plan_do(struct logcheck *c, const struct files *fs)
{
	bool changed = false;

	for (size_t i = 0; i < fs->count; i++) {
		const struct file *f = &fs->list[i];
		int rv = file_change(c, f);

		if (rv < 0)
			return fault(c, rv, "cannot write %s/%s: %s", c->dir, f->name,
				     strerror(-rv));
		changed |= f->remove || f->rename;
	}
	if (changed && fsync(c->dir_fd) < 0)
		return fault(c, -errno, "cannot write %s: %s", c->dir, strerror(errno));
	return 0;
}

/* --- checks --- */

/* u64 format 1, CRC of what follows, index of the list of members, its length; the list. */
static bool meta_sound(const uint8_t *data, size_t len)
{
	uint64_t head[4];

	if (len < sizeof(head))
		return false;
	memcpy(head, data, sizeof(head));
	return le64toh(head[0]) == 1 && le64toh(head[3]) > 0 && le64toh(head[3]) <= META_MAX &&
	       len == sizeof(head) + le64toh(head[3]) &&
	       crc_add(0, data + 16, len - 16) == le64toh(head[1]);
}

static int snapshot_check(struct logcheck *c, const struct files *fs)
{
	char meta[NAME_SIZE + 8];
	struct parcel_head head;
	uint8_t *data;
	size_t len;
	bool sound;
	int rv;

	(void)snprintf(meta, sizeof(meta), "%s.meta", fs->snapshot_name);
	rv = file_read(c, meta, &data, &len);
	if (rv < 0)
		return rv;
	sound = meta_sound(data, len);
	free(data);
	if (!sound)
		return fault(c, -EBADMSG, "%s/%s is damaged: " LOGCHECK_REMEDY, c->dir, meta);
	rv = file_read(c, fs->snapshot_name, &data, &len);
	if (rv < 0)
		return rv;
	sound = parcel_sound(data, len);
	if (sound) {
		memcpy(&head, data, sizeof(head));
		sound = le64toh(head.index) == fs->snapshot_index;
	}
	free(data);
	if (!sound)
		return fault(c, -EBADMSG, "%s/%s is damaged: " LOGCHECK_REMEDY, c->dir,
			     fs->snapshot_name);
	return 0;
}

/* The last run of closed segments without a gap: what the library loads. Returns where it begins;
 * *ret_end: one past its last. */
static int closed_run(struct logcheck *c, const struct files *fs, size_t *ret_begin,
		      size_t *ret_end)
{
	const struct file *newer = NULL;

	*ret_begin = 0;
	*ret_end = 0;
	for (size_t i = fs->count; i-- > 0;) {
		const struct file *f = &fs->list[i];

		if (f->open || f->remove)
			continue;
		if (f->first == 0 || f->last < f->first ||
		    (newer != NULL && f->last >= newer->first))
			return fault(c, -EBADMSG,
				     "%s/%s and %s do not fit together: " LOGCHECK_REMEDY, c->dir,
				     f->name, newer != NULL ? newer->name : "its name");
		if (newer != NULL && f->last + 1 != newer->first)
			break;
		if (newer == NULL)
			*ret_end = i + 1;
		*ret_begin = i;
		newer = f;
	}
	return 0;
}

static int segment_fault(struct logcheck *c, const struct file *f, const struct segment *s)
{
	return fault(c, -EBADMSG, "%s/%s is damaged at byte %zu (%s): " LOGCHECK_REMEDY, c->dir,
		     f->name, s->used, s->fault != NULL ? s->fault : "the file was cut off");
}

static int closed_check(struct logcheck *c, const struct files *fs, size_t begin, size_t end,
			uint8_t *ret_first_type)
{
	uint64_t term = 0;

	for (size_t i = begin; i < end; i++) {
		const struct file *f = &fs->list[i];
		struct segment s;
		uint8_t *data;
		size_t len;
		int rv;

		if (f->remove)
			continue;
		rv = file_read(c, f->name, &data, &len);
		if (rv < 0)
			return rv;
		segment_scan(data, len, f->first, fs->snapshot_index, &s);
		free(data);
		if (s.end != SEGMENT_CLEAN || (s.used != len && !f->rename) ||
		    s.entries != f->last - f->first + 1)
			return segment_fault(c, f, &s);
		if (s.last_term < term)
			return fault(c, -EBADMSG,
				     "%s/%s has terms before those of its "
				     "predecessor: " LOGCHECK_REMEDY,
				     c->dir, f->name);
		term = s.last_term;
		if (s.wanted_term != 0 && fs->snapshot && s.wanted_term != fs->snapshot_term)
			return fault(c, -EBADMSG,
				     "%s/%s and %s contradict each other: " LOGCHECK_REMEDY, c->dir,
				     f->name, fs->snapshot_name);
		if (*ret_first_type == 0)
			*ret_first_type = s.first_type;
	}
	return 0;
}

/* The library goes on if it cannot truncate and rename a full segment: it is then still called
 * open while later ones are closed. Its entries tell where it belongs. */
static int plan_renames(struct logcheck *c, struct files *fs)
{
	uint64_t newest = fs->snapshot_index;

	for (size_t i = 0; i < fs->count; i++)
		if (!fs->list[i].open && !fs->list[i].remove && fs->list[i].last > newest)
			newest = fs->list[i].last;
	for (size_t i = 0; i < fs->count; i++) {
		struct file *f = &fs->list[i];
		struct segment s;
		uint64_t first;
		uint8_t *data;
		size_t len;
		int rv;

		if (!f->open)
			continue;
		rv = file_read(c, f->name, &data, &len);
		if (rv < 0)
			return rv;
		first = segment_first(data, len);
		if (first != 0 && first <= newest) {
			segment_scan(data, len, first, 0, &s);
			f->open = false;
			f->rename = true;
			f->first = first;
			f->last = first + s.entries - 1;
			f->truncate = s.used;
		}
		free(data);
	}
	if (fs->count > 1)
		qsort(fs->list, fs->count, sizeof(*fs->list), file_order);
	return 0;
}

/* Open segments: never written ones go, torn ends are cut off. */
static int open_check(struct logcheck *c, struct files *fs, uint64_t next, uint8_t *ret_first_type)
{
	const struct file *torn = NULL;

	for (size_t i = 0; i < fs->count; i++) {
		struct file *f = &fs->list[i];
		struct segment s;
		uint8_t *data;
		size_t len;
		int rv;

		if (!f->open)
			continue;
		rv = file_read(c, f->name, &data, &len);
		if (rv < 0)
			return rv;
		segment_scan(data, len, next, 0, &s);
		free(data);
		/* Shorter than allocated, unless an earlier start has cut its end off (plan_do). */
		if (s.end == SEGMENT_TORN && len < SEGMENT_SIZE)
			s.end = SEGMENT_DAMAGED;
		if (s.end == SEGMENT_DAMAGED)
			return segment_fault(c, f, &s);
		if (torn != NULL && (s.entries > 0 || s.end == SEGMENT_TORN))
			return fault(c, -EBADMSG,
				     "%s/%s ends too early, for %s follows it: " LOGCHECK_REMEDY,
				     c->dir, torn->name, f->name);
		if (s.end == SEGMENT_TORN)
			torn = f;
		if (s.entries == 0)
			f->remove = true;
		else if (s.used < len)
			f->truncate = s.used;
		if (s.entries > 0 && *ret_first_type == 0)
			*ret_first_type = s.first_type;
		next += s.entries;
	}
	return 0;
}

static int all_check(struct logcheck *c, struct files *fs)
{
	size_t begin, end;
	uint64_t next = fs->snapshot_index + 1;
	uint8_t first_type = 0;
	int rv;

	if (fs->snapshot) {
		rv = snapshot_check(c, fs);
		if (rv < 0)
			return rv;
	}
	rv = plan_renames(c, fs);
	if (rv < 0)
		return rv;
	rv = closed_run(c, fs, &begin, &end);
	if (rv < 0)
		return rv;
	if (begin < end) {
		if (fs->list[begin].first > next || fs->list[end - 1].last < fs->snapshot_index)
			return fault(c, -EBADMSG,
				     "entries are missing in %s between %" PRIu64
				     " and %s: " LOGCHECK_REMEDY,
				     c->dir, fs->snapshot_index, fs->list[begin].name);
		rv = closed_check(c, fs, begin, end, &first_type);
		if (rv < 0)
			return rv;
		next = fs->list[end - 1].last + 1;
	}
	rv = open_check(c, fs, next, &first_type);
	if (rv < 0)
		return rv;
	if (!fs->snapshot && first_type != 0 && first_type != SEGMENT_CHANGE)
		return fault(c, -EBADMSG, "the log in %s lacks its beginning: " LOGCHECK_REMEDY,
			     c->dir);
	return 0;
}

int logcheck_run(struct logcheck *c)
{
	struct files fs = {0};
	int rv;

	c->message[0] = '\0';
	rv = dir_read(c, &fs);
	if (rv == 0) {
		if (c->cut != 0)
			plan_cut(&fs, c->cut);
		if (c->install != 0)
			plan_install(&fs, c->install);
		rv = all_check(c, &fs);
	}
	if (rv == 0)
		rv = plan_do(c, &fs);
	free(fs.list);
	return rv;
}

/* --- before there is a log --- */

static bool is_raft_file(const char *name)
{
	struct file f;
	int used = 0;

	(void)sscanf(name, "snapshot-%n", &used);
	return used > 0 || is_closed_name(name, &f) || is_open_name(name, &f) ||
	       strcmp(name, "metadata1") == 0 || strcmp(name, "metadata2") == 0;
}

static int raft_files(int dir_fd, unsigned *ret_count)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *d;

	*ret_count = 0;
	if (dir == NULL) {
		if (fd >= 0)
			(void)close(fd);
		return -errno;
	}
	while ((d = readdir(dir)) != NULL)
		*ret_count += is_raft_file(d->d_name);
	(void)closedir(dir);
	return 0;
}

int logcheck_empty(int dir_fd)
{
	unsigned count;
	int rv = raft_files(dir_fd, &count);

	return rv < 0 ? rv : count > 0 ? -EEXIST : 0;
}

int logcheck_discard_bootstrap(int dir_fd)
{
	static const char first[] = "0000000000000001-0000000000000001";
	unsigned count, own = 0;
	int rv = raft_files(dir_fd, &count);

	if (rv < 0)
		return rv;
	own += faccessat(dir_fd, "metadata1", F_OK, 0) == 0;
	own += faccessat(dir_fd, first, F_OK, 0) == 0;
	if (count != own)
		return -EEXIST;
	if (own > 0 && ((unlinkat(dir_fd, "metadata1", 0) < 0 && errno != ENOENT) ||
			(unlinkat(dir_fd, first, 0) < 0 && errno != ENOENT)))
		return -errno;
	return 0;
}
