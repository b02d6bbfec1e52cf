/* alter: on a board, restores a VM from its state file with one word altered, many times, and says
 * what came of it.
 *
 *   alter STATE COPY COUNT SEED forged|damaged COMMAND [ARG...]
 *
 * Each of COUNT times a word of 32 bits is altered (spread over the file, values by SEED), the
 * result written to COPY and COMMAND run, which restores from COPY and has a lease. Of those that
 * the parser refuses, which is tried here, only each tenth is run: a VM would say the same.
 * `forged`: words of the record, with a good checksum; `damaged`: any word, checksum as it was. A
 * VM may refuse (exit status 1 and a sentence) or run until its lease ends it (SIGKILL) or its
 * guest does; what else happens to its process is told in a line and makes the status 1. The last
 * line counts. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/state_file.h"
#include "lib/rng.h"

enum { PATIENCE_S = 30, SUM_AT = 16, FAILED = 2, SAID_MAX = 512, PARSED_EACH = 10 };

struct altered {
	size_t at;
	uint32_t before, after;
};

struct tally {
	unsigned refused, ran, bad;
};

static void die(const char *what)
{
	fprintf(stderr, "alter: %s: %s\n", what, strerror(errno));
	exit(FAILED);
}

static uint8_t *file_read(const char *path, size_t *ret_len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *data;

	if (fd < 0 || fstat(fd, &st) < 0) {
		die(path);
	}
	*ret_len = (size_t)st.st_size;
	data = malloc(*ret_len);
	if (data == NULL || read(fd, data, *ret_len) != st.st_size) {
		die(path);
	}
	close(fd);
	return data;
}

static void file_write(const char *path, const uint8_t *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0 || write(fd, data, len) != (ssize_t)len || close(fd) < 0) {
		die(path);
	}
}

static bool parser_refuses(const char *path)
{
	struct fault fault = {0};
	Tb__VmSnapshot *s;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rv = state_file_read(fd, &s, &fault);

	close(fd);
	if (rv == 0) {
		tb__vm_snapshot__free_unpacked(s, NULL);
	}
	return rv < 0;
}

static void sum_mend(uint8_t *data, size_t len)
{
	uint64_t sum = state_file_sum(data, data + STATE_FILE_HEAD, len - STATE_FILE_HEAD);
	unsigned i;

	for (i = 0; i < 8; i++) {
		data[SUM_AT + i] = (uint8_t)(sum >> (56 - 8 * i));
	}
}

static uint32_t other_value(struct prng *p, uint32_t before)
{
	static const uint32_t values[] = {0, UINT32_MAX, 0x7fffffff, 1};
	uint32_t after;

	do {
		switch (prng_below(p, 3)) {
		case 0:
			after = before ^ UINT32_C(1) << prng_below(p, 32);
			break;
		case 1:
			after = values[prng_below(p, 4)];
			break;
		default:
			after = (uint32_t)prng_u64(p);
			break;
		}
	} while (after == before);
	return after;
}

/* The n-th of `count` places, somewhere in its share of the file. */
static struct altered alter(uint8_t *data, size_t len, bool forged, unsigned n, unsigned count,
			    struct prng *p)
{
	size_t first = forged ? STATE_FILE_HEAD : 0, words = (len - first) / 4;
	size_t from = words * n / count, to = words * (n + 1) / count;
	struct altered a;

	a.at = first + 4 * (from + (to > from ? prng_below(p, to - from) : 0));
	memcpy(&a.before, data + a.at, 4);
	a.after = other_value(p, a.before);
	memcpy(data + a.at, &a.after, 4);
	if (forged) {
		sum_mend(data, len);
	}
	return a;
}

static pid_t start(char **command, int *ret_said)
{
	int ends[2];
	pid_t pid;

	if (pipe(ends) < 0) {
		die("pipe");
	}
	pid = fork();
	if (pid == 0) {
		dup2(ends[1], STDOUT_FILENO);
		dup2(ends[1], STDERR_FILENO);
		close(ends[0]);
		close(ends[1]);
		execvp(command[0], command);
		_exit(127);
	}
	close(ends[1]);
	*ret_said = ends[0];
	return pid;
}

/* All it says until it ends; the beginning is kept. False: it had to be killed. */
static bool listen_to(pid_t pid, int said, char *text)
{
	size_t len = 0;
	bool patient = true;

	for (;;) {
		struct pollfd p = {.fd = said, .events = POLLIN};
		char more[4096];
		ssize_t got;

		if (patient && poll(&p, 1, PATIENCE_S * 1000) == 0) {
			kill(pid, SIGKILL);
			patient = false;
		}
		got = read(said, more, sizeof(more));
		if (got <= 0) {
			break;
		}
		if (len < SAID_MAX - 1) {
			size_t room = SAID_MAX - 1 - len,
			       part = (size_t)got < room ? (size_t)got : room;

			memcpy(text + len, more, part);
			len += part;
		}
	}
	text[len] = '\0';
	text[strcspn(text, "\n")] = '\0';
	close(said);
	return patient;
}

static void judge(const struct altered *a, int status, bool patient, const char *text,
		  struct tally *t)
{
	bool refused = WIFEXITED(status) && WEXITSTATUS(status) == 1 && text[0] != '\0';
	bool ran = (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ||
		   (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3 ||
					  WEXITSTATUS(status) == 4));

	if (patient && refused) {
		t->refused++;
	} else if (patient && ran) {
		t->ran++;
	} else {
		t->bad++;
		printf("BAD word at %zu, 0x%x made 0x%x: %s %d: %s\n", a->at, a->before, a->after,
		       !patient		     ? "does not end, status"
		       : WIFSIGNALED(status) ? "signal"
					     : "exit status",
		       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), text);
	}
	if (t->refused <= 3 && refused) {
		printf("refused: %s\n", text);
	}
}

int main(int argc, char **argv)
{
	struct prng p;
	struct tally t = {0};
	uint8_t *data, *copy;
	size_t len;
	unsigned n, count, unsound = 0;
	bool forged;

	if (argc < 7) {
		fputs("usage: alter STATE COPY COUNT SEED forged|damaged COMMAND...\n", stderr);
		return FAILED;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	data = file_read(argv[1], &len);
	copy = malloc(len);
	count = (unsigned)strtoul(argv[3], NULL, 10);
	p.state = strtoull(argv[4], NULL, 10);
	forged = strcmp(argv[5], "forged") == 0;
	if (copy == NULL || len < STATE_FILE_HEAD) {
		die(argv[1]);
	}
	for (n = 0; n < count; n++) {
		char text[SAID_MAX];
		struct altered a;
		int said, status;
		bool patient;
		pid_t pid;

		memcpy(copy, data, len);
		a = alter(copy, len, forged, n, count, &p);
		file_write(argv[2], copy, len);
		if (parser_refuses(argv[2]) && unsound++ % PARSED_EACH != 0) {
			t.refused++;
			continue;
		}
		pid = start(argv + 6, &said);
		patient = listen_to(pid, said, text);
		waitpid(pid, &status, 0);
		judge(&a, status, patient, text, &t);
	}
	printf("ALTERED %s refused=%u ran=%u bad=%u\n", argv[5], t.refused, t.ran, t.bad);
	free(copy);
	free(data);
	return t.bad == 0 && t.refused + t.ran == count ? 0 : 1;
}
