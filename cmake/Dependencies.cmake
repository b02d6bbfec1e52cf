# Third-party libraries, all from Debian. Each is named by one room (docs/ARCHITECTURE.md).
find_package(PkgConfig REQUIRED)
pkg_check_modules(PROTOBUF_C REQUIRED IMPORTED_TARGET libprotobuf-c)
pkg_check_modules(MNL REQUIRED IMPORTED_TARGET libmnl)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(LIBUV REQUIRED IMPORTED_TARGET libuv)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(OPENSSL REQUIRED IMPORTED_TARGET openssl)
pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)
pkg_check_modules(SMARTCOLS REQUIRED IMPORTED_TARGET smartcols)
# Debian's mbed TLS has no .pc file.
find_library(MBEDTLS_TLS mbedtls REQUIRED)
find_library(MBEDTLS_X509 mbedx509 REQUIRED)
find_library(MBEDTLS_CRYPTO mbedcrypto REQUIRED)
add_library(tb_mbedtls INTERFACE)
target_link_libraries(tb_mbedtls INTERFACE ${MBEDTLS_TLS} ${MBEDTLS_X509} ${MBEDTLS_CRYPTO})
find_package(Threads REQUIRED)
# Debian ships libraft as a static archive and its .pc names what it needs.
pkg_check_modules(RAFT REQUIRED raft)
find_library(RAFT_ARCHIVE libraft.a REQUIRED HINTS ${RAFT_LIBRARY_DIRS})
add_library(tb_raft INTERFACE)
target_link_libraries(tb_raft INTERFACE ${RAFT_ARCHIVE} PkgConfig::LIBUV lz4)

# hv: one small static program, so that a VM's process maps little (docs/decisions/0006-hv.md).
find_library(FDT_ARCHIVE libfdt.a REQUIRED)
find_library(ZLIB_ARCHIVE libz.a REQUIRED)
find_library(URING_ARCHIVE liburing.a REQUIRED)
find_library(SECCOMP_ARCHIVE libseccomp.a REQUIRED)
# Libraries of rooms that static programs use too: the archive for targets with the property TB_STATIC.
find_library(PROTOBUF_C_ARCHIVE libprotobuf-c.a REQUIRED HINTS ${PROTOBUF_C_LIBRARY_DIRS})
find_library(JANSSON_ARCHIVE libjansson.a REQUIRED HINTS ${JANSSON_LIBRARY_DIRS})
set(PROTOBUF_C_LINK $<IF:$<BOOL:$<TARGET_PROPERTY:TB_STATIC>>,${PROTOBUF_C_ARCHIVE},PkgConfig::PROTOBUF_C>)
set(JANSSON_LINK $<IF:$<BOOL:$<TARGET_PROPERTY:TB_STATIC>>,${JANSSON_ARCHIVE},PkgConfig::JANSSON>)
