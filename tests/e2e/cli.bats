#!/usr/bin/env bats
# witnessctl and the two corosync-qnetd commands against a board that can be told to fail.
# BIN: where the programs are. What needs a real cluster is in the tests that start one.

setup_file() {
	cd "$BATS_FILE_TMPDIR"
	openssl ecparam -name prime256v1 -genkey -noout -out ca.key
	openssl req -x509 -new -key ca.key -subj "/CN=cluster CA" -days 2 -out ca.crt
	for leaf in node:tiebreak:node/1 other:tiebreak:client/admin; do
		name=${leaf%%:*}
		openssl ecparam -name prime256v1 -genkey -noout -out $name.key
		openssl req -new -key $name.key -subj "/CN=$name" -out $name.csr
		printf 'subjectAltName=URI:%s\nextendedKeyUsage=serverAuth,clientAuth\n' "${leaf#*:}" >$name.ext
		openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 \
			-extfile $name.ext -out $name.crt 2>/dev/null
		cat $name.crt ca.crt >$name.chain
	done
}

setup() {
	cd "$BATS_TEST_TMPDIR"
	cp "$BATS_FILE_TMPDIR"/*.chain "$BATS_FILE_TMPDIR"/*.key .
	export TIEBREAK_SOCKET=$PWD/board.sock TZ=UTC
	PATH=$BIN:$PATH
}

teardown() {
	[ -z "${board:-}" ] || kill "$board"
}

# $1: how many bulk requests are refused first
board() {
	python3 "$BATS_TEST_DIRNAME/fake_board.py" . "${1:-0}" 3>&- &
	board=$!
	for _ in $(seq 100); do
		[ ! -e ports ] || break
		sleep 0.1
	done
	read -r node_port other_port <ports || true
}

token() {
	printf 'tb1.0123456789abcdef.%064d.%s' 1 "$1"
}

pin() {
	openssl x509 -in "$BATS_FILE_TMPDIR/ca.crt" -outform der | sha256sum | cut -c1-64
}

many() {
	echo name,algorithm,label.region,label.note
	seq -f 'site-%05.0f,ffsplit,emea,""' "$1"
}

@test "no daemon: exit code 3, and it says where it looked" {
	run witnessctl site list
	[ $status -eq 3 ]
	[[ $output == *"cannot reach witnessd at $TIEBREAK_SOCKET"* ]]
}

@test "usage errors: exit code 2, with a suggestion" {
	run witnessctl site lst
	[ $status -eq 2 ]
	[[ $output == *'did you mean "site list"?'* ]]
	run witnessctl site list --wacth
	[ $status -eq 2 ]
	[[ $output == *"did you mean --watch?"* ]]
}

@test "every command explains itself" {
	for path in $(witnessctl __complete -- "") ; do
		witnessctl help "$path" >/dev/null
	done
	run witnessctl site import --help
	[ $status -eq 0 ]
	[[ $output == *"RFC 4180"* && $output == *"Exit codes:"* ]]
}

@test "not found: exit code 4; no quorum: exit code 5" {
	board
	run witnessctl site show nowhere
	[ $status -eq 4 ]
	[[ $output == *'there is no site "nowhere"; witnessctl site list'* ]]
	run witnessctl status
	[ $status -eq 5 ]
	[[ $output == *no-quorum* ]]
	run witnessctl status --wait ok --timeout 300ms
	[ $status -eq 5 ]
}

@test "import: created, then unchanged, and so is what export prints" {
	board
	many 600 >sites.csv
	[[ $(witnessctl site import sites.csv --dry-run) == "600 sites: 600 would be created"* ]]
	[[ $(witnessctl site list -o name | wc -l) -eq 0 ]]
	[[ $(witnessctl site import sites.csv) == "600 sites: 600 created, 0 changed, 0 unchanged"* ]]
	[[ $(witnessctl site import sites.csv) == "600 sites: 0 created, 0 changed, 600 unchanged"* ]]
	witnessctl site export >export.csv
	witnessctl site export --format json >export.json
	witnessctl site list -o json >list.json
	for file in export.csv export.json list.json; do
		[[ $(witnessctl site import $file) == "600 sites: 0 created, 0 changed, 600 unchanged"* ]]
	done
	[ "$(jq '.items | length' list.json)" -eq 600 ]
	[ "$(witnessctl site list | wc -l)" -eq 601 ]
}

@test "import: a bad row in the last line stops it before anything is sent" {
	board
	many 600 >sites.csv
	echo 'last,ffsplt,,' >>sites.csv
	run witnessctl site import sites.csv
	[ $status -eq 2 ]
	[[ $output == *'sites.csv:602:6: policy.algorithm: "ffsplt" is not an algorithm; did you mean "ffsplit"?'* ]]
	[ ! -s requests ]
}

@test "import: what only the cluster refuses is told at its line" {
	board
	printf 'name\ngood\npoison\n' >sites.csv
	run witnessctl site import sites.csv
	[ $status -eq 1 ]
	[[ $output == *'sites.csv:3:1: site "poison": is poison'* ]]
}

@test "import: no leader for a while is waited out, under one idempotency key for each batch" {
	board 3
	many 300 >sites.csv
	[[ $(witnessctl site import sites.csv) == "300 sites: 300 created"* ]]
	[ "$(wc -l <requests)" -eq 5 ]
	[ "$(jq -r '.headers."Idempotency-Key"' requests | sort -u | wc -l)" -eq 2 ]
}

@test "import: standard input, a file that is no text, one that is endless" {
	board
	[[ $(many 3 | witnessctl site import -) == "3 sites: 3 created"* ]]
	run witnessctl site import /bin/true
	[ $status -eq 2 ]
	[[ $output == "/bin/true:1:"* ]]
	run timeout 20 witnessctl site import /dev/zero
	[ $status -eq 2 ]
	run timeout 20 bash -c 'yes "a,b" | witnessctl site import -'
	[ $status -eq 2 ]
}

@test "a remote board is believed by the fingerprint in the token" {
	board
	run witnessctl --server "https://127.0.0.1:$node_port" --token "$(token "$(pin)")" node list -o name
	[ $status -eq 0 ]
	[ "$output" = board1 ]
	[ "$(jq -r .headers.Authorization requests)" = "Bearer $(token "$(pin)")" ]
}

@test "a board of another cluster is refused before the token is sent" {
	board
	run witnessctl --server "https://127.0.0.1:$node_port" --token "$(token "$(printf '%064d' 5)")" node list
	[ $status -eq 3 ]
	[[ $output == *"it belongs to another cluster than the token"* ]]
	[ ! -s requests ]
}

@test "a certificate of this cluster that is not a board's is refused" {
	board
	run witnessctl --server "https://127.0.0.1:$other_port" --token "$(token "$(pin)")" node list
	[ $status -eq 3 ]
	[[ $output == *"not a board's"* ]]
	[ ! -s requests ]
}

@test "the next server is tried, and a CA file does as well as a token" {
	board
	run witnessctl --server "127.0.0.1:1,127.0.0.1:$other_port" -s "127.0.0.1:$node_port" \
		--ca "$BATS_FILE_TMPDIR/ca.crt" --cert "$BATS_FILE_TMPDIR/other.crt" \
		--key "$BATS_FILE_TMPDIR/other.key" node list -o name
	[ $status -eq 0 ]
	[ "$output" = board1 ]
	run witnessctl --server "127.0.0.1:$node_port" node list
	[ $status -eq 2 ]
	[[ $output == *"whom to believe?"* ]]
}

@test "watching goes on behind the last event when the connection is lost" {
	board
	run witnessctl event list --watch -o json
	[ $status -eq 1 ]
	[ "$(printf '%s\n' "${lines[@]:0:3}" | jq -r .message | tr '\n' ' ')" = "event 1 event 2 event 3 " ]
	[[ ${lines[3]} == *"that is enough"* ]]
}

@test "set sends only what is given, and defaults too" {
	board
	witnessctl site create a -l x=1 --tie-breaker 7
	witnessctl site set a --tie-breaker any --tls required -l y=2 -l x- --if-revision 3
	[ "$(tail -1 requests | jq -c .body)" = '{"labels":{"y":"2","x":null},"policy":{"tieBreaker":"any","tieBreakerNode":0,"tls":"required"}}' ]
	[ "$(tail -1 requests | jq -r '.headers."If-Match"')" = '"3"' ]
}

@test "enroll writes the files, the key only for its owner" {
	board
	witnessctl site create a
	run witnessctl site enroll a --out files
	[ $status -eq 0 ]
	[[ $output == *"corosync-qdevice-net-certutil -m -c"* ]]
	[ "$(cat files/qnetd-cacert.crt files/cluster-a.crt files/qdevice-net-node.p12)" = CADERP12 ]
	[ "$(stat -c %a files/qdevice-net-node.p12)" = 600 ]
	run witnessctl site enroll ../a
	[ $status -eq 2 ]
}

@test "completion knows commands, options, words and sites" {
	board
	witnessctl site create office-1
	[ "$(witnessctl __complete -- site ex)" = export ]
	[ "$(witnessctl __complete -- site list --stat)" = --state ]
	[ "$(witnessctl __complete -- site list --state sp)" = split ]
	[ "$(witnessctl __complete -- site show off)" = office-1 ]
	[ "$(witnessctl __complete -- site import f)" = :files ]
}

@test "corosync-qnetd-certutil: the steps of corosync-qdevice-net-certutil -Q and pvecm" {
	board
	export TIEBREAK_QNETD_NSSDB=$PWD/etc/qnetd/nssdb
	corosync-qnetd-certutil -i
	corosync-qnetd-certutil -i
	[ "$(cat etc/qnetd/nssdb/qnetd-cacert.crt)" = PEM ]
	openssl req -new -key node.key -subj /CN=office -outform der -out node.crq
	corosync-qnetd-certutil -s -c node.crq -n office
	[ "$(cat etc/qnetd/nssdb/cluster-office.crt)" = DER ]
	[ "$(tail -1 requests | jq -r .body.csr | base64 -d | cmp - node.crq && echo same)" = same ]
	run corosync-qnetd-certutil -s -c nothing -n office
	[ $status -eq 2 ]
	run corosync-qnetd-certutil -s -c node.crq -n ../office
	[ $status -eq 2 ]
}

@test "corosync-qnetd-tool: the words of the original" {
	board
	witnessctl site create office
	[ "$(corosync-qnetd-tool -s)" = "QNetd address:			*:5403
TLS:				Supported (client certificate required)
Connected clients:		1
Connected clusters:		1" ]
	[[ $(corosync-qnetd-tool -l) == 'Cluster "office":
    Algorithm:		Fifty-Fifty split
    Tie-breaker:	Node with lowest node ID
    Node ID 1:
        Client address:		192.0.2.1:40000'* ]]
	[ -z "$(corosync-qnetd-tool -l -c elsewhere)" ]
	run corosync-qnetd-tool -s -p /nowhere
	[ $status -eq 3 ]
}
