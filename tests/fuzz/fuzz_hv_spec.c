/* Specs of VMs as JSON (and as the protobuf message that a parent sends): an error with a sentence,
 * or a spec that stays the same when it is written, read and checked again. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hv/spec.h"
#include "proto/frame.h"
#include "proto/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
	if (!good) {
		abort();
	}
}

static bool finished(Tb__VmSpec *spec, bool paths)
{
	struct fault fault = {0};
	int rv = spec_finish(spec, paths, &fault);

	must((rv == 0) == (fault.text[0] == '\0'));
	return rv == 0;
}

/* What was taken once is taken again, and nothing more is filled in. */
static void check_again(const Tb__VmSpec *spec, bool paths)
{
	struct buf first = {0};
	struct buf second = {0};
	struct fault fault = {0};
	Tb__VmSpec *again;

	json_encode(&spec->base, &first);
	must(spec_parse((const char *)first.data, first.len, NULL, &again, &fault) == 0);
	must(finished(again, paths));
	json_encode(&again->base, &second);
	must(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
	spec_free(again);
	buf_free(&first);
	buf_free(&second);
}

static void take_json(const uint8_t *data, size_t size, bool paths)
{
	struct fault fault = {0};
	Tb__VmSpec *spec;

	if (spec_parse((const char *)data, size, "folder", &spec, &fault) != 0) {
		must(fault.text[0] != '\0');
		return;
	}
	if (finished(spec, paths)) {
		check_again(spec, paths);
	}
	spec_free(spec);
}

static void take_protobuf(const uint8_t *data, size_t size, bool paths)
{
	ProtobufCMessage *message;

	if (frame_unpack(&tb__vm_spec__descriptor, data, size, FRAME_MEMORY(size), &message) == 0) {
		if (finished((Tb__VmSpec *)message, paths)) {
			check_again((Tb__VmSpec *)message, paths);
		}
		protobuf_c_message_free_unpacked(message, NULL);
	}
}

static void take_override(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size);
	struct fault fault = {0};
	Tb__VmSpec *spec;
	int rv;

	must(spec_parse("{\"disks\":[{}]}", 14, NULL, &spec, &fault) == 0);
	rv = spec_override(spec, text, &fault);
	must((rv == 0) == (fault.text[0] == '\0'));
	spec_free(spec);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0) {
		return 0;
	}
	switch (data[0] % 8) {
	case 0:
		take_protobuf(data + 1, size - 1, data[0] >= 128);
		break;
	case 1:
		take_override(data + 1, size - 1);
		break;
	default:
		take_json(data + 1, size - 1, data[0] >= 128);
		break;
	}
	return 0;
}
