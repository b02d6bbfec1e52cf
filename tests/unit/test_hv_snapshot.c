/* The pure parts of snapshots: the class of a host, the words of the interrupt controller, names of
 * registers, the counter's count after a time away, and the memory file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/class.h"
#include "hv/gic_words.h"
#include "hv/guest_clock.h"
#include "hv/memory_file.h"
#include "hv/refusals.h"
#include "hv/register_name.h"
#include "hv/vmgenid.h"
#include "lib/mem.h"

#define MIDR REGISTER_SYSTEM(3, 0, 0, 0, 0)
#define MPIDR REGISTER_SYSTEM(3, 0, 0, 0, 5)
#define CTR REGISTER_SYSTEM(3, 3, 0, 0, 1)
#define PFR0 REGISTER_SYSTEM(3, 0, 0, 4, 0)
#define SCTLR REGISTER_SYSTEM(3, 0, 1, 0, 0)

/* --- names ------------------------------------------------------------------------------------ */

static void test_register_names(void **state)
{
	static const struct {
		uint64_t id;
		const char *name;
	} cases[] = {
		{0x6030000000100000, "X0"},
		{0x603000000010003c, "X30"},
		{0x603000000010003e, "SP_EL0"},
		{0x6030000000100040, "PC"},
		{0x6030000000100042, "PSTATE"},
		{0x6030000000100044, "SP_EL1"},
		{0x6030000000100046, "ELR_EL1"},
		{0x6030000000100050, "SPSR_FIQ"},
		{0x6040000000100054, "V0"},
		{0x60400000001000d0, "V31"},
		{0x60200000001000d4, "FPSR"},
		{0x60200000001000d5, "FPCR"},
		{0x603000000013c000, "MIDR_EL1"},
		{0x6020000000110002, "CCSIDR_EL1[2]"},
		{0x6030000000140000, "PSCI_VERSION"},
		{0x6030000000160001, "SMCCC_HYPERVISOR"},
		{0x603000000013df19, "CNTV_CTL_EL0"},
		{0x603000000013df1a, "CNTVCT_EL0"},
		{0x603000000013df02, "CNTV_CVAL_EL0"},
		{REGISTER_SYSTEM(2, 0, 0, 5, 4), "DBGBVR5_EL1"},
		{REGISTER_SYSTEM(2, 0, 0, 15, 7), "DBGWCR15_EL1"},
		{REGISTER_SYSTEM(3, 3, 14, 8, 3), "PMEVCNTR3_EL0"},
		{REGISTER_SYSTEM(3, 3, 14, 15, 6), "PMEVTYPER30_EL0"},
		{REGISTER_SYSTEM(3, 3, 14, 15, 7), "PMCCFILTR_EL0"},
		{REGISTER_SYSTEM(3, 7, 15, 14, 1), "S3_7_C15_C14_1"},
		{0x6030000000990000, "register 6030000000990000"},
	};
	char name[REGISTER_NAME];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		register_name(cases[i].id, name);
		assert_string_equal(name, cases[i].name);
	}
}

static void test_register_sizes(void **state)
{
	(void)state;
	assert_int_equal(register_size(0x6020000000110002), 4);
	assert_int_equal(register_size(MIDR), 8);
	assert_int_equal(register_size(0x6040000000100054), 16);
	assert_int_equal(register_size(0x6080000000150000), 256);
	assert_int_equal(register_size(0x6090000000150000), 0);
	assert_int_equal(register_size(0x4030000000100000), 0);
}

/* --- the class -------------------------------------------------------------------------------- */

static void test_class_registers(void **state)
{
	(void)state;
	assert_true(class_has_register(MIDR));
	assert_true(class_has_register(PFR0));
	assert_true(class_has_register(CTR));
	assert_true(class_has_register(REGISTER_SYSTEM(3, 1, 0, 0, 7)));
	assert_true(class_has_register(0x6020000000110000));
	assert_true(class_has_register(0x6030000000140001));
	assert_true(class_has_register(0x6030000000160002));
	/* Each vCPU's own, or the guest's. */
	assert_false(class_has_register(MPIDR));
	assert_false(class_has_register(SCTLR));
	assert_false(class_has_register(REGISTER_SYSTEM(3, 2, 0, 0, 0)));
	assert_false(class_has_register(0x6030000000100000));
}

static void class_sample(struct host_class *c)
{
	*c = (struct host_class){0};
	assert_true(class_add(c, PFR0, 0x1122));
	assert_true(class_add(c, CLASS_PAGE_SIZE, 4096));
	assert_true(class_add(c, MIDR, 0x410fd083));
	assert_true(class_add(c, CLASS_COUNTER_HZ, 54000000));
}

static void test_class_order(void **state)
{
	struct host_class a, b = {0};
	size_t i;

	(void)state;
	class_sample(&a);
	for (i = 1; i < a.count; i++) {
		assert_true(a.part[i - 1].key < a.part[i].key);
	}
	assert_int_equal(*class_find(&a, MIDR), 0x410fd083);
	assert_null(class_find(&a, CTR));
	/* The same parts in another order are the same class. */
	for (i = a.count; i > 0; i--) {
		class_add(&b, a.part[i - 1].key, a.part[i - 1].value);
	}
	assert_int_equal(class_id(&a), class_id(&b));
	class_add(&b, PFR0, 0x1123);
	assert_int_equal(a.count, b.count);
	assert_int_not_equal(class_id(&a), class_id(&b));
}

static void test_class_full(void **state)
{
	struct host_class c = {0};
	uint64_t key;

	(void)state;
	for (key = 0; key < CLASS_PARTS_MAX; key++) {
		assert_true(class_add(&c, CLASS_PARTS_MAX - key, key));
	}
	assert_false(class_add(&c, 0, 1));
	assert_true(class_add(&c, 5, 1));
	assert_int_equal(c.count, CLASS_PARTS_MAX);
}

static void test_class_difference(void **state)
{
	struct host_class saved, here;
	char text[400];
	uint64_t key;

	(void)state;
	class_sample(&saved);
	class_sample(&here);
	assert_int_equal(class_difference(&saved, &here, text, sizeof(text)), 0);
	assert_string_equal(text, "");
	class_add(&here, CLASS_PAGE_SIZE, 16384);
	class_add(&here, MIDR, 0x414fd0b1);
	assert_int_equal(class_difference(&saved, &here, text, sizeof(text)), 2);
	/* The processor first: the rest follows from it. */
	assert_string_equal(text,
			    "MIDR_EL1 is 0x410fd083 in the snapshot and 0x414fd0b1 here; page "
			    "size is 0x1000 in the snapshot and 0x4000 here");
	class_sample(&here);
	class_add(&here, CTR, 7);
	assert_int_equal(class_difference(&saved, &here, text, sizeof(text)), 1);
	assert_string_equal(text, "CTR_EL0 is missing in the snapshot and 0x7 here");
	assert_int_equal(class_difference(&here, &saved, text, sizeof(text)), 1);
	assert_string_equal(text, "CTR_EL0 is 0x7 in the snapshot and missing here");
	for (key = 0; key < 20; key++) {
		class_add(&here, REGISTER_SYSTEM(3, 0, 0, 5, 0) + key, key);
	}
	assert_int_equal(class_difference(&saved, &here, text, sizeof(text)), 21);
	assert_non_null(strstr(text, "; and 18 more"));
	/* A short buffer is never passed. */
	memset(text, 'x', sizeof(text));
	class_difference(&saved, &here, text, 40);
	assert_true(strlen(text) < 40);
	assert_int_equal(text[41], 'x');
}

static void test_class_record(void **state)
{
	struct host_class a, b;
	Tb__HostClass record;
	Tb__HostClassParts *parts;

	(void)state;
	class_sample(&a);
	class_pack(&a, &record);
	assert_true(class_unpack(&record, &b));
	assert_int_equal(class_difference(&a, &b, (char[8]){0}, 8), 0);
	record.keys[1] = record.keys[0];
	assert_false(class_unpack(&record, &b));
	free(record.keys);
	free(record.values);
	parts = class_describe(&a);
	assert_int_equal(parts->n_parts, 4);
	assert_string_equal(parts->parts[0]->name, "page size");
	assert_string_equal(parts->parts[0]->value, "0x1000");
	assert_int_equal(strlen(parts->id), 16);
	tb__host_class_parts__free_unpacked(parts, NULL);
}

static void test_list_mix(void **state)
{
	const uint64_t a[] = {1, 2, 3}, b[] = {3, 1, 2}, c[] = {1, 2, 4};

	(void)state;
	assert_int_equal(class_list_mix(a, 3), class_list_mix(b, 3));
	assert_int_not_equal(class_list_mix(a, 3), class_list_mix(c, 3));
	assert_int_not_equal(class_list_mix(a, 3), class_list_mix(a, 2));
}

/* --- words of the interrupt controller -------------------------------------------------------- */

static const struct gic_word *word_find(const struct gic_word *w, size_t count,
					const struct gic_shape *shape, const char *wanted)
{
	char name[GIC_WORD_NAME];
	size_t i;

	for (i = 0; i < count; i++) {
		gic_word_name(shape, &w[i], name);
		if (strcmp(name, wanted) == 0) {
			return &w[i];
		}
	}
	fail_msg("no word %s", wanted);
	return NULL;
}

static void names_are_different(const struct gic_word *w, size_t count,
				const struct gic_shape *shape)
{
	char a[GIC_WORD_NAME], b[GIC_WORD_NAME];
	size_t i, j;

	for (i = 0; i < count; i++) {
		gic_word_name(shape, &w[i], a);
		for (j = 0; j < i; j++) {
			gic_word_name(shape, &w[j], b);
			assert_string_not_equal(a, b);
			assert_false(w[i].group == w[j].group && w[i].number == w[j].number);
		}
	}
}

/* What is pending or active, and nothing else: KVM forgets it unless all else is there
 * (gic_words.h). */
static void late_are_events(const struct gic_word *w, size_t count, const struct gic_shape *shape)
{
	static const char *const events[] = {"ISPENDR", "ISACTIVER", "SPENDSGIR", "line levels"};
	char name[GIC_WORD_NAME];
	size_t i, j;

	for (i = 0; i < count; i++) {
		bool event = false;

		gic_word_name(shape, &w[i], name);
		for (j = 0; j < sizeof(events) / sizeof(events[0]); j++) {
			event = event || strstr(name, events[j]) != NULL;
		}
		if (w[i].late != event) {
			fail_msg("%s is %s", name, event ? "not late" : "late");
		}
	}
}

static void test_gicv2_words(void **state)
{
	static struct gic_word w[GIC_WORDS_MAX];
	const struct gic_shape shape = {.version = 2, .vcpus = 2, .interrupts = 64};
	const struct gic_word *found;
	char name[GIC_WORD_NAME];
	size_t count = gic_words(&shape, w);

	(void)state;
	/* IIDR first: without it groups are ignored; CTLR last of those that
	 * are not late: it turns all on. */
	gic_word_name(&shape, &w[0], name);
	assert_string_equal(name, "GICD_IIDR");
	gic_word_name(&shape, &w[count - 1], name);
	assert_string_equal(name, "GICD_CTLR");
	names_are_different(w, count, &shape);
	late_are_events(w, count, &shape);
	/* Two common registers; of 32 SPIs four bitmaps, priorities, targets and configuration; of
	 * each vCPU its banked words, pending SGIs and CPU interface. */
	assert_int_equal(count, 2 + (4 + 8 + 8 + 2) + 2 * (4 + 8 + 2 + 4 + 8));
	/* Enabled SGIs and PPIs of the second vCPU: its timer. */
	found = word_find(w, count, &shape, "vCPU 1 GICD_ISENABLER0");
	assert_int_equal(found->number, UINT64_C(1) << 32 | 0x100);
	assert_int_equal(found->clear, UINT64_C(1) << 32 | 0x180);
	assert_false(found->zero);
	found = word_find(w, count, &shape, "GICD_ISPENDR1");
	assert_int_equal(found->number, 0x204);
	assert_int_equal(found->clear, 0x284);
	assert_true(found->zero);
	found = word_find(w, count, &shape, "vCPU 0 GICD_SPENDSGIR3");
	assert_int_equal(found->number, 0xf2c);
	assert_int_equal(found->clear, 0xf1c);
	assert_int_equal(word_find(w, count, &shape, "vCPU 1 GICD_IPRIORITYR7")->number,
			 UINT64_C(1) << 32 | 0x41c);
	assert_int_equal(word_find(w, count, &shape, "GICD_ITARGETSR8")->number, 0x820);
	assert_int_equal(word_find(w, count, &shape, "GICD_ICFGR3")->number, 0xc0c);
	found = word_find(w, count, &shape, "vCPU 1 GICC_PMR");
	assert_int_equal(found->group, 2);
	assert_int_equal(found->number, UINT64_C(1) << 32 | 4);
	word_find(w, count, &shape, "vCPU 0 GICC_APR3");
}

static void test_gicv3_words(void **state)
{
	static struct gic_word w[GIC_WORDS_MAX];
	struct gic_shape shape = {
		.version = 3, .vcpus = 2, .interrupts = 64, .priority_bits = 5, .affinity = {0, 1}};
	const struct gic_word *found;
	size_t count = gic_words(&shape, w);

	(void)state;
	names_are_different(w, count, &shape);
	late_are_events(w, count, &shape);
	assert_int_equal(count, 2 + (4 + 8 + 2 + 32 + 1) + 2 * (2 + 4 + 8 + 2 + 1 + 7 + 2));
	found = word_find(w, count, &shape, "vCPU 1 GICR_ISENABLER0");
	assert_int_equal(found->group, 5);
	assert_int_equal(found->number, UINT64_C(1) << 32 | 0x10100);
	found = word_find(w, count, &shape, "vCPU 1 ICC_PMR");
	assert_true(found->wide);
	assert_int_equal(found->number, UINT64_C(1) << 32 | 0xc230);
	assert_int_equal(word_find(w, count, &shape, "GICD_IROUTER32")->number, 0x6100);
	assert_int_equal(word_find(w, count, &shape, "GICD_ISPENDR1")->clear, 0);
	assert_int_equal(word_find(w, count, &shape, "line levels 32")->number, 32);
	word_find(w, count, &shape, "vCPU 0 line levels 0");
	word_find(w, count, &shape, "vCPU 1 GICR_WAKER");
	word_find(w, count, &shape, "vCPU 0 ICC_AP1R0");
	shape.priority_bits = 7;
	count = gic_words(&shape, w);
	word_find(w, count, &shape, "vCPU 1 ICC_AP0R3");
	names_are_different(w, count, &shape);
	/* The largest there is has room. */
	shape = (struct gic_shape){.version = 3,
				   .vcpus = 8,
				   .interrupts = 128,
				   .priority_bits = 7,
				   .affinity = {0, 1, 2, 3, 4, 5, 6, 7}};
	assert_true(gic_words(&shape, w) <= GIC_WORDS_MAX);
}

static void test_refusals(void **state)
{
	struct refusals r = {0};
	unsigned i;

	(void)state;
	refusals_add(&r, "X0", -EINVAL);
	assert_string_equal(r.text, "X0 (Invalid argument)");
	for (i = 0; i < 100; i++) {
		refusals_add(&r, "a register with a name that is rather long", -EPERM);
	}
	assert_int_equal(r.count, 101);
	assert_non_null(strstr(r.text, ", ..."));
}

/* --- the counter ------------------------------------------------------------------------------ */

#define SECOND INT64_C(1000000000)

static void test_clock(void **state)
{
	static const struct {
		bool advance;
		int64_t away; /* seconds */
		uint64_t counter, frequency;
		uint64_t expected;
		int rv;
	} cases[] = {
		{false, 100, 1000, 54000000, 1000, 0},
		{true, 0, 1000, 54000000, 1000, 0},
		{true, 2, 1000, 54000000, 1000 + 2 * 54000000, 0},
		/* A clock that was set back: no time has passed, as far as anybody can tell. */
		{true, -100, 1000, 54000000, 1000, 0},
		/* A year at 1 GHz is more than 64 bits of nanoseconds times the frequency. */
		{true, 365 * 86400, 5, 1000000000, 5 + UINT64_C(31536000000000000), 0},
		{true, INT64_C(11) * 366 * 86400, 5, 54000000, 0, -ERANGE},
		{true, 10, UINT64_MAX - 5, 54000000, 0, -ERANGE},
		{false, 10, UINT64_MAX - 5, 54000000, UINT64_MAX - 5, 0},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct guest_clock saved = {0};
		struct fault fault = {0};
		uint64_t count = 0;

		saved.counter = cases[i].counter;
		saved.frequency = cases[i].frequency;
		saved.realtime_ns = 1700000000 * SECOND;
		assert_int_equal(guest_clock_count(&saved, cases[i].advance,
						   saved.realtime_ns + cases[i].away * SECOND,
						   &count, &fault),
				 cases[i].rv);
		assert_int_equal(count, cases[i].expected);
	}
}

/* A file may say any time. */
static void test_clock_extremes(void **state)
{
	static const int64_t times[] = {INT64_MIN, -1, 0, 1, INT64_MAX};
	size_t i, j;

	(void)state;
	for (i = 0; i < 5; i++) {
		for (j = 0; j < 5; j++) {
			struct guest_clock saved = {0};
			struct fault fault = {0};
			uint64_t count = 7;
			int rv;

			saved.counter = 3;
			saved.frequency = UINT32_MAX;
			saved.realtime_ns = times[i];
			rv = guest_clock_count(&saved, true, times[j], &count, &fault);
			assert_true(rv == -ERANGE ? count == 7 : rv == 0 && count >= 3);
		}
	}
}

/* --- the memory file -------------------------------------------------------------------------- */

enum { MEMORY = 4 << 20, PAGE = 4096 };

static const uint8_t id[MEMORY_FILE_ID] = "0123456789abcde";

/* Data at the beginning, at the end, one page alone, and a run longer than one write. */
static void memory_fill(uint8_t *m)
{
	size_t i;

	m[0] = 1;
	m[MEMORY - 1] = 2;
	m[10 * PAGE + 5] = 3;
	for (i = 1 << 20; i < (1 << 20) + (3 << 19); i++) {
		m[i] = (uint8_t)(i / 7 + 1);
	}
	memset(m + (2 << 20), 0, PAGE);
}

static void files_are_equal(enum ram_backing backing, enum ram_backing back)
{
	const struct image_turn nobody = {0};
	struct ram from, to;
	struct fault fault = {0};
	int fd = memfd_create("memory", MFD_CLOEXEC);
	struct stat st;

	assert_int_equal(ram_create(MEMORY, backing, &from, &fault), 0);
	memory_fill(from.host);
	/* Something longer was there before. */
	assert_int_equal(ftruncate(fd, 3 * MEMORY), 0);
	assert_int_equal(pwrite(fd, "old", 3, 5 * PAGE), 3);
	assert_int_equal(memory_file_write(fd, &from, id, &fault), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, MEMORY + MEMORY_FILE_TAIL);
	/* Sparse: 384 pages of data but one of zeros, three others, the tail. */
	assert_true(st.st_blocks * 512 <= (384 + 4) * PAGE);
	assert_int_equal(memory_file_check(fd, MEMORY, id, &fault), 0);
	if (back == RAM_SHARED_FILE) {
		assert_int_equal(ram_map_file(fd, MEMORY, &to, &fault), 0);
	} else {
		assert_int_equal(ram_create(MEMORY, back, &to, &fault), 0);
		assert_int_equal(memory_file_read(fd, &to, &nobody, &fault), 0);
	}
	assert_memory_equal(from.host, to.host, MEMORY);
	ram_destroy(&from);
	ram_destroy(&to);
	close(fd);
}

static void test_memory_round_trip(void **state)
{
	(void)state;
	files_are_equal(RAM_ANONYMOUS, RAM_ANONYMOUS);
	files_are_equal(RAM_MEMFD, RAM_MEMFD);
	files_are_equal(RAM_MEMFD, RAM_SHARED_FILE);
}

struct turns {
	unsigned count, last;
};

static bool turn_take(void *arg)
{
	struct turns *t = arg;

	return ++t->count != t->last;
}

/* Others have a turn before each MiB that is read, and a few pages that lie apart one together. */
static void test_memory_turns(void **state)
{
	int fd = memfd_create("memory", MFD_CLOEXEC);
	struct turns turns = {0};
	const struct image_turn turn = {.take = turn_take, .arg = &turns};
	struct fault fault = {0};
	struct ram from, to;

	(void)state;
	assert_int_equal(ram_create(MEMORY, RAM_ANONYMOUS, &from, &fault), 0);
	assert_int_equal(ram_create(MEMORY, RAM_ANONYMOUS, &to, &fault), 0);
	memory_fill(from.host);
	assert_int_equal(memory_file_write(fd, &from, id, &fault), 0);
	assert_int_equal(memory_file_read(fd, &to, &turn, &fault), 0);
	assert_int_equal(turns.count, 4);
	memset(from.host, 7, MEMORY);
	assert_int_equal(memory_file_write(fd, &from, id, &fault), 0);
	turns.count = 0;
	assert_int_equal(memory_file_read(fd, &to, &turn, &fault), 0);
	assert_int_equal(turns.count, MEMORY / IMAGE_PIECE);
	assert_memory_equal(from.host, to.host, MEMORY);
	/* Each page apart. */
	memset(from.host, 0, MEMORY);
	for (unsigned i = 0; i < 64; i++) {
		from.host[(size_t)2 * i * PAGE] = 1;
	}
	assert_int_equal(memory_file_write(fd, &from, id, &fault), 0);
	memset(to.host, 0, MEMORY);
	turns.count = 0;
	assert_int_equal(memory_file_read(fd, &to, &turn, &fault), 0);
	assert_int_equal(turns.count, 4);
	assert_memory_equal(from.host, to.host, MEMORY);
	memset(from.host, 7, MEMORY);
	assert_int_equal(memory_file_write(fd, &from, id, &fault), 0);
	/* Who ends it says why. */
	memset(to.host, 0, MEMORY);
	turns = (struct turns){.last = 3};
	assert_int_equal(memory_file_read(fd, &to, &turn, &fault), -ECANCELED);
	assert_string_equal(fault.text, "");
	assert_int_equal(to.host[2 * IMAGE_PIECE - 1], 7);
	assert_int_equal(to.host[2 * IMAGE_PIECE], 0);
	ram_destroy(&from);
	ram_destroy(&to);
	close(fd);
}

/* Memory of a memfd that was never touched gets no pages by being saved. */
static void test_memory_untouched(void **state)
{
	int fd = memfd_create("memory", MFD_CLOEXEC);
	struct fault fault = {0};
	struct stat st;
	struct ram r;

	(void)state;
	assert_int_equal(ram_create(MEMORY, RAM_MEMFD, &r, &fault), 0);
	r.host[7 * PAGE] = 1;
	assert_int_equal(memory_file_write(fd, &r, id, &fault), 0);
	assert_int_equal(fstat(r.fd, &st), 0);
	assert_true(st.st_blocks * 512 < MEMORY);
	ram_destroy(&r);
	close(fd);
}

static void check_refused(int fd, uint64_t size, const uint8_t *with, const char *words)
{
	struct fault fault = {0};

	assert_int_equal(memory_file_check(fd, size, with, &fault), -EBADMSG);
	if (strstr(fault.text, words) == NULL) {
		fail_msg("%s", fault.text);
	}
}

static void test_memory_refused(void **state)
{
	static const uint8_t other[MEMORY_FILE_ID] = "another one";
	int fd = memfd_create("memory", MFD_CLOEXEC), full = open("/dev/full", O_RDWR);
	struct fault fault = {0};
	struct ram r;

	(void)state;
	assert_int_equal(ram_create(MEMORY, RAM_ANONYMOUS, &r, &fault), 0);
	r.host[0] = 1;
	assert_int_equal(memory_file_write(fd, &r, id, &fault), 0);
	check_refused(fd, MEMORY, other, "another state file");
	check_refused(fd, MEMORY - PAGE, id, "cut off");
	assert_int_equal(ftruncate(fd, MEMORY), 0);
	check_refused(fd, MEMORY, id, "cut off");
	assert_int_equal(ftruncate(fd, MEMORY + MEMORY_FILE_TAIL), 0);
	check_refused(fd, MEMORY, id, "never finished");
	check_refused(full, MEMORY, id, "cut off");
	assert_true(memory_file_write(full, &r, id, &fault) < 0);
	assert_non_null(strstr(fault.text, "memory file"));
	ram_destroy(&r);
	close(full);
	close(fd);
}

/* --- the generation id ------------------------------------------------------------------------ */

static void test_vmgenid(void **state)
{
	uint8_t a[VMGENID_SIZE], b[VMGENID_SIZE], page[VMGENID_SIZE];
	struct fault fault = {0};

	(void)state;
	assert_int_equal(vmgenid_choose("", a, &fault), 0);
	assert_int_equal(vmgenid_choose("", b, &fault), 0);
	assert_memory_not_equal(a, b, VMGENID_SIZE);
	assert_int_equal(vmgenid_choose("00112233445566778899aAbBcCdDeEfF", a, &fault), 0);
	assert_int_equal(a[15], 0xff);
	vmgenid_write(page, a);
	assert_memory_equal(page, a, VMGENID_SIZE);
	assert_int_equal(vmgenid_choose("0011", a, &fault), -EINVAL);
	assert_non_null(strstr(fault.text, "32 hex digits"));
	memset(&fault, 0, sizeof(fault));
	assert_int_equal(vmgenid_check(a, b, &fault), 0);
	assert_int_equal(vmgenid_check(a, page, &fault), -EXDEV);
	assert_non_null(strstr(fault.text, "generationId: is the one of the snapshot"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_register_names),	 cmocka_unit_test(test_register_sizes),
		cmocka_unit_test(test_class_registers),	 cmocka_unit_test(test_class_order),
		cmocka_unit_test(test_class_full),	 cmocka_unit_test(test_class_difference),
		cmocka_unit_test(test_class_record),	 cmocka_unit_test(test_list_mix),
		cmocka_unit_test(test_gicv2_words),	 cmocka_unit_test(test_gicv3_words),
		cmocka_unit_test(test_refusals),	 cmocka_unit_test(test_clock),
		cmocka_unit_test(test_clock_extremes),	 cmocka_unit_test(test_memory_round_trip),
		cmocka_unit_test(test_memory_untouched), cmocka_unit_test(test_memory_refused),
		cmocka_unit_test(test_memory_turns),	 cmocka_unit_test(test_vmgenid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
