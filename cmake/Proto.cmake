# proto_library(<target> files.proto ...): compiles each file of this folder with protoc-c into the
# same place of the build tree.
find_program(PROTOC_C protoc-c REQUIRED)
function(proto_library target)
  set(sources "")
  file(RELATIVE_PATH folder ${CMAKE_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  foreach(file ${ARGN})
    get_filename_component(name ${file} NAME_WE)
    set(out ${CMAKE_BINARY_DIR}/${folder}/${name}.pb-c)
    add_custom_command(
      OUTPUT ${out}.c ${out}.h
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/${folder}
      COMMAND ${PROTOC_C} --proto_path=${CMAKE_SOURCE_DIR} --c_out=${CMAKE_BINARY_DIR} ${folder}/${file}
      DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${file}
      WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
      COMMENT "${folder}/${file}")
    list(APPEND sources ${out}.c ${out}.h)
  endforeach()
  add_library(${target} STATIC ${sources})
  target_include_directories(${target} SYSTEM PUBLIC ${CMAKE_BINARY_DIR})
  target_link_libraries(${target} PUBLIC ${PROTOBUF_C_LINK})
endfunction()
