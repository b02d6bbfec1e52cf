/* commands.c: the table of everything that witnessctl can do, with the words that explain it. */
#include "cli/command.h"
#include "cli/run.h"

/* An example: the command line, and what it does. */
#define EXAMPLE(line, what) line "\0" what

static const char *const output_words[] = {"table", "wide", "json", "name", NULL};
static const char *const switch_words[] = {"on", "off", NULL};
static const char *const switch_any_words[] = {"on", "off", "any", NULL};
static const char *const algorithm_words[] = {"any", "ffsplit", "lms", "2nodelms", NULL};
static const char *const tls_words[] = {"any", "off", "on", "required", NULL};
static const char *const handover_words[] = {"safe", "fast", NULL};
static const char *const state_words[] = {"unknown", "offline",	  "whole", "degraded",
					  "split",   "undecided", NULL};
static const char *const status_words[] = {"ok",      "degraded", "no-quorum", "new",
					   "joining", "serving",  "failed",    NULL};
static const char *const role_words[] = {"viewer", "operator", "admin", "node",
					 "site",   "agent",    NULL};
static const char *const client_role_words[] = {"viewer", "operator", "admin", NULL};
static const char *const image_kind_words[] = {"kernel", "initrd", "disk", NULL};
static const char *const vm_restart_words[] = {"always", "on-failure", "never", NULL};
static const char *const vm_loss_words[] = {"restart", "wait", NULL};
static const char *const format_words[] = {"csv", "json", NULL};

const struct option_spec global_options[] = {
	{.name = "server",
	 .letter = 's',
	 .type = OPTION_TEXT,
	 .repeat = true,
	 .value = "URL",
	 .help = "A board, as https://host:7443. May be given again, or as a comma list: the next "
		 "one "
		 "is tried when one does not answer. Default: this board's own socket."},
	{.name = "token",
	 .type = OPTION_TEXT,
	 .value = "TOKEN",
	 .help = "The access token for --server, or @FILE with the token in its first line. The "
		 "token "
		 "also says which cluster to believe."},
	{.name = "cert",
	 .type = OPTION_FILE,
	 .value = "FILE",
	 .help = "A client certificate (PEM) for --server, instead of a token.",
	 .complete = COMPLETE_FILE},
	{.name = "key",
	 .type = OPTION_FILE,
	 .value = "FILE",
	 .help = "Its key.",
	 .complete = COMPLETE_FILE},
	{.name = "ca",
	 .type = OPTION_FILE,
	 .value = "FILE",
	 .help = "The cluster's CA certificate.",
	 .complete = COMPLETE_FILE},
	{.name = "socket",
	 .type = OPTION_FILE,
	 .value = "PATH",
	 .help = "The socket of witnessd on this board. Default: /run/tiebreak/witnessd.sock.",
	 .complete = COMPLETE_FILE},
	{.name = "connect-timeout",
	 .type = OPTION_DURATION,
	 .value = "TIME",
	 .help = "How long to wait for each server to accept. Default: 5s."},
	{.name = "output",
	 .letter = 'o',
	 .type = OPTION_WORD,
	 .value = "FORMAT",
	 .words = output_words,
	 .help = "table (default), wide, json (the server's own JSON; lists as {\"items\":[..]}) "
		 "or "
		 "name (one name a line)."},
	{.name = "help", .letter = 'h', .type = OPTION_FLAG, .help = "Explains the command."},
	{.name = "version", .letter = 'V', .type = OPTION_FLAG, .help = "Prints the version."},
	{.name = NULL},
};

/* Repeated in several commands. */
#define OPTION_YES                                                                                 \
	{                                                                                          \
		.name = "yes", .letter = 'y', .type = OPTION_FLAG, .help = "Does not ask."         \
	}
#define OPTION_NODE_NAME                                                                           \
	{                                                                                          \
		.name = "node-name", .type = OPTION_TEXT, .value = "NAME",                         \
		.help = "This board's name in the cluster. Default: its host name."                \
	}
#define OPTION_ADVERTISE                                                                           \
	{                                                                                          \
		.name = "advertise", .type = OPTION_TEXT, .value = "HOST:PORT",                    \
		.help = "Where the other boards and witnessctl reach this board. Default: its "    \
			"address towards the network, port 7443."                                  \
	}
#define OPTION_QNET_ADDRESS                                                                        \
	{                                                                                          \
		.name = "qnet-address", .type = OPTION_TEXT, .value = "HOST:PORT",                 \
		.help = "Where the sites reach this board. Default: the same host, port 5403."     \
	}
#define OPTION_SELECTOR                                                                            \
	{                                                                                          \
		.name = "label", .letter = 'l', .type = OPTION_TEXT, .repeat = true,               \
		.value = "SELECTOR",                                                               \
		.help = "Only sites with these labels: region=emea, tier!=lab, owner (is set), "   \
			"!owner (is not). With commas or given again: all must match."             \
	}
#define OPTION_STATE                                                                               \
	{                                                                                          \
		.name = "state", .type = OPTION_WORD, .value = "STATE", .words = state_words,      \
		.help = "Only sites in this state: whole, degraded, split, undecided, offline or " \
			"unknown."                                                                 \
	}
#define OPTION_PREFIX                                                                              \
	{                                                                                          \
		.name = "prefix", .type = OPTION_TEXT, .value = "TEXT",                            \
		.help = "Only sites whose names begin so."                                         \
	}
#define OPTIONS_POLICY                                                                             \
	{.name = "algorithm",                                                                      \
	 .type = OPTION_WORD,                                                                      \
	 .value = "NAME",                                                                          \
	 .words = algorithm_words,                                                                 \
	 .help = "ffsplit, lms or 2nodelms: refuses nodes that ask for another one; lease: for "   \
		 "nodes with witness-agent. any (default): as the nodes ask."},                    \
		{.name = "tie-breaker",                                                            \
		 .type = OPTION_TEXT,                                                              \
		 .value = "lowest|highest|ID|any",                                                 \
		 .help = "Who gets the vote when both halves are equal: the half with the "        \
			 "lowest or highest node id, or with this node. any (default): as "        \
			 "the nodes ask."},                                                        \
		{.name = "keep-active-partition",                                                  \
		 .type = OPTION_WORD,                                                              \
		 .value = "on|off|any",                                                            \
		 .words = switch_any_words,                                                        \
		 .help = "on: the half that had quorum keeps it on a tie. any (default): "         \
			 "as the nodes ask."},                                                     \
		{.name = "tls",                                                                    \
		 .type = OPTION_WORD,                                                              \
		 .value = "off|on|required|any",                                                   \
		 .words = tls_words,                                                               \
		 .help = "required: only nodes with the site's certificate are let in. "           \
			 "any (default): the board's setting."},                                   \
		{.name = "handover",                                                               \
		 .type = OPTION_WORD,                                                              \
		 .value = "safe|fast",                                                             \
		 .words = handover_words,                                                          \
		 .help = "How long a silent holder keeps the vote. safe (default): two "           \
			 "heartbeat intervals, never two sides at once. fast: 1.5 "                \
			 "intervals, as corosync-qnetd, with a short overlap."},                   \
		{.name = "heartbeat-min",                                                          \
		 .type = OPTION_TEXT,                                                              \
		 .value = "TIME",                                                                  \
		 .help = "Refuses nodes with a shorter heartbeat interval (1s to 120s; 0: "        \
			 "the default, 1s)."},                                                     \
		{.name = "heartbeat-max",                                                          \
		 .type = OPTION_TEXT,                                                              \
		 .value = "TIME",                                                                  \
		 .help = "Refuses nodes with a longer heartbeat interval (1s to 120s; 0: the "     \
			 "default, 120s)."},                                                       \
	{                                                                                          \
		.name = "lease", .type = OPTION_TEXT,                                              \
		.value = "any|generation|preferred:ID|manual:ID",                                  \
		.help = "Which node of a site with witness-agent gets the lease: the one with "    \
			"the highest data generation, this node whenever it is there, or this "    \
			"node and no other. any (default): who has it keeps it."                   \
	}

static const struct option_spec init_options[] = {
	{.name = "name",
	 .type = OPTION_TEXT,
	 .value = "NAME",
	 .help = "The cluster's name, for people. Default: tiebreak."},
	OPTION_NODE_NAME,
	OPTION_ADVERTISE,
	OPTION_QNET_ADDRESS,
	{.name = NULL},
};
static const struct option_spec join_options[] = {
	{.name = "token",
	 .type = OPTION_TEXT,
	 .value = "TOKEN",
	 .help = "From \"witnessctl token create --role node\" on a board of the cluster."},
	OPTION_NODE_NAME,
	OPTION_ADVERTISE,
	OPTION_QNET_ADDRESS,
	{.name = NULL},
};
static const struct option_spec status_options[] = {
	{.name = "wait",
	 .type = OPTION_WORD,
	 .value = "STATE",
	 .words = status_words,
	 .help = "Waits for this state: of the cluster (ok, degraded, no-quorum) or of the board "
		 "that "
		 "is asked (new, joining, serving, failed)."},
	{.name = "nodes",
	 .type = OPTION_NUMBER,
	 .value = "N",
	 .help = "Waits until at least N boards are reachable."},
	{.name = "timeout",
	 .type = OPTION_DURATION,
	 .value = "TIME",
	 .help = "How long to wait, then exit code 5. Default: 60s."},
	{.name = NULL},
};
static const struct option_spec yes_options[] = {OPTION_YES, {.name = NULL}};
static const struct option_spec set_cluster_options[] = {
	{.name = "auto-register",
	 .type = OPTION_WORD,
	 .value = "on|off",
	 .words = switch_words,
	 .help = "on: a site that nobody created is created when its first node attaches. off "
		 "(default): its nodes are refused."},
	{.name = "certificate-life",
	 .type = OPTION_DURATION,
	 .value = "TIME",
	 .help = "How long certificates of boards and API clients live; they are renewed at two "
		 "thirds of it. From a minute to ten years; default: 90d."},
	{.name = "keep-room",
	 .type = OPTION_WORD,
	 .value = "on|off",
	 .words = switch_words,
	 .help = "on: a VM is refused if, without any one board, the others had no room for all of "
		 "them. off (default): boards may be filled."},
	{.name = NULL},
};
static const struct option_spec token_options[] = {
	{.name = "role",
	 .letter = 'r',
	 .type = OPTION_WORD,
	 .value = "ROLE",
	 .words = role_words,
	 .help = "viewer reads, operator changes sites too, admin changes the cluster too; node "
		 "lets "
		 "a board join; site reads one site; agent enrols the agents of one site."},
	{.name = "ttl", .type = OPTION_DURATION, .value = "TIME", .help = "Its life. Default: 1h."},
	{.name = "uses",
	 .type = OPTION_NUMBER,
	 .value = "N",
	 .help = "How many boards may join with it; 0: no limit. Default: 1 for node."},
	{.name = "name",
	 .type = OPTION_TEXT,
	 .value = "NAME",
	 .help = "What it is for, for people."},
	{.name = "site",
	 .type = OPTION_TEXT,
	 .value = "NAME",
	 .help = "The site, with --role site or agent.",
	 .complete = COMPLETE_SITE},
	{.name = "tenant",
	 .type = OPTION_TEXT,
	 .value = "NAME",
	 .help = "With --role viewer or operator: sees and changes only the sites with the label "
		 "tenant=NAME, and nothing of the cluster."},
	{.name = NULL},
};
static const struct option_spec import_options[] = {
	{.name = "dry-run",
	 .type = OPTION_FLAG,
	 .help = "Says what would change and writes nothing."},
	{.name = "format",
	 .type = OPTION_WORD,
	 .value = "csv|json",
	 .words = format_words,
	 .help = "Default: by the file's ending, else by its first character."},
	{.name = "quiet", .letter = 'q', .type = OPTION_FLAG, .help = "Only errors are printed."},
	{.name = NULL},
};
static const struct option_spec create_options[] = {
	{.name = "label",
	 .letter = 'l',
	 .type = OPTION_TEXT,
	 .repeat = true,
	 .value = "KEY=VALUE",
	 .help = "A label to find it by. May be given again."},
	OPTIONS_POLICY,
	{.name = NULL},
};
static const struct option_spec set_options[] = {
	{.name = "label",
	 .letter = 'l',
	 .type = OPTION_TEXT,
	 .repeat = true,
	 .value = "KEY=VALUE",
	 .help = "Sets a label; KEY- removes it. Other labels stay. May be given again."},
	OPTIONS_POLICY,
	{.name = "if-revision",
	 .type = OPTION_NUMBER,
	 .value = "N",
	 .help = "Only if the site still has this revision (see site show)."},
	{.name = NULL},
};
static const struct option_spec list_options[] = {
	OPTION_SELECTOR,
	OPTION_STATE,
	OPTION_PREFIX,
	{.name = "watch",
	 .letter = 'w',
	 .type = OPTION_FLAG,
	 .help = "Prints changes as they happen, until interrupted."},
	{.name = NULL},
};
static const struct option_spec export_options[] = {
	OPTION_SELECTOR,
	OPTION_STATE,
	OPTION_PREFIX,
	{.name = "format",
	 .type = OPTION_WORD,
	 .value = "csv|json",
	 .words = format_words,
	 .help = "Default: csv."},
	{.name = "out",
	 .type = OPTION_FILE,
	 .value = "FILE",
	 .help = "Default: the standard output.",
	 .complete = COMPLETE_FILE},
	{.name = NULL},
};
static const struct option_spec enroll_options[] = {
	{.name = "csr",
	 .type = OPTION_FILE,
	 .value = "FILE",
	 .help = "A certificate request made on a node (corosync-qdevice-net-certutil -r), PEM or "
		 "DER: the key then never leaves the node. Default: a key is made too.",
	 .complete = COMPLETE_FILE},
	{.name = "out",
	 .type = OPTION_FILE,
	 .value = "DIR",
	 .help = "Where to write the files. Default: a directory with the site's name.",
	 .complete = COMPLETE_FILE},
	{.name = "agent",
	 .type = OPTION_FLAG,
	 .help = "For nodes with witness-agent: prints a token of one hour for \"witness-agent "
		 "enroll\"."},
	{.name = NULL},
};
static const struct option_spec image_push_options[] = {
	{.name = "name",
	 .type = OPTION_TEXT,
	 .value = "NAME",
	 .help = "Its name in the cluster. Default: the file's."},
	{.name = "kind",
	 .type = OPTION_WORD,
	 .value = "KIND",
	 .words = image_kind_words,
	 .help = "kernel, initrd or disk. Default: what its first bytes look like (an arm64 "
		 "kernel; "
		 "a cpio archive or gzip: initrd; else disk)."},
	{.name = "sha256",
	 .type = OPTION_TEXT,
	 .value = "SUM",
	 .help = "The SHA-256 that the file must have; with another one nothing is sent."},
	{.name = "wait", .type = OPTION_FLAG, .help = "Returns when every board has its copy."},
	{.name = "timeout",
	 .type = OPTION_DURATION,
	 .value = "TIME",
	 .help = "How long to wait for that. Default: 30m."},
	{.name = NULL},
};
#define OPTION_DRY_RUN                                                                             \
	{                                                                                          \
		.name = "dry-run", .type = OPTION_FLAG,                                            \
		.help = "Only says whether it would be done, and if not, why."                     \
	}
#define OPTION_NOW                                                                                 \
	{                                                                                          \
		.name = "now", .type = OPTION_FLAG,                                                \
		.help = "Without asking the guest: as if its power was cut."                       \
	}
#define OPTIONS_WAIT                                                                               \
	{.name = "wait", .type = OPTION_FLAG, .help = "Returns when it is so."},                   \
	{                                                                                          \
		.name = "timeout", .type = OPTION_DURATION, .value = "TIME",                       \
		.help = "How long to wait for that. Default: 2m."                                  \
	}
#define OPTIONS_VM                                                                                 \
	{.name = "file",                                                                           \
	 .letter = 'f',                                                                            \
	 .type = OPTION_FILE,                                                                      \
	 .value = "FILE",                                                                          \
	 .help = "The VM as JSON, as \"vm show -o json\" prints it; - is the standard input.",     \
	 .complete = COMPLETE_FILE},                                                               \
		{.name = "kernel",                                                                 \
		 .type = OPTION_TEXT,                                                              \
		 .value = "IMAGE",                                                                 \
		 .help = "The kernel that it boots, by name or SHA-256.",                          \
		 .complete = COMPLETE_IMAGE},                                                      \
		{.name = "initrd",                                                                 \
		 .type = OPTION_TEXT,                                                              \
		 .value = "IMAGE",                                                                 \
		 .help = "Its initrd.",                                                            \
		 .complete = COMPLETE_IMAGE},                                                      \
		{.name = "command-line",                                                           \
		 .type = OPTION_TEXT,                                                              \
		 .value = "TEXT",                                                                  \
		 .help = "The kernel's command line."},                                            \
		{.name = "cpus",                                                                   \
		 .type = OPTION_NUMBER,                                                            \
		 .value = "N",                                                                     \
		 .help = "Processors, 1 to 8. Default: 1."},                                       \
		{.name = "memory",                                                                 \
		 .type = OPTION_TEXT,                                                              \
		 .value = "SIZE",                                                                  \
		 .help = "256M, 2G. Default: 128M."},                                              \
		{.name = "disk",                                                                   \
		 .type = OPTION_TEXT,                                                              \
		 .repeat = true,                                                                   \
		 .value = "DISK",                                                                  \
		 .help = "image=IMAGE (read-only), overlay=IMAGE[,size=SIZE] (writable; what is "  \
			 "written is gone after a move or a stop) or data=SIZE (stays on its "     \
			 "board, and the VM with it); each may end with ,id=SERIAL. May be given " \
			 "again; none: no disk."},                                                 \
		{.name = "nic",                                                                    \
		 .type = OPTION_TEXT,                                                              \
		 .repeat = true,                                                                   \
		 .value = "BRIDGE",                                                                \
		 .help = "A network card on a bridge of the board, with ,mac=ADDRESS if it must "  \
			 "be that one. May be given again; none: no card."},                       \
		{.name = "restart",                                                                \
		 .type = OPTION_WORD,                                                              \
		 .value = "WHEN",                                                                  \
		 .words = vm_restart_words,                                                        \
		 .help = "When the guest ends by itself: always (default), on-failure (not when "  \
			 "it powers off) or never."},                                              \
		{.name = "restart-attempts",                                                       \
		 .type = OPTION_NUMBER,                                                            \
		 .value = "N",                                                                     \
		 .help = "On one board, before it is moved to another. Default: 3."},              \
		{.name = "restart-backoff",                                                        \
		 .type = OPTION_DURATION,                                                          \
		 .value = "TIME",                                                                  \
		 .help = "Before the first restart; doubles up to five minutes. Default: 1s."},    \
		{.name = "on-loss",                                                                \
		 .type = OPTION_WORD,                                                              \
		 .value = "WHAT",                                                                  \
		 .words = vm_loss_words,                                                           \
		 .help = "When its board is lost: restart on another one (default), or wait."},    \
		{.name = "priority",                                                               \
		 .type = OPTION_NUMBER,                                                            \
		 .value = "N",                                                                     \
		 .help = "0 to 100: the higher ones are placed first. Default: 0."},               \
		{.name = "start-order",                                                            \
		 .type = OPTION_NUMBER,                                                            \
		 .value = "N",                                                                     \
		 .help = "Among those of one priority the lower ones begin first. Default: 0."},   \
		{.name = "prefer",                                                                 \
		 .type = OPTION_TEXT,                                                              \
		 .repeat = true,                                                                   \
		 .value = "BOARD",                                                                 \
		 .help = "A board on which it runs rather than on others. May be given again.",    \
		 .complete = COMPLETE_NODE},                                                       \
		{.name = "require",                                                                \
		 .type = OPTION_TEXT,                                                              \
		 .repeat = true,                                                                   \
		 .value = "BOARD",                                                                 \
		 .help = "It runs on these boards only. May be given again.",                      \
		 .complete = COMPLETE_NODE},                                                       \
		{.name = "apart",                                                                  \
		 .type = OPTION_TEXT,                                                              \
		 .value = "KEY",                                                                   \
		 .help = "VMs with the same value of this label run on different boards."},        \
	{                                                                                          \
		.name = "label", .letter = 'l', .type = OPTION_TEXT, .repeat = true,               \
		.value = "KEY=VALUE", .help = "A label; KEY- takes it away. May be given again."   \
	}
static const struct option_spec vm_create_options[] = {
	OPTIONS_VM,	{.name = "start", .type = OPTION_FLAG, .help = "And has it run."},
	OPTIONS_WAIT,	OPTION_DRY_RUN,
	{.name = NULL},
};
static const struct option_spec vm_set_options[] = {
	OPTIONS_VM,
	{.name = "if-revision",
	 .type = OPTION_NUMBER,
	 .value = "N",
	 .help = "Only if it is still at this revision."},
	OPTION_DRY_RUN,
	{.name = NULL},
};
static const struct option_spec vm_start_options[] = {
	OPTIONS_WAIT,
	OPTION_DRY_RUN,
	{.name = NULL},
};
static const struct option_spec vm_stop_options[] = {
	OPTION_NOW,
	OPTIONS_WAIT,
	{.name = NULL},
};
static const struct option_spec vm_move_options[] = {
	OPTION_YES,
	{.name = "force",
	 .type = OPTION_FLAG,
	 .help = "Leaves its data disks behind: what is on them is lost to it."},
	OPTIONS_WAIT,
	OPTION_DRY_RUN,
	{.name = NULL},
};
static const char *const image_push_examples[] = {
	EXAMPLE("witnessctl image push Image --name linux-6.1", "An arm64 kernel"),
	EXAMPLE("witnessctl image push debian.raw --name debian-12 --wait", ""),
	NULL,
};
static const char *const vm_create_examples[] = {
	EXAMPLE("witnessctl vm create web --kernel linux-6.1 --disk overlay=debian-12 --nic br0 "
		"--memory 512M --command-line \"console=hvc0 root=/dev/vda\" --start --wait",
		"A VM that any board can run"),
	EXAMPLE("witnessctl vm create db --file db.json --dry-run", "Would it be taken?"),
	NULL,
};
static const char *const vm_set_examples[] = {
	EXAMPLE("witnessctl vm set web --memory 1G --priority 50", ""),
	EXAMPLE("witnessctl vm set web --prefer board-2 -l tier=front --apart tier", ""),
	NULL,
};
static const char *const vm_move_examples[] = {
	EXAMPLE("witnessctl vm move web", "To another board, whichever is best"),
	EXAMPLE("witnessctl vm move web board-3 --wait", ""),
	NULL,
};
static const struct option_spec vm_logs_options[] = {
	{.name = "follow",
	 .letter = 'f',
	 .type = OPTION_FLAG,
	 .help = "Goes on with what it prints, until interrupted."},
	{0},
};
static const char *const vm_console_examples[] = {
	"witnessctl vm console web\0The console of the VM web on this terminal",
	"echo poweroff | witnessctl vm console web\0Types a line at it, and shows what comes of it",
	NULL,
};
static const char *const vm_logs_examples[] = {
	"witnessctl vm logs web\0The last 64 KiB that its guest printed",
	NULL,
};

static const struct option_spec event_options[] = {
	{.name = "watch",
	 .letter = 'w',
	 .type = OPTION_FLAG,
	 .help = "Prints events as they happen, until interrupted."},
	{.name = "after",
	 .type = OPTION_NUMBER,
	 .value = "SEQ",
	 .help = "Only events behind this one."},
	{.name = "limit",
	 .letter = 'n',
	 .type = OPTION_NUMBER,
	 .value = "N",
	 .help = "At most so many, the newest. Default: 50; at most 1000."},
	{.name = NULL},
};
static const struct option_spec cert_options[] = {
	{.name = "role",
	 .letter = 'r',
	 .type = OPTION_WORD,
	 .value = "ROLE",
	 .words = client_role_words,
	 .help = "viewer, operator or admin."},
	{.name = "ttl",
	 .type = OPTION_DURATION,
	 .value = "TIME",
	 .help = "Its life. Default: the cluster's, 90d."},
	{.name = "csr",
	 .type = OPTION_FILE,
	 .value = "FILE",
	 .help = "A request (PEM) of your own. Default: a key is made here and stays here.",
	 .complete = COMPLETE_FILE},
	{.name = "out",
	 .type = OPTION_FILE,
	 .value = "DIR",
	 .help = "Where to write the files. Default: here.",
	 .complete = COMPLETE_FILE},
	{.name = NULL},
};

static const struct option_spec drain_options[] = {
	{.name = "now",
	 .type = OPTION_FLAG,
	 .help = "Also sends away nodes whose site needs the vote at this moment: they lose the "
		 "quorum until they are attached elsewhere."},
	{.name = "no-wait", .type = OPTION_FLAG, .help = "Returns when the drain has begun."},
	{.name = "timeout",
	 .type = OPTION_DURATION,
	 .value = "TIME",
	 .help = "How long to wait until the board has no site node left. Default: 10m."},
	{.name = NULL},
};

static const struct option_spec node_set_options[] = {
	{.name = "zone",
	 .type = OPTION_TEXT,
	 .value = "ZONE",
	 .help = "Its failure domain: a building, a provider. \"\" takes it away."},
	{.name = NULL},
};
static const struct option_spec address_options[] = {
	{.name = "interface",
	 .type = OPTION_TEXT,
	 .value = "NAME",
	 .help = "The boards' interface, the same name on each (ip link)."},
	{.name = "board",
	 .type = OPTION_TEXT,
	 .repeat = true,
	 .value = "NAME",
	 .help = "Only this board may have it (repeatable); any if not given.",
	 .complete = COMPLETE_NODE},
	{0},
};

static const char *const address_examples[] = {
	EXAMPLE("witnessctl address add 10.0.0.5/24 --interface eth0",
		"One address for all sites, which does not die with a board"),
	EXAMPLE("witnessctl address add fd00::5/64 --interface eth0 --board board-1 --board "
		"board-2",
		"Only these two boards are in that network"),
	NULL,
};

static const struct option_spec tenant_options[] = {
	{.name = "max-sites",
	 .type = OPTION_NUMBER,
	 .value = "N",
	 .help = "How many sites it may have; 0: any number."},
	{.name = NULL},
};
static const struct option_spec rotate_options[] = {
	OPTION_YES,
	{.name = "finish",
	 .type = OPTION_FLAG,
	 .help = "Stops believing the old CA: what still uses it ends within five seconds. Refused "
		 "while a board, an agent or a client (with --sites: a site) has no certificate of "
		 "the new one."},
	{.name = "sites",
	 .type = OPTION_FLAG,
	 .help = "The CA that corosync-qdevice imports, not that of boards and API clients."},
	{.name = "force",
	 .type = OPTION_FLAG,
	 .help = "With --finish: also when agents and clients (with --sites: sites) have no "
		 "certificate of the new CA. They are not let in then. A board is not left "
		 "behind."},
	{.name = NULL},
};
static const struct option_spec backup_options[] = {
	{.name = "force", .type = OPTION_FLAG, .help = "Replaces a file that is there."},
	{.name = NULL},
};
static const struct option_spec restore_options[] = {
	OPTION_YES,
	{.name = "cluster-name",
	 .type = OPTION_TEXT,
	 .value = "NAME",
	 .help = "Refuses the backup of a cluster of another name."},
	OPTION_NODE_NAME,
	OPTION_ADVERTISE,
	OPTION_QNET_ADDRESS,
	{.name = NULL},
};
static const struct option_spec recover_options[] = {
	{.name = "cluster-name",
	 .type = OPTION_TEXT,
	 .value = "NAME",
	 .help = "The cluster's name, instead of typing it when asked."},
	{.name = "dry-run",
	 .type = OPTION_FLAG,
	 .help = "Only says what would be done and what may be lost."},
	{.name = NULL},
};
static const struct option_spec replace_options[] = {
	{.name = "ttl",
	 .type = OPTION_DURATION,
	 .value = "TIME",
	 .help = "How long the new board may take to join. Default: 1h."},
	{.name = NULL},
};

static const char *const backup_examples[] = {
	EXAMPLE("witnessctl cluster backup /root/tiebreak-$(date +%F).backup", "Once a day, say"),
	NULL,
};
static const char *const drain_examples[] = {
	EXAMPLE("witnessctl node drain board-2", "Before its power is turned off"),
	EXAMPLE("witnessctl node undrain board-2", "When it is back"),
	NULL,
};
static const char *const init_examples[] = {
	EXAMPLE("witnessctl cluster init --name berlin", "On the first board"),
	NULL,
};
static const char *const join_examples[] = {
	EXAMPLE("witnessctl cluster join 192.0.2.11 --token tb1.0123...", "On the second board"),
	NULL,
};
static const char *const status_examples[] = {
	EXAMPLE("witnessctl status", ""),
	EXAMPLE("witnessctl status --wait ok --nodes 3 --timeout 2m",
		"In a script: go on when all three boards are there"),
	NULL,
};
static const char *const token_examples[] = {
	EXAMPLE("witnessctl token create --role node", "For one more board, within the hour"),
	EXAMPLE("witnessctl token create --role viewer --ttl 90d --name prometheus -o name",
		"For a program; -o name prints the token and nothing else"),
	NULL,
};
static const char *const import_examples[] = {
	EXAMPLE("witnessctl site import sites.csv --dry-run", "Look first"),
	EXAMPLE("witnessctl site import sites.csv", ""),
	EXAMPLE("witnessctl site export --out sites.csv && $EDITOR sites.csv && witnessctl site "
		"import "
		"sites.csv",
		"Change many at once"),
	NULL,
};
static const char *const create_examples[] = {
	EXAMPLE("witnessctl site create store-0815 -l region=emea --tls required", ""),
	NULL,
};
static const char *const list_examples[] = {
	EXAMPLE("witnessctl site list --state split", "What is broken?"),
	EXAMPLE("witnessctl site list -l region=emea -o wide", ""),
	EXAMPLE("witnessctl site list --watch", ""),
	NULL,
};
static const char *const set_examples[] = {
	EXAMPLE("witnessctl site set store-0815 --tls required -l region=apac -l old-", ""),
	EXAMPLE("witnessctl site list -l region=emea -o name | xargs witnessctl site set "
		"--handover "
		"fast",
		""),
	NULL,
};
static const char *const enroll_examples[] = {
	EXAMPLE("witnessctl site enroll store-0815",
		"Makes key and certificate; prints what to do next"),
	EXAMPLE("witnessctl site enroll store-0815 --csr qdevice-net-node.crq",
		"The key stays on the node"),
	EXAMPLE("witnessctl site enroll store-0815 --agent", "For nodes without corosync"),
	NULL,
};
static const char *const event_examples[] = {
	EXAMPLE("witnessctl event list -n 200", ""),
	EXAMPLE("witnessctl event list --watch -o json", "For a program: one JSON object a line"),
	NULL,
};
static const char *const cert_examples[] = {
	EXAMPLE("witnessctl cert create ansible --role operator --out ~/.config/tiebreak", ""),
	NULL,
};
static const char *const completion_examples[] = {
	EXAMPLE("witnessctl completion bash > /etc/bash_completion.d/witnessctl", ""),
	NULL,
};

const struct command_group command_groups[] = {
	{"cluster", "The cluster"},
	{"node", "Its boards"},
	{"site", "The sites"},
	{"tenant", "Whose sites are whose"},
	{"image", "What virtual machines are made of"},
	{"vm", "Virtual machines"},
	{"address", "Service addresses, which move between the boards"},
	{"event", "What happened"},
	{"token", "Tokens"},
	{"cert", "Certificates"},
	{"", "More"},
	{NULL, NULL},
};

static const char status_description[] =
	"Prints the cluster's state, its leader, its boards, and how many sites are in which "
	"state. "
	"ok: every board is reachable. degraded: some are away, but the cluster decides. "
	"no-quorum: too "
	"many are away; the cluster cannot decide, the exit code is 5.\n\n"
	"With --wait or --nodes it first waits, also for a board that does not answer yet.";

static const char list_description[] = "States: whole (all attached nodes are in one ring and have "
				       "the vote), degraded (fewer nodes "
				       "attached than configured; the vote is given), split (nodes "
				       "in more than one ring; one side has "
				       "the vote), undecided (nodes attached, no vote given), "
				       "offline (no node attached), unknown (no "
				       "leader has looked yet).";

const struct command commands[] = {
	{.path = "cluster init",
	 .args = "",
	 .local = true,
	 .summary = "Makes a cluster of this one board",
	 .description =
		 "Makes the cluster's certificate authority and everything else it needs. The "
		 "board serves at once; further boards join later. Works only on the board "
		 "itself, as root, and only if it is in no cluster.",
	 .options = init_options,
	 .examples = init_examples,
	 .run = run_cluster_init},
	{.path = "cluster join",
	 .args = "ADDRESS",
	 .min_args = 1,
	 .max_args = 1,
	 .local = true,
	 .summary = "Makes this board a member of a cluster",
	 .description =
		 "ADDRESS is any board of the cluster (port 7443 if none is given). The token says "
		 "which cluster that must be, so nobody in between can take its place. The key is "
		 "made here and never leaves the board. The board at ADDRESS must reach this one "
		 "at the address of --advertise. It returns when this one has all data and "
		 "votes, or with the reason why not. Works only on the board itself, as root.",
	 .options = join_options,
	 .examples = join_examples,
	 .run = run_cluster_join},
	{.path = "cluster status",
	 .args = "",
	 .summary = "Shows how the cluster is",
	 .description = status_description,
	 .options = status_options,
	 .examples = status_examples,
	 .run = run_cluster_status},
	{.path = "cluster remove",
	 .args = "NODE",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_NODE,
	 .summary = "Removes a board, dead or alive",
	 .description =
		 "NODE is its name or id. Its certificate is revoked and its vote is gone. The "
		 "sites attached to it move to the other boards by themselves.",
	 .options = yes_options,
	 .run = run_cluster_remove},
	{.path = "cluster transfer",
	 .args = "[NODE]",
	 .max_args = 1,
	 .complete = COMPLETE_NODE,
	 .summary = "Makes another board the leader",
	 .description =
		 "Before maintenance, say. Without NODE the cluster chooses. No site notices.",
	 .run = run_cluster_transfer},
	{.path = "cluster set",
	 .args = "",
	 .summary = "Changes a setting of the cluster",
	 .description = "",
	 .options = set_cluster_options,
	 .run = run_cluster_set},
	{.path = "cluster rotate-ca",
	 .args = "",
	 .summary =
		 "Makes a new CA for boards and API clients, or for sites, without an interruption",
	 .description =
		 "First every board learns to believe the new CA, then it signs and the boards "
		 "renew their certificates; all this goes on by itself, \"status\" tells how far "
		 "it is. The old CA is believed until --finish: until then, renew client "
		 "certificates (witnessctl cert renew) and make tokens anew, for both are bound "
		 "to it.\n"
		 "The CA that corosync-qdevice imports is another one: with --sites, a new one "
		 "signs at once, and nodes that know only the old one go on. Enrol each site "
		 "(witnessctl site enroll) and import what it writes; \"cert list\" shows who "
		 "has a certificate of the old CA still.",
	 .options = rotate_options,
	 .run = run_cluster_rotate_ca},
	{.path = "cluster backup",
	 .args = "FILE",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_FILE,
	 .local = true,
	 .summary = "Writes everything that the cluster knows into a file",
	 .description =
		 "Sites, tokens, certificates, events, who has which vote, and the keys of the "
		 "cluster's certificate authorities; as they are at one moment, whatever is "
		 "written "
		 "meanwhile. Any board can do it, also without a majority. Works only on the board "
		 "itself, as root, since the keys are in the file.",
	 .options = backup_options,
	 .examples = backup_examples,
	 .run = run_cluster_backup},
	{.path = "cluster restore",
	 .args = "FILE",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_FILE,
	 .local = true,
	 .summary = "Makes a cluster of this one board from a backup",
	 .description =
		 "For the day when all boards are gone. The sites, their certificates and the "
		 "tokens are those of the backup, so no site needs a change if a board has an "
		 "address of before. It is a new history: its epochs are higher than any of "
		 "before, the old boards' certificates are revoked, and no vote is given until "
		 "none of before can be held any more (some 24 s). Works only on the board "
		 "itself, as root, and only if it is in no cluster.",
	 .options = restore_options,
	 .run = run_cluster_restore},
	{.path = "cluster recover",
	 .args = "",
	 .local = true,
	 .summary = "Goes on with this one board after the majority is lost for good",
	 .description =
		 "For the day when more than half of the boards will never come back. Says what "
		 "may be lost and asks for the cluster's name. This board then makes a new "
		 "history of what it has, alone; its state of before stays in its data directory "
		 "as a backup. The other boards, should they come back, are not part of it. "
		 "Refused while the cluster has a leader. Run it on the board with the longest "
		 "log: --dry-run tells how far each one's goes.",
	 .options = recover_options,
	 .run = run_cluster_recover},
	{.path = "node list",
	 .args = "",
	 .summary = "Lists the boards",
	 .description = "",
	 .run = run_node_list},
	{.path = "node show",
	 .args = "NODE",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_NODE,
	 .summary = "Shows one board",
	 .description =
		 "NODE is its name or id. Ends with the board itself, as it says: model, "
		 "processor, "
		 "memory, storage, network, temperature, watchdog, and whether it can host virtual "
		 "machines.",
	 .run = run_node_show},
	{.path = "node set",
	 .args = "NODE",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_NODE,
	 .summary = "Says in which failure domain a board is",
	 .description =
		 "A site with the label zone=ZONE whose nodes are attached to a board of the same "
		 "zone raises an alarm: what ends the one may end the other.",
	 .options = node_set_options,
	 .run = run_node_set},
	{.path = "node drain",
	 .args = "NODE",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_NODE,
	 .summary = "Hands a board's sites and the leadership to the other boards",
	 .description =
		 "For maintenance. The board takes no new site nodes, and those it has are sent "
		 "away a few at a time, one node of a site after the other, as long as all nodes "
		 "of the site see each other and so are quorate without a witness. A site that "
		 "needs the vote at this moment (a node is down, or it is split) is left alone "
		 "until it is whole; --now does not wait for that. The board goes on voting in "
		 "the cluster and stays drained, also over a restart, until \"node undrain\".",
	 .options = drain_options,
	 .examples = drain_examples,
	 .run = run_node_drain},
	{.path = "node undrain",
	 .args = "NODE",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_NODE,
	 .summary = "Lets a drained board serve sites again",
	 .description = "Site nodes that left it stay where they are until they connect anew.",
	 .run = run_node_undrain},
	{.path = "node replace",
	 .args = "NODE",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_NODE,
	 .summary = "Lets a new board take the place of a dead one",
	 .description =
		 "Prints a token, once, and what to run with it on the new board. When that joins, "
		 "it gets the name of the dead board, whose certificates and vote end in the same "
		 "moment. Give it the dead board's address as well, and no site needs a change. "
		 "Refused while the board is alive, or fewer than a majority of the others is.",
	 .options = replace_options,
	 .run = run_node_replace},
	{.path = "token create",
	 .args = "",
	 .summary = "Makes a token",
	 .description =
		 "The token is printed on the standard output, once; the cluster keeps only a "
		 "hash of it. It carries the fingerprint of the cluster's CA, so whoever holds "
		 "it also knows whom to believe.",
	 .options = token_options,
	 .examples = token_examples,
	 .run = run_token_create},
	{.path = "token list",
	 .args = "",
	 .summary = "Lists the tokens, without their secrets",
	 .description = "",
	 .run = run_token_list},
	{.path = "token revoke",
	 .args = "ID...",
	 .min_args = 1,
	 .max_args = 10000,
	 .complete = COMPLETE_TOKEN,
	 .summary = "Makes tokens worthless at once",
	 .description =
		 "ID is the 16 digits that \"token list\" shows: the second part of the token.",
	 .run = run_token_revoke},
	{.path = "site import",
	 .args = "FILE",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_FILE,
	 .summary = "Creates and changes sites from a file",
	 .description =
		 "FILE is CSV or JSON; \"-\" is the standard input. The whole file is read and "
		 "checked "
		 "before anything is written: one bad row stops it, with file, line and column. "
		 "Then "
		 "each site of the file is created, or replaced by what the file says, or left "
		 "alone "
		 "if it is so already. Other sites are not touched. It is written in batches of "
		 "256, "
		 "each all or nothing; if it is broken off, run it again.\n\n"
		 "CSV (RFC 4180): the first line names the columns, in any order: name, algorithm, "
		 "tie-breaker, keep-active-partition, tls, handover, heartbeat-min, heartbeat-max, "
		 "lease and "
		 "label.KEY for each label. JSON paths such as policy.algorithm are names, too. An "
		 "empty field is the default, or no label; \"\" is an empty label.\n\n"
		 "    name,algorithm,tls,label.region\n"
		 "    store-0815,ffsplit,required,emea\n"
		 "    store-0816,,,apac\n\n"
		 "JSON: {\"sites\":[..]}, or an array, or one object a line, each object as the "
		 "API has "
		 "it: {\"name\":\"store-0815\",\"labels\":{\"region\":\"emea\"},\"policy\":"
		 "{\"algorithm\":\"ffsplit\"}}. What \"site list -o json\" and \"site export\" "
		 "print "
		 "can be read back.",
	 .options = import_options,
	 .examples = import_examples,
	 .run = run_site_import},
	{.path = "site create",
	 .args = "NAME",
	 .min_args = 1,
	 .max_args = 1,
	 .summary = "Creates one site",
	 .description =
		 "NAME is the corosync cluster's name (totem.cluster_name): letters, digits, "
		 "dots, dashes and underscores, at most 64. Everything else has a good default.",
	 .options = create_options,
	 .examples = create_examples,
	 .run = run_site_create},
	{.path = "site list",
	 .args = "",
	 .summary = "Lists sites and their states",
	 .description = list_description,
	 .options = list_options,
	 .examples = list_examples,
	 .run = run_site_list},
	{.path = "site show",
	 .args = "NAME",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_SITE,
	 .summary = "Shows one site: its policy, its nodes, who has the vote and why",
	 .description = "",
	 .run = run_site_show},
	{.path = "site set",
	 .args = "NAME...",
	 .min_args = 1,
	 .max_args = 10000,
	 .complete = COMPLETE_SITE,
	 .summary = "Changes sites",
	 .description =
		 "Only what is given changes. Several sites are changed one after the other; "
		 "it stops at the first that is refused.",
	 .options = set_options,
	 .examples = set_examples,
	 .run = run_site_set},
	{.path = "site delete",
	 .args = "NAME...",
	 .min_args = 1,
	 .max_args = 10000,
	 .complete = COMPLETE_SITE,
	 .summary = "Deletes sites",
	 .description =
		 "Nodes that are attached are sent away; a site whose nodes see each other "
		 "stays quorate without a witness. Several are deleted one after the other; it "
		 "stops at the first that is refused.",
	 .run = run_site_delete},
	{.path = "site export",
	 .args = "",
	 .summary = "Prints sites as \"site import\" reads them",
	 .description = "Importing it again changes nothing.",
	 .options = export_options,
	 .run = run_site_export},
	{.path = "site enroll",
	 .args = "NAME",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_SITE,
	 .summary = "Makes what the site's nodes need to attach with TLS",
	 .description =
		 "Writes qnetd-cacert.crt, cluster-NAME.crt, qdevice-net-node.p12 (certificate "
		 "and key, no password; not with --csr) and corosync.conf.fragment, and prints "
		 "the commands to run next.",
	 .options = enroll_options,
	 .examples = enroll_examples,
	 .run = run_site_enroll},
	{.path = "tenant list",
	 .args = "",
	 .summary = "Lists the tenants, their sites and quotas",
	 .description = "A tenant is a value of the label \"tenant\" of sites.",
	 .run = run_tenant_list},
	{.path = "tenant set",
	 .args = "NAME",
	 .min_args = 1,
	 .max_args = 1,
	 .summary = "Limits how many sites a tenant may have",
	 .description =
		 "Counted are the sites with the label tenant=NAME, whoever makes them. A tenant "
		 "that has more already keeps them, but gets no new ones. What a tenant's own "
		 "people use is a token with \"token create --tenant NAME\".",
	 .options = tenant_options,
	 .run = run_tenant_set},
	{.path = "image push",
	 .args = "FILE",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_FILE,
	 .summary = "Gives the cluster a kernel, an initrd or a disk",
	 .description =
		 "Bytes that are there already are not sent again, and an upload that was "
		 "interrupted goes on where it was. The board that is asked takes the image and "
		 "checks it; the boards that run VMs copy it from each other. Disks are raw, not "
		 "qcow2.",
	 .options = image_push_options,
	 .examples = image_push_examples,
	 .run = run_image_push},
	{.path = "image list",
	 .args = "",
	 .summary = "Lists the images",
	 .description = "On which boards they are, and which VMs use them.",
	 .run = run_image_list},
	{.path = "image show",
	 .args = "IMAGE",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_IMAGE,
	 .summary = "Shows one image and each of its copies",
	 .description = "IMAGE is its name or SHA-256. A copy that is damaged is replaced by "
			"itself, from a board that has a good one.",
	 .run = run_image_show},
	{.path = "image rm",
	 .args = "IMAGE...",
	 .min_args = 1,
	 .max_args = 10000,
	 .complete = COMPLETE_IMAGE,
	 .summary = "Removes images that no VM uses, from all boards",
	 .description = "",
	 .run = run_image_rm},
	{.path = "vm create",
	 .args = "[NAME]",
	 .max_args = 1,
	 .summary = "Makes a virtual machine",
	 .description =
		 "From options, from a file, or from a file with options over it. It is refused if "
		 "no board is as large, or has its bridges; \"cluster set --keep-room on\" also "
		 "refuses what could not be restarted when a board is lost. It is stopped at "
		 "first; --start has it run.",
	 .options = vm_create_options,
	 .examples = vm_create_examples,
	 .run = run_vm_create},
	{.path = "vm list",
	 .args = "",
	 .summary = "Lists the virtual machines",
	 .description =
		 "States: stopped, unplaced (no board can take it now; the reason says why), "
		 "preparing, starting, running, stopping, released (gone from its board), "
		 "backing-off (it failed; its board tries again), failed (its board has given up), "
		 "ended (its guest powered off), unknown (no leader, or its board has not said "
		 "yet).",
	 .run = run_vm_list},
	{.path = "vm show",
	 .args = "NAME",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_VM,
	 .summary = "Shows where a virtual machine is, how, and why",
	 .description = "And what of it is gone after a move, and what pins it to a board.",
	 .run = run_vm_show},
	{.path = "vm set",
	 .args = "NAME",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_VM,
	 .summary = "Changes what a virtual machine is, from its next start on",
	 .description =
		 "What is not given stays as it is. A list (disks, cards, boards) that is given "
		 "takes the place of the whole list. --file replaces all of it. One that is on a "
		 "board and grows (memory, vCPUs) must fit there, since it may begin anew at any "
		 "time: if the board has not the room, it is refused with what is taken; move or "
		 "stop the virtual machine first.",
	 .options = vm_set_options,
	 .examples = vm_set_examples,
	 .run = run_vm_set},
	{.path = "vm start",
	 .args = "NAME...",
	 .min_args = 1,
	 .max_args = 1000,
	 .complete = COMPLETE_VM,
	 .summary = "Has virtual machines run",
	 .description =
		 "Without a majority of the boards it is refused at once. One that has failed "
		 "is tried again at once. --wait gives up when it has failed on every board.",
	 .options = vm_start_options,
	 .run = run_vm_start},
	{.path = "vm stop",
	 .args = "NAME...",
	 .min_args = 1,
	 .max_args = 1000,
	 .complete = COMPLETE_VM,
	 .summary = "Shuts virtual machines down",
	 .description = "The guest gets its power button, and half a minute.",
	 .options = vm_stop_options,
	 .run = run_vm_stop},
	{.path = "vm restart",
	 .args = "NAME...",
	 .min_args = 1,
	 .max_args = 1000,
	 .complete = COMPLETE_VM,
	 .summary = "Stops virtual machines and starts them anew",
	 .description = "So that what was set comes into effect.",
	 .options = vm_stop_options,
	 .run = run_vm_restart},
	{.path = "vm move",
	 .args = "NAME [BOARD]",
	 .min_args = 1,
	 .max_args = 2,
	 .complete = COMPLETE_VM,
	 .summary = "Stops a virtual machine and starts it on another board",
	 .description = "Without BOARD the cluster chooses. A VM that runs stays where it is if no "
			"board can "
			"take it at once. What was written to an overlay is gone after a move. "
			"A VM whose data disks are made does not move without --force.",
	 .options = vm_move_options,
	 .examples = vm_move_examples,
	 .run = run_vm_move},
	{.path = "vm delete",
	 .args = "NAME...",
	 .min_args = 1,
	 .max_args = 1000,
	 .complete = COMPLETE_VM,
	 .summary = "Deletes virtual machines that are stopped",
	 .description = "Asks first if one has data disks.",
	 .options = yes_options,
	 .run = run_vm_delete},
	{.path = "vm console",
	 .args = "NAME",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_VM,
	 .summary = "Puts the console of a VM on this terminal",
	 .description =
		 "It begins with the last of what the guest has printed, on whichever board it "
		 "runs. Ctrl-A x leaves it (the VM goes on), Ctrl-A a sends Ctrl-A, Ctrl-A h lists "
		 "these. Input that is no terminal is typed as it is; the console goes on behind "
		 "its end, until interrupted.",
	 .examples = vm_console_examples,
	 .run = run_vm_console},
	{.path = "vm logs",
	 .args = "NAME",
	 .min_args = 1,
	 .max_args = 1,
	 .complete = COMPLETE_VM,
	 .summary = "Shows what the guest of a VM printed",
	 .description =
		 "The board on which it runs keeps the last 64 KiB of its console, also across "
		 "its restarts there.",
	 .options = vm_logs_options,
	 .examples = vm_logs_examples,
	 .run = run_vm_logs},
	{.path = "address add",
	 .args = "ADDRESS/LENGTH",
	 .min_args = 1,
	 .max_args = 1,
	 .summary = "Adds a service address: one that moves between the boards",
	 .description =
		 "One live board has it at a time; when that board dies, is drained or is stopped, "
		 "another takes it and its clients are made to come back at once. Several are "
		 "spread evenly. It must be an address that no machine has, of the network at the "
		 "interface. Given again, it changes the interface, the length and the boards.",
	 .options = address_options,
	 .examples = address_examples,
	 .run = run_address_add},
	{.path = "address list",
	 .args = "",
	 .summary = "Lists the service addresses and who has them",
	 .description =
		 "States: held; taking (a board is on it); leaving (its board was told to let it "
		 "go); waiting (a board that is away may still have it, until its lease is over); "
		 "nobody (no board can have it); taken (another machine has it).",
	 .run = run_address_list},
	{.path = "address remove",
	 .args = "ADDRESS...",
	 .min_args = 1,
	 .max_args = 64,
	 .complete = COMPLETE_ADDRESS,
	 .summary = "Takes service addresses out of the pool",
	 .description = "The sessions at them end.",
	 .run = run_address_remove},
	{.path = "event list",
	 .args = "",
	 .summary = "Shows who did what, when and why",
	 .description =
		 "The cluster keeps the newest 10,000 events. With --watch it goes on where it "
		 "was when the connection or a board is lost.",
	 .options = event_options,
	 .examples = event_examples,
	 .run = run_event_list},
	{.path = "cert create",
	 .args = "NAME",
	 .min_args = 1,
	 .max_args = 1,
	 .summary = "Makes a client certificate for the API",
	 .description = "Writes NAME.key, NAME.crt and ca.crt, for --key, --cert and --ca.",
	 .options = cert_options,
	 .examples = cert_examples,
	 .run = run_cert_create},
	{.path = "cert list",
	 .args = "",
	 .summary = "Lists the certificates that the cluster has signed",
	 .description =
		 "Kinds: node (a board), client (the API), site (corosync-qdevice), agent. State "
		 "\"old CA\": to be made anew before \"cluster rotate-ca --sites --finish\".",
	 .run = run_cert_list},
	{.path = "cert renew",
	 .args = "",
	 .summary = "Renews the client certificate that is given with --cert",
	 .description =
		 "The file is replaced by a certificate of the same name and role for the same key "
		 "(--key), valid as long as the old one was made for. With --server. It also "
		 "happens by itself, whenever witnessctl is used with a certificate of which "
		 "two thirds of the life are over and whose file it may write.",
	 .run = run_cert_renew},
	{.path = "cert revoke",
	 .args = "SERIAL...",
	 .min_args = 1,
	 .max_args = 10000,
	 .summary = "Shuts out whoever uses these certificates",
	 .description = "",
	 .options = yes_options,
	 .run = run_cert_revoke},
	{.path = "status",
	 .args = "",
	 .summary = "Shows how the cluster is (as cluster status)",
	 .description = status_description,
	 .options = status_options,
	 .examples = status_examples,
	 .run = run_cluster_status},
	{.path = "help",
	 .args = "[COMMAND]",
	 .max_args = 2,
	 .summary = "Explains a command",
	 .description = "",
	 .run = run_help},
	{.path = "completion",
	 .args = "bash",
	 .min_args = 1,
	 .max_args = 1,
	 .summary = "Prints the shell's completion script",
	 .description = "Completes commands, options, and the names of sites, boards and tokens.",
	 .examples = completion_examples,
	 .run = run_completion},
	{.path = "__complete",
	 .args = "",
	 .max_args = 10000,
	 .summary = "Candidates for the last of the words",
	 .description = "",
	 .run = run_complete},
	{.path = "__man",
	 .args = "",
	 .summary = "The manual page",
	 .description = "",
	 .run = run_manual},
	{.path = NULL},
};
