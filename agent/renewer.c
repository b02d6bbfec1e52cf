#include "agent/renewer.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/file.h"
#include "agent/tls.h"
#include "lib/log.h"
#include "lib/renewal.h"
#include "lib/rng.h"

enum { CERTIFICATE_MAX = 64 << 10, RENEWER_KILLED_MS = 1000 };

static void life_read(struct renewer *r)
{
	char *pem = NULL;

	r->issued_ms = r->not_after_ms = 0;
	if (file_read(r->certificate, CERTIFICATE_MAX, &pem) == 0)
		tls_pem_life(pem, &r->issued_ms, &r->not_after_ms);
	if (r->not_after_ms != 0)
		r->issued_ms += RENEWAL_BACKDATE_MS;
	free(pem);
}

/* Spread, since thousands of nodes may have been enrolled in one minute. */
static uint64_t pause_ms(const struct renewer *r)
{
	uint64_t longest = (uint64_t)(r->not_after_ms - r->issued_ms) / RENEWER_LOOK_PART;

	if (r->not_after_ms <= r->issued_ms || longest > RENEWER_LOOK_MAX_MS)
		longest = RENEWER_LOOK_MAX_MS;
	return longest / 2 + rng_u64() % (longest / 2 + 1) + 1;
}

void renewer_open(struct renewer *r, char *const *command, const char *certificate, uint64_t now_ms)
{
	*r = (struct renewer){.command = command, .certificate = certificate};
	life_read(r);
	r->look_ms = now_ms + pause_ms(r);
}

static void child_run(char *const *command)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	/* What it says goes to the log; its success is told here. */
	dup2(STDERR_FILENO, STDOUT_FILENO);
	execv("/proc/self/exe", command);
	_exit(127);
}

static void renewal_start(struct renewer *r, uint64_t now_ms)
{
	pid_t pid = fork();

	if (pid == 0)
		child_run(r->command);
	if (pid < 0) {
		log_warning("renewal", "the certificate cannot be renewed now: %s; trying again",
			    strerror(errno));
		return;
	}
	r->pid = pid;
	r->end_ms = now_ms + RENEWER_PATIENCE_MS;
}

static void renewal_ended(struct renewer *r, int status)
{
	r->pid = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		log_notice("renewed", "the certificate of this node was renewed");
	else
		log_warning("renewal", "the certificate of this node was not renewed; trying again "
				       "(\"witness-agent renew\" says why)");
	life_read(r);
}

void renewer_turn(struct renewer *r, uint64_t now_ms, int64_t real_ms)
{
	int status;

	if (r->pid != 0) {
		if (now_ms >= r->end_ms) {
			kill(r->pid, SIGKILL);
			r->end_ms = now_ms + RENEWER_KILLED_MS;
		}
		if (waitpid(r->pid, &status, WNOHANG) == r->pid)
			renewal_ended(r, status);
		return;
	}
	if (now_ms < r->look_ms)
		return;
	life_read(r);
	r->look_ms = now_ms + pause_ms(r);
	if (r->not_after_ms != 0 && renewal_is_due(r->issued_ms, r->not_after_ms, real_ms))
		renewal_start(r, now_ms);
}

int renewer_timeout_ms(const struct renewer *r, uint64_t now_ms)
{
	uint64_t next = r->pid != 0 ? r->end_ms : r->look_ms;

	if (next <= now_ms)
		return 0;
	return next - now_ms > INT_MAX ? INT_MAX : (int)(next - now_ms);
}

void renewer_close(struct renewer *r)
{
	int status;

	if (r->pid == 0)
		return;
	kill(r->pid, SIGKILL);
	waitpid(r->pid, &status, 0);
	r->pid = 0;
}
