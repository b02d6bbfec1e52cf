/* The wire: JSON of messages, frames, base64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base64.h"
#include "lib/buf.h"
#include "lib/mem.h"
#include "proto/api.pb-c.h"
#include "proto/description.h"
#include "proto/frame.h"
#include "proto/json.h"
#include "proto/peer.pb-c.h"
#include "tests/unit/sample.pb-c.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static ProtobufCMessage *decoded(const ProtobufCMessageDescriptor *type, const char *text)
{
	ProtobufCMessage *message = NULL;
	struct json_error error;

	if (json_decode(type, text, strlen(text), &message, &error) != 0)
		fail_msg("%s: %s: %s", text, error.field, error.message);
	return message;
}

static void assert_encodes(const ProtobufCMessage *message, const char *expected)
{
	struct buf out = {0};

	json_encode(message, &out);
	assert_string_equal(buf_string(&out), expected);
	buf_free(&out);
}

static void test_round_trip(void **state)
{
	static const struct {
		const ProtobufCMessageDescriptor *type;
		const char *in;
		const char *out; /* NULL: as `in` */
	} cases[] = {
		{&tb__empty__descriptor, "{}", NULL},
		{&tb__empty__descriptor, " \n{ } ", "{}"},
		{&tb__site__descriptor, "{\"name\":\"a\",\"labels\":{\"b\":\"2\",\"a.x/y\":\"\"}}",
		 NULL},
		{&tb__site__descriptor,
		 "{\"policy\":{\"algorithm\":\"2nodelms\",\"tieBreaker\":\"node\","
		 "\"tieBreakerNode\":4294967295}}",
		 NULL},
		{&tb__site__descriptor, "{\"policy\":{}}", NULL},
		{&tb__site__descriptor, "{\"policy\":null,\"name\":null,\"labels\":null}", "{}"},
		/* 64-bit integers are strings; numbers are taken if they are exact. */
		{&tb__site__descriptor,
		 "{\"id\":\"18446744073709551615\",\"createdMs\":\"-9223372036854775808\"}", NULL},
		{&tb__site__descriptor, "{\"id\":9007199254740993,\"createdMs\":-5}",
		 "{\"id\":\"9007199254740993\",\"createdMs\":\"-5\"}"},
		{&tb__site__descriptor, "{\"id\":1e3}", "{\"id\":\"1000\"}"},
		{&tb__site__descriptor, "{\"id\":\"0\",\"createdMs\":-0.0}", "{}"},
		{&tb__site_bulk__descriptor, "{\"sites\":[{},{\"name\":\"x\"}],\"dryRun\":true}",
		 NULL},
		{&tb__site_bulk__descriptor, "{\"sites\":[],\"dryRun\":false}", "{}"},
		/* Brackets in strings are no nesting. */
		{&tb__site__descriptor, "{\"name\":\"\\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"}",
		 NULL},
		{&tb__grant__descriptor, "{\"nodes\":[0,1,\"2\"]}", "{\"nodes\":[0,1,2]}"},
		{&tb__token__descriptor, "{\"secretSha256\":\"AP/+\"}", NULL},
		{&tb__token__descriptor, "{\"secretSha256\":\"_w\"}",
		 "{\"secretSha256\":\"/w==\"}"},
		{&tb__token__descriptor, "{\"secretSha256\":\"\"}", "{}"},
		{&tb__token__descriptor, "{\"role\":\"ROLE_ADMIN\"}", "{\"role\":\"admin\"}"},
		{&tb__token__descriptor, "{\"role\":2}", "{\"role\":\"operator\"}"},
		{&test__sample__descriptor,
		 "{\"i32\":-2147483648,\"s32\":-1,\"f32\":2147483647,\"i64\":\"-1\",\"s64\":\"-2\","
		 "\"f64\":\"-3\",\"u32\":1,\"x32\":2,\"u64\":\"3\",\"x64\":\"4\",\"flag\":true,"
		 "\"colour\":\"dark-blue\"}",
		 NULL},
		{&tb__problem__descriptor,
		 "{\"detail\":\"\\\"\\\\\\n\\u0001\\u007f\xc3\xbc\xf0\x9f\x98\x80\"}",
		 "{\"detail\":\"\\\"\\\\\\n\\u0001\x7f\xc3\xbc\xf0\x9f\x98\x80\"}"},
		/* A oneof member is there even at its default. */
		{&test__sample__descriptor, "{\"yes\":false}", NULL},
		{&test__sample__descriptor, "{\"piece\":{\"numbers\":[1,2]}}", NULL},
		{&test__sample__descriptor, "{\"piece\":null,\"number\":\"0\"}",
		 "{\"number\":\"0\"}"},
		{&test__sample__descriptor, "{\"name\":\"\"}", NULL},
		{&test__sample__descriptor, "{\"raw\":\"\"}", NULL},
		{&test__sample__descriptor, "{\"raw\":\"AA==\"}", NULL},
		{&test__sample__descriptor, "{\"words\":[\"\",\"a\"],\"blobs\":[\"\",\"AA==\"]}",
		 NULL},
		{&test__sample__descriptor,
		 "{\"parts\":[{},{\"name\":\"x\"}],\"flags\":[true,false]}", NULL},
		{&test__sample__descriptor, "{\"colours\":[\"red\",\"none\",\"negative\"]}", NULL},
		{&test__sample__descriptor,
		 "{\"shelves\":{\"\":{},\"a\":{\"numbers\":[1]}},\"counts\":{\"z\":0,\"a\":-1}}",
		 NULL},
		{&tb__site_put__descriptor, "{\"mode\":\"upsert\"}", NULL},
		{&tb__door_closed__descriptor, "{\"reason\":\"by-door\"}", NULL},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		ProtobufCMessage *message = decoded(cases[i].type, cases[i].in);
		ProtobufCMessage *copy = message_copy(message);

		assert_encodes(message, cases[i].out ? cases[i].out : cases[i].in);
		assert_encodes(copy, cases[i].out ? cases[i].out : cases[i].in);
		protobuf_c_message_free_unpacked(message, NULL);
		protobuf_c_message_free_unpacked(copy, NULL);
	}
}

static void test_refused(void **state)
{
	static const struct {
		const ProtobufCMessageDescriptor *type;
		const char *in;
		const char *field;
		const char *message;
	} cases[] = {
		{&tb__site__descriptor, "", "", "not valid JSON"},
		{&tb__site__descriptor, "[]", "", "must be an object"},
		{&tb__site__descriptor, "{} x", "", "not valid JSON"},
		{&tb__site__descriptor, "{\"name\":\"a\",\"name\":\"b\"}", "",
		 "duplicate object key"},
		{&tb__site__descriptor, "{\"name\":\"\xc0\xaf\"}", "", "not valid JSON"},
		{&tb__site__descriptor, "{\"name\":\"a\\u0000b\"}", "", "not valid JSON"},
		{&tb__site__descriptor, "{\"id\":18446744073709551615}", "", "as a string"},
		{&tb__site__descriptor, "{\"nam\":1}", "nam",
		 "unknown field \"nam\"; did you mean \"name\"?"},
		{&tb__site__descriptor, "{\"policy\":{\"algoritm\":\"lms\"}}", "policy.algoritm",
		 "unknown field \"algoritm\" in policy; did you mean \"algorithm\"?"},
		{&tb__site__descriptor, "{\"policy\":{\"tie_breaker\":\"any\"}}",
		 "policy.tie_breaker", "did you mean \"tieBreaker\"?"},
		{&tb__site_bulk__descriptor, "{\"zzzzzzz\":1}", "zzzzzzz",
		 "unknown field \"zzzzzzz\"; allowed are sites, dryRun"},
		{&tb__site__descriptor, "{\"\\u001b[1m\":1}", "?[1m", "unknown field \"?[1m\""},
		{&tb__site__descriptor, "{\"policy\":{\"algorithm\":\"fsplit\"}}",
		 "policy.algorithm",
		 "\"fsplit\" is not allowed; allowed are any, ffsplit, lms, 2nodelms"},
		{&tb__site__descriptor, "{\"policy\":{\"algorithm\":9}}", "policy.algorithm",
		 "allowed are"},
		{&tb__site__descriptor, "{\"policy\":{\"algorithm\":4294967297}}",
		 "policy.algorithm", "allowed are"},
		{&tb__site__descriptor, "{\"policy\":[]}", "policy", "must be an object"},
		{&tb__site__descriptor, "{\"policy\":{\"tieBreakerNode\":4294967296}}",
		 "policy.tieBreakerNode", "must be a whole number from 0 to 4294967295"},
		{&tb__site__descriptor, "{\"policy\":{\"tieBreakerNode\":-1}}",
		 "policy.tieBreakerNode", "whole number"},
		{&tb__site__descriptor, "{\"id\":1.5}", "id", "whole number"},
		{&tb__site__descriptor, "{\"id\":1e300}", "id", "whole number"},
		{&tb__site__descriptor, "{\"id\":\"1x\"}", "id", "whole number"},
		{&tb__site__descriptor, "{\"id\":\"18446744073709551616\"}", "id", "whole number"},
		{&tb__site__descriptor, "{\"createdMs\":\"9223372036854775808\"}", "createdMs",
		 "whole number"},
		{&test__sample__descriptor, "{\"i32\":-2147483649}", "i32", "whole number"},
		{&tb__site__descriptor, "{\"name\":7}", "name", "must be a string"},
		{&tb__site__descriptor, "{\"labels\":{\"a\":7}}", "labels.a", "must be a string"},
		{&tb__site__descriptor, "{\"labels\":{\"a\":null}}", "labels.a",
		 "must not be null"},
		{&tb__site__descriptor, "{\"labels\":[]}", "labels", "must be an object"},
		{&tb__site_bulk__descriptor, "{\"sites\":{}}", "sites", "must be an array"},
		{&tb__site_bulk__descriptor, "{\"sites\":[{},{},{\"policy\":{\"tls\":1.0}}]}",
		 "sites[2].policy.tls", "allowed are any, off, on, required"},
		{&tb__site_bulk__descriptor, "{\"sites\":[null]}", "sites[0]", "must be an object"},
		{&tb__site_bulk__descriptor, "{\"dryRun\":\"true\"}", "dryRun",
		 "must be true or false"},
		{&tb__grant__descriptor, "{\"nodes\":[1,null]}", "nodes[1]", "whole number"},
		{&tb__token__descriptor, "{\"secretSha256\":\"_x\"}", "secretSha256", "base64"},
		{&tb__token__descriptor, "{\"secretSha256\":\"a b=\"}", "secretSha256", "base64"},
		{&test__sample__descriptor, "{\"yes\":true,\"number\":1}", "yes",
		 "cannot be given together with \"number\""},
		{&tb__site__descriptor,
		 "{\"name\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}", "",
		 "nested deeper than 32"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		ProtobufCMessage *message = NULL;
		struct json_error error;

		if (json_decode(cases[i].type, cases[i].in, strlen(cases[i].in), &message,
				&error) != -EINVAL)
			fail_msg("accepted: %s", cases[i].in);
		assert_null(message);
		assert_string_equal(error.field, cases[i].field);
		if (strstr(error.message, cases[i].message) == NULL)
			fail_msg("%s: %s", cases[i].in, error.message);
	}
}

static void test_syntax_place(void **state)
{
	static const char *const texts[] = {"{\n\"name\": !}",
					    "{\n\"name\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["};

	(void)state;
	for (size_t i = 0; i < COUNT(texts); i++) {
		ProtobufCMessage *message;
		struct json_error error;

		assert_int_equal(json_decode(&tb__site__descriptor, texts[i], strlen(texts[i]),
					     &message, &error),
				 -EINVAL);
		assert_int_equal(error.line, 2);
		assert_true(error.column > 0);
	}
}

static void test_long_names_fit(void **state)
{
	char text[4096] = "{\"policy\":{\"";
	ProtobufCMessage *message;
	struct json_error error;

	(void)state;
	for (int i = 0; i < 1000; i++)
		strcat(text, "\xc3\xbc");
	strcat(text, "\":1}}");
	assert_int_equal(json_decode(&tb__site__descriptor, text, strlen(text), &message, &error),
			 -EINVAL);
	assert_non_null(
		strstr(error.message, "...\" in policy; allowed are algorithm, tieBreaker,"));
}

static const char full_site[] =
	"{\"id\":\"0\",\"name\":\"\",\"labels\":{},\"revision\":\"0\",\"createdMs\":\"0\"}";

static void test_full(void **state)
{
	Tb__Site site = TB__SITE__INIT;
	Test__Part part = TEST__PART__INIT;
	struct buf out = {0};

	(void)state;
	json_encode_full(&site.base, &out);
	assert_string_equal(buf_string(&out), full_site);
	buf_clear(&out);
	json_encode_full(&part.base, &out);
	assert_string_equal(buf_string(&out), "{\"name\":\"\",\"numbers\":[]}");
	buf_free(&out);
}

static void test_encode_string(void **state)
{
	static const struct {
		const char *in;
		const char *out;
	} cases[] = {
		{"", "\"\""},
		{"a\"\\/\b\f\n\r\t\x1f", "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u001f\""},
		{"\xc3\xbc\xe2\x82\xac", "\"\xc3\xbc\xe2\x82\xac\""},
		{"\xff\xc3", "\"\xef\xbf\xbd\xef\xbf\xbd\""},
		{"\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
		{"x\xe2\x82", "\"x\xef\xbf\xbd\xef\xbf\xbd\""},
	};
	struct buf out = {0};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		buf_clear(&out);
		json_encode_string(cases[i].in, &out);
		assert_string_equal(buf_string(&out), cases[i].out);
	}
	buf_free(&out);
}

static void test_unnamed_enum(void **state)
{
	Tb__SitePolicy policy = TB__SITE_POLICY__INIT;
	char word[64];

	(void)state;
	policy.algorithm = 77;
	assert_encodes(&policy.base, "{\"algorithm\":77}");
	assert_string_equal(json_enum_word(&tb__algorithm__descriptor, 77, word), "unknown");
	assert_string_equal(json_enum_word(&tb__tie_breaker__descriptor,
					   TB__TIE_BREAKER__TIE_BREAKER_LOWEST, word),
			    "lowest");
}

static void test_merge(void **state)
{
	static const struct {
		const ProtobufCMessageDescriptor *type;
		const char *before;
		const char *patch;
		const char *after; /* NULL: refused, and nothing changes */
	} cases[] = {
		{&tb__site__descriptor, "{\"name\":\"a\"}", "{}", "{\"name\":\"a\"}"},
		{&tb__site__descriptor, "{\"name\":\"a\",\"id\":\"5\"}", "{\"name\":null}",
		 "{\"id\":\"5\"}"},
		{&tb__site__descriptor, "{\"name\":\"a\"}", "{\"name\":\"bcd\"}",
		 "{\"name\":\"bcd\"}"},
		{&tb__site__descriptor, "{\"labels\":{\"a\":\"1\",\"b\":\"2\",\"c\":\"3\"}}",
		 "{\"labels\":{\"b\":null,\"c\":\"4\",\"d\":\"5\",\"e\":null}}",
		 "{\"labels\":{\"a\":\"1\",\"c\":\"4\",\"d\":\"5\"}}"},
		{&tb__site__descriptor, "{\"labels\":{\"a\":\"1\"}}", "{\"labels\":{\"a\":null}}",
		 "{}"},
		{&tb__site__descriptor, "{\"labels\":{\"a\":\"1\"}}", "{\"labels\":null}", "{}"},
		{&tb__site__descriptor, "{\"labels\":{\"a\":\"1\",\"b\":\"2\"}}",
		 "{\"labels\":{\"b\":null,\"c\":\"3\"}}", "{\"labels\":{\"a\":\"1\",\"c\":\"3\"}}"},
		{&tb__site__descriptor, "{}", "{\"labels\":{}}", "{}"},
		{&tb__site__descriptor, "{\"policy\":{\"tls\":\"on\",\"algorithm\":\"lms\"}}",
		 "{\"policy\":{\"tls\":\"off\"}}",
		 "{\"policy\":{\"algorithm\":\"lms\",\"tls\":\"off\"}}"},
		{&tb__site__descriptor, "{\"policy\":{\"tls\":\"on\"}}", "{\"policy\":null}", "{}"},
		{&tb__site__descriptor, "{}", "{\"policy\":{\"tls\":\"off\"}}",
		 "{\"policy\":{\"tls\":\"off\"}}"},
		{&tb__grant__descriptor, "{\"nodes\":[1,2,3]}", "{\"nodes\":[4]}",
		 "{\"nodes\":[4]}"},
		{&tb__grant__descriptor, "{\"nodes\":[1,2,3]}", "{\"nodes\":[]}", "{}"},
		{&test__sample__descriptor, "{\"piece\":{\"name\":\"x\"}}", "{\"yes\":true}",
		 "{\"yes\":true}"},
		{&test__sample__descriptor, "{\"name\":\"x\"}", "{\"raw\":\"AA==\"}",
		 "{\"raw\":\"AA==\"}"},
		{&test__sample__descriptor, "{\"raw\":\"AA==\"}", "{\"name\":\"\"}",
		 "{\"name\":\"\"}"},
		{&test__sample__descriptor, "{\"piece\":{\"numbers\":[1]}}",
		 "{\"piece\":{\"name\":\"x\"}}", "{\"piece\":{\"name\":\"x\",\"numbers\":[1]}}"},
		{&test__sample__descriptor, "{\"piece\":{}}", "{\"yes\":null}", "{\"piece\":{}}"},
		{&test__sample__descriptor, "{\"piece\":{}}", "{\"piece\":null}", "{}"},
		{&test__sample__descriptor, "{\"words\":[\"a\"],\"data\":\"AA==\"}",
		 "{\"words\":null,\"data\":null}", "{}"},
		{&test__sample__descriptor, "{\"shelves\":{\"a\":{\"name\":\"x\"}}}",
		 "{\"shelves\":{\"a\":{\"numbers\":[1]},\"b\":{}}}",
		 "{\"shelves\":{\"a\":{\"name\":\"x\",\"numbers\":[1]},\"b\":{}}}"},
		{&tb__site__descriptor, "{\"name\":\"a\",\"labels\":{\"a\":\"1\"}}",
		 "{\"name\":\"b\",\"labels\":{\"a\":null},\"id\":-1}", NULL},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		ProtobufCMessage *message = decoded(cases[i].type, cases[i].before);
		struct json_error error;
		int rv = json_merge(message, cases[i].patch, strlen(cases[i].patch), &error);

		assert_int_equal(rv, cases[i].after ? 0 : -EINVAL);
		assert_encodes(message, cases[i].after ? cases[i].after : cases[i].before);
		protobuf_c_message_free_unpacked(message, NULL);
	}
}

static void test_set(void **state)
{
	static const struct {
		const ProtobufCMessageDescriptor *type;
		const char *path;
		const char *value;
		const char *after; /* NULL: refused */
		const char *message;
	} cases[] = {
		{&tb__site__descriptor, "name", "a b", "{\"name\":\"a b\"}", NULL},
		{&tb__site__descriptor, "policy.algorithm", "ffsplit",
		 "{\"policy\":{\"algorithm\":\"ffsplit\"}}", NULL},
		{&tb__site__descriptor, "policy.heartbeatMinMs", "2000",
		 "{\"policy\":{\"heartbeatMinMs\":2000}}", NULL},
		{&tb__site__descriptor, "labels.region", "north",
		 "{\"labels\":{\"region\":\"north\"}}", NULL},
		{&tb__site__descriptor, "labels.a.b", "", "{\"labels\":{\"a.b\":\"\"}}", NULL},
		{&tb__cluster__descriptor, "autoRegister", "true", "{\"autoRegister\":true}", NULL},
		{&tb__cluster__descriptor, "autoRegister", "false", "{}", NULL},
		{&tb__cluster__descriptor, "autoRegister", "yes", NULL, "must be true or false"},
		{&tb__site__descriptor, "policy", "x", NULL, "cannot be set as one value"},
		{&tb__site__descriptor, "labels", "x", NULL, "cannot be set as one value"},
		{&tb__site__descriptor, "name.x", "x", NULL, "cannot be set as one value"},
		{&tb__grant__descriptor, "nodes", "1", NULL, "cannot be set as one value"},
		{&tb__site__descriptor, "policy.tlss", "on", NULL, "did you mean \"tls\"?"},
		{&tb__site__descriptor, "policy.", "on", NULL, "unknown field \"\" in policy"},
		{&tb__site__descriptor, "", "on", NULL, "unknown field \"\""},
		{&tb__site__descriptor, "policy.tls", "of", NULL, "allowed are any, off"},
		{&tb__site__descriptor, "policy.heartbeatMinMs", "2s", NULL, "whole number"},
		{&tb__site__descriptor, "name", "\xff", NULL, "UTF-8"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		ProtobufCMessage *message = decoded(cases[i].type, "{}");
		struct json_error error;
		int rv = json_set(message, cases[i].path, cases[i].value, &error);

		if (cases[i].after != NULL) {
			if (rv != 0)
				fail_msg("%s: %s", cases[i].path, error.message);
		} else {
			assert_int_equal(rv, -EINVAL);
			assert_string_equal(error.field, cases[i].path);
			if (strstr(error.message, cases[i].message) == NULL)
				fail_msg("%s: %s", cases[i].path, error.message);
		}
		assert_encodes(message, cases[i].after ? cases[i].after : "{}");
		protobuf_c_message_free_unpacked(message, NULL);
	}
}

static void test_schema(void **state)
{
	struct buf out = {0};
	ProtobufCMessage *parsed;
	struct json_error error;

	(void)state;
	json_schema(&tb__site__descriptor, &out);
	assert_non_null(strstr(buf_string(&out),
			       "\"labels\":{\"type\":\"object\",\"additionalProperties\":"
			       "{\"type\":\"string\"}"));
	assert_non_null(strstr(buf_string(&out),
			       "\"policy\":{\"$ref\":\"#/components/schemas/SitePolicy\""));
	assert_non_null(
		strstr(buf_string(&out), "\"id\":{\"type\":\"string\",\"format\":\"uint64\""));
	/* It is JSON itself: an object whose first key is no field. */
	assert_int_equal(
		json_decode(&tb__empty__descriptor, buf_string(&out), out.len, &parsed, &error),
		-EINVAL);
	assert_string_equal(error.field, "type");
	assert_non_null(strstr(buf_string(&out), "\"description\":\"One remote office: "));
	assert_non_null(strstr(buf_string(&out),
			       "\"description\":\"given by the cluster, never used again\"}"));
	buf_clear(&out);
	json_schema(&tb__site_policy__descriptor, &out);
	assert_non_null(strstr(buf_string(&out),
			       "\"handover\":{\"type\":\"string\",\"enum\":[\"safe\",\"fast\"]"));
	assert_non_null(
		strstr(buf_string(&out), "; safe = two heartbeat intervals: no overlap; fast = "));
	/* A quote in a comment is one in the text. */
	assert_string_equal(description_find("tb.Certificate", "kind"),
			    "\"node\", \"client\" (API), \"site\" (QNet), \"agent\"");
	assert_null(description_find("tb.Site", "nothing"));
	buf_free(&out);
}

static void test_base64(void **state)
{
	static const struct {
		const char *text;
		const char *bytes;
		int rv;
	} cases[] = {
		{"", "", 0},
		{"Zg==", "f", 0},
		{"Zm8=", "fo", 0},
		{"Zm9v", "foo", 0},
		{"Zm9vYg==", "foob", 0},
		{"Zg", "f", 0},
		{"Zm8", "fo", 0},
		{"Zh", NULL, -EINVAL}, /* bits behind the last byte */
		{"Z", NULL, -EINVAL},
		{"Zg=", NULL, -EINVAL},
		{"Zg==Zg==", NULL, -EINVAL},
		{"====", NULL, -EINVAL},
		{"Zm9v\n", NULL, -EINVAL},
		{"=", NULL, -EINVAL},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		uint8_t *bytes = NULL;
		size_t len = 99;

		assert_int_equal(base64_decode(cases[i].text, strlen(cases[i].text), &bytes, &len),
				 cases[i].rv);
		if (cases[i].rv == 0) {
			assert_int_equal(len, strlen(cases[i].bytes));
			if (len > 0)
				assert_memory_equal(bytes, cases[i].bytes, len);
		}
		free(bytes);
	}
}

static void test_frames(void **state)
{
	Tb__PeerHello hello = TB__PEER_HELLO__INIT;
	Tb__PeerFrame frame = TB__PEER_FRAME__INIT;
	struct buf out = {0};
	const uint8_t *payload;
	size_t payload_len;
	size_t frame_len;
	ProtobufCMessage *message;

	(void)state;
	hello.node_id = 7;
	frame.what_case = TB__PEER_FRAME__WHAT_HELLO;
	frame.hello = &hello;
	frame_append(&out, &frame.base);
	frame_append(&out, &frame.base);
	for (size_t len = 0; len < out.len / 2; len++)
		assert_int_equal(frame_next(out.data, len, 100, &payload, &payload_len, &frame_len),
				 0);
	assert_int_equal(frame_next(out.data, out.len, 100, &payload, &payload_len, &frame_len), 1);
	assert_ptr_equal(payload, out.data + FRAME_HEAD);
	assert_int_equal(frame_len, out.len / 2);
	assert_int_equal(payload_len, frame_len - FRAME_HEAD);
	assert_int_equal(
		frame_next(out.data, out.len, payload_len, &payload, &payload_len, &frame_len), 1);
	assert_int_equal(frame_unpack(&tb__peer_frame__descriptor, payload, payload_len,
				      FRAME_MEMORY(payload_len), &message),
			 0);
	assert_int_equal(((Tb__PeerFrame *)message)->hello->node_id, 7);
	protobuf_c_message_free_unpacked(message, NULL);
	assert_int_equal(
		frame_next(out.data, 4, payload_len - 1, &payload, &payload_len, &frame_len),
		-EMSGSIZE);
	assert_int_equal(frame_next((const uint8_t *)"\xff\xff\xff\xff", 4, FRAME_MAX, &payload,
				    &payload_len, &frame_len),
			 -EMSGSIZE);
	buf_free(&out);
}

/* Every allocation of an unpacking fails once, and nothing leaks or breaks (asan sees it). */
static void test_unpack_bounds(void **state)
{
	static const char text[] =
		"{\"textValue\":\"a\",\"data\":\"AA==\",\"words\":[\"x\"],\"blobs\":[\"AA==\"],"
		"\"parts\":[{\"name\":\"x\",\"numbers\":[1,2]},{}],\"labels\":{\"a\":\"b\"},"
		"\"piece\":{\"name\":\"y\"}}";
	ProtobufCMessage *answer = decoded(&test__sample__descriptor, text);
	size_t len = protobuf_c_message_get_packed_size(answer);
	uint8_t *packed = mem_alloc(len);
	ProtobufCMessage *message = NULL;
	size_t budget = 0;

	(void)state;
	protobuf_c_message_pack(answer, packed);
	while (frame_unpack(&test__sample__descriptor, packed, len, budget, &message) != 0) {
		assert_null(message);
		budget++;
	}
	assert_encodes(message, text);
	assert_true(budget > 300 && budget < FRAME_MEMORY(len));
	protobuf_c_message_free_unpacked(message, NULL);
	protobuf_c_message_free_unpacked(answer, NULL);
	free(packed);
}

static void test_unpack_hostile(void **state)
{
	struct {
		const ProtobufCMessageDescriptor *type;
		const char *unit; /* repeated through the whole message */
		size_t unit_len;
	} cases[] = {
		/* Empty objects in a list: 2 bytes each. */
		{&tb__site_status__descriptor, "\x1a\x00", 2},
		/* Unknown fields: 2 bytes each. */
		{&tb__peer_frame__descriptor, "\x78\x00", 2},
		/* One list given again and again is copied again and again. */
		{&tb__peer_frame__descriptor, "\x22\x02\x0a\x00", 4},
	};
	enum { LEN = 1 << 20 };
	uint8_t *data = mem_alloc(LEN);

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		ProtobufCMessage *message = NULL;

		for (size_t at = 0; at < LEN; at += cases[i].unit_len)
			memcpy(data + at, cases[i].unit, cases[i].unit_len);
		assert_int_equal(
			frame_unpack(cases[i].type, data, LEN, FRAME_MEMORY(LEN), &message),
			-E2BIG);
		assert_null(message);
	}
	free(data);
}

/* The leanest that a board says, very often: it must never be taken for an attack. */
static void test_unpack_honest(void **state)
{
	enum { SESSIONS = 20000 };
	struct buf text = {0};
	struct buf out = {0};
	ProtobufCMessage *frame;
	ProtobufCMessage *again;

	(void)state;
	buf_puts(&text, "{\"events\":{\"events\":[");
	for (int i = 0; i < SESSIONS; i++)
		buf_printf(&text, "%s{\"session\":\"%d\",\"closed\":{}}", i > 0 ? "," : "", i);
	buf_puts(&text, "]}}");
	frame = decoded(&tb__peer_frame__descriptor, buf_string(&text));
	frame_append(&out, frame);
	assert_int_equal(frame_unpack(&tb__peer_frame__descriptor, out.data + FRAME_HEAD,
				      out.len - FRAME_HEAD, FRAME_MEMORY(out.len), &again),
			 0);
	protobuf_c_message_free_unpacked(frame, NULL);
	protobuf_c_message_free_unpacked(again, NULL);
	buf_free(&text);
	buf_free(&out);
}

static void test_unpack_unknown_fields(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		int rv;
	} cases[] = {
		{"\x78\x01", 2, 0}, /* a field of a newer board is kept */
		{"\x80\x00\x01", 3, -EBADMSG}, /* number 0, its tag in two bytes */
		{"\x0a\x03\x80\x00\x01", 5, -EBADMSG}, /* the same within hello */
		{"\x00\x01", 2, -EBADMSG},
		{"\x08\x01", 2, -EBADMSG}, /* hello is no number */
		{"\x0a\x7f", 2, -EBADMSG}, /* longer than the rest */
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		ProtobufCMessage *message = NULL;
		uint8_t packed[16];

		assert_int_equal(
			frame_unpack(&tb__peer_frame__descriptor, (const uint8_t *)cases[i].bytes,
				     cases[i].len, 4096, &message),
			cases[i].rv);
		if (cases[i].rv != 0)
			continue;
		assert_int_equal(protobuf_c_message_pack(message, packed), cases[i].len);
		assert_memory_equal(packed, cases[i].bytes, cases[i].len);
		protobuf_c_message_free_unpacked(message, NULL);
	}
}

/* What protobuf-c 1.4 unpacks safely: types that do not contain themselves (it has no limit of
 * depth), and no plain field of a type with a oneof (merging two of them when the oneof is unset
 * reads before the table of fields). */
static void check_type(const ProtobufCMessageDescriptor *type, int depth)
{
	assert_true(depth < 16);
	for (unsigned i = 0; i < type->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &type->fields[i];
		const ProtobufCMessageDescriptor *inner = field->descriptor;
		bool merged = field->label == PROTOBUF_C_LABEL_NONE &&
			      (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0;

		if (field->type != PROTOBUF_C_TYPE_MESSAGE)
			continue;
		for (unsigned j = 0; merged && j < inner->n_fields; j++)
			if ((inner->fields[j].flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0)
				fail_msg("%s.%s: a plain field of a type with a oneof", type->name,
					 field->name);
		check_type(inner, depth + 1);
	}
}

static void test_schema_is_safe(void **state)
{
	static const ProtobufCMessageDescriptor *const types[] = {
		&tb__peer_frame__descriptor, &tb__join_request__descriptor,
		&tb__join_reply__descriptor, &tb__entry__descriptor,
		&tb__snapshot__descriptor,   &tb__command_result__descriptor,
	};

	(void)state;
	for (size_t i = 0; i < COUNT(types); i++)
		check_type(types[i], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_syntax_place),
		cmocka_unit_test(test_long_names_fit),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_encode_string),
		cmocka_unit_test(test_unnamed_enum),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_set),
		cmocka_unit_test(test_schema),
		cmocka_unit_test(test_base64),
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_unpack_honest),
		cmocka_unit_test(test_unpack_unknown_fields),
		cmocka_unit_test(test_schema_is_safe),
		cmocka_unit_test(test_unpack_bounds),
		cmocka_unit_test(test_unpack_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
