/* The command line, and what people are told: parsing, numbers, progress, events, qnetd's words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/command.h"
#include "cli/human.h"
#include "cli/progress.h"
#include "cli/qnetd_text.h"
#include "cli/sse.h"
#include "lib/buf.h"
#include "lib/mem.h"

enum { WORDS_MAX = 16 };

/* Splits at blanks and parses; the words stay in `line`. */
static int parse(char *line, struct invocation *inv)
{
	static char *argv[WORDS_MAX + 2];
	int argc = 0, code = -1;

	argv[argc++] = (char *)"witnessctl";
	for (char *word = strtok(line, " "); word != NULL; word = strtok(NULL, " "))
		argv[argc++] = word;
	argv[argc] = NULL;
	return command_parse(argc, argv, inv, &code);
}

static void test_parse(void **state)
{
	static const struct {
		const char *line;
		int rv;
		const char *path, *args, *output;
	} cases[] = {
		{"site list", 0, "site list", "", NULL},
		{"-o json site list", 0, "site list", "", "json"},
		{"site -o json list", 0, "site list", "", "json"},
		{"site list -o json", 0, "site list", "", "json"},
		{"site show a -o wide", 0, "site show", "a", "wide"},
		{"site show -o wide a", 0, "site show", "a", "wide"},
		{"site delete a b -- -c", 0, "site delete", "a b -c", NULL},
		{"site import -", 0, "site import", "-", NULL},
		{"status --output=name", 0, "status", "", "name"},
		{"site", EXIT_USAGE, NULL, NULL, NULL},
		{"site lst", EXIT_USAGE, NULL, NULL, NULL},
		{"sit list", EXIT_USAGE, NULL, NULL, NULL},
		{"site show", EXIT_USAGE, NULL, NULL, NULL},
		{"site show a b", EXIT_USAGE, NULL, NULL, NULL},
		{"site list --nope", EXIT_USAGE, NULL, NULL, NULL},
		{"site list -o xml", EXIT_USAGE, NULL, NULL, NULL},
		{"site list -o json -o json", EXIT_USAGE, NULL, NULL, NULL},
		{"site list --prefix", EXIT_USAGE, NULL, NULL, NULL},
		{"status --timeout 5", EXIT_USAGE, NULL, NULL, NULL},
		{"status --nodes x", EXIT_USAGE, NULL, NULL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct invocation *inv = mem_alloc(sizeof(*inv));
		char *line = mem_strdup(cases[i].line);
		struct buf args = {0};
		int rv = parse(line, inv);

		if (rv != cases[i].rv)
			fail_msg("%s: %d", cases[i].line, rv);
		if (rv == 0) {
			assert_string_equal(inv->command->path, cases[i].path);
			for (size_t k = 0; k < inv->arg_count; k++)
				buf_printf(&args, "%s%s", k > 0 ? " " : "", inv->args[k]);
			assert_string_equal(buf_string(&args), cases[i].args);
			if (cases[i].output == NULL)
				assert_null(option_text(inv, "output"));
			else
				assert_string_equal(option_text(inv, "output"), cases[i].output);
		}
		buf_free(&args);
		free(line);
		free(inv);
	}
}

static void test_repeated_options(void **state)
{
	struct invocation *inv = mem_alloc(sizeof(*inv));
	char line[] = "site list -l a=1 --label b=2 --server x -s y";

	(void)state;
	assert_int_equal(parse(line, inv), 0);
	assert_string_equal(option_nth(inv, "label", 0), "a=1");
	assert_string_equal(option_nth(inv, "label", 1), "b=2");
	assert_null(option_nth(inv, "label", 2));
	assert_string_equal(option_nth(inv, "server", 1), "y");
	free(inv);
}

/* Each command of the table is whole: it can be found, it can be run, its options do not clash. */
static void test_table(void **state)
{
	(void)state;
	for (const struct command *c = commands; c->path != NULL; c++) {
		assert_ptr_equal(command_find(c->path), c);
		assert_non_null(c->run);
		assert_non_null(c->args);
		assert_non_null(c->summary);
		assert_non_null(c->description);
		assert_true(c->min_args <= c->max_args);
		assert_int_equal(c->args[0] == '\0', c->max_args == 0 || c->path[0] == '_');
		for (const struct option_spec *o = c->options; o != NULL && o->name != NULL; o++) {
			assert_non_null(o->help);
			assert_int_equal(o->type == OPTION_FLAG, o->value == NULL);
			assert_int_equal(o->type == OPTION_WORD, o->words != NULL);
			for (const struct option_spec *p = c->options; p != o; p++) {
				assert_string_not_equal(p->name, o->name);
				assert_true(o->letter == 0 || o->letter != p->letter);
			}
		}
	}
}

static void test_human(void **state)
{
	static const struct {
		uint64_t ms;
		const char *text;
	} durations[] = {
		{0, "0 seconds"},
		{1, "1 millisecond"},
		{250, "250 milliseconds"},
		{8000, "8 seconds"},
		{8400, "8 seconds"},
		{8500, "9 seconds"},
		{61000, "1 minute 1 second"},
		{3600000, "1 hour"},
		{3599700, "1 hour"},
		{3605000, "1 hour"},
		{3900000, "1 hour 5 minutes"},
		{90 * 86400000ULL, "90 days"},
		{90 * 86400000ULL - 1500, "90 days"},
		{86400000ULL + 7200000, "1 day 2 hours"},
	};
	char text[64], count[32];
	char hostile[] = "a\x1b[2J\xc2\x9b\xc3\xa4\x7f\n";

	(void)state;
	human_safe(hostile);
	assert_string_equal(hostile, "a?[2J??\xc3\xa4??");
	for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++) {
		human_duration(durations[i].ms, text);
		assert_string_equal(text, durations[i].text);
	}
	human_relative(1000000, 1300000, text);
	assert_string_equal(text, "5 minutes ago");
	human_relative(1300000, 1000000, text);
	assert_string_equal(text, "in 5 minutes");
	human_relative(0, 1, text);
	assert_string_equal(text, "never");
	human_relative(1000500, 1000900, text);
	assert_string_equal(text, "now");
	human_count(0, count);
	assert_string_equal(count, "0");
	human_count(1234567, count);
	assert_string_equal(count, "1,234,567");
	setenv("TZ", "UTC", 1);
	tzset();
	human_time(1795235880000, count);
	assert_string_equal(count, "2026-11-21 04:38:00");
}

static void test_progress(void **state)
{
	char text[256];

	(void)state;
	progress_line("importing", 2500, 10000, 5000, 80, text);
	assert_string_equal(text,
			    "importing 2,500/10,000 [#####..................]  25 %  500/s, 15 "
			    "seconds left");
	assert_true(strlen(text) <= 80);
	progress_line("importing", 2500, 10000, 5000, 20, text);
	assert_string_equal(text, "importing 2,500/10,000  25 %  500/s, 15 seconds left");
	progress_line("importing", 0, 10000, 0, 80, text);
	assert_non_null(strstr(text, "0 %"));
}

static int event_note(void *arg, const struct sse_event *event)
{
	buf_printf(arg, "%s|%s|%s;", event->id, event->type, event->data);
	return 0;
}

static void test_sse(void **state)
{
	static const char stream[] = ": hello\n\n"
				     "id: 7\nevent: site\ndata: {\"a\":1}\n\n"
				     "data: x\r\ndata:y\r\n\r\n"
				     "id: 9\nretry: 5\n\n"
				     "data: last\n\n"
				     "data: half";

	(void)state;
	for (size_t piece = 1; piece < sizeof(stream); piece += 7) {
		struct buf out = {0};
		struct sse sse;

		sse_init(&sse, event_note, &out);
		for (size_t i = 0; i < strlen(stream); i += piece)
			assert_int_equal(
				sse_feed(&sse, stream + i,
					 strlen(stream) - i < piece ? strlen(stream) - i : piece),
				0);
		assert_string_equal(buf_string(&out),
				    "7|site|{\"a\":1};7|message|x\ny;9|message|last;");
		sse_restart(&sse);
		assert_string_equal(buf_string(&sse.id), "9");
		sse_free(&sse);
		buf_free(&out);
	}
}

/* As corosync-qnetd-tool 3.0.3 printed them for two real nodes. */
static void test_qnetd_text(void **state)
{
	static const char expected[] =
		"Cluster \"labcluster\":\n"
		"    Algorithm:\t\tFifty-Fifty split (KAP Tie-breaker)\n"
		"    Tie-breaker:\tNode with lowest node ID\n"
		"    Node ID 1:\n"
		"        Client address:\t\t10.99.2.1:34346\n"
		"        HB interval:\t\t8000ms\n"
		"        Configuration version:\t3\n"
		"        Configured node list:\t1, 2\n"
		"        Ring ID:\t\t1.d\n"
		"        Membership node list:\t1\n"
		"        Heuristics:\t\tUndefined (membership: Undefined, regular: Undefined)\n"
		"        TLS active:\t\tYes (client certificate verified)\n"
		"        Vote:\t\t\tNo change (ACK)\n";
	uint32_t configured[] = {1, 2}, members[] = {1};
	Tb__RingId ring = TB__RING_ID__INIT;
	Tb__SiteNode node = TB__SITE_NODE__INIT;
	Tb__SiteNode *nodes[] = {&node};
	Tb__SiteStatus status = TB__SITE_STATUS__INIT;
	Tb__Site site = TB__SITE__INIT;
	struct buf out = {0};

	(void)state;
	ring.node = 1;
	ring.seq = 13;
	node.node_id = 1;
	node.address = (char *)"10.99.2.1:34346";
	node.heartbeat_ms = 8000;
	node.algorithm = TB__ALGORITHM__ALGORITHM_FFSPLIT;
	node.keep_active_partition = true;
	node.tie_breaker = TB__TIE_BREAKER__TIE_BREAKER_LOWEST;
	node.config_version_set = true;
	node.config_version = 3;
	node.configured = configured;
	node.n_configured = 2;
	node.members = members;
	node.n_members = 1;
	node.ring = &ring;
	node.tls = node.certificate = true;
	node.vote = TB__VOTE__VOTE_NO_CHANGE;
	node.last_result = TB__VOTE__VOTE_ACK;
	site.name = (char *)"labcluster";
	site.status = &status;
	qnetd_cluster_text(&out, &site, true);
	assert_int_equal(out.len, 0);
	status.nodes = nodes;
	status.n_nodes = 1;
	qnetd_cluster_text(&out, &site, true);
	assert_string_equal(buf_string(&out), expected);
	buf_clear(&out);
	node.vote = TB__VOTE__VOTE_ACK;
	node.tie_breaker = TB__TIE_BREAKER__TIE_BREAKER_NODE;
	node.tie_breaker_node = 2;
	node.keep_active_partition = false;
	qnetd_cluster_text(&out, &site, false);
	assert_string_equal(buf_string(&out), "Cluster \"labcluster\":\n"
					      "    Algorithm:\t\tFifty-Fifty split\n"
					      "    Tie-breaker:\tNode with node ID 2\n"
					      "    Node ID 1:\n"
					      "        Client address:\t\t10.99.2.1:34346\n"
					      "        Configuration version:\t3\n"
					      "        Configured node list:\t1, 2\n"
					      "        Membership node list:\t1\n"
					      "        Vote:\t\t\tACK (ACK)\n");
	buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),	   cmocka_unit_test(test_repeated_options),
		cmocka_unit_test(test_table),	   cmocka_unit_test(test_human),
		cmocka_unit_test(test_progress),   cmocka_unit_test(test_sse),
		cmocka_unit_test(test_qnetd_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
