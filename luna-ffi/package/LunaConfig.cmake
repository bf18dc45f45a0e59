# find_package(Luna): the targets Luna::luna (shared) and Luna::static, where each was installed.
get_filename_component(_luna_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

if(NOT TARGET Luna::luna)
    foreach(_luna_name libluna.so libluna.dylib luna.dll)
        if(EXISTS "${_luna_prefix}/lib/${_luna_name}")
            add_library(Luna::luna SHARED IMPORTED)
            set_target_properties(Luna::luna PROPERTIES
                IMPORTED_LOCATION "${_luna_prefix}/lib/${_luna_name}"
                IMPORTED_NO_SONAME TRUE
                INTERFACE_INCLUDE_DIRECTORIES "${_luna_prefix}/include")
            if(EXISTS "${_luna_prefix}/lib/luna.dll.lib")
                set_target_properties(Luna::luna PROPERTIES IMPORTED_IMPLIB "${_luna_prefix}/lib/luna.dll.lib")
            endif()
        endif()
    endforeach()
endif()

if(NOT TARGET Luna::static AND EXISTS "${_luna_prefix}/lib/libluna.a")
    find_package(Threads REQUIRED)
    add_library(Luna::static STATIC IMPORTED)
    set_target_properties(Luna::static PROPERTIES
        IMPORTED_LOCATION "${_luna_prefix}/lib/libluna.a"
        INTERFACE_INCLUDE_DIRECTORIES "${_luna_prefix}/include"
        INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};m")
endif()

unset(_luna_prefix)
unset(_luna_name)
