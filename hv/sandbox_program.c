#include "hv/sandbox_program.h"

#include <assert.h>
#include <stdbool.h>

#define WORD UINT64_C(0xffffffff)

/* Where a jump goes: an instruction, or one of these, whose places are known at the end. */
enum target { TO_ALLOW = -1, TO_KILL = -2, TO_CHECK = -3 /* and below: the call's number */ };
enum { NODES = 4 * PROGRAM_RULES + 4, PLACES = PROGRAM_CALLS + 3 };
/* What an instruction costs against a number that comes by it; calls whose arguments are looked at
 * come by for ever. */
enum { INSTRUCTION_COST = 45, CHECKED_WEIGHT = 64 };

/* Numbers of calls with one target. */
struct span {
	unsigned begin, weight;
	int target;
	bool single;
};

struct maker {
	struct sock_filter *code;
	size_t len, room;
	int when[NODES], otherwise[NODES]; /* of each jump */
	int place[PLACES]; /* of target -1 - i */
	struct span span[2 * PROGRAM_RULES + 1];
	unsigned spans;
	/* The cheapest tree over the spans i..j, and where it divides; 0: one number among others.
	 */
	unsigned cost[2 * PROGRAM_RULES + 1][2 * PROGRAM_RULES + 1];
	unsigned divides[2 * PROGRAM_RULES + 1][2 * PROGRAM_RULES + 1];
};

static size_t put(struct maker *m, unsigned code, uint32_t k, int when, int otherwise)
{
	size_t at = m->len;

	if (at < m->room && at < NODES) {
		m->code[at] = (struct sock_filter){.code = (uint16_t)code, .k = k};
		m->when[at] = when;
		m->otherwise[at] = otherwise;
	}
	m->len++;
	return at;
}

static void put_load(struct maker *m, size_t offset)
{
	(void)put(m, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

/* --- numbers --------------------------------------------------------------------------------- */

static int target_of(const struct program_rule *rules, size_t count, unsigned call)
{
	int target = TO_KILL;

	for (size_t i = 0; i < count; i++) {
		if (rules[i].call == call) {
			target = rules[i].count == 0 ? TO_ALLOW : TO_CHECK - (int)call;
			if (target == TO_ALLOW) {
				break;
			}
		}
	}
	return target;
}

static void spans_find(struct maker *m, const struct program_rule *rules, size_t count)
{
	for (unsigned call = 0; call < PROGRAM_CALLS; call++) {
		int target = target_of(rules, count, call);
		struct span *last = &m->span[m->spans > 0 ? m->spans - 1 : 0];

		if (m->spans > 0 && last->target == target) {
			last->weight++;
			last->single = false;
			continue;
		}
		assert(m->spans < sizeof(m->span) / sizeof(m->span[0]));
		m->span[m->spans++] = (struct span){
			.begin = call,
			.weight = target <= TO_CHECK ? CHECKED_WEIGHT : 1,
			.target = target,
			.single = true,
		};
	}
	/* Whatever is above is like the last, and must be nothing. */
	assert(m->span[m->spans - 1].target == TO_KILL);
}

static bool is_exception(const struct maker *m, unsigned i, unsigned j)
{
	return j == i + 2 && m->span[i].target == m->span[j].target && m->span[i + 1].single;
}

static void tree_choose(struct maker *m, unsigned i, unsigned j)
{
	unsigned weight = 0, best = UINT32_MAX;

	for (unsigned k = i; k <= j; k++) {
		weight += m->span[k].weight;
	}
	m->divides[i][j] = 0;
	if (is_exception(m, i, j)) {
		best = 0;
	}
	for (unsigned k = i + 1; k <= j && best > 0; k++) {
		unsigned cost = m->cost[i][k - 1] + m->cost[k][j];

		if (cost < best) {
			best = cost;
			m->divides[i][j] = k;
		}
	}
	m->cost[i][j] = best + weight + INSTRUCTION_COST;
}

static void trees_choose(struct maker *m)
{
	for (unsigned i = 0; i < m->spans; i++) {
		m->cost[i][i] = 0;
	}
	for (unsigned len = 1; len < m->spans; len++) {
		for (unsigned i = 0; i + len < m->spans; i++) {
			tree_choose(m, i, i + len);
		}
	}
}

static int put_tree(struct maker *m, unsigned i, unsigned j)
{
	unsigned k = m->divides[i][j];
	size_t at;
	int when, otherwise;

	if (i == j) {
		return m->span[i].target;
	}
	if (k == 0) {
		return (int)put(m, BPF_JMP | BPF_JEQ | BPF_K, m->span[i + 1].begin,
				m->span[i + 1].target, m->span[i].target);
	}
	at = put(m, BPF_JMP | BPF_JGE | BPF_K, m->span[k].begin, 0, 0);
	when = put_tree(m, k, j);
	otherwise = put_tree(m, i, k - 1);
	if (at < NODES) {
		m->when[at] = when;
		m->otherwise[at] = otherwise;
	}
	return (int)at;
}

/* --- arguments ------------------------------------------------------------------------------- */

/* Half an argument; `failed`: where to go if it is not so. Goes on behind if it is. */
static void put_half(struct maker *m, size_t offset, uint32_t mask, uint32_t value, int failed)
{
	put_load(m, offset);
	if (mask != UINT32_MAX) {
		(void)put(m, BPF_ALU | BPF_AND | BPF_K, mask, 0, 0);
	}
	(void)put(m, BPF_JMP | BPF_JEQ | BPF_K, value, (int)m->len + 1, failed);
}

static size_t half_len(uint32_t mask)
{
	return mask == 0 ? 0 : mask == UINT32_MAX ? 2 : 3;
}

static size_t condition_len(const struct program_condition *c)
{
	return half_len((uint32_t)c->mask) + half_len((uint32_t)(c->mask >> 32));
}

static void put_condition(struct maker *m, const struct program_condition *c, int failed)
{
	const size_t low = offsetof(struct seccomp_data, args) + sizeof(uint64_t) * c->number;

	_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "halves of an argument");
	if (c->mask >> 32 != 0) {
		put_half(m, low + sizeof(uint32_t), (uint32_t)(c->mask >> 32),
			 (uint32_t)(c->value >> 32), failed);
	}
	if ((c->mask & WORD) != 0) {
		put_half(m, low, (uint32_t)c->mask, (uint32_t)c->value, failed);
	}
}

/* Is the rule one word against a value, of the same argument as the one before? Then it is loaded
 * already. */
static bool is_next_value(const struct program_rule *before, const struct program_rule *r)
{
	return before != NULL && before->count == 1 && r->count == 1 &&
	       before->conditions[0].mask == WORD && r->conditions[0].mask == WORD &&
	       before->conditions[0].number == r->conditions[0].number;
}

/* `before`, `next`: rules of the same call, or NULL. */
static void put_rule(struct maker *m, const struct program_rule *before,
		     const struct program_rule *r, const struct program_rule *next)
{
	bool loaded = is_next_value(before, r);
	size_t len = m->len;
	int failed;

	for (unsigned i = 0; i < r->count; i++) {
		len += loaded ? 1 : condition_len(&r->conditions[i]);
	}
	failed = next == NULL ? TO_KILL : (int)len;
	if (loaded) {
		(void)put(m, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)r->conditions[0].value, TO_ALLOW,
			  failed);
		return;
	}
	for (unsigned i = 0; i < r->count; i++) {
		put_condition(m, &r->conditions[i], failed);
	}
	if (m->len - 1 < NODES) {
		m->when[m->len - 1] = TO_ALLOW;
	}
}

static const struct program_rule *rule_next(const struct program_rule *rule,
					    const struct program_rule *end, unsigned call)
{
	while (rule < end && rule->call != call) {
		rule++;
	}
	return rule < end ? rule : NULL;
}

static void put_check(struct maker *m, const struct program_rule *rules, size_t count,
		      unsigned call)
{
	const struct program_rule *end = rules + count, *before = NULL, *next;
	const struct program_rule *rule = rule_next(rules, end, call);

	m->place[-1 - (TO_CHECK - (int)call)] = (int)m->len;
	while (rule != NULL) {
		next = rule_next(rule + 1, end, call);
		put_rule(m, before, rule, next);
		before = rule;
		rule = next;
	}
}

/* --- whole ----------------------------------------------------------------------------------- */

static bool resolve(const struct maker *m, int target, size_t from, uint8_t *ret)
{
	size_t to = (size_t)(target < 0 ? m->place[-1 - target] : target);

	if (to <= from || to - from - 1 > UINT8_MAX) {
		return false;
	}
	*ret = (uint8_t)(to - from - 1);
	return true;
}

static bool jumps_resolve(struct maker *m)
{
	for (size_t i = 0; i < m->len; i++) {
		struct sock_filter *f = &m->code[i];

		if (BPF_CLASS(f->code) == BPF_JMP && (!resolve(m, m->when[i], i, &f->jt) ||
						      !resolve(m, m->otherwise[i], i, &f->jf))) {
			return false;
		}
	}
	return true;
}

size_t program_make(const struct program_rule *rules, size_t count, uint32_t arch,
		    struct sock_filter *ret, size_t room)
{
	static struct maker m;

	assert(count <= PROGRAM_RULES);
	m = (struct maker){.code = ret, .room = room};
	spans_find(&m, rules, count);
	trees_choose(&m);
	put_load(&m, offsetof(struct seccomp_data, arch));
	(void)put(&m, BPF_JMP | BPF_JEQ | BPF_K, arch, (int)m.len + 1, TO_KILL);
	put_load(&m, offsetof(struct seccomp_data, nr));
	(void)put_tree(&m, 0, m.spans - 1);
	for (unsigned i = 0; i < m.spans; i++) {
		if (m.span[i].target <= TO_CHECK) {
			put_check(&m, rules, count, m.span[i].begin);
		}
	}
	m.place[-1 - TO_KILL] = (int)put(&m, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
	m.place[-1 - TO_ALLOW] = (int)put(&m, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
	return m.len <= room && m.len <= NODES && jumps_resolve(&m) ? m.len : 0;
}

/* --- running --------------------------------------------------------------------------------- */

static bool compare(const struct sock_filter *f, uint32_t a)
{
	switch (BPF_OP(f->code)) {
	case BPF_JEQ:
		return a == f->k;
	case BPF_JGE:
		return a >= f->k;
	case BPF_JGT:
		return a > f->k;
	default:
		assert(BPF_OP(f->code) == BPF_JSET);
		return (a & f->k) != 0;
	}
}

uint32_t program_run(const struct sock_filter *program, size_t len, const struct seccomp_data *data)
{
	const uint32_t *words = (const uint32_t *)(const void *)data;
	uint32_t a = 0;

	for (size_t at = 0;; at++) {
		const struct sock_filter *f = &program[at];

		assert(at < len);
		switch (f->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			assert(f->k % sizeof(a) == 0 && f->k < sizeof(*data));
			a = words[f->k / sizeof(a)];
			break;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= f->k;
			break;
		case BPF_JMP | BPF_JA:
			at += f->k;
			break;
		case BPF_RET | BPF_K:
			return f->k;
		default:
			assert(BPF_CLASS(f->code) == BPF_JMP);
			at += compare(f, a) ? f->jt : f->jf;
		}
	}
}
