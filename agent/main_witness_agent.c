/* witness-agent: holds a site's lease on a node without corosync, and asks one that does. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/control.h"
#include "agent/enroll.h"
#include "agent/file.h"
#include "agent/identity_files.h"
#include "agent/renewer.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/notify.h"
#include "lib/text.h"

enum {
	EXIT_HELD = 0,
	EXIT_NOT_HELD = 1,
	EXIT_USAGE = 2,
	EXIT_NO_AGENT = 3,
	PEM_MAX = 64 << 10,
	OVERRIDES = 16,
	WATCHDOG_MS = 500,
};

static const char default_config[] = "/etc/tiebreak/witness-agent.conf";

static const char usage[] =
	"Usage: witness-agent [OPTION...] [COMMAND]\n"
	"Holds the lease of a site that runs without corosync: on one node at a time, never on "
	"two.\n"
	"\n"
	"  run             the daemon (what is done without a command)\n"
	"  enroll          gets this node's key and certificate: --board HOST:PORT --site NAME\n"
	"                  --node ID --token TOKEN (from: witnessctl site enroll NAME --agent)\n"
	"  check           says nothing; its exit code says whether this node holds the lease\n"
	"  status          what the agent of this node is doing, as name=value lines\n"
	"  acquire         asks for the lease, release gives it back (the agent keeps running)\n"
	"  release\n"
	"  generation N    generation of this node's data, for the policy \"generation\"\n"
	"  renew           a new key and certificate for a node that is enrolled; the lease is "
	"kept\n"
	"  loss            runs on-loss, as the service does after the daemon has ended\n"
	"\n"
	"  --config FILE   settings (default /etc/tiebreak/witness-agent.conf)\n"
	"  --set KEY=VALUE one setting, over the file (repeatable)\n"
	"  --check-config  read the settings, say what is wrong, and end\n"
	"  --version, --help\n"
	"\n"
	"Exit codes: 0 done, or for check and status: the lease is held here; 1 it failed, or the\n"
	"lease is not held here; 2 wrong usage; 3 no agent runs here.\n";

struct options {
	const char *config;
	bool check;
	char *sets[OVERRIDES];
	unsigned set_count;
	struct enroll_request enroll;
	const char *node;
};

static const struct option long_options[] = {
	{"config", required_argument, NULL, 'c'}, {"set", required_argument, NULL, 's'},
	{"check-config", no_argument, NULL, 'k'}, {"board", required_argument, NULL, 'b'},
	{"site", required_argument, NULL, 'S'},	  {"node", required_argument, NULL, 'n'},
	{"token", required_argument, NULL, 't'},  {"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},	  {0},
};

static int usage_error(const char *text)
{
	fprintf(stderr, "witness-agent: %s (--help lists all)\n", text);
	return EXIT_USAGE;
}

/* 0 to go on, else the exit code plus one. */
static int options_read(struct options *o, int argc, char **argv)
{
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", long_options, NULL)) != -1) {
		switch (c) {
		case 'c':
			o->config = optarg;
			break;
		case 's':
			if (strchr(optarg, '=') == NULL || o->set_count == OVERRIDES)
				return usage_error("--set is written KEY=VALUE") + 1;
			o->sets[o->set_count++] = optarg;
			break;
		case 'k':
			o->check = true;
			break;
		case 'b':
			o->enroll.board = optarg;
			break;
		case 'S':
			o->enroll.site = optarg;
			break;
		case 'n':
			o->node = optarg;
			break;
		case 't':
			o->enroll.token = optarg;
			break;
		case 'V':
			puts("witness-agent " TIEBREAK_VERSION);
			return 1;
		case 'h':
			fputs(usage, stdout);
			return 1;
		case ':':
			return usage_error("that option needs a value") + 1;
		default:
			return usage_error("unknown option") + 1;
		}
	}
	return 0;
}

/* `needed`: the file must be there. */
static int settings_load(struct settings *s, const struct options *o, bool needed)
{
	const char *path = o->config != NULL ? o->config : default_config;
	char *message = NULL;
	int rv = 0;

	settings_init(s);
	if (needed || o->config != NULL || access(path, F_OK) == 0)
		rv = settings_read(s, path, &message);
	for (unsigned i = 0; rv == 0 && i < o->set_count; i++) {
		char *name = mem_strndup(o->sets[i], strcspn(o->sets[i], "="));

		rv = settings_set(s, name, strchr(o->sets[i], '=') + 1, &message);
		free(name);
	}
	if (rv == 0 && needed)
		rv = settings_check(s, &message);
	if (rv != 0)
		fprintf(stderr, "witness-agent: %s\n", message);
	free(message);
	return rv;
}

/* --- the daemon --- */

static int signals_open(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void signals_read(int fd, struct keeper *k)
{
	struct signalfd_siginfo info;

	while (read(fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			continue; /* the keeper looks for itself */
		log_notice("stopping", "ending on signal %u", info.ssi_signo);
		notify_send("STOPPING=1");
		keeper_end(k);
	}
}

/* This program with the same settings, told to renew. Owned by the caller (the array only). */
static char **renew_command(const struct options *o)
{
	char **words = mem_zalloc((4 + 2 * (size_t)o->set_count + 1) * sizeof(*words));
	unsigned count = 0;

	words[count++] = (char *)(uintptr_t) "witness-agent";
	words[count++] = (char *)(uintptr_t) "--config";
	words[count++] = o->config != NULL ? (char *)(uintptr_t)o->config
					   : (char *)(uintptr_t)default_config;
	for (unsigned i = 0; i < o->set_count; i++) {
		words[count++] = (char *)(uintptr_t) "--set";
		words[count++] = o->sets[i];
	}
	words[count] = (char *)(uintptr_t) "renew";
	return words;
}

static int sooner(int a_ms, int b_ms)
{
	return a_ms < 0 || b_ms < a_ms ? b_ms : a_ms;
}

static void loop_run(struct keeper *k, struct control *c, struct renewer *r, int signals)
{
	struct pollfd fds[1 + 2 + 1 + CONTROL_CLIENTS];
	bool watchdog = getenv("WATCHDOG_USEC") != NULL;
	uint64_t told_ms = 0;
	int timeout_ms;

	while (!keeper_over(k)) {
		unsigned count = keeper_poll(k, fds, &timeout_ms);

		count += control_poll(c, fds + count, &timeout_ms);
		fds[count++] = (struct pollfd){.fd = signals, .events = POLLIN};
		timeout_ms = sooner(timeout_ms, renewer_timeout_ms(r, clock_boottime_ms()));
		if (watchdog)
			timeout_ms = sooner(timeout_ms, WATCHDOG_MS);
		poll(fds, count, timeout_ms);
		keeper_turn(k);
		signals_read(signals, k);
		/* First the file: a run after this one must know what was told to others. */
		control_file(c);
		control_turn(c);
		control_file(c);
		renewer_turn(r, clock_boottime_ms(), clock_realtime_ms());
		if (watchdog && clock_boottime_ms() >= told_ms + WATCHDOG_MS) {
			told_ms = clock_boottime_ms();
			notify_send("WATCHDOG=1");
		}
	}
}

static void daemon_loop(const struct settings *s, const struct options *o, struct keeper *k,
			struct control *c, int signals)
{
	char *certificate = mem_printf("%s/agent.crt", s->state_dir);
	char **command = renew_command(o);
	struct renewer renewer;

	renewer_open(&renewer, command, certificate, clock_boottime_ms());
	loop_run(k, c, &renewer, signals);
	renewer_close(&renewer);
	free(command);
	free(certificate);
}

static int daemon_start(const struct settings *s, const struct identity_files *id, struct keeper *k,
			struct control *c)
{
	char *message = NULL;
	int rv;

	/* The socket first: a second agent must not run on-loss under the feet of the one that
	 * holds the lease. */
	rv = control_open(c, k, s, &message);
	if (rv == 0)
		rv = keeper_open(k, s, id->certificate, id->key, id->ca, control_left(s), &message);
	if (rv != 0)
		log_error("start-failed", "%s", message);
	free(message);
	return rv;
}

static int daemon_run(const struct settings *s, const struct options *o)
{
	struct identity_files id;
	const char *why = "";
	struct keeper k = {0};
	struct control c;
	int signals;

	log_set_level((enum log_level)s->log_level);
	log_set_timestamps(getenv("JOURNAL_STREAM") == NULL);
	signal(SIGPIPE, SIG_IGN);
	if (identity_files_read(s->state_dir, &id, &why) != 0) {
		log_error("start-failed", "%s; run \"witness-agent enroll\" first", why);
		return EXIT_FAILURE;
	}
	signals = signals_open();
	if (daemon_start(s, &id, &k, &c) != 0) {
		control_close(&c, false);
		identity_files_free(&id);
		return EXIT_FAILURE;
	}
	identity_files_free(&id);
	log_notice("started", "witness-agent %s for node %u of site %s", TIEBREAK_VERSION, s->node,
		   s->site);
	notify_send("READY=1");
	daemon_loop(s, o, &k, &c, signals);
	control_close(&c, true);
	keeper_close(&k);
	close(signals);
	return EXIT_SUCCESS;
}

/* --- commands --- */

/* The status by the socket, or by the file that an agent has left. */
static int status_get(const struct settings *s, char **ret)
{
	char *path = mem_printf("%s/status", s->run_dir);
	int rv = control_ask(s, "status", ret);

	/* What an agent that died held is still this node's until its time is over. */
	if (rv != 0)
		rv = file_read(path, PEM_MAX, ret) == 0 ? 1 : rv;
	free(path);
	return rv;
}

static int command_status(const struct settings *s, bool print)
{
	char *text;
	int rv = status_get(s, &text);
	bool held;

	if (rv < 0) {
		if (print)
			fprintf(stderr, "witness-agent: no agent answers in %s: %s\n", s->run_dir,
				strerror(-rv));
		return EXIT_NO_AGENT;
	}
	held = control_status_held(text, clock_boottime_ms());
	if (print)
		fputs(text, stdout);
	free(text);
	if (rv == 1 && !held)
		return EXIT_NO_AGENT;
	return held ? EXIT_HELD : EXIT_NOT_HELD;
}

static int command_change(const struct settings *s, const char *line)
{
	char *answer;
	int rv = control_ask(s, line, &answer);

	if (rv != 0) {
		fprintf(stderr, "witness-agent: no agent answers in %s: %s\n", s->run_dir,
			strerror(-rv));
		return EXIT_NO_AGENT;
	}
	if (strcmp(answer, "ok\n") != 0) {
		fprintf(stderr, "witness-agent: %s", answer);
		rv = EXIT_FAILURE;
	}
	free(answer);
	return rv;
}

static int command_generation(const struct settings *s, const char *number)
{
	char line[CONTROL_LINE];
	uint64_t generation;

	if (number == NULL || text_to_u64(number, 0, UINT64_MAX, &generation) != 0)
		return usage_error("generation needs a whole number");
	snprintf(line, sizeof(line), "generation %llu", (unsigned long long)generation);
	return command_change(s, line);
}

/* What a daemon does first at its start, and no more: the service runs it after one has ended. */
static int command_loss(const struct settings *s)
{
	struct duty_terms terms = {.lease_ms = s->lease_ms,
				   .stop_ms = s->stop_ms != 0 ? s->stop_ms : s->lease_ms / 4,
				   .left = control_left(s)};
	struct duty duty;
	struct duty_out out = {0};
	struct hook hook = {0};
	char *answer = NULL;
	bool well = true;
	bool good;

	hook_terms(s, terms.has);
	duty_begin(&duty, &terms, clock_boottime_ms(), &out);
	duty_end(&duty, clock_boottime_ms());
	for (;;) {
		bool started = hook_obey(&hook, &out, s, 0) == 0;

		well &= started && !out.abandon;
		out = (struct duty_out){0};
		if (!started)
			duty_hook_ended(&duty, false, clock_boottime_ms(), &out);
		else if (duty_over(&duty, true, clock_boottime_ms()))
			break;
		else
			usleep(10000);
		if (hook_ended(&hook, &good)) {
			well &= good;
			duty_hook_ended(&duty, good, clock_boottime_ms(), &out);
		} else {
			duty_tick(&duty, clock_boottime_ms(), &out);
		}
	}
	if (well && s->on_loss != NULL && control_ask(s, "status", &answer) != 0)
		control_forget(s);
	free(answer);
	return well ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int command_renew(const struct settings *s)
{
	char *message = NULL;
	char *answer = NULL;
	int rv = settings_check(s, &message);

	if (rv != 0)
		fprintf(stderr, "witness-agent: %s\n", message);
	free(message);
	if (rv != 0 || enroll_renew(s) != 0)
		return EXIT_FAILURE;
	/* Without a daemon there is nobody to tell. */
	if (control_ask(s, "reload", &answer) != 0)
		return EXIT_SUCCESS;
	if (strcmp(answer, "ok\n") != 0) {
		fprintf(stderr, "witness-agent: %s", answer);
		rv = EXIT_FAILURE;
	}
	free(answer);
	return rv;
}

static int command_enroll(struct options *o, const struct settings *s)
{
	uint64_t node;

	if (o->enroll.board == NULL || o->enroll.site == NULL || o->enroll.token == NULL ||
	    o->node == NULL)
		return usage_error("enroll needs --board, --site, --node and --token");
	if (text_to_u64(o->node, 1, UINT32_MAX, &node) != 0)
		return usage_error("--node is a whole number from 1");
	o->enroll.node = (uint32_t)node;
	o->enroll.state_dir = s->state_dir;
	o->enroll.config = o->config != NULL ? o->config : default_config;
	return enroll_run(&o->enroll) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int command_run(struct options *o, const char *command, const char *argument)
{
	static const char *const commands[] = {"run",	  "enroll",  "check",	   "status",
					       "acquire", "release", "generation", "renew",
					       "loss",	  NULL};
	bool daemon = strcmp(command, "run") == 0;
	bool enroll = strcmp(command, "enroll") == 0;
	const char *nearest = text_nearest(command, commands);
	struct settings s;
	int rv = EXIT_USAGE;

	for (unsigned i = 0; commands[i] != NULL; i++)
		if (strcmp(commands[i], command) == 0)
			rv = 0;
	if (rv != 0) {
		fprintf(stderr, "witness-agent: unknown command \"%s\"%s%s%s (--help lists all)\n",
			command, nearest != NULL ? "; did you mean \"" : "",
			nearest != NULL ? nearest : "", nearest != NULL ? "\"?" : "");
		return rv;
	}
	/* An enrolment writes the file if it is not there. */
	if (enroll && o->config != NULL && access(o->config, F_OK) != 0) {
		struct options none = *o;

		none.config = NULL;
		rv = settings_load(&s, &none, false);
	} else {
		rv = settings_load(&s, o, daemon || o->check);
	}
	if (rv != 0)
		rv = EXIT_FAILURE;
	else if (o->check)
		rv = EXIT_SUCCESS;
	else if (daemon)
		rv = daemon_run(&s, o);
	else if (enroll)
		rv = command_enroll(o, &s);
	else if (strcmp(command, "check") == 0 || strcmp(command, "status") == 0)
		rv = command_status(&s, command[0] == 's');
	else if (strcmp(command, "generation") == 0)
		rv = command_generation(&s, argument);
	else if (strcmp(command, "loss") == 0)
		rv = command_loss(&s);
	else if (strcmp(command, "renew") == 0)
		rv = command_renew(&s);
	else
		rv = command_change(&s, command);
	settings_free(&s);
	return rv;
}

int main(int argc, char **argv)
{
	struct options options = {0};
	const char *command;
	int rv = options_read(&options, argc, argv);

	if (rv != 0)
		return rv - 1;
	command = optind < argc ? argv[optind++] : "run";
	if (optind + (strcmp(command, "generation") == 0) < argc)
		return usage_error("too many words");
	return command_run(&options, command, argv[optind]);
}
