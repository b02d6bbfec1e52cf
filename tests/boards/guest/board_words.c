/* board_words.c: words for the program on a board, beside witnessd: which VMs' processes are there.
 */
#include "guest.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { TOKEN_MAX = 31, PROCS_MAX = 256 };
enum { FOLLOWED_MAX = 24, RETRY_MS = 500, AGAIN_MS = 30000, REPLAY = 16384 };

/* The end of the newest whole line that was typed; lines of before wait no longer. */
static void token_take(char *line, size_t size, size_t *length, char *token)
{
	struct pollfd wait = {.fd = STDIN_FILENO, .events = POLLIN};
	while (poll(&wait, 1, 0) == 1 && (wait.revents & POLLIN)) {
		ssize_t got = read(STDIN_FILENO, line + *length, size - 1 - *length);
		if (got <= 0)
			return;
		*length += (size_t)got;
		line[*length] = '\0';
		char *end = strrchr(line, '\n');
		if (!end) {
			*length = *length == size - 1 ? 0 : *length;
			continue;
		}
		*end = '\0';
		char *begin = strrchr(line, '\n');
		snprintf(token, TOKEN_MAX + 1, "%.*s", TOKEN_MAX, begin ? begin + 1 : line);
		*length -= (size_t)(end + 1 - line);
		memmove(line, end + 1, *length);
	}
}

/* May a thread of a process still run something? One that is on its way out (PF_EXITING) may not,
 * neither its own code nor its guest's; but the kernel lists it until it has taken all of it down,
 * which for a VM on a busy board may be a second. */
static bool process_runs(const char *pid)
{
	/* proc(5), /proc/pid/stat: the ninth field; the first after the name is the third. */
	enum { FLAGS = 9 - 3, EXITING = 0x4 };
	char path[300], stat[512];
	snprintf(path, sizeof path, "/proc/%s/task", pid);
	DIR *threads = opendir(path);
	if (!threads)
		return errno != ENOENT;
	bool runs = false;
	for (struct dirent *entry; !runs && (entry = readdir(threads));) {
		snprintf(path, sizeof path, "%s/stat", entry->d_name);
		int file = entry->d_name[0] == '.' ? -1 : openat(dirfd(threads), path, O_RDONLY);
		ssize_t length = file < 0 ? 0 : read(file, stat, sizeof stat - 1);
		if (file >= 0)
			close(file);
		stat[length > 0 ? length : 0] = '\0';
		char *field = strrchr(stat, ')'); /* gone meanwhile: none */
		for (int skipped = 0; field && skipped <= FLAGS; skipped++)
			field = strchr(field + 1, ' ');
		runs = field && !(strtoul(field, NULL, 10) & EXITING);
	}
	closedir(threads);
	return runs;
}

/* " NAME:PID" for each process of one VM's cgroup, " NAME:PID:ends" if it runs nothing any more; a
 * process that has ended is not among them. */
static void group_list(int folder, const char *name, FILE *out)
{
	char path[300], procs[PROCS_MAX];
	snprintf(path, sizeof path, "%s/cgroup.procs", name);
	int file = openat(folder, path, O_RDONLY);
	if (file < 0)
		return; /* gone, or no cgroup */
	ssize_t length = read(file, procs, sizeof procs - 1);
	close(file);
	procs[length > 0 ? length : 0] = '\0';
	for (char *rest = procs, *pid; (pid = strsep(&rest, "\n")) && *pid;)
		fprintf(out, " %s:%s%s", name, pid, process_runs(pid) ? "" : ":ends");
}

/* census=FOLDER,EVERY_MS: the processes in the cgroups of a folder, for ever:
 *     CENSUS token=T hz=HZ from=C to=C web:512 db:530:ends
 * The counters are of before and after the look; T is the newest line that came on the standard
 * input before both. So whoever types the time knows what the counter shows when. */
static int census_run(struct call *call)
{
	const char *path = call_text(call, 0, "/sys/fs/cgroup/system.slice/witnessd.service/vms");
	useconds_t every_us = (useconds_t)call_number(call, 1, 200) * 1000;
	char line[4096], token[TOKEN_MAX + 1] = "0", text[1200];
	size_t length = 0;
	for (;; usleep(every_us)) {
		token_take(line, sizeof line, &length, token);
		memset(text, 0, sizeof text);
		FILE *out = fmemopen(text, sizeof text - 1, "w");
		if (!out)
			return call_failed(call, errno, "memory");
		uint64_t from = counter_read();
		DIR *folder = opendir(path); /* none: witnessd is not there */
		for (struct dirent *entry; folder && (entry = readdir(folder));)
			if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
				group_list(dirfd(folder), entry->d_name, out);
		if (folder)
			closedir(folder);
		uint64_t to = counter_read();
		fclose(out);
		say("CENSUS token=%s hz=%llu from=%llu to=%llu%s", token,
		    (unsigned long long)counter_hz(), (unsigned long long)from,
		    (unsigned long long)to, text);
	}
}

/* A VM's console, asked of witnessd again whenever it ends. */
struct followed {
	const char *vm;
	int socket; /* -1: none */
	uint64_t next_ms; /* then it is opened, or opened again: one that is shown by way of a board
			   * that is gone may never end. What was printed before comes again. */
	size_t length;
	char line[512];
};

static void followed_open(struct followed *f, const struct sockaddr_un *there)
{
	char request[256];
	int length = snprintf(request, sizeof request,
			      "GET /v1/vms/%s/console?replay=%d HTTP/1.0\r\n\r\n", f->vm, REPLAY);
	if (f->socket >= 0)
		close(f->socket);
	f->length = 0;
	/* A daemon that is stopped may have no room for one more that waits. */
	f->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (connect(f->socket, (const struct sockaddr *)there, sizeof *there) == 0 &&
	    write(f->socket, request, (size_t)length) == length) {
		f->next_ms = now_ns() / 1000000 + AGAIN_MS;
		return;
	}
	close(f->socket);
	f->socket = -1;
	f->next_ms = now_ns() / 1000000 + RETRY_MS;
}

static void followed_read(struct followed *f)
{
	ssize_t got = read(f->socket, f->line + f->length, sizeof f->line - 1 - f->length);
	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0) {
		close(f->socket);
		f->socket = -1;
		f->next_ms = now_ns() / 1000000 + RETRY_MS;
		return;
	}
	f->length += (size_t)got;
	f->line[f->length] = '\0';
	char *line = f->line;
	for (char *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		if (strncmp(line, "TICK ", 5) == 0)
			say("%s %s", f->vm, line);
	}
	f->length = strlen(line);
	f->length = f->length == sizeof f->line - 1 ? 0 : f->length; /* no line of ours */
	memmove(f->line, line, f->length);
}

/* lines=SOCKET,VM:VM:...: the lines of the bare guest, each behind its VM's name, for ever. */
static int lines_run(struct call *call)
{
	static struct followed all[FOLLOWED_MAX];
	struct sockaddr_un there = {.sun_family = AF_UNIX};
	char *names = call->count > 1 ? call->args[1] : NULL;
	int count = 0;
	snprintf(there.sun_path, sizeof there.sun_path, "%s",
		 call_text(call, 0, "/run/tiebreak/witnessd.sock"));
	for (char *vm; count < FOLLOWED_MAX && (vm = strsep(&names, ":"));)
		all[count++] = (struct followed){.vm = vm, .socket = -1};
	for (;;) {
		struct pollfd wait[FOLLOWED_MAX];
		for (int i = 0; i < count; i++) {
			if (now_ns() / 1000000 >= all[i].next_ms)
				followed_open(&all[i], &there);
			wait[i] = (struct pollfd){.fd = all[i].socket, .events = POLLIN};
		}
		if (poll(wait, (nfds_t)count, RETRY_MS) < 0)
			return call_failed(call, errno, "poll");
		for (int i = 0; i < count; i++)
			if (wait[i].revents)
				followed_read(&all[i]);
	}
}

const struct word board_words[] = {
	{"lines", lines_run, "SOCKET,VM:VM:..."},
	{"census", census_run, "FOLDER,EVERY_MS"},
	{NULL, NULL, NULL},
};
