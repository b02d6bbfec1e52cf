/* api_core.c: what the API asks of the core, and the way back into a call. */
#include <errno.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "lib/rng.h"
#include "witnessd/api_call.h"

/* Was the call answered meanwhile (the API is closing)? Then nobody waits for the rest. */
static bool call_is_over(struct api_call *call)
{
	if (call->conn != NULL)
		return false;
	api_call_end(call, 0);
	return true;
}

/* The same request with the same key has the same id on every board, so the model does it once. */
static void command_id(const struct api_call *call, unsigned ordinal, uint8_t id[16])
{
	uint8_t digest[SHA256_DIGEST_LENGTH];
	struct buf text = {0};

	buf_puts(&text, "command");
	buf_append(&text, call->who.actor, strlen(call->who.actor) + 1);
	buf_append(&text, call->idempotency_key, strlen(call->idempotency_key) + 1);
	buf_append(&text, call->request_sha256, sizeof(call->request_sha256));
	buf_put_u32(&text, ordinal);
	SHA256(text.data, text.len, digest);
	memcpy(id, digest, 16);
	buf_free(&text);
}

Tb__Command *api_command(struct api_call *call, unsigned ordinal)
{
	Tb__Command *command = mem_alloc(sizeof(*command));

	tb__command__init(command);
	command->id.len = 16;
	command->id.data = mem_alloc(16);
	if (call->idempotency_key != NULL)
		command_id(call, ordinal, command->id.data);
	else
		rng_fill(command->id.data, 16);
	command->time_ms = api_now_ms(call->api);
	command->actor = mem_strdup(call->who.actor);
	if (call->who.tenant[0] != '\0')
		command->tenant = mem_strdup(call->who.tenant);
	return command;
}

static void proposed(void *arg, int error, Tb__CommandResult *const *results, size_t count)
{
	struct api_call *call = arg;

	if (call_is_over(call))
		return;
	if (error != 0)
		api_problem_error(call, error, NULL);
	else if (count != 1)
		api_problem_error(call, -EIO, NULL);
	else if (results[0]->refusal != TB__REFUSAL__REFUSAL_NONE && !call->refusal_wanted)
		api_problem_refusal(call, results[0]);
	else
		call->applied(call, results[0]);
}

static void propose(struct api_call *call, Tb__Command *command)
{
	const struct api_config *config = &call->api->config;
	Tb__Command **commands = mem_array(1, sizeof(*commands));

	commands[0] = command;
	config->backend->propose(config->core, config->home, commands, 1, proposed, call);
}

void api_propose(struct api_call *call, Tb__Command *command, api_applied done)
{
	call->applied = done;
	call->refusal_wanted = false;
	propose(call, command);
}

void api_propose_raw(struct api_call *call, Tb__Command *command, api_applied done)
{
	call->applied = done;
	call->refusal_wanted = true;
	propose(call, command);
}

static void answered(void *arg, int error, const Tb__PeerAnswer *answer)
{
	struct api_call *call = arg;

	if (!call_is_over(call))
		call->answered(call, error, answer);
}

void api_query(struct api_call *call, const Tb__PeerQuery *query, api_answered done)
{
	const struct api_config *config = &call->api->config;

	call->answered = done;
	if (config->backend->view(config->core)->leader_id == 0)
		done(call, -EAGAIN, NULL);
	else
		config->backend->query(config->core, config->home, query, answered, call);
}

static void controlled(void *arg, int error, const char *message)
{
	struct api_call *call = arg;

	if (call_is_over(call))
		return;
	if (error != 0)
		api_problem_error(call, error, message);
	else
		call->controlled(call);
}

void api_init_cluster(struct api_call *call, const Tb__ClusterInitRequest *request,
		      void (*done)(struct api_call *call))
{
	const struct api_config *config = &call->api->config;

	call->controlled = done;
	config->backend->init_cluster(config->core, config->home, request, controlled, call);
}

void api_join_cluster(struct api_call *call, const Tb__ClusterJoinRequest *request,
		      void (*done)(struct api_call *call))
{
	const struct api_config *config = &call->api->config;

	call->controlled = done;
	config->backend->join_cluster(config->core, config->home, request, controlled, call);
}

void api_restore_cluster(struct api_call *call, const Tb__ClusterInitRequest *request,
			 void (*done)(struct api_call *call))
{
	const struct api_config *config = &call->api->config;

	call->controlled = done;
	config->backend->restore_cluster(config->core, config->home, request, call->body.data,
					 call->body.len, controlled, call);
}

static void recovered(void *arg, int error, const char *message,
		      const Tb__ClusterRecovery *recovery)
{
	struct api_call *call = arg;

	if (call_is_over(call))
		return;
	if (error != 0)
		api_problem_error(call, error, message);
	else
		call->recovered(call, recovery);
}

void api_recover_cluster(struct api_call *call, const Tb__ClusterRecoverRequest *request,
			 void (*done)(struct api_call *call, const Tb__ClusterRecovery *recovery))
{
	const struct api_config *config = &call->api->config;

	call->recovered = done;
	config->backend->recover_cluster(config->core, config->home, request, recovered, call);
}

static void uploaded(void *arg, int error, const char *message, uint64_t have, bool done)
{
	struct api_call *call = arg;

	if (!call_is_over(call))
		call->uploaded(call, error, message, have, done);
}

void api_upload(struct api_call *call, const char *sha256, uint64_t size, uint64_t offset,
		api_uploaded done)
{
	const struct api_config *config = &call->api->config;

	call->uploaded = done;
	if (call->api->host == NULL)
		done(call, -ESHUTDOWN, "this board keeps no images", 0, false);
	else
		config->backend->upload(call->api->host, config->home, sha256, size, offset,
					call->body.data, call->body.len, uploaded, call);
}
