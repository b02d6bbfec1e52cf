#include "hv/spec.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "hv/layout.h"
#include "lib/hex.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "proto/json.h"

enum { PATH_MAX_BYTES = 4095, TAP_NAME_MAX = 15 };

static const char default_command_line[] = "console=hvc0 quiet";

/* Replaces a string of a message. */
static void text_set(char **at, char *owned)
{
	if (*at != protobuf_c_empty_string) {
		free(*at);
	}
	*at = owned;
}

static bool is_set(const char *text)
{
	return text[0] != '\0';
}

static int json_fault(const struct json_error *error, struct fault *fault)
{
	if (error->line > 0) {
		return fault_set(fault, -EINVAL,
				 "line %d: %s; a spec is one JSON object such as "
				 "{\"name\":\"vm-1\",\"kernel\":\"Image\"}",
				 error->line, error->message);
	}
	return fault_set(fault, -EINVAL, "%s%s%s", error->field, is_set(error->field) ? ": " : "",
			 error->message);
}

/* Reading */

static void path_prefix(char **path, const char *folder)
{
	if (is_set(*path) && (*path)[0] != '/') {
		text_set(path, mem_printf("%s/%s", folder, *path));
	}
}

static void paths_prefix(Tb__VmSpec *spec, const char *folder)
{
	path_prefix(&spec->kernel, folder);
	path_prefix(&spec->initrd, folder);
	path_prefix(&spec->control, folder);
	for (size_t i = 0; i < spec->n_disks; i++) {
		path_prefix(&spec->disks[i]->path, folder);
	}
	if (spec->restore != NULL) {
		path_prefix(&spec->restore->state, folder);
		path_prefix(&spec->restore->memory, folder);
	}
}

int spec_parse(const char *text, size_t len, const char *folder, Tb__VmSpec **ret,
	       struct fault *fault)
{
	struct json_error error = {0};
	ProtobufCMessage *message;

	if (len > SPEC_TEXT_MAX) {
		return fault_set(fault, -EINVAL, "a spec of more than %d bytes is none",
				 SPEC_TEXT_MAX);
	}
	if (json_decode(&tb__vm_spec__descriptor, text, len, &message, &error) != 0) {
		return json_fault(&error, fault);
	}
	*ret = (Tb__VmSpec *)message;
	if (folder != NULL && is_set(folder)) {
		paths_prefix(*ret, folder);
	}
	return 0;
}

void spec_free(Tb__VmSpec *spec)
{
	if (spec != NULL) {
		tb__vm_spec__free_unpacked(spec, NULL);
	}
}

/* Overrides */

/* Item `number` of a list of messages, made if it is the next one. NULL: out of reach. */
static ProtobufCMessage *list_item(ProtobufCMessage ***list, size_t *count, uint64_t number,
				   size_t max, size_t size, void (*init)(void *message))
{
	if (number > *count || number >= max) {
		return NULL;
	}
	if (number == *count) {
		ProtobufCMessage *item = mem_alloc(size);

		init(item);
		*list = mem_realloc(*list, (*count + 1) * sizeof(**list));
		(*list)[(*count)++] = item;
	}
	return (*list)[number];
}

static void disk_init(void *message)
{
	tb__disk_spec__init(message);
}

static void nic_init(void *message)
{
	tb__nic_spec__init(message);
}

static ProtobufCMessage *override_list(Tb__VmSpec *spec, const char *name, uint64_t number)
{
	if (strcmp(name, "disks") == 0) {
		return list_item((ProtobufCMessage ***)&spec->disks, &spec->n_disks, number,
				 SPEC_DISKS_MAX, sizeof(Tb__DiskSpec), disk_init);
	}
	if (strcmp(name, "nics") == 0) {
		return list_item((ProtobufCMessage ***)&spec->nics, &spec->n_nics, number,
				 SPEC_NICS_MAX, sizeof(Tb__NicSpec), nic_init);
	}
	return NULL;
}

/* "disks[1].path": the message and what is behind the dot. */
static int override_item(Tb__VmSpec *spec, const char *field, ProtobufCMessage **ret,
			 const char **ret_rest, struct fault *fault)
{
	char name[16];
	char digits[8];
	int end = 0;
	uint64_t number;

	if (sscanf(field, "%15[a-z][%7[0-9]].%n", name, digits, &end) != 2 || end == 0 ||
	    text_to_u64(digits, 0, SPEC_DISKS_MAX, &number) != 0) {
		return fault_set(fault, -EINVAL,
				 "%s: write one item as disks[0].path or nics[0].tap", field);
	}
	*ret = override_list(spec, name, number);
	if (*ret == NULL) {
		return fault_set(fault, -EINVAL,
				 "%s: %s[%" PRIu64 "] is neither there nor the next one", field,
				 name, number);
	}
	*ret_rest = field + end;
	return 0;
}

int spec_override(Tb__VmSpec *spec, const char *assignment, struct fault *fault)
{
	const char *equals = strchr(assignment, '=');
	ProtobufCMessage *message = &spec->base;
	struct json_error error = {0};
	const char *rest;
	char *field;
	int rv = 0;

	if (equals == NULL || equals == assignment) {
		return fault_set(fault, -EINVAL,
				 "\"%.64s\" sets nothing; write FIELD=VALUE, as in memoryMib=256",
				 assignment);
	}
	field = mem_strndup(assignment, (size_t)(equals - assignment));
	rest = field;
	if (strchr(field, '[') != NULL) {
		rv = override_item(spec, field, &message, &rest, fault);
	}
	if (rv == 0 && json_set(message, rest, equals + 1, &error) != 0) {
		rv = json_fault(&error, fault);
	}
	free(field);
	return rv;
}

int spec_restore(Tb__VmSpec *spec, const char *folder, struct fault *fault)
{
	static const char *const cleared[] = {
		"kernel=", "initrd=", "commandLine=", "generationId="};
	char *state = mem_printf("restore.state=%s/state", folder);
	char *memory = mem_printf("restore.memory=%s/memory", folder);
	int rv = 0;

	for (size_t i = 0; rv == 0 && i < sizeof(cleared) / sizeof(cleared[0]); i++) {
		rv = spec_override(spec, cleared[i], fault);
	}
	rv = rv < 0 ? rv : spec_override(spec, state, fault);
	rv = rv < 0 ? rv : spec_override(spec, memory, fault);
	free(state);
	free(memory);
	return rv;
}

/* Checks */

static int check_range(const char *field, uint64_t value, uint64_t min, uint64_t max,
		       const char *unit, struct fault *fault)
{
	if (value < min || value > max) {
		return fault_set(fault, -EINVAL,
				 "%s: %" PRIu64 " is not between %" PRIu64 " and %" PRIu64 "%s",
				 field, value, min, max, unit);
	}
	return 0;
}

/* No byte that a terminal, a log or a kernel's command line would take for something else. */
static int check_printable(const char *field, const char *text, size_t max, struct fault *fault)
{
	size_t len = strlen(text);

	if (len > max) {
		return fault_set(fault, -EINVAL, "%s: %zu bytes; at most %zu", field, len, max);
	}
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
			return fault_set(fault, -EINVAL, "%s: has a control character", field);
		}
	}
	if (!text_is_utf8(text, len)) {
		return fault_set(fault, -EINVAL, "%s: is not UTF-8", field);
	}
	return 0;
}

static int check_path(const char *field, const char *path, bool needed, struct fault *fault)
{
	if (needed && !is_set(path)) {
		return fault_set(fault, -EINVAL, "%s: must be given", field);
	}
	return check_printable(field, path, PATH_MAX_BYTES, fault);
}

static int check_name(const char *name, struct fault *fault)
{
	size_t len = strlen(name);

	if (len == 0) {
		return fault_set(fault, -EINVAL, "name: must be given");
	}
	if (len > SPEC_NAME_MAX || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != len) {
		return fault_set(fault, -EINVAL,
				 "name: must be 1 to %d characters from a-z, 0-9 and -",
				 SPEC_NAME_MAX);
	}
	return 0;
}

static int check_boot(Tb__VmSpec *spec, bool paths, struct fault *fault)
{
	const Tb__RestoreSpec *r = spec->restore;
	int rv;

	if (r != NULL &&
	    (is_set(spec->kernel) || is_set(spec->initrd) || is_set(spec->command_line))) {
		return fault_set(fault, -EINVAL,
				 "restore: excludes kernel, initrd and commandLine; the snapshot "
				 "has the running ones");
	}
	if (r != NULL) {
		rv = check_path("restore.state", r->state, paths, fault);
		return rv != 0 ? rv : check_path("restore.memory", r->memory, paths, fault);
	}
	if (paths && !is_set(spec->kernel)) {
		return fault_set(fault, -EINVAL,
				 "kernel: must be given (the path of an arm64 Linux Image), or "
				 "restore");
	}
	rv = check_path("kernel", spec->kernel, false, fault);
	rv = rv != 0 ? rv : check_path("initrd", spec->initrd, false, fault);
	rv = rv != 0 ? rv
		     : check_printable("commandLine", spec->command_line, SPEC_COMMAND_LINE_MAX,
				       fault);
	if (rv == 0 && !is_set(spec->command_line)) {
		text_set(&spec->command_line, mem_strdup(default_command_line));
	}
	return rv;
}

static int check_size(Tb__VmSpec *spec, struct fault *fault)
{
	int rv;

	spec->vcpus = spec->vcpus == 0 ? 1 : spec->vcpus;
	spec->memory_mib = spec->memory_mib == 0 ? 128 : spec->memory_mib;
	rv = check_range("vcpus", spec->vcpus, 1, LAYOUT_VCPUS_MAX, "", fault);
	return rv != 0 ? rv
		       : check_range("memoryMib", spec->memory_mib, LAYOUT_MEMORY_MIN_MIB,
				     LAYOUT_MEMORY_MAX_MIB, " MiB", fault);
}

/* Words that protobuf carries as any number. */
static int check_words(const Tb__VmSpec *spec, struct fault *fault)
{
	const struct {
		const char *field;
		const ProtobufCEnumDescriptor *type;
		int value;
	} words[] = {
		{"backing", &tb__memory_backing__descriptor, (int)spec->backing},
		{"gic", &tb__gic_version__descriptor, (int)spec->gic},
		{"onReset", &tb__on_reset__descriptor, (int)spec->on_reset},
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (protobuf_c_enum_descriptor_get_value(words[i].type, words[i].value) == NULL) {
			return fault_set(fault, -EINVAL, "%s: %d is none of its values",
					 words[i].field, words[i].value);
		}
	}
	if (spec->backing == TB__MEMORY_BACKING__MEMORY_BACKING_SHARED && spec->restore == NULL) {
		return fault_set(fault, -EINVAL,
				 "backing: \"shared\" shares the memory file of a snapshot; it "
				 "needs restore");
	}
	return 0;
}

static int check_disk(Tb__VmSpec *spec, size_t number, bool paths, struct fault *fault)
{
	Tb__DiskSpec *disk = spec->disks[number];
	char field[40];
	int rv;

	snprintf(field, sizeof(field), "disks[%zu].path", number);
	rv = check_path(field, disk->path, paths, fault);
	if (rv != 0) {
		return rv;
	}
	for (size_t i = 0; i < number; i++) {
		if (is_set(disk->path) && strcmp(spec->disks[i]->path, disk->path) == 0) {
			return fault_set(fault, -EINVAL, "%s: is disks[%zu] again", field, i);
		}
	}
	if (disk->as_saved && spec->restore == NULL) {
		return fault_set(fault, -EINVAL,
				 "disks[%zu].asSaved: says what a disk holds at a restore; leave "
				 "it out, or give restore",
				 number);
	}
	snprintf(field, sizeof(field), "disks[%zu].id", number);
	if (!is_set(disk->id)) {
		text_set(&disk->id, mem_printf("disk%zu", number));
	}
	rv = check_printable(field, disk->id, SPEC_DISK_ID_MAX, fault);
	for (size_t i = 0; rv == 0 && i < number; i++) {
		if (strcmp(spec->disks[i]->id, disk->id) == 0) {
			rv = fault_set(fault, -EINVAL, "%s: \"%s\" is the id of disks[%zu] too",
				       field, disk->id, i);
		}
	}
	return rv;
}

static int check_disks(Tb__VmSpec *spec, bool paths, struct fault *fault)
{
	int rv = 0;

	if (spec->n_disks > SPEC_DISKS_MAX) {
		return fault_set(fault, -EINVAL, "disks: %zu; at most %d", spec->n_disks,
				 SPEC_DISKS_MAX);
	}
	for (size_t i = 0; rv == 0 && i < spec->n_disks; i++) {
		rv = check_disk(spec, i, paths, fault);
	}
	return rv;
}

int spec_mac_parse(const char *text, uint8_t ret[6])
{
	char digits[13];
	uint8_t mac[6];
	static const uint8_t zeros[6];

	if (strlen(text) != 17) {
		return -EINVAL;
	}
	for (unsigned i = 0; i < 6; i++) {
		if (i < 5 && text[3 * i + 2] != ':') {
			return -EINVAL;
		}
		memcpy(digits + 2 * i, text + 3 * i, 2);
	}
	digits[12] = '\0';
	if (hex_decode(digits, mac, 6) != 0 || (mac[0] & 1) != 0 || memcmp(mac, zeros, 6) == 0) {
		return -EINVAL;
	}
	memcpy(ret, mac, 6);
	return 0;
}

static void mac_print(const uint8_t mac[6], char text[18])
{
	snprintf(text, 18, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
		 mac[5]);
}

void spec_mac_derive(const char *name, unsigned number, char text[18])
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a, then mixed as SplitMix64 does */
	uint8_t mac[6];

	for (const char *c = name; *c != '\0'; c++) {
		hash = (hash ^ (uint8_t)*c) * UINT64_C(0x100000001b3);
	}
	hash += (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
	hash = (hash ^ hash >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	hash = (hash ^ hash >> 27) * UINT64_C(0x94d049bb133111eb);
	hash ^= hash >> 31;
	for (unsigned i = 0; i < 6; i++) {
		mac[i] = (uint8_t)(hash >> (8 * i));
	}
	mac[0] = (uint8_t)((mac[0] & 0xfc) | 0x02);
	mac_print(mac, text);
}

static int check_mac(Tb__NicSpec *nic, const char *name, unsigned number, struct fault *fault)
{
	char field[40];
	char text[18];
	uint8_t mac[6];
	int rv;

	snprintf(field, sizeof(field), "nics[%u].mac", number);
	rv = check_printable(field, nic->mac, 64, fault);
	if (rv != 0) {
		return rv;
	}
	if (!is_set(nic->mac)) {
		spec_mac_derive(name, number, text);
	} else if (spec_mac_parse(nic->mac, mac) == 0) {
		mac_print(mac, text);
	} else {
		return fault_set(fault, -EINVAL,
				 "%s: \"%s\" is not the address of one card; write it as "
				 "52:54:00:12:34:56",
				 field, nic->mac);
	}
	text_set(&nic->mac, mem_strdup(text));
	return 0;
}

static int check_tap(const char *tap, unsigned number, bool paths, struct fault *fault)
{
	char field[40];
	int rv;

	snprintf(field, sizeof(field), "nics[%u].tap", number);
	if (paths && !is_set(tap)) {
		return fault_set(fault, -EINVAL, "%s: must be given, the name of a tap interface",
				 field);
	}
	rv = check_printable(field, tap, TAP_NAME_MAX, fault);
	if (rv == 0 && strpbrk(tap, "/ %:") != NULL) {
		rv = fault_set(fault, -EINVAL, "%s: \"%s\" is no interface's name", field, tap);
	}
	return rv;
}

static int check_nics(Tb__VmSpec *spec, bool paths, struct fault *fault)
{
	int rv = 0;

	if (spec->n_nics > SPEC_NICS_MAX) {
		return fault_set(fault, -EINVAL, "nics: %zu; at most %d", spec->n_nics,
				 SPEC_NICS_MAX);
	}
	for (size_t i = 0; rv == 0 && i < spec->n_nics; i++) {
		Tb__NicSpec *nic = spec->nics[i];

		rv = check_tap(nic->tap, (unsigned)i, paths, fault);
		rv = rv != 0 ? rv : check_mac(nic, spec->name, (unsigned)i, fault);
		for (size_t k = 0; rv == 0 && k < i; k++) {
			if (strcmp(spec->nics[k]->mac, nic->mac) == 0) {
				rv = fault_set(fault, -EINVAL,
					       "nics[%zu].mac: %s is the address of nics[%zu] too",
					       i, nic->mac, k);
			} else if (is_set(nic->tap) && strcmp(spec->nics[k]->tap, nic->tap) == 0) {
				rv = fault_set(fault, -EINVAL,
					       "nics[%zu].tap: \"%s\" is the tap of nics[%zu] too",
					       i, nic->tap, k);
			}
		}
	}
	return rv;
}

int spec_generation_parse(const char *text, uint8_t ret[16])
{
	return strlen(text) == 32 ? hex_decode(text, ret, 16) : -EINVAL;
}

static int check_rest(const Tb__VmSpec *spec, struct fault *fault)
{
	uint8_t generation[16];
	int rv = 0;

	if (spec->vsock_cid != 0) {
		rv = check_range("vsockCid", spec->vsock_cid, 3, 0xfffffffe, "", fault);
	}
	if (rv == 0 && spec->lease_ms != 0) {
		rv = check_range("leaseMs", spec->lease_ms, SPEC_LEASE_MIN_MS, SPEC_LEASE_MAX_MS,
				 " ms", fault);
	}
	if (rv == 0 && is_set(spec->generation_id) &&
	    spec_generation_parse(spec->generation_id, generation) != 0) {
		rv = fault_set(fault, -EINVAL, "generationId: must be 32 hexadecimal digits");
	}
	if (rv == 0 && strlen(spec->control) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
		rv = fault_set(fault, -EINVAL,
			       "control: the path of a socket has at most %zu "
			       "bytes, with the spec's folder in front",
			       sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	}
	return rv != 0 ? rv : check_path("control", spec->control, false, fault);
}

static int check_sandbox(const Tb__SandboxSpec *s, struct fault *fault)
{
	if (s == NULL) {
		return 0;
	}
	if ((s->uid == 0) != (s->gid == 0)) {
		return fault_set(fault, -EINVAL,
				 "sandbox: uid and gid go together, and neither is 0");
	}
	return check_path("sandbox.cgroup", s->cgroup, false, fault);
}

int spec_finish(Tb__VmSpec *spec, bool paths, struct fault *fault)
{
	int rv = check_name(spec->name, fault);

	rv = rv != 0 ? rv : check_boot(spec, paths, fault);
	rv = rv != 0 ? rv : check_size(spec, fault);
	rv = rv != 0 ? rv : check_words(spec, fault);
	rv = rv != 0 ? rv : check_disks(spec, paths, fault);
	rv = rv != 0 ? rv : check_nics(spec, paths, fault);
	rv = rv != 0 ? rv : check_rest(spec, fault);
	return rv != 0 ? rv : check_sandbox(spec->sandbox, fault);
}
