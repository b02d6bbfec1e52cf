#include "cluster/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cluster/limits.h"
#include "lib/ip.h"
#include "lib/text.h"

__attribute__((format(printf, 3, 4))) static int problem(struct apply_problem *ret,
							 const char *field, const char *format, ...)
{
	va_list args;

	snprintf(ret->field, sizeof(ret->field), "%s", field);
	va_start(args, format);
	vsnprintf(ret->message, sizeof(ret->message), format, args);
	va_end(args);
	return -EINVAL;
}

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Letters, digits and `extra`, beginning with a letter or digit. The length of the good start. */
static size_t word_span(const char *text, const char *extra)
{
	size_t len = 0;

	if (!is_alnum(text[0]))
		return 0;
	while (text[len] != '\0' && (is_alnum(text[len]) || strchr(extra, text[len]) != NULL))
		len++;
	return len;
}

/* A byte of hostile text as people may see it: itself in quotes, or its number. */
static void byte_describe(char c, char out[16])
{
	if (c == ' ')
		snprintf(out, 16, "a space");
	else if (c > ' ' && c < 0x7f)
		snprintf(out, 16, "'%c'", c);
	else
		snprintf(out, 16, "byte 0x%02x", (unsigned char)c);
}

static int word_check(const char *text, const char *extra, size_t max, const char *rule,
		      const char *field, struct apply_problem *ret)
{
	size_t good = word_span(text, extra);
	char what[16];

	if (text[0] == '\0')
		return problem(ret, field, "it is empty; use %s", rule);
	if (strnlen(text, max + 1) > max)
		return problem(ret, field, "it is longer than %zu bytes; use %s", max, rule);
	if (text[good] == '\0')
		return 0;
	byte_describe(text[good], what);
	return problem(ret, field, "character %zu is %s; use %s", good + 1, what, rule);
}

int name_check(const char *name, const char *field, struct apply_problem *ret)
{
	return word_check(name, "._-", LIMIT_NAME,
			  "1 to 64 letters, digits, dots, dashes and underscores, "
			  "beginning with a letter or digit",
			  field, ret);
}

static bool has_control(const char *text)
{
	for (; *text != '\0'; text++) {
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return true;
	}
	return false;
}

int text_check(const char *text, size_t max, const char *field, struct apply_problem *ret)
{
	size_t len = strnlen(text, max + 1);

	if (len > max)
		return problem(ret, field, "it is longer than %zu bytes; shorten it", max);
	if (!text_is_utf8(text, len) || has_control(text))
		return problem(ret, field, "use UTF-8 text without control characters");
	return 0;
}

int hex_check(const char *text, size_t digits, const char *field, struct apply_problem *ret)
{
	if (strnlen(text, digits + 1) != digits || strspn(text, "0123456789abcdef") != digits)
		return problem(ret, field, "use exactly %zu lower-case hexadecimal digits", digits);
	return 0;
}

int address_check(const char *text, const char *field, struct apply_problem *ret)
{
	const char *colon = strrchr(text, ':');
	uint64_t port;

	if (text_check(text, CHECK_ADDRESS, field, ret) != 0)
		return -EINVAL;
	if (colon == NULL || colon == text || strchr(text, ' ') != NULL ||
	    text_to_u64(colon + 1, 1, 65535, &port) != 0)
		return problem(ret, field, "use host:port, as in 192.0.2.1:7443");
	return 0;
}

/* True for a number that the enum's descriptor knows. */
static bool enum_known(const ProtobufCEnumDescriptor *type, int value)
{
	return protobuf_c_enum_descriptor_get_value(type, value) != NULL;
}

/* --- sites ----------------------------------------------------------------------------------- */

static int label_key_check(const char *key, const char *field, struct apply_problem *ret)
{
	return word_check(key, "._/-", LIMIT_LABEL_KEY,
			  "label keys of 1 to 63 letters, digits, dots, dashes, underscores and "
			  "slashes, beginning with a letter or digit",
			  field, ret);
}

static int label_check(const char *key, const char *value, struct apply_problem *ret)
{
	char field[16 + LIMIT_LABEL_KEY];

	if (label_key_check(key, "labels", ret) != 0)
		return -EINVAL;
	snprintf(field, sizeof(field), "labels.%s", key);
	return text_check(value, LIMIT_LABEL_VALUE, field, ret);
}

static int label_count_check(size_t count, struct apply_problem *ret)
{
	if (count > LIMIT_SITE_LABELS)
		return problem(ret, "labels", "%zu labels, at most %d are allowed; remove some",
			       count, LIMIT_SITE_LABELS);
	return 0;
}

static int label_twice(const char *key, struct apply_problem *ret)
{
	return problem(ret, "labels", "the label %s is there twice; give it once", key);
}

static int labels_check(const Tb__Site *site, struct apply_problem *ret)
{
	if (label_count_check(site->n_labels, ret) != 0)
		return -EINVAL;
	for (size_t i = 0; i < site->n_labels; i++) {
		if (label_check(site->labels[i]->key, site->labels[i]->value, ret) != 0)
			return -EINVAL;
		for (size_t j = 0; j < i; j++) {
			if (strcmp(site->labels[i]->key, site->labels[j]->key) == 0)
				return label_twice(site->labels[i]->key, ret);
		}
	}
	return 0;
}

static int heartbeat_check(uint32_t ms, const char *field, struct apply_problem *ret)
{
	if (ms != 0 && (ms < HEARTBEAT_MIN_MS || ms > HEARTBEAT_MAX_MS))
		return problem(ret, field,
			       "%u ms is out of range; use %d to %d, or 0 for the default", ms,
			       HEARTBEAT_MIN_MS, HEARTBEAT_MAX_MS);
	return 0;
}

static int heartbeats_check(const Tb__SitePolicy *policy, struct apply_problem *ret)
{
	uint32_t min = policy->heartbeat_min_ms != 0 ? policy->heartbeat_min_ms : HEARTBEAT_MIN_MS;
	uint32_t max = policy->heartbeat_max_ms != 0 ? policy->heartbeat_max_ms : HEARTBEAT_MAX_MS;

	if (heartbeat_check(policy->heartbeat_min_ms, "policy.heartbeatMinMs", ret) != 0 ||
	    heartbeat_check(policy->heartbeat_max_ms, "policy.heartbeatMaxMs", ret) != 0)
		return -EINVAL;
	if (min > max)
		return problem(ret, "policy.heartbeatMinMs",
			       "the least heartbeat (%u ms) is above the greatest (%u ms); "
			       "lower it or raise policy.heartbeatMaxMs",
			       min, max);
	return 0;
}

static int tie_breaker_check(const Tb__SitePolicy *policy, struct apply_problem *ret)
{
	bool node = policy->tie_breaker == TB__TIE_BREAKER__TIE_BREAKER_NODE;

	if (node && policy->tie_breaker_node == 0)
		return problem(ret, "policy.tieBreakerNode",
			       "the tie-breaker is a node, but none is named; give its node id "
			       "from corosync.conf");
	if (!node && policy->tie_breaker_node != 0)
		return problem(ret, "policy.tieBreakerNode",
			       "a node is named, but the tie-breaker is another; set "
			       "policy.tieBreaker to \"node\" or leave the node out");
	return 0;
}

static int lease_policy_check(const Tb__SitePolicy *policy, struct apply_problem *ret)
{
	bool preferred = policy->lease == TB__LEASE_POLICY__LEASE_POLICY_PREFERRED;
	bool manual = policy->lease == TB__LEASE_POLICY__LEASE_POLICY_MANUAL;

	if (preferred && policy->lease_node == 0)
		return problem(ret, "policy.leaseNode",
			       "a node is preferred, but none is named; give its node id from "
			       "witness-agent.conf");
	if (!preferred && !manual && policy->lease_node != 0)
		return problem(ret, "policy.leaseNode",
			       "a node is named, but the policy is another; set policy.lease to "
			       "\"preferred\" or \"manual\" or leave the node out");
	return 0;
}

static int policy_check(const Tb__SitePolicy *policy, struct apply_problem *ret)
{
	const struct {
		const ProtobufCEnumDescriptor *type;
		int value;
		const char *field;
		const char *words;
	} enums[] = {
		{&tb__algorithm__descriptor, (int)policy->algorithm, "policy.algorithm",
		 "any, ffsplit, lms, 2nodelms or lease"},
		{&tb__tie_breaker__descriptor, (int)policy->tie_breaker, "policy.tieBreaker",
		 "any, lowest, highest or node"},
		{&tb__switch__descriptor, (int)policy->keep_active_partition,
		 "policy.keepActivePartition", "any, on or off"},
		{&tb__tls__descriptor, (int)policy->tls, "policy.tls", "any, off, on or required"},
		{&tb__handover__descriptor, (int)policy->handover, "policy.handover",
		 "safe or fast"},
		{&tb__lease_policy__descriptor, (int)policy->lease, "policy.lease",
		 "any, preferred, generation or manual"},
	};

	for (size_t i = 0; i < sizeof(enums) / sizeof(enums[0]); i++) {
		if (!enum_known(enums[i].type, enums[i].value))
			return problem(ret, enums[i].field, "%d is not known here; use %s",
				       enums[i].value, enums[i].words);
	}
	if (lease_policy_check(policy, ret) != 0)
		return -EINVAL;
	return tie_breaker_check(policy, ret) != 0 ? -EINVAL : heartbeats_check(policy, ret);
}

int site_check(const Tb__Site *site, struct apply_problem *ret)
{
	if (name_check(site->name, "name", ret) != 0 || labels_check(site, ret) != 0)
		return -EINVAL;
	return site->policy == NULL ? 0 : policy_check(site->policy, ret);
}

/* --- images and virtual machines ------------------------------------------------------------- */

bool image_sum_shaped(const char *text)
{
	return strnlen(text, 65) == 64 && strspn(text, "0123456789abcdef") == 64;
}

int image_check(const Tb__Image *row, struct apply_problem *ret)
{
	if (hex_check(row->sha256, 64, "sha256", ret) != 0 ||
	    name_check(row->name, "name", ret) != 0)
		return -EINVAL;
	if (image_sum_shaped(row->name))
		return problem(ret, "name",
			       "it looks like a SHA-256; give the image a name of its own");
	if (!enum_known(&tb__image_kind__descriptor, (int)row->kind))
		return problem(ret, "kind", "%d is not known here; use disk, kernel or initrd",
			       (int)row->kind);
	if (row->size == 0 || row->size > LIMIT_IMAGE_SIZE)
		return problem(ret, "size", "an image has from one byte to a TiB");
	return 0;
}

int bridge_check(const char *name, const char *field, struct apply_problem *ret)
{
	return word_check(name, "._-", LIMIT_BRIDGE,
			  "the name of a bridge: 1 to 15 letters, digits, dots, dashes and "
			  "underscores, beginning with a letter or digit",
			  field, ret);
}

static int vm_name_check(const char *name, struct apply_problem *ret)
{
	static const char rule[] = "1 to 63 of the characters a-z, 0-9 and -, beginning with a "
				   "letter or digit";
	size_t good = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");
	char what[16];

	if (name[0] == '\0')
		return problem(ret, "name", "it is empty; use %s", rule);
	if (strnlen(name, LIMIT_VM_NAME + 1) > LIMIT_VM_NAME)
		return problem(ret, "name", "it is longer than %d bytes; use %s", LIMIT_VM_NAME,
			       rule);
	if (name[good] == '\0' && name[0] != '-')
		return 0;
	if (name[0] == '-')
		good = 0;
	byte_describe(name[good], what);
	return problem(ret, "name", "character %zu is %s; use %s", good + 1, what, rule);
}

static int vm_labels_check(const Tb__Vm *vm, struct apply_problem *ret)
{
	if (label_count_check(vm->n_labels, ret) != 0)
		return -EINVAL;
	for (size_t i = 0; i < vm->n_labels; i++) {
		if (label_check(vm->labels[i]->key, vm->labels[i]->value, ret) != 0)
			return -EINVAL;
		for (size_t j = 0; j < i; j++) {
			if (strcmp(vm->labels[i]->key, vm->labels[j]->key) == 0)
				return label_twice(vm->labels[i]->key, ret);
		}
	}
	return 0;
}

const char *vm_label(const Tb__Vm *vm, const char *key)
{
	for (size_t i = 0; i < vm->n_labels; i++)
		if (strcmp(vm->labels[i]->key, key) == 0)
			return vm->labels[i]->value;
	return NULL;
}

bool vm_uses_image(const Tb__Vm *vm, const char *sha256)
{
	const Tb__VmConfig *c = vm->config;

	if (strcmp(c->kernel, sha256) == 0 || strcmp(c->initrd, sha256) == 0)
		return true;
	for (size_t i = 0; i < c->n_disks; i++)
		if (strcmp(c->disks[i]->image, sha256) == 0)
			return true;
	return false;
}

static int number_check(uint32_t value, uint32_t low, uint32_t high, const char *field,
			const char *unit, struct apply_problem *ret)
{
	if (value < low || value > high)
		return problem(ret, field, "%u%s is out of range; use %u to %u", value, unit, low,
			       high);
	return 0;
}

static int vm_numbers_check(const Tb__VmConfig *c, struct apply_problem *ret)
{
	if ((c->vcpus != 0 &&
	     number_check(c->vcpus, 1, LIMIT_VM_VCPUS, "config.vcpus", "", ret) != 0) ||
	    (c->memory_mib != 0 && number_check(c->memory_mib, 16, LIMIT_VM_MEMORY_MIB,
						"config.memoryMib", " MiB", ret) != 0) ||
	    number_check(c->restart_attempts, 0, LIMIT_VM_ATTEMPTS, "config.restartAttempts", "",
			 ret) != 0 ||
	    number_check(c->restart_backoff_ms, 0, LIMIT_VM_BACKOFF_MS, "config.restartBackoffMs",
			 " ms", ret) != 0 ||
	    number_check(c->priority, 0, 100, "config.priority", "", ret) != 0)
		return -EINVAL;
	if (!enum_known(&tb__vm_restart__descriptor, (int)c->restart))
		return problem(ret, "config.restart",
			       "%d is not known here; use always, on_failure or never",
			       (int)c->restart);
	if (!enum_known(&tb__vm_loss__descriptor, (int)c->loss))
		return problem(ret, "config.loss", "%d is not known here; use restart or wait",
			       (int)c->loss);
	return 0;
}

static int vm_disk_check(const Tb__VmDisk *disk, const char *field, struct apply_problem *ret)
{
	char at[64];

	snprintf(at, sizeof(at), "%s.kind", field);
	if (!enum_known(&tb__disk_kind__descriptor, (int)disk->kind))
		return problem(ret, at, "%d is not known here; use image, overlay or data",
			       (int)disk->kind);
	snprintf(at, sizeof(at), "%s.image", field);
	if (disk->kind == TB__DISK_KIND__DISK_KIND_DATA && disk->image[0] != '\0')
		return problem(ret, at, "a data disk begins empty; leave the image out");
	if (disk->kind != TB__DISK_KIND__DISK_KIND_DATA && name_check(disk->image, at, ret) != 0)
		return -EINVAL;
	snprintf(at, sizeof(at), "%s.sizeMib", field);
	if (disk->kind == TB__DISK_KIND__DISK_KIND_IMAGE && disk->size_mib != 0)
		return problem(ret, at,
			       "a read-only image is as large as it is; leave the size "
			       "out, or make it an overlay");
	if (disk->kind == TB__DISK_KIND__DISK_KIND_DATA && disk->size_mib == 0)
		return problem(ret, at, "a data disk needs a size");
	if (disk->size_mib > LIMIT_VM_DISK_MIB)
		return problem(ret, at, "a disk has at most %d MiB", LIMIT_VM_DISK_MIB);
	snprintf(at, sizeof(at), "%s.id", field);
	return disk->id[0] == '\0' ? 0
				   : word_check(disk->id, "._-", LIMIT_VM_DISK_ID,
						"1 to 20 letters, digits, dots, dashes and "
						"underscores, beginning with a letter or digit",
						at, ret);
}

/* The serial number of the i-th disk: its own or "disk0", "disk1", .... */
static void disk_id(const Tb__VmConfig *c, size_t i, char out[LIMIT_VM_DISK_ID + 1])
{
	if (c->disks[i]->id[0] != '\0')
		snprintf(out, LIMIT_VM_DISK_ID + 1, "%s", c->disks[i]->id);
	else
		snprintf(out, LIMIT_VM_DISK_ID + 1, "disk%u", (unsigned)i);
}

static int vm_disks_check(const Tb__VmConfig *c, struct apply_problem *ret)
{
	char ids[LIMIT_VM_DISKS][LIMIT_VM_DISK_ID + 1];
	char field[48];

	if (c->n_disks > LIMIT_VM_DISKS)
		return problem(ret, "config.disks", "%zu disks, at most %d are allowed", c->n_disks,
			       LIMIT_VM_DISKS);
	for (size_t i = 0; i < c->n_disks; i++) {
		snprintf(field, sizeof(field), "config.disks[%zu]", i);
		if (vm_disk_check(c->disks[i], field, ret) != 0)
			return -EINVAL;
		disk_id(c, i, ids[i]);
		for (size_t j = 0; j < i; j++) {
			if (strcmp(ids[i], ids[j]) != 0)
				continue;
			snprintf(field, sizeof(field), "config.disks[%zu].id", i);
			return problem(ret, field,
				       "disks[%zu] has the id %s too; give each its own", j,
				       ids[i]);
		}
	}
	return 0;
}

static int mac_check(const char *mac, const char *field, struct apply_problem *ret)
{
	bool shape = strnlen(mac, 18) == 17;

	for (size_t i = 0; shape && i < 17; i++)
		shape = i % 3 == 2 ? mac[i] == ':' : strchr("0123456789abcdef", mac[i]) != NULL;
	if (!shape)
		return problem(ret, field,
			       "use six bytes in lower-case hexadecimal, as in "
			       "02:00:5e:10:00:01, or leave it out");
	if (strchr("13579bdf", mac[1]) != NULL || strcmp(mac, "00:00:00:00:00:00") == 0)
		return problem(ret, field,
			       "%s is not the address of one card: the first byte must be even; "
			       "leave it out to be given one",
			       mac);
	return 0;
}

static int vm_nics_check(const Tb__VmConfig *c, struct apply_problem *ret)
{
	char field[48];

	if (c->n_nics > LIMIT_VM_NICS)
		return problem(ret, "config.nics", "%zu network cards, at most %d are allowed",
			       c->n_nics, LIMIT_VM_NICS);
	for (size_t i = 0; i < c->n_nics; i++) {
		const Tb__VmNic *nic = c->nics[i];

		snprintf(field, sizeof(field), "config.nics[%zu].bridge", i);
		if (bridge_check(nic->bridge, field, ret) != 0)
			return -EINVAL;
		snprintf(field, sizeof(field), "config.nics[%zu].mac", i);
		if (nic->mac[0] != '\0' && mac_check(nic->mac, field, ret) != 0)
			return -EINVAL;
		for (size_t j = 0; j < i; j++) {
			if (nic->mac[0] != '\0' && strcmp(nic->mac, c->nics[j]->mac) == 0)
				return problem(ret, field,
					       "nics[%zu] has %s too; each card needs its own", j,
					       nic->mac);
		}
	}
	return 0;
}

static int vm_boards_check(char *const *names, size_t count, const char *field,
			   struct apply_problem *ret)
{
	char at[48];

	if (count > LIMIT_VM_BOARDS)
		return problem(ret, field, "%zu boards, at most %d are allowed", count,
			       LIMIT_VM_BOARDS);
	for (size_t i = 0; i < count; i++) {
		snprintf(at, sizeof(at), "%s[%zu]", field, i);
		if (name_check(names[i], at, ret) != 0)
			return -EINVAL;
		for (size_t j = 0; j < i; j++) {
			if (strcmp(names[i], names[j]) == 0)
				return problem(ret, at, "the board %s is named twice", names[i]);
		}
	}
	return 0;
}

static int vm_config_check(const Tb__VmConfig *c, const Tb__Vm *vm, struct apply_problem *ret)
{
	if (vm_numbers_check(c, ret) != 0 || name_check(c->kernel, "config.kernel", ret) != 0)
		return -EINVAL;
	if (c->initrd[0] != '\0' && name_check(c->initrd, "config.initrd", ret) != 0)
		return -EINVAL;
	if (text_check(c->command_line, LIMIT_VM_COMMAND_LINE, "config.commandLine", ret) != 0 ||
	    vm_disks_check(c, ret) != 0 || vm_nics_check(c, ret) != 0 ||
	    vm_boards_check(c->prefer, c->n_prefer, "config.prefer", ret) != 0 ||
	    vm_boards_check(c->require, c->n_require, "config.require", ret) != 0)
		return -EINVAL;
	if (c->apart[0] == '\0')
		return 0;
	if (label_key_check(c->apart, "config.apart", ret) != 0)
		return -EINVAL;
	if (vm_label(vm, c->apart) == NULL)
		return problem(ret, "config.apart",
			       "the VM has no label %s to be kept apart by; give it one", c->apart);
	return 0;
}

int vm_check(const Tb__Vm *vm, struct apply_problem *ret)
{
	if (vm_name_check(vm->name, ret) != 0 || vm_labels_check(vm, ret) != 0)
		return -EINVAL;
	if (vm->config == NULL)
		return problem(ret, "config.kernel", "a VM needs a kernel; name an image");
	return vm_config_check(vm->config, vm, ret);
}

static int strings_rise(char *const *texts, size_t count)
{
	for (size_t i = 1; i < count; i++)
		if (strcmp(texts[i - 1], texts[i]) >= 0)
			return 0;
	return 1;
}

int host_check(const Tb__NodeHost *host, struct apply_problem *ret)
{
	if (text_check(host->why_not, LIMIT_MESSAGE, "host.whyNot", ret) != 0)
		return -EINVAL;
	if (host->vcpus > LIMIT_HOST_VCPUS)
		return problem(ret, "host.vcpus", "a board has at most %d cores", LIMIT_HOST_VCPUS);
	if (host->n_bridges > LIMIT_HOST_BRIDGES)
		return problem(ret, "host.bridges", "%zu bridges, at most %d are told",
			       host->n_bridges, LIMIT_HOST_BRIDGES);
	for (size_t i = 0; i < host->n_bridges; i++)
		if (bridge_check(host->bridges[i], "host.bridges", ret) != 0)
			return -EINVAL;
	if (!strings_rise(host->bridges, host->n_bridges))
		return problem(ret, "host.bridges", "they are sorted, and each there once");
	return 0;
}

/* --- the other rows -------------------------------------------------------------------------- */

int cluster_check(const Tb__Cluster *row, struct apply_problem *ret)
{
	if (hex_check(row->id, 32, "cluster.id", ret) != 0 ||
	    name_check(row->name, "cluster.name", ret) != 0)
		return -EINVAL;
	return row->ca_sha256[0] == '\0' ? 0
					 : hex_check(row->ca_sha256, 64, "cluster.caSha256", ret);
}

int secrets_check(const Tb__Secrets *row, struct apply_problem *ret)
{
	const char *const parts[] = {
		row->ca_cert,	  row->ca_key,	    row->qnet_ca_cert,	   row->qnet_ca_key,
		row->qnet_cert,	  row->qnet_key,    row->next_ca_cert,	   row->next_ca_key,
		row->bridge_cert, row->old_ca_cert, row->qnet_bridge_cert, row->old_qnet_ca_cert};

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		if (strnlen(parts[i], CHECK_PEM + 1) > CHECK_PEM)
			return problem(ret, "secrets",
				       "a key or certificate is longer than %d bytes; use a "
				       "smaller key",
				       CHECK_PEM);
	}
	return 0;
}

int node_check(const Tb__Node *row, struct apply_problem *ret)
{
	/* Far from where the counter of ids ends, so that it never does. */
	if (row->id > UINT32_MAX)
		return problem(ret, "node.id", "an id is below 2^32; leave it to the cluster");
	if (name_check(row->name, "node.name", ret) != 0 ||
	    address_check(row->address, "node.address", ret) != 0)
		return -EINVAL;
	if (row->qnet_address[0] != '\0' &&
	    address_check(row->qnet_address, "node.qnetAddress", ret) != 0)
		return -EINVAL;
	return text_check(row->version, LIMIT_NAME, "node.version", ret);
}

const char *site_tenant(const Tb__Site *site)
{
	for (size_t i = 0; i < site->n_labels; i++)
		if (strcmp(site->labels[i]->key, "tenant") == 0)
			return site->labels[i]->value;
	return "";
}

int token_check(const Tb__Token *row, struct apply_problem *ret)
{
	bool site = row->role == TB__ROLE__ROLE_SITE || row->role == TB__ROLE__ROLE_AGENT;

	if (hex_check(row->id, 16, "token.id", ret) != 0)
		return -EINVAL;
	if (row->name[0] != '\0' && name_check(row->name, "token.name", ret) != 0)
		return -EINVAL;
	if (row->role == TB__ROLE__ROLE_NONE || !enum_known(&tb__role__descriptor, (int)row->role))
		return problem(
			ret, "token.role",
			"a token needs a role: viewer, operator, admin, node, site or agent");
	if (row->secret_sha256.len != 32)
		return problem(ret, "token.secretSha256", "a SHA-256 has 32 bytes");
	if (row->tenant[0] != '\0') {
		if (row->role != TB__ROLE__ROLE_VIEWER && row->role != TB__ROLE__ROLE_OPERATOR)
			return problem(ret, "token.tenant",
				       "a tenant's token is of role viewer or operator");
		if (name_check(row->tenant, "token.tenant", ret) != 0)
			return -EINVAL;
	}
	if (site)
		return name_check(row->site, "token.site", ret);
	if (row->site[0] != '\0')
		return problem(ret, "token.site",
			       "only a token of role site or agent names a site; leave it out");
	return 0;
}

int certificate_check(const Tb__Certificate *row, struct apply_problem *ret)
{
	bool client = strcmp(row->kind, "client") == 0;
	Tb__Role own = strcmp(row->kind, "node") == 0 ? TB__ROLE__ROLE_NODE : TB__ROLE__ROLE_SITE;

	if (hex_check(row->serial, 32, "certificate.serial", ret) != 0 ||
	    name_check(row->subject, "certificate.subject", ret) != 0)
		return -EINVAL;
	if (!client && strcmp(row->kind, "node") != 0 && strcmp(row->kind, "site") != 0 &&
	    strcmp(row->kind, "agent") != 0)
		return problem(ret, "certificate.kind", "use node, client, site or agent");
	if (client && row->role != TB__ROLE__ROLE_VIEWER && row->role != TB__ROLE__ROLE_OPERATOR &&
	    row->role != TB__ROLE__ROLE_ADMIN)
		return problem(ret, "certificate.role",
			       "a client certificate is for viewer, operator or admin");
	if (!client && row->role != TB__ROLE__ROLE_NONE && row->role != own)
		return problem(ret, "certificate.role",
			       "the certificate of a board or site has no other role than node or "
			       "site; leave it out");
	return 0;
}

int grant_check(const Tb__Grant *row, struct apply_problem *ret)
{
	if (row->epoch == 0 || row->epoch > INT64_MAX)
		return problem(ret, "grant.epoch", "epochs run from 1 to 2^63 - 1");
	if (row->n_nodes == 0 || row->n_nodes > LIMIT_SITE_NODES)
		return problem(ret, "grant.nodes", "a vote goes to 1 to %d nodes, not to %zu",
			       LIMIT_SITE_NODES, row->n_nodes);
	for (size_t i = 0; i < row->n_nodes; i++) {
		if (row->nodes[i] <= (i == 0 ? 0 : row->nodes[i - 1]))
			return problem(ret, "grant.nodes",
				       "node ids are above 0, sorted, and each there once");
	}
	if (row->lease && row->n_nodes != 1)
		return problem(ret, "grant.nodes", "a lease goes to one node");
	return text_check(row->reason, LIMIT_MESSAGE, "grant.reason", ret);
}

int event_check(const Tb__Event *row, struct apply_problem *ret)
{
	if (word_check(row->type, "._-", LIMIT_NAME,
		       "1 to 64 letters, digits, dots, dashes and underscores", "event.type",
		       ret) != 0)
		return -EINVAL;
	if (!enum_known(&tb__severity__descriptor, (int)row->severity))
		return problem(ret, "event.severity", "use info, warning or error");
	if (text_check(row->actor, CHECK_ACTOR, "event.actor", ret) != 0 ||
	    text_check(row->site, LIMIT_NAME, "event.site", ret) != 0 ||
	    text_check(row->node, LIMIT_NAME, "event.node", ret) != 0 ||
	    text_check(row->vm, LIMIT_NAME, "event.vm", ret) != 0)
		return -EINVAL;
	return text_check(row->message, LIMIT_MESSAGE, "event.message", ret);
}

/* Addresses that no site could reach a board by, or that are not one machine's. */
static int service_ip_check(const struct ip *ip, struct apply_problem *ret)
{
	static const uint8_t loopback[16] = {[15] = 1};
	static const uint8_t none[16] = {0};
	const uint8_t *b = ip->bytes;
	bool v4 = ip->len == 4;

	if (v4 ? b[0] == 0 : memcmp(b, none, 16) == 0)
		return problem(ret, "address", "%s is no address of a machine",
			       v4 ? "0.0.0.0/8" : "::");
	if (v4 ? b[0] == 127 : memcmp(b, loopback, 16) == 0)
		return problem(ret, "address",
			       "it is a loopback address, which no other machine can reach");
	if (v4 ? (b[0] & 0xf0) == 0xe0 : b[0] == 0xff)
		return problem(ret, "address", "it is a multicast address; use one of a machine");
	if (v4 && b[0] >= 0xf0)
		return problem(ret, "address", "240.0.0.0/4 is reserved; use one of a machine");
	if (!v4 && b[0] == 0xfe && (b[1] & 0xc0) == 0x80)
		return problem(ret, "address",
			       "it is a link-local address, which a site cannot name; use a "
			       "global or unique local one (fd00::/8)");
	return 0;
}

static int interface_check(const char *name, struct apply_problem *ret)
{
	if (name[0] == '\0')
		return problem(ret, "interface",
			       "it is missing; name one of the boards (ip link): eth0");
	if (strnlen(name, LIMIT_INTERFACE + 1) > LIMIT_INTERFACE)
		return problem(ret, "interface",
			       "it is longer than %d bytes, so it is no name of an interface",
			       LIMIT_INTERFACE);
	for (const char *c = name; *c != '\0'; c++)
		/* char has a sign on some boards and none on others. */
		if ((uint8_t)*c <= ' ' || (uint8_t)*c >= 0x7f || strchr("/:%", *c) != NULL)
			return problem(ret, "interface",
				       "an interface's name has letters, digits, dots, dashes and "
				       "underscores");
	if (strcmp(name, "lo") == 0)
		return problem(ret, "interface", "lo is the loopback, where no site can reach it");
	return 0;
}

static int address_boards_check(const Tb__ServiceAddress *row, struct apply_problem *ret)
{
	if (row->n_boards > LIMIT_NODES)
		return problem(ret, "boards", "a cluster has at most %d boards", LIMIT_NODES);
	for (size_t i = 0; i < row->n_boards; i++) {
		if (name_check(row->boards[i], "boards", ret) != 0)
			return -EINVAL;
		if (i > 0 && strcmp(row->boards[i - 1], row->boards[i]) >= 0)
			return problem(ret, "boards", "name each board once, sorted");
	}
	return 0;
}

int service_address_check(const Tb__ServiceAddress *row, struct apply_problem *ret)
{
	char text[IP_TEXT];
	struct ip ip;

	if (ip_parse(row->address, &ip) != 0)
		return problem(ret, "address",
			       "it is no address; write it as in 10.0.0.5 or fd00::5");
	ip_format(&ip, text);
	if (strcmp(text, row->address) != 0)
		return problem(ret, "address", "write it as %s", text);
	if (service_ip_check(&ip, ret) != 0)
		return -EINVAL;
	if (row->prefix == 0 || row->prefix > 8u * ip.len)
		return problem(ret, "prefix",
			       "the prefix length is missing or wrong: 1 to %u, that of the "
			       "network at the interface",
			       8u * ip.len);
	/* Networks of two or one have neither (RFC 3021). */
	if (ip.len == 4 && row->prefix < 31 &&
	    (ip_host_is(&ip, row->prefix, false) || ip_host_is(&ip, row->prefix, true)))
		return problem(ret, "address",
			       "with prefix length %u it is the network itself or its broadcast",
			       row->prefix);
	if (interface_check(row->interface, ret) != 0)
		return -EINVAL;
	return address_boards_check(row, ret);
}
