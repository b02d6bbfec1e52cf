#include "witnessd/door_metrics.h"

#include <stdio.h>

#include "witnessd/metrics.h"
#include "witnessd/qnet_door.h"

static void counter(struct buf *out, bool open, const char *name, const char *help, uint64_t value)
{
	metrics_head(out, open, METRIC_COUNTER, name, help);
	metrics_sample(out, open, METRIC_COUNTER, name, "", (double)value);
}

void door_metrics_write(void *door, bool open, struct buf *out)
{
	struct qnet_door_stats s;

	qnet_door_stats(door, &s);
	metrics_head(out, open, METRIC_GAUGE, "tiebreak_sessions",
		     "Connections of site nodes to this board, by state.");
	for (int state = 0; state < QNET_CLOSED; state++) {
		char label[48];

		snprintf(label, sizeof(label), "state=\"%s\"", qnet_state_name(state));
		metrics_sample(out, open, METRIC_GAUGE, "tiebreak_sessions", label,
			       (double)s.sessions[state]);
	}
	counter(out, open, "tiebreak_sites_accepted", "Connections of site nodes accepted.",
		s.accepted);
	counter(out, open, "tiebreak_sites_refused",
		"Connections closed at once because there were too many.", s.refused_limit);
	metrics_head(out, open, METRIC_GAUGE, "tiebreak_sites_waiting",
		     "Connections of site nodes that wait to be let in.");
	metrics_sample(out, open, METRIC_GAUGE, "tiebreak_sites_waiting", "", (double)s.waiting);
	counter(out, open, "tiebreak_sites_sent_away",
		"Connections closed since they would have waited longer than a client does.",
		s.sent_away);
	counter(out, open, "tiebreak_sites_echoes", "Heartbeats answered.", s.echoes);
	counter(out, open, "tiebreak_sites_silent", "Sessions ended for their silence.", s.silent);
	counter(out, open, "tiebreak_sites_resumed", "TLS sessions resumed with a ticket.",
		s.resumed);
	counter(out, open, "tiebreak_sites_certificates_refused",
		"Sessions refused for their certificate.", s.certificate_refused);
	counter(out, open, "tiebreak_leases_lost",
		"Times that all sessions were ended for the lack of a lease.", s.leases_lost);
}
