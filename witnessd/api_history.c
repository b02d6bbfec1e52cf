/* api_history.c: backup, restore, recovery: what ends one history of a cluster and begins another.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/backup.h"
#include "lib/mem.h"
#include "witnessd/api_call.h"

/* One commit of the model, whatever is written meanwhile. */
void api_cluster_backup(struct api_call *call)
{
	Tb__BackupHead head = TB__BACKUP_HEAD__INIT;
	char *board = api_node_name(call->api);
	struct buf model = {0};
	struct buf file = {0};
	int rv;

	head.taken_ms = api_now_ms(call->api);
	head.board = board;
	head.version = (char *)TIEBREAK_VERSION;
	rv = store_snapshot(api_store(call->api), &model);
	if (rv == 0)
		rv = backup_seal(&head, model.data, model.len, &file);
	if (rv == 0)
		api_answer_text(call, &file);
	else
		api_store_failed(call);
	/* It holds the keys of the cluster. */
	if (model.data != NULL)
		mem_wipe(model.data, model.cap);
	if (file.data != NULL)
		mem_wipe(file.data, file.cap);
	buf_free(&model);
	buf_free(&file);
	free(board);
}

static char *param_text(struct api_call *call, const char *name)
{
	const struct api_value *value = api_param(call, name);

	return value->set ? value->text : (char *)"";
}

void api_cluster_restore(struct api_call *call)
{
	Tb__ClusterInitRequest request = TB__CLUSTER_INIT_REQUEST__INIT;

	request.name = param_text(call, "name");
	request.node_name = param_text(call, "node-name");
	request.address = param_text(call, "address");
	request.qnet_address = param_text(call, "qnet-address");
	api_restore_cluster(call, &request, api_cluster_get);
}

static void recovered(struct api_call *call, const Tb__ClusterRecovery *recovery)
{
	api_answer_message(call, &recovery->base);
}

void api_cluster_recover(struct api_call *call)
{
	api_recover_cluster(call, (const Tb__ClusterRecoverRequest *)call->request, recovered);
}
