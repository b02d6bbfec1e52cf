/* A program of somebody else with libwitness-agent: one header, one library. Holds the lease for a
 * while and gives it back: prints what it is told.
 *
 *   agent_library BOARD NODE DIRECTORY-WITH-THE-IDENTITY */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/witness_agent.h"

struct program {
	struct witness_agent *agent;
	int gained;
	int lost;
};

static void on_gained(void *arg, uint64_t epoch)
{
	struct program *p = arg;

	printf("gained %llu\n", (unsigned long long)epoch);
	p->gained++;
	/* From inside a callback. */
	witness_agent_want(p->agent, false);
}

static void on_lost(void *arg, uint64_t epoch, uint32_t left_ms)
{
	struct program *p = arg;

	printf("lost %llu %s\n", (unsigned long long)epoch, left_ms > 0 ? "in time" : "late");
	p->lost++;
	witness_agent_stopped(p->agent);
}

static char *file_text(const char *directory, const char *name)
{
	char path[512];
	char *text = calloc(1, 65536);
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "r");
	if (text == NULL || file == NULL || fread(text, 1, 65535, file) == 0)
		exit(1);
	fclose(file);
	return text;
}

int main(int argc, char **argv)
{
	struct program p = {0};
	char why[WITNESS_AGENT_TEXT];
	const char *boards[] = {argc == 4 ? argv[1] : "", NULL};
	struct witness_agent_options options = {.boards = boards,
						.arg = &p,
						.gained = on_gained,
						.lost = on_lost,
						.lease_ms = 4000};
	char *texts[3];

	if (argc != 4)
		return 2;
	options.node = (uint32_t)atoi(argv[2]);
	options.certificate = texts[0] = file_text(argv[3], "agent.crt");
	options.key = texts[1] = file_text(argv[3], "agent.key");
	options.ca = texts[2] = file_text(argv[3], "ca.crt");
	if (witness_agent_new(&options, &p.agent, why) != 0) {
		fprintf(stderr, "%s\n", why);
		return 1;
	}
	witness_agent_want(p.agent, true);
	for (int turns = 0; turns < 10000; turns++) {
		struct pollfd fd;
		int timeout_ms;
		int count = witness_agent_poll(p.agent, &fd, &timeout_ms);

		poll(&fd, (nfds_t)count, timeout_ms);
		witness_agent_turn(p.agent);
		if (p.lost > 0 && witness_agent_idle(p.agent))
			break;
	}
	witness_agent_free(p.agent);
	for (int i = 0; i < 3; i++)
		free(texts[i]);
	return p.gained == 1 && p.lost == 1 ? 0 : 1;
}
