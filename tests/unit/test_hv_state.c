/* State files of snapshots: what is sound comes back as it was; whatever one changed word, a cut or
 * a forged record does, it is refused in words, or gives a record within every bound. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv/state_file.h"
#include "hv/virtio/virtio.h"
#include "hv_snapshot_sample.h"
#include "lib/mem.h"

static void encode_sample(struct buf *out)
{
	Tb__VmSnapshot *s = snapshot_sample();

	state_file_encode(s, out);
	tb__vm_snapshot__free_unpacked(s, NULL);
}

/* 0 or the error; the sentence in *fault. */
static int decode(const uint8_t *data, size_t len, struct fault *fault)
{
	Tb__VmSnapshot *s;
	int rv;

	memset(fault, 0, sizeof(*fault));
	rv = state_file_decode(data, len, &s, fault);
	assert_int_equal(rv != 0, fault->text[0] != '\0');
	if (rv == 0) {
		tb__vm_snapshot__free_unpacked(s, NULL);
	}
	return rv;
}

static void sum_mend(uint8_t *data, size_t len)
{
	uint64_t sum = state_file_sum(data, data + STATE_FILE_HEAD, len - STATE_FILE_HEAD);
	unsigned i;

	for (i = 0; i < 8; i++) {
		data[16 + i] = (uint8_t)(sum >> (56 - 8 * i));
	}
}

static void test_round_trip(void **state)
{
	struct buf once = {0}, twice = {0};
	struct fault fault = {0};
	Tb__VmSnapshot *s;

	(void)state;
	encode_sample(&once);
	assert_int_equal(state_file_decode(once.data, once.len, &s, &fault), 0);
	assert_int_equal(s->n_vcpus, 2);
	assert_int_equal(s->vcpus[1]->mp_state, 5);
	assert_int_equal(s->vcpus[0]->register_values.len, 32);
	assert_string_equal(s->devices[1]->name, "rng0");
	state_file_encode(s, &twice);
	assert_int_equal(once.len, twice.len);
	assert_memory_equal(once.data, twice.data, once.len);
	tb__vm_snapshot__free_unpacked(s, NULL);
	buf_free(&once);
	buf_free(&twice);
}

static void test_file(void **state)
{
	int fd = memfd_create("state", MFD_CLOEXEC);
	Tb__VmSnapshot *s = snapshot_sample(), *back;
	struct fault fault = {0};

	(void)state;
	/* What was there before is gone, also what is longer. */
	assert_int_equal(ftruncate(fd, 100000), 0);
	assert_int_equal(state_file_write(fd, s, &fault), 0);
	assert_int_equal(state_file_read(fd, &back, &fault), 0);
	assert_int_equal(back->clock->counter, s->clock->counter);
	tb__vm_snapshot__free_unpacked(back, NULL);
	tb__vm_snapshot__free_unpacked(s, NULL);
	assert_int_equal(ftruncate(fd, STATE_FILE_MAX + 1), 0);
	assert_int_equal(state_file_read(fd, &back, &fault), -EBADMSG);
	close(fd);
	memset(&fault, 0, sizeof(fault));
	assert_int_equal(state_file_read(fd, &back, &fault), -EBADF);
}

/* One word altered, its checksum left as it was: always refused. */
static void test_word_altered(void **state)
{
	struct buf b = {0};
	struct fault fault;
	size_t at;
	unsigned bit;

	(void)state;
	encode_sample(&b);
	for (at = 0; at + 4 <= b.len; at++) {
		uint32_t old, new;

		memcpy(&old, b.data + at, 4);
		for (bit = 0; bit < 33; bit++) {
			new = bit < 32 ? old ^ (uint32_t)1 << bit : ~old;
			memcpy(b.data + at, &new, 4);
			assert_int_equal(decode(b.data, b.len, &fault), -EBADMSG);
		}
		memcpy(b.data + at, &old, 4);
	}
	assert_int_equal(decode(b.data, b.len, &fault), 0);
	buf_free(&b);
}

static void test_cut(void **state)
{
	struct buf b = {0};
	struct fault fault;
	size_t len;

	(void)state;
	encode_sample(&b);
	for (len = 0; len < b.len; len++) {
		assert_int_equal(decode(b.data, len, &fault), -EBADMSG);
	}
	buf_puts(&b, "x");
	assert_int_equal(decode(b.data, b.len, &fault), -EBADMSG);
	assert_non_null(strstr(fault.text, "behind its end"));
	buf_free(&b);
}

/* A forged file has a good checksum: what then is taken can be packed and taken again. */
static void test_forged(void **state)
{
	struct buf b = {0};
	struct fault fault;
	unsigned taken = 0, bit;
	size_t at;

	(void)state;
	encode_sample(&b);
	for (at = STATE_FILE_HEAD; at < b.len; at++) {
		for (bit = 0; bit < 8; bit++) {
			Tb__VmSnapshot *s;

			b.data[at] ^= (uint8_t)(1 << bit);
			sum_mend(b.data, b.len);
			if (decode(b.data, b.len, &fault) == 0) {
				struct buf again = {0};

				assert_int_equal(state_file_decode(b.data, b.len, &s, &fault), 0);
				state_file_encode(s, &again);
				assert_int_equal(decode(again.data, again.len, &fault), 0);
				tb__vm_snapshot__free_unpacked(s, NULL);
				buf_free(&again);
				taken++;
			}
			b.data[at] ^= (uint8_t)(1 << bit);
		}
	}
	assert_true(taken > 0 && taken < 8 * b.len);
	buf_free(&b);
}

/* --- each bound by itself --------------------------------------------------------------------- */

static void no_hardware(Tb__VmSnapshot *s)
{
	tb__vm_hardware__free_unpacked(s->hardware, NULL);
	s->hardware = NULL;
}

static void no_gic(Tb__VmSnapshot *s)
{
	tb__vm_gic_state__free_unpacked(s->gic, NULL);
	s->gic = NULL;
}

static void vcpus_none(Tb__VmSnapshot *s)
{
	s->hardware->vcpus = 0;
}

static void vcpus_many(Tb__VmSnapshot *s)
{
	s->hardware->vcpus = 9;
}

static void vcpus_fewer(Tb__VmSnapshot *s)
{
	s->hardware->vcpus = 1;
}

static void memory_odd(Tb__VmSnapshot *s)
{
	s->hardware->memory_bytes = (64 << 20) + 4096;
}

static void memory_huge(Tb__VmSnapshot *s)
{
	s->hardware->memory_bytes = UINT64_C(1) << 60;
}

static void memory_small(Tb__VmSnapshot *s)
{
	s->hardware->memory_bytes = 1 << 20;
}

static void gic_none(Tb__VmSnapshot *s)
{
	s->hardware->gic = TB__GIC_VERSION__GIC_VERSION_AUTO;
}

static void class_disorder(Tb__VmSnapshot *s)
{
	s->host_class->keys[0] = UINT64_MAX;
}

static void class_other_id(Tb__VmSnapshot *s)
{
	s->host_class->id++;
}

static void class_uneven(Tb__VmSnapshot *s)
{
	s->host_class->n_values--;
}

static void clock_stopped(Tb__VmSnapshot *s)
{
	s->clock->frequency = 0;
}

static void power_state(Tb__VmSnapshot *s)
{
	s->vcpus[1]->mp_state = 3;
}

static void registers_none(Tb__VmSnapshot *s)
{
	s->vcpus[0]->n_register_ids = 0;
}

static void register_foreign(Tb__VmSnapshot *s)
{
	s->vcpus[0]->register_ids[1] ^= UINT64_C(1) << 61;
}

static void register_long(Tb__VmSnapshot *s)
{
	s->vcpus[0]->register_ids[1] |= UINT64_C(15) << 52;
}

static void values_short(Tb__VmSnapshot *s)
{
	s->vcpus[0]->register_values.len--;
}

static void gic_interrupts(Tb__VmSnapshot *s)
{
	s->gic->interrupts = 1024;
}

static void gic_priorities(Tb__VmSnapshot *s)
{
	s->gic->priority_bits = 5;
}

static void gic_v3_priorities(Tb__VmSnapshot *s)
{
	s->hardware->gic = TB__GIC_VERSION__GIC_VERSION_V3;
	s->gic->priority_bits = 8;
}

static void gic_words_many(Tb__VmSnapshot *s)
{
	free(s->gic->words);
	s->gic->n_words = 641;
	s->gic->words = mem_zalloc(641 * sizeof(uint64_t));
}

static void uart_fifo(Tb__VmSnapshot *s)
{
	free(s->uart->fifo.data);
	s->uart->fifo.len = 33;
	s->uart->fifo.data = mem_zalloc(33);
}

static void uart_wide(Tb__VmSnapshot *s)
{
	s->uart->imsc = 0x10000;
}

static void rtc_far(Tb__VmSnapshot *s)
{
	s->rtc->offset_s = INT64_MAX;
}

static void device_no_name(Tb__VmSnapshot *s)
{
	s->devices[0]->name[0] = '\0';
}

static void device_long_name(Tb__VmSnapshot *s)
{
	free(s->devices[0]->name);
	s->devices[0]->name = mem_strdup("blkblkblkblkblkblkblkblk");
}

static void device_odd_name(Tb__VmSnapshot *s)
{
	s->devices[0]->name[0] = '\n';
}

static void device_status(Tb__VmSnapshot *s)
{
	s->devices[0]->status = 256;
}

static void device_config(Tb__VmSnapshot *s)
{
	free(s->devices[0]->config.data);
	s->devices[0]->config.len = VIRTIO_CONFIG_MAX + 1;
	s->devices[0]->config.data = mem_zalloc(VIRTIO_CONFIG_MAX + 1);
}

static void device_words(Tb__VmSnapshot *s)
{
	free(s->devices[1]->words);
	s->devices[1]->n_words = VIRTIO_STATE_WORDS + 1;
	s->devices[1]->words = mem_zalloc((VIRTIO_STATE_WORDS + 1) * sizeof(uint64_t));
}

static void queue_size(Tb__VmSnapshot *s)
{
	s->devices[1]->queues[0]->size = 512;
}

static void queue_odd_size(Tb__VmSnapshot *s)
{
	s->devices[1]->queues[0]->size = 255;
}

static void queue_index(Tb__VmSnapshot *s)
{
	s->devices[1]->queues[0]->next_used = 65536;
}

static void disk_at_no_time(Tb__VmSnapshot *s)
{
	s->devices[0]->disk->nanoseconds++;
}

static void generation_short(Tb__VmSnapshot *s)
{
	s->generation_id.len = 15;
}

static void memory_id_short(Tb__VmSnapshot *s)
{
	s->memory_id.len = 0;
}

static void stolen_short(Tb__VmSnapshot *s)
{
	s->stolen_time.len = 64;
}

static void program_long(Tb__VmSnapshot *s)
{
	free(s->program);
	s->program =
		mem_strdup("a name of a program that is longer than anybody would call one ..");
}

static void program_forges_lines(Tb__VmSnapshot *s)
{
	s->program[2] = '\n';
}

static void test_bounds(void **state)
{
	static const struct {
		void (*spoil)(Tb__VmSnapshot *s);
		const char *words;
	} cases[] = {
		{no_hardware, "a part is missing"},
		{no_gic, "a part is missing"},
		{vcpus_none, "hardware.vcpus"},
		{vcpus_many, "hardware.vcpus"},
		{vcpus_fewer, "vcpus and hardware.vcpus"},
		{memory_odd, "memoryBytes"},
		{memory_huge, "memoryBytes"},
		{memory_small, "memoryBytes"},
		{gic_none, "hardware.gic"},
		{class_disorder, "hostClass"},
		{class_other_id, "hostClass"},
		{class_uneven, "hostClass"},
		{clock_stopped, "frequency"},
		{power_state, "power state"},
		{registers_none, "registers"},
		{register_foreign, "none of arm64"},
		{register_long, "none of arm64"},
		{values_short, "as long as its ids"},
		{gic_interrupts, "interrupts"},
		{gic_priorities, "priorityBits"},
		{gic_v3_priorities, "priorityBits"},
		{gic_words_many, "words"},
		{uart_fifo, "fifo"},
		{uart_wide, "16 bits"},
		{rtc_far, "rtc"},
		{device_no_name, "name"},
		{device_long_name, "name"},
		{device_odd_name, "name"},
		{device_status, "out of its bounds"},
		{device_config, "out of its bounds"},
		{device_words, "out of its bounds"},
		{queue_size, "queue"},
		{queue_odd_size, "queue"},
		{queue_index, "queue"},
		{disk_at_no_time, "last write of a disk"},
		{generation_short, "generationId"},
		{memory_id_short, "memoryId"},
		{stolen_short, "stolenTime"},
		{program_long, "program"},
		{program_forges_lines, "program"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		Tb__VmSnapshot *s = snapshot_sample();
		struct fault fault;
		struct buf b = {0};

		cases[i].spoil(s);
		state_file_encode(s, &b);
		tb__vm_snapshot__free_unpacked(s, NULL);
		if (decode(b.data, b.len, &fault) != -EBADMSG ||
		    strstr(fault.text, cases[i].words) == NULL) {
			fail_msg("case %zu (%s): %s", i, cases[i].words, fault.text);
		}
		buf_free(&b);
	}
}

static void test_head(void **state)
{
	struct buf b = {0};
	struct fault fault;

	(void)state;
	encode_sample(&b);
	b.data[11] = 9;
	sum_mend(b.data, b.len);
	assert_int_equal(decode(b.data, b.len, &fault), -EBADMSG);
	assert_non_null(strstr(fault.text, "layout 9"));
	b.data[0] = 'X';
	sum_mend(b.data, b.len);
	assert_int_equal(decode(b.data, b.len, &fault), -EBADMSG);
	assert_non_null(strstr(fault.text, "not a state file"));
	buf_free(&b);
}

/* A field that this release does not know changes what the others mean: refused. */
static void test_unknown_field(void **state)
{
	struct buf b = {0};
	struct fault fault;
	uint32_t len;

	(void)state;
	encode_sample(&b);
	buf_put_u16(&b, 0xf807); /* field 127, varint */
	buf_put_u8(&b, 1);
	len = (uint32_t)(b.len - STATE_FILE_HEAD);
	b.data[14] = (uint8_t)(len >> 8);
	b.data[15] = (uint8_t)len;
	sum_mend(b.data, b.len);
	assert_int_equal(decode(b.data, b.len, &fault), -EBADMSG);
	assert_non_null(strstr(fault.text, "does not know"));
	buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_file),
		cmocka_unit_test(test_word_altered), cmocka_unit_test(test_cut),
		cmocka_unit_test(test_forged),	     cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_head),	     cmocka_unit_test(test_unknown_field),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
