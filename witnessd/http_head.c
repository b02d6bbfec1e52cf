#include "witnessd/http_head.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/mem.h"

int http_head_find(const uint8_t *data, size_t len, size_t *scanned)
{
	for (size_t i = *scanned; i < len; i++) {
		bool after_cr = i > 0 && data[i - 1] == '\r';

		if (i >= HTTP_HEAD_MAX)
			return memchr(data, '\n', i) ? -431 : -414;
		if (data[i] == '\0' || (data[i] == '\n') != after_cr)
			return -400;
		if (data[i] == '\n' && i == 1)
			return -400; /* an empty line first */
		if (data[i] == '\n' && data[i - 2] == '\n')
			return (int)i + 1;
	}
	*scanned = len;
	return 0;
}

enum class {
	TOKEN = 1, /* RFC 9110, 5.6.2 */
	TARGET = 2, /* RFC 3986: path and query without '%' */
	VALUE = 4, /* RFC 9110, 5.5: visible, space, tab, and bytes above 127 */
	HOST = 8, /* RFC 3986: host and port */
};

static unsigned class_of(uint8_t c)
{
	bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
	unsigned class = 0;

	if (c == '\0')
		return 0;
	if (word || strchr("!#$%&'*+-.^_`|~", c))
		class |= TOKEN;
	if (word || strchr("-._~!$&'()*+,;=:@/?", c))
		class |= TARGET;
	if (word || strchr("-._~!$&'()*+,;=:[]%", c))
		class |= HOST;
	if ((c >= 0x20 && c != 0x7f) || c == '\t')
		class |= VALUE;
	return class;
}

static size_t span(const char *text, const char *end, enum class class)
{
	const char *at = text;

	while (at < end && (class_of((uint8_t)*at) & class))
		at++;
	return (size_t)(at - text);
}

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool target_is_clean(const char *text, const char *end)
{
	while (text < end) {
		if (*text == '%') {
			if (end - text < 3 || !is_hex(text[1]) || !is_hex(text[2]))
				return false;
			text += 3;
		} else if (class_of((uint8_t)*text++) & TARGET) {
			continue;
		} else {
			return false;
		}
	}
	return true;
}

static int parse_version(const char *text, const char *end, struct http_head *ret,
			 const char **ret_why)
{
	if (end - text != 8 || memcmp(text, "HTTP/", 5) != 0 || text[5] < '0' || text[5] > '9' ||
	    text[6] != '.' || text[7] < '0' || text[7] > '9') {
		*ret_why = "the request line is not method, target, HTTP version";
		return -400;
	}
	if (text[5] != '1' || text[7] > '1') {
		*ret_why = "only HTTP/1.1 and HTTP/1.0 are spoken here";
		return -505;
	}
	ret->http_1_0 = text[7] == '0';
	ret->keep_alive = !ret->http_1_0;
	return 0;
}

static int parse_target(char *text, char *end, struct http_head *ret, const char **ret_why)
{
	if (end - text > HTTP_TARGET_MAX) {
		*ret_why = "the target is longer than 2048 bytes";
		return -414;
	}
	bool star = end - text == 1 && *text == '*' && strcmp(ret->method, "OPTIONS") == 0;
	if (!star && (*text != '/' || !target_is_clean(text, end))) {
		*ret_why = "the target is not a clean path";
		return -400;
	}
	*end = '\0';
	ret->path = text;
	ret->query = end;
	char *mark = strchr(text, '?');
	if (mark) {
		*mark = '\0';
		ret->query = mark + 1;
	}
	return 0;
}

static int parse_request_line(char *text, char *end, struct http_head *ret, const char **ret_why)
{
	size_t method_len = span(text, end, TOKEN);
	char *target = text + method_len + 1;
	char *space = target < end ? memchr(target, ' ', (size_t)(end - target)) : NULL;

	if (method_len == 0 || !space || target[-1] != ' ' || target == space) {
		*ret_why = "the request line is not method, target, HTTP version";
		return -400;
	}
	if (method_len > HTTP_METHOD_MAX) {
		*ret_why = "no such method";
		return -501;
	}
	int rv = parse_version(space + 1, end, ret, ret_why);
	if (rv < 0)
		return rv;
	text[method_len] = '\0';
	ret->method = text;
	return parse_target(target, space, ret, ret_why);
}

static int parse_field(char *text, char *end, struct http_head *ret, const char **ret_why)
{
	size_t name_len = span(text, end, TOKEN);

	if (name_len == 0 || text + name_len == end || text[name_len] != ':') {
		*ret_why = "a header line is folded or has no clean name";
		return -400;
	}
	char *value = text + name_len + 1;
	if (span(value, end, VALUE) != (size_t)(end - value)) {
		*ret_why = "a header value has control characters";
		return -400;
	}
	if (ret->field_count == HTTP_FIELD_MAX) {
		*ret_why = "more than 64 header lines";
		return -431;
	}
	while (value < end && (*value == ' ' || *value == '\t'))
		value++;
	while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	text[name_len] = '\0';
	*end = '\0';
	ret->fields[ret->field_count++] = (struct http_field){.name = text, .value = value};
	return 0;
}

static int take_length(const char *value, struct http_head *ret, const char **ret_why)
{
	size_t digits = strspn(value, "0123456789");

	if (digits == 0 || value[digits] != '\0') {
		*ret_why = "Content-Length is not a number";
		return -400;
	}
	if (digits > 18) {
		*ret_why = "Content-Length is beyond all bounds";
		return -413;
	}
	ret->content_length = strtoull(value, NULL, 10);
	return 0;
}

static int take_coding(const char *value, struct http_head *ret, const char **ret_why)
{
	if (ret->http_1_0 || ret->chunked) {
		*ret_why = "Transfer-Encoding twice, or in HTTP/1.0";
		return -400;
	}
	if (strcasecmp(value, "chunked") != 0) {
		*ret_why = "the only transfer coding is chunked";
		return -501;
	}
	ret->chunked = true;
	return 0;
}

/* A comma list of options; the only one that means something here is "close". */
static void take_connection(const char *value, struct http_head *ret)
{
	while (*value) {
		size_t len = strcspn(value, " \t,");

		if (len == 5 && strncasecmp(value, "close", 5) == 0)
			ret->keep_alive = false;
		value += len;
		value += strspn(value, " \t,");
	}
}

static int take_expect(const char *value, struct http_head *ret, const char **ret_why)
{
	if (strcasecmp(value, "100-continue") != 0) {
		*ret_why = "the only expectation is 100-continue";
		return -417;
	}
	ret->expect_continue = !ret->http_1_0;
	return 0;
}

/* What decides where the request ends and the next one begins. */
static int take_framing(struct http_head *ret, const char **ret_why)
{
	unsigned hosts = 0, lengths = 0;
	int rv = 0;

	for (unsigned i = 0; rv == 0 && i < ret->field_count; i++) {
		const char *name = ret->fields[i].name;
		const char *value = ret->fields[i].value;

		if (strcasecmp(name, "Host") == 0) {
			hosts++;
			if (span(value, value + strlen(value), HOST) != strlen(value))
				hosts = 2;
		} else if (strcasecmp(name, "Content-Length") == 0) {
			lengths++;
			rv = take_length(value, ret, ret_why);
		} else if (strcasecmp(name, "Transfer-Encoding") == 0) {
			rv = take_coding(value, ret, ret_why);
		} else if (strcasecmp(name, "Connection") == 0) {
			take_connection(value, ret);
		} else if (strcasecmp(name, "Expect") == 0) {
			rv = take_expect(value, ret, ret_why);
		}
	}
	if (rv < 0)
		return rv;
	if (hosts > 1 || (hosts == 0 && !ret->http_1_0)) {
		*ret_why = "exactly one clean Host is needed";
		return -400;
	}
	if (lengths > 1 || (lengths == 1 && ret->chunked)) {
		*ret_why = "the length of the body is stated twice";
		return -400;
	}
	return 0;
}

static int parse_lines(char *at, char *end, struct http_head *ret, const char **ret_why)
{
	int rv = 0;

	for (bool first = true; rv == 0; first = false) {
		char *cr = memchr(at, '\r', (size_t)(end - at));

		if (cr == at)
			return take_framing(ret, ret_why); /* the empty line */
		rv = first ? parse_request_line(at, cr, ret, ret_why)
			   : parse_field(at, cr, ret, ret_why);
		at = cr + 2;
	}
	return rv;
}

int http_head_parse(const uint8_t *data, size_t len, struct http_head *ret, const char **ret_why)
{
	*ret = (struct http_head){.text = mem_strndup((const char *)data, len)};
	int rv = parse_lines(ret->text, ret->text + len, ret, ret_why);
	if (rv < 0)
		http_head_free(ret);
	return rv;
}

void http_head_free(struct http_head *h)
{
	free(h->text);
	*h = (struct http_head){0};
}
