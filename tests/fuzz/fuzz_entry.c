/* Log entries of any bytes on a model with a bit of everything: nothing crashes, the store never
 * fails, what does not decode changes nothing, and the same entry again changes nothing either.
 * Afterwards the model survives a snapshot. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/apply.h"
#include "tests/unit/commands.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
	if (!ok)
		abort();
}

/* An image and a VM that is placed on the board. */
static void base_vm(struct model *m)
{
	Tb__VmPlacement placement = TB__VM_PLACEMENT__INIT;
	Tb__VmConfig config = TB__VM_CONFIG__INIT;
	Tb__NodeHost host = TB__NODE_HOST__INIT;
	Tb__Image image = TB__IMAGE__INIT;
	Tb__Vm vm = TB__VM__INIT;
	Tb__Node *node;
	uint64_t id;

	must(store_node_get(m->s, 1, &node) == 0);
	host.hosts = true;
	host.vcpus = 4;
	host.memory_mib = 1000;
	node->host = &host;
	must(store_node_put(m->s, node) == 0);
	node->host = NULL;
	tb__node__free_unpacked(node, NULL);
	image.sha256 = TEXT("1111111111111111111111111111111111111111111111111111111111111111");
	image.name = TEXT("linux");
	image.kind = TB__IMAGE_KIND__IMAGE_KIND_KERNEL;
	image.size = 1000;
	must(store_image_put(m->s, &image) == 0);
	placement.node = 1;
	placement.incarnation = 3;
	config.vcpus = 1;
	config.memory_mib = 128;
	config.kernel = image.sha256;
	must(store_counter_next(m->s, "vm", &id) == 0);
	vm.id = id;
	vm.name = TEXT("web");
	vm.running = true;
	vm.config = &config;
	vm.placement = &placement;
	must(store_vm_put(m->s, &vm) == 0);
}

static void base_make(struct model *m, struct buf *snapshot)
{
	model_open(m);
	must(model_init_cluster(m) == 0);
	must(model_put_site(m, "a", TB__SITE_PUT__MODE__MODE_CREATE) == 0);
	must(model_put_site(m, "b", TB__SITE_PUT__MODE__MODE_CREATE) == 0);
	must(model_grant(m, 1, 0, 3, 1) == 0);
	must(model_delete_site(m, "a") == 0);
	must(model_put_site(m, "a", TB__SITE_PUT__MODE__MODE_CREATE) == 0);
	base_vm(m);
	must(store_snapshot(m->s, snapshot) == 0);
}

static void must_survive_snapshot(struct store *s, const char digest[65])
{
	struct buf snapshot = {0};
	char after[65];

	must(store_snapshot(s, &snapshot) == 0);
	must(store_restore(s, snapshot.data, snapshot.len) == 0);
	must(store_digest(s, after) == 0);
	must(strcmp(digest, after) == 0);
	buf_free(&snapshot);
}

/* Commands with a good id are remembered; without one, nothing is done at all. */
static void must_be_idempotent(struct model *m, const uint8_t *data, size_t size)
{
	struct apply_result result;
	char before[65];
	char after[65];

	must(store_digest(m->s, before) == 0);
	must(apply_entry(m->s, ++m->index, data, size, &result) == 0);
	must(result.site_count == 0 && result.grant_count == 0 && !result.nodes_changed &&
	     !result.cluster_changed && !result.certificates_changed && !result.images_changed &&
	     !result.vms_changed);
	apply_result_free(&result);
	must(store_digest(m->s, after) == 0);
	must(strcmp(before, after) == 0);
	must_survive_snapshot(m->s, after);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct buf base;
	static struct model m;
	struct apply_result result;
	char before[65];
	char after[65];
	int rv;

	if (base.len == 0)
		base_make(&m, &base);
	must(store_restore(m.s, base.data, base.len) == 0);
	must(store_digest(m.s, before) == 0);
	m.index = 100;
	rv = apply_entry(m.s, m.index, data, size, &result);
	must(rv == 0 || rv == -EBADMSG);
	if (rv == 0) {
		apply_result_free(&result);
		must_be_idempotent(&m, data, size);
	} else {
		must(store_digest(m.s, after) == 0);
		must(strcmp(before, after) == 0);
	}
	return 0;
}
