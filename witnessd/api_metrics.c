/* api_metrics.c: the numbers of this board for Prometheus. The registry has what is counted; what
 * the core and the leader know is asked for at each scrape. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lib/clock.h"
#include "witnessd/api_call.h"

static void gauge(struct buf *out, bool open, const char *name, const char *help, double value)
{
	metrics_head(out, open, METRIC_GAUGE, name, help);
	metrics_sample(out, open, METRIC_GAUGE, name, "", value);
}

static void state_write(const struct core_view *view, bool open, struct buf *out)
{
	static const char *const words[] = {
		[CORE_NEW] = "new",
		[CORE_STARTING] = "starting",
		[CORE_JOINING] = "joining",
		[CORE_SERVING] = "serving",
		[CORE_NO_QUORUM] = "no-quorum",
		[CORE_FAILED] = "failed",
	};
	int state = view->state;

	metrics_head(out, open, METRIC_GAUGE, "tiebreak_state",
		     "State of this board (1: this one).");
	for (int i = CORE_NEW; i <= CORE_FAILED; i++) {
		char label[32] = "state=\"";

		strcat(strcat(label, words[i]), "\"");
		metrics_sample(out, open, METRIC_GAUGE, "tiebreak_state", label, state == i);
	}
}

static void board_write(const struct core_view *view, bool open, struct buf *out)
{
	uint64_t until_ms = view->lease_until_ms;
	uint64_t now_ms = clock_boottime_ms();

	metrics_head(out, open, METRIC_GAUGE, "tiebreak_build_info", "Version of the daemon.");
	metrics_sample(out, open, METRIC_GAUGE, "tiebreak_build_info",
		       "version=\"" TIEBREAK_VERSION "\"", 1);
	state_write(view, open, out);
	gauge(out, open, "tiebreak_raft_term", "Newest raft term.", (double)view->term);
	gauge(out, open, "tiebreak_raft_applied_index", "Last log entry in this board's model.",
	      (double)view->applied_index);
	gauge(out, open, "tiebreak_raft_leader", "1 if this board leads.",
	      view->node_id != 0 && view->leader_id == view->node_id);
	gauge(out, open, "tiebreak_lease_remaining_seconds", "Until the lease ends; 0: none.",
	      until_ms > now_ms ? (double)(until_ms - now_ms) / 1000 : 0);
}

static void sites_write(const Tb__ClusterStatus *c, bool open, struct buf *out)
{
	const struct {
		const char *label;
		uint32_t count;
	} states[] = {
		{"state=\"whole\"", c->sites_whole},
		{"state=\"degraded\"", c->sites_degraded},
		{"state=\"split\"", c->sites_split},
		{"state=\"offline\"", c->sites_offline},
		{"state=\"undecided\"", c->sites_undecided},
	};

	metrics_head(out, open, METRIC_GAUGE, "tiebreak_sites",
		     "Sites by state, as the leader sees them.");
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
		metrics_sample(out, open, METRIC_GAUGE, "tiebreak_sites", states[i].label,
			       states[i].count);
	gauge(out, open, "tiebreak_cluster_sessions", "Attached site nodes of the whole cluster.",
	      c->sessions);
	gauge(out, open, "tiebreak_cluster_nodes", "Boards of the cluster.", c->nodes);
	gauge(out, open, "tiebreak_cluster_nodes_reachable", "Boards that the leader reaches.",
	      c->nodes_reachable);
}

/* From the model, which is there without a leader too. */
static void alarms_write(struct api *a, bool open, struct buf *out)
{
	struct store *s = api_store(a);
	Tb__Cluster *cluster;

	if (s == NULL || store_cluster_get(s, &cluster) != 0)
		return;
	metrics_head(out, open, METRIC_GAUGE, "tiebreak_alarms",
		     "What would make the witness useless when it is needed, by kind.");
	/* They are sorted by kind. */
	for (size_t i = 0, next; i < cluster->n_alarms; i = next) {
		char label[LIMIT_NAME + 16];

		for (next = i + 1;
		     next < cluster->n_alarms &&
		     strcmp(cluster->alarms[next]->kind, cluster->alarms[i]->kind) == 0;)
			next++;
		snprintf(label, sizeof(label), "kind=\"%s\"", cluster->alarms[i]->kind);
		metrics_sample(out, open, METRIC_GAUGE, "tiebreak_alarms", label,
			       (double)(next - i));
	}
	tb__cluster__free_unpacked(cluster, NULL);
}

static void boards_write(const Tb__PeerAnswer *answer, bool open, struct buf *out)
{
	static const struct {
		const char *name, *help;
	} gauges[] = {
		{"tiebreak_node_clock_skew_seconds",
		 "Of a board's clock against the cluster's time."},
		{"tiebreak_node_round_trip_seconds", "Longest renewal of a lease lately."},
		{"tiebreak_node_log_write_seconds", "Longest write of the log lately."},
		{"tiebreak_node_wear_ratio", "Used life of a board's card, 0 if it does not say."},
	};

	for (size_t g = 0; g < sizeof(gauges) / sizeof(gauges[0]); g++) {
		metrics_head(out, open, METRIC_GAUGE, gauges[g].name, gauges[g].help);
		for (size_t i = 0; i < answer->n_nodes; i++) {
			const Tb__NodeStatus *n = answer->nodes[i]->status;
			const double values[] = {
				(double)n->skew_ms / 1000, (double)n->rtt_ms / 1000,
				(double)n->disk_ms / 1000, (double)n->wear_percent / 100};
			char label[48];

			snprintf(label, sizeof(label), "node=\"%llu\"",
				 (unsigned long long)answer->nodes[i]->node_id);
			metrics_sample(out, open, METRIC_GAUGE, gauges[g].name, label, values[g]);
		}
	}
}

/* What the boards say of themselves; nothing of those that do not. */
static void strain_write(const Tb__PeerAnswer *answer, bool open, struct buf *out)
{
	static const struct {
		const char *name, *help;
	} gauges[] = {
		{"tiebreak_node_temperature_celsius", "Of a board's processor."},
		{"tiebreak_node_under_voltage", "1: too little voltage in the last two minutes."},
		{"tiebreak_node_throttled", "1: slowed down in the last two minutes."},
		{"tiebreak_node_can_host", "1: virtual machines can run on the board."},
		{"tiebreak_node_watchdog_armed", "1: the board is reset when witnessd hangs."},
		{"tiebreak_node_memory_bytes", "Of the board."},
	};

	for (size_t g = 0; g < sizeof(gauges) / sizeof(gauges[0]); g++) {
		metrics_head(out, open, METRIC_GAUGE, gauges[g].name, gauges[g].help);
		for (size_t i = 0; i < answer->n_nodes; i++) {
			const Tb__BoardFacts *f = answer->nodes[i]->status->board;
			char label[48];

			if (f == NULL || (g == 0 && !f->temperature_known))
				continue;
			snprintf(label, sizeof(label), "node=\"%llu\"",
				 (unsigned long long)answer->nodes[i]->node_id);
			metrics_sample(out, open, METRIC_GAUGE, gauges[g].name, label,
				       (const double[]){
					       f->temperature,
					       f->under_voltage,
					       f->throttled,
					       f->hosting == TB__HOSTING__HOSTING_YES,
					       f->watchdog != NULL && f->watchdog->armed,
					       (double)f->memory_bytes,
				       }[g]);
		}
	}
}

/* What a board's firmware says is no word of ours. */
static void label_append(struct buf *out, const char *name, const char *value)
{
	buf_printf(out, ",%s=\"", name);
	for (; *value != '\0'; value++) {
		if (*value == '"' || *value == '\\')
			buf_printf(out, "\\");
		buf_printf(out, "%c", *value == '\n' ? ' ' : *value);
	}
	buf_printf(out, "\"");
}

/* What does not change, as labels of a 1: to be joined with the numbers of that board. */
static void info_append(struct buf *out, uint64_t node, const Tb__BoardFacts *f)
{
	struct buf cores = {0};

	for (size_t i = 0; i < f->n_cores; i++)
		buf_printf(&cores, "%s%" PRIu32 " %s", i > 0 ? ", " : "", f->cores[i]->count,
			   f->cores[i]->name);
	buf_printf(out, "node=\"%" PRIu64 "\",gic=\"%" PRIu32 "\"", node, f->gic_version);
	label_append(out, "model", f->model);
	label_append(out, "soc", f->soc);
	label_append(out, "serial", f->serial);
	label_append(out, "kernel", f->kernel);
	label_append(out, "cores", buf_string(&cores));
	label_append(out, "storage", f->storage != NULL ? f->storage->kind : "");
	label_append(out, "hosting", f->hosting_reason);
	buf_free(&cores);
}

static void info_write(const Tb__PeerAnswer *answer, bool open, struct buf *out)
{
	metrics_head(out, open, METRIC_GAUGE, "tiebreak_node_info", "What a board is.");
	for (size_t i = 0; i < answer->n_nodes; i++) {
		const Tb__BoardFacts *f = answer->nodes[i]->status->board;
		struct buf labels = {0};

		if (f == NULL)
			continue;
		info_append(&labels, answer->nodes[i]->node_id, f);
		metrics_sample(out, open, METRIC_GAUGE, "tiebreak_node_info", buf_string(&labels),
			       1);
		buf_free(&labels);
	}
}

static void metrics_answered(struct api_call *call, int error, const Tb__PeerAnswer *answer)
{
	static const char open_type[] =
		"application/openmetrics-text; version=1.0.0; charset=utf-8";
	const struct api_config *config = &call->api->config;
	bool open = call->accept_open_metrics;
	struct buf text = {0};

	board_write(config->backend->view(config->core), open, &text);
	if (error == 0 && answer->cluster != NULL)
		sites_write(answer->cluster, open, &text);
	if (error == 0) {
		boards_write(answer, open, &text);
		strain_write(answer, open, &text);
		info_write(answer, open, &text);
	}
	alarms_write(call->api, open, &text);
	gauge(&text, open, "tiebreak_api_streams", "Open watches of this board.",
	      (double)api_watch_count(call->api->watch));
	metrics_write(config->metrics, open, &text);
	metrics_process(&text, open);
	metrics_end(&text, open);
	api_answer_typed(call, open ? open_type : call->route->content_type, &text);
	buf_free(&text);
}

void api_metrics(struct api_call *call)
{
	Tb__PeerQuery query = TB__PEER_QUERY__INIT;

	query.what_case = TB__PEER_QUERY__WHAT_CLUSTER;
	query.cluster = true;
	api_query(call, &query, metrics_answered);
}
