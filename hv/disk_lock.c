#include "hv/disk_lock.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hv/virtio/blk_sync.h"

/* Tries, 10 ms apart: for a process that is seen to have the lock, and for a lock that nobody is
 * seen to have. */
enum { TRIES = 20, TRIES_UNSEEN = 200 };

/* Reads a small file of proc as text. */
static bool proc_read(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len;

	if (fd < 0) {
		return false;
	}
	len = read(fd, text, size - 1);
	close(fd);
	if (len < 0) {
		return false;
	}
	text[len] = '\0';
	return true;
}

/* Has this descriptor of that process a lock on the file? */
static bool descriptor_locks(const char *pid, const char *number, const struct stat *file)
{
	char path[64];
	char text[1024];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%.20s/fd/%.20s", pid, number);
	if (stat(path, &st) < 0 || st.st_dev != file->st_dev || st.st_ino != file->st_ino) {
		return false;
	}
	snprintf(path, sizeof(path), "/proc/%.20s/fdinfo/%.20s", pid, number);
	return proc_read(path, text, sizeof(text)) && strstr(text, "\nlock:") != NULL;
}

static bool process_locks(const char *pid, const struct stat *file)
{
	char path[32];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
	dir = opendir(path);
	if (dir == NULL) {
		return false;
	}
	while (!found && (entry = readdir(dir)) != NULL) {
		found = isdigit((unsigned char)entry->d_name[0]) &&
			descriptor_locks(pid, entry->d_name, file);
	}
	closedir(dir);
	return found;
}

static void holder_print(const char *pid, const char *name, char holder[64])
{
	snprintf(holder, 64, "process %.20s%s%.20s%s", pid, name[0] != '\0' ? " (" : "", name,
		 name[0] != '\0' ? ")" : "");
}

static void process_name(const char *pid, char name[32])
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/%.20s/comm", pid);
	if (!proc_read(path, name, 32)) {
		name[0] = '\0';
	}
	name[strcspn(name, "\n")] = '\0';
}

enum holder { HOLDER_UNSEEN, HOLDER_LEFT, HOLDER_SEEN };

/* The kernel does not tell whose an open file description lock is; proc does, to root and to the
 * owner. A VM and the process of its disk have it together: without the VM the other is left. */
static enum holder holder_find(int fd, char holder[64])
{
	enum holder found = HOLDER_UNSEEN;
	struct dirent *entry;
	struct stat file;
	char name[32];
	DIR *dir;

	snprintf(holder, 64, "another program");
	if (fstat(fd, &file) < 0) {
		return found;
	}
	dir = opendir("/proc");
	if (dir == NULL) {
		return found;
	}
	while (found != HOLDER_SEEN && (entry = readdir(dir)) != NULL) {
		if (!isdigit((unsigned char)entry->d_name[0]) ||
		    !process_locks(entry->d_name, &file)) {
			continue;
		}
		process_name(entry->d_name, name);
		holder_print(entry->d_name, name, holder);
		found = strcmp(name, BLK_SYNC_NAME) == 0 ? HOLDER_LEFT : HOLDER_SEEN;
	}
	closedir(dir);
	return found;
}

int disk_lock_try(int fd, bool read_only)
{
	struct flock lock = {.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0) {
		return 0;
	}
	return errno == EACCES ? -EAGAIN : -errno;
}

/* Behind a VM that was killed the kernel clears up its ring in its own time. */
int disk_lock(int fd, bool read_only, char holder[64])
{
	static const struct timespec pause = {.tv_nsec = 10000000};
	int tries = 0;
	int rv;

	while ((rv = disk_lock_try(fd, read_only)) == -EAGAIN) {
		tries++;
		if (tries % TRIES == 0) {
			enum holder found = holder_find(fd, holder);

			if (found != HOLDER_UNSEEN || tries == TRIES_UNSEEN) {
				return found == HOLDER_LEFT ? -EAGAIN : -EBUSY;
			}
		}
		(void)nanosleep(&pause, NULL);
	}
	return rv;
}
