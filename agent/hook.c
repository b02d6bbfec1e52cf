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

const char *const hook_names[DUTY_HOOKS] = {"", "on-gain", "on-loss", "on-loss-failed"};

static const char *hook_command(const struct settings *s, enum duty_hook which)
{
	switch (which) {
	case DUTY_GAIN:
		return s->on_gain;
	case DUTY_LOSS:
		return s->on_loss;
	case DUTY_LOSS_FAILED:
		return s->on_loss_failed;
	default:
		return NULL;
	}
}

void hook_terms(const struct settings *s, bool ret_has[DUTY_HOOKS])
{
	for (unsigned i = 0; i < DUTY_HOOKS; i++)
		ret_has[i] = hook_command(s, (enum duty_hook)i) != NULL;
}

/* The agent's environment and what hook_obey says; made before the fork. */
static char **environment_make(const struct duty_out *out, const struct settings *s, uint64_t epoch)
{
	static const char *const events[] = {"", "gain", "loss", "loss-failed"};
	size_t count = 0;
	char **all;

	while (environ[count] != NULL)
		count++;
	all = mem_array(count + OWN_VARIABLES + 1, sizeof(*all));
	all[0] = mem_printf("WITNESS_EVENT=%s", events[out->run]);
	all[1] = mem_printf("WITNESS_SITE=%s", s->site);
	all[2] = mem_printf("WITNESS_NODE=%u", s->node);
	all[3] = mem_printf("WITNESS_EPOCH=%llu", (unsigned long long)epoch);
	all[4] = mem_printf("WITNESS_TIME_MS=%llu", (unsigned long long)out->run_ms);
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

static int hook_start(struct hook *h, const struct duty_out *out, const struct settings *s,
		      uint64_t epoch)
{
	char **environment = environment_make(out, s, epoch);
	pid_t pid = fork();
	int rv = pid < 0 ? -errno : 0;

	if (pid == 0)
		child_run(hook_command(s, out->run), environment);
	for (unsigned i = 0; i < OWN_VARIABLES; i++)
		free(environment[i]);
	free(environment);
	if (rv != 0)
		return rv;
	setpgid(pid, pid); /* whoever comes first, so that a kill at once finds the group */
	h->pid = pid;
	h->killed = false;
	return 0;
}

void hook_kill(struct hook *h)
{
	if (h->pid == 0)
		return;
	kill(-h->pid, SIGKILL);
	h->killed = true;
}

/* What was abandoned stays behind as a zombie once it can end. With all places taken, one does so
 * until this program ends. */
static void abandoned_reap(struct hook *h)
{
	for (unsigned i = 0; i < HOOK_ABANDONED; i++) {
		if (h->abandoned[i] != 0 && waitpid(h->abandoned[i], NULL, WNOHANG) != 0)
			h->abandoned[i] = 0;
	}
}

static void hook_abandon(struct hook *h)
{
	for (unsigned i = 0; i < HOOK_ABANDONED; i++) {
		if (h->abandoned[i] != 0)
			continue;
		h->abandoned[i] = h->pid;
		break;
	}
	h->pid = 0;
	h->killed = false;
}

int hook_obey(struct hook *h, const struct duty_out *out, const struct settings *s, uint64_t epoch)
{
	if (out->kill)
		hook_kill(h);
	if (out->abandon)
		hook_abandon(h);
	return out->run != DUTY_NONE ? hook_start(h, out, s, epoch) : 0;
}

bool hook_ended(struct hook *h, bool *ret_good)
{
	int status;

	abandoned_reap(h);
	if (h->pid == 0 || waitpid(h->pid, &status, WNOHANG) != h->pid)
		return false;
	*ret_good = !h->killed && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	h->pid = 0;
	h->killed = false;
	return true;
}
