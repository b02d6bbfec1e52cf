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

static void holder_print(const char *pid, char holder[64])
{
	char path[40];
	char name[32];

	snprintf(path, sizeof(path), "/proc/%.20s/comm", pid);
	if (!proc_read(path, name, sizeof(name))) {
		snprintf(holder, 64, "process %.20s", pid);
		return;
	}
	name[strcspn(name, "\n")] = '\0';
	snprintf(holder, 64, "process %.20s (%s)", pid, name);
}

/* The kernel does not tell whose an open file description lock is; proc does, to root and to the
 * owner. */
static bool holder_find(int fd, char holder[64])
{
	bool found = false;
	struct dirent *entry;
	struct stat file;
	DIR *dir;

	snprintf(holder, 64, "another program");
	if (fstat(fd, &file) < 0) {
		return false;
	}
	dir = opendir("/proc");
	if (dir == NULL) {
		return false;
	}
	while (!found && (entry = readdir(dir)) != NULL) {
		found = isdigit((unsigned char)entry->d_name[0]) &&
			process_locks(entry->d_name, &file);
		if (found) {
			holder_print(entry->d_name, holder);
		}
	}
	closedir(dir);
	return found;
}

/* Behind a VM that was killed the kernel clears up its ring in its own time, and its disk's process
 * (virtio/blk_sync.h) ends by itself: their locks are waited for. */
int disk_lock(int fd, bool read_only, char holder[64])
{
	static const struct timespec pause = {.tv_nsec = 10000000};
	struct flock lock = {.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
	int tries = 0;

	while (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
		if (errno != EAGAIN && errno != EACCES) {
			return -errno;
		}
		tries++;
		if (tries % TRIES == 0 && (holder_find(fd, holder) || tries == TRIES_UNSEEN)) {
			return -EBUSY;
		}
		(void)nanosleep(&pause, NULL);
	}
	return 0;
}
