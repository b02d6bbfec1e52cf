/* api_backend.c: the real core behind the API; a file of its own, so that tests can do without. */
#include "witnessd/api.h"

const struct api_backend api_backend_core = {
	.view = core_view,
	.model_path = core_model_path,
	.propose = core_propose,
	.query = core_query,
	.init_cluster = core_init_cluster,
	.join_cluster = core_join_cluster,
	.restore_cluster = core_restore_cluster,
	.recover_cluster = core_recover_cluster,
	.local_status = core_local_status,
	.upload = host_upload,
	.console_open = host_console_open,
	.console_next = host_console_next,
	.console_write = host_console_write,
	.console_close = host_console_close,
};
