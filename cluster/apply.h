/* apply.h: what a log entry does to the model. Deterministic: the same entry on the same
 * model gives the same rows, results and events on every board (DESIGN section 4).
 *
 * A command is applied whole or refused; the refusal names the field and the remedy. Its id has
 * 16 bytes; the same id again gives the first result and changes nothing. Beyond command.proto:
 * - NodeSet leaves what it does not give: empty texts, and the role joining (a voter stays one).
 * - The certificate of a board is of kind "node" with the board's name as subject; NodeRemove
 *   revokes all of them. The last board cannot be removed.
 * - SiteDelete revokes the site's certificates and tokens: a later site of that name may be
 * somebody else's. A certificate is taken for a site that is there, the one that it was signed for.
 * - A site in the model always has a policy; its labels are sorted by key.
 * - A VM in the model has no zeroes that stand for defaults: vCPUs, memory, attempts, back-off, ids
 *   of disks and addresses of network cards are filled in, images are SHA-256 sums, labels are
 *   sorted by key, and a placement is always there. VmPut takes names of images too, and leaves
 *   `running` as it is when it replaces. A MAC that is left out stays that of the card with the
 *   same number, or is derived from cluster, VM and number.
 * - VmPlace gives the next incarnation; with node 0 it only says that the VM is nowhere. A VM that
 *   is not wanted is placed nowhere else.
 * - A board that has a VM's data disks (room_home) is not removed (it may be replaced: the VM then
 *   waits for "vm move --force").
 * - A site may have a grant without nodes: its vote was never given, and its epochs begin above
 *   those of deleted sites (apply.c says why). GrantSet itself must name nodes. */
#pragma once
#include "cluster/store.h"

struct apply_result {
	size_t count; /* one per command of the entry */
	Tb__CommandResult **results; /* owned; the commands' order */
	/* What changed, for whoever watches; owned. Names of sites put or deleted, grants set. */
	size_t site_count;
	char **sites;
	size_t grant_count;
	Tb__Grant **grants;
	bool nodes_changed;
	bool cluster_changed;
	bool certificates_changed;
	bool images_changed;
	bool vms_changed;
};

/* Applies the entry at `index` in one transaction of its own. An entry that does not decode
 * (a later release's) gives -EBADMSG and a model without it: the daemon must stop. -EIO: the
 * store failed, stop. 0: *ret filled, free with apply_result_free. */
int apply_entry(struct store *s, uint64_t index, const uint8_t *data, size_t len,
		struct apply_result *ret);
void apply_result_free(struct apply_result *r);
/* What a release understands, and what a cluster may use: the greatest level that every board of it
 * understands (Cluster.level). A release that adds a command, or a field that changes what a
 * command does, adds a level; a board refuses to propose what is above the cluster's. Two releases
 * that follow each other work together; the level rises when the last board has been upgraded.
 * Level 1: up to the first release, commands below 30. Level 2: drain, replace, restore, rotation
 * of the CA, life of certificates, tenants, agents and their leases. Level 3: floating addresses,
 * images and virtual machines, commands from 60 on; certificates and tokens of a site end with it.
 */
enum {
	LEVEL_FIRST = 1,
	LEVEL_VMS = 3,
	LEVEL_CERTIFICATES = 3, /* end with their site, and are counted at the end of a CA */
	LEVEL_DEAD = 3, /* a board is replaced only after the leader has looked for it */
	LEVEL_HERE = 3,
};
/* The level that a command needs. */
unsigned command_level(const Tb__Command *command);
/* False for a command of a later release. The leader asks before it proposes one that came from
 * outside, because an entry with it would stop every board. */
bool command_known(const Tb__Command *command);

/* Checks of a single object that need no model: names, labels, policy. The API and the CLI use
 * them too, so that a person hears of it before anything is sent. 0, or -EINVAL with the field
 * ("labels.region") and a sentence with the remedy. */
struct apply_problem {
	char field[128];
	char message[256];
};
int site_check(const Tb__Site *site, struct apply_problem *ret);
int name_check(const char *name, const char *field, struct apply_problem *ret);
int service_address_check(const Tb__ServiceAddress *row, struct apply_problem *ret);
/* Where an image is named its SHA-256 or its name will do; whether it is there and of the right
 * kind is the model's to say. Fields as in the JSON of the row: "config.disks[1].sizeMib". */
int vm_check(const Tb__Vm *vm, struct apply_problem *ret);
int image_check(const Tb__Image *row, struct apply_problem *ret);
/* Whose site it is: its label "tenant", "" none. */
const char *site_tenant(const Tb__Site *site);
