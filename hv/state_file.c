#include "hv/state_file.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/class.h"
#include "hv/gic_words.h"
#include "hv/layout.h"
#include "hv/pl011.h"
#include "hv/register_name.h"
#include "hv/virtio/virtio.h"
#include "hv/vmgenid.h"
#include "lib/mem.h"
#include "lib/rng.h"
#include "proto/frame.h"

static const char magic[8] = {'T', 'B', 'V', 'M', 'S', 'T', 'A', 'T'};

enum { AT_VERSION = 8, AT_LENGTH = 12, AT_SUM = 16 };
enum { STOLEN_SIZE = 64, MEMORY_ID_SIZE = 16, PROGRAM_MAX = 64, NANOSECONDS = 1000000000 };

/* One step of SplitMix64 (lib/rng.h): a bijection. */
static uint64_t mix(uint64_t sum, uint64_t word)
{
	struct prng p = {.state = sum ^ word};

	return prng_u64(&p);
}

static uint64_t mix_bytes(uint64_t sum, const uint8_t *data, size_t len)
{
	uint64_t word;

	for (; len >= sizeof(word); data += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, data, sizeof(word));
		sum = mix(sum, le64toh(word));
	}
	word = 0;
	memcpy(&word, data, len);
	return len > 0 ? mix(sum, le64toh(word)) : sum;
}

uint64_t state_file_sum(const uint8_t head[AT_SUM], const uint8_t *record, size_t len)
{
	return mix_bytes(mix_bytes(0, head, AT_SUM), record, len);
}

void state_file_encode(const Tb__VmSnapshot *snapshot, struct buf *out)
{
	size_t len = tb__vm_snapshot__get_packed_size(snapshot);
	size_t begin = out->len;
	uint8_t *record;

	assert(len <= STATE_FILE_MAX - STATE_FILE_HEAD);
	buf_append(out, magic, sizeof(magic));
	buf_put_u32(out, STATE_FILE_VERSION);
	buf_put_u32(out, (uint32_t)len);
	record = buf_reserve(out, sizeof(uint64_t) + len) + sizeof(uint64_t);
	tb__vm_snapshot__pack(snapshot, record);
	buf_put_u64(out, state_file_sum(out->data + begin, record, len));
	out->len += len;
}

/* --- reading: first the frame, then each part of the record
 * ----------------------------------------- */

static uint32_t big_endian(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static int bad(struct fault *fault, const char *what)
{
	return fault_set(fault, -EBADMSG, "the state file cannot be used: %s", what);
}

static int frame_check(const uint8_t *data, size_t len, struct fault *fault)
{
	if (len < STATE_FILE_HEAD || memcmp(data, magic, sizeof(magic)) != 0) {
		return bad(fault, "it is not a state file of witness-vm");
	}
	if (big_endian(data + AT_VERSION) != STATE_FILE_VERSION) {
		return fault_set(fault, -EBADMSG,
				 "the state file has layout %u, this witness-vm reads layout %d: "
				 "restore it with the release that saved it",
				 big_endian(data + AT_VERSION), STATE_FILE_VERSION);
	}
	if (len > STATE_FILE_MAX || big_endian(data + AT_LENGTH) != len - STATE_FILE_HEAD) {
		return bad(fault, "it is cut off, or has bytes behind its end");
	}
	if (((uint64_t)big_endian(data + AT_SUM) << 32 | big_endian(data + AT_SUM + 4)) !=
	    state_file_sum(data, data + STATE_FILE_HEAD, len - STATE_FILE_HEAD)) {
		return bad(fault, "it is damaged, its checksum does not match");
	}
	return 0;
}

static bool is_known(const ProtobufCMessage *message)
{
	return message != NULL && message->n_unknown_fields == 0;
}

static const char *hardware_check(const Tb__VmHardware *h)
{
	if (!is_known(&h->base)) {
		return "hardware is incomplete";
	}
	if (h->vcpus < 1 || h->vcpus > LAYOUT_VCPUS_MAX) {
		return "hardware.vcpus is not 1 to 8";
	}
	if (h->memory_bytes % (1 << 20) != 0 ||
	    h->memory_bytes < (uint64_t)LAYOUT_MEMORY_MIN_MIB << 20 ||
	    h->memory_bytes > (uint64_t)LAYOUT_MEMORY_MAX_MIB << 20) {
		return "hardware.memoryBytes is out of its range";
	}
	if (h->gic != TB__GIC_VERSION__GIC_VERSION_V2 &&
	    h->gic != TB__GIC_VERSION__GIC_VERSION_V3) {
		return "hardware.gic is not 2 or 3";
	}
	return NULL;
}

static const char *class_check(const Tb__HostClass *c)
{
	struct host_class *room;
	bool good;

	if (!is_known(&c->base)) {
		return "hostClass is incomplete";
	}
	room = mem_alloc(sizeof(*room));
	good = class_unpack(c, room) && class_id(room) == c->id;
	free(room);
	return good ? NULL : "hostClass has parts out of order, or not those of its id";
}

static const char *clock_check(const Tb__VmClock *c)
{
	if (!is_known(&c->base)) {
		return "clock is incomplete";
	}
	return c->frequency == 0 || c->frequency > UINT32_MAX
		       ? "clock.frequency is out of its range"
		       : NULL;
}

/* KVM API, KVM_GET_MP_STATE on arm64. */
static bool is_power_state(uint32_t state)
{
	enum { RUNNABLE = 0, STOPPED = 5, SUSPENDED = 9 };

	return state == RUNNABLE || state == STOPPED || state == SUSPENDED;
}

static const char *vcpu_check(const Tb__VcpuState *v)
{
	size_t len = 0, i;

	if (!is_known(&v->base) || !is_power_state(v->mp_state)) {
		return "a vCPU has a power state that is none";
	}
	if (v->n_register_ids == 0 || v->n_register_ids > STATE_REGISTERS_MAX) {
		return "a vCPU has no registers, or too many";
	}
	for (i = 0; i < v->n_register_ids; i++) {
		unsigned size = register_size(v->register_ids[i]);

		if (size == 0) {
			return "a vCPU has a register that is none of arm64";
		}
		len += size;
	}
	return len == v->register_values.len
		       ? NULL
		       : "the values of a vCPU's registers are not as long as its ids say";
}

static const char *vcpus_check(const Tb__VmSnapshot *s)
{
	const char *problem;
	size_t i;

	if (s->n_vcpus != s->hardware->vcpus) {
		return "vcpus and hardware.vcpus differ";
	}
	for (i = 0; i < s->n_vcpus; i++) {
		problem = vcpu_check(s->vcpus[i]);
		if (problem != NULL) {
			return problem;
		}
	}
	return NULL;
}

static const char *gic_check(const Tb__VmGicState *g, const Tb__VmHardware *h)
{
	bool v3 = h->gic == TB__GIC_VERSION__GIC_VERSION_V3;

	if (!is_known(&g->base) || g->interrupts != LAYOUT_INTERRUPTS) {
		return "gic is incomplete, or of another number of interrupts";
	}
	if (v3 ? g->priority_bits < 5 || g->priority_bits > 7 : g->priority_bits != 0) {
		return "gic.priorityBits is out of its range";
	}
	return g->n_words <= GIC_WORDS_MAX ? NULL : "gic has too many words";
}

static const char *uart_check(const Tb__Pl011State *u)
{
	if (!is_known(&u->base) || u->fifo.len > PL011_FIFO) {
		return "uart is incomplete, or its fifo too long";
	}
	return (u->cr | u->lcr | u->ibrd | u->fbrd | u->ifls | u->imsc | u->ris) > UINT16_MAX
		       ? "a register of uart has more than 16 bits"
		       : NULL;
}

static const char *rtc_check(const Tb__Pl031State *r)
{
	/* A guest sets it with 32 bits of seconds. */
	if (!is_known(&r->base) || r->offset_s > INT64_C(1) << 33 ||
	    r->offset_s < -(INT64_C(1) << 40)) {
		return "rtc is incomplete, or off by more than a guest can set";
	}
	return NULL;
}

static const char *queue_check(const Tb__QueueState *q)
{
	if (!is_known(&q->base) || q->size > QUEUE_SIZE_MAX || (q->size & (q->size - 1)) != 0 ||
	    q->next_avail > UINT16_MAX || q->next_used > UINT16_MAX) {
		return "a queue of a device is out of its bounds";
	}
	return NULL;
}

static const char *disk_check(const Tb__DiskMark *m)
{
	if (m != NULL && (!is_known(&m->base) || m->nanoseconds >= NANOSECONDS)) {
		return "the last write of a disk is at no time";
	}
	return NULL;
}

static const char *device_check(const Tb__VirtioState *d)
{
	const char *problem;
	size_t name = strlen(d->name), i;

	if (!is_known(&d->base) || name == 0 || name >= sizeof(((struct virtio *)NULL)->name)) {
		return "a device has no name, or too long a one";
	}
	for (i = 0; i < name; i++) {
		if ((d->name[i] < 'a' || d->name[i] > 'z') &&
		    (d->name[i] < '0' || d->name[i] > '9')) {
			return "a device has a name that is no word";
		}
	}
	if (d->status > UINT8_MAX || d->config.len > VIRTIO_CONFIG_MAX ||
	    d->n_queues > VIRTIO_QUEUES_MAX || d->n_words > VIRTIO_STATE_WORDS) {
		return "a device is out of its bounds";
	}
	for (i = 0; i < d->n_queues; i++) {
		problem = queue_check(d->queues[i]);
		if (problem != NULL) {
			return problem;
		}
	}
	return disk_check(d->disk);
}

static const char *devices_check(const Tb__VmSnapshot *s)
{
	const char *problem;
	size_t i;

	if (s->n_devices > LAYOUT_VIRTIO_MAX) {
		return "too many devices";
	}
	for (i = 0; i < s->n_devices; i++) {
		problem = device_check(s->devices[i]);
		if (problem != NULL) {
			return problem;
		}
	}
	return NULL;
}

static const char *ids_check(const Tb__VmSnapshot *s)
{
	size_t i;

	if (s->generation_id.len != VMGENID_SIZE || s->memory_id.len != MEMORY_ID_SIZE) {
		return "generationId or memoryId is not of 16 bytes";
	}
	if (s->stolen_time.len != 0 && s->stolen_time.len != STOLEN_SIZE * s->n_vcpus) {
		return "stolenTime is not of 64 bytes for each vCPU";
	}
	for (i = 0; s->program[i] != '\0'; i++) {
		if (i == PROGRAM_MAX || s->program[i] < ' ' || s->program[i] > '~') {
			return "program is too long, or not plain text";
		}
	}
	return NULL;
}

/* What is wrong with the record, or NULL. Later checks rely on earlier ones. */
static const char *record_check(const Tb__VmSnapshot *s)
{
	const char *problem;

	if (!is_known(&s->base) || s->hardware == NULL || s->host_class == NULL ||
	    s->clock == NULL || s->gic == NULL || s->uart == NULL || s->rtc == NULL) {
		return "a part is missing, or one is there that this release does not know";
	}
	problem = hardware_check(s->hardware);
	problem = problem != NULL ? problem : class_check(s->host_class);
	problem = problem != NULL ? problem : clock_check(s->clock);
	problem = problem != NULL ? problem : vcpus_check(s);
	problem = problem != NULL ? problem : gic_check(s->gic, s->hardware);
	problem = problem != NULL ? problem : uart_check(s->uart);
	problem = problem != NULL ? problem : rtc_check(s->rtc);
	problem = problem != NULL ? problem : devices_check(s);
	return problem != NULL ? problem : ids_check(s);
}

int state_file_decode(const uint8_t *data, size_t len, Tb__VmSnapshot **ret, struct fault *fault)
{
	ProtobufCMessage *message;
	const char *problem;
	int rv = frame_check(data, len, fault);

	if (rv < 0) {
		return rv;
	}
	rv = frame_unpack(&tb__vm_snapshot__descriptor, data + STATE_FILE_HEAD,
			  len - STATE_FILE_HEAD, FRAME_MEMORY(len), &message);
	if (rv < 0) {
		return bad(fault, "its record is none");
	}
	problem = record_check((const Tb__VmSnapshot *)message);
	if (problem != NULL) {
		protobuf_c_message_free_unpacked(message, NULL);
		return bad(fault, problem);
	}
	*ret = (Tb__VmSnapshot *)message;
	return 0;
}

/* --- the file --------------------------------------------------------------------------------- */

static int write_all(int fd, const uint8_t *data, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pwrite(fd, data + done, len - done, (off_t)done);

		if (n < 0 && errno != EINTR) {
			return -errno;
		}
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

int state_file_write(int fd, const Tb__VmSnapshot *snapshot, struct fault *fault)
{
	struct buf out = {0};
	int rv;

	state_file_encode(snapshot, &out);
	rv = ftruncate(fd, 0) < 0 ? -errno : write_all(fd, out.data, out.len);
	buf_free(&out);
	if (rv < 0) {
		return fault_set(fault, rv, "cannot write the state file: %s", strerror(-rv));
	}
	return 0;
}

static int read_all(int fd, uint8_t *data, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, data + done, len - done, (off_t)done);

		if (n == 0 || (n < 0 && errno != EINTR)) {
			return n == 0 ? -EIO : -errno;
		}
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

int state_file_read(int fd, Tb__VmSnapshot **ret, struct fault *fault)
{
	struct stat st;
	uint8_t *data;
	int rv = fstat(fd, &st) < 0 ? -errno : 0;

	if (rv < 0) {
		return fault_set(fault, rv, "cannot look at the state file: %s", strerror(-rv));
	}
	if (!S_ISREG(st.st_mode) || st.st_size > STATE_FILE_MAX) {
		return bad(fault, "it is not a file, or too large for one");
	}
	data = mem_alloc((size_t)st.st_size);
	rv = read_all(fd, data, (size_t)st.st_size);
	if (rv < 0) {
		fault_set(fault, rv, "cannot read the state file: %s", strerror(-rv));
	} else {
		rv = state_file_decode(data, (size_t)st.st_size, ret, fault);
	}
	free(data);
	return rv;
}
