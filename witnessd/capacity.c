#include "witnessd/capacity.h"

#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>

#include "lib/log.h"
#include "witnessd/qnet_loop.h"

enum {
	OTHER_FILES = 256, /* log, model, links between boards */
	SESSIONS_LEAST = 16, /* fewer is not a witness */
	AGENTS_PART = 4, /* of the open files, if there are not enough for two full doors */
};

/* Open files that this process may have after the attempt to get `wanted`. */
static uint64_t files_raise(uint64_t wanted)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) != 0)
		return 0;
	if (files.rlim_max < wanted) {
		const struct rlimit more = {wanted, wanted};

		if (setrlimit(RLIMIT_NOFILE, &more) == 0)
			return wanted;
	}
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	return files.rlim_max;
}

static void queue_check(void)
{
	static const char path[] = "/proc/sys/net/core/somaxconn";
	FILE *file = fopen(path, "re");
	unsigned somaxconn;

	if (file == NULL)
		return;
	if (fscanf(file, "%u", &somaxconn) == 1 && somaxconn < QNET_BACKLOG)
		log_warning("short-queue",
			    "net.core.somaxconn is %u: when all site nodes come back at once, "
			    "connects beyond it wait for their retries; set it to %u with sysctl",
			    somaxconn, QNET_BACKLOG);
	fclose(file);
}

int capacity_take(struct config *config, const char **ret_message)
{
	static char message[256];
	uint64_t others = config->connections_max + OTHER_FILES;
	uint64_t sessions = config->sessions_max != 0 ? config->sessions_max : SESSIONS_MAX_DEFAULT;
	uint64_t files = files_raise(2 * sessions + others);
	uint64_t room = files > others ? files - others : 0;
	uint64_t wanted = sessions;

	if (config->sessions_max == 0 && room < 2 * sessions)
		sessions = room - room / AGENTS_PART;
	if (room < sessions || sessions < SESSIONS_LEAST) {
		snprintf(message, sizeof(message),
			 "sites.sessions-max %llu and api.connections-max %llu need %llu open "
			 "files, but the limit (RLIMIT_NOFILE) is %llu and could not be raised: "
			 "raise LimitNOFILE= of the service, or ask for less",
			 (unsigned long long)wanted, (unsigned long long)config->connections_max,
			 (unsigned long long)(wanted + others), (unsigned long long)files);
		*ret_message = message;
		return -EMFILE;
	}
	config->sessions_max = sessions;
	config->agents_max = room - sessions < sessions ? room - sessions : sessions;
	if (room < 2 * wanted)
		log_warning("few-descriptors",
			    "the limit of open files (RLIMIT_NOFILE) is %llu: at most %llu site "
			    "nodes and %llu agents instead of %llu of each; raise LimitNOFILE= of "
			    "the service",
			    (unsigned long long)files, (unsigned long long)sessions,
			    (unsigned long long)config->agents_max, (unsigned long long)wanted);
	queue_check();
	return 0;
}
