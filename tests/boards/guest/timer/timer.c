/* timer.c: runs on a board: starts a VM monitor, and says in one line of JSON how long it took to a
 * line of its guest, and what it costs its host then.
 *
 *   timer MARKER GUEST_MIB COMMAND [ARG...]
 *
 * The command's output is read through a pipe. At the first line that holds MARKER the clock is
 * read, the process is stopped and looked at, and goes on to its end. Times are CLOCK_MONOTONIC
 * from just before exec. Its memory is PSS, without the guest's: a writable run of mappings, of one
 * file or of none, that is as large as GUEST_MIB. What the guest says of its counter (counter= hz=)
 * tells the time before it was started from the time it ran. The exits are those of KVM's debugfs.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RUNS_MAX = 4096, LINE_BYTES = 1024, FAILED = 125 };

/* Mappings that touch each other, writable, of the same file. */
struct run {
	uint64_t start, end, pss_kib;
	unsigned long inode;
	bool writable;
};

struct report {
	uint64_t marker_ns;
	uint64_t counter, hz; /* as the guest said; 0 if it did not */
	uint64_t pss_kib, guest_pss_kib, maps, threads;
};

static struct run runs[RUNS_MAX];

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static FILE *proc_open(pid_t pid, const char *name)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
	return fopen(path, "re");
}

/* Adds the mapping to the last run if it goes on from there. */
static int run_extend(int count, const struct run *map)
{
	struct run *last = count > 0 ? &runs[count - 1] : NULL;
	if (last && last->end == map->start && last->inode == map->inode &&
	    last->writable == map->writable) {
		last->end = map->end;
		return count;
	}
	if (count == RUNS_MAX)
		return count;
	runs[count] = *map;
	return count + 1;
}

static int runs_read(pid_t pid, struct report *report)
{
	char line[LINE_BYTES];
	int count = 0;
	FILE *smaps = proc_open(pid, "smaps");
	if (!smaps)
		return 0;
	while (fgets(line, sizeof line, smaps)) {
		unsigned long long start, end, pss;
		unsigned long inode;
		char mode[5];
		if (sscanf(line, "%llx-%llx %4s %*x %*s %lu", &start, &end, mode, &inode) == 4) {
			report->maps++;
			count = run_extend(count, &(struct run){.start = start,
								.end = end,
								.inode = inode,
								.writable = mode[1] == 'w'});
		} else if (count > 0 && sscanf(line, "Pss: %llu kB", &pss) == 1) {
			runs[count - 1].pss_kib += pss;
		}
	}
	fclose(smaps);
	return count;
}

static void memory_look(pid_t pid, uint64_t guest_mib, struct report *report)
{
	int count = runs_read(pid, report);
	for (int i = 0; i < count; i++) {
		bool guest = runs[i].writable && runs[i].end - runs[i].start >= guest_mib << 20;
		*(guest ? &report->guest_pss_kib : &report->pss_kib) += runs[i].pss_kib;
	}
}

static void threads_look(pid_t pid, struct report *report)
{
	char line[LINE_BYTES];
	FILE *status = proc_open(pid, "status");
	while (status && fgets(line, sizeof line, status))
		if (strncmp(line, "Threads:", 8) == 0)
			report->threads = strtoull(line + 8, NULL, 10);
	if (status)
		fclose(status);
}

static void counter_look(const char *line, struct report *report)
{
	const char *counter = strstr(line, "counter="), *hz = strstr(line, "hz=");
	report->counter = counter ? strtoull(counter + 8, NULL, 10) : 0;
	report->hz = hz ? strtoull(hz + 3, NULL, 10) : 0;
}

static uint64_t counter_ns(uint64_t counter, uint64_t hz)
{
	const uint64_t second = 1000000000;
	return hz ? counter / hz * second + counter % hz * second / hz : 0;
}

static void number_print(const char *directory, const char *name)
{
	char path[2 * LINE_BYTES];
	unsigned long long number;
	snprintf(path, sizeof path, "%s/%s", directory, name);
	FILE *file = fopen(path, "re");
	if (file && fscanf(file, "%llu", &number) == 1)
		printf(",\"%s\":%llu", name, number);
	if (file)
		fclose(file);
}

/* KVM names a VM's directory after its process and descriptor. */
static void exits_print(pid_t pid)
{
	char prefix[32], path[LINE_BYTES];
	DIR *kvm = opendir("/sys/kernel/debug/kvm");
	snprintf(prefix, sizeof prefix, "%d-", (int)pid);
	for (struct dirent *entry; kvm && (entry = readdir(kvm));) {
		if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
			continue;
		snprintf(path, sizeof path, "/sys/kernel/debug/kvm/%s", entry->d_name);
		number_print(path, "exits");
		number_print(path, "mmio_exit_user");
		number_print(path, "mmio_exit_kernel");
		number_print(path, "wfi_exit_stat");
	}
	if (kvm)
		closedir(kvm);
}

static void process_look(pid_t pid, const char *line, uint64_t guest_mib, struct report *report)
{
	siginfo_t stopped;
	kill(pid, SIGSTOP);
	waitid(P_PID, (id_t)pid, &stopped, WSTOPPED | WEXITED | WNOWAIT); /* or it has ended */
	counter_look(line, report);
	memory_look(pid, guest_mib, report);
	threads_look(pid, report);
	uint64_t guest_ns = counter_ns(report->counter, report->hz);
	printf("{\"marker_ns\":%llu,\"guest_ns\":%llu,\"pss_kib\":%llu,\"guest_pss_kib\":%llu,"
	       "\"maps\":%llu,\"threads\":%llu",
	       (unsigned long long)report->marker_ns, (unsigned long long)guest_ns,
	       (unsigned long long)report->pss_kib, (unsigned long long)report->guest_pss_kib,
	       (unsigned long long)report->maps, (unsigned long long)report->threads);
	exits_print(pid);
	kill(pid, SIGCONT);
}

static pid_t command_start(char **command, int *ret_output)
{
	int pipes[2];
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return -1;
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(pipes[1], STDOUT_FILENO);
		execvp(*command, command);
		fprintf(stderr, "timer: %s: %s\n", *command, strerror(errno));
		_exit(FAILED);
	}
	close(pipes[1]);
	*ret_output = pipes[0];
	return pid;
}

/* One line, without what is too long of it; false at the end. */
static bool line_read(FILE *output, char *line)
{
	size_t length = 0;
	int c;
	while ((c = getc(output)) != EOF && c != '\n')
		if (length < LINE_BYTES - 1 && c != '\r')
			line[length++] = (char)c;
	line[length] = '\0';
	return c != EOF || length > 0;
}

int main(int argc, char **argv)
{
	if (argc < 4) {
		fprintf(stderr, "usage: timer MARKER GUEST_MIB COMMAND [ARG...]\n");
		return 2;
	}
	struct report report = {0};
	char line[LINE_BYTES];
	bool found = false;
	int fd = -1, status = 0;
	uint64_t began = now_ns();
	pid_t pid = command_start(argv + 3, &fd);
	FILE *output = fd < 0 ? NULL : fdopen(fd, "r");
	while (output && line_read(output, line)) {
		if (!found && strstr(line, argv[1])) {
			report.marker_ns = now_ns() - began;
			process_look(pid, line, strtoull(argv[2], NULL, 10), &report);
			found = true;
		} else {
			fprintf(stderr, "%s\n", line);
		}
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return FAILED;
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	if (found)
		printf(",\"status\":%d}\n", code);
	else
		fprintf(stderr, "timer: no line with %s before the end (status %d)\n", argv[1],
			code);
	return found ? 0 : FAILED;
}
