# Given to CMake as -DCMAKE_PROJECT_INCLUDE=<this file> when ROS comes from PyPI wheels.
#
# Some message packages in those wheels export targets whose INTERFACE_INCLUDE_DIRECTORIES name
# folders of the machine that built the wheels (/opt/python/cp3xx/...). CMake refuses imported
# targets with folders that do not exist, so drop these once every package has been found. Targets
# that are used here get their Python and numpy headers from this machine's own find_package.

# CMAKE_PROJECT_INCLUDE runs at each project() call; one pass, at the end of the top level, is enough.
if(NOT CMAKE_CURRENT_SOURCE_DIR STREQUAL CMAKE_SOURCE_DIR)
  return()
endif()

function(drop_missing_include_dirs)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT folders)
      continue()
    endif()
    set(kept "")
    foreach(folder IN LISTS folders)
      # Generator expressions ($<...>) are not paths yet: leave them to CMake.
      if(folder MATCHES "\\$<" OR EXISTS "${folder}")
        list(APPEND kept "${folder}")
      endif()
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${kept}")
  endforeach()
endfunction()

cmake_language(DEFER CALL drop_missing_include_dirs)
