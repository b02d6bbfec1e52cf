# The comments of .proto files as a C table for proto/description.c: protoc-c keeps them for people
# only. What is taken, in our own style of .proto:
#   - comment lines right above a message, enum or field, and the comment behind its opening brace,
#     describe it;
#   - the comment behind a field or value describes it, if it is alone on its line.
# Names are whole ("tb.Site", field "tie_breaker"; a type's own text has an empty field).
# Strings of .proto with "//" in them would be cut; we have none.

function trim(text) {
	gsub(/^[ \t]+|[ \t]+$/, "", text)
	return text
}

function quote(text) {
	gsub(/\\/, "\\\\", text)
	gsub(/"/, "\\\"", text)
	return "\"" text "\""
}

function join_words(a, b) {
	return a == "" ? b : b == "" ? a : a " " b
}

# Whole name of the innermost message or enum; a oneof has no name of its own.
function scope(  i, name) {
	name = package
	for (i = 1; i <= depth; i++)
		if (names[i] != "")
			name = name "." names[i]
	return name
}

function emit(type, field, text) {
	if (text != "")
		print "\t{" quote(type) ", " quote(field) ", " quote(text) "},"
}

# "repeated Site sites = 1" is `sites`, "LOWEST = 1" is `LOWEST`.
function field_name(statement) {
	sub(/[ \t]*=.*/, "", statement)
	sub(/.*[ \t>]/, "", statement)
	return statement
}

function block_open(statement,  words) {
	split(trim(statement), words, /[ \t]+/)
	names[++depth] = words[1] == "oneof" ? "" : words[2]
}

BEGIN {
	print "/* Made by cmake/descriptions.awk. */"
	print "#include \"proto/description.h\"\n"
	print "const struct description descriptions[] = {"
}

FNR == 1 {
	above = ""
}

{
	at = index($0, "//")
	code = trim(at ? substr($0, 1, at - 1) : $0)
	comment = at ? trim(substr($0, at + 2)) : ""
	if (code == "") {
		above = at ? join_words(above, comment) : ""
		next
	}
	fields = 0
	opened = ""
	while (match(code, /[{};]/)) {
		mark = substr(code, RSTART, 1)
		statement = trim(substr(code, 1, RSTART - 1))
		code = substr(code, RSTART + 1)
		if (mark == "{") {
			block_open(statement)
			opened = scope()
		} else if (mark == "}") {
			depth--
		} else if (statement ~ /^package /) {
			package = trim(substr(statement, 9))
		} else if (depth > 0 && statement ~ /=/) {
			fields++
			owner = scope()
			field = field_name(statement)
		}
	}
	if (opened != "" && fields == 1) {
		emit(opened, "", above)
		emit(owner, field, comment)
	} else if (opened != "") {
		emit(opened, "", join_words(above, comment))
	} else if (fields == 1) {
		emit(owner, field, join_words(above, comment))
	}
	above = ""
}

END {
	print "\t{0},\n};"
}
