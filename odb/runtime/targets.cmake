# How each kind of target is made; CMakeLists.txt says which ones there are.

set(ODB_WARNINGS -Wall -Wextra -Wshadow -Wconversion)
# A user's compiler may know warnings that ours does not: they stop developers, not an installation.
if(NOT ODB_WHEEL)
  list(APPEND ODB_WARNINGS -Werror)
endif()

function(odb_compile target)
  # The library is there from the start of a program, so its thread-local variables are found without a call.
  target_compile_options(${target} PRIVATE ${ODB_WARNINGS} -ftls-model=initial-exec)
  target_compile_definitions(${target} PRIVATE _GNU_SOURCE)
  target_include_directories(${target} PRIVATE "${ODB_RUNTIME}")
  if(ODB_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${ODB_SANITIZE} -fno-sanitize-recover=all)
    target_link_options(${target} PUBLIC -fsanitize=${ODB_SANITIZE})
  endif()
endfunction()

# A static library, or nothing while it has no sources.
function(odb_static_library name sources)
  if(sources)
    add_library(${name} STATIC ${sources})
    odb_compile(${name})
    # For a wheel it is built because the shared library needs it, or not at all.
    set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL ${ODB_WHEEL})
  endif()
endfunction()

# Writes the version script: what hooks.def and odb.h name is exported, everything else is local.
function(odb_write_exports file)
  set(names "")
  set(hooks "${ODB_RUNTIME}/hooks/hooks.def")
  set(api "${ODB_RUNTIME}/include/odb.h")
  if(EXISTS "${hooks}")
    file(STRINGS "${hooks}" rows REGEX "^[ \t]*ODB_HOOK[A-Z_]*\\(")
    foreach(row IN LISTS rows)
      string(REGEX MATCH "^[ \t]*ODB_HOOK[A-Z_]*\\([^,]*,[ \t]*([A-Za-z_0-9]+)" _ "${row}")
      list(APPEND names "${CMAKE_MATCH_1}")
    endforeach()
  endif()
  if(EXISTS "${api}")
    file(STRINGS "${api}" rows REGEX "^ODB_API[ \t]")
    foreach(row IN LISTS rows)
      string(REGEX MATCH "(odb_[a-z_0-9]+)\\(" _ "${row}")
      list(APPEND names "${CMAKE_MATCH_1}")
    endforeach()
  endif()
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${hooks}" "${api}")
  list(JOIN names ";\n    " body)
  if(names)
    file(CONFIGURE OUTPUT "${file}" CONTENT "{\n  global:\n    @body@;\n  local: *;\n};\n" @ONLY)
  else()
    file(CONFIGURE OUTPUT "${file}" CONTENT "{ local: *; };\n" @ONLY)
  endif()
endfunction()

function(odb_shared_library name sources)
  add_library(${name} SHARED ${sources})
  odb_compile(${name})
  set(exports "${CMAKE_CURRENT_BINARY_DIR}/exports.map")
  odb_write_exports("${exports}")
  set_target_properties(${name} PROPERTIES LINK_DEPENDS "${exports}")
  set(parts odbcore)
  if(TARGET odbwire)
    list(APPEND parts odbwire)
  endif()
  # Whole archives: the hooks reach the core through one pointer, the linker must not drop what it cannot see used.
  # Bound at load time (now): a lazy binding inside a hook or a fault handler would enter the loader.
  target_link_libraries(${name} PRIVATE -Wl,--whole-archive ${parts} -Wl,--no-whole-archive Threads::Threads)
  target_link_options(${name} PRIVATE -Wl,-z,now -Wl,-z,defs -Wl,--version-script=${exports})
  install(TARGETS ${name} LIBRARY DESTINATION odb/lib COMPONENT library)
endfunction()

# vectors.h for the codec's tests, made from the shared JSON vectors.
function(odb_vectors)
  set(script "${PROJECT_SOURCE_DIR}/tests/vectors/to_c.py")
  if(NOT EXISTS "${script}")
    return()
  endif()
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  file(GLOB_RECURSE vectors CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/vectors/*.json")
  set(header "${CMAKE_CURRENT_BINARY_DIR}/generated/vectors.h")
  add_custom_command(
    OUTPUT "${header}"
    COMMAND ${CMAKE_COMMAND} -E make_directory "${CMAKE_CURRENT_BINARY_DIR}/generated"
    COMMAND Python3::Interpreter "${script}" "${header}"
    DEPENDS "${script}" ${vectors}
    COMMENT "Writing vectors.h"
    VERBATIM)
  add_custom_target(odb_vectors DEPENDS "${header}")
endfunction()

function(odb_native_tests)
  odb_vectors()
  add_custom_target(odb_tests)
  file(GLOB tests CONFIGURE_DEPENDS "${ODB_NATIVE}/test_*.c")
  file(GLOB support CONFIGURE_DEPENDS "${ODB_NATIVE}/support/*.c")
  odb_static_library(odbtestsupport "${support}")
  foreach(source IN LISTS tests)
    get_filename_component(name "${source}" NAME_WE)
    add_executable(${name} "${source}")
    odb_compile(${name})
    # assert() is how a native test judges: it stays on in every build type.
    target_compile_options(${name} PRIVATE -UNDEBUG)
    target_include_directories(${name} PRIVATE "${ODB_NATIVE}" "${CMAKE_CURRENT_BINARY_DIR}/generated")
    foreach(library odbtestsupport odbcore odbwire)
      if(TARGET ${library})
        target_link_libraries(${name} PRIVATE ${library})
      endif()
    endforeach()
    target_link_libraries(${name} PRIVATE Threads::Threads)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/native")
    if(TARGET odb_vectors)
      add_dependencies(${name} odb_vectors)
    endif()
    add_dependencies(odb_tests ${name})
  endforeach()
endfunction()

# What a sanitizer's own library needs beside it to run these programs; it comes after that in the order of symbols.
function(odb_beside_sanitizer)
  if(ODB_SANITIZE MATCHES thread)
    add_library(beside_sanitizer SHARED "${PROJECT_SOURCE_DIR}/tests/preload/beside/tsan.c")
    target_compile_options(beside_sanitizer PRIVATE ${ODB_WARNINGS} -U_FORTIFY_SOURCE)
    target_compile_definitions(beside_sanitizer PRIVATE _GNU_SOURCE)
    target_link_options(beside_sanitizer PRIVATE -fsanitize=thread)
  endif()
endfunction()

function(odb_preload_programs)
  add_custom_target(preload_programs)
  odb_beside_sanitizer()
  file(GLOB programs CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/preload/*.c")
  foreach(source IN LISTS programs)
    get_filename_component(name "${source}" NAME_WE)
    add_executable(${name} "${source}")
    odb_compile(${name})
    target_compile_options(${name} PRIVATE -UNDEBUG)
    target_link_libraries(${name} PRIVATE Threads::Threads)
    if(TARGET beside_sanitizer)
      target_link_options(${name} PRIVATE -Wl,--no-as-needed)
      target_link_libraries(${name} PRIVATE beside_sanitizer)
    endif()
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/preload")
    add_dependencies(preload_programs ${name})
  endforeach()
endfunction()

# libFuzzer comes with clang only, so its targets name clang themselves, whatever compiler builds the rest.
function(odb_fuzzers)
  find_program(ODB_CLANG NAMES clang)
  file(GLOB sources CONFIGURE_DEPENDS "${ODB_NATIVE}/fuzz_*.c")
  if(NOT ODB_CLANG OR NOT sources OR NOT WIRE_SOURCES)
    return()
  endif()
  file(GLOB headers CONFIGURE_DEPENDS "${ODB_RUNTIME}/wire/*.h")
  set(outputs "")
  foreach(source IN LISTS sources)
    get_filename_component(name "${source}" NAME_WE)
    set(output "${CMAKE_CURRENT_BINARY_DIR}/fuzz/${name}")
    add_custom_command(
      OUTPUT "${output}"
      COMMAND ${CMAKE_COMMAND} -E make_directory "${CMAKE_CURRENT_BINARY_DIR}/fuzz"
      COMMAND ${ODB_CLANG} -std=gnu11 -g -O1 -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined
              -fno-sanitize-recover=all -I "${ODB_RUNTIME}" "${source}" ${WIRE_SOURCES} -o "${output}"
      DEPENDS "${source}" ${WIRE_SOURCES} ${headers}
      COMMENT "Building ${name} with libFuzzer"
      VERBATIM)
    list(APPEND outputs "${output}")
  endforeach()
  add_custom_target(fuzz_wire DEPENDS ${outputs})
endfunction()
