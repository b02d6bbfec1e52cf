#include "agent/hook.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/mem.h"

extern char **environ;

enum { OWN_VARIABLES = 5 };

/* The agent's environment and what is said above; made before the fork. */
static char **environment_make(const struct hook_call *call)
{
	size_t count = 0;
	char **all;

	while (environ[count] != NULL)
		count++;
	all = mem_array(count + OWN_VARIABLES + 1, sizeof(*all));
	all[0] = mem_printf("WITNESS_EVENT=%s", call->event);
	all[1] = mem_printf("WITNESS_SITE=%s", call->settings->site);
	all[2] = mem_printf("WITNESS_NODE=%u", call->settings->node);
	all[3] = mem_printf("WITNESS_EPOCH=%llu", (unsigned long long)call->epoch);
	all[4] = mem_printf("WITNESS_TIME_MS=%llu", (unsigned long long)call->time_ms);
	memcpy(all + OWN_VARIABLES, environ, count * sizeof(*all));
	all[OWN_VARIABLES + count] = NULL;
	return all;
}

static void child_run(const char *command, char **environment)
{
	sigset_t none;

	setpgid(0, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	execle("/bin/sh", "sh", "-c", command, (char *)NULL, environment);
	_exit(127);
}

int hook_start(struct hook *h, const struct hook_call *call, uint64_t now_ms)
{
	char **environment = environment_make(call);
	pid_t pid = fork();
	int rv = pid < 0 ? -errno : 0;

	if (pid == 0)
		child_run(call->command, environment);
	for (unsigned i = 0; i < OWN_VARIABLES; i++)
		free(environment[i]);
	free(environment);
	if (rv != 0)
		return rv;
	setpgid(pid, pid); /* whoever comes first, so that a kill at once finds the group */
	*h = (struct hook){.pid = pid,
			   .deadline_ms = call->time_ms != 0 ? now_ms + call->time_ms : UINT64_MAX};
	return 0;
}

void hook_kill(struct hook *h)
{
	if (h->pid == 0)
		return;
	kill(-h->pid, SIGKILL);
	h->killed = true;
}

bool hook_ended(struct hook *h, uint64_t now_ms, bool *ret_good)
{
	int status;

	if (h->pid == 0)
		return false;
	if (!h->killed && now_ms >= h->deadline_ms)
		hook_kill(h);
	if (waitpid(h->pid, &status, WNOHANG) != h->pid)
		return false;
	*ret_good = !h->killed && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	*h = (struct hook){0};
	return true;
}
