/* qnet_load: thousands of simulated corosync sites against a witness (corosync-qnetd or boards).
 *
 * Runs its phases and prints one JSON object, or (--interactive) takes commands from standard
 * input. Exit code: 0; 1 a promise was broken (a violation, or sites undecided at the end of a
 * phase); 2 usage or set-up. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "tests/bench/site_nodes.h"

enum { ADDRESSES_MAX = SITE_ADDRESSES, NAME_MAX_BYTES = 200 };

struct load {
	struct site_nodes_options options;
	const char *addresses[ADDRESSES_MAX + 1];
	char *address_text;
	char **names;
	unsigned name_count;
	bool interactive;
	bool split;
	bool unplug;
	bool again; /* --reattach */
	unsigned percent;
	unsigned hold_s;
	unsigned timeout_s;
	pid_t server; /* whose CPU time and memory are reported; 0: nobody's */
	struct site_nodes *nodes;
	struct buf report;
	int failed;
};

/* --- the process under load --- */

static double server_cpu_s(pid_t pid)
{
	char path[64];
	char line[1024];
	unsigned long user = 0;
	unsigned long system = 0;
	const char *rest;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = pid != 0 ? fopen(path, "re") : NULL;
	if (f == NULL)
		return 0;
	if (fgets(line, sizeof(line), f) != NULL && (rest = strrchr(line, ')')) != NULL)
		sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
		       &system);
	fclose(f);
	return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static unsigned long server_rss_kb(pid_t pid)
{
	char path[64];
	unsigned long pages = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	f = pid != 0 ? fopen(path, "re") : NULL;
	if (f == NULL)
		return 0;
	if (fscanf(f, "%*u %lu", &pages) != 1)
		pages = 0;
	fclose(f);
	return pages * (unsigned long)(sysconf(_SC_PAGESIZE) / 1024);
}

/* --- phases --- */

static bool all_whole(const struct load *l)
{
	struct site_nodes_counts c;

	site_nodes_counts(l->nodes, &c);
	return c.views[SITE_WHOLE] == l->options.sites;
}

static bool settled(const struct load *l)
{
	return site_nodes_settled(l->nodes);
}

/* Until `done` or the time is over; returns the seconds it took. */
static double run_until(struct load *l, bool (*done)(const struct load *l), double limit_s)
{
	uint64_t start = site_nodes_now_us();
	double spent = 0;

	while (!done(l) && spent < limit_s) {
		site_nodes_poll(l->nodes, 20, -1);
		spent = (double)(site_nodes_now_us() - start) / 1e6;
	}
	return spent;
}

static bool never(const struct load *l)
{
	(void)l;
	return false;
}

static void report_samples(struct load *l, const char *name, struct samples *s)
{
	buf_printf(&l->report, ",\"%s\":{\"count\":%zu,\"p50_us\":%u,\"p99_us\":%u,\"max_us\":%u}",
		   name, s->count, samples_percentile(s, 50), samples_percentile(s, 99),
		   samples_percentile(s, 100));
}

static void report_phase(struct load *l, const char *name, double seconds, double cpu_before)
{
	struct site_nodes_counts c;

	site_nodes_counts(l->nodes, &c);
	buf_printf(&l->report,
		   ",\"%s\":{\"seconds\":%.3f,\"whole\":%u,\"one_side\":%u,\"no_side\":%u,"
		   "\"server_cpu_s\":%.2f,\"server_rss_kb\":%lu}",
		   name, seconds, c.views[SITE_WHOLE], c.views[SITE_ONE], c.views[SITE_NONE],
		   server_cpu_s(l->server) - cpu_before, server_rss_kb(l->server));
}

static void phase_attach(struct load *l)
{
	double cpu = server_cpu_s(l->server);
	double seconds;

	buf_printf(&l->report, ",\"server_rss_idle_kb\":%lu", server_rss_kb(l->server));
	site_nodes_attach(l->nodes, l->options.sites);
	seconds = run_until(l, all_whole, l->timeout_s);
	l->failed |= !all_whole(l);
	report_phase(l, "attach", seconds, cpu);
	report_samples(l, "attach_times", site_nodes_attach_times(l->nodes));
}

static void phase_hold(struct load *l)
{
	double cpu = server_cpu_s(l->server);
	double seconds = run_until(l, never, l->hold_s);

	report_phase(l, "hold", seconds, cpu);
	report_samples(l, "echo", site_nodes_echo_times(l->nodes));
}

static void phase_split(struct load *l)
{
	double cpu = server_cpu_s(l->server);
	unsigned sites;
	double seconds;

	site_nodes_clear(l->nodes);
	sites = l->unplug ? site_nodes_unplug(l->nodes, l->percent)
			  : site_nodes_split(l->nodes, l->percent);
	seconds = run_until(l, settled, l->timeout_s);
	l->failed |= !settled(l);
	buf_printf(&l->report, ",\"split_sites\":%u", sites);
	report_phase(l, "split", seconds, cpu);
	report_samples(l, "split_times", site_nodes_split_times(l->nodes));
	cpu = server_cpu_s(l->server);
	site_nodes_heal(l->nodes);
	seconds = run_until(l, all_whole, l->timeout_s);
	l->failed |= !all_whole(l);
	report_phase(l, "heal", seconds, cpu);
}

static void phase_reattach(struct load *l)
{
	double cpu = server_cpu_s(l->server);
	double seconds;

	site_nodes_clear(l->nodes);
	site_nodes_reset(l->nodes);
	seconds = run_until(l, all_whole, l->timeout_s);
	l->failed |= !all_whole(l);
	report_phase(l, "reattach", seconds, cpu);
	report_samples(l, "reattach_times", site_nodes_attach_times(l->nodes));
}

static void report_end(struct load *l)
{
	struct site_nodes_counts c;

	site_nodes_counts(l->nodes, &c);
	l->failed |= c.violations != 0;
	buf_printf(&l->report,
		   ",\"violations\":%llu,\"overlap_ms\":%.1f,\"lost\":%llu,\"echo_late\":%llu,"
		   "\"refused\":%llu,"
		   "\"gone\":%u,\"errors\":{",
		   (unsigned long long)c.violations, (double)c.overlap_us / 1e3,
		   (unsigned long long)c.lost, (unsigned long long)c.echo_late,
		   (unsigned long long)c.refused, c.gone);
	for (unsigned i = 0, n = 0; i < sizeof(c.errors) / sizeof(c.errors[0]); i++)
		if (c.errors[i] != 0)
			buf_printf(&l->report, "%s\"%u\":%llu", n++ != 0 ? "," : "", i,
				   (unsigned long long)c.errors[i]);
	buf_puts(&l->report, "}}");
	if (l->failed && c.last_error[0] != '\0')
		fprintf(stderr, "qnet_load: last trouble: %s\n", c.last_error);
}

static void run_phases(struct load *l)
{
	buf_printf(&l->report, "{\"sites\":%u,\"nodes\":%u,\"tls\":%s,\"heartbeat_ms\":%u",
		   l->options.sites, 2 * l->options.sites, l->options.tls ? "true" : "false",
		   l->options.heartbeat_ms);
	phase_attach(l);
	if (l->hold_s != 0)
		phase_hold(l);
	if (l->split || l->unplug)
		phase_split(l);
	if (l->again)
		phase_reattach(l);
	report_end(l);
	puts(buf_string(&l->report));
}

/* --- commands --- */

static void print_status(const struct load *l)
{
	struct site_nodes_counts c;

	site_nodes_counts(l->nodes, &c);
	printf("status: sites %u, whole %u, without-witness %u, one-side %u, no-side %u, "
	       "both-sides %u, nodes-attached %u, nodes-ended %u, connections-lost %llu, "
	       "violations %llu\n",
	       l->options.sites - c.views[SITE_IDLE], c.views[SITE_WHOLE], c.views[SITE_LOOSE],
	       c.views[SITE_ONE], c.views[SITE_NONE], c.views[SITE_BOTH], c.attached, c.gone,
	       (unsigned long long)c.lost, (unsigned long long)c.violations);
	if (c.last_error[0] != '\0')
		printf("last trouble: %s\n", c.last_error);
}

static void command_wait(struct load *l, unsigned seconds)
{
	double spent = run_until(l, settled, seconds);

	printf("%s after %.2f s\n", settled(l) ? "settled" : "NOT SETTLED", spent);
	if (site_nodes_split_times(l->nodes)->count != 0)
		printf("splits decided: %zu, p50 %.1f ms, p99 %.1f ms, max %.1f ms\n",
		       site_nodes_split_times(l->nodes)->count,
		       samples_percentile(site_nodes_split_times(l->nodes), 50) / 1e3,
		       samples_percentile(site_nodes_split_times(l->nodes), 99) / 1e3,
		       samples_percentile(site_nodes_split_times(l->nodes), 100) / 1e3);
}

static void print_samples(const char *name, struct samples *s)
{
	printf("%s: count %zu, p50_us %u, p99_us %u, max_us %u\n", name, s->count,
	       samples_percentile(s, 50), samples_percentile(s, 99), samples_percentile(s, 100));
}

static void command_times(struct load *l)
{
	print_samples("attach", site_nodes_attach_times(l->nodes));
	print_samples("echo", site_nodes_echo_times(l->nodes));
	print_samples("split", site_nodes_split_times(l->nodes));
}

/* False: quit. */
static bool command(struct load *l, char *line)
{
	char *word = strtok(line, " \t\r");
	char *argument = word != NULL ? strtok(NULL, " \t\r") : NULL;
	uint64_t number = 100;

	if (word == NULL)
		return true;
	if (argument != NULL && text_to_u64(argument, 0, 1000000, &number) != 0) {
		printf("error: %s is not a number\n", argument);
	} else if (strcmp(word, "attach") == 0) {
		site_nodes_attach(l->nodes, argument != NULL ? (unsigned)number : l->options.sites);
		printf("attaching\n");
	} else if (strcmp(word, "split") == 0) {
		site_nodes_clear(l->nodes);
		printf("split: %u sites\n", site_nodes_split(l->nodes, (unsigned)number));
	} else if (strcmp(word, "unplug") == 0) {
		site_nodes_clear(l->nodes);
		printf("unplugged: %u sites\n", site_nodes_unplug(l->nodes, (unsigned)number));
	} else if (strcmp(word, "heal") == 0) {
		site_nodes_clear(l->nodes);
		site_nodes_heal(l->nodes);
		printf("healing\n");
	} else if (strcmp(word, "reset") == 0) {
		site_nodes_reset(l->nodes);
		printf("all connections reset\n");
	} else if (strcmp(word, "recertify") == 0) {
		printf("%s\n", site_nodes_recertify(l->nodes, (unsigned)number) == 0
				       ? "new certificate"
				       : "error: no such site, or no certificate for it");
	} else if (strcmp(word, "wait") == 0) {
		command_wait(l, argument != NULL ? (unsigned)number : l->timeout_s);
	} else if (strcmp(word, "times") == 0) {
		command_times(l);
	} else if (strcmp(word, "clear") == 0) {
		site_nodes_clear(l->nodes);
	} else if (strcmp(word, "status") == 0) {
		print_status(l);
	} else if (strcmp(word, "sites") == 0) {
		site_nodes_print(l->nodes, 0, (unsigned)number, stdout);
	} else if (strcmp(word, "quit") == 0) {
		return false;
	} else {
		printf("error: %s: commands are attach [N], split [PERCENT], unplug [PERCENT], "
		       "heal, reset, recertify SITE-NUMBER-FROM-0, wait [SECONDS], status, times, "
		       "clear, sites [N], quit\n",
		       word);
	}
	printf("ok\n");
	return true;
}

/* Every whole line in `in`; false: quit. */
static bool command_lines(struct load *l, struct buf *in)
{
	uint8_t *end;
	bool on = true;

	while (on && (end = memchr(in->data, '\n', in->len)) != NULL) {
		*end = '\0';
		on = command(l, (char *)in->data);
		fflush(stdout);
		buf_consume(in, (size_t)(end - in->data) + 1);
	}
	return on;
}

static void run_interactive(struct load *l)
{
	struct buf in = {0};
	bool on = true;

	while (on) {
		ssize_t len;

		if (!site_nodes_poll(l->nodes, 20, STDIN_FILENO))
			continue;
		len = read(STDIN_FILENO, buf_reserve(&in, 4096), 4096);
		if (len <= 0)
			break;
		in.len += (size_t)len;
		on = command_lines(l, &in);
	}
	buf_free(&in);
	print_status(l);
	report_end(l);
}

/* --- the command line --- */

static void usage(FILE *out)
{
	fputs("usage: qnet_load --address HOST:PORT[,HOST:PORT...] [options]\n"
	      "  --sites N            two-node sites (1)\n"
	      "  --names FILE         one site name per line; else --prefix TEXT and a number\n"
	      "  --prefix TEXT        site-\n"
	      "  --tls --ca FILE      and one of:\n"
	      "    --ca-key FILE        certificates for all sites are made with it\n"
	      "    --cert-dir DIR       NAME.crt and NAME.key for each site\n"
	      "    --cert FILE --key FILE  the same for all\n"
	      "  --heartbeat MS       8000\n"
	      "  --algorithm WORD     ffsplit | lms\n"
	      "  --in-flight N        connects under way at once (64; 0: no limit)\n"
	      "  --sources N          sites connect from N loopback addresses (one)\n"
	      "  --spread             nodes start with different addresses\n"
	      "  --hold SEC           let heartbeats run\n"
	      "  --split | --unplug   of --percent N (100) of the sites, then heal\n"
	      "  --reattach           reset all connections and wait for all to be back\n"
	      "  --timeout SEC        for each phase (120)\n"
	      "  --server-pid PID     report its CPU time and memory\n"
	      "  --events FILE        one JSON object per change\n"
	      "  --seed N             1\n"
	      "  --interactive        commands on standard input\n",
	      out);
}

enum {
	OPT_ADDRESS = 256,
	OPT_SITES,
	OPT_NAMES,
	OPT_PREFIX,
	OPT_TLS,
	OPT_CA,
	OPT_CA_KEY,
	OPT_CERT_DIR,
	OPT_CERT,
	OPT_KEY,
	OPT_HEARTBEAT,
	OPT_ALGORITHM,
	OPT_IN_FLIGHT,
	OPT_SOURCES,
	OPT_SPREAD,
	OPT_HOLD,
	OPT_SPLIT,
	OPT_UNPLUG,
	OPT_PERCENT,
	OPT_REATTACH,
	OPT_TIMEOUT,
	OPT_SERVER_PID,
	OPT_EVENTS,
	OPT_SEED,
	OPT_INTERACTIVE,
	OPT_HELP,
};

static const struct option long_options[] = {
	{"address", required_argument, NULL, OPT_ADDRESS},
	{"sites", required_argument, NULL, OPT_SITES},
	{"names", required_argument, NULL, OPT_NAMES},
	{"prefix", required_argument, NULL, OPT_PREFIX},
	{"tls", no_argument, NULL, OPT_TLS},
	{"ca", required_argument, NULL, OPT_CA},
	{"ca-key", required_argument, NULL, OPT_CA_KEY},
	{"cert-dir", required_argument, NULL, OPT_CERT_DIR},
	{"cert", required_argument, NULL, OPT_CERT},
	{"key", required_argument, NULL, OPT_KEY},
	{"heartbeat", required_argument, NULL, OPT_HEARTBEAT},
	{"algorithm", required_argument, NULL, OPT_ALGORITHM},
	{"in-flight", required_argument, NULL, OPT_IN_FLIGHT},
	{"sources", required_argument, NULL, OPT_SOURCES},
	{"spread", no_argument, NULL, OPT_SPREAD},
	{"hold", required_argument, NULL, OPT_HOLD},
	{"split", no_argument, NULL, OPT_SPLIT},
	{"unplug", no_argument, NULL, OPT_UNPLUG},
	{"percent", required_argument, NULL, OPT_PERCENT},
	{"reattach", no_argument, NULL, OPT_REATTACH},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"server-pid", required_argument, NULL, OPT_SERVER_PID},
	{"events", required_argument, NULL, OPT_EVENTS},
	{"seed", required_argument, NULL, OPT_SEED},
	{"interactive", no_argument, NULL, OPT_INTERACTIVE},
	{"help", no_argument, NULL, OPT_HELP},
	{0},
};

static unsigned number_option(const char *name, uint64_t min, uint64_t max)
{
	uint64_t value;

	if (text_to_u64(optarg, min, max, &value) != 0) {
		fprintf(stderr, "qnet_load: --%s takes a number from %llu to %llu, not %s\n", name,
			(unsigned long long)min, (unsigned long long)max, optarg);
		exit(2);
	}
	return (unsigned)value;
}

static void split_addresses(struct load *l)
{
	unsigned count = 0;

	free(l->address_text);
	l->address_text = mem_strdup(optarg);
	for (char *a = strtok(l->address_text, ","); a != NULL; a = strtok(NULL, ",")) {
		if (count == ADDRESSES_MAX) {
			fprintf(stderr, "qnet_load: at most %d addresses\n", ADDRESSES_MAX);
			exit(2);
		}
		l->addresses[count++] = a;
	}
	l->addresses[count] = NULL;
	l->options.addresses = l->addresses;
}

/* As many names as there are lines; --sites may take fewer of them. */
static void read_names(struct load *l, const char *path)
{
	char line[NAME_MAX_BYTES];
	FILE *f = fopen(path, "re");

	if (f == NULL) {
		fprintf(stderr, "qnet_load: %s: %s\n", path, strerror(errno));
		exit(2);
	}
	while (fgets(line, sizeof(line), f) != NULL) {
		line[strcspn(line, "\r\n")] = '\0';
		if (line[0] == '\0')
			continue;
		l->names = mem_realloc(l->names, (l->name_count + 1) * sizeof(*l->names));
		l->names[l->name_count++] = mem_strdup(line);
	}
	fclose(f);
	if (l->options.sites == 0 || l->options.sites > l->name_count)
		l->options.sites = l->name_count;
	l->options.names = (const char *const *)l->names;
}

static void take_option(struct load *l, int option, const char **names_path)
{
	switch (option) {
	case OPT_ADDRESS:
		split_addresses(l);
		break;
	case OPT_SITES:
		l->options.sites = number_option("sites", 1, 50000);
		break;
	case OPT_NAMES:
		*names_path = optarg;
		break;
	case OPT_PREFIX:
		l->options.prefix = optarg;
		break;
	case OPT_TLS:
		l->options.tls = true;
		break;
	case OPT_CA:
		l->options.ca = optarg;
		break;
	case OPT_CA_KEY:
		l->options.ca_key = optarg;
		break;
	case OPT_CERT_DIR:
		l->options.cert_dir = optarg;
		break;
	case OPT_CERT:
		l->options.cert = optarg;
		break;
	case OPT_KEY:
		l->options.key = optarg;
		break;
	case OPT_HEARTBEAT:
		l->options.heartbeat_ms = number_option("heartbeat", 1000, 120000);
		break;
	case OPT_ALGORITHM:
		l->options.algorithm =
			strcmp(optarg, "lms") == 0 ? QNET_ALGORITHM_LMS : QNET_ALGORITHM_FFSPLIT;
		break;
	case OPT_IN_FLIGHT:
		l->options.in_flight = number_option("in-flight", 0, 100000);
		break;
	case OPT_SOURCES:
		l->options.sources = number_option("sources", 0, 60000);
		break;
	case OPT_SPREAD:
		l->options.fair_start = true;
		break;
	case OPT_HOLD:
		l->hold_s = number_option("hold", 0, 86400);
		break;
	case OPT_SPLIT:
		l->split = true;
		break;
	case OPT_UNPLUG:
		l->unplug = true;
		break;
	case OPT_PERCENT:
		l->percent = number_option("percent", 0, 100);
		break;
	case OPT_REATTACH:
		l->again = true;
		break;
	case OPT_TIMEOUT:
		l->timeout_s = number_option("timeout", 1, 86400);
		break;
	case OPT_SERVER_PID:
		l->server = (pid_t)number_option("server-pid", 1, 1 << 30);
		break;
	case OPT_EVENTS:
		l->options.events = fopen(optarg, "we");
		if (l->options.events == NULL) {
			fprintf(stderr, "qnet_load: %s: %s\n", optarg, strerror(errno));
			exit(2);
		}
		break;
	case OPT_SEED:
		l->options.seed = number_option("seed", 0, UINT32_MAX);
		break;
	case OPT_INTERACTIVE:
		l->interactive = true;
		break;
	case OPT_HELP:
		usage(stdout);
		exit(0);
	default:
		usage(stderr);
		exit(2);
	}
}

static void raise_file_limit(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

static void load_free(struct load *l)
{
	site_nodes_free(l->nodes);
	if (l->options.events != NULL)
		fclose(l->options.events);
	for (unsigned i = 0; i < l->name_count; i++)
		free(l->names[i]);
	free(l->names);
	free(l->address_text);
	buf_free(&l->report);
}

int main(int argc, char **argv)
{
	struct load l = {.options = {.prefix = "site-",
				     .heartbeat_ms = 8000,
				     .algorithm = QNET_ALGORITHM_FFSPLIT,
				     .in_flight = 64,
				     .seed = 1},
			 .percent = 100,
			 .timeout_s = 120};
	const char *names_path = NULL;
	char *message = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		take_option(&l, option, &names_path);
	if (l.options.addresses == NULL || optind != argc) {
		usage(stderr);
		return 2;
	}
	if (names_path != NULL)
		read_names(&l, names_path);
	if (l.options.sites == 0)
		l.options.sites = 1;
	raise_file_limit();
	if (site_nodes_new(&l.options, &l.nodes, &message) != 0) {
		fprintf(stderr, "qnet_load: %s\n", message);
		free(message);
		return 2;
	}
	if (l.interactive)
		run_interactive(&l);
	else
		run_phases(&l);
	load_free(&l);
	return l.failed;
}
