# One place for every compiler flag. Interface target `tb_flags` is linked by all rooms.
add_library(tb_flags INTERFACE)
target_compile_definitions(tb_flags INTERFACE _GNU_SOURCE TIEBREAK_VERSION="${PROJECT_VERSION}")
target_include_directories(tb_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(tb_flags INTERFACE
  -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition
  -Wpointer-arith -Wwrite-strings -Wvla -Wundef -Wformat=2 -Wimplicit-fallthrough
  -Wno-missing-field-initializers -fno-common -fstack-protector-strong
  -ffunction-sections -fdata-sections)
if(TIEBREAK_WERROR)
  target_compile_options(tb_flags INTERFACE -Werror)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Release" OR CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
  target_compile_definitions(tb_flags INTERFACE _FORTIFY_SOURCE=2)
endif()
# Asserts state our own mistakes; they stay on in release (docs/STYLE.md).
string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_RELEASE "${CMAKE_C_FLAGS_RELEASE}")
string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_RELWITHDEBINFO "${CMAKE_C_FLAGS_RELWITHDEBINFO}")
if(TIEBREAK_SANITIZE)
  target_compile_options(tb_flags INTERFACE -fsanitize=${TIEBREAK_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(tb_flags INTERFACE -fsanitize=${TIEBREAK_SANITIZE})
endif()
if(TIEBREAK_FUZZ)
  target_compile_options(tb_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined
    -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(tb_flags INTERFACE -fsanitize=address,undefined)
endif()
