/* talk.c: runs on a board: holds a conversation with a program that believes it has a terminal.
 *
 *   talk [-l SECONDS] COMMAND [ARG...] <<END
 *   < text          waits until the program has said `text`, SECONDS (60) for each line at most
 *   > text          types a line
 *   ^ x             types one control character: ^ a is Ctrl-A
 *   . x             types text without the end of line
 *   = 100 30        gives the terminal this size, 100 columns
 *   END
 *
 * Await a line before typing: what is typed before the program listens may be lost.
 * The terminal has 90 columns and 20 rows. All that the program says is shown. Its exit status is
 * this one's; 124 when it did not say what was awaited, and then it is killed. After the last line
 * the program is waited for just as long.
 */
#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { HEARD_BYTES = 64 * 1024, LATE = 124, FAILED = 125 };

struct talk {
	int terminal;
	pid_t pid;
	int limit_s;
	char heard[HEARD_BYTES]; /* what was said since the last line awaited */
	size_t length;
};

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Reads and shows what is said next; false at the end, or at the time `until_ms`. */
static bool hear(struct talk *talk, int64_t until_ms)
{
	int64_t left = until_ms - now_ms();
	struct pollfd wait = {.fd = talk->terminal, .events = POLLIN};
	if (left <= 0 || poll(&wait, 1, (int)left) != 1)
		return false;
	if (talk->length > HEARD_BYTES / 2) { /* the older half has been looked at */
		talk->length -= HEARD_BYTES / 2;
		memmove(talk->heard, talk->heard + HEARD_BYTES / 2, talk->length);
	}
	ssize_t length =
		read(talk->terminal, talk->heard + talk->length, HEARD_BYTES - 1 - talk->length);
	if (length <= 0)
		return false;
	fwrite(talk->heard + talk->length, 1, (size_t)length, stdout);
	fflush(stdout);
	talk->length += (size_t)length;
	talk->heard[talk->length] = '\0';
	return true;
}

static bool await_text(struct talk *talk, const char *text)
{
	int64_t until_ms = now_ms() + talk->limit_s * 1000;
	for (;;) {
		char *found = memmem(talk->heard, talk->length, text, strlen(text));
		if (found) {
			size_t used = (size_t)(found - talk->heard) + strlen(text);
			talk->length -= used;
			memmove(talk->heard, talk->heard + used, talk->length);
			return true;
		}
		if (!hear(talk, until_ms))
			return false;
	}
}

static bool type(struct talk *talk, const char *text, size_t length)
{
	return write(talk->terminal, text, length) == (ssize_t)length;
}

static bool size_set(struct talk *talk, const char *text)
{
	struct winsize size = {0};
	return sscanf(text, "%hu %hu", &size.ws_col, &size.ws_row) == 2 &&
	       ioctl(talk->terminal, TIOCSWINSZ, &size) == 0;
}

/* Does one line of the conversation. */
static bool line_do(struct talk *talk, const char *line)
{
	const char *text = line[0] && line[1] ? line + 2 : "";
	char control = (char)(*text & 0x1f);
	switch (*line) {
	case '<':
		return await_text(talk, text);
	case '>':
		return type(talk, text, strlen(text)) && type(talk, "\n", 1);
	case '.':
		return type(talk, text, strlen(text));
	case '^':
		return type(talk, &control, 1);
	case '=':
		return size_set(talk, text);
	default:
		return *line == '\0';
	}
}

static int program_start(struct talk *talk, char **command)
{
	/* As a person's, but without echo, which would pass for an answer. */
	struct termios mode = {.c_iflag = ICRNL,
			       .c_cflag = B38400 | CS8 | CREAD,
			       .c_lflag = ICANON | ISIG,
			       .c_cc = {[VINTR] = 3, [VEOF] = 4, [VMIN] = 1}};
	struct winsize size = {.ws_col = 90, .ws_row = 20};
	talk->pid = forkpty(&talk->terminal, NULL, &mode, &size);
	if (talk->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execvp(*command, command);
		fprintf(stderr, "talk: %s: %s\n", *command, strerror(errno));
		_exit(FAILED);
	}
	return talk->pid < 0 ? -errno : 0;
}

static int program_end(struct talk *talk, const char *missed)
{
	int status;
	int64_t until_ms = now_ms() + talk->limit_s * 1000;
	while (!missed && hear(talk, until_ms))
		;
	if (!missed && now_ms() >= until_ms)
		missed = "the end of the program";
	if (missed) {
		printf("\ntalk: not within %d s: %s\n", talk->limit_s, missed);
		kill(talk->pid, SIGKILL);
	}
	waitpid(talk->pid, &status, 0);
	if (missed)
		return LATE;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
	static struct talk talk = {.limit_s = 60};
	static char line[4096];
	int first = 1;
	if (argc > 2 && strcmp(argv[1], "-l") == 0) {
		talk.limit_s = atoi(argv[2]);
		first = 3;
	}
	if (first >= argc || program_start(&talk, argv + first) < 0) {
		fprintf(stderr, "usage: talk [-l SECONDS] COMMAND [ARG...] <CONVERSATION\n");
		return 2;
	}
	const char *missed = NULL;
	while (!missed && fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (!line_do(&talk, line))
			missed = line;
	}
	return program_end(&talk, missed);
}
