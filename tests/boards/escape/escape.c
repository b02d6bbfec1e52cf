/* escape: on a board, tries to get out of a VM's sandbox (hv/sandbox.h) in every way of
 * tests/unit/escapes.h, each in a process of its own: `escape` as root with a user of its own,
 * `escape person` as an ordinary user. One line a try that was not refused by the list of calls,
 * and a last line; status 0 if there was none. */
#include <stdio.h>

#include "hv/sandbox.h"
#include "tests/unit/escapes.h"

enum { USER = 61234 };

static pid_t other_make(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		if (setgid(USER) < 0 || setuid(USER) < 0) {
			_exit(1);
		}
		for (;;) {
			pause();
		}
	}
	return pid;
}

static void attempt(const struct escape *e, const struct escape_ground *g, bool person)
{
	const struct sandbox_limits limits = {.file_size_max = 1 << 20};
	Tb__SandboxSpec spec = TB__SANDBOX_SPEC__INIT;
	struct fault fault = {0};
	struct sandbox s;

	if (person && (setgid(USER) < 0 || setuid(USER) < 0)) {
		_exit(4);
	}
	if (!person) {
		spec.uid = spec.gid = USER;
	}
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	if (sandbox_enter(&spec, &s, &fault) != 0 ||
	    sandbox_seal(&spec, &limits, &s, &fault) != 0) {
		fprintf(stderr, "%s\n", fault.text);
		_exit(4);
	}
	_exit(e->attempt(g) > 0 ? 2 : 3);
}

int main(int argc, char **argv)
{
	bool person = argc > 1 && strcmp(argv[1], "person") == 0;
	struct escape_ground g = {
		.other = other_make(),
		.file = open("/dev/null", O_RDWR),
		.terminal = open("/dev/tty", O_RDWR),
	};
	unsigned bad = 0;

	if (g.other < 0 || g.file < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, g.pair) < 0) {
		perror("escape");
		return 1;
	}
	for (unsigned i = 0; i < ESCAPES; i++) {
		int status = 0;
		pid_t pid = fork();

		if (pid == 0) {
			attempt(&escapes[i], &g, person);
		}
		if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) ||
		    WTERMSIG(status) != SIGSYS) {
			printf("ESCAPE %s status 0x%x\n", escapes[i].name, (unsigned)status);
			bad++;
		}
	}
	kill(g.other, SIGKILL);
	printf("ESCAPES tried %u not refused %u\n", (unsigned)ESCAPES, bad);
	return bad == 0 ? 0 : 1;
}
