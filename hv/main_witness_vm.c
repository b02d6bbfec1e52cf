/* witness-vm: one virtual machine in one process, and the words that a person says to a running
 * one. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/inspect.h"
#include "hv/kvm.h"
#include "hv/probe.h"
#include "hv/serve.h"
#include "hv/spec.h"
#include "hv/start.h"
#include "hv/terminal.h"
#include "hv/verb.h"
#include "lib/buf.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "proto/json.h"

enum {
	HELP_COLUMNS = 78,
	STATUS_ERROR = 1,
	STATUS_USAGE = 2,
	STATUS_SIGNAL = 128,
	OVERRIDES_MAX = 64,
	PARENT_FD = 3
};

static const char overview[] =
	"Usage: witness-vm COMMAND [ARGUMENT]... [OPTION]...\n"
	"\n"
	"One virtual machine on /dev/kvm, in a process of its own that has given up\n"
	"whatever it does not need. `run` starts one from a description; the other\n"
	"commands talk to one that runs.\n"
	"\n"
	"Commands:\n"
	"  run SPEC                  Start a VM and stay with it, console on the terminal\n"
	"  supervised                Start a VM for a parent, which says what\n"
	"  probe                     What this host can do for VMs, and why not\n"
	"  inspect STATE             What a snapshot's state file holds\n";

static const char overview_end[] =
	"\n"
	"SOCKET is the path that the spec names as `control`. `witness-vm COMMAND\n"
	"--help` says more, and witness-vm(1) all.\n"
	"\n"
	"Exit status: 0 done; 1 refused or failed; 2 the command line or the spec is\n"
	"wrong; 3 nobody answers (of `run`: the guest crashed); 4 the guest rebooted\n"
	"and onReset is \"exit\"; 128 + N ended by signal N.\n";

static const char run_help[] =
	"Usage: witness-vm run SPEC [FIELD=VALUE]... [--restore DIRECTORY] [--check]\n"
	"\n"
	"Starts the VM that the file SPEC describes (JSON; \"-\": standard input) and\n"
	"stays with it until it ends. The guest's console is the terminal, or whatever\n"
	"standard input and output are. Relative paths in SPEC are relative to its\n"
	"folder.\n"
	"\n"
	"  FIELD=VALUE   Change one field: memoryMib=256, disks[0].readOnly=true,\n"
	"                disks[1].path=x.img (a new disk), sandbox.off=true. Paths are\n"
	"                taken as they are. Also written --set FIELD=VALUE.\n"
	"  --restore DIRECTORY\n"
	"                Go on from the snapshot there (see `save`) instead of booting\n"
	"                the kernel. Its writable disks must be as they were then.\n"
	"  --check       Check the spec, print it with all defaults, and end.\n"
	"\n"
	"On a terminal:\n"
	"  Ctrl-A x   end the VM at once            Ctrl-A p   press its power button\n"
	"  Ctrl-A a   send Ctrl-A                   Ctrl-A h   this list\n"
	"SIGTERM, SIGINT and SIGHUP press the power button; a second one ends the VM.\n"
	"\n"
	"A small one:\n"
	"  {\"name\": \"web-1\", \"kernel\": \"Image\", \"initrd\": \"initrd.img\",\n"
	"   \"memoryMib\": 256, \"disks\": [{\"path\": \"root.img\"}],\n"
	"   \"commandLine\": \"console=hvc0 root=/dev/vda\", \"control\": \"web-1.sock\",\n"
	"   \"sandbox\": {\"uid\": 100001, \"gid\": 100001}}\n"
	"All fields are in witness-vm(1). As root, sandbox.uid and sandbox.gid must be\n"
	"given.\n"
	"\n"
	"Exit status: 0 powered off or stopped; 1 did not start, or the host failed;\n"
	"2 SPEC is wrong; 3 the guest crashed; 4 the guest rebooted and onReset is\n"
	"\"exit\"; 128 + N ended by signal N (137: its lease was over, or somebody killed\n"
	"it).\n";

static const char supervised_help[] =
	"Usage: witness-vm supervised\n"
	"\n"
	"Starts the VM that a parent describes on descriptor 3, a connected Unix stream\n"
	"socket: the first frame is VmStart (proto/hv.proto) with the open descriptors\n"
	"as SCM_RIGHTS, the answer a VmReply of id 0. Then VmRequest and VmReply.\n"
	"Nothing is opened by path. Lease renewals are taken from this connection only,\n"
	"as long as it is there. Exit status as `run`.\n";

static const char probe_help[] =
	"Usage: witness-vm probe [-o json] [--root DIRECTORY]\n"
	"\n"
	"Says what this host can do for virtual machines and why not: KVM, its virtual\n"
	"interrupt controller, page size, memory, io_uring, vhost, cgroups, and the\n"
	"compatibility class: a snapshot of one host runs on another of the same class.\n"
	"\n"
	"  --root DIRECTORY   Judge the captured proc, sys and dev of another board.\n"
	"\n"
	"Exit status: 0 this host can run VMs; 1 it cannot.\n";

static const char inspect_help[] =
	"Usage: witness-vm inspect STATE [--all]\n"
	"\n"
	"Says what the state file of a snapshot holds: what a VM must be made of to be\n"
	"restored from it, and the compatibility class of hosts it can go to.\n"
	"\n"
	"  --all   Every register and word as well, a line each: two can be compared\n"
	"          with diff.\n"
	"\n"
	"Exit status: 0 done; 1 it is no sound state file.\n";

static int complain(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int complain(int status, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "witness-vm: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	return status;
}

/* The options of one command, understood. */
struct invocation {
	char *args[4];
	unsigned count;
	const char *sets[OVERRIDES_MAX];
	unsigned set_count;
	const char *root, *restore;
	bool json, check, stay_paused, all, help;
};

static const struct option options[] = {
	{"help", no_argument, NULL, 'h'},
	{"output", required_argument, NULL, 'o'},
	{"set", required_argument, NULL, 's'},
	{"check", no_argument, NULL, 'c'},
	{"root", required_argument, NULL, 'r'},
	{"stay-paused", no_argument, NULL, 'p'},
	{"all", no_argument, NULL, 'a'},
	{"restore", required_argument, NULL, 'R'},
	{NULL, 0, NULL, 0},
};

static int option_unknown(const char *command, const char *word)
{
	const char *names[sizeof(options) / sizeof(options[0])];
	const char *nearest = NULL;
	size_t count = 0;

	for (; options[count].name != NULL; count++) {
		names[count] = options[count].name;
	}
	names[count] = NULL;
	if (strncmp(word, "--", 2) == 0) {
		nearest = text_nearest(word + 2, names);
	}
	if (nearest != NULL && strcmp(nearest, word + 2) != 0) {
		return complain(STATUS_USAGE, "unknown option %s; did you mean --%s?", word,
				nearest);
	}
	return complain(STATUS_USAGE,
			"%s is no option of this command, or lacks its value; see "
			"`witness-vm %s --help`",
			word, command);
}

/* Which of the options a command knows: their letters. */
static int options_parse(int argc, char **argv, const char *known, struct invocation *ret)
{
	int letter;

	opterr = 0;
	while ((letter = getopt_long(argc, argv, "ho:", options, NULL)) != -1) {
		const char *word = argv[optind - 1];

		if (letter == '?' || (letter != 'h' && strchr(known, letter) == NULL)) {
			return option_unknown(
				argv[0],
				letter == '?' ? word
					      : argv[optind -
						     (optarg != NULL && optarg == word ? 2 : 1)]);
		}
		switch (letter) {
		case 'h':
			ret->help = true;
			break;
		case 'o':
			if (strcmp(optarg, "json") != 0 && strcmp(optarg, "text") != 0) {
				return complain(STATUS_USAGE, "-o %s: is not one of: text, json",
						optarg);
			}
			ret->json = strcmp(optarg, "json") == 0;
			break;
		case 's':
			if (ret->set_count == OVERRIDES_MAX) {
				return complain(STATUS_USAGE, "--set more than %d times",
						OVERRIDES_MAX);
			}
			ret->sets[ret->set_count++] = optarg;
			break;
		case 'c':
			ret->check = true;
			break;
		case 'r':
			ret->root = optarg;
			break;
		case 'p':
			ret->stay_paused = true;
			break;
		case 'R':
			ret->restore = optarg;
			break;
		case 'a':
			ret->all = true;
			break;
		}
	}
	for (; optind < argc; optind++) {
		/* FIELD=VALUE behind the first argument of run. */
		if (strchr(known, 's') != NULL && ret->count > 0 &&
		    ret->set_count < OVERRIDES_MAX) {
			ret->sets[ret->set_count++] = argv[optind];
			continue;
		}
		if (ret->count == sizeof(ret->args) / sizeof(ret->args[0])) {
			return complain(STATUS_USAGE,
					"too many arguments; see `witness-vm %s --help`", argv[0]);
		}
		ret->args[ret->count++] = argv[optind];
	}
	return 0;
}

static int count_check(const struct invocation *inv, const char *command, const char *args,
		       unsigned count)
{
	if (inv->count == count) {
		return 0;
	}
	return complain(STATUS_USAGE, "usage: witness-vm %s%s%s; see `witness-vm %s --help`",
			command, args[0] != '\0' ? " " : "", args, command);
}

/* run */

static int file_read(const char *path, struct buf *ret, struct fault *fault)
{
	int fd = strcmp(path, "-") == 0 ? dup(0) : open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = -1;

	while (fd >= 0 && ret->len <= SPEC_TEXT_MAX) {
		got = read(fd, buf_reserve(ret, 4096), 4096);
		if (got <= 0) {
			break;
		}
		ret->len += (size_t)got;
	}
	if (fd < 0 || got < 0) {
		int error = errno;

		if (fd >= 0) {
			close(fd);
		}
		return fault_set(fault, -error, "cannot read it: %s", strerror(error));
	}
	close(fd);
	return 0;
}

static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == NULL ? mem_strdup("")
			     : mem_strndup(path, (size_t)(slash - path) + (slash == path));
}

/* The spec of a file with its overrides, checked. */
static int spec_load(const struct invocation *inv, Tb__VmSpec **ret, struct fault *fault)
{
	char *folder = folder_of(inv->args[0]);
	struct buf text = {0};
	Tb__VmSpec *spec = NULL;
	int rv = file_read(inv->args[0], &text, fault);

	rv = rv < 0 ? rv : spec_parse((const char *)text.data, text.len, folder, &spec, fault);
	if (rv == 0 && inv->restore != NULL) {
		rv = spec_restore(spec, inv->restore, fault);
	}
	/* What is said here is said of this run: it is taken, or refused. */
	for (unsigned i = 0; rv == 0 && i < inv->set_count; i++) {
		rv = spec_override(spec, inv->sets[i], fault);
	}
	rv = rv < 0 ? rv : spec_finish(spec, true, fault);
	buf_free(&text);
	free(folder);
	if (rv < 0) {
		spec_free(spec);
		return rv;
	}
	*ret = spec;
	return 0;
}

static int kvm_take(struct resources *r, struct fault *fault)
{
	int fd = -1;
	int rv = resource_find(r, "kvm") >= 0 ? 0 : kvm_open("/dev/kvm", &fd, fault);

	return fd < 0 ? rv : resource_add(r, "kvm", fd);
}

/* The VM itself, in this process. */
static int run_vm(Tb__VmSpec *spec, int in, bool keys)
{
	struct resources resources = {0};
	struct fault fault = {0};
	int status = STATUS_ERROR;

	if (kvm_take(&resources, &fault) == 0 && resources_open(spec, &resources, &fault) == 0 &&
	    resources_check(spec, &resources, &fault) == 0) {
		const struct serve_config config = {
			.spec = spec,
			.resources = &resources,
			.parent = -1,
			.console_in = in,
			.console_out = STDOUT_FILENO,
			.keys = keys,
		};

		status = serve(&config, &fault);
	}
	resources_close(&resources);
	return status == 0 ? 0 : complain(status, "%s: %s", spec->name, fault.text);
}

/* Waits for the VM's process; signals for us are for it. Its exit status. */
static int keep(pid_t vm, const sigset_t *set)
{
	int status = 0;

	for (;;) {
		int signal = sigwaitinfo(set, NULL);

		if (signal == SIGCHLD && waitpid(vm, &status, WNOHANG) == vm) {
			break;
		}
		if (signal > 0 && signal != SIGCHLD) {
			kill(vm, signal);
		}
	}
	return status;
}

/* On a person's terminal a second process keeps the terminal's settings: they come back also when
 * the VM's process is killed. */
static int run_on_terminal(Tb__VmSpec *spec, const struct termios *old)
{
	sigset_t set, before;
	int status;
	pid_t vm;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, &before);
	vm = fork();
	if (vm == 0) {
		sigprocmask(SIG_SETMASK, &before, NULL);
		exit(run_vm(spec, STDIN_FILENO, true));
	}
	status = vm < 0 ? 0 : keep(vm, &set);
	terminal_restore(STDIN_FILENO, old);
	if (vm < 0) {
		return complain(STATUS_ERROR, "cannot fork: %s", strerror(errno));
	}
	if (WIFEXITED(status)) {
		return WEXITSTATUS(status);
	}
	return complain(STATUS_SIGNAL + WTERMSIG(status), "%s: its process was ended: %s%s",
			spec->name, strsignal(WTERMSIG(status)),
			WTERMSIG(status) == SIGKILL
				? " (its lease was over, no memory was left, or somebody killed it)"
			: WTERMSIG(status) == SIGSYS
				? " (a system call that its sandbox does not allow)"
				: "");
}

static int run(const struct invocation *inv)
{
	struct fault fault = {0};
	struct termios old;
	Tb__VmSpec *spec;
	int raw, status;

	if (spec_load(inv, &spec, &fault) < 0) {
		return complain(STATUS_USAGE, "%s: %s", inv->args[0], fault.text);
	}
	if (inv->check) {
		struct buf text = {0};

		json_encode(&spec->base, &text);
		puts(buf_string(&text));
		buf_free(&text);
		spec_free(spec);
		return 0;
	}
	raw = terminal_raw(STDIN_FILENO, &old);
	if (raw == 0) {
		status = run_on_terminal(spec, &old);
	} else {
		/* A terminal that is not ours to read from (a job in the background) stops who
		 * reads it. */
		status = run_vm(spec, isatty(STDIN_FILENO) ? -1 : STDIN_FILENO, false);
	}
	spec_free(spec);
	return status;
}

/* supervised */

static int supervised(void)
{
	struct resources resources = {0};
	struct fault fault = {0};
	Tb__VmStart *start = NULL;
	int status = STATUS_ERROR;
	int rv = start_receive(PARENT_FD, &start, &resources, &fault);
	bool parsed = rv == 0;

	rv = rv < 0 ? rv : spec_finish(start->spec, false, &fault);
	if (rv < 0) {
		status = STATUS_USAGE;
	}
	rv = rv < 0 ? rv : kvm_take(&resources, &fault);
	rv = rv < 0 ? rv : resources_check(start->spec, &resources, &fault);
	if (rv < 0) {
		start_refuse(PARENT_FD, fault.text);
	} else {
		int both = resource_find(&resources, "console");
		const struct serve_config config = {
			.spec = start->spec,
			.resources = &resources,
			.parent = PARENT_FD,
			.lease_until_ms = start->lease_until_ms,
			.with_parent = start->with_parent,
			.console_in = both >= 0 ? both : resource_find(&resources, "console-in"),
			.console_out = both >= 0 ? both : resource_find(&resources, "console-out"),
		};

		status = serve(&config, &fault);
	}
	if (status != 0) {
		log_error("vm", "%s: %s", parsed ? start->spec->name : "no VM", fault.text);
	}
	resources_close(&resources);
	if (start != NULL) {
		tb__vm_start__free_unpacked(start, NULL);
	}
	return status;
}

/* Commands */

static int help_overview(FILE *out)
{
	fputs(overview, out);
	for (const struct verb *v = verbs; v->name != NULL; v++) {
		fprintf(out, "  %s %-*s%s\n", v->name, (int)(25 - strlen(v->name)), v->args,
			v->summary);
	}
	fputs(overview_end, out);
	return 0;
}

/* A paragraph in lines that fit. */
static void paragraph_print(const char *text)
{
	int column = 0;

	while (*text != '\0') {
		int len = (int)strcspn(text, " ");

		if (column > 0 && column + 1 + len > HELP_COLUMNS) {
			putchar('\n');
			column = 0;
		}
		column += printf("%s%.*s", column > 0 ? " " : "", len, text);
		text += len + (text[len] == ' ');
	}
	putchar('\n');
}

static int help_verb(const struct verb *v)
{
	printf("Usage: witness-vm %s %s%s%s\n\n%s.\n", v->name, v->args,
	       v->json ? " [-o json]" : "", v->stays ? " [--stay-paused]" : "", v->summary);
	if (v->help[0] != '\0') {
		paragraph_print(v->help);
	}
	puts("\nExit status: 0 done; 1 the VM refused; 2 an argument is wrong; 3 nobody answers.");
	return 0;
}

static int verb_main(const struct verb *verb, int argc, char **argv)
{
	char known[8] = "";
	struct invocation inv = {0};
	struct fault fault = {0};
	int status;

	strcat(known, verb->json ? "o" : "");
	strcat(known, verb->stays ? "p" : "");
	status = options_parse(argc, argv, known, &inv);
	if (status != 0 || inv.help) {
		return status != 0 ? status : help_verb(verb);
	}
	status = count_check(&inv, verb->name, verb->args, verb->count);
	if (status == 0) {
		const struct verb_options o = {.json = inv.json, .stay_paused = inv.stay_paused};

		status = verb_run(verb, inv.args, &o, stdout, &fault);
		if (status != 0) {
			complain(status, "%s", fault.text);
		}
	}
	return status;
}

static int run_main(int argc, char **argv)
{
	struct invocation inv = {0};
	int status = options_parse(argc, argv, "scR", &inv);

	if (status == 0 && inv.help) {
		return fputs(run_help, stdout) < 0;
	}
	status = status != 0 ? status : count_check(&inv, "run", "SPEC [FIELD=VALUE]...", 1);
	if (status != 0) {
		return status;
	}
	/* What a careless shell left open is not the VM's. */
	close_range(STDERR_FILENO + 1, ~0U, 0);
	return run(&inv);
}

static int supervised_main(int argc, char **argv)
{
	struct invocation inv = {0};
	int status = options_parse(argc, argv, "", &inv);

	if (status == 0 && inv.help) {
		return fputs(supervised_help, stdout) < 0;
	}
	status = status != 0 ? status : count_check(&inv, "supervised", "", 0);
	if (status != 0) {
		return status;
	}
	close_range(PARENT_FD + 1, ~0U, 0);
	return supervised();
}

static int probe_command(int argc, char **argv)
{
	struct invocation inv = {0};
	int status = options_parse(argc, argv, "or", &inv);

	if (status == 0 && inv.help) {
		return fputs(probe_help, stdout) < 0;
	}
	status = status != 0 ? status : count_check(&inv, "probe", "", 0);
	if (status == 0) {
		status = probe_main(inv.root != NULL ? inv.root : "", inv.json, stdout);
	}
	return status;
}

static int inspect_command(int argc, char **argv)
{
	struct invocation inv = {0};
	int status = options_parse(argc, argv, "a", &inv);

	if (status == 0 && inv.help) {
		return fputs(inspect_help, stdout) < 0;
	}
	status = status != 0 ? status : count_check(&inv, "inspect", "STATE", 1);
	if (status == 0) {
		status = inspect_main(inv.args[0], inv.all, stdout);
	}
	return status;
}

static int command_unknown(const char *word)
{
	const char *names[32] = {"run", "supervised", "probe", "inspect", "help"};
	const char *nearest;
	size_t count = 5;

	for (const struct verb *v = verbs; v->name != NULL; v++) {
		names[count++] = v->name;
	}
	names[count] = NULL;
	nearest = text_nearest(word, names);
	if (nearest == NULL) {
		return complain(STATUS_USAGE, "there is no command \"%s\"; see `witness-vm --help`",
				word);
	}
	return complain(STATUS_USAGE, "there is no command \"%s\"; did you mean \"%s\"?", word,
			nearest);
}

static int command_run(int argc, char **argv)
{
	static char help_option[] = "--help";
	const struct verb *verb;

	if (strcmp(argv[0], "help") == 0 && argc > 1) {
		char *asked[] = {argv[1], help_option, NULL};

		return command_run(2, asked);
	}
	verb = verb_find(argv[0]);
	if (verb != NULL) {
		return verb_main(verb, argc, argv);
	}
	if (strcmp(argv[0], "run") == 0) {
		return run_main(argc, argv);
	}
	if (strcmp(argv[0], "supervised") == 0) {
		return supervised_main(argc, argv);
	}
	if (strcmp(argv[0], "probe") == 0) {
		return probe_command(argc, argv);
	}
	if (strcmp(argv[0], "inspect") == 0) {
		return inspect_command(argc, argv);
	}
	if (strcmp(argv[0], "help") == 0 || strcmp(argv[0], "--help") == 0 ||
	    strcmp(argv[0], "-h") == 0) {
		return help_overview(stdout);
	}
	if (strcmp(argv[0], "--version") == 0) {
		return puts("witness-vm " TIEBREAK_VERSION) < 0;
	}
	return command_unknown(argv[0]);
}

int main(int argc, char **argv)
{
	int status;

	if (argc < 2) {
		help_overview(stderr);
		return STATUS_USAGE;
	}
	status = command_run(argc - 1, argv + 1);
	if (fflush(stdout) != 0 && errno != EPIPE && status == 0) {
		status = complain(STATUS_ERROR, "cannot write the output: %s", strerror(errno));
	}
	return status;
}
