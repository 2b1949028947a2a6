// What the stand-in header needs of the runner: the threads of a workgroup meet.
#pragma once
#include <cstddef>
#include <cstring>

namespace emu {

// Ends the run with a message on standard error.
[[noreturn, gnu::format(printf, 1, 2)]] void fail(const char* format, ...);

// Waits for all threads of the workgroup. `line` is where in the kernel.
void barrier(unsigned line);

// What the lanes of a simdgroup hand in to an operation.
struct slot {
  alignas(16) unsigned char bytes[16];
};
struct meeting {
  const slot* slots;     // one per lane, good until this thread waits again
  unsigned lanes, own;   // lanes in the simdgroup (fewer in the last of a workgroup), and which one this is
};
// Hands in `bytes` bytes and waits for all lanes of the simdgroup.
meeting meet(const char* operation, unsigned line, const void* mine, size_t bytes);

template <class T> struct operands : meeting {
  T operator[](unsigned lane) const {
    T value;
    memcpy((void*)&value, slots[lane].bytes, sizeof value);
    return value;
  }
  // The value of a lane that must be there.
  T within(unsigned lane) const {
    if (lane >= lanes) fail("lane %u of a simdgroup reads lane %u, and there are %u", own, lane, lanes);
    return (*this)[lane];
  }
};
template <class T> operands<T> exchange(const char* operation, const T& mine, unsigned line) {
  static_assert(sizeof(T) <= sizeof(slot));
  return {meet(operation, line, &mine, sizeof mine)};
}

// A value that nobody may use: not a number, out of every range.
template <class T> T garbage() {
  T value;
  memset((void*)&value, 0xff, sizeof value);
  return value;
}

}  // namespace emu
