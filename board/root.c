#include "board/root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/mem.h"

enum { DEPTH_MAX = 40, LINKS_MAX = 40, NAME_SIZE = 256 };

/* --- the walk --------------------------------------------------------------------------------- */

/* openat2 with RESOLVE_IN_ROOT would do this walk in one call, but kernels before 5.6 and emulators
 * do not have it, and vendors' kernels of boards are older. */
struct walk {
	int root;
	int folders[DEPTH_MAX]; /* where it stands, from the root's child on */
	unsigned depth;
	unsigned links;
	char left[ROOT_PATH_MAX]; /* of the path */
	char name[NAME_SIZE]; /* of folders[depth - 1] in its parent */
};

static int walk_top(const struct walk *w)
{
	return w->depth > 0 ? w->folders[w->depth - 1] : w->root;
}

static void walk_up(struct walk *w)
{
	if (w->depth > 0)
		close(w->folders[--w->depth]);
	w->name[0] = '\0';
}

static void walk_end(struct walk *w)
{
	while (w->depth > 0)
		walk_up(w);
}

/* Takes the first part of the path that is left; false: nothing is. */
static bool walk_part(struct walk *w, char part[NAME_SIZE], int *error)
{
	char *begin = w->left + strspn(w->left, "/");
	size_t len = strcspn(begin, "/");

	*error = 0;
	if (len == 0)
		return false;
	if (len >= NAME_SIZE) {
		*error = -ENAMETOOLONG;
		return false;
	}
	memcpy(part, begin, len);
	part[len] = '\0';
	memmove(w->left, begin + len, strlen(begin + len) + 1);
	return true;
}

/* The link's text goes before what is left. */
static int walk_follow(struct walk *w, int link)
{
	char target[ROOT_PATH_MAX];
	char rest[ROOT_PATH_MAX];
	ssize_t len = readlinkat(link, "", target, sizeof(target) - 1);

	close(link);
	if (len < 0)
		return -errno;
	target[len] = '\0';
	if (++w->links > LINKS_MAX)
		return -ELOOP;
	memcpy(rest, w->left, sizeof(rest));
	if ((size_t)snprintf(w->left, sizeof(w->left), "%s/%s", target, rest) >= sizeof(w->left))
		return -ENAMETOOLONG;
	if (target[0] == '/')
		walk_end(w);
	return 0;
}

static int walk_step(struct walk *w, const char *part, bool last_link)
{
	struct stat info;
	int fd;

	if (strcmp(part, ".") == 0)
		return 0;
	if (strcmp(part, "..") == 0) {
		walk_up(w);
		return 0;
	}
	if (w->depth == DEPTH_MAX)
		return -ELOOP;
	fd = openat(walk_top(w), part, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &info) != 0) {
		close(fd);
		return -EIO;
	}
	if (S_ISLNK(info.st_mode) && !(last_link && w->left[strspn(w->left, "/")] == '\0'))
		return walk_follow(w, fd);
	w->folders[w->depth++] = fd;
	snprintf(w->name, sizeof(w->name), "%s", part);
	return 0;
}

/* To the end of the path. `last_link`: if that is a link it is where the walk ends. */
static int walk_to(struct walk *w, int root, const char *path, bool last_link)
{
	char part[NAME_SIZE];
	int rv = 0;

	*w = (struct walk){.root = root};
	if ((size_t)snprintf(w->left, sizeof(w->left), "%s", path) >= sizeof(w->left))
		return -ENAMETOOLONG;
	while (rv == 0 && walk_part(w, part, &rv))
		rv = walk_step(w, part, last_link);
	if (rv != 0)
		walk_end(w);
	return rv;
}

int root_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int root_at(int root, const char *path)
{
	struct stat info = {0};
	struct walk w;
	int parent;
	int fd;
	int rv = walk_to(&w, root, path, false);

	if (rv != 0)
		return rv;
	parent = w.depth > 1 ? w.folders[w.depth - 2] : root;
	if (fstat(walk_top(&w), &info) != 0 || !(S_ISREG(info.st_mode) || S_ISDIR(info.st_mode)))
		fd = -EINVAL;
	else if (w.name[0] != '\0')
		fd = openat(parent, w.name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	else
		fd = openat(walk_top(&w), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd == -1)
		fd = -errno;
	walk_end(&w);
	return fd;
}

bool root_has(int root, const char *path)
{
	struct walk w;
	bool has = walk_to(&w, root, path, false) == 0;

	if (has)
		walk_end(&w);
	return has;
}

bool root_link(int root, char *ret, size_t size, const char *path)
{
	struct walk w;
	ssize_t len;

	ret[0] = '\0';
	if (walk_to(&w, root, path, true) != 0)
		return false;
	len = w.depth > 0 ? readlinkat(walk_top(&w), "", ret, size - 1) : -1;
	ret[len < 0 ? 0 : len] = '\0';
	walk_end(&w);
	return len > 0;
}

/* --- files ------------------------------------------------------------------------------------ */

/* A file of sysfs gives all at once, one of /proc in pieces. Closes `fd`. */
static ssize_t bytes_read(int fd, void *ret, size_t size)
{
	struct stat info;
	size_t got = 0;
	ssize_t len = -1;

	if (fd < 0)
		return fd;
	if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
		close(fd);
		return -EINVAL;
	}
	while (got < size && (len = read(fd, (char *)ret + got, size - got)) > 0)
		got += (size_t)len;
	/* A sensor that fails, or a link that is down: there is no value. */
	if (len < 0 && got == 0)
		got = (size_t)-1;
	close(fd);
	return got == (size_t)-1 ? -EIO : (ssize_t)got;
}

ssize_t root_bytes(int root, const char *path, void *ret, size_t size)
{
	return bytes_read(root_at(root, path), ret, size);
}

ssize_t folder_bytes(int folder, const char *name, void *ret, size_t size)
{
	struct stat info;

	if (fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) != 0)
		return -errno;
	if (!S_ISREG(info.st_mode))
		return -EINVAL;
	return bytes_read(openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), ret,
			  size);
}

char *root_text(int root, const char *path)
{
	char *text = mem_alloc(ROOT_TEXT_MAX);
	ssize_t len = root_bytes(root, path, text, ROOT_TEXT_MAX - 1);

	if (len < 0) {
		free(text);
		return NULL;
	}
	text[len] = '\0';
	return text;
}

void root_clean(const void *data, size_t len, char *ret, size_t size)
{
	const unsigned char *from = data;
	size_t end = 0;

	while (len > 0 && (*from == ' ' || *from == '\t')) {
		from++;
		len--;
	}
	while (end < len && end < size - 1 && from[end] != '\0' && from[end] != '\n') {
		unsigned char c = from[end];

		ret[end++] = (char)(c == '\t' ? ' ' : c < ' ' || c > '~' ? '?' : c);
	}
	while (end > 0 && ret[end - 1] == ' ')
		end--;
	ret[end] = '\0';
}

static bool line_read(int root, char *ret, size_t size, const char *path)
{
	char bytes[ROOT_LINE_MAX];
	ssize_t len = root_bytes(root, path, bytes, sizeof(bytes));

	root_clean(bytes, len < 0 ? 0 : (size_t)len, ret, size);
	return ret[0] != '\0';
}

bool root_line(int root, char *ret, size_t size, const char *format, ...)
{
	char path[ROOT_PATH_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	return line_read(root, ret, size, path);
}

bool root_number(int root, int64_t *ret, const char *format, ...)
{
	char path[ROOT_PATH_MAX];
	char line[ROOT_LINE_MAX];
	char *end = line;
	long long value = 0;
	va_list args;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	errno = 0;
	if (line_read(root, line, sizeof(line), path))
		value = strtoll(line, &end, line[0] == '0' && line[1] == 'x' ? 16 : 10);
	if (end == line || errno != 0)
		return false;
	*ret = value;
	return true;
}

/* --- folders ---------------------------------------------------------------------------------- */

static int name_order(const void *one, const void *two)
{
	return strcmp(*(char *const *)one, *(char *const *)two);
}

void root_names(int root, const char *path, const char *prefix,
		bool (*each)(void *arg, const char *name), void *arg)
{
	int fd = root_at(root, path);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	char **names = mem_array(ROOT_NAMES_MAX, sizeof(*names));
	size_t count = 0;
	bool on = true;
	struct dirent *entry;

	while (dir != NULL && count < ROOT_NAMES_MAX && (entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.' && strncmp(entry->d_name, prefix, strlen(prefix)) == 0)
			names[count++] = mem_strdup(entry->d_name);
	if (dir != NULL)
		closedir(dir);
	else if (fd >= 0)
		close(fd);
	qsort(names, count, sizeof(*names), name_order);
	for (size_t i = 0; i < count; i++) {
		on = on && each(arg, names[i]);
		free(names[i]);
	}
	free(names);
}
