/* witnessd: the witness daemon of one board. Start-up reads as a list; shut-down is the same
 * list backwards. */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "witnessd/agent_door.h"
#include "witnessd/capacity.h"
#include "witnessd/config.h"
#include "witnessd/core.h"
#include "witnessd/directory.h"
#include "witnessd/door_metrics.h"
#include "witnessd/front.h"
#include "witnessd/host.h"
#include "witnessd/holder.h"
#include "lib/notify.h"
#include "witnessd/qnet_door.h"

enum { EXIT_USAGE = 2, CONFIG_OVERRIDES = 16 };

static const char default_config[] = "/etc/tiebreak/witnessd.conf";

static const char usage[] =
	"Usage: witnessd [OPTION...]\n"
	"The witness daemon of one board: gives each site's vote to exactly one side.\n"
	"\n"
	"  --config FILE        settings (default /etc/tiebreak/witnessd.conf if it is there)\n"
	"  --check-config       read the settings, say what they are or what is wrong, and end\n"
	"  --set SECTION.KEY=VALUE   one setting, over the file (repeatable)\n"
	"  --name NAME          name of this board (node.name; default: the host name)\n"
	"  --data-dir DIR       identity and log, on the card (node.data-dir)\n"
	"  --run-dir DIR        model and sockets, on tmpfs (node.run-dir)\n"
	"  --listen ADDR        API and other boards (api.listen; default *:7443)\n"
	"  --advertise ADDR     HOST:PORT that others reach (api.advertise)\n"
	"  --sites-listen ADDR  corosync-qdevice clients (sites.listen; default *:5403)\n"
	"  --log-level LEVEL    error, warning, notice, info, debug (node.log-level)\n"
	"  --version            print the version and end\n"
	"  --help               print this and end\n"
	"\n"
	"A new board serves nothing until \"witnessctl cluster init\" or \"witnessctl cluster "
	"join\"\n"
	"is run on it. SIGTERM ends it in order. Exit codes: 0 ended as asked, 1 could not start "
	"or\n"
	"failed, 2 wrong usage.\n";

struct options {
	const char *config;
	bool check;
	const char *names[CONFIG_OVERRIDES];
	const char *values[CONFIG_OVERRIDES];
	unsigned overrides;
};

static const struct option long_options[] = {
	{"config", required_argument, NULL, 'c'},
	{"check-config", no_argument, NULL, 'k'},
	{"set", required_argument, NULL, 's'},
	{"name", required_argument, NULL, 0},
	{"data-dir", required_argument, NULL, 0},
	{"run-dir", required_argument, NULL, 0},
	{"listen", required_argument, NULL, 0},
	{"advertise", required_argument, NULL, 0},
	{"sites-listen", required_argument, NULL, 0},
	{"log-level", required_argument, NULL, 0},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

/* The setting behind each option of the table that is a short form of --set. */
static const char *option_setting(const char *option)
{
	static const char *const settings[][2] = {
		{"name", "node.name"},		 {"data-dir", "node.data-dir"},
		{"run-dir", "node.run-dir"},	 {"listen", "api.listen"},
		{"advertise", "api.advertise"},	 {"sites-listen", "sites.listen"},
		{"log-level", "node.log-level"},
	};

	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		if (strcmp(settings[i][0], option) == 0)
			return settings[i][1];
	return NULL;
}

static int usage_error(const char *word)
{
	const char *names[sizeof(long_options) / sizeof(long_options[0])] = {0};
	const char *nearest;

	for (size_t i = 0; long_options[i].name != NULL; i++)
		names[i] = long_options[i].name;
	nearest = text_nearest(word + strspn(word, "-"), names);
	if (nearest != NULL)
		fprintf(stderr,
			"witnessd: cannot use \"%s\"; did you mean --%s? (--help lists all)\n",
			word, nearest);
	else
		fprintf(stderr, "witnessd: cannot use \"%s\" (--help lists all options)\n", word);
	return EXIT_USAGE;
}

static int option_override(struct options *o, const char *name, const char *value)
{
	if (o->overrides == CONFIG_OVERRIDES) {
		fprintf(stderr, "witnessd: more than %d settings on the command line\n",
			CONFIG_OVERRIDES);
		return EXIT_USAGE;
	}
	o->names[o->overrides] = name;
	o->values[o->overrides++] = value;
	return 0;
}

/* 0 to go on, else the exit code plus one (so that --help can end with success). */
static int options_read(struct options *o, int argc, char **argv)
{
	int index;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", long_options, &index)) != -1) {
		int rv = 0;
		char *equals;

		switch (c) {
		case 'c':
			o->config = optarg;
			break;
		case 'k':
			o->check = true;
			break;
		case 's':
			equals = strchr(optarg, '=');
			if (equals == NULL)
				return usage_error(optarg) + 1;
			*equals = '\0';
			rv = option_override(o, optarg, equals + 1);
			break;
		case 0:
			rv = option_override(o, option_setting(long_options[index].name), optarg);
			break;
		case 'V':
			puts("witnessd " TIEBREAK_VERSION);
			return 1;
		case 'h':
			fputs(usage, stdout);
			return 1;
		case ':':
			fprintf(stderr, "witnessd: %s needs a value (see --help)\n",
				argv[optind - 1]);
			return EXIT_USAGE + 1;
		default:
			return usage_error(argv[optind - 1]) + 1;
		}
		if (rv != 0)
			return rv + 1;
	}
	return optind < argc ? usage_error(argv[optind]) + 1 : 0;
}

static int config_load(struct config *config, const struct options *o)
{
	char *message = NULL;
	int rv = 0;

	config_init(config);
	if (o->config != NULL || access(default_config, F_OK) == 0)
		rv = config_read(config, o->config != NULL ? o->config : default_config, &message);
	for (unsigned i = 0; rv == 0 && i < o->overrides; i++)
		rv = config_set(config, o->names[i], o->values[i], &message);
	if (rv == 0)
		rv = config_finish(config, &message);
	if (rv != 0)
		fprintf(stderr, "witnessd: %s\n", message);
	free(message);
	return rv;
}

static void config_print(const struct config *c)
{
	static const char *const tls[] = {"off", "on", "required"};
	static const char *const levels[] = {"error", "warning", "notice", "info", "debug"};

	printf("[node]\nname = %s\ndata-dir = %s\nrun-dir = %s\nlog-level = %s\n", c->name,
	       c->data_dir, c->run_dir, levels[c->log_level - 3]);
	printf("watchdog = %s\nwatchdog-timeout = %llus\nwatchdog-keep = %s\n\n",
	       c->watchdog != NULL ? c->watchdog : "off",
	       (unsigned long long)c->watchdog_timeout_ms / 1000, c->watchdog_keep ? "on" : "off");
	printf("[api]\nlisten = %s\nadvertise = %s\nconnections-max = %llu\n"
	       "pending-per-address-max = %llu\n\n",
	       c->listen, c->advertise, (unsigned long long)c->connections_max,
	       (unsigned long long)c->api_pending_per_address_max);
	printf("[sites]\nlisten = %s\nadvertise = %s\ntls = %s\nclient-certificate = %s\n"
	       "threads = %llu\nsessions-max = %llu\nsessions-per-address-max = %llu\n"
	       "pending-per-address-max = %llu\n\n[addresses]\ntickle = %s\n",
	       c->sites_listen, c->sites_advertise, tls[c->tls],
	       c->client_certificate ? "on" : "off", (unsigned long long)c->threads,
	       (unsigned long long)c->sessions_max, (unsigned long long)c->sessions_per_address_max,
	       (unsigned long long)c->pending_per_address_max, c->tickle ? "on" : "off");
	printf("\n[vms]\nprogram = %s\nuid-base = %llu\nmemory-reserve-mib = %llu\n"
	       "image-space-mib = %llu\n",
	       c->vm_program, (unsigned long long)c->vm_uid_base,
	       (unsigned long long)c->vm_memory_reserve_mib,
	       (unsigned long long)c->image_space_mib);
}

/* --- the parts of the daemon, and who tells whom --- */

struct daemon {
	struct core *core;
	struct front *front;
	struct qnet_door *door;
	struct host *host;
	struct holder *holder;
	_Atomic bool failed;
	int data_lock, run_lock; /* held until the process ends */
};

static void on_model_changed(void *arg, uint64_t applied_index)
{
	struct daemon *d = arg;

	front_model_changed(d->front, applied_index);
	qnet_door_model_changed(d->door, applied_index);
	host_model_changed(d->host, applied_index);
}

static void on_identity_changed(void *arg)
{
	struct daemon *d = arg;

	front_identity_changed(d->front);
	qnet_door_identity(d->door);
	host_identity_changed(d->host);
}

/* Two doors look like one to the core; the top bit of a session says whose it is. */
static void on_door_orders(void *arg, Tb__DoorOrder **orders, size_t count)
{
	struct daemon *d = arg;
	Tb__DoorOrder **agents = mem_array(count, sizeof(Tb__DoorOrder *));
	size_t agent_count = 0;
	size_t kept = 0;

	for (size_t i = 0; i < count; i++) {
		if ((orders[i]->session & AGENT_SESSION) != 0)
			agents[agent_count++] = orders[i];
		else
			orders[kept++] = orders[i];
	}
	agent_door_orders(front_agents(d->front), agents, agent_count);
	qnet_door_orders(d->door, orders, kept);
}

static void on_door_report(void *arg)
{
	struct daemon *d = arg;

	agent_door_report(front_agents(d->front));
	qnet_door_report(d->door);
}

static uint32_t on_door_sessions(void *arg)
{
	struct daemon *d = arg;
	struct agent_door_stats agents;
	struct qnet_door_stats stats;

	agent_door_stats(front_agents(d->front), &agents);
	qnet_door_stats(d->door, &stats);
	return (uint32_t)(stats.sessions[QNET_OPEN] + agents.sessions);
}

static void on_door_serve(void *arg, bool on)
{
	struct daemon *d = arg;

	agent_door_serve(front_agents(d->front), on);
	qnet_door_serve(d->door, on);
}

static void on_door_admit(void *arg, bool on)
{
	qnet_door_admit(((struct daemon *)arg)->door, on);
}

static void on_address_hold(void *arg, uint64_t letter, const Tb__PeerAddressOrder *order,
			    uint64_t until_ms)
{
	holder_hold(((struct daemon *)arg)->holder, letter, order, until_ms);
}

static void on_address_tickle(void *arg, struct roll_ends *ends, size_t count)
{
	holder_tickle(((struct daemon *)arg)->holder, ends, count);
}

static void on_holder_report(void *arg, uint64_t letter, Tb__PeerAddressReport *report)
{
	core_address_report(((struct daemon *)arg)->core, letter, report);
}

static void on_address_leaving(void *arg, const struct ip *ip)
{
	struct daemon *d = arg;

	qnet_door_leave(d->door, ip);
	agent_door_leave(front_agents(d->front), ip);
}

static void on_join_dial(void *arg, uint64_t dial_id, const char *address, const char *pin,
			 Tb__JoinRequest *request)
{
	front_join_dial(((struct daemon *)arg)->front, dial_id, address, pin, request);
}

static void on_reach_dial(void *arg, uint64_t dial_id, const char *address)
{
	front_reach_dial(((struct daemon *)arg)->front, dial_id, address);
}

static void on_link_dial(void *arg, uint64_t dial_id, const char *address, const char *alpn,
			 uint64_t expect_node)
{
	front_link_dial(((struct daemon *)arg)->front, dial_id, address, alpn, expect_node);
}

static void on_host_lease(void *arg, uint64_t until_ms, uint64_t fence)
{
	host_lease(((struct daemon *)arg)->host, until_ms, fence);
}

static uint64_t on_host_waits(void *arg)
{
	return host_waits_ms(((struct daemon *)arg)->host);
}

static void on_host_report(void *arg)
{
	host_report(((struct daemon *)arg)->host);
}

static void on_core_failed(void *arg)
{
	struct daemon *d = arg;

	d->failed = true;
	kill(getpid(), SIGTERM);
}

static int daemon_start(struct daemon *d, const struct config *config, const char **ret_message)
{
	const struct core_config core_config = {
		.data_dir = config->data_dir,
		.run_dir = config->run_dir,
		.node_name = config->name,
		.address = config->advertise,
		.qnet_address = config->sites_advertise,
		.watchdog = config->watchdog,
		.watchdog_timeout_s = (unsigned)(config->watchdog_timeout_ms / 1000),
		.watchdog_keep = config->watchdog_keep,
	};
	const struct core_listeners listeners = {
		.arg = d,
		.model_changed = on_model_changed,
		.identity_changed = on_identity_changed,
		.door_orders = on_door_orders,
		.door_report = on_door_report,
		.door_sessions = on_door_sessions,
		.door_serve = on_door_serve,
		.door_admit = on_door_admit,
		.address_hold = on_address_hold,
		.address_tickle = on_address_tickle,
		.join_dial = on_join_dial,
		.link_dial = on_link_dial,
		.reach_dial = on_reach_dial,
		.host_lease = on_host_lease,
		.host_waits = on_host_waits,
		.host_report = on_host_report,
	};
	const struct holder_options addresses = {.sites_listen = config->sites_listen,
						 .tickle = config->tickle};
	int rv;

	rv = directory_claim(config->data_dir, 0700, "--data-dir", &d->data_lock, ret_message);
	if (rv == 0)
		rv = directory_claim(config->run_dir, 0755, "--run-dir", &d->run_lock, ret_message);
	if (rv != 0)
		return rv;
	d->holder = holder_start(&addresses);
	d->core = core_new(&core_config, &listeners);
	core_on_failure(d->core, on_core_failed, d);
	rv = front_start(config, d->core, &d->front, ret_message);
	if (rv == 0)
		rv = qnet_door_start(config, d->core, &d->door, ret_message);
	if (rv == 0)
		rv = host_start(config, d->core, d->front, &d->host, ret_message);
	if (rv == 0) {
		const struct holder_upcalls upcalls = {.arg = d,
						       .view = core_view(d->core),
						       .report = on_holder_report,
						       .leaving = on_address_leaving};

		metrics_collect(front_metrics(d->front), door_metrics_write, d->door);
		metrics_collect(front_metrics(d->front), host_metrics, d->host);
		metrics_collect(front_metrics(d->front), holder_metrics, d->holder);
		front_host_set(d->front, d->host);
		holder_begin(d->holder, &upcalls);
		rv = core_start(d->core, ret_message);
	}
	return rv;
}

static void daemon_stop(struct daemon *d)
{
	if (d->core == NULL)
		return;
	/* While the lease is still renewed: VMs shut down in their own time. */
	host_stop(d->host);
	/* While this board is still one of the cluster: the addresses move at once. */
	holder_retire(d->holder);
	core_stop(d->core);
	/* It speaks to the doors, the front and the core. If the kernel keeps its thread waiting,
	 * no process could end before that comes back, however it went. */
	holder_stop(d->holder);
	/* Before the door, the host and the holder, whose numbers it shows. */
	if (d->front != NULL)
		front_stop(d->front);
	holder_free(d->holder);
	if (d->door != NULL)
		qnet_door_stop(d->door);
	host_free(d->host);
	core_free(d->core);
}

int main(int argc, char **argv)
{
	struct options options = {0};
	struct config config;
	struct daemon d = {0};
	const char *message = NULL;
	char *failure = NULL;
	sigset_t signals;
	int signal_got;
	int rv;

	rv = options_read(&options, argc, argv);
	if (rv != 0)
		return rv - 1;
	if (config_load(&config, &options) != 0)
		return EXIT_FAILURE;
	if (options.check) {
		config_print(&config);
		config_free(&config);
		return EXIT_SUCCESS;
	}
	log_set_level((enum log_level)config.log_level);
	log_set_timestamps(getenv("JOURNAL_STREAM") == NULL);
	signal(SIGPIPE, SIG_IGN);
	/* Only this thread hears of signals: the others inherit the mask. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	rv = capacity_take(&config, &message);
	if (rv == 0)
		rv = daemon_start(&d, &config, &message);
	if (rv == 0) {
		log_notice("started", "witnessd %s on board %s, sites at %s, API at %s",
			   TIEBREAK_VERSION, config.name, config.sites_listen, config.listen);
		notify_send("READY=1");
		sigwait(&signals, &signal_got);
		notify_send("STOPPING=1");
		log_notice("stopping", "ending on signal %d", signal_got);
	} else {
		failure = mem_strdup(message != NULL ? message : strerror(-rv));
	}
	daemon_stop(&d);
	/* The last line of the log is the reason, whatever the doors said while they closed. */
	if (failure != NULL)
		log_error("start-failed", "%s", failure);
	free(failure);
	config_free(&config);
	return rv != 0 || d.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
