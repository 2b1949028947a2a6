// What the runner and the file made for one kernel know of each other.
#pragma once
#include "threads.hpp"

namespace emu {

// One thread of a dispatch.
struct invocation {
  unsigned group[3], groups[3];  // its workgroup, and how many there are
  unsigned local[3], index;      // its place in the workgroup
  unsigned simdgroup, simdgroups, lane, simd_width;
};

// Made for the kernel: the size of its workgroup and of workgroup memory, and a call of its entry point.
extern const unsigned workgroup_size[3];
extern const size_t shared_bytes;
void call(const invocation& at);

// Memory that becomes a reference of the type that a parameter of the entry point has.
struct place {
  void* memory;
  size_t bytes;
  const char* what;
  unsigned number;
  template <class T> operator T&() const {
    if (sizeof(T) > bytes) fail("%s %u has %zu bytes, the kernel takes %zu", what, number, bytes, sizeof(T));
    return *static_cast<T*>(memory);
  }
};
// The buffer of this binding.
place buffer(unsigned binding);
// Its length in bytes, 0 if there is none: the kernel then does not use it.
unsigned length(unsigned binding);
// Workgroup memory from byte `offset` on, `bytes` long.
place shared(size_t offset, size_t bytes);
// naga's last parameter: the sizes in bytes of all buffers that end in an array without a length.
template <unsigned... Bindings> place sizes() {
  static unsigned all[] = {length(Bindings)...};
  return {all, sizeof all, "sizes", 0};
}

}  // namespace emu
