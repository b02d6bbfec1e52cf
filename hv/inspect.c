#include "hv/inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hv/class.h"
#include "hv/gic_words.h"
#include "hv/register_name.h"
#include "hv/state_file.h"
#include "lib/clock.h"
#include "lib/hex.h"
#include "lib/mem.h"

enum { NANOSECONDS_OF_MS = 1000000, VALUE_MAX = 256 };

static void put_bytes(struct buf *out, const char *name, const ProtobufCBinaryData *bytes)
{
	char text[2 * VALUE_MAX + 1];

	hex_encode(bytes->data, bytes->len < VALUE_MAX ? bytes->len : VALUE_MAX, text);
	buf_printf(out, "%s %s\n", name, text);
}

/* Little-endian, as registers lie in memory; shown as a number. */
static void put_value(struct buf *out, const uint8_t *value, unsigned size)
{
	buf_puts(out, "0x");
	while (size-- > 0) {
		buf_printf(out, "%02x", value[size]);
	}
	buf_putc(out, '\n');
}

static void put_vcpu(struct buf *out, size_t number, const Tb__VcpuState *v)
{
	const uint8_t *at = v->register_values.data;
	char name[REGISTER_NAME];
	size_t i;

	buf_printf(out, "vcpu %zu power %u\n", number, v->mp_state);
	buf_printf(out, "vcpu %zu serror %d %d 0x%llx\n", number, v->serror_pending,
		   v->serror_has_esr, (unsigned long long)v->serror_esr);
	for (i = 0; i < v->n_register_ids; i++) {
		unsigned size = register_size(v->register_ids[i]);

		register_name(v->register_ids[i], name);
		buf_printf(out, "vcpu %zu %s ", number, name);
		put_value(out, at, size);
		at += size;
	}
}

static void put_gic(struct buf *out, const Tb__VmSnapshot *s)
{
	const struct gic_shape shape = {
		.version = (unsigned)s->hardware->gic,
		.vcpus = s->hardware->vcpus,
		.interrupts = s->gic->interrupts,
		.priority_bits = s->gic->priority_bits,
	};
	struct gic_word *words = mem_array(GIC_WORDS_MAX, sizeof(words[0]));
	size_t count = gic_words(&shape, words), i;
	char name[GIC_WORD_NAME];

	for (i = 0; i < count && i < s->gic->n_words; i++) {
		gic_word_name(&shape, &words[i], name);
		buf_printf(out, "gic %s 0x%llx\n", name, (unsigned long long)s->gic->words[i]);
	}
	if (count != s->gic->n_words) {
		buf_printf(out, "gic: %zu words, not %zu\n", s->gic->n_words, count);
	}
	free(words);
}

static void put_board_devices(struct buf *out, const Tb__VmSnapshot *s)
{
	const Tb__Pl011State *u = s->uart;

	buf_printf(out, "uart cr 0x%x lcr 0x%x baud %u.%u ifls 0x%x imsc 0x%x ris 0x%x\n", u->cr,
		   u->lcr, u->ibrd, u->fbrd, u->ifls, u->imsc, u->ris);
	put_bytes(out, "uart fifo", &u->fifo);
	buf_printf(out, "rtc offset %lld match %u mask %u\n", (long long)s->rtc->offset_s,
		   s->rtc->match, s->rtc->mask);
	put_bytes(out, "generation", &s->generation_id);
	put_bytes(out, "memory-id", &s->memory_id);
	put_bytes(out, "stolen-time", &s->stolen_time);
}

static void put_device(struct buf *out, const Tb__VirtioState *d)
{
	size_t i;

	for (i = 0; i < d->n_queues; i++) {
		const Tb__QueueState *q = d->queues[i];

		buf_printf(out,
			   "%s queue %zu ready %d size %u desc 0x%llx avail 0x%llx used 0x%llx "
			   "next %u %u\n",
			   d->name, i, q->ready, q->size, (unsigned long long)q->desc,
			   (unsigned long long)q->avail, (unsigned long long)q->used, q->next_avail,
			   q->next_used);
	}
	for (i = 0; i < d->n_words; i++) {
		buf_printf(out, "%s word %zu 0x%llx\n", d->name, i,
			   (unsigned long long)d->words[i]);
	}
	buf_printf(out, "%s generation %u pending %d selects %u %u %u driver 0x%llx\n", d->name,
		   d->config_generation, d->config_pending, d->features_select,
		   d->driver_features_select, d->queue_select,
		   (unsigned long long)d->driver_features);
	buf_printf(out, "%s ", d->name);
	put_bytes(out, "config", &d->config);
}

static void put_class(struct buf *out, const Tb__HostClass *c)
{
	char name[CLASS_NAME];
	size_t i;

	for (i = 0; i < c->n_keys; i++) {
		class_name(c->keys[i], name);
		buf_printf(out, "class %s 0x%llx\n", name, (unsigned long long)c->values[i]);
	}
}

static void put_all(const Tb__VmSnapshot *s, struct buf *out)
{
	size_t i;

	put_class(out, s->host_class);
	for (i = 0; i < s->n_vcpus; i++) {
		put_vcpu(out, i, s->vcpus[i]);
	}
	put_gic(out, s);
	put_board_devices(out, s);
	for (i = 0; i < s->n_devices; i++) {
		put_device(out, s->devices[i]);
	}
}

void inspect_text(const Tb__VmSnapshot *s, bool all, struct buf *out)
{
	char when[32];
	size_t i;

	clock_format_utc(s->clock->realtime_ns / NANOSECONDS_OF_MS, when);
	buf_printf(out, "saved at %s by %s\n", when, s->program);
	buf_printf(out, "hardware %u vCPU%s, %llu MiB of memory, GICv%u, %s performance counters\n",
		   s->hardware->vcpus, s->hardware->vcpus == 1 ? "" : "s",
		   (unsigned long long)(s->hardware->memory_bytes >> 20),
		   (unsigned)s->hardware->gic, s->hardware->pmu ? "with" : "without");
	buf_printf(out, "class %016llx of %zu parts\n", (unsigned long long)s->host_class->id,
		   s->host_class->n_keys);
	buf_printf(out, "clock %llu at %llu Hz\n", (unsigned long long)s->clock->counter,
		   (unsigned long long)s->clock->frequency);
	for (i = 0; i < s->n_devices; i++) {
		const Tb__VirtioState *d = s->devices[i];

		buf_printf(out, "device %zu %s: %s, features 0x%llx, status %u\n", i, d->name,
			   (d->status & 4) != 0 ? "in use" : "without a driver",
			   (unsigned long long)d->acked, d->status);
		if (d->disk != NULL) {
			buf_printf(out, "device %zu %s: last written at %lld.%09u\n", i, d->name,
				   (long long)d->disk->seconds, d->disk->nanoseconds);
		}
	}
	if (all) {
		put_all(s, out);
	}
}

int inspect_main(const char *path, bool all, FILE *out)
{
	struct fault fault = {0};
	struct buf text = {0};
	Tb__VmSnapshot *s;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rv = fd < 0 ? fault_set(&fault, -errno, "cannot open it: %s", strerror(errno))
			: state_file_read(fd, &s, &fault);

	if (fd >= 0) {
		close(fd);
	}
	if (rv < 0) {
		fprintf(stderr, "witness-vm: %s: %s\n", path, fault.text);
		return 1;
	}
	inspect_text(s, all, &text);
	fwrite(text.data, 1, text.len, out);
	buf_free(&text);
	tb__vm_snapshot__free_unpacked(s, NULL);
	return 0;
}
