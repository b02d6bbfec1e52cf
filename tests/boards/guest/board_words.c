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
#include <unistd.h>

enum { TOKEN_MAX = 31, PROCS_MAX = 256 };

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

/* " NAME:PID" for each process of one VM's cgroup; a process that has ended is not among them. */
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
		fprintf(out, " %s:%s", name, pid);
}

/* census=FOLDER,EVERY_MS: the processes in the cgroups of a folder, for ever:
 *     CENSUS token=T hz=HZ from=C to=C web:512 db:530
 * The counters are of before and after the look; T is the newest line that came on the standard
 * input before both. So whoever types the time knows what the counter shows when. */
static int census_run(struct call *call)
{
	const char *path = call_text(call, 0, "/sys/fs/cgroup/system.slice/witnessd.service/vms");
	useconds_t every_us = (useconds_t)call_number(call, 1, 200) * 1000;
	char line[4096], token[TOKEN_MAX + 1] = "0", text[900];
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

const struct word board_words[] = {
	{"census", census_run, "FOLDER,EVERY_MS"},
	{NULL, NULL, NULL},
};
